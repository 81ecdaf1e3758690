/* ir/scalar_math.h: accuracy over dense samples of all floats, special values, conversions, integers, Philox. */
#include <criterion/criterion.h>

#include "ir/scalar_math.h"

static double ulps(double want, float got) {
    int e;
    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got) ? 0 : INFINITY;
    if (fabs(want) > 3.4028235677973366e38 || isinf(got)) /* the half-way point to 2^128 */
        return isinf(got) && fabs(want) > 3.4028235677973366e38 && (got > 0) == (want > 0) ? 0 : INFINITY;
    frexp(want, &e);
    return fabs(got - want) / ldexp(1, (e < -125 ? -125 : e) - 24);
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

struct accuracy {
    const char *name;
    float (*got)(float);
    double (*want)(double);
    double ulp;
    float largest; /* argument but for inf */
};

#define ROW(name, want, ulp, largest) \
    { #name, mx_##name##_f32, want, ulp, largest }
static const struct accuracy rows[] = {
    ROW(exp, exp, 1.1, INFINITY),
    ROW(expm1, expm1, 1.6, INFINITY),
    ROW(log, log, 0.9, INFINITY),
    ROW(log1p, log1p, 0.9, INFINITY),
    ROW(tanh, tanh, 1.4, INFINITY),
    ROW(erf, erf, 1.2, INFINITY),
    ROW(sigmoid, sigmoid, 2.3, INFINITY),
    ROW(sin, sin, 0.6, 4e9f),
    ROW(cos, cos, 0.6, 4e9f),
    ROW(tan, tan, 0.9, 4e9f),
    ROW(floor, floor, 0, INFINITY),
    ROW(ceil, ceil, 0, INFINITY),
    ROW(trunc, trunc, 0, INFINITY),
    ROW(round, nearbyint, 0, INFINITY),
};

Test(scalar_math, accuracy) {
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (uint64_t bits = 0; bits < (uint64_t)1 << 32; bits += 997) {
            float x = mx_from_bits_f32((uint32_t)bits);
            if (fabsf(x) > rows[r].largest && !isinf(x))
                continue;
            float got = rows[r].got(x);
            double u = ulps(rows[r].want((double)x), got);
            cr_assert(u <= rows[r].ulp, "%s(%.9g) = %.9g: %g ulp", rows[r].name, (double)x, (double)got, u);
        }
}

Test(scalar_math, special_values) {
    static const float at[] = {0.0f, -0.0f,  1.0f,    -1.0f,  INFINITY,  -INFINITY,
                               NAN,  1e-45f, -1e-45f, 1e-38f, 88.72284f, -103.9f};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
            float got = rows[r].got(at[i]);
            double want = rows[r].want((double)at[i]);
            cr_assert(ulps(want, got) <= rows[r].ulp, "%s(%g)", rows[r].name, (double)at[i]);
            if (want == 0 && !isnan(got) && got == 0)
                cr_assert_eq(signbit(got) != 0, signbit(want) != 0, "%s(%g): sign of zero", rows[r].name,
                             (double)at[i]);
        }
    cr_assert(isnan(mx_max_f32(NAN, 1)) && isnan(mx_max_f32(1, NAN)) && isnan(mx_min_f64(NAN, 1)) &&
              isnan(mx_min_f64(1, NAN)));
    cr_assert(signbit(mx_max_f32(0.0f, -0.0f)) && !signbit(mx_min_f32(-0.0f, 0.0f))); /* at equal arguments b */
    cr_assert_eq(mx_mod_f32(-7, 3), 2);
    cr_assert_eq(mx_mod_f64(7, -3), -2);
    cr_assert(signbit(mx_mod_f64(6, -3)));
    cr_assert(isnan(mx_sign_f32(NAN)) && mx_sign_f64(-3) == -1 && mx_sign_f32(0) == 0);
    cr_assert(isnan(mx_sigmoid_f64(NAN)) && mx_sigmoid_f64(-800) == 0 && mx_sigmoid_f64(0) == 0.5);
}

Test(scalar_math, integers) {
    cr_assert_eq(mx_div_i(-7, 2), -4);
    cr_assert_eq(mx_div_i(7, -2), -4);
    cr_assert_eq(mx_div_i(INT64_MIN, -1), INT64_MIN);
    cr_assert_eq(mx_div_i(5, 0), 0);
    cr_assert_eq(mx_div_i(5, -1), -5);
    cr_assert_eq(mx_mod_i(-7, 2), 1);
    cr_assert_eq(mx_mod_i(7, -2), -1);
    cr_assert_eq(mx_mod_i(INT64_MIN, -1), 0);
    cr_assert_eq(mx_mod_i(3, 0), 0);
    cr_assert_eq(mx_add_i(INT64_MAX, 1), INT64_MIN);
    cr_assert_eq(mx_abs_i(INT64_MIN), INT64_MIN);
    cr_assert_eq(mx_pow_i(-3, 5), -243);
    cr_assert_eq(mx_pow_i(2, -1), 0);
    cr_assert_eq(mx_pow_i(-1, -3), -1);
    cr_assert_eq(mx_pow_u(3, 40), 12157665459056928801ULL);
    cr_assert_eq(mx_shl_i(1, 64), 0);
    cr_assert_eq(mx_shl_i(1, -1), 0);
    cr_assert_eq(mx_shr_i(-5, 1), -3);
    cr_assert_eq(mx_shr_i(-5, 99), -1);
    cr_assert_eq(mx_shr_u(UINT64_MAX, 63), 1);
    for (int64_t a = -9; a <= 9; a++)
        for (int64_t b = -4; b <= 4; b++)
            if (b)
                cr_assert(mx_div_i(a, b) * b + mx_mod_i(a, b) == a &&
                          mx_div_i(a, b) == (int64_t)floor((double)a / (double)b));
}

Test(scalar_math, conversions) {
    static const double at[] = {
        0,       -0.9,   1.9,     -1.9,  127.5,        128,          -128.9,        -129,         255.9,        256,
        32767.9, -32769, 65535.5, 65536, 2147483647.5, 2147483648.0, -2147483649.0, 4294967295.5, 4294967296.0, 9.3e18,
        -9.3e18, 1.9e19, 1e300,   NAN,   INFINITY,     -INFINITY};
#define SATURATE(t, lo, hi)                                                                \
    do {                                                                                   \
        double v = isnan(x) ? 0 : trunc(x);                                                \
        long double want = v < lo ? lo : v > hi ? hi : v;                                  \
        cr_assert(want == (long double)mx_##t##_from_f64(x), #t " from %g", x);            \
        double y = (double)(float)x, w = isnan(y) ? 0 : trunc(y);                          \
        want = w < lo ? lo : w > hi ? hi : w;                                              \
        cr_assert(want == (long double)mx_##t##_from_f32((float)x), #t " from f32 %g", x); \
    } while (0)
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        double x = at[i];
        SATURATE(i8, -128.0L, 127.0L);
        SATURATE(i16, -32768.0L, 32767.0L);
        SATURATE(i32, -2147483648.0L, 2147483647.0L);
        SATURATE(i64, -9223372036854775808.0L, 9223372036854775807.0L);
        SATURATE(u8, 0.0L, 255.0L);
        SATURATE(u16, 0.0L, 65535.0L);
        SATURATE(u32, 0.0L, 4294967295.0L);
        SATURATE(u64, 0.0L, 18446744073709551615.0L);
    }
}

/* The f16 value of bits, from its definition. */
static double f16_value(uint16_t h) {
    int e = h >> 10 & 31, m = h & 1023;
    double v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

Test(scalar_math, half_precision) {
    for (uint32_t h = 0; h < 65536; h++) {
        double v = f16_value((uint16_t)h);
        float f = mx_f32_from_f16((uint16_t)h);
        cr_assert((isnan(v) && isnan(f)) || ((double)f == v && !signbit(f) == !signbit(v)), "%x", h);
        if (isnan(v)) {
            cr_assert(isnan(mx_round_f16(f)));
            continue;
        }
        cr_assert_eq(mx_f16_from_f32(f), h);
        /* Between neighbours: just below half, half (to even), just above; directly from f64 too. */
        if ((h & 0x7fff) < 0x7bff) {
            double next = f16_value((uint16_t)(h + 1)), half = (v + next) / 2, little = (next - v) / 1e4;
            cr_assert_eq(mx_f16_from_f32((float)(half - little)), h);
            cr_assert_eq(mx_f16_from_f32((float)half), (h & 1) ? h + 1 : h);
            cr_assert_eq(mx_f16_from_f32((float)(half + little)), h + 1);
            little = (next - v) / 1e11;
            cr_assert_eq(mx_f16_from_f32(mx_odd_from_f64(half - little)), h);
            cr_assert_eq(mx_f16_from_f32(mx_odd_from_f64(half + little)), h + 1);
        }
    }
    cr_assert_eq(mx_f16_from_f32(65520.0f), 0x7c00);
    cr_assert_eq(mx_f16_from_f32(65519.0f), 0x7bff);
    cr_assert_eq(mx_f16_from_f32(-1e30f), 0xfc00);
    for (uint32_t h = 0; h < 65536; h++) {
        float f = mx_f32_from_bf16((uint16_t)h);
        if (isnan(f)) {
            cr_assert(isnan(mx_round_bf16(f)));
            continue;
        }
        cr_assert_eq(mx_bf16_from_f32(f), h);
        uint32_t u = mx_bits_f32(f);
        if ((h & 0x7fff) < 0x7f80) {
            cr_assert_eq(mx_bf16_from_f32(mx_from_bits_f32(u | 0x7fff)), h);
            cr_assert_eq(mx_bf16_from_f32(mx_from_bits_f32(u | 0x8000)), (h & 1) ? h + 1 : h);
            cr_assert_eq(mx_bf16_from_f32(mx_from_bits_f32(u | 0x8001)), h + 1);
        }
    }
    cr_assert(isnan(mx_round_bf16(mx_from_bits_f32(0x7f800001))));
}

Test(scalar_math, philox) {
    uint32_t w[4];
    /* Known answers of Random123 (kat_vectors, philox4x32 10). */
    static const uint32_t zeros[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    mx_philox(0, 0, 0, 0, 0, 0, w);
    cr_assert_arr_eq(w, zeros, sizeof w);
    static const uint32_t ones[] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    mx_philox(~0U, ~0U, ~0U, ~0U, ~0U, ~0U, w);
    cr_assert_arr_eq(w, ones, sizeof w);
    static const uint32_t digits[] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
    mx_philox(0xa4093822, 0x299f31d0, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, w);
    cr_assert_arr_eq(w, digits, sizeof w);
    cr_assert_neq(mx_stream_call(mx_stream(1), 0), mx_stream_call(mx_stream(1), 1));
    cr_assert_neq(mx_stream_loop(mx_stream(1), 0), mx_stream(1));
}
