/* See runtime_program.h. */
#include "runtime_program.h"

#include <math.h>
#include <stdlib.h>

struct fit {
    float w[2];
    int64_t steps;
    uint64_t calls;
    char error[100];
};
int fit_nan_at;

static mx_status step(void *model, const struct mxrt_function *f, const int64_t *dims, void *const *args,
                      void *const *results, int64_t *found) {
    (void)f, (void)found;
    struct fit *m = model;
    const float *x = args[0], *y = args[1];
    float lr = *(float *)args[2], loss = 0, g[2] = {0, 0};
    int32_t near = 0;
    for (int64_t i = 0; i < dims[0]; i++) {
        float e = m->w[0] * x[2 * i] + m->w[1] * x[2 * i + 1] - y[i];
        loss += e * e / (float)dims[0];
        near += fabsf(e) < 0.5f;
        for (int k = 0; k < 2; k++)
            g[k] += 2 * e * x[2 * i + k] / (float)dims[0];
    }
    for (int k = 0; k < 2; k++)
        m->w[k] -= lr * g[k] + 1e-4f * (float)(m->calls % 3);
    m->steps++;
    m->calls++;
    *(float *)results[0] = fit_nan_at && m->steps == fit_nan_at ? NAN : loss;
    *(int32_t *)results[1] = near;
    return MX_OK;
}

static mx_status score(void *model, const struct mxrt_function *f, const int64_t *dims, void *const *args,
                       void *const *results, int64_t *found) {
    (void)f, (void)found;
    struct fit *m = model;
    const float *x = args[0], *y = args[1];
    int32_t near = 0;
    for (int64_t i = 0; i < dims[0]; i++)
        near += fabsf(m->w[0] * x[2 * i] + m->w[1] * x[2 * i + 1] - y[i]) < 0.5f;
    *(int32_t *)results[0] = near;
    return MX_OK;
}

static mx_status predict(void *model, const struct mxrt_function *f, const int64_t *dims, void *const *args,
                         void *const *results, int64_t *found) {
    (void)f, (void)found;
    struct fit *m = model;
    const float *x = args[0];
    for (int64_t i = 0; i < dims[0]; i++)
        ((float *)results[0])[i] = m->w[0] * x[2 * i] + m->w[1] * x[2 * i + 1];
    return MX_OK;
}

static void predict_extents(const struct mxrt_function *f, const int64_t *dims, int64_t *out) {
    (void)f;
    out[0] = dims[0];
    out[1] = 2;
    out[2] = dims[0];
}

static mx_status create(const struct mxrt_program *p, void **model, uint64_t seed, int threads) {
    (void)p, (void)threads;
    struct fit *m = calloc(1, sizeof *m);
    *model = m;
    if (m)
        m->w[0] = (float)(seed % 7) * 0.125f;
    return m ? MX_OK : MX_ERROR_MEMORY;
}
static const char *error(const void *model) {
    return ((const struct fit *)model)->error;
}
static mx_status buffer(void *model, int index, mx_tensor *v) {
    static const int64_t two[] = {2};
    struct fit *m = model;
    *v = index == 0 ? (mx_tensor){MX_F32, 1, two, m->w, sizeof m->w} : (mx_tensor){MX_I64, 0, NULL, &m->steps, 8};
    return MX_OK;
}
static uint64_t calls(const void *model) {
    return ((const struct fit *)model)->calls;
}
static void set_calls(void *model, uint64_t n) {
    ((struct fit *)model)->calls = n;
}

static const int64_t shape_x[] = {MXRT_SYMBOL(0), 2}, shape_y[] = {MXRT_SYMBOL(0)};
static const struct mxrt_symbol symbols[] = {{"N", 1, 8}};
static const struct mxrt_value args[] = {
    {"x", MX_F32, 2, shape_x, false}, {"y", MX_F32, 1, shape_y, false}, {"lr", MX_F32, 0, NULL, false}};
static const struct mxrt_value step_results[] = {{"loss", MX_F32, 0, NULL, false}, {"near", MX_I32, 0, NULL, false}};
static const struct mxrt_value predict_results[] = {{"result", MX_F32, 1, shape_y, false}};
static const struct mxrt_function functions[] = {
    {"step", true, 1, 0, 3, 2, symbols, NULL, args, step_results, NULL, step, NULL},
    {"score", false, 1, 0, 2, 1, symbols, NULL, args, step_results + 1, NULL, score, NULL},
    {"predict", false, 1, 0, 1, 1, symbols, NULL, args, predict_results, predict_extents, predict, NULL},
};

#define INT(n) \
    { MXRT_INT, n, 0, NULL, NULL, NULL, 0 }
static const struct mxrt_setting zero = INT(0), one = INT(1), two = INT(2), four = INT(4), eight = INT(8),
                                 ten = {MXRT_FLOAT, 0, 10.0, NULL, NULL, NULL, 0};
static const struct mxrt_setting file = {MXRT_STRING, 0, 0, "fit.csv", NULL, NULL, 0},
                                 tenth = {MXRT_FLOAT, 0, 0.1, NULL, NULL, NULL, 0},
                                 split = {MXRT_FLOAT, 0, 0.8, NULL, NULL, NULL, 0};
static const struct mxrt_setting *const range[] = {&zero, &two}, *const second[] = {&two},
                                        *const peak[] = {&tenth, &one};
static const struct mxrt_setting columns = {MXRT_CALL, 0, 0, "columns", NULL, range, 2},
                                 column = {MXRT_CALL, 0, 0, "column", NULL, second, 1};
static const struct mxrt_setting *const scale[] = {&columns, &ten};
static const struct mxrt_setting scaled = {MXRT_BINARY, 0, 0, "/", NULL, scale, 2};
static const struct mxrt_setting *const csv_args[] = {&file, &scaled, &column};
static const char *const csv_names[] = {NULL, "x", "y"}, *const peak_names[] = {NULL, "warmup"};
static const struct mxrt_setting csv = {MXRT_CALL, 0, 0, "csv", csv_names, csv_args, 3},
                                 cosine = {MXRT_CALL, 0, 0, "cosine", peak_names, peak, 2};
static const struct mxrt_setting step_name = {MXRT_NAME, 0, 0, "step", NULL, NULL, 0},
                                 score_name = {MXRT_NAME, 0, 0, "score", NULL, NULL, 0};
static const struct mxrt_train_setting settings[] = {{"data", &csv},    {"split", &split},    {"batch", &eight},
                                                     {"epochs", &four}, {"step", &step_name}, {"evaluate", &score_name},
                                                     {"lr", &cosine}};
static const char *const names[] = {"w", "steps"};
static const bool states[] = {false, true};

const struct mxrt_program fit_program = {"fit",     3,    functions, 2,    names, states, 7,
                                         settings,  NULL, create,    free, error, buffer, calls,
                                         set_calls, NULL, NULL,      NULL, NULL};
