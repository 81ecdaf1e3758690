/* Averages through servers (--servers K): the first K ranks also keep parameters, each its keys, with a model of their own whose groups are the
 * updater. A key is pushed as soon as it is final and its parameter pulled into the same memory, from which it goes into
 * the model when a group is needed. A gradient with few rows goes as those, and of its parameter the rows come back that changed.
 * dist_sync: the server waits for every rank; dist_async: each gradient is applied when it arrives.
 *
 * A group must have one key, since a server sees keys one by one. What changes without a key (a step counter) goes with each key: it
 * is kept as it was after the key's last update, so that keys may be at different steps. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "ranks_internal.h"

struct servers {
    struct mxrt_var *vars;      /* [key_count + 1] */
    struct mxrt_kv_value *rows; /* [key_count] gradients that go as rows; of others is_sparse is false */
    void **parameters;          /* [key_count] what came back for those */
    int last;                   /* the group without keys; -1 */
    /* of a server */
    pthread_mutex_t lock;
    void *model;
    unsigned char *arena;
    void **keys;
    void *gradient;         /* one that came as rows, for the updater */
    int64_t *updates;       /* [key_count] */
    unsigned char **before; /* [key_count]: the buffers of the last group, one behind the other */
    size_t before_bytes;
};

/* The buffer that a server answers with. */
static mx_status tensor_of(const struct ranks *r, void *model, int key, mx_tensor *t) {
    return r->p->buffer(model, r->split->keys[key].buffer, t);
}

/* The last group's buffers to or from one piece of memory. */
static mx_status swap_last(struct ranks *r, int key, bool back) {
    struct servers *s = r->own;
    unsigned char *at = s->before[key];
    for (int i = 0; i < r->p->buffer_count; i++) {
        mx_tensor t;
        if (s->last < 0 || r->split->buffer_group[i] != s->last)
            continue;
        mx_status status = r->p->buffer(s->model, i, &t);
        if (status != MX_OK)
            return status;
        memcpy(back ? t.data : at, back ? at : t.data, t.bytes);
        at += t.bytes;
    }
    return MX_OK;
}

static mx_status update_locked(struct ranks *r, int key, const struct mxrt_kv_value *gradient,
                               struct mxrt_kv_value *stored, struct mxrt_why *why) {
    struct servers *s = r->own;
    const struct mxrt_split *split = r->split;
    double storage[SCALARS];
    void *args[SCALARS];
    mx_tensor t;
    int64_t n = s->updates[key]++;
    mx_status status = r->schedule.scalars(r->schedule.context, ranks_apart(r) ? n / r->size : n, storage, args, why);
    if (status == MX_OK)
        status = tensor_of(r, s->model, key, &t);
    if (status == MX_OK)
        status = swap_last(r, key, true);
    if (status != MX_OK)
        return status;
    memcpy(t.data, stored->data, t.bytes);
    s->keys[key] = gradient->data;
    if (gradient->is_sparse) { /* rows that did not come are zero: the optimizer changes all that it would change */
        memset(s->gradient, 0, t.bytes);
        ranks_rows_scatter(gradient, s->gradient);
        s->keys[key] = s->gradient;
    }
    status = split->apply(s->model, s->arena, split->keys[key].group, args, s->keys);
    if (status == MX_OK && s->last >= 0)
        status = split->apply(s->model, s->arena, s->last, args, s->keys);
    if (status != MX_OK)
        return mxrt_fail(why, status, "%s", r->p->error(s->model));
    memcpy(stored->data, t.data, t.bytes);
    return swap_last(r, key, false);
}

static mx_status update(void *context, struct mxrt_kv_key key, const struct mxrt_kv_value *gradient,
                        struct mxrt_kv_value *stored, struct mxrt_why *why) {
    struct ranks *r = context;
    struct servers *s = r->own;
    pthread_mutex_lock(&s->lock);
    mx_status status = update_locked(r, (int)key.number, gradient, stored, why);
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* ---- opening ----------------------------------------------------------------------------------------------------------- */

static mx_status single_keys(const struct ranks *r, struct mxrt_why *why) {
    for (int g = 0; g < r->split->group_count; g++)
        if (r->split->groups[g].key_count > 1)
            return mxrt_fail(
                why, MX_ERROR_UNSUPPORTED,
                "--servers: the update of %s also depends on the gradient of %s (are they clipped by a common norm, or is it --precision f16?), but "
                "servers see one at a time; leave --servers out",
                r->split->keys[r->split->groups[g].keys[0]].name, r->split->keys[r->split->groups[g].keys[1]].name);
    return r->split->has_report
               ? mxrt_fail(why, MX_ERROR_UNSUPPORTED,
                           "--servers: a result of `%s` depends on averaged gradients, which only servers "
                           "have; leave --servers out",
                           r->step->name)
               : MX_OK;
}

static size_t largest_by_rows(const struct ranks *r) {
    size_t largest = 0;
    for (int i = 0; i < r->split->key_count; i++) {
        const struct mxrt_key *k = &r->split->keys[i];
        const size_t bytes = (size_t)k->elements * mxrt_dtype_size(k->dtype);
        largest = ranks_rows_pay(k, 1) && bytes > largest ? bytes : largest;
    }
    return largest;
}

static mx_status open_server(struct ranks *r, void *model, struct mxrt_why *why) {
    struct servers *s = r->own;
    const size_t keys = (size_t)r->split->key_count + 1;
    if (r->p->create(r->p, &s->model, 0, 1) != MX_OK)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for the server's model");
    mx_status status = MX_OK;
    for (int i = 0; i < r->p->buffer_count && status == MX_OK; i++) {
        mx_tensor from, to;
        if ((status = r->p->buffer(model, i, &from)) == MX_OK && (status = r->p->buffer(s->model, i, &to)) == MX_OK) {
            memcpy(to.data, from.data, from.bytes);
            s->before_bytes += s->last >= 0 && r->split->buffer_group[i] == s->last ? from.bytes : 0;
        }
    }
    s->arena = aligned_alloc(64, ((size_t)r->split->arena + 64) / 64 * 64);
    s->keys = calloc(keys, sizeof *s->keys);
    s->updates = calloc(keys, sizeof *s->updates);
    s->gradient = malloc(largest_by_rows(r) + 1);
    s->before = calloc(keys, sizeof *s->before);
    if (!s->arena || !s->keys || !s->gradient || !s->updates || !s->before)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for the server");
    for (int k = 0; k < r->split->key_count && status == MX_OK; k++) {
        if (!(s->before[k] = malloc(s->before_bytes + 1)))
            return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for the server");
        s->updates[k] = r->schedule.done * (ranks_apart(r) ? r->size : 1);
        status = swap_last(r, k, false);
    }
    return status;
}

/* A key whose gradients go as rows begins as all of its rows. */
static mx_status open_rows(struct ranks *r, int key, struct mxrt_kv_value *first, struct mxrt_why *why) {
    struct servers *s = r->own;
    const struct mxrt_key *k = &r->split->keys[key];
    struct mxrt_kv_value *v = &s->rows[key];
    *v = (struct mxrt_kv_value){.dtype = first->dtype, .elements = first->elements, .variable = first->variable};
    mx_status status = ranks_rows_open(k, 1, v, why);
    if (status != MX_OK)
        return status;
    const int64_t rows = k->elements / k->row_elements;
    s->parameters[key] = malloc((size_t)k->elements * mxrt_dtype_size(k->dtype));
    first->ids = malloc((size_t)rows * sizeof *first->ids);
    first->rows = malloc(sizeof *first->rows);
    if (!s->parameters[key] || !first->ids || !first->rows)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for the rows of %s", k->name);
    first->is_sparse = true;
    first->row_elements = k->row_elements;
    first->room = *first->rows = rows;
    for (int64_t i = 0; i < rows; i++)
        first->ids[i] = i;
    return MX_OK;
}

static mx_status open_servers(struct ranks *r, void *model, struct mxrt_why *why) {
    struct servers *s = r->own = calloc(1, sizeof *s);
    const int n = r->split->key_count;
    struct mxrt_kv_key *keys = calloc((size_t)n + 1, sizeof *keys);
    struct mxrt_kv_value *values = calloc((size_t)n + 1, sizeof *values);
    if (s) {
        pthread_mutex_init(&s->lock, NULL);
        s->vars = calloc((size_t)n + 1, sizeof *s->vars);
        s->rows = calloc((size_t)n + 1, sizeof *s->rows);
        s->parameters = calloc((size_t)n + 1, sizeof *s->parameters);
        s->last = -1;
    }
    mx_status status = s && s->vars && s->rows && s->parameters && keys && values
                           ? single_keys(r, why)
                           : mxrt_fail(why, MX_ERROR_MEMORY, "no memory");
    for (int g = 0; g < r->split->group_count && status == MX_OK; g++)
        s->last = r->split->groups[g].key_count ? s->last : g;
    if (status == MX_OK && r->rank < r->options.servers)
        status = open_server(r, model, why);
    for (int i = 0; i <= n && status == MX_OK; i++)
        status = mxrt_var_new(r->engine, "parameters", &s->vars[i], why);
    if (status == MX_OK)
        status = mxrt_kv_set_updater(r->kv, update, r, why);
    for (int i = 0; i < n && status == MX_OK; i++) {
        mx_tensor t;
        status = tensor_of(r, model, i, &t);
        keys[i].number = i;
        values[i] = (struct mxrt_kv_value){
            .dtype = t.dtype, .elements = r->split->keys[i].elements, .data = t.data, .variable = s->vars[i]};
        if (status == MX_OK && ranks_rows_pay(&r->split->keys[i], 1))
            status = open_rows(r, i, &values[i], why);
    }
    if (status == MX_OK)
        status = mxrt_kv_init(r->kv, n, keys, values, why);
    for (int i = 0; values && i < n; i++) {
        free(values[i].ids);
        free(values[i].rows);
    }
    free(keys);
    free(values);
    return status;
}

static void close_servers(struct ranks *r) {
    struct servers *s = r->own;
    if (!s)
        return;
    for (int i = 0; i < r->split->key_count && s->before; i++)
        free(s->before[i]);
    for (int i = 0; i < r->split->key_count && s->rows && s->parameters; i++) {
        if (s->rows[i].is_sparse)
            ranks_rows_close(&s->rows[i]);
        free(s->parameters[i]);
    }
    if (s->model)
        r->p->destroy(s->model);
    pthread_mutex_destroy(&s->lock);
    free(s->vars);
    free(s->rows);
    free(s->parameters);
    free(s->arena);
    free(s->keys);
    free(s->gradient);
    free(s->updates);
    free(s->before);
    free(s);
}

/* Moments and counters are the servers'. */
static mx_status collect(struct ranks *r, void *model, struct mxrt_why *why) {
    struct servers *s = r->own;
    mx_status status = MX_OK;
    for (int i = 0; i < r->p->buffer_count && status == MX_OK; i++) {
        int g = r->split->buffer_group[i], owner = 0;
        mx_tensor t, kept;
        if (g < 0 || (status = r->p->buffer(model, i, &t)) != MX_OK)
            continue;
        if (g != s->last)
            owner = mxrt_kv_server(r->kv, (struct mxrt_kv_key){NULL, r->split->groups[g].keys[0]});
        if (owner == r->rank && (status = r->p->buffer(s->model, i, &kept)) == MX_OK)
            memcpy(t.data, kept.data, t.bytes);
        if (status == MX_OK)
            status = ranks_broadcast(r, owner, t.data, t.bytes, why);
    }
    return status;
}

/* ---- a step ------------------------------------------------------------------------------------------------------------ */

static mx_status begin(struct ranks *r) {
    (void)r;
    return MX_OK;
}

static mx_status push(struct ranks *r, int key) {
    const struct servers *s = r->own;
    const struct mxrt_key *k = &r->split->keys[key];
    const struct mxrt_kv_key name = {NULL, key};
    struct mxrt_kv_value v = {
        .dtype = k->dtype, .elements = k->elements, .data = r->keys[key], .variable = s->vars[key]};
    const int priority = ranks_priority(r, k->group);
    if (s->rows[key].is_sparse) {
        ranks_rows_gather(&s->rows[key], v.data);
        v.data = s->parameters[key];
        v.is_kept = true;
        return mxrt_kv_pushpull(r->kv, 1, &name, &s->rows[key], &v, priority, &r->why);
    }
    if (r->residual && k->dtype == MX_F32)
        v.residual = r->residual + r->offset[key] / sizeof *r->residual;
    return mxrt_kv_pushpull(r->kv, 1, &name, &v, NULL, priority, &r->why);
}

static void send(struct ranks *r, int key) {
    const struct servers *s = r->own;
    struct mxrt_kv_value v = {
        .dtype = MX_F64, .elements = r->status_count, .data = r->status_vector, .variable = s->vars[key]};
    mx_status status = MX_OK;
    if (r->failed)
        return;
    if (key < r->split->key_count)
        status = push(r, key);
    else if (!ranks_apart(r))
        status = mxrt_kv_all_reduce(r->kv, 0, &v, 0, &r->why);
    if (status != MX_OK)
        (void)ranks_failed(r, status);
}

static mx_status computed(struct ranks *r) {
    (void)r;
    return MX_OK;
}

static mx_status wait_key(struct ranks *r, int key) {
    const struct servers *s = r->own;
    return ranks_wait(r, s->vars[key]);
}

static mx_status wait_group(struct ranks *r, int group) {
    const struct mxrt_group *g = &r->split->groups[group];
    return g->key_count ? wait_key(r, g->keys[0]) : MX_OK;
}

static mx_status change(struct ranks *r, int group) {
    const struct servers *s = r->own;
    const struct mxrt_group *g = &r->split->groups[group];
    mx_tensor t;
    mx_status status = g->key_count ? tensor_of(r, r->model, g->keys[0], &t) : MX_OK;
    if (status == MX_OK && g->key_count)
        memcpy(t.data, s->rows[g->keys[0]].is_sparse ? s->parameters[g->keys[0]] : r->keys[g->keys[0]], t.bytes);
    return status;
}

static mx_status arrive(struct ranks *r) {
    mx_status status = MX_OK;
    for (int i = 0; i <= r->split->key_count && status == MX_OK; i++)
        status = wait_key(r, i);
    return status;
}

const struct ranks_way ranks_servers = {.open = open_servers,
                                        .close = close_servers,
                                        .begin = begin,
                                        .send = send,
                                        .computed = computed,
                                        .wait = wait_group,
                                        .change = change,
                                        .arrive = arrive,
                                        .collect = collect};
