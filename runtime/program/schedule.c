/* Values that change over the run: constant, cosine, linear, step, exponential, and arithmetic of them. */
#include <math.h>
#include <string.h>

#include "session.h"

struct at {
    const char *key;
    double step, total, per_epoch;
    struct mxrt_why *why;
};

static mx_status value(const struct at *a, const struct mxrt_setting *s, double *out);

/* Argument `name`, or the one at `position`. */
static mx_status argument(const struct at *a, const struct mxrt_setting *s, const char *name, int position,
                          double otherwise, double *out) {
    int unnamed = 0;
    *out = otherwise;
    for (int i = 0; i < s->count; i++) {
        bool named = s->names && s->names[i];
        if (named ? strcmp(s->names[i], name) == 0 : unnamed++ == position)
            return value(a, s->args[i], out);
    }
    return MX_OK;
}

static mx_status call(const struct at *a, const struct mxrt_setting *s, double *out) {
    double from, warmup, end, x, y;
    mx_status status = argument(a, s, "value", 0, NAN, &from);
    if (status == MX_OK)
        status = argument(a, s, "warmup", -1, 0, &warmup);
    if (status != MX_OK)
        return status;
    if (isnan(from))
        return mxrt_fail(a->why, MX_ERROR_ARGUMENT, "train: %s: %s(…) needs its value first", a->key, s->s);
    /* Linear warmup to the first value, then the schedule over what is left. */
    double step = a->step - warmup, total = a->total - warmup, t = total > 0 ? step / total : 1, warm = 1;
    if (step < 0) {
        warm = (a->step + 1) / warmup;
        t = 0;
    }
    t = t > 1 ? 1 : t;
    if (strcmp(s->s, "constant") == 0) {
        *out = from;
    } else if (strcmp(s->s, "cosine") == 0) {
        if ((status = argument(a, s, "end", 1, 0, &end)) != MX_OK)
            return status;
        *out = end + (from - end) * 0.5 * (1 + cos(3.14159265358979323846 * t));
    } else if (strcmp(s->s, "linear") == 0) {
        if ((status = argument(a, s, "end", 1, 0, &end)) != MX_OK)
            return status;
        *out = from + (end - from) * t;
    } else if (strcmp(s->s, "step") == 0) {
        if ((status = argument(a, s, "every", 1, 1, &x)) != MX_OK ||
            (status = argument(a, s, "factor", 2, 0.1, &y)) != MX_OK)
            return status;
        *out = from * pow(y, floor(a->step / (a->per_epoch * (x > 0 ? x : 1))));
    } else if (strcmp(s->s, "exponential") == 0) {
        if ((status = argument(a, s, "factor", 1, 0.95, &y)) != MX_OK)
            return status;
        *out = from * pow(y, floor(a->step / a->per_epoch));
    } else {
        return mxrt_fail(a->why, MX_ERROR_ARGUMENT,
                         "train: %s: there is no schedule %s; constant, cosine, linear, step and exponential are known",
                         a->key, s->s);
    }
    *out *= warm;
    return MX_OK;
}

static mx_status value(const struct at *a, const struct mxrt_setting *s, double *out) {
    double l, r;
    mx_status status = MX_ERROR_ARGUMENT;
    switch (s->kind) {
    case MXRT_INT:
    case MXRT_BOOL: *out = (double)s->i; return MX_OK;
    case MXRT_FLOAT: *out = s->f; return MX_OK;
    case MXRT_CALL: return call(a, s, out);
    case MXRT_BINARY:
        if (s->count == 2 && (status = value(a, s->args[0], &l)) == MX_OK &&
            (status = value(a, s->args[1], &r)) == MX_OK) {
            *out = s->s[0] == '+'            ? l + r
                   : s->s[0] == '-'          ? l - r
                   : s->s[0] == '/'          ? l / r
                   : strcmp(s->s, "**") == 0 ? pow(l, r)
                                             : l * r;
            return MX_OK;
        }
        return status;
    default:
        return mxrt_fail(a->why, MX_ERROR_ARGUMENT,
                         "train: %s: expected a number or a schedule like cosine(1e-3, warmup = 100)", a->key);
    }
}

mx_status schedule_value(const struct mxrt_setting *s, const char *key, int64_t step, int64_t total, int64_t per_epoch,
                         double *out, struct mxrt_why *why) {
    struct at a = {key, (double)step, (double)total, (double)(per_epoch > 0 ? per_epoch : 1), why};
    return value(&a, s, out);
}
