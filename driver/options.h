/* The command line of mxcc, parsed by the table options.def. */
#ifndef MXCC_DRIVER_OPTIONS_H
#define MXCC_DRIVER_OPTIONS_H

#include "base/diag.h"
#include "passes/passes.h"

enum emit_kind { EMIT_C, EMIT_AST, EMIT_IR, EMIT_DEPS, EMIT_DEPS_DOT, EMIT_DEPS_JSON, EMIT_PLAN };
enum color_mode { COLOR_AUTO, COLOR_ALWAYS, COLOR_NEVER };

struct gpu_row;

struct options {
    char command;             /* letter of options.def */
    const char *program;      /* argv[0] */
    VEC(const char *) inputs; /* ends with NULL */
    VEC(char *) rest;         /* run: what belongs to the program; ends with NULL */
    VEC(const char *) binds;  /* ends with NULL if any */
    VEC(const char *) stdlib_dirs;
    struct compile_options compile;
    bool cpu_given;
    const char *output, *name, *depfile, *optimize, *cc, *march, *arch;
    int64_t split;
    const struct gpu_row *gpu; /* report: NULL: none was named */
    enum emit_kind emit;
    enum color_mode color;
    bool json, fmt_check, html, report_json, keep, verbose, no_warnings, warnings_as_errors;
    struct arena arena;
};

/* argv[0] is the command's name. False after a usage error printed to stderr: exit with 2. */
bool options_parse(struct options *o, char command, int argc, char **argv);
/* The lines of --help for a command's options. */
void options_help(FILE *out, char command);
void usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The nearest of count words by edits, or NULL if none is near. */
const char *nearest_word(const char *word, const char *const *words, int count);
/* Whether diagnostics on stderr are coloured. */
bool options_colour(const struct options *o);

/* The processors that --cpu knows: its name, cc's flag, bytes of a vector. */
struct cpu_row {
    const char *name, *march;
    int vector_bytes;
    const char *text;
};
extern const struct cpu_row cpu_table[]; /* ends with a NULL name */

const char *precision_name(enum precision p); /* "bf16" */

#endif
