/* What a generated program (--main), or the eager interpreter, tells the runtime about its model: functions, buffers and
 * the train block, as static data. `mxrt_main` is the whole command line of such a program. */
#ifndef MXRT_PROGRAM_H
#define MXRT_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "mxrt/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mxrt_symbol { /* a run-time dimension; limits inclusive */
    const char *name;
    int64_t lo, hi;
};

/* An extent in `mxrt_value.shape`: >= 0 is constant; MXRT_SYMBOL(k) is symbol k; MXRT_FOUND(k) is found dimension k;
 * MXRT_COMPUTED comes from mxrt_function.extents. */
#define MXRT_SYMBOL(k) (-1 - (int64_t)(k))
#define MXRT_FOUND(k)  (-1001 - (int64_t)(k))
#define MXRT_COMPUTED  INT64_MIN

struct mxrt_value {
    const char *name;
    mx_dtype dtype;
    int rank;
    const int64_t *shape; /* [rank] as above */
    bool is_inout;
};

struct mxrt_function {
    const char *name;
    bool is_train;
    int symbol_count, found_count, arg_count, result_count;
    const struct mxrt_symbol *symbols, *found;
    const struct mxrt_value *args, *results;
    /* All extents of arguments, then of results, under dims[symbol_count]; the largest where found at run time. */
    void (*extents)(const struct mxrt_function *f, const int64_t *dims, int64_t *out);
    /* args[i], results[i]: the elements, row-major (scalars too); inout arguments are written. */
    mx_status (*call)(void *model, const struct mxrt_function *f, const int64_t *dims, void *const *args,
                      void *const *results, int64_t *found);
    void *context; /* for eager: the function */
};

/* ---- the step in parts, for training over ranks */

/* A tensor that is averaged over ranks: the gradient of a parameter, or what a running statistic becomes. */
struct mxrt_key {
    const char *name; /* of the buffer */
    int buffer, group;
    mx_dtype dtype;
    int64_t elements, row_elements;
    int64_t rows_touched; /* at most so many rows are not zeros (an embedding's gradient); 0: all may be others */
    double work;          /* floating-point operations of `gradients` before the tensor is final */
};

/* Buffers that change together, once their keys are averaged. */
struct mxrt_group {
    const int *keys;
    int key_count;
    double work; /* operations of `gradients` before it needs them; negative: it never does */
};

/* What `gradients` calls on its way. `need` runs the group if it is still to run for the step before: an error ends the call. `final`:
 * the key's tensor is complete, and not touched again before the next call's `need` of its group. */
struct mxrt_exchange {
    void *context;
    mx_status (*need)(void *context, int group);
    void (*final)(void *context, int key);
    int64_t first, total; /* of the batch over all ranks: the first sample here, and how many there are */
    float weight; /* of this rank's part; what averages on a device is scaled by it there, else by the runtime */
};

/* A rank as its device is to know it. */
struct mxrt_device_rank {
    const void *id; /* from `identify` of one rank */
    int rank, ranks;
    bool fast;                  /* sums in whatever order is fastest, else along the tree of mxrt/net.h */
    size_t bytes, bucket_bytes; /* of all keys' tensors; of the largest bucket */
    int buckets;
    /* Called again and again while the host waits for the device. average: the number of the one that waits for other ranks; 0: none does.
     * An error ends the wait, and what the ranks do together. */
    mx_status (*watch)(void *context, int64_t average);
    void *context;
};

/* How devices average among themselves (mxcc --nccl). All by the rank's own thread. What goes wrong is the model's error; what another rank
 * may have caused is MX_ERROR_PEER. */
struct mxrt_device_exchange {
    size_t id_bytes;
    int (*count)(void);                                /* devices of this machine */
    mx_status (*identify)(void *id, const char **why); /* what ranks find each other by */
    mx_status (*join)(void *model, const struct mxrt_device_rank *rank,
                      void **memory); /* of all keys' tensors, on the device */
    /* Begins the sum over ranks of elements at a place of that memory, behind what `gradients` has handed out; in the same order on all
     * ranks. */
    mx_status (*average)(void *model, int bucket, size_t at, int64_t elements, mx_dtype dtype);
    mx_status (*need)(void *model, int bucket);                           /* what is asked for later sees that sum */
    mx_status (*arrive)(void *model);                                     /* waits for all sums */
    mx_status (*clear)(void *model, int key, void *tensor, size_t bytes); /* zeros, for a rank without samples */
    void (*leave)(void *model, bool lost);                                /* lost: without the others */
};

struct mxrt_split {
    const char *why_not; /* the step cannot be taken apart; nothing else is set */
    int key_count, group_count;
    const struct mxrt_key *keys;
    const struct mxrt_group *groups; /* may run in any order; one without keys after all others */
    const int *final_order;          /* [key_count] in which `gradients` makes the keys final */
    const int *need_order;           /* [group_count] in which it needs the groups; last those that it never does */
    const int *buffer_group;         /* [buffer_count]: the group that changes it; -1: none */
    const bool *buffer_is_read;      /* [buffer_count]: `gradients` reads it */
    const bool *buffer_is_carried;   /* [buffer_count]: a state that each rank has for itself */
    const bool
        *result_is_late; /* [result_count of the step]: comes from `report`; its other results from `gradients` */
    bool has_report;
    bool counts_calls; /* `gradients` draws random numbers: a call counts, and a step counts where it is not called */
    int64_t arena;     /* bytes that `apply` and `report` work in */
    /* args, results: the step's; keys[i]: the memory of key i's tensor. */
    mx_status (*gradients)(void *model, const int64_t *dims, void *const *args, void *const *results, void *const *keys,
                           const struct mxrt_exchange *x);
    mx_status (*report)(void *model, void *arena, void *const *args, void *const *results, void *const *keys);
    mx_status (*apply)(void *model, void *arena, int group, void *const *args, void *const *keys);
    /* Of a program whose model is on a device; else NULL. Before the model is made: the device of this thread, for the rank
     * of this number on its machine. Memory that the device is to copy from and to while the program goes on; failing is allowed. */
    void (*use_device)(int local_rank);
    void (*pin)(void *memory, size_t bytes, bool on);
    mx_status (*wait)(void *model); /* until the device has read what `apply` was given */
    const struct mxrt_device_exchange
        *device; /* NULL: averages are made by the runtime. Else keys[i] are addresses on the device */
};

enum mxrt_setting_kind {
    MXRT_INT,
    MXRT_FLOAT,
    MXRT_STRING,
    MXRT_BOOL,
    MXRT_NONE,
    MXRT_NAME,
    MXRT_CALL,
    MXRT_BINARY,
    MXRT_LIST
};
struct mxrt_setting {
    enum mxrt_setting_kind kind;
    int64_t i;
    double f;
    const char *s;            /* STRING, NAME, CALL: the function; BINARY: the operator */
    const char *const *names; /* CALL: argument names, NULL by position */
    const struct mxrt_setting *const *args;
    int count;
};
struct mxrt_train_setting {
    const char *key;
    const struct mxrt_setting *value;
};

struct mxrt_program {
    const char *name;
    int function_count;
    const struct mxrt_function *functions;
    int buffer_count;
    const char *const *buffer_names; /* in order of declaration */
    const bool *buffer_is_state;
    int setting_count; /* 0: no train block */
    const struct mxrt_train_setting *settings;
    const char *directory; /* relative paths of `data` are tried here too; may be NULL */

    mx_status (*create)(const struct mxrt_program *p, void **model, uint64_t seed, int threads);
    void (*destroy)(void *model);
    const char *(*error)(const void *model);
    mx_status (*buffer)(void *model, int index, mx_tensor *view); /* the view holds until the next call */
    uint64_t (*calls)(const void *model);                         /* the instance's call counter */
    void (*set_calls)(void *model, uint64_t calls);
    void *context;
    const struct mxrt_split *split; /* of the train block's step; NULL: not in this program */
    /* mxrt_gunzip (mxrt/gzip.h) where the program is to read gzip and npz files, which needs zlib; else NULL. */
    mx_status (*gunzip)(const void *packed, size_t bytes, int wrapped, void **out, size_t *out_bytes);
    /* Of a model with memory of its own (a GPU): begins to bring arguments there that a call of f will be given, beside the call under
     * way; from the thread that made them. args[i]: `bytes[i]` of them, NULL: none; until that call they stay as they are. args NULL: none
     * of those brought so far will be asked for. NULL: there is nothing to gain. */
    void (*ahead)(void *model, const struct mxrt_function *f, void *const *args, const size_t *bytes);
};

/* Runs a command line; the exit status: 0, 1 (an error), 2 (usage), 130 (interrupted, everything saved). */
int mxrt_main(const struct mxrt_program *p, int argc, char **argv);

#ifdef __cplusplus
}
#endif
#endif
