/* Elementwise nests that read an operand across: neighbours along the nest's last index lie far apart in it, and neighbours along another
 * index p side by side. A block makes a square of 32 of each: its threads read along p into shared memory and, behind a barrier, take from
 * there what they need along the last index, so that reads and writes both are of whole lines. A row of the tile is one element longer
 * than it need be, or all lanes would ask one bank. */
#include "passes/gpu_nest.h"

enum { SIDE = 32, PITCH = SIDE + 1, STEP = GPU_THREADS / SIDE, MOST_LOADS = 4, LEAST_SIDE = 16, LEAST_ELEMENTS = 4096 };

struct transposed {
    struct gpu_nest *w;
    int p; /* -1: none yet */
    ir_expr loads[MOST_LOADS];
    struct loop_mem *tiles[MOST_LOADS];
    int count;
};

static void see_load(ir_expr e, void *context) {
    struct transposed *t = context;
    struct lower *l = t->w->l;
    int last = t->w->nest->pars - 1, p = -1;
    int64_t stride;
    if (e->kind != X_LOAD || e->guarded || !nest_stride(l, e, last, &stride) || stride == 0 || stride == 1)
        return;
    for (int q = 0; q < last; q++)
        if (nest_stride(l, e, q, &stride) && stride == 1)
            p = q;
    if (p < 0 || (t->p >= 0 && t->p != p))
        return;
    for (int i = 0; i < t->count; i++)
        if (t->loads[i] == e)
            return;
    if (t->count == MOST_LOADS)
        return;
    t->p = p;
    t->loads[t->count++] = e;
}

struct square { /* where the block's is, and the thread in it */
    lx first_p, first_last, along, across, extent_p, extent_last;
};

/* The thread's elements, in a loop: tile subscripts [across, along]. Ends in the body, which the caller leaves twice. */
struct walk {
    struct loop_stmt *each, *inside;
    lx at; /* across + the step of the loop */
};

static struct walk open_walk(struct transposed *t, const struct square *s, bool reads) {
    struct gpu_nest *w = t->w;
    struct loop_builder *b = w->b;
    struct loop_var *v = loop_var_new(b, "step", I64, 1);
    struct walk k = {.each = loop_for(b, NULL, v, lx_int(b, 0), lx_int(b, SIDE), STEP, LOOP_UNROLL)};
    int last = w->nest->pars - 1;
    gpu_nest_enter(w, &k.each->body);
    k.at = gpu_nest_named(w, "across", lx_add(b, s->across, lx_var(b, v)));
    lx p = gpu_nest_named(w, w->nest->indices[t->p].name, lx_add(b, s->first_p, reads ? s->along : k.at));
    lx l = gpu_nest_named(w, w->nest->indices[last].name, lx_add(b, s->first_last, reads ? k.at : s->along));
    k.inside = loop_if(b, NULL, lx_op(b, I_AND, lx_op(b, I_LT, p, s->extent_p), lx_op(b, I_LT, l, s->extent_last)));
    gpu_nest_enter(w, &k.inside->body);
    nest_scope_set(&w->n, t->p, p, w->n.depth);
    nest_scope_set(&w->n, last, l, w->n.depth);
    return k;
}

static void close_walk(struct gpu_nest *w, const struct walk *k) {
    gpu_nest_leave(w);
    loop_append(gpu_nest_here(w), k->inside);
    gpu_nest_leave(w);
    loop_append(gpu_nest_here(w), k->each);
}

static lx tile_at(struct loop_builder *b, lx across, lx along) {
    return lx_add(b, lx_mul(b, across, lx_int(b, PITCH)), along);
}

bool lower_gpu_transposed(struct gpu_nest *w) {
    struct loop_builder *b = w->b;
    int pars = w->nest->pars, last = pars - 1, list[NEST_MAX], lists = 0;
    struct transposed t = {.w = w, .p = -1};
    lx extent[NEST_MAX], blocks = lx_int(b, 1), side = lx_int(b, SIDE);
    if (pars < 2 || w->results < LEAST_ELEMENTS)
        return false;
    for (int r = 0; r < w->l->op->result_count; r++)
        ir_expr_walk(w->nest->results[r].value, see_load, &t);
    if (!t.count || gpu_nest_upper(w->nest, t.p, 1) < LEAST_SIDE || gpu_nest_upper(w->nest, last, 1) < LEAST_SIDE)
        return false;
    for (int i = 0; i < last; i++)
        if (i != t.p) {
            extent[lists] = gpu_nest_extent(w, i, 1);
            blocks = lx_mul(b, blocks, extent[lists]);
            list[lists++] = i;
        }
    struct square s = {.extent_p = gpu_nest_extent(w, t.p, 1), .extent_last = gpu_nest_extent(w, last, 1)};
    lx squares_p = gpu_ceil_div(b, s.extent_p, SIDE), squares_last = gpu_ceil_div(b, s.extent_last, SIDE);
    struct gpu_kernel k = gpu_open(b, w->l->out, lx_mul(b, lx_mul(b, blocks, squares_p), squares_last), GPU_THREADS);
    for (int i = 0; i < t.count; i++)
        t.tiles[i] = gpu_shared(
            &k, w->l->op->operands[t.loads[i]->index]->name ? w->l->op->operands[t.loads[i]->index]->name : "tile",
            t.loads[i]->dtype, SIDE * PITCH);
    gpu_nest_begin(w, k.body);
    lx rest = gpu_nest_named(w, "rest", lx_div(b, k.block, squares_last));
    s.first_last = gpu_nest_named(w, "first_last", lx_mul(b, lx_mod(b, k.block, squares_last), side));
    s.first_p = gpu_nest_named(w, "first", lx_mul(b, lx_mod(b, rest, squares_p), side));
    s.along = gpu_nest_named(w, "along", lx_mod(b, k.thread, side));
    s.across = gpu_nest_named(w, "row", lx_div(b, k.thread, side));
    gpu_nest_set_position(w, list, lists, extent, NULL,
                          lists ? gpu_nest_named(w, "rest", lx_div(b, rest, squares_p)) : rest);
    struct walk in = open_walk(&t, &s, true);
    for (int i = 0; i < t.count; i++)
        loop_store(b, gpu_nest_here(w), t.tiles[i], tile_at(b, in.at, s.along), nest_value(&w->n, t.loads[i]));
    close_walk(w, &in);
    loop_barrier(b, k.body);
    struct walk out = open_walk(&t, &s, false);
    for (int i = 0; i < t.count; i++)
        nest_scope_give(&w->n, t.loads[i], lx_load(b, t.tiles[i], tile_at(b, s.along, out.at), 1));
    gpu_nest_store_results(w);
    close_walk(w, &out);
    return true;
}
