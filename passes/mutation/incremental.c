/* Incremental functions: which operations run again after a change, and what has to be kept for the others.
 *
 * The dirty set of an operation is what it depends on: the inputs, run-time extents and buffers from which there is a path
 * of uses to it (a forward slice in SSA form: one walk in program order, since regions nest and a loop or branch counts as one
 * operation). Operations with equal dirty sets form a group, which runs as a whole or not at all; the generated function
 * compares versions, finds the groups whose sets hold something new and skips the others. This is self-adjusting computation
 * (Acar, 2005) with the change propagation done by the compiler, at the price of one comparison for each source a call and
 * one test for each stretch of a group.
 *
 * A value that is made in one group and read in another, or handed to the caller, is kept from call to call: it gets memory
 * of its own, and no later operation may work in its place. Inside a group nothing is kept.
 *
 * Exact sets would make a group for each layer's parameters, which is fine; but more than INCREMENTAL_GROUPS are joined, those
 * first that lose least. For fusion they would be too fine: a bias never changes without its weight where the same functions
 * write both, and a product should keep its bias. So fusion asks for sets over classes of buffers that change together.
 */
#include "passes/mutation/incremental.h"

#include <string.h>

#include "passes/nest_edit.h"

struct dirty {
    struct ir_func *func;
    struct arena *arena;
    struct incremental_source *sources;
    int source_count, words;
    int *bit;                   /* [source_count]: its place in a set */
    int *of_symbol, *of_buffer; /* sources; -1 */
    uint64_t *sets;             /* [value_count][words] */
    bool *always;               /* [value_count]: depends on what no version tells */
    uint64_t *now;              /* of the operation that is looked at */
    bool now_always;
};

/* ---- dirty sets --------------------------------------------------------------------------------------------------- */

static void add_source(struct dirty *d, int source) {
    if (source >= 0)
        d->now[d->bit[source] / 64] |= (uint64_t)1 << d->bit[source] % 64;
}

static void add_value(struct dirty *d, const struct ir_value *v) {
    for (int i = 0; i < d->words; i++)
        d->now[i] |= d->sets[(size_t)v->id * (size_t)d->words + (size_t)i];
    d->now_always |= d->always[v->id];
}

static void see_symbol(const struct ir_symbol *s, void *context) {
    struct dirty *d = context;
    if (s->op)
        add_value(d, s->op->operands[0]);
    else
        add_source(d, d->of_symbol[s->id]);
}

static void see_dim(ir_expr e, void *context) {
    if (e->kind == X_DIM)
        ir_dim_symbols(e->dim, see_symbol, context);
}

static void add_type(struct dirty *d, struct ir_type t) {
    for (int i = 0; i < t.rank; i++)
        ir_dim_symbols(t.dims[i], see_symbol, d);
}

/* Everything that an operation and the regions inside it read. */
static void add_op(struct dirty *d, const struct ir_op *op) {
    for (int i = 0; i < op->operand_count; i++)
        add_value(d, op->operands[i]);
    for (int i = 0; i < op->result_count; i++)
        add_type(d, op->results[i]->type);
    switch (op->code) {
    case OP_nest:
        for (int i = 0; i < op->nest.pars + op->nest.reds; i++)
            ir_dim_symbols(op->nest.indices[i].extent, see_symbol, d);
        nest_walk(op, see_dim, d);
        break;
    case OP_sort:
        if (op->sort.limit)
            ir_dim_symbols(op->sort.limit, see_symbol, d);
        break;
    case OP_kernel:
        if (op->kernel.limit)
            ir_dim_symbols(op->kernel.limit, see_symbol, d);
        break;
    case OP_for:
    case OP_while:
        if (op->loop.limit)
            ir_dim_symbols(op->loop.limit, see_symbol, d);
        break;
    case OP_read: add_source(d, d->of_buffer[op->buffer.buffer->id]); break;
    default:
        /* Effects, and what depends on more than operands: random numbers are keyed by the number of calls. */
        d->now_always |= ir_optable[op->code].effect == EFFECT_OPAQUE || op->code == OP_rng || op->code == OP_write;
        break;
    }
    for (int r = 0; r < op->region_count; r++) {
        for (int i = 0; i < op->regions[r]->arg_count; i++)
            add_type(d, op->regions[r]->args[i]->type);
        for (const struct ir_op *inner = op->regions[r]->first; inner; inner = inner->next)
            add_op(d, inner);
        for (int i = 0; i < op->regions[r]->yield_count; i++)
            add_value(d, op->regions[r]->yields[i]);
    }
}

static void note_read(struct ir_op *op, void *context) {
    bool *reads = context;
    if (op->code == OP_read)
        reads[op->buffer.buffer->id] = true;
}

static int add_new_source(struct dirty *d, enum incremental_source_kind kind, int index) {
    d->sources[d->source_count] = (struct incremental_source){.kind = kind, .index = index};
    d->bit[d->source_count] = d->source_count;
    return d->source_count++;
}

static struct dirty dirty_start(struct ir_func *f, struct arena *a) {
    const struct ir_module *m = f->module;
    struct dirty d = {.func = f, .arena = a};
    int most = f->body->arg_count + f->symbol_count + m->buffer_count;
    bool *reads = ARENA_ARRAY(a, bool, m->buffer_count + 1);
    ir_walk_ops(f->body, note_read, reads);
    d.sources = ARENA_ARRAY(a, struct incremental_source, most + 1);
    d.bit = ARENA_ARRAY(a, int, most + 1);
    d.of_symbol = ARENA_ARRAY(a, int, m->symbol_count + 1);
    d.of_buffer = ARENA_ARRAY(a, int, m->buffer_count + 1);
    for (int i = 0; i < f->body->arg_count; i++)
        add_new_source(&d, INCREMENTAL_INPUT, i);
    for (int i = 0; i < m->symbol_count; i++)
        d.of_symbol[i] = -1;
    for (int i = 0; i < f->symbol_count; i++)
        d.of_symbol[f->symbols[i]->id] = add_new_source(&d, INCREMENTAL_EXTENT, i);
    for (int i = 0; i < m->buffer_count; i++)
        d.of_buffer[i] = reads[i] ? add_new_source(&d, INCREMENTAL_BUFFER, i) : -1;
    d.words = d.source_count / 64 + 1;
    return d;
}

/* The sets of the values that the body makes; those inside of regions stay empty. */
static void dirty_walk(struct dirty *d) {
    const struct ir_region *body = d->func->body;
    int n = d->func->value_count + 1;
    d->sets = ARENA_ARRAY(d->arena, uint64_t, (size_t)n * (size_t)d->words);
    d->always = ARENA_ARRAY(d->arena, bool, n);
    d->now = ARENA_ARRAY(d->arena, uint64_t, d->words);
    for (int i = 0; i < body->arg_count; i++) {
        memset(d->now, 0, sizeof *d->now * (size_t)d->words);
        add_source(d, i);
        memcpy(&d->sets[(size_t)body->args[i]->id * (size_t)d->words], d->now, sizeof *d->now * (size_t)d->words);
    }
    for (const struct ir_op *op = body->first; op; op = op->next) {
        memset(d->now, 0, sizeof *d->now * (size_t)d->words);
        d->now_always = false;
        add_op(d, op);
        for (int i = 0; i < op->result_count; i++) {
            int id = op->results[i]->id;
            memcpy(&d->sets[(size_t)id * (size_t)d->words], d->now, sizeof *d->now * (size_t)d->words);
            d->always[id] = d->now_always;
        }
    }
}

/* ---- for fusion --------------------------------------------------------------------------------------------------- */

/* Buffers get the bit of the first that the same functions write. */
static void join_buffers(struct dirty *d) {
    const struct ir_module *m = d->func->module;
    int words = m->func_count / 64 + 1;
    uint64_t *writers = ARENA_ARRAY(d->arena, uint64_t, (size_t)(m->buffer_count + 1) * (size_t)words);
    for (int k = 0; k < m->func_count; k++)
        for (const struct ir_op *op = m->funcs[k]->body->first; op; op = op->next)
            if (op->code == OP_write)
                writers[op->buffer.buffer->id * words + k / 64] |= (uint64_t)1 << k % 64;
    for (int i = 0; i < m->buffer_count; i++)
        for (int j = 0; j < i && d->of_buffer[i] >= 0; j++)
            if (d->of_buffer[j] >= 0 && m->buffers[i]->kind == m->buffers[j]->kind &&
                memcmp(&writers[i * words], &writers[j * words], sizeof *writers * (size_t)words) == 0) {
                d->bit[d->of_buffer[i]] = d->bit[d->of_buffer[j]];
                break;
            }
}

int *incremental_dirty_sets(struct ir_func *f, struct arena *a) {
    struct dirty d = dirty_start(f, a);
    join_buffers(&d);
    dirty_walk(&d);
    int *set = ARENA_ARRAY(a, int, f->value_count + 1);
    VEC(int) firsts = {0}; /* a value of each set */
    size_t size = sizeof *d.sets * (size_t)d.words;
    for (int i = 0; i < f->value_count; i++) {
        int k = 0;
        while (k < firsts.n && (d.always[firsts.at[k]] != d.always[i] ||
                                memcmp(&d.sets[(size_t)i * (size_t)d.words],
                                       &d.sets[(size_t)firsts.at[k] * (size_t)d.words], size) != 0))
            k++;
        if (k == firsts.n)
            VEC_PUSH(a, firsts, i);
        set[i] = k;
    }
    return set;
}

/* ---- the partition ------------------------------------------------------------------------------------------------ */

struct group {
    uint64_t *set;
    int operations, joined; /* joined: the group it went into; -1 */
};

struct partition {
    struct dirty d;
    VEC(struct group) groups;
    int alive;
};

static bool is_view(const struct ir_op *op) {
    return op->code == OP_reshape;
}

/* Operations that only say where something is: they cost nothing and run always. */
static bool is_source(const struct ir_op *op) {
    return op->code == OP_read || op->code == OP_const || op->code == OP_dim || op->code == OP_write;
}

bool incremental_is_operation(const struct ir_op *op) {
    return !is_view(op) && !is_source(op);
}

static int group_of_set(struct partition *p, const struct ir_value *v) {
    const uint64_t *set = &p->d.sets[(size_t)v->id * (size_t)p->d.words];
    size_t size = sizeof *set * (size_t)p->d.words;
    int k = 0;
    while (k < p->groups.n && memcmp(p->groups.at[k].set, set, size) != 0)
        k++;
    if (k == p->groups.n) {
        struct group g = {.set = arena_copy(p->d.arena, set, size), .joined = -1};
        VEC_PUSH(p->d.arena, p->groups, g);
        p->alive++;
    }
    p->groups.at[k].operations++;
    return k;
}

/* How many operations more would run, summed over changes of one source each. */
static int64_t loss(const struct partition *p, const struct group *a, const struct group *b) {
    int64_t n = 0;
    for (int i = 0; i < p->d.words; i++) {
        n += (int64_t)__builtin_popcountll(a->set[i] & ~b->set[i]) * b->operations;
        n += (int64_t)__builtin_popcountll(b->set[i] & ~a->set[i]) * a->operations;
    }
    return n;
}

/* Joins neighbours (by first operation) until few enough are left. */
static void join_groups(struct partition *p) {
    while (p->alive > INCREMENTAL_GROUPS) {
        int before = -1, best = -1, best_before = -1;
        int64_t least = INT64_MAX;
        for (int k = 0; k < p->groups.n; k++) {
            if (p->groups.at[k].joined >= 0)
                continue;
            if (before >= 0) {
                int64_t n = loss(p, &p->groups.at[before], &p->groups.at[k]);
                if (n < least) {
                    least = n;
                    best = k;
                    best_before = before;
                }
            }
            before = k;
        }
        struct group *a = &p->groups.at[best_before], *b = &p->groups.at[best];
        for (int i = 0; i < p->d.words; i++)
            a->set[i] |= b->set[i];
        a->operations += b->operations;
        b->joined = best_before;
        p->alive--;
    }
}

static void set_region(int *group, const struct ir_region *r, int g) {
    for (int i = 0; i < r->arg_count; i++)
        group[r->args[i]->id] = g;
    for (const struct ir_op *op = r->first; op; op = op->next) {
        for (int i = 0; i < op->result_count; i++)
            group[op->results[i]->id] = g;
        for (int i = 0; i < op->region_count; i++)
            set_region(group, op->regions[i], g);
    }
}

struct plan_incremental *incremental_partition(struct ir_func *f, struct arena *keep) {
    struct arena scratch = {0};
    struct partition p = {.d = dirty_start(f, &scratch)};
    struct plan_incremental *inc = ARENA_NEW(keep, struct plan_incremental);
    dirty_walk(&p.d);
    inc->group = ARENA_ARRAY(keep, int, f->value_count + 1);
    for (int i = 0; i < f->value_count; i++)
        inc->group[i] = INCREMENTAL_NONE;
    for (const struct ir_op *op = f->body->first; op; op = op->next) {
        if (is_view(op))
            inc->group[op->results[0]->id] = inc->group[op->operands[0]->id];
        if (!incremental_is_operation(op))
            continue;
        bool always = !op->result_count || p.d.always[op->results[0]->id];
        int g = always ? INCREMENTAL_ALWAYS : group_of_set(&p, op->results[0]);
        for (int i = 0; i < op->result_count; i++)
            inc->group[op->results[i]->id] = g;
        for (int i = 0; i < op->region_count; i++)
            set_region(inc->group, op->regions[i], g);
    }
    join_groups(&p);
    int *number = ARENA_ARRAY(&scratch, int, p.groups.n + 1);
    for (int k = 0; k < p.groups.n; k++)
        number[k] = p.groups.at[k].joined >= 0 ? number[p.groups.at[k].joined] : inc->group_count++;
    for (int i = 0; i < f->value_count; i++)
        if (inc->group[i] >= 0)
            inc->group[i] = number[inc->group[i]];
    inc->source_count = p.d.source_count;
    inc->sources = arena_copy(keep, p.d.sources, sizeof *inc->sources * (size_t)(p.d.source_count + 1));
    for (int s = 0; s < p.d.source_count; s++)
        for (int k = 0; k < p.groups.n; k++)
            if (p.groups.at[k].joined < 0 && p.groups.at[k].set[s / 64] >> s % 64 & 1)
                inc->sources[s].groups |= (uint64_t)1 << number[k];
    arena_free(&scratch);
    return inc;
}

int incremental_group(const struct plan_incremental *inc, const struct ir_op *op) {
    if (!incremental_is_operation(op))
        return INCREMENTAL_NONE;
    return op->result_count ? inc->group[op->results[0]->id] : INCREMENTAL_ALWAYS;
}

/* ---- what is kept ------------------------------------------------------------------------------------------------- */

static void keep_value(const int *group, bool *kept, const struct ir_value *v, int reader) {
    while (v->op && is_view(v->op))
        v = v->op->operands[0];
    if (group[v->id] >= 0 && group[v->id] != reader)
        kept[v->id] = true;
}

static void keep_region(const int *group, bool *kept, const struct ir_region *r, int reader);

static void keep_op(const int *group, bool *kept, const struct ir_op *op, int reader) {
    for (int i = 0; i < op->operand_count; i++)
        keep_value(group, kept, op->operands[i], reader);
    for (int i = 0; i < op->region_count; i++)
        keep_region(group, kept, op->regions[i], reader);
}

static void keep_region(const int *group, bool *kept, const struct ir_region *r, int reader) {
    for (const struct ir_op *op = r->first; op; op = op->next)
        keep_op(group, kept, op, reader);
    for (int i = 0; i < r->yield_count; i++)
        keep_value(group, kept, r->yields[i], reader);
}

bool *incremental_kept(const struct ir_func *f, const int *group, struct arena *a) {
    bool *kept = ARENA_ARRAY(a, bool, f->value_count + 1);
    for (const struct ir_op *op = f->body->first; op; op = op->next)
        if (!is_view(op))
            keep_op(group, kept, op,
                    incremental_is_operation(op) && op->result_count ? group[op->results[0]->id] : INCREMENTAL_ALWAYS);
    for (int i = 0; i < f->body->yield_count; i++)
        keep_value(group, kept, f->body->yields[i], INCREMENTAL_ALWAYS);
    return kept;
}

void incremental_place(struct plan_func *p, struct arena *keep) {
    struct plan_incremental *inc = p->incremental;
    const struct ir_region *body = p->func->body;
    inc->input_offset = ARENA_ARRAY(keep, int64_t, body->arg_count + 1);
    p->cache_bytes = 0;
    for (int i = 0; i < body->arg_count; i++) {
        inc->input_offset[i] = p->cache_bytes;
        p->cache_bytes += (ir_type_bytes_upper(body->args[i]->type) + 63) / 64 * 64;
    }
    inc->input_bytes = p->cache_bytes;
    for (int i = 0; i < p->storage_count; i++)
        if (p->storages[i]->kind == STORAGE_CACHE) {
            p->storages[i]->offset = p->cache_bytes;
            p->cache_bytes += (p->storages[i]->bytes + 63) / 64 * 64;
        }
}
