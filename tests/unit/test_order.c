/* The order of operations: against all orders of small graphs, of plain values and of random programs. */
#include <criterion/criterion.h>
#include <string.h>

#include "passes/memplan/order_internal.h"
#include "tests/unit/plan_random.h"

/* The lowest peak of any order: all of them, one operation after the other. */
static int64_t lowest(const struct order *o, struct order_memory *m, int *waits, bool *done, int ran, int64_t peak,
                      int64_t best) {
    if (peak >= best)
        return best;
    if (ran == o->n)
        return peak;
    for (int i = 0; i < o->n; i++) {
        const struct order_node *x = &o->nodes[i];
        bool late_too_early = false;
        for (int k = 0; x->late && k < o->n; k++)
            late_too_early |= !done[k] && !o->nodes[k].late;
        if (done[i] || waits[i] || late_too_early)
            continue;
        int64_t during = order_during(m, x);
        done[i] = true;
        order_run(m, x);
        for (int k = 0; k < x->next.n; k++)
            waits[x->next.at[k]]--;
        best = lowest(o, m, waits, done, ran + 1, during > peak ? during : peak, best);
        for (int k = 0; k < x->next.n; k++)
            waits[x->next.at[k]]++;
        order_unrun(m, x);
        done[i] = false;
    }
    return best;
}

static void expect_exact(struct order *o, const char *what, int seed, int *searched) {
    struct order_memory m;
    int *waits = ARENA_ARRAY(o->arena, int, o->n + 1), *best = ARENA_ARRAY(o->arena, int, o->n + 1);
    bool *done = ARENA_ARRAY(o->arena, bool, o->n + 1);
    const char *method = NULL;
    order_memory_init(&m, o);
    for (int i = 0; i < o->n; i++)
        waits[i] = o->nodes[i].before.n;
    int64_t truth = lowest(o, &m, waits, done, 0, 0, INT64_MAX);
    int64_t peak = order_schedule(o, best, &method);
    cr_assert_eq(peak, truth, "%s %d: %lld by %s, %lld is possible", what, seed, (long long)peak, method,
                 (long long)truth);
    cr_assert_eq(o->bound, truth, "%s %d: no proof: %lld of %lld", what, seed, (long long)o->bound, (long long)truth);
    /* The order is one: everything once, each after what it needs. */
    memset(done, 0, sizeof *done * (size_t)o->n);
    for (int s = 0; s < o->n; s++) {
        const struct order_node *x = &o->nodes[best[s]];
        for (int k = 0; k < x->before.n; k++)
            cr_assert(done[x->before.at[k]], "%s %d", what, seed);
        cr_assert(!done[best[s]]);
        done[best[s]] = true;
    }
    *searched += !strcmp(method, "search");
}

/* A graph of operations with one result each, of 1 to 9 units; some in the place of an operand, some with a workspace. */
static void random_graph(struct order *o, uint64_t *s, struct ir_func *f) {
    o->func = f;
    o->n = f->value_count;
    o->nodes = ARENA_ARRAY(o->arena, struct order_node, o->n);
    o->bytes = ARENA_ARRAY(o->arena, int64_t, o->n + 1);
    o->uses = ARENA_ARRAY(o->arena, int, o->n + 1);
    for (int i = 0; i < o->n; i++) {
        struct order_node *x = &o->nodes[i];
        o->bytes[i] = 1 + pick(s, 9);
        x->workspace = pick(s, 4) ? 0 : pick(s, 12);
        VEC_PUSH(o->arena, x->makes, i);
        for (int k = 0; k < i; k++) {
            if (pick(s, i + 1) > 1)
                continue;
            VEC_PUSH(o->arena, x->touches, k);
            VEC_PUSH(o->arena, x->before, k);
            VEC_PUSH(o->arena, o->nodes[k].next, i);
            o->uses[k]++;
            if (o->bytes[k] == o->bytes[i] && pick(s, 2)) {
                VEC_PUSH(o->arena, x->over, i);
                VEC_PUSH(o->arena, x->over, k);
            }
        }
        o->uses[i] += !pick(s, 6); /* outlives the region */
    }
}

Test(order, random_graphs_are_ordered_exactly) {
    int searched = 0;
    for (int seed = 0; seed < 400; seed++) {
        uint64_t s = (uint64_t)seed * 77 + 5;
        struct arena a = {0};
        struct ir_func f = {.value_count = 3 + pick(&s, 7)};
        struct order o = {.arena = &a, .steps = 100000};
        random_graph(&o, &s, &f);
        expect_exact(&o, "graph", seed, &searched);
        arena_free(&a);
    }
    cr_expect_gt(searched, 5, "the list schedules found all"); /* else the search is not tested */
}

Test(order, random_programs_are_ordered_exactly) {
    int searched = 0, regions = 0;
    for (int seed = 0; seed < 300; seed++) {
        struct diag d;
        struct arena a = {0};
        diag_init(&d);
        struct ir_module *m = ir_module_new(&d, "random");
        struct ir_func *f = random_func(m, (uint64_t)seed, 2 + seed % 5);
        struct order o = {.func = f, .region = f->body, .arena = &a, .steps = 100000};
        struct pass_context c = {.module = m, .diag = &d};
        int plain = 0;
        for (struct ir_op *op = f->body->first; op; op = op->next, o.n++)
            plain += op->code != OP_read && op->code != OP_write && op->code != OP_const;
        o.nodes = ARENA_ARRAY(&a, struct order_node, o.n + 1);
        int i = 0;
        for (struct ir_op *op = f->body->first; op; op = op->next)
            o.nodes[i++].op = op;
        if (o.n && plain <= 7) {
            order_build(&o, &c);
            if (o.n <= 11) {
                expect_exact(&o, "program", seed, &searched);
                regions++;
            }
        }
        arena_free(&a);
        ir_module_free(m);
        diag_free(&d);
    }
    cr_expect_gt(regions, 50);
}
