/* A whole C unit and its header, in order: header text, struct, helpers, outlined loops, functions, interface, main.
 *
 * The functions are printed first (into g.helpers, g.outlined, g.functions), because the resource contract and the set
 * of helpers are known only then; this file decides what goes where.
 */
#include <ctype.h>
#include <string.h>

#include "codegen/c/c_internal.h"
#include "codegen/c/model_internal.h"
#include "codegen/cuda/cuda.h"
#include "codegen/python/python.h"

/* Layout of an instance's memory: the struct, each buffer that it owns, the arena, the cache; all aligned to 64 bytes. */
static int64_t align64(int64_t n) {
    return (n + 63) & ~(int64_t)63;
}

/* At least sizeof(struct PREFIX) anywhere: pointers, counters and the message. The unit checks it. */
static int64_t struct_bytes(const struct unit *u) {
    int64_t device = u->g.cuda ? unit_cuda_struct_bytes(u) + 200 : 0;
    return align64(8 * (int64_t)(u->module->buffer_count + 16) + 256 + unit_incremental_bytes(u) + device);
}

int64_t unit_offset(const struct unit *u, const struct ir_buffer *until) {
    int64_t at = struct_bytes(u);
    for (int i = 0; i < u->module->buffer_count && u->module->buffers[i] != until; i++)
        if (!u->shared[i] && !unit_is_outside(u, i))
            at += align64(ir_type_bytes_upper(u->module->buffers[i]->type));
    return at;
}

bool unit_is_outside(const struct unit *u, int buffer) {
    return u->g.cuda && u->g.cuda->is_outside && u->g.cuda->is_outside[buffer];
}

int64_t unit_cache_offset(const struct unit *u) {
    return unit_offset(u, NULL) + (u->g.cuda ? 0 : align64(u->g.plan->arena_bytes));
}

int64_t unit_staging_offset(const struct unit *u) {
    return unit_cache_offset(u) + align64(u->g.plan->cache_bytes);
}

int64_t unit_memory(const struct unit *u) {
    return unit_staging_offset(u) + align64(u->g.cuda ? u->g.cuda->staging : 0) +
           64; /* 64: the memory given may begin anywhere */
}

int64_t unit_weights(const struct unit *u) {
    int64_t bytes = 0;
    for (int i = 0; i < u->module->buffer_count; i++)
        if (u->module->buffers[i]->kind == BUFFER_PARAM)
            bytes += ir_type_bytes_upper(u->module->buffers[i]->type);
    return bytes;
}

static void note_write(struct ir_op *op, void *context) {
    bool *written = context;
    if (op->code == OP_write)
        written[op->buffer.buffer->id] = true;
}

static void includes(struct unit *u, struct text *out) {
    const struct compile_options *o = u->options;
    if (u->options->header)
        text_printf(out, "#include \"%s\"\n\n", u->options->header);
    else
        text_printf(out, "#include \"%s.h\"\n\n", u->prefix);
    /* Conditions without a branch are meant: `&` evaluates both sides, which have no effects. */
    text_add(
        out,
        "#if defined(__clang__) && defined(__has_warning)\n#if __has_warning(\"-Wbitwise-instead-of-logical\")\n"
        "#pragma clang diagnostic ignored \"-Wbitwise-instead-of-logical\" /* conditions without branches */\n#endif\n#endif\n\n");
    text_add(out, "#include <errno.h>\n#include <math.h>\n#include <stdarg.h>\n#include <stdio.h>\n");
    text_add(out, "#include <stdlib.h>\n#include <string.h>\n");
    if (o->threads)
        text_add(out, "\n#include <mxrt/pool.h>\n");
    if (u->g.cuda) {
        text_add(out, "\n");
        unit_cuda_includes(u, out);
    }
    if (o->with_main)
        text_add(out, unit_needs_zlib(u->module) ? "\n#include <mxrt/gzip.h>\n#include <mxrt/program.h>\n"
                                                 : "\n#include <mxrt/program.h>\n");
    text_add(out, "\n");
    if (u->g.cuda && cuda_averages(&u->g))
        text_printf(out, "%s\n", embedded_text("nccl.h"));
}

static void print_functions(struct unit *u, struct cgen *g) {
    const struct ir_module *m = g->module;
    for (int i = 0; i < m->func_count; i++)
        if (m->funcs[i] != u->reset || g->options->weights != WEIGHTS_SOURCE) /* which resets by copies */
            cgen_c_function(g, plan_of(g->plan, m->funcs[i]));
    if (m->init && g->options->weights == WEIGHTS_INIT)
        cgen_c_function(g, plan_of(g->plan, m->init));
}

/* A run that prints nothing anybody reads: it finds which operations occur more than once (codegen/c/share.c). */
static void count_blocks(struct unit *u, struct arena *counting) {
    struct cgen g = {.module = u->g.module,
                     .plan = u->g.plan,
                     .options = u->g.options,
                     .diag = u->g.diag,
                     .prefix = u->g.prefix,
                     .counting = counting};
    print_functions(u, &g);
    u->g.blocks = g.blocks;
    text_free(&g.helpers);
    text_free(&g.outlined);
    text_free(&g.functions);
    arena_free(&g.arena);
}

/* --line-directives: what follows a function of the model is the unit's own again. */
static void return_to_unit(struct text *whole, const char *file) {
    struct text out = {0};
    bool away = false;
    int line = 1;
    for (const char *s = text_string(whole), *end; *s; s = end) {
        end = strchr(s, '\n');
        end = end ? end + 1 : s + strlen(s);
        text_addn(&out, s, (size_t)(end - s));
        line++;
        if (strncmp(s, "#line ", 6) == 0) {
            away = true;
        } else if (away && *s == '}') {
            line++;
            text_printf(&out, "#line %d \"%s\"\n", line, file);
            away = false;
        }
    }
    text_free(whole);
    *whole = out;
}

const char *codegen_part_name(struct arena *a, const struct compile_options *o, int i) {
    int stem = o->header ? (int)strlen(o->header) - 2 : (int)strlen(o->name);
    const char *name = o->header ? o->header : o->name;
    if (i < 0)
        return arena_printf(a, "%.*s_mx.h", stem, name);
    return i == 0 ? arena_printf(a, o->target == TARGET_CUDA ? "%.*s.cu" : "%.*s.c", stem, name)
                  : arena_printf(a, "%.*s_%d.c", stem, name, i);
}

void c_unit_free(struct c_unit *c) {
    text_free(&c->header);
    text_free(&c->shared);
    text_free(&c->python);
    for (int i = 0; i < c->count; i++)
        text_free(&c->files[i]);
    c->count = 0;
}

static void add_text(struct text *out, const struct text *more) {
    text_addn(out, text_string(more), more->length);
}

/* Floor quotients in dimensions, where the unit uses them. */
static void dimension_helpers(const struct unit *u, const struct text *parts, int n, struct text *out) {
    bool quotient = false, remainder = false;
    for (int i = 0; i < n; i++) {
        quotient |= strstr(text_string(&parts[i]), "mx_dim_div(") != NULL;
        remainder |= strstr(text_string(&parts[i]), "mx_dim_mod(") != NULL;
    }
    if (quotient || remainder)
        text_add(out, "static int64_t mx_dim_div(int64_t a, int64_t b) {\n"
                      "    return b == 0 ? 0 : a / b - (a % b != 0 && (a < 0) != (b < 0));\n}\n\n");
    if (remainder)
        text_add(out, "static int64_t mx_dim_mod(int64_t a, int64_t b) {\n    return a - mx_dim_div(a, b) * b;\n}\n\n");
}

bool codegen_c(struct ir_module *m, struct plan *p, const struct compile_options *o, struct diag *d,
               struct c_unit *out) {
    struct unit u = {.module = m, .options = o, .prefix = o->name};
    u.g = (struct cgen){.module = m, .plan = p, .options = o, .diag = d, .prefix = o->name};
    struct arena *a = &u.g.arena;
    char *upper = arena_strdup(a, o->name);
    for (char *s = upper; *s; s++)
        *s = (char)toupper((unsigned char)*s);
    u.upper = upper;
    u.written = ARENA_ARRAY(a, bool, m->buffer_count);
    u.shared = ARENA_ARRAY(a, bool, m->buffer_count);
    u.g.flops = ARENA_ARRAY(a, int64_t, m->func_count + 1);
    int errors = d->errors;
    for (int i = 0; i < m->func_count; i++) {
        u.incremental |= m->funcs[i]->is_incremental;
        if (ir_func_is_reset(m->funcs[i]))
            u.reset = m->funcs[i];
        else
            ir_walk_ops(m->funcs[i]->body, note_write, u.written);
    }
    for (int i = 0; i < m->buffer_count; i++)
        u.shared[i] = !u.written[i] && m->buffers[i]->kind == BUFFER_PARAM &&
                      (o->weights == WEIGHTS_SOURCE || o->weights == WEIGHTS_CALLER);

    u.interface = (struct interface){.prefix = o->name, .upper = upper, .options = o};
    interface_of(&u.g, u.reset, &u.interface);

    struct arena counting = {0};
    if (o->target == TARGET_CUDA)
        u.g.cuda = cuda_layout(&u.g);
    else
        count_blocks(&u, &counting);
    print_functions(&u, &u.g);

    memset(out, 0, sizeof *out);
    u.interface.memory_bytes = unit_memory(&u);
    unit_header(&u);
    if (o->python)
        codegen_python(&u.g, &u.interface, &out->python);
    unit_instance(&u);
    if (u.g.helpers.length)
        text_printf(&u.c, "/* ---- scalar functions and kernels */\n\n%s\n", text_string(&u.g.helpers));
    struct text instance = u.c, before = {0};
    u.c = (struct text){0};
    unit_weights_data(&u);
    unit_files(&u);
    unit_init(&u);
    unit_functions(&u);
    if (o->with_main)
        unit_main(&u);
    if (o->split <= 1)
        text_printf(
            &before,
            "/* %s: made by mxcc from the model of that name. Not to be edited: the source is the .mxl file. */\n",
            u.prefix);
    includes(&u, &before);
    const struct text parts[] = {instance, u.g.outlined, u.g.functions, u.c};
    dimension_helpers(&u, parts, 4, &before);
    add_text(&before, &instance);
    if (o->split > 1) {
        unit_split(&u, text_string(&before), out);
        text_free(&before);
        unit_free_prefix(&out->shared, u.prefix);
    } else {
        if (u.g.outlined.length)
            text_printf(&before, "%s\n", text_string(&u.g.outlined));
        text_printf(&before, "/* ---- the model's functions */\n\n%s\n", text_string(&u.g.functions));
        add_text(&before, &u.c);
        out->files[0] = before;
        out->count = 1;
    }
    for (int i = 0; i < out->count; i++) {
        unit_free_prefix(&out->files[i], u.prefix);
        if (o->line_directives)
            return_to_unit(&out->files[i], codegen_part_name(a, o, i));
    }
    out->header = u.h;
    text_free(&u.c);
    text_free(&instance);
    cgen_blocks_free(&u.g);
    arena_free(&counting);
    text_free(&u.g.helpers);
    text_free(&u.g.outlined);
    text_free(&u.g.functions);
    arena_free(a);
    return d->errors == errors;
}
