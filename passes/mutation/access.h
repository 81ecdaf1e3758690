/* The elements of a value that an operation reads or writes, as integer sets, and what can be proven about two of them. */
#ifndef MXCC_PASSES_MUTATION_ACCESS_H
#define MXCC_PASSES_MUTATION_ACCESS_H

#include "ir/ir.h"

/* The elements at[0 .. rank of value) for all iterations of the nest `op`; at NULL: all elements. */
struct access {
    const struct ir_op *op;
    const struct ir_value *value;
    const ir_expr *at;
};

/* Whether no read meets an element that an earlier execution of the write has written: both stand within `home`, at any depth, and belong to
 * one execution of it. Writes of later iterations, and of later operations of the same one, do not count. */
bool access_spares(struct access write, struct access read, const struct ir_region *home);

/* Whether no element is in both. Both operations run inside one execution of the region `common`; with `carried` that is
 * the body of a loop and b's execution belongs to a later iteration than a's. */
bool access_disjoint(struct access a, struct access b, const struct ir_region *common, bool carried);
/* Whether every element of b is in a, both in one execution of `common`. */
bool access_covers(struct access a, struct access b, const struct ir_region *common);
/* For two accesses of one nest: whether no iteration's element of a is another iteration's of b. Iterations differ in their
 * parallel indices. */
bool access_iterations_apart(struct access a, struct access b);

/* Whether the boolean expression over the nest's operands and indices holds in every iteration of it, whenever it runs: by
 * the bounds of indices and of the loops around it, and the conditions of the branches it stands in. */
bool access_always(const struct ir_op *nest, ir_expr condition);
/* Whether the rank 0 integer lies in [lo, hi] whenever op, which uses it, runs. */
bool access_within(const struct ir_op *op, const struct ir_value *v, int64_t lo, int64_t hi);

#endif
