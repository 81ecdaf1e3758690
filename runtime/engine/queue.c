/* Operations that are ready: who runs what next.
 *
 * Normal lane: one queue of the engine, in order, from which a worker takes a batch into a ring of its own; what its
 * operations make ready goes into its ring, too, and one of those, the first, follows at once, while what it needs is
 * in that processor's cache. Idle workers take half of another's ring. (The ring is that of Go's scheduler: the owner
 * puts, anyone takes by compare and swap.) Priority lane: a pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986)
 * over the operations themselves, so nothing here allocates. */
#include "internal.h"

enum { STREAK = 64, FAIR = 61, LARGEST_BATCH = 64, AHEAD = 4, MOST_AHEAD = 6 };
enum { SMALL_BATCH = 16, LARGE_BATCH = 48, MOST_REST = 64, REST_FOR_ONE = 4, HASTY = 256 }; /* rests: pauses */

/* ---- rings */

static bool ring_put(struct worker *w, struct op *op) {
    uint32_t tail = atomic_load_explicit(&w->tail, memory_order_relaxed);
    if (tail - atomic_load_explicit(&w->head, memory_order_acquire) >= RING)
        return false;
    atomic_store_explicit(&w->ring[tail % RING], op, memory_order_relaxed);
    atomic_store_explicit(&w->tail, tail + 1, memory_order_release);
    return true;
}

/* What completing op will write to, when it runs soon. A thief may have it by now, and others its record; that stays a
 * record, and to have fetched the wrong lines does no harm. */
static void look_ahead(struct op *op) {
    if (UNLIKELY((uintptr_t)op & TASK))
        return;
    uint64_t room = op_room(op), n = atomic_load_explicit(&op->followers, memory_order_relaxed);
    for (uint64_t i = 0; i < MOST_AHEAD && i < room && i < n; i++)
        own_soon(atomic_load_explicit(&op_follower(op)[i], memory_order_relaxed));
    struct group *g;
    for (uint64_t i = 0; i < MOST_AHEAD && 2 * i < room && (g = access_group(&op->access[i])); i++)
        own_soon(g);
}

static struct op *ring_take(struct worker *w) {
    uint32_t head = atomic_load_explicit(&w->head, memory_order_acquire);
    for (;;) {
        uint32_t tail = atomic_load_explicit(&w->tail, memory_order_relaxed);
        if (head == tail)
            return NULL;
        struct op *op = atomic_load_explicit(&w->ring[head % RING], memory_order_relaxed);
        if (atomic_compare_exchange_weak_explicit(&w->head, &head, head + 1, memory_order_acq_rel,
                                                  memory_order_acquire)) {
            if (tail - head > AHEAD) { /* what stands behind the tail may be a pusher's by now */
                const char *later = (char *)atomic_load_explicit(&w->ring[(head + AHEAD) % RING], memory_order_relaxed);
                own_soon(later);
                own_soon(later + LINE);
            }
            if (tail - head > AHEAD / 2)
                look_ahead(atomic_load_explicit(&w->ring[(head + AHEAD / 2) % RING], memory_order_relaxed));
            return op;
        }
    }
}

static bool ring_empty(const struct worker *w) {
    return atomic_load_explicit(&w->head, memory_order_acquire) == atomic_load_explicit(&w->tail, memory_order_acquire);
}

/* Half of victim's ring into w's, which is empty; one of them is the result. */
static struct op *steal(struct worker *w, struct worker *victim) {
    uint32_t head = atomic_load_explicit(&victim->head, memory_order_acquire);
    for (;;) {
        uint32_t n = atomic_load_explicit(&victim->tail, memory_order_acquire) - head;
        n -= n / 2;
        if (n == 0)
            return NULL;
        uint32_t tail = atomic_load_explicit(&w->tail, memory_order_relaxed);
        if (n <= RING / 2) { /* else head was read too long ago */
            struct op *first = atomic_load_explicit(&victim->ring[head % RING], memory_order_relaxed);
            for (uint32_t i = 1; i < n; i++)
                atomic_store_explicit(&w->ring[(tail + i - 1) % RING],
                                      atomic_load_explicit(&victim->ring[(head + i) % RING], memory_order_relaxed),
                                      memory_order_relaxed);
            if (atomic_compare_exchange_strong_explicit(&victim->head, &head, head + n, memory_order_acq_rel,
                                                        memory_order_acquire)) {
                atomic_store_explicit(&w->tail, tail + n - 1, memory_order_release);
                return first;
            }
        } else {
            head = atomic_load_explicit(&victim->head, memory_order_acquire);
        }
    }
}

/* ---- the engine's queue */

static void append(struct mxrt_engine *e, struct op *op) {
    struct pointers *q = &e->queue;
    spin_lock(&q->lock);
    uint64_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed);
    q->at[tail & (q->room - 1)] = op;
    atomic_store_explicit(&q->tail, tail + 1, memory_order_relaxed);
    spin_unlock(&q->lock);
}

static void append_first(struct mxrt_engine *e, struct op *op) {
    spin_lock(&e->queue.lock);
    fifo_append(&e->first, op);
    atomic_store_explicit(&e->has_first, true, memory_order_relaxed);
    spin_unlock(&e->queue.lock);
}

static bool queue_empty(struct mxrt_engine *e) {
    return atomic_load(&e->queue.tail) == atomic_load(&e->queue_head) && !atomic_load(&e->has_first);
}

/* A fair share of the queue, at most `most`, into w's ring; one of them is the result. */
static struct op *take_batch(struct worker *w, uint64_t most) {
    struct mxrt_engine *e = w->engine;
    struct pointers *q = &e->queue;
    if (queue_empty(e))
        return NULL;
    spin_lock(&q->lock);
    struct op *first = fifo_take(&e->first);
    atomic_store_explicit(&e->has_first, e->first.first != NULL, memory_order_relaxed);
    uint64_t head = q->head, all = atomic_load_explicit(&q->tail, memory_order_relaxed) - head;
    uint64_t n = all / ((uint64_t)e->workers + 1) + 1;
    if (n > most)
        n = most;
    if (n > all)
        n = all;
    if (!first && n > 0) {
        first = q->at[head++ & (q->room - 1)];
        n--;
    }
    for (; n > 0 && ring_put(w, q->at[head & (q->room - 1)]); n--)
        head++;
    q->head = head;
    atomic_store_explicit(&e->queue_head, head, memory_order_relaxed);
    spin_unlock(&q->lock);
    return first;
}

/* Where operations are as short as their pushes, a worker that comes for each one takes the lines of the queue from the
 * pusher each time, which costs both more than the operation: 130 ns instead of 50 to 75. So one that found only a few
 * rests before it comes again, as long as that brings it more; where it does not, pushes are rare or operations long,
 * and it does not try again for a while. */
static struct op *take_after_rest(struct worker *w) {
    if (queue_empty(w->engine))
        return NULL;
    for (unsigned i = 0; i < w->rest; i++)
        RELAX();
    struct op *op = take_batch(w, LARGEST_BATCH);
    if (!op)
        return NULL;
    uint32_t more =
        atomic_load_explicit(&w->tail, memory_order_relaxed) - atomic_load_explicit(&w->head, memory_order_relaxed);
    if (w->hasty > 0) {
        w->hasty--;
    } else if (REST_FOR_ONE * (more + 1) < w->rest) {
        w->rest = 0;
        w->hasty = HASTY;
    } else if (more < SMALL_BATCH && w->rest < MOST_REST) {
        w->rest = 2 * w->rest + 4;
    } else if (more >= LARGE_BATCH) {
        w->rest -= w->rest / 4;
    }
    return op;
}

/* ---- the priority lane */

static bool before(const struct op *a, const struct op *b) {
    if (a->priority != b->priority)
        return a->priority > b->priority;
    return atomic_load_explicit(&a->ticket, memory_order_relaxed) <
           atomic_load_explicit(&b->ticket, memory_order_relaxed);
}

static struct op *meld(struct op *a, struct op *b) {
    if (!a || !b)
        return a ? a : b;
    if (before(b, a)) {
        struct op *t = a;
        a = b;
        b = t;
    }
    b->next = a->child;
    a->child = b;
    return a;
}

static void heap_put(struct mxrt_engine *e, struct op *op) {
    op->child = op->next = NULL;
    spin_lock(&e->heap_lock);
    e->heap = meld(e->heap, op);
    atomic_store_explicit(&e->in_heap, atomic_load_explicit(&e->in_heap, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    spin_unlock(&e->heap_lock);
}

static struct op *heap_take(struct mxrt_engine *e) {
    if (atomic_load_explicit(&e->in_heap, memory_order_relaxed) == 0)
        return NULL;
    spin_lock(&e->heap_lock);
    struct op *top = e->heap;
    if (top) {
        struct op *pairs = NULL;
        for (struct op *a = top->child, *b, *rest; a; a = rest) {
            b = a->next;
            rest = b ? b->next : NULL;
            a->next = NULL;
            if (b)
                b->next = NULL;
            a = meld(a, b);
            a->next = pairs;
            pairs = a;
        }
        struct op *heap = NULL;
        for (struct op *rest; pairs; pairs = rest) {
            rest = pairs->next;
            pairs->next = NULL;
            heap = meld(heap, pairs);
        }
        e->heap = heap;
        top->child = NULL;
        atomic_store_explicit(&e->in_heap, atomic_load_explicit(&e->in_heap, memory_order_relaxed) - 1,
                              memory_order_relaxed);
    }
    spin_unlock(&e->heap_lock);
    return top;
}

/* ---- */

static void io_put(struct mxrt_engine *e, struct op *op) {
    pthread_mutex_lock(&e->io_lock);
    fifo_append(&e->io_queue, op);
    pthread_cond_signal(&e->io_wake);
    pthread_mutex_unlock(&e->io_lock);
}

/* `w` runs them soon itself, if it is given; it must be about to call queue_take. */
void queue_dispatch(struct mxrt_engine *e, struct worker *w, struct ready *ready) {
    bool wake = false;
    if (w && w->io)
        w = NULL;
    for (struct op *op; (op = fifo_take(&ready->normal));) {
        if (op->lane == MXRT_LANE_PRIORITY) {
            heap_put(e, op);
            wake = true;
        } else if (op->lane == MXRT_LANE_IO && e->io_workers > 0) {
            io_put(e, op);
        } else if (op->flags & OP_DELETE) {
            if (w)
                fifo_append(&w->urgent, op);
            else
                append_first(e, op);
            wake |= !w;
        } else if (w && !w->next && ring_empty(w)) {
            w->next = op;
        } else {
            if (!w || !ring_put(w, op))
                append(e, op);
            wake = true;
        }
    }
    if (wake)
        threads_wake(e);
}

/* A sleeper is woken for the first that others can take, a search for the next ones: see threads_wake. */
void queue_task(struct worker *w, struct op *task) {
    bool first = ring_empty(w);
    if (!w->next && first) {
        w->next = task;
        return;
    }
    if (!ring_put(w, task)) {
        append(w->engine, task);
        first = true;
    }
    if (first)
        threads_wake(w->engine);
}

void queue_tasks(struct mxrt_engine *e, struct op *const *task, int64_t n) {
    struct pointers *q = &e->queue;
    spin_lock(&q->lock);
    uint64_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed);
    for (int64_t i = 0; i < n; i++)
        q->at[tail++ & (q->room - 1)] = task[i];
    atomic_store_explicit(&q->tail, tail, memory_order_relaxed);
    spin_unlock(&q->lock);
}

bool queue_any(struct mxrt_engine *e) {
    if (!queue_empty(e) || atomic_load(&e->in_heap) > 0)
        return true;
    for (int i = 0; i <= e->workers; i++) {
        if (!ring_empty(&e->worker[i]))
            return true;
    }
    return false;
}

struct op *queue_take(struct worker *w) {
    struct mxrt_engine *e = w->engine;
    struct op *op = heap_take(e);
    if (op)
        return op;
    if (UNLIKELY(w->urgent.first != NULL))
        return fifo_take(&w->urgent);
    if (w->next && (++w->streak <= STREAK || (ring_empty(w) && queue_empty(e)))) {
        op = w->next;
        w->next = NULL;
        return op;
    }
    if (w->next) { /* others have waited long enough */
        append(e, w->next);
        w->next = NULL;
    }
    w->streak = 0;
    if (++w->ticks % FAIR == 0 && (op = take_batch(w, 1)))
        return op;
    if ((op = ring_take(w)) || (op = take_after_rest(w)))
        return op;
    for (int i = 1; i <= e->workers; i++) {
        if ((op = steal(w, &e->worker[(w - e->worker + i) % (e->workers + 1)])))
            return op;
    }
    return NULL;
}

/* What a thread that stops being a worker had for itself goes back to all. */
void queue_return_ring(struct worker *w) {
    for (struct op *op; (op = fifo_take(&w->urgent));)
        append_first(w->engine, op);
    if (w->next)
        append(w->engine, w->next);
    w->next = NULL;
    for (struct op *op; (op = ring_take(w));)
        append(w->engine, op);
}
