/* Placement of intervals in one arena: each item needs `size` bytes during [lower, upper); items whose lifetimes meet
 * must not overlap; the height reached is to be small.
 *
 * Two steps. Greedy placements (lowest gap that fits, items taken by size, by length, by area, by time, by the load of
 * their busiest moment) give a first height, which is often the lower bound already. Then a depth-first search in the
 * manner of MiniMalloc (Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine
 * Learning", 2023) decides whether everything fits a capacity, and the capacity is lowered between bound and height:
 *
 *   canonical   items are placed by ascending offset, each as low as what is below it allows;
 *   dominance   an item is not placed above the lowest top that some other item could still reach;
 *   inference   in every section of time, floor + sizes still to come must fit;
 *   splitting   items that fall apart in time are searched apart.
 *
 * The effort is counted in steps, never by the clock, so the same input gives the same offsets on every machine.
 */
#include "passes/passes.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

#define STEPS_PER_SECOND 600e6 /* inner iterations on a machine of 2023 */

struct span_of {
    int64_t lower, upper, size;
};

struct search {
    int n;
    const struct placement_item *items;
    int64_t *size;            /* rounded to the alignment */
    int64_t *offset;          /* placed: >= 0, else -1 */
    int64_t *low;             /* lowest offset that what is placed allows */
    int *first, *last;        /* sections [first, last) of an item */
    int **meets, *meet_count; /* items whose lifetime meets this one's */
    int sections;
    int64_t *total; /* of a section: sizes not yet placed */
    int **members, *member_count;
    int *rank; /* order of preference */
    int64_t capacity;
    int64_t steps, limit;
    struct {
        int item;
        int64_t low;
    } * trail; /* undo log of `low` */
    int trail_count, trail_cap;
    int *stamp; /* of a section, for visiting once */
    int stamp_now;
    struct arena arena;
};

static int compare_int64(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Fills times with the sorted distinct lower ends; a section reaches from one to the next. */
static int section_starts(const struct placement_item *items, int n, int64_t *times) {
    for (int i = 0; i < n; i++)
        times[i] = items[i].lower;
    qsort(times, (size_t)n, sizeof *times, compare_int64);
    int count = 0;
    for (int i = 0; i < n; i++)
        if (!count || times[i] != times[count - 1])
            times[count++] = times[i];
    return count;
}

/* The first section that starts at t or later. */
static int section_at(const int64_t *times, int count, int64_t t) {
    int lo = 0, hi = count;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (times[mid] < t)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static int64_t bound_of(const struct placement_item *items, const int64_t *size, int n) {
    /* The load is largest where some lifetime begins. Difference array over sections. */
    if (n == 0)
        return 0;
    int64_t *times = malloc(sizeof *times * (size_t)n), *change = calloc((size_t)n + 1, sizeof *change);
    int64_t best = 0, load = 0;
    if (!times || !change)
        abort();
    int count = section_starts(items, n, times);
    for (int i = 0; i < n; i++) {
        if (items[i].upper <= items[i].lower)
            continue;
        change[section_at(times, count, items[i].lower)] += size ? size[i] : items[i].size;
        change[section_at(times, count, items[i].upper)] -= size ? size[i] : items[i].size;
    }
    for (int s = 0; s < count; s++) {
        load += change[s];
        if (load > best)
            best = load;
    }
    free(times);
    free(change);
    return best;
}

int64_t placement_lower_bound(const struct placement_item *items, int n) {
    return bound_of(items, NULL, n);
}

/* ---- greedy ------------------------------------------------------------------------------------------------------- */

enum greedy { BY_SIZE, BY_LENGTH, BY_AREA, BY_START, BY_END, BY_LOAD, GREEDY_COUNT };

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

static void preference(struct search *s, enum greedy how, const int64_t *load, struct keyed *out) {
    for (int i = 0; i < s->n; i++) {
        double size = (double)s->size[i], length = (double)(s->items[i].upper - s->items[i].lower), key = 0,
               key2 = size;
        switch (how) {
        case BY_SIZE:
            key = size;
            key2 = length;
            break;
        case BY_LENGTH: key = length; break;
        case BY_AREA: key = size * length; break;
        case BY_START: key = -(double)s->items[i].lower; break;
        case BY_END: key = (double)s->items[i].upper; break;
        case BY_LOAD:
            for (int t = s->first[i]; t < s->last[i]; t++)
                if ((double)load[t] > key)
                    key = (double)load[t];
            key2 = size * length;
            break;
        case GREEDY_COUNT: break;
        }
        out[i] = (struct keyed){key, key2, i};
    }
    qsort(out, (size_t)s->n, sizeof *out, compare_keyed);
}

static int compare_span(const void *a, const void *b) {
    const struct span_of *x = a, *y = b;
    return (x->lower > y->lower) - (x->lower < y->lower);
}

/* Places items in the given order, each into the lowest (or, for best fit, the tightest) gap between those it meets. */
static int64_t greedy_place(struct search *s, const struct keyed *order, bool best_fit, int64_t *offset) {
    struct span_of *taken = malloc(sizeof *taken * (size_t)(s->n + 1));
    if (!taken)
        abort();
    for (int i = 0; i < s->n; i++)
        offset[i] = -1;
    int64_t height = 0;
    for (int k = 0; k < s->n; k++) {
        int i = order[k].item, count = 0;
        for (int j = 0; j < s->meet_count[i]; j++) {
            int o = s->meets[i][j];
            if (offset[o] >= 0)
                taken[count++] = (struct span_of){offset[o], offset[o] + s->size[o], 0};
        }
        qsort(taken, (size_t)count, sizeof *taken, compare_span);
        int64_t top = 0, at = -1, slack = 0;
        for (int j = 0; j < count; j++) {
            int64_t gap = taken[j].lower - top;
            if (gap >= s->size[i] && (at < 0 || (best_fit && gap < slack))) {
                at = top;
                slack = gap;
                if (!best_fit)
                    break;
            }
            if (taken[j].upper > top)
                top = taken[j].upper;
        }
        offset[i] = at < 0 ? top : at;
        if (offset[i] + s->size[i] > height)
            height = offset[i] + s->size[i];
    }
    free(taken);
    return height;
}

/* ---- search ------------------------------------------------------------------------------------------------------- */

static void raise_low(struct search *s, int item, int64_t low) {
    if (s->trail_count == s->trail_cap) {
        s->trail_cap = s->trail_cap ? 2 * s->trail_cap : 1024;
        s->trail = realloc(s->trail, sizeof *s->trail * (size_t)s->trail_cap);
        if (!s->trail)
            abort();
    }
    s->trail[s->trail_count].item = item;
    s->trail[s->trail_count++].low = s->low[item];
    s->low[item] = low;
}

static void undo(struct search *s, int mark) {
    while (s->trail_count > mark) {
        s->trail_count--;
        s->low[s->trail[s->trail_count].item] = s->trail[s->trail_count].low;
    }
}

static void take(struct search *s, int i, int64_t offset) {
    s->offset[i] = offset;
    for (int t = s->first[i]; t < s->last[i]; t++)
        s->total[t] -= s->size[i];
}

static void release(struct search *s, int i) {
    s->offset[i] = -1;
    for (int t = s->first[i]; t < s->last[i]; t++)
        s->total[t] += s->size[i];
}

/* After items moved up: what is still to come in section t must fit above its floor. No item to come may lie below
 * `level`, since items are placed by ascending offset. */
static bool section_fits(struct search *s, int t, int64_t level) {
    if (s->total[t] == 0)
        return true;
    int64_t floor = INT64_MAX;
    for (int k = 0; k < s->member_count[t]; k++) {
        int i = s->members[t][k];
        if (s->offset[i] >= 0)
            continue;
        int64_t low = s->low[i] > level ? s->low[i] : level;
        if (low < floor)
            floor = low;
    }
    s->steps += s->member_count[t];
    return floor + s->total[t] <= s->capacity;
}

struct candidate {
    int64_t low;
    int rank, item;
};

static int compare_candidate(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->low != y->low)
        return x->low < y->low ? -1 : 1;
    return x->rank - y->rank;
}

static bool place_rest(struct search *s, const int *rest, int n, int64_t level, int level_rank);

/* rest is sorted by lower: falls into groups that no lifetime joins. */
static bool split_rest(struct search *s, const int *rest, int n, int64_t level, int level_rank) {
    int mark = s->trail_count;
    for (int begin = 0; begin < n;) {
        int end = begin + 1;
        int64_t upper = s->items[rest[begin]].upper;
        while (end < n && s->items[rest[end]].lower < upper) {
            if (s->items[rest[end]].upper > upper)
                upper = s->items[rest[end]].upper;
            end++;
        }
        if (!place_rest(s, rest + begin, end - begin, level, level_rank)) {
            for (int k = 0; k < begin; k++)
                release(s, rest[k]);
            undo(s, mark);
            return false;
        }
        begin = end;
    }
    return true;
}

static bool place_rest(struct search *s, const int *rest, int n, int64_t level, int level_rank) {
    if (n == 0)
        return true;
    if (s->steps > s->limit)
        return false;
    struct candidate *candidates = malloc(sizeof *candidates * (size_t)n);
    int *next = malloc(sizeof *next * (size_t)n);
    if (!candidates || !next)
        abort();
    int64_t lowest_top = INT64_MAX;
    for (int k = 0; k < n; k++) {
        int i = rest[k];
        int64_t top = (s->low[i] > level ? s->low[i] : level) + s->size[i];
        if (top < lowest_top)
            lowest_top = top;
    }
    int count = 0;
    for (int k = 0; k < n; k++) {
        int i = rest[k];
        if (s->low[i] < level || (s->low[i] == level && s->rank[i] < level_rank) || s->low[i] >= lowest_top)
            continue;
        candidates[count++] = (struct candidate){s->low[i], s->rank[i], i};
    }
    qsort(candidates, (size_t)count, sizeof *candidates, compare_candidate);
    s->steps += 4 * n;
    bool done = false;
    for (int c = 0; c < count && !done && s->steps <= s->limit; c++) {
        int i = candidates[c].item, mark = s->trail_count;
        int64_t at = candidates[c].low, top = at + s->size[i];
        bool fits = top <= s->capacity, hatless = true;
        take(s, i, at);
        for (int k = 0; fits && k < s->meet_count[i]; k++) {
            int o = s->meets[i][k];
            if (s->offset[o] >= 0)
                continue;
            hatless = false;
            if (s->low[o] < top) {
                raise_low(s, o, top);
                if (top + s->size[o] > s->capacity)
                    fits = false;
            }
        }
        s->steps += s->meet_count[i];
        s->stamp_now++;
        for (int m = mark; fits && m < s->trail_count; m++) {
            int o = s->trail[m].item;
            for (int t = s->first[o]; fits && t < s->last[o]; t++)
                if (s->stamp[t] != s->stamp_now) {
                    s->stamp[t] = s->stamp_now;
                    fits = section_fits(s, t, at);
                }
        }
        if (fits && at > level) /* the floor of every section of this group rose */
            for (int k = 0; fits && k < n; k++)
                for (int t = s->first[rest[k]]; fits && t < s->last[rest[k]]; t++)
                    if (s->stamp[t] != s->stamp_now) {
                        s->stamp[t] = s->stamp_now;
                        fits = section_fits(s, t, at);
                    }
        if (fits) {
            int m = 0;
            for (int k = 0; k < n; k++)
                if (rest[k] != i)
                    next[m++] = rest[k];
            done = split_rest(s, next, m, at, s->rank[i]);
        }
        if (!done) {
            release(s, i);
            undo(s, mark);
            if (fits && hatless) /* nothing lies above it: no other choice would have helped the rest */
                break;
        }
    }
    free(candidates);
    free(next);
    return done;
}

/* One try to fit the capacity with a given preference and effort. */
static bool search_fits(struct search *s, const struct keyed *order, int64_t capacity, int64_t effort,
                        bool *exhausted) {
    int *rest = malloc(sizeof *rest * (size_t)(s->n + 1));
    struct keyed *by_time = malloc(sizeof *by_time * (size_t)(s->n + 1));
    if (!rest || !by_time)
        abort();
    memset(s->total, 0, sizeof *s->total * (size_t)s->sections);
    for (int k = 0; k < s->n; k++) {
        int i = order[k].item;
        s->rank[i] = k;
        s->offset[i] = -1;
        s->low[i] = 0;
        for (int t = s->first[i]; t < s->last[i]; t++)
            s->total[t] += s->size[i];
        by_time[k] = (struct keyed){-(double)s->items[k].lower, 0, k};
    }
    qsort(by_time, (size_t)s->n, sizeof *by_time, compare_keyed);
    for (int k = 0; k < s->n; k++)
        rest[k] = by_time[k].item;
    s->trail_count = 0;
    s->capacity = capacity;
    s->limit = s->steps + effort;
    bool fits = split_rest(s, rest, s->n, 0, -1);
    *exhausted = !fits && s->steps <= s->limit;
    free(rest);
    free(by_time);
    return fits;
}

static void search_init(struct search *s, const struct placement_item *items, int n, int64_t align) {
    memset(s, 0, sizeof *s);
    struct arena *a = &s->arena;
    s->n = n;
    s->items = items;
    s->size = ARENA_ARRAY(a, int64_t, n + 1);
    s->offset = ARENA_ARRAY(a, int64_t, n + 1);
    s->low = ARENA_ARRAY(a, int64_t, n + 1);
    s->first = ARENA_ARRAY(a, int, n + 1);
    s->last = ARENA_ARRAY(a, int, n + 1);
    s->rank = ARENA_ARRAY(a, int, n + 1);
    s->meets = ARENA_ARRAY(a, int *, n + 1);
    s->meet_count = ARENA_ARRAY(a, int, n + 1);
    int64_t *times = ARENA_ARRAY(a, int64_t, n + 1);
    s->sections = n ? section_starts(items, n, times) : 0;
    s->total = ARENA_ARRAY(a, int64_t, s->sections + 1);
    s->members = ARENA_ARRAY(a, int *, s->sections + 1);
    s->member_count = ARENA_ARRAY(a, int, s->sections + 1);
    s->stamp = ARENA_ARRAY(a, int, s->sections + 1);
    for (int i = 0; i < n; i++) {
        s->size[i] = (items[i].size + align - 1) / align * align;
        s->first[i] = section_at(times, s->sections, items[i].lower);
        s->last[i] = section_at(times, s->sections, items[i].upper);
        for (int t = s->first[i]; t < s->last[i]; t++)
            s->member_count[t]++;
    }
    for (int t = 0; t < s->sections; t++) {
        s->members[t] = ARENA_ARRAY(a, int, s->member_count[t] + 1);
        s->member_count[t] = 0;
    }
    for (int i = 0; i < n; i++)
        for (int t = s->first[i]; t < s->last[i]; t++)
            s->members[t][s->member_count[t]++] = i;
    /* i meets what is alive when i begins, and what begins while i is alive. */
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; pass && i < n; i++) {
            s->meets[i] = ARENA_ARRAY(a, int, s->meet_count[i] + 1);
            s->meet_count[i] = 0;
        }
        for (int i = 0; i < n; i++) {
            if (s->first[i] >= s->last[i])
                continue;
            int t = s->first[i];
            for (int k = 0; k < s->member_count[t]; k++) {
                int o = s->members[t][k];
                if (o == i || (s->first[o] == t && o > i))
                    continue; /* a pair that begins together is counted once */
                if (pass) {
                    s->meets[i][s->meet_count[i]] = o;
                    s->meets[o][s->meet_count[o]] = i;
                }
                s->meet_count[i]++;
                s->meet_count[o]++;
            }
        }
    }
}

int64_t placement_solve(struct placement_item *items, int n, int64_t align, int64_t capacity, double seconds) {
    struct search s;
    if (align < 1)
        align = 1;
    search_init(&s, items, n, align);
    struct arena *a = &s.arena;
    int64_t bound = bound_of(items, s.size, n), best = INT64_MAX;
    int64_t goal = capacity > bound ? capacity : bound;
    int64_t *offset = ARENA_ARRAY(a, int64_t, n + 1), *load = ARENA_ARRAY(a, int64_t, s.sections + 1);
    for (int i = 0; i < n; i++)
        for (int t = s.first[i]; t < s.last[i]; t++)
            load[t] += s.size[i];
    struct keyed *orders[GREEDY_COUNT];
    for (int how = 0; how < GREEDY_COUNT; how++) {
        orders[how] = ARENA_ARRAY(a, struct keyed, n + 1);
        preference(&s, (enum greedy)how, load, orders[how]);
        for (int fit = 0; fit < 2 && best > goal; fit++) {
            int64_t height = greedy_place(&s, orders[how], fit == 1, offset);
            if (height < best) {
                best = height;
                for (int i = 0; i < n; i++)
                    items[i].offset = offset[i];
            }
        }
    }
    /* Capacities between the bound and the best height, the wanted one first; effort grows from try to try and passes
     * around the preferences, because one order may be lost in a corner that another never sees. */
    static const enum greedy tries[] = {BY_AREA, BY_SIZE, BY_LOAD, BY_LENGTH};
    int64_t left = (int64_t)(seconds > 0 ? seconds * STEPS_PER_SECOND : 10e6);
    int64_t low = goal; /* nothing below is tried */
    for (int64_t aim = goal; best > goal && left > 0; aim = low + (best - low) / 2 / align * align) {
        if (aim >= best)
            break;
        bool found = false, impossible = false;
        int64_t effort = left / 64 + 1000, share = aim == goal ? left * 3 / 4 : left / 3;
        for (int k = 0; share > 0 && !found && !impossible; k++) {
            int64_t before = s.steps;
            found = search_fits(&s, orders[tries[k % 4]], aim, effort < share ? effort : share, &impossible);
            share -= s.steps - before;
            left -= s.steps - before;
            if (k % 4 == 3)
                effort *= 2;
        }
        if (found) {
            best = 0;
            for (int i = 0; i < n; i++) {
                items[i].offset = s.offset[i];
                if (s.offset[i] + s.size[i] > best)
                    best = s.offset[i] + s.size[i];
            }
        } else {
            low = aim + align;
        }
    }
    free(s.trail);
    arena_free(a);
    int64_t height = 0; /* without the last item's rounding */
    for (int i = 0; i < n; i++)
        if (items[i].offset + items[i].size > height)
            height = items[i].offset + items[i].size;
    return height;
}
