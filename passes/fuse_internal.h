/* What the files of the fusion pass share. */
#ifndef MXCC_PASSES_FUSE_INTERNAL_H
#define MXCC_PASSES_FUSE_INTERNAL_H

#include "ir/ir.h"

enum {
    FUSE_MAX_SIZE = 600, /* expression nodes of a fused nest */
    FUSE_MAX_OPERANDS = 24,
    FUSE_MAX_RESULTS = 8,
    FUSE_MAX_RANK = 24,
};

struct fuse_users {
    VEC(struct ir_op *) ops;
};

struct fuse_numbered {
    const struct ir_op *op;
    int order;
};

struct fuse {
    struct ir_module *module;
    struct ir_func *func;
    struct arena arena;
    int *order;               /* [value_count]: order of the operation that makes it; -1: an argument */
    struct fuse_users *users; /* [value_count]; may hold removed operations and repeat */
    int *yielded;             /* [value_count]: times a region yields it */
    int *root;                /* [value_count]: through reshapes */
    int *writer; /* [value_count] of roots: order of the first operation that makes its next version; INT32_MAX: none */
    int count;   /* operations numbered */
    int *dirty;  /* [value_count] in an incremental function: its set (incremental.h); else NULL */
    VEC(struct fuse_numbered) bare; /* operations without results, sorted by address for look-up */
    bool changed;
};

/* ---- fuse_graph.c: who makes, reads and overwrites what ---- */

/* Numbers the operations of f->func, whose scalars have been hoisted. */
void fuse_number(struct fuse *f);
/* Operations have no number of their own: a result's tells it, or a table where there is none. */
int fuse_order_of(const struct fuse *f, const struct ir_op *op);
/* op has new operands. */
void fuse_refresh(struct fuse *f, struct ir_op *op);
static inline bool fuse_alive(const struct ir_op *op) {
    return op->parent != NULL;
}
/* Whether op, or the end of one of its regions, still names v. */
bool fuse_names(const struct ir_op *op, const struct ir_value *v);
bool fuse_only_user(const struct fuse *f, const struct ir_value *v, const struct ir_op *op);
bool fuse_unused(const struct fuse *f, const struct ir_value *v);
/* The first order after which someone else than the two reads v; INT32_MAX: nobody. */
int fuse_first_other_use(const struct fuse *f, const struct ir_value *v, const struct ir_op *a, const struct ir_op *b);
/* Moving op's reads from their place to `later` must not pass the operation that overwrites what they read. */
bool fuse_reads_may_sink(const struct fuse *f, const struct ir_op *op, int later, const struct ir_op *into);
/* If op makes a next version of something, others must have read the old one before `earliest`. */
bool fuse_writes_may_move(const struct fuse *f, const struct ir_op *op, int earliest, const struct ir_op *with);
/* Whether the same changes make both run again: always where nothing is skipped. */
bool fuse_same_dirty_set(const struct fuse *f, const struct ir_op *a, const struct ir_op *b);
/* Whether what op overwrites, as the next version of an operand, can still be overwritten in place. The versions are those
 * made at order `at` or `other`: of the nests it is joined from. */
bool fuse_updates_in_place(const struct fuse *f, const struct ir_op *op, int at, int other);
/* Whether op may stand at an earlier order: everything it needs is there by then. */
bool fuse_may_hoist(const struct fuse *f, const struct ir_op *op, int to, const struct ir_op *with);
/* For nest_walk: sets the bool at context if e names a size made at run time. */
void fuse_see_dim(ir_expr e, void *context);

/* ---- fuse_join.c: two nests into one operation ---- */

bool fuse_same_extents(const struct ir_nest *a, const struct ir_nest *b);

/* Everything of an operation that fusion changes, to take a step back. */
struct fuse_snapshot {
    struct ir_nest nest;
    struct ir_value **operands, **results;
    int operand_count, result_count;
};
struct fuse_snapshot fuse_save(const struct ir_op *op);
void fuse_restore(struct ir_op *op, const struct fuse_snapshot *s);

struct fuse_loads {
    int slot;
    int count;                   /* distinct loads */
    bool guarded, in_acc, plain; /* plain: every load is at the parallel indices */
    int rank;
    const ir_dim *dims;
};
struct fuse_loads fuse_scan_loads(const struct ir_op *op, int slot);

/* Appends p's accumulators and the results that `keep` names to op, whose indices agree. op must not reduce unless its reductions
 * are p's. Slots of p's operands in op are given. */
void fuse_append(struct fuse *f, struct ir_op *op, struct ir_op *p, const int *slots, bool p_first, const bool *keep);
/* The joined operation, of orders `before` and `other`, takes over its values and place; the other goes. */
void fuse_settle(struct fuse *f, struct ir_op *op, int before, struct ir_op *gone, int other, int order,
                 struct ir_op *place);

/* ---- the steps: each returns true when it changed something ---- */

bool fuse_inline_slot(struct fuse *f, struct ir_op *op, int slot);   /* fuse_inline.c */
bool fuse_join_producer(struct fuse *f, struct ir_op *op, int slot); /* fuse_join.c */
void fuse_siblings(struct fuse *f, struct ir_region *r);             /* fuse_siblings.c */

#endif
