/* Regions and the operations that every stage builds: constants, reshapes, maps, buffer access, checks.
 *
 * A builder is only a place (`region`, `before`) and a span; it holds no state of its own, so that many may be open in one
 * function at once.
 */
#include <string.h>

#include "ir/bytes.h"
#include "ir/ir.h"

struct ir_region *ir_region_new(struct ir_func *f, struct ir_op *op) {
    struct ir_region *r = ARENA_NEW(&f->module->arena, struct ir_region);
    r->op = op;
    r->func = f;
    return r;
}

struct ir_value *ir_region_arg(struct ir_region *r, struct ir_type t, const char *name) {
    struct arena *arena = &r->func->module->arena;
    struct ir_value *v = ARENA_NEW(arena, struct ir_value);
    v->id = r->func->value_count++;
    v->type = t;
    v->index = r->arg_count;
    v->region = r;
    v->name = name;
    v->span = r->op ? r->op->span : r->func->span;
    struct ir_value **args = ARENA_ARRAY(arena, struct ir_value *, r->arg_count + 1);
    if (r->arg_count > 0)
        memcpy(args, r->args, sizeof *args * (size_t)r->arg_count);
    args[r->arg_count++] = v;
    r->args = args;
    return v;
}

void ir_region_yield(struct ir_region *r, struct ir_value **values, int n) {
    struct ir_value **yields = n > 0 ? ARENA_ARRAY(&r->func->module->arena, struct ir_value *, n) : NULL;
    if (n > 0)
        memcpy(yields, values, sizeof *values * (size_t)n);
    r->yields = yields;
    r->yield_count = n;
}

/* ---- constants -------------------------------------------------------------------------------------------------- */

struct ir_value *ir_build_const(struct ir_builder *b, struct ir_type t, const void *data) {
    int64_t elements = 1;
    for (int i = 0; i < t.rank; i++) {
        int64_t n = 0;
        ir_dim_is_const(t.dims[i], &n);
        elements *= n;
    }
    struct ir_op *op = ir_op_new(b, OP_const, NULL, 0, 0);
    op->constant.data = arena_copy(&b->module->arena, data, (size_t)elements * (size_t)dtype_size(t.dtype));
    return ir_op_result(op, t);
}

struct ir_value *ir_build_int(struct ir_builder *b, enum dtype t, int64_t value) {
    if (dtype_is_float(t))
        return ir_build_float(b, t, (double)value);
    unsigned char data[8];
    ir_bytes_store_int(t, value, data);
    return ir_build_const(b, ir_type_make(b->module, t, 0, NULL), data);
}

struct ir_value *ir_build_float(struct ir_builder *b, enum dtype t, double value) {
    unsigned char data[8];
    ir_expr e = ir_const_number(b->module, t, value); /* rounds, or converts as the language's cast does */
    if (dtype_is_float(t))
        ir_bytes_store_float(t, e->value.f, data);
    else
        ir_bytes_store_int(t, e->value.i, data);
    return ir_build_const(b, ir_type_make(b->module, t, 0, NULL), data);
}

/* ---- views and maps ---------------------------------------------------------------------------------------------- */

struct ir_value *ir_build_reshape(struct ir_builder *b, struct ir_value *v, int rank, const ir_dim *dims) {
    struct ir_type t = ir_type_make(b->module, v->type.dtype, rank, dims);
    if (ir_type_equal(t, v->type))
        return v;
    return ir_op_result(ir_op_new(b, OP_reshape, &v, 1, 0), t);
}

struct ir_value *ir_build_map(struct ir_builder *b, enum dtype t, int rank, const ir_dim *extents, ir_expr body,
                              struct ir_value **operands, int operand_count) {
    static const char *const names[] = {"i", "j", "k", "l", "m", "n", "p", "q"};
    const int named = (int)(sizeof names / sizeof *names);
    struct arena *arena = &b->module->arena;
    struct ir_op *op = ir_op_new(b, OP_nest, operands, operand_count, 0);
    op->nest.pars = rank;
    op->nest.indices = ARENA_ARRAY(arena, struct ir_nest_index, rank);
    for (int i = 0; i < rank; i++) {
        op->nest.indices[i].name = i < named ? names[i] : arena_printf(arena, "i%d", i);
        op->nest.indices[i].extent = extents[i];
    }
    op->nest.results = ARENA_ARRAY(arena, struct ir_nest_result, 1);
    op->nest.results[0].value = body;
    op->nest.results[0].base = -1;
    return ir_op_result(op, ir_type_make(b->module, t, rank, extents));
}

/* ---- buffers and checks ------------------------------------------------------------------------------------------ */

struct ir_value *ir_build_read(struct ir_builder *b, struct ir_buffer *buffer) {
    struct ir_op *op = ir_op_new(b, OP_read, NULL, 0, 0);
    op->buffer.buffer = buffer;
    struct ir_value *v = ir_op_result(op, buffer->type);
    v->name = v->buffer_name = buffer->name;
    return v;
}

void ir_build_write(struct ir_builder *b, struct ir_buffer *buffer, struct ir_value *v) {
    ir_op_new(b, OP_write, &v, 1, 0)->buffer.buffer = buffer;
}

struct ir_value *ir_build_check(struct ir_builder *b, struct ir_value *condition, const char *message) {
    struct ir_op *op = ir_op_new(b, OP_check, &condition, 1, 0);
    op->name = arena_strdup(&b->module->arena, message);
    return ir_op_result(op, ir_type_make(b->module, BOOL, 0, NULL));
}
