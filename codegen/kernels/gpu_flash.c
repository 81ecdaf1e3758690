/* The parts of attention on a GPU: see gpu_flash.h.
 *
 * A warp has 16 rows of the tile to itself. On tensor cores a lane has two of them in part, in the layout of the instruction, which is
 * also that of its first factor: weights go from one product into the next in registers. On ordinary units a lane has four rows and
 * every eighth column, reads both factors four units at a time, and weights pass through shared memory.
 */
#include <string.h>

#include "codegen/kernels/gpu_flash.h"

/* ---- the call ------------------------------------------------------------------------------------------------------------- */

double flash_constant(const struct ir_op *op, const char *name, bool *known) {
    for (int i = 0; i < op->kernel.static_count; i++)
        if (!strcmp(op->kernel.statics[i].name, name))
            return op->kernel.statics[i].value;
    *known = false;
    return 0;
}

static bool is_units(ir_dim d, int64_t together, int64_t *n) {
    return ir_dim_is_const(d, n) && *n > 0 && *n <= FLASH_UNITS && *n % together == 0;
}

static ir_dim score_dim(const struct flash *f, int d) {
    int rank = f->q->type.rank;
    return d == rank - 1 ? f->key_count : f->q->type.dims[d];
}

static void see_effect(struct ir_op *op, void *context) {
    *(bool *)context |= ir_optable[op->code].effect != EFFECT_PURE;
}

bool flash_read(struct flash *f, const struct compile_options *o, const struct ir_op *op) {
    bool known = true, effects = false, masked = !strncmp(op->name, "masked_", 7);
    int64_t heads, together;
    for (int i = 0; i < op->region_count; i++) /* a check in the definition must stay */
        ir_walk_ops(op->regions[i], see_effect, &effects);
    if (effects || op->operand_count < 3 + masked)
        return false;
    *f = (struct flash){.q = op->operands[0], .key = op->operands[1], .v = op->operands[2]};
    f->mask = masked ? op->operands[3] : NULL;
    f->causal = flash_constant(op, "causal", &known) != 0;
    f->scale = flash_constant(op, "scale", &known);
    f->window = (int64_t)flash_constant(op, "window", &known);
    f->stored = f->type = f->q->type.dtype;
    if (f->stored == F32 && (o->precision == PRECISION_BF16 || o->precision == PRECISION_F16))
        f->type = o->precision == PRECISION_BF16 ? BF16 : F16;
    f->tensor = f->type == BF16 || f->type == F16;
    f->kind = f->type == BF16 ? MMA_BF16 : MMA_F16;
    f->slots = f->tensor ? 2 : 4;
    together = f->tensor ? 8 : 4;
    int rank = f->q->type.rank;
    if (!known || !(f->scale > 0) || rank < 3 || (!f->tensor && f->type != F32) || f->key->type.rank != rank ||
        f->v->type.rank != rank)
        return false;
    if (!is_units(f->q->type.dims[rank - 1], together, &f->D) ||
        !is_units(f->v->type.dims[rank - 1], together, &f->E) || !ir_dim_is_const(f->q->type.dims[rank - 3], &heads) ||
        !ir_dim_is_const(f->key->type.dims[rank - 3], &f->G) || f->G <= 0 || heads % f->G)
        return false;
    f->sharing = heads / f->G;
    f->key_count = op->kernel.limit ? op->kernel.limit : f->key->type.dims[rank - 2];
    for (int d = 0; f->mask && d < f->mask->type.rank; d++) {
        int64_t one;
        int s = rank - f->mask->type.rank + d;
        if (s < 0 ||
            (f->mask->type.dims[d] != score_dim(f, s) && (!ir_dim_is_const(f->mask->type.dims[d], &one) || one != 1)))
            return false;
    }
    return true;
}

void flash_begin(struct flash *f, struct lower *l) {
    struct ir_module *m = l->module;
    int rank = f->q->type.rank;
    f->l = l;
    f->b = l->b;
    f->group_count = ir_dim_const(m, f->G);
    for (int d = 0; d < rank - 3; d++)
        f->group_count = ir_dim_mul(m, f->group_count, f->q->type.dims[d]);
    f->row_count = ir_dim_mul(m, ir_dim_const(m, f->sharing), f->q->type.dims[rank - 2]);
    f->groups = lx_dim(f->b, f->group_count, l->symbol, l->context);
    f->rows = lx_dim(f->b, f->row_count, l->symbol, l->context);
    f->Q = lx_dim(f->b, f->q->type.dims[rank - 2], l->symbol, l->context);
    f->K = lx_dim(f->b, f->key_count, l->symbol, l->context);
    for (int i = 0; i < 2; i++)
        f->held[i] = lx_dim(f->b, (i ? f->v : f->key)->type.dims[rank - 2], l->symbol, l->context);
    f->offset = lx_sub(f->b, f->K, f->Q);
}

int64_t flash_flops(const struct flash *f, int64_t products) {
    double n = 2.0 * (double)products * (double)ir_dim_upper(f->group_count) * (double)ir_dim_upper(f->row_count) *
               (double)ir_dim_upper(f->key_count) * (double)(f->D + f->E) / 2;
    return n < 9e18 ? (int64_t)n : INT64_MAX;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------------------ */

lx flash_named(struct flash *f, const char *name, lx e) {
    return gpu_named(f->b, f->here, name, e);
}

struct loop_stmt *flash_loop(struct flash *f, const char *name, int64_t n, lx *counter) {
    struct loop_var *v = loop_var_new(f->b, name, I64, 1);
    struct loop_stmt *s = loop_for(f->b, NULL, v, lx_int(f->b, 0), lx_int(f->b, n), 1, LOOP_UNROLL);
    *counter = lx_var(f->b, v);
    f->here = &s->body;
    return s;
}

struct loop_stmt *flash_if(struct flash *f, lx test) {
    struct loop_stmt *s = loop_if(f->b, NULL, test);
    f->here = &s->body;
    return s;
}

void flash_leave(struct flash *f, struct loop_stmt *s, struct loop_block *outer) {
    loop_append(outer, s);
    f->here = outer;
}

void flash_open(struct flash *f, lx blocks) {
    struct loop_builder *b = f->b;
    f->k = gpu_open(b, f->l->out, blocks, f->shape.warps * GPU_WARP);
    f->here = f->k.body;
    f->lane = flash_named(f, "lane_", lx_mod(b, f->k.thread, lx_int(b, GPU_WARP)));
    f->warp = flash_named(f, "warp", lx_div(b, f->k.thread, lx_int(b, GPU_WARP)));
    lx first = lx_mul(b, f->warp, lx_int(b, FLASH_WARP_ROWS));
    for (int s = 0; s < f->slots; s++) {
        lx row = f->tensor ? lx_add(b, lx_div(b, f->lane, lx_int(b, 4)), lx_int(b, 8 * s))
                           : lx_add(b, lx_mul(b, lx_div(b, f->lane, lx_int(b, 8)), lx_int(b, 4)), lx_int(b, s));
        f->row[s] = flash_named(f, "row", lx_add(b, first, row));
    }
    if (!f->tensor)
        f->weights = gpu_shared(&f->k, "weights", F32, (int64_t)f->shape.warps * FLASH_WARP_ROWS * (f->shape.cols + 4));
}

int64_t flash_padded(const struct flash *f, int64_t units) {
    int64_t to = f->tensor ? 16 : 8;
    return (units + to - 1) / to * to;
}

static int64_t row_stride(const struct flash *f, int64_t units) {
    return flash_padded(f, units) + (f->tensor ? 8 : 4);
}

int64_t flash_panel_bytes(const struct flash *f, int64_t positions, int64_t units) {
    return positions * row_stride(f, units) * dtype_size(f->type);
}

int64_t flash_weights_bytes(const struct flash *f, struct flash_shape s) {
    return f->tensor ? 0 : (int64_t)s.warps * FLASH_WARP_ROWS * (s.cols + 4) * 4;
}

struct flash_panel flash_panel(struct flash *f, const char *name, int positions, int64_t units, int stages) {
    struct flash_panel p = {.positions = positions, .units = (int)units, .stride = (int)row_stride(f, units)};
    p.stage = positions * p.stride;
    p.shared = gpu_shared(&f->k, name, f->type, (int64_t)p.stage * stages);
    if (!f->tensor)
        return p;
    struct gpu_operand o = {.kind = f->kind, .stride = p.stride, .shared = p.shared};
    lx zero = lx_int(f->b, 0);
    p.rows = p.cols = p.depth = o;
    p.rows.along = p.cols.along = true;
    p.cols.columns = p.depth.columns = true;
    gpu_operand_open(f->b, f->here, &p.rows, f->lane, lx_mul(f->b, f->warp, lx_int(f->b, FLASH_WARP_ROWS)));
    gpu_operand_open(f->b, f->here, &p.cols, f->lane, zero);
    gpu_operand_open(f->b, f->here, &p.depth, f->lane, zero);
    return p;
}

/* Eight numbers of f32 into shared memory as halves, or zeros. */
static void convert(struct flash *f, lx valid, struct loop_mem *to, lx to_at, struct loop_mem *from, lx at) {
    struct loop_builder *b = f->b;
    struct loop_block *outer = f->here;
    lx numbers[8], zeros[8], four[2];
    struct loop_stmt *s = flash_if(f, valid);
    for (int i = 0; i < 2; i++)
        four[i] = flash_named(f, "four", lx_load(b, from, lx_add(b, at, lx_int(b, 4 * i)), 4));
    for (int i = 0; i < 8; i++) {
        numbers[i] = lx_cast(b, f->type, lx_lane(b, four[i / 4], i % 4));
        zeros[i] = lx_const_float(b, f->type, 0);
    }
    loop_store(b, f->here, to, to_at, lx_pack(b, 8, numbers));
    loop_store(b, &s->other, to, to_at, lx_pack(b, 8, zeros));
    flash_leave(f, s, outer);
}

void flash_load(struct flash *f, const struct flash_panel *p, struct loop_mem *from, lx base, lx first, lx limit,
                lx stage) {
    struct loop_builder *b = f->b;
    int together = f->tensor ? 8 : 4, threads = f->shape.warps * GPU_WARP;
    int pieces = (int)flash_padded(f, p->units) / together, all = p->positions * pieces;
    struct loop_block *outer = f->here;
    lx i, piece;
    struct loop_stmt *s;
    if (all % threads == 0 && all / threads <= 8) { /* more at once would need too many registers */
        s = flash_loop(f, "i", all / threads, &i);
        piece = flash_named(f, "piece", lx_add(b, f->k.thread, lx_mul(b, i, lx_int(b, threads))));
    } else {
        struct loop_var *v = loop_var_new(b, "piece", I64, 1);
        s = loop_for(b, NULL, v, f->k.thread, lx_int(b, all), threads, LOOP_SERIAL);
        f->here = &s->body;
        piece = lx_var(b, v);
    }
    lx local = flash_named(f, "local", lx_div(b, piece, lx_int(b, pieces)));
    lx unit = flash_named(f, "unit", lx_mul(b, lx_mod(b, piece, lx_int(b, pieces)), lx_int(b, together)));
    lx position = flash_named(f, "position", lx_add(b, first, local));
    lx valid = lx_op(b, I_LT, position, limit);
    if (flash_padded(f, p->units) != p->units)
        valid = lx_op(b, I_AND, valid, lx_op(b, I_LT, unit, lx_int(b, p->units)));
    lx to = lx_add(b, lx_mul(b, stage, lx_int(b, p->stage)), lx_add(b, lx_mul(b, local, lx_int(b, p->stride)), unit));
    lx at = lx_add(b, base, lx_add(b, lx_mul(b, position, lx_int(b, p->units)), unit));
    if (f->stored == f->type)
        gpu_copy(b, f->here, valid, p->shared, to, from, at);
    else
        convert(f, valid, p->shared, to, from, at);
    flash_leave(f, s, outer);
}

lx flash_group_base(struct flash *f, lx group, int which) {
    return lx_mul(f->b, lx_mul(f->b, group, f->held[which]), lx_int(f->b, which ? f->E : f->D));
}

/* ---- sums -------------------------------------------------------------------------------------------------------------------- */

int flash_numbers(const struct flash *f, int64_t cols) {
    return (int)cols / 2 / f->slots;
}

lx flash_at(const struct flash *f, int slot, lx number, int64_t cols) {
    struct loop_builder *b = f->b;
    if (!f->tensor)
        return lx_add(b, lx_int(b, (int64_t)slot * flash_numbers(f, cols)), number);
    return lx_add(b, lx_add(b, lx_mul(b, lx_div(b, number, lx_int(b, 2)), lx_int(b, 4)), lx_int(b, 2 * slot)),
                  lx_mod(b, number, lx_int(b, 2)));
}

lx flash_col(const struct flash *f, lx number) {
    struct loop_builder *b = f->b;
    if (!f->tensor)
        return lx_add(b, lx_mod(b, f->lane, lx_int(b, 8)), lx_mul(b, number, lx_int(b, 8)));
    return lx_add(b, lx_mul(b, lx_div(b, number, lx_int(b, 2)), lx_int(b, 8)), gpu_mma_col(b, f->lane, number));
}

/* Ordinary units: runs of four, where they come out even. */
static bool in_runs(int64_t padded) {
    return padded % 32 == 0;
}

lx flash_unit(const struct flash *f, lx number, int64_t units) {
    struct loop_builder *b = f->b;
    if (f->tensor || !in_runs(flash_padded(f, units)))
        return flash_col(f, number);
    lx four = lx_int(b, 4), lane = lx_mul(b, lx_mod(b, f->lane, lx_int(b, 8)), four);
    return lx_add(b, lx_add(b, lx_mul(b, lx_div(b, number, four), lx_int(b, 32)), lane), lx_mod(b, number, four));
}

static void clear(struct flash *f, struct loop_mem *sums) {
    struct loop_block *outer = f->here;
    lx i;
    struct loop_stmt *s = flash_loop(f, "i", sums->count, &i);
    loop_store(f->b, f->here, sums, i, lx_const_float(f->b, F32, 0));
    flash_leave(f, s, outer);
}

struct loop_mem *flash_sums(struct flash *f, const char *name, int64_t cols) {
    struct loop_mem *m = gpu_registers(f->b, f->here, name, F32, cols / 2);
    clear(f, m);
    return m;
}

static void add_product(struct flash *f, struct loop_mem *sums, lx at, lx x, lx y) {
    loop_store(f->b, f->here, sums, at, lx_fma(f->b, x, y, lx_load(f->b, sums, at, 1)));
}

/* Adds the product of a fragment of rows and all columns of an operand, at step k of the depth, to the sums. */
static void multiply_columns(struct flash *f, struct loop_mem *sums, struct loop_mem *rows,
                             const struct gpu_operand *of, int64_t columns, lx k, lx base) {
    struct loop_builder *b = f->b;
    struct loop_block *outer = f->here;
    lx j, zero = lx_int(b, 0);
    struct loop_stmt *pairs = flash_loop(f, "j", columns / 16, &j);
    struct loop_mem *cols = gpu_registers(b, f->here, "of_cols", U32, 4);
    gpu_fragment(b, f->here, of, cols, zero, j, k, base);
    for (int h = 0; h < 2; h++)
        gpu_mma(b, f->here, f->kind, sums, lx_add(b, lx_mul(b, j, lx_int(b, 8)), lx_int(b, 4 * h)), rows, zero, cols,
                lx_int(b, 2 * h));
    flash_leave(f, pairs, outer);
}

static void tensor_scores(struct flash *f, struct loop_mem *scores, const struct flash_panel *a, lx a_base,
                          const struct flash_panel *c, lx c_base) {
    struct loop_builder *b = f->b;
    struct loop_block *outer = f->here;
    lx k, zero = lx_int(b, 0);
    struct loop_stmt *steps = flash_loop(f, "k_", flash_padded(f, a->units) / 16, &k);
    struct loop_mem *rows = gpu_registers(b, f->here, "of_rows", U32, 4);
    gpu_fragment(b, f->here, &a->rows, rows, zero, zero, k, a_base);
    multiply_columns(f, scores, rows, &c->cols, f->shape.cols, k, c_base);
    flash_leave(f, steps, outer);
}

static void plain_scores(struct flash *f, struct loop_mem *scores, const struct flash_panel *a, lx a_base,
                         const struct flash_panel *c, lx c_base) {
    struct loop_builder *b = f->b;
    struct loop_block *outer = f->here;
    struct loop_var *unit = loop_var_new(b, "unit", I64, 1);
    struct loop_stmt *units =
        loop_for(b, NULL, unit, lx_int(b, 0), lx_int(b, flash_padded(f, a->units)), 4, LOOP_SERIAL);
    lx j, row[FLASH_SLOTS];
    f->here = &units->body;
    for (int s = 0; s < f->slots; s++)
        row[s] = flash_named(
            f, "of_row",
            lx_load(b, a->shared,
                    lx_add(b, a_base, lx_add(b, lx_mul(b, f->row[s], lx_int(b, a->stride)), lx_var(b, unit))), 4));
    struct loop_stmt *each = flash_loop(f, "j", flash_numbers(f, f->shape.cols), &j);
    lx col = flash_named(
        f, "of_col",
        lx_load(b, c->shared,
                lx_add(b, c_base, lx_add(b, lx_mul(b, flash_col(f, j), lx_int(b, c->stride)), lx_var(b, unit))), 4));
    for (int s = 0; s < f->slots; s++)
        for (int q = 0; q < 4; q++)
            add_product(f, scores, flash_at(f, s, j, f->shape.cols), lx_lane(b, row[s], q), lx_lane(b, col, q));
    flash_leave(f, each, &units->body);
    flash_leave(f, units, outer);
}

void flash_scores(struct flash *f, struct loop_mem *scores, const struct flash_panel *a, lx a_stage,
                  const struct flash_panel *c, lx c_stage) {
    lx a_base = lx_mul(f->b, a_stage, lx_int(f->b, a->stage)), c_base = lx_mul(f->b, c_stage, lx_int(f->b, c->stage));
    (f->tensor ? tensor_scores : plain_scores)(f, scores, a, a_base, c, c_base);
}

static int weights_stride(const struct flash *f) {
    return f->shape.cols + 4;
}

void flash_put(struct flash *f, struct loop_mem *weights) {
    struct loop_builder *b = f->b;
    struct loop_block *outer = f->here;
    lx j;
    if (f->tensor)
        return;
    struct loop_stmt *each = flash_loop(f, "j", flash_numbers(f, f->shape.cols), &j);
    for (int s = 0; s < f->slots; s++)
        loop_store(b, f->here, f->weights,
                   lx_add(b, lx_mul(b, f->row[s], lx_int(b, weights_stride(f))), flash_col(f, j)),
                   lx_load(b, weights, flash_at(f, s, j, f->shape.cols), 1));
    flash_leave(f, each, outer);
}

static void tensor_apply(struct flash *f, struct loop_mem *sums, struct loop_mem *weights, const struct flash_panel *c,
                         lx base) {
    struct loop_builder *b = f->b;
    struct loop_block *outer = f->here;
    lx k;
    struct loop_stmt *steps = flash_loop(f, "k_", f->shape.cols / 16, &k);
    struct loop_mem *rows = gpu_registers(b, f->here, "of_rows", U32, 4);
    for (int i = 0; i < 4; i++) {
        lx at = lx_add(b, lx_mul(b, k, lx_int(b, 8)), lx_int(b, 2 * i));
        loop_store(
            b, f->here, rows, lx_int(b, i),
            gpu_pack(b, f->kind, lx_load(b, weights, at, 1), lx_load(b, weights, lx_add(b, at, lx_int(b, 1)), 1)));
    }
    multiply_columns(f, sums, rows, &c->depth, flash_padded(f, c->units), k, base);
    flash_leave(f, steps, outer);
}

static void plain_apply(struct flash *f, struct loop_mem *sums, const struct flash_panel *c, lx base) {
    struct loop_builder *b = f->b;
    struct loop_block *outer = f->here;
    int64_t padded = flash_padded(f, c->units);
    int run = in_runs(padded) ? 4 : 1;
    struct loop_var *col = loop_var_new(b, "col", I64, 1);
    struct loop_stmt *cols = loop_for(b, NULL, col, lx_int(b, 0), lx_int(b, f->shape.cols), 4, LOOP_SERIAL);
    lx j, row[FLASH_SLOTS];
    f->here = &cols->body;
    for (int s = 0; s < f->slots; s++)
        row[s] = flash_named(
            f, "of_row",
            lx_load(b, f->weights, lx_add(b, lx_mul(b, f->row[s], lx_int(b, weights_stride(f))), lx_var(b, col)), 4));
    struct loop_stmt *each = flash_loop(f, "j", flash_numbers(f, padded) / run, &j);
    lx number = lx_mul(b, j, lx_int(b, run));
    for (int k = 0; k < 4; k++) {
        lx at = lx_add(b, base, lx_mul(b, lx_add(b, lx_var(b, col), lx_int(b, k)), lx_int(b, c->stride)));
        lx unit = flash_named(f, "of_unit", lx_load(b, c->shared, lx_add(b, at, flash_unit(f, number, c->units)), run));
        for (int q = 0; q < run; q++)
            for (int s = 0; s < f->slots; s++)
                add_product(f, sums, flash_at(f, s, lx_add(b, number, lx_int(b, q)), padded), lx_lane(b, row[s], k),
                            run == 1 ? unit : lx_lane(b, unit, q));
    }
    flash_leave(f, each, &cols->body);
    flash_leave(f, cols, outer);
}

void flash_apply(struct flash *f, struct loop_mem *sums, struct loop_mem *weights, const struct flash_panel *c,
                 lx stage) {
    lx base = lx_mul(f->b, stage, lx_int(f->b, c->stage));
    if (f->tensor)
        tensor_apply(f, sums, weights, c, base);
    else
        plain_apply(f, sums, c, base);
}

/* ---- rows -------------------------------------------------------------------------------------------------------------------- */

lx flash_reduce(struct flash *f, const char *name, enum scalar_fn fn, lx value) {
    value = flash_named(f, name, value);
    for (int bits = f->tensor ? 2 : 4; bits > 0; bits /= 2)
        value = flash_named(f, name, lx_fn2(f->b, fn, value, lx_shuffle(f->b, value, bits)));
    return value;
}

lx flash_is_first(struct flash *f) {
    return lx_op(f->b, I_EQ, lx_mod(f->b, f->lane, lx_int(f->b, f->tensor ? 4 : 8)), lx_int(f->b, 0));
}

lx flash_exp2(struct flash *f, lx x) {
    return lx_call(f->b, "mx_exp2", F32, 1, &x);
}

lx flash_mask(struct flash *f, lx group, lx row, lx key) {
    struct loop_builder *b = f->b;
    struct ir_type t = f->mask->type;
    int rank = f->q->type.rank;
    lx at = lx_int(b, 0), stride = lx_int(b, 1), G = lx_int(b, f->G), batch = lx_div(b, group, G);
    for (int s = rank - 1, d = t.rank - 1; d >= 0; s--, d--) {
        int64_t one;
        bool single = ir_dim_is_const(t.dims[d], &one) && one == 1;
        lx index = key;
        if (s == rank - 2)
            index = f->sharing == 1 ? row : lx_mod(b, row, f->Q);
        else if (s == rank - 3)
            index = lx_add(b, lx_mul(b, lx_mod(b, group, G), lx_int(b, f->sharing)),
                           f->sharing == 1 ? lx_int(b, 0) : lx_div(b, row, f->Q));
        else if (s < rank - 3) {
            lx extent = lx_dim(b, f->q->type.dims[s], f->l->symbol, f->l->context);
            index = s == 0 ? batch : lx_mod(b, batch, extent);
            batch = lx_div(b, batch, extent);
        }
        if (single)
            continue;
        at = lx_add(b, at, lx_mul(b, index, stride));
        stride = lx_mul(b, stride, lx_dim(b, t.dims[d], f->l->symbol, f->l->context));
    }
    return lx_load(b, f->l->mem(f->l->context, f->mask), at, 1);
}

void flash_store(struct flash *f, struct loop_mem *to, lx base, lx first, lx limit, int64_t units,
                 struct loop_mem *sums, const lx *factor) {
    struct loop_builder *b = f->b;
    struct loop_block *outer = f->here;
    int64_t padded = flash_padded(f, units);
    for (int s = 0; s < f->slots; s++) {
        lx j, row = flash_named(f, "position", lx_add(b, first, f->row[s]));
        struct loop_stmt *inside = flash_if(f, lx_op(b, I_LT, row, limit));
        struct loop_stmt *each = flash_loop(f, "j", flash_numbers(f, padded), &j);
        lx unit = flash_named(f, "unit", flash_unit(f, j, units));
        lx value = lx_load(b, sums, flash_at(f, s, j, padded), 1);
        if (factor)
            value = lx_fn2(b, FN_mul, value, factor[s]);
        struct loop_stmt *known = padded == units ? NULL : flash_if(f, lx_op(b, I_LT, unit, lx_int(b, units)));
        loop_store(b, f->here, to, lx_add(b, base, lx_add(b, lx_mul(b, row, lx_int(b, units)), unit)),
                   to->dtype == F32 ? value : lx_cast(b, to->dtype, value));
        if (known)
            flash_leave(f, known, &each->body);
        flash_leave(f, each, &inside->body);
        flash_leave(f, inside, outer);
    }
}

/* ---- tiles that are streamed ------------------------------------------------------------------------------------------------- */

struct flash_stream flash_stream_open(struct flash *f, const char *name, lx lo, lx hi,
                                      void (*load)(struct flash *f, void *context, lx at, lx stage), void *context) {
    struct loop_builder *b = f->b;
    struct loop_var *v = loop_var_new(b, name, I64, 1);
    lx zero = lx_int(b, 0), cols = lx_int(b, f->shape.cols);
    struct flash_stream s = {.outer = f->here, .at = lx_var(b, v), .stage = zero};
    if (f->shape.stages == 2)
        load(f, context, lo, zero);
    s.loop = loop_for(b, NULL, v, lo, hi, f->shape.cols, LOOP_SERIAL);
    f->here = &s.loop->body;
    if (f->shape.stages == 1) {
        load(f, context, s.at, zero);
        gpu_copy_wait(b, f->here);
        loop_barrier(b, f->here);
        return s;
    }
    s.stage = flash_named(f, "stage", lx_mod(b, lx_div(b, lx_sub(b, s.at, lo), cols), lx_int(b, 2)));
    gpu_copy_wait(b, f->here);
    loop_barrier(b, f->here);
    struct loop_block *outer = f->here;
    lx next = flash_named(f, "next", lx_add(b, s.at, cols));
    struct loop_stmt *more = flash_if(f, lx_op(b, I_LT, next, hi));
    load(f, context, next, lx_sub(b, lx_int(b, 1), s.stage));
    flash_leave(f, more, outer);
    return s;
}

void flash_stream_close(struct flash *f, struct flash_stream *s) {
    if (f->shape.stages == 1)
        loop_barrier(f->b, f->here);
    flash_leave(f, s->loop, s->outer);
    if (f->shape.stages == 2) { /* there may have been no tile; and others still read the last */
        gpu_copy_wait(f->b, f->here);
        loop_barrier(f->b, f->here);
    }
}

void flash_keys(struct flash *f, lx first, int count, lx *lo, lx *hi, lx *least, lx *most) {
    struct loop_builder *b = f->b;
    lx one = lx_int(b, 1), zero = lx_int(b, 0),
       last = lx_min(b, lx_add(b, first, lx_int(b, count - 1)), lx_sub(b, f->rows, one));
    *least = first;
    *most = flash_named(f, "last", last);
    if (f->sharing > 1) { /* rows of several heads */
        lx same = lx_op(b, I_EQ, lx_div(b, first, f->Q), lx_div(b, *most, f->Q));
        *least = flash_named(f, "least", lx_select(b, same, lx_mod(b, first, f->Q), zero));
        *most = flash_named(f, "most", lx_select(b, same, lx_mod(b, *most, f->Q), lx_sub(b, f->Q, one)));
    }
    *hi = f->K;
    if (f->causal)
        *hi = lx_op(b, I_MAX, lx_min(b, f->K, lx_add(b, lx_add(b, *most, f->offset), one)), zero);
    *lo = zero;
    if (f->window > 0) {
        lx key = flash_named(f, "seen",
                             lx_op(b, I_MAX, lx_sub(b, lx_add(b, *least, f->offset), lx_int(b, f->window - 1)), zero));
        *lo = lx_sub(b, key, lx_mod(b, key, lx_int(b, f->shape.cols)));
    }
    *hi = flash_named(f, "end", *hi);
    *lo = flash_named(f, "begin", *lo);
}

lx flash_seen(struct flash *f, lx i, lx j) {
    struct loop_builder *b = f->b;
    lx last = lx_add(b, i, f->offset), seen = f->causal ? lx_op(b, I_LE, j, last) : NULL;
    if (f->window <= 0)
        return seen;
    lx near = lx_op(b, I_LT, last, lx_add(b, j, lx_int(b, f->window)));
    return seen ? lx_op(b, I_AND, seen, near) : near;
}
