/* For the tests of fusion and memory planning: random functions of nests, and an interpreter that runs a function either
 * with memory of its own for every value (the meaning) or in the storages of a plan (what generated code would do).
 */
#ifndef MXCC_TESTS_PLAN_RANDOM_H
#define MXCC_TESTS_PLAN_RANDOM_H

#include <stdlib.h>
#include <string.h>

#include "ir/bytes.h"
#include "ir/ir.h"
#include "passes/passes.h"

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

static inline uint64_t rnd(uint64_t *s) { /* xorshift64* */
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return *s * 0x2545F4914F6CDD1Dull;
}

static inline int pick(uint64_t *s, int n) {
    return (int)(rnd(s) >> 33) % n;
}

/* ---- interpreter -------------------------------------------------------------------------------------------------- */

struct machine {
    struct ir_module *m;
    const struct plan_func *plan; /* NULL: memory for each value */
    unsigned char **value;        /* [value_count] */
    unsigned char **storage;      /* [storage_count] */
    unsigned char *arena;
    unsigned char **buffer, **buffer_out, **arg, **result;
    struct arena memory;
    bool failed; /* a check did not hold */
    const struct ir_func *f;
};

static inline unsigned char *where_is(struct machine *x, const struct ir_value *v) {
    if (x->plan)
        return x->plan->of_value[v->id] ? x->storage[x->plan->of_value[v->id]->id] : NULL;
    if (!x->value[v->id])
        x->value[v->id] = arena_alloc(&x->memory, (size_t)ir_type_bytes_upper(v->type) + 8);
    return x->value[v->id];
}

static inline int64_t dim_of(ir_dim d) {
    return ir_dim_upper(d);
}

static inline ir_expr number_at(struct machine *x, enum dtype t, const unsigned char *at) {
    return dtype_is_float(t) ? ir_const_float(x->m, t, ir_bytes_load_float(t, at))
                             : ir_const_int(x->m, t, ir_bytes_load_int(t, at));
}

struct point {
    const struct ir_op *op;
    int64_t index[16];
    ir_expr acc[8];
};

static inline ir_expr eval(struct machine *x, const struct point *p, ir_expr e) {
    ir_expr args[16];
    if (e->kind == X_CONST)
        return e;
    if (e->kind == X_INDEX)
        return ir_const_int(x->m, I64, p->index[e->index]);
    if (e->kind == X_ACC)
        return p->acc[e->index];
    if (e->kind == X_DIM)
        return ir_const_int(x->m, I64, dim_of(e->dim));
    if (e->kind == X_LOAD) {
        const struct ir_value *v = p->op->operands[e->index];
        int64_t at = 0;
        for (int d = 0; d < v->type.rank; d++) {
            int64_t i = eval(x, p, e->args[d])->value.i, n = dim_of(v->type.dims[d]);
            if (i < 0 || i >= n) {
                if (!e->guarded)
                    abort(); /* a load outside */
                return eval(x, p, e->args[v->type.rank]);
            }
            at = at * n + i;
        }
        return number_at(x, e->dtype, where_is(x, v) + at * dtype_size(e->dtype));
    }
    for (int i = 0; i < e->count; i++)
        args[i] = eval(x, p, e->args[i]);
    ir_expr value = ir_expr_with_args(x->m, e, args);
    return value->kind == X_CONST ? value : args[1]; /* max(0, -0) is not folded */
}

static inline void store(enum dtype t, ir_expr v, unsigned char *at) {
    if (dtype_is_float(t))
        ir_bytes_store_float(t, v->value.f, at);
    else
        ir_bytes_store_int(t, v->value.i, at);
}

static inline void reduce(struct machine *x, struct point *p, int k) {
    const struct ir_nest *n = &p->op->nest;
    if (k < n->pars + n->reds) {
        int64_t lo = n->indices[k].lo ? eval(x, p, n->indices[k].lo)->value.i : 0;
        int64_t hi = n->indices[k].hi ? eval(x, p, n->indices[k].hi)->value.i : dim_of(n->indices[k].extent);
        for (int64_t i = lo; i < hi; i++) {
            p->index[k] = i;
            reduce(x, p, k + 1);
        }
        return;
    }
    for (int a = 0; a < n->acc_count; a++) {
        ir_expr b = eval(x, p, n->accs[a].body);
        p->acc[a] = ir_fn2(x->m, n->accs[a].op == RED_SUM ? FN_add : FN_max, p->acc[a], b);
    }
}

static inline void iterate(struct machine *x, struct point *p, int k, unsigned char **out) {
    const struct ir_nest *n = &p->op->nest;
    if (k < n->pars) {
        for (p->index[k] = 0; p->index[k] < dim_of(n->indices[k].extent); p->index[k]++)
            iterate(x, p, k + 1, out);
        return;
    }
    if (n->reds) {
        for (int a = 0; a < n->acc_count; a++)
            p->acc[a] = ir_const_number(x->m, n->accs[a].body->dtype, n->accs[a].op == RED_SUM ? 0 : -1e30);
        reduce(x, p, n->pars);
    }
    ir_expr values[16];
    int64_t at[16];
    for (int r = 0; r < p->op->result_count; r++) {
        const struct ir_nest_result *q = &n->results[r];
        struct ir_type t = p->op->results[r]->type;
        values[r] = eval(x, p, q->value);
        at[r] = 0;
        for (int d = 0; d < t.rank; d++) {
            int64_t i = q->base >= 0 ? eval(x, p, q->target[d])->value.i : p->index[d];
            if (i < 0 || i >= dim_of(t.dims[d]))
                abort();
            at[r] = at[r] * dim_of(t.dims[d]) + i;
        }
    }
    for (int r = 0; r < p->op->result_count; r++) {
        enum dtype t = p->op->results[r]->type.dtype;
        unsigned char *place = out[r] + at[r] * dtype_size(t);
        if (n->results[r].base >= 0 && n->results[r].combine == COMBINE_ADD)
            values[r] = ir_fn2(x->m, FN_add, number_at(x, t, place), values[r]);
        store(t, values[r], place);
    }
}

static inline void move_value(struct machine *x, const struct ir_value *from, const struct ir_value *to) {
    unsigned char *a = where_is(x, from), *b = where_is(x, to);
    if (a != b && a && b)
        memcpy(b, a, (size_t)ir_type_bytes_upper(to->type));
}

static inline void run_ops(struct machine *x, const struct ir_region *r);

static inline void run_one(struct machine *x, const struct ir_op *op) {
    switch (op->code) {
    case OP_const:
        if (!x->plan)
            memcpy(where_is(x, op->results[0]), op->constant.data, (size_t)ir_type_bytes_upper(op->results[0]->type));
        return;
    case OP_read:
        if (!x->plan)
            memcpy(where_is(x, op->results[0]), x->buffer[op->buffer.buffer->id],
                   (size_t)ir_type_bytes_upper(op->results[0]->type));
        return;
    case OP_write:
        if (!x->plan)
            memcpy(x->buffer_out[op->buffer.buffer->id], where_is(x, op->operands[0]),
                   (size_t)ir_type_bytes_upper(op->operands[0]->type));
        return;
    case OP_reshape: move_value(x, op->operands[0], op->results[0]); return;
    case OP_check:
        if (!*where_is(x, op->operands[0]))
            x->failed = true;
        return;
    case OP_for: {
        int64_t lo = ir_bytes_load_int(I64, where_is(x, op->operands[0])),
                hi = ir_bytes_load_int(I64, where_is(x, op->operands[1]));
        const struct ir_region *b = op->regions[0];
        int n = op->result_count;
        unsigned char **now = arena_alloc(&x->memory, sizeof *now * (size_t)(n + 1));
        for (int i = 0; i < n; i++)
            now[i] = arena_copy(&x->memory, where_is(x, op->operands[2 + i]),
                                (size_t)ir_type_bytes_upper(op->results[i]->type));
        for (int64_t t = lo; t < hi && !x->failed; t++) {
            ir_bytes_store_int(I64, t, where_is(x, b->args[0]));
            for (int i = 0; i < n; i++) /* with a plan they are there already, or the plan is wrong */
                if (!x->plan)
                    memcpy(where_is(x, b->args[1 + i]), now[i], (size_t)ir_type_bytes_upper(op->results[i]->type));
            run_ops(x, b);
            for (int i = 0; i < n; i++)
                memcpy(now[i], where_is(x, b->yields[i]), (size_t)ir_type_bytes_upper(op->results[i]->type));
        }
        for (int i = 0; i < n; i++)
            if (!x->plan)
                memcpy(where_is(x, op->results[i]), now[i], (size_t)ir_type_bytes_upper(op->results[i]->type));
        return;
    }
    case OP_if: {
        const struct ir_region *b = op->regions[*where_is(x, op->operands[0]) ? 0 : 1];
        run_ops(x, b);
        for (int i = 0; i < op->result_count && !x->plan; i++)
            move_value(x, b->yields[i], op->results[i]);
        return;
    }
    case OP_nest: {
        struct point p = {.op = op};
        unsigned char *out[16];
        for (int r = 0; r < op->result_count; r++) {
            out[r] = where_is(x, op->results[r]);
            if (op->nest.results[r].base >= 0)
                move_value(x, op->operands[op->nest.results[r].base], op->results[r]);
        }
        iterate(x, &p, 0, out);
        return;
    }
    default: abort();
    }
}

static inline void run_ops(struct machine *x, const struct ir_region *r) {
    for (const struct ir_op *op = r->first; op && !x->failed; op = op->next)
        run_one(x, op);
}

static inline void fill(uint64_t *s, struct ir_type t, unsigned char *at) {
    int64_t n = ir_type_bytes_upper(t) / dtype_size(t.dtype);
    for (int64_t i = 0; i < n; i++)
        if (t.dtype == BOOL)
            at[i] = (unsigned char)pick(s, 2);
        else if (dtype_is_float(t.dtype))
            ir_bytes_store_float(t.dtype, pick(s, 17) - 8, at + i * dtype_size(t.dtype));
        else
            ir_bytes_store_int(t.dtype, pick(s, 3), at + i * dtype_size(t.dtype));
}

/* Runs f on inputs made from the seed. Afterwards: results, inout arguments and buffers, one after the other, in x->memory; the
 * size in *bytes. */
static inline unsigned char *run_func(struct machine *x, struct ir_module *m, struct ir_func *f,
                                      const struct plan_func *plan, uint64_t seed, size_t *bytes) {
    memset(x, 0, sizeof *x);
    x->m = m;
    x->f = f;
    x->plan = plan;
    struct arena *a = &x->memory;
    x->value = ARENA_ARRAY(a, unsigned char *, f->value_count + 1);
    x->buffer = ARENA_ARRAY(a, unsigned char *, m->buffer_count + 1);
    x->buffer_out = ARENA_ARRAY(a, unsigned char *, m->buffer_count + 1);
    x->arg = ARENA_ARRAY(a, unsigned char *, f->body->arg_count + 1);
    x->result = ARENA_ARRAY(a, unsigned char *, f->body->yield_count + 1);
    uint64_t s = seed * 2 + 1;
    for (int i = 0; i < m->buffer_count; i++) {
        x->buffer[i] = arena_alloc(a, (size_t)ir_type_bytes_upper(m->buffers[i]->type));
        fill(&s, m->buffers[i]->type, x->buffer[i]);
        x->buffer_out[i] = arena_copy(a, x->buffer[i], (size_t)ir_type_bytes_upper(m->buffers[i]->type));
    }
    for (int i = 0; i < f->body->arg_count; i++) {
        x->arg[i] = arena_alloc(a, (size_t)ir_type_bytes_upper(f->body->args[i]->type));
        fill(&s, f->body->args[i]->type, x->arg[i]);
    }
    for (int i = 0; i < f->result_count; i++)
        x->result[i] = arena_alloc(a, (size_t)ir_type_bytes_upper(f->body->yields[i]->type));
    if (plan) {
        x->arena = arena_alloc(a, (size_t)plan->arena_bytes + 64);
        memset(x->arena, 0xA5, (size_t)plan->arena_bytes + 64);
        x->storage = ARENA_ARRAY(a, unsigned char *, plan->storage_count + 1);
        for (int i = 0; i < plan->storage_count; i++) {
            const struct storage *q = plan->storages[i];
            x->storage[i] = q->kind == STORAGE_ARENA    ? x->arena + q->offset
                            : q->kind == STORAGE_BUFFER ? x->buffer[q->buffer->id]
                            : q->kind == STORAGE_ARG    ? x->arg[q->index]
                            : q->kind == STORAGE_RESULT ? x->result[q->index]
                            : q->kind == STORAGE_CONST  ? (unsigned char *)q->op->constant.data
                                                        : arena_alloc(a, (size_t)q->bytes + 8);
        }
        x->buffer_out = x->buffer;
    } else {
        for (int i = 0; i < f->body->arg_count; i++)
            memcpy(where_is(x, f->body->args[i]), x->arg[i], (size_t)ir_type_bytes_upper(f->body->args[i]->type));
    }
    run_ops(x, f->body);
    size_t total = 0;
    for (int i = 0; i < f->body->yield_count; i++)
        total += (size_t)ir_type_bytes_upper(f->body->yields[i]->type);
    for (int i = 0; i < m->buffer_count; i++)
        total += (size_t)ir_type_bytes_upper(m->buffers[i]->type);
    unsigned char *out = arena_alloc(a, total + 1), *at = out;
    for (int i = 0; i < f->body->yield_count; i++) {
        size_t n = (size_t)ir_type_bytes_upper(f->body->yields[i]->type);
        int inout = 0; /* which argument */
        for (int k = f->result_count; i >= f->result_count; inout++)
            if (f->arg_inout[inout] && k++ == i)
                break;
        const unsigned char *from =
            x->plan ? (i < f->result_count ? x->result[i] : x->arg[inout]) : where_is(x, f->body->yields[i]);
        if (x->failed)
            from = i < f->result_count ? NULL : x->arg[inout];
        if (from)
            memcpy(at, from, n);
        at += n;
    }
    for (int i = 0; i < m->buffer_count; i++) {
        size_t n = (size_t)ir_type_bytes_upper(m->buffers[i]->type);
        memcpy(at, x->buffer_out[i], n);
        at += n;
    }
    *bytes = total;
    return out;
}

/* ---- random functions --------------------------------------------------------------------------------------------- */

struct gen {
    struct ir_module *m;
    struct ir_func *f;
    struct ir_builder b;
    uint64_t s;
    struct ir_value *pool[256]; /* f32 values in scope */
    int n;
    struct ir_value *flag; /* rank 0 bool */
    int depth;
};

static inline ir_dim gd(struct gen *g, int64_t v) {
    return ir_dim_const(g->m, v);
}

static inline struct ir_type gtype(struct gen *g, int rank, int64_t a, int64_t b) {
    ir_dim d[2] = {gd(g, a), gd(g, b)};
    return ir_type_make(g->m, F32, rank, d);
}

static inline void put(struct gen *g, struct ir_value *v) {
    if (g->n < 250)
        g->pool[g->n++] = v;
}

/* A value of rank 2; 4 x 6 if square is false, else any of the pool's. */
static inline struct ir_value *any(struct gen *g, int rank) {
    for (int tries = 0; tries < 1000; tries++) {
        struct ir_value *v = g->pool[pick(&g->s, g->n)];
        if (tries < 30 && g->n > 8) /* mostly recent ones */
            v = g->pool[g->n - 1 - pick(&g->s, 8)];
        if (v->type.rank == rank)
            return v;
    }
    return NULL;
}

static inline ir_expr load_at(struct gen *g, int slot, const struct ir_value *v, const ir_expr *at, bool guarded) {
    return ir_load(g->m, slot, v->type.dtype, v->type.rank, at, guarded ? ir_const_float(g->m, F32, 1) : NULL);
}

/* Wrapped to halves of small integers so that sums stay exact and bounded. */
static inline ir_expr tame(struct gen *g, ir_expr e) {
    return ir_fn2(g->m, FN_max, ir_fn2(g->m, FN_min, e, ir_const_float(g->m, F32, 64)), ir_const_float(g->m, F32, -64));
}

static inline struct ir_op *raw_nest(struct gen *g, struct ir_value **operands, int n, int pars, int reds,
                                     const int64_t *extents) {
    struct ir_op *op = ir_op_new(&g->b, OP_nest, operands, n, 0);
    struct arena *a = &g->m->arena;
    op->nest.pars = pars;
    op->nest.reds = reds;
    op->nest.indices = ARENA_ARRAY(a, struct ir_nest_index, pars + reds + 1);
    for (int i = 0; i < pars + reds; i++) {
        op->nest.indices[i].name = "i";
        op->nest.indices[i].extent = gd(g, extents[i]);
        if (i >= pars) {
            op->nest.indices[i].lo = ir_const_int(g->m, I64, 0);
            op->nest.indices[i].hi = ir_const_int(g->m, I64, extents[i]);
        }
    }
    op->nest.results = ARENA_ARRAY(a, struct ir_nest_result, 1);
    op->nest.results[0].base = -1;
    return op;
}

static inline struct ir_value *gen_map(struct gen *g) {
    struct ir_value *x = any(g, 2), *y = any(g, 2), *ops[2] = {x, y};
    int64_t r = dim_of(x->type.dims[0]), c = dim_of(x->type.dims[1]);
    ir_expr at[2] = {ir_index(g->m, 0), ir_index(g->m, 1)}, other[2] = {at[0], at[1]};
    bool guarded = !ir_type_equal(x->type, y->type);
    if (pick(&g->s, 3) == 0) {
        other[pick(&g->s, 2)] = ir_fn2(g->m, FN_add, at[pick(&g->s, 2)], ir_const_int(g->m, I64, pick(&g->s, 3) - 1));
        guarded = true;
    }
    ir_expr a = load_at(g, 0, x, at, false), b = load_at(g, 1, y, other, guarded);
    static const enum scalar_fn fns[] = {FN_add, FN_sub, FN_max, FN_mul, FN_min};
    ir_expr e = tame(g, ir_fn2(g->m, fns[pick(&g->s, 5)], a, b));
    if (pick(&g->s, 6) == 0)
        e = ir_fn1(g->m, FN_floor, ir_fn1(g->m, FN_sqrt, ir_fn1(g->m, FN_abs, e)));
    ir_dim d[2] = {gd(g, r), gd(g, c)};
    return ir_build_map(&g->b, F32, 2, d, e, ops, 2);
}

static inline struct ir_value *gen_sum(struct gen *g) {
    struct ir_value *x = any(g, 2);
    int64_t e[2] = {dim_of(x->type.dims[0]), dim_of(x->type.dims[1])};
    int axis = pick(&g->s, 2);
    int64_t extents[2] = {e[!axis], e[axis]};
    struct ir_op *op = raw_nest(g, &x, 1, 1, 1, extents);
    ir_expr at[2];
    at[!axis] = ir_index(g->m, 0);
    at[axis] = ir_index(g->m, 1);
    op->nest.acc_count = 1;
    op->nest.accs = ARENA_ARRAY(&g->m->arena, struct ir_acc, 1);
    op->nest.accs[0] = (struct ir_acc){pick(&g->s, 2) ? RED_SUM : RED_MAX, load_at(g, 0, x, at, false)};
    op->nest.results[0].value = tame(g, ir_acc(g->m, 0, F32));
    return ir_op_result(op, gtype(g, 1, extents[0], 0));
}

static inline struct ir_value *gen_product(struct gen *g) {
    struct ir_value *x = any(g, 2), *y = any(g, 2), *ops[2] = {x, y};
    int64_t k = dim_of(x->type.dims[1]);
    int64_t extents[3] = {dim_of(x->type.dims[0]), dim_of(y->type.dims[1]), k};
    struct ir_op *op = raw_nest(g, ops, x == y ? 1 : 2, 2, 1, extents);
    ir_expr i = ir_index(g->m, 0), j = ir_index(g->m, 1), l = ir_index(g->m, 2);
    op->nest.acc_count = 1;
    op->nest.accs = ARENA_ARRAY(&g->m->arena, struct ir_acc, 1);
    op->nest.accs[0] = (struct ir_acc){RED_SUM, ir_fn2(g->m, FN_mul, load_at(g, 0, x, (ir_expr[]){i, l}, false),
                                                       load_at(g, x == y ? 0 : 1, y, (ir_expr[]){l, j}, true))};
    op->nest.results[0].value = tame(g, ir_acc(g->m, 0, F32));
    return ir_op_result(op, gtype(g, 2, extents[0], extents[1]));
}

static inline struct ir_value *gen_spread(struct gen *g) { /* broadcasts a vector over rows of a matrix */
    struct ir_value *x = any(g, 2), *v = any(g, 1), *ops[2] = {x, v};
    if (!v)
        return gen_map(g);
    ir_expr at[2] = {ir_index(g->m, 0), ir_index(g->m, 1)};
    ir_expr e = tame(g, ir_fn2(g->m, FN_sub, load_at(g, 0, x, at, false), load_at(g, 1, v, at + pick(&g->s, 2), true)));
    return ir_build_map(&g->b, F32, 2, x->type.dims, e, ops, 2);
}

static inline struct ir_value *gen_update(struct gen *g) {
    struct ir_value *base = any(g, 2), *x = any(g, 2), *ops[2] = {base, x};
    int64_t r = dim_of(base->type.dims[0]), c = dim_of(base->type.dims[1]);
    int kind = pick(&g->s, 4); /* all elements, a row, a column, shifted read */
    int64_t extents[2] = {kind == 1 ? 1 : r, kind == 2 ? 1 : c};
    struct ir_op *op = raw_nest(g, ops, base == x ? 1 : 2, 2, 0, extents);
    int row = kind == 1 ? pick(&g->s, (int)r) : 0;
    ir_expr i = ir_fn2(g->m, FN_add, ir_index(g->m, 0), ir_const_int(g->m, I64, row)), j = ir_index(g->m, 1);
    ir_expr value = load_at(g, base == x ? 0 : 1, x, (ir_expr[]){j, i}, true);
    if (pick(&g->s, 2)) {
        ir_expr from = kind == 3 ? ir_fn2(g->m, FN_sub, i, ir_const_int(g->m, I64, 1)) : i;
        value = tame(g, ir_fn2(g->m, FN_add, value, load_at(g, 0, base, (ir_expr[]){from, j}, kind == 3)));
    }
    struct ir_nest_result *q = &op->nest.results[0];
    q->base = 0;
    q->combine = pick(&g->s, 3) ? COMBINE_SET : COMBINE_ADD;
    q->value = value;
    ir_expr *target = ARENA_ARRAY(&g->m->arena, ir_expr, 2);
    target[0] = i;
    target[1] = j;
    q->target = target;
    return ir_op_result(op, base->type);
}

static inline void gen_ops(struct gen *g, int count);

static inline void gen_loop(struct gen *g) {
    int n = 1 + pick(&g->s, 3), saved = g->n;
    struct ir_value *operands[5] = {ir_build_int(&g->b, I64, 0), ir_build_int(&g->b, I64, pick(&g->s, 4))};
    for (int i = 0; i < n; i++)
        operands[2 + i] = any(g, 2);
    for (int i = 1; i < n; i++) /* one type, so that they may change places */
        if (pick(&g->s, 2))
            operands[2 + i] = operands[2];
    struct ir_op *op = ir_op_new(&g->b, OP_for, operands, 2 + n, 1);
    struct ir_builder outer = g->b;
    struct ir_region *r = op->regions[0];
    struct arena *a = &g->m->arena;
    r->args = ARENA_ARRAY(a, struct ir_value *, 1 + n);
    r->arg_count = 1 + n;
    for (int i = 0; i <= n; i++) {
        struct ir_value *v = ARENA_NEW(a, struct ir_value);
        v->id = g->f->value_count++;
        v->type = i ? operands[1 + i]->type : ir_type_make(g->m, I64, 0, NULL);
        v->index = i;
        v->region = r;
        r->args[i] = v;
        if (i)
            put(g, v);
    }
    g->b.region = r;
    g->b.before = NULL;
    g->depth++;
    gen_ops(g, 1 + pick(&g->s, 5));
    r->yields = ARENA_ARRAY(a, struct ir_value *, n + 1);
    r->yield_count = n;
    for (int i = 0; i < n; i++) {
        struct ir_value *v = NULL;
        for (int tries = 0; tries < 200; tries++) {
            struct ir_value *w = any(g, 2);
            if (pick(&g->s, 3) == 0)
                w = r->args[1 + pick(&g->s, n)];
            if (ir_type_equal(w->type, operands[2 + i]->type)) {
                v = w;
                break;
            }
        }
        r->yields[i] = v ? v : r->args[1 + i];
    }
    g->depth--;
    g->b = outer;
    g->n = saved;
    for (int i = 0; i < n; i++)
        put(g, ir_op_result(op, operands[2 + i]->type));
}

static inline void gen_if(struct gen *g) {
    int saved = g->n;
    struct ir_op *op = ir_op_new(&g->b, OP_if, &g->flag, 1, 2);
    struct ir_builder outer = g->b;
    struct ir_value *like = any(g, 2);
    g->depth++;
    for (int s = 0; s < 2; s++) {
        struct ir_region *r = op->regions[s];
        g->b.region = r;
        g->b.before = NULL;
        gen_ops(g, pick(&g->s, 4));
        r->yields = ARENA_ARRAY(&g->m->arena, struct ir_value *, 1);
        r->yield_count = 1;
        r->yields[0] = like;
        for (int tries = 0; tries < 50; tries++) {
            struct ir_value *w = any(g, 2);
            if (ir_type_equal(w->type, like->type)) {
                r->yields[0] = w;
                break;
            }
        }
        g->n = saved;
    }
    g->depth--;
    g->b = outer;
    put(g, ir_op_result(op, like->type));
}

static inline void gen_check(struct gen *g) {
    struct ir_value *x = any(g, 2);
    ir_expr zero[2] = {ir_const_int(g->m, I64, 0), ir_const_int(g->m, I64, 0)};
    ir_expr e = ir_fn2(g->m, FN_lt, load_at(g, 0, x, zero, false), ir_const_float(g->m, F32, pick(&g->s, 8) ? 100 : 3));
    struct ir_value *c = ir_build_map(&g->b, BOOL, 0, NULL, e, &x, 1);
    ir_build_check(&g->b, c, "too large");
}

static inline void gen_ops(struct gen *g, int count) {
    for (int i = 0; i < count; i++) {
        int k = pick(&g->s, 24);
        if (k < 9)
            put(g, gen_map(g));
        else if (k < 11)
            put(g, gen_sum(g));
        else if (k < 13)
            put(g, gen_product(g));
        else if (k < 15)
            put(g, gen_spread(g));
        else if (k < 19)
            put(g, gen_update(g));
        else if (k == 19 && g->depth < 2)
            gen_loop(g);
        else if (k == 20 && g->depth < 2)
            gen_if(g);
        else if (k == 21)
            gen_check(g);
        else if (k == 22) {
            struct ir_value *x = any(g, 2);
            ir_dim d[2] = {x->type.dims[1], x->type.dims[0]};
            put(g, ir_build_reshape(&g->b, x, 2, d));
        } else
            put(g, gen_map(g));
    }
}

static inline struct ir_func *random_func(struct ir_module *m, uint64_t seed, int size) {
    struct gen g = {.m = m, .s = seed * 0x9E3779B97F4A7C15ull + 77};
    struct arena *a = &m->arena;
    struct ir_func *f = g.f = ir_func_new(m, "f", (struct span){0});
    f->is_export = true;
    ir_module_add_func(m, f);
    struct ir_buffer *buffers[3];
    for (int i = 0; i < 3; i++)
        buffers[i] = ir_buffer_new(m, arena_printf(a, "w%d", i), i == 2 ? BUFFER_STATE : BUFFER_PARAM,
                                   i == 1 ? gtype(&g, 2, 3, 4) : gtype(&g, 2, 4, 6), (struct span){0});
    if (!f->body)
        f->body = ir_region_new(f, NULL);
    int args = 3;
    f->body->args = ARENA_ARRAY(a, struct ir_value *, args);
    f->body->arg_count = args;
    f->arg_names = ARENA_ARRAY(a, const char *, args);
    f->arg_inout = ARENA_ARRAY(a, bool, args);
    for (int i = 0; i < args; i++) {
        struct ir_value *v = ARENA_NEW(a, struct ir_value);
        v->id = f->value_count++;
        v->type = i == 2 ? ir_type_make(m, BOOL, 0, NULL) : gtype(&g, 2, 4, 6);
        v->index = i;
        v->region = f->body;
        v->name = f->arg_names[i] = i == 0 ? "x" : i == 1 ? "z" : "flag";
        f->body->args[i] = v;
        if (i < 2)
            put(&g, v);
        else
            g.flag = v;
    }
    f->arg_inout[1] = true;
    g.b = (struct ir_builder){.module = m, .func = f, .region = f->body};
    for (int i = 0; i < 3; i++)
        put(&g, ir_build_read(&g.b, buffers[i]));
    gen_ops(&g, size);
    f->result_count = 2;
    f->result_names = ARENA_ARRAY(a, const char *, 2);
    f->body->yields = ARENA_ARRAY(a, struct ir_value *, 3);
    f->body->yield_count = 3;
    f->body->yields[0] = any(&g, 2);
    f->body->yields[1] = g.pool[pick(&g.s, g.n)];
    f->body->yields[2] = f->body->args[1];
    for (int tries = 0; tries < 60; tries++) {
        struct ir_value *v = any(&g, 2);
        if (ir_type_equal(v->type, f->body->args[1]->type)) {
            f->body->yields[2] = v;
            break;
        }
    }
    for (int i = 0; i < 3; i++)
        for (int tries = 0; tries < 60; tries++) {
            struct ir_value *v = any(&g, 2);
            if (ir_type_equal(v->type, buffers[i]->type)) {
                ir_build_write(&g.b, buffers[i], v);
                break;
            }
        }
    return f;
}

#endif
