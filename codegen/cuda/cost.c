/* What each launch moves and computes, for `mxcc report`. An operation's arithmetic belongs to its first kernel; bytes belong to the kernel
 * that touches the memory: of the operation's values, what plan_op_traffic says; of its workspace and of copies, all. A cache is not
 * modelled: every element counts once for each kernel, which is the least that it moves when values are larger than the cache.
 */
#include "codegen/cuda/cuda.h"
#include "passes/memplan/report.h"

static double bytes_of(struct function *f, const struct ir_op *op, const struct loop_mem *m) {
    const struct storage *s = NULL;
    double moved = 0;
    for (int i = 0; i < f->mems.n; i++)
        if (f->mems.at[i].mem == m)
            s = f->mems.at[i].storage;
    if (!s)
        return op == f->op ? (double)m->count * dtype_size(m->dtype) : 0;
    for (int i = 0; op && i < op->operand_count; i++) {
        bool seen = false;
        for (int k = 0; k < i; k++)
            seen |= op->operands[k] == op->operands[i];
        if (!seen && op->operands[i]->type.dtype == m->dtype && function_storage(f, op->operands[i]) == s)
            moved += plan_op_traffic(op, op->operands[i]);
    }
    for (int i = 0; op && i < op->result_count; i++)
        if (op->results[i]->type.dtype == m->dtype && function_storage(f, op->results[i]) == s)
            moved += plan_op_traffic(op, op->results[i]);
    return moved > 0 || f->together ? moved : (double)s->bytes;
}

static void find_type(ir_expr e, void *context) {
    enum dtype *found = context;
    if (e->kind == X_LOAD && dtype_is_float(e->dtype) && *found == BOOL)
        *found = e->dtype;
}

void cuda_note_launch(struct function *f, const char *name, const struct cgen_captures *c) {
    struct cuda *d = f->g->cuda;
    struct arena *a = &f->g->module->arena;
    const struct ir_op *op = f->op;
    bool first = !d->launches.n || d->launches.at[d->launches.n - 1].op != op;
    struct plan_kernel k = {.name = arena_strdup(a, name), .op = op, .launches = f->repeat, .type = BOOL};
    int count = f->together ? f->together->count : 1;
    if (op && op->code == OP_nest && op->nest.acc_count) {
        const struct ir_acc *acc = &op->nest.accs[0];
        k.is_product =
            op->nest.acc_count == 1 && acc->op == RED_SUM && acc->body->kind == X_FN && acc->body->fn == FN_mul;
        ir_expr_walk(acc->body, find_type, &k.type);
    }
    if (k.type == BOOL && op && op->result_count)
        k.type = op->results[0]->type.dtype;
    for (int i = 0; i < count; i++) {
        const struct ir_op *x = f->together ? f->together->ops[i] : op;
        int64_t bytes, flops;
        for (int q = 0; q < c->mems.n; q++)
            k.bytes += bytes_of(f, x, c->mems.at[q]);
        if (first && x && plan_op_cost(x, &bytes, &flops))
            k.flops += (double)flops;
    }
    VEC_PUSH(a, d->launches, k);
}

void cuda_keep_launches(struct function *f) {
    struct cuda *d = f->g->cuda;
    f->plan->kernels = d->launches.at;
    f->plan->kernel_count = d->launches.n;
    d->launches.at = NULL;
    d->launches.n = d->launches.cap = 0;
}
