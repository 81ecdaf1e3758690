/* Softmax and normalisation in one pass: for a GPU, nests that go over the same rows become one operation `rows`, whose kernel gives a
 * row to a thread, a warp or a block. Which operators the nests come from plays no part: a reduction makes a number for each row, nests
 * that read it at their own row follow it (further reductions, and elementwise nests that spread over the row), and so on; an
 * elementwise nest whose result is reduced goes before. What only they read needs no memory: a number is a register, elements of a
 * row lie in shared memory, or are computed again where a row is too long for that.
 *
 * The pass goes through a region in stretches that products, loops, checks and the like end: nests far apart would keep values alive
 * that memory planning wants to make anew. Each nest begins as a group of its own and is joined with the groups that it reads, if
 * the loads between them stay within the row (rows_members.c) and if no path leads from the joined group through other operations
 * back into it. For that, each value knows the groups that it depends on directly, as bits, and each group those of its members; a walk
 * over groups does the rest. Then the stretch is put into a topological order of groups and other operations.
 *
 * Merging loops at code generation instead, behind the memory plan, would find the intermediate values planned, and memory given to
 * other values in the middle of a group.
 */
#include "passes/rows.h"

#include <stdlib.h>
#include <string.h>

#include "passes/gpu_nest.h"
#include "passes/nest_edit.h"

enum {
    MAX_UNITS = 63, /* of a stretch that may be joined: bits of a set */
    MAX_SIZE = 600, /* expression nodes */
    MAX_OPERANDS = 32,
    MAX_RESULTS = 12,
    MAX_ACCUMULATORS = 8, /* of a nest */
    SHARED_BYTES = 24576, /* for elements of rows */
    SIBLINGS = 4,         /* groups looked back at for reductions of the same operand */
};
#define AFTER_UPDATE ((uint64_t)1 << 63) /* depends on a version that was made within the stretch */

struct unit { /* of a stretch: a group, or an operation that cannot be in one */
    struct rows_member members[ROWS_MAX_MEMBERS];
    int places[ROWS_MAX_MEMBERS]; /* of members, in the stretch */
    int count;
    uint64_t bits;  /* its own; 0: it cannot be joined */
    uint64_t needs; /* the units that its operands come from, itself aside */
    int rows;       /* indices of the rows; -1: there is no reduction yet */
    enum rows_by by;
    const struct ir_op *seed; /* a reduction */
    int first, last;          /* places, once it is complete */
    bool is_update, visited;
};

struct grouping {
    struct ir_module *module;
    struct ir_func *func;
    struct arena arena;
    struct unit **of; /* [value_count]: the unit of the stretch that makes it; NULL: made before */
    uint64_t *needs;  /* [value_count] made by operations that cannot be joined: the units that they depend on */
    int *uses, value_count;
    bool *is_version;                   /* [value_count]: a buffer, an inout argument or a loop holds it next */
    VEC(struct unit *) units, joinable; /* joinable: by bit; some point to the same */
    VEC(struct ir_op *) ops;            /* of the stretch */
    bool changed;
};

/* ---- questions ---------------------------------------------------------------------------------------------------- */

static void see_made_symbol(const struct ir_symbol *s, void *context) {
    *(bool *)context |= s->op != NULL;
}

static void see_made_dim(ir_expr e, void *context) {
    if (e->kind == X_DIM)
        ir_dim_symbols(e->dim, see_made_symbol, context);
}

/* Whether an operation makes a later version of something, whose memory it is to take. */
static bool is_update(const struct grouping *g, const struct ir_op *op) {
    bool found = false;
    for (int i = 0; i < op->result_count; i++)
        found |= g->is_version[op->results[i]->id] || (op->code == OP_nest && op->nest.results[i].base >= 0);
    return found;
}

/* No product, of sizes that are known where the function begins. */
static bool may_join(const struct ir_op *op) {
    const struct ir_nest *n = &op->nest;
    bool made = false;
    if (op->code != OP_nest || !n->pars || n->pars + n->reds > ROWS_MAX_INDICES || n->acc_count > MAX_ACCUMULATORS ||
        nest_is_contraction(op) || !gpu_nest_is_rectangle(n))
        return false;
    for (int i = 0; i < n->pars + n->reds; i++)
        ir_dim_symbols(n->indices[i].extent, see_made_symbol, &made);
    nest_walk(op, see_made_dim, &made);
    return !made;
}

/* Whether operations may move past it: it computes and does not much. */
static bool is_light(const struct ir_op *op) {
    switch (op->code) {
    case OP_nest: return !nest_is_contraction(op);
    case OP_const:
    case OP_reshape:
    case OP_stop: return true;
    default: return false;
    }
}

static bool small_enough(const struct unit *u) {
    int size = 0, operands = 0, results = 0;
    for (int i = 0; i < u->count; i++) {
        const struct ir_op *op = u->members[i].op;
        size += nest_size(op);
        operands += op->operand_count;
        results += op->result_count;
    }
    return size <= MAX_SIZE && operands <= 2 * MAX_OPERANDS && results <= MAX_RESULTS;
}

/* ---- dependences -------------------------------------------------------------------------------------------------- */

/* What a value from outside of `within` depends on in the stretch. */
static uint64_t sources_of(const struct grouping *g, const struct ir_value *v, uint64_t within) {
    const struct unit *u = v->id < g->value_count ? g->of[v->id] : NULL;
    if (!u || (u->bits & within))
        return 0;
    return u->bits ? u->bits : g->needs[v->id];
}

static uint64_t needs_of(const struct grouping *g, const struct ir_op *op, uint64_t within) {
    uint64_t set = 0;
    for (int i = 0; i < op->operand_count; i++)
        set |= sources_of(g, op->operands[i], within);
    return set;
}

static uint64_t closure(const struct grouping *g, uint64_t set) {
    for (uint64_t before = 0; before != set;) {
        before = set;
        for (int i = 0; i < g->joinable.n; i++)
            if (set >> i & 1)
                set |= g->joinable.at[i]->needs;
    }
    return set;
}

/* ---- joining ------------------------------------------------------------------------------------------------------ */

static bool same_rows(const struct unit *a, const struct unit *b) {
    const struct ir_nest *x = &a->seed->nest, *y = &b->seed->nest;
    if (a->rows != b->rows || a->by != b->by)
        return false;
    for (int i = 0; i < a->rows; i++)
        if (x->indices[i].extent != y->indices[i].extent)
            return false;
    return true;
}

static bool join(struct grouping *g, struct unit *a, struct unit *b) {
    const struct unit *rows = a->rows >= 0 ? a : b;
    struct unit u = {.bits = a->bits | b->bits, .rows = rows->rows, .by = rows->by, .seed = rows->seed};
    if (rows->rows < 0 || (a->rows >= 0 && b->rows >= 0 && !same_rows(a, b)) || a->count + b->count > ROWS_MAX_MEMBERS)
        return false;
    for (int i = 0, k = 0; i < a->count || k < b->count; u.count++) {
        bool first = k == b->count || (i < a->count && a->places[i] < b->places[k]);
        u.members[u.count] = (struct rows_member){.op = first ? a->members[i].op : b->members[k].op, .rows = u.rows};
        u.places[u.count] = first ? a->places[i++] : b->places[k++];
        if (!rows_match(u.members, u.count, &u.members[u.count]))
            return false;
        u.needs |= needs_of(g, u.members[u.count].op, u.bits);
    }
    if (!small_enough(&u) || (closure(g, u.needs) & (u.bits | AFTER_UPDATE)))
        return false;
    *a = u;
    b->count = 0;
    for (int i = 0; i < g->joinable.n; i++)
        if (u.bits >> i & 1)
            g->joinable.at[i] = a;
    for (int i = 0; i < u.count; i++)
        for (int k = 0; k < u.members[i].op->result_count; k++)
            g->of[u.members[i].op->results[k]->id] = a;
    return true;
}

static bool share_operand(const struct unit *u, const struct ir_op *op) {
    for (int i = 0; i < u->count; i++)
        for (int k = 0; k < u->members[i].op->operand_count; k++)
            for (int j = 0; j < op->operand_count; j++)
                if (op->operands[j]->type.rank && u->members[i].op->operands[k] == op->operands[j])
                    return true;
    return false;
}

static void add(struct grouping *g, struct ir_op *op) {
    struct unit *u = ARENA_NEW(&g->arena, struct unit);
    *u = (struct unit){.count = 1, .rows = -1, .is_update = is_update(g, op)};
    bool joins = !u->is_update && may_join(op);
    u->members[0] = (struct rows_member){.op = op};
    u->places[0] = g->ops.n;
    VEC_PUSH(&g->arena, g->ops, op);
    VEC_PUSH(&g->arena, g->units, u);
    if (joins && op->nest.reds) {
        enum gpu_schedule s = gpu_reduction_schedule(g->module, op);
        joins = s != GPU_IN_PARTS && s != GPU_IN_PARTS_BY_BLOCKS;
        u->by = s == GPU_BY_THREADS ? ROWS_BY_THREADS : s == GPU_BY_WARPS ? ROWS_BY_WARPS : ROWS_BY_BLOCKS;
        u->rows = op->nest.pars;
        u->seed = op;
    }
    u->needs = needs_of(g, op, 0);
    if (joins) {
        u->bits = (uint64_t)1 << g->joinable.n;
        VEC_PUSH(&g->arena, g->joinable, u);
    }
    for (int i = 0; i < op->result_count; i++) {
        g->of[op->results[i]->id] = u;
        g->needs[op->results[i]->id] = u->needs | (u->is_update ? AFTER_UPDATE : 0);
    }
    if (!joins)
        return;
    for (int i = 0; i < op->operand_count; i++) {
        struct unit *w = g->of[op->operands[i]->id];
        if (w && w->bits && w != u && join(g, w, u))
            u = w;
    }
    for (int i = g->joinable.n - 1, seen = 0; i >= 0 && seen < SIBLINGS && op->nest.reds; i--) {
        struct unit *w = g->joinable.at[i];
        if (w == u || w->rows < 0)
            continue;
        seen++;
        if (share_operand(w, op) && join(g, w, u))
            u = w;
    }
}

/* ---- values inside ------------------------------------------------------------------------------------------------ */

/* Uses of a value by other operations than the members. */
static bool leaves(const struct grouping *g, const struct unit *u, const struct ir_value *v) {
    int inner = 0;
    for (int i = 0; i < u->count; i++)
        for (int k = 0; k < u->members[i].op->operand_count; k++)
            inner += u->members[i].op->operands[k] == v;
    return g->uses[v->id] > inner;
}

/* Shared memory for an element of every row that a block has at a time. */
static double shared_bytes(const struct unit *u, const struct rows_member *x, const struct ir_value *v) {
    int list[ROWS_MAX_INDICES], count = rows_elements(x, list);
    double bytes = dtype_size(v->type.dtype);
    for (int i = 0; i < count; i++)
        bytes *= (double)ir_dim_upper(x->op->nest.indices[list[i]].extent);
    return bytes * (u->by == ROWS_BY_THREADS ? GPU_THREADS : u->by == ROWS_BY_WARPS ? GPU_THREADS / GPU_WARP : 1);
}

/* Computes result k of member i again in all members that read it; false if that would be too much. */
static bool recompute(struct grouping *g, struct unit *u, int i, int k) {
    struct ir_op *from = u->members[i].op;
    struct ir_value *v = from->results[k];
    ir_expr body = from->nest.results[k].value;
    int added = 0;
    for (int q = i + 1; q < u->count; q++)
        for (int s = 0; s < u->members[q].op->operand_count; s++)
            if (u->members[q].op->operands[s] == v) {
                if (u->members[q].op->operand_count + from->operand_count > MAX_OPERANDS)
                    return false;
                added += expr_size(body);
            }
    for (int q = 0; q < u->count; q++)
        added += nest_size(u->members[q].op);
    if (added > MAX_SIZE)
        return false;
    for (int q = i + 1; q < u->count; q++) {
        struct ir_op *op = u->members[q].op;
        int s = 0;
        while (s < op->operand_count && op->operands[s] != v)
            s++;
        if (s == op->operand_count)
            continue;
        int *slots = ARENA_ARRAY(&g->arena, int, from->operand_count + 1);
        nest_add_operands(op, from, slots);
        nest_inline(op, s, v->type, nest_subst(g->module, body, NULL, slots, 0, false));
        nest_drop_slot(op, s);
    }
    return true;
}

/* Which results leave the group; elements that do not fit shared memory are computed again, or leave it, too. */
static void settle_values(struct grouping *g, struct unit *u, bool (*yielded)[MAX_RESULTS]) {
    double shared = 0;
    for (int i = 0; i < u->count; i++) {
        struct ir_op *op = u->members[i].op;
        bool keep[MAX_RESULTS], any = false;
        for (int k = 0; k < op->result_count; k++) {
            const struct ir_value *v = op->results[k];
            yielded[i][k] = leaves(g, u, v);
            keep[k] = true;
            if (yielded[i][k] || rows_has_number(&u->members[i])) {
                any = true;
                continue;
            }
            double bytes = shared_bytes(u, &u->members[i], v);
            if (shared + bytes <= SHARED_BYTES)
                shared += bytes;
            else if (recompute(g, u, i, k))
                keep[k] = false;
            else
                yielded[i][k] = true;
            any |= keep[k];
        }
        int n = 0;
        for (int k = 0; k < op->result_count; k++)
            if (keep[k])
                yielded[i][n++] = yielded[i][k];
        if (any) {
            nest_keep_results(op, keep);
            continue;
        }
        ir_op_remove(op);
        u->count--;
        memmove(&u->members[i], &u->members[i + 1], sizeof u->members[0] * (size_t)(u->count - i));
        memmove(&u->places[i], &u->places[i + 1], sizeof u->places[0] * (size_t)(u->count - i));
        i--;
    }
}

/* ---- the operation ------------------------------------------------------------------------------------------------ */

/* An inner value in the place of one that becomes the operation's result. */
static struct ir_value *stand_in(struct grouping *g, struct ir_value *v) {
    struct ir_value *inner = ARENA_NEW(&g->module->arena, struct ir_value);
    *inner = *v;
    inner->id = g->func->value_count++;
    return inner;
}

static void build(struct grouping *g, struct unit *u) {
    bool yielded[ROWS_MAX_MEMBERS][MAX_RESULTS] = {{0}};
    settle_values(g, u, yielded);
    struct ir_op *last = u->members[u->count - 1].op;
    struct ir_builder b = {
        .module = g->module, .func = g->func, .region = last->parent, .before = last, .span = last->span};
    struct ir_op *rows = ir_op_new(&b, OP_rows, NULL, 0, 1);
    struct ir_region *r = rows->regions[0];
    rows->rows.by = u->by;
    struct arena *arena = &g->module->arena;
    VEC(struct ir_value *) yields = {0};
    VEC(struct ir_value *) results = {0};
    for (int i = 0; i < u->count; i++) {
        struct ir_op *op = u->members[i].op;
        struct ir_value **operands = ARENA_ARRAY(arena, struct ir_value *, op->operand_count + 1);
        for (int k = 0; k < op->operand_count; k++) {
            struct ir_value *v = op->operands[k];
            int slot = 0;
            while (slot < results.n && results.at[slot] != v)
                slot++;
            if (slot < results.n) {
                operands[k] = yields.at[slot];
            } else if (v->op && v->op->parent == r) {
                operands[k] = v;
            } else {
                slot = ir_op_add_operand(rows, v);
                operands[k] = slot == r->arg_count ? ir_region_arg(r, v->type, v->name) : r->args[slot];
            }
        }
        op->operands = operands;
        ir_op_move(op, r, NULL);
        struct ir_value **made = ARENA_ARRAY(arena, struct ir_value *, op->result_count + 1);
        for (int k = 0; k < op->result_count; k++) {
            struct ir_value *v = made[k] = op->results[k];
            if (!yielded[i][k])
                continue;
            made[k] = stand_in(g, v);
            made[k]->index = k;
            VEC_PUSH(&g->arena, yields, made[k]);
            VEC_PUSH(arena, results, v);
        }
        op->results = made;
    }
    ir_region_yield(r, yields.at, yields.n);
    rows->results = results.at;
    rows->result_count = results.n;
    for (int k = 0; k < results.n; k++) {
        results.at[k]->op = rows;
        results.at[k]->index = k;
    }
    u->members[0].op = rows;
    u->count = 1;
    g->changed = true;
}

/* ---- order ---------------------------------------------------------------------------------------------------------- */

static int compare_last(const void *a, const void *b) {
    return (*(struct unit *const *)a)->last - (*(struct unit *const *)b)->last;
}

static void visit(struct grouping *g, struct unit *u, struct ir_region *r, struct ir_op *end) {
    struct ir_op *op = u->members[0].op;
    if (u->visited)
        return;
    u->visited = true;
    for (int i = 0; i < op->operand_count; i++)
        if (op->operands[i]->id < g->value_count && g->of[op->operands[i]->id])
            visit(g, g->of[op->operands[i]->id], r, end);
    /* What an update overwrites is read before. No group depends on an update, so this closes no circle. */
    for (int i = 0; u->is_update && i < g->units.n; i++)
        if (g->units.at[i]->count && g->units.at[i]->bits && g->units.at[i]->first < u->first)
            visit(g, g->units.at[i], r, end);
    ir_op_move(op, r, end);
}

/* Ends the stretch in front of `end`, NULL: at the region's end. */
static void close(struct grouping *g, struct ir_region *r, struct ir_op *end) {
    bool built = false;
    int n = 0;
    for (int i = 0; i < g->units.n; i++) {
        struct unit *u = g->units.at[i];
        if (!u->count)
            continue;
        u->first = u->places[0];
        u->last = u->places[u->count - 1];
        if (u->count > 1) {
            build(g, u);
            built = true;
        }
        g->units.at[n++] = u;
    }
    g->units.n = n;
    if (built) {
        qsort(g->units.at, (size_t)n, sizeof *g->units.at, compare_last);
        for (int i = 0; i < n; i++)
            visit(g, g->units.at[i], r, end);
    }
    for (int i = 0; i < g->ops.n; i++)
        for (int k = 0; k < g->ops.at[i]->result_count; k++)
            if (g->ops.at[i]->results[k]->id < g->value_count)
                g->of[g->ops.at[i]->results[k]->id] = NULL;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < g->units.at[i]->members[0].op->result_count; k++)
            g->of[g->units.at[i]->members[0].op->results[k]->id] = NULL;
    g->units.n = g->joinable.n = g->ops.n = 0;
}

static void group_region(struct grouping *g, struct ir_region *r) {
    for (struct ir_op *op = r->first, *next; op; op = next) {
        next = op->next;
        if (!is_light(op) || g->joinable.n == MAX_UNITS)
            close(g, r, op);
        if (is_light(op)) {
            add(g, op);
            continue;
        }
        for (int i = 0; i < op->region_count && op->code != OP_kernel; i++)
            group_region(g, op->regions[i]);
    }
    close(g, r, NULL);
}

static void note_version(struct grouping *g, const struct ir_value *v) {
    g->is_version[v->id] = true;
    if (v->op && v->op->code == OP_reshape)
        note_version(g, v->op->operands[0]);
}

static void note_versions(struct ir_op *op, void *context) {
    struct grouping *g = context;
    if (op->code == OP_write)
        note_version(g, op->operands[0]);
    for (int r = 0; (op->code == OP_for || op->code == OP_while) && r < op->region_count; r++)
        for (int i = 0; i < op->regions[r]->yield_count; i++)
            note_version(g, op->regions[r]->yields[i]);
}

static bool group_func(struct ir_module *m, struct ir_func *f) {
    struct grouping g = {.module = m, .func = f, .value_count = f->value_count};
    g.of = ARENA_ARRAY(&g.arena, struct unit *, f->value_count + 1);
    g.needs = ARENA_ARRAY(&g.arena, uint64_t, f->value_count + 1);
    g.uses = ir_count_uses(f, &g.arena);
    g.is_version = ARENA_ARRAY(&g.arena, bool, f->value_count + 1);
    ir_walk_ops(f->body, note_versions, &g);
    for (int i = f->result_count; i < f->body->yield_count; i++)
        note_version(&g, f->body->yields[i]);
    group_region(&g, f->body);
    arena_free(&g.arena);
    return g.changed;
}

bool pass_rows(struct pass_context *c) {
    bool changed = false;
    if (c->options->target != TARGET_CUDA)
        return false;
    for (int i = 0; i < c->module->func_count;
         i++) /* what of an incremental function runs again is decided by operations */
        if (!c->module->funcs[i]->is_incremental)
            changed |= group_func(c->module, c->module->funcs[i]);
    return changed;
}
