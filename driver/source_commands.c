/* check, fmt and doc: what needs only the front end. */
#include <string.h>

#include "driver/driver.h"
#include "frontend/ast.h"

int check_command(int argc, char **argv) {
    struct options o;
    if (!options_parse(&o, 'k', argc, argv))
        return EXIT_USAGE;
    int status = EXIT_OK;
    for (int i = 0; i < o.inputs.n; i++) {
        struct pipeline p;
        o.compile.name = "model";
        /* The rules of gradients are checked where gradients are made, writes over what they read where copies are. */
        o.compile.stop_after = o.compile.gradient_overwrite_error ? "mutation" : "differentiate";
        bool ok = pipeline_load(&p, &o, o.inputs.at[i]) && pipeline_passes(&p);
        print_diagnostics(&o, &p.diag);
        if (!ok || p.diag.errors)
            status = EXIT_MODEL;
        if (p.module)
            ir_module_free(p.module);
        diag_free(&p.diag);
        crash_source(NULL);
    }
    arena_free(&o.arena);
    return status;
}

int fmt_command(int argc, char **argv) {
    struct options o;
    if (!options_parse(&o, 'f', argc, argv))
        return EXIT_USAGE;
    if (o.output && o.inputs.n > 1) {
        usage_error("fmt: -o takes one file");
        return EXIT_USAGE;
    }
    int status = EXIT_OK;
    for (int i = 0; i < o.inputs.n; i++) {
        const char *path = o.inputs.at[i];
        struct diag d;
        struct text t = {0};
        diag_init(&d);
        const struct source *s = pipeline_source(&d, path);
        if (s)
            format_file(&t, &d, s);
        print_diagnostics(&o, &d);
        bool same = s && t.length == s->length && memcmp(text_string(&t), s->text, t.length) == 0;
        if (!s || d.errors) {
            status = EXIT_MODEL;
        } else if (o.fmt_check) {
            if (!same) {
                printf("%s\n", path);
                status = EXIT_MODEL;
            }
        } else {
            bool apart = o.output || strcmp(path, "-") == 0;
            if ((apart || !same) && !write_output(&o, apart ? o.output : path, &t))
                status = EXIT_MODEL;
        }
        text_free(&t);
        diag_free(&d);
        crash_source(NULL);
    }
    arena_free(&o.arena);
    return status;
}

int doc_command(int argc, char **argv) {
    struct options o;
    if (!options_parse(&o, 'd', argc, argv))
        return EXIT_USAGE;
    struct diag d;
    struct text t = {0};
    struct arena a = {0};
    diag_init(&d);
    bool ok = true;
    for (int i = 0; i < o.inputs.n; i++) {
        const struct source *s = pipeline_source(&d, o.inputs.at[i]);
        ok &= s != NULL;
        if (s)
            document_file(&t, parse_file(&a, &d, s));
    }
    if (ok && !d.errors)
        ok = write_output(&o, o.output, &t);
    print_diagnostics(&o, &d);
    int status = ok && !d.errors ? EXIT_OK : EXIT_MODEL;
    text_free(&t);
    arena_free(&a);
    diag_free(&d);
    arena_free(&o.arena);
    return status;
}
