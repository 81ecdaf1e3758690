/* The adjoint of a nest: reverse mode over its scalar body, then one adjoint nest for each load (differentiate_index.c).
 *
 * The local derivative stands inside the adjoint nest; nothing of the size of the whole iteration space is made. What a
 * derivative needs of the forward run is a load: of the operands, of the nest's own results (exp, sigmoid, tanh, …
 * use the stored value), of an accumulator that becomes one more result, of the position of the first extremum.
 * Products use the product of the nonzero elements and the number of zeros, so that zeros are right.
 */
#include <string.h>

#include "passes/differentiate_internal.h"

struct nest_grad {
    struct grad *g;
    struct ir_module *m;
    struct ir_op *op;
    struct ir_nest *nest;
    struct ir_value **slots; /* the operands, then what the adjoint needs beside them */
    int slot_count, slot_cap;
    VEC(ir_expr) narrow_from; /* loads that have a narrow copy … */
    VEC(ir_expr) narrow_to;   /* … and the load of it */
};

static int add_slot(struct nest_grad *n, struct ir_value *v) {
    for (int i = 0; i < n->slot_count; i++)
        if (n->slots[i] == v)
            return i;
    if (n->slot_count == n->slot_cap)
        n->slots = vec_grow(&n->g->scratch, n->slots, sizeof *n->slots, &n->slot_cap);
    n->slots[n->slot_count] = v;
    return n->slot_count++;
}

/* v[i0, i1, …] over the parallel indices. */
static ir_expr load_at_pars(struct nest_grad *n, struct ir_value *v) {
    ir_expr at[64];
    for (int i = 0; i < v->type.rank; i++)
        at[i] = ir_index(n->m, i);
    return ir_load(n->m, add_slot(n, v), v->type.dtype, v->type.rank, at, NULL);
}

static ir_expr stored(void *context, ir_expr e) {
    struct nest_grad *n = context;
    for (int j = 0; j < n->op->result_count; j++)
        if (n->nest->results[j].base < 0 && n->nest->results[j].value == e)
            return load_at_pars(n, n->op->results[j]);
    return NULL;
}

/* A load of accumulator k: a result that is it, or a new result. */
static ir_expr stored_acc(struct nest_grad *n, ir_expr acc) {
    ir_expr known = stored(n, acc);
    if (known)
        return known;
    struct ir_module *m = n->m;
    int count = n->op->result_count;
    struct ir_nest_result *all = ARENA_ARRAY(&m->arena, struct ir_nest_result, count + 1);
    memcpy(all, n->nest->results, sizeof *all * (size_t)count);
    all[count] = (struct ir_nest_result){.value = acc, .base = -1};
    n->nest->results = all;
    ir_dim dims[64];
    for (int i = 0; i < n->nest->pars; i++)
        dims[i] = n->nest->indices[i].extent;
    return load_at_pars(n, ir_op_result(n->op, ir_type_make(m, acc->dtype, n->nest->pars, dims)));
}

static ir_expr acc_leaf(struct ir_rewrite *r, ir_expr original, ir_expr e) {
    return original->kind == X_ACC ? stored_acc(r->context, original) : NULL;
}

static ir_expr without_accs(struct nest_grad *n, ir_expr e) {
    struct ir_rewrite r = {.module = n->m, .fn = acc_leaf, .context = n};
    e = ir_rewrite_expr(&r, e);
    ir_rewrite_free(&r);
    return e;
}

/* ---- loads of what a reversed loop would have to save whole -------------------------------------------------------- */

static void mark_index(ir_expr e, void *context) {
    bool *used = context;
    if (e->kind == X_INDEX)
        used[e->index] = true;
}

static bool plain_index(struct ir_module *m, const struct ir_nest_index *x) {
    return x->lo == ir_const_int(m, I64, 0) && x->hi == ir_dim_expr(m, x->extent);
}

static ir_expr to_index(struct ir_rewrite *r, ir_expr original, ir_expr e) {
    const ir_expr *to = r->context;
    return original->kind == X_INDEX ? to[original->index] : NULL;
}

/* A forward nest, before `op`, that gathers just what this load reads, if that is less than the operand; else NULL. */
static ir_expr narrowed(struct nest_grad *n, ir_expr load) {
    struct ir_value *v = n->slots[load->index];
    if (load->index >= n->op->operand_count || !grad_in_loop(n->g) || grad_available(n->g, v))
        return NULL;
    for (int i = 0; i < n->narrow_from.n; i++)
        if (n->narrow_from.at[i] == load)
            return n->narrow_to.at[i];
    int all = n->nest->pars + n->nest->reds, pars = 0;
    bool *used = ARENA_ARRAY(&n->g->scratch, bool, all + 1);
    ir_expr_walk(load, mark_index, used);
    double points = 1;
    ir_dim dims[64];
    ir_expr *to = ARENA_ARRAY(&n->g->scratch, ir_expr, all + 1), at[64];
    struct ir_nest_index *indices = ARENA_ARRAY(&n->m->arena, struct ir_nest_index, all + 1);
    for (int i = 0; i < all; i++) {
        if (!used[i])
            continue;
        if (i >= n->nest->pars && !plain_index(n->m, &n->nest->indices[i]))
            return NULL;
        dims[pars] = n->nest->indices[i].extent;
        points *= (double)ir_dim_upper(dims[pars]);
        indices[pars] = (struct ir_nest_index){.name = n->nest->indices[i].name, .extent = dims[pars]};
        at[pars] = ir_index(n->m, i);
        to[i] = ir_index(n->m, pars++);
    }
    if (points >= (double)ir_dim_upper(ir_type_elements(n->m, v->type)))
        return NULL;
    struct ir_rewrite r = {.module = n->m, .fn = to_index, .context = to};
    ir_expr body = ir_rewrite_expr(&r, load);
    ir_rewrite_free(&r);
    struct ir_builder b = {n->m, n->g->func, n->op->parent, n->op, n->op->span};
    struct ir_value *region = ir_build_map(&b, load->dtype, pars, dims, body, n->op->operands, n->op->operand_count);
    memcpy(region->op->nest.indices, indices, sizeof *indices * (size_t)pars);
    region->name = v->name;
    ir_expr copy = ir_load(n->m, add_slot(n, region), load->dtype, pars, at, NULL);
    VEC_PUSH(&n->g->scratch, n->narrow_from, load);
    VEC_PUSH(&n->g->scratch, n->narrow_to, copy);
    return copy;
}

static ir_expr narrow_leaf(struct ir_rewrite *r, ir_expr original, ir_expr e) {
    return original->kind == X_LOAD ? narrowed(r->context, original) : NULL;
}

static ir_expr narrow(struct nest_grad *n, ir_expr e) {
    if (!grad_in_loop(n->g))
        return e;
    struct ir_rewrite r = {.module = n->m, .fn = narrow_leaf, .context = n};
    e = ir_rewrite_expr(&r, e);
    ir_rewrite_free(&r);
    return e;
}

/* ---- domains ------------------------------------------------------------------------------------------------------ */

static struct domain_index *domain(struct nest_grad *n, int count) {
    struct domain_index *d = ARENA_ARRAY(&n->g->scratch, struct domain_index, count + 1);
    for (int i = 0; i < count; i++) {
        const struct ir_nest_index *x = &n->nest->indices[i];
        d[i] = (struct domain_index){.name = x->name, .extent = x->extent};
        if (i >= n->nest->pars && !plain_index(n->m, x)) {
            d[i].lo = x->lo;
            d[i].hi = x->hi;
        }
    }
    return d;
}

static void push_loads(struct nest_grad *n, struct scalar_reverse *s, int indices) {
    struct domain_index *d = domain(n, indices);
    for (int i = 0; i < s->found_count; i++)
        if (s->found[i].leaf->kind == X_LOAD) {
            ir_expr e = narrow(n, without_accs(n, s->found[i].adjoint));
            grad_load(n->g, d, indices, n->slots, n->slot_count, s->found[i].leaf, e);
        }
}

/* ---- accumulators ------------------------------------------------------------------------------------------------- */

static bool simple(ir_expr e) {
    switch (e->kind) {
    case X_CONST:
    case X_LOAD:
    case X_DIM: return true;
    case X_CAST: return simple(e->args[0]);
    case X_FN:
        if (e->fn == FN_neg)
            return simple(e->args[0]);
        if (e->fn == FN_mul || e->fn == FN_div) {
            double value;
            return (ir_expr_is_const(e->args[1], &value) && simple(e->args[0])) ||
                   (e->fn == FN_mul && ir_expr_is_const(e->args[0], &value) && simple(e->args[1]));
        }
        return false;
    default: return false;
    }
}

/* The adjoint of an accumulator as an expression over the parallel indices, cheap enough to stand in every term. */
static ir_expr per_term(struct nest_grad *n, ir_expr adjoint) {
    adjoint = without_accs(n, adjoint);
    if (simple(adjoint))
        return adjoint;
    adjoint = narrow(n, adjoint);
    struct ir_value *v =
        grad_build(n->g, n->nest->indices, n->nest->pars, 0, n->slots, n->slot_count, adjoint, NULL, COMBINE_SET, NULL);
    return load_at_pars(n, v);
}

/* The nest's indices with other accumulators, after it: what the adjoint needs of the forward run. */
static struct ir_op *companion(struct nest_grad *n, int accs) {
    struct ir_builder b = {n->m, n->g->func, n->op->parent, n->op->next, n->op->span};
    struct ir_op *op = ir_op_new(&b, OP_nest, n->op->operands, n->op->operand_count, 0);
    op->nest = *n->nest;
    op->nest.acc_count = accs;
    op->nest.accs = ARENA_ARRAY(&n->m->arena, struct ir_acc, accs);
    op->nest.results = ARENA_ARRAY(&n->m->arena, struct ir_nest_result, accs);
    return op;
}

static struct ir_value *companion_result(struct nest_grad *n, struct ir_op *op, int k, enum reduce_op reduce,
                                         ir_expr body) {
    enum dtype t = reduce == RED_ARGMAX || reduce == RED_ARGMIN ? I32 : body->dtype;
    op->nest.accs[k] = (struct ir_acc){reduce, body};
    op->nest.results[k] = (struct ir_nest_result){.value = ir_acc(n->m, k, t), .base = -1};
    ir_dim dims[64];
    for (int i = 0; i < n->nest->pars; i++)
        dims[i] = n->nest->indices[i].extent;
    return ir_op_result(op, ir_type_make(n->m, t, n->nest->pars, dims));
}

/* The adjoint of an accumulator's body, over all indices; NULL: none. */
static ir_expr acc_seed(struct nest_grad *n, const struct ir_acc *acc, ir_expr adjoint) {
    struct ir_module *m = n->m;
    ir_expr body = acc->body, zero = ir_const_number(m, body->dtype, 0), one = ir_const_number(m, body->dtype, 1);
    switch (acc->op) {
    case RED_SUM: return per_term(n, adjoint);
    case RED_MAX:
    case RED_MIN: {
        ir_expr g = per_term(n, adjoint);
        struct ir_op *op = companion(n, 1);
        struct ir_value *at = companion_result(n, op, 0, acc->op == RED_MAX ? RED_ARGMAX : RED_ARGMIN, body);
        ir_expr first = ir_fn2(m, FN_eq, ir_cast(m, I64, load_at_pars(n, at)), ir_nest_position(m, n->nest));
        return ir_fn3(m, FN_where, first, g, zero);
    }
    case RED_PROD: {
        ir_expr g = per_term(n, adjoint);
        struct ir_op *op = companion(n, 2);
        ir_expr is_zero = ir_fn2(m, FN_eq, body, zero);
        struct ir_value *rest = companion_result(n, op, 0, RED_PROD, ir_fn3(m, FN_where, is_zero, one, body));
        struct ir_value *zeros = companion_result(n, op, 1, RED_SUM, ir_cast(m, I64, is_zero));
        ir_expr q = load_at_pars(n, rest), count = load_at_pars(n, zeros);
        ir_expr none = ir_fn2(m, FN_eq, count, ir_const_int(m, I64, 0));
        ir_expr only = ir_fn2(m, FN_and, is_zero, ir_fn2(m, FN_eq, count, ir_const_int(m, I64, 1)));
        ir_expr others = ir_fn3(m, FN_where, none, ir_fn2(m, FN_div, q, ir_fn3(m, FN_where, is_zero, one, body)),
                                ir_fn3(m, FN_where, only, q, zero));
        return ir_fn2(m, FN_mul, g, others);
    }
    default: return NULL;
    }
}

/* ---- updates ------------------------------------------------------------------------------------------------------ */

/* The incoming gradient of what iteration i wrote. With SET only the last of equal targets wrote what is there. */
static ir_expr written_gradient(struct nest_grad *n, int j, struct ir_value *g) {
    struct ir_module *m = n->m;
    const struct ir_nest_result *r = &n->nest->results[j];
    int rank = g->type.rank, pars = n->nest->pars;
    ir_expr *target = ARENA_ARRAY(&n->g->scratch, ir_expr, rank + 1);
    for (int i = 0; i < rank; i++)
        target[i] = narrow(n, r->target[i]);
    ir_expr seed = ir_load(m, add_slot(n, g), g->type.dtype, rank, target, NULL);
    /* Copied out: what reads it must not keep the old version alive when the next one clears these places. */
    seed = load_at_pars(
        n, grad_build(n->g, n->nest->indices, pars, 0, n->slots, n->slot_count, seed, NULL, COMBINE_SET, NULL));
    if (r->combine == COMBINE_ADD || grad_injective(n->g, domain(n, pars), pars, r->target, rank))
        return seed;
    ir_expr number = ir_const_int(m, I64, 0);
    for (int i = 0; i < pars; i++)
        number =
            ir_fn2(m, FN_add, ir_fn2(m, FN_mul, number, ir_dim_expr(m, n->nest->indices[i].extent)), ir_index(m, i));
    struct ir_value *stamps = grad_zeros(&n->g->b, ir_type_make(m, I64, rank, g->type.dims));
    stamps = grad_build(n->g, n->nest->indices, pars, 0, n->slots, n->slot_count, number, stamps, COMBINE_SET, target);
    ir_expr last = ir_fn2(m, FN_eq, ir_load(m, add_slot(n, stamps), I64, rank, target, NULL), number);
    return ir_fn3(m, FN_where, last, seed, ir_const_number(m, g->type.dtype, 0));
}

static void base_gradient(struct nest_grad *n, int j, struct ir_value *g) {
    const struct ir_nest_result *r = &n->nest->results[j];
    struct ir_value *base = n->op->operands[r->base];
    if (!grad_varied(n->g, base))
        return;
    if (r->combine == COMBINE_SET) {
        int rank = g->type.rank;
        ir_expr *target = ARENA_ARRAY(&n->g->scratch, ir_expr, rank + 1);
        for (int i = 0; i < rank; i++)
            target[i] = narrow(n, r->target[i]);
        g = grad_build(n->g, n->nest->indices, n->nest->pars, 0, n->slots, n->slot_count,
                       ir_const_number(n->m, g->type.dtype, 0), g, COMBINE_SET, target);
    }
    grad_add(n->g, base, g);
}

/* ------------------------------------------------------------------------------------------------------------------- */

void grad_nest(struct grad *g, struct ir_op *op) {
    struct nest_grad n = {.g = g, .m = g->m, .op = op, .nest = &op->nest};
    int results = op->result_count, accs = op->nest.acc_count, pars = op->nest.pars;
    for (int i = 0; i < op->operand_count; i++) {
        if (n.slot_count == n.slot_cap)
            n.slots = vec_grow(&g->scratch, n.slots, sizeof *n.slots, &n.slot_cap);
        n.slots[n.slot_count++] = op->operands[i];
    }
    ir_expr *roots = ARENA_ARRAY(&g->scratch, ir_expr, results), *seeds = ARENA_ARRAY(&g->scratch, ir_expr, results);
    struct ir_value **incoming = ARENA_ARRAY(&g->scratch, struct ir_value *, results);
    for (int j = 0; j < results; j++) {
        roots[j] = op->nest.results[j].value;
        incoming[j] = grad_varied(g, op->results[j]) ? grad_adjoint(g, op->results[j]) : NULL;
    }
    bool *acc_active = ARENA_ARRAY(&g->scratch, bool, accs + 1);
    struct scalar_reverse s = {.g = g, .nest = op, .stored = stored, .context = &n};
    for (int k = 0; k < accs; k++)
        acc_active[k] = op->nest.accs[k].op <= RED_MIN && scalar_active(&s, op->nest.accs[k].body);
    s.acc_active = acc_active;
    for (int j = 0; j < results; j++)
        if (incoming[j] && scalar_active(&s, roots[j]))
            seeds[j] =
                op->nest.results[j].base < 0 ? load_at_pars(&n, incoming[j]) : written_gradient(&n, j, incoming[j]);
    scalar_reverse(&s, roots, seeds, results);

    /* Bases first: what they add is a whole tensor that the loads' updates then change in place. */
    for (int j = 0; j < results; j++)
        if (incoming[j] && op->nest.results[j].base >= 0)
            base_gradient(&n, j, incoming[j]);
    push_loads(&n, &s, pars);
    for (int k = 0; k < accs; k++) {
        ir_expr adjoint = NULL;
        for (int i = 0; i < s.found_count; i++)
            if (s.found[i].leaf->kind == X_ACC && s.found[i].leaf->index == k)
                adjoint = s.found[i].adjoint;
        if (!adjoint)
            continue;
        struct ir_acc acc = op->nest.accs[k];
        ir_expr seed = acc_seed(&n, &acc, adjoint);
        if (!seed)
            continue;
        struct scalar_reverse inner = {.g = g, .nest = op, .stored = NULL, .context = &n};
        scalar_reverse(&inner, &acc.body, &seed, 1);
        push_loads(&n, &inner, pars + op->nest.reds);
    }
}
