/* Answering: what this rank keeps for others, and sums it makes for them.
 *
 * A slot is a part of a key, or a sum that nobody keeps. Synchronous slots go in rounds: a round has one contribution of every rank;
 * the last one to arrive starts an operation that adds them in order of ranks, lets the updater at what is stored, and only then
 * answers all. Adding what arrives, in the order of arrival, would be simpler and give other bits each time. An asynchronous
 * slot has an operation for each contribution. All of a slot's operations write its variable, pulls read it.
 *
 * Contributions are compared with the slot and with the round first. One of the wrong shape ends its round, for all ranks, with a
 * message that names who sent it; one that is late or repeated is refused and changes nothing. */
#include <stdlib.h>
#include <string.h>

#include "wire.h"

struct contribution {
    struct item item;
    struct part part;
    int from;
    bool refused;
    struct message *message;
};

struct slot {
    uint64_t id;
    char label[72];
    struct entry *entry; /* NULL: a sum that nobody keeps */
    struct mxrt_var var;
    mx_dtype dtype;
    int64_t elements, row_elements; /* row_elements 0: dense */
    struct mxrt_kv_value stored, sum;
    struct changes *changes; /* NULL until a rank wants them */
    UT_hash_handle hh;
    /* under the lock */
    int arrived;
    char failed[600];        /* the round: why */
    uint32_t *rounds;        /* [size]: contributions of each rank so far */
    struct contribution *in; /* [size]: of the round */
    bool *has;               /* [size] */
};

/* ---- replies */

static bool reply(struct mxrt_kvstore *kv, int to, const struct item *to_what, const struct item *item,
                  const void *payload, void (*sent)(void *context), void *context) {
    struct outgoing o = {.item = *item, .payload = payload, .sent = sent, .context = context};
    o.item.number = to_what->number;
    o.item.id = to_what->id;
    o.item.priority = to_what->priority;
    if (kv_wire_send(kv, to, &o))
        return true;
    kv_wire_break(kv, "no memory for a reply");
    return false;
}

static void refuse(struct mxrt_kvstore *kv, int to, const struct item *to_what, mx_status status, const char *text) {
    pthread_mutex_lock(&kv->lock);
    kv->statistics.refused++;
    pthread_mutex_unlock(&kv->lock);
    size_t bytes = strlen(text) < 500 ? strlen(text) : 500;
    struct message *m = kv_message_room(bytes);
    if (m)
        memcpy(m->data, text, bytes);
    struct item item = {
        .kind = ITEM_REFUSED, .round = (uint32_t)status, .form = FORM_TEXT, .rows = (int64_t)bytes, .bytes = bytes};
    if (!m)
        item.rows = 0, item.bytes = 0;
    if (!reply(kv, to, to_what, &item, m ? m->data : "", m ? kv_message_drop : NULL, m))
        kv_message_drop(m);
}

/* A copy of the dense elements, of the outside type; for several replies. */
static struct message *copy_value(const struct slot *s, const struct mxrt_kv_value *v) {
    struct message *m = kv_message_room((size_t)s->elements * mxrt_dtype_size(s->dtype));
    if (m)
        kv_convert(s->dtype, m->data, v->dtype, v->data, s->elements);
    return m;
}

static struct item value_item(const struct slot *s) {
    return (struct item){.kind = ITEM_VALUE,
                         .dtype = (uint8_t)s->dtype,
                         .form = FORM_DENSE,
                         .elements = s->elements,
                         .bytes = (uint64_t)s->elements * mxrt_dtype_size(s->dtype)};
}

/* `rows` rows of what is stored. */
static struct item rows_item(const struct slot *s, int64_t rows) {
    struct item item = value_item(s);
    item.form = FORM_SPARSE;
    item.rows = rows;
    item.row_elements = s->row_elements;
    item.bytes = (uint64_t)rows * (8 + (size_t)s->row_elements * mxrt_dtype_size(s->dtype));
    return item;
}

/* Behind their ids, which are there. */
static void copy_rows(const struct slot *s, int64_t rows, struct message *m) {
    const size_t row = (size_t)s->row_elements * mxrt_dtype_size(s->dtype);
    const size_t stored_row = (size_t)s->row_elements * mxrt_dtype_size(s->stored.dtype);
    const int64_t *ids = m->data;
    char *data = (char *)m->data + (size_t)rows * sizeof *ids;
    for (int64_t i = 0; i < rows; i++)
        kv_convert(s->dtype, data + (size_t)i * row, s->stored.dtype,
                   (const char *)s->stored.data + (size_t)ids[i] * stored_row, s->row_elements);
}

/* Whether what is stored is sent to a rank without a copy, which holds up the next write until it is sent. To this rank itself it would
 * be until all other parts have come, too: with two servers that wait for each other's part, and a push between, for ever.
 * With a naive engine the net's thread would wait, in its next push on the slot, for what it alone does; without workers what was held up
 * would wait for the next push. */
static bool goes_as_it_lies(const struct mxrt_kvstore *kv, const struct slot *s, int to) {
    return s->stored.dtype == s->dtype && value_item(s).bytes >= kv->bucket && to != kv->rank && kv->has_workers;
}

static void reply_shared(struct mxrt_kvstore *kv, int to, const struct item *to_what, const struct item *item,
                         struct message *m) {
    kv_message_keep(m);
    if (!reply(kv, to, to_what, item, m->data, kv_message_drop, m))
        kv_message_drop(m);
}

/* ---- pulls: operations that read the slot */

struct answering {
    struct mxrt_kvstore *kv;
    struct slot *slot;
    struct item item;
    int to;
    bool done;
    struct mxrt_token token;
    struct message *ids; /* keeps `rows` */
    struct part rows;
};

static void answering_free(void *context) {
    struct answering *a = context;
    if (!a->done)
        refuse(a->kv, a->to, &a->item, MX_ERROR_PEER, "the engine of the server was shut down");
    kv_message_drop(a->ids);
    free(a);
}

static void answer_sent(void *context) {
    struct answering *a = context;
    (void)mxrt_op_complete(a->kv->engine, a->token, MX_OK, NULL);
}

/* What is stored goes out as it lies there, and is not written until it is gone. */
static void start_answer(void *context, struct mxrt_token token) {
    struct answering *a = context;
    struct item item = value_item(a->slot);
    a->token = token;
    a->done = true;
    if (!reply(a->kv, a->to, &a->item, &item, a->slot->stored.data, answer_sent, a))
        answer_sent(a);
}

static mx_status run_answer(void *context, struct mxrt_why *why) {
    struct answering *a = context;
    struct item item = value_item(a->slot);
    struct message *m = copy_value(a->slot, &a->slot->stored);
    a->done = true;
    if (m)
        reply_shared(a->kv, a->to, &a->item, &item, m);
    else
        refuse(a->kv, a->to, &a->item, MX_ERROR_MEMORY, "no memory for the value");
    kv_message_drop(m);
    return MX_OK;
}

static mx_status run_answer_rows(void *context, struct mxrt_why *why) {
    struct answering *a = context;
    const struct slot *s = a->slot;
    struct item item = rows_item(s, a->rows.rows);
    struct message *m = kv_message_room((size_t)item.bytes);
    a->done = true;
    if (!m) {
        refuse(a->kv, a->to, &a->item, MX_ERROR_MEMORY, "no memory for the rows");
        return MX_OK;
    }
    if (item.rows > 0)
        memcpy(m->data, a->rows.ids, (size_t)item.rows * sizeof *a->rows.ids);
    copy_rows(s, item.rows, m);
    reply_shared(a->kv, a->to, &a->item, &item, m);
    kv_message_drop(m);
    return MX_OK;
}

static void push_answer(struct mxrt_kvstore *kv, struct slot *s, int to, const struct item *item,
                        const struct part *rows, struct message *ids) {
    struct answering *a = calloc(1, sizeof *a);
    struct mxrt_why why = {"no memory for a pull"};
    if (!a) {
        refuse(kv, to, item, MX_ERROR_MEMORY, why.text);
        return;
    }
    *a = (struct answering){.kv = kv, .slot = s, .item = *item, .to = to};
    if (rows) {
        kv_message_keep(ids);
        a->ids = ids;
        a->rows = *rows;
    }
    bool lies = !rows && goes_as_it_lies(kv, s, to);
    struct mxrt_var reads[2] = {s->var};
    mx_status status = kv_push_op(kv,
                                  &(struct kv_op){.name = "kvstore: answer",
                                                  .run = rows   ? run_answer_rows
                                                         : lies ? NULL
                                                                : run_answer,
                                                  .start = lies ? start_answer : NULL,
                                                  .context = a,
                                                  .release = answering_free,
                                                  .reads = reads,
                                                  .read_count = 1,
                                                  .priority = item->priority},
                                  &why);
    if (status != MX_OK) {
        a->done = true;
        answering_free(a);
        refuse(kv, to, item, status, why.text);
    }
}

/* ---- rounds */

struct round {
    struct mxrt_kvstore *kv;
    struct slot *slot;
    bool ran;
    int count;
    char failed[600];
    struct contribution in[];
};

static void refuse_all(struct round *r, mx_status status, const char *text) {
    for (int i = 0; i < r->count; i++) {
        if (!r->in[i].refused)
            refuse(r->kv, r->in[i].from, &r->in[i].item, status, text);
    }
}

static void round_free(void *context) {
    struct round *r = context;
    if (!r->ran)
        refuse_all(r, MX_ERROR_PEER, "the engine of the server was shut down");
    for (int i = 0; i < r->count; i++)
        kv_message_drop(r->in[i].message);
    free(r);
}

/* One contribution that may be used where it arrived is; else they are added to slot->sum, of type `to`. */
static mx_status add(struct round *r, mx_dtype to, const struct part *parts, struct mxrt_kv_value *sum, int64_t *rows,
                     struct mxrt_why *why) {
    struct slot *s = r->slot;
    const struct part *p = &parts[0];
    if (r->count == 1 && p->dtype == to && (p->form == FORM_DENSE || p->form == FORM_SPARSE)) {
        *rows = p->rows;
        *sum = (struct mxrt_kv_value){.dtype = to,
                                      .elements = p->elements,
                                      .data = (void *)p->data,
                                      .is_sparse = p->form == FORM_SPARSE,
                                      .row_elements = p->row_elements,
                                      .ids = (int64_t *)p->ids,
                                      .rows = rows,
                                      .room = p->rows};
        return MX_OK;
    }
    mx_status status;
    if (s->row_elements > 0) {
        status = kv_combine_sparse(parts, r->count, true, to, &s->sum, why);
    } else if ((status = kv_tensor_dense(&s->sum, to, s->elements, why)) == MX_OK) {
        status = kv_combine_dense(r->kv, parts, r->count, to, s->sum.data, why);
    }
    *sum = s->sum;
    return status;
}

/* The sum itself, for all. */
static mx_status answer_sum(struct round *r, const struct mxrt_kv_value *sum, struct mxrt_why *why) {
    struct slot *s = r->slot;
    struct item item = value_item(s);
    struct message *m;
    if (sum->is_sparse) {
        item = rows_item(s, *sum->rows);
        if ((m = kv_message_room((size_t)item.bytes)) != NULL) {
            const size_t ids = (size_t)item.rows * sizeof *sum->ids;
            memcpy(m->data, sum->ids, ids);
            memcpy((char *)m->data + ids, sum->data, (size_t)item.bytes - ids);
        }
    } else {
        m = copy_value(s, sum);
    }
    if (!m)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for a sum");
    for (int i = 0; i < r->count; i++)
        reply_shared(r->kv, r->in[i].from, &r->in[i].item, &item, m);
    kv_message_drop(m);
    return MX_OK;
}

/* The rows that changed since the rank was told. False: it gets all, for want of memory, too. */
static bool answer_changes(struct round *r, const struct contribution *c) {
    struct slot *s = r->slot;
    if (c->item.wants != WANTS_CHANGES || s->row_elements == 0)
        return false;
    if (!s->changes)
        s->changes = kv_changes_new(s->elements / s->row_elements,
                                    (size_t)s->row_elements * mxrt_dtype_size(s->stored.dtype), r->kv->size);
    if (!s->changes)
        return false;
    const int64_t rows = kv_changes_since(s->changes, c->from, NULL);
    struct item item = rows_item(s, rows < 0 ? 0 : rows);
    struct message *m = rows < 0 ? NULL : kv_message_room((size_t)item.bytes);
    if (m) {
        (void)kv_changes_since(s->changes, c->from, m->data);
        copy_rows(s, rows, m);
        reply_shared(r->kv, c->from, &c->item, &item, m);
    }
    kv_changes_told(s->changes, c->from);
    kv_message_drop(m);
    return m != NULL;
}

static void answer_push(struct round *r) {
    struct slot *s = r->slot;
    struct message *copy = NULL;
    struct item done = {.kind = ITEM_DONE}, value = value_item(s);
    for (int i = 0; i < r->count; i++) {
        const struct contribution *c = &r->in[i];
        if (c->item.wants == WANTS_NOTHING) {
            (void)reply(r->kv, c->from, &c->item, &done, "", NULL, NULL);
        } else if (answer_changes(r, c)) {
            continue;
        } else if (goes_as_it_lies(r->kv, s, c->from)) {
            push_answer(r->kv, s, c->from, &c->item, NULL, NULL);
        } else if (copy || (copy = copy_value(s, &s->stored)) != NULL) {
            reply_shared(r->kv, c->from, &c->item, &value, copy);
        } else {
            refuse(r->kv, c->from, &c->item, MX_ERROR_MEMORY, "no memory for the value");
        }
    }
    kv_message_drop(copy);
}

static mx_status apply(struct round *r, const struct mxrt_kv_value *sum, struct mxrt_why *why) {
    struct slot *s = r->slot;
    if (s->changes)
        kv_changes_before(s->changes, s->stored.data);
    mx_status status = kv_apply(r->kv, s->entry->key, sum, &s->stored, why);
    if (s->changes) /* also what failed midway */
        kv_changes_after(s->changes, s->stored.data);
    return status;
}

/* Fails never: what goes wrong is told to those whose round it was, and is no error of this rank's variables. */
static mx_status run_round(void *context, struct mxrt_why *why) {
    struct round *r = context;
    struct slot *s = r->slot;
    struct mxrt_kv_value sum;
    int64_t rows;
    mx_status status = MX_OK;
    r->ran = true;
    if (r->failed[0]) {
        refuse_all(r, MX_ERROR_PEER, r->failed);
        return MX_OK;
    }
    struct part *parts = malloc((size_t)r->count * sizeof *parts);
    if (!parts)
        status = mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %d contributions", r->count);
    for (int i = 0; parts && i < r->count; i++)
        parts[i] = r->in[i].part;
    if (status == MX_OK)
        status = add(r, s->entry ? s->entry->kept : s->dtype, parts, &sum, &rows, why);
    if (status == MX_OK && s->entry)
        status = apply(r, &sum, why);
    if (status == MX_OK && s->entry)
        answer_push(r);
    else if (status == MX_OK)
        status = answer_sum(r, &sum, why);
    if (status != MX_OK)
        refuse_all(r, status, why->text[0] ? why->text : "the updater failed");
    free(parts);
    why->text[0] = 0;
    return MX_OK;
}

static void push_round(struct round *r) {
    struct mxrt_why why = {""};
    struct mxrt_var reads[1], write = r->slot->var;
    int priority = r->in[0].item.priority;
    for (int i = 1; i < r->count; i++)
        priority = r->in[i].item.priority > priority ? r->in[i].item.priority : priority;
    mx_status status = kv_push_op(r->kv,
                                  &(struct kv_op){.name = "kvstore: serve",
                                                  .run = run_round,
                                                  .context = r,
                                                  .release = round_free,
                                                  .reads = reads,
                                                  .writes = &write,
                                                  .write_count = 1,
                                                  .priority = priority},
                                  &why);
    if (status != MX_OK) {
        r->ran = true;
        refuse_all(r, status, why.text);
        round_free(r);
    }
}

/* ---- slots */

static struct slot *slot_new(struct mxrt_kvstore *kv, uint64_t id, struct mxrt_why *why) {
    struct slot *s = calloc(1, sizeof *s);
    size_t size = (size_t)kv->size;
    if (s) {
        s->id = id;
        s->rounds = calloc(size, sizeof *s->rounds);
        s->in = calloc(size, sizeof *s->in);
        s->has = calloc(size, sizeof *s->has);
    }
    if (s && s->rounds && s->in && s->has && mxrt_var_new(kv->engine, "what the kvstore serves", &s->var, why) == MX_OK)
        return s;
    if (!s || !s->rounds || !s->in || !s->has)
        (void)mxrt_fail(why, MX_ERROR_MEMORY, "no memory to serve another key");
    if (s) {
        free(s->rounds);
        free(s->in);
        free(s->has);
    }
    free(s);
    return NULL;
}

static void slot_free(struct mxrt_kvstore *kv, struct slot *s) {
    for (int i = 0; i < kv->size; i++)
        kv_message_drop(s->in[i].message);
    (void)mxrt_var_delete(kv->engine, s->var, NULL, NULL, NULL);
    kv_tensor_free(&s->stored);
    kv_tensor_free(&s->sum);
    kv_changes_free(s->changes);
    free(s->rounds);
    free(s->in);
    free(s->has);
    free(s);
}

/* Contributions of this rank to itself are its operations' own memory, so they are let go at once. */
void kv_server_stop(struct mxrt_kvstore *kv) {
    for (bool more = true; more;) {
        struct message *m = NULL;
        pthread_mutex_lock(&kv->lock);
        for (struct slot *s = kv->slots; s && !m; s = s->hh.next) {
            for (int r = 0; r < kv->size && !m; r++) {
                m = s->in[r].message;
                s->in[r].message = NULL;
            }
        }
        pthread_mutex_unlock(&kv->lock);
        more = m != NULL;
        kv_message_drop(m);
    }
}

void kv_server_forget(struct mxrt_kvstore *kv) {
    struct slot *s, *next;
    HASH_ITER(hh, kv->slots, s, next) {
        HASH_DEL(kv->slots, s);
        slot_free(kv, s);
    }
}

mx_status kv_server_keep(struct mxrt_kvstore *kv, struct entry *e, const struct place *p, struct mxrt_kv_value **stored,
                         struct mxrt_why *why) {
    struct slot *s = slot_new(kv, KV_ID_KEY | (uint64_t)e->index, why);
    if (!s)
        return MX_ERROR_MEMORY;
    s->entry = e;
    s->dtype = e->dtype;
    s->elements = p->count;
    s->row_elements = e->is_sparse ? e->row_elements : 0;
    snprintf(s->label, sizeof s->label, "%s", e->channel.label);
    mx_status status = kv_tensor_dense(&s->stored, e->kept, p->count, why);
    if (status != MX_OK) {
        slot_free(kv, s);
        return status;
    }
    s->stored.row_elements = e->row_elements;
    pthread_mutex_lock(&kv->lock);
    HASH_ADD(hh, kv->slots, id, sizeof s->id, s);
    pthread_mutex_unlock(&kv->lock);
    *stored = &s->stored;
    return MX_OK;
}

static struct slot *find(struct mxrt_kvstore *kv, uint64_t id) {
    struct slot *s;
    pthread_mutex_lock(&kv->lock);
    HASH_FIND(hh, kv->slots, &id, sizeof id, s);
    pthread_mutex_unlock(&kv->lock);
    return s;
}

/* The slot of a sum that nobody keeps, with the shape of the first contribution. */
static struct slot *find_sum(struct mxrt_kvstore *kv, const struct item *item, struct mxrt_why *why) {
    struct slot *s = find(kv, item->id), *other;
    if (s)
        return s;
    if (!(s = slot_new(kv, item->id, why)))
        return NULL;
    uint64_t number = item->id & (KV_ID_KEY - 1);
    snprintf(s->label, sizeof s->label, item->id & KV_ID_USER ? "reduction %llu" : "the reduction of key number %llu",
             (unsigned long long)number);
    s->dtype = (mx_dtype)item->dtype;
    s->elements = item->elements;
    s->row_elements = item->form == FORM_SPARSE ? item->row_elements : 0;
    pthread_mutex_lock(&kv->lock);
    HASH_FIND(hh, kv->slots, &s->id, sizeof s->id, other);
    if (!other)
        HASH_ADD(hh, kv->slots, id, sizeof s->id, s);
    pthread_mutex_unlock(&kv->lock);
    if (other)
        slot_free(kv, s);
    return other ? other : s;
}

/* ---- requests */

/* Whether the shape is the slot's. A sum that nobody keeps takes the shape of the first of its round. */
static bool fits(const struct slot *s, int from, const struct item *item, char *text, size_t room) {
    bool sparse = item->form == FORM_SPARSE;
    if (sparse == (s->row_elements > 0) && (mx_dtype)item->dtype == s->dtype && item->elements == s->elements &&
        (!sparse || item->row_elements == s->row_elements))
        return true;
    snprintf(text, room, "rank %d contributed %lld %s elements of %s to %s, which has %lld %s elements of %s here",
             from, (long long)item->elements, sparse ? "row-sparse" : "dense", mxrt_dtype_name((mx_dtype)item->dtype),
             s->label, (long long)s->elements, s->row_elements > 0 ? "row-sparse" : "dense", mxrt_dtype_name(s->dtype));
    return false;
}

static struct round *round_new(struct mxrt_kvstore *kv, struct slot *s, int count) {
    struct round *r = calloc(1, sizeof *r + (size_t)count * sizeof r->in[0]);
    if (r) {
        r->kv = kv;
        r->slot = s;
        r->count = count;
    }
    return r;
}

/* Under the lock: joins the round, and fills r if that completes it. False with a text: refused. */
static bool join(struct mxrt_kvstore *kv, struct slot *s, struct contribution *c, bool alone, struct round *r,
                 bool *complete, char *text, size_t room) {
    int from = c->from;
    *complete = false;
    if (kv->lost) {
        snprintf(text, room, "%s", kv->lost_text);
        return false;
    }
    if (c->item.round != s->rounds[from] || s->has[from]) {
        snprintf(text, room, "rank %d contributed to %s for round %u%s, where round %u is next", from, s->label,
                 c->item.round, s->has[from] ? " before that of the others was complete" : "", s->rounds[from]);
        return false;
    }
    if (!alone && s->arrived == 0 && !s->entry && !c->refused) { /* of another shape than last time */
        s->dtype = (mx_dtype)c->item.dtype;
        s->elements = c->item.elements;
        s->row_elements = c->item.form == FORM_SPARSE ? c->item.row_elements : 0;
    }
    s->rounds[from]++;
    if (!alone) {
        if (c->refused && !s->failed[0])
            snprintf(s->failed, sizeof s->failed, "%s", text);
        s->in[from] = *c;
        s->has[from] = true;
        if (++s->arrived < kv->size)
            return true;
    }
    memcpy(r->in, alone ? c : s->in, (size_t)r->count * sizeof *c);
    if (!alone) {
        snprintf(r->failed, sizeof r->failed, "%s", s->failed);
        s->failed[0] = 0;
        s->arrived = 0;
        memset(s->in, 0, (size_t)kv->size * sizeof *s->in);
        memset(s->has, 0, (size_t)kv->size * sizeof *s->has);
    }
    *complete = true;
    return true;
}

static void contribute(struct mxrt_kvstore *kv, struct slot *s, int from, const struct item *item,
                       const struct part *part, struct message *m) {
    struct contribution c = {.item = *item, .part = *part, .from = from, .message = m};
    char text[600] = "";
    bool alone = kv->type == KV_DIST_ASYNC && s->entry, complete = false;
    struct round *r = round_new(kv, s, alone ? 1 : kv->size);
    if (!r) {
        kv_wire_break(kv, "no memory for a contribution");
        return;
    }
    kv_message_keep(m);
    pthread_mutex_lock(&kv->lock);
    bool first_of_sum = !s->entry && s->arrived == 0;
    c.refused = !first_of_sum && !fits(s, from, item, text, sizeof text);
    bool joined = (!c.refused || !alone) && join(kv, s, &c, alone, r, &complete, text, sizeof text);
    pthread_mutex_unlock(&kv->lock);
    if (!joined || c.refused)
        refuse(kv, from, item, MX_ERROR_PEER, text);
    if (!joined)
        kv_message_drop(m);
    if (complete)
        push_round(r);
    else
        free(r);
}

static bool is_contribution(const struct item *item) {
    return item->form >= FORM_DENSE && item->form <= FORM_SPARSE;
}

void kv_server_handle(struct mxrt_kvstore *kv, int from, const struct item *item, const void *payload,
                      struct message *m) {
    struct mxrt_why why = {""};
    struct part part;
    struct slot *s = NULL;
    mx_status status = kv_item_open(item, payload, from, &part, &why);
    if ((item->kind == ITEM_PUSH || item->kind == ITEM_REDUCE) && !is_contribution(item))
        status = mxrt_fail(&why, MX_ERROR_PEER, "rank %d contributed nothing to add, form %d", from, item->form);
    bool is_sum = item->kind == ITEM_REDUCE, is_sums_id = item->id >> KV_ID_BITS == 1 || item->id >> KV_ID_BITS == 2;
    if (status == MX_OK && is_sum && is_sums_id) {
        s = find_sum(kv, item, &why);
        status = s ? MX_OK : MX_ERROR_MEMORY;
    } else if (status == MX_OK) {
        s = find(kv, item->id);
    }
    if (status == MX_OK && (!s || is_sum == (s->entry != NULL)))
        status = mxrt_fail(&why, MX_ERROR_PEER, "rank %d asked for number %llu, which is no key that rank %d serves",
                           from, (unsigned long long)(item->id & (KV_ID_KEY - 1)), kv->rank);
    if (status != MX_OK) {
        refuse(kv, from, item, MX_ERROR_PEER, why.text);
        return;
    }
    if (item->kind == ITEM_PULL) {
        push_answer(kv, s, from, item, NULL, NULL);
    } else if (item->kind != ITEM_PULL_ROWS) {
        contribute(kv, s, from, item, &part, m);
    } else {
        if (s->row_elements == 0 || item->form != FORM_IDS)
            status = mxrt_fail(&why, MX_ERROR_PEER, "rank %d asked for rows of %s, which is dense", from, s->label);
        else
            status = kv_check_rows(part.ids, part.rows, s->elements / s->row_elements, "a rank asked for", &why);
        if (status == MX_OK)
            push_answer(kv, s, from, item, &part, m);
        else
            refuse(kv, from, item, MX_ERROR_PEER, why.text);
    }
}
