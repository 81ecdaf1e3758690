/* Which way an all-reduce goes: from what a message costs within a node and between nodes.
 *
 * Ranks are written as numbers with digits of mixed radix, least significant first, and a stage of a sum exchanges parts between the ranks
 * that differ in one digit (stages.c). The radices are all there is to choose:
 *
 *   n              straight between all pairs: fewest steps, most messages (Patarasuk, Yuan 2009)
 *   2 2 2 …        recursive halving and doubling: 2 log2 n messages of a rank (Thakur, Rabenseifner, Gropp 2005)
 *   g then N       within nodes of g ranks, then a part of each rank's across N nodes: a node sends what one rank would
 *   g 2 2 2, 4 4 8, …
 *
 * All give the same bits, since all stages but the last have radices that are powers of two: what a stage adds is then a whole subtree of
 * the tree that splits n ranks at the largest power of two below n. Where nodes are no such subtrees, sums go as if there were none.
 *
 * The cost of a way is that of LogGP (Alexandrov et al. 1995) for a pipeline of chunks: the first goes through all stages, each other one
 * costs what the busiest of link, bus and thread needs for it. Few ranks make this a choice by hand, as rules of thumb; with many, of
 * nodes, those would have to know how all of it scales. */
#include "way.h"

#include <stddef.h>

enum {
    SMALLEST_PART = 1 << 15, /* direct: of a rank, in a chunk */
    LARGEST_PART = 1 << 18,
    PARTS_BYTES = 1 << 23,   /* direct: of a chunk */
    LARGEST_CHUNK = 1 << 25, /* memory for summands is that much (stages.c) */
    MOST_CHUNKS = 64,
    LIVE_CHUNKS = 8,   /* as stages.c has them */
    FRAME = 3968 - 64, /* bytes of a message that needs no offer */
    PIECE = 1 << 18    /* of a larger one, sent at once */
};

/* What more stages than one must promise, for all that the model does not know. */
#define STAGES_WORSE 1.1

int way_node_ranks_of(int each, int ranks) {
    return each > 1 && each < ranks && (each & (each - 1)) == 0 && ranks % each == 0 ? each : 0;
}

int way_node_ranks(const int *nodes, int ranks) {
    int g = 1;
    if (!nodes)
        return 0;
    while (g < ranks && nodes[g] == nodes[0])
        g++;
    if (!way_node_ranks_of(g, ranks))
        return 0;
    for (int i = g; i < ranks; i++) {
        if (i % g != 0 ? nodes[i] != nodes[i - 1] : nodes[i] == nodes[i - 1])
            return 0;
    }
    for (int i = g; i < ranks; i += g) { /* no node twice */
        for (int k = 0; k < i; k += g) {
            if (nodes[i] == nodes[k])
                return 0;
        }
    }
    return g;
}

int way_digest(const struct way *w) {
    uint64_t h = (uint64_t)w->kind * 31 + (uint64_t)w->chunk_elements;
    for (int s = 0; s < w->stages; s++)
        h = (h ^ (uint64_t)w->radix[s]) * 0x9e3779b97f4a7c15u;
    return (int)(h >> 48 ^ (h & 0xffff));
}

/* ---- costs */

struct cost {
    double first;              /* seconds of a chunk by itself */
    double near, far, handled; /* of the bus, the link, and the thread for it */
};

/* Messages of a stage both ways: offered, granted and sent, or sent at once. */
static void add_stage(struct cost *c, const struct way_link *l, bool is_far, double peers, double bytes) {
    const double trips = bytes > FRAME ? 3 : 1, wire = peers * bytes / l->bandwidth,
                 handled = 2 * peers * (trips + (double)(int64_t)(bytes / PIECE)) * l->message;
    c->first += handled + trips * l->latency + wire;
    c->handled += handled;
    *(is_far ? &c->far : &c->near) += wire;
}

static double largest(double a, double b, double c) {
    const double d = a > b ? a : b;
    return d > c ? d : c;
}

static double seconds_of_stages(const struct way_net *net, const struct way *w, int64_t elements, int element_bytes,
                                int partial_bytes) {
    const double chunks =
        (double)((elements + w->chunk_elements - 1) / w->chunk_elements); /* all but the last of the same size */
    double left = chunks > 1 ? (double)w->chunk_elements : (double)elements;
    struct cost c = {0, 0, 0, 0};
    for (int s = 0, stride = 1; s < w->stages; stride *= w->radix[s++]) {
        const bool is_far = stride * w->radix[s] > (net->node_ranks ? net->node_ranks : 1);
        const struct way_link *l = is_far ? &net->far : &net->near;
        const double part = left / w->radix[s];
        add_stage(&c, l, is_far, w->radix[s] - 1, part * (s ? partial_bytes : element_bytes));
        add_stage(&c, l, is_far, w->radix[s] - 1, part * element_bytes);
        left = part;
    }
    /* Chunks follow each other by what is busiest, and by what LIVE_CHUNKS of them can have under way. */
    const double busiest = largest(c.near, c.far, c.handled), turn = largest(busiest, c.first / LIVE_CHUNKS, 0);
    return c.first + (chunks - 1) * turn;
}

static int levels_of(int ranks) {
    int levels = 0;
    while (1 << levels < ranks)
        levels++;
    return levels;
}

/* Twice log2 n messages, one after the other; the lowest levels of the tree are within a node. */
static double seconds_of_tree(const struct way_net *net, double bytes, double partial_bytes) {
    const int levels = levels_of(net->ranks), near = net->node_ranks ? levels_of(net->node_ranks) : 0;
    struct cost c = {0, 0, 0, 0};
    for (int i = 0; i < levels; i++) {
        add_stage(&c, i < near ? &net->near : &net->far, i >= near, 1, partial_bytes);
        add_stage(&c, i < near ? &net->near : &net->far, i >= near, 1, bytes);
    }
    return c.first;
}

static double seconds_of_whole(const struct way_net *net, double bytes) {
    struct cost c = {0, 0, 0, 0};
    add_stage(&c, &net->far, true, net->ranks - 1, bytes);
    return c.first;
}

/* ---- the choice */

struct way way_direct(int ranks, int element_bytes) {
    int64_t part = PARTS_BYTES / ranks;
    part = part < SMALLEST_PART ? SMALLEST_PART : part > LARGEST_PART ? LARGEST_PART : part;
    return (struct way){WAY_STAGES, 1, {ranks}, part / element_bytes * ranks};
}

/* Appends radices whose product is `ranks`, all but the last 2^bits. */
static void split(struct way *w, int ranks, int bits) {
    for (; ranks % 2 == 0 && ranks > 1 << bits && w->stages < MOST_STAGES - 1;) {
        int radix = 1;
        for (int b = 0; b < bits && ranks % 2 == 0; b++, ranks /= 2)
            radix *= 2;
        w->radix[w->stages++] = radix;
    }
    if (ranks > 1)
        w->radix[w->stages++] = ranks;
}

static void consider(const struct way_net *net, int64_t elements, int element_bytes, int partial_bytes,
                     const struct way *w, struct way *best, double *least) {
    const double seconds = seconds_of_stages(net, w, elements, element_bytes, partial_bytes) * STAGES_WORSE;
    if (seconds < *least) {
        *least = seconds;
        *best = *w;
    }
}

struct way way_choose(const struct way_net *net, int64_t elements, int element_bytes, int partial_bytes) {
    const double bytes = (double)elements * element_bytes;
    const int inside = net->node_ranks ? net->node_ranks : 1, nodes = net->ranks / inside;
    struct way best = way_direct(net->ranks, element_bytes);
    double least = seconds_of_stages(net, &best, elements, element_bytes, partial_bytes);
    for (int bits = 1; bits == 1 || 1 << (bits - 1) < inside; bits++) {
        for (int across = 1; across == 1 || 1 << (across - 1) < nodes; across++) {
            struct way w = {WAY_STAGES, 0, {0}, 0};
            if (inside > 1)
                split(&w, inside, bits);
            split(&w, nodes, across);
            if (w.stages < 2)
                continue;
            for (int chunks = 1; chunks <= MOST_CHUNKS; chunks *= 2) {
                const int64_t each = (elements + chunks - 1) / chunks;
                w.chunk_elements = each > LARGEST_CHUNK / partial_bytes ? LARGEST_CHUNK / partial_bytes : each;
                if (chunks > 1 && each < net->ranks)
                    break;
                consider(net, elements, element_bytes, partial_bytes, &w, &best, &least);
            }
        }
    }
    const double tree = seconds_of_tree(net, bytes, (double)elements * partial_bytes);
    if (tree < least) {
        least = tree;
        best = (struct way){.kind = WAY_TREE};
    }
    if (bytes <= FRAME && seconds_of_whole(net, bytes) <= least)
        best = (struct way){WAY_WHOLE, 1, {net->ranks}, elements};
    return best;
}
