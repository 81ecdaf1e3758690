/* Exact placement: a depth-first search for offsets within a capacity, in the manner of MiniMalloc (Moffitt, "MiniMalloc: A
 * Lightweight Memory Allocator for Hardware-Accelerated Machine Learning", ASPLOS 2023).
 *
 *   canonical   every solution can be pressed down until each item lies on another or on the ground; such solutions are
 *               found by placing items by ascending offset, each as low as those below it allow;
 *   dominance   nothing is placed at or above the lowest top that some other item could still reach;
 *   inference   what is still to come in a section of time must fit above the section's floor, the lowest offset that one
 *               of its items may still have;
 *   hatless     where nothing is left to lie above an item, no other choice in its place helps the rest;
 *   splitting   items that fall apart in time are searched apart, each group in an order of its own.
 *
 * Beyond that:
 *
 *   lifting     an item passed over at its lowest offset must lie on one that is still to come, so not below the lowest
 *               top that those can have, which raises the floors of its sections;
 *   skipping    where what is left does not fit once a choice is passed over, none of those behind it needs to be tried;
 *   memory      a set of items left, with what is beneath each, that led nowhere is not entered again, in no turn.
 *
 * Which of several possible items is tried first decides whether a search ends at once or never. So several orders take turns
 * with a limit on visited nodes that doubles from turn to turn. Two of them put first what lies in the section where most searches
 * failed so far (Boussemart et al., "Boosting Systematic Search by Weighting Constraints", ECAI 2004); from the second turn on
 * widths and areas are blurred a little, so that no turn repeats another. The numbers for that are computed, not drawn: the same items give
 * the same offsets.
 */
#include <stdlib.h>
#include <string.h>

#include "passes/memplan/key_set.h"
#include "passes/memplan/placement_internal.h"

#define BLUR      0.1     /* of widths and areas, at most */
#define MOST_KEYS 2000000 /* of states remembered: 64 MiB */
#define FEW_ITEMS 4       /* fewer left are not worth remembering */

struct choice { /* an item to be placed */
    int64_t low;
    int rank, item;
};

struct change { /* of `low`; with low < 0: the item was placed */
    int item;
    int64_t low;
};

struct search {
    struct problem *p;
    const char *order; /* letters of rank_items */
    int64_t capacity, node_limit, nodes, step_limit;
    int64_t *low;    /* lowest offset that what is placed allows */
    int64_t *offset; /* -1: not placed */
    int64_t *total;  /* of a section: sizes not placed */
    int64_t *fails;  /* of a section: how often it did not fit */
    int *cuts;       /* of a section: items not placed that reach into the next one */
    int *next;       /* of a section: for skipping those that have their floor */
    int *bounds_of_all;
    int *raised; /* of an item: the move that raised it last */
    int move;
    int turn;            /* searches begun */
    struct key_set seen; /* what led nowhere */
    VEC(struct change) trail;
    VEC(struct choice) lists;  /* a stack: the items left at each node, by ascending low, then rank */
    VEC(int) bounds;           /* a stack: sections at which a group falls apart */
    VEC(struct choice) lifted; /* raised by one move */
};

/* ---- order of preference ------------------------------------------------------------------------------------------ */

enum { LETTERS = 3, ORDERS = 5 };
static const char *const orders[ORDERS] = {"TWA", "FTA", "TAW", "WAT", "FWA"};

struct ranked {
    double key[LETTERS];
    int item;
};

static int compare_ranked(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    for (int i = 0; i < LETTERS; i++)
        if (x->key[i] != y->key[i])
            return x->key[i] > y->key[i] ? -1 : 1;
    return x->item - y->item;
}

static int64_t largest(const int64_t *of_section, int first, int last) {
    int64_t most = 0;
    for (int t = first; t < last; t++)
        if (of_section[t] > most)
            most = of_section[t];
    return most;
}

/* A factor from 1 to 1 + BLUR; 1 in the first turn of each order. */
static double blur(const struct search *s, int item, int letter) {
    if (s->turn <= ORDERS)
        return 1;
    uint64_t r = key_mix(((uint64_t)s->turn << 40) + ((uint64_t)item << 2) + (uint64_t)letter);
    return 1 + BLUR * ((double)(r >> 11) / (double)(UINT64_C(1) << 53));
}

/* Ranks the choices from `begin` on by width of lifetime (W), area (A), total still to come in their fullest section (T) and
 * failures of their worst section (F), largest first, in the order that the letters have. */
static void rank_items(struct search *s, int begin) {
    const struct problem *p = s->p;
    int n = s->lists.n - begin;
    struct choice *list = s->lists.at + begin;
    struct ranked *r = malloc(sizeof *r * (size_t)n);
    if (!r)
        abort();
    for (int k = 0; k < n; k++) {
        int i = list[k].item;
        r[k].item = i;
        for (int c = 0; c < LETTERS; c++)
            switch (s->order[c]) {
            case 'W': r[k].key[c] = p->width[i] * blur(s, i, c); break;
            case 'A': r[k].key[c] = p->width[i] * (double)p->size[i] * blur(s, i, c); break;
            case 'T': r[k].key[c] = (double)largest(s->total, p->first[i], p->last[i]); break;
            default: r[k].key[c] = (double)largest(s->fails, p->first[i], p->last[i]);
            }
    }
    qsort(r, (size_t)n, sizeof *r, compare_ranked);
    for (int k = 0; k < n; k++)
        list[k] = (struct choice){s->low[r[k].item], k, r[k].item};
    free(r);
}

static int compare_choice(const void *a, const void *b) {
    const struct choice *x = a, *y = b;
    if (x->low != y->low)
        return x->low < y->low ? -1 : 1;
    return x->rank - y->rank;
}

/* ---- one move ----------------------------------------------------------------------------------------------------- */

static int section_after(struct search *s, int t) {
    while (s->next[t] != t) {
        s->next[t] = s->next[s->next[t]];
        t = s->next[t];
    }
    return t;
}

/* Sections of the group at which it falls apart are appended to bounds. */
static void take(struct search *s, int item, int64_t at) {
    const struct problem *p = s->p;
    s->offset[item] = at;
    for (int t = p->first[item]; t < p->last[item]; t++) {
        s->total[t] -= p->size[item];
        if (t + 1 < p->last[item] && --s->cuts[t] == 0)
            VEC_PUSH(p->arena, s->bounds, t + 1);
    }
    VEC_PUSH(p->arena, s->trail, (struct change){item, -1});
}

static void undo(struct search *s, int mark) {
    const struct problem *p = s->p;
    while (s->trail.n > mark) {
        struct change c = s->trail.at[--s->trail.n];
        if (c.low >= 0) {
            s->low[c.item] = c.low;
            continue;
        }
        s->offset[c.item] = -1;
        for (int t = p->first[c.item]; t < p->last[c.item]; t++) {
            s->total[t] += p->size[c.item];
            s->cuts[t] += t + 1 < p->last[c.item];
        }
    }
}

/* What meets the item and is not placed must lie above its top. False if something is then too high; *hatless if there is
 * no such. */
static bool raise_others(struct search *s, int item, int64_t top, bool *hatless) {
    const struct problem *p = s->p;
    *hatless = true;
    s->move++;
    for (int k = 0; k < p->meet_count[item]; k++) {
        int o = p->meets[item][k];
        if (s->offset[o] >= 0)
            continue;
        *hatless = false;
        if (s->low[o] >= top)
            continue;
        if (top + p->size[o] > s->capacity)
            return false;
        VEC_PUSH(p->arena, s->trail, (struct change){o, s->low[o]});
        s->low[o] = top;
        s->raised[o] = s->move;
    }
    return true;
}

/* Appends the list of what is left after the choice at `chosen` was placed: those it raised move up to its top. */
static void append_rest(struct search *s, int begin, int end, int chosen) {
    struct arena *a = s->p->arena;
    s->lifted.n = 0;
    for (int k = begin; k < end; k++) {
        struct choice c = s->lists.at[k];
        if (k == chosen || s->raised[c.item] != s->move)
            continue;
        c.low = s->low[c.item];
        VEC_PUSH(a, s->lifted, c);
    }
    if (s->lifted.n)
        qsort(s->lifted.at, (size_t)s->lifted.n, sizeof *s->lifted.at, compare_choice);
    int next = 0;
    for (int k = begin; k < end; k++) {
        struct choice c = s->lists.at[k];
        if (k == chosen || s->raised[c.item] == s->move)
            continue;
        while (next < s->lifted.n && compare_choice(&s->lifted.at[next], &c) < 0)
            VEC_PUSH(a, s->lists, s->lifted.at[next++]);
        VEC_PUSH(a, s->lists, c);
    }
    while (next < s->lifted.n)
        VEC_PUSH(a, s->lists, s->lifted.at[next++]);
}

/* Whether a choice is one that was passed over, when the one with (level, rank) is the next that may be placed. */
static bool passed(struct choice c, int64_t level, int rank) {
    return c.low < level || (c.low == level && c.rank < rank);
}

/* Sections of the item that have no floor yet get this one. False if what is to come in one does not fit above it. */
static bool give_floor(struct search *s, int item, int64_t floor) {
    const struct problem *p = s->p;
    for (int t = section_after(s, p->first[item]); t < p->last[item]; t = section_after(s, t)) {
        if (floor + s->total[t] > s->capacity) {
            s->fails[t]++;
            return false;
        }
        s->next[t] = t + 1;
    }
    return true;
}

/* Whether in every section what is to come, the list [begin, end), fits above the section's floor: the least of its items' lowest
 * offsets. The list ascends, and what was passed over, at its head, counts with the lowest top of the others. */
static bool sections_fit(struct search *s, int begin, int end, int first, int last, int64_t level, int rank) {
    const struct choice *list = s->lists.at;
    int open = begin, k;
    int64_t lift = INT64_MAX;
    for (int t = first; t <= last; t++)
        s->next[t] = t;
    while (open < end && passed(list[open], level, rank))
        open++;
    if (open == end)
        return begin == end;
    for (k = open; k < end && list[k].low < lift; k++)
        if (list[k].low + s->p->size[list[k].item] < lift)
            lift = list[k].low + s->p->size[list[k].item];
    for (k = open; k < end && list[k].low < lift && section_after(s, first) < last; k++)
        if (!give_floor(s, list[k].item, list[k].low))
            return false;
    for (int b = begin; b < open && section_after(s, first) < last; b++)
        if (!give_floor(s, list[b].item, lift))
            return false;
    for (; k < end && section_after(s, first) < last; k++)
        if (!give_floor(s, list[k].item, list[k].low))
            return false;
    return true;
}

/* What is left in the list: whether it can be placed depends on this alone, and on no order of preference. */
static struct state_key state_of(const struct search *s, int begin, int end, int64_t level, int rank) {
    struct state_key key = {0, 0};
    for (int k = begin; k < end; k++) {
        struct choice c = s->lists.at[k];
        uint64_t x = key_mix(((uint64_t)c.low << 1 | passed(c, level, rank)) + key_mix((uint64_t)c.item));
        key.a += x;
        key.b += key_mix(x);
    }
    return key;
}

/* ---- the search --------------------------------------------------------------------------------------------------- */

static enum placement_found place(struct search *s, int begin, int end, int first, int last, int64_t level,
                                  int level_rank);

/* Searches the groups into which the list [begin, end) falls between the given bounds apart. */
static enum placement_found place_groups(struct search *s, int begin, int end, const int *bounds, int count,
                                         int64_t level) {
    const struct problem *p = s->p;
    enum placement_found found = PLACEMENT_FOUND;
    for (int g = 0; g + 1 < count && found == PLACEMENT_FOUND; g++) {
        int from = s->lists.n;
        for (int k = begin; k < end; k++) {
            struct choice c = s->lists.at[k];
            if (p->first[c.item] >= bounds[g] && p->first[c.item] < bounds[g + 1])
                VEC_PUSH(p->arena, s->lists, c);
        }
        if (s->lists.n == from)
            continue;
        rank_items(s, from);
        qsort(s->lists.at + from, (size_t)(s->lists.n - from), sizeof *s->lists.at, compare_choice);
        found = place(s, from, s->lists.n, bounds[g], bounds[g + 1], level, -1);
        s->lists.n = from;
    }
    return found;
}

/* Tries one choice and, if nothing speaks against it, all that follows. */
static enum placement_found try_choice(struct search *s, int begin, int end, int chosen, int first, int last,
                                       bool *hatless) {
    const struct problem *p = s->p;
    struct choice c = s->lists.at[chosen];
    int mark = s->trail.n, bounds_mark = s->bounds.n, lists_mark = s->lists.n;
    enum placement_found found = PLACEMENT_IMPOSSIBLE;
    *hatless = false;
    VEC_PUSH(p->arena, s->bounds, first);
    take(s, c.item, c.low);
    s->p->steps += p->meet_count[c.item] + p->last[c.item] - p->first[c.item];
    if (c.low + p->size[c.item] <= s->capacity && raise_others(s, c.item, c.low + p->size[c.item], hatless)) {
        append_rest(s, begin, end, chosen);
        s->p->steps += 2 * (end - begin) + last - first;
        if (!sections_fit(s, lists_mark, s->lists.n, first, last, c.low, c.rank)) {
            found = PLACEMENT_IMPOSSIBLE;
        } else if (s->bounds.n == bounds_mark + 1) {
            found = place(s, lists_mark, s->lists.n, first, last, c.low, c.rank);
        } else {
            VEC_PUSH(p->arena, s->bounds, last);
            int count = s->bounds.n - bounds_mark;
            int *bounds = malloc(sizeof *bounds * (size_t)count); /* the stack may move */
            if (!bounds)
                abort();
            memcpy(bounds, s->bounds.at + bounds_mark, sizeof *bounds * (size_t)count);
            found = place_groups(s, lists_mark, s->lists.n, bounds, count, c.low);
            free(bounds);
        }
    }
    s->lists.n = lists_mark;
    s->bounds.n = bounds_mark;
    if (found != PLACEMENT_FOUND)
        undo(s, mark);
    return found;
}

/* Places the list [begin, end), a group alive within the sections [first, last), at or above `level`; at `level` itself only
 * what ranks behind what was placed there last. */
static enum placement_found place(struct search *s, int begin, int end, int first, int last, int64_t level,
                                  int level_rank) {
    if (begin == end)
        return PLACEMENT_FOUND;
    if (s->nodes++ >= s->node_limit || s->p->steps > s->step_limit)
        return PLACEMENT_GIVEN_UP;
    struct state_key key = {0, 0};
    bool keyed = end - begin >= FEW_ITEMS;
    if (keyed) {
        key = state_of(s, begin, end, level, level_rank);
        s->p->steps += end - begin;
        if (key_set_has(&s->seen, key))
            return PLACEMENT_IMPOSSIBLE;
    }
    int64_t lowest_top = INT64_MAX;
    for (int k = begin; k < end; k++) {
        struct choice c = s->lists.at[k];
        if (c.low + s->p->size[c.item] < lowest_top)
            lowest_top = c.low + s->p->size[c.item];
    }
    for (int k = begin; k < end && s->lists.at[k].low < lowest_top; k++) {
        struct choice c = s->lists.at[k];
        bool hatless;
        if (passed(c, level, level_rank))
            continue;
        enum placement_found found = try_choice(s, begin, end, k, first, last, &hatless);
        if (found != PLACEMENT_IMPOSSIBLE)
            return found;
        s->p->steps += end - begin + last - first;
        if (hatless || !sections_fit(s, begin, end, first, last, c.low, c.rank + 1))
            break;
    }
    if (keyed)
        key_set_add(&s->seen, key);
    return PLACEMENT_IMPOSSIBLE;
}

static enum placement_found search_once(struct search *s) {
    const struct problem *p = s->p;
    memset(s->total, 0, sizeof *s->total * (size_t)p->sections);
    memset(s->cuts, 0, sizeof *s->cuts * (size_t)p->sections);
    s->trail.n = s->lists.n = s->bounds.n = 0;
    s->nodes = 0;
    for (int i = 0; i < p->n; i++) {
        s->low[i] = 0;
        s->offset[i] = -1;
        for (int t = p->first[i]; t < p->last[i]; t++) {
            s->total[t] += p->size[i];
            s->cuts[t] += t + 1 < p->last[i];
        }
        VEC_PUSH(p->arena, s->lists, (struct choice){0, i, i});
    }
    int *bounds = s->bounds_of_all, count = 0;
    for (int t = 0; t <= p->sections; t++)
        if (t == 0 || t == p->sections || !s->cuts[t - 1])
            bounds[count++] = t;
    return place_groups(s, 0, p->n, bounds, count, 0);
}

enum placement_found placement_search(struct problem *p, int64_t capacity, int64_t steps, int64_t *offset) {
    struct search s = {.p = p, .capacity = capacity, .step_limit = p->steps + steps, .offset = offset};
    size_t n = (size_t)p->n + 1, sections = (size_t)p->sections + 1;
    enum placement_found found = PLACEMENT_GIVEN_UP;
    s.seen.most = MOST_KEYS;
    s.low = ARENA_ARRAY(p->arena, int64_t, n);
    s.raised = ARENA_ARRAY(p->arena, int, n);
    s.total = ARENA_ARRAY(p->arena, int64_t, sections);
    s.fails = ARENA_ARRAY(p->arena, int64_t, sections);
    s.cuts = ARENA_ARRAY(p->arena, int, sections);
    s.next = ARENA_ARRAY(p->arena, int, sections);
    s.bounds_of_all = ARENA_ARRAY(p->arena, int, sections);
    s.node_limit = 2 * (int64_t)p->n;
    while (found == PLACEMENT_GIVEN_UP && p->steps <= s.step_limit) {
        s.order = orders[s.turn++ % ORDERS];
        found = search_once(&s);
        if (s.turn % ORDERS == 0)
            s.node_limit *= 2;
    }
    key_set_free(&s.seen);
    return found;
}
