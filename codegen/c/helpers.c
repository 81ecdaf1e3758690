/* Helpers on demand: functions of ir/scalar_math/ and codegen/cuda/tensor_core.h, whose text is part of the compiler, with what they need, each once a unit
 * and in an order that defines before use; vector types; the multiply-add macros. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/c/c_internal.h"
#include "scalar_math_text.h"
#include "tensor_core_text.h"

static bool first_need(struct cgen *g, const char *name) {
    struct cgen_kernels *k = cgen_private(g);
    for (int i = 0; i < k->helpers.n; i++)
        if (!strcmp(k->helpers.at[i], name))
            return false;
    VEC_PUSH(&g->arena, k->helpers, name);
    return true;
}

/* The multiply-add of a scalar type as the target has it; without a definition the helpers round twice. In portable mode
 * there is none, so that every compiler gives the same bits. */
static void fma_macros(struct cgen *g) {
    if (!first_need(g, "#MX_FMA"))
        return;
    if (g->cuda)
        text_add(&g->helpers, "#define MX_FMA(a, b, c) fmaf(a, b, c)\n#define MX_FMA_F64(a, b, c) fma(a, b, c)\n\n");
    if (g->cuda || !g->options->vector_extensions)
        return;
    text_add(&g->helpers, "/* One rounding where the target has the instruction. */\n"
                          "#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__aarch64__)\n"
                          "#define MX_FMA(a, b, c) __builtin_fmaf(a, b, c)\n"
                          "#define MX_FMA_F64(a, b, c) __builtin_fma(a, b, c)\n"
                          "#endif\n\n");
}

/* Row-major products by the library that --blas names; its header is not needed. */
static void blas_function(struct cgen *g, const char *name, bool wide) {
    if (!first_need(g, name))
        return;
    const char *t = wide ? "double" : "float", *f = wide ? "cblas_dgemm" : "cblas_sgemm";
    text_printf(
        &g->helpers,
        "void %s(int order, int ta, int tb, int m, int n, int k, %s alpha, const %s *a, int lda, const %s *b, int ldb, %s beta, %s *c, int ldc);\n"
        "static inline void %s(int64_t ta, int64_t tb, int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc, const %s *a, "
        "const %s *b, %s *c)\n"
        "{\n"
        "    %s(101, ta ? 112 : 111, tb ? 112 : 111, (int)m, (int)n, (int)k, 1.0%s, a, (int)lda, b, (int)ldb, 0.0%s, c, (int)ldc);\n"
        "}\n\n",
        f, t, t, t, t, t, name, t, t, t, f, wide ? "" : "f", wide ? "" : "f");
}

/* The list of what the function needs, behind its name; NULL: there is no such function in the text. */
static const char *find_helper(const char *text, const char *name) {
    size_t length = strlen(name);
    for (const char *s = text; (s = strstr(s, "/*@ "));) {
        s += 4;
        if (!strncmp(s, name, length) && s[length] == ':')
            return s + length + 1;
    }
    return NULL;
}

void cgen_need(struct cgen *g, const char *name) {
    if (!strncmp(name, "mx_blas_", 8)) {
        blas_function(g, name, !strcmp(name, "mx_blas_f64"));
        return;
    }
    const char *deps = find_helper(scalar_math_text, name);
    if (!deps && g->cuda)
        deps = find_helper(tensor_core_text, name);
    if (!deps) {
        fprintf(stderr, "mxcc: no function %s in ir/scalar_math/ or codegen/cuda/tensor_core.h\n", name);
        exit(3);
    }
    if (!first_need(g, arena_strdup(&g->arena, name)))
        return;
    if (strstr(name, "mx_fma_"))
        fma_macros(g);
    const char *end = strstr(deps, "*/");
    while (deps < end) {
        while (deps < end && (*deps == ' ' || *deps == '\n'))
            deps++;
        const char *stop = deps;
        while (stop < end && *stop != ' ' && *stop != '\n')
            stop++;
        if (stop > deps)
            cgen_need(g, arena_strndup(&g->arena, deps, (size_t)(stop - deps)));
        deps = stop;
    }
    const char *body = end + 2;
    while (*body == '\n')
        body++;
    /* The function ends at its closing brace in the first column. */
    const char *close = strstr(body, "\n}\n");
    const char *text = arena_strndup(&g->arena, body, (size_t)(close ? close + 3 - body : (long)strlen(body)));
    const char *head = g->cuda ? strstr(text, "static inline ") : NULL;
    if (head) /* for both sides */
        text_printf(&g->helpers, "%.*sstatic __host__ __device__ inline %s", (int)(head - text), text, head + 14);
    else
        text_add(&g->helpers, text);
    text_add(&g->helpers, "\n");
}

const char *cgen_vector_type(struct cgen *g, enum dtype t, int lanes) {
    const char *type = arena_printf(&g->arena, "mx_%sx%d", dtype_name(t), lanes);
    if (!first_need(g, type))
        return type;
    if (g->cuda) { /* one access, of 16 bytes at most */
        int bytes = lanes * dtype_size(t);
        text_printf(&g->helpers, "struct __align__(%d) %s {\n    %s at[%d];\n};\n\n", bytes < 16 ? bytes : 16, type,
                    cgen_c_type(t), lanes);
        return type;
    }
    text_printf(&g->helpers, "typedef %s %s __attribute__((vector_size(%d), aligned(%d), may_alias));\n\n",
                cgen_c_type(t), type, lanes * dtype_size(t), dtype_size(t));
    text_printf(&g->helpers, "static inline %s %s_splat(%s x)\n{\n    const %s v = {", type, type, cgen_c_type(t),
                type);
    for (int i = 0; i < lanes; i++)
        text_add(&g->helpers, i ? ", x" : "x");
    text_add(&g->helpers, "};\n    return v;\n}\n\n");
    return type;
}

const char *cgen_fma_macro(struct cgen *g, enum dtype t, int lanes) {
    if (lanes == 1) {
        const char *name = t == F64 ? "mx_fma_f64" : "mx_fma_f32";
        cgen_need(g, name);
        return name;
    }
    const char *type = cgen_vector_type(g, t, lanes);
    const char *name = arena_printf(&g->arena, "MX_FMA_%s%sX%d", t == F64 ? "F64" : "F32", "", lanes);
    if (!first_need(g, name))
        return name;
    int bytes = lanes * dtype_size(t);
    const char *suffix = t == F64 ? "pd" : "ps", *reg = t == F64 ? "d" : "";
    const char *bits = bytes == 16 ? "" : bytes == 32 ? "256" : "512";
    struct text *h = &g->helpers;
    text_printf(h, bytes == 64 ? "#if defined(__AVX512F__)\n" : "#if defined(__FMA__)\n");
    text_add(h, "#include <immintrin.h>\n");
    const char *m = bytes == 16 ? "__m128" : bytes == 32 ? "__m256" : "__m512";
    text_printf(h, "#define %s(a, b, c) ((%s)_mm%s_fmadd_%s((%s%s)(a), (%s%s)(b), (%s%s)(c)))\n", name, type, bits,
                suffix, m, reg, m, reg, m, reg);
    if (bytes == 16)
        text_printf(h,
                    "#elif defined(__aarch64__)\n#include <arm_neon.h>\n"
                    "#define %s(a, b, c) ((%s)vfmaq_%s((float%dx%d_t)(c), (float%dx%d_t)(a), (float%dx%d_t)(b)))\n",
                    name, type, t == F64 ? "f64" : "f32", t == F64 ? 64 : 32, lanes, t == F64 ? 64 : 32, lanes,
                    t == F64 ? 64 : 32, lanes);
    text_printf(h, "#else\n#define %s(a, b, c) ((a) * (b) + (c))\n#endif\n\n", name);
    return name;
}
