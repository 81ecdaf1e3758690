/* Copying operations and regions, also to another function.
 *
 * Copying is what expands kernels, checkpoints, loop bodies and calls, and what takes a function apart. Values are renewed by
 * a hash map from old to new that holds only what the copy itself defines, so that the cost is that of what is copied,
 * whatever the size of the function around it. A `dim` operation binds a symbol, and a symbol is bound once; a copy
 * therefore binds a new one, and every type, extent and expression copied after it speaks of the new symbol.
 */
#include <stdlib.h>

#include "ir/ir.h"

struct ir_copier {
    struct ir_module *module;
    struct ir_func *func;
    /* Open addressing, a power of two of entries, at most half full. */
    struct value_pair {
        const struct ir_value *from;
        struct ir_value *to;
    } * pairs;
    size_t pair_count, pair_cap;
    /* By symbol id, for symbols below symbol_count: those there were when copying began. NULL until one is renewed. */
    ir_dim *symbols;
    int symbol_count;
    struct ir_rewrite rewrite;
};

static struct value_pair *find_pair(const struct ir_copier *c, const struct ir_value *v) {
    size_t h = (size_t)((uint64_t)(uintptr_t)v * 0x9E3779B97F4A7C15u >> 32);
    while (true) {
        struct value_pair *p = &c->pairs[h & (c->pair_cap - 1)];
        if (!p->from || p->from == v)
            return p;
        h++;
    }
}

static void *checked_calloc(size_t n, size_t size) {
    void *p = calloc(n ? n : 1, size);
    if (!p) {
        fprintf(stderr, "mxcc: out of memory (%zu bytes)\n", n * size);
        exit(3);
    }
    return p;
}

void ir_copier_map(struct ir_copier *c, const struct ir_value *from, struct ir_value *to) {
    if (2 * (c->pair_count + 1) > c->pair_cap) {
        struct value_pair *old = c->pairs;
        size_t cap = c->pair_cap;
        c->pair_cap = cap ? 2 * cap : 64;
        c->pairs = checked_calloc(c->pair_cap, sizeof *c->pairs);
        for (size_t i = 0; i < cap; i++)
            if (old[i].from)
                *find_pair(c, old[i].from) = old[i];
        free(old);
    }
    struct value_pair *p = find_pair(c, from);
    c->pair_count += !p->from;
    p->from = from;
    p->to = to;
}

struct ir_value *ir_copier_value(const struct ir_copier *c, struct ir_value *v) {
    if (!c->pair_cap)
        return v;
    const struct value_pair *p = find_pair(c, v);
    return p->from ? p->to : v;
}

static struct ir_value **mapped_array(struct ir_copier *c, struct ir_value **values, int n) {
    if (n == 0)
        return NULL;
    struct ir_value **copy = ARENA_ARRAY(&c->module->arena, struct ir_value *, n);
    for (int i = 0; i < n; i++)
        copy[i] = ir_copier_value(c, values[i]);
    return copy;
}

static ir_dim copy_dim(struct ir_copier *c, ir_dim d) {
    return d && c->symbols ? ir_dim_subst(c->module, d, c->symbols) : d;
}

struct ir_type ir_copier_type(struct ir_copier *c, struct ir_type t) {
    if (!c->symbols)
        return t; /* dims are immutable and shared */
    ir_dim *dims = ARENA_ARRAY(&c->module->arena, ir_dim, t.rank);
    for (int i = 0; i < t.rank; i++)
        dims[i] = copy_dim(c, t.dims[i]);
    t.dims = dims;
    return t;
}

static ir_expr renew_dims(struct ir_rewrite *r, ir_expr original, ir_expr rewritten) {
    struct ir_copier *c = r->context;
    return original->kind == X_DIM ? ir_dim_expr(c->module, copy_dim(c, original->dim)) : NULL;
}

static ir_expr copy_expr(struct ir_copier *c, ir_expr e) {
    return e && c->symbols ? ir_rewrite_expr(&c->rewrite, e) : e;
}

static struct ir_value *copy_value(struct ir_copier *c, struct ir_value *from) {
    struct ir_value *to = arena_copy(&c->module->arena, from, sizeof *from);
    to->id = c->func->value_count++;
    to->type = ir_copier_type(c, from->type);
    ir_copier_map(c, from, to);
    return to;
}

struct ir_symbol *ir_copier_symbol(struct ir_copier *c, const struct ir_symbol *old) {
    struct ir_symbol *s = ir_symbol_new(c->func, old->name, old->lo, old->hi, old->span);
    if (!c->symbols)
        c->symbols = checked_calloc((size_t)c->symbol_count, sizeof(ir_dim));
    if (old->id < c->symbol_count)
        c->symbols[old->id] = ir_dim_symbol(c->module, s);
    ir_rewrite_free(&c->rewrite); /* its memo may hold expressions over the old symbol */
    c->rewrite.memo = NULL;
    return s;
}

static void copy_nest(struct ir_copier *c, const struct ir_op *from, struct ir_op *to) {
    struct arena *arena = &c->module->arena;
    struct ir_nest *n = &to->nest;
    int indices = n->pars + n->reds;
    n->indices = arena_copy(arena, n->indices, sizeof *n->indices * (size_t)indices);
    for (int i = 0; i < indices; i++) {
        n->indices[i].extent = copy_dim(c, n->indices[i].extent);
        n->indices[i].lo = copy_expr(c, n->indices[i].lo);
        n->indices[i].hi = copy_expr(c, n->indices[i].hi);
    }
    n->accs = arena_copy(arena, n->accs, sizeof *n->accs * (size_t)n->acc_count);
    for (int i = 0; i < n->acc_count; i++)
        n->accs[i].body = copy_expr(c, n->accs[i].body);
    n->results = arena_copy(arena, n->results, sizeof *n->results * (size_t)from->result_count);
    for (int i = 0; i < from->result_count; i++) {
        struct ir_nest_result *r = &n->results[i];
        r->value = copy_expr(c, r->value);
        if (r->base < 0)
            continue;
        int rank = from->operands[r->base]->type.rank;
        ir_expr *target = arena_copy(arena, r->target, sizeof *target * (size_t)rank);
        for (int k = 0; k < rank; k++)
            target[k] = copy_expr(c, target[k]);
        r->target = target;
    }
}

static void copy_ops(struct ir_copier *c, struct ir_builder *b, const struct ir_region *from);

static void copy_region(struct ir_copier *c, const struct ir_region *from, struct ir_region *to) {
    to->arg_count = from->arg_count;
    to->args = ARENA_ARRAY(&c->module->arena, struct ir_value *, from->arg_count);
    for (int i = 0; i < from->arg_count; i++) {
        to->args[i] = copy_value(c, from->args[i]);
        to->args[i]->region = to;
    }
    struct ir_builder inner = {.module = c->module, .func = c->func, .region = to};
    copy_ops(c, &inner, from);
    to->yields = mapped_array(c, from->yields, from->yield_count);
    to->yield_count = from->yield_count;
}

struct ir_op *ir_copier_op(struct ir_copier *c, struct ir_builder *b, const struct ir_op *from) {
    struct arena *arena = &c->module->arena;
    struct ir_op *to = ir_op_new(b, from->code, NULL, 0, from->region_count);
    struct ir_op linked = *to;
    *to = *from; /* attributes, name, span; then what is the copy's own */
    to->parent = linked.parent;
    to->prev = linked.prev;
    to->next = linked.next;
    to->regions = linked.regions;
    to->operands = mapped_array(c, from->operands, from->operand_count);
    switch (from->code) {
    case OP_nest: copy_nest(c, from, to); break;
    case OP_sort: to->sort.limit = copy_dim(c, from->sort.limit); break;
    case OP_kernel: to->kernel.limit = copy_dim(c, from->kernel.limit); break;
    case OP_for:
    case OP_while: to->loop.limit = copy_dim(c, from->loop.limit); break;
    case OP_dim:
        to->dim.symbol = ir_copier_symbol(c, from->dim.symbol);
        to->dim.symbol->op = to;
        break;
    case OP_grad:
        if (from->grad.wrt_buffers)
            to->grad.wrt_buffers = arena_copy(arena, from->grad.wrt_buffers,
                                              sizeof *from->grad.wrt_buffers * (size_t)(from->operand_count - 1));
        break;
    case OP_extern:
        to->external.params = arena_copy(arena, from->external.params,
                                         sizeof *from->external.params * (size_t)from->external.param_count);
        break;
    default: break;
    }
    for (int i = 0; i < from->region_count; i++)
        copy_region(c, from->regions[i], to->regions[i]);
    to->results = ARENA_ARRAY(arena, struct ir_value *, from->result_count);
    for (int i = 0; i < from->result_count; i++) {
        to->results[i] = copy_value(c, from->results[i]);
        to->results[i]->op = to;
    }
    return to;
}

static void copy_ops(struct ir_copier *c, struct ir_builder *b, const struct ir_region *from) {
    /* The last operation now: a region may be copied into itself (unrolling). */
    const struct ir_op *last = from->last;
    for (const struct ir_op *op = from->first; op; op = op == last ? NULL : op->next)
        ir_copier_op(c, b, op);
}

static void copier_begin(struct ir_copier *c, const struct ir_builder *b) {
    *c = (struct ir_copier){.module = b->module, .func = b->func, .symbol_count = b->module->symbol_count};
    c->rewrite.module = b->module;
    c->rewrite.fn = renew_dims;
    c->rewrite.context = c;
}

static void copier_end(struct ir_copier *c) {
    ir_rewrite_free(&c->rewrite);
    free(c->symbols);
    free(c->pairs);
}

struct ir_copier *ir_copier_new(const struct ir_builder *b) {
    struct ir_copier *c = checked_calloc(1, sizeof *c);
    copier_begin(c, b);
    return c;
}

void ir_copier_free(struct ir_copier *c) {
    copier_end(c);
    free(c);
}

struct ir_op *ir_copy_op(struct ir_builder *b, const struct ir_op *op) {
    struct ir_copier c;
    copier_begin(&c, b);
    struct ir_op *copy = ir_copier_op(&c, b, op);
    copier_end(&c);
    return copy;
}

void ir_inline_region(struct ir_builder *b, const struct ir_region *from, struct ir_value **args,
                      struct ir_value **yields) {
    struct ir_copier c;
    copier_begin(&c, b);
    for (int i = 0; i < from->arg_count; i++)
        ir_copier_map(&c, from->args[i], args[i]);
    copy_ops(&c, b, from);
    for (int i = 0; i < from->yield_count; i++)
        yields[i] = ir_copier_value(&c, from->yields[i]);
    copier_end(&c);
}
