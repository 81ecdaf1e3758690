/* A train step taken apart for training over ranks: what each rank computes from its part of the batch, and what changes by
 * sums over all ranks. The parts are functions of the module like any other, planned and printed like them. */
#ifndef MXCC_PASSES_DISTRIBUTE_H
#define MXCC_PASSES_DISTRIBUTE_H

#include "ir/ir.h"

/* A tensor that is averaged over ranks: the gradient of a parameter, or what a running statistic becomes. */
struct step_key {
    const struct ir_buffer *buffer;
    bool is_gradient;
    int group; /* which changes by it; -1: only the report reads it */
};

/* Buffers that change together, since something of more than one key, or one buffer, goes into several of them. */
struct step_group {
    struct ir_func *func; /* arguments: the step's scalars, then its keys; no results */
    int *keys;            /* ascending */
    int key_count;
};

struct step_split {
    const struct ir_func *step;
    const char *why_not; /* the step cannot be taken apart: then nothing below is set */
    struct span where;

    struct ir_func *gradients; /* arguments: the step's; results: the step's that need no sum, then the keys' tensors */
    bool *is_late;             /* [result_count of the step]: it needs a sum, and comes from `report` */
    struct ir_func
        *report; /* arguments: the step's scalars, then all keys; results: the late ones. NULL: there are none */
    struct step_key *keys;
    int key_count;
    struct step_group *groups; /* they may run in any order, but the last one, if it has no key, after all others */
    int group_count;
    int *group_of;    /* [buffer_count]: the group that changes it; -1: none */
    bool *is_carried; /* [buffer_count]: a state that each rank has for itself, as the hidden state of its texts */
    int *scalars;     /* indices of the step's scalar arguments */
    int scalar_count;
};

/* The group whose only keys are none, or -1: it runs after all others. */
int step_split_last(const struct step_split *s);

/* Private to distribute.c and distribute_build.c. */
struct step_analysis {
    struct ir_func *func;
    struct arena scratch;
    struct step_split *split;
    struct ir_op **ops; /* the operations of the body, in order */
    int op_count;
    int *op_index;                       /* [value_count] of the operation that makes a value of the body; -1 */
    bool *local, *after;                 /* [value_count]: differs between ranks; depends on an average */
    int *key_of;                         /* [value_count]: the key that a value is replaced by behind the average; -1 */
    struct ir_value **key_value;         /* [key_count]: what is averaged */
    int *group_of_op;                    /* [op_count] of writes: the group; -1 */
    bool *is_local_state, *is_statistic; /* [buffer_count] */
};
void distribute_build(struct step_analysis *a);
/* Calls fn for each value from outside that op, or an operation inside of it, uses; loss_scale.c asks, too. */
void distribute_uses(struct ir_op *op, void (*fn)(struct ir_value *, void *), void *context);

#endif
