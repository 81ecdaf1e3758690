/* Updates of buffers right behind the last use of what they overwrite. */
#ifndef MXCC_PASSES_MUTATION_UPDATES_H
#define MXCC_PASSES_MUTATION_UPDATES_H

#include "ir/ir.h"

/* Moves each operation that makes nothing but final versions of buffers and inout arguments as far up as its operands, the
 * readers of the old versions and the checks before it allow. */
void updates_early(struct ir_func *f);

#endif
