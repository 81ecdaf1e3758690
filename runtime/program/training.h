/* A training run: shared by train.c (the loop), train_setup.c (data, batches, ranks), rank_states.c (checkpoints of what
 * each rank has for itself) and metrics.c (what is told). */
#ifndef MXRT_TRAINING_H
#define MXRT_TRAINING_H

#include "mxrt/data.h"
#include "mxrt/progress.h"
#include "ranks.h"
#include "session.h"

/* Results of a function over many calls: means of floats over samples, counts of integers. */
struct tally {
    const struct mxrt_function *f;
    double sums[MAX_RESULTS];
    int64_t samples, labels;
};

struct training {
    struct session *s;
    const struct mxrt_function *step, *evaluate;
    struct mxrt_data data, test;
    bool has_test;
    int64_t *held, *order; /* samples for training come first in `held`, then the held-out ones */
    int64_t train_count, test_count, epochs, per_epoch;
    int64_t batch; /* samples of a step, over all ranks */
    struct position at;
    struct mxrt_events *events;
    FILE *csv;
    struct mxrt_progress progress;
    double began;
    struct tally tally;   /* of the epoch so far */
    int64_t states[2];    /* steps of the last file of states and the one before; -1: none (rank_states.c) */
    int64_t residuals[2]; /* the same (rank_residuals.c) */
    bool stop;            /* over ranks: one of them asked for it */
    char kept[5000];      /* says which checkpoint is the last good one */
};

/* ---- train_setup.c */

/* Data, split and functions; the same for train and evaluate. */
mx_status training_prepare(struct training *t);
/* This rank's samples of an epoch, in place, batch by batch; how many of them. */
int64_t training_part(const struct training *t, int64_t *order);
/* This rank's samples of a whole batch. */
int64_t training_batch(const struct training *t);
/* The arguments of f for a batch (NULL: only scalars), with scalars by their schedules when `step` steps are done; storage[64] holds those. */
mx_status training_arguments(const struct training *t, const struct mxrt_function *f, const struct mxrt_batch *b,
                             int64_t step, double *storage, void **args, struct mxrt_why *why);
/* Makes the model, from a checkpoint if path is not NULL, which over ranks is read by rank 0 alone. */
mx_status training_open(struct training *t, const char *path);
/* After training_prepare: over ranks, all get the values of rank 0's model. */
mx_status training_start(struct training *t);

/* The position's sums are those of the tally. */
void training_position(struct training *t);

/* ---- rank_states.c */

/* Before the position is saved: every rank's own states into a file beside `path`. */
mx_status rank_states_save(struct training *t, const char *path);
/* After the last checkpoint is whole: only its states stay. */
void rank_states_saved(struct training *t, const char *path);
/* After training_start, on resumption from `path`: every rank's own states, if that many ranks saved them. */
mx_status rank_states_load(struct training *t, const char *path);

/* The name of a file that belongs to the checkpoint at `path`. */
void rank_file_path(const char *path, const char *kind, int64_t step, char *out, size_t size);
/* steps: of the last such file and the one before, -1: none. The one before goes when the last checkpoint is whole; a new one is there. */
void rank_file_drop(const char *path, const char *kind, int64_t *steps);
void rank_file_kept(const char *path, const char *kind, int64_t *steps, int64_t step);

/* ---- rank_residuals.c: the same for what compression left out; on all ranks, and nothing without compression */

mx_status rank_residuals_save(struct training *t, const char *path);
void rank_residuals_saved(struct training *t, const char *path);
mx_status rank_residuals_load(struct training *t, const char *path);

/* ---- metrics.c */

void tally_add_result(struct tally *t, int i, double value, int64_t samples);
/* False at a float that is no number: *bad is its index. */
bool tally_add(struct tally *t, const struct mxrt_array *results, const struct mxrt_batch *b, int *bad);
double tally_value(const struct tally *t, int i);
void tally_text(const struct tally *t, char *out, size_t size);
bool tally_shows(const struct mxrt_value *v);
/* The sum over ranks. */
mx_status tally_sum(struct tally *t, struct ranks *r, struct mxrt_why *why);
/* metrics.csv and TensorBoard's events; on resumption with the rows up to the checkpoint. */
mx_status metrics_open(struct training *t);
void metrics_epoch(struct training *t, const struct tally *train, const struct tally *test);

#endif
