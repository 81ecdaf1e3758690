/* Dependences of the final order, exact to the element.
 *
 * One walk over each region, in order, with what each piece of memory has seen so far: the reaching writes and the reads
 * since (memory SSA read off the storage: a region's carried values share one, so the phi at its entry is the record that
 * reaches it). A read depends on the reaching writes that may have written an element of it, from the latest back to one
 * that wrote all of it; a write on the reads and writes that share an element with it, likewise. Whether two accesses
 * share an element is decided by integer sets (access.h). Accesses inside a nested region count for the operation that
 * holds it and never end a search, since loops may run no times and branches not at all. A loop's body is walked twice:
 * what the second walk meets of the first are the dependences between iterations.
 *
 * Dimension symbols and the order of outside effects are memory, too. A check may end the call and leave all buffers as
 * they were: it reads every buffer at entry, and so stands before whatever writes one.
 */
#include "passes/mutation/deps.h"

#include <stdlib.h>

#include "passes/mutation/access.h"
#include "passes/mutation/liveness.h"
#include "passes/nest_edit.h"

const char *const dep_kind_names[3] = {"RAW", "WAR", "WAW"};

enum { MAX_TOUCHES = 24 }; /* of one object by an operation with regions, before they count as all of it */

struct touch {
    int object;
    bool write;
    /* A read of what was written before it in this region: nothing from outside reaches it. */
    const struct ir_region *covered;
    struct access access;
    const struct ir_symbol *symbol;
};

struct record {
    int op;
    bool earlier; /* of the iteration before */
    struct touch touch;
};

struct object {
    VEC(struct record) records;
    bool used;
    int count; /* of touches by the operation looked at */
};

struct builder {
    struct deps *d;
    struct arena *arena; /* the result's */
    struct arena scratch;
    const struct plan_func *plan;
    struct ir_func *func;
    VEC(struct dep_op) ops;
    VEC(struct dep) edges;
    VEC(struct touch) touches; /* of all operations; own ones of op i: [first[i], first[i + 1]) */
    int *first;
    struct object *objects;
    int object_count, effects;
    VEC(int) used;       /* objects with records */
    VEC(int) persistent; /* storages that a failed call leaves as they were */
    const struct ir_op *op;
};

/* ---- what an operation touches ------------------------------------------------------------------------------------ */

static int object_of(const struct builder *b, const struct ir_value *v) {
    while (!b->plan->of_value[v->id] && v->op && v->op->code == OP_reshape)
        v = v->op->operands[0];
    const struct storage *s = b->plan->of_value[v->id];
    return s ? s->id : b->plan->storage_count + v->id;
}

static int object_of_symbol(const struct builder *b, const struct ir_symbol *s) {
    return b->plan->storage_count + b->func->value_count + s->id;
}

static void touch(struct builder *b, const struct ir_value *v, const ir_expr *at, bool write) {
    struct access a = {b->op, v, v->type.rank ? at : NULL};
    VEC_PUSH(&b->scratch, b->touches, (struct touch){object_of(b, v), write, NULL, a, NULL});
}

static void touch_object(struct builder *b, int object, bool write, const struct ir_symbol *symbol) {
    VEC_PUSH(&b->scratch, b->touches,
             (struct touch){.object = object, .write = write, .access.op = b->op, .symbol = symbol});
}

static void touch_symbol(const struct ir_symbol *s, void *context) {
    struct builder *b = context;
    if (s->op)
        touch_object(b, object_of_symbol(b, s), false, s);
}

static void touch_loads(ir_expr e, void *context) {
    struct builder *b = context;
    if (e->kind == X_LOAD)
        touch(b, b->op->operands[e->index], e->args, false);
    else if (e->kind == X_DIM)
        ir_dim_symbols(e->dim, touch_symbol, b);
}

static void touch_nest(struct builder *b, const struct ir_op *op) {
    const struct ir_nest *n = &op->nest;
    for (int i = 0; i < n->pars + n->reds; i++)
        ir_dim_symbols(n->indices[i].extent, touch_symbol, b);
    nest_walk(op, touch_loads, b);
    for (int i = 0; i < op->operand_count; i++)
        if (!nest_loads_slot(op, i) && !nest_is_base(op, i))
            touch(b, op->operands[i], NULL, false);
    for (int k = 0; k < op->result_count; k++) {
        const struct ir_nest_result *r = &n->results[k];
        const struct ir_value *base = r->base < 0 ? NULL : op->operands[r->base];
        bool in_place = base && object_of(b, base) == object_of(b, op->results[k]);
        if (base && (!in_place || r->combine == COMBINE_ADD))
            touch(b, base, in_place ? r->target : NULL, false);
    }
    for (int k = 0; k < op->result_count; k++) {
        const struct ir_nest_result *r = &n->results[k];
        bool in_place = r->base >= 0 && object_of(b, op->operands[r->base]) == object_of(b, op->results[k]);
        touch(b, op->results[k], in_place ? r->target : NULL, true);
    }
}

static void touch_op(struct builder *b, const struct ir_op *op) {
    b->op = op;
    for (int i = 0; i < op->result_count; i++)
        for (int d = 0; d < op->results[i]->type.rank; d++)
            ir_dim_symbols(op->results[i]->type.dims[d], touch_symbol, b);
    if (op->code == OP_kernel && op->kernel.limit)
        ir_dim_symbols(op->kernel.limit, touch_symbol, b);
    for (const struct ir_op *x = op->code == OP_rows ? op->regions[0]->first : NULL; x; x = x->next)
        for (int i = 0; i < x->nest.pars + x->nest.reds; i++)
            ir_dim_symbols(x->nest.indices[i].extent, touch_symbol, b);
    if (op_may_fail(op))
        for (int i = 0; i < b->persistent.n; i++)
            touch_object(b, b->persistent.at[i], false, NULL);
    if (ir_optable[op->code].effect == EFFECT_OPAQUE)
        touch_object(b, b->effects, true, NULL);
    switch (op->code) {
    case OP_nest: touch_nest(b, op); return;
    case OP_reshape: return;
    case OP_for:
    case OP_while: /* carried values are where they were */
        for (int i = 0; op->code == OP_for && i < 2; i++)
            touch(b, op->operands[i], NULL, false);
        return;
    case OP_dim: touch_object(b, object_of_symbol(b, op->dim.symbol), true, op->dim.symbol); break;
    default: break;
    }
    for (int i = 0; i < op->operand_count; i++)
        touch(b, op->operands[i], NULL, false);
    for (int i = 0; !op_runs_regions(op) && i < op->result_count; i++)
        touch(b, op->results[i], NULL, true);
}

static void number_ops(struct builder *b, struct ir_region *r, int holder) {
    for (struct ir_op *op = r->first; op; op = op->next) {
        int own = b->ops.n;
        VEC_PUSH(b->arena, b->ops, (struct dep_op){op, holder, 0});
        for (int i = 0; op_runs_regions(op) && i < op->region_count; i++)
            number_ops(b, op->regions[i], own);
        b->ops.at[own].end = b->ops.n;
    }
}

/* ---- edges ---------------------------------------------------------------------------------------------------------- */

struct place { /* where a walk stands */
    struct builder *b;
    const struct ir_region *region;
    int op, first_edge;
    bool again; /* the second walk of a loop */
};

/* A `read` names what a buffer holds at entry: nothing is written where it stands. */
static bool is_entry(const struct builder *b, int op) {
    return b->ops.at[op].op->code == OP_read;
}

static void add_edge(struct place *p, const struct record *from, enum dep_kind kind, const struct touch *what) {
    struct builder *b = p->b;
    const struct storage *s = what->object < b->plan->storage_count ? b->plan->storages[what->object] : NULL;
    struct dep e = {from->op, p->op, kind, from->earlier, s, what->access.value, what->symbol};
    /* A buffer's entry version was there before; a C local is a new one in each iteration, but for what it carries. */
    if (kind != DEP_RAW &&
        ((from->touch.write && is_entry(b, from->op)) || (from->earlier && s && s->kind == STORAGE_SCALAR)))
        return;
    for (int i = p->first_edge; i < b->edges.n; i++) {
        const struct dep *o = &b->edges.at[i];
        if (o->from == e.from && o->kind == kind && o->carried == e.carried && o->storage == s &&
            o->symbol == e.symbol && (s || o->value == e.value))
            return;
    }
    VEC_PUSH(b->arena, b->edges, e);
}

static bool in_region(const struct place *p, const struct ir_op *op) {
    return ir_region_contains(p->region, op->parent);
}

static bool shares_element(const struct place *p, const struct record *r, const struct touch *t) {
    if (!r->touch.access.at || !t->access.at || !in_region(p, r->touch.access.op) || !in_region(p, t->access.op))
        return true;
    return !access_disjoint(r->touch.access, t->access, p->region, r->earlier);
}

/* Whether the record wrote all that t touches, whenever `t` is reached. */
static bool covers(const struct place *p, const struct record *r, const struct touch *t) {
    const struct dep_op *o = &p->b->ops.at[r->op];
    if (!r->touch.write || r->touch.access.op != o->op || (t->write && is_entry(p->b, r->op)))
        return false;
    return !r->touch.access.at || (t->access.at && !r->earlier && in_region(p, t->access.op) &&
                                   access_covers(r->touch.access, t->access, p->region));
}

static void meet(struct place *p, struct touch *t) {
    struct object *o = &p->b->objects[t->object];
    if (!t->access.value && !t->symbol && !t->write) /* a check looks at nothing; it only keeps later writes back */
        return;
    if (t->write && is_entry(p->b, p->op))
        return;
    for (int i = o->records.n - 1; i >= 0; i--) {
        const struct record *r = &o->records.at[i];
        if ((p->again && !r->earlier && !r->touch.write) || (r->op == p->op && !r->earlier))
            continue;
        bool conflict = (r->touch.write || t->write) && shares_element(p, r, t);
        if (conflict && (r->earlier || !p->again))
            add_edge(p, r,
                     !r->touch.write ? DEP_WAR
                     : t->write      ? DEP_WAW
                                     : DEP_RAW,
                     r->touch.write && !t->write ? t : &r->touch);
        if (conflict && covers(p, r, t)) {
            if (!r->earlier && !t->write)
                t->covered = p->region;
            break;
        }
    }
}

static void note(struct place *p, const struct touch *t) {
    struct builder *b = p->b;
    struct object *o = &b->objects[t->object];
    if (!o->used) {
        o->used = true;
        VEC_PUSH(&b->scratch, b->used, t->object);
    }
    if (t->write && !t->access.at && t->access.op == b->ops.at[p->op].op &&
        !is_entry(b, p->op)) { /* nothing behind it is seen any more */
        int kept = 0;
        for (int i = 0; i < o->records.n; i++) /* but other touches of the same operation */
            if (o->records.at[i].op == p->op && o->records.at[i].earlier == false)
                o->records.at[kept++] = o->records.at[i];
        o->records.n = kept;
    }
    VEC_PUSH(&b->scratch, o->records, (struct record){p->op, false, *t});
}

static void walk_op(struct place *p, int op) {
    struct builder *b = p->b;
    int begin = b->first[op], end = b->first[b->ops.at[op].end];
    p->op = op;
    p->first_edge = b->edges.n;
    bool many = end - begin > MAX_TOUCHES && b->ops.at[op].end > op + 1;
    for (int i = begin; many && i < end; i++)
        b->objects[b->touches.at[i].object].count++;
    for (int pass = 0; pass < 2; pass++)
        for (int i = begin; i < end; i++) {
            struct touch *t = &b->touches.at[i];
            if (t->covered && t->covered != p->region)
                continue;
            if (many && b->objects[t->object].count > MAX_TOUCHES)
                t->access.at = NULL;
            if (pass == 0)
                meet(p, t);
            else
                note(p, t);
        }
    for (int i = begin; many && i < end; i++)
        b->objects[b->touches.at[i].object].count = 0;
}

static void forget(struct builder *b) {
    for (int i = 0; i < b->used.n; i++) {
        struct object *o = &b->objects[b->used.at[i]];
        o->records.n = 0;
        o->used = false;
    }
    b->used.n = 0;
}

/* The operations of region r among [begin, end), after those inside them; of a while, r is the body and its condition's
 * come first. */
static void walk_region(struct builder *b, const struct ir_region *r, int begin, int end, bool loop) {
    for (int i = begin; i < end; i = b->ops.at[i].end) {
        const struct ir_op *op = b->ops.at[i].op;
        int inner = i + 1;
        bool is_loop = op->code == OP_for || op->code == OP_while;
        if (is_loop && op_runs_regions(op))
            walk_region(b, op->regions[op->code == OP_for ? 0 : 1], inner, b->ops.at[i].end, true);
        for (int k = 0; !is_loop && op_runs_regions(op) && k < op->region_count; k++) {
            int stop = inner;
            while (stop < b->ops.at[i].end && b->ops.at[stop].op->parent == op->regions[k])
                stop = b->ops.at[stop].end;
            walk_region(b, op->regions[k], inner, stop, false);
            inner = stop;
        }
    }
    struct place p = {.b = b, .region = r};
    for (int again = 0; again <= loop; again++) {
        p.again = again;
        for (int i = begin; i < end; i = b->ops.at[i].end)
            walk_op(&p, i);
        for (int i = 0; i < b->used.n && loop; i++) {
            struct object *o = &b->objects[b->used.at[i]];
            for (int k = 0; k < o->records.n; k++)
                o->records.at[k].earlier = true;
        }
    }
    forget(b);
}

static int compare_edges(const void *a, const void *b) {
    const struct dep *x = a, *y = b;
    int differ[] = {x->to - y->to,
                    x->from - y->from,
                    (int)x->kind - (int)y->kind,
                    x->carried - y->carried,
                    (x->storage ? x->storage->id : -1) - (y->storage ? y->storage->id : -1),
                    (x->value ? x->value->id : -1) - (y->value ? y->value->id : -1),
                    (x->symbol ? x->symbol->id : -1) - (y->symbol ? y->symbol->id : -1)};
    for (size_t i = 0; i < sizeof differ / sizeof *differ; i++)
        if (differ[i])
            return differ[i];
    return 0;
}

/* ---- what changes from outside reach ------------------------------------------------------------------------------- */

struct closure {
    struct builder *b;
    uint64_t *of_value, *of_symbol; /* [][words] */
    int *source_of_symbol;          /* [symbol id]; -1 */
    int words;
    uint64_t *now;
    bool changed;
};

static void join(struct closure *c, uint64_t *into, const uint64_t *from) {
    for (int w = 0; w < c->words; w++) {
        c->changed |= (from[w] & ~into[w]) != 0;
        into[w] |= from[w];
    }
}

static uint64_t *set_of(struct closure *c, const struct ir_value *v) {
    return c->of_value + (size_t)v->id * (size_t)c->words;
}

static void mark(struct closure *c, uint64_t *set, int source) {
    c->changed |= !(set[source / 64] >> (source % 64) & 1);
    set[source / 64] |= (uint64_t)1 << (source % 64);
}

static void join_symbol(const struct ir_symbol *s, void *context) {
    struct closure *c = context;
    if (s->op)
        join(c, c->now, c->of_symbol + (size_t)s->id * (size_t)c->words);
    else if (c->source_of_symbol[s->id] >= 0)
        mark(c, c->now, c->source_of_symbol[s->id]);
}

static void join_expr(ir_expr e, void *context) {
    if (e->kind == X_DIM)
        ir_dim_symbols(e->dim, join_symbol, context);
}

/* An operation with regions counts as one: whatever reaches something inside reaches all that it gives. What stands in
 * a branch also depends on the condition, what stands in a loop on all of the loop. */
static void reach_region(struct closure *c, const struct ir_region *r, int *number, const uint64_t *control) {
    struct deps *d = c->b->d;
    for (const struct ir_op *op = r->first; op; op = op->next) {
        int own = (*number)++;
        uint64_t *set = d->affected + (size_t)own * (size_t)c->words;
        join(c, set, control);
        c->now = set;
        for (int i = 0; i < op->operand_count; i++)
            join(c, set, set_of(c, op->operands[i]));
        for (int i = 0; i < op->result_count; i++)
            for (int k = 0; k < op->results[i]->type.rank; k++)
                ir_dim_symbols(op->results[i]->type.dims[k], join_symbol, c);
        if (op->code == OP_kernel && op->kernel.limit)
            ir_dim_symbols(op->kernel.limit, join_symbol, c);
        for (const struct ir_op *x = op->code == OP_nest   ? op
                                     : op->code == OP_rows ? op->regions[0]->first
                                                           : NULL;
             x; x = x == op ? NULL : x->next) {
            for (int i = 0; i < x->nest.pars + x->nest.reds; i++)
                ir_dim_symbols(x->nest.indices[i].extent, join_symbol, c);
            nest_walk(x, join_expr, c);
        }
        for (int s = 0; s < d->source_count; s++)
            if ((op->code == OP_read && d->sources[s].buffer == op->buffer.buffer) ||
                (op->code == OP_rng && d->sources[s].kind == SOURCE_RANDOM))
                mark(c, set, s);
        if (op->code == OP_dim)
            join(c, c->of_symbol + (size_t)op->dim.symbol->id * (size_t)c->words, set);
        for (int k = 0; op_runs_regions(op) && k < op->region_count; k++) {
            const struct ir_region *inner = op->regions[k];
            for (int i = 0; i < inner->arg_count; i++)
                join(c, set_of(c, inner->args[i]), set);
            int first = *number;
            reach_region(c, inner, number, op->code == OP_if ? set_of(c, op->operands[0]) : set);
            for (int i = first; i < *number; i++)
                join(c, set, d->affected + (size_t)i * (size_t)c->words);
            for (int i = 0; i < inner->yield_count; i++)
                join(c, set, set_of(c, inner->yields[i]));
        }
        for (int i = 0; i < op->result_count; i++)
            join(c, set_of(c, op->results[i]), set);
    }
}

static void find_sources(struct builder *b) {
    struct deps *d = b->d;
    struct ir_func *f = b->func;
    VEC(struct dep_source) sources = {0};
    bool random = false;
    for (int i = 0; i < f->body->arg_count; i++)
        VEC_PUSH(b->arena, sources, (struct dep_source){.kind = SOURCE_ARG, .index = i, .name = f->arg_names[i]});
    for (int i = 0; i < f->symbol_count; i++)
        VEC_PUSH(b->arena, sources,
                 (struct dep_source){.kind = SOURCE_SYMBOL, .index = i, .name = f->symbols[i]->name});
    for (int i = 0; i < b->ops.n; i++) {
        const struct ir_op *op = b->ops.at[i].op;
        random |= op->code == OP_rng;
        if (op->code == OP_read)
            VEC_PUSH(b->arena, sources,
                     (struct dep_source){.kind = SOURCE_BUFFER,
                                         .index = op->buffer.buffer->id,
                                         .buffer = op->buffer.buffer,
                                         .name = op->buffer.buffer->name});
    }
    if (random)
        VEC_PUSH(b->arena, sources, (struct dep_source){.kind = SOURCE_RANDOM, .name = "random"});
    d->sources = sources.at;
    d->source_count = sources.n;
}

static void find_affected(struct builder *b) {
    struct deps *d = b->d;
    struct ir_func *f = b->func;
    struct closure c = {.b = b, .words = d->source_count / 64 + 1};
    size_t words = (size_t)c.words;
    d->words = c.words;
    d->affected = ARENA_ARRAY(b->arena, uint64_t, (size_t)(d->op_count + 1) * words);
    c.of_value = ARENA_ARRAY(&b->scratch, uint64_t, (size_t)(f->value_count + 1) * words);
    c.of_symbol = ARENA_ARRAY(&b->scratch, uint64_t, (size_t)(f->module->symbol_count + 1) * words);
    c.source_of_symbol = ARENA_ARRAY(&b->scratch, int, f->module->symbol_count + 1);
    for (int i = 0; i < f->module->symbol_count; i++)
        c.source_of_symbol[i] = -1;
    for (int s = 0; s < d->source_count; s++) {
        if (d->sources[s].kind == SOURCE_ARG)
            mark(&c, set_of(&c, f->body->args[d->sources[s].index]), s);
        if (d->sources[s].kind == SOURCE_SYMBOL)
            c.source_of_symbol[f->symbols[d->sources[s].index]->id] = s;
    }
    uint64_t *none = ARENA_ARRAY(&b->scratch, uint64_t, words);
    do { /* sets only grow; loops carry them round */
        int number = 0;
        c.changed = false;
        reach_region(&c, f->body, &number, none);
    } while (c.changed);
}

/* ---- entries -------------------------------------------------------------------------------------------------------- */

struct deps *deps_new(const struct plan_func *p, struct arena *a) {
    struct builder b = {.arena = a, .plan = p, .func = p->func};
    struct deps *d = b.d = ARENA_NEW(a, struct deps);
    struct ir_func *f = p->func;
    d->plan = p;
    b.effects = p->storage_count + f->value_count + f->module->symbol_count;
    b.objects = ARENA_ARRAY(&b.scratch, struct object, b.effects + 1);
    for (int i = 0; i < p->storage_count; i++) {
        const struct storage *s = p->storages[i];
        if (s->kind == STORAGE_BUFFER || (s->kind == STORAGE_ARG && f->arg_inout && f->arg_inout[s->index]))
            VEC_PUSH(&b.scratch, b.persistent, i);
    }
    number_ops(&b, f->body, -1);
    d->ops = b.ops.at;
    d->op_count = b.ops.n;
    b.first = ARENA_ARRAY(&b.scratch, int, b.ops.n + 1);
    for (int i = 0; i < b.ops.n; i++) {
        b.first[i] = b.touches.n;
        touch_op(&b, b.ops.at[i].op);
    }
    b.first[b.ops.n] = b.touches.n;
    walk_region(&b, f->body, 0, b.ops.n, false);
    if (b.edges.n)
        qsort(b.edges.at, (size_t)b.edges.n, sizeof *b.edges.at, compare_edges);
    d->edges = b.edges.at;
    d->edge_count = b.edges.n;
    find_sources(&b);
    find_affected(&b);
    arena_free(&b.scratch);
    return d;
}

bool deps_affected(const struct deps *d, int source, int op) {
    return d->affected[(size_t)op * (size_t)d->words + (size_t)(source / 64)] >> (source % 64) & 1;
}
