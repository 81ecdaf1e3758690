/* An optimizer's update of a parameter depends on its gradient and stands behind the parameter's last use in the backward pass.
 * Many orders have the smallest peak, and most of them keep gradients for longer than needed. In place, an update takes
 * no memory and gives back its gradient's, so it can move up to the latest of what must precede it without
 * raising memory anywhere: then gradients are never alive all at once, whatever order was chosen.
 */
#include "passes/mutation/updates.h"

#include "passes/mutation/liveness.h"

struct final { /* of a value that a buffer or an inout argument holds at exit */
    bool is;
    const struct ir_value *entry; /* what it held at entry; NULL: nobody reads that */
};

struct view {
    const struct ir_value *value;
    struct view *next;
};

struct update {
    struct ir_func *func;
    struct arena arena;
    struct final *final;              /* [value_count] of values that are no views */
    struct view **views;              /* [value_count] of them, in the body */
    VEC(const struct ir_value *) old; /* what is overwritten: versions at entry and views of them */
};

static const struct ir_value *viewed(const struct ir_value *v) {
    while (v->op && v->op->code == OP_reshape)
        v = v->op->operands[0];
    return v;
}

static void find_versions(struct update *u) {
    const struct ir_func *f = u->func;
    const struct ir_region *body = f->body;
    const struct ir_value **entry = ARENA_ARRAY(&u->arena, const struct ir_value *, f->module->buffer_count + 1);
    u->final = ARENA_ARRAY(&u->arena, struct final, f->value_count + 1);
    u->views = ARENA_ARRAY(&u->arena, struct view *, f->value_count + 1);
    for (const struct ir_op *op = body->first; op; op = op->next)
        if (op->code == OP_read)
            entry[op->buffer.buffer->id] = op->results[0];
    for (int i = 0, k = f->result_count; i < body->arg_count && k < body->yield_count; i++)
        if (f->arg_inout && f->arg_inout[i])
            u->final[viewed(body->yields[k++])->id] = (struct final){true, body->args[i]};
    for (const struct ir_op *op = body->first; op; op = op->next)
        if (op->code == OP_write)
            u->final[viewed(op->operands[0])->id] = (struct final){true, entry[op->buffer.buffer->id]};
    for (const struct ir_op *op = body->last; op; op = op->prev)
        if (op->code == OP_reshape) {
            struct view *view = ARENA_NEW(&u->arena, struct view), **of = &u->views[viewed(op->results[0])->id];
            *view = (struct view){op->results[0], *of};
            *of = view;
        }
}

/* Whether op makes final versions only; notes what they overwrite. */
static bool is_update(struct update *u, const struct ir_op *op) {
    u->old.n = 0;
    if (op->code != OP_nest || !op->result_count)
        return false;
    for (int i = 0; i < op->result_count; i++) {
        const struct final *final = &u->final[op->results[i]->id];
        if (!final->is)
            return false;
        if (final->entry)
            VEC_PUSH(&u->arena, u->old, final->entry);
    }
    int direct = u->old.n;
    for (int i = 0; i < direct; i++)
        for (const struct view *v = u->views[u->old.at[i]->id]; v; v = v->next)
            VEC_PUSH(&u->arena, u->old, v->value);
    return true;
}

static bool is_old(const struct update *u, const struct ir_value *v) {
    for (int i = 0; i < u->old.n; i++)
        if (u->old.at[i] == v)
            return true;
    return false;
}

/* Whether `before` reads what is overwritten or may end the call, itself or inside. */
static bool holds_back(const struct update *u, const struct ir_op *before) {
    if (op_may_fail(before) || ir_optable[before->code].effect == EFFECT_OPAQUE)
        return true;
    for (int i = 0; i < before->operand_count; i++)
        if (is_old(u, before->operands[i]) && before->code != OP_reshape)
            return true;
    for (int k = 0; op_runs_regions(before) && k < before->region_count; k++) {
        for (const struct ir_op *x = before->regions[k]->first; x; x = x->next)
            if (holds_back(u, x))
                return true;
        for (int i = 0; i < before->regions[k]->yield_count; i++)
            if (is_old(u, before->regions[k]->yields[i]))
                return true;
    }
    return false;
}

static bool makes_operand(const struct ir_op *before, const struct ir_op *op) {
    for (int i = 0; i < op->operand_count; i++)
        if (op->operands[i]->op == before)
            return true;
    return false;
}

/* Past updates of params only to pass something else, too: they hold nothing that could be given back sooner. */
static struct ir_op *earliest(const struct update *u, struct ir_op *op, const bool *of_param) {
    struct ir_op *place = op;
    for (struct ir_op *p = op->prev; p && !makes_operand(p, op) && !holds_back(u, p); p = p->prev)
        if (!p->result_count || !of_param[p->results[0]->id])
            place = p;
    return place;
}

static void see_symbol(const struct ir_symbol *s, void *context) {
    bool *known = context;
    *known &= !s->op;
}

/* Whether the shape is known before the first operation. */
static bool known_at_entry(struct ir_type t) {
    bool known = true;
    for (int d = 0; d < t.rank; d++)
        ir_dim_symbols(t.dims[d], see_symbol, &known);
    return known;
}

/* Views of what op takes, up to what they are views of: that alone it has to wait for. */
static void views_early(struct ir_op *op) {
    for (int i = 0; i < op->operand_count; i++)
        for (struct ir_op *view = op->operands[i]->op;
             view && view->code == OP_reshape && view->parent == op->parent && known_at_entry(view->results[0]->type);
             view = view->operands[0]->op) {
            struct ir_op *maker = view->operands[0]->op;
            if (maker && maker->parent == op->parent && maker->next != view)
                ir_op_move_before(view, maker->next);
        }
}

void updates_early(struct ir_func *f) {
    struct update u = {.func = f};
    find_versions(&u);
    bool *of_param = ARENA_ARRAY(&u.arena, bool, f->value_count + 1); /* by an update's first result */
    for (struct ir_op *op = f->body->first; op; op = op->next) {
        const struct ir_op *maker = op->code == OP_write ? viewed(op->operands[0])->op : NULL;
        if (maker && op->buffer.buffer->kind == BUFFER_PARAM && is_update(&u, maker))
            of_param[maker->results[0]->id] = true;
    }
    for (struct ir_op *op = f->body->first, *next; op; op = next) {
        next = op->next;
        if (!is_update(&u, op))
            continue;
        views_early(op);
        struct ir_op *place = earliest(&u, op, of_param);
        if (place != op)
            ir_op_move_before(op, place);
    }
    arena_free(&u.arena);
}
