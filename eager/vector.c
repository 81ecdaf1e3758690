/* The vector operations of eager/vector.h. The loops over ir/scalar.def are compiled twice on x86-64, for the baseline
 * and for AVX2 (without fused multiply-add: the same bits), and chosen at run time. This file is optimized whatever the
 * build's options, or eager execution in a debug build would be unusable. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "fp-contract=off", "no-math-errno", "no-trapping-math")
#pragma GCC diagnostic ignored "-Wtautological-compare"
#elif defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#include "eager/vector.h"

#include <stdlib.h>
#include <string.h>

#include "ir/scalar_math.h"

static inline int32_t bool_bitand(int32_t a, int32_t b) {
    return a & b;
}
static inline int32_t bool_bitor(int32_t a, int32_t b) {
    return a | b;
}
static inline int32_t bool_bitxor(int32_t a, int32_t b) {
    return a ^ b;
}
static inline int32_t bool_bitnot(int32_t a) {
    return !a;
}

#define ISA
#define ISA_TAG(name, kind) name##_##kind##_base
#include "eager/vector_isa.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define ISA                 __attribute__((target("avx2")))
#define ISA_TAG(name, kind) name##_##kind##_avx2
#include "eager/vector_isa.h"
#endif

/* Filled on each request: the caller keeps it, no state of this file. */
const struct vec_table *vec_table_for_machine(void) {
    struct vec_table *table = calloc(1, sizeof *table);
    if (!table)
        return NULL;
    set_all_base(table);
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        set_all_avx2(table);
#endif
    return table;
}

enum vec_kind vec_kind_of(enum dtype t) {
    switch (t) {
    case F64: return KIND_F64;
    case F32:
    case F16:
    case BF16: return KIND_F32;
    case I64:
    case I32:
    case I16:
    case I8: return KIND_INT;
    case BOOL: return KIND_BOOL;
    default: return KIND_UINT;
    }
}

int vec_kind_size(enum vec_kind k) {
    return k == KIND_F32 || k == KIND_BOOL ? 4 : 8;
}

/* X(dtype, memory type, register type, memory -> register, register -> memory) */
#define DTYPES(X)                                                      \
    X(F64, double, double, m, r)                                       \
    X(F32, float, float, m, r)                                         \
    X(F16, uint16_t, float, mx_f32_from_f16(m), mx_f16_from_f32(r))    \
    X(BF16, uint16_t, float, mx_f32_from_bf16(m), mx_bf16_from_f32(r)) \
    X(I64, int64_t, int64_t, m, r)                                     \
    X(I32, int32_t, int64_t, m, (int32_t)r)                            \
    X(I16, int16_t, int64_t, m, (int16_t)r)                            \
    X(I8, int8_t, int64_t, m, (int8_t)r)                               \
    X(U64, uint64_t, uint64_t, m, r)                                   \
    X(U32, uint32_t, uint64_t, m, (uint32_t)r)                         \
    X(U16, uint16_t, uint64_t, m, (uint16_t)r)                         \
    X(U8, uint8_t, uint64_t, m, (uint8_t)r)                            \
    X(BOOL, uint8_t, int32_t, m != 0, r != 0)

void vec_load(enum dtype t, void *r_, const void *data, int64_t stride, int64_t n) {
    switch (t) {
#define LOAD(name, MEM, REG, get, put)        \
    case name: {                              \
        REG *restrict r = r_;                 \
        const MEM *p = data;                  \
        if (stride == 1) {                    \
            for (int64_t i = 0; i < n; i++) { \
                MEM m = p[i];                 \
                r[i] = get;                   \
            }                                 \
        } else if (stride == 0) {             \
            MEM m = n > 0 ? *p : 0;           \
            REG v = get;                      \
            for (int64_t i = 0; i < n; i++)   \
                r[i] = v;                     \
        } else {                              \
            for (int64_t i = 0; i < n; i++) { \
                MEM m = p[i * stride];        \
                r[i] = get;                   \
            }                                 \
        }                                     \
        break;                                \
    }
        DTYPES(LOAD)
    default: break;
    }
}

void vec_store(enum dtype t, void *data, int64_t stride, const void *r_, int64_t n) {
    switch (t) {
#define STORE(name, MEM, REG, get, put)       \
    case name: {                              \
        const REG *v = r_;                    \
        MEM *restrict p = data;               \
        if (stride == 1) {                    \
            for (int64_t i = 0; i < n; i++) { \
                REG r = v[i];                 \
                p[i] = put;                   \
            }                                 \
        } else {                              \
            for (int64_t i = 0; i < n; i++) { \
                REG r = v[i];                 \
                p[i * stride] = put;          \
            }                                 \
        }                                     \
        break;                                \
    }
        DTYPES(STORE)
    default: break;
    }
}

static inline double add_F64(double a, double b) {
    return a + b;
}
static inline float add_float(float a, float b) {
    return a + b;
}
#define add_F32  add_float
#define add_F16  add_float
#define add_BF16 add_float
#define add_I64  mx_add_i
#define add_I32  mx_add_i
#define add_I16  mx_add_i
#define add_I8   mx_add_i
#define add_U64  mx_add_u
#define add_U32  mx_add_u
#define add_U16  mx_add_u
#define add_U8   mx_add_u
#define add_BOOL bool_bitor

void vec_store_add(enum dtype t, void *data, int64_t stride, const void *r_, int64_t n) {
    switch (t) {
#define STORE_ADD(name, MEM, REG, get, put) \
    case name: {                            \
        const REG *v = r_;                  \
        MEM *p = data;                      \
        for (int64_t i = 0; i < n; i++) {   \
            MEM m = p[i * stride];          \
            REG r = add_##name(get, v[i]);  \
            p[i * stride] = put;            \
        }                                   \
        break;                              \
    }
        DTYPES(STORE_ADD)
    default: break;
    }
}

void vec_gather(enum dtype t, void *r_, const void *data, const int64_t *offset, const uint8_t *ok, int64_t n) {
    switch (t) {
#define GATHER(name, MEM, REG, get, put) \
    case name: {                         \
        REG *r = r_;                     \
        const MEM *p = data;             \
        for (int64_t i = 0; i < n; i++)  \
            if (ok[i]) {                 \
                MEM m = p[offset[i]];    \
                r[i] = get;              \
            }                            \
        break;                           \
    }
        DTYPES(GATHER)
    default: break;
    }
}

void vec_scatter(enum dtype t, void *data, const int64_t *offset, const uint8_t *ok, const void *r_, bool add,
                 int64_t n) {
    switch (t) {
#define SCATTER(name, MEM, REG, get, put)                   \
    case name: {                                            \
        const REG *v = r_;                                  \
        MEM *p = data;                                      \
        for (int64_t i = 0; i < n; i++)                     \
            if (ok[i]) {                                    \
                MEM m = p[offset[i]];                       \
                REG r = add ? add_##name(get, v[i]) : v[i]; \
                p[offset[i]] = put;                         \
            }                                               \
        break;                                              \
    }
        DTYPES(SCATTER)
    default: break;
    }
}

void vec_splat(enum vec_kind k, void *r, const void *element, int64_t n) {
    if (vec_kind_size(k) == 4) {
        uint32_t u, *p = r;
        memcpy(&u, element, 4);
        for (int64_t i = 0; i < n; i++)
            p[i] = u;
    } else {
        uint64_t u, *p = r;
        memcpy(&u, element, 8);
        for (int64_t i = 0; i < n; i++)
            p[i] = u;
    }
}

void vec_wrap(enum dtype t, void *r, int64_t n) {
#define WRAP(REG, expression)           \
    do {                                \
        REG *p = r;                     \
        for (int64_t i = 0; i < n; i++) \
            p[i] = expression;          \
    } while (0)
    switch (t) {
    case F16: WRAP(float, mx_round_f16(p[i])); break;
    case BF16: WRAP(float, mx_round_bf16(p[i])); break;
    case I32: WRAP(int64_t, (int32_t)p[i]); break;
    case I16: WRAP(int64_t, (int16_t)p[i]); break;
    case I8: WRAP(int64_t, (int8_t)p[i]); break;
    case U32: WRAP(uint64_t, (uint32_t)p[i]); break;
    case U16: WRAP(uint64_t, (uint16_t)p[i]); break;
    case U8: WRAP(uint64_t, (uint8_t)p[i]); break;
    default: break;
    }
}

/* By multiplication where all of a is in [0, 2^31) and d < 2^31: with p = 31 + ceil(log2 d) and m = floor(2^p / d) + 1,
 * a * m / 2^p is below a / d + 1 / d (Granlund and Montgomery, 1994). Index arithmetic is full of such divisions. */
void vec_divide(int64_t *restrict r, const int64_t *a, int64_t d, bool remainder, int64_t n) {
    uint64_t any = (uint64_t)d;
    for (int64_t i = 0; i < n; i++)
        any |= (uint64_t)a[i];
    if (any >> 31) {
        for (int64_t i = 0; i < n; i++)
            r[i] = remainder ? mx_mod_i(a[i], d) : mx_div_i(a[i], d);
        return;
    }
    int p = 31;
    while ((int64_t)1 << (p - 31) < d)
        p++;
    uint64_t m = ((uint64_t)1 << p) / (uint64_t)d + 1;
    if (m >> 32) { /* d = 1 */
        for (int64_t i = 0; i < n; i++)
            r[i] = remainder ? 0 : a[i];
        return;
    }
    uint64_t factor = (uint32_t)m;
    if (remainder)
        for (int64_t i = 0; i < n; i++)
            r[i] = (int64_t)((uint32_t)a[i] - (uint32_t)(((uint32_t)a[i] * factor) >> p) * (uint32_t)d);
    else
        for (int64_t i = 0; i < n; i++)
            r[i] = (int64_t)(((uint32_t)a[i] * factor) >> p);
}

void vec_cast(enum dtype to, void *r_, enum dtype from, const void *a_, int64_t n) {
#define CAST(REG, FROM, expression)       \
    do {                                  \
        REG *restrict r = r_;             \
        const FROM *p = a_;               \
        for (int64_t i = 0; i < n; i++) { \
            FROM a = p[i];                \
            r[i] = expression;            \
        }                                 \
    } while (0)
#define TO_INTEGERS(FROM, f)                                   \
    case I64: CAST(int64_t, FROM, mx_i64_from_##f(a)); break;  \
    case I32: CAST(int64_t, FROM, mx_i32_from_##f(a)); break;  \
    case I16: CAST(int64_t, FROM, mx_i16_from_##f(a)); break;  \
    case I8: CAST(int64_t, FROM, mx_i8_from_##f(a)); break;    \
    case U64: CAST(uint64_t, FROM, mx_u64_from_##f(a)); break; \
    case U32: CAST(uint64_t, FROM, mx_u32_from_##f(a)); break; \
    case U16: CAST(uint64_t, FROM, mx_u16_from_##f(a)); break; \
    case U8: CAST(uint64_t, FROM, mx_u8_from_##f(a)); break;   \
    case BOOL: CAST(int32_t, FROM, a != 0); break;
    enum vec_kind k = vec_kind_of(from);
    if (k == KIND_F32)
        switch (to) {
        case F64: CAST(double, float, (double)a); break;
        case F32: CAST(float, float, a); break;
        case F16: CAST(float, float, mx_round_f16(a)); break;
        case BF16:
            CAST(float, float, mx_round_bf16(a));
            break;
            TO_INTEGERS(float, f32)
        default: break;
        }
    else if (k == KIND_F64)
        switch (to) {
        case F64: CAST(double, double, a); break;
        case F32: CAST(float, double, (float)a); break;
        case F16: CAST(float, double, mx_round_f16(mx_odd_from_f64(a))); break;
        case BF16:
            CAST(float, double, mx_round_bf16(mx_odd_from_f64(a)));
            break;
            TO_INTEGERS(double, f64)
        default: break;
        }
#define FROM_INTEGER(FROM)                                                          \
    switch (to) {                                                                   \
    case F64: CAST(double, FROM, (double)a); break;                                 \
    case F32: CAST(float, FROM, (float)a); break;                                   \
    case F16: CAST(float, FROM, mx_round_f16(mx_odd_from_f64((double)a))); break;   \
    case BF16: CAST(float, FROM, mx_round_bf16(mx_odd_from_f64((double)a))); break; \
    case BOOL: CAST(int32_t, FROM, a != 0); break;                                  \
    default:                                                                        \
        CAST(int64_t, FROM, (int64_t)a); /* the same bits for unsigned ones */      \
        vec_wrap(to, r_, n);                                                        \
    }
    else if (k == KIND_INT)
        FROM_INTEGER(int64_t)
    else if (k == KIND_UINT)
        FROM_INTEGER(uint64_t)
    else
        FROM_INTEGER(int32_t)
}
