/* explain, ops, passes, targets: tables, printed. */
#include <stdlib.h>
#include <string.h>

#include "driver/driver.h"
#include "frontend/ast.h"
#include "stdlib_text.h"

int explain_command(int argc, char **argv) {
    const char *title, *text;
    if (argc != 2) {
        usage_error("explain takes one code, as in `mxcc explain E0207`");
        return EXIT_USAGE;
    }
    if (!diag_explain(argv[1], &title, &text)) {
        usage_error("there is no error %s", argv[1]);
        return EXIT_USAGE;
    }
    printf("%s: %s\n\n%s", argv[1], title, text);
    return EXIT_OK;
}

/* One line of a doc comment. */
static int first_line(const char *doc) {
    return doc ? (int)strcspn(doc, "\n") : 0;
}

static void list_decl(const char *module, const struct ast_decl *d, const char *word) {
    char name[96];
    (void)snprintf(name, sizeof name, "%s%s%s", module, *module ? "." : "", d->name ? d->name : "");
    printf("  %-28s %-7s %.*s\n", name, word, first_line(d->doc), d->doc ? d->doc : "");
}

static void list_ops(void) {
    printf("operations of the IR\n");
    for (int i = 0; i < OP_COUNT; i++)
        printf("  %-28s %s\n", ir_optable[i].name, ir_optable[i].text);
    printf("\nscalar functions\n");
    for (int i = 0; i < FN_COUNT; i++)
        printf("  %-28s %d argument%s\n", scalar_table[i].name, scalar_table[i].arity,
               scalar_table[i].arity == 1 ? "" : "s");
    for (int i = 0; stdlib_text[i].name; i++) {
        struct diag d;
        struct arena a = {0};
        diag_init(&d);
        char *module = arena_strdup(&a, stdlib_text[i].name), *dot = strchr(module, '.');
        if (dot)
            *dot = 0;
        const struct source *s =
            diag_add_source(&d, stdlib_text[i].name, stdlib_text[i].text, strlen(stdlib_text[i].text));
        struct ast_file *f = parse_file(&a, &d, s);
        printf("\n%s\n", module);
        for (int k = 0; k < f->count; k++)
            if (f->stmts[k]->kind == STMT_DECL) {
                const struct ast_decl *decl = f->stmts[k]->decl;
                if (decl->kind == DECL_FN)
                    list_decl(strcmp(module, "math") == 0 ? "" : module, decl, decl->fn.is_kernel ? "kernel" : "fn");
                else if (decl->kind == DECL_BLOCK)
                    list_decl(module, decl, "block");
            }
        diag_free(&d);
        arena_free(&a);
    }
}

int list_command(int argc, char **argv) {
    if (argc != 1) {
        usage_error("%s takes no arguments", argv[0]);
        return EXIT_USAGE;
    }
    if (strcmp(argv[0], "ops") == 0) {
        list_ops();
    } else if (strcmp(argv[0], "passes") == 0) {
        for (int i = 0; pass_table[i].name; i++)
            printf("  %-16s %s\n", pass_table[i].name, pass_table[i].text);
    } else {
        printf("targets (--target)\n  %-16s C99 (portable) or GNU C11 with vector extensions\n", "c");
        printf("  %-16s one .cu for nvcc 13, GPUs from sm_75 on\n\nprocessors (--cpu)\n", "cuda");
        for (int i = 0; cpu_table[i].name; i++)
            printf("  %-16s %s\n", cpu_table[i].name, cpu_table[i].text);
        printf("\nGPUs (report --gpu)\n");
        for (const struct gpu_row *g = gpu_table; g->name; g++)
            printf("  %-16s %s: %.0f GB/s, TFLOP/s in f32 %g, tf32 %g, f16 %g, bf16 %g\n", g->name, g->title,
                   g->bandwidth, g->f32, g->tf32, g->f16, g->bf16);
    }
    return fflush(stdout) ? EXIT_MODEL : EXIT_OK;
}
