/* Attention on a GPU without its scores in memory (Dao, "FlashAttention-2", 2023).
 *
 * A block has a tile of the rows of one group: query heads that share a key head are one group, so that its keys and values are read
 * once for all of them. Tiles of keys and values stream through shared memory; of each row the running maximum and sum of exponentials
 * are kept, and what was summed so far is scaled when the maximum grows. Keys that no row of the tile sees are not visited; tests of
 * single scores are made only in tiles that need them. While scores are computed the values are on their way, and while those are
 * summed the next keys.
 *
 * Few rows and many keys (decoding with a cache) would be few blocks: then the keys are dealt to several, whose maxima, sums and results
 * a second kernel merges in their order. Sums run over tiles of keys in their order; tiles and parts depend on shapes alone, so that
 * every run gives the same bits.
 */
#include <math.h>

#include "codegen/kernels/gpu_flash.h"

enum { MOST_PARTS = 64, ENOUGH_BLOCKS = 256, LEAST_KEYS = 128 };

#define LOG2_E 1.4426950408889634
#define LN_2   0.6931471805599453

static bool choose_shape(struct flash *f, int64_t rows) {
    static const struct flash_shape shapes[] = {{4, 64, 1}, {4, 32, 1}, {2, 64, 1}, {2, 32, 1}, {4, 16, 1},
                                                {2, 16, 1}, {1, 64, 1}, {1, 32, 1}, {1, 16, 1}, {1, 8, 1}};
    int warps = rows <= FLASH_WARP_ROWS ? 1 : rows <= 2 * FLASH_WARP_ROWS ? 2 : 4;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct flash_shape s = shapes[i];
        if (s.warps > warps || (f->tensor && s.cols < 16))
            continue;
        f->shape = s;
        if (flash_panel_bytes(f, (int64_t)s.warps * FLASH_WARP_ROWS, f->D) + flash_panel_bytes(f, s.cols, f->D) +
                flash_panel_bytes(f, s.cols, f->E) + flash_weights_bytes(f, s) <=
            FLASH_SHARED)
            return true;
    }
    return false;
}

bool takes_gpu_attention(const struct compile_options *o, const struct ir_op *op) {
    struct flash f;
    return flash_read(&f, o, op) && op->result_count == 2 && choose_shape(&f, FLASH_WARP_ROWS);
}

/* Where the parts of the keys leave what they have: [part, group, row] and units. */
struct parts {
    int64_t count;
    struct loop_mem *sums, *top, *total;
};

struct forward {
    struct flash f;
    struct parts parts;
    struct flash_panel q, k, v;
    lx group, first, part; /* of the block */
    lx lo, hi, least, most;
    lx query[FLASH_SLOTS];
    struct loop_mem *scores, *sums;
    struct loop_var *top[FLASH_SLOTS],
        *total[FLASH_SLOTS]; /* running, in powers of two; the thread's own part of the sum */
};

static void load_keys(struct forward *a, lx at) {
    struct flash *f = &a->f;
    flash_load(f, &a->k, f->l->mem(f->l->context, f->key), flash_group_base(f, a->group, 0), at, f->K, lx_int(f->b, 0));
}

static void load_values(struct forward *a, lx at) {
    struct flash *f = &a->f;
    flash_load(f, &a->v, f->l->mem(f->l->context, f->v), flash_group_base(f, a->group, 1), at, f->K, lx_int(f->b, 0));
}

/* Scores that are not seen become -inf: where the tile from `at` on has such. */
static void hide(struct forward *a, lx at) {
    struct flash *f = &a->f;
    struct loop_builder *b = f->b;
    struct loop_block *outer = f->here;
    lx end = lx_add(b, at, lx_int(b, f->shape.cols)), edge = lx_op(b, I_LT, f->K, end), number;
    if (f->causal)
        edge = lx_op(b, I_OR, edge, lx_op(b, I_LT, lx_add(b, lx_add(b, a->least, f->offset), lx_int(b, 1)), end));
    if (f->window > 0)
        edge = lx_op(b, I_OR, edge, lx_op(b, I_LE, lx_add(b, at, lx_int(b, f->window)), lx_add(b, a->most, f->offset)));
    struct loop_stmt *test = f->mask ? NULL : flash_if(f, edge);
    struct loop_block *inside = f->here;
    for (int s = 0; s < f->slots; s++) {
        struct loop_stmt *each = flash_loop(f, "j", flash_numbers(f, f->shape.cols), &number);
        lx key = flash_named(f, "key", lx_add(b, at, flash_col(f, number)));
        lx seen = lx_op(b, I_LT, key, f->K), near = flash_seen(f, a->query[s], key);
        if (near)
            seen = lx_op(b, I_AND, seen, near);
        if (f->mask) {
            lx row = lx_add(b, a->first, f->row[s]);
            seen =
                lx_op(b, I_AND, lx_op(b, I_AND, seen, lx_op(b, I_LT, row, f->rows)), flash_mask(f, a->group, row, key));
        }
        lx place = flash_at(f, s, number, f->shape.cols);
        loop_store(b, f->here, a->scores, place,
                   lx_select(b, seen, lx_load(b, a->scores, place, 1), lx_const_float(b, F32, -INFINITY)));
        flash_leave(f, each, inside);
    }
    if (test)
        flash_leave(f, test, outer);
}

/* Scores of a slot's row become weights, and what was summed for it so far is scaled. */
static void soften(struct forward *a, int s) {
    struct flash *f = &a->f;
    struct loop_builder *b = f->b;
    struct loop_block *outer = f->here;
    int cols = f->shape.cols;
    lx j, none = lx_const_float(b, F32, -INFINITY);
    struct loop_var *best = loop_var_new(b, "best", F32, 1);
    best->is_mutable = true;
    loop_def(b, f->here, best, none);
    struct loop_stmt *each = flash_loop(f, "j", flash_numbers(f, cols), &j);
    loop_set(b, f->here, best, NULL,
             lx_fn2(b, FN_max, lx_var(b, best), lx_load(b, a->scores, flash_at(f, s, j, cols), 1)));
    flash_leave(f, each, outer);
    lx tile = flash_reduce(f, "best", FN_max, lx_var(b, best)), scale = lx_const_float(b, F32, f->scale * LOG2_E);
    lx top = flash_named(f, "top", lx_fn2(b, FN_max, lx_var(b, a->top[s]), lx_fn2(b, FN_mul, tile, scale)));
    /* A row that has seen nothing so far has no maximum to subtract. */
    lx base = flash_named(f, "base", lx_select(b, lx_fn2(b, FN_eq, top, none), lx_const_float(b, F32, 0), top));
    lx factor = flash_named(f, "factor", flash_exp2(f, lx_fn2(b, FN_sub, lx_var(b, a->top[s]), base)));
    loop_set(b, f->here, a->top[s], NULL, top);
    loop_set(b, f->here, a->total[s], NULL, lx_fn2(b, FN_mul, lx_var(b, a->total[s]), factor));
    each = flash_loop(f, "j", flash_numbers(f, cols), &j);
    lx place = flash_at(f, s, j, cols);
    lx weight = flash_named(
        f, "weight", flash_exp2(f, lx_fma(b, lx_load(b, a->scores, place, 1), scale, lx_fn(b, FN_neg, F32, 1, &base))));
    loop_store(b, f->here, a->scores, place, weight);
    loop_set(b, f->here, a->total[s], NULL, lx_fn2(b, FN_add, lx_var(b, a->total[s]), weight));
    flash_leave(f, each, outer);
    int64_t units = flash_padded(f, f->E);
    each = flash_loop(f, "j", flash_numbers(f, units), &j);
    place = flash_at(f, s, j, units);
    loop_store(b, f->here, a->sums, place, lx_fn2(b, FN_mul, lx_load(b, a->sums, place, 1), factor));
    flash_leave(f, each, outer);
}

static void every_tile(struct forward *a) {
    struct flash *f = &a->f;
    struct loop_builder *b = f->b;
    struct loop_block *outer = f->here;
    lx zero = lx_int(b, 0);
    struct loop_var *v = loop_var_new(b, "keys", I64, 1);
    lx at = lx_var(b, v);
    struct loop_stmt *tiles = loop_for(b, NULL, v, a->lo, a->hi, f->shape.cols, LOOP_SERIAL);
    f->here = &tiles->body;
    gpu_copy_wait(b, f->here);
    loop_barrier(b, f->here);
    load_values(a, at);
    a->scores = flash_sums(f, "score", f->shape.cols);
    flash_scores(f, a->scores, &a->q, zero, &a->k, zero);
    hide(a, at);
    for (int s = 0; s < f->slots; s++)
        soften(a, s);
    flash_put(f, a->scores);
    gpu_copy_wait(b, f->here);
    loop_barrier(b, f->here);
    lx next = flash_named(f, "next", lx_add(b, at, lx_int(b, f->shape.cols)));
    struct loop_stmt *more = flash_if(f, lx_op(b, I_LT, next, a->hi));
    load_keys(a, next);
    flash_leave(f, more, &tiles->body);
    flash_apply(f, a->sums, a->scores, &a->v, zero);
    flash_leave(f, tiles, outer);
    gpu_copy_wait(b, f->here); /* there may have been no tile */
}

/* Number of a row of the block among all of the parts', or of the result. */
static lx row_number(struct forward *a, lx row) {
    struct loop_builder *b = a->f.b;
    lx group = a->parts.count > 1 ? lx_add(b, lx_mul(b, a->part, a->f.groups), a->group) : a->group;
    return lx_add(b, lx_mul(b, group, a->f.rows), row);
}

/* 1 / total; without keys the result is 0. */
static lx reciprocal(struct flash *f, lx total) {
    struct loop_builder *b = f->b;
    lx value = lx_fn2(b, FN_div, lx_const_float(b, F32, 1), total);
    if (ir_dim_lower(f->key_count) > 0)
        return value;
    return lx_select(b, lx_op(b, I_EQ, f->K, lx_int(b, 0)), lx_const_float(b, F32, 0), value);
}

static void store_rows(struct forward *a) {
    struct flash *f = &a->f;
    struct loop_builder *b = f->b;
    struct loop_block *outer = f->here;
    struct ir_op *op = f->l->op;
    bool whole = a->parts.count == 1;
    struct loop_mem *y = whole ? f->l->mem(f->l->context, op->results[0]) : a->parts.sums,
                    *l = whole ? f->l->mem(f->l->context, op->results[1]) : a->parts.total;
    lx factor[FLASH_SLOTS], total[FLASH_SLOTS];
    y->written = l->written = true;
    for (int s = 0; s < f->slots; s++) {
        total[s] = flash_reduce(f, "total", FN_add, lx_var(b, a->total[s]));
        factor[s] = flash_named(f, "factor", reciprocal(f, total[s]));
    }
    lx base = lx_mul(b, row_number(a, lx_int(b, 0)), lx_int(b, f->E));
    flash_store(f, y, base, a->first, f->rows, f->E, a->sums, whole ? factor : NULL);
    struct loop_stmt *one = flash_if(f, flash_is_first(f));
    for (int s = 0; s < f->slots; s++) {
        lx row = flash_named(f, "position", lx_add(b, a->first, f->row[s]));
        struct loop_stmt *inside = flash_if(f, lx_op(b, I_LT, row, f->rows));
        lx at = flash_named(f, "at", row_number(a, row)), top = lx_var(b, a->top[s]);
        if (whole) {
            lx log = lx_fn(b, FN_log, F32, 1, &total[s]);
            loop_store(b, f->here, l, at, lx_fma(b, top, lx_const_float(b, F32, LN_2), log));
        } else {
            loop_store(b, f->here, l, at, total[s]);
            loop_store(b, f->here, a->parts.top, at, top);
        }
        flash_leave(f, inside, &one->body);
    }
    flash_leave(f, one, outer);
}

static void rows_kernel(struct forward *a) {
    struct flash *f = &a->f;
    struct loop_builder *b = f->b;
    int rows = f->shape.warps * FLASH_WARP_ROWS;
    lx tiles = gpu_ceil_div(b, f->rows, rows), parts = lx_int(b, a->parts.count), zero = lx_int(b, 0);
    flash_open(f, lx_mul(b, lx_mul(b, f->groups, tiles), parts));
    a->q = flash_panel(f, "queries", rows, f->D, 1);
    a->k = flash_panel(f, "keys", f->shape.cols, f->D, 1);
    a->v = flash_panel(f, "values", f->shape.cols, f->E, 1);
    a->part = flash_named(f, "part_of", lx_mod(b, f->k.block, parts));
    lx rest = flash_named(f, "rest", lx_div(b, f->k.block, parts));
    a->group = flash_named(f, "group", lx_div(b, rest, tiles));
    /* With causality the last tiles have most to do: they come first. */
    lx tile = lx_mod(b, rest, tiles);
    if (f->causal)
        tile = lx_sub(b, lx_sub(b, tiles, lx_int(b, 1)), tile);
    a->first = flash_named(f, "first_row", lx_mul(b, tile, lx_int(b, rows)));
    flash_keys(f, a->first, rows, &a->lo, &a->hi, &a->least, &a->most);
    if (a->parts.count > 1) {
        int64_t cols = f->shape.cols;
        lx share = flash_named(f, "share", lx_mul(b, gpu_ceil_div(b, f->K, cols * a->parts.count), lx_int(b, cols)));
        lx begin = flash_named(f, "part_begin", lx_mul(b, a->part, share));
        a->hi = flash_named(f, "part_end", lx_min(b, a->hi, lx_add(b, begin, share)));
        a->lo = flash_named(f, "part_first", lx_op(b, I_MAX, a->lo, begin));
    }
    for (int s = 0; s < f->slots; s++) {
        lx row = lx_add(b, a->first, f->row[s]);
        a->query[s] = flash_named(f, "query", f->sharing == 1 ? row : lx_mod(b, row, f->Q));
        a->top[s] = loop_var_new(b, "top", F32, 1);
        a->total[s] = loop_var_new(b, "total", F32, 1);
        a->top[s]->is_mutable = a->total[s]->is_mutable = true;
        loop_def(b, f->here, a->top[s], lx_const_float(b, F32, -INFINITY));
        loop_def(b, f->here, a->total[s], lx_const_float(b, F32, 0));
    }
    a->sums = flash_sums(f, "sum", flash_padded(f, f->E));
    flash_load(f, &a->q, f->l->mem(f->l->context, f->q), lx_mul(b, lx_mul(b, a->group, f->rows), lx_int(b, f->D)),
               a->first, f->rows, zero);
    load_keys(a, a->lo);
    every_tile(a);
    store_rows(a);
}

/* A thread a unit of a row: the parts in their order. */
static void merge_kernel(struct forward *a) {
    struct flash *f = &a->f;
    struct loop_builder *b = f->b;
    struct ir_op *op = f->l->op;
    struct loop_mem *y = f->l->mem(f->l->context, op->results[0]), *l = f->l->mem(f->l->context, op->results[1]);
    lx count = flash_named(f, "count", lx_mul(b, f->groups, f->rows)), units = lx_int(b, f->E);
    double upper = (double)ir_dim_upper(f->group_count) * (double)ir_dim_upper(f->row_count) * (double)f->E;
    struct gpu_each e = gpu_open_each(b, f->here, lx_mul(b, count, units), (int64_t)upper, "each");
    struct loop_block *outer = e.body;
    f->here = e.body;
    lx row = flash_named(f, "row", lx_div(b, e.at, units)), unit = flash_named(f, "unit", lx_mod(b, e.at, units)), p;
    lx none = lx_const_float(b, F32, -INFINITY), zero = lx_const_float(b, F32, 0);
    struct loop_var *v[3];
    static const char *const names[] = {"top", "total", "sum"};
    for (int i = 0; i < 3; i++) {
        v[i] = loop_var_new(b, names[i], F32, 1);
        v[i]->is_mutable = true;
        loop_def(b, f->here, v[i], i ? zero : none);
    }
    for (int pass = 0; pass < 2; pass++) {
        struct loop_var *part = loop_var_new(b, "part_of", I64, 1);
        struct loop_stmt *s = loop_for(b, NULL, part, lx_int(b, 0), lx_int(b, a->parts.count), 1, LOOP_SERIAL);
        f->here = &s->body;
        p = flash_named(f, "at", lx_add(b, lx_mul(b, lx_var(b, part), count), row));
        lx top = lx_load(b, a->parts.top, p, 1);
        if (!pass) {
            loop_set(b, f->here, v[0], NULL, lx_fn2(b, FN_max, lx_var(b, v[0]), top));
        } else { /* a part without keys weighs nothing */
            lx factor =
                lx_select(b, lx_fn2(b, FN_eq, top, none), zero, flash_exp2(f, lx_fn2(b, FN_sub, top, lx_var(b, v[0]))));
            factor = flash_named(f, "factor", factor);
            loop_set(b, f->here, v[1], NULL, lx_fma(b, lx_load(b, a->parts.total, p, 1), factor, lx_var(b, v[1])));
            lx of_part = lx_load(b, a->parts.sums, lx_add(b, lx_mul(b, p, units), unit), 1);
            loop_set(b, f->here, v[2], NULL, lx_fma(b, of_part, factor, lx_var(b, v[2])));
        }
        flash_leave(f, s, outer);
    }
    lx total = lx_var(b, v[1]), value = lx_fn2(b, FN_mul, lx_var(b, v[2]), reciprocal(f, total));
    y->written = l->written = true;
    loop_store(b, f->here, y, e.at, y->dtype == F32 ? value : lx_cast(b, y->dtype, value));
    struct loop_stmt *one = flash_if(f, lx_op(b, I_EQ, unit, lx_int(b, 0)));
    loop_store(b, f->here, l, row,
               lx_fma(b, lx_var(b, v[0]), lx_const_float(b, F32, LN_2), lx_fn(b, FN_log, F32, 1, &total)));
    flash_leave(f, one, outer);
    gpu_close_each(&e);
}

void lower_gpu_attention(struct lower *l) {
    struct forward *a = arena_alloc(l->b->arena, sizeof *a);
    struct flash *f = &a->f;
    *a = (struct forward){.parts.count = 1};
    flash_read(f, l->options, l->op);
    flash_begin(f, l);
    int64_t rows = ir_dim_upper(f->row_count), groups = ir_dim_upper(f->group_count), keys = ir_dim_upper(f->key_count);
    choose_shape(f, rows);
    l->flops += flash_flops(f, 2);
    int64_t blocks = groups * ((rows + f->shape.warps * FLASH_WARP_ROWS - 1) / (f->shape.warps * FLASH_WARP_ROWS));
    while (a->parts.count < MOST_PARTS && a->parts.count * blocks < ENOUGH_BLOCKS &&
           keys / (2 * a->parts.count) >= LEAST_KEYS)
        a->parts.count *= 2;
    if (a->parts.count > 1) {
        int64_t n = a->parts.count * groups * rows;
        a->parts.sums = l->workspace(l->context, l->out, "part_sums", F32, n * f->E);
        a->parts.top = l->workspace(l->context, l->out, "part_tops", F32, n);
        a->parts.total = l->workspace(l->context, l->out, "part_totals", F32, n);
        a->parts.sums->written = a->parts.top->written = a->parts.total->written = true;
    }
    rows_kernel(a);
    if (a->parts.count > 1) {
        f->here = l->out;
        merge_kernel(a);
    }
}
