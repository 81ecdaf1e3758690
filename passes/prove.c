/* Checks and run-time sizes that can never fail. The index algebra of simplify knows the bounds of a nest's own indices; here the counters of the
 * loops around it, the conditions of branches and dimensions found at run time count, too, as integer sets (the Omega test,
 * passes/mutation/integer_set.c). A check that is gone costs no time, and no copy of what is written before it.
 */
#include "passes/mutation/access.h"
#include "passes/passes.h"
#include "passes/simplify_internal.h"

/* A condition: rank 0, or `all` of one over the indices of a reduction. */
static bool proven(const struct ir_value *v) {
    const struct ir_op *op = v->op;
    if (!op || op->code != OP_nest || op->nest.pars || op->nest.results[v->index].base >= 0)
        return false;
    ir_expr e = op->nest.results[v->index].value;
    if (op->nest.reds && (e->kind != X_ACC || op->nest.accs[e->index].op != RED_ALL))
        return false;
    return access_always(op, op->nest.reds ? op->nest.accs[e->index].body : e);
}

static void visit(struct ir_op *op, void *context) {
    bool *changed = context;
    if (op->code == OP_dim && !op->dim.inside)
        op->dim.inside = access_within(op, op->operands[0], op->dim.symbol->lo, op->dim.symbol->hi);
    if (op->code != OP_check || !proven(op->operands[0]))
        return;
    struct ir_builder b = {op->parent->func->module, op->parent->func, op->parent, op, op->span};
    op->operands[0] = ir_build_int(&b, BOOL, 1);
    *changed = true;
}

bool pass_prove(struct pass_context *c) {
    struct ir_module *m = c->module;
    bool any = false;
    for (int i = 0; i <= m->func_count; i++) {
        struct ir_func *f = i < m->func_count ? m->funcs[i] : m->init;
        bool changed = false;
        if (f)
            ir_walk_ops(f->body, visit, &changed);
        if (changed) {
            simplify_control(f);
            simplify_fused(f);
        }
        any |= changed;
    }
    return any;
}
