/* The simplify pass: what must go is gone, what must stay is there, and the program stays well formed. */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "ir/text.h"
#include "passes/passes.h"

#define HEAD "module \"t\"\n"
#define INIT "init func init() {\n return\n}\n"

/* The function's text after simplify (and select). */
static char *simplified(const char *text, bool select) {
    struct diag d;
    diag_init(&d);
    struct ir_module *m = ir_parse(&d, diag_add_source(&d, "test.mxir", text, strlen(text)));
    if (!m)
        diag_print(&d, stderr, false);
    cr_assert_not_null(m);
    struct compile_options options = {.name = "t"};
    struct pass_context c = {.module = m, .diag = &d, .options = &options};
    struct text why = {0}, out = {0};
    cr_assert(ir_verify(m, &why), "%s", text_string(&why));
    pass_simplify(&c);
    cr_assert(ir_verify(m, &why), "%s", text_string(&why));
    cr_assert_not(pass_simplify(&c), "a second run changes nothing");
    if (select) {
        pass_select(&c);
        cr_assert(ir_verify(m, &why), "%s", text_string(&why));
    }
    ir_print_func(&out, m->funcs[0]);
    ir_module_free(m);
    diag_free(&d);
    return out.data;
}

static int occurrences(const char *text, const char *word) {
    int n = 0;
    for (const char *p = strstr(text, word); p; p = strstr(p + 1, word))
        n++;
    return n;
}

static void expect(const char *text, bool select, const char *word, int times) {
    char *s = simplified(text, select);
    cr_assert_eq(occurrences(s, word), times, "`%s` occurs %d times, not %d, in\n%s", word, occurrences(s, word), times,
                 s);
    free(s);
}

Test(simplify, views_compose) {
    const char *text = HEAD "export func f(x = %0: f32[4, 6]) -> (y) {\n"
                            "%1: f32[6, 4] = nest(%0) [i < 6, j < 4] {\n %1 = %0[j, i]\n }\n"
                            "%2: f32[3, 4] = nest(%1) [i < 3, j < 4] {\n %2 = %1[add(mul(i, 2), 1), j]\n }\n"
                            "%3: f32[3, 4] = nest(%2) [i < 3, j < 4] {\n %3 = exp(%2[i, j])\n }\n return %3\n}\n" INIT;
    expect(text, false, "nest(", 1);
    expect(text, false, "exp(%0[j, add(mul(i, 2), 1)])", 1);
}

Test(simplify, a_view_of_what_is_overwritten_stays) {
    expect(HEAD "export func f(x = %0: f32[4]) -> (y, z) {\n"
                "%1: f32[4] = nest(%0) [i < 4] {\n %1 = exp(%0[i])\n }\n"
                "%2: f32[2] = nest(%1) [i < 2] {\n %2 = %1[add(i, 1)]\n }\n"
                "%3: f32[4] = nest(%1) [i < 4] {\n %3 = %1 with [i] += 1:f32\n }\n"
                "%4: f32[2] = nest(%2) [i < 2] {\n %4 = sin(%2[i])\n }\n return %3, %4\n}\n" INIT,
           false, "nest(", 4);
}

Test(simplify, reductions_over_one_element) {
    const char *text = HEAD
        "export func f(x = %0: f32[4, 1, 6]) -> (y, z) {\n"
        "%1: f32[4] = nest(%0) [i < 4] {\n reduce k < 1\n reduce j < 6\n acc0 = sum %0[i, k, j]\n %1 = acc0\n }\n"
        "%2: f32[4, 6] = nest(%0) [i < 4, j < 6] {\n reduce k < 1\n acc0 = max exp(%0[i, k, j])\n %2 = neg(acc0)\n }\n"
        "return %1, %2\n}\n" INIT;
    expect(text, false, "reduce", 1);
    expect(text, false, "%2 = neg(exp(%0[i, 0, j]))", 1);
}

Test(simplify, dimensions_of_one_element) {
    const char *text = HEAD /* the root of a variance with keepdims: beside the sum, without a view between */
        "export func f(x = %0: f32[4, 6]) -> (y) {\n"
        "%1: f32[4] = nest(%0) [i < 4] {\n reduce k < 6\n acc0 = sum %0[i, k]\n %1 = acc0\n }\n"
        "%2: f32[4, 1] = reshape(%1)\n"
        "%3: f32[4, 1] = nest(%2) [i < 4, j < 1] {\n %3 = sqrt(%2[i, j])\n }\n"
        "%4: f32[4, 6] = nest(%0, %3) [i < 4, j < 6] {\n %4 = div(%0[i, j], %3[i, 0])\n }\n"
        "return %4\n}\n" INIT;
    expect(text, false, "reshape", 0);
    expect(text, false, "sqrt(%1[i])", 1);
}

Test(simplify, common_and_dead) {
    const char *text = HEAD "export func f(x = %0: f32[4]) -> (y) {\n"
                            "%1: f32[4] = nest(%0) [i < 4] {\n %1 = exp(%0[i])\n }\n"
                            "%2: f32[4] = nest(%0) [k < 4] {\n %2 = exp(%0[k])\n }\n"
                            "%3: f32[4] = nest(%1, %2) [i < 4] {\n %3 = mul(%1[i], %2[i])\n }\n"
                            "%4: f32[4] = nest(%3) [i < 4] {\n %4 = sin(%3[i])\n }\n return %3\n}\n" INIT;
    expect(text, false, "exp(", 1);
    expect(text, false, "sin(", 0);
}

/* What a checkpoint computes again is not the value that was there before. */
Test(simplify, checkpoints_stand_alone) {
    const char *text =
        HEAD "export func f(x = %0: f32[4]) -> (y, z) {\n"
             "%1: f32[4] = nest(%0) [i < 4] {\n %1 = exp(%0[i])\n }\n"
             "%2: f32[4] = checkpoint() {\n %3: f32[4] = nest(%0) [i < 4] {\n %3 = exp(%0[i])\n }\n yield %3\n }\n"
             " return %1, %2\n}\n" INIT;
    expect(text, false, "exp(", 2);
    expect(text, true, "exp(", 2);
    expect(text, true, "checkpoint", 0);
}

Test(simplify, control) {
    const char *text = HEAD
        "export func f(x = %0: f32[4], n = %9: i64) -> (y) {\n%1: bool = const true\n%2: i64 = const 0\n"
        "%3: f32[4] = if(%1) {\n %4: f32[4] = nest(%0) [i < 4] {\n %4 = exp(%0[i])\n }\n yield %4\n } {\n yield %0\n }\n"
        "%5: f32[4], %6: f32[4], %7: f32[4] = for(%2, %9, %3, %0, %0) { (%10: i64, %11: f32[4], %12: f32[4], %13: f32[4])\n"
        " %14: f32[4] = nest(%11, %12) [i < 4] {\n %14 = add(%11[i], %12[i])\n }\n"
        " %15: f32[4] = nest(%13) [i < 4] {\n %15 = cos(%13[i])\n }\n yield %14, %12, %15\n }\n"
        "%16: bool = check(%1) \"never\"\n"
        "%17: f32[4] = nest(%5, %16) [i < 4] {\n %17 = neg(%5[i])\n }\n return %17\n}\n" INIT;
    expect(text, false, "if(", 0);
    expect(text, false, "check(", 0);
    expect(text, false, "cos(", 0);               /* fed only itself */
    expect(text, false, "add(%11[i], %0[i])", 1); /* carried, never changed */
}

Test(simplify, constants) {
    expect(HEAD "export func f(x = %0: f32[4]) -> (y) {\n%1: f32 = const 2\n%2: f32[1] = reshape(%1)\n"
                "%3: f32[4] = nest(%0, %1) [i < 4] {\n %3 = mul(%0[i], %1[])\n }\n return %3\n}\n" INIT,
           false, "mul(%0[i], 2:f32)", 1);
}

Test(simplify, kernels_become_their_definition) {
    expect(
        HEAD
        "export func f(x = %0: f32[4]) -> (y) {\n"
        "%2: f32[4] = kernel(%0) \"e\" tuned { (%3: f32[4])\n"
        " %5: f32[4] = kernel(%3) \"in\" { (%6: f32[4])\n %7: f32[4] = nest(%6) [i < 4] {\n %7 = exp(%6[i])\n }\n yield %7\n }\n"
        " yield %5\n }\n%8: f32[4] = stop(%2)\n return %8\n}\n" INIT,
        true, "kernel", 0);
}

/* Each place that is written over keeps its own zeros: one fill is cheaper than one fill kept and copied. */
Test(simplify, zeros_to_write_over_are_not_shared) {
    expect(HEAD "export func f(x = %0: f32[4]) -> (y, z) {\n"
                "%1: f32[8] = nest() [i < 8] {\n %1 = 0:f32\n }\n%2: f32[8] = nest() [i < 8] {\n %2 = 0:f32\n }\n"
                "%3: f32[8] = nest(%1, %0) [i < 4] {\n %3 = %1 with [i] = %0[i]\n }\n"
                "%4: f32[8] = nest(%2, %0) [i < 4] {\n %4 = %2 with [add(i, 4)] = %0[i]\n }\n return %3, %4\n}\n" INIT,
           false, "= 0:f32", 2);
}
