/* Surgery on nests, shared by fusion and the memory passes. */
#ifndef MXCC_PASSES_NEST_EDIT_H
#define MXCC_PASSES_NEST_EDIT_H

#include "ir/ir.h"

enum { NEST_MAX_RANK = 64 }; /* of an operand */

/* Calls ir_expr_walk on every expression of a nest operation: bounds, accumulators, values, targets. */
void nest_walk(const struct ir_op *op, void (*fn)(ir_expr, void *), void *context);
/* Replaces every expression by fn's result; arrays are renewed, never changed in place. */
void nest_map(struct ir_op *op, ir_expr (*fn)(ir_expr, void *), void *context);
/* INDEX k becomes index[k] in every expression. */
void nest_reindex(struct ir_op *op, const ir_expr *index);
bool nest_loads_slot(const struct ir_op *op, int slot);
bool nest_is_base(const struct ir_op *op, int slot);
/* Whether any operation looks at an operand at all: some of a nest's only order it. */
bool op_loads_slot(const struct ir_op *op, int slot);
/* e with INDEX k replaced by index[k] (NULL: as it is), loads of slot s moved to slots[s] (NULL: same), ACC k to k + acc_shift.
 * guard: loads without an `else` get one of 0, for expressions that may be evaluated outside. */
ir_expr nest_subst(struct ir_module *m, ir_expr e, const ir_expr *index, const int *slots, int acc_shift, bool guard);
/* Adds other's operands to op; slots[i] is where other's operand i went. */
void nest_add_operands(struct ir_op *op, const struct ir_op *other, int *slots);
/* Removes an operand that is neither loaded nor a base. */
void nest_drop_slot(struct ir_op *op, int slot);
/* Replaces loads of `slot` by `body` (an expression whose loads already speak of op's slots) with INDEX d replaced by the load's
 * index d; a guarded load becomes where(inside, body, else). */
void nest_inline(struct ir_op *op, int slot, struct ir_type type, ir_expr body);

/* Whether e is parallel index d, which is 0 where the extent is one. */
bool expr_is_own_index(ir_expr e, int d, ir_dim extent);
/* Removes the results that `keep` does not name, and the accumulators that only they used. The values must be unused. */
void nest_keep_results(struct ir_op *op, const bool *keep);

/* Arithmetic of one evaluation: additions and the like count 1, divisions and roots 4, exponentials 12; index arithmetic of
 * loads counts only its quotients. */
int expr_cost(ir_expr e);
int expr_size(ir_expr e);              /* distinct nodes */
int nest_size(const struct ir_op *op); /* of its accumulators and results together */
ir_expr expr_strip_casts(ir_expr e);
/* A sum of products of two loads that each miss some parallel index: matrix products, convolutions, their gradients. */
bool nest_is_contraction(const struct ir_op *op);

#endif
