/* C identifiers for what the source names.
 *
 * A name keeps its spelling where C allows it. Dots become underscores; C and C++ keywords, names of the interface and
 * functions that generated code calls get a trailing underscore; what would then meet an earlier name of the same scope
 * gets a number. Scopes: the fields of the instance's struct, and each function's parameters. All names are made once,
 * in order of declaration, so they do not depend on who asks first.
 */
#include <string.h>

#include "codegen/codegen.h"

struct func_names {
    const char **args, **results, **symbols, **found;
};

struct cgen_names {
    const char **fields;      /* [buffer_count] */
    struct func_names *funcs; /* [func_count] */
    const char **symbols;     /* [symbol_count] by symbol id */
};

/* clang-format off */
static const char *const reserved[] = {
    /* C */
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern", "float",
    "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed", "sizeof", "static",
    "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while", "_Bool", "_Complex", "_Imaginary",
    "alignas", "alignof", "bool", "complex", "imaginary", "noreturn", "static_assert", "thread_local", "true", "false",
    "constexpr", "nullptr", "typeof", "asm", "NULL", "EOF", "errno", "assert", "stdin", "stdout", "stderr", "I", "linux",
    "unix", "signal", "size_t", "ptrdiff_t", "int8_t", "int16_t", "int32_t", "int64_t", "uint8_t", "uint16_t", "uint32_t",
    "uint64_t", "intptr_t", "uintptr_t", "va_list", "FILE", "NAN", "INFINITY", "HUGE_VAL", "offsetof",
    /* C++, for the header */
    "and", "and_eq", "bitand", "bitor", "catch", "class", "compl", "concept", "const_cast", "decltype", "delete",
    "dynamic_cast", "explicit", "export", "friend", "mutable", "namespace", "new", "noexcept", "not", "not_eq", "operator",
    "or", "or_eq", "private", "protected", "public", "reinterpret_cast", "requires", "static_cast", "template", "this",
    "throw", "try", "typeid", "typename", "using", "virtual", "wchar_t", "xor", "xor_eq",
    /* libc and libm names that generated code may call */
    "abort", "abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "calloc", "cbrt", "ceil", "cos", "cosh",
    "erf", "erfc", "exit", "exp", "exp2", "expm1", "fabs", "fabsf", "floor", "fma", "fmax", "fmin", "fmod", "fopen",
    "free", "frexp", "hypot", "isfinite", "isinf", "isnan", "ldexp", "lgamma", "log", "log10", "log1p", "log2", "lrint",
    "malloc", "memcmp", "memcpy", "memmove", "memset", "nan", "nearbyint", "pow", "printf", "puts", "qsort", "realloc",
    "rint", "round", "signbit", "sin", "sinh", "snprintf", "sqrt", "sqrtf", "strcmp", "strlen", "tan", "tanh", "tgamma",
    "time", "trunc", "truncf", "vsnprintf", "index", "main", "fclose", "ferror", "fgetc", "fputc", "fputs", "fread", "fseek",
    "ftell", "fwrite", "remove", "rename", "strerror", "strncmp", "va_start", "va_end", "SEEK_END", "SEEK_SET", "UINT64_MAX",
    /* the interface and the instance */
    "m", "arena", "cache", "seed", "calls", "pool", "log_context", "mx", NULL,
};
/* clang-format on */

static bool is_reserved(const char *name, const char *const *words) {
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], name) == 0)
            return true;
    /* mx_ and MX_ belong to the interface, leading underscores to the implementation. */
    return strncmp(name, "mx_", 3) == 0 || strncmp(name, "MX_", 3) == 0;
}

const char *cgen_identifier_but(struct arena *a, const char *name, const char *const *words) {
    char *s = arena_printf(a, "%s%s", *name >= '0' && *name <= '9' ? "n" : "", *name ? name : "unnamed");
    for (char *p = s; *p; p++)
        if (!((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')))
            *p = '_';
    if (s[0] == '_')
        s = arena_printf(a, "n%s", s);
    return is_reserved(s, words) ? arena_printf(a, "%s_", s) : s;
}

const char *cgen_identifier(struct arena *a, const char *name) {
    return cgen_identifier_but(a, name, reserved);
}

/* A small open-addressing set of the names of one scope. */
struct scope {
    const char **slots;
    int size, used;
};

static bool scope_add(struct arena *a, struct scope *s, const char *name) {
    if (s->used * 2 >= s->size) {
        struct scope bigger = {ARENA_ARRAY(a, const char *, s->size ? s->size * 2 : 64), s->size ? s->size * 2 : 64, 0};
        for (int i = 0; i < s->size; i++)
            if (s->slots[i])
                scope_add(a, &bigger, s->slots[i]);
        *s = bigger;
    }
    uint32_t h = 2166136261u;
    for (const char *p = name; *p; p++)
        h = (h ^ (unsigned char)*p) * 16777619u;
    for (;; h++) {
        const char **slot = &s->slots[h & (uint32_t)(s->size - 1)];
        if (*slot && strcmp(*slot, name) == 0)
            return false;
        if (!*slot) {
            *slot = name;
            s->used++;
            return true;
        }
    }
}

static const char *unique(struct cgen *g, struct scope *s, const char *name) {
    const char *base = cgen_identifier(&g->arena, name), *tried = base;
    if (strcmp(base, g->prefix) == 0) /* the instance's type has that name */
        tried = base = arena_printf(&g->arena, "%s_", base);
    for (int i = 2; !scope_add(&g->arena, s, tried); i++)
        tried = arena_printf(&g->arena, "%s_%d", base, i);
    return tried;
}

static struct func_names *make_func(struct cgen *g, struct func_names *n, struct cgen_names *all,
                                    const struct ir_func *f) {
    struct scope scope = {0};
    struct arena *a = &g->arena;
    int args = f->body->arg_count;
    n->args = ARENA_ARRAY(a, const char *, args);
    n->results = ARENA_ARRAY(a, const char *, f->result_count);
    n->found = ARENA_ARRAY(a, const char *, f->result_symbol_count);
    for (int i = 0; i < f->symbol_count; i++)
        all->symbols[f->symbols[i]->id] = unique(g, &scope, f->symbols[i]->name);
    for (int i = 0; i < args; i++)
        n->args[i] = unique(g, &scope, f->arg_names[i] ? f->arg_names[i] : "x");
    for (int i = 0; i < f->result_symbol_count; i++)
        n->found[i] = unique(g, &scope, f->result_symbols[i].name ? f->result_symbols[i].name : "count");
    for (int i = 0; i < f->result_count; i++) {
        const char *name = f->result_names ? f->result_names[i] : NULL;
        if (!name)
            name = f->result_count == 1 ? "result" : arena_printf(a, "result%d", i);
        n->results[i] = unique(g, &scope, name);
    }
    return n;
}

static struct cgen_names *names(struct cgen *g) {
    if (g->names)
        return g->names;
    struct ir_module *m = g->module;
    struct cgen_names *n = g->names = ARENA_NEW(&g->arena, struct cgen_names);
    struct scope scope = {0};
    n->fields = ARENA_ARRAY(&g->arena, const char *, m->buffer_count);
    for (int i = 0; i < m->buffer_count; i++)
        n->fields[i] = unique(g, &scope, m->buffers[i]->name);
    n->symbols = ARENA_ARRAY(&g->arena, const char *, m->symbol_count + 1);
    n->funcs = ARENA_ARRAY(&g->arena, struct func_names, m->func_count + 1);
    for (int i = 0; i < m->func_count; i++)
        make_func(g, &n->funcs[i], n, m->funcs[i]);
    if (m->init)
        make_func(g, &n->funcs[m->func_count], n, m->init);
    return n;
}

static struct func_names *func_names(struct cgen *g, const struct ir_func *f) {
    struct cgen_names *n = names(g);
    for (int i = 0; i < g->module->func_count; i++)
        if (g->module->funcs[i] == f)
            return &n->funcs[i];
    return &n->funcs[g->module->func_count];
}

const char *cgen_buffer_field(struct cgen *g, const struct ir_buffer *b) {
    return names(g)->fields[b->id];
}

const char *cgen_arg_name(struct cgen *g, const struct ir_func *f, int arg) {
    return func_names(g, f)->args[arg];
}

const char *cgen_result_name(struct cgen *g, const struct ir_func *f, int result) {
    return func_names(g, f)->results[result];
}

const char *cgen_found_name(struct cgen *g, const struct ir_func *f, int result_symbol) {
    return func_names(g, f)->found[result_symbol];
}

void cgen_set_symbol_name(struct cgen *g, const struct ir_symbol *s, const char *name) {
    names(g)->symbols[s->id] = name;
}

const char *cgen_symbol_name(struct cgen *g, const struct ir_symbol *s) {
    struct cgen_names *n = names(g);
    /* A symbol made inside a function: its id keeps it apart from parameters and locals. */
    if (!n->symbols[s->id])
        n->symbols[s->id] =
            arena_printf(&g->arena, "%s_d%d", cgen_identifier(&g->arena, s->name ? s->name : "n"), s->id);
    return n->symbols[s->id];
}

const char *cgen_c_type(enum dtype t) {
    static const char *const types[DTYPE_COUNT] = {"double",   "float",   "uint16_t", "uint16_t", "int64_t",
                                                   "int32_t",  "int16_t", "int8_t",   "uint64_t", "uint32_t",
                                                   "uint16_t", "uint8_t", "bool"};
    return types[t];
}

/* How dimensions are written. */
enum notation { NOTATION_C, NOTATION_MODEL, NOTATION_PYTHON };
struct dim_printer {
    struct cgen *g;
    struct text *out;
    enum notation notation;
    const char *const *names; /* by symbol id; NULL: those of C */
};

static void print_dim(const struct dim_printer *p, ir_dim d);

/* `left operator right`, as the model and Python write floor quotients and remainders. */
static void written_quotient(const struct dim_printer *p, const struct ir_dim_atom *a) {
    const ir_dim parts[2] = {a->a, a->b};
    const char *quotient = p->notation == NOTATION_PYTHON ? " // " : " / ";
    for (int i = 0; i < 2; i++) {
        bool plain = parts[i]->count == 0 || (parts[i]->count == 1 && parts[i]->terms[0].count <= 1 - i);
        text_add(p->out, i == 0 ? "" : a->kind == ATOM_DIV ? quotient : " % ");
        text_add(p->out, plain ? "" : "(");
        print_dim(p, parts[i]);
        text_add(p->out, plain ? "" : ")");
    }
}

static void dim_atom(const struct dim_printer *p, const struct ir_dim_atom *a, bool alone) {
    static const char *const call[] = {"", "mx_dim_div(", "mx_dim_mod("};
    struct text *out = p->out;
    bool quotient = a->kind == ATOM_DIV || a->kind == ATOM_MOD, written = p->notation != NOTATION_C;
    if (a->kind == ATOM_SYMBOL) {
        text_add(out, p->names ? p->names[a->symbol->id] : cgen_symbol_name(p->g, a->symbol));
    } else if (quotient && written) {
        text_add(out, alone ? "" : "(");
        written_quotient(p, a);
        text_add(out, alone ? "" : ")");
    } else if (quotient || written) {
        text_add(out, quotient ? call[a->kind] : a->kind == ATOM_MAX ? "max(" : "min(");
        print_dim(p, a->a);
        text_add(out, ", ");
        print_dim(p, a->b);
        text_add(out, ")");
    } else {
        text_add(out, "((");
        print_dim(p, a->a);
        text_add(out, a->kind == ATOM_MAX ? ") > (" : ") < (");
        print_dim(p, a->b);
        text_add(out, ") ? (");
        print_dim(p, a->a);
        text_add(out, ") : (");
        print_dim(p, a->b);
        text_add(out, "))");
    }
}

static void print_dim(const struct dim_printer *p, ir_dim d) {
    struct text *out = p->out;
    if (d->count == 0)
        text_add(out, "0");
    for (int i = 0; i < d->count; i++) {
        const struct ir_dim_term *t = &d->terms[i];
        int64_t c = t->coefficient;
        if (i > 0)
            text_add(out, c < 0 ? " - " : " + ");
        else if (c < 0)
            text_add(out, "-");
        uint64_t size = c < 0 ? 0 - (uint64_t)c : (uint64_t)c;
        if (t->count == 0 || size != 1)
            text_printf(out, "%llu%s", (unsigned long long)size, t->count ? " * " : "");
        for (int k = 0; k < t->count; k++) {
            if (k)
                text_add(out, " * ");
            dim_atom(p, t->atoms[k], d->count == 1 && t->count == 1 && c == 1);
        }
    }
}

void cgen_dim(struct cgen *g, struct text *out, ir_dim d) {
    print_dim(&(struct dim_printer){g, out, NOTATION_C, NULL}, d);
}

void cgen_dim_comment(struct cgen *g, struct text *out, ir_dim d) {
    print_dim(&(struct dim_printer){g, out, NOTATION_MODEL, NULL}, d);
}

void cgen_dim_python(struct cgen *g, struct text *out, ir_dim d, const char *const *names) {
    print_dim(&(struct dim_printer){g, out, NOTATION_PYTHON, names}, d);
}
