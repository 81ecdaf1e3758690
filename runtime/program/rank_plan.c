/* The wire as one server that always works on the bucket needed first of those that are final, and takes another one up when it becomes
 * final (a message waits for a few pieces only, net/wire.c); the computation goes on meanwhile, and stops where it needs a bucket that
 * has not arrived.
 *
 * What is looked for is not when the last bucket has arrived but when the next step can begin and go on: with small buckets the first
 * layers' parameters overtake what is still on its way, with large ones fewer messages are paid for. A closed formula would have to know
 * which of both hides what, so a few steps are played. */
#include "rank_plan.h"

#include <stdbool.h>

/* Seconds of the two cores' work that a message costs, whatever its length: an offer, a grant, pieces, being summed. */
static const double message_seconds = 50e-6;
enum {
    STEPS = 8,
    FIRST_STEPS =
        4, /* of them only lead to those that count: after a long one there may be a short one, again and again */
    LATENCIES = 6 /* offer, grant and pieces of summands, and of sums */
};

struct model {
    struct plan_bucket *b;
    int count;
    double wire; /* the time up to which it has worked */
    double delay;
};

static int first_waiting(const struct model *m) {
    int first = -1;
    for (int i = 0; i < m->count; i++)
        if (m->b[i].left > 0 && (first < 0 || m->b[i].need < m->b[first].need))
            first = i;
    return first;
}

/* Works until a time, or until bucket `target` has been sent. */
static void work(struct model *m, double until, int target) {
    while (target < 0 ? m->wire < until : m->b[target].left > 0) {
        int i = first_waiting(m);
        if (i < 0) {
            m->wire = until;
            return;
        }
        double rest = until - m->wire, part = target < 0 && rest < m->b[i].left ? rest : m->b[i].left;
        m->wire += part;
        m->b[i].left = part < m->b[i].left ? m->b[i].left - part : 0;
        m->b[i].arrived = m->wire + m->delay;
    }
}

static void order_by_need(struct plan_bucket *b, int count) {
    for (int i = 0; i < count; i++) {
        int at = i;
        for (; at > 0 && b[b[at - 1].by_need].need > b[i].need; at--)
            b[at].by_need = b[at - 1].by_need;
        b[at].by_need = i;
    }
}

double ranks_plan_step(struct plan_bucket *b, int count, double seconds, const struct plan_net *net) {
    struct model m = {b, count, 0, LATENCIES * net->latency};
    const double messages = 2.0 * (net->ranks - 1);
    double now = 0, start = 0;
    order_by_need(b, count);
    for (int i = 0; i < count; i++)
        b[i].left = b[i].arrived = 0;
    for (int step = 0; step < STEPS; step++) {
        double base = now;
        if (step == FIRST_STEPS)
            start = now;
        for (int need = 0, final = 0; need < count || final < count;) {
            const bool needs = need < count && (final == count || b[b[need].by_need].need <= b[final].ready);
            struct plan_bucket *at = &b[needs ? b[need++].by_need : final++];
            const double when = base + (needs ? at->need : at->ready) * seconds;
            now = when > now ? when : now;
            work(&m, now, -1);
            if (!needs) {
                at->left = messages * (message_seconds + (double)at->bytes / net->ranks / net->bandwidth);
                continue;
            }
            work(&m, now, (int)(at - b)); /* of the step before */
            if (at->arrived > now) {
                base += at->arrived - now;
                now = at->arrived;
            }
        }
        now = base + seconds;
        work(&m, now, -1);
    }
    return (now - start) / (STEPS - FIRST_STEPS);
}
