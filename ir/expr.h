/* What expr.c and expr_fold.c share; private to ir/. */
#ifndef MXCC_IR_EXPR_H
#define MXCC_IR_EXPR_H

#include "ir/intern.h"

/* Numbers of a type. */
double float_round(enum dtype t, double value);   /* to the nearest, ties to even */
int64_t int_wrap(enum dtype t, int64_t value);    /* bool: not zero */
int64_t float_to_int(enum dtype t, double value); /* truncates and saturates; nan gives 0; bool: not zero */

/* The call as it stands, interned. */
ir_expr expr_raw_fn(struct ir_module *m, enum scalar_fn fn, const ir_expr *args);
/* What the call, cast, bitcast simplifies to; NULL: nothing. */
ir_expr expr_fold_fn(struct ir_module *m, enum scalar_fn fn, const ir_expr *args);
ir_expr expr_fold_cast(struct ir_module *m, enum dtype t, ir_expr a);
ir_expr expr_fold_bitcast(struct ir_module *m, enum dtype t, ir_expr a);
/* Whether (to) (via) x is (to) x for every x of type `from`. */
bool cast_absorbs(enum dtype to, enum dtype via, enum dtype from);

#endif
