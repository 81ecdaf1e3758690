/* Tensor cores and asynchronous copies in loop IR: calls of the functions of codegen/cuda/tensor_core.h, and where in shared memory a
 * lane finds what it multiplies. */
#ifndef MXCC_CODEGEN_KERNELS_GPU_TENSOR_H
#define MXCC_CODEGEN_KERNELS_GPU_TENSOR_H

#include "passes/gpu.h"

/* Types of factors; sums are f32. */
enum gpu_mma { MMA_BF16, MMA_F16, MMA_TF32 };

enum dtype gpu_mma_type(enum gpu_mma kind); /* in memory */
int gpu_mma_depth(enum gpu_mma kind);       /* of one instruction: 16, or 8 */
int gpu_mma_together(enum gpu_mma kind);    /* elements in 16 bytes */

/* An array of registers of the thread, subscripted by constants once loops are unrolled. */
struct loop_mem *gpu_registers(struct loop_builder *b, struct loop_block *k, const char *name, enum dtype t,
                               int64_t count);

/* One factor of a product of tiles, in shared memory as [position][stride of them along the depth] if `along`, else [depth][positions].
 * The strides are such that lanes meet in no bank. */
struct gpu_operand {
    enum gpu_mma kind;
    bool columns, along;
    int stride;
    struct loop_mem *shared;
    lx lane_at; /* where the lane begins */
};
int gpu_operand_stride(enum gpu_mma kind, bool along, int positions, int depth);
/* first: the position in the tile at which the warp begins. */
void gpu_operand_open(struct loop_builder *b, struct loop_block *k, struct gpu_operand *o, lx lane, lx first);
/* to[at .. at + 4] = 16 positions, number `tile` of the warp, by one depth of an instruction, number `step`: the first factor of an
 * instruction, or the second factors of two. base: where the tile begins in the shared memory. */
void gpu_fragment(struct loop_builder *b, struct loop_block *k, const struct gpu_operand *o, struct loop_mem *to, lx at,
                  lx tile, lx step, lx base);
/* sums[at .. at + 4] += the product of a fragment of rows and half of one of columns, 2 registers. */
void gpu_mma(struct loop_builder *b, struct loop_block *k, enum gpu_mma kind, struct loop_mem *sums, lx at,
             struct loop_mem *rows, lx rows_at, struct loop_mem *cols, lx cols_at);
/* Row and column of sum `i` of a lane in a tile of 16 by 8. */
lx gpu_mma_row(struct loop_builder *b, lx lane, lx i);
lx gpu_mma_col(struct loop_builder *b, lx lane, lx i);
/* Two numbers, rounded, as a register of halves. */
lx gpu_pack(struct loop_builder *b, enum gpu_mma kind, lx low, lx high);

/* 16 bytes to shared memory, or zeros unless `valid`; they are there after gpu_copy_wait and a barrier. */
void gpu_copy(struct loop_builder *b, struct loop_block *k, lx valid, struct loop_mem *to, lx at, struct loop_mem *from,
              lx from_at);
void gpu_copy_wait(struct loop_builder *b, struct loop_block *k);
/* Whether `count` neighbours along a nest's index, from a multiple of `count` on, are 16 bytes or the like in memory: neighbours at
 * an aligned address, in all positions of the other indices. */
bool gpu_loads_together(struct lower *l, const struct ir_nest *nest, ir_expr load, int index, int count);

#endif
