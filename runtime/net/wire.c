/* Messages over frames and pieces.
 *
 * A small message is a frame. A large one is offered first; the receiver grants it once somebody there has asked for it, and only
 * then its bytes move, in pieces, straight between the two memories. So what was not asked for costs the receiver a header,
 * never the message; and since pieces of all granted messages to a rank wait in one heap, a message of high priority stands
 * behind WINDOW pieces, not behind hundreds of megabytes handed over before it.
 *
 * All that comes in is checked here before it is used. A frame that came before is dropped, as is what belongs to something that has
 * ended; what could not come from a rank in order makes its sender lost. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { WINDOW = 4 /* pieces under way to a rank, or expected of a message */ };

/* ---- objects */

struct out *out_new(struct mxrt_net *n, struct key key, const void *data, size_t bytes,
                    void (*ended)(struct mxrt_net *, struct task *), void *owner) {
    struct out *o = calloc(1, sizeof *o);
    if (o) {
        o->key = key;
        o->data = data;
        o->bytes = bytes;
        o->ended = ended;
        o->owner = owner;
        o->slot = NO_SLOT;
    }
    return o;
}

struct in *in_new(struct mxrt_net *n, struct key key, void *data, size_t bytes,
                  void (*ended)(struct mxrt_net *, struct task *), void *owner) {
    struct in *i = calloc(1, sizeof *i);
    if (i) {
        i->key = key;
        i->data = data;
        i->bytes = bytes;
        i->ended = ended;
        i->owner = owner;
        i->slot = NO_SLOT;
    }
    return i;
}

void out_drop(struct out *o) {
    if (o)
        free(o->message);
    free(o);
}

void in_drop(struct in *i) {
    if (i) {
        free(i->message);
        free(i->eager);
    }
    free(i);
}

#define LINK(list, object)               \
    do {                                 \
        (object)->previous = NULL;       \
        (object)->following = (list);    \
        if (list)                        \
            (list)->previous = (object); \
        (list) = (object);               \
    } while (0)
#define UNLINK(list, object)                                     \
    do {                                                         \
        if ((object)->previous)                                  \
            (object)->previous->following = (object)->following; \
        else                                                     \
            (list) = (object)->following;                        \
        if ((object)->following)                                 \
            (object)->following->previous = (object)->previous;  \
    } while (0)

static void end_out(struct mxrt_net *n, struct out *o, mx_status status, const char *message) {
    UNLINK(n->outs, o);
    if (o->slot != NO_SLOT)
        slots_remove(&n->out_slots, o->slot);
    o->status = status;
    o->message = status != MX_OK ? strdup(message) : NULL;
    net_end(n, &o->task, o->ended);
}

static void end_in(struct mxrt_net *n, struct in *i, mx_status status, const char *message) {
    UNLINK(n->ins, i);
    if (i->slot != NO_SLOT)
        slots_remove(&n->in_slots, i->slot);
    i->status = status;
    i->message = status != MX_OK ? strdup(message) : NULL;
    net_end(n, &i->task, i->ended);
}

void wire_end_all(struct mxrt_net *n) {
    while (n->outs)
        end_out(n, n->outs, MX_ERROR_PEER, n->lost.text);
    match_forget_all(n);
    n->waiting_bytes = 0;
    while (n->ins)
        end_in(n, n->ins, MX_ERROR_PEER, n->lost.text);
    for (int q = 0; q < n->size; q++)
        n->peers[q].granted.count = 0;
}

/* ---- out */

struct saying {
    struct task task;
    int to;
    size_t bytes;
    _Alignas(16) char frame[];
};

static void say(struct mxrt_net *n, struct task *t) {
    struct saying *s = (struct saying *)t;
    if (!n->dead && !n->carrier->operations->send_frame(n->carrier, s->to, s->frame, s->bytes))
        fault_lose(n, n->rank, "no memory for a message to rank %d", s->to);
    free(s);
}

bool wire_flush(struct mxrt_net *n) {
    bool any = n->carries.first != NULL;
    for (struct task *t; (t = tasks_take(&n->carries));)
        t->run(n, t);
    return any;
}

void wire_frame(struct mxrt_net *n, int to, struct frame *f, const void *payload, size_t bytes) {
    struct saying *s = malloc(sizeof *s + sizeof *f + bytes);
    f->magic = FRAME_MAGIC;
    f->sequence = n->peers[to].next_out++;
    if (!s) {
        fault_lose(n, n->rank, "no memory for a message to rank %d", to);
        return;
    }
    *s = (struct saying){.task.run = say, .to = to, .bytes = sizeof *f + bytes};
    memcpy(s->frame, f, sizeof *f);
    if (bytes > 0)
        memcpy(s->frame + sizeof *f, payload, bytes);
    tasks_append(&n->carries, &s->task);
    atomic_fetch_add_explicit(&n->messages, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&n->bytes_sent, sizeof *f + bytes, memory_order_relaxed);
}

void wire_say(struct mxrt_net *n, int to, enum frame_kind kind, uint64_t tag, const char *text) {
    struct frame f = {.kind = (uint8_t)kind, .tag = tag};
    wire_frame(n, to, &f, text, strlen(text));
}

static bool out_before(const void *a, const void *b) {
    const struct out *x = a, *y = b;
    return x->priority != y->priority ? x->priority > y->priority : x->order < y->order;
}

void wire_send(struct mxrt_net *n, struct out *o) {
    struct frame f = {.kind = FRAME_EAGER,
                      .space = (uint8_t)o->key.space,
                      .tag = o->key.tag,
                      .sub = o->key.sub,
                      .check = o->check,
                      .bytes = o->bytes};
    LINK(n->outs, o);
    o->order = n->order++;
    if (o->bytes <= EAGER_BYTES) {
        wire_frame(n, o->key.peer, &f, o->data, o->bytes);
        end_out(n, o, MX_OK, "");
        return;
    }
    o->slot = f.slot = slots_add(&n->out_slots, o);
    if (o->slot == NO_SLOT) {
        fault_lose(n, n->rank, "no memory to send one more message");
        return;
    }
    f.kind = FRAME_OFFER;
    wire_frame(n, o->key.peer, &f, NULL, 0);
}

bool wire_push(struct mxrt_net *n) {
    bool moved = false;
    for (int q = 0; q < n->size; q++) {
        struct peer *p = &n->peers[q];
        while (p->in_flight < WINDOW && p->granted.count > 0) {
            struct out *o = heap_take(&p->granted, out_before);
            size_t bytes = o->bytes - o->started < PIECE_BYTES ? o->bytes - o->started : PIECE_BYTES;
            if (!n->carrier->operations->send_piece(n->carrier, q, o->peer_slot, o->data + o->started, bytes, o)) {
                fault_lose(n, n->rank, "no memory for a message to rank %d", q);
                return true;
            }
            moved = true;
            p->in_flight++;
            o->started += bytes;
            if (o->started < o->bytes)
                (void)heap_put(&p->granted, o, out_before); /* there is room: it was in it */
        }
    }
    return moved;
}

static void piece_sent(void *context, void *cookie, size_t bytes) {
    struct mxrt_net *n = context;
    struct out *o = cookie;
    n->peers[o->key.peer].in_flight--;
    atomic_fetch_add_explicit(&n->bytes_sent, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&n->messages, 1, memory_order_relaxed);
    o->sent += bytes;
    if (o->sent == o->bytes)
        end_out(n, o, MX_OK, "");
}

/* ---- in */

struct posting {
    struct task task;
    uint32_t slot;
};

static void post(struct mxrt_net *n, struct task *t) {
    struct in *i = n->dead ? NULL : slots_get(&n->in_slots, ((struct posting *)t)->slot);
    free(t);
    while (i && i->posted < i->bytes && i->posted - i->received < (size_t)WINDOW * PIECE_BYTES) {
        size_t bytes = i->bytes - i->posted < PIECE_BYTES ? i->bytes - i->posted : PIECE_BYTES;
        if (!n->carrier->operations->receive_piece(n->carrier, i->key.peer, i->slot, i->data + i->posted, bytes, i)) {
            fault_lose(n, n->rank, "no memory for a message from rank %d", i->key.peer);
            return;
        }
        i->posted += bytes;
    }
}

static void post_pieces(struct mxrt_net *n, const struct in *i) {
    struct posting *p = malloc(sizeof *p);
    if (!p) {
        fault_lose(n, n->rank, "no memory for a message from rank %d", i->key.peer);
        return;
    }
    *p = (struct posting){.task.run = post, .slot = i->slot};
    tasks_append(&n->carries, &p->task);
}

void wire_accept(struct mxrt_net *n, struct in *i, void *data) {
    struct frame f = {.kind = FRAME_GRANT, .slot = i->peer_slot};
    i->data = data;
    i->slot = f.other = slots_add(&n->in_slots, i);
    if (i->slot == NO_SLOT) {
        fault_lose(n, n->rank, "no memory for one more message");
        return;
    }
    post_pieces(n, i);
    wire_frame(n, i->key.peer, &f, NULL, 0);
}

void wire_fetch(struct mxrt_net *n, struct in *i, void *data) {
    LINK(n->ins, i);
    wire_accept(n, i, data);
}

void wire_finish(struct mxrt_net *n, struct in *i) {
    end_in(n, i, MX_OK, "");
}

static void piece_received(void *context, void *cookie, size_t bytes) {
    struct mxrt_net *n = context;
    struct in *i = cookie;
    n->peers[i->key.peer].heard = n->now;
    atomic_fetch_add_explicit(&n->bytes_received, bytes, memory_order_relaxed);
    i->received += bytes;
    if (i->received == i->bytes)
        end_in(n, i, MX_OK, "");
    else
        post_pieces(n, i);
}

static struct arrived *keep(const struct frame *f, int from, const void *payload) {
    bool offer = f->kind == FRAME_OFFER;
    struct arrived *a = malloc(sizeof *a + (offer ? 0 : f->bytes));
    if (!a)
        return NULL;
    *a = (struct arrived){.key = {from, (enum space)f->space, f->tag, f->sub},
                          .check = f->check,
                          .offer = offer,
                          .slot = f->slot,
                          .bytes = f->bytes};
    if (!offer && f->bytes > 0)
        memcpy(a->payload, payload, f->bytes);
    return a;
}

/* Receive and message have met: `a` is the message. True: a is taken over. */
static bool meet(struct mxrt_net *n, struct in *i, struct arrived *a) {
    if (a->check != i->check) {
        collective_check_failed(n, i->key.peer, &i->key, i->check, a->check);
        return false;
    }
    if (a->bytes != i->bytes) {
        char text[300];
        (void)snprintf(text, sizeof text, "%s sent %zu bytes under tag %llu where rank %d expects %zu",
                       n->peers[i->key.peer].name, a->bytes, (unsigned long long)i->key.tag, n->rank, i->bytes);
        if (i->key.space != SPACE_MESSAGE) {
            fault_lose(n, i->key.peer, "%s", text);
            return false;
        }
        if (a->offer) {
            struct frame f = {.kind = FRAME_REFUSE, .slot = a->slot};
            wire_frame(n, i->key.peer, &f, text, strlen(text));
        }
        end_in(n, i, MX_ERROR_PEER, text);
        return false;
    }
    i->peer_slot = a->slot;
    if (i->held) {
        i->eager = a->offer ? NULL : a;
        i->held(n, i);
        return !a->offer;
    }
    if (a->offer) {
        wire_accept(n, i, i->data);
    } else {
        if (a->bytes > 0)
            memcpy(i->data, a->payload, a->bytes);
        end_in(n, i, MX_OK, "");
    }
    return false;
}

static size_t cost(const struct arrived *a) {
    return sizeof *a + (a->offer ? 0 : a->bytes);
}

void wire_receive(struct mxrt_net *n, struct in *i) {
    LINK(n->ins, i);
    struct arrived *a = match_take_arrived(n, &i->key);
    if (a) {
        n->waiting_bytes -= cost(a);
        if (!meet(n, i, a))
            free(a);
    } else if (!match_expect(n, i)) {
        fault_lose(n, n->rank, "no memory for one more message");
    }
}

static void message(struct mxrt_net *n, int from, const struct frame *f, const void *payload) {
    struct key key = {from, (enum space)f->space, f->tag, f->sub};
    if (key.space == SPACE_REQUEST) {
        request_arrived(n, from, f, payload);
        return;
    }
    struct in *i = match_take_in(n, &key);
    if (i && f->kind == FRAME_EAGER && !i->held && f->check == i->check && f->bytes == i->bytes) {
        if (f->bytes > 0)
            memcpy(i->data, payload, f->bytes);
        end_in(n, i, MX_OK, "");
        return;
    }
    struct arrived *a = keep(f, from, payload);
    if (!a) {
        fault_lose(n, n->rank, "no memory for a message from rank %d", from);
    } else if (i) {
        if (!meet(n, i, a))
            free(a);
    } else if (n->waiting_bytes + cost(a) > n->memory_limit) {
        free(a);
        fault_lose(n, from, "%s has sent more than %zu bytes of messages that rank %d did not ask for (memory_limit)",
                   n->peers[from].name, n->memory_limit, n->rank);
    } else if (match_keep(n, a)) {
        n->waiting_bytes += cost(a);
    } else {
        free(a);
        fault_lose(n, n->rank, "no memory for a message from rank %d", from);
    }
}

/* A number that an earlier object had: late, and dropped. One that nothing ever had: not from a rank in order. */
static struct out *out_of(struct mxrt_net *n, int from, const struct frame *f) {
    struct out *o = slots_get(&n->out_slots, f->slot);
    if (o ? o->key.peer != from : !slots_ever(&n->out_slots, f->slot)) {
        fault_lose(n, from, "%s answered a message that was not sent to it (number %u)", n->peers[from].name, f->slot);
        return NULL;
    }
    return o;
}

static void text_of(char *text, size_t room, const void *payload, size_t bytes) {
    size_t length = bytes < room - 1 ? bytes : room - 1;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = ((const unsigned char *)payload)[i];
        text[i] = c < ' ' || c == 127 ? '?' : (char)c;
    }
    text[length] = 0;
}

static const char *malformed(const struct mxrt_net *n, const struct frame *f, size_t payload) {
    if (f->magic != FRAME_MAGIC)
        return "it does not begin as one: another version of libmxrt, or another byte order";
    if (f->kind == 0 || f->kind >= FRAME_KINDS)
        return "its kind is unknown";
    if (f->space >= SPACES || f->zero || f->zero2 || f->zero3)
        return "its header has values that are not allowed";
    if (f->kind == FRAME_EAGER && f->bytes != payload)
        return "its length is not what its header says";
    if (f->kind == FRAME_OFFER && (f->bytes <= EAGER_BYTES || f->bytes > PTRDIFF_MAX))
        return "the length that it offers is not allowed";
    if (f->kind == FRAME_GRANT && f->other >> SLOT_BITS)
        return "the number that it grants is not allowed";
    if (f->kind != FRAME_EAGER && f->kind != FRAME_HELLO && f->kind != FRAME_LOST && f->kind != FRAME_REFUSE &&
        payload > 0)
        return "it has bytes where none belong";
    if (f->kind == FRAME_HELLO && f->sequence != 0)
        return "it introduces itself twice";
    if (f->kind != FRAME_HELLO && f->sequence == 0)
        return "it did not introduce itself";
    return NULL;
}

static void frame(void *context, int from, const void *data, size_t bytes) {
    struct mxrt_net *n = context;
    struct peer *p = &n->peers[from];
    struct frame f;
    char text[sizeof(struct mxrt_why)];
    if (n->doomed >= 0)
        return;
    const char *wrong = "it is too short";
    size_t payload = 0;
    if (bytes >= sizeof f) {
        memcpy(&f, data, sizeof f);
        payload = bytes - sizeof f;
        if (f.magic == FRAME_MAGIC && (int32_t)(f.sequence - p->next_in) < 0)
            return; /* repeated */
        wrong = malformed(n, &f, payload);
        if (!wrong && f.sequence != p->next_in)
            wrong = "one before it is missing";
    }
    if (wrong) {
        fault_lose(n, from, "%s sent a malformed message: %s", p->name, wrong);
        return;
    }
    p->next_in++;
    p->heard = n->now;
    atomic_fetch_add_explicit(&n->bytes_received, bytes, memory_order_relaxed);
    const char *content = (const char *)data + sizeof f;
    switch ((enum frame_kind)f.kind) {
    case FRAME_HELLO:
        text_of(text, sizeof text, content, payload);
        (void)snprintf(p->name, sizeof p->name, "rank %d (%.60s, pid %u)", from, text, (unsigned)f.tag);
        p->hello = true;
        pthread_mutex_lock(&n->lock);
        p->space = f.sub;
        p->pid = f.tag <= INT32_MAX ? (int)f.tag : 0;
        p->word_number = p->space && p->space == n->space ? f.check : 0;
        n->hellos++;
        pthread_cond_broadcast(&n->wake);
        pthread_mutex_unlock(&n->lock);
        break;
    case FRAME_EAGER:
    case FRAME_OFFER: message(n, from, &f, content); break;
    case FRAME_GRANT: {
        struct out *o = out_of(n, from, &f);
        if (!o)
            break;
        if (o->granted) {
            fault_lose(n, from, "%s granted a message twice", p->name);
            break;
        }
        o->granted = true;
        o->peer_slot = f.other;
        if (!heap_put(&p->granted, o, out_before))
            fault_lose(n, n->rank, "no memory for a message to rank %d", from);
        break;
    }
    case FRAME_REFUSE: {
        struct out *o = out_of(n, from, &f);
        text_of(text, sizeof text, content, payload);
        if (o && (o->granted || o->key.space != SPACE_MESSAGE))
            fault_lose(n, from, "%s refused a message that it had asked for", p->name);
        else if (o)
            end_out(n, o, MX_ERROR_PEER, text);
        break;
    }
    case FRAME_LOST:
        text_of(text, sizeof text, content, payload);
        fault_told(n, from, f.tag, text);
        break;
    case FRAME_READY:
    case FRAME_START: fast_frame(n, from, &f); break;
    case FRAME_BYE: p->bye = true; break;
    case FRAME_ALIVE:
    case FRAME_KINDS: break;
    }
}

static void broken(void *context, int rank, const char *message) {
    struct mxrt_net *n = context;
    fault_lose(n, rank, "%s: %s", n->peers[rank].name, message);
}

const struct carrier_events wire_events = {
    .frame = frame,
    .piece_sent = piece_sent,
    .piece_received = piece_received,
    .reduced = fast_reduced,
    .broken = broken,
};
