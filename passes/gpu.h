/* Building kernels of a GPU as loop IR: a grid of blocks of threads, shared memory, barriers, and reductions over the threads of a
 * warp or block in a fixed tree, so that the same shapes give the same bits. */
#ifndef MXCC_PASSES_GPU_H
#define MXCC_PASSES_GPU_H

#include "passes/lower.h"

enum { GPU_THREADS = 256, GPU_WARP = 32, GPU_BLOCKS = 2048 }; /* BLOCKS: after so many the threads go round again */

struct gpu_kernel {
    struct loop_builder *b;
    struct loop_stmt *grid, *threads;
    struct loop_block *body; /* of one thread */
    lx block, thread;
    int count; /* threads of a block */
};

/* A kernel of `blocks` blocks, appended to `out`. */
struct gpu_kernel gpu_open(struct loop_builder *b, struct loop_block *out, lx blocks, int threads);
struct loop_mem *gpu_shared(struct gpu_kernel *k, const char *name, enum dtype t, int64_t count);
lx gpu_ceil_div(struct loop_builder *b, lx n, int64_t by);

/* A kernel in which `n` things, at most `upper`, are dealt to the threads, one a thread and then round again. *at is the number of
 * the thing in the block returned, which stands in the kernel's body behind gpu_close_each. */
struct gpu_each {
    struct gpu_kernel k;
    struct loop_stmt *around; /* the loop or the test around a thing; NULL: none is needed */
    struct loop_block *body;
    lx at;
};
struct gpu_each gpu_open_each(struct loop_builder *b, struct loop_block *out, lx n, int64_t upper, const char *name);
void gpu_close_each(struct gpu_each *e);

/* A register for e, unless it is one or a constant. */
lx gpu_named(struct loop_builder *b, struct loop_block *k, const char *name, lx e);

/* passes/lower_gpu.c: any nest, as kernels. */
void lower_gpu_nest(struct lower *l);

/* Who makes a result of a reduction. */
enum gpu_schedule { GPU_BY_THREADS, GPU_BY_WARPS, GPU_BY_BLOCKS, GPU_IN_PARTS, GPU_IN_PARTS_BY_BLOCKS };
enum gpu_schedule gpu_reduction_schedule(struct ir_module *m, struct ir_op *op);

/* passes/lower_gpu_rows.c: a `rows` operation, as one kernel. */
void lower_gpu_rows(struct lower *l);

#endif
