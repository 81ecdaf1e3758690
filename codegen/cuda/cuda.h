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

enum { CUDA_LANES = 4 }; /* streams that a part's operations are dealt to */

/* Offsets in the instance's device memory. */
struct cuda {
    int64_t *buffer;        /* [buffer_count]; of those in the host's memory, there */
    const bool *is_outside; /* [buffer_count]: in pinned memory of the host, which kernels reach; NULL: none is */
    int64_t outside;        /* bytes of it */
    int64_t arena, cache, scalars, values, arguments;
    int64_t inner_arena, inner_scalars, inner_arguments; /* of what runs inside another function: exchange.c */
    int64_t ahead[2], ahead_bytes; /* with --main: arguments of the next calls, and the size of each; 0: no such */
    int64_t total, staging;        /* staging: bytes on the host for what print and C functions read and write */
    VEC(struct cuda_kernel) kernels;
    VEC(struct plan_kernel) launches; /* of the function that is printed; in the module's arena */
    bool uses_library, uses_cudnn;    /* cuBLASLt is called; cuDNN is */
    /* Known once all functions are printed: parts that may become graphs, parts in all, the longest key, values, events. */
    int parts, part_functions, key_most, value_count, event_count;
};

enum { CUDA_VALUES = 512 }; /* at most, of a function */

struct cuda_span { /* of a text */
    size_t from, to;
};

/* A stretch of launches, while it is printed: part.c. */
struct cuda_part {
    struct text body, locals;
    VEC(struct cuda_span) launches; /* of body */
    VEC(int) values;                /* of the function's, that its kernels read */
    VEC(const char *) exact;        /* dimensions that sizes of grids do not just grow with */
    const char *where;
    bool runs_once, loops; /* loops: some launches stand in one */
};

struct cuda_unit { /* operations of a part that are one launch, or an operation alone */
    struct ir_op **ops;
    int count;
};

struct cuda_node {   /* a unit of a part, and its place among the streams */
    int lane, event; /* event: recorded behind it; -1: none */
    int *waits;      /* earlier operations on other streams */
    int wait_count;
    bool is_first; /* on its stream */
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

/* part.c: prints what can be recorded from op on; gives the first operation behind it, op itself if there is nothing. */
struct ir_op *cuda_part(struct function *f, struct ir_op *op);
/* together.c: what of a part's operations is launched together, in the order of the launches; and such a launch. */
struct cuda_unit **cuda_units(struct function *f, struct ir_op *const *ops, int count, int *units);
void cuda_launch_together(struct function *f, const struct cuda_unit *u);
/* lanes.c: streams for the units of a part; events are numbered from first_event on, *events: behind the last. */
struct cuda_node *cuda_lanes(struct function *f, struct cuda_unit *const *units, int count, int first_event,
                             int *events);
/* [count][count]: row b, column a: unit b must come after unit a, which stands before it. */
bool *cuda_after(struct function *f, struct cuda_unit *const *units, int count, struct arena *a);

/* library.c: a call of a library, and what the unit needs for cuBLASLt; convolution.c: for cuDNN (if it is called). */
void cuda_library_call(struct function *f, const struct loop_stmt *s);
struct unit;
int64_t unit_cuda_library_bytes(const struct unit *u);
void unit_cuda_library_struct(struct unit *u);
void unit_cuda_library(struct unit *u);
void unit_cuda_library_init(struct unit *u);
void unit_cuda_library_free(struct unit *u);
int64_t unit_cuda_convolution_bytes(const struct unit *u);
void unit_cuda_convolution_struct(struct unit *u);
void unit_cuda_convolution(struct unit *u);
void unit_cuda_convolution_init(struct unit *u);
void unit_cuda_convolution_free(struct unit *u);
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

/* exchange.c: a train step over ranks. Whether a function runs inside another's call; whether it is that one, which hands
 * tensors out; whether a result is one of them; its copy to the host. */
bool cuda_is_inner(const struct cgen *g, const struct ir_func *func);
bool cuda_hands_out(const struct function *f);
bool cuda_is_key(const struct function *f, int result);
void cuda_hand_out(struct function *f, int key, int result);

/* nccl.c: whether averages are made on the devices; whether an argument is one of them, which stays where it was averaged. */
bool cuda_averages(const struct cgen *g);
bool cuda_averaged_argument(const struct cgen *g, const struct ir_func *f, int arg);
int64_t unit_cuda_nccl_bytes(const struct unit *u);
void unit_cuda_nccl_struct(struct unit *u);
void unit_cuda_nccl_free(struct unit *u);
void unit_cuda_nccl_wait(struct unit *u);     /* the function that waits for a stream */
void unit_cuda_nccl_hand_out(struct unit *u); /* the function that a key leaves by */
void unit_cuda_nccl_hooks(struct unit *u);

#endif
