/* GELU recognised by its values: see gelu.h.
 *
 * The formula may be written in many ways, and its gradient reads whatever of the forward pass was kept (the tanh, one plus it), so its form
 * says little. What is compared is the function: at some points, in f64 and without the rounding to 16 bits between operations, to
 * 1e-6. GELU by erf, which differs by up to 5e-4, is another one. */
#include <math.h>

#include "codegen/kernels/gelu.h"

enum { POINTS = 25 };

struct point {
    struct lower *l;
    const struct ir_op *op; /* whose expression is evaluated */
    ir_expr load;           /* of the first op, or NULL */
    double sum, loaded;
    int fuel; /* nodes left to evaluate: shared ones count again */
};

static bool value_of(struct point *p, ir_expr e, double *value);

/* A load at the same element that another nest computed from `load`'s operand. */
static bool computed_value(struct point *p, ir_expr e, double *value) {
    const struct ir_value *v = p->op->operands[e->index];
    const struct ir_op *op = v->op, *outer = p->op;
    if (!op || op->code != OP_nest || op->nest.reds || op->nest.results[v->index].base >= 0)
        return false;
    p->op = op;
    bool known = value_of(p, op->nest.results[v->index].value, value);
    p->op = outer;
    return known;
}

static bool loaded_value(struct point *p, ir_expr e, double *value) {
    if (!p->load || e->guarded)
        return false;
    bool same = e->count == p->load->count;
    for (int i = 0; same && i < e->count; i++) /* in the nest of the sum as there, elsewhere by its own indices */
        same =
            p->op == p->l->op ? e->args[i] == p->load->args[i] : e->args[i]->kind == X_INDEX && e->args[i]->index == i;
    if (!same)
        return false;
    if (p->op->operands[e->index] != p->l->op->operands[p->load->index])
        return computed_value(p, e, value);
    *value = p->loaded;
    return true;
}

static bool function_value(enum scalar_fn fn, double a, double b, double *value) {
    switch (fn) {
    case FN_add: *value = a + b; return true;
    case FN_sub: *value = a - b; return true;
    case FN_mul: *value = a * b; return true;
    case FN_div: *value = a / b; return true;
    case FN_pow: *value = pow(a, b); return true;
    case FN_neg: *value = -a; return true;
    case FN_exp: *value = exp(a); return true;
    case FN_sigmoid: *value = 1 / (1 + exp(-a)); return true;
    case FN_tanh: *value = tanh(a); return true;
    default: return false;
    }
}

/* The number that e is; false: it depends on something else. */
static bool value_of(struct point *p, ir_expr e, double *value) {
    double args[2] = {0, 0};
    if (p->fuel-- <= 0 || !dtype_is_float(e->dtype))
        return false;
    switch (e->kind) {
    case X_CONST: *value = e->value.f; return true;
    case X_ACC: *value = p->sum; return p->op == p->l->op;
    case X_LOAD: return loaded_value(p, e, value);
    case X_CAST: return value_of(p, e->args[0], value);
    case X_FN:
        for (int i = 0; i < e->count; i++)
            if (i == 2 || !value_of(p, e->args[i], &args[i]))
                return false;
        return function_value(e->fn, args[0], args[1], value);
    default: return false;
    }
}

static double gelu(double x) {
    return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

static double gelu_slope(double x) {
    double t = tanh(0.7978845608028654 * (x + 0.044715 * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
}

/* Whether e is the function at all points. */
static bool agrees(struct lower *l, ir_expr e, ir_expr load, double (*function)(double sum, double loaded)) {
    for (int i = 0; i < POINTS; i++) {
        struct point p = {.l = l, .op = l->op, .load = load, .fuel = 1000};
        p.sum = -4.5 + 9.0 * i / (POINTS - 1);
        p.loaded = -3.7 + 7.4 * (i * 7 % POINTS) / (POINTS - 1); /* in another order */
        double found, expected = function(p.sum, p.loaded);
        if (!value_of(&p, e, &found) || !(fabs(found - expected) <= 1e-6 * (1 + fabs(expected))))
            return false;
    }
    return true;
}

static double of_sum(double sum, double loaded) {
    return gelu(sum);
}

static double of_sum_and_bias(double sum, double loaded) {
    return gelu(sum + loaded);
}

static double of_gradient(double sum, double loaded) {
    return sum * gelu_slope(loaded);
}

bool is_gelu(struct lower *l, ir_expr e, ir_expr bias) {
    return agrees(l, e, bias, bias ? of_sum_and_bias : of_sum);
}

bool is_gelu_gradient(struct lower *l, ir_expr e, ir_expr at) {
    return agrees(l, e, at, of_gradient);
}
