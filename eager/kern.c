/* Building kerns: index algebra, levels, runs, cost. See kern.h. */
#include "eager/kern.h"

#include <math.h>

#include "ir/scalar_math.h"

/* An index expression as a linear form while it is analysed: coefficients of all indices, and terms that are not
 * affine. */
struct term {
    ir_expr e;
    int64_t k, lo, hi; /* k * e, e in lo .. hi */
};
struct form {
    int64_t c;
    int64_t k[NEST_MAX_INDICES];
    VEC(struct term) terms;
};

/* Values beyond are "unknown": sums of a few stay far from overflow. */
#define UNKNOWN ((int64_t)1 << 60)

static int64_t clamp(int64_t v) {
    return v < -UNKNOWN ? -UNKNOWN : v > UNKNOWN ? UNKNOWN : v;
}

static void widen(int64_t *lo, int64_t *hi, int64_t k, int64_t from, int64_t to) {
    int64_t a, b;
    if (__builtin_mul_overflow(k, from, &a) || __builtin_mul_overflow(k, to, &b) || clamp(a) != a || clamp(b) != b) {
        *lo = -UNKNOWN;
        *hi = UNKNOWN;
        return;
    }
    *lo = clamp(*lo + (a < b ? a : b));
    *hi = clamp(*hi + (a < b ? b : a));
}

static void interval(const struct nest_context *c, const struct form *f, int64_t *lo, int64_t *hi) {
    *lo = *hi = clamp(f->c);
    for (int i = 0; i < c->indices; i++)
        if (f->k[i] && c->ragged[i])
            widen(lo, hi, 1, -UNKNOWN, UNKNOWN);
        else if (f->k[i])
            widen(lo, hi, f->k[i], c->lo[i], c->lo[i] + (c->extent[i] > 0 ? c->extent[i] - 1 : 0));
    for (int i = 0; i < f->terms.n; i++)
        widen(lo, hi, f->terms.at[i].k, f->terms.at[i].lo, f->terms.at[i].hi);
    if (*lo == -UNKNOWN || *hi == UNKNOWN) {
        *lo = -UNKNOWN;
        *hi = UNKNOWN;
    }
}

static void form_add(struct nest_context *c, struct form *f, const struct form *g, int64_t scale) {
    f->c += scale * g->c;
    for (int i = 0; i < c->indices; i++)
        f->k[i] += scale * g->k[i];
    for (int i = 0; i < g->terms.n; i++)
        VEC_PUSH(c->arena, f->terms,
                 (struct term){g->terms.at[i].e, scale * g->terms.at[i].k, g->terms.at[i].lo, g->terms.at[i].hi});
}

static void dtype_range(enum dtype t, int64_t *lo, int64_t *hi) {
    int bits = 8 * dtype_size(t);
    if (dtype_is_signed(t)) {
        *lo = bits == 64 ? INT64_MIN : -((int64_t)1 << (bits - 1));
        *hi = bits == 64 ? INT64_MAX : ((int64_t)1 << (bits - 1)) - 1;
    } else {
        *lo = 0;
        *hi = bits == 64 ? INT64_MAX : ((int64_t)1 << bits) - 1;
    }
}

/* scale * e added to f. Quotients and remainders by constants disappear where ranges allow. */
static void analyse(struct nest_context *c, ir_expr e, int64_t scale, struct form *f) {
    struct form a = {0}, b = {0};
    int64_t lo, hi, from, to, term_lo = -UNKNOWN, term_hi = UNKNOWN;
    switch (e->kind) {
    case X_CONST:
        if (dtype_is_int(e->dtype)) {
            f->c += scale * e->value.i;
            return;
        }
        break;
    case X_DIM: f->c += scale * ir_dim_eval(e->dim, c->symbols); return;
    case X_INDEX:
        if (c->extent[e->index] == 1 && !c->ragged[e->index])
            f->c += scale * c->lo[e->index];
        else
            f->k[e->index] += scale;
        return;
    case X_CAST:
        if (!dtype_is_int(e->dtype) || !dtype_is_int(e->args[0]->dtype))
            break;
        analyse(c, e->args[0], 1, &a);
        interval(c, &a, &lo, &hi);
        int64_t least, most;
        dtype_range(e->dtype, &from, &to);
        dtype_range(e->args[0]->dtype, &least, &most); /* beyond, the argument itself has wrapped */
        if (lo >= from && hi <= to && lo >= least && hi <= most) {
            form_add(c, f, &a, scale);
            return;
        }
        break;
    case X_FN:
        if (!dtype_is_int(e->dtype))
            break;
        if (e->fn == FN_add || e->fn == FN_sub) {
            analyse(c, e->args[0], scale, f);
            analyse(c, e->args[1], e->fn == FN_add ? scale : -scale, f);
            return;
        }
        if (e->fn == FN_neg) {
            analyse(c, e->args[0], -scale, f);
            return;
        }
        if (e->fn != FN_mul && e->fn != FN_div && e->fn != FN_mod)
            break;
        analyse(c, e->args[0], 1, &a);
        analyse(c, e->args[1], 1, &b);
        interval(c, &b, &lo, &hi);
        bool b_const = lo == hi && !b.terms.n;
        int64_t d = lo;
        if (e->fn == FN_mul) {
            if (b_const) {
                form_add(c, f, &a, scale * d);
                return;
            }
            interval(c, &a, &lo, &hi);
            if (lo == hi && !a.terms.n) {
                form_add(c, f, &b, scale * lo);
                return;
            }
            break;
        }
        if (!b_const || d <= 0)
            break;
        interval(c, &a, &term_lo, &term_hi);
        dtype_range(e->dtype, &from, &to);
        bool bounded = term_lo > -UNKNOWN && term_hi < UNKNOWN && term_lo >= from && term_hi <= to;
        term_lo = e->fn == FN_mod ? 0 : bounded ? mx_div_i(term_lo, d) : -UNKNOWN;
        term_hi = e->fn == FN_mod ? d - 1 : bounded ? mx_div_i(term_hi, d) : UNKNOWN;
        if (a.terms.n)
            break;
        /* a = d * whole + rest; a / d = whole + rest / d. */
        struct form whole = {0}, rest = {0};
        for (int i = 0; i < c->indices; i++)
            *(a.k[i] % d == 0 ? &whole.k[i] : &rest.k[i]) = a.k[i] % d == 0 ? a.k[i] / d : a.k[i];
        rest.c = mx_mod_i(a.c, d);
        whole.c = (a.c - rest.c) / d;
        interval(c, &rest, &lo, &hi);
        if (mx_div_i(lo, d) != mx_div_i(hi, d))
            break;
        if (e->fn == FN_div) {
            whole.c += mx_div_i(lo, d);
            form_add(c, f, &whole, scale);
        } else {
            rest.c -= d * mx_div_i(lo, d);
            form_add(c, f, &rest, scale);
        }
        return;
    default: break;
    }
    for (int i = 0; i < f->terms.n; i++)
        if (f->terms.at[i].e == e) {
            f->terms.at[i].k += scale;
            return;
        }
    VEC_PUSH(c->arena, f->terms, (struct term){e, scale, term_lo, term_hi});
}

struct kern *kern_new(struct nest_context *c, const int *lanes, int lane_count, const int *loops, int loop_count) {
    struct kern *k = ARENA_NEW(c->arena, struct kern);
    k->c = c;
    k->lane_total = 1;
    for (int i = 0; i < lane_count; i++) {
        int x = lanes[i];
        k->lane_mask |= (uint64_t)1 << x;
        if (c->extent[x] == 1 && !c->ragged[x])
            continue;
        k->lanes[k->lane_count] = x;
        k->lane_extent[k->lane_count++] = c->extent[x];
        k->lane_total *= c->extent[x];
    }
    k->loop_count = loop_count;
    for (int i = 0; i < loop_count; i++) {
        k->loops[i] = loops[i];
        if (loops[i] == LOOP_BLOCKS)
            k->block_level = i + 1;
        else
            k->index_level[loops[i]] = i + 1;
    }
    for (int i = 0; i < c->indices; i++)
        k->index[i] = c->lo[i];
    k->count = 1;
    k->offsets = ARENA_ARRAY(c->arena, int64_t, VEC_LANES);
    k->ok = ARENA_ARRAY(c->arena, uint8_t, VEC_LANES);
    k->scratch = arena_alloc(c->arena, VEC_LANES * 8);
    return k;
}

static struct lin make_lin(struct kern *k, const struct form *f, uint64_t *deps) {
    struct nest_context *c = k->c;
    struct lin l = {.c = f->c};
    l.index = ARENA_ARRAY(c->arena, int, c->indices);
    l.coefficient = ARENA_ARRAY(c->arena, int64_t, c->indices);
    l.lane = ARENA_ARRAY(c->arena, int64_t, k->lane_count + 1);
    for (int i = 0; i < c->indices; i++)
        if (f->k[i]) {
            l.index[l.count] = i;
            l.coefficient[l.count++] = f->k[i];
            *deps |= (uint64_t)1 << i;
        }
    for (int j = 0; j < k->lane_count; j++)
        l.lane[j] = f->k[k->lanes[j]];
    l.uniform = ARENA_ARRAY(c->arena, int, f->terms.n);
    l.vector = ARENA_ARRAY(c->arena, int, f->terms.n);
    l.uniform_coefficient = ARENA_ARRAY(c->arena, int64_t, f->terms.n);
    l.vector_coefficient = ARENA_ARRAY(c->arena, int64_t, f->terms.n);
    for (int i = 0; i < f->terms.n; i++) {
        int t = kern_add(k, f->terms.at[i].e);
        *deps |= k->nodes.at[t].deps;
        if (k->nodes.at[t].lane) {
            l.vector[l.vector_count] = t;
            l.vector_coefficient[l.vector_count++] = f->terms.at[i].k;
        } else {
            l.uniform[l.uniform_count] = t;
            l.uniform_coefficient[l.uniform_count++] = f->terms.at[i].k;
        }
    }
    return l;
}

/* The longest suffix of the lanes along which offset and checks advance by equal steps. */
static void find_run(struct kern *k, struct addr *a) {
    a->prefix = k->lane_count > 0 ? k->lane_count - 1 : 0;
    a->run = k->lane_count > 0 ? k->lane_extent[k->lane_count - 1] : 1;
    for (; a->prefix > 0; a->prefix--) {
        int j = a->prefix - 1;
        bool linear = a->offset.lane[j] == a->offset.lane[j + 1] * k->lane_extent[j + 1];
        for (int i = 0; i < a->checks; i++)
            linear = linear && a->check[i].lane[j] == a->check[i].lane[j + 1] * k->lane_extent[j + 1];
        if (!linear)
            break;
        a->run *= k->lane_extent[j];
    }
}

struct addr *kern_address(struct kern *k, int rank, const int64_t *dims, const ir_expr *at, uint64_t *deps) {
    struct nest_context *c = k->c;
    struct addr *a = ARENA_NEW(c->arena, struct addr);
    struct form offset = {0};
    a->check = ARENA_ARRAY(c->arena, struct lin, rank);
    a->extent = ARENA_ARRAY(c->arena, int64_t, rank);
    int64_t stride = 1;
    for (int d = rank - 1; d >= 0; d--) {
        struct form f = {0};
        int64_t lo, hi;
        analyse(c, at[d], 1, &f);
        form_add(c, &offset, &f, stride);
        stride *= dims[d];
        interval(c, &f, &lo, &hi);
        if (lo >= 0 && hi < dims[d])
            continue;
        a->check[a->checks] = make_lin(k, &f, deps);
        a->extent[a->checks++] = dims[d];
    }
    a->offset = make_lin(k, &offset, deps);
    find_run(k, a);
    return a;
}

int kern_add(struct kern *k, ir_expr e) {
    struct nest_context *c = k->c;
    for (int i = k->nodes.n - 1; i >= 0; i--)
        if (k->nodes.at[i].e == e)
            return i;
    struct kern_node n = {.e = e, .dtype = e->dtype, .kind = vec_kind_of(e->dtype)};
    int args = 0;
    switch (e->kind) {
    case X_INDEX: {
        struct form f = {0};
        analyse(c, e, 1, &f);
        n.addr = ARENA_NEW(c->arena, struct addr);
        n.addr->offset = make_lin(k, &f, &n.deps);
        find_run(k, n.addr);
        break;
    }
    case X_LOAD: {
        const struct ir_type t = c->op->operands[e->index]->type;
        n.addr = kern_address(k, t.rank, c->operand_dims[e->index], e->args, &n.deps);
        n.arg[0] = -1;
        ir_expr outside = e->guarded ? e->args[t.rank] : NULL;
        double number;
        if (outside && outside->kind == X_CONST && ir_expr_is_const(outside, &number) && number == 0 &&
            !signbit(number))
            outside = NULL; /* what loads without an `else` give as well */
        if (outside && n.addr->checks) {
            n.arg[0] = kern_add(k, e->args[t.rank]);
            n.deps |= k->nodes.at[n.arg[0]].deps;
        }
        break;
    }
    case X_ACC: {
        int pars = c->nest->pars;
        ir_expr *at = ARENA_ARRAY(c->arena, ir_expr, pars);
        for (int i = 0; i < pars; i++)
            at[i] = ir_index(c->module, i);
        n.addr = kern_address(k, pars, c->extent, at, &n.deps);
        n.arg[0] = -1;
        break;
    }
    case X_FN:
    case X_CAST:
    case X_BITCAST:
        args = e->count;
        for (int i = 0; i < args; i++) {
            n.arg[i] = kern_add(k, e->args[i]);
            n.deps |= k->nodes.at[n.arg[i]].deps;
        }
        break;
    default: break;
    }
    n.lane = (n.deps & k->lane_mask) != 0;
    for (int i = 0; i < c->indices; i++)
        if (n.deps >> i & 1) {
            int level = k->lane_mask >> i & 1 ? k->block_level : k->index_level[i];
            n.level = level > n.level ? level : n.level;
        }
    n.buf = arena_alloc(c->arena, n.lane ? VEC_LANES * 8 : 16);
    n.value = n.buf;
    if (e->kind == X_FN) {
        struct kern_node *a = k->nodes.at;
        enum vec_kind kind = a[n.arg[e->fn == FN_where]].kind;
        enum vec_shape shape = SHAPE_VV;
        if (args == 2 && n.lane)
            shape = !a[n.arg[0]].lane ? SHAPE_SV : !a[n.arg[1]].lane ? SHAPE_VS : SHAPE_VV;
        n.fn = c->table->fn[e->fn][kind][shape];
        ir_expr d = args == 2 ? e->args[1] : NULL;
        if ((e->fn == FN_div || e->fn == FN_mod) && e->dtype == I64 && d->kind == X_CONST && d->value.i > 0)
            n.divisor = d->value.i;
        if (args == 3 && n.lane)
            for (int i = 0; i < 3; i++)
                if (!a[n.arg[i]].lane)
                    n.splat[i] = arena_alloc(c->arena, VEC_LANES * 8);
    } else if (e->kind == X_CONST || e->kind == X_DIM) {
        /* Once and for all. */
        if (e->kind == X_DIM)
            *(int64_t *)n.buf = ir_dim_eval(e->dim, c->symbols);
        else if (n.kind == KIND_F32)
            *(float *)n.buf = (float)e->value.f;
        else if (n.kind == KIND_F64)
            *(double *)n.buf = e->value.f;
        else if (n.kind == KIND_BOOL)
            *(int32_t *)n.buf = e->value.i != 0;
        else
            *(int64_t *)n.buf = e->value.i;
    }
    VEC_PUSH(c->arena, k->nodes, n);
    return k->nodes.n - 1;
}

void kern_finish(struct kern *k) {
    struct arena *arena = k->c->arena;
    k->levels = ARENA_ARRAY(arena, int *, k->loop_count + 1);
    k->level_count = ARENA_ARRAY(arena, int, k->loop_count + 1);
    for (int l = 0; l <= k->loop_count; l++)
        k->levels[l] = ARENA_ARRAY(arena, int, k->nodes.n + 1);
    for (int i = 0; i < k->nodes.n; i++) {
        struct kern_node *n = &k->nodes.at[i];
        if (n->e->kind != X_CONST && n->e->kind != X_DIM)
            k->levels[n->level][k->level_count[n->level]++] = i;
    }
}

double kern_cost(const struct kern *k) {
    double times = 1, cost = 0;
    double total = (double)(k->lane_total > 0 ? k->lane_total : 1);
    double lanes = total < VEC_LANES ? total : VEC_LANES;
    for (int l = 0; l <= k->loop_count; l++) {
        if (l > 0) {
            int x = k->loops[l - 1];
            times *= x == LOOP_BLOCKS ? total / lanes : (double)k->c->extent[x];
            cost += 3 * times;
        }
        for (int i = 0; i < k->level_count[l]; i++) {
            const struct kern_node *n = &k->nodes.at[k->levels[l][i]];
            double each = 6;
            if (n->lane && n->addr) {
                double run = (double)n->addr->run < lanes ? (double)n->addr->run : lanes;
                int64_t step = k->lane_count ? n->addr->offset.lane[k->lane_count - 1] : 0;
                each += 10 * lanes / run + lanes * (step == 1 ? 0.05 : step == 0 ? 0.08 : 0.8);
                if (n->addr->offset.vector_count)
                    each += 3 * lanes;
            } else if (n->lane) {
                each += 0.15 * lanes;
            }
            cost += each * times;
        }
    }
    return cost;
}
