/* Folding of scalar expressions as they are built: constants, and algebra that is exact for every value of the
 * type.
 *
 * Floats: only operations that IEEE 754 defines to the bit are computed here; exp and its like must give what
 * the run-time function gives, so they stay. Algebra on floats keeps zeros' signs and nan (x + 0 is not x, x -
 * 0 is). Integers wrap, so sums and products may be reordered freely; constants and dimensions go to the right,
 * other operands in the order of their ids, so that equal sums become equal nodes. Sums of dimensions become
 * one dimension. */
#include "ir/expr.h"

#include <math.h>
#include <string.h>

/* ---- numbers ---- */

/* Rounds to `bits` of precision with the least exponent of normal numbers `min`, the largest `max`. */
static double round_narrow(double v, int bits, int min, int max) {
    if (v == 0 || !isfinite(v))
        return v;
    int e = ilogb(v);
    int quantum = (e < min ? min : e) - (bits - 1);
    double r = ldexp(nearbyint(ldexp(v, -quantum)), quantum);
    return fabs(r) >= ldexp(1, max + 1) ? copysign(INFINITY, v) : r;
}

double float_round(enum dtype t, double v) {
    switch (t) {
    case F32: return (float)v;
    case F16: return round_narrow(v, 11, -14, 15);
    case BF16: return round_narrow(v, 8, -126, 127);
    default: return v;
    }
}

static int bits_of(enum dtype t) {
    return dtype_size(t) * 8;
}

int64_t int_wrap(enum dtype t, int64_t v) {
    if (t == BOOL)
        return v != 0;
    int shift = 64 - bits_of(t);
    return dtype_is_signed(t) ? (int64_t)((uint64_t)v << shift) >> shift : (int64_t)((uint64_t)v << shift >> shift);
}

int64_t float_to_int(enum dtype t, double v) {
    if (t == BOOL)
        return v != 0;
    if (v != v)
        return 0;
    bool is_signed = dtype_is_signed(t);
    double limit = ldexp(1, bits_of(t) - is_signed);
    if (is_signed)
        return v >= limit   ? (int64_t)((UINT64_C(1) << (bits_of(t) - 1)) - 1)
               : v < -limit ? int_wrap(t, (int64_t)(UINT64_C(1) << (bits_of(t) - 1)))
                            : (int64_t)v;
    return v >= limit ? int_wrap(t, -1) : v <= 0 ? 0 : (int64_t)(uint64_t)v;
}

/* Every value of `from` is one of `to`. */
static bool converts_exactly(enum dtype to, enum dtype from) {
    static const int digits[DTYPE_COUNT] = {[F64] = 53, [F32] = 24, [F16] = 11, [BF16] = 8};
    if (to == from || (from == BOOL && to != BOOL))
        return true;
    if (to == BOOL)
        return false;
    if (dtype_is_float(from))
        return to == F64 || (to == F32 && from != F64);
    int needed = bits_of(from) - dtype_is_signed(from);
    if (dtype_is_float(to))
        return needed <= digits[to] && !(to == F16 && needed > 11);
    return (dtype_is_signed(to) || !dtype_is_signed(from)) && needed <= bits_of(to) - dtype_is_signed(to);
}

bool cast_absorbs(enum dtype to, enum dtype via, enum dtype from) {
    if (converts_exactly(via, from)) /* but an integer narrows by wrapping, a float by saturating */
        return dtype_is_float(from) || !dtype_is_float(via) || !dtype_is_int(to) || converts_exactly(to, from);
    return dtype_is_int(from) && dtype_is_int(via) && dtype_is_int(to) && dtype_size(to) <= dtype_size(via);
}

/* ---- constants of a call ---- */

static bool is_int_const(ir_expr e, int64_t *v) {
    if (e->kind != X_CONST || dtype_is_float(e->dtype))
        return false;
    *v = e->value.i;
    return true;
}

static bool is_float_const(ir_expr e, double *v) {
    if (e->kind != X_CONST || !dtype_is_float(e->dtype))
        return false;
    *v = e->value.f;
    return true;
}

static int64_t power(int64_t base, int64_t exponent) {
    uint64_t r = 1, b = (uint64_t)base;
    for (; exponent; exponent >>= 1, b *= b)
        if (exponent & 1)
            r *= b;
    return (int64_t)r;
}

static bool int_less(enum dtype t, int64_t a, int64_t b) {
    return dtype_is_signed(t) ? a < b : (uint64_t)a < (uint64_t)b;
}

/* The value before wrapping; false where there is none (division by zero) or the function is not for integers. */
static bool compute_int(enum scalar_fn fn, enum dtype t, int64_t a, int64_t b, int64_t *r) {
    uint64_t ua = (uint64_t)a, ub = (uint64_t)b;
    bool is_signed = dtype_is_signed(t);
    switch (fn) {
    case FN_add: *r = (int64_t)(ua + ub); return true;
    case FN_sub: *r = (int64_t)(ua - ub); return true;
    case FN_mul: *r = (int64_t)(ua * ub); return true;
    case FN_neg: *r = (int64_t)(0 - ua); return true;
    case FN_div:
    case FN_mod:
        if (!b)
            return false;
        if (!is_signed)
            *r = (int64_t)(fn == FN_div ? ua / ub : ua % ub);
        else if (b == -1)
            *r = fn == FN_div ? (int64_t)(0 - ua) : 0;
        else {
            int64_t q = a / b, rest = a % b;
            bool down = rest && (rest < 0) != (b < 0);
            *r = fn == FN_div ? q - down : rest + (down ? b : 0);
        }
        return true;
    case FN_pow:
        if (is_signed && b < 0)
            return false;
        *r = power(a, b);
        return true;
    case FN_abs: *r = is_signed && a < 0 ? (int64_t)(0 - ua) : a; return true;
    case FN_sign: *r = is_signed ? (a > 0) - (a < 0) : a != 0; return true;
    case FN_max: *r = int_less(t, a, b) ? b : a; return true;
    case FN_min: *r = int_less(t, a, b) ? a : b; return true;
    case FN_eq: *r = a == b; return true;
    case FN_ne: *r = a != b; return true;
    case FN_lt: *r = int_less(t, a, b); return true;
    case FN_le: *r = !int_less(t, b, a); return true;
    case FN_and:
    case FN_bitand: *r = a & b; return true;
    case FN_or:
    case FN_bitor: *r = a | b; return true;
    case FN_bitxor: *r = a ^ b; return true;
    case FN_not: *r = !a; return true;
    case FN_bitnot: *r = t == BOOL ? !a : ~a; return true;
    case FN_shl: *r = (int64_t)(ua << (ub & 63)); return b >= 0 && b < bits_of(t);
    case FN_shr: *r = is_signed ? a >> (ub & 63) : (int64_t)(ua >> (ub & 63)); return b >= 0 && b < bits_of(t);
    default: return false;
    }
}

/* In double; one rounding more to f32 is harmless for these (53 >= 2 * 24 + 2), and so from f32 to f16 and bf16. */
static bool compute_float(enum scalar_fn fn, double a, double b, double *r) {
    switch (fn) {
    case FN_add: *r = a + b; return true;
    case FN_sub: *r = a - b; return true;
    case FN_mul: *r = a * b; return true;
    case FN_div: *r = a / b; return true;
    case FN_neg: *r = -a; return true;
    case FN_abs: *r = fabs(a); return true;
    case FN_max:
    case FN_min:
        if (a != a || b != b)
            *r = NAN;
        else
            *r = (a < b) == (fn == FN_max) ? b : a;
        return !(a == 0 && b == 0 && signbit(a) != signbit(b));
    case FN_floor: *r = floor(a); return true;
    case FN_ceil: *r = ceil(a); return true;
    case FN_round: *r = nearbyint(a); return true;
    case FN_trunc: *r = trunc(a); return true;
    case FN_sqrt: *r = sqrt(a); return true;
    default: return false;
    }
}

static ir_expr fold_constants(struct ir_module *m, enum scalar_fn fn, const ir_expr *args) {
    int n = scalar_table[fn].arity;
    enum dtype t = args[0]->dtype;
    enum scalar_class class = scalar_table[fn].type_class;
    for (int i = 0; i < n; i++)
        if (args[i]->kind != X_CONST)
            return NULL;
    if (n > 2)
        return NULL;
    if (!dtype_is_float(t)) {
        int64_t r;
        if (!compute_int(fn, t, args[0]->value.i, n > 1 ? args[1]->value.i : 0, &r))
            return NULL;
        return ir_const_int(m, class == CLASS_CMP || class == CLASS_LOG ? BOOL : t, r);
    }
    double a = args[0]->value.f, b = n > 1 ? args[1]->value.f : 0, r;
    switch (fn) {
    case FN_eq: return ir_const_int(m, BOOL, a == b);
    case FN_ne: return ir_const_int(m, BOOL, a != b);
    case FN_lt: return ir_const_int(m, BOOL, a < b);
    case FN_le: return ir_const_int(m, BOOL, a <= b);
    case FN_isnan: return ir_const_int(m, BOOL, a != a);
    default:
        if (!compute_float(fn, a, b, &r))
            return NULL;
        return ir_const_float(m, t, t == F64 ? r : (double)(float)r);
    }
}

ir_expr expr_fold_cast(struct ir_module *m, enum dtype t, ir_expr a) {
    int64_t i;
    double f;
    if (is_float_const(a, &f)) {
        if (!dtype_is_float(t))
            return ir_const_int(m, t, float_to_int(t, f));
    } else if (is_int_const(a, &i)) {
        if (!dtype_is_float(t))
            return ir_const_int(m, t, i);
        if (t == F32) /* not by double, which would round twice */
            return ir_const_float(m, t, a->dtype == U64 ? (float)(uint64_t)i : (float)i);
        f = a->dtype == U64 ? (double)(uint64_t)i : (double)i;
    } else {
        return NULL;
    }
    /* To f16 and bf16 directly and by way of f32 must agree, for targets convert either way. */
    if (t != F64 && t != F32 && float_round(t, f) != float_round(t, (float)f) && f == f)
        return NULL;
    return ir_const_float(m, t, f);
}

ir_expr expr_fold_bitcast(struct ir_module *m, enum dtype t, ir_expr a) {
    if (a->kind != X_CONST || a->dtype == F16 || a->dtype == BF16 || t == F16 || t == BF16 || t == BOOL)
        return NULL;
    uint64_t bits = (uint64_t)a->value.i;
    if (a->dtype == F64) {
        memcpy(&bits, &a->value.f, sizeof bits);
    } else if (a->dtype == F32) {
        float f = (float)a->value.f;
        uint32_t word;
        memcpy(&word, &f, sizeof word);
        bits = word;
    }
    if (!dtype_is_float(t))
        return ir_const_int(m, t, (int64_t)bits);
    double d;
    float f;
    uint32_t word = (uint32_t)bits;
    memcpy(&d, &bits, sizeof d);
    memcpy(&f, &word, sizeof f);
    d = t == F64 ? d : (double)f;
    return d != d ? NULL : ir_const_float(m, t, d); /* a nan's bits would be lost */
}

/* ---- dimensions ---- */

/* An i64 constant or dimension as a dimension, else NULL. */
static ir_dim as_dim(struct ir_module *m, ir_expr e) {
    if (e->kind == X_DIM)
        return e->dim;
    if (e->kind == X_CONST && e->dtype == I64 && e->value.i > -IR_DIM_LIMIT && e->value.i < IR_DIM_LIMIT)
        return ir_dim_const(m, e->value.i);
    return NULL;
}

static bool nonzero(ir_dim d) {
    return ir_dim_lower(d) > 0 || ir_dim_upper(d) < 0;
}

static ir_expr bool_const(struct ir_module *m, bool b) {
    return ir_const_int(m, BOOL, b);
}

static ir_expr fold_dims(struct ir_module *m, enum scalar_fn fn, ir_expr ea, ir_expr eb) {
    if (ea->kind != X_DIM && eb->kind != X_DIM)
        return NULL;
    ir_dim a = as_dim(m, ea), b = as_dim(m, eb);
    if (!a || !b)
        return NULL;
    switch (fn) {
    case FN_add: return ir_dim_expr(m, ir_dim_add(m, a, b));
    case FN_sub: return ir_dim_expr(m, ir_dim_sub(m, a, b));
    case FN_mul: return ir_dim_expr(m, ir_dim_mul(m, a, b));
    case FN_div: return nonzero(b) ? ir_dim_expr(m, ir_dim_div(m, a, b)) : NULL;
    case FN_mod: return nonzero(b) ? ir_dim_expr(m, ir_dim_mod(m, a, b)) : NULL;
    case FN_max: return ir_dim_expr(m, ir_dim_max(m, a, b));
    case FN_min: return ir_dim_expr(m, ir_dim_min(m, a, b));
    case FN_lt: return ir_dim_lt(m, a, b) ? bool_const(m, true) : ir_dim_le(m, b, a) ? bool_const(m, false) : NULL;
    case FN_le: return ir_dim_le(m, a, b) ? bool_const(m, true) : ir_dim_lt(m, b, a) ? bool_const(m, false) : NULL;
    case FN_eq:
    case FN_ne:
        if (a == b)
            return bool_const(m, fn == FN_eq);
        return ir_dim_lt(m, a, b) || ir_dim_lt(m, b, a) ? bool_const(m, fn == FN_ne) : NULL;
    default: return NULL;
    }
}

/* ---- algebra ---- */

static bool is_fn(ir_expr e, enum scalar_fn fn) {
    return e->kind == X_FN && e->fn == fn;
}

/* Known before the loops run: goes to the right of sums and products. */
static bool is_fixed(ir_expr e) {
    return e->kind == X_CONST || e->kind == X_DIM;
}

static bool commutes(enum scalar_fn fn) {
    switch (fn) {
    case FN_add:
    case FN_mul:
    case FN_max:
    case FN_min:
    case FN_eq:
    case FN_ne:
    case FN_and:
    case FN_or:
    case FN_bitand:
    case FN_bitor:
    case FN_bitxor: return true;
    default: return false;
    }
}

static bool reassociates(enum scalar_fn fn) {
    return commutes(fn) && fn != FN_eq && fn != FN_ne;
}

static ir_expr fold_int(struct ir_module *m, enum scalar_fn fn, ir_expr a, ir_expr b) {
    enum dtype t = a->dtype;
    int64_t c = 0;
    bool constant = b && is_int_const(b, &c);
    if (reassociates(fn) && is_fn(a, fn) && is_fixed(a->args[1]) && is_fixed(b))
        return ir_fn2(m, fn, a->args[0], ir_fn2(m, fn, a->args[1], b));
    switch (fn) {
    case FN_add:
        if (constant && c == 0)
            return a;
        if (is_fn(b, FN_neg))
            return ir_fn2(m, FN_sub, a, b->args[0]);
        return is_fn(a, FN_neg) ? ir_fn2(m, FN_sub, b, a->args[0]) : NULL;
    case FN_sub:
        if (a == b)
            return ir_const_int(m, t, 0);
        if (is_fixed(b)) /* one form for sums with constants */
            return ir_fn2(m, FN_add, a, ir_fn1(m, FN_neg, b));
        if (is_int_const(a, &c) && c == 0)
            return ir_fn1(m, FN_neg, b);
        return is_fn(b, FN_neg) ? ir_fn2(m, FN_add, a, b->args[0]) : NULL;
    case FN_mul:
        if (constant && c == 0)
            return b;
        if (constant && c == 1)
            return a;
        return constant && c == int_wrap(t, -1) && dtype_is_signed(t) ? ir_fn1(m, FN_neg, a) : NULL;
    case FN_div:
        if (constant && c == 1)
            return a;
        return constant && c && is_int_const(a, &c) && c == 0 ? a : NULL;
    case FN_mod:
        if (constant && (c == 1 || (c == -1 && dtype_is_signed(t))))
            return ir_const_int(m, t, 0);
        return is_fn(a, FN_mod) && a->args[1] == b && constant && c ? a : NULL;
    case FN_pow: return constant && c == 1 ? a : constant && c == 0 ? ir_const_int(m, t, 1) : NULL;
    case FN_neg:
        if (a->kind == X_DIM)
            return ir_dim_expr(m, ir_dim_sub(m, ir_dim_const(m, 0), a->dim));
        return is_fn(a, FN_sub) ? ir_fn2(m, FN_sub, a->args[1], a->args[0]) : NULL;
    case FN_abs: return dtype_is_signed(t) ? NULL : a;
    case FN_floor:
    case FN_ceil:
    case FN_round:
    case FN_trunc: return a;
    case FN_eq:
    case FN_le: return a == b ? bool_const(m, true) : NULL;
    case FN_ne: return a == b ? bool_const(m, false) : NULL;
    case FN_lt:
        if (a == b)
            return bool_const(m, false);
        return !dtype_is_signed(t) && constant && c == 0 ? bool_const(m, false) : NULL; /* unsigned < 0 */
    case FN_bitand: return a == b || (constant && c == int_wrap(t, -1)) ? a : constant && c == 0 ? b : NULL;
    case FN_bitor: return a == b || (constant && c == 0) ? a : constant && c == int_wrap(t, -1) ? b : NULL;
    case FN_bitxor: return a == b ? ir_const_int(m, t, 0) : constant && c == 0 ? a : NULL;
    case FN_shl:
    case FN_shr: return constant && c == 0 ? a : NULL;
    default: return NULL;
    }
}

static bool opposite(ir_expr a, ir_expr b) {
    return (is_fn(a, FN_not) && a->args[0] == b) || (is_fn(b, FN_not) && b->args[0] == a);
}

static ir_expr fold_bool(struct ir_module *m, enum scalar_fn fn, ir_expr a, ir_expr b) {
    int64_t c = 0;
    bool constant = b && is_int_const(b, &c);
    switch (fn) {
    case FN_and:
    case FN_bitand:
        if (opposite(a, b))
            return bool_const(m, false);
        return a == b ? a : constant ? c ? a : b : NULL;
    case FN_or:
    case FN_bitor:
        if (opposite(a, b))
            return bool_const(m, true);
        return a == b ? a : constant ? c ? b : a : NULL;
    case FN_bitxor:
    case FN_ne: return a == b ? bool_const(m, false) : constant ? c ? ir_fn1(m, FN_not, a) : a : NULL;
    case FN_eq: return a == b ? bool_const(m, true) : constant ? c ? a : ir_fn1(m, FN_not, a) : NULL;
    case FN_bitnot: return ir_fn1(m, FN_not, a);
    case FN_not:
        if (is_fn(a, FN_eq) || is_fn(a, FN_ne))
            return ir_fn(m, a->fn == FN_eq ? FN_ne : FN_eq, a->args);
        if ((is_fn(a, FN_lt) || is_fn(a, FN_le)) && !dtype_is_float(a->args[0]->dtype)) /* floats: nan */
            return ir_fn2(m, a->fn == FN_lt ? FN_le : FN_lt, a->args[1], a->args[0]);
        return NULL;
    default: return NULL;
    }
}

static ir_expr fold_float(struct ir_module *m, enum scalar_fn fn, ir_expr a, ir_expr b) {
    double c = 0;
    switch (fn) {
    case FN_add: /* only -0 is neutral: 0 + -0 is 0 */
        if (is_float_const(b, &c) && c == 0 && signbit(c))
            return a;
        return is_float_const(a, &c) && c == 0 && signbit(c) ? b : NULL;
    case FN_sub: return is_float_const(b, &c) && c == 0 && !signbit(c) ? a : NULL;
    case FN_mul:
        if (is_float_const(b, &c) && c == 1)
            return a;
        return is_float_const(a, &c) && c == 1 ? b : NULL;
    case FN_div: return is_float_const(b, &c) && c == 1 ? a : NULL;
    case FN_abs:
        if (is_fn(a, FN_abs))
            return a;
        return is_fn(a, FN_neg) ? ir_fn1(m, FN_abs, a->args[0]) : NULL;
    case FN_floor:
    case FN_ceil:
    case FN_round:
    case FN_trunc:
        return is_fn(a, FN_floor) || is_fn(a, FN_ceil) || is_fn(a, FN_round) || is_fn(a, FN_trunc) ? a : NULL;
    case FN_lt: return a == b ? bool_const(m, false) : NULL;
    default: return NULL;
    }
}

static ir_expr fold_where(struct ir_module *m, ir_expr c, ir_expr a, ir_expr b) {
    int64_t known, x, y;
    if (is_int_const(c, &known))
        return known ? a : b;
    if (a == b)
        return a;
    if (is_fn(c, FN_not))
        return ir_fn3(m, FN_where, c->args[0], b, a);
    if (a->dtype == BOOL && is_int_const(a, &x) && is_int_const(b, &y))
        return x ? c : ir_fn1(m, FN_not, c);
    if (is_fn(a, FN_where) && a->args[0] == c)
        return ir_fn3(m, FN_where, c, a->args[1], b);
    if (is_fn(b, FN_where) && b->args[0] == c)
        return ir_fn3(m, FN_where, c, a, b->args[2]);
    return NULL;
}

ir_expr expr_fold_fn(struct ir_module *m, enum scalar_fn fn, const ir_expr *args) {
    ir_expr folded = fold_constants(m, fn, args);
    if (folded)
        return folded;
    int n = scalar_table[fn].arity;
    ir_expr a = args[0], b = n > 1 ? args[1] : NULL;
    if (n == 3)
        return fn == FN_where ? fold_where(m, a, b, args[2]) : NULL;
    /* idempotent and involutive in every type */
    if ((fn == FN_max || fn == FN_min) && a == b)
        return a;
    if ((fn == FN_neg || fn == FN_not || fn == FN_bitnot) && is_fn(a, fn))
        return a->args[0];
    if (dtype_is_float(a->dtype))
        return fold_float(m, fn, a, b);
    if (n == 2) {
        if (a->dtype == I64 && (folded = fold_dims(m, fn, a, b)))
            return folded;
        if (commutes(fn) && (is_fixed(a) != is_fixed(b) ? is_fixed(a) : a->id > b->id)) {
            ir_expr swapped[2] = {b, a};
            return ir_fn(m, fn, swapped);
        }
    }
    return a->dtype == BOOL ? fold_bool(m, fn, a, b) : fold_int(m, fn, a, b);
}
