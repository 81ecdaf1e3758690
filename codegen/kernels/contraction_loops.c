/* The loops around the micro-kernel, of two kinds.
 *
 *   panel by panel   a panel of columns is packed, block of the reduction by block, and all rows pass over it: when there are more
 *                    columns than rows. Tasks take panels, or batches, each with a panel of its own.
 *   prepacked        all columns are packed first, then tasks take rows, a part of them at a time, and go through all panels
 *                    with it: when there are more rows than columns, as in convolutions.
 */
#include "codegen/kernels/contraction.h"

static lx upto(struct contraction *c, lx lo, int64_t most, lx end) {
    return lx_min(c->b, lx_add(c->b, lo, lx_int(c->b, most)), end);
}

/* What follows the sums of a finished block of rows and columns. */
static void finish_rows(struct contraction *c, lx row_lo, lx row_hi, lx first, lx count) {
    struct loop_builder *b = c->b;
    if (c->direct && !c->epilogue)
        return;
    ir_expr value = c->nest->results[0].value;
    const struct group *rows = c->rows.group, *cols = c->cols.group;
    /* The result's own address nests where its dimensions are neighbours. */
    int rows_together = contraction_collapse(c, value, rows), cols_together = contraction_collapse(c, value, cols);
    for (int i = 1; i < rows_together; i++)
        if (rows->index[rows->count - i] != rows->index[rows->count - i - 1] + 1)
            rows_together = i;
    for (int i = 1; i < cols_together; i++)
        if (cols->index[cols->count - i] != cols->index[cols->count - i - 1] + 1)
            cols_together = i;
    bool across = cols->index[cols->count - 1] != c->nest->pars - 1;
    lx r, v, end = contraction_named(c, "end", lx_add(b, first, count));
    struct flat_loop outer = across ? contraction_open_flat(c, cols, cols_together, first, end, &v)
                                    : contraction_open_flat(c, rows, rows_together, row_lo, row_hi, &r);
    struct flat_loop inner = across ? contraction_open_flat(c, rows, rows_together, row_lo, row_hi, &r)
                                    : contraction_open_flat(c, cols, cols_together, first, end, &v);
    lx at = c->direct
                ? contraction_result_address(c, r, v)
                : lx_add(b, c->strip_base,
                         lx_add(b, lx_mul(b, lx_sub(b, r, c->strip_row), lx_int(b, c->width)), lx_sub(b, v, first)));
    c->n.acc[0] = lx_load(b, c->direct ? c->l->mem(c->l->context, c->l->op->results[0]) : c->strip, at, 1);
    nest_store(&c->n, 0, nest_value(&c->n, value));
    contraction_close_flat(c, inner);
    contraction_close_flat(c, outer);
}

/* ---- rows ----------------------------------------------------------------------------------------------------------------- */

/* Rows of windows: runs of the last row index, each in tiles. */
static void window_tiles(struct contraction *c, int vectors, lx row_lo, lx row_hi, lx first, lx panel, lx k0,
                         lx depth) {
    struct loop_builder *b = c->b;
    const struct group *g = c->rows.group;
    int64_t tile = c->row_tile, whole = c->run / tile * tile, rest = c->run - whole;
    lx run, r;
    struct loop_stmt *s = contraction_open(c, "run", lx_div(b, row_lo, lx_int(b, c->run)),
                                           lx_div(b, row_hi, lx_int(b, c->run)), 1, LOOP_SERIAL, &run);
    contraction_set_flat(c, g, g->count - c->run_indices, run);
    for (int i = g->count - c->run_indices; i < g->count; i++)
        nest_scope_set(&c->n, g->index[i], lx_int(b, 0), c->n.depth);
    lx base = contraction_named(c, "base", contraction_window_address(c));
    lx row = contraction_named(c, "row", lx_mul(b, run, lx_int(b, c->run)));
    if (whole > tile) {
        struct loop_stmt *t = contraction_open(c, "tile", lx_int(b, 0), lx_int(b, whole), tile, LOOP_SERIAL, &r);
        contraction_tile(c, (int)tile, vectors, lx_add(b, row, r),
                         lx_add(b, base, lx_mul(b, r, lx_int(b, c->row_stride))), first, panel, k0, depth);
        contraction_close(c, t);
    } else {
        contraction_tile(c, (int)tile, vectors, row, base, first, panel, k0, depth);
    }
    if (rest) {
        r = lx_int(b, whole);
        contraction_tile(c, (int)rest, vectors, lx_add(b, row, r), lx_add(b, base, lx_int(b, whole * c->row_stride)),
                         first, panel, k0, depth);
    }
    contraction_close(c, s);
}

static void row_tiles(struct contraction *c, int vectors, lx row_lo, lx row_hi, lx first, lx panel, lx k0, lx depth) {
    struct loop_builder *b = c->b;
    int64_t rows, tile = c->row_tile;
    lx r;
    struct loop_stmt *s;
    if (c->access == ROWS_WINDOW) {
        window_tiles(c, vectors, row_lo, row_hi, first, panel, k0, depth);
    } else if (lx_is_int(c->rows.group->size, &rows)) {
        lx whole = lx_int(b, rows / tile * tile);
        s = contraction_open(c, "row", row_lo, lx_min(b, row_hi, whole), tile, LOOP_SERIAL, &r);
        contraction_tile(c, (int)tile, vectors, r, NULL, first, panel, k0, depth);
        contraction_close(c, s);
        if (rows % tile) {
            s = contraction_open(c, "row", lx_op(b, I_MAX, row_lo, whole), row_hi, rows % tile, LOOP_SERIAL, &r);
            contraction_tile(c, (int)(rows % tile), vectors, r, NULL, first, panel, k0, depth);
            contraction_close(c, s);
        }
    } else {
        lx whole =
            contraction_named(c, "whole", lx_sub(b, row_hi, lx_mod(b, lx_sub(b, row_hi, row_lo), lx_int(b, tile))));
        s = contraction_open(c, "row", row_lo, whole, tile, LOOP_SERIAL, &r);
        contraction_tile(c, (int)tile, vectors, r, NULL, first, panel, k0, depth);
        contraction_close(c, s);
        s = contraction_open(c, "row", whole, row_hi, 1, LOOP_SERIAL, &r);
        contraction_tile(c, 1, vectors, r, NULL, first, panel, k0, depth);
        contraction_close(c, s);
    }
}

/* ---- panel by panel --------------------------------------------------------------------------------------------------------- */

static void panel_block(struct contraction *c, int vectors, lx first, lx count, lx k0, lx depth) {
    contraction_pack(c, &c->cols, first, count, c->width, k0, depth, c->panel, c->panel_base, true);
    row_tiles(c, vectors, lx_int(c->b, 0), c->rows.group->size, first, c->panel_base, k0, depth);
}

static void one_panel(struct contraction *c, int vectors, lx first, lx count) {
    struct loop_builder *b = c->b;
    int64_t depth, at = 0;
    bool constant = lx_is_int(c->k.size, &depth);
    lx k0;
    if (constant && depth > c->k_block) { /* all blocks but the last in a loop */
        at = (depth - 1) / c->k_block * c->k_block;
        struct loop_stmt *s = contraction_open(c, "k_block", lx_int(b, 0), lx_int(b, at), c->k_block, LOOP_SERIAL, &k0);
        panel_block(c, vectors, first, count, k0, lx_int(b, c->k_block));
        contraction_close(c, s);
    }
    if (constant || c->k.upper <= c->k_block) {
        panel_block(c, vectors, first, count, lx_int(b, at), constant ? lx_int(b, depth - at) : c->k.size);
    } else {
        struct loop_stmt *s = contraction_open(c, "k_block", lx_int(b, 0), c->k.size, c->k_block, LOOP_SERIAL, &k0);
        panel_block(c, vectors, first, count, k0,
                    contraction_named(c, "depth", lx_min(b, lx_int(b, c->k_block), lx_sub(b, c->k.size, k0))));
        contraction_close(c, s);
    }
    finish_rows(c, lx_int(b, 0), c->rows.group->size, first, count);
}

static void panels(struct contraction *c, lx lo, lx hi,
                   void (*each)(struct contraction *, int vectors, lx first, lx count)) {
    struct loop_builder *b = c->b;
    int64_t columns;
    lx first;
    if (c->cols.group->constant && lx_is_int(c->cols.group->size, &columns)) {
        int64_t whole = columns / c->width * c->width, rest = columns - whole;
        int vectors = (int)((rest + c->lanes - 1) / c->lanes);
        if (whole) {
            struct loop_stmt *s =
                contraction_open(c, "panel_at", lo, lx_min(b, hi, lx_int(b, whole)), c->width, LOOP_SERIAL, &first);
            each(c, c->vectors, first, lx_int(b, c->width));
            contraction_close(c, s);
        }
        if (rest) {
            struct loop_stmt *s = contraction_open(c, "panel_at", lx_op(b, I_MAX, lo, lx_int(b, whole)), hi, c->width,
                                                   LOOP_SERIAL, &first);
            each(c, vectors, first, lx_int(b, rest));
            contraction_close(c, s);
        }
        return;
    }
    struct loop_stmt *s = contraction_open(c, "panel_at", lo, hi, c->width, LOOP_SERIAL, &first);
    lx count = contraction_named(c, "count", lx_min(b, lx_int(b, c->width), lx_sub(b, c->cols.group->size, first)));
    each(c, c->vectors, first, count);
    contraction_close(c, s);
}

/* Rows in whole tiles, then those that fill none. */
static void pack_rows(struct contraction *c) {
    struct loop_builder *b = c->b;
    lx r, task, lo = lx_int(b, 0);
    int64_t tile = c->row_tile, rows = 0, tiles = (c->rows.group->upper + tile - 1) / tile;
    bool constant = lx_is_int(c->rows.group->size, &rows);
    lx end = constant ? lx_int(b, rows / tile * tile) : c->rows.group->size, hi = end;
    int64_t tasks =
        c->split == SPLIT_BATCH ? 1 : lower_tasks(c->l, tiles, (double)c->rows.group->upper * (double)c->k.upper);
    int64_t chunk = (tiles + tasks - 1) / tasks * tile;
    struct loop_stmt *split = NULL;
    if (tasks > 1) {
        split = contraction_open(c, "part_of", lo, lx_int(b, (c->rows.group->upper + chunk - 1) / chunk), 1,
                                 LOOP_PARALLEL, &task);
        lo = contraction_named(c, "tile_lo", lx_mul(b, task, lx_int(b, chunk)));
        hi = contraction_named(c, "tile_hi", upto(c, lo, chunk, end));
    }
    struct loop_stmt *s = contraction_open(c, "tile_at", lo, hi, tile, LOOP_SERIAL, &r);
    lx count = constant ? lx_int(b, tile)
                        : contraction_named(c, "count", lx_min(b, lx_int(b, tile), lx_sub(b, c->rows.group->size, r)));
    contraction_pack(c, &c->rows, r, count, tile, lx_int(b, 0), c->k.size, c->packed,
                     lx_add(b, c->packed_base, lx_mul(b, r, c->k.size)), false);
    contraction_close(c, s);
    if (split)
        contraction_close(c, split);
    if (constant && rows % tile)
        contraction_pack(c, &c->rows, lx_int(b, rows / tile * tile), lx_int(b, rows % tile), tile, lx_int(b, 0),
                         c->k.size, c->packed,
                         lx_add(b, c->packed_base, lx_mul(b, lx_int(b, rows / tile * tile), c->k.size)), false);
}

static void product(struct contraction *c) {
    struct loop_builder *b = c->b;
    if (c->access == ROWS_PACKED)
        pack_rows(c);
    if (c->split != SPLIT_PANELS) {
        panels(c, lx_int(b, 0), c->cols.group->size, one_panel);
        return;
    }
    int64_t count = (c->cols.group->upper + c->width - 1) / c->width,
            chunk = (count + c->tasks - 1) / c->tasks * c->width;
    lx task;
    struct loop_stmt *s = contraction_open(
        c, "part_of", lx_int(b, 0), lx_int(b, (c->cols.group->upper + chunk - 1) / chunk), 1, LOOP_PARALLEL, &task);
    lx lo = contraction_named(c, "column_lo", lx_mul(b, task, lx_int(b, chunk)));
    lx hi = contraction_named(c, "column_hi", upto(c, lo, chunk, c->cols.group->size));
    c->panel_base = contraction_named(c, "panel_base", lx_mul(b, task, lx_int(b, c->width * c->k_block)));
    if (c->strip)
        c->strip_base = contraction_named(c, "strip_base", lx_mul(b, task, lx_int(b, c->width * c->rows.group->upper)));
    panels(c, lo, hi, one_panel);
    contraction_close(c, s);
}

/* ---- prepacked -------------------------------------------------------------------------------------------------------------- */

int64_t contraction_chunk(const struct contraction *c) {
    int64_t unit = c->access == ROWS_WINDOW ? c->run : c->row_tile, units = (c->rows.group->upper + unit - 1) / unit;
    return (units + c->tasks - 1) / c->tasks * unit;
}

int64_t contraction_part(const struct contraction *c) {
    enum { ROWS = 256 };
    int64_t unit = c->access == ROWS_WINDOW ? c->run : c->row_tile, chunk = contraction_chunk(c),
            part = (ROWS + unit - 1) / unit * unit;
    return part < chunk ? part : chunk;
}

static void pack_all(struct contraction *c) {
    struct loop_builder *b = c->b;
    int64_t columns = (c->cols.group->upper + c->width - 1) / c->width * c->width, grain = 64,
            count = (c->k.upper + grain - 1) / grain;
    int64_t tasks = lower_tasks(c->l, count, (double)columns * (double)c->k.upper),
            chunk = (count + tasks - 1) / tasks * grain;
    lx task, k_lo = lx_int(b, 0), depth = c->k.size, first;
    struct loop_stmt *split = NULL;
    if (tasks > 1) {
        split = contraction_open(c, "part_of", lx_int(b, 0), lx_int(b, (c->k.upper + chunk - 1) / chunk), 1,
                                 LOOP_PARALLEL, &task);
        k_lo = contraction_named(c, "k_lo", lx_mul(b, task, lx_int(b, chunk)));
        depth = contraction_named(c, "depth", lx_sub(b, upto(c, k_lo, chunk, c->k.size), k_lo));
    }
    int64_t exact;
    bool constant = lx_is_int(c->cols.group->size, &exact);
    int64_t whole = constant ? exact / c->width * c->width : 0;
    if (whole) {
        struct loop_stmt *s =
            contraction_open(c, "panel_at", lx_int(b, 0), lx_int(b, whole), c->width, LOOP_SERIAL, &first);
        contraction_pack(c, &c->cols, first, lx_int(b, c->width), c->width, k_lo, depth, c->panel,
                         lx_add(b, lx_mul(b, first, c->k.size), lx_mul(b, k_lo, lx_int(b, c->width))), true);
        contraction_close(c, s);
    }
    if (constant && exact > whole)
        contraction_pack(c, &c->cols, lx_int(b, whole), lx_int(b, exact - whole), c->width, k_lo, depth, c->panel,
                         lx_add(b, lx_mul(b, lx_int(b, whole), c->k.size), lx_mul(b, k_lo, lx_int(b, c->width))), true);
    if (!constant) {
        struct loop_stmt *s =
            contraction_open(c, "panel_at", lx_int(b, 0), c->cols.group->size, c->width, LOOP_SERIAL, &first);
        lx n = contraction_named(c, "count", lx_min(b, lx_int(b, c->width), lx_sub(b, c->cols.group->size, first)));
        contraction_pack(c, &c->cols, first, n, c->width, k_lo, depth, c->panel,
                         lx_add(b, lx_mul(b, first, c->k.size), lx_mul(b, k_lo, lx_int(b, c->width))), true);
        contraction_close(c, s);
    }
    if (split)
        contraction_close(c, split);
}

/* One panel of a part of the rows: every block of the reduction, then what follows the sum. */
static void part_panel(struct contraction *c, int vectors, lx first, lx count) {
    struct loop_builder *b = c->b;
    lx lo = c->strip_row, hi = c->part_end, k0, panel = lx_mul(b, first, c->k.size);
    int64_t depth, at = 0;
    bool constant = lx_is_int(c->k.size, &depth);
    if (constant ? depth > c->k_block : c->k.upper > c->k_block) {
        at = constant ? depth / c->k_block * c->k_block : 0;
        struct loop_stmt *s = contraction_open(c, "k_block", lx_int(b, 0), constant ? lx_int(b, at) : c->k.size,
                                               c->k_block, LOOP_SERIAL, &k0);
        lx length = constant
                        ? lx_int(b, c->k_block)
                        : contraction_named(c, "depth", lx_min(b, lx_int(b, c->k_block), lx_sub(b, c->k.size, k0)));
        row_tiles(c, vectors, lo, hi, first, lx_add(b, panel, lx_mul(b, k0, lx_int(b, c->width))), k0, length);
        contraction_close(c, s);
        if (constant && depth > at)
            row_tiles(c, vectors, lo, hi, first, lx_add(b, panel, lx_int(b, at * c->width)), lx_int(b, at),
                      lx_int(b, depth - at));
    } else {
        row_tiles(c, vectors, lo, hi, first, panel, lx_int(b, 0), c->k.size);
    }
    finish_rows(c, lo, hi, first, count);
}

static void prepacked(struct contraction *c) {
    struct loop_builder *b = c->b;
    if (c->access == ROWS_WINDOW) {
        contraction_fill_offsets(c);
        if (c->border)
            contraction_copy_border(c);
    } else if (c->access == ROWS_PACKED) {
        pack_rows(c);
    }
    pack_all(c);
    int64_t chunk = contraction_chunk(c), part = contraction_part(c);
    lx task, lo = lx_int(b, 0), hi = c->rows.group->size, row;
    struct loop_stmt *split = NULL;
    if (c->tasks > 1) {
        split = contraction_open(c, "part_of", lo, lx_int(b, (c->rows.group->upper + chunk - 1) / chunk), 1,
                                 LOOP_PARALLEL, &task);
        lo = contraction_named(c, "row_lo", lx_mul(b, task, lx_int(b, chunk)));
        hi = contraction_named(c, "row_hi", upto(c, lo, chunk, c->rows.group->size));
        if (c->strip)
            c->strip_base = contraction_named(c, "strip_base", lx_mul(b, task, lx_int(b, c->width * part)));
    }
    struct loop_stmt *s = part < chunk ? contraction_open(c, "part", lo, hi, part, LOOP_SERIAL, &row) : NULL;
    c->strip_row = s ? row : lo;
    c->part_end = s ? contraction_named(c, "part_end", upto(c, row, part, hi)) : hi;
    panels(c, lx_int(b, 0), c->cols.group->size, part_panel);
    if (s)
        contraction_close(c, s);
    if (split)
        contraction_close(c, split);
}

/* ---- batches ---------------------------------------------------------------------------------------------------------------- */

static void batches(struct contraction *c, int i) {
    struct loop_builder *b = c->b;
    if (i == c->batch.count) {
        if (c->prepacked)
            prepacked(c);
        else
            product(c);
        return;
    }
    const struct ir_nest_index *x = &c->nest->indices[c->batch.index[i]];
    lx lo = lx_int(b, 0), hi = nest_dim(&c->n, x->extent), at, task;
    struct loop_stmt *split = NULL;
    if (i == 0 && c->split == SPLIT_BATCH) {
        int64_t upper = ir_dim_upper(x->extent), chunk = (upper + c->tasks - 1) / c->tasks;
        split = contraction_open(c, "part_of", lo, lx_int(b, (upper + chunk - 1) / chunk), 1, LOOP_PARALLEL, &task);
        lo = contraction_named(c, "batch_lo", lx_mul(b, task, lx_int(b, chunk)));
        hi = contraction_named(c, "batch_hi", upto(c, lo, chunk, hi));
        c->panel_base = contraction_named(c, "panel_base", lx_mul(b, task, lx_int(b, c->width * c->k_block)));
        if (c->strip)
            c->strip_base =
                contraction_named(c, "strip_base", lx_mul(b, task, lx_int(b, c->width * c->rows.group->upper)));
        if (c->packed)
            c->packed_base = contraction_named(
                c, "packed_base", lx_mul(b, task, lx_int(b, (c->rows.group->upper + c->row_tile) * c->k.upper)));
    }
    struct loop_stmt *s = contraction_open(c, x->name, lo, hi, 1, LOOP_SERIAL, &at);
    nest_scope_set(&c->n, c->batch.index[i], at, c->n.depth);
    batches(c, i + 1);
    contraction_close(c, s);
    if (split)
        contraction_close(c, split);
}

void contraction_loops(struct contraction *c) {
    c->strip_row = lx_int(c->b, 0);
    batches(c, 0);
}
