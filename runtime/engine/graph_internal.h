/* What the files of the graph layer share. */
#ifndef RUNTIME_ENGINE_GRAPH_INTERNAL_H
#define RUNTIME_ENGINE_GRAPH_INTERNAL_H

#include "mxrt/graph.h"

/* One node's access to one variable, in that variable's tree. */
struct link {
    struct mxrt_node *node;
    struct place *place;
    struct link *left, *right, *up;
    uint32_t weight; /* the heap order of the treap */
    bool read, write;
    bool writer_below; /* it, or one under it, writes */
};

/* A run by a plan, as others see it. */
struct gate {
    struct op *op; /* while it is under way; under `push` */
    uint64_t plan; /* which plan of the graph's */
};

/* A variable, as the graph knows it. */
struct place {
    struct mxrt_var var;
    struct link *root;
    int64_t writers;     /* in the tree */
    struct link *holder; /* the write whose value the variable has now; NULL: none of this graph's */
    struct place *next;  /* in the hash table */
    int64_t links;       /* to it, also of a node being wired */
    bool touched;        /* it is in graph->touched */
    /* graph_plan.c */
    bool written;                  /* by nodes of the plan */
    uint32_t last_writer, readers; /* while one is made */
    uint64_t plan;                 /* the last one with accesses to it */
    struct gate *gate;
    struct variable *variable; /* NULL: of no plan yet */
};

/* RESTORE: only to put back a value that was overwritten since. */
enum mark { CLEAN, RESTORE, CHANGED };

struct mxrt_node {
    uint64_t label; /* grows along the order */
    struct mxrt_node *previous, *next;
    mxrt_op_fn *run;
    void *context;
    void (*release)(void *context);
    struct mxrt_op op; /* for the engine; its lists are one block with `links` */
    struct link *links;
    int link_count;
    enum mark mark;
    int64_t listed; /* its place in graph->marked, or -1 */
    bool ran;
};

struct order {
    struct mxrt_node *first, *last;
};

/* graph_plan.c. NULL: there is no memory, or the nodes want what plans do not do. `node` in their order. */
struct plan;
struct latch;
struct plan *plan_make(struct mxrt_engine *e, struct gate *gate, struct mxrt_node **node, int64_t count);
void plan_drop(struct plan *p); /* NULL is allowed */
/* Runs all and waits for it. False: nothing was done, as the engine is busy, stopped, or has an error at large. */
bool plan_run(struct plan *p, struct latch *latch);
int64_t plan_nodes(const struct plan *p);
bool plan_complete(const struct plan *p);                  /* all of the last run's nodes ran and none failed */
void plan_tell(struct plan *p);                            /* sets their `ran` */
void plan_release(struct mxrt_engine *e, struct place *x); /* before x is freed */

/* The order of nodes. */
void order_insert(struct order *o, struct mxrt_node *n, struct mxrt_node *before);
void order_remove(struct order *o, struct mxrt_node *n);

/* The accesses of a variable, in the order of nodes. */
void tree_insert(struct place *p, struct link *l, uint32_t weight);
void tree_remove(struct place *p, struct link *l);
struct link *tree_first(const struct place *p);
struct link *tree_next(const struct link *l);
struct link *tree_writer_after(const struct link *l);
struct link *tree_writer_before(const struct link *l);
struct link *tree_last_writer(const struct place *p);

#endif
