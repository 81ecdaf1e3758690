/* The values of elaboration: constructors, description for messages, equality. */
#include <string.h>

#include "frontend/elab.h"
#include "ir/text.h"

const struct val val_error = {.kind = VAL_ERROR};
const struct val val_none = {.kind = VAL_NONE};

struct val val_int(int64_t i) {
    return (struct val){.kind = VAL_INT, .i = i};
}

struct val val_float(double f) {
    return (struct val){.kind = VAL_FLOAT, .f = f};
}

struct val val_bool(bool b) {
    return (struct val){.kind = VAL_BOOL, .b = b};
}

struct val val_string(const char *s) {
    return (struct val){.kind = VAL_STRING, .s = s};
}

struct val val_dim(struct elab *e, ir_dim d) {
    int64_t i;
    (void)e;
    if (ir_dim_is_const(d, &i))
        return val_int(i);
    return (struct val){.kind = VAL_DIM, .dim = d};
}

struct val val_tensor(struct ir_value *v) {
    return v ? (struct val){.kind = VAL_TENSOR, .value = v} : val_error;
}

struct val val_scalar(ir_expr x) {
    return x ? (struct val){.kind = VAL_SCALAR, .expr = x} : val_error;
}

struct val val_list_new(struct elab *e, int count) {
    struct val_list *l = ARENA_NEW(e->arena, struct val_list);
    l->count = count;
    e->work += count / 2; /* seen by the next elab_spend */
    l->items = ARENA_ARRAY(e->arena, struct val, count ? count : 1);
    return (struct val){.kind = VAL_LIST, .list = l};
}

struct val val_type(struct elab *e, struct ir_type t) {
    struct ir_type *copy = ARENA_NEW(e->arena, struct ir_type);
    *copy = t;
    return (struct val){.kind = VAL_TYPE, .type = copy};
}

bool val_is_number(struct val v) {
    return v.kind == VAL_INT || v.kind == VAL_DIM || v.kind == VAL_FLOAT;
}

bool val_is_runtime(struct val v) {
    return v.kind == VAL_SCALAR || v.kind == VAL_TENSOR || v.kind == VAL_LAZY || v.kind == VAL_BUFFER;
}

bool val_is_static(struct val v) {
    return !val_is_runtime(v) && v.kind != VAL_RANGE && v.kind != VAL_TUPLE && v.kind != VAL_ERROR;
}

const char *type_text(struct elab *e, struct ir_type t) {
    struct text out = {0};
    ir_print_type(&out, t);
    const char *s = arena_strdup(e->arena, text_string(&out));
    text_free(&out);
    return s;
}

const char *dim_text(struct elab *e, ir_dim d) {
    struct text out = {0};
    ir_print_dim(&out, d);
    const char *s = arena_strdup(e->arena, text_string(&out));
    text_free(&out);
    return s;
}

const char *val_describe(struct elab *e, struct val v) {
    switch (v.kind) {
    case VAL_ERROR: return "an error";
    case VAL_NONE: return "none";
    case VAL_INT: return arena_printf(e->arena, "the integer %lld", (long long)v.i);
    case VAL_DIM: return arena_printf(e->arena, "the dimension %s", dim_text(e, v.dim));
    case VAL_FLOAT: return arena_printf(e->arena, "the number %g", v.f);
    case VAL_BOOL: return v.b ? "true" : "false";
    case VAL_STRING: return arena_printf(e->arena, "the string \"%.40s\"", v.s);
    case VAL_LIST: {
        struct text t = {0};
        text_add(&t, "the list [");
        for (int i = 0; i < v.list->count && i < 6; i++) {
            struct val x = v.list->items[i];
            if (x.kind == VAL_INT)
                text_printf(&t, "%s%lld", i ? ", " : "", (long long)x.i);
            else if (x.kind == VAL_DIM)
                text_printf(&t, "%s%s", i ? ", " : "", dim_text(e, x.dim));
            else if (x.kind == VAL_FLOAT)
                text_printf(&t, "%s%g", i ? ", " : "", x.f);
            else
                text_printf(&t, "%s…", i ? ", " : "");
        }
        text_add(&t, v.list->count > 6 ? ", …]" : "]");
        const char *s = arena_strdup(e->arena, text_string(&t));
        text_free(&t);
        return s;
    }
    case VAL_DTYPE: return arena_printf(e->arena, "the type %s", dtype_name(v.dtype));
    case VAL_TYPE: return arena_printf(e->arena, "the type %s", type_text(e, *v.type));
    case VAL_FN: return arena_printf(e->arena, "the function `%s`", v.fn->name);
    case VAL_BUILTIN: return arena_printf(e->arena, "the function `%s`", v.builtin->name);
    case VAL_CLASS: return arena_printf(e->arena, "the block `%s` (not an instance)", v.class_->name);
    case VAL_BLOCK: return arena_printf(e->arena, "a block `%s`", v.block->class_->name);
    case VAL_MODULE: return "a module";
    case VAL_BUFFER:
    case VAL_SCALAR:
    case VAL_TENSOR:
    case VAL_LAZY: return type_text(e, val_runtime_type(e, v));
    case VAL_RANGE: return "a range with a run-time end";
    case VAL_DATA: return type_text(e, v.data->type);
    case VAL_TUPLE: return arena_printf(e->arena, "%d results", v.list->count);
    }
    return "?";
}

bool val_as_dim(struct elab *e, struct val v, ir_dim *d) {
    if (v.kind == VAL_INT)
        *d = ir_dim_const(e->module, v.i);
    else if (v.kind == VAL_DIM)
        *d = v.dim;
    else
        return false;
    return true;
}

static bool numbers_equal(struct elab *e, struct val a, struct val b, bool *decided) {
    if (a.kind == VAL_FLOAT || b.kind == VAL_FLOAT) {
        if (a.kind == VAL_DIM || b.kind == VAL_DIM)
            return false; /* a symbolic dimension is never provably a fraction; undecidable cases do not matter */
        double x = a.kind == VAL_FLOAT ? a.f : (double)a.i, y = b.kind == VAL_FLOAT ? b.f : (double)b.i;
        return x == y;
    }
    ir_dim x, y;
    val_as_dim(e, a, &x);
    val_as_dim(e, b, &y);
    if (x == y)
        return true;
    if (!ir_dim_lt(e->module, x, y) && !ir_dim_lt(e->module, y, x))
        *decided = false;
    return false;
}

bool val_equal(struct elab *e, struct val a, struct val b, bool *decided) {
    if (val_is_number(a) && val_is_number(b))
        return numbers_equal(e, a, b, decided);
    if (a.kind != b.kind) {
        /* `[2]` is not 2; a type without dimensions is its dtype. */
        if (a.kind == VAL_TYPE && b.kind == VAL_DTYPE)
            return a.type->rank == 0 && a.type->dtype == b.dtype;
        if (b.kind == VAL_TYPE && a.kind == VAL_DTYPE)
            return val_equal(e, b, a, decided);
        return false;
    }
    switch (a.kind) {
    case VAL_NONE: return true;
    case VAL_BOOL: return a.b == b.b;
    case VAL_STRING: return strcmp(a.s, b.s) == 0;
    case VAL_DTYPE: return a.dtype == b.dtype;
    case VAL_TYPE: return ir_type_equal(*a.type, *b.type);
    case VAL_FN: return a.fn->decl == b.fn->decl;
    case VAL_BUILTIN: return a.builtin == b.builtin;
    case VAL_CLASS: return a.class_->decl == b.class_->decl;
    case VAL_BLOCK: return a.block == b.block;
    case VAL_MODULE: return a.module == b.module;
    case VAL_BUFFER: return a.cell == b.cell;
    case VAL_LIST: {
        if (a.list->count != b.list->count)
            return false;
        bool all = true, sure = true;
        for (int i = 0; i < a.list->count; i++) {
            bool d = true;
            bool same = val_equal(e, a.list->items[i], b.list->items[i], &d);
            if (!same && d)
                return false;
            all = all && same;
            sure = sure && d;
        }
        if (!sure)
            *decided = false;
        return all;
    }
    default: return false;
    }
}

/* ---- reporting ----------------------------------------------------------------------------------------------------- */

struct diagnostic *elab_error(struct elab *e, enum error_code code, struct span at, const char *format, ...) {
    if (e->silent)
        return NULL;
    e->failures++;
    /* What a call asks of the library is wrong once: further errors inside it follow from that. */
    const char *hint;
    struct span user = elab_user_span(e, at, &hint);
    if (user.begin != at.begin || user.source != at.source) {
        for (int i = 0; i < e->blamed.n; i++)
            if (e->blamed.at[i].source == user.source && e->blamed.at[i].begin == user.begin)
                return NULL;
        VEC_PUSH(e->arena, e->blamed, user);
    }
    va_list args;
    va_start(args, format);
    const char *text = arena_vprintf(&e->diag->arena, format, args);
    va_end(args);
    return diag_error(e->diag, code, at, "%s", text);
}

void elab_label(struct elab *e, struct diagnostic *d, const char *format, ...) {
    if (!d)
        return;
    va_list args;
    va_start(args, format);
    diag_label(e->diag, d, "%s", arena_vprintf(&e->diag->arena, format, args));
    va_end(args);
}

void elab_note(struct elab *e, struct diagnostic *d, struct span at, const char *format, ...) {
    if (!d)
        return;
    va_list args;
    va_start(args, format);
    diag_note(e->diag, d, at, "%s", arena_vprintf(&e->diag->arena, format, args));
    va_end(args);
}

void elab_help(struct elab *e, struct diagnostic *d, const char *format, ...) {
    if (!d)
        return;
    va_list args;
    va_start(args, format);
    diag_help(e->diag, d, "%s", arena_vprintf(&e->diag->arena, format, args));
    va_end(args);
}
