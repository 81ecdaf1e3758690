/* Pushes to and pulls from servers. Each is two operations: one asks, and ends when all parts are answered; one copies what came to
 * the outs, on a worker instead of the net's thread. Both belong to a transfer. */
#include <stdlib.h>
#include <string.h>

#include "wire.h"

struct transfer {
    _Atomic int references; /* its operations */
    struct mxrt_kvstore *kv;
    struct entry *e;
    bool is_push, begun;
    bool is_merged; /* the gradient is the entry's own */
    bool is_kept;   /* all outs are */
    int priority;
    struct mxrt_kv_value gradient;
    struct packed packed;
    void **made; /* [place_count]: payloads */
    struct call *call;
    int64_t *ids; /* [rows]: asked for, of all parts */
    int64_t rows;
    int out_count;
    struct mxrt_kv_value outs[];
};

static struct transfer *transfer_new(struct mxrt_kvstore *kv, struct entry *e, const struct mxrt_kv_value *outs,
                                     int out_count, int priority, struct mxrt_why *why) {
    struct transfer *t = calloc(1, sizeof *t + (size_t)out_count * sizeof t->outs[0]);
    if (t) {
        t->call = kv_call_new(kv, e->place_count);
        t->made = calloc((size_t)e->place_count, sizeof *t->made);
    }
    if (!t || !t->call || !t->made) {
        if (t) {
            kv_call_free(t->call);
            free(t->made);
        }
        free(t);
        (void)mxrt_fail(why, MX_ERROR_MEMORY, "no memory to push or pull %s", e->channel.label);
        return NULL;
    }
    atomic_init(&t->references, 1);
    t->kv = kv;
    t->e = e;
    t->priority = priority;
    t->out_count = out_count;
    if (out_count > 0)
        memcpy(t->outs, outs, (size_t)out_count * sizeof *outs);
    return t;
}

static void transfer_drop(void *context) {
    struct transfer *t = context;
    if (atomic_fetch_sub(&t->references, 1) > 1)
        return;
    for (int i = 0; i < t->e->place_count; i++)
        free(t->made[i]);
    free(t->made);
    free(t->packed.memory);
    free(t->ids);
    kv_call_free(t->call);
    free(t);
}

/* The release of the operation that asks. A push that was skipped leaves the other ranks waiting, unless nobody waits. */
static void asked(void *context) {
    struct transfer *t = context;
    if (t->is_push && !t->begun && t->kv->type != KV_DIST_ASYNC)
        kv_client_absent(t->kv, &t->e->channel);
    transfer_drop(t);
}

/* ---- asking */

static void begin_push(void *context, struct mxrt_token token) {
    struct transfer *t = context;
    struct entry *e = t->e;
    struct mxrt_kvstore *kv = t->kv;
    const struct mxrt_kv_value *v = t->is_merged ? &e->merged : &t->gradient;
    struct mxrt_why why;
    t->begun = true;
    t->call->token = token;
    uint32_t round = e->channel.round++;
    mx_status status = kv_pack(kv, &e->channel, v, &t->packed, &why);
    for (int i = 0; i < e->place_count && status == MX_OK; i++) {
        const struct place *p = &e->places[i];
        struct item item = {.kind = ITEM_PUSH,
                            .id = e->channel.id,
                            .round = round,
                            .priority = t->priority,
                            .wants = t->out_count == 0 ? WANTS_NOTHING
                                     : t->is_kept      ? WANTS_CHANGES
                                                       : WANTS_VALUE};
        const void *payload;
        status = kv_pack_part(kv, v, &t->packed, p->first, p->count, &item, &payload, &t->made[i], &why);
        if (status == MX_OK)
            kv_call_send(t->call, i, p->server, &item, payload);
    }
    if (status != MX_OK) { /* the others have this rank's part of the round to wait for */
        kv_call_fail(t->call, status, why.text);
        if (kv->type != KV_DIST_ASYNC)
            kv_client_absent(kv, &e->channel);
    }
    kv_call_end(t->call);
}

static void begin_pull(void *context, struct mxrt_token token) {
    struct transfer *t = context;
    t->begun = true;
    t->call->token = token;
    for (int i = 0; i < t->e->place_count; i++) {
        struct item item = {.kind = ITEM_PULL, .id = t->e->channel.id, .priority = t->priority};
        kv_call_send(t->call, i, t->e->places[i].server, &item, "");
    }
    kv_call_end(t->call);
}

static void begin_pull_rows(void *context, struct mxrt_token token) {
    struct transfer *t = context;
    const struct entry *e = t->e;
    t->begun = true;
    t->call->token = token;
    int64_t at = 0;
    for (int i = 0; i < e->place_count; i++) {
        const struct place *p = &e->places[i];
        int64_t first = p->first / e->row_elements, end = (p->first + p->count) / e->row_elements, from = at;
        while (at < t->rows && t->ids[at] < end)
            at++;
        if (at == from)
            continue;
        int64_t *ids = t->made[i] = malloc((size_t)(at - from) * sizeof *ids);
        if (!ids) {
            kv_call_fail(t->call, MX_ERROR_MEMORY, "no memory for row ids");
            break;
        }
        for (int64_t k = from; k < at; k++)
            ids[k - from] = t->ids[k] - first;
        struct item item = {.kind = ITEM_PULL_ROWS,
                            .id = e->channel.id,
                            .priority = t->priority,
                            .form = FORM_IDS,
                            .rows = at - from,
                            .bytes = (uint64_t)(at - from) * 8};
        kv_call_send(t->call, i, p->server, &item, ids);
    }
    kv_call_end(t->call);
}

/* ---- what came */

static void count_received(const struct transfer *t, uint64_t bytes) {
    pthread_mutex_lock(&t->kv->lock);
    t->kv->statistics.bytes_wanted += (uint64_t)t->e->elements * mxrt_dtype_size(t->e->dtype);
    t->kv->statistics.bytes_received += bytes;
    pthread_mutex_unlock(&t->kv->lock);
}

static void deliver_part(const struct transfer *t, const struct place *place, const struct part *p) {
    const size_t size = mxrt_dtype_size(t->e->dtype), row = (size_t)p->row_elements * size;
    for (int k = 0; k < t->out_count; k++) {
        char *out = (char *)t->outs[k].data + (size_t)place->first * size;
        if (p->form == FORM_DENSE)
            memcpy(out, p->data, (size_t)place->count * size);
        for (int64_t i = 0; p->form == FORM_SPARSE && i < p->rows; i++)
            memcpy(out + (size_t)p->ids[i] * row, (const char *)p->data + (size_t)i * row, row);
    }
}

static mx_status run_deliver(void *context, struct mxrt_why *why) {
    struct transfer *t = context;
    const struct entry *e = t->e;
    uint64_t bytes = 0;
    for (int i = 0; i < e->place_count; i++) {
        const struct place *p = &e->places[i];
        const struct answer *a = &t->call->answers[i];
        const bool by_rows = t->is_kept && a->part.form == FORM_SPARSE;
        mx_status status = kv_call_value(t->call, i, e->channel.label, by_rows ? FORM_SPARSE : FORM_DENSE, e->dtype,
                                         p->count, e->row_elements, why);
        if (status != MX_OK)
            return status;
        deliver_part(t, p, &a->part);
        bytes += a->item.bytes;
    }
    count_received(t, bytes);
    return MX_OK;
}

static mx_status run_deliver_rows(void *context, struct mxrt_why *why) {
    struct transfer *t = context;
    const struct entry *e = t->e;
    struct mxrt_kv_value *out = &t->outs[0];
    size_t row = (size_t)e->row_elements * mxrt_dtype_size(e->dtype);
    int64_t at = 0;
    for (int i = 0; i < e->place_count; i++) {
        if (!t->made[i])
            continue;
        const struct part *p = &t->call->answers[i].part;
        int64_t first = e->places[i].first / e->row_elements, end = at + p->rows;
        mx_status status = kv_call_value(t->call, i, e->channel.label, FORM_SPARSE, e->dtype, e->places[i].count,
                                         e->row_elements, why);
        if (status != MX_OK)
            return status;
        for (int64_t k = at; k < end; k++) {
            if (k >= t->rows || p->ids[k - at] + first != t->ids[k])
                return mxrt_fail(why, MX_ERROR_PEER, "rank %d answered for %s with other rows than were asked for",
                                 e->places[i].server, e->channel.label);
        }
        memcpy((char *)out->data + (size_t)at * row, p->data, (size_t)p->rows * row);
        at = end;
    }
    if (at != t->rows)
        return mxrt_fail(why, MX_ERROR_PEER, "%lld rows of %s came where %lld were asked for", (long long)at,
                         e->channel.label, (long long)t->rows);
    if (at > 0)
        memcpy(out->ids, t->ids, (size_t)at * sizeof *t->ids);
    *out->rows = at;
    count_received(t, (uint64_t)at * (sizeof *t->ids + row));
    return MX_OK;
}

/* ---- pushing the two operations; takes t */

static mx_status push_transfer(struct transfer *t, const char *name, mxrt_op_start_fn *start, mxrt_op_fn *deliver,
                               struct mxrt_var gradient, struct mxrt_why *why) {
    int n = t->out_count, write_count = 0;
    struct mxrt_kvstore *kv = t->kv;
    struct mxrt_var reads[3], *writes = malloc(((size_t)n + 1) * sizeof *writes);
    int read_count = 0;
    mx_status status = writes ? MX_OK : mxrt_fail(why, MX_ERROR_MEMORY, "no memory to push %s", t->e->channel.label);
    if (status == MX_OK) {
        if (t->is_push) {
            reads[read_count++] = gradient;
            writes[write_count++] = t->e->channel.var;
        } else {
            reads[read_count++] = t->e->channel.var;
        }
        for (int i = 0; i < n; i++)
            writes[write_count++] = t->outs[i].variable;
        atomic_fetch_add(&t->references, 1);
        status = kv_push_op(kv,
                            &(struct kv_op){.name = name,
                                            .start = start,
                                            .context = t,
                                            .release = asked,
                                            .reads = reads,
                                            .read_count = read_count,
                                            .writes = writes,
                                            .write_count = write_count,
                                            .priority = t->priority},
                            why);
        if (status != MX_OK)
            transfer_drop(t);
    }
    if (status == MX_OK && n > 0) {
        atomic_fetch_add(&t->references, 1);
        for (int i = 0; i < n; i++)
            writes[i] = t->outs[i].variable;
        status = kv_push_op(kv,
                            &(struct kv_op){.name = "kvstore: deliver",
                                            .run = deliver,
                                            .context = t,
                                            .release = transfer_drop,
                                            .reads = reads,
                                            .writes = writes,
                                            .write_count = n,
                                            .priority = t->priority},
                            why);
        if (status != MX_OK)
            transfer_drop(t);
    }
    free(writes);
    transfer_drop(t);
    return status;
}

mx_status kv_send_push(struct mxrt_kvstore *kv, struct entry *e, const struct kv_source *in,
                       const struct mxrt_kv_value *outs, int out_count, int priority, struct mxrt_why *why) {
    struct transfer *t = transfer_new(kv, e, outs, out_count, priority, why);
    if (!t)
        return MX_ERROR_MEMORY;
    t->is_push = true;
    t->is_kept = e->is_sparse;
    for (int i = 0; i < out_count; i++)
        t->is_kept = t->is_kept && outs[i].is_kept;
    t->is_merged = in->is_merged;
    t->gradient = in->v;
    return push_transfer(t, "kvstore: push", begin_push, run_deliver, in->v.variable, why);
}

mx_status kv_send_pull(struct mxrt_kvstore *kv, struct entry *e, const struct mxrt_kv_value *outs, int out_count,
                       int priority, struct mxrt_why *why) {
    struct transfer *t = transfer_new(kv, e, outs, out_count, priority, why);
    return t ? push_transfer(t, "kvstore: pull", begin_pull, run_deliver, e->channel.var, why) : MX_ERROR_MEMORY;
}

mx_status kv_send_pull_rows(struct mxrt_kvstore *kv, struct entry *e, const struct mxrt_kv_value *out, int64_t *ids,
                            int64_t rows, int priority, struct mxrt_why *why) {
    struct transfer *t = transfer_new(kv, e, out, 1, priority, why);
    if (!t) {
        free(ids);
        return MX_ERROR_MEMORY;
    }
    t->ids = ids;
    t->rows = rows;
    return push_transfer(t, "kvstore: row-sparse pull", begin_pull_rows, run_deliver_rows, e->channel.var, why);
}
