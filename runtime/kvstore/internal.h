/* What the kvstore's files share. How it works: docs/kvstore.md.
 *
 * Who may touch what:
 *   an operation of the engine   whatever belongs to the variables it reads or writes: an entry's `stored` and `merged`, a
 *                                channel's round and residual, a slot's `stored`
 *   `lock`                       tables of entries, channels, slots, requests; the queues to the other ranks. Held for moments; never
 *                                while the engine, the net or an updater is called
 *   the net's thread             nothing of its own: it hands on under `lock`, and pushes operations */
#ifndef RUNTIME_KVSTORE_INTERNAL_H
#define RUNTIME_KVSTORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <uthash.h>

#include "item.h"
#include "mxrt/array.h"
#include "mxrt/kvstore.h"
#include "mxrt/pool.h"

enum kv_type { KV_LOCAL, KV_DEVICE, KV_DIST_SYNC, KV_DIST_DEVICE_SYNC, KV_DIST_ASYNC };

/* Spaces of ids: of slots, channels and the net's collectives. The lower bits are a key's index or the caller's number. */
enum { KV_ID_BITS = 40 };
#define KV_ID_KEY   (UINT64_C(1) << KV_ID_BITS)
#define KV_ID_USER  (UINT64_C(2) << KV_ID_BITS)
#define KV_ID_STORE (UINT64_C(3) << KV_ID_BITS)
enum { KV_STORE_BIT = 44 };           /* to the net: above it, which of its stores */
#define KV_ID_NET (UINT64_C(1) << 63) /* ids without it are for others that use the net */

/* One after the other, the reductions or pushes of one id, on this rank. */
struct channel {
    uint64_t id;
    char label[72]; /* for messages: "key `w`", "reduction 7" */
    struct mxrt_var var;
    uint32_t round;
    float *residual; /* [residual_elements]; NULL before the first compression */
    int64_t residual_elements;
    UT_hash_handle hh;
};

/* Elements first … first + count of a key are kept by a server. */
struct place {
    int server;
    int64_t first, count;
};

struct entry {
    struct mxrt_kv_key key; /* its own copy of the name */
    struct channel channel;
    int64_t index;        /* in order of init */
    mx_dtype dtype, kept; /* of values; of what is stored: f32 instead of f16 with multi_precision */
    int64_t elements, row_elements;
    bool is_sparse;
    struct mxrt_kv_value stored; /* always dense; data NULL where servers keep it */
    struct mxrt_kv_value merged; /* the sum of a push, on its way; grows as needed */
    float **residuals; /* [residual_count][elements]: of a device store's compression, under merged.variable */
    int residual_count;
    struct place *places; /* [place_count]; where servers keep it */
    int place_count;
    UT_hash_handle hh;
};

struct outbox;
struct slot;
struct request;
struct parked;

struct mxrt_kvstore {
    enum kv_type type;
    struct mxrt_engine *engine;
    struct mxrt_net *net; /* NULL: local */
    int rank, size, servers;
    int64_t big;
    size_t bucket;
    bool multi_precision, is_naive, has_workers; /* the engine is, or has */
    struct mxrt_pool *pool;
    struct mxrt_var alive; /* read by every operation of the store: a write of it comes after all of them */
    enum mxrt_kv_compression compression;
    float threshold;
    mxrt_kv_updater *updater;
    void *updater_context;
    atomic_bool has_pushed;

    pthread_mutex_t lock;
    struct entry *entries;
    int64_t entry_count;
    bool has_names; /* with entries: the keys are names */
    struct channel *channels;
    struct slot *slots;
    uint64_t *server_bytes; /* [servers]: placed so far */
    struct mxrt_kv_statistics statistics;

    /* the wire */
    int service; /* of the net: a store has one */
    bool has_service;
    uint64_t base;            /* of ids given to the net */
    pthread_cond_t quiet;     /* something that destroy waits for has ended */
    struct outbox *outboxes;  /* [size] */
    uint64_t sequence;        /* of what is put into them */
    int64_t sends;            /* requests to the net that have not ended */
    struct request *requests; /* [request_room] */
    uint32_t request_room, request_free;
    struct parked *parked;
    bool lost, watching;
    mx_status lost_status;
    char lost_text[600], farewell;
};

static inline bool kv_has_net(const struct mxrt_kvstore *kv) {
    return kv->net != NULL && kv->size > 1;
}

/* ---- operations */

struct kv_op {
    const char *name;
    mxrt_op_fn *run;
    mxrt_op_start_fn *start;
    void *context;
    void (*release)(void *context);
    struct mxrt_var *reads, *writes; /* reordered; reads have room for one more */
    int read_count, write_count;
    int priority;
};
/* An error means that nothing was pushed, and `release` not called. */
mx_status kv_push_op(struct mxrt_kvstore *kv, const struct kv_op *op, struct mxrt_why *why);
/* `why` or, if that is NULL, somewhere to write to. */
#define WHY(why) ((why) ? (why) : &(struct mxrt_why){""})

/* ---- keys (key.c, init.c) */

/* NULL and a message if there is none, or keys are of the other kind. Takes the lock. */
struct entry *kv_find(struct mxrt_kvstore *kv, struct mxrt_kv_key key, struct mxrt_why *why);
void kv_label(char *label, size_t room, struct mxrt_kv_key key);
mx_status kv_check_key(struct mxrt_kvstore *kv, struct mxrt_kv_key key, struct mxrt_why *why);
/* Whether v is a value at all; then whether it fits the key. `what`: "value", "out". */
mx_status kv_check_value(struct mxrt_kvstore *kv, const char *label, const char *what, const struct mxrt_kv_value *v,
                         struct mxrt_why *why);
mx_status kv_check_fits(const struct entry *e, const char *what, const struct mxrt_kv_value *v, struct mxrt_why *why);
/* Finds or makes the channel of a reduction. */
mx_status kv_channel(struct mxrt_kvstore *kv, uint64_t number, struct channel **channel, struct mxrt_why *why);
void kv_places(struct mxrt_kvstore *kv, struct entry *e); /* under the lock */
void kv_entry_free(struct entry *e);

/* ---- the store's own tensors (tensor.c) */

/* Room for the dense elements, or for so many rows. */
mx_status kv_tensor_dense(struct mxrt_kv_value *t, mx_dtype dtype, int64_t elements, struct mxrt_why *why);
mx_status kv_tensor_sparse(struct mxrt_kv_value *t, mx_dtype dtype, int64_t elements, int64_t row_elements,
                           int64_t rows, struct mxrt_why *why);
void kv_tensor_free(struct mxrt_kv_value *t);
/* Of equal type, or between f32 and a half type. */
void kv_convert(mx_dtype to, void *out, mx_dtype from, const void *in, int64_t elements);
/* Whether the rows of a sparse value are what they must be; its content, so inside operations. */
mx_status kv_check_rows(const int64_t *ids, int64_t rows, int64_t row_count, const char *whose, struct mxrt_why *why);
mx_status kv_check_sparse(const char *label, const struct mxrt_kv_value *v, struct mxrt_why *why);

/* ---- sums within a rank (merge.c) and over ranks (combine.c) */

/* The values [count] in MXNet's order for the type, to *out of type `to`. */
mx_status kv_merge(struct mxrt_kvstore *kv, const char *label, const struct mxrt_kv_value *values, int count,
                   mx_dtype to, struct mxrt_kv_value *out, struct mxrt_why *why);
/* Contributions along the net's binary tree. Dense: to `out` of type `to`, which is that of the parts, or f32. */
mx_status kv_combine_dense(struct mxrt_kvstore *kv, const struct part *parts, int count, mx_dtype to, void *out,
                           struct mxrt_why *why);
/* Union of the rows of parts of one shape; those that lack a row count as zero there. */
mx_status kv_combine_sparse(const struct part *parts, int count, bool tree, mx_dtype to, struct mxrt_kv_value *out,
                            struct mxrt_why *why);
/* fn for ranges of 0 … elements, in parallel if they are many. */
void kv_ranges(struct mxrt_kvstore *kv, int64_t elements, void (*fn)(void *context, int64_t first, int64_t count),
               void *context);

/* Adds `count` values to e->merged, as an operation (local.c). `lossy`: compressed before. */
mx_status kv_push_merge(struct mxrt_kvstore *kv, struct entry *e, const struct mxrt_kv_value *const *values, int count,
                        mx_dtype to, bool lossy, int priority, struct mxrt_why *why);

/* ---- what happens to a merged gradient (apply.c): the updater, or it replaces what is stored */

mx_status kv_apply(struct mxrt_kvstore *kv, struct mxrt_kv_key key, const struct mxrt_kv_value *gradient,
                   struct mxrt_kv_value *stored, struct mxrt_why *why);
/* The gradient becomes what is stored; rows that it lacks become zero. */
void kv_assign(const struct mxrt_kv_value *gradient, struct mxrt_kv_value *stored);

/* ---- which rows of a tensor changed (changes.c): of a server, under its slot's variable */

struct changes;
struct changes *kv_changes_new(int64_t rows, size_t row_bytes, int ranks);
void kv_changes_free(struct changes *c); /* NULL is allowed */
/* Around each update of what is stored. */
void kv_changes_before(struct changes *c, const void *stored);
void kv_changes_after(struct changes *c, const void *stored);
/* How many rows changed since the rank was told, and which, if `ids` is not NULL; -1: more than half of all, or it was never told. */
int64_t kv_changes_since(const struct changes *c, int rank, int64_t *ids);
void kv_changes_told(struct changes *c, int rank); /* it gets all that is stored now */

/* ---- distributed: pushes its operations (reduce.c, push.c) */

/* A contribution: `v` says its shape and variable, and where it is unless it is the entry's `merged`, as that will be then. */
struct kv_source {
    struct mxrt_kv_value v;
    bool is_merged;
};
/* The sum of `in` over all ranks, to `own`, a tensor of the store, or back to `in` if that is NULL. `own` is what is_merged means. */
mx_status kv_reduce(struct mxrt_kvstore *kv, struct channel *channel, const struct kv_source *in,
                    struct mxrt_kv_value *own, int priority, struct mxrt_why *why);
/* To the servers, and the new value back into outs if there are any. */
mx_status kv_send_push(struct mxrt_kvstore *kv, struct entry *e, const struct kv_source *in,
                       const struct mxrt_kv_value *outs, int out_count, int priority, struct mxrt_why *why);
mx_status kv_send_pull(struct mxrt_kvstore *kv, struct entry *e, const struct mxrt_kv_value *outs, int out_count,
                       int priority, struct mxrt_why *why);
/* `ids` sorted, each once; taken over, with malloc. */
mx_status kv_send_pull_rows(struct mxrt_kvstore *kv, struct entry *e, const struct mxrt_kv_value *out, int64_t *ids,
                            int64_t rows, int priority, struct mxrt_why *why);

/* ---- the talk of all ranks that blocks (join.c) */

mx_status kv_join(struct mxrt_kvstore *kv, struct mxrt_why *why);
/* Whether all ranks call with the same digest, and none had an error before: `status` and `why` are this rank's. */
mx_status kv_agree(struct mxrt_kvstore *kv, const char *what, uint64_t digest, mx_status status, struct mxrt_why *why);
uint64_t kv_digest(uint64_t digest, const void *bytes, size_t count); /* begin with 0 */
/* Rank 0's first value, in e->merged, to whoever keeps e. */
mx_status kv_spread(struct mxrt_kvstore *kv, struct entry *e, struct mxrt_why *why);

#endif
