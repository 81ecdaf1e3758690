/* Placement alone (`mxcc plan`): offsets for intervals in one arena, so that the height reached is small. */
#ifndef MXCC_PASSES_MEMPLAN_PLACEMENT_H
#define MXCC_PASSES_MEMPLAN_PLACEMENT_H

#include <stdbool.h>
#include <stdint.h>

/* Needs `size` bytes during [lower, upper). Items whose lifetimes meet may not overlap. */
struct placement_item {
    int64_t lower, upper, size, offset;
};

struct placement_result {
    int64_t height; /* reached: largest offset + size */
    int64_t bound;  /* no placement is lower: the largest sum of sizes alive at once, or more where search proved it */
};

/* Effort is counted in steps of the search, never by the clock, so that the same items give the same offsets everywhere.
 * A second of a machine of 2023 is about this many. */
#define PLACEMENT_STEPS_PER_SECOND INT64_C(200000000)

/* Fills in offsets, multiples of `align`. capacity 0: none; the search ends when the height is within the capacity or is
 * the bound, else when `steps` are spent. */
struct placement_result placement_solve(struct placement_item *items, int n, int64_t align, int64_t capacity,
                                        int64_t steps);
/* The largest sum of sizes alive at one time. */
int64_t placement_load(const struct placement_item *items, int n);
/* placement_check.c, which shares nothing with the planner: whether no two items alive together overlap and offsets are
 * multiples of `align`. If not, *one and *other are items that show it; the same one twice if its offset is wrong by itself. */
bool placement_check(const struct placement_item *items, int n, int64_t align, int *one, int *other);

#endif
