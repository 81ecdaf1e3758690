/* The passes between elaboration and code generation, and what they leave behind: the IR in its final order and a plan. */
#ifndef MXCC_PASSES_PASSES_H
#define MXCC_PASSES_PASSES_H

#include "base/text.h"
#include "ir/ir.h"
#include "passes/distribute.h"

enum target_kind { TARGET_C, TARGET_CUDA };
/* How products are computed and values between operations stored; TF32 changes no IR. */
enum precision { PRECISION_F32, PRECISION_TF32, PRECISION_BF16, PRECISION_F16 };
/* The loss scale stays within these, so that neither it nor its inverse leaves f32, even if no gradient is ever finite. */
#define LEAST_LOSS_SCALE   0x1p-30
#define LARGEST_LOSS_SCALE 0x1p30
enum weights_mode {
    WEIGHTS_INIT,
    WEIGHTS_SOURCE,
    WEIGHTS_FILE,
    WEIGHTS_CALLER
}; /* INIT: from initializers, the default */

/* What the command line decides about compilation. Zeroed is the default but for `name`. */
struct compile_options {
    enum target_kind target;
    const char *name;       /* prefix of every symbol */
    const char *header;     /* the header's file name, where it is not NAME.h */
    const char *library;    /* python: the shared library's file name; NULL: libNAME.so or as the system calls it */
    const char *cpu;        /* "portable" (default, NULL), "x86-64-v3", "x86-64-v4", "native", "neon" */
    int vector_bytes;       /* width of the target's vectors: from cpu; portable code is written for 32 */
    bool vector_extensions; /* GCC vector types may be used (not in portable mode) */
    bool no_runtime, threads, with_main, python, unchecked, line_directives;
    enum weights_mode weights;
    const void *const *weight_data; /* WEIGHTS_SOURCE: [buffer_count] the initial value of each buffer */
    bool blas, cublas, cudnn, nccl;
    enum precision precision;
    double loss_scale;        /* F16: what the loss is multiplied by at first; 0: 65536 */
    int64_t loss_scale_steps; /* F16: steps with finite gradients until it doubles; 0: 2000 */
    int64_t memory_limit;     /* bytes; 0: none */
    /* What of it is left for the arena: what recomputation tries to reach, and where it cannot, what is left once all that can leave the
     * device's memory has left it. 0: no limit. */
    int64_t arena_limit, arena_limit_alone;
    bool plan_best;
    bool no_recompute; /* nothing is computed twice */
    bool no_ranks;     /* with_main: the program trains in one process only */
    int split;
    bool verify; /* run the verifier after every pass */
    bool explain_copies, gradient_overwrite_error;
    int64_t drop_copy; /* the number of a copy to leave out, wrongly, to see that it is needed; 0: none */
    const char *print_after, *stop_after;
    bool time_passes;
    FILE *dump; /* where print_after and explain_copies write; stderr if NULL */
};

/* ---- the plan --------------------------------------------------------------------------------------------------- */

enum storage_kind {
    STORAGE_ARENA,  /* offset in the instance's arena */
    STORAGE_BUFFER, /* a param's or state's own memory */
    STORAGE_ARG,    /* the caller's memory for argument `index` (read only unless inout) */
    STORAGE_RESULT, /* the caller's memory for result `index` */
    STORAGE_CONST,  /* static const data in the unit; `op` is the const operation */
    STORAGE_SCALAR, /* rank 0: a local C variable */
    STORAGE_CACHE,  /* offset in the function's cache: kept from call to call */
};

/* One piece of memory and the values that live in it (versions updated in place, reshapes), or what the kernel of one
 * operation works in: then kind is ARENA and op the operation. */
struct storage {
    int id;
    enum storage_kind kind;
    int index; /* ARG, RESULT */
    struct ir_buffer *buffer;
    struct ir_op *op;
    int64_t bytes;    /* at upper bounds */
    int64_t offset;   /* ARENA: multiple of 64 */
    int lower, upper; /* ARENA: lives in [lower, upper) of the function's positions (plan_func.positions) */
    const char *name; /* after its source name, for readers and generated code */
};

struct plan_copy {        /* --explain copies */
    struct ir_op *write;  /* the operation that would have been in place */
    struct ir_op *reader; /* the later read that forbids it; NULL: a check may still fail */
    int64_t bytes;
    const char *name; /* of the value copied */
    const char *why, *help;
    bool gradient; /* it is the gradient that reads the old value */
};

/* An incremental function: groups of operations that run together or not at all, and what makes each run. */
enum { INCREMENTAL_GROUPS = 64 }; /* at most */
enum {
    INCREMENTAL_ALWAYS = -1,   /* effects, and what depends on them: on every call */
    INCREMENTAL_HANDOVER = -2, /* copies of results into the caller's memory: on every call, not counted */
    INCREMENTAL_NONE = -3,     /* inputs, buffers, constants, sizes */
};
enum incremental_source_kind { INCREMENTAL_INPUT, INCREMENTAL_EXTENT, INCREMENTAL_BUFFER };
struct incremental_source {
    enum incremental_source_kind kind;
    int index;       /* argument, symbol of the function, buffer of the module */
    uint64_t groups; /* bit g: group g depends on it */
};
struct plan_incremental {
    int group_count;
    int *
        group; /* [func->value_count]: the group of what makes a value of the body, INCREMENTAL_… else; inside of an operation: its */
    struct incremental_source *sources; /* inputs, then extents, then the buffers that are read */
    int source_count;
    int64_t *input_offset; /* [arg_count] in the cache */
    int64_t input_bytes;   /* of the cache: copies of the inputs */
};
/* Whether an operation of the body is one that `…_ran()` counts, and its group. */
bool incremental_is_operation(const struct ir_op *op);
int incremental_group(const struct plan_incremental *inc, const struct ir_op *op);

/* What `order` says of a function: how its order was found, the peak of live bytes it expects (copies that `mutation` may have
 * to insert aside), and the least that any order needs. */
struct order_result {
    const struct ir_func *func;
    const char *method;  /* "source", "release", "greedy", "backward": a list schedule; "search" */
    int64_t peak, bound; /* in a plan, a bound of 0 is unknown */
};

/* What recomputation did to a function. */
struct recomputed {
    int copies;           /* operations that run a second time */
    int64_t flops;        /* of them, at upper bounds */
    int64_t bytes_before; /* the largest sum of live bytes without them */
};

/* What `precision` did to a function. */
struct precision_counts {
    int products;         /* sums of products that read 16 bits */
    int rounded;          /* f32 values that are rounded for them */
    int stored;           /* other values of 16 bits */
    int64_t stored_bytes; /* of them, at upper bounds */
};

/* A kernel as one operation launches it, at the largest dimensions; launches: in one call of the function. */
struct plan_kernel {
    const char *name;
    const struct ir_op *op; /* NULL: copies between the function's arguments and results */
    double launches, bytes, flops;
    enum dtype type; /* in which it computes */
    bool is_product; /* of matrices, or a convolution */
};

struct plan_func {
    struct ir_func *func;
    struct storage **storages;
    int storage_count;
    struct storage **of_value; /* [func->value_count]; NULL for values that are fused away or unused */
    int positions;             /* operations numbered in order, nested regions inside their operation */
    int64_t arena_bytes;       /* reached, inclusive of workspaces */
    int64_t lower_bound;       /* largest sum of live bytes over positions */
    struct order_result order; /* how the positions came about; method NULL: unknown */
    struct plan_copy *copies;
    int copy_count;
    struct plan_incremental *incremental; /* NULL: everything runs on every call */
    int64_t cache_bytes, cache_offset; /* of an incremental function: what it keeps, and where among all functions' */
    struct recomputed recomputed;
    struct precision_counts low_precision;
    int64_t workspace_bytes;     /* of the operation whose kernel needs most */
    int64_t flops;               /* set by code generation: floating-point operations at upper bounds */
    struct plan_kernel *kernels; /* set by code generation for CUDA, in the order of the launches */
    int kernel_count;
};

struct plan {
    struct arena *arena;     /* the module's */
    struct plan_func *funcs; /* [m->func_count], then init */
    int func_count;
    int64_t arena_bytes;            /* the largest of the functions': they run one at a time */
    int64_t cache_bytes;            /* the sum of the functions' */
    const struct step_split *split; /* of the train block's step; NULL: none was asked for */
    bool *is_offloaded;             /* CUDA, [buffer_count]: kept in the host's memory; NULL: none is */
};
struct plan_func *plan_of(struct plan *p, const struct ir_func *f);
struct storage *plan_workspace(const struct plan_func *p, const struct ir_op *op); /* NULL: it needs none */

/* ---- running ---------------------------------------------------------------------------------------------------- */

/* Whether a target has a kernel of its own for a kernel function. ELSEWHERE: another target has, so that its declared gradient, which
 * belongs to that kernel, is none for this one. */
enum own_kernel { OWN_NONE, OWN_HERE, OWN_ELSEWHERE };
/* OWN_HERE: its kernels may read less than all of their second and third operands (ir_op.kernel.limit). */

struct pass_context {
    struct ir_module *module;
    struct diag *diag;
    const struct compile_options *options;
    struct order_result *orders; /* [order_count], set by `order` */
    int order_count;
    const struct recomputed *recomputed;          /* set by `remat`: [func_count], then init */
    const struct precision_counts *low_precision; /* set by `precision`: [func_count], then init; NULL: all is f32 */
    struct step_split *split;                     /* set by `distribute`; NULL: none was asked for */
    struct plan *plan;                            /* set by `mutation` and `place` */
    /* Bytes of arena that the target's kernel for an operation works in; p: the function's storages, NULL before there are
     * any. NULL: no kernel needs memory. */
    int64_t (*workspace)(const struct compile_options *, const struct plan_func *p, struct ir_op *);
    /* What becomes of a kernel function; NULL: always OWN_NONE. */
    enum own_kernel (*own_kernel)(const struct compile_options *, const struct ir_op *);
};

/* A pass changes the module (true if it changed something) and reports errors to the diag. */
struct pass {
    const char *name, *text;
    bool (*run)(struct pass_context *);
};
extern const struct pass pass_table[]; /* in order; ends with a NULL name; rows of passes/passes.def */

/* All of them in order, honouring print_after, stop_after, verify. False after an error. */
bool passes_run(struct pass_context *c);

/* Single entries. */
bool pass_loss_scale(struct pass_context *);    /* f16: gradients of a scaled loss, steps that change nothing */
bool pass_distribute(struct pass_context *);    /* the train step in parts */
bool pass_simplify(struct pass_context *);      /* fold, common subexpressions, dead code, index algebra */
bool pass_differentiate(struct pass_context *); /* expands every grad operation */
bool pass_select(struct pass_context *);        /* keeps or expands kernel operations */
bool pass_prove(struct pass_context *);         /* removes checks that cannot fail */
bool pass_fuse(struct pass_context *);
bool pass_polyphase(struct pass_context *); /* strided windows by phases */
bool pass_precision(struct pass_context *); /* which values are of 16 bits */
bool pass_remat(struct pass_context *);     /* recomputation */
bool pass_rows(struct pass_context *);      /* for a GPU: nests over the same rows */
bool pass_order(struct pass_context *);
bool pass_mutation(struct pass_context *); /* in-place classes, copies */
bool pass_place(struct pass_context *);

/* Expands the grad operations of one function; used by eager too, without a context. False after an error reported to the module's
 * diag. */
bool differentiate_func(const struct pass_context *c, struct ir_func *f);
enum own_kernel pass_own_kernel(const struct pass_context *c, const struct ir_op *kernel); /* c: NULL for eager */

/* Recomputes liveness from scratch and checks that no two live storages of a plan overlap, that in-place versions are
 * not read after their overwriting, that every used value has storage,
 * that no kernel works in memory that is in use. False with a message appended to `why`. */
bool plan_validate(const struct plan_func *p, struct text *why);
/* Checks that each kernel has as much memory to work in as the target asks for. */
bool plan_validate_workspaces(const struct pass_context *c, const struct plan_func *p, struct text *why);
/* One table, id,lower,upper,size,offset: the functions run one after another and share the arena, so each begins where the time of the one before
 * it ended. */
void plan_print_csv(struct text *out, const struct plan *p);

#endif
