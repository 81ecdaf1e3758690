/* Calls of cuBLASLt (codegen/kernels/cublas.c says which products): the unit's function around the library, and its use.
 *
 * Descriptors are made for each call, which is cheap; the choice of an algorithm is not, so the last ones are kept with what they were
 * chosen for. In a graph none of it is done again.
 */
#include <string.h>

#include "codegen/c/model_internal.h"
#include "codegen/cuda/cuda.h"

enum { ALGORITHMS = 32, KEY = 16 };

void cuda_library_call(struct function *f, const struct loop_stmt *s) {
    struct cgen *g = f->g;
    struct text line = {0};
    if (strcmp(s->callee->name, "mx_convolution") == 0)
        g->cuda->uses_cudnn = true;
    else
        g->cuda->uses_library = true;
    for (int i = 0; i < s->callee->var_count; i++)
        text_printf(&line, ", %s", function_expr(f, s->call_args[i]));
    for (int i = 0; i < s->callee->mem_count; i++) {
        const struct loop_mem *m = s->call_mems[i].mem;
        text_printf(&line, ", (%s *)%s + %s", cgen_c_type(m->dtype), m->base ? m->base : cgen_name_of(g, m->id),
                    function_expr(f, s->call_mems[i].offset));
    }
    size_t at = f->print.out->length;
    cprint_line(&f->print, "MX_TRY(%s_%s(m, m->mx_stream[%d]%s, \"%s\"));", g->prefix, s->callee->name, f->lane,
                text_string(&line), cuda_place(f));
    if (f->part) /* a launch, though sizes stand in it that a graph must have exactly */
        VEC_PUSH(&g->arena, f->part->launches, (struct cuda_span){at, at});
    text_free(&line);
}

int64_t unit_cuda_library_bytes(const struct unit *u) {
    return u->g.cuda->uses_library ? 16 + ALGORITHMS * (8 * (KEY + 2) + 64) : 0;
}

void unit_cuda_library_struct(struct unit *u) {
    if (u->g.cuda->uses_library)
        text_printf(
            &u->c,
            "    cublasLtHandle_t mx_library;\n    struct {\n        int64_t key[%d];\n        uint64_t used;\n"
            "        cublasLtMatmulAlgo_t algorithm;\n    } mx_algorithms[%d]; /* chosen last, for what */\n    uint64_t mx_products;\n",
            KEY, ALGORITHMS);
}

void unit_cuda_library(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix;
    if (!u->g.cuda->uses_library)
        return;
    text_printf(
        c,
        "static mx_status %s_mx_library(struct %s *m, cublasStatus_t e, const char *where) {\n"
        "    if (e == CUBLAS_STATUS_SUCCESS)\n        return MX_OK;\n    %s_mx_settle(m);\n"
        "    return %s_mx_fail(m, MX_ERROR_DEVICE, \"%%s: cuBLASLt: %%s\", where, cublasLtGetStatusString(e));\n}\n\n",
        p, p, p, p);
    text_printf(
        c,
        "/* d[count][rows][columns] = a[count][rows][depth] b[count][depth][columns], row-major; with ta, tb transposed in memory. flags: 1 max\n"
        " * with 0, 2 a bias along the columns, 4 plus a matrix of the result's shape, 8 GELU by tanh, 16 times its slope at that matrix. The library is column-major: it computes the transpose. */\n"
        "static mx_status %s_mx_product(struct %s *m, cudaStream_t stream, int64_t type, int64_t result, int64_t sum, int64_t flags, int64_t ta,\n"
        "                               int64_t tb, int64_t rows, int64_t columns, int64_t depth, int64_t lda, int64_t ldb, int64_t count,\n"
        "                               int64_t stride_a, int64_t stride_b, int64_t workspace_bytes, const void *a, const void *b, void *d,\n"
        "                               const void *bias, const void *residual, void *workspace, const char *where) {\n"
        "    static const cudaDataType types[4] = {CUDA_R_64F, CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF};\n"
        "    static const cublasLtEpilogue_t epilogues[4] = {CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_RELU, CUBLASLT_EPILOGUE_BIAS,\n"
        "                                                    CUBLASLT_EPILOGUE_RELU_BIAS};\n"
        "    static const cublasLtEpilogue_t gelu[2] = {CUBLASLT_EPILOGUE_GELU, CUBLASLT_EPILOGUE_GELU_BIAS};\n"
        "    cublasLtMatmulDesc_t product = NULL;\n    cublasLtMatrixLayout_t layout[3] = {NULL, NULL, NULL};\n"
        "    cublasLtMatmulPreference_t preference = NULL;\n    cublasLtMatmulHeuristicResult_t found;\n"
        "    const cublasLtEpilogue_t epilogue = flags & 16 ? CUBLASLT_EPILOGUE_DGELU : flags & 8 ? gelu[flags >> 1 & 1] : epilogues[flags & 3];\n"
        "    const cublasOperation_t op[2] = {tb ? CUBLAS_OP_T : CUBLAS_OP_N, ta ? CUBLAS_OP_T : CUBLAS_OP_N};\n"
        "    const int64_t stride[3] = {stride_b, stride_a, rows * columns};\n    const int32_t batch = (int32_t)count;\n"
        "    const double one = 1, other = flags & 4 ? 1 : 0;\n    const float one_f = 1, other_f = flags & 4 ? 1 : 0;\n"
        "    const uint64_t addresses = (uint64_t)(uintptr_t)a | (uint64_t)(uintptr_t)b | (uint64_t)(uintptr_t)d |\n"
        "        (flags & 20 ? (uint64_t)(uintptr_t)residual : 0) | 256;\n"
        "    const uint32_t aligned = (uint32_t)(addresses & (0 - addresses));\n"
        "    const int64_t key[%d] = {type, result, sum, flags, ta, tb, rows, columns, depth, lda, ldb, count, stride_a, stride_b, aligned};\n"
        "    cublasStatus_t e = CUBLAS_STATUS_SUCCESS;\n    int k = 0, asked = 0;\n"
        "    if (rows == 0 || columns == 0 || count == 0)\n        return MX_OK;\n"
        "#define MX_LIBRARY(call) (e = e == CUBLAS_STATUS_SUCCESS ? (call) : e)\n"
        "    MX_LIBRARY(cublasLtMatmulDescCreate(&product, sum ? CUBLAS_COMPUTE_32F : CUBLAS_COMPUTE_64F, types[sum]));\n"
        "    MX_LIBRARY(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &op[0], sizeof op[0]));\n"
        "    MX_LIBRARY(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSB, &op[1], sizeof op[1]));\n"
        "    MX_LIBRARY(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));\n"
        "    if (flags & 2)\n        MX_LIBRARY(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));\n"
        "    if (flags & 16) {\n"
        "        MX_LIBRARY(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &residual, sizeof residual));\n"
        "        MX_LIBRARY(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &columns, sizeof columns));\n    }\n"
        "    MX_LIBRARY(cublasLtMatrixLayoutCreate(&layout[0], types[type], (uint64_t)(tb ? depth : columns), (uint64_t)(tb ? columns : depth), ldb));\n"
        "    MX_LIBRARY(cublasLtMatrixLayoutCreate(&layout[1], types[type], (uint64_t)(ta ? rows : depth), (uint64_t)(ta ? depth : rows), lda));\n"
        "    MX_LIBRARY(cublasLtMatrixLayoutCreate(&layout[2], types[result], (uint64_t)columns, (uint64_t)rows, columns));\n"
        "    for (int i = 0; i < 3 && count > 1; i++) {\n"
        "        MX_LIBRARY(cublasLtMatrixLayoutSetAttribute(layout[i], CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch));\n"
        "        MX_LIBRARY(cublasLtMatrixLayoutSetAttribute(layout[i], CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride[i], sizeof stride[i]));\n    }\n"
        "    while (k < %d && (!m->mx_algorithms[k].used || memcmp(m->mx_algorithms[k].key, key, sizeof key) != 0))\n        k++;\n"
        "    if (k == %d) {\n"
        "        k = 0;\n        for (int i = 1; i < %d; i++)\n            if (m->mx_algorithms[i].used < m->mx_algorithms[k].used)\n                k = i;\n"
        "        MX_LIBRARY(cublasLtMatmulPreferenceCreate(&preference));\n"
        "        MX_LIBRARY(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,\n"
        "                                                        sizeof workspace_bytes));\n"
        "        for (int i = 0; i < 4; i++) {\n"
        "            static const cublasLtMatmulPreferenceAttributes_t alignments[4] = {\n"
        "                CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,\n"
        "                CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};\n"
        "            MX_LIBRARY(cublasLtMatmulPreferenceSetAttribute(preference, alignments[i], &aligned, sizeof aligned));\n        }\n"
        "        MX_LIBRARY(cublasLtMatmulAlgoGetHeuristic(m->mx_library, product, layout[0], layout[1], layout[2], layout[2], preference, 1, &found,\n"
        "                                                  &asked));\n"
        "        if (e == CUBLAS_STATUS_SUCCESS && asked == 0)\n            e = CUBLAS_STATUS_NOT_SUPPORTED;\n"
        "        if (e == CUBLAS_STATUS_SUCCESS) {\n            memcpy(m->mx_algorithms[k].key, key, sizeof key);\n"
        "            m->mx_algorithms[k].algorithm = found.algo;\n            m->mx_algorithms[k].used = 1;\n        }\n    }\n"
        "    if (e == CUBLAS_STATUS_SUCCESS)\n        m->mx_algorithms[k].used = ++m->mx_products;\n"
        "    MX_LIBRARY(cublasLtMatmul(m->mx_library, product, sum ? (const void *)&one_f : (const void *)&one, b, layout[0], a, layout[1],\n"
        "                              sum ? (const void *)&other_f : (const void *)&other, flags & 4 ? residual : d, layout[2], d, layout[2],\n"
        "                              &m->mx_algorithms[k].algorithm, workspace, (size_t)workspace_bytes, stream));\n"
        "#undef MX_LIBRARY\n"
        "    if (preference)\n        (void)cublasLtMatmulPreferenceDestroy(preference);\n"
        "    for (int i = 0; i < 3; i++)\n        if (layout[i])\n            (void)cublasLtMatrixLayoutDestroy(layout[i]);\n"
        "    if (product)\n        (void)cublasLtMatmulDescDestroy(product);\n"
        "    MX_TRY(%s_mx_library(m, e, where));\n"
        "#ifdef MX_CUDA_SYNC\n    MX_TRY(%s_mx_cuda(m, cudaStreamSynchronize(stream), where));\n#endif\n    return MX_OK;\n}\n\n",
        p, p, KEY, ALGORITHMS, ALGORITHMS, ALGORITHMS, p, p);
}

void unit_cuda_library_init(struct unit *u) {
    if (u->g.cuda->uses_library)
        text_printf(
            &u->c,
            "    if (status == MX_OK)\n        status = %s_mx_library(m, cublasLtCreate(&m->mx_library), \"init\");\n",
            u->prefix);
}

void unit_cuda_library_free(struct unit *u) {
    if (u->g.cuda->uses_library)
        text_add(&u->c, "        if (m->mx_library)\n            (void)cublasLtDestroy(m->mx_library);\n");
}
