/* Scalar functions: the elementary functions of f32 that loops over them vectorize (see ir/scalar_math.h). */
#ifndef MX_SCALAR_MATH_ELEMENTARY_H
#define MX_SCALAR_MATH_ELEMENTARY_H

#include <math.h>
#include <stdint.h>

#include "ir/scalar_math/bits.h"

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

#endif
