/* Inside attention on a GPU: what the kernels of the forward pass (gpu_attention.c) and of the gradients (gpu_attention_gradient.c)
 * share. */
#ifndef MXCC_CODEGEN_KERNELS_GPU_FLASH_H
#define MXCC_CODEGEN_KERNELS_GPU_FLASH_H

#include "codegen/kernels/gpu_tensor.h"

enum { FLASH_SHARED = 48 << 10, FLASH_WARP_ROWS = 16, FLASH_SLOTS = 4, FLASH_UNITS = 256 };

/* Rows of a block: 16 a warp; columns of a tile; buffers of what is streamed. */
struct flash_shape {
    int warps, cols, stages;
};

/* Positions by units of a head in shared memory, once or twice. */
struct flash_panel {
    struct loop_mem *shared;
    int positions, units, stride, stage; /* units: as they are in memory; elements of a row, and of all of it */
    struct gpu_operand rows, cols,
        depth; /* as the first factor; as the second, its columns positions; or its columns units */
};

struct flash {
    struct lower *l;
    struct loop_builder *b;
    struct gpu_kernel k;
    struct loop_block *here;
    /* The call. Heads that share a key head are one: a group has `rows` = sharing * Q rows, and its row number mod Q is the query. */
    const struct ir_value *q, *key, *v, *mask;
    enum dtype stored,
        type;    /* of the tensors; of what is multiplied: f32 becomes halves on the way with --precision bf16 or f16 */
    bool tensor; /* tensor cores, of `kind`; else ordinary units, for f32 */
    enum gpu_mma kind;
    int64_t D, E, G, sharing, window;
    bool causal;
    double scale;
    ir_dim group_count, row_count; /* B * G; sharing * Q */
    ir_dim key_count;              /* K */
    lx groups, rows, Q, K, offset; /* offset: K - Q */
    lx held[2];                    /* positions that the tensors of keys and values have */
    struct flash_shape shape;
    /* The thread. */
    lx lane, warp;
    int slots;                /* rows that it has a part of */
    lx row[FLASH_SLOTS];      /* in the tile */
    struct loop_mem *weights; /* ordinary units: where factors of the second product pass through */
};

/* Reads the call; false if it is of no form that the kernels take. op: attention_rows, or attention_gradient; with a mask or without. */
bool flash_read(struct flash *f, const struct compile_options *o, const struct ir_op *op);
void flash_begin(struct flash *f, struct lower *l);           /* and the extents, for lowering */
int64_t flash_flops(const struct flash *f, int64_t products); /* of a rows by keys by units each, at upper bounds */
double flash_constant(const struct ir_op *op, const char *name, bool *known);

/* The kernel's threads; `row`s and the rest. Panels are made before anything else. */
void flash_open(struct flash *f, lx blocks);
struct flash_panel flash_panel(struct flash *f, const char *name, int positions, int64_t units, int stages);
int64_t flash_panel_bytes(const struct flash *f, int64_t positions, int64_t units);
int64_t flash_weights_bytes(const struct flash *f, struct flash_shape s);

lx flash_named(struct flash *f, const char *name, lx e);
struct loop_stmt *flash_loop(struct flash *f, const char *name, int64_t n, lx *counter); /* unrolled; enters it */
struct loop_stmt *flash_if(struct flash *f, lx test);
/* Leaves the innermost block, which was entered from `outer`. */
void flash_leave(struct flash *f, struct loop_stmt *s, struct loop_block *outer);

/* Positions first … below limit of a tensor whose position 0 lies at element `base`, to a stage of the panel; zeros beyond. */
void flash_load(struct flash *f, const struct flash_panel *p, struct loop_mem *from, lx base, lx first, lx limit,
                lx stage);

/* The element at which the keys (0) or values (1) of a group begin. */
lx flash_group_base(struct flash *f, lx group, int which);

/* Sums of a tile: element (slot, number) of the thread, its column, how many numbers there are. */
int flash_numbers(const struct flash *f, int64_t cols);
lx flash_at(const struct flash *f, int slot, lx number, int64_t cols);
lx flash_col(const struct flash *f, lx number);                               /* of scores */
lx flash_unit(const struct flash *f, lx number, int64_t units);               /* of sums over units of a head */
struct loop_mem *flash_sums(struct flash *f, const char *name, int64_t cols); /* for that many columns, zero */
int64_t flash_padded(const struct flash *f, int64_t units);

/* scores[row, column] = a[row] . c[column] over the panels' units. */
void flash_scores(struct flash *f, struct loop_mem *scores, const struct flash_panel *a, lx a_stage,
                  const struct flash_panel *c, lx c_stage);
/* sums[row, unit] += weights[row, column] c[column, unit]. On ordinary units the weights are first put where all lanes can read them;
 * between the two is a barrier. */
void flash_put(struct flash *f, struct loop_mem *weights);
void flash_apply(struct flash *f, struct loop_mem *sums, struct loop_mem *weights, const struct flash_panel *c,
                 lx stage);

/* Over the lanes that share a row. */
lx flash_reduce(struct flash *f, const char *name, enum scalar_fn fn, lx value);
lx flash_is_first(struct flash *f); /* of those lanes */
lx flash_exp2(struct flash *f, lx x);
/* Element of the mask: of a group, a row of it and a key. */
lx flash_mask(struct flash *f, lx group, lx row, lx key);
/* Stores sums[row, unit] * factor[slot] (NULL: 1) to the rows below limit. */
void flash_store(struct flash *f, struct loop_mem *to, lx base, lx first, lx limit, int64_t units,
                 struct loop_mem *sums, const lx *factor);

/* Tiles of `cols` positions from lo to hi through the panels: `load` begins the copies of one. With two stages the next is on its way
 * while one is in use. */
struct flash_stream {
    struct loop_stmt *loop;
    struct loop_block *outer;
    lx at, stage;
};
struct flash_stream flash_stream_open(struct flash *f, const char *name, lx lo, lx hi,
                                      void (*load)(struct flash *f, void *context, lx at, lx stage), void *context);
void flash_stream_close(struct flash *f, struct flash_stream *s);

/* The keys that rows first … first + count of a group see: from *lo on, a multiple of the tile, below *hi; and the smallest and largest
 * query among them. */
void flash_keys(struct flash *f, lx first, int count, lx *lo, lx *hi, lx *least, lx *most);
/* Whether key `j` is seen by query `i`, as far as causality and window say; NULL: always. */
lx flash_seen(struct flash *f, lx i, lx j);

#endif
