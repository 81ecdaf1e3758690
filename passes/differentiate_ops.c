/* Adjoints of the operations that are no nests and have no body of their own to reverse: sort, scan, kernels with a
 * declared gradient. */
#include "passes/differentiate_internal.h"

/* Each kept element came from the position that the forward run found. */
void grad_sort(struct grad *g, struct ir_op *op) {
    struct ir_module *m = g->m;
    struct ir_value *dy = grad_adjoint(g, op->results[0]), *x = op->operands[0];
    if (!dy || !grad_varied(g, x))
        return;
    int rank = x->type.rank;
    struct ir_value *slots[2] = {dy, op->results[1]};
    struct ir_nest_index *indices = ARENA_ARRAY(&m->arena, struct ir_nest_index, rank);
    ir_expr *at = ARENA_ARRAY(&g->scratch, ir_expr, rank), *target = ARENA_ARRAY(&g->scratch, ir_expr, rank);
    for (int i = 0; i < rank; i++) {
        indices[i] = (struct ir_nest_index){.name = arena_printf(&m->arena, "i%d", i), .extent = dy->type.dims[i]};
        at[i] = target[i] = ir_index(m, i);
    }
    target[op->sort.axis] = ir_load(m, 1, I64, rank, at, NULL);
    struct ir_value *base = grad_adjoint(g, x);
    if (!base)
        base = grad_zeros(&g->b, x->type);
    ir_expr value = ir_load(m, 0, dy->type.dtype, rank, at, NULL);
    grad_set_adjoint(g, x, grad_build(g, indices, rank, 0, slots, 2, value, base, COMBINE_ADD, target));
}

static struct ir_value *scan(struct grad *g, const struct ir_op *like, struct ir_value *v, enum reduce_op reduce,
                             bool reverse, bool exclusive) {
    struct ir_op *op = ir_op_new(&g->b, OP_scan, &v, 1, 0);
    op->scan.axis = like->scan.axis;
    op->scan.op = reduce;
    op->scan.reverse = reverse;
    op->scan.exclusive = exclusive;
    return ir_op_result(op, v->type);
}

static struct ir_value *map(struct grad *g, struct ir_type t, ir_expr e, struct ir_value **slots, int n) {
    struct ir_nest_index *indices = ARENA_ARRAY(&g->m->arena, struct ir_nest_index, t.rank);
    for (int i = 0; i < t.rank; i++)
        indices[i] = (struct ir_nest_index){.name = arena_printf(&g->m->arena, "i%d", i), .extent = t.dims[i]};
    return grad_build(g, indices, t.rank, 0, slots, n, e, NULL, COMBINE_SET, NULL);
}

/* Products: dx[j] = sum over i from j on of g[i] * y[i] / x[j], which holds up to the first zero, z: there all later y are
 * 0. At z itself the products are those with x[z] replaced by 1; after z nothing moves the result. */
void grad_scan(struct grad *g, struct ir_op *op) {
    struct ir_module *m = g->m;
    struct ir_value *dy = grad_adjoint(g, op->results[0]), *x = op->operands[0], *y = op->results[0];
    if (!dy || !grad_varied(g, x))
        return;
    bool reverse = op->scan.reverse, exclusive = op->scan.exclusive;
    if (op->scan.op == RED_SUM) {
        grad_add(g, x, scan(g, op, grad_use(g, dy), RED_SUM, !reverse, exclusive));
        return;
    }
    if (op->scan.op != RED_PROD) {
        g->failed = true;
        diag_error(m->diag, E_grad_scan, op->span, "a cumulative maximum or minimum has no gradient");
        return;
    }
    struct ir_type t = x->type;
    ir_expr at[64];
    for (int i = 0; i < t.rank; i++)
        at[i] = ir_index(m, i);
#define AT(slot)    ir_load(m, slot, t.dtype, t.rank, at, NULL)
#define COUNT(slot) ir_load(m, slot, I64, t.rank, at, NULL)
    ir_expr zero = ir_const_number(m, t.dtype, 0), one = ir_const_number(m, t.dtype, 1);
    struct ir_value *slots[5] = {x, y, dy};
    ir_expr is_zero = ir_fn2(m, FN_eq, AT(0), zero);
    struct ir_value *zeros = map(g, ir_type_make(m, I64, t.rank, t.dims), ir_cast(m, I64, is_zero), slots, 1);
    slots[3] = scan(g, op, zeros, RED_SUM, reverse, false);
    ir_expr first = ir_fn2(m, FN_and, is_zero, ir_fn2(m, FN_eq, COUNT(3), ir_const_int(m, I64, 1)));
    struct ir_value *patched =
        scan(g, op, map(g, t, ir_fn3(m, FN_where, first, one, AT(0)), slots, 4), RED_PROD, reverse, exclusive);
    slots[1] = patched;
    struct ir_value *at_zero =
        scan(g, op, map(g, t, ir_fn2(m, FN_mul, AT(2), AT(1)), slots, 4), RED_SUM, !reverse, exclusive);
    slots[1] = y;
    struct ir_value *before =
        scan(g, op, map(g, t, ir_fn2(m, FN_mul, AT(2), AT(1)), slots, 4), RED_SUM, !reverse, exclusive);
    struct ir_value *parts[4] = {x, before, at_zero, slots[3]};
    ir_expr safe = ir_fn3(m, FN_where, is_zero, one, AT(0));
    ir_expr e = ir_fn3(m, FN_where, is_zero, ir_fn3(m, FN_where, first, AT(2), zero), ir_fn2(m, FN_div, AT(1), safe));
    grad_add(g, x, map(g, t, e, parts, 4));
#undef AT
#undef COUNT
}

/* A declared gradient: its region runs on the operands, the results and the gradients of the float results. */
void grad_kernel(struct grad *g, struct ir_op *op) {
    const struct ir_region *r = op->regions[1];
    struct ir_value **args = ARENA_ARRAY(&g->scratch, struct ir_value *, r->arg_count + 1);
    struct ir_value **yields = ARENA_ARRAY(&g->scratch, struct ir_value *, r->yield_count + 1);
    int n = 0;
    bool any = false;
    for (int i = 0; i < op->result_count; i++)
        any |= grad_adjoint(g, op->results[i]) != NULL;
    if (!any)
        return;
    for (int i = 0; i < op->operand_count; i++)
        args[n++] = grad_use(g, op->operands[i]);
    for (int i = 0; i < op->result_count; i++)
        args[n++] = grad_use(g, op->results[i]);
    for (int i = 0; i < op->result_count; i++)
        if (dtype_is_float(op->results[i]->type.dtype)) {
            struct ir_value *dy = grad_adjoint(g, op->results[i]);
            args[n++] = dy ? grad_use(g, dy) : grad_zeros(&g->b, op->results[i]->type);
        }
    ir_inline_region(&g->b, r, args, yields);
    for (int i = 0, k = 0; i < op->operand_count && k < r->yield_count; i++)
        if (dtype_is_float(op->operands[i]->type.dtype))
            grad_add(g, op->operands[i], yields[k++]);
}
