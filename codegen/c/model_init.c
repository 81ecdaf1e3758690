/* The instance: its struct, messages, memory, init, free and reset_all. */
#include <string.h>

#include "codegen/c/model_internal.h"
#include "codegen/cuda/cuda.h"

void unit_instance(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix;
    text_printf(c, "struct %s {\n", p);
    if (u->g.cuda)
        unit_cuda_struct(u);
    else
        text_add(c, "    unsigned char *arena; /* working memory, aligned to 64 bytes */\n");
    for (int i = 0; i < u->module->buffer_count; i++) {
        const struct ir_buffer *b = u->module->buffers[i];
        text_printf(c, "    %s *%s; /* %s %s: ", cgen_c_type(b->type.dtype), cgen_buffer_field(&u->g, b),
                    b->kind == BUFFER_PARAM ? "param" : "state", b->name);
        unit_type_comment(u, c, b->type);
        text_add(c, " */\n");
    }
    unit_incremental_struct(u);
    text_add(c, "    uint64_t seed, calls; /* what random numbers are keyed by */\n");
    if (unit_split_step(u))
        text_add(c, "    const struct mxrt_exchange *mx_exchange; /* while a step runs over ranks */\n");
    if (u->options->threads)
        text_add(c, "    struct mxrt_pool *pool; /* NULL: serial */\n");
    text_add(c, "    void (*log)(void *, const char *);\n    void *log_context;\n");
    if (!u->options->no_runtime)
        text_add(c, "    void *mx_memory; /* to be freed; NULL: the caller's */\n");
    text_add(c, u->g.cuda ? "    char mx_error[400];\n};\n\n" : "    char mx_error[200];\n};\n\n");
    text_printf(c, "typedef char %s_struct_fits[sizeof(struct %s) <= %lld ? 1 : -1];\n", p, p,
                (long long)unit_offset(u, u->module->buffer_count ? u->module->buffers[0] : NULL));
    text_printf(c, "typedef char %s_memory_is_as_stated[%s_MEMORY_BYTES == %lld ? 1 : -1];\n\n", p, u->upper,
                (long long)unit_memory(u));
    text_printf(c,
                "static mx_status %s_mx_fail(struct %s *m, mx_status status, const char *format, ...) {\n"
                "    va_list args;\n    va_start(args, format);\n"
                "    (void)vsnprintf(m->mx_error, sizeof m->mx_error, format, args);\n"
                "    va_end(args);\n    return status;\n}\n\n",
                p, p);
    if (u->g.cuda)
        unit_cuda_helpers(u);
    /* print() of the model ends here; only where it is used, or a unit without it would warn. */
    if (strstr(text_string(&u->g.functions), "_print(m") || strstr(text_string(&u->g.outlined), "_print(m"))
        text_printf(
            c,
            "static void %s_mx_print(const struct %s *m, const char *text) {\n    if (m->log)\n        m->log(m->log_context, text);\n"
            "    else\n        (void)puts(text);\n}\n\n",
            p, p);
}

/* What init does with the buffers, by where their first values come from. */
static void first_values(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix;
    switch (u->options->weights) {
    case WEIGHTS_INIT:
        if (u->module->init)
            text_printf(c, "    status = %s_mx_run_init(m);\n", p);
        break;
    case WEIGHTS_SOURCE:
        for (int i = 0; i < u->module->buffer_count; i++)
            if (!u->shared[i] && ir_type_bytes_upper(u->module->buffers[i]->type) > 0) {
                const char *field = cgen_buffer_field(&u->g, u->module->buffers[i]);
                text_printf(c, "    memcpy(m->%s, %s_mx_data_%s, sizeof %s_mx_data_%s);\n", field, p, field, p, field);
            }
        if (u->g.cuda)
            text_printf(c, "    status = %s_mx_move_all(m, 1, \"init\");\n", p);
        break;
    case WEIGHTS_FILE:
        text_printf(
            c,
            "    status = %s_load(m, options && options->weights_path ? options->weights_path : \"%s.safetensors\");\n"
            "    if (options)\n        m->seed = options->seed;\n",
            p, p);
        break;
    case WEIGHTS_CALLER:
        text_printf(
            c,
            "    status = %s_mx_attach(m, options ? options->weights : NULL, options ? options->weights_bytes : 0);\n"
            "    if (options)\n        m->seed = options->seed;\n",
            p);
        if (u->g.cuda)
            text_printf(c, "    if (status == MX_OK)\n        status = %s_mx_move_all(m, 1, \"init\");\n", p);
        break;
    }
}

static void reset(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix;
    text_printf(c, "mx_status %s_reset_all(%s *m) {\n", p, p);
    text_add(c, "    if (!m)\n        return MX_ERROR_ARGUMENT;\n");
    unit_touch_all(u, true);
    if (u->reset && u->options->weights != WEIGHTS_SOURCE) {
        /* Random initial values are drawn as in init: in call 0. */
        text_printf(
            c,
            "    {\n        uint64_t calls = m->calls;\n        mx_status status;\n        m->calls = 0;\n"
            "        status = %s_mx_run_reset_all(m);\n        m->calls = calls;\n        return status;\n    }\n}\n\n",
            p);
        return;
    }
    for (int i = 0; i < u->module->buffer_count; i++)
        if (u->module->buffers[i]->kind == BUFFER_STATE && ir_type_bytes_upper(u->module->buffers[i]->type) > 0) {
            const char *field = cgen_buffer_field(&u->g, u->module->buffers[i]);
            text_printf(c, "    memcpy(m->%s, %s_mx_data_%s, sizeof %s_mx_data_%s);\n", field, p, field, p, field);
            if (u->g.cuda)
                text_printf(c, "    MX_TRY(%s_mx_move(m, %d, 1, \"reset_all\"));\n", p, i);
        }
    text_add(c, "    return MX_OK;\n}\n\n");
}

void unit_init(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix, *up = u->upper;
    bool own = !u->options->no_runtime;
    text_printf(
        c,
        "/* ---- instances */\n\nsize_t %s_size(const %s_options *options) {\n    (void)options;\n    return %s_MEMORY_BYTES;\n}\n\n",
        p, p, up);

    text_printf(c, "mx_status %s_init(%s **out, void *memory, size_t bytes, const %s_options *options) {\n", p, p, p);
    text_printf(c, "    unsigned char *base;\n    %s *m;\n    mx_status status = MX_OK;\n", p);
    if (own)
        text_add(c, "    void *owned = NULL;\n");
    text_add(c, "    if (!out)\n        return MX_ERROR_ARGUMENT;\n    *out = NULL;\n");
    if (own)
        text_printf(
            c,
            "    if (!memory && bytes == 0) {\n        owned = malloc(%s_MEMORY_BYTES);\n        if (!owned)\n"
            "            return MX_ERROR_MEMORY;\n        memory = owned;\n        bytes = %s_MEMORY_BYTES;\n    }\n",
            up, up);
    text_printf(c, "    if (!memory || bytes < %s_MEMORY_BYTES)\n        return MX_ERROR_MEMORY;\n", up);
    text_printf(
        c,
        "    base = (unsigned char *)memory + (64 - (uintptr_t)memory %% 64) %% 64;\n    m = (%s *)(void *)base;\n"
        "    memset(m, 0, sizeof *m);\n",
        p);
    for (int i = 0; i < u->module->buffer_count; i++) {
        const struct ir_buffer *b = u->module->buffers[i];
        const char *type = cgen_c_type(b->type.dtype), *field = cgen_buffer_field(&u->g, b);
        if (u->shared[i] && u->options->weights == WEIGHTS_SOURCE)
            text_printf(c, "    m->%s = (%s *)%s_mx_data_%s; /* never written */\n", field, type, p, field);
        else if (!u->shared[i] && !unit_is_outside(u, i))
            text_printf(c, "    m->%s = (%s *)(void *)(base + %lld);\n", field, type, (long long)unit_offset(u, b));
    }
    if (!u->g.cuda)
        text_printf(c, "    m->arena = base + %lld;\n", (long long)unit_offset(u, NULL));
    unit_incremental_init(u);
    if (own)
        text_add(c, "    m->mx_memory = owned;\n");
    text_add(c, "    if (options) {\n        m->seed = options->seed;\n        m->log = options->log;\n"
                "        m->log_context = options->log_context;\n    }\n");
    if (u->options->threads)
        text_add(c, "    m->pool = mxrt_pool_acquire(options ? options->threads : 0);\n");
    if (u->g.cuda) {
        unit_cuda_init(u);
        text_add(c, "    if (status == MX_OK) {\n");
        first_values(u);
        text_add(c, "    }\n");
    } else {
        first_values(u);
    }
    text_printf(c,
                "    if (status != MX_OK) {\n        if (m->log)\n            m->log(m->log_context, m->mx_error);\n"
                "        %s_free(m);\n        return status;\n    }\n    *out = m;\n    return MX_OK;\n}\n\n",
                p);

    text_printf(c, "void %s_free(%s *m) {\n", p, p);
    if (u->options->threads)
        text_add(c, "    if (m)\n        mxrt_pool_release(m->pool);\n");
    if (u->g.cuda)
        unit_cuda_free(u);
    text_add(c, own ? "    if (m)\n        free(m->mx_memory);\n}\n\n"
                    : "    (void)m; /* the memory is the caller's */\n}\n\n");
    text_printf(c, "const char *%s_error(const %s *m) {\n    return m ? m->mx_error : \"no instance\";\n}\n\n", p, p);
    reset(u);
}
