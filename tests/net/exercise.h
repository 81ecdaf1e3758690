/* What one rank does in the tests of the net, the same on a group's thread and in an MPI process: random collectives, messages and
 * requests, many at a time, in an order of its own; each result is compared with a plain loop over the tree that net.h
 * states. Conversions of half precision are those of mxrt/array.h, so nothing of the net's own arithmetic checks itself. */
#ifndef TESTS_NET_EXERCISE_H
#define TESTS_NET_EXERCISE_H

#include <pthread.h>
#include <string.h>

#include "../engine/check.h"
#include "mxrt/array.h"
#include "mxrt/net.h"

/* ---- waiting for `done` */

struct counter {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int left, failed;
    mx_status status; /* the last failure's */
    char message[600];
};

static inline void counter_init(struct counter *c, int left) {
    *c = (struct counter){.left = left};
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->wake, NULL);
}

static inline void count_done(void *context, mx_status status, const char *message) {
    struct counter *c = context;
    pthread_mutex_lock(&c->lock);
    if (status != MX_OK) {
        c->failed++;
        c->status = status;
        (void)snprintf(c->message, sizeof c->message, "%s", message);
    }
    if (--c->left == 0)
        pthread_cond_broadcast(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

/* How many failed. */
static inline int counter_wait(struct counter *c) {
    pthread_mutex_lock(&c->lock);
    while (c->left > 0)
        pthread_cond_wait(&c->wake, &c->lock);
    pthread_mutex_unlock(&c->lock);
    pthread_cond_destroy(&c->wake);
    pthread_mutex_destroy(&c->lock);
    return c->failed;
}

/* ---- values that every rank can compute */

static inline uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static inline void value(mx_dtype t, void *data, int64_t i, uint64_t seed, int rank) {
    uint64_t r = mix(seed * 1000003 + (uint64_t)i * 8191 + (uint64_t)rank);
    if (t <= MX_BF16) /* magnitudes from 2^-6 to 2^6, so that the order of a sum shows */
        (void)mxrt_put(t, data, i, ((double)(r >> 40) / (1 << 24) - 0.5) * (double)(1 << (r & 12)) / 64);
    else if (t == MX_BOOL)
        ((uint8_t *)data)[i] = (r & 7) == 0;
    else
        memcpy((char *)data + (size_t)i * mxrt_dtype_size(t), &r, mxrt_dtype_size(t));
}

static inline uint64_t integer(mx_dtype t, const void *data, int64_t i) {
    uint64_t v = 0;
    memcpy(&v, (const char *)data + (size_t)i * mxrt_dtype_size(t), mxrt_dtype_size(t));
    return v;
}

/* ---- the sum that net.h states, for one element. all: [ranks] ranges of this type */

static inline double sum_f64(char *const *all, int first, int count, int64_t i) {
    if (count == 1)
        return ((const double *)(const void *)all[first])[i];
    int left = 1;
    while (left * 2 < count)
        left *= 2;
    return sum_f64(all, first, left, i) + sum_f64(all, first + left, count - left, i);
}

static inline float sum_f32(mx_dtype t, char *const *all, int first, int count, int64_t i) {
    if (count == 1)
        return (float)mxrt_get(t, all[first], i);
    int left = 1;
    while (left * 2 < count)
        left *= 2;
    return sum_f32(t, all, first, left, i) + sum_f32(t, all, first + left, count - left, i);
}

static inline void expected_sum(mx_dtype t, char *const *all, int ranks, int64_t elements, void *out) {
    size_t bytes = mxrt_dtype_size(t);
    for (int64_t i = 0; i < elements; i++) {
        if (t == MX_F64) {
            ((double *)out)[i] = sum_f64(all, 0, ranks, i);
        } else if (t <= MX_BF16) {
            if (ranks == 1)
                memcpy((char *)out + (size_t)i * bytes, all[0] + (size_t)i * bytes, bytes);
            else
                (void)mxrt_put(t, out, i, sum_f32(t, all, 0, ranks, i));
        } else {
            uint64_t v = 0;
            for (int r = 0; r < ranks; r++)
                v = t == MX_BOOL ? v | integer(t, all[r], i) : v + integer(t, all[r], i);
            memcpy((char *)out + (size_t)i * bytes, &v, bytes); /* little endian, wraps */
        }
    }
}

/* ---- */

enum { AT_ONCE = 12 };

struct work {
    int kind; /* 0 all_reduce, 1 reduce, 2 broadcast, 3 all_gather, 4 a message around the ring */
    mx_dtype type;
    int64_t elements;
    int root, priority;
    char *data, *extra;
    struct counter ended;
};

static inline struct work plan_work(uint64_t seed, int ranks, int64_t largest) {
    uint64_t r = mix(seed);
    struct work w = {
        .kind = (int)(r % 8), .type = (mx_dtype)(r >> 8 & 255) % 13, .root = (int)((r >> 16 & 255) % (uint64_t)ranks)};
    if (w.kind > 4)
        w.kind = 0;
    static const int64_t sizes[] = {0, 1, 2, 3, 7, 17, 64, 331, 1000, 4099, 33333, 150001, 700001};
    int64_t size = sizes[(r >> 24 & 255) % 13];
    w.elements = size > largest ? largest - (int64_t)(r >> 32 & 15) : size;
    w.priority = (int)(r >> 40 & 7);
    return w;
}

static inline void check_work(struct work *w, uint64_t seed, int rank, int ranks, uint64_t *sum) {
    size_t bytes = (size_t)w->elements * mxrt_dtype_size(w->type);
    char *all[64];
    for (int r = 0; r < ranks; r++) {
        all[r] = malloc(bytes + 1);
        for (int64_t i = 0; i < w->elements; i++)
            value(w->type, all[r], i, seed, r);
    }
    char *expected = malloc(bytes + 1);
    if (w->kind == 3) {
        for (int r = 0; r < ranks; r++)
            CHECK(memcmp(w->extra + (size_t)r * bytes, all[r], bytes) == 0);
    } else if (w->kind == 4) {
        CHECK(memcmp(w->extra, all[(rank + ranks - 1) % ranks], bytes) == 0);
        CHECK(memcmp(w->data, all[rank], bytes) == 0);
    } else {
        if (w->kind == 2)
            memcpy(expected, all[w->root], bytes);
        else if (w->kind == 1 && rank != w->root)
            memcpy(expected, all[rank], bytes); /* others' data stay */
        else
            expected_sum(w->type, all, ranks, w->elements, expected);
        if (memcmp(w->data, expected, bytes) != 0) {
            int64_t i = 0;
            while (memcmp(w->data + (size_t)i * mxrt_dtype_size(w->type),
                          expected + (size_t)i * mxrt_dtype_size(w->type), mxrt_dtype_size(w->type)) == 0)
                i++;
            fprintf(stderr, "rank %d of %d: kind %d, %s, %lld elements, root %d: element %lld is %g, not %g\n", rank,
                    ranks, w->kind, mxrt_dtype_name(w->type), (long long)w->elements, w->root, (long long)i,
                    mxrt_get(w->type, w->data, i), mxrt_get(w->type, expected, i));
            exit(1);
        }
    }
    for (size_t i = 0; i < bytes && w->kind < 3; i++)
        *sum = mix(*sum ^ (uint8_t)w->data[i]);
    for (int r = 0; r < ranks; r++)
        free(all[r]);
    free(expected);
}

/* A hash of all results of this rank. */
static inline uint64_t exercise(struct mxrt_net *n, uint64_t seed, int rounds, int64_t largest) {
    int rank = mxrt_net_rank(n), ranks = mxrt_net_size(n);
    uint64_t sum = seed;
    struct random own = {mix(seed * 31 + (uint64_t)rank) | 1};
    for (int round = 0; round < rounds; round++) {
        struct work work[AT_ONCE];
        int order[AT_ONCE];
        for (int k = 0; k < AT_ONCE; k++) {
            uint64_t s = seed + (uint64_t)(round * AT_ONCE + k);
            struct work *w = &work[k];
            *w = plan_work(s, ranks, largest);
            size_t bytes = (size_t)w->elements * mxrt_dtype_size(w->type);
            w->data = malloc(bytes + 1);
            w->extra = w->kind >= 3 ? malloc(bytes * (size_t)ranks + 1) : NULL;
            for (int64_t i = 0; i < w->elements; i++)
                value(w->type, w->data, i, s, rank);
            int at = (int)draw(&own, (uint32_t)k + 1);
            order[k] = order[at];
            order[at] = k;
        }
        for (int o = 0; o < AT_ONCE; o++) {
            struct work *w = &work[order[o]];
            uint64_t id = (uint64_t)order[o]; /* used again in each round */
            size_t bytes = (size_t)w->elements * mxrt_dtype_size(w->type);
            struct mxrt_net_range x = {w->data, w->elements, w->type};
            counter_init(&w->ended, w->kind == 4 ? 2 : 1);
            switch (w->kind) {
            case 0: mxrt_net_all_reduce(n, id, w->priority, x, count_done, &w->ended); break;
            case 1: mxrt_net_reduce(n, id, w->priority, w->root, x, count_done, &w->ended); break;
            case 2: mxrt_net_broadcast(n, id, w->priority, w->root, x, count_done, &w->ended); break;
            case 3: mxrt_net_all_gather(n, id, w->priority, w->data, bytes, w->extra, count_done, &w->ended); break;
            case 4:
                mxrt_net_send(n, (rank + 1) % ranks, id, w->data, bytes, count_done, &w->ended);
                mxrt_net_receive(n, (rank + ranks - 1) % ranks, id, w->extra, bytes, count_done, &w->ended);
                break;
            }
            if (draw(&own, 8) == 0)
                sleep_us((long)draw(&own, 2000));
        }
        for (int k = 0; k < AT_ONCE; k++) {
            struct work *w = &work[k];
            if (counter_wait(&w->ended) > 0) {
                fprintf(stderr, "rank %d: %s\n", rank, w->ended.message);
                exit(1);
            }
            check_work(w, seed + (uint64_t)(round * AT_ONCE + k), rank, ranks, &sum);
            free(w->data);
            free(w->extra);
        }
        if (round % 3 == 0)
            OK(mxrt_net_barrier(n, why));
    }
    return sum;
}

#endif
