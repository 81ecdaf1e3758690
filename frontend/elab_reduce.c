/* Matrix products and reductions over axes. */
#include <string.h>

#include "frontend/elab.h"

/* ---- products ------------------------------------------------------------------------------------------------------------- */

struct val elab_matmul(struct elab *e, struct val a, struct val b, struct span at) {
    if (val_is_number(a) || val_is_number(b)) {
        struct diagnostic *d =
            elab_error(e, E_matmul_shape, at, "`@` needs numeric tensors with at least one dimension");
        elab_label(e, d, "%s @ %s", val_describe(e, a), val_describe(e, b));
        elab_help(e, d, "`*` multiplies by a number");
        return val_error;
    }
    struct ir_value *x = elab_materialize(e, a, DTYPE_COUNT, at), *y = elab_materialize(e, b, DTYPE_COUNT, at);
    if (!x || !y)
        return val_error;
    struct ir_type s = x->type, t = y->type;
    if (s.dtype != t.dtype) {
        struct diagnostic *d = elab_error(e, E_implicit_conversion, at, "element types differ in `@`: %s and %s",
                                          dtype_name(s.dtype), dtype_name(t.dtype));
        elab_help(e, d, "there is no implicit conversion");
        return val_error;
    }
    if (s.rank == 0 || t.rank == 0 || s.dtype == BOOL) {
        struct diagnostic *d =
            elab_error(e, E_matmul_shape, at, "`@` needs numeric tensors with at least one dimension");
        elab_label(e, d, "%s @ %s", type_text(e, s), type_text(e, t));
        return val_error;
    }
    ir_dim inner = s.dims[s.rank - 1], other = t.dims[t.rank == 1 ? 0 : t.rank - 2];
    if (!elab_dims_equal(e, inner, other, at)) {
        struct diagnostic *d = elab_error(e, E_matmul_shape, at, "the shapes do not fit `@`");
        elab_label(e, d, "%s @ %s", type_text(e, s), type_text(e, t));
        elab_note(e, d, (struct span){0}, "the last dimension on the left is %s, the %s on the right is %s",
                  dim_text(e, inner), t.rank == 1 ? "dimension" : "last but one", dim_text(e, other));
        return val_error;
    }
    int sb = s.rank > 2 ? s.rank - 2 : 0, tb = t.rank > 2 ? t.rank - 2 : 0, batch = sb > tb ? sb : tb;
    int pars[32], count = 0;
    ir_expr xa[32], xb[32];
    for (int d = batch; d >= 1; d--) {
        ir_dim p = d <= sb ? s.dims[sb - d] : NULL, q = d <= tb ? t.dims[tb - d] : NULL;
        ir_dim out = !p || (q && dim_is_one(p)) ? q : p;
        if (p && q && !dim_is_one(p) && !dim_is_one(q) && !elab_dims_equal(e, p, q, at)) {
            struct diagnostic *diag = elab_error(e, E_matmul_shape, at, "the leading dimensions do not fit `@`");
            elab_label(e, diag, "%s @ %s", type_text(e, s), type_text(e, t));
            return val_error;
        }
        int i = elab_new_index(e, arena_printf(e->arena, "b%d", batch - d), out);
        pars[count++] = i;
        ir_expr zero = ir_const_int(e->module, I64, 0);
        if (p)
            xa[sb - d] = dim_is_one(p) && !dim_is_one(out) ? zero : ir_index(e->module, i);
        if (q)
            xb[tb - d] = dim_is_one(q) && !dim_is_one(out) ? zero : ir_index(e->module, i);
    }
    if (s.rank > 1) {
        pars[count] = elab_new_index(e, "m", s.dims[s.rank - 2]);
        xa[s.rank - 2] = ir_index(e->module, pars[count++]);
    }
    if (t.rank > 1) {
        pars[count] = elab_new_index(e, "n", t.dims[t.rank - 1]);
        xb[t.rank - 1] = ir_index(e->module, pars[count++]);
    }
    int k = elab_new_index(e, "k", inner);
    e->indices.at[k].reduction = true;
    e->indices.at[k].lo = ir_const_int(e->module, I64, 0);
    e->indices.at[k].hi = ir_dim_expr(e->module, inner);
    xa[s.rank - 1] = ir_index(e->module, k);
    xb[t.rank == 1 ? 0 : t.rank - 2] = ir_index(e->module, k);
    ir_expr p = ir_load(e->module, elab_slot(e, x), s.dtype, s.rank, xa, NULL);
    ir_expr q = ir_load(e->module, elab_slot(e, y), t.dtype, t.rank, xb, NULL);
    struct nest_spec n = {.pars = pars, .par_count = count, .reds = &k, .red_count = 1, .op = RED_SUM, .span = at};
    if (s.dtype == F16 || s.dtype == BF16) {
        p = ir_cast(e->module, F32, p);
        q = ir_cast(e->module, F32, q);
        n.result = ir_cast(e->module, s.dtype, ir_acc(e->module, 0, F32));
    }
    n.body = ir_fn2(e->module, FN_mul, p, q);
    return elab_from_value(e, elab_form_nest(e, &n, NULL));
}

/* ---- reductions over axes ---------------------------------------------------------------------------------------------------- */

static bool read_axes(struct elab *e, struct val axis, int rank, bool *reduced, struct span at) {
    memset(reduced, 0, sizeof *reduced * 32);
    if (axis.kind == VAL_NONE) {
        for (int d = 0; d < rank; d++)
            reduced[d] = true;
        return true;
    }
    struct val one = axis;
    int n = axis.kind == VAL_LIST ? axis.list->count : 1;
    for (int i = 0; i < n; i++) {
        if (axis.kind == VAL_LIST)
            one = axis.list->items[i];
        if (one.kind != VAL_INT) {
            struct diagnostic *d = elab_error(e, E_axis, at, "`axis` must be a number or a list of numbers");
            elab_label(e, d, "%s", val_describe(e, one));
            return false;
        }
        int64_t a = one.i < 0 ? one.i + rank : one.i;
        if (a < 0 || a >= rank) {
            elab_error(e, E_axis, at, "axis %lld of a tensor with %d dimension%s", (long long)one.i, rank,
                       rank == 1 ? "" : "s");
            return false;
        }
        reduced[a] = true;
    }
    return true;
}

struct val elab_reduce(struct elab *e, const char *what, struct val v, struct val axis, bool keepdims, struct span at) {
    bool mean = strcmp(what, "mean") == 0;
    enum reduce_op op = RED_SUM;
    for (int i = 0; i < RED_COUNT; i++)
        if (strcmp(what, reduce_names[i]) == 0)
            op = (enum reduce_op)i;
    if (v.kind == VAL_LAZY) {
        struct val total = val_error;
        if (mean || op > RED_ALL || axis.kind != VAL_NONE || !elab_lazy_elements(e, v.lazy, at)) {
            elab_error(e, E_index_body, at, "write this as a reduction with indices: `%s[k < n] …`", what);
            return val_error;
        }
        static const enum scalar_fn fns[] = {FN_add, FN_mul, FN_max, FN_min, FN_or, FN_and};
        for (int64_t i = 0; i < v.lazy->count; i++) {
            struct val pair[2] = {total, v.lazy->elements[i]};
            total = i == 0 ? v.lazy->elements[0] : elab_map(e, fns[op], pair, 2, at, NULL);
        }
        return total;
    }
    struct ir_value *x = elab_materialize(e, v, DTYPE_COUNT, at);
    if (!x)
        return val_error;
    struct ir_type t = x->type;
    bool reduced[32];
    if (!read_axes(e, axis, t.rank, reduced, at))
        return val_error;
    if ((op == RED_ANY || op == RED_ALL) != (t.dtype == BOOL) && (op == RED_ANY || op == RED_ALL || op <= RED_PROD)) {
        struct diagnostic *d = elab_error(e, E_type_mismatch, at, "`%s` of %s", what, type_text(e, t));
        elab_help(e, d, t.dtype == BOOL ? "count with i32(…): sum(i32(a > 0))" : "compare first: `%s(x != 0)`", what);
        return val_error;
    }
    if (mean && !dtype_is_float(t.dtype)) {
        struct diagnostic *d = elab_error(e, E_type_mismatch, at, "`mean` of %s", type_text(e, t));
        elab_help(e, d, "convert first: mean(f32(x))");
        return val_error;
    }
    int pars[32], reds[32];
    struct nest_spec n = {.pars = pars, .reds = reds, .op = op, .span = at};
    ir_expr index[32];
    ir_dim kept[32], count = ir_dim_const(e->module, 1);
    for (int d = 0; d < t.rank; d++) {
        int i = elab_new_index(e, arena_printf(e->arena, "%c%d", reduced[d] ? 'k' : 'i', d), t.dims[d]);
        index[d] = ir_index(e->module, i);
        kept[d] = reduced[d] ? ir_dim_const(e->module, 1) : t.dims[d];
        if (reduced[d]) {
            e->indices.at[i].reduction = true;
            e->indices.at[i].lo = ir_const_int(e->module, I64, 0);
            e->indices.at[i].hi = ir_dim_expr(e->module, t.dims[d]);
            count = ir_dim_mul(e->module, count, t.dims[d]);
            reds[n.red_count++] = i;
        } else {
            pars[n.par_count++] = i;
        }
    }
    n.body = ir_load(e->module, elab_slot(e, x), t.dtype, t.rank, index, NULL);
    bool half = (t.dtype == F16 || t.dtype == BF16) && op <= RED_PROD;
    if (half)
        n.body = ir_cast(e->module, F32, n.body);
    if (n.red_count == 0) {
        if (op == RED_ARGMAX || op == RED_ARGMIN)
            n.body = ir_const_int(e->module, I32, 0);
        else if (half)
            n.body = ir_cast(e->module, t.dtype, n.body);
    } else if (half || mean) {
        ir_expr acc = ir_acc(e->module, 0, n.body->dtype);
        if (mean)
            acc = ir_fn2(e->module, FN_div, acc, ir_cast(e->module, n.body->dtype, ir_dim_expr(e->module, count)));
        n.result = ir_cast(e->module, t.dtype, acc);
    }
    struct ir_value *out = elab_form_nest(e, &n, NULL);
    if (keepdims && t.rank > 0)
        out = ir_build_reshape(&e->b, out, t.rank, kept);
    return elab_from_value(e, out);
}
