/* Ranks that are lost, and those that say so.
 *
 * A dead connection is no sign: shared memory has none, and a stopped process keeps its sockets. So every rank says that it is alive
 * five times a `timeout`, over the same way as all else, and who has not been heard for a `timeout` is lost. The first to notice
 * tells everyone, and each who is told tells everyone, so that one rank's death between two sends cannot leave a part of
 * them waiting.
 *
 * A process that has ended on this machine is known at once: its number is gone. That is also what tells the dead from those who hang
 * in their connection to it. A process that ends because of a loss leaves word of it, so that it is not taken for the cause.
 *
 * A loss ends the net. First the news goes out; then the carrier promises that nobody will read or write this rank's memory any
 * more, since what is reported as ended may be freed; then all that is under way ends. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
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
    /* At once: what ends from now on may say so. */
    pthread_mutex_lock(&n->lock);
    n->lost_rank = rank;
    (void)mxrt_fail(&n->lost, MX_ERROR_PEER, "%s", n->doom);
    pthread_cond_broadcast(&n->wake);
    pthread_mutex_unlock(&n->lock);
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

/* ---- processes of this machine */

/* Two ranks that get the same number here give their processes numbers of one kind: same boot, same namespace. */
uint64_t fault_space(void) {
    struct stat s;
    char boot[64] = "";
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    bool known = f && fgets(boot, sizeof boot, f) && stat("/proc/self/ns/pid", &s) == 0;
    if (f)
        (void)fclose(f);
    if (!known)
        return 0;
    uint64_t h = (uint64_t)s.st_ino;
    for (const char *c = boot; *c; c++)
        h = (h ^ (uint64_t)(unsigned char)*c) * 0x100000001b3u;
    return h ? h : 1;
}

static bool has_ended(const struct mxrt_net *n, int q) {
    const struct peer *p = &n->peers[q];
    return p->pid > 0 && p->space != 0 && p->space == n->space && kill(p->pid, 0) != 0 && errno == ESRCH;
}

/* Of several, the one that has been silent for longest: others may have ended because of it, where they left no word (word.c). */
static int find_ended(const struct mxrt_net *n) {
    int found = -1;
    for (int q = 0; q < n->size; q++) {
        if (q != n->rank && !n->peers[q].bye && has_ended(n, q) &&
            (found < 0 || n->peers[q].heard < n->peers[found].heard))
            found = q;
    }
    return found;
}

static void lose_ended(struct mxrt_net *n, int q) {
    word_take(n); /* it may have ended because of another, and says so */
    fault_lose(n, q, "%s has ended without closing its net: there is no such process any more", n->peers[q].name);
}

/* ---- the end of a net */

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

static void end_asked(struct mxrt_net *n) {
    word_leave(n);
    n->dead = true;
    n->doomed = -1;
    n->ready.count = 0;
    wire_end_all(n);
    fast_end_all(n);
    request_drop_all(n);
}

static void end_all(struct mxrt_net *n) {
    static const struct carrier_events deaf = {deaf_frame, deaf_piece, deaf_piece, deaf_reduced, deaf_broken};
    const struct carrier_operations *carrier = n->carrier->operations;
    for (int q = 0; q < n->size; q++) {
        if (q != n->rank && q != n->lost_rank)
            wire_say(n, q, FRAME_LOST, (uint64_t)n->lost_rank, n->doom);
    }
    /* To the lost one, too: it may be only slow, and then it should know. */
    if (n->lost_rank != n->rank && !has_ended(n, n->lost_rank))
        wire_say(n, n->lost_rank, FRAME_LOST, (uint64_t)n->lost_rank, n->doom);
    (void)wire_flush(n);
    for (double until = net_clock() + DRAIN_SECONDS; !carrier->flushed(n->carrier) && net_clock() < until;) {
        if (!carrier->poll(n->carrier, &deaf, n))
            usleep(100);
    }
    carrier->stop(n->carrier);
    end_asked(n);
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
        word_take(n);
        int ended = find_ended(n);
        if (ended >= 0)
            lose_ended(n, ended);
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

/* ---- a carrier that hangs. The watcher looks whether the net's thread goes round; when it does not, and is known to be inside the
 * carrier, the watcher leaves it there and goes on in its place, with a net that is lost: soon if something is known of a loss, which
 * is then why, else after half of `timeout`. */

static bool knows_of_loss(struct mxrt_net *n) {
    bool knows = word_waits(n);
    pthread_mutex_lock(&n->lock);
    for (int q = 0; q < n->size && !knows; q++)
        knows = q != n->rank && !atomic_load(&n->peers[q].bye) && has_ended(n, q);
    pthread_mutex_unlock(&n->lock);
    return knows;
}

void *fault_watcher(void *net) {
    struct mxrt_net *n = net;
    uint64_t turns = 0;
    /* Looks without a turn in between: not seconds, of which a process that was stopped has slept any number. */
    int stuck = 0;
    bool leaving = false;
    while (!leaving) {
        double at = net_clock() + n->timeout / (2 * BEATS);
        struct timespec until = {(time_t)at, (long)((at - (double)(time_t)at) * 1e9)};
        int peer = -1;
        pthread_mutex_lock(&n->lock);
        while (!n->leaving && pthread_cond_timedwait(&n->wake, &n->lock, &until) != ETIMEDOUT)
            continue;
        leaving = n->leaving;
        pthread_mutex_unlock(&n->lock);
        uint64_t now = atomic_load_explicit(&n->turns, memory_order_relaxed);
        if (now != turns || leaving) {
            turns = now;
            stuck = 0;
            continue;
        }
        stuck++;
        if ((stuck < BEATS && !knows_of_loss(n)) || !n->carrier->operations->take_over(n->carrier, &peer))
            continue;
        word_take(n);
        int ended = peer >= 0 && has_ended(n, peer) ? peer : find_ended(n);
        if (n->doomed < 0) {
            for (int q = 0; q < n->size && ended < 0; q++) { /* at whose the messages stop */
                if (q != n->rank && (peer < 0 || n->peers[q].heard < n->peers[peer].heard))
                    peer = q;
            }
            if (ended >= 0)
                lose_ended(n, ended);
            else
                fault_lose(n, peer, "MPI hangs in a message for %s", n->peers[peer].name);
        }
        pthread_mutex_lock(&n->lock);
        n->taken_over = true;
        pthread_mutex_unlock(&n->lock);
        end_asked(n);
        net_loop(n);
        return NULL;
    }
    return NULL;
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
