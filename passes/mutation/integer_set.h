/* Sets of integer points given by linear equalities and inequalities, and the proof that one is empty. */
#ifndef MXCC_PASSES_MUTATION_INTEGER_SET_H
#define MXCC_PASSES_MUTATION_INTEGER_SET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"

enum { SET_VARS = 40, SET_ROWS = 160 };

/* k + sum c[i] * variable i. Arithmetic that overflows clears `ok`. */
struct linear_form {
    int64_t c[SET_VARS], k;
    bool ok;
};

struct set_row {
    struct linear_form f; /* f = 0 or f >= 0 */
    bool equality;
};

/* A conjunction. Zeroed but for the arena, it holds every point. A condition that cannot be kept (overflow, too many)
 * is left out, which only makes the set larger. */
struct integer_set {
    struct arena *arena;
    int vars;
    VEC(struct set_row) rows;
};

struct linear_form form_const(int64_t k);
struct linear_form form_var(int var);
/* a + scale * b */
struct linear_form form_add(const struct linear_form *a, const struct linear_form *b, int64_t scale);
struct linear_form form_scale(const struct linear_form *a, int64_t scale);

/* A new variable's number; -1 if there are too many. */
int set_new_var(struct integer_set *s);
void set_add_zero(struct integer_set *s, const struct linear_form *f);     /* f = 0 */
void set_add_positive(struct integer_set *s, const struct linear_form *f); /* f >= 0 */
/* True only if no integer point satisfies all conditions. */
bool set_is_empty(const struct integer_set *s);

#endif
