/* An eager instance behind the interface that generated programs have (mxrt/program.h), so that `mxcc run` and a program from
 * --main share their whole command line, training loop included. */
#include "driver/eager_program.h"

#include <stdlib.h>
#include <string.h>

_Static_assert((int)BOOL == (int)MX_BOOL && (int)F64 == (int)MX_F64 && (int)U8 == (int)MX_U8,
               "one order of element types");

struct eager_program {
    struct ir_module *module;
    char why[400];
};

struct eager_model {
    struct eager_program *program;
    struct eager *eager;
    const char *error;
    int64_t **shapes; /* [buffer_count], for views */
};

static const struct ir_func *func_of(const struct mxrt_function *f) {
    return f->context;
}

/* Values of all symbols of the module under a function's dimensions. */
static int64_t *symbol_values(const struct ir_func *f, const int64_t *dims) {
    int64_t *values = calloc((size_t)f->module->symbol_count + 1, sizeof *values);
    for (int i = 0; values && i < f->module->symbol_count; i++)
        values[i] = f->module->symbols[i]->hi;
    for (int i = 0; values && i < f->symbol_count; i++)
        values[f->symbols[i]->id] = dims[i];
    return values;
}

static void extents(const struct mxrt_function *mf, const int64_t *dims, int64_t *out) {
    const struct ir_func *f = func_of(mf);
    int64_t *values = symbol_values(f, dims);
    for (int i = 0; values && i < f->body->arg_count + f->result_count; i++) {
        struct ir_type t =
            i < f->body->arg_count ? f->body->args[i]->type : f->body->yields[i - f->body->arg_count]->type;
        for (int k = 0; k < t.rank; k++)
            *out++ = ir_dim_eval(t.dims[k], values);
    }
    free(values);
}

static mx_status call(void *model, const struct mxrt_function *mf, const int64_t *dims, void *const *args,
                      void *const *results, int64_t *found) {
    struct eager_model *m = model;
    const struct ir_func *f = func_of(mf);
    int n = f->body->arg_count;
    int64_t *values = symbol_values(f, dims), shape[MXRT_MAX_DIMS];
    struct tensor **in = calloc((size_t)n + 1, sizeof *in), **out = calloc((size_t)f->result_count + 1, sizeof *out);
    mx_status status = values && in && out ? MX_OK : MX_ERROR_MEMORY;
    for (int i = 0; i < n && status == MX_OK; i++) {
        struct ir_type t = f->body->args[i]->type;
        for (int k = 0; k < t.rank && k < MXRT_MAX_DIMS; k++)
            shape[k] = ir_dim_eval(t.dims[k], values);
        in[i] = tensor_new(t.dtype, t.rank, shape);
        if (in[i])
            memcpy(in[i]->data, args[i], (size_t)(tensor_elements(in[i]) * dtype_size(t.dtype)));
        else
            status = MX_ERROR_MEMORY;
    }
    m->error = status == MX_OK ? "" : "no memory for arguments";
    if (status == MX_OK && eager_call(m->eager, f, in, out) != 0) {
        status = MX_ERROR_CHECK; /* the arguments above suit the signature */
        m->error = eager_error(m->eager);
    }
    for (int i = 0; i < f->result_count && status == MX_OK; i++) {
        struct ir_type t = f->body->yields[i]->type;
        memcpy(results[i], out[i]->data, (size_t)(tensor_elements(out[i]) * dtype_size(t.dtype)));
        for (int s = 0; s < f->result_symbol_count; s++)
            for (int k = 0; k < t.rank; k++)
                if (t.dims[k] == f->result_symbols[s].value)
                    found[s] = out[i]->dims[k];
    }
    for (int i = 0; i < n && in; i++) {
        if (status == MX_OK && f->arg_inout && f->arg_inout[i])
            memcpy(args[i], in[i]->data, (size_t)(tensor_elements(in[i]) * dtype_size(in[i]->dtype)));
        if (in[i])
            tensor_free(in[i]);
    }
    for (int i = 0; i < f->result_count && out; i++)
        if (out[i])
            tensor_free(out[i]);
    free(in);
    free(out);
    free(values);
    return status;
}

static mx_status create(const struct mxrt_program *p, void **out, uint64_t seed, int threads) {
    struct eager_program *program = p->context;
    struct eager_model *m = calloc(1, sizeof *m);
    *out = m;
    if (!m)
        return MX_ERROR_MEMORY;
    m->program = program;
    m->shapes = calloc((size_t)program->module->buffer_count + 1, sizeof *m->shapes);
    m->eager = m->shapes ? eager_new(program->module, seed) : NULL;
    if (!m->eager) {
        m->error = eager_error(NULL);
        return MX_ERROR_CHECK;
    }
    m->error = "";
    return MX_OK;
}

static void destroy(void *model) {
    struct eager_model *m = model;
    if (m->eager)
        eager_free(m->eager);
    for (int i = 0; m->shapes && i < m->program->module->buffer_count; i++)
        free(m->shapes[i]);
    free(m->shapes);
    free(m);
}

static const char *error(const void *model) {
    return ((const struct eager_model *)model)->error;
}

static mx_status buffer(void *model, int index, mx_tensor *view) {
    struct eager_model *m = model;
    struct tensor *t = eager_buffer(m->eager, m->program->module->buffers[index]->name);
    if (!t)
        return MX_ERROR_ARGUMENT;
    if (!m->shapes[index]) {
        m->shapes[index] = calloc((size_t)t->rank + 1, sizeof(int64_t));
        if (!m->shapes[index])
            return MX_ERROR_MEMORY;
        memcpy(m->shapes[index], t->dims, sizeof(int64_t) * (size_t)t->rank);
    }
    *view = (mx_tensor){(mx_dtype)t->dtype, t->rank, m->shapes[index], t->data,
                        (size_t)(tensor_elements(t) * dtype_size(t->dtype))};
    return MX_OK;
}

static uint64_t calls(const void *model) {
    return *eager_calls(((const struct eager_model *)model)->eager);
}

static void set_calls(void *model, uint64_t n) {
    *eager_calls(((struct eager_model *)model)->eager) = n;
}

static int64_t describe_dim(const struct ir_func *f, ir_dim d) {
    int64_t value;
    if (ir_dim_is_const(d, &value))
        return value;
    for (int i = 0; i < f->symbol_count; i++)
        if (d == ir_dim_symbol(f->module, f->symbols[i]))
            return MXRT_SYMBOL(i);
    for (int i = 0; i < f->result_symbol_count; i++)
        if (d == f->result_symbols[i].value)
            return MXRT_FOUND(i);
    return MXRT_COMPUTED;
}

static struct mxrt_value describe(struct arena *a, const struct ir_func *f, const char *name, struct ir_type t,
                                  bool is_inout) {
    int64_t *shape = ARENA_ARRAY(a, int64_t, t.rank + 1);
    for (int k = 0; k < t.rank; k++)
        shape[k] = describe_dim(f, t.dims[k]);
    return (struct mxrt_value){name, (mx_dtype)t.dtype, t.rank, shape, is_inout};
}

static struct mxrt_function describe_func(struct arena *a, const struct ir_func *f) {
    int args = f->body->arg_count;
    struct mxrt_symbol *symbols = ARENA_ARRAY(a, struct mxrt_symbol, f->symbol_count + 1),
                       *found = ARENA_ARRAY(a, struct mxrt_symbol, f->result_symbol_count + 1);
    struct mxrt_value *in = ARENA_ARRAY(a, struct mxrt_value, args + 1),
                      *out = ARENA_ARRAY(a, struct mxrt_value, f->result_count + 1);
    for (int i = 0; i < f->symbol_count; i++)
        symbols[i] = (struct mxrt_symbol){f->symbols[i]->name, f->symbols[i]->lo, f->symbols[i]->hi};
    for (int i = 0; i < f->result_symbol_count; i++)
        found[i] = (struct mxrt_symbol){f->result_symbols[i].name, 0, f->result_symbols[i].hi};
    for (int i = 0; i < args; i++)
        in[i] = describe(a, f, f->arg_names[i], f->body->args[i]->type, f->arg_inout && f->arg_inout[i]);
    for (int i = 0; i < f->result_count; i++) {
        const char *name = f->result_names ? f->result_names[i] : NULL;
        if (!name)
            name = f->result_count == 1 ? "result" : arena_printf(a, "result%d", i);
        out[i] = describe(a, f, name, f->body->yields[i]->type, false);
    }
    return (struct mxrt_function){
        f->name, f->is_train, f->symbol_count, f->result_symbol_count, args, f->result_count, symbols, found, in, out,
        extents, call,        (void *)f};
}

static const struct mxrt_setting *describe_setting(struct arena *a, const struct ir_setting_value *v) {
    static const enum mxrt_setting_kind kinds[] = {MXRT_INT,  MXRT_FLOAT, MXRT_STRING, MXRT_BOOL, MXRT_NONE,
                                                   MXRT_NAME, MXRT_CALL,  MXRT_BINARY, MXRT_LIST};
    struct mxrt_setting *s = ARENA_NEW(a, struct mxrt_setting);
    const struct mxrt_setting **args = ARENA_ARRAY(a, const struct mxrt_setting *, v->count + 1);
    for (int i = 0; i < v->count; i++)
        args[i] = describe_setting(a, v->args[i]);
    *s = (struct mxrt_setting){kinds[v->kind], v->i, v->f, v->s, (const char *const *)v->names, args, v->count};
    return s;
}

struct mxrt_program eager_program(struct ir_module *m) {
    struct arena *a = &m->arena;
    struct eager_program *program = ARENA_NEW(a, struct eager_program);
    program->module = m;
    struct mxrt_function *functions = ARENA_ARRAY(a, struct mxrt_function, m->func_count + 1);
    const char **names = ARENA_ARRAY(a, const char *, m->buffer_count + 1);
    bool *states = ARENA_ARRAY(a, bool, m->buffer_count + 1);
    struct mxrt_train_setting *settings = ARENA_ARRAY(a, struct mxrt_train_setting, m->setting_count + 1);
    for (int i = 0; i < m->func_count; i++)
        functions[i] = describe_func(a, m->funcs[i]);
    for (int i = 0; i < m->buffer_count; i++) {
        names[i] = m->buffers[i]->name;
        states[i] = m->buffers[i]->kind == BUFFER_STATE;
    }
    for (int i = 0; i < m->setting_count; i++)
        settings[i] = (struct mxrt_train_setting){m->settings[i].key, describe_setting(a, m->settings[i].value)};
    return (struct mxrt_program){.name = m->name,
                                 .function_count = m->func_count,
                                 .functions = functions,
                                 .buffer_count = m->buffer_count,
                                 .buffer_names = names,
                                 .buffer_is_state = states,
                                 .setting_count = m->setting_count,
                                 .settings = settings,
                                 .directory = m->train_dir,
                                 .create = create,
                                 .destroy = destroy,
                                 .error = error,
                                 .buffer = buffer,
                                 .calls = calls,
                                 .set_calls = set_calls,
                                 .context = program,
                                 .gunzip = mxrt_gunzip};
}
