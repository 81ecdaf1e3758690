/* The memory plan in words, for `mxcc report` and `--explain copies`. */
#ifndef MXCC_PASSES_MEMPLAN_REPORT_H
#define MXCC_PASSES_MEMPLAN_REPORT_H

#include "passes/passes.h"

/* For each function: bytes reached, the lower bound, "optimal" or the gap, what is alive at the peak, copies and why. */
void plan_report(struct text *out, const struct plan *p);
/* The copies alone. */
void plan_report_copies(struct text *out, const struct plan *p);

#endif
