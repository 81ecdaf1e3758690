/* Scalar functions: integers, on 64 bits; the caller wraps the result to its type. Division by zero gives 0. */
#ifndef MX_SCALAR_MATH_INTEGER_H
#define MX_SCALAR_MATH_INTEGER_H

#include <stdint.h>

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

#endif
