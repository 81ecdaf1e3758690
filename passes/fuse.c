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
#include "passes/passes.h"

#include <stdlib.h>
#include <string.h>

#include "passes/mutation/incremental.h"
#include "passes/mutation/inplace.h"
#include "passes/nest_edit.h"
#include "passes/simplify_internal.h"

enum {
    MAX_SIZE = 600, /* expression nodes of a fused nest */
    MAX_OPERANDS = 24,
    MAX_RESULTS = 8,
    MAX_CONTRACTION_RESULTS = 1, /* their kernels store one */
    CHEAP = 4,                   /* cost that may be paid again for each consumer */
    TRIVIAL = 2,                 /* cost that may be paid again for each element */
    WINDOW = 16,                 /* siblings looked back at */
    MAX_RANK = 24,
    ROUNDS = 3,
};

struct users {
    VEC(struct ir_op *) ops;
};

struct numbered {
    const struct ir_op *op;
    int order;
};

struct fuse {
    struct ir_module *module;
    struct ir_func *func;
    struct arena arena;
    int *order;          /* [value_count]: order of the operation that makes it; -1: an argument */
    struct users *users; /* [value_count]; may hold removed operations and repeat */
    int *yielded;        /* [value_count]: times a region yields it */
    int *root;           /* [value_count]: through reshapes */
    int *writer; /* [value_count] of roots: order of the first operation that makes its next version; INT32_MAX: none */
    int count;   /* operations numbered */
    int *dirty;  /* [value_count] in an incremental function: its set (incremental.h); else NULL */
    VEC(struct numbered) bare; /* operations without results, sorted by address for look-up */
    bool changed;
};

/* ---- numbering ---------------------------------------------------------------------------------------------------- */

static int compare_numbered(const void *a, const void *b) {
    uintptr_t x = (uintptr_t)((const struct numbered *)a)->op, y = (uintptr_t)((const struct numbered *)b)->op;
    return (x > y) - (x < y);
}

/* Operations have no number of their own: a result's tells it, or a table where there is none. */
static int order_of(const struct fuse *f, const struct ir_op *op) {
    if (op->result_count)
        return f->order[op->results[0]->id];
    struct numbered key = {op, 0};
    const struct numbered *n =
        f->bare.n ? bsearch(&key, f->bare.at, (size_t)f->bare.n, sizeof key, compare_numbered) : NULL;
    return n ? n->order : INT32_MAX;
}

static void add_user(struct fuse *f, const struct ir_value *v, struct ir_op *op) {
    struct users *u = &f->users[v->id];
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
            VEC_PUSH(&f->arena, f->bare, (struct numbered){op, at});
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

static void see_dim_op(const struct ir_symbol *s, void *context) {
    *(bool *)context |= s->op != NULL;
}

static void see_dim(ir_expr e, void *context) {
    if (e->kind == X_DIM)
        ir_dim_symbols(e->dim, see_dim_op, context);
}

/* What is read, constants and scalars computed from them alone come first: then nothing that uses them waits for its place. */
static void hoist_scalars(struct ir_region *r, struct arena *a) {
    struct ir_op *anchor = NULL;
    bool *early = ARENA_ARRAY(a, bool, r->func->value_count + 1);
    for (struct ir_op *op = r->first, *next; op; op = next) {
        next = op->next;
        bool moves = op->code == OP_read || op->code == OP_const;
        if (op->code == OP_nest && op->nest.pars == 0 && op->nest.reds == 0) {
            bool found = false; /* a size made at run time */
            nest_walk(op, see_dim, &found);
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

/* ---- questions ---------------------------------------------------------------------------------------------------- */

static bool alive(const struct ir_op *op) {
    return op->parent != NULL;
}

/* Whether op, or the end of one of its regions, still names v. */
static bool names(const struct ir_op *op, const struct ir_value *v) {
    for (int i = 0; i < op->operand_count; i++)
        if (op->operands[i] == v)
            return true;
    for (int i = 0; i < op->region_count; i++)
        for (int k = 0; k < op->regions[i]->yield_count; k++)
            if (op->regions[i]->yields[k] == v)
                return true;
    return false;
}

static bool only_user(const struct fuse *f, const struct ir_value *v, const struct ir_op *op) {
    if (f->yielded[v->id])
        return false;
    for (int i = 0; i < f->users[v->id].ops.n; i++) {
        const struct ir_op *u = f->users[v->id].ops.at[i];
        if (u != op && alive(u) && names(u, v))
            return false;
    }
    return true;
}

static bool unused(const struct fuse *f, const struct ir_value *v) {
    return only_user(f, v, NULL);
}

/* The first order after which someone else than the two reads v; INT32_MAX: nobody. */
static int first_other_use(const struct fuse *f, const struct ir_value *v, const struct ir_op *a,
                           const struct ir_op *b) {
    int first = INT32_MAX;
    for (int i = 0; i < f->users[v->id].ops.n; i++) {
        const struct ir_op *u = f->users[v->id].ops.at[i];
        if (u == a || u == b || !alive(u) || !names(u, v))
            continue;
        while (u->parent != a->parent && u->parent->op)
            u = u->parent->op;
        int at = order_of(f, u);
        if (at < first)
            first = at;
    }
    return first;
}

/* Moving op's reads from their place to `later` must not pass the operation that overwrites what they read. */
static bool reads_may_sink(const struct fuse *f, const struct ir_op *op, int later, const struct ir_op *into) {
    for (int i = 0; i < op->operand_count; i++) {
        int w = f->writer[f->root[op->operands[i]->id]];
        if (w < later && w != order_of(f, op) && w != order_of(f, into))
            return false;
    }
    return true;
}

/* If op makes a next version of something, others must have read the old one before `earliest`. */
static bool writes_may_move(const struct fuse *f, const struct ir_op *op, int earliest, const struct ir_op *with) {
    int at = order_of(f, op);
    for (int i = 0; i < op->operand_count; i++) {
        int root = f->root[op->operands[i]->id];
        if (f->writer[root] != at)
            continue;
        for (int k = 0; k < f->users[root].ops.n; k++) {
            const struct ir_op *u = f->users[root].ops.at[k];
            if (u != op && u != with && alive(u) && u->code != OP_write && order_of(f, u) >= earliest)
                return false;
        }
    }
    return true;
}

/* Whether the same changes make both run again: always where nothing is skipped. */
static bool same_dirty_set(const struct fuse *f, const struct ir_op *a, const struct ir_op *b) {
    return !f->dirty || a->parent != f->func->body || f->dirty[a->results[0]->id] == f->dirty[b->results[0]->id];
}

static double elements(const struct ir_type t) {
    double n = 1;
    for (int d = 0; d < t.rank; d++)
        n *= (double)ir_dim_upper(t.dims[d]);
    return n;
}

static double iterations(const struct ir_nest *n, bool reductions) {
    double x = 1;
    for (int i = 0; i < n->pars + (reductions ? n->reds : 0); i++)
        x *= (double)ir_dim_upper(n->indices[i].extent);
    return x;
}

static bool same_extents(const struct ir_nest *a, const struct ir_nest *b) {
    if (a->pars != b->pars)
        return false;
    for (int i = 0; i < a->pars; i++)
        if (a->indices[i].extent != b->indices[i].extent)
            return false;
    return true;
}

static int nest_size(const struct ir_op *op) {
    int n = 0;
    for (int i = 0; i < op->nest.acc_count; i++)
        n += expr_size(op->nest.accs[i].body);
    for (int i = 0; i < op->result_count; i++)
        n += expr_size(op->nest.results[i].value);
    return n;
}

/* Whether what op overwrites, as the next version of an operand, can still be overwritten in place. The versions are those
 * made at order `at` or `other`: of the nests it is joined from. */
static bool updates_in_place(const struct fuse *f, const struct ir_op *op, int at, int other) {
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

/* Whether op may stand at an earlier order: everything it needs is there by then. */
static bool may_hoist(const struct fuse *f, const struct ir_op *op, int to, const struct ir_op *with) {
    for (int i = 0; i < op->operand_count; i++) {
        const struct ir_value *x = op->operands[i];
        if (x->op != with && x->op && x->op->parent == op->parent && f->order[x->id] > to)
            return false;
    }
    bool symbols = false; /* made at run time by an operation in between, perhaps */
    nest_walk(op, see_dim, &symbols);
    return !symbols && writes_may_move(f, op, to, with);
}

/* Everything of an operation that fusion changes, to take a step back. */
struct snapshot {
    struct ir_nest nest;
    struct ir_value **operands, **results;
    int operand_count, result_count;
};

static struct snapshot save(const struct ir_op *op) {
    return (struct snapshot){op->nest, op->operands, op->results, op->operand_count, op->result_count};
}

static void restore(struct ir_op *op, const struct snapshot *s) {
    op->nest = s->nest;
    op->operands = s->operands;
    op->results = s->results;
    op->operand_count = s->operand_count;
    op->result_count = s->result_count;
}

static void refresh(struct fuse *f, struct ir_op *op) {
    for (int i = 0; i < op->operand_count; i++)
        add_user(f, op->operands[i], op);
    f->changed = true;
}

static void remove_if_unused(struct fuse *f, struct ir_op *op) {
    for (int i = 0; i < op->result_count; i++)
        if (!unused(f, op->results[i]))
            return;
    ir_op_remove(op);
    f->changed = true;
    for (int i = 0; i < op->operand_count; i++) { /* a view or producer that only served it */
        struct ir_op *p = op->operands[i]->op;
        if (p && alive(p) && (p->code == OP_reshape || p->code == OP_nest))
            remove_if_unused(f, p);
    }
}

/* ---- inline ------------------------------------------------------------------------------------------------------- */

struct load_scan {
    int slot;
    int count;                   /* distinct loads */
    bool guarded, in_acc, plain; /* plain: every load is at the parallel indices */
    int rank;
    const ir_dim *dims;
};

static void see_load(ir_expr e, void *context) {
    struct load_scan *s = context;
    if (e->kind != X_LOAD || e->index != s->slot)
        return;
    s->count++;
    s->guarded |= e->guarded;
    for (int d = 0; d < s->rank; d++)
        if (!expr_is_own_index(e->args[d], d, s->dims[d]))
            s->plain = false;
}

static struct load_scan scan_loads(const struct ir_op *op, int slot) {
    struct load_scan s = {.slot = slot, .plain = true, .rank = op->operands[slot]->type.rank};
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

struct read_scan {
    const struct ir_op *op;
    double bytes; /* of distinct operands loaded */
    uint64_t seen;
    bool reads;
};

static void see_read(ir_expr e, void *context) {
    struct read_scan *s = context;
    if (e->kind != X_LOAD || e->index > 63 || (s->seen >> e->index & 1))
        return;
    s->seen |= (uint64_t)1 << e->index;
    struct ir_type t = s->op->operands[e->index]->type;
    s->bytes += elements(t) * dtype_size(t.dtype);
}

static void count_quotients(ir_expr e, void *context) {
    if (e->kind == X_FN && (e->fn == FN_div || e->fn == FN_mod) && e->dtype == I64)
        ++*(int *)context;
}

static int quotients(const struct ir_op *op) {
    int n = 0;
    nest_walk(op, count_quotients, &n);
    return n;
}

/* Loads of a product must stay affine for its kernels. */
static bool affine_loads(struct ir_module *m, const struct ir_op *op) {
    ir_expr body = expr_strip_casts(op->nest.accs[0].body);
    for (int k = 0; k < 2; k++) {
        ir_expr x = expr_strip_casts(body->args[k]);
        ir_dim coefficients[64], constant;
        int total = op->nest.pars + op->nest.reds;
        for (int d = 0; total <= 64 && d < x->count - x->guarded; d++)
            if (!ir_expr_affine(m, x->args[d], total, coefficients, &constant))
                return false;
    }
    return true;
}

/* Whether v, read by `user`, would be taken by it; for a value with several users, asked of each. */
static bool takes(const struct fuse *f, const struct ir_op *user, int slot, const struct ir_op *producer, ir_expr body,
                  struct ir_type type) {
    if (user->code != OP_nest || user->parent != producer->parent || nest_is_base(user, slot))
        return false;
    struct load_scan s = scan_loads(user, slot);
    if (!s.count)
        return false;
    double again = iterations(&user->nest, s.in_acc) * s.count / (elements(type) > 0 ? elements(type) : 1);
    if (again > 1.5 && expr_cost(body) > TRIVIAL)
        return false;
    if (nest_is_contraction(user) && s.in_acc && (body->kind != X_LOAD || s.guarded))
        return false;
    if (nest_size(user) + s.count * expr_size(body) > MAX_SIZE ||
        user->operand_count + producer->operand_count > MAX_OPERANDS)
        return false;
    return reads_may_sink(f, producer, order_of(f, user), user);
}

static ir_expr simplify_expr(ir_expr e, void *context) {
    struct ir_op *op = context;
    return ir_expr_simplify(op->parent->func->module, &op->nest, op->operands, e);
}

/* The producer's body as a function of the indices of v, which may be a reshape of its result. */
static ir_expr body_through_view(struct ir_module *m, ir_expr body, struct ir_type from, struct ir_type to) {
    ir_expr index[MAX_RANK], linear = ir_const_int(m, I64, 0);
    if (to.rank > MAX_RANK || from.rank > MAX_RANK)
        return NULL;
    for (int d = 0; d < to.rank; d++)
        linear = ir_fn2(m, FN_add, ir_fn2(m, FN_mul, linear, ir_dim_expr(m, to.dims[d])), ir_index(m, d));
    for (int d = from.rank - 1; d >= 0; d--) {
        ir_expr extent = ir_dim_expr(m, from.dims[d]);
        index[d] = d ? ir_fn2(m, FN_mod, linear, extent) : linear;
        linear = ir_fn2(m, FN_div, linear, extent);
    }
    return nest_subst(m, body, index, NULL, 0, false);
}

static bool inline_slot(struct fuse *f, struct ir_op *op, int slot) {
    struct ir_module *m = f->module;
    struct ir_value *v = op->operands[slot], *made = v;
    struct ir_op *p = v->op;
    bool view = false;
    if (p && p->code == OP_reshape) {
        made = p->operands[0];
        view = true;
        p = made->op;
    }
    if (!p || p->code != OP_nest || p->parent != op->parent || p->nest.reds > 0 ||
        p->nest.results[made->index].base >= 0)
        return false;
    if (view && (v->op->parent != op->parent || made->type.rank == 0 || v->type.rank == 0))
        return false;
    ir_expr body = p->nest.results[made->index].value;
    if (!takes(f, op, slot, p, body, made->type))
        return false;
    struct read_scan r = {.op = p};
    ir_expr_walk(body, see_read, &r);
    bool single = only_user(f, v, op) && (!view || only_user(f, made, v->op)),
         cheap = expr_cost(body) <= CHEAP && r.bytes <= 1.125 * elements(made->type) * dtype_size(made->type.dtype);
    if (!cheap && !same_dirty_set(f, p, op))
        return false;
    if (!single) {
        if (view || f->yielded[v->id] || !cheap)
            return false;
        for (int i = 0; i < f->users[v->id].ops.n; i++) {
            const struct ir_op *u = f->users[v->id].ops.at[i];
            if (!alive(u) || !names(u, v) || u == op)
                continue;
            if (u->code != OP_nest)
                return false;
            int s = 0;
            while (u->operands[s] != v)
                s++;
            if (!takes(f, u, s, p, body, made->type))
                return false;
        }
    } else if (p->result_count > 1 && expr_cost(body) > CHEAP) { /* the producer stays for its other results */
        for (int i = 0; i < p->result_count; i++)
            if (p->results[i] != made && !unused(f, p->results[i]))
                return false;
    }
    struct snapshot before = save(op);
    bool contraction = nest_is_contraction(op), was_in_place = updates_in_place(f, op, order_of(f, op), -1);
    int *slots = ARENA_ARRAY(&f->arena, int, p->operand_count + 1), had = quotients(op);
    nest_add_operands(op, p, slots);
    ir_expr moved = nest_subst(m, body, NULL, slots, 0, false);
    if (view)
        moved = body_through_view(m, moved, made->type, v->type);
    if (moved)
        nest_inline(op, slot, v->type, moved);
    int bodys = 0;
    ir_expr_walk(body, count_quotients, &bodys);
    if (moved && (view || quotients(op) > had))
        nest_map(op, simplify_expr, op);
    bool bad = !moved || nest_loads_slot(op, slot) || (view && quotients(op) > had + bodys) ||
               (contraction && (!nest_is_contraction(op) || !affine_loads(m, op))) ||
               (was_in_place && !updates_in_place(f, op, order_of(f, op), -1));
    if (bad) {
        restore(op, &before);
        return false;
    }
    nest_drop_slot(op, slot);
    refresh(f, op);
    if (view && unused(f, v))
        remove_if_unused(f, v->op);
    if (alive(p))
        remove_if_unused(f, p);
    return true;
}

/* ---- joining ------------------------------------------------------------------------------------------------------ */

/* Appends p's accumulators and the results that `keep` names to op, whose indices agree. op must not reduce unless its reductions
 * are p's. Slots of p's operands in op are given. */
static void append(struct fuse *f, struct ir_op *op, struct ir_op *p, const int *slots, bool p_first,
                   const bool *keep) {
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

/* The joined operation takes over its values and place; the other goes. */
static void settle(struct fuse *f, struct ir_op *op, int before, struct ir_op *gone, int other, int order,
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
    refresh(f, op);
}

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
    int of[MAX_RANK]; /* the parallel index of op in each place of the load */
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
    if (v->type.rank > MAX_RANK || v->type.rank != op->nest.pars || p->nest.pars != v->type.rank || !p->nest.reds ||
        p->result_count != 1 || p->nest.results[0].base >= 0 || !only_user(f, v, op))
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

struct reorder {
    struct ir_module *m;
    const ir_expr *index;
};

static ir_expr reorder_expr(ir_expr e, void *context) {
    struct reorder *r = context;
    return nest_subst(r->m, e, r->index, NULL, 0, false);
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
    struct reorder r = {f->module, index};
    nest_map(p, reorder_expr, &r);
}

static bool join_producer(struct fuse *f, struct ir_op *op, int slot) {
    struct ir_module *m = f->module;
    struct ir_value *v = op->operands[slot];
    struct ir_op *p = v->op;
    if (!p || p->code != OP_nest || p->parent != op->parent || op->nest.reds > 0 || nest_is_base(op, slot) ||
        !same_dirty_set(f, p, op))
        return false;
    const struct ir_nest_result *r = &p->nest.results[v->index];
    struct permutation perm;
    bool permuted = !scan_loads(op, slot).plain && reads_permuted(f, op, slot, &perm);
    if (!permuted && (!same_extents(&p->nest, &op->nest) || !identity_target(r, &p->nest, v->type.rank) ||
                      !full_shape(v, &op->nest)))
        return false;
    bool contraction = nest_is_contraction(p);
    for (int i = 0; i < op->operand_count && !permuted; i++) {
        if (op->operands[i]->op != p)
            continue;
        struct load_scan s = scan_loads(op, i);
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
        keep[i] = !only_user(f, p->results[i], op);
        kept += keep[i];
        int u = first_other_use(f, p->results[i], op, p);
        if (u < first)
            first = u;
    }
    if (kept + op->result_count > (contraction ? MAX_CONTRACTION_RESULTS : MAX_RESULTS) ||
        nest_size(p) + nest_size(op) > MAX_SIZE || p->operand_count + op->operand_count > MAX_OPERANDS)
        return false;
    int at = order_of(f, op), above = order_of(f, p);
    bool sink = first > at && reads_may_sink(f, p, at, op) && writes_may_move(f, p, above, op);
    if (!sink && !may_hoist(f, op, above, p))
        return false;
    struct snapshot before = save(op), before_p = save(p);
    bool was_in_place = updates_in_place(f, op, at, -1) && updates_in_place(f, p, above, -1);
    int *slots = ARENA_ARRAY(&f->arena, int, p->operand_count + 1);
    nest_add_operands(op, p, slots);
    for (int i = op->operand_count - 1; i >= 0; i--)
        if (op->operands[i]->op == p) {
            ir_expr value = nest_subst(m, p->nest.results[op->operands[i]->index].value, NULL, slots, 0, false);
            nest_inline(op, i, op->operands[i]->type, value);
        }
    if (permuted)
        permute(f, p, &perm);
    append(f, op, p, slots, false, keep);
    for (int i = op->operand_count - 1; i >= 0; i--)
        if (op->operands[i]->op == p)
            nest_drop_slot(op, i);
    if ((was_in_place && !updates_in_place(f, op, at, above)) || (contraction && !nest_is_contraction(op))) {
        restore(op, &before);
        restore(p, &before_p);
        return false;
    }
    settle(f, op, at, p, above, sink ? at : above, sink ? op : p);
    return true;
}

/* ---- siblings ----------------------------------------------------------------------------------------------------- */

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
    if (e->kind != X_LOAD || s->found || !names(s->a, s->b->operands[e->index]) ||
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
    if (!same_extents(x, y) || x->reds != y->reds)
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
        nest_is_contraction(b) || a->result_count + b->result_count > MAX_RESULTS ||
        nest_size(a) + nest_size(b) > MAX_SIZE || a->operand_count + b->operand_count > MAX_OPERANDS ||
        !same_dirty_set(f, a, b) || !share_loads(a, b))
        return false;
    int first = INT32_MAX, at = order_of(f, b), above = order_of(f, a);
    for (int i = 0; i < a->result_count; i++) {
        int u = first_other_use(f, a->results[i], a, a);
        if (u < first)
            first = u;
    }
    for (int i = 0; i < b->operand_count; i++)
        if (b->operands[i]->op == a)
            return false;
    bool sink = first > at && reads_may_sink(f, a, at, b) && writes_may_move(f, a, above, b);
    if (!sink && !may_hoist(f, b, above, a))
        return false;
    struct snapshot before = save(b);
    bool was_in_place = updates_in_place(f, a, above, -1) && updates_in_place(f, b, at, -1), keep[64];
    for (int i = 0; i < 64; i++)
        keep[i] = true;
    int *slots = ARENA_ARRAY(&f->arena, int, a->operand_count + 1);
    nest_add_operands(b, a, slots);
    append(f, b, a, slots, true, keep);
    if (was_in_place && !updates_in_place(f, b, at, above)) {
        restore(b, &before);
        return false;
    }
    settle(f, b, at, a, above, sink ? at : above, sink ? b : a);
    return true;
}

static void fuse_siblings(struct fuse *f, struct ir_region *r) {
    VEC(struct ir_op *) nests = {0};
    for (struct ir_op *op = r->first; op; op = op->next)
        if (op->code == OP_nest)
            VEC_PUSH(&f->arena, nests, op);
    for (int i = 1; i < nests.n; i++) {
        int seen = 0;
        for (int k = i - 1; k >= 0 && seen < WINDOW; k--) {
            struct ir_op *a = nests.at[k], *b = nests.at[i];
            if (!alive(a))
                continue;
            seen++;
            if (order_of(f, a) < order_of(f, b) && join_siblings(f, a, b)) {
                k = i; /* look again with what b has become */
                seen = 0;
            }
        }
    }
}

/* ---- the pass ----------------------------------------------------------------------------------------------------- */

static void fuse_region(struct fuse *f, struct ir_region *r) {
    VEC(struct ir_op *) ops = {0};
    for (struct ir_op *op = r->first; op; op = op->next)
        VEC_PUSH(&f->arena, ops, op);
    for (int i = 0; i < ops.n; i++) {
        struct ir_op *op = ops.at[i];
        if (!alive(op))
            continue;
        for (int k = 0; k < op->region_count && op->code != OP_kernel; k++)
            fuse_region(f, op->regions[k]);
        if (op->code != OP_nest)
            continue;
        for (int s = 0; s < op->operand_count;)
            s = inline_slot(f, op, s) ? 0 : s + 1;
        for (int s = 0; s < op->operand_count;)
            s = join_producer(f, op, s) ? 0 : s + 1;
    }
    fuse_siblings(f, r);
}

static bool fuse_func(struct ir_module *m, struct ir_func *func) {
    struct fuse f = {.module = m, .func = func};
    struct arena *a = &f.arena;
    int n = func->value_count + 1;
    f.order = ARENA_ARRAY(a, int, n);
    f.users = ARENA_ARRAY(a, struct users, n);
    f.yielded = ARENA_ARRAY(a, int, n);
    f.root = ARENA_ARRAY(a, int, n);
    f.writer = ARENA_ARRAY(a, int, n);
    for (int i = 0; i < n; i++) {
        f.order[i] = -1;
        f.root[i] = i;
        f.writer[i] = INT32_MAX;
    }
    if (func->is_incremental)
        f.dirty = incremental_dirty_sets(func, a);
    hoist_scalars(func->body, a);
    number_region(&f, func->body);
    if (f.bare.n)
        qsort(f.bare.at, (size_t)f.bare.n, sizeof *f.bare.at, compare_numbered);
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
