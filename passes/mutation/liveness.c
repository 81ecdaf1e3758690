/* Liveness over structured regions.
 *
 * Regions nest, so no data-flow iteration is needed: positions in one walk, uses in a second. A value from outside a
 * loop that is read inside stays alive to the loop's end, since the next iteration may read it again. The sides of an
 * `if` exclude each other: what is read only in the `else` side is dead in the `then` side although its interval of
 * positions covers it; the exact question is answered use by use.
 */
#include "passes/mutation/liveness.h"

#include <string.h>

bool op_runs_regions(const struct ir_op *op) {
    return op->code == OP_if || op->code == OP_for || op->code == OP_while || op->code == OP_checkpoint;
}

static bool is_loop(const struct ir_op *op) {
    return op->code == OP_for || op->code == OP_while;
}

struct walk {
    struct liveness *l;
    struct arena *arena;
    VEC(struct op_position) ops;
    int position;
    int preorder; /* second walk */
    int *capacity;
};

static void number_region(struct walk *w, struct ir_region *r) {
    struct liveness *l = w->l;
    for (int i = 0; i < r->arg_count; i++)
        l->def[r->args[i]->id] = w->position;
    w->position++;
    for (struct ir_op *op = r->first; op; op = op->next) {
        int index = w->ops.n;
        VEC_PUSH(w->arena, w->ops, (struct op_position){op, w->position, w->position});
        if (op_runs_regions(op)) {
            l->branches |= op->code == OP_if;
            w->position++;
            for (int i = 0; i < op->region_count; i++)
                number_region(w, op->regions[i]);
        }
        w->ops.at[index].end = w->position;
        for (int i = 0; i < op->result_count; i++)
            l->def[op->results[i]->id] = op->code == OP_read ? 0 : w->position; /* a buffer holds it from entry */
        w->position++;
    }
    w->position++;
}

struct frame { /* the regions around the walk's place */
    const struct frame *outer;
    const struct ir_region *region;
    int op_end; /* of the operation that holds the region */
    int end;    /* of the region */
};

static const struct ir_region *defining_region(const struct ir_value *v) {
    return v->op ? v->op->parent : v->region;
}

static void add_use(struct walk *w, const struct frame *f, const struct ir_value *v, int position,
                    struct ir_op *reader) {
    struct liveness *l = w->l;
    const struct ir_region *home = defining_region(v), *region = f->region;
    for (const struct frame *g = f; g && g->region != home; g = g->outer)
        if (g->region->op && is_loop(g->region->op)) {
            position = g->op_end;
            region = g->region->op->parent;
        }
    int n = l->use_count[v->id];
    if (n == w->capacity[v->id]) {
        int cap = n ? 2 * n : 2;
        struct value_use *more = ARENA_ARRAY(w->arena, struct value_use, cap);
        if (n)
            memcpy(more, l->uses[v->id], sizeof *more * (size_t)n);
        l->uses[v->id] = more;
        w->capacity[v->id] = cap;
    }
    l->uses[v->id][l->use_count[v->id]++] = (struct value_use){position, region, reader};
    if (position > l->last[v->id])
        l->last[v->id] = position;
}

/* Of an i64 of rank 0 that is a constant or a dimension: its least or its largest value. */
static bool bound_value(const struct ir_value *v, bool largest, int64_t *n) {
    const struct ir_op *op = v->op;
    if (op && op->code == OP_const) {
        memcpy(n, op->constant.data, sizeof *n);
        return true;
    }
    if (!op || op->code != OP_nest || op->nest.reds || op->nest.results[v->index].base >= 0)
        return false;
    ir_expr e = op->nest.results[v->index].value;
    if (e->kind == X_CONST)
        *n = e->value.i;
    else if (e->kind == X_DIM)
        *n = largest ? ir_dim_upper(e->dim) : ir_dim_lower(e->dim);
    else
        return false;
    return *n > -IR_DIM_LIMIT && *n < IR_DIM_LIMIT;
}

bool op_may_fail(const struct ir_op *op) {
    int64_t n, a, b;
    if (op->code == OP_check || (op->code == OP_dim && !op->dim.inside))
        return true; /* an extern is a C function of the user's: assumed to succeed */
    if (!is_loop(op) || !op->loop.limit)
        return false;
    /* bounds within a constant limit cannot exceed it */
    return op->code == OP_while || op->operand_count < 2 || !ir_dim_is_const(op->loop.limit, &n) ||
           !bound_value(op->operands[0], false, &a) || !bound_value(op->operands[1], true, &b) || b - a > n;
}

/* Operations that may end the call with an error, and until where: inside a loop, any of its iterations may. */
static void note_failure(struct walk *w, const struct frame *f, struct ir_op *op, int start, int end) {
    int position = op->code == OP_while ? end : start;
    if (!op_may_fail(op))
        return;
    for (const struct frame *g = f; g; g = g->outer)
        if (g->region->op && is_loop(g->region->op))
            position = g->op_end;
    if (position > w->l->last_failure) {
        w->l->last_failure = position;
        w->l->last_failing = op;
    }
}

static void use_region(struct walk *w, struct ir_region *r, const struct frame *outer, int begin, int op_end) {
    struct liveness *l = w->l;
    struct frame frame = {outer, r, op_end, 0};
    int at = begin + 1;
    for (struct ir_op *op = r->first; op; op = op->next) {
        struct op_position p = l->ops[w->preorder++];
        l->at[p.start] = l->at[p.end] = op;
        note_failure(w, &frame, op, p.start, p.end);
        for (int i = 0; i < op->operand_count; i++)
            add_use(w, &frame, op->operands[i], p.start, op);
        if (op_runs_regions(op)) {
            int inner = p.start + 1;
            for (int i = 0; i < op->region_count; i++) {
                use_region(w, op->regions[i], &frame, inner, p.end);
                inner = w->position; /* where the region ended, plus one */
            }
        }
        at = p.end + 1;
    }
    for (int i = 0; i < r->yield_count; i++)
        add_use(w, &frame, r->yields[i], at, NULL);
    w->position = at + 1;
}

struct liveness *liveness_new(struct ir_func *f, struct arena *a) {
    struct liveness *l = ARENA_NEW(a, struct liveness);
    struct walk w = {.l = l, .arena = a};
    l->func = f;
    l->def = ARENA_ARRAY(a, int, f->value_count + 1);
    l->last = ARENA_ARRAY(a, int, f->value_count + 1);
    l->uses = ARENA_ARRAY(a, struct value_use *, f->value_count + 1);
    l->use_count = ARENA_ARRAY(a, int, f->value_count + 1);
    w.capacity = ARENA_ARRAY(a, int, f->value_count + 1);
    l->last_failure = -1;
    for (int i = 0; i < f->value_count; i++)
        l->def[i] = l->last[i] = -1;
    number_region(&w, f->body);
    l->positions = w.position;
    l->ops = w.ops.at;
    l->op_count = w.ops.n;
    l->at = ARENA_ARRAY(a, struct ir_op *, l->positions + 1);
    w.position = 0;
    use_region(&w, f->body, NULL, 0, l->positions);
    for (int i = 0; i < f->value_count; i++)
        if (l->last[i] < l->def[i])
            l->last[i] = l->def[i];
    /* What a buffer holds at exit stays there. */
    for (struct ir_op *op = f->body->first; op; op = op->next)
        if (op->code == OP_write)
            l->last[op->operands[0]->id] = l->positions;
    return l;
}

/* Whether a and b stand on different sides of one `if`. */
static bool exclusive(const struct ir_region *a, const struct ir_region *b) {
    int depth_a = 0, depth_b = 0;
    for (const struct ir_region *r = a; r->op; r = r->op->parent)
        depth_a++;
    for (const struct ir_region *r = b; r->op; r = r->op->parent)
        depth_b++;
    for (; depth_a > depth_b; depth_a--)
        a = a->op->parent;
    for (; depth_b > depth_a; depth_b--)
        b = b->op->parent;
    while (a != b) {
        if (a->op == b->op)
            return a->op->code == OP_if;
        a = a->op->parent;
        b = b->op->parent;
    }
    return false;
}

bool use_excluded(const struct liveness *l, const struct value_use *u, const struct ir_value *v) {
    return l->branches && exclusive(u->region, defining_region(v));
}

bool alive_together(const struct liveness *l, const struct ir_value *a, const struct ir_value *b, int *meet) {
    *meet = -1;
    if (l->def[a->id] > l->def[b->id]) {
        const struct ir_value *t = a;
        a = b;
        b = t;
    }
    int def = l->def[b->id];
    if (l->last[a->id] < def)
        return false;
    if (l->def[a->id] == def)
        return true;
    if (l->last[a->id] == l->positions) /* held at exit */
        return true;
    bool touch = false;
    for (int i = 0; i < l->use_count[a->id]; i++) {
        const struct value_use *u = &l->uses[a->id][i];
        if (u->position < def || use_excluded(l, u, b))
            continue;
        if (u->position > def)
            return true;
        touch = true;
    }
    if (touch)
        *meet = def;
    return touch;
}
