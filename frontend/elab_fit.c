/* Untyped numbers take the type of what they meet; values move into memory; casts. */
#include <math.h>
#include <string.h>

#include "frontend/elab.h"
#include "ir/expr.h"

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

/* A finite number that the type would round to infinity. */
static ir_expr fit_float(struct elab *e, double v, enum dtype t, struct span at) {
    if (isinf(v) || !isinf(float_round(t, v)))
        return ir_const_float(e->module, t, v);
    struct diagnostic *d = elab_error(e, E_number_fit, at, "%g does not fit %s", v, dtype_name(t));
    elab_help(e, d, "its largest value is %s.max; infinity is written `inf`", dtype_name(t));
    return NULL;
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
            return fit_float(e, (double)v.i, t, at);
        if (!integer_fits(t, v.i)) {
            elab_error(e, E_number_fit, at, t == BOOL ? "%lld is no %s" : "%lld does not fit %s", (long long)v.i,
                       dtype_name(t));
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
        return fit_float(e, v.f, t, at);
    case VAL_BOOL:
        if (t != DTYPE_COUNT && t != BOOL) {
            struct diagnostic *d =
                elab_error(e, E_number_fit, at, "%s is no %s", v.b ? "true" : "false", dtype_name(t));
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
        struct val stacked = elab_concat(e, v.list, -1, t, at);
        return stacked.kind == VAL_ERROR ? NULL : elab_materialize(e, stacked, t, at);
    }
    if (v.kind == VAL_LAZY) {
        elab_error(e, E_index_body, at, "a tensor that depends on an index variable is needed whole here");
        return NULL;
    }
    if (v.kind == VAL_NONE || v.kind == VAL_STRING || v.kind == VAL_FN || v.kind == VAL_BLOCK || v.kind == VAL_CLASS ||
        v.kind == VAL_TYPE || v.kind == VAL_DTYPE || v.kind == VAL_BUILTIN || v.kind == VAL_MODULE ||
        v.kind == VAL_RANGE || v.kind == VAL_TUPLE) {
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
        if (!elab_lazy_elements(e, v.lazy, at))
            return val_error;
        struct lazy *l = ARENA_NEW(e->arena, struct lazy);
        *l = (struct lazy){.dtype = t, .rank = v.lazy->rank, .dims = v.lazy->dims, .count = v.lazy->count};
        l->elements = ARENA_ARRAY(e->arena, struct val, l->count + 1);
        for (int64_t i = 0; i < l->count; i++)
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
        spec.body = ir_cast(e->module, t, elab_broadcast_load(e, v.value, rank, pars));
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
            elab_error(e, E_type_mismatch, at, "bitcast needs types of one size: %s has %d bytes, %s %d",
                       dtype_name(own), dtype_size(own), dtype_name(t), dtype_size(t));
            return val_error;
        }
        if (v.kind == VAL_SCALAR)
            return val_scalar(ir_bitcast(e->module, t, v.expr));
        int rank = v.value->type.rank, pars[32];
        struct nest_spec spec = {.pars = pars, .par_count = rank, .span = at};
        for (int d = 0; d < rank; d++)
            pars[d] = elab_new_index(e, arena_printf(e->arena, "i%d", d), v.value->type.dims[d]);
        spec.body = ir_bitcast(e->module, t, elab_broadcast_load(e, v.value, rank, pars));
        return val_tensor(elab_form_nest(e, &spec, NULL));
    }
    elab_error(e, E_not_a_number, at, "bitcast needs a typed number or tensor");
    return val_error;
}
