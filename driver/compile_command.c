/* `mxcc model.mxl -o model.c`: C and its header, or one of the intermediate forms (--emit). */
#include <string.h>

#include "codegen/python/python.h"
#include "driver/driver.h"
#include "frontend/ast.h"
#include "ir/text.h"

static int emit_ast(struct options *o) {
    struct diag d;
    diag_init(&d);
    const struct source *s = pipeline_source(&d, o->inputs.at[0]);
    struct text t = {0};
    struct arena a = {0};
    bool ok = s != NULL;
    if (ok) {
        struct ast_file *f = parse_file(&a, &d, s);
        ast_print(&t, f);
        ok = write_output(o, o->output, &t);
    }
    print_diagnostics(o, &d);
    int status = ok && !d.errors ? EXIT_OK : EXIT_MODEL;
    text_free(&t);
    arena_free(&a);
    diag_free(&d);
    arena_free(&o->arena);
    return status;
}

static bool with_suffix(const char *s, const char *end) {
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

/* As make reads it: blanks, `$` and `#` in names are escaped. */
static void make_name(struct text *out, const char *name) {
    for (const char *s = name; *s; s++) {
        if (*s == ' ' || *s == '#')
            text_add(out, "\\");
        text_add(out, *s == '$' ? "$$" : (char[2]){*s, 0});
    }
}

/* The files that were read: the model, what it uses and loads, C headers. The built-in library has no files. */
bool write_depfile(struct pipeline *p, const char *target) {
    struct options *o = p->options;
    struct text t = {0};
    make_name(&t, target);
    text_add(&t, ":");
    for (int i = 0; i < p->diag.file_count; i++) {
        text_add(&t, " ");
        make_name(&t, p->diag.files[i]);
    }
    text_add(&t, "\n");
    for (int i = 1; i < p->diag.file_count; i++) { /* a file that is gone must not stop make */
        make_name(&t, p->diag.files[i]);
        text_add(&t, ":\n");
    }
    bool ok = write_output(o, o->depfile, &t);
    text_free(&t);
    return ok;
}

int compile_command(int argc, char **argv) {
    struct options o;
    struct pipeline p;
    if (!options_parse(&o, 'c', argc, argv))
        return EXIT_USAGE;
    if (o.emit == EMIT_AST)
        return emit_ast(&o);
    if (!o.output && o.emit == EMIT_C && !o.compile.stop_after) {
        usage_error("-o FILE.c is needed (or --emit, or the command check)");
        arena_free(&o.arena);
        return EXIT_USAGE;
    }
    const char *suffix = o.compile.target == TARGET_CUDA ? ".cu" : ".c";
    if (o.output && o.emit == EMIT_C && !o.compile.stop_after && !with_suffix(o.output, suffix)) {
        usage_error("-o %s: the output's name ends in %s%s", o.output, suffix,
                    o.compile.target == TARGET_CUDA ? "" : ", for CUDA in .cu");
        arena_free(&o.arena);
        return EXIT_USAGE;
    }
    bool ok = pipeline_load(&p, &o, o.inputs.at[0]);
    struct text t = {0};
    struct c_unit unit = {0};
    if (ok && o.emit == EMIT_IR) {
        /* Before the passes, unless one of them was named. */
        if (o.compile.stop_after)
            ok = pipeline_passes(&p);
        ir_print(&t, p.module);
        ok = ok && write_output(&o, o.output, &t);
    } else if (ok) {
        const bool writes = o.emit == EMIT_C && !o.compile.stop_after;
        ok = pipeline_passes(&p) && (!writes || pipeline_weights(&p));
        if (ok && o.emit == EMIT_PLAN) {
            plan_print_csv(&t, p.passes.plan);
            ok = write_output(&o, o.output, &t);
        } else if (ok && (o.emit == EMIT_DEPS || o.emit == EMIT_DEPS_DOT || o.emit == EMIT_DEPS_JSON)) {
            emit_deps(&t, p.passes.plan, o.emit);
            ok = write_output(&o, o.output, &t);
        } else if (ok && !o.compile.stop_after) {
            const char *slash = strrchr(o.output, '/'), *file = slash ? slash + 1 : o.output;
            o.compile.header = arena_printf(&o.arena, "%.*s.h", (int)(strlen(file) - strlen(suffix)), file);
            const char *folder = arena_strndup(&o.arena, o.output, (size_t)(file - o.output));
            ok = pipeline_codegen(&p, &unit) && write_unit(&p, folder, &unit);
            if (ok && o.compile.python)
                ok = write_output(&o,
                                  arena_printf(&o.arena, "%s%s.py", folder,
                                               codegen_python_module(&o.arena, stem_of(&o.arena, o.output))),
                                  &unit.python);
            if (ok && o.depfile)
                ok = write_depfile(&p, o.output);
        }
    }
    text_free(&t);
    c_unit_free(&unit);
    return pipeline_end(&p, ok);
}
