/* Gradients of attention on a GPU, from the logarithms of rows' sums that the forward pass kept: scores are computed again, a tile at a
 * time (Dao, "FlashAttention-2", 2023).
 *
 *   queries   a block has a tile of rows, tiles of keys and values stream by, and the gradient of its queries stays in registers
 *   keys      a block has a tile of keys, tiles of queries and of results' gradients stream by, and the gradients of its keys and
 *             values stay in registers. It computes the transposed scores, so that these are sums over columns of a row, too. Heads of
 *             many units would need too many registers: then there is a kernel for each of the two gradients
 *
 * Each element is summed by one thread over tiles in their order: there are no atomic operations, and every run gives the same bits.
 */
#include "codegen/kernels/gpu_flash.h"

#define LOG2_E 1.4426950408889634

enum { BOTH_UNITS = 256 }; /* of keys and values, for one kernel */

struct backward {
    struct flash f;
    const struct ir_value *l, *delta, *dy;
    struct flash_panel own[2], streamed[2]; /* by D units, by E units */
    const struct ir_value *streams[2];
    lx group, first;   /* of the block */
    lx base[2], limit; /* of what is streamed: the elements at which its positions begin; how many there are */
    struct loop_mem *scores,
        *weights; /* scores become gradients of scores; `weights` gradients of weights, then weights */
};

static bool choose_shape(struct flash *f) {
    static const struct flash_shape shapes[] = {{4, 32, 2}, {4, 32, 1}, {2, 32, 2}, {2, 32, 1}, {4, 16, 1}, {2, 16, 2},
                                                {2, 16, 1}, {1, 32, 1}, {1, 16, 2}, {1, 16, 1}, {1, 8, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct flash_shape s = shapes[i];
        if (f->tensor && s.cols < 16)
            continue;
        f->shape = s;
        int64_t positions = (int64_t)s.warps * FLASH_WARP_ROWS + (int64_t)s.cols * s.stages;
        if (flash_panel_bytes(f, positions, f->D) + flash_panel_bytes(f, positions, f->E) + flash_weights_bytes(f, s) <=
            FLASH_SHARED)
            return true;
    }
    return false;
}

bool takes_gpu_attention_gradient(const struct compile_options *o, const struct ir_op *op) {
    struct flash f;
    return flash_read(&f, o, op) && op->result_count == 3 && op->operand_count == (f.mask ? 7 : 6) && choose_shape(&f);
}

static struct loop_mem *mem(struct flash *f, const struct ir_value *v) {
    return f->l->mem(f->l->context, v);
}

static void load_streamed(struct flash *f, void *context, lx at, lx stage) {
    struct backward *a = context;
    for (int i = 0; i < 2; i++)
        flash_load(f, &a->streamed[i], mem(f, a->streams[i]), a->base[i], at, a->limit, stage);
}

static void open_panels(struct backward *a, const char *const *own, const char *const *streamed) {
    struct flash *f = &a->f;
    for (int i = 0; i < 2; i++) {
        int64_t units = i ? f->E : f->D;
        a->own[i] = flash_panel(f, own[i], f->shape.warps * FLASH_WARP_ROWS, units, 1);
        a->streamed[i] = flash_panel(f, streamed[i], f->shape.cols, units, f->shape.stages);
    }
}

/* The products of a tile: scores, and gradients of weights. */
static void products(struct backward *a, lx stage) {
    struct flash *f = &a->f;
    lx zero = lx_int(f->b, 0);
    a->scores = flash_sums(f, "score", f->shape.cols);
    a->weights = flash_sums(f, "weight", f->shape.cols);
    flash_scores(f, a->scores, &a->own[0], zero, &a->streamed[0], stage);
    flash_scores(f, a->weights, &a->own[1], zero, &a->streamed[1], stage);
}

/* One element: its weight and the gradient of its score. seen: NULL if it surely is; l2: the row's logarithm to base 2. */
static void element(struct backward *a, lx place, lx seen, lx l2, lx delta) {
    struct flash *f = &a->f;
    struct loop_builder *b = f->b;
    lx scale2 = lx_const_float(b, F32, f->scale * LOG2_E), scale = lx_const_float(b, F32, f->scale);
    lx weight = flash_exp2(f, lx_fma(b, lx_load(b, a->scores, place, 1), scale2, lx_fn(b, FN_neg, F32, 1, &l2)));
    if (seen)
        weight = lx_select(b, seen, weight, lx_const_float(b, F32, 0));
    weight = flash_named(f, "p", weight);
    lx d = lx_fn2(b, FN_sub, lx_load(b, a->weights, place, 1), delta);
    loop_store(b, f->here, a->scores, place, lx_fn2(b, FN_mul, lx_fn2(b, FN_mul, weight, d), scale));
    loop_store(b, f->here, a->weights, place, weight);
}

static lx both(struct loop_builder *b, lx x, lx y) {
    return x && y ? lx_op(b, I_AND, x, y) : x ? x : y;
}

/* Whether tests of single elements can fail in a tile: with queries i_least … i_most and keys j_least … j_most. NULL: they cannot. */
static lx has_edge(struct flash *f, lx i_least, lx i_most, lx j_least, lx j_most) {
    struct loop_builder *b = f->b;
    lx edge = NULL;
    if (f->causal)
        edge = lx_op(b, I_LT, lx_add(b, i_least, f->offset), j_most);
    if (f->window > 0) {
        lx far = lx_op(b, I_LE, lx_add(b, j_least, lx_int(b, f->window)), lx_add(b, i_most, f->offset));
        edge = edge ? lx_op(b, I_OR, edge, far) : far;
    }
    return edge;
}

/* The rows of the block: see flash.rows. */
static void queries_kernel(struct backward *a) {
    struct flash *f = &a->f;
    struct loop_builder *b = f->b;
    static const char *const own[] = {"queries", "of_results"}, *const streamed[] = {"keys", "values"};
    int rows = f->shape.warps * FLASH_WARP_ROWS, cols = f->shape.cols;
    lx tiles = gpu_ceil_div(b, f->rows, rows), zero = lx_int(b, 0), lo, hi, least, most;
    flash_open(f, lx_mul(b, f->groups, tiles));
    open_panels(a, own, streamed);
    a->group = flash_named(f, "group", lx_div(b, f->k.block, tiles));
    lx tile = lx_mod(b, f->k.block, tiles);
    if (f->causal)
        tile = lx_sub(b, lx_sub(b, tiles, lx_int(b, 1)), tile);
    a->first = flash_named(f, "first_row", lx_mul(b, tile, lx_int(b, rows)));
    flash_keys(f, a->first, rows, &lo, &hi, &least, &most);
    lx row0 = flash_named(f, "group_row", lx_mul(b, a->group, f->rows)), l2[FLASH_SLOTS], delta[FLASH_SLOTS],
       query[FLASH_SLOTS];
    for (int s = 0; s < f->slots; s++) {
        struct loop_var *v[2];
        struct loop_block *outer = f->here;
        lx row = flash_named(f, "position", lx_add(b, a->first, f->row[s]));
        query[s] = flash_named(f, "query", f->sharing == 1 ? row : lx_mod(b, row, f->Q));
        for (int i = 0; i < 2; i++) {
            v[i] = loop_var_new(b, i ? "delta" : "log2_sum", F32, 1);
            v[i]->is_mutable = true;
            loop_def(b, f->here, v[i], lx_const_float(b, F32, 0));
        }
        struct loop_stmt *inside = flash_if(f, lx_op(b, I_LT, row, f->rows));
        lx at = flash_named(f, "at", lx_add(b, row0, row));
        loop_set(b, f->here, v[0], NULL,
                 lx_fn2(b, FN_mul, lx_load(b, mem(f, a->l), at, 1), lx_const_float(b, F32, LOG2_E)));
        loop_set(b, f->here, v[1], NULL, lx_load(b, mem(f, a->delta), at, 1));
        flash_leave(f, inside, outer);
        l2[s] = lx_var(b, v[0]);
        delta[s] = lx_var(b, v[1]);
    }
    struct loop_mem *sums = flash_sums(f, "sum", flash_padded(f, f->D));
    for (int i = 0; i < 2; i++)
        flash_load(f, &a->own[i], mem(f, i ? a->dy : f->q), lx_mul(b, row0, lx_int(b, i ? f->E : f->D)), a->first,
                   f->rows, zero);
    a->streams[0] = f->key;
    a->streams[1] = f->v;
    for (int i = 0; i < 2; i++)
        a->base[i] = flash_named(f, "group_key", flash_group_base(f, a->group, i));
    a->limit = f->K;
    struct flash_stream stream = flash_stream_open(f, "keys", lo, hi, load_streamed, a);
    products(a, stream.stage);
    struct loop_block *outer = f->here;
    lx last = lx_add(b, stream.at, lx_int(b, cols - 1));
    lx edge = has_edge(f, least, most, stream.at, last);
    for (int exact = edge && !f->mask ? 0 : 1; exact < 2; exact++) { /* tiles without tests, and with them */
        struct loop_stmt *test = NULL;
        if (edge && !f->mask)
            test = flash_if(f, exact ? edge : lx_op(b, I_NOT, edge, NULL));
        struct loop_block *inside = f->here;
        for (int s = 0; s < f->slots; s++) {
            lx j;
            struct loop_stmt *each = flash_loop(f, "j", flash_numbers(f, cols), &j);
            lx key = flash_named(f, "key", lx_add(b, stream.at, flash_col(f, j)));
            lx seen = exact ? flash_seen(f, query[s], key) : NULL, row = lx_add(b, a->first, f->row[s]);
            if (f->mask) {
                lx known = lx_op(b, I_AND, lx_op(b, I_LT, key, f->K), lx_op(b, I_LT, row, f->rows));
                seen = both(b, both(b, known, seen), flash_mask(f, a->group, row, key));
            }
            element(a, flash_at(f, s, j, cols), seen, l2[s], delta[s]);
            flash_leave(f, each, inside);
        }
        if (test)
            flash_leave(f, test, outer);
    }
    flash_put(f, a->scores);
    if (!f->tensor)
        loop_barrier(b, f->here);
    flash_apply(f, sums, a->scores, &a->streamed[0], stream.stage);
    flash_stream_close(f, &stream);
    struct loop_mem *to = mem(f, f->l->op->results[0]);
    to->written = true;
    flash_store(f, to, lx_mul(b, row0, lx_int(b, f->D)), a->first, f->rows, f->D, sums, NULL);
}

/* The gradients of keys, of values, or of both. */
static void keys_kernel(struct backward *a, bool of_keys, bool of_values) {
    struct flash *f = &a->f;
    struct loop_builder *b = f->b;
    static const char *const own[] = {"keys", "values"}, *const streamed[] = {"queries", "of_results"};
    int rows = f->shape.warps * FLASH_WARP_ROWS, cols = f->shape.cols, numbers = flash_numbers(f, cols);
    lx tiles = gpu_ceil_div(b, f->K, rows), zero = lx_int(b, 0), j;
    flash_open(f, lx_mul(b, f->groups, tiles));
    open_panels(a, own, streamed);
    a->group = flash_named(f, "group", lx_div(b, f->k.block, tiles));
    a->first = flash_named(f, "first_key", lx_mul(b, lx_mod(b, f->k.block, tiles), lx_int(b, rows)));
    lx key0 = flash_named(f, "group_key", lx_mul(b, a->group, f->K)), key[FLASH_SLOTS];
    for (int s = 0; s < f->slots; s++)
        key[s] = flash_named(f, "key", lx_add(b, a->first, f->row[s]));
    struct loop_mem *sums[2] = {of_keys ? flash_sums(f, "key_sum", flash_padded(f, f->D)) : NULL,
                                of_values ? flash_sums(f, "value_sum", flash_padded(f, f->E)) : NULL};
    for (int i = 0; i < 2; i++)
        flash_load(f, &a->own[i], mem(f, i ? f->v : f->key), flash_group_base(f, a->group, i), a->first, f->K, zero);
    a->streams[0] = f->q;
    a->streams[1] = a->dy;
    a->limit = f->Q;
    /* The queries that see keys of the tile. */
    lx last_key = lx_add(b, a->first, lx_int(b, rows - 1)), lo = zero, hi = f->Q;
    if (f->causal)
        lo = flash_named(f, "begin", lx_op(b, I_MAX, lx_sub(b, a->first, f->offset), zero));
    if (f->window > 0)
        hi = flash_named(
            f, "end",
            lx_op(b, I_MAX, lx_min(b, f->Q, lx_sub(b, lx_add(b, last_key, lx_int(b, f->window)), f->offset)), zero));
    struct loop_block *outer = f->here;
    struct loop_var *head = loop_var_new(b, "head", I64, 1);
    struct loop_stmt *heads =
        f->sharing == 1 ? NULL : loop_for(b, NULL, head, zero, lx_int(b, f->sharing), 1, LOOP_SERIAL);
    if (heads)
        f->here = &heads->body;
    lx in_group = heads ? lx_mul(b, lx_var(b, head), f->Q) : zero;
    lx row0 = flash_named(f, "head_row", lx_add(b, lx_mul(b, a->group, f->rows), in_group));
    for (int i = 0; i < 2; i++)
        a->base[i] = flash_named(f, "head", lx_mul(b, row0, lx_int(b, i ? f->E : f->D)));
    struct flash_stream stream = flash_stream_open(f, "rows", lo, hi, load_streamed, a);
    struct loop_block *tile = f->here;
    products(a, stream.stage);
    /* Of the columns' queries. Beyond the last all factors are zero, so that it does not matter what these are. */
    struct loop_mem *of_cols[2];
    for (int i = 0; i < 2; i++)
        of_cols[i] = gpu_registers(b, f->here, i ? "delta" : "log2_sum", F32, numbers);
    struct loop_stmt *each = flash_loop(f, "j", numbers, &j);
    lx query = flash_named(f, "query", lx_add(b, stream.at, flash_col(f, j)));
    for (int i = 0; i < 2; i++)
        loop_store(b, f->here, of_cols[i], j, lx_const_float(b, F32, 0));
    struct loop_block *column = f->here;
    struct loop_stmt *known = flash_if(f, lx_op(b, I_LT, query, f->Q));
    lx at = flash_named(f, "at", lx_add(b, row0, query));
    loop_store(b, f->here, of_cols[0], j,
               lx_fn2(b, FN_mul, lx_load(b, mem(f, a->l), at, 1), lx_const_float(b, F32, LOG2_E)));
    loop_store(b, f->here, of_cols[1], j, lx_load(b, mem(f, a->delta), at, 1));
    flash_leave(f, known, column);
    flash_leave(f, each, tile);
    lx edge = has_edge(f, stream.at, lx_add(b, stream.at, lx_int(b, cols - 1)), a->first, last_key);
    for (int exact = edge && !f->mask ? 0 : 1; exact < 2; exact++) {
        struct loop_stmt *test = NULL;
        if (edge && !f->mask)
            test = flash_if(f, exact ? edge : lx_op(b, I_NOT, edge, NULL));
        struct loop_block *inside = f->here;
        for (int s = 0; s < f->slots; s++) {
            each = flash_loop(f, "j", numbers, &j);
            query = flash_named(f, "query", lx_add(b, stream.at, flash_col(f, j)));
            lx seen = exact ? flash_seen(f, query, key[s]) : NULL;
            if (f->mask) {
                lx inside_mask = lx_op(b, I_AND, lx_op(b, I_LT, query, f->Q), lx_op(b, I_LT, key[s], f->K));
                seen = both(b, both(b, inside_mask, seen), flash_mask(f, a->group, lx_add(b, in_group, query), key[s]));
            }
            element(a, flash_at(f, s, j, cols), seen, lx_load(b, of_cols[0], j, 1), lx_load(b, of_cols[1], j, 1));
            flash_leave(f, each, inside);
        }
        if (test)
            flash_leave(f, test, tile);
    }
    for (int i = 2; i-- > 0;) {
        struct loop_mem *factors = i ? a->weights : a->scores;
        if (!sums[i])
            continue;
        if (!f->tensor && !i && sums[1]) /* others still read the weights */
            loop_barrier(b, f->here);
        flash_put(f, factors);
        if (!f->tensor)
            loop_barrier(b, f->here);
        flash_apply(f, sums[i], factors, &a->streamed[i], stream.stage);
    }
    flash_stream_close(f, &stream);
    if (heads)
        flash_leave(f, heads, outer);
    for (int i = 0; i < 2; i++) {
        struct loop_mem *to = mem(f, f->l->op->results[1 + i]);
        if (!sums[i])
            continue;
        int64_t units = i ? f->E : f->D;
        to->written = true;
        flash_store(f, to, lx_mul(b, key0, lx_int(b, units)), a->first, f->K, units, sums[i], NULL);
    }
}

void lower_gpu_attention_gradient(struct lower *l) {
    struct backward *a = arena_alloc(l->b->arena, sizeof *a);
    struct flash *f = &a->f;
    *a = (struct backward){0};
    flash_read(f, l->options, l->op);
    flash_begin(f, l);
    choose_shape(f);
    l->flops += flash_flops(f, 7);
    int next = f->mask ? 4 : 3;
    a->l = l->op->operands[next];
    a->delta = l->op->operands[next + 1];
    a->dy = l->op->operands[next + 2];
    queries_kernel(a);
    bool together = f->D + f->E <= BOTH_UNITS;
    keys_kernel(a, true, together);
    if (!together)
        keys_kernel(a, false, true);
}
