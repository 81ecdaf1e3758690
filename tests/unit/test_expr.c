/* Scalar expressions: interning, folding, rewriting, ranges, index algebra; and random checks of simplify by
 * evaluation. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>

#include "ir/ir.h"

static struct diag diag;
static struct ir_module *m;
static struct ir_func *f;
static ir_dim n, z; /* 1..64, 0..10 */
static struct ir_nest nest;
static struct ir_nest_index indices[4];

static ir_expr k(int64_t v) {
    return ir_const_int(m, I64, v);
}
static ir_expr ix(int i) {
    return ir_index(m, i);
}
#define F2(fn, a, b) ir_fn2(m, FN_##fn, a, b)
#define SIMPLIFY(e)  ir_expr_simplify(m, &nest, NULL, e)

/* i < 8, j < 4, l < N, and one reduction index q < 3 */
static void setup(void) {
    diag_init(&diag);
    m = ir_module_new(&diag, "test");
    f = ir_func_new(m, "f", (struct span){0});
    n = ir_dim_symbol(m, ir_symbol_new(f, "N", 1, 64, (struct span){0}));
    z = ir_dim_symbol(m, ir_symbol_new(f, "Z", 0, 10, (struct span){0}));
    indices[0] = (struct ir_nest_index){.name = "i", .extent = ir_dim_const(m, 8)};
    indices[1] = (struct ir_nest_index){.name = "j", .extent = ir_dim_const(m, 4)};
    indices[2] = (struct ir_nest_index){.name = "l", .extent = n};
    indices[3] = (struct ir_nest_index){.name = "q", .extent = ir_dim_const(m, 3)};
    nest = (struct ir_nest){.pars = 3, .reds = 1, .indices = indices};
}

static void teardown(void) {
    ir_module_free(m);
    diag_free(&diag);
}

TestSuite(expr, .init = setup, .fini = teardown);

static ir_expr load(enum dtype t, int slot) {
    return ir_load(m, slot, t, 0, NULL, NULL);
}

Test(expr, interning) {
    cr_assert_eq(F2(add, ix(0), ix(1)), F2(add, ix(1), ix(0)));
    cr_assert_neq(ir_const_float(m, F32, 0.0), ir_const_float(m, F32, -0.0));
    cr_assert_eq(ir_const_float(m, F32, NAN), ir_const_float(m, F32, -NAN));
    cr_assert_neq(ir_const_int(m, I32, 1), k(1));
    ir_expr e = F2(mul, F2(add, ix(0), ix(1)), ix(2));
    for (int i = 0; i < e->count; i++)
        cr_assert_lt(e->args[i]->id, e->id);
}

Test(expr, integer_constants_have_the_semantics_of_the_language) {
    cr_assert_eq(F2(div, k(-7), k(2)), k(-4));
    cr_assert_eq(F2(mod, k(-7), k(2)), k(1));
    cr_assert_eq(F2(mod, k(7), k(-2)), k(-1));
    cr_assert_eq(F2(add, ir_const_int(m, I8, 127), ir_const_int(m, I8, 1)), ir_const_int(m, I8, -128));
    cr_assert_eq(F2(sub, ir_const_int(m, U8, 0), ir_const_int(m, U8, 1)), ir_const_int(m, U8, 255));
    cr_assert_eq(F2(div, k(INT64_MIN), k(-1)), k(INT64_MIN));
    cr_assert_eq(F2(lt, ir_const_int(m, U64, -1), ir_const_int(m, U64, 1)), ir_const_int(m, BOOL, 0));
    cr_assert_eq(F2(div, k(1), k(0))->kind, X_FN);
    cr_assert_eq(F2(mul, k(INT64_MAX), k(2)), k(-2));
}

Test(expr, float_constants_round_to_the_type) {
    cr_assert_eq(ir_const_float(m, F32, 0.1)->value.f, (double)0.1f);
    cr_assert_eq(ir_const_float(m, F16, 2049)->value.f, 2048);
    cr_assert_eq(ir_const_float(m, F16, 65519)->value.f, 65504);
    cr_assert(isinf(ir_const_float(m, F16, 65520)->value.f));
    cr_assert_eq(ir_const_float(m, F16, 5.9604644775390625e-8)->value.f, 5.9604644775390625e-8); /* least subnormal */
    cr_assert_eq(ir_const_float(m, F16, 2.9e-8)->value.f, 0);
    cr_assert_eq(ir_const_float(m, BF16, 257)->value.f, 256);
    cr_assert_eq(ir_const_float(m, BF16, 259)->value.f, 260);
    cr_assert_eq(F2(add, ir_const_float(m, F32, 16777216), ir_const_float(m, F32, 1))->value.f, 16777216);
    cr_assert_eq(ir_fn1(m, FN_round, ir_const_float(m, F32, 2.5))->value.f, 2);
    cr_assert_eq(ir_fn1(m, FN_exp, ir_const_float(m, F32, 1))->kind, X_FN); /* must have the run-time's bits */
    cr_assert(isnan(F2(max, ir_const_float(m, F32, NAN), ir_const_float(m, F32, 1))->value.f));
}

Test(expr, casts) {
    cr_assert_eq(ir_cast(m, I8, ir_const_float(m, F32, 300)), ir_const_int(m, I8, 127));
    cr_assert_eq(ir_cast(m, U8, ir_const_float(m, F32, -3)), ir_const_int(m, U8, 0));
    cr_assert_eq(ir_cast(m, I64, ir_const_float(m, F64, 1e30)), k(INT64_MAX));
    cr_assert_eq(ir_cast(m, I64, ir_const_float(m, F64, -1e30)), k(INT64_MIN));
    cr_assert_eq(ir_cast(m, I32, ir_const_float(m, F32, NAN)), ir_const_int(m, I32, 0));
    cr_assert_eq(ir_cast(m, I8, k(300)), ir_const_int(m, I8, 44));
    cr_assert_eq(ir_cast(m, F32, k(16777217))->value.f, 16777216);
    ir_expr h = load(F16, 0), i = load(I32, 1), b = load(I16, 2);
    cr_assert_eq(ir_cast(m, F16, ir_cast(m, F32, h)), h);
    cr_assert_eq(ir_cast(m, I32, ir_cast(m, I64, i)), i);
    cr_assert_neq(ir_cast(m, I32, ir_cast(m, F32, i)), i); /* f32 cannot hold every i32 */
    cr_assert_eq(ir_cast(m, I32, ir_cast(m, F64, i)), i);
    cr_assert_neq(ir_cast(m, I8, ir_cast(m, F32, b)), ir_cast(m, I8, b)); /* saturates; wraps */
    cr_assert_eq(ir_cast(m, I8, ir_cast(m, I16, i)), ir_cast(m, I8, i));
    cr_assert_neq(ir_cast(m, I32, ir_cast(m, I16, i)), i);
    cr_assert_eq(ir_bitcast(m, I32, ir_const_float(m, F32, 1)), ir_const_int(m, I32, 0x3f800000));
    cr_assert_eq(ir_bitcast(m, F32, ir_const_int(m, I32, 0x3f800000)), ir_const_float(m, F32, 1));
}

Test(expr, algebra) {
    ir_expr i = ix(0), x = load(F32, 0), p = load(BOOL, 1), q = load(BOOL, 2);
    ir_expr yes = ir_const_int(m, BOOL, 1), no = ir_const_int(m, BOOL, 0);
    cr_assert_eq(F2(add, i, k(0)), i);
    cr_assert_eq(F2(mul, k(0), i), k(0));
    cr_assert_eq(F2(sub, i, i), k(0));
    cr_assert_eq(F2(add, F2(add, i, k(3)), k(4)), F2(add, k(7), i));
    cr_assert_eq(F2(sub, F2(add, i, k(3)), k(3)), i);
    cr_assert_eq(F2(mul, F2(mul, i, k(3)), k(4)), F2(mul, i, k(12)));
    cr_assert_eq(F2(div, i, k(1)), i);
    cr_assert_eq(F2(mod, i, k(1)), k(0));
    ir_expr zero = ir_const_float(m, F32, 0), minus_zero = ir_const_float(m, F32, -0.0);
    cr_assert_neq(F2(add, x, zero), x); /* -0 + 0 is 0 */
    cr_assert_eq(F2(add, x, minus_zero), x);
    cr_assert_eq(F2(sub, x, zero), x);
    cr_assert_neq(F2(sub, x, x), zero); /* nan */
    cr_assert_neq(F2(mul, x, zero), zero);
    cr_assert_eq(F2(mul, x, ir_const_float(m, F32, 1)), x);
    cr_assert_eq(F2(max, x, x), x);
    cr_assert_eq(ir_fn1(m, FN_neg, ir_fn1(m, FN_neg, x)), x);
    cr_assert_eq(ir_fn3(m, FN_where, yes, x, zero), x);
    cr_assert_eq(ir_fn3(m, FN_where, p, x, x), x);
    cr_assert_eq(ir_fn3(m, FN_where, p, ir_fn3(m, FN_where, p, x, zero), minus_zero),
                 ir_fn3(m, FN_where, p, x, minus_zero));
    cr_assert_eq(ir_fn3(m, FN_where, p, yes, no), p);
    cr_assert_eq(F2(and, p, no), no);
    cr_assert_eq(F2(or, no, p), p);
    cr_assert_eq(F2(and, p, ir_fn1(m, FN_not, p)), no);
    cr_assert_eq(F2(and, p, q), F2(and, q, p));
    cr_assert_eq(ir_fn1(m, FN_not, ir_fn1(m, FN_not, p)), p);
    ir_expr less = F2(lt, x, zero);
    cr_assert_eq(ir_fn1(m, FN_not, less)->fn, FN_not); /* not le: nan */
    cr_assert_eq(ir_fn1(m, FN_not, F2(lt, i, k(3))), F2(le, k(3), i));
}

Test(expr, dimensions_compute_as_dimensions) {
    ir_expr d = ir_dim_expr(m, n);
    ir_dim four = ir_dim_const(m, 4), three = ir_dim_const(m, 3);
    cr_assert_eq(F2(add, F2(mul, d, k(4)), k(3))->dim, ir_dim_add(m, ir_dim_mul(m, n, four), three));
    cr_assert_eq(F2(sub, d, d), k(0));
    cr_assert_eq(F2(lt, k(0), d), ir_const_int(m, BOOL, 1));
    cr_assert_eq(F2(div, d, ir_dim_expr(m, z))->kind, X_FN); /* Z may be 0 */
    cr_assert_eq(F2(sub, F2(add, ix(0), d), d), ix(0));
    cr_assert_eq(ir_dim_expr(m, ir_dim_const(m, 5)), k(5));
}

static ir_expr shift_first(struct ir_rewrite *r, ir_expr original, ir_expr rewritten) {
    ++*(int *)r->context;
    return original->kind == X_INDEX && original->index == 0 ? k(5) : NULL;
}

static void count(ir_expr e, void *context) {
    ++*(int *)context;
}

Test(expr, rewriting_and_walking) {
    ir_expr e = F2(add, F2(mul, ix(0), ix(1)), ix(0));
    int calls = 0, nodes = 0;
    struct ir_rewrite r = {.module = m, .fn = shift_first, .context = &calls};
    cr_assert_eq(ir_rewrite_expr(&r, e), F2(add, F2(mul, ix(1), k(5)), k(5)));
    cr_assert_eq(calls, 2);
    cr_assert_eq(ir_rewrite_expr(&r, ix(0)), k(5));
    cr_assert_eq(calls, 2); /* remembered */
    ir_rewrite_free(&r);
    ir_expr_walk(e, count, &nodes);
    cr_assert_eq(nodes, 4);
}

Test(expr, deep_and_shared_expressions) {
    ir_expr deep = load(F32, 0), wide = load(I64, 1);
    for (int i = 0; i < 100000; i++)
        deep = F2(add, deep, ir_const_float(m, F32, i + 1));
    for (int i = 0; i < 60; i++) /* 2^60 paths */
        wide = F2(bitxor, F2(add, wide, ix(0)), F2(mul, wide, ix(1)));
    int nodes = 0;
    ir_expr_walk(deep, count, &nodes);
    cr_assert_eq(nodes, 200001);
    SIMPLIFY(deep);
    SIMPLIFY(wide);
    ir_expr_range(m, &nest, wide);
    ir_expr sum = ix(0); /* a linear form of 2^50 occurrences */
    for (int i = 0; i < 50; i++)
        sum = F2(add, sum, F2(mul, sum, k(1)));
    cr_assert(ir_expr_range(m, &nest, sum).known);
}

static void check_range(ir_expr e, ir_dim lo, ir_dim hi) {
    struct ir_range r = ir_expr_range(m, &nest, e);
    cr_assert(r.known);
    cr_assert_eq(r.lo, lo);
    cr_assert_eq(r.hi, hi);
}

Test(expr, ranges) {
    ir_dim zero = ir_dim_const(m, 0), one = ir_dim_const(m, 1);
    check_range(ix(0), zero, ir_dim_const(m, 7));
    check_range(ix(2), zero, ir_dim_sub(m, n, one));
    check_range(F2(sub, F2(add, F2(mul, ix(0), k(4)), ix(1)), F2(mul, ix(0), k(4))), zero, ir_dim_const(m, 3));
    check_range(F2(sub, ix(0), ix(1)), ir_dim_const(m, -3), ir_dim_const(m, 7));
    check_range(F2(mod, ix(0), k(3)), zero, ir_dim_const(m, 2));
    check_range(F2(mod, ix(1), k(10)), zero, ir_dim_const(m, 3));
    check_range(F2(div, ix(0), k(3)), zero, ir_dim_const(m, 2));
    check_range(ir_cast(m, I64, load(U8, 0)), zero, ir_dim_const(m, 255));
    cr_assert(!ir_expr_range(m, &nest, load(I64, 0)).known);
    check_range(F2(max, ix(0), k(2)), ir_dim_const(m, 2), ir_dim_const(m, 7));
    /* wraps in i8 */
    check_range(F2(add, load(I8, 0), ir_const_int(m, I8, 1)), ir_dim_const(m, -128), ir_dim_const(m, 127));
}

Test(expr, triangular_reductions) {
    indices[3].lo = k(0); /* q in 0 .. l + 1 */
    indices[3].hi = F2(add, ix(2), k(1));
    indices[3].extent = n;
    check_range(F2(sub, ix(2), ix(3)), ir_dim_const(m, 0), ir_dim_sub(m, n, ir_dim_const(m, 1)));
    cr_assert_eq(ir_index_inside(m, &nest, F2(sub, ix(2), ix(3)), n), INSIDE);
    /* adaptive pooling: q in l * 7 / N .. ((l + 1) * 7 + N - 1) / N stays in 0..7 */
    ir_expr d = ir_dim_expr(m, n);
    indices[3].lo = F2(div, F2(mul, ix(2), k(7)), d);
    indices[3].hi = F2(div, F2(add, F2(mul, F2(add, ix(2), k(1)), k(7)), F2(sub, d, k(1))), d);
    cr_assert_eq(ir_index_inside(m, &nest, ix(3), ir_dim_const(m, 7)), INSIDE);
}

Test(expr, inside) {
    ir_dim eight = ir_dim_const(m, 8);
    cr_assert_eq(ir_index_inside(m, &nest, ix(0), eight), INSIDE);
    cr_assert_eq(ir_index_inside(m, &nest, F2(add, ix(0), k(1)), eight), OUTSIDE);
    cr_assert_eq(ir_index_inside(m, &nest, F2(sub, ix(0), k(1)), eight), OUTSIDE);
    cr_assert_eq(ir_index_inside(m, &nest, F2(add, ix(2), k(1)), n), OUTSIDE);
    cr_assert_eq(ir_index_inside(m, &nest, ix(2), eight), UNKNOWN); /* N may be 8 or less */
    cr_assert_eq(ir_index_inside(m, &nest, ix(2), ir_dim_const(m, 64)), INSIDE);
    cr_assert_eq(ir_index_inside(m, &nest, ir_cast(m, I64, load(U8, 0)), ir_dim_const(m, 255)), UNKNOWN);
    cr_assert_eq(ir_index_inside(m, &nest, F2(sub, F2(mod, ix(0), k(3)), k(9)), eight), OUTSIDE);
    indices[2].extent = z; /* may be empty: nothing surely runs */
    cr_assert_eq(ir_index_inside(m, &nest, F2(add, ix(0), k(1)), eight), UNKNOWN);
    /* a strided window: l < (H - 3) / 2 + 1, q < 3, index l * 2 + q in H */
    ir_dim h = ir_dim_symbol(m, ir_symbol_new(f, "H", 3, 1000, (struct span){0}));
    ir_dim windows = ir_dim_div(m, ir_dim_sub(m, h, ir_dim_const(m, 3)), ir_dim_const(m, 2));
    indices[2].extent = ir_dim_add(m, windows, ir_dim_const(m, 1));
    cr_assert_eq(ir_index_inside(m, &nest, F2(add, F2(mul, ix(2), k(2)), ix(3)), h), INSIDE);
}

Test(expr, affine) {
    ir_dim c[4], c0;
    ir_expr d = ir_dim_expr(m, n);
    cr_assert(ir_expr_affine(m, F2(add, F2(mul, ix(0), d), F2(sub, k(3), ix(1))), 4, c, &c0));
    cr_assert_eq(c[0], n);
    cr_assert_eq(c[1], ir_dim_const(m, -1));
    cr_assert_eq(c[2], ir_dim_const(m, 0));
    cr_assert_eq(c0, ir_dim_const(m, 3));
    cr_assert(!ir_expr_affine(m, F2(div, ix(0), k(2)), 4, c, &c0));
    cr_assert(!ir_expr_affine(m, F2(mul, ix(0), ix(1)), 4, c, &c0));
}

Test(expr, simplify_index_algebra) {
    ir_expr i = ix(0), j = ix(1), l = ix(2), d = ir_dim_expr(m, n);
    ir_expr flat = F2(add, F2(mul, i, k(4)), j);
    cr_assert_eq(SIMPLIFY(F2(div, flat, k(4))), i);
    cr_assert_eq(SIMPLIFY(F2(mod, flat, k(4))), j);
    cr_assert_eq(SIMPLIFY(F2(mod, flat, k(32))), flat);
    cr_assert_eq(SIMPLIFY(F2(div, flat, k(32))), k(0));
    cr_assert_eq(SIMPLIFY(F2(div, flat, k(8))), F2(div, i, k(2)));
    /* ((i * 4 + j) * N + l): symbolic extents */
    ir_expr deep = F2(add, F2(mul, flat, d), l);
    cr_assert_eq(SIMPLIFY(F2(mod, deep, d)), l);
    cr_assert_eq(SIMPLIFY(F2(mod, F2(div, deep, d), k(4))), j);
    cr_assert_eq(SIMPLIFY(F2(div, deep, F2(mul, d, k(4)))), i);
    ir_expr x = ir_cast(m, I64, load(I32, 0));
    cr_assert_eq(SIMPLIFY(F2(add, F2(mul, F2(div, x, k(5)), k(5)), F2(mod, x, k(5)))), x);
    cr_assert_eq(SIMPLIFY(F2(div, F2(div, x, k(3)), k(5))), F2(div, x, k(15)));
    cr_assert_eq(SIMPLIFY(F2(mod, F2(mod, x, k(12)), k(4))), F2(mod, x, k(4)));
    cr_assert_eq(SIMPLIFY(F2(div, F2(add, F2(mul, i, k(4)), x), k(4))), F2(add, F2(div, x, k(4)), i));
    ir_expr y = load(I64, 0); /* y * 4 may wrap */
    cr_assert_neq(SIMPLIFY(F2(div, F2(mul, y, k(4)), k(4))), y);
    cr_assert_eq(SIMPLIFY(F2(sub, F2(add, y, i), y)), i); /* wrapping or not */
    cr_assert_eq(SIMPLIFY(F2(max, i, k(0))), i);
    cr_assert_eq(SIMPLIFY(F2(lt, l, d)), ir_const_int(m, BOOL, 1));
    cr_assert_eq(SIMPLIFY(F2(lt, i, k(7)))->kind, X_FN);
    cr_assert_eq(SIMPLIFY(F2(eq, i, k(9))), ir_const_int(m, BOOL, 0));
    cr_assert_eq(SIMPLIFY(F2(le, F2(add, i, x), F2(add, x, k(7)))), ir_const_int(m, BOOL, 1));
}

Test(expr, simplify_guards) {
    ir_dim dims[1] = {ir_dim_const(m, 8)};
    struct ir_value v = {.type = ir_type_make(m, F32, 1, dims)}, *operands[1] = {&v};
    ir_expr other = ir_const_float(m, F32, 7);
    ir_expr at[1] = {ix(0)}, far[1] = {F2(add, ix(0), k(8))}, some[1] = {F2(sub, ix(0), k(1))};
    ir_expr guarded = ir_load(m, 0, F32, 1, at, other);
    cr_assert_eq(ir_expr_simplify(m, &nest, operands, guarded), ir_load(m, 0, F32, 1, at, NULL));
    cr_assert_eq(ir_expr_simplify(m, &nest, operands, ir_load(m, 0, F32, 1, far, other)), other);
    ir_expr kept = ir_load(m, 0, F32, 1, some, other);
    cr_assert_eq(ir_expr_simplify(m, &nest, operands, kept), kept);
}

/* ---- random index expressions: simplified or not, the value is the same and within the range ---- */

static uint64_t state;

static int pick(int below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (int)(state % (uint64_t)below);
}

static int64_t eval(ir_expr e, const int64_t *at, const int64_t *symbols) {
    int64_t a[3] = {0};
    for (int i = 0; i < e->count; i++)
        a[i] = eval(e->args[i], at, symbols);
    switch (e->kind) {
    case X_CONST: return e->value.i;
    case X_INDEX: return at[e->index];
    case X_DIM: return ir_dim_eval(e->dim, symbols);
    default: break;
    }
    int64_t q = 0;
    if (e->fn == FN_div || e->fn == FN_mod)
        q = a[0] / a[1] - (a[0] % a[1] && (a[0] < 0) != (a[1] < 0));
    switch (e->fn) {
    case FN_add: return a[0] + a[1];
    case FN_sub: return a[0] - a[1];
    case FN_neg: return -a[0];
    case FN_mul: return a[0] * a[1];
    case FN_div: return q;
    case FN_mod: return a[0] - q * a[1];
    case FN_max: return a[0] > a[1] ? a[0] : a[1];
    case FN_min: return a[0] < a[1] ? a[0] : a[1];
    case FN_lt: return a[0] < a[1];
    case FN_le: return a[0] <= a[1];
    case FN_eq: return a[0] == a[1];
    case FN_ne: return a[0] != a[1];
    case FN_not: return !a[0];
    case FN_where: return a[0] ? a[1] : a[2];
    default: cr_assert_fail("%s", scalar_table[e->fn].name); abort();
    }
}

static ir_expr random_expr(int depth) {
    static const enum scalar_fn order[] = {FN_lt, FN_le, FN_eq, FN_ne};
    if (!depth || !pick(6))
        return pick(4) ? ix(pick(4)) : pick(3) ? k(pick(9) - 2) : ir_dim_expr(m, n);
    ir_expr a = random_expr(depth - 1), b;
    switch (pick(9)) {
    case 0:
    case 1: return F2(add, a, random_expr(depth - 1));
    case 2: return F2(sub, a, random_expr(depth - 1));
    case 3: return F2(mul, a, pick(4) ? k(pick(8) - 1) : ir_dim_expr(m, n));
    case 4: return F2(div, a, pick(4) ? k(1 + pick(12)) : ir_dim_expr(m, n));
    case 5:
    case 6: return F2(mod, a, pick(4) ? k(1 + pick(12)) : ir_dim_expr(m, n));
    case 7: b = random_expr(depth - 1); return pick(2) ? F2(max, a, b) : F2(min, a, b);
    default:
        b = random_expr(depth - 1);
        return ir_fn3(m, FN_where, ir_fn2(m, order[pick(4)], a, b), random_expr(depth - 1), random_expr(depth - 1));
    }
}

Test(expr, random_index_expressions_keep_their_value) {
    const uint64_t seed = 0xd1b54a32d192ed03;
    state = seed;
    int unknown = 0;
    for (int t = 0; t < 1500; t++) {
        indices[3].hi = t % 3 ? NULL : F2(add, ix(0), k(1)); /* every third: q in 0 .. i + 1 */
        indices[3].extent = ir_dim_const(m, t % 3 ? 3 : 8);
        ir_expr e = random_expr(1 + t % 5), s = SIMPLIFY(e);
        struct ir_range r = ir_expr_range(m, &nest, e);
        unknown += !r.known; /* a coefficient whose sign is not known */
        enum inside inside = ir_index_inside(m, &nest, e, n);
        bool left = false;
        for (int p = 0; p < 40; p++) {
            int64_t symbols[2] = {p < 6 ? 1 + p : 1 + pick(64), 0};
            int64_t at[4] = {pick(8), pick(4), pick((int)symbols[0]), 0};
            at[3] = pick(t % 3 ? 3 : (int)at[0] + 1);
            int64_t v = eval(e, at, symbols);
            cr_assert_eq(eval(s, at, symbols), v, "seed %#llx, case %d", (unsigned long long)seed, t);
            cr_assert(!r.known || ir_dim_eval(r.lo, symbols) <= v, "lower end, case %d", t);
            cr_assert(!r.known || ir_dim_eval(r.hi, symbols) >= v, "upper end, case %d", t);
            left |= v < 0 || v >= symbols[0];
        }
        cr_assert(inside != INSIDE || !left, "case %d", t);
    }
    cr_assert_lt(unknown, 30);
}
