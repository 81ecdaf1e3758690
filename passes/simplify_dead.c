/* Dead code by mark and sweep from what has an effect: writes, checks, prints, C calls and the function's yields. A carried
 * value of a loop lives only if its result or its argument does, so that values that only feed themselves die. */
#include <string.h>

#include "passes/nest_edit.h"
#include "passes/simplify_internal.h"

struct marks {
    struct arena scratch;
    bool *live; /* by value id */
    VEC(struct ir_value *) work;
};

static void mark(struct marks *s, struct ir_value *v) {
    if (!s->live[v->id]) {
        s->live[v->id] = true;
        VEC_PUSH(&s->scratch, s->work, v);
    }
}

static bool has_effect(const struct ir_op *op) {
    if (op->code == OP_grad)
        return false;
    if (ir_optable[op->code].effect != EFFECT_PURE && ir_optable[op->code].effect != EFFECT_READS)
        return true;
    for (int i = 0; i < op->region_count; i++)
        for (const struct ir_op *in = op->regions[i]->first; in; in = in->next)
            if (has_effect(in))
                return true;
    return false;
}

static bool is_loop(const struct ir_op *op) {
    return op->code == OP_for || op->code == OP_while;
}

/* Operands of an operation that must run, but not a loop's initial values: they live with what carries them. */
static void mark_op(struct marks *s, struct ir_op *op) {
    int n = op->code == OP_for ? 2 : op->code == OP_while ? 0 : op->operand_count;
    for (int i = 0; i < n; i++)
        mark(s, op->operands[i]);
    if (op->code == OP_while)
        for (int i = 0; i < op->regions[0]->yield_count; i++)
            mark(s, op->regions[0]->yields[i]);
    if (op->code == OP_kernel)
        for (int r = 0; r < op->region_count; r++)
            for (int i = 0; i < op->regions[r]->yield_count; i++)
                mark(s, op->regions[r]->yields[i]);
}

static void mark_roots(struct marks *s, struct ir_op *op) {
    if (!has_effect(op))
        return;
    mark_op(s, op);
    if (!op->region_count)
        for (int i = 0; i < op->result_count; i++)
            s->live[op->results[i]->id] = true;
}

static void visit_roots(struct ir_op *op, void *context) {
    mark_roots(context, op);
}

static void mark_carried(struct marks *s, struct ir_op *loop, int k) {
    mark(s, loop->operands[(loop->code == OP_for ? 2 : 0) + k]);
    if (loop->code == OP_while) {
        mark(s, loop->regions[1]->yields[k]);
        mark(s, loop->regions[1]->args[k]);
        mark(s, loop->regions[0]->args[k]);
    } else {
        mark(s, loop->regions[0]->yields[k]);
        mark(s, loop->regions[0]->args[k + 1]);
    }
    mark(s, loop->results[k]);
}

static void propagate(struct marks *s, struct ir_value *v) {
    struct ir_op *op = v->op;
    if (!op) {
        op = v->region->op;
        if (op && is_loop(op)) {
            int k = v->index - (op->code == OP_for);
            if (k >= 0)
                mark_carried(s, op, k);
            mark_op(s, op);
        }
        return;
    }
    /* what encloses it must run */
    for (struct ir_op *up = op->parent->op; up; up = up->parent->op)
        mark_op(s, up);
    mark_op(s, op);
    if (is_loop(op))
        mark_carried(s, op, v->index);
    else if (op->code == OP_if || op->code == OP_checkpoint)
        for (int r = 0; r < op->region_count; r++)
            mark(s, op->regions[r]->yields[v->index]);
}

/* ---- sweep -------------------------------------------------------------------------------------------------------- */

static bool any_live(const struct marks *s, const struct ir_op *op) {
    for (int i = 0; i < op->result_count; i++)
        if (s->live[op->results[i]->id])
            return true;
    return false;
}

static void *without(void *array, size_t size, int n, int k) {
    memmove((char *)array + size * (size_t)k, (char *)array + size * (size_t)(k + 1), size * (size_t)(n - k - 1));
    return array;
}

static void drop_value(struct ir_value **values, int *n, int k) {
    without(values, sizeof *values, *n, k);
    --*n;
}

static void renumber(struct ir_value **values, int n) {
    for (int i = 0; i < n; i++)
        values[i]->index = i;
}

/* Removes result k of an if, checkpoint, for or while with what carries it. */
static void drop_result(struct ir_op *op, int k) {
    for (int r = 0; r < op->region_count; r++) {
        struct ir_region *region = op->regions[r];
        if (op->code != OP_while || r == 1)
            drop_value(region->yields, &region->yield_count, k);
        if (is_loop(op)) {
            drop_value(region->args, &region->arg_count, k + (op->code == OP_for));
            renumber(region->args, region->arg_count);
        }
    }
    if (is_loop(op))
        drop_value(op->operands, &op->operand_count, k + (op->code == OP_for ? 2 : 0));
    drop_value(op->results, &op->result_count, k);
    renumber(op->results, op->result_count);
}

static bool sweep(struct marks *s, struct ir_region *r) {
    bool changed = false;
    for (struct ir_op *op = r->last, *prev; op; op = prev) {
        prev = op->prev;
        if (!any_live(s, op) && !has_effect(op)) {
            ir_op_remove(op);
            changed = true;
            continue;
        }
        if (op->code == OP_nest && op->result_count > 1) {
            bool *keep = ARENA_ARRAY(&s->scratch, bool, op->result_count), all = true;
            for (int k = 0; k < op->result_count; k++)
                all &= keep[k] = s->live[op->results[k]->id];
            if (!all) {
                nest_keep_results(op, keep);
                changed = true;
            }
        }
        if (op->code == OP_if || op->code == OP_checkpoint || is_loop(op))
            for (int k = op->result_count - 1; k >= 0; k--)
                if (!s->live[op->results[k]->id]) {
                    drop_result(op, k);
                    changed = true;
                }
        if (op->code != OP_kernel)
            for (int i = 0; i < op->region_count; i++)
                changed |= sweep(s, op->regions[i]);
    }
    return changed;
}

static void kernel_bodies(struct ir_op *op, void *context) {
    struct marks *s = context;
    if (op->code == OP_kernel)
        for (int i = 0; i < op->region_count; i++)
            for (int k = 0; k < op->regions[i]->yield_count; k++)
                mark(s, op->regions[i]->yields[k]);
}

bool simplify_dead(struct ir_func *f) {
    struct marks s = {0};
    s.live = ARENA_ARRAY(&s.scratch, bool, f->value_count + 1);
    ir_walk_ops(f->body, visit_roots, &s);
    ir_walk_ops(f->body, kernel_bodies, &s);
    for (int i = 0; i < f->body->yield_count; i++)
        mark(&s, f->body->yields[i]);
    while (s.work.n)
        propagate(&s, s.work.at[--s.work.n]);
    bool changed = sweep(&s, f->body);
    arena_free(&s.scratch);
    return changed;
}
