/* What all ranks do together, each waiting for the others: agreeing on options and keys, and spreading first values. */
#include <stdlib.h>
#include <string.h>

#include "wire.h"

#define AGREE  (KV_ID_STORE | 2)
#define SPREAD (KV_ID_STORE | 3)

/* Counts down what was asked of the net. */
struct wait {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    int left;
    mx_status status;
    char text[600];
};

static void wait_begin(struct wait *w) {
    *w = (struct wait){.lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER};
}

static struct wait *wait_one(struct wait *w) {
    pthread_mutex_lock(&w->lock);
    w->left++;
    pthread_mutex_unlock(&w->lock);
    return w;
}

static void one_ended(void *context, mx_status status, const char *message) {
    struct wait *w = context;
    pthread_mutex_lock(&w->lock);
    if (w->status == MX_OK && status != MX_OK) {
        w->status = status;
        snprintf(w->text, sizeof w->text, "%s", message);
    }
    w->left--;
    pthread_cond_broadcast(&w->ended);
    pthread_mutex_unlock(&w->lock);
}

static mx_status wait_end(struct wait *w, struct mxrt_why *why) {
    pthread_mutex_lock(&w->lock);
    while (w->left > 0)
        pthread_cond_wait(&w->ended, &w->lock);
    pthread_mutex_unlock(&w->lock);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->ended);
    return w->status == MX_OK ? MX_OK : mxrt_fail(why, w->status, "%s", w->text);
}

/* ---- agreement */

uint64_t kv_digest(uint64_t digest, const void *bytes, size_t count) { /* FNV-1a */
    const uint8_t *b = bytes;
    uint64_t d = digest ^ UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < count; i++)
        d = (d ^ b[i]) * UINT64_C(0x100000001b3);
    return d;
}

mx_status kv_agree(struct mxrt_kvstore *kv, const char *what, uint64_t digest, mx_status status, struct mxrt_why *why) {
    if (!kv_has_net(kv))
        return status;
    struct vote {
        uint64_t digest, failed;
    } mine = {digest, status != MX_OK}, *all = malloc((size_t)kv->size * sizeof *all);
    struct mxrt_why here = {""};
    struct wait w;
    mx_status talk;
    if (!all) {
        kv_wire_break(kv, "no memory to agree with the other ranks");
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory to agree with the other ranks");
    }
    if ((talk = kv_wire_lost(kv, &here)) == MX_OK) {
        wait_begin(&w);
        mxrt_net_all_gather(kv->net, kv->base | AGREE, 0, &mine, sizeof mine, all, one_ended, wait_one(&w));
        talk = wait_end(&w, &here);
    }
    for (int r = 0; r < kv->size && talk == MX_OK; r++) {
        if (all[r].failed)
            talk = mxrt_fail(&here, MX_ERROR_PEER, "%s failed on rank %d, so it has no effect on the others", what, r);
        else if (all[r].digest != all[0].digest)
            talk = mxrt_fail(&here, MX_ERROR_PEER, "%s: rank %d calls it with other arguments than rank 0", what, r);
    }
    free(all);
    if (status != MX_OK || talk == MX_OK) /* its own error says more */
        return status;
    return mxrt_fail(why, talk, "%s", here.text);
}

mx_status kv_join(struct mxrt_kvstore *kv, struct mxrt_why *why) {
    mx_status status = kv_wire_open(kv, why);
    if (status != MX_OK || kv->size == 1)
        return status;
    int64_t options[] = {(int64_t)kv->type,   kv->servers,         kv->big,
                         (int64_t)kv->bucket, kv->multi_precision, kv->service};
    if ((status = mxrt_net_barrier(kv->net, why)) == MX_OK)
        status = kv_agree(kv, "mxrt_kv_create", kv_digest(0, options, sizeof options), MX_OK, why);
    if (status != MX_OK || kv->bucket > 0)
        return status;
    double latency, bandwidth;
    if ((status = mxrt_net_measure(kv->net, &latency, &bandwidth, why)) != MX_OK)
        return status;
    /* As many bytes as make the latency a tenth of the time they take where one of two ranks adds; of more, one gets those of all. */
    double bytes = 20 * latency * bandwidth / kv->size;
    kv->bucket = bytes < 4096 ? 4096 : bytes > 4e6 ? 4000000 : (size_t)bytes;
    return MX_OK;
}

/* ---- first values */

/* Elements first … of what rank 0 has staged come to `stored` of rank `to`; `to` -1: of all. */
struct spreading {
    struct mxrt_kvstore *kv;
    int to;
    uint64_t index;
};

static mx_status transfer(const struct spreading *s, const void *from, void *to, size_t bytes, struct mxrt_why *why) {
    const struct mxrt_kvstore *kv = s->kv;
    struct wait w;
    if (kv->rank == 0 && (s->to == 0 || to != from) && bytes > 0 && to)
        memcpy(to, from, bytes);
    if (s->to == 0 || kv->size == 1 || bytes == 0)
        return MX_OK;
    wait_begin(&w);
    if (s->to < 0)
        mxrt_net_broadcast(kv->net, kv->base | SPREAD, 0, 0,
                           (struct mxrt_net_range){kv->rank == 0 ? (void *)from : to, (int64_t)bytes, MX_U8}, one_ended,
                           wait_one(&w));
    else if (kv->rank == 0)
        mxrt_net_send(kv->net, s->to, kv->base | SPREAD | s->index << 3, from, bytes, one_ended, wait_one(&w));
    else
        mxrt_net_receive(kv->net, 0, kv->base | SPREAD | s->index << 3, to, bytes, one_ended, wait_one(&w));
    return wait_end(&w, why);
}

static mx_status spread_dense(const struct spreading *s, const struct entry *e, int64_t first,
                              struct mxrt_kv_value *stored, struct mxrt_why *why) {
    size_t size = mxrt_dtype_size(e->kept);
    const char *from = s->kv->rank == 0 ? (const char *)e->merged.data + (size_t)first * size : NULL;
    int64_t count = stored ? stored->elements : 0;
    for (int i = 0; !stored && i < e->place_count; i++) /* rank 0, for a server elsewhere */
        count = e->places[i].first == first ? e->places[i].count : count;
    return transfer(s, from, stored ? stored->data : NULL, (size_t)count * size, why);
}

/* How many rows, which, and what is in them. */
static mx_status spread_sparse(const struct spreading *s, const struct entry *e, int64_t first, int64_t count,
                               struct mxrt_kv_value *stored, struct mxrt_why *why) {
    size_t size = mxrt_dtype_size(e->kept), row = (size_t)e->row_elements;
    int64_t first_row = first / e->row_elements, end = (first + count) / e->row_elements, low = 0, rows = 0;
    const struct mxrt_kv_value *m = &e->merged;
    bool has = s->kv->rank == 0;
    for (int64_t i = 0; has && i < *m->rows; i++) {
        low += m->ids[i] < first_row;
        rows += m->ids[i] >= first_row && m->ids[i] < end;
    }
    int64_t sent_rows = rows;
    mx_status status = transfer(s, &sent_rows, &rows, sizeof rows, why);
    if (status == MX_OK && (rows < 0 || rows > count / e->row_elements))
        status = mxrt_fail(why, MX_ERROR_PEER, "rank 0 sent %lld rows of %s", (long long)rows, e->channel.label);
    if (status != MX_OK)
        return status;
    int64_t *ids = malloc((size_t)rows * 8 + 1);
    char *data = malloc((size_t)rows * row * size + 1);
    if (!ids || !data)
        status = mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %lld rows of %s", (long long)rows, e->channel.label);
    const char *from = has ? (const char *)m->data + (size_t)low * row * size : NULL;
    if (status == MX_OK)
        status = transfer(s, has ? m->ids + low : NULL, ids, (size_t)rows * 8, why);
    if (status == MX_OK)
        status = transfer(s, from, data, (size_t)rows * row * size, why);
    for (int64_t i = 0; i < rows && status == MX_OK; i++)
        ids[i] -= first_row;
    if (status == MX_OK)
        status = kv_check_rows(ids, rows, count / e->row_elements, "rank 0 sent", why);
    if (status == MX_OK && stored) {
        struct mxrt_kv_value v = {.dtype = e->kept,
                                  .elements = count,
                                  .data = data,
                                  .is_sparse = true,
                                  .row_elements = e->row_elements,
                                  .ids = ids,
                                  .rows = &rows,
                                  .room = rows};
        kv_assign(&v, stored);
    }
    free(ids);
    free(data);
    return status;
}

static mx_status spread_part(const struct spreading *s, struct entry *e, const struct place *p,
                             struct mxrt_kv_value *stored, struct mxrt_why *why) {
    return e->is_sparse ? spread_sparse(s, e, p->first, p->count, stored, why)
                        : spread_dense(s, e, p->first, stored, why);
}

mx_status kv_spread(struct mxrt_kvstore *kv, struct entry *e, struct mxrt_why *why) {
    struct spreading s = {kv, -1, (uint64_t)e->index};
    if (kv->servers == 0)
        return spread_part(&s, e, &(struct place){0, 0, e->elements}, &e->stored, why);
    mx_status status = MX_OK;
    for (int i = 0; i < e->place_count && status == MX_OK; i++) {
        const struct place *p = &e->places[i];
        struct mxrt_kv_value *stored = NULL;
        s.to = p->server;
        if (p->server == kv->rank)
            status = kv_server_keep(kv, e, p, &stored, why);
        if (status == MX_OK && (kv->rank == 0 || p->server == kv->rank))
            status = spread_part(&s, e, p, stored, why);
    }
    kv_tensor_free(&e->merged);
    return status;
}
