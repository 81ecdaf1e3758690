/* Fusion of independent nests over the same indices that load the same elements (`siblings` in fuse.c). */
#include "passes/fuse_internal.h"
#include "passes/nest_edit.h"

enum { WINDOW = 16 }; /* siblings looked back at */

struct shared_scan {
    const struct ir_op *a, *b;
    bool found;
    ir_expr load;
};

static void match_load(ir_expr e, void *context) {
    struct shared_scan *s = context;
    if (e->kind != X_LOAD || s->found || s->a->operands[e->index] != s->b->operands[s->load->index])
        return;
    bool same = e->count == s->load->count;
    for (int i = 0; same && i < e->count; i++)
        same = e->args[i] == s->load->args[i];
    s->found = same;
}

static void try_load(ir_expr e, void *context) {
    struct shared_scan *s = context;
    if (e->kind != X_LOAD || s->found || !fuse_names(s->a, s->b->operands[e->index]) ||
        s->b->operands[e->index]->type.rank == 0)
        return;
    s->load = e;
    nest_walk(s->a, match_load, s);
}

static bool share_loads(const struct ir_op *a, const struct ir_op *b) {
    struct shared_scan s = {a, b, false, NULL};
    nest_walk(b, try_load, &s);
    return s.found;
}

static bool same_indices(const struct ir_op *a, const struct ir_op *b) {
    const struct ir_nest *x = &a->nest, *y = &b->nest;
    if (!fuse_same_extents(x, y) || x->reds != y->reds)
        return false;
    for (int i = x->pars; i < x->pars + x->reds; i++) {
        const struct ir_nest_index *u = &x->indices[i], *v = &y->indices[i];
        if (u->extent != v->extent || u->lo != v->lo || u->hi != v->hi)
            return false;
    }
    return true;
}

static void see_any_load(ir_expr e, void *context) {
    *(bool *)context |= e->kind == X_LOAD;
}

static bool bounds_load(const struct ir_op *op) {
    bool found = false;
    for (int i = op->nest.pars; i < op->nest.pars + op->nest.reds; i++) {
        if (op->nest.indices[i].lo)
            ir_expr_walk(op->nest.indices[i].lo, see_any_load, &found);
        if (op->nest.indices[i].hi)
            ir_expr_walk(op->nest.indices[i].hi, see_any_load, &found);
    }
    return found;
}

/* a stands before b. Joined into b's operation. */
static bool join_siblings(struct fuse *f, struct ir_op *a, struct ir_op *b) {
    if (a == b || !same_indices(a, b) || bounds_load(a) || bounds_load(b) || nest_is_contraction(a) ||
        nest_is_contraction(b) || a->result_count + b->result_count > FUSE_MAX_RESULTS ||
        nest_size(a) + nest_size(b) > FUSE_MAX_SIZE || a->operand_count + b->operand_count > FUSE_MAX_OPERANDS ||
        !fuse_same_dirty_set(f, a, b) || !share_loads(a, b))
        return false;
    int first = INT32_MAX, at = fuse_order_of(f, b), above = fuse_order_of(f, a);
    for (int i = 0; i < a->result_count; i++) {
        int u = fuse_first_other_use(f, a->results[i], a, a);
        if (u < first)
            first = u;
    }
    for (int i = 0; i < b->operand_count; i++)
        if (b->operands[i]->op == a)
            return false;
    bool sink = first > at && fuse_reads_may_sink(f, a, at, b) && fuse_writes_may_move(f, a, above, b);
    if (!sink && !fuse_may_hoist(f, b, above, a))
        return false;
    struct fuse_snapshot before = fuse_save(b);
    bool was_in_place = fuse_updates_in_place(f, a, above, -1) && fuse_updates_in_place(f, b, at, -1), keep[64];
    for (int i = 0; i < 64; i++)
        keep[i] = true;
    int *slots = ARENA_ARRAY(&f->arena, int, a->operand_count + 1);
    nest_add_operands(b, a, slots);
    fuse_append(f, b, a, slots, true, keep);
    if (was_in_place && !fuse_updates_in_place(f, b, at, above)) {
        fuse_restore(b, &before);
        return false;
    }
    fuse_settle(f, b, at, a, above, sink ? at : above, sink ? b : a);
    return true;
}

void fuse_siblings(struct fuse *f, struct ir_region *r) {
    VEC(struct ir_op *) nests = {0};
    for (struct ir_op *op = r->first; op; op = op->next)
        if (op->code == OP_nest)
            VEC_PUSH(&f->arena, nests, op);
    for (int i = 1; i < nests.n; i++) {
        int seen = 0;
        for (int k = i - 1; k >= 0 && seen < WINDOW; k--) {
            struct ir_op *a = nests.at[k], *b = nests.at[i];
            if (!fuse_alive(a))
                continue;
            seen++;
            if (fuse_order_of(f, a) < fuse_order_of(f, b) && join_siblings(f, a, b)) {
                k = i; /* look again with what b has become */
                seen = 0;
            }
        }
    }
}
