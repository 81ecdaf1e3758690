/* The steps of the plan for one function, for who plans on trial. */
#ifndef MXCC_PASSES_MEMPLAN_PLAN_STEPS_H
#define MXCC_PASSES_MEMPLAN_PLAN_STEPS_H

#include "passes/mutation/liveness.h"
#include "passes/passes.h"

/* Puts f's operations in order; `steps` of search, with none no bound either. True if that moved one. */
bool order_func(struct pass_context *c, struct ir_func *f, int64_t steps, struct order_result *result);
/* Storages of the values of f, copies where they are needed, counted on in *copies_seen. */
void mutation_func(struct pass_context *c, struct ir_func *f, struct plan_func *p, int64_t *copies_seen);
/* When each storage is alive, with or without what kernels work in. */
void place_lifetimes(struct pass_context *c, struct plan_func *p, const struct liveness *l, bool workspaces);
/* Lifetimes and offsets. */
void place_func(struct pass_context *c, struct plan_func *p);

#endif
