/* A net, and the thread that moves it.
 *
 * What is asked for from any thread goes as a task into one list; the net's thread takes it from there, asks the carrier what has come,
 * moves messages on, calls those whose requests have ended, and sees who is alive. Only that thread touches what it works
 * on, so nothing but the list has a lock.
 *
 * Where a carrier must be polled (MPI), an idle thread that only polled would take a core from the computation, and one that slept
 * would add its sleep to every message. So it polls while things move and for a moment after, giving way to others that
 * want the core, and then sleeps the longer the longer nothing has moved; what this process asks for wakes it. */
#define _GNU_SOURCE /* sched.h, prctl */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

enum { SPIN_NS = 20000, SHORTEST_SLEEP_NS = 50000, BUSY_SLEEP_NS = 200000 };

double net_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- asking and ending */

static void wake(void *context) {
    struct mxrt_net *n = context;
    pthread_mutex_lock(&n->lock);
    n->woken = true;
    pthread_cond_broadcast(&n->wake);
    pthread_mutex_unlock(&n->lock);
}

void net_ask(struct mxrt_net *n, struct task *t) {
    atomic_fetch_add_explicit(&n->pending, 1, memory_order_relaxed);
    pthread_mutex_lock(&n->lock);
    bool first = !n->asks.first;
    tasks_append(&n->asks, t);
    if (first) {
        n->woken = true;
        pthread_cond_broadcast(&n->wake);
    }
    pthread_mutex_unlock(&n->lock);
}

void net_end(struct mxrt_net *n, struct task *t, void (*run)(struct mxrt_net *, struct task *)) {
    t->run = run;
    tasks_append(&n->endings, t);
}

void net_called(struct mxrt_net *n, mxrt_net_done *done, void *context, mx_status status, const char *message) {
    if (done)
        done(context, status, message);
    n->last_end = n->now;
    atomic_fetch_sub_explicit(&n->pending, 1, memory_order_relaxed);
}

struct answer {
    struct task task;
    mxrt_net_done *done;
    void *context;
    mx_status status;
    struct mxrt_why why;
};

static void answer(struct mxrt_net *n, struct task *t) {
    struct answer *a = (struct answer *)t;
    net_called(n, a->done, a->context, a->status, a->why.text);
    free(a);
}

void net_answer(struct mxrt_net *n, mxrt_net_done *done, void *context, mx_status status, const char *format, ...) {
    struct answer *a = calloc(1, sizeof *a);
    if (!a) {
        if (done)
            done(context, MX_ERROR_MEMORY, "no memory to send one more message");
        return;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(a->why.text, sizeof a->why.text, format, args);
    va_end(args);
    *a = (struct answer){.task.run = answer, .done = done, .context = context, .status = status, .why = a->why};
    net_ask(n, &a->task);
}

void waiter_begin(struct waiter *w, struct mxrt_why *why) {
    *w = (struct waiter){.why = why};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
}

void waiter_done(void *context, mx_status status, const char *message) {
    struct waiter *w = context;
    pthread_mutex_lock(&w->lock);
    w->status = status;
    if (status != MX_OK)
        (void)mxrt_fail(w->why, status, "%s", message);
    w->ended = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

mx_status waiter_wait(struct waiter *w) {
    pthread_mutex_lock(&w->lock);
    while (!w->ended)
        pthread_cond_wait(&w->wake, &w->lock);
    pthread_mutex_unlock(&w->lock);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    return w->status;
}

/* ---- the thread */

static bool run_all(struct mxrt_net *n, struct tasks *list) {
    bool any = list->first != NULL;
    for (struct task *t; (t = tasks_take(list));)
        t->run(n, t);
    return any;
}

static bool take_asks(struct mxrt_net *n) {
    pthread_mutex_lock(&n->lock);
    struct tasks asks = n->asks;
    n->asks = (struct tasks){NULL, NULL};
    n->woken = false;
    pthread_mutex_unlock(&n->lock);
    return run_all(n, &asks);
}

bool net_poll(struct mxrt_net *n) {
    bool moved = take_asks(n);
    if (!n->dead) {
        moved |= n->carrier->operations->poll(n->carrier, &wire_events, n);
        moved |= wire_push(n);
    }
    moved |= run_all(n, &n->endings);
    return wire_flush(n) || moved;
}

static struct timespec time_of(double seconds) {
    return (struct timespec){(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
}

/* `quiet`: seconds since something moved. */
static void idle(struct mxrt_net *n, double quiet) {
    int64_t poll_ns = n->dead ? 0 : n->carrier->operations->poll_ns;
    if (poll_ns > 0 && quiet * 1e9 < SPIN_NS) {
        sched_yield();
        return;
    }
    double until = fault_next(n);
    if (poll_ns > 0) {
        double most = atomic_load_explicit(&n->pending, memory_order_relaxed) > 0 ? BUSY_SLEEP_NS : (double)poll_ns;
        double sleep = quiet * 1e9 / 8 < SHORTEST_SLEEP_NS ? SHORTEST_SLEEP_NS : quiet * 1e9 / 8;
        double end = n->now + (sleep < most ? sleep : most) * 1e-9;
        until = end < until ? end : until;
    }
    struct timespec at = time_of(until);
    pthread_mutex_lock(&n->lock);
    while (!n->woken) {
        if (n->dead)
            pthread_cond_wait(&n->wake, &n->lock);
        else if (pthread_cond_timedwait(&n->wake, &n->lock, &at) == ETIMEDOUT)
            break;
    }
    pthread_mutex_unlock(&n->lock);
}

/* Whether all is over: everything here has ended, and everyone closes. */
static bool over(struct mxrt_net *n) {
    pthread_mutex_lock(&n->lock);
    bool closing = n->closing;
    pthread_mutex_unlock(&n->lock);
    if (!closing || atomic_load_explicit(&n->pending, memory_order_relaxed) > 0)
        return false;
    if (n->dead)
        return true;
    if (!n->said_bye) {
        n->said_bye = true;
        for (int q = 0; q < n->size; q++)
            wire_say(n, q, FRAME_BYE, 0, "");
        (void)wire_flush(n);
    }
    for (int q = 0; q < n->size; q++) {
        if (!n->peers[q].bye)
            return false;
    }
    return n->carrier->operations->flushed(n->carrier);
}

void net_begin(struct mxrt_net *n) {
    char host[64] = "";
    n->space = fault_space();
    if (n->carrier->operations->take_over) /* ranks that are processes */
        word_open(n);
    (void)gethostname(host, sizeof host - 1);
    n->last_beat = n->last_look = n->last_end = n->now = net_clock();
    for (int q = 0; q < n->size; q++) {
        n->peers[q].heard = n->now;
        struct frame f = {.kind = FRAME_HELLO, .tag = (uint64_t)getpid(), .sub = n->space, .check = n->word_number};
        wire_frame(n, q, &f, host, strlen(host));
    }
}

void net_loop(struct mxrt_net *n) {
    double moved_at = n->now;
    for (;;) {
        double start = n->now = net_clock();
        atomic_fetch_add_explicit(&n->turns, 1, memory_order_relaxed);
        bool moved = net_poll(n);
        fault_watch(n);
        moved |= wire_flush(n);
        moved |= n->endings.first != NULL;
        n->now = net_clock();
        if (moved) {
            moved_at = n->now;
            atomic_fetch_add_explicit(&n->busy_ns, (uint64_t)((n->now - start) * 1e9), memory_order_relaxed);
        } else if (over(n)) {
            break;
        } else {
            idle(n, n->now - moved_at);
        }
    }
    pthread_mutex_lock(&n->lock);
    n->leaving = true;
    pthread_cond_broadcast(&n->wake);
    pthread_mutex_unlock(&n->lock);
    n->carrier->operations->close(n->carrier, !n->dead);
    n->carrier = NULL;
    pthread_mutex_lock(&n->lock);
    n->finished = true;
    pthread_cond_broadcast(&n->wake);
    pthread_mutex_unlock(&n->lock);
}

static void *run(void *context) {
    (void)prctl(PR_SET_TIMERSLACK, 1000UL);
    net_begin(context);
    net_loop(context);
    return NULL;
}

/* ---- */

void net_drop(struct mxrt_net *n) {
    if (n->carrier)
        n->carrier->operations->close(n->carrier, false);
    word_close(n);
    pthread_cond_destroy(&n->wake);
    pthread_mutex_destroy(&n->lock);
    match_clear(n);
    n->dead = true; /* what is still to be said is dropped */
    (void)wire_flush(n);
    fast_drop(n);
    for (int q = 0; n->peers && q < n->size; q++)
        free(n->peers[q].granted.at);
    free(n->peers);
    free(n->out_slots.at);
    free(n->in_slots.at);
    free(n->ready.at);
    free(n);
}

mx_status net_new(struct mxrt_net **out, struct carrier *c, const struct mxrt_net_options *options,
                  struct mxrt_why *why) {
    static const struct mxrt_net_options defaults = {0};
    if (!options)
        options = &defaults;
    if (!(options->timeout >= 0 && options->timeout < 1e6)) {
        c->operations->close(c, false);
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "timeout is a number of seconds, 0 for 10, not %g", options->timeout);
    }
    if (options->node_ranks < 0) {
        c->operations->close(c, false);
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "node_ranks is a number of ranks, 0 for as they are found, not %d",
                         options->node_ranks);
    }
    struct mxrt_net *n = calloc(1, sizeof *n);
    if (!n) {
        c->operations->close(c, false);
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for a net");
    }
    n->carrier = c;
    n->rank = c->rank;
    n->size = c->size;
    n->timeout = options->timeout > 0 ? options->timeout : 10;
    n->memory_limit = options->memory_limit ? options->memory_limit : (size_t)256 << 20;
    n->fast = options->fast;
    n->way = (struct way_net){.ranks = n->size,
                              .node_ranks = options->node_ranks ? way_node_ranks_of(options->node_ranks, n->size)
                                                                : way_node_ranks(c->nodes, n->size),
                              .near = {5e-6, 4e9, 2e-6},
                              .far = {3e-5, 1e9, 5e-6}}; /* until they are measured */
    n->lost_rank = n->doomed = n->word_socket = n->serving = -1;
    pthread_mutex_init(&n->lock, NULL);
    pthread_condattr_t attribute;
    pthread_condattr_init(&attribute);
    pthread_condattr_setclock(&attribute, CLOCK_MONOTONIC);
    pthread_cond_init(&n->wake, &attribute);
    pthread_condattr_destroy(&attribute);
    n->peers = calloc((size_t)n->size, sizeof *n->peers);
    if (!n->peers || !match_begin(n)) {
        net_drop(n);
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for a net");
    }
    for (int q = 0; q < n->size; q++)
        (void)snprintf(n->peers[q].name, sizeof n->peers[q].name, "rank %d", q);
    *out = n;
    return MX_OK;
}

mx_status net_create(struct mxrt_net **out, struct carrier *c, const struct mxrt_net_options *options,
                     struct mxrt_why *why) {
    struct mxrt_net *n;
    mx_status status = net_new(&n, c, options, why);
    if (status != MX_OK)
        return status;
    c->operations->set_wake(c, wake, n);
    /* Signals are for the threads of the program. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&n->thread, NULL, run, n);
    n->watched = error == 0 && c->operations->take_over && pthread_create(&n->watcher, NULL, fault_watcher, n) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        net_drop(n);
        return mxrt_fail(why, MX_ERROR_MEMORY, "no thread for a net: %s", strerror(error));
    }
    *out = n;
    return MX_OK;
}

mx_status net_wait_for_all(struct mxrt_net *n, struct mxrt_why *why) {
    pthread_mutex_lock(&n->lock);
    while (n->hellos < n->size && n->lost_rank < 0)
        pthread_cond_wait(&n->wake, &n->lock);
    bool lost = n->lost_rank >= 0;
    if (lost)
        *why = n->lost;
    pthread_mutex_unlock(&n->lock);
    return lost ? MX_ERROR_PEER : MX_OK;
}

void mxrt_net_close(struct mxrt_net *n) {
    if (!n)
        return;
    pthread_mutex_lock(&n->lock);
    n->closing = n->woken = true;
    pthread_cond_broadcast(&n->wake);
    while (!n->leaving)
        pthread_cond_wait(&n->wake, &n->lock);
    /* All have agreed to close, and MPI_Finalize waits for all; should one die at this moment, the thread is left to it. */
    struct timespec until = time_of(net_clock() + n->timeout);
    while (!n->finished && pthread_cond_timedwait(&n->wake, &n->lock, &until) != ETIMEDOUT)
        continue;
    bool finished = n->finished, taken_over = n->taken_over;
    pthread_mutex_unlock(&n->lock);
    if (finished && !taken_over)
        pthread_join(n->thread, NULL);
    else
        pthread_detach(n->thread);
    if (n->watched)
        pthread_join(n->watcher, NULL);
    if (finished)
        net_drop(n);
}

int mxrt_net_rank(const struct mxrt_net *n) {
    return n->rank;
}

double mxrt_net_timeout(const struct mxrt_net *n) {
    return n->timeout;
}

int mxrt_net_size(const struct mxrt_net *n) {
    return n->size;
}

struct mxrt_net_statistics mxrt_net_statistics(struct mxrt_net *n) {
    return (struct mxrt_net_statistics){
        .messages = atomic_load_explicit(&n->messages, memory_order_relaxed),
        .bytes_sent = atomic_load_explicit(&n->bytes_sent, memory_order_relaxed),
        .bytes_received = atomic_load_explicit(&n->bytes_received, memory_order_relaxed),
        .busy = (double)atomic_load_explicit(&n->busy_ns, memory_order_relaxed) * 1e-9,
    };
}
