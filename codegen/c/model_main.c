/* --main: the model described to libmxrt as static data (mxrt/program.h), and a main() that runs its command line. */
#include <math.h>
#include <string.h>

#include "codegen/c/model_internal.h"
#include "codegen/cuda/cuda.h"

void unit_quoted(struct text *c, const char *s) {
    if (!s) {
        text_add(c, "NULL");
        return;
    }
    text_add(c, "\"");
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            text_printf(c, "\\%c", *s);
        else if ((unsigned char)*s < 32 || *s == '?')
            text_printf(c, "\\%03o", (unsigned)(unsigned char)*s);
        else
            text_addn(c, s, 1);
    }
    text_add(c, "\"");
}

void unit_dtype(struct text *c, enum dtype t) {
    text_add(c, "MX_");
    for (const char *s = dtype_name(t); *s; s++) {
        char upper = (char)(*s >= 'a' ? *s - 32 : *s);
        text_addn(c, &upper, 1);
    }
}

static void extent(struct text *c, const struct ir_func *f, ir_dim d) {
    int64_t value;
    if (ir_dim_is_const(d, &value)) {
        text_printf(c, "%lld", (long long)value);
        return;
    }
    if (d->count == 1 && d->terms[0].coefficient == 1 && d->terms[0].count == 1 &&
        d->terms[0].atoms[0]->kind == ATOM_SYMBOL)
        for (int i = 0; i < f->symbol_count; i++)
            if (f->symbols[i] == d->terms[0].atoms[0]->symbol) {
                text_printf(c, "MXRT_SYMBOL(%d)", i);
                return;
            }
    for (int i = 0; i < f->result_symbol_count; i++)
        if (f->result_symbols[i].value == d) {
            text_printf(c, "MXRT_FOUND(%d)", i);
            return;
        }
    text_add(c, "MXRT_COMPUTED");
}

static void value(struct unit *u, struct text *shapes, struct text *values, int *at, const struct ir_func *f,
                  const char *name, struct ir_type t, bool is_inout) {
    text_add(values, "    {");
    unit_quoted(values, name);
    text_add(values, ", ");
    unit_dtype(values, t.dtype);
    text_printf(values, ", %d, shapes_%s + %d, %s},\n", t.rank, f->name, *at, is_inout ? "true" : "false");
    for (int i = 0; i < t.rank; i++, ++*at) {
        extent(shapes, f, t.dims[i]);
        text_add(shapes, ", ");
    }
}

/* A dimension that depends on one found at run time has no value before the call. */
struct found_search {
    const struct ir_func *f;
    bool found;
};
static void see_symbol(const struct ir_symbol *s, void *context) {
    struct found_search *search = context;
    for (int i = 0; i < search->f->symbol_count; i++)
        if (search->f->symbols[i] == s)
            return;
    search->found = true;
}

static void extents(struct unit *u, const struct ir_func *f) {
    struct text *c = &u->c;
    int at = 0;
    text_printf(
        c, "static void extents_%s(const struct mxrt_function *f, const int64_t *dims, int64_t *out) {\n    (void)f;\n",
        f->name);
    for (int i = 0; i < f->symbol_count; i++)
        text_printf(c, "    const int64_t %s = dims[%d];\n", cgen_symbol_name(&u->g, f->symbols[i]), i);
    for (int i = 0; i < f->symbol_count; i++)
        text_printf(c, "    (void)%s;\n", cgen_symbol_name(&u->g, f->symbols[i]));
    text_add(c, "    (void)dims;\n    (void)out;\n");
    for (int i = 0; i < f->body->arg_count + f->result_count; i++) {
        struct ir_type t =
            i < f->body->arg_count ? f->body->args[i]->type : f->body->yields[i - f->body->arg_count]->type;
        for (int k = 0; k < t.rank; k++) {
            struct found_search search = {f, false};
            ir_dim_symbols(t.dims[k], see_symbol, &search);
            text_printf(c, "    out[%d] = ", at++);
            if (search.found)
                text_printf(c, "%lld", (long long)ir_dim_upper(t.dims[k])); /* room for the largest */
            else
                cgen_dim(&u->g, c, t.dims[k]);
            text_add(c, ";\n");
        }
    }
    text_add(c, "}\n\n");
}

static void call(struct unit *u, const struct ir_func *f) {
    struct text *c = &u->c;
    text_printf(
        c,
        "static mx_status call_%s(void *model, const struct mxrt_function *f, const int64_t *dims, void *const *args,\n"
        "    void *const *results, int64_t *found) {\n    (void)f;\n    (void)dims;\n    (void)args;\n    (void)results;\n    (void)found;\n",
        f->name);
    bool incremental = unit_incremental(u, f);
    if (incremental)
        unit_incremental_call(u, f);
    else
        text_printf(c, "    return %s_%s((%s *)model", u->prefix, f->name, u->prefix);
    for (int i = 0; i < f->symbol_count && !incremental; i++)
        text_printf(c, ", dims[%d]", i);
    for (int i = 0; i < f->body->arg_count && !incremental; i++) {
        struct ir_type t = f->body->args[i]->type;
        bool by_value = t.rank == 0 && !(f->arg_inout && f->arg_inout[i]);
        text_printf(c, ", %s(%s *)args[%d]", by_value ? "*" : "", cgen_c_type(t.dtype), i);
    }
    for (int i = 0; i < f->result_symbol_count; i++)
        text_printf(c, ", &found[%d]", i);
    for (int i = 0; i < f->result_count; i++)
        text_printf(c, ", (%s *)results[%d]", cgen_c_type(f->body->yields[i]->type.dtype), i);
    text_add(c, incremental ? ");\n    return status;\n}\n\n" : ");\n}\n\n");
}

static void describe(struct unit *u, const struct ir_func *f) {
    struct text *c = &u->c, shapes = {0}, args = {0}, results = {0};
    int at = 0;
    for (int i = 0; i < f->body->arg_count; i++)
        value(u, &shapes, &args, &at, f, f->arg_names[i], f->body->args[i]->type, f->arg_inout && f->arg_inout[i]);
    for (int i = 0; i < f->result_count; i++) {
        const char *name = f->result_names ? f->result_names[i] : NULL;
        value(u, &shapes, &results, &at, f, name ? name : cgen_result_name(&u->g, f, i), f->body->yields[i]->type,
              false);
    }
    text_printf(c, "static const int64_t shapes_%s[] = {%s0};\n", f->name, text_string(&shapes));
    if (args.length)
        text_printf(c, "static const struct mxrt_value args_%s[] = {\n%s};\n", f->name, text_string(&args));
    if (results.length)
        text_printf(c, "static const struct mxrt_value results_%s[] = {\n%s};\n", f->name, text_string(&results));
    if (f->symbol_count) {
        text_printf(c, "static const struct mxrt_symbol symbols_%s[] = {", f->name);
        for (int i = 0; i < f->symbol_count; i++)
            text_printf(c, "{\"%s\", %lld, %lld}, ", f->symbols[i]->name, (long long)f->symbols[i]->lo,
                        (long long)f->symbols[i]->hi);
        text_add(c, "};\n");
    }
    if (f->result_symbol_count) {
        text_printf(c, "static const struct mxrt_symbol found_%s[] = {", f->name);
        for (int i = 0; i < f->result_symbol_count; i++)
            text_printf(c, "{\"%s\", 0, %lld}, ", f->result_symbols[i].name, (long long)f->result_symbols[i].hi);
        text_add(c, "};\n");
    }
    text_free(&shapes);
    text_free(&args);
    text_free(&results);
    extents(u, f);
    call(u, f);
}

/* Numbers the settings' nodes as it prints them; children first. */
static int setting(struct unit *u, const struct ir_setting_value *v, int *next) {
    struct text *c = &u->c;
    static const char *const kinds[] = {"MXRT_INT",  "MXRT_FLOAT", "MXRT_STRING", "MXRT_BOOL", "MXRT_NONE",
                                        "MXRT_NAME", "MXRT_CALL",  "MXRT_BINARY", "MXRT_LIST"};
    int *children = ARENA_ARRAY(&u->g.arena, int, v->count + 1);
    for (int i = 0; i < v->count; i++)
        children[i] = setting(u, v->args[i], next);
    int id = (*next)++;
    if (v->count) {
        text_printf(c, "static const struct mxrt_setting *const mx_setting_args_%d[] = {", id);
        for (int i = 0; i < v->count; i++)
            text_printf(c, "&mx_setting_%d, ", children[i]);
        text_add(c, "};\n");
        if (v->names) {
            text_printf(c, "static const char *const mx_setting_names_%d[] = {", id);
            for (int i = 0; i < v->count; i++) {
                unit_quoted(c, v->names[i]);
                text_add(c, ", ");
            }
            text_add(c, "};\n");
        }
    }
    text_printf(c, "static const struct mxrt_setting mx_setting_%d = {%s, %lld, %.17g, ", id, kinds[v->kind],
                (long long)v->i, isfinite(v->f) ? v->f : 0.0);
    unit_quoted(c, v->s);
    if (v->count && v->names)
        text_printf(c, ", mx_setting_names_%d", id);
    else
        text_add(c, ", NULL");
    if (v->count)
        text_printf(c, ", mx_setting_args_%d, %d};\n", id, v->count);
    else
        text_add(c, ", NULL, 0};\n");
    return id;
}

static bool packed(const struct ir_setting_value *v) {
    size_t n = v->s ? strlen(v->s) : 0;
    if (v->kind == SET_STRING &&
        ((n > 3 && strcmp(v->s + n - 3, ".gz") == 0) || (n > 4 && strcmp(v->s + n - 4, ".npz") == 0)))
        return true;
    for (int i = 0; i < v->count; i++)
        if (packed(v->args[i]))
            return true;
    return false;
}

bool unit_needs_zlib(const struct ir_module *m) {
    for (int i = 0; i < m->setting_count; i++)
        if (packed(m->settings[i].value))
            return true;
    return false;
}

static void model_interface(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix;
    text_printf(
        c,
        "static mx_status mx_program_create(const struct mxrt_program *p, void **model, uint64_t seed, int threads) {\n"
        "    %s_options options;\n    %s *m;\n    mx_status status;\n    (void)p;\n    memset(&options, 0, sizeof options);\n"
        "    options.seed = seed;\n    options.threads = threads;\n    status = %s_init(&m, NULL, 0, &options);\n    *model = m;\n    return status;\n}\n\n",
        p, p, p);
    text_printf(c, "static void mx_program_destroy(void *model) {\n    %s_free((%s *)model);\n}\n\n", p, p);
    text_printf(
        c, "static const char *mx_program_error(const void *model) {\n    return %s_error((const %s *)model);\n}\n\n",
        p, p);
    text_printf(
        c,
        "static mx_status mx_program_buffer(void *model, int index, mx_tensor *view) {\n    %s_mx_view((%s *)model, index, view);\n",
        p, p);
    if (u->incremental && u->module->buffer_count)
        text_printf(c, "    ((%s *)model)->mx_versions[index]++;\n", p);
    if (u->g.cuda)
        text_printf(c, "    return %s_mx_see((%s *)model, index, 1);\n}\n\n", p, p);
    else
        text_add(c, "    return MX_OK;\n}\n\n");
    if (u->g.cuda)
        unit_cuda_ahead(u);
    text_printf(
        c, "static uint64_t mx_program_calls(const void *model) {\n    return ((const %s *)model)->calls;\n}\n\n", p);
    text_printf(
        c, "static void mx_program_set_calls(void *model, uint64_t calls) {\n    ((%s *)model)->calls = calls;\n}\n\n",
        p);
}

void unit_main(struct unit *u) {
    struct text *c = &u->c;
    struct ir_module *m = u->module;
    int functions = u->interface.function_count, next = 0;
    text_add(c, "/* ---- the program around the model */\n\n");
    for (int i = 0; i < functions; i++)
        describe(u, u->interface.functions[i].func);
    if (functions) {
        text_add(c, "static const struct mxrt_function mx_program_functions[] = {\n");
        for (int i = 0; i < functions; i++) {
            const struct ir_func *f = u->interface.functions[i].func;
            text_printf(c, "    {\"%s\", %s, %d, %d, %d, %d, ", f->name, f->is_train ? "true" : "false",
                        f->symbol_count, f->result_symbol_count, f->body->arg_count, f->result_count);
            text_printf(c, f->symbol_count ? "symbols_%s, " : "NULL, ", f->name);
            text_printf(c, f->result_symbol_count ? "found_%s, " : "NULL, ", f->name);
            text_printf(c, f->body->arg_count ? "args_%s, " : "NULL, ", f->name);
            text_printf(c, f->result_count ? "results_%s, " : "NULL, ", f->name);
            text_printf(c, "extents_%s, call_%s, NULL},\n", f->name, f->name);
        }
        text_add(c, "};\n\n");
    }
    text_add(c, "static const char *const mx_program_names[] = {\n");
    for (int i = 0; i < m->buffer_count; i++)
        text_printf(c, "    \"%s\",\n", m->buffers[i]->name);
    text_add(c, "    NULL};\nstatic const bool mx_program_states[] = {");
    for (int i = 0; i < m->buffer_count; i++)
        text_printf(c, "%s, ", m->buffers[i]->kind == BUFFER_STATE ? "true" : "false");
    text_add(c, "false};\n\n");
    int *ids = ARENA_ARRAY(&u->g.arena, int, m->setting_count + 1);
    for (int i = 0; i < m->setting_count; i++)
        ids[i] = setting(u, m->settings[i].value, &next);
    if (m->setting_count) {
        text_add(c, "static const struct mxrt_train_setting mx_program_settings[] = {\n");
        for (int i = 0; i < m->setting_count; i++)
            text_printf(c, "    {\"%s\", &mx_setting_%d},\n", m->settings[i].key, ids[i]);
        text_add(c, "};\n\n");
    }
    model_interface(u);
    unit_ranks(u);
    text_printf(
        c,
        "int main(int argc, char **argv) {\n    static const struct mxrt_program mx_program = {\n        \"%s\", %d, %s,\n        %d, mx_program_names, mx_program_states, %d, %s,\n        ",
        u->prefix, functions, functions ? "mx_program_functions" : "NULL", m->buffer_count, m->setting_count,
        m->setting_count ? "mx_program_settings" : "NULL");
    unit_quoted(c, m->train_dir);
    text_add(
        c,
        ",\n        mx_program_create, mx_program_destroy, mx_program_error, mx_program_buffer, mx_program_calls, mx_program_set_calls, NULL, ");
    text_add(c, u->g.plan->split ? "&mx_split, " : "NULL, ");
    text_add(c, unit_needs_zlib(m) ? "mxrt_gunzip, " : "NULL, ");
    text_add(c, u->g.cuda && u->g.cuda->ahead_bytes ? "mx_program_ahead,\n" : "NULL,\n");
    text_add(c, "    };\n    return mxrt_main(&mx_program, argc, argv);\n}\n");
}
