/* Checks a placement with code of its own: a sweep over time keeps what is alive in order of offsets, where an item that begins
 * may touch neither neighbour. Nothing of placement.c is used.
 */
#include <stdlib.h>
#include <string.h>

#include "passes/memplan/placement.h"

struct moment {
    int64_t time;
    int begins, item;
};

static int compare_moment(const void *a, const void *b) {
    const struct moment *x = a, *y = b;
    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    return x->begins - y->begins; /* who ends makes room for who begins */
}

/* Where an item with this offset stands, or would, among the alive ones. */
static int place_among(const struct placement_item *items, const int *alive, int n, int64_t offset) {
    int lo = 0, hi = n;
    while (lo < hi) {
        int middle = lo + (hi - lo) / 2;
        if (items[alive[middle]].offset < offset)
            lo = middle + 1;
        else
            hi = middle;
    }
    return lo;
}

bool placement_check(const struct placement_item *items, int n, int64_t align, int *one, int *other) {
    struct moment *moments = malloc(sizeof *moments * (2 * (size_t)n + 1));
    int *alive = malloc(sizeof *alive * ((size_t)n + 1));
    int count = 0, living = 0;
    bool good = true;
    if (!moments || !alive)
        abort();
    for (int i = 0; i < n && good; i++) {
        *one = *other = i;
        good = items[i].offset >= 0 && items[i].offset % align == 0;
        if (items[i].upper <= items[i].lower || items[i].size <= 0)
            continue;
        moments[count++] = (struct moment){items[i].lower, 1, i};
        moments[count++] = (struct moment){items[i].upper, 0, i};
    }
    qsort(moments, (size_t)count, sizeof *moments, compare_moment);
    for (int m = 0; m < count && good; m++) {
        const struct placement_item *x = &items[moments[m].item];
        int k = place_among(items, alive, living, x->offset);
        if (!moments[m].begins) {
            memmove(alive + k, alive + k + 1, sizeof *alive * (size_t)(--living - k));
            continue;
        }
        for (int side = k - 1; side <= k && good; side++) {
            if (side < 0 || side >= living)
                continue;
            const struct placement_item *y = &items[alive[side]];
            good = x->offset + x->size <= y->offset || y->offset + y->size <= x->offset;
            *one = moments[m].item;
            *other = alive[side];
        }
        memmove(alive + k + 1, alive + k, sizeof *alive * (size_t)(living++ - k));
        alive[k] = moments[m].item;
    }
    free(moments);
    free(alive);
    return good;
}
