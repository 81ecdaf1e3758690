/* Whether what follows a sum is GELU by the formula with tanh, or its gradient, as libraries have them in their epilogues. */
#ifndef MXCC_CODEGEN_KERNELS_GELU_H
#define MXCC_CODEGEN_KERNELS_GELU_H

#include "passes/lower.h"

/* gelu(sum + bias); bias: a load, or NULL. */
bool is_gelu(struct lower *l, ir_expr e, ir_expr bias);
/* sum * gelu'(at), at: a load. Other loads may stand in e where they are functions of the same element. */
bool is_gelu_gradient(struct lower *l, ir_expr e, ir_expr at);

#endif
