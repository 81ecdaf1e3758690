/* Nests: expressions by ranges, one-element constants in place, views of values loaded through, unused operands dropped.
 *
 * A view is a nest whose body is one load (slices, permutations, broadcasts, diagonals). Its consumers load what it reads
 * instead, with the index maps composed: v[f(i)] with v[j] = a[g(j)] becomes a[g(f(i))], `else` included. A consumer's own
 * `else` around a view keeps the view, unless that is the identity: a test beside a guarded load would cost more. */
#include "ir/text.h"
#include "passes/nest_edit.h"
#include "passes/simplify_internal.h"

struct nests {
    struct ir_module *m;
    struct ir_func *f;
    struct arena scratch;
    struct ir_value **map; /* by value id: copies of other values */
    const int *used;
    bool *overwritten; /* by value id: may give its storage to a next version, so no read of it moves down */
    bool replaced, changed;
};

static ir_expr simplify_one(ir_expr e, void *context) {
    struct ir_op *op = context;
    return ir_expr_simplify(op->parent->func->module, &op->nest, op->operands, e);
}

static bool is_order(const struct ir_value *v) {
    return v->op && v->op->code == OP_check && v->type.dtype == BOOL && v->type.rank == 0;
}

/* ---- constants ---------------------------------------------------------------------------------------------------- */

static bool constant_element(struct ir_module *m, const struct ir_value *v, ir_expr *e) {
    const struct ir_op *op = v->op;
    int64_t n;
    if (!op || !ir_dim_is_const(ir_type_elements(m, v->type), &n) || n != 1)
        return false;
    if (op->code == OP_nest && op->result_count == 1 && op->nest.reds == 0 && op->nest.results[0].base < 0 &&
        op->nest.results[0].value->kind == X_CONST) {
        *e = op->nest.results[0].value;
        return true;
    }
    if (op->code != OP_const)
        return false;
    const void *p = op->constant.data;
    switch (v->type.dtype) {
    case F64: *e = ir_const_float(m, F64, *(const double *)p); return true;
    case F32: *e = ir_const_float(m, F32, (double)*(const float *)p); return true;
    case I64: *e = ir_const_int(m, I64, *(const int64_t *)p); return true;
    case I32: *e = ir_const_int(m, I32, *(const int32_t *)p); return true;
    case I16: *e = ir_const_int(m, I16, *(const int16_t *)p); return true;
    case I8: *e = ir_const_int(m, I8, *(const int8_t *)p); return true;
    case U64: *e = ir_const_int(m, U64, (int64_t) * (const uint64_t *)p); return true;
    case U32: *e = ir_const_int(m, U32, *(const uint32_t *)p); return true;
    case U16: *e = ir_const_int(m, U16, *(const uint16_t *)p); return true;
    case U8: *e = ir_const_int(m, U8, *(const uint8_t *)p); return true;
    case BOOL: *e = ir_const_int(m, BOOL, *(const bool *)p); return true;
    default: return false; /* f16, bf16: no decoding here; they stay loads */
    }
}

/* A rank 0 value that is a dimension: its load becomes the dimension itself, which ranges know about. */
static bool dimension_element(const struct ir_value *v, ir_expr *e) {
    const struct ir_op *op = v->op;
    if (!op || op->code != OP_nest || op->nest.pars || op->nest.reds || op->nest.results[v->index].base >= 0)
        return false;
    *e = op->nest.results[v->index].value;
    return (*e)->kind == X_DIM;
}

/* ---- reductions over one element ----------------------------------------------------------------------------------- */

struct unit_reduction {
    const struct ir_acc *accs;
};

static ir_expr only_element(struct ir_rewrite *r, ir_expr original, ir_expr e) {
    struct unit_reduction *u = r->context;
    if (e->kind != X_ACC)
        return NULL;
    const struct ir_acc *a = &u->accs[e->index];
    return a->op == RED_ARGMAX || a->op == RED_ARGMIN ? ir_const_int(r->module, I32, 0) : a->body;
}

/* Reduction indices with one value become that value; a nest left without any reduces no more. */
static bool drop_unit_reductions(struct ir_module *m, struct ir_op *op) {
    struct ir_nest *n = &op->nest;
    int total = n->pars + n->reds, kept = n->pars;
    if (!n->reds)
        return false;
    for (int i = 0; i < n->acc_count; i++) /* a position counts an index over its extent where its bounds vary within */
        for (int k = n->pars; k < total; k++)
            if ((n->accs[i].op == RED_ARGMAX || n->accs[i].op == RED_ARGMIN) && ir_nest_ragged_within(n, k))
                return false;
    ir_expr *index = ARENA_ARRAY(&m->arena, ir_expr, total + 1);
    struct ir_nest_index *indices = ARENA_ARRAY(&m->arena, struct ir_nest_index, total + 1);
    for (int i = 0; i < total; i++) {
        const struct ir_nest_index *x = &n->indices[i];
        if (i >= n->pars && x->lo->kind == X_CONST && x->hi->kind == X_CONST && x->hi->value.i == x->lo->value.i + 1) {
            index[i] = x->lo;
            continue;
        }
        int to = i < n->pars ? i : kept++;
        index[i] = ir_index(m, to);
        indices[to] = *x;
    }
    if (kept == total)
        return false;
    n->indices = indices;
    n->reds = kept - n->pars;
    nest_reindex(op, index);
    if (n->reds)
        return true;
    struct unit_reduction u = {n->accs};
    struct ir_rewrite r = {.module = m, .fn = only_element, .context = &u};
    for (int i = 0; i < op->result_count; i++) /* nest_map made the array anew */
        n->results[i].value = ir_rewrite_expr(&r, n->results[i].value);
    ir_rewrite_free(&r);
    n->acc_count = 0;
    n->accs = NULL;
    return true;
}

/* ---- views -------------------------------------------------------------------------------------------------------- */

static bool is_view(const struct ir_value *v) {
    const struct ir_op *op = v->op;
    if (!op || op->code != OP_nest || op->result_count != 1 || op->nest.reds || op->nest.results[0].base >= 0)
        return false;
    ir_expr e = op->nest.results[0].value;
    double number;
    return e->kind == X_LOAD && (!e->guarded || ir_expr_is_const(e->args[e->count - 1], &number));
}

static bool is_copy(const struct ir_value *v) {
    if (!is_view(v) || v->op->operand_count != 1)
        return false;
    ir_expr e = v->op->nest.results[0].value;
    if (e->guarded || !ir_type_equal(v->op->operands[0]->type, v->type))
        return false;
    for (int i = 0; i < e->count; i++)
        if (!expr_is_own_index(e->args[i], i, v->type.dims[i]))
            return false;
    return true;
}

struct guarded_search {
    int slot;
    bool guarded;
};

static void see_guard(ir_expr e, void *context) {
    struct guarded_search *s = context;
    if (e->kind != X_LOAD || e->index != s->slot)
        return;
    s->guarded |= e->guarded;
    for (int i = 0; i < e->count - e->guarded; i++)
        s->guarded |= e->args[i]->dtype != I64; /* index arithmetic is on i64 */
}

/* Whether loads within the view's own indices (gather by an index tensor) would be computed again for every element of a
 * reduction: then the view stays. */
static bool plain_map(ir_expr load) {
    int rank = load->count - load->guarded;
    for (int i = 0; i < rank; i++) {
        ir_expr e = load->args[i];
        if (e->kind == X_LOAD && e->count == 0)
            continue;
        for (int k = 0; k < e->count; k++)
            if (e->args[k]->kind == X_LOAD && e->args[k]->count > 0)
                return false;
        if (e->kind == X_LOAD)
            return false;
    }
    return true;
}

static bool load_through(struct nests *s, struct ir_op *op, int slot) {
    struct ir_value *v = op->operands[slot];
    struct ir_op *view = v->op;
    ir_expr body = view->nest.results[0].value;
    if (nest_is_base(op, slot) || !nest_loads_slot(op, slot) || !plain_map(body))
        return false;
    if (s->overwritten[view->operands[body->index]->id])
        return false;
    struct guarded_search g = {slot, false};
    nest_walk(op, see_guard, &g);
    if (g.guarded)
        return false;
    int *slots = ARENA_ARRAY(&s->scratch, int, view->operand_count + 1);
    nest_add_operands(op, view, slots);
    nest_inline(op, slot, v->type, nest_subst(s->m, body, NULL, slots, 0, false));
    return true;
}

/* ---- dimensions of one element ---------------------------------------------------------------------------------------- */

static bool is_one(ir_dim d) {
    int64_t n;
    return ir_dim_is_const(d, &n) && n == 1;
}

struct unit_view {
    struct ir_module *m;
    int slot, to_slot;
    struct ir_type from, to; /* the source's, the view's */
    bool fits;
};

static ir_expr load_source(struct unit_view *u, ir_expr e) {
    ir_expr at[NEST_MAX_RANK];
    int d = 0;
    for (int i = 0; i < u->from.rank; i++) {
        while (d < u->to.rank && is_one(u->to.dims[d]) && !is_one(u->from.dims[i]))
            d++;
        at[i] = is_one(u->from.dims[i]) ? ir_const_int(u->m, I64, 0) : e->args[d++];
    }
    return ir_load(u->m, u->to_slot, e->dtype, u->from.rank, at, e->guarded ? e->args[u->to.rank] : NULL);
}

static ir_expr through_unit_view(struct ir_rewrite *r, ir_expr original, ir_expr e) {
    struct unit_view *u = r->context;
    return e->kind == X_LOAD && e->index == u->slot ? load_source(u, e) : NULL;
}

static ir_expr map_unit_view(ir_expr e, void *context) {
    struct unit_view *u = context;
    struct ir_rewrite r = {.module = u->m, .fn = through_unit_view, .context = u};
    ir_expr result = ir_rewrite_expr(&r, e);
    ir_rewrite_free(&r);
    return result;
}

/* A guard must not stand on a dimension that goes. */
static void see_unit_guard(ir_expr e, void *context) {
    struct unit_view *u = context;
    if (e->kind != X_LOAD || e->index != u->slot || !e->guarded)
        return;
    for (int d = 0; d < u->to.rank; d++)
        if (is_one(u->to.dims[d]) && !(e->args[d]->kind == X_CONST && e->args[d]->value.i == 0))
            u->fits = false;
}

/* Loads of a reshape that only adds or drops dimensions of one element load its source. */
static bool load_through_units(struct nests *s, struct ir_op *op, int slot) {
    struct ir_value *v = op->operands[slot], *source;
    if (!v->op || v->op->code != OP_reshape || v->type.rank > NEST_MAX_RANK)
        return false;
    source = v->op->operands[0];
    struct unit_view u = {s->m, slot, 0, source->type, v->type, true};
    if (u.from.rank > NEST_MAX_RANK || s->overwritten[source->id])
        return false;
    int i = 0, d = 0;
    for (;;) {
        while (i < u.from.rank && is_one(u.from.dims[i]))
            i++;
        while (d < u.to.rank && is_one(u.to.dims[d]))
            d++;
        if (i == u.from.rank || d == u.to.rank)
            break;
        if (u.from.dims[i++] != u.to.dims[d++])
            return false;
    }
    if (i < u.from.rank || d < u.to.rank)
        return false;
    nest_walk(op, see_unit_guard, &u);
    if (!u.fits)
        return false;
    u.to_slot = ir_op_add_operand(op, source);
    nest_map(op, map_unit_view, &u);
    return true;
}

/* Where a nest only carries dimensions of one element along (keepdims), its results are made without them and seen through
 * a reshape, so that it meets the nests over the same elements. Not where an operand has the result's shape: an update
 * stays what it updates. Fills stay as they are written, products as their
 * kernels know them. */
static bool drop_unit_dimensions(struct nests *s, struct ir_op *op) {
    struct ir_module *m = s->m;
    struct ir_nest *n = &op->nest;
    int kept = 0;
    for (int p = 0; p < n->pars; p++)
        kept += !is_one(n->indices[p].extent);
    if (kept == n->pars || kept == 0 || !op->operand_count || n->pars > NEST_MAX_RANK || nest_is_contraction(op))
        return false;
    for (int i = 0; i < op->result_count; i++) {
        const struct ir_value *v = op->results[i];
        if (n->results[i].base >= 0 || s->map[v->id] || s->overwritten[v->id])
            return false;
        for (int k = 0; k < op->operand_count; k++) {
            struct ir_type t = op->operands[k]->type, u = v->type;
            bool same = t.rank == u.rank;
            for (int d = 0; d < u.rank && same; d++)
                same = t.dims[d] == u.dims[d];
            if (same)
                return false;
        }
    }
    int total = n->pars + n->reds, to = 0;
    ir_expr *index = ARENA_ARRAY(&m->arena, ir_expr, total + 1);
    ir_dim dims[NEST_MAX_RANK];
    struct ir_nest_index *indices = ARENA_ARRAY(&m->arena, struct ir_nest_index, total + 1);
    for (int i = 0; i < total; i++) {
        if (i < n->pars && is_one(n->indices[i].extent)) {
            index[i] = ir_const_int(m, I64, 0);
            continue;
        }
        if (i < n->pars)
            dims[to] = n->indices[i].extent;
        index[i] = ir_index(m, to);
        indices[to++] = n->indices[i];
    }
    n->indices = indices;
    n->pars = kept;
    nest_reindex(op, index);
    struct ir_builder b = {m, s->f, op->parent, op->next, op->span};
    struct ir_value **old = op->results;
    int count = op->result_count;
    op->results = NULL;
    op->result_count = 0;
    for (int i = 0; i < count; i++) {
        struct ir_value *v = ir_op_result(op, ir_type_make(m, old[i]->type.dtype, kept, dims));
        v->name = old[i]->name;
        v->span = old[i]->span;
    }
    for (int i = 0; i < count; i++) { /* the old value is the view's now */
        struct ir_op *view = ir_op_new(&b, OP_reshape, &op->results[i], 1, 0);
        view->results = arena_copy(&m->arena, &old[i], sizeof *old);
        view->result_count = 1;
        old[i]->op = view;
        old[i]->index = 0;
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------------------------- */

static bool nest_same(const struct ir_nest *a, const struct ir_nest *b, const struct ir_op *op) {
    for (int i = 0; i < a->acc_count; i++)
        if (a->accs[i].body != b->accs[i].body)
            return false;
    for (int i = a->pars; i < a->pars + a->reds; i++)
        if (a->indices[i].lo != b->indices[i].lo || a->indices[i].hi != b->indices[i].hi)
            return false;
    for (int i = 0; i < op->result_count; i++) {
        if (a->results[i].value != b->results[i].value)
            return false;
        if (a->results[i].base >= 0)
            for (int k = 0; k < op->results[i]->type.rank; k++)
                if (a->results[i].target[k] != b->results[i].target[k])
                    return false;
    }
    return true;
}

struct renumbering {
    struct ir_module *m;
    const int *slots;
};

static ir_expr renumber(ir_expr e, void *context) {
    const struct renumbering *r = context;
    return nest_subst(r->m, e, NULL, r->slots, 0, false);
}

/* One slot a value: equal loads become equal expressions. */
static void merge_slots(struct nests *s, struct ir_op *op) {
    int n = op->operand_count;
    int *slots = ARENA_ARRAY(&s->scratch, int, n + 1);
    bool any = false;
    for (int i = 0; i < n; i++) {
        slots[i] = i;
        for (int k = 0; k < i && slots[i] == i; k++)
            if (op->operands[k] == op->operands[i])
                slots[i] = k;
        any |= slots[i] != i;
    }
    if (!any)
        return;
    struct renumbering r = {s->m, slots};
    nest_map(op, renumber, &r);
    for (int i = 0; i < op->result_count; i++)
        if (op->nest.results[i].base >= 0)
            op->nest.results[i].base = slots[op->nest.results[i].base];
    for (int i = n - 1; i >= 0; i--)
        if (slots[i] != i)
            nest_drop_slot(op, i);
    s->changed = true;
}

static void visit(struct ir_op *op, void *context) {
    struct nests *s = context;
    if (op->code != OP_nest)
        return;
    merge_slots(s, op);
    for (int slot = 0; slot < op->operand_count; slot++) {
        struct ir_value *v = op->operands[slot];
        ir_expr e;
        if (nest_is_base(op, slot) || !nest_loads_slot(op, slot))
            continue;
        if (constant_element(s->m, v, &e) || dimension_element(v, &e)) {
            nest_inline(op, slot, v->type, e);
            s->changed = true;
        } else if ((is_view(v) && !is_copy(v) && load_through(s, op, slot)) || load_through_units(s, op, slot)) {
            s->changed = true;
        }
    }
    struct ir_nest before = op->nest;
    nest_map(op, simplify_one, op);
    s->changed |= !nest_same(&before, &op->nest, op);
    s->changed |= drop_unit_reductions(s->m, op);
    for (int i = 1; i < op->result_count; i++) /* equal results: one of them, the other dies */
        for (int k = 0; k < i; k++) {
            const struct ir_nest_result *a = &op->nest.results[k], *b = &op->nest.results[i];
            if (a->base < 0 && b->base < 0 && a->value == b->value && !s->map[op->results[i]->id] &&
                s->used[op->results[i]->id] && ir_type_equal(op->results[i]->type, op->results[k]->type)) {
                s->map[op->results[i]->id] = op->results[k];
                s->replaced = s->changed = true;
                break;
            }
        }
    for (int slot = op->operand_count - 1; slot >= 0; slot--)
        if (!is_order(op->operands[slot]) && !nest_is_base(op, slot) && !nest_loads_slot(op, slot)) {
            nest_drop_slot(op, slot);
            s->changed = true;
        }
    if (!(op->result_count == 1 && is_copy(op->results[0])))
        s->changed |= drop_unit_dimensions(s, op);
    if (op->result_count == 1 && is_copy(op->results[0])) {
        s->map[op->results[0]->id] = op->operands[0];
        s->replaced = true;
    }
}

static void note_overwritten(struct ir_op *op, void *context) {
    bool *overwritten = context;
    if (op->code == OP_nest)
        for (int i = 0; i < op->result_count; i++)
            if (op->nest.results[i].base >= 0)
                overwritten[op->operands[op->nest.results[i].base]->id] = true;
    if (op->code == OP_for || op->code == OP_while)
        for (int i = op->code == OP_for ? 2 : 0; i < op->operand_count; i++)
            overwritten[op->operands[i]->id] = true;
}

void simplify_overwritten(struct ir_func *f, bool *overwritten) {
    ir_walk_ops(f->body, note_overwritten, overwritten);
}

bool simplify_nests(struct ir_func *f) {
    struct nests s = {.m = f->module, .f = f};
    int room = 2 * f->value_count + 1; /* dimensions that go leave a new value beside the old one */
    s.map = ARENA_ARRAY(&s.scratch, struct ir_value *, room);
    s.overwritten = ARENA_ARRAY(&s.scratch, bool, room);
    simplify_overwritten(f, s.overwritten);
    s.used = ir_count_uses(f, &s.scratch);
    ir_walk_ops(f->body, visit, &s);
    if (s.replaced)
        ir_replace_values(f, s.map);
    arena_free(&s.scratch);
    return s.changed;
}
