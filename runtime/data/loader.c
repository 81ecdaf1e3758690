/* Batches, made one ahead by an engine's thread: conversion and arithmetic of the next batch run beside the step. Making a
 * batch writes its slot, of which there are two, and the place in the data, so batches are made in order; a slot is made anew
 * when the caller, who read it, asks for the next batch. */
#include <stdlib.h>
#include <string.h>

#include "background.h"
#include "mxrt/data.h"
#include "philox.h"

void mxrt_shuffle(int64_t *order, int64_t n, uint64_t seed, uint64_t epoch) {
    uint64_t stream = mxrt_random_stream(epoch, 0x73687566666c65u); /* "shuffle" */
    for (int64_t i = 0; i < n; i++)
        order[i] = i;
    for (int64_t i = n - 1; i > 0;
         i--) { /* Fisher and Yates; the bias of a 128-bit product's upper half is below 2^-40 */
        uint64_t r = mxrt_random_u64(seed, stream, (uint64_t)i);
        int64_t k = (int64_t)((unsigned __int128)r * (uint64_t)(i + 1) >> 64), t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
}

struct mxrt_loader {
    const struct mxrt_data *data;
    const struct mxrt_function *f;
    void (*ahead)(void *model, const struct mxrt_function *f, void *const *args, const size_t *bytes);
    void *model;
    const int64_t *order;
    int64_t count, batch, at;
    const struct mxrt_field **field_of; /* [arg_count]; NULL where no field feeds the argument */
    struct slot {
        struct mxrt_loader *loader;
        struct mxrt_batch batch;
        struct mxrt_var var;
        bool end; /* there was no batch left for it */
    } slots[2];
    struct mxrt_engine *engine;
    struct mxrt_var place;
    int take, given;  /* the slot next taken; the one the caller holds, -1 */
    mx_status status; /* of what ended the loading */
    struct mxrt_why why;
};

int64_t mxrt_batch_limit(const struct mxrt_function *f, bool *exact) {
    for (int i = 0; i < f->arg_count; i++)
        if (f->args[i].rank > 0) {
            int64_t d = f->args[i].shape[0];
            *exact = d >= 0;
            if (d >= 0)
                return d;
            for (int k = 0; k < f->symbol_count; k++)
                if (d == MXRT_SYMBOL(k))
                    return f->symbols[k].hi;
        }
    *exact = true;
    return 1;
}

static double apply(const struct mxrt_field *field, double v) {
    for (int i = 0; i < field->step_count; i++) {
        double n = field->steps[i].number;
        switch (field->steps[i].op) {
        case '+': v += n; break;
        case '-': v -= n; break;
        case '*': v *= n; break;
        default: v /= n;
        }
    }
    return v;
}

static mx_status fill(struct mxrt_loader *l, struct mxrt_batch *b) {
    int64_t left = l->count - l->at;
    b->n = left < l->batch ? left : l->batch;
    b->labels = b->n;
    b->samples = l->order + l->at;
    for (int k = 0; k < l->f->symbol_count && k < MXRT_MAX_RANK; k++)
        b->dims[k] = l->f->symbols[k].hi;
    for (int a = 0; a < l->f->arg_count; a++) {
        if (!l->field_of[a])
            continue;
        const struct mxrt_value *v = &l->f->args[a];
        const struct mxrt_field *field = l->field_of[a];
        for (int k = 0; k < l->f->symbol_count; k++)
            if (v->shape[0] == MXRT_SYMBOL(k))
                b->dims[k] = b->n;
        size_t size = mxrt_dtype_size(v->dtype);
        if (v->dtype >= MX_I64)
            b->labels = b->n * field->width;
        for (int64_t i = 0; i < b->n; i++) {
            int64_t sample = l->order[l->at + i], from = sample * field->stride + field->shift, to = i * field->width;
            if (field->array.dtype == v->dtype && field->step_count == 0) {
                memcpy((char *)b->args[a] + (size_t)to * size, (char *)field->array.data + (size_t)from * size,
                       (size_t)field->width * size);
                continue;
            }
            if (field->array.dtype == MX_U8 && v->dtype == MX_F32) { /* images */
                const uint8_t *in = (const uint8_t *)field->array.data + from;
                float *out = (float *)b->args[a] + to;
                for (int64_t k = 0; k < field->width; k++)
                    out[k] = (float)apply(field, in[k]);
                continue;
            }
            for (int64_t k = 0; k < field->width; k++) {
                double value = apply(field, mxrt_get(field->array.dtype, field->array.data, from + k));
                if (!mxrt_put(v->dtype, b->args[a], to + k, value))
                    return mxrt_fail(&l->why, MX_ERROR_FORMAT, "%s%s%lld: %s is %.9g, which is no %s", l->data->path,
                                     l->data->lines ? ":" : ": sample ",
                                     (long long)(l->data->lines ? l->data->lines[sample] : sample), v->name, value,
                                     mxrt_dtype_name(v->dtype));
            }
        }
    }
    l->at += b->n;
    return MX_OK;
}

static void send_ahead(struct mxrt_loader *l, struct mxrt_batch *b) {
    size_t bytes[64];
    for (int a = 0; a < l->f->arg_count && a < 64; a++)
        bytes[a] =
            l->field_of[a] ? (size_t)b->n * (size_t)l->field_of[a]->width * mxrt_dtype_size(l->f->args[a].dtype) : 0;
    l->ahead(l->model, l->f, b->args, bytes);
}

static mx_status produce(void *context, struct mxrt_why *why) {
    struct slot *slot = context;
    struct mxrt_loader *l = slot->loader;
    (void)why; /* would come back with the operation's name in front */
    slot->end = l->at >= l->count;
    mx_status status = slot->end ? MX_OK : fill(l, &slot->batch);
    if (l->ahead && !slot->end && status == MX_OK)
        send_ahead(l, &slot->batch);
    return status;
}

static mx_status order_batch(struct mxrt_loader *l, struct slot *slot) {
    const struct mxrt_var writes[2] = {slot->var, l->place};
    const struct mxrt_op op = {
        .name = "batch", .run = produce, .context = slot, .writes = writes, .write_count = 2, .lane = MXRT_LANE_IO};
    return mxrt_engine_push(l->engine, &op, &l->why);
}

mx_status mxrt_loader_open(struct mxrt_loader **out, const struct mxrt_data *d, const struct mxrt_function *f,
                           const int64_t *order, int64_t count, int64_t batch, int64_t first_batch,
                           const struct mxrt_program *p, void *model, struct mxrt_trace *trace, struct mxrt_why *why) {
    struct mxrt_loader *l = calloc(1, sizeof *l);
    *out = NULL;
    if (!l || !(l->field_of = malloc(sizeof *l->field_of * (size_t)(f->arg_count + 1)))) {
        free(l);
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for batches");
    }
    l->data = d;
    l->f = f;
    l->ahead = p ? p->ahead : NULL;
    l->model = model;
    l->order = order;
    l->count = count;
    l->batch = batch;
    l->at = first_batch * batch < count ? first_batch * batch : count;
    l->given = -1;
    mx_status status = background_engine(&l->engine, trace, why);
    if (status == MX_OK)
        status = mxrt_var_new(l->engine, "place in the data", &l->place, why);
    for (int k = 0; k < 2 && status == MX_OK; k++) {
        l->slots[k].loader = l;
        status = mxrt_var_new(l->engine, "batch", &l->slots[k].var, why);
    }
    if (status != MX_OK) {
        mxrt_loader_close(l);
        return status;
    }
    for (int a = 0; a < f->arg_count; a++) {
        l->field_of[a] = mxrt_data_field(d, f->args[a].name);
        for (int k = 0; k < 2 && l->field_of[a]; k++) {
            size_t bytes = (size_t)batch * (size_t)l->field_of[a]->width * mxrt_dtype_size(f->args[a].dtype);
            if (a >= 64 || !(l->slots[k].batch.args[a] = calloc(1, bytes ? bytes : 1))) {
                mxrt_loader_close(l);
                return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for batches of %lld", (long long)batch);
            }
        }
    }
    for (int k = 0; k < 2 && status == MX_OK; k++)
        status = order_batch(l, &l->slots[k]);
    if (status != MX_OK) {
        *why = l->why;
        mxrt_loader_close(l);
        return status;
    }
    *out = l;
    return MX_OK;
}

mx_status mxrt_loader_next(struct mxrt_loader *l, struct mxrt_batch **b, struct mxrt_why *why) {
    struct mxrt_why ignored; /* fill has said it better */
    struct slot *slot = &l->slots[l->take];
    *b = NULL;
    if (l->given >= 0 && l->status == MX_OK)
        l->status = order_batch(l, &l->slots[l->given]);
    l->given = -1;
    if (l->status == MX_OK)
        l->status = mxrt_engine_wait_var(l->engine, slot->var, &ignored);
    if (l->status != MX_OK) {
        *why = l->why;
        return l->status;
    }
    if (!slot->end) {
        *b = &slot->batch;
        l->given = l->take;
        l->take ^= 1;
    }
    return MX_OK;
}

void mxrt_loader_close(struct mxrt_loader *l) {
    if (!l)
        return;
    if (l->engine)
        mxrt_engine_shutdown(l->engine); /* what is only ordered is not made */
    mxrt_engine_destroy(l->engine);
    if (l->ahead)
        l->ahead(l->model, l->f, NULL, NULL);
    for (int k = 0; k < 2; k++)
        for (int a = 0; a < 64; a++)
            free(l->slots[k].batch.args[a]);
    free((void *)l->field_of);
    free(l);
}
