/* Large matrix products by a BLAS, when one was asked for (`--blas openblas`): a nest that sums a product of two unguarded loads,
 * each a matrix with one stride of 1, its result row-major in the order batch, rows, columns. Rows and columns may be several
 * indices that are one in memory. What follows the sum (an epilogue) reads the product from a workspace.
 *
 * The library decides the order of a sum, so results differ in their last bits from those without it.
 */
#include "codegen/kernels/product.h"

enum { LEAST_WORK = 64 * 64 * 64 }; /* below it a call costs more than it saves */

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
    struct matrix_product p;
    if (!l->options->blas || !product_of(l, false, &p) || p.work < LEAST_WORK)
        return false;
    const struct factor *factors[2] = {&p.a, &p.b};
    enum dtype t = p.dtype;
    int batch = p.batch.count;

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
    for (int i = 0; i < 2; i++) {
        const struct ir_value *v = op->operands[factors[i]->load->index];
        call->call_mems[i].mem = l->mem(l->context, v);
        call->call_mems[i].offset = nest_address(scope, v->type, factors[i]->load->args);
    }
    lx size = lx_mul(lb, nest_dim(scope, p.rows.extent), nest_dim(scope, p.columns.extent));
    call->call_mems[2].mem = to;
    call->call_mems[2].offset = lx_mul(lb, offset, size);
    lx args[8] = {lx_int(lb, p.a.depth != 1),
                  lx_int(lb, p.b.depth == 1),
                  nest_dim(scope, p.rows.extent),
                  nest_dim(scope, p.columns.extent),
                  nest_dim(scope, p.depth.extent),
                  lx_int(lb, p.lda),
                  lx_int(lb, p.ldb),
                  nest_dim(scope, p.columns.extent)};
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
