/* Private to eager/: storage with reference counts, functions prepared for evaluation, the instance. */
#ifndef MXCC_EAGER_INTERNAL_H
#define MXCC_EAGER_INTERNAL_H

#include "eager/eager.h"
#include "eager/kern.h"

/* A tensor's elements; its shape is its value's type under the current dimensions. */
struct mem {
    int refs;
    bool borrowed; /* the data belong to someone else and are never written */
    size_t bytes;
    void *data;
    struct mem *next; /* in the pool */
};

/* A region's operations with what evaluation needs beside them. */
struct step {
    struct ir_op *op;
    int *release; /* values whose last use this is */
    bool *inside; /* [release_count]: the step's regions read it from outside, whenever they run */
    int release_count;
    struct code **regions;
    struct nest_plan *plan; /* of the last dimensions seen */
    bool *base_free; /* of a nest, by result: no load reads the version it starts from, nor does another result */
};
struct code {
    struct ir_region *region;
    struct step *steps;
    int step_count;
    int *cleanup; /* values of the region that no step releases */
    int cleanup_count;
};
struct eager_func {
    const struct ir_func *func;
    struct code *code;
    bool draws; /* has a rng operation */
};

struct eager {
    struct ir_module *module;
    struct arena arena;
    uint64_t seed, calls;
    const struct vec_table *table;
    int64_t *symbols;
    struct mem **buffers, **pending; /* by buffer; pending: written by the running call */
    struct tensor **tensors;         /* what eager_buffer gives: data of `buffers` */
    struct eager_func *funcs;
    int func_count;
    struct text error;
    void (*log)(void *, const char *);
    void *log_context;
    struct mem *pool[64]; /* by size class */
    size_t pooled;
    char *library;
    void *library_handle;
    /* of the running call */
    struct mem **values;
    const struct eager_func *running;
};

struct mem *mem_new(struct eager *e, size_t bytes); /* not cleared; NULL after fail() */
struct mem *mem_borrow(struct eager *e, const void *data, size_t bytes);
struct mem *mem_keep(struct mem *m);
void mem_drop(struct eager *e, struct mem *m);
int eager_fail(struct eager *e, const char *format, ...) __attribute__((format(printf, 2, 3))); /* gives 1 */

void eager_prepare(struct eager *e, struct eager_func *f, struct ir_func *func); /* prepare.c */
void eager_unprepare(struct code *c);
int eager_run_code(struct eager *e, struct code *c); /* eval.c */

int64_t eager_dims(const struct eager *e, struct ir_type t, int64_t *dims); /* its elements; dims may be NULL */

/* ops.c: operations that are no nests; status. Operands and results by value id in e->values. */
int eager_sort(struct eager *e, const struct ir_op *op);
int eager_scan(struct eager *e, const struct ir_op *op);
int eager_rng(struct eager *e, const struct ir_op *op);
int eager_print(struct eager *e, const struct ir_op *op);
/* extern.c */
int eager_extern(struct eager *e, const struct ir_op *op);
void eager_extern_close(struct eager *e);

enum { EAGER_MAX_RANK = 64 };

#endif
