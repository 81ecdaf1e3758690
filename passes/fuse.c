/* Fusion of nests of one region. The rules, in the order they are tried on each nest, producers first:
 *
 *   inline    a producer without reduction is substituted into the loads of a consumer: always if nobody else reads it, else if
 *             it is cheap, reads no more than it writes and every consumer takes it. Not where its value would be computed many
 *             times over (broadcasts, the bodies of reductions) unless that costs next to nothing.
 *   epilogue  a nest without reduction that reads another's result only at its own indices over the same extents is joined
 *             to it: bias, activation, residual behind a product; the parts of an optimizer's step.
 *             If its only reader takes its elements in another order (a transposition), it is made in that order.
 *   siblings  independent nests over the same indices that load the same elements become one with several results.
 *
 * Products and convolutions (sums of products of two loads with re-use) keep that shape, because they get kernels of their
 * own: only views go into their operands.
 *
 * Nothing here changes a bit of a result: expressions are substituted, never reassociated, and a value's rounding is part of
 * its expression. In-place updates come before fusion: no join may move the read of an old version behind the operation that
 * overwrites it, nor make an update read other elements of what it writes.
 *
 * In an incremental function what runs again after different changes stays apart, but for cheap elementwise producers.
 *
 * Order in the region stands in for reachability: an operation depends only on earlier ones, so "comes later" is the safe
 * approximation of "may depend on". Everything is near linear in the number of nests.
 */
#include "passes/fuse_internal.h"
#include "passes/mutation/incremental.h"
#include "passes/nest_edit.h"
#include "passes/passes.h"
#include "passes/simplify_internal.h"

enum { ROUNDS = 3 };

/* What is read, constants and scalars computed from them alone come first: then nothing that uses them waits for its place. */
static void hoist_scalars(struct ir_region *r, struct arena *a) {
    struct ir_op *anchor = NULL;
    bool *early = ARENA_ARRAY(a, bool, r->func->value_count + 1);
    for (struct ir_op *op = r->first, *next; op; op = next) {
        next = op->next;
        bool moves = op->code == OP_read || op->code == OP_const;
        if (op->code == OP_nest && op->nest.pars == 0 && op->nest.reds == 0) {
            bool found = false; /* a size made at run time */
            nest_walk(op, fuse_see_dim, &found);
            moves = !found;
            for (int i = 0; i < op->operand_count; i++) {
                const struct ir_value *v = op->operands[i];
                moves &= !v->op || v->op->parent != r || early[v->id];
            }
        }
        if (!moves) {
            anchor = anchor ? anchor : op;
            continue;
        }
        for (int i = 0; i < op->result_count; i++)
            early[op->results[i]->id] = true;
        if (anchor)
            ir_op_move_before(op, anchor);
    }
}

static void fuse_region(struct fuse *f, struct ir_region *r) {
    VEC(struct ir_op *) ops = {0};
    for (struct ir_op *op = r->first; op; op = op->next)
        VEC_PUSH(&f->arena, ops, op);
    for (int i = 0; i < ops.n; i++) {
        struct ir_op *op = ops.at[i];
        if (!fuse_alive(op))
            continue;
        for (int k = 0; k < op->region_count && op->code != OP_kernel; k++)
            fuse_region(f, op->regions[k]);
        if (op->code != OP_nest)
            continue;
        for (int s = 0; s < op->operand_count;)
            s = fuse_inline_slot(f, op, s) ? 0 : s + 1;
        for (int s = 0; s < op->operand_count;)
            s = fuse_join_producer(f, op, s) ? 0 : s + 1;
    }
    fuse_siblings(f, r);
}

static bool fuse_func(struct ir_module *m, struct ir_func *func) {
    struct fuse f = {.module = m, .func = func};
    struct arena *a = &f.arena;
    if (func->is_incremental)
        f.dirty = incremental_dirty_sets(func, a);
    hoist_scalars(func->body, a);
    fuse_number(&f);
    fuse_region(&f, func->body);
    arena_free(a);
    return f.changed;
}

/* What fusion brings together is simplified, and what that makes smaller fused again. */
static bool fuse_and_simplify(struct ir_module *m, struct ir_func *func) {
    bool changed = false;
    for (int round = 0; round < ROUNDS; round++) {
        bool fused = fuse_func(m, func);
        bool simplified = simplify_fused(func);
        changed |= fused || simplified;
        if (!simplified || !fused)
            break;
    }
    return changed;
}

bool pass_fuse(struct pass_context *c) {
    bool changed = false;
    for (int i = 0; i < c->module->func_count; i++)
        changed |= fuse_and_simplify(c->module, c->module->funcs[i]);
    if (c->module->init)
        changed |= fuse_and_simplify(c->module, c->module->init);
    return changed;
}
