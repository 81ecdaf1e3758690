/* What generated units call of cuBLASLt, by plain loops (emulated_library.h). As far as units use it: column-major, strided batches, the
 * epilogues for max(…, 0), a bias, GELU and its gradient. The workspace is written, as a library may. An alignment that was promised and is not there, a layout
 * that a call does not fit, are errors. */
#ifndef CUBLASLT_EMULATION_H
#define CUBLASLT_EMULATION_H

#include "emulated_library.h"

enum cublasStatus_t {
    CUBLAS_STATUS_SUCCESS = 0,
    CUBLAS_STATUS_INVALID_VALUE = 7,
    CUBLAS_STATUS_NOT_SUPPORTED = 15
};
enum cudaDataType {
    CUDA_R_32F = EMULATED_F32,
    CUDA_R_64F = EMULATED_F64,
    CUDA_R_16F = EMULATED_F16,
    CUDA_R_16BF = EMULATED_BF16
};
enum cublasComputeType_t { CUBLAS_COMPUTE_32F = 68, CUBLAS_COMPUTE_64F = 70 };
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
enum cublasLtEpilogue_t {
    CUBLASLT_EPILOGUE_DEFAULT = 1,
    CUBLASLT_EPILOGUE_RELU = 2,
    CUBLASLT_EPILOGUE_BIAS = 4,
    CUBLASLT_EPILOGUE_RELU_BIAS = 6,
    CUBLASLT_EPILOGUE_GELU = 32,
    CUBLASLT_EPILOGUE_GELU_BIAS = 36,
    CUBLASLT_EPILOGUE_DGELU = 192
};
enum cublasLtMatmulDescAttributes_t {
    CUBLASLT_MATMUL_DESC_TRANSA = 3,
    CUBLASLT_MATMUL_DESC_TRANSB = 4,
    CUBLASLT_MATMUL_DESC_EPILOGUE = 7,
    CUBLASLT_MATMUL_DESC_BIAS_POINTER = 8,
    CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER = 11,
    CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD = 12
};
enum cublasLtMatrixLayoutAttribute_t {
    CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT = 5,
    CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET = 6
};
enum cublasLtMatmulPreferenceAttributes_t {
    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
};

struct emulated_product {
    int sum_is_wide, transposed[2], epilogue;
    const void *bias, *aux;
    int64_t aux_leading;
};
struct emulated_layout {
    int type;
    int64_t rows, columns, leading, batch, stride;
};
struct emulated_preference {
    uint64_t workspace;
    uint32_t aligned;
};
struct cublasLtMatmulAlgo_t {
    uint64_t data[8]; /* [0] what it was chosen for: bytes of workspace, [1] the alignment */
};
struct cublasLtMatmulHeuristicResult_t {
    cublasLtMatmulAlgo_t algo;
    size_t workspaceSize;
};
typedef int *cublasLtHandle_t;
typedef emulated_product *cublasLtMatmulDesc_t;
typedef emulated_layout *cublasLtMatrixLayout_t;
typedef emulated_preference *cublasLtMatmulPreference_t;

static inline const char *cublasLtGetStatusString(cublasStatus_t e) {
    return e == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS_INVALID_VALUE";
}
static inline cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) {
    *h = new int(1);
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) {
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}

static inline cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t compute, cudaDataType) {
    *d = new emulated_product();
    (*d)->sum_is_wide = compute == CUBLAS_COMPUTE_64F;
    (*d)->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
    delete d;
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a,
                                                            const void *p, size_t bytes) {
    if (bytes != (a >= CUBLASLT_MATMUL_DESC_BIAS_POINTER ? 8 : 4))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (a == CUBLASLT_MATMUL_DESC_BIAS_POINTER)
        memcpy(&d->bias, p, bytes);
    else if (a == CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER)
        memcpy(&d->aux, p, bytes);
    else if (a == CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD)
        memcpy(&d->aux_leading, p, bytes);
    else
        memcpy(a == CUBLASLT_MATMUL_DESC_EPILOGUE ? &d->epilogue : &d->transposed[a == CUBLASLT_MATMUL_DESC_TRANSB], p, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

static inline cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType type, uint64_t rows,
                                                        uint64_t columns, int64_t leading) {
    *l = new emulated_layout{type, (int64_t)rows, (int64_t)columns, leading, 1, 0};
    return leading >= (int64_t)rows ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
static inline cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t a,
                                                              const void *p, size_t bytes) {
    int32_t count;
    if (bytes != (a == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT ? 4 : 8))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (a == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) {
        memcpy(&count, p, bytes);
        l->batch = count;
    } else {
        memcpy(&l->stride, p, bytes);
    }
    return CUBLAS_STATUS_SUCCESS;
}

static inline cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) {
    *p = new emulated_preference{0, 256};
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                                  cublasLtMatmulPreferenceAttributes_t a, const void *value,
                                                                  size_t bytes) {
    uint32_t aligned;
    if (bytes != (a == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? 8 : 4))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (a == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
        memcpy(&p->workspace, value, bytes);
    } else {
        memcpy(&aligned, value, bytes);
        p->aligned = aligned < p->aligned ? aligned : p->aligned;
    }
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                                            cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                                            cublasLtMatrixLayout_t, cublasLtMatmulPreference_t p, int,
                                                            cublasLtMatmulHeuristicResult_t *found, int *count) {
    *found = {};
    found->algo.data[0] = found->workspaceSize = p->workspace;
    found->algo.data[1] = p->aligned;
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

struct emulated_call_of_product {
    emulated_product what;
    emulated_layout a, b, c, d;
    const void *at, *bt, *ct;
    void *dt, *workspace;
    uint64_t workspace_bytes;
    double alpha, beta;
};

static inline double emulated_gelu_tanh(double x) {
    return tanh(0.7978845608028654 * (x + 0.044715 * x * x * x));
}

static inline void emulated_matmul(emulated_call_of_product p) {
    emulated_work(p.workspace, p.workspace_bytes);
    int64_t depth = p.what.transposed[0] ? p.a.rows : p.a.columns;
    for (int64_t k = 0; k < p.d.batch; k++)
        for (int64_t j = 0; j < p.d.columns; j++)
            for (int64_t i = 0; i < p.d.rows; i++) {
                double wide = 0;
                float sum = 0;
                for (int64_t t = 0; t < depth; t++) {
                    double x = emulated_element(p.at, p.a.type, k * p.a.stride + (p.what.transposed[0] ? i * p.a.leading + t : t * p.a.leading + i));
                    double y = emulated_element(p.bt, p.b.type, k * p.b.stride + (p.what.transposed[1] ? t * p.b.leading + j : j * p.b.leading + t));
                    if (p.what.sum_is_wide)
                        wide += x * y;
                    else
                        sum += (float)(x * y);
                }
                double v = p.alpha * (p.what.sum_is_wide ? wide : sum);
                if (p.beta != 0)
                    v += p.beta * emulated_element(p.ct, p.c.type, k * p.c.stride + j * p.c.leading + i);
                if (p.what.epilogue & CUBLASLT_EPILOGUE_BIAS)
                    v += emulated_element(p.what.bias, p.d.type, i);
                if (p.what.epilogue & CUBLASLT_EPILOGUE_RELU)
                    v = v > 0 ? v : 0;
                if (p.what.epilogue & CUBLASLT_EPILOGUE_GELU)
                    v *= 0.5 * (1 + emulated_gelu_tanh(v));
                if (p.what.epilogue == CUBLASLT_EPILOGUE_DGELU) {
                    double x = emulated_element(p.what.aux, p.d.type, j * p.what.aux_leading + i), t = emulated_gelu_tanh(x);
                    v *= 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
                }
                emulated_set(p.dt, p.d.type, k * p.d.stride + j * p.d.leading + i, v);
            }
}

static inline cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t what, const void *alpha, const void *a,
                                            cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb,
                                            const void *beta, const void *c, cublasLtMatrixLayout_t lc, void *d,
                                            cublasLtMatrixLayout_t ld, const cublasLtMatmulAlgo_t *algo, void *workspace,
                                            size_t workspace_bytes, cudaStream_t stream) {
    int64_t m = what->transposed[0] ? la->columns : la->rows, k = what->transposed[0] ? la->rows : la->columns;
    int64_t n = what->transposed[1] ? lb->rows : lb->columns, other = what->transposed[1] ? lb->columns : lb->rows;
    emulated_call_of_product p = {*what, *la, *lb, *lc, *ld, a, b, c, d, workspace, workspace_bytes, 0, 0};
    uintptr_t aligned = (uintptr_t)algo->data[1] - 1;
    if (!h || m != ld->rows || n != ld->columns || k != other || la->type != lb->type || la->batch != ld->batch || lb->batch != ld->batch ||
        workspace_bytes < algo->data[0] || ((uintptr_t)a & aligned) || ((uintptr_t)b & aligned) || ((uintptr_t)c & aligned) ||
        ((uintptr_t)d & aligned) || (what->epilogue != CUBLASLT_EPILOGUE_DEFAULT && what->sum_is_wide) ||
        (what->epilogue == CUBLASLT_EPILOGUE_DGELU && (!what->aux || (uintptr_t)what->aux % 16 || what->aux_leading % 8 || what->aux_leading < m)))
        return CUBLAS_STATUS_INVALID_VALUE;
    p.alpha = what->sum_is_wide ? *(const double *)alpha : *(const float *)alpha;
    p.beta = what->sum_is_wide ? *(const double *)beta : *(const float *)beta;
    return emulated_call("cublasLtMatmul", 1, 1, stream, emulated_matmul, p) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

#endif
