/* What generated units call of cuDNN, by plain loops (emulated_library.h): the functions for convolutions that cuDNN 8 and 9 have, as far
 * as units use them: 4 dimensions in the order NCHW, one type for all tensors, sums in f32. The workspace is written, as a library may.
 *
 * Of the algorithms that are offered the first gives other bits in every run, the second needs more memory than units lend, the third
 * rounds f32 to 16 bits, the fourth to tf32 where that is allowed; the last is what must be taken. Any other, dimensions that do
 * not belong together, and strides of a kernel that reach beyond the input are errors. */
#ifndef CUDNN_EMULATION_H
#define CUDNN_EMULATION_H

#include "emulated_library.h"

enum cudnnStatus_t {
    CUDNN_STATUS_SUCCESS = 0,
    CUDNN_STATUS_BAD_PARAM = 2000,
    CUDNN_STATUS_NOT_SUPPORTED = 3000,
    CUDNN_STATUS_EXECUTION_FAILED = 5000
};
enum cudnnDataType_t { CUDNN_DATA_FLOAT = 0, CUDNN_DATA_HALF = 2, CUDNN_DATA_BFLOAT16 = 9 };
enum cudnnMathType_t {
    CUDNN_DEFAULT_MATH = 0,
    CUDNN_TENSOR_OP_MATH = 1,
    CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION = 2,
    CUDNN_FMA_MATH = 3
};
enum cudnnTensorFormat_t { CUDNN_TENSOR_NCHW = 0 };
enum cudnnConvolutionMode_t { CUDNN_CONVOLUTION = 0, CUDNN_CROSS_CORRELATION = 1 };
enum cudnnDeterminism_t { CUDNN_NON_DETERMINISTIC = 0, CUDNN_DETERMINISTIC = 1 };
enum cudnnConvolutionFwdAlgo_t { CUDNN_CONVOLUTION_FWD_ALGO_COUNT = 8 };
enum cudnnConvolutionBwdDataAlgo_t { CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT = 6 };
enum cudnnConvolutionBwdFilterAlgo_t { CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT = 7 };

struct emulated_tensor {
    int type, dims[4];
};
struct emulated_convolution {
    int pad[2], stride[2], dilation[2], groups, math;
};
template <class T> struct emulated_perf {
    T algo;
    cudnnStatus_t status;
    float time;
    size_t memory;
    cudnnDeterminism_t determinism;
    cudnnMathType_t mathType;
    int reserved[3];
};
typedef emulated_perf<cudnnConvolutionFwdAlgo_t> cudnnConvolutionFwdAlgoPerf_t;
typedef emulated_perf<cudnnConvolutionBwdDataAlgo_t> cudnnConvolutionBwdDataAlgoPerf_t;
typedef emulated_perf<cudnnConvolutionBwdFilterAlgo_t> cudnnConvolutionBwdFilterAlgoPerf_t;
struct emulated_cudnn {
    cudaStream_t stream;
};
typedef emulated_cudnn *cudnnHandle_t;
typedef emulated_tensor *cudnnTensorDescriptor_t, *cudnnFilterDescriptor_t;
typedef emulated_convolution *cudnnConvolutionDescriptor_t;

static inline const char *cudnnGetErrorString(cudnnStatus_t e) {
    return e == CUDNN_STATUS_BAD_PARAM          ? "CUDNN_STATUS_BAD_PARAM"
           : e == CUDNN_STATUS_EXECUTION_FAILED ? "CUDNN_STATUS_EXECUTION_FAILED"
                                                : "CUDNN_STATUS_NOT_SUPPORTED";
}
static inline cudnnStatus_t emulated_status(const char *function) {
    return emulated_library_fails(function) ? CUDNN_STATUS_NOT_SUPPORTED : CUDNN_STATUS_SUCCESS;
}
static inline cudnnStatus_t cudnnCreate(cudnnHandle_t *h) {
    *h = new emulated_cudnn();
    return emulated_status(__func__);
}
static inline cudnnStatus_t cudnnDestroy(cudnnHandle_t h) {
    delete h;
    return CUDNN_STATUS_SUCCESS;
}
static inline cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t stream) {
    h->stream = stream;
    return emulated_status(__func__);
}

static inline cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t *d) {
    *d = new emulated_tensor();
    return emulated_status(__func__);
}
static inline cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t d) {
    delete d;
    return CUDNN_STATUS_SUCCESS;
}
static inline cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t d, cudnnTensorFormat_t, cudnnDataType_t type, int n,
                                                       int c, int h, int w) {
    *d = emulated_tensor{type, {n, c, h, w}};
    return n > 0 && c > 0 && h > 0 && w > 0 ? emulated_status(__func__) : CUDNN_STATUS_BAD_PARAM;
}
static inline cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t *d) {
    *d = new emulated_tensor();
    return emulated_status(__func__);
}
static inline cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t d) {
    delete d;
    return CUDNN_STATUS_SUCCESS;
}
static inline cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t d, cudnnDataType_t type, cudnnTensorFormat_t, int k,
                                                       int c, int h, int w) {
    *d = emulated_tensor{type, {k, c, h, w}};
    return k > 0 && c > 0 && h > 0 && w > 0 ? emulated_status(__func__) : CUDNN_STATUS_BAD_PARAM;
}
static inline cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t *d) {
    *d = new emulated_convolution();
    (*d)->groups = 1;
    return emulated_status(__func__);
}
static inline cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t d) {
    delete d;
    return CUDNN_STATUS_SUCCESS;
}
static inline cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t d, int pad_h, int pad_w, int u, int v,
                                                            int dilation_h, int dilation_w, cudnnConvolutionMode_t mode,
                                                            cudnnDataType_t compute) {
    *d = emulated_convolution{{pad_h, pad_w}, {u, v}, {dilation_h, dilation_w}, 1, CUDNN_DEFAULT_MATH};
    return pad_h >= 0 && pad_w >= 0 && u > 0 && v > 0 && dilation_h > 0 && dilation_w > 0 && mode == CUDNN_CROSS_CORRELATION &&
                   compute == CUDNN_DATA_FLOAT
               ? emulated_status(__func__)
               : CUDNN_STATUS_BAD_PARAM;
}
static inline cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t d, int groups) {
    d->groups = groups;
    return groups > 0 ? emulated_status(__func__) : CUDNN_STATUS_BAD_PARAM;
}
static inline cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t d, cudnnMathType_t math) {
    d->math = math;
    return emulated_status(__func__);
}

/* Whether y is what the convolution of x by w has. */
static inline bool emulated_fits(const emulated_tensor &x, const emulated_tensor &w, const emulated_tensor &y,
                                 const emulated_convolution &how) {
    bool fits = x.type == w.type && x.type == y.type && x.dims[0] == y.dims[0] && x.dims[1] == w.dims[1] * how.groups &&
                y.dims[1] == w.dims[0] && w.dims[0] % how.groups == 0;
    for (int a = 0; a < 2; a++) {
        int room = x.dims[2 + a] + 2 * how.pad[a] - (w.dims[2 + a] - 1) * how.dilation[a] - 1;
        fits &= room >= 0 && y.dims[2 + a] == room / how.stride[a] + 1;
    }
    return fits;
}

enum { EMULATED_TF32 = 3, EMULATED_ALGORITHM = 4, EMULATED_WORK = 3 << 20 };

template <class T>
static cudnnStatus_t emulated_choice(const char *function, const emulated_tensor &x, const emulated_tensor &w, const emulated_tensor &y,
                                     const emulated_convolution &how, int most, int *count, emulated_perf<T> *found) {
    const bool f32 = x.type == CUDNN_DATA_FLOAT;
    const cudnnMathType_t exact = f32 && how.math == CUDNN_FMA_MATH ? CUDNN_FMA_MATH : CUDNN_DEFAULT_MATH;
    if (!emulated_fits(x, w, y, how) || most < 5)
        return CUDNN_STATUS_BAD_PARAM;
    const emulated_perf<T> all[5] = {
        {(T)0, CUDNN_STATUS_SUCCESS, 1, 0, CUDNN_NON_DETERMINISTIC, exact, {}},
        {(T)1, CUDNN_STATUS_SUCCESS, 2, (size_t)1 << 40, CUDNN_DETERMINISTIC, exact, {}},
        {(T)2, CUDNN_STATUS_SUCCESS, 3, 0, CUDNN_DETERMINISTIC, CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION, {}},
        {(T)EMULATED_TF32, f32 ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED, 4, EMULATED_WORK, CUDNN_DETERMINISTIC, CUDNN_DEFAULT_MATH, {}},
        {(T)EMULATED_ALGORITHM, CUDNN_STATUS_SUCCESS, 5, EMULATED_WORK, CUDNN_DETERMINISTIC, exact, {}}};
    for (*count = 0; *count < 5 - emulated_library_fails("algorithms"); ++*count)
        found[*count] = all[*count];
    return emulated_status(function);
}
static inline cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t, cudnnTensorDescriptor_t x, cudnnFilterDescriptor_t w,
                                                                   cudnnConvolutionDescriptor_t how, cudnnTensorDescriptor_t y, int most,
                                                                   int *count, cudnnConvolutionFwdAlgoPerf_t *found) {
    return emulated_choice(__func__, *x, *w, *y, *how, most, count, found);
}
static inline cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t, cudnnFilterDescriptor_t w,
                                                                        cudnnTensorDescriptor_t y, cudnnConvolutionDescriptor_t how,
                                                                        cudnnTensorDescriptor_t x, int most, int *count,
                                                                        cudnnConvolutionBwdDataAlgoPerf_t *found) {
    return emulated_choice(__func__, *x, *w, *y, *how, most, count, found);
}
static inline cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnnHandle_t, cudnnTensorDescriptor_t x,
                                                                          cudnnTensorDescriptor_t y, cudnnConvolutionDescriptor_t how,
                                                                          cudnnFilterDescriptor_t w, int most, int *count,
                                                                          cudnnConvolutionBwdFilterAlgoPerf_t *found) {
    return emulated_choice(__func__, *x, *w, *y, *how, most, count, found);
}

enum emulated_role { EMULATED_X, EMULATED_W, EMULATED_Y };
struct emulated_call_of_convolution {
    int role; /* which is computed */
    int algorithm;
    emulated_tensor x, w, y;
    emulated_convolution how;
    void *xt, *wt, *yt, *workspace;
    uint64_t workspace_bytes;
};

static inline int64_t emulated_place(const emulated_tensor &t, int64_t i, int64_t j, int64_t k, int64_t l) {
    return ((i * t.dims[1] + j) * t.dims[2] + k) * t.dims[3] + l;
}

static inline double emulated_tf32(double v) {
    int e;
    const double m = frexp(v, &e);
    return ldexp(nearbyint(ldexp(m, 11)), e - 11);
}

/* The product of an element of x or w with one of w or y, by the indices of a convolution; 0 where it reads outside of x. */
static inline float emulated_pair(const emulated_call_of_convolution &p, int64_t n, int64_t o, int64_t c, int64_t y0, int64_t y1, int64_t k0,
                                  int64_t k1) {
    const int type = p.x.type == CUDNN_DATA_FLOAT ? EMULATED_F32 : p.x.type == CUDNN_DATA_HALF ? EMULATED_F16 : EMULATED_BF16;
    const int64_t x0 = y0 * p.how.stride[0] + k0 * p.how.dilation[0] - p.how.pad[0];
    const int64_t x1 = y1 * p.how.stride[1] + k1 * p.how.dilation[1] - p.how.pad[1];
    if (x0 < 0 || x0 >= p.x.dims[2] || x1 < 0 || x1 >= p.x.dims[3])
        return 0;
    const int64_t x = emulated_place(p.x, n, o / (p.y.dims[1] / p.how.groups) * p.w.dims[1] + c, x0, x1);
    const int64_t w = emulated_place(p.w, o, c, k0, k1), y = emulated_place(p.y, n, o, y0, y1);
    double a = p.role == EMULATED_X ? emulated_element(p.yt, type, y) : emulated_element(p.xt, type, x);
    double b = p.role == EMULATED_W ? emulated_element(p.yt, type, y) : emulated_element(p.wt, type, w);
    if (p.algorithm == EMULATED_TF32)
        a = emulated_tf32(a), b = emulated_tf32(b);
    return (float)(a * b);
}

/* An element of what is computed, at these indices. */
static inline float emulated_sum(const emulated_call_of_convolution &p, int64_t i, int64_t j, int64_t k, int64_t l) {
    const int64_t outputs = p.y.dims[1] / p.how.groups;
    float sum = 0;
    if (p.role == EMULATED_Y)
        for (int64_t c = 0; c < p.w.dims[1]; c++)
            for (int64_t k0 = 0; k0 < p.w.dims[2]; k0++)
                for (int64_t k1 = 0; k1 < p.w.dims[3]; k1++)
                    sum += emulated_pair(p, i, j, c, k, l, k0, k1);
    else if (p.role == EMULATED_W)
        for (int64_t n = 0; n < p.y.dims[0]; n++)
            for (int64_t y0 = 0; y0 < p.y.dims[2]; y0++)
                for (int64_t y1 = 0; y1 < p.y.dims[3]; y1++)
                    sum += emulated_pair(p, n, i, j, y0, y1, k, l);
    else
        for (int64_t o = 0; o < outputs; o++)
            for (int64_t k0 = 0; k0 < p.w.dims[2]; k0++)
                for (int64_t k1 = 0; k1 < p.w.dims[3]; k1++) {
                    const int64_t y0 = k + p.how.pad[0] - k0 * p.how.dilation[0], y1 = l + p.how.pad[1] - k1 * p.how.dilation[1];
                    if (y0 >= 0 && y1 >= 0 && y0 % p.how.stride[0] == 0 && y1 % p.how.stride[1] == 0 &&
                        y0 / p.how.stride[0] < p.y.dims[2] && y1 / p.how.stride[1] < p.y.dims[3])
                        sum += emulated_pair(p, i, j / p.w.dims[1] * outputs + o, j % p.w.dims[1], y0 / p.how.stride[0], y1 / p.how.stride[1], k0, k1);
                }
    return sum;
}

static inline void emulated_convolve(emulated_call_of_convolution p) {
    const emulated_tensor &made = p.role == EMULATED_X ? p.x : p.role == EMULATED_W ? p.w : p.y;
    const int type = made.type == CUDNN_DATA_FLOAT ? EMULATED_F32 : made.type == CUDNN_DATA_HALF ? EMULATED_F16 : EMULATED_BF16;
    emulated_work(p.workspace, p.workspace_bytes);
    for (int64_t i = 0; i < made.dims[0]; i++)
        for (int64_t j = 0; j < made.dims[1]; j++)
            for (int64_t k = 0; k < made.dims[2]; k++)
                for (int64_t l = 0; l < made.dims[3]; l++)
                    emulated_set(p.role == EMULATED_X ? p.xt : p.role == EMULATED_W ? p.wt : p.yt, type, emulated_place(made, i, j, k, l),
                                 emulated_sum(p, i, j, k, l));
}

static inline cudnnStatus_t emulated_run(const char *function, cudnnHandle_t h, const void *alpha, const void *beta,
                                         const emulated_call_of_convolution &p) {
    const int algorithm = p.x.type == CUDNN_DATA_FLOAT && p.how.math == CUDNN_DEFAULT_MATH ? EMULATED_TF32 : EMULATED_ALGORITHM;
    if (!emulated_fits(p.x, p.w, p.y, p.how) || *(const float *)alpha != 1 || *(const float *)beta != 0 ||
        p.algorithm != algorithm || p.workspace_bytes < EMULATED_WORK ||
        p.how.math != (p.x.type == CUDNN_DATA_FLOAT && algorithm == EMULATED_ALGORITHM ? CUDNN_FMA_MATH : CUDNN_DEFAULT_MATH))
        return CUDNN_STATUS_BAD_PARAM;
    if (emulated_library_fails(function))
        return CUDNN_STATUS_NOT_SUPPORTED;
    return emulated_call(function, 1, 1, h->stream, emulated_convolve, p) == cudaSuccess ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED;
}
static inline cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t h, const void *alpha, cudnnTensorDescriptor_t dx, const void *x,
                                                    cudnnFilterDescriptor_t dw, const void *w, cudnnConvolutionDescriptor_t how,
                                                    cudnnConvolutionFwdAlgo_t algorithm, void *workspace, size_t bytes,
                                                    const void *beta, cudnnTensorDescriptor_t dy, void *y) {
    return emulated_run(__func__, h, alpha, beta,
                        {EMULATED_Y, (int)algorithm, *dx, *dw, *dy, *how, (void *)x, (void *)w, y, workspace, bytes});
}
static inline cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t h, const void *alpha, cudnnFilterDescriptor_t dw, const void *w,
                                                         cudnnTensorDescriptor_t dy, const void *y, cudnnConvolutionDescriptor_t how,
                                                         cudnnConvolutionBwdDataAlgo_t algorithm, void *workspace, size_t bytes,
                                                         const void *beta, cudnnTensorDescriptor_t dx, void *x) {
    return emulated_run(__func__, h, alpha, beta,
                        {EMULATED_X, (int)algorithm, *dx, *dw, *dy, *how, x, (void *)w, (void *)y, workspace, bytes});
}
static inline cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t h, const void *alpha, cudnnTensorDescriptor_t dx, const void *x,
                                                           cudnnTensorDescriptor_t dy, const void *y, cudnnConvolutionDescriptor_t how,
                                                           cudnnConvolutionBwdFilterAlgo_t algorithm, void *workspace, size_t bytes,
                                                           const void *beta, cudnnFilterDescriptor_t dw, void *w) {
    return emulated_run(__func__, h, alpha, beta,
                        {EMULATED_W, (int)algorithm, *dx, *dw, *dy, *how, (void *)x, w, (void *)y, workspace, bytes});
}

#endif
