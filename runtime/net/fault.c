/* Ranks that are lost, and those that say so.
 *
 * A dead connection is no sign: shared memory has none, and a stopped process keeps its sockets. So every rank says that it is alive
 * five times a `timeout`, over the same way as all else, and who has not been heard for a `timeout` is lost. The first to notice
 * tells everyone, and each who is told tells everyone, so that one rank's death between two sends cannot leave a part of
 * them waiting.
 *
 * A loss ends the net. First the news goes out; then the carrier promises that nobody will read or write this rank's memory any
 * more, since what is reported as ended may be freed; then all that is under way ends. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

enum { BEATS = 5 };
#define DRAIN_SECONDS 0.1

void fault_lose(struct mxrt_net *n, int rank, const char *format, ...) {
    if (n->doomed >= 0 || n->dead)
        return;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(n->doom, sizeof n->doom, format, args);
    va_end(args);
    n->doomed = rank;
}

void fault_told(struct mxrt_net *n, int from, uint64_t rank, const char *text) {
    if (rank >= (uint64_t)n->size)
        fault_lose(n, from, "%s sent a malformed message: it speaks of rank %llu", n->peers[from].name,
                   (unsigned long long)rank);
    else if ((int)rank == n->rank)
        fault_lose(n, n->rank, "the other ranks take this one for lost: %s", text);
    else
        fault_lose(n, (int)rank, "%s", text);
}

static void deaf_frame(void *context, int from, const void *frame, size_t bytes) {
    (void)context, (void)from, (void)frame, (void)bytes;
}
static void deaf_piece(void *context, void *cookie, size_t bytes) {
    (void)context, (void)cookie, (void)bytes;
}
static void deaf_reduced(void *context, void *cookie) {
    (void)context, (void)cookie;
}
static void deaf_broken(void *context, int rank, const char *message) {
    (void)context, (void)rank, (void)message;
}

static void end_all(struct mxrt_net *n) {
    static const struct carrier_events deaf = {deaf_frame, deaf_piece, deaf_piece, deaf_reduced, deaf_broken};
    const struct carrier_operations *carrier = n->carrier->operations;
    pthread_mutex_lock(&n->lock);
    n->lost_rank = n->doomed;
    (void)mxrt_fail(&n->lost, MX_ERROR_PEER, "%s", n->doom);
    pthread_cond_broadcast(&n->wake);
    pthread_mutex_unlock(&n->lock);
    for (int q = 0; q < n->size; q++) {
        if (q != n->rank && q != n->lost_rank)
            wire_say(n, q, FRAME_LOST, (uint64_t)n->lost_rank, n->doom);
    }
    /* To the lost one, too: it may be only slow, and then it should know. */
    if (n->lost_rank != n->rank)
        wire_say(n, n->lost_rank, FRAME_LOST, (uint64_t)n->lost_rank, n->doom);
    for (double until = net_clock() + DRAIN_SECONDS; !carrier->flushed(n->carrier) && net_clock() < until;) {
        if (!carrier->poll(n->carrier, &deaf, n))
            usleep(100);
    }
    carrier->stop(n->carrier);
    n->dead = true;
    n->doomed = -1;
    n->ready.count = 0;
    wire_end_all(n);
    fast_end_all(n);
    request_drop_all(n);
}

double fault_next(const struct mxrt_net *n) {
    return n->last_beat + n->timeout / BEATS;
}

void fault_watch(struct mxrt_net *n) {
    if (n->dead)
        return;
    if (n->now - n->last_look > n->timeout / 2) { /* this process was stopped: silence was on our side */
        for (int q = 0; q < n->size; q++)
            n->peers[q].heard += n->now - n->last_look;
    }
    n->last_look = n->now;
    if (n->now >= fault_next(n)) {
        n->last_beat = n->now;
        for (int q = 0; q < n->size; q++) {
            if (q != n->rank)
                wire_say(n, q, FRAME_ALIVE, 0, "");
        }
    }
    for (int q = 0; q < n->size; q++) {
        double silence = n->now - n->peers[q].heard;
        if (q != n->rank && silence > n->timeout)
            fault_lose(n, q, "%s has given no sign of life for %.1f seconds", n->peers[q].name, silence);
    }
    int64_t alive_ns = atomic_load_explicit(&n->alive_ns, memory_order_relaxed);
    if (alive_ns != 0) {
        /* Who waits for others is not to be blamed before they are. */
        double alive = (double)alive_ns * 1e-9 > n->last_end ? (double)alive_ns * 1e-9 : n->last_end;
        double allowed = atomic_load_explicit(&n->pending, memory_order_relaxed) > 0 ? 2 * n->timeout + 1 : n->timeout;
        if (n->now - alive > allowed)
            fault_lose(n, n->rank, "%s hangs: its program has not called mxrt_net_alive for %.1f seconds",
                       n->peers[n->rank].name, n->now - (double)alive_ns * 1e-9);
    }
    if (n->doomed >= 0)
        end_all(n);
}

/* ---- */

int mxrt_net_lost(struct mxrt_net *n, struct mxrt_why *why) {
    pthread_mutex_lock(&n->lock);
    int rank = n->lost_rank;
    if (rank >= 0 && why)
        *why = n->lost;
    pthread_mutex_unlock(&n->lock);
    return rank;
}

void mxrt_net_alive(struct mxrt_net *n) {
    atomic_store_explicit(&n->alive_ns, (int64_t)(net_clock() * 1e9), memory_order_relaxed);
}

void mxrt_net_rest(struct mxrt_net *n) {
    atomic_store_explicit(&n->alive_ns, 0, memory_order_relaxed);
}

struct failing {
    struct task task;
    char *message;
};

static void fail(struct mxrt_net *n, struct task *t) {
    struct failing *f = (struct failing *)t;
    fault_lose(n, n->rank, "%s gave up: %s", n->peers[n->rank].name, f->message ? f->message : "");
    free(f->message);
    free(f);
    net_called(n, NULL, NULL, MX_OK, "");
}

void mxrt_net_fail(struct mxrt_net *n, const char *message) {
    struct failing *f = calloc(1, sizeof *f);
    if (!f)
        return; /* then the others notice when this process ends */
    f->task.run = fail;
    f->message = strdup(message ? message : "");
    net_ask(n, &f->task);
}
