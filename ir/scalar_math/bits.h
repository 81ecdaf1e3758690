/* Scalar functions: the bits of floats, and selection by them. */
#ifndef MX_SCALAR_MATH_BITS_H
#define MX_SCALAR_MATH_BITS_H

#include <stdint.h>
#include <string.h>

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

#endif
