/* Modules and what they hold: symbols, buffers, functions, types. */
#include "ir/intern.h"

#include <string.h>

struct ir_module *ir_module_new(struct diag *d, const char *name) {
    struct arena arena = {0};
    struct ir_module *m = ARENA_NEW(&arena, struct ir_module);
    m->arena = arena;
    m->diag = d;
    m->name = arena_strdup(&m->arena, name);
    m->interner = ARENA_NEW(&m->arena, struct ir_interner);
    return m;
}

void ir_module_free(struct ir_module *m) {
    if (!m)
        return;
    intern_free(m->interner);
    struct arena arena = m->arena; /* the module lies in its own arena */
    arena_free(&arena);
}

#define PUSH(m, list, item)                                                                             \
    do {                                                                                                \
        if ((m)->list##_count == (m)->list##_cap)                                                       \
            (m)->list##s = vec_grow(&(m)->arena, (m)->list##s, sizeof *(m)->list##s, &(m)->list##_cap); \
        (m)->list##s[(m)->list##_count++] = (item);                                                     \
    } while (0)

struct ir_symbol *ir_symbol_new(struct ir_func *f, const char *name, int64_t lo, int64_t hi, struct span span) {
    struct ir_module *m = f->module;
    struct ir_symbol *s = ARENA_NEW(&m->arena, struct ir_symbol);
    s->id = m->symbol_count;
    s->name = arena_strdup(&m->arena, name);
    s->lo = lo;
    s->hi = hi;
    s->func = f;
    s->span = span;
    PUSH(m, symbol, s);
    return s;
}

struct ir_buffer *ir_buffer_new(struct ir_module *m, const char *name, enum buffer_kind kind, struct ir_type t,
                                struct span span) {
    struct ir_buffer *b = ARENA_NEW(&m->arena, struct ir_buffer);
    b->id = m->buffer_count;
    b->name = arena_strdup(&m->arena, name);
    b->kind = kind;
    b->type = t;
    b->span = span;
    PUSH(m, buffer, b);
    return b;
}

struct ir_func *ir_func_new(struct ir_module *m, const char *name, struct span span) {
    struct ir_func *f = ARENA_NEW(&m->arena, struct ir_func);
    f->module = m;
    f->name = arena_strdup(&m->arena, name);
    f->id = -1;
    f->span = span;
    f->body = ir_region_new(f, NULL);
    return f;
}

void ir_module_add_func(struct ir_module *m, struct ir_func *f) {
    f->id = m->func_count;
    PUSH(m, func, f);
}

bool ir_func_is_reset(const struct ir_func *f) {
    return !f->is_export && strcmp(f->name, "reset_all") == 0;
}

struct ir_type ir_type_make(struct ir_module *m, enum dtype t, int rank, const ir_dim *dims) {
    return (struct ir_type){
        .dtype = t,
        .rank = rank,
        .dims = rank ? arena_copy(&m->arena, dims, (size_t)rank * sizeof *dims) : NULL,
    };
}

bool ir_type_equal(struct ir_type a, struct ir_type b) {
    if (a.dtype != b.dtype || a.rank != b.rank)
        return false;
    for (int i = 0; i < a.rank; i++)
        if (a.dims[i] != b.dims[i])
            return false;
    return true;
}

ir_dim ir_type_elements(struct ir_module *m, struct ir_type t) {
    ir_dim product = ir_dim_const(m, 1);
    for (int i = 0; i < t.rank; i++)
        product = ir_dim_mul(m, product, t.dims[i]);
    return product;
}

int64_t ir_type_bytes_upper(struct ir_type t) {
    int64_t bytes = dtype_size(t.dtype);
    for (int i = 0; i < t.rank; i++) {
        int64_t extent = ir_dim_upper(t.dims[i]);
        if (extent <= 0)
            return 0;
        if (__builtin_mul_overflow(bytes, extent, &bytes) || bytes > IR_DIM_LIMIT)
            bytes = IR_DIM_LIMIT;
    }
    return bytes;
}
