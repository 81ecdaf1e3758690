/* An order of each region's operations with a small peak of memory, inner regions first: what goes on inside of an operation
 * is, for the region around it, memory that it needs while it runs. order_schedule.c finds the orders, order_graph.c says what
 * binds them.
 */
#include "passes/memplan/order_internal.h"
#include "passes/memplan/plan_steps.h"

#define FAST_STEPS INT64_C(4000000) /* of the search, for all regions of a function; about a third of a second */
#define BEST_STEPS INT64_C(40000000)

struct ordering {
    struct pass_context *c;
    struct arena *arena;
    int64_t steps;
    bool quick, changed;
};

struct peak {
    int64_t reached, bound;
    const char *method;
};

static struct peak order_region(struct ordering *s, struct ir_region *r) {
    struct arena *a = s->arena;
    struct order o = {.func = r->func, .region = r, .arena = a, .quick = s->quick, .steps = s->steps};
    struct peak peak = {0, 0, "source"};
    for (struct ir_op *op = r->first; op; op = op->next)
        o.n++;
    if (!o.n)
        return peak;
    o.nodes = ARENA_ARRAY(a, struct order_node, o.n);
    int i = 0;
    for (struct ir_op *op = r->first; op; op = op->next, i++) {
        o.nodes[i].op = op;
        if (op->code != OP_if && op->code != OP_for && op->code != OP_while && op->code != OP_checkpoint)
            continue;
        for (int k = 0; k < op->region_count; k++) {
            struct peak inner = order_region(s, op->regions[k]);
            if (inner.reached > o.nodes[i].inner)
                o.nodes[i].inner = inner.reached;
            if (inner.bound > o.nodes[i].inner_bound)
                o.nodes[i].inner_bound = inner.bound;
        }
    }
    o.steps = s->steps;
    order_build(&o, s->c);
    int *best = ARENA_ARRAY(a, int, o.n);
    peak.reached = order_schedule(&o, best, &peak.method);
    peak.bound = o.bound;
    s->steps = o.steps;
    for (i = 0; i < o.n; i++)
        s->changed |= best[i] != i;
    for (i = o.n - 2; i >= 0; i--) /* from the end: each before its successor */
        ir_op_move_before(o.nodes[best[i]].op, o.nodes[best[i + 1]].op);
    return peak;
}

bool order_func(struct pass_context *c, struct ir_func *f, int64_t steps, struct order_result *result) {
    struct arena a = {0};
    struct ordering s = {.c = c, .arena = &a, .quick = steps == 0, .steps = steps};
    struct peak peak = order_region(&s, f->body);
    *result = (struct order_result){f, peak.method, peak.reached, peak.bound};
    arena_free(&a);
    return s.changed;
}

bool pass_order(struct pass_context *c) {
    struct ir_module *m = c->module;
    bool changed = false;
    c->order_count = 0;
    c->orders = ARENA_ARRAY(&m->arena, struct order_result, m->func_count + 1);
    for (int i = 0; i <= m->func_count; i++) {
        struct ir_func *f = i < m->func_count ? m->funcs[i] : m->init;
        if (f)
            changed |= order_func(c, f, c->options && c->options->plan_best ? BEST_STEPS : FAST_STEPS,
                                  &c->orders[c->order_count++]);
    }
    return changed;
}
