/* The text form of the IR (.mxir, `--emit ir`): prints and parses back to the same IR. Grammar in docs/ir.md. */
#ifndef MXCC_IR_TEXT_H
#define MXCC_IR_TEXT_H

#include "base/text.h"
#include "ir/ir.h"

void ir_print(struct text *out, const struct ir_module *m);
void ir_print_func(struct text *out, const struct ir_func *f);
void ir_print_op(struct text *out, const struct ir_op *op, int indent);
void ir_print_expr(struct text *out, ir_expr e, const struct ir_op *nest /* for names; may be NULL */);
void ir_print_dim(struct text *out, ir_dim d);
void ir_print_type(struct text *out, struct ir_type t); /* f32[N, 10] */

/* NULL after errors reported to d. */
struct ir_module *ir_parse(struct diag *d, const struct source *source);

/* A scalar expression over named arguments, all of dtype t unless an inner function says otherwise (where's condition
 * is bool): the derivatives of ir/scalar.def. names[i] stands for values[i]. Numbers take the dtype t. NULL on a syntax
 * error (a bug: the table is ours). */
ir_expr ir_parse_scalar(struct ir_module *m, const char *text, enum dtype t, const char *const *names,
                        const ir_expr *values, int count);

/* Checks every invariant stated in ir.h: definitions dominate uses, types of operands and results, slots and ranks of
 * loads, indices in scope, ACC only where allowed, targets, regions' arguments and yields, symbols bound before use, one
 * read and one write a buffer. False with a message naming function and operation appended to `why`. */
bool ir_verify(const struct ir_module *m, struct text *why);

#endif
