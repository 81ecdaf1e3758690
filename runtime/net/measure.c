/* How long a message takes between the slowest two ranks, within nodes and between them.
 *
 * Pairs play ping-pong on the net's threads, so that no hand-over to another thread is in the figure, one pair a rank at a time: the
 * circle method schedules each against each in n - 1 rounds. Of several batches the best counts, because what disturbs a batch
 * is not the net; over the pairs the worst counts, because a collective waits for it. What a message costs a rank's thread shows
 * in a salvo of them, which overlap in the wire and not in the thread. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum kind { ONE, SALVO, LARGE, KINDS };
enum { NEAR, FAR, LINKS };
enum { BATCHES = 3 /* of a kind, behind one that only warms up */, LARGE_BYTES = 1 << 22 };
static const struct {
    int trips, messages;
    size_t bytes;
} played[KINDS] = {{8, 1, 0}, {2, 16, 0}, {1, 1, LARGE_BYTES}};
#define LEAST_MESSAGE 1e-7 /* seconds: what noise may leave of it */

struct seconds {
    double of[LINKS][KINDS]; /* of a trip one way */
};

struct measure {
    struct task task;
    struct waiter waiter;
    int round, rounds, partner;
    int batch, trip;
    int waiting;
    bool gathering, failed;
    double started;
    double best[KINDS];
    struct seconds mine, slowest, *all; /* of the pairs that this rank led; of all; [size] */
    char *buffers;                      /* what is sent, and what is received: [2, LARGE_BYTES] */
};

static void next(struct mxrt_net *n, struct measure *m);

static void step(struct mxrt_net *n, struct measure *m, mx_status status) {
    m->failed |= status != MX_OK;
    if (--m->waiting == 0)
        next(n, m);
}

static void sent(struct mxrt_net *n, struct task *t) {
    struct out *o = (struct out *)t;
    struct measure *m = o->owner;
    mx_status status = o->status;
    out_drop(o);
    step(n, m, status);
}

static bool send(struct mxrt_net *n, struct measure *m, int to, uint64_t sub, const void *data, size_t bytes) {
    struct out *o = out_new(n, (struct key){to, SPACE_MEASURE, (uint64_t)m->round, sub}, data, bytes, sent, m);
    if (!o)
        return false;
    m->waiting++;
    wire_send(n, o);
    return true;
}

static enum kind kind_of(const struct measure *m) {
    return (enum kind)(m->batch / (BATCHES + 1));
}

static uint64_t trip_of(const struct measure *m) {
    return (uint64_t)m->batch << 16 | (uint64_t)m->trip << 1;
}

static void received(struct mxrt_net *n, struct task *t) {
    struct in *i = (struct in *)t;
    struct measure *m = i->owner;
    mx_status status = i->status;
    in_drop(i);
    if (!m->gathering && n->rank > m->partner && status == MX_OK && !n->dead) /* the one who does not lead answers */
        m->failed |= !send(n, m, m->partner, trip_of(m) | 1, m->buffers, played[kind_of(m)].bytes);
    step(n, m, status);
}

static bool receive(struct mxrt_net *n, struct measure *m, int from, uint64_t sub, void *data, size_t bytes) {
    struct in *i = in_new(n, (struct key){from, SPACE_MEASURE, (uint64_t)m->round, sub}, data, bytes, received, m);
    if (!i)
        return false;
    m->waiting++;
    wire_receive(n, i);
    return true;
}

static void start_trip(struct mxrt_net *n, struct measure *m) {
    const bool leads = n->rank < m->partner;
    const enum kind kind = kind_of(m);
    m->waiting = 1;
    if (m->trip == 0)
        m->started = net_clock();
    for (int i = 0; i < played[kind].messages; i++)
        m->failed |= !receive(n, m, m->partner, trip_of(m) | leads, m->buffers + LARGE_BYTES, played[kind].bytes) ||
                     (leads && !send(n, m, m->partner, trip_of(m), m->buffers, played[kind].bytes));
    step(n, m, MX_OK);
}

/* Whom this rank meets in a round, or -1: the last of an even number stays, the others turn. */
static int partner_of(int rank, int size, int round) {
    int even = size + size % 2, turning = even - 1, other;
    if (rank == even - 1)
        other = round;
    else if (rank == round % turning)
        other = even - 1;
    else
        other = ((2 * round - rank) % turning + turning) % turning;
    return other < size && other != rank ? other : -1;
}

static int link_to(const struct mxrt_net *n, int rank) {
    return n->way.node_ranks && rank / n->way.node_ranks == n->rank / n->way.node_ranks ? NEAR : FAR;
}

static void keep_slowest(double *to, const double *from) {
    for (int k = 0; k < KINDS; k++)
        to[k] = from[k] > to[k] ? from[k] : to[k];
}

static void gather(struct mxrt_net *n, struct measure *m) {
    m->gathering = true;
    m->waiting = 1;
    m->all[n->rank] = m->mine;
    for (int d = 1; d < n->size; d++) {
        int q = (n->rank + d) % n->size;
        m->failed |= !receive(n, m, q, 0, &m->all[q], sizeof m->all[q]) || !send(n, m, q, 0, &m->mine, sizeof m->mine);
    }
    step(n, m, MX_OK);
}

static struct way_link link_of(const double *seconds) {
    const double salvo = (seconds[SALVO] - seconds[ONE]) / (played[SALVO].messages - 1); /* sent and received */
    return (struct way_link){.latency = seconds[ONE],
                             .bandwidth = LARGE_BYTES / seconds[LARGE],
                             .message = salvo > LEAST_MESSAGE ? salvo / 2 : LEAST_MESSAGE / 2};
}

/* On the net's thread, so that it falls between two collectives. */
static void settle(struct mxrt_net *n, struct measure *m) {
    for (int q = 0; q < n->size; q++)
        for (int l = 0; l < LINKS; l++)
            keep_slowest(m->slowest.of[l], m->all[q].of[l]);
    if (n->measured || n->size == 1)
        return;
    n->measured = true;
    n->way.far = link_of(m->slowest.of[FAR]);
    if (n->way.node_ranks)
        n->way.near = link_of(m->slowest.of[NEAR]);
}

static void end(struct mxrt_net *n, struct measure *m) {
    if (m->failed && !n->dead && n->doomed < 0)
        fault_lose(n, n->rank, "no memory to measure the net");
    bool lost = n->dead || n->doomed >= 0;
    if (!lost)
        settle(n, m);
    net_called(n, waiter_done, &m->waiter, lost ? MX_ERROR_PEER : MX_OK, n->dead ? n->lost.text : lost ? n->doom : "");
}

/* A trip has ended, or the gathering. */
static void next(struct mxrt_net *n, struct measure *m) {
    if (m->gathering || m->failed || n->dead) {
        end(n, m);
        return;
    }
    if (m->partner >= 0) {
        if (++m->trip < played[kind_of(m)].trips) {
            start_trip(n, m);
            return;
        }
        double seconds = (net_clock() - m->started) / (2.0 * m->trip), *best = &m->best[kind_of(m)];
        if (m->batch % (BATCHES + 1) != 0 && seconds < *best)
            *best = seconds;
        m->trip = 0;
        if (++m->batch < KINDS * (BATCHES + 1)) {
            start_trip(n, m);
            return;
        }
        if (n->rank < m->partner)
            keep_slowest(m->mine.of[link_to(n, m->partner)], m->best);
    }
    while (++m->round < m->rounds) {
        m->partner = partner_of(n->rank, n->size, m->round);
        if (m->partner >= 0) {
            m->batch = m->trip = 0;
            for (int k = 0; k < KINDS; k++)
                m->best[k] = 1e300;
            start_trip(n, m);
            return;
        }
    }
    gather(n, m);
}

static void start(struct mxrt_net *n, struct task *t) {
    struct measure *m = (struct measure *)t;
    m->round = m->partner = -1;
    m->rounds = n->size + n->size % 2 - 1;
    next(n, m);
}

mx_status mxrt_net_measure(struct mxrt_net *n, double *latency, double *bandwidth, struct mxrt_why *why) {
    struct measure m = {.task.run = start};
    m.buffers = calloc(2, LARGE_BYTES);
    m.all = calloc((size_t)n->size, sizeof *m.all);
    if (!m.buffers || !m.all) {
        free(m.buffers);
        free(m.all);
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory to measure the net");
    }
    *latency = 0;
    *bandwidth = 0;
    mx_status status = mxrt_net_barrier(n, why);
    if (status == MX_OK) {
        waiter_begin(&m.waiter, why);
        net_ask(n, &m.task);
        status = waiter_wait(&m.waiter);
    }
    keep_slowest(m.slowest.of[FAR], m.slowest.of[NEAR]);
    const double *slowest = m.slowest.of[FAR];
    if (status == MX_OK && slowest[LARGE] > 0) {
        *latency = slowest[ONE];
        *bandwidth = LARGE_BYTES / slowest[LARGE];
    }
    free(m.buffers);
    free(m.all);
    return status;
}
