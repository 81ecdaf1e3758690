/* Products that are strided windows, by phases (the polyphase form of a transposed convolution; Bellanger, Bonnerot, Coudreuse 1976).
 *
 * The gradient of a convolution of stride s whose windows do not overlap, and such a transposed convolution itself, are
 *
 *     y[n, c, p] = sum[o] x[n, o, p / s] * w[o, c, p % s]
 *
 * Both factors depend on p, so that to a kernel of products p is one of a batch, with weights of its own for every p. But one factor only
 * knows the quotient, the other only the remainder: as two indices p = s q + r one belongs to the rows and the other to the columns of
 * one product. Its result has the same bytes, so a reshape is all that is left of it:
 *
 *     z[n, c, q, r] = sum[o] x[n, o, q] * w[o, c, r],   y = reshape(z)
 *
 * Where w has only k < s phases, the others are zeros that need no sum: z is the product over r < k, and y reads it where p % s < k. Each sum
 * is of the same terms in the same order; only 0 * inf, of a phase that no window has, is 0 and not nan. */
#include "passes/nest_edit.h"
#include "passes/passes.h"
#include "passes/simplify_internal.h"

enum { MOST_INDICES = 32 };

/* How a factor sees the parallel indices: bit p. */
struct seen {
    uint32_t plain, quotient, remainder;
    int64_t stride[MOST_INDICES];
    bool mixed; /* an index by two different strides */
};

/* One parallel index: its stride s, and how many of the s remainders count; s = 1: it stays as it is. */
struct phase {
    int64_t stride, count;
};

static bool is_by_constant(ir_expr e, int64_t *stride) {
    if (e->kind != X_FN || (e->fn != FN_div && e->fn != FN_mod) || e->args[0]->kind != X_INDEX ||
        e->args[1]->kind != X_CONST)
        return false;
    *stride = e->args[1]->value.i;
    return *stride >= 2;
}

static void see(ir_expr e, void *context) {
    struct seen *s = context;
    int64_t stride;
    if (is_by_constant(e, &stride)) {
        int p = e->args[0]->index;
        *(e->fn == FN_div ? &s->quotient : &s->remainder) |= 1u << p;
        s->mixed |= s->stride[p] != 0 && s->stride[p] != stride;
        s->stride[p] = stride;
        return;
    }
    for (int i = 0; i < e->count; i++)
        if (e->args[i]->kind == X_INDEX)
            s->plain |= 1u << e->args[i]->index;
}

/* The remainders of p by s that the factor is not zero for: those inside of a dimension that p % s alone runs through. */
static int64_t phases_inside(const struct ir_op *op, ir_expr factor, int p, int64_t stride) {
    ir_expr load = expr_strip_casts(factor);
    double outside;
    int64_t extent, s;
    if (load->kind != X_LOAD || !load->guarded)
        return stride;
    struct ir_type t = op->operands[load->index]->type;
    if (!ir_expr_is_const(load->args[t.rank], &outside) || outside != 0)
        return stride;
    for (int d = 0; d < t.rank; d++) {
        ir_expr at = load->args[d];
        if (at->kind == X_FN && at->fn == FN_mod && is_by_constant(at, &s) && at->args[0]->index == p &&
            ir_dim_is_const(t.dims[d], &extent) && extent < stride)
            return extent;
    }
    return stride;
}

/* Whether the nest is such a product, and its indices' phases. */
static bool recognise(const struct ir_op *op, struct phase *phase) {
    const struct ir_nest *n = &op->nest;
    if (op->code != OP_nest || op->result_count != 1 || n->acc_count != 1 || n->reds == 0 || n->accs[0].op != RED_SUM ||
        n->results[0].base >= 0 || n->pars + n->reds > MOST_INDICES)
        return false;
    ir_expr body = expr_strip_casts(n->accs[0].body);
    if (body->kind != X_FN || body->fn != FN_mul)
        return false;
    struct seen by[2] = {{0}}, bounds = {0};
    for (int k = 0; k < 2; k++)
        ir_expr_walk(body->args[k], see, &by[k]);
    for (int i = n->pars; i < n->pars + n->reds; i++) {
        ir_expr_walk(n->indices[i].lo, see, &bounds);
        ir_expr_walk(n->indices[i].hi, see, &bounds);
    }
    if (by[0].mixed || by[1].mixed)
        return false;
    bool any = false;
    for (int p = 0; p < n->pars; p++) {
        uint32_t bit = 1u << p, in_bounds = bounds.plain | bounds.quotient | bounds.remainder;
        int quotient = by[0].quotient & bit ? 0 : 1, remainder = 1 - quotient;
        int64_t stride = by[quotient].stride[p], extent;
        phase[p] = (struct phase){1, 1};
        if ((by[0].plain | by[1].plain | in_bounds) & bit || !(by[quotient].quotient & bit) ||
            by[quotient].remainder & bit || by[remainder].quotient & bit || !(by[remainder].remainder & bit) ||
            by[remainder].stride[p] != stride || !ir_dim_is_const(n->indices[p].extent, &extent) ||
            extent % stride != 0)
            continue;
        phase[p] = (struct phase){stride, phases_inside(op, body->args[remainder], p, stride)};
        any = true;
    }
    return any;
}

/* ---- taking it apart ------------------------------------------------------------------------------------------------- */

/* The nest with the indices p = s q + r; `whole` keeps what becomes of the sum, else it is the sum alone. */
static struct ir_value *by_phases(struct ir_builder *b, const struct ir_op *op, const struct phase *phase, bool whole) {
    const struct ir_nest *n = &op->nest;
    struct ir_module *m = b->module;
    struct arena *a = &m->arena;
    struct ir_op *made = ir_op_new(b, OP_nest, op->operands, op->operand_count, 0);
    struct ir_nest *z = &made->nest;
    ir_expr index[MOST_INDICES];
    ir_dim dims[2 * MOST_INDICES];
    z->indices = ARENA_ARRAY(a, struct ir_nest_index, 2 * n->pars + n->reds);
    for (int p = 0; p < n->pars; p++) {
        struct ir_nest_index *q = &z->indices[z->pars];
        index[p] = ir_index(m, z->pars);
        dims[z->pars++] = n->indices[p].extent;
        *q = n->indices[p];
        if (phase[p].stride == 1)
            continue;
        q[0].extent = dims[z->pars - 1] = ir_dim_div(m, q->extent, ir_dim_const(m, phase[p].stride));
        q[1] = (struct ir_nest_index){.name = arena_printf(a, "%s_phase", q->name),
                                      .extent = ir_dim_const(m, phase[p].count)};
        index[p] =
            ir_fn2(m, FN_add, ir_fn2(m, FN_mul, index[p], ir_const_int(m, I64, phase[p].stride)), ir_index(m, z->pars));
        dims[z->pars++] = q[1].extent;
    }
    z->reds = n->reds;
    for (int i = 0; i < n->reds; i++)
        index[n->pars + i] = ir_index(m, z->pars + i);
    for (int i = 0; i < n->reds; i++) {
        struct ir_nest_index *x = &z->indices[z->pars + i];
        *x = n->indices[n->pars + i];
        x->lo = nest_subst(m, x->lo, index, NULL, 0, false);
        x->hi = nest_subst(m, x->hi, index, NULL, 0, false);
    }
    ir_expr body = nest_subst(m, n->accs[0].body, index, NULL, 0, false);
    z->acc_count = 1;
    z->accs = ARENA_ARRAY(a, struct ir_acc, 1);
    z->accs[0] = (struct ir_acc){RED_SUM, ir_expr_simplify(m, z, made->operands, body)};
    ir_expr value = whole ? nest_subst(m, n->results[0].value, index, NULL, 0, false) : ir_acc(m, 0, body->dtype);
    z->results = ARENA_ARRAY(a, struct ir_nest_result, 1);
    z->results[0] = (struct ir_nest_result){.value = ir_expr_simplify(m, z, made->operands, value), .base = -1};
    made->adjoint = op->adjoint;
    struct ir_value *v = ir_op_result(made, ir_type_make(m, value->dtype, z->pars, dims));
    v->name = op->results[0]->name;
    return v;
}

struct reading {
    const struct phase *phase;
    const struct ir_nest *nest;
    int slot;
};

/* The sum as the nest of phases has it, and 0 of a phase that it has not. */
static ir_expr read_phase(struct ir_rewrite *r, ir_expr original, ir_expr e) {
    const struct reading *s = r->context;
    ir_expr at[2 * MOST_INDICES];
    int rank = 0;
    (void)original;
    if (e->kind != X_ACC)
        return NULL;
    for (int p = 0; p < s->nest->pars; p++) {
        ir_expr index = ir_index(r->module, p), stride = ir_const_int(r->module, I64, s->phase[p].stride);
        at[rank++] = s->phase[p].stride == 1 ? index : ir_fn2(r->module, FN_div, index, stride);
        if (s->phase[p].stride > 1)
            at[rank++] = ir_fn2(r->module, FN_mod, index, stride);
    }
    return ir_load(r->module, s->slot, e->dtype, rank, at, ir_const_number(r->module, e->dtype, 0));
}

/* op, which was the product, becomes what reads it. */
static void read_phases(struct ir_op *op, const struct phase *phase, struct ir_value *sum) {
    struct ir_nest *n = &op->nest;
    struct ir_module *m = op->parent->func->module;
    struct reading s = {phase, n, ir_op_add_operand(op, sum)};
    struct ir_rewrite r = {.module = m, .fn = read_phase, .context = &s};
    struct ir_nest_result *result = arena_copy(&m->arena, n->results, sizeof *result);
    result->value = ir_rewrite_expr(&r, n->results[0].value);
    ir_rewrite_free(&r);
    n->results = result;
    n->reds = n->acc_count = 0;
    for (int i = op->operand_count; i-- > 0;) /* the nest of phases has them all, and checks among them */
        if (!nest_loads_slot(op, i))
            nest_drop_slot(op, i);
}

/* op, which was the product, becomes another shape of it. */
static void become_reshape(struct ir_op *op, struct ir_value *product) {
    struct arena *a = &op->parent->func->module->arena;
    op->code = OP_reshape;
    op->operands = arena_copy(a, &product, sizeof product);
    op->operand_count = 1;
    op->nest = (struct ir_nest){0};
}

static void visit(struct ir_op *op, void *context) {
    bool *changed = context, whole = true;
    struct phase phase[MOST_INDICES];
    if (!recognise(op, phase))
        return;
    for (int p = 0; p < op->nest.pars; p++)
        whole &= phase[p].count == phase[p].stride;
    struct ir_builder b = {op->parent->func->module, op->parent->func, op->parent, op, op->span};
    struct ir_value *v = by_phases(&b, op, phase, whole);
    if (whole)
        become_reshape(op, v);
    else
        read_phases(op, phase, v);
    *changed = true;
}

bool pass_polyphase(struct pass_context *c) {
    struct ir_module *m = c->module;
    bool any = false;
    for (int i = 0; i <= m->func_count; i++) {
        struct ir_func *f = i < m->func_count ? m->funcs[i] : m->init;
        bool changed = false;
        if (f)
            ir_walk_ops(f->body, visit, &changed);
        if (changed)
            simplify_fused(f);
        any |= changed;
    }
    return any;
}
