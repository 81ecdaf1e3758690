#include "passes/lower.h"
bool takes_gpu_attention(const struct ir_op *op) { return false; }
void lower_gpu_attention(struct lower *l) {}
bool takes_gpu_attention_gradient(const struct ir_op *op) { return false; }
void lower_gpu_attention_gradient(struct lower *l) {}
