/* Inside the products on a GPU: what the kernels on ordinary units (gpu_contraction.c) and on tensor cores (gpu_tensor_product.c)
 * share. */
#ifndef MXCC_CODEGEN_KERNELS_GPU_PRODUCT_H
#define MXCC_CODEGEN_KERNELS_GPU_PRODUCT_H

#include "codegen/kernels/contraction.h"
#include "passes/gpu.h"

/* Rows, columns and depth of a block's tile. */
struct tile {
    int rows, cols, depth;
};

struct product {
    struct contraction c;
    struct tile tile;
    int64_t parts;                  /* of the reduction, each by its own blocks */
    lx batch, first_row, first_col; /* of the block */
    lx part, first, end;            /* of the reduction: which part, where it begins and ends */
    lx rows, cols, depth;           /* extents */
};

struct loop_block *product_here(struct product *p);
lx product_named(struct product *p, const char *name, lx e);
void product_enter(struct product *p, struct loop_block *k);
bool product_multiple(lx e, int64_t of); /* surely */

/* Whether the nest is a product large enough for tiles; sets the sides, of which the columns are neighbours in the result. */
bool product_recognise(struct product *p, struct lower *l);
int64_t product_flops(const struct product *p); /* at upper bounds */
/* The largest of the tiles that the product fills and that gives every multiprocessor something to do, and the parts. */
void product_choose(struct product *p, const struct tile *tiles, int count);
/* Whether neighbours in memory walk the reduction. */
bool product_walks_reduction(struct product *p, ir_expr factor, const struct group *g);
/* A kernel of one block a tile and part; sets what stands above as `of the block`. */
struct gpu_kernel product_open(struct product *p);
/* Memory for the parts' sums, [part, batch, row, column]; NULL if there is one part. */
struct loop_mem *product_parts(struct product *p);
/* A sum to the result, or to its part; the indices of rows and columns are set for the former. */
void product_store(struct product *p, struct loop_mem *parts, lx row, lx col, lx sum);
/* Adds up the parts of each element, and what follows the sum. */
void product_fold(struct product *p, struct loop_mem *parts);

#endif
