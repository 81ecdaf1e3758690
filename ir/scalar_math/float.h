/* Scalar functions: arithmetic of floats, and what libm computes. */
#ifndef MX_SCALAR_MATH_FLOAT_H
#define MX_SCALAR_MATH_FLOAT_H

#include <math.h>
#include <stdint.h>

#include "ir/scalar_math/bits.h"

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

#endif
