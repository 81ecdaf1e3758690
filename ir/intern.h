/* Interning and memo tables of the IR; private to ir/.
 *
 * A key is a short array of words that describes an item's structure by the ids or addresses of its (interned)
 * parts, so that equal structure means equal words. */
#ifndef MXCC_IR_INTERN_H
#define MXCC_IR_INTERN_H

#include "ir/ir.h"

struct intern_entry;
struct ir_interner {
    struct intern_entry *dims, *atoms, *exprs; /* uthash heads */
    int dim_count, atom_count, expr_count;
};

/* The item stored under the key, or NULL. */
const void *intern_find(struct intern_entry *table, const int64_t *key, int words);
/* Stores an item under a key that is not there yet; the key is copied to the arena. */
void intern_add(struct arena *a, struct intern_entry **table, const int64_t *key, int words, const void *item);
void intern_free(struct ir_interner *i);

/* A map from ids to pointers, for traversals that touch few of a module's nodes: open addressing, the first entries without an
 * allocation, since most expressions are small. Start zeroed; values are not NULL. */
enum { MEMO_FIRST = 32 };
struct memo_entry {
    int id;
    const void *value; /* NULL: free */
};
struct memo {
    struct memo_entry *more; /* [capacity], once `first` was not enough */
    int count, capacity;
    struct memo_entry first[MEMO_FIRST];
    struct arena arena;
};
const void *memo_get(const struct memo *m, int id); /* NULL: absent */
void memo_set(struct memo *m, int id, const void *value);
void memo_free(struct memo *m);

/* The distinct nodes under e that are not in `done`, children first; *n of them, to be freed. */
ir_expr *expr_postorder(ir_expr e, const struct memo *done, int *n);

#endif
