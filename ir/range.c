/* Ranges of index expressions.
 *
 * An expression is brought to a linear form first, so that i - i and i * 4 + j - i * 4 are exact. Bounds of
 * reduction indices that depend on outer indices are substituted into the form from the innermost outwards (as
 * in Fourier-Motzkin elimination), so that i - j is not negative where j runs to i. What is left is bounded
 * leaf by leaf; the ends are dimensions.
 *
 * I64 arithmetic over indices, dimensions and narrower loads is taken not to overflow: extents are bounded by
 * IR_DIM_LIMIT. For narrower types a range counts only if it fits; an i64 or u64 load has no range. */
#include "ir/linear.h"

static const struct ir_range unknown = {0};

static struct ir_range make(ir_dim lo, ir_dim hi) {
    return (struct ir_range){lo, hi, lo && hi};
}

static struct ir_range dtype_range(struct ir_module *m, enum dtype t) {
    int bits = dtype_size(t) * 8;
    if (t == BOOL)
        return make(ir_dim_const(m, 0), ir_dim_const(m, 1));
    if (!dtype_is_int(t) || bits == 64)
        return unknown;
    int64_t span = (int64_t)1 << bits, lo = dtype_is_signed(t) ? -(span / 2) : 0;
    return make(ir_dim_const(m, lo), ir_dim_const(m, lo + span - 1));
}

bool range_fits(struct ir_range r, enum dtype t) {
    if (!r.known)
        return false;
    if (t == I64)
        return true;
    if (t == U64)
        return ir_dim_lower(r.lo) >= 0;
    if (t != BOOL && !dtype_is_int(t))
        return false;
    int bits = t == BOOL ? 1 : dtype_size(t) * 8;
    int64_t span = (int64_t)1 << bits, lo = dtype_is_signed(t) ? -(span / 2) : 0;
    return ir_dim_lower(r.lo) >= lo && ir_dim_upper(r.hi) <= lo + span - 1;
}

static int sign_of(ir_dim k) {
    return ir_dim_lower(k) >= 0 ? 1 : ir_dim_upper(k) <= 0 ? -1 : 0;
}

static const struct ir_nest_index *index_of(const struct ranges *r, ir_expr e) {
    bool known = r->nest && e->kind == X_INDEX && e->index < r->nest->pars + r->nest->reds;
    return known ? &r->nest->indices[e->index] : NULL;
}

static bool is_box(const struct ir_nest_index *x) {
    return !x->lo && !x->hi;
}

/* Replaces the indices whose bounds are expressions by the bound that makes the form largest or smallest; by their extents, of which
 * less is known but the size, instead of upper bounds if `by_extent`. */
static bool eliminate(struct ranges *r, struct linear *form, bool upper, bool by_extent) {
    struct ir_module *m = r->module;
    for (int steps = 0; steps < LINEAR_MAX; steps++) {
        int inner = -1;
        for (int i = 0; i < form->n; i++) {
            const struct ir_nest_index *x = index_of(r, form->at[i].leaf);
            if (x && !is_box(x) && (inner < 0 || form->at[i].leaf->index > form->at[inner].leaf->index))
                inner = i;
        }
        if (inner < 0)
            return true;
        ir_dim k = form->at[inner].k;
        const struct ir_nest_index *x = index_of(r, form->at[inner].leaf);
        int sign = sign_of(k);
        if (!sign)
            return false;
        struct linear end;
        bool to_hi = (sign > 0) == upper;
        ir_expr limit = to_hi ? x->hi : x->lo;
        if (!limit || (to_hi && by_extent && !ir_extent_is_open(x->extent)))
            end = (struct linear){.constant = to_hi ? x->extent : ir_dim_const(m, 0)};
        else if (!linear_of(m, limit, &end))
            return false;
        if (to_hi)
            end.constant = ir_dim_sub(m, end.constant, ir_dim_const(m, 1));
        form->n--;
        for (int i = inner; i < form->n; i++)
            form->at[i] = form->at[i + 1];
        if (!linear_add(m, form, &end, k))
            return false;
    }
    return false;
}

static ir_dim bound_by(struct ranges *r, const struct linear *original, bool upper, bool by_extent) {
    struct ir_module *m = r->module;
    struct linear form = *original;
    if (!eliminate(r, &form, upper, by_extent))
        return NULL;
    ir_dim total = form.constant;
    for (int i = 0; i < form.n; i++) {
        struct ir_range leaf = range_of(r, form.at[i].leaf);
        ir_dim k = form.at[i].k;
        if (!leaf.known)
            return NULL;
        int sign = sign_of(k);
        ir_dim lo = ir_dim_mul(m, k, leaf.lo), hi = ir_dim_mul(m, k, leaf.hi);
        if (sign)
            total = ir_dim_add(m, total, (sign > 0) == upper ? hi : lo);
        else
            total = ir_dim_add(m, total, upper ? ir_dim_max(m, lo, hi) : ir_dim_min(m, lo, hi));
    }
    return total;
}

/* Whether extents could say what bounds do not: else a second look would find the same, again at each level of a deep expression. */
static bool has_bounds(const struct ranges *r, const struct linear *form) {
    for (int i = 0; i < form->n; i++) {
        const struct ir_nest_index *x = index_of(r, form->at[i].leaf);
        if (x && x->hi)
            return true;
    }
    return false;
}

static ir_dim bound_linear(struct ranges *r, const struct linear *form, bool upper) {
    ir_dim bound = bound_by(r, form, upper, false);
    return bound || !has_bounds(r, form) ? bound : bound_by(r, form, upper, true);
}

struct ir_range range_of_linear(struct ranges *r, const struct linear *form) {
    ir_dim lo = bound_linear(r, form, false);
    return lo ? make(lo, bound_linear(r, form, true)) : unknown;
}

bool linear_exact(struct ranges *r, ir_expr e, struct linear *form, struct ir_range *range) {
    if (!linear_of(r->module, e, form))
        return false;
    *range = range_of_linear(r, form);
    return range->known && range_fits(*range, e->dtype);
}

/* ---- leaves ---- */

static struct ir_range index_range(struct ranges *r, ir_expr e) {
    const struct ir_nest_index *x = index_of(r, e);
    if (!x)
        return unknown;
    struct ir_module *m = r->module;
    ir_dim one = ir_dim_const(m, 1);
    struct ir_range lo = x->lo ? range_of(r, x->lo) : make(ir_dim_const(m, 0), ir_dim_const(m, 0));
    struct ir_range hi = x->hi ? range_of(r, x->hi) : unknown;
    if (!hi.known && (!x->hi || !ir_extent_is_open(x->extent)))
        hi = make(x->extent, x->extent);
    return lo.known && hi.known ? make(lo.lo, ir_dim_sub(m, hi.hi, one)) : unknown;
}

static struct ir_range product(struct ir_module *m, struct ir_range a, struct ir_range b) {
    if (!a.known || !b.known)
        return unknown;
    if (ir_dim_lower(a.lo) >= 0 && ir_dim_lower(b.lo) >= 0)
        return make(ir_dim_mul(m, a.lo, b.lo), ir_dim_mul(m, a.hi, b.hi));
    ir_dim p[4] = {ir_dim_mul(m, a.lo, b.lo), ir_dim_mul(m, a.lo, b.hi), ir_dim_mul(m, a.hi, b.lo),
                   ir_dim_mul(m, a.hi, b.hi)};
    return make(ir_dim_min(m, ir_dim_min(m, p[0], p[1]), ir_dim_min(m, p[2], p[3])),
                ir_dim_max(m, ir_dim_max(m, p[0], p[1]), ir_dim_max(m, p[2], p[3])));
}

static struct ir_range quotient(struct ir_module *m, struct ir_range a, struct ir_range b) {
    if (!a.known || !b.known || ir_dim_lower(b.lo) < 1)
        return unknown;
    /* a / b falls with b where a is positive, rises where it is negative */
    ir_dim lo_by = b.hi, hi_by = b.lo, zero = ir_dim_const(m, 0);
    if (b.lo != b.hi && ir_dim_lower(a.lo) < 0)
        return make(ir_dim_min(m, a.lo, zero), ir_dim_max(m, a.hi, zero));
    return make(ir_dim_div(m, a.lo, lo_by), ir_dim_div(m, a.hi, hi_by));
}

static struct ir_range remainder_range(struct ir_module *m, struct ir_range a, struct ir_range b) {
    if (!b.known || ir_dim_lower(b.lo) < 1)
        return unknown;
    ir_dim zero = ir_dim_const(m, 0), top = ir_dim_sub(m, b.hi, ir_dim_const(m, 1));
    if (a.known && ir_dim_lower(a.lo) >= 0) {
        if (ir_dim_lt(m, a.hi, b.lo))
            return a;
        return make(zero, ir_dim_min(m, a.hi, top));
    }
    return make(zero, top);
}

/* The lower or upper end alone, NULL if unknown: of `min(max(i64(x), 0), n)` both, though max(i64(x), 0) has no upper one. */
static ir_dim end_of(struct ranges *r, ir_expr e, bool upper) {
    if (e->kind != X_FN || (e->fn != FN_max && e->fn != FN_min)) {
        struct ir_range range = range_of(r, e);
        return range.known ? (upper ? range.hi : range.lo) : NULL;
    }
    ir_dim a = end_of(r, e->args[0], upper), b = end_of(r, e->args[1], upper);
    if (a && b)
        return e->fn == FN_max ? ir_dim_max(r->module, a, b) : ir_dim_min(r->module, a, b);
    /* one of them decides: a maximum is not below either, a minimum not above */
    return (e->fn == FN_min) == upper ? (a ? a : b) : NULL;
}

static struct ir_range fn_range(struct ranges *r, ir_expr e) {
    struct ir_module *m = r->module;
    int64_t c;
    struct ir_range a = range_of(r, e->args[0]), b = e->count > 1 ? range_of(r, e->args[1]) : unknown;
    ir_dim zero = ir_dim_const(m, 0);
    switch (e->fn) {
    case FN_mul: return product(m, a, b);
    case FN_div: return quotient(m, a, b);
    case FN_mod: return remainder_range(m, a, b);
    case FN_max:
    case FN_min: return make(end_of(r, e, false), end_of(r, e, true));
    case FN_where: {
        struct ir_range d = range_of(r, e->args[2]);
        return b.known && d.known ? make(ir_dim_min(m, b.lo, d.lo), ir_dim_max(m, b.hi, d.hi)) : unknown;
    }
    case FN_abs:
        if (!a.known)
            return unknown;
        return make(ir_dim_max(m, zero, ir_dim_max(m, a.lo, ir_dim_sub(m, zero, a.hi))),
                    ir_dim_max(m, a.hi, ir_dim_sub(m, zero, a.lo)));
    case FN_sign: return make(ir_dim_const(m, -1), ir_dim_const(m, 1));
    case FN_bitand: /* with a number that is not negative */
        if (b.known && ir_dim_lower(b.lo) >= 0)
            return make(zero, b.hi);
        return a.known && ir_dim_lower(a.lo) >= 0 ? make(zero, a.hi) : unknown;
    case FN_shr:
        if (a.known && b.known && b.lo == b.hi && ir_dim_is_const(b.lo, &c) && c >= 0 && c < dtype_size(e->dtype) * 8)
            return c < 60 ? make(ir_dim_div(m, a.lo, ir_dim_const(m, (int64_t)1 << c)),
                                 ir_dim_div(m, a.hi, ir_dim_const(m, (int64_t)1 << c)))
                          : unknown;
        return unknown;
    default: return unknown;
    }
}

static struct ir_range leaf_range(struct ranges *r, ir_expr e) {
    struct ir_range range = unknown;
    switch (e->kind) {
    case X_INDEX: return index_range(r, e);
    case X_FN: range = fn_range(r, e); break;
    case X_CAST:
        if (!dtype_is_float(e->args[0]->dtype))
            range = range_of(r, e->args[0]);
        break;
    default: break;
    }
    return range.known && range_fits(range, e->dtype) ? range : dtype_range(r->module, e->dtype);
}

struct ir_range range_of(struct ranges *r, ir_expr e) {
    enum { DEEPEST = 200 }; /* of nodes that are not linear; callers that go bottom up never come near */
    if (dtype_is_float(e->dtype))
        return unknown;
    const struct ir_range *known = memo_get(&r->memo, e->id);
    if (known)
        return *known;
    if (r->depth >= DEEPEST)
        return dtype_range(r->module, e->dtype);
    r->depth++;
    struct linear form;
    struct ir_range range = unknown;
    if (e->kind == X_CONST || e->kind == X_DIM ||
        (e->kind == X_FN && (e->fn == FN_add || e->fn == FN_sub || e->fn == FN_neg || e->fn == FN_mul))) {
        if (linear_of(r->module, e, &form) && !(form.n == 1 && form.at[0].leaf == e))
            range = range_of_linear(r, &form);
        else if (e->kind == X_FN && e->fn == FN_mul)
            range = fn_range(r, e);
        if (!range.known || !range_fits(range, e->dtype))
            range = dtype_range(r->module, e->dtype);
    } else {
        range = leaf_range(r, e);
    }
    r->depth--;
    memo_set(&r->memo, e->id, arena_copy(&r->memo.arena, &range, sizeof range));
    return range;
}

/* ---- the public queries ---- */

struct ir_range ir_expr_range(struct ir_module *m, const struct ir_nest *nest, ir_expr e) {
    struct ranges r = {.module = m, .nest = nest};
    struct ir_range range = range_of(&r, e);
    memo_free(&r.memo);
    return range;
}

/* The index takes every value of its range, whatever the others are: its bounds depend on symbols alone. */
static bool varies_freely(struct ranges *r, const struct ir_nest_index *x) {
    struct linear end;
    return is_box(x) || (x->hi && linear_of(r->module, x->hi, &end) && end.n == 0 &&
                         (!x->lo || (linear_of(r->module, x->lo, &end) && end.n == 0)));
}

/* Every iteration space between the symbols' bounds has a point. */
static bool surely_runs(struct ranges *r) {
    struct ir_module *m = r->module;
    for (int i = 0; i < r->nest->pars + r->nest->reds; i++) {
        const struct ir_nest_index *x = &r->nest->indices[i];
        if (is_box(x)) {
            if (ir_dim_lower(x->extent) < 1)
                return false;
            continue;
        }
        struct linear lo, hi;
        if (!x->hi || !linear_of(m, x->hi, &hi))
            return false;
        if (x->lo && (!linear_of(m, x->lo, &lo) || !linear_add(m, &hi, &lo, ir_dim_const(m, -1))))
            return false;
        struct ir_range trips = range_of_linear(r, &hi);
        if (!trips.known || ir_dim_lower(trips.lo) < 1)
            return false;
    }
    return true;
}

enum inside ir_index_inside(struct ir_module *m, const struct ir_nest *nest, ir_expr e, ir_dim extent) {
    struct ranges r = {.module = m, .nest = nest};
    struct ir_range range = range_of(&r, e);
    enum inside answer = UNKNOWN;
    if (range.known && ir_dim_lower(range.lo) >= 0 && ir_dim_lt(m, range.hi, extent)) {
        answer = INSIDE;
    } else if (range.known && nest && surely_runs(&r)) {
        /* All iterations leave the extent, or the form's extremes are attained: its indices vary freely. */
        struct linear form;
        bool attained = linear_of(m, e, &form);
        for (int i = 0; attained && i < form.n; i++) {
            const struct ir_nest_index *x = index_of(&r, form.at[i].leaf);
            attained = x && varies_freely(&r, x);
        }
        ir_dim low = attained ? range.lo : range.hi, high = attained ? range.hi : range.lo;
        if (ir_dim_upper(low) < 0 || ir_dim_le(m, extent, high))
            answer = OUTSIDE;
    }
    memo_free(&r.memo);
    return answer;
}

bool ir_expr_affine(struct ir_module *m, ir_expr e, int indices, ir_dim *coefficients, ir_dim *constant) {
    struct linear form;
    if (e->dtype != I64 || !linear_of(m, e, &form))
        return false;
    for (int i = 0; i < indices; i++)
        coefficients[i] = ir_dim_const(m, 0);
    for (int i = 0; i < form.n; i++) {
        if (form.at[i].leaf->kind != X_INDEX || form.at[i].leaf->index >= indices)
            return false;
        coefficients[form.at[i].leaf->index] = form.at[i].k;
    }
    *constant = form.constant;
    return true;
}

static void note_reduction_index(ir_expr e, void *context) {
    int *limit = context; /* the first reduction index; -1 once one was seen */
    if (e->kind == X_INDEX && *limit >= 0 && e->index >= *limit)
        *limit = -1;
}

bool ir_nest_ragged_within(const struct ir_nest *nest, int i) {
    int limit = nest->pars;
    ir_expr_walk(nest->indices[i].lo, note_reduction_index, &limit);
    if (limit >= 0)
        ir_expr_walk(nest->indices[i].hi, note_reduction_index, &limit);
    return limit < 0;
}

ir_expr ir_nest_position(struct ir_module *m, const struct ir_nest *nest) {
    ir_expr p = ir_const_int(m, I64, 0);
    for (int i = nest->pars; i < nest->pars + nest->reds; i++) {
        const struct ir_nest_index *x = &nest->indices[i];
        ir_expr width = ir_nest_ragged_within(nest, i) ? ir_dim_expr(m, x->extent) : ir_fn2(m, FN_sub, x->hi, x->lo);
        p = ir_fn2(m, FN_add, ir_fn2(m, FN_mul, p, width), ir_fn2(m, FN_sub, ir_index(m, i), x->lo));
    }
    return p;
}
