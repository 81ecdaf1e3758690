/* Bounds of dimensions by monotone evaluation.
 *
 * Interval arithmetic term by term is too weak where a symbol occurs twice (N * N - N) or an atom is tied to a symbol
 * ((N / 4) * 4 <= N). So a max, min, quotient or remainder that occurs linearly is also replaced by its defining
 * inequalities; and an atom that the polynomial is monotone in (its difference quotient has a definite sign, found by
 * the same procedure at a lower degree) is set to the better end point. Every step is sound on its own and the best
 * result counts. A budget bounds the work on large polynomials. */
#include "ir/dim.h"

struct interval {
    int64_t lo, hi;
};

static int64_t bound(ir_dim d, bool upper, int *budget);

static int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Products keep "unbounded" unbounded, and 0 * unbounded = 0. */
static struct interval interval_mul(struct interval a, struct interval b) {
    int64_t p[4] = {dim_sat_mul(a.lo, b.lo), dim_sat_mul(a.lo, b.hi), dim_sat_mul(a.hi, b.lo), dim_sat_mul(a.hi, b.hi)};
    return (struct interval){min64(min64(p[0], p[1]), min64(p[2], p[3])), max64(max64(p[0], p[1]), max64(p[2], p[3]))};
}

/* A saturated end stays saturated. */
static int64_t end_add(int64_t a, int64_t b, int64_t unbounded) {
    return a == unbounded || b == unbounded ? unbounded : dim_sat_add(a, b);
}

static int64_t quotient_end(int64_t a, int64_t b) {
    return a <= -IR_DIM_LIMIT || a >= IR_DIM_LIMIT ? (a < 0) == (b < 0) ? IR_DIM_LIMIT : -IR_DIM_LIMIT
                                                   : dim_floor_div(a, b);
}

static struct interval atom_interval(const struct ir_dim_atom *x, int *budget) {
    if (x->kind == ATOM_SYMBOL)
        return (struct interval){dim_clamp(x->symbol->lo), dim_clamp(x->symbol->hi)};
    struct interval a = {bound(x->a, false, budget), bound(x->a, true, budget)};
    struct interval b = {bound(x->b, false, budget), bound(x->b, true, budget)};
    int64_t magnitude = max64(-a.lo, a.hi);
    switch (x->kind) {
    case ATOM_DIV:
        if (b.lo >= 1) {
            int64_t lo = quotient_end(a.lo, a.lo < 0 ? b.lo : b.hi), hi = quotient_end(a.hi, a.hi < 0 ? b.hi : b.lo);
            return (struct interval){lo, hi};
        }
        if (b.lo == 0 && a.lo >= 0) /* x / 0 is 0 */
            return (struct interval){0, a.hi};
        return (struct interval){-magnitude, magnitude};
    case ATOM_MOD:
        if (b.lo >= 0) {
            struct interval r = {0, max64(b.hi - 1, 0)};
            if (a.lo >= 0)
                r.hi = min64(r.hi, a.hi);
            return r;
        }
        return (struct interval){min64(b.lo + 1, 0), max64(b.hi - 1, 0)};
    case ATOM_MAX: return (struct interval){max64(a.lo, b.lo), max64(a.hi, b.hi)};
    default: return (struct interval){min64(a.lo, b.lo), min64(a.hi, b.hi)};
    }
}

static struct interval term_interval(const struct ir_dim_term *t, int *budget) {
    struct interval r = {t->coefficient, t->coefficient};
    for (int i = 0; i < t->count;) {
        int power = 1;
        while (i + power < t->count && t->atoms[i + power] == t->atoms[i])
            power++;
        struct interval x = atom_interval(t->atoms[i], budget), p = x;
        for (int k = 1; k < power; k++)
            p = interval_mul(p, x);
        if (power % 2 == 0)
            p.lo = max64(p.lo, 0);
        r = interval_mul(r, p);
        i += power;
    }
    return r;
}

static int64_t bound_by_terms(ir_dim d, bool upper, int *budget) {
    int64_t total = 0;
    for (int i = 0; i < d->count; i++) {
        struct interval t = term_interval(&d->terms[i], budget);
        total = end_add(total, upper ? t.hi : t.lo, upper ? IR_DIM_LIMIT : -IR_DIM_LIMIT);
    }
    return total;
}

static int occurrences(ir_dim d, const struct ir_dim_atom *x) {
    int n = 0;
    for (int i = 0; i < d->count; i++)
        for (int j = 0; j < d->terms[i].count; j++)
            n += d->terms[i].atoms[j] == x;
    return n;
}

/* The sign of d(x + 1) - d(x) over the box: 1 never negative, -1 never positive, 0 unknown. */
static int slope(ir_dim d, const struct ir_dim_atom *x, ir_dim self, int *budget) {
    struct ir_module *m = d->module;
    ir_dim next = dim_replace_atom(m, d, x, ir_dim_add(m, self, ir_dim_const(m, 1)));
    ir_dim difference = ir_dim_sub(m, next, d);
    if (bound(difference, false, budget) >= 0)
        return 1;
    return bound(difference, true, budget) <= 0 ? -1 : 0;
}

/* A better bound from an atom's defining inequalities, d being linear in it with a constant coefficient k. */
static int64_t bound_by_definition(ir_dim d, const struct ir_dim_atom *x, int64_t k, bool upper, int *budget) {
    struct ir_module *m = d->module;
    bool want_upper = (k > 0) == upper; /* which side of x bounds d */
    int64_t c;
    if (x->kind == ATOM_MAX || x->kind == ATOM_MIN) {
        int64_t a = bound(dim_replace_atom(m, d, x, x->a), upper, budget);
        int64_t b = bound(dim_replace_atom(m, d, x, x->b), upper, budget);
        /* max >= both, so that either gives a lower bound of d; above, max is one of the two. */
        bool either = (x->kind == ATOM_MAX) != want_upper;
        return either == upper ? min64(a, b) : max64(a, b);
    }
    if (x->kind == ATOM_DIV && ir_dim_is_const(x->b, &c) && c > 1) {
        /* a - c + 1 <= c * x <= a */
        ir_dim cx = want_upper ? x->a : ir_dim_add(m, x->a, ir_dim_const(m, 1 - c));
        ir_dim rest = dim_replace_atom(m, d, x, ir_dim_const(m, 0));
        int64_t scaled = bound(dim_scale_add(m, rest, c, cx, k), upper, budget);
        if (scaled >= IR_DIM_LIMIT || scaled <= -IR_DIM_LIMIT)
            return scaled;
        return upper ? dim_floor_div(scaled, c) : -dim_floor_div(-scaled, c);
    }
    if (x->kind == ATOM_MOD && want_upper && bound(x->a, false, budget) >= 0 && bound(x->b, false, budget) >= 0)
        return bound(dim_replace_atom(m, d, x, x->a), upper, budget);
    return upper ? IR_DIM_LIMIT : -IR_DIM_LIMIT;
}

static int64_t bound(ir_dim d, bool upper, int *budget) {
    int64_t best;
    if (ir_dim_is_const(d, &best))
        return best;
    struct ir_module *m = d->module;
    best = bound_by_terms(d, upper, budget);
    if (d->count == 1 && d->terms[0].count == 1 && d->terms[0].atoms[0]->kind == ATOM_SYMBOL)
        return best;
    for (int i = 0; i < d->count; i++) {
        const struct ir_dim_term *t = &d->terms[i];
        if (t->count == 1 && t->atoms[0]->kind != ATOM_SYMBOL && occurrences(d, t->atoms[0]) == 1 && --*budget >= 0) {
            int64_t b = bound_by_definition(d, t->atoms[0], t->coefficient, upper, budget);
            best = upper ? min64(best, b) : max64(best, b);
        }
    }
    for (int i = 0; i < d->count; i++)
        for (int j = 0; j < d->terms[i].count; j++) {
            const struct ir_dim_atom *x = d->terms[i].atoms[j];
            if ((j && d->terms[i].atoms[j - 1] == x) || occurrences(d, x) == 1 || --*budget < 0)
                continue; /* the interval of its only term is exact in x */
            struct interval range = atom_interval(x, budget);
            int s = range.lo < range.hi ? slope(d, x, dim_of_atom(m, x), budget) : 1;
            int64_t end = (s > 0) == upper ? range.hi : range.lo;
            if (!s || end >= IR_DIM_LIMIT || end <= -IR_DIM_LIMIT)
                continue;
            int64_t b = bound(dim_replace_atom(m, d, x, ir_dim_const(m, end)), upper, budget);
            return upper ? min64(best, b) : max64(best, b); /* exact in x: other orders give the same */
        }
    return best;
}

enum { BUDGET = 200 };

int64_t ir_dim_lower(ir_dim d) {
    int budget = BUDGET;
    return bound(d, false, &budget);
}

int64_t ir_dim_upper(ir_dim d) {
    int budget = BUDGET;
    return bound(d, true, &budget);
}
