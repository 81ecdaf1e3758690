/* Elementwise operations: one nest over the broadcast shape, a scalar expression for rank 0, entry by entry for small
 * tensors that depend on an index variable. */
#include <string.h>

#include "frontend/elab.h"

/* ---- elements of index dependent tensors ------------------------------------------------------------------------------ */

bool elab_lazy_elements(struct elab *e, struct lazy *l, struct span at) {
    if (l->elements)
        return true;
    int64_t n = 1;
    for (int d = 0; d < l->rank; d++) {
        int64_t k;
        if (!ir_dim_is_const(l->dims[d], &k) || (n *= k) > 4096) {
            elab_error(e, E_index_body, at,
                       "inside index notation only small tensors of known size can be computed with as a whole");
            return false;
        }
    }
    struct val *elements = ARENA_ARRAY(e->arena, struct val, n + 1);
    int rank = l->base->type.rank;
    int axis = rank - l->rank; /* the axes left are the last ones */
    for (int64_t i = 0; i < n; i++) {
        ir_expr *index = ARENA_ARRAY(e->arena, ir_expr, rank + 1);
        if (axis > 0)
            memcpy(index, l->at, sizeof *index * (size_t)axis);
        int64_t rest = i;
        for (int d = l->rank - 1; d >= 0; d--) {
            int64_t k = 1;
            ir_dim_is_const(l->dims[d], &k);
            index[axis + d] = ir_const_int(e->module, I64, rest % k);
            rest /= k;
        }
        if (!l->otherwise)
            elab_load_checks(e, l->base, index, at, "the tensor");
        elements[i] = val_scalar(ir_load(e->module, elab_slot(e, l->base), l->dtype, rank, index, l->otherwise));
    }
    l->elements = elements;
    l->count = n;
    return true;
}

static struct val lazy_map(struct elab *e, enum scalar_fn fn, struct val *args, int n, struct span at,
                           struct span *spans) {
    struct lazy *shape = NULL;
    for (int i = 0; i < n; i++) {
        if (args[i].kind == VAL_TENSOR) {
            struct lazy *l = ARENA_NEW(e->arena, struct lazy);
            *l = (struct lazy){.dtype = args[i].value->type.dtype,
                               .rank = args[i].value->type.rank,
                               .dims = args[i].value->type.dims,
                               .base = args[i].value,
                               .at = NULL};
            args[i] = (struct val){.kind = VAL_LAZY, .lazy = l};
        }
        if (args[i].kind != VAL_LAZY)
            continue;
        if (!elab_lazy_elements(e, args[i].lazy, at))
            return val_error;
        if (!shape || args[i].lazy->rank > shape->rank)
            shape = args[i].lazy;
    }
    struct lazy *out = ARENA_NEW(e->arena, struct lazy);
    *out = (struct lazy){.rank = shape->rank, .dims = shape->dims, .count = shape->count};
    out->elements = ARENA_ARRAY(e->arena, struct val, out->count + 1);
    for (int64_t i = 0; i < out->count; i++) {
        struct val xs[3];
        for (int a = 0; a < n; a++) {
            xs[a] = args[a];
            if (args[a].kind != VAL_LAZY)
                continue;
            for (int d = 1; d <= args[a].lazy->rank; d++)
                if (args[a].lazy->dims[args[a].lazy->rank - d] != shape->dims[shape->rank - d]) {
                    elab_error(e, E_shape_mismatch, at, "inside index notation shapes must be equal");
                    return val_error;
                }
            xs[a] = args[a].lazy->elements[args[a].lazy->count ? i % args[a].lazy->count : 0];
        }
        out->elements[i] = elab_map(e, fn, xs, n, at, spans);
        if (out->elements[i].kind != VAL_SCALAR)
            return val_error;
        out->dtype = out->elements[i].expr->dtype;
    }
    return (struct val){.kind = VAL_LAZY, .lazy = out};
}

/* ---- elementwise ---------------------------------------------------------------------------------------------------------- */

bool elab_dims_equal(struct elab *e, ir_dim a, ir_dim b, struct span at) {
    if (a == b)
        return true;
    if (ir_dim_lt(e->module, a, b) || ir_dim_lt(e->module, b, a))
        return false;
    if (!e->in_function)
        return false;
    for (int i = 0; i < e->entry_checks.n; i++)
        if (e->entry_checks.at[i].a == a && e->entry_checks.at[i].b == b)
            return true;
    /* Not provable: a check, where everything it needs exists. */
    int line, column;
    span_position(at, &line, &column);
    ir_expr same = ir_fn2(e->module, FN_eq, ir_dim_expr(e->module, a), ir_dim_expr(e->module, b));
    struct ir_value *ok = elab_materialize(e, val_scalar(same), BOOL, at);
    if (ok)
        ir_build_check(&e->b, ok,
                       arena_printf(&e->module->arena, "%s:%d:%d: the dimensions %s and %s must be equal",
                                    at.source ? at.source->path : "?", line, column, dim_text(e, a), dim_text(e, b)));
    if (!e->frame)
        VEC_PUSH(e->arena, e->entry_checks, (struct dim_pair){a, b});
    return true;
}

bool dim_is_one(ir_dim d) {
    int64_t n;
    return ir_dim_is_const(d, &n) && n == 1;
}

/* How a source spells a function that has an operator. */
static const char *spelling(enum scalar_fn fn) {
    static const char *const signs[FN_COUNT] = {
        [FN_add] = "+",    [FN_sub] = "-",    [FN_neg] = "-",  [FN_mul] = "*",    [FN_div] = "/",
        [FN_mod] = "%",    [FN_pow] = "**",   [FN_eq] = "==",  [FN_ne] = "!=",    [FN_lt] = "<",
        [FN_le] = "<=",    [FN_and] = "and",  [FN_or] = "or",  [FN_bitand] = "&", [FN_bitor] = "|",
        [FN_bitxor] = "^", [FN_bitnot] = "~", [FN_shl] = "<<", [FN_shr] = ">>",
    };
    return signs[fn] ? signs[fn] : scalar_table[fn].name;
}

static void shape_error(struct elab *e, enum scalar_fn fn, struct val *args, int n, int axis, struct span at) {
    const char *sign = spelling(fn);
    struct diagnostic *d = elab_error(e, E_shape_mismatch, at, "shapes do not match in `%s`", sign);
    if (!d)
        return;
    const char *types[3] = {"", "", ""};
    for (int i = 0; i < n; i++)
        types[i] = val_is_runtime(args[i]) ? type_text(e, val_runtime_type(e, args[i])) : val_describe(e, args[i]);
    if (n == 2)
        elab_label(e, d, "%s %s %s", types[0], sign, types[1]);
    else
        elab_label(e, d, "%s, %s, %s", types[0], types[1], types[2]);
    struct ir_type a = {0}, b = {0};
    for (int i = 0; i < n; i++)
        if (val_is_runtime(args[i]) && val_runtime_type(e, args[i]).rank >= axis) {
            if (a.rank == 0)
                a = val_runtime_type(e, args[i]);
            else if (val_runtime_type(e, args[i]).dims[val_runtime_type(e, args[i]).rank - axis] !=
                     a.dims[a.rank - axis])
                b = val_runtime_type(e, args[i]);
        }
    if (a.rank && b.rank)
        elab_note(e, d, (struct span){0}, "the %s is %s on the left and %s on the right",
                  axis == 1 ? "last dimension" : arena_printf(e->arena, "dimension %d from the right", axis),
                  dim_text(e, a.dims[a.rank - axis]), dim_text(e, b.dims[b.rank - axis]));
}

/* The common broadcast shape; false after an error. */
static bool broadcast_shape(struct elab *e, enum scalar_fn fn, struct val *args, int n, struct span at, int *rank,
                            ir_dim *dims) {
    *rank = 0;
    for (int i = 0; i < n; i++)
        if (args[i].kind == VAL_TENSOR && args[i].value->type.rank > *rank)
            *rank = args[i].value->type.rank;
    for (int d = 1; d <= *rank; d++) {
        ir_dim out = NULL;
        for (int i = 0; i < n; i++) {
            if (args[i].kind != VAL_TENSOR || args[i].value->type.rank < d)
                continue;
            ir_dim k = args[i].value->type.dims[args[i].value->type.rank - d];
            if (!out || dim_is_one(out))
                out = k;
            else if (!dim_is_one(k) && !elab_dims_equal(e, out, k, at)) {
                shape_error(e, fn, args, n, d, at);
                return false;
            }
        }
        dims[*rank - d] = out;
    }
    return true;
}

ir_expr elab_broadcast_load(struct elab *e, struct ir_value *v, int rank, const int *pars) {
    ir_expr at[32];
    int own = v->type.rank;
    for (int d = 0; d < own; d++)
        at[d] =
            dim_is_one(v->type.dims[d]) ? ir_const_int(e->module, I64, 0) : ir_index(e->module, pars[rank - own + d]);
    return ir_load(e->module, elab_slot(e, v), v->type.dtype, own, at, NULL);
}

/* The element type in which a call computes: that of the typed arguments. DTYPE_COUNT: all untyped or flexible. */
static bool common_dtype(struct elab *e, enum scalar_fn fn, struct val *args, int n, struct span at, struct span *spans,
                         enum dtype *t) {
    *t = DTYPE_COUNT;
    int from = scalar_table[fn].type_class == CLASS_SEL ? 1 : 0;
    for (int i = from; i < n; i++) {
        if (!val_is_runtime(args[i]) || (args[i].kind == VAL_SCALAR && args[i].flex))
            continue;
        enum dtype own = val_runtime_type(e, args[i]).dtype;
        if (*t == DTYPE_COUNT) {
            *t = own;
        } else if (*t != own) {
            struct diagnostic *d = elab_error(e, E_implicit_conversion, at, "element types differ: %s and %s",
                                              dtype_name(*t), dtype_name(own));
            if (spans)
                elab_label(e, d, "%s, %s", val_describe(e, args[from]), val_describe(e, args[i]));
            elab_help(e, d, "there is no implicit conversion: write %s(…) or %s(…)", dtype_name(*t), dtype_name(own));
            return false;
        }
    }
    return true;
}

static bool class_takes(struct elab *e, enum scalar_fn fn, enum dtype t, struct span at) {
    const struct scalar_info *info = &scalar_table[fn];
    bool good = true;
    const char *want = "";
    switch (info->type_class) {
    case CLASS_NUM:
        good = t != BOOL;
        want = "numbers";
        break;
    case CLASS_FLT:
        good = dtype_is_float(t);
        want = "floats";
        break;
    case CLASS_INT:
        good = dtype_is_int(t);
        want = "integers";
        break;
    case CLASS_BIT:
        good = dtype_is_int(t) || t == BOOL;
        want = "integers or bools";
        break;
    case CLASS_LOG:
        good = t == BOOL;
        want = "bools";
        break;
    default: break;
    }
    if (!good) {
        struct diagnostic *d =
            elab_error(e, E_type_mismatch, at, "`%s` needs %s, found %s", spelling(fn), want, dtype_name(t));
        if (info->type_class == CLASS_LOG)
            elab_help(e, d, "compare with 0 to get a bool: x != 0");
        else
            elab_help(e, d, "convert first: f32(…) or i32(…)");
    }
    return good;
}

/* Heavy scalar parts that do not depend on an index are computed once, outside the nest. */
ir_expr elab_hoisted(struct elab *e, ir_expr x, struct span at) {
    if (x->kind != X_FN || !dtype_is_float(x->dtype) || expr_has_index(e, x))
        return x;
    struct ir_value *v = elab_materialize(e, val_scalar(x), x->dtype, at);
    return v ? ir_load(e->module, elab_slot(e, v), x->dtype, 0, NULL, NULL) : x;
}

static struct val map_scalars(struct elab *e, enum scalar_fn fn, struct val *args, int n, enum dtype t, struct span at,
                              struct span *spans) {
    const struct scalar_info *info = &scalar_table[fn];
    bool untyped = t == DTYPE_COUNT, quotient = false;
    if (untyped) {
        /* static numbers and flexible integers: a float among them makes it f32 */
        t = I64;
        for (int i = info->type_class == CLASS_SEL ? 1 : 0; i < n; i++) {
            if (args[i].kind == VAL_FLOAT)
                t = F32;
            if (args[i].kind == VAL_BOOL)
                t = BOOL;
            quotient = quotient || args[i].quotient;
        }
    }
    if (!class_takes(e, fn, t, at))
        return val_error;
    ir_expr xs[3];
    bool indexed = false;
    for (int i = 0; i < n; i++) {
        bool condition = i == 0 && info->type_class == CLASS_SEL;
        xs[i] = elab_scalar(e, args[i], condition ? BOOL : t, spans ? spans[i] : at);
        if (!xs[i])
            return val_error;
        indexed = indexed || expr_has_index(e, xs[i]);
    }
    if (indexed)
        for (int i = 0; i < n; i++)
            xs[i] = elab_hoisted(e, xs[i], at);
    if ((fn == FN_div || fn == FN_mod) && dtype_is_int(t)) {
        double number;
        ir_expr zero = ir_const_int(e->module, t, 0);
        if (ir_expr_is_const(xs[1], &number)) {
            if (number == 0) {
                elab_error(e, E_division_by_zero, at, "division by zero");
                return val_error;
            }
        } else {
            elab_require(e, ir_fn2(e->module, FN_ne, xs[1], zero), at, E_division_by_zero, "division by zero");
        }
        quotient = quotient || fn == FN_div;
    }
    struct val v = val_scalar(ir_fn(e->module, fn, xs));
    v.flex = untyped && t == I64 && info->type_class != CLASS_CMP;
    v.quotient = v.flex && quotient;
    return v;
}

/* A list of numbers beside tensors: a tensor whose untyped entries take the others' type. */
static struct val list_tensor(struct elab *e, struct val list, struct val *others, int n, struct span at) {
    enum dtype t = DTYPE_COUNT;
    for (int i = 0; i < n && t == DTYPE_COUNT; i++)
        if (val_is_runtime(others[i]) && !(others[i].kind == VAL_SCALAR && others[i].flex)) {
            enum dtype own = val_runtime_type(e, others[i]).dtype;
            t = own == BOOL ? DTYPE_COUNT : own; /* where's condition says nothing about its values */
        }
    return elab_concat(e, list.list, -1, t, at);
}

struct val elab_map(struct elab *e, enum scalar_fn fn, struct val *given, int n, struct span at, struct span *spans) {
    struct val args[3];
    bool lazy = false, tensor = false, indexed = false;
    const struct scalar_info *info = &scalar_table[fn];
    for (int i = 0; i < n; i++) {
        args[i] = given[i].kind == VAL_BUFFER ? cell_read(e, given[i].cell) : given[i];
        if (args[i].kind == VAL_LIST && e->in_function)
            args[i] = list_tensor(e, args[i], given, n, spans ? spans[i] : at);
        if (args[i].kind == VAL_ERROR)
            return val_error;
        if (!val_is_runtime(args[i]) && !val_is_number(args[i]) && args[i].kind != VAL_BOOL) {
            struct diagnostic *d =
                elab_error(e, E_not_a_number, spans ? spans[i] : at, "`%s` needs a number or a tensor", spelling(fn));
            elab_label(e, d, "%s", val_describe(e, args[i]));
            return val_error;
        }
        lazy = lazy || args[i].kind == VAL_LAZY;
        tensor = tensor || args[i].kind == VAL_TENSOR;
        indexed = indexed || (args[i].kind == VAL_SCALAR && expr_has_index(e, args[i].expr));
    }
    enum dtype t;
    if (!common_dtype(e, fn, args, n, at, spans, &t))
        return val_error;
    if (lazy || (tensor && indexed))
        return lazy_map(e, fn, args, n, at, spans);
    if (!tensor)
        return map_scalars(e, fn, args, n, t, at, spans);
    if (t == DTYPE_COUNT) /* only the condition of `where` is a tensor */
        t = (args[1].kind == VAL_FLOAT || args[2].kind == VAL_FLOAT) ? F32 : args[1].kind == VAL_BOOL ? BOOL : I64;
    if (!class_takes(e, fn, t, at))
        return val_error;
    if (info->type_class == CLASS_SEL) {
        enum dtype c = val_is_runtime(args[0]) ? val_runtime_type(e, args[0]).dtype : BOOL;
        if (c != BOOL) {
            elab_error(e, E_bool_expected, spans ? spans[0] : at, "the condition of `where` must be bool, found %s",
                       dtype_name(c));
            return val_error;
        }
    }
    ir_dim dims[32];
    int rank, pars[32];
    if (!broadcast_shape(e, fn, args, n, at, &rank, dims))
        return val_error;
    struct nest_spec spec = {.pars = pars, .par_count = rank, .span = at};
    for (int d = 0; d < rank; d++)
        pars[d] = elab_new_index(e, arena_printf(e->arena, "i%d", d), dims[d]);
    ir_expr xs[3];
    for (int i = 0; i < n; i++) {
        bool condition = i == 0 && info->type_class == CLASS_SEL;
        xs[i] = args[i].kind == VAL_TENSOR ? elab_broadcast_load(e, args[i].value, rank, pars)
                                           : elab_scalar(e, args[i], condition ? BOOL : t, spans ? spans[i] : at);
        if (!xs[i])
            return val_error;
        if (args[i].kind == VAL_SCALAR)
            xs[i] = elab_hoisted(e, xs[i], at);
    }
    struct body *checks = NULL;
    if ((fn == FN_div || fn == FN_mod) && dtype_is_int(t)) {
        double number;
        if (ir_expr_is_const(xs[1], &number) && number == 0) {
            elab_error(e, E_division_by_zero, at, "division by zero");
            return val_error;
        }
        if (!ir_expr_is_const(xs[1], &number)) {
            checks = elab_body_open(e);
            elab_require(e, ir_fn2(e->module, FN_ne, xs[1], ir_const_int(e->module, t, 0)), at, E_division_by_zero,
                         "division by zero");
        }
    }
    spec.body = ir_fn(e->module, fn, xs);
    struct ir_value *v = elab_form_nest(e, &spec, checks);
    if (checks)
        e->body = checks->outer;
    return val_tensor(v);
}

void elab_require(struct elab *e, ir_expr condition, struct span at, enum error_code code, const char *message) {
    struct pending_check c = {.condition = condition, .span = at, .code = code, .message = message};
    struct body *open = e->body, *b = open ? open : elab_body_open(e);
    VEC_PUSH(e->arena, b->checks, c);
    if (!open)
        elab_body_close(e, b);
}
