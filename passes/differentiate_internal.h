/* What the files of the differentiate pass share: the state of one expansion and the frames of reversed regions. */
#ifndef MXCC_PASSES_DIFFERENTIATE_INTERNAL_H
#define MXCC_PASSES_DIFFERENTIATE_INTERNAL_H

#include "base/arena.h"
#include "ir/ir.h"

/* A map from value ids that grows with them. */
struct value_map {
    struct ir_value **at;
    int cap;
};

/* Reversing a region needs a frame: where its forward values live, where the adjoint code goes, and how one reaches the
 * other. TOP: everything that dominates the grad operation; LOOP: the body of a for or while; BRANCH: one side of an if;
 * RECOMPUTE: the copy of a checkpoint's region, whose forward values lie beside the adjoint code. */
enum frame_kind { FRAME_TOP, FRAME_LOOP, FRAME_BRANCH, FRAME_RECOMPUTE };

struct frame {
    struct frame *outer;
    enum frame_kind kind;
    struct ir_op *forward_op;
    struct ir_region *forward; /* reversed region; NULL for TOP */
    struct ir_region *reverse; /* where its adjoint code goes */
    struct ir_op *prologue; /* last of the operations at the start of `reverse` that bring forward values in; or NULL */
    struct value_map usable;  /* forward value -> its copy in `reverse` */
    struct value_map adjoint; /* value -> the sum so far; may hold outer values, with the sum so far outside as base */
    struct ir_value **outer_values; /* outer values whose adjoint this frame changed or carries, in order */
    int outer_count, outer_cap;
    /* LOOP */
    struct ir_op *reverse_op;
    struct ir_value *position;         /* in `reverse`: number of the iteration being undone, i64 */
    struct ir_value *forward_position; /* in `forward`: number of the iteration; NULL until needed */
    ir_dim trips;                      /* extent of the stacks that save values */
};

struct grad {
    struct ir_module *m;
    struct ir_func *func;
    struct ir_op *op;                   /* the grad operation being expanded */
    const struct pass_context *context; /* NULL: eager */
    struct arena scratch;
    struct ir_builder b; /* where adjoint code goes now */
    struct frame *frame;
    bool *varied; /* [varied_cap], by value id: a float value that depends on what is differentiated for */
    int varied_cap;
    bool failed;
};

/* differentiate.c */
bool grad_varied(const struct grad *g, const struct ir_value *v);
void grad_mark_varied(struct grad *g, struct ir_region *r, const struct ir_op *end);
void grad_reverse(struct grad *g, struct ir_region *r, struct ir_op *last); /* from `last` back to the first */

/* differentiate_frame.c */
struct ir_value *value_map_get(const struct value_map *m, const struct ir_value *v);
void value_map_set(struct grad *g, struct value_map *m, const struct ir_value *v, struct ir_value *to);
struct ir_region *grad_home(const struct ir_value *v); /* the region that defines v */
struct ir_value *grad_zeros(struct ir_builder *b, struct ir_type t);
/* The value, usable at the builder's place: itself, or a copy recomputed or saved by the forward code. */
struct ir_value *grad_use(struct grad *g, struct ir_value *v);
/* Whether grad_use costs no saving. */
bool grad_available(struct grad *g, struct ir_value *v);
bool grad_in_loop(const struct grad *g);
struct ir_value *grad_adjoint(struct grad *g, struct ir_value *v); /* so far; NULL: zero */
void grad_set_adjoint(struct grad *g, struct ir_value *v, struct ir_value *to);
void grad_add(struct grad *g, struct ir_value *v, struct ir_value *contribution);
/* Adds a carried value to a for or while; returns the argument of its body. The yield is NULL until it is set. */
struct ir_value *loop_add_carried(struct grad *g, struct ir_op *loop, struct ir_value *init, const char *name);
void region_add_yield(struct ir_module *m, struct ir_region *r, struct ir_value *v);

/* differentiate_nest.c */
void grad_nest(struct grad *g, struct ir_op *op);

/* differentiate_scalar.c */
struct scalar_adjoint {
    ir_expr leaf; /* LOAD or ACC */
    ir_expr adjoint;
};
struct scalar_reverse {
    struct grad *g;
    struct ir_op *nest;
    bool *acc_active;
    ir_expr (*stored)(void *context, ir_expr e); /* a load of e where the forward nest has it as a result, else NULL */
    void *context;
    struct scalar_adjoint *found; /* out */
    int found_count, found_cap;
};
bool scalar_active(struct scalar_reverse *s, ir_expr e);
void scalar_reverse(struct scalar_reverse *s, const ir_expr *roots, const ir_expr *seeds, int n);

/* differentiate_index.c */
struct domain_index {
    const char *name;
    ir_dim extent;
    ir_expr lo, hi; /* NULL: 0 .. extent */
};
/* Adds to the adjoint of slots[load->index] what all iterations of the domain give: adjoint expression d at the place
 * that the load reads. Expressions are over the domain's indices; loads refer to slots. */
void grad_load(struct grad *g, struct domain_index *domain, int n, struct ir_value **slots, int slot_count,
               ir_expr load, ir_expr d);
/* Whether different points of the domain give different targets (proven). */
bool grad_injective(struct grad *g, struct domain_index *domain, int n, const ir_expr *target, int rank);

/* A nest at the builder's place: index numbers as in `indices` (pars first). One result, reduced by SUM if reds. Loads
 * refer to slots; operands are the slots used, brought in by grad_use. With base: an update of it. */
struct ir_value *grad_build(struct grad *g, struct ir_nest_index *indices, int pars, int reds, struct ir_value **slots,
                            int slot_count, ir_expr value, struct ir_value *base, enum combine combine,
                            const ir_expr *target);
ir_expr grad_inside(struct ir_module *m, struct ir_value **slots,
                    ir_expr load); /* whether a load is inside its operand */

/* differentiate_control.c, differentiate_ops.c */
void grad_if(struct grad *g, struct ir_op *op);
void grad_loop(struct grad *g, struct ir_op *op);
void grad_checkpoint(struct grad *g, struct ir_op *op);
void grad_kernel(struct grad *g, struct ir_op *op);
void grad_sort(struct grad *g, struct ir_op *op);
void grad_scan(struct grad *g, struct ir_op *op);
struct ir_value **grad_resolve_buffers(struct grad *g, struct ir_op *op);

#endif
