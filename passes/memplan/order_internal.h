/* What the parts of ordering share: one region's operations, the edges that bind them, and the memory they take. */
#ifndef MXCC_PASSES_MEMPLAN_ORDER_INTERNAL_H
#define MXCC_PASSES_MEMPLAN_ORDER_INTERNAL_H

#include "passes/passes.h"

/* Values that follow one another in one piece of memory (reshapes, versions of an update, what a loop carries) have a common
 * home, the first of them; its memory is taken when that is made and given back after the last operation that touches it. */
struct order_node {
    struct ir_op *op;
    VEC(int) next, before; /* edges */
    VEC(int) reads;        /* roots of values that it reads, each once: a reshape's is its operand's */
    VEC(int) touches;      /* homes with memory that it reads or writes, each once */
    VEC(int) makes;        /* homes with memory that begin here */
    VEC(int) over;         /* pairs: a home made here and a touched one of the same size whose place it may take */
    int64_t workspace;
    int64_t inner, inner_bound; /* peak within its regions: reached, and proven to be needed */
    bool branch;                /* an `if`: its result is already counted within */
    bool writer;                /* writes a buffer or inout argument in place, we hope */
    bool late;                  /* a write operation, which says what a buffer holds at exit: these stand at the end */
};

struct order {
    struct ir_func *func;
    struct ir_region *region;
    struct arena *arena;
    struct order_node *nodes;
    int n;
    int64_t *bytes; /* [value_count] of homes */
    int *uses;      /* [value_count] of homes: nodes that touch it, and one more if it outlives the region */
    bool quick;     /* no bound and no search: the best of the schedules */
    int64_t bound;  /* no order's peak is lower */
    int64_t steps;  /* left for the search */
};

/* order_graph.c: the nodes of a region and their edges. */
void order_build(struct order *o, struct pass_context *c);

/* order_schedule.c. Fills in the best order found, [n] node numbers, and returns its peak; *method names how it was found. */
int64_t order_schedule(struct order *o, int *best, const char **method);

/* order_search.c: an order with a peak of at most `limit`, by search of all if need be. */
enum order_found { ORDER_FOUND, ORDER_IMPOSSIBLE, ORDER_GIVEN_UP };
/* On ORDER_IMPOSSIBLE, *next is the lowest peak that may still be possible. */
enum order_found order_search(struct order *o, int64_t limit, int64_t steps, int *out, int64_t *next);

/* Memory while a region's operations run one by one. */
struct order_memory {
    const struct order *o;
    int *left; /* of homes: touches to come */
    int64_t live;
};
void order_memory_init(struct order_memory *m, const struct order *o);
int64_t order_growth(const struct order_memory *m, const struct order_node *x); /* of what is live, by running x */
int64_t order_during(const struct order_memory *m, const struct order_node *x); /* what is live while x runs */
void order_run(struct order_memory *m, const struct order_node *x);
void order_unrun(struct order_memory *m, const struct order_node *x);

#endif
