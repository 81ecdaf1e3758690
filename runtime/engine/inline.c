/* Without workers: the thread that pushes runs what is ready, within the push. The naive engine is this one, with a
 * push that also waits for its own operation.
 *
 * While one thread runs operations, it is worker 0; what is pushed meanwhile, by those operations or by other threads,
 * gathers in `later` in order and is run by it. So an operation that nothing is pending beside needs no place among
 * the dependences at all: whatever is pushed behind it is looked at when it is done. */
#include "internal.h"

static bool alone(struct mxrt_engine *e, const struct op *op) {
    if (op->flags & (OP_ASYNC | OP_WAIT) || (op->lane == MXRT_LANE_IO && e->io_workers > 0))
        return false;
    uint64_t done = atomic_load_explicit(&e->done_elsewhere, memory_order_acquire);
    for (int i = 0; i < e->slots; i++)
        done += atomic_load_explicit(&e->worker[i].done, memory_order_acquire);
    return done + 1 == atomic_load_explicit(&e->pushed, memory_order_relaxed);
}

static void begin(struct mxrt_engine *e, struct worker *w, struct ready *ready) {
    if (ready->waits.first)
        run_waiting(e, w, fifo_take(&ready->waits));
    if (ready->normal.first)
        queue_dispatch(e, w, ready);
}

/* Runs all that is ready, and what is pushed meanwhile; gives the place of worker 0 back. */
static void drain(struct mxrt_engine *e) {
    struct worker *w = e->worker;
    for (;;) {
        for (struct op *op; (op = queue_take(w));)
            run_op(e, w, op, &w->why);
        spin_lock(&e->push);
        struct op *op = fifo_take(&e->later);
        if (!op)
            break;
        struct ready ready = {{0}, {0}};
        dependence_register(e, op, &ready);
        spin_unlock(&e->push);
        begin(e, w, &ready);
    }
    memory_flush(e, w);
    atomic_store(&e->helper_busy, false);
    spin_unlock(&e->push);
    if (atomic_load(&e->waiters) > 0)
        threads_notify(e);
}

/* How op ended, if it ran at once. */
mx_status inline_push(struct mxrt_engine *e, struct op *op, struct mxrt_why *why) {
    struct worker *w = e->worker;
    if (atomic_load_explicit(&e->helper_busy, memory_order_relaxed)) {
        fifo_append(&e->later, op);
        spin_unlock(&e->push);
        return MX_OK;
    }
    mx_status status = MX_OK;
    atomic_store_explicit(&e->helper_busy, true, memory_order_relaxed);
    struct frame frame;
    engine_enter(&frame, e, w);
    if (alone(e, op)) {
        op->flags |= OP_DIRECT;
        e->promised_groups -= 2 * (int64_t)op->reads + op->writes;
        spin_unlock(&e->push);
        run_op(e, w, op, &w->why);
        if (UNLIKELY(w->failed != MX_OK))
            status = engine_fail(why, w->failed, "%s", w->why.text);
        spin_lock(&e->push);
        if (LIKELY(!e->later.first)) {
            atomic_store_explicit(&e->helper_busy, false, memory_order_relaxed);
            spin_unlock(&e->push); /* before `waiters` is looked at: see wait_until */
            engine_leave(&frame);
            if (UNLIKELY(atomic_load_explicit(&e->waiters, memory_order_relaxed) > 0))
                threads_notify(e);
            return status;
        }
        spin_unlock(&e->push);
    } else {
        struct ready ready = {{0}, {0}};
        dependence_register(e, op, &ready);
        spin_unlock(&e->push);
        begin(e, w, &ready);
    }
    drain(e);
    engine_leave(&frame);
    return status;
}

bool inline_can_help(struct mxrt_engine *e) {
    return !atomic_load(&e->helper_busy) && queue_any(e);
}

void inline_help(struct mxrt_engine *e) {
    spin_lock(&e->push);
    bool busy = atomic_exchange_explicit(&e->helper_busy, true, memory_order_relaxed);
    spin_unlock(&e->push);
    if (busy)
        return;
    struct frame frame;
    engine_enter(&frame, e, e->worker);
    drain(e);
    engine_leave(&frame);
}
