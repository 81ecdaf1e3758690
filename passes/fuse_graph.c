/* The graph that fusion works on: who makes, reads and overwrites which value, and in which order; and its questions whether an
 * operation's reads or writes may move from one place to another. It is numbered once for a function and kept up while
 * nests are joined, so that each question costs what it looks at, not the function. */
#include "passes/fuse_internal.h"

#include <stdlib.h>

#include "passes/mutation/inplace.h"
#include "passes/nest_edit.h"

/* ---- numbering ---------------------------------------------------------------------------------------------------- */

static int compare_numbered(const void *a, const void *b) {
    uintptr_t x = (uintptr_t)((const struct fuse_numbered *)a)->op,
              y = (uintptr_t)((const struct fuse_numbered *)b)->op;
    return (x > y) - (x < y);
}

int fuse_order_of(const struct fuse *f, const struct ir_op *op) {
    if (op->result_count)
        return f->order[op->results[0]->id];
    struct fuse_numbered key = {op, 0};
    const struct fuse_numbered *n =
        f->bare.n ? bsearch(&key, f->bare.at, (size_t)f->bare.n, sizeof key, compare_numbered) : NULL;
    return n ? n->order : INT32_MAX;
}

static void add_user(struct fuse *f, const struct ir_value *v, struct ir_op *op) {
    struct fuse_users *u = &f->users[v->id];
    if (u->ops.n && u->ops.at[u->ops.n - 1] == op)
        return;
    VEC_PUSH(&f->arena, u->ops, op);
}

static void note_writer(struct fuse *f, const struct ir_value *old, int order) {
    int root = f->root[old->id];
    if (order < f->writer[root])
        f->writer[root] = order;
}

static void number_region(struct fuse *f, struct ir_region *r) {
    for (struct ir_op *op = r->first; op; op = op->next) {
        int at = f->count++;
        if (!op->result_count)
            VEC_PUSH(&f->arena, f->bare, (struct fuse_numbered){op, at});
        for (int i = 0; i < op->result_count; i++) {
            f->order[op->results[i]->id] = at;
            if (op->code == OP_reshape)
                f->root[op->results[i]->id] = f->root[op->operands[0]->id];
        }
        for (int i = 0; i < op->operand_count; i++)
            add_user(f, op->operands[i], op);
        if (op->code == OP_nest)
            for (int i = 0; i < op->result_count; i++)
                if (op->nest.results[i].base >= 0)
                    note_writer(f, op->operands[op->nest.results[i].base], at);
        if (op->code == OP_for || op->code == OP_while)
            for (int i = op->code == OP_for ? 2 : 0; i < op->operand_count; i++)
                note_writer(f, op->operands[i], at);
        for (int i = 0; i < op->region_count; i++)
            number_region(f, op->regions[i]);
    }
    for (int i = 0; i < r->yield_count; i++) {
        f->yielded[r->yields[i]->id]++;
        if (r->op) /* read where the operation stands that holds the region */
            add_user(f, r->yields[i], r->op);
    }
    /* What a loop carries next replaces what it carried; what a buffer holds at exit replaces what was read. */
    if (r->op && (r->op->code == OP_for || r->op->code == OP_while)) {
        int skip = r->op->code == OP_for;
        if (r->yield_count == r->arg_count - skip)
            for (int i = 0; i < r->yield_count; i++)
                if (r->yields[i]->op)
                    note_writer(f, r->args[skip + i], f->order[r->yields[i]->id]);
    }
    if (r->op)
        return;
    for (int i = 0, k = f->func->result_count; i < r->arg_count && k < r->yield_count; i++)
        if (f->func->arg_inout && f->func->arg_inout[i]) {
            if (r->yields[k]->op)
                note_writer(f, r->args[i], f->order[r->yields[k]->id]);
            k++;
        }
    struct ir_value **read = ARENA_ARRAY(&f->arena, struct ir_value *, f->module->buffer_count + 1);
    for (struct ir_op *op = r->first; op; op = op->next)
        if (op->code == OP_read)
            read[op->buffer.buffer->id] = op->results[0];
    for (struct ir_op *op = r->first; op; op = op->next)
        if (op->code == OP_write && read[op->buffer.buffer->id] && op->operands[0]->op)
            note_writer(f, read[op->buffer.buffer->id], f->order[op->operands[0]->id]);
}

void fuse_number(struct fuse *f) {
    int n = f->func->value_count + 1;
    f->order = ARENA_ARRAY(&f->arena, int, n);
    f->users = ARENA_ARRAY(&f->arena, struct fuse_users, n);
    f->yielded = ARENA_ARRAY(&f->arena, int, n);
    f->root = ARENA_ARRAY(&f->arena, int, n);
    f->writer = ARENA_ARRAY(&f->arena, int, n);
    for (int i = 0; i < n; i++) {
        f->order[i] = -1;
        f->root[i] = i;
        f->writer[i] = INT32_MAX;
    }
    number_region(f, f->func->body);
    if (f->bare.n)
        qsort(f->bare.at, (size_t)f->bare.n, sizeof *f->bare.at, compare_numbered);
}

void fuse_refresh(struct fuse *f, struct ir_op *op) {
    for (int i = 0; i < op->operand_count; i++)
        add_user(f, op->operands[i], op);
    f->changed = true;
}

/* ---- questions ---------------------------------------------------------------------------------------------------- */

bool fuse_names(const struct ir_op *op, const struct ir_value *v) {
    for (int i = 0; i < op->operand_count; i++)
        if (op->operands[i] == v)
            return true;
    for (int i = 0; i < op->region_count; i++)
        for (int k = 0; k < op->regions[i]->yield_count; k++)
            if (op->regions[i]->yields[k] == v)
                return true;
    return false;
}

bool fuse_only_user(const struct fuse *f, const struct ir_value *v, const struct ir_op *op) {
    if (f->yielded[v->id])
        return false;
    for (int i = 0; i < f->users[v->id].ops.n; i++) {
        const struct ir_op *u = f->users[v->id].ops.at[i];
        if (u != op && fuse_alive(u) && fuse_names(u, v))
            return false;
    }
    return true;
}

bool fuse_unused(const struct fuse *f, const struct ir_value *v) {
    return fuse_only_user(f, v, NULL);
}

int fuse_first_other_use(const struct fuse *f, const struct ir_value *v, const struct ir_op *a, const struct ir_op *b) {
    int first = INT32_MAX;
    for (int i = 0; i < f->users[v->id].ops.n; i++) {
        const struct ir_op *u = f->users[v->id].ops.at[i];
        if (u == a || u == b || !fuse_alive(u) || !fuse_names(u, v))
            continue;
        while (u->parent != a->parent && u->parent->op)
            u = u->parent->op;
        int at = fuse_order_of(f, u);
        if (at < first)
            first = at;
    }
    return first;
}

bool fuse_reads_may_sink(const struct fuse *f, const struct ir_op *op, int later, const struct ir_op *into) {
    for (int i = 0; i < op->operand_count; i++) {
        int w = f->writer[f->root[op->operands[i]->id]];
        if (w < later && w != fuse_order_of(f, op) && w != fuse_order_of(f, into))
            return false;
    }
    return true;
}

bool fuse_writes_may_move(const struct fuse *f, const struct ir_op *op, int earliest, const struct ir_op *with) {
    int at = fuse_order_of(f, op);
    for (int i = 0; i < op->operand_count; i++) {
        int root = f->root[op->operands[i]->id];
        if (f->writer[root] != at)
            continue;
        for (int k = 0; k < f->users[root].ops.n; k++) {
            const struct ir_op *u = f->users[root].ops.at[k];
            if (u != op && u != with && fuse_alive(u) && u->code != OP_write && fuse_order_of(f, u) >= earliest)
                return false;
        }
    }
    return true;
}

bool fuse_same_dirty_set(const struct fuse *f, const struct ir_op *a, const struct ir_op *b) {
    return !f->dirty || a->parent != f->func->body || f->dirty[a->results[0]->id] == f->dirty[b->results[0]->id];
}

bool fuse_updates_in_place(const struct fuse *f, const struct ir_op *op, int at, int other) {
    for (int i = 0; i < op->result_count; i++) {
        int base = op->nest.results[i].base;
        if (base >= 0 && !inplace_allowed(op, i, op->operands[base], f->root))
            return false;
    }
    for (int k = 0; k < op->operand_count; k++) {
        const struct ir_value *x = op->operands[k];
        int w = f->writer[f->root[x->id]];
        if ((w != at && w != other) || nest_is_base(op, k))
            continue;
        bool found = false;
        for (int i = 0; i < op->result_count && !found; i++)
            found = inplace_allowed(op, i, x, f->root);
        if (!found)
            return false;
    }
    return true;
}

static void see_dim_op(const struct ir_symbol *s, void *context) {
    *(bool *)context |= s->op != NULL;
}

void fuse_see_dim(ir_expr e, void *context) {
    if (e->kind == X_DIM)
        ir_dim_symbols(e->dim, see_dim_op, context);
}

bool fuse_may_hoist(const struct fuse *f, const struct ir_op *op, int to, const struct ir_op *with) {
    for (int i = 0; i < op->operand_count; i++) {
        const struct ir_value *x = op->operands[i];
        if (x->op != with && x->op && x->op->parent == op->parent && f->order[x->id] > to)
            return false;
    }
    bool symbols = false; /* made at run time by an operation in between, perhaps */
    nest_walk(op, fuse_see_dim, &symbols);
    return !symbols && fuse_writes_may_move(f, op, to, with);
}
