/* The adjoint of a load a[f(i)]: where the index map can be inverted, a gather over a's shape; else an accumulating update.
 *
 * Each dimension d of a gives an equation f_d(i) = c_d. Indices that occur as i / n and i % n are split in two first, then
 * every f_d must be affine. A dimension with one unsolved index is solved for it (the pivot); of several, all are solved
 * at once if they are the digits of a mixed radix number (flattening, pooling with stride = window), else the one of
 * the largest extent (in a convolution the position, not the tap). Pivots become expressions of c and of the free
 * indices, which the gather sums over; what the equations do not prove — the remainder of a division, a pivot inside its
 * range — becomes a condition, or an `else 0` on the incoming gradient where that says the same.
 *
 * A scatter would be right always, but it serialises: gathers are parallel, vectorise, and are recognised as products
 * and convolutions. Updates stay for data-dependent indices and for maps that reach a part only (a row of a matrix).
 */
#include <string.h>

#include "passes/differentiate_internal.h"

enum { MAX_INDICES = 64 };

struct solver {
    struct grad *g;
    struct ir_module *m;
    struct domain_index at[MAX_INDICES]; /* plain ones first, then those with bounds */
    int n;
    struct ir_value **slots;
    ir_expr conditions[MAX_INDICES]; /* of splits that do not divide */
    int condition_count;
};

/* ---- substitution ------------------------------------------------------------------------------------------------- */

static ir_expr subst_leaf(struct ir_rewrite *r, ir_expr original, ir_expr rewritten) {
    const ir_expr *to = r->context;
    return original->kind == X_INDEX ? to[original->index] : NULL;
}

static ir_expr subst(struct ir_module *m, ir_expr e, const ir_expr *to) {
    struct ir_rewrite r = {.module = m, .fn = subst_leaf, .context = (void *)(uintptr_t)to};
    ir_expr result = ir_rewrite_expr(&r, e);
    ir_rewrite_free(&r);
    return result;
}

/* The domain as a nest, for ranges: bounded indices as reductions. */
static struct ir_nest domain_nest(struct grad *g, const struct domain_index *at, int n) {
    struct ir_nest nest = {.indices = ARENA_ARRAY(&g->scratch, struct ir_nest_index, n)};
    for (int i = 0; i < n; i++) {
        nest.indices[i] = (struct ir_nest_index){at[i].name, at[i].extent, at[i].lo, at[i].hi};
        if (at[i].lo)
            nest.reds++;
        else
            nest.pars++;
    }
    return nest;
}

ir_expr grad_inside(struct ir_module *m, struct ir_value **slots, ir_expr load) {
    ir_expr all = ir_const_int(m, BOOL, 1);
    struct ir_type t = slots[load->index]->type;
    for (int i = 0; i < t.rank; i++) {
        ir_expr e = ir_cast(m, I64, load->args[i]);
        ir_expr in = ir_fn2(m, FN_and, ir_fn2(m, FN_le, ir_const_int(m, I64, 0), e),
                            ir_fn2(m, FN_lt, e, ir_dim_expr(m, t.dims[i])));
        all = ir_fn2(m, FN_and, all, in);
    }
    return all;
}

/* ---- building a nest ---------------------------------------------------------------------------------------------- */

struct collect {
    struct ir_value **slots;
    struct ir_value **operands;
    int *to; /* slot -> operand, -1: unused */
    int count;
};

static void collect_load(ir_expr e, void *context) {
    struct collect *c = context;
    if (e->kind == X_LOAD && c->to[e->index] < 0) {
        for (int i = 0; i < c->count; i++)
            if (c->operands[i] == c->slots[e->index])
                c->to[e->index] = i;
        if (c->to[e->index] < 0) {
            c->to[e->index] = c->count;
            c->operands[c->count++] = c->slots[e->index];
        }
    }
}

static ir_expr renumber_leaf(struct ir_rewrite *r, ir_expr original, ir_expr rewritten) {
    const struct collect *c = r->context;
    if (rewritten->kind != X_LOAD)
        return NULL;
    int rank = rewritten->count - rewritten->guarded;
    return ir_load(r->module, c->to[original->index], rewritten->dtype, rank, rewritten->args,
                   rewritten->guarded ? rewritten->args[rank] : NULL);
}

static bool is_short_float(enum dtype t) {
    return t == F16 || t == BF16;
}

struct ir_value *grad_build(struct grad *g, struct ir_nest_index *indices, int pars, int reds, struct ir_value **slots,
                            int slot_count, ir_expr value, struct ir_value *base, enum combine combine,
                            const ir_expr *target) {
    struct ir_module *m = g->m;
    int rank = base ? base->type.rank : 0;
    struct collect c = {slots, ARENA_ARRAY(&g->scratch, struct ir_value *, slot_count + 1),
                        ARENA_ARRAY(&g->scratch, int, slot_count), 0};
    memset(c.to, -1, sizeof *c.to * (size_t)slot_count);
    ir_expr_walk(value, collect_load, &c);
    for (int i = 0; i < rank; i++)
        ir_expr_walk(target[i], collect_load, &c);
    for (int i = 0; i < pars + reds; i++)
        if (indices[i].lo) {
            ir_expr_walk(indices[i].lo, collect_load, &c);
            ir_expr_walk(indices[i].hi, collect_load, &c);
        }
    /* the frame may have two names for one value: bring them in first, then number them */
    for (int i = 0; i < c.count; i++)
        c.operands[i] = grad_use(g, c.operands[i]);
    struct ir_value **operands = ARENA_ARRAY(&g->scratch, struct ir_value *, c.count + 1);
    int *place = ARENA_ARRAY(&g->scratch, int, c.count + 1), count = 0;
    for (int i = 0; i < c.count + (base != NULL); i++) {
        struct ir_value *v = i < c.count ? c.operands[i] : base;
        int k = 0;
        while (k < count && operands[k] != v)
            k++;
        if (k == count)
            operands[count++] = v;
        place[i] = k;
    }
    for (int i = 0; i < slot_count; i++)
        if (c.to[i] >= 0)
            c.to[i] = place[c.to[i]];

    struct ir_rewrite r = {.module = m, .fn = renumber_leaf, .context = &c};
    struct ir_op *op = ir_op_new(&g->b, OP_nest, operands, count, 0);
    struct ir_nest *n = &op->nest;
    n->pars = pars;
    n->reds = reds;
    n->indices = ARENA_ARRAY(&m->arena, struct ir_nest_index, pars + reds);
    for (int i = 0; i < pars + reds; i++) {
        n->indices[i] = indices[i];
        if (i < pars) {
            n->indices[i].lo = n->indices[i].hi = NULL;
        } else if (indices[i].lo) {
            n->indices[i].lo = ir_rewrite_expr(&r, indices[i].lo);
            n->indices[i].hi = ir_rewrite_expr(&r, indices[i].hi);
        } else {
            n->indices[i].lo = ir_const_int(m, I64, 0);
            n->indices[i].hi = ir_dim_expr(m, indices[i].extent);
        }
    }
    ir_expr body = ir_expr_simplify(m, n, op->operands, ir_rewrite_expr(&r, value));
    enum dtype t = body->dtype;
    if (reds) {
        enum dtype wide = is_short_float(t) ? F32 : t;
        n->acc_count = 1;
        n->accs = ARENA_NEW(&m->arena, struct ir_acc);
        n->accs[0] = (struct ir_acc){RED_SUM, ir_cast(m, wide, body)};
        body = ir_cast(m, t, ir_acc(m, 0, wide));
    }
    n->results = ARENA_NEW(&m->arena, struct ir_nest_result);
    n->results[0] = (struct ir_nest_result){.value = body, .base = -1};
    if (base) {
        ir_expr *at = ARENA_ARRAY(&m->arena, ir_expr, rank);
        for (int i = 0; i < rank; i++)
            at[i] = ir_expr_simplify(m, n, op->operands, ir_rewrite_expr(&r, target[i]));
        n->results[0].base = place[c.count];
        n->results[0].combine = combine;
        n->results[0].target = at;
    }
    ir_rewrite_free(&r);
    if (base)
        return ir_op_result(op, base->type);
    ir_dim *dims = ARENA_ARRAY(&m->arena, ir_dim, pars);
    for (int i = 0; i < pars; i++)
        dims[i] = n->indices[i].extent;
    return ir_op_result(op, ir_type_make(m, t, pars, dims));
}

/* ---- splitting i into i / n and i % n ------------------------------------------------------------------------------ */

struct split {
    struct solver *s;
    int index;
    ir_dim by;
};

static bool as_dim(struct ir_module *m, ir_expr e, ir_dim *d) {
    if (e->dtype != I64)
        return false;
    if (e->kind == X_CONST)
        *d = ir_dim_const(m, e->value.i);
    else if (e->kind == X_DIM)
        *d = e->dim;
    else
        return false;
    return true;
}

static void find_split(ir_expr e, void *context) {
    struct split *s = context;
    ir_dim by;
    if (s->index >= 0 || e->kind != X_FN || (e->fn != FN_div && e->fn != FN_mod) || e->args[0]->kind != X_INDEX)
        return;
    int k = e->args[0]->index;
    if (s->s->at[k].lo || !as_dim(s->s->m, e->args[1], &by) || ir_dim_lower(by) < 1)
        return;
    s->index = k;
    s->by = by;
}

/* Replaces index k by quotient and remainder; rewrites the n expressions. */
static void split_index(struct solver *s, int k, ir_dim by, ir_expr *e, int n) {
    struct ir_module *m = s->m;
    ir_dim extent = s->at[k].extent, one = ir_dim_const(m, 1);
    int64_t rest;
    bool divides = ir_dim_is_const(ir_dim_mod(m, extent, by), &rest) && rest == 0;
    ir_dim outer =
        divides ? ir_dim_div(m, extent, by) : ir_dim_div(m, ir_dim_sub(m, ir_dim_add(m, extent, by), one), by);
    ir_expr to[MAX_INDICES];
    for (int i = 0; i < s->n; i++)
        to[i] = ir_index(m, i > k ? i + 1 : i);
    to[k] = ir_fn2(m, FN_add, ir_fn2(m, FN_mul, ir_index(m, k), ir_dim_expr(m, by)), ir_index(m, k + 1));
    for (int i = 0; i < s->n; i++)
        if (s->at[i].lo) {
            s->at[i].lo = subst(m, s->at[i].lo, to);
            s->at[i].hi = subst(m, s->at[i].hi, to);
        }
    memmove(s->at + k + 2, s->at + k + 1, sizeof *s->at * (size_t)(s->n - k - 1));
    s->n++;
    s->at[k].extent = outer;
    s->at[k + 1] = (struct domain_index){.name = s->at[k].name, .extent = by};
    for (int i = 0; i < s->condition_count; i++)
        s->conditions[i] = subst(m, s->conditions[i], to);
    struct ir_nest nest = domain_nest(s->g, s->at, s->n);
    for (int i = 0; i < n; i++)
        e[i] = ir_expr_simplify(m, &nest, s->slots, subst(m, e[i], to));
    if (!divides)
        s->conditions[s->condition_count++] = ir_fn2(m, FN_lt, to[k], ir_dim_expr(m, extent));
}

/* ---- solving ------------------------------------------------------------------------------------------------------ */

struct solution {
    ir_expr pivot[MAX_INDICES]; /* of solved indices, over coordinates (as indices n + d) and indices unsolved then */
    int order[MAX_INDICES], count;
    ir_expr exact[MAX_INDICES]; /* conditions over the same */
    int exact_count;
    bool top_digit[MAX_INDICES]; /* its range must be tested (else it is a remainder inside it) */
    int points;                  /* dimensions without an index of their own */
};

static ir_expr scaled(struct ir_module *m, ir_expr e, ir_dim k) {
    return ir_fn2(m, FN_mul, e, ir_dim_expr(m, k));
}

static bool is_zero(ir_dim d) {
    int64_t v;
    return ir_dim_is_const(d, &v) && v == 0;
}

/* t = sum coefficient[u] * u over the unsolved u: all at once if they are digits. `u` comes sorted by falling weight. */
static bool solve_digits(struct solver *s, struct solution *o, const int *u, int n, const ir_dim *coefficient,
                         ir_expr t) {
    struct ir_module *m = s->m;
    ir_dim one = ir_dim_const(m, 1), below = ir_dim_const(m, 0);
    for (int i = n - 1; i >= 0; i--) { /* the digits below never reach this one's weight */
        if (s->at[u[i]].lo || !ir_dim_lt(m, below, coefficient[u[i]]))
            return false;
        below = ir_dim_add(m, below, ir_dim_mul(m, coefficient[u[i]], ir_dim_sub(m, s->at[u[i]].extent, one)));
    }
    for (int i = 0; i < n; i++) {
        ir_expr w = ir_dim_expr(m, coefficient[u[i]]);
        o->pivot[u[i]] = ir_fn2(m, FN_div, t, w);
        o->top_digit[u[i]] = true;
        o->order[o->count++] = u[i];
        if (i + 1 < n || coefficient[u[i]] != one) {
            t = ir_fn2(m, FN_mod, t, w);
            if (i + 1 == n)
                o->exact[o->exact_count++] = ir_fn2(m, FN_eq, t, ir_const_int(m, I64, 0));
        }
    }
    return true;
}

static bool solve_one(struct solver *s, struct solution *o, int k, ir_dim w, ir_expr t) {
    struct ir_module *m = s->m;
    if (ir_dim_upper(w) < 0) {
        w = ir_dim_sub(m, ir_dim_const(m, 0), w);
        t = ir_fn1(m, FN_neg, t);
    }
    if (ir_dim_lower(w) < 1)
        return false;
    if (w == ir_dim_const(m, 1)) {
        o->pivot[k] = t;
    } else {
        ir_expr by = ir_dim_expr(m, w);
        o->pivot[k] = ir_fn2(m, FN_div, t, by);
        o->exact[o->exact_count++] = ir_fn2(m, FN_eq, ir_fn2(m, FN_mod, t, by), ir_const_int(m, I64, 0));
    }
    o->top_digit[k] = true;
    o->order[o->count++] = k;
    return true;
}

static void sort_by_weight(struct solver *s, int *u, int n, const ir_dim *c) {
    for (int i = 1; i < n; i++)
        for (int j = i;
             j > 0 && (ir_dim_lt(s->m, c[u[j - 1]], c[u[j]]) || ir_dim_upper(c[u[j - 1]]) < ir_dim_upper(c[u[j]]));
             j--) {
            int t = u[j];
            u[j] = u[j - 1];
            u[j - 1] = t;
        }
}

/* False if f cannot be inverted. */
static bool solve(struct solver *s, const ir_expr *f, int rank, struct solution *o) {
    struct ir_module *m = s->m;
    ir_dim *coefficient[MAX_INDICES], constant[MAX_INDICES];
    bool done[MAX_INDICES] = {false};
    if (rank > MAX_INDICES || s->n + rank > MAX_INDICES)
        return false;
    for (int d = 0; d < rank; d++) {
        coefficient[d] = ARENA_ARRAY(&s->g->scratch, ir_dim, s->n + 1);
        if (!ir_expr_affine(m, f[d], s->n, coefficient[d], &constant[d]))
            return false;
    }
    for (int left = rank; left > 0; left--) {
        int pick = -1, fewest = 0, u[MAX_INDICES], n = 0;
        for (int d = 0; d < rank; d++) {
            if (done[d])
                continue;
            int unsolved = 0;
            for (int k = 0; k < s->n; k++)
                unsolved += !is_zero(coefficient[d][k]) && !o->pivot[k];
            if (pick < 0 || unsolved < fewest) {
                pick = d;
                fewest = unsolved;
            }
        }
        done[pick] = true;
        const ir_dim *c = coefficient[pick];
        ir_expr t = ir_fn2(m, FN_sub, ir_index(m, s->n + pick), ir_dim_expr(m, constant[pick]));
        for (int k = 0; k < s->n; k++)
            if (!is_zero(c[k])) {
                if (o->pivot[k])
                    t = ir_fn2(m, FN_sub, t, scaled(m, ir_index(m, k), c[k]));
                else
                    u[n++] = k;
            }
        if (n == 0) {
            o->points++;
            o->exact[o->exact_count++] = ir_fn2(m, FN_eq, t, ir_const_int(m, I64, 0));
            continue;
        }
        if (n > 1) {
            sort_by_weight(s, u, n, c);
            if (solve_digits(s, o, u, n, c, t))
                continue;
        }
        int best = u[0];
        for (int i = 1; i < n; i++) {
            int64_t a = ir_dim_upper(s->at[u[i]].extent), b = ir_dim_upper(s->at[best].extent);
            if (s->at[best].lo && !s->at[u[i]].lo ? a >= b : a > b)
                best = u[i];
        }
        for (int i = 0; i < n; i++)
            if (u[i] != best)
                t = ir_fn2(m, FN_sub, t, scaled(m, ir_index(m, u[i]), c[u[i]]));
        if (!solve_one(s, o, best, c[best], t))
            return false;
    }
    return true;
}

struct highest {
    int limit;
    bool above;
};

static void note_index(ir_expr e, void *context) {
    struct highest *h = context;
    h->above |= e->kind == X_INDEX && e->index >= h->limit;
}

static void match_index(ir_expr e, void *context) {
    struct highest *h = context;
    h->above |= e->kind == X_INDEX && e->index == h->limit;
}

static bool mentions(ir_expr e, int index) {
    struct highest h = {index, false};
    ir_expr_walk(e, match_index, &h);
    return h.above;
}

/* The same for all iterations: right in one, so right in all. */
static bool uniform(ir_expr e) {
    struct highest h = {0, false};
    ir_expr_walk(e, note_index, &h);
    return !h.above;
}

/* ---- guards ------------------------------------------------------------------------------------------------------- */

struct guard {
    struct ir_module *m;
    const struct ir_nest *nest;
    struct ir_value **slots;
};

static ir_expr guard_leaf(struct ir_rewrite *r, ir_expr original, ir_expr e) {
    struct guard *c = r->context;
    if (e->kind != X_LOAD || e->guarded)
        return NULL;
    struct ir_type t = c->slots[e->index]->type;
    for (int i = 0; i < t.rank; i++)
        if (!uniform(e->args[i]) && ir_index_inside(c->m, c->nest, e->args[i], t.dims[i]) != INSIDE)
            return ir_load(c->m, e->index, e->dtype, e->count, e->args, ir_const_number(c->m, e->dtype, 0));
    return NULL;
}

static ir_expr guard_loads(struct ir_module *m, const struct ir_nest *nest, struct ir_value **slots, ir_expr e) {
    struct guard c = {m, nest, slots};
    struct ir_rewrite r = {.module = m, .fn = guard_leaf, .context = &c};
    e = ir_rewrite_expr(&r, e);
    ir_rewrite_free(&r);
    return e;
}

/* Finite wherever what it loads is finite: a product of it and 0 is 0. */
static bool tame(ir_expr e) {
    switch (e->kind) {
    case X_CONST:
    case X_INDEX:
    case X_DIM:
    case X_LOAD: return true;
    case X_CAST: return tame(e->args[0]);
    case X_FN:
        if (e->fn == FN_where)
            return tame(e->args[1]) && tame(e->args[2]);
        return (e->fn == FN_neg || e->fn == FN_add || e->fn == FN_sub || e->fn == FN_mul || e->fn == FN_max ||
                e->fn == FN_min) &&
               tame(e->args[0]) && (e->count < 2 || tame(e->args[1]));
    default: return false;
    }
}

/* Whether d is a product with a factor that is 0 as soon as `at` leaves 0 .. extent: a load guarded by it. */
static bool zero_outside(struct ir_value **slots, ir_expr d, ir_expr at, ir_dim extent) {
    double other;
    switch (d->kind) {
    case X_LOAD:
        if (!d->guarded || !ir_expr_is_const(d->args[d->count - 1], &other) || other != 0)
            return false;
        for (int i = 0; i < d->count - 1; i++)
            if (d->args[i] == at && slots[d->index]->type.dims[i] == extent)
                return true;
        return false;
    case X_CAST: return zero_outside(slots, d->args[0], at, extent);
    case X_FN:
        if (d->fn == FN_mul)
            return (tame(d->args[1]) && zero_outside(slots, d->args[0], at, extent)) ||
                   (tame(d->args[0]) && zero_outside(slots, d->args[1], at, extent));
        if (d->fn == FN_neg || (d->fn == FN_div && ir_expr_is_const(d->args[1], &other) && other != 0))
            return zero_outside(slots, d->args[0], at, extent);
        if (d->fn == FN_add || d->fn == FN_sub)
            return zero_outside(slots, d->args[0], at, extent) && zero_outside(slots, d->args[1], at, extent);
        if (d->fn == FN_where) {
            bool then_zero = ir_expr_is_const(d->args[1], &other) && other == 0;
            bool else_zero = ir_expr_is_const(d->args[2], &other) && other == 0;
            return (then_zero || zero_outside(slots, d->args[1], at, extent)) &&
                   (else_zero || zero_outside(slots, d->args[2], at, extent));
        }
        return false;
    default: return false;
    }
}

/* d where the condition holds, else 0. Of a product one loaded factor becomes 0, so that it stays a product: the gradient of a
 * convolution with strides is one, too. */
static ir_expr only_where(struct ir_module *m, ir_expr condition, ir_expr d) {
    for (int i = 0; d->kind == X_FN && d->fn == FN_mul && i < 2; i++)
        if (d->args[i]->kind == X_LOAD && tame(d->args[!i]))
            return i == 0 ? ir_fn2(m, FN_mul, only_where(m, condition, d->args[0]), d->args[1])
                          : ir_fn2(m, FN_mul, d->args[0], only_where(m, condition, d->args[1]));
    return ir_fn3(m, FN_where, condition, d, ir_const_number(m, d->dtype, 0));
}

/* ---- gather ------------------------------------------------------------------------------------------------------- */

static bool gather(struct solver *s, const struct solution *o, struct ir_value **slots, int slot_count,
                   struct ir_value *a, ir_expr d, struct ir_value **result) {
    struct ir_module *m = s->m;
    int rank = a->type.rank, n = 0;
    struct domain_index to_at[MAX_INDICES];
    ir_expr to[2 * MAX_INDICES];
    for (int i = 0; i < rank; i++) {
        to[s->n + i] = ir_index(m, n);
        to_at[n++] = (struct domain_index){.name = arena_printf(&m->arena, "c%d", i), .extent = a->type.dims[i]};
    }
    int free_from = n;
    for (int bounded = 0; bounded < 2; bounded++)
        for (int k = 0; k < s->n; k++)
            if (!o->pivot[k] && (s->at[k].lo != NULL) == bounded) {
                to[k] = ir_index(m, n);
                to_at[n++] = s->at[k];
            }
    for (int i = 0; i < o->count; i++)
        to[o->order[i]] = NULL;
    /* A pivot refers to free indices and to other pivots: resolved round by round; a cycle means no triangular order. */
    for (int round = 0, left = o->count; left > 0; round++) {
        if (round > o->count)
            return false;
        for (int i = 0; i < o->count; i++) {
            int k = o->order[i];
            bool ready = !to[k];
            for (int j = 0; j < s->n && ready; j++)
                ready = to[j] || !mentions(o->pivot[k], j);
            if (!ready)
                continue;
            to[k] = subst(m, o->pivot[k], to);
            left--;
        }
    }
    for (int i = free_from; i < n; i++)
        if (to_at[i].lo) {
            to_at[i].lo = subst(m, to_at[i].lo, to);
            to_at[i].hi = subst(m, to_at[i].hi, to);
            struct highest h = {i, false};
            ir_expr_walk(to_at[i].lo, note_index, &h);
            ir_expr_walk(to_at[i].hi, note_index, &h);
            if (h.above)
                return false;
        }
    struct ir_nest nest = domain_nest(s->g, to_at, n);
    bool inside = true; /* every iteration is one of the forward nest */
    for (int i = 0; i < s->n; i++) {
        to[i] = ir_expr_simplify(m, &nest, slots, to[i]);
        if (o->pivot[i])
            inside &= !s->at[i].lo && ir_index_inside(m, &nest, to[i], s->at[i].extent) == INSIDE;
    }
    inside &= s->condition_count == 0;
    for (int i = free_from; i < n; i++)
        if (to_at[i].lo) {
            to_at[i].lo = inside ? to_at[i].lo : guard_loads(m, &nest, slots, to_at[i].lo);
            to_at[i].hi = inside ? to_at[i].hi : guard_loads(m, &nest, slots, to_at[i].hi);
        }
    d = ir_expr_simplify(m, &nest, slots, subst(m, d, to));
    if (!inside)
        d = guard_loads(m, &nest, slots, d);
    ir_expr all = ir_const_int(m, BOOL, 1), zero = ir_const_int(m, I64, 0);
    for (int i = 0; i < o->count; i++) {
        int k = o->order[i];
        ir_expr e = to[k];
        if (s->at[k].lo) {
            ir_expr lo = subst(m, s->at[k].lo, to), hi = subst(m, s->at[k].hi, to);
            all = ir_fn2(m, FN_and, all, ir_fn2(m, FN_and, ir_fn2(m, FN_le, lo, e), ir_fn2(m, FN_lt, e, hi)));
        } else if (ir_index_inside(m, &nest, e, s->at[k].extent) != INSIDE &&
                   !zero_outside(slots, d, e, s->at[k].extent)) {
            all = ir_fn2(
                m, FN_and, all,
                ir_fn2(m, FN_and, ir_fn2(m, FN_le, zero, e), ir_fn2(m, FN_lt, e, ir_dim_expr(m, s->at[k].extent))));
        }
    }
    for (int i = 0; i < o->exact_count; i++)
        all = ir_fn2(m, FN_and, all, subst(m, o->exact[i], to));
    for (int i = 0; i < s->condition_count; i++)
        all = ir_fn2(m, FN_and, all, subst(m, s->conditions[i], to));
    all = ir_expr_simplify(m, &nest, slots, all);
    if (!inside)
        all = guard_loads(m, &nest, slots, all);
    ir_expr body = only_where(m, all, d);
    *result = grad_build(s->g, nest.indices, rank, n - rank, slots, slot_count, body, NULL, COMBINE_SET, NULL);
    return true;
}

/* ---- update ------------------------------------------------------------------------------------------------------- */

/* Bounded indices that neither the load nor the bounds of others, which are not kept, refer to. */
static void bounds_kept(const struct solver *s, ir_expr load, bool *keeps) {
    for (int k = s->n - 1; k >= 0; k--) { /* bounds refer to indices before */
        keeps[k] = s->at[k].lo != NULL;
        for (int i = 0; i < load->count; i++)
            keeps[k] &= !mentions(load->args[i], k);
        for (int j = k + 1; j < s->n; j++)
            keeps[k] &= !s->at[j].lo || keeps[j] || !(mentions(s->at[j].lo, k) || mentions(s->at[j].hi, k));
    }
}

static void update(struct solver *s, struct ir_value **slots, int slot_count, ir_expr load, ir_expr d) {
    struct grad *g = s->g;
    struct ir_module *m = s->m;
    struct ir_value *a = slots[load->index];
    int rank = a->type.rank;
    /* Indices with bounds keep them where the target has nothing of them: those are summed over first. The others become
     * parallel ones counted from their lower bound, masked above. */
    ir_expr to[MAX_INDICES], all = ir_const_int(m, BOOL, 1);
    struct domain_index at[MAX_INDICES];
    bool keeps[MAX_INDICES];
    bounds_kept(s, load, keeps);
    for (int i = 0; i < s->n; i++) {
        at[i] = s->at[i];
        to[i] = ir_index(m, i);
    }
    for (int i = 0; i < s->n; i++) {
        if (!s->at[i].lo)
            continue;
        ir_expr lo = subst(m, s->at[i].lo, to), hi = subst(m, s->at[i].hi, to);
        at[i].lo = keeps[i] ? lo : NULL;
        at[i].hi = keeps[i] ? hi : NULL;
        if (!keeps[i]) {
            to[i] = ir_fn2(m, FN_add, lo, ir_index(m, i));
            all = ir_fn2(m, FN_and, all, ir_fn2(m, FN_lt, to[i], hi));
        }
    }
    struct ir_nest nest = domain_nest(g, at, s->n);
    ir_expr target[MAX_INDICES];
    for (int i = 0; i < rank; i++)
        target[i] = ir_cast(m, I64, subst(m, load->args[i], to));
    d = subst(m, d, to);
    if (load->guarded) {
        ir_expr *args = ARENA_ARRAY(&g->scratch, ir_expr, rank);
        for (int i = 0; i < rank; i++)
            args[i] = target[i];
        bool inside = true;
        for (int i = 0; i < rank; i++)
            inside &= ir_index_inside(m, &nest, target[i], a->type.dims[i]) == INSIDE;
        if (!inside)
            all = ir_fn2(m, FN_and, all, grad_inside(m, slots, ir_load(m, load->index, load->dtype, rank, args, NULL)));
    }
    all = ir_expr_simplify(m, &nest, slots, all);
    double always;
    if (!(ir_expr_is_const(all, &always) && always != 0)) {
        for (int k = 0; k < s->n; k++)
            if (keeps[k]) {
                nest.indices[k].lo = guard_loads(m, &nest, slots, nest.indices[k].lo);
                nest.indices[k].hi = guard_loads(m, &nest, slots, nest.indices[k].hi);
            }
        all = guard_loads(m, &nest, slots, all);
        d = ir_fn3(m, FN_where, all, guard_loads(m, &nest, slots, d), ir_const_number(m, d->dtype, 0));
        for (int i = 0; i < rank; i++)
            target[i] = ir_fn3(m, FN_where, all, guard_loads(m, &nest, slots, target[i]), ir_const_int(m, I64, 0));
    }
    /* Indices that no target uses are summed over first. */
    bool used[MAX_INDICES] = {false};
    int order[MAX_INDICES], pars = 0, n = 0;
    for (int k = 0; k < s->n; k++)
        for (int i = 0; i < rank; i++)
            used[k] |= mentions(target[i], k);
    for (int k = 0; k < s->n; k++)
        if (used[k])
            order[n++] = k;
    pars = n;
    for (int k = 0; k < s->n; k++)
        if (!used[k])
            order[n++] = k;
    struct ir_nest_index indices[MAX_INDICES];
    for (int i = 0; i < n; i++) {
        to[order[i]] = ir_index(m, i);
        indices[i] = nest.indices[order[i]];
    }
    for (int i = 0; i < n; i++)
        if (indices[i].lo) {
            indices[i].lo = subst(m, indices[i].lo, to);
            indices[i].hi = subst(m, indices[i].hi, to);
        }
    for (int i = 0; i < rank; i++)
        target[i] = subst(m, target[i], to);
    struct ir_value *base = grad_adjoint(g, a);
    if (!base)
        base = grad_zeros(&g->b, a->type);
    grad_set_adjoint(
        g, a, grad_build(g, indices, pars, n - pars, slots, slot_count, subst(m, d, to), base, COMBINE_ADD, target));
}

/* ---- entries ------------------------------------------------------------------------------------------------------ */

static bool set_domain(struct solver *s, struct grad *g, struct domain_index *domain, int n, ir_expr *e, int count) {
    *s = (struct solver){.g = g, .m = g->m};
    if (n > MAX_INDICES / 2)
        return false;
    ir_expr to[MAX_INDICES];
    for (int bounded = 0; bounded < 2; bounded++)
        for (int k = 0; k < n; k++)
            if ((domain[k].lo != NULL) == bounded) {
                to[k] = ir_index(g->m, s->n);
                s->at[s->n++] = domain[k];
            }
    for (int k = 0; k < n; k++)
        if (s->at[k].lo) {
            s->at[k].lo = subst(g->m, s->at[k].lo, to);
            s->at[k].hi = subst(g->m, s->at[k].hi, to);
        }
    for (int i = 0; i < count; i++)
        e[i] = subst(g->m, e[i], to);
    return true;
}

bool grad_injective(struct grad *g, struct domain_index *domain, int n, const ir_expr *target, int rank) {
    struct solver s;
    ir_expr f[MAX_INDICES];
    int count = 0; /* of the dimensions whose place differs between iterations */
    for (int i = 0; i < rank && rank <= MAX_INDICES; i++)
        if (!uniform(target[i]))
            f[count++] = target[i];
    struct solution o = {0};
    return set_domain(&s, g, domain, n, f, count) && solve(&s, f, count, &o) && o.count == n;
}

void grad_load(struct grad *g, struct domain_index *domain, int n, struct ir_value **slots, int slot_count,
               ir_expr load, ir_expr d) {
    struct ir_value *a = slots[load->index];
    struct ir_module *m = g->m;
    int rank = a->type.rank;
    struct solver s;
    ir_expr e[MAX_INDICES];
    if (!grad_varied(g, a))
        return;
    for (int i = 0; i < rank; i++)
        e[i] = load->args[i];
    e[rank] = d;
    e[rank + 1] = load;
    set_domain(&s, g, domain, n, e, rank + 2);
    s.slots = slots;
    struct solver plain = s;
    ir_expr plain_load = e[rank + 1], plain_d = e[rank];
    int64_t whole = ir_dim_upper(ir_type_elements(m, a->type));
    bool partial = false;
    if (grad_in_loop(g)) {
        double points = 1;
        for (int k = 0; k < n; k++)
            points *= (double)ir_dim_upper(domain[k].extent);
        partial = points < (double)whole;
    }
    if (!partial) {
        struct ir_nest nest = domain_nest(g, s.at, s.n);
        for (int i = 0; i < rank; i++)
            e[i] = ir_expr_simplify(m, &nest, slots, ir_cast(m, I64, e[i]));
        for (;;) {
            struct split at = {&s, -1, NULL};
            for (int i = 0; i < rank; i++)
                ir_expr_walk(e[i], find_split, &at);
            if (at.index < 0 || s.n + rank + 1 >= MAX_INDICES)
                break;
            split_index(&s, at.index, at.by, e, rank + 1);
        }
        struct solution o = {0};
        struct ir_value *contribution;
        if (solve(&s, e, rank, &o)) {
            int points = o.points;
            for (int i = 0; i < rank; i++) { /* a dimension of extent 1 has one point only */
                int64_t one;
                double at_zero;
                if (ir_dim_is_const(a->type.dims[i], &one) && one == 1 && ir_expr_is_const(e[i], &at_zero) &&
                    at_zero == 0)
                    points--;
            }
            if (points <= 0 && gather(&s, &o, slots, slot_count, a, e[rank], &contribution)) {
                grad_add(g, a, contribution);
                return;
            }
        }
    }
    update(&plain, slots, slot_count, plain_load, plain_d);
}
