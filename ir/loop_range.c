/* Intervals of index arithmetic, from the bounds of loops and dimensions: where all of an expression fits 32 bits, a GPU computes it
 * so, at a quarter of the registers' and a fraction of division's cost. */
#include <stdint.h>

#include "ir/loop.h"

static bool within(int64_t x) {
    return x >= -INT32_MAX && x <= INT32_MAX;
}

static void order(int64_t *lo, int64_t *hi, const int64_t *all, int n) {
    *lo = *hi = all[0];
    for (int i = 1; i < n; i++) {
        *lo = all[i] < *lo ? all[i] : *lo;
        *hi = all[i] > *hi ? all[i] : *hi;
    }
}

/* Of an operation on values that fit 32 bits, so that nothing here overflows. */
static bool op_range(lx e, int64_t *lo, int64_t *hi) {
    int64_t a, b, c, d;
    if (e->count != 2 || !lx_range(e->args[0], &a, &b) || !lx_range(e->args[1], &c, &d))
        return false;
    switch (e->op) {
    case I_ADD: *lo = a + c, *hi = b + d; return true;
    case I_SUB: *lo = a - d, *hi = b - c; return true;
    case I_MUL: order(lo, hi, (int64_t[]){a * c, a * d, b * c, b * d}, 4); return true;
    case I_MIN: *lo = a < c ? a : c, *hi = b < d ? b : d; return true;
    case I_MAX: *lo = a > c ? a : c, *hi = b > d ? b : d; return true;
    case I_DIV: /* of a >= 0 by something > 0 */ *lo = 0, *hi = b > 0 ? b / (c > 0 ? c : 1) : 0; return true;
    case I_MOD: *lo = 0, *hi = d > 0 ? d - 1 : 0; return true;
    case I_FDIV: /* the quotient is no larger than the dividend, or one below it */
        order(lo, hi, (int64_t[]){a - 1, b + 1, -a + 1, -b - 1, 0}, 5);
        return true;
    case I_FMOD: *lo = c < 0 ? c : 0, *hi = d > 0 ? d : 0; return true;
    default: return false;
    }
}

bool lx_range(lx e, int64_t *lo, int64_t *hi) {
    bool known = false;
    if (e->dtype != I64 || e->lanes != 1)
        return false;
    switch (e->kind) {
    case LX_INT:
        *lo = *hi = e->value.i;
        known = true;
        break;
    case LX_VAR:
        *lo = e->var->least;
        *hi = e->var->most;
        known = e->var->bounded;
        break;
    case LX_OP: known = op_range(e, lo, hi); break;
    case LX_SELECT: {
        int64_t a, b, c, d;
        if (!lx_range(e->args[1], &a, &b) || !lx_range(e->args[2], &c, &d))
            return false;
        *lo = a < c ? a : c;
        *hi = b > d ? b : d;
        known = true;
        break;
    }
    default: break;
    }
    return known && within(*lo) && within(*hi);
}

void loop_var_bound(struct loop_var *v, int64_t least, int64_t most) {
    v->bounded = within(least) && within(most) && least <= most && !v->is_mutable && v->dtype == I64;
    v->least = least;
    v->most = most;
}
