/* Calls of tensor cores and asynchronous copies: see gpu_tensor.h.
 *
 * A fragment of halves is one ldmatrix: each lane names a row of 16 bytes. Rows of a tile are 16 bytes longer than what they hold, so
 * that the eight rows of a matrix lie in different banks. Words of tf32 have no such instruction and are read one by one, rounded on the
 * way; there rows along the depth are 4 words longer and rows of positions 8, which does the same for lanes.
 */
#include "codegen/kernels/gpu_tensor.h"

enum dtype gpu_mma_type(enum gpu_mma kind) {
    return kind == MMA_BF16 ? BF16 : kind == MMA_F16 ? F16 : F32;
}

int gpu_mma_depth(enum gpu_mma kind) {
    return kind == MMA_TF32 ? 8 : 16;
}

int gpu_mma_together(enum gpu_mma kind) {
    return kind == MMA_TF32 ? 4 : 8;
}

struct loop_mem *gpu_registers(struct loop_builder *b, struct loop_block *k, const char *name, enum dtype t,
                               int64_t count) {
    struct loop_mem *m = loop_mem_new(b, name, t, MEM_LOCAL);
    m->count = count;
    m->written = true;
    loop_local(b, k, m);
    return m;
}

/* A call name(argument, mems + offsets); argument NULL: none. */
static void call(struct loop_builder *b, struct loop_block *k, const char *name, lx argument, int count,
                 struct loop_mem *const *mems, const lx *at) {
    struct loop_func *f = arena_alloc(b->arena, sizeof *f);
    *f = (struct loop_func){.name = name, .is_helper = true, .mem_count = count};
    if (count)
        f->mems = arena_copy(b->arena, mems, sizeof *mems * (size_t)count);
    if (argument) {
        f->vars = ARENA_ARRAY(b->arena, struct loop_var *, 1);
        f->vars[f->var_count++] = loop_var_new(b, "argument", argument->dtype, 1);
    }
    loop_block_init(&f->body);
    struct loop_stmt *s = loop_call(b, k, f);
    for (int i = 0; i < count; i++) {
        s->call_mems[i].mem = mems[i];
        s->call_mems[i].offset = at[i];
    }
    if (argument)
        s->call_args[0] = argument;
}

/* ---- where lanes read ---------------------------------------------------------------------------------------------------- */

int gpu_operand_stride(enum gpu_mma kind, bool along, int positions, int depth) {
    return (along ? depth : positions) + (kind == MMA_TF32 && along ? 4 : 8);
}

static int64_t position_step(const struct gpu_operand *o) {
    return o->along ? o->stride : 1;
}

static int64_t depth_step(const struct gpu_operand *o) {
    return o->along ? 1 : o->stride;
}

void gpu_operand_open(struct loop_builder *b, struct loop_block *k, struct gpu_operand *o, lx lane, lx first) {
    lx position, depth;
    if (o->kind == MMA_TF32) {
        position = lx_div(b, lane, lx_int(b, 4));
        depth = lx_mod(b, lane, lx_int(b, 4));
    } else {
        /* The matrices in the order of the registers: rows, then depth, of the first factor; depth, then columns, of the second. */
        lx row = lx_mod(b, lane, lx_int(b, 8)), second = lx_mod(b, lx_div(b, lane, lx_int(b, 8)), lx_int(b, 2)),
           third = lx_div(b, lane, lx_int(b, 16));
        lx next = lx_mul(b, o->columns ? third : second, lx_int(b, 8)),
           deeper = lx_mul(b, o->columns ? second : third, lx_int(b, 8));
        position = o->along ? lx_add(b, next, row) : next;
        depth = o->along ? deeper : lx_add(b, deeper, row);
    }
    lx at = lx_add(b, lx_mul(b, lx_add(b, first, position), lx_int(b, position_step(o))),
                   lx_mul(b, depth, lx_int(b, depth_step(o))));
    o->lane_at = gpu_named(b, k, o->columns ? "col_lane" : "row_lane", at);
}

void gpu_fragment(struct loop_builder *b, struct loop_block *k, const struct gpu_operand *o, struct loop_mem *to, lx at,
                  lx tile, lx step, lx base) {
    lx from = lx_add(b, lx_add(b, base, o->lane_at),
                     lx_add(b, lx_mul(b, tile, lx_int(b, 16 * position_step(o))),
                            lx_mul(b, step, lx_int(b, gpu_mma_depth(o->kind) * depth_step(o)))));
    if (o->kind != MMA_TF32) {
        call(b, k, o->along ? "mx_ldmatrix" : "mx_ldmatrix_trans", NULL, 2, (struct loop_mem *[]){to, o->shared},
             (lx[]){at, from});
        return;
    }
    for (int i = 0; i < 4; i++) {
        int64_t position = o->columns ? i / 2 : i % 2, deeper = o->columns ? i % 2 : i / 2;
        lx word = lx_load(b, o->shared,
                          lx_add(b, from, lx_int(b, 8 * position * position_step(o) + 4 * deeper * depth_step(o))), 1);
        loop_store(b, k, to, lx_add(b, at, lx_int(b, i)), lx_call(b, "mx_tf32_from_f32", U32, 1, &word));
    }
}

/* ---- products -------------------------------------------------------------------------------------------------------------- */

void gpu_mma(struct loop_builder *b, struct loop_block *k, enum gpu_mma kind, struct loop_mem *sums, lx at,
             struct loop_mem *rows, lx rows_at, struct loop_mem *cols, lx cols_at) {
    static const char *const names[] = {
        [MMA_BF16] = "mx_mma_bf16", [MMA_F16] = "mx_mma_f16", [MMA_TF32] = "mx_mma_tf32"};
    call(b, k, names[kind], NULL, 3, (struct loop_mem *[]){sums, rows, cols}, (lx[]){at, rows_at, cols_at});
}

lx gpu_mma_row(struct loop_builder *b, lx lane, lx i) {
    return lx_add(b, lx_div(b, lane, lx_int(b, 4)), lx_mul(b, lx_div(b, i, lx_int(b, 2)), lx_int(b, 8)));
}

lx gpu_mma_col(struct loop_builder *b, lx lane, lx i) {
    return lx_add(b, lx_mul(b, lx_mod(b, lane, lx_int(b, 4)), lx_int(b, 2)), lx_mod(b, i, lx_int(b, 2)));
}

lx gpu_pack(struct loop_builder *b, enum gpu_mma kind, lx low, lx high) {
    lx pair[2] = {low, high};
    return lx_call(b, kind == MMA_BF16 ? "mx_pack_bf16" : "mx_pack_f16", U32, 2, pair);
}

/* ---- copies ---------------------------------------------------------------------------------------------------------------- */

void gpu_copy(struct loop_builder *b, struct loop_block *k, lx valid, struct loop_mem *to, lx at, struct loop_mem *from,
              lx from_at) {
    lx zero = lx_int(b, 0), bytes = valid ? lx_select(b, valid, lx_int(b, 16), zero) : lx_int(b, 16);
    call(b, k, "mx_copy", bytes, 2, (struct loop_mem *[]){to, from},
         (lx[]){at, valid ? lx_select(b, valid, from_at, zero) : from_at});
}

void gpu_copy_wait(struct loop_builder *b, struct loop_block *k) {
    call(b, k, "mx_copy_wait", NULL, 0, NULL, NULL);
}

static bool constant_multiple(ir_dim d, int64_t of, int64_t *value) {
    return ir_dim_is_const(d, value) && *value % of == 0;
}

/* Whether e changes with the index only from one multiple of `count` to the next: every use is a quotient by such a multiple. */
static bool steps_by(ir_expr e, int index, int count) {
    double by;
    if (!(nest_uses(e) >> index & 1))
        return true;
    if (e->kind == X_FN && e->fn == FN_div && e->args[0]->kind == X_INDEX && ir_expr_is_const(e->args[1], &by))
        return by >= count && (int64_t)by % count == 0;
    if (e->kind == X_INDEX)
        return false;
    for (int i = 0; i < e->count; i++)
        if (!steps_by(e->args[i], index, count))
            return false;
    return true;
}

/* The remainder of the index by a multiple of `count`: heads that are joined, x[c / D, n, c % D]. */
static bool is_remainder(ir_expr e, int index, int count) {
    double by;
    return e->kind == X_FN && e->fn == FN_mod && e->args[0]->kind == X_INDEX && e->args[0]->index == index &&
           ir_expr_is_const(e->args[1], &by) && by >= count && (int64_t)by % count == 0;
}

bool gpu_loads_together(struct lower *l, const struct ir_nest *nest, ir_expr load, int index, int count) {
    ir_dim coefficients[NEST_MAX], constant;
    int total = nest->pars + nest->reds;
    int64_t value;
    if (load->kind != X_LOAD || load->guarded || total > NEST_MAX)
        return false;
    struct ir_type t = l->op->operands[load->index]->type;
    if (t.rank == 0 || !constant_multiple(t.dims[t.rank - 1], count, &value) ||
        !constant_multiple(nest->indices[index].extent, count, &value))
        return false;
    for (int d = 0; d < t.rank - 1; d++)
        if (!steps_by(load->args[d], index, count))
            return false;
    if (is_remainder(load->args[t.rank - 1], index, count))
        return true;
    if (!ir_expr_affine(l->module, load->args[t.rank - 1], total, coefficients, &constant) ||
        !constant_multiple(constant, count, &value))
        return false;
    for (int i = 0; i < total; i++)
        if (i == index ? !ir_dim_is_const(coefficients[i], &value) || value != 1
                       : !constant_multiple(coefficients[i], count, &value))
            return false;
    return true;
}
