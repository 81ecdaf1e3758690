/* The C printer of the loop IR. It prints what it is given: loops, registers, subscripts, operators; every number and every
 * arithmetic step comes from the IR. Two styles from one tree:
 *
 *   vector extensions   a vector is a GCC vector of the target's width, unrolled loops are expanded, arrays of registers
 *                       become one variable each
 *   portable C99        a vector is a small array and each vector statement a loop over its lanes, unrolled loops stay
 *                       loops: the C compiler vectorizes them where it can
 *
 * A parallel loop becomes a function over a struct of the names it uses, called through mxrt_parallel.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/c/c_internal.h"

enum { P_COMMA, P_COND, P_OR, P_AND, P_BITOR, P_XOR, P_BITAND, P_EQ, P_LT, P_SHIFT, P_ADD, P_MUL, P_UNARY, P_POST };

struct cgen_kernels *cgen_private(struct cgen *g) {
    if (!g->kernels) {
        g->kernels = ARENA_NEW(&g->arena, struct cgen_kernels);
        g->kernels->builder.arena = &g->arena;
    }
    return g->kernels;
}

/* ---- names -------------------------------------------------------------------------------------------------------- */

static const char *const reserved[] = {
    "m",        "c",        "task",    "context", "lane",   "auto",   "bool",     "break",    "case",     "char",
    "const",    "continue", "default", "do",      "double", "else",   "enum",     "extern",   "false",    "float",
    "for",      "goto",     "if",      "inline",  "int",    "long",   "register", "restrict", "return",   "short",
    "signed",   "sizeof",   "static",  "struct",  "switch", "true",   "typedef",  "union",    "unsigned", "void",
    "volatile", "while",    "main",    "exp",     "log",    "sin",    "cos",      "tan",      "pow",      "sqrt",
    "floor",    "ceil",     "round",   "trunc",   "fabs",   "abs",    "gamma",    "index",    "y0",       "y1",
    "yn",       "j0",       "j1",      "jn",      "class",  "new",    "asm",      "typeof",   "erf",      "div",
    "time",     "signal",   "free",    "stdin",   "stdout", "stderr", "errno",    "NULL",     "EOF",      "I",
    "N_",       "unix",     "linux"};

/* What C++ and CUDA take beyond that. */
static const char *const reserved_cuda[] = {
    "and",     "catch",    "delete",   "explicit", "export",    "friend", "mutable",   "namespace", "not",
    "nullptr", "operator", "or",       "private",  "protected", "public", "template",  "this",      "throw",
    "try",     "typeid",   "typename", "using",    "virtual",   "xor",    "threadIdx", "blockIdx",  "blockDim",
    "gridDim", "warpSize", "min",      "max",      "printf",    "assert", "clock",     "rint",      "fma",
    "signbit", "isnan",    "isinf",    "norm",     "rsqrt",     "exp2",   "log2",      "sum_",      "half"};

static bool name_taken(const struct cgen *g, struct cgen_kernels *k, const char *name) {
    for (size_t i = 0; g->cuda && i < sizeof reserved_cuda / sizeof *reserved_cuda; i++)
        if (!strcmp(reserved_cuda[i], name))
            return true;
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (!strcmp(reserved[i], name))
            return true;
    for (int i = k->scope.n; i-- > 0;)
        if (!strcmp(k->scope.at[i], name))
            return true;
    return false;
}

const char *cgen_enter_name(struct cgen *g, const char *wanted) {
    struct cgen_kernels *k = cgen_private(g);
    char *clean = arena_strdup(&g->arena, wanted && wanted[0] ? wanted : "t");
    for (char *s = clean; *s; s++)
        if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9' && s > clean) ||
              *s == '_'))
            *s = s == clean ? 't' : '_';
    if (clean[0] == '_') /* reserved for the implementation at file scope, and ugly */
        clean[0] = 't';
    const char *name = clean;
    for (int i = 2; name_taken(g, k, name); i++)
        name = arena_printf(&g->arena, "%s_%d", clean, i);
    VEC_PUSH(&g->arena, k->scope, name);
    return name;
}

/* A name of the printer's own that nothing in scope has: arguments keep whatever names they have. */
static const char *own_name(struct cgen *g, const char *wanted) {
    struct cgen_kernels *k = cgen_private(g);
    for (int i = 0; i < k->scope.n; i++)
        if (!strcmp(k->scope.at[i], wanted))
            return own_name(g, arena_printf(&g->arena, "%s_", wanted));
    return wanted;
}

void cgen_set_name(struct cgen *g, int id, const char *name) {
    struct cgen_kernels *k = cgen_private(g);
    while (k->names.n <= id)
        VEC_PUSH(&g->arena, k->names, NULL);
    k->names.at[id] = name;
}

const char *cgen_name_of(struct cgen *g, int id) {
    struct cgen_kernels *k = cgen_private(g);
    return id < k->names.n && k->names.at[id] ? k->names.at[id] : "undefined_name";
}

int cgen_scope_mark(struct cgen *g) {
    return cgen_private(g)->scope.n;
}
void cgen_scope_leave(struct cgen *g, int mark) {
    cgen_private(g)->scope.n = mark;
}

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
        if (!strpbrk(s, ".e"))
            strcat(s, ".0");
        return arena_printf(&g->arena, wide ? "%s" : "%sf", s);
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

static void add(struct cprint *p, const char *s) {
    text_add(p->out, s);
}

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
        add(p, ", ");
        cprint_expr(p, e->args[1], P_COMMA + 1);
        add(p, ")");
        return;
    }
    int level = index_ops[e->op].precedence;
    if (e->op == I_NOT) {
        add(p, "!");
        cprint_expr(p, e->args[0], P_UNARY);
        return;
    }
    bool and_in_or = e->op == I_OR;
    if (p->narrow && e->dtype == I64 && is_wide_of_narrow(e)) {
        add(p, "(int64_t)");
        cprint_expr(p, e->args[0], P_UNARY);
    } else {
        cprint_expr(p, e->args[0], and_in_or ? P_BITOR : level);
    }
    int64_t c;
    if (e->op == I_ADD && lx_is_int(e->args[1], &c) && c < 0) {
        text_printf(p->out, " - %s", cprint_number(p->g, I64, 0, -c));
        return;
    }
    add(p, index_ops[e->op].symbol);
    cprint_expr(p, e->args[1], and_in_or ? P_BITOR : e->op == I_ADD ? level : level + 1);
}

static bool is_vector_style(const struct cprint *p) {
    return (p->g->options->vector_extensions || p->g->cuda) && !p->lane;
}

/* Vectors are values of a type, not arrays with a loop over lanes around each statement. */
static bool has_vectors(const struct cprint *p) {
    return p->g->options->vector_extensions || p->g->cuda;
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
            add(p, name);
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
            add(p, "(");
        if (fn == FN_neg) {
            add(p, "-");
            cprint_expr(p, e->args[0], P_POST);
        } else {
            cprint_expr(p, e->args[0], level);
            add(p, symbol);
            cprint_expr(p, e->args[1], level + 1);
        }
        if (level < precedence)
            add(p, ")");
        return;
    }
    bool gives_value = class == CLASS_NUM || class == CLASS_FLT || class == CLASS_INT || class == CLASS_BIT;
    if (gives_value && (t == F16 || t == BF16)) { /* computes in float, rounds to the type */
        const char *round = t == F16 ? "mx_round_f16" : "mx_round_bf16";
        cgen_need(p->g, round);
        text_printf(p->out, "%s(", round);
        if (plain_operator(fn, F32, &symbol, &level)) {
            if (fn == FN_neg)
                add(p, "-");
            cprint_expr(p, e->args[0], fn == FN_neg ? P_POST : level);
            if (fn != FN_neg) {
                add(p, symbol);
                cprint_expr(p, e->args[1], level + 1);
            }
        } else {
            scalar_text(p, fn, F32, e->args, P_COMMA + 1);
        }
        add(p, ")");
        return;
    }
    bool call = scalar_table[fn].text[0] == 'M';
    if (gives_value && !dtype_is_float(t)) {
        text_printf(p->out, "(%s)", cgen_c_type(e->dtype));
        if (!call)
            add(p, "(");
        scalar_text(p, fn, t, e->args, P_COMMA + 1);
        if (!call)
            add(p, ")");
        return;
    }
    if (call) {
        scalar_text(p, fn, t, e->args, P_COMMA + 1);
        return;
    }
    /* An expression of operators: brackets around it unless nothing is around it. */
    if (precedence > P_COMMA + 1)
        add(p, "(");
    scalar_text(p, fn, t, e->args, P_UNARY);
    if (precedence > P_COMMA + 1)
        add(p, ")");
}

static void cast_expr(struct cprint *p, lx e) {
    lx x = e->args[0];
    enum dtype from = x->dtype, to = e->dtype;
    const char *close = "";
    if (to == BOOL) {
        add(p, "(");
        cprint_expr(p, x, P_LT);
        add(p, dtype_is_float(from) ? " != 0.0f)" : " != 0)");
        return;
    }
    if (to == F16 || to == BF16) {
        const char *round = to == F16 ? "mx_round_f16" : "mx_round_bf16";
        cgen_need(p->g, round);
        text_printf(p->out, "%s(", round);
        close = ")";
        if (from != F64 && dtype_is_float(from)) {
            cprint_expr(p, x, P_COMMA + 1);
            add(p, close);
            return;
        }
        if (from == F64 || dtype_size(from) == 8 || (dtype_size(from) == 4)) { /* wider than a float: by way of f64 */
            cgen_need(p->g, "mx_odd_from_f64");
            add(p, "mx_odd_from_f64(");
            close = "))";
            if (from != F64)
                add(p, "(double)");
        } else {
            add(p, "(float)");
        }
    } else if (dtype_is_float(from) && dtype_is_int(to)) {
        const char *name = arena_printf(&p->g->arena, "mx_%s_from_%s", dtype_name(to), from == F64 ? "f64" : "f32");
        cgen_need(p->g, name);
        text_printf(p->out, "%s(", name);
        cprint_expr(p, x, P_COMMA + 1);
        add(p, ")");
        return;
    } else {
        text_printf(p->out, "(%s)", cgen_c_type(to));
    }
    cprint_expr(p, x, P_UNARY);
    add(p, close);
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
        add(p, ")");
    } else {
        cprint_expr(p, e->args[0], P_UNARY);
    }
    if (from_bits[to])
        add(p, ")");
}

static void var_expr(struct cprint *p, lx e) {
    for (int i = 0; i < p->unrolled_count; i++)
        if (p->unrolled[i]->var == e->var) {
            text_printf(p->out, "%lld", (long long)p->unrolled_at[i]);
            return;
        }
    add(p, cgen_name_of(p->g, e->var->id));
    if (e->count) {
        if (p->g->options->vector_extensions) {
            add(p, "_");
            cprint_expr(p, e->args[0], P_COMMA);
        } else {
            add(p, "[");
            cprint_expr(p, e->args[0], P_COMMA);
            add(p, "]");
        }
    }
    if (e->lanes > 1 && p->lane)
        text_printf(p->out, "[%s]", p->lane);
}

/* Index arithmetic with the counters of expanded loops replaced by their values, folded again. */
static lx substitute(struct cprint *p, lx e) {
    struct loop_builder *b = &cgen_private(p->g)->builder;
    if (e->kind == LX_VAR && !e->count)
        for (int i = 0; i < p->unrolled_count; i++)
            if (p->unrolled[i]->var == e->var)
                return lx_int(b, p->unrolled_at[i]);
    if (e->kind != LX_OP || !p->unrolled_count)
        return e;
    return lx_op(b, (enum lx_op)e->op, substitute(p, e->args[0]), e->count > 1 ? substitute(p, e->args[1]) : NULL);
}

static void subscript(struct cprint *p, const struct loop_mem *m, lx at, int lanes) {
    at = substitute(p, at);
    const char *name = cgen_name_of(p->g, m->id);
    int64_t c;
    if (lanes > 1 && is_vector_style(p)) {
        const char *type = cgen_vector_type(p->g, m->dtype, lanes);
        text_printf(p->out, "*(%s%s *)", m->written ? "" : "const ", type);
        if (lx_is_int(at, &c) && c == 0) {
            add(p, name);
            return;
        }
        text_printf(p->out, "(%s + ", name);
        cprint_expr(p, at, P_ADD);
        add(p, ")");
        return;
    }
    if (m->kind == MEM_SCALAR) {
        add(p, name);
        return;
    }
    text_printf(p->out, "%s[", name);
    if (lanes > 1) {
        if (!lx_is_int(at, &c) || c != 0) {
            cprint_expr(p, at, P_ADD);
            add(p, " + ");
        }
        add(p, p->lane);
    } else {
        cprint_expr(p, at, P_COMMA);
    }
    add(p, "]");
}

static void load_expr(struct cprint *p, lx e) {
    bool half = (e->mem->dtype == F16 || e->mem->dtype == BF16) && (e->lanes == 1 || !p->g->cuda); /* CUDA: by lane */
    if (half) {
        const char *name = e->mem->dtype == F16 ? "mx_f32_from_f16" : "mx_f32_from_bf16";
        cgen_need(p->g, name);
        text_printf(p->out, "%s(", name);
    }
    subscript(p, e->mem, e->args[0], e->lanes);
    if (half)
        add(p, ")");
}

/* What is stored as f16 or bf16: the conversion to bits rounds, so a cast to the type has nothing to do. */
static lx before_rounding(lx e, enum dtype t) {
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
        cprint_expr(p, half && !lane ? before_rounding(e->args[i], e->dtype) : e->args[i], lane ? P_POST : P_COMMA + 1);
        if (lane)
            text_printf(p->out, ".at[%d]", (int)e->value.i);
        add(p, half ? ")" : "");
    }
    add(p, lane ? "" : "}}");
}

void cprint_expr(struct cprint *p, lx e, int precedence) {
    struct cgen *g = p->g;
    switch (e->kind) {
    case LX_INT:
        if (e->value.i < 0 && precedence > P_ADD)
            text_printf(p->out, "(%s)", cprint_number(g, I64, 0, e->value.i));
        else
            add(p, cprint_number(g, I64, 0, e->value.i));
        return;
    case LX_CONST: {
        const char *s = cprint_number(g, e->dtype, e->value.f, e->value.i);
        text_printf(p->out, s[0] == '-' && precedence > P_ADD ? "(%s)" : "%s", s);
        return;
    }
    case LX_VAR: var_expr(p, e); return;
    case LX_OP: {
        lx s = substitute(p, e);
        if (s->kind != LX_OP) {
            cprint_expr(p, s, precedence);
            return;
        }
        int level = index_ops[s->op].precedence;
        bool brackets = level < precedence || (precedence == P_AND && level == P_OR);
        if (brackets)
            add(p, "(");
        index_op(p, s);
        if (brackets)
            add(p, ")");
        return;
    }
    case LX_LOAD: load_expr(p, e); return;
    case LX_FN: fn_expr(p, e, precedence); return;
    case LX_CAST:
        if (P_UNARY < precedence)
            add(p, "(");
        cast_expr(p, e);
        if (P_UNARY < precedence)
            add(p, ")");
        return;
    case LX_BITCAST: bitcast_expr(p, e); return;
    case LX_SPLAT:
        if (!is_vector_style(p)) {
            cprint_expr(p, e->args[0], precedence);
            return;
        }
        text_printf(p->out, "%s_splat(", cgen_vector_type(g, e->dtype, e->lanes));
        cprint_expr(p, e->args[0], P_COMMA + 1);
        add(p, ")");
        return;
    case LX_LANE:
    case LX_PACK: lane_expr(p, e); return;
    case LX_FMA:
        text_printf(p->out, "%s(", cgen_fma_macro(g, e->dtype, is_vector_style(p) ? e->lanes : 1));
        for (int i = 0; i < 3; i++) {
            if (i)
                add(p, ", ");
            cprint_expr(p, e->args[i], P_COMMA + 1);
        }
        add(p, ")");
        return;
    case LX_SELECT:
        if (P_COND < precedence)
            add(p, "(");
        cprint_expr(p, e->args[0], P_OR);
        add(p, " ? ");
        cprint_expr(p, e->args[1], P_COND);
        add(p, " : ");
        cprint_expr(p, e->args[2], P_COND);
        if (P_COND < precedence)
            add(p, ")");
        return;
    case LX_SHUFFLE:
        add(p, "__shfl_xor_sync(0xffffffffu, ");
        cprint_expr(p, e->args[0], P_COMMA + 1);
        text_printf(p->out, ", %d)", (int)e->value.i);
        return;
    case LX_CALL:
        cgen_need(g, e->name);
        text_printf(p->out, "%s(", e->name);
        for (int i = 0; i < e->count; i++) {
            if (i)
                add(p, ", ");
            cprint_expr(p, e->args[i], P_COMMA + 1);
        }
        add(p, ")");
        return;
    }
}

/* ---- statements --------------------------------------------------------------------------------------------------- */

static void indent(struct cprint *p) {
    for (int i = 0; i < p->indent; i++)
        add(p, "    ");
}

void cprint_line(struct cprint *p, const char *format, ...) {
    va_list args;
    va_start(args, format);
    indent(p);
    text_vprintf(p->out, format, args);
    add(p, "\n");
    va_end(args);
}

static void expr_line(struct cprint *p, const char *before, lx e, const char *after) {
    add(p, before);
    cprint_expr(p, e, P_COMMA + 1);
    add(p, after);
}

/* Opens the loop over lanes that portable code has around a vector statement. */
static bool open_lanes(struct cprint *p, int lanes) {
    if (lanes == 1 || has_vectors(p))
        return false;
    const char *lane = p->lane = own_name(p->g, "lane");
    cprint_line(p, "for (int %s = 0; %s < %d; %s++)", lane, lane, lanes, lane);
    p->indent++;
    return true;
}

static void close_lanes(struct cprint *p, bool open) {
    if (open) {
        p->lane = NULL;
        p->indent--;
    }
}

static void count_stack(struct cprint *p, int64_t bytes) {
    struct cgen_kernels *k = cgen_private(p->g);
    k->stack += bytes;
    if (k->stack > k->stack_max)
        k->stack_max = k->stack;
}

static void count_call(struct cprint *p, int64_t bytes) {
    count_stack(p, bytes);
    cgen_private(p->g)->stack -= bytes;
}

static void print_def(struct cprint *p, const struct loop_stmt *s) {
    struct loop_var *v = s->var;
    bool vectors = p->g->options->vector_extensions;
    const char *name;
    if (v->count) {
        const char *type =
            v->lanes > 1 && vectors ? cgen_vector_type(p->g, v->dtype, v->lanes) : cprint_register_type(v->dtype);
        name = cgen_enter_name(p->g, v->name);
        cgen_set_name(p->g, v->id, name);
        if (vectors) {
            indent(p);
            text_printf(p->out, "%s ", type);
            for (int i = 0; i < v->count; i++)
                text_printf(p->out, "%s%s_%d", i ? ", " : "", name, i);
            add(p, ";\n");
        } else if (v->lanes > 1) {
            cprint_line(p, "%s %s[%d][%d];", type, name, v->count, v->lanes);
        } else {
            cprint_line(p, "%s %s[%d];", type, name, v->count);
        }
        count_stack(p, (int64_t)v->count * v->lanes * dtype_size(v->dtype));
        return;
    }
    name = cgen_enter_name(p->g, v->name);
    if (v->lanes > 1 && !has_vectors(p)) {
        cprint_line(p, "%s %s[%d];", cprint_register_type(v->dtype), name, v->lanes);
        count_stack(p, (int64_t)v->lanes * dtype_size(v->dtype));
        cgen_set_name(p->g, v->id, name);
        if (!s->value)
            return;
        bool open = open_lanes(p, v->lanes);
        indent(p);
        text_printf(p->out, "%s[%s]", name, p->lane);
        expr_line(p, " = ", s->value, ";\n");
        close_lanes(p, open);
        return;
    }
    int64_t lo, hi;
    if (p->narrow && s->value && lx_range(s->value, &lo, &hi))
        loop_var_bound(v, lo, hi);
    const char *type = v->lanes > 1 ? cgen_vector_type(p->g, v->dtype, v->lanes) : cprint_index_type(p, v);
    indent(p);
    text_printf(p->out, "%s%s %s", v->is_mutable ? "" : "const ", type, name);
    if (s->value)
        expr_line(p, " = ", s->value, "");
    add(p, ";\n");
    cgen_set_name(p->g, v->id, name);
}

static void print_store(struct cprint *p, const struct loop_stmt *s) {
    bool open = open_lanes(p, s->value->lanes);
    enum dtype t = s->mem->dtype;
    indent(p);
    subscript(p, s->mem, s->index, s->value->lanes);
    if ((t == F16 || t == BF16) && s->value->kind != LX_PACK) {
        const char *name = t == F16 ? "mx_f16_from_f32" : "mx_bf16_from_f32";
        cgen_need(p->g, name);
        text_printf(p->out, " = %s(", name);
        expr_line(p, "", before_rounding(s->value, t), ");\n");
    } else {
        expr_line(p, " = ", s->value, ";\n");
    }
    close_lanes(p, open);
}

static void print_set(struct cprint *p, const struct loop_stmt *s) {
    bool open = open_lanes(p, s->value->lanes);
    struct loop_builder *b = &cgen_private(p->g)->builder;
    indent(p);
    var_expr(p, s->index ? lx_var_at(b, s->var, substitute(p, s->index)) : lx_var(b, s->var));
    expr_line(p, " = ", s->value, ";\n");
    close_lanes(p, open);
}

static void print_parallel(struct cprint *p, const struct loop_stmt *s);

static void print_for(struct cprint *p, const struct loop_stmt *s) {
    struct cgen_kernels *k = cgen_private(p->g);
    int mark = cgen_scope_mark(p->g);
    int64_t stack = k->stack, lo, hi;
    if (s->loop == LOOP_UNROLL && p->g->options->vector_extensions && lx_is_int(s->lo, &lo) && lx_is_int(s->hi, &hi) &&
        p->unrolled_count < 8) {
        int at = p->unrolled_count++;
        p->unrolled[at] = s;
        for (int64_t i = lo; i < hi; i += s->step) {
            p->unrolled_at[at] = i;
            cprint_block(p, &s->body);
        }
        p->unrolled_count--;
        cgen_scope_leave(p->g, mark);
        return;
    }
    if (s->loop == LOOP_PARALLEL && p->g->options->threads) {
        print_parallel(p, s);
        return;
    }
    const char *name = cgen_enter_name(p->g, s->var->name);
    cgen_set_name(p->g, s->var->id, name);
    if (s->loop == LOOP_UNROLL && p->g->cuda) /* arrays of registers are such only with constant subscripts */
        add(p, "#pragma unroll\n");
    if (p->narrow && lx_range(s->lo, &lo, &hi)) {
        int64_t first = lo;
        if (lx_range(s->hi, &lo, &hi))
            loop_var_bound(s->var, first, hi + s->step > first ? hi + s->step : first);
    }
    indent(p);
    text_printf(p->out, "for (%s %s", cprint_index_type(p, s->var), name);
    expr_line(p, " = ", s->lo, "; ");
    text_printf(p->out, "%s < ", name);
    cprint_expr(p, s->hi, P_LT + 1);
    if (s->step == 1)
        text_printf(p->out, "; %s++) {\n", name);
    else
        text_printf(p->out, "; %s += %lld) {\n", name, (long long)s->step);
    p->indent++;
    cprint_block(p, &s->body);
    p->indent--;
    cprint_line(p, "}");
    cgen_scope_leave(p->g, mark);
    k->stack = stack;
}

void cprint_block(struct cprint *p, const struct loop_block *block) {
    struct cgen_kernels *k = cgen_private(p->g);
    for (const struct loop_stmt *s = block->first; s; s = s->next) {
        int mark = cgen_scope_mark(p->g);
        switch (s->kind) {
        case LS_FOR: print_for(p, s); break;
        case LS_IF: {
            int64_t stack = k->stack;
            indent(p);
            expr_line(p, "if (", s->cond, ") {\n");
            p->indent++;
            cprint_block(p, &s->body);
            p->indent--;
            cgen_scope_leave(p->g, mark);
            if (s->other.first) {
                cprint_line(p, "} else {");
                p->indent++;
                cprint_block(p, &s->other);
                p->indent--;
                cgen_scope_leave(p->g, mark);
            }
            cprint_line(p, "}");
            k->stack = stack;
            break;
        }
        case LS_DEF: print_def(p, s); break;
        case LS_SET: print_set(p, s); break;
        case LS_STORE: print_store(p, s); break;
        case LS_LOCAL: {
            const char *name = cgen_enter_name(p->g, s->mem->name);
            cgen_set_name(p->g, s->mem->id, name);
            cprint_line(p, "%s%s %s[%lld];", s->mem->kind == MEM_SHARED ? "__shared__ __align__(16) " : "",
                        cgen_c_type(s->mem->dtype), name, (long long)s->mem->count);
            count_stack(p, s->mem->count * dtype_size(s->mem->dtype));
            break;
        }
        case LS_COMMENT: cprint_line(p, "/* %s */", s->text); break;
        case LS_BARRIER: cprint_line(p, "__syncthreads();"); break;
        case LS_CALL:
            count_call(p, s->callee->stack_bytes);
            indent(p);
            text_printf(p->out, "%s(", s->callee->name);
            if (s->callee->is_helper) {
                cgen_need(p->g, s->callee->name);
                for (int i = 0; i < s->callee->var_count; i++) {
                    cprint_expr(p, s->call_args[i], P_COMMA + 1);
                    add(p, ", ");
                }
            }
            for (int i = 0; i < s->callee->mem_count; i++) {
                const struct loop_mem *mem = s->call_mems[i].mem;
                lx offset = substitute(p, s->call_mems[i].offset);
                int64_t c;
                if (i)
                    add(p, ", ");
                if (mem->kind == MEM_SCALAR)
                    add(p, "&");
                add(p, cgen_name_of(p->g, mem->id));
                if (!lx_is_int(offset, &c) || c != 0) {
                    add(p, " + ");
                    cprint_expr(p, offset, P_ADD);
                }
            }
            for (int i = 0; i < s->callee->var_count && !s->callee->is_helper; i++) {
                if (i || s->callee->mem_count)
                    add(p, ", ");
                cprint_expr(p, s->call_args[i], P_COMMA + 1);
            }
            add(p, ");\n");
            break;
        }
    }
}

const char *cprint_restrict(const struct cgen *g, const struct loop_mem *m) {
    return !m->no_alias ? "" : g->cuda ? "__restrict__ " : "restrict ";
}

void cprint_mem(struct cprint *p, const struct loop_mem *m) {
    cprint_line(p, "%s%s *%s%s = (%s%s *)%s;", m->written ? "" : "const ", cgen_c_type(m->dtype),
                cprint_restrict(p->g, m), cgen_name_of(p->g, m->id), m->written ? "" : "const ", cgen_c_type(m->dtype),
                m->base);
}

/* Whether the identifier `name` stands in printed code. */
bool cgen_mentions(const char *text, const char *name) {
    size_t n = strlen(name);
    for (const char *s = text; (s = strstr(s, name)); s += n) {
        char before = s > text ? s[-1] : ' ', after = s[n];
        bool word_before =
            before == '_' || (before >= '0' && before <= '9') || ((before | 32) >= 'a' && (before | 32) <= 'z');
        bool word_after =
            after == '_' || (after >= '0' && after <= '9') || ((after | 32) >= 'a' && (after | 32) <= 'z');
        if (!word_before && !word_after && before != '>' && before != '.')
            return true;
    }
    return false;
}

void cprint_func(struct cgen *g, struct loop_func *f) {
    struct text body = {0};
    struct cgen_kernels *k = cgen_private(g);
    int64_t stack = k->stack, most = k->stack_max;
    int mark = k->scope.n;
    struct cprint p = {.g = g, .out = &body, .indent = 1};
    text_printf(&g->outlined, "/* %s */\nstatic void %s(", f->text, f->name);
    k->stack = k->stack_max = 0;
    for (int i = 0; i < f->mem_count; i++) {
        const char *name = cgen_enter_name(g, f->mems[i]->name);
        cgen_set_name(g, f->mems[i]->id, name);
        text_printf(&g->outlined, "%s%s%s *restrict %s", i ? ", " : "", f->mems[i]->written ? "" : "const ",
                    cgen_c_type(f->mems[i]->dtype), name);
    }
    for (int i = 0; i < f->var_count; i++) {
        const char *name = cgen_enter_name(g, f->vars[i]->name);
        cgen_set_name(g, f->vars[i]->id, name);
        text_printf(&g->outlined, "%s%s %s", i || f->mem_count ? ", " : "", cprint_register_type(f->vars[i]->dtype),
                    name);
    }
    text_add(&g->outlined, ")\n{\n");
    cprint_block(&p, &f->body);
    for (int i = 0; i < f->var_count; i++)
        if (!cgen_mentions(text_string(&body), cgen_name_of(g, f->vars[i]->id)))
            text_printf(&g->outlined, "    (void)%s;\n", cgen_name_of(g, f->vars[i]->id));
    text_add(&g->outlined, text_string(&body));
    text_add(&g->outlined, "}\n\n");
    text_free(&body);
    k->scope.n = mark;
    f->stack_bytes = k->stack_max;
    k->stack = stack;
    k->stack_max = most;
}

/* ---- parallel loops ----------------------------------------------------------------------------------------------- */

static void note_defined(const struct loop_stmt *s, void *context) {
    struct cgen_captures *c = context;
    if (s->kind == LS_FOR || s->kind == LS_DEF)
        VEC_PUSH(c->arena, c->defined, s->var);
    if (s->kind == LS_LOCAL)
        VEC_PUSH(c->arena, c->defined, s->mem);
}

static bool is_defined(const struct cgen_captures *c, const void *what) {
    for (int i = 0; i < c->defined.n; i++)
        if (c->defined.at[i] == what)
            return true;
    return false;
}

static void capture_mem(struct cgen_captures *c, const struct loop_mem *m) {
    for (int i = 0; i < c->mems.n; i++)
        if (c->mems.at[i] == m)
            return;
    if (!is_defined(c, m))
        VEC_PUSH(c->arena, c->mems, m);
}

static void capture_expr(lx e, void *context) {
    struct cgen_captures *c = context;
    if (e->kind == LX_LOAD)
        capture_mem(c, e->mem);
    if (e->kind != LX_VAR || is_defined(c, e->var))
        return;
    for (int i = 0; i < c->vars.n; i++)
        if (c->vars.at[i] == e->var)
            return;
    VEC_PUSH(c->arena, c->vars, e->var);
}

static void capture_stmt(const struct loop_stmt *s, void *context) {
    struct cgen_captures *c = context;
    if (s->kind == LS_STORE)
        capture_mem(c, s->mem);
    if (s->kind == LS_CALL)
        for (int i = 0; i < s->callee->mem_count; i++)
            capture_mem(c, s->call_mems[i].mem);
}

void cgen_capture(struct cgen_captures *c, const struct loop_block *k) {
    loop_walk(k, NULL, note_defined, c);
    loop_walk(k, capture_expr, capture_stmt, c);
}

struct cgen_names cgen_scope_replace(struct cgen *g) {
    struct cgen_kernels *k = cgen_private(g);
    struct cgen_names old = {k->scope.at, k->scope.n, k->scope.cap};
    k->scope.at = NULL;
    k->scope.n = k->scope.cap = 0;
    return old;
}

void cgen_scope_restore(struct cgen *g, struct cgen_names names) {
    struct cgen_kernels *k = cgen_private(g);
    k->scope.at = names.at;
    k->scope.n = names.n;
    k->scope.cap = names.cap;
}

static void print_parallel(struct cprint *p, const struct loop_stmt *s) {
    struct cgen *g = p->g;
    struct cgen_kernels *k = cgen_private(g);
    struct cgen_captures c = {.arena = &g->arena};
    VEC_PUSH(c.arena, c.defined, s->var);
    cgen_capture(&c, &s->body);
    const char *name = arena_printf(&g->arena, "%s_mx_task_%d", g->prefix, k->outlined++);
    struct text body = {0};
    int mark = k->scope.n;
    int64_t stack = k->stack;
    text_printf(&body, "struct %s {\n", name);
    for (int i = 0; i < c.mems.n; i++) {
        const struct loop_mem *m = c.mems.at[i];
        text_printf(&body, m->kind == MEM_SCALAR ? "    %s%s %s;\n" : "    %s%s *%s;\n",
                    m->written || m->kind == MEM_SCALAR ? "" : "const ", cgen_c_type(m->dtype), cgen_name_of(g, m->id));
    }
    for (int i = 0; i < c.vars.n; i++)
        text_printf(&body, "    %s %s;\n", cprint_register_type(c.vars.at[i]->dtype),
                    cgen_name_of(g, c.vars.at[i]->id));
    if (!c.mems.n && !c.vars.n)
        text_add(&body, "    char unused;\n");
    const char *own = own_name(g, "c"), *context = own_name(g, "context"), *task = own_name(g, "task"),
               *tasks = own_name(g, "tasks");
    text_printf(&body, "};\n\nstatic void %s_run(void *%s, int64_t %s)\n{\n", name, context, task);
    struct cprint q = {.g = g, .out = &body, .indent = 1};
    if (c.mems.n || c.vars.n)
        cprint_line(&q, "const struct %s *%s = %s;", name, own, context);
    else
        cprint_line(&q, "(void)%s;", context);
    for (int i = 0; i < c.mems.n; i++) {
        const struct loop_mem *m = c.mems.at[i];
        const char *n = cgen_name_of(g, m->id);
        if (m->kind == MEM_SCALAR)
            cprint_line(&q, "const %s %s = %s->%s;", cgen_c_type(m->dtype), n, own, n);
        else
            cprint_line(&q, "%s%s *%s%s = %s->%s;", m->written ? "" : "const ", cgen_c_type(m->dtype),
                        m->no_alias ? "restrict " : "", n, own, n);
    }
    for (int i = 0; i < c.vars.n; i++) {
        const char *n = cgen_name_of(g, c.vars.at[i]->id);
        cprint_line(&q, "const %s %s = %s->%s;", cprint_register_type(c.vars.at[i]->dtype), n, own, n);
    }
    const char *counter = cgen_enter_name(g, s->var->name);
    cgen_set_name(g, s->var->id, counter);
    cprint_line(&q, "const int64_t %s = %s;", counter, task);
    cprint_block(&q, &s->body);
    text_add(&body, "}\n\n");
    text_add(&g->outlined, text_string(&body));
    text_free(&body);
    k->scope.n = mark;
    k->stack = stack;

    cprint_line(p, "{");
    p->indent++;
    indent(p);
    text_printf(p->out, "struct %s %s = {", name, tasks);
    bool first = true;
    for (int i = 0; i < c.mems.n; i++, first = false)
        text_printf(p->out, "%s%s", first ? "" : ", ", cgen_name_of(g, c.mems.at[i]->id));
    for (int i = 0; i < c.vars.n; i++, first = false)
        text_printf(p->out, "%s%s", first ? "" : ", ", cgen_name_of(g, c.vars.at[i]->id));
    add(p, first ? "0};\n" : "};\n");
    indent(p);
    add(p, "mxrt_parallel(m->pool, ");
    cprint_expr(p, s->hi, P_COMMA + 1);
    text_printf(p->out, ", %s_run, &%s);\n", name, tasks);
    p->indent--;
    cprint_line(p, "}");
}
