/* Waiting: for a variable by an operation that reads it and tells a latch, for all by the counts of operations. */
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "internal.h"

enum { LOOKS = 2000 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- latches */

struct latch *latch_new(int64_t left) {
    struct latch *l = calloc(1, sizeof *l);
    if (l) {
        atomic_init(&l->left, left);
        l->references = 2; /* who waits, and who signals */
    }
    return l;
}

/* Under `park`. */
static void drop(struct latch *l) {
    if (--l->references > 0)
        return;
    for (int i = 0; i < l->error_count; i++)
        error_drop(l->errors[i]);
    free(l->errors);
    free(l);
}

void latch_drop(struct mxrt_engine *e, struct latch *l) {
    pthread_mutex_lock(&e->park);
    drop(l);
    pthread_mutex_unlock(&e->park);
}

/* One that finds no room is given by the next wait for all. */
static void add_error(struct latch *l, struct error *x) {
    for (int i = 0; i < l->error_count; i++) {
        if (l->errors[i] == x)
            return;
    }
    if (l->error_count == l->error_room) {
        int room = 2 * l->error_room + 4;
        struct error **more = realloc(l->errors, (size_t)room * sizeof *more);
        if (!more)
            return;
        l->errors = more;
        l->error_room = room;
    }
    l->errors[l->error_count++] = error_keep(x);
}

void latch_add_error(struct mxrt_engine *e, struct latch *l, struct error *x) {
    pthread_mutex_lock(&e->park);
    add_error(l, x);
    pthread_mutex_unlock(&e->park);
}

void latch_signal(struct mxrt_engine *e, struct latch *l, struct error *error) {
    if (error)
        latch_add_error(e, l, error);
    if (atomic_fetch_sub_explicit(&l->left, 1, memory_order_acq_rel) > 1)
        return;
    pthread_mutex_lock(&e->park);
    atomic_store(&l->done, true);
    pthread_cond_broadcast(&e->waiting);
    if (l->skipped_too) /* a graph's: who waits may sleep as worker 0 */
        pthread_cond_broadcast(&e->wake);
    drop(l);
    pthread_mutex_unlock(&e->park);
}

mx_status latch_failure(struct mxrt_engine *e, struct latch *l, bool take, struct mxrt_why *why) {
    mx_status status = MX_OK;
    struct error *first = NULL; /* nobody else touches them any more */
    for (int i = 0; i < l->error_count; i++) {
        if (!first || l->errors[i]->serial < first->serial)
            first = l->errors[i];
    }
    if (first)
        status = take ? error_take(e, first, why) : engine_fail(why, first->status, "%s", first->text);
    for (int i = 0; take && i < l->error_count; i++)
        (void)error_take(e, l->errors[i], NULL);
    return status;
}

/* ---- */

static bool reached(struct mxrt_engine *e, const struct latch *l) {
    return l ? l->done : !engine_pending(e);
}

bool wait_until(struct mxrt_engine *e, struct latch *l, double deadline) {
    bool forever = deadline == HUGE_VAL, late = false;
    atomic_fetch_add(&e->waiters, 1);
    if (!l)
        atomic_fetch_add(&e->all_waiters, 1);
    /* Without workers: who gives the place of worker 0 back passes this lock, then looks at `waiters`. Either we see
     * what it has done, or it sees us. */
    spin_lock(&e->push);
    spin_unlock(&e->push);
    for (int i = 0; l && e->workers > 0 && i < LOOKS && atomic_load_explicit(&l->left, memory_order_relaxed) > 0; i++)
        RELAX();
    for (bool there = false; !there && !late;) {
        if (e->workers == 0 && inline_can_help(e))
            inline_help(e);
        else if (!l && forever)
            threads_help(e, NULL);
        pthread_mutex_lock(&e->park);
        if (!(there = reached(e, l)) && !(e->workers == 0 && inline_can_help(e))) {
            if (forever) {
                pthread_cond_wait(&e->waiting, &e->park);
            } else if (now() < deadline) {
                time_t seconds = (time_t)deadline;
                struct timespec t = {seconds, (long)((deadline - (double)seconds) * 1e9)};
                pthread_cond_timedwait(&e->waiting, &e->park, &t);
            }
            there = reached(e, l);
            late = !forever && now() >= deadline;
        }
        pthread_mutex_unlock(&e->park);
        if (there)
            late = false;
    }
    if (!l)
        atomic_fetch_sub(&e->all_waiters, 1);
    atomic_fetch_sub(&e->waiters, 1);
    return !late;
}

static double deadline_in(double seconds) {
    return seconds < 1e9 ? now() + (seconds > 0 ? seconds : 0) : HUGE_VAL;
}

static mx_status may_wait(struct mxrt_engine *e, const char *what, struct mxrt_why *why) {
    if (!e)
        return engine_fail(why, MX_ERROR_ARGUMENT, "waiting for %s: no engine is given", what);
    if (engine_frame(e))
        return engine_fail(why, MX_ERROR_ARGUMENT,
                           "waiting for %s from inside an operation of the same engine: it could wait for itself; "
                           "push an operation that reads what it needs",
                           what);
    return mxrt_engine_flush(e, why);
}

static mx_status timed_out(struct mxrt_engine *e, const struct variable *v, double seconds, struct mxrt_why *why) {
    char holder[300];
    spin_lock(&e->push);
    const char *name = v && outcome_of(v)->name ? outcome_of(v)->name : v ? "the variable" : "everything";
    holder_describe(e, v, holder, sizeof holder);
    spin_unlock(&e->push);
    return engine_fail(why, MX_ERROR_TIMEOUT, "waited %g s for %.60s: %s", seconds, name, holder);
}

mx_status mxrt_engine_wait_var_for(struct mxrt_engine *e, struct mxrt_var var, double seconds, struct mxrt_why *why) {
    mx_status status = may_wait(e, "a variable", why);
    if (status != MX_OK)
        return status;
    if ((status = engine_begin(e, true, why)) != MX_OK)
        return status;
    struct variable *v = variable_find(e, var);
    if (!v) {
        spin_unlock(&e->push);
        return engine_fail(why, MX_ERROR_ARGUMENT,
                           "waiting for a variable that was deleted, or is none of this engine's");
    }
    if (dependence_written(v) && !(e->workers == 0 && atomic_load_explicit(&e->helper_busy, memory_order_relaxed))) {
        struct error *x = outcome_of(v)->error ? error_keep(outcome_of(v)->error) : NULL;
        spin_unlock(&e->push);
        if (x) {
            status = error_take(e, x, why);
            error_drop(x);
        }
        return status;
    }
    struct latch *latch = latch_new(1);
    struct op *op;
    struct mxrt_op d = {.name = "wait", .reads = &var, .read_count = 1};
    if (!latch || (status = push_prepare(e, &d, OP_WAIT | OP_ALWAYS, &op, why)) != MX_OK) {
        spin_unlock(&e->push);
        free(latch);
        return latch ? status : engine_fail(why, MX_ERROR_MEMORY, "no memory to wait for a variable");
    }
    op->latch = latch;
    push_enter(e, op);
    if (wait_until(e, latch, deadline_in(seconds)))
        status = latch_failure(e, latch, true, why);
    else
        status = timed_out(e, v, seconds, why);
    latch_drop(e, latch);
    return status;
}

mx_status mxrt_engine_wait_var(struct mxrt_engine *e, struct mxrt_var v, struct mxrt_why *why) {
    return mxrt_engine_wait_var_for(e, v, HUGE_VAL, why);
}

mx_status mxrt_engine_wait_all_for(struct mxrt_engine *e, double seconds, struct mxrt_why *why) {
    mx_status status = may_wait(e, "everything", why);
    if (status != MX_OK)
        return status;
    if (e->broken)
        return engine_fail(why, MX_ERROR_ARGUMENT, "the engine was forked in the midst of one of its operations");
    if (engine_pending(e) && !wait_until(e, NULL, deadline_in(seconds)))
        return timed_out(e, NULL, seconds, why);
    return error_take_first(e, why);
}

mx_status mxrt_engine_wait_all(struct mxrt_engine *e, struct mxrt_why *why) {
    return mxrt_engine_wait_all_for(e, HUGE_VAL, why);
}
