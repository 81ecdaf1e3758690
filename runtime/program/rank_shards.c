/* Averages with the optimizer's state split over ranks (--shard): each group belongs to one rank, to which its keys' sums go; that rank applies
 * it and sends the new parameters to all. As many bytes on the wire as by all-reduce, in as many messages, but each rank keeps
 * only its own groups' moments. The bits are those of the all-reduce, whose sums are the same tree.
 *
 * The pages of moments that belong to others are given back to the system; checkpoints collect all of them for a moment. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ranks_internal.h"

struct shards {
    int *owner;                 /* [group_count] */
    struct mxrt_var *sums;      /* [key_count + 1] */
    struct mxrt_var *news;      /* [group_count] */
    struct mxrt_kv_value state; /* the status */
    bool collected;             /* others' moments are here, for a checkpoint */
};

/* ---- operations of the engine that are collectives of the net -------------------------------------------------------- */

struct collective {
    struct ranks *r;
    uint64_t id;
    int root, priority;
    bool sums; /* to the root, instead of from it */
    struct mxrt_net_range x;
    struct mxrt_token token;
};

static void ended(void *context, mx_status status, const char *message) {
    struct collective *c = context;
    (void)mxrt_op_complete(c->r->engine, c->token, status, message);
}

static void start(void *context, struct mxrt_token token) {
    struct collective *c = context;
    c->token = token;
    if (c->sums)
        mxrt_net_reduce(c->r->net, c->id, c->priority, c->root, c->x, ended, c);
    else
        mxrt_net_broadcast(c->r->net, c->id, c->priority, c->root, c->x, ended, c);
}

static mx_status push(struct ranks *r, const struct collective *what, struct mxrt_var var) {
    struct collective *c = malloc(sizeof *c);
    if (!c)
        return mxrt_fail(&r->why, MX_ERROR_MEMORY, "no memory");
    *c = *what;
    const struct mxrt_op op = {.name = c->sums ? "gradients to their owner" : "parameters from their owner",
                               .start = start,
                               .context = c,
                               .release = free,
                               .writes = &var,
                               .write_count = 1,
                               .lane = MXRT_LANE_INLINE};
    mx_status status = mxrt_engine_push(r->engine, &op, &r->why);
    if (status != MX_OK)
        free(c);
    return status;
}

/* ---- who owns what ------------------------------------------------------------------------------------------------------ */

/* What changes with a group and only its owner needs: moments. */
static bool is_kept(const struct ranks *r, int buffer) {
    int g = r->split->buffer_group[buffer];
    return g >= 0 && r->split->groups[g].key_count && !r->split->buffer_is_read[buffer];
}

static void give_back(struct ranks *r, void *model) {
    const struct shards *s = r->own;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < r->p->buffer_count; i++) {
        mx_tensor t;
        if (!is_kept(r, i) || s->owner[r->split->buffer_group[i]] == r->rank || r->p->buffer(model, i, &t) != MX_OK)
            continue;
        uintptr_t from = ((uintptr_t)t.data + page - 1) / page * page, to = ((uintptr_t)t.data + t.bytes) / page * page;
        if (from < to)
            (void)madvise((void *)from, to - from, MADV_DONTNEED); /* what is read of it is collected before */
    }
}

/* The largest group first, to the rank that has least. */
static mx_status share_out(struct ranks *r, void *model, struct mxrt_why *why) {
    struct shards *s = r->own;
    const int n = r->split->group_count;
    size_t *bytes = calloc((size_t)n + 1, sizeof *bytes), *load = calloc((size_t)r->size, sizeof *load);
    mx_status status = bytes && load ? MX_OK : mxrt_fail(why, MX_ERROR_MEMORY, "no memory");
    for (int i = 0; i < r->p->buffer_count && status == MX_OK; i++) {
        mx_tensor t;
        int g = r->split->buffer_group[i];
        if (g >= 0 && (status = r->p->buffer(model, i, &t)) == MX_OK)
            bytes[g] += t.bytes + 1;
    }
    for (int round = 0; round < n && status == MX_OK; round++) {
        int largest = -1, least = 0;
        for (int g = 0; g < n; g++)
            if (bytes[g] && (largest < 0 || bytes[g] > bytes[largest]))
                largest = g;
        if (largest < 0)
            break;
        for (int k = 1; k < r->size; k++)
            least = load[k] < load[least] ? k : least;
        s->owner[largest] = least;
        load[least] += bytes[largest];
        bytes[largest] = 0;
    }
    free(bytes);
    free(load);
    return status;
}

static mx_status open_shards(struct ranks *r, void *model, struct mxrt_why *why) {
    struct shards *s = r->own = calloc(1, sizeof *s);
    const size_t keys = (size_t)r->split->key_count + 1, groups = (size_t)r->split->group_count + 1;
    if (s) {
        s->owner = calloc(groups, sizeof *s->owner);
        s->sums = calloc(keys, sizeof *s->sums);
        s->news = calloc(groups, sizeof *s->news);
    }
    if (!s || !s->owner || !s->sums || !s->news)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory");
    mx_status status = share_out(r, model, why);
    for (int i = 0; i <= r->split->key_count && status == MX_OK; i++)
        status = mxrt_var_new(r->engine, "gradients", &s->sums[i], why);
    for (int i = 0; i < r->split->group_count && status == MX_OK; i++)
        status = mxrt_var_new(r->engine, "parameters", &s->news[i], why);
    s->state = (struct mxrt_kv_value){.dtype = MX_F64,
                                      .elements = r->status_count,
                                      .data = r->status_vector,
                                      .variable = s->sums[r->split->key_count]};
    if (status == MX_OK)
        give_back(r, model);
    return status;
}

static void close_shards(struct ranks *r) {
    struct shards *s = r->own;
    if (!s)
        return;
    free(s->owner);
    free(s->sums);
    free(s->news);
    free(s);
}

static mx_status collect(struct ranks *r, void *model, struct mxrt_why *why) {
    struct shards *s = r->own;
    mx_status status = MX_OK;
    for (int i = 0; i < r->p->buffer_count && status == MX_OK; i++) {
        mx_tensor t;
        if (is_kept(r, i) && (status = r->p->buffer(model, i, &t)) == MX_OK)
            status = ranks_broadcast(r, s->owner[r->split->buffer_group[i]], t.data, t.bytes, why);
    }
    s->collected = r->rank == 0; /* saves them first, and gives them back when the next step is computed */
    if (!s->collected)
        give_back(r, model);
    return status;
}

/* ---- a step ------------------------------------------------------------------------------------------------------------- */

static mx_status begin(struct ranks *r) {
    struct shards *s = r->own;
    if (s->collected)
        give_back(r, r->model);
    s->collected = false;
    return MX_OK;
}

static void send(struct ranks *r, int key) {
    const struct shards *s = r->own;
    mx_status status = MX_OK;
    if (r->failed)
        return;
    const struct mxrt_key *k = key < r->split->key_count ? &r->split->keys[key] : NULL;
    if (k && k->group >= 0 && !r->split->has_report) {
        const struct collective c = {.r = r,
                                     .id = ranks_id(r, key),
                                     .root = s->owner[k->group],
                                     .priority = ranks_priority(r, k->group),
                                     .sums = true,
                                     .x = {r->keys[key], k->elements, k->dtype}};
        status = push(r, &c, s->sums[key]);
    } else { /* every rank needs it */
        struct mxrt_kv_value v = s->state;
        if (k)
            v = (struct mxrt_kv_value){
                .dtype = k->dtype, .elements = k->elements, .data = r->keys[key], .variable = s->sums[key]};
        status = mxrt_kv_all_reduce(r->kv, (uint64_t)key, &v, 0, &r->why);
    }
    if (status != MX_OK)
        (void)ranks_failed(r, status);
}

/* Applies this rank's groups, in the order in which they are needed, and sends what they changed. */
static mx_status computed(struct ranks *r) {
    const struct shards *s = r->own;
    const struct mxrt_split *split = r->split;
    mx_status status = MX_OK;
    for (int i = 0; i < split->group_count && status == MX_OK; i++) {
        const int g = split->need_order[i];
        const struct mxrt_group *group = &split->groups[g];
        if (!group->key_count)
            continue;
        for (int k = 0; k < group->key_count && status == MX_OK && s->owner[g] == r->rank; k++)
            status = ranks_wait(r, s->sums[group->keys[k]]);
        if (status == MX_OK && s->owner[g] == r->rank)
            status = ranks_apply(r, r->model, g, r->args, r->keys);
        for (int b = 0; b < r->p->buffer_count && status == MX_OK; b++) {
            mx_tensor t;
            if (split->buffer_group[b] != g || is_kept(r, b) || (status = r->p->buffer(r->model, b, &t)) != MX_OK)
                continue;
            const struct collective c = {.r = r,
                                         .id = ranks_id(r, split->key_count + 1 + b),
                                         .root = s->owner[g],
                                         .priority = ranks_priority(r, g),
                                         .x = {t.data, (int64_t)t.bytes, MX_U8}};
            status = push(r, &c, s->news[g]);
        }
    }
    return status == MX_OK ? MX_OK : ranks_failed(r, status);
}

static mx_status wait_group(struct ranks *r, int group) {
    const struct shards *s = r->own;
    return ranks_wait(r, s->news[group]);
}

/* Its owner did; but what has no key is everybody's. */
static mx_status change(struct ranks *r, int group) {
    return r->split->groups[group].key_count ? MX_OK : ranks_apply(r, r->model, group, r->args, r->keys);
}

static mx_status arrive(struct ranks *r) {
    const struct shards *s = r->own;
    mx_status status = MX_OK;
    for (int i = 0; i <= r->split->key_count && status == MX_OK; i++)
        status = ranks_wait(r, s->sums[i]);
    return status;
}

const struct ranks_way ranks_shards = {.open = open_shards,
                                       .close = close_shards,
                                       .begin = begin,
                                       .send = send,
                                       .computed = computed,
                                       .wait = wait_group,
                                       .change = change,
                                       .arrive = arrive,
                                       .collect = collect};
