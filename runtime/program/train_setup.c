/* What a run needs before its first step: data, the split, this rank's part of it, arguments and their schedules, the model. */
#include <stdlib.h>
#include <string.h>

#include "training.h"

/* Each scalar argument has its setting. */
static mx_status scalar_settings(struct training *t, const struct mxrt_function *f, const struct mxrt_data *d) {
    for (int i = 0; i < f->arg_count; i++) {
        if (mxrt_data_field(d, f->args[i].name))
            continue;
        if (f->args[i].rank > 0)
            return mxrt_fail(&t->s->why, MX_ERROR_ARGUMENT, "train: data gives nothing for `%s` of %s", f->args[i].name,
                             f->name);
        if (!session_setting(t->s, f->args[i].name))
            return mxrt_fail(&t->s->why, MX_ERROR_ARGUMENT, "train: %s needs `%s`: add `%s = …` to the train block",
                             f->name, f->args[i].name, f->args[i].name);
    }
    return MX_OK;
}

static int64_t setting_int(const struct session *s, const char *key, int64_t otherwise) {
    const struct mxrt_setting *v = session_setting(s, key);
    return v && v->kind == MXRT_INT ? v->i : otherwise;
}

mx_status training_prepare(struct training *t) {
    struct session *s = t->s;
    struct mxrt_why *why = &s->why;
    const struct mxrt_setting *data = session_setting(s, "data"), *test = session_setting(s, "test"), *v;
    if (!s->p->setting_count)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "%s has no train block", s->p->name);
    if (!data)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "the train block has no `data`");
    v = session_setting(s, "step");
    if (!v || v->kind != MXRT_NAME || !(t->step = session_function(s, v->s)))
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "the train block needs `step = NAME` with an exported function");
    v = session_setting(s, "evaluate");
    if (v && v->kind != MXRT_NONE && (v->kind != MXRT_NAME || !(t->evaluate = session_function(s, v->s))))
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "train: evaluate: there is no exported function %s", v->s ? v->s : "");
    mx_status status =
        mxrt_data_load(&t->data, s->p, data, s->data, t->step, t->at.vocabulary, t->at.vocabulary_size, why);
    if (status == MX_OK && test && t->evaluate) {
        status =
            mxrt_data_load(&t->test, s->p, test, NULL, t->evaluate, t->data.vocabulary, t->data.vocabulary_size, why);
        t->has_test = status == MX_OK;
    }
    if (status == MX_OK)
        status = scalar_settings(t, t->step, &t->data);
    if (status == MX_OK && t->evaluate)
        status = scalar_settings(t, t->evaluate, t->has_test ? &t->test : &t->data);
    if (status != MX_OK)
        return status;
    double split = t->has_test || !t->evaluate ? 1 : 0.8;
    v = session_setting(s, "split");
    if (v && !t->has_test)
        split = v->kind == MXRT_INT ? (double)v->i : v->f;
    if (!(split > 0 && split <= 1))
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "train: split = %g; the part for training is above 0 and at most 1",
                         split);
    int64_t n = t->data.samples, room = t->has_test && t->test.samples > n ? t->test.samples : n;
    t->held = malloc(sizeof *t->held * (size_t)n);
    t->order = malloc(sizeof *t->order * (size_t)room);
    if (!t->held || !t->order)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %lld samples", (long long)n);
    /* A sequence is split by place (neighbours would leak), the rest at random, but the same for every seed. */
    if (t->data.is_sequence || split == 1)
        for (int64_t i = 0; i < n; i++)
            t->held[i] = i;
    else
        mxrt_shuffle(t->held, n, 0, UINT64_MAX);
    t->train_count = (int64_t)((double)n * split + 0.5);
    t->test_count = t->has_test ? t->test.samples : n - t->train_count;
    t->batch = s->batch > 0 ? s->batch : setting_int(s, "batch", 32);
    t->epochs = s->epochs >= 0 ? s->epochs : setting_int(s, "epochs", 1);
    bool exact;
    const int64_t size = ranks_count(s->ranks), limit = mxrt_batch_limit(t->step, &exact) * size;
    if (exact)
        t->batch = limit;
    if (t->batch < size)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "a batch of %lld leaves some of %lld ranks without a sample",
                         (long long)t->batch, (long long)size);
    if (t->batch > limit)
        return mxrt_fail(why, MX_ERROR_SHAPE, "a batch of %lld: %s takes at most %lld samples%s", (long long)t->batch,
                         t->step->name, (long long)(limit / size), size > 1 ? " a rank" : "");
    if (t->batch < 1)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "a batch of %lld", (long long)t->batch);
    t->per_epoch = exact ? t->train_count / t->batch : (t->train_count + t->batch - 1) / t->batch;
    if (t->per_epoch == 0)
        return mxrt_fail(why, MX_ERROR_FORMAT, "%s: %lld samples for training, less than one batch of %lld",
                         t->data.path, (long long)t->train_count, (long long)t->batch);
    if (exact)
        t->train_count = t->per_epoch * t->batch;
    int64_t theirs = t->train_count;
    status = ranks_broadcast(s->ranks, 0, &theirs, sizeof theirs, why);
    if (status == MX_OK && theirs != t->train_count)
        return mxrt_fail(why, MX_ERROR_FORMAT, "%s: rank %d has %lld samples for training, rank 0 has %lld",
                         t->data.path, ranks_rank(s->ranks), (long long)t->train_count, (long long)theirs);
    return status;
}

int64_t training_batch(const struct training *t) {
    int64_t first;
    return ranks_part(t->s->ranks, t->batch, &first);
}

int64_t training_part(const struct training *t, int64_t *order) {
    int64_t n = 0;
    for (int64_t at = 0; at < t->train_count; at += t->batch) {
        int64_t left = t->train_count - at, first,
                mine = ranks_part(t->s->ranks, left < t->batch ? left : t->batch, &first);
        memmove(order + n, order + at + first, sizeof *order * (size_t)mine);
        n += mine;
    }
    return n;
}

mx_status training_arguments(const struct training *t, const struct mxrt_function *f, const struct mxrt_batch *b,
                             int64_t step, double *storage, void **args, struct mxrt_why *why) {
    for (int i = 0; i < f->arg_count && i < 64; i++) {
        args[i] = b ? b->args[i] : NULL;
        if (args[i] || f->args[i].rank > 0)
            continue;
        double value;
        mx_status status = schedule_value(session_setting(t->s, f->args[i].name), f->args[i].name, step,
                                          t->epochs * t->per_epoch, t->per_epoch, &value, why);
        if (status != MX_OK)
            return status;
        args[i] = &storage[i];
        if (!mxrt_put(f->args[i].dtype, args[i], 0, value))
            return mxrt_fail(why, MX_ERROR_ARGUMENT, "train: %s = %.9g is no %s", f->args[i].name, value,
                             mxrt_dtype_name(f->args[i].dtype));
    }
    return MX_OK;
}

static mx_status scalars_at(void *context, int64_t step, double *storage, void **args, struct mxrt_why *why) {
    const struct training *t = context;
    return training_arguments(t, t->step, NULL, step, storage, args, why);
}

void training_position(struct training *t) {
    memcpy(t->at.sums, t->tally.sums, sizeof t->at.sums);
    t->at.samples = t->tally.samples;
    t->at.labels = t->tally.labels;
}

mx_status training_open(struct training *t, const char *path) {
    struct session *s = t->s;
    struct position *at = &t->at;
    if (!s->ranks)
        return session_open(s, path, at);
    mx_status status = MX_OK;
    const bool first = ranks_rank(s->ranks) == 0;
    if (first && (status = session_open(s, path, at)) != MX_OK)
        return status;
    if ((status = ranks_broadcast(s->ranks, 0, at, offsetof(struct position, vocabulary), &s->why)) != MX_OK ||
        (status = ranks_broadcast(s->ranks, 0, &at->vocabulary_size, sizeof at->vocabulary_size, &s->why)) != MX_OK)
        return status;
    if (!first) {
        size_t bytes = sizeof *at->vocabulary * (size_t)at->vocabulary_size;
        if (bytes && !(at->vocabulary = malloc(bytes)))
            return mxrt_fail(&s->why, MX_ERROR_MEMORY, "no memory for the vocabulary");
        if (s->p->create(s->p, &s->model, at->seed, s->threads) != MX_OK)
            return mxrt_fail(&s->why, MX_ERROR_MEMORY, "the model cannot be made: no memory");
    }
    status =
        ranks_broadcast(s->ranks, 0, at->vocabulary, sizeof *at->vocabulary * (size_t)at->vocabulary_size, &s->why);
    return status;
}

mx_status training_start(struct training *t) {
    const struct ranks_schedule schedule = {scalars_at, t, t->at.step};
    return ranks_start(t->s->ranks, t->s->model, &schedule, &t->s->why);
}
