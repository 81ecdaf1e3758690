/* Products that are strided windows, by phases (the polyphase form of a transposed convolution; Bellanger, Bonnerot, Coudreuse 1976).
 *
 * The gradient of a convolution of stride s, and a transposed convolution, spread their windows over the result: position p is met by
 * those taps k of the windows for which p + c - k is a multiple of s. They reach this pass in two forms. Where windows do not overlap, one
 * tap is left,
 *
 *     y[n, c, p] = sum[o] x[n, o, p / s] * w[o, c, p % s]
 *
 * and both factors depend on p, so that to a kernel of products p is one of a batch, with weights of its own for every p. But one factor only
 * knows the quotient, the other only the remainder: as two indices p = s q + r one belongs to the rows and the other to the columns of
 * one product. Its result has the same bytes, so a reshape is all that is left of it:
 *
 *     z[n, c, q, r] = sum[o] x[n, o, q] * w[o, c, r],   y = reshape(z)
 *
 * Where w has only k < s taps, the other phases are zeros that need no sum: z is the product over r < k, and y reads it where p % s < k.
 *
 * Where windows overlap, all taps are tried, and most are masked out:
 *
 *     y[n, c, p] = sum[o, k] (if (p + c - k) % s == 0 then x[n, o, (p + c - k) / s] else 0) * w[o, c, k]
 *
 * With p = s q + r the taps of a phase are k = s j + (r + c) % s, and only they are left; r is one of a batch of s products:
 *
 *     z[n, c, q, r] = sum[o, j] x[n, o, q - j + (r + c) / s] * w[o, c, s j + (r + c) % s]
 *
 * Each sum is of the same terms in the same order; only 0 * inf, of a tap that meets no window, is 0 and not nan. The pass stands behind
 * `fuse`, so that what follows a sum stays with it. */
#include <string.h>

#include "passes/lower.h"
#include "passes/nest_edit.h"
#include "passes/passes.h"
#include "passes/simplify_internal.h"

enum { MOST_INDICES = 32, MOST_NODES = 128 };

/* p + offset - k by `stride`, of a parallel index p and a reduced one k. */
struct window {
    int par, red;
    int64_t offset, stride;
};

/* How a factor sees the indices: bit i. */
struct seen {
    struct ir_module *m;
    const struct ir_op *op;
    ir_expr node[MOST_NODES]; /* met already */
    int nodes;
    uint32_t plain, quotient, remainder;
    uint32_t tap; /* reduced, the subscript of a dimension as long as they run */
    int64_t stride[MOST_INDICES];
    struct window window[MOST_INDICES]; /* by parallel index; stride 0: none */
    bool odd;                           /* something that this pass does not take apart */
};

/* One parallel index p. stride 1: it stays as it is. Else red < 0: `count` of its remainders have a tap; red: the index of its taps. */
struct phase {
    int64_t stride, count, offset;
    int red;
};

struct product {
    struct phase phase[MOST_INDICES];
    bool whole; /* all phases have taps */
};

static bool by_constant(ir_expr e, int64_t *stride) {
    if (e->kind != X_FN || (e->fn != FN_div && e->fn != FN_mod) || e->dtype != I64 || e->args[1]->kind != X_CONST)
        return false;
    *stride = e->args[1]->value.i;
    return *stride >= 2;
}

/* Whether e is the quotient or remainder of a window's position. */
static bool is_window(struct ir_module *m, const struct ir_nest *n, ir_expr e, struct window *w) {
    ir_dim coefficient[MOST_INDICES], constant;
    if (!by_constant(e, &w->stride) || !ir_expr_affine(m, e->args[0], n->pars + n->reds, coefficient, &constant) ||
        !ir_dim_is_const(constant, &w->offset))
        return false;
    w->par = w->red = -1;
    for (int i = 0; i < n->pars + n->reds; i++) {
        int64_t c;
        if (!ir_dim_is_const(coefficient[i], &c) || (c != 0 && c != (i < n->pars ? 1 : -1)))
            return false;
        int *place = i < n->pars ? &w->par : &w->red;
        if (c != 0 && *place >= 0)
            return false;
        if (c != 0)
            *place = i;
    }
    return w->par >= 0 && w->red >= 0;
}

/* A reduced index from 0 to a constant, which it gives; else 0. */
static int64_t taps_of(const struct ir_nest *n, int red) {
    const struct ir_nest_index *x = &n->indices[red];
    return x->lo->kind == X_CONST && x->lo->value.i == 0 && x->hi->kind == X_CONST ? x->hi->value.i : 0;
}

static bool zero_outside(const struct ir_op *op, ir_expr load) {
    double outside;
    return !load->guarded ||
           (ir_expr_is_const(load->args[op->operands[load->index]->type.rank], &outside) && outside == 0);
}

static bool is_tap(const struct ir_op *op, ir_expr load, int d) {
    ir_expr at = load->args[d];
    struct ir_type t = op->operands[load->index]->type;
    int64_t extent;
    return d < t.rank && at->kind == X_INDEX && at->index >= op->nest.pars && zero_outside(op, load) &&
           ir_dim_is_const(t.dims[d], &extent) && extent == taps_of(&op->nest, at->index);
}

static void see(struct seen *s, ir_expr e) {
    const struct ir_nest *n = &s->op->nest;
    struct window w;
    int64_t stride;
    for (int i = 0; i < s->nodes; i++)
        if (s->node[i] == e)
            return;
    s->odd |= s->nodes == MOST_NODES;
    if (s->odd)
        return;
    s->node[s->nodes++] = e;
    if (e->kind == X_INDEX) {
        s->plain |= 1u << e->index;
    } else if (by_constant(e, &stride) && e->args[0]->kind == X_INDEX && e->args[0]->index < n->pars) {
        int p = e->args[0]->index;
        *(e->fn == FN_div ? &s->quotient : &s->remainder) |= 1u << p;
        s->odd |= s->stride[p] != 0 && s->stride[p] != stride;
        s->stride[p] = stride;
    } else if (is_window(s->m, n, e, &w)) {
        struct window *known = &s->window[w.par];
        s->odd |= known->stride != 0 && memcmp(known, &w, sizeof w) != 0;
        *known = w;
    } else {
        for (int i = 0; i < e->count; i++) {
            if (e->kind == X_LOAD && is_tap(s->op, e, i))
                s->tap |= 1u << e->args[i]->index;
            else
                see(s, e->args[i]);
        }
    }
}

/* The remainders of p by s that the factor is not zero for: those inside of a dimension that p % s alone runs through. */
static int64_t phases_inside(const struct ir_op *op, ir_expr factor, int p, int64_t stride) {
    ir_expr load = expr_strip_casts(factor);
    int64_t extent, s;
    if (load->kind != X_LOAD || !load->guarded || !zero_outside(op, load))
        return stride;
    struct ir_type t = op->operands[load->index]->type;
    for (int d = 0; d < t.rank; d++) {
        ir_expr at = load->args[d];
        if (by_constant(at, &s) && at->fn == FN_mod && at->args[0]->kind == X_INDEX && at->args[0]->index == p &&
            ir_dim_is_const(t.dims[d], &extent) && extent < stride)
            return extent;
    }
    return stride;
}

/* Whether `condition` says that the window's position is a multiple of its stride. */
static bool says_multiple(struct ir_module *m, const struct ir_nest *n, ir_expr condition, const struct window *w) {
    struct window x;
    if (condition->kind != X_FN)
        return false;
    if (condition->fn == FN_and)
        return says_multiple(m, n, condition->args[0], w) || says_multiple(m, n, condition->args[1], w);
    ir_expr zero = condition->args[1];
    return condition->fn == FN_eq && zero->kind == X_CONST && zero->dtype == I64 && zero->value.i == 0 &&
           condition->args[0]->fn == FN_mod && is_window(m, n, condition->args[0], &x) && memcmp(&x, w, sizeof x) == 0;
}

/* Whether the factor is 0 where the window's position is no multiple of its stride. */
static bool masked(struct ir_module *m, const struct ir_nest *n, ir_expr factor, const struct window *w) {
    double outside;
    ir_expr e = expr_strip_casts(factor);
    return e->kind == X_FN && e->fn == FN_where && ir_expr_is_const(e->args[2], &outside) && outside == 0 &&
           says_multiple(m, n, e->args[0], w);
}

/* p is a quotient to one factor and a remainder to the other. */
static bool is_apart(const struct seen *by, const struct ir_op *op, ir_expr body, int p, struct phase *phase) {
    uint32_t bit = 1u << p;
    int quotient = by[0].quotient & bit ? 0 : 1, remainder = 1 - quotient;
    int64_t stride = by[quotient].stride[p];
    if (!(by[quotient].quotient & bit) || by[quotient].remainder & bit || by[remainder].quotient & bit ||
        !(by[remainder].remainder & bit) || by[remainder].stride[p] != stride || by[0].window[p].stride ||
        by[1].window[p].stride)
        return false;
    *phase = (struct phase){stride, phases_inside(op, body->args[remainder], p, stride), 0, -1};
    return true;
}

/* p meets the taps of overlapping windows: one factor sees the windows, the other the taps. */
static bool is_overlapping(const struct seen *by, const struct ir_op *op, ir_expr body, int p, struct phase *phase) {
    uint32_t bit = 1u << p;
    int k = by[0].window[p].stride ? 0 : 1;
    struct window w = by[k].window[p];
    if (!w.stride || by[1 - k].window[p].stride ||
        (by[0].quotient | by[0].remainder | by[1].quotient | by[1].remainder) & bit)
        return false;
    uint32_t red = 1u << w.red;
    if ((by[0].plain | by[1].plain) & red || by[k].tap & red || !(by[1 - k].tap & red) ||
        !masked(by[k].m, &op->nest, body->args[k], &w))
        return false;
    *phase = (struct phase){w.stride, w.stride, w.offset, w.red};
    return true;
}

/* Whether the nest is such a product. */
static bool recognise(const struct ir_op *op, struct product *product) {
    const struct ir_nest *n = &op->nest;
    if (op->code != OP_nest || op->result_count != 1 || n->acc_count != 1 || n->reds == 0 || n->accs[0].op != RED_SUM ||
        n->results[0].base >= 0 || n->pars + n->reds > MOST_INDICES)
        return false;
    ir_expr body = expr_strip_casts(n->accs[0].body);
    if (body->kind != X_FN || body->fn != FN_mul)
        return false;
    struct seen by[2] = {{.m = op->parent->func->module, .op = op}, {.m = op->parent->func->module, .op = op}};
    uint32_t in_bounds = 0, taken = 0;
    for (int k = 0; k < 2; k++)
        see(&by[k], body->args[k]);
    for (int i = n->pars; i < n->pars + n->reds; i++)
        in_bounds |= nest_uses(n->indices[i].lo) | nest_uses(n->indices[i].hi);
    if (by[0].odd || by[1].odd)
        return false;
    bool any = false;
    product->whole = true;
    for (int p = 0; p < n->pars; p++) {
        struct phase *phase = &product->phase[p];
        int64_t extent;
        if ((by[0].plain | by[1].plain | in_bounds) >> p & 1 ||
            !(is_apart(by, op, body, p, phase) || is_overlapping(by, op, body, p, phase)) ||
            !ir_dim_is_const(n->indices[p].extent, &extent) || extent % phase->stride != 0 ||
            (phase->red >= 0 && (in_bounds | taken) >> phase->red & 1)) {
            *phase = (struct phase){1, 1, 0, -1};
            /* A window that stays as it is keeps its taps, so nobody else may have them. */
            for (int k = 0; k < 2; k++)
                taken |= by[k].window[p].stride ? 1u << by[k].window[p].red : 0;
            continue;
        }
        taken |= phase->red >= 0 ? 1u << phase->red : 0;
        product->whole &= phase->count == phase->stride;
        any = true;
    }
    return any;
}

/* ---- taking it apart ------------------------------------------------------------------------------------------------- */

/* Expressions of the nest in terms of the one by phases. */
struct translation {
    struct ir_module *m;
    const struct ir_op *op;
    const struct product *product;
    ir_expr index[MOST_INDICES];                       /* what an index is now */
    ir_expr quotient[MOST_INDICES], tap[MOST_INDICES]; /* q of a parallel index, j of a reduced one */
    ir_expr phase[MOST_INDICES];                       /* r */
    ir_expr from[MOST_NODES], to[MOST_NODES];
    int known;
};

static ir_expr number(struct translation *t, int64_t value) {
    return ir_const_int(t->m, I64, value);
}

/* (r + c) by s */
static ir_expr shifted(struct translation *t, enum scalar_fn fn, int p) {
    const struct phase *phase = &t->product->phase[p];
    return ir_fn2(t->m, fn, ir_fn2(t->m, FN_add, t->phase[p], number(t, phase->offset)), number(t, phase->stride));
}

static ir_expr translate(struct translation *t, ir_expr e);

static ir_expr translate_args(struct translation *t, ir_expr e) {
    ir_expr args[MOST_INDICES + 1];
    bool guard = false;
    for (int i = 0; i < e->count; i++) {
        args[i] = translate(t, e->args[i]);
        /* The last tap of some phases is none. */
        guard |= e->kind == X_LOAD && is_tap(t->op, e, i) && t->tap[e->args[i]->index];
    }
    if (guard && !e->guarded)
        return ir_load(t->m, e->index, e->dtype, e->count, args, ir_const_number(t->m, e->dtype, 0));
    return e->count ? ir_expr_with_args(t->m, e, args) : e;
}

static ir_expr translate(struct translation *t, ir_expr e) {
    const struct ir_nest *n = &t->op->nest;
    struct window w;
    for (int i = 0; i < t->known; i++)
        if (t->from[i] == e)
            return t->to[i];
    ir_expr to;
    if (e->kind == X_INDEX)
        to = t->index[e->index];
    else if (!is_window(t->m, n, e, &w) || t->product->phase[w.par].red != w.red)
        to = translate_args(t, e);
    else if (e->fn == FN_mod)
        to = number(t, 0);
    else
        to = ir_fn2(t->m, FN_add, ir_fn2(t->m, FN_sub, t->quotient[w.par], t->tap[w.red]), shifted(t, FN_div, w.par));
    if (t->known < MOST_NODES) {
        t->from[t->known] = e;
        t->to[t->known++] = to;
    }
    return to;
}

/* The nest with the indices p = s q + r; `whole` keeps what becomes of the sum, else it is the sum alone. */
static struct ir_value *by_phases(struct ir_builder *b, const struct ir_op *op, const struct product *product) {
    const struct ir_nest *n = &op->nest;
    struct ir_module *m = b->module;
    struct arena *a = &m->arena;
    struct ir_op *made = ir_op_new(b, OP_nest, op->operands, op->operand_count, 0);
    struct ir_nest *z = &made->nest;
    struct translation t = {.m = m, .op = op, .product = product};
    ir_dim dims[2 * MOST_INDICES];
    z->indices = ARENA_ARRAY(a, struct ir_nest_index, 2 * n->pars + n->reds);
    for (int p = 0; p < n->pars; p++) {
        const struct phase *phase = &product->phase[p];
        struct ir_nest_index *q = &z->indices[z->pars];
        t.index[p] = ir_index(m, z->pars);
        dims[z->pars++] = n->indices[p].extent;
        *q = n->indices[p];
        if (phase->stride == 1)
            continue;
        q[0].extent = dims[z->pars - 1] = ir_dim_div(m, q->extent, ir_dim_const(m, phase->stride));
        q[1] = (struct ir_nest_index){.name = arena_printf(a, "%s_phase", q->name),
                                      .extent = ir_dim_const(m, phase->count)};
        t.quotient[p] = t.index[p];
        t.phase[p] = ir_index(m, z->pars);
        t.index[p] = ir_fn2(m, FN_add, ir_fn2(m, FN_mul, t.quotient[p], number(&t, phase->stride)), t.phase[p]);
        dims[z->pars++] = q[1].extent;
    }
    z->reds = n->reds;
    for (int i = 0; i < n->reds; i++)
        t.index[n->pars + i] = ir_index(m, z->pars + i);
    for (int i = 0; i < n->reds; i++) {
        struct ir_nest_index *x = &z->indices[z->pars + i];
        *x = n->indices[n->pars + i];
        x->lo = nest_subst(m, x->lo, t.index, NULL, 0, false);
        x->hi = nest_subst(m, x->hi, t.index, NULL, 0, false);
    }
    for (int p = 0; p < n->pars; p++) {
        const struct phase *phase = &product->phase[p];
        if (phase->red < 0)
            continue;
        struct ir_nest_index *j = &z->indices[z->pars + phase->red - n->pars];
        int64_t taps = (taps_of(n, phase->red) + phase->stride - 1) / phase->stride;
        j->hi = number(&t, taps);
        j->extent = ir_dim_const(m, taps);
        t.tap[phase->red] = t.index[phase->red];
        t.index[phase->red] =
            ir_fn2(m, FN_add, ir_fn2(m, FN_mul, t.tap[phase->red], number(&t, phase->stride)), shifted(&t, FN_mod, p));
    }
    ir_expr body = translate(&t, n->accs[0].body);
    z->acc_count = 1;
    z->accs = ARENA_ARRAY(a, struct ir_acc, 1);
    z->accs[0] = (struct ir_acc){RED_SUM, ir_expr_simplify(m, z, made->operands, body)};
    ir_expr value =
        product->whole ? nest_subst(m, n->results[0].value, t.index, NULL, 0, false) : ir_acc(m, 0, body->dtype);
    z->results = ARENA_ARRAY(a, struct ir_nest_result, 1);
    z->results[0] = (struct ir_nest_result){.value = ir_expr_simplify(m, z, made->operands, value), .base = -1};
    made->adjoint = op->adjoint;
    struct ir_value *v = ir_op_result(made, ir_type_make(m, value->dtype, z->pars, dims));
    v->name = op->results[0]->name;
    return v;
}

struct reading {
    const struct phase *phase;
    const struct ir_nest *nest;
    int slot;
};

/* The sum as the nest of phases has it, and 0 of a phase that it has not. */
static ir_expr read_phase(struct ir_rewrite *r, ir_expr original, ir_expr e) {
    const struct reading *s = r->context;
    ir_expr at[2 * MOST_INDICES];
    int rank = 0;
    (void)original;
    if (e->kind != X_ACC)
        return NULL;
    for (int p = 0; p < s->nest->pars; p++) {
        ir_expr index = ir_index(r->module, p), stride = ir_const_int(r->module, I64, s->phase[p].stride);
        at[rank++] = s->phase[p].stride == 1 ? index : ir_fn2(r->module, FN_div, index, stride);
        if (s->phase[p].stride > 1)
            at[rank++] = ir_fn2(r->module, FN_mod, index, stride);
    }
    return ir_load(r->module, s->slot, e->dtype, rank, at, ir_const_number(r->module, e->dtype, 0));
}

/* op, which was the product, becomes what reads it. */
static void read_phases(struct ir_op *op, const struct phase *phase, struct ir_value *sum) {
    struct ir_nest *n = &op->nest;
    struct ir_module *m = op->parent->func->module;
    struct reading s = {phase, n, ir_op_add_operand(op, sum)};
    struct ir_rewrite r = {.module = m, .fn = read_phase, .context = &s};
    struct ir_nest_result *result = arena_copy(&m->arena, n->results, sizeof *result);
    result->value = ir_rewrite_expr(&r, n->results[0].value);
    ir_rewrite_free(&r);
    n->results = result;
    n->reds = n->acc_count = 0;
    for (int i = op->operand_count; i-- > 0;) /* the nest of phases has them all, and checks among them */
        if (!nest_loads_slot(op, i))
            nest_drop_slot(op, i);
}

/* op, which was the product, becomes another shape of it. */
static void become_reshape(struct ir_op *op, struct ir_value *product) {
    struct arena *a = &op->parent->func->module->arena;
    op->code = OP_reshape;
    op->operands = arena_copy(a, &product, sizeof product);
    op->operand_count = 1;
    op->nest = (struct ir_nest){0};
}

static void visit(struct ir_op *op, void *context) {
    bool *changed = context;
    struct product product;
    if (!recognise(op, &product))
        return;
    struct ir_builder b = {op->parent->func->module, op->parent->func, op->parent, op, op->span};
    struct ir_value *v = by_phases(&b, op, &product);
    if (product.whole)
        become_reshape(op, v);
    else
        read_phases(op, product.phase, v);
    *changed = true;
}

bool pass_polyphase(struct pass_context *c) {
    struct ir_module *m = c->module;
    bool any = false;
    if (c->options->cudnn) /* that takes such a gradient as a whole */
        return false;
    for (int i = 0; i <= m->func_count; i++) {
        struct ir_func *f = i < m->func_count ? m->funcs[i] : m->init;
        bool changed = false;
        if (f)
            ir_walk_ops(f->body, visit, &changed);
        if (changed)
            simplify_fused(f);
        any |= changed;
    }
    return any;
}
