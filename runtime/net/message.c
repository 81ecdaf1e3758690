/* Messages between two ranks as the public interface has them, and the barrier, which is a few of them. */
#include <limits.h>
#include <stdlib.h>

#include "internal.h"

static void out_ended(struct mxrt_net *n, struct task *t) {
    struct out *o = (struct out *)t;
    net_called(n, o->done, o->context, o->status, o->message ? o->message : "");
    out_drop(o);
}

static void start_out(struct mxrt_net *n, struct task *t) {
    struct out *o = (struct out *)t;
    if (!n->dead) {
        wire_send(n, o);
        return;
    }
    net_called(n, o->done, o->context, MX_ERROR_PEER, n->lost.text);
    out_drop(o);
}

static void send(struct mxrt_net *n, struct key key, const void *data, size_t bytes, mxrt_net_done *done,
                 void *context) {
    if (key.peer < 0 || key.peer >= n->size || (!data && bytes > 0)) {
        net_answer(n, done, context, MX_ERROR_ARGUMENT, "a message goes to a rank from 0 to %d, with data; not to %d%s",
                   n->size - 1, key.peer, data ? "" : ", NULL");
        return;
    }
    struct out *o = out_new(n, key, data, bytes, out_ended, NULL);
    if (!o) {
        net_answer(n, done, context, MX_ERROR_MEMORY, "no memory to send one more message");
        return;
    }
    if (key.space == SPACE_REQUEST) /* whoever makes them has put them in order, and somebody waits for the answer */
        o->priority = INT_MAX;
    o->task.run = start_out;
    o->done = done;
    o->context = context;
    net_ask(n, &o->task);
}

void mxrt_net_send(struct mxrt_net *n, int to, uint64_t tag, const void *data, size_t bytes, mxrt_net_done *done,
                   void *context) {
    send(n, (struct key){to, SPACE_MESSAGE, tag, 0}, data, bytes, done, context);
}

void mxrt_net_request(struct mxrt_net *n, int to, int service, uint64_t word, const void *data, size_t bytes,
                      mxrt_net_done *done, void *context) {
    if (service < 0 || service >= MXRT_NET_SERVICES)
        net_answer(n, done, context, MX_ERROR_ARGUMENT, "services are 0 to %d, not %d", MXRT_NET_SERVICES - 1, service);
    else
        send(n, (struct key){to, SPACE_REQUEST, word, (uint64_t)service}, data, bytes, done, context);
}

static void in_ended(struct mxrt_net *n, struct task *t) {
    struct in *i = (struct in *)t;
    net_called(n, i->done, i->context, i->status, i->message ? i->message : "");
    in_drop(i);
}

static void start_in(struct mxrt_net *n, struct task *t) {
    struct in *i = (struct in *)t;
    if (!n->dead) {
        wire_receive(n, i);
        return;
    }
    net_called(n, i->done, i->context, MX_ERROR_PEER, n->lost.text);
    in_drop(i);
}

void mxrt_net_receive(struct mxrt_net *n, int from, uint64_t tag, void *data, size_t bytes, mxrt_net_done *done,
                      void *context) {
    if (from < 0 || from >= n->size || (!data && bytes > 0)) {
        net_answer(n, done, context, MX_ERROR_ARGUMENT,
                   "a message comes from a rank from 0 to %d, into data; not from %d%s", n->size - 1, from,
                   data ? "" : ", NULL");
        return;
    }
    struct in *i = in_new(n, (struct key){from, SPACE_MESSAGE, tag, 0}, data, bytes, in_ended, NULL);
    if (!i) {
        net_answer(n, done, context, MX_ERROR_MEMORY, "no memory to receive one more message");
        return;
    }
    i->task.run = start_in;
    i->done = done;
    i->context = context;
    net_ask(n, &i->task);
}

/* ---- barrier: dissemination (Hensgen, Finkel, Manber 1988). In round k a rank tells the one 2^k above and hears of the one 2^k
 * below; after log2(size) rounds it has heard, by way of others, of all. */

struct barrier {
    struct task task;
    struct waiter waiter;
    uint64_t number;
    int distance, waiting;
    mx_status status;
};

static void barrier_next(struct mxrt_net *n, struct barrier *b, mx_status status);

static void barrier_sent(struct mxrt_net *n, struct task *t) {
    struct out *o = (struct out *)t;
    struct barrier *b = o->owner;
    mx_status status = o->status;
    out_drop(o);
    barrier_next(n, b, status);
}

static void barrier_received(struct mxrt_net *n, struct task *t) {
    struct in *i = (struct in *)t;
    struct barrier *b = i->owner;
    mx_status status = i->status;
    in_drop(i);
    barrier_next(n, b, status);
}

static void barrier_next(struct mxrt_net *n, struct barrier *b, mx_status status) {
    if (status != MX_OK)
        b->status = status;
    if (--b->waiting > 0)
        return;
    b->distance = b->distance ? b->distance * 2 : 1;
    if (b->distance < n->size && b->status == MX_OK && !n->dead) {
        uint64_t distance = (uint64_t)b->distance;
        int to = (n->rank + b->distance) % n->size, from = (n->rank - b->distance + n->size) % n->size;
        struct out *o = out_new(n, (struct key){to, SPACE_BARRIER, b->number, distance}, NULL, 0, barrier_sent, b);
        struct in *i = in_new(n, (struct key){from, SPACE_BARRIER, b->number, distance}, NULL, 0, barrier_received, b);
        if (o && i) {
            b->waiting = 2;
            wire_send(n, o);
            wire_receive(n, i);
            return;
        }
        out_drop(o);
        in_drop(i);
        b->status = MX_ERROR_MEMORY;
        fault_lose(n, n->rank, "no memory for a barrier");
    }
    bool lost = b->status != MX_OK || n->dead;
    net_called(n, waiter_done, &b->waiter, lost ? MX_ERROR_PEER : MX_OK,
               n->dead ? n->lost.text
               : lost  ? "no memory for a barrier"
                       : "");
}

static void start_barrier(struct mxrt_net *n, struct task *t) {
    struct barrier *b = (struct barrier *)t;
    b->number = n->barriers++;
    b->waiting = 1;
    barrier_next(n, b, MX_OK);
}

mx_status mxrt_net_barrier(struct mxrt_net *n, struct mxrt_why *why) {
    struct barrier b = {.task.run = start_barrier};
    waiter_begin(&b.waiter, why);
    net_ask(n, &b.task);
    return waiter_wait(&b.waiter);
}
