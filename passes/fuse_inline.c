/* Fusion's substitution of a producer without reduction into the loads of its consumers (`inline` in fuse.c). */
#include "passes/fuse_internal.h"
#include "passes/nest_edit.h"

enum {
    CHEAP = 4,   /* cost that may be paid again for each consumer */
    TRIVIAL = 2, /* cost that may be paid again for each element */
};

static double elements(const struct ir_type t) {
    double n = 1;
    for (int d = 0; d < t.rank; d++)
        n *= (double)ir_dim_upper(t.dims[d]);
    return n;
}

static double iterations(const struct ir_nest *n, bool reductions) {
    double x = 1;
    for (int i = 0; i < n->pars + (reductions ? n->reds : 0); i++)
        x *= (double)ir_dim_upper(n->indices[i].extent);
    return x;
}

static void remove_if_unused(struct fuse *f, struct ir_op *op) {
    for (int i = 0; i < op->result_count; i++)
        if (!fuse_unused(f, op->results[i]))
            return;
    ir_op_remove(op);
    f->changed = true;
    for (int i = 0; i < op->operand_count; i++) { /* a view or producer that only served it */
        struct ir_op *p = op->operands[i]->op;
        if (p && fuse_alive(p) && (p->code == OP_reshape || p->code == OP_nest))
            remove_if_unused(f, p);
    }
}

struct read_scan {
    const struct ir_op *op;
    double bytes; /* of distinct operands loaded */
    uint64_t seen;
    bool reads;
};

static void see_read(ir_expr e, void *context) {
    struct read_scan *s = context;
    if (e->kind != X_LOAD || e->index > 63 || (s->seen >> e->index & 1))
        return;
    s->seen |= (uint64_t)1 << e->index;
    struct ir_type t = s->op->operands[e->index]->type;
    s->bytes += elements(t) * dtype_size(t.dtype);
}

static void count_quotients(ir_expr e, void *context) {
    if (e->kind == X_FN && (e->fn == FN_div || e->fn == FN_mod) && e->dtype == I64)
        ++*(int *)context;
}

static int quotients(const struct ir_op *op) {
    int n = 0;
    nest_walk(op, count_quotients, &n);
    return n;
}

/* Loads of a product must stay affine for its kernels. */
static bool affine_loads(struct ir_module *m, const struct ir_op *op) {
    ir_expr body = expr_strip_casts(op->nest.accs[0].body);
    for (int k = 0; k < 2; k++) {
        ir_expr x = expr_strip_casts(body->args[k]);
        ir_dim coefficients[64], constant;
        int total = op->nest.pars + op->nest.reds;
        for (int d = 0; total <= 64 && d < x->count - x->guarded; d++)
            if (!ir_expr_affine(m, x->args[d], total, coefficients, &constant))
                return false;
    }
    return true;
}

/* Whether v, read by `user`, would be taken by it; for a value with several users, asked of each. */
static bool takes(const struct fuse *f, const struct ir_op *user, int slot, const struct ir_op *producer, ir_expr body,
                  struct ir_type type) {
    if (user->code != OP_nest || user->parent != producer->parent || nest_is_base(user, slot))
        return false;
    struct fuse_loads s = fuse_scan_loads(user, slot);
    if (!s.count)
        return false;
    double again = iterations(&user->nest, s.in_acc) * s.count / (elements(type) > 0 ? elements(type) : 1);
    if (again > 1.5 && expr_cost(body) > TRIVIAL)
        return false;
    if (nest_is_contraction(user) && s.in_acc && (body->kind != X_LOAD || s.guarded))
        return false;
    if (nest_size(user) + s.count * expr_size(body) > FUSE_MAX_SIZE ||
        user->operand_count + producer->operand_count > FUSE_MAX_OPERANDS)
        return false;
    return fuse_reads_may_sink(f, producer, fuse_order_of(f, user), user);
}

static ir_expr simplify_expr(ir_expr e, void *context) {
    struct ir_op *op = context;
    return ir_expr_simplify(op->parent->func->module, &op->nest, op->operands, e);
}

/* The producer's body as a function of the indices of v, which may be a reshape of its result. */
static ir_expr body_through_view(struct ir_module *m, ir_expr body, struct ir_type from, struct ir_type to) {
    ir_expr index[FUSE_MAX_RANK], linear = ir_const_int(m, I64, 0);
    if (to.rank > FUSE_MAX_RANK || from.rank > FUSE_MAX_RANK)
        return NULL;
    for (int d = 0; d < to.rank; d++)
        linear = ir_fn2(m, FN_add, ir_fn2(m, FN_mul, linear, ir_dim_expr(m, to.dims[d])), ir_index(m, d));
    for (int d = from.rank - 1; d >= 0; d--) {
        ir_expr extent = ir_dim_expr(m, from.dims[d]);
        index[d] = d ? ir_fn2(m, FN_mod, linear, extent) : linear;
        linear = ir_fn2(m, FN_div, linear, extent);
    }
    return nest_subst(m, body, index, NULL, 0, false);
}

bool fuse_inline_slot(struct fuse *f, struct ir_op *op, int slot) {
    struct ir_module *m = f->module;
    struct ir_value *v = op->operands[slot], *made = v;
    struct ir_op *p = v->op;
    bool view = false;
    if (p && p->code == OP_reshape) {
        made = p->operands[0];
        view = true;
        p = made->op;
    }
    if (!p || p->code != OP_nest || p->parent != op->parent || p->nest.reds > 0 ||
        p->nest.results[made->index].base >= 0)
        return false;
    if (view && (v->op->parent != op->parent || made->type.rank == 0 || v->type.rank == 0))
        return false;
    ir_expr body = p->nest.results[made->index].value;
    if (!takes(f, op, slot, p, body, made->type))
        return false;
    struct read_scan r = {.op = p};
    ir_expr_walk(body, see_read, &r);
    bool single = fuse_only_user(f, v, op) && (!view || fuse_only_user(f, made, v->op)),
         cheap = expr_cost(body) <= CHEAP && r.bytes <= 1.125 * elements(made->type) * dtype_size(made->type.dtype);
    if (!cheap && !fuse_same_dirty_set(f, p, op))
        return false;
    if (!single) {
        if (view || f->yielded[v->id] || !cheap)
            return false;
        for (int i = 0; i < f->users[v->id].ops.n; i++) {
            const struct ir_op *u = f->users[v->id].ops.at[i];
            if (!fuse_alive(u) || !fuse_names(u, v) || u == op)
                continue;
            if (u->code != OP_nest)
                return false;
            int s = 0;
            while (u->operands[s] != v)
                s++;
            if (!takes(f, u, s, p, body, made->type))
                return false;
        }
    } else if (p->result_count > 1 && expr_cost(body) > CHEAP) { /* the producer stays for its other results */
        for (int i = 0; i < p->result_count; i++)
            if (p->results[i] != made && !fuse_unused(f, p->results[i]))
                return false;
    }
    struct fuse_snapshot before = fuse_save(op);
    bool contraction = nest_is_contraction(op), was_in_place = fuse_updates_in_place(f, op, fuse_order_of(f, op), -1);
    int *slots = ARENA_ARRAY(&f->arena, int, p->operand_count + 1), had = quotients(op);
    nest_add_operands(op, p, slots);
    ir_expr moved = nest_subst(m, body, NULL, slots, 0, false);
    if (view)
        moved = body_through_view(m, moved, made->type, v->type);
    if (moved)
        nest_inline(op, slot, v->type, moved);
    int bodys = 0;
    ir_expr_walk(body, count_quotients, &bodys);
    if (moved && (view || quotients(op) > had))
        nest_map(op, simplify_expr, op);
    bool bad = !moved || nest_loads_slot(op, slot) || (view && quotients(op) > had + bodys) ||
               (contraction && (!nest_is_contraction(op) || !affine_loads(m, op))) ||
               (was_in_place && !fuse_updates_in_place(f, op, fuse_order_of(f, op), -1));
    if (bad) {
        fuse_restore(op, &before);
        return false;
    }
    nest_drop_slot(op, slot);
    fuse_refresh(f, op);
    if (view && fuse_unused(f, v))
        remove_if_unused(f, v->op);
    if (fuse_alive(p))
        remove_if_unused(f, p);
    return true;
}
