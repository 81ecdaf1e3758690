/* The function being printed: shared by function.c, function_values.c (storage), function_control.c (control flow) and ops.c (single
 * operations). */
#ifndef MXCC_CODEGEN_C_FUNCTION_INTERNAL_H
#define MXCC_CODEGEN_C_FUNCTION_INTERNAL_H

#include "codegen/c/c_internal.h"
#include "passes/lower.h"
#include "passes/mutation/deps.h"

struct cuda_value { /* a variable of the host, or an expression, by its text */
    const char *text, *type;
};

struct op_mem { /* of the operation being printed: one pointer per storage and type */
    const struct storage *storage;
    enum dtype dtype;
    struct loop_mem *mem;
};

struct function {
    struct cgen *g;
    struct plan_func *plan;
    const struct ir_func *func;
    struct cprint print;
    struct loop_builder *b;
    struct text locals;       /* declarations at the top: scalars, found dimensions */
    const char **scalar_name; /* [storage_count] of SCALAR storages */
    bool *scalar_declared;
    const char **scalar_type;     /* CUDA, [storage_count] of those of the host that the function itself has declared */
    struct loop_var **symbol_var; /* [module->symbol_count] */
    VEC(struct op_mem) mems;
    VEC(struct loop_mem *) pointers;  /* to be declared in the operation's block, in order of first use */
    const char *hint;                 /* a name for the operation, if it becomes a function */
    int scope;                        /* names in use where the operation began */
    const struct ir_op *op;           /* the operation being printed */
    int64_t workspace;                /* bytes of its workspace that are given out */
    int *slot;                        /* CUDA, [storage_count]: places of scalars on the device, cuda_scalar_slots */
    bool host;                        /* CUDA: the operation is computed on the host */
    int64_t staged;                   /* CUDA: bytes of staging that the operation has taken */
    struct cuda_part *part;           /* CUDA: where launches are recorded; NULL: they stand in the function itself */
    const struct cuda_unit *together; /* CUDA: what the operation is launched with; NULL: nothing */
    int lane;                         /* CUDA: the stream of the operation */
    struct deps *deps;                /* CUDA: made when they are first asked for */
    VEC(const char *) counters;       /* CUDA: of the loops around, where these are the function's own */
    VEC(struct cuda_value) values;    /* CUDA: what kernels read from the device that the host puts there */
    double repeat; /* largest number of runs of the region that is printed; of a loop without a bound: 1 */
    double flops;
};

/* ---- function_values.c ---- */

_Noreturn void function_bug(const struct function *f, const char *what);
struct storage *function_storage(struct function *f, const struct ir_value *v);
struct loop_mem *function_mem(void *f, const struct ir_value *v);
struct loop_mem *function_workspace(void *f, struct loop_block *out, const char *name, enum dtype t, int64_t elements);
lx function_symbol(void *f, const struct ir_symbol *s);
lx function_dim(struct function *f, ir_dim d);
lx function_elements(struct function *f, struct ir_type t);
/* The value of a rank 0 value. */
lx function_scalar(struct function *f, const struct ir_value *v);
/* A variable or an argument of the function, not an address. */
bool function_by_value(const struct function *f, const struct storage *s);
const char *function_expr(struct function *f, lx e); /* as text */
/* The C variable of a SCALAR storage, declared at the top of the function on first use. Its name was taken at the start, so
 * that no operation's pointer has it. */
const char *function_scalar_variable(struct function *f, const struct storage *s, enum dtype t);

/* ---- function.c ---- */

void function_comment(struct function *f, const struct ir_op *op);
/* Lowers a nest, or what the target has kernels of its own for, into k. */
void function_lower(struct function *f, struct ir_op *op, struct loop_block *k);
/* Starts an operation: forgets the pointers of the one before. */
void function_begin(struct function *f);
/* Whether a memory is the device's. */
bool function_on_device(const struct function *f, const struct loop_mem *m);
/* Prints a finished block with the pointers that it uses, in a scope of its own. */
void function_finish(struct function *f, struct loop_block *k);
/* Copies a value's elements to where another value lives. */
void function_copy(struct function *f, const struct ir_value *from, const struct ir_value *to);
/* to[i] = from[i] over all elements of a type; from NULL: the one element `scalar`. */
void function_copy_elements(struct function *f, struct loop_block *k, struct ir_type t, struct loop_mem *to,
                            struct loop_mem *from, lx scalar);
void function_operation(struct function *f, struct ir_op *op);
/* CUDA: whether a nest is one of scalars that the host has and keeps; whether a value is the device's. */
bool function_on_host(struct function *f, const struct ir_op *op);
bool function_is_host_scalar(const struct function *f, const struct ir_value *v);

/* ---- function_control.c ---- */

void function_region(struct function *f, const struct ir_region *r);
void function_open_brace(struct function *f, const char *head); /* `head {` */
void function_close_brace(struct function *f);
/* A rank 0 value as an expression. */
const char *function_scalar_text(struct function *f, const struct ir_value *v);
/* Returns from the generated function with a status and a message. */
void function_fail(struct function *f, const char *status, const char *message);
void op_if(struct function *f, struct ir_op *op);
void op_for(struct function *f, struct ir_op *op);
void op_while(struct function *f, struct ir_op *op);
void op_dim(struct function *f, struct ir_op *op);

/* exchange.c: the parts of a step that was taken apart (passes/distribute.h). NULL: func is none of them. */
const struct step_split *cgen_split(const struct cgen *g, const struct ir_func *func);
const struct step_split *function_split(const struct function *f); /* of the function being printed */
/* Where `gradients` waits for what a group changes, and where a key's tensor is final; positions of the body's operations, then
 * that of the copies at the end. */
struct exchange;
struct exchange *exchange_plan(struct function *f);
void exchange_before(struct function *f, const struct exchange *x, int at);
void exchange_after(struct function *f, const struct exchange *x, int at);
int exchange_key_of_arg(const struct function *f, int arg);
/* The variable of a key's tensor, if `printed` mentions it. */
bool exchange_key(struct function *f, const char *printed, const char *name, struct ir_type t, int key, bool is_result);
/* The axis of a type that is the batch's, split over ranks: elements in front, elements behind a sample; false: none. */
bool exchange_batch(const struct function *f, struct ir_type t, ir_dim *outer, ir_dim *inner);

/* ops.c */
void op_sort(struct function *f, struct ir_op *op);
void op_scan(struct function *f, struct ir_op *op);
void op_rng(struct function *f, struct ir_op *op);
void op_print(struct function *f, struct ir_op *op);
void op_extern(struct function *f, struct ir_op *op);
/* Name of the static array; device: of CUDA's own, which the host cannot read. */
const char *cgen_const_data(struct cgen *g, const struct ir_op *op, bool device);

#endif
