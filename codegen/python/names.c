/* Python identifiers for what the source names: as spelt there where Python allows it. C's reserved words are not Python's,
 * so `double` keeps its spelling here, and `lambda` does not. */
#include <ctype.h>
#include <string.h>

#include "codegen/python/python_internal.h"

/* clang-format off */
static const char *const keywords[] = {
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del", "elif", "else",
    "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise",
    "return", "try", "while", "with", "yield",
    "self", "max", "min", /* in methods and in expressions of dimensions */
    NULL,
};
/* clang-format on */

static bool has(const struct python_scope *s, const char *name) {
    for (int i = 0; i < s->names.n; i++)
        if (strcmp(s->names.at[i], name) == 0)
            return true;
    return false;
}

static const char *enter(struct python_scope *s, const char *base) {
    const char *name = base;
    for (int i = 2; has(s, name); i++)
        name = i == 2 ? arena_printf(s->arena, "%s_", base) : arena_printf(s->arena, "%s_%d", base, i);
    VEC_PUSH(s->arena, s->names, name);
    return name;
}

const char *python_enter(struct python_scope *s, const char *name) {
    return enter(s, cgen_identifier_but(s->arena, name, keywords));
}

void python_enter_methods(struct python_scope *s) {
    static const char *const methods[] = {"parameters", "states", "set_parameters", "view",      "delta",
                                          "add_delta",  "save",   "load",           "reset_all", "close"};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        VEC_PUSH(s->arena, s->names, methods[i]);
}

const char *python_class(struct python_scope *s, const char *name, const char *suffix) {
    char *out = arena_strdup(s->arena, name);
    size_t n = 0;
    bool start = true;
    for (const char *c = name; *c; c++) {
        if (*c != '_')
            out[n++] = start ? (char)toupper((unsigned char)*c) : *c;
        start = *c == '_';
    }
    out[n] = 0;
    return python_enter(s, arena_printf(s->arena, "%s%s", out, suffix));
}

const char *codegen_python_module(struct arena *a, const char *name) {
    return cgen_identifier_but(a, name, keywords);
}
