/* Reverse mode over the scalar expressions of a nest: from seeds at some roots to the adjoint of each load and accumulator.
 *
 * An expression is a DAG whose nodes are numbered children first, so one sweep from the largest number down visits every
 * node after all its users: shared subexpressions are differentiated once. The rules are the rows of ir/scalar.def.
 */
#include <stdlib.h>
#include <string.h>

#include "ir/text.h"
#include "passes/differentiate_internal.h"

struct node {
    ir_expr e, adjoint;
    signed char active; /* -1: not known yet */
};

struct sweep {
    struct scalar_reverse *s;
    struct node *nodes; /* open addressing by expression id */
    int count, cap;
};

static struct node *node_of(struct sweep *w, ir_expr e) {
    if (w->count * 2 >= w->cap) {
        struct node *old = w->nodes;
        int old_cap = w->cap;
        w->cap = old_cap ? old_cap * 2 : 64;
        w->nodes = ARENA_ARRAY(&w->s->g->scratch, struct node, w->cap);
        for (int i = 0; i < old_cap; i++)
            if (old[i].e) {
                unsigned k = (unsigned)old[i].e->id * 2654435761u % (unsigned)w->cap;
                while (w->nodes[k].e)
                    k = (k + 1) % (unsigned)w->cap;
                w->nodes[k] = old[i];
            }
    }
    unsigned k = (unsigned)e->id * 2654435761u % (unsigned)w->cap;
    while (w->nodes[k].e && w->nodes[k].e != e)
        k = (k + 1) % (unsigned)w->cap;
    if (!w->nodes[k].e) {
        w->nodes[k] = (struct node){e, NULL, -1};
        w->count++;
    }
    return &w->nodes[k];
}

static bool active_in(struct sweep *w, ir_expr e) {
    if (!dtype_is_float(e->dtype))
        return false;
    struct node *n = node_of(w, e);
    if (n->active >= 0)
        return n->active;
    bool a = false;
    switch (e->kind) {
    case X_LOAD: {
        struct ir_op *op = w->s->nest;
        a = e->index < op->operand_count && grad_varied(w->s->g, op->operands[e->index]);
        if (e->guarded)
            a |= active_in(w, e->args[e->count - 1]);
        break;
    }
    case X_ACC: a = w->s->acc_active && w->s->acc_active[e->index]; break;
    case X_FN:
    case X_CAST:
        for (int i = 0; i < e->count; i++)
            a |= active_in(w, e->args[i]);
        break;
    default: break;
    }
    node_of(w, e)->active = a;
    return a;
}

bool scalar_active(struct scalar_reverse *s, ir_expr e) {
    struct sweep w = {.s = s};
    return active_in(&w, e);
}

static void add_adjoint(struct sweep *w, ir_expr e, ir_expr d) {
    double value;
    if (!active_in(w, e) || (ir_expr_is_const(d, &value) && value == 0))
        return;
    struct node *n = node_of(w, e);
    n->adjoint = n->adjoint ? ir_fn2(w->s->g->m, FN_add, n->adjoint, d) : d;
}

static ir_expr primal(struct sweep *w, ir_expr e) {
    ir_expr stored = w->s->stored && e->kind == X_FN ? w->s->stored(w->s->context, e) : NULL;
    return stored ? stored : e;
}

static void found(struct sweep *w, ir_expr leaf, ir_expr adjoint) {
    struct scalar_reverse *s = w->s;
    if (s->found_count == s->found_cap)
        s->found = vec_grow(&s->g->scratch, s->found, sizeof *s->found, &s->found_cap);
    s->found[s->found_count++] = (struct scalar_adjoint){leaf, adjoint};
}

static void reverse_node(struct sweep *w, ir_expr e, ir_expr d) {
    struct ir_module *m = w->s->g->m;
    switch (e->kind) {
    case X_LOAD:
        if (grad_varied(w->s->g, w->s->nest->operands[e->index]))
            found(w, e, d);
        if (e->guarded && active_in(w, e->args[e->count - 1])) {
            ir_expr inside = grad_inside(m, w->s->nest->operands, e);
            add_adjoint(w, e->args[e->count - 1], ir_fn3(m, FN_where, inside, ir_const_number(m, e->dtype, 0), d));
        }
        break;
    case X_ACC: found(w, e, d); break;
    case X_CAST: add_adjoint(w, e->args[0], ir_cast(m, e->args[0]->dtype, d)); break;
    case X_FN: {
        static const char *const names[5] = {"y", "g", "a", "b", "c"};
        ir_expr values[5] = {primal(w, e), d};
        for (int i = 0; i < e->count; i++)
            values[2 + i] = primal(w, e->args[i]);
        for (int i = 0; i < e->count; i++)
            if (active_in(w, e->args[i])) {
                const char *rule = scalar_table[e->fn].derivatives[i];
                if (strcmp(rule, "0") != 0)
                    add_adjoint(w, e->args[i], ir_parse_scalar(m, rule, e->dtype, names, values, 2 + e->count));
            }
        break;
    }
    default: break;
    }
}

static void collect(struct sweep *w, ir_expr e, struct sweep *seen) {
    if (!active_in(w, e) || node_of(seen, e)->active > 0)
        return;
    node_of(seen, e)->active = 1;
    if (e->kind == X_LOAD) {
        if (e->guarded)
            collect(w, e->args[e->count - 1], seen);
    } else {
        for (int i = 0; i < e->count; i++)
            collect(w, e->args[i], seen);
    }
}

static int by_id_down(const void *a, const void *b) {
    return (*(const ir_expr *)b)->id - (*(const ir_expr *)a)->id;
}

void scalar_reverse(struct scalar_reverse *s, const ir_expr *roots, const ir_expr *seeds, int n) {
    struct sweep w = {.s = s}, seen = {.s = s};
    for (int i = 0; i < n; i++)
        if (seeds[i]) {
            collect(&w, roots[i], &seen);
            add_adjoint(&w, roots[i], seeds[i]);
        }
    ir_expr *order = ARENA_ARRAY(&s->g->scratch, ir_expr, seen.count);
    int count = 0;
    for (int i = 0; i < seen.cap; i++)
        if (seen.nodes[i].e && seen.nodes[i].active > 0)
            order[count++] = seen.nodes[i].e;
    if (count)
        qsort(order, (size_t)count, sizeof *order, by_id_down);
    for (int i = 0; i < count; i++) {
        ir_expr d = node_of(&w, order[i])->adjoint;
        if (d)
            reverse_node(&w, order[i], d);
    }
}
