/* Checks and run-time sizes that can never fail. The index algebra of simplify knows the bounds of a nest's own indices; here the counters of the
 * loops around it, the conditions of branches and dimensions found at run time count, too, as integer sets (the Omega test,
 * passes/mutation/integer_set.c). A check that is gone costs no time, and no copy of what is written before it.
 *
 * Where a nest reads none of the elements that an update wrote, it reads the version before. The gradient of parts put together is such a
 * chain: each part's gradient would else be read from a copy in which the other parts are zero.
 */
#include "passes/mutation/access.h"
#include "passes/nest_edit.h"
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

struct loads {
    const struct ir_op *op, *writer;
    const struct ir_value *value;
    int slot;
    bool apart;
};

static void see_load(ir_expr e, void *context) {
    struct loads *s = context;
    if (!s->apart || e->kind != X_LOAD || e->index != s->slot)
        return;
    struct access write = {s->writer, s->value, s->writer->nest.results[s->value->index].target};
    struct access read = {s->op, s->value, e->args};
    s->apart = access_disjoint(write, read, s->op->parent, false);
}

/* Reads the version before an update that wrote none of what is read. */
static bool read_before(struct ir_op *op, int slot) {
    struct loads s = {.op = op, .value = op->operands[slot], .slot = slot, .apart = true};
    s.writer = s.value->op;
    if (!s.writer || s.writer->code != OP_nest || s.writer->parent != op->parent || nest_is_base(op, slot))
        return false;
    int base = s.writer->nest.results[s.value->index].base;
    if (base < 0)
        return false;
    nest_walk(op, see_load, &s);
    if (s.apart)
        op->operands[slot] = s.writer->operands[base];
    return s.apart;
}

static void visit(struct ir_op *op, void *context) {
    bool *changed = context;
    for (int i = 0; op->code == OP_nest && i < op->operand_count; i++)
        while (read_before(op, i))
            *changed = true;
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
