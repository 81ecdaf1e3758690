/* Sending: a queue of items for each rank, in the order of their priorities.
 *
 * Nagle's rule, with two messages under way instead of one: while fewer than WINDOW messages to a rank are not yet acknowledged, what is
 * in its queue leaves at once; while there are more, it gathers, and leaves as one message of up to `bucket` bytes when
 * an acknowledgement comes. So small items share messages exactly when the wire is what they wait for, nothing ever waits for an
 * item that was not pushed, no timer and no wait has to know of buckets, and what is urgent overtakes what is still
 * here. The payload of an item of `bucket` bytes or more is not copied: its header ends a batch, the payload follows by itself.
 *
 * Which items share a message differs from run to run. No sum does: those are made of the items. */
#include <stdlib.h>
#include <string.h>

#include "wire.h"

enum { WINDOW = 2 };

struct outbox {
    struct outgoing *heap; /* [count], largest priority first, then in order */
    size_t count, room;
    int under_way; /* messages not acknowledged */
    bool leaving;  /* a thread hands its items to the net: one at a time, so that they stay in order */
};

/* ---- messages */

struct message *kv_message_new(void *data, void (*drop)(struct message *m)) {
    struct message *m = calloc(1, sizeof *m);
    if (m) {
        atomic_init(&m->references, 1);
        m->data = data;
        m->drop = drop;
    }
    return m;
}

static void drop_room(struct message *m) {
    free(m->data);
}

struct message *kv_message_room(size_t bytes) {
    void *data = malloc(bytes + 1);
    struct message *m = data ? kv_message_new(data, drop_room) : NULL;
    if (!m)
        free(data);
    return m;
}

void kv_message_keep(struct message *m) {
    atomic_fetch_add_explicit(&m->references, 1, memory_order_relaxed);
}

void kv_message_drop(void *message) {
    struct message *m = message;
    if (m && atomic_fetch_sub_explicit(&m->references, 1, memory_order_acq_rel) == 1) {
        m->drop(m);
        free(m);
    }
}

static void drop_own(struct message *m) {
    if (m->sent)
        m->sent(m->context);
}

/* ---- the heap */

static bool before(const struct outgoing *a, const struct outgoing *b) {
    return a->item.priority != b->item.priority ? a->item.priority > b->item.priority : a->sequence < b->sequence;
}

static bool heap_put(struct outbox *b, const struct outgoing *o) {
    if (b->count == b->room) {
        size_t room = 2 * b->room + 16;
        struct outgoing *more = realloc(b->heap, room * sizeof *more);
        if (!more)
            return false;
        b->heap = more;
        b->room = room;
    }
    size_t i = b->count++;
    for (; i > 0 && before(o, &b->heap[(i - 1) / 2]); i = (i - 1) / 2)
        b->heap[i] = b->heap[(i - 1) / 2];
    b->heap[i] = *o;
    return true;
}

static struct outgoing heap_take(struct outbox *b) {
    struct outgoing top = b->heap[0], last = b->heap[--b->count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < b->count; i = child) {
        if (child + 1 < b->count && before(&b->heap[child + 1], &b->heap[child]))
            child++;
        if (!before(&b->heap[child], &last))
            break;
        b->heap[i] = b->heap[child];
    }
    b->heap[i] = last;
    return top;
}

/* ---- shipments: what leaves at once */

struct shipment {
    struct mxrt_kvstore *kv;
    _Atomic int under_way; /* of its messages */
    size_t bytes;          /* of the batch */
    struct outgoing apart; /* its payload is a message of its own */
    char batch[];
};

void kv_wire_ended(struct mxrt_kvstore *kv) {
    pthread_mutex_lock(&kv->lock);
    kv->sends--;
    pthread_cond_broadcast(&kv->quiet);
    pthread_mutex_unlock(&kv->lock);
}

/* The net tells losses to the receive that wire_open left with it. */
static void batch_sent(void *context, mx_status status, const char *message) {
    struct shipment *s = context;
    struct mxrt_kvstore *kv = s->kv;
    if (atomic_fetch_sub(&s->under_way, 1) == 1)
        free(s);
    kv_wire_ended(kv);
}

static void payload_sent(void *context, mx_status status, const char *message) {
    struct shipment *s = context;
    if (s->apart.sent)
        s->apart.sent(s->apart.context);
    batch_sent(s, status, message);
}

struct leaving {
    struct outgoing *list;
    size_t count, room;
};

/* Under the lock: takes from the queue what shares a message. */
static bool gather(struct mxrt_kvstore *kv, struct outbox *b, struct leaving *l, size_t *bytes, bool *has_apart) {
    *bytes = 0;
    *has_apart = false;
    while (b->count > 0 && !*has_apart) {
        const struct item *next = &b->heap[0].item;
        bool apart = next->bytes >= kv->bucket;
        size_t add = sizeof *next + (apart ? 0 : item_padded((size_t)next->bytes));
        if (l->count > 0 && *bytes + add > kv->bucket + sizeof *next)
            break;
        if (l->count == l->room) {
            size_t room = 2 * l->room + 16;
            struct outgoing *more = realloc(l->list, room * sizeof *more);
            if (!more)
                return l->count > 0;
            l->list = more;
            l->room = room;
        }
        l->list[l->count] = heap_take(b);
        l->list[l->count++].item.apart = apart;
        *bytes += add;
        *has_apart = apart;
    }
    return l->count > 0;
}

static struct shipment *assemble(struct mxrt_kvstore *kv, struct leaving *l, size_t bytes, bool has_apart) {
    struct shipment *s = calloc(1, sizeof *s + bytes);
    if (!s)
        return NULL;
    s->kv = kv;
    s->bytes = bytes;
    atomic_init(&s->under_way, has_apart ? 2 : 1);
    size_t at = 0;
    for (size_t i = 0; i < l->count; i++) {
        const struct outgoing *o = &l->list[i];
        memcpy(s->batch + at, &o->item, sizeof o->item);
        at += sizeof o->item;
        if (o->item.apart) {
            s->apart = *o;
        } else {
            if (o->item.bytes > 0)
                memcpy(s->batch + at, o->payload, (size_t)o->item.bytes);
            at += item_padded((size_t)o->item.bytes);
        }
    }
    return s;
}

static void dispatch(struct mxrt_kvstore *kv, int to, struct leaving *l, size_t bytes, bool has_apart) {
    struct shipment *s = assemble(kv, l, bytes, has_apart);
    for (size_t i = 0; i < l->count; i++) {
        if (l->list[i].sent && !(s && l->list[i].item.apart))
            l->list[i].sent(l->list[i].context);
    }
    if (!s) {
        kv_wire_break(kv, "no memory for a message");
        return;
    }
    pthread_mutex_lock(&kv->lock);
    kv->sends += has_apart ? 2 : 1;
    kv->statistics.messages += has_apart ? 2 : 1;
    pthread_mutex_unlock(&kv->lock);
    uint64_t number = s->apart.item.number, reply = s->apart.item.kind >= ITEM_DONE;
    mxrt_net_request(kv->net, to, kv->service, MESSAGE_WORD(MESSAGE_BATCH, 0), s->batch, s->bytes, batch_sent, s);
    if (has_apart)
        mxrt_net_request(kv->net, to, kv->service,
                         MESSAGE_WORD(reply ? MESSAGE_REPLY_PAYLOAD : MESSAGE_PAYLOAD, number), s->apart.payload,
                         (size_t)s->apart.item.bytes, payload_sent, s);
}

void kv_wire_flush(struct mxrt_kvstore *kv, int to) {
    struct outbox *b = &kv->outboxes[to];
    struct leaving l = {0};
    size_t bytes;
    bool has_apart;
    pthread_mutex_lock(&kv->lock);
    if (!b->leaving) { /* else that thread looks again before it ends */
        b->leaving = true;
        while (b->under_way < WINDOW && !kv->lost && gather(kv, b, &l, &bytes, &has_apart)) {
            b->under_way++;
            pthread_mutex_unlock(&kv->lock);
            dispatch(kv, to, &l, bytes, has_apart);
            l.count = 0;
            pthread_mutex_lock(&kv->lock);
        }
        b->leaving = false;
    }
    pthread_mutex_unlock(&kv->lock);
    free(l.list);
}

bool kv_wire_send(struct mxrt_kvstore *kv, int to, const struct outgoing *o) {
    if (to == kv->rank) {
        struct message *m = kv_message_new((void *)o->payload, drop_own);
        if (!m)
            return false;
        m->sent = o->sent;
        m->context = o->context;
        kv_wire_handle(kv, to, &o->item, o->payload, m);
        kv_message_drop(m);
        return true;
    }
    pthread_mutex_lock(&kv->lock);
    bool lost = kv->lost, there = true;
    if (!lost) {
        struct outgoing next = *o;
        next.sequence = kv->sequence++;
        there = heap_put(&kv->outboxes[to], &next);
    }
    pthread_mutex_unlock(&kv->lock);
    if (lost && o->sent)
        o->sent(o->context);
    else if (there && !lost)
        kv_wire_flush(kv, to);
    return there;
}

void kv_wire_acknowledged(struct mxrt_kvstore *kv, int from) {
    pthread_mutex_lock(&kv->lock);
    struct outbox *b = &kv->outboxes[from];
    bool expected = b->under_way > 0;
    b->under_way -= expected;
    pthread_cond_broadcast(&kv->quiet);
    pthread_mutex_unlock(&kv->lock);
    if (expected)
        kv_wire_flush(kv, from);
}

static void acknowledgement_sent(void *context, mx_status status, const char *message) {
    kv_wire_ended(context);
}

void kv_wire_acknowledge(struct mxrt_kvstore *kv, int to) {
    pthread_mutex_lock(&kv->lock);
    kv->sends++;
    pthread_mutex_unlock(&kv->lock);
    mxrt_net_request(kv->net, to, kv->service, MESSAGE_WORD(MESSAGE_ACK, 0), "", 0, acknowledgement_sent, kv);
}

/* ---- ends */

mx_status kv_wire_lost(struct mxrt_kvstore *kv, struct mxrt_why *why) {
    pthread_mutex_lock(&kv->lock);
    mx_status status = kv->lost ? mxrt_fail(why, kv->lost_status, "%s", kv->lost_text) : MX_OK;
    pthread_mutex_unlock(&kv->lock);
    return status;
}

void kv_wire_stop(struct mxrt_kvstore *kv, mx_status status, const char *text) {
    pthread_mutex_lock(&kv->lock);
    bool first = !kv->lost;
    if (first) {
        kv->lost = true;
        kv->lost_status = status;
        snprintf(kv->lost_text, sizeof kv->lost_text, "%s", text);
    }
    pthread_mutex_unlock(&kv->lock);
    if (!first)
        return;
    for (int to = 0; to < kv->size; to++) {
        struct outbox *b = &kv->outboxes[to];
        for (bool more = true; more;) {
            struct outgoing o = {0};
            pthread_mutex_lock(&kv->lock);
            if ((more = b->count > 0))
                o = heap_take(b);
            pthread_mutex_unlock(&kv->lock);
            if (o.sent)
                o.sent(o.context);
        }
    }
    kv_client_stop(kv, status, text);
    kv_server_stop(kv);
    pthread_mutex_lock(&kv->lock);
    pthread_cond_broadcast(&kv->quiet);
    pthread_mutex_unlock(&kv->lock);
}

void kv_wire_break(struct mxrt_kvstore *kv, const char *text) {
    kv_wire_stop(kv, MX_ERROR_PEER, text);
    mxrt_net_fail(kv->net, text);
}

/* ---- begin and end
 *
 * The net ends what is under way when a rank is lost; a request that was sent is not under way any more, its reply is nothing the
 * net knows of. So a receive waits all the time, for a word of the next rank that comes when the store ends. */

#define FAREWELL (KV_ID_STORE | 1)

static void watched(void *context, mx_status status, const char *message) {
    struct mxrt_kvstore *kv = context;
    if (status != MX_OK)
        kv_wire_stop(kv, status, message);
    pthread_mutex_lock(&kv->lock);
    kv->watching = false;
    pthread_cond_broadcast(&kv->quiet);
    pthread_mutex_unlock(&kv->lock);
}

mx_status kv_wire_open(struct mxrt_kvstore *kv, struct mxrt_why *why) {
    kv->outboxes = calloc((size_t)kv->size, sizeof *kv->outboxes);
    if (!kv->outboxes)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %d ranks", kv->size);
    mx_status status = MX_ERROR_ARGUMENT;
    for (kv->service = 0; kv->service < MXRT_NET_SERVICES && status != MX_OK; kv->service++)
        status = mxrt_net_offer(kv->net, kv->service, kv_wire_service, kv, why);
    kv->service--;
    kv->has_service = status == MX_OK;
    kv->base |= (uint64_t)kv->service << KV_STORE_BIT;
    if (status != MX_OK || kv->size == 1)
        return status;
    kv->watching = true;
    mxrt_net_receive(kv->net, (kv->rank + 1) % kv->size, kv->base | FAREWELL, &kv->farewell, sizeof kv->farewell,
                     watched, kv);
    return MX_OK;
}

static bool unacknowledged(const struct mxrt_kvstore *kv) {
    for (int to = 0; to < kv->size; to++) {
        if (kv->outboxes[to].under_way > 0 || kv->outboxes[to].count > 0)
            return true;
    }
    return false;
}

static void farewell_sent(void *context, mx_status status, const char *message) {
    kv_wire_ended(context);
}

/* Behind the barrier all requests of all ranks are answered, as their operations have completed; what may still come are acknowledgements.
 * With those for all that this rank sent, nothing is on the wire to it. */
void kv_wire_close(struct mxrt_kvstore *kv) {
    if (kv->outboxes && kv->size > 1) {
        pthread_mutex_lock(&kv->lock);
        bool lost = kv->lost;
        pthread_mutex_unlock(&kv->lock);
        struct mxrt_why why;
        mx_status status = lost ? MX_ERROR_PEER : mxrt_net_barrier(kv->net, &why);
        if (!lost && status != MX_OK)
            kv_wire_stop(kv, status, why.text);
        if (status == MX_OK && kv->has_service) { /* after a loss, the net ends the receive */
            pthread_mutex_lock(&kv->lock);
            kv->sends++;
            pthread_mutex_unlock(&kv->lock);
            mxrt_net_send(kv->net, (kv->rank + kv->size - 1) % kv->size, kv->base | FAREWELL, "", 1, farewell_sent, kv);
        }
        pthread_mutex_lock(&kv->lock);
        while (kv->watching || kv->sends > 0 || (!kv->lost && unacknowledged(kv)))
            pthread_cond_wait(&kv->quiet, &kv->lock);
        pthread_mutex_unlock(&kv->lock);
    }
    if (kv->has_service)
        (void)mxrt_net_offer(kv->net, kv->service, NULL, NULL, NULL);
    for (int to = 0; kv->outboxes && to < kv->size; to++)
        free(kv->outboxes[to].heap);
    free(kv->outboxes);
    kv->outboxes = NULL;
}
