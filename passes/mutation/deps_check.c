/* The check of the dependences, apart from what derives them: no reaching writes, no cut-off at covering ones. In each region,
 * any two operations that touch an element of the same memory, one of them writing, must be joined by a path of
 * dependences in their order; around a loop, also by a path that passes from one iteration to a later one. Whether
 * two accesses share an element is the one question asked of the same code (access.h, which has its own tests).
 */
#include <stdarg.h>
#include <stdlib.h>

#include "passes/mutation/access.h"
#include "passes/mutation/deps.h"
#include "passes/mutation/liveness.h"
#include "passes/nest_edit.h"

struct use {
    int op; /* the operation of the region looked at, itself or around it */
    bool write;
    struct access access;
};

struct checker {
    const struct deps *d;
    const struct plan_func *plan;
    struct text *why;
    struct arena arena; /* of the region looked at */
    bool ok;
    const struct ir_region *region;
    VEC(struct use) * uses; /* [storage_count] */
    int op;
    const struct ir_op *leaf;
};

static void fail(struct checker *c, const char *format, ...) {
    if (!c->ok)
        return;
    c->ok = false;
    va_list args;
    text_printf(c->why, "dependences of %s: ", c->plan->func->name);
    va_start(args, format);
    text_vprintf(c->why, format, args);
    va_end(args);
    text_add(c->why, "\n");
}

static void use_storage(struct checker *c, const struct storage *s, const struct ir_value *v, const ir_expr *at,
                        bool write) {
    if (!s)
        return;
    struct use u = {c->op, write, {c->leaf, v, v && v->type.rank ? at : NULL}};
    VEC_PUSH(&c->arena, c->uses[s->id], u);
}

static void use_load(ir_expr e, void *context) {
    struct checker *c = context;
    if (e->kind == X_LOAD) {
        const struct ir_value *v = c->leaf->operands[e->index];
        use_storage(c, c->plan->of_value[v->id], v, e->args, false);
    }
}

/* All uses of memory by an operation and whatever is inside it. */
static void gather(struct checker *c, const struct ir_op *op) {
    const struct storage *const *of = (const struct storage *const *)c->plan->of_value;
    c->leaf = op;
    for (int i = 0; op_may_fail(op) && i < c->plan->storage_count; i++) {
        const struct storage *s = c->plan->storages[i];
        if (s->kind == STORAGE_BUFFER || (s->kind == STORAGE_ARG && c->plan->func->arg_inout[s->index]))
            use_storage(c, s, NULL, NULL, false);
    }
    if (op_runs_regions(op)) {
        int bounds = op->code == OP_for ? 2 : op->code == OP_if ? 1 : 0;
        for (int i = 0; i < bounds; i++)
            use_storage(c, of[op->operands[i]->id], op->operands[i], NULL, false);
        for (int k = 0; k < op->region_count; k++)
            for (const struct ir_op *x = op->regions[k]->first; x; x = x->next)
                gather(c, x);
        return;
    }
    if (op->code == OP_reshape)
        return;
    if (op->code == OP_nest)
        nest_walk(op, use_load, c);
    for (int i = 0; op->code != OP_nest && i < op->operand_count; i++)
        use_storage(c, of[op->operands[i]->id], op->operands[i], NULL, false);
    for (int k = 0; k < op->result_count; k++) {
        const ir_expr *target =
            op->code == OP_nest && op->nest.results[k].base >= 0 ? op->nest.results[k].target : NULL;
        use_storage(c, of[op->results[k]->id], op->results[k], target, true);
    }
}

/* reach[from * words ..]: bits of what non-carried edges lead to from there, itself included. Edges lead forward. */
static uint64_t *reachable(struct checker *c, const int *members, const int *place, int n, int words) {
    uint64_t *reach = ARENA_ARRAY(&c->arena, uint64_t, (size_t)(n + 1) * (size_t)words);
    const struct deps *d = c->d;
    for (int i = n - 1; i >= 0; i--)
        reach[(size_t)i * (size_t)words + (size_t)(i / 64)] |= (uint64_t)1 << (i % 64);
    for (int e = d->edge_count - 1; e >= 0; e--) { /* sorted by `to`: whatever leaves `to` was seen before */
        const struct dep *x = &d->edges[e];
        if (x->carried || place[x->from] < 0 || place[x->to] < 0 || members[place[x->from]] != x->from)
            continue;
        uint64_t *from = reach + (size_t)place[x->from] * (size_t)words;
        const uint64_t *to = reach + (size_t)place[x->to] * (size_t)words;
        for (int w = 0; w < words; w++)
            from[w] |= to[w];
    }
    return reach;
}

static bool bit(const uint64_t *set, int words, int row, int i) {
    return set[(size_t)row * (size_t)words + (size_t)(i / 64)] >> (i % 64) & 1;
}

static bool conflict(const struct checker *c, const struct use *a, const struct use *b, bool carried) {
    if ((!a->write && !b->write) || !b->access.value || a->access.op->code == OP_read || b->access.op->code == OP_read)
        return false; /* what a buffer holds at entry was there before */
    bool inside = a->access.value && b->access.value && ir_region_contains(c->region, a->access.op->parent) &&
                  ir_region_contains(c->region, b->access.op->parent);
    return !inside || !access_disjoint(a->access, b->access, c->region, carried);
}

/* Operations [begin, end) of a region, or of both of a while; place[] gives their positions. */
static void check_level(struct checker *c, const struct ir_region *r, int begin, int end, bool loop, int *place) {
    const struct deps *d = c->d;
    int n = 0;
    for (int i = begin; i < end; i = d->ops[i].end)
        n++;
    int *members = ARENA_ARRAY(&c->arena, int, n + 1), words = n / 64 + 1;
    c->uses = arena_alloc(&c->arena, sizeof *c->uses * (size_t)(c->plan->storage_count + 1));
    c->region = r;
    n = 0;
    for (int i = begin; i < end; i = d->ops[i].end) {
        members[n] = i;
        place[i] = n++;
        c->op = i;
        gather(c, d->ops[i].op);
    }
    uint64_t *reach = reachable(c, members, place, n, words);
    /* later[a]: what a path with one step to a later iteration leads to */
    uint64_t *later = ARENA_ARRAY(&c->arena, uint64_t, (size_t)(n + 1) * (size_t)words);
    for (int e = 0; loop && e < d->edge_count; e++) {
        const struct dep *x = &d->edges[e];
        if (!x->carried || place[x->from] < 0 || place[x->to] < 0)
            continue;
        for (int a = 0; a < n; a++)
            for (int w = 0; w < words && bit(reach, words, a, place[x->from]); w++)
                later[(size_t)a * (size_t)words + (size_t)w] |= reach[(size_t)place[x->to] * (size_t)words + (size_t)w];
    }
    for (int s = 0; s < c->plan->storage_count && c->ok; s++)
        for (int i = 0; i < c->uses[s].n && c->ok; i++)
            for (int k = 0; k < c->uses[s].n && c->ok; k++) {
                const struct use *a = &c->uses[s].at[i], *b = &c->uses[s].at[k];
                int pa = place[a->op], pb = place[b->op];
                const char *name = c->plan->storages[s]->name ? c->plan->storages[s]->name : "?";
                if (pa < pb && !bit(reach, words, pa, pb) && conflict(c, a, b, false))
                    fail(c, "nothing orders operation %d before %d, which share elements of %s", a->op, b->op, name);
                if (loop && c->plan->storages[s]->kind != STORAGE_SCALAR && !bit(later, words, pa, pb) &&
                    conflict(c, a, b, true))
                    fail(c, "nothing orders operation %d before %d of a later iteration, which share elements of %s",
                         a->op, b->op, name);
            }
    for (int i = 0; i < n; i++)
        place[members[i]] = -1;
    arena_free(&c->arena);
}

bool deps_check(const struct deps *d, struct text *why) {
    struct checker c = {.d = d, .plan = d->plan, .why = why, .ok = true};
    int *place = malloc(sizeof *place * (size_t)(d->op_count + 1));
    if (!place)
        abort();
    for (int i = 0; i < d->op_count; i++)
        place[i] = -1;
    for (int e = 0; e < d->edge_count; e++) {
        const struct dep *x = &d->edges[e];
        if (d->ops[x->from].holder != d->ops[x->to].holder || (!x->carried && x->from >= x->to))
            fail(&c, "operation %d depends on %d, which does not stand before it", x->to, x->from);
    }
    if (c.ok)
        check_level(&c, d->plan->func->body, 0, d->op_count, false, place);
    for (int i = 0; i < d->op_count && c.ok; i++) {
        const struct ir_op *op = d->ops[i].op;
        if (!op_runs_regions(op))
            continue;
        if (op->code == OP_for || op->code == OP_while) {
            check_level(&c, op->regions[op->code == OP_for ? 0 : 1], i + 1, d->ops[i].end, true, place);
            continue;
        }
        for (int k = 0, at = i + 1, stop; k < op->region_count && c.ok; k++, at = stop) {
            for (stop = at; stop < d->ops[i].end && d->ops[stop].op->parent == op->regions[k];)
                stop = d->ops[stop].end;
            check_level(&c, op->regions[k], at, stop, false, place);
        }
    }
    free(place);
    return c.ok;
}
