/* What the subcommands of mxcc share: from a file's name to a module, its plan, its C. */
#ifndef MXCC_DRIVER_DRIVER_H
#define MXCC_DRIVER_DRIVER_H

#include "codegen/codegen.h"
#include "driver/options.h"
#include "ir/ir.h"

enum { EXIT_OK = 0, EXIT_MODEL = 1, EXIT_USAGE = 2, EXIT_BUG = 3 };

/* One compilation. Zeroed, then by the functions in this order. */
struct pipeline {
    struct options *options;
    struct diag diag;
    const struct source *source;
    struct ir_module *module;
    struct pass_context passes;
};

/* Reads the input and elaborates (.mxl) or parses (.mxir) it. False after errors reported to p->diag. */
bool pipeline_load(struct pipeline *p, struct options *o, const char *path);
/* Runs the passes. */
bool pipeline_passes(struct pipeline *p);
/* Prints the diagnostics, frees all, and gives the exit status. */
int pipeline_end(struct pipeline *p, bool ok);
/* Only reads: for fmt, doc, check of syntax. NULL after an error. */
const struct source *pipeline_source(struct diag *d, const char *path);
void print_diagnostics(const struct options *o, struct diag *d);
/* Text to -o or stdout. False after an error printed. */
bool write_output(const struct options *o, const char *path, const struct text *t);
/* "digits" from "out/digits.c". */
const char *stem_of(struct arena *a, const char *path);

/* Makes C and header; `main` and weights as the options say. */
bool pipeline_codegen(struct pipeline *p, struct c_unit *out);
/* Writes the unit's files into `folder` ("" or ending in a slash), under the names of codegen_part_name. */
bool write_unit(struct pipeline *p, const char *folder, const struct c_unit *c);
/* For the interpreter: the module as --precision wants it. */
bool pipeline_precision(struct pipeline *p);
/* WEIGHTS_SOURCE and WEIGHTS_FILE: the initial values, into the options or a file beside the output; behind the passes, which may add
 * states. False after an error. */
bool pipeline_weights(struct pipeline *p);
/* --depfile: what `target` depends on. */
bool write_depfile(struct pipeline *p, const char *target);
/* `--emit deps`, deps.dot, deps.json. */
void emit_deps(struct text *out, const struct plan *p, enum emit_kind format);

/* A GPU that `mxcc report --gpu` knows: a row of gpu.def. */
struct gpu_row {
    const char *name, *title;
    double bandwidth;                 /* 10^9 bytes a second */
    double f64, f32, tf32, f16, bf16; /* 10^12 FLOPs a second */
};
extern const struct gpu_row gpu_table[]; /* ends with a NULL name */
/* What the kernels of a function move and compute, and their times on a GPU; NULL: on all. */
void report_gpu(struct text *out, const struct plan_func *p, const struct gpu_row *asked);
void report_gpu_json(struct text *out, const struct plan_func *p, const struct gpu_row *asked);
/* `mxcc report --json`; for CUDA with the kernels. */
void report_json(struct text *out, const struct ir_module *m, const struct plan *plan, const struct options *o);

/* The subcommands. */
int compile_command(int argc, char **argv);
int build_command(int argc, char **argv);
int run_command(int argc, char **argv);
int check_command(int argc, char **argv);
int fmt_command(int argc, char **argv);
int doc_command(int argc, char **argv);
int report_command(int argc, char **argv);
int explain_command(int argc, char **argv);
int list_command(int argc, char **argv);  /* ops, passes, targets */
int flags_command(int argc, char **argv); /* --cflags, --libs */

/* Where headers and libmxrt.a are: from the executable's place, in a build tree or installed. */
struct places {
    const char *include, *library; /* folders */
};
struct places find_places(struct arena *a);

/* Bugs: signals and broken invariants write a reproducer and end with status 3. */
void crash_watch(int argc, char **argv);
void crash_source(const struct source *s); /* what is being compiled */
void crash_report(const char *what) __attribute__((noreturn));

#endif
