/* Index algebra with ranges, bottom up over the DAG.
 *
 * Quotients and remainders are split along their linear form: what the divisor divides goes out, and what is
 * left vanishes or stays by its range. This undoes the index arithmetic of composed views: ((i * H + j) * W +
 * k) / W % H is j. Wrapping never changes a sum's meaning, but a quotient may be split only where the range
 * shows that the dividend does not wrap. */
#include "ir/linear.h"

#include <stdlib.h>

struct simplifier {
    struct ranges ranges;
    struct ir_value **operands; /* may be NULL: guards stay */
    int depth;
};

static ir_expr simplify_node(struct simplifier *s, ir_expr e);

static bool is_fn(ir_expr e, enum scalar_fn fn) {
    return e->kind == X_FN && e->fn == fn;
}

static ir_expr build(struct simplifier *s, enum scalar_fn fn, ir_expr a, ir_expr b) {
    return simplify_node(s, ir_fn2(s->ranges.module, fn, a, b));
}

/* A positive constant or dimension, else NULL. */
static ir_dim positive(struct ir_module *m, ir_expr e) {
    ir_dim d = e->kind == X_DIM                                                    ? e->dim
               : e->kind == X_CONST && !dtype_is_float(e->dtype) && e->value.i > 0 ? ir_dim_const(m, e->value.i)
                                                                                   : NULL;
    return d && ir_dim_lower(d) >= 1 && ir_dim_upper(d) > 0 ? d : NULL;
}

static ir_expr fixed_expr(struct ir_module *m, ir_dim d, enum dtype t) {
    int64_t c;
    return ir_dim_is_const(d, &c) ? ir_const_int(m, t, c) : ir_dim_expr(m, d);
}

/* ---- sums ---- */

/* (x / n) * (k * n) + (x % n) * k is x * k; true if there was such a pair. */
static bool recombine(struct simplifier *s, struct linear *form) {
    struct ir_module *m = s->ranges.module;
    for (int i = 0; i < form->n; i++) {
        ir_expr rest = form->at[i].leaf;
        ir_dim n = is_fn(rest, FN_mod) ? positive(m, rest->args[1]) : NULL;
        if (!n)
            continue;
        ir_expr quotient = build(s, FN_div, rest->args[0], rest->args[1]);
        ir_dim k = form->at[i].k, wanted = ir_dim_mul(m, k, n);
        for (int j = 0; j < form->n; j++)
            if (form->at[j].leaf == quotient && form->at[j].k == wanted) {
                bool ok = true;
                ir_dim minus = ir_dim_const(m, -1);
                struct linear next = *form, whole;
                linear_add_term(m, &next, quotient, ir_dim_mul(m, wanted, minus), &ok);
                linear_add_term(m, &next, rest, ir_dim_mul(m, k, minus), &ok);
                if (!ok || !linear_of(m, rest->args[0], &whole) || !linear_add(m, &next, &whole, k))
                    return false;
                *form = next;
                return true;
            }
    }
    return false;
}

static ir_expr simplify_sum(struct simplifier *s, ir_expr e) {
    struct linear form;
    if (!linear_of(s->ranges.module, e, &form))
        return NULL;
    bool changed = form.merged;
    if (form.n > 1)
        while (recombine(s, &form))
            changed = true;
    return changed ? linear_build(s->ranges.module, &form, e->dtype) : NULL;
}

/* ---- quotients and remainders ---- */

/* form = d * q + r, termwise. */
static bool split(struct ir_module *m, const struct linear *form, ir_dim d, struct linear *q, struct linear *r) {
    bool ok = true;
    ir_dim zero = ir_dim_const(m, 0);
    *q = *r = (struct linear){.constant = zero};
    for (int i = 0; i < form->n; i++) {
        ir_dim k = form->at[i].k, part = ir_dim_div(m, k, d);
        bool exact = ir_dim_mul(m, part, d) == k;
        linear_add_term(m, exact ? q : r, form->at[i].leaf, exact ? part : k, &ok);
    }
    ir_dim part = ir_dim_div(m, form->constant, d), rest = ir_dim_sub(m, form->constant, ir_dim_mul(m, part, d));
    bool clean = ir_dim_is_const(rest, NULL);
    q->constant = clean ? part : zero;
    r->constant = clean ? rest : form->constant;
    return ok;
}

/* floor(form / d) where that is one number: as a dimension, else NULL. */
static ir_dim single_quotient(struct simplifier *s, const struct linear *form, ir_dim d) {
    struct ir_module *m = s->ranges.module;
    struct ir_range range = range_of_linear(&s->ranges, form);
    if (!range.known)
        return NULL;
    if (ir_dim_lower(range.lo) >= 0 && ir_dim_lt(m, range.hi, d))
        return ir_dim_const(m, 0);
    ir_dim lo = ir_dim_div(m, range.lo, d);
    return lo == ir_dim_div(m, range.hi, d) ? lo : NULL;
}

static int64_t gcd(int64_t a, int64_t b) {
    while (b) {
        int64_t t = a % b;
        a = b;
        b = t;
    }
    return a < 0 ? -a : a;
}

/* r = g * a + b with 0 <= b < g and g > 1 a divisor of d: then r / d = a / (d / g). The largest such g, or 0. */
static int64_t common_part(struct simplifier *s, const struct linear *r, int64_t d, struct linear *a) {
    struct ir_module *m = s->ranges.module;
    int64_t best = 0;
    for (int i = 0; i < r->n; i++) {
        int64_t k, g;
        struct linear q, b;
        if (!ir_dim_is_const(r->at[i].k, &k) || (g = gcd(d, k)) <= 1 || g <= best || g == d)
            continue;
        ir_dim dg = ir_dim_const(m, g);
        if (!split(m, r, dg, &q, &b) || !q.n)
            continue;
        ir_dim extra = single_quotient(s, &b, dg);
        if (!extra || extra->count)
            continue;
        best = g;
        *a = q;
    }
    return best;
}

static ir_expr simplify_div(struct simplifier *s, ir_expr e) {
    struct ir_module *m = s->ranges.module;
    ir_dim d = positive(m, e->args[1]), inner;
    struct linear form, q, r, a;
    struct ir_range range;
    int64_t c, g;
    if (!d)
        return NULL;
    /* (y / n) / d = y / (n * d) */
    if (is_fn(e->args[0], FN_div) && e->dtype == I64 && (inner = positive(m, e->args[0]->args[1])))
        return build(s, FN_div, e->args[0]->args[0], fixed_expr(m, ir_dim_mul(m, inner, d), e->dtype));
    if (!linear_exact(&s->ranges, e->args[0], &form, &range) || !split(m, &form, d, &q, &r))
        return NULL;
    ir_dim one = single_quotient(s, &r, d);
    if (one) {
        q.constant = ir_dim_add(m, q.constant, one);
        return linear_build(m, &q, e->dtype);
    }
    if (q.n) {
        ir_expr rest = build(s, FN_div, linear_build(m, &r, e->dtype), e->args[1]);
        return build(s, FN_add, linear_build(m, &q, e->dtype), rest);
    }
    if (ir_dim_is_const(d, &c) && (g = common_part(s, &form, c, &a)) > 1)
        return build(s, FN_div, linear_build(m, &a, e->dtype), ir_const_int(m, e->dtype, c / g));
    return NULL;
}

/* Replaces remainders by a multiple of d in the form by their dividends, which changes the form by multiples of d. */
static bool drop_inner_mods(struct simplifier *s, struct linear *form, ir_dim d) {
    struct ir_module *m = s->ranges.module;
    bool changed = false;
    for (int i = 0; i < form->n; i++) {
        ir_expr leaf = form->at[i].leaf;
        ir_dim n = is_fn(leaf, FN_mod) ? positive(m, leaf->args[1]) : NULL;
        struct linear whole, next = *form;
        struct ir_range range;
        bool ok = true;
        if (!n || ir_dim_mul(m, ir_dim_div(m, n, d), d) != n ||
            !linear_exact(&s->ranges, leaf->args[0], &whole, &range))
            continue;
        ir_dim k = form->at[i].k;
        linear_add_term(m, &next, leaf, ir_dim_mul(m, k, ir_dim_const(m, -1)), &ok);
        if (!ok || !linear_add(m, &next, &whole, k))
            continue;
        *form = next;
        changed = true;
        i = -1; /* inner remainders are fewer each time */
    }
    return changed;
}

static ir_expr simplify_mod(struct simplifier *s, ir_expr e) {
    struct ir_module *m = s->ranges.module;
    ir_dim d = positive(m, e->args[1]);
    struct linear form, q, r;
    struct ir_range range;
    if (!d || !linear_exact(&s->ranges, e->args[0], &form, &range))
        return NULL;
    bool changed = drop_inner_mods(s, &form, d);
    if (!split(m, &form, d, &q, &r))
        return NULL;
    ir_dim one = single_quotient(s, &r, d);
    if (one) {
        r.constant = ir_dim_sub(m, r.constant, ir_dim_mul(m, one, d));
        return linear_build(m, &r, e->dtype);
    }
    range = range_of_linear(&s->ranges, &r);
    if ((!changed && !q.n && !q.constant->count) || !range_fits(range, e->dtype))
        return NULL;
    return build(s, FN_mod, linear_build(m, &r, e->dtype), e->args[1]);
}

/* ---- order ---- */

enum order { LESS, LESS_EQUAL, EQUAL, GREATER_EQUAL, GREATER, NOT_EQUAL, UNORDERED };

static enum order compare(struct simplifier *s, ir_expr a, ir_expr b) {
    struct ir_module *m = s->ranges.module;
    struct linear fa, fb;
    struct ir_range ra = range_of(&s->ranges, a), rb = range_of(&s->ranges, b), difference;
    if (a == b)
        return EQUAL;
    if (!ra.known || !rb.known)
        return UNORDERED;
    if (ir_dim_lt(m, ra.hi, rb.lo))
        return LESS;
    if (ir_dim_lt(m, rb.hi, ra.lo))
        return GREATER;
    if (ir_dim_le(m, ra.hi, rb.lo))
        return ir_dim_le(m, rb.hi, ra.lo) ? EQUAL : LESS_EQUAL;
    if (ir_dim_le(m, rb.hi, ra.lo))
        return GREATER_EQUAL;
    if (!linear_exact(&s->ranges, a, &fa, &ra) || !linear_exact(&s->ranges, b, &fb, &rb) ||
        !linear_add(m, &fb, &fa, ir_dim_const(m, -1)))
        return UNORDERED;
    difference = range_of_linear(&s->ranges, &fb); /* b - a */
    if (!difference.known)
        return UNORDERED;
    int64_t lo = ir_dim_lower(difference.lo), hi = ir_dim_upper(difference.hi);
    if (lo >= 0)
        return lo > 0 ? LESS : hi == 0 ? EQUAL : LESS_EQUAL;
    return hi < 0 ? GREATER : hi == 0 ? GREATER_EQUAL : UNORDERED;
}

static ir_expr simplify_order(struct simplifier *s, ir_expr e) {
    ir_expr a = e->args[0], b = e->args[1];
    if (a->dtype == BOOL)
        return NULL;
    enum order o = compare(s, a, b);
    bool le = o == LESS || o == LESS_EQUAL || o == EQUAL, ge = o == GREATER || o == GREATER_EQUAL || o == EQUAL;
    int answer = -1;
    switch (e->fn) {
    case FN_max: return le ? b : ge ? a : NULL;
    case FN_min: return le ? a : ge ? b : NULL;
    case FN_lt: answer = o == LESS ? 1 : ge ? 0 : -1; break;
    case FN_le: answer = le ? 1 : o == GREATER ? 0 : -1; break;
    default:
        if (o == EQUAL || o == LESS || o == GREATER)
            answer = (o == EQUAL) == (e->fn == FN_eq);
        break;
    }
    return answer < 0 ? NULL : ir_const_int(s->ranges.module, BOOL, answer);
}

/* ---- nodes ---- */

static ir_expr simplify_load(struct simplifier *s, ir_expr e) {
    struct ir_module *m = s->ranges.module;
    if (!e->guarded || !s->operands)
        return NULL;
    struct ir_type t = s->operands[e->index]->type;
    bool inside = true;
    for (int i = 0; i < t.rank; i++) {
        struct ir_range range = range_of(&s->ranges, e->args[i]);
        if (!range.known) {
            inside = false;
            continue;
        }
        if (ir_dim_upper(range.hi) < 0 || ir_dim_le(m, t.dims[i], range.lo))
            return e->args[e->count - 1];
        inside &= ir_dim_lower(range.lo) >= 0 && ir_dim_lt(m, range.hi, t.dims[i]);
    }
    return inside ? ir_load(m, e->index, e->dtype, t.rank, e->args, NULL) : NULL;
}

static ir_expr simplify_where(struct simplifier *s, ir_expr e) {
    struct ir_module *m = s->ranges.module;
    ir_expr c = e->args[0], a = e->args[1], b = e->args[2];
    /* where(c, where(c and d, x, y), b): c is true inside; where(c, a, where(c or d, x, y)): false */
    if (is_fn(a, FN_where) && is_fn(a->args[0], FN_and) && (a->args[0]->args[0] == c || a->args[0]->args[1] == c)) {
        ir_expr other = a->args[0]->args[a->args[0]->args[0] == c];
        return ir_fn3(m, FN_where, c, ir_fn3(m, FN_where, other, a->args[1], a->args[2]), b);
    }
    if (is_fn(b, FN_where) && is_fn(b->args[0], FN_or) && (b->args[0]->args[0] == c || b->args[0]->args[1] == c)) {
        ir_expr other = b->args[0]->args[b->args[0]->args[0] == c];
        return ir_fn3(m, FN_where, c, a, ir_fn3(m, FN_where, other, b->args[1], b->args[2]));
    }
    return NULL;
}

static ir_expr simplify_once(struct simplifier *s, ir_expr e) {
    if (e->kind == X_LOAD)
        return simplify_load(s, e);
    if (e->kind == X_CAST) { /* a cast in between that loses nothing here */
        ir_expr via = e->args[0];
        if (via->kind == X_CAST && dtype_is_int(e->dtype) && dtype_is_int(via->dtype) &&
            dtype_is_int(via->args[0]->dtype) && range_fits(range_of(&s->ranges, via->args[0]), via->dtype))
            return ir_cast(s->ranges.module, e->dtype, via->args[0]);
        return NULL;
    }
    if (e->kind != X_FN)
        return NULL;
    if (e->fn == FN_where)
        return simplify_where(s, e);
    if (!dtype_is_int(e->args[0]->dtype))
        return NULL;
    switch (e->fn) {
    case FN_add:
    case FN_sub:
    case FN_mul:
    case FN_neg: return simplify_sum(s, e);
    case FN_div: return simplify_div(s, e);
    case FN_mod: return simplify_mod(s, e);
    case FN_max:
    case FN_min:
    case FN_lt:
    case FN_le:
    case FN_eq:
    case FN_ne: return simplify_order(s, e);
    case FN_abs: {
        struct ir_range range = range_of(&s->ranges, e->args[0]);
        return range.known && ir_dim_lower(range.lo) >= 0 ? e->args[0] : NULL;
    }
    default: return NULL;
    }
}

static ir_expr simplify_node(struct simplifier *s, ir_expr e) {
    enum { DEEPEST = 16, ROUNDS = 8 };
    if (s->depth == DEEPEST)
        return e;
    s->depth++;
    for (int i = 0; i < ROUNDS; i++) {
        ir_expr next = simplify_once(s, e);
        if (!next || next == e)
            break;
        e = next;
    }
    s->depth--;
    return e;
}

ir_expr ir_expr_simplify(struct ir_module *m, const struct ir_nest *nest, struct ir_value **operands, ir_expr e) {
    struct simplifier s = {.ranges = {.module = m, .nest = nest}, .operands = operands};
    struct memo done = {0};
    int n;
    ir_expr *order = expr_postorder(e, NULL, &n);
    for (int k = 0; k < n; k++) {
        ir_expr args[UINT8_MAX];
        bool changed = false;
        for (int i = 0; i < order[k]->count; i++) {
            args[i] = memo_get(&done, order[k]->args[i]->id);
            changed |= args[i] != order[k]->args[i];
        }
        ir_expr now = changed ? ir_expr_with_args(m, order[k], args) : order[k];
        memo_set(&done, order[k]->id, simplify_node(&s, now));
    }
    ir_expr result = memo_get(&done, e->id);
    free(order);
    memo_free(&done);
    memo_free(&s.ranges.memo);
    return result;
}
