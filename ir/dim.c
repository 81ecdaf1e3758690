/* Dimensions: integer polynomials over symbols and opaque atoms, hash-consed, so that equality is pointer equality.
 *
 * The normal form is a sum of terms in graded lexicographic order, largest first (the constant is last); a term's atoms
 * are sorted by id. Floor quotients and remainders divide what can be divided (multivariate division by the divisor's
 * leading term, then common factors) and leave the rest as an atom; max and min vanish where an order can be proved.
 * Coefficients saturate at ±IR_DIM_LIMIT: a dimension that large cannot be allocated anyway. */
#include "ir/dim.h"

#include <stdlib.h>

/* ---- saturating arithmetic ---- */

int64_t dim_clamp(int64_t x) {
    return x > IR_DIM_LIMIT ? IR_DIM_LIMIT : x < -IR_DIM_LIMIT ? -IR_DIM_LIMIT : x;
}

int64_t dim_sat_add(int64_t a, int64_t b) {
    return dim_clamp(dim_clamp(a) + dim_clamp(b));
}

int64_t dim_sat_mul(int64_t a, int64_t b) {
    int64_t p;
    if (__builtin_mul_overflow(a, b, &p))
        return (a < 0) == (b < 0) ? IR_DIM_LIMIT : -IR_DIM_LIMIT;
    return dim_clamp(p);
}

int64_t dim_floor_div(int64_t a, int64_t b) {
    if (b == 0)
        return 0;
    if (b == -1)
        return a == INT64_MIN ? INT64_MAX : -a;
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

int64_t dim_floor_mod(int64_t a, int64_t b) {
    if (b == 0 || b == -1)
        return 0;
    int64_t r = a % b;
    return r && (r < 0) != (b < 0) ? r + b : r;
}

static int64_t gcd(int64_t a, int64_t b) {
    a = a < 0 ? -a : a;
    b = b < 0 ? -b : b;
    while (b) {
        int64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/* ---- terms ---- */

/* Graded lexicographic order of monomials: negative where a comes first. */
static int monomial_compare(const struct ir_dim_term *a, const struct ir_dim_term *b) {
    if (a->count != b->count)
        return b->count - a->count;
    for (int i = 0; i < a->count; i++)
        if (a->atoms[i] != b->atoms[i])
            return a->atoms[i]->id - b->atoms[i]->id;
    return 0;
}

static int term_order(const void *a, const void *b) {
    return monomial_compare(a, b);
}

/* A sum under construction, in any order and with repetitions. */
struct sum {
    struct ir_dim_term *at;
    int n, cap;
};

static void sum_add(struct sum *s, struct ir_dim_term t) {
    if (!t.coefficient)
        return;
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 8;
        s->at = realloc(s->at, (size_t)s->cap * sizeof *s->at);
        if (!s->at)
            exit(3);
    }
    s->at[s->n++] = t;
}

static void sum_add_dim(struct sum *s, ir_dim d, int64_t factor) {
    for (int i = 0; i < d->count; i++) {
        struct ir_dim_term t = d->terms[i];
        t.coefficient = dim_sat_mul(t.coefficient, factor);
        sum_add(s, t);
    }
}

/* Sorts, merges and interns; frees the sum. */
static ir_dim sum_intern(struct ir_module *m, struct sum *s) {
    if (s->n > 1)
        qsort(s->at, (size_t)s->n, sizeof *s->at, term_order);
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        if (n && !monomial_compare(&s->at[n - 1], &s->at[i]))
            s->at[n - 1].coefficient = dim_sat_add(s->at[n - 1].coefficient, s->at[i].coefficient);
        else {
            if (n && !s->at[n - 1].coefficient)
                n--;
            s->at[n++] = s->at[i];
        }
    }
    if (n && !s->at[n - 1].coefficient)
        n--;

    int words = 1;
    for (int i = 0; i < n; i++)
        words += 2 + s->at[i].count;
    int64_t small[64], *key = words <= 64 ? small : malloc((size_t)words * sizeof *key);
    if (!key)
        exit(3);
    int k = 0;
    key[k++] = n;
    for (int i = 0; i < n; i++) {
        key[k++] = s->at[i].coefficient;
        key[k++] = s->at[i].count;
        for (int j = 0; j < s->at[i].count; j++)
            key[k++] = s->at[i].atoms[j]->id;
    }
    ir_dim d = intern_find(m->interner->dims, key, words);
    if (!d) {
        struct ir_dim *fresh = ARENA_NEW(&m->arena, struct ir_dim);
        fresh->count = n;
        fresh->terms = n ? arena_copy(&m->arena, s->at, (size_t)n * sizeof *s->at) : NULL;
        fresh->module = m;
        fresh->id = m->interner->dim_count++;
        intern_add(&m->arena, &m->interner->dims, key, words, fresh);
        d = fresh;
    }
    if (key != small)
        free(key);
    free(s->at);
    return d;
}

static struct ir_dim_term term_product(struct ir_module *m, const struct ir_dim_term *a, const struct ir_dim_term *b) {
    struct ir_dim_term t = {.coefficient = dim_sat_mul(a->coefficient, b->coefficient), .count = a->count + b->count};
    if (!a->count || !b->count) {
        t.atoms = a->count ? a->atoms : b->atoms;
        return t;
    }
    const struct ir_dim_atom **atoms = ARENA_ARRAY(&m->arena, const struct ir_dim_atom *, t.count);
    for (int i = 0, j = 0; i + j < t.count;)
        if (j == b->count || (i < a->count && a->atoms[i]->id <= b->atoms[j]->id)) {
            atoms[i + j] = a->atoms[i];
            i++;
        } else {
            atoms[i + j] = b->atoms[j];
            j++;
        }
    t.atoms = atoms;
    return t;
}

/* q with q * b = a; false if there is none. */
static bool term_quotient(struct ir_module *m, const struct ir_dim_term *a, const struct ir_dim_term *b,
                          struct ir_dim_term *q) {
    if (!b->coefficient || a->coefficient % b->coefficient || a->count < b->count)
        return false;
    const struct ir_dim_atom **atoms = ARENA_ARRAY(&m->arena, const struct ir_dim_atom *, a->count - b->count);
    int n = 0, j = 0;
    for (int i = 0; i < a->count; i++)
        if (j < b->count && a->atoms[i] == b->atoms[j])
            j++;
        else if (n < a->count - b->count)
            atoms[n++] = a->atoms[i];
        else
            return false;
    *q = (struct ir_dim_term){a->coefficient / b->coefficient, n, atoms};
    return j == b->count;
}

/* ---- atoms ---- */

ir_dim dim_of_atom(struct ir_module *m, const struct ir_dim_atom *atom) {
    struct sum s = {0};
    const struct ir_dim_atom **atoms = ARENA_ARRAY(&m->arena, const struct ir_dim_atom *, 1);
    atoms[0] = atom;
    sum_add(&s, (struct ir_dim_term){1, 1, atoms});
    return sum_intern(m, &s);
}

static ir_dim make_atom(struct ir_module *m, enum dim_atom kind, const struct ir_symbol *symbol, ir_dim a, ir_dim b) {
    int64_t key[4] = {kind, symbol ? symbol->id : -1, a ? a->id : -1, b ? b->id : -1};
    const struct ir_dim *known = intern_find(m->interner->atoms, key, 4);
    if (known)
        return known;
    struct ir_dim_atom *atom = ARENA_NEW(&m->arena, struct ir_dim_atom);
    *atom = (struct ir_dim_atom){.kind = kind, .symbol = symbol, .a = a, .b = b, .id = m->interner->atom_count++};
    ir_dim d = dim_of_atom(m, atom);
    intern_add(&m->arena, &m->interner->atoms, key, 4, d);
    return d;
}

/* ---- constructors ---- */

ir_dim ir_dim_const(struct ir_module *m, int64_t value) {
    struct sum s = {0};
    sum_add(&s, (struct ir_dim_term){.coefficient = dim_clamp(value)});
    return sum_intern(m, &s);
}

ir_dim ir_dim_symbol(struct ir_module *m, const struct ir_symbol *s) {
    return make_atom(m, ATOM_SYMBOL, s, NULL, NULL);
}

bool ir_dim_is_const(ir_dim d, int64_t *value) {
    if (d->count > 1 || (d->count == 1 && d->terms[0].count))
        return false;
    if (value)
        *value = d->count ? d->terms[0].coefficient : 0;
    return true;
}

static int64_t constant_part(ir_dim d) {
    const struct ir_dim_term *last = d->count ? &d->terms[d->count - 1] : NULL;
    return last && !last->count ? last->coefficient : 0;
}

ir_dim dim_scale_add(struct ir_module *m, ir_dim a, int64_t fa, ir_dim b, int64_t fb) {
    struct sum s = {0};
    sum_add_dim(&s, a, fa);
    sum_add_dim(&s, b, fb);
    return sum_intern(m, &s);
}

ir_dim ir_dim_add(struct ir_module *m, ir_dim a, ir_dim b) {
    return !a->count ? b : !b->count ? a : dim_scale_add(m, a, 1, b, 1);
}

ir_dim ir_dim_sub(struct ir_module *m, ir_dim a, ir_dim b) {
    return !b->count ? a : dim_scale_add(m, a, 1, b, -1);
}

ir_dim ir_dim_mul(struct ir_module *m, ir_dim a, ir_dim b) {
    int64_t c;
    if (ir_dim_is_const(a, &c) && c == 1)
        return b;
    if (ir_dim_is_const(b, &c) && c == 1)
        return a;
    struct sum s = {0};
    for (int i = 0; i < a->count; i++)
        for (int j = 0; j < b->count; j++)
            sum_add(&s, term_product(m, &a->terms[i], &b->terms[j]));
    return sum_intern(m, &s);
}

/* ---- division ---- */

static ir_dim dim_of_term(struct ir_module *m, struct ir_dim_term t) {
    struct sum s = {0};
    sum_add(&s, t);
    return sum_intern(m, &s);
}

/* a = *q * b + *r for b != 0: multivariate division by b's leading term; floor(a / b) = *q + floor(*r / b). */
static void polynomial_division(struct ir_module *m, ir_dim a, ir_dim b, ir_dim *q, ir_dim *r) {
    struct sum quotient = {0}, rest = {0};
    int64_t c;
    if (ir_dim_is_const(b, &c)) { /* coefficient by coefficient; the constant by floor, others only by what divides */
        for (int i = 0; i < a->count; i++) {
            struct ir_dim_term t = a->terms[i], u = t;
            t.coefficient = u.count ? u.coefficient / c : dim_floor_div(u.coefficient, c);
            u.coefficient = u.coefficient - t.coefficient * c;
            sum_add(&quotient, t);
            sum_add(&rest, u);
        }
    } else {
        ir_dim p = a;
        /* Each step removes p's leading term and adds only smaller ones; the bound is for pathological input. */
        for (int steps = 0; p->count && steps < 64; steps++) {
            struct ir_dim_term t;
            if (term_quotient(m, &p->terms[0], &b->terms[0], &t)) {
                sum_add(&quotient, t);
                p = ir_dim_sub(m, p, ir_dim_mul(m, b, dim_of_term(m, t)));
            } else {
                sum_add(&rest, p->terms[0]);
                p = ir_dim_sub(m, p, dim_of_term(m, p->terms[0]));
            }
        }
        sum_add_dim(&rest, p, 1);
    }
    *q = sum_intern(m, &quotient);
    *r = sum_intern(m, &rest);
}

/* floor(r / b) where it is one known number for all values. */
static bool known_quotient(struct ir_module *m, ir_dim r, ir_dim b, int64_t *q) {
    int64_t c;
    if (!r->count) {
        *q = 0;
        return true;
    }
    if (ir_dim_is_const(b, &c)) {
        int64_t lo = ir_dim_lower(r), hi = ir_dim_upper(r);
        if (lo <= -IR_DIM_LIMIT || hi >= IR_DIM_LIMIT)
            return false;
        *q = dim_floor_div(lo, c);
        return *q == dim_floor_div(hi, c);
    }
    if (ir_dim_lower(b) < 1)
        return false;
    ir_dim zero = ir_dim_const(m, 0);
    if (ir_dim_le(m, zero, r) && ir_dim_lt(m, r, b)) {
        *q = 0;
        return true;
    }
    if (ir_dim_lt(m, r, zero) && ir_dim_le(m, zero, ir_dim_add(m, r, b))) {
        *q = -1;
        return true;
    }
    return false;
}

/* The greatest common divisor of c and r's coefficients, the constant's only where `all`. */
static int64_t content(ir_dim r, int64_t c, bool all) {
    int64_t g = c;
    for (int i = 0; i < r->count; i++)
        if (r->terms[i].count || all)
            g = gcd(g, r->terms[i].coefficient);
    return g;
}

/* floor(r / g) where g divides all coefficients but perhaps the constant's. */
static ir_dim reduce_content(struct ir_module *m, ir_dim r, int64_t g) {
    struct sum s = {0};
    for (int i = 0; i < r->count; i++) {
        struct ir_dim_term t = r->terms[i];
        t.coefficient = dim_floor_div(t.coefficient, g);
        sum_add(&s, t);
    }
    return sum_intern(m, &s);
}

ir_dim ir_dim_div(struct ir_module *m, ir_dim a, ir_dim b) {
    int64_t c = 0, k;
    bool constant = ir_dim_is_const(b, &c);
    if (constant && c == 0)
        return b; /* as evaluation has it */
    if (constant && c < 0) {
        a = dim_scale_add(m, a, -1, a, 0);
        b = ir_dim_const(m, c = -c);
    }
    if (constant && c == 1)
        return a;
    ir_dim q, r;
    polynomial_division(m, a, b, &q, &r);
    if (known_quotient(m, r, b, &k))
        return ir_dim_add(m, q, ir_dim_const(m, k));
    if (constant) {
        int64_t g = content(r, c, false);
        if (g > 1)
            return ir_dim_add(m, q, ir_dim_div(m, reduce_content(m, r, g), ir_dim_const(m, c / g)));
        /* (x / d + k) / c = (x + k * d) / (c * d) for positive c, d */
        int64_t d;
        if (r->terms[0].count == 1 && r->terms[0].coefficient == 1 && (r->count == 1 || !r->terms[1].count)) {
            const struct ir_dim_atom *atom = r->terms[0].atoms[0];
            if (atom->kind == ATOM_DIV && ir_dim_is_const(atom->b, &d) && d > 0 && d < IR_DIM_LIMIT / c) {
                ir_dim x = ir_dim_add(m, atom->a, ir_dim_const(m, dim_sat_mul(constant_part(r), d)));
                return ir_dim_add(m, q, ir_dim_div(m, x, ir_dim_const(m, c * d)));
            }
        }
    }
    return ir_dim_add(m, q, make_atom(m, ATOM_DIV, NULL, r, b));
}

ir_dim ir_dim_mod(struct ir_module *m, ir_dim a, ir_dim b) {
    int64_t c = 0, k;
    bool constant = ir_dim_is_const(b, &c);
    if (constant && c == 0)
        return b;
    if (constant && c < 0) {
        ir_dim negative = ir_dim_mod(m, dim_scale_add(m, a, -1, a, 0), ir_dim_const(m, -c));
        return dim_scale_add(m, negative, -1, negative, 0);
    }
    if (constant && c == 1)
        return ir_dim_const(m, 0);
    ir_dim q, r;
    polynomial_division(m, a, b, &q, &r);
    if (known_quotient(m, r, b, &k))
        return ir_dim_sub(m, r, ir_dim_mul(m, b, ir_dim_const(m, k)));
    if (constant) {
        int64_t g = content(r, c, true), d;
        if (g > 1) {
            ir_dim x = ir_dim_mod(m, reduce_content(m, r, g), ir_dim_const(m, c / g));
            return dim_scale_add(m, x, g, x, 0);
        }
        /* (x mod d + k) mod c = (x + k) mod c where c divides d */
        if (r->terms[0].count == 1 && r->terms[0].coefficient == 1 && (r->count == 1 || !r->terms[1].count)) {
            const struct ir_dim_atom *atom = r->terms[0].atoms[0];
            if (atom->kind == ATOM_MOD && ir_dim_is_const(atom->b, &d) && d > 0 && d % c == 0)
                return ir_dim_mod(m, ir_dim_add(m, atom->a, ir_dim_const(m, constant_part(r))), b);
        }
    }
    return make_atom(m, ATOM_MOD, NULL, r, b);
}

/* ---- max and min ---- */

static ir_dim extremum(struct ir_module *m, enum dim_atom kind, ir_dim a, ir_dim b) {
    if (a == b || ir_dim_le(m, a, b))
        return kind == ATOM_MAX ? b : a;
    if (ir_dim_le(m, b, a))
        return kind == ATOM_MAX ? a : b;
    if (a->id > b->id) {
        ir_dim t = a;
        a = b;
        b = t;
    }
    return make_atom(m, kind, NULL, a, b);
}

ir_dim ir_dim_max(struct ir_module *m, ir_dim a, ir_dim b) {
    return extremum(m, ATOM_MAX, a, b);
}

ir_dim ir_dim_min(struct ir_module *m, ir_dim a, ir_dim b) {
    return extremum(m, ATOM_MIN, a, b);
}

bool ir_dim_le(struct ir_module *m, ir_dim a, ir_dim b) {
    return a == b || ir_dim_lower(ir_dim_sub(m, b, a)) >= 0;
}

bool ir_dim_lt(struct ir_module *m, ir_dim a, ir_dim b) {
    return a != b && ir_dim_lower(ir_dim_sub(m, b, a)) >= 1;
}

/* ---- evaluation and substitution ---- */

static int64_t wrap_add(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

static int64_t wrap_mul(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a * (uint64_t)b);
}

static int64_t eval_atom(const struct ir_dim_atom *x, const int64_t *values) {
    if (x->kind == ATOM_SYMBOL)
        return values[x->symbol->id];
    int64_t a = ir_dim_eval(x->a, values), b = ir_dim_eval(x->b, values);
    switch (x->kind) {
    case ATOM_DIV: return dim_floor_div(a, b);
    case ATOM_MOD: return dim_floor_mod(a, b);
    case ATOM_MAX: return a > b ? a : b;
    default: return a < b ? a : b;
    }
}

int64_t ir_dim_eval(ir_dim d, const int64_t *values) {
    int64_t total = 0;
    for (int i = 0; i < d->count; i++) {
        int64_t product = d->terms[i].coefficient;
        for (int j = 0; j < d->terms[i].count; j++)
            product = wrap_mul(product, eval_atom(d->terms[i].atoms[j], values));
        total = wrap_add(total, product);
    }
    return total;
}

static void visit_symbols(ir_dim d, bool *seen, void (*fn)(const struct ir_symbol *, void *), void *context) {
    for (int i = 0; i < d->count; i++)
        for (int j = 0; j < d->terms[i].count; j++) {
            const struct ir_dim_atom *x = d->terms[i].atoms[j];
            if (x->kind != ATOM_SYMBOL) {
                visit_symbols(x->a, seen, fn, context);
                visit_symbols(x->b, seen, fn, context);
            } else if (!seen[x->symbol->id]) {
                seen[x->symbol->id] = true;
                fn(x->symbol, context);
            }
        }
}

void ir_dim_symbols(ir_dim d, void (*fn)(const struct ir_symbol *, void *), void *context) {
    if (ir_dim_is_const(d, NULL))
        return;
    bool *seen = calloc((size_t)d->module->symbol_count, sizeof *seen);
    if (!seen)
        exit(3);
    visit_symbols(d, seen, fn, context);
    free(seen);
}

ir_dim dim_apply(struct ir_module *m, enum dim_atom kind, ir_dim a, ir_dim b) {
    switch (kind) {
    case ATOM_DIV: return ir_dim_div(m, a, b);
    case ATOM_MOD: return ir_dim_mod(m, a, b);
    case ATOM_MAX: return ir_dim_max(m, a, b);
    default: return ir_dim_min(m, a, b);
    }
}

static ir_dim subst_atom(struct ir_module *m, const struct ir_dim_atom *x, const ir_dim *map) {
    if (x->kind == ATOM_SYMBOL)
        return map[x->symbol->id] ? map[x->symbol->id] : make_atom(m, ATOM_SYMBOL, x->symbol, NULL, NULL);
    ir_dim a = ir_dim_subst(m, x->a, map), b = ir_dim_subst(m, x->b, map);
    return a == x->a && b == x->b ? make_atom(m, x->kind, NULL, a, b) : dim_apply(m, x->kind, a, b);
}

ir_dim ir_dim_subst(struct ir_module *m, ir_dim d, const ir_dim *map) {
    if (ir_dim_is_const(d, NULL))
        return d;
    ir_dim total = ir_dim_const(m, 0);
    for (int i = 0; i < d->count; i++) {
        ir_dim product = ir_dim_const(m, d->terms[i].coefficient);
        for (int j = 0; j < d->terms[i].count; j++)
            product = ir_dim_mul(m, product, subst_atom(m, d->terms[i].atoms[j], map));
        total = ir_dim_add(m, total, product);
    }
    return total;
}

ir_dim dim_replace_atom(struct ir_module *m, ir_dim d, const struct ir_dim_atom *atom, ir_dim by) {
    struct sum kept = {0};
    ir_dim changed = ir_dim_const(m, 0);
    for (int i = 0; i < d->count; i++) {
        struct ir_dim_term t = d->terms[i];
        int occurrences = 0;
        for (int j = 0; j < t.count; j++)
            occurrences += t.atoms[j] == atom;
        if (!occurrences) {
            sum_add(&kept, t);
            continue;
        }
        const struct ir_dim_atom **others = ARENA_ARRAY(&m->arena, const struct ir_dim_atom *, t.count - occurrences);
        int n = 0;
        for (int j = 0; j < t.count; j++)
            if (t.atoms[j] != atom)
                others[n++] = t.atoms[j];
        ir_dim product = dim_of_term(m, (struct ir_dim_term){t.coefficient, n, others});
        while (occurrences--)
            product = ir_dim_mul(m, product, by);
        changed = ir_dim_add(m, changed, product);
    }
    return ir_dim_add(m, sum_intern(m, &kept), changed);
}
