/* The inside of a kernel for one nest: see gpu_nest.h. */
#include "passes/gpu_nest.h"

#include <string.h>

/* ---- indices ---------------------------------------------------------------------------------------------------------- */

int64_t gpu_nest_upper(const struct ir_nest *nest, int first, int count) {
    double n = 1;
    for (int i = first; i < first + count; i++)
        n *= (double)ir_dim_upper(nest->indices[i].extent);
    return n < 4e18 ? (int64_t)n : (int64_t)4e18;
}

lx gpu_nest_extent(struct gpu_nest *w, int first, int count) {
    ir_dim d = ir_dim_const(w->l->module, 1);
    for (int i = first; i < first + count; i++)
        d = ir_dim_mul(w->l->module, d, w->nest->indices[i].extent);
    return lx_dim(w->b, d, w->l->symbol, w->l->context);
}

struct loop_block *gpu_nest_here(struct gpu_nest *w) {
    return w->n.block[w->n.depth];
}

lx gpu_nest_named(struct gpu_nest *w, const char *name, lx e) {
    return gpu_named(w->b, gpu_nest_here(w), name, e);
}

/* Sets the `count` indices of list, row-major, to position `at` among their extents; lo: their first values, NULL: 0. */
void gpu_nest_set_position(struct gpu_nest *w, const int *list, int count, const lx *extent, const lx *lo, lx at) {
    for (int i = count; i-- > 0;) {
        lx value = i > 0 ? lx_mod(w->b, at, extent[i]) : at;
        if (lo)
            value = lx_add(w->b, lo[i], value);
        nest_scope_set(&w->n, list[i], gpu_nest_named(w, w->nest->indices[list[i]].name, value), w->n.depth);
        if (i > 0)
            at = gpu_nest_named(w, "rest", lx_div(w->b, at, extent[i]));
    }
}

/* Sets all parallel indices to result number `at`. */
void gpu_nest_set_result(struct gpu_nest *w, lx at) {
    int pars = w->nest->pars, q = w->flat_pars > 1 ? w->flat_pars : 1, list[NEST_MAX], count = 0;
    lx extent[NEST_MAX];
    if (!pars)
        return;
    for (int i = 0; i <= pars - q; i++) {
        extent[count] = gpu_nest_extent(w, i, i == pars - q ? q : 1);
        list[count++] = i == pars - q ? pars - 1 : i;
    }
    for (int i = pars - q; i < pars - 1; i++)
        nest_scope_set(&w->n, i, lx_int(w->b, 0), 0);
    gpu_nest_set_position(w, list, count, extent, NULL, at);
}

void gpu_nest_enter(struct gpu_nest *w, struct loop_block *k) {
    nest_scope_enter(&w->n, w->n.depth + 1, k, false);
}

void gpu_nest_leave(struct gpu_nest *w) {
    w->n.depth--;
}

/* A scope whose outermost block is the body of a kernel's thread. */
void gpu_nest_begin(struct gpu_nest *w, struct loop_block *body) {
    nest_scope_init(&w->n, w->l);
    nest_scope_enter(&w->n, 0, body, true);
}

/* ---- accumulators ----------------------------------------------------------------------------------------------------- */

void gpu_nest_open_accumulators(struct gpu_nest *w) {
    for (int i = 0; i < w->nest->acc_count; i++) {
        const struct ir_acc *a = &w->nest->accs[i];
        w->acc[i] = loop_var_new(w->b, reduce_names[a->op], a->body->dtype, 1);
        w->acc[i]->is_mutable = true;
        loop_def(w->b, gpu_nest_here(w), w->acc[i], lower_identity(w->b, a->op, a->body->dtype));
        if (!lower_is_arg(a->op))
            continue;
        w->position[i] = loop_var_new(w->b, "position", I64, 1);
        w->position[i]->is_mutable = true;
        loop_def(w->b, gpu_nest_here(w), w->position[i], lx_int(w->b, -1));
    }
}

/* The term of the indices as they are set. */
void gpu_nest_accumulate(struct gpu_nest *w) {
    for (int i = 0; i < w->nest->acc_count; i++) {
        const struct ir_acc *a = &w->nest->accs[i];
        lx value = nest_value(&w->n, a->body);
        if (lower_is_arg(a->op))
            lower_extremum(&w->n, a->op, w->acc[i], w->position[i], value,
                           nest_index(&w->n, ir_nest_position(w->l->module, w->nest)));
        else
            loop_set(w->b, gpu_nest_here(w), w->acc[i], NULL,
                     lower_combine(w->b, a->op, lx_var(w->b, w->acc[i]), value));
    }
}

/* Takes in what another thread has, x from position p: of equal extrema the earlier one. */
void gpu_nest_merge(struct gpu_nest *w, int i, lx x, lx p) {
    struct loop_builder *b = w->b;
    enum reduce_op op = w->nest->accs[i].op;
    struct loop_block *k = gpu_nest_here(w);
    if (!lower_is_arg(op)) {
        loop_set(b, k, w->acc[i], NULL, lower_combine(b, op, lx_var(b, w->acc[i]), x));
        return;
    }
    x = gpu_nest_named(w, "other", x);
    p = gpu_nest_named(w, "other_position", p);
    lx best = lx_var(b, w->acc[i]), at = lx_var(b, w->position[i]), none = lx_int(b, 0);
    lx better = op == RED_ARGMAX ? lx_fn2(b, FN_lt, best, x) : lx_fn2(b, FN_lt, x, best),
       equal = lx_fn2(b, FN_eq, x, best);
    if (dtype_is_float(x->dtype)) {
        lx nan_x = lx_fn(b, FN_isnan, BOOL, 1, &x), nan_best = lx_fn(b, FN_isnan, BOOL, 1, &best);
        better = lx_op(b, I_OR, better, lx_op(b, I_AND, nan_x, lx_op(b, I_NOT, nan_best, NULL)));
        equal = lx_op(b, I_OR, equal, lx_op(b, I_AND, nan_x, nan_best));
    }
    better = lx_op(b, I_OR, better, lx_op(b, I_AND, equal, lx_op(b, I_LT, p, at)));
    better = lx_op(b, I_OR, lx_op(b, I_LT, at, none), better);
    struct loop_stmt *s = loop_if(b, k, lx_op(b, I_AND, lx_op(b, I_LE, none, p), better));
    loop_set(b, &s->body, w->acc[i], NULL, x);
    loop_set(b, &s->body, w->position[i], NULL, p);
}

/* Over the lanes of a warp; all lanes get the whole. */
void gpu_nest_fold_warp(struct gpu_nest *w) {
    struct loop_builder *b = w->b;
    for (int bits = GPU_WARP / 2; bits > 0; bits /= 2)
        for (int i = 0; i < w->nest->acc_count; i++)
            gpu_nest_merge(w, i, lx_shuffle(b, lx_var(b, w->acc[i]), bits),
                           w->position[i] ? lx_shuffle(b, lx_var(b, w->position[i]), bits) : NULL);
}

void gpu_nest_fold_block(struct gpu_nest *w, struct gpu_kernel *k, bool all) {
    struct loop_builder *b = w->b;
    int warps = k->count / GPU_WARP;
    struct loop_mem *values[NEST_MAX], *places[NEST_MAX] = {0};
    gpu_nest_fold_warp(w);
    struct loop_stmt *first = loop_if(b, NULL, lx_op(b, I_EQ, lx_mod(b, k->thread, lx_int(b, GPU_WARP)), lx_int(b, 0)));
    lx warp = lx_div(b, k->thread, lx_int(b, GPU_WARP)), zero = lx_int(b, 0);
    for (int i = 0; i < w->nest->acc_count; i++) {
        values[i] = gpu_shared(k, reduce_names[w->nest->accs[i].op], w->acc[i]->dtype, warps);
        loop_store(b, &first->body, values[i], warp, lx_var(b, w->acc[i]));
        if (w->position[i]) {
            places[i] = gpu_shared(k, "positions", I64, warps);
            loop_store(b, &first->body, places[i], warp, lx_var(b, w->position[i]));
        }
    }
    loop_append(gpu_nest_here(w), first);
    loop_barrier(b, gpu_nest_here(w));
    struct loop_var *v = loop_var_new(b, "warp", I64, 1);
    struct loop_stmt *one = all ? NULL : loop_if(b, NULL, lx_op(b, I_EQ, k->thread, zero));
    struct loop_stmt *each = loop_for(b, NULL, v, lx_int(b, 1), lx_int(b, warps), 1, LOOP_SERIAL);
    if (one)
        gpu_nest_enter(w, &one->body);
    for (int i = 0; all && i < w->nest->acc_count; i++) {
        loop_set(b, gpu_nest_here(w), w->acc[i], NULL, lx_load(b, values[i], zero, 1));
        if (places[i])
            loop_set(b, gpu_nest_here(w), w->position[i], NULL, lx_load(b, places[i], zero, 1));
    }
    gpu_nest_enter(w, &each->body);
    for (int i = 0; i < w->nest->acc_count; i++)
        gpu_nest_merge(w, i, lx_load(b, values[i], lx_var(b, v), 1),
                       places[i] ? lx_load(b, places[i], lx_var(b, v), 1) : NULL);
    gpu_nest_leave(w);
    loop_append(gpu_nest_here(w), each);
    if (one) {
        gpu_nest_leave(w);
        loop_append(gpu_nest_here(w), one);
    }
}

void gpu_nest_close_accumulators(struct gpu_nest *w) {
    for (int i = 0; i < w->nest->acc_count; i++) {
        w->n.acc[i] = lx_var(w->b, w->acc[i]);
        if (w->position[i])
            w->n.acc[i] = lx_cast(w->b, I32, lx_op(w->b, I_MAX, lx_var(w->b, w->position[i]), lx_int(w->b, 0)));
    }
}

/* All values are computed before the first store, which may overwrite an operand. */
void gpu_nest_store_results(struct gpu_nest *w) {
    lx values[NEST_MAX];
    int count = w->l->op->result_count;
    for (int r = 0; r < count; r++) {
        values[r] = nest_value(&w->n, w->nest->results[r].value);
        if (count > 1)
            values[r] = gpu_nest_named(w, "value", values[r]);
    }
    for (int r = 0; r < count; r++)
        nest_store(&w->n, r, values[r]);
}

/* ---- terms ------------------------------------------------------------------------------------------------------------ */

bool gpu_nest_is_rectangle(const struct ir_nest *nest) {
    uint32_t inner = ((1u << nest->reds) - 1) << nest->pars;
    for (int i = nest->pars; i < nest->pars + nest->reds; i++)
        if ((nest_uses(nest->indices[i].lo) | nest_uses(nest->indices[i].hi)) & inner)
            return false;
    return true;
}

struct gpu_terms gpu_nest_terms(struct gpu_nest *w) {
    struct gpu_terms t = {.all = lx_int(w->b, 1)};
    int first = w->nest->pars, end = first + w->nest->reds, q = lower_flat_count(w->l, first, w->nest->reds);
    for (int i = first; i < end; i++) {
        const struct ir_nest_index *x = &w->nest->indices[i];
        bool flat = q > 1 && i == end - q;
        lx lo = nest_index(&w->n, x->lo);
        lx extent = flat ? gpu_nest_extent(w, i, q) : lx_sub(w->b, nest_index(&w->n, x->hi), lo);
        int64_t exact;
        if (lx_is_int(extent, &exact))
            extent = lx_int(w->b, exact < 0 ? 0 : exact);
        else if (!flat)
            extent = gpu_nest_named(w, "extent", lx_op(w->b, I_MAX, extent, lx_int(w->b, 0)));
        t.lo[t.count] = lo;
        t.extent[t.count] = extent;
        t.list[t.count++] = flat ? end - 1 : i;
        t.all = lx_mul(w->b, t.all, extent);
        if (flat) {
            for (int z = i; z < end - 1; z++)
                nest_scope_set(&w->n, z, lx_int(w->b, 0), 0);
            break;
        }
    }
    t.all = gpu_nest_named(w, "terms", t.all);
    return t;
}

struct loop_stmt *gpu_nest_each_term(struct gpu_nest *w, const struct gpu_terms *t, lx first, lx end, int64_t step) {
    struct loop_var *v = loop_var_new(w->b, t->count == 1 ? w->nest->indices[t->list[0]].name : "term", I64, 1);
    struct loop_stmt *s = loop_for(w->b, NULL, v, first, end, step, LOOP_SERIAL);
    gpu_nest_enter(w, &s->body);
    gpu_nest_set_position(w, t->list, t->count, t->extent, t->lo, lx_var(w->b, v));
    return s;
}

void gpu_nest_every_term(struct gpu_nest *w, const struct gpu_terms *t, lx first, lx end, int64_t step) {
    struct loop_stmt *s = gpu_nest_each_term(w, t, first, end, step);
    gpu_nest_accumulate(w);
    gpu_nest_leave(w);
    loop_append(gpu_nest_here(w), s);
}

/* All terms by one thread, as nested loops from reduction index i on. */
void gpu_nest_reduce_alone(struct gpu_nest *w, int i) {
    if (i == w->nest->pars + w->nest->reds) {
        gpu_nest_accumulate(w);
        return;
    }
    const struct ir_nest_index *x = &w->nest->indices[i];
    struct loop_block *parent = gpu_nest_here(w);
    struct loop_var *v = loop_var_new(w->b, x->name, I64, 1);
    struct loop_stmt *s = loop_for(w->b, NULL, v, nest_index(&w->n, x->lo), nest_index(&w->n, x->hi), 1, LOOP_SERIAL);
    gpu_nest_enter(w, &s->body);
    nest_scope_set(&w->n, i, lx_var(w->b, v), w->n.depth);
    gpu_nest_reduce_alone(w, i + 1);
    gpu_nest_leave(w);
    loop_append(parent, s);
}
