/* Runs one operation: skips it where an error has reached it, calls it, and completes it. */
#include "internal.h"

/* An operation that only waits completes in the thread that made it ready. */
void run_complete(struct mxrt_engine *e, struct worker *w, struct worker *dispatcher, struct op *op) {
    struct ready ready = {{0}, {0}};
    dependence_complete(e, w, op, &ready);
    for (struct op *waiting; UNLIKELY((waiting = fifo_take(&ready.waits)) != NULL);) {
        struct error *x = error_of(waiting);
        waiting->error = x ? error_keep(x) : NULL;
        dependence_complete(e, w, waiting, &ready);
    }
    if (ready.normal.first)
        queue_dispatch(e, dispatcher, &ready);
}

void run_waiting(struct mxrt_engine *e, struct worker *w, struct op *op) {
    struct error *x = error_of(op);
    op->error = x ? error_keep(x) : NULL;
    run_complete(e, w, NULL, op);
}

/* Whether op is to be called; if not because of an error, that is left in op->error. */
static bool wanted(struct mxrt_engine *e, struct op *op) {
    if (op->flags & OP_ALWAYS)
        return true;
    if (atomic_load_explicit(&e->live_errors, memory_order_relaxed) > 0) {
        struct error *x = error_of(op);
        if (x) {
            op->error = error_keep(x);
            op->flags |= OP_SKIPPED;
            return false;
        }
    }
    return !atomic_load_explicit(&e->shutdown, memory_order_relaxed);
}

void run_op(struct mxrt_engine *e, struct worker *w, struct op *op, struct mxrt_why *why) {
    if (UNLIKELY((uintptr_t)op & TASK)) {
        plan_task(e, w, op, why);
        return;
    }
    uint64_t ticket = atomic_load_explicit(&op->ticket, memory_order_relaxed);
    op->error = NULL;
    /* What completing will touch may be in another processor's cache. */
    _Atomic(struct op *) *follower = op_follower(op);
    uint64_t followers = atomic_load_explicit(&op->followers, memory_order_acquire), room = op_room(op);
    for (uint64_t i = 0; i < room && i < followers; i++)
        own_soon(atomic_load_explicit(&follower[i], memory_order_relaxed));
    for (uint32_t i = 0; i < op->reads; i++)
        own_soon(access_group(&op->access[i]));
    for (uint32_t i = op->reads; i < op->reads + op->writes; i++)
        own_soon(outcome_of(op->access[i].variable));
    atomic_store_explicit(&op->state, OP_RUNNING, memory_order_relaxed);
    int64_t begin = UNLIKELY(e->trace != NULL) ? mxrt_trace_begin(e->trace) : 0;
    bool called = wanted(e, op);
    if (LIKELY(called)) {
        if (op->flags & OP_ASYNC) {
            atomic_store_explicit(&op->ticket, ticket | 1, memory_order_release);
            if (UNLIKELY(e->trace != NULL))
                trace_started(e->trace, e->traced + (ticket >> 1), op->name, begin);
            op->start(op->context, (struct mxrt_token){op, ticket | 1});
            return;
        }
        if (op->run) {
            why->text[0] = 0;
            mx_status status = op->run(op->context, why);
            if (UNLIKELY(status != MX_OK))
                op->error = error_new(e, op->name, ticket >> 1, status, why->text);
        }
    }
    if (UNLIKELY(e->trace != NULL))
        trace_ran(e->trace, e->traced + (ticket >> 1), op->name, begin, !called);
    run_complete(e, w, w, op);
}

mx_status mxrt_op_complete(struct mxrt_engine *e, struct mxrt_token token, mx_status status, const char *message) {
    struct op *op = token.op;
    if (!e || !op)
        return MX_ERROR_ARGUMENT;
    atomic_fetch_add(&e->foreign, 1);
    uint64_t ticket = token.ticket;
    mx_status answer = MX_ERROR_ARGUMENT;
    if (ticket & 1 && atomic_compare_exchange_strong(&op->ticket, &ticket, ticket - 1)) {
        struct frame *f = engine_frame(e);
        if (UNLIKELY(e->trace != NULL))
            trace_ended(e->trace, e->traced + (ticket >> 1));
        if (status != MX_OK)
            op->error = error_new(e, op->name, ticket >> 1, status, message ? message : "");
        run_complete(e, f ? f->worker : NULL, NULL, op);
        threads_quiet(e);
        answer = MX_OK;
    }
    atomic_fetch_sub(&e->foreign, 1);
    return answer;
}
