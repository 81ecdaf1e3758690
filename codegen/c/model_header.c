/* The header of a unit: shared types, options, interface, and the resource contract. C99 and C++. */
#include <string.h>

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

void unit_signature(struct unit *u, struct text *out, const struct ir_func *f) {
    bool inputs = !unit_incremental(u, f); /* an incremental function's are set one by one */
    text_printf(out, "mx_status %s_%s(%s *m", u->prefix, f->name, u->prefix);
    for (int i = 0; i < f->symbol_count && inputs; i++)
        text_printf(out, ", int64_t %s", cgen_symbol_name(&u->g, f->symbols[i]));
    for (int i = 0; i < f->body->arg_count && inputs; i++) {
        struct ir_type t = f->body->args[i]->type;
        const char *name = cgen_arg_name(&u->g, f, i);
        bool is_inout = f->arg_inout && f->arg_inout[i];
        if (t.rank == 0 && !is_inout)
            text_printf(out, ", %s %s", cgen_c_type(t.dtype), name);
        else
            text_printf(out, ", %s%s *%s", is_inout ? "" : "const ", cgen_c_type(t.dtype), name);
    }
    for (int i = 0; i < f->result_symbol_count; i++)
        text_printf(out, ", int64_t *%s", cgen_found_name(&u->g, f, i));
    for (int i = 0; i < f->result_count; i++)
        text_printf(out, ", %s *%s", cgen_c_type(f->body->yields[i]->type.dtype), cgen_result_name(&u->g, f, i));
    text_add(out, ")");
}

/* An upper bound: local arrays of a function and of one that it calls, or load's table of buffers, and what compilers spill. */
static int64_t unit_stack(const struct unit *u) {
    int64_t arrays = 2 * u->g.stack_bytes, table = 56 * ((int64_t)u->module->buffer_count + 1) + 2048;
    return ((arrays > table ? arrays : table) + 4096 + 63) / 64 * 64;
}

/* The type of a result, in which a dimension found at run time has the name of its parameter. */
static void result_comment(struct unit *u, const struct ir_func *f, struct ir_type t) {
    struct text *h = &u->h;
    text_add(h, dtype_name(t.dtype));
    for (int i = 0; i < t.rank; i++) {
        int found = 0;
        while (found < f->result_symbol_count && f->result_symbols[found].value != t.dims[i])
            found++;
        text_add(h, i ? ", " : "[");
        if (found < f->result_symbol_count)
            text_add(h, cgen_found_name(&u->g, f, found));
        else
            cgen_dim_comment(&u->g, h, t.dims[i]);
    }
    if (t.rank)
        text_add(h, "]");
}

static void function(struct unit *u, const struct ir_func *f) {
    struct text *h = &u->h;
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
    for (int i = 0; i < f->result_count; i++) {
        text_printf(h, "%s%s: ", i ? ", " : " -> ", cgen_result_name(&u->g, f, i));
        result_comment(u, f, f->body->yields[i]->type);
    }
    for (int i = 0; i < f->symbol_count; i++)
        text_printf(h, "; %lld <= %s <= %lld", (long long)f->symbols[i]->lo, cgen_symbol_name(&u->g, f->symbols[i]),
                    (long long)f->symbols[i]->hi);
    for (int i = 0; i < f->result_symbol_count; i++)
        text_printf(h, "; 0 <= %s <= %lld", cgen_found_name(&u->g, f, i), (long long)f->result_symbols[i].hi);
    text_add(h, " */\n");
    unit_signature(u, h, f);
    text_add(h, ";\n");
    if (unit_incremental(u, f))
        unit_incremental_header(u, f);
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
    if (u->incremental)
        text_printf(h, "#define %s_CACHE_BYTES %lld /* of it: what incremental functions keep from call to call */\n",
                    up, (long long)u->g.plan->cache_bytes);
    text_printf(h, "#define %s_WEIGHTS_BYTES %lld /* all params */\n", up, (long long)unit_weights(u));
    text_printf(h, "#define %s_STACK_BYTES %lld /* stack below any call, without the C library's */\n", up,
                (long long)unit_stack(u));
    for (int i = 0; i < u->module->func_count; i++)
        if (unit_is_public(u, u->module->funcs[i])) {
            const char *name = u->module->funcs[i]->name;
            text_printf(h, "#define %s_FLOPS_", up);
            for (const char *s = name; *s; s++) {
                char upper = *s >= 'a' && *s <= 'z' ? (char)(*s - 32) : *s;
                text_addn(h, &upper, 1);
            }
            text_printf(h, " %lld\n", (long long)u->g.flops[i]);
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
    text_printf(h, "#ifndef %s_NO_STDIO /* safetensors files: params, states, seed and call counter */\n", up);
    text_printf(
        h, "mx_status %s_save(const %s *m, const char *path);\nmx_status %s_load(%s *m, const char *path);\n#endif\n\n",
        p, p, p, p);
    for (int i = 0; i < u->module->func_count; i++)
        if (unit_is_public(u, u->module->funcs[i]))
            function(u, u->module->funcs[i]);
    text_add(h, "\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n");
}
