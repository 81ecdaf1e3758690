/* Lowering of a `rows` operation (passes/rows.c) to one kernel. A row belongs to a thread, a warp or a block, as a reduction over it
 * alone would; nest after nest is done for the row. A number of the row is a register that all its threads have: reductions end with
 * every thread knowing the whole, by the same trees as elsewhere. An element of the row belongs to the same thread in every nest, so
 * what one nest left in shared memory or in a result is read by who wrote it. Barriers are needed only in reductions, and where all
 * threads read an element whose memory a later nest writes over (passes/mutation/inplace_rows.c). */
#include <string.h>

#include "passes/gpu_nest.h"
#include "passes/nest_edit.h"
#include "passes/rows.h"

struct made { /* a value of the operation's nests, once it is computed */
    const struct ir_value *value;
    lx number;               /* of the row */
    struct loop_mem *shared; /* elements of the row; NULL: it lies in memory */
    int64_t stride;          /* shared: elements for each row */
};

struct rows {
    struct lower *l;    /* of the operation */
    struct lower inner; /* of the nest that is lowered */
    struct rows_member members[ROWS_MAX_MEMBERS];
    int count;
    enum rows_by by;
    struct gpu_kernel k;
    struct loop_block *body;
    lx coordinate[ROWS_MAX_INDICES]; /* of the row */
    lx lane, place;                  /* which of the row's threads; which of the rows that the block has at a time */
    int64_t threads, rows_at_once;
    VEC(struct made) made;
};

/* ---- memory ------------------------------------------------------------------------------------------------------- */

static const struct ir_value *outer_value(const struct rows *r, const struct ir_value *v) {
    const struct ir_region *body = r->l->op->regions[0];
    for (int i = 0; i < body->arg_count; i++)
        if (body->args[i] == v)
            return r->l->op->operands[i];
    for (int i = 0; i < body->yield_count; i++)
        if (body->yields[i] == v)
            return r->l->op->results[i];
    return NULL;
}

static struct loop_mem *memory(void *context, const struct ir_value *v) {
    struct rows *r = context;
    return r->l->mem(r->l->context, outer_value(r, v));
}

static lx symbol(void *context, const struct ir_symbol *s) {
    struct rows *r = context;
    return r->l->symbol(r->l->context, s);
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

static lx row_extent(struct rows *r, int first, int count) {
    ir_dim d = ir_dim_const(r->l->module, 1);
    for (int k = first; k < first + count; k++)
        d = ir_dim_mul(r->l->module, d, r->members[0].op->nest.indices[r->members[0].of[k]].extent);
    return lx_dim(r->l->b, d, symbol, r);
}

static int64_t row_upper(const struct rows *r) {
    double n = 1;
    for (int k = 0; k < r->members[0].rows; k++)
        n *= (double)ir_dim_upper(r->members[0].op->nest.indices[r->members[0].of[k]].extent);
    return n < 4e18 ? (int64_t)n : (int64_t)4e18;
}

static void set_coordinates(struct rows *r, lx row) {
    struct loop_builder *b = r->l->b;
    for (int k = r->members[0].rows; k-- > 0;) {
        lx extent = row_extent(r, k, 1);
        const char *name = r->members[0].op->nest.indices[r->members[0].of[k]].name;
        r->coordinate[k] = gpu_named(b, r->body, name, k ? lx_mod(b, row, extent) : row);
        if (k)
            row = gpu_named(b, r->body, "rest", lx_div(b, row, extent));
    }
}

/* ---- a nest ------------------------------------------------------------------------------------------------------- */

static const struct made *find_made(const struct rows *r, const struct ir_value *v) {
    for (int i = 0; i < r->made.n; i++)
        if (r->made.at[i].value == v)
            return &r->made.at[i];
    return NULL;
}

struct giving {
    struct rows *r;
    struct gpu_nest *w;
    lx element; /* its number in the row; NULL: numbers of the row */
};

static lx shared_at(const struct rows *r, const struct made *m, lx element) {
    struct loop_builder *b = r->l->b;
    /* Threads that have a row each lie side by side. */
    if (r->by == ROWS_BY_THREADS)
        return lx_add(b, lx_mul(b, element, lx_int(b, r->rows_at_once)), r->place);
    return lx_add(b, lx_mul(b, r->place, lx_int(b, m->stride)), element);
}

static void give(ir_expr e, void *context) {
    struct giving *g = context;
    const struct made *m = e->kind == X_LOAD ? find_made(g->r, g->w->l->op->operands[e->index]) : NULL;
    if (m && m->number && !g->element)
        nest_scope_give(&g->w->n, e, m->number);
    else if (m && m->shared && g->element)
        nest_scope_give(&g->w->n, e, lx_load(g->r->l->b, m->shared, shared_at(g->r, m, g->element), 1));
}

static void give_all(struct rows *r, struct gpu_nest *w, lx element) {
    struct giving g = {r, w, element};
    nest_walk(w->l->op, give, &g);
}

/* The elements of a nest without reduction, as terms are numbered. */
static struct gpu_terms elements_of(struct rows *r, struct gpu_nest *w, const struct rows_member *x) {
    struct gpu_terms t = {.all = lx_int(r->l->b, 1)};
    int list[ROWS_MAX_INDICES], count = rows_elements(x, list), flat = 1;
    if (count > 1 && list[0] == w->nest->pars - count)
        flat = lower_flat_count(w->l, list[0], count);
    for (int i = 0; i < count; i++) {
        bool last = i == count - flat;
        t.extent[t.count] = gpu_nest_extent(w, list[i], last ? flat : 1);
        t.lo[t.count] = lx_int(r->l->b, 0);
        t.list[t.count] = last ? list[count - 1] : list[i];
        t.all = lx_mul(r->l->b, t.all, t.extent[t.count++]);
        for (int z = i; last && z < count - 1; z++)
            nest_scope_set(&w->n, list[z], lx_int(r->l->b, 0), 0);
        if (last)
            break;
    }
    return t;
}

/* The loop over the elements or terms that belong to the thread; what stands in it may read the row's elements. */
static struct loop_stmt *open_elements(struct rows *r, struct gpu_nest *w, const struct gpu_terms *t) {
    struct loop_stmt *s = gpu_nest_each_term(w, t, r->lane, t->all, r->threads);
    give_all(r, w, lx_var(r->l->b, s->var));
    return s;
}

static void store_number(struct rows *r, struct gpu_nest *w, int k) {
    struct loop_builder *b = r->l->b;
    const struct ir_value *v = w->l->op->results[k];
    lx value = gpu_nest_named(w, v->name ? v->name : "number", nest_value(&w->n, w->nest->results[k].value));
    VEC_PUSH(b->arena, r->made, (struct made){.value = v, .number = value});
    if (!outer_value(r, v))
        return;
    struct loop_stmt *first = r->threads > 1 ? loop_if(b, NULL, lx_op(b, I_EQ, r->lane, lx_int(b, 0))) : NULL;
    if (first)
        gpu_nest_enter(w, &first->body);
    nest_store(&w->n, k, value);
    if (first) {
        gpu_nest_leave(w);
        loop_append(gpu_nest_here(w), first);
    }
}

struct overwriting {
    struct rows *r;
    const struct ir_op *op;
    bool found;
};

static void see_overwritten(ir_expr e, void *context) {
    struct overwriting *o = context;
    const struct ir_value *v = e->kind == X_LOAD ? outer_value(o->r, o->op->operands[e->index]) : NULL;
    const struct ir_op *op = o->r->l->op;
    for (int k = 0; v && v->type.rank && k < op->result_count; k++)
        o->found |= o->r->l->mem(o->r->l->context, v) == o->r->l->mem(o->r->l->context, op->results[k]);
}

/* Whether a nest of numbers reads, for each of the row's threads, what is written over later. */
static bool is_overwritten(struct rows *r, const struct rows_member *x) {
    struct overwriting o = {r, x->op, false};
    for (int k = 0; rows_has_number(x) && k < x->op->result_count; k++)
        ir_expr_walk(x->op->nest.results[k].value, see_overwritten, &o);
    return o.found;
}

static void number_nest(struct rows *r, struct gpu_nest *w) {
    if (w->nest->reds) {
        struct gpu_terms t = gpu_nest_terms(w);
        gpu_nest_open_accumulators(w);
        struct loop_stmt *s = open_elements(r, w, &t);
        gpu_nest_accumulate(w);
        gpu_nest_leave(w);
        loop_append(gpu_nest_here(w), s);
        if (r->by == ROWS_BY_WARPS)
            gpu_nest_fold_warp(w);
        else if (r->by == ROWS_BY_BLOCKS)
            gpu_nest_fold_block(w, &r->k, true);
        gpu_nest_close_accumulators(w);
    }
    for (int k = 0; k < w->l->op->result_count; k++)
        store_number(r, w, k);
}

static void element_nest(struct rows *r, struct gpu_nest *w, const struct rows_member *x) {
    struct loop_builder *b = r->l->b;
    const struct ir_op *op = w->l->op;
    struct gpu_terms t = elements_of(r, w, x);
    lx values[NEST_MAX];
    int list[ROWS_MAX_INDICES], count = rows_elements(x, list), first = r->made.n;
    double most = 1;
    for (int i = 0; i < count; i++)
        most *= (double)ir_dim_upper(w->nest->indices[list[i]].extent);
    for (int k = 0; k < op->result_count; k++) {
        struct made m = {.value = op->results[k], .stride = (int64_t)most};
        if (!outer_value(r, op->results[k]))
            m.shared = gpu_shared(&r->k, op->results[k]->name ? op->results[k]->name : "row",
                                  op->results[k]->type.dtype, (int64_t)most * r->rows_at_once);
        VEC_PUSH(b->arena, r->made, m);
    }
    struct loop_stmt *s = open_elements(r, w, &t);
    for (int k = 0; k < op->result_count; k++)
        values[k] = gpu_nest_named(w, "value", nest_value(&w->n, w->nest->results[k].value));
    for (int k = 0; k < op->result_count; k++) {
        struct made *m = &r->made.at[first + k];
        if (m->shared)
            loop_store(b, gpu_nest_here(w), m->shared, shared_at(r, m, lx_var(b, s->var)), values[k]);
        else
            nest_store(&w->n, k, values[k]);
    }
    gpu_nest_leave(w);
    loop_append(gpu_nest_here(w), s);
}

static void lower_member(struct rows *r, const struct rows_member *x) {
    struct gpu_nest w = {.l = &r->inner, .b = r->l->b, .nest = &x->op->nest};
    r->inner.op = x->op;
    gpu_nest_begin(&w, r->body);
    for (int k = 0; k < x->rows; k++)
        nest_scope_set(&w.n, x->of[k], r->coordinate[k], 0);
    give_all(r, &w, NULL);
    r->l->flops += nest_flops(w.nest, x->op->result_count);
    if (rows_has_number(x)) {
        number_nest(r, &w);
        if (r->threads > 1 && is_overwritten(r, x))
            loop_barrier(r->l->b, gpu_nest_here(&w));
    } else {
        element_nest(r, &w, x);
    }
}

/* ---- the kernel --------------------------------------------------------------------------------------------------- */

static void lower_members(struct rows *r, lx row) {
    set_coordinates(r, row);
    for (int i = 0; i < r->count; i++)
        lower_member(r, &r->members[i]);
}

static void by_threads(struct rows *r, lx all) {
    struct gpu_each e = gpu_open_each(r->l->b, r->l->out, all, row_upper(r), "row");
    r->k = e.k;
    r->body = e.body;
    r->lane = lx_int(r->l->b, 0);
    r->place = e.k.thread;
    r->threads = 1;
    r->rows_at_once = GPU_THREADS;
    lower_members(r, e.at);
    gpu_close_each(&e);
}

static void by_warps(struct rows *r, lx all) {
    struct loop_builder *b = r->l->b;
    r->threads = GPU_WARP;
    r->rows_at_once = GPU_THREADS / GPU_WARP;
    r->k = gpu_open(b, r->l->out, gpu_ceil_div(b, all, r->rows_at_once), GPU_THREADS);
    r->place = gpu_named(b, r->k.body, "warp", lx_div(b, r->k.thread, lx_int(b, GPU_WARP)));
    r->lane = gpu_named(b, r->k.body, "lane_", lx_mod(b, r->k.thread, lx_int(b, GPU_WARP)));
    lx row = gpu_named(b, r->k.body, "row", lx_add(b, lx_mul(b, r->k.block, lx_int(b, r->rows_at_once)), r->place));
    struct loop_stmt *inside = loop_if(b, NULL, lx_op(b, I_LT, row, all));
    r->body = &inside->body;
    lower_members(r, row);
    loop_append(r->k.body, inside);
}

/* A block a row; also of a single warp. */
static void by_blocks(struct rows *r, lx all, int threads) {
    r->k = gpu_open(r->l->b, r->l->out, all, threads);
    r->body = r->k.body;
    r->lane = r->k.thread;
    r->place = lx_int(r->l->b, 0);
    r->threads = threads;
    r->rows_at_once = 1;
    lower_members(r, r->k.block);
}

void lower_gpu_rows(struct lower *l) {
    struct rows *r = arena_alloc(l->b->arena, sizeof *r);
    memset(r, 0, sizeof *r);
    r->l = l;
    r->inner = *l;
    r->inner.mem = memory;
    r->inner.symbol = symbol;
    r->inner.context = r;
    r->count = rows_members(l->op, r->members);
    bool meets = false;
    r->by = l->op->rows.by;
    for (int i = 0; i < r->count; i++)
        meets |= is_overwritten(r, &r->members[i]);
    lx all = row_extent(r, 0, r->members[0].rows);
    if (r->by == ROWS_BY_THREADS)
        by_threads(r, all);
    else if (r->by == ROWS_BY_BLOCKS)
        by_blocks(r, all, GPU_THREADS);
    else if (meets) /* warps of one block cannot meet alone */
        by_blocks(r, all, GPU_WARP);
    else
        by_warps(r, all);
}
