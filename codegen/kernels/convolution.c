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
 * with C and O channels a group. Where the stride is no less than the kernel, one place in the kernel is left, (x + pad) % stride, if it is
 * inside. An index of extent 1 may have become 0. Channels are compared by evaluating the subscript, since a group may be written in many
 * ways; places by their coefficients. */
#include "codegen/kernels/convolution.h"

enum { RANK = 2 + CONVOLUTION_AXES, CONDITIONS = 4 * CONVOLUTION_AXES };

/* A load, and conditions under which it counts. */
struct windowed_factor {
    ir_expr load;
    ir_expr conditions[CONDITIONS];
    int count;
};

struct matching {
    struct lower *l;
    const struct ir_nest *nest;
    struct convolution *c;
    int rank;
    ir_dim dims[CONVOLUTION_ROLES][RANK];
    ir_expr at[CONVOLUTION_ROLES][RANK]; /* subscripts */
    struct windowed_factor output;       /* its conditions, of which those that are explained become NULL */
    uint32_t reduced;                    /* reduction indices that have a role */
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
    if (e->kind == X_INDEX && m->nest->indices[e->index].extent == m->dims[r][d])
        return is_one(m->dims[r][d]) ? NO_INDEX : e->index;
    return is_zero(e) && is_one(m->dims[r][d]) ? NO_INDEX : NO_MATCH;
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
    case X_INDEX: *value = e->index == i ? v : 0; return e->index == i || is_one(m->nest->indices[e->index].extent);
    case X_FN:
        if (e->count != 2 || e->dtype != I64 || !evaluate(m, e->args[0], i, v, &a) ||
            !evaluate(m, e->args[1], i, v, &b))
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
        if (!ir_dim_is_const(coefficients[q], &value) ||
            (value && q != i && q != k && !is_one(m->nest->indices[q].extent)))
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

/* Whether a condition says that what is divided by the stride is a multiple of it: a * index x + b * index k + constant. */
static bool is_multiple(const struct matching *m, ir_expr e, int x, int k, const int64_t place[3], int64_t stride) {
    int64_t said[3];
    if (e->kind != X_FN || e->fn != FN_eq || !is_zero(e->args[1]) || e->args[0]->kind != X_FN ||
        e->args[0]->fn != FN_mod || e->args[0]->args[1]->kind != X_CONST || e->args[0]->args[1]->value.i != stride ||
        !is_place(m, e->args[0]->args[0], x, k, &said[0], &said[1], &said[2]))
        return false;
    for (int i = 0; i < 3; i++)
        if ((said[i] - place[i]) % stride)
            return false;
    return true;
}

/* Whether it says what holds wherever the output is read: that a subscript is inside. */
static bool is_inside(const struct matching *m, ir_expr e) {
    for (int d = 2; d < m->rank; d++)
        if (e->kind == X_FN && ((e->fn == FN_le && is_zero(e->args[0]) && e->args[1] == m->at[CONVOLUTION_OUTPUT][d]) ||
                                (e->fn == FN_lt && e->args[0] == m->at[CONVOLUTION_OUTPUT][d] &&
                                 e->args[1] == ir_dim_expr(m->l->module, m->dims[CONVOLUTION_OUTPUT][d]))))
            return true;
    return false;
}

static bool explain_multiple(struct matching *m, int x, int k, const int64_t place[3], int64_t stride) {
    for (int i = 0; i < m->output.count; i++)
        if (m->output.conditions[i] && is_multiple(m, m->output.conditions[i], x, k, place, stride)) {
            m->output.conditions[i] = NULL;
            return true;
        }
    return false;
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

/* The place in the kernel is what is left of the division by the stride. */
static bool remainder_axis(struct matching *m, int d, struct convolution_axis *axis, int x) {
    ir_expr e = m->at[CONVOLUTION_KERNEL][d], out = m->at[CONVOLUTION_OUTPUT][d];
    int64_t along_x, none;
    if (e->kind != X_FN || e->fn != FN_mod || e->args[1]->kind != X_CONST || out->kind != X_FN || out->fn != FN_div ||
        out->args[0] != e->args[0] || out->args[1] != e->args[1] ||
        !is_place(m, e->args[0], x, NO_INDEX, &along_x, &none, &axis->pad) || (x >= 0 && along_x != 1))
        return false;
    axis->stride = e->args[1]->value.i;
    axis->dilation = 1;
    return axis->kernel <= axis->stride && counts_windows(m, axis);
}

static bool backward_axis(struct matching *m, int d, struct convolution_axis *axis, int x, int k) {
    ir_expr e = m->at[CONVOLUTION_OUTPUT][d];
    int64_t place[3];
    axis->stride = 1;
    if (e->kind == X_FN && e->fn == FN_div && e->args[1]->kind == X_CONST) {
        axis->stride = e->args[1]->value.i;
        e = e->args[0];
    }
    if (!is_place(m, e, x, k, &place[0], &place[1], &place[2]) || (x >= 0 && place[0] != 1) || axis->stride < 1)
        return false;
    axis->dilation = k >= 0 ? -place[1] : 1;
    axis->pad = place[2];
    return counts_windows(m, axis) && (axis->stride == 1 || explain_multiple(m, x, k, place, axis->stride));
}

/* ---- the whole --------------------------------------------------------------------------------------------------------------- */

static bool channels(struct matching *m) {
    struct convolution *c = m->c;
    int64_t in_group, outputs, inputs, of_output;
    if (!ir_dim_is_const(m->dims[CONVOLUTION_INPUT][1], &inputs) ||
        !ir_dim_is_const(m->dims[CONVOLUTION_KERNEL][1], &in_group) ||
        !ir_dim_is_const(m->dims[CONVOLUTION_KERNEL][0], &outputs) ||
        !ir_dim_is_const(m->dims[CONVOLUTION_OUTPUT][1], &of_output))
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
    c->batch = m->dims[CONVOLUTION_INPUT][0];
    c->work = (double)ir_dim_upper(c->batch) * (double)c->outputs * (double)(c->inputs / c->groups);
    bool fits = c->batch == m->dims[CONVOLUTION_OUTPUT][0] && ir_dim_upper(c->batch) <= INT32_MAX;
    for (int a = 0; a < CONVOLUTION_AXES; a++) {
        struct convolution_axis *x = &c->axis[a];
        int d = m->rank - CONVOLUTION_AXES + a;
        ir_dim one = ir_dim_const(m->l->module, 1);
        *x = (struct convolution_axis){one, one, 1, 1, 0, 1};
        if (d < 2)
            continue;
        x->input = m->dims[CONVOLUTION_INPUT][d];
        x->output = m->dims[CONVOLUTION_OUTPUT][d];
        fits &= ir_dim_is_const(m->dims[CONVOLUTION_KERNEL][d], &x->kernel) && x->kernel >= 1 &&
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
    if (m->output.count || n == NO_MATCH || in == NO_MATCH || out == NO_MATCH || out >= m->nest->pars ||
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
    struct convolution *c = m->c;
    const int64_t in_group = c->inputs / c->groups, out_group = c->outputs / c->groups;
    ir_expr channel = m->at[CONVOLUTION_KERNEL][0], place = m->at[CONVOLUTION_KERNEL][1];
    int n = single_index(m, CONVOLUTION_INPUT, 0), in = single_index(m, CONVOLUTION_INPUT, 1), o = summed(m, channel);
    int64_t value;
    if (o == NO_MATCH || single_index(m, CONVOLUTION_OUTPUT, 0) != n || m->at[CONVOLUTION_OUTPUT][1] != channel ||
        !is_grouped(m, channel, o, in, c->inputs, in_group, out_group))
        return false;
    for (int64_t v = 0; v < c->inputs; v++)
        if (!evaluate(m, place, in, v, &value) || value != v % in_group)
            return false;
    if (o >= 0 ? !ir_dim_is_const(m->nest->indices[o].extent, &value) || value != out_group : out_group != 1)
        return false;
    if (o >= 0)
        m->reduced |= 1u << o;
    for (int d = 2; d < m->rank; d++) {
        struct convolution_axis *axis = &c->axis[CONVOLUTION_AXES - m->rank + d];
        int x = single_index(m, CONVOLUTION_INPUT, d), k = reduction_index(m, CONVOLUTION_KERNEL, d);
        if (k == NO_MATCH ? !remainder_axis(m, d, axis, x) : !backward_axis(m, d, axis, x, k))
            return false;
    }
    for (int i = 0; i < m->output.count; i++)
        if (m->output.conditions[i] && !is_inside(m, m->output.conditions[i]))
            return false;
    return true;
}

static bool add_conditions(struct windowed_factor *f, ir_expr e) {
    if (e->kind == X_FN && e->fn == FN_and)
        return add_conditions(f, e->args[0]) && add_conditions(f, e->args[1]);
    if (f->count == CONDITIONS)
        return false;
    f->conditions[f->count++] = e;
    return true;
}

/* A load, widened to f32, or 0 where it is outside or a condition does not hold. */
static struct windowed_factor factor_of(ir_expr e) {
    struct windowed_factor f = {.count = 0};
    for (;;)
        if (e->kind == X_CAST && (e->args[0]->dtype == F16 || e->args[0]->dtype == BF16))
            e = e->args[0];
        else if (e->kind == X_FN && e->fn == FN_where && is_zero(e->args[2]) && add_conditions(&f, e->args[0]))
            e = e->args[1];
        else
            break;
    if (e->kind == X_LOAD && (!e->guarded || is_zero(e->args[e->count - 1])))
        f.load = e;
    return f;
}

/* Subscripts of one of the tensors. A kernel of one channel a group may have lost that dimension. */
static bool set_tensor(struct matching *m, enum convolution_role r, struct ir_type t, const ir_expr *at) {
    struct ir_module *module = m->l->module;
    bool lost = r == CONVOLUTION_KERNEL && t.rank == m->rank - 1;
    if (t.rank != m->rank && !lost)
        return false;
    for (int d = 0, from = 0; d < m->rank; d++) {
        bool unit = lost && d == 1;
        m->dims[r][d] = unit ? ir_dim_const(module, 1) : t.dims[from];
        m->at[r][d] = unit ? ir_const_int(module, I64, 0) : at ? at[from] : ir_index(module, from);
        from += !unit;
    }
    return true;
}

/* Whether the nest computes tensor `result` from the two factors, in this order. */
static bool matches(struct lower *l, struct convolution *c, enum convolution_role result,
                    const struct windowed_factor *first, const struct windowed_factor *second) {
    const struct ir_op *op = l->op;
    const struct ir_nest *nest = &op->nest;
    struct matching m = {.l = l, .nest = nest, .c = c, .rank = nest->pars};
    *c = (struct convolution){.result = result, .dtype = first->load->dtype};
    const struct windowed_factor *next = first;
    if (result == CONVOLUTION_KERNEL)
        m.rank = op->operands[first->load->index]->type.rank;
    if (m.rank < RANK - CONVOLUTION_AXES + 1 || m.rank > RANK)
        return false;
    for (int r = 0; r < CONVOLUTION_ROLES; r++) {
        if (r == (int)result) {
            if (!set_tensor(&m, r, op->results[0]->type, NULL))
                return false;
            continue;
        }
        if (!set_tensor(&m, r, op->operands[next->load->index]->type, next->load->args) ||
            (next->count && r != CONVOLUTION_OUTPUT))
            return false;
        c->load[r] = next->load;
        if (r == CONVOLUTION_OUTPUT)
            m.output = *next;
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
    if (nest->acc_count != 1 || nest->accs[0].op != RED_SUM || !nest->reds || nest->pars < 2)
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
