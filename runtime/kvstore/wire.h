/* Between the store's files that talk to other ranks: outbox.c sends, inbox.c receives, client.c asks, server.c answers. */
#ifndef RUNTIME_KVSTORE_WIRE_H
#define RUNTIME_KVSTORE_WIRE_H

#include "internal.h"

/* What arrived, or is to be sent, kept while anybody points into it. */
struct message {
    _Atomic int references;
    void (*drop)(struct message *m); /* gives the data back; m itself is freed behind it */
    void *data;
    void (*sent)(void *context); /* for those that belong to a sender of this rank */
    void *context;
};
struct message *kv_message_new(void *data, void (*drop)(struct message *m));
struct message *kv_message_room(size_t bytes); /* with data of its own; NULL: no memory */
void kv_message_keep(struct message *m);
void kv_message_drop(void *m);

/* ---- outbox.c */

/* `sent` is called once, when the payload may go: when it was copied or sent, or will never be. */
struct outgoing {
    struct item item;
    const void *payload;
    void (*sent)(void *context); /* may be NULL */
    void *context;
    uint64_t sequence;
};
/* False, and nothing done, when there is no memory. To this rank itself: handled before it returns. */
bool kv_wire_send(struct mxrt_kvstore *kv, int to, const struct outgoing *o);
void kv_wire_flush(struct mxrt_kvstore *kv, int to);
/* The store cannot go on with the other ranks: all that is pending ends with this, all that comes later, too. */
void kv_wire_stop(struct mxrt_kvstore *kv, mx_status status, const char *text);
/* wire_stop for what a rank did; the others are told. */
void kv_wire_break(struct mxrt_kvstore *kv, const char *text);
mx_status kv_wire_lost(struct mxrt_kvstore *kv, struct mxrt_why *why);
mx_status kv_wire_open(struct mxrt_kvstore *kv, struct mxrt_why *why);
void kv_wire_close(struct mxrt_kvstore *kv);
void kv_wire_acknowledge(struct mxrt_kvstore *kv, int to);
void kv_wire_acknowledged(struct mxrt_kvstore *kv, int from);
/* A request to the net has ended. */
void kv_wire_ended(struct mxrt_kvstore *kv);

/* ---- inbox.c */

mxrt_net_service kv_wire_service;
/* `data`, malloc's or the net's, is the callee's: `drop` gives it back. */
void kv_wire_receive(struct mxrt_kvstore *kv, int from, uint64_t word, void *data, size_t bytes,
                     void (*drop)(struct message *m));
void kv_wire_handle(struct mxrt_kvstore *kv, int from, const struct item *item, const void *payload, struct message *m);
void kv_wire_forget(struct mxrt_kvstore *kv);

/* ---- client.c: one operation's requests, completed when all are answered */

struct answer {
    struct item item;
    struct part part;
    struct message *message; /* NULL: none came */
};

struct call {
    struct mxrt_kvstore *kv;
    struct mxrt_token token;
    _Atomic int waiting; /* answers, payloads in use, and 1 until call_end */
    mx_status status;    /* the first error; under the lock */
    char text[600];
    int parts;
    struct answer answers[];
};

struct call *kv_call_new(struct mxrt_kvstore *kv, int parts);
void kv_call_free(struct call *c); /* NULL is allowed */
void kv_call_send(struct call *c, int part, int to, const struct item *item, const void *payload);
void kv_call_fail(struct call *c, mx_status status, const char *text);
/* Nothing more will be sent: completes the operation, now or later. The call may be gone when it returns. */
void kv_call_end(struct call *c);
void kv_call_drop_one(void *call); /* one that was waited for has ended */
/* Whether answer `part` is a value of this shape; rows are those of any sparse one. */
mx_status kv_call_value(const struct call *c, int part, const char *label, enum item_form form, mx_dtype dtype,
                        int64_t elements, int64_t row_elements, struct mxrt_why *why);
void kv_client_answer(struct mxrt_kvstore *kv, int from, const struct item *item, const void *payload,
                      struct message *m);
void kv_client_stop(struct mxrt_kvstore *kv, mx_status status, const char *text);
/* What a sum needs of this rank did not come: `because` of an operation that was skipped. The others must not wait for it. */
void kv_client_absent(struct mxrt_kvstore *kv, const struct channel *c);

/* A contribution made ready: as it is, or compressed with the channel's residual, under its variable. `memory`, malloc's, holds
 * what `data` and `ids` point to if they are not the value's. */
struct packed {
    enum item_form form;
    void *memory;
    const void *data;
    int64_t kept; /* top k: how many values */
    size_t bytes;
};
mx_status kv_pack(struct mxrt_kvstore *kv, struct channel *c, const struct mxrt_kv_value *v, struct packed *p,
                  struct mxrt_why *why);
/* The item and payload for elements first … first + count of it; *made, malloc's, holds the payload if it had to be built. */
mx_status kv_pack_part(const struct mxrt_kvstore *kv, const struct mxrt_kv_value *v, const struct packed *p,
                       int64_t first, int64_t count, struct item *item, const void **payload, void **made,
                       struct mxrt_why *why);

/* ---- server.c */

void kv_server_handle(struct mxrt_kvstore *kv, int from, const struct item *item, const void *payload,
                      struct message *m);
/* A part of e that this rank keeps from now on; its stored elements are zero. */
mx_status kv_server_keep(struct mxrt_kvstore *kv, struct entry *e, const struct place *p, struct mxrt_kv_value **stored,
                         struct mxrt_why *why);
void kv_server_stop(struct mxrt_kvstore *kv); /* after a loss */
void kv_server_forget(struct mxrt_kvstore *kv);

#endif
