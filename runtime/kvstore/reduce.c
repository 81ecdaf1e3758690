/* Sums over all ranks, in place or into the store's own tensor. Three ways, one result to the bit:
 *
 *   large, dense              the net's all-reduce, from where the value lies
 *   large, dense, compressed  all ranks gather what all have compressed, and each adds it up
 *   small, or row-sparse      a rank chosen by the id adds what the others send it as items, which share messages (outbox.c); a large
 *                             row-sparse one is split over all ranks by rows, like a key over servers
 *
 * Large is from `bucket` bytes, which all ranks agree on, so that they take the same way. */
#include <stdlib.h>
#include <string.h>

#include "../net/sum.h"
#include "wire.h"

enum way { ALL_REDUCE, ALL_GATHER, ITEMS };

struct reduction {
    _Atomic int references; /* its operations */
    struct mxrt_kvstore *kv;
    struct channel *channel;
    struct mxrt_kv_value in;   /* where it lies, unless that is `own` */
    struct mxrt_kv_value *own; /* the store's tensor, which grows; NULL: the sum goes back to `in` */
    bool in_is_own, begun;
    enum way way;
    int priority, parts;
    struct mxrt_token token;
    struct packed packed;
    char *all;   /* [size * packed.bytes] */
    void **made; /* [parts] */
    struct call *call;
};

static const struct mxrt_kv_value *source(const struct reduction *r) {
    return r->in_is_own ? r->own : &r->in;
}

static struct mxrt_kv_value *target(struct reduction *r) {
    return r->own ? r->own : &r->in;
}

static void reduction_drop(void *context) {
    struct reduction *r = context;
    if (atomic_fetch_sub(&r->references, 1) > 1)
        return;
    for (int i = 0; r->made && i < r->parts; i++)
        free(r->made[i]);
    free(r->made);
    free(r->packed.memory);
    free(r->all);
    kv_call_free(r->call);
    free(r);
}

static void asked(void *context) {
    struct reduction *r = context;
    if (!r->begun)
        kv_client_absent(r->kv, r->channel);
    reduction_drop(r);
}

/* ---- who adds what */

/* Rows, and so elements, of part i. */
static struct place place_of(const struct reduction *r, const struct mxrt_kv_value *v, int i) {
    int64_t unit = v->is_sparse ? v->row_elements : v->elements > 0 ? v->elements : 1, units = v->elements / unit;
    int64_t first = units / r->parts * i + (i < units % r->parts ? i : units % r->parts);
    int64_t count = units / r->parts + (i < units % r->parts);
    return (struct place){(int)((r->channel->id * 9973 + (uint64_t)i) % (uint64_t)r->kv->size), first * unit,
                          count * unit};
}

static void done(void *context, mx_status status, const char *message) {
    struct reduction *r = context;
    (void)mxrt_op_complete(r->kv->engine, r->token, status, status == MX_OK ? NULL : message);
}

static mx_status begin_all_reduce(struct reduction *r, struct mxrt_why *why) {
    const struct mxrt_kv_value *v = source(r);
    struct mxrt_kv_value *out = target(r);
    mx_status status = MX_OK;
    if (r->own && !r->in_is_own)
        status = kv_tensor_dense(r->own, v->dtype, v->elements, why);
    if (status != MX_OK)
        return status;
    if (out->data != v->data)
        memcpy(out->data, v->data, (size_t)v->elements * mxrt_dtype_size(v->dtype));
    size_t bytes = (size_t)v->elements * mxrt_dtype_size(v->dtype);
    pthread_mutex_lock(&r->kv->lock);
    r->kv->statistics.bytes_before += bytes;
    r->kv->statistics.bytes_sent += bytes;
    pthread_mutex_unlock(&r->kv->lock);
    mxrt_net_all_reduce(r->kv->net, r->kv->base | r->channel->id, r->priority,
                        (struct mxrt_net_range){out->data, v->elements, v->dtype}, done, r);
    return MX_OK;
}

static mx_status begin_all_gather(struct reduction *r, struct mxrt_why *why) {
    mx_status status = kv_pack(r->kv, r->channel, source(r), &r->packed, why);
    if (status != MX_OK)
        return status;
    r->all = malloc((size_t)r->kv->size * r->packed.bytes + 1);
    if (!r->all)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for what %d ranks send for %s", r->kv->size,
                         r->channel->label);
    mxrt_net_all_gather(r->kv->net, r->kv->base | r->channel->id, r->priority, r->packed.data, r->packed.bytes, r->all,
                        done, r);
    return MX_OK;
}

static mx_status begin_items(struct reduction *r, uint32_t round, struct mxrt_why *why) {
    const struct mxrt_kv_value *v = source(r);
    mx_status status = kv_pack(r->kv, r->channel, v, &r->packed, why);
    for (int i = 0; i < r->parts && status == MX_OK; i++) {
        struct place p = place_of(r, v, i);
        struct item item = {
            .kind = ITEM_REDUCE, .id = r->channel->id, .round = round, .priority = r->priority, .wants = WANTS_VALUE};
        const void *payload;
        status = kv_pack_part(r->kv, v, &r->packed, p.first, p.count, &item, &payload, &r->made[i], why);
        if (status == MX_OK)
            kv_call_send(r->call, i, p.server, &item, payload);
    }
    if (status != MX_OK) {
        kv_call_fail(r->call, status, why->text);
        kv_client_absent(r->kv, r->channel);
    }
    kv_call_end(r->call);
    return MX_OK;
}

static void begin(void *context, struct mxrt_token token) {
    struct reduction *r = context;
    struct mxrt_why why;
    mx_status status = MX_OK;
    uint32_t round = r->channel->round++;
    r->begun = true;
    r->token = token;
    switch (r->way) {
    case ALL_REDUCE: status = begin_all_reduce(r, &why); break;
    case ALL_GATHER: status = begin_all_gather(r, &why); break;
    case ITEMS:
        r->call->token = token;
        status = begin_items(r, round, &why);
        break;
    }
    if (status != MX_OK) {
        kv_client_absent(r->kv, r->channel);
        done(r, status, why.text);
    }
}

/* ---- what came */

static mx_status deliver_gathered(struct reduction *r, struct mxrt_why *why) {
    const struct mxrt_kv_value *v = &r->in;
    struct mxrt_kv_value *out = target(r);
    mx_status status = r->own ? kv_tensor_dense(r->own, MX_F32, v->elements, why) : MX_OK;
    struct part *parts = malloc((size_t)r->kv->size * sizeof *parts);
    if (!parts)
        status = mxrt_fail(why, MX_ERROR_MEMORY, "no memory to add what %d ranks sent", r->kv->size);
    for (int i = 0; i < r->kv->size && status == MX_OK; i++) {
        struct item item = {.form = (uint8_t)r->packed.form,
                            .dtype = MX_F32,
                            .threshold = r->kv->threshold,
                            .elements = v->elements,
                            .rows = r->packed.kept};
        status = kv_item_open(&item, r->all + (size_t)i * r->packed.bytes, i, &parts[i], why);
    }
    if (status == MX_OK)
        status = kv_combine_dense(r->kv, parts, r->kv->size, MX_F32, out->data, why);
    free(parts);
    return status;
}

static mx_status deliver_rows(struct reduction *r, struct mxrt_why *why) {
    const struct mxrt_kv_value *v = &r->in;
    struct mxrt_kv_value *out = target(r);
    size_t row = (size_t)v->row_elements * mxrt_dtype_size(v->dtype);
    int64_t total = 0, at = 0;
    for (int i = 0; i < r->parts; i++) {
        mx_status status = kv_call_value(r->call, i, r->channel->label, FORM_SPARSE, v->dtype, place_of(r, v, i).count,
                                         v->row_elements, why);
        if (status != MX_OK)
            return status;
        total += r->call->answers[i].part.rows;
    }
    if (r->own) {
        mx_status status = kv_tensor_sparse(r->own, v->dtype, v->elements, v->row_elements, total, why);
        if (status != MX_OK)
            return status;
    } else if (total > out->room) {
        return mxrt_fail(why, MX_ERROR_SHAPE, "the sum of %s has %lld rows; the value has room for %lld",
                         r->channel->label, (long long)total, (long long)out->room);
    }
    for (int i = 0; i < r->parts; i++) {
        const struct part *p = &r->call->answers[i].part;
        int64_t first = place_of(r, v, i).first / v->row_elements;
        for (int64_t k = 0; k < p->rows; k++)
            out->ids[at + k] = p->ids[k] + first;
        memcpy((char *)out->data + (size_t)at * row, p->data, (size_t)p->rows * row);
        at += p->rows;
    }
    *out->rows = total;
    return MX_OK;
}

static mx_status run_deliver(void *context, struct mxrt_why *why) {
    struct reduction *r = context;
    const struct mxrt_kv_value *v = &r->in;
    if (r->way == ALL_GATHER)
        return deliver_gathered(r, why);
    if (v->is_sparse)
        return deliver_rows(r, why);
    mx_status status = kv_call_value(r->call, 0, r->channel->label, FORM_DENSE, v->dtype, v->elements, 0, why);
    if (status == MX_OK && r->own)
        status = kv_tensor_dense(r->own, v->dtype, v->elements, why);
    if (status == MX_OK)
        memcpy(target(r)->data, r->call->answers[0].part.data, (size_t)v->elements * mxrt_dtype_size(v->dtype));
    return status;
}

/* ---- */

static enum way choose(const struct mxrt_kvstore *kv, const struct mxrt_kv_value *v) {
    if (v->is_sparse || (size_t)v->elements * mxrt_dtype_size(v->dtype) < kv->bucket)
        return ITEMS;
    return kv->compression != MXRT_KV_NONE && v->dtype == MX_F32 ? ALL_GATHER : ALL_REDUCE;
}

static struct reduction *reduction_new(struct mxrt_kvstore *kv, struct channel *c, const struct kv_source *in,
                                       struct mxrt_kv_value *own, int priority) {
    struct reduction *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    atomic_init(&r->references, 1);
    r->kv = kv;
    r->channel = c;
    r->in = in->v;
    r->in_is_own = in->is_merged;
    r->own = own;
    r->priority = priority;
    r->way = choose(kv, &in->v);
    r->parts = in->v.is_sparse && in->v.elements >= kv->big ? kv->size : 1;
    r->made = calloc((size_t)r->parts, sizeof *r->made);
    r->call = r->way == ITEMS ? kv_call_new(kv, r->parts) : NULL;
    if (!r->made || (r->way == ITEMS && !r->call)) {
        reduction_drop(r);
        return NULL;
    }
    return r;
}

mx_status kv_reduce(struct mxrt_kvstore *kv, struct channel *channel, const struct kv_source *in,
                    struct mxrt_kv_value *own, int priority, struct mxrt_why *why) {
    struct reduction *r = reduction_new(kv, channel, in, own, priority);
    if (!r)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %s", channel->label);
    struct mxrt_var out = own ? own->variable : in->v.variable, reads[2] = {in->v.variable},
                    writes[2] = {out, channel->var};
    atomic_fetch_add(&r->references, 1);
    mx_status status = kv_push_op(kv,
                                  &(struct kv_op){.name = "kvstore: reduce",
                                                  .start = begin,
                                                  .context = r,
                                                  .release = asked,
                                                  .reads = reads,
                                                  .read_count = 1,
                                                  .writes = writes,
                                                  .write_count = 2,
                                                  .priority = priority},
                                  why);
    if (status != MX_OK)
        reduction_drop(r);
    if (status == MX_OK && r->way != ALL_REDUCE) {
        writes[0] = out;
        atomic_fetch_add(&r->references, 1);
        status = kv_push_op(kv,
                            &(struct kv_op){.name = "kvstore: deliver",
                                            .run = run_deliver,
                                            .context = r,
                                            .release = reduction_drop,
                                            .reads = reads,
                                            .writes = writes,
                                            .write_count = 1,
                                            .priority = priority},
                            why);
        if (status != MX_OK)
            reduction_drop(r);
    }
    if (status == MX_OK) {
        pthread_mutex_lock(&kv->lock);
        kv->statistics.reductions++;
        pthread_mutex_unlock(&kv->lock);
    }
    reduction_drop(r);
    return status;
}
