/* Without workers: the thread that pushes runs what is ready, within the push. The naive engine is this one, with a
 * push that also waits for its own operation.
 *
 * While one thread runs operations, it is worker 0; what is pushed meanwhile, by those operations or by other threads,
 * gathers in `later` in order and is run by it. */
#include "internal.h"

static void begin(struct mxrt_engine *e, struct worker *w, struct ready *ready) {
    if (ready->waits.first)
        run_waiting(e, w, fifo_take(&ready->waits));
    if (ready->normal.first)
        queue_dispatch(e, w, ready);
}

/* The first of what was pushed meanwhile; `push` is held, and is only for false. */
static bool register_next(struct mxrt_engine *e) {
    struct op *op = fifo_take(&e->later);
    if (!op) {
        atomic_store_explicit(&e->has_later, false, memory_order_relaxed);
        return false;
    }
    struct ready ready = {{0}, {0}};
    dependence_register(e, op, &ready);
    spin_unlock(&e->push);
    begin(e, e->worker, &ready);
    return true;
}

void inline_register(struct mxrt_engine *e) {
    do {
        spin_lock(&e->push);
    } while (register_next(e));
    spin_unlock(&e->push);
}

void inline_drain(struct mxrt_engine *e) {
    struct worker *w = e->worker;
    do {
        for (struct op *op; (op = queue_take(w));)
            run_op(e, w, op, &w->why);
        spin_lock(&e->push);
    } while (register_next(e));
    memory_flush(e, w);
    atomic_store(&e->helper_busy, false);
    spin_unlock(&e->push);
    if (atomic_load(&e->waiters) > 0)
        threads_notify(e);
}

void inline_enter(struct mxrt_engine *e, struct frame *f) {
    atomic_store_explicit(&e->helper_busy, true, memory_order_relaxed);
    spin_unlock(&e->push);
    engine_enter(f, e, e->worker);
}

void inline_leave(struct mxrt_engine *e, struct frame *f) {
    if (UNLIKELY(e->later.first != NULL)) {
        spin_unlock(&e->push);
        inline_drain(e);
    } else {
        atomic_store_explicit(&e->helper_busy, false, memory_order_relaxed);
        spin_unlock(&e->push); /* before `waiters` is looked at: see wait_until */
        if (UNLIKELY(atomic_load_explicit(&e->waiters, memory_order_relaxed) > 0))
            threads_notify(e);
    }
    engine_leave(f);
}

void inline_push(struct mxrt_engine *e, struct op *op) {
    if (atomic_load_explicit(&e->helper_busy, memory_order_relaxed)) {
        fifo_append(&e->later, op);
        atomic_store_explicit(&e->has_later, true, memory_order_relaxed);
        spin_unlock(&e->push);
        return;
    }
    struct ready ready = {{0}, {0}};
    struct frame frame;
    dependence_register(e, op, &ready);
    inline_enter(e, &frame);
    begin(e, e->worker, &ready);
    inline_drain(e);
    engine_leave(&frame);
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
    inline_drain(e);
    engine_leave(&frame);
}
