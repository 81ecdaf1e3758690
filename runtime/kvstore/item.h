/* What ranks say to each other: items, each a header and what the header says follows. Private to the kvstore.
 *
 * A message is either a batch of items, with the payload of a large one left out (`apart`), or such a payload, or an
 * acknowledgement; its word says which. All ranks have one byte order. */
#ifndef RUNTIME_KVSTORE_ITEM_H
#define RUNTIME_KVSTORE_ITEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mxrt/why.h"

enum item_kind {
    ITEM_PUSH = 1, /* a contribution to a key */
    ITEM_PULL,
    ITEM_PULL_ROWS, /* payload: ids */
    ITEM_REDUCE,    /* a contribution to a sum that nobody keeps */
    ITEM_DONE,      /* replies … */
    ITEM_VALUE,
    ITEM_REFUSED, /* payload: a message; `round` is the status */
    ITEM_KINDS
};

enum item_form {
    FORM_NONE, /* no payload */
    FORM_DENSE,
    FORM_2BIT, /* as compress.c has them … */
    FORM_1BIT,
    FORM_BF16,
    FORM_TOP_K,
    FORM_SPARSE, /* ids, then the rows */
    FORM_IDS,
    FORM_TEXT,
    FORMS
};

/* The reply to a contribution: ITEM_DONE, or ITEM_VALUE with all of it or, if it is row-sparse, with the rows that changed since this rank last
 * wanted those. */
enum item_wants { WANTS_NOTHING, WANTS_VALUE, WANTS_CHANGES, WANTS };

struct item {
    uint32_t kind;
    uint32_t number; /* of the request, by the rank that asks; a reply has it, too */
    uint64_t id;     /* of the key or sum */
    uint32_t round;  /* of the id: how many contributions of this rank came before */
    int32_t priority;
    uint8_t dtype, form;
    uint8_t wants; /* enum item_wants */
    uint8_t apart;
    float threshold;
    int64_t elements;           /* of the dense tensor */
    int64_t rows, row_elements; /* sparse; top k: how many values are there */
    uint64_t bytes;             /* of the payload */
};

enum { ITEM_ALIGN = 16 };
/* Numbers of requests are the asking rank's, so those of replies are told apart. */
enum message_kind { MESSAGE_BATCH = 1, MESSAGE_PAYLOAD, MESSAGE_REPLY_PAYLOAD, MESSAGE_ACK };
#define MESSAGE_WORD(kind, number) ((uint64_t)(kind) << 32 | (number))

/* A contribution or value that was checked: may be read without further ado. */
struct part {
    enum item_form form;
    mx_dtype dtype;
    float threshold;
    int64_t elements, rows, row_elements;
    const int64_t *ids;
    const void *data;
};

/* Bytes of a payload; false when the header contradicts itself. */
bool kv_item_payload(const struct item *item, uint64_t *bytes);
/* Whether header and payload are what they say. `from`: the rank that sent it. */
mx_status kv_item_open(const struct item *item, const void *payload, int from, struct part *part, struct mxrt_why *why);
/* The next item of a batch at *at, which moves behind it; payload NULL if it is apart. */
mx_status kv_item_next(const void *batch, size_t bytes, size_t *at, struct item *item, const void **payload, int from,
                       struct mxrt_why *why);
static inline size_t item_padded(size_t bytes) {
    return (bytes + ITEM_ALIGN - 1) / ITEM_ALIGN * ITEM_ALIGN;
}

#endif
