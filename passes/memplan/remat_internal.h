/* Recomputation: the model of one function's memory in its present order (remat_model.c), the choice (remat.c) and the
 * edits of the IR (remat_edit.c). */
#ifndef MXCC_PASSES_MEMPLAN_REMAT_INTERNAL_H
#define MXCC_PASSES_MEMPLAN_REMAT_INTERNAL_H

#include "passes/passes.h"

/* A reader, seen from the function's body: the operation of the body that reads or holds what reads. */
struct remat_use {
    int at;           /* its position */
    struct ir_op *op; /* NULL: the function's results */
};

/* A value of the body with everything that is seen through reshapes of it. Kept by the id of the value that is no reshape. */
struct remat_value {
    struct ir_value *value;     /* NULL: none with this id */
    int64_t bytes;              /* in the arena; 0: it lives elsewhere */
    int def;                    /* position of what makes it, -1: an argument */
    int over;                   /* position of the first operation that may write over it, INT32_MAX: none */
    VEC(struct remat_use) uses; /* by position */
    int again;                  /* the next copy of it in time, by id; -1: none */
};

struct remat_edit { /* one operand or yield that reads a copy now */
    struct ir_value **place, *old;
};

/* Positions are those of the body's operations; copies share the position of the operation before which they stand. */
struct remat {
    struct pass_context *c;
    struct ir_func *func;
    struct arena keep;  /* while the pass is in this function */
    int64_t *workspace; /* [workspace_cap]: bytes, by the id of the first result; -1: not known */
    int workspace_cap;
    VEC(struct remat_edit) edits;
    VEC(struct ir_op *) copies; /* in the order they were made */
    int64_t flops;              /* of the copies */

    struct arena arena; /* of the model */
    int n;
    struct ir_op **ops;         /* [n] */
    int64_t *load;              /* [n + 1]: bytes alive at each position, the function's end included */
    struct remat_value *values; /* [cap] */
    int *root;                  /* [cap] */
    int cap;                    /* value ids that fit */
};

/* Reads the function as it stands; releases the model before. */
void remat_model(struct remat *r);
/* The function as it stands, planned whole on a copy: bytes of its arena. */
int64_t remat_trial(struct remat *r);

/* Which operands of op the result needs: those it loads, and checks that must come before. `needed` has room for operand_count. */
void remat_needs(const struct ir_op *op, int result, bool *needed);
/* A copy of what makes v before the operation `before` (NULL: at the end), where other[i] (NULL: as it is) stands for the value of which
 * operand i is a reshape. It is registered like any value. */
struct ir_value *remat_copy(struct remat *r, struct ir_value *v, struct ir_value **other, int at, struct ir_op *before);
/* Makes all readers of v from position `at` on read `other`; reshapes are made before the operation `before`. */
void remat_redirect(struct remat *r, struct ir_value *v, struct ir_value *other, int at, struct ir_op *before);
void remat_add_use(struct remat *r, int root, int at, struct ir_op *op);
/* Takes everything back. */
void remat_undo(struct remat *r);

#endif
