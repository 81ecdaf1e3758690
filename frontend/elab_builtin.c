/* The built-in functions: what the language says is in scope everywhere and cannot be said in .mxl itself. One row of
 * the table a function: its name and its parameters, `?` behind those that may be left out. */
#include <math.h>
#include <string.h>

#include "base/text.h"
#include "frontend/elab.h"

enum { MOST = 6 };

struct given {
    struct val v[MOST];
    bool has[MOST];
    struct span span[MOST];
};

/* As a user writes the call: `concat(xs, axis = …)`. */
static const char *signature_text(struct elab *e, const struct elab_builtin *b) {
    const char *out = arena_printf(e->arena, "%s(", b->name);
    for (const char *s = b->signature; *s;) {
        int k = (int)strcspn(s, " ");
        bool optional = k && s[k - 1] == '?';
        out = arena_printf(e->arena, "%s%s%.*s%s", out, s == b->signature ? "" : ", ", k - optional, s,
                           optional ? " = …" : "");
        s += k + (s[k] == ' ');
    }
    return arena_printf(e->arena, "%s)", out);
}

/* Distributes arguments by the row's signature. */
static bool take(struct elab *e, const struct elab_builtin *b, struct arg *args, int count, struct given *g,
                 struct span at) {
    memset(g, 0, sizeof *g);
    char names[MOST][24];
    bool optional[MOST];
    int n = 0, next = 0;
    for (const char *s = b->signature; *s && n < MOST;) {
        size_t k = strcspn(s, " ");
        size_t own = k && s[k - 1] == '?' ? k - 1 : k;
        snprintf(names[n], sizeof names[n], "%.*s", (int)own, s);
        optional[n++] = own != k;
        s += k + (s[k] == ' ');
    }
    for (int i = 0; i < count; i++) {
        int p = -1;
        if (args[i].cell) {
            elab_error(e, E_inout_argument, args[i].span, "`%s` takes no inout argument", b->name);
            return false;
        }
        if (args[i].name) {
            for (int k = 0; k < n; k++)
                if (strcmp(names[k], args[i].name) == 0)
                    p = k;
            if (p < 0) {
                struct diagnostic *d =
                    elab_error(e, E_argument_name, args[i].span, "`%s` has no parameter `%s`", b->name, args[i].name);
                elab_help(e, d, "%s", signature_text(e, b));
                return false;
            }
        } else if ((p = next++) >= n) {
            struct diagnostic *d = elab_error(e, E_argument_count, args[i].span, "`%s` takes %d argument%s, %d given",
                                              b->name, n, n == 1 ? "" : "s", count);
            elab_help(e, d, "%s", signature_text(e, b));
            return false;
        }
        if (g->has[p]) {
            struct diagnostic *d =
                elab_error(e, E_argument_twice, args[i].span, "the argument `%s` is given twice", names[p]);
            elab_help(e, d, "%s", signature_text(e, b));
            return false;
        }
        g->has[p] = true;
        g->v[p] = args[i].value;
        g->span[p] = args[i].span;
    }
    for (int k = 0; k < n; k++)
        if (!g->has[k] && !optional[k]) {
            struct diagnostic *d =
                elab_error(e, E_argument_missing, at, "`%s` needs the argument `%s`", b->name, names[k]);
            elab_help(e, d, "%s", signature_text(e, b));
            return false;
        }
    return true;
}

static struct val wrong(struct elab *e, const struct elab_builtin *b, struct given *g, int i, const char *want) {
    if (g->v[i].kind == VAL_ERROR)
        return val_error;
    struct diagnostic *d = elab_error(e, E_builtin_argument, g->span[i], "`%s` needs %s", b->name, want);
    elab_label(e, d, "%s", val_describe(e, g->v[i]));
    return val_error;
}

static bool static_bool(struct elab *e, const struct elab_builtin *b, struct given *g, int i, bool *value) {
    if (!g->has[i])
        return true;
    if (g->v[i].kind != VAL_BOOL) {
        wrong(e, b, g, i, "true or false here");
        return false;
    }
    *value = g->v[i].b;
    return true;
}

/* An axis argument as 0 .. rank-1. */
static bool static_axis(struct elab *e, const struct elab_builtin *b, struct given *g, int i, int rank, int otherwise,
                        int *axis) {
    int64_t a = otherwise;
    if (g->has[i]) {
        if (g->v[i].kind != VAL_INT) {
            wrong(e, b, g, i, "a known axis");
            return false;
        }
        a = g->v[i].i;
    }
    if (a < 0)
        a += rank;
    if (a < 0 || a >= rank) {
        elab_error(e, E_axis, g->has[i] ? g->span[i] : g->span[0], "axis %lld of a tensor with %d dimension%s",
                   (long long)(g->has[i] ? g->v[i].i : otherwise), rank, rank == 1 ? "" : "s");
        return false;
    }
    *axis = (int)a;
    return true;
}

/* ---- scalar functions ------------------------------------------------------------------------------------------------------ */

static bool in_list(struct val v) {
    return v.kind == VAL_LIST;
}

static struct val static_float(enum scalar_fn fn, double a, double b) {
    switch (fn) {
    case FN_exp: return val_float(exp(a));
    case FN_expm1: return val_float(expm1(a));
    case FN_log: return val_float(log(a));
    case FN_log1p: return val_float(log1p(a));
    case FN_sqrt: return val_float(sqrt(a));
    case FN_sigmoid: return val_float(1 / (1 + exp(-a)));
    case FN_erf: return val_float(erf(a));
    case FN_sin: return val_float(sin(a));
    case FN_cos: return val_float(cos(a));
    case FN_tan: return val_float(tan(a));
    case FN_asin: return val_float(asin(a));
    case FN_acos: return val_float(acos(a));
    case FN_atan: return val_float(atan(a));
    case FN_atan2: return val_float(atan2(a, b));
    case FN_sinh: return val_float(sinh(a));
    case FN_cosh: return val_float(cosh(a));
    case FN_tanh: return val_float(tanh(a));
    case FN_asinh: return val_float(asinh(a));
    case FN_acosh: return val_float(acosh(a));
    case FN_atanh: return val_float(atanh(a));
    case FN_floor: return val_float(floor(a));
    case FN_ceil: return val_float(ceil(a));
    case FN_round: return val_float(nearbyint(a));
    case FN_trunc: return val_float(trunc(a));
    case FN_abs: return val_float(fabs(a));
    case FN_sign: return val_float((a > 0) - (a < 0));
    case FN_max: return val_float(isnan(a) || isnan(b) ? NAN : a > b ? a : b);
    case FN_min: return val_float(isnan(a) || isnan(b) ? NAN : a < b ? a : b);
    case FN_isnan: return val_bool(isnan(a));
    default: return val_error;
    }
}

static struct val static_scalar(struct elab *e, enum scalar_fn fn, struct val *v, int n, struct span at) {
    bool floats = v[0].kind == VAL_FLOAT || (n > 1 && v[1].kind == VAL_FLOAT),
         dims = v[0].kind == VAL_DIM || (n > 1 && v[1].kind == VAL_DIM);
    if (dims && !floats && (fn == FN_max || fn == FN_min)) {
        ir_dim a, b;
        val_as_dim(e, v[0], &a);
        val_as_dim(e, v[1], &b);
        return val_dim(e, fn == FN_max ? ir_dim_max(e->module, a, b) : ir_dim_min(e->module, a, b));
    }
    if (dims) {
        struct val args[2];
        for (int i = 0; i < n; i++)
            if ((args[i] = elab_fit(e, v[i], F32, at)).kind == VAL_ERROR)
                return val_error;
        return elab_map(e, fn, args, n, at, NULL);
    }
    if (!floats) {
        int64_t a = v[0].i, b = n > 1 ? v[1].i : 0;
        switch (fn) {
        case FN_abs:
            if (a == INT64_MIN) {
                elab_error(e, E_number_fit, at, "the result of this static arithmetic does not fit 64 bits");
                return val_error;
            }
            return val_int(a < 0 ? -a : a);
        case FN_sign: return val_int((a > 0) - (a < 0));
        case FN_max: return a > b ? v[0] : v[1];
        case FN_min: return a < b ? v[0] : v[1];
        case FN_floor:
        case FN_ceil:
        case FN_round:
        case FN_trunc: return v[0];
        default: break;
        }
    }
    return static_float(fn, v[0].kind == VAL_FLOAT ? v[0].f : (double)v[0].i,
                        n > 1 ? (v[1].kind == VAL_FLOAT ? v[1].f : (double)v[1].i) : 0);
}

static struct val scalar_call(struct elab *e, enum scalar_fn fn, struct val *v, int n, struct span at,
                              struct span *spans) {
    int length = -1;
    bool runtime = false, tensors = false;
    for (int i = 0; i < n; i++)
        tensors = tensors || v[i].kind == VAL_BUFFER || v[i].kind == VAL_TENSOR || v[i].kind == VAL_LAZY;
    for (int i = 0; i < n; i++) {
        runtime = runtime || val_is_runtime(v[i]);
        if (!in_list(v[i]) || tensors) /* beside a tensor a list is one, too */
            continue;
        if (length >= 0 && v[i].list->count != length) {
            elab_error(e, E_list_length, at, "lists of different lengths: %d and %d", length, v[i].list->count);
            return val_error;
        }
        length = v[i].list->count;
    }
    if (length >= 0) {
        struct val out = val_list_new(e, length);
        for (int k = 0; k < length; k++) {
            struct val one[3];
            for (int i = 0; i < n; i++)
                one[i] = in_list(v[i]) ? v[i].list->items[k] : v[i];
            if ((out.list->items[k] = scalar_call(e, fn, one, n, at, spans)).kind == VAL_ERROR)
                return val_error;
        }
        return out;
    }
    if (fn == FN_where && v[0].kind == VAL_BOOL)
        return v[v[0].b ? 1 : 2];
    bool numbers =
        scalar_table[fn].type_class == CLASS_NUM || scalar_table[fn].type_class == CLASS_FLT || fn == FN_isnan;
    for (int i = 0; i < n; i++)
        numbers = numbers && val_is_number(v[i]);
    if (!runtime && numbers && fn != FN_fma)
        return static_scalar(e, fn, v, n, at);
    if (scalar_table[fn].type_class == CLASS_FLT)
        for (int i = 0; i < n; i++)
            if (v[i].kind == VAL_SCALAR && v[i].flex) {
                struct diagnostic *d = elab_error(e, E_type_mismatch, spans ? spans[i] : at,
                                                  "`%s` needs floats, found an index", scalar_table[fn].name);
                elab_help(e, d, "convert first: %s(f32(…))", scalar_table[fn].name);
                return val_error;
            }
    if (!e->in_function && runtime) {
        elab_error(e, E_not_static, at, "nothing is computed at file level");
        return val_error;
    }
    return elab_map(e, fn, v, n, at, spans);
}

static struct val run_scalar(struct elab *e, const struct elab_builtin *b, struct arg *args, int count,
                             struct span at) {
    struct given g;
    if (!take(e, b, args, count, &g, at))
        return val_error;
    return scalar_call(e, (enum scalar_fn)b->code, g.v, scalar_table[b->code].arity, at, g.span);
}

/* ---- reductions -------------------------------------------------------------------------------------------------------------- */

static struct val reduce_list(struct elab *e, const struct elab_builtin *b, struct val list, struct span at) {
    int n = list.list->count;
    struct val out;
    bool sum = strcmp(b->name, "sum") == 0, prod = strcmp(b->name, "prod") == 0;
    bool any = strcmp(b->name, "any") == 0, all = strcmp(b->name, "all") == 0;
    bool arg = strncmp(b->name, "arg", 3) == 0;
    if (n == 0 && !sum && !prod && !any && !all) {
        elab_error(e, E_builtin_argument, at, "`%s` of an empty list", b->name);
        return val_error;
    }
    if (strcmp(b->name, "mean") == 0 || arg) {
        struct ir_value *v = elab_materialize(e, list, DTYPE_COUNT, at);
        return v ? elab_reduce(e, b->name, elab_from_value(e, v), val_none, false, at) : val_error;
    }
    out = sum ? val_int(0) : prod ? val_int(1) : any ? val_bool(false) : all ? val_bool(true) : list.list->items[0];
    for (int i = 0; i < n; i++) {
        struct val x = list.list->items[i];
        if (sum || prod || any || all) {
            out = i == 0 ? x : elab_binary(e, sum ? BIN_ADD : prod ? BIN_MUL : any ? BIN_OR : BIN_AND, out, x, at);
        } else if (i > 0) {
            struct val pair[2] = {out, x};
            out = scalar_call(e, strcmp(b->name, "max") == 0 ? FN_max : FN_min, pair, 2, at, NULL);
        }
        if (out.kind == VAL_ERROR)
            return out;
    }
    return out;
}

static struct val run_reduce(struct elab *e, const struct elab_builtin *b, struct arg *args, int count,
                             struct span at) {
    /* two-argument max and min are elementwise */
    if (b->code >= 0 && count == 2 && !args[0].name && !args[1].name) {
        struct val v[2] = {args[0].value, args[1].value};
        struct span spans[2] = {args[0].span, args[1].span};
        return scalar_call(e, (enum scalar_fn)b->code, v, 2, at, spans);
    }
    if (count >= 2 && !args[1].name) {
        struct diagnostic *d =
            elab_error(e, E_builtin_argument, args[1].span, "the axis of `%s` is given by name", b->name);
        if (args[1].value.kind == VAL_INT)
            elab_help(e, d, "%s(x, axis = %lld)", b->name, (long long)args[1].value.i);
        else
            elab_help(e, d, "%s(x, axis = …)", b->name);
        return val_error;
    }
    struct given g;
    bool keepdims = false;
    if (!take(e, b, args, count, &g, at) || !static_bool(e, b, &g, 2, &keepdims))
        return val_error;
    if (g.v[0].kind == VAL_LIST && !g.has[1])
        return reduce_list(e, b, g.v[0], at);
    if (val_is_number(g.v[0]) || g.v[0].kind == VAL_BOOL)
        return g.v[0];
    if (!e->in_function)
        return wrong(e, b, &g, 0, "a list at file level");
    return elab_reduce(e, b->name, g.v[0], g.has[1] ? g.v[1] : val_none, keepdims, at);
}

/* ---- making and arranging tensors ------------------------------------------------------------------------------------------------ */

static bool given_type(struct elab *e, const struct elab_builtin *b, struct given *g, int i, struct ir_type *t) {
    if (g->v[i].kind == VAL_TYPE)
        *t = *g->v[i].type;
    else if (g->v[i].kind == VAL_DTYPE)
        *t = (struct ir_type){.dtype = g->v[i].dtype};
    else {
        wrong(e, b, g, i, "a type such as f32[2, 3]");
        return false;
    }
    return true;
}

static struct val run_full(struct elab *e, const struct elab_builtin *b, struct arg *args, int count, struct span at) {
    struct given g;
    struct ir_type t;
    if (!take(e, b, args, count, &g, at) || !given_type(e, b, &g, 0, &t))
        return val_error;
    if (!e->in_function && t.rank > 0) {
        elab_error(e, E_not_static, at, "nothing is computed at file level");
        return val_error;
    }
    struct val v = b->code == 2 ? g.v[1] : t.dtype == BOOL ? val_bool(b->code == 1) : val_int(b->code);
    return elab_full(e, t, v, at);
}

static struct val run_zeros_like(struct elab *e, const struct elab_builtin *b, struct arg *args, int count,
                                 struct span at) {
    struct given g;
    if (!take(e, b, args, count, &g, at))
        return val_error;
    if (!val_is_runtime(g.v[0]))
        return wrong(e, b, &g, 0, "a tensor");
    struct ir_type t = val_runtime_type(e, g.v[0]);
    return elab_full(e, t, t.dtype == BOOL ? val_bool(b->code) : val_int(b->code), at);
}

static struct val run_reshape(struct elab *e, const struct elab_builtin *b, struct arg *args, int count,
                              struct span at) {
    struct given g;
    return take(e, b, args, count, &g, at) ? elab_reshape(e, g.v[0], g.v[1], at) : val_error;
}

static struct val run_transpose(struct elab *e, const struct elab_builtin *b, struct arg *args, int count,
                                struct span at) {
    struct given g;
    if (!take(e, b, args, count, &g, at))
        return val_error;
    if (!val_is_runtime(g.v[0]))
        return wrong(e, b, &g, 0, "a tensor");
    int rank = val_runtime_type(e, g.v[0]).rank, perm[32];
    bool seen[32] = {false};
    for (int d = 0; d < rank; d++)
        perm[d] = rank - 1 - d;
    if (g.has[1]) {
        bool fine = g.v[1].kind == VAL_LIST && g.v[1].list->count == rank;
        for (int d = 0; fine && d < rank; d++) {
            struct val x = g.v[1].list->items[d];
            int64_t a = x.kind == VAL_INT ? (x.i < 0 ? x.i + rank : x.i) : -1;
            fine = a >= 0 && a < rank && !seen[a];
            if (fine) {
                perm[d] = (int)a;
                seen[a] = true;
            }
        }
        if (!fine) {
            struct diagnostic *d =
                elab_error(e, E_axis, g.span[1], "the axes of transpose must be a permutation of 0..%d", rank);
            elab_label(e, d, "%s", val_describe(e, g.v[1]));
            return val_error;
        }
    }
    return elab_transpose(e, g.v[0], perm, at);
}

static struct val run_concat(struct elab *e, const struct elab_builtin *b, struct arg *args, int count,
                             struct span at) {
    struct given g;
    if (!take(e, b, args, count, &g, at))
        return val_error;
    if (g.v[0].kind != VAL_LIST || g.v[0].list->count == 0)
        return wrong(e, b, &g, 0, "a list with at least one tensor");
    struct val first = g.v[0].list->items[0];
    int rank = val_is_runtime(first) ? val_runtime_type(e, first).rank : 0, axis;
    bool stack = b->code == 1;
    if (!stack) {
        if (!static_axis(e, b, &g, 1, rank, 0, &axis))
            return val_error;
        return elab_concat(e, g.v[0].list, axis, DTYPE_COUNT, at);
    }
    if (!static_axis(e, b, &g, 1, rank + 1, 0, &axis))
        return val_error;
    struct val v = elab_concat(e, g.v[0].list, -1, DTYPE_COUNT, at);
    if (axis == 0 || v.kind == VAL_ERROR)
        return v;
    int perm[32];
    for (int d = 0; d <= rank; d++)
        perm[d] = d < axis ? d + 1 : d == axis ? 0 : d;
    return elab_transpose(e, v, perm, at);
}

/* ---- sorting and scanning ---------------------------------------------------------------------------------------------------------- */

static struct val run_sort(struct elab *e, const struct elab_builtin *b, struct arg *args, int count, struct span at) {
    struct given g;
    bool descending = b->code == 2;
    int axis;
    if (!take(e, b, args, count, &g, at))
        return val_error;
    int axis_at = b->code == 2 ? 2 : 1;
    if (b->code != 2 && !static_bool(e, b, &g, 2, &descending))
        return val_error;
    struct ir_value *x = elab_materialize(e, g.v[0], DTYPE_COUNT, g.span[0]);
    if (!x || !static_axis(e, b, &g, axis_at, x->type.rank, -1, &axis))
        return val_error;
    struct ir_type t = x->type;
    ir_dim *dims = ARENA_ARRAY(e->arena, ir_dim, t.rank + 1);
    memcpy(dims, t.dims, sizeof *dims * (size_t)t.rank);
    ir_dim limit = NULL;
    if (b->code == 2) {
        if (!val_as_dim(e, g.v[1], &limit))
            return wrong(e, b, &g, 1, "a known number");
        if (ir_dim_lt(e->module, dims[axis], limit) || ir_dim_lower(limit) < 0) {
            elab_error(e, E_builtin_argument, g.span[1], "topk of %s entries takes at most as many, not %s",
                       dim_text(e, dims[axis]), dim_text(e, limit));
            return val_error;
        }
        if (!ir_dim_le(e->module, limit, dims[axis]))
            elab_require(e, ir_fn2(e->module, FN_le, ir_dim_expr(e->module, limit), ir_dim_expr(e->module, dims[axis])),
                         at, E_builtin_argument, "topk asks for more than there are");
        dims[axis] = limit;
    }
    struct ir_op *op = ir_op_new(&e->b, OP_sort, &x, 1, 0);
    op->sort.axis = axis;
    op->sort.descending = descending;
    op->sort.limit = limit;
    struct ir_value *values = ir_op_result(op, ir_type_make(e->module, t.dtype, t.rank, dims));
    struct ir_value *positions = ir_op_result(op, ir_type_make(e->module, I64, t.rank, dims));
    if (b->code == 0)
        return elab_from_value(e, values);
    struct val at32 = elab_cast(e, I32, elab_from_value(e, positions), at);
    if (b->code == 1)
        return at32;
    struct val out = val_list_new(e, 2);
    out.kind = VAL_TUPLE;
    out.list->items[0] = elab_from_value(e, values);
    out.list->items[1] = at32;
    return out;
}

static struct val run_scan(struct elab *e, const struct elab_builtin *b, struct arg *args, int count, struct span at) {
    struct given g;
    bool reverse = false, exclusive = false;
    int axis;
    if (!take(e, b, args, count, &g, at) || !static_bool(e, b, &g, 2, &reverse) ||
        !static_bool(e, b, &g, 3, &exclusive))
        return val_error;
    struct ir_value *x = elab_materialize(e, g.v[0], DTYPE_COUNT, g.span[0]);
    if (!x)
        return val_error;
    if (!g.has[1] && x->type.rank != 1) {
        elab_error(e, E_argument_missing, at, "`%s` of a tensor with %d dimensions needs the argument `axis`", b->name,
                   x->type.rank);
        return val_error;
    }
    if (!static_axis(e, b, &g, 1, x->type.rank, 0, &axis))
        return val_error;
    if (x->type.dtype == BOOL)
        return wrong(e, b, &g, 0, "numbers; convert with i32(…)");
    struct ir_op *op = ir_op_new(&e->b, OP_scan, &x, 1, 0);
    op->scan.axis = axis;
    op->scan.op = b->code == 0 ? RED_SUM : RED_PROD;
    op->scan.reverse = reverse;
    op->scan.exclusive = exclusive;
    return elab_from_value(e, ir_op_result(op, x->type));
}

/* ---- lists ---------------------------------------------------------------------------------------------------------------------------- */

static struct val run_len(struct elab *e, const struct elab_builtin *b, struct arg *args, int count, struct span at) {
    struct given g;
    if (!take(e, b, args, count, &g, at))
        return val_error;
    if (g.v[0].kind == VAL_LIST)
        return val_int(g.v[0].list->count);
    if (g.v[0].kind == VAL_STRING)
        return val_int((int64_t)strlen(g.v[0].s));
    if (val_is_runtime(g.v[0]) && val_runtime_type(e, g.v[0]).rank > 0)
        return val_dim(e, val_runtime_type(e, g.v[0]).dims[0]);
    return wrong(e, b, &g, 0, "a list, a string or a tensor");
}

static struct val run_zip(struct elab *e, const struct elab_builtin *b, struct arg *args, int count, struct span at) {
    if (count == 0) {
        elab_error(e, E_argument_missing, at, "`zip` needs lists");
        return val_error;
    }
    struct val_list **lists = ARENA_ARRAY(e->arena, struct val_list *, count);
    for (int i = 0; i < count; i++) {
        if (!elab_items(e, args[i].value, &lists[i], args[i].span))
            return val_error;
        if (lists[i]->count != lists[0]->count) {
            struct diagnostic *d = elab_error(e, E_list_length, args[i].span, "zip of lists of different lengths");
            elab_label(e, d, "%d and %d", lists[0]->count, lists[i]->count);
            return val_error;
        }
    }
    (void)b;
    struct val out = val_list_new(e, lists[0]->count);
    for (int k = 0; k < lists[0]->count; k++) {
        struct val row = val_list_new(e, count);
        for (int i = 0; i < count; i++)
            row.list->items[i] = lists[i]->items[k];
        out.list->items[k] = row;
    }
    return out;
}

static struct val run_find(struct elab *e, const struct elab_builtin *b, struct arg *args, int count, struct span at) {
    struct given g;
    struct val_list *list;
    if (!take(e, b, args, count, &g, at) || !elab_items(e, g.v[0], &list, g.span[0]))
        return val_error;
    for (int i = 0; i < list->count; i++) {
        bool decided = true;
        if (val_equal(e, list->items[i], g.v[1], &decided))
            return val_int(i);
    }
    return val_int(-1);
}

static struct val run_split(struct elab *e, const struct elab_builtin *b, struct arg *args, int count, struct span at) {
    struct given g;
    if (!take(e, b, args, count, &g, at))
        return val_error;
    if (g.v[0].kind != VAL_STRING)
        return wrong(e, b, &g, 0, "a string");
    if (g.v[1].kind != VAL_STRING || !*g.v[1].s)
        return wrong(e, b, &g, 1, "a separator");
    int parts = 1;
    for (const char *s = g.v[0].s; (s = strstr(s, g.v[1].s)); s += strlen(g.v[1].s))
        parts++;
    struct val out = val_list_new(e, parts);
    const char *s = g.v[0].s;
    for (int i = 0; i < parts; i++) {
        const char *end = strstr(s, g.v[1].s);
        out.list->items[i] =
            val_string(end ? arena_strndup(e->arena, s, (size_t)(end - s)) : arena_strdup(e->arena, s));
        s = end ? end + strlen(g.v[1].s) : s;
    }
    return out;
}

static struct val run_buffers(struct elab *e, const struct elab_builtin *b, struct arg *args, int count,
                              struct span at) {
    struct given g;
    if (!take(e, b, args, count, &g, at))
        return val_error;
    struct val out = val_list_new(e, 0);
    elab_list_buffers(e, g.v[0], b->code == 0, b->code == 1, &out, g.span[0]);
    return out;
}

/* ---- gradients, bits, output -------------------------------------------------------------------------------------------------------- */

struct wrt {
    VEC(struct ir_value *) operands;
    VEC(struct ir_buffer *) buffers;
};

static bool add_wrt(struct elab *e, struct wrt *w, struct val v, struct span at) {
    struct ir_type t = {.dtype = F32};
    if (v.kind == VAL_BUFFER || v.kind == VAL_TENSOR || v.kind == VAL_SCALAR)
        t = val_runtime_type(e, v);
    if (v.kind == VAL_ERROR)
        return false;
    if (!(v.kind == VAL_BUFFER || v.kind == VAL_TENSOR || v.kind == VAL_SCALAR) || !dtype_is_float(t.dtype)) {
        struct diagnostic *d = elab_error(e, E_grad_wrt, at, "grad needs floats to differentiate with respect to");
        elab_label(e, d, "%s", val_describe(e, v));
        return false;
    }
    VEC_PUSH(e->arena, w->buffers, v.kind == VAL_BUFFER ? v.cell->buffer : NULL);
    struct ir_value *x = v.kind == VAL_BUFFER ? buffer_value(e, v.cell) : elab_materialize(e, v, DTYPE_COUNT, at);
    VEC_PUSH(e->arena, w->operands, x);
    return x != NULL;
}

static struct val run_grad(struct elab *e, const struct elab_builtin *b, struct arg *args, int count, struct span at) {
    struct given g;
    if (!take(e, b, args, count, &g, at))
        return val_error;
    struct val y = g.v[0].kind == VAL_BUFFER ? cell_read(e, g.v[0].cell) : g.v[0];
    if (y.kind == VAL_ERROR)
        return val_error;
    if (!e->in_function || in_notation(e)) {
        elab_error(e, E_grad_scalar, at, "grad stands in a function of the program, outside index notation");
        return val_error;
    }
    if (y.kind != VAL_SCALAR || !dtype_is_float(y.expr->dtype)) {
        struct diagnostic *d = elab_error(e, E_grad_scalar, g.span[0], "grad needs a scalar float to differentiate");
        elab_label(e, d, "%s", val_describe(e, y));
        if (val_is_runtime(y) && val_runtime_type(e, y).rank > 0)
            elab_help(e, d, "reduce it first: mean(…) or sum(…)");
        return val_error;
    }
    struct wrt w = {0};
    VEC_PUSH(e->arena, w.operands, elab_materialize(e, y, DTYPE_COUNT, at));
    struct val list = g.v[1];
    bool several = list.kind == VAL_BLOCK || list.kind == VAL_LIST;
    if (list.kind == VAL_BLOCK) {
        list = val_list_new(e, 0);
        elab_list_buffers(e, g.v[1], true, false, &list, g.span[1]);
        for (int i = 0, n = 0; i < list.list->count; i++) /* integer params have no gradient: not among them */
            if (dtype_is_float(list.list->items[i].cell->type.dtype))
                list.list->items[n++] = list.list->items[i];
    }
    if (!several) {
        if (!add_wrt(e, &w, list, g.span[1]))
            return val_error;
    } else {
        for (int i = 0; i < list.list->count; i++)
            if (!add_wrt(e, &w, list.list->items[i], g.span[1]))
                return val_error;
    }
    if (!w.operands.at[0])
        return val_error;
    struct ir_op *op = ir_op_new(&e->b, OP_grad, w.operands.at, w.operands.n, 0);
    op->grad.wrt_buffers =
        arena_copy(&e->module->arena, w.buffers.at, sizeof(struct ir_buffer *) * (size_t)w.buffers.n);
    struct val out = val_list_new(e, w.buffers.n);
    for (int i = 0; i < w.buffers.n; i++)
        out.list->items[i] = elab_from_value(e, ir_op_result(op, w.operands.at[i + 1]->type));
    return several ? out : out.list->items[0];
}

static struct val run_stop(struct elab *e, const struct elab_builtin *b, struct arg *args, int count, struct span at) {
    struct given g;
    if (!take(e, b, args, count, &g, at))
        return val_error;
    if (!val_is_runtime(g.v[0]) || in_notation(e))
        return g.v[0];
    struct ir_value *x = elab_materialize(e, g.v[0], DTYPE_COUNT, g.span[0]);
    if (!x)
        return val_error;
    struct ir_op *op = ir_op_new(&e->b, OP_stop, &x, 1, 0);
    return elab_from_value(e, ir_op_result(op, x->type));
}

static struct val run_bitcast(struct elab *e, const struct elab_builtin *b, struct arg *args, int count,
                              struct span at) {
    struct given g;
    struct ir_type t;
    if (!take(e, b, args, count, &g, at) || !given_type(e, b, &g, 0, &t))
        return val_error;
    return elab_bitcast(e, t.dtype, g.v[1], at);
}

static struct val run_bits(struct elab *e, const struct elab_builtin *b, struct arg *args, int count, struct span at) {
    struct given g;
    struct ir_type t;
    if (!take(e, b, args, count, &g, at) || !given_type(e, b, &g, 0, &t))
        return val_error;
    if (t.dtype != U32 && t.dtype != U64)
        return wrong(e, b, &g, 0, "a type of u32 or u64");
    if (!e->in_function || in_notation(e)) {
        elab_error(e, E_not_static, at, "random numbers are drawn by functions of the program, outside index notation");
        return val_error;
    }
    VEC(struct ir_value *) counters = {0};
    for (struct frame *f = e->frame; f; f = f->outer)
        if (f->counter)
            VEC_PUSH(e->arena, counters, f->counter);
    for (int i = 0; i < counters.n / 2; i++) {
        struct ir_value *x = counters.at[i];
        counters.at[i] = counters.at[counters.n - 1 - i];
        counters.at[counters.n - 1 - i] = x;
    }
    struct ir_op *op = ir_op_new(&e->b, OP_rng, counters.at, counters.n, 0);
    op->name = "";
    op->rng.place = e->rng_places++;
    e->func->uses_random = true;
    return elab_from_value(e, ir_op_result(op, t));
}

/* In a print's text `{}` is an operand's place and `{{` a brace. */
static void add_literal(struct text *t, const char *s) {
    for (; *s; s++)
        text_printf(t, *s == '{' ? "{{" : "%c", *s);
}

struct print_values {
    VEC(struct ir_value *) values;
    bool failed;
};

/* Strings as they are, lists in brackets, numbers and tensors as operands, so that all are written alike. */
static void add_printed(struct elab *e, struct text *t, struct print_values *p, struct val v, struct span at) {
    if (v.kind == VAL_STRING) {
        add_literal(t, v.s);
    } else if (v.kind == VAL_LIST) {
        text_add(t, "[");
        for (int i = 0; i < v.list->count; i++) {
            text_add(t, i ? ", " : "");
            add_printed(e, t, p, v.list->items[i], at);
        }
        text_add(t, "]");
    } else if (val_is_runtime(v) || val_is_number(v) || v.kind == VAL_BOOL) {
        struct ir_value *x = elab_materialize(e, v, DTYPE_COUNT, at);
        p->failed |= !x;
        if (!x)
            return;
        VEC_PUSH(e->arena, p->values, x);
        text_add(t, "{}");
    } else if (v.kind == VAL_DTYPE) {
        text_add(t, dtype_name(v.dtype));
    } else {
        add_literal(t, val_describe(e, v));
    }
}

static struct val run_print(struct elab *e, const struct elab_builtin *b, struct arg *args, int count, struct span at) {
    (void)b;
    if (!e->in_function || in_notation(e)) {
        elab_error(e, E_not_static, at, "print runs in functions of the program, outside index notation");
        return val_error;
    }
    struct text t = {0};
    struct print_values p = {0};
    for (int i = 0; i < count && !p.failed; i++) {
        text_add(&t, i ? " " : "");
        add_printed(e, &t, &p, args[i].value, args[i].span);
    }
    struct ir_op *op = ir_op_new(&e->b, OP_print, p.values.at, p.values.n, 0);
    op->name = arena_strdup(&e->module->arena, text_string(&t));
    text_free(&t);
    return val_none;
}

static struct val run_load(struct elab *e, const struct elab_builtin *b, struct arg *args, int count, struct span at) {
    struct given g;
    if (!take(e, b, args, count, &g, at))
        return val_error;
    if (g.v[0].kind != VAL_STRING)
        return wrong(e, b, &g, 0, "a file's name");
    if (g.has[1] && g.v[1].kind != VAL_STRING)
        return wrong(e, b, &g, 1, "an entry's name");
    return elab_load_file(e, g.v[0].s, g.has[1] ? g.v[1].s : NULL, at);
}

/* ---- the table ---------------------------------------------------------------------------------------------------------------------------- */

#define REDUCE "x axis? keepdims?"
static const struct elab_builtin builtins[] = {
    {"sum", REDUCE, run_reduce, -1},
    {"mean", REDUCE, run_reduce, -1},
    {"prod", REDUCE, run_reduce, -1},
    {"any", REDUCE, run_reduce, -1},
    {"all", REDUCE, run_reduce, -1},
    {"argmax", REDUCE, run_reduce, -1},
    {"argmin", REDUCE, run_reduce, -1},
    {"max", REDUCE, run_reduce, FN_max},
    {"min", REDUCE, run_reduce, FN_min},
    {"where", "condition a b", run_scalar, FN_where},
    {"zeros", "type", run_full, 0},
    {"ones", "type", run_full, 1},
    {"full", "type value", run_full, 2},
    {"zeros_like", "x", run_zeros_like, 0},
    {"ones_like", "x", run_zeros_like, 1},
    {"reshape", "x shape", run_reshape, 0},
    {"transpose", "x axes?", run_transpose, 0},
    {"concat", "parts axis?", run_concat, 0},
    {"stack", "parts axis?", run_concat, 1},
    {"sort", "x axis? descending?", run_sort, 0},
    {"argsort", "x axis? descending?", run_sort, 1},
    {"topk", "x k axis?", run_sort, 2},
    {"cumsum", "x axis? reverse? exclusive?", run_scan, 0},
    {"cumprod", "x axis? reverse? exclusive?", run_scan, 1},
    {"len", "x", run_len, 0},
    {"zip", "…", run_zip, 0},
    {"find", "list item", run_find, 0},
    {"split", "text separator", run_split, 0},
    {"params", "of", run_buffers, 0},
    {"states", "of", run_buffers, 1},
    {"grad", "of wrt", run_grad, 0},
    {"stop_gradient", "x", run_stop, 0},
    {"bitcast", "type x", run_bitcast, 0},
    {"random_bits", "type", run_bits, 0},
    {"print", "…", run_print, 0},
    {"load", "file name?", run_load, 0},
};

void elab_bind_builtins(struct elab *e, struct scope *s) {
    struct span none = {0};
    for (size_t i = 0; i < sizeof builtins / sizeof *builtins; i++)
        scope_bind(e, s, builtins[i].name, (struct val){.kind = VAL_BUILTIN, .builtin = &builtins[i]}, none);
    static const char *const signatures[] = {"", "x", "x y", "x y z"};
    for (int fn = 0; fn < FN_COUNT; fn++) {
        const struct scalar_info *info = &scalar_table[fn];
        bool operator_only =
            fn == FN_add || fn == FN_sub || fn == FN_mul || fn == FN_div || fn == FN_mod || fn == FN_neg;
        if ((info->type_class != CLASS_FLT && info->type_class != CLASS_NUM && fn != FN_isnan) || operator_only ||
            scope_find_here(s, info->name))
            continue;
        struct elab_builtin *b = ARENA_NEW(e->arena, struct elab_builtin);
        *b = (struct elab_builtin){info->name, signatures[info->arity], run_scalar, fn};
        scope_bind(e, s, info->name, (struct val){.kind = VAL_BUILTIN, .builtin = b}, none);
    }
    for (int t = 0; t < DTYPE_COUNT; t++)
        scope_bind(e, s, dtype_name((enum dtype)t), (struct val){.kind = VAL_DTYPE, .dtype = (enum dtype)t}, none);
    scope_bind(e, s, "inf", val_float(INFINITY), none);
    scope_bind(e, s, "nan", val_float(NAN), none);
    scope_bind(e, s, "pi", val_float(3.14159265358979323846), none);
}
