/* Expressions: static arithmetic on integers, dimensions, floats, strings and lists; everything else goes to the
 * tensor, slice, index-notation and call parts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/elab.h"

/* ---- static arithmetic ------------------------------------------------------------------------------------------------- */

static int64_t floor_div(int64_t a, int64_t b) {
    if (b == -1)
        return (int64_t)(0 - (uint64_t)a);
    int64_t q = a / b;
    return (a % b != 0 && (a < 0) != (b < 0)) ? q - 1 : q;
}

static struct val int_op(struct elab *e, enum binary_op op, int64_t a, int64_t b, struct span at) {
    int64_t r = 0;
    bool overflow = false;
    switch (op) {
    case BIN_ADD: overflow = __builtin_add_overflow(a, b, &r); break;
    case BIN_SUB: overflow = __builtin_sub_overflow(a, b, &r); break;
    case BIN_MUL: overflow = __builtin_mul_overflow(a, b, &r); break;
    case BIN_DIV:
    case BIN_MOD:
        if (b == 0) {
            elab_error(e, E_division_by_zero, at, "division by zero");
            return val_error;
        }
        r = op == BIN_DIV ? floor_div(a, b) : (int64_t)((uint64_t)a - (uint64_t)floor_div(a, b) * (uint64_t)b);
        break;
    case BIN_POW:
        if (b < 0)
            return val_float(pow((double)a, (double)b));
        r = 1;
        for (int64_t i = 0; i < b && !overflow && r != 0; i++) {
            overflow = __builtin_mul_overflow(r, a, &r);
            if ((a == 1 || a == -1) && i > 2)
                return val_int(a == 1 || b % 2 == 0 ? 1 : -1);
        }
        break;
    case BIN_BITAND: r = a & b; break;
    case BIN_BITOR: r = a | b; break;
    case BIN_BITXOR: r = a ^ b; break;
    case BIN_SHL: r = b < 0 || b > 63 ? 0 : (int64_t)((uint64_t)a << b); break;
    case BIN_SHR: r = b < 0 || b > 63 ? (a < 0 ? -1 : 0) : a >> b; break;
    default: break;
    }
    if (overflow) {
        elab_error(e, E_number_fit, at, "the result of this static arithmetic does not fit 64 bits");
        return val_error;
    }
    struct val v = val_int(r);
    v.quotient = op == BIN_DIV;
    return v;
}

static struct val float_op(enum binary_op op, double a, double b) {
    switch (op) {
    case BIN_ADD: return val_float(a + b);
    case BIN_SUB: return val_float(a - b);
    case BIN_MUL: return val_float(a * b);
    case BIN_DIV: return val_float(a / b);
    case BIN_MOD: {
        double r = fmod(a, b);
        return val_float(r != 0 && (r < 0) != (b < 0) ? r + b : r);
    }
    default: return val_float(pow(a, b));
    }
}

static bool is_compare(enum binary_op op) {
    return op >= BIN_EQ && op <= BIN_GE;
}

static struct val runtime_compare(struct elab *e, enum binary_op op, struct val a, struct val b, struct span at);

/* Numbers known at compile time; dimensions decide by their bounds, else the comparison is one of the program. */
static struct val compare_static(struct elab *e, enum binary_op op, struct val a, struct val b, struct span at) {
    if (a.kind == VAL_FLOAT || b.kind == VAL_FLOAT) {
        if (a.kind == VAL_DIM || b.kind == VAL_DIM)
            return runtime_compare(e, op, a, b, at);
        double x = a.kind == VAL_FLOAT ? a.f : (double)a.i, y = b.kind == VAL_FLOAT ? b.f : (double)b.i;
        bool r[] = {x == y, x != y, (x < y), x <= y, (x > y), x >= y};
        return val_bool(r[op - BIN_EQ]);
    }
    ir_dim x, y;
    val_as_dim(e, a, &x);
    val_as_dim(e, b, &y);
    struct ir_module *m = e->module;
    bool less = ir_dim_lt(m, x, y), greater = ir_dim_lt(m, y, x), le = ir_dim_le(m, x, y), ge = ir_dim_le(m, y, x);
    switch (op) {
    case BIN_EQ:
    case BIN_NE:
        if (x == y || less || greater)
            return val_bool((x == y) == (op == BIN_EQ));
        break;
    case BIN_LT:
        if (less || ge)
            return val_bool(less);
        break;
    case BIN_GE:
        if (less || ge)
            return val_bool(ge);
        break;
    case BIN_LE:
        if (le || greater)
            return val_bool(le);
        break;
    default:
        if (le || greater)
            return val_bool(greater);
        break;
    }
    return runtime_compare(e, op, a, b, at);
}

static struct val static_op(struct elab *e, enum binary_op op, struct val a, struct val b, struct span at) {
    if (is_compare(op))
        return compare_static(e, op, a, b, at);
    bool integral = op >= BIN_BITAND;
    if (a.kind == VAL_FLOAT || b.kind == VAL_FLOAT) {
        if (integral) {
            elab_error(e, E_integer_expected, at, "bits of a float: this needs integers");
            return val_error;
        }
        struct val *q = a.kind == VAL_FLOAT ? &b : &a;
        if (q->kind != VAL_FLOAT && q->quotient) {
            struct diagnostic *d = elab_error(e, E_quotient_to_float, at, "an integer quotient meets a float");
            elab_help(
                e, d,
                "`/` on integers is the floor division: write one side as a float (0.5, 2.0), or cast: f32(a / b)");
            return val_error;
        }
        if (a.kind == VAL_DIM || b.kind == VAL_DIM) {
            /* a float of a dimension is a run-time number */
            static const enum scalar_fn fns[] = {FN_add, FN_sub, FN_mul, FN_div, FN_mod, FN_pow};
            struct val args[2] = {elab_fit(e, a, F32, at), elab_fit(e, b, F32, at)};
            return elab_map(e, fns[op], args, 2, at, NULL);
        }
        return float_op(op, a.kind == VAL_FLOAT ? a.f : (double)a.i, b.kind == VAL_FLOAT ? b.f : (double)b.i);
    }
    if (a.kind == VAL_INT && b.kind == VAL_INT) {
        struct val v = int_op(e, op, a.i, b.i, at);
        v.quotient = v.kind == VAL_INT && (v.quotient || a.quotient || b.quotient);
        return v;
    }
    ir_dim x, y, r = NULL;
    val_as_dim(e, a, &x);
    val_as_dim(e, b, &y);
    switch (op) {
    case BIN_ADD: r = ir_dim_add(e->module, x, y); break;
    case BIN_SUB: r = ir_dim_sub(e->module, x, y); break;
    case BIN_MUL: r = ir_dim_mul(e->module, x, y); break;
    case BIN_DIV:
    case BIN_MOD:
        if (ir_dim_lower(y) <= 0 && ir_dim_upper(y) >= 0) {
            elab_error(e, E_division_by_zero, at, "the divisor %s may be zero", dim_text(e, y));
            return val_error;
        }
        r = op == BIN_DIV ? ir_dim_div(e->module, x, y) : ir_dim_mod(e->module, x, y);
        break;
    case BIN_POW:
        if (b.kind == VAL_INT && b.i >= 0 && b.i <= 8) {
            r = ir_dim_const(e->module, 1);
            for (int64_t i = 0; i < b.i; i++)
                r = ir_dim_mul(e->module, r, x);
            break;
        }
        /* fall through */
    default: {
        struct diagnostic *d = elab_error(e, E_not_static, at, "this operation needs numbers that are known exactly");
        elab_label(e, d, "%s, %s", val_describe(e, a), val_describe(e, b));
        return val_error;
    }
    }
    struct val v = val_dim(e, r);
    v.quotient = op == BIN_DIV || a.quotient || b.quotient;
    return v;
}

/* Lists of numbers compute elementwise; a number repeats. */
static struct val list_op(struct elab *e, enum binary_op op, struct val a, struct val b, struct span at) {
    int n = a.kind == VAL_LIST ? a.list->count : b.list->count;
    if (a.kind == VAL_LIST && b.kind == VAL_LIST && a.list->count != b.list->count) {
        struct diagnostic *d = elab_error(e, E_list_length, at, "lists of different lengths");
        elab_label(e, d, "%d and %d", a.list->count, b.list->count);
        return val_error;
    }
    struct val out = val_list_new(e, n);
    for (int i = 0; i < n; i++) {
        out.list->items[i] = elab_binary(e, op, a.kind == VAL_LIST ? a.list->items[i] : a,
                                         b.kind == VAL_LIST ? b.list->items[i] : b, at);
        if (out.list->items[i].kind == VAL_ERROR)
            return val_error;
    }
    return out;
}

static struct val contains(struct elab *e, struct val x, struct val xs, struct span at) {
    if (xs.kind == VAL_STRING && x.kind == VAL_STRING)
        return val_bool(strstr(xs.s, x.s) != NULL);
    if (xs.kind != VAL_LIST) {
        struct diagnostic *d = elab_error(e, E_type_mismatch, at, "`in` needs a list or a string on the right");
        elab_label(e, d, "%s", val_describe(e, xs));
        return val_error;
    }
    bool sure = true;
    for (int i = 0; i < xs.list->count; i++) {
        bool decided = true;
        if (val_equal(e, x, xs.list->items[i], &decided))
            return val_bool(true);
        sure = sure && decided;
    }
    if (!sure) {
        elab_error(e, E_not_static, at, "whether the list contains this depends on run-time dimensions");
        return val_error;
    }
    return val_bool(false);
}

static struct val runtime_compare(struct elab *e, enum binary_op op, struct val a, struct val b, struct span at) {
    static const struct {
        enum scalar_fn fn;
        bool swap;
    } fns[] = {{FN_eq, false}, {FN_ne, false}, {FN_lt, false}, {FN_le, false}, {FN_lt, true}, {FN_le, true}};
    if (!e->in_function) {
        elab_error(e, E_not_static, at, "this comparison cannot be decided at compile time");
        return val_error;
    }
    struct val args[2] = {fns[op - BIN_EQ].swap ? b : a, fns[op - BIN_EQ].swap ? a : b};
    return elab_map(e, fns[op - BIN_EQ].fn, args, 2, at, NULL);
}

static bool scalars_in(struct val v) {
    for (int i = 0; i < v.list->count; i++)
        if (val_is_runtime(v.list->items[i]))
            return true;
    return false;
}

struct val elab_binary(struct elab *e, enum binary_op op, struct val a, struct val b, struct span at) {
    if (a.kind == VAL_ERROR || b.kind == VAL_ERROR)
        return val_error;
    if (a.kind == VAL_TUPLE || b.kind == VAL_TUPLE) {
        elab_error(e, E_result_count, at, "a call with %d results is used as one value",
                   (a.kind == VAL_TUPLE ? a : b).list->count);
        return val_error;
    }
    if (op == BIN_IN)
        return contains(e, a, b, at);
    if (!e->in_function && !is_compare(op) && (a.kind == VAL_BUFFER || b.kind == VAL_BUFFER)) {
        struct diagnostic *d = elab_error(e, E_const_runtime, at, "nothing is computed at file level");
        elab_label(e, d, "%s, %s", val_describe(e, a), val_describe(e, b));
        elab_help(e, d, "compute it in a function");
        return val_error;
    }
    if (val_is_number(a) && val_is_number(b) && op != BIN_AND && op != BIN_OR && op != BIN_MATMUL)
        return static_op(e, op, a, b, at);
    bool static_both = !val_is_runtime(a) && !val_is_runtime(b);
    if ((op == BIN_EQ || op == BIN_NE) && static_both && !(a.kind == VAL_LIST && scalars_in(a)) &&
        !(b.kind == VAL_LIST && scalars_in(b))) {
        bool decided = true;
        bool same = val_equal(e, a, b, &decided);
        if (!decided) {
            if (a.kind != VAL_LIST)
                return runtime_compare(e, op, a, b, at);
            elab_error(e, E_not_static, at, "whether these lists are equal depends on run-time dimensions");
            return val_error;
        }
        return val_bool(same == (op == BIN_EQ));
    }
    /* `mask != none` where mask was given */
    if ((op == BIN_EQ || op == BIN_NE) && (a.kind == VAL_NONE || b.kind == VAL_NONE))
        return val_bool(op == BIN_NE);
    if (a.kind == VAL_LIST || b.kind == VAL_LIST) {
        bool other = (a.kind == VAL_LIST || val_is_number(a) || a.kind == VAL_SCALAR) &&
                     (b.kind == VAL_LIST || val_is_number(b) || b.kind == VAL_SCALAR);
        if (other)
            return list_op(e, op, a, b, at);
    }
    if (a.kind == VAL_STRING && b.kind == VAL_STRING && op == BIN_ADD) {
        size_t length = strlen(a.s) + strlen(b.s);
        if (length > LONGEST_STRING || !elab_spend(e, (int64_t)length / 16, at)) {
            elab_error(e, E_too_much_work, at, "a string of more than %d characters", LONGEST_STRING);
            return val_error;
        }
        return val_string(arena_printf(e->arena, "%s%s", a.s, b.s));
    }
    if (a.kind == VAL_STRING && b.kind == VAL_STRING && is_compare(op)) {
        int c = strcmp(a.s, b.s);
        return static_op(e, op, val_int(c), val_int(0), at);
    }
    if (static_both && (op == BIN_AND || op == BIN_OR || op == BIN_EQ || op == BIN_NE) && a.kind == VAL_BOOL &&
        b.kind == VAL_BOOL)
        return val_bool(op == BIN_AND ? a.b && b.b : op == BIN_OR ? a.b || b.b : (a.b == b.b) == (op == BIN_EQ));
    if ((op == BIN_AND || op == BIN_OR) && (a.kind == VAL_BOOL || b.kind == VAL_BOOL)) {
        struct val known = a.kind == VAL_BOOL ? a : b, other = a.kind == VAL_BOOL ? b : a;
        if (known.b == (op == BIN_OR) && other.kind == VAL_SCALAR)
            return known;
        if (known.b != (op == BIN_OR) && val_is_runtime(other) && val_runtime_type(e, other).dtype == BOOL)
            return other;
    }
    if (!val_is_runtime(a) && !val_is_runtime(b)) {
        struct diagnostic *d = elab_error(e, E_type_mismatch, at, "this operation is not defined for these values");
        elab_label(e, d, "%s, %s", val_describe(e, a), val_describe(e, b));
        return val_error;
    }
    if (op == BIN_MATMUL)
        return elab_matmul(e, a, b, at);
    if (is_compare(op))
        return runtime_compare(e, op, a, b, at);
    static const enum scalar_fn fns[] = {
        [BIN_ADD] = FN_add,       [BIN_SUB] = FN_sub,     [BIN_MUL] = FN_mul,       [BIN_DIV] = FN_div,
        [BIN_MOD] = FN_mod,       [BIN_POW] = FN_pow,     [BIN_AND] = FN_and,       [BIN_OR] = FN_or,
        [BIN_BITAND] = FN_bitand, [BIN_BITOR] = FN_bitor, [BIN_BITXOR] = FN_bitxor, [BIN_SHL] = FN_shl,
        [BIN_SHR] = FN_shr,
    };
    if (op == BIN_POW && b.kind == VAL_INT && b.i == 2) {
        struct val square[2] = {a, a};
        return elab_map(e, FN_mul, square, 2, at, NULL);
    }
    struct val args[2] = {a, b};
    return elab_map(e, fns[op], args, 2, at, NULL);
}

struct val elab_unary(struct elab *e, enum unary_op op, struct val a, struct span at) {
    if (a.kind == VAL_ERROR)
        return a;
    if (op == UN_NOT) {
        if (a.kind == VAL_BOOL)
            return val_bool(!a.b);
        if (val_is_runtime(a) && val_runtime_type(e, a).dtype == BOOL)
            return elab_map(e, FN_not, &a, 1, at, NULL);
        struct diagnostic *d = elab_error(e, E_bool_expected, at, "`not` needs a bool");
        elab_label(e, d, "%s", val_describe(e, a));
        return val_error;
    }
    if (a.kind == VAL_LIST) {
        struct val out = val_list_new(e, a.list->count);
        for (int i = 0; i < a.list->count; i++)
            if ((out.list->items[i] = elab_unary(e, op, a.list->items[i], at)).kind == VAL_ERROR)
                return val_error;
        return out;
    }
    if (op == UN_POS && (val_is_number(a) || val_is_runtime(a)))
        return a;
    if (op == UN_NEG) {
        struct val v = a;
        if (a.kind == VAL_INT) {
            v.i = (int64_t)(0 - (uint64_t)a.i);
            return v;
        }
        if (a.kind == VAL_FLOAT) {
            v.f = -a.f;
            return v;
        }
        if (a.kind == VAL_DIM) {
            v = val_dim(e, ir_dim_sub(e->module, ir_dim_const(e->module, 0), a.dim));
            v.quotient = a.quotient;
            return v;
        }
    }
    if (op == UN_BITNOT && a.kind == VAL_INT)
        return val_int(~a.i);
    if (val_is_runtime(a))
        return elab_map(e, op == UN_NEG ? FN_neg : FN_bitnot, &a, 1, at, NULL);
    struct diagnostic *d = elab_error(e, E_not_a_number, at, "a number was expected");
    elab_label(e, d, "%s", val_describe(e, a));
    return val_error;
}

/* ---- conditions, lists, names -------------------------------------------------------------------------------------------- */

int elab_condition(struct elab *e, struct scope *s, const struct ast_expr *x, struct val *runtime) {
    struct val v = elab_expr(e, s, x);
    if (v.kind == VAL_BUFFER)
        v = cell_read(e, v.cell);
    if (v.kind == VAL_ERROR)
        return -2;
    if (v.kind == VAL_BOOL)
        return v.b;
    if (v.kind == VAL_SCALAR && v.expr->dtype == BOOL) {
        double number;
        if (ir_expr_is_const(v.expr, &number))
            return number != 0;
        if (runtime)
            *runtime = v;
        return -1;
    }
    struct diagnostic *d = elab_error(e, E_bool_expected, x->span, "a condition must be a bool");
    elab_label(e, d, "%s", val_describe(e, v));
    if (val_is_runtime(v) && val_runtime_type(e, v).rank > 0)
        elab_help(e, d, "reduce it with any(…) or all(…)");
    else if (val_is_number(v) || val_is_runtime(v))
        elab_help(e, d, "compare it: x != 0");
    return -2;
}

bool elab_items(struct elab *e, struct val v, struct val_list **items, struct span at) {
    if (v.kind == VAL_LIST) {
        *items = v.list;
        return true;
    }
    if (v.kind == VAL_STRING) {
        struct val list = val_list_new(e, (int)strlen(v.s));
        for (int i = 0; i < list.list->count; i++)
            list.list->items[i] = val_string(arena_strndup(e->arena, v.s + i, 1));
        *items = list.list;
        return true;
    }
    if (v.kind == VAL_ERROR)
        return false;
    if (v.kind == VAL_RANGE && v.range->lo.kind == VAL_INT && v.range->hi.kind == VAL_INT) {
        struct diagnostic *d =
            elab_error(e, E_too_much_work, at, "elaboration makes lists of at most %d entries", LONGEST_LIST);
        elab_help(e, d, "a loop of the program, `for`, has no such limit");
        return false;
    }
    struct diagnostic *d =
        elab_error(e, v.kind == VAL_RANGE ? E_unroll_runtime : E_iterate, at,
                   v.kind == VAL_RANGE ? "this range is not known at compile time" : "this cannot be iterated over");
    elab_label(e, d, "%s", val_describe(e, v));
    if (val_is_runtime(v))
        elab_help(e, d, "`for i in 0..n` visits the entries x[i]");
    return false;
}

bool bind_pattern(struct elab *e, struct scope *s, const struct ast_pattern *p, struct val v) {
    if (p->count == 1 && !p->parenthesized) {
        struct ast_name *n = &p->names[0];
        if (n->is_inout) {
            if (v.kind != VAL_BUFFER) {
                struct diagnostic *d =
                    elab_error(e, E_inout_argument, n->span, "`inout %s` needs parameters or states", n->name);
                elab_label(e, d, "%s", val_describe(e, v));
                return false;
            }
            struct cell *c = cell_new(e, n->name, n->span);
            c->alias = v.cell;
            c->is_var = true;
            scope_bind_cell(e, s, n->name, c);
            return true;
        }
        scope_bind(e, s, n->name, v, n->span);
        return true;
    }
    if ((v.kind != VAL_LIST && v.kind != VAL_TUPLE) || v.list->count != p->count) {
        if (v.kind != VAL_ERROR) {
            struct diagnostic *d = elab_error(e, E_pattern, p->span, "%d names for %s", p->count, val_describe(e, v));
            elab_help(e, d, "a list or several results can be taken apart into as many names");
        }
        for (int i = 0; i < p->count; i++)
            scope_bind(e, s, p->names[i].name, val_error, p->names[i].span);
        return false;
    }
    bool fine = true;
    for (int i = 0; i < p->count; i++)
        for (int k = 0; k < i; k++)
            if (strcmp(p->names[i].name, p->names[k].name) == 0 && strcmp(p->names[i].name, "_") != 0)
                elab_error(e, E_redefined, p->names[i].span, "`%s` stands twice in this list of names",
                           p->names[i].name);
    for (int i = 0; i < p->count; i++) {
        struct ast_pattern one = {.names = &p->names[i], .count = 1, .span = p->names[i].span};
        fine = bind_pattern(e, s, &one, v.list->items[i]) && fine;
    }
    return fine;
}

/* The name of a module that the file uses and that has this member; NULL if none has. */
static const char *module_of(struct elab *e, const char *member) {
    for (struct binding *b = e->file ? e->file->first : NULL; b; b = b->next)
        if (b->value.kind == VAL_MODULE && scope_find_here(b->value.module, member))
            return b->name;
    return NULL;
}

static struct val elab_name(struct elab *e, struct scope *s, const struct ast_expr *x) {
    const char *name = x->string;
    struct binding *b = scope_find(s, name);
    if (b)
        return binding_read(e, b);
    if (strcmp(name, "training") == 0)
        return val_bool(e->training);
    struct diagnostic *d = elab_error(e, E_unknown_name, x->span, "unknown name `%s`", name);
    const char *near = scope_similar(e, s, name);
    const char *module = module_of(e, name);
    if (module)
        elab_help(e, d, "did you mean `%s.%s`?", module, name);
    else if (near)
        elab_help(e, d, "did you mean `%s`?", near);
    else if (strcmp(name, "nn") == 0 || strcmp(name, "optim") == 0 || strcmp(name, "metrics") == 0)
        elab_help(e, d, "write `use %s` at the top of the file", name);
    return val_error;
}

static struct val list_of(struct elab *e, const struct val *items, int count) {
    struct val out = val_list_new(e, count);
    if (count)
        memcpy(out.list->items, items, sizeof *items * (size_t)count);
    return out;
}

static struct val elab_list(struct elab *e, struct scope *s, const struct ast_expr *x) {
    VEC(struct val) items = {0};
    for (int i = 0; i < x->list.count; i++) {
        const struct ast_expr *item = x->list.items[i];
        if (item->kind == EXPR_SPLICE) {
            struct val v = elab_expr(e, s, item->splice.value);
            struct val_list *list;
            if (!elab_items(e, v, &list, item->span))
                return val_error;
            if (items.n + list->count > LONGEST_LIST) {
                elab_error(e, E_too_much_work, item->span, "a list of more than %d entries", LONGEST_LIST);
                return val_error;
            }
            for (int k = 0; k < list->count; k++)
                VEC_PUSH(e->arena, items, list->items[k]);
            continue;
        }
        struct val v = elab_expr(e, s, item);
        if (v.kind == VAL_ERROR)
            return v;
        VEC_PUSH(e->arena, items, v);
    }
    return list_of(e, items.at, items.n);
}

static struct val elab_listcomp(struct elab *e, struct scope *s, const struct ast_expr *x) {
    struct val iter = elab_expr(e, s, x->listcomp.iter);
    struct val_list *list;
    if (!elab_items(e, iter, &list, x->listcomp.iter->span))
        return val_error;
    VEC(struct val) items = {0};
    for (int i = 0; i < list->count; i++) {
        struct scope *inner = scope_new(e, s);
        if (!bind_pattern(e, inner, &x->listcomp.pattern, list->items[i]))
            return val_error;
        if (x->listcomp.cond) {
            int c = elab_condition(e, inner, x->listcomp.cond, NULL);
            if (c == -1)
                elab_error(e, E_not_static, x->listcomp.cond->span,
                           "the condition of a list must be known at compile time");
            if (c < 0)
                return val_error;
            if (!c)
                continue;
        }
        struct val v = elab_expr(e, inner, x->listcomp.value);
        if (v.kind == VAL_ERROR)
            return v;
        VEC_PUSH(e->arena, items, v);
    }
    return list_of(e, items.at, items.n);
}

static struct val elab_range(struct elab *e, struct scope *s, const struct ast_expr *x) {
    struct val lo = elab_expr(e, s, x->range.lo), hi = elab_expr(e, s, x->range.hi);
    if (lo.kind == VAL_ERROR || hi.kind == VAL_ERROR)
        return val_error;
    if (lo.kind == VAL_BUFFER)
        lo = cell_read(e, lo.cell);
    if (hi.kind == VAL_BUFFER)
        hi = cell_read(e, hi.cell);
    if (lo.kind == VAL_INT && hi.kind == VAL_INT) {
        int64_t n = 0;
        if (hi.i > lo.i && __builtin_sub_overflow(hi.i, lo.i, &n))
            n = INT64_MAX;
        /* Long ranges are for loops of the program; a list of them is made only where one is asked for. */
        if (n >= 0 && n <= LONGEST_LIST) {
            struct val out = val_list_new(e, (int)n);
            for (int64_t i = 0; i < n; i++)
                out.list->items[i] = val_int(lo.i + i);
            return out;
        }
    }
    bool fine = (lo.kind == VAL_INT || lo.kind == VAL_DIM || (lo.kind == VAL_SCALAR && dtype_is_int(lo.expr->dtype))) &&
                (hi.kind == VAL_INT || hi.kind == VAL_DIM || (hi.kind == VAL_SCALAR && dtype_is_int(hi.expr->dtype)));
    if (!fine) {
        struct diagnostic *d = elab_error(e, E_integer_expected, x->span, "the ends of a range must be integers");
        elab_label(e, d, "%s..%s", val_describe(e, lo), val_describe(e, hi));
        return val_error;
    }
    struct val_range *r = ARENA_NEW(e->arena, struct val_range);
    r->lo = lo;
    r->hi = hi;
    return (struct val){.kind = VAL_RANGE, .range = r};
}

static struct val shape_of(struct elab *e, struct ir_type t) {
    struct val v = val_list_new(e, t.rank);
    for (int d = 0; d < t.rank; d++)
        v.list->items[d] = val_dim(e, t.dims[d]);
    return v;
}

static struct val dtype_member(struct elab *e, enum dtype t, const char *name, struct span at) {
    static const int mantissa[DTYPE_COUNT] = {[F64] = 53, [F32] = 24, [F16] = 11, [BF16] = 8};
    static const int exponent[DTYPE_COUNT] = {[F64] = 1024, [F32] = 128, [F16] = 16, [BF16] = 128};
    bool min = strcmp(name, "min") == 0, max = strcmp(name, "max") == 0;
    if (strcmp(name, "dtype") == 0) /* an element type is also the type of a scalar */
        return (struct val){.kind = VAL_DTYPE, .dtype = t};
    if (strcmp(name, "shape") == 0)
        return val_list_new(e, 0);
    if (strcmp(name, "bits") == 0)
        return val_int(t == BOOL ? 1 : 8 * dtype_size(t));
    if (strcmp(name, "is_float") == 0)
        return val_bool(dtype_is_float(t));
    if (!min && !max) {
        struct diagnostic *d = elab_error(e, E_unknown_member, at, "a type has no member `%s`", name);
        elab_help(e, d, "min, max, bits, is_float, dtype, shape");
        return val_error;
    }
    if (dtype_is_float(t)) {
        double largest = ldexp(2 - ldexp(1, 1 - mantissa[t]), exponent[t] - 1);
        return val_float(max ? largest : -largest);
    }
    if (t == BOOL)
        return val_bool(max);
    int bits = 8 * dtype_size(t);
    if (!dtype_is_signed(t) && bits == 64 && max) /* larger than static integers */
        return val_scalar(ir_const_int(e->module, t, -1));
    if (!dtype_is_signed(t))
        return val_int(min ? 0 : (int64_t)(((uint64_t)1 << bits) - 1));
    return val_int(max ? (int64_t)(((uint64_t)1 << (bits - 1)) - 1) : INT64_MIN >> (64 - bits));
}

static struct val buffer_member(struct elab *e, struct cell *c, const char *name) {
    if (strcmp(name, "name") == 0) {
        const char *path = c->owner ? instance_path(e, c->owner) : "";
        return val_string(*path ? arena_printf(e->arena, "%s.%s", path, c->name) : c->name);
    }
    return val_error;
}

struct val elab_member(struct elab *e, struct val base, const char *name, struct span at) {
    switch (base.kind) {
    case VAL_ERROR: return base;
    case VAL_MODULE: {
        struct binding *b = scope_find_here(base.module, name);
        if (b)
            return binding_read(e, b);
        struct diagnostic *d = elab_error(e, E_unknown_member, at, "the module has no `%s`", name);
        const char *near = scope_similar(e, &(struct scope){.first = base.module->first}, name);
        if (near)
            elab_help(e, d, "did you mean `%s`?", near);
        return val_error;
    }
    case VAL_BLOCK: {
        struct binding *b = scope_find_here(base.block->scope, name);
        if (!b)
            b = scope_find_here(base.block->scope->parent, name); /* the block's parameters */
        if (b)
            return binding_read(e, b);
        struct diagnostic *d =
            elab_error(e, E_unknown_member, at, "block `%s` has no `%s`", base.block->class_->name, name);
        const char *near = scope_similar(e, &(struct scope){.first = base.block->scope->first}, name);
        if (near)
            elab_help(e, d, "did you mean `%s`?", near);
        return val_error;
    }
    case VAL_LIST: {
        char *end;
        long i = strtol(name, &end, 10);
        if (*name && !*end && i >= 0 && i < base.list->count)
            return base.list->items[i];
        elab_error(e, E_unknown_member, at, "a list of %d has no `%s`", base.list->count, name);
        return val_error;
    }
    case VAL_DTYPE: return dtype_member(e, base.dtype, name, at);
    case VAL_TYPE:
        if (strcmp(name, "dtype") == 0)
            return (struct val){.kind = VAL_DTYPE, .dtype = base.type->dtype};
        if (strcmp(name, "shape") == 0)
            return shape_of(e, *base.type);
        break;
    case VAL_BUFFER: {
        struct val v = buffer_member(e, base.cell, name);
        if (v.kind != VAL_ERROR)
            return v;
    }
    /* fall through */
    case VAL_TENSOR:
    case VAL_LAZY:
    case VAL_SCALAR: {
        struct ir_type t = val_runtime_type(e, base);
        if (strcmp(name, "shape") == 0)
            return shape_of(e, t);
        if (strcmp(name, "dtype") == 0)
            return (struct val){.kind = VAL_DTYPE, .dtype = t.dtype};
        if (strcmp(name, "T") == 0) {
            if (t.rank < 2) {
                elab_error(e, E_rank, at, "`.T` swaps the last two axes; this has %d dimension%s", t.rank,
                           t.rank == 1 ? "" : "s");
                return val_error;
            }
            int perm[32];
            for (int d = 0; d < t.rank; d++)
                perm[d] = d;
            perm[t.rank - 1] = t.rank - 2;
            perm[t.rank - 2] = t.rank - 1;
            return elab_transpose(e, base, perm, at);
        }
        struct diagnostic *d = elab_error(e, E_unknown_member, at, "a tensor has no member `%s`", name);
        elab_help(e, d, "shape, dtype, T%s", base.kind == VAL_BUFFER ? ", name" : "");
        return val_error;
    }
    default: break;
    }
    struct diagnostic *d = elab_error(e, E_unknown_member, at, "there is no member `%s` here", name);
    elab_label(e, d, "%s", val_describe(e, base));
    return val_error;
}

/* Whether the names an expression consists of are certainly static; `and`, `or` stop early on those. */
static struct val elab_logic(struct elab *e, struct scope *s, const struct ast_expr *x) {
    bool is_or = x->binary.op == BIN_OR;
    struct val a = elab_expr(e, s, x->binary.left);
    if (a.kind == VAL_ERROR || (a.kind == VAL_BOOL && a.b == is_or))
        return a;
    struct val b = elab_expr(e, s, x->binary.right);
    struct val both[2] = {a, b};
    for (int i = 0; i < 2; i++)
        if (both[i].kind != VAL_ERROR && both[i].kind != VAL_BOOL &&
            !(val_is_runtime(both[i]) && val_runtime_type(e, both[i]).dtype == BOOL)) {
            struct diagnostic *d = elab_error(e, E_bool_expected, (i ? x->binary.right : x->binary.left)->span,
                                              "`%s` needs bools", is_or ? "or" : "and");
            elab_label(e, d, "%s", val_describe(e, both[i]));
            return val_error;
        }
    return elab_binary(e, x->binary.op, a, b, x->span);
}

static struct val elab_expr_inner(struct elab *e, struct scope *s, const struct ast_expr *x) {
    switch (x->kind) {
    case EXPR_INT: return val_int(x->integer);
    case EXPR_FLOAT: return val_float(x->number);
    case EXPR_BOOL: return val_bool(x->boolean);
    case EXPR_NONE: return val_none;
    case EXPR_STRING: return val_string(x->string);
    case EXPR_NAME: return elab_name(e, s, x);
    case EXPR_LIST: return elab_list(e, s, x);
    case EXPR_LISTCOMP: return elab_listcomp(e, s, x);
    case EXPR_CALL: return elab_call_expr(e, s, x);
    case EXPR_INDEX: return elab_index_expr(e, s, x, NULL);
    case EXPR_MEMBER: return elab_member(e, elab_expr(e, s, x->member.base), x->member.name, x->member.name_span);
    case EXPR_UNARY: return elab_unary(e, x->unary.op, elab_expr(e, s, x->unary.arg), x->span);
    case EXPR_BINARY: {
        if (x->binary.op == BIN_AND || x->binary.op == BIN_OR)
            return elab_logic(e, s, x);
        struct val a = elab_expr(e, s, x->binary.left), b = elab_expr(e, s, x->binary.right);
        return elab_binary(e, x->binary.op, a, b, x->binary.op_span.source ? x->binary.op_span : x->span);
    }
    case EXPR_RANGE: return elab_range(e, s, x);
    case EXPR_SPLICE:
        elab_error(e, E_run, x->span, "`..` splices into lists, calls, types and indices");
        return val_error;
    case EXPR_GUARD:
        if (x->guard.base->kind != EXPR_INDEX) {
            elab_error(e, E_guard_without_index, x->span, "`else` needs an index expression before it: x[i] else 0");
            return val_error;
        }
        return elab_index_expr(e, s, x->guard.base, x->guard.otherwise);
    case EXPR_COMPREHENSION: return elab_comprehension(e, s, x);
    case EXPR_ERROR: return val_error;
    }
    return val_error;
}

bool elab_spend(struct elab *e, int64_t amount, struct span at) {
    e->work += amount;
    if (e->work <= MOST_WORK)
        return true;
    if (!e->exhausted && !e->gave_up)
        elab_error(e, E_too_much_work, at, "elaboration does not come to an end after %d steps", MOST_WORK);
    e->exhausted = e->gave_up = true;
    return false;
}

struct val elab_expr(struct elab *e, struct scope *s, const struct ast_expr *x) {
    enum { DEEPEST = 4000 };
    if (e->gave_up)
        return val_error;
    if (!elab_spend(e, 1, x->span))
        return val_error;
    if (++e->depth > DEEPEST) {
        if (!e->gave_up)
            elab_error(e, E_recursion, x->span, "elaboration is nested too deeply");
        e->gave_up = true;
        e->depth--;
        return val_error;
    }
    struct span saved = e->b.span;
    e->b.span = x->span;
    struct val v = elab_expr_inner(e, s, x);
    e->b.span = saved;
    e->depth--;
    return v;
}
