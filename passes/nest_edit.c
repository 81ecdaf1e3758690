/* Surgery on nests: expressions are immutable and interned, so every change is a rewrite with a memo. */
#include "passes/nest_edit.h"

void nest_walk(const struct ir_op *op, void (*fn)(ir_expr, void *), void *context) {
    const struct ir_nest *n = &op->nest;
    for (int i = n->pars; i < n->pars + n->reds; i++) {
        if (n->indices[i].lo)
            ir_expr_walk(n->indices[i].lo, fn, context);
        if (n->indices[i].hi)
            ir_expr_walk(n->indices[i].hi, fn, context);
    }
    for (int i = 0; i < n->acc_count; i++)
        ir_expr_walk(n->accs[i].body, fn, context);
    for (int i = 0; i < op->result_count; i++) {
        ir_expr_walk(n->results[i].value, fn, context);
        if (n->results[i].base >= 0)
            for (int d = 0; d < op->results[i]->type.rank; d++)
                ir_expr_walk(n->results[i].target[d], fn, context);
    }
}

void nest_map(struct ir_op *op, ir_expr (*fn)(ir_expr, void *), void *context) {
    struct ir_nest *n = &op->nest;
    struct arena *a = &op->parent->func->module->arena;
    int total = n->pars + n->reds;
    if (total)
        n->indices = arena_copy(a, n->indices, sizeof *n->indices * (size_t)total);
    for (int i = n->pars; i < total; i++) {
        if (n->indices[i].lo)
            n->indices[i].lo = fn(n->indices[i].lo, context);
        if (n->indices[i].hi)
            n->indices[i].hi = fn(n->indices[i].hi, context);
    }
    if (n->acc_count)
        n->accs = arena_copy(a, n->accs, sizeof *n->accs * (size_t)n->acc_count);
    for (int i = 0; i < n->acc_count; i++)
        n->accs[i].body = fn(n->accs[i].body, context);
    n->results = arena_copy(a, n->results, sizeof *n->results * (size_t)op->result_count);
    for (int i = 0; i < op->result_count; i++) {
        struct ir_nest_result *r = &n->results[i];
        r->value = fn(r->value, context);
        if (r->base < 0)
            continue;
        int rank = op->results[i]->type.rank;
        ir_expr *target = ARENA_ARRAY(a, ir_expr, rank + 1);
        for (int d = 0; d < rank; d++)
            target[d] = fn(r->target[d], context);
        r->target = target;
    }
}

struct slot_scan {
    int slot;
    bool found;
};

static void see_slot(ir_expr e, void *context) {
    struct slot_scan *s = context;
    s->found |= e->kind == X_LOAD && e->index == s->slot;
}

bool nest_loads_slot(const struct ir_op *op, int slot) {
    struct slot_scan s = {slot, false};
    nest_walk(op, see_slot, &s);
    return s.found;
}

bool op_loads_slot(const struct ir_op *op, int slot) {
    if (op->code == OP_nest)
        return nest_is_base(op, slot) || nest_loads_slot(op, slot);
    if (op->code != OP_rows)
        return true;
    for (const struct ir_op *x = op->regions[0]->first; x; x = x->next)
        for (int i = 0; i < x->operand_count; i++)
            if (x->operands[i] == op->regions[0]->args[slot] && nest_loads_slot(x, i))
                return true;
    return false;
}

bool nest_is_base(const struct ir_op *op, int slot) {
    for (int i = 0; i < op->result_count; i++)
        if (op->nest.results[i].base == slot)
            return true;
    return false;
}

/* ---- rewriting ---------------------------------------------------------------------------------------------------- */

struct subst {
    const ir_expr *index;
    const int *slots;
    int acc_shift;
    bool guard;
};

static ir_expr subst_leaf(struct ir_rewrite *r, ir_expr original, ir_expr e) {
    struct subst *s = r->context;
    if (e->kind == X_INDEX && s->index)
        return s->index[e->index];
    if (e->kind == X_ACC && s->acc_shift)
        return ir_acc(r->module, e->index + s->acc_shift, e->dtype);
    if (e->kind == X_LOAD) {
        int slot = s->slots ? s->slots[e->index] : e->index, rank = e->count - e->guarded;
        ir_expr otherwise = e->guarded ? e->args[rank] : s->guard ? ir_const_number(r->module, e->dtype, 0) : NULL;
        if (slot != e->index || otherwise != (e->guarded ? e->args[rank] : NULL))
            return ir_load(r->module, slot, e->dtype, rank, e->args, otherwise);
    }
    return NULL;
}

ir_expr nest_subst(struct ir_module *m, ir_expr e, const ir_expr *index, const int *slots, int acc_shift, bool guard) {
    struct subst s = {index, slots, acc_shift, guard};
    struct ir_rewrite r = {.module = m, .fn = subst_leaf, .context = &s};
    ir_expr result = ir_rewrite_expr(&r, e);
    ir_rewrite_free(&r);
    return result;
}

struct index_map {
    struct ir_module *m;
    const ir_expr *index;
};

static ir_expr map_index(ir_expr e, void *context) {
    const struct index_map *x = context;
    return nest_subst(x->m, e, x->index, NULL, 0, false);
}

void nest_reindex(struct ir_op *op, const ir_expr *index) {
    struct index_map x = {op->parent->func->module, index};
    nest_map(op, map_index, &x);
}

void nest_add_operands(struct ir_op *op, const struct ir_op *other, int *slots) {
    for (int i = 0; i < other->operand_count; i++)
        slots[i] = ir_op_add_operand(op, other->operands[i]);
}

struct slot_map {
    struct ir_module *m;
    const int *slots;
};

static ir_expr map_slots(ir_expr e, void *context) {
    struct slot_map *s = context;
    return nest_subst(s->m, e, NULL, s->slots, 0, false);
}

void nest_drop_slot(struct ir_op *op, int slot) {
    struct ir_module *m = op->parent->func->module;
    int *slots = ARENA_ARRAY(&m->arena, int, op->operand_count + 1);
    struct ir_value **operands = ARENA_ARRAY(&m->arena, struct ir_value *, op->operand_count + 1);
    for (int i = 0, k = 0; i < op->operand_count; i++) {
        slots[i] = k;
        if (i != slot)
            operands[k++] = op->operands[i];
    }
    if (slot != op->operand_count - 1) {
        struct slot_map map = {m, slots};
        nest_map(op, map_slots, &map);
        for (int i = 0; i < op->result_count; i++)
            if (op->nest.results[i].base >= 0)
                op->nest.results[i].base = slots[op->nest.results[i].base];
    }
    op->operands = operands;
    op->operand_count--;
}

struct inlining {
    struct ir_module *m;
    int slot;
    struct ir_type type;
    ir_expr body;
};

static ir_expr inline_load(struct ir_rewrite *r, ir_expr original, ir_expr e) {
    struct inlining *x = r->context;
    struct ir_module *m = r->module;
    if (e->kind != X_LOAD || e->index != x->slot)
        return NULL;
    ir_expr inside = ir_const_int(m, BOOL, 1), zero = ir_const_int(m, I64, 0), at[NEST_MAX_RANK];
    for (int d = 0; d < x->type.rank; d++) /* a load takes any integer type, an index variable is an i64 */
        at[d] = ir_cast(m, I64, e->args[d]);
    if (!e->guarded)
        return nest_subst(m, x->body, at, NULL, 0, false);
    for (int d = 0; d < x->type.rank; d++) {
        inside = ir_fn2(m, FN_and, inside, ir_fn2(m, FN_le, zero, at[d]));
        inside = ir_fn2(m, FN_and, inside, ir_fn2(m, FN_lt, at[d], ir_dim_expr(m, x->type.dims[d])));
    }
    return ir_fn3(m, FN_where, inside, nest_subst(m, x->body, at, NULL, 0, true), e->args[x->type.rank]);
}

static ir_expr inline_expr(ir_expr e, void *context) {
    struct inlining *x = context;
    struct ir_rewrite r = {.module = x->m, .fn = inline_load, .context = x};
    ir_expr result = ir_rewrite_expr(&r, e);
    ir_rewrite_free(&r);
    return result;
}

void nest_inline(struct ir_op *op, int slot, struct ir_type type, ir_expr body) {
    struct inlining x = {op->parent->func->module, slot, type, body};
    nest_map(op, inline_expr, &x);
}

struct acc_map {
    const int *to; /* by accumulator */
    bool *used;
};

static void see_acc(ir_expr e, void *context) {
    struct acc_map *s = context;
    if (e->kind == X_ACC)
        s->used[e->index] = true;
}

static ir_expr move_acc(struct ir_rewrite *r, ir_expr original, ir_expr e) {
    struct acc_map *s = r->context;
    return e->kind == X_ACC && s->to[e->index] != e->index ? ir_acc(r->module, s->to[e->index], e->dtype) : NULL;
}

void nest_keep_results(struct ir_op *op, const bool *keep) {
    struct ir_module *m = op->parent->func->module;
    struct arena *a = &m->arena;
    struct ir_nest *n = &op->nest;
    struct ir_nest_result *results = ARENA_ARRAY(a, struct ir_nest_result, op->result_count + 1);
    struct ir_value **values = ARENA_ARRAY(a, struct ir_value *, op->result_count + 1);
    struct ir_acc *accs = ARENA_ARRAY(a, struct ir_acc, n->acc_count + 1);
    int *to = ARENA_ARRAY(a, int, n->acc_count + 1), count = 0, kept = 0;
    struct acc_map map = {to, ARENA_ARRAY(a, bool, n->acc_count + 1)};
    for (int i = 0; i < op->result_count; i++) {
        if (!keep[i])
            continue;
        results[count] = n->results[i];
        values[count] = op->results[i];
        values[count]->index = count;
        ir_expr_walk(results[count++].value, see_acc, &map);
    }
    for (int i = 0; i < n->acc_count; i++)
        if (map.used[i]) {
            to[i] = kept;
            accs[kept++] = n->accs[i];
        }
    if (n->acc_count && !kept) { /* a nest that reduces keeps one */
        accs[kept++] = n->accs[0];
    } else if (kept < n->acc_count) {
        struct ir_rewrite r = {.module = m, .fn = move_acc, .context = &map};
        for (int i = 0; i < count; i++)
            results[i].value = ir_rewrite_expr(&r, results[i].value);
        ir_rewrite_free(&r);
    }
    n->results = results;
    n->accs = accs;
    n->acc_count = kept;
    op->results = values;
    op->result_count = count;
}

/* ---- looking ------------------------------------------------------------------------------------------------------ */

static void add_cost(ir_expr e, void *context) {
    int *cost = context;
    bool index = e->dtype == I64;
    if (e->kind == X_CAST)
        *cost += !index;
    if (e->kind != X_FN)
        return;
    switch (e->fn) {
    case FN_add:
    case FN_sub:
    case FN_mul:
    case FN_neg:
    case FN_max:
    case FN_min: *cost += !index; break;
    case FN_div:
    case FN_mod:
    case FN_sqrt: *cost += 4; break;
    case FN_abs:
    case FN_sign:
    case FN_fma:
    case FN_floor:
    case FN_ceil:
    case FN_round:
    case FN_trunc:
    case FN_eq:
    case FN_ne:
    case FN_lt:
    case FN_le:
    case FN_isnan:
    case FN_and:
    case FN_or:
    case FN_not:
    case FN_bitand:
    case FN_bitor:
    case FN_bitxor:
    case FN_bitnot:
    case FN_shl:
    case FN_shr:
    case FN_where: *cost += 1; break;
    default: *cost += 12;
    }
}

int expr_cost(ir_expr e) {
    int cost = 0;
    ir_expr_walk(e, add_cost, &cost);
    return cost;
}

static void count_node(ir_expr e, void *context) {
    ++*(int *)context;
}

int expr_size(ir_expr e) {
    int n = 0;
    ir_expr_walk(e, count_node, &n);
    return n;
}

int nest_size(const struct ir_op *op) {
    int n = 0;
    for (int i = 0; i < op->nest.acc_count; i++)
        n += expr_size(op->nest.accs[i].body);
    for (int i = 0; i < op->result_count; i++)
        n += expr_size(op->nest.results[i].value);
    return n;
}

ir_expr expr_strip_casts(ir_expr e) {
    while (e->kind == X_CAST)
        e = e->args[0];
    return e;
}

bool expr_is_own_index(ir_expr e, int d, ir_dim extent) {
    int64_t n;
    if (e->kind == X_INDEX)
        return e->index == d;
    return e->kind == X_CONST && e->dtype == I64 && e->value.i == 0 && ir_dim_is_const(extent, &n) && n == 1;
}

static void see_index(ir_expr e, void *context) {
    if (e->kind == X_INDEX && e->index < 64)
        *(uint64_t *)context |= (uint64_t)1 << e->index;
}

bool nest_is_contraction(const struct ir_op *op) {
    const struct ir_nest *n = &op->nest;
    if (op->code != OP_nest || n->reds == 0 || n->acc_count != 1 || n->accs[0].op != RED_SUM || n->pars > 60)
        return false;
    ir_expr body = expr_strip_casts(n->accs[0].body);
    if (body->kind != X_FN || body->fn != FN_mul)
        return false;
    for (int k = 0; k < 2; k++) {
        ir_expr x = expr_strip_casts(body->args[k]);
        uint64_t used = 0;
        if (x->kind != X_LOAD)
            return false;
        ir_expr_walk(x, see_index, &used);
        uint64_t all = ((uint64_t)1 << n->pars) - 1;
        if ((used & all) == all)
            return false;
    }
    return true;
}
