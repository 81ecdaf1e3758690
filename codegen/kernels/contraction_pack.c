/* Loops over groups of indices, and the copies of a product's operands: panels of columns, tiles of rows, a copy of a windowed
 * operand with a border of zeros so that no window leaves it, and the table of a window's offsets.
 */
#include "codegen/kernels/contraction.h"

static struct loop_block *here(struct contraction *c) {
    return c->n.block[c->n.depth];
}

struct loop_stmt *contraction_open(struct contraction *c, const char *name, lx lo, lx hi, int64_t step,
                                   enum loop_kind kind, lx *counter) {
    struct loop_var *v = loop_var_new(c->b, name, I64, 1);
    struct loop_stmt *s = loop_for(c->b, NULL, v, lo, hi, step, kind);
    nest_scope_enter(&c->n, c->n.depth + 1, &s->body, false);
    *counter = lx_var(c->b, v);
    return s;
}

void contraction_close(struct contraction *c, struct loop_stmt *s) {
    c->n.depth--;
    loop_append(here(c), s);
}

lx contraction_named(struct contraction *c, const char *name, lx e) {
    int64_t value;
    if (lx_is_int(e, &value) || e->kind == LX_VAR)
        return e;
    struct loop_var *v = loop_var_new(c->b, name, I64, 1);
    loop_def(c->b, here(c), v, e);
    return lx_var(c->b, v);
}

static const struct ir_nest_index *index_of(const struct contraction *c, const struct group *g, int i) {
    return &c->nest->indices[g->index[i]];
}

/* ---- loops over flattened groups ------------------------------------------------------------------------------------------ */

void contraction_set_flat(struct contraction *c, const struct group *g, int count, lx at) {
    struct loop_builder *b = c->b;
    for (int i = count; i-- > 0;) {
        lx extent = nest_dim(&c->n, index_of(c, g, i)->extent);
        lx value = i > 0 ? lx_mod(b, at, extent) : at;
        nest_scope_set(&c->n, g->index[i], contraction_named(c, index_of(c, g, i)->name, value), c->n.depth);
        if (i > 0)
            at = contraction_named(c, "rest", lx_div(b, at, extent));
    }
}

struct collapse {
    struct contraction *c;
    const struct group *g;
    int together;
};

/* Whether the group's last q indices change the address as one index would. */
static bool nests(struct contraction *c, ir_expr load, const struct group *g, int q) {
    int64_t s, extent, expected = 0;
    for (int i = g->count; i-- > g->count - q;) {
        if (!nest_stride(c->l, load, g->index[i], &s) || (i < g->count - 1 && s != expected))
            return false;
        if (i > g->count - q) {
            if (!ir_dim_is_const(index_of(c, g, i)->extent, &extent))
                return false;
            expected = s * extent;
        }
    }
    return true;
}

static uint32_t group_mask(const struct group *g, int q) {
    uint32_t mask = 0;
    for (int i = g->count - q; i < g->count; i++)
        mask |= 1u << g->index[i];
    return mask;
}

static void check_collapse(struct collapse *w, ir_expr e) {
    if (e->kind == X_LOAD) {
        int rank = w->c->l->op->operands[e->index]->type.rank;
        while (w->together > 1 && !nests(w->c, e, w->g, w->together))
            w->together--;
        for (int i = 0; i < e->count; i++)
            if ((e->guarded || i >= rank) && nest_uses(e->args[i]) & group_mask(w->g, w->together))
                w->together = 1;
        return;
    }
    if (e->kind == X_INDEX)
        for (int i = 0; i < w->g->count; i++)
            if (w->g->index[i] == e->index)
                w->together = w->g->count - i <= w->together ? 1 : w->together;
    for (int i = 0; i < e->count; i++)
        check_collapse(w, e->args[i]);
}

int contraction_collapse(struct contraction *c, ir_expr e, const struct group *g) {
    struct collapse w = {c, g, g->count};
    check_collapse(&w, e);
    return w.together < 1 ? 1 : w.together;
}

struct flat_loop contraction_open_flat(struct contraction *c, const struct group *g, int together, lx lo, lx hi,
                                       lx *at) {
    struct loop_builder *b = c->b;
    struct flat_loop s = {0};
    int head = g->count - together, last = g->index[g->count - 1];
    const char *name = c->nest->indices[last].name;
    int64_t zero, size, end;
    lx along;
    if (head == 0) {
        s.loop[s.count++] = contraction_open(c, name, lo, hi, 1, LOOP_SERIAL, &along);
        for (int i = 0; i < g->count; i++)
            nest_scope_set(&c->n, g->index[i], i == g->count - 1 ? along : lx_int(b, 0), c->n.depth);
        *at = along;
        return s;
    }
    ir_dim run = ir_dim_const(c->l->module, 1);
    for (int i = head; i < g->count; i++)
        run = ir_dim_mul(c->l->module, run, index_of(c, g, i)->extent);
    lx extent = nest_dim(&c->n, run);
    if (lx_is_int(lo, &zero) && zero == 0 &&
        (hi == g->size || (lx_is_int(hi, &end) && lx_is_int(g->size, &size) && end == size))) {
        lx sum = lx_int(b, 0);
        for (int i = 0; i < head; i++) {
            lx counter, n = nest_dim(&c->n, index_of(c, g, i)->extent);
            s.loop[s.count++] = contraction_open(c, index_of(c, g, i)->name, lx_int(b, 0), n, 1, LOOP_SERIAL, &counter);
            nest_scope_set(&c->n, g->index[i], counter, c->n.depth);
            sum = lx_add(b, lx_mul(b, sum, n), counter);
        }
        s.loop[s.count++] = contraction_open(c, name, lx_int(b, 0), extent, 1, LOOP_SERIAL, &along);
        *at = lx_add(b, lx_mul(b, sum, extent), along);
    } else {
        lx round, first = lx_div(b, lo, extent),
                  past = lx_div(b, lx_add(b, hi, lx_sub(b, extent, lx_int(b, 1))), extent);
        s.loop[s.count++] = contraction_open(c, "run", first, past, 1, LOOP_SERIAL, &round);
        contraction_set_flat(c, g, head, round);
        lx start = contraction_named(c, "start", lx_mul(b, round, extent));
        lx from = lx_op(b, I_MAX, lx_sub(b, lo, start), lx_int(b, 0));
        lx to = contraction_named(c, "stop", lx_min(b, lx_sub(b, hi, start), extent));
        s.loop[s.count++] = contraction_open(c, name, from, to, 1, LOOP_SERIAL, &along);
        *at = lx_add(b, start, along);
    }
    for (int i = head; i < g->count; i++)
        nest_scope_set(&c->n, g->index[i], i == g->count - 1 ? along : lx_int(b, 0), c->n.depth);
    return s;
}

void contraction_close_flat(struct contraction *c, struct flat_loop s) {
    while (s.count > 0)
        contraction_close(c, s.loop[--s.count]);
}

/* ---- panels and tiles ----------------------------------------------------------------------------------------------------- */

void contraction_pack(struct contraction *c, const struct side *s, lx first, lx count, int64_t width, lx k0, lx depth,
                      struct loop_mem *mem, lx base, bool pad) {
    struct loop_builder *b = c->b;
    int64_t stride = 0, k_stride = 0, exact;
    const struct group *g = s->group;
    /* The inner loop along what is contiguous in the operand. */
    bool along = !s->load || (nest_stride(c->l, s->load, g->index[g->count - 1], &stride) && stride == 1);
    if (!along && (!nest_stride(c->l, s->load, c->k.index[c->k.count - 1], &k_stride) || k_stride != 1))
        along = true;
    lx v, k, end = contraction_named(c, "end", lx_add(b, first, count)),
             k_end = contraction_named(c, "k_end", lx_add(b, k0, depth));
    int v_together = contraction_collapse(c, s->e, g), k_together = contraction_collapse(c, s->e, &c->k);
    struct flat_loop outer = along ? contraction_open_flat(c, &c->k, k_together, k0, k_end, &k)
                                   : contraction_open_flat(c, g, v_together, first, end, &v);
    struct flat_loop inner = along ? contraction_open_flat(c, g, v_together, first, end, &v)
                                   : contraction_open_flat(c, &c->k, k_together, k0, k_end, &k);
    lx at = lx_add(b, base, lx_add(b, lx_mul(b, lx_sub(b, k, k0), lx_int(b, width)), lx_sub(b, v, first)));
    loop_store(b, here(c), mem, at, nest_value(&c->n, s->e));
    contraction_close_flat(c, inner);
    contraction_close_flat(c, outer);
    if (!pad || (lx_is_int(count, &exact) && exact == width))
        return;
    struct loop_stmt *ks = contraction_open(c, "k", lx_int(b, 0), depth, 1, LOOP_SERIAL, &k);
    struct loop_stmt *vs = contraction_open(c, "v", count, lx_int(b, width), 1, LOOP_SERIAL, &v);
    loop_store(b, here(c), mem, lx_add(b, base, lx_add(b, lx_mul(b, k, lx_int(b, width)), v)),
               lx_const_float(b, c->dtype, 0));
    contraction_close(c, vs);
    contraction_close(c, ks);
}

/* ---- windows -------------------------------------------------------------------------------------------------------------- */

static const struct ir_value *row_value(const struct contraction *c) {
    return c->l->op->operands[c->rows.load->index];
}

/* The extent of dimension d of the operand as the tiles see it. */
static ir_dim window_extent(struct contraction *c, int d) {
    struct ir_module *m = c->l->module;
    ir_dim e = row_value(c)->type.dims[d];
    return c->border ? ir_dim_add(m, e, ir_dim_const(m, c->below[d] + c->above[d])) : e;
}

static ir_dim operand_stride(struct contraction *c, int d) {
    const struct ir_type t = row_value(c)->type;
    ir_dim stride = ir_dim_const(c->l->module, 1);
    for (int k = d + 1; k < t.rank; k++)
        stride = ir_dim_mul(c->l->module, stride, t.dims[k]);
    return stride;
}

static ir_dim window_factor(struct contraction *c, int d) {
    ir_dim factor = ir_dim_const(c->l->module, 1);
    for (int k = d + 1; k < row_value(c)->type.rank; k++)
        factor = ir_dim_mul(c->l->module, factor, window_extent(c, k));
    return factor;
}

bool contraction_window_stride(struct contraction *c, int index, int64_t *stride) {
    struct ir_module *m = c->l->module;
    ir_dim total = ir_dim_const(m, 0), coefficients[NEST_MAX], constant;
    for (int d = 0; d < row_value(c)->type.rank; d++) {
        if (!(nest_uses(c->rows.load->args[d]) >> index & 1))
            continue;
        if (!ir_expr_affine(m, c->rows.load->args[d], c->nest->pars + c->nest->reds, coefficients, &constant))
            return false;
        total = ir_dim_add(m, total, ir_dim_mul(m, coefficients[index], window_factor(c, d)));
    }
    return ir_dim_is_const(total, stride);
}

lx contraction_window_address(struct contraction *c) {
    struct loop_builder *b = c->b;
    for (int i = 0; i < c->k.count; i++)
        nest_scope_set(&c->n, c->k.index[i], lx_int(b, 0), 0);
    lx sum = lx_int(b, 0);
    for (int d = 0; d < row_value(c)->type.rank; d++) {
        lx at = nest_index(&c->n, c->rows.load->args[d]);
        sum = lx_add(
            b, sum,
            lx_mul(b, c->border ? lx_add(b, at, lx_int(b, c->below[d])) : at, nest_dim(&c->n, window_factor(c, d))));
    }
    return sum;
}

/* One row of the copy, or several where the dimensions from d on have no border: zeros, elements, zeros. */
static void border_loops(struct contraction *c, int d, lx from, lx to) {
    struct loop_builder *b = c->b;
    const struct ir_type t = row_value(c)->type;
    lx extent = nest_dim(&c->n, t.dims[d]), wide = nest_dim(&c->n, window_extent(c, d)),
       zero = lx_const_float(b, c->row_dtype, 0);
    lx inner = nest_dim(&c->n, window_factor(c, d)), below = lx_int(b, c->below[d]), i;
    struct loop_mem *copy = (struct loop_mem *)c->row_mem;
    lx stop = lx_add(b, below, extent);
    for (int part = 0; part < 3; part++) {
        lx lo = part == 0 ? lx_int(b, 0) : part == 1 ? below : stop, hi = part == 0 ? below : part == 1 ? stop : wide;
        int64_t l, h;
        if (lx_is_int(lo, &l) && lx_is_int(hi, &h) && l == h)
            continue;
        if (part == 1 && d + 1 < t.rank) {
            struct loop_stmt *s = contraction_open(c, "i", lo, hi, 1, LOOP_SERIAL, &i);
            lx source = contraction_named(
                c, "source", lx_add(b, from, lx_mul(b, lx_sub(b, i, below), nest_dim(&c->n, operand_stride(c, d)))));
            lx target = contraction_named(c, "target", lx_add(b, to, lx_mul(b, i, inner)));
            border_loops(c, d + 1, source, target);
            contraction_close(c, s);
            continue;
        }
        struct loop_stmt *s = contraction_open(c, "i", lx_mul(b, lo, inner), lx_mul(b, hi, inner), 1, LOOP_SERIAL, &i);
        lx value = part == 1
                       ? lx_load(b, c->l->mem(c->l->context, row_value(c)), lx_add(b, from, lx_sub(b, i, below)), 1)
                       : zero;
        loop_store(b, here(c), copy, lx_add(b, to, i), value);
        contraction_close(c, s);
    }
}

void contraction_copy_border(struct contraction *c) {
    struct loop_builder *b = c->b;
    const struct ir_type t = row_value(c)->type;
    int64_t outer = ir_dim_upper(t.dims[0]);
    int64_t tasks = c->below[0] || c->above[0] || t.rank == 1
                        ? 1
                        : lower_tasks(c->l, outer, (double)ir_dim_upper(ir_type_elements(c->l->module, t)));
    if (tasks <= 1) {
        border_loops(c, 0, lx_int(b, 0), lx_int(b, 0));
        return;
    }
    int64_t chunk = (outer + tasks - 1) / tasks;
    lx task, i, extent = nest_dim(&c->n, t.dims[0]);
    struct loop_stmt *split =
        contraction_open(c, "part_of", lx_int(b, 0), lx_int(b, (outer + chunk - 1) / chunk), 1, LOOP_PARALLEL, &task);
    lx lo = contraction_named(c, "from", lx_mul(b, task, lx_int(b, chunk))),
       hi = contraction_named(c, "to", lx_min(b, lx_add(b, lo, lx_int(b, chunk)), extent));
    struct loop_stmt *s = contraction_open(c, "i", lo, hi, 1, LOOP_SERIAL, &i);
    lx source = contraction_named(c, "source", lx_mul(b, i, nest_dim(&c->n, operand_stride(c, 0))));
    lx target = contraction_named(c, "target", lx_mul(b, i, nest_dim(&c->n, window_factor(c, 0))));
    border_loops(c, 1, source, target);
    contraction_close(c, s);
    contraction_close(c, split);
}

void contraction_fill_offsets(struct contraction *c) {
    struct loop_builder *b = c->b;
    lx k, sum = lx_int(b, 0);
    struct flat_loop s = contraction_open_flat(c, &c->k, 1, lx_int(b, 0), c->k.size, &k);
    for (int i = 0; i < c->k.count; i++) {
        int64_t stride = 0;
        contraction_window_stride(c, c->k.index[i], &stride);
        sum = lx_add(b, sum, lx_mul(b, c->n.index[c->k.index[i]], lx_int(b, stride)));
    }
    loop_store(b, here(c), c->offsets, k, lx_cast(b, I32, sum));
    contraction_close_flat(c, s);
}
