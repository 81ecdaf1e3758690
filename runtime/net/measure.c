/* How long a message takes between the slowest two ranks.
 *
 * Pairs play ping-pong on the net's threads, so that no hand-over to another thread is in the figure, one pair a rank at a time: the
 * circle method schedules each against each in n - 1 rounds. Of several batches the best counts, because what disturbs a batch
 * is not the net; over the pairs the worst counts, because a collective waits for it. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { BATCHES = 3, SMALL_TRIPS = 8, LARGE_BYTES = 1 << 22 };

struct measure {
    struct task task;
    struct waiter waiter;
    int round, rounds, partner;
    int batch, trip; /* batch 0 and BATCHES + 1 only warm up: small ones, then large ones */
    int waiting;
    bool gathering, failed;
    double started;
    double mine[2]; /* seconds of an empty message, and of a large one; of the slowest pair that this rank led */
    double best[2];
    double (*all)[2]; /* [size] */
    char *buffers;    /* what is sent, and what is received: [2, LARGE_BYTES] */
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

static bool large(const struct measure *m) {
    return m->batch > BATCHES;
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
        m->failed |= !send(n, m, m->partner, trip_of(m) | 1, m->buffers, large(m) ? LARGE_BYTES : 0);
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
    bool leads = n->rank < m->partner;
    size_t bytes = large(m) ? LARGE_BYTES : 0;
    m->waiting = 1;
    if (m->trip == 0)
        m->started = net_clock();
    m->failed |= !receive(n, m, m->partner, trip_of(m) | leads, m->buffers + LARGE_BYTES, bytes) ||
                 (leads && !send(n, m, m->partner, trip_of(m), m->buffers, bytes));
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

static void gather(struct mxrt_net *n, struct measure *m) {
    m->gathering = true;
    m->waiting = 1;
    m->all[n->rank][0] = m->mine[0];
    m->all[n->rank][1] = m->mine[1];
    for (int d = 1; d < n->size; d++) {
        int q = (n->rank + d) % n->size;
        m->failed |= !receive(n, m, q, 0, m->all[q], sizeof m->all[q]) || !send(n, m, q, 0, m->mine, sizeof m->mine);
    }
    step(n, m, MX_OK);
}

static void end(struct mxrt_net *n, struct measure *m) {
    if (m->failed && !n->dead && n->doomed < 0)
        fault_lose(n, n->rank, "no memory to measure the net");
    bool lost = n->dead || n->doomed >= 0;
    net_called(n, waiter_done, &m->waiter, lost ? MX_ERROR_PEER : MX_OK, n->dead ? n->lost.text : lost ? n->doom : "");
}

/* A trip has ended, or the gathering. */
static void next(struct mxrt_net *n, struct measure *m) {
    if (m->gathering || m->failed || n->dead) {
        end(n, m);
        return;
    }
    if (m->partner >= 0) {
        if (++m->trip < (large(m) ? 1 : SMALL_TRIPS)) {
            start_trip(n, m);
            return;
        }
        double seconds = (net_clock() - m->started) / (2.0 * m->trip), *best = &m->best[large(m)];
        if (m->batch % (BATCHES + 1) != 0 && seconds < *best)
            *best = seconds;
        m->trip = 0;
        if (++m->batch < 2 * (BATCHES + 1)) {
            start_trip(n, m);
            return;
        }
        for (int k = 0; k < 2 && n->rank < m->partner; k++)
            m->mine[k] = m->best[k] > m->mine[k] ? m->best[k] : m->mine[k];
    }
    while (++m->round < m->rounds) {
        m->partner = partner_of(n->rank, n->size, m->round);
        if (m->partner >= 0) {
            m->batch = m->trip = 0;
            m->best[0] = m->best[1] = 1e300;
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
    double slowest[2] = {0, 0};
    for (int q = 0; q < n->size && status == MX_OK; q++) {
        for (int k = 0; k < 2; k++)
            slowest[k] = m.all[q][k] > slowest[k] ? m.all[q][k] : slowest[k];
    }
    if (status == MX_OK && slowest[1] > 0) {
        *latency = slowest[0];
        *bandwidth = LARGE_BYTES / slowest[1];
    }
    free(m.buffers);
    free(m.all);
    return status;
}
