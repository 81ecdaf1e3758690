/* Placement of intervals in one arena: first fit, then exact search.
 *
 * First fit places items by size, length, area, time, and load of their busiest moment, each into the lowest gap. Where that
 * misses the goal (the capacity, or the largest sum of sizes alive at once), the search of placement_search.c says whether a
 * capacity suffices, in rounds with ever more steps: the goal first, then halfway between the largest one given up or proven too small
 * and the best height.
 * A local search of the order for first fit was tried between the two: on the instances of MiniMalloc it stays 8 to 30% above
 * what the exact search finds in less time.
 */
#include "passes/memplan/placement.h"

#include <stdlib.h>
#include <string.h>

#include "passes/memplan/placement_internal.h"

#define SEARCH_ITEMS 4000     /* more are placed by first fit alone */
#define MEETINGS     40000000 /* pairs of items alive together that are still listed */
#define CLOSE        500 /* heights that differ by less than a part in so many are searched for in the next round */

/* ---- sections of time --------------------------------------------------------------------------------------------- */

struct event { /* an item begins or ends */
    int64_t time;
    int item;
    bool begins;
};

static int compare_event(const void *a, const void *b) {
    const struct event *x = a, *y = b;
    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    return x->begins != y->begins ? x->begins - y->begins : x->item - y->item;
}

/* Events of items that need memory, in order of time, ends before beginnings; returns their number. */
static int events_of(const struct placement_item *items, int n, struct event *events) {
    int count = 0;
    for (int i = 0; i < n; i++) {
        if (items[i].upper <= items[i].lower || items[i].size <= 0)
            continue;
        events[count++] = (struct event){items[i].lower, i, true};
        events[count++] = (struct event){items[i].upper, i, false};
    }
    qsort(events, (size_t)count, sizeof *events, compare_event);
    return count;
}

static int64_t round_up(int64_t size, int64_t align) {
    return (size + align - 1) / align * align;
}

static int64_t load_of(const struct placement_item *items, const struct event *events, int count, int64_t align) {
    int64_t load = 0, best = 0;
    for (int e = 0; e < count; e++) {
        int64_t size = round_up(items[events[e].item].size, align);
        load += events[e].begins ? size : -size;
        if (load > best)
            best = load;
    }
    return best;
}

int64_t placement_load(const struct placement_item *items, int n) {
    struct event *events = malloc(sizeof *events * (2 * (size_t)n + 1));
    if (!events)
        abort();
    int64_t load = load_of(items, events, events_of(items, n, events), 1);
    free(events);
    return load;
}

/* Pairs of items that are alive together. */
static int64_t meetings(const struct event *events, int count) {
    int64_t alive = 0, pairs = 0;
    for (int e = 0; e < count; e++) {
        if (events[e].begins)
            pairs += alive++;
        else
            alive--;
    }
    return pairs;
}

/* number[item]: its place among those that need memory. */
static void list_meetings(struct problem *p, const struct event *events, int count, const int *number) {
    int *alive = ARENA_ARRAY(p->arena, int, p->n + 1);
    for (int pass = 0; pass < 2; pass++) {
        int n = 0;
        for (int i = 0; pass && i < p->n; i++) {
            p->meets[i] = ARENA_ARRAY(p->arena, int, p->meet_count[i] + 1);
            p->meet_count[i] = 0;
        }
        for (int e = 0; e < count; e++) {
            int i = number[events[e].item], k = 0;
            if (!events[e].begins) {
                while (alive[k] != i)
                    k++;
                alive[k] = alive[--n];
                continue;
            }
            for (; k < n; k++) {
                if (pass) {
                    p->meets[i][p->meet_count[i]] = alive[k];
                    p->meets[alive[k]][p->meet_count[alive[k]]] = i;
                }
                p->meet_count[i]++;
                p->meet_count[alive[k]]++;
            }
            alive[n++] = i;
        }
    }
}

static void problem_init(struct problem *p, const struct placement_item *items, const struct event *events, int count,
                         int n, const int *number, int64_t align) {
    size_t size = (size_t)n + 1;
    p->n = n;
    p->size = ARENA_ARRAY(p->arena, int64_t, size);
    p->width = ARENA_ARRAY(p->arena, double, size);
    p->first = ARENA_ARRAY(p->arena, int, size);
    p->last = ARENA_ARRAY(p->arena, int, size);
    p->meets = ARENA_ARRAY(p->arena, int *, size);
    p->meet_count = ARENA_ARRAY(p->arena, int, size);
    bool grown = false;
    for (int e = 0; e < count; e++) {
        const struct placement_item *x = &items[events[e].item];
        int i = number[events[e].item];
        if (events[e].begins) {
            p->size[i] = round_up(x->size, align);
            p->width[i] = (double)x->upper - (double)x->lower;
            p->first[i] = p->sections;
        } else {
            p->sections += grown;
            p->last[i] = p->sections;
        }
        grown = events[e].begins;
    }
    list_meetings(p, events, count, number);
}

/* ---- first fit ---------------------------------------------------------------------------------------------------- */

struct gap_end { /* what lies in the arena already */
    int64_t offset, top;
};

static int compare_gap_end(const void *a, const void *b) {
    const struct gap_end *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Places items in the given order, each into the lowest gap between those it meets. Returns the height. */
static int64_t first_fit(struct problem *p, const int *order, struct gap_end *taken, int64_t *offset) {
    int64_t height = 0;
    for (int i = 0; i < p->n; i++)
        offset[i] = -1;
    for (int k = 0; k < p->n; k++) {
        int i = order[k], count = 0;
        int64_t at = 0;
        for (int j = 0; j < p->meet_count[i]; j++) {
            int o = p->meets[i][j];
            if (offset[o] >= 0)
                taken[count++] = (struct gap_end){offset[o], offset[o] + p->size[o]};
        }
        p->steps += p->meet_count[i] + 4 * count;
        qsort(taken, (size_t)count, sizeof *taken, compare_gap_end);
        for (int j = 0; j < count && taken[j].offset - at < p->size[i]; j++)
            if (taken[j].top > at)
                at = taken[j].top;
        offset[i] = at;
        if (at + p->size[i] > height)
            height = at + p->size[i];
    }
    return height;
}

enum order { BY_SIZE, BY_LENGTH, BY_AREA, BY_START, BY_END, BY_LOAD, ORDERS };

struct keyed {
    double key, key2;
    int item;
};

static int compare_keyed(const void *a, const void *b) {
    const struct keyed *x = a, *y = b;
    if (x->key != y->key)
        return x->key > y->key ? -1 : 1;
    if (x->key2 != y->key2)
        return x->key2 > y->key2 ? -1 : 1;
    return x->item - y->item;
}

static void order_by(const struct problem *p, enum order how, const int64_t *load, struct keyed *keyed, int *order) {
    for (int i = 0; i < p->n; i++) {
        double size = (double)p->size[i], key = 0, key2 = size;
        switch (how) {
        case BY_SIZE:
            key = size;
            key2 = p->width[i];
            break;
        case BY_LENGTH: key = p->width[i]; break;
        case BY_AREA: key = size * p->width[i]; break;
        case BY_START: key = -(double)p->first[i]; break;
        case BY_END: key = (double)p->last[i]; break;
        case BY_LOAD:
            for (int t = p->first[i]; t < p->last[i]; t++)
                if ((double)load[t] > key)
                    key = (double)load[t];
            key2 = size * p->width[i];
            break;
        case ORDERS: break;
        }
        keyed[i] = (struct keyed){key, key2, i};
    }
    qsort(keyed, (size_t)p->n, sizeof *keyed, compare_keyed);
    for (int i = 0; i < p->n; i++)
        order[i] = keyed[i].item;
}

/* ---- together ----------------------------------------------------------------------------------------------------- */

struct solver {
    struct problem p;
    int64_t align, goal, height, bound; /* heights of rounded sizes */
    bool capacity;                      /* the goal is one that was asked for */
    int64_t *best, *offset;             /* [p.n] */
};

static void keep_better(struct solver *s, int64_t height) {
    if (height >= s->height)
        return;
    s->height = height;
    memcpy(s->best, s->offset, sizeof *s->best * (size_t)s->p.n);
}

static void first_fits(struct solver *s) {
    struct problem *p = &s->p;
    struct keyed *keyed = ARENA_ARRAY(p->arena, struct keyed, p->n + 1);
    int64_t *load = ARENA_ARRAY(p->arena, int64_t, p->sections + 1);
    struct gap_end *taken = ARENA_ARRAY(p->arena, struct gap_end, p->n + 1);
    int *order = ARENA_ARRAY(p->arena, int, p->n + 1);
    for (int i = 0; i < p->n; i++)
        for (int t = p->first[i]; t < p->last[i]; t++)
            load[t] += p->size[i];
    for (int how = 0; how < ORDERS && s->height > s->goal; how++) {
        order_by(p, (enum order)how, load, keyed, order);
        keep_better(s, first_fit(p, order, taken, s->offset));
    }
}

static enum placement_found probe(struct solver *s, int64_t capacity, int64_t steps) {
    struct problem *p = &s->p;
    enum placement_found found = placement_search(p, capacity, steps, s->offset);
    if (found == PLACEMENT_FOUND) {
        int64_t height = 0;
        for (int i = 0; i < p->n; i++)
            if (s->offset[i] + p->size[i] > height)
                height = s->offset[i] + p->size[i];
        keep_better(s, height);
    } else if (found == PLACEMENT_IMPOSSIBLE && capacity + s->align > s->bound) {
        s->bound = capacity + s->align;
    }
    return found;
}

/* A capacity gets nearly all of the steps at once. Otherwise rounds with ever more steps for a search: first the goal, or what was
 * proven to be the least, then halfway between the largest one given up and the best height. So there is a good height soon, and the
 * goal gets most of the steps in the end. */
static void exact(struct solver *s, int64_t steps) {
    struct problem *p = &s->p;
    int64_t limit = p->steps + steps;
    if (s->capacity)
        (void)probe(s, s->goal, steps / 8 * 7);
    for (int64_t share = steps / 64 + 1; s->height > s->goal && s->height > s->bound && p->steps < limit; share *= 4) {
        int64_t low = s->bound > s->goal ? s->bound : s->goal, aim = low;
        while (s->height > low && p->steps < limit) {
            int64_t left = limit - p->steps;
            (void)probe(s, aim, share < left ? share : left);
            if (s->height > aim)
                low = aim + s->align;
            if (s->bound > low)
                low = s->bound;
            if (s->height - low <= s->height / CLOSE)
                break;
            aim = low + round_up((s->height - low) / 2, s->align);
            if (aim >= s->height)
                aim = s->height - s->align;
        }
    }
}

/* For very many items: in order of time, each into the lowest gap. */
static void in_time_order(struct placement_item *items, const struct event *events, int count, int64_t align) {
    int n = 0, packed = 0; /* the first `packed` ones have no gap below or between them */
    struct gap_end *alive = malloc(sizeof *alive * ((size_t)count / 2 + 1));
    if (!alive)
        abort();
    for (int e = 0; e < count; e++) {
        struct placement_item *x = &items[events[e].item];
        int64_t size = round_up(x->size, align);
        if (!events[e].begins) {
            int lo = 0, hi = n;
            while (hi - lo > 1) {
                int middle = lo + (hi - lo) / 2;
                if (alive[middle].offset <= x->offset)
                    lo = middle;
                else
                    hi = middle;
            }
            memmove(alive + lo, alive + lo + 1, sizeof *alive * (size_t)(--n - lo));
            if (packed > lo)
                packed = lo;
            continue;
        }
        int k = packed;
        while (k < n && alive[k].offset - (k ? alive[k - 1].top : 0) < size) {
            packed += k == packed && alive[k].offset == (k ? alive[k - 1].top : 0);
            k++;
        }
        x->offset = k ? alive[k - 1].top : 0;
        memmove(alive + k + 1, alive + k, sizeof *alive * (size_t)(n++ - k));
        alive[k] = (struct gap_end){x->offset, x->offset + size};
        packed += k == packed;
    }
    free(alive);
}

static void solve(struct solver *s, struct placement_item *items, int n, const struct event *events, int count,
                  int64_t steps) {
    int *number = ARENA_ARRAY(s->p.arena, int, n + 1), *item = ARENA_ARRAY(s->p.arena, int, n + 1), used = 0;
    for (int i = 0; i < n; i++)
        if (items[i].upper > items[i].lower && items[i].size > 0) {
            item[used] = i;
            number[i] = used++;
        }
    struct problem *p = &s->p;
    problem_init(p, items, events, count, used, number, s->align);
    s->best = ARENA_ARRAY(p->arena, int64_t, used + 1);
    s->offset = ARENA_ARRAY(p->arena, int64_t, used + 1);
    s->height = INT64_MAX;
    first_fits(s);
    if (s->height > s->goal && used <= SEARCH_ITEMS)
        exact(s, steps);
    for (int k = 0; k < used; k++)
        items[item[k]].offset = s->best[k];
}

struct placement_result placement_solve(struct placement_item *items, int n, int64_t align, int64_t capacity,
                                        int64_t steps) {
    struct arena arena = {0};
    struct solver s = {.align = align < 1 ? 1 : align, .capacity = capacity > 0, .p.arena = &arena};
    struct event *events = ARENA_ARRAY(&arena, struct event, 2 * n + 1);
    int count = events_of(items, n, events);
    int64_t load = load_of(items, events, count, 1);
    s.bound = load_of(items, events, count, s.align);
    s.goal = capacity > s.bound ? capacity / s.align * s.align : s.bound;
    for (int i = 0; i < n; i++)
        items[i].offset = 0;
    if (meetings(events, count) > MEETINGS)
        in_time_order(items, events, count, s.align);
    else if (count)
        solve(&s, items, n, events, count, steps);
    /* Heights here were of rounded sizes; the item on top need not be. */
    struct placement_result r = {.bound = s.bound - (s.align - 1)};
    if (r.bound < load)
        r.bound = load;
    for (int i = 0; i < n; i++)
        if (items[i].upper > items[i].lower && items[i].offset + items[i].size > r.height)
            r.height = items[i].offset + items[i].size;
    arena_free(&arena);
    return r;
}
