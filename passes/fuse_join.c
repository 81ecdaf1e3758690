/* Fusion of two nests into one operation with the results of both, and the `epilogue` of fuse.c that uses it: a nest without
 * reduction is joined to the producer whose result it reads at its own indices. */
#include "passes/fuse_internal.h"

#include <string.h>

#include "passes/nest_edit.h"

enum { MAX_CONTRACTION_RESULTS = 1 }; /* their kernels store one */

bool fuse_same_extents(const struct ir_nest *a, const struct ir_nest *b) {
    if (a->pars != b->pars)
        return false;
    for (int i = 0; i < a->pars; i++)
        if (a->indices[i].extent != b->indices[i].extent)
            return false;
    return true;
}

struct fuse_snapshot fuse_save(const struct ir_op *op) {
    return (struct fuse_snapshot){op->nest, op->operands, op->results, op->operand_count, op->result_count};
}

void fuse_restore(struct ir_op *op, const struct fuse_snapshot *s) {
    op->nest = s->nest;
    op->operands = s->operands;
    op->results = s->results;
    op->operand_count = s->operand_count;
    op->result_count = s->result_count;
}

static void see_load(ir_expr e, void *context) {
    struct fuse_loads *s = context;
    if (e->kind != X_LOAD || e->index != s->slot)
        return;
    s->count++;
    s->guarded |= e->guarded;
    for (int d = 0; d < s->rank; d++)
        if (!expr_is_own_index(e->args[d], d, s->dims[d]))
            s->plain = false;
}

struct fuse_loads fuse_scan_loads(const struct ir_op *op, int slot) {
    struct fuse_loads s = {.slot = slot, .plain = true, .rank = op->operands[slot]->type.rank};
    s.dims = op->operands[slot]->type.dims;
    const struct ir_nest *n = &op->nest;
    for (int i = 0; i < n->acc_count; i++)
        ir_expr_walk(n->accs[i].body, see_load, &s);
    for (int i = n->pars; i < n->pars + n->reds; i++) {
        if (n->indices[i].lo)
            ir_expr_walk(n->indices[i].lo, see_load, &s);
        if (n->indices[i].hi)
            ir_expr_walk(n->indices[i].hi, see_load, &s);
    }
    s.in_acc = s.count > 0;
    for (int i = 0; i < op->result_count; i++) {
        ir_expr_walk(n->results[i].value, see_load, &s);
        if (n->results[i].base >= 0)
            for (int d = 0; d < op->results[i]->type.rank; d++)
                ir_expr_walk(n->results[i].target[d], see_load, &s);
    }
    return s;
}

void fuse_append(struct fuse *f, struct ir_op *op, struct ir_op *p, const int *slots, bool p_first, const bool *keep) {
    struct arena *a = &f->module->arena;
    struct ir_module *m = f->module;
    struct ir_nest *n = &op->nest, *q = &p->nest;
    if (n->reds == 0 && q->reds > 0) {
        struct ir_nest_index *indices = ARENA_ARRAY(a, struct ir_nest_index, q->pars + q->reds);
        memcpy(indices, q->indices, sizeof *indices * (size_t)(q->pars + q->reds));
        for (int i = q->pars; i < q->pars + q->reds; i++) {
            if (indices[i].lo)
                indices[i].lo = nest_subst(m, indices[i].lo, NULL, slots, 0, false);
            if (indices[i].hi)
                indices[i].hi = nest_subst(m, indices[i].hi, NULL, slots, 0, false);
        }
        n->indices = indices;
        n->reds = q->reds;
    }
    int shift = n->acc_count;
    struct ir_acc *accs = ARENA_ARRAY(a, struct ir_acc, n->acc_count + q->acc_count + 1);
    if (n->acc_count)
        memcpy(accs, n->accs, sizeof *accs * (size_t)n->acc_count);
    for (int i = 0; i < q->acc_count; i++)
        accs[shift + i] = (struct ir_acc){q->accs[i].op, nest_subst(m, q->accs[i].body, NULL, slots, 0, false)};
    n->accs = accs;
    n->acc_count += q->acc_count;
    int total = op->result_count;
    for (int i = 0; i < p->result_count; i++)
        total += keep[i];
    struct ir_nest_result *results = ARENA_ARRAY(a, struct ir_nest_result, total + 1);
    struct ir_value **values = ARENA_ARRAY(a, struct ir_value *, total + 1);
    int k = 0;
    for (int turn = 0; turn < 2; turn++) {
        if ((turn == 0) != p_first) {
            for (int i = 0; i < op->result_count; i++, k++) {
                results[k] = n->results[i];
                values[k] = op->results[i];
            }
            continue;
        }
        for (int i = 0; i < p->result_count; i++) {
            if (!keep[i])
                continue;
            struct ir_nest_result r = q->results[i];
            r.value = nest_subst(m, r.value, NULL, slots, shift, false);
            if (r.base >= 0) {
                int rank = p->results[i]->type.rank;
                ir_expr *target = ARENA_ARRAY(a, ir_expr, rank + 1);
                for (int d = 0; d < rank; d++)
                    target[d] = nest_subst(m, r.target[d], NULL, slots, 0, false);
                r.base = slots[r.base];
                r.target = target;
            }
            results[k] = r;
            values[k++] = p->results[i];
        }
    }
    n->results = results;
    op->results = values;
    op->result_count = total;
}

void fuse_settle(struct fuse *f, struct ir_op *op, int before, struct ir_op *gone, int other, int order,
                 struct ir_op *place) {
    for (int i = 0; i < op->operand_count; i++) { /* what either of them writes over, the joined one does */
        int *w = &f->writer[f->root[op->operands[i]->id]];
        if (*w == before || *w == other)
            *w = order;
    }
    for (int i = 0; i < op->result_count; i++) {
        op->results[i]->op = op;
        op->results[i]->index = i;
        f->order[op->results[i]->id] = order;
    }
    if (place != op)
        ir_op_move_before(op, place);
    ir_op_remove(gone);
    fuse_refresh(f, op);
}

/* ---- a producer and its consumer ---- */

static bool identity_target(const struct ir_nest_result *r, const struct ir_nest *n, int rank) {
    if (r->base < 0)
        return true;
    if (r->combine != COMBINE_SET || rank != n->pars)
        return false;
    for (int d = 0; d < rank; d++)
        if (!expr_is_own_index(r->target[d], d, n->indices[d].extent))
            return false;
    return true;
}

static bool full_shape(const struct ir_value *v, const struct ir_nest *n) {
    if (v->type.rank != n->pars)
        return false;
    for (int d = 0; d < n->pars; d++)
        if (v->type.dims[d] != n->indices[d].extent)
            return false;
    return true;
}

struct permutation {
    const struct ir_op *op;
    int slot, rank;
    int of[FUSE_MAX_RANK]; /* the parallel index of op in each place of the load */
    bool holds, seen;
};

static void see_permuted(ir_expr e, void *context) {
    struct permutation *p = context;
    if (e->kind != X_LOAD || e->index != p->slot)
        return;
    for (int d = 0; d < p->rank; d++) {
        int index = e->args[d]->kind == X_INDEX ? e->args[d]->index : -1;
        if (e->guarded || index < 0 || (p->seen && p->of[d] != index))
            p->holds = false;
        p->of[d] = index;
    }
    p->seen = true;
}

/* Whether op is the only reader of a reduction, element by element in another order of the indices: the reduction may as
 * well run in that order and the transposed copy goes. */
static bool reads_permuted(const struct fuse *f, const struct ir_op *op, int slot, struct permutation *perm) {
    const struct ir_value *v = op->operands[slot];
    const struct ir_op *p = v->op;
    *perm = (struct permutation){.op = op, .slot = slot, .rank = v->type.rank, .holds = true};
    if (v->type.rank > FUSE_MAX_RANK || v->type.rank != op->nest.pars || p->nest.pars != v->type.rank ||
        !p->nest.reds || p->result_count != 1 || p->nest.results[0].base >= 0 || !fuse_only_user(f, v, op))
        return false;
    nest_walk(op, see_permuted, perm);
    uint64_t used = 0;
    for (int d = 0; d < perm->rank && perm->holds && perm->seen; d++) {
        if (used >> perm->of[d] & 1 || p->nest.indices[d].extent != op->nest.indices[perm->of[d]].extent)
            return false;
        used |= (uint64_t)1 << perm->of[d];
    }
    return perm->holds && perm->seen;
}

/* Puts p's parallel indices into the order of its reader. The result's value is for the caller: p will go. */
static void permute(struct fuse *f, struct ir_op *p, const struct permutation *perm) {
    struct ir_nest *n = &p->nest;
    int total = n->pars + n->reds;
    struct ir_nest_index *indices = arena_copy(&f->module->arena, n->indices, sizeof *indices * (size_t)total);
    ir_expr *index = ARENA_ARRAY(&f->arena, ir_expr, total + 1);
    for (int i = 0; i < total; i++) {
        int to = i < n->pars ? perm->of[i] : i;
        index[i] = ir_index(f->module, to);
        indices[to] = n->indices[i];
    }
    n->indices = indices;
    nest_reindex(p, index);
}

bool fuse_join_producer(struct fuse *f, struct ir_op *op, int slot) {
    struct ir_module *m = f->module;
    struct ir_value *v = op->operands[slot];
    struct ir_op *p = v->op;
    if (!p || p->code != OP_nest || p->parent != op->parent || op->nest.reds > 0 || nest_is_base(op, slot) ||
        !fuse_same_dirty_set(f, p, op))
        return false;
    const struct ir_nest_result *r = &p->nest.results[v->index];
    struct permutation perm;
    bool permuted = !fuse_scan_loads(op, slot).plain && reads_permuted(f, op, slot, &perm);
    if (!permuted && (!fuse_same_extents(&p->nest, &op->nest) || !identity_target(r, &p->nest, v->type.rank) ||
                      !full_shape(v, &op->nest)))
        return false;
    bool contraction = nest_is_contraction(p);
    for (int i = 0; i < op->operand_count && !permuted; i++) {
        if (op->operands[i]->op != p)
            continue;
        struct fuse_loads s = fuse_scan_loads(op, i);
        if (!s.plain || nest_is_base(op, i) || !full_shape(op->operands[i], &op->nest) ||
            !identity_target(&p->nest.results[op->operands[i]->index], &p->nest, op->operands[i]->type.rank))
            return false;
    }
    for (int i = 0; contraction && i < op->result_count; i++)
        if (op->nest.results[i].base >= 0)
            return false;
    /* Where: at the consumer if nobody reads the producer's results before, else at the producer. */
    bool keep[64] = {0};
    int kept = 0, first = INT32_MAX;
    if (p->result_count > 64)
        return false;
    for (int i = 0; i < p->result_count; i++) {
        keep[i] = !fuse_only_user(f, p->results[i], op);
        kept += keep[i];
        int u = fuse_first_other_use(f, p->results[i], op, p);
        if (u < first)
            first = u;
    }
    if (kept + op->result_count > (contraction ? MAX_CONTRACTION_RESULTS : FUSE_MAX_RESULTS) ||
        nest_size(p) + nest_size(op) > FUSE_MAX_SIZE || p->operand_count + op->operand_count > FUSE_MAX_OPERANDS)
        return false;
    int at = fuse_order_of(f, op), above = fuse_order_of(f, p);
    bool sink = first > at && fuse_reads_may_sink(f, p, at, op) && fuse_writes_may_move(f, p, above, op);
    if (!sink && !fuse_may_hoist(f, op, above, p))
        return false;
    struct fuse_snapshot before = fuse_save(op), before_p = fuse_save(p);
    bool was_in_place = fuse_updates_in_place(f, op, at, -1) && fuse_updates_in_place(f, p, above, -1);
    int *slots = ARENA_ARRAY(&f->arena, int, p->operand_count + 1);
    nest_add_operands(op, p, slots);
    for (int i = op->operand_count - 1; i >= 0; i--)
        if (op->operands[i]->op == p) {
            ir_expr value = nest_subst(m, p->nest.results[op->operands[i]->index].value, NULL, slots, 0, false);
            nest_inline(op, i, op->operands[i]->type, value);
        }
    if (permuted)
        permute(f, p, &perm);
    fuse_append(f, op, p, slots, false, keep);
    for (int i = op->operand_count - 1; i >= 0; i--)
        if (op->operands[i]->op == p)
            nest_drop_slot(op, i);
    if ((was_in_place && !fuse_updates_in_place(f, op, at, above)) || (contraction && !nest_is_contraction(op))) {
        fuse_restore(op, &before);
        fuse_restore(p, &before_p);
        return false;
    }
    fuse_settle(f, op, at, p, above, sink ? at : above, sink ? op : p);
    return true;
}
