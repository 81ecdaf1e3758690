/* Pushes and pulls, as operations of the engine.
 *
 * A push is up to three: `merge` adds the values of a key (skipped for one value that needs no conversion), what the type of
 * store needs to add or send that (reduce.c, client.c), and `apply`. A pull is a copy for each out. They meet in the engine's
 * variables of the entry, `merged` and `stored`, so that a next merge runs beside a slow updater. All are checked before
 * the first is pushed. */
#include <stdlib.h>
#include <string.h>

#include "compress.h"
#include "internal.h"

/* A naive engine's push gives the error of the operation, which has ended then, like that of a push that did nothing; who owns the
 * context must know. So that engine gets a frame that remembers. */
struct op_frame {
    _Atomic int references; /* the operation's, the push's */
    atomic_bool ended;
    struct kv_op op;
};

static void frame_drop(struct op_frame *f) {
    if (atomic_fetch_sub(&f->references, 1) == 1)
        free(f);
}

static mx_status frame_run(void *frame, struct mxrt_why *why) {
    const struct op_frame *f = frame;
    return f->op.run(f->op.context, why);
}

static void frame_start(void *frame, struct mxrt_token token) {
    const struct op_frame *f = frame;
    f->op.start(f->op.context, token);
}

static void frame_release(void *frame) {
    struct op_frame *f = frame;
    if (f->op.release)
        f->op.release(f->op.context);
    atomic_store(&f->ended, true);
    frame_drop(f);
}

static mx_status push_framed(struct mxrt_kvstore *kv, const struct kv_op *op, struct mxrt_op *o, struct mxrt_why *why) {
    struct op_frame *f = malloc(sizeof *f);
    if (!f)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for an operation");
    atomic_init(&f->references, 2);
    atomic_init(&f->ended, false);
    f->op = *op;
    o->run = op->run ? frame_run : NULL;
    o->start = op->start ? frame_start : NULL;
    o->context = f;
    o->release = frame_release;
    mx_status status = mxrt_engine_push(kv->engine, o, why);
    if (status != MX_OK && atomic_load(&f->ended))
        status = MX_OK; /* its error is its variables' */
    else if (status != MX_OK)
        frame_drop(f);
    frame_drop(f);
    return status;
}

mx_status kv_push_op(struct mxrt_kvstore *kv, const struct kv_op *op, struct mxrt_why *why) {
    struct mxrt_op o = {.name = op->name,
                        .run = op->run,
                        .start = op->start,
                        .context = op->context,
                        .release = op->release,
                        .reads = op->reads,
                        .writes = op->writes,
                        .read_count = op->read_count,
                        .write_count = op->write_count,
                        .lane = MXRT_LANE_PRIORITY,
                        .priority = op->priority};
    op->reads[o.read_count++] = kv->alive;
    mxrt_var_dedupe(op->reads, &o.read_count, op->writes, &o.write_count);
    return kv->is_naive ? push_framed(kv, op, &o, why) : mxrt_engine_push(kv->engine, &o, why);
}

/* ---- merge */

struct merging {
    struct mxrt_kvstore *kv;
    struct entry *e;
    mx_dtype to;
    bool lossy;
    int count;
    struct mxrt_kv_value values[];
};

/* What a device would send of its value: each place in the list has a residual, as each of MXNet's devices has. */
static mx_status lose(struct merging *m, float *unpacked, struct mxrt_why *why) {
    struct entry *e = m->e;
    const struct mxrt_kvstore *kv = m->kv;
    int64_t n = e->elements, kept = kv_compress_kept(kv->compression, kv->threshold, n);
    if (m->count > e->residual_count) {
        float **more = realloc(e->residuals, (size_t)m->count * sizeof *more);
        if (!more)
            return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for residuals");
        e->residuals = more;
        for (; e->residual_count < m->count; e->residual_count++) {
            if (!(more[e->residual_count] = calloc((size_t)n + 1, sizeof **more)))
                return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for the residual of %lld elements", (long long)n);
        }
    }
    size_t bytes = kv_compress_bytes(kv->compression, n, kept);
    void *packed = malloc(bytes + 1);
    if (!packed)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %zu bytes", bytes);
    for (int i = 0; i < m->count; i++) {
        kv_compress(kv->compression, kv->threshold, m->values[i].data, e->residuals[i], n, kept, packed);
        kv_decompress(kv->compression, kv->threshold, packed, kept, 0, n, unpacked + (size_t)i * (size_t)n);
        m->values[i].data = unpacked + (size_t)i * (size_t)n;
    }
    free(packed);
    pthread_mutex_lock(&m->kv->lock);
    m->kv->statistics.bytes_before += (uint64_t)m->count * 4 * (uint64_t)n;
    m->kv->statistics.bytes_sent += (uint64_t)m->count * bytes;
    pthread_mutex_unlock(&m->kv->lock);
    return MX_OK;
}

static mx_status run_merge(void *context, struct mxrt_why *why) {
    struct merging *m = context;
    float *unpacked = NULL;
    mx_status status = MX_OK;
    if (m->lossy) {
        unpacked = malloc((size_t)m->count * (size_t)m->e->elements * sizeof *unpacked + 1);
        status = unpacked ? lose(m, unpacked, why)
                          : mxrt_fail(why, MX_ERROR_MEMORY, "no memory to unpack %d values", m->count);
    }
    if (status == MX_OK)
        status = kv_merge(m->kv, m->e->channel.label, m->values, m->count, m->to, &m->e->merged, why);
    free(unpacked);
    return status;
}

mx_status kv_push_merge(struct mxrt_kvstore *kv, struct entry *e, const struct mxrt_kv_value *const *values, int count,
                        mx_dtype to, bool lossy, int priority, struct mxrt_why *why) {
    struct merging *m = malloc(sizeof *m + (size_t)count * sizeof m->values[0]);
    struct mxrt_var *reads = malloc(((size_t)count + 1) * sizeof *reads), write = e->merged.variable;
    mx_status status = m && reads ? MX_OK : mxrt_fail(why, MX_ERROR_MEMORY, "no memory to push %d values", count);
    if (status == MX_OK) {
        *m = (struct merging){.kv = kv, .e = e, .to = to, .lossy = lossy, .count = count};
        for (int i = 0; i < count; i++) {
            m->values[i] = *values[i];
            reads[i] = values[i]->variable;
        }
        status = kv_push_op(kv,
                            &(struct kv_op){.name = "kvstore: merge",
                                            .run = run_merge,
                                            .context = m,
                                            .release = free,
                                            .reads = reads,
                                            .read_count = count,
                                            .writes = &write,
                                            .write_count = 1,
                                            .priority = priority},
                            why);
    }
    free(reads);
    if (status != MX_OK)
        free(m);
    return status;
}

/* An operation that reads one variable and writes another. Frees its context, malloc's, in any case. */
static mx_status push_between(struct mxrt_kvstore *kv, const char *name, mxrt_op_fn *run, void *context,
                              struct mxrt_var read, struct mxrt_var write, int priority, struct mxrt_why *why) {
    struct mxrt_var reads[2] = {read}; /* with room for the store's own */
    const struct kv_op op = {.name = name,
                             .run = run,
                             .context = context,
                             .release = free,
                             .reads = reads,
                             .read_count = 1,
                             .writes = &write,
                             .write_count = 1,
                             .priority = priority};
    mx_status status = kv_push_op(kv, &op, why);
    if (status != MX_OK)
        free(context);
    return status;
}

/* ---- apply */

struct applying {
    struct mxrt_kvstore *kv;
    struct entry *e;
    bool is_merged; /* the gradient is the entry's own, as it is when the operation runs */
    struct mxrt_kv_value gradient;
};

static mx_status run_apply(void *context, struct mxrt_why *why) {
    struct applying *a = context;
    const struct mxrt_kv_value *g = a->is_merged ? &a->e->merged : &a->gradient;
    mx_status status = g->is_sparse && !a->is_merged ? kv_check_sparse(a->e->channel.label, g, why) : MX_OK;
    return status == MX_OK ? kv_apply(a->kv, a->e->key, g, &a->e->stored, why) : status;
}

/* `gradient` NULL: what was merged. */
static mx_status push_apply(struct mxrt_kvstore *kv, struct entry *e, const struct mxrt_kv_value *gradient,
                            int priority, struct mxrt_why *why) {
    struct applying *a = malloc(sizeof *a);
    if (!a)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory to push %s", e->channel.label);
    *a = (struct applying){.kv = kv, .e = e, .is_merged = !gradient};
    if (gradient)
        a->gradient = *gradient;
    return push_between(kv, "kvstore: apply", run_apply, a, gradient ? gradient->variable : e->merged.variable,
                        e->stored.variable, priority, why);
}

/* ---- pulls of what is stored here */

struct pulling {
    struct entry *e;
    struct mxrt_kv_value out;
    int64_t count; /* rows asked for; -1: all, dense */
    int64_t ids[];
};

static mx_status run_pull(void *context, struct mxrt_why *why) {
    struct pulling *p = context;
    const struct mxrt_kv_value *stored = &p->e->stored, *out = &p->out;
    if (p->count < 0) {
        kv_convert(out->dtype, out->data, stored->dtype, stored->data, stored->elements);
        return MX_OK;
    }
    size_t row = (size_t)out->row_elements, from = mxrt_dtype_size(stored->dtype), to = mxrt_dtype_size(out->dtype);
    for (int64_t i = 0; i < p->count; i++) {
        out->ids[i] = p->ids[i];
        kv_convert(out->dtype, (char *)out->data + (size_t)i * row * to, stored->dtype,
                   (const char *)stored->data + (size_t)p->ids[i] * row * from, (int64_t)row);
    }
    *out->rows = p->count;
    return MX_OK;
}

static mx_status push_pull(struct mxrt_kvstore *kv, struct entry *e, const struct mxrt_kv_value *out,
                           const int64_t *ids, int64_t count, int priority, struct mxrt_why *why) {
    struct pulling *p = malloc(sizeof *p + (count > 0 ? (size_t)count : 0) * sizeof *ids);
    if (!p)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory to pull %s", e->channel.label);
    *p = (struct pulling){.e = e, .out = *out, .count = count};
    if (count > 0)
        memcpy(p->ids, ids, (size_t)count * sizeof *ids);
    return push_between(kv, "kvstore: pull", run_pull, p, e->stored.variable, out->variable, priority, why);
}

/* ---- lists of keys: checked, then grouped */

struct pair {
    struct entry *e;
    int at; /* in the caller's list */
};

static int by_key(const void *a, const void *b) {
    const struct pair *x = a, *y = b;
    if (x->e != y->e)
        return x->e->index < y->e->index ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

/* Equal keys side by side, each in the caller's order. */
static mx_status group(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                       const struct mxrt_kv_value *values, const char *what, struct pair **pairs,
                       struct mxrt_why *why) {
    *pairs = NULL;
    if (!kv || count < 0 || (count > 0 && (!keys || !values)))
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "a call wants a store, keys and as many %ss", what);
    struct pair *p = malloc(((size_t)count + 1) * sizeof *p);
    if (!p)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for a list of %d keys", count);
    mx_status status = MX_OK;
    for (int i = 0; i < count && status == MX_OK; i++) {
        p[i] = (struct pair){kv_find(kv, keys[i], why), i};
        status = p[i].e ? kv_check_value(kv, p[i].e->channel.label, what, &values[i], why) : MX_ERROR_ARGUMENT;
        if (status == MX_OK)
            status = kv_check_fits(p[i].e, what, &values[i], why);
    }
    if (status != MX_OK) {
        free(p);
        return status;
    }
    qsort(p, (size_t)count, sizeof *p, by_key);
    *pairs = p;
    return MX_OK;
}

static int group_length(const struct pair *p, int count) {
    int n = 1;
    while (n < count && p[n].e == p[0].e)
        n++;
    return n;
}

static mx_status check_gradient(const struct mxrt_kvstore *kv, const struct entry *e, const struct mxrt_kv_value *v,
                                const struct mxrt_kv_value *first, struct mxrt_why *why) {
    if (v->is_sparse != first->is_sparse || (v->is_sparse && v->row_elements != first->row_elements))
        return mxrt_fail(why, MX_ERROR_SHAPE, "the values of %s are partly dense and partly sparse, or have other rows",
                         e->channel.label);
    if (e->is_sparse && !v->is_sparse)
        return mxrt_fail(why, MX_ERROR_SHAPE, "a dense value pushed to %s, whose first value was row-sparse",
                         e->channel.label);
    if (v->is_sparse && !e->is_sparse && kv->servers > 0)
        return mxrt_fail(why, MX_ERROR_SHAPE,
                         "a row-sparse value pushed to %s, which servers keep as a dense one; init it row-sparse",
                         e->channel.label);
    return MX_OK;
}

static mx_status check_back(const struct entry *e, const struct mxrt_kv_value *out, struct mxrt_why *why) {
    return out->is_sparse || (e->is_sparse && !out->is_kept)
               ? mxrt_fail(
                     why, MX_ERROR_SHAPE,
                     "pushpull of %s, which is row-sparse: push it, then mxrt_kv_row_sparse_pull; or into a dense out "
                     "that is kept",
                     e->channel.label)
               : MX_OK;
}

static bool loses(const struct mxrt_kvstore *kv, const struct mxrt_kv_value *v) {
    return kv->compression != MXRT_KV_NONE && kv->type == KV_DEVICE && v->dtype == MX_F32 && !v->is_sparse;
}

/* One key's values, and its outs if the new value is wanted back. */
static mx_status push_key(struct mxrt_kvstore *kv, struct entry *e, const struct mxrt_kv_value **values, int count,
                          const struct mxrt_kv_value *outs, int out_count, int priority, struct mxrt_why *why) {
    const struct mxrt_kv_value *first = values[0];
    bool sends = kv_has_net(kv) || kv->servers > 0;
    mx_dtype to = kv->servers > 0 ? e->dtype : e->kept;
    bool lossy = loses(kv, first), merges = count > 1 || lossy || to != e->dtype;
    struct kv_source source = {*first, merges};
    mx_status status = merges ? kv_push_merge(kv, e, values, count, to, lossy, priority, why) : MX_OK;
    if (merges) {
        source.v.dtype = to;
        source.v.variable = e->merged.variable;
    }
    if (status == MX_OK && kv->servers > 0)
        return kv_send_push(kv, e, &source, outs, out_count, priority, why);
    if (status == MX_OK && sends)
        status = kv_reduce(kv, &e->channel, &source, &e->merged, priority, why);
    if (status == MX_OK)
        status = push_apply(kv, e, merges || sends ? NULL : first, priority, why);
    for (int i = 0; i < out_count && status == MX_OK; i++)
        status = push_pull(kv, e, &outs[i], NULL, -1, priority, why);
    return status;
}

/* outs NULL: nothing is wanted back; values: into themselves. */
static mx_status push_list(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                           const struct mxrt_kv_value *values, const struct mxrt_kv_value *outs, int priority,
                           struct mxrt_why *why) {
    struct pair *pairs, *out_pairs = NULL;
    mx_status status = group(kv, count, keys, values, "value", &pairs, why);
    if (status != MX_OK)
        return status;
    const struct mxrt_kv_value **list = malloc(((size_t)count + 1) * sizeof *list);
    struct mxrt_kv_value *wanted = malloc(((size_t)count + 1) * sizeof *wanted);
    if (!list || !wanted)
        status = mxrt_fail(why, MX_ERROR_MEMORY, "no memory to push %d values", count);
    if (status == MX_OK && outs)
        status = group(kv, count, keys, outs, "out", &out_pairs, why);
    for (int i = 0, n; i < count && status == MX_OK; i += n) {
        n = group_length(&pairs[i], count - i);
        for (int k = i; k < i + n && status == MX_OK; k++) {
            status = check_gradient(kv, pairs[k].e, &values[pairs[k].at], &values[pairs[i].at], why);
            if (status == MX_OK && outs)
                status = check_back(pairs[k].e, &outs[pairs[k].at], why);
        }
    }
    if (status == MX_OK && kv->type == KV_DIST_ASYNC && !kv->updater && count > 0)
        status =
            mxrt_fail(why, MX_ERROR_ARGUMENT,
                      "a push to a dist_async store without an updater: one rank's value would just replace another's");
    if (status == MX_OK)
        atomic_store(&kv->has_pushed, true);
    for (int i = 0, n, pushed = 0; i < count && status == MX_OK; i += n, pushed++) {
        n = group_length(&pairs[i], count - i);
        for (int k = 0; k < n; k++) {
            list[k] = &values[pairs[i + k].at];
            if (outs)
                wanted[k] = outs[pairs[i + k].at];
        }
        status = push_key(kv, pairs[i].e, list, n, wanted, outs ? n : 0, priority, why);
        if (status != MX_OK && pushed > 0) {
            struct mxrt_why first = *why;
            (void)mxrt_fail(why, status, "%.400s; the %d keys before it in the list were pushed", first.text, pushed);
        }
    }
    if (status == MX_OK) {
        pthread_mutex_lock(&kv->lock);
        kv->statistics.pushes += (uint64_t)count;
        kv->statistics.pulls += outs ? (uint64_t)count : 0;
        pthread_mutex_unlock(&kv->lock);
    }
    free((void *)list);
    free(wanted);
    free(pairs);
    free(out_pairs);
    return status;
}

mx_status mxrt_kv_push(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                       const struct mxrt_kv_value *values, int priority, struct mxrt_why *why) {
    return push_list(kv, count, keys, values, NULL, priority, WHY(why));
}

mx_status mxrt_kv_pushpull(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                           const struct mxrt_kv_value *values, const struct mxrt_kv_value *outs, int priority,
                           struct mxrt_why *why) {
    return push_list(kv, count, keys, values, outs ? outs : values, priority, WHY(why));
}

mx_status mxrt_kv_pull(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                       const struct mxrt_kv_value *outs, bool ignore_sparse, int priority, struct mxrt_why *why) {
    struct pair *pairs;
    why = WHY(why);
    mx_status status = group(kv, count, keys, outs, "out", &pairs, why);
    if (status != MX_OK)
        return status;
    struct mxrt_kv_value *dense = malloc(((size_t)count + 1) * sizeof *dense);
    if (!dense)
        status = mxrt_fail(why, MX_ERROR_MEMORY, "no memory to pull %d values", count);
    for (int i = 0; i < count && status == MX_OK; i++) {
        if (outs[pairs[i].at].is_sparse && !ignore_sparse)
            status =
                mxrt_fail(why, MX_ERROR_SHAPE, "a pull of %s into a row-sparse out: mxrt_kv_row_sparse_pull does that",
                          pairs[i].e->channel.label);
    }
    for (int i = 0, n; i < count && status == MX_OK; i += n) {
        int found = 0;
        n = group_length(&pairs[i], count - i);
        for (int k = i; k < i + n; k++) {
            if (!outs[pairs[k].at].is_sparse)
                dense[found++] = outs[pairs[k].at];
        }
        if (kv->servers > 0 && found > 0)
            status = kv_send_pull(kv, pairs[i].e, dense, found, priority, why);
        for (int k = 0; kv->servers == 0 && k < found && status == MX_OK; k++)
            status = push_pull(kv, pairs[i].e, &dense[k], NULL, -1, priority, why);
    }
    if (status == MX_OK) {
        pthread_mutex_lock(&kv->lock);
        kv->statistics.pulls += (uint64_t)count;
        pthread_mutex_unlock(&kv->lock);
    }
    free(dense);
    free(pairs);
    return status;
}

/* ---- rows */

static int by_id(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* What was asked for, sorted, each once; with malloc. */
static mx_status sorted_rows(const struct entry *e, const int64_t *ids, int64_t count, const struct mxrt_kv_value *out,
                             int64_t **rows, int64_t *row_count, struct mxrt_why *why) {
    int64_t limit = e->elements / e->row_elements, n = 0;
    if (count < 0 || (count > 0 && !ids))
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "%lld row ids for %s", (long long)count, e->channel.label);
    int64_t *r = malloc(((size_t)count + 1) * sizeof *r);
    if (!r)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %lld row ids", (long long)count);
    if (count > 0)
        memcpy(r, ids, (size_t)count * sizeof *r);
    qsort(r, (size_t)count, sizeof *r, by_id);
    for (int64_t i = 0; i < count; i++) {
        if (n == 0 || r[i] != r[n - 1])
            r[n++] = r[i];
    }
    mx_status status = MX_OK;
    if (n > 0 && (r[0] < 0 || r[n - 1] >= limit))
        status = mxrt_fail(why, MX_ERROR_ARGUMENT, "row %lld of %s is asked for; it has rows 0 to %lld",
                           (long long)(r[0] < 0 ? r[0] : r[n - 1]), e->channel.label, (long long)limit - 1);
    else if (n > out->room)
        status = mxrt_fail(why, MX_ERROR_SHAPE, "%lld rows of %s are asked for; the out has room for %lld",
                           (long long)n, e->channel.label, (long long)out->room);
    if (status != MX_OK) {
        free(r);
        return status;
    }
    *rows = r;
    *row_count = n;
    return MX_OK;
}

mx_status mxrt_kv_row_sparse_pull(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                                  const struct mxrt_kv_value *outs, const int64_t *const *row_ids,
                                  const int64_t *row_counts, int priority, struct mxrt_why *why) {
    struct pair *pairs;
    why = WHY(why);
    mx_status status = group(kv, count, keys, outs, "out", &pairs, why);
    if (status != MX_OK)
        return status;
    int64_t **rows = calloc((size_t)count + 1, sizeof *rows), *row_count = calloc((size_t)count + 1, sizeof *row_count);
    if (!rows || !row_count || (count > 0 && (!row_ids || !row_counts)))
        status = rows && row_count ? mxrt_fail(why, MX_ERROR_ARGUMENT, "a row-sparse pull wants row ids for each out")
                                   : mxrt_fail(why, MX_ERROR_MEMORY, "no memory to pull %d values", count);
    for (int i = 0; i < count && status == MX_OK; i++) {
        const struct entry *e = pairs[i].e;
        int at = pairs[i].at;
        if (!e->is_sparse || !outs[at].is_sparse)
            status = mxrt_fail(why, MX_ERROR_SHAPE, "a row-sparse pull wants row-sparse keys and outs; %s%s is dense",
                               e->is_sparse ? "the out of " : "", e->channel.label);
        else
            status = sorted_rows(e, row_ids[at], row_counts[at], &outs[at], &rows[i], &row_count[i], why);
    }
    for (int i = 0; i < count && status == MX_OK; i++) {
        const struct mxrt_kv_value *out = &outs[pairs[i].at];
        if (kv->servers > 0) {
            status = kv_send_pull_rows(kv, pairs[i].e, out, rows[i], row_count[i], priority, why);
            rows[i] = NULL; /* theirs */
        } else {
            status = push_pull(kv, pairs[i].e, out, rows[i], row_count[i], priority, why);
        }
    }
    if (status == MX_OK) {
        pthread_mutex_lock(&kv->lock);
        kv->statistics.pulls += (uint64_t)count;
        pthread_mutex_unlock(&kv->lock);
    }
    for (int i = 0; rows && i < count; i++)
        free(rows[i]);
    free(rows);
    free(row_count);
    free(pairs);
    return status;
}

/* ---- sums that nobody keeps */

mx_status mxrt_kv_all_reduce(struct mxrt_kvstore *kv, uint64_t id, const struct mxrt_kv_value *value, int priority,
                             struct mxrt_why *why) {
    struct channel *channel;
    why = WHY(why);
    if (!kv || !value)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "a reduction wants a store and a value");
    mx_status status = kv_channel(kv, id, &channel, why);
    if (status == MX_OK)
        status = kv_check_value(kv, channel->label, "value", value, why);
    if (status != MX_OK || !kv_has_net(kv))
        return status;
    atomic_store(&kv->has_pushed, true);
    return kv_reduce(kv, channel, &(struct kv_source){*value, false}, NULL, priority, why);
}
