/* Plans: the nodes of a run with their dependences worked out, for runs that repeat.
 *
 * A push looks its variables up, chains the operation to those before it and takes a record for it. Where the same
 * nodes run again and nothing was rewired that gives the same answer each time, so it is kept: a task a node, one cache
 * line, with the tasks that follow it and how many it waits for. A run counts down; without workers it just goes
 * through the tasks in their order. Tasks travel through the queues of ready operations as pointers with a low bit.
 *
 * To the rest of the engine such a run is one operation, with accesses that nobody wrote down: registering those would
 * cost what pushes cost. It begins when nothing is pending, so it waits for nothing. Variables know the place that the
 * graph has for them; what is pushed meanwhile and finds the run there follows it (`plan_gate`). Joins end it: trees of
 * empty tasks that the tasks without a follower meet in, as one counter for all would go from processor to processor
 * with each of them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph_internal.h"
#include "internal.h"

enum { JOIN = 8 };

struct task {
    _Alignas(LINE) _Atomic int32_t wait;
    int32_t preds;
    uint32_t follower_count;
    bool always, unfinished; /* did not run, or failed: see `incomplete` */
    const uint32_t *followers;
    struct variable **variables; /* what is read, what is written */
    uint32_t reads, writes;
    mxrt_op_fn *run; /* NULL: a join */
    void *context;
    struct plan *plan;
};
static_assert(sizeof(struct task) == LINE, "a task is to be one line");

struct plan {
    struct mxrt_engine *engine;
    struct gate *gate;
    int64_t count, all; /* tasks of nodes; and joins, of which the last is the end */
    struct task *task;
    struct mxrt_node **node; /* [count] */
    struct place **place;
    int64_t places;
    struct variable **variables;
    uint32_t *followers;
    struct op **root; /* tagged */
    int64_t roots;
    size_t queued;      /* room in the engine's queue */
    uint64_t deletions; /* of variables, when all of the plan's were known to be there */
    /* of a run */
    uint64_t serial; /* of task 0 */
    struct op *op;
    struct latch *latch;
    _Atomic bool incomplete;
};

/* ---- making one */

struct making {
    struct plan *plan;
    int64_t edges, accesses;
    uint32_t *from, *to; /* the edges */
    uint32_t *seen;      /* [all] the last task behind this one, + 1 */
    uint32_t *reader, *next_reader;
};

/* The place's variable, for this graph alone. */
static bool acquire(struct plan *p, struct place *x) {
    struct mxrt_engine *e = p->engine;
    spin_lock(&e->push);
    struct variable *v = variable_find(e, x->var);
    bool mine = v && (!v->place || v->place == x);
    if (mine) {
        v->place = x;
        x->variable = v;
        x->gate = p->gate;
    }
    spin_unlock(&e->push);
    return mine;
}

void plan_release(struct mxrt_engine *e, struct place *x) {
    if (!x->variable)
        return;
    spin_lock(&e->push);
    if (x->variable->place == x)
        x->variable->place = NULL;
    spin_unlock(&e->push);
}

static void edge(struct making *m, uint32_t from, uint32_t to) {
    if (m->seen[from] == to + 1)
        return;
    m->seen[from] = to + 1;
    m->from[m->edges] = from;
    m->to[m->edges++] = to;
    m->plan->task[from].follower_count++;
    m->plan->task[to].preds++;
}

/* The rules of dependence.c. */
static bool add_access(struct making *m, uint32_t t, const struct link *l) {
    struct plan *p = m->plan;
    struct place *x = l->place;
    if (x->plan != p->gate->plan) {
        if (!acquire(p, x))
            return false;
        x->plan = p->gate->plan;
        x->written = false;
        x->last_writer = x->readers = 0;
        p->place[p->places++] = x;
    }
    p->variables[m->accesses++] = x->variable;
    if (!l->write) {
        if (x->last_writer)
            edge(m, x->last_writer - 1, t);
        m->reader[m->accesses - 1] = t;
        m->next_reader[m->accesses - 1] = x->readers;
        x->readers = (uint32_t)m->accesses;
        return true;
    }
    if (!x->readers && x->last_writer)
        edge(m, x->last_writer - 1, t);
    for (uint32_t r = x->readers; r; r = m->next_reader[r - 1])
        edge(m, m->reader[r - 1], t);
    x->last_writer = t + 1;
    x->readers = 0;
    x->written = true;
    return true;
}

static bool add_node(struct making *m, uint32_t t, struct mxrt_node *n) {
    struct plan *p = m->plan;
    struct task *x = &p->task[t];
    x->variables = p->variables + m->accesses;
    x->reads = (uint32_t)n->op.read_count;
    x->writes = (uint32_t)n->op.write_count;
    x->always = n->op.always;
    x->run = n->run;
    x->context = n->context;
    x->plan = p;
    p->node[t] = n;
    for (int i = 0; i < n->link_count; i++) {
        if (!add_access(m, t, &n->links[i]))
            return false;
    }
    return true;
}

/* Joins what nothing follows, JOIN at a time, until one is left. */
static void add_joins(struct making *m) {
    struct plan *p = m->plan;
    uint32_t *left = m->reader; /* no longer needed; it has room for all tasks */
    int64_t n = 0;
    for (int64_t t = 0; t < p->count; t++) {
        if (p->task[t].follower_count == 0)
            left[n++] = (uint32_t)t;
    }
    p->all = p->count;
    do {
        int64_t joins = 0;
        for (int64_t i = 0; i < n; i++) {
            uint32_t from = left[i];
            if (i % JOIN == 0) {
                p->task[p->all].plan = p;
                left[joins++] = (uint32_t)p->all++;
            }
            edge(m, from, left[joins - 1]);
        }
        n = joins;
    } while (n > 1);
}

static struct op *tagged(struct task *t) {
    return (struct op *)((uintptr_t)t | TASK);
}

/* The edges, grouped by where they come from. */
static void add_followers(struct making *m) {
    struct plan *p = m->plan;
    uint32_t at = 0;
    for (int64_t t = 0; t < p->all; t++) {
        p->task[t].followers = p->followers + at;
        at += p->task[t].follower_count;
        p->task[t].follower_count = 0;
    }
    for (int64_t i = 0; i < m->edges; i++) {
        struct task *t = &p->task[m->from[i]];
        p->followers[t->followers - p->followers + t->follower_count++] = m->to[i];
    }
    for (int64_t t = 0; t < p->all; t++) {
        atomic_init(&p->task[t].wait, p->task[t].preds);
        if (p->task[t].preds == 0)
            p->root[p->roots++] = tagged(&p->task[t]);
    }
}

static bool reserve(struct plan *p) {
    struct mxrt_engine *e = p->engine;
    spin_lock(&e->push);
    bool there = memory_queue(e, (size_t)p->all);
    p->queued = there ? (size_t)p->all : 0;
    p->deletions = e->deletions;
    spin_unlock(&e->push);
    return there;
}

struct plan *plan_make(struct mxrt_engine *e, struct gate *gate, struct mxrt_node **node, int64_t count) {
    size_t accesses = 0, n = (size_t)count, tasks = n + n / (JOIN - 1) + 64;
    for (int64_t i = 0; i < count; i++) {
        accesses += (size_t)node[i]->link_count;
        if (node[i]->op.lane != MXRT_LANE_NORMAL || e->trace) /* tasks are not noted */
            return NULL;
    }
    size_t edges = 2 * accesses + tasks; /* a read has one into it, and one to the next write at most */
    if (edges > INT32_MAX)
        return NULL;
    struct plan *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    struct making m = {.plan = p};
    size_t readers = accesses > tasks ? accesses : tasks;
    p->engine = e;
    p->gate = gate;
    p->count = count;
    gate->plan++;
    p->task = aligned_alloc(LINE, tasks * sizeof *p->task);
    p->node = malloc(n * sizeof(struct mxrt_node *) + 1);
    p->place = malloc(accesses * sizeof(struct place *) + 1);
    p->variables = malloc(accesses * sizeof(struct variable *) + 1);
    p->followers = malloc(edges * sizeof *p->followers);
    p->root = malloc(n * sizeof(struct op *) + 1);
    m.from = malloc(edges * sizeof *m.from);
    m.to = malloc(edges * sizeof *m.to);
    m.seen = calloc(tasks, sizeof *m.seen);
    m.reader = malloc(readers * sizeof *m.reader);
    m.next_reader = malloc(readers * sizeof *m.next_reader);
    bool made = p->task && p->node && p->place && p->variables && p->followers && p->root && m.from && m.to && m.seen &&
                m.reader && m.next_reader;
    if (made) {
        memset(p->task, 0, tasks * sizeof *p->task);
        for (int64_t t = 0; t < count && made; t++)
            made = add_node(&m, (uint32_t)t, node[t]);
    }
    if (made) {
        add_joins(&m);
        add_followers(&m);
        made = reserve(p);
    }
    free(m.from);
    free(m.to);
    free(m.seen);
    free(m.reader);
    free(m.next_reader);
    if (made)
        return p;
    plan_drop(p);
    return NULL;
}

void plan_drop(struct plan *p) {
    if (!p)
        return;
    struct mxrt_engine *e = p->engine;
    spin_lock(&e->push);
    e->operations -= p->queued;
    spin_unlock(&e->push);
    free(p->task);
    free(p->node);
    free(p->place);
    free(p->variables);
    free(p->followers);
    free(p->root);
    free(p);
}

/* ---- running */

/* Under `push`. What is pushed on v now, as a write or not, follows this operation, too; NULL: none. */
struct op *plan_gate(const struct variable *v, bool write) {
    const struct place *x = v->place;
    return x->gate->op && x->plan == x->gate->plan && (write || x->written) ? x->gate->op : NULL;
}

/* Under `push`: whether op, a plan's, holds one of the variables that `stamped` says are looked at. */
bool plan_holds(const struct op *op, uint64_t stamp) {
    const struct plan *p = op->context;
    for (int64_t i = 0; i < p->places; i++) {
        uint64_t found = p->place[i]->variable->stamp;
        if (found >= stamp && (p->place[i]->written || found > stamp))
            return true;
    }
    return false;
}

static struct error *error_at(const struct plan *p, const struct task *t) {
    for (uint32_t i = 0; i < t->reads + t->writes; i++) {
        struct error *x = outcome_of(t->variables[i])->error;
        if (x && p->serial + (uint64_t)(t - p->task) < atomic_load(&x->harmless))
            return x;
    }
    return NULL;
}

/* Not called, or failed. The error, to drop. */
static struct error *fail(struct plan *p, struct task *t, struct error *error) {
    t->unfinished = true;
    atomic_store_explicit(&p->incomplete, true, memory_order_relaxed);
    if (error)
        latch_add_error(p->engine, p->latch, error);
    return error;
}

static inline void execute(struct plan *p, struct task *t, struct mxrt_why *why) {
    struct mxrt_engine *e = p->engine;
    struct error *error = NULL;
    bool wanted = true;
    if (UNLIKELY(atomic_load_explicit(&e->live_errors, memory_order_relaxed) > 0 ||
                 atomic_load_explicit(&e->shutdown, memory_order_relaxed)) &&
        !t->always) {
        struct error *x = error_at(p, t);
        wanted = !x && !atomic_load_explicit(&e->shutdown, memory_order_relaxed);
        if (!wanted)
            error = fail(p, t, x ? error_keep(x) : NULL);
    }
    if (LIKELY(wanted)) {
        why->text[0] = 0;
        mx_status status = t->run(t->context, why);
        if (UNLIKELY(status != MX_OK)) {
            int64_t i = t - p->task;
            error = fail(p, t, error_new(e, p->node[i]->op.name, p->serial + (uint64_t)i, status, why->text));
        }
    }
    for (uint32_t i = t->reads; i < t->reads + t->writes; i++)
        dependence_set(t->variables[i], error);
    if (UNLIKELY(error != NULL))
        error_drop(error);
}

/* Once the last follower is counted down or queued, the run may end elsewhere and the plan be freed. */
void plan_task(struct mxrt_engine *e, struct worker *w, struct op *ready, struct mxrt_why *why) {
    struct task *t = (struct task *)((uintptr_t)ready & ~(uintptr_t)TASK), *all = t->plan->task;
    const uint32_t *follower = t->followers, *end = follower + t->follower_count;
    for (uint32_t i = 0; i < t->follower_count && i < JOIN; i++)
        own_soon(&all[follower[i]]);
    if (t->run)
        execute(t->plan, t, why);
    if (follower == end)
        run_complete(e, w, w, t->plan->op);
    while (follower < end) {
        struct task *f = &all[*follower++];
        if (f->preds > 1) { /* else nobody else counts */
            if (atomic_load_explicit(&f->wait, memory_order_acquire) != 1 &&
                atomic_fetch_sub_explicit(&f->wait, 1, memory_order_acq_rel) != 1)
                continue;
            atomic_store_explicit(&f->wait, f->preds, memory_order_relaxed); /* for the next run */
        }
        queue_task(w, tagged(f));
    }
}

/* Without workers; `push` is held. */
static void run_here(struct plan *p, struct op *op) {
    struct mxrt_engine *e = p->engine;
    struct worker *w = e->worker;
    struct frame frame;
    inline_enter(e, &frame);
    for (int64_t i = 0; i < p->count; i++) {
        execute(p, &p->task[i], &w->why);
        if (UNLIKELY(atomic_load_explicit(&e->has_later, memory_order_relaxed)) && e->io_workers > 0)
            inline_register(e); /* for the IO threads */
    }
    run_complete(e, w, w, op);
    inline_drain(e);
    engine_leave(&frame);
}

static void run_everywhere(struct plan *p) {
    struct mxrt_engine *e = p->engine;
    bool helps = threads_help_begin(e, p->latch);
    if (helps)
        e->worker->next = p->root[0];
    if (p->roots > helps) {
        queue_tasks(e, p->root + helps, p->roots - helps);
        threads_wake(e);
    }
    if (helps)
        threads_help_end(e);
}

/* Under `push`. */
static bool still_there(struct plan *p) {
    struct mxrt_engine *e = p->engine;
    for (int64_t i = 0; i < p->places && p->deletions != e->deletions; i++) {
        if (variable_find(e, p->place[i]->var) != p->place[i]->variable)
            return false;
    }
    p->deletions = e->deletions;
    return true;
}

bool plan_run(struct plan *p, struct latch *latch) {
    struct mxrt_engine *e = p->engine;
    struct op *op;
    if (engine_begin(e, false, NULL) != MX_OK)
        return false;
    const struct mxrt_op d = {.name = "a run of a graph", .context = p};
    if (engine_pending(e) || (e->workers == 0 && atomic_load_explicit(&e->helper_busy, memory_order_relaxed)) ||
        atomic_load_explicit(&e->live_errors, memory_order_relaxed) > 0 || atomic_load(&e->shutdown) ||
        !still_there(p) || push_prepare(e, &d, OP_GRAPH | OP_ALWAYS, &op, NULL) != MX_OK) {
        spin_unlock(&e->push);
        return false;
    }
    struct ready ready = {{0}, {0}};
    op->latch = p->latch = latch;
    push_register(e, op, &ready); /* it is ready, and has begun */
    atomic_store_explicit(&op->state, OP_RUNNING, memory_order_relaxed);
    op->error = NULL;
    p->op = p->gate->op = op;
    p->serial = e->serial + 1;
    e->serial += (uint64_t)p->count;
    atomic_store_explicit(&p->incomplete, false, memory_order_relaxed);
    if (e->workers == 0) {
        run_here(p, op);
    } else {
        spin_unlock(&e->push);
        run_everywhere(p);
    }
    wait_until(e, latch, HUGE_VAL);
    spin_lock(&e->push);
    p->gate->op = NULL;
    spin_unlock(&e->push);
    return true;
}

int64_t plan_nodes(const struct plan *p) {
    return p->count;
}

bool plan_complete(const struct plan *p) {
    return !atomic_load_explicit(&p->incomplete, memory_order_relaxed);
}

void plan_tell(struct plan *p) {
    for (int64_t i = 0; i < p->count; i++) {
        p->node[i]->ran = !p->task[i].unfinished;
        p->task[i].unfinished = false;
    }
}
