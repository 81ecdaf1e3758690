/* fork(): engines are idle and without threads while the process forks; the parent's go on, the child's have no
 * workers (threads do not survive a fork) and run what is pushed within the push. An engine whose operation forks
 * cannot wait for itself: the parent's goes on undisturbed, the child's is out of use.
 *
 * Stopping one engine after the other could hang: an operation of one that is still running may push to one that is
 * stopped, or make or end an engine, which wants the list. So nothing is held while engines are waited for; they are
 * stopped together, at a moment when all of them are idle. */
#include <pthread.h>
#include <time.h>

#include "internal.h"

static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct mxrt_engine *engines;

/* Stops all engines if all are idle and returns NULL; else one that is not. Under `registry`. */
static struct mxrt_engine *stop_together(void) {
    struct mxrt_engine *busy = NULL;
    for (struct mxrt_engine *e = engines; e; e = e->link) {
        if (!engine_frame(e))
            spin_lock(&e->push);
    }
    for (struct mxrt_engine *e = engines; e && !busy; e = e->link) {
        if (!engine_frame(e) && (engine_pending(e) || bulk_gathers(e)))
            busy = e;
    }
    for (struct mxrt_engine *e = engines; e; e = e->link) {
        if (engine_frame(e)) {
            e->broken = !busy; /* for the child to see */
            continue;
        }
        if (!busy) {
            e->forking = !e->stopped;
            e->stopped = true;
        }
        spin_unlock(&e->push);
    }
    return busy;
}

static void prepare(void) {
    pthread_mutex_lock(&registry);
    for (struct mxrt_engine *busy; (busy = stop_together());) {
        busy->pinned++;
        pthread_mutex_unlock(&registry);
        (void)mxrt_engine_flush(busy, NULL);
        if (busy->workers == 0 && inline_can_help(busy))
            inline_help(busy);
        else
            (void)nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
        pthread_mutex_lock(&registry);
        busy->pinned--;
    }
    for (struct mxrt_engine *e = engines; e; e = e->link) {
        if (e->broken)
            continue;
        if (e->forking)
            threads_end(e);
        pthread_mutex_lock(&e->park);
        pthread_mutex_lock(&e->errors_lock);
        spin_lock(&e->push);
    }
}

/* What `prepare` took. */
static void give_back(struct mxrt_engine *e) {
    if (e->forking)
        e->stopped = e->forking = false;
    spin_unlock(&e->push);
    pthread_mutex_unlock(&e->errors_lock);
    pthread_mutex_unlock(&e->park);
}

static void in_parent(void) {
    for (struct mxrt_engine *e = engines; e; e = e->link) {
        if (!e->broken) {
            if (e->forking && threads_start(e, NULL) != MX_OK)
                e->workers = e->io_workers = 0;
            give_back(e);
        }
        e->broken = false;
    }
    pthread_mutex_unlock(&registry);
}

static void in_child(void) {
    for (struct mxrt_engine *e = engines; e; e = e->link) {
        e->options.threads = 1;
        e->options.io_threads = 0;
        if (e->broken) {
            e->stopped = true;
            atomic_store(&e->push.held, 0);
        } else {
            e->workers = e->io_workers = 0;
            atomic_store(&e->waiters, 0);
            atomic_store(&e->all_waiters, 0);
            (void)engine_make_conditions(e); /* who slept there is gone */
            give_back(e);
        }
    }
    pthread_mutex_unlock(&registry);
}

static void install(void) {
    pthread_atfork(prepare, in_parent, in_child);
}

void fork_register(struct mxrt_engine *e) {
    pthread_once(&once, install);
    pthread_mutex_lock(&registry);
    e->link = engines;
    engines = e;
    pthread_mutex_unlock(&registry);
}

void fork_unregister(struct mxrt_engine *e) {
    pthread_mutex_lock(&registry);
    while (e->pinned > 0) {
        pthread_mutex_unlock(&registry);
        sched_yield();
        pthread_mutex_lock(&registry);
    }
    struct mxrt_engine **at = &engines;
    while (*at != e)
        at = &(*at)->link;
    *at = e->link;
    pthread_mutex_unlock(&registry);
}
