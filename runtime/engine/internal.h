/* What the engine's files share. How it works: docs/engine.md.
 *
 * Who may touch what:
 *   pusher side      under `push`, the lock of the engine: the order of the pushes, what variables know of their last
 *                    accesses, free records
 *   completer side   the one operation that has the variable: its version and error
 *   between the two  only atomics: an operation's list of successors and its count of what it waits for; a reader
 *                    group's count
 * Records are never given back before the engine ends and are reused only under `push`. So a pusher may look at an
 * operation that has completed: either its serial number is another one, or its list of successors is closed. */
#ifndef RUNTIME_ENGINE_INTERNAL_H
#define RUNTIME_ENGINE_INTERNAL_H

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#ifdef __has_include
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define HAVE_SINGLE_THREADED
#endif
#endif

#include "../relax.h"
#include "../trace_record.h"
#include "mxrt/engine.h"

#define LIKELY(x)   __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Asks for a line to write to. What gcc makes of __builtin_prefetch for the least x86-64 asks for it to read, and the
 * store pays a second time; processors that do not know the instruction take it for a nop. */
static inline void own_soon(const void *p) {
#ifdef __x86_64__
    __asm__ volatile("prefetchw %0" ::"m"(*(const char *)p));
#else
    __builtin_prefetch(p, 1);
#endif
}

enum {
    LINE = 64,
    CLASSES = 28,      /* of records: 0 a reader group or block, c an operation of up to 2^c - 1 accesses */
    FIRST_CHUNK = 512, /* variables; each further chunk is twice as long */
    CHUNKS = 22,
    BATCH = 32,              /* free records that change hands at once */
    RING = 256,              /* ready operations at one worker; a power of two */
    MOST_FETCHED = 5 * LINE, /* of a record, ahead of its use */
    MAX_THREADS = 256
};

/* Held for some tens of nanoseconds; the holder never blocks. */
struct spin {
    _Atomic int held;
};

/* Whether this process surely has no other thread, so that a lock needs no exchange. */
static inline bool alone(void) {
#ifdef HAVE_SINGLE_THREADED
    return __libc_single_threaded;
#else
    return false;
#endif
}

static inline void spin_lock(struct spin *s) {
    if (alone() && atomic_load_explicit(&s->held, memory_order_relaxed) == 0) {
        atomic_store_explicit(&s->held, 1, memory_order_relaxed);
        return;
    }
    for (int tries = 0; atomic_exchange_explicit(&s->held, 1, memory_order_acquire);) {
        while (atomic_load_explicit(&s->held, memory_order_relaxed)) {
            if (++tries % 64 == 0)
                sched_yield();
            else
                RELAX();
        }
    }
}

static inline void spin_unlock(struct spin *s) {
    atomic_store_explicit(&s->held, 0, memory_order_release);
}

/* One failure, shared by all variables that it reached; given to a waiter once. */
struct error {
    struct mxrt_engine *engine;
    _Atomic int references;    /* variables, latches, and the list */
    _Atomic uint64_t harmless; /* operations pushed from this serial number on, after it was given, do not mind it */
    mx_status status;
    const char *text;
    uint64_t serial;               /* of the operation that failed */
    struct error *previous, *next; /* of those not taken, in order; under `errors_lock` */
    bool listed;
};

/* A queue of pointers; `room` is a power of two. It has room for all there are. */
struct pointers {
    struct spin lock;
    _Atomic uint64_t tail;
    uint64_t head;
    size_t room;
    void **at;
};

struct batch {
    int count;
    void *at[BATCH];
};

/* The reads of a variable between two writes. `unfinished` counts down from 0 while the group is open; the write that
 * closes it adds how many joined, and whoever then brings it to 0 releases that write. */
struct group {
    _Atomic int64_t unfinished;
    struct op *writer;
};

/* Followers of an operation beyond those its record has room for; the size of a group's record. The first slot of an
 * operation's first block is the pusher's: the last block. */
enum { BLOCK = LINE / sizeof(void *) - 1 };
struct block {
    struct block *next;
    union {
        struct block *last;
        struct op *follower;
    } slot[BLOCK];
};

struct access {
    struct variable *variable;
    _Atomic(struct group *) group; /* a read's; atomic for those who look ahead */
};

enum { OP_ASYNC = 1, OP_ALWAYS = 2, OP_DELETE = 4, OP_WAIT = 8, OP_OPERATOR = 16, OP_SKIPPED = 32, OP_GRAPH = 64 };
enum { TASK = 1 }; /* the bit that tells a pointer to a task of a plan from one to an operation */
enum op_state { OP_FREE, OP_WAITING, OP_RUNNING };
#define CLOSED UINT64_MAX /* completed: nobody can follow any more */

/* A record of class c has room for n = 2^c - 1 accesses and, behind them, 2 n - 1 followers. */
struct op {
    _Atomic uint64_t followers; /* how many */
    _Atomic int32_t wait;       /* accesses not yet released, + 1 until it is registered */
    uint8_t flags, lane, class;
    _Atomic uint8_t state;   /* enum op_state */
    _Atomic uint64_t ticket; /* 2 * serial number, + 1 while an asynchronous operation is under way */
    union {
        mxrt_op_fn *run;
        mxrt_op_start_fn *start;
    };
    void *context;
    struct op *next; /* in a queue */
    union {
        struct error *error; /* once it has begun */
        struct op *child;    /* in the priority queue */
    };
    uint32_t reads, writes;
    const char *name;
    union {
        void (*release)(void *context);
        struct mxrt_operator *operator; /* OP_OPERATOR */
    };
    struct latch *latch; /* told when it completes; may be NULL */
    struct block *more;
    int32_t priority;
    struct access access[]; /* [reads + writes] */
};
static_assert(offsetof(struct op, access) == LINE + 40, "an operation of one access is to fit two lines");

static inline uint64_t op_room(const struct op *op) {
    return (2u << op->class) - 3;
}

static inline struct group *access_group(const struct access *a) {
    return atomic_load_explicit(&a->group, memory_order_relaxed);
}

static inline _Atomic(struct op *) *op_follower(struct op *op) {
    return (_Atomic(struct op *) *)&op->access[(1u << op->class) - 1];
}

/* What pushes touch of a variable: one line. What completions touch, its outcome, stands FIRST_CHUNK lines further on,
 * so that neither takes the other's lines from it and both go through memory in a row. */
struct variable {
    _Alignas(LINE) uint32_t generation;
    uint32_t index;
    uint64_t stamp;    /* 2 * serial of the push that met it last, + 1 if as a write */
    struct op *writer; /* the last write pushed … */
    uint64_t writer_serial;
    struct group *group; /* the reads since */
    int64_t joined;
    struct place *place;     /* of a graph that may run without pushes; graph_plan.c */
    _Atomic uint64_t called; /* writes completed inside their pushes */
};

struct outcome {
    _Alignas(LINE) struct error *error;
    _Atomic uint64_t version; /* other writes completed */
    const char *name;
    struct variable *next_free;
};
static_assert(sizeof(struct variable) == LINE && sizeof(struct outcome) == LINE, "see variable_at");

static inline struct outcome *outcome_of(const struct variable *v) {
    return (struct outcome *)(v + FIRST_CHUNK);
}

/* Somebody waits for `left` completions. Under `park` but for `left`. */
struct latch {
    _Atomic int64_t left;
    _Atomic bool done;
    bool skipped_too; /* wants the errors of operations skipped because of them, too */
    int references;
    struct error **errors; /* of those operations, each once */
    int error_count, error_room;
};

struct fifo {
    struct op *first, *last;
};

static inline void fifo_append(struct fifo *f, struct op *op) {
    op->next = NULL;
    if (f->last)
        f->last->next = op;
    else
        f->first = op;
    f->last = op;
}

static inline struct op *fifo_take(struct fifo *f) {
    struct op *op = f->first;
    if (op && !(f->first = op->next))
        f->last = NULL;
    return op;
}

/* Operations made ready by one completion. */
struct ready {
    struct fifo normal, waits;
};

/* A thread that runs operations. 0 is whoever waits for all, or, without workers, runs what it pushed. */
struct worker {
    struct mxrt_engine *engine;
    struct op *next;    /* follows at once: a successor of the one that just ran */
    struct fifo urgent; /* deletions */
    unsigned streak, ticks;
    unsigned rest, hasty; /* pauses before it takes from the queue; takes until it may rest again: queue.c */
    bool io;
    _Atomic uint64_t done; /* operations completed; only this thread writes it */
    struct batch freed[CLASSES];
    uint32_t given; /* bit c: freed[c] may hold some */
    struct mxrt_why why;
    pthread_t thread;
    _Alignas(LINE) _Atomic uint32_t head; /* of the ring; taken by anyone with a compare and swap */
    _Alignas(LINE) _Atomic uint32_t tail; /* put by the owner */
    _Atomic(struct op *) ring[RING];
};

struct mxrt_engine {
    bool naive;
    int workers, io_workers; /* threads that run now: worker[1 … workers], worker[io_first …] */
    int io_first, slots;
    struct mxrt_engine_options options; /* `threads` and `io_threads` as they are, no longer 0 for a choice */
    _Atomic bool shutdown;
    struct mxrt_trace *trace; /* NULL: none */
    uint64_t traced;          /* what tells this engine's operations there */
    struct worker *worker;    /* [slots] */
    struct mxrt_engine *link; /* all engines of the process, for fork */
    int pinned;               /* a fork looks at it; under the lock of that list */
    struct bulk *bulks;       /* of all threads; bulk.c */

    /* pusher side */
    _Alignas(LINE) struct spin push;
    bool stopped;             /* pushes are refused … */
    bool forking;             /* … or wait until the process has forked */
    bool broken;              /* the child of a fork in the midst of an operation */
    _Atomic bool helper_busy; /* somebody is worker 0 */
    struct fifo later;        /* without workers: pushed while somebody ran operations; not yet registered */
    _Atomic bool has_later;
    uint64_t deletions; /* of variables */
    uint64_t serial;
    _Atomic uint64_t pushed;
    struct batch free[CLASSES];
    size_t records[CLASSES], operations; /* made so far */
    struct slab *slab[CLASSES];          /* newest first */
    struct block *reserved_groups;
    int64_t free_groups, promised_groups; /* or blocks; promised: to operations not yet registered */
    size_t bytes;
    struct variable *free_variables;
    uint32_t variables;
    struct variable *chunk[CHUNKS];

    /* between the two */
    _Alignas(LINE) struct pointers returned[CLASSES];
    _Atomic(struct variable *) returned_variables;
    _Atomic uint64_t done_elsewhere; /* completed by threads that are no workers */
    _Atomic int foreign;             /* such threads inside the engine */

    /* ready operations */
    _Alignas(LINE) struct pointers queue;
    struct fifo first; /* deletions, before the queue; under its lock */
    _Atomic bool has_first;
    _Atomic uint64_t queue_head; /* of `queue`, for a look without the lock */
    _Alignas(LINE) struct spin heap_lock;
    struct op *heap;
    _Atomic int64_t in_heap;
    pthread_mutex_t io_lock;
    pthread_cond_t io_wake;
    struct fifo io_queue;

    /* sleeping; under `park` but for the atomics */
    _Alignas(LINE) _Atomic int sleeping;
    _Atomic int searching;
    _Atomic int all_waiters, waiters;
    _Atomic bool ending;       /* the threads are to end */
    const struct latch *until; /* what worker 0 waits for; its own */
    pthread_mutex_t park;
    pthread_cond_t wake, waiting;
    int wakes; /* sleepers chosen to wake, not yet awake */

    pthread_mutex_t errors_lock;
    struct error *errors, *last_error;
    struct error spare;          /* for when there is no memory for another one */
    _Atomic int64_t live_errors; /* records that variables may carry */
};

/* Which engine's operation this thread is inside of, innermost first. */
struct frame {
    struct mxrt_engine *engine;
    struct worker *worker; /* may be NULL */
    struct frame *outer;
};
extern _Thread_local struct frame *engine_innermost;

static inline void engine_enter(struct frame *f, struct mxrt_engine *e, struct worker *w) {
    *f = (struct frame){e, w, engine_innermost};
    engine_innermost = f;
}

static inline void engine_leave(struct frame *f) {
    engine_innermost = f->outer;
}

struct frame *engine_frame(const struct mxrt_engine *e);
mx_status engine_fail(struct mxrt_why *why, mx_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* memory.c; under `push`, but for the give functions, which any thread calls (w: its worker or NULL). */
struct op *memory_op(struct mxrt_engine *e, uint32_t accesses);
/* What an operation may need: a read a group, and each edge into it, also from a plan's run, a block. */
static inline int64_t groups_for(uint32_t reads, uint32_t writes) {
    return 3 * (int64_t)reads + 2 * (int64_t)writes;
}
bool memory_reserve_groups(struct mxrt_engine *e, int64_t n);
void *memory_group(struct mxrt_engine *e); /* or a block; reserved before */
void memory_take_back(struct mxrt_engine *e, void *record, int class);
void memory_give(struct mxrt_engine *e, struct worker *w, void *record, int class);
void memory_flush(struct mxrt_engine *e, struct worker *w);
void *memory_get(struct mxrt_engine *e, size_t bytes); /* counted, aligned to LINE */
bool memory_queue(struct mxrt_engine *e, size_t n);    /* room for n more in the queue */
void memory_end(struct mxrt_engine *e);
void memory_each_op(struct mxrt_engine *e, void (*visit)(void *context, struct op *op), void *context);

/* variable.c; variables are found under `push`. */
/* Chunk c holds FIRST_CHUNK << c variables: FIRST_CHUNK of them, their outcomes, the next ones … */
static inline struct variable *variable_at(struct mxrt_engine *e, uint32_t index) {
    uint32_t i = index + FIRST_CHUNK;
    int chunk = 31 - __builtin_clz(i) - __builtin_ctz(FIRST_CHUNK);
    size_t at = i - ((uint32_t)FIRST_CHUNK << chunk);
    return &e->chunk[chunk][at + at / FIRST_CHUNK * FIRST_CHUNK];
}

/* NULL: no such variable, or deleted. */
static inline struct variable *variable_find(struct mxrt_engine *e, struct mxrt_var v) {
    uint32_t index = (uint32_t)v.id;
    if (UNLIKELY(index >= e->variables))
        return NULL;
    struct variable *x = variable_at(e, index);
    return LIKELY(x->generation == v.id >> 32) ? x : NULL;
}

void variable_freed(struct mxrt_engine *e, struct variable *v);
void variable_end(struct mxrt_engine *e);

/* dependence.c */
void dependence_register(struct mxrt_engine *e, struct op *op, struct ready *ready);
void dependence_complete(struct mxrt_engine *e, struct worker *w, struct op *op, struct ready *ready);
void dependence_set(struct variable *v, struct error *error); /* a write of v has completed */
bool dependence_written(const struct variable *v);            /* under `push`: no write is pending */

/* queue.c: dispatch gives ready operations to the threads; take is the next one for worker w. */
void queue_dispatch(struct mxrt_engine *e, struct worker *w, struct ready *ready);
void queue_task(struct worker *w, struct op *task); /* of a plan, by w */
void queue_tasks(struct mxrt_engine *e, struct op *const *task, int64_t n);
struct op *queue_take(struct worker *w);
bool queue_any(struct mxrt_engine *e);
void queue_return_ring(struct worker *w);

/* run.c: runs an operation, and completes it unless it goes on elsewhere. w may be NULL. */
void run_op(struct mxrt_engine *e, struct worker *w, struct op *op, struct mxrt_why *why);
void run_waiting(struct mxrt_engine *e, struct worker *w, struct op *op); /* OP_WAIT */
/* Completes op; what becomes ready goes to `dispatcher`, or, for NULL, to all. */
void run_complete(struct mxrt_engine *e, struct worker *w, struct worker *dispatcher, struct op *op);

/* graph_plan.c */
void plan_task(struct mxrt_engine *e, struct worker *w, struct op *ready, struct mxrt_why *why);
struct op *plan_gate(const struct variable *v, bool write); /* for a variable with a place */
bool plan_holds(const struct op *op, uint64_t stamp);

/* threaded.c */
mx_status threads_start(struct mxrt_engine *e, struct mxrt_why *why);
void threads_end(struct mxrt_engine *e);
void threads_wake(struct mxrt_engine *e);
void threads_notify(struct mxrt_engine *e); /* those that wait */
void threads_quiet(struct mxrt_engine *e);  /* tells those that wait for all, when all is done */
/* Runs operations until l is done (NULL: until nothing is pending), unless another thread does. */
void threads_help(struct mxrt_engine *e, const struct latch *l);
bool threads_help_begin(struct mxrt_engine *e, const struct latch *l); /* true: the caller is worker 0 … */
void threads_help_end(struct mxrt_engine *e);                          /* … and helps now */

/* inline.c: without workers */
void inline_push(struct mxrt_engine *e, struct op *op); /* under `push`; releases it */
/* Between them, who has the place of worker 0 runs an operation; both under `push`, which they release. */
void inline_enter(struct mxrt_engine *e, struct frame *f);
void inline_leave(struct mxrt_engine *e, struct frame *f);
void inline_help(struct mxrt_engine *e);
void inline_drain(struct mxrt_engine *e);    /* by worker 0: runs what is ready, and gives its place back */
void inline_register(struct mxrt_engine *e); /* by worker 0: what was pushed meanwhile takes its place in the order */
bool inline_can_help(struct mxrt_engine *e);

/* error.c */
struct error *error_new(struct mxrt_engine *e, const char *name, uint64_t serial, mx_status status, const char *words);
struct error *error_keep(struct error *x);
void error_drop(struct error *x);
mx_status error_take(struct mxrt_engine *e, struct error *x, struct mxrt_why *why); /* MX_OK: it was taken before */
mx_status error_take_first(struct mxrt_engine *e, struct mxrt_why *why);
struct error *error_of(const struct op *op); /* that an operation it depends on left; NULL */

/* wait.c */
void latch_signal(struct mxrt_engine *e, struct latch *l, struct error *error);
struct latch *latch_new(int64_t left);
void latch_add_error(struct mxrt_engine *e, struct latch *l, struct error *x);
void latch_drop(struct mxrt_engine *e, struct latch *l);
/* Of a latch that is done: its first error; `take` gives all of them. */
mx_status latch_failure(struct mxrt_engine *e, struct latch *l, bool take, struct mxrt_why *why);
/* Until l is done, or, for NULL, nothing is pending; false after `deadline` (monotonic seconds, HUGE_VAL: none). */
bool wait_until(struct mxrt_engine *e, struct latch *l, double deadline);

/* engine.c: one operation into the order of pushes; under `push`. Not yet registered. */
mx_status push_prepare(struct mxrt_engine *e, const struct mxrt_op *d, unsigned flags, struct op **made,
                       struct mxrt_why *why);
void push_enter(struct mxrt_engine *e, struct op *op);                         /* releases `push` */
void push_register(struct mxrt_engine *e, struct op *op, struct ready *ready); /* with workers; under `push` */
bool push_call(struct mxrt_engine *e, const struct mxrt_op *d, struct error **failed, mx_status *status,
               struct mxrt_why *why); /* releases `push` when true */
mx_status push_described(struct mxrt_engine *e, const struct mxrt_op *d, unsigned flags, struct mxrt_operator *o,
                         struct mxrt_why *why);
bool engine_make_conditions(struct mxrt_engine *e);
mx_status engine_begin(struct mxrt_engine *e, bool deletes, struct mxrt_why *why); /* takes `push`; MX_OK: it is held */

mx_status push_check(struct mxrt_engine *e, const struct mxrt_op *d, struct mxrt_why *why);

/* bulk.c */
extern _Thread_local struct bulk *bulk_open; /* this thread's, of all engines */
/* True when d has joined this thread's bulk, or failed to; else what was in it has been pushed. */
bool bulk_join(struct mxrt_engine *e, const struct mxrt_op *d, unsigned flags, mx_status *status, struct mxrt_why *why);
void bulk_forget(struct mxrt_engine *e);
bool bulk_gathers(const struct mxrt_engine *e); /* this thread has something for e that is not yet pushed */

/* operator.c */
void operator_keep(struct mxrt_operator *o);
void operator_drop(struct mxrt_operator *o);

/* holder.c: what keeps variable v (NULL: anything) from being done, in words; under `push`. */
void holder_describe(struct mxrt_engine *e, const struct variable *v, char *words, size_t room);

/* fork.c */
void fork_register(struct mxrt_engine *e);
void fork_unregister(struct mxrt_engine *e);

static inline bool engine_pending(struct mxrt_engine *e) {
    /* The counts of completions first: both only grow, so equality holds at the moment they were read. */
    uint64_t done = atomic_load(&e->done_elsewhere);
    for (int i = 0; i < e->slots; i++)
        done += atomic_load_explicit(&e->worker[i].done, memory_order_acquire);
    return done != atomic_load(&e->pushed);
}

#endif
