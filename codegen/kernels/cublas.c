/* Large matrix products by cuBLASLt, when that was asked for (`--cublas`): f32, f64, and 16 bit floats summed in f32. What follows the
 * sum goes into the library's epilogue as far as that has it: a bias along the columns, a residual of the result's own shape (beta = 1),
 * max(…, 0), GELU by tanh, the gradient of GELU by what it was computed from, rounding to 16 bits. Anything else reads the product from a
 * workspace in a kernel behind it.
 *
 * The library is column-major: D^T = B^T A^T, so rows and columns change places, and a bias along our columns is its bias.
 * Which algorithm it takes depends on the GPU, so last bits differ from GPU to GPU; on one they are the same in every run, for each
 * product has a workspace of its own and none uses atomic additions.
 */
#include "codegen/kernels/gelu.h"
#include "codegen/kernels/library_call.h"
#include "codegen/kernels/product.h"

enum {
    LEAST_WORK = 1 << 21,    /* multiply-adds of one product; below, a call costs more than it saves */
    LEAST_COLUMNS = 8,       /* narrower products are bound by memory: own kernels */
    LIBRARY_BYTES = 4 << 20, /* that it may work in */
    RELU = 1,
    BIAS = 2,
    RESIDUAL = 4,
    GELU = 8,
    GELU_GRADIENT = 16, /* as the unit's function has them (codegen/cuda/library.c) */
};

struct epilogue {
    int flags;
    ir_expr bias, residual; /* loads; GELU_GRADIENT: of what GELU was computed from */
    enum dtype out;
};

static ir_expr without_cast(ir_expr e, enum dtype out) {
    return e->kind == X_CAST && e->args[0]->dtype == out ? e->args[0] : e;
}

/* A load of the columns' own vector: the same for every row. */
static bool is_bias(struct lower *l, const struct matrix_product *p, ir_expr load, enum dtype out) {
    int64_t stride;
    uint32_t columns = ((1u << p->columns.count) - 1) << p->columns.first;
    return load->kind == X_LOAD && !load->guarded && load->dtype == out && nest_uses(load) == columns &&
           product_stride(l, load, p->columns, &stride) && stride == 1 && p->batch.count == 0;
}

/* A load of the result's shape, row-major. */
static bool is_residual(struct lower *l, const struct matrix_product *p, ir_expr load, enum dtype out) {
    int64_t across, down, columns, rows, whole;
    if (load->kind != X_LOAD || load->guarded || load->dtype != out || !ir_dim_is_const(p->columns.extent, &columns) ||
        !product_stride(l, load, p->columns, &across) || across != 1 || !product_stride(l, load, p->rows, &down) ||
        down != columns)
        return false;
    return p->batch.count == 0 || (ir_dim_is_const(p->rows.extent, &rows) &&
                                   product_stride(l, load, p->batch, &whole) && whole == rows * columns);
}

struct loads {
    struct lower *l;
    const struct matrix_product *p;
    enum dtype out;
    ir_expr bias, residual[4];
    int residuals;
    bool other;
};

static void note_load(ir_expr e, void *context) {
    struct loads *found = context;
    if (e->kind != X_LOAD)
        return;
    if (!found->bias && is_bias(found->l, found->p, e, found->out))
        found->bias = e;
    else if (found->residuals < 4 && is_residual(found->l, found->p, e, found->out))
        found->residual[found->residuals++] = e;
    else
        found->other = true;
}

/* GELU, or its gradient; of that the library wants whole vectors of 16 bytes. */
static bool gelu_of(struct lower *l, const struct matrix_product *p, ir_expr e, struct epilogue *x) {
    struct loads found = {.l = l, .p = p, .out = x->out};
    int64_t columns;
    ir_expr_walk(e, note_load, &found);
    if (p->dtype != F32 || found.other || (found.residuals && (found.bias || p->batch.count)))
        return false;
    if (!found.residuals && is_gelu(l, e, found.bias)) {
        x->bias = found.bias;
        x->residual = NULL;
        x->flags = GELU | (found.bias ? BIAS : 0);
        return true;
    }
    for (int i = 0; i < found.residuals; i++) {
        const struct ir_value *from = l->op->operands[found.residual[i]->index];
        if (ir_dim_is_const(p->columns.extent, &columns) && columns % 8 == 0 &&
            l->mem(l->context, from) != l->mem(l->context, l->op->results[0]) &&
            is_gelu_gradient(l, e, found.residual[i])) {
            x->bias = NULL;
            x->residual = found.residual[i];
            x->flags = GELU_GRADIENT;
            return true;
        }
    }
    return false;
}

/* A bias, a residual, max(…, 0). */
static bool linear_of(struct lower *l, const struct matrix_product *p, ir_expr e, struct epilogue *x) {
    if (e->kind == X_FN && e->fn == FN_max)
        for (int i = 0; i < 2; i++)
            if (e->args[i]->kind == X_CONST && e->args[i]->value.f == 0 && p->dtype == F32) {
                x->flags |= RELU;
                e = e->args[1 - i];
                break;
            }
    while (e->kind == X_FN && e->fn == FN_add) {
        int side = 0;
        for (; side < 2; side++) {
            ir_expr load = without_cast(e->args[side], x->out);
            if (!x->bias && p->dtype == F32 && is_bias(l, p, load, x->out)) {
                x->bias = load;
                x->flags |= BIAS;
                break;
            }
            if (!x->residual && is_residual(l, p, load, x->out)) {
                x->residual = load;
                x->flags |= RESIDUAL;
                break;
            }
        }
        if (side == 2)
            return false;
        e = e->args[1 - side];
    }
    return e->kind == X_ACC;
}

/* Whether what follows the sum is an epilogue of the library's. */
static bool epilogue_of(struct lower *l, const struct matrix_product *p, ir_expr e, struct epilogue *x) {
    x->out = e->dtype;
    if (e->kind == X_CAST && p->dtype == F32 && (e->dtype == F16 || e->dtype == BF16))
        e = e->args[0];
    else if (e->dtype != p->dtype)
        return false;
    return linear_of(l, p, e, x) || gelu_of(l, p, e, x);
}

static bool batch_stride(struct lower *l, const struct matrix_product *p, ir_expr load, int64_t *stride) {
    *stride = 0;
    return p->batch.count == 0 || product_stride(l, load, p->batch, stride);
}

bool lower_cublas(struct lower *l) {
    const struct ir_op *op = l->op;
    struct matrix_product p;
    struct epilogue x = {0};
    int64_t stride[2];
    if (!l->options->cublas || !product_of(l, true, &p) || p.work < LEAST_WORK || p.a.load->dtype != p.b.load->dtype ||
        ir_dim_lower(p.depth.extent) < 1 || ir_dim_upper(p.columns.extent) < LEAST_COLUMNS ||
        ir_dim_upper(p.rows.extent) < LEAST_COLUMNS || !batch_stride(l, &p, p.a.load, &stride[0]) ||
        !batch_stride(l, &p, p.b.load, &stride[1]))
        return false;
    const struct ir_value *y = op->results[0];
    struct loop_builder *b = l->b;
    bool direct = epilogue_of(l, &p, op->nest.results[0].value, &x);
    if (!direct)
        x = (struct epilogue){.out = p.dtype};
    struct loop_mem *library = l->workspace(l->context, l->out, "library", U8, LIBRARY_BYTES);
    struct loop_mem *to = direct ? l->mem(l->context, y)
                                 : l->workspace(l->context, l->out, "product", p.dtype,
                                                ir_dim_upper(ir_type_elements(l->module, y->type)));
    struct nest_scope *scope = arena_alloc(b->arena, sizeof *scope);
    nest_scope_init(scope, l);
    nest_scope_enter(scope, 0, l->out, true);
    for (int i = 0; i < op->nest.pars + op->nest.reds; i++)
        nest_scope_set(scope, i, lx_int(b, 0), 0);
    to->written = library->written = true;
    const ir_expr loads[5] = {p.a.load, p.b.load, NULL, x.bias, x.residual};
    struct library_memory memories[6] = {[5] = {library, NULL}};
    for (int i = 0; i < 5; i++) {
        const struct ir_value *v = loads[i] ? op->operands[loads[i]->index] : NULL;
        memories[i] = v ? (struct library_memory){l->mem(l->context, v), nest_address(scope, v->type, loads[i]->args)}
                        : (struct library_memory){to, NULL}; /* the result; what is absent is not looked at */
    }
    const lx numbers[] = {lx_int(b, p.a.load->dtype),
                          lx_int(b, x.out),
                          lx_int(b, p.dtype),
                          lx_int(b, x.flags),
                          lx_int(b, p.a.depth != 1),
                          lx_int(b, p.b.depth == 1),
                          nest_dim(scope, p.rows.extent),
                          nest_dim(scope, p.columns.extent),
                          nest_dim(scope, p.depth.extent),
                          lx_int(b, p.lda),
                          lx_int(b, p.ldb),
                          nest_dim(scope, p.batch.extent),
                          lx_int(b, stride[0]),
                          lx_int(b, stride[1]),
                          lx_int(b, LIBRARY_BYTES)};
    library_call(l, "mx_product", numbers, sizeof numbers / sizeof *numbers, memories, 6);
    if (!direct)
        library_finish(l, to);
    l->flops += nest_flops(&op->nest, 1);
    return true;
}
