/* Linear forms of integer expressions and their ranges; private to ir/. */
#ifndef MXCC_IR_LINEAR_H
#define MXCC_IR_LINEAR_H

#include "ir/intern.h"

enum { LINEAR_MAX = 32 };

/* constant + sum k * leaf; the leaves are distinct nodes other than sums, constants and dimensions, by descending id.
 * Equal to the expression modulo 2^bits of its type. */
struct linear {
    int n;
    struct linear_term {
        ir_expr leaf;
        ir_dim k; /* not 0 */
    } at[LINEAR_MAX];
    ir_dim constant;
    bool merged; /* some leaf occurred more than once */
};

/* False if e is too large or a coefficient saturates. */
bool linear_of(struct ir_module *m, ir_expr e, struct linear *form);
void linear_add_term(struct ir_module *m, struct linear *form, ir_expr leaf, ir_dim k, bool *ok);
/* into += k * form; false if it does not fit */
bool linear_add(struct ir_module *m, struct linear *into, const struct linear *form, ir_dim k);
ir_expr linear_build(struct ir_module *m, const struct linear *form, enum dtype t);

struct ranges {
    struct ir_module *module;
    const struct ir_nest *nest; /* may be NULL: indices are unknown */
    struct memo memo;           /* expression id -> struct ir_range */
    int depth;
};
struct ir_range range_of(struct ranges *r, ir_expr e);
/* Bounds of the form as a mathematical integer. */
struct ir_range range_of_linear(struct ranges *r, const struct linear *form);
/* The form of e where e, too, is that mathematical integer, without wrapping, and its bounds. */
bool linear_exact(struct ranges *r, ir_expr e, struct linear *form, struct ir_range *range);
/* Whether every number in the range is one of the type. */
bool range_fits(struct ir_range r, enum dtype t);

#endif
