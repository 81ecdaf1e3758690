/* The training loop: epochs of shuffled batches, means and counts, evaluation, checkpoints, resumption to the same bits.
 *
 * A checkpoint is written from a copy while the next epoch runs (mxrt_saver), so a write that fails is told at the end of
 * that epoch. Everything a step depends on is in the checkpoint (buffers, seed, call counter, position) or follows from it (the
 * order of an epoch is a function of seed and epoch), and the running sums are kept to the bit. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "training.h"

static _Atomic int interrupted; /* from the handler, whatever thread it runs on, to the ranks of this process */

static void on_interrupt(int number) {
    (void)number;
    interrupted = 1;
}

/* mxrt_loader_next, noted: how long a step waits for its batch. */
static mx_status next_batch(struct session *s, struct mxrt_loader *l, struct mxrt_batch **b) {
    int64_t begin = mxrt_trace_begin(s->trace);
    mx_status status = mxrt_loader_next(l, b, &s->why);
    mxrt_trace_end(s->trace, begin, "take a batch");
    return status;
}

static void outputs(const struct mxrt_function *f, struct mxrt_array *results, void **out) {
    for (int i = 0; i < f->result_count && i < MAX_RESULTS; i++)
        out[i] = results[i].data;
}

/* Calls f on a batch. */
static mx_status call(struct training *t, const struct mxrt_data *d, const struct mxrt_function *f,
                      struct mxrt_batch *b, struct mxrt_array *results) {
    void *args[64], *out[MAX_RESULTS];
    double storage[64];
    int64_t found[MXRT_MAX_RANK];
    struct session *s = t->s;
    mx_status status = training_arguments(t, f, b, t->at.step, storage, args, &s->why);
    if (status != MX_OK)
        return status;
    outputs(f, results, out);
    int64_t begin = mxrt_trace_begin(s->trace);
    status = f->call(s->model, f, b->dims, args, out, found);
    mxrt_trace_end(s->trace, begin, f->name);
    if (status == MX_OK)
        return MX_OK;
    (void)mxrt_fail(&s->why, status, "%s", s->p->error(s->model));
    if (status == MX_ERROR_CHECK)
        name_culprit(s, d, f, b, args, out);
    return status;
}

static mx_status run_evaluation(struct training *t, struct tally *tally) {
    const struct mxrt_data *d = t->has_test ? &t->test : &t->data;
    const int64_t *order = t->has_test ? t->order : t->held + t->train_count;
    struct mxrt_loader *l = NULL;
    struct mxrt_batch *b;
    struct mxrt_array results[MAX_RESULTS];
    bool exact;
    int64_t limit = mxrt_batch_limit(t->evaluate, &exact), batch = limit < t->batch || exact ? limit : t->batch,
            dims[MXRT_MAX_RANK];
    if (limit < batch * 8 && !exact)
        batch = limit; /* larger batches are faster where the function takes them */
    memset(tally, 0, sizeof *tally);
    tally->f = t->evaluate;
    for (int i = 0; i < t->evaluate->symbol_count && i < MXRT_MAX_RANK; i++)
        dims[i] = t->evaluate->symbols[i].hi;
    if (t->has_test)
        for (int64_t i = 0; i < t->test.samples; i++)
            t->order[i] = i;
    /* Each rank takes its batches of all. */
    int64_t first, batches = exact ? t->test_count / batch : (t->test_count + batch - 1) / batch,
                   mine = ranks_part(t->s->ranks, batches, &first), end = (first + mine) * batch;
    int64_t count = (end < t->test_count ? end : t->test_count) - first * batch;
    mx_status status = results_make(t->evaluate, dims, results, &t->s->why);
    if (status == MX_OK)
        status = mxrt_loader_open(&l, d, t->evaluate, order + first * batch, mine ? count : 0, batch, 0, t->s->p,
                                  t->s->model, t->s->trace, &t->s->why);
    while (status == MX_OK && (status = next_batch(t->s, l, &b)) == MX_OK && b) {
        int bad = -1;
        if ((status = call(t, d, t->evaluate, b, results)) == MX_OK)
            (void)tally_add(tally, results, b, &bad);
    }
    mxrt_loader_close(l);
    for (int i = 0; i < t->evaluate->result_count && i < MAX_RESULTS; i++)
        mxrt_array_free(&results[i]);
    return status == MX_OK ? tally_sum(tally, t->s->ranks, &t->s->why) : status;
}

/* The first buffer (param, if params_only) that holds something that is no number. Where the model cannot show them, `status` says so. */
static const char *broken_buffer(struct session *s, bool params_only, mx_status *status) {
    for (int i = 0; i < s->p->buffer_count; i++) {
        mx_tensor v;
        if (params_only && s->p->buffer_is_state[i])
            continue;
        if ((*status = s->p->buffer(s->model, i, &v)) != MX_OK) {
            (void)mxrt_fail(&s->why, *status, "%s", s->p->error(s->model));
            return NULL;
        }
        if (v.dtype > MX_BF16)
            continue;
        int64_t n = (int64_t)(v.bytes / mxrt_dtype_size(v.dtype));
        for (int64_t k = 0; k < n; k++)
            if (!isfinite(mxrt_get(v.dtype, v.data, k)))
                return s->p->buffer_names[i];
    }
    return NULL;
}

static mx_status not_a_number(struct training *t, int result, double value, int64_t step) {
    mx_status seen = MX_OK;
    const char *buffer = broken_buffer(t->s, false, &seen);
    return mxrt_fail(&t->s->why, MX_ERROR_NUMERIC, "%s is %g at step %lld (epoch %lld)%s%s; %s",
                     t->step->results[result].name, value, (long long)step, (long long)t->at.epoch + 1,
                     buffer ? "; the first buffer with such a value is " : "", buffer ? buffer : "",
                     t->at.epoch > 0 ? t->kept : "no checkpoint was written yet");
}

static mx_status one_step(struct training *t, struct mxrt_batch *b, struct mxrt_array *results) {
    int bad = -1;
    mx_status status = call(t, &t->data, t->step, b, results);
    if (status != MX_OK)
        return status;
    if (!tally_add(&t->tally, results, b, &bad))
        return not_a_number(t, bad, mxrt_get(results[bad].dtype, results[bad].data, 0), t->at.step + 1);
    return MX_OK;
}

/* ---- over ranks: a step is told when the one behind it is under way */

static mx_status told(struct training *t, const struct ranks_done *done, int64_t step) {
    mx_status status = MX_OK;
    if (!done->any)
        return MX_OK;
    for (int i = 0; i < t->step->result_count && i < MAX_RESULTS; i++)
        if (tally_shows(&t->step->results[i])) {
            tally_add_result(&t->tally, i, done->values[i], done->samples);
            if (!isfinite(done->values[i]) && status == MX_OK)
                status = not_a_number(t, i, done->values[i], step);
        }
    t->tally.samples += done->samples;
    t->tally.labels += done->labels;
    t->stop |= done->stop;
    return status;
}

/* b NULL: no sample of this batch is this rank's. */
static mx_status one_rank_step(struct training *t, struct mxrt_batch *b, struct mxrt_array *results) {
    void *args[64], *out[MAX_RESULTS];
    double storage[64];
    struct ranks_done done;
    struct session *s = t->s;
    int64_t first, left = t->train_count - t->at.batch * t->batch, total = left < t->batch ? left : t->batch;
    (void)ranks_part(s->ranks, total, &first);
    mx_status status = training_arguments(t, t->step, b, t->at.step, storage, args, &s->why);
    if (status != MX_OK)
        return status;
    outputs(t->step, results, out);
    struct ranks_batch batch = {.n = b ? b->n : 0,
                                .first = first,
                                .total = total,
                                .labels = b ? b->labels : 0,
                                .dims = b ? b->dims : NULL,
                                .args = args,
                                .results = out,
                                .stop = interrupted};
    int64_t begin = mxrt_trace_begin(s->trace);
    status = ranks_step(s->ranks, s->model, &batch, &done, &s->why);
    mxrt_trace_end(s->trace, begin, t->step->name);
    if (status == MX_ERROR_CHECK && b)
        name_culprit(s, &t->data, t->step, b, args, out);
    mx_status number = told(t, &done, t->at.step);
    return status == MX_OK ? number : status;
}

static mx_status settle(struct training *t) {
    struct ranks_done done;
    mx_status status = ranks_settle(t->s->ranks, t->s->model, &done, &t->s->why);
    mx_status number = told(t, &done, t->at.step);
    return status == MX_OK ? number : status;
}

/* Ranks that went at their own pace: the epoch's sums are those of all, and one that was stopped stops all. */
static mx_status meet(struct training *t) {
    double stop = t->stop;
    mx_status status = ranks_sum(t->s->ranks, &stop, 1, &t->s->why);
    t->stop = stop > 0;
    return status == MX_OK ? tally_sum(&t->tally, t->s->ranks, &t->s->why) : status;
}

/* ---- an epoch */

static mx_status steps(struct training *t, struct mxrt_loader *l, struct mxrt_array *results) {
    struct session *s = t->s;
    char head[64], tail[1024];
    mx_status status = MX_OK;
    struct mxrt_batch *b;
    (void)snprintf(head, sizeof head, "epoch %lld/%lld", (long long)t->at.epoch + 1, (long long)t->epochs);
    while (t->at.batch < t->per_epoch) {
        if ((status = next_batch(s, l, &b)) != MX_OK)
            return status;
        if ((status = s->ranks ? one_rank_step(t, b, results) : one_step(t, b, results)) != MX_OK)
            return status;
        t->at.batch++;
        t->at.step++;
        tally_text(&t->tally, tail, sizeof tail);
        mxrt_progress_update(&t->progress, head, t->at.batch, t->per_epoch, tail);
        if ((s->ranks ? t->stop : interrupted) || (s->steps >= 0 && t->at.step >= s->steps)) {
            status = MX_ERROR_INTERRUPTED;
            break;
        }
    }
    mx_status settled = s->ranks ? settle(t) : MX_OK;
    if (settled == MX_OK && ranks_apart(s->ranks))
        settled = meet(t);
    return settled == MX_OK ? status : settled;
}

static mx_status one_epoch(struct training *t) {
    struct session *s = t->s;
    struct mxrt_loader *l = NULL;
    struct mxrt_array results[MAX_RESULTS];
    const struct mxrt_setting *shuffle = session_setting(s, "shuffle");
    int64_t dims[MXRT_MAX_RANK];
    t->tally = (struct tally){.f = t->step, .samples = t->at.samples, .labels = t->at.labels};
    memcpy(t->tally.sums, t->at.sums, sizeof t->tally.sums);
    for (int i = 0; i < t->step->symbol_count && i < MXRT_MAX_RANK; i++)
        dims[i] = t->step->symbols[i].hi;
    mxrt_shuffle(t->order, t->train_count, t->at.seed, (uint64_t)t->at.epoch);
    for (int64_t i = 0; i < t->train_count; i++)
        t->order[i] = t->held[shuffle && shuffle->kind == MXRT_BOOL && !shuffle->i ? i : t->order[i]];
    int64_t count = training_part(t, t->order);
    mx_status status = results_make(t->step, dims, results, &s->why);
    if (status == MX_OK)
        status = mxrt_loader_open(&l, &t->data, t->step, t->order, count, training_batch(t), t->at.batch,
                                  s->ranks ? NULL : s->p, s->model, s->trace, &s->why);
    mxrt_progress_begin(&t->progress);
    if (status == MX_OK)
        status = steps(t, l, results);
    mxrt_loader_close(l);
    for (int i = 0; i < t->step->result_count && i < MAX_RESULTS; i++)
        mxrt_array_free(&results[i]);
    training_position(t);
    if (status != MX_OK && !(status == MX_ERROR_INTERRUPTED && t->at.batch == t->per_epoch))
        return status;
    struct tally test;
    mx_status after = MX_OK;
    if (t->evaluate && t->test_count > 0)
        after = run_evaluation(t, &test);
    if (after != MX_OK)
        return after;
    t->at.epoch++;
    t->at.batch = 0;
    if (t->csv)
        metrics_epoch(t, &t->tally, t->evaluate && t->test_count > 0 ? &test : NULL);
    memset(t->at.sums, 0, sizeof t->at.sums);
    t->at.samples = t->at.labels = 0;
    return status;
}

/* A rank is lost: what the others have is brought to a step that was complete, and one of them keeps it. */
static void survive(struct training *t, const char *path) {
    struct session *s = t->s;
    struct mxrt_why why = s->why;
    struct ranks_done done;
    int undone;
    ranks_recover(s->ranks, s->model, &done, &undone);
    (void)told(t, &done, t->at.step);
    t->at.step -= undone;
    t->at.batch -= undone;
    training_position(t);
    if (!ranks_saves(s->ranks)) {
        s->why = why;
        return;
    }
    /* By a name of its own: rank 0, or one on the other side of a cut, may be writing, too. Each is whole when it takes its place. */
    char mine[4200];
    (void)snprintf(mine, sizeof mine, "%s.%d", path, ranks_rank(s->ranks));
    mx_status status = session_saved(s);
    if (status == MX_OK)
        status = session_keep(s, mine, &t->at);
    if (status == MX_OK)
        status = session_saved(s);
    if (status == MX_OK && rename(mine, path) != 0)
        status = mxrt_fail(&s->why, MX_ERROR_IO, "cannot write %s: %s", path, strerror(errno));
    if (status == MX_OK)
        (void)snprintf(s->why.text, sizeof s->why.text, "%.400s; saved %.150s as of step %lld: --resume goes on",
                       why.text, path, (long long)t->at.step);
    else
        s->why = why;
}

static void training_free(struct training *t) {
    ranks_close(t->s->ranks);
    t->s->ranks = NULL;
    mxrt_events_close(t->events);
    if (t->csv)
        fclose(t->csv);
    mxrt_data_free(&t->data);
    mxrt_data_free(&t->test);
    free(t->held);
    free(t->order);
    free(t->at.vocabulary);
    free(t);
}

static int finish(struct training *t, mx_status status) {
    if (status != MX_OK && status != MX_ERROR_INTERRUPTED) {
        ranks_fail(t->s->ranks, t->s->why.text);
        if (t->progress.drawn)
            fputs("\n", stderr);
        fprintf(stderr, "%s: error: %s\n", t->s->p->name, t->s->why.text);
    }
    training_free(t);
    return status == MX_OK ? 0 : status == MX_ERROR_INTERRUPTED ? 130 : 1;
}

int train_command(struct session *s) {
    struct training *t = calloc(1, sizeof *t);
    if (!t)
        return 1;
    char path[4096], line[600];
    t->s = s;
    t->states[0] = t->states[1] = t->residuals[0] = t->residuals[1] = -1;
    session_path(s, "checkpoint.safetensors", path, sizeof path);
    mx_status status = s->net ? ranks_open(&s->ranks, s->p, s->net, &s->ranks_options, &s->why) : MX_OK;
    const bool first = ranks_rank(s->ranks) == 0;
    mxrt_progress_start(&t->progress, stderr, s->quiet || s->json || !first);
    if (status == MX_OK)
        status = training_open(t, s->resume ? path : s->weights);
    if (status == MX_OK && s->resume && !t->at.found)
        status = mxrt_fail(&s->why, MX_ERROR_FORMAT,
                           "%s: no checkpoint of a training run: there is nothing to go on from", path);
    if (!s->resume) { /* other weights to begin with, but from the start */
        t->at.epoch = t->at.batch = t->at.step = t->at.samples = t->at.labels = 0;
        memset(t->at.sums, 0, sizeof t->at.sums);
    }
    if (status == MX_OK)
        status = training_prepare(t);
    if (status == MX_OK && s->resume && t->at.batch_size != t->batch)
        status = mxrt_fail(&s->why, MX_ERROR_ARGUMENT, "--batch %lld: %s was begun with batches of %lld",
                           (long long)t->batch, path, (long long)t->at.batch_size);
    if (status == MX_OK)
        status = training_start(t);
    if (status == MX_OK && s->resume)
        status = rank_states_load(t, path);
    if (status == MX_OK && s->resume)
        status = rank_residuals_load(t, path);
    if (status == MX_OK && first)
        status = session_make_folder(s);
    if (status == MX_OK && first)
        status = metrics_open(t);
    if (status != MX_OK)
        return finish(t, status);
    t->at.batch_size = t->batch;
    if (t->data.vocabulary && !t->at.vocabulary) {
        t->at.vocabulary = malloc(sizeof *t->at.vocabulary * (size_t)t->data.vocabulary_size);
        if (t->at.vocabulary) {
            memcpy(t->at.vocabulary, t->data.vocabulary, sizeof *t->at.vocabulary * (size_t)t->data.vocabulary_size);
            t->at.vocabulary_size = t->data.vocabulary_size;
        }
    }
    char over[40] = "";
    if (s->ranks)
        (void)snprintf(over, sizeof over, ", %d ranks", ranks_count(s->ranks));
    (void)snprintf(line, sizeof line,
                   "%s: %lld samples to train, %lld held out, batches of %lld, %lld steps an epoch%s%s", s->p->name,
                   (long long)t->train_count, (long long)t->test_count, (long long)t->batch, (long long)t->per_epoch,
                   over, s->resume ? "; going on from the checkpoint" : "");
    mxrt_progress_line(&t->progress, line);
    (void)snprintf(t->kept, sizeof t->kept, "the last good checkpoint is %.4000s", path);
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND}, before_int, before_term;
    sigemptyset(&action.sa_mask);
    if (first) {
        interrupted = 0;
        sigaction(SIGINT, &action, &before_int);
        sigaction(SIGTERM, &action, &before_term);
    }
    t->began = mxrt_seconds();
    bool kept = s->resume;
    s->saver = mxrt_saver_new(s->trace);
    while (status == MX_OK && t->at.epoch < t->epochs) {
        status = one_epoch(t);
        if (status == MX_OK || status == MX_ERROR_INTERRUPTED) {
            /* The last update may have broken what no loss has seen yet. */
            mx_status seen = MX_OK;
            const char *broken = broken_buffer(s, true, &seen);
            if (seen != MX_OK) {
                status = seen;
                break;
            }
            if (broken) {
                status = mxrt_fail(&s->why, MX_ERROR_NUMERIC, "%s holds a value that is no number after step %lld; %s",
                                   broken, (long long)t->at.step, kept ? t->kept : "no checkpoint was written yet");
                break;
            }
            kept = true;
            mx_status begun = ranks_collect(s->ranks, s->model, &s->why);
            int64_t begin = mxrt_trace_begin(s->trace);
            if (begun == MX_OK)
                begun = rank_states_save(t, path);
            if (begun == MX_OK)
                begun = rank_residuals_save(t, path);
            if (begun == MX_OK && first)
                begun = session_keep(s, path, &t->at);
            mxrt_trace_end(s->trace, begin, "copy for a checkpoint");
            if (begun != MX_OK)
                status = begun;
        }
        if (status == MX_OK && (s->ranks ? t->stop : interrupted))
            status = MX_ERROR_INTERRUPTED;
    }
    if (s->ranks && status == MX_ERROR_PEER)
        survive(t, path);
    struct mxrt_why why = s->why; /* of what ended the training, if that is an error */
    mx_status saved = session_saved(s);
    if (saved == MX_OK)
        rank_states_saved(t, path);
    if (saved == MX_OK && (status == MX_OK || status == MX_ERROR_INTERRUPTED))
        rank_residuals_saved(t, path);
    if (status != MX_OK && status != MX_ERROR_INTERRUPTED)
        s->why = why;
    else if (saved != MX_OK)
        status = saved;
    if (first) {
        sigaction(SIGINT, &before_int, NULL);
        sigaction(SIGTERM, &before_term, NULL);
    }
    if (status == MX_OK)
        (void)snprintf(line, sizeof line, "saved %.500s", path);
    else if (status == MX_ERROR_INTERRUPTED)
        (void)snprintf(line, sizeof line, "stopped after step %lld; saved %.400s; --resume goes on",
                       (long long)t->at.step, path);
    if (status == MX_OK || status == MX_ERROR_INTERRUPTED)
        mxrt_progress_line(&t->progress, line);
    return finish(t, status);
}

int evaluate_command(struct session *s) {
    struct training *t = calloc(1, sizeof *t);
    if (!t)
        return 1;
    char path[4096], text[2048];
    struct tally tally;
    t->s = s;
    session_path(s, "checkpoint.safetensors", path, sizeof path);
    mxrt_progress_start(&t->progress, stderr, true);
    mx_status status = session_open(s, s->weights ? s->weights : path, &t->at);
    if (status == MX_OK)
        status = training_prepare(t);
    if (status == MX_OK && (!t->evaluate || t->test_count == 0))
        status =
            mxrt_fail(&s->why, MX_ERROR_ARGUMENT, "%s",
                      t->evaluate ? "no samples are held out: split is 1" : "the train block has no `evaluate = NAME`");
    if (status == MX_OK)
        status = run_evaluation(t, &tally);
    if (status == MX_OK) {
        if (s->json) {
            printf("{\"samples\":%lld", (long long)tally.samples);
            for (int i = 0; i < t->evaluate->result_count; i++)
                if (tally_shows(&t->evaluate->results[i]))
                    printf(",\"%s\":%.9g", t->evaluate->results[i].name, tally_value(&tally, i));
            printf("}\n");
        } else {
            tally_text(&tally, text, sizeof text);
            printf("%s  (%lld samples)\n", text, (long long)tally.samples);
        }
    }
    return finish(t, status);
}
