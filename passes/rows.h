/* How the nests of a `rows` operation lie over its rows: shared by the pass that makes it, the proof that it may work in place and
 * its lowering. */
#ifndef MXCC_PASSES_ROWS_H
#define MXCC_PASSES_ROWS_H

#include "ir/ir.h"

enum { ROWS_MAX_INDICES = 24, ROWS_MAX_MEMBERS = 16 };

/* A nest of the operation: its parallel index for each of the indices that number the rows. Such a nest has either a number for each
 * row (its parallel indices are the rows'), perhaps reduced over the row, or an element for each place of the row. */
struct rows_member {
    struct ir_op *op;
    int rows, of[ROWS_MAX_INDICES];
};

/* Fills in member->of for member->op, behind the given ones in order; false if what it loads of theirs is not its own row's, element
 * by element. */
bool rows_match(const struct rows_member *members, int count, struct rows_member *member);
/* The members of a `rows` operation; how many. */
int rows_members(const struct ir_op *op, struct rows_member *members);
bool rows_has_number(const struct rows_member *m); /* one for each row, no elements */
/* The indices that number the elements of a member's row: of its reduction, or the parallel ones that are no rows'. */
int rows_elements(const struct rows_member *m, int *list);
/* Which of the rows' indices a parallel index is; -1: none. */
int rows_index(const struct rows_member *m, int par);

#endif
