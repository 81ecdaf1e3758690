/* Fusion: known shapes, and random programs that compute the same bits before and after. */
#include <criterion/criterion.h>

#include "ir/text.h"
#include "passes/nest_edit.h"
#include "tests/unit/plan_random.h"

struct fused {
    struct diag d;
    struct ir_module *m;
    struct ir_region *body;
};

static void fuse_text(struct fused *t, const char *text) {
    memset(t, 0, sizeof *t);
    diag_init(&t->d);
    t->m = ir_parse(&t->d, diag_add_source(&t->d, "test.mxir", text, strlen(text)));
    if (!t->m)
        diag_print(&t->d, stderr, false);
    cr_assert(t->m);
    struct compile_options o = {0};
    struct pass_context c = {.module = t->m, .diag = &t->d, .options = &o};
    struct text why = {0};
    cr_assert(ir_verify(t->m, &why), "%s", text_string(&why));
    pass_fuse(&c);
    cr_assert(ir_verify(t->m, &why), "%s", text_string(&why));
    t->body = t->m->funcs[0]->body;
}

static void done(struct fused *t) {
    ir_module_free(t->m);
    diag_free(&t->d);
}

static int nests(const struct ir_region *r) {
    int n = 0;
    for (const struct ir_op *op = r->first; op; op = op->next)
        n += op->code == OP_nest;
    return n;
}

Test(fuse, epilogue_of_a_product) {
    struct fused t;
    fuse_text(&t, "module \"m\"\n"
                  "export func f(x = %0.x: f32[8, 4], w = %1.w: f32[4, 6], b = %2.b: f32[6]) -> (y) {\n"
                  "    %3: f32[8, 6] = nest(%0.x, %1.w) [i < 8, j < 6] {\n"
                  "        reduce k < 4\n"
                  "        acc0 = sum mul(%0.x[i, k], %1.w[k, j])\n"
                  "        %3 = acc0\n"
                  "    }\n"
                  "    %4: f32[8, 6] = nest(%3, %2.b) [i < 8, j < 6] {\n"
                  "        %4 = add(%3[i, j], %2.b[j])\n"
                  "    }\n"
                  "    %5: f32[8, 6] = nest(%4) [i < 8, j < 6] {\n"
                  "        %5 = max(%4[i, j], 0:f32)\n"
                  "    }\n"
                  "    return %5\n"
                  "}\n");
    cr_expect_eq(nests(t.body), 1);
    cr_expect(nest_is_contraction(t.body->first));
    done(&t);
}

Test(fuse, a_product_takes_views_but_no_arithmetic) {
    struct fused t;
    fuse_text(&t, "module \"m\"\n"
                  "export func f(x = %0.x: f32[8, 4], w = %1.w: f32[6, 4]) -> (y) {\n"
                  "    %2: f32[4, 6] = nest(%1.w) [i < 4, j < 6] {\n"
                  "        %2 = %1.w[j, i]\n"
                  "    }\n"
                  "    %3: f32[8, 4] = nest(%0.x) [i < 8, j < 4] {\n"
                  "        %3 = max(%0.x[i, j], 0:f32)\n"
                  "    }\n"
                  "    %4: f32[8, 6] = nest(%3, %2) [i < 8, j < 6] {\n"
                  "        reduce k < 4\n"
                  "        acc0 = sum mul(%3[i, k], %2[k, j])\n"
                  "        %4 = acc0\n"
                  "    }\n"
                  "    return %4\n"
                  "}\n");
    cr_expect_eq(nests(t.body), 2);
    cr_expect(nest_is_contraction(t.body->last));
    done(&t);
}

Test(fuse, a_whole_reduction_takes_its_producer) {
    struct fused t;
    fuse_text(&t, "module \"m\"\n"
                  "export func f(x = %0.x: f32[8, 4]) -> (y) {\n"
                  "    %1: f32[8, 4] = nest(%0.x) [i < 8, j < 4] {\n"
                  "        %1 = exp(%0.x[i, j])\n"
                  "    }\n"
                  "    %2: f32 = nest(%1) [] {\n"
                  "        reduce i < 8\n"
                  "        reduce j < 4\n"
                  "        acc0 = sum %1[i, j]\n"
                  "        %2 = acc0\n"
                  "    }\n"
                  "    return %2\n"
                  "}\n");
    cr_expect_eq(nests(t.body), 1);
    done(&t);
}

Test(fuse, an_exponential_is_not_computed_again) {
    struct fused t; /* each row is needed four times */
    fuse_text(&t, "module \"m\"\n"
                  "export func f(x = %0.x: f32[8]) -> (y) {\n"
                  "    %1: f32[8] = nest(%0.x) [i < 8] {\n"
                  "        %1 = exp(%0.x[i])\n"
                  "    }\n"
                  "    %2: f32[8, 4] = nest(%1) [i < 8, j < 4] {\n"
                  "        %2 = mul(%1[i], 2:f32)\n"
                  "    }\n"
                  "    return %2\n"
                  "}\n");
    cr_expect_eq(nests(t.body), 2);
    done(&t);
}

Test(fuse, parts_of_an_update_become_one) {
    struct fused t; /* momentum: m = 0.9 m + g, w = w - 0.1 m; both written */
    fuse_text(&t, "module \"m\"\n"
                  "param @w: f32[64]\n"
                  "state @m: f32[64]\n"
                  "export func f(g = %0.g: f32[64]) {\n"
                  "    %1.w @w#0: f32[64] = read @w\n"
                  "    %2.m @m#0: f32[64] = read @m\n"
                  "    %3: f32[64] = nest(%2.m, %0.g) [i < 64] {\n"
                  "        %3 = add(mul(%2.m[i], 0.9:f32), %0.g[i])\n"
                  "    }\n"
                  "    %4: f32[64] = nest(%1.w, %3) [i < 64] {\n"
                  "        %4 = sub(%1.w[i], mul(%3[i], 0.1:f32))\n"
                  "    }\n"
                  "    write(%4) @w\n"
                  "    write(%3) @m\n"
                  "    return\n"
                  "}\n");
    cr_expect_eq(nests(t.body), 1);
    struct compile_options o = {0};
    struct pass_context c = {.module = t.m, .diag = &t.d, .options = &o};
    pass_order(&c);
    pass_mutation(&c);
    pass_place(&c);
    cr_expect_eq(c.plan->funcs[0].copy_count, 0);
    cr_expect_eq(c.plan->arena_bytes, 0);
    done(&t);
}

Test(fuse, a_transposed_product_is_made_transposed) {
    struct fused t;
    fuse_text(&t, "module \"m\"\n"
                  "export func f(p = %0: f32[2, 3, 8, 8], v = %1: f32[2, 8, 3, 5]) -> (y) {\n"
                  "    %2: f32[2, 3, 8, 5] = nest(%0, %1) [b < 2, h < 3, i < 8, e < 5] {\n"
                  "        reduce j < 8\n"
                  "        acc0 = sum mul(%0[b, h, i, j], %1[b, j, h, e])\n"
                  "        %2 = acc0\n"
                  "    }\n"
                  "    %3: f32[2, 8, 3, 5] = nest(%2) [b < 2, i < 8, h < 3, e < 5] {\n"
                  "        %3 = %2[b, h, i, e]\n"
                  "    }\n"
                  "    return %3\n"
                  "}\n");
    cr_expect_eq(nests(t.body), 1);
    cr_expect(nest_is_contraction(t.body->first));
    cr_expect_str_eq(t.body->first->nest.indices[1].name, "i");
    done(&t);
}

Test(fuse, an_update_joins_the_sum_of_its_gradient) {
    struct fused t; /* the bias is read before, within and after; the step's scalar is computed behind the sum */
    fuse_text(&t, "module \"m\"\n"
                  "param @b: f32[6]\n"
                  "state @t: f32\n"
                  "export func f(g = %0: f32[8, 6]) {\n"
                  "    %1 @b#0: f32[6] = read @b\n"
                  "    %2: f32[6] = nest(%0) [i < 6] {\n"
                  "        reduce n < 8\n"
                  "        acc0 = sum %0[n, i]\n"
                  "        %2 = acc0\n"
                  "    }\n"
                  "    %3 @t#0: f32 = read @t\n"
                  "    %4: f32 = nest(%3) [] {\n"
                  "        %4 = sqrt(%3[])\n"
                  "    }\n"
                  "    %5: f32[6] = nest(%1, %2, %4) [i < 6] {\n"
                  "        %5 = sub(%1[i], mul(%2[i], %4[]))\n"
                  "    }\n"
                  "    write(%5) @b\n"
                  "    return\n"
                  "}\n");
    cr_expect_eq(nests(t.body), 2);
    for (const struct ir_op *op = t.body->first; op; op = op->next)
        cr_expect(op->code != OP_nest || op->nest.pars == 0 || op->nest.reds == 1);
    done(&t);
}

Test(fuse, equal_results_of_one_nest_are_one) {
    struct fused t;
    fuse_text(&t, "module \"m\"\n"
                  "export func f(x = %0: f32[8]) -> (y) {\n"
                  "    %1: f32[8], %2: f32[8] = nest(%0) [i < 8] {\n"
                  "        %1 = exp(%0[i])\n"
                  "        %2 = exp(%0[i])\n"
                  "    }\n"
                  "    %3: f32[8, 8] = nest(%1, %2) [i < 8, j < 8] {\n"
                  "        %3 = mul(%1[i], %2[j])\n"
                  "    }\n"
                  "    return %3\n"
                  "}\n");
    cr_expect_eq(t.body->first->result_count, 1);
    done(&t);
}

Test(fuse, sum_and_sum_of_squares) {
    struct fused t;
    fuse_text(&t, "module \"m\"\n"
                  "export func f(x = %0.x: f32[8, 4]) -> (a, b) {\n"
                  "    %1: f32[8] = nest(%0.x) [i < 8] {\n"
                  "        reduce j < 4\n"
                  "        acc0 = sum %0.x[i, j]\n"
                  "        %1 = acc0\n"
                  "    }\n"
                  "    %2: f32[8] = nest(%0.x) [i < 8] {\n"
                  "        reduce j < 4\n"
                  "        acc0 = sum mul(%0.x[i, j], %0.x[i, j])\n"
                  "        %2 = sqrt(acc0)\n"
                  "    }\n"
                  "    return %1, %2\n"
                  "}\n");
    cr_expect_eq(nests(t.body), 1);
    done(&t);
}

Test(fuse, random_programs_keep_their_bits) {
    for (uint64_t seed = 500; seed < 700; seed++) {
        struct diag d;
        diag_init(&d);
        struct ir_module *m = ir_module_new(&d, "random");
        struct ir_func *f = random_func(m, seed, 4 + (int)(seed % 30));
        struct machine x, y, z;
        size_t n, n2, n3;
        unsigned char *a = run_func(&x, m, f, NULL, seed, &n);
        struct compile_options o = {0};
        struct pass_context c = {.module = m, .diag = &d, .options = &o};
        struct text why = {0};
        pass_fuse(&c);
        cr_assert(ir_verify(m, &why), "seed %d: %s", (int)seed, text_string(&why));
        unsigned char *b = run_func(&y, m, f, NULL, seed, &n2);
        cr_assert_eq(x.failed, y.failed, "seed %d", (int)seed);
        cr_assert(x.failed || (n == n2 && !memcmp(a, b, n)), "seed %d", (int)seed);
        pass_order(&c);
        pass_mutation(&c);
        pass_place(&c);
        struct plan_func *p = plan_of(c.plan, f);
        cr_assert(plan_validate(p, &why), "seed %d: %s", (int)seed, text_string(&why));
        unsigned char *e = run_func(&z, m, f, p, seed, &n3);
        cr_assert(x.failed == z.failed && (x.failed || !memcmp(a, e, n)), "seed %d, with its plan", (int)seed);
        arena_free(&x.memory);
        arena_free(&y.memory);
        arena_free(&z.memory);
        ir_module_free(m);
        diag_free(&d);
    }
}
