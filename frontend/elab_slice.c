/* Subscripts of tensors: reading x[…] and writing x[…] = v.
 *
 * A subscript list becomes a map from the indices of the selection to those of the base: one expression for each base
 * axis. Reading is a nest that loads through the map, writing an update nest whose target is the map. Integer tensors
 * broadcast against each other as in NumPy; a written index of known value or a run-time scalar removes its axis.
 */
#include <string.h>

#include "frontend/elab.h"

enum { MAX_RANK = 31 };

enum axis_kind { AXIS_FIXED, AXIS_SLICE, AXIS_GATHER };

struct selection {
    struct ir_value *base;
    enum axis_kind kind[MAX_RANK + 1];
    ir_expr index[MAX_RANK + 1]; /* FIXED: i64; SLICE: the start */
    int64_t step[MAX_RANK + 1];
    ir_dim length[MAX_RANK + 1];        /* SLICE */
    struct ir_value *ids[MAX_RANK + 1]; /* GATHER */
    int axes;
    /* the order of result dimensions: base axis, -1 new axis, -2 the gather's dimensions */
    int order[2 * MAX_RANK + 2];
    int order_count;
    int gather_rank;
    ir_dim gather_dims[MAX_RANK + 1];
    bool scalar; /* no dimension is left */
};

static bool is_const_dim(ir_dim d, int64_t n) {
    int64_t i;
    return ir_dim_is_const(d, &i) && i == n;
}

/* An index or slice bound as an i64 expression. Static negative numbers count from the end only if written so. */
static ir_expr index_value(struct elab *e, struct val v, const struct ast_expr *x, ir_dim extent) {
    bool from_end = x->kind == EXPR_UNARY && x->unary.op == UN_NEG;
    if (v.kind == VAL_BUFFER)
        v = cell_read(e, v.cell);
    if (v.kind == VAL_ERROR)
        return NULL;
    if (v.kind == VAL_FLOAT || v.kind == VAL_BOOL || (v.kind == VAL_SCALAR && !dtype_is_int(v.expr->dtype)) ||
        !(val_is_number(v) || v.kind == VAL_SCALAR)) {
        struct diagnostic *d = elab_error(e, E_index_type, x->span, "an index must be an integer");
        elab_label(e, d, "%s", val_describe(e, v));
        return NULL;
    }
    ir_expr i = elab_scalar(e, v, DTYPE_COUNT, x->span);
    if (!i)
        return NULL;
    i = ir_cast(e->module, I64, i);
    if (from_end)
        i = ir_fn2(e->module, FN_add, i, ir_dim_expr(e->module, extent));
    return i;
}

static bool static_dim_of(struct elab *e, ir_expr x, ir_dim *d) {
    (void)e;
    if (x->kind == X_DIM) {
        *d = x->dim;
        return true;
    }
    if (x->kind == X_CONST) {
        *d = ir_dim_const(e->module, x->value.i);
        return true;
    }
    return false;
}

static bool add_slice(struct elab *e, struct scope *s, struct selection *sel, int axis,
                      const struct ast_subscript *sub) {
    ir_dim extent = sel->base->type.dims[axis], length = NULL, dlo = NULL, dhi = NULL;
    struct ir_module *m = e->module;
    int64_t step = 1;
    if (sub->step) {
        struct val v = elab_expr(e, s, sub->step);
        if (v.kind != VAL_INT || v.i == 0) {
            if (v.kind != VAL_ERROR)
                elab_error(e, E_slice, sub->step->span,
                           "the step of a slice must be a known integer other than 0, found %s", val_describe(e, v));
            return false;
        }
        step = v.i;
    }
    ir_expr zero = ir_const_int(m, I64, 0), end = ir_dim_expr(m, extent), one = ir_const_int(m, I64, 1);
    ir_expr lo = step > 0 ? zero : ir_fn2(m, FN_sub, end, one), hi = step > 0 ? end : ir_const_int(m, I64, -1);
    if (sub->lo && !(lo = index_value(e, elab_expr(e, s, sub->lo), sub->lo, extent)))
        return false;
    if (sub->hi && !(hi = index_value(e, elab_expr(e, s, sub->hi), sub->hi, extent)))
        return false;
    bool known_lo = static_dim_of(e, lo, &dlo), known_hi = static_dim_of(e, hi, &dhi);
    ir_dim dzero = ir_dim_const(m, 0);
    /* bounds outside the array are errors */
    if ((known_lo && (ir_dim_lt(m, dlo, dzero) || ir_dim_lt(m, extent, dlo))) ||
        (known_hi && step > 0 && (ir_dim_lt(m, dhi, dzero) || ir_dim_lt(m, extent, dhi)))) {
        bool low = known_lo && (ir_dim_lt(m, dlo, dzero) || ir_dim_lt(m, extent, dlo));
        struct diagnostic *d = elab_error(e, E_index_outside, sub->span, "slice bound %s is outside the array",
                                          dim_text(e, low ? dlo : dhi));
        elab_label(e, d, "axis %d of %s has %s entries", axis, type_text(e, sel->base->type), dim_text(e, extent));
        return false;
    }
    ir_dim difference;
    if (known_lo && known_hi)
        length = step > 0 ? ir_dim_sub(m, dhi, dlo) : ir_dim_sub(m, dlo, dhi);
    else if (elab_linear_difference(e, hi, lo, &difference))
        length = step > 0 ? difference : ir_dim_sub(m, dzero, difference);
    if (length && ir_dim_upper(length) < 0 && !is_const_dim(length, 0)) {
        elab_error(e, E_slice, sub->span, "the slice ends before it begins");
        return false;
    }
    int64_t stride = step > 0 ? step : -step;
    bool proven = length != NULL && ir_dim_lower(length) >= 0;
    if (proven && known_lo && known_hi && step > 0)
        proven = ir_dim_le(m, dzero, dlo) && ir_dim_le(m, dhi, extent);
    else if (step > 0)
        proven = false;
    if (!proven && step > 0) {
        /* 0 <= lo <= hi <= extent, before anything is read */
        ir_expr c = ir_fn2(m, FN_and, ir_fn2(m, FN_le, zero, lo),
                           ir_fn2(m, FN_and, ir_fn2(m, FN_le, lo, hi), ir_fn2(m, FN_le, hi, end)));
        elab_require(e, c, sub->span, E_index_outside,
                     arena_printf(e->arena,
                                  "a slice bound leaves axis %d, which has %s entries, or the end is before the begin",
                                  axis, dim_text(e, extent)));
    }
    if (!length) {
        if (in_notation(e)) {
            elab_error(e, E_slice, sub->span, "inside index notation a slice needs a known length");
            return false;
        }
        ir_expr n = step > 0 ? ir_fn2(m, FN_sub, hi, lo) : ir_fn2(m, FN_sub, lo, hi);
        length = elab_runtime_dim(e, n, 0, ir_dim_upper(extent), "n", sub->span);
        if (!length)
            return false;
    }
    if (stride != 1)
        length = ir_dim_div(m, ir_dim_add(m, length, ir_dim_const(m, stride - 1)), ir_dim_const(m, stride));
    sel->kind[axis] = AXIS_SLICE;
    sel->index[axis] = lo;
    sel->step[axis] = step;
    sel->length[axis] = length;
    sel->order[sel->order_count++] = axis;
    return true;
}

static void add_whole(struct elab *e, struct selection *sel, int axis) {
    sel->kind[axis] = AXIS_SLICE;
    sel->index[axis] = ir_const_int(e->module, I64, 0);
    sel->step[axis] = 1;
    sel->length[axis] = sel->base->type.dims[axis];
    sel->order[sel->order_count++] = axis;
}

static bool add_index(struct elab *e, struct selection *sel, int axis, struct val v, const struct ast_expr *x) {
    if (v.kind == VAL_BUFFER)
        v = cell_read(e, v.cell);
    if (v.kind == VAL_LIST) {
        struct ir_value *ids = elab_materialize(e, v, DTYPE_COUNT, x->span);
        v = ids ? val_tensor(ids) : val_error;
    }
    if (v.kind == VAL_TENSOR) {
        if (!dtype_is_int(v.value->type.dtype)) {
            struct diagnostic *d = elab_error(e, E_index_type, x->span, "an index tensor must hold integers");
            elab_label(e, d, "%s", val_describe(e, v));
            if (v.value->type.dtype == BOOL)
                elab_help(e, d, "there are no boolean masks: use where(mask, a, b)");
            return false;
        }
        sel->kind[axis] = AXIS_GATHER;
        sel->ids[axis] = v.value;
        for (int i = 0; i < sel->order_count; i++)
            if (sel->order[i] == -2)
                return true;
        sel->order[sel->order_count++] = -2;
        return true;
    }
    ir_expr i = index_value(e, v, x, sel->base->type.dims[axis]);
    if (!i)
        return false;
    sel->kind[axis] = AXIS_FIXED;
    sel->index[axis] = i;
    return true;
}

static bool too_many(struct elab *e, struct selection *sel, const struct ast_expr *x) {
    struct diagnostic *d = elab_error(e, E_index_count, x->span, "too many indices");
    elab_label(e, d, "%s has %d dimension%s", type_text(e, sel->base->type), sel->base->type.rank,
               sel->base->type.rank == 1 ? "" : "s");
    return false;
}

static bool gather_shape(struct elab *e, struct selection *sel, struct span at) {
    for (int a = 0; a < sel->axes; a++)
        if (sel->kind[a] == AXIS_GATHER && sel->ids[a]->type.rank > sel->gather_rank)
            sel->gather_rank = sel->ids[a]->type.rank;
    for (int d = 1; d <= sel->gather_rank; d++) {
        ir_dim out = NULL;
        for (int a = 0; a < sel->axes; a++) {
            if (sel->kind[a] != AXIS_GATHER || sel->ids[a]->type.rank < d)
                continue;
            ir_dim k = sel->ids[a]->type.dims[sel->ids[a]->type.rank - d];
            if (!out || is_const_dim(out, 1))
                out = k;
            else if (!is_const_dim(k, 1) && !elab_dims_equal(e, out, k, at)) {
                elab_error(e, E_shape_mismatch, at, "the index tensors have different shapes: %s and %s entries",
                           dim_text(e, out), dim_text(e, k));
                return false;
            }
        }
        sel->gather_dims[sel->gather_rank - d] = out;
    }
    return true;
}

static bool select_axes(struct elab *e, struct scope *s, const struct ast_expr *x, struct selection *sel) {
    int rank = sel->base->type.rank, used = 0, ellipsis = 0;
    struct val values[64];
    if (x->index.count > 60) {
        elab_error(e, E_index_count, x->span, "too many indices");
        return false;
    }
    for (int i = 0; i < x->index.count; i++) {
        const struct ast_subscript *sub = &x->index.subs[i];
        values[i] = val_none;
        if (sub->kind == SUB_SPLICE) {
            values[i] = elab_expr(e, s, sub->index);
            if (values[i].kind == VAL_ERROR)
                return false;
            if (values[i].kind != VAL_LIST) {
                struct diagnostic *d = elab_error(e, E_run, sub->span, "`..` in an index needs a list");
                elab_label(e, d, "%s", val_describe(e, values[i]));
                return false;
            }
            used += values[i].list->count;
        } else if (sub->kind == SUB_ELLIPSIS) {
            ellipsis++;
        } else if (sub->kind != SUB_NEWAXIS) {
            used++;
        }
    }
    if (ellipsis > 1) {
        elab_error(e, E_index_count, x->span, "`...` can stand once in an index");
        return false;
    }
    if (used > rank)
        return too_many(e, sel, x);
    int axis = 0;
    for (int i = 0; i < x->index.count; i++) {
        const struct ast_subscript *sub = &x->index.subs[i];
        switch (sub->kind) {
        case SUB_NEWAXIS: sel->order[sel->order_count++] = -1; break;
        case SUB_ELLIPSIS:
            for (int k = used; k < rank; k++)
                add_whole(e, sel, axis++);
            break;
        case SUB_SPLICE:
            for (int k = 0; k < values[i].list->count; k++)
                if (!add_index(e, sel, axis++, values[i].list->items[k], sub->index))
                    return false;
            break;
        case SUB_SLICE:
            if (!sub->lo && !sub->hi && !sub->step)
                add_whole(e, sel, axis++);
            else if (!add_slice(e, s, sel, axis++, sub))
                return false;
            break;
        case SUB_INDEX: {
            struct val v = elab_expr(e, s, sub->index);
            if (v.kind == VAL_ERROR)
                return false;
            if (v.kind == VAL_NONE) {
                sel->order[sel->order_count++] = -1;
                break;
            }
            if (!add_index(e, sel, axis++, v, sub->index))
                return false;
            break;
        }
        }
    }
    while (axis < rank)
        add_whole(e, sel, axis++);
    sel->axes = rank;
    return gather_shape(e, sel, x->span);
}

/* Index variables for the selection's dimensions (in *pars) and the base's index expressions. */
static int selection_map(struct elab *e, struct selection *sel, int *pars, ir_expr *at) {
    int count = 0, gather[MAX_RANK + 1];
    for (int i = 0; i < sel->order_count; i++) {
        int axis = sel->order[i];
        if (axis == -2) {
            for (int d = 0; d < sel->gather_rank; d++)
                gather[d] = pars[count++] = elab_new_index(e, arena_printf(e->arena, "r%d", d), sel->gather_dims[d]);
        } else if (axis == -1) {
            pars[count++] = elab_new_index(e, "one", ir_dim_const(e->module, 1));
        } else {
            int p = pars[count++] = elab_new_index(e, arena_printf(e->arena, "i%d", axis), sel->length[axis]);
            ir_expr x = ir_index(e->module, p);
            if (sel->step[axis] != 1)
                x = ir_fn2(e->module, FN_mul, x, ir_const_int(e->module, I64, sel->step[axis]));
            at[axis] = ir_fn2(e->module, FN_add, x, sel->index[axis]);
        }
    }
    for (int a = 0; a < sel->axes; a++) {
        if (sel->kind[a] == AXIS_FIXED)
            at[a] = sel->index[a];
        if (sel->kind[a] != AXIS_GATHER)
            continue;
        struct ir_type t = sel->ids[a]->type;
        ir_expr ids[MAX_RANK + 1];
        for (int d = 0; d < t.rank; d++)
            ids[d] = is_const_dim(t.dims[d], 1) ? ir_const_int(e->module, I64, 0)
                                                : ir_index(e->module, gather[sel->gather_rank - t.rank + d]);
        at[a] = ir_cast(e->module, I64, ir_load(e->module, elab_slot(e, sel->ids[a]), t.dtype, t.rank, ids, NULL));
    }
    return count;
}

static const char *base_name(struct elab *e, const struct ast_expr *x) {
    if (x->kind == EXPR_NAME)
        return arena_printf(e->arena, "`%s`", x->string);
    if (x->kind == EXPR_MEMBER)
        return arena_printf(e->arena, "`%s`", x->member.name);
    return "the array";
}

/* Indices into an index dependent tensor: only single entries from the left. */
static struct val index_lazy(struct elab *e, struct scope *s, struct lazy *l, const struct ast_expr *x) {
    struct val v[MAX_RANK + 1];
    int n = 0;
    for (int i = 0; i < x->index.count; i++) {
        const struct ast_subscript *sub = &x->index.subs[i];
        struct val one = sub->index ? elab_expr(e, s, sub->index) : val_error;
        if (sub->kind == SUB_SPLICE && one.kind == VAL_LIST) {
            for (int k = 0; k < one.list->count && n < MAX_RANK; k++)
                v[n++] = one.list->items[k];
        } else if (sub->kind == SUB_INDEX && n < MAX_RANK) {
            v[n++] = one;
        } else {
            if (one.kind != VAL_ERROR || !sub->index)
                elab_error(e, E_index_body, sub->span,
                           "inside index notation a part of a tensor is taken entry by entry");
            return val_error;
        }
    }
    if (n > l->rank) {
        elab_error(e, E_index_count, x->span, "too many indices for a tensor with %d dimensions", l->rank);
        return val_error;
    }
    if (l->base) {
        int axis = l->base->type.rank - l->rank;
        ir_expr *at = ARENA_ARRAY(e->arena, ir_expr, l->base->type.rank + 1);
        if (l->at)
            memcpy(at, l->at, sizeof *at * (size_t)axis);
        for (int i = 0; i < n; i++)
            if (!(at[axis + i] = index_value(e, v[i], x->index.subs[0].index ? x->index.subs[0].index : x, l->dims[i])))
                return val_error;
        if (n == l->rank) {
            elab_load_checks(e, l->base, at, x->span, base_name(e, x->index.base));
            return val_scalar(ir_load(e->module, elab_slot(e, l->base), l->dtype, l->base->type.rank, at, NULL));
        }
        struct lazy *part = ARENA_NEW(e->arena, struct lazy);
        *part = (struct lazy){.dtype = l->dtype, .rank = l->rank - n, .dims = l->dims + n, .base = l->base, .at = at};
        return (struct val){.kind = VAL_LAZY, .lazy = part};
    }
    int64_t offset = 0;
    for (int i = 0; i < n; i++) {
        int64_t k = 1;
        ir_dim_is_const(l->dims[i], &k);
        if (v[i].kind == VAL_SCALAR && n == 1 && l->rank == 1) {
            /* a run-time index into listed elements: a chain of selections */
            ir_expr index = index_value(e, v[i], x, l->dims[i]);
            if (!index)
                return val_error;
            ir_expr out = l->elements[k - 1].expr;
            for (int64_t j = k - 2; j >= 0; j--)
                out = ir_fn3(e->module, FN_where, ir_fn2(e->module, FN_eq, index, ir_const_int(e->module, I64, j)),
                             l->elements[j].expr, out);
            return val_scalar(out);
        }
        if (v[i].kind != VAL_INT || v[i].i < -k || v[i].i >= k) {
            elab_error(e, E_index_outside, x->span, "index %s leaves axis %d, which has %lld entries",
                       val_describe(e, v[i]), i, (long long)k);
            return val_error;
        }
        offset = offset * k + (v[i].i < 0 ? v[i].i + k : v[i].i);
    }
    for (int i = n; i < l->rank; i++) {
        int64_t k = 1;
        ir_dim_is_const(l->dims[i], &k);
        offset *= k;
    }
    if (n == l->rank)
        return l->elements[offset];
    struct lazy *part = ARENA_NEW(e->arena, struct lazy);
    *part =
        (struct lazy){.dtype = l->dtype, .rank = l->rank - n, .dims = l->dims + n, .elements = l->elements + offset};
    return (struct val){.kind = VAL_LAZY, .lazy = part};
}

/* A loaded entry outside index notation (own: the body that collected its checks): kept as an expression if nothing is
 * left to check, else computed now, behind the check. */
static struct val finish_scalar(struct elab *e, ir_expr load, struct body *own, struct span at) {
    if (!own)
        return val_scalar(load);
    elab_body_settle(e, own);
    struct ir_value *v = NULL;
    if (own->tokens.n > 0) {
        struct nest_spec n = {.body = load, .span = at};
        v = elab_form_nest(e, &n, own);
    }
    elab_body_close(e, own);
    return v ? elab_from_value(e, v) : val_scalar(load);
}

/* A part of a list, or one item. */
static struct val index_list(struct elab *e, struct scope *s, struct val list, const struct ast_expr *x) {
    if (x->index.count != 1) {
        elab_error(e, E_index_count, x->span, "a list takes one index");
        return val_error;
    }
    const struct ast_subscript *sub = &x->index.subs[0];
    int n = list.list->count;
    if (sub->kind == SUB_SLICE) {
        int64_t bounds[3] = {0, n, 1};
        const struct ast_expr *parts[3] = {sub->lo, sub->hi, sub->step};
        for (int i = 2; i >= 0; i--) {
            if (!parts[i])
                continue;
            struct val v = elab_expr(e, s, parts[i]);
            if (v.kind == VAL_ERROR)
                return v;
            if (v.kind != VAL_INT) {
                elab_error(e, E_not_static, parts[i]->span, "the bounds of a list's slice must be known, found %s",
                           val_describe(e, v));
                return val_error;
            }
            bounds[i] = i < 2 && v.i < 0 && parts[i]->kind == EXPR_UNARY ? v.i + n : v.i;
        }
        if (bounds[2] < 0 && !sub->lo)
            bounds[0] = n - 1;
        if (bounds[2] < 0 && !sub->hi)
            bounds[1] = -1;
        bool outside = bounds[2] > 0 ? bounds[0] < 0 || bounds[0] > n || bounds[1] < 0 || bounds[1] > n
                                     : bounds[0] < -1 || bounds[0] >= n || bounds[1] < -1 || bounds[1] > n;
        if (bounds[2] == 0 || bounds[2] == INT64_MIN) {
            elab_error(e, E_slice, sub->step->span, "the step of a slice must be a known integer other than 0");
            return val_error;
        }
        if (outside) {
            elab_error(e, E_index_outside, sub->span, "the slice %lld:%lld leaves a list of %d", (long long)bounds[0],
                       (long long)bounds[1], n);
            return val_error;
        }
        int64_t span = bounds[2] > 0 ? bounds[1] - bounds[0] : bounds[0] - bounds[1],
                step = bounds[2] > 0 ? bounds[2] : -bounds[2];
        int count = span <= 0 ? 0 : (int)((span + step - 1) / step);
        struct val out = val_list_new(e, count);
        for (int i = 0; i < count; i++)
            out.list->items[i] = list.list->items[bounds[0] + i * bounds[2]];
        return out;
    }
    if (sub->kind != SUB_INDEX) {
        elab_error(e, E_index_type, sub->span, "a list takes an integer or a slice");
        return val_error;
    }
    struct val v = elab_expr(e, s, sub->index);
    if (v.kind == VAL_ERROR)
        return v;
    if (v.kind != VAL_INT) {
        struct ir_value *stacked = NULL;
        bool numbers = n > 0;
        for (int i = 0; i < n; i++)
            numbers = numbers && (val_is_number(list.list->items[i]) || val_is_runtime(list.list->items[i]));
        if ((v.kind == VAL_SCALAR || v.kind == VAL_DIM) && numbers && e->in_function) {
            /* a run-time choice among numbers */
            ir_expr index = index_value(e, v, sub->index, ir_dim_const(e->module, n));
            if (!index)
                return val_error;
            if ((stacked = elab_materialize(e, list, DTYPE_COUNT, x->span)) && stacked->type.rank == 1) {
                struct body *own = in_notation(e) ? NULL : elab_body_open(e);
                elab_load_checks(e, stacked, &index, x->span, "the list");
                ir_expr load = ir_load(e->module, elab_slot(e, stacked), stacked->type.dtype, 1, &index, NULL);
                return finish_scalar(e, load, own, x->span);
            }
            return val_error;
        }
        elab_error(e, E_not_static, sub->index->span, "the index of a list must be known at compile time, found %s",
                   val_describe(e, v));
        return val_error;
    }
    int64_t i =
        v.i < 0 && sub->index->kind == EXPR_UNARY ? v.i + n : v.i; /* only a written minus counts from the end */
    if (i < 0 || i >= n) {
        elab_error(e, E_index_outside, sub->index->span, "index %lld leaves a list of %d", (long long)v.i, n);
        return val_error;
    }
    return list.list->items[i];
}

/* `list[i] else e`: which of both it is, elaboration knows. */
static struct val guarded_item(struct elab *e, struct scope *s, struct val list, const struct ast_expr *x,
                               const struct ast_expr *otherwise) {
    struct val i =
        x->index.count == 1 && x->index.subs[0].kind == SUB_INDEX ? elab_expr(e, s, x->index.subs[0].index) : val_none;
    if (i.kind == VAL_ERROR)
        return i;
    if (i.kind != VAL_INT) {
        elab_error(e, E_index_type, x->span, "`else` behind a list's index needs an integer known at compile time");
        return val_error;
    }
    bool from_end = i.i < 0 && x->index.subs[0].index->kind == EXPR_UNARY;
    int64_t at = from_end ? i.i + list.list->count : i.i;
    return at >= 0 && at < list.list->count ? list.list->items[at] : elab_expr(e, s, otherwise);
}

struct val elab_index_expr(struct elab *e, struct scope *s, const struct ast_expr *x,
                           const struct ast_expr *otherwise) {
    struct val base = elab_expr(e, s, x->index.base);
    switch (base.kind) {
    case VAL_ERROR: return base;
    case VAL_DTYPE: return elab_type_expr(e, base.dtype, s, x);
    case VAL_LIST: return otherwise ? guarded_item(e, s, base, x, otherwise) : index_list(e, s, base, x);
    case VAL_STRING: {
        struct val list = val_list_new(e, (int)strlen(base.s));
        for (int i = 0; i < list.list->count; i++)
            list.list->items[i] = val_string(arena_strndup(e->arena, base.s + i, 1));
        struct val v = index_list(e, s, list, x);
        if (v.kind != VAL_LIST)
            return v;
        char *joined = ARENA_ARRAY(e->arena, char, v.list->count + 1);
        for (int i = 0; i < v.list->count; i++)
            joined[i] = v.list->items[i].s[0];
        return val_string(joined);
    }
    case VAL_BUFFER:
        if (!e->in_function) {
            elab_error(e, E_not_static, x->span, "nothing is computed at file level");
            return val_error;
        }
        base = cell_read(e, base.cell);
        break;
    case VAL_LAZY: return index_lazy(e, s, base.lazy, x);
    default: break;
    }
    if (base.kind == VAL_SCALAR) {
        bool whole = true;
        for (int i = 0; i < x->index.count; i++) {
            const struct ast_subscript *sub = &x->index.subs[i];
            if (sub->kind == SUB_SPLICE) {
                struct val v = elab_expr(e, s, sub->index);
                if (v.kind == VAL_ERROR)
                    return v;
                whole = whole && v.kind == VAL_LIST && v.list->count == 0;
            } else {
                whole = whole && sub->kind == SUB_ELLIPSIS;
            }
        }
        if (!whole) {
            elab_error(e, E_index_count, x->span, "a scalar takes no index");
            return val_error;
        }
        return base;
    }
    if (base.kind != VAL_TENSOR) {
        struct diagnostic *d = elab_error(e, E_not_a_number, x->index.base->span, "this cannot be indexed");
        elab_label(e, d, "%s", val_describe(e, base));
        return val_error;
    }
    struct selection sel = {.base = base.value};
    struct body *saved = e->body, *open = in_notation(e) ? saved : NULL;
    struct body *b = open ? open : elab_body_open(e);
    if (!select_axes(e, s, x, &sel)) {
        e->body = saved;
        return val_error;
    }
    bool entries = sel.order_count == 0;
    bool partial = open != NULL;
    for (int i = 0; i < sel.order_count; i++)
        partial = partial && sel.order[i] >= 0 && sel.index[sel.order[i]]->kind == X_CONST &&
                  sel.index[sel.order[i]]->value.i == 0 && sel.step[sel.order[i]] == 1 &&
                  sel.length[sel.order[i]] == sel.base->type.dims[sel.order[i]];
    for (int a = 0, whole = 0; partial && a < sel.axes; a++) { /* fixed axes first, whole ones after */
        whole = whole || sel.kind[a] != AXIS_FIXED;
        partial = !(whole && sel.kind[a] == AXIS_FIXED);
    }
    int pars[2 * MAX_RANK + 2], count = 0;
    ir_expr at[MAX_RANK + 1];
    ir_expr other = NULL;
    if (otherwise) {
        struct val v = elab_expr(e, s, otherwise);
        other = elab_scalar(e, v, base.value->type.dtype, otherwise->span);
        if (!other) {
            e->body = saved;
            return val_error;
        }
    }
    bool indexed = false;
    for (int a = 0; a < sel.axes; a++)
        indexed = indexed || (sel.kind[a] != AXIS_GATHER && expr_has_index(e, sel.index[a]));
    struct val out;
    if (open && !entries && !indexed) {
        partial = false; /* does not depend on the open indices: computed outside */
    }
    if (entries || (partial && indexed)) {
        for (int a = 0; a < sel.axes; a++)
            at[a] = sel.kind[a] == AXIS_FIXED ? sel.index[a] : NULL;
        if (!entries) {
            struct lazy *l = ARENA_NEW(e->arena, struct lazy);
            int fixed = 0;
            while (fixed < sel.axes && sel.kind[fixed] == AXIS_FIXED)
                fixed++;
            ir_expr *kept = ARENA_ARRAY(e->arena, ir_expr, sel.axes + 1);
            memcpy(kept, at, sizeof *kept * (size_t)fixed);
            *l = (struct lazy){.dtype = base.value->type.dtype,
                               .rank = sel.axes - fixed,
                               .dims = base.value->type.dims + fixed,
                               .base = base.value,
                               .at = kept,
                               .otherwise = other};
            return (struct val){.kind = VAL_LAZY, .lazy = l};
        }
        if (!other)
            elab_load_checks(e, base.value, at, x->span, base_name(e, x->index.base));
        ir_expr load = ir_load(e->module, elab_slot(e, base.value), base.value->type.dtype, sel.axes, at, other);
        return finish_scalar(e, load, open ? NULL : b, x->span);
    }
    if (indexed) {
        elab_error(e, E_index_body, x->span,
                   "inside index notation a part of a tensor is taken from the left: x[i] of x[i, j]");
        e->body = saved;
        return val_error;
    }
    count = selection_map(e, &sel, pars, at);
    if (!other)
        elab_load_checks(e, base.value, at, x->span, base_name(e, x->index.base));
    struct nest_spec n = {.pars = pars, .par_count = count, .span = x->span};
    n.body = ir_load(e->module, elab_slot(e, base.value), base.value->type.dtype, sel.axes, at, other);
    struct ir_value *v = elab_form_nest(e, &n, b);
    if (!open)
        elab_body_close(e, b);
    out = elab_from_value(e, v);
    return out;
}

struct ir_value *elab_update(struct elab *e, struct scope *s, struct val base, const struct ast_expr *target,
                             bool has_op, enum binary_op op, struct val value, struct span at) {
    struct ir_value *old = elab_materialize(e, base, DTYPE_COUNT, target->index.base->span);
    if (!old || value.kind == VAL_ERROR)
        return NULL;
    if (in_notation(e)) {
        elab_error(e, E_not_assignable, at, "nothing is assigned inside index notation");
        return NULL;
    }
    struct selection sel = {.base = old};
    struct body *b = elab_body_open(e);
    struct ir_value *out = NULL;
    if (!select_axes(e, s, target, &sel))
        goto done;
    int pars[2 * MAX_RANK + 2];
    ir_expr at_base[MAX_RANK + 1];
    int count = selection_map(e, &sel, pars, at_base);
    elab_load_checks(e, old, at_base, target->span, base_name(e, target->index.base));
    ir_dim dims[2 * MAX_RANK + 2];
    for (int i = 0; i < count; i++)
        dims[i] = e->indices.at[pars[i]].extent;
    struct ir_type shape = ir_type_make(e->module, old->type.dtype, count, dims);
    ir_expr x;
    e->body = b->outer; /* the value is an ordinary one */
    if (value.kind == VAL_BUFFER)
        value = cell_read(e, value.cell);
    if (value.kind == VAL_TENSOR || value.kind == VAL_LIST) {
        struct ir_value *v = NULL;
        if (value.kind == VAL_TENSOR && value.value->type.rank > count) {
            struct diagnostic *d =
                elab_error(e, E_shape_mismatch, at, "the value has more dimensions than what is assigned");
            elab_label(e, d, "%s = %s", type_text(e, shape), type_text(e, value.value->type));
        } else if (value.kind == VAL_TENSOR && !ir_type_equal(value.value->type, shape)) {
            /* broadcast in the load, without a copy */
            struct ir_type t = value.value->type;
            bool fits = t.dtype == shape.dtype;
            for (int d = 1; fits && d <= t.rank; d++)
                fits =
                    is_const_dim(t.dims[t.rank - d], 1) || elab_dims_equal(e, t.dims[t.rank - d], dims[count - d], at);
            v = fits ? value.value : elab_broadcast(e, value, shape, at, "the selection");
        } else {
            v = elab_broadcast(e, value, shape, at, "the selection");
        }
        e->body = b;
        if (!v)
            goto done;
        ir_expr index[2 * MAX_RANK + 2];
        for (int d = 0; d < v->type.rank; d++)
            index[d] = is_const_dim(v->type.dims[d], 1) && !is_const_dim(dims[count - v->type.rank + d], 1)
                           ? ir_const_int(e->module, I64, 0)
                           : ir_index(e->module, pars[count - v->type.rank + d]);
        x = ir_load(e->module, elab_slot(e, v), v->type.dtype, v->type.rank, index, NULL);
    } else {
        x = elab_scalar(e, value, old->type.dtype, at);
        e->body = b;
    }
    if (!x)
        goto done;
    struct nest_spec n = {.pars = pars, .par_count = count, .base = old, .target = at_base, .span = at};
    if (has_op && (op == BIN_ADD || op == BIN_SUB) && old->type.dtype != BOOL) {
        n.combine = COMBINE_ADD;
        n.body = op == BIN_SUB ? ir_fn1(e->module, FN_neg, x) : x;
    } else if (has_op) {
        ir_expr own = ir_load(e->module, elab_slot(e, old), old->type.dtype, sel.axes, at_base, NULL);
        struct val v = elab_binary(e, op, val_scalar(own), val_scalar(x), at);
        n.body = elab_scalar(e, v, old->type.dtype, at);
        if (!n.body)
            goto done;
    } else {
        n.body = x;
    }
    out = elab_form_nest(e, &n, b);
done:
    e->body = b->outer;
    return out;
}
