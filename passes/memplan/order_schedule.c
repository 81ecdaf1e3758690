/* Orders of one region: list schedules, a lower bound of every order's peak, and the search between the two.
 *
 * The exact problem is NP-hard (register sufficiency, Sethi 1975). First several list schedules are simulated:
 *
 *   source    the order of the program
 *   release   the program's, but whatever frees more than it takes goes at once: this is what puts an optimizer's update
 *             right behind the last use of its parameter, so that gradients never live all together
 *   greedy    least growth first
 *   backward  least growth first, from the end
 *
 * The bound: while an operation runs, everything is alive that was made by itself or before it in every order and is touched by
 * itself or after it in every order. Where the best schedule is above that, the operation that needs most is looked at before and
 * after each other one, and order_search.c decides whether the bound itself can be reached, then halfway between what is proven or given
 * up and the best; what it proves raises the bound.
 */
#include <stdlib.h>
#include <string.h>

#include "passes/memplan/order_internal.h"

#define BOUND_NODES 8000 /* larger regions have the bound of their largest single operation */

/* ---- memory ------------------------------------------------------------------------------------------------------- */

void order_memory_init(struct order_memory *m, const struct order *o) {
    m->o = o;
    m->live = 0;
    m->left = arena_copy(o->arena, o->uses, sizeof *o->uses * (size_t)(o->func->value_count + 1));
}

int64_t order_growth(const struct order_memory *m, const struct order_node *x) {
    int64_t g = 0;
    for (int k = 0; k < x->makes.n; k++)
        if (m->o->uses[x->makes.at[k]] > 0)
            g += m->o->bytes[x->makes.at[k]];
    for (int k = 0; k < x->touches.n; k++)
        if (m->left[x->touches.at[k]] == 1)
            g -= m->o->bytes[x->touches.at[k]];
    return g;
}

int64_t order_during(const struct order_memory *m, const struct order_node *x) {
    int64_t made = 0, freed = 0, reused = 0, inner = x->inner;
    for (int k = 0; k < x->makes.n; k++)
        made += m->o->bytes[x->makes.at[k]];
    if (x->branch)
        inner = inner > made ? inner - made : 0;
    for (int k = 0; k < x->touches.n; k++)
        if (m->left[x->touches.at[k]] == 1)
            freed += m->o->bytes[x->touches.at[k]];
    for (int k = 0, done = -1; k < x->over.n; k += 2)
        if (x->over.at[k] != done && m->left[x->over.at[k + 1]] == 1) {
            done = x->over.at[k];
            reused += m->o->bytes[done];
        }
    return m->live + made - (reused < freed ? reused : freed) + x->workspace + inner;
}

void order_run(struct order_memory *m, const struct order_node *x) {
    m->live += order_growth(m, x);
    for (int k = 0; k < x->touches.n; k++)
        m->left[x->touches.at[k]]--;
}

void order_unrun(struct order_memory *m, const struct order_node *x) {
    for (int k = 0; k < x->touches.n; k++)
        m->left[x->touches.at[k]]++;
    m->live -= order_growth(m, x);
}

/* The largest number of live bytes; *sum: of all positions. */
static int64_t peak_of(struct order *o, const int *order, double *sum) {
    struct order_memory m;
    int64_t peak = 0;
    *sum = 0;
    order_memory_init(&m, o);
    for (int s = 0; s < o->n; s++) {
        const struct order_node *x = &o->nodes[order[s]];
        int64_t now = order_during(&m, x);
        if (now > peak)
            peak = now;
        *sum += (double)now;
        order_run(&m, x);
    }
    return peak;
}

/* ---- list schedules ----------------------------------------------------------------------------------------------- */

enum strategy { SOURCE, RELEASE, GREEDY, BACKWARD, STRATEGIES };
static const char *const strategy_names[STRATEGIES] = {"source", "release", "greedy", "backward"};

/* The growth when time runs backward: results end, operands begin. */
static int64_t growth_backward(const struct order_memory *m, const struct order_node *x) {
    int64_t g = 0;
    for (int k = 0; k < x->makes.n; k++)
        if (m->o->uses[x->makes.at[k]] > 0)
            g -= m->o->bytes[x->makes.at[k]];
    for (int k = 0; k < x->touches.n; k++)
        if (m->left[x->touches.at[k]] == m->o->uses[x->touches.at[k]])
            g += m->o->bytes[x->touches.at[k]];
    return g;
}

static int64_t priority(const struct order_memory *m, const struct order_node *x, enum strategy how) {
    if (x->late) /* writes stand at the end */
        return how == BACKWARD ? INT64_MIN : INT64_MAX;
    if (how == SOURCE)
        return 0;
    int64_t growth = how == BACKWARD ? growth_backward(m, x) : order_growth(m, x);
    return how == RELEASE && growth > 0 ? 0 : growth;
}

/* Operations that may run next. Where memory cannot change an operation's key it waits in a heap; only the others are looked at
 * each time. */
struct ready {
    struct order_memory m;
    enum strategy how;
    int *heap, heap_count, *others, other_count;
};

/* Whether a runs before b; both keys are given. */
static bool sooner(const struct ready *r, int a, int64_t key_a, int b, int64_t key_b) {
    return key_a != key_b ? key_a < key_b : r->how == BACKWARD ? a > b : a < b;
}

static int64_t key_of(const struct ready *r, int i) {
    return priority(&r->m, &r->m.o->nodes[i], r->how);
}

static bool heap_sooner(const struct ready *r, int a, int b) {
    return sooner(r, a, key_of(r, a), b, key_of(r, b));
}

static void ready_add(struct ready *r, int i) {
    const struct order_node *x = &r->m.o->nodes[i];
    if (r->how != SOURCE && !x->late && x->touches.n) {
        r->others[r->other_count++] = i;
        return;
    }
    int k = r->heap_count++;
    for (; k > 0 && heap_sooner(r, i, r->heap[(k - 1) / 2]); k = (k - 1) / 2)
        r->heap[k] = r->heap[(k - 1) / 2];
    r->heap[k] = i;
}

static int heap_take(struct ready *r) {
    int first = r->heap[0], last = r->heap[--r->heap_count], k = 0;
    for (int child; (child = 2 * k + 1) < r->heap_count; k = child) {
        if (child + 1 < r->heap_count && heap_sooner(r, r->heap[child + 1], r->heap[child]))
            child++;
        if (heap_sooner(r, last, r->heap[child]))
            break;
        r->heap[k] = r->heap[child];
    }
    r->heap[k] = last;
    return first;
}

static int ready_take(struct ready *r) {
    int best = r->heap_count ? r->heap[0] : -1, place = -1;
    int64_t best_key = best >= 0 ? key_of(r, best) : 0;
    for (int k = 0; k < r->other_count; k++) {
        int64_t key = key_of(r, r->others[k]);
        if (best < 0 || sooner(r, r->others[k], key, best, best_key)) {
            best = r->others[k];
            best_key = key;
            place = k;
        }
    }
    if (place < 0)
        return heap_take(r);
    r->others[place] = r->others[--r->other_count];
    return best;
}

static void schedule(struct order *o, enum strategy how, int *out) {
    struct ready r = {.how = how};
    int *waits = ARENA_ARRAY(o->arena, int, o->n + 1), done = 0;
    bool backward = how == BACKWARD;
    r.heap = ARENA_ARRAY(o->arena, int, o->n + 1);
    r.others = ARENA_ARRAY(o->arena, int, o->n + 1);
    order_memory_init(&r.m, o);
    for (int i = 0; i < o->n; i++) {
        waits[i] = backward ? o->nodes[i].next.n : o->nodes[i].before.n;
        if (!waits[i])
            ready_add(&r, i);
    }
    while (r.heap_count || r.other_count) {
        int i = ready_take(&r);
        struct order_node *x = &o->nodes[i];
        order_run(&r.m, x);
        out[backward ? o->n - 1 - done : done] = i;
        done++;
        int n = backward ? x->before.n : x->next.n;
        for (int k = 0; k < n; k++) {
            int y = backward ? x->before.at[k] : x->next.at[k];
            if (--waits[y] == 0)
                ready_add(&r, y);
        }
    }
    if (done != o->n) /* a cycle would be a bug of the graph; the program's order is always legal data-wise */
        abort();
}

/* ---- the bound ---------------------------------------------------------------------------------------------------- */

/* Of one operation: what it works in, beside `others`, the homes it makes included. What it makes may take the place of what it
 * touches unless that is touched later in every order. */
static int64_t bound_during(const struct order_node *x, int64_t others, int64_t made, int64_t reusable) {
    int64_t inner = x->branch ? (x->inner_bound > made ? x->inner_bound - made : 0) : x->inner_bound;
    return others - reusable + x->workspace + inner;
}

static int64_t largest_operation(const struct order *o) {
    int64_t bound = 0;
    for (int i = 0; i < o->n; i++) {
        const struct order_node *x = &o->nodes[i];
        int64_t made = 0, touched = 0, reusable = 0;
        for (int k = 0; k < x->makes.n; k++)
            made += o->bytes[x->makes.at[k]];
        for (int k = 0; k < x->touches.n; k++)
            touched += o->bytes[x->touches.at[k]];
        for (int k = 0; k < x->over.n; k += 2)
            if (k == 0 || x->over.at[k] != x->over.at[k - 2])
                reusable += o->bytes[x->over.at[k]];
        int64_t now = bound_during(x, made + touched, made, reusable < touched ? reusable : touched);
        if (now > bound)
            bound = now;
    }
    return bound;
}

struct reach {                /* rows of bits, one a node */
    uint64_t *before, *after; /* what runs before, or after, a node in every order; itself included */
    size_t words;
};

static bool bit(const uint64_t *row, int i) {
    return row[i / 64] >> (i % 64) & 1;
}

static void merge_row(uint64_t *to, const uint64_t *from, size_t words) {
    for (size_t w = 0; w < words; w++)
        to[w] |= from[w];
}

/* topological: any order that the edges allow. */
static void find_reach(const struct order *o, const int *topological, struct reach *r) {
    r->words = ((size_t)o->n + 63) / 64;
    r->before = calloc(r->words * (size_t)o->n, sizeof *r->before);
    r->after = calloc(r->words * (size_t)o->n, sizeof *r->after);
    if (!r->before || !r->after)
        abort();
    for (int s = 0; s < o->n; s++)
        for (int way = 0; way < 2; way++) {
            int i = topological[way ? o->n - 1 - s : s];
            uint64_t *rows = way ? r->after : r->before, *row = rows + (size_t)i * r->words;
            const struct order_node *x = &o->nodes[i];
            int n = way ? x->next.n : x->before.n;
            row[i / 64] |= UINT64_C(1) << (i % 64);
            for (int k = 0; k < n; k++)
                merge_row(row, rows + (size_t)(way ? x->next.at[k] : x->before.at[k]) * r->words, r->words);
        }
}

/* *where: the operation that needs it; -1 if not known. */
static int64_t bound_of(const struct order *o, const int *topological, int *where) {
    *where = -1;
    if (o->n > BOUND_NODES)
        return largest_operation(o);
    struct reach r;
    find_reach(o, topological, &r);
    size_t values = (size_t)o->func->value_count + 1;
    int64_t *alive = ARENA_ARRAY(o->arena, int64_t, o->n + 1), bound = 0;
    /* needed[h]: nodes at or before some touch of home h, in every order */
    uint64_t **needed = ARENA_ARRAY(o->arena, uint64_t *, values);
    int *touched = ARENA_ARRAY(o->arena, int, values);
    for (int i = 0; i < o->n; i++)
        for (int k = 0; k < o->nodes[i].touches.n; k++) {
            int h = o->nodes[i].touches.at[k];
            if (!needed[h])
                needed[h] = ARENA_ARRAY(o->arena, uint64_t, r.words);
            merge_row(needed[h], r.before + (size_t)i * r.words, r.words);
            touched[h]++;
        }
    for (int i = 0; i < o->n; i++)
        for (int k = 0; k < o->nodes[i].makes.n; k++) {
            int h = o->nodes[i].makes.at[k];
            bool outlives = o->uses[h] > touched[h];
            const uint64_t *after = r.after + (size_t)i * r.words;
            for (int x = 0; x < o->n; x++)
                if (x == i || (bit(after, x) && (outlives || (needed[h] && bit(needed[h], x)))))
                    alive[x] += o->bytes[h];
        }
    for (int i = 0; i < o->n; i++) {
        const struct order_node *x = &o->nodes[i];
        int64_t made = 0, reusable = 0;
        for (int k = 0; k < x->makes.n; k++)
            made += o->bytes[x->makes.at[k]];
        for (int k = 0, done = -1; k < x->over.n; k += 2) {
            int h = x->over.at[k + 1];
            bool later = o->uses[h] > touched[h];
            for (int y = 0; y < o->n && !later; y++)
                later = y != i && bit(r.after + (size_t)i * r.words, y) && bit(needed[h], y);
            if (!later && x->over.at[k] != done) {
                done = x->over.at[k];
                reusable += o->bytes[done];
            }
        }
        int64_t now = bound_during(x, alive[i], made, reusable);
        if (now > bound) {
            bound = now;
            *where = i;
        }
    }
    free(r.before);
    free(r.after);
    return bound;
}

/* The bound of those orders that run a before b. */
static int64_t bound_with(struct order *o, int a, int b, int *order) {
    int where;
    struct order_node *x = &o->nodes[a], *y = &o->nodes[b];
    VEC_PUSH(o->arena, x->next, b);
    VEC_PUSH(o->arena, y->before, a);
    schedule(o, SOURCE, order);
    int64_t bound = bound_of(o, order, &where);
    x->next.n--;
    y->before.n--;
    o->steps -= (int64_t)o->n * o->n / 8 + 1000;
    return bound;
}

/* The operation that needs most runs before another one or after it: where both need more, so does every order. What a value keeps
 * alive only in one of the cases (an operand waits for its second reader, or the second reader's result is there already) is not in the
 * bound of all orders. */
static void raise_bound(struct order *o, int where, int64_t peak, int *order) {
    struct reach r;
    int64_t end = o->steps / 2, best = o->bound;
    if (where < 0)
        return;
    schedule(o, SOURCE, order);
    find_reach(o, order, &r);
    const uint64_t *before = r.before + (size_t)where * r.words, *after = r.after + (size_t)where * r.words;
    for (int i = 0; i < o->n && best < peak && o->steps > end; i++) {
        if (bit(before, i) || bit(after, i) || o->nodes[i].late)
            continue;
        int64_t first = bound_with(o, where, i, order);
        int64_t both = first > best ? bound_with(o, i, where, order) : first;
        if (first < both)
            both = first;
        if (both > best)
            best = both;
    }
    o->bound = best;
    free(r.before);
    free(r.after);
}

/* ---- together ----------------------------------------------------------------------------------------------------- */

int64_t order_schedule(struct order *o, int *best, const char **method) {
    int64_t peak = INT64_MAX;
    double least = 0, sum;
    int *now = ARENA_ARRAY(o->arena, int, o->n);
    for (int how = 0; how < STRATEGIES; how++) {
        schedule(o, (enum strategy)how, now);
        int64_t p = peak_of(o, now, &sum);
        if (p < peak || (p == peak && sum < least)) { /* what is alive elsewhere decides what recomputation can reach */
            peak = p;
            least = sum;
            memcpy(best, now, sizeof *best * (size_t)o->n);
            *method = strategy_names[how];
        }
    }
    int where;
    if (o->quick)
        return peak;
    o->bound = bound_of(o, best, &where);
    if (o->bound < peak && o->steps > 0)
        raise_bound(o, where, peak, now);
    int64_t low = o->bound; /* below: proven impossible, or given up */
    for (int64_t aim = low; low < peak && o->steps > 0 && (low == o->bound || peak - low > peak / 256);) {
        int64_t next, before = o->steps;
        enum order_found found = order_search(o, aim, aim == o->bound ? before / 2 : before / 3, now, &next);
        if (found == ORDER_FOUND) {
            peak = peak_of(o, now, &sum);
            memcpy(best, now, sizeof *best * (size_t)o->n);
            *method = "search";
        } else if (found == ORDER_IMPOSSIBLE) {
            low = next > aim ? next : aim + 1;
            if (low > peak)
                low = peak;
            o->bound = low;
            aim = low;
            continue;
        } else {
            low = aim + 1;
        }
        aim = low + (peak - low) / 2;
    }
    return peak;
}
