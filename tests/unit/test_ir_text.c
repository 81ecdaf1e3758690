/* IR text: round trips, rejected modules (verifier), malformed text, the small scalar form. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "ir/text.h"

/* The text printed from `text`, "" if it does not parse; `why` gets the verifier's message. Heap memory. */
static struct text printed(const char *text, struct text *why) {
    struct diag d;
    struct text out = {0};
    diag_init(&d);
    struct ir_module *m = ir_parse(&d, diag_add_source(&d, "t.mxir", text, strlen(text)));
    if (m) {
        ir_verify(m, why);
        ir_print(&out, m);
    }
    cr_expect_eq(m == NULL, d.errors > 0);
    ir_module_free(m);
    diag_free(&d);
    return out;
}

static const char *const body =
    "module \"t\"\nparam @w: f32[3]\nfunc f[N in 1 .. 9](x = %%0: f32[N, 3], n = %%1: i64, b = %%2: bool) -> (_) {\n%s\n}\n";

static const struct {
    const char *ops, *why;
} wrong[] = {
    {"%3: f32[N] = nest(%0) [i < N] {\n %3 = %0[i]\n }\n return %3", "subscripts"},
    {"%3: f32[N] = nest(%0) [i < 3] {\n %3 = %0[i, 0]\n }\n return %3", "extent"},
    {"%3: f64[N] = nest(%0) [i < N] {\n %3 = %0[i, 0]\n }\n return %3", "expected f64"},
    {"%3: f32[N] = nest(%0) [i < N] {\n %3 = add(%0[i, 0], 1:f64)\n }\n return %3", "arguments of add"},
    {"%3: bool[N] = nest(%0) [i < N] {\n %3 = and(%0[i, 0], %0[i, 1])\n }\n return %3", "does not take"},
    {"%3: i64[N] = nest() [i < N] {\n %3 = exp(i)\n }\n return %3", "does not take"},
    {"%3: f32[N] = nest(%0) [i < N] {\n %3 = %0[i, 1.5]\n }\n return %3", "integer"},
    {"%3: f32[N] = nest(%0) [i < N] {\n reduce k < 3\n acc0 = sum %0[i, k]\n %3 = %0[i, k]\n }\n return %3",
     "in scope"},
    {"%3: f32[N] = nest(%0) [i < N] {\n reduce k in k .. 3 < 3\n acc0 = sum 1:f32\n %3 = acc0\n }\n return %3", NULL},
    {"%3: f32[N] = nest(%0) [i < N] {\n reduce k < 3\n acc0 = sum 1:f32\n acc1 = sum acc0\n %3 = acc1\n }\n return %3",
     "accumulator"},
    {"%3: f32[N] = nest(%0) [i < N] {\n acc0 = sum 1:f32\n %3 = 1:f32\n }\n return %3", "no reduction"},
    {"%3: f32[N] = nest(%0) [i < N] {\n reduce k < 3\n acc0 = any 1:f32\n %3 = 1:f32\n }\n return %3",
     "any does not take"},
    {"%3: f16[N] = nest(%0) [i < N] {\n reduce k < 3\n acc0 = sum 1:f16\n %3 = acc0\n }\n return %3",
     "accumulates in f32"},
    {"%3: f32[N, 3] = nest(%0) [i < N] {\n %3 = %0 with [1:f32, 0] = 1:f32\n }\n return %3", "target"},
    {"%3: f32[N] = nest(%0) [i < N] {\n %3 = %0 with [i, 0] = 1:f32\n }\n return %3", "updated version"},
    {"%3: f32[M] = stop(%0)\n return %3", NULL},
    {"%3: f32[N] = stop(%0)\n return %3", "result is"},
    {"%3: f32[N, 4] = reshape(%0)\n return %3", "becomes"},
    {"%3: f32[N, 3], %4: i32[N, 3] = sort(%0) axis 1\n return %3", "positions"},
    {"%3: f32[N, 3] = scan(%0) axis 2 sum\n return %3", "axis"},
    {"%3: f32[N, 3] = kernel(%0) \"k\" [a = 1]\n return %3", "neither a definition"},
    {"%3: f32[3] = rng() place 1\n return %3", "u32 or u64"},
    {"dim(%2) K in 0 .. 4\n return %0", "integer scalar"},
    {"%3: f32[N, 3] = if(%2) {\n yield %0\n } {\n yield %1\n }\n return %3", "yields"},
    {"%3: f32[N, 3] = if(%1) {\n yield %0\n } {\n yield %0\n }\n return %3", "condition"},
    {"%3: i64 = if(%2) {\n %4: i64 = const 1\n yield %4\n } {\n yield %4\n }\n return %3", "not defined"},
    {"%3: i64 = for(%1, %1, %1) { (%4: i64, %5: i32)\n yield %1\n }\n return %3", "region arguments"},
    {"%3: i64 = while(%1) { (%4: i64)\n yield %4\n } { (%5: i64)\n yield %5\n }\n return %3", "condition"},
    {"%3: i64 = kernel(%1) \"k\" { (%4: i32)\n yield %1\n }\n return %3", "region arguments"},
    {"%3: i64 = checkpoint(%1) { (%4: i64)\n yield %0\n }\n return %3", "yields"},
    {"%3: i64 = grad(%1, %1)\n return %3", "float scalar"},
    {"%3: i64 = extern(%1) header \"h\" symbol \"s\" params [0, 1]\n return %3", "parameter 1"},
    {"%3: bool = check(%1) \"m\"\n return %3", "condition"},
    {"%3: f32[3] = read @w\n %4: f32[3] = read @w\n return %3", "read twice"},
    {"%3: f32[2] = read @w\n return %3", "expected f32[3]"},
    {"write(%0) @w\n return %0", "expected f32[3]"},
    {"%3: f32[3] = read @w\n write(%3) @w\n write(%3) @w\n return %3", "written twice"},
    {"return %0, %1", "gives 2 values"},
    {"%3: f32[-1] = const []\n return %3", NULL},
    {"%3: bool[N] = nest(%0) [i < N] {\n %3 = bitcast(bool, %0[i, 0])\n }\n return %3", NULL},
    {"return %7", NULL},
    {"%0: i64 = const 1\n return %0", NULL},
    {"%3: i64 = nothing()\n return %3", NULL},
    {"%3: f32[2] = const [1]\n return %3", NULL},
};

/* Each is refused: by the verifier with the words given, or (NULL) by the reader. */
Test(ir_text, refused) {
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[2048];
        snprintf(text, sizeof text, body, wrong[i].ops);
        struct text why = {0}, out = printed(text, &why);
        if (wrong[i].why)
            cr_expect(strstr(text_string(&why), wrong[i].why), "case %zu: `%s` lacks `%s`\n%s", i, text_string(&why),
                      wrong[i].why, text);
        else
            cr_expect_eq(out.length, 0, "case %zu parses\n%s", i, text);
        text_free(&why);
        text_free(&out);
    }
}

/* Numbers keep their bits, names stay apart, terms of dimensions have one order. */
Test(ir_text, round_trip) {
    static const char *const ops[] = {
        "%3: f32[3] = const [0.1, -0, 0x7fc00123]\n return %3",
        "%3: f16[2] = const [65504, 5.9604644775390625e-08]\n return %3",
        "%3: u64 = const 18446744073709551615\n return %3",
        "%3: i64[N] = nest() [max < N] {\n %3 = max(max, {2*N - div(N + 1, 2)})\n }\n return %3",
        "%3: f32[N] = nest(%0) [i < N] {\n reduce k in i .. 3 < 3\n acc0 = max %0[i, k else -inf:f32]\n %3 = acc0\n }\n return %3",
        "%3: f32[N, 3] = nest(%0, %0) [i < N] {\n %3 = %0 with [i, 0] = %0@1[i, 1]\n }\n return %3",
    };
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        char text[2048];
        snprintf(text, sizeof text, body, ops[i]);
        struct text why = {0}, once = printed(text, &why);
        struct text twice = printed(text_string(&once), &why);
        cr_expect(i == 5 || why.length == 0, "case %zu: %s", i, text_string(&why));
        cr_expect_gt(once.length, 0);
        cr_expect_str_eq(text_string(&once), text_string(&twice));
        text_free(&why);
        text_free(&once);
        text_free(&twice);
    }
}

/* Doubling a value forty times is a DAG of forty nodes and a tree of 2^40. */
Test(ir_text, shared_nodes) {
    struct diag d;
    diag_init(&d);
    struct ir_module *m = ir_module_new(&d, "t");
    struct ir_func *f = ir_func_new(m, "f", (struct span){0});
    struct ir_builder b = {.module = m, .func = f, .region = f->body};
    struct ir_value *x = ir_region_arg(f->body, ir_type_make(m, F32, 0, NULL), "x");
    f->arg_names = (const char *[]){"x"};
    f->arg_inout = (bool[]){false};
    f->result_names = (const char *[]){NULL};
    f->result_count = 1;
    ir_expr e = ir_load(m, 0, F32, 0, NULL, NULL);
    for (int i = 0; i < 5000; i++)
        e = ir_fn2(m, FN_mul, e, ir_fn1(m, FN_exp, e));
    struct ir_value *y = ir_build_map(&b, F32, 0, NULL, e, &x, 1);
    ir_region_yield(f->body, &y, 1);
    ir_module_add_func(m, f);
    struct text why = {0}, out = {0};
    ir_print(&out, m);
    cr_expect(ir_verify(m, &why), "%s", text_string(&why));
    cr_expect_lt(out.length, 1000000);
    struct text again = printed(text_string(&out), &why);
    cr_expect_str_eq(text_string(&out), text_string(&again));
    text_free(&why);
    text_free(&out);
    text_free(&again);
    ir_module_free(m);
    diag_free(&d);
}

/* Every derivative in ir/scalar.def parses. */
Test(ir_text, derivatives) {
    struct diag d;
    diag_init(&d);
    struct ir_module *m = ir_module_new(&d, "t");
    static const char *const names[] = {"a", "b", "c", "y", "g"};
    for (int fn = 0; fn < FN_COUNT; fn++) {
        ir_expr values[5];
        for (int i = 0; i < 5; i++)
            values[i] = ir_load(m, i, scalar_table[fn].type_class == CLASS_SEL && i == 0 ? BOOL : F32, 0, NULL, NULL);
        for (int i = 0; i < scalar_table[fn].arity; i++)
            cr_expect_not_null(ir_parse_scalar(m, scalar_table[fn].derivatives[i], F32, names, values, 5),
                               "derivative %d of %s", i, scalar_table[fn].name);
    }
    cr_expect_null(ir_parse_scalar(m, "add(a, ", F32, names, NULL, 0));
    ir_module_free(m);
    diag_free(&d);
}
