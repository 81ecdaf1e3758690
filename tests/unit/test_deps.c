/* Integer sets against enumeration, accesses against what programs do. */
#include <criterion/criterion.h>

#include "passes/mutation/integer_set.h"

enum { VARS = 4, RANGE = 6 };

static unsigned next_random(unsigned *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Whether some point of [-RANGE, RANGE]^VARS satisfies all rows. */
static bool has_point(const struct integer_set *s) {
    int x[VARS];
    for (int code = 0; code < 13 * 13 * 13 * 13; code++) {
        int rest = code;
        for (int i = 0; i < VARS; i++) {
            x[i] = rest % (2 * RANGE + 1) - RANGE;
            rest /= 2 * RANGE + 1;
        }
        bool inside = true;
        for (int r = 0; r < s->rows.n && inside; r++) {
            int64_t sum = s->rows.at[r].f.k;
            for (int i = 0; i < VARS; i++)
                sum += s->rows.at[r].f.c[i] * x[i];
            inside = s->rows.at[r].equality ? sum == 0 : sum >= 0;
        }
        if (inside)
            return true;
    }
    return false;
}

Test(integer_set, random_sets_against_enumeration) {
    unsigned state = 7;
    int empty = 0, proven = 0;
    for (int round = 0; round < 400; round++) {
        struct arena a = {0};
        struct integer_set s = {.arena = &a};
        for (int i = 0; i < VARS; i++) { /* a box, so that enumeration sees all of it */
            int v = set_new_var(&s);
            struct linear_form low = form_var(v), up = form_scale(&low, -1);
            up.k = low.k = RANGE;
            set_add_positive(&s, &up);
            set_add_positive(&s, &low);
        }
        int rows = 2 + (int)(next_random(&state) % 4);
        for (int r = 0; r < rows; r++) {
            struct linear_form f = form_const((int64_t)(next_random(&state) % 17) - 8);
            for (int i = 0; i < VARS; i++)
                f.c[i] = (int64_t)(next_random(&state) % 9) - 4;
            if (next_random(&state) % 2)
                set_add_zero(&s, &f);
            else
                set_add_positive(&s, &f);
        }
        bool point = has_point(&s), said_empty = set_is_empty(&s);
        cr_assert(!(point && said_empty), "round %d: a set with a point is called empty", round);
        empty += !point;
        proven += said_empty;
        arena_free(&a);
    }
    cr_assert(proven * 10 >= empty * 8, "only %d of %d empty sets were proven empty", proven, empty);
}

Test(integer_set, gcd_bounds_and_overflow) {
    struct arena a = {0};
    struct integer_set s = {.arena = &a};
    int x = set_new_var(&s), y = set_new_var(&s);
    struct linear_form f = form_var(x), g = form_var(y);
    f = form_scale(&f, 2); /* 2x = 2y - 1 */
    f = form_add(&f, &g, -2);
    f.k = 1;
    set_add_zero(&s, &f);
    cr_assert(set_is_empty(&s));
    struct integer_set t = {.arena = &a, .vars = 2};
    f = form_var(x); /* 1 <= 3x <= 2 */
    struct linear_form low = form_scale(&f, 3), high = form_scale(&f, -3);
    low.k = -1;
    high.k = 2;
    set_add_positive(&t, &low);
    cr_assert(!set_is_empty(&t));
    set_add_positive(&t, &high);
    cr_assert(set_is_empty(&t));
    struct linear_form huge = form_scale(&low, INT64_MAX / 2);
    cr_assert(!huge.ok);
    arena_free(&a);
}
