/* Run-time values: fitting untyped numbers, elementwise operations with broadcasting, products, reductions, views. */
#include <math.h>
#include <string.h>

#include "frontend/elab.h"

int elab_slot(struct elab *e, struct ir_value *v) {
    while (e->slot_of.n <= v->id)
        VEC_PUSH(e->arena, e->slot_of, 0);
    if (e->slot_of.at[v->id] == 0) {
        VEC_PUSH(e->arena, e->slots, v);
        e->slot_of.at[v->id] = e->slots.n;
    }
    return e->slot_of.at[v->id] - 1;
}

struct val elab_from_value(struct elab *e, struct ir_value *v) {
    if (!v)
        return val_error;
    if (v->type.rank > 0)
        return val_tensor(v);
    return val_scalar(ir_load(e->module, elab_slot(e, v), v->type.dtype, 0, NULL, NULL));
}

struct ir_type val_runtime_type(struct elab *e, struct val v) {
    (void)e;
    switch (v.kind) {
    case VAL_SCALAR: return (struct ir_type){.dtype = v.expr->dtype};
    case VAL_TENSOR: return v.value->type;
    case VAL_BUFFER: return v.cell->type;
    case VAL_LAZY: return (struct ir_type){.dtype = v.lazy->dtype, .rank = v.lazy->rank, .dims = v.lazy->dims};
    default: return (struct ir_type){.dtype = DTYPE_COUNT};
    }
}

static bool integer_fits(enum dtype t, int64_t i) {
    switch (t) {
    case I8: return i >= INT8_MIN && i <= INT8_MAX;
    case I16: return i >= INT16_MIN && i <= INT16_MAX;
    case I32: return i >= INT32_MIN && i <= INT32_MAX;
    case U8: return i >= 0 && i <= UINT8_MAX;
    case U16: return i >= 0 && i <= UINT16_MAX;
    case U32: return i >= 0 && i <= UINT32_MAX;
    case BOOL: return false;
    default: return true; /* u64: 64-bit patterns such as hexadecimal masks are meant as bits */
    }
}

static void quotient_error(struct elab *e, enum dtype t, struct span at) {
    struct diagnostic *d = elab_error(e, E_quotient_to_float, at, "an integer quotient meets %s", dtype_name(t));
    elab_help(e, d, "`/` on integers is the floor division: write one side as a float (0.5, 2.0), or cast: %s(a / b)",
              dtype_name(t));
}

static ir_expr fit_scalar(struct elab *e, struct val v, enum dtype t, struct span at) {
    struct ir_module *m = e->module;
    switch (v.kind) {
    case VAL_INT:
        if (t == DTYPE_COUNT)
            t = I64;
        if (dtype_is_float(t) && v.quotient) {
            quotient_error(e, t, at);
            return NULL;
        }
        if (dtype_is_float(t))
            return ir_const_float(m, t, (double)v.i);
        if (!integer_fits(t, v.i)) {
            elab_error(e, E_number_fit, at, t == BOOL ? "%lld is no %s" : "%lld does not fit %s", (long long)v.i, dtype_name(t));
            return NULL;
        }
        return ir_const_int(m, t, v.i);
    case VAL_DIM:
        if (t != DTYPE_COUNT && dtype_is_float(t) && v.quotient) {
            quotient_error(e, t, at);
            return NULL;
        }
        if (t == BOOL) {
            elab_error(e, E_number_fit, at, "the dimension %s is no bool", dim_text(e, v.dim));
            return NULL;
        }
        return ir_cast(m, t == DTYPE_COUNT ? I64 : t, ir_dim_expr(m, v.dim));
    case VAL_FLOAT:
        if (t == DTYPE_COUNT)
            t = F32;
        if (!dtype_is_float(t)) {
            struct diagnostic *d = elab_error(e, E_number_fit, at, "%g is no %s", v.f, dtype_name(t));
            elab_help(e, d, "convert one side: f32(x) or %s(%g)", dtype_name(t), v.f);
            return NULL;
        }
        return ir_const_float(m, t, v.f);
    case VAL_BOOL:
        if (t != DTYPE_COUNT && t != BOOL) {
            struct diagnostic *d = elab_error(e, E_number_fit, at, "%s is no %s", v.b ? "true" : "false", dtype_name(t));
            elab_help(e, d, "%s(condition) gives 1 or 0", dtype_name(t));
            return NULL;
        }
        return ir_const_int(m, BOOL, v.b);
    default: return NULL;
    }
}

ir_expr elab_scalar(struct elab *e, struct val v, enum dtype t, struct span at) {
    if (v.kind == VAL_BUFFER)
        v = cell_read(e, v.cell);
    switch (v.kind) {
    case VAL_ERROR: return NULL;
    case VAL_INT:
    case VAL_DIM:
    case VAL_FLOAT:
    case VAL_BOOL: return fit_scalar(e, v, t, at);
    case VAL_SCALAR:
        if (t == DTYPE_COUNT || v.expr->dtype == t)
            return v.expr;
        if (v.flex && t != BOOL) {
            if (dtype_is_float(t) && v.quotient) {
                quotient_error(e, t, at);
                return NULL;
            }
            return ir_cast(e->module, t, v.expr);
        }
        {
            struct diagnostic *d = elab_error(e, E_implicit_conversion, at, "expected %s, found %s", dtype_name(t),
                                              dtype_name(v.expr->dtype));
            elab_help(e, d, "convert: %s(…)", dtype_name(t));
        }
        return NULL;
    case VAL_LAZY:
    case VAL_TENSOR: {
        struct ir_type r = val_runtime_type(e, v);
        elab_error(e, E_rank, at, "a scalar was expected, found %s", type_text(e, r));
        return NULL;
    }
    default: {
        struct diagnostic *d = elab_error(e, E_not_a_number, at, "a number was expected");
        elab_label(e, d, "%s", val_describe(e, v));
        return NULL;
    }
    }
}

struct val elab_fit(struct elab *e, struct val v, enum dtype t, struct span at) {
    ir_expr x = elab_scalar(e, v, t, at);
    return x ? val_scalar(x) : val_error;
}

struct ir_value *elab_materialize(struct elab *e, struct val v, enum dtype t, struct span at) {
    if (v.kind == VAL_BUFFER)
        v = cell_read(e, v.cell);
    if (v.kind == VAL_ERROR)
        return NULL;
    if (v.kind == VAL_TENSOR) {
        if (t != DTYPE_COUNT && v.value->type.dtype != t) {
            struct diagnostic *d = elab_error(e, E_implicit_conversion, at, "expected %s, found %s", dtype_name(t),
                                              type_text(e, v.value->type));
            elab_help(e, d, "convert: %s(…)", dtype_name(t));
            return NULL;
        }
        return v.value;
    }
    if (v.kind == VAL_LIST) {
        struct val stacked = elab_concat(e, v.list, -1, at);
        return stacked.kind == VAL_ERROR ? NULL : elab_materialize(e, stacked, t, at);
    }
    if (v.kind == VAL_LAZY) {
        elab_error(e, E_index_body, at, "a tensor that depends on an index variable is needed whole here");
        return NULL;
    }
    if (v.kind == VAL_NONE || v.kind == VAL_STRING || v.kind == VAL_FN || v.kind == VAL_BLOCK || v.kind == VAL_CLASS ||
        v.kind == VAL_TYPE || v.kind == VAL_DTYPE || v.kind == VAL_BUILTIN || v.kind == VAL_MODULE || v.kind == VAL_RANGE ||
        v.kind == VAL_TUPLE) {
        struct diagnostic *d = elab_error(e, E_not_a_number, at, "a tensor was expected");
        elab_label(e, d, "%s", val_describe(e, v));
        return NULL;
    }
    if (!e->in_function) {
        elab_error(e, E_not_static, at, "nothing is computed at file level");
        return NULL;
    }
    ir_expr x = elab_scalar(e, v, t, at);
    if (!x)
        return NULL;
    if (x->kind == X_LOAD && x->count == 0)
        return e->slots.at[x->index];
    if (x->kind == X_CONST)
        return dtype_is_float(x->dtype) ? ir_build_float(&e->b, x->dtype, x->value.f)
                                        : ir_build_int(&e->b, x->dtype, x->value.i);
    if (x->kind == X_INDEX && e->indices.at[x->index].counter)
        return e->indices.at[x->index].counter;
    if (expr_has_index(e, x)) {
        elab_error(e, E_index_body, at, "a value that depends on an index variable is needed in memory here");
        return NULL;
    }
    struct nest_spec n = {.body = x, .span = at};
    return elab_form_nest(e, &n, NULL);
}

/* ---- elements of index dependent tensors ------------------------------------------------------------------------------ */

static bool lazy_elements(struct elab *e, struct lazy *l, struct span at) {
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
    return true;
}

static struct val lazy_map(struct elab *e, enum scalar_fn fn, struct val *args, int n, struct span at, struct span *spans) {
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
        if (!lazy_elements(e, args[i].lazy, at))
            return val_error;
        if (!shape || args[i].lazy->rank > shape->rank)
            shape = args[i].lazy;
    }
    int64_t count = 1;
    for (int d = 0; d < shape->rank; d++) {
        int64_t k = 1;
        ir_dim_is_const(shape->dims[d], &k);
        count *= k;
    }
    struct lazy *out = ARENA_NEW(e->arena, struct lazy);
    *out = (struct lazy){.rank = shape->rank, .dims = shape->dims};
    out->elements = ARENA_ARRAY(e->arena, struct val, count + 1);
    for (int64_t i = 0; i < count; i++) {
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
            int64_t own = 1;
            for (int d = 0; d < args[a].lazy->rank; d++) {
                int64_t k = 1;
                ir_dim_is_const(args[a].lazy->dims[d], &k);
                own *= k;
            }
            xs[a] = args[a].lazy->elements[own ? i % own : 0];
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

static bool is_one(ir_dim d) {
    int64_t n;
    return ir_dim_is_const(d, &n) && n == 1;
}

static void shape_error(struct elab *e, enum scalar_fn fn, struct val *args, int n, int axis, struct span at) {
    static const char *const signs[FN_COUNT] = {
        [FN_add] = "+", [FN_sub] = "-", [FN_mul] = "*", [FN_div] = "/",  [FN_mod] = "%",    [FN_pow] = "**",   [FN_eq] = "==",
        [FN_ne] = "!=", [FN_lt] = "<",  [FN_le] = "<=", [FN_and] = "and", [FN_or] = "or",    [FN_bitand] = "&", [FN_bitor] = "|",
    };
    const char *sign = signs[fn] ? signs[fn] : scalar_table[fn].name;
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
            else if (val_runtime_type(e, args[i]).dims[val_runtime_type(e, args[i]).rank - axis] != a.dims[a.rank - axis])
                b = val_runtime_type(e, args[i]);
        }
    if (a.rank && b.rank)
        elab_note(e, d, (struct span){0}, "the %s is %s on the left and %s on the right",
                  axis == 1 ? "last dimension" : arena_printf(e->arena, "dimension %d from the right", axis),
                  dim_text(e, a.dims[a.rank - axis]), dim_text(e, b.dims[b.rank - axis]));
}

/* The common broadcast shape; false after an error. */
static bool broadcast_shape(struct elab *e, enum scalar_fn fn, struct val *args, int n, struct span at, int *rank, ir_dim *dims) {
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
            if (!out || is_one(out))
                out = k;
            else if (!is_one(k) && !elab_dims_equal(e, out, k, at)) {
                shape_error(e, fn, args, n, d, at);
                return false;
            }
        }
        dims[*rank - d] = out;
    }
    return true;
}

static ir_expr broadcast_load(struct elab *e, struct ir_value *v, int rank, const int *pars) {
    ir_expr at[32];
    int own = v->type.rank;
    for (int d = 0; d < own; d++)
        at[d] = is_one(v->type.dims[d]) ? ir_const_int(e->module, I64, 0) : ir_index(e->module, pars[rank - own + d]);
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
            struct diagnostic *d = elab_error(e, E_implicit_conversion, at, "element types differ: %s and %s", dtype_name(*t),
                                              dtype_name(own));
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
    case CLASS_NUM: good = t != BOOL; want = "numbers"; break;
    case CLASS_FLT: good = dtype_is_float(t); want = "floats"; break;
    case CLASS_INT: good = dtype_is_int(t); want = "integers"; break;
    case CLASS_BIT: good = dtype_is_int(t) || t == BOOL; want = "integers or bools"; break;
    case CLASS_LOG: good = t == BOOL; want = "bools"; break;
    default: break;
    }
    if (!good) {
        struct diagnostic *d = elab_error(e, E_type_mismatch, at, "`%s` needs %s, found %s", info->name, want, dtype_name(t));
        if (info->type_class == CLASS_LOG)
            elab_help(e, d, "compare with 0 to get a bool: x != 0");
        else
            elab_help(e, d, "convert first: f32(…) or i32(…)");
    }
    return good;
}

/* Heavy scalar parts that do not depend on an index are computed once, outside the nest. */
static ir_expr hoisted(struct elab *e, ir_expr x, struct span at) {
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
            xs[i] = hoisted(e, xs[i], at);
    if ((fn == FN_div || fn == FN_mod) && dtype_is_int(t)) {
        double number;
        ir_expr zero = ir_const_int(e->module, t, 0);
        if (ir_expr_is_const(xs[1], &number)) {
            if (number == 0) {
                elab_error(e, E_division_by_zero, at, "division by zero");
                return val_error;
            }
        } else {
            elab_require(e, ir_fn2(e->module, FN_ne, xs[1], zero), at, "division by zero");
        }
        quotient = quotient || fn == FN_div;
    }
    struct val v = val_scalar(ir_fn(e->module, fn, xs));
    v.flex = untyped && t == I64 && info->type_class != CLASS_CMP;
    v.quotient = v.flex && quotient;
    return v;
}

struct val elab_map(struct elab *e, enum scalar_fn fn, struct val *given, int n, struct span at, struct span *spans) {
    struct val args[3];
    bool lazy = false, tensor = false, indexed = false;
    const struct scalar_info *info = &scalar_table[fn];
    for (int i = 0; i < n; i++) {
        args[i] = given[i].kind == VAL_BUFFER ? cell_read(e, given[i].cell) : given[i];
        if (args[i].kind == VAL_LIST && e->in_function) {
            struct ir_value *v = elab_materialize(e, args[i], DTYPE_COUNT, spans ? spans[i] : at);
            args[i] = v ? val_tensor(v) : val_error;
        }
        if (args[i].kind == VAL_ERROR)
            return val_error;
        if (!val_is_runtime(args[i]) && !val_is_number(args[i]) && args[i].kind != VAL_BOOL) {
            struct diagnostic *d = elab_error(e, E_not_a_number, spans ? spans[i] : at, "`%s` needs a number or a tensor", info->name);
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
            elab_error(e, E_bool_expected, spans ? spans[0] : at, "the condition of `where` must be bool, found %s", dtype_name(c));
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
        xs[i] = args[i].kind == VAL_TENSOR ? broadcast_load(e, args[i].value, rank, pars)
                                           : elab_scalar(e, args[i], condition ? BOOL : t, spans ? spans[i] : at);
        if (!xs[i])
            return val_error;
        if (args[i].kind == VAL_SCALAR)
            xs[i] = hoisted(e, xs[i], at);
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
            elab_require(e, ir_fn2(e->module, FN_ne, xs[1], ir_const_int(e->module, t, 0)), at, "division by zero");
        }
    }
    spec.body = ir_fn(e->module, fn, xs);
    struct ir_value *v = elab_form_nest(e, &spec, checks);
    if (checks)
        e->body = checks->outer;
    return val_tensor(v);
}

void elab_require(struct elab *e, ir_expr condition, struct span at, const char *message) {
    int line, column;
    span_position(at, &line, &column);
    const char *text =
        arena_printf(&e->module->arena, "%s:%d:%d: %s", at.source ? at.source->path : "?", line, column, message);
    struct pending_check c = {.condition = condition, .span = at, .message = text};
    struct body *open = e->body, *b = open ? open : elab_body_open(e);
    VEC_PUSH(e->arena, b->checks, c);
    if (!open)
        elab_body_close(e, b);
}

struct val elab_cast(struct elab *e, enum dtype t, struct val v, struct span at) {
    if (v.kind == VAL_BUFFER)
        v = cell_read(e, v.cell);
    switch (v.kind) {
    case VAL_ERROR: return v;
    case VAL_INT:
    case VAL_DIM:
    case VAL_FLOAT:
    case VAL_BOOL: {
        enum dtype own = v.kind == VAL_FLOAT ? F64 : v.kind == VAL_BOOL ? BOOL : I64;
        v.quotient = false;
        ir_expr x = fit_scalar(e, v, own, at);
        return x ? val_scalar(ir_cast(e->module, t, x)) : val_error;
    }
    case VAL_SCALAR: return val_scalar(ir_cast(e->module, t, v.expr));
    case VAL_LIST: {
        struct ir_value *x = elab_materialize(e, v, DTYPE_COUNT, at);
        return x ? elab_cast(e, t, val_tensor(x), at) : val_error;
    }
    case VAL_LAZY: {
        if (!lazy_elements(e, v.lazy, at))
            return val_error;
        struct lazy *l = ARENA_NEW(e->arena, struct lazy);
        *l = (struct lazy){.dtype = t, .rank = v.lazy->rank, .dims = v.lazy->dims};
        int64_t n = 1, k = 1;
        for (int d = 0; d < l->rank; d++) {
            ir_dim_is_const(l->dims[d], &k);
            n *= k;
        }
        l->elements = ARENA_ARRAY(e->arena, struct val, n + 1);
        for (int64_t i = 0; i < n; i++)
            l->elements[i] = elab_cast(e, t, v.lazy->elements[i], at);
        return (struct val){.kind = VAL_LAZY, .lazy = l};
    }
    case VAL_TENSOR: {
        if (v.value->type.dtype == t)
            return v;
        int rank = v.value->type.rank, pars[32];
        struct nest_spec spec = {.pars = pars, .par_count = rank, .span = at};
        for (int d = 0; d < rank; d++)
            pars[d] = elab_new_index(e, arena_printf(e->arena, "i%d", d), v.value->type.dims[d]);
        spec.body = ir_cast(e->module, t, broadcast_load(e, v.value, rank, pars));
        return val_tensor(elab_form_nest(e, &spec, NULL));
    }
    default: {
        struct diagnostic *d = elab_error(e, E_not_a_number, at, "%s(…) converts numbers and tensors", dtype_name(t));
        elab_label(e, d, "%s", val_describe(e, v));
        return val_error;
    }
    }
}

struct val elab_bitcast(struct elab *e, enum dtype t, struct val v, struct span at) {
    if (v.kind == VAL_BUFFER)
        v = cell_read(e, v.cell);
    if (v.kind == VAL_ERROR)
        return v;
    if (v.kind == VAL_TENSOR || v.kind == VAL_SCALAR) {
        enum dtype own = val_runtime_type(e, v).dtype;
        if (dtype_size(own) != dtype_size(t)) {
            elab_error(e, E_type_mismatch, at, "bitcast needs types of one size: %s has %d bytes, %s %d", dtype_name(own),
                       dtype_size(own), dtype_name(t), dtype_size(t));
            return val_error;
        }
        if (v.kind == VAL_SCALAR)
            return val_scalar(ir_bitcast(e->module, t, v.expr));
        int rank = v.value->type.rank, pars[32];
        struct nest_spec spec = {.pars = pars, .par_count = rank, .span = at};
        for (int d = 0; d < rank; d++)
            pars[d] = elab_new_index(e, arena_printf(e->arena, "i%d", d), v.value->type.dims[d]);
        spec.body = ir_bitcast(e->module, t, broadcast_load(e, v.value, rank, pars));
        return val_tensor(elab_form_nest(e, &spec, NULL));
    }
    elab_error(e, E_not_a_number, at, "bitcast needs a typed number or tensor");
    return val_error;
}

/* ---- products ------------------------------------------------------------------------------------------------------------- */

struct val elab_matmul(struct elab *e, struct val a, struct val b, struct span at) {
    struct ir_value *x = elab_materialize(e, a, DTYPE_COUNT, at), *y = elab_materialize(e, b, DTYPE_COUNT, at);
    if (!x || !y)
        return val_error;
    struct ir_type s = x->type, t = y->type;
    if (s.dtype != t.dtype) {
        struct diagnostic *d = elab_error(e, E_implicit_conversion, at, "element types differ in `@`: %s and %s", dtype_name(s.dtype),
                                          dtype_name(t.dtype));
        elab_help(e, d, "there is no implicit conversion");
        return val_error;
    }
    if (s.rank == 0 || t.rank == 0 || s.dtype == BOOL) {
        struct diagnostic *d = elab_error(e, E_matmul_shape, at, "`@` needs numeric tensors with at least one dimension");
        elab_label(e, d, "%s @ %s", type_text(e, s), type_text(e, t));
        return val_error;
    }
    ir_dim inner = s.dims[s.rank - 1], other = t.dims[t.rank == 1 ? 0 : t.rank - 2];
    if (!elab_dims_equal(e, inner, other, at)) {
        struct diagnostic *d = elab_error(e, E_matmul_shape, at, "the shapes do not fit `@`");
        elab_label(e, d, "%s @ %s", type_text(e, s), type_text(e, t));
        elab_note(e, d, (struct span){0}, "the last dimension on the left is %s, the %s on the right is %s", dim_text(e, inner),
                  t.rank == 1 ? "dimension" : "last but one", dim_text(e, other));
        return val_error;
    }
    int sb = s.rank > 2 ? s.rank - 2 : 0, tb = t.rank > 2 ? t.rank - 2 : 0, batch = sb > tb ? sb : tb;
    int pars[32], count = 0;
    ir_expr xa[32], xb[32];
    for (int d = batch; d >= 1; d--) {
        ir_dim p = d <= sb ? s.dims[sb - d] : NULL, q = d <= tb ? t.dims[tb - d] : NULL;
        ir_dim out = !p || (q && is_one(p)) ? q : p;
        if (p && q && !is_one(p) && !is_one(q) && !elab_dims_equal(e, p, q, at)) {
            struct diagnostic *diag = elab_error(e, E_matmul_shape, at, "the leading dimensions do not fit `@`");
            elab_label(e, diag, "%s @ %s", type_text(e, s), type_text(e, t));
            return val_error;
        }
        int i = elab_new_index(e, arena_printf(e->arena, "b%d", batch - d), out);
        pars[count++] = i;
        ir_expr zero = ir_const_int(e->module, I64, 0);
        if (p)
            xa[sb - d] = is_one(p) && !is_one(out) ? zero : ir_index(e->module, i);
        if (q)
            xb[tb - d] = is_one(q) && !is_one(out) ? zero : ir_index(e->module, i);
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
            elab_error(e, E_axis, at, "axis %lld of a tensor with %d dimension%s", (long long)one.i, rank, rank == 1 ? "" : "s");
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
        if (mean || op > RED_ALL || axis.kind != VAL_NONE || !lazy_elements(e, v.lazy, at)) {
            elab_error(e, E_index_body, at, "write this as a reduction with indices: `%s[k < n] …`", what);
            return val_error;
        }
        static const enum scalar_fn fns[] = {FN_add, FN_mul, FN_max, FN_min, FN_or, FN_and};
        int64_t n = 1, k = 1;
        for (int d = 0; d < v.lazy->rank; d++) {
            ir_dim_is_const(v.lazy->dims[d], &k);
            n *= k;
        }
        for (int64_t i = 0; i < n; i++) {
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
            struct diagnostic *d = elab_error(e, E_reshape_size, at, "the shape of reshape must be a list of dimensions");
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
    struct nest_spec n = {.pars = pars, .par_count = t.rank, .body = hoisted(e, x, at), .span = at};
    return elab_from_value(e, elab_form_nest(e, &n, NULL));
}

struct ir_value *elab_broadcast(struct elab *e, struct val v, struct ir_type t, struct span at, const char *what) {
    if (v.kind == VAL_BUFFER)
        v = cell_read(e, v.cell);
    if (v.kind == VAL_ERROR)
        return NULL;
    if (v.kind == VAL_LIST) {
        bool all_static = true;
        for (int i = 0; i < v.list->count; i++)
            all_static = all_static && val_is_static(v.list->items[i]);
        if (all_static) /* numbers take the type of what they are assigned to */
            for (int i = 0; i < v.list->count; i++)
                if (val_is_number(v.list->items[i]) || v.list->items[i].kind == VAL_BOOL) {
                    struct val fitted = elab_fit(e, v.list->items[i], t.dtype, at);
                    if (fitted.kind == VAL_ERROR)
                        return NULL;
                    struct val copy = val_list_new(e, v.list->count);
                    memcpy(copy.list->items, v.list->items, sizeof(struct val) * (size_t)v.list->count);
                    copy.list->items[i] = fitted;
                    v = copy;
                }
    }
    if (v.kind != VAL_TENSOR && v.kind != VAL_LIST && v.kind != VAL_LAZY) {
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
        fits = is_one(a) || elab_dims_equal(e, a, b, at);
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
    struct nest_spec n = {.pars = pars, .par_count = t.rank, .body = broadcast_load(e, x, t.rank, pars), .span = at};
    return elab_form_nest(e, &n, NULL);
}

/* Pieces along an axis, written one after the other into one value. axis < 0: stacked along a new first axis. */
struct val elab_concat(struct elab *e, struct val_list *xs, int axis, struct span at) {
    int n = xs->count;
    if (n == 0) {
        elab_error(e, E_not_a_number, at, "an empty list has no type: a tensor was expected");
        return val_error;
    }
    enum dtype t = DTYPE_COUNT;
    bool lazy = false;
    for (int i = 0; i < n; i++) {
        struct val x = xs->items[i];
        if (x.kind == VAL_BUFFER)
            x = cell_read(e, x.cell);
        if (x.kind == VAL_ERROR)
            return x;
        lazy = lazy || x.kind == VAL_LAZY || (x.kind == VAL_SCALAR && expr_has_index(e, x.expr));
        if (val_is_runtime(x) && !(x.kind == VAL_SCALAR && x.flex) && t == DTYPE_COUNT)
            t = val_runtime_type(e, x).dtype;
    }
    if (t == DTYPE_COUNT) {
        t = I64;
        for (int i = 0; i < n; i++) {
            if (xs->items[i].kind == VAL_FLOAT)
                t = F32;
            if (xs->items[i].kind == VAL_BOOL)
                t = BOOL;
        }
    }
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
    struct val base = elab_full(e, ir_type_make(e->module, t, out_rank, dims), t == BOOL ? val_bool(false) : val_int(0), at);
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

ir_dim elab_runtime_dim(struct elab *e, ir_expr length, int64_t lo, int64_t hi, const char *name, struct span at) {
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
        l->constant = ir_dim_add(e->module, l->constant, ir_dim_mul(e->module, ir_dim_const(e->module, factor), x->dim));
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
