/* Dimensions: canonical forms, division, bounds; and a random check of every operation against plain evaluation. */
#include <criterion/criterion.h>

#include "ir/ir.h"

static struct diag diag;
static struct ir_module *m;
static struct ir_func *f;
static struct ir_symbol *sn, *sh, *sz;
static ir_dim n, h, z; /* 1..64, 1..1000, 0..10 */

static void setup(void) {
    diag_init(&diag);
    m = ir_module_new(&diag, "test");
    f = ir_func_new(m, "f", (struct span){0});
    sn = ir_symbol_new(f, "N", 1, 64, (struct span){0});
    sh = ir_symbol_new(f, "H", 1, 1000, (struct span){0});
    sz = ir_symbol_new(f, "Z", 0, 10, (struct span){0});
    n = ir_dim_symbol(m, sn);
    h = ir_dim_symbol(m, sh);
    z = ir_dim_symbol(m, sz);
}

static void teardown(void) {
    ir_module_free(m);
    diag_free(&diag);
}

TestSuite(dim, .init = setup, .fini = teardown);

static ir_dim c(int64_t v) {
    return ir_dim_const(m, v);
}
#define ADD(a, b) ir_dim_add(m, a, b)
#define SUB(a, b) ir_dim_sub(m, a, b)
#define MUL(a, b) ir_dim_mul(m, a, b)
#define DIV(a, b) ir_dim_div(m, a, b)
#define MOD(a, b) ir_dim_mod(m, a, b)

Test(dim, equal_polynomials_are_one) {
    cr_assert_eq(ADD(n, h), ADD(h, n));
    cr_assert_eq(MUL(ADD(n, h), SUB(n, h)), SUB(MUL(n, n), MUL(h, h)));
    cr_assert_eq(SUB(ADD(n, c(3)), n), c(3));
    cr_assert_eq(SUB(n, n), c(0));
    cr_assert_eq(ir_dim_symbol(m, sn), n);
    cr_assert_neq(n, h);
}

Test(dim, division_is_exact_where_possible) {
    cr_assert_eq(DIV(MUL(c(4), n), c(4)), n);
    cr_assert_eq(DIV(ADD(MUL(c(4), n), c(3)), c(4)), n);
    cr_assert_eq(DIV(ADD(MUL(c(4), n), c(7)), c(4)), ADD(n, c(1)));
    cr_assert_eq(DIV(MUL(n, h), h), n);
    cr_assert_eq(DIV(MUL(ADD(n, c(1)), ADD(h, c(2))), ADD(h, c(2))), ADD(n, c(1)));
    cr_assert_eq(DIV(SUB(ADD(MUL(n, h), h), c(1)), h), n); /* N*H + (H - 1) */
    cr_assert_eq(DIV(c(-7), c(2)), c(-4));
    cr_assert_eq(DIV(DIV(n, c(2)), c(3)), DIV(n, c(6)));
    cr_assert_eq(DIV(ADD(DIV(n, c(2)), c(1)), c(3)), DIV(ADD(n, c(2)), c(6)));
    cr_assert_eq(DIV(MUL(c(2), n), c(4)), DIV(n, c(2)));
    cr_assert_eq(DIV(n, c(65)), c(0));
    cr_assert_eq(DIV(n, c(0)), c(0));
}

Test(dim, remainders) {
    cr_assert_eq(MOD(MUL(c(4), n), c(4)), c(0));
    cr_assert_eq(MOD(ADD(MUL(c(4), n), c(7)), c(4)), c(3));
    cr_assert_eq(MOD(MUL(n, h), h), c(0));
    cr_assert_eq(MOD(n, c(65)), n);
    cr_assert_eq(MOD(c(-7), c(4)), c(1));
    cr_assert_eq(MOD(MOD(n, c(8)), c(4)), MOD(n, c(4)));
    cr_assert_eq(MOD(MUL(c(4), n), c(8)), MUL(c(4), MOD(n, c(2))));
}

Test(dim, bounds_see_repeated_symbols) {
    cr_assert_eq(ir_dim_lower(n), 1);
    cr_assert_eq(ir_dim_upper(n), 64);
    cr_assert_eq(ir_dim_lower(SUB(n, c(1))), 0);
    cr_assert_eq(ir_dim_lower(SUB(MUL(n, n), n)), 0);
    cr_assert_eq(ir_dim_upper(SUB(MUL(n, n), n)), 64 * 63);
    cr_assert_eq(ir_dim_lower(SUB(MUL(n, h), h)), 0);
    cr_assert(ir_dim_le(m, n, MUL(n, h)));
    cr_assert(!ir_dim_le(m, n, MUL(n, z)));
    cr_assert(!ir_dim_lt(m, n, MUL(n, h)));
    cr_assert(ir_dim_lt(m, n, ADD(n, c(1))));
}

Test(dim, bounds_see_quotients) {
    cr_assert(ir_dim_le(m, MUL(c(4), DIV(n, c(4))), n));
    cr_assert(ir_dim_lt(m, n, ADD(MUL(c(4), DIV(n, c(4))), c(4))));
    /* a strided window never leaves its input: ((H - 3) / 2) * 2 + 3 <= H */
    cr_assert(ir_dim_le(m, ADD(MUL(c(2), DIV(SUB(h, c(3)), c(2))), c(3)), h));
    cr_assert(ir_dim_le(m, MOD(h, c(7)), c(6)));
    cr_assert(ir_dim_le(m, MOD(h, c(7)), h));
}

Test(dim, extrema) {
    cr_assert_eq(ir_dim_max(m, n, c(0)), n);
    cr_assert_eq(ir_dim_min(m, n, c(64)), n);
    cr_assert_eq(ir_dim_max(m, n, ADD(n, c(1))), ADD(n, c(1)));
    cr_assert_eq(ir_dim_max(m, n, h), ir_dim_max(m, h, n));
    ir_dim both = ir_dim_max(m, n, h);
    cr_assert(ir_dim_le(m, n, both));
    cr_assert_eq(ir_dim_max(m, both, n), both);
    cr_assert(ir_dim_le(m, ir_dim_min(m, n, h), h));
    cr_assert_eq(ir_dim_upper(both), 1000);
}

Test(dim, saturates) {
    ir_dim big = c(INT64_MAX);
    cr_assert_eq(big, c(IR_DIM_LIMIT));
    cr_assert_eq(ADD(big, big), big);
    cr_assert_eq(MUL(big, c(-5)), c(-IR_DIM_LIMIT));
    struct ir_symbol *free_size = ir_symbol_new(f, "U", 0, INT64_MAX, (struct span){0});
    ir_dim u = ir_dim_symbol(m, free_size);
    cr_assert_eq(ir_dim_upper(MUL(u, u)), IR_DIM_LIMIT);
    cr_assert_eq(ir_dim_upper(SUB(u, c(5))), IR_DIM_LIMIT);
    cr_assert_eq(ir_dim_lower(MUL(u, u)), 0);
    cr_assert(!ir_dim_le(m, u, c(IR_DIM_LIMIT - 1)));
}

Test(dim, substitution) {
    ir_dim map[3] = {c(8), NULL, n};
    ir_dim d = ADD(DIV(ADD(n, h), c(4)), ir_dim_max(m, n, z));
    cr_assert_eq(ir_dim_subst(m, d, map), ADD(DIV(ADD(c(8), h), c(4)), ir_dim_max(m, c(8), n)));
}

static void count(const struct ir_symbol *s, void *context) {
    ((int *)context)[s->id]++;
}

Test(dim, symbols_once_each) {
    int seen[3] = {0};
    ir_dim_symbols(ADD(MUL(n, n), DIV(ADD(n, h), c(3))), count, seen);
    cr_assert(seen[0] == 1 && seen[1] == 1 && seen[2] == 0);
}

/* ---- random expressions: every form evaluates as its construction does, and lies in its bounds ---- */

static uint64_t state;

static int pick(int below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (int)(state % (uint64_t)below);
}

enum { POINTS = 24 };
static int64_t points[POINTS][3];

struct sample {
    ir_dim d;
    int64_t at[POINTS];
};

static int64_t floor_div(int64_t a, int64_t b) {
    return b ? a / b - (a % b && (a < 0) != (b < 0)) : 0;
}

static struct sample random_dim(int depth) {
    struct sample r;
    int kind = depth ? pick(10) : pick(2);
    if (kind < 2) {
        ir_dim leaves[] = {n, h, z};
        int s = pick(3);
        int64_t k = pick(13) - 4;
        r.d = kind ? leaves[s] : c(k);
        for (int i = 0; i < POINTS; i++)
            r.at[i] = kind ? points[i][s] : k;
        return r;
    }
    struct sample a = random_dim(depth - 1), b = random_dim(depth - 1);
    if (kind == 6 || kind == 7) { /* a divisor that is never 0: as in the language, where that is an error */
        bool zero = false;
        for (int i = 0; i < POINTS; i++)
            zero |= b.at[i] == 0;
        if (zero || (ir_dim_lower(b.d) <= 0 && ir_dim_upper(b.d) >= 0))
            kind = 2;
    }
    for (int i = 0; i < POINTS; i++) {
        int64_t x = a.at[i], y = b.at[i];
        r.at[i] = kind <= 3   ? x + y
                  : kind == 4 ? x - y
                  : kind == 5 ? x * y
                  : kind == 6 ? floor_div(x, y)
                  : kind == 7 ? x - floor_div(x, y) * y
                  : kind == 8 ? (x > y ? x : y)
                              : (x < y ? x : y);
    }
    r.d = kind <= 3   ? ADD(a.d, b.d)
          : kind == 4 ? SUB(a.d, b.d)
          : kind == 5 ? MUL(a.d, b.d)
          : kind == 6 ? DIV(a.d, b.d)
          : kind == 7 ? MOD(a.d, b.d)
          : kind == 8 ? ir_dim_max(m, a.d, b.d)
                      : ir_dim_min(m, a.d, b.d);
    return r;
}

Test(dim, random_forms_agree_with_evaluation) {
    const uint64_t seed = 0x9e3779b97f4a7c15;
    state = seed;
    for (int i = 0; i < POINTS; i++) {
        points[i][0] = i == 0 ? 1 : i == 1 ? 64 : 1 + pick(64);
        points[i][1] = i == 0 ? 1 : i == 1 ? 1000 : 1 + pick(1000);
        points[i][2] = i == 0 ? 0 : i == 1 ? 10 : pick(11);
    }
    for (int k = 0; k < 2000; k++) {
        struct sample s = random_dim(1 + k % 4);
        int64_t lo = ir_dim_lower(s.d), hi = ir_dim_upper(s.d);
        for (int i = 0; i < POINTS; i++) {
            int64_t v = ir_dim_eval(s.d, points[i]);
            cr_assert_eq(v, s.at[i], "seed %#llx, case %d: %lld, not %lld", (unsigned long long)seed, k, (long long)v,
                         (long long)s.at[i]);
            cr_assert(lo <= v && v <= hi, "case %d: %lld is not in %lld..%lld", k, (long long)v, (long long)lo,
                      (long long)hi);
        }
    }
}
