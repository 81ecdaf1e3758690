/* The rows of ir/scalar.def as loops for one kind and one instruction set. Included by vector.c with
 *   T, M(f)            the C type and the function of ir/scalar_math.h
 *   KIND               enum vec_kind
 *   TAG(name)          name with a suffix for kind and instruction set
 *   ISA                function attribute
 *   IS_FLOAT, IS_INT   what T is; neither: bool
 */

/* Laid out by hand. */
/* clang-format off */
#define LOOP(name, R, expression, A, B)                                                                                \
    static ISA void TAG(name)(void *r_, const void *a_, const void *b_, const void *c_, int64_t n)                     \
    {                                                                                                                  \
        R *restrict r = r_;                                                                                            \
        const T *pa = a_, *pb = b_;                                                                                    \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            T a = A, b = B;                                                                                            \
            (void)pb, (void)b;                                                                                         \
            r[i] = (R)(expression);                                                                                    \
        }                                                                                                              \
    }
#define LOOP1(name, R, expression) LOOP(name##_vv, R, expression, pa[i], pa[i])
#define LOOP2(name, R, expression)                                                                                     \
    LOOP(name##_vv, R, expression, pa[i], pb[i])                                                                       \
    LOOP(name##_sv, R, expression, *pa, pb[i])                                                                         \
    LOOP(name##_vs, R, expression, pa[i], *pb)
#define LOOP3(name, A, expression)                                                                                     \
    static ISA void TAG(name##_vv)(void *r_, const void *a_, const void *b_, const void *c_, int64_t n)                \
    {                                                                                                                  \
        T *restrict r = r_;                                                                                            \
        const A *pa = a_;                                                                                              \
        const T *pb = b_, *pc = c_;                                                                                    \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            A a = pa[i];                                                                                               \
            T b = pb[i], c = pc[i];                                                                                    \
            r[i] = expression;                                                                                         \
        }                                                                                                              \
    }
#define SET1(name) table->fn[FN_##name][KIND][SHAPE_VV] = TAG(name##_vv);
#define SET2(name)                                                                                                     \
    SET1(name) table->fn[FN_##name][KIND][SHAPE_SV] = TAG(name##_sv);                                                  \
    table->fn[FN_##name][KIND][SHAPE_VS] = TAG(name##_vs);
#define NO(name, ...)

#if IS_FLOAT
#define ON_FLOAT(x) x
#else
#define ON_FLOAT(x) NO
#endif
#if IS_INT
#define ON_INT(x) x
#else
#define ON_INT(x) NO
#endif
#if IS_FLOAT || IS_INT
#define ON_NUMBER(x) x
#define ON_BOOL(x) NO
#else
#define ON_NUMBER(x) NO
#define ON_BOOL(x) x
#endif
#if IS_FLOAT
#define ON_BITS(x) NO
#else
#define ON_BITS(x) x
#endif
#define S_NUM_1(name, e) ON_NUMBER(LOOP1)(name, T, e)
#define S_NUM_2(name, e) ON_NUMBER(LOOP2)(name, T, e)
#define S_FLT_1(name, e) ON_FLOAT(LOOP1)(name, T, e)
#define S_FLT_2(name, e) ON_FLOAT(LOOP2)(name, T, e)
#define S_FLT_3(name, e) ON_FLOAT(LOOP3)(name, T, e)
#define S_INT_2(name, e) ON_INT(LOOP2)(name, T, e)
#define S_BIT_1(name, e) ON_BITS(LOOP1)(name, T, e)
#define S_BIT_2(name, e) ON_BITS(LOOP2)(name, T, e)
#define S_CMP_1(name, e) ON_FLOAT(LOOP1)(name, int32_t, e)
#define S_CMP_2(name, e) LOOP2(name, int32_t, e)
#define S_LOG_1(name, e) ON_BOOL(LOOP1)(name, T, e)
#define S_LOG_2(name, e) ON_BOOL(LOOP2)(name, T, e)
#define S_SEL_3(name, e) LOOP3(name, int32_t, e)
#define S(name, arity, type_class, expression, ...) S_##type_class##_##arity(name, expression)
#include "ir/scalar.def"
#undef S
#undef S_NUM_1
#undef S_NUM_2
#undef S_FLT_1
#undef S_FLT_2
#undef S_FLT_3
#undef S_INT_2
#undef S_BIT_1
#undef S_BIT_2
#undef S_CMP_1
#undef S_CMP_2
#undef S_LOG_1
#undef S_LOG_2
#undef S_SEL_3

/* ---- reductions ---- */

#define REDUCE(name, expression)                                                                                       \
    static ISA void TAG(reduce_##name)(void *acc_, const void *a_, const void *b_, int64_t n)                          \
    {                                                                                                                  \
        T *restrict acc = acc_;                                                                                        \
        const T *pa = a_;                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            T a = acc[i], b = pa[i];                                                                                   \
            acc[i] = expression;                                                                                       \
        }                                                                                                              \
    }                                                                                                                  \
    /* 16 chains, then a tree: vectorizes, and the error of a long sum grows slowly. */                                \
    static ISA void TAG(fold_##name)(void *acc_, const void *a_, const void *b_, int64_t n)                            \
    {                                                                                                                  \
        T *restrict acc = acc_, s[16];                                                                                 \
        const T *pa = a_;                                                                                              \
        int64_t i = 0;                                                                                                 \
        if (n >= 16) {                                                                                                 \
            for (int j = 0; j < 16; j++)                                                                               \
                s[j] = pa[j];                                                                                          \
            for (i = 16; i + 16 <= n; i += 16)                                                                         \
                for (int j = 0; j < 16; j++) {                                                                         \
                    T a = s[j], b = pa[i + j];                                                                         \
                    s[j] = expression;                                                                                 \
                }                                                                                                      \
            for (int w = 8; w; w /= 2)                                                                                 \
                for (int j = 0; j < w; j++) {                                                                          \
                    T a = s[j], b = s[j + w];                                                                          \
                    s[j] = expression;                                                                                 \
                }                                                                                                      \
            T a = *acc, b = s[0];                                                                                      \
            *acc = expression;                                                                                         \
        }                                                                                                              \
        for (; i < n; i++) {                                                                                           \
            T a = *acc, b = pa[i];                                                                                     \
            *acc = expression;                                                                                         \
        }                                                                                                              \
    }
#define SET_REDUCE(name, NAME)                                                                                         \
    table->reduce[RED_##NAME][KIND] = TAG(reduce_##name);                                                              \
    table->fold[RED_##NAME][KIND] = TAG(fold_##name);

#if IS_FLOAT || IS_INT
REDUCE(sum, M(add)(a, b))
REDUCE(prod, M(mul)(a, b))
REDUCE(max, M(max)(a, b))
REDUCE(min, M(min)(a, b))
#else
REDUCE(any, a | b)
REDUCE(all, a & b)
#endif

#if IS_FLOAT
#define MULADD(name, A, B)                                                                                             \
    static ISA void TAG(name)(void *acc_, const void *a_, const void *b_, int64_t n)                                   \
    {                                                                                                                  \
        T *restrict acc = acc_;                                                                                        \
        const T *pa = a_, *pb = b_;                                                                                    \
        for (int64_t i = 0; i < n; i++)                                                                                \
            acc[i] = acc[i] + A * B;                                                                                   \
    }
MULADD(muladd_vv, pa[i], pb[i])
MULADD(muladd_sv, *pa, pb[i])
MULADD(muladd_vs, pa[i], *pb)
#undef MULADD

static ISA void TAG(dot)(void *acc_, const void *a_, const void *b_, int64_t n)
{
    T *acc = acc_, s[16] = {0};
    const T *a = a_, *b = b_;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++)
            s[j] += a[i + j] * b[i + j];
    for (int j = 0; i < n; i++, j++)
        s[j] += a[i] * b[i];
    for (int w = 8; w; w /= 2)
        for (int j = 0; j < w; j++)
            s[j] += s[j + w];
    *acc += s[0];
}

static ISA void TAG(tile)(void *tile_, const void *a_, const void *b_, int64_t k)
{
    enum { N = 32 / (int)sizeof(T) };
    typedef T V __attribute__((vector_size(32), aligned(sizeof(T)), may_alias));
    const T *a = a_, *b = b_;
    V c[GEMM_ROWS][2];
    for (int i = 0; i < GEMM_ROWS; i++)
        c[i][0] = c[i][1] = (V){0};
    for (int64_t t = 0; t < k; t++, a += GEMM_ROWS, b += 2 * N) {
        V b0 = *(const V *)b, b1 = *(const V *)(b + N);
#pragma GCC unroll 6
        for (int i = 0; i < GEMM_ROWS; i++) {
            c[i][0] += a[i] * b0;
            c[i][1] += a[i] * b1;
        }
    }
    for (int i = 0; i < GEMM_ROWS; i++) {
        ((V *)tile_)[2 * i] = c[i][0];
        ((V *)tile_)[2 * i + 1] = c[i][1];
    }
}
#endif

static void TAG(set)(struct vec_table *table)
{
#define S_NUM_1(name) ON_NUMBER(SET1)(name)
#define S_NUM_2(name) ON_NUMBER(SET2)(name)
#define S_FLT_1(name) ON_FLOAT(SET1)(name)
#define S_FLT_2(name) ON_FLOAT(SET2)(name)
#define S_FLT_3(name) ON_FLOAT(SET1)(name)
#define S_INT_2(name) ON_INT(SET2)(name)
#define S_BIT_1(name) ON_BITS(SET1)(name)
#define S_BIT_2(name) ON_BITS(SET2)(name)
#define S_CMP_1(name) ON_FLOAT(SET1)(name)
#define S_CMP_2(name) SET2(name)
#define S_LOG_1(name) ON_BOOL(SET1)(name)
#define S_LOG_2(name) ON_BOOL(SET2)(name)
#define S_SEL_3(name) SET1(name)
#define S(name, arity, type_class, expression, ...) S_##type_class##_##arity(name)
#include "ir/scalar.def"
#undef S
#undef S_NUM_1
#undef S_NUM_2
#undef S_FLT_1
#undef S_FLT_2
#undef S_FLT_3
#undef S_INT_2
#undef S_BIT_1
#undef S_BIT_2
#undef S_CMP_1
#undef S_CMP_2
#undef S_LOG_1
#undef S_LOG_2
#undef S_SEL_3
#if IS_FLOAT || IS_INT
    SET_REDUCE(sum, SUM)
    SET_REDUCE(prod, PROD)
    SET_REDUCE(max, MAX)
    SET_REDUCE(min, MIN)
#else
    SET_REDUCE(any, ANY)
    SET_REDUCE(all, ALL)
    SET_REDUCE(any, MAX)
    SET_REDUCE(all, MIN)
#endif
#if IS_FLOAT
    table->muladd[KIND][SHAPE_VV] = TAG(muladd_vv);
    table->muladd[KIND][SHAPE_SV] = TAG(muladd_sv);
    table->muladd[KIND][SHAPE_VS] = TAG(muladd_vs);
    table->dot[KIND] = TAG(dot);
    table->tile[KIND] = TAG(tile);
#endif
}

#undef LOOP
#undef LOOP1
#undef LOOP2
#undef LOOP3
#undef SET1
#undef SET2
#undef NO
#undef ON_FLOAT
#undef ON_INT
#undef ON_NUMBER
#undef ON_BOOL
#undef ON_BITS
#undef REDUCE
#undef SET_REDUCE
#undef T
#undef M
#undef KIND
#undef TAG
#undef IS_FLOAT
#undef IS_INT
