/* A program at work: its command line and its model. Private to the parts behind mxrt_main. */
#ifndef MXRT_SESSION_H
#define MXRT_SESSION_H

#include <signal.h>

#include "mxrt/checkpoint.h"
#include "mxrt/data.h"
#include "mxrt/program.h"
#include "mxrt/progress.h"
#include "mxrt/trace.h"
#include "ranks.h"

enum { MAX_INPUTS = 64, MAX_RESULTS = 64 };

struct session {
    const struct mxrt_program *p;
    const char *command, *call, *data, *out, *weights;
    const char *inputs[MAX_INPUTS]; /* NAME=VALUE */
    int input_count;
    int64_t epochs, batch, steps; /* -1: as the train block says; steps: at most so many, for tests */
    uint64_t seed;
    bool has_seed, resume, quiet, json;
    int threads;
    struct ranks_options ranks_options; /* `store` NULL: one process */
    struct mxrt_net *net;               /* of this rank, until `ranks` has it */
    struct ranks *ranks;                /* NULL: one process */
    void *model;
    struct mxrt_saver *saver; /* NULL: saving is done at once */
    int status;               /* exit status of a rank that is a thread */
    const char *trace_path;   /* --trace */
    struct mxrt_trace *trace; /* NULL: none is wanted */
    struct mxrt_why why;
};

/* What a checkpoint says beside the tensors. */
struct position {
    bool found;
    uint64_t seed, calls;
    int64_t epoch, batch, step; /* next to be done: epoch from 0, batch in it; steps done */
    int64_t batch_size, samples, labels;
    int64_t ranks; /* above 1: so many ranks had states of their own, in another file (rank_states.c) */
    double sums[MAX_RESULTS];
    uint32_t *vocabulary;
    int vocabulary_size;
    char text[1 << 16]; /* of the vocabulary while it is read */
    size_t text_length;
};

const struct mxrt_function *session_function(const struct session *s, const char *name);
const struct mxrt_setting *session_setting(const struct session *s, const char *key);
/* Makes the model; from a checkpoint when `path` is not NULL. */
mx_status session_open(struct session *s, const char *path, struct position *at);
/* Begins to save; what goes wrong is told then, at the next call, or by session_saved, which waits. */
mx_status session_keep(struct session *s, const char *path, const struct position *at);
mx_status session_saved(struct session *s);
void session_close(struct session *s);
/* States that each rank has for itself, one behind the other, out of the model, or back: how many bytes. Memory NULL: only that. */
size_t session_states(struct session *s, unsigned char *memory, bool back);
/* The path of the run's checkpoint. */
void session_path(const struct session *s, const char *file, char *out, size_t size);
mx_status session_make_folder(struct session *s);

/* Memory for a function's results at these dimensions: results[i]. */
mx_status results_make(const struct mxrt_function *f, const int64_t *dims, struct mxrt_array *results,
                       struct mxrt_why *why);

/* The value at `step` of `total` (epochs of `per_epoch` steps) of a number or a schedule; false with a message. */
mx_status schedule_value(const struct mxrt_setting *s, const char *key, int64_t step, int64_t total, int64_t per_epoch,
                         double *value, struct mxrt_why *why);

/* After f refused a batch of d: puts the place of the first sample that it refuses alone before the message in s->why. The
 * model has changed afterwards. */
void name_culprit(struct session *s, const struct mxrt_data *d, const struct mxrt_function *f,
                  const struct mxrt_batch *b, void *const *args, void **out);

/* over_ranks.c. An option: 1: taken, 0: no such option, -1: bad value (reported). */
int ranks_option(struct session *s, const char *name, const char *value);
/* Trains as one process or as the ranks that the options ask for; closes the session. The exit status. */
int over_ranks(struct session *s);
int exchange_command(const struct session *s); /* exchange_command.c */
int train_command(struct session *s);
int evaluate_command(struct session *s);
int call_command(struct session *s, const struct mxrt_function *f);

#endif
