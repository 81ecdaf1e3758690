/* A store of tensors by key, shared by devices, threads or processes: what they push is summed, what they pull is current.
 * The rules are those of MXNet's KVStore; docs/kvstore.md lists them, and where they differ. Usable without the compiler.
 *
 * Pushes and pulls are operations of the caller's engine: they read or write the variables of the values they name, return
 * at once, and are ordered against everything else pushed there. A status other than MX_OK at the call comes with `why`
 * and means that nothing was pushed; what fails later is an error of the variables, as the engine has it. Functions may
 * be called from any thread, but not from inside operations. */
#ifndef MXRT_KVSTORE_H
#define MXRT_KVSTORE_H

#include "mxrt/engine.h"
#include "mxrt/net.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mxrt_kvstore;

/* Either a number or, if not NULL, a name; the first key decides for the store. */
struct mxrt_kv_key {
    const char *name;
    int64_t number;
};

/* A dense tensor: `elements` of `dtype` at data. Row-sparse: `rows` of them are there, row ids[k] (ascending) at data + k
 * rows; a row has `row_elements`; `elements` counts those of the dense tensor. `variable` stands for it in the engine. */
struct mxrt_kv_value {
    mx_dtype dtype;
    int64_t elements;
    void *data;
    struct mxrt_var variable;
    bool is_sparse;
    int64_t row_elements;
    int64_t *ids;  /* [room] */
    int64_t *rows; /* how many are there; written by pulls */
    int64_t room;  /* rows that ids and data have room for */
    float *
        residual; /* [elements] what compression leaves out of a dense f32 gradient, added to the next; NULL: the store keeps it */
    bool
        is_kept; /* of a dense out of pushpull: nobody but those pushpulls writes it. Then only rows that changed since the last one need to come */
};

enum mxrt_kv_compression { MXRT_KV_NONE, MXRT_KV_2BIT, MXRT_KV_1BIT, MXRT_KV_BF16, MXRT_KV_TOP_K };

/* Applies a merged gradient to what is stored, in place: on the thread of an operation, one call at a time for a key. `stored` is
 * always dense; for a row-sparse key it has `row_elements`. On servers both may be a part of a key that is split, row ids
 * counted from its first row, the same part each time. Every call of the updater for a key on this rank is for the same elements. */
typedef mx_status mxrt_kv_updater(void *context, struct mxrt_kv_key key, const struct mxrt_kv_value *gradient,
                                  struct mxrt_kv_value *stored, struct mxrt_why *why);

struct mxrt_kv_options {
    struct mxrt_net *net; /* for the distributed types; stays the caller's and outlives the store */
    int servers;          /* ranks 0 … servers - 1 also serve; 0: no servers, sums by all-reduce */
    int64_t big_array;    /* elements from which a key is split over all servers and sums use threads; 0: 1,000,000 */
    size_t bucket; /* bytes; what is smaller shares messages, up to that size; 0: from measured latency and bandwidth */
    bool multi_precision; /* of f16 and bf16 keys f32 is stored and given to the updater; values stay f16 and bf16 */
};

/* type: "local", "device", "dist_sync", "dist_device_sync", "dist_async" (needs servers); case does not matter. The engine
 * stays the caller's and outlives the store. With a net, blocks until all ranks have created theirs. */
mx_status mxrt_kv_create(struct mxrt_kvstore **kv, const char *type, struct mxrt_engine *e,
                         const struct mxrt_kv_options *options, struct mxrt_why *why);
void mxrt_kv_destroy(struct mxrt_kvstore *kv); /* waits for its operations, and for the other ranks. NULL is allowed */
const char *mxrt_kv_type(const struct mxrt_kvstore *kv);
int mxrt_kv_rank(const struct mxrt_kvstore *kv);
int mxrt_kv_size(const struct mxrt_kvstore *kv);
/* The rank that keeps a key, or the first part of it; -1: none, or no such key. */
int mxrt_kv_server(struct mxrt_kvstore *kv, struct mxrt_kv_key key);

/* First values; distributed: rank 0's count, and after the return anyone may pull. A key twice is an error. Blocks. */
mx_status mxrt_kv_init(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                       const struct mxrt_kv_value *values, struct mxrt_why *why);
/* Values of equal keys in the lists are summed before the updater sees them. */
mx_status mxrt_kv_push(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                       const struct mxrt_kv_value *values, int priority, struct mxrt_why *why);
/* Into every out. `ignore_sparse`: row-sparse outs are left as they are, else they are an error (use the row-sparse pull). */
mx_status mxrt_kv_pull(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                       const struct mxrt_kv_value *outs, bool ignore_sparse, int priority, struct mxrt_why *why);
/* push, then pull; outs NULL: into the values. Of a row-sparse key into dense outs that are kept, the same ones each time. */
mx_status mxrt_kv_pushpull(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                           const struct mxrt_kv_value *values, const struct mxrt_kv_value *outs, int priority,
                           struct mxrt_why *why);
/* init, then pull. */
mx_status mxrt_kv_broadcast(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                            const struct mxrt_kv_value *values, const struct mxrt_kv_value *outs, int priority,
                            struct mxrt_why *why);
/* Only the rows asked for: outs[i] gets rows row_ids[i][0 … row_counts[i]), sorted, each once. Ids are read at the call. */
mx_status mxrt_kv_row_sparse_pull(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                                  const struct mxrt_kv_value *outs, const int64_t *const *row_ids,
                                  const int64_t *row_counts, int priority, struct mxrt_why *why);

/* The sum over all ranks of a value that no store keeps, in place: what training with an updater on each rank needs. `id`, below
 * 2^32, is the same on all ranks; sums of one id follow each other. Dense values by the net's all-reduce (compressed, if that is set, by
 * gathering what the ranks compressed and adding in order of ranks); row-sparse ones never become dense on the wire, and the
 * result has the union of the rows (an error of the variable if `room` is less). Without a net: nothing to do. */
mx_status mxrt_kv_all_reduce(struct mxrt_kvstore *kv, uint64_t id, const struct mxrt_kv_value *value, int priority,
                             struct mxrt_why *why);

/* Distributed: on the servers, or on all ranks; every rank calls it, and it returns when all have. Before the first push. */
mx_status mxrt_kv_set_updater(struct mxrt_kvstore *kv, mxrt_kv_updater *updater, void *context, struct mxrt_why *why);
/* On all ranks, as the updater. Of dense f32 gradients on their way out, what is lost being added to the next. threshold: 2bit above 0, 1bit any; top_k: the
 * part that is kept, above 0 and at most 1. Cannot be unset. */
mx_status mxrt_kv_set_compression(struct mxrt_kvstore *kv, enum mxrt_kv_compression kind, float threshold,
                                  struct mxrt_why *why);
mx_status mxrt_kv_barrier(struct mxrt_kvstore *kv, struct mxrt_why *why);

struct mxrt_kv_statistics {
    uint64_t pushes, pulls, reductions;
    uint64_t bytes_before,
        bytes_sent; /* of gradients, before and after compression; row-sparse: as dense, and as sent */
    uint64_t bytes_wanted,
        bytes_received; /* of what came back from servers; rows: as the dense tensor, and as they came */
    uint64_t messages;  /* of this rank, for what did not go by the net's collectives */
    uint64_t refused;   /* requests and replies of other ranks that made no sense */
};
struct mxrt_kv_statistics mxrt_kv_statistics(struct mxrt_kvstore *kv);

#ifdef __cplusplus
}
#endif
#endif
