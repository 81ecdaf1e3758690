/* Averages by all-reduce, the default: neighbours of the final order form buckets, each one range that is averaged in place
 * without copying; every rank applies all groups.
 *
 * How tensors are cut into buckets never changes a bit, since a sum's order depends on the ranks alone (mxrt/net.h). So the size is chosen
 * for speed (rank_plan.c). What becomes final last is what the next step needs first, and where the wire is slower than the
 * computation all that was final before it still waits then; so the last buckets, each at most half of what is left,
 * are small enough to overtake the others in no time. */
#include <stdlib.h>
#include <string.h>

#include "rank_plan.h"
#include "ranks_internal.h"

enum { LEAST_BYTES = 1 << 14, USUAL_BYTES = 1 << 24 /* taken where smaller ones do as well */, FIRST_STEPS = 2 };
/* Of the bandwidth measured between two ranks, what sums may get where the processors have other work; a size has to do well with either. */
static const double reached_at_worst = 0.4;

struct bucket {
    int first, count; /* places */
    struct mxrt_kv_value value;
    int priority, waiting;
    uint64_t version, step_version; /* writes pushed; when the step under way is complete */
};

struct buckets {
    struct bucket *at;
    int count, *of; /* [key_count + 1] */
    uint64_t cuts;  /* how often they were cut */
    double latency, bandwidth;
    bool replan; /* to be chosen again, from the time of the first steps */
};

static mx_dtype dtype_at(const struct ranks *r, int place) {
    const struct mxrt_key *k = ranks_key_at(r, place);
    return k ? k->dtype : MX_F64;
}

static int64_t elements_at(const struct ranks *r, int place) {
    const struct mxrt_key *k = ranks_key_at(r, place);
    return k ? k->elements : r->status_count;
}

static size_t bytes_at(const struct ranks *r, int place) {
    return (size_t)elements_at(r, place) * mxrt_dtype_size(dtype_at(r, place));
}

static size_t offset_at(const struct ranks *r, int place) {
    return r->offset[ranks_key_number(r, place)];
}

static bool is_sparse(const struct ranks *r, int place) { /* devices send tensors */
    const struct mxrt_key *k = ranks_key_at(r, place);
    return k && !r->split->device && ranks_rows_pay(k, r->size);
}

/* ---- cutting --------------------------------------------------------------------------------------------------------- */

static void drop(struct ranks *r) {
    struct buckets *all = r->own;
    for (int i = 0; i < all->count; i++) {
        struct bucket *b = &all->at[i];
        if (r->engine)
            (void)mxrt_var_delete(r->engine, b->value.variable, NULL, NULL, NULL);
        if (b->value.is_sparse)
            ranks_rows_close(&b->value);
    }
    free(all->at);
    all->at = NULL;
    all->count = 0;
}

int ranks_bucket_end(const struct ranks *r, int place, size_t most) {
    const int n = r->split->key_count + 1, first = place;
    const size_t start = offset_at(r, place), left = offset_at(r, n - 1) + bytes_at(r, n - 1) - start;
    const size_t half = left / 2 > LEAST_BYTES ? left / 2 : LEAST_BYTES, full = most < half ? most : half;
    const bool sparse = is_sparse(r, place);
    do
        place++;
    while (place < n && !sparse && !is_sparse(r, place) && dtype_at(r, place) == dtype_at(r, first) &&
           offset_at(r, place - 1) + bytes_at(r, place - 1) - start < full);
    return place;
}

static mx_status make(struct ranks *r, size_t bytes, struct mxrt_why *why) {
    struct buckets *all = r->own;
    const int n = r->split->key_count + 1;
    all->cuts++;
    all->at = calloc((size_t)n, sizeof *all->at);
    if (!all->at)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %d buckets", n);
    mx_status status = MX_OK;
    for (int place = 0; place < n && status == MX_OK;) {
        struct bucket *b = &all->at[all->count++];
        const int end = ranks_bucket_end(r, place, bytes);
        const size_t start = offset_at(r, place), stop = offset_at(r, end - 1) + bytes_at(r, end - 1);
        b->first = place;
        b->count = end - place;
        for (; place < end; place++) {
            const struct mxrt_key *k = ranks_key_at(r, place);
            int priority = k ? ranks_priority(r, k->group) : 0;
            b->priority = priority > b->priority ? priority : b->priority;
            all->of[ranks_key_number(r, place)] = all->count - 1;
        }
        b->value.dtype = dtype_at(r, b->first);
        b->value.data = r->memory + start;
        if (r->residual && b->value.dtype == MX_F32)
            b->value.residual = r->residual + start / sizeof *r->residual;
        b->value.elements = (int64_t)((stop - start) / mxrt_dtype_size(b->value.dtype));
        status = mxrt_var_new(r->engine, "gradients", &b->value.variable, why);
        if (status == MX_OK && is_sparse(r, b->first))
            status = ranks_rows_open(ranks_key_at(r, b->first), r->size, &b->value, why);
    }
    return status;
}

/* What cutting at `bytes` would give, for the plan. */
static int cut(const struct ranks *r, size_t bytes, struct plan_bucket *out) {
    const int n = r->split->key_count + 1;
    int count = 0;
    double work = 1;
    for (int i = 0; i + 1 < n; i++)
        work = r->split->keys[i].work > work ? r->split->keys[i].work : work;
    for (int place = 0; place < n; count++) {
        struct plan_bucket *b = &out[count];
        const int end = ranks_bucket_end(r, place, bytes);
        *b = (struct plan_bucket){.bytes = offset_at(r, end - 1) + bytes_at(r, end - 1) - offset_at(r, place),
                                  .need = 1};
        if (is_sparse(r, place)) {
            const struct mxrt_key *k = ranks_key_at(r, place);
            b->bytes = (size_t)(k->rows_touched * k->row_elements) * mxrt_dtype_size(k->dtype);
        }
        for (; place < end; place++) {
            const struct mxrt_key *k = ranks_key_at(r, place);
            const double ready = k ? k->work / work : 1,
                         need = k && k->group >= 0 ? r->split->groups[k->group].work / work : -1;
            b->ready = ready > b->ready ? ready : b->ready;
            b->need = need >= 0 && need < b->need ? need : b->need;
        }
    }
    return count;
}

/* Rank 0's choice; the others' clocks may say something else. */
static mx_status choose(struct ranks *r, double seconds, struct mxrt_why *why) {
    const struct buckets *all = r->own;
    uint64_t best = r->options.bucket;
    double least = 0;
    struct plan_bucket *plan = calloc((size_t)r->split->key_count + 1, sizeof *plan);
    if (!plan)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for buckets");
    for (uint64_t bytes = LEAST_BYTES; bytes <= 1 << 28 && !r->options.bucket; bytes *= 2) {
        const struct plan_net best_net = {r->size, all->latency, all->bandwidth},
                              worst_net = {r->size, all->latency, all->bandwidth * reached_at_worst};
        const int count = cut(r, bytes, plan);
        double time =
            ranks_plan_step(plan, count, seconds, &best_net) + ranks_plan_step(plan, count, seconds, &worst_net);
        if (!best || time < least * (bytes <= USUAL_BYTES ? 1.01 : 1))
            best = bytes;
        least = bytes == LEAST_BYTES || time < least ? time : least;
    }
    free(plan);
    mx_status status = ranks_broadcast(r, 0, &best, sizeof best, why);
    if (status != MX_OK)
        return status;
    drop(r);
    return make(r, (size_t)best, why);
}

static mx_status open_buckets(struct ranks *r, void *model, struct mxrt_why *why) {
    struct buckets *all = r->own = calloc(1, sizeof *all);
    (void)model;
    if (!all || !(all->of = calloc((size_t)r->split->key_count + 1, sizeof *all->of)))
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for buckets");
    mx_status status = MX_OK;
    all->replan = r->size > 1 && !r->options.bucket;
    if (all->replan)
        status = mxrt_net_measure(r->net, &all->latency, &all->bandwidth, why);
    if (all->bandwidth <= 0)
        all->bandwidth = 1e9;
    return status == MX_OK ? choose(r, 0, why) : status; /* as if all were there at once: the first steps tell more */
}

static void close_buckets(struct ranks *r) {
    struct buckets *all = r->own;
    if (!all)
        return;
    drop(r);
    free(all->of);
    free(all);
}

/* ---- a step ------------------------------------------------------------------------------------------------------------ */

static mx_status wait_bucket(struct ranks *r, struct bucket *b) {
    mx_status status = ranks_wait(r, b->value.variable);
    if (status == MX_OK && b->value.is_sparse) {
        ranks_rows_scatter(&b->value, r->memory + offset_at(r, b->first));
        *b->value.rows = 0;
    }
    return status;
}

static mx_status arrive(struct ranks *r) {
    struct buckets *all = r->own;
    mx_status status = MX_OK;
    for (int i = 0; i < all->count && status == MX_OK; i++)
        status = wait_bucket(r, &all->at[i]);
    return status;
}

static mx_status begin(struct ranks *r) {
    struct buckets *all = r->own;
    if (all->replan && r->steps == FIRST_STEPS) {
        mx_status status = arrive(r);
        if (status == MX_OK)
            status = choose(r, r->seconds, &r->why);
        if (status != MX_OK)
            return ranks_failed(r, status);
        all->replan = false;
        r->arrived = true;
    }
    for (int i = 0; i < all->count; i++)
        all->at[i].waiting = all->at[i].count;
    return MX_OK;
}

static void send(struct ranks *r, int key) {
    struct buckets *all = r->own;
    struct bucket *b = &all->at[all->of[key]];
    if (--b->waiting > 0 || r->failed)
        return;
    if (b->value.is_sparse)
        ranks_rows_gather(&b->value, r->memory + offset_at(r, b->first));
    b->version++;
    /* One id a bucket, not a step: compression keeps what it left out for the next one. */
    mx_status status =
        mxrt_kv_all_reduce(r->kv, all->cuts << 24 | (uint64_t)(b - all->at), &b->value, b->priority, &r->why);
    if (status != MX_OK)
        (void)ranks_failed(r, status);
}

static mx_status wait_group(struct ranks *r, int group) {
    struct buckets *all = r->own;
    const struct mxrt_group *g = &r->split->groups[group];
    mx_status status = MX_OK;
    for (int i = 0; i < g->key_count && !r->arrived && status == MX_OK; i++)
        status = wait_bucket(r, &all->at[all->of[g->keys[i]]]);
    return status;
}

static bool all_arrived(struct ranks *r) {
    struct buckets *all = r->own;
    for (int i = 0; i < all->count; i++)
        if (mxrt_var_version(r->engine, all->at[i].value.variable) < all->at[i].step_version)
            return false;
    return arrive(r) == MX_OK; /* versions count what failed, too */
}

static mx_status change(struct ranks *r, int group) {
    return ranks_apply(r, r->model, group, r->args, r->keys);
}

static mx_status computed(struct ranks *r) {
    struct buckets *all = r->own;
    for (int i = 0; i < all->count; i++)
        all->at[i].step_version = all->at[i].version;
    return MX_OK;
}

const struct ranks_way ranks_buckets = {.open = open_buckets,
                                        .close = close_buckets,
                                        .begin = begin,
                                        .send = send,
                                        .computed = computed,
                                        .wait = wait_group,
                                        .change = change,
                                        .all_arrived = all_arrived,
                                        .arrive = arrive,
                                        .undoes = true};
