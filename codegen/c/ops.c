/* The operations that are no nests, as loop IR where they compute: constants, sort (bottom-up merge sort of positions, stable),
 * scan, random bits; and the two that reach outside, print and extern. */
#include <string.h>

#include "codegen/cuda/cuda.h"
#include "passes/gpu.h"

/* ---- constants -------------------------------------------------------------------------------------------------------- */

const char *cgen_const_data(struct cgen *g, const struct ir_op *op, bool device) {
    struct cgen_kernels *k = cgen_private(g);
    const char *side = device ? "device" : "";
    for (int i = 0; i + 2 < k->consts.n; i += 3)
        if (k->consts.at[i] == (const char *)op && !strcmp(k->consts.at[i + 2], side))
            return k->consts.at[i + 1];
    const struct ir_value *v = op->results[0];
    const char *name = arena_printf(&g->arena, "%s_mx_const_%d", g->prefix, k->consts.n / 3);
    VEC_PUSH(&g->arena, k->consts, (const char *)op);
    VEC_PUSH(&g->arena, k->consts, name);
    VEC_PUSH(&g->arena, k->consts, side);
    int64_t n = 0;
    enum dtype t = v->type.dtype;
    if (!ir_dim_is_const(ir_type_elements(g->module, v->type), &n))
        n = ir_dim_upper(ir_type_elements(g->module, v->type));
    struct text *out = &g->outlined;
    text_printf(out, "static %sconst %s %s[%lld] = {%s", device ? "__device__ __align__(16) " : "", cgen_c_type(t),
                name, (long long)(n > 0 ? n : 1), n > 0 ? "" : "0");
    const unsigned char *data = op->constant.data;
    for (int64_t i = 0; i < n; i++) {
        const unsigned char *at = data + i * dtype_size(t);
        double f = 0;
        int64_t x = 0;
        float single;
        switch (t) {
        case F64: memcpy(&f, at, 8); break;
        case F32: memcpy(&single, at, 4), f = (double)single; break;
        case I64:
        case U64: memcpy(&x, at, 8); break;
        case I32: {
            int32_t y;
            memcpy(&y, at, 4), x = y;
            break;
        }
        case U32: {
            uint32_t y;
            memcpy(&y, at, 4), x = y;
            break;
        }
        case I16: {
            int16_t y;
            memcpy(&y, at, 2), x = y;
            break;
        }
        case F16:
        case BF16:
        case U16: {
            uint16_t y;
            memcpy(&y, at, 2), x = y;
            break;
        }
        case I8: x = (int8_t)*at; break;
        default: x = *at; break;
        }
        text_printf(out, "%s%s",
                    i == 0   ? ""
                    : i % 12 ? ", "
                             : ",\n    ",
                    cprint_number(g, t == F16 || t == BF16 ? U16 : t, f, x));
    }
    text_add(out, "};\n\n");
    return name;
}

/* ---- loops along an axis ------------------------------------------------------------------------------------------------ */

struct axis { /* a tensor as [outer, length, inner] */
    lx outer, length, inner;
    int64_t upper, rows; /* of length, of outer * inner */
};

static struct axis axis_of(struct function *f, struct ir_type t, int axis) {
    struct ir_module *m = f->g->module;
    ir_dim outer = ir_dim_const(m, 1), inner = outer;
    for (int d = 0; d < t.rank; d++) {
        if (d < axis)
            outer = ir_dim_mul(m, outer, t.dims[d]);
        if (d > axis)
            inner = ir_dim_mul(m, inner, t.dims[d]);
    }
    return (struct axis){function_dim(f, outer), function_dim(f, t.dims[axis]), function_dim(f, inner),
                         ir_dim_upper(t.dims[axis]), ir_dim_upper(ir_dim_mul(m, outer, inner))};
}

static struct loop_stmt *loop_over(struct function *f, struct loop_block *k, const char *name, lx n, lx *counter) {
    struct loop_var *v = loop_var_new(f->b, name, I64, 1);
    *counter = lx_var(f->b, v);
    return loop_for(f->b, k, v, lx_int(f->b, 0), n, 1, LOOP_SERIAL);
}

/* What is done once a row of an axis, which the counters outer and inner name: nested loops, or a thread a row. */
struct each_row {
    struct gpu_each each; /* of a GPU */
    struct loop_block *body;
    lx outer, inner;
};

static struct each_row open_rows(struct function *f, struct loop_block *k, const struct axis *a) {
    struct each_row r = {.body = NULL};
    struct loop_builder *b = f->b;
    if (f->g->cuda) {
        r.each = gpu_open_each(b, k, lx_mul(b, a->outer, a->inner), a->rows, "row");
        r.body = r.each.body;
        r.outer = gpu_named(b, r.body, "outer", lx_div(b, r.each.at, a->inner));
        r.inner = gpu_named(b, r.body, "inner", lx_mod(b, r.each.at, a->inner));
        return r;
    }
    struct loop_stmt *outer = loop_over(f, k, "outer", a->outer, &r.outer);
    r.body = &loop_over(f, &outer->body, "inner", a->inner, &r.inner)->body;
    return r;
}

static void close_rows(struct function *f, struct each_row *r) {
    if (f->g->cuda)
        gpu_close_each(&r->each);
}

static struct loop_var *define(struct function *f, struct loop_block *k, const char *name, lx value, bool is_mutable) {
    struct loop_var *v = loop_var_new(f->b, name, value->dtype, 1);
    v->is_mutable = is_mutable;
    loop_def(f->b, k, v, value);
    return v;
}

struct scan {
    struct function *f;
    const struct ir_op *op;
    struct axis a;
    struct loop_mem *from, *to;
    enum dtype type, wide; /* f16 and bf16 are added up in f32 */
    enum scalar_fn fn;
};

/* The address of step s of row (outer, inner). */
static lx scan_address(const struct scan *c, lx o, lx s, lx i) {
    struct loop_builder *b = c->f->b;
    lx p = c->op->scan.reverse ? lx_sub(b, lx_sub(b, c->a.length, lx_int(b, 1)), s) : s;
    return lx_add(b, lx_mul(b, lx_add(b, lx_mul(b, o, c->a.length), p), c->a.inner), i);
}

/* What a row's steps from s on begin with: for maxima and minima the first element, which changes neither. */
static lx scan_start(const struct scan *c, lx o, lx s, lx i) {
    struct loop_builder *b = c->f->b;
    bool prod = c->op->scan.op == RED_PROD;
    if (c->op->scan.op == RED_MAX || c->op->scan.op == RED_MIN)
        return lx_cast(b, c->wide, lx_load(b, c->from, scan_address(c, o, s, i), 1));
    return dtype_is_float(c->wide) ? lx_const_float(b, c->wide, prod ? 1 : 0)
                                   : lx_const_int(b, c->wide, prod || c->op->scan.op == RED_ALL);
}

/* Steps lo .. hi of a row; what they add up to. */
static struct loop_var *scan_steps(const struct scan *c, struct loop_block *body, lx o, lx i, lx lo, lx hi, lx start,
                                   bool store) {
    struct function *f = c->f;
    struct loop_builder *b = f->b;
    struct loop_var *acc = define(f, body, "acc", start, true), *s = loop_var_new(b, "step", I64, 1);
    struct loop_stmt *along = loop_for(b, body, s, lo, hi, 1, LOOP_SERIAL);
    struct loop_var *at = define(f, &along->body, "at", scan_address(c, o, lx_var(b, s), i), false);
    lx here = lx_var(b, at);
    struct loop_var *value = define(f, &along->body, "value", lx_cast(b, c->wide, lx_load(b, c->from, here, 1)), false);
    lx sum = lx_fn2(b, c->fn, lx_var(b, acc), lx_var(b, value));
    if (store && c->op->scan.exclusive)
        loop_store(b, &along->body, c->to, here, lx_cast(b, c->type, lx_var(b, acc)));
    loop_set(b, &along->body, acc, NULL, sum);
    if (store && !c->op->scan.exclusive)
        loop_store(b, &along->body, c->to, here, lx_cast(b, c->type, lx_var(b, acc)));
    return acc;
}

/* Few long rows on a GPU, in parts: what each adds up to, what goes before each, then each from there. */
static void scan_in_parts(const struct scan *c, int64_t parts, struct loop_block *k) {
    struct function *f = c->f;
    struct loop_builder *b = f->b;
    struct loop_mem *totals = function_workspace(f, k, "totals", c->wide, parts * c->a.rows);
    lx rows = lx_mul(b, c->a.outer, c->a.inner), count = lx_int(b, parts);
    for (int pass = 0; pass < 3; pass++) {
        struct gpu_each e = gpu_open_each(b, k, pass == 1 ? rows : lx_mul(b, rows, count),
                                          pass == 1 ? c->a.rows : c->a.rows * parts, "at_");
        lx row = pass == 1 ? e.at : gpu_named(b, e.body, "row", lx_div(b, e.at, count));
        lx o = gpu_named(b, e.body, "outer", lx_div(b, row, c->a.inner)),
           i = gpu_named(b, e.body, "inner", lx_mod(b, row, c->a.inner));
        if (pass == 1) {
            struct loop_var *acc = define(f, e.body, "acc", scan_start(c, o, lx_int(b, 0), i), true),
                            *part = loop_var_new(b, "part_of", I64, 1);
            struct loop_stmt *s = loop_for(b, e.body, part, lx_int(b, 0), count, 1, LOOP_SERIAL);
            lx at = gpu_named(b, &s->body, "at", lx_add(b, lx_mul(b, row, count), lx_var(b, part)));
            struct loop_var *total = define(f, &s->body, "total", lx_load(b, totals, at, 1), false);
            loop_store(b, &s->body, totals, at, lx_var(b, acc));
            loop_set(b, &s->body, acc, NULL, lx_fn2(b, c->fn, lx_var(b, acc), lx_var(b, total)));
        } else {
            lx share = gpu_named(b, e.body, "share", gpu_ceil_div(b, c->a.length, parts));
            lx lo = gpu_named(b, e.body, "first", lx_mul(b, lx_mod(b, e.at, count), share));
            lx hi = gpu_named(b, e.body, "end", lx_min(b, lx_add(b, lo, share), c->a.length));
            lx some = lx_min(b, lo, lx_sub(b, c->a.length, lx_int(b, 1))); /* parts may be empty */
            lx start = pass == 0 ? scan_start(c, o, some, i) : lx_load(b, totals, e.at, 1);
            struct loop_var *acc = scan_steps(c, e.body, o, i, lo, hi, start, pass == 2);
            if (pass == 0)
                loop_store(b, e.body, totals, e.at, lx_var(b, acc));
        }
        gpu_close_each(&e);
    }
}

void op_scan(struct function *f, struct ir_op *op) {
    static const enum scalar_fn fns[RED_COUNT] = {[RED_SUM] = FN_add, [RED_PROD] = FN_mul, [RED_MAX] = FN_max,
                                                  [RED_MIN] = FN_min, [RED_ANY] = FN_or,   [RED_ALL] = FN_and};
    enum dtype t = op->operands[0]->type.dtype;
    struct loop_block k;
    loop_block_init(&k);
    function_begin(f);
    struct scan c = {.f = f, .op = op, .a = axis_of(f, op->operands[0]->type, op->scan.axis), .type = t};
    c.wide = t == F16 || t == BF16 ? F32 : t;
    c.fn = fns[op->scan.op];
    c.from = function_mem(f, op->operands[0]);
    c.to = function_mem(f, op->results[0]);
    int64_t parts = codegen_scan_parts(f->g->options, op);
    if (parts > 1) {
        scan_in_parts(&c, parts, &k);
    } else {
        struct each_row rows = open_rows(f, &k, &c.a);
        lx start = scan_start(&c, rows.outer, lx_int(f->b, 0), rows.inner);
        scan_steps(&c, rows.body, rows.outer, rows.inner, lx_int(f->b, 0), c.a.length, start, true);
        close_rows(f, &rows);
    }
    function_finish(f, &k);
}

/* Whether x stands before y, not being equal: nan stands last in either direction. */
static lx goes_before(struct function *f, const struct ir_op *op, lx x, lx y) {
    struct loop_builder *b = f->b;
    lx first = op->sort.descending ? lx_fn2(b, FN_lt, y, x) : lx_fn2(b, FN_lt, x, y);
    if (!dtype_is_float(x->dtype))
        return first;
    lx nan_x = lx_fn(b, FN_isnan, BOOL, 1, &x), nan_y = lx_fn(b, FN_isnan, BOOL, 1, &y);
    return lx_op(b, I_OR, first, lx_op(b, I_AND, nan_y, lx_op(b, I_NOT, nan_x, NULL)));
}

/* The same merge sort with a thread an element: its place in the merged run is its place in its own plus, by binary search, the
 * number of elements of the other run that go before it. A kernel a round. Positions lie as [outer, inner, length]. */
static void sort_rounds(struct function *f, struct ir_op *op, const struct axis *a, lx kept, struct loop_block *k) {
    struct loop_builder *b = f->b;
    struct ir_module *m = f->g->module;
    struct ir_type t = op->operands[0]->type;
    int64_t upper = ir_dim_upper(ir_type_elements(m, t));
    lx all = function_elements(f, t), one = lx_int(b, 1);
    struct loop_mem *from = function_mem(f, op->operands[0]);
    struct loop_mem *order[2] = {function_workspace(f, k, "order", I64, upper),
                                 function_workspace(f, k, "merged", I64, upper)};
    struct gpu_each e = gpu_open_each(b, k, all, upper, "i");
    loop_store(b, e.body, order[0], e.at, lx_mod(b, e.at, a->length));
    gpu_close_each(&e);
    int rounds = 0, all_rounds = 0;
    while (all_rounds < 62 && (INT64_C(1) << all_rounds) < a->upper)
        all_rounds++;
    for (; rounds < all_rounds; rounds++) {
        struct loop_mem *old = order[rounds & 1];
        /* As a variable, so that all rounds are launches of one kernel. */
        struct loop_var *v = loop_var_new(b, "width", I64, 1);
        loop_var_bound(v, 1, a->upper);
        loop_def(b, k, v, lx_int(b, INT64_C(1) << rounds));
        lx width = lx_var(b, v), twice = lx_mul(b, width, lx_int(b, 2));
        e = gpu_open_each(b, k, all, upper, "i");
        struct loop_block *body = e.body;
        lx row = gpu_named(b, body, "row", lx_div(b, e.at, a->length)),
           place = gpu_named(b, body, "place", lx_mod(b, e.at, a->length));
        lx left = gpu_named(b, body, "left", lx_mul(b, lx_div(b, place, twice), twice)),
           middle = gpu_named(b, body, "middle", lx_min(b, lx_add(b, left, width), a->length)),
           end = gpu_named(b, body, "end", lx_min(b, lx_add(b, left, twice), a->length)),
           start = gpu_named(b, body, "start", lx_mul(b, row, a->length));
        lx base = gpu_named(
            b, body, "base",
            lx_add(b, lx_mul(b, lx_mul(b, lx_div(b, row, a->inner), a->length), a->inner), lx_mod(b, row, a->inner)));
        lx position = gpu_named(b, body, "position", lx_load(b, old, e.at, 1));
        lx own = gpu_named(b, body, "own", lx_load(b, from, lx_add(b, base, lx_mul(b, position, a->inner)), 1));
        lx on_left = gpu_named(b, body, "on_left", lx_op(b, I_LT, place, middle));
        /* The other run, and how many of it go before: below `low` all do, from `high` on none. */
        lx other = gpu_named(b, body, "other", lx_select(b, on_left, middle, left));
        struct loop_var *low = define(f, body, "low", lx_int(b, 0), true),
                        *high = define(f, body, "high",
                                       lx_select(b, on_left, lx_sub(b, end, middle), lx_sub(b, middle, left)), true);
        lx halving;
        struct loop_stmt *search = loop_over(f, body, "halving", lx_int(b, all_rounds), &halving);
        struct loop_stmt *open = loop_if(b, &search->body, lx_op(b, I_LT, lx_var(b, low), lx_var(b, high)));
        lx probe =
            gpu_named(b, &open->body, "probe", lx_div(b, lx_add(b, lx_var(b, low), lx_var(b, high)), lx_int(b, 2)));
        lx there = gpu_named(b, &open->body, "there", lx_load(b, old, lx_add(b, start, lx_add(b, other, probe)), 1));
        lx value = gpu_named(b, &open->body, "value", lx_load(b, from, lx_add(b, base, lx_mul(b, there, a->inner)), 1));
        /* Equal elements of the left run go first. */
        lx before = lx_select(b, on_left, goes_before(f, op, value, own),
                              lx_op(b, I_NOT, goes_before(f, op, own, value), NULL));
        struct loop_stmt *choose = loop_if(b, &open->body, before);
        loop_set(b, &choose->body, low, NULL, lx_add(b, probe, one));
        loop_set(b, &choose->other, high, NULL, probe);
        lx rank = lx_sub(b, place, lx_select(b, on_left, left, middle));
        loop_store(b, body, order[~rounds & 1], lx_add(b, start, lx_add(b, left, lx_add(b, rank, lx_var(b, low)))),
                   position);
        gpu_close_each(&e);
    }
    int64_t most = a->rows * (op->sort.limit ? ir_dim_upper(op->sort.limit) : a->upper);
    e = gpu_open_each(b, k, lx_mul(b, lx_mul(b, a->outer, kept), a->inner), most, "i");
    lx inner = gpu_named(b, e.body, "inner", lx_mod(b, e.at, a->inner)),
       rest = gpu_named(b, e.body, "rest", lx_div(b, e.at, a->inner));
    lx outer = gpu_named(b, e.body, "outer", lx_div(b, rest, kept)), place = lx_mod(b, rest, kept);
    lx row = lx_add(b, lx_mul(b, outer, a->inner), inner);
    lx position =
        gpu_named(b, e.body, "position", lx_load(b, order[rounds & 1], lx_add(b, lx_mul(b, row, a->length), place), 1));
    lx source = lx_add(b, lx_mul(b, lx_add(b, lx_mul(b, outer, a->length), position), a->inner), inner);
    for (int result = 0; result < op->result_count; result++)
        if (function_storage(f, op->results[result]))
            loop_store(b, e.body, function_mem(f, op->results[result]), e.at,
                       result ? position : lx_load(b, from, source, 1));
    gpu_close_each(&e);
}

void op_sort(struct function *f, struct ir_op *op) {
    struct loop_builder *b = f->b;
    const struct ir_value *x = op->operands[0];
    struct axis a = axis_of(f, x->type, op->sort.axis);
    lx kept = op->sort.limit ? function_dim(f, op->sort.limit) : a.length;
    struct loop_block k;
    loop_block_init(&k);
    function_begin(f);
    if (f->g->cuda) {
        sort_rounds(f, op, &a, kept, &k);
        function_finish(f, &k);
        return;
    }
    struct loop_mem *from = function_mem(f, x);
    struct loop_mem *order = function_workspace(f, &k, "order", I64, a.upper),
                    *merged = function_workspace(f, &k, "merged", I64, a.upper);
    lx one = lx_int(b, 1), o, in, i;
    struct loop_stmt *outer = loop_over(f, &k, "outer", a.outer, &o);
    struct loop_stmt *inner = loop_over(f, &outer->body, "inner", a.inner, &in);
    struct loop_block *body = &inner->body;
    struct loop_stmt *s = loop_over(f, body, "i", a.length, &i);
    loop_store(b, &s->body, order, i, i);
    /* Runs of `width` are merged in pairs; one round a doubling, as many as the upper bound needs. */
    struct loop_var *width = define(f, body, "width", one, true);
    int rounds = 0;
    while (rounds < 62 && (INT64_C(1) << rounds) < a.upper)
        rounds++;
    lx round, pair, at;
    struct loop_stmt *level = loop_over(f, body, "round_", lx_int(b, rounds), &round);
    lx w = lx_var(b, width), twice = lx_mul(b, w, lx_int(b, 2));
    struct loop_stmt *pairs =
        loop_over(f, &level->body, "pair", lx_div(b, lx_add(b, a.length, lx_sub(b, twice, one)), twice), &pair);
    struct loop_block *pb = &pairs->body;
    struct loop_var *left = define(f, pb, "left", lx_mul(b, pair, twice), true);
    struct loop_var *middle = define(f, pb, "middle", lx_min(b, lx_add(b, lx_var(b, left), w), a.length), false);
    struct loop_var *end = define(f, pb, "end", lx_min(b, lx_add(b, lx_var(b, left), twice), a.length), false);
    struct loop_var *right = define(f, pb, "right", lx_var(b, middle), true);
    struct loop_var *place = loop_var_new(b, "place", I64, 1);
    struct loop_stmt *merge = loop_for(b, pb, place, lx_mul(b, pair, twice), lx_var(b, end), 1, LOOP_SERIAL);
    at = lx_var(b, place);
    lx l = lx_var(b, left), r = lx_var(b, right), base = lx_mul(b, o, a.length);
    struct loop_var *take = define(f, &merge->body, "from_right", lx_op(b, I_LT, r, lx_var(b, end)), true);
    struct loop_stmt *both =
        loop_if(b, &merge->body, lx_op(b, I_AND, lx_var(b, take), lx_op(b, I_LT, l, lx_var(b, middle))));
    lx element[2];
    for (int side = 0; side < 2; side++) {
        lx position = lx_load(b, order, side ? r : l, 1);
        lx address = lx_add(b, lx_mul(b, lx_add(b, base, position), a.inner), in);
        element[side] = lx_var(b, define(f, &both->body, side ? "b" : "a", lx_load(b, from, address, 1), false));
    }
    loop_set(b, &both->body, take, NULL, goes_before(f, op, element[1], element[0]));
    struct loop_stmt *choose = loop_if(b, &merge->body, lx_var(b, take));
    loop_store(b, &choose->body, merged, at, lx_load(b, order, r, 1));
    loop_set(b, &choose->body, right, NULL, lx_add(b, r, one));
    loop_store(b, &choose->other, merged, at, lx_load(b, order, l, 1));
    loop_set(b, &choose->other, left, NULL, lx_add(b, l, one));
    s = loop_over(f, &level->body, "i", a.length, &i);
    loop_store(b, &s->body, order, i, lx_load(b, merged, i, 1));
    loop_set(b, &level->body, width, NULL, twice);
    s = loop_over(f, body, "i", kept, &i);
    lx target = lx_add(b, lx_mul(b, lx_add(b, lx_mul(b, o, kept), i), a.inner), in);
    lx source = lx_add(b, lx_mul(b, lx_add(b, base, lx_load(b, order, i, 1)), a.inner), in);
    for (int result = 0; result < op->result_count; result++)
        if (function_storage(f, op->results[result]))
            loop_store(b, &s->body, function_mem(f, op->results[result]), target,
                       result ? lx_load(b, order, i, 1) : lx_load(b, from, source, 1));
    function_finish(f, &k);
}

/* ---- random bits -------------------------------------------------------------------------------------------------------- */

static struct loop_var *outside(struct function *f, const char *name, enum dtype t) {
    struct loop_var *v = loop_var_new(f->b, name, t, 1);
    cgen_set_name(f->g, v->id, name);
    return v;
}

struct random {
    struct loop_mem *to;
    int group; /* elements of a block of the generator: words of 32 bits, or pairs of them */
    struct loop_var *stream, *seed;
};

/* Those of the elements lo .. hi of the stream that are in the block at `first`, to where their numbers plus `shift` say. */
static void random_block(struct function *f, struct loop_block *body, const struct random *r, lx first, lx lo, lx hi,
                         lx shift) {
    struct loop_builder *b = f->b;
    enum dtype t = r->to->dtype;
    int64_t value;
    bool whole = lx_is_int(lo, &value) && value == 0;
    struct loop_func *random = ARENA_NEW(b->arena, struct loop_func);
    *random = (struct loop_func){
        .name = r->group == 4 ? "mx_random_u32" : "mx_random_u64", .is_helper = true, .mem_count = 1, .var_count = 3};
    random->mems = ARENA_ARRAY(b->arena, struct loop_mem *, 1);
    random->mems[0] = loop_mem_new(b, "out", t, MEM_PARAM);
    struct loop_mem *words = loop_mem_new(b, "words", t, MEM_LOCAL);
    words->count = r->group;
    words->written = true;
    loop_local(b, body, words);
    struct loop_stmt *c = loop_call(b, body, random);
    c->call_mems[0].mem = words;
    c->call_mems[0].offset = lx_int(b, 0);
    c->call_args[0] = lx_var(b, r->seed);
    c->call_args[1] = lx_var(b, r->stream);
    c->call_args[2] = lx_cast(b, U64, lx_div(b, first, lx_int(b, r->group)));
    struct loop_var *count = define(f, body, "count", lx_min(b, lx_int(b, r->group), lx_sub(b, hi, first)), false);
    struct loop_var *i = loop_var_new(b, "i", I64, 1);
    lx skip = whole ? lx_int(b, 0) : lx_op(b, I_MAX, lx_int(b, 0), lx_sub(b, lo, first));
    struct loop_stmt *each = loop_for(b, body, i, skip, lx_var(b, count), 1, LOOP_SERIAL);
    lx at = lx_add(b, first, lx_var(b, i));
    loop_store(b, &each->body, r->to, whole ? at : lx_add(b, at, shift), lx_load(b, words, lx_var(b, i), 1));
}

static void random_blocks(struct function *f, struct loop_block *k, const struct random *r, lx lo, lx hi, lx shift) {
    struct loop_builder *b = f->b;
    int64_t value;
    lx g = lx_int(b, r->group), from = lx_is_int(lo, &value) && value == 0 ? lo : lx_mul(b, lx_div(b, lo, g), g);
    struct loop_var *first = loop_var_new(b, "first", I64, 1);
    struct loop_stmt *blocks = loop_for(b, k, first, from, hi, r->group, LOOP_SERIAL);
    random_block(f, &blocks->body, r, lx_var(b, first), lo, hi, shift);
}

/* Where a rank's part of the batch lies in the stream of the whole: `parts` stretches of `row` elements here, one in every `behind`
 * times the samples of all ranks there. */
struct batch_part {
    lx parts, behind, row;
    int64_t most; /* parts */
};

/* The first element in the stream of stretch o, and what leads from there to its place here. */
static struct loop_var *stretch(struct function *f, struct loop_block *k, const struct batch_part *p, lx o, lx *shift) {
    struct loop_builder *b = f->b;
    lx samples = lx_add(b, lx_mul(b, o, lx_var(b, outside(f, "m->mx_exchange->total", I64))),
                        lx_var(b, outside(f, "m->mx_exchange->first", I64)));
    struct loop_var *start = define(f, k, "start", lx_mul(b, samples, p->behind), false);
    *shift = lx_sub(b, lx_mul(b, o, p->row), lx_var(b, start));
    return start;
}

/* A GPU's thread has one block of the generator; of a stretch that begins or ends within one, a part of it. */
static void random_threads(struct function *f, struct loop_block *k, struct random *r, lx n, int64_t upper,
                           const struct batch_part *part, lx stream) {
    struct loop_builder *b = f->b;
    int64_t g = r->group;
    lx blocks = part ? lx_add(b, lx_div(b, part->row, lx_int(b, g)), lx_int(b, 2)) : gpu_ceil_div(b, n, g);
    struct gpu_each each = gpu_open_each(b, k, part ? lx_mul(b, part->parts, blocks) : blocks,
                                         (upper + g - 1) / g + 2 * (part ? part->most : 0), "group");
    r->stream = define(f, each.k.body, "stream", stream, false);
    r->seed = define(f, each.k.body, "seed_", lx_var(b, outside(f, "m->seed", U64)), false);
    if (!part) {
        lx first = gpu_named(b, each.body, "first", lx_mul(b, each.at, lx_int(b, g)));
        random_block(f, each.body, r, first, lx_int(b, 0), n, lx_int(b, 0));
    } else {
        lx shift, o = gpu_named(b, each.body, "part", lx_div(b, each.at, blocks));
        struct loop_var *start = stretch(f, each.body, part, o, &shift);
        lx block = lx_add(b, lx_div(b, lx_var(b, start), lx_int(b, g)), lx_op(b, I_MOD, each.at, blocks));
        lx first = gpu_named(b, each.body, "first", lx_mul(b, block, lx_int(b, g)));
        random_block(f, each.body, r, first, lx_var(b, start), lx_add(b, lx_var(b, start), part->row), shift);
    }
    gpu_close_each(&each);
}

static void random_loops(struct function *f, struct loop_block *k, struct random *r, lx n,
                         const struct batch_part *part, lx stream) {
    struct loop_builder *b = f->b;
    r->stream = define(f, k, "stream", stream, false);
    r->seed = define(f, k, "seed_", lx_var(b, outside(f, "m->seed", U64)), false);
    if (!part) {
        random_blocks(f, k, r, lx_int(b, 0), n, lx_int(b, 0));
        return;
    }
    lx o, shift;
    struct loop_stmt *each_part = loop_over(f, k, "part", part->parts, &o);
    struct loop_var *start = stretch(f, &each_part->body, part, o, &shift);
    random_blocks(f, &each_part->body, r, lx_var(b, start), lx_add(b, lx_var(b, start), part->row), shift);
}

void op_rng(struct function *f, struct ir_op *op) {
    struct loop_builder *b = f->b;
    const struct ir_value *y = op->results[0];
    struct loop_block k;
    loop_block_init(&k);
    function_begin(f);
    /* Groups of elements come from one block of the generator. */
    struct random r = {.to = function_mem(f, y), .group = dtype_size(y->type.dtype) == 8 ? 2 : 4};
    lx n = function_elements(f, y->type);
    lx place = lx_const_int(b, U64, op->rng.place), h = lx_call(b, "mx_stream", U64, 1, &place);
    for (int i = 0; i < op->operand_count; i++) {
        lx args[2] = {h, lx_cast(b, I64, function_scalar(f, op->operands[i]))};
        h = lx_call(b, "mx_stream_loop", U64, 2, args);
    }
    lx call[2] = {h, lx_var(b, outside(f, "m->calls", U64))};
    h = lx_call(b, "mx_stream_call", U64, 2, call);
    /* On a rank, this part of the batch draws what it would draw in the whole one, where the batch is an axis of its own;
     * else a stream of its own. */
    ir_dim outer = NULL, inner = NULL;
    const struct step_split *split = function_split(f);
    bool ranks = split && f->func == split->gradients, batch = ranks && exchange_batch(f, y->type, &outer, &inner);
    if (ranks && !batch) {
        lx args[2] = {h, lx_var(b, outside(f, "m->mx_exchange->first", I64))};
        h = lx_call(b, "mx_stream_loop", U64, 2, args);
    }
    struct batch_part part;
    if (batch) {
        part = (struct batch_part){
            .parts = function_dim(f, outer), .behind = function_dim(f, inner), .most = ir_dim_upper(outer)};
        part.row = lx_var(b, define(f, &k, "row", lx_div(b, n, part.parts), false));
    }
    if (f->g->cuda)
        random_threads(f, &k, &r, n, ir_dim_upper(ir_type_elements(f->g->module, y->type)), batch ? &part : NULL, h);
    else
        random_loops(f, &k, &r, n, batch ? &part : NULL, h);
    function_finish(f, &k);
}

/* ---- outside the model ---------------------------------------------------------------------------------------------------- */

static const char *base_of(struct function *f, const struct ir_value *v) {
    struct loop_mem *m = function_mem(f, v);
    if (f->g->cuda && (!m->base || strncmp(m->base, "MX_AT", 5) == 0))
        cuda_stage(f, v, m);
    if (m->kind == MEM_SCALAR)
        return arena_printf(&f->g->arena, "&%s", cgen_name_of(f->g, m->id));
    if (f->g->cuda) /* C++ wants the type */
        return arena_printf(&f->g->arena, "(%s *)%s", cgen_c_type(m->dtype), m->base);
    return m->base ? m->base : cgen_name_of(f->g, m->id);
}

static const char *quoted(struct function *f, const char *s) {
    struct text t = {0};
    for (; *s; s++)
        text_printf(&t, *s == '"' || *s == '\\' ? "\\%c" : *s == '%' ? "%%%%" : *s == '\n' ? "\\n" : "%c", *s);
    const char *r = arena_strdup(&f->g->arena, text_string(&t));
    text_free(&t);
    return r;
}

/* Appends to the line of a print; what does not fit is cut. */
static void append(struct function *f, const char *format, const char *args) {
    cprint_line(&f->print, "%s_mx_append(line, sizeof line, &used, \"%s\"%s%s);", f->g->prefix, format,
                args[0] ? ", " : "", args);
}

static void print_elements(struct function *f, const struct ir_value *v, int d, lx at) {
    struct cprint *p = &f->print;
    enum dtype t = v->type.dtype;
    if (d == v->type.rank) {
        lx e = d ? lx_load(f->b, function_mem(f, v), at, 1) : function_scalar(f, v);
        const char *text = function_expr(f, e);
        if (dtype_is_float(t))
            append(f, "%g", arena_printf(&f->g->arena, "(double)(%s)", text));
        else if (t == BOOL)
            append(f, "%s", arena_printf(&f->g->arena, "(%s) ? \"true\" : \"false\"", text));
        else
            append(
                f, dtype_is_signed(t) ? "%lld" : "%llu",
                arena_printf(&f->g->arena, dtype_is_signed(t) ? "(long long)(%s)" : "(unsigned long long)(%s)", text));
        return;
    }
    struct loop_var *i = loop_var_new(f->b, "i", I64, 1);
    const char *name = cgen_enter_name(f->g, "i");
    cgen_set_name(f->g, i->id, name);
    lx n = function_dim(f, v->type.dims[d]);
    append(f, "[", "");
    cprint_line(p, "for (int64_t %s = 0; %s < %s; %s++) {", name, name, function_expr(f, n), name);
    p->indent++;
    cprint_line(p, "if (%s)", name);
    p->indent++;
    append(f, ", ", "");
    p->indent--;
    print_elements(f, v, d + 1, lx_add(f->b, lx_mul(f->b, at, n), lx_var(f->b, i)));
    p->indent--;
    cprint_line(p, "}");
    append(f, "]", "");
}

/* The longest line there can be, or what it is cut to. */
static int64_t line_bytes(const struct ir_op *op) {
    double n = 2 + (op->name ? (double)strlen(op->name) : 0);
    for (int i = 0; i < op->operand_count; i++) { /* an element has 20 digits at most, then brackets and a comma */
        struct ir_type t = op->operands[i]->type;
        double elements = 1;
        for (int d = 0; d < t.rank; d++)
            elements *= (double)ir_dim_upper(t.dims[d]);
        n += elements * (24 + 4 * t.rank) + 2 * t.rank + 2;
    }
    return n < IR_PRINT_MAX ? (int64_t)n : IR_PRINT_MAX;
}

void op_print(struct function *f, struct ir_op *op) {
    struct cprint *p = &f->print;
    struct cgen *g = f->g;
    char *helper = arena_printf(&g->arena, "static void %s_mx_append(", g->prefix);
    if (!strstr(text_string(&g->helpers), helper))
        text_printf(
            &g->helpers,
            "%schar *line, size_t size, size_t *used, const char *format, ...)\n{\n    va_list args;\n    int n;\n"
            "    if (*used + 1 >= size)\n        return;\n    va_start(args, format);\n"
            "    n = vsnprintf(line + *used, size - *used, format, args);\n    va_end(args);\n"
            "    *used += n > 0 ? (size_t)n : 0;\n}\n\n",
            helper);
    cprint_line(p, "{");
    p->indent++;
    cprint_line(p, "char line[%lld] = \"\";", (long long)line_bytes(op));
    if (op->name && op->name[0])
        cprint_line(p, "size_t used = 0;");
    const char *rest = op->name ? op->name : "", *piece = NULL;
    for (int n, i = 0; (n = ir_print_piece(&rest, &piece)) != 0;) {
        if (n > 0)
            append(f, quoted(f, arena_printf(&g->arena, "%.*s", n, piece)), "");
        if (n > 0 || i == op->operand_count)
            continue;
        const struct ir_value *v = op->operands[i++];
        function_begin(f);
        if (v->type.rank || !(v->op && v->op->code == OP_const))
            function_mem(f, v);
        bool scoped = f->mems.n > 0 && f->mems.at[0].mem->kind == MEM_POINTER && (f->pointers.n > 0 || g->cuda);
        if (scoped) {
            cprint_line(p, "{");
            p->indent++;
            if (g->cuda)
                cuda_stage(f, v, f->mems.at[0].mem);
            cprint_mem(p, f->mems.at[0].mem);
        }
        print_elements(f, v, 0, lx_int(f->b, 0));
        if (scoped) {
            p->indent--;
            cprint_line(p, "}");
        }
        cgen_scope_leave(g, f->scope);
    }
    cprint_line(p, "%s_mx_print(m, line);", g->prefix);
    p->indent--;
    cprint_line(p, "}");
}

void op_extern(struct function *f, struct ir_op *op) {
    struct cgen *g = f->g;
    if (op->external.header) {
        const char *line = arena_printf(
            &g->arena, g->cuda ? "extern \"C\" {\n#include \"%s\"\n}\n" : "#include \"%s\"\n", op->external.header);
        if (!strstr(text_string(&g->helpers), line)) {
            struct text with = {0};
            text_printf(&with, "%s%s", line, text_string(&g->helpers));
            text_free(&g->helpers);
            g->helpers = with;
        }
    }
    function_begin(f);
    struct text call = {0};
    text_printf(&call, "%s(", op->external.symbol);
    for (int i = 0; i < op->external.param_count; i++) {
        int k = op->external.params[i];
        const struct ir_value *v = k >= 0 ? op->operands[k] : op->results[~k];
        text_add(&call, i ? ", " : "");
        if (k >= 0 && v->type.rank == 0) {
            lx e = function_scalar(f, v);
            if (e->kind == LX_LOAD && function_on_device(f, e->mem))
                text_add(&call, cuda_fetch(f, e->mem));
            else if (e->kind == LX_LOAD && e->mem->base)
                text_printf(&call, "*(const %s *)%s", cgen_c_type(v->type.dtype), e->mem->base);
            else
                text_add(&call, function_expr(f, e));
        } else {
            text_add(&call, base_of(f, v));
        }
    }
    text_add(&call, ")");
    if (op->external.returns) {
        struct loop_mem *m = function_mem(f, op->results[0]);
        if (g->cuda)
            cuda_stage(f, op->results[0], m);
        if (m->kind == MEM_SCALAR)
            cprint_line(&f->print, "%s = %s;", cgen_name_of(g, m->id), text_string(&call));
        else
            cprint_line(&f->print, "*(%s *)%s = %s;", cgen_c_type(m->dtype), m->base ? m->base : cgen_name_of(g, m->id),
                        text_string(&call));
    } else {
        cprint_line(&f->print, "%s;", text_string(&call));
    }
    for (int i = 0; g->cuda && i < op->result_count; i++)
        if (function_storage(f, op->results[i]))
            cuda_unstage(f, op->results[i], function_mem(f, op->results[i]));
    text_free(&call);
    cgen_scope_leave(g, f->scope);
}
