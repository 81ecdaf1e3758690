/* The CUDA target: what stands between the loop IR and one `.cu` file. The unit is the C unit (codegen/c) but for where memory lies:
 * every value has its place on the device, the instance keeps a mirror of each buffer on the host, and an operation is the launch of
 * one or more kernels. Scalars that need nothing from the device are computed on the host, as in C.
 */
#ifndef MXCC_CODEGEN_CUDA_H
#define MXCC_CODEGEN_CUDA_H

#include "codegen/c/function_internal.h"

struct cuda_kernel { /* printed already, by its canonical text */
    const char *key, *name;
};

/* Offsets in the instance's device memory. */
struct cuda {
    int64_t *buffer; /* [buffer_count] */
    int64_t arena, cache, scalars, arguments, total;
    int64_t staging; /* bytes on the host for what print and C functions read and write */
    VEC(struct cuda_kernel) kernels;
    VEC(struct plan_kernel) launches; /* of the function that is printed; in the module's arena */
};

/* layout.c */
struct cuda *cuda_layout(struct cgen *g);
/* For each storage of a function: the number of its place among the device's scalars, -1 if it is a variable of the host or no
 * scalar at all. */
int *cuda_scalar_slots(struct cgen *g, const struct plan_func *p, int *count);
int64_t cuda_argument_offset(struct cgen *g, const struct ir_func *f, bool result, int index);

/* kernel.c: the address of a storage as the host writes it; a block of loop IR as launches and what stands between them. */
const char *cuda_base(struct function *f, const struct storage *s);
void cuda_print_block(struct function *f, struct loop_block *k);
const char *cuda_place(struct function *f); /* "model.mxl:12 loss", for messages */

/* cost.c: notes what a launch in the function's present operation moves and computes; and leaves all of them in the function's plan. */
void cuda_note_launch(struct function *f, const char *name, const struct cgen_captures *c);
void cuda_keep_launches(struct function *f);

/* transfer.c: what moves between host and device around and within a function. */
void cuda_arguments(struct function *f);
void cuda_results(struct function *f);
/* A rank 0 value of the device as a variable of the host, read at this point. */
const char *cuda_fetch(struct function *f, const struct loop_mem *m);
/* Lets a memory's contents be read on the host until the operation ends; and takes back what was written there. */
void cuda_stage(struct function *f, const struct ir_value *v, struct loop_mem *m);
void cuda_unstage(struct function *f, const struct ir_value *v, const struct loop_mem *m);

#endif
