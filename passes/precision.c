/* Mixed precision: which values are kept in 16 bits (--precision bf16 or f16), decided from what the nests compute, never from the
 * names of operators.
 *
 * The obvious way, the field's "autocast", types each operator of the forward program by a list and lets the gradients follow.
 * Then the adjoint of a value of 16 bits has 16 bits, too: a weight used at every step of a loop sums its gradient in bf16, and a
 * gradient that somebody wrote by hand escapes the list. So this pass comes behind `differentiate`, where forward, backward and update
 * are nests alike, and behind `fuse`, which has decided what is in memory at all: within a nest all is f32, as before; only what is
 * stored between nests changes its type. So a saved activation is of 16 bits, and a sum is not.
 *
 *   product   a sum of products of two loads, at least one of them used by several results: matrix products, convolutions, their
 *             gradients. It reads both factors in 16 bits and sums in f32: sum(f32(a[..]) * f32(b[..])). A factor that must stay f32 (a
 *             parameter, an input) is rounded once, right behind where it comes from.
 *   chain     what follows from a product element by element, also by a maximum over windows: stored in 16 bits.
 *   f32       sums and what is computed from them alone (means, variances, norms, losses), results of exponentials and logarithms that no
 *             product reads, whatever an iteration of a loop carries on, sums over iterations, and all that goes
 *             element by element into a buffer or a result: gradients on their way to an update, the update, predictions.
 *
 * Values that share memory must agree: views, versions of one tensor, what a loop carries. They are classes of a union-find (Tarjan), and
 * the properties above are flags of classes, propagated along nests until nothing changes: from operands to results, but for `exact`, which
 * goes from results to operands. */
#include <math.h>

#include "ir/bytes.h"
#include "passes/nest_edit.h"
#include "passes/passes.h"

enum {
    FIXED = 1,     /* keeps its type */
    EXACT = 2,     /* goes element by element into a buffer or a result */
    STATISTIC = 4, /* a sum that is no product, or computed from one at the same indices */
    CHAIN = 8,     /* computed from a product element by element */
    WIDE = 16,     /* of an exponential or the like, or too large for the type */
    FACTOR = 32,   /* a product reads it as a factor */
    OTHER = 64,    /* something else reads it */
    LOW = 128,     /* decided: it becomes 16 bits */
};

struct narrowing {
    struct ir_func *func;
    struct ir_module *m;
    struct arena scratch;
    enum dtype low;
    int count;              /* values when the pass began */
    int *parent;            /* [count] of the union-find */
    uint8_t *flags;         /* [count] of roots */
    struct ir_value **copy; /* [count] rounded to 16 bits; NULL: not made */
    struct precision_counts done;
    bool changed;
};

/* ---- classes ------------------------------------------------------------------------------------------------------ */

static int root(struct narrowing *p, const struct ir_value *v) {
    int i = v->id;
    while (p->parent[i] != i)
        i = p->parent[i] = p->parent[p->parent[i]];
    return i;
}

static bool has(struct narrowing *p, const struct ir_value *v, int flags) {
    return p->flags[root(p, v)] & flags;
}

static void mark(struct narrowing *p, const struct ir_value *v, int flags) {
    int r = root(p, v);
    if ((p->flags[r] | flags) == p->flags[r])
        return;
    p->flags[r] |= (uint8_t)flags;
    p->changed = true;
}

static void join(struct narrowing *p, const struct ir_value *a, const struct ir_value *b) {
    int x = root(p, a), y = root(p, b);
    if (x == y)
        return;
    p->parent[y] = x;
    p->flags[x] |= p->flags[y];
}

static bool may_change(const struct ir_value *v) {
    return v->type.dtype == F32 && v->type.rank > 0;
}

static double rounded(struct narrowing *p, double value) {
    double low = 0;
    ir_expr_is_const(ir_const_float(p->m, p->low, value), &low);
    return low;
}

static bool representable(struct narrowing *p, double value) {
    return isnan(value) || rounded(p, value) == value;
}

/* Whether a constant, or a tensor of one number, is the same in 16 bits. */
static bool filled_fits(struct narrowing *p, const struct ir_value *v) {
    if (v->op->code == OP_nest)
        return representable(p, v->op->nest.results[v->index].value->value.f);
    int64_t n = ir_type_bytes_upper(v->type) / 4;
    const char *data = v->op->constant.data;
    for (int64_t i = 0; i < n; i++)
        if (!representable(p, ir_bytes_load_float(F32, data + 4 * i)))
            return false;
    return true;
}

/* What a loop carries as a tensor that it fills element by element is a store like any other; all else would be rounded again and again. */
static bool fills(const struct ir_value *yield, const struct ir_value *arg) {
    const struct ir_value *v = yield;
    while (v != arg) {
        const struct ir_op *op = v->op;
        if (!op)
            return false;
        if (op->code == OP_nest && op->nest.results[v->index].base >= 0 &&
            op->nest.results[v->index].combine == COMBINE_SET)
            v = op->operands[op->nest.results[v->index].base];
        else if (op->code == OP_reshape)
            v = op->operands[0];
        else if (op->code == OP_for)
            v = op->operands[2 + v->index];
        else if (op->code == OP_while)
            v = op->operands[v->index];
        else
            return false;
    }
    return true;
}

/* A tensor of one number: loops and updates that begin with it need not agree, since each can begin with one of its own type. */
static bool is_filled(const struct ir_value *v) {
    const struct ir_op *op = v->op;
    return op && may_change(v) &&
           (op->code == OP_const || (op->code == OP_nest && op->nest.reds == 0 && op->nest.results[v->index].base < 0 &&
                                     op->nest.results[v->index].value->kind == X_CONST));
}

static void join_start(struct narrowing *p, const struct ir_value *v, const struct ir_value *start) {
    if (!is_filled(start))
        join(p, v, start);
    else if (!filled_fits(p, start))
        mark(p, v, FIXED);
}

static void join_carried(struct narrowing *p, struct ir_op *op) {
    int skip = op->code == OP_for ? 2 : 0, index = op->code == OP_for;
    struct ir_region *body = op->regions[op->region_count - 1];
    for (int i = 0; i < op->result_count; i++) {
        struct ir_value *arg = body->args[index + i];
        join_start(p, arg, op->operands[skip + i]);
        join(p, op->results[i], arg);
        join(p, op->results[i], body->yields[i]);
        if (op->code == OP_while)
            join(p, op->results[i], op->regions[0]->args[i]);
        if (!fills(body->yields[i], arg))
            mark(p, arg, FIXED);
    }
}

struct nest_look {
    struct narrowing *p;
    const struct ir_op *op;
};

/* A value outside that 16 bits cannot hold, a load of its bits: then it stays. */
static void look_at_load(ir_expr e, void *context) {
    struct nest_look *s = context;
    double value;
    if (e->kind == X_BITCAST && e->args[0]->kind == X_LOAD)
        mark(s->p, s->op->operands[e->args[0]->index], FIXED);
    if (e->kind != X_LOAD || !e->guarded)
        return;
    if (!ir_expr_is_const(e->args[e->count - 1], &value) || !representable(s->p, value))
        mark(s->p, s->op->operands[e->index], FIXED);
}

static void classify(struct ir_op *op, void *context) {
    struct narrowing *p = context;
    struct nest_look look = {p, op};
    switch (op->code) {
    case OP_nest:
        nest_walk(op, look_at_load, &look);
        for (int i = 0; i < op->result_count; i++) {
            const struct ir_nest_result *r = &op->nest.results[i];
            if (r->base < 0)
                continue;
            join_start(p, op->results[i], op->operands[r->base]);
            if (r->combine == COMBINE_ADD)
                mark(p, op->results[i], FIXED);
        }
        break;
    case OP_const:
        if (may_change(op->results[0]) && !filled_fits(p, op->results[0]))
            mark(p, op->results[0], FIXED);
        break;
    case OP_reshape: join(p, op->results[0], op->operands[0]); break;
    case OP_for:
    case OP_while: join_carried(p, op); break;
    case OP_if:
        for (int i = 0; i < op->result_count; i++)
            for (int k = 0; k < 2; k++)
                join(p, op->results[i], op->regions[k]->yields[i]);
        break;
    default:
        for (int i = 0; i < op->operand_count; i++)
            mark(p, op->operands[i], FIXED | EXACT);
        for (int i = 0; i < op->result_count; i++)
            mark(p, op->results[i], FIXED);
    }
}

/* ---- what a nest computes ----------------------------------------------------------------------------------------- */

/* The load under changes of sign, constant factors and conversions to f32; NULL: it is something else. */
static ir_expr factor(ir_expr e) {
    double value;
    if (e->kind == X_LOAD)
        return e->dtype == F32 || e->dtype == BF16 || e->dtype == F16 ? e : NULL;
    if (e->kind == X_CAST && e->dtype == F32)
        return factor(e->args[0]);
    if (e->kind != X_FN || e->dtype != F32)
        return NULL;
    if (e->fn == FN_neg)
        return factor(e->args[0]);
    if ((e->fn == FN_mul || e->fn == FN_div) && ir_expr_is_const(e->args[1], &value))
        return factor(e->args[0]);
    if (e->fn == FN_mul && ir_expr_is_const(e->args[0], &value))
        return factor(e->args[1]);
    return NULL;
}

static void see_index(ir_expr e, void *context) {
    if (e->kind == X_INDEX && e->index < 64)
        *(uint64_t *)context |= (uint64_t)1 << e->index;
}

/* The parallel indices that matter: of more than one value. */
static uint64_t wide_indices(const struct ir_nest *n) {
    uint64_t all = 0;
    int64_t extent;
    for (int i = 0; i < n->pars && i < 64; i++)
        if (!ir_dim_is_const(n->indices[i].extent, &extent) || extent != 1)
            all |= (uint64_t)1 << i;
    return all;
}

static bool uses_all(const struct ir_nest *n, ir_expr e) {
    uint64_t used = 0, all = wide_indices(n);
    ir_expr_walk(e, see_index, &used);
    return (used & all) == all;
}

/* Whether accumulator k sums products of two loads, one of which is used again; sets the loads. */
static bool is_product(const struct ir_op *op, int k, ir_expr loads[2]) {
    const struct ir_nest *n = &op->nest;
    ir_expr body = n->accs[k].body;
    if (n->accs[k].op != RED_SUM || n->pars > 60 || body->kind != X_FN || body->fn != FN_mul || body->dtype != F32)
        return false;
    for (int i = 0; i < 2; i++) {
        loads[i] = factor(body->args[i]);
        if (!loads[i] || op->operands[loads[i]->index]->type.rank == 0)
            return false;
    }
    return loads[0] != loads[1] && (!uses_all(n, loads[0]) || !uses_all(n, loads[1]));
}

static bool is_wide(struct narrowing *p, ir_expr e) {
    if (e->kind == X_CONST && dtype_is_float(e->dtype))
        return isfinite(e->value.f) && !isfinite(rounded(p, e->value.f));
    if (e->kind == X_FN && e->dtype == F64)
        return true;
    if (e->kind != X_FN)
        return false;
    switch (e->fn) {
    case FN_exp:
    case FN_expm1:
    case FN_log:
    case FN_log1p:
    case FN_pow:
    case FN_sinh:
    case FN_cosh:
    case FN_tan: return true;
    default: return false;
    }
}

struct flow {
    struct narrowing *p;
    const struct ir_op *op;
    int flags;  /* of the result, so far */
    bool chain; /* a load of a chain, or a product, was seen */
};

static void flow_in(ir_expr e, void *context) {
    struct flow *f = context;
    const struct ir_nest *n = &f->op->nest;
    ir_expr loads[2];
    if (is_wide(f->p, e))
        f->flags |= WIDE;
    if (e->kind == X_LOAD) {
        const struct ir_value *v = f->op->operands[e->index];
        if (has(f->p, v, STATISTIC) && uses_all(n, e))
            f->flags |= STATISTIC;
        if (has(f->p, v, CHAIN) && !has(f->p, v, STATISTIC))
            f->chain = true;
    }
    if (e->kind != X_ACC)
        return;
    const struct ir_acc *acc = &n->accs[e->index];
    if (acc->op == RED_MAX || acc->op == RED_MIN)
        ir_expr_walk(acc->body, flow_in, f);
    else if (is_product(f->op, e->index, loads))
        f->chain = true;
    else
        f->flags |= STATISTIC;
}

static void flow_out(ir_expr e, void *context) {
    struct nest_look *s = context;
    if (e->kind == X_LOAD)
        mark(s->p, s->op->operands[e->index], EXACT);
}

static void propagate(struct ir_op *op, void *context) {
    struct narrowing *p = context;
    if (op->code != OP_nest)
        return;
    for (int i = 0; i < op->result_count; i++) {
        const struct ir_nest_result *r = &op->nest.results[i];
        struct flow f = {.p = p, .op = op};
        ir_expr_walk(r->value, flow_in, &f);
        mark(p, op->results[i], f.flags | (f.chain && !(f.flags & STATISTIC) ? CHAIN : 0));
        struct nest_look look = {p, op};
        if (has(p, op->results[i], EXACT) && r->combine == COMBINE_SET)
            ir_expr_walk(r->value, flow_out, &look);
    }
}

struct reading {
    struct narrowing *p;
    const struct ir_op *op;
    ir_expr loads[2]; /* factors */
};

static void note_reading(ir_expr e, void *context) {
    struct reading *r = context;
    if (e->kind == X_LOAD)
        mark(r->p, r->op->operands[e->index], e == r->loads[0] || e == r->loads[1] ? FACTOR : OTHER);
}

static void note_reader(struct ir_op *op, void *context) {
    if (op->code != OP_nest)
        return;
    const struct ir_nest *n = &op->nest;
    struct reading r = {.p = context, .op = op};
    for (int k = 0; k < n->acc_count; k++) {
        if (!is_product(op, k, r.loads))
            r.loads[0] = r.loads[1] = NULL;
        ir_expr_walk(n->accs[k].body, note_reading, &r);
    }
    r.loads[0] = r.loads[1] = NULL;
    for (int i = 0; i < op->result_count; i++)
        ir_expr_walk(n->results[i].value, note_reading, &r);
}

static void decide(struct narrowing *p, int class) {
    int f = p->flags[class];
    bool chain = (f & CHAIN) && !(f & STATISTIC) && (!(f & WIDE) || (f & FACTOR));
    if (!(f & (FIXED | EXACT)) && (chain || ((f & FACTOR) && !(f & OTHER))))
        p->flags[class] |= LOW;
}

/* ---- rewriting ---------------------------------------------------------------------------------------------------- */

static bool is_low(struct narrowing *p, const struct ir_value *v) {
    return v->id < p->count && has(p, v, LOW);
}

static void retype(struct narrowing *p, struct ir_value *v) {
    if (v->type.dtype != F32 || v->type.rank == 0 || !is_low(p, v))
        return;
    p->done.stored++;
    p->done.stored_bytes += ir_type_bytes_upper(v->type) / 2;
    v->type = ir_type_make(p->m, p->low, v->type.rank, v->type.dims);
}

static const void *rounded_constant(struct narrowing *p, const struct ir_op *op) {
    int64_t n = ir_type_bytes_upper(op->results[0]->type) / 4;
    const char *from = op->constant.data;
    char *to = arena_alloc(&p->m->arena, (size_t)(2 * n + 1));
    for (int64_t i = 0; i < n; i++)
        ir_bytes_store_float(p->low, rounded(p, ir_bytes_load_float(F32, from + 4 * i)), to + 2 * i);
    return to;
}

static void retype_op(struct ir_op *op, void *context) {
    struct narrowing *p = context;
    if (op->code == OP_const && may_change(op->results[0]) && is_low(p, op->results[0]))
        op->constant.data = rounded_constant(p, op);
    for (int i = 0; i < op->result_count; i++)
        retype(p, op->results[i]);
    for (int i = 0; i < op->region_count; i++)
        for (int k = 0; k < op->regions[i]->arg_count; k++)
            retype(p, op->regions[i]->args[k]);
}

/* The value rounded to 16 bits, right behind where it is made; of a view, the view of the rounded value. */
static struct ir_value *rounded_copy(struct narrowing *p, struct ir_value *v) {
    if (p->copy[v->id])
        return p->copy[v->id];
    struct ir_op *made = v->op;
    struct ir_builder b = {p->m, p->func, made ? made->parent : v->region, made ? made->next : v->region->first,
                           made ? made->span : v->span};
    struct ir_value *c;
    if (made && made->code == OP_reshape) {
        c = ir_build_reshape(&b, rounded_copy(p, made->operands[0]), v->type.rank, v->type.dims);
    } else if (made && is_filled(v) && made->code == OP_nest) {
        ir_expr body = ir_cast(p->m, p->low, made->nest.results[v->index].value);
        c = ir_build_map(&b, p->low, v->type.rank, v->type.dims, body, NULL, 0);
    } else if (made && made->code == OP_const) {
        c = ir_build_const(&b, ir_type_make(p->m, p->low, v->type.rank, v->type.dims), rounded_constant(p, made));
    } else {
        ir_expr at[NEST_MAX_RANK] = {NULL};
        for (int d = 0; d < v->type.rank; d++)
            at[d] = ir_index(p->m, d);
        ir_expr body = ir_cast(p->m, p->low, ir_load(p->m, 0, F32, v->type.rank, at, NULL));
        c = ir_build_map(&b, p->low, v->type.rank, v->type.dims, body, &v, 1);
        c->op->adjoint = made && made->adjoint;
        p->done.rounded++;
    }
    c->name = v->name;
    c->span = v->span;
    return p->copy[v->id] = c;
}

/* Where a loop or an update begins with a tensor of one number and is of 16 bits now, so is what it begins with. */
static void retype_start(struct narrowing *p, struct ir_op *op, int slot, const struct ir_value *next) {
    struct ir_value *start = op->operands[slot];
    if (start->type.dtype == F32 && next->type.dtype == p->low)
        op->operands[slot] = rounded_copy(p, start);
}

static void retype_starts(struct ir_op *op, void *context) {
    int skip = op->code == OP_for ? 2 : 0;
    if (op->code == OP_for || op->code == OP_while)
        for (int i = 0; i < op->result_count; i++)
            retype_start(context, op, skip + i, op->results[i]);
}

struct nest_change {
    struct narrowing *p;
    struct ir_op *op;
    int *slots; /* of a product's factors: the slot of the rounded copy; -1: as it is */
};

static ir_expr change_load(struct ir_rewrite *r, ir_expr original, ir_expr e) {
    struct nest_change *c = r->context;
    if (e->kind != X_LOAD || e->dtype != F32)
        return NULL;
    int slot = c->slots ? c->slots[e->index] : e->index;
    if (slot < 0 || c->op->operands[slot]->type.dtype == F32)
        return NULL;
    int rank = e->count - e->guarded;
    ir_expr otherwise = e->guarded ? ir_cast(r->module, c->p->low, e->args[rank]) : NULL;
    return ir_cast(r->module, F32, ir_load(r->module, slot, c->p->low, rank, e->args, otherwise));
}

static ir_expr change_expr(ir_expr e, void *context) {
    struct nest_change *c = context;
    struct ir_rewrite r = {.module = c->p->m, .fn = change_load, .context = c};
    ir_expr changed = ir_rewrite_expr(&r, e);
    ir_rewrite_free(&r);
    return changed;
}

/* Whether a factor of product k that is f32 can be rounded: the value outside, too. */
static bool can_round(struct narrowing *p, ir_expr load) {
    double value;
    return load->dtype == F32 &&
           (!load->guarded || (ir_expr_is_const(load->args[load->count - 1], &value) && representable(p, value)));
}

static void round_factors(struct narrowing *p, struct ir_op *op) {
    int before = op->operand_count;
    struct nest_change c = {p, op, ARENA_ARRAY(&p->scratch, int, before + 2 * op->nest.acc_count + 1)};
    ir_expr loads[2];
    for (int k = 0; k < op->nest.acc_count; k++) {
        if (!is_product(op, k, loads))
            continue;
        p->done.products++;
        for (int i = 0; i < before; i++)
            c.slots[i] = -1;
        bool one = loads[0]->index == loads[1]->index, all = can_round(p, loads[0]) && can_round(p, loads[1]);
        for (int i = 0; i < 2; i++)
            if (one ? all : can_round(p, loads[i])) {
                struct ir_value *v = op->operands[loads[i]->index];
                c.slots[loads[i]->index] = ir_op_add_operand(op, rounded_copy(p, v));
            }
        op->nest.accs = arena_copy(&p->m->arena, op->nest.accs, sizeof *op->nest.accs * (size_t)op->nest.acc_count);
        op->nest.accs[k].body = change_expr(op->nest.accs[k].body, &c);
    }
    for (int i = before; i-- > 0;)
        if (op->operands[i]->type.dtype == F32 && op->operands[i]->type.rank > 0 && op->operand_count > before &&
            !nest_loads_slot(op, i) && !nest_is_base(op, i))
            nest_drop_slot(op, i);
}

/* The base may be loaded, too: then the loads read what begins the update. */
static void retype_base(struct narrowing *p, struct ir_op *op, int result) {
    struct ir_nest_result *r = &op->nest.results[result];
    if (op->operands[r->base]->type.dtype == op->results[result]->type.dtype)
        return;
    int slot = ir_op_add_operand(op, rounded_copy(p, op->operands[r->base])), old = r->base;
    op->nest.results = arena_copy(&p->m->arena, op->nest.results, sizeof *r * (size_t)op->result_count);
    op->nest.results[result].base = slot;
    if (!nest_loads_slot(op, old) && !nest_is_base(op, old))
        nest_drop_slot(op, old);
}

static void rewrite_nest(struct narrowing *p, struct ir_op *op) {
    bool touched = false;
    for (int i = 0; i < op->result_count; i++)
        if (op->nest.results[i].base >= 0)
            retype_base(p, op, i);
    for (int i = 0; i < op->operand_count; i++)
        touched |= op->operands[i]->type.dtype == p->low;
    struct nest_change c = {.p = p, .op = op};
    if (touched)
        nest_map(op, change_expr, &c);
    bool stores = false;
    for (int i = 0; i < op->result_count; i++)
        stores |= op->nest.results[i].value->dtype == F32 && op->results[i]->type.dtype == p->low;
    if (stores) {
        op->nest.results =
            arena_copy(&p->m->arena, op->nest.results, sizeof *op->nest.results * (size_t)op->result_count);
        for (int i = 0; i < op->result_count; i++)
            op->nest.results[i].value = ir_cast(p->m, op->results[i]->type.dtype, op->nest.results[i].value);
    }
    round_factors(p, op);
}

struct nest_list {
    struct arena *arena;
    VEC(struct ir_op *) ops;
};

static void list_nest(struct ir_op *op, void *context) {
    struct nest_list *l = context;
    if (op->code == OP_nest)
        VEC_PUSH(l->arena, l->ops, op);
}

/* ---- the pass ----------------------------------------------------------------------------------------------------- */

static struct precision_counts precision_func(struct ir_func *f, enum dtype low) {
    struct narrowing p = {.func = f, .m = f->module, .low = low, .count = f->value_count};
    p.parent = ARENA_ARRAY(&p.scratch, int, p.count + 1);
    p.flags = ARENA_ARRAY(&p.scratch, uint8_t, p.count + 1);
    p.copy = ARENA_ARRAY(&p.scratch, struct ir_value *, p.count + 1);
    for (int i = 0; i < p.count; i++)
        p.parent[i] = i;
    for (int i = 0; i < f->body->arg_count; i++)
        mark(&p, f->body->args[i], FIXED);
    for (int i = 0; i < f->body->yield_count; i++)
        mark(&p, f->body->yields[i], FIXED | EXACT);
    ir_walk_ops(f->body, classify, &p);
    do {
        p.changed = false;
        ir_walk_ops(f->body, propagate, &p);
    } while (p.changed);
    ir_walk_ops(f->body, note_reader, &p);
    for (int i = 0; i < p.count; i++)
        if (p.parent[i] == i)
            decide(&p, i);
    ir_walk_ops(f->body, retype_op, &p);
    ir_walk_ops(f->body, retype_starts, &p);
    struct nest_list nests = {.arena = &p.scratch};
    ir_walk_ops(f->body, list_nest, &nests);
    for (int i = 0; i < nests.ops.n; i++)
        rewrite_nest(&p, nests.ops.at[i]);
    arena_free(&p.scratch);
    return p.done;
}

bool pass_precision(struct pass_context *c) {
    struct ir_module *m = c->module;
    enum precision precision = c->options->precision;
    if (precision != PRECISION_BF16 && precision != PRECISION_F16)
        return false;
    struct precision_counts *all = ARENA_ARRAY(&m->arena, struct precision_counts, m->func_count + 1);
    bool changed = false;
    for (int i = 0; i < m->func_count; i++) {
        if (ir_func_is_reset(m->funcs[i])) /* initial values are f32's */
            continue;
        all[i] = precision_func(m->funcs[i], precision == PRECISION_F16 ? F16 : BF16);
        changed |= all[i].products || all[i].stored;
    }
    c->low_precision = all;
    return changed;
}
