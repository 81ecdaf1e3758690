/* An instance of a module: memory, buffers, calls. */
#include "eager/eager.h"

#include <stdlib.h>
#include <string.h>

#include "eager/eager_internal.h"
#include "passes/passes.h"

enum { POOL_LIMIT = 1 << 28, POOL_CLASSES = 64 }; /* bytes kept for reuse */

/* ---- memory: blocks of powers of two and three quarters of them, kept for reuse ---- */

static int size_class(size_t bytes, size_t *rounded) {
    int c = 0;
    size_t n = 64;
    for (; n < bytes && c < POOL_CLASSES - 1; c++)
        n = c % 2 == 0 ? n + n / 2 : n / 3 * 4;
    *rounded = n < bytes ? bytes : n;
    return c;
}

struct mem *mem_new(struct eager *e, size_t bytes) {
    size_t rounded;
    int c = size_class(bytes, &rounded);
    struct mem *m = e->pool[c];
    if (m && c < POOL_CLASSES - 1) {
        e->pool[c] = m->next;
        e->pooled -= rounded;
    } else {
        m = malloc(sizeof *m);
        void *data = m && rounded < SIZE_MAX / 2 ? aligned_alloc(64, (rounded + 63) / 64 * 64) : NULL;
        if (!data) {
            free(m);
            eager_fail(e, "out of memory: a tensor of %zu bytes", bytes);
            return NULL;
        }
        m->data = data;
    }
    m->refs = 1;
    m->borrowed = false;
    m->bytes = bytes;
    m->next = NULL;
    return m;
}

struct mem *mem_borrow(struct eager *e, const void *data, size_t bytes) {
    struct mem *m = calloc(1, sizeof *m);
    m->refs = 1;
    m->borrowed = true;
    m->bytes = bytes;
    m->data = (void *)(uintptr_t)data;
    return m;
}

struct mem *mem_keep(struct mem *m) {
    if (m)
        m->refs++;
    return m;
}

void mem_drop(struct eager *e, struct mem *m) {
    if (!m || --m->refs > 0)
        return;
    if (m->borrowed) {
        free(m);
        return;
    }
    size_t rounded;
    int c = size_class(m->bytes, &rounded);
    if (c < POOL_CLASSES - 1 && e->pooled + rounded <= POOL_LIMIT) {
        m->next = e->pool[c];
        e->pool[c] = m;
        e->pooled += rounded;
        return;
    }
    free(m->data);
    free(m);
}

int eager_fail(struct eager *e, const char *format, ...) {
    va_list args;
    text_free(&e->error);
    e->error = (struct text){0};
    va_start(args, format);
    text_vprintf(&e->error, format, args);
    va_end(args);
    return 1;
}

/* ---- instances ---- */

static void count_func(struct eager *e, struct ir_func *f) {
    if (f)
        eager_prepare(e, &e->funcs[e->func_count++], f);
}

static struct eager_func *find_func(struct eager *e, const struct ir_func *f) {
    for (int i = 0; i < e->func_count; i++)
        if (e->funcs[i].func == f)
            return &e->funcs[i];
    return NULL;
}

static int call(struct eager *e, struct eager_func *f, struct tensor **args, struct tensor **results);

static void commit(struct eager *e) {
    for (int i = 0; i < e->module->buffer_count; i++) {
        if (!e->pending[i])
            continue;
        mem_drop(e, e->buffers[i]);
        e->buffers[i] = e->pending[i];
        e->pending[i] = NULL;
        if (e->buffers[i]->refs > 1 || e->buffers[i]->borrowed) { /* eager_buffer's user may write: never share */
            struct mem *own = mem_new(e, e->buffers[i]->bytes);
            if (own) {
                memcpy(own->data, e->buffers[i]->data, own->bytes);
                mem_drop(e, e->buffers[i]);
                e->buffers[i] = own;
            }
        }
        e->tensors[i]->data = e->buffers[i]->data;
    }
}

struct eager *eager_new_why(struct ir_module *m, uint64_t seed, struct text *why) {
    for (int i = -1; i < m->func_count; i++) {
        struct ir_func *f = i < 0 ? m->init : m->funcs[i];
        if (f && !differentiate_func(NULL, f))
            return NULL;
    }
    struct eager *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->module = m;
    e->seed = seed;
    e->table = vec_table_for_machine();
    e->symbols = ARENA_ARRAY(&e->arena, int64_t, m->symbol_count + 1);
    e->buffers = ARENA_ARRAY(&e->arena, struct mem *, m->buffer_count + 1);
    e->pending = ARENA_ARRAY(&e->arena, struct mem *, m->buffer_count + 1);
    e->tensors = ARENA_ARRAY(&e->arena, struct tensor *, m->buffer_count + 1);
    for (int i = 0; i < m->buffer_count; i++) {
        struct ir_type t = m->buffers[i]->type;
        int64_t n = eager_dims(e, t, NULL);
        struct tensor *x = ARENA_NEW(&e->arena, struct tensor);
        *x = (struct tensor){t.dtype, t.rank, ARENA_ARRAY(&e->arena, int64_t, t.rank + 1), NULL};
        eager_dims(e, t, x->dims);
        e->tensors[i] = x;
        e->buffers[i] = mem_new(e, (size_t)(n * dtype_size(t.dtype)));
        if (!e->buffers[i])
            goto failed;
        x->data = e->buffers[i]->data;
        memset(x->data, 0, e->buffers[i]->bytes);
    }
    e->funcs = ARENA_ARRAY(&e->arena, struct eager_func, m->func_count + 1);
    count_func(e, m->init);
    for (int i = 0; i < m->func_count; i++)
        count_func(e, m->funcs[i]);
    if (!e->table || (m->init && call(e, find_func(e, m->init), NULL, NULL) != 0))
        goto failed;
    return e;
failed:
    if (why)
        text_add(why, eager_error(e));
    eager_free(e);
    return NULL;
}

struct eager *eager_new(struct ir_module *m, uint64_t seed) {
    return eager_new_why(m, seed, NULL);
}

void eager_free(struct eager *e) {
    if (!e)
        return;
    for (int i = 0; i < e->func_count; i++)
        eager_unprepare(e->funcs[i].code);
    for (int i = 0; i < e->module->buffer_count; i++)
        mem_drop(e, e->buffers[i]);
    for (int i = 0; i < POOL_CLASSES; i++)
        while (e->pool[i]) {
            struct mem *next = e->pool[i]->next;
            free(e->pool[i]->data);
            free(e->pool[i]);
            e->pool[i] = next;
        }
    eager_extern_close(e);
    free(e->library);
    text_free(&e->error);
    free((void *)(uintptr_t)e->table);
    arena_free(&e->arena);
    free(e);
}

const char *eager_error(const struct eager *e) {
    return e ? text_string(&e->error) : "the instance could not be made";
}

struct tensor *eager_buffer(struct eager *e, const char *name) {
    for (int i = 0; i < e->module->buffer_count; i++)
        if (strcmp(e->module->buffers[i]->name, name) == 0)
            return e->tensors[i];
    return NULL;
}

uint64_t *eager_calls(struct eager *e) {
    return &e->calls;
}

void eager_set_log(struct eager *e, void (*log)(void *, const char *), void *context) {
    e->log = log;
    e->log_context = context;
}

void eager_set_extern_library(struct eager *e, const char *path) {
    eager_extern_close(e);
    free(e->library);
    e->library = path ? strdup(path) : NULL;
}

int eager_reset(struct eager *e, bool states_only) {
    struct ir_module *m = e->module;
    struct mem **old = calloc((size_t)m->buffer_count + 1, sizeof *old);
    for (int i = 0; i < m->buffer_count && states_only; i++)
        if (m->buffers[i]->kind == BUFFER_PARAM)
            old[i] = mem_keep(e->buffers[i]);
    int status = m->init ? call(e, find_func(e, m->init), NULL, NULL) : 0;
    for (int i = 0; i < m->buffer_count; i++)
        if (old[i]) {
            e->tensors[i]->data = old[i]->data;
            mem_drop(e, e->buffers[i]);
            e->buffers[i] = old[i];
        }
    free(old);
    return status;
}

/* ---- calls ---- */

struct unbound {
    const bool *bound;
    const struct ir_func *func;
    const struct ir_symbol *symbol;
    int count;
};

static void count_unbound(const struct ir_symbol *s, void *context) {
    struct unbound *u = context;
    if (s->func == u->func && !s->op && !u->bound[s->id] && s != u->symbol) {
        u->symbol = s;
        u->count++;
    }
}

/* Dimensions that arguments bind: each extent with one unknown symbol, linear in it, gives its value. */
static int bind_symbols(struct eager *e, const struct ir_func *f, struct tensor **args) {
    struct ir_module *m = e->module;
    bool *bound = calloc((size_t)m->symbol_count + 1, 1), changed = true;
    int status = 0;
    while (changed && !status) {
        changed = false;
        for (int i = 0; i < f->body->arg_count && !status; i++) {
            struct ir_type t = f->body->args[i]->type;
            for (int d = 0; d < t.rank && !status; d++) {
                struct unbound u = {bound, f, NULL, 0};
                ir_dim_symbols(t.dims[d], count_unbound, &u);
                if (u.count != 1)
                    continue;
                const struct ir_symbol *s = u.symbol;
                e->symbols[s->id] = 0;
                int64_t rest = ir_dim_eval(t.dims[d], e->symbols);
                e->symbols[s->id] = 1;
                int64_t scale = ir_dim_eval(t.dims[d], e->symbols) - rest, have = args[i]->dims[d] - rest;
                if (scale == 0 || have % scale != 0)
                    continue;
                e->symbols[s->id] = have / scale;
                bound[s->id] = changed = true;
                if (e->symbols[s->id] < s->lo || e->symbols[s->id] > s->hi)
                    status = eager_fail(e, "%s: dimension %s is %lld, which is not in %lld .. %lld", f->name, s->name,
                                        (long long)e->symbols[s->id], (long long)s->lo, (long long)s->hi);
            }
        }
    }
    free(bound);
    return status;
}

static int check_args(struct eager *e, const struct ir_func *f, struct tensor **args) {
    for (int i = 0; i < f->body->arg_count; i++) {
        struct ir_type t = f->body->args[i]->type;
        const char *name = f->arg_names && f->arg_names[i] ? f->arg_names[i] : "argument";
        if (args[i]->dtype != t.dtype)
            return eager_fail(e, "%s: %s is %s, expected %s", f->name, name, dtype_name(args[i]->dtype),
                              dtype_name(t.dtype));
        if (args[i]->rank != t.rank)
            return eager_fail(e, "%s: %s has %d dimensions, expected %d", f->name, name, args[i]->rank, t.rank);
    }
    if (bind_symbols(e, f, args))
        return 1;
    for (int i = 0; i < f->body->arg_count; i++) {
        struct ir_type t = f->body->args[i]->type;
        const char *name = f->arg_names && f->arg_names[i] ? f->arg_names[i] : "argument";
        for (int d = 0; d < t.rank; d++) {
            int64_t want = ir_dim_eval(t.dims[d], e->symbols);
            if (args[i]->dims[d] != want)
                return eager_fail(e, "%s: dimension %d of %s is %lld, expected %lld", f->name, d, name,
                                  (long long)args[i]->dims[d], (long long)want);
        }
    }
    return 0;
}

static int call(struct eager *e, struct eager_func *f, struct tensor **args, struct tensor **results) {
    const struct ir_func *func = f->func;
    struct ir_region *body = func->body;
    int n = func->value_count, status = 0, inouts = func->result_count;
    text_free(&e->error);
    e->error = (struct text){0};
    if (check_args(e, func, args))
        return 1;
    e->values = calloc((size_t)n + 1, sizeof(struct mem *));
    e->running = f;
    for (int i = 0; i < body->arg_count; i++)
        e->values[body->args[i]->id] =
            mem_borrow(e, args[i]->data, (size_t)(tensor_elements(args[i]) * dtype_size(args[i]->dtype)));
    status = eager_run_code(e, f->code);
    /* All results before anything is changed: memory may still run out. */
    for (int i = 0; i < func->result_count && !status; i++) {
        int64_t dims[EAGER_MAX_RANK];
        struct ir_value *v = body->yields[i];
        eager_dims(e, v->type, dims);
        results[i] = tensor_new(v->type.dtype, v->type.rank, dims);
        if (!results[i]) {
            status = eager_fail(e, "out of memory");
            for (int j = 0; j < i; j++)
                tensor_free(results[j]);
            break;
        }
        memcpy(results[i]->data, e->values[v->id]->data, e->values[v->id]->bytes);
    }
    if (!status) {
        /* An inout argument's last version may be another's first: copy out in two steps. */
        struct mem **out = calloc((size_t)body->arg_count + 1, sizeof *out);
        for (int i = 0; i < body->arg_count; i++)
            if (func->arg_inout && func->arg_inout[i]) {
                struct mem *v = e->values[body->yields[inouts++]->id];
                out[i] = mem_new(e, v->bytes);
                if (out[i])
                    memcpy(out[i]->data, v->data, v->bytes);
            }
        for (int i = 0; i < body->arg_count; i++)
            if (out[i]) {
                memcpy(args[i]->data, out[i]->data, out[i]->bytes);
                mem_drop(e, out[i]);
            }
        free(out);
    }
    for (int i = 0; i < n; i++)
        mem_drop(e, e->values[i]);
    free(e->values);
    e->values = NULL;
    if (!status) {
        commit(e);
        e->calls += f->draws && func != e->module->init;
    }
    for (int i = 0; i < e->module->buffer_count; i++) {
        mem_drop(e, e->pending[i]);
        e->pending[i] = NULL;
    }
    return status;
}

int eager_call(struct eager *e, const struct ir_func *f, struct tensor **args, struct tensor **results) {
    struct eager_func *prepared = find_func(e, f);
    return prepared ? call(e, prepared, args, results) : eager_fail(e, "%s: no such function", f->name);
}
