/* Averages that the devices make among themselves (mxcc --nccl): the tensors stay where `gradients` leaves them, the device sends them on a
 * stream of its own while the backward pass goes on, and what changes the model comes behind them there, so that the host waits for
 * none of it. Here they are cut into buckets, as in rank_buckets.c; the order in which buckets go is the final order of their keys, the
 * same on all ranks. The status goes over the net, which also hears of losses: the device's library would wait for ever.
 *
 * A sum has not arrived because other ranks are slow, or hang; the host asks for its turn again and again, and gives up when one sum has
 * kept it for as long as the net lets a rank keep others waiting. */
#include <stdlib.h>
#include <time.h>

#include "mxrt/progress.h"
#include "ranks_internal.h"

enum { USUAL_BYTES = 1 << 24 };

struct bucket {
    size_t at;
    int64_t elements;
    mx_dtype dtype;
    int waiting, count; /* keys */
};

struct device {
    struct bucket *at;
    int count, *of; /* [key_count] */
    struct mxrt_kv_value status;
    void *model, *id; /* id: what ranks find each other by */
    bool joined;
    int64_t average; /* that the host waits for, and since when */
    double since;
};

mx_status ranks_device_failed(struct ranks *r, mx_status status) {
    const struct device *d = r->own;
    if (r->failed)
        return status;
    (void)mxrt_fail(&r->why, status, "%s", r->p->error(d->model));
    /* The library sees a connection break at once; the net knows after a while whose it was. */
    const double end = mxrt_seconds() + mxrt_net_timeout(r->net) * 1.2;
    while (status == MX_ERROR_PEER && mxrt_net_lost(r->net, &r->why) < 0 && mxrt_seconds() < end) {
        mxrt_net_alive(r->net);
        (void)nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return ranks_failed(r, status);
}

static mx_status watch(void *context, int64_t average) {
    struct ranks *r = context;
    struct device *d = r->own;
    const double now = mxrt_seconds(), most = 2 * mxrt_net_timeout(r->net) + 1;
    mxrt_net_alive(r->net);
    if (mxrt_net_lost(r->net, &r->why) >= 0)
        return ranks_failed(r, MX_ERROR_PEER);
    if (!average || average != d->average) {
        d->average = average;
        d->since = now;
    } else if (now - d->since > most) {
        (void)mxrt_fail(
            &r->why, MX_ERROR_PEER,
            "NCCL: average %lld has kept rank %d for %.1f seconds, though all ranks give signs of life: --rank-timeout",
            (long long)average, r->rank, now - d->since);
        return ranks_failed(r, MX_ERROR_PEER);
    }
    return MX_OK;
}

/* ---- opening ---------------------------------------------------------------------------------------------------------- */

static size_t cut(struct ranks *r, size_t most) {
    struct device *d = r->own;
    size_t largest = 0;
    for (int place = 0; place < r->split->key_count;) {
        struct bucket *b = &d->at[d->count++];
        int end = ranks_bucket_end(r, place, most);
        end = end < r->split->key_count ? end : r->split->key_count; /* the status is not there */
        const struct mxrt_key *last = ranks_key_at(r, end - 1);
        b->at = r->offset[ranks_key_number(r, place)];
        b->dtype = last->dtype;
        b->count = end - place;
        b->elements =
            (int64_t)((r->offset[ranks_key_number(r, end - 1)] - b->at) / mxrt_dtype_size(b->dtype)) + last->elements;
        for (; place < end; place++)
            d->of[ranks_key_number(r, place)] = d->count - 1;
        const size_t bytes = (size_t)b->elements * mxrt_dtype_size(b->dtype);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

/* All ranks at once. */
static mx_status join(struct ranks *r, struct mxrt_why *why) {
    struct device *d = r->own;
    const size_t largest = cut(r, r->options.bucket ? r->options.bucket : USUAL_BYTES);
    const struct mxrt_device_rank rank = {.id = d->id,
                                          .rank = r->rank,
                                          .ranks = r->size,
                                          .fast = r->options.fast,
                                          .bytes = r->offset[r->split->key_count],
                                          .bucket_bytes = largest,
                                          .buckets = d->count,
                                          .watch = watch,
                                          .context = r};
    void *memory = NULL;
    d->joined = true;
    mx_status status = r->split->device->join(d->model, &rank, &memory);
    if (status != MX_OK) {
        (void)ranks_device_failed(r, status);
        *why = r->why;
        return status;
    }
    for (int i = 0; i < r->split->key_count; i++)
        r->keys[i] = (unsigned char *)memory + r->offset[i];
    return MX_OK;
}

static mx_status open_device(struct ranks *r, void *model, struct mxrt_why *why) {
    const struct mxrt_split *s = r->split;
    const char *message = NULL;
    mx_status status = MX_OK;
    struct device *d = r->own = calloc(1, sizeof *d);
    if (!d || !(d->id = calloc(1, s->device->id_bytes)) || !(d->at = calloc((size_t)s->key_count + 1, sizeof *d->at)) ||
        !(d->of = calloc((size_t)s->key_count + 1, sizeof *d->of)))
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for buckets");
    d->model = model;
    if (r->rank == 0 && (status = s->device->identify(d->id, &message)) != MX_OK)
        return mxrt_fail(why, status, "%s", message);
    if ((status = ranks_broadcast(r, 0, d->id, s->device->id_bytes, why)) != MX_OK || (status = join(r, why)) != MX_OK)
        return status;
    d->status = (struct mxrt_kv_value){.data = r->status_vector, .elements = r->status_count, .dtype = MX_F64};
    return mxrt_var_new(r->engine, "status", &d->status.variable, why);
}

static void close_device(struct ranks *r) {
    struct device *d = r->own;
    if (!d)
        return;
    if (d->joined)
        r->split->device->leave(d->model, mxrt_net_lost(r->net, NULL) >= 0);
    if (d->status.data && r->engine)
        (void)mxrt_var_delete(r->engine, d->status.variable, NULL, NULL, NULL);
    free(d->id);
    free(d->at);
    free(d->of);
    free(d);
}

/* ---- a step ------------------------------------------------------------------------------------------------------------ */

static mx_status begin(struct ranks *r) {
    struct device *d = r->own;
    for (int i = 0; i < d->count; i++)
        d->at[i].waiting = d->at[i].count;
    return MX_OK;
}

static void send(struct ranks *r, int key) {
    struct device *d = r->own;
    if (r->failed)
        return;
    if (key == r->split->key_count) {
        mx_status status = mxrt_kv_all_reduce(r->kv, 0, &d->status, 0, &r->why);
        if (status != MX_OK)
            (void)ranks_failed(r, status);
        return;
    }
    struct bucket *b = &d->at[d->of[key]];
    if (--b->waiting > 0)
        return;
    mx_status status = r->split->device->average(r->model, d->of[key], b->at, b->elements, b->dtype);
    if (status != MX_OK)
        (void)ranks_device_failed(r, status);
}

/* On the device, all that follows does. */
static mx_status wait_group(struct ranks *r, int group) {
    struct device *d = r->own;
    const struct mxrt_group *g = &r->split->groups[group];
    for (int i = 0; i < g->key_count; i++) {
        mx_status status = r->failed ? MX_ERROR_PEER : r->split->device->need(r->model, d->of[g->keys[i]]);
        if (status != MX_OK)
            return ranks_device_failed(r, status);
    }
    return MX_OK;
}

static mx_status change(struct ranks *r, int group) {
    return ranks_apply(r, r->model, group, r->args, r->keys);
}

static mx_status computed(struct ranks *r) {
    (void)r;
    return MX_OK;
}

/* Within a step the sums of the one before it have been there, since the step's own gradients came behind them. */
static mx_status arrive(struct ranks *r) {
    struct device *d = r->own;
    mx_status status = ranks_wait(r, d->status.variable);
    if (status == MX_OK && !r->in_step && (status = r->split->device->arrive(r->model)) != MX_OK)
        return ranks_device_failed(r, status);
    return status;
}

const struct ranks_way ranks_device = {.open = open_device,
                                       .close = close_device,
                                       .begin = begin,
                                       .send = send,
                                       .computed = computed,
                                       .wait = wait_group,
                                       .change = change,
                                       .arrive = arrive};
