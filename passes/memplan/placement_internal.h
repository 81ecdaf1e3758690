/* What the parts of placement share: the items cut into sections of time, and the exact search. */
#ifndef MXCC_PASSES_MEMPLAN_PLACEMENT_INTERNAL_H
#define MXCC_PASSES_MEMPLAN_PLACEMENT_INTERNAL_H

#include <stdbool.h>

#include "base/arena.h"
#include "passes/memplan/placement.h"

/* Items with a size and a lifetime, numbered anew. A section is a set of items alive at one time that no other such set
 * contains; sections are numbered in order of time, and an item is alive in the consecutive ones [first, last). */
struct problem {
    struct arena *arena;
    int n, sections;
    int64_t *size; /* rounded up to the alignment */
    double *width; /* of the lifetime */
    int *first, *last;
    int **meets, *meet_count; /* items whose lifetime meets this one's */
    int64_t steps;            /* spent so far */
};

enum placement_found { PLACEMENT_FOUND, PLACEMENT_IMPOSSIBLE, PLACEMENT_GIVEN_UP };

/* placement_search.c: whether everything fits `capacity`; offset [n] is filled in if so. At most `steps` are spent. */
enum placement_found placement_search(struct problem *p, int64_t capacity, int64_t steps, int64_t *offset);

#endif
