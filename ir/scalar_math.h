/* Scalar functions of generated programs and of the evaluator: one text, so that both give the same bits.
 *
 * mx_NAME_f32, mx_NAME_f64, mx_NAME_i (int64_t) and mx_NAME_u (uint64_t) for the functions that ir/scalar.def calls
 * M(NAME); conversions; random bits. The generator pastes single functions out of this file into its output: each is
 * preceded by a line that gives its name and the names it needs, and keeps its constants inside.
 *
 * f32 exp, expm1, log, log1p, sigmoid, tanh, erf, sin, cos and tan are free of branches and of calls, so that a loop
 * over them vectorizes at -O3 (with SSE2 too); sqrt needs -fno-math-errno for that. They are written for separate
 * rounding of products and sums (-ffp-contract=off): nothing relies on contraction for accuracy. Largest errors found
 * by dense sampling, in units of the last place (asserted by tests/unit/test_scalar_math.c):
 *
 *     exp 1.1   expm1 1.6   log 0.9   log1p 0.9   sigmoid 2.3   tanh 1.4   erf 1.2   sin, cos 0.6   tan 0.9
 *
 * sin, cos and tan hold this for |x| < 2^32; beyond, neighbouring floats are several periods apart and the angle is
 * taken as 0. The other f32 functions and all f64 ones are those of libm.
 */
#ifndef MX_SCALAR_MATH_H
#define MX_SCALAR_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* ---- bits ---- */

/*@ mx_bits_f32: */
static inline uint32_t mx_bits_f32(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

/*@ mx_from_bits_f32: */
static inline float mx_from_bits_f32(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/*@ mx_bits_f64: */
static inline uint64_t mx_bits_f64(double x) {
    uint64_t u;
    memcpy(&u, &x, 8);
    return u;
}

/*@ mx_from_bits_f64: */
static inline double mx_from_bits_f64(uint64_t u) {
    double x;
    memcpy(&x, &u, 8);
    return x;
}

/*@ mx_pick_f32: mx_bits_f32 mx_from_bits_f32 */
/* condition (0 or 1) ? a : b, without a branch that would keep a loop from being vectorized. */
static inline float mx_pick_f32(int condition, float a, float b) {
    uint32_t m = 0U - (uint32_t)condition;
    return mx_from_bits_f32((mx_bits_f32(a) & m) | (mx_bits_f32(b) & ~m));
}

/*@ mx_pick_f64: mx_bits_f64 mx_from_bits_f64 */
static inline double mx_pick_f64(int condition, double a, double b) {
    uint64_t m = 0U - (uint64_t)condition;
    return mx_from_bits_f64((mx_bits_f64(a) & m) | (mx_bits_f64(b) & ~m));
}

/* ---- arithmetic of floats ---- */

/*@ mx_add_f32: */
static inline float mx_add_f32(float a, float b) {
    return a + b;
}

/*@ mx_sub_f32: */
static inline float mx_sub_f32(float a, float b) {
    return a - b;
}

/*@ mx_mul_f32: */
static inline float mx_mul_f32(float a, float b) {
    return a * b;
}

/*@ mx_div_f32: */
static inline float mx_div_f32(float a, float b) {
    return a / b;
}

/*@ mx_mod_f32: */
static inline float mx_mod_f32(float a, float b) /* the sign of the divisor */
{
    float r = fmodf(a, b);
    r = ((r != 0) & ((r < 0) != (b < 0))) ? r + b : r;
    return r == 0 ? copysignf(0, b) : r;
}

/*@ mx_pow_f32: */
static inline float mx_pow_f32(float a, float b) {
    return powf(a, b);
}

/*@ mx_fma_f32: */
/* One rounding where the target says how (MX_FMA is its intrinsic), else two. */
static inline float mx_fma_f32(float a, float b, float c) {
#ifdef MX_FMA
    return MX_FMA(a, b, c);
#else
    return a * b + c;
#endif
}

/*@ mx_neg_f32: */
static inline float mx_neg_f32(float a) {
    return -a;
}

/*@ mx_abs_f32: */
static inline float mx_abs_f32(float a) {
    return fabsf(a);
}

/*@ mx_sign_f32: mx_pick_f32 */
static inline float mx_sign_f32(float a) {
    return mx_pick_f32(a != a, a, (float)((a > 0) - (a < 0)));
}

/*@ mx_max_f32: */
/* nan passes on; at equal arguments b. Two selections by one comparison each: gcc does not vectorize a selection by an `or`. */
static inline float mx_max_f32(float a, float b) {
    float m = a > b ? a : b;
    return a == a ? m : a;
}

/*@ mx_min_f32: */
static inline float mx_min_f32(float a, float b) {
    float m = a < b ? a : b;
    return a == a ? m : a;
}

/*@ mx_sqrt_f32: */
static inline float mx_sqrt_f32(float a) {
    return sqrtf(a);
}

/*@ mx_asin_f32: */
static inline float mx_asin_f32(float a) {
    return asinf(a);
}

/*@ mx_acos_f32: */
static inline float mx_acos_f32(float a) {
    return acosf(a);
}

/*@ mx_atan_f32: */
static inline float mx_atan_f32(float a) {
    return atanf(a);
}

/*@ mx_sinh_f32: */
static inline float mx_sinh_f32(float a) {
    return sinhf(a);
}

/*@ mx_cosh_f32: */
static inline float mx_cosh_f32(float a) {
    return coshf(a);
}

/*@ mx_asinh_f32: */
static inline float mx_asinh_f32(float a) {
    return asinhf(a);
}

/*@ mx_acosh_f32: */
static inline float mx_acosh_f32(float a) {
    return acoshf(a);
}

/*@ mx_atanh_f32: */
static inline float mx_atanh_f32(float a) {
    return atanhf(a);
}

/*@ mx_atan2_f32: */
static inline float mx_atan2_f32(float a, float b) {
    return atan2f(a, b);
}

/*@ mx_add_f64: */
static inline double mx_add_f64(double a, double b) {
    return a + b;
}

/*@ mx_sub_f64: */
static inline double mx_sub_f64(double a, double b) {
    return a - b;
}

/*@ mx_mul_f64: */
static inline double mx_mul_f64(double a, double b) {
    return a * b;
}

/*@ mx_div_f64: */
static inline double mx_div_f64(double a, double b) {
    return a / b;
}

/*@ mx_mod_f64: */
static inline double mx_mod_f64(double a, double b) /* the sign of the divisor */
{
    double r = fmod(a, b);
    r = ((r != 0) & ((r < 0) != (b < 0))) ? r + b : r;
    return r == 0 ? copysign(0, b) : r;
}

/*@ mx_pow_f64: */
static inline double mx_pow_f64(double a, double b) {
    return pow(a, b);
}

/*@ mx_fma_f64: */
/* One rounding where the target says how (MX_FMA_F64 is its intrinsic), else two. */
static inline double mx_fma_f64(double a, double b, double c) {
#ifdef MX_FMA_F64
    return MX_FMA_F64(a, b, c);
#else
    return a * b + c;
#endif
}

/*@ mx_neg_f64: */
static inline double mx_neg_f64(double a) {
    return -a;
}

/*@ mx_abs_f64: */
static inline double mx_abs_f64(double a) {
    return fabs(a);
}

/*@ mx_sign_f64: mx_pick_f64 */
static inline double mx_sign_f64(double a) {
    return mx_pick_f64(a != a, a, (double)((a > 0) - (a < 0)));
}

/*@ mx_max_f64: */
static inline double mx_max_f64(double a, double b) {
    double m = a > b ? a : b;
    return a == a ? m : a;
}

/*@ mx_min_f64: */
static inline double mx_min_f64(double a, double b) {
    double m = a < b ? a : b;
    return a == a ? m : a;
}

/*@ mx_sqrt_f64: */
static inline double mx_sqrt_f64(double a) {
    return sqrt(a);
}

/*@ mx_asin_f64: */
static inline double mx_asin_f64(double a) {
    return asin(a);
}

/*@ mx_acos_f64: */
static inline double mx_acos_f64(double a) {
    return acos(a);
}

/*@ mx_atan_f64: */
static inline double mx_atan_f64(double a) {
    return atan(a);
}

/*@ mx_sinh_f64: */
static inline double mx_sinh_f64(double a) {
    return sinh(a);
}

/*@ mx_cosh_f64: */
static inline double mx_cosh_f64(double a) {
    return cosh(a);
}

/*@ mx_asinh_f64: */
static inline double mx_asinh_f64(double a) {
    return asinh(a);
}

/*@ mx_acosh_f64: */
static inline double mx_acosh_f64(double a) {
    return acosh(a);
}

/*@ mx_atanh_f64: */
static inline double mx_atanh_f64(double a) {
    return atanh(a);
}

/*@ mx_atan2_f64: */
static inline double mx_atan2_f64(double a, double b) {
    return atan2(a, b);
}

/*@ mx_floor_f64: */
static inline double mx_floor_f64(double a) {
    return floor(a);
}

/*@ mx_ceil_f64: */
static inline double mx_ceil_f64(double a) {
    return ceil(a);
}

/*@ mx_trunc_f64: */
static inline double mx_trunc_f64(double a) {
    return trunc(a);
}

/*@ mx_exp_f64: */
static inline double mx_exp_f64(double a) {
    return exp(a);
}

/*@ mx_expm1_f64: */
static inline double mx_expm1_f64(double a) {
    return expm1(a);
}

/*@ mx_log_f64: */
static inline double mx_log_f64(double a) {
    return log(a);
}

/*@ mx_log1p_f64: */
static inline double mx_log1p_f64(double a) {
    return log1p(a);
}

/*@ mx_erf_f64: */
static inline double mx_erf_f64(double a) {
    return erf(a);
}

/*@ mx_sin_f64: */
static inline double mx_sin_f64(double a) {
    return sin(a);
}

/*@ mx_cos_f64: */
static inline double mx_cos_f64(double a) {
    return cos(a);
}

/*@ mx_tan_f64: */
static inline double mx_tan_f64(double a) {
    return tan(a);
}

/*@ mx_tanh_f64: */
static inline double mx_tanh_f64(double a) {
    return tanh(a);
}

/*@ mx_round_f64: */
static inline double mx_round_f64(double a) /* half to even */
{
    return nearbyint(a);
}

/*@ mx_sigmoid_f64: */
static inline double mx_sigmoid_f64(double a) {
    double e = exp(-fabs(a)); /* a != a passes through */
    return (a < 0 ? e : 1) / (1 + e);
}

/* ---- rounding of f32: the conversion to int32_t vectorizes everywhere ---- */

/*@ mx_trunc_f32: mx_bits_f32 mx_from_bits_f32 mx_pick_f32 */
static inline float mx_trunc_f32(float a) {
    int small = fabsf(a) < 8388608.0f; /* else an integer, inf or nan already */
    float c = mx_pick_f32(small, a, 0.0f), t = (float)(int32_t)c;
    t = mx_from_bits_f32(mx_bits_f32(t) | (mx_bits_f32(a) & 0x80000000U)); /* -0 */
    return mx_pick_f32(small, t, a);
}

/*@ mx_floor_f32: mx_bits_f32 mx_from_bits_f32 mx_pick_f32 */
static inline float mx_floor_f32(float a) {
    int small = fabsf(a) < 8388608.0f; /* else an integer, inf or nan already */
    float c = mx_pick_f32(small, a, 0.0f), t = (float)(int32_t)c;
    t = t - mx_pick_f32(t > c, 1.0f, 0.0f);
    t = mx_from_bits_f32(mx_bits_f32(t) | (mx_bits_f32(a) & 0x80000000U)); /* -0 */
    return mx_pick_f32(small, t, a);
}

/*@ mx_ceil_f32: mx_bits_f32 mx_from_bits_f32 mx_pick_f32 */
static inline float mx_ceil_f32(float a) {
    int small = fabsf(a) < 8388608.0f; /* else an integer, inf or nan already */
    float c = mx_pick_f32(small, a, 0.0f), t = (float)(int32_t)c;
    t = t + mx_pick_f32(t < c, 1.0f, 0.0f);
    t = mx_from_bits_f32(mx_bits_f32(t) | (mx_bits_f32(a) & 0x80000000U)); /* -0 */
    return mx_pick_f32(small, t, a);
}

/*@ mx_round_f32: mx_bits_f32 mx_from_bits_f32 mx_pick_f32 */
static inline float mx_round_f32(float a) /* half to even */
{
    float m = fabsf(a), t = (m + 8388608.0f) - 8388608.0f;
    t = mx_from_bits_f32(mx_bits_f32(t) | (mx_bits_f32(a) & 0x80000000U));
    return mx_pick_f32(m < 8388608.0f, t, a);
}

/* ---- exponentials ---- */

/*@ mx_exp_f32: mx_bits_f32 mx_from_bits_f32 mx_pick_f32 */
/* 2^n exp(r), |r| <= ln 2 / 2: Cody and Waite's reduction, a polynomial of degree 6; 2^n in two factors, so that the
 * result may be denormal. */
static inline float mx_exp_f32(float x) {
    float c = mx_pick_f32(x > 104.0f, 104.0f, x);
    c = mx_pick_f32(c < -104.0f, -104.0f, c);
    float z = c * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer in the low bits */
    int32_t n = (int32_t)(mx_bits_f32(z) - 0x4b400000U);
    z -= 12582912.0f;
    float r = (c - z * 0.693145752f) - z * 1.42860677e-6f;
    float p = 0.001392768462f;
    p = p * r + 0.008364380693f;
    p = p * r + 0.04166654542f;
    p = p * r + 0.1666656963f;
    p = p * r + 0.5f;
    p = 1.0f + (r + p * (r * r));
    int32_t h = n >> 1;
    float y = p * mx_from_bits_f32((uint32_t)(h + 127) << 23) * mx_from_bits_f32((uint32_t)(n - h + 127) << 23);
    return mx_pick_f32(x != x, x, y);
}

/*@ mx_expm1_f32: mx_bits_f32 mx_from_bits_f32 mx_pick_f32 */
/* 2^n (exp(r) - 1) + (2^n - 1), computed at half its size so that 2^128 does not occur. */
static inline float mx_expm1_f32(float x) {
    float c = mx_pick_f32(x > 89.0f, 89.0f, x);
    c = mx_pick_f32(c < -30.0f, -30.0f, c);
    float z = c * 1.44269504f + 12582912.0f;
    int32_t n = (int32_t)(mx_bits_f32(z) - 0x4b400000U);
    z -= 12582912.0f;
    float r = (c - z * 0.693145752f) - z * 1.42860677e-6f;
    float p = 0.0001984127f;
    p = p * r + 0.00138888889f;
    p = p * r + 0.00833333333f;
    p = p * r + 0.0416666667f;
    p = p * r + 0.166666667f;
    p = p * r + 0.5f;
    p = r + p * (r * r);
    float h = mx_from_bits_f32((uint32_t)(n + 126) << 23); /* 2^(n - 1) */
    float y = 2.0f * (h * p + (h - 0.5f));
    y = mx_pick_f32(fabsf(x) < 1e-4f, x * (1.0f + 0.5f * x), y);
    return mx_pick_f32(x != x, x, y);
}

/*@ mx_sigmoid_f32: mx_pick_f32 mx_exp_f32 */
static inline float mx_sigmoid_f32(float x) {
    float e = mx_exp_f32(-fabsf(x));
    return mx_pick_f32(x < 0.0f, e, 1.0f) / (1.0f + e);
}

/*@ mx_tanh_f32: mx_bits_f32 mx_from_bits_f32 mx_pick_f32 mx_exp_f32 */
static inline float mx_tanh_f32(float x) {
    float a = fabsf(x), u = x * x;
    float p = -0.005992961254f;
    p = p * u + 0.02092414818f;
    p = p * u - 0.05383514126f;
    p = p * u + 0.1333266348f;
    p = p * u - 0.3333332786f;
    p = x + x * (u * p);
    float t = 1.0f - 2.0f / (mx_exp_f32(2.0f * a) + 1.0f);
    t = mx_pick_f32(a < 0.64f, p, t);
    t = mx_from_bits_f32(mx_bits_f32(t) | (mx_bits_f32(x) & 0x80000000U)); /* -0 too */
    return mx_pick_f32(x != x, x, t);
}

/*@ mx_erf_f32: mx_bits_f32 mx_from_bits_f32 mx_pick_f32 mx_exp_f32 */
static inline float mx_erf_f32(float x) {
    float a = fabsf(x), u = x * x;
    float p = -0.0005967310878f;
    p = p * u + 0.004988906025f;
    p = p * u - 0.02676399514f;
    p = p * u + 0.1128175413f;
    p = p * u - 0.3761248904f;
    p = p * u + 0.1283791491f;
    p = x + x * p;
    a = mx_pick_f32(a > 4.0f, 4.0f, a);
    float s = -1.643569654e-6f; /* erf(a) = 1 - exp(-s(a)) */
    s = s * a + 4.617791279e-5f;
    s = s * a - 0.000597743472f;
    s = s * a + 0.004763575249f;
    s = s * a - 0.0264310176f;
    s = s * a + 0.1100944808f;
    s = s * a + 0.6318145167f;
    s = s * a + 1.130237616f;
    s = s * a - 0.0003204415313f;
    float t = 1.0f - mx_exp_f32(-s);
    t = mx_from_bits_f32(mx_bits_f32(t) | (mx_bits_f32(x) & 0x80000000U));
    return mx_pick_f32(fabsf(x) < 0.93f, p, mx_pick_f32(x != x, x, t));
}

/* ---- logarithms ---- */

/*@ mx_log_f32: mx_bits_f32 mx_from_bits_f32 mx_pick_f32 */
/* After FreeBSD's e_logf.c: x = 2^k (1 + f), log(1 + f) by a polynomial in (f / (2 + f))^2. */
static inline float mx_log_f32(float x) {
    int tiny = x < 1.17549435e-38f;
    uint32_t u = mx_bits_f32(mx_pick_f32(tiny, x * 33554432.0f, x)) + (0x3f800000U - 0x3f3504f3U);
    float k = (float)((int32_t)(u >> 23) - 127 - 25 * tiny);
    float f = mx_from_bits_f32((u & 0x007fffffU) + 0x3f3504f3U) - 1.0f;
    float s = f / (2.0f + f), v = s * s, w = v * v;
    float t1 = w * (0.40000972152f + w * 0.24279078841f);
    float t2 = v * (0.66666662693f + w * 0.28498786688f);
    float h = 0.5f * f * f;
    float y = s * (h + (t1 + t2)) + k * 9.0580006145e-06f - h + f + k * 6.9313812256e-01f;
    y = mx_pick_f32((x == x) & !(x > 3.40282347e38f), y, x); /* inf, nan */
    y = mx_pick_f32(x == 0.0f, -mx_from_bits_f32(0x7f800000U), y);
    return mx_pick_f32(x < 0.0f, mx_from_bits_f32(0x7fc00000U), y);
}

/*@ mx_log1p_f32: mx_bits_f32 mx_from_bits_f32 mx_pick_f32 */
/* After FreeBSD's s_log1pf.c: as log of u = 1 + x, with the rounding of u put right by c. */
static inline float mx_log1p_f32(float x) {
    int small = (x > -0.2928932f) & (x < 0.41421354f);
    float one = 1.0f + x;
    uint32_t u = mx_bits_f32(one) + (0x3f800000U - 0x3f3504f3U);
    int32_t e = (int32_t)(u >> 23) - 127;
    float c = mx_pick_f32(e >= 2, 1.0f - (one - x), x - (one - 1.0f)) / one;
    c = mx_pick_f32((e < 25) & !small, c, 0.0f);
    float k = mx_pick_f32(small, 0.0f, (float)e);
    float f = mx_pick_f32(small, x, mx_from_bits_f32((u & 0x007fffffU) + 0x3f3504f3U) - 1.0f);
    float s = f / (2.0f + f), v = s * s, w = v * v;
    float t1 = w * (0.40000972152f + w * 0.24279078841f);
    float t2 = v * (0.66666662693f + w * 0.28498786688f);
    float h = 0.5f * f * f;
    float y = s * (h + (t1 + t2)) + (k * 9.0580006145e-06f + c) - h + f + k * 6.9313812256e-01f;
    y = mx_pick_f32((fabsf(x) > 5.9604645e-08f) & !(x > 3.40282347e38f), y, x); /* tiny, inf, nan */
    y = mx_pick_f32(x == -1.0f, -mx_from_bits_f32(0x7f800000U), y);
    return mx_pick_f32(x < -1.0f, mx_from_bits_f32(0x7fc00000U), y);
}

/* ---- trigonometry of f32, inside in double; polynomials of FreeBSD k_sinf.c, k_cosf.c, k_tanf.c ---- */

/*@ mx_quadrant_f32: mx_bits_f64 mx_pick_f64 */
/* x - k pi/2 in [-pi/4, pi/4], k mod 4 in *quadrant. pi/2 in parts of 20 bits: their
 * products with k < 2^32 are exact. */
static inline double mx_quadrant_f32(float x, int *quadrant) {
    double d = mx_pick_f64(fabsf(x) < 4294967296.0f, (double)x, (double)x * 0.0);
    double z = d * 0.63661977236758134308 + 6755399441055744.0; /* 1.5 * 2^52 */
    *quadrant = (int)(mx_bits_f64(z) & 3U);
    z -= 6755399441055744.0;
    return ((d - z * 1.5707950592041016) - z * 1.2675900507019833e-06) - z * 7.443547480486623e-13;
}

/*@ mx_sin_f32: mx_bits_f64 mx_from_bits_f64 mx_pick_f64 mx_quadrant_f32 */
static inline float mx_sin_f32(float x) {
    int q;
    double r = mx_quadrant_f32(x, &q);
    double v = r * r, w = v * v;
    double s = r * ((1.0 + v * (-0.16666666641626524 + v * 0.008333329385889463)) +
                    v * w * (-0.00019839334836096632 + v * 2.718311493989822e-06));
    double c = ((1.0 + v * -0.499999997251031) + w * 0.04166662332373906) +
               w * v * (-0.001388676377460993 + v * 2.439044879627741e-05);
    double y = mx_pick_f64(q & 1, c, s);
    return (float)mx_from_bits_f64(mx_bits_f64(y) ^ ((uint64_t)(q & 2) << 62));
}

/*@ mx_cos_f32: mx_bits_f64 mx_from_bits_f64 mx_pick_f64 mx_quadrant_f32 */
static inline float mx_cos_f32(float x) {
    int q;
    double r = mx_quadrant_f32(x, &q);
    q += 1;
    double v = r * r, w = v * v;
    double s = r * ((1.0 + v * (-0.16666666641626524 + v * 0.008333329385889463)) +
                    v * w * (-0.00019839334836096632 + v * 2.718311493989822e-06));
    double c = ((1.0 + v * -0.499999997251031) + w * 0.04166662332373906) +
               w * v * (-0.001388676377460993 + v * 2.439044879627741e-05);
    double y = mx_pick_f64(q & 1, c, s);
    return (float)mx_from_bits_f64(mx_bits_f64(y) ^ ((uint64_t)(q & 2) << 62));
}

/*@ mx_tan_f32: mx_pick_f64 mx_quadrant_f32 */
static inline float mx_tan_f32(float x) {
    int q;
    double r = mx_quadrant_f32(x, &q);
    double v = r * r, w = v * v, s = v * r;
    double t =
        (r + s * (0.3333313950307914 + v * 0.13339200271297674)) +
        s * w *
            ((0.05338123784456704 + v * 0.024528318116654728) + w * (0.002974357433599673 + v * 0.009465647849436732));
    return (float)mx_pick_f64(q & 1, -1.0 / t, t);
}

/* ---- integers, on 64 bits; the caller wraps the result to its type. Division by zero gives 0 ---- */

/*@ mx_add_i: */
static inline int64_t mx_add_i(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

/*@ mx_add_u: */
static inline uint64_t mx_add_u(uint64_t a, uint64_t b) {
    return a + b;
}

/*@ mx_sub_i: */
static inline int64_t mx_sub_i(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a - (uint64_t)b);
}

/*@ mx_sub_u: */
static inline uint64_t mx_sub_u(uint64_t a, uint64_t b) {
    return a - b;
}

/*@ mx_mul_i: */
static inline int64_t mx_mul_i(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a * (uint64_t)b);
}

/*@ mx_mul_u: */
static inline uint64_t mx_mul_u(uint64_t a, uint64_t b) {
    return a * b;
}

/*@ mx_div_i: */
static inline int64_t mx_div_i(int64_t a, int64_t b) /* floor */
{
    if ((b == 0) | (b == -1))
        return (int64_t)(0U - (uint64_t)a) & b; /* INT64_MIN / -1 wraps */
    return a / b - ((a % b != 0) & ((a < 0) != (b < 0)));
}

/*@ mx_div_u: */
static inline uint64_t mx_div_u(uint64_t a, uint64_t b) {
    return b == 0 ? 0 : a / b;
}

/*@ mx_mod_i: */
static inline int64_t mx_mod_i(int64_t a, int64_t b) /* the sign of the divisor */
{
    if ((b == 0) | (b == -1))
        return 0;
    int64_t r = a % b;
    return ((r != 0) & ((r < 0) != (b < 0))) ? r + b : r;
}

/*@ mx_mod_u: */
static inline uint64_t mx_mod_u(uint64_t a, uint64_t b) {
    return b == 0 ? 0 : a % b;
}

/*@ mx_pow_u: */
static inline uint64_t mx_pow_u(uint64_t a, uint64_t b) {
    uint64_t y = 1;
    for (; b; b >>= 1, a *= a)
        y *= b & 1 ? a : 1;
    return y;
}

/*@ mx_pow_i: mx_pow_u */
static inline int64_t mx_pow_i(int64_t a, int64_t b) /* a negative power is 0 but for a = 1 and -1 */
{
    if (b < 0)
        return a == 1 ? 1 : a == -1 ? ((uint64_t)b & 1 ? -1 : 1) : 0;
    return (int64_t)mx_pow_u((uint64_t)a, (uint64_t)b);
}

/*@ mx_neg_i: */
static inline int64_t mx_neg_i(int64_t a) {
    return (int64_t)(0U - (uint64_t)a);
}

/*@ mx_neg_u: */
static inline uint64_t mx_neg_u(uint64_t a) {
    return 0U - a;
}

/*@ mx_abs_i: */
static inline int64_t mx_abs_i(int64_t a) {
    return a < 0 ? (int64_t)(0U - (uint64_t)a) : a;
}

/*@ mx_abs_u: */
static inline uint64_t mx_abs_u(uint64_t a) {
    return a;
}

/*@ mx_sign_i: */
static inline int64_t mx_sign_i(int64_t a) {
    return (a > 0) - (a < 0);
}

/*@ mx_sign_u: */
static inline uint64_t mx_sign_u(uint64_t a) {
    return a != 0;
}

/*@ mx_max_i: */
static inline int64_t mx_max_i(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/*@ mx_min_i: */
static inline int64_t mx_min_i(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/*@ mx_floor_i: */
static inline int64_t mx_floor_i(int64_t a) {
    return a;
}

/*@ mx_ceil_i: */
static inline int64_t mx_ceil_i(int64_t a) {
    return a;
}

/*@ mx_round_i: */
static inline int64_t mx_round_i(int64_t a) {
    return a;
}

/*@ mx_trunc_i: */
static inline int64_t mx_trunc_i(int64_t a) {
    return a;
}

/*@ mx_bitand_i: */
static inline int64_t mx_bitand_i(int64_t a, int64_t b) {
    return a & b;
}

/*@ mx_bitor_i: */
static inline int64_t mx_bitor_i(int64_t a, int64_t b) {
    return a | b;
}

/*@ mx_bitxor_i: */
static inline int64_t mx_bitxor_i(int64_t a, int64_t b) {
    return a ^ b;
}

/*@ mx_bitnot_i: */
static inline int64_t mx_bitnot_i(int64_t a) {
    return ~a;
}

/*@ mx_max_u: */
static inline uint64_t mx_max_u(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

/*@ mx_min_u: */
static inline uint64_t mx_min_u(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/*@ mx_floor_u: */
static inline uint64_t mx_floor_u(uint64_t a) {
    return a;
}

/*@ mx_ceil_u: */
static inline uint64_t mx_ceil_u(uint64_t a) {
    return a;
}

/*@ mx_round_u: */
static inline uint64_t mx_round_u(uint64_t a) {
    return a;
}

/*@ mx_trunc_u: */
static inline uint64_t mx_trunc_u(uint64_t a) {
    return a;
}

/*@ mx_bitand_u: */
static inline uint64_t mx_bitand_u(uint64_t a, uint64_t b) {
    return a & b;
}

/*@ mx_bitor_u: */
static inline uint64_t mx_bitor_u(uint64_t a, uint64_t b) {
    return a | b;
}

/*@ mx_bitxor_u: */
static inline uint64_t mx_bitxor_u(uint64_t a, uint64_t b) {
    return a ^ b;
}

/*@ mx_bitnot_u: */
static inline uint64_t mx_bitnot_u(uint64_t a) {
    return ~a;
}

/*@ mx_shl_i: */
/* Counts below 0 or above 63 shift everything out. */
static inline int64_t mx_shl_i(int64_t a, int64_t b) {
    return ((b < 0) | (b > 63)) ? 0 : (int64_t)((uint64_t)a << b);
}

/*@ mx_shl_u: */
static inline uint64_t mx_shl_u(uint64_t a, uint64_t b) {
    return b > 63 ? 0 : a << b;
}

/*@ mx_shr_i: */
static inline int64_t mx_shr_i(int64_t a, int64_t b) /* arithmetic */
{
    uint64_t s = 0U - (uint64_t)(a < 0);
    b = ((b < 0) | (b > 63)) ? 63 : b;
    return (int64_t)((((uint64_t)a ^ s) >> b) ^ s);
}

/*@ mx_shr_u: */
static inline uint64_t mx_shr_u(uint64_t a, uint64_t b) {
    return b > 63 ? 0 : a >> b;
}

/* ---- conversions: float to integer truncates and saturates, nan gives 0 ---- */

/*@ mx_i64_from_f32: mx_pick_f32 */
static inline int64_t mx_i64_from_f32(float x) {
    int high = x >= 9.223372036854776e18f, low = x <= -9.223372036854776e18f;
    int64_t y = (int64_t)mx_pick_f32((x == x) & !high & !low, x, 0.0f);
    return (int64_t)(y | (INT64_MAX & -high) | (INT64_MIN & -low));
}

/*@ mx_i32_from_f32: mx_pick_f32 */
static inline int32_t mx_i32_from_f32(float x) {
    int high = x >= 2147483648.0f, low = x <= -2147483648.0f;
    int32_t y = (int32_t)mx_pick_f32((x == x) & !high & !low, x, 0.0f);
    return (int32_t)(y | (INT32_MAX & -high) | (INT32_MIN & -low));
}

/*@ mx_i16_from_f32: mx_pick_f32 */
static inline int16_t mx_i16_from_f32(float x) {
    int high = x >= 32768.0f, low = x <= -32768.0f;
    int32_t y = (int32_t)mx_pick_f32((x == x) & !high & !low, x, 0.0f);
    return (int16_t)(y | (INT16_MAX & -high) | (INT16_MIN & -low));
}

/*@ mx_i8_from_f32: mx_pick_f32 */
static inline int8_t mx_i8_from_f32(float x) {
    int high = x >= 128.0f, low = x <= -128.0f;
    int32_t y = (int32_t)mx_pick_f32((x == x) & !high & !low, x, 0.0f);
    return (int8_t)(y | (INT8_MAX & -high) | (INT8_MIN & -low));
}

/*@ mx_u64_from_f32: mx_pick_f32 */
static inline uint64_t mx_u64_from_f32(float x) {
    int high = x >= 1.8446744073709552e19f;
    uint64_t y = (uint64_t)mx_pick_f32((x > 0) & !high, x, 0.0f);
    return (uint64_t)(high ? UINT64_MAX : y);
}

/*@ mx_u32_from_f32: mx_pick_f32 */
static inline uint32_t mx_u32_from_f32(float x) {
    int high = x >= 4294967296.0f;
    int64_t y = (int64_t)mx_pick_f32((x > 0) & !high, x, 0.0f);
    return high ? UINT32_MAX : (uint32_t)y;
}

/*@ mx_u16_from_f32: mx_pick_f32 */
static inline uint16_t mx_u16_from_f32(float x) {
    int high = x >= 65536.0f;
    int32_t y = (int32_t)mx_pick_f32((x > 0) & !high, x, 0.0f);
    return high ? UINT16_MAX : (uint16_t)y;
}

/*@ mx_u8_from_f32: mx_pick_f32 */
static inline uint8_t mx_u8_from_f32(float x) {
    int high = x >= 256.0f;
    int32_t y = (int32_t)mx_pick_f32((x > 0) & !high, x, 0.0f);
    return high ? UINT8_MAX : (uint8_t)y;
}

/*@ mx_i64_from_f64: mx_pick_f64 */
static inline int64_t mx_i64_from_f64(double x) {
    int high = x >= 9.223372036854776e18, low = x <= -9.223372036854776e18;
    int64_t y = (int64_t)mx_pick_f64((x == x) & !high & !low, x, 0.0);
    return (int64_t)(y | (INT64_MAX & -high) | (INT64_MIN & -low));
}

/*@ mx_i32_from_f64: mx_pick_f64 */
static inline int32_t mx_i32_from_f64(double x) {
    int high = x >= 2147483648.0, low = x <= -2147483648.0;
    int32_t y = (int32_t)mx_pick_f64((x == x) & !high & !low, x, 0.0);
    return (int32_t)(y | (INT32_MAX & -high) | (INT32_MIN & -low));
}

/*@ mx_i16_from_f64: mx_pick_f64 */
static inline int16_t mx_i16_from_f64(double x) {
    int high = x >= 32768.0, low = x <= -32768.0;
    int32_t y = (int32_t)mx_pick_f64((x == x) & !high & !low, x, 0.0);
    return (int16_t)(y | (INT16_MAX & -high) | (INT16_MIN & -low));
}

/*@ mx_i8_from_f64: mx_pick_f64 */
static inline int8_t mx_i8_from_f64(double x) {
    int high = x >= 128.0, low = x <= -128.0;
    int32_t y = (int32_t)mx_pick_f64((x == x) & !high & !low, x, 0.0);
    return (int8_t)(y | (INT8_MAX & -high) | (INT8_MIN & -low));
}

/*@ mx_u64_from_f64: mx_pick_f64 */
static inline uint64_t mx_u64_from_f64(double x) {
    int high = x >= 1.8446744073709552e19;
    uint64_t y = (uint64_t)mx_pick_f64((x > 0) & !high, x, 0.0);
    return (uint64_t)(high ? UINT64_MAX : y);
}

/*@ mx_u32_from_f64: mx_pick_f64 */
static inline uint32_t mx_u32_from_f64(double x) {
    int high = x >= 4294967296.0;
    int64_t y = (int64_t)mx_pick_f64((x > 0) & !high, x, 0.0);
    return high ? UINT32_MAX : (uint32_t)y;
}

/*@ mx_u16_from_f64: mx_pick_f64 */
static inline uint16_t mx_u16_from_f64(double x) {
    int high = x >= 65536.0;
    int32_t y = (int32_t)mx_pick_f64((x > 0) & !high, x, 0.0);
    return high ? UINT16_MAX : (uint16_t)y;
}

/*@ mx_u8_from_f64: mx_pick_f64 */
static inline uint8_t mx_u8_from_f64(double x) {
    int high = x >= 256.0;
    int32_t y = (int32_t)mx_pick_f64((x > 0) & !high, x, 0.0);
    return high ? UINT8_MAX : (uint8_t)y;
}

/*@ mx_f16_from_f32: mx_bits_f32 mx_from_bits_f32 */
/* After Maratyszcza's FP16: the rounding is done by a float addition at the right exponent. */
static inline uint16_t mx_f16_from_f32(float x) {
    uint32_t u = mx_bits_f32(x), twice = u + u;
    float base = (fabsf(x) * 5.192296858534828e33f) * 7.703719777548943e-34f; /* 2^112, 2^-110 */
    uint32_t bias = twice & 0xff000000U;
    bias = bias < 0x71000000U ? 0x71000000U : bias;
    uint32_t r = mx_bits_f32(mx_from_bits_f32((bias >> 1) + 0x07800000U) + base);
    uint32_t y = ((r >> 13) & 0x7c00U) + (r & 0x0fffU);
    uint32_t nan = 0U - (uint32_t)(twice > 0xff000000U);
    y = (0x7e00U & nan) | (y & ~nan);
    return (uint16_t)(((u >> 16) & 0x8000U) | y);
}

/*@ mx_f32_from_f16: mx_bits_f32 mx_from_bits_f32 mx_pick_f32 */
static inline float mx_f32_from_f16(uint16_t h) {
    uint32_t w = (uint32_t)h << 16, twice = w + w;
    float normal = mx_from_bits_f32((twice >> 4) + 0x70000000U) * 1.92592994438723585e-34f; /* 2^-112 */
    float denormal = mx_from_bits_f32((twice >> 17) | 0x3f000000U) - 0.5f;
    uint32_t y = mx_bits_f32(mx_pick_f32(twice < 0x08000000U, denormal, normal));
    return mx_from_bits_f32((w & 0x80000000U) | y);
}

/*@ mx_bf16_from_f32: mx_bits_f32 */
static inline uint16_t mx_bf16_from_f32(float x) {
    uint32_t u = mx_bits_f32(x);
    uint32_t r = (u + 0x7fffU + ((u >> 16) & 1U)) >> 16;
    return (uint16_t)(x != x ? (u >> 16) | 0x40U : r);
}

/*@ mx_f32_from_bf16: mx_from_bits_f32 */
static inline float mx_f32_from_bf16(uint16_t h) {
    return mx_from_bits_f32((uint32_t)h << 16);
}

/*@ mx_round_f16: mx_f16_from_f32 mx_f32_from_f16 */
static inline float mx_round_f16(float x) {
    return mx_f32_from_f16(mx_f16_from_f32(x));
}

/*@ mx_round_bf16: mx_bf16_from_f32 mx_f32_from_bf16 */
static inline float mx_round_bf16(float x) {
    return mx_f32_from_bf16(mx_bf16_from_f32(x));
}

/*@ mx_odd_from_f64: mx_bits_f32 mx_from_bits_f32 */
/* f64 to f32 rounding to odd: rounding the result once more to f16 or bf16 is then as if done at once. */
static inline float mx_odd_from_f64(double x) {
    float f = (float)x;
    double g = (double)f;
    uint32_t u = mx_bits_f32(f);
    uint32_t inexact = (uint32_t)((g != x) & (x == x) & (fabs(x) <= 3.4028234663852886e38)) & ~u & 1U;
    return mx_from_bits_f32(fabs(g) > fabs(x) ? u - inexact : u + inexact);
}

/* ---- random bits ----
 *
 * Philox4x32-10 (Salmon et al., 2011). Element i of the random tensor that the instance's call number `call` (from 0)
 * draws at `place` (the operation's number in the program) within loops whose counters are l0 (outermost), l1, … is
 *
 *     h    = mx_mix(place); for each counter l: h = mx_mix(h ^ mx_mix(l + 1))       mx_stream, mx_stream_loop
 *     h    = mx_mix(h ^ mx_mix(call ^ 0x9e3779b97f4a7c15))                          mx_stream_call
 *     key  = (low half of seed, high half of seed)
 *     u32: word i mod 4 of philox(key, counter = (low i/4, high i/4, low h, high h))                 mx_random_u32
 *     u64: words 2(i mod 2) (low) and 2(i mod 2) + 1 (high) of philox(key, …) with counter
 *          (low i/2, high i/2, low h, high h ^ 0x80000000)                               mx_random_u64
 */

/*@ mx_mix: */
static inline uint64_t mx_mix(uint64_t x) /* splitmix64's finalizer */
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/*@ mx_stream: mx_mix */
static inline uint64_t mx_stream(uint64_t place) {
    return mx_mix(place);
}

/*@ mx_stream_loop: mx_mix */
static inline uint64_t mx_stream_loop(uint64_t h, int64_t counter) {
    return mx_mix(h ^ mx_mix((uint64_t)counter + 1U));
}

/*@ mx_stream_call: mx_mix */
static inline uint64_t mx_stream_call(uint64_t h, uint64_t call) {
    return mx_mix(h ^ mx_mix(call ^ 0x9e3779b97f4a7c15ULL));
}

/*@ mx_philox: */
static inline void mx_philox(uint32_t key0, uint32_t key1, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3,
                             uint32_t out[4]) {
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)c0 * 0xd2511f53U, b = (uint64_t)c2 * 0xcd9e8d57U;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ key0;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ key1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        key0 += 0x9e3779b9U;
        key1 += 0xbb67ae85U;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/*@ mx_random_u32: mx_philox */
/* Words 4 block .. 4 block + 3 of the stream h. */
static inline void mx_random_u32(uint64_t seed, uint64_t h, uint64_t block, uint32_t out[4]) {
    mx_philox((uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)block, (uint32_t)(block >> 32), (uint32_t)h,
              (uint32_t)(h >> 32), out);
}

/*@ mx_random_u64: mx_philox */
/* Elements 2 block, 2 block + 1. */
static inline void mx_random_u64(uint64_t seed, uint64_t h, uint64_t block, uint64_t out[2]) {
    uint32_t w[4];
    mx_philox((uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)block, (uint32_t)(block >> 32), (uint32_t)h,
              (uint32_t)(h >> 32) ^ 0x80000000U, w);
    out[0] = (uint64_t)w[1] << 32 | w[0];
    out[1] = (uint64_t)w[3] << 32 | w[2];
}

#endif
