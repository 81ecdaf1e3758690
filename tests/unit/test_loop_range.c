/* Intervals of index arithmetic (ir/loop_range.c): random expressions over bounded indices take no value outside of theirs, whatever the
 * indices are; and what stands in a kernel where it must not is found by the verifier. */
#include <criterion/criterion.h>

#include "ir/loop.h"

enum { VARS = 3 };

static uint32_t next(uint32_t *s) {
    *s = *s * 1664525u + 1013904223u;
    return *s >> 8;
}

static int64_t floor_div(int64_t a, int64_t b) {
    return b == 0 ? 0 : a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static int64_t value(lx e, const int64_t *at) {
    if (e->kind == LX_INT)
        return e->value.i;
    if (e->kind == LX_VAR)
        return at[e->var->id];
    if (e->kind == LX_SELECT)
        return value(e->args[0]->args[0], at) < value(e->args[0]->args[1], at) ? value(e->args[1], at)
                                                                               : value(e->args[2], at);
    int64_t x = value(e->args[0], at), y = value(e->args[1], at);
    switch (e->op) {
    case I_ADD: return x + y;
    case I_SUB: return x - y;
    case I_MUL: return x * y;
    case I_MIN: return x < y ? x : y;
    case I_MAX: return x > y ? x : y;
    case I_DIV: return x / y;
    case I_MOD: return x % y;
    case I_FDIV: return floor_div(x, y);
    case I_FMOD: return y == 0 ? 0 : x - floor_div(x, y) * y;
    default: cr_assert_fail("no operation of indices");
    }
    return 0;
}

static lx expression(struct loop_builder *b, struct loop_var **vars, uint32_t *s, int depth) {
    static const enum lx_op ops[] = {I_ADD, I_SUB, I_MUL, I_MIN, I_MAX, I_DIV, I_MOD, I_FDIV, I_FMOD};
    if (depth == 0 || next(s) % 5 == 0)
        return next(s) % 3 ? lx_var(b, vars[next(s) % VARS]) : lx_int(b, (int64_t)(next(s) % 41) - 20);
    if (next(s) % 9 == 0) {
        lx test = lx_op(b, I_LT, expression(b, vars, s, depth - 1), expression(b, vars, s, depth - 1));
        if (test->kind == LX_OP)
            return lx_select(b, test, expression(b, vars, s, depth - 1), expression(b, vars, s, depth - 1));
    }
    enum lx_op op = ops[next(s) % (sizeof ops / sizeof *ops)];
    lx x = expression(b, vars, s, depth - 1), y = expression(b, vars, s, depth - 1);
    if (op == I_DIV || op == I_MOD) { /* which take a dividend >= 0 and a divisor > 0 */
        x = lx_op(b, I_MAX, x, lx_int(b, 0));
        y = lx_op(b, I_MAX, y, lx_int(b, 1));
    }
    return lx_op(b, op, x, y);
}

Test(loop_range, bounds_hold) {
    uint32_t s = 7;
    int known = 0;
    for (int round = 0; round < 4000; round++) {
        struct arena arena = {0};
        struct loop_builder b = {.arena = &arena};
        struct loop_var *vars[VARS];
        for (int i = 0; i < VARS; i++) {
            int64_t least = (int64_t)(next(&s) % 9) - 4;
            vars[i] = loop_var_new(&b, "i", I64, 1);
            loop_var_bound(vars[i], least, least + next(&s) % 6);
        }
        lx e = expression(&b, vars, &s, 4);
        int64_t lo, hi, at[VARS];
        if (lx_range(e, &lo, &hi)) {
            known++;
            for (at[0] = vars[0]->least; at[0] <= vars[0]->most; at[0]++)
                for (at[1] = vars[1]->least; at[1] <= vars[1]->most; at[1]++)
                    for (at[2] = vars[2]->least; at[2] <= vars[2]->most; at[2]++) {
                        int64_t v = value(e, at);
                        if (v < lo || v > hi) {
                            struct text t = {0};
                            lx_print(&t, e);
                            cr_assert_fail("round %d: %s is %lld, not in %lld .. %lld", round, text_string(&t),
                                           (long long)v, (long long)lo, (long long)hi);
                        }
                    }
        }
        arena_free(&arena);
    }
    cr_assert_gt(known, 3000);
}

Test(loop_range, no_32_bits) {
    struct arena arena = {0};
    struct loop_builder b = {.arena = &arena};
    struct loop_var *v = loop_var_new(&b, "i", I64, 1);
    int64_t lo, hi;
    cr_assert(!lx_range(lx_var(&b, v), &lo, &hi));
    loop_var_bound(v, 0, 100000);
    cr_assert(lx_range(lx_mul(&b, lx_var(&b, v), lx_int(&b, 20000)), &lo, &hi));
    cr_assert_eq(hi, INT64_C(2000000000));
    lx wide = lx_mul(&b, lx_var(&b, v), lx_int(&b, 30000));
    cr_assert(!lx_range(wide, &lo, &hi));
    cr_assert(!lx_range(lx_mod(&b, wide, lx_int(&b, 7)), &lo, &hi), "a part does not fit");
    arena_free(&arena);
}

/* A kernel of one block with `inside` as the body of its threads. */
static bool stands(struct loop_builder *b, struct loop_block *inside) {
    struct loop_block k;
    struct loop_var *block = loop_var_new(b, "block", I64, 1), *thread = loop_var_new(b, "thread", I64, 1);
    struct text why = {0};
    loop_block_init(&k);
    struct loop_stmt *grid = loop_for(b, &k, block, lx_int(b, 0), lx_int(b, 1), 1, LOOP_GRID);
    struct loop_stmt *threads = loop_for(b, &grid->body, thread, lx_int(b, 0), lx_int(b, 64), 1, LOOP_THREADS);
    loop_append_block(&threads->body, inside);
    bool good = loop_verify(&k, NULL, 32, &why);
    text_free(&why);
    return good;
}

Test(loop_range, kernels_are_verified) {
    struct arena arena = {0};
    struct loop_builder b = {.arena = &arena};
    struct loop_block k;
    loop_block_init(&k);
    loop_barrier(&b, &k);
    cr_assert(stands(&b, &k));
    for (int own = 0; own < 2; own++) {
        struct loop_var *i = loop_var_new(&b, "i", I64, 1);
        loop_block_init(&k);
        if (own) /* else it is the function's, and the same for all threads */
            loop_def(&b, &k, i, lx_int(&b, 1));
        struct loop_stmt *branch = loop_if(&b, &k, lx_op(&b, I_LT, lx_var(&b, i), lx_int(&b, 3)));
        loop_barrier(&b, &branch->body);
        cr_assert_eq(stands(&b, &k), !own, "a barrier in a branch");
    }
    loop_block_init(&k);
    struct loop_mem *shared = loop_mem_new(&b, "part", F32, MEM_SHARED);
    shared->count = 4;
    loop_local(&b, &k, shared);
    cr_assert(!stands(&b, &k), "shared memory of a thread");
    struct text why = {0};
    loop_block_init(&k);
    loop_barrier(&b, &k);
    cr_assert(!loop_verify(&k, NULL, 32, &why), "a barrier outside of a kernel");
    text_free(&why);
    arena_free(&arena);
}
