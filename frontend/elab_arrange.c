/* Views and assembly: reshape, transpose, broadcast, concat; lengths that are found at run time. */

#include "frontend/elab.h"

/* ---- views and assembly -------------------------------------------------------------------------------------------------------- */

struct val elab_reshape(struct elab *e, struct val v, struct val shape, struct span at) {
    struct ir_value *x = elab_materialize(e, v, DTYPE_COUNT, at);
    if (!x || shape.kind == VAL_ERROR)
        return val_error;
    struct val one;
    if (shape.kind == VAL_INT || shape.kind == VAL_DIM) {
        one = shape;
        shape = val_list_new(e, 1);
        shape.list->items[0] = one;
    }
    if (shape.kind != VAL_LIST || shape.list->count > 31) {
        elab_error(e, E_reshape_size, at, "the shape of reshape must be a list of dimensions");
        return val_error;
    }
    ir_dim dims[32], product = ir_dim_const(e->module, 1), total = ir_type_elements(e->module, x->type);
    int free_axis = -1, n = shape.list->count;
    for (int i = 0; i < n; i++) {
        struct val s = shape.list->items[i];
        if (s.kind == VAL_INT && s.i == -1) {
            if (free_axis >= 0) {
                elab_error(e, E_reshape_size, at, "only one dimension of reshape may be -1");
                return val_error;
            }
            free_axis = i;
            continue;
        }
        if (!val_as_dim(e, s, &dims[i])) {
            struct diagnostic *d =
                elab_error(e, E_reshape_size, at, "the shape of reshape must be a list of dimensions");
            elab_label(e, d, "%s", val_describe(e, s));
            return val_error;
        }
        product = ir_dim_mul(e->module, product, dims[i]);
    }
    if (free_axis >= 0) {
        dims[free_axis] = ir_dim_div(e->module, total, product);
        product = ir_dim_mul(e->module, product, dims[free_axis]);
    }
    if (!elab_dims_equal(e, product, total, at)) {
        struct diagnostic *d = elab_error(e, E_reshape_size, at, "the number of elements changes in reshape");
        elab_label(e, d, "%s has %s elements, the new shape %s%s", type_text(e, x->type), dim_text(e, total),
                   free_axis >= 0 ? "a multiple of " : "", dim_text(e, product));
        return val_error;
    }
    return elab_from_value(e, ir_build_reshape(&e->b, x, n, dims));
}

struct val elab_transpose(struct elab *e, struct val v, const int *perm, struct span at) {
    struct ir_value *x = elab_materialize(e, v, DTYPE_COUNT, at);
    if (!x)
        return val_error;
    int rank = x->type.rank, pars[32];
    ir_expr index[32];
    for (int d = 0; d < rank; d++) {
        pars[d] = elab_new_index(e, arena_printf(e->arena, "i%d", d), x->type.dims[perm[d]]);
        index[perm[d]] = ir_index(e->module, pars[d]);
    }
    struct nest_spec n = {.pars = pars, .par_count = rank, .span = at};
    n.body = ir_load(e->module, elab_slot(e, x), x->type.dtype, rank, index, NULL);
    return elab_from_value(e, elab_form_nest(e, &n, NULL));
}

struct val elab_full(struct elab *e, struct ir_type t, struct val v, struct span at) {
    ir_expr x = elab_scalar(e, v, t.dtype, at);
    if (!x)
        return val_error;
    if (expr_has_index(e, x)) {
        elab_error(e, E_index_body, at, "a value that depends on an index variable is needed in memory here");
        return val_error;
    }
    if (t.rank == 0)
        return val_scalar(x);
    int pars[32];
    for (int d = 0; d < t.rank; d++)
        pars[d] = elab_new_index(e, arena_printf(e->arena, "i%d", d), t.dims[d]);
    struct nest_spec n = {.pars = pars, .par_count = t.rank, .body = elab_hoisted(e, x, at), .span = at};
    return elab_from_value(e, elab_form_nest(e, &n, NULL));
}

struct ir_value *elab_broadcast(struct elab *e, struct val v, struct ir_type t, struct span at, const char *what) {
    if (v.kind == VAL_BUFFER)
        v = cell_read(e, v.cell);
    if (v.kind == VAL_ERROR)
        return NULL;
    if (v.kind == VAL_LIST) /* its numbers take the type of what they are assigned to */
        v = elab_concat(e, v.list, -1, t.dtype, at);
    if (v.kind == VAL_ERROR)
        return NULL;
    if (v.kind != VAL_TENSOR && v.kind != VAL_LAZY) {
        if (!val_is_runtime(v) && !val_is_number(v) && v.kind != VAL_BOOL) {
            struct diagnostic *d = elab_error(e, E_type_mismatch, at, "%s is %s", what, type_text(e, t));
            elab_label(e, d, "%s", val_describe(e, v));
            return NULL;
        }
        struct val full = elab_full(e, t, v, at);
        return full.kind == VAL_ERROR ? NULL : elab_materialize(e, full, t.dtype, at);
    }
    struct ir_value *x = elab_materialize(e, v, DTYPE_COUNT, at);
    if (!x)
        return NULL;
    if (ir_type_equal(x->type, t))
        return x;
    bool fits = x->type.rank <= t.rank;
    bool same = x->type.rank == t.rank;
    for (int d = 1; fits && d <= x->type.rank; d++) {
        ir_dim a = x->type.dims[x->type.rank - d], b = t.dims[t.rank - d];
        fits = dim_is_one(a) || elab_dims_equal(e, a, b, at);
        same = same && a == b;
    }
    if (x->type.dtype != t.dtype && fits) {
        struct diagnostic *d = elab_error(e, E_implicit_conversion, at, "%s is %s, the value %s", what, type_text(e, t),
                                          type_text(e, x->type));
        elab_help(e, d, "there is no implicit conversion: %s(…)", dtype_name(t.dtype));
        return NULL;
    }
    if (!fits) {
        struct diagnostic *d = elab_error(e, E_shape_mismatch, at, "%s has another shape than the value", what);
        elab_label(e, d, "%s = %s", type_text(e, t), type_text(e, x->type));
        return NULL;
    }
    int pars[32];
    for (int d = 0; d < t.rank; d++)
        pars[d] = elab_new_index(e, arena_printf(e->arena, "i%d", d), t.dims[d]);
    struct nest_spec n = {
        .pars = pars, .par_count = t.rank, .body = elab_broadcast_load(e, x, t.rank, pars), .span = at};
    return elab_form_nest(e, &n, NULL);
}

/* Pieces along an axis, written one after the other into one value. axis < 0: stacked along a new first axis. */
/* The element types of a list's entries, lists in it too: that of the first that has one, and what its numbers alone are. */
static void scan_entries(struct elab *e, const struct val_list *xs, enum dtype *typed, enum dtype *numbers) {
    for (int i = 0; i < xs->count; i++) {
        struct val x = xs->items[i];
        if (x.kind == VAL_BUFFER)
            x = cell_read(e, x.cell);
        if (x.kind == VAL_LIST)
            scan_entries(e, x.list, typed, numbers);
        else if (val_is_runtime(x) && !(x.kind == VAL_SCALAR && x.flex))
            *typed = *typed == DTYPE_COUNT ? val_runtime_type(e, x).dtype : *typed;
        else if (x.kind == VAL_FLOAT)
            *numbers = F32;
        else if (x.kind != VAL_BOOL && *numbers == BOOL)
            *numbers = I64;
    }
}

struct val elab_concat(struct elab *e, struct val_list *xs, int axis, enum dtype beside, struct span at) {
    int n = xs->count;
    if (n == 0) {
        elab_error(e, E_not_a_number, at, "an empty list has no type: a tensor was expected");
        return val_error;
    }
    enum dtype t = DTYPE_COUNT, numbers = BOOL;
    bool lazy = false;
    for (int i = 0; i < n; i++) {
        struct val x = xs->items[i];
        if (x.kind == VAL_ERROR)
            return x;
        lazy = lazy || x.kind == VAL_LAZY || (x.kind == VAL_SCALAR && expr_has_index(e, x.expr));
    }
    scan_entries(e, xs, &t, &numbers);
    if (t == DTYPE_COUNT)
        t = beside != DTYPE_COUNT ? beside : numbers;
    if (lazy) {
        struct lazy *l = ARENA_NEW(e->arena, struct lazy);
        ir_dim *dims = ARENA_NEW(e->arena, ir_dim);
        dims[0] = ir_dim_const(e->module, n);
        *l = (struct lazy){.dtype = t, .rank = 1, .dims = dims, .elements = ARENA_ARRAY(e->arena, struct val, n)};
        for (int i = 0; i < n; i++)
            if ((l->elements[i] = elab_fit(e, xs->items[i], t, at)).kind == VAL_ERROR)
                return val_error;
        return (struct val){.kind = VAL_LAZY, .lazy = l};
    }
    struct ir_value **v = ARENA_ARRAY(e->arena, struct ir_value *, n);
    for (int i = 0; i < n; i++) {
        struct val x = xs->items[i];
        if (x.kind != VAL_TENSOR && x.kind != VAL_BUFFER && x.kind != VAL_LIST)
            x = elab_fit(e, x, t, at);
        if (!(v[i] = elab_materialize(e, x, t, at)))
            return val_error;
    }
    bool stack = axis < 0;
    int rank = v[0]->type.rank;
    if (!stack && (axis >= rank)) {
        elab_error(e, E_axis, at, "axis %d of a tensor with %d dimensions", axis, rank);
        return val_error;
    }
    ir_dim dims[32], total = ir_dim_const(e->module, stack ? n : 0);
    for (int d = 0; d < rank; d++)
        dims[d + stack] = v[0]->type.dims[d];
    for (int i = 0; i < n; i++) {
        bool fits = v[i]->type.rank == rank;
        for (int d = 0; fits && d < rank; d++)
            fits = (!stack && d == axis) || elab_dims_equal(e, v[i]->type.dims[d], v[0]->type.dims[d], at);
        if (!fits) {
            struct diagnostic *diag = elab_error(e, E_shape_mismatch, at, "the parts have different shapes");
            elab_label(e, diag, "part 0 is %s, part %d %s", type_text(e, v[0]->type), i, type_text(e, v[i]->type));
            return val_error;
        }
        if (!stack)
            total = ir_dim_add(e->module, total, v[i]->type.dims[axis]);
    }
    if (n == 1 && !stack)
        return elab_from_value(e, v[0]);
    int out_rank = rank + stack, at_axis = stack ? 0 : axis;
    dims[at_axis] = total;
    struct val base =
        elab_full(e, ir_type_make(e->module, t, out_rank, dims), t == BOOL ? val_bool(false) : val_int(0), at);
    struct ir_value *out = elab_materialize(e, base, t, at);
    ir_dim offset = ir_dim_const(e->module, 0);
    for (int i = 0; i < n && out; i++) {
        int pars[32];
        ir_expr source[32], target[32];
        for (int d = 0; d < rank; d++) {
            pars[d] = elab_new_index(e, arena_printf(e->arena, "i%d", d), v[i]->type.dims[d]);
            source[d] = ir_index(e->module, pars[d]);
            target[d + stack] = source[d];
        }
        ir_expr shift = ir_dim_expr(e->module, offset);
        target[at_axis] = stack ? shift : ir_fn2(e->module, FN_add, target[at_axis], shift);
        struct nest_spec u = {.pars = pars, .par_count = rank, .base = out, .target = target, .span = at};
        u.body = ir_load(e->module, elab_slot(e, v[i]), t, rank, source, NULL);
        out = elab_form_nest(e, &u, NULL);
        offset = ir_dim_add(e->module, offset, stack ? ir_dim_const(e->module, 1) : v[i]->type.dims[axis]);
    }
    return elab_from_value(e, out);
}

/* ---- run-time lengths ------------------------------------------------------------------------------------------------------------ */

static bool in_scope(const struct elab *e, const struct ir_region *of) {
    const struct ir_region *r = e->b.region;
    while (r && r != of)
        r = r->op ? r->op->parent : NULL;
    return r != NULL;
}

ir_dim elab_runtime_dim(struct elab *e, ir_expr length, int64_t lo, int64_t hi, const char *name, struct span at) {
    for (int i = 0; i < e->lengths.n; i++) {
        struct ir_symbol *s = e->lengths.at[i].symbol;
        if (e->lengths.at[i].length == length && s->lo >= lo && s->hi <= hi && in_scope(e, s->op->parent))
            return ir_dim_symbol(e->module, s);
    }
    struct ir_value *v = elab_materialize(e, val_scalar(length), DTYPE_COUNT, at);
    if (!v)
        return NULL;
    struct ir_symbol *s = ir_symbol_new(e->func, name, lo, hi, at);
    struct span saved = e->b.span;
    e->b.span = at;
    struct ir_op *op = ir_op_new(&e->b, OP_dim, &v, 1, 0);
    e->b.span = saved;
    op->dim.symbol = s;
    s->op = op;
    VEC_PUSH(e->arena, e->lengths, ((struct found_length){.length = length, .symbol = s}));
    return ir_dim_symbol(e->module, s);
}

struct linear {
    struct {
        ir_expr x;
        int64_t coefficient;
    } terms[64];
    int count;
    ir_dim constant;
    bool failed;
};

static void linear_add(struct elab *e, struct linear *l, ir_expr x, int64_t factor) {
    double number;
    if (x->kind == X_DIM) {
        l->constant =
            ir_dim_add(e->module, l->constant, ir_dim_mul(e->module, ir_dim_const(e->module, factor), x->dim));
        return;
    }
    if (ir_expr_is_const(x, &number)) {
        l->constant = ir_dim_add(e->module, l->constant, ir_dim_const(e->module, factor * x->value.i));
        return;
    }
    if (x->kind == X_FN && (x->fn == FN_add || x->fn == FN_sub)) {
        linear_add(e, l, x->args[0], factor);
        linear_add(e, l, x->args[1], x->fn == FN_sub ? -factor : factor);
        return;
    }
    if (x->kind == X_FN && x->fn == FN_neg) {
        linear_add(e, l, x->args[0], -factor);
        return;
    }
    if (x->kind == X_FN && x->fn == FN_mul)
        for (int i = 0; i < 2; i++)
            if (ir_expr_is_const(x->args[i], &number)) {
                linear_add(e, l, x->args[1 - i], factor * x->args[i]->value.i);
                return;
            }
    if (x->kind == X_CAST && dtype_is_int(x->args[0]->dtype) && dtype_size(x->dtype) >= dtype_size(x->args[0]->dtype)) {
        linear_add(e, l, x->args[0], factor); /* a difference that wraps leaves the array and is checked there */
        return;
    }
    for (int i = 0; i < l->count; i++)
        if (l->terms[i].x == x) {
            l->terms[i].coefficient += factor;
            return;
        }
    if (l->count == 64) {
        l->failed = true;
        return;
    }
    l->terms[l->count].x = x;
    l->terms[l->count++].coefficient = factor;
}

bool elab_linear_difference(struct elab *e, ir_expr hi, ir_expr lo, ir_dim *difference) {
    struct linear l = {.constant = ir_dim_const(e->module, 0)};
    linear_add(e, &l, hi, 1);
    linear_add(e, &l, lo, -1);
    for (int i = 0; i < l.count; i++)
        if (l.terms[i].coefficient != 0)
            return false;
    *difference = l.constant;
    return !l.failed;
}
