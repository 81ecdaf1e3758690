/* Opening and closing a rank, and the collectives that block: before the first step, between epochs, for checkpoints. */
#include "ranks.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ranks_internal.h"

enum { ALIGN = 64 };

int ranks_rank(const struct ranks *r) {
    return r ? r->rank : 0;
}

int ranks_count(const struct ranks *r) {
    return r ? r->size : 1;
}

bool ranks_apart(const struct ranks *r) {
    return r && strcmp(r->options.store, "dist_async") == 0;
}

void ranks_fail(struct ranks *r, const char *message) {
    if (r)
        mxrt_net_fail(r->net, message);
}

float *ranks_residual(const struct ranks *r, size_t *bytes) {
    *bytes = r ? r->residual_bytes : 0;
    return r ? r->residual : NULL;
}

bool ranks_saves(const struct ranks *r) {
    for (int i = 0; i < r->p->buffer_count; i++)
        if (r->split->buffer_is_carried[i])
            return false;
    if (r->residual)
        return false;
    const int lost = mxrt_net_lost(r->net, NULL);
    int saver = lost == 0;
    /* A machine that is gone took all its ranks with it. */
    for (int i = 0; i < r->size && lost >= 0; i++)
        if (strcmp(r->hosts[i], r->hosts[lost]) != 0) {
            saver = i;
            break;
        }
    return ranks_undoes(r) && r->rank == saver;
}

int64_t ranks_part(const struct ranks *r, int64_t n, int64_t *first) {
    int rank = ranks_rank(r), size = ranks_count(r);
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

static struct waiter waiter_new(struct mxrt_why *why) {
    struct waiter w = {.why = why};
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.ended, NULL);
    return w;
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

/* The store's collectives have bit 63; those of a step are numbered from below. */
static uint64_t blocking_id(struct ranks *r) {
    return (uint64_t)1 << 62 | ++r->blocking;
}

mx_status ranks_broadcast(struct ranks *r, int root, void *data, size_t bytes, struct mxrt_why *why) {
    if (!r || !bytes)
        return MX_OK;
    struct waiter w = waiter_new(why);
    const struct mxrt_net_range x = {data, (int64_t)bytes, MX_U8};
    mxrt_net_broadcast(r->net, blocking_id(r), 0, root, x, wake, &w);
    return wait_for(&w);
}

mx_status ranks_sum(struct ranks *r, double *values, int count, struct mxrt_why *why) {
    if (!r || !count)
        return MX_OK;
    struct waiter w = waiter_new(why);
    const struct mxrt_net_range x = {values, count, MX_F64};
    mxrt_net_all_reduce(r->net, blocking_id(r), 0, x, wake, &w);
    return wait_for(&w);
}

mx_status ranks_gather(struct ranks *r, const void *mine, size_t bytes, void *all, struct mxrt_why *why) {
    struct waiter w = waiter_new(why);
    mxrt_net_all_gather(r->net, blocking_id(r), 0, mine, bytes, all, wake, &w);
    return wait_for(&w);
}

mx_status ranks_start(struct ranks *r, void *model, const struct ranks_schedule *schedule, struct mxrt_why *why) {
    mx_status status = MX_OK;
    if (!r)
        return MX_OK;
    for (int i = 0; i < r->p->buffer_count && status == MX_OK; i++) {
        mx_tensor t;
        if ((status = r->p->buffer(model, i, &t)) == MX_OK)
            status = ranks_broadcast(r, 0, t.data, t.bytes, why);
    }
    uint64_t calls = r->p->calls(model);
    if (status == MX_OK)
        status = ranks_broadcast(r, 0, &calls, sizeof calls, why);
    r->p->set_calls(model, calls);
    r->schedule = *schedule;
    return status == MX_OK ? r->way->open(r, model, why) : status;
}

mx_status ranks_collect(struct ranks *r, void *model, struct mxrt_why *why) {
    return r && r->way->collect ? r->way->collect(r, model, why) : MX_OK;
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
    r->applied = calloc(groups, sizeof *r->applied);
    r->is_copied = calloc(groups, sizeof *r->is_copied);
    r->copies = calloc(buffers, sizeof *r->copies);
    r->carried[0] = calloc(buffers, sizeof *r->carried[0]);
    r->carried[1] = calloc(buffers, sizeof *r->carried[1]);
    size_t bytes = 0;
    for (int place = 0; place < s->key_count && r->offset; place++) {
        const struct mxrt_key *k = ranks_key_at(r, place);
        r->offset[ranks_key_number(r, place)] = bytes;
        bytes += ((size_t)k->elements * mxrt_dtype_size(k->dtype) + ALIGN - 1) / ALIGN * ALIGN;
    }
    r->status_count = STATUS_HEAD + r->step->result_count;
    const size_t status_at = bytes, host = s->device ? 0 : status_at; /* the status, in this memory */
    bytes = host + sizeof *r->status_vector * (size_t)r->status_count;
    if (r->options.compression != MXRT_KV_NONE && r->size > 1) {
        r->residual = calloc(1, status_at + 1);
        r->residual_bytes = status_at;
    }
    r->memory_bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    r->memory = aligned_alloc(ALIGN, r->memory_bytes);
    r->arena = aligned_alloc(ALIGN, ((size_t)s->arena + ALIGN) / ALIGN * ALIGN);
    if (!r->keys || !r->offset || !r->applied || !r->is_copied || !r->copies || !r->carried[0] || !r->carried[1] ||
        !r->memory || !r->arena || (r->residual_bytes && !r->residual))
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %zu bytes of gradients", bytes);
    memset(r->memory, 0, bytes); /* what fills the tensors' last lines is summed with them */
    r->offset[s->key_count] = status_at;
    for (int i = 0; i < s->key_count && !s->device; i++)
        r->keys[i] = r->memory + r->offset[i];
    r->status_vector = (double *)(void *)(r->memory + host);
    return MX_OK;
}

static mx_status check(const struct ranks *r, struct mxrt_why *why) {
    const struct ranks_options *o = &r->options;
    if (!r->split || !r->step)
        return mxrt_fail(why, MX_ERROR_UNSUPPORTED,
                         "--kvstore %s: this program trains in one process: it was made with --no-ranks", o->store);
    if (r->split->why_not)
        return mxrt_fail(why, MX_ERROR_UNSUPPORTED, "--kvstore %s: `%s` cannot be split over ranks: %s", o->store,
                         r->step->name, r->split->why_not);
    if (ranks_apart(r) && !o->servers)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "--kvstore dist_async needs servers: add --servers 1");
    if (o->servers > r->size)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "--servers %d: servers are ranks, and there are %d", o->servers,
                         r->size);
    if (o->servers && o->shard)
        return mxrt_fail(why, MX_ERROR_ARGUMENT,
                         "--shard: optimizer state is split over all ranks, or kept by --servers: choose one");
    if ((o->servers || o->shard) && r->split->use_device)
        return mxrt_fail(why, MX_ERROR_UNSUPPORTED,
                         "--%s: the model is on a GPU, whose gradients are averaged by all-reduce",
                         o->servers ? "servers" : "shard");
    if (r->split->device && o->compression != MXRT_KV_NONE)
        return mxrt_fail(why, MX_ERROR_UNSUPPORTED,
                         "--compression: GPUs send gradients whole: leave it out, or build without --nccl");
    if (o->shard && o->compression != MXRT_KV_NONE)
        return mxrt_fail(why, MX_ERROR_ARGUMENT,
                         "--shard: gradients go to their owners whole: leave --compression or --shard out");
    return MX_OK;
}

static mx_status gather_hosts(struct ranks *r, struct mxrt_why *why) {
    char mine[HOST] = "";
    r->hosts = calloc((size_t)r->size, sizeof *r->hosts);
    if (!r->hosts)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for the names of %d machines", r->size);
    (void)gethostname(mine, sizeof mine - 1);
    mx_status status = ranks_gather(r, mine, sizeof mine, r->hosts, why);
    for (int i = 0; i < r->size; i++)
        r->hosts[i][HOST - 1] = 0;
    return status;
}

/* Ranks of one machine share its devices; one that averages is one rank's. */
static mx_status use_device(struct ranks *r, struct mxrt_why *why) {
    int local = 0, ranks = 0;
    if (!r->split->use_device)
        return MX_OK;
    for (int i = 0; i < r->size; i++) {
        const bool here = strcmp(r->hosts[i], r->hosts[r->rank]) == 0;
        ranks += here;
        local += here && i < r->rank;
    }
    const int count = r->split->device && r->size > 1 ? r->split->device->count() : ranks;
    if (ranks > count)
        return mxrt_fail(
            why, MX_ERROR_UNSUPPORTED,
            "%d ranks on %s, which has %d GPU%s: GPUs that average by NCCL have one rank each; mxcc build without "
            "--nccl lets ranks share them",
            ranks, r->hosts[r->rank], count, count == 1 ? "" : "s");
    r->split->use_device(local);
    if (!r->split->device)
        r->split->pin(r->memory, r->memory_bytes, true);
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
    r->way = options->servers ? &ranks_servers : options->shard ? &ranks_shards : &ranks_buckets;
    mx_status status = check(r, why);
    if (status == MX_OK) {
        r->way = r->split->device ? &ranks_device : r->way;
        status = allocate(r, why);
    }
    /* A server answers while its rank computes. */
    const struct mxrt_engine_options threads = {.threads = r->rank < options->servers ? 2 : 1};
    if (status == MX_OK)
        status = mxrt_engine_create(&r->engine, &threads, why);
    /* An updater takes whole tensors. Without servers tensors are in buckets already, which the store is to send apart, each by its
     * priority. */
    const size_t shared = options->servers ? options->bucket : 1;
    const struct mxrt_kv_options kv = {
        .net = net, .servers = options->servers, .bucket = shared, .big_array = INT64_MAX};
    if (status == MX_OK)
        status = mxrt_kv_create(&r->kv, options->store, r->engine, &kv, why);
    if (status == MX_OK && options->compression != MXRT_KV_NONE)
        status = mxrt_kv_set_compression(r->kv, options->compression, options->threshold, why);
    if (status == MX_OK && (status = gather_hosts(r, why)) == MX_OK)
        status = use_device(r, why);
    if (status != MX_OK) {
        mxrt_net_fail(net, why->text);
        ranks_close(r);
        return status;
    }
    *out = r;
    return MX_OK;
}

static void free_all(unsigned char **copies, int n) {
    for (int i = 0; i < n && copies; i++)
        free(copies[i]);
    free(copies);
}

void ranks_close(struct ranks *r) {
    if (!r)
        return;
    mxrt_kv_destroy(r->kv);
    r->way->close(r);
    mxrt_engine_destroy(r->engine);
    mxrt_net_close(r->net);
    free_all(r->copies, r->p->buffer_count);
    free_all(r->carried[0], r->p->buffer_count);
    free_all(r->carried[1], r->p->buffer_count);
    free(r->hosts);
    if (r->memory && r->split->use_device && !r->split->device)
        r->split->pin(r->memory, r->memory_bytes, false);
    free(r->memory);
    free(r->residual);
    free(r->arena);
    free(r->keys);
    free(r->offset);
    free(r->applied);
    free(r->is_copied);
    free(r);
}
