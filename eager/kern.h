/* The nest interpreter, private to eager/.
 *
 * A kern evaluates scalar expressions over an iteration space in blocks: some of the nest's indices, flattened in
 * row-major order, are the lanes; the others are loops around or inside the loop over blocks of VEC_LANES lanes. Every
 * node of the expression DAG has a register and is evaluated at the level of the innermost loop it depends on, once for
 * all lanes. An affine load is a base and a stride for each run of lanes that are equally spaced in memory (contiguous
 * runs that fill the block are used where they lie); its bounds are met by cutting the run, not by a test for each
 * element. */
#ifndef MXCC_EAGER_KERN_H
#define MXCC_EAGER_KERN_H

#include "base/arena.h"
#include "eager/vector.h"
#include "ir/ir.h"

enum { NEST_MAX_INDICES = 64 };

/* What the nest's kerns share: the nest under the run-time values of the dimensions. */
struct nest_context {
    struct arena *arena;
    const struct vec_table *table;
    struct ir_module *module;
    const struct ir_op *op;
    const struct ir_nest *nest;
    int indices;
    int64_t lo[NEST_MAX_INDICES], extent[NEST_MAX_INDICES]; /* ragged: 0 and the upper bound */
    bool ragged[NEST_MAX_INDICES];
    const int64_t *symbols; /* values by symbol id */
    int64_t **operand_dims; /* [operand_count][rank] */
    const void **data;      /* [operand_count], set before each run */
    void **acc_data;        /* [acc_count]: accumulators over the parallel indices */
};

/* c + sum coefficient * index + sum coefficient * register, over the current iteration. */
struct lin {
    int64_t c;
    int count;
    int *index;
    int64_t *coefficient;
    int64_t *lane; /* [kern->lane_count] */
    int uniform_count, vector_count;
    int *uniform, *vector; /* nodes */
    int64_t *uniform_coefficient, *vector_coefficient;
};

/* An element's offset with its bounds checks; the last lanes, from `prefix` on, form runs of equal steps. */
struct addr {
    struct lin offset;
    int checks;
    struct lin *check;
    int64_t *extent;
    int prefix;
    int64_t run; /* lanes in a run */
};

struct kern_node {
    ir_expr e;
    enum dtype dtype;
    enum vec_kind kind;
    uint64_t deps;   /* of indices */
    bool lane;       /* depends on the lanes */
    bool splatted;   /* a constant's copies were made */
    int64_t divisor; /* of an i64 division or remainder by a positive constant, else 0 */
    int level;
    int arg[3];
    struct addr *addr; /* LOAD, ACC; INDEX: its value as `offset` */
    void *value;       /* this evaluation's: buf or memory */
    void *buf;         /* own register */
    void *splat[3];    /* uniform arguments of three-argument functions, for all lanes */
    vec_fn fn;
};

enum { LOOP_BLOCKS = -1 };

struct kern {
    struct nest_context *c;
    int lane_count;
    int lanes[NEST_MAX_INDICES];
    int64_t lane_extent[NEST_MAX_INDICES];
    int64_t lane_total; /* set anew for a ragged lane */
    uint64_t lane_mask;
    int loop_count;
    int loops[NEST_MAX_INDICES + 1]; /* index or LOOP_BLOCKS */
    int index_level[NEST_MAX_INDICES], block_level;
    VEC(struct kern_node) nodes;
    int **levels, *level_count; /* node numbers by level */
    /* the current iteration */
    int64_t index[NEST_MAX_INDICES];      /* of a lane: its lower bound */
    int64_t coordinate[NEST_MAX_INDICES]; /* of the lanes at the block's start */
    int64_t begin, count;
    int64_t *offsets; /* scratch [VEC_LANES] */
    uint8_t *ok;
    void *scratch;
};

struct kern *kern_new(struct nest_context *c, const int *lanes, int lane_count, const int *loops, int loop_count);
int kern_add(struct kern *k, ir_expr e); /* its node */
/* The address of operand-like memory of the given extents at index expressions; checked: out-of-range accesses are cut.
 */
struct addr *kern_address(struct kern *k, int rank, const int64_t *dims, const ir_expr *at, uint64_t *deps);
void kern_finish(struct kern *k);       /* after the last kern_add */
double kern_cost(const struct kern *k); /* estimated nanoseconds */

void kern_block(struct kern *k, int64_t begin);       /* sets the block */
void kern_level(struct kern *k, int level);           /* evaluates its nodes */
void kern_all(struct kern *k);                        /* every level */
int64_t kern_integer(const struct kern *k, int node); /* a uniform integer node's value */
/* The node's value for all lanes of the block. */
const void *kern_lanes(struct kern *k, int node);
void kern_store(struct kern *k, const struct addr *a, int node, enum dtype t, void *data, bool add);
/* The same from a register. */
void kern_store_register(struct kern *k, const struct addr *a, const void *r, enum dtype t, void *data, bool add,
                         bool lane);

/* ---- nest.c ---- */

struct nest_plan;
struct nest_run {
    const void **operands; /* data of each */
    void **results;        /* where they go; a result with a base holds the base's elements already */
    const int64_t *symbols;
};
/* Plans for the given dimensions; NULL only without memory. */
struct nest_plan *nest_plan_new(const struct ir_op *op, const int64_t *symbols, const struct vec_table *table);
bool nest_plan_fits(const struct nest_plan *p, const int64_t *symbols); /* planned for these values */
/* False without memory. */
bool nest_plan_run(struct nest_plan *p, const struct nest_run *r);
void nest_plan_free(struct nest_plan *p);

/* ---- gemm.c ---- */

struct gemm;
/* The accumulator as a matrix product, or NULL if it is none or too small to pay. */
struct gemm *gemm_new(struct nest_context *c, int acc);
bool gemm_run(struct gemm *g, void *out);

#endif
