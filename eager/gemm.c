/* Accumulators that are matrix products in disguise: sum over the reduction indices of A * B, where some parallel
 * indices occur in A only (rows) and some in B only (columns); parallel indices in both are batches. That covers
 * products, convolutions and both of their gradients. Blocks of the factors are evaluated by kerns, whatever their
 * expressions are (guards and gathers included), into panels, and a register tile runs over the panels (Goto and van de
 * Geijn, 2008).
 *
 * Each element is a sum of blocks of BLOCK_K terms, each summed in order. */
#include "eager/kern.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_K = 256, BLOCK_ROWS = 240, BLOCK_COLUMNS = 512 }; /* all at most VEC_LANES */

struct axis { /* several indices, flattened in row-major order */
    int count, index[NEST_MAX_INDICES];
    int64_t total;
};

struct factor {
    struct kern *k;
    int node;
    struct axis *own, *sum;
    bool lanes_are_sum;
    int width; /* of a panel */
    void *panels;
};

struct gemm {
    struct nest_context *c;
    enum vec_kind kind;
    struct axis rows, columns, batch, sum;
    struct factor a, b;
    int64_t stride[NEST_MAX_INDICES]; /* of the result, by parallel index */
    int64_t *row_offset, *column_offset;
};

static void axis_add(const struct nest_context *c, struct axis *a, int index) {
    a->index[a->count++] = index;
    a->total *= c->extent[index];
}

/* Sets the axis's indices of a kern to a flat position. */
static void axis_set(const struct axis *a, struct kern *k, int64_t flat) {
    const struct nest_context *c = k->c;
    for (int i = a->count - 1; i >= 0; i--) {
        int x = a->index[i];
        k->index[x] = c->lo[x] + flat % c->extent[x];
        flat /= c->extent[x];
    }
}

static void axis_next(const struct axis *a, struct kern *k) {
    const struct nest_context *c = k->c;
    for (int i = a->count - 1; i >= 0; i--) {
        int x = a->index[i];
        if (++k->index[x] < c->lo[x] + c->extent[x])
            return;
        k->index[x] = c->lo[x];
    }
}

/* A kern of one factor whose lanes are `lanes`, everything else around. */
static struct kern *factor_kern(struct nest_context *c, const struct axis *lanes, ir_expr e, int *node) {
    int loops[NEST_MAX_INDICES + 1], n = 0;
    for (int i = 0; i < c->indices; i++) {
        bool is_lane = false;
        for (int j = 0; j < lanes->count; j++)
            is_lane = is_lane || lanes->index[j] == i;
        if (!is_lane)
            loops[n++] = i;
    }
    loops[n++] = LOOP_BLOCKS;
    struct kern *k = kern_new(c, lanes->index, lanes->count, loops, n);
    *node = kern_add(k, e);
    kern_finish(k);
    return k;
}

static void new_factor(struct gemm *g, struct factor *f, ir_expr e, struct axis *own, int width) {
    int node[2];
    struct kern *over_own = factor_kern(g->c, own, e, &node[0]), *over_sum = factor_kern(g->c, &g->sum, e, &node[1]);
    f->own = own;
    f->sum = &g->sum;
    f->lanes_are_sum = kern_cost(over_sum) < kern_cost(over_own);
    f->k = f->lanes_are_sum ? over_sum : over_own;
    f->node = node[f->lanes_are_sum];
    f->width = width;
    f->panels = NULL;
}

struct gemm *gemm_new(struct nest_context *c, int acc) {
    const struct ir_acc *x = &c->nest->accs[acc];
    ir_expr body = x->body;
    if (x->op != RED_SUM || body->kind != X_FN || body->fn != FN_mul || (body->dtype != F32 && body->dtype != F64))
        return NULL;
    for (int i = 0; i < c->indices; i++)
        if (c->ragged[i])
            return NULL;
    struct kern *probe = kern_new(c, NULL, 0, NULL, 0);
    int u = kern_add(probe, body->args[0]), v = kern_add(probe, body->args[1]);
    uint64_t in_a = probe->nodes.at[u].deps, in_b = probe->nodes.at[v].deps;
    struct gemm *g = ARENA_NEW(c->arena, struct gemm);
    g->c = c;
    g->kind = vec_kind_of(body->dtype);
    g->rows.total = g->columns.total = g->batch.total = g->sum.total = 1;
    struct axis only_a = {.total = 1}, only_b = {.total = 1};
    int64_t stride = 1;
    for (int i = c->nest->pars - 1; i >= 0; i--) {
        g->stride[i] = stride;
        stride *= c->extent[i];
    }
    for (int i = 0; i < c->indices; i++) {
        bool a = in_a >> i & 1, b = in_b >> i & 1;
        if (i >= c->nest->pars)
            axis_add(c, &g->sum, i);
        else if (c->extent[i] == 1)
            continue;
        else if (a && !b)
            axis_add(c, &only_a, i);
        else if (b && !a)
            axis_add(c, &only_b, i);
        else
            axis_add(c, &g->batch, i);
    }
    double work = (double)only_a.total * (double)only_b.total * (double)g->sum.total;
    if (only_a.total < 2 || only_b.total < 2 || work < 4096 || g->batch.total == 0)
        return NULL;
    int columns = GEMM_COLS(g->kind);
#define PADDED(n, m) (((n) + (m)-1) / (m) * (m))
    bool swap = PADDED(only_b.total, GEMM_ROWS) * PADDED(only_a.total, columns) <
                PADDED(only_a.total, GEMM_ROWS) * PADDED(only_b.total, columns);
    g->rows = swap ? only_b : only_a;
    g->columns = swap ? only_a : only_b;
    new_factor(g, &g->a, body->args[swap], &g->rows, GEMM_ROWS);
    new_factor(g, &g->b, body->args[!swap], &g->columns, columns);
    g->row_offset = ARENA_ARRAY(c->arena, int64_t, BLOCK_ROWS);
    g->column_offset = ARENA_ARRAY(c->arena, int64_t, BLOCK_COLUMNS);
    return g;
}

/* Panels of [own0, own0 + own) x [sum0, sum0 + sum): panel p holds for each term the elements p * width … of `own`. */
static void pack(const struct gemm *g, struct factor *f, int64_t own0, int64_t own, int64_t sum0, int64_t sum) {
    int64_t size = vec_kind_size(g->kind), w = f->width;
    char *out = f->panels;
    if (own % w) /* lanes beyond the edge are 0 */
        memset(out + own / w * w * sum * size, 0, (size_t)(w * sum * size));
    const struct axis *outer = f->lanes_are_sum ? f->own : f->sum;
    int64_t outer0 = f->lanes_are_sum ? own0 : sum0, outer_count = f->lanes_are_sum ? own : sum;
    axis_set(outer, f->k, outer0);
    f->k->begin = 0;
    kern_block(f->k, f->lanes_are_sum ? sum0 : own0);
    f->k->count = f->lanes_are_sum ? sum : own;
    for (int64_t i = 0; i < outer_count; i++, axis_next(outer, f->k)) {
        kern_all(f->k);
        const char *v = kern_lanes(f->k, f->node);
        if (f->lanes_are_sum) {
            char *p = out + (i / w * w * sum + i % w) * size;
            if (size == 4)
                for (int64_t t = 0; t < sum; t++)
                    ((uint32_t *)p)[t * w] = ((const uint32_t *)v)[t];
            else
                for (int64_t t = 0; t < sum; t++)
                    ((uint64_t *)p)[t * w] = ((const uint64_t *)v)[t];
        } else {
            char *p = out + i * w * size;
            int64_t r = 0;
            for (; r + w <= own; r += w, p += w * sum * size, v += w * size)
                memcpy(p, v, (size_t)(w * size));
            memcpy(p, v, (size_t)((own - r) * size));
        }
    }
}

static void offsets(const struct gemm *g, const struct axis *a, int64_t first, int64_t n, int64_t *out) {
    for (int64_t i = 0; i < n; i++) {
        int64_t flat = first + i, offset = 0;
        for (int j = a->count - 1; j >= 0; j--) {
            int64_t e = g->c->extent[a->index[j]];
            offset += flat % e * g->stride[a->index[j]];
            flat /= e;
        }
        out[i] = offset;
    }
}

#define ADD_TILE(T)                                               \
    do {                                                          \
        T *o = out;                                               \
        const T *t = tile;                                        \
        for (int64_t i = 0; i < rows; i++)                        \
            for (int64_t j = 0; j < columns; j++)                 \
                o[base + row[i] + column[j]] += t[i * width + j]; \
    } while (0)

static void add_tile(enum vec_kind kind, void *out, int64_t base, const int64_t *row, int64_t rows,
                     const int64_t *column, int64_t columns, const void *tile, int width) {
    if (kind == KIND_F32)
        ADD_TILE(float);
    else
        ADD_TILE(double);
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

bool gemm_run(struct gemm *g, void *out) {
    struct nest_context *c = g->c;
    int64_t size = vec_kind_size(g->kind), points = 1, w = g->b.width;
    double tile[GEMM_ROWS * 16]; /* aligned for either type */
    for (int i = 0; i < c->nest->pars; i++)
        points *= c->extent[i];
    memset(out, 0, (size_t)(points * size));
    int64_t most = least(g->sum.total, BLOCK_K);
    g->a.panels = malloc((size_t)((least(g->rows.total, BLOCK_ROWS) + GEMM_ROWS) * most * size));
    g->b.panels = malloc((size_t)((least(g->columns.total, BLOCK_COLUMNS) + w) * most * size));
    bool ok = g->a.panels && g->b.panels;
    for (int64_t b = 0; b < g->batch.total && ok; b++) {
        int64_t base;
        offsets(g, &g->batch, b, 1, &base);
        axis_set(&g->batch, g->a.k, b);
        axis_set(&g->batch, g->b.k, b);
        for (int64_t n0 = 0; n0 < g->columns.total; n0 += BLOCK_COLUMNS) {
            int64_t n = least(g->columns.total - n0, BLOCK_COLUMNS);
            offsets(g, &g->columns, n0, n, g->column_offset);
            for (int64_t k0 = 0; k0 < g->sum.total; k0 += BLOCK_K) {
                int64_t k = least(g->sum.total - k0, BLOCK_K);
                pack(g, &g->b, n0, n, k0, k);
                for (int64_t m0 = 0; m0 < g->rows.total; m0 += BLOCK_ROWS) {
                    int64_t m = least(g->rows.total - m0, BLOCK_ROWS);
                    offsets(g, &g->rows, m0, m, g->row_offset);
                    pack(g, &g->a, m0, m, k0, k);
                    for (int64_t j = 0; j < n; j += w)
                        for (int64_t i = 0; i < m; i += GEMM_ROWS) {
                            c->table->tile[g->kind](tile, (char *)g->a.panels + i * k * size,
                                                    (char *)g->b.panels + j * k * size, k);
                            add_tile(g->kind, out, base, g->row_offset + i, least(m - i, GEMM_ROWS),
                                     g->column_offset + j, least(n - j, w), tile, (int)w);
                        }
                }
            }
        }
    }
    free(g->a.panels);
    free(g->b.panels);
    return ok;
}
