/* Inside the contraction kernel: what its files share. See contraction.c for the whole. */
#ifndef MXCC_CODEGEN_KERNELS_CONTRACTION_H
#define MXCC_CODEGEN_KERNELS_CONTRACTION_H

#include "passes/lower.h"

struct group { /* indices of a nest taken together, row-major */
    int count, index[NEST_MAX];
    ir_dim extent;
    lx size;
    int64_t upper;
    bool constant;
};

struct side {
    ir_expr e;
    ir_expr load; /* e, or what it converts from a smaller float type; NULL: it is something else */
    struct group *group;
};

/* How the micro-kernel reaches element (row, k). */
enum row_access {
    ROWS_PACKED, /* copied into tiles, [row / tile][k][tile] */
    ROWS_PLAIN,  /* in the operand: row * row_stride + k */
    ROWS_WINDOW, /* in the operand, or a copy of it with a border: rows a constant apart along runs of the last row index, and
                    for each k an offset from a table. A convolution without im2col. */
};

enum split { SPLIT_NONE, SPLIT_BATCH, SPLIT_PANELS, SPLIT_ROWS };

struct contraction {
    struct lower *l;
    struct loop_builder *b;
    const struct ir_nest *nest;
    struct nest_scope n;
    enum dtype dtype, row_dtype; /* row_dtype: of what PLAIN and WINDOW read, converted in registers */
    struct group batch, a, b_side, k;
    struct side rows, cols;              /* cols: along the vectors */
    int lanes, vectors, row_tile, width; /* width = vectors * lanes, the columns of a panel */
    enum row_access access;
    int64_t row_stride;             /* PLAIN; WINDOW: along a run */
    int64_t run;                    /* WINDOW: rows of a run, */
    int run_indices;                /* the last so many row indices */
    const struct loop_mem *row_mem; /* PLAIN, WINDOW */
    bool border;                    /* WINDOW: row_mem is a copy, its dimensions below[d] + extent + above[d] */
    int64_t below[NEST_MAX], above[NEST_MAX];
    struct loop_mem *offsets; /* WINDOW: [k] */
    bool direct;              /* the result holds the partial sums */
    int64_t result_stride;
    bool epilogue;
    bool prepacked; /* all columns are packed before the first tile */
    struct loop_mem *panel, *packed, *strip;
    enum split split;
    int64_t tasks;
    lx panel_base, packed_base, strip_base; /* of the task's own part */
    lx strip_row, part_end;                 /* the rows that the strip holds, prepacked: from .. to; else from 0 */
    int64_t k_block;
};

/* contraction.c: whether the nest is a product worth tiling; sets dtype and the groups. */
bool contraction_recognise(struct contraction *c);

struct side contraction_side(const struct contraction *c, ir_expr e, struct group *g);

/* contraction_pack.c: loops over groups, and copies into the order the micro-kernel reads. */
struct flat_loop {
    struct loop_stmt *loop[NEST_MAX];
    int count;
};

struct loop_stmt *contraction_open(struct contraction *c, const char *name, lx lo, lx hi, int64_t step,
                                   enum loop_kind kind, lx *counter);
void contraction_close(struct contraction *c, struct loop_stmt *s);
/* A register for e in the current block, unless it is a constant or one already. */
lx contraction_named(struct contraction *c, const char *name, lx e);
/* Sets the group's first `count` indices to flat position `at` among them. */
void contraction_set_flat(struct contraction *c, const struct group *g, int count, lx at);
/* How many of the group's last indices are one loop for every load of e: their strides nest. */
int contraction_collapse(struct contraction *c, ir_expr e, const struct group *g);
/* Loops over flat positions lo .. hi of a group whose last `together` indices are one; *at is the position. */
struct flat_loop contraction_open_flat(struct contraction *c, const struct group *g, int together, lx lo, lx hi,
                                       lx *at);
void contraction_close_flat(struct contraction *c, struct flat_loop s);
/* Copies side s, positions first .. first + count, k from k0 on over `depth`, to mem[base + (k - k0) * width + position - first]; with
 * `pad`, zeros up to width. */
void contraction_pack(struct contraction *c, const struct side *s, lx first, lx count, int64_t width, lx k0, lx depth,
                      struct loop_mem *mem, lx base, bool pad);
/* The stride of the row operand, in the copy with a border if there is one; false if it is not constant. */
bool contraction_window_stride(struct contraction *c, int index, int64_t *stride);
/* Fills the copy with a border, and the table of offsets. */
void contraction_copy_border(struct contraction *c);
void contraction_fill_offsets(struct contraction *c);
/* The address of the row operand where the row indices and batch stand, k at 0. */
lx contraction_window_address(struct contraction *c);

/* contraction_tile.c: the micro-kernel. */
/* Rows row .. row + rows of one panel over `depth` from k0; window: the address of `row` at k = 0. */
void contraction_tile(struct contraction *c, int rows, int vectors, lx row, lx window, lx first, lx panel, lx k0,
                      lx depth);
/* The result's element at the batch indices as they stand. */
lx contraction_result_address(struct contraction *c, lx row, lx column);

/* contraction_loops.c: panels, blocks of the reduction and rows around the micro-kernel. */
void contraction_loops(struct contraction *c);
/* Rows of a task, and of the part of it that is finished at once, in prepacked products; both at upper bounds. */
int64_t contraction_chunk(const struct contraction *c);
int64_t contraction_part(const struct contraction *c);

#endif
