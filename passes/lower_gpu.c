/* Lowering of a nest to kernels of a GPU. Schedules are chosen from shapes and access patterns alone, and no two threads ever add to
 * one place, so that every run gives the same bits:
 *
 *   map       a thread an element; the threads go round in a grid-stride loop, four neighbours at a time where the nest walks its
 *             operands in step
 *   tiles     a map that reads an operand across: squares through shared memory (lower_gpu_transpose.c)
 *   serial    a thread a result, which reduces alone: neighbours in a warp read neighbouring columns
 *   warp      a warp a result: its lanes take every 32nd term, then fold by halving through shuffles
 *   block     a block a result: as a warp, and the warps' sums are added in their order
 *   split     few results of long reductions: each reduction is cut into parts, as serial or block; a second kernel folds the parts
 *   owners    element writes that may meet: an address belongs to one thread, which goes through all iterations in their order and
 *             does those that write there. Indices that stand alone in a subscript never meet and are dealt out as in a map
 *
 * A lowering that parallelised the loops of passes/lower.c would have a thread a row and neighbours far apart in memory; one that
 * scattered by atomic additions would be fast on some inputs and different in the last bits in each run.
 */
#include <string.h>

#include "passes/gpu_nest.h"

enum { ALONE_TERMS = 32, WARP_TERMS = 1024, MANY_RESULTS = 1 << 15, SPLIT_TERMS = 4096, SPLIT_PARTS = 256, LANES = 4 };

/* ---- vectors ---------------------------------------------------------------------------------------------------------- */

/* Loads of four neighbours at once: the last parallel indices, taken as one, are the last subscripts, and rows are multiples of four
 * elements, so that all addresses are aligned. */
struct vector_loads {
    struct gpu_nest *w;
    int q; /* indices taken as one */
    VEC(ir_expr) found;
};

static bool is_vector(const struct gpu_nest *w, ir_expr e, int q) {
    struct ir_type t = w->l->op->operands[e->index]->type;
    int first = w->nest->pars - q;
    uint32_t mask = ((1u << q) - 1) << first;
    if (e->guarded || t.rank < q)
        return false;
    for (int d = 0; d < t.rank; d++) {
        int k = d - (t.rank - q);
        if (k < 0 ? (nest_uses(e->args[d]) & mask) != 0
                  : e->args[d]->kind != X_INDEX || e->args[d]->index != first + k ||
                        t.dims[d] != w->nest->indices[first + k].extent)
            return false;
    }
    return true;
}

static void note_vector(ir_expr e, void *context) {
    struct vector_loads *v = context;
    if (e->kind != X_LOAD || !is_vector(v->w, e, v->q))
        return;
    for (int i = 0; i < v->found.n; i++)
        if (v->found.at[i] == e)
            return;
    VEC_PUSH(v->w->b->arena, v->found, e);
}

/* Four results a thread; false if the nest has no such loads or no such rows. */
static bool by_fours(struct gpu_nest *w) {
    struct loop_builder *b = w->b;
    int pars = w->nest->pars, count = w->l->op->result_count, list[NEST_MAX], lists = 0;
    struct vector_loads loads = {.w = w, .q = w->flat_pars > 1 ? w->flat_pars : 1};
    lx extent[NEST_MAX], values[NEST_MAX * LANES], row, all = lx_int(b, 1);
    int64_t exact;
    if (!pars || count > LANES)
        return false;
    for (int r = 0; r < count; r++)
        ir_expr_walk(w->nest->results[r].value, note_vector, &loads);
    row = gpu_nest_extent(w, pars - loads.q, loads.q);
    if (!loads.found.n || loads.found.n > 8 || !lx_is_int(row, &exact) || exact % LANES)
        return false;
    for (int i = 0; i <= pars - loads.q; i++) {
        bool last = i == pars - loads.q;
        extent[lists] = last ? lx_int(b, exact / LANES) : gpu_nest_extent(w, i, 1);
        all = lx_mul(b, all, extent[lists]);
        list[lists++] = last ? pars - 1 : i;
    }
    struct gpu_each e = gpu_open_each(b, w->l->out, all, w->results / LANES, "at");
    gpu_nest_begin(w, e.k.body);
    if (e.around)
        gpu_nest_enter(w, e.body);
    gpu_nest_set_position(w, list, lists, extent, NULL, e.at);
    lx four = gpu_nest_named(w, "first", lx_mul(b, w->n.index[pars - 1], lx_int(b, LANES)));
    for (int i = pars - loads.q; i < pars - 1; i++)
        nest_scope_set(&w->n, i, lx_int(b, 0), 0);
    nest_scope_set(&w->n, pars - 1, four, w->n.depth);
    lx *vectors = ARENA_ARRAY(b->arena, lx, loads.found.n);
    for (int i = 0; i < loads.found.n; i++) {
        const struct ir_value *v = w->l->op->operands[loads.found.at[i]->index];
        lx at = nest_address(&w->n, v->type, loads.found.at[i]->args);
        vectors[i] = gpu_nest_named(w, v->name, lx_load(b, w->l->mem(w->l->context, v), at, LANES));
    }
    for (int lane = 0; lane < LANES; lane++) {
        nest_scope_set(&w->n, pars - 1, lane ? lx_add(b, four, lx_int(b, lane)) : four, w->n.depth);
        for (int i = 0; i < loads.found.n; i++)
            nest_scope_give(&w->n, loads.found.at[i], lx_lane(b, vectors[i], lane));
        for (int r = 0; r < count; r++)
            values[r * LANES + lane] = gpu_nest_named(w, "value", nest_value(&w->n, w->nest->results[r].value));
    }
    nest_scope_set(&w->n, pars - 1, four, w->n.depth);
    for (int r = 0; r < count; r++)
        nest_store(&w->n, r, lx_pack(b, LANES, &values[r * LANES]));
    gpu_close_each(&e);
    return true;
}

/* ---- schedules -------------------------------------------------------------------------------------------------------- */

static void serial(struct gpu_nest *w) {
    struct gpu_each e =
        gpu_open_each(w->b, w->l->out, gpu_nest_extent(w, 0, w->nest->pars), w->results,
                      w->flat_pars == w->nest->pars && w->nest->pars ? w->nest->indices[w->nest->pars - 1].name : "at");
    gpu_nest_begin(w, e.k.body);
    if (e.around)
        gpu_nest_enter(w, e.body);
    gpu_nest_set_result(w, e.at);
    if (w->nest->reds) {
        gpu_nest_open_accumulators(w);
        gpu_nest_reduce_alone(w, w->nest->pars);
        gpu_nest_close_accumulators(w);
    }
    gpu_nest_store_results(w);
    gpu_close_each(&e);
}

/* A warp a result, eight to a block: the result's number, and which of the warp's lanes the thread is. */
static struct loop_stmt *open_warps(struct gpu_nest *w, lx results, lx *at, lx *lane) {
    struct loop_builder *b = w->b;
    int64_t warps = GPU_THREADS / GPU_WARP;
    struct gpu_kernel k = gpu_open(b, w->l->out, gpu_ceil_div(b, results, warps), GPU_THREADS);
    gpu_nest_begin(w, k.body);
    *at = gpu_nest_named(w, "at",
                         lx_add(b, lx_mul(b, k.block, lx_int(b, warps)), lx_div(b, k.thread, lx_int(b, GPU_WARP))));
    *lane = gpu_nest_named(w, "lane_", lx_mod(b, k.thread, lx_int(b, GPU_WARP)));
    struct loop_stmt *inside = loop_if(b, NULL, lx_op(b, I_LT, *at, results));
    gpu_nest_enter(w, &inside->body);
    return inside;
}

static void by_warps(struct gpu_nest *w) {
    struct loop_builder *b = w->b;
    lx at, lane;
    struct loop_stmt *inside = open_warps(w, gpu_nest_extent(w, 0, w->nest->pars), &at, &lane);
    gpu_nest_set_result(w, at);
    struct gpu_terms t = gpu_nest_terms(w);
    gpu_nest_open_accumulators(w);
    gpu_nest_every_term(w, &t, lane, t.all, GPU_WARP);
    gpu_nest_fold_warp(w);
    gpu_nest_close_accumulators(w);
    struct loop_stmt *first = loop_if(b, NULL, lx_op(b, I_EQ, lane, lx_int(b, 0)));
    gpu_nest_enter(w, &first->body);
    gpu_nest_store_results(w);
    gpu_nest_leave(w);
    loop_append(gpu_nest_here(w), first);
    gpu_nest_leave(w);
    loop_append(gpu_nest_here(w), inside);
}

static void by_blocks(struct gpu_nest *w) {
    struct loop_builder *b = w->b;
    struct gpu_kernel k = gpu_open(b, w->l->out, gpu_nest_extent(w, 0, w->nest->pars), GPU_THREADS);
    gpu_nest_begin(w, k.body);
    gpu_nest_set_result(w, k.block);
    struct gpu_terms t = gpu_nest_terms(w);
    gpu_nest_open_accumulators(w);
    gpu_nest_every_term(w, &t, k.thread, t.all, GPU_THREADS);
    gpu_nest_fold_block(w, &k, false);
    gpu_nest_close_accumulators(w);
    struct loop_stmt *first = loop_if(b, NULL, lx_op(b, I_EQ, k.thread, lx_int(b, 0)));
    gpu_nest_enter(w, &first->body);
    gpu_nest_store_results(w);
    gpu_nest_leave(w);
    loop_append(gpu_nest_here(w), first);
}

/* Where the parts' accumulators wait for the second kernel: [part, result]. */
struct parts {
    int64_t count;
    struct loop_mem *values[NEST_MAX], *places[NEST_MAX];
};

static void store_parts(struct gpu_nest *w, const struct parts *p, lx at) {
    for (int i = 0; i < w->nest->acc_count; i++) {
        loop_store(w->b, gpu_nest_here(w), p->values[i], at, lx_var(w->b, w->acc[i]));
        if (p->places[i])
            loop_store(w->b, gpu_nest_here(w), p->places[i], at, lx_var(w->b, w->position[i]));
    }
}

/* The terms of one part: *end is exclusive. */
static lx part_of(struct gpu_nest *w, const struct parts *p, const struct gpu_terms *t, lx part, lx *end) {
    struct loop_builder *b = w->b;
    lx share = gpu_nest_named(w, "share", gpu_ceil_div(b, t->all, p->count));
    lx first = gpu_nest_named(w, "first", lx_mul(b, part, share));
    *end = gpu_nest_named(w, "end", lx_min(b, lx_add(b, first, share), t->all));
    return first;
}

/* A warp a result folds the parts: its lanes take every 32nd. */
static void fold_parts(struct gpu_nest *w, const struct parts *p) {
    struct loop_builder *b = w->b;
    lx results = gpu_nest_extent(w, 0, w->nest->pars), at, lane;
    struct loop_stmt *inside = open_warps(w, results, &at, &lane);
    gpu_nest_open_accumulators(w);
    struct loop_var *part = loop_var_new(b, "part_of", I64, 1);
    struct loop_stmt *s = loop_for(b, NULL, part, lane, lx_int(b, p->count), GPU_WARP, LOOP_SERIAL);
    gpu_nest_enter(w, &s->body);
    lx from = gpu_nest_named(w, "from", lx_add(b, lx_mul(b, lx_var(b, part), results), at));
    for (int i = 0; i < w->nest->acc_count; i++)
        gpu_nest_merge(w, i, lx_load(b, p->values[i], from, 1),
                       p->places[i] ? lx_load(b, p->places[i], from, 1) : NULL);
    gpu_nest_leave(w);
    loop_append(gpu_nest_here(w), s);
    gpu_nest_fold_warp(w);
    struct loop_stmt *first = loop_if(b, NULL, lx_op(b, I_EQ, lane, lx_int(b, 0)));
    gpu_nest_enter(w, &first->body);
    gpu_nest_set_result(w, at);
    gpu_nest_close_accumulators(w);
    gpu_nest_store_results(w);
    gpu_nest_leave(w);
    loop_append(gpu_nest_here(w), first);
    gpu_nest_leave(w);
    loop_append(gpu_nest_here(w), inside);
}

static void in_parts(struct gpu_nest *w, bool blocks, int64_t count) {
    struct loop_builder *b = w->b;
    struct parts p = {.count = count};
    for (int i = 0; i < w->nest->acc_count; i++) {
        const struct ir_acc *a = &w->nest->accs[i];
        p.values[i] = w->l->workspace(w->l->context, w->l->out, "parts", a->body->dtype, count * w->results);
        if (lower_is_arg(a->op))
            p.places[i] = w->l->workspace(w->l->context, w->l->out, "places", I64, count * w->results);
    }
    lx results = gpu_nest_extent(w, 0, w->nest->pars), end;
    lx all = lx_mul(b, results, lx_int(b, count));
    if (blocks) {
        struct gpu_kernel k = gpu_open(b, w->l->out, all, GPU_THREADS);
        gpu_nest_begin(w, k.body);
        gpu_nest_set_result(w, gpu_nest_named(w, "at", lx_mod(b, k.block, results)));
        struct gpu_terms t = gpu_nest_terms(w);
        lx first = part_of(w, &p, &t, gpu_nest_named(w, "part_of", lx_div(b, k.block, results)), &end);
        gpu_nest_open_accumulators(w);
        gpu_nest_every_term(w, &t, lx_add(b, first, k.thread), end, GPU_THREADS);
        gpu_nest_fold_block(w, &k, false);
        struct loop_stmt *zero = loop_if(b, NULL, lx_op(b, I_EQ, k.thread, lx_int(b, 0)));
        gpu_nest_enter(w, &zero->body);
        store_parts(w, &p, k.block);
        gpu_nest_leave(w);
        loop_append(gpu_nest_here(w), zero);
    } else {
        struct gpu_each e = gpu_open_each(b, w->l->out, all, w->results * count, "each");
        gpu_nest_begin(w, e.k.body);
        if (e.around)
            gpu_nest_enter(w, e.body);
        gpu_nest_set_result(w, gpu_nest_named(w, "at", lx_mod(b, e.at, results)));
        struct gpu_terms t = gpu_nest_terms(w);
        lx first = part_of(w, &p, &t, gpu_nest_named(w, "part_of", lx_div(b, e.at, results)), &end);
        gpu_nest_open_accumulators(w);
        gpu_nest_every_term(w, &t, first, end, 1);
        store_parts(w, &p, e.at);
        gpu_close_each(&e);
    }
    memset(w->position, 0, sizeof w->position);
    fold_parts(w, &p);
}

/* ---- element writes ------------------------------------------------------------------------------------------------------ */

/* Whether different values of a parallel index alone give different values of e. */
static bool stands_alone(const struct gpu_nest *w, ir_expr e, int par) {
    ir_dim coefficients[NEST_MAX], constant;
    int total = w->nest->pars + w->nest->reds;
    int64_t c;
    if (e->kind == X_INDEX)
        return e->index == par;
    if (total > NEST_MAX || !ir_expr_affine(w->l->module, e, total, coefficients, &constant))
        return false;
    for (int q = 0; q < total; q++)
        if (!ir_dim_is_const(coefficients[q], &c) || (c != 0) != (q == par))
            return false;
    return true;
}

/* The subscript in which a parallel index stands alone, the same in all results that are written by element; -1: none does. */
static int own_subscript(const struct gpu_nest *w, int par) {
    int own = -1;
    for (int r = 0; r < w->l->op->result_count; r++) {
        const struct ir_nest_result *result = &w->nest->results[r];
        int found = -1;
        if (result->base < 0)
            continue;
        for (int d = 0; d < w->l->op->results[r]->type.rank; d++)
            if (stands_alone(w, result->target[d], par))
                found = d;
        if (found < 0 || (own >= 0 && own != found))
            return -1;
        own = found;
    }
    return own;
}

/* The address of result r in what the free indices do not choose. */
static lx met_address(struct gpu_nest *w, int r, uint32_t free_subscripts) {
    struct ir_module *m = w->l->module;
    struct ir_type t = w->l->op->results[r]->type;
    lx sum = lx_int(w->b, 0);
    for (int d = 0; d < t.rank; d++)
        if (!(free_subscripts >> d & 1)) {
            ir_dim stride = ir_dim_const(m, 1);
            for (int k = d + 1; k < t.rank; k++)
                if (!(free_subscripts >> k & 1))
                    stride = ir_dim_mul(m, stride, t.dims[k]);
            sum = lx_add(w->b, sum,
                         lx_mul(w->b, nest_index(&w->n, w->nest->results[r].target[d]), nest_dim(&w->n, stride)));
        }
    return sum;
}

static void write_one(struct gpu_nest *w) {
    if (w->nest->reds) {
        gpu_nest_open_accumulators(w);
        gpu_nest_reduce_alone(w, w->nest->pars);
        gpu_nest_close_accumulators(w);
    }
    gpu_nest_store_results(w);
}

static void in_order(struct gpu_nest *w, const int *list, int count, int i, uint32_t free_subscripts, lx owner,
                     int64_t owners) {
    struct loop_builder *b = w->b;
    if (i < count) {
        const struct ir_nest_index *x = &w->nest->indices[list[i]];
        struct loop_block *parent = gpu_nest_here(w);
        struct loop_var *v = loop_var_new(b, x->name, I64, 1);
        struct loop_stmt *s = loop_for(b, NULL, v, lx_int(b, 0), nest_dim(&w->n, x->extent), 1, LOOP_SERIAL);
        gpu_nest_enter(w, &s->body);
        nest_scope_set(&w->n, list[i], lx_var(b, v), w->n.depth);
        in_order(w, list, count, i + 1, free_subscripts, owner, owners);
        gpu_nest_leave(w);
        loop_append(parent, s);
        return;
    }
    if (owners == 1) {
        write_one(w);
        return;
    }
    int r = 0;
    while (w->nest->results[r].base < 0)
        r++;
    lx whose = lx_op(b, I_FMOD, gpu_nest_named(w, "place", met_address(w, r, free_subscripts)), lx_int(b, owners));
    struct loop_stmt *mine = loop_if(b, NULL, lx_op(b, I_EQ, whose, owner));
    gpu_nest_enter(w, &mine->body);
    write_one(w);
    gpu_nest_leave(w);
    loop_append(gpu_nest_here(w), mine);
}

/* Whether all results that are written by element are written in the same place. */
static bool one_place(const struct gpu_nest *w) {
    int first = -1;
    for (int r = 0; r < w->l->op->result_count; r++) {
        const struct ir_nest_result *result = &w->nest->results[r];
        struct ir_type t = w->l->op->results[r]->type;
        if (result->base < 0)
            continue;
        if (first < 0) {
            first = r;
            continue;
        }
        struct ir_type u = w->l->op->results[first]->type;
        if (t.rank != u.rank)
            return false;
        for (int d = 0; d < t.rank; d++)
            if (t.dims[d] != u.dims[d] || result->target[d] != w->nest->results[first].target[d])
                return false;
    }
    return true;
}

static void by_owners(struct gpu_nest *w) {
    struct loop_builder *b = w->b;
    int pars = w->nest->pars, free_list[NEST_MAX], met[NEST_MAX], frees = 0, mets = 0;
    uint32_t subscripts = 0;
    double dealt = 1, meeting = 1;
    lx extent[NEST_MAX], all = lx_int(b, 1);
    for (int i = 0; i < pars; i++) {
        int d = own_subscript(w, i);
        if (d >= 0 && !(subscripts >> d & 1)) {
            subscripts |= 1u << d;
            extent[frees] = gpu_nest_extent(w, i, 1);
            all = lx_mul(b, all, extent[frees]);
            free_list[frees++] = i;
            dealt *= (double)ir_dim_upper(w->nest->indices[i].extent);
        } else {
            meeting *= (double)ir_dim_upper(w->nest->indices[i].extent);
            met[mets++] = i;
        }
    }
    /* Owners share the iterations that meet: enough to fill the machine, no more than there are iterations. */
    int64_t owners = 1;
    while (mets && one_place(w) && owners < 1024 && (double)owners * dealt < 16384 && (double)(2 * owners) <= meeting)
        owners *= 2;
    struct gpu_each e = gpu_open_each(b, w->l->out, lx_mul(b, all, lx_int(b, owners)),
                                      (int64_t)(dealt < 1e15 ? dealt : 1e15) * owners, "each");
    gpu_nest_begin(w, e.k.body);
    if (e.around)
        gpu_nest_enter(w, e.body);
    lx owner = owners > 1 ? gpu_nest_named(w, "owner", lx_div(b, e.at, all)) : NULL;
    if (frees)
        gpu_nest_set_position(w, free_list, frees, extent, NULL,
                              owners > 1 ? gpu_nest_named(w, "at", lx_mod(b, e.at, all)) : e.at);
    in_order(w, met, mets, 0, subscripts, owner, owners);
    gpu_close_each(&e);
}

/* ---- choice ------------------------------------------------------------------------------------------------------------ */

struct score {
    struct lower *l;
    int index;
    int64_t unit, far;
};

static void score_load(ir_expr e, void *context) {
    struct score *s = context;
    int64_t stride;
    if (e->kind != X_LOAD)
        return;
    if (!nest_stride(s->l, e, s->index, &stride) || (stride != 0 && stride != 1))
        s->far++;
    else if (stride == 1)
        s->unit++;
}

/* Whether neighbours along the last reduction index lie closer together than those along the last parallel one. */
static bool walks_along(const struct gpu_nest *w) {
    int64_t score[2];
    for (int k = 0; k < 2; k++) {
        struct score s = {.l = w->l, .index = w->nest->pars + (k ? w->nest->reds : 0) - 1};
        if (s.index < 0)
            return true;
        for (int i = 0; i < w->nest->acc_count; i++)
            ir_expr_walk(w->nest->accs[i].body, score_load, &s);
        score[k] = s.unit - 2 * s.far;
    }
    return score[1] >= score[0];
}

static enum gpu_schedule schedule_of(const struct gpu_nest *w, int64_t *parts) {
    bool along = walks_along(w);
    *parts = 1;
    if (w->terms <= ALONE_TERMS || !gpu_nest_is_rectangle(w->nest) || (w->results >= MANY_RESULTS && !along))
        return GPU_BY_THREADS;
    /* Enough threads for the machine: parts of at least so many terms. */
    int64_t want = MANY_RESULTS / (along ? GPU_WARP : 1), least = along ? SPLIT_TERMS : ALONE_TERMS * 2;
    while (*parts < SPLIT_PARTS && *parts * w->results < want && w->terms / (2 * *parts) >= least)
        *parts *= 2;
    if (*parts > 1)
        return along ? GPU_IN_PARTS_BY_BLOCKS : GPU_IN_PARTS;
    if (!along && w->terms <= WARP_TERMS / 4)
        return GPU_BY_THREADS;
    return w->terms <= WARP_TERMS ? GPU_BY_WARPS : GPU_BY_BLOCKS;
}

static void size_up(struct gpu_nest *w) {
    w->results = gpu_nest_upper(w->nest, 0, w->nest->pars);
    w->terms = gpu_nest_upper(w->nest, w->nest->pars, w->nest->reds);
}

enum gpu_schedule gpu_reduction_schedule(struct ir_module *m, struct ir_op *op) {
    struct lower l = {.module = m, .op = op};
    struct gpu_nest w = {.l = &l, .nest = &op->nest};
    int64_t parts;
    size_up(&w);
    return schedule_of(&w, &parts);
}

static void reduce(struct gpu_nest *w) {
    int64_t parts;
    switch (schedule_of(w, &parts)) {
    case GPU_BY_THREADS: serial(w); break;
    case GPU_BY_WARPS: by_warps(w); break;
    case GPU_BY_BLOCKS: by_blocks(w); break;
    case GPU_IN_PARTS: in_parts(w, false, parts); break;
    case GPU_IN_PARTS_BY_BLOCKS: in_parts(w, true, parts); break;
    }
}

void lower_gpu_nest(struct lower *l) {
    struct gpu_nest *w = arena_alloc(l->b->arena, sizeof *w);
    memset(w, 0, sizeof *w);
    w->l = l;
    w->b = l->b;
    w->nest = &l->op->nest;
    for (int r = 0; r < l->op->result_count; r++)
        w->updates |= w->nest->results[r].base >= 0;
    size_up(w);
    w->flat_pars = w->updates || w->nest->pars == 0 ? 1 : lower_flat_count(l, 0, w->nest->pars);
    l->flops += nest_flops(w->nest, l->op->result_count);
    if (w->updates)
        by_owners(w);
    else if (w->nest->reds)
        reduce(w);
    else if (!lower_gpu_transposed(w) && !by_fours(w))
        serial(w);
}
