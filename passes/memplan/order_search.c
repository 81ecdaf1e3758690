/* Whether some order of a region keeps within a limit of memory: a depth-first search over the sets of operations that have run
 * (down-sets of the graph), whose memory depends on the set alone. Sets that led nowhere are remembered, which makes it the
 * dynamic programming over down-sets of SERENITY (Ahn et al., "Ordering Chaos", MLSys 2020) with the limit as its budget, but one
 * that stops at the first order found.
 *
 * An operation that fits and leaves no more alive than before runs at once: whatever order follows, moving it to here keeps that
 * order within the limit, since results of others are freed no later. Only where every operation that fits makes more alive is
 * there a choice.
 *
 * Three rules of what to try first (least growth, the program's order, its end first) take turns with a limit on steps that
 * doubles from turn to turn.
 */
#include <stdlib.h>
#include <string.h>

#include "passes/memplan/key_set.h"
#include "passes/memplan/order_internal.h"

struct choices {          /* a set at which operations were chosen from */
    int first, next, end; /* of `options` */
    int depth;            /* operations that had run */
    struct state_key key;
};

enum prefer { LEAST_GROWTH, EARLIEST, LATEST, PREFERENCES };

struct option {
    int64_t rank;
    int node;
};

struct search {
    struct order *o;
    struct arena arena;
    struct order_memory m;
    enum prefer prefer;
    int64_t limit, lowest_above; /* the least memory above the limit that stopped an operation */
    int64_t steps_end;           /* o->steps may not fall below */
    int early;                   /* operations that are not `late` */
    int *waits, *order, depth;
    int *ready, *ready_at, ready_count; /* ready_at [n]: place in ready, -1: not there */
    struct state_key *keys, key;        /* of nodes; of what has run */
    VEC(struct choices) stack;
    VEC(struct option) options;
    struct key_set seen; /* sets that led nowhere */
};

/* ---- moves -------------------------------------------------------------------------------------------------------- */

static void make_ready(struct search *s, int i) {
    if (s->o->nodes[i].late)
        return;
    s->ready_at[i] = s->ready_count;
    s->ready[s->ready_count++] = i;
}

static void take_ready(struct search *s, int i) {
    int last = s->ready[--s->ready_count], at = s->ready_at[i];
    s->ready[at] = last;
    s->ready_at[last] = at;
    s->ready_at[i] = -1;
}

static void run(struct search *s, int i) {
    const struct order_node *x = &s->o->nodes[i];
    order_run(&s->m, x);
    take_ready(s, i);
    for (int k = 0; k < x->next.n; k++)
        if (--s->waits[x->next.at[k]] == 0)
            make_ready(s, x->next.at[k]);
    s->key.a += s->keys[i].a;
    s->key.b += s->keys[i].b;
    s->order[s->depth++] = i;
    s->o->steps -= 1 + x->touches.n + x->next.n;
}

static void unrun(struct search *s) {
    int i = s->order[--s->depth];
    const struct order_node *x = &s->o->nodes[i];
    for (int k = 0; k < x->next.n; k++)
        if (s->waits[x->next.at[k]]++ == 0 && !s->o->nodes[x->next.at[k]].late)
            take_ready(s, x->next.at[k]);
    make_ready(s, i);
    order_unrun(&s->m, x);
    s->key.a -= s->keys[i].a;
    s->key.b -= s->keys[i].b;
}

/* Runs what is safe to run until only choices are left. */
static void run_safe(struct search *s) {
    for (;;) {
        int best = -1;
        for (int k = 0; k < s->ready_count; k++) {
            const struct order_node *x = &s->o->nodes[s->ready[k]];
            if ((best < 0 || s->ready[k] < best) && order_growth(&s->m, x) <= 0 && order_during(&s->m, x) <= s->limit)
                best = s->ready[k];
        }
        s->o->steps -= s->ready_count;
        if (best < 0 || s->o->steps < s->steps_end)
            return;
        run(s, best);
    }
}

static int compare_option(const void *a, const void *b) {
    const struct option *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->node - y->node;
}

static void open_choices(struct search *s) {
    struct choices c = {.first = s->options.n, .next = s->options.n, .depth = s->depth, .key = s->key};
    for (int k = 0; k < s->ready_count; k++) {
        int i = s->ready[k];
        int64_t during = order_during(&s->m, &s->o->nodes[i]);
        if (during > s->limit) {
            if (during < s->lowest_above)
                s->lowest_above = during;
            continue;
        }
        int64_t rank = s->prefer == LEAST_GROWTH ? order_growth(&s->m, &s->o->nodes[i])
                       : s->prefer == EARLIEST   ? i
                                                 : -i;
        VEC_PUSH(&s->arena, s->options, (struct option){rank, i});
    }
    s->o->steps -= 2 * s->ready_count;
    c.end = s->options.n;
    if (c.end > c.first)
        qsort(s->options.at + c.first, (size_t)(c.end - c.first), sizeof *s->options.at, compare_option);
    VEC_PUSH(&s->arena, s->stack, c);
}

/* ---- the search --------------------------------------------------------------------------------------------------- */

static void start(struct search *s) {
    struct order *o = s->o;
    order_memory_init(&s->m, o);
    s->depth = s->ready_count = s->stack.n = s->options.n = 0;
    s->key = (struct state_key){0, 0};
    for (int i = 0; i < o->n; i++) {
        s->waits[i] = o->nodes[i].before.n;
        s->ready_at[i] = -1;
    }
    for (int i = 0; i < o->n; i++)
        if (!s->waits[i])
            make_ready(s, i);
}

static enum order_found search_once(struct search *s, int64_t steps) {
    int64_t end = s->o->steps - steps;
    start(s);
    run_safe(s);
    if (s->depth < s->early)
        open_choices(s);
    while (s->depth < s->early) {
        if (s->o->steps < end || s->o->steps < s->steps_end)
            return ORDER_GIVEN_UP;
        struct choices *c = &s->stack.at[s->stack.n - 1];
        while (s->depth > c->depth)
            unrun(s);
        if (c->next == c->end) {
            key_set_add(&s->seen, c->key);
            s->options.n = c->first;
            if (--s->stack.n == 0)
                return ORDER_IMPOSSIBLE;
            continue;
        }
        run(s, s->options.at[c->next++].node);
        run_safe(s);
        if (s->depth < s->early && !key_set_has(&s->seen, s->key))
            open_choices(s);
    }
    return ORDER_FOUND;
}

enum order_found order_search(struct order *o, int64_t limit, int64_t steps, int *out, int64_t *next) {
    struct search s = {.o = o, .limit = limit, .lowest_above = INT64_MAX, .steps_end = o->steps - steps};
    struct arena *a = &s.arena;
    s.waits = ARENA_ARRAY(a, int, o->n);
    s.order = ARENA_ARRAY(a, int, o->n);
    s.ready = ARENA_ARRAY(a, int, o->n);
    s.ready_at = ARENA_ARRAY(a, int, o->n);
    s.keys = ARENA_ARRAY(a, struct state_key, o->n);
    for (int i = 0; i < o->n; i++) {
        s.keys[i] = (struct state_key){key_mix(2 * (uint64_t)i), key_mix(2 * (uint64_t)i + 1)};
        s.early += !o->nodes[i].late;
    }
    enum order_found found = ORDER_GIVEN_UP;
    for (int64_t share = 50 * (int64_t)o->n; found == ORDER_GIVEN_UP && o->steps > s.steps_end; share *= 2)
        for (int p = 0; p < PREFERENCES && found == ORDER_GIVEN_UP; p++) {
            s.prefer = (enum prefer)p;
            found = search_once(&s, share);
        }
    if (found == ORDER_FOUND) {
        memcpy(out, s.order, sizeof *out * (size_t)s.depth);
        for (int i = 0; i < o->n; i++)
            if (o->nodes[i].late)
                out[s.depth++] = i;
    }
    *next = s.lowest_above;
    key_set_free(&s.seen);
    arena_free(a);
    return found;
}
