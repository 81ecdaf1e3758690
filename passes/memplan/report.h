/* The memory plan for readers: `mxcc report` and `--explain copies`. */
#ifndef MXCC_PASSES_MEMPLAN_REPORT_H
#define MXCC_PASSES_MEMPLAN_REPORT_H

#include "passes/passes.h"

/* What is alive where most is, the largest first: `live` has room for all storages. Their number, and the position. */
int plan_at_peak(const struct plan_func *p, struct storage **live, int *position);
/* The copies and why, function by function. */
void plan_report_copies(struct text *out, const struct plan *p);
/* report_html.c: the plan as one self-contained page. precision: its name, NULL where all is f32. */
void plan_report_html(struct text *out, const struct ir_module *m, const struct plan *plan, const char *precision);

/* "12.5 MiB" */
void plan_bytes(struct text *out, int64_t n);
/* What one run of an operation moves and computes, at the largest dimensions: each element that it reads or writes once. False for those that do
 * neither: control flow, and views of memory that is there. */
bool plan_op_cost(const struct ir_op *op, int64_t *bytes, int64_t *flops);
/* Of the bytes, those of a value as operand and as result. */
double plan_op_traffic(const struct ir_op *op, const struct ir_value *v);

#endif
