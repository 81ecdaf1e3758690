/* An order of each region's operations with a small peak of memory.
 *
 * The exact problem is NP-hard (register sufficiency, Sethi 1975), so several list schedules are simulated and the one
 * with the smallest peak is kept, the source's own order first among equals:
 *
 *   source    the order of the program
 *   release   the program's, but whatever frees more than it takes goes at once: this is what puts an optimizer's update
 *             right behind the last use of its parameter, so that gradients never live all together
 *   greedy    least growth first
 *   backward  least growth first, from the end
 *
 * Besides data, these edges bind the order: operations with outside effects and checks stay in the program's order;
 * whatever will write a buffer in place comes after the last check that does not need its result; and readers of an old
 * version come before the operation that may overwrite it, where that makes no cycle (write after read).
 */
#include "passes/passes.h"

#include <stdlib.h>
#include <string.h>

#include "passes/nest_edit.h"

#define REACH_LIMIT 30000000 /* steps of cycle tests a region before write-after-read edges are given up */

struct node {
    struct ir_op *op;
    VEC(int) next, before;
    VEC(int) reads; /* roots of values of this region that it reads, each once */
    int waits;
    int64_t inner; /* peak inside its regions */
    bool writer;   /* writes a buffer or inout argument in place, we hope */
    bool late;     /* a write operation */
};

struct order {
    struct ir_func *func;
    struct ir_region *region;
    struct arena *arena;
    struct node *nodes;
    int n;
    int *node_of;   /* [value_count]: what makes it in this region, or the node that uses are inside of; else -1 */
    int *root;      /* [value_count]: the value whose memory it is */
    int64_t *bytes; /* [value_count], 0 for what needs none */
    int *uses;      /* [value_count] of roots: readers left; yields count */
    int *stamp;
    int stamp_now;
    int *stack;    /* [n] */
    bool backward; /* some edge leads to an earlier operation of the program */
    int64_t steps;
};

static int64_t order_region(struct ir_region *r, struct arena *a, bool *changed);

/* ---- edges -------------------------------------------------------------------------------------------------------- */

static void edge(struct order *o, int from, int to) {
    if (from == to)
        return;
    struct node *f = &o->nodes[from], *t = &o->nodes[to];
    if (f->next.n && f->next.at[f->next.n - 1] == to)
        return;
    o->backward |= to < from;
    VEC_PUSH(o->arena, f->next, to);
    VEC_PUSH(o->arena, t->before, from);
}

static void needs_value(struct order *o, int node, const struct ir_value *v) {
    int from = o->node_of[v->id];
    if (from < 0 || from == node)
        return;
    edge(o, from, node);
    int root = o->root[v->id];
    struct node *x = &o->nodes[node];
    for (int i = 0; i < x->reads.n; i++)
        if (x->reads.at[i] == root)
            return;
    VEC_PUSH(o->arena, x->reads, root);
    o->uses[root]++;
}

struct symbol_scan {
    struct order *o;
    int node;
};

static int node_holding(struct order *o, const struct ir_op *op);

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

static void needs_symbols(struct order *o, int node, const struct ir_op *op) {
    struct symbol_scan c = {o, node};
    for (int i = 0; i < op->result_count; i++)
        for (int d = 0; d < op->results[i]->type.rank; d++)
            ir_dim_symbols(op->results[i]->type.dims[d], needs_symbol, &c);
    if (op->code == OP_sort && op->sort.limit)
        ir_dim_symbols(op->sort.limit, needs_symbol, &c);
    if ((op->code == OP_for || op->code == OP_while) && op->loop.limit)
        ir_dim_symbols(op->loop.limit, needs_symbol, &c);
    if (op->code != OP_nest)
        return;
    const struct ir_nest *n = &op->nest;
    for (int i = 0; i < n->pars + n->reds; i++) {
        ir_dim_symbols(n->indices[i].extent, needs_symbol, &c);
    }
    nest_walk(op, needs_expr, &c);
}

static void needs_op(struct order *o, int node, struct ir_op *op) {
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
    if (e == EFFECT_CHECKS || ((op->code == OP_for || op->code == OP_while) && op->loop.limit))
        *checks = found = true;
    for (int i = 0; i < op->region_count; i++)
        for (const struct ir_op *x = op->regions[i]->first; x; x = x->next)
            found |= has_effect(x, checks);
    return found;
}

/* The node of this region that is op or holds it; -1 if it stands outside. `dim` operations give no value to look up. */
static int node_holding(struct order *o, const struct ir_op *op) {
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

static bool reaches(struct order *o, int from, int to) {
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

/* Readers of `old`, views included, before `writer`. */
static void readers_first(struct order *o, const struct ir_value *old, int writer) {
    int root = o->root[old->id];
    for (int i = 0; i < o->n && o->steps < REACH_LIMIT; i++) {
        struct node *x = &o->nodes[i];
        if (i == writer || x->late)
            continue;
        bool reader = false;
        for (int k = 0; k < x->reads.n; k++)
            reader |= x->reads.at[k] == root;
        if (x->op->code == OP_reshape && o->root[x->op->results[0]->id] == root)
            continue;
        if (reader && !reaches(o, writer, i))
            edge(o, i, writer);
    }
}

/* The same for values that come from outside the region (arguments): found by operands. */
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

static void argument_readers_first(struct order *o, const struct ir_value *old, int writer) {
    for (int i = 0; i < o->n && o->steps < REACH_LIMIT; i++)
        if (i != writer && !o->nodes[i].late && reads_value(o->nodes[i].op, old) && !reaches(o, writer, i))
            edge(o, i, writer);
}

/* Marks the operations that make the versions leading to v; the first of them replaces `entry`. */
static void mark_writers(struct order *o, const struct ir_value *v) {
    while (v->op && v->op->parent == o->region) {
        struct node *x = &o->nodes[o->node_of[v->id]];
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

static void old_before_new(struct order *o, const struct ir_value *old, int writer) {
    if (o->node_of[old->id] >= 0)
        readers_first(o, old, writer);
    else
        argument_readers_first(o, old, writer);
}

static void write_after_read(struct order *o) {
    struct ir_region *r = o->region;
    struct ir_func *f = o->func;
    for (int i = 0; i < o->n; i++) {
        struct ir_op *op = o->nodes[i].op;
        if (op->code == OP_nest)
            for (int k = 0; k < op->result_count; k++)
                if (op->nest.results[k].base >= 0)
                    old_before_new(o, op->operands[op->nest.results[k].base], i);
        if (op->code == OP_for || op->code == OP_while)
            for (int k = 0; k < op->result_count; k++)
                old_before_new(o, op->operands[(op->code == OP_for ? 2 : 0) + k], i);
        if (op->code == OP_write) {
            const struct ir_value *v = op->operands[0];
            int writer = o->node_of[v->id];
            for (int k = 0; writer >= 0 && k < o->n; k++)
                if (o->nodes[k].op->code == OP_read && o->nodes[k].op->buffer.buffer == op->buffer.buffer &&
                    k != writer)
                    old_before_new(o, o->nodes[k].op->results[0], writer);
        }
    }
    bool loop = r->op && (r->op->code == OP_for || r->op->code == OP_while);
    int skip = r->op && r->op->code == OP_for ? 1 : 0;
    if (loop && r->yield_count == r->arg_count - skip)
        for (int i = 0; i < r->yield_count; i++)
            if (o->node_of[r->yields[i]->id] >= 0)
                old_before_new(o, r->args[skip + i], o->node_of[r->yields[i]->id]);
    if (!r->op)
        for (int i = 0, k = f->result_count; i < r->arg_count && k < r->yield_count; i++)
            if (f->arg_inout && f->arg_inout[i]) {
                if (o->node_of[r->yields[k]->id] >= 0)
                    old_before_new(o, r->args[i], o->node_of[r->yields[k]->id]);
                k++;
            }
}

static void build(struct order *o) {
    struct ir_region *r = o->region;
    struct ir_func *f = o->func;
    for (int i = 0; i < f->value_count; i++) {
        o->node_of[i] = -1;
        o->root[i] = i;
    }
    for (int i = 0; i < o->n; i++) {
        struct ir_op *op = o->nodes[i].op;
        for (int k = 0; k < op->result_count; k++) {
            struct ir_value *v = op->results[k];
            o->node_of[v->id] = i;
            if (op->code == OP_reshape)
                o->root[v->id] = o->root[op->operands[0]->id];
            else if (op->code != OP_read && op->code != OP_const && v->type.rank > 0)
                o->bytes[v->id] = ir_type_bytes_upper(v->type);
        }
    }
    int last_check = -1, last_effect = -1;
    for (int i = 0; i < o->n; i++) {
        struct node *x = &o->nodes[i];
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
    for (int i = 0; i < r->yield_count; i++)
        o->uses[o->root[r->yields[i]->id]]++;
    for (int i = 0; i < o->n && last_check >= 0; i++)
        if (o->nodes[i].writer && i != last_check && !reaches(o, i, last_check))
            edge(o, last_check, i);
    write_after_read(o);
    /* Versions of a buffer live in the buffer. */
    for (int i = 0; i < o->n; i++)
        for (int k = 0; o->nodes[i].writer && k < o->nodes[i].op->result_count; k++)
            if (o->nodes[i].op->code != OP_nest || o->nodes[i].op->nest.results[k].base >= 0)
                o->bytes[o->nodes[i].op->results[k]->id] = 0;
}

/* ---- schedules ---------------------------------------------------------------------------------------------------- */

enum strategy { SOURCE, RELEASE, GREEDY, BACKWARD, STRATEGIES };

/* What running x now adds to the memory in use; left: readers to come. */
static int64_t growth(const struct order *o, const struct node *x, const int *left) {
    int64_t g = 0;
    for (int k = 0; k < x->op->result_count; k++) {
        int v = x->op->results[k]->id;
        if (o->root[v] == v && o->uses[v] > 0)
            g += o->bytes[v];
    }
    for (int k = 0; k < x->reads.n; k++)
        if (left[x->reads.at[k]] == 1)
            g -= o->bytes[x->reads.at[k]];
    return g;
}

/* The same when time runs backward: results end, operands begin. */
static int64_t growth_backward(const struct order *o, const struct node *x, const int *left) {
    int64_t g = 0;
    for (int k = 0; k < x->op->result_count; k++) {
        int v = x->op->results[k]->id;
        if (o->root[v] == v && o->uses[v] > 0)
            g -= o->bytes[v];
    }
    for (int k = 0; k < x->reads.n; k++)
        if (left[x->reads.at[k]] == o->uses[x->reads.at[k]])
            g += o->bytes[x->reads.at[k]];
    return g;
}

static void schedule(struct order *o, enum strategy how, int *out) {
    int *left = arena_copy(o->arena, o->uses, sizeof *o->uses * (size_t)(o->func->value_count + 1));
    int *ready = ARENA_ARRAY(o->arena, int, o->n + 1), count = 0, done = 0;
    bool backward = how == BACKWARD;
    if (backward)
        for (int i = 0; i < o->region->yield_count; i++)
            left[o->root[o->region->yields[i]->id]]--;
    for (int i = 0; i < o->n; i++) {
        o->nodes[i].waits = backward ? o->nodes[i].next.n : o->nodes[i].before.n;
        if (!o->nodes[i].waits)
            ready[count++] = i;
    }
    while (count) {
        int best = -1;
        int64_t best_key = 0;
        for (int k = 0; k < count; k++) {
            int i = ready[k];
            struct node *x = &o->nodes[i];
            int64_t key = 0;
            if (x->late)
                key = backward ? INT64_MIN : INT64_MAX; /* writes stand at the end */
            else if (how == RELEASE || how == GREEDY) {
                key = growth(o, x, left);
                if (how == RELEASE && key > 0)
                    key = 0;
            } else if (how == BACKWARD) {
                key = growth_backward(o, x, left);
            }
            if (best < 0 || key < best_key || (key == best_key && (backward ? i > ready[best] : i < ready[best]))) {
                best = k;
                best_key = key;
            }
        }
        int i = ready[best];
        ready[best] = ready[--count];
        struct node *x = &o->nodes[i];
        for (int k = 0; k < x->reads.n; k++)
            left[x->reads.at[k]]--;
        out[backward ? o->n - 1 - done : done] = i;
        done++;
        int n = backward ? x->before.n : x->next.n;
        for (int k = 0; k < n; k++) {
            int y = backward ? x->before.at[k] : x->next.at[k];
            if (--o->nodes[y].waits == 0)
                ready[count++] = y;
        }
    }
    if (done != o->n) /* a cycle would be a bug of the edges above; the program's order is always legal data-wise */
        abort();
}

static bool elementwise(const struct ir_op *op) {
    return op->code == OP_nest && op->nest.reds == 0;
}

static int64_t peak_of(struct order *o, const int *order) {
    int *left = arena_copy(o->arena, o->uses, sizeof *o->uses * (size_t)(o->func->value_count + 1));
    int64_t live = 0, peak = 0;
    for (int s = 0; s < o->n; s++) {
        const struct node *x = &o->nodes[order[s]];
        int64_t made = 0, freed = 0, reused = 0;
        for (int k = 0; k < x->op->result_count; k++) {
            int v = x->op->results[k]->id;
            if (o->root[v] == v && o->uses[v] > 0)
                made += o->bytes[v];
        }
        for (int k = 0; k < x->reads.n; k++) {
            int v = x->reads.at[k];
            if (--left[v] > 0)
                continue;
            freed += o->bytes[v];
            for (int j = 0; j < x->op->result_count; j++)
                if (elementwise(x->op) && o->bytes[v] && o->bytes[x->op->results[j]->id] == o->bytes[v]) {
                    reused += o->bytes[v];
                    break;
                }
        }
        if (reused > made)
            reused = made;
        int64_t now = live + made - reused + x->inner;
        if (now > peak)
            peak = now;
        live += made - freed;
    }
    return peak;
}

static int64_t order_region(struct ir_region *r, struct arena *a, bool *changed) {
    struct order o = {.func = r->func, .region = r, .arena = a};
    for (struct ir_op *op = r->first; op; op = op->next)
        o.n++;
    if (!o.n)
        return 0;
    size_t values = (size_t)r->func->value_count + 1;
    o.nodes = ARENA_ARRAY(a, struct node, o.n);
    o.node_of = ARENA_ARRAY(a, int, values);
    o.root = ARENA_ARRAY(a, int, values);
    o.bytes = ARENA_ARRAY(a, int64_t, values);
    o.uses = ARENA_ARRAY(a, int, values);
    o.stamp = ARENA_ARRAY(a, int, o.n + 1);
    o.stack = ARENA_ARRAY(a, int, o.n + 1);
    int i = 0;
    for (struct ir_op *op = r->first; op; op = op->next, i++) {
        o.nodes[i].op = op;
        if (op->code == OP_if || op->code == OP_for || op->code == OP_while || op->code == OP_checkpoint)
            for (int k = 0; k < op->region_count; k++) {
                int64_t inner = order_region(op->regions[k], a, changed);
                if (inner > o.nodes[i].inner)
                    o.nodes[i].inner = inner;
            }
    }
    build(&o);
    int *best = NULL;
    int64_t best_peak = 0;
    for (int how = 0; how < STRATEGIES; how++) {
        int *order = ARENA_ARRAY(a, int, o.n);
        schedule(&o, (enum strategy)how, order);
        int64_t peak = peak_of(&o, order);
        if (!best || peak < best_peak) {
            best = order;
            best_peak = peak;
        }
    }
    for (i = 0; i < o.n; i++)
        *changed |= best[i] != i;
    for (i = o.n - 2; i >= 0; i--) /* from the end: each before its successor */
        ir_op_move_before(o.nodes[best[i]].op, o.nodes[best[i + 1]].op);
    return best_peak;
}

bool pass_order(struct pass_context *c) {
    struct ir_module *m = c->module;
    bool changed = false;
    for (int i = 0; i <= m->func_count; i++) {
        struct ir_func *f = i < m->func_count ? m->funcs[i] : m->init;
        struct arena a = {0};
        if (f)
            order_region(f->body, &a, &changed);
        arena_free(&a);
    }
    return changed;
}
