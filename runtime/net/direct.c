/* Sums and broadcasts in two phases, straight between all pairs: reduce-scatter, then all-gather.
 *
 * Phase 0: each rank owns one part of the elements and gets that part of everybody's. Phase 1: the owner gives the sum to all. A rank
 * sends 2 (n - 1) / n of the bytes, the least possible (Patarasuk, Yuan 2009), in two steps where a ring takes 2 (n - 1); and as
 * the owner has all summands at once, it can add them along the tree that is prescribed, which a ring cannot.
 *
 * The elements go in chunks, some at a time, so that one is added while others are on the wire. All ranks cut the same chunks, and a
 * chunk needs from the others only that they have asked for the collective. Memory for the summands is taken when all of a
 * chunk's have been offered, hence are sure to come: were it taken when the collective is asked for, ranks that ask in
 * different orders could each hold what the other waits for. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "sum.h"

enum { LIVE_CHUNKS = 8, SMALLEST_PART = 1 << 15, PARTS_BYTES = 1 << 23, SUM_MEMORY = 1 << 25 };

struct chunk {
    struct collective *c;
    int64_t index, first, elements;
    uint64_t order;
    int waiting; /* messages that have not ended, and 1 while the own part has not been summed */
    int expected, matched, offered, came;
    bool summed;
    size_t part_bytes, memory;
    char *buffer;     /* [offered, part_bytes] */
    char *result;     /* of a reduce, on a rank that is not the root: its data stay */
    struct in **held; /* [size]: what comes for the own part */
};

struct part {
    char *data;
    size_t bytes;
    int64_t elements;
};

static struct part part_of(const struct mxrt_net *n, const struct chunk *k, int owner) {
    const struct collective *c = k->c;
    int64_t lo = c->whole ? 0 : k->elements * owner / n->size;
    int64_t hi = c->whole ? k->elements : k->elements * (owner + 1) / n->size;
    return (struct part){(char *)c->x.data + (size_t)(k->first + lo) * c->element_bytes,
                         (size_t)(hi - lo) * c->element_bytes, hi - lo};
}

/* Who has something for an owner, and who wants its result. */
static bool gives(const struct collective *c, int rank) {
    return c->op != OP_BROADCAST || rank == c->root;
}

static bool wants(const struct collective *c, int rank) {
    return !c->whole && (c->op == OP_ALL_REDUCE || (c->op == OP_REDUCE) == (rank == c->root));
}

static void more_chunks(struct mxrt_net *n, struct collective *c);

static void release(struct mxrt_net *n, struct chunk *k) {
    if (n->dead && !k->summed) {
        k->summed = true;
        k->waiting--;
    }
    if (--k->waiting > 0)
        return;
    struct collective *c = k->c;
    if (k->buffer)
        n->sum_bytes -= k->memory;
    free(k->buffer);
    free(k->result);
    free(k->held);
    free(k);
    c->ended_chunks++;
    more_chunks(n, c);
}

/* ---- phase 1 */

static void result_sent(struct mxrt_net *n, struct task *t) {
    struct chunk *k = ((struct out *)t)->owner;
    out_drop((struct out *)t);
    release(n, k);
}

static void result_received(struct mxrt_net *n, struct task *t) {
    struct chunk *k = ((struct in *)t)->owner;
    in_drop((struct in *)t);
    release(n, k);
}

static void send_result(struct mxrt_net *n, struct chunk *k) {
    struct part own = part_of(n, k, n->rank);
    for (int d = 1; d < n->size; d++) {
        int q = (n->rank + d) % n->size;
        if (wants(k->c, q) && collective_send(n, k->c, q, (uint64_t)k->index * 2 + 1, k->result ? k->result : own.data,
                                              own.bytes, result_sent, k, q))
            k->waiting++;
    }
    k->summed = true;
    release(n, k);
}

static void expect_result(struct mxrt_net *n, struct chunk *k, int owner) {
    struct part p = part_of(n, k, owner);
    if (wants(k->c, n->rank) &&
        collective_receive(n, k->c, owner, (uint64_t)k->index * 2 + 1, p.data, p.bytes, NULL, result_received, k, 0))
        k->waiting++;
}

/* ---- phase 0 */

static void sum(struct mxrt_net *n, struct chunk *k) {
    struct part own = part_of(n, k, n->rank);
    const void **parts = malloc((size_t)n->size * sizeof *parts);
    if (k->c->op == OP_REDUCE && n->rank != k->c->root)
        k->result = malloc(own.bytes);
    if (!parts || (k->c->op == OP_REDUCE && n->rank != k->c->root && !k->result)) {
        free(parts);
        fault_lose(n, n->rank, "no memory for collective %llu", (unsigned long long)k->c->id);
        return;
    }
    size_t at = 0;
    for (int q = 0; q < n->size; q++) {
        if (q == n->rank) {
            parts[q] = own.data;
        } else if (k->held[q]) {
            parts[q] = k->held[q]->eager->payload;
        } else {
            parts[q] = k->buffer + at;
            at += k->part_bytes;
        }
    }
    sum_tree(k->c->x.dtype, k->result ? k->result : own.data, parts, n->size, own.elements);
    free(parts);
    for (int q = 0; q < n->size; q++) {
        if (k->held[q])
            wire_finish(n, k->held[q]);
    }
    if (k->buffer)
        n->sum_bytes -= k->memory;
    free(k->buffer);
    k->buffer = NULL;
    direct_sum_ready(n);
    send_result(n, k);
}

static bool chunk_before(const void *a, const void *b) {
    const struct chunk *x = a, *y = b;
    return x->c->priority != y->c->priority ? x->c->priority > y->c->priority : x->order < y->order;
}

/* All summands are here or on offer. */
static void matched(struct mxrt_net *n, struct in *i) {
    struct chunk *k = i->owner;
    k->held[i->index] = i;
    if (!i->eager)
        k->offered++;
    if (++k->matched < k->expected)
        return;
    if (k->offered == 0) {
        sum(n, k);
        return;
    }
    k->memory = (size_t)k->offered * k->part_bytes;
    k->order = n->order++;
    if (!heap_put(&n->ready, k, chunk_before))
        fault_lose(n, n->rank, "no memory for collective %llu", (unsigned long long)k->c->id);
    direct_sum_ready(n);
}

void direct_sum_ready(struct mxrt_net *n) {
    while (n->ready.count > 0 && n->doomed < 0) {
        const struct chunk *top = n->ready.at[0];
        if (n->sum_bytes > 0 && n->sum_bytes + top->memory > SUM_MEMORY)
            return;
        struct chunk *k = heap_take(&n->ready, chunk_before);
        k->buffer = malloc(k->memory);
        if (!k->buffer) {
            fault_lose(n, n->rank, "no memory (%zu bytes) to sum collective %llu", k->memory,
                       (unsigned long long)k->c->id);
            return;
        }
        n->sum_bytes += k->memory;
        size_t at = 0;
        for (int q = 0; q < n->size; q++) {
            struct in *i = k->held[q];
            if (i && !i->eager) {
                k->held[q] = NULL;
                wire_accept(n, i, k->buffer + at);
                at += k->part_bytes;
            }
        }
    }
}

static void summand_received(struct mxrt_net *n, struct task *t) {
    struct in *i = (struct in *)t;
    struct chunk *k = i->owner;
    bool counts = !i->eager && i->status == MX_OK;
    in_drop(i);
    if (counts && ++k->came == k->offered && !n->dead)
        sum(n, k);
    release(n, k);
}

/* A broadcast: the root's part, where it belongs. */
static void part_received(struct mxrt_net *n, struct task *t) {
    struct in *i = (struct in *)t;
    struct chunk *k = i->owner;
    bool ok = i->status == MX_OK;
    in_drop(i);
    if (ok && !n->dead)
        send_result(n, k);
    release(n, k);
}

/* What this rank sent for q to sum has been read: the sum may come in its place. */
static void summand_sent(struct mxrt_net *n, struct task *t) {
    struct out *o = (struct out *)t;
    struct chunk *k = o->owner;
    int q = o->index;
    bool ok = o->status == MX_OK;
    out_drop(o);
    if (ok && !n->dead)
        expect_result(n, k, q);
    release(n, k);
}

/* ---- */

static void start_chunk(struct mxrt_net *n, struct collective *c, int64_t index) {
    struct chunk *k = calloc(1, sizeof *k);
    struct in **held = calloc((size_t)n->size, sizeof *held);
    if (!k || !held) {
        free(k);
        free(held);
        c->ended_chunks++;
        fault_lose(n, n->rank, "no memory for collective %llu", (unsigned long long)c->id);
        return;
    }
    int64_t first = index * c->chunk_elements, rest = c->x.elements - first;
    *k = (struct chunk){.c = c,
                        .index = index,
                        .first = first,
                        .elements = rest < c->chunk_elements ? rest : c->chunk_elements,
                        .waiting = 2,
                        .held = held};
    uint64_t sub = (uint64_t)index * 2;
    struct part own = part_of(n, k, n->rank);
    k->part_bytes = own.bytes;
    for (int d = 1; d < n->size; d++) {
        int q = (n->rank + d) % n->size;
        struct part p = part_of(n, k, q);
        if (p.elements == 0)
            continue;
        if (!gives(c, n->rank))
            expect_result(n, k, q);
        else if (collective_send(n, c, q, sub, p.data, p.bytes, summand_sent, k, q))
            k->waiting++;
    }
    if (own.elements == 0) {
        k->summed = true;
        k->waiting--;
    } else if (c->op == OP_BROADCAST && n->rank == c->root) {
        send_result(n, k);
    } else if (c->op == OP_BROADCAST) {
        if (collective_receive(n, c, c->root, sub, own.data, own.bytes, NULL, part_received, k, 0))
            k->waiting++;
    } else {
        k->expected = n->size - 1;
        k->waiting += n->size - 1;
        for (int d = 1; d < n->size; d++) {
            int q = (n->rank - d + n->size) % n->size;
            if (!collective_receive(n, c, q, sub, NULL, own.bytes, matched, summand_received, k, q))
                k->waiting--;
        }
    }
    release(n, k);
}

/* Chunks end inside the start of others: the loop is only entered once. */
static void more_chunks(struct mxrt_net *n, struct collective *c) {
    if (c->starting)
        return;
    c->starting = true;
    while (!n->dead && c->next_chunk < c->chunks && c->next_chunk - c->ended_chunks < LIVE_CHUNKS)
        start_chunk(n, c, c->next_chunk++);
    c->starting = false;
    if (c->ended_chunks == (n->dead ? c->next_chunk : c->chunks))
        collective_end(n, c);
}

void direct_start(struct mxrt_net *n, struct collective *c, bool whole) {
    int64_t part = PARTS_BYTES / n->size;
    part = part < SMALLEST_PART ? SMALLEST_PART : part > PIECE_BYTES ? PIECE_BYTES : part;
    c->whole = whole;
    c->chunk_elements = part / (int64_t)c->element_bytes * n->size;
    c->chunks = (c->x.elements + c->chunk_elements - 1) / c->chunk_elements;
    more_chunks(n, c);
}
