/* Copies of operations for recomputation, and who reads them. An operation is copied for one result of its own, never for a
 * version that it writes, so nothing is written twice; a copy computes the same bits because it is the same expression. */
#include "passes/memplan/remat_internal.h"

#include "passes/lower.h"
#include "passes/nest_edit.h"

struct needs {
    bool *slots;
    uint64_t accs;
};

static void see_need(ir_expr e, void *context) {
    struct needs *n = context;
    if (e->kind == X_LOAD)
        n->slots[e->index] = true;
    else if (e->kind == X_ACC)
        n->accs |= (uint64_t)1 << (e->index < 63 ? e->index : 63); /* those from 63 on count as one */
}

void remat_needs(const struct ir_op *op, int result, bool *needed) {
    for (int i = 0; i < op->operand_count; i++)
        needed[i] = op->code != OP_nest || (op->operands[i]->op && op->operands[i]->op->code == OP_check);
    if (op->code != OP_nest)
        return;
    struct needs n = {needed, 0};
    ir_expr_walk(op->nest.results[result].value, see_need, &n);
    for (int i = 0; i < op->nest.acc_count; i++)
        if (n.accs >> (i < 63 ? i : 63) & 1)
            ir_expr_walk(op->nest.accs[i].body, see_need, &n);
    if (op->nest.acc_count && !n.accs) /* a nest that reduces keeps one */
        ir_expr_walk(op->nest.accs[0].body, see_need, &n);
    for (int i = op->nest.pars; i < op->nest.pars + op->nest.reds; i++) {
        if (op->nest.indices[i].lo)
            ir_expr_walk(op->nest.indices[i].lo, see_need, &n);
        if (op->nest.indices[i].hi)
            ir_expr_walk(op->nest.indices[i].hi, see_need, &n);
    }
}

static void register_value(struct remat *r, struct ir_value *v, int root, int at) {
    r->root[v->id] = root;
    if (root == v->id) {
        r->values[root] = (struct remat_value){.value = v, .def = at, .over = INT32_MAX, .again = -1};
        r->workspace[root] = 0;
    }
}

/* `v`, a reshape of what `other` is a copy of, as the same reshape of `other`. */
static struct ir_value *view_again(struct remat *r, struct ir_value *v, struct ir_value *other, struct ir_op *before) {
    if (r->root[v->id] == v->id)
        return other;
    struct ir_value *below = view_again(r, v->op->operands[0], other, before);
    struct ir_builder b = {
        .module = r->c->module, .func = r->func, .region = r->func->body, .before = before, .span = v->op->span};
    struct ir_value *view = ir_build_reshape(&b, below, v->type.rank, v->type.dims);
    if (view != below) {
        VEC_PUSH(&r->keep, r->copies, view->op);
        register_value(r, view, r->root[other->id], 0);
    }
    return view;
}

struct ir_value *remat_copy(struct remat *r, struct ir_value *v, struct ir_value **other, int at,
                            struct ir_op *before) {
    struct ir_op *op = v->op;
    struct ir_builder b = {
        .module = r->c->module, .func = r->func, .region = op->parent, .before = before, .span = op->span};
    bool *needed = ARENA_ARRAY(&r->arena, bool, op->operand_count + 1);
    bool *keep = ARENA_ARRAY(&r->arena, bool, op->result_count + 1);
    remat_needs(op, v->index, needed);
    struct ir_op *copy = ir_copy_op(&b, op);
    for (int i = 0; i < op->operand_count; i++)
        if (other[i])
            copy->operands[i] = view_again(r, op->operands[i], other[i], copy);
    keep[v->index] = true;
    if (op->code == OP_nest) {
        nest_keep_results(copy, keep);
        for (int i = op->operand_count - 1; i >= 0; i--)
            if (!needed[i])
                nest_drop_slot(copy, i);
        r->flops += nest_flops(&copy->nest, copy->result_count);
    }
    VEC_PUSH(&r->keep, r->copies, copy);
    for (int i = 0; i < copy->result_count; i++)
        register_value(r, copy->results[i], copy->results[i]->id, at);
    struct ir_value *again = copy->results[op->code == OP_nest ? 0 : v->index];
    struct remat_value *from = &r->values[v->id], *to = &r->values[again->id];
    to->bytes = from->bytes;
    to->again = from->again;
    from->again = again->id;
    r->workspace[copy->results[0]->id] = r->workspace[op->results[0]->id];
    for (int i = 0; i < copy->operand_count; i++)
        remat_add_use(r, r->root[copy->operands[i]->id], at, copy);
    return again;
}

struct redirection {
    struct remat *r;
    struct ir_value *old, *other;
    struct ir_op *before;         /* where views are made */
    struct ir_value *seen, *view; /* the last one made */
};

static void redirect(struct redirection *d, struct ir_value **place) {
    if (d->r->root[(*place)->id] != d->old->id)
        return;
    VEC_PUSH(&d->r->keep, d->r->edits, (struct remat_edit){place, *place});
    if (*place != d->seen) {
        d->seen = *place;
        d->view = view_again(d->r, *place, d->other, d->before);
    }
    *place = d->view;
}

static void redirect_op(struct redirection *d, struct ir_op *op) {
    for (int i = 0; i < op->operand_count; i++)
        redirect(d, &op->operands[i]);
    for (int i = 0; i < op->region_count && op->code != OP_kernel; i++) {
        for (struct ir_op *x = op->regions[i]->first; x; x = x->next)
            redirect_op(d, x);
        for (int k = 0; k < op->regions[i]->yield_count; k++)
            redirect(d, &op->regions[i]->yields[k]);
    }
}

void remat_redirect(struct remat *r, struct ir_value *v, struct ir_value *other, int at, struct ir_op *before) {
    struct remat_value *from = &r->values[v->id];
    struct redirection d = {.r = r, .old = v, .other = other, .before = before};
    int kept = 0;
    while (kept < from->uses.n && from->uses.at[kept].at < at)
        kept++;
    for (int i = kept; i < from->uses.n; i++) {
        struct remat_use u = from->uses.at[i];
        if (u.op)
            redirect_op(&d, u.op);
        for (int k = 0; !u.op && k < r->func->body->yield_count; k++)
            redirect(&d, &r->func->body->yields[k]);
        remat_add_use(r, other->id, u.at, u.op);
    }
    from->uses.n = kept;
}

void remat_undo(struct remat *r) {
    while (r->edits.n) {
        struct remat_edit *e = &r->edits.at[--r->edits.n];
        *e->place = e->old;
    }
    while (r->copies.n)
        ir_op_remove(r->copies.at[--r->copies.n]);
    r->flops = 0;
}
