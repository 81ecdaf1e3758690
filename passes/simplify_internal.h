/* What the files of the simplify pass share. Each step returns true when it changed something. */
#ifndef MXCC_PASSES_SIMPLIFY_INTERNAL_H
#define MXCC_PASSES_SIMPLIFY_INTERNAL_H

#include "ir/ir.h"

bool simplify_func(struct ir_func *f); /* all steps to a fixpoint, in a bounded number of rounds */
/* Without common subexpressions across operations: what a checkpoint computes again must stay. */
bool simplify_fused(struct ir_func *f);
bool simplify_nests(struct ir_func *f);   /* expressions, constants, views, unused operands */
bool simplify_control(struct ir_func *f); /* constant conditions and checks, invariant carried values, reshapes */
bool simplify_common(struct ir_func *f);  /* common subexpressions */
bool simplify_dead(struct ir_func *f);    /* dead operations, results and carried values */
/* Marks, by value id, what may give its storage to a next version: bases of updates and initial values of loops. */
void simplify_overwritten(struct ir_func *f, bool *overwritten);

#endif
