/* Large convolutions and their gradients by cuDNN, when that was asked for (`--cudnn`): of f32, and of 16 bit floats summed in f32.
 *
 * The library rounds its sums to the type of what it reads. So of 16 bits it takes what is rounded there anyway, by the value that
 * follows the sum; a gradient of weights that stays f32 is left to own kernels. A value other than the sum reads it from a workspace
 * in a kernel behind the call. Which algorithm is taken depends on the GPU, so last bits differ from GPU to GPU; only such are taken as give
 * the same bits in every run.
 */
#include "codegen/kernels/convolution.h"
#include "codegen/kernels/library_call.h"

enum {
    LEAST_WORK = 1 << 21,     /* multiply-adds of a convolution; below, a call costs more than it saves */
    LIBRARY_BYTES = 32 << 20, /* that it may work in */
};

static void note_sum(ir_expr e, void *context) {
    *(bool *)context |= e->kind == X_ACC;
}

static bool has_sum(ir_expr e) {
    bool found = false;
    ir_expr_walk(e, note_sum, &found);
    return found;
}

/* Whether rounding e to 16 bits is the same if the sum in it was rounded before: it only chooses between the sum and 0. */
static bool keeps_rounding(ir_expr e) {
    if (e->kind != X_FN)
        return e->kind == X_ACC;
    bool zero[3] = {false};
    for (int i = 0; i < e->count; i++)
        zero[i] = e->args[i]->kind == X_CONST && dtype_is_float(e->args[i]->dtype) && e->args[i]->value.f == 0;
    switch (e->fn) {
    case FN_neg: return keeps_rounding(e->args[0]);
    case FN_max:
    case FN_min: return (zero[0] && keeps_rounding(e->args[1])) || (zero[1] && keeps_rounding(e->args[0]));
    case FN_where:
        return !has_sum(e->args[0]) &&
               ((zero[1] && keeps_rounding(e->args[2])) || (zero[2] && keeps_rounding(e->args[1])));
    default: return false;
    }
}

/* Whether the sum may be rounded to t before anything else is done with it. */
static bool is_rounded(ir_expr e, enum dtype t) {
    if (e->kind == X_ACC)
        return false;
    if (e->kind == X_CAST && e->dtype == t && keeps_rounding(e->args[0]))
        return true;
    for (int i = 0; i < e->count; i++)
        if (!is_rounded(e->args[i], t))
            return false;
    return true;
}

bool lower_cudnn(struct lower *l) {
    const struct ir_op *op = l->op;
    const struct ir_nest *nest = &op->nest;
    struct loop_builder *b = l->b;
    struct convolution c;
    if (!l->options->cudnn || !convolution_of(l, &c) || c.work < LEAST_WORK)
        return false;
    for (int i = 0; i < op->result_count && c.dtype != F32; i++)
        if (!is_rounded(nest->results[i].value, c.dtype))
            return false;
    const struct ir_value *y = op->results[0];
    ir_expr value = nest->results[0].value;
    bool direct = op->result_count == 1 && y->type.dtype == c.dtype &&
                  (value->kind == X_ACC || (value->kind == X_CAST && value->args[0]->kind == X_ACC));
    for (int r = 0; r < CONVOLUTION_ROLES; r++)
        if (c.load[r])
            direct &= l->mem(l->context, op->operands[c.load[r]->index]) != l->mem(l->context, y);
    struct loop_mem *library = l->workspace(l->context, l->out, "library", U8, LIBRARY_BYTES);
    struct loop_mem *to =
        direct ? l->mem(l->context, y)
               : l->workspace(l->context, l->out, "sums", c.dtype, ir_dim_upper(ir_type_elements(l->module, y->type)));
    struct nest_scope *scope = arena_alloc(b->arena, sizeof *scope);
    nest_scope_init(scope, l);
    nest_scope_enter(scope, 0, l->out, true);
    to->written = library->written = true;
    struct library_memory memories[CONVOLUTION_ROLES + 1] = {[CONVOLUTION_ROLES] = {library, NULL}};
    for (int r = 0; r < CONVOLUTION_ROLES; r++)
        memories[r].mem = c.load[r] ? l->mem(l->context, op->operands[c.load[r]->index]) : to;
    enum { FIRST = 7, EACH = 6 };
    lx numbers[FIRST + EACH * CONVOLUTION_AXES + 1] = {
        lx_int(b, c.result),      lx_int(b, c.dtype),  lx_int(b, l->options->precision == PRECISION_TF32),
        nest_dim(scope, c.batch), lx_int(b, c.inputs), lx_int(b, c.outputs),
        lx_int(b, c.groups)};
    for (int a = 0; a < CONVOLUTION_AXES; a++) {
        const struct convolution_axis *x = &c.axis[a];
        lx *n = numbers + FIRST + EACH * a;
        n[0] = nest_dim(scope, x->input);
        n[1] = lx_int(b, x->kernel);
        n[2] = nest_dim(scope, x->output);
        n[3] = lx_int(b, x->stride);
        n[4] = lx_int(b, x->pad);
        n[5] = lx_int(b, x->dilation);
    }
    numbers[FIRST + EACH * CONVOLUTION_AXES] = lx_int(b, LIBRARY_BYTES);
    library_call(l, "mx_convolution", numbers, sizeof numbers / sizeof *numbers, memories, CONVOLUTION_ROLES + 1);
    if (!direct)
        library_finish(l, to);
    double flops = 2 * c.work;
    l->flops += flops < 9e18 ? (int64_t)flops : INT64_MAX;
    return true;
}
