/* The graph that binds the order of a region's operations, and the memory they take.
 *
 * Besides data, these edges bind: operations with outside effects and checks stay in the program's order; whatever will write a
 * buffer in place comes after the last check that does not need its result; and readers of an old version come before the
 * operation that may overwrite it, where that makes no cycle (write after read). A reader of none of the elements written needs no such
 * edge; it is looked at again at the next version.
 *
 * The memory is what `mutation` is expected to give: values have a home of their own but for reshapes, versions of an update, what
 * a loop carries, and what lives in a buffer or in the caller's memory.
 */

#include "passes/memplan/order_internal.h"
#include "passes/mutation/access.h"
#include "passes/mutation/inplace.h"
#include "passes/mutation/liveness.h"
#include "passes/nest_edit.h"

#define REACH_LIMIT 30000000 /* steps of cycle tests and proofs a region before write-after-read edges are given up */
#define PROOF_STEPS 5000     /* what a proof that two accesses share no element counts as */

struct
    spared { /* a node that reads a value, of which what makes `version` and those before it writes no element that it reads */
    int version, node, value;
};

struct readers {
    VEC(int) nodes;
};

struct graph {
    struct ir_func *func;
    struct ir_region *region;
    struct arena *arena;
    struct order_node *nodes;
    int n;
    int *node_of; /* [value_count]: what makes it in this region, or the node that uses are inside of; else -1 */
    int *root;    /* [value_count]: the value that it is a reshape of */
    int *home;    /* [value_count] of roots */
    int *first_read, *next_read; /* [buffer_count], [n]: the nodes that read a buffer; -1: none */
    struct readers *readers;     /* [value_count] of roots made in this region */
    int *stamp;
    int stamp_now;
    int *stack;                /* [n] */
    bool backward;             /* some edge leads to an earlier operation of the program */
    VEC(struct spared) spared; /* by roots */
    int64_t steps;
};

/* ---- edges -------------------------------------------------------------------------------------------------------- */

static void edge(struct graph *o, int from, int to) {
    if (from == to)
        return;
    struct order_node *f = &o->nodes[from], *t = &o->nodes[to];
    if (f->next.n && f->next.at[f->next.n - 1] == to)
        return;
    o->backward |= to < from;
    VEC_PUSH(o->arena, f->next, to);
    VEC_PUSH(o->arena, t->before, from);
}

static void needs_value(struct graph *o, int node, const struct ir_value *v) {
    int from = o->node_of[v->id];
    if (from < 0 || from == node)
        return;
    edge(o, from, node);
    int root = o->root[v->id];
    struct order_node *x = &o->nodes[node];
    for (int i = 0; i < x->reads.n; i++)
        if (x->reads.at[i] == root)
            return;
    VEC_PUSH(o->arena, x->reads, root);
}

struct symbol_scan {
    struct graph *o;
    int node;
};

static int node_holding(struct graph *o, const struct ir_op *op);

static void needs_symbol(const struct ir_symbol *s, void *context) {
    struct symbol_scan *c = context;
    if (!s->op)
        return;
    int from = node_holding(c->o, s->op);
    if (from >= 0)
        edge(c->o, from, c->node);
}

static void needs_expr(ir_expr e, void *context) {
    if (e->kind == X_DIM)
        ir_dim_symbols(e->dim, needs_symbol, context);
}

static void needs_symbols(struct graph *o, int node, const struct ir_op *op) {
    struct symbol_scan c = {o, node};
    for (int i = 0; i < op->result_count; i++)
        for (int d = 0; d < op->results[i]->type.rank; d++)
            ir_dim_symbols(op->results[i]->type.dims[d], needs_symbol, &c);
    if (op->code == OP_sort && op->sort.limit)
        ir_dim_symbols(op->sort.limit, needs_symbol, &c);
    if ((op->code == OP_for || op->code == OP_while) && op->loop.limit)
        ir_dim_symbols(op->loop.limit, needs_symbol, &c);
    if (op->code == OP_kernel && op->kernel.limit)
        ir_dim_symbols(op->kernel.limit, needs_symbol, &c);
    if (op->code != OP_nest)
        return;
    const struct ir_nest *n = &op->nest;
    for (int i = 0; i < n->pars + n->reds; i++) {
        ir_dim_symbols(n->indices[i].extent, needs_symbol, &c);
    }
    nest_walk(op, needs_expr, &c);
}

static void needs_op(struct graph *o, int node, struct ir_op *op) {
    for (int i = 0; i < op->operand_count; i++)
        needs_value(o, node, op->operands[i]);
    needs_symbols(o, node, op);
    for (int i = 0; i < op->region_count; i++) {
        struct ir_region *r = op->regions[i];
        for (struct ir_op *x = r->first; x; x = x->next)
            needs_op(o, node, x);
        for (int k = 0; k < r->yield_count; k++)
            needs_value(o, node, r->yields[k]);
    }
}

/* CHECKS or OPAQUE, itself or inside. */
static bool has_effect(const struct ir_op *op, bool *checks) {
    enum ir_effect e = ir_optable[op->code].effect;
    bool found = e == EFFECT_OPAQUE || e == EFFECT_CHECKS;
    if (op_may_fail(op))
        *checks = found = true;
    for (int i = 0; i < op->region_count; i++)
        for (const struct ir_op *x = op->regions[i]->first; x; x = x->next)
            found |= has_effect(x, checks);
    return found;
}

/* The node of this region that is op or holds it; -1 if it stands outside. `dim` operations give no value to look up. */
static int node_holding(struct graph *o, const struct ir_op *op) {
    while (op && op->parent != o->region)
        op = op->parent->op;
    if (!op)
        return -1;
    if (op->result_count)
        return o->node_of[op->results[0]->id];
    for (int i = 0; i < o->n; i++)
        if (o->nodes[i].op == op)
            return i;
    return -1;
}

static bool reaches(struct graph *o, int from, int to) {
    if (to < from && !o->backward)
        return false;
    int depth = 0;
    o->stamp_now++;
    o->stack[depth++] = from;
    o->stamp[from] = o->stamp_now;
    while (depth) {
        int x = o->stack[--depth];
        if (x == to)
            return true;
        for (int i = 0; i < o->nodes[x].next.n; i++) {
            int y = o->nodes[x].next.at[i];
            o->steps++;
            if (o->stamp[y] != o->stamp_now && (o->backward || y <= to)) {
                o->stamp[y] = o->stamp_now;
                o->stack[depth++] = y;
            }
        }
    }
    return false;
}

/* ---- write after read --------------------------------------------------------------------------------------------- */

enum { MAX_WRITES = 16 };

struct writes { /* by which one version becomes the next */
    struct access at[MAX_WRITES];
    int count;
    bool known; /* those are all */
};

/* The updates that lead from `from`, an argument of region r, to v. */
static void writes_since(struct writes *w, const struct ir_value *v, const struct ir_value *from) {
    while (w->known && v != from) {
        const struct ir_op *op = v->op;
        w->known = op && ir_value_defined_in(v, from->region);
        if (!w->known)
            return;
        if (op->code == OP_reshape) {
            v = op->operands[0];
        } else if (op->code == OP_nest && op->nest.results[v->index].base >= 0 && w->count < MAX_WRITES) {
            w->at[w->count++] = (struct access){op, v, op->nest.results[v->index].target};
            v = op->operands[op->nest.results[v->index].base];
        } else if (op->code == OP_for || op->code == OP_while) {
            const struct ir_region *body = op->regions[op->code == OP_for ? 0 : 1];
            writes_since(w, body->yields[v->index], body->args[v->index + (op->code == OP_for ? 1 : 0)]);
            v = op->operands[v->index + (op->code == OP_for ? 2 : 0)];
        } else {
            w->known = false;
        }
    }
}

static struct writes writes_of(const struct ir_op *op, int result) {
    struct writes w = {.known = true};
    if (op->code == OP_for || op->code == OP_while) {
        const struct ir_region *body = op->regions[op->code == OP_for ? 0 : 1];
        writes_since(&w, body->yields[result], body->args[result + (op->code == OP_for ? 1 : 0)]);
    } else {
        w.at[w.count++] = (struct access){op, op->results[result], op->nest.results[result].target};
    }
    return w;
}

struct spare_scan {
    struct graph *o;
    const struct writes *w;
    const struct ir_op *op;
    int value; /* root */
    bool apart;
};

static void spare_load(ir_expr e, void *context) {
    struct spare_scan *s = context;
    if (e->kind != X_LOAD || !s->apart || s->o->root[s->op->operands[e->index]->id] != s->value)
        return;
    struct access read = {s->op, s->op->operands[e->index], e->args};
    for (int i = 0; i < s->w->count && s->apart; i++) {
        s->apart = access_disjoint(s->w->at[i], read, s->o->region, false);
        s->o->steps += PROOF_STEPS;
    }
}

/* Looks at what op and the operations inside of it read of the value. */
static void spare_op(struct spare_scan *s, const struct ir_op *op) {
    for (int i = 0; i < op->operand_count && s->apart; i++)
        if (s->o->root[op->operands[i]->id] == s->value)
            s->apart = op->code == OP_nest && !nest_is_base(op, i);
    s->op = op;
    if (op->code == OP_nest && s->apart)
        nest_walk(op, spare_load, s);
    for (int i = 0; i < op->region_count && s->apart; i++) {
        const struct ir_region *r = op->regions[i];
        for (const struct ir_op *x = r->first; x && s->apart; x = x->next)
            spare_op(s, x);
        for (int k = 0; k < r->yield_count; k++)
            s->apart = s->apart && s->o->root[r->yields[k]->id] != s->value;
    }
}

static bool spares(struct graph *o, const struct writes *w, int node, int value) {
    struct spare_scan s = {.o = o, .w = w, .value = value, .apart = true};
    if (!w || !w->known || o->steps >= REACH_LIMIT)
        return false;
    spare_op(&s, o->nodes[node].op);
    return s.apart;
}

/* The node reads the value (a root), and `writer` makes the next version: it comes first, unless it may come later as well. */
static void reader_first(struct graph *o, int node, int value, int writer, const struct writes *w, int next) {
    if (spares(o, w, node, value))
        VEC_PUSH(o->arena, o->spared, (struct spared){next, node, value});
    else if (!reaches(o, writer, node))
        edge(o, node, writer);
}

/* For values that come from outside the region (arguments): found by operands. */
static bool reads_value(const struct ir_op *op, const struct ir_value *v) {
    for (int i = 0; i < op->operand_count; i++)
        if (op->operands[i] == v)
            return true;
    for (int i = 0; i < op->region_count; i++) {
        const struct ir_region *r = op->regions[i];
        for (const struct ir_op *x = r->first; x; x = x->next)
            if (reads_value(x, v))
                return true;
        for (int k = 0; k < r->yield_count; k++)
            if (r->yields[k] == v)
                return true;
    }
    return false;
}

/* Whether node i reads values of this root other than to make a view of them; `reads` is known of it. */
static bool reads_on(const struct graph *o, int i, int root) {
    const struct order_node *x = &o->nodes[i];
    return !x->late && !(x->op->code == OP_reshape && o->root[x->op->results[0]->id] == root);
}

static void list_readers(struct graph *o) {
    o->readers = ARENA_ARRAY(o->arena, struct readers, o->func->value_count + 1);
    for (int i = 0; i < o->n; i++)
        for (int k = 0; k < o->nodes[i].reads.n; k++)
            VEC_PUSH(o->arena, o->readers[o->nodes[i].reads.at[k]].nodes, i);
}

/* Readers of `old`, views included, before `writer`, which writes w of it (NULL: anything) to make the version `next`. */
static void old_before_new(struct graph *o, const struct ir_value *old, int writer, const struct writes *w,
                           const struct ir_value *next) {
    int value = o->root[old->id], known = o->spared.n, to = next ? o->root[next->id] : -1;
    const struct readers *readers = &o->readers[value];
    for (int k = 0; o->node_of[old->id] >= 0 && k < readers->nodes.n && o->steps < REACH_LIMIT; k++) {
        int i = readers->nodes.at[k];
        if (i != writer && reads_on(o, i, value))
            reader_first(o, i, value, writer, w, to);
    }
    for (int i = 0; o->node_of[old->id] < 0 && i < o->n && o->steps < REACH_LIMIT; i++)
        if (i != writer && reads_on(o, i, value) && reads_value(o->nodes[i].op, old))
            reader_first(o, i, value, writer, w, to);
    for (int i = 0; i < known && o->steps < REACH_LIMIT; i++) {
        struct spared s = o->spared.at[i];
        if (s.version == value && s.node != writer)
            reader_first(o, s.node, s.value, writer, w, to);
    }
}

/* Marks the operations that make the versions leading to v; the first of them replaces `entry`. */
static void mark_writers(struct graph *o, const struct ir_value *v) {
    while (v->op && v->op->parent == o->region) {
        struct order_node *x = &o->nodes[o->node_of[v->id]];
        struct ir_op *op = v->op;
        if (op->code == OP_read || op->code == OP_const)
            return;
        if (op->code == OP_reshape) {
            v = op->operands[0];
            continue;
        }
        x->writer = true;
        if (op->code == OP_nest && op->nest.results[v->index].base >= 0)
            v = op->operands[op->nest.results[v->index].base];
        else if (op->code == OP_for || op->code == OP_while)
            v = op->operands[(op->code == OP_for ? 2 : 0) + v->index];
        else
            return;
    }
}

/* Whether v is a later version of `old`, by updates and loops of this region: then each of them is looked at by itself. */
static bool succeeds(const struct graph *o, const struct ir_value *v, const struct ir_value *old) {
    while (v->op && v->op->parent == o->region && o->root[v->id] != o->root[old->id]) {
        const struct ir_op *op = v->op;
        if (op->code == OP_reshape)
            v = op->operands[0];
        else if (op->code == OP_nest && op->nest.results[v->index].base >= 0)
            v = op->operands[op->nest.results[v->index].base];
        else if (op->code == OP_for || op->code == OP_while)
            v = op->operands[(op->code == OP_for ? 2 : 0) + v->index];
        else
            return false;
    }
    return o->root[v->id] == o->root[old->id];
}

/* v takes the place of `old` at the region's end. */
static void old_before_last(struct graph *o, const struct ir_value *old, const struct ir_value *v) {
    int writer = o->node_of[v->id];
    if (writer >= 0 && writer != o->node_of[old->id] && !succeeds(o, v, old))
        old_before_new(o, old, writer, NULL, NULL);
}

static void write_after_read(struct graph *o) {
    struct ir_region *r = o->region;
    struct ir_func *f = o->func;
    for (int i = 0; i < o->n; i++) {
        struct ir_op *op = o->nodes[i].op;
        bool is_loop = op->code == OP_for || op->code == OP_while;
        for (int k = 0; (op->code == OP_nest || is_loop) && k < op->result_count; k++) {
            int old = is_loop ? (op->code == OP_for ? 2 : 0) + k : op->nest.results[k].base;
            if (old < 0)
                continue;
            struct writes w = writes_of(op, k);
            old_before_new(o, op->operands[old], i, &w, op->results[k]);
        }
        if (op->code == OP_write)
            for (int k = o->first_read[op->buffer.buffer->id]; k >= 0; k = o->next_read[k])
                old_before_last(o, o->nodes[k].op->results[0], op->operands[0]);
    }
    bool loop = r->op && (r->op->code == OP_for || r->op->code == OP_while);
    int skip = r->op && r->op->code == OP_for ? 1 : 0;
    if (loop && r->yield_count == r->arg_count - skip)
        for (int i = 0; i < r->yield_count; i++)
            old_before_last(o, r->args[skip + i], r->yields[i]);
    if (!r->op)
        for (int i = 0, k = f->result_count; i < r->arg_count && k < r->yield_count; i++)
            if (f->arg_inout && f->arg_inout[i])
                old_before_last(o, r->args[i], r->yields[k++]);
}

static void list_reads(struct graph *o) {
    int buffers = o->func->module->buffer_count;
    o->first_read = ARENA_ARRAY(o->arena, int, buffers + 1);
    o->next_read = ARENA_ARRAY(o->arena, int, o->n + 1);
    for (int i = 0; i < buffers; i++)
        o->first_read[i] = -1;
    for (int i = o->n; i-- > 0;)
        if (o->nodes[i].op->code == OP_read) {
            int *first = &o->first_read[o->nodes[i].op->buffer.buffer->id];
            o->next_read[i] = *first;
            *first = i;
        }
}

static void bind(struct graph *o) {
    struct ir_region *r = o->region;
    struct ir_func *f = o->func;
    for (int i = 0; i < f->value_count; i++) {
        o->node_of[i] = -1;
        o->root[i] = i;
    }
    for (int i = 0; i < o->n; i++) {
        struct ir_op *op = o->nodes[i].op;
        for (int k = 0; k < op->result_count; k++) {
            o->node_of[op->results[k]->id] = i;
            if (op->code == OP_reshape)
                o->root[op->results[k]->id] = o->root[op->operands[0]->id];
        }
    }
    int last_check = -1, last_effect = -1;
    for (int i = 0; i < o->n; i++) {
        struct order_node *x = &o->nodes[i];
        needs_op(o, i, x->op);
        bool checks = false;
        if (has_effect(x->op, &checks)) {
            if (last_effect >= 0)
                edge(o, last_effect, i);
            last_effect = i;
        }
        if (checks)
            last_check = i;
        x->late = x->op->code == OP_write;
        if (x->late)
            mark_writers(o, x->op->operands[0]);
    }
    if (!r->op)
        for (int k = f->result_count; k < r->yield_count; k++)
            mark_writers(o, r->yields[k]);
    for (int i = 0; i < o->n && last_check >= 0; i++)
        if (o->nodes[i].writer && i != last_check && !reaches(o, i, last_check))
            edge(o, last_check, i);
    list_readers(o);
    write_after_read(o);
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

static bool is_loop(const struct ir_op *op) {
    return op && (op->code == OP_for || op->code == OP_while);
}

/* Homes that may be written although they take no memory of this region: what a loop carries, inout arguments, buffers that a
 * `write` names. */
static void mark_outside(struct graph *o, bool *outside) {
    struct ir_region *r = o->region;
    for (int i = 0; i < r->arg_count; i++)
        outside[r->args[i]->id] = r->op ? is_loop(r->op) : o->func->arg_inout && o->func->arg_inout[i];
    for (int i = 0; i < o->n; i++)
        if (o->nodes[i].op->code == OP_write)
            for (int k = o->first_read[o->nodes[i].op->buffer.buffer->id]; k >= 0; k = o->next_read[k])
                outside[o->nodes[k].op->results[0]->id] = true;
}

/* Whether a loop's next carried value may be computed where the present one is. */
static bool next_in_place(struct graph *o, const struct ir_value *next, const struct ir_value *now) {
    const struct ir_op *op = next->op;
    for (int i = 0; i < op->operand_count; i++)
        if (o->root[op->operands[i]->id] == now->id)
            return inplace_allowed(op, next->index, op->operands[i], o->root);
    return op->region_count == 0;
}

/* The value from outside of r that v, made within, is a later version of; NULL: it is none. */
static const struct ir_value *version_of(const struct ir_value *v, const struct ir_region *r) {
    while (v && ir_value_defined_in(v, r)) {
        const struct ir_op *op = v->op;
        if (op && op->code == OP_reshape)
            v = op->operands[0];
        else if (op && op->code == OP_nest && op->nest.results[v->index].base >= 0)
            v = op->operands[op->nest.results[v->index].base];
        else if (is_loop(op))
            v = op->operands[(op->code == OP_for ? 2 : 0) + v->index];
        else
            return NULL;
    }
    return v;
}

/* What result k of the operation is the next version of, in the same memory if all goes well; NULL: of nothing. */
static const struct ir_value *version_before(const struct ir_op *op, int k) {
    if (op->code == OP_nest && op->nest.results[k].base >= 0)
        return op->operands[op->nest.results[k].base];
    if (is_loop(op))
        return op->operands[(op->code == OP_for ? 2 : 0) + k];
    const struct ir_value *before = NULL;
    for (int i = 0; op->code == OP_if && i < op->region_count && !before; i++)
        before = version_of(op->regions[i]->yields[k], op->regions[i]);
    return before;
}

/* v and the versions before it. */
static void mark_versions(struct graph *o, const struct ir_value *v, bool *elsewhere) {
    while (v && v->op && v->op->parent == o->region) {
        elsewhere[v->id] = true;
        v = v->op->code == OP_reshape ? v->op->operands[0] : version_before(v->op, v->index);
    }
}

/* Roots whose memory is a buffer, the caller's, or the loop's. */
static void mark_elsewhere(struct graph *o, bool *elsewhere) {
    struct ir_region *r = o->region;
    for (int i = 0; i < o->n; i++)
        if (o->nodes[i].op->code == OP_write)
            mark_versions(o, o->nodes[i].op->operands[0], elsewhere);
    int skip = r->op && r->op->code == OP_for ? 1 : 0;
    for (int i = 0; i < r->yield_count; i++) {
        const struct ir_value *v = r->yields[i];
        if (!r->op || (is_loop(r->op) && r->arg_count == r->yield_count + skip && v->op && v->op->parent == r &&
                       next_in_place(o, v, r->args[skip + i])))
            mark_versions(o, v, elsewhere);
    }
}

static void touch(struct order *order, struct graph *o, struct order_node *x, int root) {
    int home = o->home[root];
    if (!order->bytes[home])
        return;
    for (int i = 0; i < x->touches.n; i++)
        if (x->touches.at[i] == home)
            return;
    VEC_PUSH(o->arena, x->touches, home);
    order->uses[home]++;
}

/* A fresh result of the same size may take the place of an operand that dies, where the nest allows that. */
static void find_over(struct order *order, struct graph *o, struct order_node *x) {
    struct ir_op *op = x->op;
    for (int k = 0; k < op->result_count; k++)
        for (int j = 0; inplace_is_fresh(op, k) && j < op->operand_count; j++) {
            int made = op->results[k]->id, home = o->home[o->root[op->operands[j]->id]];
            if (o->home[made] != made || !order->bytes[made] || made == home ||
                order->bytes[home] != order->bytes[made] || !inplace_allowed(op, k, op->operands[j], o->root))
                continue;
            VEC_PUSH(o->arena, x->over, made);
            VEC_PUSH(o->arena, x->over, home);
        }
}

static void find_homes(struct order *order, struct graph *o) {
    int count = o->func->value_count + 1;
    bool *outside = ARENA_ARRAY(o->arena, bool, count), *elsewhere = ARENA_ARRAY(o->arena, bool, count);
    mark_outside(o, outside);
    mark_elsewhere(o, elsewhere);
    for (int i = 0; i < count; i++)
        o->home[i] = i;
    for (int i = 0; i < o->n; i++) {
        struct order_node *x = &o->nodes[i];
        struct ir_op *op = x->op;
        for (int k = 0; k < op->result_count && op->code != OP_reshape; k++) {
            const struct ir_value *v = op->results[k], *before = version_before(op, k);
            int home = before ? o->home[o->root[before->id]] : -1;
            if (home >= 0 && (order->bytes[home] || outside[home] || elsewhere[home])) {
                o->home[v->id] = home;
                continue;
            }
            if (op->code == OP_read || op->code == OP_const || v->type.rank == 0 || elsewhere[v->id])
                continue;
            order->bytes[v->id] = (ir_type_bytes_upper(v->type) + 63) / 64 * 64;
            if (order->bytes[v->id])
                VEC_PUSH(o->arena, x->makes, v->id);
        }
    }
    for (int i = 0; i < o->n; i++) {
        struct order_node *x = &o->nodes[i];
        for (int k = 0; k < x->reads.n; k++)
            touch(order, o, x, x->reads.at[k]);
        find_over(order, o, x);
    }
    for (int i = 0; i < o->region->yield_count; i++) {
        int home = o->home[o->root[o->region->yields[i]->id]];
        if (order->bytes[home])
            order->uses[home]++;
    }
}

void order_build(struct order *order, struct pass_context *c) {
    struct arena *a = order->arena;
    size_t values = (size_t)order->func->value_count + 1, nodes = (size_t)order->n + 1;
    struct graph o = {.func = order->func, .region = order->region, .arena = a, .nodes = order->nodes, .n = order->n};
    o.node_of = ARENA_ARRAY(a, int, values);
    o.root = ARENA_ARRAY(a, int, values);
    o.home = ARENA_ARRAY(a, int, values);
    o.stamp = ARENA_ARRAY(a, int, nodes);
    o.stack = ARENA_ARRAY(a, int, nodes);
    list_reads(&o);
    bind(&o);
    order->bytes = ARENA_ARRAY(a, int64_t, values);
    order->uses = ARENA_ARRAY(a, int, values);
    for (int i = 0; i < o.n; i++) {
        struct order_node *x = &o.nodes[i];
        x->branch = x->op->code == OP_if || x->op->code == OP_checkpoint;
        if (c->workspace)
            x->workspace = c->workspace(c->options, NULL, x->op);
    }
    find_homes(order, &o);
}
