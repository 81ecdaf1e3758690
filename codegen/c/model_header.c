/* The header of a unit: shared types, options, interface, and the resource contract. C99 and C++. */

#include "codegen/c/model_internal.h"
#include "codegen/cuda/cuda.h"

void unit_type_comment(struct unit *u, struct text *out, struct ir_type t) {
    text_add(out, dtype_name(t.dtype));
    for (int i = 0; i < t.rank; i++) {
        text_add(out, i ? ", " : "[");
        cgen_dim_comment(&u->g, out, t.dims[i]);
    }
    if (t.rank)
        text_add(out, "]");
}

void unit_signature(struct unit *u, struct text *out, const struct interface_call *c) {
    text_printf(out, "mx_status %s_%s(%s *m", u->prefix, c->name, u->prefix);
    for (int i = 0; i < c->count; i++) {
        const struct interface_parameter *p = &c->parameters[i];
        bool is_extent = p->kind == PARAMETER_EXTENT || p->kind == PARAMETER_FOUND;
        bool is_const = p->kind == PARAMETER_INPUT && p->by_pointer && !p->is_inout;
        text_printf(out, ", %s%s %s%s", is_const ? "const " : "", is_extent ? "int64_t" : cgen_c_type(p->type.dtype),
                    p->by_pointer ? "*" : "", p->name);
    }
    text_add(out, ")");
}

/* An upper bound: local arrays of a function and of one that it calls, or load's table of buffers, and what compilers spill. */
static int64_t unit_stack(const struct unit *u) {
    int64_t arrays = 2 * u->g.stack_bytes, table = 56 * ((int64_t)u->module->buffer_count + 1) + 2048;
    return ((arrays > table ? arrays : table) + 4096 + 63) / 64 * 64;
}

static void parameter_comments(struct unit *u, const struct interface_call *c, enum parameter_kind kind,
                               const char *first) {
    struct text *h = &u->h;
    for (int i = 0; i < c->count; i++) {
        const struct interface_parameter *p = &c->parameters[i];
        if (p->kind != kind)
            continue;
        text_printf(h, "%s%s: ", first, p->name);
        unit_type_comment(u, h, p->type);
        first = ", ";
    }
}

static void limits_comment(struct unit *u, const struct interface_call *c) {
    for (int i = 0; i < c->count; i++) {
        const struct interface_parameter *p = &c->parameters[i];
        if (p->symbol)
            text_printf(&u->h, "; %lld <= %s <= %lld", (long long)p->symbol->lo, p->name, (long long)p->symbol->hi);
    }
}

static void function(struct unit *u, const struct interface_function *function) {
    struct text *h = &u->h;
    const struct ir_func *f = function->func;
    text_add(h, "/* ");
    if (f->doc && *f->doc) {
        for (const char *s = f->doc; *s; s++) { /* a comment cannot hold its own end */
            if (s[0] == '*' && s[1] == '/')
                text_add(h, "* ");
            else if (*s == '\n')
                text_add(h, "\n * ");
            else
                text_addn(h, s, 1);
        }
        text_add(h, "\n * ");
    }
    text_printf(h, "%s(", f->name);
    for (int i = 0; i < f->body->arg_count; i++) {
        text_printf(h, "%s%s: ", i ? ", " : "", cgen_arg_name(&u->g, f, i));
        unit_type_comment(u, h, f->body->args[i]->type);
    }
    text_add(h, ")");
    parameter_comments(u, &function->call, PARAMETER_RESULT, " -> ");
    for (int i = 0; i < f->symbol_count && function->is_incremental; i++)
        text_printf(h, "; %lld <= %s <= %lld", (long long)f->symbols[i]->lo, cgen_symbol_name(&u->g, f->symbols[i]),
                    (long long)f->symbols[i]->hi);
    limits_comment(u, &function->call);
    text_add(h, " */\n");
    unit_signature(u, h, &function->call);
    text_add(h, ";\n");
    if (function->is_incremental)
        unit_incremental_header(u, function);
}

void unit_header(struct unit *u) {
    struct text *h = &u->h;
    const char *p = u->prefix, *up = u->upper;
    const struct compile_options *o = u->options;
    text_printf(
        h,
        "/* The interface of the model %s, made by mxcc. C99 and C++. */\n#ifndef MODEL_%s_H\n#define MODEL_%s_H\n\n",
        p, up, up);
    text_add(h, "#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n\n");
    text_add(h, embedded_text("status.h"));
    text_add(h, "\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n");
    text_printf(h,
                "/* One instance: its weights, states and working memory. A thread may own it; none is shared. */\n"
                "typedef struct %s %s;\n\n",
                p, p);
    text_printf(h, "typedef struct %s_options {\n", p);
    text_add(h, "    uint64_t seed;                     /* of initializers and random numbers */\n");
    text_printf(h, "    int threads;                       /* %s */\n",
                o->threads ? "in all; 0: one a processor, 1: serial" : "this unit is serial: not used");
    text_add(h,
             "    void (*log)(void *, const char *); /* where print goes; NULL: stdout */\n    void *log_context;\n");
    if (o->weights == WEIGHTS_CALLER)
        text_add(
            h,
            "    const void *weights;               /* a safetensors image, aligned to 8 bytes, that outlives the instance */\n"
            "    size_t weights_bytes;\n");
    if (o->weights == WEIGHTS_FILE)
        text_printf(h, "    const char *weights_path;          /* NULL: \"%s.safetensors\" */\n", p);
    text_printf(h, "} %s_options;\n\n", p);

    text_printf(h, "/* The resource contract, at the largest dimensions; checked when the unit is compiled. */\n");
    text_printf(h, "#define %s_MEMORY_BYTES %lld /* what init needs with default options */\n", up,
                (long long)unit_memory(u));
    text_printf(h, "#define %s_ARENA_BYTES %lld /* %s: working memory */\n", up, (long long)u->g.plan->arena_bytes,
                u->g.cuda ? "on the GPU" : "of it");
    if (u->g.cuda)
        text_printf(h,
                    "#define %s_DEVICE_BYTES %lld /* on the GPU, beside that: buffers, working memory, arguments */\n",
                    up, (long long)u->g.cuda->total);
    if (u->g.cuda && u->g.cuda->outside)
        text_printf(
            h,
            "#define %s_PINNED_BYTES %lld /* of the host's memory: optimizer state, which --memory-limit keeps off the GPU */\n",
            up, (long long)u->g.cuda->outside);
    if (u->incremental)
        text_printf(h, "#define %s_CACHE_BYTES %lld /* of it: what incremental functions keep from call to call */\n",
                    up, (long long)u->g.plan->cache_bytes);
    text_printf(h, "#define %s_WEIGHTS_BYTES %lld /* all params */\n", up, (long long)unit_weights(u));
    text_printf(h, "#define %s_STACK_BYTES %lld /* stack below any call, without the C library's */\n", up,
                (long long)unit_stack(u));
    for (int i = 0; i < u->interface.function_count; i++) {
        const struct ir_func *f = u->interface.functions[i].func;
        text_printf(h, "#define %s_FLOPS_", up);
        for (const char *s = f->name; *s; s++) {
            char upper = *s >= 'a' && *s <= 'z' ? (char)(*s - 32) : *s;
            text_addn(h, &upper, 1);
        }
        text_printf(h, " %lld\n", (long long)u->g.flops[f->id]);
    }

    text_printf(h, "\n/* Bytes init needs; options may be NULL. */\nsize_t %s_size(const %s_options *options);\n", p,
                p);
    text_printf(h, "/* Makes an instance in the caller's memory%s. */\n",
                o->no_runtime ? "" : ", or with NULL and 0 in memory of its own");
    text_printf(h, "mx_status %s_init(%s **m, void *memory, size_t bytes, const %s_options *options);\n", p, p, p);
    text_printf(h, "void %s_free(%s *m);\n", p, p);
    text_printf(
        h,
        "/* What went wrong in the last call that failed; \"\" if none did. */\nconst char *%s_error(const %s *m);\n",
        p, p);
    text_printf(h, "/* Every state to its initial value. */\nmx_status %s_reset_all(%s *m);\n", p, p);
    text_printf(h,
                "/* A param or state by name (\"net.weight\"): type, shape, data; counts as a write. */\n"
                "mx_status %s_param(%s *m, const char *name, mx_tensor *view);\n",
                p, p);
    text_printf(h,
                "/* All of them, 0 <= i < %s_PARAM_COUNT in order of declaration, for reading. */\n"
                "#define %s_PARAM_COUNT %d\nmx_status %s_param_at(const %s *m, int i, mx_param *param);\n",
                up, up, u->module->buffer_count, p, p);
    text_printf(h, "#ifndef %s_NO_STDIO /* safetensors files: params, states, seed and call counter */\n", up);
    text_printf(
        h, "mx_status %s_save(const %s *m, const char *path);\nmx_status %s_load(%s *m, const char *path);\n#endif\n\n",
        p, p, p, p);
    for (int i = 0; i < u->interface.function_count; i++)
        function(u, &u->interface.functions[i]);
    text_add(h, "\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n");
}
