/* The inside of a kernel for one nest: its indices, its accumulators and how threads put them together, the terms of its reduction.
 * passes/lower_gpu.c makes kernels of single nests of it, passes/lower_gpu_rows.c of several over the same rows. */
#ifndef MXCC_PASSES_GPU_NEST_H
#define MXCC_PASSES_GPU_NEST_H

#include "passes/gpu.h"

struct gpu_nest {
    struct lower *l;
    struct loop_builder *b;
    const struct ir_nest *nest;
    struct nest_scope n;
    struct loop_var *acc[NEST_MAX], *position[NEST_MAX];
    int flat_pars;          /* trailing parallel indices that are one */
    int64_t results, terms; /* at most */
    bool updates;
};

/* Upper bound and extent of the product of `count` indices from `first` on. */
int64_t gpu_nest_upper(const struct ir_nest *nest, int first, int count);
lx gpu_nest_extent(struct gpu_nest *w, int first, int count);

/* A scope whose outermost block is the body of a kernel's thread; blocks within it. */
void gpu_nest_begin(struct gpu_nest *w, struct loop_block *body);
void gpu_nest_enter(struct gpu_nest *w, struct loop_block *k);
void gpu_nest_leave(struct gpu_nest *w);
struct loop_block *gpu_nest_here(struct gpu_nest *w);
lx gpu_nest_named(struct gpu_nest *w, const char *name, lx e);

/* Sets the `count` indices of list, row-major, to position `at` among their extents; lo: their first values, NULL: 0. */
void gpu_nest_set_position(struct gpu_nest *w, const int *list, int count, const lx *extent, const lx *lo, lx at);
/* Sets all parallel indices to result number `at`. */
void gpu_nest_set_result(struct gpu_nest *w, lx at);

void gpu_nest_open_accumulators(struct gpu_nest *w);
/* The term of the indices as they are set. */
void gpu_nest_accumulate(struct gpu_nest *w);
/* Takes in what another thread has, x from position p: of equal extrema the earlier one. */
void gpu_nest_merge(struct gpu_nest *w, int i, lx x, lx p);
/* Over the lanes of a warp; all lanes get the whole. */
void gpu_nest_fold_warp(struct gpu_nest *w);
/* Over the warps of a block, in their order; thread 0 gets the whole, or all do. */
void gpu_nest_fold_block(struct gpu_nest *w, struct gpu_kernel *k, bool all);
void gpu_nest_close_accumulators(struct gpu_nest *w);
void gpu_nest_store_results(struct gpu_nest *w);

/* The reduction as a rectangle, which it is if no bound depends on a reduction index; its terms are numbered row-major. */
struct gpu_terms {
    int list[NEST_MAX], count;
    lx lo[NEST_MAX], extent[NEST_MAX], all;
};

bool gpu_nest_is_rectangle(const struct ir_nest *nest);
struct gpu_terms gpu_nest_terms(struct gpu_nest *w);
/* A loop in which the indices are set to terms first, first + step … below end; its body is entered. The caller leaves it and appends
 * the loop to the block around. */
struct loop_stmt *gpu_nest_each_term(struct gpu_nest *w, const struct gpu_terms *t, lx first, lx end, int64_t step);
/* Accumulates these terms. */
void gpu_nest_every_term(struct gpu_nest *w, const struct gpu_terms *t, lx first, lx end, int64_t step);
/* All terms by one thread, as nested loops from reduction index i on. */
void gpu_nest_reduce_alone(struct gpu_nest *w, int i);

/* lower_gpu_transpose.c: false if the nest reads nothing across. */
bool lower_gpu_transposed(struct gpu_nest *w);

#endif
