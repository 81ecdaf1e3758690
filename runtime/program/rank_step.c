/* A step over ranks, with its communication behind its computation.
 *
 * `gradients` hands tensors out while it runs; the first layers' groups change their parameters inside the next call, when it needs them,
 * while later tensors are still on the way. So a step is complete only during the next one, and a rank may be lost in
 * between: what a group changes before everything has arrived is copied first, so that the model can always be brought
 * back to the last step that was complete. Where everything has arrived in time, nothing is copied. */
#include <stdlib.h>
#include <string.h>

#include "mxrt/progress.h"
#include "ranks_internal.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3") /* loops to vectors; clang does so anyway */
#endif

mx_status ranks_failed(struct ranks *r, mx_status status) {
    r->failed = true;
    return status;
}

mx_status ranks_wait(struct ranks *r, struct mxrt_var v) {
    if (r->failed)
        return MX_ERROR_PEER;
    const double start = mxrt_seconds();
    mx_status status = mxrt_engine_wait_var(r->engine, v, &r->why);
    r->waited += mxrt_seconds() - start;
    return status == MX_OK ? MX_OK : ranks_failed(r, status);
}

int ranks_priority(const struct ranks *r, int group) {
    for (int i = 0; i < r->split->group_count; i++)
        if (r->split->need_order[i] == group)
            return r->split->group_count - i;
    return 0;
}

mx_status ranks_apply(struct ranks *r, void *model, int group, void *const *args, void *const *keys) {
    mx_status status = r->split->apply(model, r->arena, group, args, keys);
    return status == MX_OK ? MX_OK : mxrt_fail(&r->why, status, "%s", r->p->error(model));
}

mx_status ranks_copy_buffers(struct ranks *r, const bool *which, unsigned char **copies, bool back) {
    for (int i = 0; i < r->p->buffer_count; i++) {
        mx_tensor t;
        if (!which[i])
            continue;
        mx_status status = r->p->buffer(r->model, i, &t);
        if (status != MX_OK)
            return mxrt_fail(&r->why, status, "%s", r->p->error(r->model));
        if (!copies[i] && !(copies[i] = malloc(t.bytes ? t.bytes : 1)))
            return mxrt_fail(&r->why, MX_ERROR_MEMORY, "no memory for a copy of %s", r->p->buffer_names[i]);
        memcpy(back ? t.data : copies[i], back ? copies[i] : t.data, t.bytes);
    }
    return MX_OK;
}

/* ---- groups ---------------------------------------------------------------------------------------------------------- */

static mx_status copy_group(struct ranks *r, int group, bool back) {
    bool *which = calloc((size_t)r->p->buffer_count + 1, sizeof *which);
    if (!which)
        return mxrt_fail(&r->why, MX_ERROR_MEMORY, "no memory");
    for (int i = 0; i < r->p->buffer_count; i++)
        which[i] = r->split->buffer_group[i] == group;
    mx_status status = ranks_copy_buffers(r, which, r->copies, back);
    free(which);
    return status;
}

static mx_status on_need(void *context, int group) {
    struct ranks *r = context;
    mxrt_net_alive(r->net);
    if (!r->pending || r->applied[group])
        return MX_OK;
    mx_status status = r->way->wait(r, group);
    for (int i = 0; i < r->split->group_count && status == MX_OK && !r->split->groups[group].key_count; i++)
        if (i != group) /* what the others read comes after them */
            status = on_need(r, i);
    if (status == MX_OK && ranks_undoes(r) && !r->arrived && !(r->arrived = r->way->all_arrived(r))) {
        if (r->failed)
            return MX_ERROR_PEER;
        status = copy_group(r, group, false);
        r->is_copied[group] = status == MX_OK;
    }
    if (status != MX_OK)
        return status;
    r->applied[group] = true;
    return r->way->change(r, group);
}

static mx_status finish_groups(struct ranks *r) {
    mx_status status = MX_OK;
    for (int i = 0; i < r->split->group_count && status == MX_OK; i++)
        status = on_need(r, r->split->need_order[i]);
    return status;
}

/* ---- what is final --------------------------------------------------------------------------------------------------- */

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

static void on_final(void *context, int key) {
    struct ranks *r = context;
    mxrt_net_alive(r->net);
    if (r->weight != 1 && !r->split->device)
        scale(r->split->keys[key].dtype, r->keys[key], r->split->keys[key].elements, r->weight);
    r->way->send(r, key);
}

/* ---- the status: what every rank is to know of a step ---------------------------------------------------------------- */

static void put_status(struct ranks *r, const struct ranks_batch *b) {
    double *v = r->status_vector;
    const double weight = ranks_apart(r) || !b->total ? 1 : (double)b->n / (double)b->total;
    memset(v, 0, sizeof *v * (size_t)r->status_count);
    v[0] = b->stop ? 1 : 0;
    v[1] = (double)b->n;
    v[2] = (double)b->labels;
    for (int i = 0; i < r->step->result_count && b->n; i++)
        if (r->step->results[i].rank == 0 && !r->split->result_is_late[i]) {
            mx_dtype t = r->step->results[i].dtype;
            v[STATUS_HEAD + i] = mxrt_get(t, b->results[i], 0) * (t < MX_I64 ? weight : 1);
        }
}

static void tell(struct ranks *r) {
    const double *v = r->status_vector;
    if (r->told)
        return;
    r->told = true;
    r->done = (struct ranks_done){
        .any = true, .stop = v[0] > 0, .samples = (int64_t)(v[1] + 0.5), .labels = (int64_t)(v[2] + 0.5)};
    for (int i = 0; i < r->step->result_count && i < 64; i++)
        r->done.values[i] = v[STATUS_HEAD + i];
}

/* Waits until the step under way has arrived whole. */
static mx_status arrive(struct ranks *r) {
    if (!r->pending)
        return MX_OK;
    mx_status status = r->arrived ? MX_OK : r->way->arrive(r);
    if (status != MX_OK)
        return status;
    r->arrived = true;
    tell(r);
    return MX_OK;
}

/* The results that need averages; every rank has them alike. */
static mx_status report(struct ranks *r, const struct ranks_batch *b) {
    mx_status status = arrive(r);
    if (status == MX_OK && (status = r->split->report(r->model, r->arena, b->args, b->results, r->keys)) != MX_OK)
        return mxrt_fail(&r->why, status, "%s", r->p->error(r->model));
    for (int i = 0; i < r->step->result_count && i < 64 && status == MX_OK; i++)
        if (r->split->result_is_late[i] && r->step->results[i].rank == 0)
            r->done.values[i] = mxrt_get(r->step->results[i].dtype, b->results[i], 0);
    return status;
}

/* ---- a step ------------------------------------------------------------------------------------------------------------ */

/* What a rank without samples gives. */
static mx_status clear(struct ranks *r, int key) {
    const struct mxrt_key *k = &r->split->keys[key];
    const size_t bytes = (size_t)k->elements * mxrt_dtype_size(k->dtype);
    if (r->split->device) {
        mx_status status = r->split->device->clear(r->model, key, r->keys[key], bytes);
        return status == MX_OK ? MX_OK : ranks_device_failed(r, status);
    }
    memset(r->keys[key], 0, bytes);
    return MX_OK;
}

static mx_status compute(struct ranks *r, const struct ranks_batch *b) {
    const struct mxrt_exchange x = {r, on_need, on_final, b->first, b->total, r->weight};
    if (b->n) {
        mx_status status = r->split->gradients(r->model, b->dims, b->args, b->results, r->keys, &x);
        if (status == MX_ERROR_PEER && !r->failed && r->split->device)
            return ranks_device_failed(r, status);
        if (status != MX_OK && !r->failed && status != MX_ERROR_PEER)
            (void)mxrt_fail(&r->why, status, "%s", r->p->error(r->model));
        return r->failed ? MX_ERROR_PEER : status;
    }
    mx_status status = finish_groups(r);
    if (status == MX_OK && r->split->wait && !r->split->device && (status = r->split->wait(r->model)) != MX_OK)
        (void)mxrt_fail(&r->why, status, "%s", r->p->error(r->model));
    if (r->split->counts_calls)
        r->p->set_calls(r->model, r->p->calls(r->model) + 1);
    for (int place = 0; place < r->split->key_count && status == MX_OK; place++) {
        status = clear(r, ranks_key_number(r, place));
        if (status == MX_OK)
            on_final(r, ranks_key_number(r, place));
    }
    return status;
}

/* What this step takes with it to the next call. */
static void keep_scalars(struct ranks *r, const struct ranks_batch *b) {
    for (int i = 0; i < r->step->arg_count && i < SCALARS; i++) {
        r->args[i] = NULL;
        if (r->step->args[i].rank > 0)
            continue;
        memcpy(&r->scalars[i], b->args[i], mxrt_dtype_size(r->step->args[i].dtype));
        r->args[i] = &r->scalars[i];
    }
}

static mx_status step(struct ranks *r, const struct ranks_batch *b) {
    mx_status status = r->way->begin(r);
    if (status != MX_OK)
        return status;
    r->slot ^= 1;
    r->calls[r->slot] = r->p->calls(r->model);
    if ((status = ranks_copy_buffers(r, r->split->buffer_is_carried, r->carried[r->slot], false)) != MX_OK)
        return status;
    r->in_step = true;
    mxrt_net_alive(r->net);
    const double start = mxrt_seconds();
    r->waited = 0;
    status = compute(r, b);
    const double seconds = mxrt_seconds() - start - r->waited;
    r->seconds = r->steps == 0 || seconds < r->seconds ? seconds : r->seconds;
    if (status == MX_OK && r->pending && (status = finish_groups(r)) == MX_OK)
        status = arrive(r);
    if (status != MX_OK)
        return status;
    r->in_step = false;
    r->pending = true;
    r->told = r->arrived = false;
    memset(r->applied, 0, sizeof *r->applied * (size_t)r->split->group_count);
    memset(r->is_copied, 0, sizeof *r->is_copied * (size_t)r->split->group_count);
    keep_scalars(r, b);
    put_status(r, b);
    r->way->send(r, r->split->key_count);
    r->steps++;
    if (r->failed)
        return MX_ERROR_PEER;
    if (r->split->has_report && (status = report(r, b)) != MX_OK)
        return status;
    return r->way->computed(r);
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
    r->weight = ranks_apart(r) ? 1 : (float)((double)b->n / (double)b->total);
    mx_status status = step(r, b);
    if (status == MX_OK)
        r->counted = r->steps;
    return give(r, status, done, why);
}

mx_status ranks_settle(struct ranks *r, void *model, struct ranks_done *done, struct mxrt_why *why) {
    r->model = model;
    mx_status status = r->pending ? finish_groups(r) : MX_OK;
    if (status == MX_OK)
        status = arrive(r);
    if (status == MX_OK)
        r->pending = false;
    mxrt_net_rest(r->net);
    return give(r, status, done, why);
}

void ranks_recover(struct ranks *r, void *model, struct ranks_done *done, int *undone) {
    bool undo = false;
    r->model = model;
    if (r->in_step) { /* what it has changed on its way */
        (void)ranks_copy_buffers(r, r->split->buffer_is_carried, r->carried[r->slot], true);
        r->p->set_calls(model, r->calls[r->slot]);
    }
    /* What has arrived whole is completed: its groups may have changed something without a copy. */
    if (r->pending && (r->arrived || !r->failed) && arrive(r) == MX_OK && finish_groups(r) == MX_OK) {
        r->pending = false;
    } else if (r->pending) {
        int slot = r->in_step ? r->slot ^ 1 : r->slot;
        for (int g = 0; g < r->split->group_count; g++)
            if (r->is_copied[g])
                (void)copy_group(r, g, true);
        (void)ranks_copy_buffers(r, r->split->buffer_is_carried, r->carried[slot], true);
        r->p->set_calls(model, r->calls[slot]);
        r->pending = false;
        undo = true;
    }
    r->in_step = false;
    *undone = (int)(int64_t)(r->counted - (r->steps - undo));
    *done = r->done;
    r->done.any = false;
}
