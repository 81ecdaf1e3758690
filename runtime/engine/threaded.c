/* The workers: search, spin a little, sleep.
 *
 * As in Go's scheduler, at most a few threads search at a time: a push wakes a sleeper only when nobody searches, and
 * that sleeper counts as searching from then on, so a burst of pushes wakes one thread; a searcher that finds work and
 * was the only one wakes the next if there is more. A searching thread looks less and less often, which leaves the
 * lock of the queue to the pusher and lets a batch gather. */
#include <stdio.h>

#include "internal.h"

enum { LOOKS = 200, LONGEST_PAUSE = 256 };

/* After something has been put where others can take it. */
void threads_wake(struct mxrt_engine *e) {
    atomic_thread_fence(memory_order_seq_cst);
    if (e->workers == 0) {
        if (atomic_load(&e->waiters) > 0)
            threads_notify(e);
        return;
    }
    int none = 0;
    if (atomic_load_explicit(&e->sleeping, memory_order_relaxed) == 0 ||
        !atomic_compare_exchange_strong(&e->searching, &none, 1))
        return;
    pthread_mutex_lock(&e->park);
    if (atomic_load(&e->sleeping) > 0) {
        atomic_fetch_sub(&e->sleeping, 1);
        e->wakes++;
        pthread_cond_signal(&e->wake);
    } else {
        atomic_fetch_sub(&e->searching, 1);
    }
    pthread_mutex_unlock(&e->park);
}

void threads_notify(struct mxrt_engine *e) {
    pthread_mutex_lock(&e->park);
    pthread_cond_broadcast(&e->waiting);
    pthread_mutex_unlock(&e->park);
}

void threads_quiet(struct mxrt_engine *e) {
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&e->all_waiters) == 0 || engine_pending(e))
        return;
    pthread_mutex_lock(&e->park);
    pthread_cond_broadcast(&e->waiting);
    pthread_cond_broadcast(&e->wake);
    pthread_mutex_unlock(&e->park);
}

/* Worker 0 is done when what it waits for is, the others when the engine ends. */
static bool done(struct worker *w) {
    struct mxrt_engine *e = w->engine;
    if (w != e->worker)
        return atomic_load(&e->ending);
    return e->until ? atomic_load(&e->until->done) : !engine_pending(e);
}

/* w is counted among those that search, and is so again at the end. */
static void sleep_until_woken(struct worker *w) {
    struct mxrt_engine *e = w->engine;
    pthread_mutex_lock(&e->park);
    atomic_fetch_add(&e->sleeping, 1);
    atomic_fetch_sub(&e->searching, 1);
    atomic_thread_fence(memory_order_seq_cst);
    if (!queue_any(e)) {
        while (e->wakes == 0 && !done(w))
            pthread_cond_wait(&e->wake, &e->park);
    }
    if (e->wakes > 0) {
        e->wakes--;
    } else {
        atomic_fetch_sub(&e->sleeping, 1);
        atomic_fetch_add(&e->searching, 1);
    }
    pthread_mutex_unlock(&e->park);
}

/* The next operation, or NULL when w is done. */
static struct op *search(struct worker *w) {
    struct mxrt_engine *e = w->engine;
    struct op *op = NULL;
    threads_quiet(e);
    atomic_fetch_add(&e->searching, 1);
    for (;;) {
        for (int look = 0, pause = 16; look < LOOKS && !done(w); look++) {
            if (queue_any(e) && (op = queue_take(w)))
                break;
            for (int i = 0; i < pause; i++)
                RELAX();
            if (pause < LONGEST_PAUSE)
                pause += 1 + pause / 4;
            else if (look % 16 == 0)
                sched_yield();
        }
        if (op || done(w))
            break;
        memory_flush(e, w);
        sleep_until_woken(w);
    }
    if (atomic_fetch_sub(&e->searching, 1) == 1 && op && queue_any(e))
        threads_wake(e);
    return op;
}

/* One that waits for a latch leaves what others want done to the workers. */
static bool done_between(struct worker *w) {
    return w == w->engine->worker && w->engine->until && done(w);
}

static void work(struct worker *w) {
    struct frame frame;
    engine_enter(&frame, w->engine, w);
    for (struct op *op; !done_between(w) && ((op = queue_take(w)) || (op = search(w)));)
        run_op(w->engine, w, op, &w->why);
    engine_leave(&frame);
    memory_flush(w->engine, w);
    queue_return_ring(w);
    if (queue_any(w->engine))
        threads_wake(w->engine);
}

static void call_thread(struct worker *w, const char *what) {
    char name[32];
    if (!w->engine->trace)
        return;
    (void)snprintf(name, sizeof name, "%s %d", what,
                   (int)(w - w->engine->worker) - (w->io ? w->engine->io_first - 1 : 0));
    mxrt_trace_thread(w->engine->trace, name);
}

static void *worker_main(void *argument) {
    call_thread(argument, "worker");
    work(argument);
    return NULL;
}

static void *io_main(void *argument) {
    struct worker *w = argument;
    struct mxrt_engine *e = w->engine;
    struct frame frame;
    call_thread(w, "IO");
    engine_enter(&frame, e, w);
    pthread_mutex_lock(&e->io_lock);
    for (;;) {
        struct op *op = fifo_take(&e->io_queue);
        if (op) {
            pthread_mutex_unlock(&e->io_lock);
            run_op(e, w, op, &w->why);
            memory_flush(e, w);
            threads_quiet(e);
            pthread_mutex_lock(&e->io_lock);
        } else if (atomic_load(&e->ending)) {
            break;
        } else {
            pthread_cond_wait(&e->io_wake, &e->io_lock);
        }
    }
    pthread_mutex_unlock(&e->io_lock);
    engine_leave(&frame);
    return NULL;
}

bool threads_help_begin(struct mxrt_engine *e, const struct latch *l) {
    if (e->workers == 0 || atomic_exchange(&e->helper_busy, true))
        return false;
    e->until = l;
    return true;
}

void threads_help_end(struct mxrt_engine *e) {
    work(e->worker);
    atomic_store(&e->helper_busy, false);
}

void threads_help(struct mxrt_engine *e, const struct latch *l) {
    if (threads_help_begin(e, l))
        threads_help_end(e);
}

static void end(struct mxrt_engine *e, int workers, int io_workers) {
    pthread_mutex_lock(&e->park);
    atomic_store(&e->ending, true);
    pthread_cond_broadcast(&e->wake);
    pthread_mutex_unlock(&e->park);
    pthread_mutex_lock(&e->io_lock);
    pthread_cond_broadcast(&e->io_wake);
    pthread_mutex_unlock(&e->io_lock);
    for (int i = 0; i < workers; i++)
        pthread_join(e->worker[1 + i].thread, NULL);
    for (int i = 0; i < io_workers; i++)
        pthread_join(e->worker[e->io_first + i].thread, NULL);
}

mx_status threads_start(struct mxrt_engine *e, struct mxrt_why *why) {
    int made = 0, io = 0, wanted = e->options.threads - 1;
    struct worker *first_io = &e->worker[e->io_first];
    atomic_store(&e->ending, false);
    e->workers = wanted; /* the threads read them */
    e->io_workers = e->options.io_threads;
    while (made < wanted && pthread_create(&e->worker[1 + made].thread, NULL, worker_main, &e->worker[1 + made]) == 0)
        made++;
    while (made == wanted && io < e->io_workers &&
           pthread_create(&first_io[io].thread, NULL, io_main, &first_io[io]) == 0)
        io++;
    if (made == wanted && io == e->io_workers)
        return MX_OK;
    end(e, made, io);
    return engine_fail(why, MX_ERROR_MEMORY, "the engine wants %d threads, and the system gives only %d",
                       wanted + e->io_workers, made + io);
}

void threads_end(struct mxrt_engine *e) {
    end(e, e->workers, e->io_workers);
}
