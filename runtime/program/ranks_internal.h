/* A rank at work: shared by ranks.c (opening, collectives), rank_step.c (a step) and the ways in which averages are made:
 * rank_buckets.c, or rank_device.c where devices make them, rank_servers.c, rank_shards.c. */
#ifndef MXRT_RANKS_INTERNAL_H
#define MXRT_RANKS_INTERNAL_H

#include "mxrt/array.h"
#include "ranks.h"

enum { HOST = 64 };
enum { SCALARS = 64, STATUS_HEAD = 3 }; /* of the status: votes to stop, samples, labels; then results */

/* How a key's tensor meets those of the other ranks, and what it does then. All are called by the rank's own thread. */
struct ranks_way {
    mx_status (*open)(struct ranks *r, void *model, struct mxrt_why *why); /* when the model has its first values */
    void (*close)(struct ranks *r);
    mx_status (*begin)(struct ranks *r);    /* a step */
    void (*send)(struct ranks *r, int key); /* its tensor is final, and scaled by `weight`; key_count: the status */
    mx_status (*computed)(struct ranks *r); /* all are */
    mx_status (*wait)(struct ranks *r, int group); /* until what the group needs has arrived */
    mx_status (*change)(struct ranks *r, int group);
    bool (*all_arrived)(struct ranks *r); /* does not wait */
    mx_status (*arrive)(struct ranks *r); /* until everything has, the status too */
    mx_status (*collect)(struct ranks *r, void *model,
                         struct mxrt_why *why); /* the whole state into every model; NULL: it is there */
    bool undoes;                                /* a step that was not complete can be undone by this rank alone */
};
extern const struct ranks_way ranks_buckets, ranks_device, ranks_servers, ranks_shards;

struct ranks {
    const struct mxrt_program *p;
    const struct mxrt_split *split;
    const struct mxrt_function *step;
    struct ranks_options options;
    struct ranks_schedule schedule;
    const struct ranks_way *way;
    void *own; /* of the way */
    struct mxrt_net *net;
    struct mxrt_engine *engine;
    struct mxrt_kvstore *kv;
    int rank, size;
    char (*hosts)[HOST]; /* [size] names of the machines */

    size_t memory_bytes;
    unsigned char
        *memory; /* all keys' tensors in the order in which they become final, then the status; the status alone where
                              tensors are on a device */
    void **keys;
    size_t *offset;        /* [key_count + 1] by key, as if all were in one memory; the last one: of the status */
    double *status_vector; /* not f32: it is never compressed, and counts are exact */
    int status_count;
    float *
        residual; /* of all keys, where they lie in `memory`: what compression left out; NULL: there is no compression */
    size_t residual_bytes;
    unsigned char *arena;

    void *model;       /* of the call under way */
    float weight;      /* of this rank's part */
    uint64_t steps;    /* begun */
    uint64_t counted;  /* of them, those that the caller knows of */
    uint64_t blocking; /* collectives asked for that block */
    double seconds;    /* of the shortest call of gradients, without waiting */
    double waited;     /* in this one */
    bool in_step, pending, told, arrived, failed;
    bool *applied, *is_copied; /* [group_count] */
    double scalars[SCALARS];   /* of the step under way; elements of any type */
    void *args[SCALARS];
    unsigned char **copies;     /* [buffer_count] of what groups changed too early; NULL until needed */
    unsigned char **carried[2]; /* [buffer_count] before the step being computed, and the one before it */
    uint64_t calls[2];
    int slot; /* of carried and calls: the step being computed */
    struct ranks_done done;
    struct mxrt_why why;
};

/* Places: keys in their final order, then the status, whose key is NULL. */
static inline const struct mxrt_key *ranks_key_at(const struct ranks *r, int place) {
    return place < r->split->key_count ? &r->split->keys[r->split->final_order[place]] : NULL;
}
static inline int ranks_key_number(const struct ranks *r, int place) {
    return place < r->split->key_count ? r->split->final_order[place] : r->split->key_count;
}
/* rank_buckets.c: the place behind a bucket that starts at `place`: full at `most` bytes, or at half of what is left. */
int ranks_bucket_end(const struct ranks *r, int place, size_t most);
/* Numbers what travels in a step, below 2^32: a later step's may be under way elsewhere, but not one 2^16 steps later. */
static inline uint64_t ranks_id(const struct ranks *r, int what) {
    return (r->steps & 0xffff) << 16 | (uint64_t)what;
}
/* Whether a rank copies what a step changes too early. Not from a device: the copies would take longer than the step. */
static inline bool ranks_undoes(const struct ranks *r) {
    return r->way->undoes && !r->split->use_device;
}
/* The earlier a group is needed, the larger. */
int ranks_priority(const struct ranks *r, int group);
/* The buffers that change with a group, copied out or back. */
mx_status ranks_copy_buffers(struct ranks *r, const bool *which, unsigned char **copies, bool back);
/* An error of the step that is under way. */
mx_status ranks_failed(struct ranks *r, mx_status status);
/* rank_device.c: the same, of the device: what the net knows of a lost rank is said instead of what the device saw of it. */
mx_status ranks_device_failed(struct ranks *r, mx_status status);
/* Until what was pushed on v has ended; nothing more is waited for once something failed. */
mx_status ranks_wait(struct ranks *r, struct mxrt_var v);
/* A gradient as its rows that are not zero (rank_rows.c). Whether those of so many ranks together are few: at most half of the tensor. */
bool ranks_rows_pay(const struct mxrt_key *k, int ranks);
/* Memory for them; v has the tensor's type and elements. */
mx_status ranks_rows_open(const struct mxrt_key *k, int ranks, struct mxrt_kv_value *v, struct mxrt_why *why);
void ranks_rows_close(struct mxrt_kv_value *v);
void ranks_rows_gather(struct mxrt_kv_value *v, const void *tensor);
void ranks_rows_scatter(const struct mxrt_kv_value *v, void *tensor);
/* A group's own function. */
mx_status ranks_apply(struct ranks *r, void *model, int group, void *const *args, void *const *keys);

#endif
