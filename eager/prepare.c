/* Prepares a function for evaluation: its operations in arrays, and for each value the operation after which it is not
 * needed any more, so that memory is reused early and a last version can be updated in place. */
#include <stdlib.h>

#include "eager/eager_internal.h"

struct preparation {
    struct eager *e;
    struct ir_value **values;  /* by id */
    const struct ir_op **last; /* by id: the operation of the value's own region that uses it last */
    bool *inside;              /* by id: that use stands in a region of the operation */
    bool *kept;                /* by id: its region yields it */
    struct use {
        const struct ir_op *op;
        int value;
    } * uses; /* sorted by op */
    int use_count, value_count;
    bool draws;
};

static const struct ir_region *region_of(const struct ir_value *v) {
    return v->op ? v->op->parent : v->region;
}

static void mark(struct preparation *p, const struct ir_value *v, const struct ir_op *user, bool inside) {
    for (; user->parent != region_of(v); user = user->parent->op)
        inside = true;
    p->inside[v->id] = inside;
    p->last[v->id] = user;
}

static void scan_region(struct preparation *p, const struct ir_region *r) {
    for (int i = 0; i < r->arg_count; i++)
        p->values[r->args[i]->id] = r->args[i];
    for (const struct ir_op *op = r->first; op; op = op->next) {
        p->draws = p->draws || op->code == OP_rng;
        for (int i = 0; i < op->result_count; i++)
            p->values[op->results[i]->id] = op->results[i];
        for (int i = 0; i < op->operand_count; i++)
            mark(p, op->operands[i], op, false);
        for (int i = 0; i < op->region_count; i++) {
            if (op->code == OP_kernel && i > 0)
                continue; /* the gradient's definition does not run */
            scan_region(p, op->regions[i]);
        }
    }
    for (int i = 0; i < r->yield_count; i++)
        if (region_of(r->yields[i]) == r)
            p->kept[r->yields[i]->id] = true;
        else
            mark(p, r->yields[i], r->op, true);
}

static int by_op(const void *a, const void *b) {
    const struct use *x = a, *y = b;
    if (x->op != y->op)
        return (uintptr_t)x->op < (uintptr_t)y->op ? -1 : 1;
    return x->value - y->value;
}

static int first_use(const struct preparation *p, const struct ir_op *op) {
    int lo = 0, hi = p->use_count;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if ((uintptr_t)p->uses[mid].op < (uintptr_t)op)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct slot_search {
    int slot;
    bool found;
};

static void find_slot(ir_expr e, void *context) {
    struct slot_search *s = context;
    s->found = s->found || (e->kind == X_LOAD && e->index == s->slot);
}

static bool reads_slot(const struct ir_op *op, int slot) {
    struct slot_search s = {slot, false};
    const struct ir_nest *n = &op->nest;
    for (int i = n->pars; i < n->pars + n->reds; i++) {
        ir_expr_walk(n->indices[i].lo, find_slot, &s);
        ir_expr_walk(n->indices[i].hi, find_slot, &s);
    }
    for (int i = 0; i < n->acc_count; i++)
        ir_expr_walk(n->accs[i].body, find_slot, &s);
    for (int i = 0; i < op->result_count; i++) {
        ir_expr_walk(n->results[i].value, find_slot, &s);
        for (int d = 0; n->results[i].base >= 0 && d < op->operands[n->results[i].base]->type.rank; d++)
            ir_expr_walk(n->results[i].target[d], find_slot, &s);
    }
    return s.found;
}

static bool base_is_free(const struct ir_op *op, int result) {
    int base = op->nest.results[result].base;
    if (base < 0)
        return false;
    for (int j = 0; j < op->result_count; j++)
        if (j != result && op->nest.results[j].base == base)
            return false;
    return !reads_slot(op, base);
}

static struct code *build(struct preparation *p, struct ir_region *r) {
    struct arena *arena = &p->e->arena;
    struct code *c = ARENA_NEW(arena, struct code);
    c->region = r;
    for (const struct ir_op *op = r->first; op; op = op->next)
        c->step_count++;
    c->steps = ARENA_ARRAY(arena, struct step, c->step_count);
    int n = 0, args = r->arg_count;
    struct ir_value **yields = r->yields;
    c->cleanup = ARENA_ARRAY(arena, int, args + r->yield_count);
    for (int i = 0; i < args; i++)
        if (!p->last[r->args[i]->id] || p->kept[r->args[i]->id])
            c->cleanup[c->cleanup_count++] = r->args[i]->id;
    for (int i = 0; i < r->yield_count; i++)
        if (yields[i]->op && yields[i]->op->parent == r)
            c->cleanup[c->cleanup_count++] = yields[i]->id;
    for (struct ir_op *op = r->first; op; op = op->next) {
        struct step *s = &c->steps[n++];
        s->op = op;
        int from = first_use(p, op), to = from;
        while (to < p->use_count && p->uses[to].op == op)
            to++;
        s->release = ARENA_ARRAY(arena, int, to - from);
        s->inside = ARENA_ARRAY(arena, bool, to - from);
        for (int i = from; i < to; i++) {
            s->inside[s->release_count] = p->inside[p->uses[i].value];
            s->release[s->release_count++] = p->uses[i].value;
        }
        if (op->code == OP_nest) {
            s->base_free = ARENA_ARRAY(arena, bool, op->result_count);
            for (int i = 0; i < op->result_count; i++)
                s->base_free[i] = base_is_free(op, i);
        }
        s->regions = ARENA_ARRAY(arena, struct code *, op->region_count);
        for (int i = 0; i < op->region_count; i++)
            if (op->code != OP_kernel || i == 0)
                s->regions[i] = build(p, op->regions[i]);
    }
    return c;
}

void eager_prepare(struct eager *e, struct eager_func *f, struct ir_func *func) {
    struct arena scratch = {0};
    int n = func->value_count;
    struct preparation p = {.e = e, .value_count = n};
    p.values = ARENA_ARRAY(&scratch, struct ir_value *, n);
    p.last = ARENA_ARRAY(&scratch, const struct ir_op *, n);
    p.inside = ARENA_ARRAY(&scratch, bool, n);
    p.kept = ARENA_ARRAY(&scratch, bool, n);
    p.uses = ARENA_ARRAY(&scratch, struct use, n);
    scan_region(&p, func->body);
    for (int i = 0; i < n; i++) {
        if (!p.values[i] || p.kept[i])
            continue;
        const struct ir_op *op = p.last[i] ? p.last[i] : p.values[i]->op; /* unused: at once */
        if (op)
            p.uses[p.use_count++] = (struct use){op, i};
    }
    qsort(p.uses, (size_t)p.use_count, sizeof *p.uses, by_op);
    f->func = func;
    f->code = build(&p, func->body);
    f->draws = p.draws || func->uses_random;
    arena_free(&scratch);
}

void eager_unprepare(struct code *c) {
    for (int i = 0; c && i < c->step_count; i++) {
        nest_plan_free(c->steps[i].plan);
        for (int j = 0; j < c->steps[i].op->region_count; j++)
            eager_unprepare(c->steps[i].regions[j]);
    }
}
