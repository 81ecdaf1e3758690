/* Parallel loops over a shared set of workers.
 *
 * A loop is published as a ticket: `job.generation` goes up, workers that spin see it at once, parked ones are woken by a
 * condition variable. Tasks are taken by atomic increments of one counter, which balances uneven tasks as stealing
 * would, at one contended cache line; the callers make tasks of microseconds, not nanoseconds. Workers spin for about
 * SPIN iterations after a loop before they park, because kernels of 20 us follow each other closely.
 *
 * A worker joins a job by raising `active`; the caller, when the tasks have run out, closes the job (CLOSED bit) and
 * waits until nobody is active. So job fields are written only while no worker can be reading them.
 */
#define _GNU_SOURCE
#include "mxrt/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "processors.h"
#include "relax.h"

enum { MAX_THREADS = 256, SPIN = 4000 };
#define CLOSED 0x40000000

struct mxrt_pool {
    _Atomic uint32_t generation; /* of the job below; odd numbers do not occur */
    _Atomic int active;          /* workers inside the job, CLOSED while there is none */
    char pad0[56];
    _Atomic int64_t next; /* first task not taken */
    char pad1[56];
    int64_t tasks;
    void (*fn)(void *, int64_t);
    void *context;
    _Atomic int
        helpers; /* workers that may join: no more than tasks; a late worker may read the next job's: it only bounds a width */
    pthread_mutex_t busy; /* held by the thread whose loop is running */
    pthread_mutex_t lock; /* guards sleeping and the condition */
    pthread_cond_t wake;
    _Atomic int sleeping;
    _Atomic bool stop;
    int workers;
    int references; /* under registry */
    pthread_t thread[MAX_THREADS];
};

/* The one pool of the process. */
static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static struct mxrt_pool *the_pool;

static _Thread_local bool inside;

static void work(struct mxrt_pool *p) {
    bool before = inside;
    inside = true;
    int64_t n = p->tasks;
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (i >= n)
            break;
        p->fn(p->context, i);
    }
    inside = before;
}

/* Joins the open job unless it is closed or full. */
static void join(struct mxrt_pool *p) {
    int a = atomic_load_explicit(&p->active, memory_order_acquire);
    do {
        if (a & CLOSED || a >= atomic_load_explicit(&p->helpers, memory_order_relaxed))
            return;
    } while (!atomic_compare_exchange_weak_explicit(&p->active, &a, a + 1, memory_order_acq_rel, memory_order_acquire));
    work(p);
    atomic_fetch_sub_explicit(&p->active, 1, memory_order_release);
}

static void *worker(void *argument) {
    struct mxrt_pool *p = argument;
    uint32_t seen = 0;
    for (;;) {
        uint32_t now = atomic_load_explicit(&p->generation, memory_order_acquire);
        for (int i = 0; now == seen && i < SPIN; i++) {
            RELAX();
            now = atomic_load_explicit(&p->generation, memory_order_acquire);
        }
        if (now == seen) {
            pthread_mutex_lock(&p->lock);
            atomic_fetch_add(&p->sleeping, 1);
            while ((now = atomic_load(&p->generation)) == seen && !atomic_load(&p->stop))
                pthread_cond_wait(&p->wake, &p->lock);
            atomic_fetch_sub(&p->sleeping, 1);
            pthread_mutex_unlock(&p->lock);
        }
        if (atomic_load(&p->stop))
            return NULL;
        seen = now;
        join(p);
    }
}

static void wake_all(struct mxrt_pool *p) {
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

static int grow(struct mxrt_pool *p, int workers) {
    if (workers > MAX_THREADS)
        workers = MAX_THREADS;
    while (p->workers < workers && pthread_create(&p->thread[p->workers], NULL, worker, p) == 0)
        p->workers++;
    return p->workers;
}

struct mxrt_pool *mxrt_pool_acquire(int threads) {
    if (threads <= 0) {
        threads = mxrt_processors();
        threads = threads < MAX_THREADS ? threads : MAX_THREADS;
    }
    if (threads == 1)
        return NULL;
    pthread_mutex_lock(&registry);
    struct mxrt_pool *p = the_pool;
    if (!p && (p = calloc(1, sizeof *p))) {
        atomic_store(&p->active, CLOSED);
        pthread_mutex_init(&p->busy, NULL);
        pthread_mutex_init(&p->lock, NULL);
        pthread_cond_init(&p->wake, NULL);
        the_pool = p;
    }
    if (p) {
        /* `workers` is read by running loops: it changes only while none runs. */
        pthread_mutex_lock(&p->busy);
        grow(p, threads - 1);
        pthread_mutex_unlock(&p->busy);
        p->references++;
    }
    pthread_mutex_unlock(&registry);
    return p;
}

void mxrt_pool_release(struct mxrt_pool *p) {
    if (!p)
        return;
    pthread_mutex_lock(&registry);
    bool last = --p->references == 0;
    if (last)
        the_pool = NULL;
    pthread_mutex_unlock(&registry);
    if (!last)
        return;
    atomic_store(&p->stop, true);
    atomic_fetch_add(&p->generation, 2);
    wake_all(p);
    for (int i = 0; i < p->workers; i++)
        pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->busy);
    free(p);
}

int mxrt_pool_threads(const struct mxrt_pool *p) {
    return p ? p->workers + 1 : 1;
}

void mxrt_parallel(struct mxrt_pool *p, int64_t tasks, void (*fn)(void *context, int64_t task), void *context) {
    if (!p || tasks <= 1 || inside || pthread_mutex_trylock(&p->busy) != 0) {
        for (int64_t i = 0; i < tasks; i++)
            fn(context, i);
        return;
    }
    int helpers = p->workers;
    if (helpers > tasks - 1)
        helpers = (int)(tasks - 1);
    p->tasks = tasks;
    p->fn = fn;
    p->context = context;
    atomic_store_explicit(&p->helpers, helpers, memory_order_relaxed);
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->active, 0, memory_order_release);
    /* Sequentially consistent: either a parking worker sees the new generation, or we see that it sleeps. */
    atomic_fetch_add(&p->generation, 2);
    if (atomic_load(&p->sleeping) > 0)
        wake_all(p);
    work(p);
    /* Close against late joiners, then wait for those inside. */
    int a = atomic_fetch_or_explicit(&p->active, CLOSED, memory_order_acq_rel);
    for (int spins = 0; (a & ~CLOSED) != 0; a = atomic_load_explicit(&p->active, memory_order_acquire)) {
        if (++spins < SPIN)
            RELAX();
        else
            usleep(20);
    }
    pthread_mutex_unlock(&p->busy);
}
