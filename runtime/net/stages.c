/* Sums and broadcasts by parts: a reduce-scatter in stages, then an all-gather back through them.
 *
 * The ranks are numbers with digits (way.c); those that differ in one digit are a group of a stage. Down: in stage s a rank has a range of
 * elements, the sum of it over the ranks with the digits below s; each member of its group is sent one part of that range, and adds
 * its own part of all. So behind the last stage each rank owns a small part of the whole sum. Up: it gives what it owns to its group
 * of the last stage, then all that this group has to the one before. With one stage, of all ranks, a rank sends 2 (n - 1) / n of the bytes
 * in two steps, the least possible (Patarasuk, Yuan 2009), where a ring takes 2 (n - 1); with stages of nodes first, most of it stays
 * within a node; with stages of two ranks there are least messages. As an owner has all summands of its group at once, it can add them
 * along the tree that is prescribed, which a ring cannot.
 *
 * The elements go in chunks, some at a time, so that one is added while others are on the wire. All ranks cut the same chunks, and a
 * chunk needs from the others only that they have asked for the collective. Memory for the summands is taken when all of a
 * stage's have been offered, hence are sure to come: were it taken when the collective is asked for, ranks that ask in
 * different orders could each hold what the other waits for. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "sum.h"

enum { LIVE_CHUNKS = 8, SUM_MEMORY = 1 << 25 };

struct chunk {
    struct collective *c;
    int64_t index, first;
    uint64_t order;
    int waiting; /* messages that have not ended, and 1 on the way down */
    bool is_down;
    int stage; /* on the way down the one under way; up the one that is given to */
    int64_t low[MOST_STAGES + 1], high[MOST_STAGES + 1]; /* elements of the chunk that are this rank's before a stage */
    int gathered[MOST_STAGES];                           /* parts that came back */
    int expected, matched, offered, came;                /* summands of the stage */
    size_t part_bytes, memory;
    char *buffer;     /* [offered, part_bytes] */
    char *result;     /* of a reduce, on a rank that is not the root: its data stay */
    char *wide;       /* f16 and bf16, between stages: sums of low[1] … high[1] in f32 */
    struct in **held; /* [the largest radix]: what comes for the own part in the stage */
};

/* ---- the group of a stage */

static int stride_of(const struct collective *c, int stage) {
    int stride = 1;
    for (int s = 0; s < stage; s++)
        stride *= c->way.radix[s];
    return stride;
}

static int digit_of(const struct mxrt_net *n, const struct collective *c, int stage) {
    return n->rank / stride_of(c, stage) % c->way.radix[stage];
}

static int member(const struct mxrt_net *n, const struct collective *c, int stage, int digit) {
    return n->rank + (digit - digit_of(n, c, stage)) * stride_of(c, stage);
}

/* ---- parts */

struct part {
    int64_t low, elements; /* of the chunk */
};

static struct part part_of(const struct chunk *k, int stage, int digit) {
    const int64_t low = k->low[stage], all = k->high[stage] - low, radix = k->c->way.radix[stage];
    if (k->c->way.kind == WAY_WHOLE)
        return (struct part){low, all};
    const int64_t from = all * digit / radix, to = all * (digit + 1) / radix;
    return (struct part){low + from, to - from};
}

static char *place(const struct chunk *k, int64_t low) {
    return (char *)k->c->x.data + (size_t)(k->first + low) * k->c->element_bytes;
}

/* Sums between stages are of the partial type: in their place where that is the elements' own, else in `wide`. */
static bool is_wide(const struct chunk *k, int stage) {
    return stage > 0 && sum_partial_type(k->c->x.dtype) != k->c->x.dtype;
}

static mx_dtype type_before(const struct chunk *k, int stage) {
    return stage > 0 ? sum_partial_type(k->c->x.dtype) : k->c->x.dtype;
}

static char *partial(const struct chunk *k, int stage, int64_t low) {
    return is_wide(k, stage) ? k->wide + (size_t)(low - k->low[1]) * sizeof(float) : place(k, low);
}

/* Who has something for an owner, and who wants its result. Other collectives than all_reduce have one stage. */
static bool gives(const struct collective *c, int rank) {
    return c->op != OP_BROADCAST || rank == c->root;
}

static bool wants(const struct collective *c, int rank) {
    return c->way.kind != WAY_WHOLE && (c->op == OP_ALL_REDUCE || (c->op == OP_REDUCE) == (rank == c->root));
}

static uint64_t sub_of(const struct chunk *k, int stage, bool up) {
    return ((uint64_t)k->index * MOST_STAGES + (uint64_t)stage) * 2 + up;
}

static void no_memory(struct mxrt_net *n, const struct collective *c) {
    fault_lose(n, n->rank, "no memory for collective %llu", (unsigned long long)c->id);
}

static void more_chunks(struct mxrt_net *n, struct collective *c);

static void release(struct mxrt_net *n, struct chunk *k) {
    if (n->dead && k->is_down) {
        k->is_down = false;
        k->waiting--;
    }
    if (--k->waiting > 0)
        return;
    struct collective *c = k->c;
    if (k->buffer)
        n->sum_bytes -= k->memory;
    free(k->buffer);
    free(k->result);
    free(k->wide);
    free(k->held);
    free(k);
    c->ended_chunks++;
    more_chunks(n, c);
}

/* ---- up */

static void result_sent(struct mxrt_net *n, struct task *t) {
    struct chunk *k = ((struct out *)t)->owner;
    out_drop((struct out *)t);
    release(n, k);
}

/* What this rank has behind a stage, to its group. */
static void give(struct mxrt_net *n, struct chunk *k, int stage) {
    const int radix = k->c->way.radix[stage];
    const int64_t low = k->low[stage + 1], elements = k->high[stage + 1] - low;
    for (int d = 1; d < radix && elements > 0; d++) {
        int q = member(n, k->c, stage, (digit_of(n, k->c, stage) + d) % radix);
        if (wants(k->c, q) && collective_send(n, k->c, q, sub_of(k, stage, true), k->result ? k->result : place(k, low),
                                              (size_t)elements * k->c->element_bytes, result_sent, k, q))
            k->waiting++;
    }
}

/* The group's other parts that come back in a stage. */
static int parts_back(const struct mxrt_net *n, const struct chunk *k, int stage) {
    int parts = 0;
    for (int d = 0; d < k->c->way.radix[stage]; d++)
        parts += d != digit_of(n, k->c, stage) && part_of(k, stage, d).elements > 0;
    return parts;
}

static void climb(struct mxrt_net *n, struct chunk *k) {
    while (k->stage > 0 && k->gathered[k->stage] == parts_back(n, k, k->stage))
        give(n, k, --k->stage);
}

/* The own part is summed; or there is none. */
static void turn(struct mxrt_net *n, struct chunk *k) {
    k->is_down = false;
    k->stage = k->c->way.stages - 1;
    give(n, k, k->stage);
    climb(n, k);
    release(n, k);
}

static void result_received(struct mxrt_net *n, struct task *t) {
    struct in *i = (struct in *)t;
    struct chunk *k = i->owner;
    bool ok = i->status == MX_OK;
    k->gathered[i->index] += ok;
    in_drop(i);
    if (ok && !n->dead && !k->is_down)
        climb(n, k);
    release(n, k);
}

static void expect_result(struct mxrt_net *n, struct chunk *k, int stage, int q) {
    const int digit = q / stride_of(k->c, stage) % k->c->way.radix[stage];
    struct part p = part_of(k, stage, digit);
    if (wants(k->c, n->rank) &&
        collective_receive(n, k->c, q, sub_of(k, stage, true), place(k, p.low),
                           (size_t)p.elements * k->c->element_bytes, NULL, result_received, k, stage))
        k->waiting++;
}

/* ---- down */

static void start_stage(struct mxrt_net *n, struct chunk *k);

static void sum(struct mxrt_net *n, struct chunk *k) {
    struct collective *c = k->c;
    const int radix = c->way.radix[k->stage], digit = digit_of(n, c, k->stage);
    const struct part own = part_of(k, k->stage, digit);
    const bool last = k->stage == c->way.stages - 1, apart = c->op == OP_REDUCE && n->rank != c->root;
    const mx_dtype in = type_before(k, k->stage), out = last ? c->x.dtype : sum_partial_type(c->x.dtype);
    const void **parts = malloc((size_t)radix * sizeof *parts);
    if (apart)
        k->result = malloc((size_t)own.elements * c->element_bytes);
    if (k->stage == 0 && is_wide(k, 1) && !last)
        k->wide = malloc((size_t)own.elements * sizeof(float));
    if (!parts || (apart && !k->result) || (!last && is_wide(k, k->stage + 1) && !k->wide)) {
        free(parts);
        no_memory(n, c);
        return;
    }
    size_t at = 0;
    for (int d = 0; d < radix; d++) {
        if (d == digit) {
            parts[d] = partial(k, k->stage, own.low);
        } else if (k->held[d]) {
            parts[d] = k->held[d]->eager->payload;
        } else {
            parts[d] = k->buffer + at;
            at += k->part_bytes;
        }
    }
    char *to = last ? place(k, own.low) : partial(k, k->stage + 1, own.low);
    sum_tree_to(out, in, k->result ? k->result : to, parts, radix, own.elements);
    free(parts);
    for (int d = 0; d < radix; d++) {
        if (k->held[d])
            wire_finish(n, k->held[d]);
    }
    if (k->buffer)
        n->sum_bytes -= k->memory;
    free(k->buffer);
    k->buffer = NULL;
    stages_sum_ready(n);
    k->stage++;
    if (last)
        turn(n, k);
    else
        start_stage(n, k);
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
        no_memory(n, k->c);
    stages_sum_ready(n);
}

void stages_sum_ready(struct mxrt_net *n) {
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
        for (int d = 0; d < k->c->way.radix[k->stage]; d++) {
            struct in *i = k->held[d];
            if (i && !i->eager) {
                k->held[d] = NULL;
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
        turn(n, k);
    release(n, k);
}

/* What this rank sent for a member of its group to sum has been read: the sum may come in its place. */
static void summand_sent(struct mxrt_net *n, struct task *t) {
    struct out *o = (struct out *)t;
    struct chunk *k = o->owner;
    int stage = o->index, q = o->key.peer;
    bool ok = o->status == MX_OK;
    out_drop(o);
    if (ok && !n->dead)
        expect_result(n, k, stage, q);
    release(n, k);
}

/* The group's parts to their owners; and what is expected of them. */
static void start_stage(struct mxrt_net *n, struct chunk *k) {
    struct collective *c = k->c;
    const int stage = k->stage, radix = c->way.radix[stage], digit = digit_of(n, c, stage);
    const struct part own = part_of(k, stage, digit);
    const size_t bytes = sum_element_bytes(type_before(k, stage));
    memset(k->held, 0, (size_t)radix * sizeof *k->held);
    k->expected = k->matched = k->offered = k->came = 0;
    k->part_bytes = (size_t)own.elements * bytes;
    k->low[stage + 1] = own.low;
    k->high[stage + 1] = own.low + own.elements;
    for (int d = 1; d < radix; d++) {
        const int other = (digit + d) % radix, q = member(n, c, stage, other);
        const struct part p = part_of(k, stage, other);
        if (p.elements == 0)
            continue;
        if (!gives(c, n->rank))
            expect_result(n, k, stage, q);
        else if (collective_send(n, c, q, sub_of(k, stage, false), partial(k, stage, p.low), (size_t)p.elements * bytes,
                                 summand_sent, k, stage))
            k->waiting++;
    }
    if (own.elements == 0) { /* nor in any later stage */
        for (int s = stage + 1; s <= c->way.stages; s++)
            k->low[s] = k->high[s] = own.low;
        turn(n, k);
    } else if (c->op == OP_BROADCAST && n->rank == c->root) {
        turn(n, k);
    } else if (c->op == OP_BROADCAST) {
        if (collective_receive(n, c, c->root, sub_of(k, stage, false), place(k, own.low), k->part_bytes, NULL,
                               part_received, k, 0))
            k->waiting++;
    } else {
        k->expected = radix - 1;
        k->waiting += radix - 1;
        for (int d = 1; d < radix; d++) {
            const int other = (digit - d + radix) % radix;
            if (!collective_receive(n, c, member(n, c, stage, other), sub_of(k, stage, false), NULL, k->part_bytes,
                                    matched, summand_received, k, other))
                k->waiting--;
        }
    }
}

/* ---- */

static int largest_group(const struct collective *c) {
    int largest = 1;
    for (int s = 0; s < c->way.stages; s++)
        largest = c->way.radix[s] > largest ? c->way.radix[s] : largest;
    return largest;
}

static void start_chunk(struct mxrt_net *n, struct collective *c, int64_t index) {
    struct chunk *k = calloc(1, sizeof *k);
    struct in **held = calloc((size_t)largest_group(c), sizeof *held);
    if (!k || !held) {
        free(k);
        free(held);
        c->ended_chunks++;
        no_memory(n, c);
        return;
    }
    const int64_t first = index * c->way.chunk_elements, rest = c->x.elements - first;
    *k = (struct chunk){.c = c, .index = index, .first = first, .waiting = 2, .is_down = true, .held = held};
    k->high[0] = rest < c->way.chunk_elements ? rest : c->way.chunk_elements;
    start_stage(n, k);
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

void stages_start(struct mxrt_net *n, struct collective *c) {
    c->chunks = (c->x.elements + c->way.chunk_elements - 1) / c->way.chunk_elements;
    more_chunks(n, c);
}
