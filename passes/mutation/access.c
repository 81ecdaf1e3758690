/* Accesses as integer sets.
 *
 * The variables of a set are the indices of the two nests, dimension symbols, loop counters and other rank 0 integers; what
 * is not affine (a gathered index, a product of two symbols) is a variable about which only its type's range is known.
 * A value made by arithmetic on rank 0 integers is replaced by that arithmetic, a symbol made from a value is equal to it,
 * a loop's counter lies between its bounds. Each side has its own copy of whatever may differ between the two executions:
 * its nest's indices, values of regions inside `common`, and, with `carried`, values of `common` itself, where the counter
 * of side 1 is the larger one. Every access lies inside its value's extents: it was checked, or guarded.
 *
 * Arithmetic in i64 is taken not to wrap, as in ir/range.c; in narrower types a result that is not proven to fit is any
 * number of the type.
 */
#include "passes/mutation/access.h"

#include <string.h>

#include "passes/mutation/integer_set.h"

enum { SHARED = 2, MAX_RANK = 32, MAX_DEPTH = 40 };

struct variable {
    const struct ir_op *op; /* of an index or expression: whose; else NULL */
    const void *key;        /* a value, symbol, atom or expression; NULL: an index */
    int64_t index;          /* of an index; of a quotient: its divisor; else 0 */
    int side, id;
};

struct space {
    struct arena arena;
    struct integer_set set;
    struct ir_module *module;
    const struct ir_region *common;
    bool carried;
    struct variable variables[SET_VARS];
    int count, depth;
};

static struct linear_form form_of_expr(struct space *s, const struct ir_op *op, int side, ir_expr e);
static struct linear_form form_of_dim(struct space *s, ir_dim d, int side);
static struct linear_form form_of_value(struct space *s, const struct ir_value *v, int side);

/* The variable for a key; *fresh if it is new and its conditions are to be added. */
static struct linear_form variable(struct space *s, const struct ir_op *op, const void *key, int64_t index, int side,
                                   bool *fresh) {
    *fresh = false;
    for (int i = 0; i < s->count; i++) {
        const struct variable *v = &s->variables[i];
        if (v->op == op && v->key == key && v->index == index && v->side == side)
            return form_var(v->id);
    }
    int id = set_new_var(&s->set);
    if (id >= 0)
        s->variables[s->count++] = (struct variable){op, key, index, side, id};
    *fresh = id >= 0;
    return form_var(id);
}

static void at_least(struct space *s, const struct linear_form *f, const struct linear_form *low, int64_t more) {
    struct linear_form d = form_add(f, low, -1);
    d.k -= more;
    set_add_positive(&s->set, &d);
}

static void within(struct space *s, const struct linear_form *f, int64_t lo, int64_t hi) {
    struct linear_form low = form_const(lo), high = form_const(hi);
    if (lo > -IR_DIM_LIMIT)
        at_least(s, f, &low, 0);
    if (hi < IR_DIM_LIMIT)
        at_least(s, &high, f, 0);
}

static void within_type(struct space *s, const struct linear_form *f, enum dtype t) {
    int bits = t == BOOL ? 1 : dtype_size(t) * 8;
    if (t == U64)
        within(s, f, 0, IR_DIM_LIMIT);
    else if (bits < 64 && (t == BOOL || dtype_is_int(t)))
        within(s, f, dtype_is_signed(t) ? -((int64_t)1 << (bits - 1)) : 0,
               ((int64_t)1 << (bits - (dtype_is_signed(t) ? 1 : 0))) - 1);
}

/* Whether every value of f is one of the type. */
static bool fits(const struct space *s, const struct linear_form *f, enum dtype t) {
    int bits = dtype_size(t) * 8;
    if (!dtype_is_int(t) || t == U64 || !f->ok)
        return false;
    if (t == I64)
        return true;
    int64_t span = (int64_t)1 << bits, lo = dtype_is_signed(t) ? -(span / 2) : 0;
    for (int above = 0; above < 2; above++) { /* f <= lo - 1, f >= lo + span */
        struct integer_set outside = {.arena = s->set.arena, .vars = s->set.vars};
        for (int i = 0; i < s->set.rows.n; i++)
            VEC_PUSH(outside.arena, outside.rows, s->set.rows.at[i]);
        struct linear_form d = form_scale(f, above ? 1 : -1);
        d.k += above ? -(lo + span) : lo - 1;
        set_add_positive(&outside, &d);
        if (!set_is_empty(&outside))
            return false;
    }
    return true;
}

/* Which side's copy of what is defined in region r. */
static int side_of(const struct space *s, const struct ir_region *r, int side) {
    bool inside = ir_region_contains(s->common, r);
    return inside && (s->carried || r != s->common) ? side : SHARED;
}

/* A number between the product c * q and c * q + c - 1: q is the floor quotient of f by c > 0. */
static struct linear_form quotient(struct space *s, const struct linear_form *f, int64_t c, const struct ir_op *op,
                                   const void *key, int side) {
    bool fresh;
    struct linear_form q = variable(s, op, key, c, side, &fresh), scaled = form_scale(&q, c);
    if (fresh) {
        at_least(s, f, &scaled, 0);
        struct linear_form end = scaled;
        end.k += c - 1;
        at_least(s, &end, f, 0);
    }
    return q;
}

/* max or min of two: only its bound by both is kept. */
static struct linear_form extreme(struct space *s, const struct linear_form *a, const struct linear_form *b,
                                  bool largest, const struct ir_op *op, const void *key, int side) {
    bool fresh;
    struct linear_form m = variable(s, op, key, 0, side, &fresh);
    if (fresh) {
        at_least(s, largest ? &m : a, largest ? a : &m, 0);
        at_least(s, largest ? &m : b, largest ? b : &m, 0);
    }
    return m;
}

/* ---- dimensions ---------------------------------------------------------------------------------------------------- */

static struct linear_form form_of_symbol(struct space *s, const struct ir_symbol *symbol, int side) {
    bool fresh;
    int own = symbol->op ? side_of(s, symbol->op->parent, side) : SHARED;
    struct linear_form f = variable(s, NULL, symbol, 0, own, &fresh);
    if (fresh) {
        within(s, &f, symbol->lo, symbol->hi);
        if (symbol->op && symbol->op->operands[0]->type.dtype == I64) {
            struct linear_form value = form_of_value(s, symbol->op->operands[0], side);
            struct linear_form zero = form_add(&f, &value, -1);
            set_add_zero(&s->set, &zero);
        }
    }
    return f;
}

static struct linear_form form_of_atom(struct space *s, const struct ir_dim_atom *a, int side) {
    if (a->kind == ATOM_SYMBOL)
        return form_of_symbol(s, a->symbol, side);
    struct linear_form x = form_of_dim(s, a->a, side), y = form_of_dim(s, a->b, side);
    int64_t c;
    bool fresh;
    if (a->kind == ATOM_MAX || a->kind == ATOM_MIN)
        return extreme(s, &x, &y, a->kind == ATOM_MAX, NULL, a, side);
    if (!ir_dim_is_const(a->b, &c) || c < 1)
        return variable(s, NULL, a, 0, side, &fresh);
    struct linear_form q = quotient(s, &x, c, NULL, a, side);
    return a->kind == ATOM_DIV ? q : form_add(&x, &q, -c);
}

/* A product of several atoms is a number of its own. */
static struct linear_form form_of_product(struct space *s, const struct ir_dim_term *t, int side) {
    bool fresh, positive = true;
    ir_dim interned = ir_dim_const(s->module, 1);
    for (int i = 0; i < t->count; i++) {
        const struct ir_dim_term factor = {1, 1, &t->atoms[i]};
        const struct ir_dim single = {.count = 1, .terms = &factor, .module = s->module};
        interned = ir_dim_mul(s->module, interned, &single);
        positive &= t->atoms[i]->kind == ATOM_SYMBOL && t->atoms[i]->symbol->lo >= 0;
    }
    struct linear_form f = variable(s, NULL, interned, 0, side, &fresh);
    if (fresh && positive)
        within(s, &f, 0, IR_DIM_LIMIT);
    return f;
}

static struct linear_form form_of_dim(struct space *s, ir_dim d, int side) {
    struct linear_form f = form_const(0);
    for (int i = 0; i < d->count; i++) {
        const struct ir_dim_term *t = &d->terms[i];
        struct linear_form part = t->count == 0   ? form_const(1)
                                  : t->count == 1 ? form_of_atom(s, t->atoms[0], side)
                                                  : form_of_product(s, t, side);
        f = form_add(&f, &part, t->coefficient);
    }
    return f;
}

/* ---- expressions and rank 0 values --------------------------------------------------------------------------------- */

static struct linear_form form_of_index(struct space *s, const struct ir_op *op, int index, int side) {
    bool fresh;
    const struct ir_nest_index *x = &op->nest.indices[index];
    struct linear_form f = variable(s, op, NULL, index, side, &fresh);
    if (fresh) {
        struct linear_form lo = x->lo ? form_of_expr(s, op, side, x->lo) : form_const(0);
        struct linear_form hi = x->hi ? form_of_expr(s, op, side, x->hi) : form_of_dim(s, x->extent, side);
        at_least(s, &f, &lo, 0);
        at_least(s, &hi, &f, 1);
    }
    return f;
}

/* What is known of any element of v: its type's range, and that argmax and argmin are positions. */
static void within_made(struct space *s, const struct linear_form *f, const struct ir_value *v) {
    within_type(s, f, v->type.dtype);
    while (v->op && v->op->code == OP_reshape)
        v = v->op->operands[0];
    const struct ir_op *op = v->op;
    if (!op || op->code != OP_nest || op->nest.results[v->index].base >= 0)
        return;
    ir_expr e = op->nest.results[v->index].value;
    while (e->kind == X_CAST && dtype_is_int(e->dtype) && dtype_size(e->dtype) >= dtype_size(I32))
        e = e->args[0];
    if (e->kind != X_ACC || op->nest.accs[e->index].op <= RED_ALL)
        return;
    double positions = 1;
    for (int i = op->nest.pars; i < op->nest.pars + op->nest.reds; i++)
        positions *= (double)ir_dim_upper(op->nest.indices[i].extent);
    if (positions >= 1 && positions <= INT32_MAX)
        within(s, f, 0, (int64_t)positions - 1);
}

static struct linear_form opaque(struct space *s, const struct ir_op *op, ir_expr e, int side) {
    bool fresh;
    struct linear_form f = variable(s, op, e, 0, side, &fresh);
    if (fresh && e->kind == X_LOAD && !e->guarded)
        within_made(s, &f, op->operands[e->index]);
    else if (fresh)
        within_type(s, &f, e->dtype);
    return f;
}

static bool is_number(const struct linear_form *f, int64_t *c) {
    for (int i = 0; i < SET_VARS; i++)
        if (f->c[i])
            return false;
    *c = f->k;
    return f->ok;
}

static struct linear_form form_of_call(struct space *s, const struct ir_op *op, int side, ir_expr e) {
    int64_t c;
    struct linear_form a = form_of_expr(s, op, side, e->args[0]);
    if (e->fn == FN_neg)
        return form_scale(&a, -1);
    if (e->count != 2)
        return opaque(s, op, e, side);
    struct linear_form b = form_of_expr(s, op, side, e->args[1]);
    switch (e->fn) {
    case FN_add: return form_add(&a, &b, 1);
    case FN_sub: return form_add(&a, &b, -1);
    case FN_mul:
        if (is_number(&b, &c))
            return form_scale(&a, c);
        return is_number(&a, &c) ? form_scale(&b, c) : opaque(s, op, e, side);
    case FN_max:
    case FN_min: return extreme(s, &a, &b, e->fn == FN_max, op, e, side);
    case FN_div:
    case FN_mod:
        if (is_number(&b, &c) && c > 0) {
            /* One quotient for a div and a mod of the same pair. */
            struct linear_form q = quotient(s, &a, c, op, e->args[0], side);
            return e->fn == FN_div ? q : form_add(&a, &q, -c);
        }
        return opaque(s, op, e, side);
    default: return opaque(s, op, e, side);
    }
}

static struct linear_form form_of_expr(struct space *s, const struct ir_op *op, int side, ir_expr e) {
    struct linear_form f = form_const(0);
    if (++s->depth > MAX_DEPTH) {
        f = opaque(s, op, e, side);
    } else if (e->kind == X_CONST && (dtype_is_int(e->dtype) || e->dtype == BOOL)) {
        f = form_const(e->value.i);
        f.ok = e->value.i < IR_DIM_LIMIT && e->value.i > -IR_DIM_LIMIT;
    } else if (e->kind == X_INDEX) {
        f = form_of_index(s, op, e->index, side);
    } else if (e->kind == X_DIM) {
        f = form_of_dim(s, e->dim, side);
    } else if (e->kind == X_LOAD && !e->guarded && op->operands[e->index]->type.rank == 0) {
        f = form_of_value(s, op->operands[e->index], side);
    } else if (e->kind == X_FN && dtype_is_int(e->dtype)) {
        f = form_of_call(s, op, side, e);
        if (!fits(s, &f, e->dtype))
            f = opaque(s, op, e, side);
    } else if (e->kind == X_CAST && dtype_is_int(e->dtype) && dtype_is_int(e->args[0]->dtype) &&
               e->args[0]->dtype != U64) {
        f = form_of_expr(s, op, side, e->args[0]);
        if (!fits(s, &f, e->dtype))
            f = opaque(s, op, e, side);
    } else {
        f = opaque(s, op, e, side);
    }
    s->depth--;
    return f;
}

/* Arithmetic without indices, in the operation that makes v; NULL if v is made otherwise. */
static ir_expr defining_expr(const struct ir_value *v) {
    const struct ir_op *op = v->op;
    if (!op || op->code != OP_nest || !dtype_is_int(v->type.dtype) || op->nest.pars || op->nest.reds ||
        op->nest.results[v->index].base >= 0)
        return NULL;
    return op->nest.results[v->index].value;
}

static struct linear_form form_of_value(struct space *s, const struct ir_value *v, int side) {
    const struct ir_region *home = v->op ? v->op->parent : v->region;
    bool fresh;
    int64_t c;
    int own = side_of(s, home, side);
    if (v->op && v->op->code == OP_const && v->type.dtype == I64) {
        memcpy(&c, v->op->constant.data, sizeof c);
        if (c < IR_DIM_LIMIT && c > -IR_DIM_LIMIT)
            return form_const(c);
    }
    ir_expr e = defining_expr(v);
    if (e)
        return form_of_expr(s, v->op, own == SHARED ? SHARED : side, e);
    struct linear_form f = variable(s, NULL, v, 0, own, &fresh);
    if (!fresh)
        return f;
    within_made(s, &f, v);
    const struct ir_op *loop = v->op ? NULL : home->op;
    if (loop && loop->code == OP_for && v->index == 0) {
        struct linear_form lo = form_of_value(s, loop->operands[0], side);
        struct linear_form hi = form_of_value(s, loop->operands[1], side);
        at_least(s, &f, &lo, 0);
        at_least(s, &hi, &f, 1);
        if (s->carried && home == s->common) { /* a later iteration's counter is larger */
            struct linear_form other = form_of_value(s, v, 1 - side);
            at_least(s, side ? &f : &other, side ? &other : &f, 1);
        }
    }
    return f;
}

/* ---- accesses ------------------------------------------------------------------------------------------------------ */

static void space_init(struct space *s, struct access a, const struct ir_region *common, bool carried) {
    memset(s, 0, sizeof *s);
    s->module = a.op->parent->func->module;
    s->common = common;
    s->carried = carried;
    s->set.arena = &s->arena;
}

static bool space_end(struct space *s) {
    bool empty = set_is_empty(&s->set);
    arena_free(&s->arena);
    return empty;
}

/* The element's place along each axis, within the extents. */
static void forms_of_access(struct space *s, struct access a, int side, struct linear_form *at) {
    for (int d = 0; d < a.value->type.rank; d++) {
        at[d] = form_of_expr(s, a.op, side, a.at[d]);
        struct linear_form extent = form_of_dim(s, a.value->type.dims[d], side), zero = form_const(0);
        at_least(s, &at[d], &zero, 0);
        at_least(s, &extent, &at[d], 1);
    }
}

static bool same_dims(struct ir_type a, struct ir_type b) {
    return a.rank == b.rank && (!a.rank || !memcmp(a.dims, b.dims, sizeof *a.dims * (size_t)a.rank));
}

/* The row-major place of an element; not ok unless the extents are numbers. */
static struct linear_form linear_place(struct access a, const struct linear_form *at) {
    struct linear_form f = form_const(0);
    for (int d = 0; d < a.value->type.rank; d++) {
        int64_t extent = 0;
        f.ok &= ir_dim_is_const(a.value->type.dims[d], &extent);
        f = form_scale(&f, extent);
        f = form_add(&f, &at[d], 1);
    }
    return f;
}

static bool comparable(struct access a, struct access b) {
    return a.at && b.at && a.value->type.rank <= MAX_RANK && b.value->type.rank <= MAX_RANK &&
           a.value->type.dtype == b.value->type.dtype;
}

static void same_element(struct space *s, struct access a, struct access b, const struct linear_form *x,
                         const struct linear_form *y) {
    if (same_dims(a.value->type, b.value->type)) {
        for (int d = 0; d < a.value->type.rank; d++) {
            struct linear_form zero = form_add(&x[d], &y[d], -1);
            set_add_zero(&s->set, &zero);
        }
        return;
    }
    struct linear_form p = linear_place(a, x), q = linear_place(b, y), zero = form_add(&p, &q, -1);
    set_add_zero(&s->set, &zero);
}

bool access_disjoint(struct access a, struct access b, const struct ir_region *common, bool carried) {
    if (!comparable(a, b))
        return false;
    struct space s;
    struct linear_form x[MAX_RANK], y[MAX_RANK];
    space_init(&s, a, common, carried);
    forms_of_access(&s, a, 0, x);
    forms_of_access(&s, b, 1, y);
    same_element(&s, a, b, x, y);
    return space_end(&s);
}

/* Whether the operation of region r that is a or holds it stands before that of b. */
static bool stands_before(const struct ir_region *r, const struct ir_op *a, const struct ir_op *b) {
    while (a->parent != r)
        a = a->parent->op;
    while (b->parent != r)
        b = b->parent->op;
    while (a && a != b)
        a = a->next;
    return a != NULL;
}

bool access_spares(struct access write, struct access read, const struct ir_region *home) {
    const struct ir_region *common = write.op->parent;
    while (!ir_region_contains(common, read.op->parent))
        common = common->op->parent;
    for (const struct ir_region *r = common; r != home; r = r->op->parent)
        if ((r->op->code == OP_for || r->op->code == OP_while) && !access_disjoint(write, read, r, true))
            return false;
    bool later =
        write.op != read.op && stands_before(common, read.op, write.op) && !stands_before(common, write.op, read.op);
    return later || access_disjoint(write, read, common, false);
}

bool access_iterations_apart(struct access a, struct access b) {
    if (!comparable(a, b))
        return false;
    bool apart = true;
    for (int p = 0; p < a.op->nest.pars && apart; p++)
        for (int before = 0; before < 2 && apart; before++) {
            struct space s;
            struct linear_form x[MAX_RANK], y[MAX_RANK];
            space_init(&s, a, a.op->parent, false);
            forms_of_access(&s, a, 0, x);
            forms_of_access(&s, b, 1, y);
            same_element(&s, a, b, x, y);
            struct linear_form i = form_of_index(&s, a.op, p, 0), j = form_of_index(&s, a.op, p, 1);
            at_least(&s, before ? &j : &i, before ? &i : &j, 1);
            apart = space_end(&s);
        }
    return apart;
}

/* e as index p + an offset free of indices (*p < 0: the offset alone); false if it is neither. */
static bool index_and_offset(struct ir_module *m, const struct ir_nest *n, ir_expr e, int *p) {
    ir_dim k[32], constant;
    int total = n->pars + n->reds;
    *p = -1;
    if (e->kind == X_CONST || e->kind == X_DIM || (e->kind == X_LOAD && e->count == 0))
        return true;
    if (e->kind == X_INDEX)
        *p = e->index;
    if (e->kind == X_FN && (e->fn == FN_add || e->fn == FN_sub)) {
        int q;
        if (!index_and_offset(m, n, e->args[0], p) || !index_and_offset(m, n, e->args[1], &q) ||
            (q >= 0 && (*p >= 0 || e->fn == FN_sub)))
            return false;
        if (q >= 0)
            *p = q;
        return *p < n->pars;
    }
    if (*p >= 0)
        return *p < n->pars;
    int64_t c;
    if (total > 32 || !ir_expr_affine(m, e, total, k, &constant))
        return false;
    for (int i = 0; i < total; i++)
        if (!ir_dim_is_const(k[i], &c) || c != 0)
            return false;
    return true;
}

bool access_covers(struct access a, struct access b, const struct ir_region *common) {
    if (!a.at)
        return true;
    if (!comparable(a, b) || !same_dims(a.value->type, b.value->type))
        return false;
    const struct ir_nest *n = &a.op->nest;
    int rank = a.value->type.rank, of[MAX_RANK];
    bool used[SET_VARS] = {false};
    if (n->pars > SET_VARS)
        return false;
    for (int d = 0; d < rank; d++) {
        if (!index_and_offset(a.op->parent->func->module, n, a.at[d], &of[d]) || (of[d] >= 0 && used[of[d]]))
            return false;
        if (of[d] >= 0)
            used[of[d]] = true;
    }
    for (int p = 0; p < n->pars; p++) /* an extent of zero would leave nothing written */
        if (!used[p] && ir_dim_lower(n->indices[p].extent) < 1)
            return false;
    bool covers = true;
    for (int d = 0; d < rank && covers; d++)
        for (int below = 0; below < 2 && covers; below++) {
            struct space s;
            struct linear_form y[MAX_RANK];
            space_init(&s, a, common, false);
            forms_of_access(&s, b, 1, y);
            /* The index is left without bounds, which would say that something is written. */
            bool fresh;
            struct linear_form one = form_const(1),
                               i = variable(&s, a.op, NULL, of[d] < 0 ? n->pars : of[d], 0, &fresh);
            struct linear_form w = form_of_expr(&s, a.op, 0, a.at[d]);
            /* The box ends where its index does: look at the first, or behind the last. */
            if (of[d] >= 0) {
                struct linear_form extent = form_of_dim(&s, n->indices[of[d]].extent, 0);
                w = form_add(&w, &i, -1);
                if (!below)
                    w = form_add(&w, &extent, 1);
            } else if (!below) {
                w = form_add(&w, &one, 1);
            }
            at_least(&s, below ? &w : &y[d], below ? &y[d] : &w, below ? 1 : 0);
            covers = space_end(&s);
        }
    return covers;
}

/* ---- conditions ---------------------------------------------------------------------------------------------------- */

static const struct {
    enum scalar_fn fn;
    bool swap, strict, equal; /* a <= b; swapped b <= a; strict a < b */
} comparisons[] = {
    {FN_le, false, false, false},
    {FN_lt, false, true, false},
    {FN_eq, false, false, true},
};

/* Adds e, or its negation, as far as it is a conjunction of comparisons of integers; false if nothing was added. */
static bool assume(struct space *s, const struct ir_op *op, ir_expr e, bool holds) {
    if (e->kind != X_FN)
        return false;
    if (e->fn == FN_not)
        return assume(s, op, e->args[0], !holds);
    if (e->fn == (holds ? FN_and : FN_or)) {
        bool first = assume(s, op, e->args[0], holds);
        return assume(s, op, e->args[1], holds) || first;
    }
    for (size_t i = 0; i < sizeof comparisons / sizeof *comparisons; i++) {
        if (e->fn != comparisons[i].fn || !dtype_is_int(e->args[0]->dtype) || e->args[0]->dtype == U64)
            continue;
        struct linear_form a = form_of_expr(s, op, 0, e->args[0]), b = form_of_expr(s, op, 0, e->args[1]);
        if (comparisons[i].equal && !holds)
            return false; /* two half spaces */
        if (comparisons[i].equal || holds)
            at_least(s, &b, &a, comparisons[i].strict);
        if (comparisons[i].equal)
            at_least(s, &a, &b, 0);
        if (!holds)
            at_least(s, &a, &b, !comparisons[i].strict);
        return true;
    }
    return false;
}

/* The conditions of the branches around an operation. */
static void assume_branches(struct space *s, const struct ir_op *op) {
    for (const struct ir_region *r = op->parent; r->op; r = r->op->parent) {
        const struct ir_value *c = r->op->code == OP_if ? r->op->operands[0] : NULL;
        if (c && c->op && c->op->code == OP_nest && !c->op->nest.pars && !c->op->nest.reds &&
            c->op->nest.results[c->index].base < 0)
            assume(s, c->op, c->op->nest.results[c->index].value, r == r->op->regions[0]);
    }
}

/* Whether e cannot fail under what holds around the nest. */
static bool always(const struct ir_op *op, ir_expr e) {
    double number;
    if (ir_expr_is_const(e, &number))
        return number != 0;
    if (e->kind != X_FN)
        return false;
    if (e->fn == FN_and)
        return always(op, e->args[0]) && always(op, e->args[1]);
    for (int way = 0; way < (e->fn == FN_eq ? 2 : 1); way++) {
        struct space s;
        space_init(&s, (struct access){.op = op}, op->parent, false);
        assume_branches(&s, op);
        bool added = true;
        if (e->fn == FN_eq && dtype_is_int(e->args[0]->dtype) && e->args[0]->dtype != U64) {
            struct linear_form a = form_of_expr(&s, op, 0, e->args[0]), b = form_of_expr(&s, op, 0, e->args[1]);
            at_least(&s, way ? &a : &b, way ? &b : &a, 1);
        } else {
            added = assume(&s, op, e, false);
        }
        if (!space_end(&s) || !added)
            return false;
    }
    return true;
}

bool access_always(const struct ir_op *nest, ir_expr condition) {
    return always(nest, condition);
}

bool access_within(const struct ir_op *op, const struct ir_value *v, int64_t lo, int64_t hi) {
    bool inside = dtype_is_int(v->type.dtype) && v->type.dtype != U64;
    for (int above = 0; above < 2 && inside; above++) {
        struct space s;
        space_init(&s, (struct access){.op = op}, op->parent, false);
        assume_branches(&s, op);
        struct linear_form f = form_of_value(&s, v, 0), end = form_const(above ? hi : lo);
        at_least(&s, above ? &f : &end, above ? &end : &f, 1);
        inside = space_end(&s);
    }
    return inside;
}
