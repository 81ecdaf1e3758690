/* fork(): engines are idle and without threads while the process forks; the parent's go on, the child's have no
 * workers (threads do not survive a fork) and run what is pushed within the push. An engine whose operation forks
 * cannot wait for itself: the parent's goes on undisturbed, the child's is out of use. */
#include <pthread.h>

#include "internal.h"

static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct mxrt_engine *engines;

static void prepare(void) {
    pthread_mutex_lock(&registry);
    for (struct mxrt_engine *e = engines; e; e = e->link) {
        if (engine_frame(e)) {
            e->broken = true; /* for the child to see */
            continue;
        }
        (void)mxrt_engine_flush(e, NULL);
        spin_lock(&e->push);
        e->forking = !e->stopped;
        spin_unlock(&e->push);
    }
    for (struct mxrt_engine *e = engines; e; e = e->link) {
        if (e->broken)
            continue;
        if (e->forking)
            engine_halt(e);
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
    struct mxrt_engine **at = &engines;
    while (*at != e)
        at = &(*at)->link;
    *at = e->link;
    pthread_mutex_unlock(&registry);
}
