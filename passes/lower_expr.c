/* Scalar expressions of a nest to loop IR: subscripts become flat index arithmetic, guards become selects that load only what
 * lies inside, and what several places use or what is invariant in the loops around becomes a register, placed in the block
 * of the outermost loop where it can stand (loads move out of a loop only if that surely runs).
 */
#include <string.h>

#include "passes/lower.h"

struct memo {
    ir_expr e;
    int uses;
    int level;      /* deepest level among its indices */
    int generation; /* of the scope's index mapping when level was computed */
    bool loads;
    lx value; /* the register, valid while its block is */
    int placed, placed_generation;
};

static struct memo *memo_of(struct nest_scope *n, ir_expr e) {
    for (uint32_t h = (uint32_t)e->id * 2654435761u;; h++) {
        struct memo *m = &n->memo[h & (uint32_t)(n->memo_cap - 1)];
        if (m->e == e)
            return m;
        if (!m->e) {
            m->e = e;
            m->generation = -1;
            return m;
        }
    }
}

static void count_nodes(ir_expr e, void *context) {
    ++*(int *)context;
}

static void count_uses(ir_expr e, void *context) {
    struct nest_scope *n = context;
    memo_of(n, e);
    for (int i = 0; i < e->count; i++)
        memo_of(n, e->args[i])->uses++;
}

static void each_root(struct nest_scope *n, void (*fn)(ir_expr, void *), void *context) {
    const struct ir_nest *nest = n->nest;
    for (int i = nest->pars; i < nest->pars + nest->reds; i++) {
        ir_expr_walk(nest->indices[i].lo, fn, context);
        ir_expr_walk(nest->indices[i].hi, fn, context);
    }
    for (int i = 0; i < nest->acc_count; i++)
        ir_expr_walk(nest->accs[i].body, fn, context);
    for (int r = 0; r < n->l->op->result_count; r++) {
        const struct ir_nest_result *result = &nest->results[r];
        ir_expr_walk(result->value, fn, context);
        if (result->base >= 0)
            for (int d = 0; d < n->l->op->results[r]->type.rank; d++)
                ir_expr_walk(result->target[d], fn, context);
    }
}

void nest_scope_init(struct nest_scope *n, struct lower *l) {
    memset(n, 0, sizeof *n);
    n->l = l;
    n->nest = &l->op->nest;
    int nodes = 0;
    each_root(n, count_nodes, &nodes);
    for (n->memo_cap = 64; n->memo_cap < 4 * nodes + 64;)
        n->memo_cap *= 2;
    n->memo = ARENA_ARRAY(l->b->arena, struct memo, n->memo_cap);
    each_root(n, count_uses, n);
    nest_scope_enter(n, 0, l->out, true);
}

void nest_scope_enter(struct nest_scope *n, int depth, struct loop_block *block, bool nonempty) {
    n->depth = depth;
    n->block[depth] = block;
    n->nonempty[depth] = nonempty;
    n->generation[depth] = ++n->next_generation;
}

void nest_scope_set(struct nest_scope *n, int i, lx e, int level) {
    n->index[i] = e;
    n->level[i] = level;
    n->next_generation++;
    for (int k = 0; k < n->memo_cap; k++) /* levels may change; registers made from the old meaning are gone */
        if (n->memo[k].e && n->memo[k].value && (nest_uses(n->memo[k].e) >> i & 1))
            n->memo[k].value = NULL;
}

static void or_uses(ir_expr e, void *context) {
    if (e->kind == X_INDEX)
        *(uint32_t *)context |= 1u << e->index;
}

uint32_t nest_uses(ir_expr e) {
    uint32_t set = 0;
    ir_expr_walk(e, or_uses, &set);
    return set;
}

/* A scalar of the device that the nest does not write is there whatever its readers do: once a thread is enough. */
static bool stays(const struct nest_scope *n, const struct ir_value *v) {
    const struct lower *l = n->l;
    if (v->type.rank)
        return false;
    for (int r = 0; r < l->op->result_count; r++)
        if (l->op->results[r]->type.rank == 0 && l->mem(l->context, l->op->results[r]) == l->mem(l->context, v))
            return false;
    return true;
}

static void find_level(struct nest_scope *n, struct memo *m) {
    if (m->generation == n->next_generation)
        return;
    m->level = 0;
    m->loads = m->e->kind == X_LOAD;
    if (m->loads && n->l->options->target == TARGET_CUDA && stays(n, n->l->op->operands[m->e->index]))
        m->loads = false;
    if (m->e->kind == X_INDEX)
        m->level = n->level[m->e->index];
    if (m->e->kind == X_ACC)
        m->level = n->depth;
    for (int i = 0; i < m->e->count; i++) {
        struct memo *a = memo_of(n, m->e->args[i]);
        find_level(n, a);
        m->level = a->level > m->level ? a->level : m->level;
        m->loads |= a->loads;
    }
    m->generation = n->next_generation;
}

lx nest_dim(struct nest_scope *n, ir_dim d) {
    return lx_dim(n->l->b, d, n->l->symbol, n->l->context);
}

static const char *register_name(const struct nest_scope *n, ir_expr e) {
    if (e->kind == X_LOAD) {
        const char *name = n->l->op->operands[e->index]->name;
        return name ? arena_printf(n->l->b->arena, "%s_at", name) : "x";
    }
    if (e->kind == X_FN)
        return arena_printf(n->l->b->arena, "%s_", scalar_table[e->fn].name);
    return "t";
}

/* The outermost block in which the expression can stand. */
static int place_level(const struct nest_scope *n, const struct memo *m) {
    int at = m->level < n->depth ? m->level : n->depth;
    if (m->loads)
        for (int d = n->depth; d > at; d--)
            if (!n->nonempty[d])
                return d;
    return at;
}

/* A register for `value` of expression m->e in the block at depth `at`. */
static lx place(struct nest_scope *n, struct memo *m, int at, lx value, const char *name) {
    struct loop_var *v = loop_var_new(n->l->b, name, value->dtype, 1);
    loop_def(n->l->b, n->block[at], v, value);
    m->value = lx_var(n->l->b, v);
    m->placed = at;
    m->placed_generation = n->generation[at];
    return m->value;
}

static bool placed(const struct nest_scope *n, const struct memo *m) {
    return m->value && m->placed <= n->depth && m->placed_generation == n->generation[m->placed];
}

void nest_scope_give(struct nest_scope *n, ir_expr e, lx value) {
    struct memo *m = memo_of(n, e);
    m->value = value;
    m->placed = n->depth;
    m->placed_generation = n->generation[n->depth];
}

/* ---- index arithmetic ----------------------------------------------------------------------------------------------- */

static bool not_negative(const struct nest_scope *n, ir_expr e) {
    struct ir_range r = ir_expr_range(n->l->module, n->nest, e);
    return r.known && ir_dim_lower(r.lo) >= 0;
}

lx nest_index(struct nest_scope *n, ir_expr e) {
    struct loop_builder *b = n->l->b;
    static const struct {
        enum scalar_fn fn;
        enum lx_op op;
    } same[] = {{FN_add, I_ADD}, {FN_sub, I_SUB}, {FN_mul, I_MUL}, {FN_max, I_MAX}, {FN_min, I_MIN}};
    switch (e->kind) {
    case X_CONST: return lx_int(b, e->value.i);
    case X_INDEX: return n->index[e->index];
    case X_DIM: return nest_dim(n, e->dim);
    case X_CAST:
        if (dtype_is_int(e->dtype) && dtype_is_int(e->args[0]->dtype) && e->dtype == I64 && e->args[0]->kind != X_LOAD)
            return nest_index(n, e->args[0]);
        break;
    case X_FN:
        if (e->dtype != I64)
            break;
        for (size_t i = 0; i < sizeof same / sizeof *same; i++)
            if (e->fn == same[i].fn)
                return lx_op(b, same[i].op, nest_index(n, e->args[0]), nest_index(n, e->args[1]));
        if (e->fn == FN_neg)
            return lx_mul(b, nest_index(n, e->args[0]), lx_int(b, -1));
        if (e->fn == FN_div || e->fn == FN_mod) {
            struct ir_range r = ir_expr_range(n->l->module, n->nest, e->args[1]);
            bool plain = not_negative(n, e->args[0]) && r.known && ir_dim_lower(r.lo) > 0;
            enum lx_op op = e->fn == FN_div ? (plain ? I_DIV : I_FDIV) : (plain ? I_MOD : I_FMOD);
            return lx_op(b, op, nest_index(n, e->args[0]), nest_index(n, e->args[1]));
        }
        break;
    default: break;
    }
    lx v = nest_value(n, e);
    return v->dtype == I64 ? v : lx_cast(b, I64, v);
}

static lx address_of(struct nest_scope *n, struct ir_type t, const lx *at) {
    struct loop_builder *b = n->l->b;
    lx sum = lx_int(b, 0);
    for (int d = 0; d < t.rank; d++) {
        ir_dim stride = ir_dim_const(n->l->module, 1);
        for (int k = d + 1; k < t.rank; k++)
            stride = ir_dim_mul(n->l->module, stride, t.dims[k]);
        sum = lx_add(b, sum, lx_mul(b, at[d], nest_dim(n, stride)));
    }
    return sum;
}

lx nest_address(struct nest_scope *n, struct ir_type t, const ir_expr *at) {
    lx list[NEST_MAX] = {0};
    for (int d = 0; d < t.rank; d++)
        list[d] = nest_index(n, at[d]);
    return address_of(n, t, list);
}

static lx guarded_load(struct nest_scope *n, ir_expr e, const struct loop_mem *mem, struct ir_type t) {
    struct loop_builder *b = n->l->b;
    lx at[NEST_MAX] = {0}, inside = NULL;
    for (int d = 0; d < t.rank; d++) {
        ir_expr x = e->args[d];
        at[d] = nest_index(n, x);
        if (ir_index_inside(n->l->module, n->nest, x, t.dims[d]) == INSIDE)
            continue;
        struct ir_range r = ir_expr_range(n->l->module, n->nest, x);
        bool below = r.known && ir_dim_lower(r.lo) >= 0, above = r.known && ir_dim_lt(n->l->module, r.hi, t.dims[d]);
        if (below && above)
            continue;
        if (at[d]->kind == LX_OP) { /* named, for it is tested and used */
            struct memo *m = memo_of(n, x);
            find_level(n, m);
            at[d] = placed(n, m) && m->value->dtype == I64 ? m->value : place(n, m, place_level(n, m), at[d], "at");
        }
        if (!below) {
            lx c = lx_op(b, I_LE, lx_int(b, 0), at[d]);
            inside = inside ? lx_op(b, I_AND, inside, c) : c;
        }
        if (!above) {
            lx c = lx_op(b, I_LT, at[d], nest_dim(n, t.dims[d]));
            inside = inside ? lx_op(b, I_AND, inside, c) : c;
        }
    }
    lx load = lx_load(b, mem, address_of(n, t, at), 1);
    return inside ? lx_select(b, inside, load, nest_value(n, e->args[t.rank])) : load;
}

/* ---- values --------------------------------------------------------------------------------------------------------- */

static bool index_like(const struct nest_scope *n, ir_expr e) {
    if (e->dtype != I64 || e->kind == X_LOAD || e->kind == X_ACC)
        return false;
    struct ir_range r = ir_expr_range(n->l->module, n->nest, e);
    return r.known && ir_dim_lower(r.lo) > -(INT64_C(1) << 52) && ir_dim_upper(r.hi) < INT64_C(1) << 52;
}

static lx force(struct nest_scope *n, ir_expr e);

/* A load that surely is inside: it may as well happen whether or not its value is selected, which lets loops be vectorized. */
static void force_loads(struct nest_scope *n, ir_expr e) {
    if (e->kind == X_LOAD) {
        const struct ir_type t = n->l->op->operands[e->index]->type;
        bool inside = !e->guarded;
        for (int d = 0; d < t.rank && inside; d++)
            inside = ir_index_inside(n->l->module, n->nest, e->args[d], t.dims[d]) == INSIDE;
        if (inside)
            force(n, e);
        return;
    }
    for (int i = 0; i < e->count; i++)
        force_loads(n, e->args[i]);
}

/* A comparison of i64 that fits i32, one side being an i32: in i32, beside which 4-byte data vectorize. */
static lx narrow_comparison(struct nest_scope *n, ir_expr e) {
    if (e->count != 2 || e->dtype != BOOL || e->args[0]->dtype != I64)
        return NULL;
    lx sides[2];
    for (int i = 0; i < 2; i++) {
        ir_expr x = e->args[i];
        struct ir_range r = ir_expr_range(n->l->module, n->nest, x);
        bool fits = r.known && ir_dim_lower(r.lo) >= INT32_MIN && ir_dim_upper(r.hi) <= INT32_MAX;
        bool cast = x->kind == X_CAST && x->args[0]->dtype == I32;
        if (!cast && !(fits && e->args[1 - i]->kind == X_CAST && e->args[1 - i]->args[0]->dtype == I32))
            return NULL;
        sides[i] = cast ? nest_value(n, x->args[0]) : lx_cast(n->l->b, I32, nest_value(n, x));
    }
    return lx_fn2(n->l->b, e->fn, sides[0], sides[1]);
}

static lx compute(struct nest_scope *n, ir_expr e) {
    struct loop_builder *b = n->l->b;
    lx args[3];
    switch (e->kind) {
    case X_CONST:
        return dtype_is_float(e->dtype) ? lx_const_float(b, e->dtype, e->value.f)
                                        : lx_const_int(b, e->dtype, e->value.i);
    case X_INDEX:
    case X_DIM: return nest_index(n, e);
    case X_ACC: return n->acc[e->index];
    case X_LOAD: {
        const struct ir_value *v = n->l->op->operands[e->index];
        const struct loop_mem *mem = n->l->mem(n->l->context, v);
        if (e->guarded)
            return guarded_load(n, e, mem, v->type);
        return lx_load(b, mem, nest_address(n, v->type, e->args), 1);
    }
    case X_CAST: return lx_cast(b, e->dtype, nest_value(n, e->args[0]));
    case X_BITCAST: return lx_bitcast(b, e->dtype, nest_value(n, e->args[0]));
    case X_FN:
        if (e->fn != FN_where && index_like(n, e) &&
            (e->fn == FN_add || e->fn == FN_sub || e->fn == FN_mul || e->fn == FN_div || e->fn == FN_mod))
            return nest_index(n, e);
        if (e->fn == FN_where) {
            force_loads(n, e->args[1]);
            force_loads(n, e->args[2]);
        }
        lx narrow = narrow_comparison(n, e);
        if (narrow)
            return narrow;
        for (int i = 0; i < e->count; i++)
            args[i] = nest_value(n, e->args[i]);
        if (e->fn == FN_fma && (e->dtype == F32 || e->dtype == F64))
            return lx_fma(b, args[0], args[1], args[2]);
        return lx_fn(b, e->fn, e->dtype, e->count, args);
    }
    return NULL;
}

lx nest_value(struct nest_scope *n, ir_expr e) {
    if (e->kind == X_CONST || e->kind == X_INDEX || e->kind == X_DIM || e->kind == X_ACC)
        return compute(n, e);
    struct memo *m = memo_of(n, e);
    if (placed(n, m))
        return m->value;
    find_level(n, m);
    if (m->uses <= 1 && place_level(n, m) >= n->depth)
        return compute(n, e);
    return force(n, e); /* computed where it will stand, so that its parts land there or further out */
}

/* The value in a register. */
static lx force(struct nest_scope *n, ir_expr e) {
    struct memo *m = memo_of(n, e);
    if (placed(n, m))
        return m->value;
    find_level(n, m);
    int depth = n->depth, at = place_level(n, m);
    n->depth = at;
    lx v = compute(n, e);
    n->depth = depth;
    return place(n, m, at, v, register_name(n, e));
}

/* ---- results -------------------------------------------------------------------------------------------------------- */

void nest_store(struct nest_scope *n, int result, lx value) {
    struct lower *l = n->l;
    const struct ir_nest_result *r = &n->nest->results[result];
    const struct ir_value *v = l->op->results[result];
    struct loop_mem *mem = l->mem(l->context, v);
    lx at[NEST_MAX] = {0}, address;
    if (r->base < 0) {
        for (int d = 0; d < v->type.rank; d++)
            at[d] = n->index[d];
        address = address_of(n, v->type, at);
    } else {
        address = nest_address(n, v->type, r->target);
        if (r->combine == COMBINE_ADD)
            value = v->type.dtype == BOOL ? lx_fn2(l->b, FN_or, lx_load(l->b, mem, address, 1), value)
                                          : lx_fn2(l->b, FN_add, lx_load(l->b, mem, address, 1), value);
    }
    loop_store(l->b, n->block[n->depth], mem, address, value);
}

/* ---- facts about nests ------------------------------------------------------------------------------------------------ */

bool nest_stride(struct lower *l, ir_expr load, int i, int64_t *stride) {
    const struct ir_nest *nest = &l->op->nest;
    const struct ir_value *v = l->op->operands[load->index];
    ir_dim total = ir_dim_const(l->module, 0), coefficients[NEST_MAX], constant, factor = ir_dim_const(l->module, 1);
    for (int d = v->type.rank; d-- > 0;) {
        if (nest_uses(load->args[d]) >> i & 1) {
            if (!ir_expr_affine(l->module, load->args[d], nest->pars + nest->reds, coefficients, &constant))
                return false;
            total = ir_dim_add(l->module, total, ir_dim_mul(l->module, coefficients[i], factor));
        }
        factor = ir_dim_mul(l->module, factor, v->type.dims[d]);
    }
    return ir_dim_is_const(total, stride);
}

static void count_flops(ir_expr e, void *context) {
    if (e->kind == X_FN && dtype_is_float(e->dtype) && e->fn != FN_where)
        *(int64_t *)context += e->fn == FN_fma ? 2 : 1;
}

int64_t nest_flops(const struct ir_nest *nest, int results) {
    int64_t inner = 0, outer = 0;
    double pars = 1, reds = 1;
    for (int i = 0; i < nest->acc_count; i++) {
        ir_expr_walk(nest->accs[i].body, count_flops, &inner);
        inner += dtype_is_float(nest->accs[i].body->dtype);
    }
    for (int i = 0; i < results; i++) {
        ir_expr_walk(nest->results[i].value, count_flops, &outer);
        outer += nest->results[i].base >= 0 && nest->results[i].combine == COMBINE_ADD;
    }
    for (int i = 0; i < nest->pars + nest->reds; i++)
        *(i < nest->pars ? &pars : &reds) *= (double)ir_dim_upper(nest->indices[i].extent);
    double total = pars * (reds * (double)inner + (double)outer);
    return total < 9e18 ? (int64_t)total : INT64_MAX;
}

int64_t lower_tasks(const struct lower *l, int64_t extent, double work) {
    if (!l->options->threads || work < 5e4 || extent < 2)
        return 1;
    int64_t tasks = extent < 16 ? extent : 16;
    double fair = work / 2.5e4; /* a task should outweigh its dispatch, a few microseconds */
    return fair < (double)tasks ? (int64_t)fair : tasks;
}
