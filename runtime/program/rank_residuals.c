/* Checkpoints of what compression left out: a file a rank beside the checkpoint, since together they are as large as all ranks'
 * gradients, which no rank should hold.
 *
 * A rank writes its own and then meets the others; only then is the checkpoint written. Files have the step in their names, and those of the
 * checkpoint before go when rank 0 has seen that the new one is whole. So whatever moment a run is killed at, a checkpoint
 * has all of its files beside it. Where they are not of the same number of ranks and kind of compression, or one is missing, all
 * ranks begin with nothing left out. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "training.h"

enum { PATH = 4300 };

/* checkpoint.safetensors: checkpoint.residual.RANK.STEP.safetensors. */
struct kind {
    char text[40];
};

static struct kind kind_of(const struct training *t) {
    struct kind k;
    (void)snprintf(k.text, sizeof k.text, "residual.%d", ranks_rank(t->s->ranks));
    return k;
}

/* What the file must say it is. */
struct facts {
    char text[96];
};

static struct facts facts_of(const struct training *t) {
    const struct ranks_options *o = &t->s->ranks_options;
    struct facts f;
    (void)snprintf(f.text, sizeof f.text, "ranks %d, step %lld, seed %llu, compression %d:%g", ranks_count(t->s->ranks),
                   (long long)t->at.step, (unsigned long long)t->at.seed, (int)o->compression, (double)o->threshold);
    return f;
}

static struct mxrt_named tensor_of(float *residual, size_t bytes, int64_t *elements) {
    *elements = (int64_t)(bytes / sizeof *residual);
    return (struct mxrt_named){"residual",
                               {.dtype = MX_F32, .rank = 1, .shape = elements, .data = residual, .bytes = bytes}};
}

/* Until all ranks are here; *missing is how many of them lack something. */
static mx_status meet(struct training *t, double *missing) {
    return ranks_sum(t->s->ranks, missing, 1, &t->s->why);
}

mx_status rank_residuals_save(struct training *t, const char *path) {
    struct session *s = t->s;
    char file[PATH];
    size_t bytes;
    int64_t elements;
    float *residual = ranks_residual(s->ranks, &bytes);
    if (!residual)
        return MX_OK;
    const struct facts facts = facts_of(t);
    const char *const pairs[][2] = {{"model", s->p->name}, {"of", facts.text}};
    const struct mxrt_named named = tensor_of(residual, bytes, &elements);
    rank_file_path(path, kind_of(t).text, t->at.step, file, sizeof file);
    mx_status status = session_make_folder(s); /* where machines do not share one */
    if (status == MX_OK)
        status = mxrt_checkpoint_write(file, &named, 1, pairs, 2, &s->why);
    if (status == MX_OK)
        status = session_saved(s); /* rank 0: the checkpoint before is whole */
    if (status == MX_OK)
        status = meet(t, &(double){0});
    if (status == MX_OK)
        rank_file_kept(path, kind_of(t).text, t->residuals, t->at.step);
    return status;
}

void rank_residuals_saved(struct training *t, const char *path) {
    if (ranks_residual(t->s->ranks, &(size_t){0}) && meet(t, &(double){0}) == MX_OK)
        rank_file_drop(path, kind_of(t).text, t->residuals);
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

static void take(void *context, const char *key, const char *value) {
    struct facts *f = context;
    if (strcmp(key, "of") == 0)
        (void)snprintf(f->text, sizeof f->text, "%s", value);
}

mx_status rank_residuals_load(struct training *t, const char *path) {
    struct session *s = t->s;
    struct mxrt_why why = {0};
    struct facts facts = {""}, own = facts_of(t);
    char file[PATH], line[600];
    size_t bytes;
    int64_t elements;
    float *residual = ranks_residual(s->ranks, &bytes);
    if (!residual)
        return MX_OK;
    const struct mxrt_named named = tensor_of(residual, bytes, &elements);
    rank_file_path(path, kind_of(t).text, t->at.step, file, sizeof file);
    mx_status found = mxrt_checkpoint_metadata(file, take, &facts, &why);
    if (found == MX_OK && strcmp(facts.text, own.text) != 0)
        found = mxrt_fail(&why, MX_ERROR_FORMAT, "%.200s is of %.96s; this is %.96s", file, facts.text, own.text);
    if (found == MX_OK)
        found = mxrt_checkpoint_read(file, &named, 1, NULL, NULL, &why);
    double missing = found == MX_OK ? 0 : 1;
    mx_status status = meet(t, &missing);
    if (status == MX_OK && missing == 0)
        t->residuals[0] = t->at.step;
    if (status != MX_OK || missing == 0)
        return status;
    memset(residual, 0, bytes);
    (void)snprintf(line, sizeof line, "compression begins with nothing left out: %.500s",
                   found == MX_OK ? "another rank's file is missing" : why.text);
    mxrt_progress_line(&t->progress, line);
    return MX_OK;
}
