/* Names in printed code: each is clean, no word of the language, and unique among those in scope. */
#include <string.h>

#include "codegen/c/print_internal.h"

struct cgen_kernels *cgen_private(struct cgen *g) {
    if (!g->kernels) {
        g->kernels = ARENA_NEW(&g->arena, struct cgen_kernels);
        g->kernels->builder.arena = &g->arena;
    }
    return g->kernels;
}

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

const char *cgen_own_name(struct cgen *g, const char *wanted) {
    struct cgen_kernels *k = cgen_private(g);
    for (int i = 0; i < k->scope.n; i++)
        if (!strcmp(k->scope.at[i], wanted))
            return cgen_own_name(g, arena_printf(&g->arena, "%s_", wanted));
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
