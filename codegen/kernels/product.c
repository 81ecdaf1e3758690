/* The form of a nest that libraries of matrix products take: see product.h. */
#include "codegen/kernels/product.h"

bool product_stride(struct lower *l, ir_expr load, struct axis x, int64_t *stride) {
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
    if (!product_stride(l, f->load, own, &f->own) || !product_stride(l, f->load, depth, &f->depth))
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

static ir_expr factor_load(ir_expr e, bool casts) {
    if (casts && e->kind == X_CAST && (e->args[0]->dtype == F16 || e->args[0]->dtype == BF16))
        e = e->args[0];
    return e->kind == X_LOAD && !e->guarded ? e : NULL;
}

bool product_of(struct lower *l, bool casts, struct matrix_product *p) {
    const struct ir_op *op = l->op;
    const struct ir_nest *nest = &op->nest;
    if (op->result_count != 1 || nest->acc_count != 1 || nest->results[0].base >= 0 || nest->accs[0].op != RED_SUM ||
        !nest->reds || !plain_reduction(nest))
        return false;
    ir_expr body = nest->accs[0].body;
    if (body->kind != X_FN || body->fn != FN_mul || (body->dtype != F32 && body->dtype != F64))
        return false;
    *p = (struct matrix_product){
        .dtype = body->dtype, .a.load = factor_load(body->args[0], casts), .b.load = factor_load(body->args[1], casts)};
    if (!p->a.load || !p->b.load)
        return false;
    /* batch, then the indices of one factor, then those of the other */
    uint32_t in_a = nest_uses(p->a.load), in_b = nest_uses(p->b.load);
    int batch = 0, rows = 0;
    while (batch < nest->pars && (in_a & in_b) >> batch & 1)
        batch++;
    if (batch == nest->pars)
        return false;
    if (in_b >> batch & 1) {
        struct factor swap = p->a;
        p->a = p->b, p->b = swap;
        in_a = nest_uses(p->a.load), in_b = nest_uses(p->b.load);
    }
    while (batch + rows < nest->pars && (in_a & ~in_b) >> (batch + rows) & 1)
        rows++;
    int columns = nest->pars - batch - rows;
    for (int i = batch + rows; i < nest->pars; i++)
        if (!((in_b & ~in_a) >> i & 1))
            return false;
    p->batch = axis_of(l, 0, batch);
    p->rows = axis_of(l, batch, rows);
    p->columns = axis_of(l, batch + rows, columns);
    p->depth = axis_of(l, nest->pars, nest->reds);
    int64_t m = ir_dim_upper(p->rows.extent), n = ir_dim_upper(p->columns.extent), k = ir_dim_upper(p->depth.extent);
    p->work = (double)m * (double)n * (double)k;
    return rows && columns && p->work <= 1e18 && is_matrix(l, &p->a, p->rows, p->depth, &p->lda) &&
           is_matrix(l, &p->b, p->columns, p->depth, &p->ldb) && p->lda <= INT32_MAX && p->ldb <= INT32_MAX &&
           m <= INT32_MAX && n <= INT32_MAX && k <= INT32_MAX;
}
