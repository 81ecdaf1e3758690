/* Index variables while a function is elaborated (elab_indices.c): which of them an expression uses, and an expression in the numbering of a nest.
 * Private to elab_nest.c and elab_checks.c. */
#ifndef FRONTEND_ELAB_INDICES_H
#define FRONTEND_ELAB_INDICES_H

#include "frontend/elab.h"

struct elab_used {
    struct elab *e;
    bool *index;   /* [e->indices.n] */
    bool counters; /* count loop counters as indices */
};
/* For ir_expr_walk: notes in a struct elab_used what x uses, also in the bounds of reductions. */
void elab_note_index(ir_expr x, void *context);
bool *elab_used_indices(struct elab *e, struct arena *scratch); /* [e->indices.n], all false */

struct elab_renumber {
    struct elab *e;
    int *position; /* index variable -> position in the nest, -1: not in it */
    int *slot;     /* e->slots -> operand, -1: not yet one */
    struct ir_value **operands;
    int slots, count, cap;
    struct arena *scratch;
    bool stray; /* an index variable that is not in the nest */
};
/* *w renumbers expressions by r, whose positions the caller fills in; until then no index variable is in the nest. */
void elab_renumber_start(struct elab *e, struct elab_renumber *r, struct ir_rewrite *w, struct arena *scratch);
int elab_renumber_operand(struct elab_renumber *r, int slot); /* of e->slots */
static inline ir_expr elab_renumbered(struct ir_rewrite *w, ir_expr x) {
    return x ? ir_rewrite_expr(w, x) : NULL;
}

/* A nest structure whose indices are the used variables: parallel ones first, then reductions. */
void elab_domain(struct elab *e, const bool *used, struct elab_renumber *r, struct ir_rewrite *w, struct ir_nest *nest,
                 struct arena *a);

#endif
