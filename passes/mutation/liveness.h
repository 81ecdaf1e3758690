/* Where values live in the final order of a function: positions, uses, and whether two values are alive at once. */
#ifndef MXCC_PASSES_MUTATION_LIVENESS_H
#define MXCC_PASSES_MUTATION_LIVENESS_H

#include "ir/ir.h"

/* Operations are numbered in order. An operation with regions has a position where it starts and one where it ends; in
 * between, every region has one where it begins (its arguments appear) and one where it ends (its yields are read). */
struct op_position {
    struct ir_op *op;
    int start, end;
};

/* A use keeps a value alive until `position`, reached in `region`. A use inside a loop of a value from outside counts as
 * one at the loop's end, in the region that holds the loop. */
struct value_use {
    int position;
    const struct ir_region *region;
    struct ir_op *op; /* the reader; NULL: a region's yield */
};

struct liveness {
    struct ir_func *func;
    int positions;
    struct op_position *ops; /* in order of start */
    int op_count;
    struct ir_op **at;       /* [positions]: the operation that starts or ends there, NULL for a region's ends */
    int *def, *last;         /* [value_count]; -1: not defined in the operations walked */
    struct value_use **uses; /* [value_count] */
    int *use_count;
    bool branches;              /* some `if` occurs */
    int last_failure;           /* position after which nothing can end the call with an error; -1: nothing can */
    struct ir_op *last_failing; /* what stands there */
};

/* Regions that run as part of the function: those of if, for, while, checkpoint. A kernel's are its definition. */
bool op_runs_regions(const struct ir_op *op);
/* Whether it may end the call with an error, itself; what stands in its regions is not looked at. */
bool op_may_fail(const struct ir_op *op);
struct liveness *liveness_new(struct ir_func *f, struct arena *a);

/* Whether a use and the place where v is made stand on different sides of one `if`. */
bool use_excluded(const struct liveness *l, const struct value_use *u, const struct ir_value *v);

/* Whether a is read after b was written or at the same operation; in that case *meet is that operation's position (only
 * if it is the last such read, so that b may take a's place if the operation allows), else -1. */
bool alive_together(const struct liveness *l, const struct ir_value *a, const struct ir_value *b, int *meet);

#endif
