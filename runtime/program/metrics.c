/* What a run tells: means and counts of its results, on the terminal, in metrics.csv and in TensorBoard's events. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "training.h"

bool tally_shows(const struct mxrt_value *v) {
    return v->rank == 0 && v->dtype != MX_BOOL;
}

static bool is_count(const struct mxrt_value *v) {
    return v->dtype >= MX_I64;
}

void tally_add_result(struct tally *t, int i, double value, int64_t samples) {
    t->sums[i] += is_count(&t->f->results[i]) ? value : value * (double)samples;
}

bool tally_add(struct tally *t, const struct mxrt_array *results, const struct mxrt_batch *b, int *bad) {
    bool ok = true;
    for (int i = 0; i < t->f->result_count && i < MAX_RESULTS; i++) {
        if (!tally_shows(&t->f->results[i]))
            continue;
        double v = mxrt_get(results[i].dtype, results[i].data, 0);
        if (!isfinite(v) && ok) {
            ok = false;
            *bad = i;
        }
        tally_add_result(t, i, v, b->n);
    }
    t->samples += b->n;
    t->labels += b->labels;
    return ok;
}

double tally_value(const struct tally *t, int i) {
    if (is_count(&t->f->results[i]))
        return t->labels ? 100 * t->sums[i] / (double)t->labels : 0;
    return t->samples ? t->sums[i] / (double)t->samples : 0;
}

void tally_text(const struct tally *t, char *out, size_t size) {
    size_t n = 0;
    out[0] = 0;
    for (int i = 0; i < t->f->result_count && i < MAX_RESULTS && n + 64 < size; i++)
        if (tally_shows(&t->f->results[i]))
            n += (size_t)snprintf(out + n, size - n, is_count(&t->f->results[i]) ? "%s%.40s %.1f%%" : "%s%.40s %.4f",
                                  n ? "  " : "", t->f->results[i].name, tally_value(t, i));
}

mx_status tally_sum(struct tally *t, struct ranks *r, struct mxrt_why *why) {
    double all[MAX_RESULTS + 2];
    int n = t->f->result_count < MAX_RESULTS ? t->f->result_count : MAX_RESULTS;
    memcpy(all, t->sums, sizeof *all * (size_t)n);
    all[n] = (double)t->samples;
    all[n + 1] = (double)t->labels;
    mx_status status = ranks_sum(r, all, n + 2, why);
    memcpy(t->sums, all, sizeof *all * (size_t)n);
    t->samples = (int64_t)all[n];
    t->labels = (int64_t)all[n + 1];
    return status;
}

/* It takes its name only when the rows up to the checkpoint are in it, so that a kill leaves one or the other. */
mx_status metrics_open(struct training *t) {
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
        if (tally_shows(&t->step->results[i]))
            fprintf(t->csv, ",%s", t->step->results[i].name);
    for (int i = 0; t->evaluate && i < t->evaluate->result_count; i++)
        if (tally_shows(&t->evaluate->results[i]))
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

void metrics_epoch(struct training *t, const struct tally *train, const struct tally *test) {
    char line[2048], a[900], b[900] = "";
    double seconds = mxrt_seconds() - t->began;
    tally_text(train, a, sizeof a);
    if (test)
        tally_text(test, b, sizeof b);
    if (t->s->json) {
        printf("{\"epoch\":%lld,\"step\":%lld,\"seconds\":%.3f", (long long)t->at.epoch, (long long)t->at.step,
               seconds);
        for (int i = 0; i < train->f->result_count; i++)
            if (tally_shows(&train->f->results[i]))
                printf(",\"%s\":%.9g", train->f->results[i].name, tally_value(train, i));
        for (int i = 0; test && i < test->f->result_count; i++)
            if (tally_shows(&test->f->results[i]))
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
        if (tally_shows(&train->f->results[i])) {
            fprintf(t->csv, ",%.9g", tally_value(train, i));
            mxrt_events_scalar(t->events, train->f->results[i].name, t->at.step, tally_value(train, i));
        }
    for (int i = 0; test && i < test->f->result_count; i++)
        if (tally_shows(&test->f->results[i])) {
            char tag[128];
            (void)snprintf(tag, sizeof tag, "test/%s", test->f->results[i].name);
            fprintf(t->csv, ",%.9g", tally_value(test, i));
            mxrt_events_scalar(t->events, tag, t->at.step, tally_value(test, i));
        }
    fputs("\n", t->csv);
    (void)fflush(t->csv);
}
