/* Shared by the files of the net. Everything here but `asks` and what is marked atomic belongs to the net's thread. */
#ifndef RUNTIME_NET_INTERNAL_H
#define RUNTIME_NET_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "carrier.h"
#include "mxrt/net.h"
#include "way.h"

/* Something to do on the net's thread, first member of what it is done to. */
struct task {
    struct task *next;
    void (*run)(struct mxrt_net *n, struct task *t);
};

struct tasks {
    struct task *first, *last;
};

static inline void tasks_append(struct tasks *l, struct task *t) {
    t->next = NULL;
    if (l->last)
        l->last->next = t;
    else
        l->first = t;
    l->last = t;
}

static inline struct task *tasks_take(struct tasks *l) {
    struct task *t = l->first;
    if (t && !(l->first = t->next))
        l->last = NULL;
    return t;
}

/* ---- frames, as they go over the wire. All ranks run one program on one kind of machine; `magic` tells when not. */

enum { FRAME_MAGIC = 0x314e584d };
enum frame_kind {
    FRAME_HELLO = 1, /* payload: host; tag: pid; sub: the space it is a number in, or 0; check: where words go, or 0 */
    FRAME_EAGER,     /* a message, with its bytes as payload */
    FRAME_OFFER,     /* a message whose bytes wait at the sender under `slot` */
    FRAME_GRANT,     /* the receiver has room for `slot`: send it as pieces of `other` */
    FRAME_REFUSE,    /* the receiver does not want `slot`; payload: why */
    FRAME_ALIVE,
    FRAME_LOST,  /* rank `tag` is; payload: why */
    FRAME_READY, /* to rank 0: collective `tag` is asked for here, and may be done by the carrier */
    FRAME_START, /* from rank 0: all are ready for it */
    FRAME_BYE,   /* nothing follows */
    FRAME_KINDS
};
/* Whose messages. */
enum space { SPACE_MESSAGE, SPACE_REQUEST, SPACE_COLLECTIVE, SPACE_BARRIER, SPACE_MEASURE, SPACES };

struct frame {
    uint32_t magic;
    uint32_t sequence; /* of frames between two ranks */
    uint8_t kind, space;
    uint16_t zero;
    uint32_t slot;
    uint64_t tag, sub; /* what a message is matched by, with space and sender */
    uint64_t check;    /* must agree between the two that match: what collective it is */
    uint64_t bytes;    /* of the message */
    uint32_t other;
    uint32_t zero2;
    uint64_t zero3;
};
_Static_assert(sizeof(struct frame) == 64, "the payload is aligned");
enum { EAGER_BYTES = FRAME_BYTES - sizeof(struct frame) };

/* ---- messages */

struct key {
    int peer;
    enum space space;
    uint64_t tag, sub;
};

/* On its way out. `task.run` starts it, later it ends it. */
struct out {
    struct task task;
    struct out *previous, *following; /* all of the net's */
    struct key key;
    uint64_t check;
    int priority;
    uint64_t order;
    const char *data;
    size_t bytes, started, sent; /* what the carrier got, and what it is done with */
    uint32_t slot, peer_slot;
    bool granted;
    void (*ended)(struct mxrt_net *n, struct task *t);
    mx_status status;
    char *message; /* malloc, or NULL */
    mxrt_net_done *done;
    void *context;
    void *owner;
    int index; /* the owner's */
};

/* Expected. */
struct in {
    struct task task;
    struct in *previous, *following;
    struct key key;
    struct in *chain; /* in the table of those not matched */
    uint64_t check;
    char *data;
    size_t bytes, posted, received;
    uint32_t slot, peer_slot;
    struct arrived *eager; /* a held one that came as a frame: the bytes */
    void (*held)(struct mxrt_net *n,
                 struct in *i); /* not NULL: it is called when there is a match, and in_accept goes on */
    void (*ended)(struct mxrt_net *n, struct task *t);
    mx_status status;
    char *message;
    mxrt_net_done *done;
    void *context;
    void *owner;
    int index;
};

/* A message, or the offer of one, that nobody has asked for yet. */
struct arrived {
    struct arrived *chain;
    struct key key;
    uint64_t check;
    bool offer;
    uint32_t slot; /* the sender's */
    size_t bytes;
    _Alignas(16) char payload[];
};

/* Numbers that other ranks know objects by. A number is of one object only for a long time: its upper bits change. */
struct slots {
    struct {
        void *object;
        uint32_t turn, next_free;
    } * at;
    uint32_t count, room, first_free;
};

/* Largest first. */
struct heap {
    void **at;
    int count, room;
};

struct request;
struct peer {
    char name[96];  /* "rank 3 (host, pid 17)" */
    uint64_t space; /* of process numbers; 0: unknown */
    int pid;
    uint64_t word_number; /* of its socket for words (word.c); 0: none */
    bool hello;
    atomic_bool bye;            /* the watcher asks, too */
    uint32_t next_out, next_in; /* sequence numbers */
    double heard;
    int in_flight; /* pieces */
    struct heap granted;
    struct request *first_request, *last_request; /* in the order they are to be served */
};

struct mxrt_net {
    struct carrier *carrier;
    int rank, size;
    double timeout;
    size_t memory_limit;
    bool fast;
    struct way_net way; /* what ways are chosen by */
    bool measured;
    struct peer *peers;        /* [size] */
    pthread_t thread, watcher; /* the second one where the carrier may hang */
    bool watched;
    _Atomic uint64_t turns; /* of the thread's loop */
    uint64_t space;         /* of this rank's process number */
    int word_socket;        /* -1 */
    uint64_t word_number;

    pthread_mutex_t lock; /* asks, woken, closing, lost_rank, lost */
    pthread_cond_t wake;
    struct tasks asks;
    bool woken, closing, leaving, finished, taken_over;
    int lost_rank; /* -1 */
    struct mxrt_why lost;

    bool dead;  /* all has ended because of lost_rank */
    int doomed; /* lost, and not dealt with yet; -1 */
    char doom[sizeof(struct mxrt_why)];
    bool said_bye;
    int hellos;
    double now, last_beat, last_look, last_end;
    struct tasks endings;
    struct tasks carries; /* for the carrier: frames, receives of pieces */
    struct out *outs;
    struct in *ins;
    struct slots out_slots, in_slots;
    struct match {
        struct in_bucket {
            struct in *first, *last;
        } * ins;
        struct arrived_bucket {
            struct arrived *first, *last;
        } * arrived; /* both [mask + 1] */
        uint32_t mask, in_count, arrived_count;
    } match;
    size_t waiting_bytes; /* of arrived */
    uint64_t order;
    uint64_t barriers;
    struct {
        mxrt_net_service *f;
        void *context;
    } services[MXRT_NET_SERVICES]; /* under lock */
    int serving;                   /* the service that is being called, or -1; under lock */
    size_t request_bytes;
    struct heap ready; /* chunks that need memory to be summed */
    size_t sum_bytes;
    struct fast *fast_state;

    _Atomic int64_t pending;  /* asked for and not ended */
    _Atomic int64_t alive_ns; /* of mxrt_net_alive; 0: never called */
    _Atomic uint64_t messages, bytes_sent, bytes_received, busy_ns;
};

/* ---- net.c */

/* Without its thread, for tests; `c` belongs to it afterwards, also when it fails. */
mx_status net_new(struct mxrt_net **n, struct carrier *c, const struct mxrt_net_options *options, struct mxrt_why *why);
void net_begin(struct mxrt_net *n); /* first thing on the thread */
void net_drop(struct mxrt_net *n);
mx_status net_create(struct mxrt_net **n, struct carrier *c, const struct mxrt_net_options *options,
                     struct mxrt_why *why);
mx_status net_wait_for_all(struct mxrt_net *n, struct mxrt_why *why);
double net_clock(void);
void net_ask(struct mxrt_net *n, struct task *t); /* from any thread; counts as pending */
/* `done` once, on the net's thread. */
void net_answer(struct mxrt_net *n, mxrt_net_done *done, void *context, mx_status status, const char *format, ...);
void net_end(struct mxrt_net *n, struct task *t, void (*run)(struct mxrt_net *, struct task *)); /* soon */
void net_called(struct mxrt_net *n, mxrt_net_done *done, void *context, mx_status status, const char *message);
bool net_poll(struct mxrt_net *n);
void net_loop(struct mxrt_net *n);
/* For functions that block: `done` with a status that somebody waits for. */
struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool ended;
    mx_status status;
    struct mxrt_why *why;
};
void waiter_begin(struct waiter *w, struct mxrt_why *why);
mx_status waiter_wait(struct waiter *w);
mxrt_net_done waiter_done;

/* ---- threads.c */

mx_status threads_create(struct carrier **carriers, int size, struct mxrt_why *why); /* [size] */

/* ---- match.c */

bool match_begin(struct mxrt_net *n);
void match_clear(struct mxrt_net *n);
bool match_expect(struct mxrt_net *n, struct in *i); /* false: no memory */
void match_forget_all(struct mxrt_net *n);
struct in *match_take_in(struct mxrt_net *n, const struct key *key);
bool match_keep(struct mxrt_net *n, struct arrived *a);
struct arrived *match_take_arrived(struct mxrt_net *n, const struct key *key);

/* ---- slots.c */

enum { SLOT_BITS = 30 };
#define NO_SLOT 0xffffffffu
uint32_t slots_add(struct slots *s, void *object); /* NO_SLOT: no memory, or more than a million */
void *slots_get(const struct slots *s, uint32_t slot);
bool slots_ever(const struct slots *s, uint32_t slot); /* whether such a number was ever given */
void slots_remove(struct slots *s, uint32_t slot);
bool heap_put(struct heap *h, void *object, bool (*before)(const void *, const void *));
void *heap_take(struct heap *h, bool (*before)(const void *, const void *));

/* ---- wire.c */

void wire_frame(struct mxrt_net *n, int to, struct frame *f, const void *payload, size_t bytes);
void wire_say(struct mxrt_net *n, int to, enum frame_kind kind, uint64_t tag, const char *text);
/* What was to be said, to the carrier. The only place, with wire_push, from which it is called while messages move: a carrier that hangs
 * is left in a net whose state is whole. */
bool wire_flush(struct mxrt_net *n);
/* Both take over the object: `ended` gets it back. Not to be called when the net is dead. */
void wire_send(struct mxrt_net *n, struct out *o);
void wire_receive(struct mxrt_net *n, struct in *i);
void wire_accept(struct mxrt_net *n, struct in *i, void *data); /* a held offer, into data */
void wire_fetch(struct mxrt_net *n, struct in *i, void *data);  /* an offer that was not matched: a request's */
void wire_finish(struct mxrt_net *n, struct in *i);             /* a held one that came as a frame */
bool wire_push(struct mxrt_net *n);                             /* pieces to the carrier, as many as may be under way */
void wire_end_all(struct mxrt_net *n);
struct out *out_new(struct mxrt_net *n, struct key key, const void *data, size_t bytes,
                    void (*ended)(struct mxrt_net *, struct task *), void *owner);
struct in *in_new(struct mxrt_net *n, struct key key, void *data, size_t bytes,
                  void (*ended)(struct mxrt_net *, struct task *), void *owner);
void out_drop(struct out *o);
void in_drop(struct in *i);
extern const struct carrier_events wire_events;

/* ---- request.c */

void request_arrived(struct mxrt_net *n, int from, const struct frame *f, const void *payload);
void request_serve(struct mxrt_net *n);
void request_drop_all(struct mxrt_net *n);

/* ---- collective.c: what all kinds share */

enum operation { OP_ALL_REDUCE = 1, OP_REDUCE, OP_BROADCAST, OP_ALL_GATHER };
struct collective {
    struct task task;
    enum operation op;
    uint64_t id, check;
    int priority, root;
    struct mxrt_net_range x;
    size_t element_bytes;
    const void *mine; /* all_gather: x is the result of all */
    mxrt_net_done *done;
    void *context;
    /* stages.c: chunks of the elements, in order */
    struct way way;
    int64_t chunks, next_chunk, ended_chunks;
    bool starting;
    /* tree.c */
    struct tree *tree;
    int waiting;
};
void collective_end(struct mxrt_net *n, struct collective *c); /* frees it */
void collective_check_failed(struct mxrt_net *n, int from, const struct key *key, uint64_t mine, uint64_t theirs);
/* A message of c; NULL, and this rank is to end, without memory. `ended` gets it back. */
struct out *collective_send(struct mxrt_net *n, struct collective *c, int to, uint64_t sub, const void *data,
                            size_t bytes, void (*ended)(struct mxrt_net *, struct task *), void *owner, int index);
struct in *collective_receive(struct mxrt_net *n, struct collective *c, int from, uint64_t sub, void *data,
                              size_t bytes, void (*held)(struct mxrt_net *, struct in *),
                              void (*ended)(struct mxrt_net *, struct task *), void *owner, int index);

/* ---- stages.c */

void stages_start(struct mxrt_net *n, struct collective *c); /* by c->way */
void stages_sum_ready(struct mxrt_net *n);

/* ---- tree.c */

void tree_start(struct mxrt_net *n, struct collective *c);

/* ---- fast.c */

bool fast_start(struct mxrt_net *n, struct collective *c); /* false: the carrier has no sum for it */
void fast_frame(struct mxrt_net *n, int from, const struct frame *f);
void fast_reduced(void *context, void *cookie);
void fast_end_all(struct mxrt_net *n);
void fast_drop(struct mxrt_net *n);

/* ---- word.c */

void word_open(struct mxrt_net *n);
void word_close(struct mxrt_net *n);
void word_leave(struct mxrt_net *n); /* of n->lost_rank, to all whom it can reach */
bool word_waits(const struct mxrt_net *n);
void word_take(struct mxrt_net *n); /* all that wait: fault_told */

/* ---- fault.c */

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
void fault_lose(struct mxrt_net *n, int rank, const char *format, ...); /* soon; the first counts */
void fault_watch(struct mxrt_net *n);
uint64_t fault_space(void);
void *fault_watcher(void *net); /* a thread */
void fault_told(struct mxrt_net *n, int from, uint64_t rank, const char *text);
double fault_next(const struct mxrt_net *n); /* when it wants to look again */

#endif
