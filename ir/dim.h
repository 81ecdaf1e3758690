/* What dim.c and dim_bounds.c share; private to ir/. */
#ifndef MXCC_IR_DIM_H
#define MXCC_IR_DIM_H

#include "ir/intern.h"

int64_t dim_clamp(int64_t x); /* to ±IR_DIM_LIMIT */
int64_t dim_sat_add(int64_t a, int64_t b);
int64_t dim_sat_mul(int64_t a, int64_t b);
int64_t dim_floor_div(int64_t a, int64_t b); /* x / 0 is 0 */
int64_t dim_floor_mod(int64_t a, int64_t b);

/* fa * a + fb * b */
ir_dim dim_scale_add(struct ir_module *m, ir_dim a, int64_t fa, ir_dim b, int64_t fb);
ir_dim dim_of_atom(struct ir_module *m, const struct ir_dim_atom *atom);
ir_dim dim_apply(struct ir_module *m, enum dim_atom kind, ir_dim a, ir_dim b);
/* d with every occurrence of the atom replaced. */
ir_dim dim_replace_atom(struct ir_module *m, ir_dim d, const struct ir_dim_atom *atom, ir_dim by);

#endif
