/* Nests that are convolutions as libraries take them: of images [batch, channels, …] with a kernel [outputs, inputs / groups, …], or
 * their gradients, along one or two axes. Three tensors, each with one role; a nest computes one of them from the other two. */
#ifndef MXCC_CODEGEN_KERNELS_CONVOLUTION_H
#define MXCC_CODEGEN_KERNELS_CONVOLUTION_H

#include "passes/lower.h"

enum convolution_role { CONVOLUTION_INPUT, CONVOLUTION_KERNEL, CONVOLUTION_OUTPUT, CONVOLUTION_ROLES };

enum { CONVOLUTION_AXES = 2 };

/* output[y] = sum[k] input[y * stride + k * dilation - pad] kernel[k], zeros outside of the input */
struct convolution_axis {
    ir_dim input, output;
    int64_t kernel, stride, pad, dilation;
};

struct convolution {
    enum convolution_role result;    /* which of the three the nest computes */
    enum dtype dtype;                /* of what it reads; it sums in f32 */
    ir_expr load[CONVOLUTION_ROLES]; /* NULL: the result */
    ir_dim batch;
    int64_t inputs, outputs, groups;
    struct convolution_axis axis[CONVOLUTION_AXES]; /* of one axis, [0] is of extent 1 */
    double work;                                    /* multiply-adds */
};

bool convolution_of(struct lower *l, struct convolution *c);

#endif
