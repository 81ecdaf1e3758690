/* Frames of the differentiate pass: bringing forward values to where the adjoint code runs, and summing adjoints.
 *
 * A forward value is used where it dominates. Inside a reversed loop it is either recomputed (constants, the counter, and
 * cheap maps of what is at hand) or saved: the forward loop carries a stack with one entry for each iteration, written in
 * place, and the reversed loop reads its entry. A value inside a branch becomes another result of the `if`. Both rules
 * apply to the stack itself again, so nested loops give stacks of stacks.
 *
 * Adjoints of outer values inside a reversed loop are carried by it, so that an element update of one stays in place.
 */
#include <string.h>

#include "passes/differentiate_internal.h"

enum { RECOMPUTE_DEPTH = 6 };

struct ir_value *value_map_get(const struct value_map *m, const struct ir_value *v) {
    return v->id < m->cap ? m->at[v->id] : NULL;
}

void value_map_set(struct grad *g, struct value_map *m, const struct ir_value *v, struct ir_value *to) {
    if (v->id >= m->cap) {
        int cap = g->func->value_count * 3 / 2 + 64;
        struct ir_value **at = ARENA_ARRAY(&g->scratch, struct ir_value *, cap);
        if (m->cap)
            memcpy(at, m->at, sizeof *at * (size_t)m->cap);
        m->at = at;
        m->cap = cap;
    }
    m->at[v->id] = to;
}

struct ir_region *grad_home(const struct ir_value *v) {
    return v->op ? v->op->parent : v->region;
}

struct ir_value *grad_zeros(struct ir_builder *b, struct ir_type t) {
    return ir_build_map(b, t.dtype, t.rank, t.dims, ir_const_number(b->module, t.dtype, 0), NULL, 0);
}

/* ---- loops with more carried values ------------------------------------------------------------------------------- */

static void append_operand(struct ir_module *m, struct ir_op *op, struct ir_value *v) {
    struct ir_value **all = ARENA_ARRAY(&m->arena, struct ir_value *, op->operand_count + 1);
    if (op->operand_count)
        memcpy(all, op->operands, sizeof *all * (size_t)op->operand_count);
    all[op->operand_count++] = v;
    op->operands = all;
}

void region_add_yield(struct ir_module *m, struct ir_region *r, struct ir_value *v) {
    struct ir_value **all = ARENA_ARRAY(&m->arena, struct ir_value *, r->yield_count + 1);
    if (r->yield_count)
        memcpy(all, r->yields, sizeof *all * (size_t)r->yield_count);
    all[r->yield_count++] = v;
    r->yields = all;
}

struct ir_value *loop_add_carried(struct grad *g, struct ir_op *loop, struct ir_value *init, const char *name) {
    append_operand(g->m, loop, init);
    struct ir_value *result = ir_op_result(loop, init->type);
    result->name = name;
    if (loop->code == OP_while)
        ir_region_arg(loop->regions[0], init->type, name);
    return ir_region_arg(loop->regions[loop->code == OP_while ? 1 : 0], init->type, name);
}

/* ---- availability ------------------------------------------------------------------------------------------------- */

static struct frame *frame_of(struct grad *g, const struct ir_region *home) {
    for (struct frame *f = g->frame; f; f = f->outer)
        if (f->forward == home)
            return f;
    return NULL;
}

/* Whether it costs about as little as a load. */
static bool cheap_expr(ir_expr e) {
    switch (e->kind) {
    case X_FN:
        if (e->fn >= FN_exp && e->fn <= FN_atanh)
            return false;
        if (e->fn == FN_pow || e->fn == FN_div || e->fn == FN_mod)
            if (dtype_is_float(e->dtype))
                return false;
        break;
    case X_ACC: return false;
    default: break;
    }
    for (int i = 0; i < e->count; i++)
        if (!cheap_expr(e->args[i]))
            return false;
    return true;
}

/* Values that are a view of others or simple arithmetic, element for element no larger than what they are made from. */
static bool recomputable(struct grad *g, struct ir_value *v, int depth) {
    if (ir_region_contains(grad_home(v), g->b.region))
        return true;
    struct frame *f = frame_of(g, grad_home(v));
    if (!f || depth == 0)
        return false;
    if (value_map_get(&f->usable, v))
        return true;
    if (!v->op)
        return f->kind == FRAME_LOOP && f->forward_op->code == OP_for && v->index == 0;
    struct ir_op *op = v->op;
    if (op->code == OP_const)
        return true;
    if (op->code == OP_nest) {
        if (op->nest.reds || op->result_count != 1 || op->nest.results[0].base >= 0 ||
            !cheap_expr(op->nest.results[0].value))
            return false;
    } else if (op->code != OP_reshape) {
        return false;
    }
    for (int i = 0; i < op->operand_count; i++)
        if (!(op->operands[i]->op && op->operands[i]->op->code == OP_check) &&
            !recomputable(g, op->operands[i], depth - 1))
            return false;
    return true;
}

bool grad_available(struct grad *g, struct ir_value *v) {
    return recomputable(g, v, RECOMPUTE_DEPTH);
}

bool grad_in_loop(const struct grad *g) {
    for (struct frame *f = g->frame; f; f = f->outer)
        if (f->kind == FRAME_LOOP)
            return true;
    return false;
}

/* ---- saving ------------------------------------------------------------------------------------------------------- */

/* The rank 0 nest `make(operand)`. */
static struct ir_value *scalar_nest(struct ir_builder *b, ir_expr body, struct ir_value **operands, int n) {
    return ir_build_map(b, body->dtype, 0, NULL, body, operands, n);
}

static struct ir_value *forward_position(struct grad *g, struct frame *f) {
    if (!f->forward_position) {
        struct ir_value *index = f->forward->args[0];
        struct ir_builder b = {g->m, g->func, f->forward, f->forward->first, f->forward_op->span};
        struct ir_value *operands[2] = {index, f->forward_op->operands[0]};
        ir_expr body = ir_fn2(g->m, FN_sub, ir_load(g->m, 0, I64, 0, NULL, NULL), ir_load(g->m, 1, I64, 0, NULL, NULL));
        f->forward_position = scalar_nest(&b, body, operands, 2);
    }
    return f->forward_position;
}

/* Run-time sizes found inside the loop do not exist outside it: its largest value stands for each. */
struct outside {
    struct grad *g;
    const struct ir_region *region;
    ir_dim *map;
    bool any;
};

static void note_symbol(const struct ir_symbol *s, void *context) {
    struct outside *o = context;
    if (s->op && (s->op->parent == o->region || ir_region_contains(o->region, s->op->parent))) {
        o->any = true;
        o->map[s->id] = ir_dim_const(o->g->m, s->hi);
    }
}

static ir_dim dim_outside(struct grad *g, ir_dim d, const struct ir_region *region, bool *changed) {
    struct outside o = {g, region, ARENA_ARRAY(&g->scratch, ir_dim, g->m->symbol_count), false};
    ir_dim_symbols(d, note_symbol, &o);
    *changed |= o.any;
    return o.any ? ir_dim_subst(g->m, d, o.map) : d;
}

/* stack[position, i...] as an expression over indices 0 .. rank. Slots: 0 stack, 1 position, … */
static ir_expr stack_load(struct ir_module *m, struct ir_type t) {
    ir_expr at[64];
    at[0] = ir_load(m, 1, I64, 0, NULL, NULL);
    for (int i = 0; i < t.rank; i++)
        at[i + 1] = ir_index(m, i);
    return ir_load(m, 0, t.dtype, t.rank + 1, at, NULL);
}

static struct ir_nest_index *plain_indices(struct grad *g, struct ir_type t) {
    struct ir_nest_index *x = ARENA_ARRAY(&g->m->arena, struct ir_nest_index, t.rank);
    for (int i = 0; i < t.rank; i++)
        x[i] = (struct ir_nest_index){.name = arena_printf(&g->m->arena, "i%d", i), .extent = t.dims[i]};
    return x;
}

static struct ir_value *save_in_loop(struct grad *g, struct frame *f, struct ir_value *v) {
    struct ir_op *loop = f->forward_op;
    struct ir_module *m = g->m;
    bool changed = false;
    ir_dim dims[64] = {f->trips};
    for (int i = 0; i < v->type.rank; i++)
        dims[i + 1] = dim_outside(g, v->type.dims[i], f->forward, &changed);
    if (changed && !g->failed) {
        g->failed = true;
        struct diagnostic *e = diag_error(m->diag, E_grad_loop_size, g->op->span,
                                          "the gradient needs a value whose size is found inside the loop");
        diag_note(m->diag, e, loop->span, "the loop");
        diag_help(m->diag, e, "take a slice of a static length, `x[a:a + 4]`, and mask what lies beyond its end");
    }
    struct ir_builder outer = {m, g->func, loop->parent, loop, loop->span};
    struct ir_value *zeros = grad_zeros(&outer, ir_type_make(m, v->type.dtype, v->type.rank + 1, dims));
    const char *name = v->name ? arena_printf(&m->arena, "%s_saved", v->name) : "saved";
    struct ir_value *stack = loop_add_carried(g, loop, zeros, name);
    struct ir_value *position = forward_position(g, f);

    struct ir_builder b = {m, g->func, f->forward, NULL, loop->span};
    struct ir_value *operands[3] = {stack, position, v};
    struct ir_op *op = ir_op_new(&b, OP_nest, operands, 3, 0);
    struct ir_nest *n = &op->nest;
    n->pars = v->type.rank;
    n->indices = plain_indices(g, v->type);
    n->results = ARENA_NEW(&m->arena, struct ir_nest_result);
    ir_expr *target = ARENA_ARRAY(&m->arena, ir_expr, v->type.rank + 1);
    target[0] = ir_load(m, 1, I64, 0, NULL, NULL);
    for (int i = 0; i < v->type.rank; i++)
        target[i + 1] = ir_index(m, i);
    n->results[0] = (struct ir_nest_result){.value = ir_load(m, 2, v->type.dtype, v->type.rank, target + 1, NULL),
                                            .base = 0,
                                            .combine = COMBINE_SET,
                                            .target = target};
    struct ir_value *next = ir_op_result(op, stack->type);
    next->name = name;
    region_add_yield(m, f->forward, next);
    return loop->results[loop->result_count - 1];
}

/* A value made inside one side of an `if` as another result of it; the other side gives zeros. */
static struct ir_value *save_in_branch(struct grad *g, struct frame *f, struct ir_value *v) {
    struct ir_op *op = f->forward_op;
    for (int side = 0; side < 2; side++) {
        struct ir_value *y = v;
        if (op->regions[side] != f->forward) {
            struct ir_builder b = {g->m, g->func, op->regions[side], NULL, op->span};
            y = grad_zeros(&b, v->type);
        }
        region_add_yield(g->m, op->regions[side], y);
    }
    struct ir_value *r = ir_op_result(op, v->type);
    r->name = v->name;
    return r;
}

/* Runs as if in frame f: its own place is the end of its prologue. */
struct place {
    struct ir_builder b;
    struct frame *frame;
};

static struct place enter(struct grad *g, struct frame *f) {
    struct place old = {g->b, g->frame};
    g->frame = f;
    g->b.region = f->reverse;
    g->b.before = f->prologue ? f->prologue->next : f->reverse->first;
    return old;
}

static void leave(struct grad *g, struct frame *f, struct place old, struct ir_value *made) {
    if (made->op && made->op->parent == f->reverse) {
        /* what was made is the last before the insertion point */
        f->prologue = g->b.before ? g->b.before->prev : f->reverse->last;
    }
    g->b = old.b;
    g->frame = old.frame;
}

static struct ir_value *clone_cheap(struct grad *g, struct ir_op *op) {
    int n = op->operand_count;
    struct ir_value **operands = ARENA_ARRAY(&g->scratch, struct ir_value *, n);
    for (int i = 0; i < n; i++) {
        bool order_only = op->operands[i]->op && op->operands[i]->op->code == OP_check;
        /* the check was made by the forward run; any value at hand keeps the slots' numbers */
        operands[i] = order_only ? NULL : grad_use(g, op->operands[i]);
    }
    for (int i = 0; i < n; i++)
        if (!operands[i])
            operands[i] = ir_build_const(&g->b, ir_type_make(g->m, BOOL, 0, NULL), &(bool){true});
    /* Operands may have become equal (two saved values never do): slots stay as they are. */
    struct ir_op *copy = ir_op_new(&g->b, op->code, operands, n, 0);
    if (op->code == OP_nest)
        copy->nest = op->nest;
    else if (op->code == OP_const)
        copy->constant = op->constant;
    for (int i = 0; i < op->result_count; i++)
        ir_op_result(copy, op->results[i]->type)->name = op->results[i]->name;
    return copy->results[0];
}

struct ir_value *grad_use(struct grad *g, struct ir_value *v) {
    struct ir_region *home = grad_home(v);
    if (ir_region_contains(home, g->b.region))
        return v;
    struct frame *f = frame_of(g, home);
    if (!f) { /* a broken invariant: the verifier names the place */
        g->failed = true;
        return v;
    }
    struct ir_value *known = value_map_get(&f->usable, v);
    if (known)
        return known;
    bool again = grad_available(g, v);
    struct ir_value *result;
    if (f->kind == FRAME_BRANCH && !again) {
        struct ir_value *extra = save_in_branch(g, f, v);
        struct place old = {g->b, g->frame};
        g->frame = f->outer;
        g->b.region = f->reverse->op->parent; /* the adjoint `if` stands there */
        g->b.before = f->reverse->op;
        result = grad_use(g, extra);
        g->b = old.b;
        g->frame = old.frame;
    } else if (again && v->op) {
        struct place old = enter(g, f);
        result = clone_cheap(g, v->op);
        leave(g, f, old, result);
    } else if (again) { /* the counter of a for */
        struct place old = enter(g, f);
        struct ir_value *operands[2] = {f->position, grad_use(g, f->forward_op->operands[0])};
        ir_expr e = ir_fn2(g->m, FN_add, ir_load(g->m, 0, I64, 0, NULL, NULL), ir_load(g->m, 1, I64, 0, NULL, NULL));
        result = scalar_nest(&g->b, e, operands, 2);
        leave(g, f, old, result);
    } else {
        struct ir_value *stack = save_in_loop(g, f, v);
        struct place old = enter(g, f);
        struct ir_value *operands[2] = {grad_use(g, stack), f->position};
        result = ir_build_map(&g->b, v->type.dtype, v->type.rank, v->type.dims, stack_load(g->m, v->type), operands, 2);
        result->name = v->name;
        leave(g, f, old, result);
    }
    value_map_set(g, &f->usable, v, result);
    return result;
}

/* ---- adjoints ----------------------------------------------------------------------------------------------------- */

static void push_outer(struct grad *g, struct frame *f, struct ir_value *v) {
    if (f->outer_count == f->outer_cap)
        f->outer_values = vec_grow(&g->scratch, f->outer_values, sizeof *f->outer_values, &f->outer_cap);
    f->outer_values[f->outer_count++] = v;
}

static bool is_outer(const struct frame *f, const struct ir_value *v) {
    return f->kind != FRAME_TOP && grad_home(v) != f->forward;
}

static struct ir_value *adjoint_in(struct grad *g, struct frame *f, struct ir_value *v) {
    struct ir_value *known = value_map_get(&f->adjoint, v);
    if (known || !is_outer(f, v))
        return known;
    struct ir_value *outside = adjoint_in(g, f->outer, v);
    if (f->kind != FRAME_LOOP)
        return outside;
    if (!outside) {
        struct ir_builder b = {g->m, g->func, f->reverse_op->parent, f->reverse_op, g->b.span};
        outside = grad_zeros(&b, v->type);
    }
    struct ir_value *arg = loop_add_carried(g, f->reverse_op, outside, v->name);
    push_outer(g, f, v);
    value_map_set(g, &f->adjoint, v, arg);
    return arg;
}

struct ir_value *grad_adjoint(struct grad *g, struct ir_value *v) {
    return adjoint_in(g, g->frame, v);
}

void grad_set_adjoint(struct grad *g, struct ir_value *v, struct ir_value *to) {
    struct frame *f = g->frame;
    if (is_outer(f, v) && !value_map_get(&f->adjoint, v)) {
        if (f->kind == FRAME_LOOP)
            adjoint_in(g, f, v);
        else
            push_outer(g, f, v);
    }
    value_map_set(g, &f->adjoint, v, to);
}

void grad_add(struct grad *g, struct ir_value *v, struct ir_value *contribution) {
    if (!grad_varied(g, v))
        return;
    struct ir_value *sum = grad_adjoint(g, v);
    if (sum) {
        struct ir_module *m = g->m;
        int rank = v->type.rank;
        ir_expr at[64];
        for (int i = 0; i < rank; i++)
            at[i] = ir_index(m, i);
        struct ir_value *operands[2] = {sum, contribution};
        int slot = sum == contribution ? 0 : 1;
        ir_expr e = ir_fn2(m, FN_add, ir_load(m, 0, v->type.dtype, rank, at, NULL),
                           ir_load(m, slot, v->type.dtype, rank, at, NULL));
        contribution = ir_build_map(&g->b, v->type.dtype, rank, v->type.dims, e, operands, slot + 1);
    }
    grad_set_adjoint(g, v, contribution);
}
