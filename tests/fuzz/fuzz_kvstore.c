/* libFuzzer entry: any bytes as what other ranks send to a store that serves three keys. The net is replaced by one that sends nowhere: all
 * that the store sends is read back by its own decoder, and acknowledged. The store refuses or answers, touches no other
 * memory, and ends.
 *
 * The input is a list of records: the rank they come from (1 or 2; 0: this rank pushes a key), the kind of message, a number, two bytes
 * of length, and so many bytes. */
#include <stdlib.h>
#include <string.h>

#include "kvstore/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x) ((x) ? (void)0 : abort())

/* ---- a net of three ranks, of which this is rank 0 */

struct mxrt_net {
    struct mxrt_kvstore *kv;
    mxrt_net_done *watch;
    void *watch_context;
    bool failed;
};

int mxrt_net_rank(const struct mxrt_net *n) {
    return 0;
}

int mxrt_net_size(const struct mxrt_net *n) {
    return 3;
}

static void end_watch(struct mxrt_net *n, mx_status status, const char *text) {
    mxrt_net_done *done = n->watch;
    n->watch = NULL;
    if (done)
        done(n->watch_context, status, text);
}

void mxrt_net_fail(struct mxrt_net *n, const char *message) {
    n->failed = true;
    end_watch(n, MX_ERROR_PEER, message);
}

void mxrt_net_send(struct mxrt_net *n, int to, uint64_t tag, const void *data, size_t bytes, mxrt_net_done *done,
                   void *context) {
    done(context, MX_OK, "");
    end_watch(n, MX_OK, ""); /* the other ranks end with this one */
}

void mxrt_net_receive(struct mxrt_net *n, int from, uint64_t tag, void *data, size_t bytes, mxrt_net_done *done,
                      void *context) {
    n->watch = done;
    n->watch_context = context;
}

mx_status mxrt_net_offer(struct mxrt_net *n, int service, mxrt_net_service *f, void *context, struct mxrt_why *why) {
    n->kv = context;
    return MX_OK;
}

void mxrt_net_release(void *data) {
    free(data);
}

void mxrt_net_request(struct mxrt_net *n, int to, int service, uint64_t word, const void *data, size_t bytes,
                      mxrt_net_done *done, void *context) {
    bool acknowledge = word >> 32 == MESSAGE_PAYLOAD || word >> 32 == MESSAGE_REPLY_PAYLOAD;
    struct mxrt_kvstore *kv = n->kv;
    if (word >> 32 == MESSAGE_BATCH) {
        acknowledge = true;
        for (size_t at = 0; at < bytes;) {
            struct item item;
            const void *payload;
            struct part part;
            struct mxrt_why why;
            CHECK(kv_item_next(data, bytes, &at, &item, &payload, 0, &why) == MX_OK);
            CHECK(item.apart || kv_item_open(&item, payload, 0, &part, &why) == MX_OK);
            acknowledge = acknowledge && !item.apart;
        }
    }
    done(context, MX_OK, "");
    if (acknowledge)
        kv_wire_acknowledged(kv, to);
}

void mxrt_net_all_reduce(struct mxrt_net *n, uint64_t id, int priority, struct mxrt_net_range x, mxrt_net_done *done,
                         void *context) {
    done(context, MX_OK, "");
}

void mxrt_net_broadcast(struct mxrt_net *n, uint64_t id, int priority, int root, struct mxrt_net_range x,
                        mxrt_net_done *done, void *context) {
    done(context, MX_OK, "");
}

void mxrt_net_all_gather(struct mxrt_net *n, uint64_t id, int priority, const void *mine, size_t bytes, void *out,
                         mxrt_net_done *done, void *context) {
    for (int r = 0; r < 3; r++)
        memcpy((char *)out + (size_t)r * bytes, mine, bytes);
    done(context, MX_OK, "");
}

mx_status mxrt_net_barrier(struct mxrt_net *n, struct mxrt_why *why) {
    return n->failed ? mxrt_fail(why, MX_ERROR_PEER, "failed") : MX_OK;
}

mx_status mxrt_net_measure(struct mxrt_net *n, double *latency, double *bandwidth, struct mxrt_why *why) {
    *latency = 1e-6;
    *bandwidth = 1e9;
    return MX_OK;
}

/* ---- */

enum { KEYS = 3, ROWS = 4, ROW = 3 };

static void drop_copy(struct message *m) {
    free(m->data);
}

/* Memory of its own, aligned as the net's, and of exactly the length. */
static void deliver(struct mxrt_kvstore *kv, int from, uint64_t word, const uint8_t *bytes, size_t length) {
    void *copy = aligned_alloc(ITEM_ALIGN, (length + ITEM_ALIGN) / ITEM_ALIGN * ITEM_ALIGN);
    CHECK(copy);
    memcpy(copy, bytes, length);
    kv_wire_receive(kv, from, word, copy, length, drop_copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct mxrt_engine *e; /* for all inputs: the dearest part */
    struct mxrt_kvstore *kv;
    struct mxrt_net net = {0};
    static const int64_t elements[KEYS] = {6, ROWS * ROW, 40};
    float dense[KEYS][64] = {{1}};
    int64_t ids[ROWS] = {0, 2}, rows = 2;
    struct mxrt_kv_value v[KEYS];
    struct mxrt_kv_key keys[KEYS];
    CHECK(e || mxrt_engine_create(&e, &(struct mxrt_engine_options){.threads = 1}, NULL) == MX_OK);
    struct mxrt_kv_options options = {.net = &net, .servers = 1, .bucket = 100};
    CHECK(mxrt_kv_create(&kv, "dist_sync", e, &options, NULL) == MX_OK);
    for (int k = 0; k < KEYS; k++) {
        keys[k] = (struct mxrt_kv_key){.number = k};
        v[k] = (struct mxrt_kv_value){.dtype = MX_F32, .elements = elements[k], .data = dense[k]};
        CHECK(mxrt_var_new(e, NULL, &v[k].variable, NULL) == MX_OK);
    }
    v[1].is_sparse = true;
    v[1].row_elements = ROW;
    v[1].ids = ids;
    v[1].rows = &rows;
    v[1].room = ROWS;
    CHECK(mxrt_kv_init(kv, KEYS, keys, v, NULL) == MX_OK);
    while (size >= 5) {
        int from = data[0] % 3;
        uint64_t word = MESSAGE_WORD(data[1], data[2]);
        size_t length = (size_t)data[3] | (size_t)data[4] << 8;
        data += 5;
        size -= 5;
        length = length < size ? length : size;
        if (from == 0)
            (void)mxrt_kv_push(kv, 1, &keys[word % KEYS], &v[word % KEYS], 0, NULL);
        else if (!net.failed)
            deliver(kv, from, word, data, length);
        data += length;
        size -= length;
    }
    if (!net.failed) /* those of this rank that wait for others have to end */
        mxrt_net_fail(&net, "the input ends");
    (void)mxrt_engine_wait_all(e, NULL);
    mxrt_kv_destroy(kv);
    for (int k = 0; k < KEYS; k++)
        CHECK(mxrt_var_delete(e, v[k].variable, NULL, NULL, NULL) == MX_OK);
    return 0;
}
