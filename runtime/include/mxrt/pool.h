/* Parallel loops. One pool serves the whole process: every model and every thread that asks shares its workers. */
#ifndef MXRT_POOL_H
#define MXRT_POOL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mxrt_pool;

/* The process's pool with at least `threads` threads in all (the caller counts as one; 0: one a processor). Counted:
 * each call is paired with mxrt_pool_release. NULL when threads is 1 or no thread can be made: run serially then.
 * Thread-safe. */
struct mxrt_pool *mxrt_pool_acquire(int threads);
void mxrt_pool_release(struct mxrt_pool *p);      /* NULL is allowed; the last one ends the workers */
int mxrt_pool_threads(const struct mxrt_pool *p); /* 1 for NULL */

/* Calls fn(context, 0) … fn(context, tasks - 1), in any order, on any thread, and returns when all are done; what they
 * wrote is visible to the caller. With p NULL, with one task, or from inside another task, runs in order on the
 * calling thread. Two threads may call at the same time: the second runs its tasks inline. */
void mxrt_parallel(struct mxrt_pool *p, int64_t tasks, void (*fn)(void *context, int64_t task), void *context);

#ifdef __cplusplus
}
#endif
#endif
