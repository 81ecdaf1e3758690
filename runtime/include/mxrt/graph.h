/* Graphs that run again only where something changed, on the engine. A node is an operation registered once, with what
 * it reads and writes; nodes have an order. After each run, every variable is as if all nodes had run in that order,
 * but only those affected by a change have: of a variable touched, of the graph itself, or of what another node wrote.
 * Nodes may be added, removed and rewired between runs; that costs what changes, whatever the size of the graph.
 *
 * A graph is used by one thread at a time; its nodes run in parallel. A node's function must follow from what it reads
 * alone: the same values in, the same values out. */
#ifndef MXRT_GRAPH_H
#define MXRT_GRAPH_H

#include "mxrt/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mxrt_graph;
struct mxrt_node;

mx_status mxrt_graph_create(struct mxrt_engine *e, struct mxrt_graph **g, struct mxrt_why *why);
void mxrt_graph_destroy(struct mxrt_graph *g); /* removes all nodes; before the engine. NULL is allowed */

/* A node before another one of the order, or, for NULL, at its end. `op` has `run`; name, lane, priority and context as
 * for the engine; `release` is called when the node is removed. What stands among the writes alone is overwritten; what
 * stands among both is updated in place. */
mx_status mxrt_graph_add(struct mxrt_graph *g, const struct mxrt_op *op, struct mxrt_node *before,
                         struct mxrt_node **node, struct mxrt_why *why);
void mxrt_graph_remove(struct mxrt_graph *g, struct mxrt_node *node);
/* Other reads and writes for the node, at its old place; an error leaves it as it was. */
mx_status mxrt_graph_rewire(struct mxrt_graph *g, struct mxrt_node *node, const struct mxrt_var *reads, int read_count,
                            const struct mxrt_var *writes, int write_count, struct mxrt_why *why);

/* The value of v has been changed from outside. Of a variable that no node knows: nothing. */
void mxrt_graph_touch(struct mxrt_graph *g, struct mxrt_var v);
/* Runs what is affected and waits for it; `ran` (may be NULL): how many nodes. After an error, which is the first in the
 * order, the nodes that failed, and those skipped because of it, are still to run. */
mx_status mxrt_graph_run(struct mxrt_graph *g, int64_t *ran, struct mxrt_why *why);
int64_t mxrt_graph_size(const struct mxrt_graph *g); /* nodes */

#ifdef __cplusplus
}
#endif
#endif
