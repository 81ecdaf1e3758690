/* Why a copy stays, and the words for it. */
#ifndef MXCC_PASSES_MUTATION_EXPLAIN_H
#define MXCC_PASSES_MUTATION_EXPLAIN_H

#include "passes/passes.h"

/* What stands against two values' sharing one memory. */
enum obstacle {
#define B(name, why, help) OBSTACLE_##name,
#include "passes/mutation/obstacles.def"
#undef B
};

struct copy_obstacle {
    enum obstacle what;
    struct ir_op *reader; /* the operation that stands against it; NULL: none in particular */
};

/* The plan's entry for a copy of `from` that `write` needs ("the update of one version makes the next"; NULL: the end of the
 * function). Texts live in the arena. */
struct plan_copy explain_copy(struct arena *a, const struct ir_value *from, struct ir_op *write, const char *needed,
                              struct copy_obstacle why);
/* "FILE:4:5", or the kind of operation where it has no place. */
void explain_place(struct text *out, const struct ir_op *op);
/* Under --gradient-overwrite error: each write that cost a copy because a gradient reads the old value is an error. */
void explain_gradient_overwrites(struct diag *d, const struct plan_func *p);

#endif
