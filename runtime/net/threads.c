/* The carrier between threads of one process.
 *
 * Each rank has a mailbox: a list under a lock, emptied at once by its owner. A frame is copied into it; a piece is put there as an
 * address, and the receiver copies it straight into place and puts a receipt into the sender's mailbox. While a receiver
 * copies, it holds the sender's `memory` lock for reading; a rank that stops takes it for writing, and from then on
 * nobody touches what it may have freed. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum item_kind { ITEM_FRAME, ITEM_PIECE, ITEM_RECEIPT };

struct item {
    struct item *next;
    enum item_kind kind;
    int from;
    uint32_t slot;
    size_t bytes;
    const void *data; /* of a piece */
    void *cookie;     /* the sender's */
    _Alignas(16) char frame[];
};

struct expected {
    struct expected *next;
    int from;
    uint32_t slot;
    void *data;
    size_t bytes;
    void *cookie;
};

struct mailbox {
    pthread_mutex_t lock;
    struct item *first, **last;
    bool closed;
    void (*wake)(void *context);
    void *wake_context;
    pthread_rwlock_t memory; /* guards `stopped` and, while it is false, what pieces of this rank name */
    bool stopped;
    char pad[64];
};

struct group {
    _Atomic int references;
    int size;
    struct mailbox box[];
};

struct threads {
    struct carrier carrier;
    struct group *group;
    struct expected *expected, **expected_last;
    struct item *early, **early_last; /* pieces that nobody expects yet */
};

static void group_release(struct group *g) {
    if (atomic_fetch_sub(&g->references, 1) > 1)
        return;
    for (int q = 0; q < g->size; q++) {
        for (struct item *i = g->box[q].first, *next; i; i = next) {
            next = i->next;
            free(i);
        }
        pthread_mutex_destroy(&g->box[q].lock);
        pthread_rwlock_destroy(&g->box[q].memory);
    }
    free(g);
}

/* Into the mailbox of `to`; a closed one needs nothing any more. */
static void put(struct group *g, int to, struct item *item) {
    struct mailbox *b = &g->box[to];
    item->next = NULL;
    pthread_mutex_lock(&b->lock);
    if (b->closed) {
        free(item);
    } else {
        bool first = !b->first;
        *b->last = item;
        b->last = &item->next;
        if (first && b->wake)
            b->wake(b->wake_context);
    }
    pthread_mutex_unlock(&b->lock);
}

static bool send_frame(struct carrier *c, int to, const void *frame, size_t bytes) {
    struct item *i = malloc(sizeof *i + bytes);
    if (!i)
        return false;
    *i = (struct item){.kind = ITEM_FRAME, .from = c->rank, .bytes = bytes};
    memcpy(i->frame, frame, bytes);
    put(((struct threads *)c)->group, to, i);
    return true;
}

static bool send_piece(struct carrier *c, int to, uint32_t slot, const void *data, size_t bytes, void *cookie) {
    struct item *i = malloc(sizeof *i);
    if (!i)
        return false;
    *i = (struct item){
        .kind = ITEM_PIECE, .from = c->rank, .slot = slot, .bytes = bytes, .data = data, .cookie = cookie};
    put(((struct threads *)c)->group, to, i);
    return true;
}

static bool receive_piece(struct carrier *c, int from, uint32_t slot, void *data, size_t bytes, void *cookie) {
    struct threads *t = (struct threads *)c;
    struct expected *e = malloc(sizeof *e);
    if (!e)
        return false;
    *e = (struct expected){.from = from, .slot = slot, .data = data, .bytes = bytes, .cookie = cookie};
    *t->expected_last = e;
    t->expected_last = &e->next;
    return true;
}

static struct expected *take_expected(struct threads *t, const struct item *i) {
    for (struct expected **at = &t->expected; *at; at = &(*at)->next) {
        struct expected *e = *at;
        if (e->from != i->from || e->slot != i->slot)
            continue;
        *at = e->next;
        if (!*at)
            t->expected_last = at;
        return e;
    }
    return NULL;
}

/* False: it stays, nobody expects it. */
static bool take_piece(struct threads *t, struct item *i, const struct carrier_events *events, void *context) {
    struct expected *e = take_expected(t, i);
    if (!e)
        return false;
    struct mailbox *from = &t->group->box[i->from];
    bool fits = e->bytes == i->bytes;
    pthread_rwlock_rdlock(&from->memory);
    bool there = !from->stopped;
    if (there && fits)
        memcpy(e->data, i->data, i->bytes);
    pthread_rwlock_unlock(&from->memory);
    if (!fits) {
        events->broken(context, i->from, "a piece of a message has another length than was announced");
    } else if (there) {
        struct expected piece = *e;
        int sender = i->from;
        i->kind = ITEM_RECEIPT;
        i->from = t->carrier.rank;
        put(t->group, sender, i);
        free(e);
        events->piece_received(context, piece.cookie, piece.bytes);
        return true;
    }
    free(e); /* its sender has stopped: the news of that is on its way */
    free(i);
    return true;
}

static bool poll(struct carrier *c, const struct carrier_events *events, void *context) {
    struct threads *t = (struct threads *)c;
    struct mailbox *b = &t->group->box[c->rank];
    pthread_mutex_lock(&b->lock);
    struct item *first = b->first;
    b->first = NULL;
    b->last = &b->first;
    pthread_mutex_unlock(&b->lock);
    bool moved = first != NULL;
    struct item *early = t->early;
    t->early = NULL;
    t->early_last = &t->early;
    for (int pass = 0; pass < 2; pass++) {
        for (struct item *i = pass == 0 ? early : first, *next; i; i = next) {
            next = i->next;
            if (i->kind == ITEM_PIECE) {
                if (take_piece(t, i, events, context)) {
                    moved = true;
                } else {
                    i->next = NULL;
                    *t->early_last = i;
                    t->early_last = &i->next;
                }
                continue;
            }
            if (i->kind == ITEM_FRAME)
                events->frame(context, i->from, i->frame, i->bytes);
            else
                events->piece_sent(context, i->cookie, i->bytes);
            free(i);
        }
    }
    return moved;
}

static bool flushed(struct carrier *c) {
    (void)c;
    return true;
}

static void stop(struct carrier *c) {
    struct mailbox *b = &((struct threads *)c)->group->box[c->rank];
    pthread_rwlock_wrlock(&b->memory);
    b->stopped = true;
    pthread_rwlock_unlock(&b->memory);
}

static void set_wake(struct carrier *c, void (*wake)(void *context), void *context) {
    struct mailbox *b = &((struct threads *)c)->group->box[c->rank];
    pthread_mutex_lock(&b->lock);
    b->wake = wake;
    b->wake_context = context;
    pthread_mutex_unlock(&b->lock);
}

static void close(struct carrier *c, bool orderly) {
    struct threads *t = (struct threads *)c;
    struct mailbox *b = &t->group->box[c->rank];
    (void)orderly;
    stop(c);
    pthread_mutex_lock(&b->lock);
    b->closed = true;
    b->wake = NULL;
    pthread_mutex_unlock(&b->lock);
    for (struct expected *e = t->expected, *next; e; e = next) {
        next = e->next;
        free(e);
    }
    for (struct item *i = t->early, *next; i; i = next) {
        next = i->next;
        free(i);
    }
    group_release(t->group);
    free(t);
}

static const struct carrier_operations operations = {
    .version = CARRIER_VERSION,
    .send_frame = send_frame,
    .send_piece = send_piece,
    .receive_piece = receive_piece,
    .poll = poll,
    .flushed = flushed,
    .stop = stop,
    .close = close,
    .set_wake = set_wake,
};

mx_status threads_create(struct carrier **carriers, int size, struct mxrt_why *why) {
    struct group *g = calloc(1, sizeof *g + (size_t)size * sizeof g->box[0]);
    int made = 0;
    if (g) {
        atomic_store(&g->references, size);
        g->size = size;
        for (int q = 0; q < size; q++) {
            pthread_mutex_init(&g->box[q].lock, NULL);
            pthread_rwlock_init(&g->box[q].memory, NULL);
            g->box[q].last = &g->box[q].first;
        }
        for (; made < size; made++) {
            struct threads *t = calloc(1, sizeof *t);
            if (!t)
                break;
            t->carrier = (struct carrier){.operations = &operations, .rank = made, .size = size};
            t->group = g;
            t->expected_last = &t->expected;
            t->early_last = &t->early;
            carriers[made] = &t->carrier;
        }
    }
    if (made == size)
        return MX_OK;
    for (int q = 0; q < size && g; q++) {
        if (q < made)
            free(carriers[q]);
        group_release(g);
    }
    return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %d ranks", size);
}

mx_status mxrt_net_group(struct mxrt_net **nets, int size, const struct mxrt_net_options *options,
                         struct mxrt_why *why) {
    if (size < 1 || size > 4096)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "a group has 1 to 4096 ranks, not %d", size);
    struct carrier **carriers = calloc((size_t)size, sizeof(struct carrier *));
    if (!carriers)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %d ranks", size);
    mx_status status = threads_create(carriers, size, why);
    int made = 0;
    if (status == MX_OK) {
        while (made < size && (status = net_create(&nets[made], carriers[made], options, why)) == MX_OK)
            made++;
        if (status != MX_OK) {
            for (int q = made + 1; q < size; q++) /* the one that failed has closed its own */
                carriers[q]->operations->close(carriers[q], false);
            for (int q = 0; q < made; q++) {
                mxrt_net_fail(nets[q], "the group could not be made");
                mxrt_net_close(nets[q]);
            }
        }
    }
    free(carriers);
    return status;
}
