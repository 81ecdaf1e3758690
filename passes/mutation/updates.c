/* An optimizer's update of a parameter depends on its gradient and stands behind the parameter's last use in the backward pass.
 * Many orders have the smallest peak, and most of them keep gradients for longer than needed. In place, an update takes
 * no memory and gives back its gradient's, so it can move up to the latest of what must precede it without
 * raising memory anywhere: then gradients are never alive all at once, whatever order was chosen.
 */
#include "passes/mutation/updates.h"

#include "passes/mutation/liveness.h"

struct update {
    struct ir_func *func;
    struct arena arena;
    VEC(const struct ir_value *) old; /* what is overwritten: versions at entry and views of them */
};

static const struct ir_value *viewed(const struct ir_value *v) {
    while (v->op && v->op->code == OP_reshape)
        v = v->op->operands[0];
    return v;
}

/* The version at entry of what holds v at exit; NULL: v is no final version, or nobody reads the old one. */
static bool final_version(const struct ir_func *f, const struct ir_value *v, const struct ir_value **entry) {
    const struct ir_region *body = f->body;
    *entry = NULL;
    for (const struct ir_op *op = body->last; op; op = op->prev) {
        if (op->code != OP_write || viewed(op->operands[0]) != v)
            continue;
        for (const struct ir_op *r = body->first; r; r = r->next)
            if (r->code == OP_read && r->buffer.buffer == op->buffer.buffer)
                *entry = r->results[0];
        return true;
    }
    for (int i = 0, k = f->result_count; i < body->arg_count && k < body->yield_count; i++)
        if (f->arg_inout && f->arg_inout[i] && viewed(body->yields[k++]) == v) {
            *entry = body->args[i];
            return true;
        }
    return false;
}

/* Whether op makes final versions only; notes what they overwrite. */
static bool is_update(struct update *u, const struct ir_op *op) {
    u->old.n = 0;
    if (op->code != OP_nest || !op->result_count)
        return false;
    for (int i = 0; i < op->result_count; i++) {
        const struct ir_value *entry;
        if (!final_version(u->func, op->results[i], &entry))
            return false;
        if (entry)
            VEC_PUSH(&u->arena, u->old, entry);
    }
    int direct = u->old.n;
    for (const struct ir_op *r = u->func->body->first; r; r = r->next)
        for (int i = 0; r->code == OP_reshape && i < direct; i++)
            if (viewed(r->results[0]) == u->old.at[i])
                VEC_PUSH(&u->arena, u->old, r->results[0]);
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

void updates_early(struct ir_func *f) {
    struct update u = {.func = f};
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
        struct ir_op *place = earliest(&u, op, of_param);
        if (place != op)
            ir_op_move_before(op, place);
    }
    arena_free(&u.arena);
}
