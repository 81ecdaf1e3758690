/* One rank's part of a training run over several: batches in parts, gradients that are averaged while the backward pass still
 * runs, parameters that change as soon as their averages are there. Private to the parts behind mxrt_main.
 *
 * All ranks call the same functions in the same order; where one cannot go on, it calls ranks_fail, and the others' next
 * call ends with MX_ERROR_PEER. */
#ifndef MXRT_RANKS_H
#define MXRT_RANKS_H

#include "mxrt/kvstore.h"
#include "mxrt/program.h"

struct ranks;

struct ranks_options {
    const char *store; /* --kvstore; NULL: one process */
    bool devices;      /* --kvstore device: a rank for each GPU, where they average among themselves */
    int virtual_ranks; /* ranks of this process; 0: processes of an MPI job */
    int servers;
    bool shard, fast;
    double timeout; /* seconds; 0: the net's default */
    int node_ranks; /* 0: as the net finds nodes */
    size_t bucket;  /* bytes; 0: from what the network takes */
    enum mxrt_kv_compression compression;
    float threshold;
};

/* Takes the net over. The model and the program's tables must outlive it. */
mx_status ranks_open(struct ranks **r, const struct mxrt_program *p, struct mxrt_net *net,
                     const struct ranks_options *options, struct mxrt_why *why);
void ranks_close(struct ranks *r);     /* waits for the others, unless one is lost; NULL is allowed */
int ranks_rank(const struct ranks *r); /* 0 and 1 for NULL: one process */
int ranks_count(const struct ranks *r);
void ranks_fail(struct ranks *r, const char *message);
/* What compression has left out of this rank's gradients so far; NULL and 0 without compression. To be read and written when no step is under
 * way. */
float *ranks_residual(const struct ranks *r, size_t *bytes);
/* After a loss: whether this rank is one to save: the first that is on another machine than the lost one, or the first that is left. Where
 * machines have lost sight of each other, that may be one on each side. Never where ranks have states of their own or gradients that were
 * left out, which nobody could gather, or keep parts of the optimizer's. */
bool ranks_saves(const struct ranks *r);

/* This rank's part of n samples: how many, and which is the first. */
int64_t ranks_part(const struct ranks *r, int64_t n, int64_t *first);

/* Whether each rank goes at its own pace (dist_async): nothing is known of the others' steps. */
bool ranks_apart(const struct ranks *r);

/* Collectives that block. From `root` to all; sums of doubles; everybody's bytes, in order of ranks. */
mx_status ranks_broadcast(struct ranks *r, int root, void *data, size_t bytes, struct mxrt_why *why);
mx_status ranks_sum(struct ranks *r, double *values, int count, struct mxrt_why *why);
mx_status ranks_gather(struct ranks *r, const void *mine, size_t bytes, void *all, struct mxrt_why *why);

/* The step's scalar arguments when so many steps are done: args[i] points into storage[64]. From any thread. */
struct ranks_schedule {
    mx_status (*scalars)(void *context, int64_t step, double *storage, void **args, struct mxrt_why *why);
    void *context;
    int64_t done; /* steps that were done before this run */
};
/* Before the first step: rank 0's model to all. Blocks. */
mx_status ranks_start(struct ranks *r, void *model, const struct ranks_schedule *schedule, struct mxrt_why *why);
/* Before the model is saved: all of its state, wherever it is kept. Blocks. */
mx_status ranks_collect(struct ranks *r, void *model, struct mxrt_why *why);

/* What all ranks know of a step once it is complete everywhere. */
struct ranks_done {
    bool any;                /* a step became complete */
    bool stop;               /* some rank asked to stop in it */
    int64_t samples, labels; /* over all ranks */
    double values[64];       /* of its results of rank 0: floats: means over the samples; integers: sums */
};

/* One step. dims, args: of this rank's `n` samples, from `first` on of `total`; with n 0, args has only the scalars. results: this rank's. On return the step is under
 * way; the one before it is complete, and `done` says so. After an error see ranks_recover. */
struct ranks_batch {
    int64_t n, first, total, labels;
    const int64_t *dims;
    void *const *args, *const *results;
    bool stop; /* ask all ranks to stop after this step */
};
mx_status ranks_step(struct ranks *r, void *model, const struct ranks_batch *b, struct ranks_done *done,
                     struct mxrt_why *why);
/* Completes the step under way: the model is as after it. */
mx_status ranks_settle(struct ranks *r, void *model, struct ranks_done *done, struct mxrt_why *why);
/* After MX_ERROR_PEER: makes the model consistent, as after the last step whose averages had all arrived here. `done`: that step, if it was not
 * told before. *undone: how many of the steps that ranks_step ended without an error are as if they had not been; -1: one more is
 * complete than those. */
void ranks_recover(struct ranks *r, void *model, struct ranks_done *done, int *undone);

#endif
