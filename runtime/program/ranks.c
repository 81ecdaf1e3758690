/* A step over ranks, with its communication behind its computation.
 *
 * Keys' tensors stand in one block in the order in which they become final, so that neighbours form a bucket, one range that is
 * averaged in place without copying. `gradients` hands them out while it runs; the first layers' groups change their parameters inside
 * the next call, when it needs them, while later tensors are still on the way. So a step is complete only during the next one, and a
 * rank may be lost in between: what a group changes before everything has arrived is copied first, so that the model can
 * always be brought back to the last step that was complete. Where everything has arrived in time, nothing is copied.
 *
 * How tensors are cut into buckets never changes a bit: a sum's order depends on the ranks alone (mxrt/net.h). */
#include "ranks.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "mxrt/array.h"
#include "mxrt/progress.h"

enum { ALIGN = 64, SCALARS = 64, STATUS_HEAD = 3 }; /* of the status: votes to stop, samples, labels; then results */

struct bucket {
    int first, count; /* places in the final order; the status is the last one of all */
    struct mxrt_kv_value value;
    int priority, waiting;
    uint64_t version, step_version; /* writes pushed; when the step under way is complete */
    int64_t row_count;              /* sparse: of value.rows */
};

struct ranks {
    const struct mxrt_program *p;
    const struct mxrt_split *split;
    const struct mxrt_function *step;
    struct ranks_options options;
    struct mxrt_net *net;
    struct mxrt_engine *engine;
    struct mxrt_kvstore *kv;
    int rank, size;

    unsigned char *memory; /* all keys' tensors, then the status */
    void **keys;
    size_t *offset; /* [key_count + 1] by key */
    float *status_vector;
    int status_count;
    struct bucket *buckets;
    int bucket_count, *bucket_of; /* [key_count + 1] */
    unsigned char *arena;
    double latency, bandwidth;
    bool replan;    /* buckets are to be chosen again, from the time of the first step */
    double seconds; /* of the last call of gradients */

    void *model;       /* of the call under way */
    float weight;      /* of this rank's part */
    uint64_t steps;    /* begun */
    uint64_t blocking; /* collectives asked for that block */
    bool in_step, pending, told, arrived, failed;
    bool *applied, *is_copied; /* [group_count] */
    int applied_count;
    double scalars[SCALARS]; /* of the step under way; elements of any type */
    void *args[SCALARS];
    unsigned char **copies; /* [buffer_count] of what groups changed too early; NULL until needed */
    unsigned char **carried[2];
    uint64_t calls[2];
    int slot; /* of carried and calls: the step being computed */
    struct ranks_done done;
    struct mxrt_why why;
};

int ranks_rank(const struct ranks *r) {
    return r ? r->rank : 0;
}

int ranks_size(const struct ranks *r) {
    return r ? r->size : 1;
}

void ranks_fail(struct ranks *r, const char *message) {
    if (r)
        mxrt_net_fail(r->net, message);
}

bool ranks_saves(const struct ranks *r) {
    for (int i = 0; i < r->p->buffer_count; i++)
        if (r->split->buffer_is_carried[i])
            return false;
    return r->rank == (mxrt_net_lost(r->net, NULL) == 0 ? 1 : 0);
}

int64_t ranks_part(const struct ranks *r, int64_t n, int64_t *first) {
    int rank = ranks_rank(r), size = ranks_size(r);
    int64_t each = n / size, more = n % size;
    *first = each * rank + (rank < more ? rank : more);
    return each + (rank < more);
}

/* ---- collectives that block ------------------------------------------------------------------------------------------ */

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
    mx_status status;
    struct mxrt_why *why;
};

static void wake(void *context, mx_status status, const char *message) {
    struct waiter *w = context;
    pthread_mutex_lock(&w->lock);
    w->status = status == MX_OK ? MX_OK : mxrt_fail(w->why, status, "%s", message);
    w->done = true;
    pthread_cond_signal(&w->ended);
    pthread_mutex_unlock(&w->lock);
}

static mx_status wait_for(struct waiter *w) {
    pthread_mutex_lock(&w->lock);
    while (!w->done)
        pthread_cond_wait(&w->ended, &w->lock);
    pthread_mutex_unlock(&w->lock);
    pthread_cond_destroy(&w->ended);
    pthread_mutex_destroy(&w->lock);
    return w->status;
}

static struct waiter waiter_new(struct mxrt_why *why) {
    struct waiter w = {.why = why};
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.ended, NULL);
    return w;
}

static uint64_t blocking_id(struct ranks *r) {
    return (uint64_t)1 << 63 | ++r->blocking;
}

mx_status ranks_broadcast(struct ranks *r, void *data, size_t bytes, struct mxrt_why *why) {
    if (!r || !bytes)
        return MX_OK;
    struct waiter w = waiter_new(why);
    mxrt_net_broadcast(r->net, blocking_id(r), 0, 0, (struct mxrt_net_range){data, (int64_t)bytes, MX_U8}, wake, &w);
    return wait_for(&w);
}

mx_status ranks_broadcast_model(struct ranks *r, void *model, struct mxrt_why *why) {
    mx_status status = MX_OK;
    for (int i = 0; r && i < r->p->buffer_count && status == MX_OK; i++) {
        mx_tensor t;
        if ((status = r->p->buffer(model, i, &t)) == MX_OK)
            status = ranks_broadcast(r, t.data, t.bytes, why);
    }
    uint64_t calls = r ? r->p->calls(model) : 0;
    if (status == MX_OK)
        status = ranks_broadcast(r, &calls, sizeof calls, why);
    if (r && status == MX_OK)
        r->p->set_calls(model, calls);
    return status;
}

mx_status ranks_sum(struct ranks *r, double *values, int count, struct mxrt_why *why) {
    if (!r || !count)
        return MX_OK;
    struct waiter w = waiter_new(why);
    mxrt_net_all_reduce(r->net, blocking_id(r), 0, (struct mxrt_net_range){values, count, MX_F64}, wake, &w);
    return wait_for(&w);
}

/* ---- buckets --------------------------------------------------------------------------------------------------------- */

static const struct mxrt_key *key_at(const struct ranks *r, int place) {
    return place < r->split->key_count ? &r->split->keys[r->split->final_order[place]] : NULL; /* NULL: the status */
}

static mx_dtype dtype_at(const struct ranks *r, int place) {
    const struct mxrt_key *k = key_at(r, place);
    return k ? k->dtype : MX_F32;
}

static size_t offset_at(const struct ranks *r, int place) {
    return r->offset[place < r->split->key_count ? r->split->final_order[place] : r->split->key_count];
}

static int64_t elements_at(const struct ranks *r, int place) {
    const struct mxrt_key *k = key_at(r, place);
    return k ? k->elements : r->status_count;
}

/* Worth sending by rows: with all ranks' rows together at most half of the tensor. */
static bool is_sparse(const struct ranks *r, int place) {
    const struct mxrt_key *k = key_at(r, place);
    return k && k->rows_touched && k->row_elements && 2 * k->rows_touched * r->size <= k->elements / k->row_elements;
}

static void buckets_free(struct ranks *r) {
    for (int i = 0; i < r->bucket_count; i++) {
        struct bucket *b = &r->buckets[i];
        (void)mxrt_var_delete(r->engine, b->value.variable, NULL, NULL, NULL);
        if (b->value.is_sparse) {
            free(b->value.data);
            free(b->value.ids);
        }
    }
    free(r->buckets);
    r->buckets = NULL;
    r->bucket_count = 0;
}

/* The earlier a group is needed, the sooner its tensors should be back. */
static int priority_of(const struct ranks *r, int place) {
    const struct mxrt_key *k = key_at(r, place);
    for (int i = 0; k && i < r->split->group_count; i++)
        if (r->split->need_order[i] == k->group)
            return r->split->group_count - i;
    return 0;
}

static mx_status sparse_bucket(struct ranks *r, struct bucket *b, struct mxrt_why *why) {
    const struct mxrt_key *k = key_at(r, b->first);
    b->value.is_sparse = true;
    b->value.elements = k->elements;
    b->value.row_elements = k->row_elements;
    b->value.room = k->rows_touched * r->size;
    b->value.data = malloc((size_t)(b->value.room * k->row_elements) * mxrt_dtype_size(k->dtype));
    b->value.ids = malloc(sizeof *b->value.ids * (size_t)b->value.room);
    if (!b->value.data || !b->value.ids)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %lld rows of the gradient of %s",
                         (long long)b->value.room, k->name);
    return MX_OK;
}

static mx_status buckets_make(struct ranks *r, size_t bytes, struct mxrt_why *why) {
    const int n = r->split->key_count + 1;
    r->buckets = calloc((size_t)n, sizeof *r->buckets);
    if (!r->buckets)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %d buckets", n);
    mx_status status = MX_OK;
    for (int place = 0; place < n && status == MX_OK;) {
        struct bucket *b = &r->buckets[r->bucket_count++];
        b->first = place;
        size_t start = offset_at(r, place), end = start;
        bool sparse = is_sparse(r, place);
        do {
            end = offset_at(r, place) + (size_t)elements_at(r, place) * mxrt_dtype_size(dtype_at(r, place));
            int priority = priority_of(r, place);
            b->priority = priority > b->priority ? priority : b->priority;
            r->bucket_of[place < n - 1 ? r->split->final_order[place] : n - 1] = r->bucket_count - 1;
            b->count++;
            place++;
        } while (place < n && !sparse && !is_sparse(r, place) && dtype_at(r, place) == dtype_at(r, b->first) &&
                 end - start < bytes);
        b->value.dtype = dtype_at(r, b->first);
        b->value.data = r->memory + start;
        b->value.elements = (int64_t)((end - start) / mxrt_dtype_size(b->value.dtype));
        status = mxrt_var_new(r->engine, "gradients", &b->value.variable, why);
        if (status == MX_OK && sparse)
            status = sparse_bucket(r, b, why);
    }
    for (int i = 0; i < r->bucket_count; i++)
        if (r->buckets[i].value.is_sparse)
            r->buckets[i].value.rows = &r->buckets[i].row_count;
    return status;
}

/* When the last bucket would have arrived, seconds from the start of the gradients, if they take `seconds`: buckets follow each other on
 * the wire, and the tensors become final at the places that the compiler counted. */
static double arrival(const struct ranks *r, size_t bytes, double seconds) {
    const int n = r->split->key_count + 1;
    double work = 1, wire = 0;
    for (int i = 0; i + 1 < n; i++)
        work = r->split->keys[i].work > work ? r->split->keys[i].work : work;
    size_t size = 0;
    for (int place = 0; place < n; place++) {
        const struct mxrt_key *k = key_at(r, place);
        double ready = k ? seconds * k->work / work : seconds;
        size += (size_t)elements_at(r, place) * mxrt_dtype_size(dtype_at(r, place));
        if (size < bytes && place + 1 < n)
            continue;
        /* Reduce-scatter and all-gather: two messages, and 2 (n - 1) / n of the bytes. */
        wire = (ready > wire ? ready : wire) + 2 * r->latency +
               2.0 * (r->size - 1) / r->size * (double)size / r->bandwidth;
        size = 0;
    }
    return wire;
}

/* Rank 0's choice; the others' clocks may say something else. */
static mx_status choose_buckets(struct ranks *r, double seconds, struct mxrt_why *why) {
    uint64_t best = 0;
    if (r->options.bucket) {
        best = r->options.bucket;
    } else {
        double least = 0;
        for (uint64_t bytes = 1 << 14; bytes <= 1 << 28; bytes *= 2) {
            double end = arrival(r, bytes, seconds);
            if (!best || end < least) {
                least = end;
                best = bytes;
            }
        }
    }
    mx_status status = ranks_broadcast(r, &best, sizeof best, why);
    if (status != MX_OK)
        return status;
    buckets_free(r);
    return buckets_make(r, (size_t)best, why);
}

/* ---- opening ----------------------------------------------------------------------------------------------------------- */

static const struct mxrt_function *step_of(const struct mxrt_program *p) {
    for (int i = 0; i < p->setting_count; i++)
        if (strcmp(p->settings[i].key, "step") == 0 && p->settings[i].value->kind == MXRT_NAME)
            for (int k = 0; k < p->function_count; k++)
                if (strcmp(p->functions[k].name, p->settings[i].value->s) == 0)
                    return &p->functions[k];
    return NULL;
}

static mx_status allocate(struct ranks *r, struct mxrt_why *why) {
    const struct mxrt_split *s = r->split;
    const size_t keys = (size_t)s->key_count + 1, groups = (size_t)s->group_count + 1,
                 buffers = (size_t)r->p->buffer_count + 1;
    r->keys = calloc(keys, sizeof *r->keys);
    r->offset = calloc(keys, sizeof *r->offset);
    r->bucket_of = calloc(keys, sizeof *r->bucket_of);
    r->applied = calloc(groups, sizeof *r->applied);
    r->is_copied = calloc(groups, sizeof *r->is_copied);
    r->copies = calloc(buffers, sizeof *r->copies);
    r->carried[0] = calloc(buffers, sizeof *r->carried[0]);
    r->carried[1] = calloc(buffers, sizeof *r->carried[1]);
    size_t bytes = 0;
    if (r->offset)
        for (int i = 0; i < s->key_count; i++) {
            const struct mxrt_key *k = &s->keys[s->final_order[i]];
            r->offset[s->final_order[i]] = bytes;
            bytes += ((size_t)k->elements * mxrt_dtype_size(k->dtype) + ALIGN - 1) / ALIGN * ALIGN;
        }
    r->status_count = STATUS_HEAD + r->step->result_count;
    size_t status_at = bytes;
    bytes += sizeof(float) * (size_t)r->status_count;
    /* Zeros: between tensors, what fills their lines is summed with them. */
    r->memory = aligned_alloc(ALIGN, (bytes + ALIGN - 1) / ALIGN * ALIGN);
    r->arena = aligned_alloc(ALIGN, ((size_t)s->arena + ALIGN) / ALIGN * ALIGN);
    if (!r->keys || !r->offset || !r->bucket_of || !r->applied || !r->is_copied || !r->copies || !r->carried[0] ||
        !r->carried[1] || !r->memory || !r->arena)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %zu bytes of gradients", bytes);
    memset(r->memory, 0, bytes);
    r->offset[s->key_count] = status_at;
    for (int i = 0; i < s->key_count; i++)
        r->keys[i] = r->memory + r->offset[i];
    r->status_vector = (float *)(void *)(r->memory + status_at);
    return MX_OK;
}

mx_status ranks_open(struct ranks **out, const struct mxrt_program *p, struct mxrt_net *net,
                     const struct ranks_options *options, struct mxrt_why *why) {
    struct ranks *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r) {
        mxrt_net_close(net);
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory");
    }
    r->p = p;
    r->split = p->split;
    r->options = *options;
    r->net = net;
    r->rank = mxrt_net_rank(net);
    r->size = mxrt_net_size(net);
    r->step = step_of(p);
    mx_status status = MX_OK;
    if (!p->split || !r->step)
        status =
            mxrt_fail(why, MX_ERROR_UNSUPPORTED,
                      "--kvstore %s: this program trains in one process: it was made with --no-ranks", options->store);
    else if (p->split->why_not)
        status = mxrt_fail(why, MX_ERROR_UNSUPPORTED, "--kvstore %s: `%s` cannot be split over ranks: %s",
                           options->store, r->step->name, p->split->why_not);
    const struct mxrt_engine_options one = {.threads = 1};
    const struct mxrt_kv_options kv = {.net = net, .servers = options->servers};
    if (status == MX_OK)
        status = allocate(r, why);
    if (status == MX_OK)
        status = mxrt_engine_create(&r->engine, &one, why);
    if (status == MX_OK)
        status = mxrt_kv_create(&r->kv, options->store, r->engine, &kv, why);
    if (status == MX_OK && options->compression != MXRT_KV_NONE)
        status = mxrt_kv_set_compression(r->kv, options->compression, options->threshold, why);
    if (status == MX_OK && r->size > 1 && !options->bucket)
        status = mxrt_net_measure(net, &r->latency, &r->bandwidth, why);
    r->bandwidth = r->bandwidth > 0 ? r->bandwidth : 1e9;
    if (status == MX_OK) /* as if all gradients were there at once; the first step tells more */
        status = choose_buckets(r, 0, why);
    r->replan = r->size > 1 && !options->bucket;
    if (status != MX_OK) {
        mxrt_net_fail(net, why->text);
        ranks_close(r);
        return status;
    }
    *out = r;
    return MX_OK;
}

void ranks_close(struct ranks *r) {
    if (!r)
        return;
    buckets_free(r);
    mxrt_kv_destroy(r->kv);
    mxrt_engine_destroy(r->engine);
    mxrt_net_close(r->net);
    for (int i = 0; i < r->p->buffer_count; i++) {
        free(r->copies ? r->copies[i] : NULL);
        for (int k = 0; k < 2; k++)
            free(r->carried[k] ? r->carried[k][i] : NULL);
    }
    free(r->copies);
    free(r->carried[0]);
    free(r->carried[1]);
    free(r->memory);
    free(r->arena);
    free(r->keys);
    free(r->offset);
    free(r->bucket_of);
    free(r->applied);
    free(r->is_copied);
    free(r);
}

/* ---- sending --------------------------------------------------------------------------------------------------------- */

static void scale(mx_dtype t, void *data, int64_t n, float by) {
    float *x = data;
    double *wide = data;
    switch (t) {
    case MX_F32:
        for (int64_t i = 0; i < n; i++)
            x[i] *= by;
        break;
    case MX_F64:
        for (int64_t i = 0; i < n; i++)
            wide[i] *= (double)by;
        break;
    default:
        for (int64_t i = 0; i < n; i++)
            (void)mxrt_put(t, data, i, mxrt_get(t, data, i) * (double)by);
        break;
    }
}

/* The rows that are not zeros, one behind the other. */
static void gather_rows(const struct ranks *r, struct bucket *b) {
    const unsigned char *from = r->memory + offset_at(r, b->first);
    size_t row = (size_t)b->value.row_elements * mxrt_dtype_size(b->value.dtype);
    int64_t rows = b->value.elements / b->value.row_elements;
    b->row_count = 0;
    for (int64_t i = 0; i < rows && b->row_count < b->value.room; i++) {
        const unsigned char *at = from + (size_t)i * row;
        if (at[0] == 0 && memcmp(at, at + 1, row - 1) == 0)
            continue;
        memcpy((unsigned char *)b->value.data + (size_t)b->row_count * row, at, row);
        b->value.ids[b->row_count++] = i;
    }
}

/* Every row that was not zero here is among the sum's. */
static void scatter_rows(const struct ranks *r, struct bucket *b) {
    unsigned char *to = r->memory + offset_at(r, b->first);
    size_t row = (size_t)b->value.row_elements * mxrt_dtype_size(b->value.dtype);
    for (int64_t i = 0; i < b->row_count; i++)
        memcpy(to + (size_t)b->value.ids[i] * row, (unsigned char *)b->value.data + (size_t)i * row, row);
    b->row_count = 0;
}

static void place_final(struct ranks *r, int key) {
    struct bucket *b = &r->buckets[r->bucket_of[key]];
    if (--b->waiting > 0)
        return;
    if (b->value.is_sparse)
        gather_rows(r, b);
    b->version++;
    if (!r->failed && mxrt_kv_all_reduce(r->kv, r->steps << 16 | (uint64_t)(b - r->buckets), &b->value, b->priority,
                                         &r->why) != MX_OK)
        r->failed = true;
}

static void on_final(void *context, int key) {
    struct ranks *r = context;
    scale(r->split->keys[key].dtype, r->keys[key], r->split->keys[key].elements, r->weight);
    place_final(r, key);
}

/* ---- applying -------------------------------------------------------------------------------------------------------- */

static bool wait_bucket(struct ranks *r, struct bucket *b) {
    if (r->failed)
        return false;
    if (mxrt_engine_wait_var(r->engine, b->value.variable, &r->why) != MX_OK)
        r->failed = true;
    else if (b->value.is_sparse)
        scatter_rows(r, b);
    return !r->failed;
}

/* Whether all of the step under way has arrived; waits only for what is there. */
static bool all_arrived(struct ranks *r) {
    for (int i = 0; i < r->bucket_count && !r->arrived; i++)
        if (mxrt_var_version(r->engine, r->buckets[i].value.variable) < r->buckets[i].step_version)
            return false;
    for (int i = 0; i < r->bucket_count && !r->arrived; i++)
        if (!wait_bucket(r, &r->buckets[i]))
            return false;
    return r->arrived = true;
}

static mx_status copy_buffers(struct ranks *r, const bool *which, unsigned char **copies, bool back) {
    for (int i = 0; i < r->p->buffer_count; i++) {
        mx_tensor t;
        if (!which[i])
            continue;
        mx_status status = r->p->buffer(r->model, i, &t);
        if (status != MX_OK)
            return mxrt_fail(&r->why, status, "%s", r->p->error(r->model));
        if (!copies[i] && !(copies[i] = malloc(t.bytes ? t.bytes : 1)))
            return mxrt_fail(&r->why, MX_ERROR_MEMORY, "no memory for a copy of %s", r->p->buffer_names[i]);
        if (back)
            memcpy(t.data, copies[i], t.bytes);
        else
            memcpy(copies[i], t.data, t.bytes);
    }
    return MX_OK;
}

static mx_status copy_group(struct ranks *r, int group, bool back) {
    bool *which = calloc((size_t)r->p->buffer_count + 1, sizeof *which);
    if (!which)
        return mxrt_fail(&r->why, MX_ERROR_MEMORY, "no memory");
    for (int i = 0; i < r->p->buffer_count; i++)
        which[i] = r->split->buffer_group[i] == group;
    mx_status status = copy_buffers(r, which, r->copies, back);
    free(which);
    return status;
}

static mx_status run_group(struct ranks *r, int group) {
    if (!all_arrived(r)) {
        if (r->failed)
            return MX_ERROR_PEER;
        mx_status status = copy_group(r, group, false);
        if (status != MX_OK)
            return status;
        r->is_copied[group] = true;
    }
    r->applied[group] = true;
    r->applied_count++;
    mx_status status = r->split->apply(r->model, r->arena, group, r->args, r->keys);
    return status == MX_OK ? MX_OK : mxrt_fail(&r->why, status, "%s", r->p->error(r->model));
}

static mx_status on_need(void *context, int group) {
    struct ranks *r = context;
    if (!r->pending || r->applied[group])
        return MX_OK;
    const struct mxrt_group *g = &r->split->groups[group];
    for (int i = 0; i < g->key_count; i++)
        if (!wait_bucket(r, &r->buckets[r->bucket_of[g->keys[i]]]))
            return MX_ERROR_PEER;
    if (g->key_count == 0) /* what the others read: after them */
        for (int i = 0; i < r->split->group_count; i++)
            if (i != group) {
                mx_status status = on_need(r, i);
                if (status != MX_OK)
                    return status;
            }
    return run_group(r, group);
}

static mx_status finish_groups(struct ranks *r) {
    mx_status status = MX_OK;
    for (int i = 0; i < r->split->group_count && status == MX_OK; i++)
        status = on_need(r, r->split->need_order[i]);
    return status;
}

/* ---- a step ------------------------------------------------------------------------------------------------------------ */

static void tell(struct ranks *r) {
    const float *v = r->status_vector;
    if (r->told)
        return;
    r->told = true;
    r->done = (struct ranks_done){.any = true,
                                  .stop = v[0] > 0,
                                  .samples = (int64_t)((double)v[1] + 0.5),
                                  .labels = (int64_t)((double)v[2] + 0.5)};
    for (int i = 0; i < r->step->result_count && i < 64; i++)
        r->done.values[i] = (double)v[STATUS_HEAD + i];
}

/* Waits until the step under way has arrived whole. */
static mx_status arrive(struct ranks *r) {
    for (int i = 0; i < r->bucket_count && r->pending && !r->arrived; i++)
        if (!wait_bucket(r, &r->buckets[i]))
            return MX_ERROR_PEER;
    r->arrived = true;
    if (r->pending)
        tell(r);
    return MX_OK;
}

static void put_status(struct ranks *r, const struct ranks_batch *b) {
    float *v = r->status_vector;
    memset(v, 0, sizeof *v * (size_t)r->status_count);
    v[0] = b->stop ? 1 : 0;
    v[1] = (float)b->n;
    v[2] = (float)b->labels;
    for (int i = 0; i < r->step->result_count && b->n; i++)
        if (r->step->results[i].rank == 0 && !r->split->result_is_late[i]) {
            mx_dtype t = r->step->results[i].dtype;
            v[STATUS_HEAD + i] = (float)(mxrt_get(t, b->results[i], 0) * (t < MX_I64 ? (double)r->weight : 1.0));
        }
}

static mx_status compute(struct ranks *r, const struct ranks_batch *b) {
    const struct mxrt_exchange x = {r, on_need, on_final, b->first, b->total};
    if (b->n) {
        mx_status status = r->split->gradients(r->model, b->dims, b->args, b->results, r->keys, &x);
        if (status != MX_OK && !r->failed && status != MX_ERROR_PEER)
            (void)mxrt_fail(&r->why, status, "%s", r->p->error(r->model));
        return r->failed ? MX_ERROR_PEER : status;
    }
    mx_status status = finish_groups(r);
    for (int i = 0; i < r->split->key_count && status == MX_OK; i++) {
        const struct mxrt_key *k = key_at(r, i);
        memset(r->keys[r->split->final_order[i]], 0, (size_t)k->elements * mxrt_dtype_size(k->dtype));
        on_final(r, r->split->final_order[i]);
    }
    return status;
}

/* What this step takes with it to the next call: its scalars. */
static void keep_scalars(struct ranks *r, const struct ranks_batch *b) {
    for (int i = 0; i < r->step->arg_count && i < SCALARS; i++) {
        r->args[i] = NULL;
        if (r->step->args[i].rank > 0)
            continue;
        memcpy(&r->scalars[i], b->args[i], mxrt_dtype_size(r->step->args[i].dtype));
        r->args[i] = &r->scalars[i];
    }
}

/* The results that need averages; an average that every rank has alike. */
static mx_status report(struct ranks *r, const struct ranks_batch *b) {
    mx_status status = arrive(r);
    if (status == MX_OK && (status = r->split->report(r->model, r->arena, b->args, b->results, r->keys)) != MX_OK)
        return mxrt_fail(&r->why, status, "%s", r->p->error(r->model));
    for (int i = 0; i < r->step->result_count && i < 64 && status == MX_OK; i++)
        if (r->split->result_is_late[i] && r->step->results[i].rank == 0)
            r->done.values[i] = mxrt_get(r->step->results[i].dtype, b->results[i], 0);
    return status;
}

static mx_status begin(struct ranks *r) {
    if (r->replan && r->steps == 1) {
        mx_status status = arrive(r);
        if (status == MX_OK)
            status = finish_groups(r);
        if (status == MX_OK)
            status = choose_buckets(r, r->seconds, &r->why);
        if (status != MX_OK)
            return status;
        r->pending = false;
        r->replan = false;
    }
    for (int i = 0; i < r->bucket_count; i++)
        r->buckets[i].waiting = r->buckets[i].count;
    r->slot ^= 1;
    r->calls[r->slot] = r->p->calls(r->model);
    return copy_buffers(r, r->split->buffer_is_carried, r->carried[r->slot], false);
}

static mx_status give(struct ranks *r, mx_status status, struct ranks_done *done, struct mxrt_why *why) {
    *done = r->done;
    r->done.any = false;
    if (status != MX_OK)
        *why = r->why;
    return status;
}

mx_status ranks_step(struct ranks *r, void *model, const struct ranks_batch *b, struct ranks_done *done,
                     struct mxrt_why *why) {
    r->model = model;
    r->weight = (float)((double)b->n / (double)b->total);
    mx_status status = begin(r);
    if (status != MX_OK)
        return give(r, status, done, why);
    r->in_step = true;
    double start = mxrt_seconds();
    status = compute(r, b);
    r->seconds = mxrt_seconds() - start;
    if (status == MX_OK && r->pending && (status = finish_groups(r)) == MX_OK)
        status = arrive(r);
    if (status != MX_OK)
        return give(r, status, done, why);
    r->in_step = false;
    r->pending = true;
    r->told = r->arrived = false;
    r->applied_count = 0;
    memset(r->applied, 0, sizeof *r->applied * (size_t)r->split->group_count);
    memset(r->is_copied, 0, sizeof *r->is_copied * (size_t)r->split->group_count);
    keep_scalars(r, b);
    put_status(r, b);
    place_final(r, r->split->key_count);
    for (int i = 0; i < r->bucket_count; i++)
        r->buckets[i].step_version = r->buckets[i].version;
    r->steps++;
    if (r->failed)
        status = MX_ERROR_PEER;
    else if (r->split->has_report)
        status = report(r, b);
    return give(r, status, done, why);
}

mx_status ranks_settle(struct ranks *r, void *model, struct ranks_done *done, struct mxrt_why *why) {
    r->model = model;
    mx_status status = r->pending ? finish_groups(r) : MX_OK;
    if (status == MX_OK)
        status = arrive(r);
    if (status == MX_OK)
        r->pending = false;
    return give(r, status, done, why);
}

void ranks_recover(struct ranks *r, void *model, struct ranks_done *done, int *undone) {
    r->model = model;
    *undone = 0;
    if (r->in_step) { /* what it has changed on its way */
        (void)copy_buffers(r, r->split->buffer_is_carried, r->carried[r->slot], true);
        r->p->set_calls(model, r->calls[r->slot]);
    }
    if (r->pending && !r->failed && arrive(r) == MX_OK && finish_groups(r) == MX_OK) {
        r->pending = false;
    } else if (r->pending) {
        int slot = r->in_step ? r->slot ^ 1 : r->slot;
        for (int g = 0; g < r->split->group_count; g++)
            if (r->is_copied[g])
                (void)copy_group(r, g, true);
        (void)copy_buffers(r, r->split->buffer_is_carried, r->carried[slot], true);
        r->p->set_calls(model, r->calls[slot]);
        r->pending = false;
        *undone = 1;
    }
    r->in_step = false;
    *done = r->done;
    r->done.any = false;
}
