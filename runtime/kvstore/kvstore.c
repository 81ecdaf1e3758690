/* The store as a whole: making and ending it, what is set once, and what can be asked. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

static const char *const type_names[] = {"local", "device", "dist_sync", "dist_device_sync", "dist_async"};
enum { TYPES = sizeof type_names / sizeof *type_names };

static bool same_name(const char *a, const char *b) {
    while (*a && tolower((unsigned char)*a) == *b) {
        a++;
        b++;
    }
    return !*a && !*b;
}

static mx_status read_options(struct mxrt_kvstore *kv, const char *type, const struct mxrt_kv_options *o,
                              struct mxrt_why *why) {
    int t = 0;
    while (t < TYPES && !(type && same_name(type, type_names[t])))
        t++;
    if (t == TYPES)
        return mxrt_fail(
            why, MX_ERROR_ARGUMENT,
            "`%.40s` is no type of store; those are local, device, dist_sync, dist_device_sync, dist_async",
            type ? type : "");
    kv->type = (enum kv_type)t;
    kv->size = 1;
    kv->base = KV_ID_NET;
    kv->big = o->big_array > 0 ? o->big_array : 1000000;
    kv->bucket = o->bucket;
    kv->multi_precision = o->multi_precision;
    if (t <= KV_DEVICE) {
        if (o->servers != 0)
            return mxrt_fail(why, MX_ERROR_ARGUMENT, "a store of type %s has no servers; %d are asked for",
                             type_names[t], o->servers);
        return MX_OK;
    }
    if (!o->net)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "a store of type %s needs a net (mxrt_net_open, mxrt_net_group)",
                         type_names[t]);
    kv->net = o->net;
    kv->rank = mxrt_net_rank(o->net);
    kv->size = mxrt_net_size(o->net);
    kv->servers = o->servers;
    if (o->servers < 0 || o->servers > kv->size)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "%d servers in a net of %d ranks; they are some of its ranks",
                         o->servers, kv->size);
    if (t == KV_DIST_ASYNC && o->servers == 0)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "a store of type dist_async needs servers, 1 or more");
    return MX_OK;
}

static void kv_free(struct mxrt_kvstore *kv) {
    if (kv->alive.id)
        (void)mxrt_var_delete(kv->engine, kv->alive, NULL, NULL, NULL);
    mxrt_pool_release(kv->pool);
    pthread_cond_destroy(&kv->quiet);
    pthread_mutex_destroy(&kv->lock);
    free(kv->server_bytes);
    free(kv->requests);
    free(kv);
}

mx_status mxrt_kv_create(struct mxrt_kvstore **store, const char *type, struct mxrt_engine *e,
                         const struct mxrt_kv_options *options, struct mxrt_why *why) {
    why = WHY(why);
    if (!store || !e)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "mxrt_kv_create wants an engine and a place for the store");
    struct mxrt_kvstore *kv = calloc(1, sizeof *kv);
    if (!kv)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for a store");
    kv->engine = e;
    kv->is_naive = mxrt_engine_is_naive(e);
    kv->has_workers = !kv->is_naive && mxrt_engine_threads(e) > 1;
    kv->request_free = (1u << 20) - 1;
    pthread_mutex_init(&kv->lock, NULL);
    pthread_cond_init(&kv->quiet, NULL);
    mx_status status = read_options(kv, type, options ? options : &(struct mxrt_kv_options){0}, why);
    if (status == MX_OK)
        status = mxrt_var_new(e, "a kvstore", &kv->alive, why);
    if (status == MX_OK && !(kv->server_bytes = calloc((size_t)kv->servers + 1, sizeof *kv->server_bytes)))
        status = mxrt_fail(why, MX_ERROR_MEMORY, "no memory for a store");
    if (status == MX_OK && kv->net)
        status = kv_join(kv, why); /* fails on all ranks, or on none */
    if (status != MX_OK) {
        kv_wire_close(kv);
        kv_free(kv);
        return status;
    }
    kv->pool = mxrt_pool_acquire(mxrt_engine_threads(e));
    *store = kv;
    return MX_OK;
}

/* ---- the end */

static mx_status nothing(void *context, struct mxrt_why *why) {
    return MX_OK;
}

/* Until all operations of the store have completed. They all read `alive`. */
static void settle(struct mxrt_kvstore *kv) {
    struct mxrt_op op = {.name = "kvstore: end",
                         .run = nothing,
                         .writes = &kv->alive,
                         .write_count = 1,
                         .lane = MXRT_LANE_PRIORITY,
                         .always = true};
    if (mxrt_engine_push(kv->engine, &op, NULL) == MX_OK)
        (void)mxrt_engine_wait_var(kv->engine, kv->alive, NULL);
}

void mxrt_kv_destroy(struct mxrt_kvstore *kv) {
    if (!kv)
        return;
    settle(kv);
    if (kv->net) {
        kv_wire_close(kv);
        settle(kv); /* what it served meanwhile */
    }
    struct entry *e, *next;
    HASH_ITER(hh, kv->entries, e, next) {
        const struct mxrt_var v[] = {e->channel.var, e->stored.variable, e->merged.variable};
        HASH_DEL(kv->entries, e);
        for (size_t i = 0; i < sizeof v / sizeof *v; i++)
            (void)mxrt_var_delete(kv->engine, v[i], NULL, NULL, NULL);
        kv_entry_free(e);
    }
    struct channel *c, *next_channel;
    HASH_ITER(hh, kv->channels, c, next_channel) {
        HASH_DEL(kv->channels, c);
        (void)mxrt_var_delete(kv->engine, c->var, NULL, NULL, NULL);
        free(c->residual);
        free(c);
    }
    kv_server_forget(kv);
    kv_wire_forget(kv);
    kv_free(kv);
}

/* ---- */

const char *mxrt_kv_type(const struct mxrt_kvstore *kv) {
    return type_names[kv->type];
}

int mxrt_kv_rank(const struct mxrt_kvstore *kv) {
    return kv->rank;
}

int mxrt_kv_size(const struct mxrt_kvstore *kv) {
    return kv->size;
}

mx_status mxrt_kv_barrier(struct mxrt_kvstore *kv, struct mxrt_why *why) {
    why = WHY(why);
    if (!kv)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "a barrier wants a store");
    if (!kv_has_net(kv))
        return MX_OK;
    mx_status status = kv_wire_lost(kv, why);
    return status == MX_OK ? mxrt_net_barrier(kv->net, why) : status;
}

mx_status mxrt_kv_set_updater(struct mxrt_kvstore *kv, mxrt_kv_updater *updater, void *context, struct mxrt_why *why) {
    why = WHY(why);
    mx_status status = MX_OK;
    int has = updater != NULL;
    if (!kv)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "mxrt_kv_set_updater wants a store");
    if (atomic_load(&kv->has_pushed))
        status = mxrt_fail(why, MX_ERROR_ARGUMENT, "an updater is set before the first push");
    if (status == MX_OK) { /* before the others can know of it, so that no push of theirs comes too early */
        kv->updater = updater;
        kv->updater_context = context;
    }
    return kv_agree(kv, "mxrt_kv_set_updater", kv_digest(0, &has, sizeof has), status, why);
}

static mx_status check_compression(const struct mxrt_kvstore *kv, enum mxrt_kv_compression kind, float t,
                                   struct mxrt_why *why) {
    if (kv->type == KV_LOCAL)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "a store of type local sends nothing that could be compressed");
    if (kv->compression != MXRT_KV_NONE || atomic_load(&kv->has_pushed))
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "compression is set once, before the first push");
    switch (kind) {
    case MXRT_KV_2BIT:
        if (t > 0 && t < 3e38f)
            return MX_OK;
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "2bit compression has a threshold above 0, here %g", (double)t);
    case MXRT_KV_1BIT:
        if (t == t)
            return MX_OK;
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "1bit compression has a threshold that is a number");
    case MXRT_KV_BF16: return MX_OK;
    case MXRT_KV_TOP_K:
        if (t > 0 && t <= 1)
            return MX_OK;
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "top k keeps a part above 0 and at most 1, here %g", (double)t);
    case MXRT_KV_NONE: break;
    }
    return mxrt_fail(why, MX_ERROR_ARGUMENT, "compression %d is none: it is 2bit, 1bit, bf16 or top k", (int)kind);
}

mx_status mxrt_kv_set_compression(struct mxrt_kvstore *kv, enum mxrt_kv_compression kind, float threshold,
                                  struct mxrt_why *why) {
    why = WHY(why);
    if (!kv)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "mxrt_kv_set_compression wants a store");
    mx_status status = check_compression(kv, kind, threshold, why);
    uint64_t digest = kv_digest(kv_digest(0, &kind, sizeof kind), &threshold, sizeof threshold);
    status = kv_agree(kv, "mxrt_kv_set_compression", digest, status, why);
    if (status == MX_OK) {
        kv->compression = kind;
        kv->threshold = threshold;
    }
    return status;
}

struct mxrt_kv_statistics mxrt_kv_statistics(struct mxrt_kvstore *kv) {
    pthread_mutex_lock(&kv->lock);
    struct mxrt_kv_statistics s = kv->statistics;
    pthread_mutex_unlock(&kv->lock);
    return s;
}
