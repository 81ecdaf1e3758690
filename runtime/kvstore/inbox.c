/* Receiving: messages of other ranks, taken apart on the net's thread. A payload that travels by itself and its header find
 * each other by number, in whatever order they arrive. What is no message of a store ends the store's talk with all ranks: after
 * it nothing that rank says can be trusted to be complete. */
#include <stdlib.h>

#include "wire.h"

/* One half of an item whose payload travels by itself. */
struct parked {
    struct parked *next;
    int from;
    uint64_t word; /* of the payload's message */
    bool has_item;
    struct item item;
    struct message *message; /* the payload */
    size_t bytes;
};

enum { MAX_PARKED = 64 }; /* halves of a rank; its window allows for a few */

static struct parked *unpark(struct mxrt_kvstore *kv, int from, uint64_t word) {
    for (struct parked **at = &kv->parked; *at; at = &(*at)->next) {
        if ((*at)->from == from && (*at)->word == word) {
            struct parked *p = *at;
            *at = p->next;
            return p;
        }
    }
    return NULL;
}

static int parked_of(const struct mxrt_kvstore *kv, int from) {
    int n = 0;
    for (const struct parked *p = kv->parked; p; p = p->next)
        n += p->from == from;
    return n;
}

static void complete(struct mxrt_kvstore *kv, int from, const struct item *item, struct message *m, size_t bytes) {
    char text[200];
    if (bytes != item->bytes) {
        snprintf(text, sizeof text, "rank %d sent a payload of %zu bytes where its header announced %llu", from, bytes,
                 (unsigned long long)item->bytes);
        kv_wire_break(kv, text);
        return;
    }
    kv_wire_handle(kv, from, item, m->data, m);
    kv_wire_acknowledge(kv, from);
}

/* A half: the other one is here already, or this one waits for it. Gives up the caller's reference of m. */
static void meet(struct mxrt_kvstore *kv, int from, uint64_t word, const struct item *item, struct message *m,
                 size_t bytes) {
    char text[200] = "";
    pthread_mutex_lock(&kv->lock);
    struct parked *p = unpark(kv, from, word);
    if (!p && parked_of(kv, from) < MAX_PARKED && (p = calloc(1, sizeof *p)) != NULL) {
        *p = (struct parked){kv->parked, from, word, item != NULL, item ? *item : (struct item){0}, m, bytes};
        kv->parked = p;
        pthread_mutex_unlock(&kv->lock);
        return;
    }
    pthread_mutex_unlock(&kv->lock);
    if (!p)
        snprintf(text, sizeof text, "rank %d sent payloads and headers that do not belong together", from);
    else if (p->has_item == (item != NULL))
        snprintf(text, sizeof text, "rank %d sent the %s of request %u twice", from, item ? "header" : "payload",
                 (unsigned)word);
    if (text[0])
        kv_wire_break(kv, text);
    else
        complete(kv, from, item ? item : &p->item, item ? p->message : m, item ? p->bytes : bytes);
    if (p)
        kv_message_drop(p->message);
    kv_message_drop(m);
    free(p);
}

static void batch(struct mxrt_kvstore *kv, int from, struct message *m, size_t bytes) {
    struct mxrt_why why;
    bool has_apart = false;
    for (size_t at = 0; at < bytes;) {
        struct item item;
        const void *payload;
        if (kv_item_next(m->data, bytes, &at, &item, &payload, from, &why) != MX_OK) {
            kv_wire_break(kv, why.text);
            return;
        }
        if (item.apart) {
            has_apart = true;
            meet(kv, from, MESSAGE_WORD(item.kind >= ITEM_DONE ? MESSAGE_REPLY_PAYLOAD : MESSAGE_PAYLOAD, item.number),
                 &item, NULL, 0);
        } else {
            kv_wire_handle(kv, from, &item, payload, m);
        }
    }
    if (!has_apart)
        kv_wire_acknowledge(kv, from);
}

void kv_wire_receive(struct mxrt_kvstore *kv, int from, uint64_t word, void *data, size_t bytes,
                     void (*drop)(struct message *m)) {
    char text[120];
    struct message *m = kv_message_new(data, drop);
    if (!m) {
        drop(&(struct message){.data = data});
        kv_wire_break(kv, "no memory for a message that arrived");
        return;
    }
    switch (word >> 32) {
    case MESSAGE_BATCH: batch(kv, from, m, bytes); break;
    case MESSAGE_PAYLOAD:
    case MESSAGE_REPLY_PAYLOAD: meet(kv, from, word, NULL, m, bytes); return;
    case MESSAGE_ACK: kv_wire_acknowledged(kv, from); break;
    default:
        snprintf(text, sizeof text, "rank %d sent a message of an unknown kind, word %llx", from,
                 (unsigned long long)word);
        kv_wire_break(kv, text);
    }
    kv_message_drop(m);
}

static void drop_net(struct message *m) {
    if (m->data)
        mxrt_net_release(m->data);
}

void kv_wire_service(void *context, int from, uint64_t word, void *data, size_t bytes) {
    kv_wire_receive(context, from, word, data, bytes, drop_net);
}

void kv_wire_handle(struct mxrt_kvstore *kv, int from, const struct item *item, const void *payload,
                    struct message *m) {
    if (item->kind >= ITEM_DONE)
        kv_client_answer(kv, from, item, payload, m);
    else
        kv_server_handle(kv, from, item, payload, m);
}

void kv_wire_forget(struct mxrt_kvstore *kv) {
    for (struct parked *p = kv->parked, *next; p; p = next) {
        next = p->next;
        kv_message_drop(p->message);
        free(p);
    }
    kv->parked = NULL;
}
