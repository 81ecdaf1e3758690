/* Which way an all-reduce goes. Private to the net; of numbers alone, so that tests and tools/scaling can ask it, too. */
#ifndef RUNTIME_NET_WAY_H
#define RUNTIME_NET_WAY_H

#include <stdbool.h>
#include <stdint.h>

enum { MOST_STAGES = 16 /* 65535 ranks, halved */ };

enum way_kind {
    WAY_WHOLE, /* everyone sends everything to everyone and adds for itself: one step */
    WAY_TREE,  /* up and down a binomial tree (tree.c) */
    WAY_STAGES /* parts of parts, and back (stages.c) */
};

struct way {
    enum way_kind kind;
    int stages, radix[MOST_STAGES]; /* their product is the number of ranks */
    int64_t chunk_elements;
};

/* Seconds of an empty message one way, bytes a second, and seconds of a rank's thread for a message at each end. */
struct way_link {
    double latency, bandwidth, message;
};

struct way_net {
    int ranks, node_ranks; /* of a node; 0: nodes are of no use, or unknown */
    struct way_link near, far;
};

/* Ranks of a node, if the sum over all ranks has a node of its tree for each of them: nodes are neighbours, of equal size, a power of
 * two, and more than one. Else 0. nodes[i]: any number that ranks of one node have alike. */
int way_node_ranks(const int *nodes, int ranks);
int way_node_ranks_of(int each, int ranks); /* of nodes with so many each */
/* The fastest by a model of what it costs. The same on all ranks for the same arguments. */
struct way way_choose(const struct way_net *net, int64_t elements, int element_bytes, int partial_bytes);
struct way way_direct(int ranks, int element_bytes); /* one stage */
int way_digest(const struct way *w);                 /* 16 bits */

#endif
