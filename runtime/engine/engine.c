/* The engine's life, and pushing. */
#define _GNU_SOURCE
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../processors.h"
#include "internal.h"

mx_status engine_fail(struct mxrt_why *why, mx_status status, const char *format, ...) {
    if (why) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(why->text, sizeof why->text, format, args);
        va_end(args);
    }
    return status;
}

_Thread_local struct frame *engine_innermost;

struct frame *engine_frame(const struct mxrt_engine *e) {
    struct frame *f = engine_innermost;
    while (f && f->engine != e)
        f = f->outer;
    return f;
}

/* ---- life */

bool engine_make_conditions(struct mxrt_engine *e) {
    pthread_condattr_t monotonic;
    if (pthread_condattr_init(&monotonic) != 0)
        return false;
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    bool made = pthread_cond_init(&e->wake, NULL) == 0 && pthread_cond_init(&e->io_wake, NULL) == 0 &&
                pthread_cond_init(&e->waiting, &monotonic) == 0;
    pthread_condattr_destroy(&monotonic);
    return made;
}

static bool make_locks(struct mxrt_engine *e) {
    return pthread_mutex_init(&e->park, NULL) == 0 && pthread_mutex_init(&e->io_lock, NULL) == 0 &&
           pthread_mutex_init(&e->errors_lock, NULL) == 0 && engine_make_conditions(e);
}

static void free_engine(struct mxrt_engine *e) {
    pthread_cond_destroy(&e->waiting);
    pthread_cond_destroy(&e->io_wake);
    pthread_cond_destroy(&e->wake);
    pthread_mutex_destroy(&e->errors_lock);
    pthread_mutex_destroy(&e->io_lock);
    pthread_mutex_destroy(&e->park);
    free(e->worker);
    free(e);
}

static void *zeroed(size_t bytes) {
    bytes = (bytes + LINE - 1) / LINE * LINE;
    void *p = aligned_alloc(LINE, bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

mx_status mxrt_engine_create(struct mxrt_engine **out, const struct mxrt_engine_options *options,
                             struct mxrt_why *why) {
    struct mxrt_engine_options o = options ? *options : (struct mxrt_engine_options){0};
    if (!out || o.threads < 0 || o.threads > MAX_THREADS || o.io_threads < 0 || o.io_threads > MAX_THREADS)
        return engine_fail(why, MX_ERROR_ARGUMENT, "an engine has 0 to %d threads, not %d and %d", MAX_THREADS,
                           o.threads, o.io_threads);
    bool naive = o.kind == MXRT_ENGINE_NAIVE;
    if (naive) {
        o.threads = 1;
        o.io_threads = 0;
    } else if (o.threads == 0) {
        int n = mxrt_processors();
        o.threads = n > MAX_THREADS ? MAX_THREADS : n;
    }
    if (o.io_threads == 0 && o.threads > 1)
        o.io_threads = 1;
    struct mxrt_engine *e = zeroed(sizeof *e);
    if (e) {
        e->naive = naive;
        e->options = o;
        e->trace = o.trace;
        e->traced = o.trace ? trace_engine(o.trace) : 0;
        e->io_first = o.threads;
        e->slots = o.threads + o.io_threads;
        e->worker = zeroed((size_t)e->slots * sizeof *e->worker);
        e->spare = (struct error){.references = 1,
                                  .status = MX_ERROR_MEMORY,
                                  .text = "an operation failed, and there was no memory to say how"};
    }
    if (!e || !e->worker || !make_locks(e)) {
        if (e)
            free(e->worker);
        free(e);
        return engine_fail(why, MX_ERROR_MEMORY, "no memory for an engine");
    }
    for (int i = 0; i < e->slots; i++) {
        e->worker[i].engine = e;
        e->worker[i].io = i >= e->io_first;
    }
    mx_status status = threads_start(e, why);
    if (status != MX_OK) {
        free_engine(e);
        return status;
    }
    fork_register(e);
    *out = e;
    return MX_OK;
}

int mxrt_engine_threads(const struct mxrt_engine *e) {
    return e ? e->workers + 1 : 0;
}

bool mxrt_engine_is_naive(const struct mxrt_engine *e) {
    return e && e->naive;
}

/* Refuses pushes and ends the threads when nothing is pending; a fork may do so for a while, too. */
static void halt(struct mxrt_engine *e) {
    for (bool mine = false; !mine;) {
        spin_lock(&e->push);
        bool stopped = e->stopped, forking = e->forking;
        mine = !stopped && !engine_pending(e);
        if (mine)
            e->stopped = true;
        spin_unlock(&e->push);
        if (stopped && !forking)
            return;
        if (stopped)
            sched_yield();
        else if (!mine)
            wait_until(e, NULL, HUGE_VAL);
    }
    threads_end(e);
}

mx_status mxrt_engine_stop(struct mxrt_engine *e, struct mxrt_why *why) {
    if (!e || engine_frame(e))
        return engine_fail(why, MX_ERROR_ARGUMENT,
                           e ? "an engine cannot be stopped by one of its operations" : "no engine");
    mx_status status = mxrt_engine_flush(e, why);
    if (!e->broken)
        halt(e);
    return status;
}

mx_status mxrt_engine_start(struct mxrt_engine *e, struct mxrt_why *why) {
    if (!e || engine_frame(e))
        return engine_fail(why, MX_ERROR_ARGUMENT,
                           e ? "an engine cannot be started by one of its operations" : "no engine");
    if (!e->stopped || e->broken)
        return MX_OK;
    mx_status status = threads_start(e, why);
    if (status == MX_OK) {
        spin_lock(&e->push);
        e->stopped = false;
        spin_unlock(&e->push);
    }
    return status;
}

void mxrt_engine_shutdown(struct mxrt_engine *e) {
    atomic_store(&e->shutdown, true);
}

void mxrt_engine_destroy(struct mxrt_engine *e) {
    if (!e)
        return;
    (void)mxrt_engine_stop(e, NULL);
    fork_unregister(e);
    bulk_forget(e);
    while (atomic_load(&e->foreign) > 0)
        sched_yield();
    error_take_first(e, NULL);
    variable_end(e);
    memory_end(e);
    free_engine(e);
}

/* ---- pushing */

enum { MOST_CALLED = 16 };

/* `push` is held, and the engine is stopped. */
static mx_status begin_stopped(struct mxrt_engine *e, bool deletes, struct mxrt_why *why) {
    while (e->stopped && e->forking) {
        spin_unlock(&e->push);
        sched_yield();
        spin_lock(&e->push);
    }
    if (!e->stopped || (deletes && !e->broken))
        return MX_OK;
    bool broken = e->broken;
    spin_unlock(&e->push);
    return engine_fail(why, MX_ERROR_ARGUMENT,
                       broken ? "the engine was forked in the midst of one of its operations"
                              : "the engine is stopped");
}

static inline mx_status begin(struct mxrt_engine *e, bool deletes, struct mxrt_why *why) {
    spin_lock(&e->push);
    return LIKELY(!e->stopped) ? MX_OK : begin_stopped(e, deletes, why);
}

mx_status engine_begin(struct mxrt_engine *e, bool deletes, struct mxrt_why *why) {
    return begin(e, deletes, why);
}

static mx_status refuse(struct mxrt_why *why, const struct mxrt_op *d, const char *words) {
    return engine_fail(why, MX_ERROR_ARGUMENT, "operation `%.60s`: %s", d->name ? d->name : "(no name)", words);
}

static mx_status no_memory(struct mxrt_why *why, const struct mxrt_op *d) {
    return engine_fail(why, MX_ERROR_MEMORY, "operation `%.60s`: no memory to push it",
                       d->name ? d->name : "(no name)");
}

static mx_status refuse_variable(struct mxrt_why *why, const struct mxrt_op *d, const char *kind, int i,
                                 const struct variable *v, const char *words) {
    const char *name = v ? outcome_of(v)->name : NULL;
    return engine_fail(why, MX_ERROR_ARGUMENT, "operation `%.60s`: %s %d%s%.60s%s %s", d->name ? d->name : "(no name)",
                       kind, i, name ? ", `" : "", name ? name : "", name ? "`," : "", words);
}

/* Finds the variables and checks that none stands twice: each is stamped with the serial number of the push. `ahead`:
 * the dependences come next. Always inline: a push that calls its operation takes a tenth less by it. */
static inline __attribute__((always_inline)) mx_status resolve(struct mxrt_engine *e, struct access *a,
                                                               const struct mxrt_op *d, uint64_t stamp, bool ahead,
                                                               struct mxrt_why *why) {
    static const char gone[] = "was deleted, or is none of this engine's variables";
    for (int i = 0; i < d->read_count; i++, a++) {
        struct variable *v = variable_find(e, d->reads[i]);
        if (UNLIKELY(!v))
            return refuse_variable(why, d, "read", i, NULL, gone);
        if (UNLIKELY(v->stamp == stamp))
            return refuse_variable(why, d, "read", i, v, "stands twice among the reads");
        v->stamp = stamp;
        if (ahead)
            own_soon(v->writer);
        a->variable = v;
    }
    for (int i = 0; i < d->write_count; i++, a++) {
        struct variable *v = variable_find(e, d->writes[i]);
        if (UNLIKELY(!v))
            return refuse_variable(why, d, "write", i, NULL, gone);
        if (UNLIKELY(v->stamp >= stamp))
            return refuse_variable(why, d, "write", i, v,
                                   v->stamp == stamp
                                       ? "stands among both the reads and the writes: a write alone says both"
                                       : "stands twice among the writes");
        v->stamp = stamp + 1;
        if (ahead)
            own_soon(v->group ? (void *)v->group : (void *)v->writer);
        a->variable = v;
        atomic_store_explicit(&a->group, NULL, memory_order_relaxed);
    }
    return MX_OK;
}

mx_status push_prepare(struct mxrt_engine *e, const struct mxrt_op *d, unsigned flags, struct op **made,
                       struct mxrt_why *why) {
    struct op *op = memory_op(e, (uint32_t)d->read_count + (uint32_t)d->write_count);
    if (UNLIKELY(!op))
        return no_memory(why, d);
    uint64_t serial = ++e->serial;
    mx_status status = resolve(e, op->access, d, 2 * serial, true, why);
    if (status == MX_OK &&
        UNLIKELY(!memory_reserve_groups(e, groups_for((uint32_t)d->read_count, (uint32_t)d->write_count))))
        status = no_memory(why, d);
    if (UNLIKELY(status != MX_OK)) {
        memory_take_back(e, op, op->class);
        return status;
    }
    op->flags = (uint8_t)(flags | (d->start ? OP_ASYNC : 0) | (d->always ? OP_ALWAYS : 0));
    op->lane = (uint8_t)d->lane;
    atomic_store_explicit(&op->state, OP_WAITING, memory_order_relaxed);
    atomic_store_explicit(&op->ticket, 2 * serial, memory_order_relaxed);
    if (d->start)
        op->start = d->start;
    else
        op->run = d->run;
    op->context = d->context;
    op->error = NULL;
    op->reads = (uint32_t)d->read_count;
    op->writes = (uint32_t)d->write_count;
    op->name = d->name;
    op->release = d->release;
    op->latch = NULL;
    op->priority = d->priority;
    if (UNLIKELY(flags & OP_DELETE)) {
        op->access[0].variable->generation++;
        e->deletions++;
    }
    *made = op;
    return MX_OK;
}

static inline void count(struct mxrt_engine *e) {
    atomic_store_explicit(&e->pushed, atomic_load_explicit(&e->pushed, memory_order_relaxed) + 1, memory_order_release);
}

/* Notes a push in the trace. */
static void note(struct mxrt_engine *e, uint64_t serial, const struct access *a, uint32_t reads, uint32_t writes,
                 unsigned flags) {
    struct trace_variable few[MOST_CALLED] = {{0}}, *v = few;
    uint32_t all = reads + writes;
    if (flags & OP_WAIT || (all > MOST_CALLED && !(v = malloc(all * sizeof *v))))
        return;
    for (uint32_t i = 0; i < all; i++) {
        const struct variable *x = a[i].variable;
        v[i] = (struct trace_variable){x, x->generation - !!(flags & OP_DELETE), outcome_of(x)->name};
    }
    trace_pushed(e->trace, e->traced + serial, v, reads, writes);
    if (v != few)
        free(v);
}

static void note_op(struct mxrt_engine *e, const struct op *op) {
    note(e, atomic_load_explicit(&op->ticket, memory_order_relaxed) >> 1, op->access, op->reads, op->writes, op->flags);
}

void push_register(struct mxrt_engine *e, struct op *op, struct ready *ready) {
    if (UNLIKELY(e->trace != NULL))
        note_op(e, op);
    count(e);
    dependence_register(e, op, ready);
}

void push_enter(struct mxrt_engine *e, struct op *op) {
    if (UNLIKELY(e->trace != NULL))
        note_op(e, op);
    count(e);
    if (e->workers == 0 || UNLIKELY(e->stopped)) {
        inline_push(e, op);
        return;
    }
    struct ready ready = {{0}, {0}};
    bool here = op->lane == MXRT_LANE_INLINE || op->flags & OP_DELETE;
    dependence_register(e, op, &ready);
    spin_unlock(&e->push);
    if (ready.waits.first) {
        run_waiting(e, NULL, op);
    } else if (ready.normal.first && here) {
        struct frame frame;
        struct mxrt_why words;
        engine_enter(&frame, e, NULL);
        run_op(e, NULL, op, &words);
        engine_leave(&frame);
        threads_quiet(e);
    } else if (ready.normal.first) {
        queue_dispatch(e, NULL, &ready);
    }
}

/* Without workers and with nothing pending, an operation is simply called: what is pushed meanwhile waits in `later`, so
 * it needs no place among the dependences, and no record. False: it does, and `push` is still held. `failed` gets the
 * operation's error, to drop. */
bool push_call(struct mxrt_engine *e, const struct mxrt_op *d, struct error **failed, mx_status *status,
               struct mxrt_why *why) {
    int reads = d->read_count, all = reads + d->write_count;
    struct access access[MOST_CALLED];
    if (atomic_load_explicit(&e->helper_busy, memory_order_relaxed) || !d->run || all > MOST_CALLED ||
        (d->lane == MXRT_LANE_IO && e->io_workers > 0) ||
        atomic_load_explicit(&e->live_errors, memory_order_relaxed) > 0 ||
        atomic_load_explicit(&e->shutdown, memory_order_relaxed) || engine_pending(e))
        return false;
    uint64_t serial = ++e->serial;
    if (UNLIKELY((*status = resolve(e, access, d, 2 * serial, false, why)) != MX_OK)) {
        spin_unlock(&e->push);
        return true;
    }
    struct worker *w = e->worker;
    struct frame frame;
    struct error *error = NULL;
    int64_t begin = 0;
    count(e);
    if (UNLIKELY(e->trace != NULL)) {
        note(e, serial, access, (uint32_t)reads, (uint32_t)d->write_count, 0);
        begin = mxrt_trace_begin(e->trace);
    }
    inline_enter(e, &frame);
    w->why.text[0] = 0;
    mx_status own = d->run(d->context, &w->why);
    if (UNLIKELY(e->trace != NULL))
        trace_ran(e->trace, e->traced + serial, d->name, begin, false);
    if (UNLIKELY(own != MX_OK)) {
        error = error_new(e, d->name, serial, own, w->why.text);
        if (e->naive && !failed)
            *status = engine_fail(why, own, "%s", error->text);
    }
    for (int i = reads; i < all; i++) {
        struct variable *v = access[i].variable;
        if (UNLIKELY(error != NULL))
            dependence_set(v, error);
        else
            atomic_store_explicit(&v->called, atomic_load_explicit(&v->called, memory_order_relaxed) + 1,
                                  memory_order_release);
    }
    if (error && failed)
        *failed = error;
    else if (error)
        error_drop(error);
    if (d->release)
        d->release(d->context);
    atomic_store_explicit(&w->done, atomic_load_explicit(&w->done, memory_order_relaxed) + 1, memory_order_release);
    spin_lock(&e->push);
    inline_leave(e, &frame);
    return true;
}

static inline mx_status check(const struct mxrt_op *d, unsigned flags, struct mxrt_why *why) {
    if (!(flags & OP_DELETE) && !d->run == !d->start)
        return refuse(why, d, "wants either `run` or `start`");
    if (d->read_count < 0 || d->write_count < 0 || (int64_t)d->read_count + d->write_count >= 1 << (CLASSES - 1))
        return refuse(why, d, "a count of variables is negative or too large");
    if ((d->read_count > 0 && !d->reads) || (d->write_count > 0 && !d->writes))
        return refuse(why, d, "a list of variables is missing");
    if ((unsigned)d->lane > MXRT_LANE_INLINE)
        return refuse(why, d, "there is no such lane");
    return MX_OK;
}

/* Of the naive engine: waits for the operation, and says how it ended; the error stays with what it wrote. */
static mx_status push_naive(struct mxrt_engine *e, struct op *op, struct mxrt_why *why) {
    struct latch *latch = engine_frame(e) ? NULL : latch_new(1);
    op->latch = latch;
    push_enter(e, op);
    if (!latch) /* inside an operation: it runs after that one */
        return MX_OK;
    wait_until(e, latch, HUGE_VAL);
    mx_status status = latch_failure(e, latch, false, why);
    latch_drop(e, latch);
    return status;
}

/* Whether d could be pushed now. */
mx_status push_check(struct mxrt_engine *e, const struct mxrt_op *d, struct mxrt_why *why) {
    mx_status status = check(d, 0, why);
    if (status == MX_OK && (status = engine_begin(e, false, why)) == MX_OK) {
        struct op *op;
        if ((status = push_prepare(e, d, 0, &op, why)) == MX_OK) {
            e->promised_groups -= groups_for((uint32_t)d->read_count, (uint32_t)d->write_count);
            atomic_store_explicit(&op->state, OP_FREE, memory_order_relaxed);
            memory_take_back(e, op, op->class);
        }
        spin_unlock(&e->push);
    }
    return status;
}

mx_status push_described(struct mxrt_engine *e, const struct mxrt_op *d, unsigned flags, struct mxrt_operator *o,
                         struct mxrt_why *why) {
    if (UNLIKELY(!e || !d))
        return engine_fail(why, MX_ERROR_ARGUMENT, "a push wants an engine and an operation");
    mx_status status = check(d, flags, why);
    if (UNLIKELY(status != MX_OK))
        return status;
    if (UNLIKELY(bulk_open != NULL) && bulk_join(e, d, flags, &status, why))
        return status;
    if (status != MX_OK || (status = begin(e, flags & OP_DELETE, why)) != MX_OK)
        return status;
    if (e->workers == 0 && flags == 0 && push_call(e, d, NULL, &status, why))
        return status;
    struct op *op;
    if (UNLIKELY((status = push_prepare(e, d, flags, &op, why)) != MX_OK)) {
        spin_unlock(&e->push);
        return status;
    }
    if (o) {
        op->operator= o;
        operator_keep(o);
    }
    if (UNLIKELY(e->naive))
        return push_naive(e, op, why);
    push_enter(e, op);
    return MX_OK;
}

mx_status mxrt_engine_push(struct mxrt_engine *e, const struct mxrt_op *op, struct mxrt_why *why) {
    return push_described(e, op, 0, NULL, why);
}
