/* See late.h. */
#include "passes/memplan/late.h"

#include "passes/gpu.h"
#include "passes/nest_edit.h"

enum { FEW_ELEMENTS = 1 << 18, FEW_TERMS = 1 << 20 }; /* a microsecond's work on a large GPU */

int *plan_inner_uses(struct ir_func *f, struct arena *scratch) {
    int *uses = ir_count_uses(f, scratch);
    for (const struct ir_op *op = f->body->first; op; op = op->next)
        if (op->code == OP_write)
            uses[op->operands[0]->id]--;
    for (int i = 0; i < f->body->yield_count; i++)
        uses[f->body->yields[i]->id]--;
    return uses;
}

bool plan_is_late(struct ir_op *op, const int *inner_uses) {
    double elements = 1, terms = 1;
    if (op->code != OP_nest || op->parent->op || !op->result_count || nest_is_contraction(op))
        return false;
    for (int i = 0; i < op->nest.pars + op->nest.reds; i++) {
        double n = (double)ir_dim_upper(op->nest.indices[i].extent);
        elements *= i < op->nest.pars ? n : 1;
        terms *= n;
    }
    for (int i = 0; i < op->result_count; i++)
        if (inner_uses[op->results[i]->id])
            return false;
    if (elements > FEW_ELEMENTS || terms > FEW_TERMS)
        return false;
    if (!op->nest.reds)
        return true;
    enum gpu_schedule s = gpu_reduction_schedule(op->parent->func->module, op);
    return s != GPU_IN_PARTS && s != GPU_IN_PARTS_BY_BLOCKS;
}
