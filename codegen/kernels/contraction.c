/* Sums of products as packed matrix products (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008).
 *
 * A nest  y[p…] = f(sum[k…] A(p…, k…) * B(p…, k…))  splits its parallel indices into those of A alone, of B alone and of both
 * (the batch). Whatever A and B are (a transposed load, a window with a guard, a conversion), copying them into panels
 * evaluates them once a panel, so matrix products in every transposition, convolutions (im2col, panel by panel), and their
 * two gradients are one kernel. One side becomes the vectors (packed, zero padded to whole vectors), the other the rows, which
 * are read in place when the reduction walks them contiguously. Which side is which is decided by the cost of packing and of
 * storing across.
 *
 * Each element is one chain of multiply-adds in the order of the reduction, whatever the blocking, so that neither tile sizes nor
 * tasks change a bit.
 */
#include <stdio.h>
#include <string.h>

#include "passes/lower.h"

enum { K_BLOCK = 1024 };

struct group { /* indices of a nest taken together, row-major */
    int count, index[NEST_MAX];
    ir_dim extent;
    lx size;
    int64_t upper;
    bool constant;
};

struct side {
    ir_expr e;
    struct group *group;
};

struct contraction {
    struct lower *l;
    struct loop_builder *b;
    const struct ir_nest *nest;
    struct nest_scope n;
    enum dtype dtype;
    struct group batch, a, b_side, k;
    struct side rows, cols; /* cols: along the vectors */
    int lanes, vectors, row_tile, width; /* width = vectors * lanes */
    bool in_place;          /* rows are read where they are */
    int64_t row_stride;     /* of rows in place */
    const struct loop_mem *row_mem;
    bool direct;            /* the result holds the partial sums */
    int64_t result_stride;
    bool epilogue;
    struct loop_mem *panel, *packed, *strip;
    enum { SPLIT_NONE, SPLIT_BATCH, SPLIT_PANELS, SPLIT_ROWS } split;
    int64_t tasks;
    lx panel_base, packed_base, strip_base; /* of the task's own part */
    int64_t k_block;
};

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

static void note_load(ir_expr e, void *context) { *(bool *)context |= e->kind == X_LOAD; }

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

static bool is_in_place(struct contraction *c, const struct side *s, int64_t *row_stride) {
    int64_t k_stride;
    if (s->e->kind != X_LOAD || s->e->guarded || s->e->dtype != c->dtype)
        return false;
    if (!flat_stride(c, s->e, &c->k, &k_stride) || k_stride != 1 || !flat_stride(c, s->e, s->group, row_stride))
        return false;
    /* Rows a multiple of 4 KiB apart meet in one set of the cache. */
    return *row_stride * dtype_size(c->dtype) % 4096 != 0;
}

static bool natural(const struct contraction *c, const struct group *cols) {
    return cols->index[cols->count - 1] == c->nest->pars - 1;
}

static int vectors_for(const struct contraction *c, int64_t columns) {
    int most = c->l->options->vector_extensions ? (c->l->options->vector_bytes >= 64 ? 4 : 2) : 1;
    int64_t need = (columns + c->lanes - 1) / c->lanes;
    return need < most ? (int)need : most;
}

/* Moves and multiply-adds in cycles, roughly. */
static double cost(struct contraction *c, const struct side *rows, const struct side *cols) {
    int64_t unused, stride = 0;
    double r = (double)rows->group->upper, v = (double)cols->group->upper, k = (double)c->k.upper;
    int vectors = vectors_for(c, cols->group->upper);
    double padded = (double)((cols->group->upper + vectors * c->lanes - 1) / (vectors * c->lanes) * (vectors * c->lanes));
    bool unit = cols->e->kind == X_LOAD && nest_stride(c->l, cols->e, cols->group->index[cols->group->count - 1], &stride) && stride == 1;
    double total = r * padded / c->lanes * k;
    total += v * k * (unit ? (cols->e->guarded ? 1.0 : 0.2) : 1.2);
    /* Packed rows are held for the whole depth, so windows, which repeat their input, had better be columns. */
    total += is_in_place(c, rows, &unused) ? 0 : r * k * (rows->e->kind == X_LOAD && !rows->e->guarded ? 1.2 : 4.0);
    total += natural(c, cols->group) ? 0 : r * v * 1.5;
    return total;
}

static bool recognise(struct contraction *c) {
    struct ir_op *op = c->l->op;
    const struct ir_nest *nest = c->nest;
    if (op->result_count != 1 || nest->acc_count != 1 || nest->results[0].base >= 0 || nest->accs[0].op != RED_SUM || !nest->reds)
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

/* ---- the micro-kernel --------------------------------------------------------------------------------------------------- */

/* rows x (vectors * lanes) sums in registers over a block of the reduction. `step`: distance of consecutive k in `a`, 1 for
 * rows in place, whose distance is a parameter, else the packed tile's height. */
static struct loop_func *micro_kernel(struct contraction *c, int rows, int vectors, int step, int panel) {
    struct loop_builder *b = c->b;
    char key[96];
    snprintf(key, sizeof key, "tile_%s_%dx%dx%d_a%d_b%d", dtype_name(c->dtype), rows, vectors, c->lanes, step, panel);
    struct loop_func *f = c->l->shared(c->l->context, key);
    if (f)
        return f;
    f = ARENA_NEW(b->arena, struct loop_func);
    f->text = arena_printf(b->arena, "%d rows by %d columns of a product: c (or 0) + a * b over k, a packed panel b of %d columns", rows,
                           vectors * c->lanes, panel);
    f->mem_count = 3;
    f->var_count = 4;
    f->mems = ARENA_ARRAY(b->arena, struct loop_mem *, 3);
    f->vars = ARENA_ARRAY(b->arena, struct loop_var *, 4);
    static const char *const mems[] = {"a", "b", "out"}, *const vars[] = {"depth", "a_row", "out_row", "first"};
    for (int i = 0; i < 3; i++)
        f->mems[i] = loop_mem_new(b, mems[i], c->dtype, MEM_PARAM);
    for (int i = 0; i < 4; i++)
        f->vars[i] = loop_var_new(b, vars[i], I64, 1);
    loop_block_init(&f->body);
    lx zero = lx_const_float(b, c->dtype, 0), a_row = step == 1 ? lx_var(b, f->vars[1]) : lx_int(b, 1);
    struct loop_var *acc = loop_var_new(b, "acc", c->dtype, c->lanes);
    acc->count = rows * vectors;
    acc->is_mutable = true;
    loop_def(b, &f->body, acc, NULL);
    struct loop_stmt *start = loop_if(b, &f->body, lx_op(b, I_NOT, lx_op(b, I_EQ, lx_var(b, f->vars[3]), lx_int(b, 0)), NULL));
    for (int load = 0; load < 2; load++) {
        struct loop_var *r = loop_var_new(b, "r", I64, 1), *v = loop_var_new(b, "v", I64, 1);
        struct loop_stmt *outer = loop_for(b, load ? &start->other : &start->body, r, lx_int(b, 0), lx_int(b, rows), 1, LOOP_UNROLL);
        struct loop_stmt *inner = loop_for(b, &outer->body, v, lx_int(b, 0), lx_int(b, vectors), 1, LOOP_UNROLL);
        lx at = lx_add(b, lx_mul(b, lx_var(b, r), lx_var(b, f->vars[2])), lx_mul(b, lx_var(b, v), lx_int(b, c->lanes)));
        lx slot = lx_add(b, lx_mul(b, lx_var(b, r), lx_int(b, vectors)), lx_var(b, v));
        loop_set(b, &inner->body, acc, slot, load ? lx_load(b, f->mems[2], at, c->lanes) : lx_splat(b, zero, c->lanes));
    }
    struct loop_var *k = loop_var_new(b, "k", I64, 1);
    struct loop_stmt *loop = loop_for(b, &f->body, k, lx_int(b, 0), lx_var(b, f->vars[0]), 1, LOOP_SERIAL);
    struct loop_var *bv = loop_var_new(b, "column", c->dtype, c->lanes);
    bv->count = vectors;
    bv->is_mutable = true;
    loop_def(b, &loop->body, bv, NULL);
    struct loop_var *v = loop_var_new(b, "v", I64, 1);
    struct loop_stmt *each = loop_for(b, &loop->body, v, lx_int(b, 0), lx_int(b, vectors), 1, LOOP_UNROLL);
    loop_set(b, &each->body, bv, lx_var(b, v),
             lx_load(b, f->mems[1], lx_add(b, lx_mul(b, lx_var(b, k), lx_int(b, panel)), lx_mul(b, lx_var(b, v), lx_int(b, c->lanes))), c->lanes));
    struct loop_var *r = loop_var_new(b, "r", I64, 1);
    struct loop_stmt *row = loop_for(b, &loop->body, r, lx_int(b, 0), lx_int(b, rows), 1, LOOP_UNROLL);
    struct loop_var *av = loop_var_new(b, "row", c->dtype, 1);
    loop_def(b, &row->body, av,
             lx_load(b, f->mems[0], lx_add(b, lx_mul(b, lx_var(b, r), a_row), lx_mul(b, lx_var(b, k), lx_int(b, step))), 1));
    v = loop_var_new(b, "v", I64, 1);
    each = loop_for(b, &row->body, v, lx_int(b, 0), lx_int(b, vectors), 1, LOOP_UNROLL);
    lx slot = lx_add(b, lx_mul(b, lx_var(b, r), lx_int(b, vectors)), lx_var(b, v));
    loop_set(b, &each->body, acc, slot, lx_fma(b, lx_splat(b, lx_var(b, av), c->lanes), lx_var_at(b, bv, lx_var(b, v)), lx_var_at(b, acc, slot)));
    r = loop_var_new(b, "r", I64, 1);
    v = loop_var_new(b, "v", I64, 1);
    row = loop_for(b, &f->body, r, lx_int(b, 0), lx_int(b, rows), 1, LOOP_UNROLL);
    each = loop_for(b, &row->body, v, lx_int(b, 0), lx_int(b, vectors), 1, LOOP_UNROLL);
    slot = lx_add(b, lx_mul(b, lx_var(b, r), lx_int(b, vectors)), lx_var(b, v));
    loop_store(b, &each->body, f->mems[2],
               lx_add(b, lx_mul(b, lx_var(b, r), lx_var(b, f->vars[2])), lx_mul(b, lx_var(b, v), lx_int(b, c->lanes))),
               lx_var_at(b, acc, slot));
    c->l->share(c->l->context, key, f);
    return f;
}

/* ---- loops over flattened groups ------------------------------------------------------------------------------------------ */

static struct loop_block *here(struct contraction *c) { return c->n.block[c->n.depth]; }

static struct loop_stmt *open_loop(struct contraction *c, const char *name, lx lo, lx hi, int64_t step, enum loop_kind kind, lx *counter) {
    struct loop_var *v = loop_var_new(c->b, name, I64, 1);
    struct loop_stmt *s = loop_for(c->b, NULL, v, lo, hi, step, kind);
    nest_scope_enter(&c->n, c->n.depth + 1, &s->body, false);
    *counter = lx_var(c->b, v);
    return s;
}

static void close_loop(struct contraction *c, struct loop_stmt *s) {
    c->n.depth--;
    loop_append(here(c), s);
}

static lx named(struct contraction *c, const char *name, lx e) {
    int64_t value;
    if (lx_is_int(e, &value) || e->kind == LX_VAR)
        return e;
    struct loop_var *v = loop_var_new(c->b, name, I64, 1);
    loop_def(c->b, here(c), v, e);
    return lx_var(c->b, v);
}

/* Sets the group's indices to flat position `at`. */
static void set_flat(struct contraction *c, const struct group *g, lx at) {
    struct loop_builder *b = c->b;
    for (int i = g->count; i-- > 0;) {
        lx extent = nest_dim(&c->n, c->nest->indices[g->index[i]].extent);
        lx value = i > 0 ? lx_mod(b, at, extent) : at;
        nest_scope_set(&c->n, g->index[i], named(c, c->nest->indices[g->index[i]].name, value), c->n.depth);
        if (i > 0)
            at = named(c, "rest", lx_div(b, at, extent));
    }
}

struct flat_loop {
    struct loop_stmt *outer, *inner;
};

/* Flat positions lo .. hi of a group as runs of its last index: opens the loop over runs if there are several indices, and gives
 * the bounds of the last index in the run and the position where the run starts. */
static struct loop_stmt *open_runs(struct contraction *c, const struct group *g, lx lo, lx hi, lx *from, lx *to, lx *start) {
    struct loop_builder *b = c->b;
    *from = lo;
    *to = hi;
    *start = lx_int(b, 0);
    if (g->count == 1)
        return NULL;
    lx extent = nest_dim(&c->n, c->nest->indices[g->index[g->count - 1]].extent), run;
    lx last = lx_div(b, lx_add(b, hi, lx_sub(b, extent, lx_int(b, 1))), extent);
    struct loop_stmt *s = open_loop(c, "run", lx_div(b, lo, extent), last, 1, LOOP_SERIAL, &run);
    struct group head = *g;
    head.count--;
    set_flat(c, &head, run);
    *start = named(c, "start", lx_mul(b, run, extent));
    int64_t zero;
    *from = lx_is_int(lo, &zero) && zero == 0 ? lx_int(b, 0) : named(c, "from", lx_op(b, I_MAX, lx_sub(b, lo, *start), lx_int(b, 0)));
    *to = named(c, "stop", lx_min(b, lx_sub(b, hi, *start), extent));
    return s;
}

/* A loop over flat positions lo .. hi. */
static struct flat_loop open_flat(struct contraction *c, const struct group *g, lx lo, lx hi, lx *at) {
    struct flat_loop s = {0};
    lx from, to, start, along;
    int last = g->index[g->count - 1];
    s.outer = open_runs(c, g, lo, hi, &from, &to, &start);
    s.inner = open_loop(c, c->nest->indices[last].name, from, to, 1, LOOP_SERIAL, &along);
    nest_scope_set(&c->n, last, along, c->n.depth);
    *at = lx_add(c->b, start, along);
    return s;
}

static void close_flat(struct contraction *c, struct flat_loop s) {
    close_loop(c, s.inner);
    if (s.outer)
        close_loop(c, s.outer);
}

/* Whether the guards of a load along index `i` hold in one interval: each subscript free of it or affine with a constant step
 * above 0, and a constant outside. */
static bool clips(struct contraction *c, ir_expr e, int i) {
    if (e->kind != X_LOAD || !e->guarded || e->args[e->count - 1]->kind != X_CONST)
        return false;
    ir_dim coefficients[NEST_MAX], constant;
    int64_t step;
    for (int d = 0; d < e->count - 1; d++)
        if ((nest_uses(e->args[d]) >> i & 1) &&
            (!ir_expr_affine(c->l->module, e->args[d], c->nest->pars + c->nest->reds, coefficients, &constant) ||
             !ir_dim_is_const(coefficients[i], &step) || step < 1))
            return false;
    return true;
}

/* mem[where + last index * stride] over from .. to of the last index x: the constant, then what lies inside, then the constant. */
static void pack_clipped(struct contraction *c, ir_expr e, int x, lx from, lx to, struct loop_mem *mem, lx where, int64_t stride) {
    struct loop_builder *b = c->b;
    const struct ir_value *v = c->l->op->operands[e->index];
    ir_dim coefficients[NEST_MAX], constant;
    lx lo = from, hi = to, ok = NULL, zero = lx_int(b, 0), i;
    nest_scope_set(&c->n, x, zero, 0);
    for (int d = 0; d < v->type.rank; d++) {
        int64_t step = 0;
        if (ir_index_inside(c->l->module, c->nest, e->args[d], v->type.dims[d]) == INSIDE)
            continue;
        lx base = named(c, "base", nest_index(&c->n, e->args[d])), extent = nest_dim(&c->n, v->type.dims[d]);
        if (nest_uses(e->args[d]) >> x & 1) {
            (void)ir_expr_affine(c->l->module, e->args[d], c->nest->pars + c->nest->reds, coefficients, &constant);
            (void)ir_dim_is_const(coefficients[x], &step);
            lx by = lx_int(b, step), up = lx_int(b, step - 1);
            lo = lx_op(b, I_MAX, lo, lx_op(b, I_FDIV, lx_sub(b, up, base), by));
            hi = lx_min(b, hi, lx_op(b, I_FDIV, lx_add(b, lx_sub(b, extent, base), up), by));
        } else {
            lx inside = lx_op(b, I_AND, lx_op(b, I_LE, zero, base), lx_op(b, I_LT, base, extent));
            ok = ok ? lx_op(b, I_AND, ok, inside) : inside;
        }
    }
    lo = named(c, "inside", lx_min(b, lo, to));
    hi = lx_op(b, I_MAX, lo, hi);
    hi = named(c, "outside", ok ? lx_select(b, ok, hi, lo) : hi);
    lx bounds[4] = {from, lo, hi, to};
    for (int part = 0; part < 3; part++) {
        struct loop_stmt *s = open_loop(c, c->nest->indices[x].name, bounds[part], bounds[part + 1], 1, LOOP_SERIAL, &i);
        lx value;
        if (part == 1) {
            nest_scope_set(&c->n, x, i, c->n.depth);
            value = lx_load(b, c->l->mem(c->l->context, v), nest_address(&c->n, v->type, e->args), 1);
        } else {
            value = nest_value(&c->n, e->args[v->type.rank]);
        }
        loop_store(b, here(c), mem, lx_add(b, where, lx_mul(b, i, lx_int(b, stride))), value);
        close_loop(c, s);
    }
}

/* Copies side s, positions first .. first + count, k from k0 on over `depth`, to mem[base + k * width + position]. */
static void pack(struct contraction *c, const struct side *s, lx first, lx count, int64_t width, lx k0, lx depth, struct loop_mem *mem, lx base,
                 bool pad) {
    struct loop_builder *b = c->b;
    int64_t stride = 0, exact;
    const struct group *g = s->group;
    /* The inner loop runs along what is contiguous in the source; if both are, along the longer run. */
    int last = g->index[g->count - 1], last_k = c->k.index[c->k.count - 1];
    bool along = true;
    if (s->e->kind == X_LOAD) {
        bool unit = nest_stride(c->l, s->e, last, &stride) && stride == 1;
        int64_t k_stride = 0;
        bool k_unit = nest_stride(c->l, s->e, last_k, &k_stride) && k_stride == 1;
        along = !k_unit || (unit && ir_dim_upper(c->nest->indices[last].extent) >= ir_dim_upper(c->nest->indices[last_k].extent));
    }
    lx v, k, end = named(c, "end", lx_add(b, first, count)), k_end = named(c, "k_end", lx_add(b, k0, depth));
    const struct group *inner = along ? g : &c->k;
    struct flat_loop outer = open_flat(c, along ? &c->k : g, along ? k0 : first, along ? k_end : end, along ? &k : &v);
    if (clips(c, s->e, inner->index[inner->count - 1])) {
        lx from, to, start;
        struct loop_stmt *runs = open_runs(c, inner, along ? first : k0, along ? end : k_end, &from, &to, &start);
        lx where = along ? lx_add(b, lx_mul(b, lx_sub(b, k, k0), lx_int(b, width)), lx_sub(b, start, first))
                         : lx_add(b, lx_mul(b, lx_sub(b, start, k0), lx_int(b, width)), lx_sub(b, v, first));
        pack_clipped(c, s->e, inner->index[inner->count - 1], from, to, mem, named(c, "where", lx_add(b, base, where)), along ? 1 : width);
        if (runs)
            close_loop(c, runs);
    } else {
        struct flat_loop loop = open_flat(c, inner, along ? first : k0, along ? end : k_end, along ? &v : &k);
        lx at = lx_add(b, base, lx_add(b, lx_mul(b, lx_sub(b, k, k0), lx_int(b, width)), lx_sub(b, v, first)));
        loop_store(b, here(c), mem, at, nest_value(&c->n, s->e));
        close_flat(c, loop);
    }
    close_flat(c, outer);
    if (!pad || (lx_is_int(count, &exact) && exact == width))
        return;
    struct loop_stmt *ks = open_loop(c, "k", lx_int(b, 0), depth, 1, LOOP_SERIAL, &k);
    struct loop_stmt *vs = open_loop(c, "v", count, lx_int(b, width), 1, LOOP_SERIAL, &v);
    loop_store(b, here(c), mem, lx_add(b, base, lx_add(b, lx_mul(b, k, lx_int(b, width)), v)), lx_const_float(b, c->dtype, 0));
    close_loop(c, vs);
    close_loop(c, ks);
}

/* ---- tiles --------------------------------------------------------------------------------------------------------------- */

/* The address of the load with the given group at `row`, the others as they stand. */
static lx row_address(struct contraction *c, lx row, lx k0) {
    const struct ir_value *v = c->l->op->operands[c->rows.e->index];
    for (int i = 0; i < c->rows.group->count; i++)
        nest_scope_set(&c->n, c->rows.group->index[i], lx_int(c->b, 0), 0);
    for (int i = 0; i < c->k.count; i++)
        nest_scope_set(&c->n, c->k.index[i], lx_int(c->b, 0), 0);
    lx base = nest_address(&c->n, v->type, c->rows.e->args);
    return lx_add(c->b, lx_add(c->b, base, lx_mul(c->b, row, lx_int(c->b, c->row_stride))), k0);
}

static lx result_address(struct contraction *c, lx row, lx column) {
    struct loop_builder *b = c->b;
    const struct ir_type t = c->l->op->results[0]->type;
    lx sum = lx_int(b, 0);
    for (int i = 0; i < c->batch.count; i++) {
        ir_dim stride = ir_dim_const(c->l->module, 1);
        for (int d = c->batch.index[i] + 1; d < t.rank; d++)
            stride = ir_dim_mul(c->l->module, stride, t.dims[d]);
        sum = lx_add(b, sum, lx_mul(b, c->n.index[c->batch.index[i]], nest_dim(&c->n, stride)));
    }
    return lx_add(b, lx_add(b, sum, lx_mul(b, row, lx_int(b, c->result_stride))), column);
}

static void call_tile(struct contraction *c, int rows, int vectors, lx row, lx first, lx k0, lx depth) {
    struct loop_builder *b = c->b;
    int step = c->in_place ? 1 : c->row_tile;
    struct loop_func *f = micro_kernel(c, rows, vectors, step, c->width);
    struct loop_stmt *s = loop_call(b, here(c), f);
    s->call_mems[0].mem = c->in_place ? c->row_mem : c->packed;
    if (c->in_place) {
        s->call_mems[0].offset = row_address(c, row, k0);
    } else {
        lx tile = lx_div(b, row, lx_int(b, c->row_tile));
        lx within = lx_sub(b, row, lx_mul(b, tile, lx_int(b, c->row_tile)));
        lx at = lx_add(b, lx_mul(b, lx_mul(b, tile, lx_int(b, c->row_tile)), c->k.size), lx_mul(b, k0, lx_int(b, c->row_tile)));
        s->call_mems[0].offset = lx_add(b, c->packed_base, rows == 1 && c->row_tile > 1 ? lx_add(b, at, within) : at);
    }
    s->call_mems[1].mem = c->panel;
    s->call_mems[1].offset = c->panel_base;
    struct loop_mem *out = c->direct ? c->l->mem(c->l->context, c->l->op->results[0]) : c->strip;
    out->written = true;
    s->call_mems[2].mem = out;
    s->call_mems[2].offset = c->direct ? result_address(c, row, first) : lx_add(b, c->strip_base, lx_mul(b, row, lx_int(b, c->width)));
    s->call_args[0] = depth;
    s->call_args[1] = c->in_place ? lx_int(b, c->row_stride) : lx_int(b, 1);
    s->call_args[2] = lx_int(b, c->direct ? c->result_stride : c->width);
    s->call_args[3] = lx_op(b, I_EQ, k0, lx_int(b, 0));
    int64_t constant;
    if (lx_is_int(k0, &constant))
        s->call_args[3] = lx_int(b, constant == 0);
}

static void finish_rows(struct contraction *c, lx row_lo, lx row_hi, lx first, lx count) {
    struct loop_builder *b = c->b;
    if (c->direct && !c->epilogue)
        return;
    bool across = !natural(c, c->cols.group);
    lx r, v, end = named(c, "end", lx_add(b, first, count));
    struct flat_loop outer = open_flat(c, across ? c->cols.group : c->rows.group, across ? first : row_lo, across ? end : row_hi, across ? &v : &r);
    struct flat_loop inner = open_flat(c, across ? c->rows.group : c->cols.group, across ? row_lo : first, across ? row_hi : end, across ? &r : &v);
    lx at = c->direct ? result_address(c, r, v) : lx_add(b, c->strip_base, lx_add(b, lx_mul(b, r, lx_int(b, c->width)), lx_sub(b, v, first)));
    c->n.acc[0] = lx_load(b, c->direct ? c->l->mem(c->l->context, c->l->op->results[0]) : c->strip, at, 1);
    nest_store(&c->n, 0, nest_value(&c->n, c->nest->results[0].value));
    close_flat(c, inner);
    close_flat(c, outer);
}

/* Row tiles row_lo .. row_hi of one panel and one block of the reduction; then, behind the last block, what follows the sum. */
static void row_tiles(struct contraction *c, int vectors, lx row_lo, lx row_hi, lx first, lx count, lx k0, lx depth, bool last_block) {
    struct loop_builder *b = c->b;
    int64_t rows, tile = c->row_tile;
    lx r;
    struct loop_stmt *s;
    if (lx_is_int(c->rows.group->size, &rows)) {
        lx whole = lx_int(b, rows / tile * tile);
        s = open_loop(c, "row", row_lo, lx_min(b, row_hi, whole), tile, LOOP_SERIAL, &r);
        call_tile(c, (int)tile, vectors, r, first, k0, depth);
        close_loop(c, s);
        if (rows % tile) {
            s = open_loop(c, "row", lx_op(b, I_MAX, row_lo, whole), row_hi, rows % tile, LOOP_SERIAL, &r);
            call_tile(c, (int)(rows % tile), vectors, r, first, k0, depth);
            close_loop(c, s);
        }
    } else {
        lx whole = named(c, "whole", lx_sub(b, row_hi, lx_mod(b, lx_sub(b, row_hi, row_lo), lx_int(b, tile))));
        s = open_loop(c, "row", row_lo, whole, tile, LOOP_SERIAL, &r);
        call_tile(c, (int)tile, vectors, r, first, k0, depth);
        close_loop(c, s);
        s = open_loop(c, "row", whole, row_hi, 1, LOOP_SERIAL, &r);
        call_tile(c, 1, vectors, r, first, k0, depth);
        close_loop(c, s);
    }
    if (last_block)
        finish_rows(c, row_lo, row_hi, first, count);
}

static void row_split(struct contraction *c, int vectors, lx first, lx count, lx k0, lx depth, bool last_block) {
    struct loop_builder *b = c->b;
    if (c->split != SPLIT_ROWS) {
        row_tiles(c, vectors, lx_int(b, 0), c->rows.group->size, first, count, k0, depth, last_block);
        return;
    }
    int64_t tile = c->row_tile, tiles = (c->rows.group->upper + tile - 1) / tile, chunk = (tiles + c->tasks - 1) / c->tasks * tile;
    lx task;
    struct loop_stmt *s = open_loop(c, "part_of", lx_int(b, 0), lx_int(b, (c->rows.group->upper + chunk - 1) / chunk), 1, LOOP_PARALLEL, &task);
    lx lo = named(c, "row_lo", lx_mul(b, task, lx_int(b, chunk)));
    lx hi = named(c, "row_hi", lx_min(b, lx_add(b, lo, lx_int(b, chunk)), c->rows.group->size));
    row_tiles(c, vectors, lo, hi, first, count, k0, depth, last_block);
    close_loop(c, s);
}

static void one_panel(struct contraction *c, int vectors, lx first, lx count) {
    struct loop_builder *b = c->b;
    int64_t depth;
    if (lx_is_int(c->k.size, &depth) || c->k.upper <= c->k_block) {
        int64_t block = lx_is_int(c->k.size, &depth) ? c->k_block : c->k.upper, at = 0;
        if (lx_is_int(c->k.size, &depth) && depth > block) {
            /* All blocks but the last in a loop. */
            lx k0;
            int64_t body = (depth - 1) / block * block;
            struct loop_stmt *s = open_loop(c, "k_block", lx_int(b, 0), lx_int(b, body), block, LOOP_SERIAL, &k0);
            pack(c, &c->cols, first, count, c->width, k0, lx_int(b, block), c->panel, c->panel_base, true);
            row_split(c, vectors, first, count, k0, lx_int(b, block), false);
            close_loop(c, s);
            at = body;
        }
        lx rest = lx_is_int(c->k.size, &depth) ? lx_int(b, depth - at) : c->k.size;
        pack(c, &c->cols, first, count, c->width, lx_int(b, at), rest, c->panel, c->panel_base, true);
        row_split(c, vectors, first, count, lx_int(b, at), rest, true);
        return;
    }
    /* Run-time depth: blocks to the end, then what follows the sum on its own. */
    lx k0;
    struct loop_stmt *s = open_loop(c, "k_block", lx_int(b, 0), c->k.size, c->k_block, LOOP_SERIAL, &k0);
    lx rest = named(c, "depth", lx_min(b, lx_int(b, c->k_block), lx_sub(b, c->k.size, k0)));
    pack(c, &c->cols, first, count, c->width, k0, rest, c->panel, c->panel_base, true);
    row_split(c, vectors, first, count, k0, rest, false);
    close_loop(c, s);
    finish_rows(c, lx_int(b, 0), c->rows.group->size, first, count);
}

static void panels(struct contraction *c, lx lo, lx hi) {
    struct loop_builder *b = c->b;
    int64_t columns;
    lx first;
    if (c->cols.group->constant && lx_is_int(c->cols.group->size, &columns)) {
        int64_t whole = columns / c->width * c->width, rest = columns - whole;
        if (whole) {
            struct loop_stmt *s = open_loop(c, "panel_at", lo, lx_min(b, hi, lx_int(b, whole)), c->width, LOOP_SERIAL, &first);
            one_panel(c, c->vectors, first, lx_int(b, c->width));
            close_loop(c, s);
        }
        if (rest) {
            int vectors = (int)((rest + c->lanes - 1) / c->lanes);
            struct loop_stmt *s = open_loop(c, "panel_at", lx_op(b, I_MAX, lo, lx_int(b, whole)), hi, c->width, LOOP_SERIAL, &first);
            one_panel(c, vectors, first, lx_int(b, rest));
            close_loop(c, s);
        }
        return;
    }
    struct loop_stmt *s = open_loop(c, "panel_at", lo, hi, c->width, LOOP_SERIAL, &first);
    lx count = named(c, "count", lx_min(b, lx_int(b, c->width), lx_sub(b, c->cols.group->size, first)));
    one_panel(c, c->vectors, first, count);
    close_loop(c, s);
}

/* One product: rows packed where they must be, then panels. */
static void product(struct contraction *c) {
    struct loop_builder *b = c->b;
    if (!c->in_place) {
        lx r;
        int64_t tile = c->row_tile, rows;
        struct loop_stmt *s;
        if (lx_is_int(c->rows.group->size, &rows)) {
            s = open_loop(c, "tile_at", lx_int(b, 0), lx_int(b, rows / tile * tile), tile, LOOP_SERIAL, &r);
            pack(c, &c->rows, r, lx_int(b, tile), tile, lx_int(b, 0), c->k.size, c->packed,
                 lx_add(b, c->packed_base, lx_mul(b, r, c->k.size)), false);
            close_loop(c, s);
            if (rows % tile)
                pack(c, &c->rows, lx_int(b, rows / tile * tile), lx_int(b, rows % tile), tile, lx_int(b, 0), c->k.size, c->packed,
                     lx_add(b, c->packed_base, lx_mul(b, lx_int(b, rows / tile * tile), c->k.size)), false);
        } else {
            s = open_loop(c, "tile_at", lx_int(b, 0), c->rows.group->size, tile, LOOP_SERIAL, &r);
            lx count = named(c, "count", lx_min(b, lx_int(b, tile), lx_sub(b, c->rows.group->size, r)));
            pack(c, &c->rows, r, count, tile, lx_int(b, 0), c->k.size, c->packed, lx_add(b, c->packed_base, lx_mul(b, r, c->k.size)), false);
            close_loop(c, s);
        }
    }
    if (c->split != SPLIT_PANELS) {
        panels(c, lx_int(b, 0), c->cols.group->size);
        return;
    }
    int64_t count = (c->cols.group->upper + c->width - 1) / c->width, chunk = (count + c->tasks - 1) / c->tasks * c->width;
    lx task;
    struct loop_stmt *s = open_loop(c, "part_of", lx_int(b, 0), lx_int(b, (c->cols.group->upper + chunk - 1) / chunk), 1, LOOP_PARALLEL, &task);
    lx lo = named(c, "column_lo", lx_mul(b, task, lx_int(b, chunk)));
    lx hi = named(c, "column_hi", lx_min(b, lx_add(b, lo, lx_int(b, chunk)), c->cols.group->size));
    c->panel_base = named(c, "panel_base", lx_mul(b, task, lx_int(b, c->width * c->k_block)));
    c->strip_base = c->strip ? named(c, "strip_base", lx_mul(b, task, lx_int(b, c->width * c->rows.group->upper))) : c->strip_base;
    panels(c, lo, hi);
    close_loop(c, s);
}

static void batches(struct contraction *c, int i) {
    struct loop_builder *b = c->b;
    if (i == c->batch.count) {
        product(c);
        return;
    }
    const struct ir_nest_index *x = &c->nest->indices[c->batch.index[i]];
    lx lo = lx_int(b, 0), hi = nest_dim(&c->n, x->extent), at, task;
    struct loop_stmt *split = NULL;
    if (i == 0 && c->split == SPLIT_BATCH) {
        int64_t upper = ir_dim_upper(x->extent), chunk = (upper + c->tasks - 1) / c->tasks;
        split = open_loop(c, "part_of", lo, lx_int(b, (upper + chunk - 1) / chunk), 1, LOOP_PARALLEL, &task);
        lo = named(c, "batch_lo", lx_mul(b, task, lx_int(b, chunk)));
        hi = named(c, "batch_hi", lx_min(b, lx_add(b, lo, lx_int(b, chunk)), hi));
        c->panel_base = named(c, "panel_base", lx_mul(b, task, lx_int(b, c->width * c->k_block)));
        if (c->strip)
            c->strip_base = named(c, "strip_base", lx_mul(b, task, lx_int(b, c->width * c->rows.group->upper)));
        if (c->packed)
            c->packed_base = named(c, "packed_base", lx_mul(b, task, lx_int(b, (c->rows.group->upper + c->row_tile) * c->k.upper)));
    }
    struct loop_stmt *s = open_loop(c, x->name, lo, hi, 1, LOOP_SERIAL, &at);
    nest_scope_set(&c->n, c->batch.index[i], at, c->n.depth);
    batches(c, i + 1);
    close_loop(c, s);
    if (split)
        close_loop(c, split);
}

/* ---- the plan of one product ------------------------------------------------------------------------------------------------ */

static void note_memory(ir_expr e, void *context) {
    struct contraction *c = context;
    if (e->kind == X_LOAD && c->l->mem(c->l->context, c->l->op->operands[e->index]) == c->l->mem(c->l->context, c->l->op->results[0]))
        c->direct = false;
}

/* Whether sums may be kept in the result: its own type, columns contiguous, whole vectors, not read by what follows. */
static void choose_direct(struct contraction *c) {
    const struct ir_type t = c->l->op->results[0]->type;
    const struct group *rows = c->rows.group, *cols = c->cols.group;
    int64_t columns, extent;
    c->epilogue = c->nest->results[0].value->kind != X_ACC;
    c->direct = t.dtype == c->dtype && natural(c, cols) && ir_dim_is_const(cols->extent, &columns) && columns % c->lanes == 0;
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
    if (!recognise(c))
        return false;
    const struct compile_options *o = l->options;
    int bytes = o->vector_extensions && o->vector_bytes ? o->vector_bytes : 32;
    c->lanes = bytes / dtype_size(c->dtype);
    ir_expr body = c->nest->accs[0].body;
    struct side a = {body->args[0], &c->a}, b = {body->args[1], &c->b_side};
    bool swap = cost(c, &b, &a) < cost(c, &a, &b);
    c->rows = swap ? b : a;
    c->cols = swap ? a : b;
    /* Accumulators and one row of columns in registers; the row's element is broadcast from memory. */
    static const int tiles_32[] = {0, 14, 12, 8, 7}, tiles_16[] = {0, 10, 6};
    c->vectors = vectors_for(c, c->cols.group->upper);
    c->row_tile = !o->vector_extensions ? 4 : bytes >= 64 ? tiles_32[c->vectors] : tiles_16[c->vectors];
    if (c->rows.group->upper < c->row_tile)
        c->row_tile = (int)c->rows.group->upper;
    c->width = c->vectors * c->lanes;
    c->in_place = is_in_place(c, &c->rows, &c->row_stride);
    if (c->in_place)
        c->row_mem = l->mem(l->context, l->op->operands[c->rows.e->index]);
    choose_direct(c);
    c->k_block = c->k.upper < K_BLOCK ? c->k.upper : K_BLOCK;

    double work = (double)c->batch.upper * (double)c->a.upper * (double)c->b_side.upper * (double)c->k.upper / c->lanes * 2;
    int64_t columns = (c->cols.group->upper + c->width - 1) / c->width, rows = (c->rows.group->upper + c->row_tile - 1) / c->row_tile;
    int64_t first = c->batch.count ? ir_dim_upper(c->nest->indices[c->batch.index[0]].extent) : 1;
    int64_t widest = first >= 8 ? first : columns > rows ? columns : rows;
    c->tasks = lower_tasks(l, widest, work);
    c->split = c->tasks == 1 ? SPLIT_NONE : first >= 8 ? SPLIT_BATCH : columns > rows ? SPLIT_PANELS : SPLIT_ROWS;
    int64_t parts = c->split == SPLIT_BATCH || c->split == SPLIT_PANELS ? c->tasks : 1;
    c->panel_base = c->packed_base = c->strip_base = lx_int(c->b, 0);
    c->panel = l->workspace(l->context, l->out, "panel", c->dtype, parts * c->width * c->k_block);
    if (!c->in_place)
        c->packed = l->workspace(l->context, l->out, "packed", c->dtype,
                                 (c->split == SPLIT_BATCH ? parts : 1) * (c->rows.group->upper + c->row_tile) * c->k.upper);
    if (!c->direct)
        c->strip = l->workspace(l->context, l->out, "sums", c->dtype, parts * c->width * c->rows.group->upper);
    double flops = 2.0 * (double)c->batch.upper * (double)c->a.upper * (double)c->b_side.upper * (double)c->k.upper;
    l->flops += flops < 9e18 ? (int64_t)flops : INT64_MAX;
    batches(c, 0);
    return true;
}
