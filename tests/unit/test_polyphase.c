/* Strided windows that do not overlap become one product over phases; what only looks like them stays. */
#include <criterion/criterion.h>

#include "ir/text.h"
#include "passes/nest_edit.h"
#include "passes/passes.h"

/* A program through the pass; `changed` is what that says. The IR behind it. */
static struct text pass_over(struct text source, bool *changed) {
    struct text after = {0}, why = {0};
    struct diag d;
    diag_init(&d);
    struct ir_module *m = ir_parse(&d, diag_add_source(&d, "test.mxir", text_string(&source), source.length));
    if (!m)
        diag_print(&d, stderr, false);
    cr_assert(m);
    struct compile_options o = {0};
    struct pass_context c = {.module = m, .diag = &d, .options = &o};
    *changed = pass_polyphase(&c);
    cr_assert(ir_verify(m, &why), "%s", text_string(&why));
    ir_print(&after, m);
    ir_module_free(m);
    diag_free(&d);
    text_free(&source);
    text_free(&why);
    return after;
}

/* sum[o] x[n, o, left] * w[o, c, right] over p < extent. */
static struct text through_pass(int extent, int phases, const char *left, const char *right, const char *otherwise,
                                bool *changed) {
    struct text source = {0};
    text_printf(&source,
                "module \"m\"\n"
                "export func f(x = %%0.x: f32[8, 4, 16], w = %%1.w: f32[4, 6, %d], b = %%2.b: f32[6]) -> (y) {\n"
                "    %%3: f32[8, 6, %d] = nest(%%0.x, %%1.w, %%2.b) [n < 8, c < 6, p < %d] {\n"
                "        reduce o < 4\n"
                "        acc0 = sum mul(%%0.x[n, o, %s], %%1.w[o, c, %s%s])\n"
                "        %%3 = add(acc0, %%2.b[c])\n"
                "    }\n"
                "    return %%3\n"
                "}\n",
                phases, extent, extent, left, right, otherwise);
    return pass_over(source, changed);
}

static bool says(struct text *t, const char *words) {
    return strstr(text_string(t), words) != NULL;
}

Test(polyphase, all_phases_are_a_reshape_of_one_product) {
    bool changed;
    struct text t = through_pass(32, 2, "div(p, 2)", "mod(p, 2)", "", &changed);
    cr_expect(changed);
    cr_expect(says(&t, "[n < 8, c < 6, p < 16, p_phase < 2]"), "%s", text_string(&t));
    cr_expect(says(&t, "sum mul(%0.x[n, o, p], %1.w[o, c, p_phase])"), "%s", text_string(&t));
    cr_expect(says(&t, "add(acc0, %2.b[c])"), "%s", text_string(&t));
    cr_expect(says(&t, "f32[8, 6, 32] = reshape"), "%s", text_string(&t));
    text_free(&t);
}

Test(polyphase, phases_without_a_window_are_no_products) {
    bool changed;
    struct text t = through_pass(48, 2, "div(p, 3)", "mod(p, 3)", " else 0:f32", &changed);
    cr_expect(changed);
    cr_expect(says(&t, "[n < 8, c < 6, p < 16, p_phase < 2]"), "%s", text_string(&t));
    cr_expect(says(&t, "[n, c, div(p, 3), mod(p, 3) else 0:f32]"), "%s", text_string(&t));
    cr_expect(says(&t, "[n < 8, c < 6, p < 48]"), "%s", text_string(&t));
    text_free(&t);
}

Test(polyphase, others_stay) {
    static const struct {
        int extent, phases;
        const char *left, *right, *otherwise;
    } stays[] = {
        {31, 2, "div(p, 2)", "mod(p, 2)", ""},                /* does not divide */
        {32, 2, "div(p, 2)", "mod(p, 4)", " else 0:f32"},     /* two strides */
        {16, 16, "p", "p", ""},                               /* neither */
        {16, 2, "add(div(p, 2), mod(p, 2))", "mod(p, 2)", ""} /* one factor has both */
    };
    for (size_t i = 0; i < sizeof stays / sizeof *stays; i++) {
        bool changed;
        struct text t =
            through_pass(stays[i].extent, stays[i].phases, stays[i].left, stays[i].right, stays[i].otherwise, &changed);
        cr_expect_not(changed, "%d: %s", (int)i, text_string(&t));
        text_free(&t);
    }
}

/* sum[o, k] (if mask then x[n, o, (p + 1 - k) / 2] else 0) * w[o, c, tap] over p < 32 and k < 3. */
static struct text overlapping(const char *mask, const char *tap, bool *changed) {
    struct text source = {0};
    text_printf(
        &source,
        "module \"m\"\n"
        "export func f(x = %%0.x: f32[8, 4, 16], w = %%1.w: f32[4, 6, 3]) -> (y) {\n"
        "    %%2: f32[8, 6, 32] = nest(%%0.x, %%1.w) [n < 8, c < 6, p < 32] {\n"
        "        reduce o < 4\n"
        "        reduce k < 3\n"
        "        acc0 = sum mul(where(%s, %%0.x[n, o, div(sub(add(p, 1), k), 2) else 0:f32], 0:f32), %%1.w[o, c, %s])\n"
        "        %%2 = acc0\n"
        "    }\n"
        "    return %%2\n"
        "}\n",
        mask, tap);
    return pass_over(source, changed);
}

Test(polyphase, overlapping_windows_keep_the_taps_of_their_phase) {
    bool changed;
    struct text t = overlapping("eq(mod(sub(add(p, 1), k), 2), 0)", "k", &changed);
    cr_expect(changed);
    cr_expect(says(&t, "[n < 8, c < 6, p < 16, p_phase < 2]"), "%s", text_string(&t));
    cr_expect(says(&t, "reduce k < 2"), "%s", text_string(&t));
    cr_expect(says(&t, "mul(%0.x[n, o, add(div(add(p_phase, 1), 2), sub(p, k)) else 0:f32], "
                       "%1.w[o, c, add(mod(add(p_phase, 1), 2), mul(k, 2)) else 0:f32])"),
              "%s", text_string(&t));
    text_free(&t);
}

Test(polyphase, masks_that_say_something_else_stay) {
    static const char *const masks[][2] = {
        {"eq(mod(sub(add(p, 1), k), 2), 1)", "k"},        /* another remainder */
        {"eq(mod(sub(p, k), 2), 0)", "k"},                /* of another position */
        {"lt(p, 5)", "k"},                                /* none */
        {"eq(mod(sub(add(p, 1), k), 2), 0)", "sub(2, k)"} /* taps in another order */
    };
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        bool changed;
        struct text t = overlapping(masks[i][0], masks[i][1], &changed);
        cr_expect_not(changed, "%s: %s", masks[i][0], text_string(&t));
        text_free(&t);
    }
}
