/* Which state may leave the device's memory, and which does. */
#ifndef MXCC_CODEGEN_CUDA_OFFLOAD_H
#define MXCC_CODEGEN_CUDA_OFFLOAD_H

#include "passes/passes.h"

/* [buffer_count], in the module's arena. Of the module before or behind the passes. */
bool *offload_candidates(struct ir_module *m);
int64_t offload_bytes(const struct ir_module *m, const bool *which); /* of the device's memory; NULL: 0 */
/* Of the candidates, at least so many bytes if there are. */
bool *offload_choose(struct ir_module *m, const bool *candidates, int64_t needed);
/* layout.c: what the module takes on the device beside the arena, before there is a plan; and in all, with one. */
int64_t cuda_fixed_bytes(struct ir_module *m, const struct compile_options *o);
int64_t cuda_device_bytes(struct ir_module *m, struct plan *p, const struct compile_options *o);

#endif
