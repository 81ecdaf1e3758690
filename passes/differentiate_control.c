/* Reversing control flow: an `if` gives an `if`, a loop gives a loop that runs backwards over what the forward loop saved,
 * a checkpoint gives a copy of its region followed by the adjoint of that copy. No code depends on a trip count. */

#include "passes/differentiate_internal.h"

static bool wanted(struct grad *g, const struct ir_op *op) {
    for (int i = 0; i < op->result_count; i++)
        if (grad_varied(g, op->results[i]) && grad_adjoint(g, op->results[i]))
            return true;
    return false;
}

static bool is_float(const struct ir_value *v) {
    return dtype_is_float(v->type.dtype);
}

/* ---- if ------------------------------------------------------------------------------------------------------------- */

void grad_if(struct grad *g, struct ir_op *op) {
    if (!wanted(g, op))
        return;
    struct frame *outer = g->frame;
    struct ir_builder place = g->b;
    int results = op->result_count; /* saving adds more */
    struct ir_value **incoming = ARENA_ARRAY(&g->scratch, struct ir_value *, results);
    for (int k = 0; k < results; k++)
        incoming[k] = grad_varied(g, op->results[k]) ? grad_adjoint(g, op->results[k]) : NULL;
    struct ir_value *condition = grad_use(g, op->operands[0]);
    struct ir_op *adjoint = ir_op_new(&g->b, OP_if, &condition, 1, 2);
    struct frame side[2];
    for (int s = 0; s < 2; s++) {
        side[s] = (struct frame){.outer = outer,
                                 .kind = FRAME_BRANCH,
                                 .forward_op = op,
                                 .forward = op->regions[s],
                                 .reverse = adjoint->regions[s]};
        g->frame = &side[s];
        g->b = (struct ir_builder){g->m, g->func, adjoint->regions[s], NULL, place.span};
        struct ir_op *last = op->regions[s]->last;
        for (int k = 0; k < results; k++)
            if (incoming[k])
                grad_add(g, op->regions[s]->yields[k], incoming[k]);
        grad_reverse(g, op->regions[s], last);
    }
    /* Both sides give the sums of all outer values that either changed. */
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < side[s].outer_count; i++) {
            struct ir_value *v = side[s].outer_values[i];
            if (s == 1 && value_map_get(&side[0].adjoint, v))
                continue; /* done with side 0 */
            for (int t = 0; t < 2; t++) {
                g->frame = outer;
                g->b = place;
                struct ir_value *sum = value_map_get(&side[t].adjoint, v);
                if (!sum)
                    sum = grad_adjoint(g, v);
                if (!sum) {
                    struct ir_builder b = {g->m, g->func, adjoint->regions[t], NULL, place.span};
                    sum = grad_zeros(&b, v->type);
                }
                region_add_yield(g->m, adjoint->regions[t], sum);
            }
            ir_op_result(adjoint, v->type);
        }
    g->frame = outer;
    g->b = place;
    int next = 0;
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < side[s].outer_count; i++) {
            struct ir_value *v = side[s].outer_values[i];
            if (s == 0 || !value_map_get(&side[0].adjoint, v))
                grad_set_adjoint(g, v, adjoint->results[next++]);
        }
}

/* ---- loops ---------------------------------------------------------------------------------------------------------- */

/* A rank 0 integer as a dimension, where it is one. */
static bool value_dim(struct ir_module *m, const struct ir_value *v, ir_dim *d) {
    const struct ir_op *op = v->op;
    if (!op)
        return false;
    if (op->code == OP_const && v->type.dtype == I64 && v->type.rank == 0) {
        *d = ir_dim_const(m, *(const int64_t *)op->constant.data);
        return true;
    }
    if (op->code != OP_nest || op->nest.pars || op->nest.reds || op->nest.results[v->index].base >= 0)
        return false;
    ir_expr e = op->nest.results[v->index].value;
    if (e->dtype == I64 && e->kind == X_DIM)
        *d = e->dim;
    else if (e->dtype == I64 && e->kind == X_CONST)
        *d = ir_dim_const(m, e->value.i);
    else
        return false;
    return true;
}

static ir_dim trip_bound(struct grad *g, struct ir_op *op) {
    ir_dim lo, hi;
    if (op->code == OP_for && value_dim(g->m, op->operands[0], &lo) && value_dim(g->m, op->operands[1], &hi))
        return ir_dim_max(g->m, ir_dim_const(g->m, 0), ir_dim_sub(g->m, hi, lo));
    if (op->loop.limit)
        return op->loop.limit;
    g->failed = true;
    struct diagnostic *e =
        diag_error(g->m->diag, E_grad_no_bound, op->span, "the gradient of this loop needs a bound on its trips");
    diag_note(g->m->diag, e, g->op->span, "the gradient is taken here");
    diag_help(g->m->diag, e, op->code == OP_for ? "write `for t in 0..n <= 1000`" : "write `while … limit 500`");
    return NULL;
}

static ir_expr scalar_load(struct grad *g, int slot) {
    return ir_load(g->m, slot, I64, 0, NULL, NULL);
}

/* A while counts its trips: a carried value of its own. Its final value is the number of them. */
static struct ir_value *add_counter(struct grad *g, struct ir_op *loop, struct ir_value **position) {
    struct ir_builder outer = {g->m, g->func, loop->parent, loop, loop->span};
    struct ir_value *zero = ir_build_int(&outer, I64, 0);
    *position = loop_add_carried(g, loop, zero, "trips");
    struct ir_builder b = {g->m, g->func, loop->regions[1], NULL, loop->span};
    ir_expr e = ir_fn2(g->m, FN_add, scalar_load(g, 0), ir_const_int(g->m, I64, 1));
    region_add_yield(g->m, loop->regions[1], ir_build_map(&b, I64, 0, NULL, e, position, 1));
    return loop->results[loop->result_count - 1];
}

void grad_loop(struct grad *g, struct ir_op *op) {
    if (!wanted(g, op))
        return;
    ir_dim bound = trip_bound(g, op);
    if (!bound)
        return;
    bool is_while = op->code == OP_while;
    int first = is_while ? 0 : 2; /* operand of the first carried value */
    int carried = op->result_count;
    struct ir_region *body = op->regions[is_while ? 1 : 0];
    struct ir_op *last = body->last;
    struct frame *outer = g->frame;
    struct frame f = {.outer = outer, .kind = FRAME_LOOP, .forward_op = op, .forward = body, .trips = bound};

    struct ir_value *trips;
    if (is_while) {
        trips = grad_use(g, add_counter(g, op, &f.forward_position));
    } else {
        struct ir_value *ends[2] = {grad_use(g, op->operands[0]), grad_use(g, op->operands[1])};
        int hi = ends[1] == ends[0] ? 0 : 1;
        ir_expr e = ir_fn2(g->m, FN_sub, scalar_load(g, hi), scalar_load(g, 0));
        trips = ir_build_map(&g->b, I64, 0, NULL, ir_fn2(g->m, FN_max, ir_const_int(g->m, I64, 0), e), ends, hi + 1);
    }
    struct ir_value **incoming = ARENA_ARRAY(&g->scratch, struct ir_value *, carried);
    for (int k = 0; k < carried; k++) {
        struct ir_value *v = op->results[k];
        if (!is_float(v) || !grad_varied(g, v))
            continue;
        incoming[k] = grad_adjoint(g, v);
        if (!incoming[k])
            incoming[k] = grad_zeros(&g->b, v->type);
    }
    struct ir_value *ends[2] = {ir_build_int(&g->b, I64, 0), trips};
    struct ir_op *adjoint = ir_op_new(&g->b, OP_for, ends, 2, 1);
    struct ir_builder place = g->b;
    int64_t most;
    adjoint->loop.limit = op->loop.limit ? op->loop.limit : ir_dim_is_const(bound, &most) ? bound : NULL;
    struct ir_region *back = adjoint->regions[0];
    struct ir_value *t = ir_region_arg(back, ir_type_make(g->m, I64, 0, NULL), "t");
    f.reverse = back;
    f.reverse_op = adjoint;
    g->frame = &f;
    g->b = (struct ir_builder){g->m, g->func, back, NULL, place.span};
    struct ir_value *operands[2] = {trips, t};
    ir_expr e =
        ir_fn2(g->m, FN_sub, ir_fn2(g->m, FN_sub, scalar_load(g, 0), ir_const_int(g->m, I64, 1)), scalar_load(g, 1));
    f.position = ir_build_map(&g->b, I64, 0, NULL, e, operands, 2);
    f.position->name = "back";
    f.prologue = f.position->op;

    /* All at once: a yield may be another carried value's argument. */
    struct ir_value **args = ARENA_ARRAY(&g->scratch, struct ir_value *, carried);
    for (int k = 0; k < carried; k++)
        if (incoming[k])
            args[k] = loop_add_carried(g, adjoint, incoming[k], op->results[k]->name);
    int own = adjoint->result_count;
    for (int k = 0; k < carried; k++)
        if (incoming[k])
            grad_add(g, body->yields[k], args[k]);
    grad_reverse(g, body, last);

    int body_first = is_while ? 0 : 1;
    for (int k = 0; k < carried; k++)
        if (incoming[k]) {
            struct ir_value *sum = value_map_get(&f.adjoint, body->args[body_first + k]);
            region_add_yield(g->m, back, sum ? sum : grad_zeros(&g->b, op->results[k]->type));
        }
    for (int i = 0; i < f.outer_count; i++)
        region_add_yield(g->m, back, value_map_get(&f.adjoint, f.outer_values[i]));
    g->frame = outer;
    g->b = place;
    for (int i = 0; i < f.outer_count; i++)
        grad_set_adjoint(g, f.outer_values[i], adjoint->results[own + i]);
    for (int k = 0, r = 0; k < carried; k++)
        if (incoming[k])
            grad_add(g, op->operands[first + k], adjoint->results[r++]);
}

/* ---- checkpoint ----------------------------------------------------------------------------------------------------- */

struct bring {
    struct grad *g;
    const struct ir_region *region;
};

static void bring_yields(struct bring *b, struct ir_region *r) {
    for (int i = 0; i < r->yield_count; i++)
        if (!ir_value_defined_in(r->yields[i], b->region))
            r->yields[i] = grad_use(b->g, r->yields[i]);
}

static void bring_in(struct ir_op *op, void *context) {
    struct bring *b = context;
    for (int i = 0; i < op->operand_count; i++)
        if (!ir_value_defined_in(op->operands[i], b->region))
            op->operands[i] = grad_use(b->g, op->operands[i]);
    for (int i = 0; i < op->region_count; i++)
        bring_yields(b, op->regions[i]);
}

void grad_checkpoint(struct grad *g, struct ir_op *op) {
    if (!wanted(g, op))
        return;
    struct frame *outer = g->frame;
    struct ir_value **incoming = ARENA_ARRAY(&g->scratch, struct ir_value *, op->result_count);
    for (int k = 0; k < op->result_count; k++)
        incoming[k] = grad_varied(g, op->results[k]) ? grad_adjoint(g, op->results[k]) : NULL;
    struct ir_op *again = ir_op_new(&g->b, OP_checkpoint, NULL, 0, 1);
    again->name = "recompute";
    struct ir_builder place = g->b;
    struct ir_region *r = again->regions[0];
    struct frame f = {.outer = outer, .kind = FRAME_RECOMPUTE, .forward_op = again, .forward = r, .reverse = r};
    g->frame = &f;
    g->b = (struct ir_builder){g->m, g->func, r, NULL, place.span};
    struct ir_value **yields = ARENA_ARRAY(&g->scratch, struct ir_value *, op->result_count + 1);
    ir_inline_region(&g->b, op->regions[0], op->operands, yields);
    grad_mark_varied(g, r, NULL);
    struct ir_op *last = r->last;
    for (int k = 0; k < op->result_count; k++)
        if (incoming[k])
            grad_add(g, yields[k], incoming[k]);
    grad_reverse(g, r, last);
    for (int i = 0; i < f.outer_count; i++)
        region_add_yield(g->m, r, value_map_get(&f.adjoint, f.outer_values[i]));
    g->frame = outer;
    g->b = place;
    g->b.before = again; /* what the copy needs is brought in before it */
    struct bring bring = {g, r};
    ir_walk_ops(r, bring_in, &bring);
    g->b = place;
    for (int i = 0; i < f.outer_count; i++)
        grad_set_adjoint(g, f.outer_values[i], ir_op_result(again, f.outer_values[i]->type));
}
