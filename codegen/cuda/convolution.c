/* Calls of cuDNN (codegen/kernels/cudnn.c says which convolutions): the unit's function around the library.
 *
 * Its functions for convolutions are those that cuDNN 8 and 9 both have. Descriptors are made for each call, which is cheap; the choice of
 * an algorithm is not, so the last ones are kept with what they were chosen for. In a graph none of it is done again.
 */
#include "codegen/c/model_internal.h"
#include "codegen/cuda/cuda.h"

enum { ALGORITHMS = 32, KEY = 20, CHOICES = 10 };

int64_t unit_cuda_convolution_bytes(const struct unit *u) {
    return u->g.cuda->uses_cudnn ? 16 + ALGORITHMS * (8 * (KEY + 2) + 8) : 0;
}

void unit_cuda_convolution_struct(struct unit *u) {
    if (u->g.cuda->uses_cudnn)
        text_printf(&u->c,
                    "    cudnnHandle_t mx_cudnn;\n    struct {\n        int64_t key[%d];\n        uint64_t used;\n"
                    "        int algorithm, math;\n    } mx_convolvers[%d]; /* chosen last, for what */\n"
                    "    uint64_t mx_convolutions;\n",
                    KEY, ALGORITHMS);
}

/* The choice among the algorithms for one of the three. */
static void print_choice(struct unit *u, const char *type, const char *function, const char *operands) {
    text_printf(&u->c,
                "            %sPerf_t found[%d];\n"
                "            MX_CUDNN(%s(m->mx_cudnn, %s, %d, &count, found));\n"
                "            MX_CHOOSE();\n",
                type, CHOICES, function, operands, CHOICES);
}

void unit_cuda_convolution(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix;
    if (!u->g.cuda->uses_cudnn)
        return;
    text_printf(c,
                "static mx_status %s_mx_cudnn(struct %s *m, cudnnStatus_t e, const char *where) {\n"
                "    if (e == CUDNN_STATUS_SUCCESS)\n        return MX_OK;\n    %s_mx_settle(m);\n"
                "    return %s_mx_fail(m, MX_ERROR_DEVICE, \"%%s: cuDNN: %%s\", where, cudnnGetErrorString(e));\n}\n\n",
                p, p, p, p);
    text_printf(
        c,
        "/* One of three tensors from the two others: x[batch][inputs][x0][x1], w[outputs][inputs / groups][k0][k1], y[batch][outputs][y0][y1],\n"
        " * where y is the convolution of x by w. result: 0 x, the adjoint of y, 1 w, the same, 2 y. s strides, p zeros before and after\n"
        " * each axis, d dilations. */\n"
        "static mx_status %s_mx_convolution(struct %s *m, cudaStream_t stream, int64_t result, int64_t type, int64_t tf32, int64_t batch,\n"
        "                                   int64_t inputs, int64_t outputs, int64_t groups, int64_t x0, int64_t k0, int64_t y0, int64_t s0,\n"
        "                                   int64_t p0, int64_t d0, int64_t x1, int64_t k1, int64_t y1, int64_t s1, int64_t p1, int64_t d1,\n"
        "                                   int64_t workspace_bytes, void *x, void *w, void *y, void *workspace, const char *where) {\n"
        "    const cudnnDataType_t data = type == 1 ? CUDNN_DATA_FLOAT : type == 2 ? CUDNN_DATA_HALF : CUDNN_DATA_BFLOAT16;\n"
        "    const int64_t key[%d] = {result, type, tf32, batch, inputs, outputs, groups, x0, k0, y0, s0, p0, d0, x1, k1, y1, s1, p1, d1};\n"
        "    const float one = 1, zero = 0;\n"
        "    cudnnTensorDescriptor_t dx = NULL, dy = NULL;\n    cudnnFilterDescriptor_t dw = NULL;\n"
        "    cudnnConvolutionDescriptor_t how = NULL;\n"
        "    cudnnStatus_t e = CUDNN_STATUS_SUCCESS;\n    int k = 0, count = 0, none = 0;\n"
        "    if (batch == 0)\n        return MX_OK;\n"
        "#define MX_CUDNN(call) (e = e == CUDNN_STATUS_SUCCESS ? (call) : e)\n"
        "    MX_CUDNN(cudnnCreateTensorDescriptor(&dx));\n    MX_CUDNN(cudnnCreateTensorDescriptor(&dy));\n"
        "    MX_CUDNN(cudnnCreateFilterDescriptor(&dw));\n    MX_CUDNN(cudnnCreateConvolutionDescriptor(&how));\n"
        "    MX_CUDNN(cudnnSetTensor4dDescriptor(dx, CUDNN_TENSOR_NCHW, data, (int)batch, (int)inputs, (int)x0, (int)x1));\n"
        "    MX_CUDNN(cudnnSetTensor4dDescriptor(dy, CUDNN_TENSOR_NCHW, data, (int)batch, (int)outputs, (int)y0, (int)y1));\n"
        "    MX_CUDNN(cudnnSetFilter4dDescriptor(dw, data, CUDNN_TENSOR_NCHW, (int)outputs, (int)(inputs / groups), (int)k0, (int)k1));\n"
        "    MX_CUDNN(cudnnSetConvolution2dDescriptor(how, (int)p0, (int)p1, (int)s0, (int)s1, (int)d0, (int)d1, CUDNN_CROSS_CORRELATION,\n"
        "                                             CUDNN_DATA_FLOAT));\n"
        "    MX_CUDNN(cudnnSetConvolutionGroupCount(how, (int)groups));\n"
        "    MX_CUDNN(cudnnSetStream(m->mx_cudnn, stream));\n"
        "    while (k < %d && (!m->mx_convolvers[k].used || memcmp(m->mx_convolvers[k].key, key, sizeof key) != 0))\n        k++;\n"
        "    if (k == %d) {\n"
        "        int algorithm = -1, math = 0;\n"
        "        k = 0;\n        for (int i = 1; i < %d; i++)\n            if (m->mx_convolvers[i].used < m->mx_convolvers[k].used)\n                k = i;\n"
        "        /* f32 is multiplied as f32, but where tf32 was asked for; nothing is rounded to 16 bits on the way. */\n"
        "        MX_CUDNN(cudnnSetConvolutionMathType(how, type == 1 && !tf32 ? CUDNN_FMA_MATH : CUDNN_DEFAULT_MATH));\n"
        "#define MX_CHOOSE() \\\n"
        "    for (int i = 0; e == CUDNN_STATUS_SUCCESS && i < count && algorithm < 0; i++) \\\n"
        "        if (found[i].status == CUDNN_STATUS_SUCCESS && found[i].determinism == CUDNN_DETERMINISTIC && \\\n"
        "            found[i].memory <= (size_t)workspace_bytes && found[i].mathType != CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION && \\\n"
        "            (type != 1 || tf32 || found[i].mathType == CUDNN_FMA_MATH)) { \\\n"
        "            algorithm = (int)found[i].algo; \\\n            math = (int)found[i].mathType; \\\n        }\n"
        "        if (result == 2) {\n",
        p, p, KEY, ALGORITHMS, ALGORITHMS, ALGORITHMS);
    print_choice(u, "cudnnConvolutionFwdAlgo", "cudnnGetConvolutionForwardAlgorithm_v7", "dx, dw, how, dy");
    text_add(c, "        } else if (result == 0) {\n");
    print_choice(u, "cudnnConvolutionBwdDataAlgo", "cudnnGetConvolutionBackwardDataAlgorithm_v7", "dw, dy, how, dx");
    text_add(c, "        } else {\n");
    print_choice(u, "cudnnConvolutionBwdFilterAlgo", "cudnnGetConvolutionBackwardFilterAlgorithm_v7",
                 "dx, dy, how, dw");
    text_printf(
        c,
        "        }\n#undef MX_CHOOSE\n"
        "        none = e == CUDNN_STATUS_SUCCESS && algorithm < 0;\n"
        "        if (e == CUDNN_STATUS_SUCCESS && !none) {\n"
        "            memcpy(m->mx_convolvers[k].key, key, sizeof key);\n"
        "            m->mx_convolvers[k].algorithm = algorithm;\n            m->mx_convolvers[k].math = math;\n        }\n    }\n"
        "    if (e == CUDNN_STATUS_SUCCESS && !none) {\n"
        "        const int algorithm = m->mx_convolvers[k].algorithm;\n"
        "        const size_t bytes = (size_t)workspace_bytes;\n"
        "        m->mx_convolvers[k].used = ++m->mx_convolutions;\n"
        "        MX_CUDNN(cudnnSetConvolutionMathType(how, (cudnnMathType_t)m->mx_convolvers[k].math));\n"
        "        if (result == 2)\n"
        "            MX_CUDNN(cudnnConvolutionForward(m->mx_cudnn, &one, dx, x, dw, w, how, (cudnnConvolutionFwdAlgo_t)algorithm, workspace, bytes,\n"
        "                                             &zero, dy, y));\n"
        "        else if (result == 0)\n"
        "            MX_CUDNN(cudnnConvolutionBackwardData(m->mx_cudnn, &one, dw, w, dy, y, how, (cudnnConvolutionBwdDataAlgo_t)algorithm,\n"
        "                                                  workspace, bytes, &zero, dx, x));\n"
        "        else\n"
        "            MX_CUDNN(cudnnConvolutionBackwardFilter(m->mx_cudnn, &one, dx, x, dy, y, how, (cudnnConvolutionBwdFilterAlgo_t)algorithm,\n"
        "                                                    workspace, bytes, &zero, dw, w));\n    }\n"
        "#undef MX_CUDNN\n"
        "    if (how)\n        (void)cudnnDestroyConvolutionDescriptor(how);\n"
        "    if (dw)\n        (void)cudnnDestroyFilterDescriptor(dw);\n"
        "    if (dy)\n        (void)cudnnDestroyTensorDescriptor(dy);\n"
        "    if (dx)\n        (void)cudnnDestroyTensorDescriptor(dx);\n"
        "    if (none) {\n        %s_mx_settle(m);\n"
        "        return %s_mx_fail(m, MX_ERROR_DEVICE, \"%%s: cuDNN: no algorithm gives the same bits in every run within %%lld bytes of \"\n"
        "                          \"working memory; compile without --cudnn\", where, (long long)workspace_bytes);\n    }\n"
        "    MX_TRY(%s_mx_cudnn(m, e, where));\n"
        "#ifdef MX_CUDA_SYNC\n    MX_TRY(%s_mx_cuda(m, cudaStreamSynchronize(stream), where));\n#endif\n    return MX_OK;\n}\n\n",
        p, p, p, p);
}

void unit_cuda_convolution_init(struct unit *u) {
    if (u->g.cuda->uses_cudnn)
        text_printf(&u->c,
                    "    if (status == MX_OK)\n        status = %s_mx_cudnn(m, cudnnCreate(&m->mx_cudnn), \"init\");\n",
                    u->prefix);
}

void unit_cuda_convolution_free(struct unit *u) {
    if (u->g.cuda->uses_cudnn)
        text_add(&u->c, "        if (m->mx_cudnn)\n            (void)cudnnDestroy(m->mx_cudnn);\n");
}
