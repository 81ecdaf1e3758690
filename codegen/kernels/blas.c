/* Large matrix products by a BLAS, when one was asked for (`--blas openblas`): a nest that sums a product of two unguarded loads,
 * each a matrix with one stride of 1, its result row-major in the order batch, rows, columns. Rows and columns may be several
 * indices that are one in memory. What follows the sum (an epilogue) reads the product from a workspace.
 *
 * The library decides the order of a sum, so results differ in their last bits from those without it.
 */
#include "passes/lower.h"

enum { LEAST_WORK = 64 * 64 * 64 }; /* below it a call costs more than it saves */

struct axis { /* indices that are one */
    int first, count;
    ir_dim extent;
};

/* The strides of a factor along its own axis and along the reduction. */
struct factor {
    ir_expr load;
    int64_t own, depth;
};

static bool axis_stride(struct lower *l, ir_expr load, struct axis x, int64_t *stride) {
    int64_t s, extent, expected = 0;
    for (int i = x.first + x.count; i-- > x.first;) {
        if (!nest_stride(l, load, i, &s) || (expected && s != expected))
            return false;
        if (!expected)
            *stride = s;
        if (i > x.first && !ir_dim_is_const(l->op->nest.indices[i].extent, &extent))
            return false;
        expected = i > x.first ? s * extent : 0;
        if (i > x.first && expected == 0)
            return false;
    }
    return *stride > 0;
}

static struct axis axis_of(struct lower *l, int first, int count) {
    struct axis x = {first, count, ir_dim_const(l->module, 1)};
    for (int i = first; i < first + count; i++)
        x.extent = ir_dim_mul(l->module, x.extent, l->op->nest.indices[i].extent);
    return x;
}

/* Whether the factor is a matrix that a BLAS takes, and its leading dimension. */
static bool is_matrix(struct lower *l, struct factor *f, struct axis own, struct axis depth, int64_t *leading) {
    if (!axis_stride(l, f->load, own, &f->own) || !axis_stride(l, f->load, depth, &f->depth))
        return false;
    *leading = f->depth == 1 ? f->own : f->depth;
    return (f->depth == 1 && f->own >= ir_dim_upper(depth.extent)) ||
           (f->own == 1 && f->depth >= ir_dim_upper(own.extent));
}

static bool plain_reduction(const struct ir_nest *nest) {
    for (int i = nest->pars; i < nest->pars + nest->reds; i++) {
        const struct ir_nest_index *x = &nest->indices[i];
        if (x->lo->kind != X_CONST || x->lo->value.i != 0 || (x->hi->kind != X_CONST && x->hi->kind != X_DIM))
            return false;
    }
    return true;
}

/* Loops over the first `count` indices; *at becomes their row-major position. A loop becomes part of the block around it only
 * when it is closed, behind what moved out of it. */
static void open_loops(struct nest_scope *n, int count, struct loop_stmt **loops, lx *at) {
    struct loop_builder *b = n->l->b;
    *at = lx_int(b, 0);
    for (int i = 0; i < count; i++) {
        const struct ir_nest_index *x = &n->nest->indices[i];
        struct loop_var *v = loop_var_new(b, x->name, I64, 1);
        loops[i] = loop_for(b, NULL, v, lx_int(b, 0), nest_dim(n, x->extent), 1, LOOP_SERIAL);
        nest_scope_enter(n, n->depth + 1, &loops[i]->body, ir_dim_lower(x->extent) > 0);
        nest_scope_set(n, i, lx_var(b, v), n->depth);
        *at = lx_add(b, lx_mul(b, *at, loops[i]->hi), lx_var(b, v));
    }
}

static void close_loops(struct nest_scope *n, int count, struct loop_stmt **loops) {
    while (count-- > 0)
        loop_append(n->block[--n->depth], loops[count]);
}

bool lower_blas(struct lower *l) {
    const struct ir_op *op = l->op;
    const struct ir_nest *nest = &op->nest;
    if (!l->options->blas || op->result_count != 1 || nest->acc_count != 1 || nest->results[0].base >= 0 ||
        nest->accs[0].op != RED_SUM || !nest->reds || !plain_reduction(nest))
        return false;
    ir_expr body = nest->accs[0].body;
    enum dtype t = body->dtype;
    if (body->kind != X_FN || body->fn != FN_mul || (t != F32 && t != F64))
        return false;
    struct factor a = {.load = body->args[0]}, b = {.load = body->args[1]};
    for (int i = 0; i < 2; i++)
        if (body->args[i]->kind != X_LOAD || body->args[i]->guarded)
            return false;
    /* batch, then the indices of one factor, then those of the other */
    uint32_t in_a = nest_uses(a.load), in_b = nest_uses(b.load);
    int batch = 0, rows = 0;
    while (batch < nest->pars && (in_a & in_b) >> batch & 1)
        batch++;
    if (batch == nest->pars)
        return false;
    if (in_b >> batch & 1) {
        struct factor swap = a;
        a = b, b = swap;
        in_a = nest_uses(a.load), in_b = nest_uses(b.load);
    }
    while (batch + rows < nest->pars && (in_a & ~in_b) >> (batch + rows) & 1)
        rows++;
    int columns = nest->pars - batch - rows;
    for (int i = batch + rows; i < nest->pars; i++)
        if (!((in_b & ~in_a) >> i & 1))
            return false;
    struct axis m = axis_of(l, batch, rows), n = axis_of(l, batch + rows, columns),
                k = axis_of(l, nest->pars, nest->reds);
    double work = (double)ir_dim_upper(m.extent) * (double)ir_dim_upper(n.extent) * (double)ir_dim_upper(k.extent);
    int64_t lda, ldb;
    if (!rows || !columns || work < LEAST_WORK || work > 1e18 || !is_matrix(l, &a, m, k, &lda) ||
        !is_matrix(l, &b, n, k, &ldb))
        return false;
    if (lda > INT32_MAX || ldb > INT32_MAX || ir_dim_upper(m.extent) > INT32_MAX ||
        ir_dim_upper(n.extent) > INT32_MAX || ir_dim_upper(k.extent) > INT32_MAX)
        return false;

    struct nest_scope *scope = arena_alloc(l->b->arena, sizeof *scope);
    nest_scope_init(scope, l);
    struct loop_builder *lb = l->b;
    const struct ir_value *y = op->results[0];
    bool direct = nest->results[0].value->kind == X_ACC;
    struct loop_mem *to =
        direct ? l->mem(l->context, y)
               : l->workspace(l->context, l->out, "product", t, ir_dim_upper(ir_type_elements(l->module, y->type)));
    to->written = true;
    struct loop_stmt *loops[NEST_MAX];
    lx offset;
    open_loops(scope, batch, loops, &offset);
    for (int i = batch; i < nest->pars + nest->reds; i++)
        nest_scope_set(scope, i, lx_int(lb, 0), 0);
    struct loop_func *f = ARENA_NEW(lb->arena, struct loop_func);
    *f = (struct loop_func){
        .name = t == F64 ? "mx_blas_f64" : "mx_blas_f32", .is_helper = true, .mem_count = 3, .var_count = 8};
    f->mems = ARENA_ARRAY(lb->arena, struct loop_mem *, 3);
    for (int i = 0; i < 3; i++)
        f->mems[i] = loop_mem_new(lb, "matrix", t, MEM_PARAM);
    struct loop_stmt *call = loop_call(lb, NULL, f);
    const struct factor *factors[2] = {&a, &b};
    for (int i = 0; i < 2; i++) {
        const struct ir_value *v = op->operands[factors[i]->load->index];
        call->call_mems[i].mem = l->mem(l->context, v);
        call->call_mems[i].offset = nest_address(scope, v->type, factors[i]->load->args);
    }
    lx size = lx_mul(lb, nest_dim(scope, m.extent), nest_dim(scope, n.extent));
    call->call_mems[2].mem = to;
    call->call_mems[2].offset = lx_mul(lb, offset, size);
    lx args[8] = {lx_int(lb, a.depth != 1),  lx_int(lb, b.depth == 1),  nest_dim(scope, m.extent),
                  nest_dim(scope, n.extent), nest_dim(scope, k.extent), lx_int(lb, lda),
                  lx_int(lb, ldb),           nest_dim(scope, n.extent)};
    for (int i = 0; i < 8; i++)
        call->call_args[i] = args[i];
    loop_append(scope->block[scope->depth], call);
    close_loops(scope, batch, loops);
    if (!direct) {
        nest_scope_init(scope, l);
        open_loops(scope, nest->pars, loops, &offset);
        scope->acc[0] = lx_load(lb, to, offset, 1);
        nest_store(scope, 0, nest_value(scope, nest->results[0].value));
        close_loops(scope, nest->pars, loops);
    }
    l->flops += nest_flops(nest, 1);
    return true;
}
