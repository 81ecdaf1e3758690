/* Lowering of a nest to loops. Three schedules, chosen from shapes and access patterns alone, never from the number of
 * threads, because a reduction's order is part of the result:
 *
 *   plain      parallel loops in row-major order, the reduction inside with its accumulators in registers
 *   lanes      the innermost reduction index walks contiguous memory: a sum keeps W partial sums (16 of f32, 8 of f64),
 *              element k in partial k % W, combined by halving; W does not depend on the target. Each row of several
 *              reduction indices, and each 4096 elements of a long one, is a sum of its own, added to the total: rounding
 *              errors grow with the length of a row and the number of rows, not with their product
 *   columns    the innermost parallel index walks contiguous memory and the reduction does not (the sum over rows): a
 *              block of accumulators in a local array, the reduction outside the loop over the block
 *
 * A plain reduction of a few terms (the window of a pooling) is unrolled, so that the loop around it is the innermost. So is the
 * remainder of an innermost parallel index that the body divides by a constant (the gradient of that window): the loop is
 * over quotients.
 *
 * The loops over contiguous memory are left to the C compiler to vectorize: they are innermost, have no calls and no tests
 * but selects, and what they store aliases nothing they load. Trailing indices that every load walks in step are one loop.
 */
#include <math.h>

#include "passes/lower.h"

enum { COLUMN_BLOCK = 64, TASK_GRAIN = 64, UNROLL_MOST = 16, LANE_BLOCK = 4096 };

enum schedule { PLAIN, LANES, COLUMNS };

struct nest_lower {
    struct nest_scope n;
    struct lower *l;
    const struct ir_nest *nest;
    enum schedule schedule;
    int flat_pars, flat_reds; /* trailing indices that are one loop; 0 or 1: none */
    struct loop_var *acc[NEST_MAX], *position[NEST_MAX];
    struct loop_mem *part[NEST_MAX]; /* LANES: partial sums; COLUMNS: the block */
    int width[NEST_MAX];
    bool updates;
    bool unrolled;                 /* PLAIN: the reduction's terms are written out; */
    bool first_term;               /* the next is the first of them */
    bool rows;                     /* LANES: partial sums are folded into registers after each row */
    int64_t divisor;               /* > 1: the innermost parallel loop is over quotients by it */
    lx column_first, column_count; /* of the block */
};

/* ---- accumulators --------------------------------------------------------------------------------------------------- */

bool lower_is_arg(enum reduce_op op) {
    return op == RED_ARGMAX || op == RED_ARGMIN;
}

static lx least(struct loop_builder *b, enum dtype t) {
    if (dtype_is_float(t))
        return lx_const_float(b, t, -INFINITY);
    int bits = dtype_size(t) * 8;
    if (!dtype_is_signed(t))
        return lx_const_int(b, t, 0);
    return lx_const_int(b, t, bits == 64 ? INT64_MIN : -(INT64_C(1) << (bits - 1)));
}

static lx greatest(struct loop_builder *b, enum dtype t) {
    if (dtype_is_float(t))
        return lx_const_float(b, t, INFINITY);
    int bits = dtype_size(t) * 8 - (dtype_is_signed(t) ? 1 : 0);
    if (t == BOOL)
        return lx_const_int(b, t, 1);
    return lx_const_int(b, t, bits == 64 ? -1 : bits == 63 ? INT64_MAX : (INT64_C(1) << bits) - 1);
}

lx lower_identity(struct loop_builder *b, enum reduce_op op, enum dtype t) {
    switch (op) {
    case RED_SUM: return dtype_is_float(t) ? lx_const_float(b, t, 0) : lx_const_int(b, t, 0);
    case RED_PROD: return dtype_is_float(t) ? lx_const_float(b, t, 1) : lx_const_int(b, t, 1);
    case RED_MAX:
    case RED_ARGMAX: return least(b, t);
    case RED_MIN:
    case RED_ARGMIN: return greatest(b, t);
    case RED_ANY: return lx_const_int(b, BOOL, 0);
    case RED_ALL: return lx_const_int(b, BOOL, 1);
    default: return NULL;
    }
}

lx lower_combine(struct loop_builder *b, enum reduce_op op, lx sum, lx value) {
    static const enum scalar_fn fns[] = {[RED_SUM] = FN_add, [RED_PROD] = FN_mul, [RED_MAX] = FN_max,
                                         [RED_MIN] = FN_min, [RED_ANY] = FN_or,   [RED_ALL] = FN_and};
    return lx_fn2(b, fns[op], sum, value);
}

/* ---- loops ---------------------------------------------------------------------------------------------------------- */

/* The identity on the last `q` of `count` indices from `first`: every load that uses one of them has them as its last
 * subscripts, in order, over the same extents. */
static bool walks_in_step(struct nest_lower *w, ir_expr e, int first, int q) {
    const struct ir_value *v = w->l->op->operands[e->index];
    uint32_t mask = ((1u << q) - 1) << first, used = 0;
    for (int d = 0; d < v->type.rank; d++)
        used |= nest_uses(e->args[d]);
    if (e->guarded)
        used |= nest_uses(e->args[v->type.rank]);
    if (!(used & mask))
        return true;
    if (v->type.rank < q)
        return false;
    for (int d = 0; d < v->type.rank; d++) {
        int k = d - (v->type.rank - q);
        if (k < 0) {
            if (nest_uses(e->args[d]) & mask)
                return false;
        } else if (e->args[d]->kind != X_INDEX || e->args[d]->index != first + k ||
                   v->type.dims[d] != w->nest->indices[first + k].extent) {
            return false;
        }
    }
    return !e->guarded || !(nest_uses(e->args[v->type.rank]) & mask);
}

struct step_check {
    struct nest_lower *w;
    int first, q;
    bool ok;
};

static void check_step(ir_expr e, struct step_check *c) {
    if (e->kind == X_LOAD) {
        c->ok = c->ok && walks_in_step(c->w, e, c->first, c->q);
        int rank = c->w->l->op->operands[e->index]->type.rank;
        for (int d = 0; d < e->count; d++)
            if (d >= rank || e->args[d]->kind != X_INDEX)
                check_step(e->args[d], c);
        return;
    }
    if (e->kind == X_INDEX && e->index >= c->first && e->index < c->first + c->q)
        c->ok = false;
    for (int i = 0; i < e->count; i++)
        check_step(e->args[i], c);
}

static bool one_loop(struct nest_lower *w, int first, int q) {
    struct step_check c = {.w = w, .first = first, .q = q, .ok = true};
    const struct ir_nest *nest = w->nest;
    for (int i = nest->pars; i < nest->pars + nest->reds; i++) {
        if (i >= first && i < first + q &&
            (nest->indices[i].lo->kind != X_CONST || nest->indices[i].lo->value.i != 0 ||
             nest_uses(nest->indices[i].hi)))
            return false;
        check_step(nest->indices[i].lo, &c);
        check_step(nest->indices[i].hi, &c);
    }
    for (int i = 0; i < nest->acc_count && c.ok; i++)
        check_step(nest->accs[i].body, &c);
    for (int r = 0; r < w->l->op->result_count && c.ok; r++) {
        check_step(nest->results[r].value, &c);
        if (nest->results[r].base >= 0)
            return false;
    }
    return c.ok;
}

static int flat_count(struct nest_lower *w, int first, int count) {
    for (int q = count; q > 1; q--)
        if (one_loop(w, first + count - q, q))
            return q;
    return 1;
}

int lower_flat_count(struct lower *l, int first, int count) {
    struct nest_lower w = {.l = l, .nest = &l->op->nest};
    return flat_count(&w, first, count);
}

static lx extent_of(struct nest_lower *w, int first, int q) {
    ir_dim d = w->nest->indices[first].extent;
    for (int i = 1; i < q; i++)
        d = ir_dim_mul(w->l->module, d, w->nest->indices[first + i].extent);
    return nest_dim(&w->n, d);
}

static int64_t upper_of(struct nest_lower *w, int first, int q) {
    double n = 1;
    for (int i = 0; i < q; i++)
        n *= (double)ir_dim_upper(w->nest->indices[first + i].extent);
    return n < 9e18 ? (int64_t)n : INT64_MAX;
}

static bool surely_runs(struct nest_lower *w, int i) {
    const struct ir_nest_index *x = &w->nest->indices[i];
    if (i < w->nest->pars)
        return ir_dim_lower(x->extent) >= 1;
    double lo, hi;
    if (ir_expr_is_const(x->lo, &lo) && ir_expr_is_const(x->hi, &hi))
        return lo < hi;
    return ir_expr_is_const(x->lo, &lo) && x->hi->kind == X_DIM && ir_dim_lower(x->hi->dim) > (int64_t)lo;
}

/* One of the terms of argmax or argmin written out: without branches, for the loop around them. */
static void unrolled_extremum(struct nest_lower *w, int i, lx value) {
    struct loop_builder *b = w->l->b;
    struct loop_block *k = w->n.block[w->n.depth];
    lx best = lx_var(b, w->acc[i]), at = lx_cast(b, I32, nest_index(&w->n, ir_nest_position(w->l->module, w->nest)));
    if (w->first_term) {
        loop_set(b, k, w->acc[i], NULL, value);
        loop_set(b, k, w->position[i], NULL, at);
        return;
    }
    struct loop_var *v = loop_var_new(b, "candidate", value->dtype, 1);
    loop_def(b, k, v, value);
    lx x = lx_var(b, v), position = lx_var(b, w->position[i]);
    bool max = w->nest->accs[i].op == RED_ARGMAX;
    if (!dtype_is_float(x->dtype)) {
        lx better = max ? lx_fn2(b, FN_lt, best, x) : lx_fn2(b, FN_lt, x, best);
        loop_set(b, k, w->position[i], NULL, lx_select(b, better, at, position));
        loop_set(b, k, w->acc[i], NULL, lx_select(b, better, x, best));
        return;
    }
    /* Larger or nan, unless the best is nan: each selection by one comparison, as the C compiler vectorizes it. */
    lx better = lx_op(b, I_NOT, max ? lx_fn2(b, FN_le, x, best) : lx_fn2(b, FN_le, best, x), NULL),
       number = lx_fn2(b, FN_eq, best, best);
    struct loop_var *place = loop_var_new(b, "place", I32, 1), *extremum = loop_var_new(b, "extremum", x->dtype, 1);
    loop_def(b, k, place, lx_select(b, better, at, position));
    loop_def(b, k, extremum, lx_select(b, better, x, best));
    loop_set(b, k, w->position[i], NULL, lx_select(b, number, lx_var(b, place), position));
    loop_set(b, k, w->acc[i], NULL, lx_select(b, number, lx_var(b, extremum), best));
}

/* One candidate of argmax or argmin: the first extremum stays; a nan is one. position < 0: nothing seen yet. */
void lower_extremum(struct nest_scope *n, enum reduce_op op, struct loop_var *acc, struct loop_var *position, lx value,
                    lx at) {
    struct loop_builder *b = n->l->b;
    struct loop_block *k = n->block[n->depth];
    struct loop_var *v = loop_var_new(b, "candidate", value->dtype, 1);
    loop_def(b, k, v, value);
    lx x = lx_var(b, v), best = lx_var(b, acc), at_best = lx_var(b, position);
    lx better = op == RED_ARGMAX ? lx_fn2(b, FN_lt, best, x) : lx_fn2(b, FN_lt, x, best);
    if (dtype_is_float(x->dtype)) {
        lx nan_x = lx_fn(b, FN_isnan, BOOL, 1, &x), nan_best = lx_fn(b, FN_isnan, BOOL, 1, &best);
        better = lx_op(b, I_OR, better, lx_op(b, I_AND, nan_x, lx_op(b, I_NOT, nan_best, NULL)));
    }
    better = lx_op(b, I_OR, lx_op(b, I_LT, at_best, lx_int(b, 0)), better);
    struct loop_stmt *s = loop_if(b, k, better);
    loop_set(b, &s->body, acc, NULL, x);
    loop_set(b, &s->body, position, NULL, at);
}

/* One step of every accumulator. `at`: subscript into the partial sums, or NULL for registers. */
static void accumulate(struct nest_lower *w, lx at) {
    struct loop_builder *b = w->l->b;
    struct nest_scope *n = &w->n;
    for (int i = 0; i < w->nest->acc_count; i++) {
        const struct ir_acc *a = &w->nest->accs[i];
        lx value = nest_value(n, a->body);
        struct loop_block *k = n->block[n->depth];
        if (w->part[i]) {
            loop_store(b, k, w->part[i], at, lower_combine(b, a->op, lx_load(b, w->part[i], at, 1), value));
        } else if (lower_is_arg(a->op)) {
            if (w->unrolled) {
                unrolled_extremum(w, i, value);
                continue;
            }
            lower_extremum(n, a->op, w->acc[i], w->position[i], value,
                           nest_index(n, ir_nest_position(w->l->module, w->nest)));
        } else {
            loop_set(b, k, w->acc[i], NULL, lower_combine(b, a->op, lx_var(b, w->acc[i]), value));
        }
    }
}

/* Stores the results; all values are computed before the first store, which may overwrite an operand. */
static void store_results(struct nest_lower *w) {
    struct loop_builder *b = w->l->b;
    struct nest_scope *n = &w->n;
    int count = w->l->op->result_count;
    lx values[NEST_MAX];
    for (int r = 0; r < count; r++) {
        values[r] = nest_value(n, w->nest->results[r].value);
        if (count > 1 && values[r]->kind != LX_VAR && values[r]->kind != LX_CONST) {
            const char *name = w->l->op->results[r]->name;
            struct loop_var *v =
                loop_var_new(b, name ? arena_printf(b->arena, "%s_value", name) : "value", values[r]->dtype, 1);
            loop_def(b, n->block[n->depth], v, values[r]);
            values[r] = lx_var(b, v);
        }
    }
    for (int r = 0; r < count; r++)
        nest_store(n, r, values[r]);
}

/* Partial sums: declared and set to the identity. */
static void open_lanes(struct nest_lower *w, struct loop_block *k) {
    struct loop_builder *b = w->l->b;
    for (int i = 0; i < w->nest->acc_count; i++) {
        const struct ir_acc *a = &w->nest->accs[i];
        w->part[i] = loop_mem_new(b, "part", a->body->dtype, MEM_LOCAL);
        w->part[i]->count = w->width[i];
        loop_local(b, k, w->part[i]);
        struct loop_var *lane = loop_var_new(b, "lane_", I64, 1);
        struct loop_stmt *s = loop_for(b, k, lane, lx_int(b, 0), lx_int(b, w->width[i]), 1, LOOP_SERIAL);
        loop_store(b, &s->body, w->part[i], lx_var(b, lane), lower_identity(b, a->op, a->body->dtype));
    }
}

/* Combined by halving; the sum of accumulator i. */
static lx fold_lanes(struct nest_lower *w, struct loop_block *k, int i) {
    struct loop_builder *b = w->l->b;
    for (int half = w->width[i] / 2; half > 0; half /= 2) {
        struct loop_var *lane = loop_var_new(b, "lane_", I64, 1);
        struct loop_stmt *s = loop_for(b, k, lane, lx_int(b, 0), lx_int(b, half), 1, LOOP_SERIAL);
        lx at = lx_var(b, lane);
        loop_store(b, &s->body, w->part[i], at,
                   lower_combine(b, w->nest->accs[i].op, lx_load(b, w->part[i], at, 1),
                                 lx_load(b, w->part[i], lx_add(b, at, lx_int(b, half)), 1)));
    }
    return lx_load(b, w->part[i], lx_int(b, 0), 1);
}

/* `length` elements from lo into W partial sums: whole groups of W, then the rest. */
static void lane_groups(struct nest_lower *w, int i, int q, lx lo, lx length) {
    struct nest_scope *n = &w->n;
    struct loop_builder *b = w->l->b;
    int depth = n->depth, width = w->width[0];
    struct loop_block *parent = n->block[depth];
    lx groups;
    int64_t c;
    if (!lx_is_int(length, &c)) {
        struct loop_var *count = loop_var_new(b, "whole", I64, 1);
        loop_def(b, parent, count, lx_sub(b, length, lx_op(b, I_FMOD, length, lx_int(b, width))));
        groups = lx_var(b, count);
    } else {
        groups = lx_int(b, c < 0 ? 0 : c - c % width);
    }
    bool runs = surely_runs(w, i);
    for (int tail = 0; tail < 2; tail++) {
        if (tail && lx_is_int(length, &c) && c % width == 0)
            break;
        struct loop_var *k = loop_var_new(b, w->nest->indices[i].name, I64, 1),
                        *lane = loop_var_new(b, "lane_", I64, 1);
        struct loop_stmt *outer =
            loop_for(b, NULL, k, tail ? groups : lx_int(b, 0), tail ? length : groups, tail ? 1 : width, LOOP_SERIAL);
        nest_scope_enter(n, depth + 1, &outer->body, runs);
        struct loop_stmt *inner = NULL;
        if (!tail) {
            inner = loop_for(b, NULL, lane, lx_int(b, 0), lx_int(b, width), 1, LOOP_SERIAL);
            nest_scope_enter(n, depth + 2, &inner->body, true);
        }
        lx at = tail ? lx_sub(b, lx_var(b, k), groups) : lx_var(b, lane);
        lx offset = tail ? lx_var(b, k) : lx_add(b, lx_var(b, k), lx_var(b, lane));
        nest_scope_set(n, i + q - 1, lx_add(b, lo, offset), n->depth);
        for (int z = i; z < i + q - 1; z++)
            nest_scope_set(n, z, lx_int(b, 0), 0);
        accumulate(w, at);
        if (inner)
            loop_append(&outer->body, inner);
        n->depth = depth;
        loop_append(parent, outer);
    }
}

/* One row of the innermost reduction loop, in pieces if it is long. */
static void lane_row(struct nest_lower *w, int i, int q, lx lo, lx length) {
    struct nest_scope *n = &w->n;
    struct loop_builder *b = w->l->b;
    int depth = n->depth;
    if (!w->rows) {
        lane_groups(w, i, q, lo, length);
        return;
    }
    struct loop_block *parent = n->block[depth];
    struct loop_stmt *pieces = NULL;
    if (upper_of(w, i, q) > LANE_BLOCK) {
        struct loop_var *from = loop_var_new(b, "from", I64, 1);
        pieces = loop_for(b, NULL, from, lx_int(b, 0), length, LANE_BLOCK, LOOP_SERIAL);
        nest_scope_enter(n, depth + 1, &pieces->body, surely_runs(w, i));
        lo = lx_add(b, lo, lx_var(b, from));
        length = lx_min(b, lx_sub(b, length, lx_var(b, from)), lx_int(b, LANE_BLOCK));
    }
    struct loop_block *k = n->block[n->depth];
    open_lanes(w, k);
    lane_groups(w, i, q, lo, length);
    for (int a = 0; a < w->nest->acc_count; a++)
        loop_set(b, k, w->acc[a], NULL,
                 lower_combine(b, w->nest->accs[a].op, lx_var(b, w->acc[a]), fold_lanes(w, k, a)));
    n->depth = depth;
    if (pieces)
        loop_append(parent, pieces);
}

/* The reduction loops from reduction index `i` on, inside the current block; the innermost body by `body`. */
static void reduction_loops(struct nest_lower *w, int i, void (*body)(struct nest_lower *)) {
    struct nest_scope *n = &w->n;
    struct loop_builder *b = w->l->b;
    int end = w->nest->pars + w->nest->reds;
    if (i == end) {
        body(w);
        w->first_term = false;
        return;
    }
    if (w->unrolled) {
        double lo, hi;
        ir_expr_is_const(w->nest->indices[i].lo, &lo);
        ir_expr_is_const(w->nest->indices[i].hi, &hi);
        for (int64_t at = (int64_t)lo; at < (int64_t)hi; at++) {
            nest_scope_set(n, i, lx_int(b, at), 0);
            reduction_loops(w, i + 1, body);
        }
        return;
    }
    int q = i == end - w->flat_reds ? w->flat_reds : 1, depth = n->depth;
    const struct ir_nest_index *x = &w->nest->indices[i];
    lx lo = nest_index(n, x->lo), hi = q > 1 ? extent_of(w, i, q) : nest_index(n, x->hi);
    struct loop_block *parent = n->block[depth];
    if (w->schedule == LANES && i + q == end) {
        lane_row(w, i, q, lo, lx_sub(b, hi, lo));
        return;
    }
    struct loop_var *k = loop_var_new(b, x->name, I64, 1);
    struct loop_stmt *s = loop_for(b, NULL, k, lo, hi, 1, LOOP_SERIAL);
    nest_scope_enter(n, depth + 1, &s->body, surely_runs(w, i));
    nest_scope_set(n, i + q - 1, lx_var(b, k), depth + 1);
    for (int z = i; z < i + q - 1; z++)
        nest_scope_set(n, z, lx_int(b, 0), 0);
    reduction_loops(w, i + q, body);
    n->depth = depth;
    loop_append(parent, s);
}

static void plain_body(struct nest_lower *w) {
    accumulate(w, NULL);
}

/* ---- the three schedules: what stands inside the parallel loops -------------------------------------------------------- */

static void reduce_and_store(struct nest_lower *w) {
    struct nest_scope *n = &w->n;
    struct loop_builder *b = w->l->b;
    struct loop_block *k = n->block[n->depth];
    const struct ir_nest *nest = w->nest;
    int row = w->flat_reds > 1 ? w->flat_reds : 1;
    w->rows =
        w->schedule == LANES && (nest->reds > row || upper_of(w, nest->pars + nest->reds - row, row) > LANE_BLOCK);
    if (w->schedule == LANES && !w->rows)
        open_lanes(w, k);
    for (int i = 0; i < nest->acc_count && (w->schedule != LANES || w->rows); i++) {
        const struct ir_acc *a = &nest->accs[i];
        enum dtype t = a->body->dtype;
        lx start = lower_identity(b, a->op, t);
        w->acc[i] = loop_var_new(b, reduce_names[a->op], t, 1);
        w->acc[i]->is_mutable = true;
        loop_def(b, k, w->acc[i], start);
        n->acc[i] = lx_var(b, w->acc[i]);
        if (lower_is_arg(a->op)) {
            w->position[i] = loop_var_new(b, "position", w->unrolled ? I32 : I64, 1);
            w->position[i]->is_mutable = true;
            loop_def(b, k, w->position[i], w->unrolled ? lx_const_int(b, I32, 0) : lx_int(b, -1));
        }
    }
    w->first_term = true;
    reduction_loops(w, nest->pars, plain_body);
    for (int i = 0; i < nest->acc_count; i++) {
        if (lower_is_arg(nest->accs[i].op)) {
            lx p = lx_var(b, w->position[i]);
            n->acc[i] = w->unrolled ? p : lx_cast(b, I32, lx_op(b, I_MAX, p, lx_int(b, 0)));
        }
        if (w->schedule == LANES && !w->rows)
            n->acc[i] = fold_lanes(w, k, i);
    }
    store_results(w);
}

/* The loop over a block of columns: before the reduction, inside it, and after it. */
static struct loop_stmt *open_columns(struct nest_lower *w, lx *at) {
    struct loop_builder *b = w->l->b;
    struct nest_scope *n = &w->n;
    int last = w->nest->pars - 1;
    struct loop_var *j = loop_var_new(b, w->nest->indices[last].name, I64, 1);
    struct loop_stmt *s = loop_for(b, NULL, j, lx_int(b, 0), w->column_count, 1, LOOP_SERIAL);
    nest_scope_enter(n, n->depth + 1, &s->body, true);
    nest_scope_set(n, last, lx_add(b, w->column_first, lx_var(b, j)), n->depth);
    *at = lx_var(b, j);
    return s;
}

static void close_columns(struct nest_lower *w, struct loop_stmt *s) {
    w->n.depth--;
    loop_append(w->n.block[w->n.depth], s);
}

static void column_body(struct nest_lower *w) {
    lx at;
    struct loop_stmt *s = open_columns(w, &at);
    accumulate(w, at);
    close_columns(w, s);
}

static void reduce_columns(struct nest_lower *w) {
    struct nest_scope *n = &w->n;
    struct loop_builder *b = w->l->b;
    struct loop_block *k = n->block[n->depth];
    const struct ir_nest *nest = w->nest;
    lx at;
    for (int i = 0; i < nest->acc_count; i++) {
        w->part[i] = loop_mem_new(b, reduce_names[nest->accs[i].op], nest->accs[i].body->dtype, MEM_LOCAL);
        w->part[i]->count = COLUMN_BLOCK;
        loop_local(b, k, w->part[i]);
    }
    struct loop_stmt *s = open_columns(w, &at);
    for (int i = 0; i < nest->acc_count; i++)
        loop_store(b, &s->body, w->part[i], at, lower_identity(b, nest->accs[i].op, nest->accs[i].body->dtype));
    close_columns(w, s);
    reduction_loops(w, nest->pars, column_body);
    s = open_columns(w, &at);
    for (int i = 0; i < nest->acc_count; i++)
        n->acc[i] = lx_load(b, w->part[i], at, 1);
    store_results(w);
    close_columns(w, s);
}

/* The results for every remainder, computed before the first store. */
static void store_remainders(struct nest_lower *w) {
    struct loop_builder *b = w->l->b;
    struct nest_scope *n = &w->n;
    int count = w->l->op->result_count, last = w->nest->pars - 1, level = n->level[last];
    lx quotient = n->index[last], values[UNROLL_MOST];
    for (int64_t r = 0; r < w->divisor; r++) {
        nest_scope_set(n, last, lx_add(b, lx_mul(b, quotient, lx_int(b, w->divisor)), lx_int(b, r)), level);
        for (int i = 0; i < count; i++) {
            lx value = nest_value(n, w->nest->results[i].value);
            if (value->kind != LX_VAR && value->kind != LX_CONST) {
                struct loop_var *v = loop_var_new(b, "value", value->dtype, 1);
                loop_def(b, n->block[n->depth], v, value);
                value = lx_var(b, v);
            }
            values[r * count + i] = value;
        }
    }
    for (int64_t r = 0; r < w->divisor; r++) {
        nest_scope_set(n, last, lx_add(b, lx_mul(b, quotient, lx_int(b, w->divisor)), lx_int(b, r)), level);
        for (int i = 0; i < count; i++)
            nest_store(n, i, values[r * count + i]);
    }
}

static void innermost(struct nest_lower *w) {
    if (w->schedule == COLUMNS)
        reduce_columns(w);
    else if (w->nest->reds)
        reduce_and_store(w);
    else if (w->divisor > 1)
        store_remainders(w);
    else
        store_results(w);
}

/* Parallel loops from index i on. A loop that is split among tasks gets one around it that counts them. */
static void parallel_loops(struct nest_lower *w, int i, int task_index, int64_t tasks) {
    struct nest_scope *n = &w->n;
    struct loop_builder *b = w->l->b;
    int pars = w->nest->pars, depth = n->depth;
    if (i == pars) {
        innermost(w);
        return;
    }
    int q = i == pars - w->flat_pars ? w->flat_pars : 1;
    const struct ir_nest_index *x = &w->nest->indices[i];
    lx lo = lx_int(b, 0), hi = extent_of(w, i, q);
    struct loop_block *parent = n->block[depth];
    bool last = i + q == pars, columns = last && w->schedule == COLUMNS;
    struct loop_stmt *split = NULL;
    int level = depth;
    if (i == task_index && tasks > 1) {
        /* Chunks of the upper bound, so that the split depends on nothing that changes at run time. */
        int64_t upper = upper_of(w, i, q), chunk = (upper + tasks - 1) / tasks,
                grain = last && (!w->nest->reds || columns) ? TASK_GRAIN : 1;
        chunk = (chunk + grain - 1) / grain * grain;
        tasks = (upper + chunk - 1) / chunk;
        struct loop_var *task = loop_var_new(b, "part_of", I64, 1);
        split = loop_for(b, NULL, task, lx_int(b, 0), lx_int(b, tasks), 1, LOOP_PARALLEL);
        nest_scope_enter(n, ++level, &split->body, true);
        lo = lx_mul(b, lx_var(b, task), lx_int(b, chunk));
        lx end = lx_add(b, lo, lx_int(b, chunk));
        int64_t exact;
        hi = lx_is_int(hi, &exact) && exact % chunk == 0 ? end : lx_min(b, end, hi);
        struct loop_var *end_var = loop_var_new(b, "end", I64, 1);
        loop_def(b, &split->body, end_var, hi);
        hi = lx_var(b, end_var);
    }
    if (last && w->divisor > 1) /* task bounds are multiples of it, for TASK_GRAIN is */
        lo = lx_div(b, lo, lx_int(b, w->divisor)), hi = lx_div(b, hi, lx_int(b, w->divisor));
    struct loop_var *v = loop_var_new(b, columns ? "block" : x->name, I64, 1);
    struct loop_stmt *s = loop_for(b, NULL, v, lo, hi, columns ? COLUMN_BLOCK : 1, LOOP_SERIAL);
    nest_scope_enter(n, level + 1, &s->body, !split && surely_runs(w, i));
    if (columns) {
        w->column_first = lx_var(b, v);
        lx count = lx_min(b, lx_int(b, COLUMN_BLOCK), lx_sub(b, hi, lx_var(b, v)));
        int64_t exact;
        if (lx_is_int(hi, &exact) && exact % COLUMN_BLOCK == 0) {
            count = lx_int(b, COLUMN_BLOCK);
        } else {
            struct loop_var *c = loop_var_new(b, "columns", I64, 1);
            loop_def(b, &s->body, c, count);
            count = lx_var(b, c);
        }
        w->column_count = count;
    } else {
        nest_scope_set(n, i + q - 1, lx_var(b, v), level + 1);
        for (int z = i; z < i + q - 1; z++)
            nest_scope_set(n, z, lx_int(b, 0), 0);
    }
    parallel_loops(w, i + q, task_index, tasks);
    if (split) {
        loop_append(&split->body, s);
        s = split;
    }
    n->depth = depth;
    loop_append(parent, s);
}

/* ---- choice --------------------------------------------------------------------------------------------------------- */

struct score {
    struct nest_lower *w;
    int index;
    int64_t unit, far;
};

static void score_load(ir_expr e, void *context) {
    struct score *s = context;
    if (e->kind != X_LOAD)
        return;
    int64_t stride;
    if (!nest_stride(s->w->l, e, s->index, &stride))
        s->far++;
    else if (stride == 1)
        s->unit++;
    else if (stride != 0)
        s->far++;
}

static int64_t score_of(struct nest_lower *w, int index) {
    struct score s = {.w = w, .index = index};
    for (int i = 0; i < w->nest->acc_count; i++)
        ir_expr_walk(w->nest->accs[i].body, score_load, &s);
    return s.unit - 2 * s.far;
}

static void choose(struct nest_lower *w) {
    const struct ir_nest *nest = w->nest;
    w->schedule = PLAIN;
    if (!nest->reds)
        return;
    int last = nest->pars + nest->reds - 1, column = nest->pars - 1;
    bool plain = w->updates, ragged = false, lanes = true;
    for (int i = 0; i < nest->acc_count; i++) {
        const struct ir_acc *a = &nest->accs[i];
        plain |= lower_is_arg(a->op);
        lanes &= dtype_is_float(a->body->dtype) && (a->op == RED_SUM || a->op == RED_MAX || a->op == RED_MIN);
        w->width[i] = 64 / dtype_size(a->body->dtype);
        lanes &= w->width[i] == w->width[0];
    }
    if (plain)
        return;
    for (int i = nest->pars; i < nest->pars + nest->reds && column >= 0; i++)
        ragged |= ((nest_uses(nest->indices[i].lo) | nest_uses(nest->indices[i].hi)) >> column & 1) != 0;
    int64_t along = score_of(w, last), across = column < 0 || ragged ? -1 : score_of(w, column);
    int64_t length = upper_of(w, nest->pars + nest->reds - w->flat_reds, w->flat_reds);
    if (across > along && across > 0 && ir_dim_upper(nest->indices[column].extent) >= 4) {
        w->schedule = COLUMNS;
        w->flat_pars = 1;
    } else if (lanes && along > 0 && length >= w->width[0]) {
        w->schedule = LANES;
    }
}

/* The reduction as a few terms written out. */
static bool few_terms(struct nest_lower *w) {
    double terms = 1, lo, hi;
    for (int i = w->nest->pars; i < w->nest->pars + w->nest->reds; i++) {
        const struct ir_nest_index *x = &w->nest->indices[i];
        if (!ir_expr_is_const(x->lo, &lo) || !ir_expr_is_const(x->hi, &hi) || hi <= lo)
            return false;
        terms *= hi - lo;
    }
    return terms <= UNROLL_MOST;
}

struct divisors {
    int index;
    int64_t divisor;
    bool several;
};

static void note_divisor(ir_expr e, void *context) {
    struct divisors *d = context;
    if (e->kind != X_FN || (e->fn != FN_div && e->fn != FN_mod) || e->args[0]->kind != X_INDEX ||
        e->args[0]->index != d->index)
        return;
    if (e->args[1]->kind != X_CONST || e->args[1]->value.i <= 1)
        d->several = true;
    else if (d->divisor == 0 || d->divisor == e->args[1]->value.i)
        d->divisor = e->args[1]->value.i;
    else
        d->several = true;
}

/* The constant that the body divides the last parallel index by, if the index is a whole number of its multiples. */
static int64_t divisor_of(struct nest_lower *w) {
    int64_t extent;
    struct divisors d = {.index = w->nest->pars - 1};
    for (int r = 0; r < w->l->op->result_count; r++)
        ir_expr_walk(w->nest->results[r].value, note_divisor, &d);
    if (d.several || d.divisor < 2 || TASK_GRAIN % d.divisor || d.divisor * w->l->op->result_count > UNROLL_MOST ||
        !ir_dim_is_const(w->nest->indices[d.index].extent, &extent) || extent % d.divisor)
        return 0;
    return d.divisor;
}

void lower_nest(struct lower *l) {
    struct ir_op *op = l->op;
    struct nest_lower *w = arena_alloc(l->b->arena, sizeof *w);
    const struct ir_nest *nest = &op->nest;
    w->l = l;
    w->nest = nest;
    for (int r = 0; r < op->result_count; r++)
        w->updates |= nest->results[r].base >= 0;
    nest_scope_init(&w->n, l);
    w->flat_pars = w->updates || nest->pars == 0 ? 1 : flat_count(w, 0, nest->pars);
    w->flat_reds = nest->reds ? flat_count(w, nest->pars, nest->reds) : 1;
    choose(w);
    w->unrolled = nest->reds && w->schedule == PLAIN && nest->pars > 0 && few_terms(w);
    w->divisor = !nest->reds && !w->updates && nest->pars > 0 && w->flat_pars <= 1 ? divisor_of(w) : 0;
    l->flops += nest_flops(nest, op->result_count);
    /* Split the first loop that has something to split. Updates may meet in one place: they stay in order. */
    double work = (double)upper_of(w, 0, nest->pars + nest->reds);
    int task_index = -1;
    int64_t tasks = 1;
    if (!w->updates && nest->pars > 0) {
        for (task_index = 0;
             task_index < nest->pars - w->flat_pars && ir_dim_upper(nest->indices[task_index].extent) == 1;)
            task_index++;
        int q = task_index == nest->pars - w->flat_pars ? w->flat_pars : 1;
        tasks = lower_tasks(l, upper_of(w, task_index, q), work);
    }
    parallel_loops(w, 0, task_index, tasks);
}
