/* Recomputation: a value that the forward part makes and the backward part reads again need not be kept in between; what made it
 * can run a second time right before the later readers.
 *
 * Which values to drop is the question of Checkmate (Jain et al. 2020), whose integer program is out of reach for a compiler's
 * time; this is its greedy counterpart. Where most bytes are alive, every value that lies idle there is a candidate; the one
 * that frees most bytes for its cost goes, and so on with the peak that is then. A candidate's operands must be there when it
 * is computed again: they are kept longer (which counts against it), or are computed again themselves, back to values that are
 * alive. The copies stay until their last reader and are values like any other, so chains, and segments in the manner of
 * Chen et al. 2016, come out of the same rule.
 *
 * By default only the almost free is computed again: nests without reductions whose operands are alive anyway, and only where
 * that lowers the peak by a tenth. Under --memory-limit anything is, cheapest first, until the plan fits. The order of the other
 * operations stays. Copies are the same expressions over the same values: no bit of a result changes, and nothing that
 * writes a buffer is copied.
 */
#include "passes/memplan/remat_internal.h"

#include "passes/lower.h"
#include "passes/memplan/plan_steps.h"

enum {
    FREE_FLOPS = 48, /* for an element, of what is almost free */
    MOVE_FLOPS = 8,  /* what a byte moved costs */
    SMALL = 16,      /* an operand is kept without counting if it is so much smaller */
    WORTH = 10,      /* a default recomputation lowers the peak by at least one part in so many */
    MAX_AGAIN = 48,  /* operations computed again for one value */
    MAX_ROUNDS = 64,
    MAX_OPERANDS = 256,
};

/* What computing a value again at position `to` takes. */
struct recipe {
    int value;    /* its id */
    int from, to; /* it lies idle between */
    struct ir_op *before;
    int again[MAX_AGAIN], count; /* ids of the values computed again, it first */
    struct ir_value *made[MAX_AGAIN];
    int kept[MAX_OPERANDS], kept_count; /* ids of values kept longer */
    int64_t kept_bytes;                 /* of them, where the peak is */
    int64_t passing;                    /* bytes alive at `to` besides */
    double cost;
};

struct search {
    struct remat *r;
    bool almost_free; /* only that */
    int peak;
    int64_t *delta; /* [n + 2] */
};

/* ---- questions ---------------------------------------------------------------------------------------------------- */

static double cost_of(const struct ir_value *v) {
    const struct ir_op *op = v->op;
    double moved = (double)ir_type_bytes_upper(v->type), flops = 0;
    for (int i = 0; i < op->operand_count; i++)
        moved += (double)ir_type_bytes_upper(op->operands[i]->type);
    if (op->code == OP_nest)
        flops = (double)nest_flops(&op->nest, op->result_count);
    else
        flops = FREE_FLOPS * moved;
    return flops + MOVE_FLOPS * moved;
}

static bool may_copy(const struct search *s, const struct ir_value *v) {
    const struct ir_op *op = v ? v->op : NULL;
    if (!op || op->parent != s->r->func->body || op->operand_count > MAX_OPERANDS)
        return false;
    if (op->code != OP_nest)
        return !s->almost_free && (op->code == OP_rng || op->code == OP_scan || op->code == OP_sort);
    if (op->nest.results[v->index].base >= 0)
        return false;
    if (!s->almost_free)
        return true;
    double elements = 1;
    for (int i = 0; i < op->nest.pars; i++)
        elements *= (double)ir_dim_upper(op->nest.indices[i].extent);
    return op->nest.reds == 0 && (double)nest_flops(&op->nest, op->result_count) <= FREE_FLOPS * elements;
}

static int last_use(const struct remat_value *v) {
    return v->uses.n ? v->uses.at[v->uses.n - 1].at : v->def;
}

/* The first in the order among v's readers from position `to` on. Copies stand before the operation of their position. */
static struct ir_op *first_reader(const struct remat *r, const struct remat_value *v, int to) {
    struct ir_op *first = to < r->n ? r->ops[to] : NULL;
    struct ir_op *stop = to > 0 ? r->ops[to - 1] : NULL;
    for (struct ir_op *x = first ? first->prev : r->func->body->last; x && x != stop; x = x->prev)
        for (int i = 0; i < v->uses.n; i++)
            if (v->uses.at[i].at == to && v->uses.at[i].op == x)
                first = x;
    return first;
}

static bool stands_before(const struct remat *r, const struct ir_op *op, const struct ir_op *before, int at) {
    const struct ir_op *stop = at > 0 ? r->ops[at - 1] : NULL;
    for (const struct ir_op *x = before ? before->prev : r->func->body->last; x && x != stop; x = x->prev)
        if (x == op)
            return true;
    return false;
}

/* The copy of a value, or the value itself, that is the latest to be there before an operation. */
static int latest(const struct remat *r, int id, int at, const struct ir_op *before) {
    for (;;) {
        int next = r->values[id].again;
        if (next < 0 || r->values[next].def > at ||
            (r->values[next].def == at && !stands_before(r, r->values[next].value->op, before, at)))
            return id;
        id = next;
    }
}

/* ---- recipes ------------------------------------------------------------------------------------------------------ */

static int find(const int *list, int count, int id) {
    for (int i = 0; i < count; i++)
        if (list[i] == id)
            return i;
    return -1;
}

/* Adds the value to what is computed again, and sees to its operands. */
static bool extend(const struct search *s, struct recipe *c, int id, bool deep) {
    const struct remat *r = s->r;
    const struct ir_value *v = r->values[id].value;
    const struct ir_op *op = v->op;
    bool needed[MAX_OPERANDS];
    if (c->count == MAX_AGAIN)
        return false;
    c->again[c->count++] = id;
    c->cost += cost_of(v);
    remat_needs(op, v->index, needed);
    for (int i = 0; i < op->operand_count; i++) {
        if (!needed[i])
            continue;
        int w = latest(r, r->root[op->operands[i]->id], c->to, c->before);
        const struct remat_value *x = &r->values[w];
        if (find(c->again, c->count, w) >= 0 || find(c->kept, c->kept_count, w) >= 0)
            continue;
        bool gone = x->over < c->to, alive = last_use(x) >= c->to || !x->bytes;
        if (!gone && alive)
            continue;
        bool small = x->bytes * SMALL * SMALL <= r->values[c->value].bytes;
        if ((gone || (deep && !small)) && may_copy(s, x->value)) {
            c->passing += x->bytes;
            if (!extend(s, c, w, deep))
                return false;
            continue;
        }
        if (gone || c->kept_count == MAX_OPERANDS)
            return false;
        c->kept[c->kept_count++] = w;
        if (last_use(x) < s->peak)
            c->kept_bytes += x->bytes;
    }
    return true;
}

/* The change in what is alive, in s->delta; false if somewhere the peak would be reached again. */
static bool lowers(const struct search *s, const struct recipe *c) {
    const struct remat *r = s->r;
    int first = c->from + 1;
    for (int i = 0; i < c->kept_count; i++)
        if (last_use(&r->values[c->kept[i]]) + 1 < first)
            first = last_use(&r->values[c->kept[i]]) + 1;
    if (first < 0)
        first = 0;
    for (int p = first; p <= c->to; p++)
        s->delta[p] = p > c->from && p < c->to ? -r->values[c->value].bytes : 0;
    for (int i = 0; i < c->kept_count; i++)
        for (int p = last_use(&r->values[c->kept[i]]) + 1; p <= c->to; p++)
            s->delta[p] += r->values[c->kept[i]].bytes;
    s->delta[c->to] += c->passing;
    for (int i = 0; i < c->count; i++)
        s->delta[c->to] += r->workspace[r->values[c->again[i]].value->op->results[0]->id];
    bool good = true;
    for (int p = first; p <= c->to; p++)
        good &= s->delta[p] <= 0 || r->load[p] + s->delta[p] < r->load[s->peak];
    return good && s->delta[s->peak] < 0;
}

/* Of a value that may be copied. */
static bool consider(struct search *s, int id, struct recipe *best, double *score) {
    struct remat *r = s->r;
    const struct remat_value *v = &r->values[id];
    if (v->def >= s->peak || last_use(v) <= s->peak)
        return false;
    struct recipe c = {.value = id, .from = v->def};
    int k = 0;
    for (; v->uses.at[k].at <= s->peak; k++)
        c.from = v->uses.at[k].at;
    if (c.from == s->peak)
        return false;
    c.to = v->uses.at[k].at;
    c.before = first_reader(r, v, c.to);
    bool found = false;
    for (int deep = 0; deep < (s->almost_free ? 1 : 2); deep++) {
        struct recipe x = c;
        if (!extend(s, &x, id, deep))
            continue;
        int64_t freed = v->bytes - x.kept_bytes;
        if (freed <= 0 || (s->almost_free && (x.count > 1 || x.kept_bytes * SMALL > v->bytes)))
            continue;
        if ((double)freed / x.cost <= *score || !lowers(s, &x))
            continue;
        *score = (double)freed / x.cost;
        *best = x;
        found = true;
    }
    return found;
}

/* ---- doing it ----------------------------------------------------------------------------------------------------- */

static struct ir_value *make(struct remat *r, struct recipe *c, int k) {
    if (c->made[k])
        return c->made[k];
    struct ir_value *v = r->values[c->again[k]].value;
    struct ir_op *op = v->op;
    struct ir_value *other[MAX_OPERANDS] = {NULL};
    bool needed[MAX_OPERANDS];
    remat_needs(op, v->index, needed);
    for (int i = 0; i < op->operand_count; i++) {
        int root = r->root[op->operands[i]->id];
        if (!needed[i])
            continue;
        int again = -1, w;
        for (w = root; w >= 0 && again < 0; w = r->values[w].again)
            again = find(c->again, c->count, w);
        if (again >= 0)
            other[i] = make(r, c, again);
        else if ((w = latest(r, root, c->to, c->before)) != root)
            other[i] = r->values[w].value;
    }
    return c->made[k] = remat_copy(r, v, other, c->to, c->before);
}

static void apply(struct search *s, struct recipe *c) {
    struct remat *r = s->r;
    (void)lowers(s, c); /* delta may be another candidate's */
    int first = c->to;
    for (int i = 0; i < c->kept_count; i++)
        if (last_use(&r->values[c->kept[i]]) + 1 < first)
            first = last_use(&r->values[c->kept[i]]) + 1;
    if (c->from + 1 < first)
        first = c->from + 1;
    for (int p = first < 0 ? 0 : first; p <= c->to; p++)
        r->load[p] += s->delta[p];
    struct ir_value *v = r->values[c->value].value;
    remat_redirect(r, v, make(r, c, 0), c->to, c->before);
}

/* Drops values until no more than `target` bytes are alive anywhere. True if it dropped one. */
static bool drop(struct remat *r, bool almost_free, int64_t target) {
    struct search s = {.r = r, .almost_free = almost_free, .delta = ARENA_ARRAY(&r->arena, int64_t, r->n + 2)};
    int *candidates = ARENA_ARRAY(&r->arena, int, r->cap), count = 0, seen = 0;
    bool changed = false;
    while (r->func->value_count + 8 * MAX_AGAIN < r->cap) {
        s.peak = 0;
        for (int p = 1; p <= r->n; p++)
            if (r->load[p] > r->load[s.peak])
                s.peak = p;
        if (r->load[s.peak] <= target)
            break;
        struct recipe best;
        double score = 0;
        bool found = false;
        for (; seen < r->func->value_count; seen++)
            if (r->values[seen].value && r->values[seen].bytes && may_copy(&s, r->values[seen].value))
                candidates[count++] = seen;
        for (int i = 0; i < count; i++)
            found |= consider(&s, candidates[i], &best, &score);
        if (!found)
            break;
        apply(&s, &best);
        changed = true;
    }
    return changed;
}

static int64_t peak_load(const struct remat *r) {
    int64_t peak = 0;
    for (int p = 0; p <= r->n; p++)
        if (r->load[p] > peak)
            peak = r->load[p];
    return peak;
}

/* Rounds of what the model suggests and a model read anew. The load that is left. */
static int64_t lower_peak(struct remat *r, bool almost_free, int64_t limit) {
    int64_t target = limit;
    for (int round = 0; round < MAX_ROUNDS; round++) {
        if (limit && peak_load(r) <= target) {
            int64_t reached = remat_trial(r);
            if (reached <= limit)
                break;
            target -= reached - limit;
        }
        if (!drop(r, almost_free, target))
            break;
        remat_model(r);
    }
    return peak_load(r);
}

static struct recomputed remat_func(struct pass_context *c, struct ir_func *f) {
    struct remat r = {.c = c, .func = f};
    struct recomputed done = {0};
    int64_t limit = c->options ? c->options->arena_limit : 0, alone = c->options ? c->options->arena_limit_alone : 0;
    struct order_result order;
    (void)order_func(c, f, 0, &order); /* the pass behind searches */
    remat_model(&r);
    int64_t before = peak_load(&r);
    if (before - lower_peak(&r, true, 0) < before / WORTH && r.copies.n) {
        remat_undo(&r);
        remat_model(&r);
    }
    if (limit && lower_peak(&r, false, limit) > limit &&
        alone > limit) { /* state leaves the device: less is to be computed again */
        remat_undo(&r);
        remat_model(&r);
        if (peak_load(&r) - lower_peak(&r, true, 0) < before / WORTH && r.copies.n) {
            remat_undo(&r);
            remat_model(&r);
        }
        lower_peak(&r, false, alone);
    }
    for (int i = 0; i < r.copies.n; i++)
        done.copies += r.copies.at[i]->code != OP_reshape;
    done.flops = r.flops;
    done.bytes_before = before;
    arena_free(&r.arena);
    arena_free(&r.keep);
    return done;
}

bool pass_remat(struct pass_context *c) {
    struct ir_module *m = c->module;
    if (c->options && c->options->no_recompute)
        return false;
    struct recomputed *all = ARENA_ARRAY(&m->arena, struct recomputed, m->func_count + 1);
    for (int i = 0; i <= m->func_count; i++) {
        struct ir_func *f = i < m->func_count ? m->funcs[i] : m->init;
        if (f && !f->is_incremental) /* what it keeps between calls is not the plan's to drop */
            all[i] = remat_func(c, f);
    }
    c->recomputed = all;
    return true;
}
