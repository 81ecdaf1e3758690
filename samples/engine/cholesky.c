/* A tiled Cholesky factorization, A = L L^T, by operations on tiles: cholesky [THREADS [TRACE.json]]
 *
 * The loops push what the sequential algorithm does, in its order; which tiles an operation reads and writes says what may
 * run at once. With a file named, a trace of the run goes there; samples/trace.py draws it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "mxrt/engine.h"

enum { TILES = 4, SIDE = 96, N = TILES * SIDE };

typedef double tile[SIDE][SIDE];

static tile a[TILES][TILES]; /* the lower triangle */

struct work {
    tile *out, *left, *right;
};

/* out = L of out */
static mx_status factor(void *context, struct mxrt_why *why) {
    tile *t = ((struct work *)context)->out;
    for (int j = 0; j < SIDE; j++) {
        for (int i = j; i < SIDE; i++) {
            double sum = (*t)[i][j];
            for (int k = 0; k < j; k++)
                sum -= (*t)[i][k] * (*t)[j][k];
            if (i == j && !(sum > 0))
                return mxrt_fail(why, MX_ERROR_NUMERIC, "the matrix is not positive definite");
            (*t)[i][j] = i == j ? sqrt(sum) : sum / (*t)[j][j];
        }
        for (int i = 0; i < j; i++)
            (*t)[i][j] = 0;
    }
    return MX_OK;
}

/* out = out left^-T, left lower triangular */
static mx_status solve(void *context, struct mxrt_why *why) {
    const struct work *w = context;
    (void)why;
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            double sum = (*w->out)[i][j];
            for (int k = 0; k < j; k++)
                sum -= (*w->out)[i][k] * (*w->left)[j][k];
            (*w->out)[i][j] = sum / (*w->left)[j][j];
        }
    }
    return MX_OK;
}

/* out -= left right^T */
static mx_status update(void *context, struct mxrt_why *why) {
    const struct work *w = context;
    (void)why;
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            double sum = 0;
            for (int k = 0; k < SIDE; k++)
                sum += (*w->left)[i][k] * (*w->right)[j][k];
            (*w->out)[i][j] -= sum;
        }
    }
    return MX_OK;
}

static struct work work[TILES * TILES * TILES];
static int pushed;

/* Variables that are {0} are none. */
static mx_status push(struct mxrt_engine *e, const char *name, mxrt_op_fn *run, struct work w, struct mxrt_var out,
                      struct mxrt_var left, struct mxrt_var right, struct mxrt_why *why) {
    const struct mxrt_var reads[2] = {left, right};
    work[pushed] = w;
    struct mxrt_op op = {.name = name,
                         .run = run,
                         .context = &work[pushed++],
                         .reads = reads,
                         .writes = &out,
                         .read_count = (left.id != 0) + (right.id != 0),
                         .write_count = 1};
    return mxrt_engine_push(e, &op, why);
}

static double element(int i, int j) { /* symmetric, its diagonal dominates */
    return i == j ? N : 1.0 / (1 + abs(i - j));
}

static double at(int i, int j) {
    return a[i / SIDE][j / SIDE][i % SIDE][j % SIDE];
}

int main(int argc, char **argv) {
    struct mxrt_why why;
    struct mxrt_trace *trace = NULL;
    struct mxrt_engine *e;
    struct mxrt_var v[TILES][TILES];
    static char name[TILES][TILES][8];
    if (argc > 2 && mxrt_trace_create(&trace, &why) != MX_OK)
        goto failed;
    if (mxrt_engine_create(&e, &(struct mxrt_engine_options){.threads = argc > 1 ? atoi(argv[1]) : 0, .trace = trace},
                           &why) != MX_OK)
        goto failed;
    for (int i = 0; i < TILES; i++) {
        for (int j = 0; j <= i; j++) {
            snprintf(name[i][j], sizeof name[i][j], "A%d%d", i, j);
            if (mxrt_var_new(e, name[i][j], &v[i][j], &why) != MX_OK)
                goto failed;
            for (int k = 0; k < SIDE * SIDE; k++)
                a[i][j][k / SIDE][k % SIDE] = element(i * SIDE + k / SIDE, j * SIDE + k % SIDE);
        }
    }
    for (int k = 0; k < TILES; k++) {
        struct mxrt_var none = {0};
        if (push(e, "factor", factor, (struct work){.out = &a[k][k]}, v[k][k], none, none, &why) != MX_OK)
            goto failed;
        for (int i = k + 1; i < TILES; i++) {
            if (push(e, "solve", solve, (struct work){&a[i][k], &a[k][k], NULL}, v[i][k], v[k][k], none, &why) != MX_OK)
                goto failed;
        }
        for (int i = k + 1; i < TILES; i++) {
            for (int j = k + 1; j <= i; j++) {
                struct work w = {&a[i][j], &a[i][k], &a[j][k]};
                if (push(e, "update", update, w, v[i][j], v[i][k], i == j ? none : v[j][k], &why) != MX_OK)
                    goto failed;
            }
        }
    }
    if (mxrt_engine_wait_all(e, &why) != MX_OK)
        goto failed;
    mxrt_engine_destroy(e);
    double most = 0;
    for (int i = 0; i < N; i++) {
        for (int j = 0; j <= i; j++) {
            double sum = 0;
            for (int k = 0; k <= j; k++)
                sum += at(i, k) * at(j, k);
            most = fmax(most, fabs(sum - element(i, j)));
        }
    }
    printf("%d operations on %d tiles; L L^T is off by %s\n", pushed, TILES * (TILES + 1) / 2,
           most < 1e-10 ? "less than 1e-10" : "too much");
    if (trace && mxrt_trace_write(trace, argv[2], &why) != MX_OK)
        goto failed;
    mxrt_trace_free(trace);
    return most < 1e-10 ? 0 : 1;
failed:
    fprintf(stderr, "%s\n", why.text);
    return 1;
}
