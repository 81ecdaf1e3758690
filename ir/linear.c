/* Integer expressions as linear forms over opaque leaves.
 *
 * Nodes are expanded in order of descending id with their summed coefficients. Ids put children before parents, so that
 * all uses of a node are summed before it is expanded: a DAG costs its nodes, not its paths. */
#include "ir/linear.h"

static bool saturated(ir_dim k) {
    for (int i = 0; i < k->count; i++)
        if (k->terms[i].coefficient >= IR_DIM_LIMIT || k->terms[i].coefficient <= -IR_DIM_LIMIT)
            return true;
    return false;
}

void linear_add_term(struct ir_module *m, struct linear *form, ir_expr leaf, ir_dim k, bool *ok) {
    int at = 0;
    while (at < form->n && form->at[at].leaf->id > leaf->id)
        at++;
    if (at < form->n && form->at[at].leaf == leaf) {
        form->at[at].k = ir_dim_add(m, form->at[at].k, k);
        form->merged = true;
        *ok &= !saturated(form->at[at].k);
        if (!form->at[at].k->count) {
            form->n--;
            for (int i = at; i < form->n; i++)
                form->at[i] = form->at[i + 1];
        }
        return;
    }
    if (form->n == LINEAR_MAX || saturated(k)) {
        *ok = false;
        return;
    }
    for (int i = form->n++; i > at; i--)
        form->at[i] = form->at[i - 1];
    form->at[at] = (struct linear_term){leaf, k};
}

/* A constant or dimension, else NULL. */
static ir_dim fixed_value(struct ir_module *m, ir_expr e) {
    if (e->kind == X_DIM)
        return e->dim;
    if (e->kind == X_CONST && !dtype_is_float(e->dtype) && e->value.i < IR_DIM_LIMIT && e->value.i > -IR_DIM_LIMIT)
        return ir_dim_const(m, e->value.i);
    return NULL;
}

bool linear_of(struct ir_module *m, ir_expr e, struct linear *form) {
    struct linear pending = {0};
    bool ok = true;
    *form = (struct linear){.constant = ir_dim_const(m, 0)};
    ir_dim one = ir_dim_const(m, 1), minus = ir_dim_const(m, -1);
    linear_add_term(m, &pending, e, one, &ok);
    for (int steps = 0; pending.n && ok; steps++) {
        if (steps == 256)
            return false;
        struct linear_term top = pending.at[0]; /* the largest id: all its uses are summed */
        pending.n--;
        for (int i = 0; i < pending.n; i++)
            pending.at[i] = pending.at[i + 1];
        ir_expr x = top.leaf;
        ir_dim value = fixed_value(m, x);
        if (value) {
            form->constant = ir_dim_add(m, form->constant, ir_dim_mul(m, top.k, value));
            ok &= !saturated(form->constant);
            continue;
        }
        if (x->kind == X_CONST)
            return false;
        if (x->kind == X_FN && (x->fn == FN_add || x->fn == FN_sub)) {
            linear_add_term(m, &pending, x->args[0], top.k, &ok);
            linear_add_term(m, &pending, x->args[1], x->fn == FN_add ? top.k : ir_dim_mul(m, top.k, minus), &ok);
        } else if (x->kind == X_FN && x->fn == FN_neg) {
            linear_add_term(m, &pending, x->args[0], ir_dim_mul(m, top.k, minus), &ok);
        } else if (x->kind == X_FN && x->fn == FN_mul && (value = fixed_value(m, x->args[1]))) {
            if (value->count)
                linear_add_term(m, &pending, x->args[0], ir_dim_mul(m, top.k, value), &ok);
        } else {
            linear_add_term(m, form, x, top.k, &ok);
        }
    }
    form->merged = pending.merged;
    return ok;
}

bool linear_add(struct ir_module *m, struct linear *into, const struct linear *form, ir_dim k) {
    bool ok = true;
    into->constant = ir_dim_add(m, into->constant, ir_dim_mul(m, form->constant, k));
    for (int i = 0; i < form->n; i++)
        linear_add_term(m, into, form->at[i].leaf, ir_dim_mul(m, form->at[i].k, k), &ok);
    return ok && !saturated(into->constant);
}

static ir_expr coefficient_expr(struct ir_module *m, ir_dim k, enum dtype t) {
    int64_t c;
    return ir_dim_is_const(k, &c) ? ir_const_int(m, t, c) : ir_dim_expr(m, k); /* dimensions occur in i64 only */
}

ir_expr linear_build(struct ir_module *m, const struct linear *form, enum dtype t) {
    ir_expr sum = NULL;
    int64_t c;
    for (int pass = 0; pass < 2; pass++) /* what is added, then what is subtracted */
        for (int i = form->n - 1; i >= 0; i--) {
            ir_dim k = form->at[i].k;
            bool negative = ir_dim_is_const(k, &c) && c < 0;
            if (negative != (pass == 1))
                continue;
            ir_dim size = negative ? ir_dim_const(m, -c) : k;
            ir_expr term = ir_fn2(m, FN_mul, form->at[i].leaf, coefficient_expr(m, size, t));
            sum = sum ? ir_fn2(m, negative ? FN_sub : FN_add, sum, term) : negative ? ir_fn1(m, FN_neg, term) : term;
        }
    ir_expr constant = coefficient_expr(m, form->constant, t);
    return sum ? ir_fn2(m, FN_add, sum, constant) : constant;
}
