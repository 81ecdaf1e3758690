/* Scalar functions: conversions between types. Float to integer truncates and saturates, nan gives 0. */
#ifndef MX_SCALAR_MATH_CONVERT_H
#define MX_SCALAR_MATH_CONVERT_H

#include <math.h>
#include <stdint.h>

#include "ir/scalar_math/bits.h"

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

#endif
