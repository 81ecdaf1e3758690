/* libmxrt's pool: every task once, visible results, nesting, several callers. A plain program, because Criterion does not
 * run under ThreadSanitizer, and this test does. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "mxrt/pool.h"

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

static void mark(void *context, int64_t task) {
    ((int *)context)[task]++;
}

static void every_task_once(void) {
    struct mxrt_pool *p = mxrt_pool_acquire(4);
    CHECK(p);
    CHECK(mxrt_pool_threads(p) >= 4);
    for (int round = 0; round < 2000; round++) {
        int done[37] = {0}, n = round % 38;
        mxrt_parallel(p, n, mark, done);
        for (int i = 0; i < 37; i++)
            CHECK(done[i] == (i < n));
    }
    mxrt_pool_release(p);
}

struct outer {
    struct mxrt_pool *pool;
    int done[8][16];
};

static void nested(void *context, int64_t task) {
    struct outer *o = context;
    mxrt_parallel(o->pool, 16, mark, o->done[task]);
}

static void nested_calls_run_inline(void) {
    struct outer o = {.pool = mxrt_pool_acquire(3)};
    mxrt_parallel(o.pool, 8, nested, &o);
    for (int i = 0; i < 8; i++)
        for (int k = 0; k < 16; k++)
            CHECK(o.done[i][k] == 1);
    mxrt_pool_release(o.pool);
}

static void add(void *context, int64_t task) {
    atomic_fetch_add((_Atomic int64_t *)context, task);
}

static void *caller(void *argument) {
    struct mxrt_pool *p = mxrt_pool_acquire(2);
    for (int i = 0; i < 500; i++) {
        _Atomic int64_t sum = 0;
        mxrt_parallel(p, 20, add, &sum);
        if (sum != 190)
            return argument;
    }
    mxrt_pool_release(p);
    return NULL;
}

static void many_callers_and_one_pool(void) {
    pthread_t threads[4];
    void *bad;
    int x;
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, caller, &x) == 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &bad);
        CHECK(!bad);
    }
}

static void serial_without_pool(void) {
    int done[5] = {0};
    CHECK(!mxrt_pool_acquire(1));
    CHECK(mxrt_pool_threads(NULL) == 1);
    mxrt_parallel(NULL, 5, mark, done);
    CHECK(done[4] == 1);
    mxrt_pool_release(NULL);
}

int main(void) {
    every_task_once();
    nested_calls_run_inline();
    many_callers_and_one_pool();
    serial_without_pool();
    return 0;
}
