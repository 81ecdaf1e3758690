/* Construction of the loop IR. Index arithmetic is folded as it is built, so that the printed subscripts stay short. */

#include "ir/loop.h"

static struct lx *lx_new(struct loop_builder *b, enum lx_kind kind, enum dtype t, int lanes, int count) {
    struct lx *e = arena_alloc(b->arena, sizeof *e + sizeof(lx) * (size_t)count);
    e->kind = kind;
    e->dtype = t;
    e->lanes = lanes;
    e->count = count;
    return e;
}

lx lx_int(struct loop_builder *b, int64_t value) {
    struct lx *e = lx_new(b, LX_INT, I64, 1, 0);
    e->value.i = value;
    return e;
}

lx lx_const_float(struct loop_builder *b, enum dtype t, double value) {
    struct lx *e = lx_new(b, LX_CONST, t, 1, 0);
    e->value.f = value;
    return e;
}

lx lx_const_int(struct loop_builder *b, enum dtype t, int64_t value) {
    struct lx *e = lx_new(b, LX_CONST, t, 1, 0);
    e->value.i = value;
    return e;
}

lx lx_var(struct loop_builder *b, const struct loop_var *v) {
    struct lx *e = lx_new(b, LX_VAR, v->dtype, v->lanes, 0);
    e->var = v;
    return e;
}

lx lx_var_at(struct loop_builder *b, const struct loop_var *v, lx at) {
    struct lx *e = lx_new(b, LX_VAR, v->dtype, v->lanes, 1);
    e->var = v;
    e->args[0] = at;
    return e;
}

bool lx_is_int(lx e, int64_t *value) {
    if (e->kind != LX_INT)
        return false;
    *value = e->value.i;
    return true;
}

static int64_t floor_div(int64_t a, int64_t b) {
    if (b == 0)
        return 0;
    int64_t q = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

static bool fold(enum lx_op op, int64_t x, int64_t y, int64_t *r) {
    switch (op) {
    case I_ADD: return !__builtin_add_overflow(x, y, r);
    case I_SUB: return !__builtin_sub_overflow(x, y, r);
    case I_MUL: return !__builtin_mul_overflow(x, y, r);
    case I_DIV:
    case I_FDIV: *r = floor_div(x, y); return true;
    case I_MOD:
    case I_FMOD: *r = y == 0 ? 0 : x - floor_div(x, y) * y; return true;
    case I_MIN: *r = x < y ? x : y; return true;
    case I_MAX: *r = x > y ? x : y; return true;
    default: return false;
    }
}

/* Whether x is q * (factor * divisor) + rest, 0 <= rest < divisor. */
static bool is_multiple(lx x, int64_t divisor, int64_t *factor, int64_t *rest) {
    *rest = 0;
    if (x->kind == LX_OP && x->op == I_ADD && lx_is_int(x->args[1], rest))
        x = x->args[0];
    if (*rest < 0 || *rest >= divisor || x->kind != LX_OP || x->op != I_MUL || !lx_is_int(x->args[1], factor) ||
        *factor % divisor)
        return false;
    *factor /= divisor;
    return true;
}

lx lx_op(struct loop_builder *b, enum lx_op op, lx x, lx y) {
    int64_t cx = 0, cy = 0, r;
    bool kx = lx_is_int(x, &cx), ky = y && lx_is_int(y, &cy);
    if (kx && ky && fold(op, cx, cy, &r))
        return lx_int(b, r);
    switch (op) {
    case I_ADD:
        if (kx)
            return cx == 0 ? y : lx_op(b, I_ADD, y, x);
        if (ky && cy == 0)
            return x;
        if (ky && x->kind == LX_OP && x->op == I_ADD && lx_is_int(x->args[1], &cx))
            return lx_add(b, x->args[0], lx_int(b, cx + cy));
        break;
    case I_SUB:
        if (ky)
            return lx_op(b, I_ADD, x, lx_int(b, -cy));
        break;
    case I_MUL:
        if (kx)
            return lx_op(b, I_MUL, y, x);
        if (ky && cy == 1)
            return x;
        if (ky && cy == 0)
            return y;
        if (ky && x->kind == LX_OP && x->op == I_MUL && lx_is_int(x->args[1], &cx))
            return lx_mul(b, x->args[0], lx_int(b, cx * cy));
        break;
    case I_DIV:
    case I_FDIV:
        if (ky && cy == 1)
            return x;
        if (ky && is_multiple(x, cy, &cx, &r)) /* (q * cy + r) / cy */
            return lx_mul(b, x->op == I_ADD ? x->args[0]->args[0] : x->args[0], lx_int(b, cx));
        break;
    case I_MOD:
    case I_FMOD:
        if (ky && cy == 1)
            return lx_int(b, 0);
        if (ky && is_multiple(x, cy, &cx, &r))
            return lx_int(b, r);
        break;
    default: break;
    }
    bool compares = op >= I_LT;
    struct lx *e = lx_new(b, LX_OP, compares ? BOOL : I64, 1, y ? 2 : 1);
    e->op = op;
    e->args[0] = x;
    if (y)
        e->args[1] = y;
    return e;
}

lx lx_add(struct loop_builder *b, lx x, lx y) {
    return lx_op(b, I_ADD, x, y);
}
lx lx_sub(struct loop_builder *b, lx x, lx y) {
    return lx_op(b, I_SUB, x, y);
}
lx lx_mul(struct loop_builder *b, lx x, lx y) {
    return lx_op(b, I_MUL, x, y);
}
lx lx_div(struct loop_builder *b, lx x, lx y) {
    return lx_op(b, I_DIV, x, y);
}
lx lx_mod(struct loop_builder *b, lx x, lx y) {
    return lx_op(b, I_MOD, x, y);
}
lx lx_min(struct loop_builder *b, lx x, lx y) {
    return lx_op(b, I_MIN, x, y);
}

lx lx_load(struct loop_builder *b, const struct loop_mem *m, lx at, int lanes) {
    struct lx *e = lx_new(b, LX_LOAD, m->dtype, lanes, 1);
    e->mem = m;
    e->args[0] = at;
    return e;
}

lx lx_fn(struct loop_builder *b, enum scalar_fn fn, enum dtype t, int count, const lx *args) {
    int lanes = 1;
    for (int i = 0; i < count; i++)
        lanes = args[i]->lanes > lanes ? args[i]->lanes : lanes;
    struct lx *e = lx_new(b, LX_FN, t, lanes, count);
    e->op = (int)fn;
    for (int i = 0; i < count; i++)
        e->args[i] = lx_splat(b, args[i], lanes);
    return e;
}

lx lx_fn2(struct loop_builder *b, enum scalar_fn fn, lx x, lx y) {
    lx args[2] = {x, y};
    bool compares = scalar_table[fn].type_class == CLASS_CMP;
    return lx_fn(b, fn, compares ? BOOL : x->dtype, 2, args);
}

static lx unary(struct loop_builder *b, enum lx_kind kind, enum dtype t, lx x) {
    struct lx *e = lx_new(b, kind, t, x->lanes, 1);
    e->args[0] = x;
    return e;
}

lx lx_cast(struct loop_builder *b, enum dtype t, lx x) {
    return x->dtype == t ? x : unary(b, LX_CAST, t, x);
}
lx lx_bitcast(struct loop_builder *b, enum dtype t, lx x) {
    return x->dtype == t ? x : unary(b, LX_BITCAST, t, x);
}

lx lx_splat(struct loop_builder *b, lx x, int lanes) {
    if (x->lanes == lanes)
        return x;
    struct lx *e = lx_new(b, LX_SPLAT, x->dtype, lanes, 1);
    e->args[0] = x;
    return e;
}

lx lx_lane(struct loop_builder *b, lx x, int lane) {
    struct lx *e = lx_new(b, LX_LANE, x->dtype, 1, 1);
    e->value.i = lane;
    e->args[0] = x;
    return e;
}

lx lx_pack(struct loop_builder *b, int lanes, const lx *args) {
    struct lx *e = lx_new(b, LX_PACK, args[0]->dtype, lanes, lanes);
    for (int i = 0; i < lanes; i++)
        e->args[i] = args[i];
    return e;
}

lx lx_fma(struct loop_builder *b, lx x, lx y, lx z) {
    struct lx *e = lx_new(b, LX_FMA, z->dtype, z->lanes, 3);
    e->args[0] = lx_splat(b, x, z->lanes);
    e->args[1] = lx_splat(b, y, z->lanes);
    e->args[2] = z;
    return e;
}

lx lx_select(struct loop_builder *b, lx c, lx x, lx y) {
    struct lx *e = lx_new(b, LX_SELECT, x->dtype, x->lanes, 3);
    e->args[0] = c;
    e->args[1] = x;
    e->args[2] = y;
    return e;
}

lx lx_shuffle(struct loop_builder *b, lx x, int bits) {
    struct lx *e = lx_new(b, LX_SHUFFLE, x->dtype, 1, 1);
    e->value.i = bits;
    e->args[0] = x;
    return e;
}

lx lx_call(struct loop_builder *b, const char *name, enum dtype t, int count, const lx *args) {
    struct lx *e = lx_new(b, LX_CALL, t, 1, count);
    e->name = name;
    for (int i = 0; i < count; i++)
        e->args[i] = args[i];
    return e;
}

lx lx_dim(struct loop_builder *b, ir_dim d, lx (*symbol)(void *, const struct ir_symbol *), void *context) {
    lx sum = NULL;
    for (int i = 0; i < d->count; i++) {
        const struct ir_dim_term *t = &d->terms[i];
        lx product = NULL;
        for (int j = 0; j < t->count; j++) {
            const struct ir_dim_atom *a = t->atoms[j];
            static const enum lx_op ops[] = {
                [ATOM_DIV] = I_FDIV, [ATOM_MOD] = I_FMOD, [ATOM_MAX] = I_MAX, [ATOM_MIN] = I_MIN};
            lx e;
            if (a->kind == ATOM_SYMBOL) {
                e = symbol(context, a->symbol);
            } else {
                enum lx_op op = ops[a->kind];
                bool plain = (op == I_FDIV || op == I_FMOD) && ir_dim_lower(a->a) >= 0 && ir_dim_lower(a->b) > 0;
                e = lx_op(b, plain ? (op == I_FDIV ? I_DIV : I_MOD) : op, lx_dim(b, a->a, symbol, context),
                          lx_dim(b, a->b, symbol, context));
            }
            product = product ? lx_mul(b, product, e) : e;
        }
        lx c = lx_int(b, t->coefficient);
        product = product ? lx_mul(b, product, c) : c;
        sum = sum ? lx_add(b, sum, product) : product;
    }
    return sum ? sum : lx_int(b, 0);
}

/* ---- registers, memories, statements ------------------------------------------------------------------------------ */

struct loop_var *loop_var_new(struct loop_builder *b, const char *name, enum dtype t, int lanes) {
    struct loop_var *v = ARENA_NEW(b->arena, struct loop_var);
    v->id = b->next_id++;
    v->name = name ? name : "t";
    v->dtype = t;
    v->lanes = lanes;
    return v;
}

struct loop_mem *loop_mem_new(struct loop_builder *b, const char *name, enum dtype t, enum loop_mem_kind kind) {
    struct loop_mem *m = ARENA_NEW(b->arena, struct loop_mem);
    m->id = b->next_id++;
    m->name = name ? name : "t";
    m->dtype = t;
    m->kind = kind;
    return m;
}

void loop_block_init(struct loop_block *k) {
    k->first = NULL;
    k->last = &k->first;
}

void loop_append(struct loop_block *k, struct loop_stmt *s) {
    if (!k->last)
        loop_block_init(k);
    *k->last = s;
    k->last = &s->next;
}

void loop_append_block(struct loop_block *k, struct loop_block *from) {
    if (!from->first)
        return;
    if (!k->last)
        loop_block_init(k);
    *k->last = from->first;
    k->last = from->last;
    loop_block_init(from);
}

static struct loop_stmt *stmt(struct loop_builder *b, struct loop_block *k, enum loop_stmt_kind kind) {
    struct loop_stmt *s = ARENA_NEW(b->arena, struct loop_stmt);
    s->kind = kind;
    loop_block_init(&s->body);
    loop_block_init(&s->other);
    if (k)
        loop_append(k, s);
    return s;
}

struct loop_stmt *loop_for(struct loop_builder *b, struct loop_block *k, struct loop_var *v, lx lo, lx hi, int64_t step,
                           enum loop_kind kind) {
    struct loop_stmt *s = stmt(b, k, LS_FOR);
    s->var = v;
    s->lo = lo;
    s->hi = hi;
    s->step = step;
    s->loop = kind;
    return s;
}

struct loop_stmt *loop_if(struct loop_builder *b, struct loop_block *k, lx cond) {
    struct loop_stmt *s = stmt(b, k, LS_IF);
    s->cond = cond;
    return s;
}

void loop_def(struct loop_builder *b, struct loop_block *k, struct loop_var *v, lx value) {
    struct loop_stmt *s = stmt(b, k, LS_DEF);
    s->var = v;
    s->value = value;
}

void loop_set(struct loop_builder *b, struct loop_block *k, struct loop_var *v, lx index, lx value) {
    struct loop_stmt *s = stmt(b, k, LS_SET);
    v->is_mutable = true;
    s->var = v;
    s->index = index;
    s->value = value;
}

void loop_store(struct loop_builder *b, struct loop_block *k, struct loop_mem *m, lx index, lx value) {
    struct loop_stmt *s = stmt(b, k, LS_STORE);
    m->written = true;
    s->mem = m;
    s->index = index;
    s->value = value;
}

void loop_local(struct loop_builder *b, struct loop_block *k, struct loop_mem *m) {
    stmt(b, k, LS_LOCAL)->mem = m;
}

void loop_comment(struct loop_builder *b, struct loop_block *k, const char *text) {
    stmt(b, k, LS_COMMENT)->text = text;
}

void loop_barrier(struct loop_builder *b, struct loop_block *k) {
    stmt(b, k, LS_BARRIER);
}

struct loop_stmt *loop_call(struct loop_builder *b, struct loop_block *k, const struct loop_func *f) {
    struct loop_stmt *s = stmt(b, k, LS_CALL);
    s->callee = f;
    s->call_mems = arena_alloc(b->arena, sizeof *s->call_mems * (size_t)f->mem_count);
    s->call_args = ARENA_ARRAY(b->arena, lx, f->var_count);
    return s;
}

/* ---- walking ------------------------------------------------------------------------------------------------------ */

void lx_walk(lx e, void (*fn)(lx, void *), void *context) {
    if (!e)
        return;
    for (int i = 0; i < e->count; i++)
        lx_walk(e->args[i], fn, context);
    fn(e, context);
}

void loop_walk(const struct loop_block *k, void (*fn)(lx, void *), void (*on_stmt)(const struct loop_stmt *, void *),
               void *context) {
    for (const struct loop_stmt *s = k->first; s; s = s->next) {
        if (on_stmt)
            on_stmt(s, context);
        if (fn) {
            lx_walk(s->lo, fn, context);
            lx_walk(s->hi, fn, context);
            lx_walk(s->cond, fn, context);
            lx_walk(s->index, fn, context);
            lx_walk(s->value, fn, context);
            if (s->kind == LS_CALL) {
                for (int i = 0; i < s->callee->mem_count; i++)
                    lx_walk(s->call_mems[i].offset, fn, context);
                for (int i = 0; i < s->callee->var_count; i++)
                    lx_walk(s->call_args[i], fn, context);
            }
        }
        loop_walk(&s->body, fn, on_stmt, context);
        loop_walk(&s->other, fn, on_stmt, context);
    }
}

/* ---- definitions that nothing reads ---------------------------------------------------------------------------------- */

struct reads {
    int first;  /* smaller numbers do not count */
    bool *used; /* [id - first] */
};

static void note_read(lx e, void *context) {
    struct reads *r = context;
    if (e->kind == LX_VAR && e->var->id >= r->first)
        r->used[e->var->id - r->first] = true;
}

static bool drop_unread(struct loop_block *k, const struct reads *r) {
    bool dropped = false;
    for (struct loop_stmt **at = &k->first; *at;) {
        struct loop_stmt *s = *at;
        if (s->kind == LS_DEF && !s->var->is_mutable && s->var->id >= r->first && !r->used[s->var->id - r->first]) {
            *at = s->next;
            dropped = true;
            continue;
        }
        dropped |= drop_unread(&s->body, r);
        dropped |= drop_unread(&s->other, r);
        at = &s->next;
        k->last = at;
    }
    if (!k->first)
        k->last = &k->first;
    return dropped;
}

void loop_drop_unused(struct loop_builder *b, struct loop_block *k, int first) {
    bool dropped;
    do { /* what only a dropped definition read goes next */
        struct arena scratch = {0};
        struct reads r = {first, ARENA_ARRAY(&scratch, bool, b->next_id - first + 1)};
        loop_walk(k, note_read, NULL, &r);
        dropped = drop_unread(k, &r);
        arena_free(&scratch);
    } while (dropped);
}
