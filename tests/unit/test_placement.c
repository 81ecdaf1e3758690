/* Placement: against all orders on small instances, on random ones, and on those of MiniMalloc (tests/placement). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "passes/memplan/placement.h"
#include "tests/unit/plan_random.h"

#define STEPS (PLACEMENT_STEPS_PER_SECOND / 4)

static bool meet(const struct placement_item *a, const struct placement_item *b) {
    return a->lower < b->upper && b->lower < a->upper;
}

/* The plain way; placement_check must agree. */
static bool disjoint(const struct placement_item *x, int n, int64_t align) {
    bool good = true;
    int one, other;
    for (int i = 0; i < n; i++) {
        good &= x[i].offset >= 0 && x[i].offset % align == 0;
        for (int k = 0; k < i; k++)
            good &=
                !meet(&x[i], &x[k]) || x[i].offset >= x[k].offset + x[k].size || x[k].offset >= x[i].offset + x[i].size;
    }
    cr_assert_eq(placement_check(x, n, align, &one, &other), good);
    return good;
}

static int random_items(uint64_t *s, struct placement_item *x, int most, int times) {
    int n = 1 + pick(s, most);
    for (int i = 0; i < n; i++) {
        int lower = pick(s, times);
        x[i] = (struct placement_item){lower, lower + 1 + pick(s, times / 2), 1 + pick(s, 30), -1};
    }
    return n;
}

Test(placement, random_items) {
    uint64_t s = 99;
    for (int round = 0; round < 60; round++) {
        struct placement_item x[80], y[80];
        int n = random_items(&s, x, 80, 50);
        int64_t align = pick(&s, 2) ? 64 : 1;
        memcpy(y, x, sizeof x);
        struct placement_result a = placement_solve(x, n, align, 0, STEPS), b = placement_solve(y, n, align, 0, STEPS);
        cr_assert(disjoint(x, n, align));
        cr_assert_geq(a.height, a.bound);
        cr_assert_geq(a.bound, placement_load(x, n));
        cr_assert_eq(a.height, b.height);
        cr_assert(!memcmp(x, y, sizeof *x * (size_t)n), "same input, other offsets");
    }
}

/* An offset that is off by a little is found out if and only if two items then overlap. */
Test(placement, planted_overlaps) {
    uint64_t s = 41;
    int wrong = 0;
    for (int round = 0; round < 300; round++) {
        struct placement_item x[40];
        int n = random_items(&s, x, 40, 20);
        placement_solve(x, n, 1, 0, STEPS / 10);
        x[pick(&s, n)].offset += pick(&s, 2) ? 1 + pick(&s, 5) : -1 - pick(&s, 5);
        wrong += !disjoint(x, n, 1);
    }
    cr_expect_gt(wrong, 150);
}

/* Every placement that cannot be pressed down further comes from placing items in some order, each on top of those it meets. */
static int64_t lowest(struct placement_item *x, int placed, int n, int64_t height, int64_t best) {
    if (height >= best)
        return best;
    if (placed == n)
        return height;
    for (int k = placed; k < n; k++) {
        struct placement_item chosen = x[k];
        x[k] = x[placed];
        chosen.offset = 0;
        for (int i = 0; i < placed; i++)
            if (meet(&x[i], &chosen) && x[i].offset + x[i].size > chosen.offset)
                chosen.offset = x[i].offset + x[i].size;
        x[placed] = chosen;
        int64_t top = chosen.offset + chosen.size;
        best = lowest(x, placed + 1, n, top > height ? top : height, best);
        x[placed] = x[k];
        x[k] = chosen;
    }
    return best;
}

Test(placement, small_instances_are_solved_exactly) {
    uint64_t s = 7;
    for (int round = 0; round < 400; round++) {
        struct placement_item x[9], y[9];
        int n = random_items(&s, x, 9, 8);
        for (int i = 0; i < n; i++)
            x[i].size = 1 + x[i].size % 4;
        memcpy(y, x, sizeof x);
        int64_t best = lowest(y, 0, n, 0, INT64_MAX);
        struct placement_result r = placement_solve(x, n, 1, 0, STEPS);
        cr_assert(disjoint(x, n, 1));
        cr_assert_eq(r.height, best, "round %d", round);
        cr_assert_eq(r.bound, best, "round %d: the proof is missing", round);
    }
}

/* 10 are alive at once, and 11 are needed: the bound is what the search proved. */
Test(placement, proof_above_the_load) {
    struct placement_item x[] = {{3, 6, 3, 0}, {2, 5, 3, 0}, {2, 3, 4, 0}, {1, 4, 3, 0},
                                 {6, 7, 4, 0}, {4, 5, 2, 0}, {4, 8, 2, 0}, {5, 8, 4, 0}};
    cr_expect_eq(placement_load(x, 8), 10);
    cr_expect_eq(lowest(x, 0, 8, 0, INT64_MAX), 11);
    struct placement_result r = placement_solve(x, 8, 1, 0, STEPS);
    cr_expect_eq(r.height, 11);
    cr_expect_eq(r.bound, 11);
}

Test(placement, none) {
    cr_expect_eq(placement_solve(NULL, 0, 64, 0, STEPS).height, 0);
    cr_expect_eq(placement_load(NULL, 0), 0);
    struct placement_item x[] = {{3, 3, 8, -1}, {0, 4, 0, -1}};
    cr_expect_eq(placement_solve(x, 2, 64, 0, STEPS).height, 0);
}

Test(placement, small_items_around_long_ones) {
    struct placement_item x[] = {{0, 3, 4, 0}, {3, 9, 4, 0}, {0, 9, 4, 0}, {9, 21, 4, 0}, {0, 21, 4, 0}};
    cr_expect_eq(placement_solve(x, 5, 1, 0, STEPS).height, 12);
    cr_expect(disjoint(x, 5, 1));
}

/* So many meetings that items go into the lowest gap in order of time. */
Test(placement, very_many_items) {
    enum { N = 20000 };
    static struct placement_item x[N];
    uint64_t s = 5;
    for (int i = 0; i < N; i++) {
        int lower = pick(&s, N);
        x[i] = (struct placement_item){lower, lower + 1 + pick(&s, N), 1 + pick(&s, 1000), -1};
    }
    struct placement_result r = placement_solve(x, N, 1, 0, STEPS);
    cr_expect_geq(r.height, r.bound);
    cr_expect_lt(r.height, 2 * r.bound);
    for (int i = 0; i < N; i += 37)
        for (int k = 0; k < N; k++)
            cr_assert(k == i || !meet(&x[i], &x[k]) || x[i].offset >= x[k].offset + x[k].size ||
                      x[k].offset >= x[i].offset + x[i].size);
}

static void minimalloc(char name) {
    struct placement_item x[400];
    char path[1024], line[256];
    snprintf(path, sizeof path, "%s/%c.1048576.csv", PLACEMENT_FOLDER, name);
    FILE *f = fopen(path, "r");
    cr_assert(f, "%s", path);
    int n = 0;
    long long id, lower, upper, size;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "%lld,%lld,%lld,%lld", &id, &lower, &upper, &size) == 4 && n < 400)
            x[n++] = (struct placement_item){lower, upper, size, 0};
    fclose(f);
    cr_assert_gt(n, 100);
    struct placement_result r = placement_solve(x, n, 1, 1048576, PLACEMENT_STEPS_PER_SECOND);
    cr_expect_leq(r.height, 1048576, "%s", path);
    cr_expect(disjoint(x, n, 1));
}

Test(placement, minimalloc) {
    for (const char *names = "ABCDEF"; *names; names++)
        minimalloc(*names);
}

enum { CUT_TIMES = 100, CUT_UNITS = 1024 };

/* The full rectangle of memory and time is cut into n items, mostly along time, so that they live long; a third then shrinks a little.
 * They fit the rectangle. */
static void cut_rectangle(uint64_t *s, struct placement_item *x, int n) {
    x[0] = (struct placement_item){0, CUT_TIMES, CUT_UNITS, 0};
    for (int k = 1; k < n;) {
        int i = pick(s, k);
        for (int again = 0; again < 2; again++) {
            int j = pick(s, k);
            if ((x[j].upper - x[j].lower) * x[j].size > (x[i].upper - x[i].lower) * x[i].size)
                i = j;
        }
        int64_t length = x[i].upper - x[i].lower;
        x[k] = x[i];
        if (pick(s, 4)) {
            if (x[i].size < 8)
                continue;
            x[k].size = x[i].size * (15 + pick(s, 70)) / 100;
            x[i].size -= x[k++].size;
        } else if (length >= 2) {
            x[k].lower = x[i].upper = x[i].lower + 1 + pick(s, (int)length - 1);
            k++;
        }
    }
    for (int i = 0; i < n; i++) {
        if (!pick(s, 3))
            x[i].size -= pick(s, (int)x[i].size / 8 + 1);
        int j = pick(s, i + 1);
        struct placement_item t = x[i];
        x[i] = x[j];
        x[j] = t;
    }
}

Test(placement, cut_rectangles) {
    int met = 0;
    for (int k = 0; k < 12; k++) {
        struct placement_item x[400];
        uint64_t s = 12345 + (uint64_t)k;
        int n = 100 + 12 * k;
        cut_rectangle(&s, x, n);
        struct placement_result r = placement_solve(x, n, 1, CUT_UNITS, PLACEMENT_STEPS_PER_SECOND / 4);
        cr_expect(disjoint(x, n, 1));
        cr_expect_leq(r.bound, CUT_UNITS);
        met += r.height <= CUT_UNITS;
    }
    cr_expect_geq(met, 8, "%d of 12", met);
}
