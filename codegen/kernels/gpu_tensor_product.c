/* Sums of products on tensor cores: gpu_contraction.c's products where both factors are bf16 or f16 values taken as f32, or f32 values
 * that may be rounded to tf32 (--precision).
 *
 * A block's eight warps share a tile of sums. Slices of the reduction alternate between two halves of shared memory: while the warps
 * multiply one, the next is on its way. Where 16 bytes of an operand lie together they are copied asynchronously as they are; else
 * threads evaluate the factor, whatever it is (a window with a guard, a gather, an activation that was fused into it), so that
 * convolutions and their two gradients are the same kernel, without im2col. An operand is kept as it lies in memory, along the reduction
 * or across, and transposed when it is read.
 *
 * Each sum is a chain over the instructions' depths in the order of the reduction, part by part. How an instruction adds its 16 (tf32: 8)
 * products is the GPU's own business, the same in every run; tiles and parts depend on shapes alone.
 */
#include "codegen/kernels/gpu_product.h"
#include "codegen/kernels/gpu_tensor.h"

enum { MOST_ELEMENTS = 16, STAGES = 2 };

/* One side: what of it a thread brings into shared memory. */
struct loader {
    ir_expr e; /* the factor, in the type that is multiplied */
    const struct group *group;
    struct gpu_operand operand;
    int width, stage;    /* of the tile; elements of a stage */
    int together, count; /* elements a piece, and pieces a thread */
    lx first, extent;    /* the block's first position, and how many there are */
    lx position[MOST_ELEMENTS], in_slice[MOST_ELEMENTS];
    lx index[MOST_ELEMENTS][NEST_MAX]; /* of the group, for each piece */
};

struct tensor_product {
    struct product p;
    enum gpu_mma kind;
    struct loader side[2]; /* rows, columns */
    int tiles[2];          /* of a warp: 16 rows, 8 columns */
    lx lane, warp_first[2];
};

/* ---- into shared memory -------------------------------------------------------------------------------------------------- */

/* Whether pieces of 16 bytes can be copied as they are. */
static bool is_together(struct tensor_product *t, const struct loader *d) {
    const struct contraction *c = &t->p.c;
    const struct group *g = d->operand.along ? &c->k : d->group;
    return d->e->kind == X_LOAD && d->e->dtype == gpu_mma_type(t->kind) &&
           gpu_loads_together(c->l, c->nest, d->e, g->index[g->count - 1], gpu_mma_together(t->kind));
}

/* Which pieces are the thread's: the same places of every slice. */
static void open_loader(struct tensor_product *t, struct loader *d, lx thread) {
    struct product *p = &t->p;
    struct loop_builder *b = p->c.b;
    bool along = d->operand.along;
    int lines = (along ? p->tile.depth : d->width) / d->together; /* neighbours */
    lx near = product_named(p, "near", lx_mul(b, lx_mod(b, thread, lx_int(b, lines)), lx_int(b, d->together))),
       far = product_named(p, "far", lx_div(b, thread, lx_int(b, lines)));
    d->count = d->width * p->tile.depth / d->together / GPU_THREADS;
    for (int i = 0; i < d->count; i++) {
        lx step = lx_add(b, far, lx_int(b, (int64_t)i * (GPU_THREADS / lines)));
        d->in_slice[i] = along ? near : step;
        d->position[i] = along ? step : near;
        if (i > 0 && !along) {
            for (int q = 0; q < d->group->count; q++)
                d->index[i][q] = d->index[0][q];
            continue;
        }
        contraction_set_flat(&p->c, d->group, d->group->count,
                             product_named(p, "position", lx_add(b, d->first, d->position[i])));
        for (int q = 0; q < d->group->count; q++)
            d->index[i][q] = p->c.n.index[d->group->index[q]];
    }
}

static lx inside(struct tensor_product *t, const struct loader *d, int i, lx k) {
    struct product *p = &t->p;
    struct loop_builder *b = p->c.b;
    lx test = NULL;
    if (!product_multiple(d->extent, d->width))
        test = lx_op(b, I_LT, lx_add(b, d->first, d->position[i]), d->extent);
    if (!product_multiple(p->depth, (int64_t)p->tile.depth * p->parts)) {
        lx in_part = lx_op(b, I_LT, k, p->end);
        test = test ? lx_op(b, I_AND, test, in_part) : in_part;
    }
    return test;
}

/* One slice, from k0 on, into the shared memory at `base`. Outside of the operand are zeros, which change no sum. */
static void load_slice(struct tensor_product *t, struct loader *d, lx k0, lx base) {
    struct product *p = &t->p;
    struct contraction *c = &p->c;
    struct loop_builder *b = c->b;
    enum dtype type = gpu_mma_type(t->kind);
    int outer = c->n.depth;
    for (int i = 0; i < d->count; i++) {
        lx k = product_named(p, "k_", lx_add(b, k0, d->in_slice[i])), test = inside(t, d, i, k);
        lx line = d->operand.along ? d->position[i] : d->in_slice[i],
           within = d->operand.along ? d->in_slice[i] : d->position[i];
        lx at = lx_add(b, base, lx_add(b, lx_mul(b, line, lx_int(b, d->operand.stride)), within));
        struct loop_stmt *s = NULL;
        struct loop_var *v = NULL;
        if (d->together == 1) {
            v = loop_var_new(b, "element", type, 1);
            v->is_mutable = test != NULL;
        }
        if (test && v) {
            loop_def(b, product_here(p), v, lx_const_float(b, type, 0));
            s = loop_if(b, NULL, test);
            product_enter(p, &s->body);
        }
        for (int q = 0; q < d->group->count; q++)
            nest_scope_set(&c->n, d->group->index[q], d->index[i][q], 0);
        contraction_set_flat(c, &c->k, c->k.count, k);
        if (!v) {
            const struct ir_value *from = c->l->op->operands[d->e->index];
            gpu_copy(b, product_here(p), test, d->operand.shared, at, c->l->mem(c->l->context, from),
                     nest_address(&c->n, from->type, d->e->args));
            continue;
        }
        lx value = nest_value(&c->n, d->e);
        if (s) {
            loop_set(b, product_here(p), v, NULL, value);
            c->n.depth = outer;
            loop_append(product_here(p), s);
        } else {
            loop_def(b, product_here(p), v, value);
        }
        loop_store(b, product_here(p), d->operand.shared, at, lx_var(b, v));
    }
}

static bool copies(const struct tensor_product *t) {
    return t->side[0].together > 1 || t->side[1].together > 1;
}

/* ---- sums ----------------------------------------------------------------------------------------------------------------- */

static struct loop_stmt *unrolled(struct loop_builder *b, struct loop_block *k, const char *name, int64_t n,
                                  lx *counter) {
    struct loop_var *v = loop_var_new(b, name, I64, 1);
    *counter = lx_var(b, v);
    return loop_for(b, k, v, lx_int(b, 0), lx_int(b, n), 1, LOOP_UNROLL);
}

static void multiply(struct tensor_product *t, struct loop_mem *sums, lx stage) {
    struct loop_builder *b = t->p.c.b;
    int rows = t->tiles[0], cols = t->tiles[1];
    lx k, i, j;
    struct loop_stmt *steps = unrolled(b, product_here(&t->p), "k_", t->p.tile.depth / gpu_mma_depth(t->kind), &k);
    struct loop_mem *held[2];
    for (int s = 0; s < 2; s++) {
        struct loader *d = &t->side[s];
        int fragments = s ? cols / 2 : rows;
        held[s] = gpu_registers(b, &steps->body, s ? "of_cols" : "of_rows", U32, 4 * (int64_t)fragments);
        struct loop_stmt *each = unrolled(b, &steps->body, "i", fragments, &i);
        gpu_fragment(b, &each->body, &d->operand, held[s], lx_mul(b, i, lx_int(b, 4)), i, k,
                     lx_mul(b, stage, lx_int(b, d->stage)));
    }
    struct loop_stmt *outer = unrolled(b, &steps->body, "i", rows, &i),
                     *inner = unrolled(b, &outer->body, "j", cols, &j);
    lx at = lx_mul(b, lx_add(b, lx_mul(b, i, lx_int(b, cols)), j), lx_int(b, 4));
    gpu_mma(b, &inner->body, t->kind, sums, at, held[0], lx_mul(b, i, lx_int(b, 4)), held[1],
            lx_mul(b, j, lx_int(b, 2)));
}

/* Whether the two columns of a lane are always neighbours in the result, at an aligned address. */
static bool in_pairs(const struct tensor_product *t) {
    const struct contraction *c = &t->p.c;
    const struct group *g = c->cols.group;
    int last = g->index[g->count - 1];
    int64_t extent;
    return last == c->nest->pars - 1 && ir_dim_is_const(c->nest->indices[last].extent, &extent) && extent % 2 == 0;
}

/* The two sums from `at` on, which belong to the column as it is set and to the next. */
static void store_pair(struct tensor_product *t, struct loop_mem *sums, lx at) {
    struct product *p = &t->p;
    struct contraction *c = &p->c;
    struct loop_builder *b = c->b;
    lx values[2];
    int last = c->nest->pars - 1;
    lx first = c->n.index[last];
    for (int i = 0; i < 2; i++) {
        nest_scope_set(&c->n, last, i ? lx_add(b, first, lx_int(b, 1)) : first, c->n.depth);
        c->n.acc[0] = lx_load(b, sums, lx_add(b, at, lx_int(b, i)), 1);
        values[i] = product_named(p, "value", nest_value(&c->n, c->nest->results[0].value));
    }
    nest_scope_set(&c->n, last, first, c->n.depth);
    nest_store(&c->n, 0, lx_pack(b, 2, values));
}

/* The sums of the tile to their result, or to their part. */
static void store_tile(struct tensor_product *t, struct loop_mem *sums, struct loop_mem *parts) {
    struct product *p = &t->p;
    struct contraction *c = &p->c;
    struct loop_builder *b = c->b;
    bool pairs = !parts && in_pairs(t);
    int depth = c->n.depth;
    /* Loops: 16 rows, their halves, 8 columns, the two of a lane. */
    static const char *const names[] = {"i", "half", "j", "next"};
    int64_t counts[4] = {t->tiles[0], 2, t->tiles[1], pairs ? 1 : 2};
    lx counter[4], at[2];
    struct loop_stmt *loops[4], *tests[2] = {NULL, NULL};
    for (int q = 0; q < 4; q++) {
        loops[q] = unrolled(b, NULL, names[q], counts[q], &counter[q]);
        nest_scope_enter(&c->n, c->n.depth + 1, &loops[q]->body, true);
        if (q % 2 == 0)
            continue;
        int s = q / 2;
        lx in_tile =
            s ? gpu_mma_col(b, t->lane, counter[3]) : gpu_mma_row(b, t->lane, lx_mul(b, counter[1], lx_int(b, 2)));
        lx first =
            lx_add(b, t->side[s].first, lx_add(b, t->warp_first[s], lx_mul(b, counter[q - 1], lx_int(b, s ? 8 : 16))));
        at[s] = product_named(p, s ? "col_at" : "row_at", lx_add(b, first, in_tile));
        if (!product_multiple(t->side[s].extent, t->side[s].width)) {
            tests[s] = loop_if(b, NULL, lx_op(b, I_LT, at[s], t->side[s].extent));
            product_enter(p, &tests[s]->body);
        }
        if (!parts)
            contraction_set_flat(c, t->side[s].group, t->side[s].group->count, at[s]);
    }
    lx tile = lx_add(b, lx_mul(b, counter[0], lx_int(b, counts[2])), counter[2]);
    lx within = lx_add(b, lx_mul(b, counter[1], lx_int(b, 2)), counter[3]);
    lx place = lx_add(b, lx_mul(b, tile, lx_int(b, 4)), within);
    if (pairs)
        store_pair(t, sums, place);
    else
        product_store(p, parts, at[0], at[1], lx_load(b, sums, place, 1));
    for (int q = 4; q-- > 0;) {
        if (q % 2 && tests[q / 2]) {
            c->n.depth--;
            loop_append(product_here(p), tests[q / 2]);
        }
        c->n.depth--;
        loop_append(product_here(p), loops[q]);
    }
    c->n.depth = depth;
}

static void product_kernel(struct tensor_product *t, struct loop_mem *parts) {
    struct product *p = &t->p;
    struct contraction *c = &p->c;
    struct loop_builder *b = c->b;
    struct tile tile = p->tile;
    struct gpu_kernel k = product_open(p);
    /* Two rows of four warps. */
    lx warp = product_named(p, "warp", lx_div(b, k.thread, lx_int(b, GPU_WARP)));
    t->lane = product_named(p, "lane_", lx_mod(b, k.thread, lx_int(b, GPU_WARP)));
    t->tiles[0] = tile.rows / 2 / 16;
    t->tiles[1] = tile.cols / 4 / 8;
    t->warp_first[0] = lx_mul(b, lx_div(b, warp, lx_int(b, 4)), lx_int(b, tile.rows / 2));
    t->warp_first[1] = lx_mul(b, lx_mod(b, warp, lx_int(b, 4)), lx_int(b, tile.cols / 4));
    for (int s = 0; s < 2; s++) {
        struct loader *d = &t->side[s];
        d->width = s ? tile.cols : tile.rows;
        d->first = s ? p->first_col : p->first_row;
        d->extent = s ? p->cols : p->rows;
        d->operand = (struct gpu_operand){.kind = t->kind, .columns = s};
        d->operand.along =
            product_walks_reduction(p, d->e, d->group) ||
            gpu_loads_together(c->l, c->nest, d->e, c->k.index[c->k.count - 1], gpu_mma_together(t->kind));
        d->operand.stride = gpu_operand_stride(t->kind, d->operand.along, d->width, tile.depth);
        d->stage = (d->operand.along ? d->width : tile.depth) * d->operand.stride;
        d->together = is_together(t, d) ? gpu_mma_together(t->kind) : 1;
        d->operand.shared = gpu_shared(&k, s ? "cols" : "rows", gpu_mma_type(t->kind), (int64_t)STAGES * d->stage);
        open_loader(t, d, k.thread);
        gpu_operand_open(b, product_here(p), &d->operand, t->lane, t->warp_first[s]);
    }
    int64_t count = (int64_t)t->tiles[0] * t->tiles[1] * 4;
    struct loop_mem *sums = gpu_registers(b, product_here(p), "sum", F32, count);
    lx i;
    struct loop_stmt *clear = unrolled(b, product_here(p), "i", count, &i);
    loop_store(b, &clear->body, sums, i, lx_const_float(b, F32, 0));
    for (int s = 0; s < 2; s++)
        load_slice(t, &t->side[s], p->first, lx_int(b, 0));
    struct loop_var *k0 = loop_var_new(b, "slice", I64, 1);
    struct loop_stmt *slices = loop_for(b, NULL, k0, p->first, p->end, tile.depth, LOOP_SERIAL);
    product_enter(p, &slices->body);
    lx number = lx_div(b, lx_sub(b, lx_var(b, k0), p->first), lx_int(b, tile.depth));
    lx stage = product_named(p, "stage", lx_mod(b, number, lx_int(b, STAGES)));
    if (copies(t))
        gpu_copy_wait(b, product_here(p));
    loop_barrier(b, product_here(p));
    lx next = product_named(p, "next", lx_add(b, lx_var(b, k0), lx_int(b, tile.depth)));
    struct loop_stmt *more = loop_if(b, NULL, lx_op(b, I_LT, next, p->end));
    product_enter(p, &more->body);
    for (int s = 0; s < 2; s++)
        load_slice(t, &t->side[s], next,
                   lx_mul(b, lx_sub(b, lx_int(b, STAGES - 1), stage), lx_int(b, t->side[s].stage)));
    c->n.depth--;
    loop_append(product_here(p), more);
    multiply(t, sums, stage);
    c->n.depth = 0;
    loop_append(product_here(p), slices);
    if (copies(t) && p->parts > 1) /* a part may be empty */
        gpu_copy_wait(b, product_here(p));
    store_tile(t, sums, parts);
}

/* ---- choice ---------------------------------------------------------------------------------------------------------------- */

/* The factor as it is multiplied, and the kind of its instruction; NULL: it has none. */
static ir_expr factor_of(const struct lower *l, ir_expr e, enum gpu_mma *kind) {
    if (e->kind == X_CAST && (e->args[0]->dtype == BF16 || e->args[0]->dtype == F16)) {
        *kind = e->args[0]->dtype == BF16 ? MMA_BF16 : MMA_F16;
        return e->args[0];
    }
    *kind = MMA_TF32;
    return l->options->precision == PRECISION_TF32 ? e : NULL;
}

bool lower_gpu_tensor_product(struct lower *l) {
    static const struct tile halves[] = {{128, 128, 32}, {64, 64, 32}}, words[] = {{128, 128, 16}, {64, 64, 16}};
    struct tensor_product *t = arena_alloc(l->b->arena, sizeof *t);
    struct product *p = &t->p;
    if (!product_recognise(p, l) || p->c.dtype != F32)
        return false;
    enum gpu_mma kinds[2];
    *t = (struct tensor_product){.p = *p};
    for (int s = 0; s < 2; s++) {
        const struct side *side = s ? &p->c.cols : &p->c.rows;
        t->side[s].e = factor_of(l, side->e, &kinds[s]);
        t->side[s].group = side->group;
        if (!t->side[s].e)
            return false;
    }
    if (kinds[0] != kinds[1]) { /* f16 by bf16 */
        if (l->options->precision != PRECISION_TF32)
            return false;
        t->side[0].e = p->c.rows.e;
        t->side[1].e = p->c.cols.e;
        kinds[0] = MMA_TF32;
    }
    t->kind = kinds[0];
    product_choose(p, t->kind == MMA_TF32 ? words : halves, 2);
    l->flops += product_flops(p);
    struct loop_mem *parts = product_parts(p);
    product_kernel(t, parts);
    if (parts)
        product_fold(p, parts);
    return true;
}
