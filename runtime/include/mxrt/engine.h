/* A dependency engine: operations say which variables they read and write, and run as soon as, and no sooner than, the
 * operations pushed before them allow. Results are those of running everything in the order of the pushes, for any
 * number of threads. The manual is docs/engine.md. Needs libc and threads; nothing of the compiler.
 *
 * Every function may be called from any thread, and unless it says otherwise from inside operations. A status other
 * than MX_OK comes with a message in `why`, which may be NULL. */
#ifndef MXRT_ENGINE_H
#define MXRT_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mxrt/trace.h"
#include "mxrt/why.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mxrt_engine;
struct mxrt_operator;

/* A variable stands for whatever its operations read and write; the engine never sees the data. Handles are checked:
 * one whose variable was deleted is refused with an error. {0} is no variable. */
struct mxrt_var {
    uint64_t id;
};

enum mxrt_engine_kind {
    MXRT_ENGINE_THREADED,
    MXRT_ENGINE_NAIVE /* each push runs its operation before it returns: for finding faults */
};

enum mxrt_lane {
    MXRT_LANE_NORMAL,   /* ready operations run in the order in which they became ready, or nearly so */
    MXRT_LANE_PRIORITY, /* before those of the normal lane, larger `priority` first, then in order of pushes */
    MXRT_LANE_IO,       /* threads of its own, in order of readiness: for what blocks without computing */
    MXRT_LANE_INLINE    /* by the pushing thread if ready at the push: for what only starts something elsewhere */
};

struct mxrt_engine_options {
    enum mxrt_engine_kind kind;
    /* Threads that run operations. The thread that waits for all counts as one, so 2 makes one worker; 1 makes none:
     * ready operations run inside the push, others when somebody waits. 0: one a processor. */
    int threads;
    int io_threads;      /* of the IO lane; 0: one if there are workers, else that lane is the normal one */
    size_t memory_limit; /* bytes of the engine's own records; 0: none. Beyond it pushes fail with MX_ERROR_MEMORY */
    struct mxrt_trace *trace; /* notes what runs; outlives the engine; NULL: none */
};

/* NULL options: threaded, one thread a processor. */
mx_status mxrt_engine_create(struct mxrt_engine **e, const struct mxrt_engine_options *options, struct mxrt_why *why);
/* Waits for everything, then ends the threads. Not from inside its operations. NULL is allowed. */
void mxrt_engine_destroy(struct mxrt_engine *e);
/* Stop waits for everything and ends the threads; until the next start, pushes are refused. Refused inside operations. */
mx_status mxrt_engine_stop(struct mxrt_engine *e, struct mxrt_why *why);
mx_status mxrt_engine_start(struct mxrt_engine *e, struct mxrt_why *why);
/* From now on operations complete without running; deletions still run. For quick ends; cannot be undone. */
void mxrt_engine_shutdown(struct mxrt_engine *e);
int mxrt_engine_threads(const struct mxrt_engine *e);
bool mxrt_engine_is_naive(const struct mxrt_engine *e);

/* ---- variables */

/* `name` (may be NULL) stands in messages and must outlive the variable. */
mx_status mxrt_var_new(struct mxrt_engine *e, const char *name, struct mxrt_var *v, struct mxrt_why *why);
/* A queued write: runs after all that was pushed on v, even where that failed; then calls release(context) (may be
 * NULL). At once, nothing more can be pushed on v. */
mx_status mxrt_var_delete(struct mxrt_engine *e, struct mxrt_var v, void (*release)(void *context), void *context,
                          struct mxrt_why *why);
/* Writes completed so far, failed and skipped ones too; UINT64_MAX for no variable. */
uint64_t mxrt_var_version(struct mxrt_engine *e, struct mxrt_var v);
/* Sorts both lists, drops what stands twice, and from reads what stands in writes: pushes want them so. */
void mxrt_var_dedupe(struct mxrt_var *reads, int *read_count, struct mxrt_var *writes, int *write_count);

/* ---- operations */

/* Runs the operation. A status other than MX_OK fails it; `why` should say more, else the status is named. */
typedef mx_status mxrt_op_fn(void *context, struct mxrt_why *why);
/* Starts the operation, which ends when someone, on any thread, calls mxrt_op_complete with the token. */
struct mxrt_token {
    void *op;
    uint64_t ticket;
};
typedef void mxrt_op_start_fn(void *context, struct mxrt_token token);

struct mxrt_op {
    const char *name;        /* for messages; must outlive the operation; may be NULL */
    mxrt_op_fn *run;         /* this one … */
    mxrt_op_start_fn *start; /* … or this one */
    void *context;
    void (*release)(void *context); /* called once when the operation has ended, also without running; may be NULL */
    const struct mxrt_var *reads, *writes; /* copied; no variable twice */
    int read_count, write_count;
    enum mxrt_lane lane;
    int priority;
    bool always; /* runs even if what it reads or writes carries an error */
};

/* Returns at once; the operation runs when all earlier writes of what it reads, and all earlier reads and writes of
 * what it writes, have completed. A push that fails has done nothing (release is not called). */
mx_status mxrt_engine_push(struct mxrt_engine *e, const struct mxrt_op *op, struct mxrt_why *why);
/* Ends an operation begun by `start`: with MX_OK, or with an error and its message. MX_ERROR_ARGUMENT, and nothing
 * else, when it has ended before. */
mx_status mxrt_op_complete(struct mxrt_engine *e, struct mxrt_token token, mx_status status, const char *message);

/* An operation that is pushed many times. `release` is called when the operator is deleted and its last push has
 * completed. */
mx_status mxrt_operator_new(struct mxrt_engine *e, const struct mxrt_op *op, struct mxrt_operator **o,
                            struct mxrt_why *why);
mx_status mxrt_operator_push(struct mxrt_operator *o, int priority, struct mxrt_why *why);
void mxrt_operator_delete(struct mxrt_operator *o); /* NULL is allowed */

/* Bulk: of this thread, up to n pushes in a row of plain operations (`run`, normal lane, priority 0, neither always
 * nor release) become one operation with the union of their variables; a failing one ends the bulk and fails all it
 * writes. Any other push, a wait, the end of the thread and n pushes end it. 0: off. Returns the old n. */
int mxrt_engine_bulk(struct mxrt_engine *e, int n);
/* Pushes this thread's bulk. The status is that of the push. */
mx_status mxrt_engine_flush(struct mxrt_engine *e, struct mxrt_why *why);

/* ---- waiting: refused inside operations of this engine, where it could wait for itself */

/* Until the writes pushed on v have completed. If the last of them failed, or was skipped because of a failure before
 * it, gives that error; an error is given once, by whatever wait comes first. */
mx_status mxrt_engine_wait_var(struct mxrt_engine *e, struct mxrt_var v, struct mxrt_why *why);
/* MX_ERROR_TIMEOUT after so many seconds: the message names the operation that holds v. */
mx_status mxrt_engine_wait_var_for(struct mxrt_engine *e, struct mxrt_var v, double seconds, struct mxrt_why *why);
/* Until nothing is pending; gives the first error that no wait has given, and forgets the others. */
mx_status mxrt_engine_wait_all(struct mxrt_engine *e, struct mxrt_why *why);
mx_status mxrt_engine_wait_all_for(struct mxrt_engine *e, double seconds, struct mxrt_why *why);

#ifdef __cplusplus
}
#endif
#endif
