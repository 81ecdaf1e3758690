/* Nests that are matrix products as libraries take them: a sum of products of two unguarded loads, each a matrix with one stride of 1,
 * the result row-major in the order batch, rows, columns. Rows and columns may be several indices that are one in memory. */
#ifndef MXCC_CODEGEN_KERNELS_PRODUCT_H
#define MXCC_CODEGEN_KERNELS_PRODUCT_H

#include "passes/lower.h"

struct axis { /* indices that are one */
    int first, count;
    ir_dim extent;
};

/* The strides of a factor along its own axis and along the reduction. */
struct factor {
    ir_expr load;
    int64_t own, depth;
};

struct matrix_product {
    enum dtype dtype; /* that is summed in */
    struct factor a, b;
    struct axis batch, rows, columns, depth;
    int64_t lda, ldb;
    double work; /* of one of the batch */
};

/* casts: a factor may be a 16 bit float that the sum takes as a wider one. */
bool product_of(struct lower *l, bool casts, struct matrix_product *p);
/* The stride of a load along the indices of an axis, if they are one in it and it is positive. */
bool product_stride(struct lower *l, ir_expr load, struct axis x, int64_t *stride);

#endif
