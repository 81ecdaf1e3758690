/* Which stream each operation of a part runs on, and which events it waits for.
 *
 * Two operations have an order if the dependences say so (passes/mutation/deps.h, exact to the element) or if the memory plan has put
 * different values, at different times, into the same bytes: in the plan's order the later one may not begin before the earlier one
 * has ended. All else may run at once. An operation goes on the stream whose last operation it depends on, the latest of those if
 * there are several, so that a chain needs no events; one that depends on no stream's last operation takes the stream that has waited
 * longest. Waits that follow from others are left out: each stream knows how far the others were when it last waited (a vector
 * clock). A stream an operation would be as right and would cost an event an edge.
 */
#include <string.h>

#include "codegen/cuda/cuda.h"
#include "passes/mutation/liveness.h"

struct use { /* of bytes, by an operation of the part */
    int node;
    const struct storage *storage; /* NULL: of a kernel's own */
    int space;
    int64_t from, to;
    bool write;
};

struct lanes {
    struct function *f;
    struct arena scratch;
    struct cuda_unit *const *units;
    int count, node;
    VEC(struct use) uses;
    bool *after; /* [count][count]: row b, column a: b directly after a */
};

static const struct storage *storage_of(const struct lanes *l, const struct ir_value *v) {
    while (!l->f->plan->of_value[v->id] && v->op && v->op->code == OP_reshape)
        v = v->op->operands[0];
    return l->f->plan->of_value[v->id];
}

/* What the dependences know element by element; the rest is a copy from where a value is to where it is wanted. */
static bool is_exact(const struct ir_op *op) {
    return op->code == OP_nest || op->code == OP_rng || op->code == OP_sort || op->code == OP_scan;
}

static void use(struct lanes *l, const struct storage *s, int space, int64_t from, int64_t to, bool write) {
    const struct ir_op *op = l->units[l->node]->ops[0]; /* several are all nests */
    for (int i = 0; i < l->uses.n; i++) {
        const struct use *u = &l->uses.at[i];
        if (u->space != space || u->to <= from || to <= u->from || !(u->write || write) || u->node == l->node)
            continue;
        if (s && u->storage == s && is_exact(op) && is_exact(l->units[u->node]->ops[0]))
            continue;
        l->after[(size_t)l->node * (size_t)l->count + (size_t)u->node] = true;
    }
    VEC_PUSH(&l->scratch, l->uses, (struct use){l->node, s, space, from, to, write});
}

static void use_storage(struct lanes *l, const struct storage *s, bool write) {
    if (!s || s->kind == STORAGE_CONST || (s->kind == STORAGE_SCALAR && l->f->slot[s->id] < 0))
        return;
    bool bytes = s->kind == STORAGE_ARENA || s->kind == STORAGE_CACHE;
    int64_t at = bytes                       ? s->offset
                 : s->kind == STORAGE_BUFFER ? s->buffer->id
                 : s->kind == STORAGE_SCALAR ? l->f->slot[s->id]
                                             : s->index;
    use(l, s, s->kind, at, bytes ? at + s->bytes : at + 1, write);
}

static void use_value(struct lanes *l, const struct ir_value *v, bool write) {
    use_storage(l, storage_of(l, v), write);
}

static void use_op(struct lanes *l, const struct ir_op *op) {
    for (int i = 0; i < op->operand_count; i++)
        use_value(l, op->operands[i], false);
    for (int i = 0; i < op->result_count; i++)
        use_value(l, op->results[i], true);
    if (op->code == OP_write || op->code == OP_read)
        use(l, NULL, STORAGE_BUFFER, op->buffer.buffer->id, op->buffer.buffer->id + 1, op->code == OP_write);
    const struct storage *w = plan_workspace(l->f->plan, op);
    if (w)
        use(l, NULL, STORAGE_ARENA, w->offset, w->offset + w->bytes, true);
    for (int r = 0; op_runs_regions(op) && r < op->region_count; r++) {
        const struct ir_region *body = op->regions[r];
        for (int i = 0; i < body->arg_count; i++)
            use_value(l, body->args[i], true);
        for (int i = 0; i < body->yield_count; i++)
            use_value(l, body->yields[i], false);
        for (const struct ir_op *inner = body->first; inner; inner = inner->next)
            use_op(l, inner);
    }
}

/* The operation's number among the dependences; op_count: it has none. Both are in the plan's order but for operations that wait for
 * others, so it is looked for from the last one on. */
static int number_of(const struct deps *d, const struct ir_op *op, int from) {
    for (int i = 0; i < d->op_count; i++) {
        int at = (from + i) % d->op_count;
        if (d->ops[at].op == op)
            return at;
    }
    return d->op_count;
}

static void see_dependences(struct lanes *l) {
    struct function *f = l->f;
    if (!f->deps)
        f->deps = deps_new(f->plan, &f->g->arena);
    int *node = ARENA_ARRAY(&l->scratch, int, f->deps->op_count + 1);
    for (int i = 0; i < f->deps->op_count; i++)
        node[i] = -1;
    for (int u = 0, at = 0; u < l->count; u++)
        for (int k = 0; k < l->units[u]->count; k++) {
            at = number_of(f->deps, l->units[u]->ops[k], at);
            if (at < f->deps->op_count)
                node[at] = u;
        }
    for (int i = 0; i < f->deps->edge_count; i++) {
        const struct dep *e = &f->deps->edges[i];
        if (!e->carried && node[e->from] >= 0 && node[e->to] >= 0 && node[e->from] != node[e->to])
            l->after[(size_t)node[e->to] * (size_t)l->count + (size_t)node[e->from]] = true;
    }
}

static int choose(const struct lanes *l, const struct cuda_node *nodes, const int *last, const bool *after) {
    int best = -1, idle = 0;
    for (int s = 0; s < CUDA_LANES; s++) {
        if (last[s] >= 0 && after[last[s]] && (best < 0 || last[s] > last[best]))
            best = s;
        if (last[s] < last[idle])
            idle = s;
    }
    return best >= 0 ? best : idle;
}

/* Numbers of events: one may be recorded again once nobody will wait for what it stood for. */
static int number_events(struct lanes *l, struct cuda_node *nodes, int first) {
    int *until = ARENA_ARRAY(&l->scratch, int, l->count + 1), most = first;
    int *busy = ARENA_ARRAY(&l->scratch, int, l->count + 1); /* [event]: the node that waits for it last */
    for (int i = 0; i < l->count; i++)
        for (int k = 0; k < nodes[i].wait_count; k++)
            until[nodes[i].waits[k]] = i;
    for (int i = 0; i < l->count; i++) {
        nodes[i].event = -1;
        if (!until[i])
            continue;
        int e = 0;
        while (first + e < most && busy[e] > i)
            e++;
        busy[e] = until[i];
        nodes[i].event = first + e;
        most = first + e + 1 > most ? first + e + 1 : most;
    }
    return most;
}

bool *cuda_after(struct function *f, struct cuda_unit *const *units, int count, struct arena *a) {
    struct lanes l = {.f = f, .units = units, .count = count};
    l.after = ARENA_ARRAY(a, bool, (size_t)count *(size_t)count + 1);
    for (l.node = 0; l.node < count; l.node++)
        for (int k = 0; k < units[l.node]->count; k++)
            use_op(&l, units[l.node]->ops[k]);
    see_dependences(&l);
    arena_free(&l.scratch);
    return l.after;
}

struct cuda_node *cuda_lanes(struct function *f, struct cuda_unit *const *units, int count, int first_event,
                             int *events) {
    struct lanes l = {.f = f, .units = units, .count = count};
    struct cuda_node *nodes = ARENA_ARRAY(&f->g->arena, struct cuda_node, count + 1);
    l.after = cuda_after(f, units, count, &l.scratch);
    int last[CUDA_LANES], known[CUDA_LANES][CUDA_LANES]; /* [s][t]: the last of t's that s has waited for */
    int(*knew)[CUDA_LANES] = arena_alloc(&l.scratch, sizeof *knew * (size_t)(count + 1)); /* at each node */
    for (int s = 0; s < CUDA_LANES; s++) {
        last[s] = -1;
        for (int t = 0; t < CUDA_LANES; t++)
            known[s][t] = -1;
    }
    for (int i = 0; i < count; i++) {
        const bool *after = l.after + (size_t)i * (size_t)count;
        struct cuda_node *n = &nodes[i];
        int s = n->lane = choose(&l, nodes, last, after);
        n->waits = ARENA_ARRAY(&f->g->arena, int, CUDA_LANES);
        for (int a = i - 1; a >= 0; a--) {
            int t = nodes[a].lane;
            if (!after[a] || t == s || known[s][t] >= a)
                continue;
            n->waits[n->wait_count++] = a;
            known[s][t] = a;
            for (int u = 0; u < CUDA_LANES; u++)
                known[s][u] = knew[a][u] > known[s][u] ? knew[a][u] : known[s][u];
        }
        n->is_first = last[s] < 0;
        last[s] = i;
        memcpy(knew[i], known[s], sizeof knew[i]);
    }
    *events = number_events(&l, nodes, first_event);
    arena_free(&l.scratch);
    return nodes;
}
