/* Operations that may wait until the function's end: nothing of it needs what they make, but buffers and results at exit. */
#ifndef MXCC_PASSES_MEMPLAN_LATE_H
#define MXCC_PASSES_MEMPLAN_LATE_H

#include "ir/ir.h"

/* Uses of each value, but those at exit: by operations that write buffers, and the function's yields. */
int *plan_inner_uses(struct ir_func *f, struct arena *scratch);
/* Whether it is such a nest, of few elements and of one kernel of a GPU: then launching it costs more than what it does, and others like
 * it may share its launch. */
bool plan_is_late(struct ir_op *op, const int *inner_uses);

#endif
