/* What the files of codegen/c share: the printer of the loop IR, helpers on demand, lowering. */
#ifndef MXCC_CODEGEN_C_INTERNAL_H
#define MXCC_CODEGEN_C_INTERNAL_H

#include "codegen/codegen.h"
#include "ir/loop.h"

/* A shared kernel that was emitted, found again by its key (builder and parameters). */
struct cgen_shared {
    const char *key;
    struct loop_func *func;
};

struct cgen_kernels {
    struct loop_builder builder;
    VEC(const char *) names;   /* C name of each register and memory, by id */
    VEC(const char *) scope;   /* names in use, innermost last */
    VEC(const char *) helpers; /* emitted already */
    VEC(struct cgen_shared) shared;
    VEC(const char *) consts; /* op, name, side: see ops.c */
    int outlined;             /* parallel loops so far */
    int functions;            /* shared operations so far */
    int64_t stack;            /* local arrays of the function being printed, now and at most */
    int64_t stack_max;
};

struct cgen_kernels *cgen_private(struct cgen *g);

/* ---- helpers.c ------------------------------------------------------------------------------------------------- */

/* Makes the function (or type) `name` of the scalar text, and what it needs, part of g->helpers. Unknown names are a bug. */
void cgen_need(struct cgen *g, const char *name);
/* Vector type of the unit, "mx_f32x16", with its splat and its multiply-add; false in portable mode. */
const char *cgen_vector_type(struct cgen *g, enum dtype t, int lanes);
/* "MX_FMA_F32" or "MX_FMA_F32X16", defined in helpers. */
const char *cgen_fma_macro(struct cgen *g, enum dtype t, int lanes);

/* ---- print*.c, scope.c ----------------------------------------------------------------------------------------- */

struct cprint {
    struct cgen *g;
    struct text *out;
    int indent;
    bool narrow;                         /* indices that fit are of 32 bits */
    const char *lane;                    /* inside a loop over lanes: its counter */
    const struct loop_stmt *unrolled[8]; /* loops being expanded, and the value of each counter */
    int64_t unrolled_at[8];
    int unrolled_count;
};

void cprint_line(struct cprint *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cprint_block(struct cprint *p, const struct loop_block *k);
void cprint_expr(struct cprint *p, lx e, int precedence);
/* A name unique among those in scope, registered until the scope is left (cgen_scope_mark, cgen_scope_leave). */
const char *cgen_enter_name(struct cgen *g, const char *wanted);
void cgen_set_name(struct cgen *g, int id, const char *name);
const char *cgen_name_of(struct cgen *g, int id);
int cgen_scope_mark(struct cgen *g);
void cgen_scope_leave(struct cgen *g, int mark);
/* `const float *x = …;` for a POINTER memory. */
void cprint_mem(struct cprint *p, const struct loop_mem *m);
/* "restrict " as the unit's language spells it, or "". */
const char *cprint_restrict(const struct cgen *g, const struct loop_mem *m);
/* Whether the identifier `name` stands in printed code. */
bool cgen_mentions(const char *text, const char *name);
void cprint_func(struct cgen *g, struct loop_func *f); /* and sets its stack_bytes */
/* Whether fn on vectors of t can be printed as one vector expression. */
bool cprint_vector_fn(const struct cgen *g, enum scalar_fn fn, enum dtype t);
const char *cprint_number(struct cgen *g, enum dtype t, double f, int64_t i);
/* "int" for a register that lx_range bounds, where indices are narrow. */
const char *cprint_index_type(const struct cprint *p, const struct loop_var *v);
const char *cprint_register_type(enum dtype t); /* f16 and bf16 are computed with as float */

/* What a body uses but does not define: it travels to an outlined function. */
struct cgen_captures {
    struct arena *arena;
    VEC(const struct loop_var *) vars;
    VEC(const struct loop_mem *) mems;
    VEC(const void *) defined;
    /* CUDA, of mems, then vars: where the device has the value; NULL: it comes by value. NULL: all do. */
    const char *const *addresses;
    const char **pointers; /* as long: names of those parameters, set by cgen_enter_parameters */
};
void cgen_capture(struct cgen_captures *c, const struct loop_block *k);
/* The names in scope, put aside while a function of its own is printed. */
struct cgen_names {
    const char **at;
    int n, cap;
};
struct cgen_names cgen_scope_replace(struct cgen *g);
void cgen_scope_restore(struct cgen *g, struct cgen_names names);

/* ---- share.c --------------------------------------------------------------------------------------------------- */

/* Prints an operation as a call where it occurs more than once in the unit; false: the caller prints it in place. */
/* The text in which equal blocks are equal; NULL where a function would not do. */
struct cgen_captures;
const char *cgen_block_key(struct cgen *g, const struct loop_block *k, const struct cgen_captures *c);
/* The captures as parameters: ", const float *x, int64_t N", named anew until they are left; and as arguments, "x, N". */
const char **cgen_enter_parameters(struct cgen *g, const struct cgen_captures *c, struct text *head);
/* The lines that read registers that come by their address; between the two. */
void cgen_read_parameters(struct cprint *p, const struct cgen_captures *c);
void cgen_leave_parameters(struct cgen *g, const struct cgen_captures *c, const char **outer);
void cgen_arguments(struct cgen *g, struct text *line, const struct cgen_captures *c);
/* "net_body_0_qkv_weight" -> "weight": what a memory is to every caller. */
const char *cgen_parameter_name(const char *name);
bool cgen_share_block(struct cprint *p, const struct loop_block *k, const char *hint);
void cgen_blocks_free(struct cgen *g);
bool cgen_uses_instance(const char *text); /* whether printed code uses `m` */

#endif
