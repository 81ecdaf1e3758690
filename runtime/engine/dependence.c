/* The order of operations, from their accesses.
 *
 * A variable remembers the last write pushed on it and the reads pushed since. A read follows that write; a write
 * follows those reads, or, if there are none, the write before it. What an operation follows is an edge: its access
 * hangs in the list of successors of the write, or waits at the group of the reads. Every access has at most one edge
 * into it, so the work of a push and of a completion is proportional to the operation's own accesses, whatever else is
 * under way. (MXNet's queues of a variable say the same; here nothing but the version and the error of a variable is
 * touched by completions, and lists are closed by one exchange, as in the wait-free task graphs of Álvarez et al.,
 * "Advanced Synchronization Techniques for Task-based Runtime Systems", PPoPP 2021.)
 *
 * Pushes hold the engine's lock, which makes them one order. Completions take no lock. */
#include "internal.h"

/* The last write pushed, or NULL if it has completed. */
static struct op *last_write(const struct variable *v) {
    struct op *w = v->writer;
    return w && atomic_load_explicit(&w->ticket, memory_order_relaxed) >> 1 == v->writer_serial &&
                   atomic_load_explicit(&w->followers, memory_order_acquire) != CLOSED
               ? w
               : NULL;
}

bool dependence_written(const struct variable *v) {
    return !last_write(v) && !(v->place && plan_gate(v, false));
}

/* Puts op behind w; false if that has completed, or op is behind it already. */
static bool follow(struct mxrt_engine *e, struct op *w, struct op *op) {
    _Atomic(struct op *) *slot = op_follower(w);
    uint64_t n = atomic_load_explicit(&w->followers, memory_order_acquire), room = op_room(w);
    if (n == CLOSED)
        return false;
    if (n < room) {
        if (n > 0 && atomic_load_explicit(&slot[n - 1], memory_order_relaxed) == op)
            return false;
        atomic_store_explicit(&slot[n], op, memory_order_relaxed);
        return atomic_compare_exchange_strong_explicit(&w->followers, &n, n + 1, memory_order_acq_rel,
                                                       memory_order_acquire);
    }
    /* What is written here is read only by who sees the count that follows. */
    uint64_t place = n - room + 1, at = place % BLOCK;
    struct block *b = place == 1 ? NULL : w->more->slot[0].last, *fresh = NULL;
    if (b && at > 0 && place > 2 && b->slot[at - 1].follower == op)
        return false;
    if (place == 1) {
        b = w->more = fresh = memory_group(e);
        b->slot[0].last = b;
    } else if (at == 0) {
        fresh = memory_group(e);
        b->next = fresh;
        b = fresh;
    }
    b->slot[at].follower = op;
    if (!atomic_compare_exchange_strong_explicit(&w->followers, &n, n + 1, memory_order_acq_rel,
                                                 memory_order_acquire)) {
        if (fresh)
            memory_take_back(e, fresh, 0);
        return false;
    }
    if (at == 0)
        w->more->slot[0].last = fresh;
    return true;
}

static bool follow_writer(struct mxrt_engine *e, struct variable *v, struct op *op) {
    struct op *w = last_write(v);
    if (!w)
        v->writer = NULL; /* spares later ones a look */
    return w && follow(e, w, op);
}

/* Behind the graph's run that has v, if one is under way: 1 for an edge more. */
static int follow_gate(struct mxrt_engine *e, const struct variable *v, bool write, struct op *op) {
    struct op *g = plan_gate(v, write);
    if (!g)
        return 0;
    atomic_fetch_add_explicit(&op->wait, 1, memory_order_relaxed);
    if (follow(e, g, op))
        return 1;
    atomic_fetch_sub_explicit(&op->wait, 1, memory_order_relaxed); /* not to 0: op is not yet registered */
    return 0;
}

/* Closes the group of v for the write op; false if all its reads have completed. */
static bool follow_readers(struct mxrt_engine *e, struct variable *v, struct op *op) {
    struct group *g = v->group;
    v->group = NULL;
    g->writer = op;
    if (atomic_fetch_add_explicit(&g->unfinished, v->joined, memory_order_acq_rel) + v->joined != 0)
        return true;
    memory_take_back(e, g, 0);
    return false;
}

/* It runs soon: what stands behind the first line will be read. */
static inline void make_ready(struct op *op, struct ready *ready) {
    const char *record = (const char *)op, *end = record + (LINE << op->class >> 1);
    own_soon(record + LINE);
    for (const char *at = record + 2 * LINE; at <= end && at < record + MOST_FETCHED; at += LINE)
        __builtin_prefetch(at);
    fifo_append(op->flags & OP_WAIT ? &ready->waits : &ready->normal, op);
}

void dependence_register(struct mxrt_engine *e, struct op *op, struct ready *ready) {
    uint64_t serial = atomic_load_explicit(&op->ticket, memory_order_relaxed) >> 1;
    uint32_t reads = op->reads, all = reads + op->writes;
    int32_t open = (int32_t)all + 1, free_already = 1;
    atomic_store_explicit(&op->wait, open, memory_order_relaxed);
    atomic_store_explicit(&op->followers, 0, memory_order_relaxed);
    e->promised_groups -= groups_for(reads, op->writes);
    for (uint32_t i = 0; i < reads; i++) {
        struct access *a = &op->access[i];
        struct variable *v = a->variable;
        if (!v->group) {
            v->group = memory_group(e);
            atomic_store_explicit(&v->group->unfinished, 0, memory_order_relaxed);
            v->joined = 0;
        }
        v->joined++;
        atomic_store_explicit(&a->group, v->group, memory_order_relaxed);
        free_already += !follow_writer(e, v, op);
        if (UNLIKELY(v->place != NULL))
            open += follow_gate(e, v, false, op);
    }
    for (uint32_t i = reads; i < all; i++) {
        struct variable *v = op->access[i].variable;
        free_already += !(v->group ? follow_readers(e, v, op) : follow_writer(e, v, op));
        v->writer = op;
        v->writer_serial = serial;
        if (UNLIKELY(v->place != NULL))
            open += follow_gate(e, v, true, op);
    }
    if (UNLIKELY(op->flags & OP_DELETE))
        op->access[reads].variable->place = NULL;
    if (free_already == open ||
        atomic_fetch_sub_explicit(&op->wait, free_already, memory_order_acq_rel) == free_already)
        make_ready(op, ready);
}

/* One thing less that op waits for. */
static void satisfy(struct op *op, struct ready *ready) {
    /* The last one to count down needs no exchange: nobody else will touch it. */
    if (atomic_load_explicit(&op->wait, memory_order_acquire) == 1 ||
        atomic_fetch_sub_explicit(&op->wait, 1, memory_order_acq_rel) == 1)
        make_ready(op, ready);
}

/* Closes the list of op's followers and releases them, in the order of their pushes. */
static void release_followers(struct mxrt_engine *e, struct worker *w, struct op *op, struct ready *ready) {
    uint64_t n = atomic_exchange_explicit(&op->followers, CLOSED, memory_order_acq_rel), room = op_room(op);
    uint64_t here = n < room ? n : room;
    _Atomic(struct op *) *slot = op_follower(op);
    for (uint64_t i = 0; i < here; i++)
        satisfy(atomic_load_explicit(&slot[i], memory_order_relaxed), ready);
    struct block *b = n > room ? op->more : NULL;
    for (uint64_t place = 1; place <= n - here; place++) {
        if (place % BLOCK == 0) {
            struct block *next = b->next;
            memory_give(e, w, b, 0);
            b = next;
        }
        satisfy(b->slot[place % BLOCK].follower, ready);
    }
    if (b)
        memory_give(e, w, b, 0);
}

static void set_error(struct outcome *o, struct error *error) {
    if (o->error)
        error_drop(o->error);
    o->error = error ? error_keep(error) : NULL;
}

void dependence_set(struct variable *v, struct error *error) {
    struct outcome *o = outcome_of(v);
    if (UNLIKELY(error || o->error))
        set_error(o, error);
    atomic_store_explicit(&o->version, atomic_load_explicit(&o->version, memory_order_relaxed) + 1,
                          memory_order_release);
}

void dependence_complete(struct mxrt_engine *e, struct worker *w, struct op *op, struct ready *ready) {
    uint32_t reads = op->reads, all = reads + op->writes;
    struct error *error = op->error;
    for (uint32_t i = reads; i < all; i++)
        dependence_set(op->access[i].variable, error);
    if (UNLIKELY(op->release != NULL)) {
        if (op->flags & OP_OPERATOR)
            operator_drop(op->operator);
        else
            op->release(op->context);
    }
    if (UNLIKELY(op->flags & OP_DELETE)) {
        set_error(outcome_of(op->access[0].variable), NULL);
        variable_freed(e, op->access[0].variable);
    }
    for (uint32_t i = 0; i < reads; i++) {
        struct group *g = access_group(&op->access[i]);
        if (atomic_fetch_sub_explicit(&g->unfinished, 1, memory_order_acq_rel) == 1) {
            satisfy(g->writer, ready);
            memory_give(e, w, g, 0);
        }
    }
    release_followers(e, w, op, ready);
    struct latch *latch = op->latch;
    struct error *own = op->flags & OP_SKIPPED && !(latch && latch->skipped_too) ? NULL : error;
    atomic_store_explicit(&op->state, OP_FREE, memory_order_release);
    memory_give(e, w, op, op->class);
    if (w)
        atomic_store_explicit(&w->done, atomic_load_explicit(&w->done, memory_order_relaxed) + 1, memory_order_release);
    else
        atomic_fetch_add(&e->done_elsewhere, 1);
    if (latch) /* now: who is told may count on nothing being pending */
        latch_signal(e, latch, own);
    if (error)
        error_drop(error);
}
