/* Types as expressions: evaluating them, and matching arguments against them, which binds the names that are not yet
 * bound (dimensions, element types, runs). */
#include <stdlib.h>
#include <string.h>

#include "frontend/elab.h"

static struct val lookup(struct elab *e, struct scope *s, const char *name) {
    struct binding *b = scope_find(s, name);
    if (!b)
        return val_error;
    struct val v = binding_read(e, b);
    (void)e;
    return v;
}

static bool unbound_name(struct scope *s, const struct ast_expr *x) {
    return x->kind == EXPR_NAME && !scope_find(s, x->string);
}

bool type_has_unbound(struct elab *e, struct scope *s, const struct ast_expr *x) {
    if (!x)
        return false;
    switch (x->kind) {
    case EXPR_NAME: return unbound_name(s, x);
    case EXPR_LIST:
        for (int i = 0; i < x->list.count; i++)
            if (type_has_unbound(e, s, x->list.items[i]))
                return true;
        return false;
    case EXPR_LISTCOMP: return type_has_unbound(e, s, x->listcomp.iter);
    case EXPR_CALL:
        if (type_has_unbound(e, s, x->call.callee))
            return true;
        for (int i = 0; i < x->call.count; i++)
            if (type_has_unbound(e, s, x->call.args[i].value))
                return true;
        return false;
    case EXPR_INDEX:
        if (type_has_unbound(e, s, x->index.base))
            return true;
        for (int i = 0; i < x->index.count; i++)
            if (type_has_unbound(e, s, x->index.subs[i].index) || type_has_unbound(e, s, x->index.subs[i].lo) ||
                type_has_unbound(e, s, x->index.subs[i].hi) || type_has_unbound(e, s, x->index.subs[i].step))
                return true;
        return false;
    case EXPR_MEMBER: return type_has_unbound(e, s, x->member.base);
    case EXPR_UNARY: return type_has_unbound(e, s, x->unary.arg);
    case EXPR_BINARY: return type_has_unbound(e, s, x->binary.left) || type_has_unbound(e, s, x->binary.right);
    case EXPR_RANGE: return type_has_unbound(e, s, x->range.lo) || type_has_unbound(e, s, x->range.hi);
    case EXPR_SPLICE: return type_has_unbound(e, s, x->splice.value);
    default: return false;
    }
}

/* ---- types all of whose names are bound --------------------------------------------------------------------------------- */

static bool add_dim(struct elab *e, struct val v, ir_dim *dims, int *rank, struct span at) {
    ir_dim d;
    if (v.kind == VAL_ERROR)
        return false;
    if (!val_as_dim(e, v, &d)) {
        struct diagnostic *diag =
            elab_error(e, E_dimension, at, "a dimension must be an integer known at compile time");
        elab_label(e, diag, "%s", val_describe(e, v));
        return false;
    }
    if (ir_dim_upper(d) < 0) {
        elab_error(e, E_dimension, at, "a dimension is negative: %s", dim_text(e, d));
        return false;
    }
    if (*rank >= 31) {
        elab_error(e, E_rank, at, "a tensor can have at most 31 dimensions");
        return false;
    }
    dims[(*rank)++] = d;
    return true;
}

static bool eval_dims(struct elab *e, struct scope *s, const struct ast_expr *x, ir_dim *dims, int *rank) {
    *rank = 0;
    for (int i = 0; i < x->index.count; i++) {
        const struct ast_subscript *sub = &x->index.subs[i];
        if (sub->kind == SUB_SPLICE) {
            struct val v = elab_expr(e, s, sub->index);
            if (v.kind == VAL_ERROR)
                return false;
            if (v.kind != VAL_LIST) {
                struct diagnostic *d =
                    elab_error(e, E_bad_type, sub->span, "`..` in a type needs a list of dimensions");
                elab_label(e, d, "%s", val_describe(e, v));
                return false;
            }
            for (int k = 0; k < v.list->count; k++)
                if (!add_dim(e, v.list->items[k], dims, rank, sub->span))
                    return false;
        } else if (sub->kind == SUB_INDEX) {
            const struct ast_expr *d = sub->index;
            if (d->kind == EXPR_BINARY && d->binary.op == BIN_LE)
                d = d->binary.left;
            if (!add_dim(e, elab_expr(e, s, d), dims, rank, sub->span))
                return false;
        } else {
            elab_error(e, E_bad_type, sub->span, "a type lists its dimensions: f32[2, N, ..S]");
            return false;
        }
    }
    return true;
}

struct val elab_type_expr(struct elab *e, enum dtype t, struct scope *s, const struct ast_expr *x) {
    ir_dim dims[32];
    int rank;
    if (!eval_dims(e, s, x, dims, &rank))
        return val_error;
    return val_type(e, ir_type_make(e->module, t, rank, dims));
}

static bool no_static_type(struct elab *e, struct scope *s, const struct ast_expr *x);

bool elab_type(struct elab *e, struct scope *s, const struct ast_expr *x, struct ir_type *t) {
    if (!no_static_type(e, s, x))
        return false;
    struct val v = elab_expr(e, s, x);
    if (v.kind == VAL_DTYPE) {
        *t = ir_type_make(e->module, v.dtype, 0, NULL);
        return true;
    }
    if (v.kind == VAL_TYPE) {
        *t = *v.type;
        return true;
    }
    if (v.kind != VAL_ERROR) {
        struct diagnostic *d = elab_error(e, E_bad_type, x->span, "this is not a type");
        elab_label(e, d, "%s", val_describe(e, v));
        elab_help(e, d, "a type is an element type with dimensions: f32[2, 3], i64[N]");
    }
    return false;
}

/* ---- matching -------------------------------------------------------------------------------------------------------------- */

enum static_type { STATIC_NO, STATIC_INT, STATIC_FLOAT, STATIC_STRING };

static enum static_type static_type_of(struct scope *s, const struct ast_expr *x) {
    if (x->kind != EXPR_NAME || scope_find(s, x->string))
        return STATIC_NO;
    if (strcmp(x->string, "int") == 0)
        return STATIC_INT;
    if (strcmp(x->string, "float") == 0)
        return STATIC_FLOAT;
    if (strcmp(x->string, "string") == 0)
        return STATIC_STRING;
    return STATIC_NO;
}

const struct ast_expr *type_unbound_element(struct scope *s, const struct ast_expr *x) {
    const struct ast_expr *base = x->kind == EXPR_INDEX ? x->index.base : x;
    return unbound_name(s, base) && static_type_of(s, base) == STATIC_NO ? base : NULL;
}

static bool static_fits(enum static_type want, struct val v) {
    switch (want) {
    case STATIC_INT: return v.kind == VAL_INT || v.kind == VAL_DIM;
    case STATIC_FLOAT: return val_is_number(v);
    case STATIC_STRING: return v.kind == VAL_STRING;
    default: return false;
    }
}

static enum match static_mismatch(struct elab *e, const char *want, struct val v, struct span at, const char *what) {
    if (v.kind == VAL_ERROR)
        return MATCH_NO;
    struct diagnostic *d =
        elab_error(e, val_is_runtime(v) ? E_not_static : E_type_mismatch, at, "%s must be %s", what, want);
    elab_label(e, d, "%s", val_describe(e, v));
    if (val_is_runtime(v))
        elab_help(e, d, "`int`, `float` and `string` are known at compile time; a run-time number is i64 or f32");
    return MATCH_NO;
}

/* int, float[D], string, … */
static enum match match_static(struct elab *e, struct scope *s, const struct ast_expr *x, enum static_type want,
                               struct val *v, struct span at, const char *what) {
    static const char *const names[] = {"", "an integer known at compile time", "a number known at compile time",
                                        "a string"};
    if (x->kind == EXPR_NAME) {
        if (!static_fits(want, *v))
            return static_mismatch(e, names[want], *v, at, what);
        if (want == STATIC_FLOAT && v->kind == VAL_INT) {
            if (v->quotient) {
                struct diagnostic *d =
                    elab_error(e, E_quotient_to_float, at, "an integer quotient meets float in %s", what);
                elab_help(e, d, "write one side as a float: 1.0 / 2");
                return MATCH_NO;
            }
            *v = val_float((double)v->i);
        }
        v->quotient = false;
        return MATCH_YES;
    }
    if (x->index.count != 1 || x->index.subs[0].kind != SUB_INDEX) {
        elab_error(e, E_bad_type, x->span, "a list type has one length: int[2]");
        return MATCH_NO;
    }
    const struct ast_expr *length = x->index.subs[0].index;
    bool binds = unbound_name(s, length);
    if (!binds && type_has_unbound(e, s, length))
        return MATCH_LATER;
    int64_t n = -1;
    if (!binds) {
        struct val l = elab_expr(e, s, length);
        if (l.kind != VAL_INT) {
            if (l.kind != VAL_ERROR)
                elab_error(e, E_bad_type, length->span, "the length of a list type must be an integer, found %s",
                           val_describe(e, l));
            return MATCH_NO;
        }
        n = l.i;
    }
    if (v->kind == VAL_ERROR)
        return MATCH_NO;
    if (v->kind != VAL_LIST) {
        if (!static_fits(want, *v))
            return static_mismatch(e, arena_printf(e->arena, "a list, each %s", names[want]), *v, at, what);
        if (binds)
            return MATCH_LATER; /* one number fills a length that something else binds */
        if (n > 4096) {
            elab_error(e, E_list_length, at, "%s would be a list of %lld", what, (long long)n);
            return MATCH_NO;
        }
        struct val filled = val_list_new(e, (int)n);
        for (int64_t i = 0; i < n; i++)
            filled.list->items[i] = *v;
        *v = filled;
    }
    if (binds)
        scope_bind(e, s, length->string, val_int(v->list->count), at);
    else if (v->list->count != n) {
        struct diagnostic *d = elab_error(e, E_list_length, at, "%s must be a list of %lld", what, (long long)n);
        elab_label(e, d, "%s", val_describe(e, *v));
        return MATCH_NO;
    }
    for (int i = 0; i < v->list->count; i++)
        if (!static_fits(want, v->list->items[i]))
            return static_mismatch(e, arena_printf(e->arena, "a list, each %s", names[want]), *v, at, what);
    return MATCH_YES;
}

/* A type where a buffer or variable is declared, or an element type: `int` and its like are no types there. */
static bool no_static_type(struct elab *e, struct scope *s, const struct ast_expr *x) {
    if (static_type_of(s, x->kind == EXPR_INDEX ? x->index.base : x) == STATIC_NO)
        return true;
    struct diagnostic *d = elab_error(e, E_bad_type, x->span, "values of this type exist at compile time only");
    elab_help(e, d, "the program computes with f64 f32 f16 bf16 i64 i32 i16 i8 u64 u32 u16 u8 bool");
    return false;
}

static bool is_unbound_splice(struct elab *e, struct scope *s, const struct ast_subscript *sub) {
    return sub->kind == SUB_SPLICE && type_has_unbound(e, s, sub->index);
}

static void shape_mismatch(struct elab *e, const struct ast_expr *x, struct ir_type t, struct span at, const char *what,
                           const char *why) {
    struct diagnostic *d = elab_error(e, E_type_mismatch, at, "%s does not fit its type", what);
    elab_label(e, d, "%s", type_text(e, t));
    elab_note(e, d, x->span, "declared here");
    if (why)
        elab_note(e, d, (struct span){0}, "%s", why);
}

/* The dimensions of a type pattern against an actual shape. */
static enum match match_dims(struct elab *e, struct scope *s, const struct ast_expr *x, struct ir_type t,
                             struct span at, const char *what, bool last_try) {
    int fixed = 0, runs = 0, run_at = -1;
    for (int i = 0; i < x->index.count; i++) {
        const struct ast_subscript *sub = &x->index.subs[i];
        if (sub->kind == SUB_SPLICE) {
            if (is_unbound_splice(e, s, sub)) {
                if (sub->index->kind != EXPR_NAME)
                    return MATCH_LATER;
                runs++;
                run_at = i;
            } else {
                struct val v = elab_expr(e, s, sub->index);
                if (v.kind != VAL_LIST) {
                    if (v.kind != VAL_ERROR)
                        elab_error(e, E_bad_type, sub->span, "`..` in a type needs a list of dimensions, found %s",
                                   val_describe(e, v));
                    return MATCH_NO;
                }
                fixed += v.list->count;
            }
        } else if (sub->kind == SUB_INDEX) {
            fixed++;
        } else {
            elab_error(e, E_bad_type, sub->span, "a type lists its dimensions: f32[2, N, ..S]");
            return MATCH_NO;
        }
    }
    if (runs > 1) {
        if (!last_try)
            return MATCH_LATER;
        elab_error(e, E_bad_type, x->span, "a type can bind one run of dimensions, this has %d", runs);
        return MATCH_NO;
    }
    int run = t.rank - fixed;
    if (runs == 0 ? run != 0 : run < 0) {
        shape_mismatch(e, x, t, at, what,
                       arena_printf(e->arena, "%d dimension%s expected%s, %d seen", fixed, fixed == 1 ? "" : "s",
                                    runs ? " at least" : "", t.rank));
        return MATCH_NO;
    }
    /* Names first, so that `f32[2 * N + 1, N]` finds N wherever it stands; then everything else. */
    bool later = false;
    for (int pass = 0; pass < 2; pass++) {
        int d = 0;
        for (int i = 0; i < x->index.count; i++) {
            const struct ast_subscript *sub = &x->index.subs[i];
            if (i == run_at) {
                if (pass == 0) {
                    struct val list = val_list_new(e, run);
                    for (int k = 0; k < run; k++)
                        list.list->items[k] = val_dim(e, t.dims[d + k]);
                    scope_bind(e, s, sub->index->string, list, at);
                }
                d += run;
                continue;
            }
            if (sub->kind == SUB_SPLICE) {
                if (type_has_unbound(e, s, sub->index))
                    return MATCH_LATER;
                struct val v = elab_expr(e, s, sub->index);
                if (v.kind != VAL_LIST)
                    return MATCH_NO;
                for (int k = 0; k < v.list->count; k++, d++) {
                    ir_dim want;
                    if (pass == 0)
                        continue;
                    if (!val_as_dim(e, v.list->items[k], &want) || !elab_dims_equal(e, want, t.dims[d], at)) {
                        shape_mismatch(e, x, t, at, what,
                                       arena_printf(e->arena, "dimension %d is %s, expected %s", d,
                                                    dim_text(e, t.dims[d]), val_describe(e, v.list->items[k])));
                        return MATCH_NO;
                    }
                }
                continue;
            }
            const struct ast_expr *dim = sub->index;
            if (dim->kind == EXPR_BINARY && dim->binary.op == BIN_LE)
                dim = dim->binary.left;
            if (unbound_name(s, dim)) {
                if (pass == 0)
                    scope_bind(e, s, dim->string, val_dim(e, t.dims[d]), at);
            } else if (pass == 1) {
                if (type_has_unbound(e, s, dim)) {
                    later = true;
                } else {
                    struct val v = elab_expr(e, s, dim);
                    ir_dim want;
                    if (v.kind == VAL_ERROR)
                        return MATCH_NO;
                    if (!val_as_dim(e, v, &want)) {
                        elab_error(e, E_dimension, dim->span, "a dimension must be an integer, found %s",
                                   val_describe(e, v));
                        return MATCH_NO;
                    }
                    if (!elab_dims_equal(e, want, t.dims[d], at)) {
                        shape_mismatch(e, x, t, at, what,
                                       arena_printf(e->arena, "dimension %d is %s, expected %s", d,
                                                    dim_text(e, t.dims[d]), dim_text(e, want)));
                        return MATCH_NO;
                    }
                }
            }
            d++;
        }
    }
    return later ? MATCH_LATER : MATCH_YES;
}

/* A single element type against the value's. */
static enum match match_dtype(struct elab *e, struct scope *s, const struct ast_expr *x, struct val *v, bool scalar,
                              struct span at, const char *what) {
    enum dtype own = DTYPE_COUNT;
    bool untyped = !val_is_runtime(*v) || (v->kind == VAL_SCALAR && v->flex);
    if (!untyped)
        own = val_runtime_type(e, *v).dtype;
    if (unbound_name(s, x)) {
        if (own == DTYPE_COUNT)
            own = v->kind == VAL_FLOAT ? F32 : v->kind == VAL_BOOL ? BOOL : I64;
        scope_bind(e, s, x->string, (struct val){.kind = VAL_DTYPE, .dtype = own}, at);
    } else {
        struct val want = x->kind == EXPR_NAME ? lookup(e, s, x->string) : elab_expr(e, s, x);
        if (want.kind == VAL_TYPE && want.type->rank == 0)
            want = (struct val){.kind = VAL_DTYPE, .dtype = want.type->dtype};
        if (want.kind != VAL_DTYPE) {
            if (want.kind != VAL_ERROR)
                elab_error(e, E_bad_type, x->span, "this is not a type: %s", val_describe(e, want));
            return MATCH_NO;
        }
        if (!untyped && want.dtype != own) {
            struct diagnostic *d = elab_error(e, E_type_mismatch, at, "%s must be %s", what, dtype_name(want.dtype));
            elab_label(e, d, "%s", val_describe(e, *v));
            elab_note(e, d, x->span, "declared here");
            elab_help(e, d, "there is no implicit conversion: %s(…)", dtype_name(want.dtype));
            return MATCH_NO;
        }
        own = want.dtype;
    }
    if (scalar && untyped) {
        if (own == BOOL && v->kind == VAL_BOOL)
            return MATCH_YES; /* stays static: `if use_bias` is decided by elaboration */
        *v = elab_fit(e, *v, own, at);
        return v->kind == VAL_ERROR ? MATCH_NO : MATCH_YES;
    }
    return MATCH_YES;
}

/* The element type that a type asks for; DTYPE_COUNT where the argument binds it. */
static enum dtype wanted_dtype(struct elab *e, struct scope *s, const struct ast_expr *x) {
    if (x->kind != EXPR_NAME || unbound_name(s, x))
        return DTYPE_COUNT;
    struct val v = lookup(e, s, x->string);
    return v.kind == VAL_DTYPE ? v.dtype : v.kind == VAL_TYPE && v.type->rank == 0 ? v.type->dtype : DTYPE_COUNT;
}

enum match elab_match(struct elab *e, struct scope *s, const struct ast_expr *x, struct val *v, struct span at,
                      const char *what, bool last_try) {
    if (v->kind == VAL_ERROR)
        return MATCH_NO;
    const struct ast_expr *base = x->kind == EXPR_INDEX ? x->index.base : x;
    enum static_type st = static_type_of(s, base);
    if (st != STATIC_NO) {
        if (v->kind == VAL_BUFFER)
            *v = cell_read(e, v->cell);
        return match_static(e, s, x, st, v, at, what);
    }
    if (v->kind == VAL_NONE) {
        elab_error(e, E_type_mismatch, at, "%s is none, but was expected to be a tensor", what);
        return MATCH_NO;
    }
    if (x->kind != EXPR_INDEX) {
        if (v->kind == VAL_BUFFER)
            *v = cell_read(e, v->cell);
        bool number = val_is_runtime(*v) || val_is_number(*v) || v->kind == VAL_BOOL;
        if (!number || v->kind == VAL_TENSOR || v->kind == VAL_LAZY) {
            /* `T` as a parameter's whole type takes a scalar; a dtype or list is something else */
            struct diagnostic *d = elab_error(e, E_type_mismatch, at, "%s must be a scalar", what);
            elab_label(e, d, "%s", val_describe(e, *v));
            elab_note(e, d, x->span, "declared here");
            return MATCH_NO;
        }
        return match_dtype(e, s, x, v, true, at, what);
    }
    if (v->kind == VAL_BUFFER && e->in_function)
        *v = cell_read(e, v->cell);
    if (v->kind == VAL_LIST) {
        *v = elab_concat(e, v->list, -1, wanted_dtype(e, s, base), at);
        if (v->kind == VAL_ERROR)
            return MATCH_NO;
    }
    if (!val_is_runtime(*v)) {
        bool scalar_run = x->index.count == 1 && x->index.subs[0].kind == SUB_SPLICE;
        if (scalar_run && (val_is_number(*v) || v->kind == VAL_BOOL)) {
            *v = elab_fit(e, *v, wanted_dtype(e, s, base), at);
            if (v->kind == VAL_ERROR)
                return MATCH_NO;
        } else {
            struct diagnostic *d = elab_error(e, E_type_mismatch, at, "%s must be a tensor", what);
            elab_label(e, d, "%s", val_describe(e, *v));
            elab_note(e, d, x->span, "declared here");
            return MATCH_NO;
        }
    }
    enum match m = match_dtype(e, s, base, v, false, at, what);
    if (m != MATCH_YES)
        return m;
    return match_dims(e, s, x, val_runtime_type(e, *v), at, what, last_try);
}

/* ---- parameters of exported functions ------------------------------------------------------------------------------------------ */

static bool bound_from_options(struct elab *e, const char *name, int64_t *hi) {
    size_t n = strlen(name);
    for (int i = 0; e->options->binds && e->options->binds[i]; i++)
        if (strncmp(e->options->binds[i], name, n) == 0 && e->options->binds[i][n] == '=') {
            *hi = strtoll(e->options->binds[i] + n + 1, NULL, 10);
            return *hi > 0;
        }
    return false;
}

static bool new_symbol(struct elab *e, struct scope *s, const char *name, const struct ast_expr *bound,
                       struct span at) {
    int64_t hi;
    if (bound) {
        struct val v = elab_expr(e, s, bound);
        if (v.kind != VAL_INT || v.i < 1) {
            if (v.kind != VAL_ERROR)
                elab_error(e, E_dimension, bound->span,
                           "the largest value of `%s` must be a positive integer, found %s", name, val_describe(e, v));
            return false;
        }
        hi = v.i;
        bound_from_options(e, name, &hi);
    } else if (!bound_from_options(e, name, &hi)) {
        struct diagnostic *d = elab_error(e, E_unbound_dimension, at, "the dimension `%s` has no largest value", name);
        elab_help(e, d, "memory is planned ahead: write `%s <= 64`, or give --bind %s=64", name, name);
        return false;
    }
    struct ir_symbol *y = ir_symbol_new(e->func, name, 1, hi, at);
    scope_bind(e, s, name, val_dim(e, ir_dim_symbol(e->module, y)), at);
    return true;
}

bool elab_export_type(struct elab *e, struct scope *s, const struct ast_expr *x, struct ir_type *t, const char *what,
                      bool *later) {
    *later = false;
    const struct ast_expr *base = x->kind == EXPR_INDEX ? x->index.base : x;
    if (unbound_name(s, base) && static_type_of(s, base) == STATIC_NO &&
        base->string[1]) { /* not the `T` of a generic function */
        elab_expr(e, s, base);
        return false;
    }
    if (static_type_of(s, base) != STATIC_NO || (base->kind == EXPR_NAME && !scope_find(s, base->string))) {
        struct diagnostic *d =
            elab_error(e, E_export_parameter, x->span, "%s of an exported function needs a run-time type", what);
        elab_help(e, d,
                  "f32, i64[N <= 64], …: the element types are f64 f32 f16 bf16 i64 i32 i16 i8 u64 u32 u16 u8 bool");
        return false;
    }
    if (x->kind != EXPR_INDEX)
        return elab_type(e, s, x, t);
    for (int i = 0; i < x->index.count; i++) {
        const struct ast_subscript *sub = &x->index.subs[i];
        if (sub->kind == SUB_SPLICE && type_has_unbound(e, s, sub->index)) {
            elab_error(e, E_export_parameter, sub->span, "an exported function has a fixed number of dimensions");
            return false;
        }
        if (sub->kind != SUB_INDEX)
            continue;
        const struct ast_expr *d = sub->index, *bound = NULL;
        if (d->kind == EXPR_BINARY && d->binary.op == BIN_LE) {
            bound = d->binary.right;
            d = d->binary.left;
        }
        if (unbound_name(s, d)) {
            if (!bound && !bound_from_options(e, d->string, &(int64_t){0})) {
                /* another parameter may give the bound: `x: f32[N], y: i32[N <= 64]` */
                *later = true;
                continue;
            }
            if (!new_symbol(e, s, d->string, bound, d->span)) {
                scope_bind(e, s, d->string, val_error, d->span); /* said once */
                return false;
            }
        } else if (type_has_unbound(e, s, d)) { /* `f32[2 * N]`: a name elsewhere binds N */
            *later = true;
        }
    }
    if (*later)
        return true;
    return elab_type(e, s, x, t);
}
