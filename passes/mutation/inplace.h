/* Whether an operation may write a result over an operand that dies there. */
#ifndef MXCC_PASSES_MUTATION_INPLACE_H
#define MXCC_PASSES_MUTATION_INPLACE_H

#include "ir/ir.h"

/* content[value id] names what a value holds: equal for a value, its reshapes and copies.
 *
 * True if `op` computes the same when result `result` lives in the memory of operand value `old`: a nest that is
 *   - an update whose loads of old's content are of the element being written, or provably of none that another iteration
 *     writes; its base, too, is in that memory; or
 *   - free of reductions, with a fresh result of old's type, that loads old's content only at the element written.
 * Generated code must compute all results of an iteration before it stores one. */
bool inplace_allowed(const struct ir_op *op, int result, const struct ir_value *old, const int *content);
/* inplace_rows.c: of a `rows` operation. */
bool inplace_rows_allowed(const struct ir_op *op, int result, const struct ir_value *old, const int *content);
/* Whether a result is made element by element and no version of another value, so that it may take the place of an operand that dies. */
bool inplace_is_fresh(const struct ir_op *op, int result);

#endif
