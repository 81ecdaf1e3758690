/* Sums of products on a GPU, as tiled matrix products (Volkov and Demmel, "Benchmarking GPUs to Tune Dense Linear Algebra", 2008).
 *
 * The nest splits into rows, columns, batch and reduction as on the CPU (contraction.c). A block of threads computes a tile of rows by
 * columns: for each slice of the reduction its threads evaluate the two factors into shared memory, whatever they are (a transposed
 * load, a window with a guard, a conversion), neighbours in a warp taking neighbours in memory; after a barrier each thread reads a
 * few of either side into registers and multiplies all pairs. So products in every transposition, convolutions and their two
 * gradients are one kernel, without im2col. What follows the sum is evaluated on the way to the result.
 *
 * Few tiles and a long reduction (the gradient of a weight) would leave most of the machine idle: then the reduction is cut into parts,
 * which a second kernel adds up in their order. Each element is a chain of multiply-adds in the order of the reduction, part by part;
 * tiles and parts depend on shapes alone.
 */
#include "codegen/kernels/gpu_product.h"

enum { MOST_PARTS = 32, ENOUGH_BLOCKS = 256, LEAST_DEPTH = 256, PAD = 4, RUN = 4 };

/* One side: elements of it that a thread brings into shared memory. */
struct loader {
    const struct side *side;
    struct loop_mem *shared; /* [depth][width + PAD] */
    int width, count;        /* of the tile; elements a thread, or fours of them */
    int lanes;               /* 4: neighbours are loaded by fours */
    bool along;              /* neighbours walk the reduction */
    lx position[64], in_slice[64];
    lx index[64][NEST_MAX]; /* of the side's group, for each element */
};

/* Each of 256 threads has rows * columns / 256 sums, in runs of RUN. */
struct fma_product {
    struct product p;
    int row_runs, col_runs;
};

struct loop_block *product_here(struct product *p) {
    return p->c.n.block[p->c.n.depth];
}

lx product_named(struct product *p, const char *name, lx e) {
    return gpu_named(p->c.b, product_here(p), name, e);
}

void product_enter(struct product *p, struct loop_block *k) {
    nest_scope_enter(&p->c.n, p->c.n.depth + 1, k, false);
}

bool product_multiple(lx e, int64_t of) {
    int64_t exact;
    return lx_is_int(e, &exact) && exact % of == 0;
}

/* ---- into shared memory -------------------------------------------------------------------------------------------------- */

bool product_walks_reduction(struct product *p, ir_expr factor, const struct group *g) {
    const struct group *k = &p->c.k;
    int64_t stride;
    if (!factor || factor->kind != X_LOAD)
        return false;
    if (nest_stride(p->c.l, factor, g->index[g->count - 1], &stride) && stride == 1)
        return false;
    return nest_stride(p->c.l, factor, k->index[k->count - 1], &stride) && stride == 1;
}

/* Whether four neighbours may be loaded at once: they lie together from a multiple of four on, all inside or all outside. */
static bool loads_fours(struct product *p, const struct loader *d, lx extent) {
    const struct group *g = d->along ? &p->c.k : d->side->group;
    ir_expr e = d->side->e;
    int q = g->index[g->count - 1];
    if (!e || e->kind != X_LOAD || e->guarded || e->dtype != F32 || p->c.dtype != F32 ||
        d->width * p->tile.depth % (RUN * GPU_THREADS))
        return false;
    struct ir_type t = p->c.l->op->operands[e->index]->type;
    int64_t row, neighbours;
    if (!t.rank || e->args[t.rank - 1]->kind != X_INDEX || e->args[t.rank - 1]->index != q ||
        !ir_dim_is_const(t.dims[t.rank - 1], &row) || row % RUN ||
        !ir_dim_is_const(p->c.l->op->nest.indices[q].extent, &neighbours) || neighbours % RUN)
        return false;
    for (int r = 0; r < t.rank - 1; r++)
        if (nest_uses(e->args[r]) >> q & 1)
            return false;
    return d->along ? product_multiple(p->depth, (int64_t)p->tile.depth * p->parts) : product_multiple(extent, RUN);
}

/* Which elements are the thread's: the same places of every slice. */
static void open_loader(struct product *p, struct loader *d, lx thread, lx first, lx extent) {
    struct loop_builder *b = p->c.b;
    const struct group *g = d->side->group;
    d->lanes = loads_fours(p, d, extent) ? RUN : 1;
    int lines = (d->along ? p->tile.depth : d->width) / d->lanes; /* neighbours */
    lx near = product_named(p, "near", lx_mul(b, lx_mod(b, thread, lx_int(b, lines)), lx_int(b, d->lanes))),
       far = product_named(p, "far", lx_div(b, thread, lx_int(b, lines)));
    d->count = d->width * p->tile.depth / (d->lanes * GPU_THREADS);
    for (int i = 0; i < d->count; i++) {
        lx step = lx_add(b, far, lx_int(b, (int64_t)i * (GPU_THREADS / lines)));
        lx place = d->along ? step : near;
        d->in_slice[i] = d->along ? near : step;
        d->position[i] = place;
        if (i > 0 && !d->along) {
            for (int q = 0; q < g->count; q++)
                d->index[i][q] = d->index[0][q];
            continue;
        }
        contraction_set_flat(&p->c, g, g->count, product_named(p, "position", lx_add(b, first, place)));
        for (int q = 0; q < g->count; q++)
            d->index[i][q] = p->c.n.index[g->index[q]];
    }
}

static lx load_four(struct contraction *c, ir_expr e) {
    const struct ir_value *v = c->l->op->operands[e->index];
    return lx_load(c->b, c->l->mem(c->l->context, v), nest_address(&c->n, v->type, e->args), RUN);
}

/* One slice, from k0 on. Outside of the operand are zeros, which change no sum. */
static void load_slice(struct product *p, struct loader *d, lx k0, lx first, lx extent) {
    struct loop_builder *b = p->c.b;
    struct contraction *c = &p->c;
    const struct group *g = d->side->group;
    int outer = c->n.depth;
    for (int i = 0; i < d->count; i++) {
        lx k = product_named(p, "k_", lx_add(b, k0, d->in_slice[i]));
        lx inside = NULL;
        if (!product_multiple(extent, d->width))
            inside = lx_op(b, I_LT, lx_add(b, first, d->position[i]), extent);
        if (!product_multiple(p->depth, (int64_t)p->tile.depth * p->parts)) {
            lx in_part = lx_op(b, I_LT, k, p->end);
            inside = inside ? lx_op(b, I_AND, inside, in_part) : in_part;
        }
        struct loop_var *v = loop_var_new(b, d->lanes > 1 ? "elements" : "element", c->dtype, d->lanes);
        lx zero = lx_const_float(b, c->dtype, 0);
        v->is_mutable = inside != NULL;
        struct loop_stmt *s = NULL;
        if (inside) {
            loop_def(b, product_here(p), v, d->lanes > 1 ? lx_pack(b, RUN, (lx[]){zero, zero, zero, zero}) : zero);
            s = loop_if(b, NULL, inside);
            product_enter(p, &s->body);
        }
        for (int q = 0; q < g->count; q++)
            nest_scope_set(&c->n, g->index[q], d->index[i][q], 0);
        contraction_set_flat(c, &c->k, c->k.count, k);
        lx value = d->lanes > 1 ? load_four(c, d->side->e) : nest_value(&c->n, d->side->e);
        if (inside) {
            loop_set(b, product_here(p), v, NULL, value);
            c->n.depth = outer;
            loop_append(product_here(p), s);
        } else {
            loop_def(b, product_here(p), v, value);
        }
        lx at = lx_add(b, lx_mul(b, d->in_slice[i], lx_int(b, d->width + PAD)), d->position[i]);
        if (d->lanes == 1 || !d->along) {
            loop_store(b, product_here(p), d->shared, at, lx_var(b, v));
            continue;
        }
        for (int lane = 0; lane < RUN; lane++)
            loop_store(b, product_here(p), d->shared, lx_add(b, at, lx_int(b, (int64_t)lane * (d->width + PAD))),
                       lx_lane(b, lx_var(b, v), lane));
    }
}

/* ---- sums ----------------------------------------------------------------------------------------------------------------- */

/* The place in the tile of the thread's element number i of a side: runs of four, so that shared memory is read 16 bytes at a time
 * and without conflicts of banks. */
static lx place_of(struct product *p, lx lane, lx i, int width, int runs) {
    struct loop_builder *b = p->c.b;
    lx run = lx_int(b, RUN);
    if (runs == 1)
        return lx_add(b, lx_mul(b, lane, run), i);
    return lx_add(b, lx_add(b, lx_mul(b, lx_div(b, i, run), lx_int(b, width / runs)), lx_mul(b, lane, run)),
                  lx_mod(b, i, run));
}

static struct loop_stmt *unrolled(struct product *p, const char *name, int64_t n, lx *counter) {
    struct loop_var *v = loop_var_new(p->c.b, name, I64, 1);
    *counter = lx_var(p->c.b, v);
    return loop_for(p->c.b, NULL, v, lx_int(p->c.b, 0), lx_int(p->c.b, n), 1, LOOP_UNROLL);
}

static struct loop_var *registers(struct product *p, struct loop_block *k, const char *name, int count) {
    struct loop_var *v = loop_var_new(p->c.b, name, p->c.dtype, 1);
    v->count = count;
    v->is_mutable = true;
    loop_def(p->c.b, k, v, NULL);
    return v;
}

static void multiply(struct fma_product *f, const struct loader *side, struct loop_var *sums, const lx *lane) {
    struct product *p = &f->p;
    struct loop_builder *b = p->c.b;
    int counts[2] = {RUN * f->row_runs, RUN * f->col_runs}, runs[2] = {f->row_runs, f->col_runs};
    struct loop_var *held[2];
    lx k, i, j;
    struct loop_stmt *slice = unrolled(p, "k_", p->tile.depth, &k);
    for (int s = 0; s < 2; s++) {
        held[s] = registers(p, &slice->body, s ? "col" : "row", counts[s]);
        struct loop_stmt *each = unrolled(p, "i", counts[s], &i);
        lx at =
            lx_add(b, lx_mul(b, k, lx_int(b, side[s].width + PAD)), place_of(p, lane[s], i, side[s].width, runs[s]));
        loop_set(b, &each->body, held[s], i, lx_load(b, side[s].shared, at, 1));
        loop_append(&slice->body, each);
    }
    struct loop_stmt *outer = unrolled(p, "i", counts[0], &i), *inner = unrolled(p, "j", counts[1], &j);
    lx at = lx_add(b, lx_mul(b, i, lx_int(b, counts[1])), j);
    loop_set(b, &inner->body, sums, at,
             lx_fma(b, lx_var_at(b, held[0], i), lx_var_at(b, held[1], j), lx_var_at(b, sums, at)));
    loop_append(&outer->body, inner);
    loop_append(&slice->body, outer);
    loop_append(product_here(p), slice);
}

/* The sums of the tile to their result, or to their part. */
static void store_tile(struct fma_product *f, struct loop_var *sums, const lx *lane, struct loop_mem *parts) {
    struct product *p = &f->p;
    struct loop_builder *b = p->c.b;
    struct contraction *c = &p->c;
    int counts[2] = {RUN * f->row_runs, RUN * f->col_runs}, depth = c->n.depth;
    const struct group *groups[2] = {c->rows.group, c->cols.group};
    lx extents[2] = {p->rows, p->cols}, firsts[2] = {p->first_row, p->first_col}, counter[2], at[2];
    int widths[2] = {p->tile.rows, p->tile.cols}, runs[2] = {f->row_runs, f->col_runs};
    struct loop_stmt *loops[2], *tests[2] = {NULL, NULL};
    for (int s = 0; s < 2; s++) {
        loops[s] = unrolled(p, s ? "j" : "i", counts[s], &counter[s]);
        nest_scope_enter(&c->n, c->n.depth + 1, &loops[s]->body, true);
        at[s] = product_named(p, s ? "col_at" : "row_at",
                              lx_add(b, firsts[s], place_of(p, lane[s], counter[s], widths[s], runs[s])));
        if (!product_multiple(extents[s], widths[s])) {
            tests[s] = loop_if(b, NULL, lx_op(b, I_LT, at[s], extents[s]));
            product_enter(p, &tests[s]->body);
        }
        if (!parts)
            contraction_set_flat(c, groups[s], groups[s]->count, at[s]);
    }
    lx sum = lx_var_at(b, sums, lx_add(b, lx_mul(b, counter[0], lx_int(b, counts[1])), counter[1]));
    product_store(p, parts, at[0], at[1], sum);
    for (int s = 2; s-- > 0;) {
        struct loop_stmt *inner = tests[s] ? tests[s] : NULL;
        if (inner) {
            c->n.depth--;
            loop_append(product_here(p), inner);
        }
        c->n.depth--;
        loop_append(product_here(p), loops[s]);
    }
    c->n.depth = depth;
}

struct gpu_kernel product_open(struct product *p) {
    struct contraction *c = &p->c;
    struct loop_builder *b = c->b;
    struct tile t = p->tile;
    lx row_tiles = gpu_ceil_div(b, p->rows, t.rows), col_tiles = gpu_ceil_div(b, p->cols, t.cols);
    lx tiles = lx_mul(b, lx_mul(b, c->batch.size, row_tiles), col_tiles);
    struct gpu_kernel k = gpu_open(b, c->l->out, lx_mul(b, tiles, lx_int(b, p->parts)), GPU_THREADS);
    nest_scope_init(&c->n, c->l);
    nest_scope_enter(&c->n, 0, k.body, true);
    /* Columns go fastest, so that blocks that run together share their rows. */
    lx rest = k.block;
    p->part = p->first = lx_int(b, 0);
    p->first_col = product_named(p, "first_col", lx_mul(b, lx_mod(b, rest, col_tiles), lx_int(b, t.cols)));
    rest = product_named(p, "rest", lx_div(b, rest, col_tiles));
    p->first_row = product_named(p, "first_row", lx_mul(b, lx_mod(b, rest, row_tiles), lx_int(b, t.rows)));
    rest = product_named(p, "rest", lx_div(b, rest, row_tiles));
    p->batch = p->parts > 1 ? product_named(p, "batch", lx_mod(b, rest, c->batch.size)) : rest;
    if (p->parts > 1)
        p->part = product_named(p, "part_of", lx_div(b, rest, c->batch.size));
    contraction_set_flat(c, &c->batch, c->batch.count, p->batch);
    p->end = p->depth;
    if (p->parts > 1) {
        lx share = lx_mul(b, gpu_ceil_div(b, p->depth, (int64_t)t.depth * p->parts), lx_int(b, t.depth));
        p->first = product_named(p, "first", lx_mul(b, p->part, share));
        p->end = product_named(p, "end", lx_min(b, lx_add(b, p->first, share), p->depth));
    }
    return k;
}

struct loop_mem *product_parts(struct product *p) {
    const struct contraction *c = &p->c;
    if (p->parts == 1)
        return NULL;
    return c->l->workspace(c->l->context, c->l->out, "parts", c->dtype,
                           p->parts * c->batch.upper * c->rows.group->upper * c->cols.group->upper);
}

void product_store(struct product *p, struct loop_mem *parts, lx row, lx col, lx sum) {
    struct contraction *c = &p->c;
    struct loop_builder *b = c->b;
    if (parts) {
        lx line = lx_add(b, lx_mul(b, lx_add(b, lx_mul(b, p->part, c->batch.size), p->batch), p->rows), row);
        loop_store(b, product_here(p), parts, lx_add(b, lx_mul(b, line, p->cols), col), sum);
        return;
    }
    c->n.acc[0] = sum;
    nest_store(&c->n, 0, nest_value(&c->n, c->nest->results[0].value));
}

static void product_kernel(struct fma_product *f, struct loop_mem *parts) {
    struct product *p = &f->p;
    struct contraction *c = &p->c;
    struct loop_builder *b = c->b;
    struct tile t = p->tile;
    struct gpu_kernel k = product_open(p);
    struct loader side[2] = {{.side = &c->rows, .width = t.rows}, {.side = &c->cols, .width = t.cols}};
    lx lane[2] = {product_named(p, "row_lane", lx_div(b, k.thread, lx_int(b, t.cols / (RUN * f->col_runs)))),
                  product_named(p, "col_lane", lx_mod(b, k.thread, lx_int(b, t.cols / (RUN * f->col_runs))))};
    for (int s = 0; s < 2; s++) {
        side[s].shared = gpu_shared(&k, s ? "cols" : "rows", c->dtype, (int64_t)t.depth * (side[s].width + PAD));
        side[s].along = product_walks_reduction(p, side[s].side->load, side[s].side->group);
        open_loader(p, &side[s], k.thread, s ? p->first_col : p->first_row, s ? p->cols : p->rows);
    }
    int count = RUN * RUN * f->row_runs * f->col_runs;
    struct loop_var *sums = registers(p, product_here(p), "sum", count);
    lx i;
    struct loop_stmt *clear = unrolled(p, "i", count, &i);
    loop_set(b, &clear->body, sums, i, lx_const_float(b, c->dtype, 0));
    loop_append(product_here(p), clear);
    struct loop_var *k0 = loop_var_new(b, "slice", I64, 1);
    struct loop_stmt *slices = loop_for(b, NULL, k0, p->first, p->end, t.depth, LOOP_SERIAL);
    product_enter(p, &slices->body);
    for (int s = 0; s < 2; s++)
        load_slice(p, &side[s], lx_var(b, k0), s ? p->first_col : p->first_row, s ? p->cols : p->rows);
    loop_barrier(b, product_here(p));
    multiply(f, side, sums, lane);
    loop_barrier(b, product_here(p));
    c->n.depth = 0;
    loop_append(product_here(p), slices);
    store_tile(f, sums, lane, parts);
}

void product_fold(struct product *p, struct loop_mem *parts) {
    struct contraction *c = &p->c;
    struct loop_builder *b = c->b;
    lx all = lx_mul(b, lx_mul(b, c->batch.size, p->rows), p->cols);
    int64_t upper = c->batch.upper * c->rows.group->upper * c->cols.group->upper;
    struct gpu_each e = gpu_open_each(b, c->l->out, all, upper, "at");
    nest_scope_init(&c->n, c->l);
    nest_scope_enter(&c->n, 0, e.k.body, true);
    if (e.around)
        product_enter(p, e.body);
    struct loop_var *sum = loop_var_new(b, "sum", c->dtype, 1), *part = loop_var_new(b, "part_of", I64, 1);
    sum->is_mutable = true;
    loop_def(b, product_here(p), sum, lx_load(b, parts, e.at, 1));
    struct loop_stmt *s = loop_for(b, product_here(p), part, lx_int(b, 1), lx_int(b, p->parts), 1, LOOP_SERIAL);
    lx from = lx_add(b, lx_mul(b, lx_var(b, part), all), e.at);
    loop_set(b, &s->body, sum, NULL, lx_fn2(b, FN_add, lx_var(b, sum), lx_load(b, parts, from, 1)));
    lx col = product_named(p, "col_at", lx_mod(b, e.at, p->cols)),
       rest = product_named(p, "rest", lx_div(b, e.at, p->cols));
    lx row = product_named(p, "row_at", lx_mod(b, rest, p->rows));
    contraction_set_flat(c, c->cols.group, c->cols.group->count, col);
    contraction_set_flat(c, c->rows.group, c->rows.group->count, row);
    contraction_set_flat(c, &c->batch, c->batch.count, product_named(p, "batch", lx_div(b, rest, p->rows)));
    c->n.acc[0] = lx_var(b, sum);
    nest_store(&c->n, 0, nest_value(&c->n, c->nest->results[0].value));
    gpu_close_each(&e);
}

/* ---- choice ---------------------------------------------------------------------------------------------------------------- */

void product_choose(struct product *p, const struct tile *tiles, int count) {
    const struct contraction *c = &p->c;
    int64_t rows = c->rows.group->upper, cols = c->cols.group->upper, blocks = 1;
    for (int i = 0; i < count; i++) {
        p->tile = tiles[i];
        blocks =
            (rows + tiles[i].rows - 1) / tiles[i].rows * ((cols + tiles[i].cols - 1) / tiles[i].cols) * c->batch.upper;
        if (blocks >= ENOUGH_BLOCKS && rows >= tiles[i].rows && cols >= tiles[i].cols)
            break;
    }
    p->parts = 1;
    while (p->parts < MOST_PARTS && p->parts * blocks < ENOUGH_BLOCKS && c->k.upper / (2 * p->parts) >= LEAST_DEPTH)
        p->parts *= 2;
}

int64_t product_flops(const struct product *p) {
    const struct contraction *c = &p->c;
    double flops = 2.0 * (double)c->batch.upper * (double)c->a.upper * (double)c->b_side.upper * (double)c->k.upper;
    return flops < 9e18 ? (int64_t)flops : INT64_MAX;
}

bool product_recognise(struct product *p, struct lower *l) {
    struct contraction *c = &p->c;
    *p = (struct product){.c = {.l = l, .b = l->b, .nest = &l->op->nest}};
    nest_scope_init(&c->n, l);
    if (!contraction_recognise(c) || c->a.upper < 16 || c->b_side.upper < 16 || c->k.upper < 8)
        return false;
    ir_expr body = c->nest->accs[0].body;
    struct side a = contraction_side(c, body->args[0], &c->a), b = contraction_side(c, body->args[1], &c->b_side);
    bool swap = c->a.index[c->a.count - 1] == c->nest->pars - 1;
    c->rows = swap ? b : a;
    c->cols = swap ? a : b;
    p->rows = c->rows.group->size;
    p->cols = c->cols.group->size;
    p->depth = c->k.size;
    return true;
}

bool lower_gpu_contraction(struct lower *l) {
    static const struct tile tiles[] = {{128, 128, 8}, {64, 64, 16}};
    struct fma_product *f = arena_alloc(l->b->arena, sizeof *f);
    struct product *p = &f->p;
    if (!product_recognise(p, l))
        return false;
    bool wide = p->c.dtype == F64;
    product_choose(p, tiles + wide, wide ? 1 : 2);
    f->row_runs = p->tile.rows / 64;
    f->col_runs = p->tile.cols / 64;
    l->flops += product_flops(p);
    struct loop_mem *parts = product_parts(p);
    product_kernel(f, parts);
    if (parts)
        product_fold(p, parts);
    return true;
}
