/* Gradients against central finite differences in f64. Each program is a function that gives its loss and then the gradient of
 * each float argument, in order; it runs as differentiated and again after simplify and select. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eager/eager.h"
#include "ir/text.h"
#include "passes/passes.h"

#define HEAD "module \"t\"\n"
#define INIT "init func init() {\n return\n}\n"

static struct ir_module *parse(struct diag *d, const char *text) {
    diag_init(d);
    struct ir_module *m = ir_parse(d, diag_add_source(d, "test.mxir", text, strlen(text)));
    if (!m)
        diag_print(d, stderr, false);
    cr_assert_not_null(m);
    return m;
}

static void verify(struct ir_module *m, const char *after) {
    struct text why = {0};
    if (!ir_verify(m, &why)) {
        struct text t = {0};
        ir_print(&t, m);
        cr_assert_fail("after %s: %s\n%s", after, text_string(&why), text_string(&t));
    }
    text_free(&why);
}

static double element(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)(*state >> 33) / (double)(1u << 30) - 1.0; /* -1 .. 1 */
}

enum { MAX_ARGS = 8 };

static struct tensor *argument(const struct ir_value *v, uint64_t *state) {
    int64_t dims[16];
    int64_t symbols[8] = {4, 4, 4, 4, 4, 4, 4, 4}; /* every run-time size is 4 */
    for (int i = 0; i < v->type.rank; i++)
        dims[i] = ir_dim_eval(v->type.dims[i], symbols);
    struct tensor *t = tensor_new(v->type.dtype, v->type.rank, dims);
    for (int64_t i = 0; i < tensor_elements(t); i++) {
        double x = element(state);
        if (t->dtype == F64)
            ((double *)t->data)[i] = x;
        else if (t->dtype == I64)
            ((int64_t *)t->data)[i] = (int64_t)floor((x + 1) * 1.5); /* 0 .. 2 */
        else if (t->dtype == BOOL)
            ((bool *)t->data)[i] = x > 0;
    }
    return t;
}

static void call(struct ir_module *m, struct tensor **args, struct tensor **results) {
    struct eager *e = eager_new(m, 1);
    cr_assert_not_null(e);
    if (eager_call(e, m->funcs[0], args, results) != 0) {
        struct text t = {0};
        ir_print(&t, m);
        cr_assert_fail("%s\n%s", eager_error(e), text_string(&t));
    }
    eager_free(e);
}

static double loss(struct ir_module *m, struct tensor **args, int results) {
    struct tensor *r[MAX_ARGS * 2] = {0};
    call(m, args, r);
    double y = *(double *)r[0]->data;
    for (int i = 0; i < results; i++)
        tensor_free(r[i]);
    return y;
}

/* `fixed`: values written over the first argument, where random ones would miss the point. */
static void check_with(const char *text, const double *fixed, int fixed_count, double tolerance) {
    struct diag d;
    struct ir_module *m = parse(&d, text);
    verify(m, "parsing");
    struct ir_func *f = m->funcs[0];
    uint64_t state = 42;
    struct tensor *args[MAX_ARGS], *results[MAX_ARGS * 2] = {0}, *again[MAX_ARGS * 2] = {0};
    int n = f->body->arg_count;
    for (int i = 0; i < n; i++)
        args[i] = argument(f->body->args[i], &state);
    for (int i = 0; i < fixed_count; i++)
        ((double *)args[0]->data)[i] = fixed[i];
    if (!differentiate_func(NULL, f)) {
        diag_print(&d, stderr, false);
        cr_assert_fail("not differentiated");
    }
    verify(m, "differentiate");
    struct text shown = {0};
    ir_print(&shown, m);
    if (getenv("SHOW"))
        fprintf(stderr, "%s\n", text_string(&shown));
    call(m, args, results);
    int k = 0;
    for (int i = 0; i < n; i++) {
        if (args[i]->dtype != F64)
            continue;
        struct tensor *g = results[++k];
        double *x = args[i]->data;
        for (int64_t j = 0; j < tensor_elements(args[i]); j++) {
            double old = x[j], h = 1e-5;
            x[j] = old + h;
            double up = loss(m, args, f->result_count);
            x[j] = old - h;
            double down = loss(m, args, f->result_count);
            x[j] = old;
            double expected = (up - down) / (2 * h), got = ((double *)g->data)[j];
            cr_assert(fabs(got - expected) <= tolerance * (1 + fabs(expected)),
                      "argument %d element %d: %g, not %g\n%s", i, (int)j, got, expected, text_string(&shown));
        }
    }
    struct compile_options options = {.name = "t"};
    struct pass_context c = {.module = m, .diag = &d, .options = &options};
    pass_simplify(&c);
    verify(m, "simplify");
    pass_select(&c);
    verify(m, "select");
    if (getenv("SHOW")) {
        struct text after = {0};
        ir_print(&after, m);
        fprintf(stderr, "---- simplified\n%s\n", text_string(&after));
        text_free(&after);
    }
    call(m, args, again);
    for (int i = 0; i < f->result_count; i++) {
        cr_assert(memcmp(results[i]->data, again[i]->data, (size_t)tensor_elements(results[i]) * 8) == 0,
                  "simplify changed result %d\n%s", i, text_string(&shown));
        tensor_free(results[i]);
        tensor_free(again[i]);
    }
    for (int i = 0; i < n; i++)
        tensor_free(args[i]);
    text_free(&shown);
    ir_module_free(m);
    diag_free(&d);
}

#define FD(name, text)                             \
    Test(gradient, name) {                         \
        check_with(HEAD text INIT, NULL, 0, 1e-6); \
    }
#define FD_AT(name, text, ...)                                               \
    Test(gradient, name) {                                                   \
        const double at[] = {__VA_ARGS__};                                   \
        check_with(HEAD text INIT, at, (int)(sizeof at / sizeof *at), 1e-6); \
    }
/* y[i, j] weighted by something uneven and summed: the loss. */
#define LOSS2(y, a, b)                                                    \
    "%90: f64 = nest(" y ") [] {\n reduce i < " a "\n reduce j < " b "\n" \
    " acc0 = sum mul(" y "[i, j], add(f64(add(i, mul(j, 3))), 0.5:f64))\n %90 = acc0\n }\n"
#define LOSS4(y, a, b, c, d)                                                                                    \
    "%90: f64 = nest(" y ") [] {\n reduce i < " a "\n reduce j < " b "\n reduce k < " c "\n reduce l < " d "\n" \
    " acc0 = sum mul(" y                                                                                        \
    "[i, j, k, l], sin(f64(add(add(i, mul(j, 3)), add(mul(k, 5), mul(l, 7))))))\n %90 = acc0\n }\n"
#define LOSS1(y, a)                                    \
    "%90: f64 = nest(" y ") [] {\n reduce i < " a "\n" \
    " acc0 = sum mul(" y "[i], add(f64(i), 0.5:f64))\n %90 = acc0\n }\n"

FD(matmul,
   "export func f(a = %0: f64[3, 4], b = %1: f64[4, 2]) -> (l, p, q) {\n"
   "%2: f64[3, 2] = nest(%0, %1) [i < 3, j < 2] {\n reduce k < 4\n acc0 = sum mul(%0[i, k], %1[k, j])\n %2 = tanh(acc0)\n }\n" LOSS2(
       "%2", "3", "2") "%3: f64[3, 4], %4: f64[4, 2] = grad(%90, %0, %1)\n return %90, %3, %4\n}\n")

#define CONV(S, D, P, IN, OUT)                                                                                 \
    "export func f(x = %0: f64[2, 2, " IN ", " IN "], w = %1: f64[3, 2, 2, 2]) -> (l, p, q) {\n"               \
    "%2: f64[2, 3, " OUT ", " OUT "] = nest(%0, %1) [n < 2, o < 3, i < " OUT ", j < " OUT "] {\n"              \
    " reduce c < 2\n reduce u < 2\n reduce v < 2\n"                                                            \
    " acc0 = sum mul(%0[n, c, sub(add(mul(i, " S "), mul(u, " D ")), " P "), sub(add(mul(j, " S "), mul(v, " D \
    ")), " P ") else 0:f64], %1[o, c, u, v])\n %2 = acc0\n }\n" LOSS4(                                         \
        "%2", "2", "3", OUT, OUT) "%3: f64[2, 2, " IN ", " IN                                                  \
                                  "], %4: f64[3, 2, 2, 2] = grad(%90, %0, %1)\n return %90, %3, %4\n}\n"
FD(conv_same, CONV("1", "1", "1", "4", "5"))
FD(conv_stride, CONV("2", "1", "1", "5", "3"))
FD(conv_dilation, CONV("1", "2", "1", "4", "4"))
FD(conv_stride_dilation, CONV("3", "2", "2", "6", "3"))
FD(conv_blocks, CONV("2", "1", "0", "4", "2"))

FD(conv_groups,
   "export func f(x = %0: f64[1, 4, 5], w = %1: f64[6, 2, 3]) -> (l, p, q) {\n"
   "%2: f64[6, 5] = nest(%0, %1) [o < 6, i < 5] {\n reduce c < 2\n reduce u < 3\n"
   " acc0 = sum mul(%0[0, add(mul(div(o, 3), 2), c), sub(add(i, u), 1) else 0:f64], %1[o, c, u])\n %2 = acc0\n }\n" LOSS2(
       "%2", "6", "5") "%3: f64[1, 4, 5], %4: f64[6, 2, 3] = grad(%90, %0, %1)\n return %90, %3, %4\n}\n")

FD(depth_to_space, "export func f(x = %0: f64[8, 2, 3]) -> (l, p) {\n"
                   "%2: f64[2, 4, 6] = nest(%0) [c < 2, i < 4, j < 6] {\n"
                   " %2 = %0[add(mul(add(mul(mod(i, 2), 2), mod(j, 2)), 2), c), div(i, 2), div(j, 2)]\n }\n"
                   "%90: f64 = nest(%2) [] {\n reduce a < 2\n reduce b < 4\n reduce c < 6\n"
                   " acc0 = sum mul(exp(%2[a, b, c]), f64(add(a, mul(b, c))))\n %90 = acc0\n }\n"
                   "%3: f64[8, 2, 3] = grad(%90, %0)\n return %90, %3\n}\n")

#define POOL(RED, K, S, OUT)                                                                                         \
    "export func f(x = %0: f64[2, 6, 6]) -> (l, p) {\n"                                                              \
    "%2: f64[2, " OUT ", " OUT "] = nest(%0) [c < 2, i < " OUT ", j < " OUT "] {\n reduce u < " K "\n reduce v < " K \
    "\n"                                                                                                             \
    " acc0 = " RED " %0[c, add(mul(i, " S "), u), add(mul(j, " S "), v)]\n %2 = mul(acc0, 0.25:f64)\n }\n"           \
    "%90: f64 = nest(%2) [] {\n reduce a < 2\n reduce b < " OUT "\n reduce c < " OUT "\n"                            \
    " acc0 = sum mul(%2[a, b, c], f64(add(add(a, 1), mul(b, c))))\n %90 = acc0\n }\n"                                \
    "%3: f64[2, 6, 6] = grad(%90, %0)\n return %90, %3\n}\n"
FD(max_pool, POOL("max", "2", "2", "3"))
FD(max_pool_overlap, POOL("max", "3", "1", "4"))
FD(min_pool_gap, POOL("min", "1", "2", "3"))
FD(avg_pool, POOL("sum", "2", "2", "3"))
FD(prod_pool, POOL("prod", "2", "2", "3"))

FD_AT(prod_zeros,
      "export func f(x = %0: f64[4, 3]) -> (l, p) {\n"
      "%2: f64[4] = nest(%0) [i < 4] {\n reduce k < 3\n acc0 = prod %0[i, k]\n %2 = acc0\n }\n" LOSS1(
          "%2", "4") "%3: f64[4, 3] = grad(%90, %0)\n return %90, %3\n}\n",
      1, 2, 3, 0, 2, 3, 0, 0, 3, 4, 5, 0)

FD(softmax_cross_entropy,
   "export func f(x = %0: f64[3, 5], y = %1: i64[3]) -> (l, p) {\n"
   "%2: f64[3] = nest(%0) [i < 3] {\n reduce k < 5\n acc0 = max %0[i, k]\n %2 = acc0\n }\n"
   "%3: f64[3, 5] = nest(%0, %2) [i < 3, j < 5] {\n %3 = exp(sub(%0[i, j], %2[i]))\n }\n"
   "%4: f64[3] = nest(%3) [i < 3] {\n reduce k < 5\n acc0 = sum %3[i, k]\n %4 = log(acc0)\n }\n"
   "%5: f64[3] = nest(%0, %1, %2, %4) [i < 3] {\n %5 = sub(add(%4[i], %2[i]), %0[i, %1[i]])\n }\n" LOSS1(
       "%5", "3") "%6: f64[3, 5] = grad(%90, %0)\n return %90, %6\n}\n")

FD(embedding, "export func f(e = %0: f64[3, 4], ids = %1: i64[5]) -> (l, p) {\n"
              "%2: f64[5, 4] = nest(%0, %1) [i < 5, j < 4] {\n %2 = sin(%0[%1[i], j])\n }\n" LOSS2(
                  "%2", "5", "4") "%3: f64[3, 4] = grad(%90, %0)\n return %90, %3\n}\n")

FD(causal,
   "export func f(a = %0: f64[5, 5], v = %1: f64[5, 2]) -> (l, p, q) {\n"
   "%2: f64[5, 2] = nest(%0, %1) [i < 5, d < 2] {\n reduce j in 0 .. add(i, 1) < 5\n acc0 = sum mul(exp(%0[i, j]), %1[j, d])\n"
   " %2 = acc0\n }\n" LOSS2("%2", "5",
                            "2") "%3: f64[5, 5], %4: f64[5, 2] = grad(%90, %0, %1)\n return %90, %3, %4\n}\n")

FD(adaptive,
   "export func f(x = %0: f64[7]) -> (l, p) {\n"
   "%2: f64[3] = nest(%0) [i < 3] {\n reduce k in div(mul(i, 7), 3) .. div(add(mul(add(i, 1), 7), 2), 3) < 7\n"
   " acc0 = max %0[k]\n acc1 = sum mul(%0[k], %0[k])\n %2 = mul(acc0, acc1)\n }\n" LOSS1(
       "%2", "3") "%3: f64[7] = grad(%90, %0)\n return %90, %3\n}\n")

FD(diagonal_and_row, "export func f(x = %0: f64[4, 4]) -> (l, p) {\n"
                     "%2: f64[4] = nest(%0) [i < 4] {\n %2 = mul(%0[i, i], %0[2, i])\n }\n" LOSS1(
                         "%2", "4") "%3: f64[4, 4] = grad(%90, %0)\n return %90, %3\n}\n")

FD(hankel, "export func f(x = %0: f64[7]) -> (l, p) {\n"
           "%2: f64[4, 4] = nest(%0) [i < 4, j < 4] {\n %2 = exp(%0[add(i, j)])\n }\n" LOSS2(
               "%2", "4", "4") "%3: f64[7] = grad(%90, %0)\n return %90, %3\n}\n")

FD(skewed, "export func f(x = %0: f64[7, 7]) -> (l, p) {\n"
           "%2: f64[4, 4] = nest(%0) [i < 4, j < 4] {\n %2 = exp(%0[add(i, j), add(sub(i, j), 3)])\n }\n" LOSS2(
               "%2", "4", "4") "%3: f64[7, 7] = grad(%90, %0)\n return %90, %3\n}\n")

FD(reversed_slice, "export func f(x = %0: f64[9]) -> (l, p) {\n"
                   "%2: f64[4] = nest(%0) [i < 4] {\n %2 = exp(%0[sub(8, mul(i, 2))])\n }\n" LOSS1(
                       "%2", "4") "%3: f64[9] = grad(%90, %0)\n return %90, %3\n}\n")

FD(reshape_sort_scan,
   "export func f(x = %0: f64[2, 3]) -> (l, p) {\n"
   "%1: f64[6] = reshape(%0)\n"
   "%2: f64[4], %3: i64[4] = sort(%1) axis 0 descending limit 4\n"
   "%4: f64[4] = scan(%2) axis 0 sum exclusive\n"
   "%5: f64[4] = scan(%4) axis 0 prod reverse\n" LOSS1("%5", "4") "%6: f64[2, 3] = grad(%90, %0)\n return %90, %6\n}\n")

FD_AT(cumprod_zeros,
      "export func f(x = %0: f64[3, 5]) -> (l, p) {\n"
      "%2: f64[3, 5] = scan(%0) axis 1 prod\n"
      "%3: f64[3, 5] = scan(%0) axis 1 prod reverse exclusive\n"
      "%4: f64[3, 5] = nest(%2, %3) [i < 3, j < 5] {\n %4 = add(%2[i, j], mul(%3[i, j], 2:f64))\n }\n" LOSS2(
          "%4", "3", "5") "%5: f64[3, 5] = grad(%90, %0)\n return %90, %5\n}\n",
      1, 2, 0, 4, 5, 0, 2, 3, 0, 5, 1, 2, 3, 4, 5)

FD(update_set, "export func f(x = %0: f64[5], v = %1: f64[4], ids = %2: i64[4]) -> (l, p, q) {\n"
               "%3: f64[5] = nest(%0, %1, %2) [i < 4] {\n %3 = %0 with [%2[i]] = mul(%1[i], %0[i])\n }\n"
               "%4: f64[5] = nest(%3, %1) [i < 2] {\n %4 = %3 with [add(i, 3)] = exp(%1[i])\n }\n"
               "%5: f64[5] = nest(%4, %1, %2) [i < 4] {\n %5 = %4 with [%2[i]] += mul(%1[i], %1[i])\n }\n" LOSS1(
                   "%5", "5") "%6: f64[5], %7: f64[4] = grad(%90, %0, %1)\n return %90, %6, %7\n}\n")

FD(nested_grad,
   "export func f(x = %0: f64[3]) -> (l, p) {\n"
   "%2: f64 = nest(%0) [] {\n reduce i < 3\n acc0 = sum mul(exp(%0[i]), sin(%0[sub(2, i)]))\n %2 = acc0\n }\n"
   "%3: f64[3] = grad(%2, %0)\n"
   "%90: f64 = nest(%3) [] {\n reduce i < 3\n acc0 = sum mul(%3[i], %3[i])\n %90 = acc0\n }\n"
   "%4: f64[3] = grad(%90, %0)\n return %90, %4\n}\n")

FD(guard_value, "export func f(x = %0: f64[4], c = %1: f64[6]) -> (l, p, q) {\n"
                "%2: f64[6] = nest(%0, %1) [i < 6] {\n %2 = sin(%0[sub(i, 1) else mul(%1[i], 2:f64)])\n }\n" LOSS1(
                    "%2", "6") "%3: f64[4], %4: f64[6] = grad(%90, %0, %1)\n return %90, %3, %4\n}\n")

/* ---- control flow --------------------------------------------------------------------------------------------------- */

#define BRANCH(C)                                                                                                     \
    "export func f(x = %0: f64[3], y = %1: f64[3]) -> (l, p, q) {\n%5: bool = const " C "\n"                          \
    "%2: f64[3] = if(%5) {\n %6: f64[3] = nest(%0, %1) [i < 3] {\n %6 = exp(mul(%0[i], %1[i]))\n }\n"                 \
    " %7: f64[3] = nest(%6, %0) [i < 3] {\n %7 = mul(%6[i], sin(%6[i]))\n }\n yield %7\n } {\n yield %0\n }\n" LOSS1( \
        "%2", "3") "%3: f64[3], %4: f64[3] = grad(%90, %0, %1)\n return %90, %3, %4\n}\n"
FD(if_then, BRANCH("true"))
FD(if_else, BRANCH("false"))

FD(rnn, "export func f(x = %0: f64[4, 2], w = %1: f64[2, 2], h = %2: f64[2]) -> (l, p, q, r) {\n"
        "%3: i64 = const 0\n%4: i64 = const 4\n%5: f64[4, 2] = nest() [i < 4, j < 2] {\n %5 = 0:f64\n }\n"
        "%6: f64[2], %7: f64[4, 2] = for(%3, %4, %2, %5) limit 4 { (%8: i64, %9: f64[2], %10: f64[4, 2])\n"
        " %11: f64[2] = nest(%0, %1, %9, %8) [i < 2] {\n reduce k < 2\n acc0 = sum mul(%1[i, k], %9[k])\n"
        " %11 = tanh(add(acc0, %0[%8[], i]))\n }\n"
        " %12: f64[4, 2] = nest(%10, %11, %8) [i < 2] {\n %12 = %10 with [%8[], i] = mul(%11[i], %11[i])\n }\n"
        " yield %11, %12\n }\n" LOSS2(
            "%7", "4",
            "2") "%13: f64[4, 2], %14: f64[2, 2], %15: f64[2] = grad(%90, %0, %1, %2)\n return %90, %13, %14, %15\n}\n")

/* Reads the old row of a buffer that the loop writes: only the row is saved. */
FD(recurrence,
   "export func f(x = %0: f64[6, 2], n = %1: i64) -> (l, p) {\n"
   "%3: i64 = const 1\n%4: i64 = nest(%1) [] {\n %4 = add(%1[], 3)\n }\n"
   "%6: f64[6, 2] = for(%3, %4, %0) limit 6 { (%8: i64, %9: f64[6, 2])\n"
   " %12: f64[6, 2] = nest(%9, %8) [i < 2] {\n %12 = %9 with [%8[], i] = mul(%9[%8[], i], exp(%9[sub(%8[], 1), sub(1, i)]))\n }\n"
   " yield %12\n }\n" LOSS2("%6", "6", "2") "%13: f64[6, 2] = grad(%90, %0)\n return %90, %13\n}\n")

FD(nested_loops,
   "export func f(x = %0: f64[3], w = %1: f64) -> (l, p, q) {\n"
   "%3: i64 = const 0\n%4: i64 = const 2\n%5: i64 = const 3\n"
   "%6: f64[3] = for(%3, %4, %0) { (%7: i64, %8: f64[3])\n"
   " %9: f64[3] = for(%3, %5, %8) { (%10: i64, %11: f64[3])\n"
   "  %12: f64[3] = nest(%11, %1, %10) [i < 3] {\n %12 = sin(add(mul(%11[i], %1[]), f64(%10[])))\n }\n yield %12\n }\n"
   " %14: f64[3] = nest(%9, %8) [i < 3] {\n %14 = mul(exp(%9[i]), %8[i])\n }\n yield %14\n }\n" LOSS1(
       "%6", "3") "%15: f64[3], %16: f64 = grad(%90, %0, %1)\n return %90, %15, %16\n}\n")

FD(while_loop, "export func f(x = %0: f64[3]) -> (l, p) {\n"
               "%2: f64 = const 1\n"
               "%3: f64[3], %4: f64 = while(%0, %2) limit 20 { (%5: f64[3], %6: f64)\n"
               " %7: bool = nest(%6) [] {\n %7 = lt(%6[], 9:f64)\n }\n yield %7\n } { (%8: f64[3], %9: f64)\n"
               " %10: f64[3] = nest(%8, %0) [i < 3] {\n %10 = sin(add(%8[i], mul(%8[i], %0[i])))\n }\n"
               " %11: f64 = nest(%9) [] {\n %11 = mul(%9[], 2:f64)\n }\n yield %10, %11\n }\n" LOSS1(
                   "%3", "3") "%12: f64[3] = grad(%90, %0)\n return %90, %12\n}\n")

FD(if_in_loop,
   "export func f(x = %0: f64[3]) -> (l, p) {\n"
   "%3: i64 = const 0\n%4: i64 = const 4\n"
   "%6: f64[3] = for(%3, %4, %0) { (%7: i64, %8: f64[3])\n"
   " %9: bool = nest(%7) [] {\n %9 = eq(mod(%7[], 2), 0)\n }\n"
   " %10: f64[3] = if(%9) {\n %11: f64[3] = nest(%8) [i < 3] {\n %11 = exp(%8[i])\n }\n"
   "  %12: f64[3] = nest(%11, %0) [i < 3] {\n %12 = sin(mul(%11[i], %0[i]))\n }\n yield %12\n } {\n"
   "  %13: f64[3] = nest(%8) [i < 3] {\n %13 = mul(%8[i], %8[sub(2, i)])\n }\n yield %13\n }\n yield %10\n }\n" LOSS1(
       "%6", "3") "%15: f64[3] = grad(%90, %0)\n return %90, %15\n}\n")

FD(checkpointed,
   "export func f(x = %0: f64[3], y = %1: f64[3]) -> (l, p, q) {\n"
   "%2: f64[3] = checkpoint(%0) { (%5: f64[3])\n %6: f64[3] = nest(%5, %1) [i < 3] {\n %6 = exp(mul(%5[i], %1[i]))\n }\n"
   " %7: f64[3] = nest(%6, %0) [i < 3] {\n %7 = mul(%6[i], sin(%6[i]))\n }\n yield %7\n }\n" LOSS1(
       "%2", "3") "%3: f64[3], %4: f64[3] = grad(%90, %0, %1)\n return %90, %3, %4\n}\n")

FD(checkpoint_in_loop,
   "export func f(x = %0: f64[3]) -> (l, p) {\n"
   "%3: i64 = const 0\n%4: i64 = const 3\n"
   "%6: f64[3] = for(%3, %4, %0) { (%7: i64, %8: f64[3])\n"
   " %10: f64[3] = checkpoint() {\n %11: f64[3] = nest(%8) [i < 3] {\n %11 = exp(%8[i])\n }\n"
   "  %12: f64[3] = nest(%11, %0) [i < 3] {\n %12 = sin(mul(%11[i], %0[i]))\n }\n yield %12\n }\n yield %10\n }\n" LOSS1(
       "%6", "3") "%15: f64[3] = grad(%90, %0)\n return %90, %15\n}\n")

FD(kernels,
   "export func f(x = %0: f64[3]) -> (l, p) {\n"
   "%2: f64[3] = kernel(%0) \"cube\" tuned { (%3: f64[3])\n %4: f64[3] = nest(%3) [i < 3] {\n"
   " %4 = mul(%3[i], mul(%3[i], %3[i]))\n }\n yield %4\n } { (%5: f64[3], %6: f64[3], %7: f64[3])\n"
   " %8: f64[3] = nest(%5, %7) [i < 3] {\n %8 = mul(mul(3:f64, %7[i]), mul(%5[i], %5[i]))\n }\n yield %8\n }\n"
   "%9: f64[3] = kernel(%2) \"exp\" { (%10: f64[3])\n %11: f64[3] = nest(%10) [i < 3] {\n %11 = exp(%10[i])\n }\n yield %11\n }\n" LOSS1(
       "%9", "3") "%15: f64[3] = grad(%90, %0)\n return %90, %15\n}\n")

FD(two_results,
   "export func f(x = %0: f64[3, 4]) -> (l, p) {\n"
   "%2: f64[3], %3: f64[3] = nest(%0) [i < 3] {\n reduce k < 4\n acc0 = sum %0[i, k]\n acc1 = sum mul(%0[i, k], %0[i, k])\n"
   " %2 = mul(acc0, acc1)\n %3 = exp(sub(acc1, acc0))\n }\n"
   "%4: f64[3] = nest(%2, %3) [i < 3] {\n %4 = mul(%2[i], %3[i])\n }\n" LOSS1(
       "%4", "3") "%15: f64[3, 4] = grad(%90, %0)\n return %90, %15\n}\n")

FD(grad_in_loop,
   "export func f(x = %0: f64[3]) -> (l, p) {\n"
   "%3: i64 = const 0\n%4: i64 = const 3\n"
   "%6: f64[3] = for(%3, %4, %0) { (%7: i64, %8: f64[3])\n"
   " %9: f64 = nest(%8, %0) [] {\n reduce i < 3\n acc0 = sum mul(exp(%8[i]), sin(%0[i]))\n %9 = acc0\n }\n"
   " %10: f64[3] = grad(%9, %8)\n"
   " %11: f64[3] = nest(%8, %10) [i < 3] {\n %11 = sub(%8[i], mul(0.1:f64, %10[i]))\n }\n yield %11\n }\n" LOSS1(
       "%6", "3") "%15: f64[3] = grad(%90, %0)\n return %90, %15\n}\n")

FD(casts_stop,
   "export func f(x = %0: f64[3]) -> (l, p) {\n"
   "%1: f64[3] = nest(%0) [i < 3] {\n %1 = mul(%0[i], f64(i64(mul(%0[i], 10:f64))))\n }\n"
   "%2: f64[3] = stop(%1)\n%3: f64[3] = nest(%1, %2) [i < 3] {\n %3 = mul(%1[i], f64(i64(%2[i])))\n }\n" LOSS1(
       "%3", "3") "%15: f64[3] = grad(%90, %0)\n return %90, %15\n}\n")

/* Positive and negative powers, quotients, every smooth scalar function inside its domain. */
FD(scalars, "export func f(x = %0: f64[4]) -> (l, p) {\n"
            "%1: f64[4] = nest(%0) [i < 4] {\n let $0 = mul(0.4:f64, %0[i])\n let $1 = add(1.5:f64, mul($0, $0))\n"
            " let $2 = add(add(pow($1, $0), div($0, $1)), add(log($1), log1p($1)))\n"
            " let $3 = add(add(sqrt($1), sigmoid($0)), add(erf($0), tan($0)))\n"
            " let $4 = add(add(asin($0), acos(mul($0, $0))), add(atan($0), atan2($0, $1)))\n"
            " let $5 = add(add(sinh($0), cosh($0)), add(asinh($0), acosh($1)))\n"
            " let $6 = add(add(atanh($0), expm1($0)), add(fma($0, $1, $0), abs($0)))\n"
            " let $7 = add(add(max($0, 0.01:f64), min($1, $0)), where(lt($0, $1), mul($0, $0), $1))\n"
            " %1 = add(add($2, $3), add(add($4, $5), add($6, $7)))\n }\n" LOSS1(
                "%1", "4") "%15: f64[4] = grad(%90, %0)\n return %90, %15\n}\n")

FD(symbolic,
   "export func f[N in 1 .. 64](x = %0: f64[N, 3], w = %1: f64[N + 1, N]) -> (l, p, q) {\n"
   "%2: f64[N + 1, 3] = nest(%0, %1) [i < N + 1, j < 3] {\n reduce k < N\n"
   " acc0 = sum mul(%1[i, k], %0[sub(k, 1), j else 0:f64])\n %2 = tanh(acc0)\n }\n"
   "%5: f64[3*N + 3] = reshape(%2)\n"
   "%6: f64[3, N + 1] = nest(%5) [j < 3, i < N + 1] {\n %6 = mul(%5[add(mul(i, 3), j)], %5[add(mul(i, 3), sub(2, j))])\n }\n" LOSS2(
       "%6", "3", "N + 1") "%3: f64[N, 3], %4: f64[N + 1, N] = grad(%90, %0, %1)\n return %90, %3, %4\n}\n")

FD(run_time_slice, "export func f(x = %0: f64[5], n = %1: i64) -> (l, p) {\n"
                   "dim(%1) K in 0 .. 5\n%2: f64[K] = nest(%0) [i < K] {\n %2 = exp(%0[i])\n }\n"
                   "%90: f64 = nest(%2) [] {\n reduce i < K\n acc0 = sum mul(%2[i], %2[i])\n %90 = acc0\n }\n"
                   "%3: f64[5] = grad(%90, %0)\n return %90, %3\n}\n")

/* A loop over the rows of a symbolic number of steps that swaps what it carries, and sorts and scans inside. */
FD(loop_swap_sort_scan,
   "export func f[N in 1 .. 9](x = %0: f64[N, 3], a = %1: f64[3], b = %2: f64[3]) -> (l, p, q, r) {\n"
   "%3: i64 = const 0\n%4: i64 = nest() [] {\n %4 = {N}\n }\n"
   "%6: f64[3], %7: f64[3] = for(%3, %4, %1, %2) limit 9 { (%8: i64, %9: f64[3], %10: f64[3])\n"
   " %11: f64[3], %12: i64[3] = sort(%9) axis 0\n %13: f64[3] = scan(%11) axis 0 prod\n"
   " %14: f64[3] = nest(%13, %0, %8, %10) [i < 3] {\n %14 = sin(add(mul(%13[i], %0[%8[], i]), %10[i]))\n }\n"
   " yield %10, %14\n }\n"
   "%15: f64[3] = nest(%6, %7) [i < 3] {\n %15 = add(%6[i], mul(%7[i], %7[i]))\n }\n" LOSS1(
       "%15", "3") "%16: f64[N, 3], %17: f64[3], %18: f64[3] = grad(%90, %0, %1, %2)\n return %90, %16, %17, %18\n}\n")

/* Branches that update a table of outer values, inside a loop; the table is read before and after. */
FD(branch_updates,
   "export func f(x = %0: f64[4], w = %1: f64[2, 4]) -> (l, p, q) {\n"
   "%3: i64 = const 0\n%4: i64 = const 4\n"
   "%6: f64[4] = for(%3, %4, %0) { (%7: i64, %8: f64[4])\n"
   " %9: bool = nest(%7) [] {\n %9 = lt(%7[], 3)\n }\n"
   " %10: f64[4] = if(%9) {\n %11: f64[4] = nest(%8, %7, %1) [] {\n"
   "  %11 = %8 with [%7[]] = mul(exp(%8[add(%7[], 1)]), %1[0, %7[]])\n }\n yield %11\n } {\n"
   "  %13: f64[4] = nest(%8, %1) [i < 4] {\n %13 = mul(%8[i], %1[1, i])\n }\n yield %13\n }\n yield %10\n }\n" LOSS1(
       "%6", "4") "%15: f64[4], %16: f64[2, 4] = grad(%90, %0, %1)\n return %90, %15, %16\n}\n")

FD(nested_grad_of_loop, "export func f(x = %0: f64[3]) -> (l, p) {\n"
                        "%3: i64 = const 0\n%4: i64 = const 3\n"
                        "%6: f64[3] = for(%3, %4, %0) { (%7: i64, %8: f64[3])\n"
                        " %12: f64[3] = nest(%8, %0) [i < 3] {\n %12 = sin(mul(%8[i], %0[i]))\n }\n yield %12\n }\n"
                        "%20: f64 = nest(%6) [] {\n reduce i < 3\n acc0 = sum mul(%6[i], %6[i])\n %20 = acc0\n }\n"
                        "%21: f64[3] = grad(%20, %0)\n"
                        "%22: f64[3] = nest(%21) [i < 3] {\n %22 = mul(%21[i], %21[i])\n }\n" LOSS1(
                            "%22", "3") "%15: f64[3] = grad(%90, %0)\n return %90, %15\n}\n")

/* ---- conventions ------------------------------------------------------------------------------------------------------ */

static void expect_values(const char *text, const double *x, int n, const double *gradient) {
    struct diag d;
    struct ir_module *m = parse(&d, text);
    int64_t dims[1] = {n};
    struct tensor *arg = tensor_new(F64, 1, dims), *results[4] = {0};
    memcpy(arg->data, x, sizeof *x * (size_t)n);
    cr_assert(differentiate_func(NULL, m->funcs[0]));
    verify(m, "differentiate");
    call(m, &arg, results);
    for (int i = 0; i < n; i++)
        cr_assert_float_eq(((double *)results[1]->data)[i], gradient[i], 1e-12, "element %d: %g, not %g", i,
                           ((double *)results[1]->data)[i], gradient[i]);
    tensor_free(arg);
    tensor_free(results[0]);
    tensor_free(results[1]);
    ir_module_free(m);
    diag_free(&d);
}

#define WHOLE(RED)                                                                                          \
    HEAD "export func f(x = %0: f64[4]) -> (l, p) {\n%90: f64 = nest(%0) [] {\n reduce i < 4\n acc0 = " RED \
         " %0[i]\n %90 = acc0\n }\n%1: f64[4] = grad(%90, %0)\n return %90, %1\n}\n" INIT

Test(gradient, ties) {
    expect_values(WHOLE("max"), (double[]){1, 3, 3, 2}, 4, (double[]){0, 1, 0, 0});
    expect_values(WHOLE("min"), (double[]){2, 1, 3, 1}, 4, (double[]){0, 1, 0, 0});
    expect_values(
        HEAD "export func f(x = %0: f64[3]) -> (l, p) {\n%90: f64 = nest(%0) [] {\n reduce i < 3\n"
             " acc0 = sum max(%0[i], 0:f64)\n %90 = acc0\n }\n%1: f64[3] = grad(%90, %0)\n return %90, %1\n}\n" INIT,
        (double[]){-1, 0, 1}, 3, (double[]){0, 0, 1});
}

Test(gradient, unreached_is_zero) {
    expect_values(HEAD "export func f(x = %0: f64[2]) -> (l, p) {\n%2: f64 = const 3\n%1: f64[2] = grad(%2, %0)\n"
                       " return %2, %1\n}\n" INIT,
                  (double[]){5, 6}, 2, (double[]){0, 0});
}

/* Only what depends on the argument is differentiated: no operation of the frozen part appears again. */
Test(gradient, frozen_part_is_pruned) {
    struct diag d;
    struct ir_module *m =
        parse(&d, HEAD "export func f(x = %0: f64[3], w = %1: f64[3]) -> (l, p) {\n"
                       "%2: f64[3] = nest(%1) [i < 3] {\n %2 = exp(%1[i])\n }\n"
                       "%3: f64 = nest(%0, %2) [] {\n reduce i < 3\n acc0 = sum mul(%0[i], %2[i])\n %3 = acc0\n }\n"
                       "%4: f64[3] = grad(%3, %0)\n return %3, %4\n}\n" INIT);
    cr_assert(differentiate_func(NULL, m->funcs[0]));
    struct compile_options options = {.name = "t"};
    struct pass_context c = {.module = m, .diag = &d, .options = &options};
    pass_simplify(&c);
    int n = 0;
    for (struct ir_op *op = m->funcs[0]->body->first; op; op = op->next)
        n++;
    /* exp and the product; the gradient is the stored exp times 1 */
    cr_assert_leq(n, 3);
    ir_module_free(m);
    diag_free(&d);
}

static void expect_error(const char *text, int code) {
    struct diag d;
    struct ir_module *m = parse(&d, text);
    for (int i = 0; i < m->func_count; i++)
        cr_assert_not(differentiate_func(NULL, m->funcs[i]));
    cr_assert_eq(d.errors, 1);
    cr_assert_eq((int)d.first->code, code);
    ir_module_free(m);
    diag_free(&d);
}

Test(gradient, errors) {
    expect_error(HEAD "export func f(x = %0: f64[3]) -> (p) {\n%1: f64[3] = grad(%0, %0)\n return %1\n}\n" INIT,
                 E_grad_not_scalar);
    expect_error(
        HEAD
        "export func f(x = %0: f64, n = %1: i64) -> (p) {\n%2: i64 = const 0\n"
        "%3: f64 = for(%2, %1, %0) { (%4: i64, %5: f64)\n %6: f64 = nest(%5) [] {\n %6 = exp(%5[])\n }\n yield %6\n }\n"
        "%7: f64 = grad(%3, %0)\n return %7\n}\n" INIT,
        E_grad_no_bound);
    expect_error(HEAD "export func f(x = %0: f64) -> (p) {\n"
                      "%1: f64 = extern(%0) \"c\" header \"c.h\" symbol \"c\" params [0, ~0]\n"
                      "%7: f64 = grad(%1, %0)\n return %7\n}\n" INIT,
                 E_grad_extern);
    expect_error(HEAD "param @w: f64\nexport func f() -> (p) {\n%0.w @w#0: f64 = read @w\n"
                      "%1.w @w#1: f64 = nest(%0) [] {\n %1 = exp(%0[])\n }\n"
                      "%2: f64 = nest(%0, %1) [] {\n %2 = mul(%0[], %1[])\n }\n"
                      "%7: f64 = grad(%2, %0) wrt [@w]\n write(%1) @w\n return %7\n}\n" INIT,
                 E_grad_two_versions);
}

/* Sums of f16 accumulate in f32 and round once; the gradient of a buffer is that of the version read. */
Test(gradient, short_floats_and_buffers) {
    struct diag d;
    struct ir_module *m =
        parse(&d, HEAD
              "param @w: f16[3, 4]\n"
              "export func f(x = %0: f16[2, 3]) -> (l, p) {\n%1.w @w#0: f16[3, 4] = read @w\n"
              "%2: f16[2, 4] = nest(%0, %1) [i < 2, j < 4] {\n reduce k < 3\n acc0 = sum f32(mul(%0[i, k], %1[k, j]))\n"
              " %2 = f16(acc0)\n }\n"
              "%3: f32 = nest(%2) [] {\n reduce i < 2\n reduce j < 4\n acc0 = sum f32(%2[i, j])\n %3 = acc0\n }\n"
              "%4.w @w#1: f16[3, 4] = nest(%1) [i < 3, j < 4] {\n %4 = add(%1[i, j], 1:f16)\n }\n"
              "%5: f16[3, 4], %6: f16[2, 3] = grad(%3, %4, %0) wrt [@w, _]\n"
              "%7: f16[3, 4] = nest(%4, %5) [i < 3, j < 4] {\n %7 = sub(%4[i, j], %5[i, j])\n }\n"
              "write(%7) @w\n return %3, %6\n}\n" INIT);
    verify(m, "parsing");
    cr_assert(differentiate_func(NULL, m->funcs[0]));
    verify(m, "differentiate");
    struct compile_options options = {.name = "t"};
    struct pass_context c = {.module = m, .diag = &d, .options = &options};
    pass_simplify(&c);
    verify(m, "simplify");
    struct text t = {0};
    ir_print_func(&t, m->funcs[0]);
    /* dw sums over the rows of x, in f32 */
    cr_assert_not_null(strstr(text_string(&t), "[c0 < 3, c1 < 4] {\n        reduce i < 2\n        acc0 = sum f32("),
                       "%s", text_string(&t));
    text_free(&t);
    ir_module_free(m);
    diag_free(&d);
}
