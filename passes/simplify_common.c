/* Common subexpressions of pure operations: the same operation on the same operands in the same or a dominating region, found by
 * hashing in program order (global value numbering on structured control flow). Regions of kernels and checkpoints stand
 * alone: what a checkpoint computes again must not become the value that was saved. */
#include <string.h>

#include "passes/simplify_internal.h"

struct table {
    struct arena scratch;
    struct ir_op **slots;
    unsigned cap, count;
    struct ir_value **map; /* by value id: what stands for it */
    bool *overwritten;
    bool changed;
};

static unsigned mix(unsigned h, uint64_t x) {
    return (h ^ (unsigned)(x ^ x >> 32)) * 16777619u;
}

static unsigned hash_op(const struct ir_op *op) {
    unsigned h = mix(2166136261u, (uint64_t)op->code);
    for (int i = 0; i < op->operand_count; i++)
        h = mix(h, (uint64_t)op->operands[i]->id);
    if (op->code == OP_nest) {
        for (int i = 0; i < op->result_count; i++)
            h = mix(h, (uint64_t)op->nest.results[i].value->id);
        for (int i = 0; i < op->nest.acc_count; i++)
            h = mix(h, (uint64_t)op->nest.accs[i].body->id);
        for (int i = 0; i < op->nest.pars + op->nest.reds; i++)
            h = mix(h, (uint64_t)op->nest.indices[i].extent->id);
    } else if (op->code == OP_const) {
        const unsigned char *bytes = op->constant.data;
        int64_t n = ir_type_bytes_upper(op->results[0]->type);
        for (int64_t i = 0; i < n && i < 256; i++)
            h = mix(h, bytes[i]);
    }
    return h;
}

static bool same_nest(const struct ir_op *a, const struct ir_op *b) {
    const struct ir_nest *x = &a->nest, *y = &b->nest;
    if (x->pars != y->pars || x->reds != y->reds || x->acc_count != y->acc_count)
        return false;
    for (int i = 0; i < x->pars + x->reds; i++)
        if (x->indices[i].extent != y->indices[i].extent || x->indices[i].lo != y->indices[i].lo ||
            x->indices[i].hi != y->indices[i].hi)
            return false;
    for (int i = 0; i < x->acc_count; i++)
        if (x->accs[i].op != y->accs[i].op || x->accs[i].body != y->accs[i].body)
            return false;
    for (int i = 0; i < a->result_count; i++) {
        const struct ir_nest_result *p = &x->results[i], *q = &y->results[i];
        if (p->value != q->value || p->base != q->base)
            return false;
        if (p->base < 0)
            continue;
        if (p->combine != q->combine)
            return false;
        for (int k = 0; k < a->results[i]->type.rank; k++)
            if (p->target[k] != q->target[k])
                return false;
    }
    return true;
}

static bool same_op(const struct ir_op *a, const struct ir_op *b) {
    if (a->code != b->code || a->operand_count != b->operand_count || a->result_count != b->result_count)
        return false;
    for (int i = 0; i < a->operand_count; i++)
        if (a->operands[i] != b->operands[i])
            return false;
    for (int i = 0; i < a->result_count; i++)
        if (!ir_type_equal(a->results[i]->type, b->results[i]->type))
            return false;
    switch (a->code) {
    case OP_nest: return same_nest(a, b);
    case OP_const: {
        int64_t n = ir_type_bytes_upper(a->results[0]->type);
        return memcmp(a->constant.data, b->constant.data, (size_t)n) == 0;
    }
    case OP_reshape: return true;
    case OP_sort:
        return a->sort.axis == b->sort.axis && a->sort.descending == b->sort.descending &&
               a->sort.limit == b->sort.limit;
    case OP_scan:
        return a->scan.axis == b->scan.axis && a->scan.op == b->scan.op && a->scan.reverse == b->scan.reverse &&
               a->scan.exclusive == b->scan.exclusive;
    default: return false;
    }
}

/* The innermost region that stands alone around r. */
static const struct ir_region *scope(const struct ir_region *r) {
    while (r->op && r->op->code != OP_checkpoint && r->op->code != OP_kernel)
        r = r->op->parent;
    return r;
}

static void grow(struct table *t) {
    struct ir_op **old = t->slots;
    unsigned n = t->cap;
    t->cap = n ? n * 2 : 256;
    t->slots = ARENA_ARRAY(&t->scratch, struct ir_op *, t->cap);
    for (unsigned i = 0; i < n; i++)
        if (old[i]) {
            unsigned k = hash_op(old[i]) & (t->cap - 1);
            while (t->slots[k])
                k = (k + 1) & (t->cap - 1);
            t->slots[k] = old[i];
        }
}

/* A fill that something is written over: shared, it would have to be kept and copied. */
static bool own_fill(const struct table *t, const struct ir_op *op) {
    return op->code == OP_nest && op->operand_count == 0 && op->result_count == 1 && op->results[0]->type.rank > 0 &&
           t->overwritten[op->results[0]->id];
}

static bool candidate(const struct ir_op *op) {
    return op->code == OP_nest || op->code == OP_const || op->code == OP_reshape || op->code == OP_sort ||
           op->code == OP_scan;
}

static struct ir_value *stand_in(struct table *t, struct ir_value *v) {
    while (t->map[v->id])
        v = t->map[v->id];
    return v;
}

static void visit(struct table *t, struct ir_region *r) {
    for (struct ir_op *op = r->first, *next; op; op = next) {
        next = op->next;
        for (int i = 0; i < op->operand_count; i++)
            op->operands[i] = stand_in(t, op->operands[i]);
        for (int i = 0; i < op->region_count; i++)
            visit(t, op->regions[i]);
        if (!candidate(op) || own_fill(t, op))
            continue;
        if (t->count * 2 >= t->cap)
            grow(t);
        unsigned k = hash_op(op) & (t->cap - 1);
        for (; t->slots[k]; k = (k + 1) & (t->cap - 1))
            if (same_op(t->slots[k], op) && ir_region_contains(t->slots[k]->parent, r) &&
                scope(t->slots[k]->parent) == scope(r))
                break;
        if (!t->slots[k]) {
            t->slots[k] = op;
            t->count++;
            continue;
        }
        for (int i = 0; i < op->result_count; i++)
            t->map[op->results[i]->id] = t->slots[k]->results[i];
        ir_op_remove(op);
        t->changed = true;
    }
    for (int i = 0; i < r->yield_count; i++)
        r->yields[i] = stand_in(t, r->yields[i]);
}

bool simplify_common(struct ir_func *f) {
    struct table t = {0};
    t.map = ARENA_ARRAY(&t.scratch, struct ir_value *, f->value_count + 1);
    t.overwritten = ARENA_ARRAY(&t.scratch, bool, f->value_count + 1);
    simplify_overwritten(f, t.overwritten);
    visit(&t, f->body);
    bool changed = t.changed;
    arena_free(&t.scratch);
    return changed;
}
