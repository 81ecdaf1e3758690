/* Constant conditions, checks that hold, carried values that never change, values alike on both sides of a branch, reshapes that change nothing. */
#include "passes/simplify_internal.h"

struct control {
    struct ir_func *f;
    struct arena scratch;
    VEC(struct ir_value *) from;
    VEC(struct ir_value *) to;
    VEC(struct ir_op *) dead;
    bool changed;
};

static void replace(struct control *c, struct ir_value *from, struct ir_value *to) {
    VEC_PUSH(&c->scratch, c->from, from);
    VEC_PUSH(&c->scratch, c->to, to);
    c->changed = true;
}

static bool known_bool(const struct ir_value *v, bool *value) {
    double number;
    if (!v->op || v->type.rank != 0)
        return false;
    if (v->op->code == OP_const) {
        *value = *(const bool *)v->op->constant.data;
        return true;
    }
    if (v->op->code == OP_nest && !v->op->nest.pars && !v->op->nest.reds && v->op->nest.results[v->index].base < 0 &&
        ir_expr_is_const(v->op->nest.results[v->index].value, &number)) {
        *value = number != 0;
        return true;
    }
    return false;
}

static void inline_side(struct control *c, struct ir_op *op, bool value) {
    struct ir_region *r = op->regions[value ? 0 : 1];
    while (r->first)
        ir_op_move_before(r->first, op);
    for (int i = 0; i < op->result_count; i++)
        replace(c, op->results[i], r->yields[i]);
    VEC_PUSH(&c->scratch, c->dead, op);
}

/* What both sides give alike, made before; and what they give twice, as gradients do that save a value for each of its readers. */
static void same_on_both_sides(struct control *c, struct ir_op *op) {
    struct ir_value **then = op->regions[0]->yields, **other = op->regions[1]->yields;
    for (int k = 0; k < op->result_count; k++) {
        if (then[k] == other[k] && !ir_value_defined_in(then[k], op->regions[0])) {
            replace(c, op->results[k], then[k]);
            continue;
        }
        for (int j = 0; j < k; j++)
            if (then[j] == then[k] && other[j] == other[k]) {
                replace(c, op->results[k], op->results[j]);
                break;
            }
    }
}

static void invariant_carried(struct control *c, struct ir_op *op) {
    int operand = op->code == OP_for ? 2 : 0, arg = op->code == OP_for ? 1 : 0;
    struct ir_region *body = op->regions[op->code == OP_while];
    for (int k = 0; k < op->result_count; k++) {
        struct ir_value *init = op->operands[operand + k], *carried = body->args[arg + k];
        if (body->yields[k] != carried && body->yields[k] != init)
            continue;
        replace(c, carried, init);
        if (op->code == OP_while)
            replace(c, op->regions[0]->args[k], init);
        replace(c, op->results[k], init);
    }
}

static void visit(struct ir_op *op, void *context) {
    struct control *c = context;
    bool value;
    switch (op->code) {
    case OP_if:
        if (known_bool(op->operands[0], &value))
            inline_side(c, op, value);
        else
            same_on_both_sides(c, op);
        break;
    case OP_check:
        if (known_bool(op->operands[0], &value) && value) {
            replace(c, op->results[0], op->operands[0]);
            VEC_PUSH(&c->scratch, c->dead, op);
        }
        break;
    case OP_for:
    case OP_while: invariant_carried(c, op); break;
    case OP_reshape: {
        struct ir_value *x = op->operands[0];
        if (ir_type_equal(x->type, op->results[0]->type)) {
            replace(c, op->results[0], x);
            VEC_PUSH(&c->scratch, c->dead, op);
        } else if (x->op && x->op->code == OP_reshape) {
            op->operands[0] = x->op->operands[0];
            c->changed = true;
        }
        break;
    }
    default: break;
    }
}

bool simplify_control(struct ir_func *f) {
    struct control c = {.f = f};
    ir_walk_ops(f->body, visit, &c);
    if (c.from.n) {
        struct ir_value **map = ARENA_ARRAY(&c.scratch, struct ir_value *, f->value_count + 1);
        for (int i = 0; i < c.from.n; i++)
            map[c.from.at[i]->id] = c.to.at[i];
        ir_replace_values(f, map);
    }
    for (int i = 0; i < c.dead.n; i++)
        ir_op_remove(c.dead.at[i]);
    bool changed = c.changed;
    arena_free(&c.scratch);
    return changed;
}
