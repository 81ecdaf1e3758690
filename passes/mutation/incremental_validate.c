/* The independent check of an incremental function's plan: it is called on paper, again and again, with one source changed each
 * time.
 *
 * Every value has a token for the content that it ought to have: it stays while nothing that the value is computed from has
 * changed. Every storage has the token of what it does hold. A call begins with the caches as they were left and everything else
 * unknown; operations of groups that the plan runs read (their storages must hold the right tokens) and write, the others are
 * passed over. At the end the results must hold what they ought to. So a dependence that the partition lost, a kept value that
 * somebody works over, and one that was not kept at all are all found the same way.
 *
 * Nothing of the partition's own dirty sets is used.
 */
#include "passes/mutation/incremental.h"

#include <stdarg.h>
#include <string.h>

#include "passes/nest_edit.h"

enum { UNTOLD = 0 };

struct reads {
    int *at; /* tokens */
    int n, cap;
};

struct paper {
    const struct plan_func *p;
    const struct ir_func *f;
    struct text *why;
    bool ok;
    struct arena arena;
    int *token;       /* [value_count] */
    int *holds;       /* [storage_count] */
    int *extent;      /* [module symbols]: tokens of run-time dimensions */
    int *buffer;      /* [buffer_count] */
    int *input;       /* [arg_count] */
    struct reads *of; /* [value_count] by an operation's first result: what it read in the call before */
    int next;
    uint64_t run; /* groups of this call */
    struct reads now;
    const struct ir_op *op;
};

static void fail(struct paper *v, const char *format, ...) {
    va_list args;
    if (!v->ok)
        return;
    v->ok = false;
    text_printf(v->why, "plan of %s: ", v->f->name);
    va_start(args, format);
    text_vprintf(v->why, format, args);
    va_end(args);
    text_add(v->why, "\n");
}

static bool overlap(const struct storage *a, const struct storage *b) {
    return a != b && a->kind == b->kind && (a->kind == STORAGE_ARENA || a->kind == STORAGE_CACHE) &&
           a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

static void put(struct paper *v, const struct storage *s, int token) {
    if (!s || v->holds[s->id] == token)
        return;
    v->holds[s->id] = token;
    for (int i = 0; i < v->p->storage_count; i++)
        if (overlap(v->p->storages[i], s))
            v->holds[i] = UNTOLD;
}

/* ---- what an operation reads -------------------------------------------------------------------------------------- */

static bool runs(const struct paper *v, const struct ir_op *op) {
    int g = incremental_group(v->p->incremental, op);
    return g < 0 || v->run >> g & 1;
}

static void read_value(struct paper *v, const struct ir_value *x, bool loaded) {
    const struct ir_region *home = x->op ? x->op->parent : x->region;
    if (home->op) /* of a region inside the operation */
        return;
    VEC_PUSH(&v->arena, v->now, v->token[x->id]);
    const struct storage *s = v->p->of_value[x->id];
    if (loaded && s && runs(v, v->op) && v->holds[s->id] != v->token[x->id])
        fail(v, "value %%%d%s%s is read by `%s`, but its memory does not hold it in this call", x->id,
             x->name ? " " : "", x->name ? x->name : "", ir_optable[v->op->code].name);
}

static void read_symbol(const struct ir_symbol *s, void *context) {
    struct paper *v = context;
    if (s->op && s->op->parent->op)
        return;
    VEC_PUSH(&v->arena, v->now, s->op ? v->token[s->op->operands[0]->id] : v->extent[s->id]);
}

static void read_dim(ir_expr e, void *context) {
    if (e->kind == X_DIM)
        ir_dim_symbols(e->dim, read_symbol, context);
}

static void read_region(struct paper *v, const struct ir_region *r);

static void read_op(struct paper *v, const struct ir_op *op) {
    for (int i = 0; i < op->operand_count; i++)
        read_value(v, op->operands[i], op->code != OP_nest || nest_is_base(op, i) || nest_loads_slot(op, i));
    for (int i = 0; i < op->result_count; i++)
        for (int d = 0; d < op->results[i]->type.rank; d++)
            ir_dim_symbols(op->results[i]->type.dims[d], read_symbol, v);
    if (op->code == OP_kernel && op->kernel.limit)
        ir_dim_symbols(op->kernel.limit, read_symbol, v);
    if (op->code == OP_nest) {
        nest_walk(op, read_dim, v);
        for (int i = 0; i < op->nest.pars + op->nest.reds; i++)
            ir_dim_symbols(op->nest.indices[i].extent, read_symbol, v);
    }
    if (op->code == OP_read)
        VEC_PUSH(&v->arena, v->now, v->buffer[op->buffer.buffer->id]);
    if (op->code == OP_rng || ir_optable[op->code].effect == EFFECT_OPAQUE) /* sees more than its operands */
        VEC_PUSH(&v->arena, v->now, v->next++);
    for (int i = 0; i < op->region_count; i++)
        read_region(v, op->regions[i]);
}

static void read_region(struct paper *v, const struct ir_region *r) {
    for (const struct ir_op *op = r->first; op; op = op->next)
        read_op(v, op);
    for (int i = 0; i < r->yield_count; i++)
        read_value(v, r->yields[i], true);
}

/* ---- what it writes ----------------------------------------------------------------------------------------------- */

static void spoil_region(struct paper *v, const struct ir_region *r) {
    for (int i = 0; i < r->arg_count; i++)
        put(v, v->p->of_value[r->args[i]->id], UNTOLD);
    for (const struct ir_op *op = r->first; op; op = op->next) {
        for (int i = 0; i < op->result_count; i++)
            put(v, v->p->of_value[op->results[i]->id], UNTOLD);
        for (int i = 0; i < op->region_count; i++)
            spoil_region(v, op->regions[i]);
    }
}

static void operation(struct paper *v, const struct ir_op *op) {
    v->op = op;
    if (op->code == OP_reshape) {
        v->token[op->results[0]->id] = v->token[op->operands[0]->id];
        return;
    }
    v->now = (struct reads){0};
    read_op(v, op);
    if (!op->result_count)
        return;
    struct reads *before = &v->of[op->results[0]->id];
    bool same = before->at && before->n == v->now.n &&
                (!v->now.n || memcmp(before->at, v->now.at, sizeof *v->now.at * (size_t)v->now.n) == 0);
    if (!v->now.at)
        v->now.at = ARENA_NEW(&v->arena, int);
    *before = v->now;
    for (int i = 0; i < op->result_count; i++)
        if (!same)
            v->token[op->results[i]->id] = v->next++;
    if (op->code == OP_read) {
        int id = op->results[0]->id;
        const struct storage *s = v->p->of_value[id];
        v->token[id] = v->buffer[op->buffer.buffer->id];
        if (s && s->kind == STORAGE_BUFFER)
            v->holds[s->id] = v->token[id];
        return;
    }
    if (!runs(v, op))
        return;
    for (int i = 0; i < op->region_count; i++)
        spoil_region(v, op->regions[i]);
    for (int i = 0; i < op->result_count; i++)
        put(v, v->p->of_value[op->results[i]->id], v->token[op->results[i]->id]);
}

static void call(struct paper *v) {
    for (int i = 0; i < v->p->storage_count; i++)
        if (v->p->storages[i]->kind != STORAGE_CACHE)
            v->holds[i] = UNTOLD;
    for (int i = 0; i < v->f->body->arg_count; i++) {
        const struct storage *s = v->p->of_value[v->f->body->args[i]->id];
        v->token[v->f->body->args[i]->id] = v->input[i];
        if (s)
            v->holds[s->id] = v->input[i];
    }
    for (const struct ir_op *op = v->f->body->first; op && v->ok; op = op->next)
        operation(v, op);
    for (int i = 0; i < v->f->result_count && v->ok; i++) {
        const struct ir_value *x = v->f->body->yields[i];
        const struct storage *s = v->p->of_value[x->id];
        if (!s || v->holds[s->id] != v->token[x->id])
            fail(v, "result %d is not what it ought to be", i);
    }
}

static void check_cache(struct paper *v) {
    const struct plan_incremental *inc = v->p->incremental;
    for (int i = 0; i < v->p->storage_count && v->ok; i++) {
        const struct storage *s = v->p->storages[i];
        if (s->kind != STORAGE_CACHE)
            continue;
        if (s->offset % 64 || s->offset < inc->input_bytes || s->offset + s->bytes > v->p->cache_bytes)
            fail(v, "cache %d lies outside of its place", i);
        for (int j = 0; j < i; j++)
            if (overlap(v->p->storages[j], s))
                fail(v, "caches %d and %d overlap", j, i);
    }
    for (int i = 0; i < v->f->body->arg_count && v->ok; i++) {
        int64_t end = i + 1 < v->f->body->arg_count ? inc->input_offset[i + 1] : inc->input_bytes;
        if (inc->input_offset[i] < 0 || inc->input_offset[i] + ir_type_bytes_upper(v->f->body->args[i]->type) > end)
            fail(v, "the copy of input %d has no room", i);
    }
}

bool incremental_validate(const struct plan_func *p, struct text *why) {
    const struct ir_func *f = p->func;
    const struct plan_incremental *inc = p->incremental;
    struct paper v = {.p = p, .f = f, .why = why, .ok = true, .next = 1, .run = ~(uint64_t)0};
    struct arena *a = &v.arena;
    v.token = ARENA_ARRAY(a, int, f->value_count + 1);
    v.holds = ARENA_ARRAY(a, int, p->storage_count + 1);
    v.extent = ARENA_ARRAY(a, int, f->module->symbol_count + 1);
    v.buffer = ARENA_ARRAY(a, int, f->module->buffer_count + 1);
    v.input = ARENA_ARRAY(a, int, f->body->arg_count + 1);
    v.of = ARENA_ARRAY(a, struct reads, f->value_count + 1);
    for (int i = 0; i < f->module->symbol_count; i++)
        v.extent[i] = v.next++;
    for (int i = 0; i < f->module->buffer_count; i++)
        v.buffer[i] = v.next++;
    for (int i = 0; i < f->body->arg_count; i++)
        v.input[i] = v.next++;
    check_cache(&v);
    if (v.ok)
        call(&v);
    for (int s = 0; s < inc->source_count && v.ok; s++) {
        const struct incremental_source *source = &inc->sources[s];
        switch (source->kind) {
        case INCREMENTAL_INPUT: v.input[source->index] = v.next++; break;
        case INCREMENTAL_EXTENT: v.extent[f->symbols[source->index]->id] = v.next++; break;
        case INCREMENTAL_BUFFER: v.buffer[source->index] = v.next++; break;
        }
        v.run = source->groups;
        call(&v);
    }
    v.run = 0;
    if (v.ok)
        call(&v);
    arena_free(a);
    return v.ok;
}
