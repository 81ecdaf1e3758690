/* The form of a nest that libraries of convolutions take: see convolution.h.
 *
 * Each of the three tensors has a subscript for each of its dimensions: of a load what stands there, of the result the nest's own index.
 * In the subscripts of two of them single indices stand, which name the roles: batch n, output o, input c, position y, place in the kernel k.
 * The third is then compared with what a convolution says of it:
 *
 *   output, gradient of the kernel    input[n, o / O * C + c, y * stride + k * dilation - pad]
 *   gradient of the input             output[n, o + x_c / C * O, (x + pad - k * dilation) / stride], kernel[…, x_c % C, k], where the
 *                                     quotient is exact
 *
 * with C and O channels a group. An index of extent 1 may have become 0. Channels are compared by evaluating the subscript, since a group
 * may be written in many ways; places by their coefficients. */
#include "codegen/kernels/convolution.h"

struct matching {
    struct lower *l;
    const struct ir_nest *nest;
    struct convolution *c;
    int axes, rank;
    struct ir_type type[CONVOLUTION_ROLES];
    ir_expr at[CONVOLUTION_ROLES][NEST_MAX]; /* subscripts */
    ir_expr condition;                       /* under which the output is read; NULL: always */
    uint32_t reduced;                        /* reduction indices that have a role */
};

enum { NO_INDEX = -1, NO_MATCH = -2 };

static bool is_zero(ir_expr e) {
    return e->kind == X_CONST && (dtype_is_float(e->dtype) ? e->value.f == 0 : e->value.i == 0);
}

static bool is_one(ir_dim d) {
    int64_t one;
    return ir_dim_is_const(d, &one) && one == 1;
}

/* The index that a subscript is, over all of its dimension; NO_INDEX where that has one position. */
static int single_index(const struct matching *m, enum convolution_role r, int d) {
    ir_expr e = m->at[r][d];
    if (e->kind == X_INDEX && m->nest->indices[e->index].extent == m->type[r].dims[d])
        return is_one(m->type[r].dims[d]) ? NO_INDEX : e->index;
    return is_zero(e) && is_one(m->type[r].dims[d]) ? NO_INDEX : NO_MATCH;
}

/* The same for an index of the reduction, each of which has one role. */
static int reduction_index(struct matching *m, enum convolution_role r, int d) {
    int i = single_index(m, r, d);
    if (i >= 0 && (i < m->nest->pars || m->reduced >> i & 1))
        return NO_MATCH;
    if (i >= 0)
        m->reduced |= 1u << i;
    return i;
}

/* The value of index arithmetic where index i is v. */
static bool evaluate(const struct matching *m, ir_expr e, int i, int64_t v, int64_t *value) {
    int64_t a, b;
    switch (e->kind) {
    case X_CONST: *value = e->value.i; return !dtype_is_float(e->dtype);
    case X_INDEX:
        *value = e->index == i ? v : 0;
        return e->index == i || is_one(m->nest->indices[e->index].extent);
    case X_FN:
        if (e->count != 2 || e->dtype != I64 || !evaluate(m, e->args[0], i, v, &a) || !evaluate(m, e->args[1], i, v, &b))
            return false;
        switch (e->fn) {
        case FN_add: *value = a + b; return true;
        case FN_sub: *value = a - b; return true;
        case FN_mul: *value = a * b; return true;
        case FN_div: *value = b > 0 ? a / b : 0; return a >= 0 && b > 0;
        case FN_mod: *value = b > 0 ? a % b : 0; return a >= 0 && b > 0;
        default: return false;
        }
    default: return false;
    }
}

/* Whether e is (index i) / divisor * factor + index `inner`. */
static bool is_grouped(const struct matching *m, ir_expr e, int inner, int i, int64_t count, int64_t divisor,
                       int64_t factor) {
    int64_t value;
    if (inner >= 0) {
        if (e->kind == X_INDEX && e->index == inner)
            return count <= divisor;
        if (e->kind != X_FN || e->fn != FN_add)
            return false;
        int side = e->args[0]->kind == X_INDEX && e->args[0]->index == inner;
        if (!side && (e->args[1]->kind != X_INDEX || e->args[1]->index != inner))
            return false;
        e = e->args[side];
    }
    for (int64_t v = 0; v < count; v++)
        if (!evaluate(m, e, i, v, &value) || value != v / divisor * factor)
            return false;
    return true;
}

/* ---- places along an axis -------------------------------------------------------------------------------------------------- */

/* e as a * index i + b * index k + constant. */
static bool is_place(const struct matching *m, ir_expr e, int i, int k, int64_t *a, int64_t *b, int64_t *constant) {
    ir_dim coefficients[NEST_MAX], rest;
    int count = m->nest->pars + m->nest->reds;
    if (!ir_expr_affine(m->l->module, e, count, coefficients, &rest) || !ir_dim_is_const(rest, constant))
        return false;
    *a = *b = 0;
    for (int q = 0; q < count; q++) {
        int64_t value;
        if (!ir_dim_is_const(coefficients[q], &value) || (value && q != i && q != k && !is_one(m->nest->indices[q].extent)))
            return false;
        if (q == i)
            *a = value;
        else if (q == k)
            *b = value;
    }
    return true;
}

/* Whether the axis has as many windows as a library counts, whose borders are equal. */
static bool counts_windows(struct matching *m, const struct convolution_axis *x) {
    struct ir_module *module = m->l->module;
    ir_dim room = ir_dim_add(module, x->input, ir_dim_const(module, 2 * x->pad - (x->kernel - 1) * x->dilation - 1));
    ir_dim last = ir_dim_div(module, room, ir_dim_const(module, x->stride));
    return x->pad >= 0 && x->stride >= 1 && x->dilation >= 1 && x->pad <= INT32_MAX && x->stride <= INT32_MAX &&
           x->dilation <= INT32_MAX && ir_dim_lower(room) >= 0 &&
           ir_dim_add(module, last, ir_dim_const(module, 1)) == x->output;
}

/* Whether the condition says that what is divided by the stride is a multiple of it; takes it away from what is left to be said. */
static bool takes_condition(const struct matching *m, ir_expr *conditions, int count, int x, int k, int64_t along_k,
                            int64_t pad, int64_t stride) {
    for (int i = 0; i < count; i++) {
        ir_expr e = conditions[i];
        int64_t a, b, constant;
        if (!e || e->kind != X_FN || e->fn != FN_eq || !is_zero(e->args[1]) || e->args[0]->kind != X_FN ||
            e->args[0]->fn != FN_mod || e->args[0]->args[1]->kind != X_CONST ||
            e->args[0]->args[1]->value.i != stride || !is_place(m, e->args[0]->args[0], x, k, &a, &b, &constant))
            continue;
        if ((a - (x >= 0)) % stride == 0 && (b - (k >= 0 ? along_k : 0)) % stride == 0 &&
            (constant - pad) % stride == 0 && (x >= 0 || k >= 0)) {
            conditions[i] = NULL;
            return true;
        }
    }
    return false;
}

static int split_condition(ir_expr e, ir_expr *conditions, int most) {
    if (!e)
        return 0;
    if (e->kind == X_FN && e->fn == FN_and) {
        int first = split_condition(e->args[0], conditions, most);
        int second = first < 0 ? -1 : split_condition(e->args[1], conditions + first, most - first);
        return second < 0 ? -1 : first + second;
    }
    if (most == 0)
        return -1;
    conditions[0] = e;
    return 1;
}

/* Axis a, dimension d of the tensors, of an output or the gradient of a kernel: y and k are its indices. */
static bool forward_axis(struct matching *m, int d, struct convolution_axis *x, int y, int k) {
    int64_t along_y, along_k, constant;
    if (!is_place(m, m->at[CONVOLUTION_INPUT][d], y, k, &along_y, &along_k, &constant))
        return false;
    x->stride = y >= 0 ? along_y : 1;
    x->dilation = k >= 0 ? along_k : 1;
    x->pad = -constant;
    return counts_windows(m, x);
}

static bool backward_axis(struct matching *m, int d, struct convolution_axis *axis, int x, int k, ir_expr *conditions,
                          int count) {
    ir_expr e = m->at[CONVOLUTION_OUTPUT][d];
    int64_t along_x, along_k;
    axis->stride = 1;
    if (e->kind == X_FN && e->fn == FN_div && e->args[1]->kind == X_CONST) {
        axis->stride = e->args[1]->value.i;
        e = e->args[0];
    }
    if (!is_place(m, e, x, k, &along_x, &along_k, &axis->pad) || (x >= 0 && along_x != 1) || axis->stride < 1)
        return false;
    axis->dilation = k >= 0 ? -along_k : 1;
    return counts_windows(m, axis) &&
           (axis->stride == 1 || takes_condition(m, conditions, count, x, k, along_k, axis->pad, axis->stride));
}

/* ---- the whole --------------------------------------------------------------------------------------------------------------- */

static bool channels(struct matching *m) {
    struct convolution *c = m->c;
    int64_t in_group, outputs, inputs, of_output;
    if (!ir_dim_is_const(m->type[CONVOLUTION_INPUT].dims[1], &inputs) ||
        !ir_dim_is_const(m->type[CONVOLUTION_KERNEL].dims[1], &in_group) ||
        !ir_dim_is_const(m->type[CONVOLUTION_KERNEL].dims[0], &outputs) ||
        !ir_dim_is_const(m->type[CONVOLUTION_OUTPUT].dims[1], &of_output))
        return false;
    if (in_group < 1 || inputs < 1 || inputs % in_group || outputs % (inputs / in_group) || outputs != of_output)
        return false;
    c->inputs = inputs;
    c->outputs = outputs;
    c->groups = inputs / in_group;
    return inputs <= INT32_MAX && outputs <= INT32_MAX;
}

static bool extents(struct matching *m) {
    struct convolution *c = m->c;
    c->batch = m->type[CONVOLUTION_INPUT].dims[0];
    c->work = (double)ir_dim_upper(c->batch) * (double)c->outputs * (double)(c->inputs / c->groups);
    bool fits = c->batch == m->type[CONVOLUTION_OUTPUT].dims[0] && ir_dim_upper(c->batch) <= INT32_MAX;
    for (int a = 0; a < CONVOLUTION_AXES; a++) {
        struct convolution_axis *x = &c->axis[a];
        int d = 2 + a - (CONVOLUTION_AXES - m->axes);
        ir_dim one = ir_dim_const(m->l->module, 1);
        *x = (struct convolution_axis){one, one, 1, 1, 0, 1};
        if (d < 2)
            continue;
        x->input = m->type[CONVOLUTION_INPUT].dims[d];
        x->output = m->type[CONVOLUTION_OUTPUT].dims[d];
        fits &= ir_dim_is_const(m->type[CONVOLUTION_KERNEL].dims[d], &x->kernel) && x->kernel >= 1 &&
                x->kernel <= INT32_MAX && ir_dim_upper(x->input) <= INT32_MAX && ir_dim_upper(x->output) <= INT32_MAX;
        c->work *= (double)ir_dim_upper(x->output) * (double)x->kernel;
    }
    return fits;
}

/* Of the two that are read, one has the output's channels as its own; its other indices are summed over. */
static bool output_or_kernel(struct matching *m) {
    struct convolution *c = m->c;
    const bool forward = c->result == CONVOLUTION_OUTPUT;
    int n = forward ? single_index(m, CONVOLUTION_OUTPUT, 0) : reduction_index(m, CONVOLUTION_OUTPUT, 0);
    int in = forward ? reduction_index(m, CONVOLUTION_KERNEL, 1) : single_index(m, CONVOLUTION_KERNEL, 1);
    int out = single_index(m, CONVOLUTION_KERNEL, 0);
    if (m->condition || n == NO_MATCH || in == NO_MATCH || out == NO_MATCH || out >= m->nest->pars ||
        single_index(m, CONVOLUTION_OUTPUT, 1) != out || single_index(m, CONVOLUTION_INPUT, 0) != n ||
        !is_grouped(m, m->at[CONVOLUTION_INPUT][1], in, out, c->outputs, c->outputs / c->groups, c->inputs / c->groups))
        return false;
    for (int d = 2; d < m->rank; d++) {
        int y = forward ? single_index(m, CONVOLUTION_OUTPUT, d) : reduction_index(m, CONVOLUTION_OUTPUT, d);
        int k = forward ? reduction_index(m, CONVOLUTION_KERNEL, d) : single_index(m, CONVOLUTION_KERNEL, d);
        if (y == NO_MATCH || k == NO_MATCH || !forward_axis(m, d, &c->axis[CONVOLUTION_AXES - m->rank + d], y, k))
            return false;
    }
    return forward || ir_dim_lower(c->batch) >= 1; /* an empty sum is not the library's */
}

/* The index of the reduction in e; NO_INDEX: there is none. */
static int summed(const struct matching *m, ir_expr e) {
    uint32_t uses = nest_uses(e) >> m->nest->pars;
    for (int i = m->nest->pars; uses; i++, uses >>= 1)
        if (uses & 1)
            return uses == 1 ? i : NO_MATCH;
    return NO_INDEX;
}

static bool input(struct matching *m) {
    enum { CONDITIONS = 2 * CONVOLUTION_AXES };
    struct convolution *c = m->c;
    const int64_t in_group = c->inputs / c->groups, out_group = c->outputs / c->groups;
    ir_expr conditions[CONDITIONS], channel = m->at[CONVOLUTION_KERNEL][0], place = m->at[CONVOLUTION_KERNEL][1];
    int count = split_condition(m->condition, conditions, CONDITIONS), o = summed(m, channel);
    int n = single_index(m, CONVOLUTION_INPUT, 0), in = single_index(m, CONVOLUTION_INPUT, 1);
    int64_t value;
    if (count < 0 || o == NO_MATCH || single_index(m, CONVOLUTION_OUTPUT, 0) != n ||
        m->at[CONVOLUTION_OUTPUT][1] != channel ||
        !is_grouped(m, channel, o, in, c->inputs, in_group, out_group))
        return false;
    for (int64_t v = 0; v < c->inputs; v++)
        if (!evaluate(m, place, in, v, &value) || value != v % in_group)
            return false;
    if (o >= 0) {
        if (!ir_dim_is_const(m->nest->indices[o].extent, &value) || value != out_group)
            return false;
        m->reduced |= 1u << o;
    } else if (out_group != 1) {
        return false;
    }
    for (int d = 2; d < m->rank; d++) {
        int x = single_index(m, CONVOLUTION_INPUT, d), k = reduction_index(m, CONVOLUTION_KERNEL, d);
        if (k == NO_MATCH ||
            !backward_axis(m, d, &c->axis[CONVOLUTION_AXES - m->rank + d], x, k, conditions, count))
            return false;
    }
    for (int i = 0; i < count; i++)
        if (conditions[i])
            return false;
    return true;
}

struct windowed_factor {
    ir_expr load, condition; /* NULL: always */
};

/* A load, widened to f32, or 0 where it is outside or a condition does not hold. */
static struct windowed_factor factor_of(ir_expr e) {
    struct windowed_factor f = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        if (e->kind == X_CAST && (e->args[0]->dtype == F16 || e->args[0]->dtype == BF16))
            e = e->args[0];
        if (e->kind == X_FN && e->fn == FN_where && !f.condition && is_zero(e->args[2])) {
            f.condition = e->args[0];
            e = e->args[1];
        }
    }
    if (e->kind == X_LOAD && (!e->guarded || is_zero(e->args[e->count - 1])))
        f.load = e;
    return f;
}

/* Whether the nest computes tensor `result` from the two factors, in this order. */
static bool matches(struct lower *l, struct convolution *c, enum convolution_role result,
                    const struct windowed_factor *first, const struct windowed_factor *second) {
    const struct ir_op *op = l->op;
    const struct ir_nest *nest = &op->nest;
    struct matching m = {.l = l, .nest = nest, .c = c, .axes = nest->pars - 2, .rank = nest->pars};
    *c = (struct convolution){.result = result, .dtype = first->load->dtype};
    const struct windowed_factor *next = first;
    for (int r = 0; r < CONVOLUTION_ROLES; r++) {
        if (r == (int)result) {
            m.type[r] = op->results[0]->type;
            for (int d = 0; d < m.rank; d++)
                m.at[r][d] = ir_index(l->module, d);
            continue;
        }
        c->load[r] = next->load;
        m.type[r] = op->operands[next->load->index]->type;
        if (m.type[r].rank != m.rank || (next->condition && r != CONVOLUTION_OUTPUT))
            return false;
        m.condition = next->condition ? next->condition : m.condition;
        for (int d = 0; d < m.rank; d++)
            m.at[r][d] = next->load->args[d];
        next = second;
    }
    if (!channels(&m) || !extents(&m) || !(result == CONVOLUTION_INPUT ? input(&m) : output_or_kernel(&m)))
        return false;
    for (int i = nest->pars; i < nest->pars + nest->reds; i++)
        if (!(m.reduced >> i & 1) && !is_one(nest->indices[i].extent))
            return false;
    return true;
}

bool convolution_of(struct lower *l, struct convolution *c) {
    const struct ir_op *op = l->op;
    const struct ir_nest *nest = &op->nest;
    if (nest->acc_count != 1 || nest->accs[0].op != RED_SUM || !nest->reds || nest->pars < 3 ||
        nest->pars > 2 + CONVOLUTION_AXES)
        return false;
    for (int i = 0; i < op->result_count; i++)
        if (nest->results[i].base >= 0)
            return false;
    for (int i = nest->pars; i < nest->pars + nest->reds; i++)
        if (!is_zero(nest->indices[i].lo) || nest->indices[i].hi != ir_dim_expr(l->module, nest->indices[i].extent))
            return false;
    ir_expr body = nest->accs[0].body;
    if (body->kind != X_FN || body->fn != FN_mul || body->dtype != F32)
        return false;
    struct windowed_factor f[2] = {factor_of(body->args[0]), factor_of(body->args[1])};
    if (!f[0].load || !f[1].load || f[0].load->dtype != f[1].load->dtype ||
        (f[0].load->dtype != F32 && f[0].load->dtype != F16 && f[0].load->dtype != BF16))
        return false;
    for (int r = 0; r < CONVOLUTION_ROLES; r++)
        if (matches(l, c, r, &f[0], &f[1]) || matches(l, c, r, &f[1], &f[0]))
            return true;
    return false;
}
