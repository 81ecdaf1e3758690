/* Sums of products as packed matrix products (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008).
 *
 * A nest  y[p…] = f(sum[k…] A(p…, k…) * B(p…, k…))  splits its parallel indices into those of A alone, of B alone and of both
 * (the batch). One side becomes the vectors: it is packed into panels, zero padded to whole vectors, and packing evaluates it, whatever it
 * is (a transposed load, a window with a guard, a conversion). The other is the rows, of which the micro-kernel broadcasts single
 * elements: in place where the reduction walks them contiguously; in place, too, where they are the windows of a convolution or of its
 * gradients, by a table of offsets; else packed in tiles. So products in every transposition, convolutions and their two gradients are
 * one kernel. Which side is which, and the shape of the tile, is decided by an estimate in cycles.
 *
 * Each element is one chain of multiply-adds in the order of the reduction, whatever the blocking, so that neither tile sizes nor
 * tasks change a bit.
 *
 * contraction.c recognises and decides, _loops.c builds the loops, _pack.c the copies, _tile.c the micro-kernel.
 */
#include <math.h>
#include <stdlib.h>

#include "codegen/kernels/contraction.h"

enum { K_BLOCK = 1024, L1_BYTES = 24576, CACHE_BYTES = 4 << 20 };

/* ---- recognition ------------------------------------------------------------------------------------------------------ */

static void close_group(struct contraction *c, struct group *g) {
    struct ir_module *m = c->l->module;
    g->extent = ir_dim_const(m, 1);
    for (int i = 0; i < g->count; i++)
        g->extent = ir_dim_mul(m, g->extent, c->nest->indices[g->index[i]].extent);
    g->upper = ir_dim_upper(g->extent);
    int64_t value;
    g->constant = ir_dim_is_const(g->extent, &value);
    g->size = nest_dim(&c->n, g->extent);
}

static void note_load(ir_expr e, void *context) {
    *(bool *)context |= e->kind == X_LOAD;
}

static bool plain_bounds(const struct ir_nest_index *x) {
    bool loads = false;
    ir_expr_walk(x->hi, note_load, &loads);
    return x->lo->kind == X_CONST && x->lo->value.i == 0 && !nest_uses(x->hi) && !loads;
}

/* One constant stride for the flattened group: the address of an unguarded load as base + position * stride. */
static bool flat_stride(struct contraction *c, ir_expr load, const struct group *g, int64_t *stride) {
    int64_t s, extent, expected = 0;
    for (int i = g->count; i-- > 0;) {
        if (!nest_stride(c->l, load, g->index[i], &s))
            return false;
        if (i == g->count - 1)
            *stride = expected = s;
        else if (s != expected)
            return false;
        if (i > 0) {
            if (!ir_dim_is_const(c->nest->indices[g->index[i]].extent, &extent))
                return false;
            expected *= extent;
        }
    }
    return g->count > 0;
}

struct side contraction_side(const struct contraction *c, ir_expr e, struct group *g) {
    ir_expr load =
        e->kind == X_CAST && dtype_is_float(e->args[0]->dtype) && dtype_size(e->args[0]->dtype) < dtype_size(c->dtype)
            ? e->args[0]
            : e;
    return (struct side){e, load->kind == X_LOAD ? load : NULL, g};
}

static bool is_in_place(struct contraction *c, const struct side *s, int64_t *row_stride) {
    int64_t k_stride;
    if (!s->load || s->load->guarded)
        return false;
    if (!flat_stride(c, s->load, &c->k, &k_stride) || k_stride != 1 || !flat_stride(c, s->load, s->group, row_stride))
        return false;
    /* Rows a multiple of 4 KiB apart meet in one set of the cache. */
    return *row_stride * dtype_size(s->load->dtype) % 4096 != 0;
}

bool contraction_recognise(struct contraction *c) {
    struct ir_op *op = c->l->op;
    const struct ir_nest *nest = c->nest;
    if (op->result_count != 1 || nest->acc_count != 1 || nest->results[0].base >= 0 || nest->accs[0].op != RED_SUM ||
        !nest->reds)
        return false;
    ir_expr body = nest->accs[0].body;
    if (body->kind != X_FN || body->fn != FN_mul || (body->dtype != F32 && body->dtype != F64))
        return false;
    c->dtype = body->dtype;
    uint32_t in_a = nest_uses(body->args[0]), in_b = nest_uses(body->args[1]);
    for (int i = 0; i < nest->pars; i++) {
        bool a = in_a >> i & 1, b = in_b >> i & 1;
        struct group *g = a == b ? &c->batch : a ? &c->a : &c->b_side;
        g->index[g->count++] = i;
    }
    for (int i = nest->pars; i < nest->pars + nest->reds; i++) {
        if (!plain_bounds(&nest->indices[i]) || !((in_a | in_b) >> i & 1))
            return false;
        c->k.index[c->k.count++] = i;
    }
    if (!c->a.count || !c->b_side.count)
        return false;
    close_group(c, &c->batch);
    close_group(c, &c->a);
    close_group(c, &c->b_side);
    close_group(c, &c->k);
    double work = (double)c->a.upper * (double)c->b_side.upper * (double)c->k.upper;
    return c->a.upper >= 4 && c->b_side.upper >= 4 && c->k.upper >= 4 && work >= 2048;
}

/* ---- windows -------------------------------------------------------------------------------------------------------------- */

/* How far the subscripts leave the operand: the border that a copy of it needs. */
static bool find_border(struct contraction *c) {
    ir_expr e = c->rows.load;
    struct ir_type t = c->l->op->operands[e->index]->type;
    c->border = false;
    for (int d = 0; d < t.rank; d++) {
        c->below[d] = c->above[d] = 0;
        if (!e->guarded || ir_index_inside(c->l->module, c->nest, e->args[d], t.dims[d]) == INSIDE)
            continue;
        struct ir_range r = ir_expr_range(c->l->module, c->nest, e->args[d]);
        int64_t lo, hi, extent;
        if (r.known && ir_dim_lower(r.lo) >= 0 && ir_dim_lt(c->l->module, r.hi, t.dims[d]))
            continue;
        if (!r.known || !ir_dim_is_const(r.lo, &lo) || !ir_dim_is_const(r.hi, &hi) ||
            !ir_dim_is_const(t.dims[d], &extent))
            return false;
        c->below[d] = lo < 0 ? -lo : 0;
        c->above[d] = hi >= extent ? hi - extent + 1 : 0;
        c->border |= c->below[d] || c->above[d];
    }
    return true;
}

/* Whether c->rows can be read as windows; sets the run and the strides. */
static bool is_window(struct contraction *c) {
    const struct group *g = c->rows.group;
    ir_expr e = c->rows.load;
    int64_t stride, extent, expected = 0;
    if (!e || c->batch.count)
        return false;
    struct ir_type t = c->l->op->operands[e->index]->type;
    if (e->guarded && (e->args[t.rank]->kind != X_CONST || e->args[t.rank]->value.f != 0))
        return false;
    if (!find_border(c))
        return false;
    double reach = 0;
    for (int i = 0; i < c->k.count; i++) {
        if (!contraction_window_stride(c, c->k.index[i], &stride))
            return false;
        reach += (double)llabs(stride) * (double)ir_dim_upper(c->nest->indices[c->k.index[i]].extent);
    }
    if (reach >= INT32_MAX)
        return false;
    c->run = 1;
    c->run_indices = 0;
    for (int i = g->count; i-- > 0;) {
        if (!contraction_window_stride(c, g->index[i], &stride))
            break;
        if (!ir_dim_is_const(c->nest->indices[g->index[i]].extent, &extent) || (c->run_indices && stride != expected))
            break;
        if (!c->run_indices)
            c->row_stride = stride;
        expected = stride * extent;
        c->run *= extent;
        c->run_indices++;
    }
    for (int d = 0; d < t.rank; d++) { /* the rest as index arithmetic of its own */
        ir_dim coefficients[NEST_MAX], constant;
        if (!ir_expr_affine(c->l->module, e->args[d], c->nest->pars + c->nest->reds, coefficients, &constant))
            return false;
    }
    return c->run_indices > 0 && c->run >= 2 && c->row_stride > 0;
}

static int64_t border_elements(struct contraction *c) {
    struct ir_type t = c->l->op->operands[c->rows.load->index]->type;
    double n = 1;
    for (int d = 0; d < t.rank; d++)
        n *= (double)(ir_dim_upper(t.dims[d]) + c->below[d] + c->above[d]);
    return n < 9e18 ? (int64_t)n : INT64_MAX;
}

/* ---- which side, which tile -------------------------------------------------------------------------------------------------- */

static int vector_bytes(const struct contraction *c) {
    const struct compile_options *o = c->l->options;
    return o->vector_extensions && o->vector_bytes ? o->vector_bytes : 32;
}

static int most_lanes(const struct contraction *c) {
    return vector_bytes(c) / dtype_size(c->dtype);
}

/* Cycles of one step of the reduction in a tile, for two loads and 64 bytes of multiply-add a cycle, a latency of four, and what the
 * loop itself takes. */
static double step_cycles(const struct contraction *c, int rows, int vectors, int lanes) {
    double part = (double)lanes * dtype_size(c->dtype) / 64, sums = rows * vectors * part;
    double loads = (rows + vectors * (part > 0.5 ? 2.0 : 1.0)) / 2;
    double cycles = sums > loads ? sums : loads;
    return (cycles < 4 ? 4 : cycles) + 1;
}

/* All rows by all columns for one step of the reduction; sets the tile. */
static double choose_tile(struct contraction *c) {
    bool vectors = c->l->options->vector_extensions;
    int full = most_lanes(c), registers = vector_bytes(c) >= 64 ? 32 : 16;
    int64_t columns = c->cols.group->upper, rows = c->rows.group->upper, run = c->access == ROWS_WINDOW ? c->run : rows;
    double best = 0;
    /* Half vectors waste less on few columns; narrower than 32 bytes they gain nothing. */
    for (int lanes = full; lanes == full || (vectors && lanes * dtype_size(c->dtype) >= 32); lanes /= 2) {
        int64_t need = (columns + lanes - 1) / lanes;
        for (int v = 1; v <= (vectors ? 4 : 1) && v <= need; v++) {
            int64_t most = vectors ? (registers - 2 - v) / v : 4;
            most = most > 14 ? 14 : most < run ? most : run;
            most = most < run ? most : run;
            int64_t tiles = (run + most - 1) / most, tile = c->access == ROWS_WINDOW ? (run + tiles - 1) / tiles : most,
                    rest = run % tile;
            double cycles = 0;
            for (int pass = 0; pass < 2; pass++) { /* whole panels, the last */
                int used = pass ? (int)(need % v) : v;
                if (!used || (!pass && need < v))
                    continue;
                double one = (double)(run / tile) * step_cycles(c, (int)tile, used, lanes) +
                             (rest ? step_cycles(c, (int)rest, used, lanes) : 0);
                cycles += one * (pass ? 1 : (double)(need / v));
            }
            cycles *= (double)rows / (double)run;
            if (!c->prepacked) /* the panel comes from the second level: 10 bytes a cycle */
                cycles *= 1 + 0.6 / (double)tile;
            if (best == 0 || cycles < best * 0.98) {
                best = cycles;
                c->lanes = lanes;
                c->vectors = v;
                c->row_tile = (int)tile;
            }
        }
    }
    c->width = c->lanes * c->vectors;
    return best;
}

/* Cycles to pack one element of the columns: loops are as long as the addresses of neighbours nest. */
static double pack_cycles(struct contraction *c) {
    const struct group *g = c->cols.group;
    int64_t stride = 0;
    bool unit = c->cols.load && nest_stride(c->l, c->cols.load, g->index[g->count - 1], &stride) && stride == 1;
    if (!unit)
        return 1.2;
    double run = 1;
    for (int i = g->count - contraction_collapse(c, c->cols.e, g); i < g->count; i++)
        run *= (double)ir_dim_upper(c->nest->indices[g->index[i]].extent);
    return 0.2 + 8 / (run < c->width ? run : c->width) + (c->cols.load && c->cols.load->guarded ? 0.8 : 0);
}

/* Decides everything for one assignment of the sides; returns cycles, roughly. */
static double consider(struct contraction *c, struct side rows, struct side cols) {
    double r = (double)rows.group->upper, v = (double)cols.group->upper, k = (double)c->k.upper;
    c->rows = rows;
    c->cols = cols;
    c->border = false;
    c->access = ROWS_PACKED;
    if (is_in_place(c, &c->rows, &c->row_stride))
        c->access = ROWS_PLAIN;
    else if (rows.group->count + c->k.count > 2 && is_window(c) &&
             (v * k * dtype_size(c->dtype) <= CACHE_BYTES || v < r))
        c->access = ROWS_WINDOW; /* for which all columns are packed: rather not where they are the larger side */
    c->prepacked = c->access == ROWS_WINDOW;
    double total = choose_tile(c) * k;
    total += v * k * pack_cycles(c);
    if (c->access == ROWS_PACKED) {
        double bytes = r * k * dtype_size(c->dtype), panels = ceil(v / c->width);
        total += r * k * 1.2;
        if (bytes > CACHE_BYTES) /* written once, read for each panel of columns, from memory */
            total += bytes / 8 * (1 + panels);
    }
    if (c->access == ROWS_WINDOW && c->border)
        total += 0.3 * (double)border_elements(c);
    total += cols.group->index[cols.group->count - 1] == c->nest->pars - 1 ? 0 : r * v * 1.5;
    return total;
}

/* ---- where sums are kept ------------------------------------------------------------------------------------------------------ */

static void note_memory(ir_expr e, void *context) {
    struct contraction *c = context;
    if (e->kind == X_LOAD &&
        c->l->mem(c->l->context, c->l->op->operands[e->index]) == c->l->mem(c->l->context, c->l->op->results[0]))
        c->direct = false;
}

/* Whether sums may be kept in the result: its own type, columns contiguous, whole vectors, not read by what follows. */
static void choose_direct(struct contraction *c) {
    const struct ir_type t = c->l->op->results[0]->type;
    const struct group *rows = c->rows.group, *cols = c->cols.group;
    int64_t columns, extent;
    c->epilogue = c->nest->results[0].value->kind != X_ACC;
    c->direct = t.dtype == c->dtype && cols->index[cols->count - 1] == c->nest->pars - 1 &&
                ir_dim_is_const(cols->extent, &columns) && columns % c->lanes == 0;
    /* Each group a run of neighbouring dimensions, so that it has one stride. */
    for (int i = 1; i < rows->count; i++)
        c->direct &= rows->index[i] == rows->index[i - 1] + 1;
    for (int i = 1; i < cols->count; i++)
        c->direct &= cols->index[i] == cols->index[i - 1] + 1;
    c->result_stride = 1;
    for (int d = rows->index[rows->count - 1] + 1; d < t.rank && c->direct; d++) {
        c->direct &= ir_dim_is_const(t.dims[d], &extent);
        c->result_stride *= extent;
    }
    if (c->direct) {
        ir_expr_walk(c->nest->results[0].value, note_memory, c);
        ir_expr_walk(c->nest->accs[0].body, note_memory, c);
    }
}

bool lower_contraction(struct lower *l) {
    struct contraction *c = arena_alloc(l->b->arena, sizeof *c);
    c->l = l;
    c->b = l->b;
    c->nest = &l->op->nest;
    nest_scope_init(&c->n, l);
    if (!contraction_recognise(c))
        return false;
    ir_expr body = c->nest->accs[0].body;
    struct side a = contraction_side(c, body->args[0], &c->a), b = contraction_side(c, body->args[1], &c->b_side);
    double straight = consider(c, a, b), swapped = consider(c, b, a);
    if (straight <= swapped)
        consider(c, a, b);
    c->row_dtype = c->access == ROWS_PACKED ? c->dtype : c->rows.load->dtype;
    int size = dtype_size(c->dtype);
    int64_t columns = (c->cols.group->upper + c->width - 1) / c->width,
            rows = (c->rows.group->upper + c->row_tile - 1) / c->row_tile;
    int64_t first = c->batch.count ? ir_dim_upper(c->nest->indices[c->batch.index[0]].extent) : 1;
    c->prepacked = c->access == ROWS_WINDOW || (first < 8 && columns <= rows);
    choose_direct(c);

    double work =
        (double)c->batch.upper * (double)c->a.upper * (double)c->b_side.upper * (double)c->k.upper / c->lanes * 2;
    int64_t runs = c->access == ROWS_WINDOW ? c->rows.group->upper / c->run : rows;
    c->tasks = lower_tasks(l, first >= 8 ? first : c->prepacked ? runs : columns, work);
    c->split = c->tasks == 1 ? SPLIT_NONE : first >= 8 ? SPLIT_BATCH : c->prepacked ? SPLIT_ROWS : SPLIT_PANELS;
    c->k_block = c->prepacked ? L1_BYTES / (c->width * size) : K_BLOCK;
    if (c->k.upper < c->k_block * 3 / 2 || c->k.upper < c->k_block)
        c->k_block = c->k.upper;
    c->panel_base = c->packed_base = c->strip_base = lx_int(c->b, 0);
    int64_t parts = c->split == SPLIT_BATCH || c->split == SPLIT_PANELS ? c->tasks : 1;
    if (c->access == ROWS_PLAIN || (c->access == ROWS_WINDOW && !c->border))
        c->row_mem = l->mem(l->context, l->op->operands[c->rows.load->index]);
    else if (c->access == ROWS_WINDOW)
        c->row_mem = l->workspace(l->context, l->out, "bordered", c->row_dtype, border_elements(c));
    else
        c->packed =
            l->workspace(l->context, l->out, "packed", c->dtype,
                         (c->split == SPLIT_BATCH ? parts : 1) * (c->rows.group->upper + c->row_tile) * c->k.upper);
    if (c->access == ROWS_WINDOW)
        c->offsets = l->workspace(l->context, l->out, "offsets", I32, c->k.upper);
    c->panel = l->workspace(l->context, l->out, "panel", c->dtype,
                            c->prepacked ? columns * c->width * c->k.upper : parts * c->width * c->k_block);
    if (!c->direct)
        c->strip = l->workspace(l->context, l->out, "sums", c->dtype,
                                c->prepacked ? c->tasks * contraction_part(c) * c->width
                                             : parts * c->width * c->rows.group->upper);
    double flops = 2.0 * (double)c->batch.upper * (double)c->a.upper * (double)c->b_side.upper * (double)c->k.upper;
    l->flops += flops < 9e18 ? (int64_t)flops : INT64_MAX;
    contraction_loops(c);
    return true;
}
