/* Code generation: a module and its plan become C text. Shared by the C and (later) CUDA printers.
 *
 * Shape of a generated unit `digits`:
 *   digits.h   status codes, mx_tensor (include-guarded), options, the interface, the resource contract
 *   digits.c   struct digits { arena, one pointer per buffer, seed, calls, pool, error text … };
 *              scalar helpers that are used; one static function per exported function
 *              `static mx_status digits_run_NAME(struct digits *m, dims…, args…, results…)` from codegen/c/function.c;
 *              the public functions from codegen/c/model.c that check arguments and call it.
 */
#ifndef MXCC_CODEGEN_CODEGEN_H
#define MXCC_CODEGEN_CODEGEN_H

#include "base/text.h"
#include "ir/ir.h"
#include "passes/passes.h"

/* Of the keys and groups of a step that was taken apart (passes/distribute.h). */
struct cgen_exchange {
    int *order, count;               /* keys in the order in which their tensors become final */
    double *key_flops, *group_flops; /* of `gradients` before that, and before it needs the group; -1: it never does */
    bool *is_read;                   /* [buffer_count] `gradients` touches it */
    int64_t *rows_touched;           /* rows that can be other than zero, where only data say which; else 0 */
};

struct cgen {
    struct ir_module *module;
    struct plan *plan;
    const struct compile_options *options;
    struct diag *diag;
    struct arena arena;   /* names and scratch */
    const char *prefix;   /* "digits" */
    struct text helpers;  /* static functions needed by what was printed so far (scalar functions, Philox, …) */
    struct text outlined; /* bodies of parallel loops and shared kernels, before the functions that use them */
    struct text functions;
    /* Private to function.c: what was already emitted. */
    struct cgen_kernels *kernels;
    struct cuda *cuda; /* the CUDA target: codegen/cuda/cuda.h; NULL: C */
    /* codegen/c/share.c: operations by their canonical text; `counting` is set in the run that only counts them. */
    struct cgen_block *blocks;
    struct arena *counting;
    struct cgen_names *names;       /* private to names.c */
    int64_t stack_bytes;            /* largest local arrays of a function, for the resource contract */
    int64_t *flops;                 /* [func_count] at upper bounds */
    struct cgen_exchange *exchange; /* codegen/c/exchange.c: of the step's parts, for the program around the model */
};

/* codegen/names.c. C identifiers: unique in the unit, no keywords, from source names ("net.conv1.weight" ->
 * net_conv1_weight). Deterministic. */
const char *cgen_buffer_field(struct cgen *g, const struct ir_buffer *b); /* field of the struct: m->FIELD */
const char *cgen_arg_name(struct cgen *g, const struct ir_func *f, int arg);
const char *cgen_result_name(struct cgen *g, const struct ir_func *f, int result);
const char *cgen_symbol_name(struct cgen *g, const struct ir_symbol *s);
const char *cgen_found_name(struct cgen *g, const struct ir_func *f,
                            int result_symbol); /* a dimension found at run time */
const char *cgen_c_type(enum dtype t);          /* "float", "uint16_t" for f16 */
/* For a symbol that the names were not made for: how it is called from now on. */
void cgen_set_symbol_name(struct cgen *g, const struct ir_symbol *s, const char *name);
/* An identifier of C from any name; not yet unique. */
const char *cgen_identifier(struct arena *a, const char *name);
/* The same for a language with other reserved words; `words` ends with NULL. */
const char *cgen_identifier_but(struct arena *a, const char *name, const char *const *words);
/* A dimension as a C expression of type int64_t over its symbols' names; may call mx_dim_div and mx_dim_mod. */
void cgen_dim(struct cgen *g, struct text *out, ir_dim d);
/* The same in the model's notation, for comments: `(N + 1) / 2`. */
void cgen_dim_comment(struct cgen *g, struct text *out, ir_dim d);
/* As a Python expression over names[symbol id]. */
void cgen_dim_python(struct cgen *g, struct text *out, ir_dim d, const char *const *names);

/* codegen/workspace.c. Bytes of the arena that an operation's kernel works in while it runs, what fits a local array aside; for
 * pass_context.workspace. p: its function's storages; NULL before there are any. */
int64_t codegen_workspace(const struct compile_options *o, const struct plan_func *p, struct ir_op *op);
/* Of one array of a kernel; 0: it is a local array. */
int64_t codegen_workspace_bytes(const struct compile_options *o, enum dtype t, int64_t elements);
/* Parts that a GPU scans the rows of an operation in; 1: whole. */
int64_t codegen_scan_parts(const struct compile_options *o, const struct ir_op *op);
/* Whether kernels.def has a row for a kernel function; for pass_context.own_kernel. */
enum own_kernel codegen_own_kernel(const struct compile_options *o, const struct ir_op *kernel);
/* Lowers a nest for the target: by the first of its kernels in kernels.def that takes it, else as it comes; and a kernel
 * function that the target keeps. */
struct lower;
void codegen_lower(struct lower *l);

/* codegen/c/function.c: appends `static mx_status PREFIX_run_NAME(struct PREFIX *m, …)` to g->functions and what it needs to
 * helpers and outlined. Parameters: int64_t run-time dimensions in order, arguments (scalars by value, tensors by const
 * pointer, inout by pointer), results by pointer, then int64_t * for each result symbol (the public function reorders). In the body
 * these names are in scope: m->arena (unsigned char *, 64-byte aligned), m->FIELD for buffers, m->seed, m->calls (uint64_t),
 * m->pool (struct mxrt_pool *, NULL: serial), and `PREFIX_fail(m, status, format, …)`, which stores the text and gives the status.
 * `init` is emitted as PREFIX_run_init. */
void cgen_c_function(struct cgen *g, struct plan_func *p);

/* A model's C text: its header, its file or files (--split), and the header that only these share. Freed by c_unit_free. */
enum { C_UNIT_FILES = 64 };
struct c_unit {
    struct text header, files[C_UNIT_FILES], shared;
    int count;          /* of files; with one there is no shared header */
    struct text python; /* --python: the module around the shared library */
};
void c_unit_free(struct c_unit *c);
/* The name of file i of a split unit: "digits.c" (0), "digits_1.c" …; -1: "digits_mx.h", which they share. */
const char *codegen_part_name(struct arena *a, const struct compile_options *o, int i);

/* codegen/c/model.c: the whole unit. False after an error reported to diag. */
bool codegen_c(struct ir_module *m, struct plan *p, const struct compile_options *o, struct diag *d,
               struct c_unit *out);

#endif
