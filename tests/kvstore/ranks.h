/* For the kvstore's tests: values, and ranks as threads or as the processes of an MPI job. */
#ifndef TESTS_KVSTORE_RANKS_H
#define TESTS_KVSTORE_RANKS_H

#include <math.h>
#include <pthread.h>
#include <stdbool.h>

#include "../engine/check.h"
#include "mxrt/array.h"
#include "mxrt/kvstore.h"

enum { MOST_RANKS = 8 };

struct rank {
    int rank, size;
    struct mxrt_engine *e;
    struct mxrt_net *net;
    struct mxrt_kvstore *kv;
    const void *context;
    pthread_t thread;
    void (*run)(struct rank *r);
};

static inline struct mxrt_kv_key number(int64_t n) {
    return (struct mxrt_kv_key){.number = n};
}

static inline struct mxrt_kv_key name(const char *text) {
    return (struct mxrt_kv_key){.name = text};
}

/* ---- values with memory of their own */

static inline struct mxrt_kv_value dense(struct mxrt_engine *e, mx_dtype dtype, int64_t elements, double fill) {
    struct mxrt_kv_value v = {.dtype = dtype, .elements = elements};
    v.data = calloc((size_t)elements + 1, mxrt_dtype_size(dtype));
    CHECK(v.data);
    for (int64_t i = 0; i < elements; i++)
        CHECK(mxrt_put(dtype, v.data, i, fill));
    OK(mxrt_var_new(e, "value", &v.variable, why));
    return v;
}

static inline struct mxrt_kv_value sparse(struct mxrt_engine *e, mx_dtype dtype, int64_t rows, int64_t row_elements,
                                          int64_t room) {
    struct mxrt_kv_value v = {
        .dtype = dtype, .elements = rows * row_elements, .is_sparse = true, .row_elements = row_elements, .room = room};
    v.data = calloc((size_t)(room * row_elements) + 1, mxrt_dtype_size(dtype));
    v.ids = calloc((size_t)room + 1, sizeof *v.ids);
    v.rows = calloc(1, sizeof *v.rows);
    CHECK(v.data && v.ids && v.rows);
    OK(mxrt_var_new(e, "sparse value", &v.variable, why));
    return v;
}

static inline void sparse_row(struct mxrt_kv_value *v, int64_t id, double fill) {
    int64_t at = (*v->rows)++;
    CHECK(at < v->room);
    v->ids[at] = id;
    for (int64_t i = 0; i < v->row_elements; i++)
        CHECK(mxrt_put(v->dtype, v->data, at * v->row_elements + i, fill));
}

static inline void fill(struct mxrt_kv_value *v, double x) {
    for (int64_t i = 0; i < v->elements; i++)
        CHECK(mxrt_put(v->dtype, v->data, i, x));
}

/* Where the store's operations may still use it. */
static inline void drop(struct mxrt_engine *e, struct mxrt_kv_value *v) {
    OK(mxrt_var_delete(e, v->variable, free, v->data, why));
    free(v->ids);
    free(v->rows);
}

static inline double at(const struct mxrt_kv_value *v, int64_t i) {
    return mxrt_get(v->dtype, v->data, i);
}

static inline bool all_are(const struct mxrt_kv_value *v, double x) {
    int64_t n = v->is_sparse ? *v->rows * v->row_elements : v->elements;
    for (int64_t i = 0; i < n; i++) {
        if (at(v, i) != x) {
            fprintf(stderr, "element %lld is %.9g, not %.9g\n", (long long)i, at(v, i), x);
            return false;
        }
    }
    return true;
}

/* Pulls into v and waits. */
static inline void pull(struct mxrt_kvstore *kv, struct mxrt_engine *e, struct mxrt_kv_key key,
                        struct mxrt_kv_value *v) {
    OK(mxrt_kv_pull(kv, 1, &key, v, false, 0, why));
    OK(mxrt_engine_wait_var(e, v->variable, why));
}

/* ---- updaters */

struct sgd {
    float rate; /* stored -= rate gradient */
};

static inline mx_status sgd(void *context, struct mxrt_kv_key key, const struct mxrt_kv_value *g,
                            struct mxrt_kv_value *w, struct mxrt_why *why) {
    const struct sgd *o = context;
    int64_t rows = g->is_sparse ? *g->rows : 1, n = g->is_sparse ? g->row_elements : g->elements;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < n; i++) {
            int64_t to = (g->is_sparse ? g->ids[r] : 0) * n + i;
            float now =
                (float)mxrt_get(w->dtype, w->data, to) - o->rate * (float)mxrt_get(g->dtype, g->data, r * n + i);
            if (!mxrt_put(w->dtype, w->data, to, (double)now))
                return mxrt_fail(why, MX_ERROR_NUMERIC, "%g is no element", (double)now);
        }
    }
    return MX_OK;
}

/* ---- ranks as threads */

static inline void *rank_thread(void *context) {
    struct rank *r = context;
    r->run(r);
    mxrt_net_close(r->net);
    return NULL;
}

/* run on each of `size` ranks, on an engine of so many threads; 0: a naive one. */
static inline void on_ranks(int size, int threads, const struct mxrt_net_options *options, void (*run)(struct rank *r),
                            const void *context) {
    struct mxrt_net *nets[MOST_RANKS];
    struct rank ranks[MOST_RANKS];
    OK(mxrt_net_group(nets, size, options, why));
    for (int i = 0; i < size; i++) {
        struct rank *r = &ranks[i];
        *r = (struct rank){.rank = i, .size = size, .net = nets[i], .context = context, .run = run};
        struct mxrt_engine_options engine = {.kind = threads ? MXRT_ENGINE_THREADED : MXRT_ENGINE_NAIVE,
                                             .threads = threads};
        OK(mxrt_engine_create(&r->e, &engine, why));
        CHECK(pthread_create(&r->thread, NULL, rank_thread, r) == 0);
    }
    for (int i = 0; i < size; i++)
        CHECK(pthread_join(ranks[i].thread, NULL) == 0);
    for (int i = 0; i < size; i++)
        mxrt_engine_destroy(ranks[i].e);
}

#endif
