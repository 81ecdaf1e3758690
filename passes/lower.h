/* Lowering of nests to the loop IR. The caller says how values and symbols are reached; what comes out stands by itself. */
#ifndef MXCC_PASSES_LOWER_H
#define MXCC_PASSES_LOWER_H

#include "ir/loop.h"
#include "passes/passes.h"

struct lower {
    struct ir_module *module;
    struct loop_builder *b;
    const struct compile_options *options;
    struct ir_op *op;
    struct loop_block *out;
    int64_t flops; /* added to, at upper bounds: 2 a multiply-add */
    /* The memory of a value; values of one storage and type share it. */
    struct loop_mem *(*mem)(void *context, const struct ir_value *v);
    lx (*symbol)(void *context, const struct ir_symbol *s);
    /* Memory for the duration of the operation; local if small. */
    struct loop_mem *(*workspace)(void *context, struct loop_block *out, const char *name, enum dtype t,
                                  int64_t elements);
    /* A kernel emitted before under the key, or NULL; and the registration of a new one. */
    struct loop_func *(*shared)(void *context, const char *key);
    void (*share)(void *context, const char *key, struct loop_func *f);
    void *context;
};

/* passes/lower.c: any nest. */
void lower_nest(struct lower *l);

/* codegen/kernels: false if the nest is no product of this form or too small to gain. */
bool lower_contraction(struct lower *l);
/* The same for a GPU. */
bool lower_gpu_contraction(struct lower *l);
bool lower_gpu_tensor_product(struct lower *l);
/* Attention on a GPU: functions of stdlib/nn/attention.mxl. */
bool takes_gpu_attention(const struct compile_options *o, const struct ir_op *op);
void lower_gpu_attention(struct lower *l);
bool takes_gpu_attention_gradient(const struct compile_options *o, const struct ir_op *op);
void lower_gpu_attention_gradient(struct lower *l);
/* false unless a BLAS was asked for and the nest is a product that it takes. */
bool lower_blas(struct lower *l);
/* false unless cuBLASLt was asked for and the nest is a product that it takes. */
bool lower_cublas(struct lower *l);
/* The same for cuDNN and convolutions. */
bool lower_cudnn(struct lower *l);

/* ---- inside a nest: shared by lower.c and the kernel builders --------------------------------------------------- */

#define NEST_MAX 24 /* indices of a nest, loops around a body */

/* Expressions of a nest while its indices stand for given index arithmetic. Values that are used twice or do not change in the
 * loops around them become registers in the block of the loop they belong to. */
struct nest_scope {
    struct lower *l;
    const struct ir_nest *nest;
    lx index[NEST_MAX];  /* of each nest index */
    int level[NEST_MAX]; /* depth of the loop it changes in; 0: outside all */
    int depth;           /* of the block that is being filled */
    struct loop_block *block[NEST_MAX + 1];
    bool nonempty[NEST_MAX + 1]; /* the loop at this depth surely runs: what is loaded may move out of it */
    int generation[NEST_MAX + 1];
    lx acc[NEST_MAX];
    struct memo *memo;
    int memo_cap;
    int next_generation;
};

void nest_scope_init(struct nest_scope *n, struct lower *l);
void nest_scope_enter(struct nest_scope *n, int depth, struct loop_block *block, bool nonempty);
/* Index `i` now stands for `e`, which changes at `level`; what was computed from it is forgotten. */
void nest_scope_set(struct nest_scope *n, int i, lx e, int level);
lx nest_value(struct nest_scope *n, ir_expr e);
/* The value of e, until an index in it is set anew. */
void nest_scope_give(struct nest_scope *n, ir_expr e, lx value);
lx nest_index(struct nest_scope *n, ir_expr e); /* in index arithmetic */
lx nest_address(struct nest_scope *n, struct ir_type t, const ir_expr *at);
lx nest_dim(struct nest_scope *n, ir_dim d);
/* The indices that occur in e, as a bit set. */
uint32_t nest_uses(ir_expr e);
/* How the address of a load changes with index i: true and the stride if that is a constant. */
bool nest_stride(struct lower *l, ir_expr load, int i, int64_t *stride);
void nest_store(struct nest_scope *n, int result, lx value);
int64_t nest_flops(const struct ir_nest *nest, int results);
/* passes/lower.c: accumulators of reductions. */
bool lower_is_arg(enum reduce_op op);
lx lower_identity(struct loop_builder *b, enum reduce_op op, enum dtype t);
lx lower_combine(struct loop_builder *b, enum reduce_op op, lx sum, lx value);
void lower_extremum(struct nest_scope *n, enum reduce_op op, struct loop_var *acc, struct loop_var *position, lx value,
                    lx at);
/* How many of the last of `count` indices from `first` are one loop: every load walks them in step. 1: none are. */
int lower_flat_count(struct lower *l, int first, int count);
/* Tasks that a loop of `extent` iterations of the given work is split into: depends on the shape alone. */
int64_t lower_tasks(const struct lower *l, int64_t extent, double work);

#endif
