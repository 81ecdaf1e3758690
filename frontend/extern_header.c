/* Reading a C header with libclang through its stable C interface, loaded at run time.
 *
 * The few declarations below restate clang-c/Index.h: plain structs passed by value and functions, which libclang keeps
 * compatible between versions. */
#include "frontend/extern_header.h"

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

struct cx_string {
    const void *data;
    unsigned flags;
};
struct cx_cursor {
    int kind, xdata;
    const void *data[3];
};
struct cx_type {
    int kind;
    void *data[2];
};
enum {
    CURSOR_FUNCTION = 8,
    TYPE_VOID = 2,
    TYPE_POINTER = 101,
    VISIT_CONTINUE = 1,
    VISIT_BREAK = 0,
    SKIP_BODIES = 0x40
};

struct libclang {
    void *(*create_index)(int, int);
    void (*dispose_index)(void *);
    void *(*parse)(void *, const char *, const char *const *, int, void *, unsigned, unsigned);
    void (*dispose_unit)(void *);
    struct cx_cursor (*unit_cursor)(void *);
    unsigned (*visit)(struct cx_cursor, int (*)(struct cx_cursor, struct cx_cursor, void *), void *);
    struct cx_string (*spelling)(struct cx_cursor);
    const char *(*c_string)(struct cx_string);
    void (*dispose_string)(struct cx_string);
    struct cx_type (*cursor_type)(struct cx_cursor);
    struct cx_type (*canonical)(struct cx_type);
    struct cx_type (*result_type)(struct cx_type);
    int (*arg_count)(struct cx_type);
    struct cx_type (*arg_type)(struct cx_type, unsigned);
    struct cx_type (*pointee)(struct cx_type);
    unsigned (*is_const)(struct cx_type);
    struct cx_string (*type_spelling)(struct cx_type);
    unsigned (*diagnostic_count)(void *);
    void *(*diagnostic)(void *, unsigned);
    int (*severity)(void *);
    void (*dispose_diagnostic)(void *);
};

static bool load(struct libclang *c) {
    static const char *const names[] = {"libclang.so",      "libclang.so.1",    "libclang-14.so.1", "libclang-15.so.1",
                                        "libclang-16.so.1", "libclang-17.so.1", "libclang-18.so.1", "libclang-19.so.1"};
    void *lib = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !lib; i++)
        lib = dlopen(names[i], RTLD_LAZY | RTLD_LOCAL);
    if (!lib)
        return false;
    const struct {
        void *at;
        const char *name;
    } rows[] = {
        {&c->create_index, "clang_createIndex"},
        {&c->dispose_index, "clang_disposeIndex"},
        {&c->parse, "clang_parseTranslationUnit"},
        {&c->dispose_unit, "clang_disposeTranslationUnit"},
        {&c->unit_cursor, "clang_getTranslationUnitCursor"},
        {&c->visit, "clang_visitChildren"},
        {&c->spelling, "clang_getCursorSpelling"},
        {&c->c_string, "clang_getCString"},
        {&c->dispose_string, "clang_disposeString"},
        {&c->cursor_type, "clang_getCursorType"},
        {&c->canonical, "clang_getCanonicalType"},
        {&c->result_type, "clang_getResultType"},
        {&c->arg_count, "clang_getNumArgTypes"},
        {&c->arg_type, "clang_getArgType"},
        {&c->pointee, "clang_getPointeeType"},
        {&c->is_const, "clang_isConstQualifiedType"},
        {&c->type_spelling, "clang_getTypeSpelling"},
        {&c->diagnostic_count, "clang_getNumDiagnostics"},
        {&c->diagnostic, "clang_getDiagnostic"},
        {&c->severity, "clang_getDiagnosticSeverity"},
        {&c->dispose_diagnostic, "clang_disposeDiagnostic"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        void *symbol = dlsym(lib, rows[i].name);
        if (!symbol)
            return false;
        memcpy(rows[i].at, &symbol, sizeof symbol);
    }
    return true;
}

struct search {
    const struct libclang *clang;
    struct arena *arena;
    const char *function;
    struct extern_signature *out;
    bool found;
};

static bool dtype_of_kind(int kind, enum dtype *t) {
    /* CXType_Bool 3 … CXType_Double 22, for the ABIs where char is 8, short 16, int 32, long long 64 bits */
    switch (kind) {
    case 3: *t = BOOL; return true;
    case 4:
    case 5: *t = U8; return true;
    case 8: *t = U16; return true;
    case 9: *t = U32; return true;
    case 10: *t = sizeof(long) == 8 ? U64 : U32; return true;
    case 11: *t = U64; return true;
    case 13:
    case 14: *t = I8; return true;
    case 16: *t = I16; return true;
    case 17: *t = I32; return true;
    case 18: *t = sizeof(long) == 8 ? I64 : I32; return true;
    case 19: *t = I64; return true;
    case 21: *t = F32; return true;
    case 22: *t = F64; return true;
    default: return false;
    }
}

static struct extern_param describe(const struct search *s, struct cx_type t) {
    const struct libclang *c = s->clang;
    struct extern_param p = {0};
    struct cx_string name = c->type_spelling(t);
    const char *text = c->c_string(name);
    p.type = arena_strdup(s->arena, text ? text : "?");
    c->dispose_string(name);
    t = c->canonical(t);
    if (t.kind == TYPE_POINTER || t.kind == 112 /* constant array */ || t.kind == 114 /* incomplete array */) {
        struct cx_type inner = c->canonical(c->pointee(t));
        p.is_pointer = true;
        p.is_const = c->is_const(inner);
        t = inner;
    }
    p.known = dtype_of_kind(t.kind, &p.dtype);
    return p;
}

static int visit(struct cx_cursor cursor, struct cx_cursor parent, void *context) {
    struct search *s = context;
    const struct libclang *c = s->clang;
    (void)parent;
    if (cursor.kind != CURSOR_FUNCTION)
        return VISIT_CONTINUE;
    struct cx_string name = c->spelling(cursor);
    bool same = c->c_string(name) && strcmp(c->c_string(name), s->function) == 0;
    c->dispose_string(name);
    if (!same)
        return VISIT_CONTINUE;
    struct cx_type t = c->cursor_type(cursor), result = c->result_type(t);
    s->out->count = c->arg_count(t);
    for (int i = 0; i < s->out->count && i < EXTERN_MAX_PARAMS; i++)
        s->out->params[i] = describe(s, c->arg_type(t, (unsigned)i));
    s->out->returns_void = c->canonical(result).kind == TYPE_VOID;
    s->out->result = describe(s, result);
    s->found = true;
    return VISIT_BREAK;
}

enum extern_status extern_header_read(struct arena *a, const char *path, const char *function,
                                      struct extern_signature *s) {
    struct libclang c;
    *s = (struct extern_signature){0};
    if (access(path, R_OK) != 0)
        return EXTERN_NO_HEADER;
    if (!load(&c))
        return EXTERN_NO_LIBCLANG;
    static const char *const args[] = {"-x", "c", "-std=c11"};
    void *index = c.create_index(0, 0);
    void *unit = c.parse(index, path, args, 3, NULL, 0, SKIP_BODIES);
    struct search search = {.clang = &c, .arena = a, .function = function, .out = s};
    bool broken = unit == NULL;
    for (unsigned i = 0; unit && i < c.diagnostic_count(unit); i++) {
        void *d = c.diagnostic(unit, i);
        broken = broken || c.severity(d) >= 3;
        c.dispose_diagnostic(d);
    }
    if (unit) {
        c.visit(c.unit_cursor(unit), visit, &search);
        c.dispose_unit(unit);
    }
    c.dispose_index(index);
    /* A header that needs other include paths than we know still tells about its own functions. */
    return search.found ? EXTERN_FOUND : broken ? EXTERN_NO_HEADER : EXTERN_NO_FUNCTION;
}
