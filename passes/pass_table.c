/* The list of passes and its driver: printing, stopping, timing and verifying between any two of them. */
#include <string.h>
#include <time.h>

#include "ir/text.h"
#include "passes/passes.h"

const struct pass pass_table[] = {
#define P(name, text) {#name, text, pass_##name},
#include "passes/passes.def"
#undef P
    {NULL, NULL, NULL},
};

static double milliseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static bool known_pass(struct pass_context *c, const char *name, const char *option) {
    if (!name)
        return true;
    for (const struct pass *p = pass_table; p->name; p++)
        if (strcmp(p->name, name) == 0)
            return true;
    struct diagnostic *e = diag_error(c->diag, E_unknown_pass, (struct span){0}, "there is no pass `%s`", name);
    diag_note(c->diag, e, (struct span){0}, "given with %s", option);
    diag_help(c->diag, e, "`mxcc passes` lists them");
    return false;
}

/* A pass that breaks the IR is our bug: what it left is shown with where it happened. */
static bool verified(struct pass_context *c, const char *after, FILE *out) {
    struct text why = {0};
    bool good = ir_verify(c->module, &why);
    if (!good) {
        struct text ir = {0};
        ir_print(&ir, c->module);
        fprintf(out, "%s\nmxcc: the IR is broken after the pass %s: %s\n", text_string(&ir), after, text_string(&why));
        diag_error(c->diag, E_internal_pass, (struct span){0}, "the pass `%s` left a broken program: %s", after,
                   text_string(&why));
        text_free(&ir);
    }
    text_free(&why);
    return good;
}

bool passes_run(struct pass_context *c) {
    const struct compile_options *o = c->options;
    FILE *out = o->dump ? o->dump : stderr;
    if (!known_pass(c, o->print_after, "--print-after") || !known_pass(c, o->stop_after, "--stop-after"))
        return false;
    if (o->verify && !verified(c, "elaborate", out))
        return false;
    for (const struct pass *p = pass_table; p->name; p++) {
        double start = o->time_passes ? milliseconds() : 0;
        int errors = c->diag->errors;
        p->run(c);
        if (o->time_passes)
            fprintf(out, "%-16s %9.3f ms\n", p->name, milliseconds() - start);
        if (c->diag->errors > errors)
            return false;
        if (o->verify && !verified(c, p->name, out))
            return false;
        if (o->print_after && strcmp(o->print_after, p->name) == 0) {
            struct text t = {0};
            ir_print(&t, c->module);
            fputs(text_string(&t), out);
            text_free(&t);
        }
        if (o->stop_after && strcmp(o->stop_after, p->name) == 0)
            break;
    }
    return true;
}
