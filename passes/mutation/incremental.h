/* What of an incremental function runs again after a change: see incremental.c. */
#ifndef MXCC_PASSES_MUTATION_INCREMENTAL_H
#define MXCC_PASSES_MUTATION_INCREMENTAL_H

#include "passes/passes.h"

/* For fusion: set[value id] of the values that f's body makes itself; equal numbers: what they are computed from changes
 * together. All buffers that the same functions of the module write count as one. */
int *incremental_dirty_sets(struct ir_func *f, struct arena *a);

/* The partition of f's operations, and group[value id] of all values that are there. */
struct plan_incremental *incremental_partition(struct ir_func *f, struct arena *keep);

/* kept[value id]: made in one group and read outside of it, so that it must outlive the call. Views are named by what they
 * are views of. */
bool *incremental_kept(const struct ir_func *f, const int *group, struct arena *a);

/* Gives each input and each CACHE storage its place in the function's cache, and sets p->cache_bytes. */
void incremental_place(struct plan_func *p, struct arena *keep);

/* Lines of `mxcc report`; nothing for an ordinary function. `bytes` prints a number of them. */
void incremental_report(struct text *out, const struct plan_func *p, void (*bytes)(struct text *out, int64_t n));

/* The same for `mxcc report --json`, an object; null for an ordinary function. */
void incremental_report_json(struct text *out, const struct plan_func *p);

/* The check of the whole, written apart: false with a message. plan_validate calls it. */
bool incremental_validate(const struct plan_func *p, struct text *why);

#endif
