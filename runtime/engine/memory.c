/* Records of operations and reader groups: slabs cut into size classes.
 *
 * What costs time is a record's way between processors: the pusher fills it, a worker reads it and hands it back. So
 * free records travel as arrays of pointers, in batches, and the pusher asks for the lines of those it will need next
 * before it needs them. Records are taken only under the lock of the pushes; memory never goes back before the engine
 * ends: see internal.h. */
#include <stdlib.h>
#include <sys/mman.h>

#include "internal.h"

enum { SLAB = 8 * 1024, HUGE_PAGE = 2 * 1024 * 1024, LARGEST_SLAB = 2 * HUGE_PAGE - 4 * LINE, AHEAD = 4 };

struct slab {
    struct slab *next;
    size_t used, records, record;
    char *first;
};

static size_t record_bytes(int class) {
    return class == 0 ? LINE : LINE + ((size_t)LINE / 2 << class); /* see struct op */
}

void *memory_get(struct mxrt_engine *e, size_t bytes) {
    bytes = (bytes + LINE - 1) / LINE * LINE;
    if (e->options.memory_limit && (bytes > e->options.memory_limit || e->bytes > e->options.memory_limit - bytes))
        return NULL;
    void *p = bytes >= HUGE_PAGE ? aligned_alloc(HUGE_PAGE, (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE)
                                 : aligned_alloc(LINE, bytes);
#ifdef MADV_HUGEPAGE
    if (p && bytes >= HUGE_PAGE)
        (void)madvise(p, bytes, MADV_HUGEPAGE);
#endif
    if (p)
        e->bytes += bytes;
    return p;
}

static void memory_put(struct mxrt_engine *e, void *p, size_t bytes) {
    e->bytes -= (bytes + LINE - 1) / LINE * LINE;
    free(p);
}

/* A ring with room for n pointers at least; what it holds stays. */
static bool ring_fit(struct mxrt_engine *e, struct pointers *r, size_t n) {
    if (n <= r->room)
        return true;
    size_t room = r->room ? r->room : 64;
    while (room < n)
        room *= 2;
    void **more = memory_get(e, room * sizeof *more);
    if (!more)
        return false;
    spin_lock(&r->lock);
    void **old = r->at;
    for (uint64_t i = r->head; i != atomic_load_explicit(&r->tail, memory_order_relaxed); i++)
        more[i & (room - 1)] = old[i & (r->room - 1)];
    size_t bytes = r->room * sizeof *more;
    r->at = more;
    r->room = room;
    spin_unlock(&r->lock);
    if (old)
        memory_put(e, old, bytes);
    return true;
}

bool memory_queue(struct mxrt_engine *e, size_t n) {
    if (!ring_fit(e, &e->queue, e->operations + n))
        return false;
    e->operations += n;
    return true;
}

/* The newest slab of a class is the only one with room. Every record has a place in the ring of its class and, an
 * operation, in the queue of what is ready, so that neither is ever full. */
static struct slab *slab_of(struct mxrt_engine *e, int class) {
    struct slab *s = e->slab[class];
    if (s && s->used < s->records)
        return s;
    size_t record = record_bytes(class), bytes = s ? 2 * s->record * s->records : SLAB;
    if (bytes > LARGEST_SLAB)
        bytes = LARGEST_SLAB;
    if (bytes < record)
        bytes = record;
    size_t records = bytes / record;
    struct pointers *queue = class > 0 ? &e->queue : NULL;
    for (;; records = 1) { /* one may still be had near the limit */
        if (ring_fit(e, &e->returned[class], e->records[class] + records) &&
            (!queue || ring_fit(e, queue, e->operations + records)) && (s = memory_get(e, 2 * LINE + records * record)))
            break;
        if (records == 1)
            return NULL;
    }
    /* Pairs of lines are fetched together: records of operations are laid out so. */
    char *first = (char *)s + LINE;
    if ((uintptr_t)first % (2 * LINE) != 0)
        first += LINE;
    *s = (struct slab){e->slab[class], 0, records, record, first};
    e->records[class] += records;
    if (queue)
        e->operations += records;
    return e->slab[class] = s;
}

static void *fresh(struct mxrt_engine *e, int class) {
    struct slab *s = slab_of(e, class);
    if (!s)
        return NULL;
    void *r = s->first + s->used++ * s->record;
    if (class > 0) {
        struct op *op = r;
        op->class = (uint8_t) class;
        atomic_init(&op->followers, CLOSED);
        atomic_init(&op->state, OP_FREE);
        atomic_init(&op->ticket, 0);
    }
    return r;
}

/* All lines of a record of the usual sizes: a locked instruction waits for every store before it, so a line that is
 * missed is paid for at the next one. */
static inline void fetch(const char *record, int class) {
    size_t bytes = record_bytes(class);
    for (size_t at = 0; at < bytes && at < MOST_FETCHED; at += LINE)
        own_soon(record + at);
}

static void expect(const struct batch *b, int class) {
    if (b->count > AHEAD)
        fetch(b->at[b->count - 1 - AHEAD], class);
}

/* Fills b, which is empty, from what workers gave back. */
static bool refill(struct mxrt_engine *e, struct batch *b, int class) {
    struct pointers *r = &e->returned[class];
    if (atomic_load_explicit(&r->tail, memory_order_relaxed) == r->head) /* only this side moves the head */
        return false;
    spin_lock(&r->lock);
    size_t n = (size_t)(atomic_load_explicit(&r->tail, memory_order_relaxed) - r->head);
    if (n > BATCH)
        n = BATCH;
    for (size_t i = n; i-- > 0;) /* the oldest on top */
        b->at[i] = r->at[r->head++ & (r->room - 1)];
    spin_unlock(&r->lock);
    b->count = (int)n;
    for (int i = 1; i <= AHEAD && i <= b->count; i++)
        fetch(b->at[b->count - i], class);
    return n > 0;
}

static void *record(struct mxrt_engine *e, int class) {
    /* Without workers, what the last operation gave back is still in the cache. */
    struct batch *b = &e->worker->freed[class];
    if (e->workers > 0 || atomic_load_explicit(&e->helper_busy, memory_order_relaxed) || b->count == 0) {
        b = &e->free[class];
        if (b->count == 0 && !refill(e, b, class))
            return fresh(e, class);
        expect(b, class);
    }
    return b->at[--b->count];
}

struct op *memory_op(struct mxrt_engine *e, uint32_t accesses) {
    int class = accesses < 2 ? 1 : 32 - __builtin_clz(accesses);
    return record(e, class);
}

bool memory_reserve_groups(struct mxrt_engine *e, int64_t n) {
    while (UNLIKELY(e->free_groups < e->promised_groups + n)) {
        struct block *g = record(e, 0);
        if (!g)
            return false;
        g->next = e->reserved_groups;
        e->reserved_groups = g;
        e->free_groups++;
    }
    e->promised_groups += n;
    return true;
}

void *memory_group(struct mxrt_engine *e) {
    struct block *g = e->reserved_groups;
    e->reserved_groups = g->next;
    e->free_groups--;
    return g;
}

static void give_back(struct mxrt_engine *e, struct batch *b, int class) {
    struct pointers *r = &e->returned[class];
    spin_lock(&r->lock);
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    for (int i = 0; i < b->count; i++)
        r->at[tail++ & (r->room - 1)] = b->at[i];
    atomic_store_explicit(&r->tail, tail, memory_order_relaxed);
    spin_unlock(&r->lock);
    b->count = 0;
}

void memory_take_back(struct mxrt_engine *e, void *record, int class) {
    struct batch *b = &e->free[class];
    if (b->count == BATCH)
        give_back(e, b, class);
    b->at[b->count++] = record;
}

void memory_give(struct mxrt_engine *e, struct worker *w, void *record, int class) {
    if (w) {
        struct batch *b = &w->freed[class];
        b->at[b->count++] = record;
        w->given |= 1u << class;
        if (b->count == BATCH)
            give_back(e, b, class);
    } else {
        struct batch one = {1, {record}};
        give_back(e, &one, class);
    }
}

void memory_flush(struct mxrt_engine *e, struct worker *w) {
    for (uint32_t left = w->given; left; left &= left - 1) {
        int class = __builtin_ctz(left);
        if (w->freed[class].count > 0)
            give_back(e, &w->freed[class], class);
    }
    w->given = 0;
}

void memory_each_op(struct mxrt_engine *e, void (*visit)(void *context, struct op *op), void *context) {
    for (int class = 1; class < CLASSES; class ++) {
        for (struct slab *s = e->slab[class]; s; s = s->next) {
            for (size_t i = 0; i < s->used; i++) {
                struct op *op = (struct op *)(s->first + i * s->record);
                if (atomic_load_explicit(&op->state, memory_order_acquire) != OP_FREE)
                    visit(context, op);
            }
        }
    }
}

void memory_end(struct mxrt_engine *e) {
    for (int class = 0; class < CLASSES; class ++) {
        for (struct slab *s = e->slab[class], *next; s; s = next) {
            next = s->next;
            free(s);
        }
        free(e->returned[class].at);
    }
    free(e->queue.at);
    for (int i = 0; i < CHUNKS; i++)
        free(e->chunk[i]);
}
