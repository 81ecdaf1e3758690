/* The evaluator: random nests against a plain scalar interpreter written here, the operations from IR text, calls that
 * fail, .npy files. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eager/eager.h"
#include "eager/npy.h"
#include "ir/scalar_math.h"
#include "ir/text.h"

static struct diag diag;

static struct ir_module *parse(const char *text) {
    diag_init(&diag);
    struct ir_module *m = ir_parse(&diag, diag_add_source(&diag, "test.mxir", text, strlen(text)));
    if (!m)
        diag_print(&diag, stderr, false);
    cr_assert_not_null(m);
    struct text why = {0};
    cr_assert(ir_verify(m, &why), "%s", text_string(&why));
    return m;
}

static const struct ir_func *function(struct ir_module *m, const char *name) {
    for (int i = 0; i < m->func_count; i++)
        if (strcmp(m->funcs[i]->name, name) == 0)
            return m->funcs[i];
    cr_assert_fail("no function %s", name);
    return NULL;
}

static struct tensor *floats(int n, const float *v) {
    int64_t dims[1] = {n};
    struct tensor *t = tensor_new(F32, 1, dims);
    memcpy(t->data, v, sizeof *v * (size_t)n);
    return t;
}
static struct tensor *integer(int64_t v) {
    struct tensor *t = tensor_new(I64, 0, NULL);
    *(int64_t *)t->data = v;
    return t;
}
#define FLOATS(...) floats((int)(sizeof((float[]){__VA_ARGS__}) / 4), (float[]){__VA_ARGS__})

static void expect_floats(const struct tensor *t, int n, const float *v) {
    cr_assert_eq(tensor_elements(t), n);
    for (int i = 0; i < n; i++)
        cr_assert(((float *)t->data)[i] == v[i] || (isnan(v[i]) && isnan(((float *)t->data)[i])),
                  "element %d: %g, not %g", i, (double)((float *)t->data)[i], (double)v[i]);
}
#define EXPECT(t, ...) expect_floats(t, (int)(sizeof((float[]){__VA_ARGS__}) / 4), (float[]){__VA_ARGS__})

/* ---- random nests -------------------------------------------------------------------------------------------------
 */

static uint64_t state;
static int pick(int n) {
    state = mx_mix(state);
    return (int)(state % (uint64_t)n);
}

/* A scalar: floats in f, integers and bool in i. */
struct scalar {
    double f;
    int64_t i;
};

struct reference {
    const struct ir_op *op;
    struct tensor **operands;
    int64_t index[16];
    struct scalar accs[4];
};

static struct scalar wrap(enum dtype t, struct scalar v) {
    switch (t) {
    case F32: v.f = (float)v.f; break;
    case F16: v.f = mx_round_f16((float)v.f); break;
    case BF16: v.f = mx_round_bf16((float)v.f); break;
    case I32: v.i = (int32_t)v.i; break;
    case I8: v.i = (int8_t)v.i; break;
    case U8: v.i = (uint8_t)v.i; break;
    default: break;
    }
    return v;
}

static struct scalar element(const struct tensor *t, int64_t at) {
    struct scalar v = {0, 0};
    switch (t->dtype) {
    case F64: v.f = ((double *)t->data)[at]; break;
    case F32: v.f = ((float *)t->data)[at]; break;
    case F16: v.f = mx_f32_from_f16(((uint16_t *)t->data)[at]); break;
    case I64: v.i = ((int64_t *)t->data)[at]; break;
    case I32: v.i = ((int32_t *)t->data)[at]; break;
    case I8: v.i = ((int8_t *)t->data)[at]; break;
    case U8:
    case BOOL: v.i = ((uint8_t *)t->data)[at]; break;
    default: cr_assert_fail("dtype");
    }
    return v;
}

static struct scalar evaluate(struct reference *r, ir_expr e) {
    struct scalar v = {0, 0}, a = {0, 0}, b = {0, 0}, c = {0, 0};
    bool is_float = dtype_is_float(e->dtype);
    switch (e->kind) {
    case X_CONST:
        if (is_float)
            v.f = e->value.f;
        else
            v.i = e->value.i;
        return v;
    case X_INDEX: v.i = r->index[e->index]; return v;
    case X_ACC: return r->accs[e->index];
    case X_LOAD: {
        const struct tensor *t = r->operands[e->index];
        int64_t at = 0;
        bool inside = true;
        for (int d = 0; d < t->rank; d++) {
            int64_t x = evaluate(r, e->args[d]).i;
            inside = inside && x >= 0 && x < t->dims[d];
            at = at * t->dims[d] + x;
        }
        if (!inside)
            return e->guarded ? evaluate(r, e->args[t->rank]) : v;
        return element(t, at);
    }
    case X_CAST:
        a = evaluate(r, e->args[0]);
        if (is_float)
            v.f = dtype_is_float(e->args[0]->dtype) ? a.f : (double)a.i;
        else if (dtype_is_float(e->args[0]->dtype))
            v.i = e->dtype == I32   ? mx_i32_from_f64(a.f)
                  : e->dtype == I64 ? mx_i64_from_f64(a.f)
                  : e->dtype == I8  ? mx_i8_from_f64(a.f)
                                    : mx_u8_from_f64(a.f);
        else
            v.i = a.i;
        return wrap(e->dtype, v);
    case X_FN: break;
    default: cr_assert_fail("expression");
    }
    a = evaluate(r, e->args[0]);
    b = e->count > 1 ? evaluate(r, e->args[1]) : b;
    c = e->count > 2 ? evaluate(r, e->args[2]) : c;
    bool of_float = dtype_is_float(e->args[0]->dtype), f64 = e->args[0]->dtype == F64;
#define FLOAT2(fn) v.f = f64 ? mx_##fn##_f64(a.f, b.f) : (double)mx_##fn##_f32((float)a.f, (float)b.f)
#define ROW2(fn)                         \
    case FN_##fn:                        \
        if (of_float)                    \
            FLOAT2(fn);                  \
        else                             \
            v.i = mx_##fn##_i(a.i, b.i); \
        break;
    switch (e->fn) {
        ROW2(add)
        ROW2(sub)
        ROW2(mul)
        ROW2(div)
        ROW2(mod)
        ROW2(max)
        ROW2(min)
    case FN_neg: v.f = -a.f, v.i = mx_neg_i(a.i); break;
    case FN_tanh: v.f = f64 ? tanh(a.f) : (double)mx_tanh_f32((float)a.f); break;
    case FN_lt: v.i = of_float ? a.f < b.f : a.i < b.i; break;
    case FN_where: v = a.i ? b : c; break;
    default: cr_assert_fail("function %d", (int)e->fn);
    }
    return wrap(e->dtype, v);
}

struct maker {
    struct ir_module *m;
    int indices; /* that may occur */
    int operand_count;
    struct ir_value **operands;
    int64_t extent[16];
};

/* An index expression: mostly affine, sometimes with quotients, remainders or data; its value may lie outside. */
static ir_expr random_index(struct maker *k, int depth) {
    struct ir_module *m = k->m;
    int what = pick(depth > 0 ? 12 : 6);
    if (k->indices == 0 || what == 0)
        return ir_const_int(m, I64, pick(3));
    ir_expr i = ir_index(m, pick(k->indices));
    switch (what) {
    case 6: return ir_fn2(m, FN_add, random_index(k, depth - 1), random_index(k, depth - 1));
    case 7: return ir_fn2(m, FN_sub, random_index(k, depth - 1), random_index(k, depth - 1));
    case 8: return ir_fn2(m, FN_mul, random_index(k, depth - 1), ir_const_int(m, I64, pick(4) - 1));
    case 9: return ir_fn2(m, FN_div, random_index(k, depth - 1), ir_const_int(m, I64, 1 + pick(4)));
    case 10: return ir_fn2(m, FN_mod, random_index(k, depth - 1), ir_const_int(m, I64, 1 + pick(5)));
    case 11: {
        ir_expr at[1] = {random_index(k, 0)};
        return ir_cast(m, I64, ir_load(m, 0, I32, 1, at, ir_const_int(m, I32, 1))); /* operand 0: i32[7] */
    }
    default: return i;
    }
}

static const enum dtype dtypes[] = {F32, F32, F32, F64, F16, I64, I32, I8, U8};

static ir_expr random_value(struct maker *k, enum dtype t, int depth) {
    struct ir_module *m = k->m;
    bool is_float = dtype_is_float(t);
    int what = pick(depth > 0 ? 14 : 4);
    if (what == 0)
        return ir_const_number(m, t, pick(5));
    if (what < 4 || what > 11) {
        int slot = 1 + pick(k->operand_count - 1);
        struct ir_type type = k->operands[slot]->type;
        ir_expr at[4];
        for (int d = 0; d < type.rank; d++)
            at[d] = random_index(k, 2);
        ir_expr outside = pick(3) ? ir_const_number(m, type.dtype, 1) : random_value(k, type.dtype, 0);
        return ir_cast(m, t, ir_load(m, slot, type.dtype, type.rank, at, outside));
    }
    switch (what) {
    case 4: return ir_fn1(m, FN_neg, random_value(k, t, depth - 1));
    case 5: return ir_cast(m, t, random_index(k, 1));
    case 6: {
        enum dtype u = dtypes[pick(9)];
        ir_expr c = ir_fn2(m, FN_lt, random_value(k, u, depth - 1), random_value(k, u, depth - 1));
        return ir_fn3(m, FN_where, c, random_value(k, t, depth - 1), random_value(k, t, depth - 1));
    }
    case 7:
        if (is_float)
            return ir_fn1(m, FN_tanh, random_value(k, t, depth - 1));
        return ir_fn2(m, FN_div, random_value(k, t, depth - 1), random_value(k, t, depth - 1));
    default: {
        static const enum scalar_fn fns[] = {FN_add, FN_sub, FN_mul, FN_mul, FN_max, FN_min};
        return ir_fn2(m, fns[pick(6)], random_value(k, t, depth - 1), random_value(k, t, depth - 1));
    }
    }
}

static void combine(const struct ir_acc *acc, struct scalar *v, struct scalar *best, struct scalar x, int64_t *visited,
                    int64_t position) {
    bool f = dtype_is_float(acc->body->dtype);
    switch (acc->op) {
    case RED_SUM: v->f += x.f, v->i = mx_add_i(v->i, x.i); break;
    case RED_MAX: v->f = x.f > v->f || isnan(x.f) ? x.f : v->f, v->i = x.i > v->i ? x.i : v->i; break;
    case RED_MIN: v->f = x.f < v->f || isnan(x.f) ? x.f : v->f, v->i = x.i < v->i ? x.i : v->i; break;
    case RED_ARGMAX:
        if (*visited == 0 || (f ? x.f > best->f : x.i > best->i)) {
            *best = x;
            v->i = position;
        }
        break;
    default: cr_assert_fail("reduction");
    }
    ++*visited;
}

static void reduce(struct reference *r, int a, int level, struct scalar *v, struct scalar *best, int64_t *visited) {
    const struct ir_nest *n = &r->op->nest;
    if (level == n->pars + n->reds) {
        int64_t position = evaluate(r, ir_nest_position(r->op->parent->func->module, n)).i;
        combine(&n->accs[a], v, best, evaluate(r, n->accs[a].body), visited, position);
        return;
    }
    int64_t lo = evaluate(r, n->indices[level].lo).i, hi = evaluate(r, n->indices[level].hi).i;
    for (int64_t x = lo; x < hi; x++) {
        r->index[level] = x;
        reduce(r, a, level + 1, v, best, visited);
    }
}

/* One result at the current point: its value, and how large the sums in it were. */
static struct scalar point(struct reference *r, int result, double *size) {
    const struct ir_nest *n = &r->op->nest;
    *size = 1;
    for (int a = 0; a < n->acc_count; a++) {
        enum dtype t = n->accs[a].body->dtype;
        struct scalar best = {0, 0}, *v = &r->accs[a];
        *v = best;
        int64_t visited = 0, most = t == I64 ? INT64_MAX : t == I32 ? INT32_MAX : t == I8 ? 127 : 255;
        if (n->accs[a].op == RED_MAX || n->accs[a].op == RED_MIN) {
            v->f = n->accs[a].op == RED_MAX ? -INFINITY : INFINITY;
            v->i = n->accs[a].op == RED_MIN ? most : t == U8 ? 0 : -1 - most;
        }
        reduce(r, a, n->pars, v, &best, &visited);
        *v = wrap(n->accs[a].op == RED_ARGMAX ? I32 : t, *v);
        *size += fabs(v->f) + (double)visited;
    }
    return evaluate(r, n->results[result].value);
}

static struct tensor *random_tensor(struct ir_type t) {
    int64_t dims[8];
    for (int d = 0; d < t.rank; d++)
        ir_dim_is_const(t.dims[d], &dims[d]);
    struct tensor *x = tensor_new(t.dtype, t.rank, dims);
    for (int64_t i = 0; i < tensor_elements(x); i++) {
        int v = pick(17) - 8;
        switch (t.dtype) {
        case F64: ((double *)x->data)[i] = v / 8.0; break;
        case F32: ((float *)x->data)[i] = (float)v / 8; break;
        case F16: ((uint16_t *)x->data)[i] = mx_f16_from_f32((float)v / 8); break;
        case I64: ((int64_t *)x->data)[i] = v; break;
        case I32: ((int32_t *)x->data)[i] = v; break;
        default: ((int8_t *)x->data)[i] = (int8_t)v; break;
        }
    }
    return x;
}

/* Calls the function, whose arguments are the nest's four operands, and compares; frees the module. */
static void check_nest(uint64_t seed, struct ir_module *m, struct ir_func *f, struct ir_op *op, bool floats_reduced) {
    struct ir_nest *n = &op->nest;
    struct ir_value **operands = op->operands;
    int result_count = op->result_count;
    int64_t points = 1;
    f->result_count = result_count;
    ir_region_yield(f->body, op->results, result_count);
    ir_module_add_func(m, f);
    for (int i = 0; i < n->pars; i++) {
        int64_t x;
        ir_dim_is_const(n->indices[i].extent, &x);
        points *= x;
    }
    struct tensor *args[4], *got[2];
    for (int i = 0; i < 4; i++)
        args[i] = random_tensor(operands[i]->type);
    struct eager *e = eager_new(m, 1);
    cr_assert_eq(eager_call(e, f, args, got), 0, "%s", eager_error(e));
    struct reference ref = {.op = op, .operands = args};
    for (int i = 0; i < result_count; i++) {
        const struct ir_nest_result *r = &n->results[i];
        enum dtype t = op->results[i]->type.dtype;
        int64_t count = tensor_elements(got[i]);
        struct scalar *want = calloc((size_t)count + 1, sizeof *want);
        double *size = calloc((size_t)count + 1, sizeof *size);
        for (int64_t p = 0; p < count && r->base >= 0; p++)
            want[p] = element(args[r->base], p);
        for (int64_t p = 0; p < points; p++) {
            int64_t rest = p, at = p;
            double s;
            for (int d = n->pars - 1; d >= 0; d--) {
                int64_t x;
                ir_dim_is_const(n->indices[d].extent, &x);
                ref.index[d] = rest % x;
                rest /= x;
            }
            struct scalar v = point(&ref, i, &s);
            if (r->base >= 0) {
                at = 0;
                for (int d = 0; d < args[r->base]->rank; d++)
                    at = at * args[r->base]->dims[d] + evaluate(&ref, r->target[d]).i;
                if (r->combine == COMBINE_ADD)
                    v.f += want[at].f, v.i = mx_add_i(v.i, want[at].i);
            }
            want[at] = wrap(t, v);
            size[at] += s;
        }
        for (int64_t p = 0; p < count; p++) {
            struct scalar g = element(got[i], p), w = want[p];
            double tolerance =
                floats_reduced ? size[p] * (t == F16 ? 2e-3 : 2e-6) + fabs(w.f) * (t == F16 ? 2e-3 : 1e-5) : 0;
            bool same = dtype_is_float(t) ? g.f == w.f || (isnan(g.f) && isnan(w.f)) || fabs(g.f - w.f) <= tolerance
                                          : g.i == w.i;
            if (!same) {
                struct text text = {0};
                ir_print(&text, m);
                cr_assert_fail("seed %llu, result %d, element %lld: %.9g / %lld, expected %.9g / %lld\n%s",
                               (unsigned long long)seed, i, (long long)p, g.f, (long long)g.i, w.f, (long long)w.i,
                               text_string(&text));
            }
        }
        free(want);
        free(size);
        tensor_free(got[i]);
    }
    for (int i = 0; i < 4; i++)
        tensor_free(args[i]);
    eager_free(e);
    ir_module_free(m);
    diag_free(&diag);
}

static void random_nest(uint64_t seed) {
    state = seed;
    diag_init(&diag);
    struct ir_module *m = ir_module_new(&diag, "random");
    struct ir_func *f = ir_func_new(m, "f", (struct span){0});
    struct ir_builder b = {.module = m, .func = f, .region = f->body};
    struct ir_value *operands[4];
    for (int i = 0; i < 4; i++) {
        ir_dim dims[3];
        int rank = i == 0 ? 1 : pick(4);
        for (int d = 0; d < rank; d++)
            dims[d] = ir_dim_const(m, i == 0 ? 7 : 1 + pick(9));
        enum dtype t = i == 0 ? I32 : dtypes[pick(9)];
        operands[i] = ir_region_arg(f->body, ir_type_make(m, t, rank, dims), "x");
    }
    struct ir_op *op = ir_op_new(&b, OP_nest, operands, 4, 0);
    struct ir_nest *n = &op->nest;
    static const int sizes[] = {1, 2, 3, 5, 8, 11, 30};
    n->pars = pick(4);
    n->reds = pick(3);
    n->indices = ARENA_ARRAY(&m->arena, struct ir_nest_index, n->pars + n->reds);
    struct maker k = {m, 0, 4, operands, {0}};
    ir_dim extents[4];
    for (int i = 0; i < n->pars + n->reds; i++) {
        struct ir_nest_index *x = &n->indices[i];
        int size = sizes[pick(i < n->pars ? 7 : 6)];
        x->name = "i";
        x->extent = ir_dim_const(m, size);
        if (i < n->pars) {
            extents[i] = x->extent;
        } else {
            k.indices = i;
            x->lo = ir_const_int(m, I64, pick(3) ? 0 : 1);
            x->hi = ir_const_int(m, I64, size);
            if (pick(3) == 0) { /* ragged, from 0 to at most its extent */
                x->lo = ir_const_int(m, I64, 0);
                x->hi = ir_fn2(m, FN_min, x->hi, random_index(&k, 2));
            }
        }
    }
    k.indices = n->pars + n->reds;
    bool floats_reduced = false;
    if (n->reds) {
        n->acc_count = 1 + pick(2);
        n->accs = ARENA_ARRAY(&m->arena, struct ir_acc, n->acc_count);
        for (int a = 0; a < n->acc_count; a++) {
            static const enum reduce_op ops[] = {RED_SUM, RED_SUM, RED_SUM, RED_MAX, RED_MIN, RED_ARGMAX};
            enum dtype t = dtypes[pick(9)];
            n->accs[a].op = ops[pick(6)];
            if (n->accs[a].op == RED_SUM && t == F16)
                t = F32;
            n->accs[a].body = n->accs[a].op == RED_SUM && pick(2)
                                  ? ir_fn2(m, FN_mul, random_value(&k, t, 1), random_value(&k, t, 1))
                                  : random_value(&k, t, 2);
            floats_reduced = floats_reduced || (n->accs[a].op == RED_SUM && dtype_is_float(t));
        }
    }
    k.indices = n->pars;
    int result_count = n->reds ? n->acc_count : 1 + pick(2);
    n->results = ARENA_ARRAY(&m->arena, struct ir_nest_result, result_count);
    for (int i = 0; i < result_count; i++) {
        struct ir_nest_result *r = &n->results[i];
        r->base = pick(3) == 0 ? 1 + pick(3) : -1;
        enum dtype t = dtypes[pick(9)];
        if (n->reds)
            t = n->accs[i].op == RED_ARGMAX ? I32 : n->accs[i].body->dtype;
        if (r->base >= 0) {
            struct ir_type bt = operands[r->base]->type;
            ir_expr *target = ARENA_ARRAY(&m->arena, ir_expr, bt.rank);
            for (int d = 0; d < bt.rank; d++) {
                int64_t size;
                ir_dim_is_const(bt.dims[d], &size);
                target[d] = ir_fn2(m, FN_mod, random_index(&k, 2), ir_const_int(m, I64, size));
            }
            r->target = target;
            r->combine = pick(2) ? COMBINE_ADD : COMBINE_SET;
            r->value = random_value(&k, bt.dtype, 1);
            /* Not where another order of summation could flip an integer. */
            if (n->reds && (dtype_is_float(bt.dtype) || !dtype_is_float(t) || n->accs[i].op != RED_SUM))
                r->value = ir_fn2(m, FN_add, r->value, ir_cast(m, bt.dtype, ir_acc(m, i, t)));
        } else if (n->reds) {
            ir_expr acc = ir_acc(m, i, t);
            r->value = pick(2) ? acc : ir_fn2(m, FN_add, acc, random_value(&k, t, 1));
        } else {
            r->value = random_value(&k, t, 3);
        }
        struct ir_type type =
            r->base >= 0 ? operands[r->base]->type : ir_type_make(m, r->value->dtype, n->pars, extents);
        ir_op_result(op, type);
    }
    f->result_count = result_count;
    ir_region_yield(f->body, op->results, result_count);
    ir_module_add_func(m, f);
    check_nest(seed, m, f, op, floats_reduced);
}

/* A sum of products whose factors hold random subsets of the indices, in random order, some shifted and guarded. */
static void random_product(uint64_t seed) {
    static const int sizes[] = {2, 3, 5, 8, 13, 20};
    state = seed;
    diag_init(&diag);
    struct ir_module *m = ir_module_new(&diag, "product");
    struct ir_func *f = ir_func_new(m, "f", (struct span){0});
    struct ir_builder b = {.module = m, .func = f, .region = f->body};
    struct ir_nest n = {.pars = 2 + pick(2), .reds = 1 + pick(2)};
    int indices = n.pars + n.reds;
    enum dtype t = pick(3) ? F32 : F64;
    n.indices = ARENA_ARRAY(&m->arena, struct ir_nest_index, indices);
    for (int i = 0; i < indices; i++) {
        int size = pick(12) == 0 && i >= n.pars ? 300 : sizes[pick(6)];
        n.indices[i] =
            (struct ir_nest_index){"i", ir_dim_const(m, size), ir_const_int(m, I64, 0), ir_const_int(m, I64, size)};
    }
    struct ir_value *operands[4];
    ir_expr factor[2];
    for (int o = 0; o < 2; o++) {
        int order[8], rank = 0;
        for (int i = 0; i < indices; i++)
            if (i == o || (i > 1 && (i >= n.pars ? pick(6) > 0 : pick(2))))
                order[rank++] = i;
        for (int i = rank - 1; i > 0; i--) {
            int j = pick(i + 1), x = order[i];
            order[i] = order[j];
            order[j] = x;
        }
        ir_dim dims[8];
        ir_expr at[8];
        for (int i = 0; i < rank; i++) {
            dims[i] = n.indices[order[i]].extent;
            at[i] = ir_index(m, order[i]);
            if (pick(4) == 0)
                at[i] = ir_fn2(m, FN_add, at[i], ir_const_int(m, I64, pick(5) - 2));
        }
        operands[o] = ir_region_arg(f->body, ir_type_make(m, t, rank, dims), "x");
        factor[o] = ir_load(m, o, t, rank, at, ir_const_float(m, t, pick(2)));
        if (pick(4) == 0)
            factor[o] = ir_fn2(m, FN_max, factor[o], ir_const_float(m, t, 0));
    }
    operands[2] = operands[0];
    operands[3] = operands[1];
    for (int i = 2; i < 4; i++) /* four arguments, as check_nest wants them */
        operands[i] = ir_region_arg(f->body, operands[i]->type, "unused");
    struct ir_op *op = ir_op_new(&b, OP_nest, operands, 4, 0);
    ir_dim extents[4];
    for (int i = 0; i < n.pars; i++)
        extents[i] = n.indices[i].extent;
    n.acc_count = 1;
    n.accs = ARENA_NEW(&m->arena, struct ir_acc);
    n.accs[0] = (struct ir_acc){RED_SUM, ir_fn2(m, FN_mul, factor[0], factor[1])};
    n.results = ARENA_NEW(&m->arena, struct ir_nest_result);
    ir_expr acc = ir_acc(m, 0, t);
    n.results[0] = (struct ir_nest_result){pick(2) ? acc : ir_fn2(m, FN_mul, acc, ir_const_float(m, t, 0.5)), -1,
                                           COMBINE_SET, NULL};
    op->nest = n;
    ir_op_result(op, ir_type_make(m, t, n.pars, extents));
    check_nest(seed, m, f, op, true);
}

Test(eager, random_nests, .timeout = 300) {
    const char *seed = getenv("MXCC_TEST_SEED"), *count = getenv("MXCC_TEST_COUNT");
    uint64_t first = seed ? strtoull(seed, NULL, 10) : 1;
    for (int i = 0; i < (count ? atoi(count) : seed ? 1 : 1500); i++)
        random_nest(first + (uint64_t)i);
    for (int i = 0; i < (count ? atoi(count) / 20 : seed ? 1 : 60); i++)
        random_product(first + (uint64_t)i);
}

/* ---- matrix products and convolutions ------------------------------------------------------------------------------
 */

static double at4(const struct tensor *t, int64_t a, int64_t b, int64_t c, int64_t d) {
    if (c < 0 || d < 0 || c >= t->dims[2] || d >= t->dims[3])
        return 0;
    return ((float *)t->data)[((a * t->dims[1] + b) * t->dims[2] + c) * t->dims[3] + d];
}

Test(eager, convolution_and_weight_gradient) {
    struct ir_module *m =
        parse("module \"c\"\n"
              "export func conv[N in 1 .. 8](x = %0: f32[N, 5, 9, 10], w = %1: f32[17, 5, 3, 3]) -> (_) {\n"
              "    %2: f32[N, 17, 9, 10] = nest(%0, %1) [n < N, o < 17, i < 9, j < 10] {\n"
              "        reduce c < 5\n        reduce a < 3\n        reduce b < 3\n"
              "        acc0 = sum mul(%0[n, c, add(add(i, a), -1), add(add(j, b), -1) else 0:f32], %1[o, c, a, b])\n"
              "        %2 = acc0\n    }\n    return %2\n}\n"
              "export func back[N in 1 .. 8](x = %0: f32[N, 5, 9, 10], g = %1: f32[N, 17, 9, 10]) -> (_) {\n"
              "    %2: f32[17, 5, 3, 3] = nest(%0, %1) [o < 17, c < 5, a < 3, b < 3] {\n"
              "        reduce n < N\n        reduce i < 9\n        reduce j < 10\n"
              "        acc0 = sum mul(%0[n, c, add(add(i, a), -1), add(add(j, b), -1) else 0:f32], %1[n, o, i, j])\n"
              "        %2 = acc0\n    }\n    return %2\n}\n");
    struct eager *e = eager_new(m, 1);
    state = 5;
    for (int64_t n = 1; n <= 8; n += 3) { /* plans follow the dimension */
        int64_t xd[] = {n, 5, 9, 10}, wd[] = {17, 5, 3, 3}, gd[] = {n, 17, 9, 10};
        struct tensor *x = tensor_new(F32, 4, xd), *w = tensor_new(F32, 4, wd), *g = tensor_new(F32, 4, gd), *y,
                      *all[] = {x, w, g};
        for (int t = 0; t < 3; t++)
            for (int64_t i = 0; i < tensor_elements(all[t]); i++)
                ((float *)all[t]->data)[i] = (float)(pick(1001) - 500) / 500;
        cr_assert_eq(eager_call(e, function(m, "conv"), (struct tensor *[]){x, w}, &y), 0, "%s", eager_error(e));
        for (int64_t p = 0; p < tensor_elements(y); p++) {
            int64_t j = p % 10, i = p / 10 % 9, o = p / 90 % 17, b = p / 1530;
            double s = 0;
            for (int c = 0; c < 5; c++)
                for (int k = 0; k < 9; k++)
                    s += at4(x, b, c, i + k / 3 - 1, j + k % 3 - 1) * at4(w, o, c, k / 3, k % 3);
            cr_assert_float_eq(((float *)y->data)[p], s, 1e-5);
        }
        tensor_free(y);
        cr_assert_eq(eager_call(e, function(m, "back"), (struct tensor *[]){x, g}, &y), 0, "%s", eager_error(e));
        for (int64_t p = 0; p < tensor_elements(y); p++) {
            int64_t b = p % 3, a = p / 3 % 3, c = p / 9 % 5, o = p / 45;
            double s = 0;
            for (int64_t q = 0; q < n * 90; q++)
                s += at4(x, q / 90, c, q / 10 % 9 + a - 1, q % 10 + b - 1) * at4(g, q / 90, o, q / 10 % 9, q % 10);
            cr_assert_float_eq(((float *)y->data)[p], s, 1e-4);
        }
        tensor_free(y);
        tensor_free(x);
        tensor_free(w);
        tensor_free(g);
    }
    eager_free(e);
    ir_module_free(m);
}

/* ---- operations from text ------------------------------------------------------------------------------------------
 */

static const char control[] =
    "module \"c\"\n"
    "param @w: f32[3]\n"
    "state @calls: i64\n"
    "init func init() {\n"
    "    %0: f32[3] = const [1, 2, 3]\n    write(%0) @w\n"
    "    %1: i64 = const 0\n    write(%1) @calls\n    return\n}\n"
    /* out[t] = t * x[t] in a loop, in place; the buffers change. */
    "export func loop[N in 0 .. 100](x = %0: f32[N], n = %1: i64) -> (out) {\n"
    "    %2: i64 = const 0\n"
    "    %3: f32[N] = nest(%0) [i < N] {\n        %3 = 0:f32\n    }\n"
    "    %4: f32[N] = for(%2, %1, %3) limit 5 {\n"
    "        (%5: i64, %6: f32[N])\n"
    "        %7: f32[N] = nest(%6, %0, %5) [] {\n            %7 = %6 with [%5[]] = mul(%0[%5[]], f32(%5[]))\n        "
    "}\n"
    "        yield %7\n    }\n"
    "    %8: i64 = read @calls\n"
    "    %9: i64 = nest(%8) [] {\n        %9 = add(%8[], 1)\n    }\n    write(%9) @calls\n"
    "    return %4\n}\n"
    /* Halves until below 1: the trips. */
    "export func halve(x = %0: f32) -> (trips) {\n"
    "    %1: i64 = const 0\n"
    "    %2: f32, %3: i64 = while(%0, %1) limit 10 {\n"
    "        (%4: f32, %5: i64)\n"
    "        %6: bool = nest(%4) [] {\n            %6 = le(1:f32, %4[])\n        }\n        yield %6\n"
    "    } {\n"
    "        (%7: f32, %8: i64)\n"
    "        %9: f32, %10: i64 = nest(%7, %8) [] {\n            %9 = mul(0.5:f32, %7[])\n            %10 = add(%8[], "
    "1)\n        }\n"
    "        yield %9, %10\n    }\n"
    "    return %3\n}\n"
    "export func choose(x = %0: f32[2], c = %1: bool) -> (_) {\n"
    "    %2: f32[2] = if(%1) {\n"
    "        %3: f32[2] = nest(%0) [i < 2] {\n            %3 = neg(%0[i])\n        }\n        yield %3\n"
    "    } {\n        yield %0\n    }\n"
    "    return %2\n}\n"
    /* Changes both buffers, then fails if x is negative. */
    "export func guarded(x = %0: f32) -> (_) {\n"
    "    %1: f32[3] = read @w\n"
    "    %2: f32[3] = nest(%1, %0) [i < 3] {\n        %2 = add(%1[i], %0[])\n    }\n    write(%2) @w\n"
    "    %3: bool = nest(%0) [] {\n        %3 = le(0:f32, %0[])\n    }\n"
    "    %4: bool = check(%3) \"x is negative\"\n"
    "    return %0\n}\n"
    "export func add_to(inout a = %0: f32[3], inout b = %1: f32[3]) {\n"
    "    return %1, %0\n}\n";

Test(eager, control_flow_and_buffers) {
    struct ir_module *m = parse(control);
    struct eager *e = eager_new(m, 1);
    cr_assert_not_null(e);
    EXPECT(eager_buffer(e, "w"), 1, 2, 3);
    struct tensor *x = FLOATS(5, 6, 7, 8), *n = integer(3), *y;
    cr_assert_eq(eager_call(e, function(m, "loop"), (struct tensor *[]){x, n}, &y), 0, "%s", eager_error(e));
    EXPECT(y, 0, 6, 14, 0);
    tensor_free(y);
    cr_assert_eq(*(int64_t *)eager_buffer(e, "calls")->data, 1);
    *(int64_t *)n->data = 6;
    cr_assert_eq(eager_call(e, function(m, "loop"), (struct tensor *[]){x, n}, &y), 1);
    cr_assert(strstr(eager_error(e), "limit of 5"), "%s", eager_error(e));
    cr_assert_eq(*(int64_t *)eager_buffer(e, "calls")->data, 1);

    struct tensor *s = tensor_new(F32, 0, NULL);
    *(float *)s->data = 20;
    cr_assert_eq(eager_call(e, function(m, "halve"), &s, &y), 0, "%s", eager_error(e));
    cr_assert_eq(*(int64_t *)y->data, 5);
    tensor_free(y);
    *(float *)s->data = 1e6f;
    cr_assert_eq(eager_call(e, function(m, "halve"), &s, &y), 1);

    struct tensor *two = FLOATS(1, -2), *c = tensor_new(BOOL, 0, NULL);
    cr_assert_eq(eager_call(e, function(m, "choose"), (struct tensor *[]){two, c}, &y), 0);
    EXPECT(y, 1, -2);
    tensor_free(y);
    *(uint8_t *)c->data = 1;
    cr_assert_eq(eager_call(e, function(m, "choose"), (struct tensor *[]){two, c}, &y), 0);
    EXPECT(y, -1, 2);
    tensor_free(y);

    *(float *)s->data = -1;
    cr_assert_eq(eager_call(e, function(m, "guarded"), &s, &y), 1);
    cr_assert_str_eq(eager_error(e), "x is negative");
    EXPECT(eager_buffer(e, "w"), 1, 2, 3);
    *(float *)s->data = 1;
    cr_assert_eq(eager_call(e, function(m, "guarded"), &s, &y), 0);
    tensor_free(y);
    EXPECT(eager_buffer(e, "w"), 2, 3, 4);
    cr_assert_eq(eager_reset(e, true), 0);
    EXPECT(eager_buffer(e, "w"), 2, 3, 4);
    cr_assert_eq(*(int64_t *)eager_buffer(e, "calls")->data, 0);

    struct tensor *a = FLOATS(1, 2, 3), *b = FLOATS(4, 5, 6);
    cr_assert_eq(eager_call(e, function(m, "add_to"), (struct tensor *[]){a, b}, NULL), 0);
    EXPECT(a, 4, 5, 6);
    EXPECT(b, 1, 2, 3);

    /* Arguments that do not fit. */
    cr_assert_eq(eager_call(e, function(m, "choose"), (struct tensor *[]){a, c}, &y), 1);
    cr_assert(strstr(eager_error(e), "expected 2"), "%s", eager_error(e));
    cr_assert_eq(eager_call(e, function(m, "choose"), (struct tensor *[]){c, c}, &y), 1);
    struct tensor *all[] = {x, n, s, two, c, a, b};
    for (int i = 0; i < 7; i++)
        tensor_free(all[i]);
    eager_free(e);
    ir_module_free(m);
}

Test(eager, sort_scan_random) {
    struct ir_module *m =
        parse("module \"s\"\n"
              "export func order(x = %0: f32[6]) -> (v, p, s, r) {\n"
              "    %1: f32[6], %2: i64[6] = sort(%0) axis 0 descending\n"
              "    %3: f32[6] = scan(%0) axis 0 sum\n"
              "    %4: f32[6] = scan(%0) axis 0 prod reverse exclusive\n"
              "    return %1, %2, %3, %4\n}\n"
              "export random func draw(t = %0: i64) -> (a, b) {\n"
              "    %1: u32[6] = rng(%0) place 3\n    %2: u64[3] = rng place 4\n    return %1, %2\n}\n");
    struct eager *e = eager_new(m, 7);
    struct tensor *x = FLOATS(2, NAN, 3, 2, -1, 3), *r[4];
    cr_assert_eq(eager_call(e, function(m, "order"), &x, r), 0, "%s", eager_error(e));
    EXPECT(r[0], 3, 3, 2, 2, -1, NAN);
    int64_t p[] = {2, 5, 0, 3, 4, 1};
    cr_assert_arr_eq(r[1]->data, p, sizeof p);
    EXPECT(r[2], 2, NAN, NAN, NAN, NAN, NAN);
    EXPECT(r[3], NAN, -18, -6, -3, 3, 1);
    for (int i = 0; i < 4; i++)
        tensor_free(r[i]);
    tensor_free(x);

    struct tensor *t = integer(9);
    uint32_t words[4];
    uint64_t longs[2];
    for (uint64_t call = 0; call < 2; call++) {
        cr_assert_eq(*eager_calls(e), call);
        cr_assert_eq(eager_call(e, function(m, "draw"), &t, r), 0, "%s", eager_error(e));
        uint64_t h = mx_stream_call(mx_stream_loop(mx_stream(3), 9), call);
        for (int i = 0; i < 6; i++) {
            mx_random_u32(7, h, (uint64_t)i / 4, words);
            cr_assert_eq(((uint32_t *)r[0]->data)[i], words[i % 4]);
        }
        for (int i = 0; i < 3; i++) {
            mx_random_u64(7, mx_stream_call(mx_stream(4), call), (uint64_t)i / 2, longs);
            cr_assert_eq(((uint64_t *)r[1]->data)[i], longs[i % 2]);
        }
        tensor_free(r[0]);
        tensor_free(r[1]);
    }
    tensor_free(t);
    eager_free(e);
    ir_module_free(m);
}

static void keep_line(void *context, const char *line) {
    snprintf(context, 100, "%s", line);
}

Test(eager, dim_print_extern) {
    struct ir_module *m = parse("module \"d\"\n"
                                "export func first(x = %0: f32[8], n = %1: i64) -> (_) {\n"
                                "    dim(%1) K in 0 .. 8\n"
                                "    %2: f32[K] = nest(%0) [i < K] {\n        %2 = %0[i]\n    }\n"
                                "    print(%2) \"values {}, {{}\"\n"
                                "    return %2\n}\n"
                                "export func cube(x = %0: f64) -> (_) {\n"
                                "    %1: f64 = extern(%0) header \"math.h\" symbol \"cbrt\" params [0] returns\n"
                                "    return %1\n}\n");
    struct eager *e = eager_new(m, 7);
    char line[100];
    eager_set_log(e, keep_line, line);
    struct tensor *x = FLOATS(1, 2, 3, 4, 5, 6, 7, 8.5f), *n = integer(3), *y;
    cr_assert_eq(eager_call(e, function(m, "first"), (struct tensor *[]){x, n}, &y), 0, "%s", eager_error(e));
    EXPECT(y, 1, 2, 3);
    cr_assert_str_eq(line, "values [1, 2, 3], {}");
    tensor_free(y);
    *(int64_t *)n->data = 9;
    cr_assert_eq(eager_call(e, function(m, "first"), (struct tensor *[]){x, n}, &y), 1);
    cr_assert(strstr(eager_error(e), "K is 9"), "%s", eager_error(e));
    struct tensor *v = tensor_new(F64, 0, NULL);
    *(double *)v->data = 27;
    unsetenv("MXCC_EXTERN_LIBRARY");
    cr_assert_eq(eager_call(e, function(m, "cube"), &v, &y), 1);
    eager_set_extern_library(e, "libm.so.6");
    if (eager_call(e, function(m, "cube"), &v, &y) == 0) { /* else built without libffi */
        cr_assert_float_eq(*(double *)y->data, 3, 1e-12);
        tensor_free(y);
    }
    tensor_free(v);
    tensor_free(x);
    tensor_free(n);
    eager_free(e);
    ir_module_free(m);
}

/* ---- .npy
 * ------------------------------------------------------------------------------------------------------------ */

Test(npy, round_trip_and_errors) {
    struct text why = {0};
    char path[] = "/tmp/mxcc-npy-XXXXXX";
    cr_assert_geq(mkstemp(path), 0);
    for (enum dtype t = 0; t < DTYPE_COUNT; t++)
        for (int rank = 0; rank < 4; rank++) {
            int64_t dims[] = {2, 3, 0};
            dims[2] = rank == 3 ? t % 2 : 0;
            struct tensor *x = tensor_new(t, rank, dims), *y;
            for (int64_t i = 0; i < tensor_elements(x) * dtype_size(t); i++)
                ((unsigned char *)x->data)[i] = (unsigned char)i;
            cr_assert_eq(npy_write(path, x, &why), 0, "%s", text_string(&why));
            y = npy_read(path, &t, &why);
            cr_assert_not_null(y, "%s", text_string(&why));
            cr_assert(y->dtype == t && y->rank == rank && memcmp(y->dims, x->dims, 8 * (size_t)rank) == 0);
            cr_assert_eq(memcmp(x->data, y->data, (size_t)(tensor_elements(x) * dtype_size(t))), 0);
            tensor_free(x);
            tensor_free(y);
        }
    remove(path);
    static const char head[] = "\x93NUMPY\x01\x00\x46\x00{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }";
    char file[10 + 70 + 12];
    memset(file, ' ', sizeof file);
    memcpy(file, head, sizeof head - 1);
    for (int i = 0; i < 6; i++) {
        file[80 + 2 * i] = 0;
        file[81 + 2 * i] = (char)i;
    }
    struct tensor *t = npy_parse(file, sizeof file, "x", NULL, &why);
    cr_assert_not_null(t, "%s", text_string(&why));
    int16_t want[] = {0, 2, 4, 1, 3, 5};
    cr_assert_arr_eq(t->data, want, sizeof want);
    tensor_free(t);
    for (size_t n = 0; n < sizeof file; n++)
        cr_assert_null(npy_parse(file, n, "x", NULL, &why));
    for (uint64_t i = 0; i < 3000; i++) { /* never more than an error */
        char bad[sizeof file];
        memcpy(bad, file, sizeof file);
        state = i;
        for (int j = 0; j < 3; j++)
            bad[6 + pick(74)] = (char)pick(256);
        tensor_free(npy_parse(bad, sizeof bad, "x", NULL, &why));
        text_free(&why);
        why = (struct text){0};
    }
}
