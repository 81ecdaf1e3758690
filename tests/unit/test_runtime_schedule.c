/* Schedules of the train block (runtime/program/schedule.c) against their formulas, and what is no schedule. */
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

#include "program/session.h"

#define NUMBER(x)  (&(const struct mxrt_setting){.kind = MXRT_FLOAT, .f = (x)})
#define ARGS(...)  ((const struct mxrt_setting *const[]){__VA_ARGS__})
#define NAMES(...) ((const char *const[]){__VA_ARGS__})

static struct mxrt_setting call(const char *function, int count, const struct mxrt_setting *const *args,
                                const char *const *names) {
    return (struct mxrt_setting){.kind = MXRT_CALL, .s = function, .count = count, .args = args, .names = names};
}

/* At a step of 100, 10 an epoch. */
static double at(const struct mxrt_setting *s, int64_t step) {
    struct mxrt_why why;
    double x = NAN;
    cr_assert_eq(schedule_value(s, "lr", step, 100, 10, &x, &why), MX_OK);
    return x;
}

static void is(const struct mxrt_setting *s, int64_t step, double expected) {
    double x = at(s, step);
    cr_assert(fabs(x - expected) <= 1e-12 * fabs(expected), "step %d gives %g, expected %g", (int)step, x, expected);
}

static void refused(const struct mxrt_setting *s, const char *words) {
    struct mxrt_why why;
    double x;
    cr_assert_eq(schedule_value(s, "lr", 0, 100, 10, &x, &why), MX_ERROR_ARGUMENT);
    cr_assert(strstr(why.text, "lr: ") && strstr(why.text, words), "%s", why.text);
}

Test(runtime_schedule, formulas) {
    const struct mxrt_setting *const *two = ARGS(NUMBER(2));
    const struct mxrt_setting constant = call("constant", 1, two, NULL), cosine = call("cosine", 1, two, NULL),
                              exponential = call("exponential", 2, ARGS(NUMBER(2), NUMBER(0.5)), NULL),
                              stepwise = call("step", 3, ARGS(NUMBER(2), NUMBER(3), NUMBER(0.25)), NULL),
                              linear = call("linear", 2, ARGS(NUMBER(2), NUMBER(1)), NAMES(NULL, "end")),
                              warm = call("cosine", 2, ARGS(NUMBER(2), NUMBER(20)), NAMES(NULL, "warmup"));
    for (int64_t t = 0; t <= 100; t += 5) {
        is(&constant, t, 2);
        is(&cosine, t, 1 + cos(acos(-1.0) * (double)t / 100));
        is(&linear, t, 2 - (double)t / 100);
        is(&exponential, t, 2 * pow(0.5, (double)(t / 10)));
        is(&stepwise, t, 2 * pow(0.25, (double)(t / 30)));
        /* A linear rise over 20 steps, then the schedule over what is left. */
        is(&warm, t, t < 20 ? 2 * (double)(t + 1) / 20 : 1 + cos(acos(-1.0) * (double)(t - 20) / 80));
    }
    is(&linear, 1000, 1); /* it stays where it ends */
}

Test(runtime_schedule, arithmetic) {
    const struct mxrt_setting integer = {.kind = MXRT_INT, .i = 3};
    const struct mxrt_setting linear = call("linear", 1, ARGS(NUMBER(8)), NULL); /* 4 at half of the way */
    static const struct {
        const char *sign;
        double result;
    } rows[] = {{"+", 7}, {"-", 1}, {"*", 12}, {"/", 4.0 / 3}, {"**", 64}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct mxrt_setting s = {
            .kind = MXRT_BINARY, .s = rows[i].sign, .count = 2, .args = ARGS(&linear, &integer)};
        is(&s, 50, rows[i].result);
    }
}

Test(runtime_schedule, refused) {
    const struct mxrt_setting text = {.kind = MXRT_STRING, .s = "fast"};
    const struct mxrt_setting unknown = call("cosinus", 1, ARGS(NUMBER(1)), NULL),
                              nothing = call("cosine", 0, NULL, NULL);
    const struct mxrt_setting inner = {.kind = MXRT_BINARY, .s = "+", .count = 2, .args = ARGS(NUMBER(1), &unknown)};
    const struct mxrt_setting outer = call("linear", 2, ARGS(NUMBER(1), &text), NAMES(NULL, "end"));
    refused(&text, "expected a number or a schedule");
    refused(&unknown, "there is no schedule cosinus");
    refused(&nothing, "needs its value first");
    refused(&inner, "there is no schedule cosinus");
    refused(&outer, "expected a number or a schedule");
}
