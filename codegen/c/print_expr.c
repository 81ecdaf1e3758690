/* The printer's expressions (print.c): numbers, index arithmetic, scalar functions, conversions, loads. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/c/print_internal.h"

const char *cprint_register_type(enum dtype t) {
    return t == F16 || t == BF16 ? "float" : cgen_c_type(t);
}

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

const char *cprint_number(struct cgen *g, enum dtype t, double f, int64_t i) {
    char s[64];
    if (dtype_is_float(t)) {
        bool wide = t == F64;
        if (isnan(f))
            return wide ? "(double)NAN" : "NAN";
        if (isinf(f))
            return f > 0 ? (wide ? "(double)INFINITY" : "INFINITY") : (wide ? "-(double)INFINITY" : "-INFINITY");
        for (int digits = 1; digits <= 17; digits++) { /* the shortest that reads back to the same number */
            snprintf(s, sizeof s, "%.*g", digits, f);
            if (wide ? strtod(s, NULL) == f : strtof(s, NULL) == (float)f)
                break;
        }
        return arena_printf(&g->arena, "%s%s%s", s, strpbrk(s, ".e") ? "" : ".0", wide ? "" : "f");
    }
    if (t == BOOL)
        return i ? "true" : "false";
    if (t == U64 || t == U32)
        return arena_printf(&g->arena, (uint64_t)i > UINT32_MAX ? "UINT64_C(%llu)" : "%lluu", (unsigned long long)i);
    if (i == INT64_MIN)
        return "INT64_MIN";
    if (i == INT32_MIN)
        return "INT32_MIN";
    return arena_printf(&g->arena, i > INT32_MAX || i < INT32_MIN ? "INT64_C(%lld)" : "%lld", (long long)i);
}

/* ---- expressions -------------------------------------------------------------------------------------------------- */

static const struct {
    const char *symbol, *function;
    int precedence;
} index_ops[] = {
    [I_ADD] = {" + ", NULL, P_ADD},        [I_SUB] = {" - ", NULL, P_ADD},       [I_MUL] = {" * ", NULL, P_MUL},
    [I_DIV] = {" / ", NULL, P_MUL},        [I_MOD] = {" % ", NULL, P_MUL},       [I_FDIV] = {NULL, "mx_div_i", P_POST},
    [I_FMOD] = {NULL, "mx_mod_i", P_POST}, [I_MIN] = {NULL, "mx_min_i", P_POST}, [I_MAX] = {NULL, "mx_max_i", P_POST},
    [I_LT] = {" < ", NULL, P_LT},          [I_LE] = {" <= ", NULL, P_LT},        [I_EQ] = {" == ", NULL, P_EQ},
    [I_AND] = {" && ", NULL, P_AND},       [I_OR] = {" || ", NULL, P_OR},        [I_NOT] = {"!", NULL, P_UNARY},
};

const char *cprint_index_type(const struct cprint *p, const struct loop_var *v) {
    return p->narrow && v->bounded ? "int" : cprint_register_type(v->dtype);
}

/* Operands of 32 bits whose result may need more. */
static bool is_wide_of_narrow(lx e) {
    int64_t lo, hi;
    return !lx_range(e, &lo, &hi) && lx_range(e->args[0], &lo, &hi) && lx_range(e->args[1], &lo, &hi);
}

static void index_op(struct cprint *p, lx e) {
    const char *function = index_ops[e->op].function;
    if (function) {
        cgen_need(p->g, function);
        text_printf(p->out, "%s(", function);
        cprint_expr(p, e->args[0], P_COMMA + 1);
        cprint_add(p, ", ");
        cprint_expr(p, e->args[1], P_COMMA + 1);
        cprint_add(p, ")");
        return;
    }
    int level = index_ops[e->op].precedence;
    if (e->op == I_NOT) {
        cprint_add(p, "!");
        cprint_expr(p, e->args[0], P_UNARY);
        return;
    }
    bool and_in_or = e->op == I_OR;
    if (p->narrow && e->dtype == I64 && is_wide_of_narrow(e)) {
        cprint_add(p, "(int64_t)");
        cprint_expr(p, e->args[0], P_UNARY);
    } else {
        cprint_expr(p, e->args[0], and_in_or ? P_BITOR : level);
    }
    int64_t c;
    if (e->op == I_ADD && lx_is_int(e->args[1], &c) && c < 0) {
        text_printf(p->out, " - %s", cprint_number(p->g, I64, 0, -c));
        return;
    }
    cprint_add(p, index_ops[e->op].symbol);
    cprint_expr(p, e->args[1], and_in_or ? P_BITOR : e->op == I_ADD ? level : level + 1);
}

static bool is_vector_style(const struct cprint *p) {
    return (p->g->options->vector_extensions || p->g->cuda) && !p->lane;
}

static bool plain_operator(enum scalar_fn fn, enum dtype t, const char **symbol, int *level) {
    if (t != F32 && t != F64)
        return false;
    switch (fn) {
    case FN_add: *symbol = " + ", *level = P_ADD; return true;
    case FN_sub: *symbol = " - ", *level = P_ADD; return true;
    case FN_mul: *symbol = " * ", *level = P_MUL; return true;
    case FN_div: *symbol = " / ", *level = P_MUL; return true;
    case FN_neg: *symbol = "-", *level = P_UNARY; return true;
    default: return false;
    }
}

bool cprint_vector_fn(const struct cgen *g, enum scalar_fn fn, enum dtype t) {
    const char *symbol;
    int level;
    return plain_operator(fn, t, &symbol, &level);
}

static const char *function_suffix(enum dtype t) {
    switch (t) {
    case F64: return "f64";
    case F32:
    case F16:
    case BF16: return "f32";
    case I64:
    case I32:
    case I16:
    case I8: return "i";
    default: return "u";
    }
}

/* The C expression of a row of ir/scalar.def, with arguments in place of a, b, c and M(f) resolved for type t. */
static void scalar_text(struct cprint *p, enum scalar_fn fn, enum dtype t, const lx *args, int level) {
    for (const char *s = scalar_table[fn].text; *s;) {
        if (!strncmp(s, "M(", 2)) {
            const char *end = strchr(s, ')');
            const char *name = arena_printf(&p->g->arena, "mx_%.*s_%s", (int)(end - s - 2), s + 2, function_suffix(t));
            cgen_need(p->g, name);
            cprint_add(p, name);
            s = end + 1;
        } else if (*s >= 'a' && *s <= 'c') {
            cprint_expr(p, args[*s - 'a'], level);
            s++;
        } else {
            text_addn(p->out, s++, 1);
        }
    }
}

static void fn_expr(struct cprint *p, lx e, int precedence) {
    enum scalar_fn fn = (enum scalar_fn)e->op;
    enum scalar_class class = scalar_table[fn].type_class;
    enum dtype t = class == CLASS_SEL ? e->dtype : e->args[0]->dtype;
    const char *symbol;
    int level;
    if (plain_operator(fn, t, &symbol, &level)) {
        if (level < precedence)
            cprint_add(p, "(");
        if (fn == FN_neg) {
            cprint_add(p, "-");
            cprint_expr(p, e->args[0], P_POST);
        } else {
            cprint_expr(p, e->args[0], level);
            cprint_add(p, symbol);
            cprint_expr(p, e->args[1], level + 1);
        }
        if (level < precedence)
            cprint_add(p, ")");
        return;
    }
    bool gives_value = class == CLASS_NUM || class == CLASS_FLT || class == CLASS_INT || class == CLASS_BIT;
    if (gives_value && (t == F16 || t == BF16)) { /* computes in float, rounds to the type */
        const char *round = t == F16 ? "mx_round_f16" : "mx_round_bf16";
        cgen_need(p->g, round);
        text_printf(p->out, "%s(", round);
        if (plain_operator(fn, F32, &symbol, &level)) {
            if (fn == FN_neg)
                cprint_add(p, "-");
            cprint_expr(p, e->args[0], fn == FN_neg ? P_POST : level);
            if (fn != FN_neg) {
                cprint_add(p, symbol);
                cprint_expr(p, e->args[1], level + 1);
            }
        } else {
            scalar_text(p, fn, F32, e->args, P_COMMA + 1);
        }
        cprint_add(p, ")");
        return;
    }
    bool call = scalar_table[fn].text[0] == 'M';
    if (gives_value && !dtype_is_float(t)) {
        text_printf(p->out, "(%s)", cgen_c_type(e->dtype));
        if (!call)
            cprint_add(p, "(");
        scalar_text(p, fn, t, e->args, P_COMMA + 1);
        if (!call)
            cprint_add(p, ")");
        return;
    }
    if (call) {
        scalar_text(p, fn, t, e->args, P_COMMA + 1);
        return;
    }
    /* An expression of operators: brackets around it unless nothing is around it. */
    if (precedence > P_COMMA + 1)
        cprint_add(p, "(");
    scalar_text(p, fn, t, e->args, P_UNARY);
    if (precedence > P_COMMA + 1)
        cprint_add(p, ")");
}

static void cast_expr(struct cprint *p, lx e) {
    lx x = e->args[0];
    enum dtype from = x->dtype, to = e->dtype;
    const char *close = "";
    if (to == BOOL) {
        cprint_add(p, "(");
        cprint_expr(p, x, P_LT);
        cprint_add(p, dtype_is_float(from) ? " != 0.0f)" : " != 0)");
        return;
    }
    if (to == F16 || to == BF16) {
        const char *round = to == F16 ? "mx_round_f16" : "mx_round_bf16";
        cgen_need(p->g, round);
        text_printf(p->out, "%s(", round);
        close = ")";
        if (from != F64 && dtype_is_float(from)) {
            cprint_expr(p, x, P_COMMA + 1);
            cprint_add(p, close);
            return;
        }
        if (from == F64 || dtype_size(from) == 8 || (dtype_size(from) == 4)) { /* wider than a float: by way of f64 */
            cgen_need(p->g, "mx_odd_from_f64");
            cprint_add(p, "mx_odd_from_f64(");
            close = "))";
            if (from != F64)
                cprint_add(p, "(double)");
        } else {
            cprint_add(p, "(float)");
        }
    } else if (dtype_is_float(from) && dtype_is_int(to)) {
        const char *name = arena_printf(&p->g->arena, "mx_%s_from_%s", dtype_name(to), from == F64 ? "f64" : "f32");
        cgen_need(p->g, name);
        text_printf(p->out, "%s(", name);
        cprint_expr(p, x, P_COMMA + 1);
        cprint_add(p, ")");
        return;
    } else {
        text_printf(p->out, "(%s)", cgen_c_type(to));
    }
    cprint_expr(p, x, P_UNARY);
    cprint_add(p, close);
}

/* Between types of one size: the bits of x by its type, then as the other type. f16 and bf16 are floats in registers. */
static void bitcast_expr(struct cprint *p, lx e) {
    static const char *const to_bits[DTYPE_COUNT] = {
        [F64] = "mx_bits_f64", [F32] = "mx_bits_f32", [F16] = "mx_f16_from_f32", [BF16] = "mx_bf16_from_f32"};
    static const char *const from_bits[DTYPE_COUNT] = {
        [F64] = "mx_from_bits_f64", [F32] = "mx_from_bits_f32", [F16] = "mx_f32_from_f16", [BF16] = "mx_f32_from_bf16"};
    enum dtype from = e->args[0]->dtype, to = e->dtype;
    static const char *const unsigned_of[9] = {[1] = "uint8_t", [2] = "uint16_t", [4] = "uint32_t", [8] = "uint64_t"};
    if (from_bits[to]) {
        cgen_need(p->g, from_bits[to]);
        text_printf(p->out, "%s(", from_bits[to]);
        if (!to_bits[from])
            text_printf(p->out, "(%s)", unsigned_of[dtype_size(from)]);
    } else {
        text_printf(p->out, "(%s)", cgen_c_type(to));
    }
    if (to_bits[from]) {
        cgen_need(p->g, to_bits[from]);
        text_printf(p->out, "%s(", to_bits[from]);
        cprint_expr(p, e->args[0], P_COMMA + 1);
        cprint_add(p, ")");
    } else {
        cprint_expr(p, e->args[0], P_UNARY);
    }
    if (from_bits[to])
        cprint_add(p, ")");
}

void cprint_var(struct cprint *p, lx e) {
    for (int i = 0; i < p->unrolled_count; i++)
        if (p->unrolled[i]->var == e->var) {
            text_printf(p->out, "%lld", (long long)p->unrolled_at[i]);
            return;
        }
    cprint_add(p, cgen_name_of(p->g, e->var->id));
    if (e->count) {
        if (p->g->options->vector_extensions) {
            cprint_add(p, "_");
            cprint_expr(p, e->args[0], P_COMMA);
        } else {
            cprint_add(p, "[");
            cprint_expr(p, e->args[0], P_COMMA);
            cprint_add(p, "]");
        }
    }
    if (e->lanes > 1 && p->lane)
        text_printf(p->out, "[%s]", p->lane);
}

lx cprint_substitute(struct cprint *p, lx e) {
    struct loop_builder *b = &cgen_private(p->g)->builder;
    if (e->kind == LX_VAR && !e->count)
        for (int i = 0; i < p->unrolled_count; i++)
            if (p->unrolled[i]->var == e->var)
                return lx_int(b, p->unrolled_at[i]);
    if (e->kind != LX_OP || !p->unrolled_count)
        return e;
    return lx_op(b, (enum lx_op)e->op, cprint_substitute(p, e->args[0]),
                 e->count > 1 ? cprint_substitute(p, e->args[1]) : NULL);
}

void cprint_subscript(struct cprint *p, const struct loop_mem *m, lx at, int lanes) {
    at = cprint_substitute(p, at);
    const char *name = cgen_name_of(p->g, m->id);
    int64_t c;
    if (lanes > 1 && is_vector_style(p)) {
        const char *type = cgen_vector_type(p->g, m->dtype, lanes);
        text_printf(p->out, "*(%s%s *)", m->written ? "" : "const ", type);
        if (lx_is_int(at, &c) && c == 0) {
            cprint_add(p, name);
            return;
        }
        text_printf(p->out, "(%s + ", name);
        cprint_expr(p, at, P_ADD);
        cprint_add(p, ")");
        return;
    }
    if (m->kind == MEM_SCALAR) {
        cprint_add(p, name);
        return;
    }
    text_printf(p->out, "%s[", name);
    if (lanes > 1) {
        if (!lx_is_int(at, &c) || c != 0) {
            cprint_expr(p, at, P_ADD);
            cprint_add(p, " + ");
        }
        cprint_add(p, p->lane);
    } else {
        cprint_expr(p, at, P_COMMA);
    }
    cprint_add(p, "]");
}

static void load_expr(struct cprint *p, lx e) {
    bool half = (e->mem->dtype == F16 || e->mem->dtype == BF16) && (e->lanes == 1 || !p->g->cuda); /* CUDA: by lane */
    if (half) {
        const char *name = e->mem->dtype == F16 ? "mx_f32_from_f16" : "mx_f32_from_bf16";
        cgen_need(p->g, name);
        text_printf(p->out, "%s(", name);
    }
    cprint_subscript(p, e->mem, e->args[0], e->lanes);
    if (half)
        cprint_add(p, ")");
}

lx cprint_before_rounding(lx e, enum dtype t) {
    bool rounds = e->kind == LX_CAST && e->dtype == t && dtype_is_float(e->args[0]->dtype) && e->args[0]->dtype != F64;
    return rounds ? e->args[0] : e;
}

/* A lane of a vector as CUDA units have them, and a vector of lanes; in memory f16 and bf16 are bits. */
static void lane_expr(struct cprint *p, lx e) {
    bool half = e->dtype == F16 || e->dtype == BF16, lane = e->kind == LX_LANE;
    const char *convert = !half             ? ""
                          : lane            ? (e->dtype == F16 ? "mx_f32_from_f16" : "mx_f32_from_bf16")
                          : e->dtype == F16 ? "mx_f16_from_f32"
                                            : "mx_bf16_from_f32";
    if (half)
        cgen_need(p->g, convert);
    if (!lane)
        text_printf(p->out, "%s{{", cgen_vector_type(p->g, e->dtype, e->lanes));
    for (int i = 0; i < e->count; i++) {
        text_printf(p->out, half ? "%s%s(" : "%s%s", i ? ", " : "", convert);
        cprint_expr(p, half && !lane ? cprint_before_rounding(e->args[i], e->dtype) : e->args[i],
                    lane ? P_POST : P_COMMA + 1);
        if (lane)
            text_printf(p->out, ".at[%d]", (int)e->value.i);
        cprint_add(p, half ? ")" : "");
    }
    cprint_add(p, lane ? "" : "}}");
}

void cprint_expr(struct cprint *p, lx e, int precedence) {
    struct cgen *g = p->g;
    switch (e->kind) {
    case LX_INT:
        if (e->value.i < 0 && precedence > P_ADD)
            text_printf(p->out, "(%s)", cprint_number(g, I64, 0, e->value.i));
        else
            cprint_add(p, cprint_number(g, I64, 0, e->value.i));
        return;
    case LX_CONST: {
        const char *s = cprint_number(g, e->dtype, e->value.f, e->value.i);
        text_printf(p->out, s[0] == '-' && precedence > P_ADD ? "(%s)" : "%s", s);
        return;
    }
    case LX_VAR: cprint_var(p, e); return;
    case LX_OP: {
        lx s = cprint_substitute(p, e);
        if (s->kind != LX_OP) {
            cprint_expr(p, s, precedence);
            return;
        }
        int level = index_ops[s->op].precedence;
        bool brackets = level < precedence || (precedence == P_AND && level == P_OR);
        if (brackets)
            cprint_add(p, "(");
        index_op(p, s);
        if (brackets)
            cprint_add(p, ")");
        return;
    }
    case LX_LOAD: load_expr(p, e); return;
    case LX_FN: fn_expr(p, e, precedence); return;
    case LX_CAST:
        if (P_UNARY < precedence)
            cprint_add(p, "(");
        cast_expr(p, e);
        if (P_UNARY < precedence)
            cprint_add(p, ")");
        return;
    case LX_BITCAST: bitcast_expr(p, e); return;
    case LX_SPLAT:
        if (!is_vector_style(p)) {
            cprint_expr(p, e->args[0], precedence);
            return;
        }
        text_printf(p->out, "%s_splat(", cgen_vector_type(g, e->dtype, e->lanes));
        cprint_expr(p, e->args[0], P_COMMA + 1);
        cprint_add(p, ")");
        return;
    case LX_LANE:
    case LX_PACK: lane_expr(p, e); return;
    case LX_FMA:
        text_printf(p->out, "%s(", cgen_fma_macro(g, e->dtype, is_vector_style(p) ? e->lanes : 1));
        for (int i = 0; i < 3; i++) {
            if (i)
                cprint_add(p, ", ");
            cprint_expr(p, e->args[i], P_COMMA + 1);
        }
        cprint_add(p, ")");
        return;
    case LX_SELECT:
        if (P_COND < precedence)
            cprint_add(p, "(");
        cprint_expr(p, e->args[0], P_OR);
        cprint_add(p, " ? ");
        cprint_expr(p, e->args[1], P_COND);
        cprint_add(p, " : ");
        cprint_expr(p, e->args[2], P_COND);
        if (P_COND < precedence)
            cprint_add(p, ")");
        return;
    case LX_SHUFFLE:
        cprint_add(p, "__shfl_xor_sync(0xffffffffu, ");
        cprint_expr(p, e->args[0], P_COMMA + 1);
        text_printf(p->out, ", %d)", (int)e->value.i);
        return;
    case LX_CALL:
        cgen_need(g, e->name);
        text_printf(p->out, "%s(", e->name);
        for (int i = 0; i < e->count; i++) {
            if (i)
                cprint_add(p, ", ");
            cprint_expr(p, e->args[i], P_COMMA + 1);
        }
        cprint_add(p, ")");
        return;
    }
}
