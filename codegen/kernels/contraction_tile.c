/* The micro-kernel of products: rows x vectors sums in registers over a block of the reduction, each step a load of one row of
 * the panel, a broadcast of one element for each row, and a multiply-add for each sum.
 */
#include <stdio.h>
#include <string.h>

#include "codegen/kernels/contraction.h"

enum { BAKED_STRIDE = 4 }; /* row strides up to this are part of the code, larger ones a parameter */

static const char *access_key(const struct contraction *c, char *out, size_t size) {
    if (c->access == ROWS_WINDOW)
        snprintf(out, size, c->row_stride <= BAKED_STRIDE ? "w%d" : "w", (int)c->row_stride);
    else
        snprintf(out, size, "a%d", c->access == ROWS_PLAIN ? 1 : c->row_tile);
    if (c->row_dtype != c->dtype) {
        size_t n = strlen(out);
        snprintf(out + n, size - n, "_%s", dtype_name(c->row_dtype));
    }
    return out;
}

enum sums { SUMS_CLEAR, SUMS_STORE, SUMS_ADD };

/* The sums to zero, to memory, or added to what earlier blocks of the reduction left there: each block is summed by itself, so
 * that rounding grows with the blocks' length and number, not with their product. */
static void each_sum(struct contraction *c, struct loop_block *k, struct loop_func *f, const struct loop_var *acc,
                     int rows, int vectors, enum sums what) {
    struct loop_builder *b = c->b;
    struct loop_var *r = loop_var_new(b, "r", I64, 1), *v = loop_var_new(b, "v", I64, 1);
    struct loop_stmt *outer = loop_for(b, k, r, lx_int(b, 0), lx_int(b, rows), 1, LOOP_UNROLL);
    struct loop_stmt *inner = loop_for(b, &outer->body, v, lx_int(b, 0), lx_int(b, vectors), 1, LOOP_UNROLL);
    lx at = lx_add(b, lx_mul(b, lx_var(b, r), lx_var(b, f->vars[2])), lx_mul(b, lx_var(b, v), lx_int(b, c->lanes)));
    lx slot = lx_add(b, lx_mul(b, lx_var(b, r), lx_int(b, vectors)), lx_var(b, v));
    lx sum = lx_var_at(b, acc, slot);
    if (what == SUMS_CLEAR) {
        loop_set(b, &inner->body, (struct loop_var *)acc, slot, lx_splat(b, lx_const_float(b, c->dtype, 0), c->lanes));
        return;
    }
    if (what == SUMS_ADD)
        sum = lx_fn2(b, FN_add, lx_load(b, f->mems[2], at, c->lanes), sum);
    loop_store(b, &inner->body, f->mems[2], at, sum);
}

static struct loop_func *micro_kernel(struct contraction *c, int rows, int vectors) {
    struct loop_builder *b = c->b;
    char key[96], access[24];
    snprintf(key, sizeof key, "tile_%s_%dx%dx%d_%s_b%d", dtype_name(c->dtype), rows, vectors, c->lanes,
             access_key(c, access, sizeof access), c->width);
    struct loop_func *f = c->l->shared(c->l->context, key);
    if (f)
        return f;
    f = ARENA_NEW(b->arena, struct loop_func);
    f->text = arena_printf(
        b->arena,
        "%d rows by %d columns of a product: a * b over k, added to c unless it is the first, a packed panel b of %d columns%s",
        rows, vectors * c->lanes, c->width, c->access == ROWS_WINDOW ? ", a at an offset for each k" : "");
    f->mem_count = c->access == ROWS_WINDOW ? 4 : 3;
    f->var_count = 4;
    f->mems = ARENA_ARRAY(b->arena, struct loop_mem *, 4);
    f->vars = ARENA_ARRAY(b->arena, struct loop_var *, 4);
    static const char *const mems[] = {"a", "b", "out", "offsets"}, *const vars[] = {"depth", "a_row", "out_row",
                                                                                     "first"};
    for (int i = 0; i < f->mem_count; i++)
        f->mems[i] = loop_mem_new(b, mems[i], i == 3 ? I32 : i == 0 ? c->row_dtype : c->dtype, MEM_PARAM);
    f->mems[2]->written = true;
    for (int i = 0; i < 4; i++)
        f->vars[i] = loop_var_new(b, vars[i], I64, 1);
    loop_block_init(&f->body);
    lx a_row = lx_var(b, f->vars[1]);
    if (c->access == ROWS_PACKED)
        a_row = lx_int(b, 1);
    else if (c->access == ROWS_WINDOW && c->row_stride <= BAKED_STRIDE)
        a_row = lx_int(b, c->row_stride);
    struct loop_var *acc = loop_var_new(b, "acc", c->dtype, c->lanes);
    acc->count = rows * vectors;
    acc->is_mutable = true;
    loop_def(b, &f->body, acc, NULL);
    each_sum(c, &f->body, f, acc, rows, vectors, SUMS_CLEAR);

    struct loop_var *k = loop_var_new(b, "k", I64, 1);
    struct loop_stmt *loop = loop_for(b, &f->body, k, lx_int(b, 0), lx_var(b, f->vars[0]), 1, LOOP_SERIAL);
    struct loop_var *bv = loop_var_new(b, "column", c->dtype, c->lanes);
    bv->count = vectors;
    bv->is_mutable = true;
    loop_def(b, &loop->body, bv, NULL);
    struct loop_var *v = loop_var_new(b, "v", I64, 1);
    struct loop_stmt *each = loop_for(b, &loop->body, v, lx_int(b, 0), lx_int(b, vectors), 1, LOOP_UNROLL);
    loop_set(
        b, &each->body, bv, lx_var(b, v),
        lx_load(b, f->mems[1],
                lx_add(b, lx_mul(b, lx_var(b, k), lx_int(b, c->width)), lx_mul(b, lx_var(b, v), lx_int(b, c->lanes))),
                c->lanes));
    lx along = lx_mul(b, lx_var(b, k), lx_int(b, c->access == ROWS_PACKED ? c->row_tile : 1));
    if (c->access == ROWS_WINDOW) {
        struct loop_var *offset = loop_var_new(b, "offset", I64, 1);
        loop_def(b, &loop->body, offset, lx_cast(b, I64, lx_load(b, f->mems[3], lx_var(b, k), 1)));
        along = lx_var(b, offset);
    }
    struct loop_var *r = loop_var_new(b, "r", I64, 1);
    struct loop_stmt *row = loop_for(b, &loop->body, r, lx_int(b, 0), lx_int(b, rows), 1, LOOP_UNROLL);
    struct loop_var *av = loop_var_new(b, "row", c->dtype, 1);
    lx element = lx_load(b, f->mems[0], lx_add(b, lx_mul(b, lx_var(b, r), a_row), along), 1);
    loop_def(b, &row->body, av, lx_cast(b, c->dtype, element));
    v = loop_var_new(b, "v", I64, 1);
    each = loop_for(b, &row->body, v, lx_int(b, 0), lx_int(b, vectors), 1, LOOP_UNROLL);
    lx slot = lx_add(b, lx_mul(b, lx_var(b, r), lx_int(b, vectors)), lx_var(b, v));
    loop_set(b, &each->body, acc, slot,
             lx_fma(b, lx_splat(b, lx_var(b, av), c->lanes), lx_var_at(b, bv, lx_var(b, v)), lx_var_at(b, acc, slot)));
    struct loop_stmt *end =
        loop_if(b, &f->body, lx_op(b, I_NOT, lx_op(b, I_EQ, lx_var(b, f->vars[3]), lx_int(b, 0)), NULL));
    each_sum(c, &end->body, f, acc, rows, vectors, SUMS_STORE);
    each_sum(c, &end->other, f, acc, rows, vectors, SUMS_ADD);
    c->l->share(c->l->context, key, f);
    return f;
}

lx contraction_result_address(struct contraction *c, lx row, lx column) {
    struct loop_builder *b = c->b;
    const struct ir_type t = c->l->op->results[0]->type;
    lx sum = lx_int(b, 0);
    for (int i = 0; i < c->batch.count; i++) {
        ir_dim stride = ir_dim_const(c->l->module, 1);
        for (int d = c->batch.index[i] + 1; d < t.rank; d++)
            stride = ir_dim_mul(c->l->module, stride, t.dims[d]);
        sum = lx_add(b, sum, lx_mul(b, c->n.index[c->batch.index[i]], nest_dim(&c->n, stride)));
    }
    return lx_add(b, lx_add(b, sum, lx_mul(b, row, lx_int(b, c->result_stride))), column);
}

/* The address of row `row` in the operand at k0, the batch as it stands. */
static lx plain_address(struct contraction *c, lx row, lx k0) {
    const struct ir_value *v = c->l->op->operands[c->rows.load->index];
    for (int i = 0; i < c->rows.group->count; i++)
        nest_scope_set(&c->n, c->rows.group->index[i], lx_int(c->b, 0), 0);
    for (int i = 0; i < c->k.count; i++)
        nest_scope_set(&c->n, c->k.index[i], lx_int(c->b, 0), 0);
    lx base = nest_address(&c->n, v->type, c->rows.load->args);
    return lx_add(c->b, lx_add(c->b, base, lx_mul(c->b, row, lx_int(c->b, c->row_stride))), k0);
}

void contraction_tile(struct contraction *c, int rows, int vectors, lx row, lx window, lx first, lx panel, lx k0,
                      lx depth) {
    struct loop_builder *b = c->b;
    struct loop_func *f = micro_kernel(c, rows, vectors);
    struct loop_stmt *s = loop_call(b, c->n.block[c->n.depth], f);
    s->call_mems[0].mem = c->access == ROWS_PACKED ? c->packed : c->row_mem;
    if (c->access == ROWS_WINDOW) {
        s->call_mems[0].offset = window;
        s->call_mems[3].mem = c->offsets;
        s->call_mems[3].offset = k0;
    } else if (c->access == ROWS_PLAIN) {
        s->call_mems[0].offset = plain_address(c, row, k0);
    } else {
        lx tile = lx_div(b, row, lx_int(b, c->row_tile));
        lx within = lx_sub(b, row, lx_mul(b, tile, lx_int(b, c->row_tile)));
        lx at = lx_add(b, lx_mul(b, lx_mul(b, tile, lx_int(b, c->row_tile)), c->k.size),
                       lx_mul(b, k0, lx_int(b, c->row_tile)));
        s->call_mems[0].offset = lx_add(b, c->packed_base, rows == 1 && c->row_tile > 1 ? lx_add(b, at, within) : at);
    }
    s->call_mems[1].mem = c->panel;
    s->call_mems[1].offset = panel;
    struct loop_mem *out = c->direct ? c->l->mem(c->l->context, c->l->op->results[0]) : c->strip;
    out->written = true;
    s->call_mems[2].mem = out;
    s->call_mems[2].offset =
        c->direct ? contraction_result_address(c, row, first)
                  : lx_add(b, c->strip_base, lx_mul(b, lx_sub(b, row, c->strip_row), lx_int(b, c->width)));
    s->call_args[0] = depth;
    s->call_args[1] = lx_int(b, c->access == ROWS_PACKED ? 1 : c->row_stride);
    s->call_args[2] = lx_int(b, c->direct ? c->result_stride : c->width);
    s->call_args[3] = lx_op(b, I_EQ, k0, lx_int(b, 0));
    int64_t constant;
    if (lx_is_int(k0, &constant))
        s->call_args[3] = lx_int(b, constant == 0);
}
