/* Asking: an operation of the engine that sends requests to other ranks and ends when all are answered.
 *
 * Requests are numbered: the place in a table and how often that was used, so that a late or invented reply finds nobody. */
#include <stdlib.h>
#include <string.h>

#include "compress.h"
#include "wire.h"

enum { PLACE_BITS = 20, NOWHERE = (1 << PLACE_BITS) - 1 };

struct request {
    struct call *call; /* NULL: free */
    int part, to;
    uint32_t uses, next_free;
};

/* Under the lock. */
static bool request_new(struct mxrt_kvstore *kv, struct call *c, int part, int to, uint32_t *number) {
    if (kv->request_free == NOWHERE) {
        uint32_t room = 2 * kv->request_room + 64;
        struct request *more = room < NOWHERE ? realloc(kv->requests, room * sizeof *more) : NULL;
        if (!more)
            return false;
        for (uint32_t i = kv->request_room; i < room; i++)
            more[i] = (struct request){.next_free = i + 1 < room ? i + 1 : NOWHERE};
        kv->requests = more;
        kv->request_free = kv->request_room;
        kv->request_room = room;
    }
    uint32_t at = kv->request_free;
    struct request *r = &kv->requests[at];
    kv->request_free = r->next_free;
    *r = (struct request){c, part, to, r->uses + 1, NOWHERE};
    *number = r->uses << PLACE_BITS | at;
    return true;
}

static struct call *request_take(struct mxrt_kvstore *kv, int from, uint32_t number, int *part) {
    uint32_t at = number & NOWHERE;
    struct request *r = at < kv->request_room ? &kv->requests[at] : NULL;
    if (!r || !r->call || r->to != from || (r->uses << PLACE_BITS | at) != number)
        return NULL;
    struct call *c = r->call;
    *part = r->part;
    r->call = NULL;
    r->next_free = kv->request_free;
    kv->request_free = at;
    return c;
}

/* ---- calls */

struct call *kv_call_new(struct mxrt_kvstore *kv, int parts) {
    struct call *c = calloc(1, sizeof *c + (size_t)parts * sizeof c->answers[0]);
    if (c) {
        c->kv = kv;
        c->parts = parts;
        atomic_init(&c->waiting, 1);
    }
    return c;
}

void kv_call_free(struct call *c) {
    for (int i = 0; c && i < c->parts; i++)
        kv_message_drop(c->answers[i].message);
    free(c);
}

void kv_call_fail(struct call *c, mx_status status, const char *text) {
    pthread_mutex_lock(&c->kv->lock);
    if (c->status == MX_OK) {
        c->status = status;
        snprintf(c->text, sizeof c->text, "%s", text);
    }
    pthread_mutex_unlock(&c->kv->lock);
}

void kv_call_drop_one(void *call) {
    struct call *c = call;
    if (atomic_fetch_sub(&c->waiting, 1) == 1)
        (void)mxrt_op_complete(c->kv->engine, c->token, c->status, c->status == MX_OK ? NULL : c->text);
}

void kv_call_end(struct call *c) {
    kv_call_drop_one(c);
}

void kv_call_send(struct call *c, int part, int to, const struct item *item, const void *payload) {
    struct mxrt_kvstore *kv = c->kv;
    struct outgoing o = {.item = *item, .payload = payload, .sent = kv_call_drop_one, .context = c};
    struct mxrt_why why;
    mx_status status = kv_wire_lost(kv, &why);
    if (status == MX_OK) {
        atomic_fetch_add(&c->waiting, 2); /* the answer, and the payload in use */
        pthread_mutex_lock(&kv->lock);
        bool there = !kv->lost && request_new(kv, c, part, to, &o.item.number);
        pthread_mutex_unlock(&kv->lock);
        if (there && kv_wire_send(kv, to, &o))
            return;
        /* Lost just now, or no memory. If it was lost behind request_new, the answer has been given up already. */
        pthread_mutex_lock(&kv->lock);
        if (there && request_take(kv, to, o.item.number, &part))
            there = false;
        pthread_mutex_unlock(&kv->lock);
        atomic_fetch_sub(&c->waiting, there ? 1 : 2);
        if ((status = kv_wire_lost(kv, &why)) == MX_OK)
            status = mxrt_fail(&why, MX_ERROR_MEMORY, "no memory for a request to rank %d", to);
    }
    kv_call_fail(c, status, why.text);
}

static mx_status read_answer(struct answer *a, int from, const struct item *item, const void *payload,
                             struct message *m, struct mxrt_why *why) {
    a->item = *item;
    if (item->kind == ITEM_REFUSED) {
        int bytes = item->form == FORM_TEXT ? (int)item->bytes : 0;
        mx_status status = item->round > MX_OK && item->round <= MX_ERROR_PEER ? (mx_status)item->round : MX_ERROR_PEER;
        return mxrt_fail(why, status, "rank %d: %.*s", from, bytes, bytes ? (const char *)payload : "");
    }
    if (item->kind == ITEM_VALUE) {
        mx_status status = kv_item_open(item, payload, from, &a->part, why);
        if (status != MX_OK)
            return status;
        kv_message_keep(m);
        a->message = m;
    }
    return MX_OK;
}

void kv_client_answer(struct mxrt_kvstore *kv, int from, const struct item *item, const void *payload,
                      struct message *m) {
    int part = 0;
    pthread_mutex_lock(&kv->lock);
    struct call *c = request_take(kv, from, item->number, &part);
    kv->statistics.refused += !c;
    pthread_mutex_unlock(&kv->lock);
    if (!c)
        return;
    struct mxrt_why why;
    mx_status status = read_answer(&c->answers[part], from, item, payload, m, &why);
    if (status != MX_OK)
        kv_call_fail(c, status, why.text);
    kv_call_drop_one(c);
}

void kv_client_stop(struct mxrt_kvstore *kv, mx_status status, const char *text) {
    for (uint32_t at = 0;; at++) {
        int part;
        struct call *c = NULL;
        pthread_mutex_lock(&kv->lock);
        while (at < kv->request_room && !kv->requests[at].call)
            at++;
        bool end = at >= kv->request_room;
        if (!end) {
            struct request *r = &kv->requests[at];
            c = request_take(kv, r->to, r->uses << PLACE_BITS | at, &part);
        }
        pthread_mutex_unlock(&kv->lock);
        if (end)
            return;
        kv_call_fail(c, status, text);
        kv_call_drop_one(c);
    }
}

mx_status kv_call_value(const struct call *c, int part, const char *label, enum item_form form, mx_dtype dtype,
                        int64_t elements, int64_t row_elements, struct mxrt_why *why) {
    const struct answer *a = &c->answers[part];
    const struct part *p = &a->part;
    if (a->item.kind != ITEM_VALUE || p->form != form || p->dtype != dtype || p->elements != elements ||
        (form == FORM_SPARSE && p->row_elements != row_elements))
        return mxrt_fail(why, MX_ERROR_PEER,
                         "the answer for %s has another shape than was asked for: %lld elements of %s", label,
                         (long long)a->item.elements, mxrt_dtype_name((mx_dtype)a->item.dtype));
    return MX_OK;
}

void kv_client_absent(struct mxrt_kvstore *kv, const struct channel *c) {
    char text[300];
    struct mxrt_why why;
    if (kv_wire_lost(kv, &why) != MX_OK)
        return;
    snprintf(text, sizeof text,
             "rank %d has no part in round %u of %s: an operation before it failed, or its engine was shut down",
             kv->rank, c->round, c->label);
    kv_wire_break(kv, text);
}

/* ---- contributions */

mx_status kv_pack(struct mxrt_kvstore *kv, struct channel *c, const struct mxrt_kv_value *v, struct packed *p,
                  struct mxrt_why *why) {
    int64_t n = v->elements;
    size_t before;
    *p = (struct packed){.form = v->is_sparse ? FORM_SPARSE : FORM_DENSE, .data = v->data};
    if (v->is_sparse) {
        mx_status status = kv_check_sparse(c->label, v, why);
        if (status != MX_OK)
            return status;
        p->bytes = (size_t)*v->rows * (8 + (size_t)v->row_elements * mxrt_dtype_size(v->dtype));
        before = (size_t)n * mxrt_dtype_size(v->dtype);
    } else if (kv->compression == MXRT_KV_NONE || v->dtype != MX_F32) {
        before = p->bytes = (size_t)n * mxrt_dtype_size(v->dtype);
    } else {
        if (kv->compression == MXRT_KV_TOP_K && n > UINT32_MAX)
            return mxrt_fail(why, MX_ERROR_SHAPE, "%s has %lld elements; top k has indices of 32 bits", c->label,
                             (long long)n);
        if (!v->residual && c->residual && c->residual_elements != n)
            return mxrt_fail(why, MX_ERROR_SHAPE,
                             "%s has %lld elements, and had %lld before: its residual does not fit", c->label,
                             (long long)n, (long long)c->residual_elements);
        p->form = (enum item_form)(FORM_DENSE + kv->compression);
        p->kept = kv_compress_kept(kv->compression, kv->threshold, n);
        p->bytes = kv_compress_bytes(kv->compression, n, p->kept);
        p->data = p->memory = malloc(p->bytes + 1);
        if (!v->residual && !c->residual) {
            c->residual = calloc((size_t)n + 1, sizeof *c->residual);
            c->residual_elements = n;
        }
        float *residual = v->residual ? v->residual : c->residual;
        if (!p->memory || !residual)
            return mxrt_fail(why, MX_ERROR_MEMORY, "no memory to compress %lld elements", (long long)n);
        kv_compress(kv->compression, kv->threshold, v->data, residual, n, p->kept, p->memory);
        before = (size_t)n * sizeof(float);
    }
    pthread_mutex_lock(&kv->lock);
    kv->statistics.bytes_before += before;
    kv->statistics.bytes_sent += p->bytes;
    pthread_mutex_unlock(&kv->lock);
    return MX_OK;
}

static int64_t first_at_least(const int64_t *ids, int64_t count, int64_t id) {
    int64_t low = 0;
    for (int64_t high = count; low < high;) {
        int64_t middle = low + (high - low) / 2;
        if (ids[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Rows first … of the value, counted from there. */
static mx_status pack_rows(const struct mxrt_kv_value *v, struct item *item, void **made, struct mxrt_why *why) {
    int64_t first = item->rows, rows = item->elements / v->row_elements; /* `rows`: see below */
    size_t row = (size_t)v->row_elements * mxrt_dtype_size(v->dtype);
    int64_t low = first_at_least(v->ids, *v->rows, first), high = first_at_least(v->ids, *v->rows, first + rows);
    item->rows = high - low;
    item->bytes = (uint64_t)item->rows * (8 + row);
    int64_t *ids = *made = malloc((size_t)item->bytes + 1);
    if (!ids)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %lld rows", (long long)item->rows);
    for (int64_t i = 0; i < item->rows; i++)
        ids[i] = v->ids[low + i] - first;
    memcpy(ids + item->rows, (const char *)v->data + (size_t)low * row, (size_t)item->rows * row);
    return MX_OK;
}

/* What was kept of elements first …, counted from there. */
static mx_status pack_top_k(const struct packed *p, int64_t first, struct item *item, void **made,
                            struct mxrt_why *why) {
    const uint32_t *index = p->data;
    const float *value = (const float *)p->data + p->kept;
    int64_t low = 0, high;
    while (low < p->kept && index[low] < first)
        low++;
    for (high = low; high < p->kept && index[high] < first + item->elements;)
        high++;
    item->rows = high - low;
    item->bytes = 8 * (uint64_t)item->rows;
    uint32_t *to = *made = malloc((size_t)item->bytes + 1);
    if (!to)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %lld values", (long long)item->rows);
    for (int64_t i = low; i < high; i++) {
        to[i - low] = index[i] - (uint32_t)first;
        memcpy(&to[item->rows + i - low], &value[i], sizeof value[i]);
    }
    return MX_OK;
}

mx_status kv_pack_part(const struct mxrt_kvstore *kv, const struct mxrt_kv_value *v, const struct packed *p,
                       int64_t first, int64_t count, struct item *item, const void **payload, void **made,
                       struct mxrt_why *why) {
    mx_status status = MX_OK;
    item->dtype = (uint8_t)v->dtype;
    item->form = (uint8_t)p->form;
    item->threshold = kv->threshold;
    item->elements = count;
    item->rows = item->row_elements = 0;
    *made = NULL;
    switch (p->form) {
    case FORM_SPARSE:
        item->row_elements = v->row_elements;
        item->rows = first / v->row_elements;
        status = pack_rows(v, item, made, why);
        *payload = *made;
        break;
    case FORM_TOP_K:
        status = pack_top_k(p, first, item, made, why);
        *payload = *made;
        break;
    case FORM_2BIT:
        *payload = (const char *)p->data + first / 4;
        item->bytes = kv_compress_bytes(MXRT_KV_2BIT, count, 0);
        break;
    case FORM_1BIT:
        *payload = (const char *)p->data + first / 8;
        item->bytes = kv_compress_bytes(MXRT_KV_1BIT, count, 0);
        break;
    case FORM_BF16:
        *payload = (const char *)p->data + 2 * first;
        item->bytes = 2 * (uint64_t)count;
        break;
    default:
        *payload = (const char *)p->data + (size_t)first * mxrt_dtype_size(v->dtype);
        item->bytes = (uint64_t)count * mxrt_dtype_size(v->dtype);
    }
    return status;
}
