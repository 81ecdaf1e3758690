/* The training loop: epochs of shuffled batches, means and counts, evaluation, checkpoints, resumption to the same bits.
 *
 * A checkpoint is written from a copy while the next epoch runs (mxrt_saver), so a write that fails is told at the end of
 * that epoch. Everything a step depends on is in the checkpoint (buffers, seed, call counter, position) or follows from it (the
 * order of an epoch is a function of seed and epoch), and the running sums are kept to the bit. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number) {
    (void)number;
    interrupted = 1;
}

/* Results of a function over many calls: means of floats over samples, counts of integers. */
struct tally {
    const struct mxrt_function *f;
    double sums[MAX_RESULTS];
    int64_t samples, labels;
};

static bool is_shown(const struct mxrt_value *v) {
    return v->rank == 0 && v->dtype != MX_BOOL;
}

static bool is_count(const struct mxrt_value *v) {
    return v->dtype >= MX_I64;
}

/* False at a float that is no number: *bad is its index. */
static bool tally_add(struct tally *t, const struct mxrt_array *results, const struct mxrt_batch *b, int *bad) {
    bool ok = true;
    for (int i = 0; i < t->f->result_count && i < MAX_RESULTS; i++) {
        if (!is_shown(&t->f->results[i]))
            continue;
        double v = mxrt_get(results[i].dtype, results[i].data, 0);
        if (!isfinite(v) && ok) {
            ok = false;
            *bad = i;
        }
        t->sums[i] += is_count(&t->f->results[i]) ? v : v * (double)b->n;
    }
    t->samples += b->n;
    t->labels += b->labels;
    return ok;
}

static double tally_value(const struct tally *t, int i) {
    if (is_count(&t->f->results[i]))
        return t->labels ? 100 * t->sums[i] / (double)t->labels : 0;
    return t->samples ? t->sums[i] / (double)t->samples : 0;
}

static void tally_text(const struct tally *t, char *out, size_t size) {
    size_t n = 0;
    out[0] = 0;
    for (int i = 0; i < t->f->result_count && i < MAX_RESULTS && n + 64 < size; i++)
        if (is_shown(&t->f->results[i]))
            n += (size_t)snprintf(out + n, size - n, is_count(&t->f->results[i]) ? "%s%.40s %.1f%%" : "%s%.40s %.4f",
                                  n ? "  " : "", t->f->results[i].name, tally_value(t, i));
}

struct training {
    struct session *s;
    const struct mxrt_function *step, *evaluate;
    struct mxrt_data data, test;
    bool has_test;
    int64_t *held, *order; /* samples for training come first in `held`, then the held-out ones */
    int64_t train_count, test_count, batch, epochs, per_epoch;
    double scalars[64]; /* values of scalar arguments, by argument */
    struct position at;
    struct mxrt_events *events;
    FILE *csv;
    struct mxrt_progress progress;
    double began;
};

/* mxrt_loader_next, noted: how long a step waits for its batch. */
static mx_status next_batch(struct session *s, struct mxrt_loader *l, struct mxrt_batch **b) {
    int64_t begin = mxrt_trace_begin(s->trace);
    mx_status status = mxrt_loader_next(l, b, &s->why);
    mxrt_trace_end(s->trace, begin, "take a batch");
    return status;
}

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

/* Calls f on a batch; scalars by their schedules at this step. */
static mx_status call(struct training *t, const struct mxrt_data *d, const struct mxrt_function *f,
                      struct mxrt_batch *b, struct mxrt_array *results) {
    void *args[64], *out[MAX_RESULTS];
    double storage[64];
    int64_t found[MXRT_MAX_RANK];
    struct session *s = t->s;
    for (int i = 0; i < f->arg_count && i < 64; i++) {
        args[i] = b->args[i];
        if (args[i])
            continue;
        double value;
        mx_status status = schedule_value(session_setting(s, f->args[i].name), f->args[i].name, t->at.step,
                                          t->epochs * t->per_epoch, t->per_epoch, &value, &s->why);
        if (status != MX_OK)
            return status;
        args[i] = &storage[i];
        t->scalars[i] = value;
        if (!mxrt_put(f->args[i].dtype, args[i], 0, value))
            return mxrt_fail(&s->why, MX_ERROR_ARGUMENT, "train: %s = %.9g is no %s", f->args[i].name, value,
                             mxrt_dtype_name(f->args[i].dtype));
    }
    for (int i = 0; i < f->result_count && i < MAX_RESULTS; i++)
        out[i] = results[i].data;
    int64_t begin = mxrt_trace_begin(s->trace);
    mx_status status = f->call(s->model, f, b->dims, args, out, found);
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
    int64_t count = exact ? t->test_count / batch * batch : t->test_count;
    mx_status status = results_make(t->evaluate, dims, results, &t->s->why);
    if (status == MX_OK)
        status = mxrt_loader_open(&l, d, t->evaluate, order, count, batch, 0, t->s->trace, &t->s->why);
    while (status == MX_OK && (status = next_batch(t->s, l, &b)) == MX_OK && b) {
        int bad = -1;
        if ((status = call(t, d, t->evaluate, b, results)) == MX_OK)
            (void)tally_add(tally, results, b, &bad);
    }
    mxrt_loader_close(l);
    for (int i = 0; i < t->evaluate->result_count && i < MAX_RESULTS; i++)
        mxrt_array_free(&results[i]);
    return status;
}

static int64_t setting_int(const struct session *s, const char *key, int64_t otherwise) {
    const struct mxrt_setting *v = session_setting(s, key);
    return v && v->kind == MXRT_INT ? v->i : otherwise;
}

/* Data, split and functions; the same for train and evaluate. */
static mx_status prepare(struct training *t) {
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
    int64_t limit = mxrt_batch_limit(t->step, &exact);
    if (exact)
        t->batch = limit;
    if (t->batch > limit)
        return mxrt_fail(why, MX_ERROR_SHAPE, "a batch of %lld: %s takes at most %lld samples", (long long)t->batch,
                         t->step->name, (long long)limit);
    if (t->batch < 1)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "a batch of %lld", (long long)t->batch);
    t->per_epoch = exact ? t->train_count / t->batch : (t->train_count + t->batch - 1) / t->batch;
    if (t->per_epoch == 0)
        return mxrt_fail(why, MX_ERROR_FORMAT, "%s: %lld samples for training, less than one batch of %lld",
                         t->data.path, (long long)t->train_count, (long long)t->batch);
    if (exact)
        t->train_count = t->per_epoch * t->batch;
    return MX_OK;
}

/* metrics.csv: a new one, or on resumption the rows up to the checkpoint. It takes its name only when those are in it, so that a
 * kill leaves one or the other. */
static mx_status open_metrics(struct training *t) {
    struct session *s = t->s;
    char path[4096], part[4096], folder[4096], *old = NULL;
    size_t bytes = 0;
    struct mxrt_why ignored;
    session_path(s, "metrics.csv", path, sizeof path);
    session_path(s, "metrics.csv.part", part, sizeof part);
    session_path(s, "", folder, sizeof folder);
    if (s->resume)
        (void)mxrt_read_file(path, NULL, &old, &bytes, &ignored);
    t->csv = fopen(part, "w");
    if (!t->csv) {
        free(old);
        return mxrt_fail(&s->why, MX_ERROR_IO, "cannot write %s: %s", part, strerror(errno));
    }
    fputs("epoch,step,seconds", t->csv);
    for (int i = 0; i < t->step->result_count; i++)
        if (is_shown(&t->step->results[i]))
            fprintf(t->csv, ",%s", t->step->results[i].name);
    for (int i = 0; t->evaluate && i < t->evaluate->result_count; i++)
        if (is_shown(&t->evaluate->results[i]))
            fprintf(t->csv, ",test_%s", t->evaluate->results[i].name);
    fputs("\n", t->csv);
    for (char *line = old ? strchr(old, '\n') : NULL; line && line[1];) {
        char *end = strchr(++line, '\n');
        if (end && atoll(line) <= t->at.epoch)
            fwrite(line, 1, (size_t)(end - line) + 1, t->csv);
        line = end;
    }
    free(old);
    if (fflush(t->csv) != 0 || rename(part, path) != 0) {
        int why = errno;
        (void)remove(part);
        return mxrt_fail(&s->why, MX_ERROR_IO, "cannot write %s: %s", path, strerror(why));
    }
    return mxrt_events_open(&t->events, folder, &s->why);
}

static void report_epoch(struct training *t, const struct tally *train, const struct tally *test) {
    char line[2048], a[900], b[900] = "";
    double seconds = mxrt_seconds() - t->began;
    tally_text(train, a, sizeof a);
    if (test)
        tally_text(test, b, sizeof b);
    if (t->s->json) {
        printf("{\"epoch\":%lld,\"step\":%lld,\"seconds\":%.3f", (long long)t->at.epoch, (long long)t->at.step,
               seconds);
        for (int i = 0; i < train->f->result_count; i++)
            if (is_shown(&train->f->results[i]))
                printf(",\"%s\":%.9g", train->f->results[i].name, tally_value(train, i));
        for (int i = 0; test && i < test->f->result_count; i++)
            if (is_shown(&test->f->results[i]))
                printf(",\"test_%s\":%.9g", test->f->results[i].name, tally_value(test, i));
        printf("}\n");
        fflush(stdout);
    } else {
        (void)snprintf(line, sizeof line, "epoch %*lld/%lld  %s%s%s  %.1f s",
                       t->epochs > 99  ? 3
                       : t->epochs > 9 ? 2
                                       : 1,
                       (long long)t->at.epoch, (long long)t->epochs, a, test ? "  | held out: " : "", b, seconds);
        mxrt_progress_line(&t->progress, line);
    }
    fprintf(t->csv, "%lld,%lld,%.3f", (long long)t->at.epoch, (long long)t->at.step, seconds);
    for (int i = 0; i < train->f->result_count; i++)
        if (is_shown(&train->f->results[i])) {
            fprintf(t->csv, ",%.9g", tally_value(train, i));
            mxrt_events_scalar(t->events, train->f->results[i].name, t->at.step, tally_value(train, i));
        }
    for (int i = 0; test && i < test->f->result_count; i++)
        if (is_shown(&test->f->results[i])) {
            char tag[128];
            (void)snprintf(tag, sizeof tag, "test/%s", test->f->results[i].name);
            fprintf(t->csv, ",%.9g", tally_value(test, i));
            mxrt_events_scalar(t->events, tag, t->at.step, tally_value(test, i));
        }
    fputs("\n", t->csv);
    (void)fflush(t->csv);
}

/* The first buffer (param, if params_only) that holds something that is no number. */
static const char *broken_buffer(struct session *s, bool params_only) {
    for (int i = 0; i < s->p->buffer_count; i++) {
        mx_tensor v;
        if (params_only && s->p->buffer_is_state[i])
            continue;
        if (s->p->buffer(s->model, i, &v) != MX_OK || v.dtype > MX_BF16)
            continue;
        int64_t n = (int64_t)(v.bytes / mxrt_dtype_size(v.dtype));
        for (int64_t k = 0; k < n; k++)
            if (!isfinite(mxrt_get(v.dtype, v.data, k)))
                return s->p->buffer_names[i];
    }
    return NULL;
}

static mx_status not_a_number(struct training *t, const struct mxrt_array *results, int bad, const char *checkpoint) {
    const char *buffer = broken_buffer(t->s, false);
    return mxrt_fail(&t->s->why, MX_ERROR_NUMERIC, "%s is %g at step %lld (epoch %lld)%s%s%s; %s",
                     t->step->results[bad].name, mxrt_get(results[bad].dtype, results[bad].data, 0),
                     (long long)t->at.step + 1, (long long)t->at.epoch + 1,
                     buffer ? "; the first buffer with such a value is " : "", buffer ? buffer : "", "",
                     t->at.epoch > 0 ? checkpoint : "no checkpoint was written yet");
}

static mx_status one_epoch(struct training *t, const char *checkpoint) {
    struct session *s = t->s;
    struct mxrt_loader *l = NULL;
    struct mxrt_batch *b;
    struct mxrt_array results[MAX_RESULTS];
    struct tally tally = {.f = t->step, .samples = t->at.samples, .labels = t->at.labels};
    const struct mxrt_setting *shuffle = session_setting(s, "shuffle");
    int64_t dims[MXRT_MAX_RANK];
    char head[64], tail[1024];
    memcpy(tally.sums, t->at.sums, sizeof tally.sums);
    for (int i = 0; i < t->step->symbol_count && i < MXRT_MAX_RANK; i++)
        dims[i] = t->step->symbols[i].hi;
    mxrt_shuffle(t->order, t->train_count, t->at.seed, (uint64_t)t->at.epoch);
    for (int64_t i = 0; i < t->train_count; i++)
        t->order[i] = t->held[shuffle && shuffle->kind == MXRT_BOOL && !shuffle->i ? i : t->order[i]];
    mx_status status = results_make(t->step, dims, results, &s->why);
    if (status == MX_OK)
        status =
            mxrt_loader_open(&l, &t->data, t->step, t->order, t->train_count, t->batch, t->at.batch, s->trace, &s->why);
    (void)snprintf(head, sizeof head, "epoch %lld/%lld", (long long)t->at.epoch + 1, (long long)t->epochs);
    mxrt_progress_begin(&t->progress);
    while (status == MX_OK && (status = next_batch(s, l, &b)) == MX_OK && b) {
        int bad = -1;
        if ((status = call(t, &t->data, t->step, b, results)) != MX_OK)
            break;
        if (!tally_add(&tally, results, b, &bad)) {
            status = not_a_number(t, results, bad, checkpoint);
            break;
        }
        t->at.batch++;
        t->at.step++;
        tally_text(&tally, tail, sizeof tail);
        mxrt_progress_update(&t->progress, head, t->at.batch, t->per_epoch, tail);
        if (interrupted || (s->steps >= 0 && t->at.step >= s->steps)) {
            status = MX_ERROR_INTERRUPTED;
            break;
        }
    }
    mxrt_loader_close(l);
    for (int i = 0; i < t->step->result_count && i < MAX_RESULTS; i++)
        mxrt_array_free(&results[i]);
    memcpy(t->at.sums, tally.sums, sizeof tally.sums);
    t->at.samples = tally.samples;
    t->at.labels = tally.labels;
    if (status != MX_OK && !(status == MX_ERROR_INTERRUPTED && t->at.batch == t->per_epoch))
        return status;
    struct tally test;
    mx_status after = MX_OK;
    t->at.epoch++;
    t->at.batch = 0;
    if (t->evaluate && t->test_count > 0)
        after = run_evaluation(t, &test);
    if (after != MX_OK)
        return after;
    report_epoch(t, &tally, t->evaluate && t->test_count > 0 ? &test : NULL);
    memset(t->at.sums, 0, sizeof t->at.sums);
    t->at.samples = t->at.labels = 0;
    return status;
}

static void training_free(struct training *t) {
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
    char path[4096], line[600], message[5000];
    t->s = s;
    session_path(s, "checkpoint.safetensors", path, sizeof path);
    mxrt_progress_start(&t->progress, stderr, s->quiet || s->json);
    mx_status status = session_open(s, s->resume ? path : s->weights, &t->at);
    if (status == MX_OK && s->resume && !t->at.found)
        status = mxrt_fail(&s->why, MX_ERROR_FORMAT,
                           "%s: no checkpoint of a training run: there is nothing to go on from", path);
    if (!s->resume) { /* other weights to begin with, but from the start */
        t->at.epoch = t->at.batch = t->at.step = t->at.samples = t->at.labels = 0;
        memset(t->at.sums, 0, sizeof t->at.sums);
    }
    if (status == MX_OK)
        status = prepare(t);
    if (status == MX_OK && s->resume && t->at.batch_size != t->batch)
        status = mxrt_fail(&s->why, MX_ERROR_ARGUMENT, "--batch %lld: %s was begun with batches of %lld",
                           (long long)t->batch, path, (long long)t->at.batch_size);
    if (status == MX_OK)
        status = session_make_folder(s);
    if (status == MX_OK)
        status = open_metrics(t);
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
    (void)snprintf(line, sizeof line,
                   "%s: %lld samples to train, %lld held out, batches of %lld, %lld steps an epoch%s", s->p->name,
                   (long long)t->train_count, (long long)t->test_count, (long long)t->batch, (long long)t->per_epoch,
                   s->resume ? "; going on from the checkpoint" : "");
    mxrt_progress_line(&t->progress, line);
    (void)snprintf(message, sizeof message, "the last good checkpoint is %.4000s", path);
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND}, before_int, before_term;
    sigemptyset(&action.sa_mask);
    interrupted = 0;
    sigaction(SIGINT, &action, &before_int);
    sigaction(SIGTERM, &action, &before_term);
    t->began = mxrt_seconds();
    bool kept = s->resume;
    s->saver = mxrt_saver_new(s->trace);
    while (status == MX_OK && t->at.epoch < t->epochs) {
        status = one_epoch(t, message);
        if (status == MX_OK || status == MX_ERROR_INTERRUPTED) {
            /* The last update may have broken what no loss has seen yet. */
            const char *broken = broken_buffer(s, true);
            if (broken) {
                status = mxrt_fail(&s->why, MX_ERROR_NUMERIC, "%s holds a value that is no number after step %lld; %s",
                                   broken, (long long)t->at.step, kept ? message : "no checkpoint was written yet");
                break;
            }
            kept = true;
            int64_t begin = mxrt_trace_begin(s->trace);
            mx_status begun = session_save(s, path, &t->at);
            mxrt_trace_end(s->trace, begin, "copy for a checkpoint");
            if (begun != MX_OK)
                status = begun;
        }
        if (status == MX_OK && interrupted)
            status = MX_ERROR_INTERRUPTED;
    }
    struct mxrt_why why = s->why; /* of what ended the training, if that is an error */
    mx_status saved = session_saved(s);
    if (status != MX_OK && status != MX_ERROR_INTERRUPTED)
        s->why = why;
    else if (saved != MX_OK)
        status = saved;
    sigaction(SIGINT, &before_int, NULL);
    sigaction(SIGTERM, &before_term, NULL);
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
        status = prepare(t);
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
                if (is_shown(&t->evaluate->results[i]))
                    printf(",\"%s\":%.9g", t->evaluate->results[i].name, tally_value(&tally, i));
            printf("}\n");
        } else {
            tally_text(&tally, text, sizeof text);
            printf("%s  (%lld samples)\n", text, (long long)tally.samples);
        }
    }
    return finish(t, status);
}
