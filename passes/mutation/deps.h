/* The exact dependences between the operations of a planned function, and what each depends on from outside. */
#ifndef MXCC_PASSES_MUTATION_DEPS_H
#define MXCC_PASSES_MUTATION_DEPS_H

#include "passes/passes.h"

enum dep_kind { DEP_RAW, DEP_WAR, DEP_WAW }; /* read after write, write after read, write after write */
extern const char *const dep_kind_names[3];

/* Operations are numbered in preorder: one with regions stands before what is in them. */
struct dep_op {
    struct ir_op *op;
    int holder; /* the operation in whose region it stands; -1: the function's body */
    int end;    /* operations [own number + 1, end) stand inside it */
};

/* `to` must run after `from`. Both stand in one region, or in the two regions of one `while`; an access inside a nested region counts for the
 * operation that holds it. carried: `from` of one iteration of the loop around them before `to` of a later one. */
struct dep {
    int from, to;
    enum dep_kind kind;
    bool carried;
    const struct storage *storage; /* NULL: a check's token, a symbol, or the order of outside effects */
    /* RAW, WAR: the version read; WAW: the version written over. NULL for symbols and effects. */
    const struct ir_value *value;
    const struct ir_symbol *symbol;
};

/* What may differ between two calls of the function. */
enum dep_source_kind { SOURCE_ARG, SOURCE_SYMBOL, SOURCE_BUFFER, SOURCE_RANDOM };
struct dep_source {
    enum dep_source_kind kind;
    int index;                      /* ARG: which argument; SYMBOL: in func->symbols */
    const struct ir_buffer *buffer; /* BUFFER: as it is at entry */
    const char *name;
};

struct deps {
    const struct plan_func *plan;
    struct dep_op *ops;
    int op_count;
    struct dep *edges; /* by `to`, then `from` */
    int edge_count;
    struct dep_source *sources; /* arguments, symbols, buffers read, the random state if anything is drawn */
    int source_count;
    uint64_t *affected; /* private: [op_count][words] */
    int words;
};

/* Of the final order, after pass_mutation. Lives in the arena. */
struct deps *deps_new(const struct plan_func *p, struct arena *a);
/* Whether a change of the source may change what the operation computes, or whether it runs: the operations to run again. */
bool deps_affected(const struct deps *d, int source, int op);

/* Whether the dependences order every two operations that share an element of memory: recomputed from scratch, pair by pair.
 * False with a message appended to `why`. */
bool deps_check(const struct deps *d, struct text *why);

#endif
