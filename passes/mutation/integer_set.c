/* Emptiness of integer sets by the first half of the Omega test (Pugh, "The Omega Test: a fast and practical integer
 * programming algorithm for dependence analysis", 1991):
 *
 *   1. every condition is divided by the gcd of its coefficients; an equality whose constant is then no integer has no
 *      solution (the GCD test), an inequality's constant is rounded towards the set (tightening);
 *   2. equalities are solved exactly: by a variable with coefficient 1 or -1, else after the substitution by symmetric
 *      remainders that makes one;
 *   3. inequalities are eliminated variable by variable (Fourier-Motzkin), the one with the fewest new conditions first,
 *      with step 1 after each. What remains is the real shadow: if it is empty, so is the set.
 *
 * The second half (dark and grey shadows) would prove that a point exists, which nobody asks here. Whatever overflows or
 * grows too large ends in "not proven".
 */
#include "passes/mutation/integer_set.h"

#include <string.h>

struct linear_form form_const(int64_t k) {
    return (struct linear_form){.k = k, .ok = true};
}

struct linear_form form_var(int var) {
    struct linear_form f = {.ok = var >= 0};
    if (var >= 0)
        f.c[var] = 1;
    return f;
}

enum { MAX_BITS = 61 }; /* of a coefficient, so that sums of two cannot overflow */

static bool add_scaled(int64_t *a, int64_t b, int64_t scale) {
    int64_t product;
    return !__builtin_mul_overflow(b, scale, &product) && !__builtin_add_overflow(*a, product, a) &&
           *a < (int64_t)1 << MAX_BITS && *a > -((int64_t)1 << MAX_BITS);
}

struct linear_form form_add(const struct linear_form *a, const struct linear_form *b, int64_t scale) {
    struct linear_form f = *a;
    f.ok = a->ok && b->ok && add_scaled(&f.k, b->k, scale);
    for (int i = 0; i < SET_VARS && f.ok; i++)
        f.ok = add_scaled(&f.c[i], b->c[i], scale);
    return f;
}

struct linear_form form_scale(const struct linear_form *a, int64_t scale) {
    struct linear_form zero = form_const(0);
    return form_add(&zero, a, scale);
}

int set_new_var(struct integer_set *s) {
    return s->vars < SET_VARS ? s->vars++ : -1;
}

static void add_row(struct integer_set *s, const struct linear_form *f, bool equality) {
    if (f->ok && s->rows.n < SET_ROWS)
        VEC_PUSH(s->arena, s->rows, (struct set_row){*f, equality});
}

void set_add_zero(struct integer_set *s, const struct linear_form *f) {
    add_row(s, f, true);
}

void set_add_positive(struct integer_set *s, const struct linear_form *f) {
    add_row(s, f, false);
}

/* ---- emptiness ---------------------------------------------------------------------------------------------------- */

struct system {
    struct set_row *rows; /* [SET_ROWS] */
    int n, vars;
    bool empty, given_up;
};

static int64_t floor_div(int64_t a, int64_t b) { /* b > 0 */
    return a / b - (a % b < 0);
}

static int64_t magnitude(int64_t a) {
    return a < 0 ? -a : a;
}

/* Divides by the gcd; a row without variables is decided and removed (false). */
static bool normalise(struct system *s, struct set_row *r) {
    int64_t g = 0;
    for (int i = 0; i < s->vars; i++)
        for (int64_t a = magnitude(r->f.c[i]); a;) {
            int64_t rest = g % a;
            g = a;
            a = rest;
        }
    if (g == 0) {
        s->empty |= r->equality ? r->f.k != 0 : r->f.k < 0;
        return false;
    }
    if (r->equality && r->f.k % g != 0)
        s->empty = true;
    for (int i = 0; i < s->vars && g > 1; i++)
        r->f.c[i] /= g;
    r->f.k = floor_div(r->f.k, g);
    return true;
}

static void keep_row(struct system *s, const struct linear_form *f, bool equality) {
    struct set_row r = {*f, equality};
    if (!f->ok || s->n == SET_ROWS)
        s->given_up = true;
    if (s->given_up || !normalise(s, &r))
        return;
    for (int i = 0; i < s->n; i++) { /* the same half space: the smaller one stays */
        struct set_row *o = &s->rows[i];
        if (!equality && !o->equality && !memcmp(o->f.c, r.f.c, sizeof r.f.c)) {
            if (r.f.k < o->f.k)
                o->f.k = r.f.k;
            return;
        }
    }
    s->rows[s->n++] = r;
}

/* Replaces variable v by `by` in all rows. */
static void substitute(struct system *s, int v, const struct linear_form *by) {
    int n = s->n;
    struct set_row *old = s->rows;
    s->n = 0;
    for (int i = 0; i < n; i++) { /* writes never overtake reads */
        struct set_row r = old[i];
        int64_t c = r.f.c[v];
        r.f.c[v] = 0;
        struct linear_form f = c ? form_add(&r.f, by, c) : r.f;
        keep_row(s, &f, r.equality);
    }
}

/* a - b * round(a / b), between -b/2 and b/2. */
static int64_t symmetric_mod(int64_t a, int64_t b) {
    return a - b * floor_div(2 * a + b, 2 * b);
}

static void solve_equality(struct system *s, int at) {
    struct linear_form e = s->rows[at].f;
    int v = -1;
    for (int i = 0; i < s->vars; i++)
        if (e.c[i] && (v < 0 || magnitude(e.c[i]) < magnitude(e.c[v])))
            v = i;
    int64_t a = e.c[v];
    if (magnitude(a) == 1) {
        s->rows[at] = s->rows[--s->n];
        e.c[v] = 0;
        struct linear_form by = form_scale(&e, -a);
        substitute(s, v, &by);
        return;
    }
    int64_t m = magnitude(a) + 1, sign = a < 0 ? -1 : 1;
    if (s->vars == SET_VARS) {
        s->given_up = true;
        return;
    }
    /* v = -sign * m * new + sum sign * mod(c[i], m) * i: since mod(a, m) = -sign, an integer solution gives one. */
    int fresh = s->vars++;
    struct linear_form by = {.ok = true};
    for (int i = 0; i < fresh; i++)
        by.c[i] = i == v ? 0 : sign * symmetric_mod(e.c[i], m);
    by.k = sign * symmetric_mod(e.k, m);
    by.c[fresh] = -sign * m;
    substitute(s, v, &by);
}

static void eliminate(struct system *s, int v, struct set_row *scratch) {
    int n = s->n;
    memcpy(scratch, s->rows, sizeof *scratch * (size_t)n);
    s->n = 0;
    for (int i = 0; i < n; i++)
        if (scratch[i].f.c[v] == 0)
            s->rows[s->n++] = scratch[i];
    for (int i = 0; i < n && !s->empty && !s->given_up; i++)
        for (int j = 0; j < n && scratch[i].f.c[v] > 0; j++) {
            int64_t up = scratch[i].f.c[v], down = -scratch[j].f.c[v];
            if (down <= 0)
                continue;
            struct linear_form f = form_scale(&scratch[i].f, down);
            f = form_add(&f, &scratch[j].f, up);
            keep_row(s, &f, false);
        }
}

/* The variable whose elimination leaves the fewest rows; -1: none is left. */
static int cheapest(const struct system *s) {
    int best = -1, best_cost = 0;
    for (int v = 0; v < s->vars; v++) {
        int up = 0, down = 0;
        for (int i = 0; i < s->n; i++) {
            up += s->rows[i].f.c[v] > 0;
            down += s->rows[i].f.c[v] < 0;
        }
        int cost = up * down - up - down;
        if (up + down && (best < 0 || cost < best_cost)) {
            best = v;
            best_cost = cost;
        }
    }
    return best;
}

bool set_is_empty(const struct integer_set *set) {
    struct arena a = {0};
    struct system s = {.rows = ARENA_ARRAY(&a, struct set_row, SET_ROWS), .vars = set->vars};
    struct set_row *scratch = ARENA_ARRAY(&a, struct set_row, SET_ROWS);
    for (int i = 0; i < set->rows.n && !s.empty; i++)
        keep_row(&s, &set->rows.at[i].f, set->rows.at[i].equality);
    /* A solved equality loses a variable or makes its smallest coefficient smaller; the bound is for safety only. */
    for (int steps = 0; steps < 200 && !s.empty && !s.given_up; steps++) {
        int equality = -1;
        for (int i = 0; i < s.n && equality < 0; i++)
            if (s.rows[i].equality)
                equality = i;
        int v = equality < 0 ? cheapest(&s) : -1;
        if (equality >= 0)
            solve_equality(&s, equality);
        else if (v >= 0)
            eliminate(&s, v, scratch);
        else
            break;
    }
    arena_free(&a);
    return s.empty;
}
