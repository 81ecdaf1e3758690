/* Checks of indices and conditions: recorded in the body that is open, proven where possible, else a nest in front of what relies on them. */
#include <string.h>

#include "frontend/elab_indices.h"

/* A check's expression as one of a nest over everything that it depends on. */
struct check_domain {
    struct arena scratch;
    struct elab_used used;
    struct elab_renumber renumber;
    struct ir_rewrite rewrite;
    struct ir_nest nest;
    ir_expr x;
};

static void open_check(struct elab *e, const struct pending_check *c, bool counters, struct check_domain *d) {
    memset(d, 0, sizeof *d);
    d->used = (struct elab_used){.e = e, .index = elab_used_indices(e, &d->scratch), .counters = counters};
    ir_expr what = c->index ? c->index : c->condition;
    ir_expr_walk(what, elab_note_index, &d->used);
    elab_renumber_start(e, &d->renumber, &d->rewrite, &d->scratch);
    elab_domain(e, d->used.index, &d->renumber, &d->rewrite, &d->nest, &e->module->arena);
    d->x = ir_rewrite_expr(&d->rewrite, what);
}

static void close_check(struct check_domain *d) {
    ir_rewrite_free(&d->rewrite);
    arena_free(&d->scratch);
}

/* Whether a check surely holds (INSIDE) or fails (OUTSIDE). Loop counters count as indices here. */
enum inside elab_prove_check(struct elab *e, const struct pending_check *c) {
    struct check_domain d;
    open_check(e, c, true, &d);
    enum inside inside = UNKNOWN;
    if (c->index) {
        inside = ir_index_inside(e->module, &d.nest, d.x, c->extent);
    } else {
        double number;
        if (ir_expr_is_const(ir_expr_simplify(e->module, &d.nest, d.renumber.operands, d.x), &number))
            inside = number != 0 ? INSIDE : OUTSIDE;
    }
    bool sure = true; /* a branch or an open loop may never run; a counted one is part of the domain */
    for (struct frame *f = e->frame; f; f = f->outer)
        sure = sure && f->kind == FRAME_FOR;
    if (inside == OUTSIDE && !sure)
        inside = UNKNOWN;
    close_check(&d);
    return inside;
}

/* `all` of the check over its whole domain, and the check; gives the token. */
static struct ir_value *emit_check(struct elab *e, const struct pending_check *c) {
    struct ir_module *m = e->module;
    struct check_domain d;
    open_check(e, c, false, &d);
    struct ir_nest nest = d.nest;
    ir_expr x = d.x, condition = x;
    if (c->index)
        condition = ir_fn2(m, FN_and, ir_fn2(m, FN_le, ir_const_int(m, I64, 0), x),
                           ir_fn2(m, FN_lt, x, ir_dim_expr(m, c->extent)));
    for (int i = 0; i < nest.pars; i++) { /* what was parallel is reduced over too */
        nest.indices[i].lo = ir_const_int(m, I64, 0);
        nest.indices[i].hi = ir_dim_expr(m, nest.indices[i].extent);
    }
    nest.reds += nest.pars;
    nest.pars = 0;
    struct span saved = e->b.span;
    const char *hint;
    e->b.span = elab_user_span(e, c->span, &hint);
    struct ir_op *op = ir_op_new(&e->b, OP_nest, d.renumber.operands, d.renumber.count, 0);
    for (struct body *b = e->body; b; b = b->outer)
        for (int i = 0; i < b->tokens.n; i++)
            ir_op_add_operand(op, b->tokens.at[i]);
    if (nest.reds > 0) {
        nest.acc_count = 1;
        nest.accs = ARENA_NEW(&m->arena, struct ir_acc);
        nest.accs[0] = (struct ir_acc){.op = RED_ALL, .body = condition};
    }
    nest.results = ARENA_NEW(&m->arena, struct ir_nest_result);
    nest.results[0] = (struct ir_nest_result){.value = nest.reds > 0 ? ir_acc(m, 0, BOOL) : condition, .base = -1};
    op->nest = nest;
    struct ir_value *ok = ir_op_result(op, ir_type_make(m, BOOL, 0, NULL));
    int line, column;
    span_position(c->span, &line, &column);
    const char *path = c->span.source ? c->span.source->path : "?";
    struct ir_value *token =
        ir_build_check(&e->b, ok, arena_printf(&m->arena, "%s:%d:%d: %s", path, line, column, c->message));
    e->b.span = saved;
    close_check(&d);
    return token;
}

/* Where i + offset is checked to be below the extent, i has a largest value, whatever its bounds are made of. The bound says so itself: of what
 * comes behind the check, not all waits for it (gradients do not). */
static void note_checked(struct elab *e, const struct pending_check *c) {
    struct ir_module *m = e->module;
    ir_expr i = c->index;
    double number, sign = 1;
    ir_dim end = c->extent;
    if (i->kind == X_FN && (i->fn == FN_add || i->fn == FN_sub)) {
        int constant = i->fn == FN_add && ir_expr_is_const(i->args[0], &number) ? 0 : 1;
        sign = i->fn == FN_add ? -1 : 1;
        if (!ir_expr_is_const(i->args[constant], &number))
            return;
        end = ir_dim_add(m, end, ir_dim_const(m, (int64_t)(sign * number)));
        i = i->args[1 - constant];
    }
    if (i->kind != X_INDEX)
        return;
    struct elab_index *x = &e->indices.at[i->index];
    end = ir_dim_max(m, end, ir_dim_const(m, 0));
    if (x->reduction && x->extent != end && ir_dim_le(m, end, x->extent)) {
        x->extent = end;
        x->hi = ir_fn2(m, FN_min, x->hi, ir_dim_expr(m, end));
    }
}

/* Decides a check statically or emits it; the token is NULL if nothing is left to check. */
static struct ir_value *settle_check(struct elab *e, const struct pending_check *c) {
    struct ir_value *token;
    switch (elab_prove_check(e, c)) {
    case INSIDE: return NULL;
    case OUTSIDE: {
        struct diagnostic *d = elab_error(e, c->index ? E_index_outside : c->code, c->span, "%s", c->message);
        if (c->index)
            elab_help(e, d, "`x[…] else 0` says what the value outside is; `where` does not guard an index");
        return NULL;
    }
    default:
        if (!c->index)
            return emit_check(e, c);
        if (e->options->unchecked)
            return NULL;
        token = emit_check(e, c);
        note_checked(e, c);
        return token;
    }
}

/* Every check recorded so far in the open bodies, outermost first. */
void elab_body_settle(struct elab *e, struct body *b) {
    if (!b)
        return;
    elab_body_settle(e, b->outer);
    int n = b->checks.n;
    b->checks.n = 0;
    for (int i = 0; i < n; i++) {
        struct pending_check c = b->checks.at[i];
        struct ir_value *token = settle_check(e, &c);
        if (token)
            VEC_PUSH(e->arena, b->tokens, token);
    }
}

struct body *elab_body_open(struct elab *e) {
    struct body *b = ARENA_NEW(e->arena, struct body);
    b->outer = e->body;
    e->body = b;
    return b;
}

void elab_body_close(struct elab *e, struct body *b) {
    elab_body_settle(e, b);
    e->body = b->outer;
}

void elab_load_checks(struct elab *e, struct ir_value *v, const ir_expr *at, struct span span, const char *what) {
    for (int d = 0; d < v->type.rank; d++) {
        int64_t i, n;
        double number;
        bool index_known = ir_expr_is_const(at[d], &number);
        i = (int64_t)number;
        if (index_known && ir_dim_is_const(v->type.dims[d], &n) && i >= 0 && i < n)
            continue;
        const char *message = arena_printf(&e->module->arena, "index %sleaves axis %d of %s, which has %s entries",
                                           index_known ? arena_printf(e->arena, "%lld ", (long long)i) : "", d, what,
                                           dim_text(e, v->type.dims[d]));
        struct pending_check c = {.index = at[d], .extent = v->type.dims[d], .span = span, .message = message};
        VEC_PUSH(e->arena, e->body->checks, c);
    }
}
