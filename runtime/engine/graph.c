/* The graph layer: which nodes a change affects, and running those.
 *
 * A node is marked CHANGED when something it reads has, or may have, another value than when it ran; RESTORE when
 * something it wrote is to be there again. Before a run the marks spread:
 *
 *   CHANGED node      -> readers of what it writes up to the next writer: CHANGED; that writer: RESTORE, or CHANGED if it
 *                        updates in place
 *   RESTORE node      -> the next writer of what it writes: RESTORE (values are as before, so readers are not affected)
 *   a marked node     -> the writer whose value it reads: RESTORE, if the variable has another value by now
 *
 * and after it, readers that no writer precedes are CHANGED for the next run where the last writer ran: a variable
 * carries its value from run to run. Each node is looked at twice at most, each access costs a logarithm. The marked
 * nodes are pushed in their order; the engine knows the rest.
 *
 * After a run without errors the state is the marks: every variable has the value of its last writer. Where marks and
 * touches are those of the last run, and that one left the marks it found, this one runs the same nodes, and so will the
 * next ones: then a plan is made of them (graph_plan.c) and the marks need not be worked out any more. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph_internal.h"
#include "internal.h"

struct nodes {
    struct mxrt_node **at;
    int64_t count, room;
};

struct places {
    struct place **at;
    int64_t count, room;
};

struct mark_of {
    const struct mxrt_node *node;
    enum mark mark;
};

struct mxrt_graph {
    struct mxrt_engine *engine;
    struct order order;
    int64_t size;
    struct place **places; /* a hash table */
    int64_t place_count, place_room;
    struct nodes marked, stack; /* each with room for all nodes, the stack for twice as many */
    uint32_t random;
    struct places touched, touched_before; /* since the last run, not yet marked; before that one */
    bool settled;                          /* the last run had no errors, and nothing was rewired since */
    bool repeats;                          /* … and left the marks that it found */
    struct mark_of *found;                 /* those */
    int64_t found_count, found_room;
    struct gate gate;
    struct plan *plan; /* for what was touched before the last run; NULL */
};

mx_status mxrt_graph_create(struct mxrt_engine *e, struct mxrt_graph **out, struct mxrt_why *why) {
    struct mxrt_graph *g = e && out ? calloc(1, sizeof *g) : NULL;
    if (!g)
        return e && out ? engine_fail(why, MX_ERROR_MEMORY, "no memory for a graph")
                        : engine_fail(why, MX_ERROR_ARGUMENT, "a graph wants an engine and a place for itself");
    g->engine = e;
    g->random = 1;
    *out = g;
    return MX_OK;
}

int64_t mxrt_graph_size(const struct mxrt_graph *g) {
    return g->size;
}

/* ---- variables */

static struct place **bucket(const struct mxrt_graph *g, struct mxrt_var v) {
    return &g->places[(v.id * 0x9E3779B97F4A7C15u) >> 20 & (uint64_t)(g->place_room - 1)];
}

static struct place *find(const struct mxrt_graph *g, struct mxrt_var v) {
    struct place *p = g->place_room ? *bucket(g, v) : NULL;
    while (p && p->var.id != v.id)
        p = p->next;
    return p;
}

static struct place *find_or_make(struct mxrt_graph *g, struct mxrt_var v) {
    struct place *p = find(g, v);
    if (p)
        return p;
    if (g->place_count >= g->place_room) {
        struct mxrt_graph wider = {.place_room = g->place_room ? 2 * g->place_room : 64};
        if (!(wider.places = calloc((size_t)wider.place_room, sizeof(struct place *))))
            return NULL;
        for (int64_t i = 0; i < g->place_room; i++) {
            for (struct place *x = g->places[i], *next; x; x = next) {
                next = x->next;
                x->next = *bucket(&wider, x->var);
                *bucket(&wider, x->var) = x;
            }
        }
        free(g->places);
        g->places = wider.places;
        g->place_room = wider.place_room;
    }
    if (!(p = calloc(1, sizeof *p)))
        return NULL;
    p->var = v;
    p->next = *bucket(g, v);
    *bucket(g, v) = p;
    g->place_count++;
    return p;
}

static void leave(struct mxrt_graph *g, struct place *p) {
    if (--p->links > 0)
        return;
    struct place **at = bucket(g, p->var);
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    plan_release(g->engine, p);
    free(p);
    g->place_count--;
}

/* ---- marks */

static bool make_room(struct nodes *l, int64_t room) {
    if (room <= l->room)
        return true;
    room *= 2;
    struct mxrt_node **more = realloc(l->at, (size_t)room * sizeof *more);
    if (!more)
        return false;
    l->at = more;
    l->room = room;
    return true;
}

/* There is room. */
static void mark(struct mxrt_graph *g, struct mxrt_node *n, enum mark m) {
    if (n->mark >= m)
        return;
    n->mark = m;
    if (n->listed < 0) {
        n->listed = g->marked.count;
        g->marked.at[g->marked.count++] = n;
    }
}

static void unmark(struct mxrt_graph *g, struct mxrt_node *n) {
    n->mark = CLEAN;
    if (n->listed < 0)
        return;
    struct mxrt_node *last = g->marked.at[--g->marked.count];
    g->marked.at[n->listed] = last;
    last->listed = n->listed;
    n->listed = -1;
}

/* Those that read what v has before any node writes it. */
static void mark_first_readers(struct mxrt_graph *g, const struct place *p) {
    for (struct link *l = tree_first(p); l; l = tree_next(l)) {
        if (l->read)
            mark(g, l->node, CHANGED);
        if (l->write)
            return;
    }
}

static void mark_and_stack(struct mxrt_graph *g, struct mxrt_node *n, enum mark m) {
    if (n->mark < m) {
        mark(g, n, m);
        g->stack.at[g->stack.count++] = n;
    }
}

/* A node's marks, to those that its access l touches. */
static void spread_mark(struct mxrt_graph *g, enum mark m, const struct link *l) {
    /* The only writer's value is there, or what is read comes before it. */
    bool as_it_was = l->place->writers == 0 || (l->place->writers == 1 && l->place->holder);
    struct link *w = l->read && !as_it_was ? tree_writer_before(l) : NULL;
    if (w && l->place->holder != w)
        mark_and_stack(g, w->node, RESTORE);
    if (!l->write)
        return;
    if (m == CHANGED) {
        for (w = tree_next(l); w && !w->write; w = tree_next(w))
            mark_and_stack(g, w->node, CHANGED);
    } else {
        w = l->place->writers > 1 ? tree_writer_after(l) : NULL;
    }
    if (w)
        mark_and_stack(g, w->node, m == CHANGED && w->read ? CHANGED : RESTORE);
}

static void spread_marks(struct mxrt_graph *g) {
    memcpy(g->stack.at, g->marked.at, (size_t)g->marked.count * sizeof *g->stack.at);
    g->stack.count = g->marked.count;
    while (g->stack.count > 0) {
        struct mxrt_node *n = g->stack.at[--g->stack.count];
        for (int i = 0; i < n->link_count; i++)
            spread_mark(g, n->mark, &n->links[i]);
    }
}

static void mark_touched(struct mxrt_graph *g, struct place *p) {
    struct link *last = tree_last_writer(p);
    p->touched = false;
    p->holder = NULL;
    mark_first_readers(g, p);
    if (last)
        mark(g, last->node, RESTORE);
}

static void mark_all_touched(struct mxrt_graph *g) {
    for (int64_t i = 0; i < g->touched.count; i++)
        mark_touched(g, g->touched.at[i]);
    g->touched.count = 0;
}

static void forget_plan(struct mxrt_graph *g) {
    plan_drop(g->plan);
    g->plan = NULL;
    g->settled = g->repeats = false;
}

void mxrt_graph_touch(struct mxrt_graph *g, struct mxrt_var v) {
    struct place *p = find(g, v);
    struct places *t = &g->touched;
    if (!p || p->touched)
        return;
    if (t->count == t->room) {
        int64_t room = 2 * t->room + 8;
        struct place **more = realloc(t->at, (size_t)room * sizeof(struct place *));
        if (!more) {
            forget_plan(g);
            mark_touched(g, p);
            return;
        }
        t->at = more;
        t->room = room;
    }
    t->at[t->count++] = p;
    p->touched = true;
}

/* ---- changes of the graph */

static void about_to_change(struct mxrt_graph *g) {
    mark_all_touched(g);
    forget_plan(g);
}

static mx_status run_node(void *context, struct mxrt_why *why) {
    struct mxrt_node *n = context;
    mx_status status = n->run(n->context, why);
    n->ran = status == MX_OK;
    return status;
}

static void unwire(struct mxrt_graph *g, struct mxrt_node *wired) {
    for (int i = 0; i < wired->link_count; i++)
        leave(g, wired->links[i].place);
    free(wired->links);
}

/* The links of n and the engine's lists, in one block; nothing else changes. */
static mx_status wire(struct mxrt_graph *g, const struct mxrt_node *n, const struct mxrt_op *d, struct mxrt_node *wired,
                      struct mxrt_why *why) {
    if (d->read_count < 0 || d->write_count < 0 || (d->read_count && !d->reads) || (d->write_count && !d->writes))
        return engine_fail(why, MX_ERROR_ARGUMENT, "node `%.60s`: a list of variables is missing or its count negative",
                           d->name ? d->name : "(no name)");
    size_t reads = (size_t)d->read_count, writes = (size_t)d->write_count, all = reads + writes;
    char *block = malloc(all * (sizeof(struct link) + sizeof(struct mxrt_var)) + 1);
    if (!block)
        return engine_fail(why, MX_ERROR_MEMORY, "node `%.60s`: no memory for its accesses",
                           d->name ? d->name : "(no name)");
    struct link *links = (struct link *)block;
    struct mxrt_var *vars = (struct mxrt_var *)(links + all);
    if (reads)
        memcpy(vars, d->reads, reads * sizeof *vars);
    if (writes)
        memcpy(vars + reads, d->writes, writes * sizeof *vars);
    wired->op = *d;
    wired->op.reads = vars;
    wired->op.writes = vars + reads;
    mxrt_var_dedupe(vars, &wired->op.read_count, vars + reads, &wired->op.write_count);
    wired->link_count = 0;
    wired->links = links;
    for (int i = 0; i < wired->op.read_count + wired->op.write_count; i++) {
        bool write = i >= wired->op.read_count;
        struct mxrt_var v = write ? wired->op.writes[i - wired->op.read_count] : wired->op.reads[i];
        bool read = !write;
        for (int k = 0; write && !read && k < d->read_count; k++)
            read = d->reads[k].id == v.id;
        struct place *p = find_or_make(g, v);
        if (!p) {
            unwire(g, wired);
            return engine_fail(why, MX_ERROR_MEMORY, "node `%.60s`: no memory for its variables",
                               d->name ? d->name : "(no name)");
        }
        p->links++;
        links[wired->link_count++] =
            (struct link){.node = (struct mxrt_node *)n, .place = p, .read = read, .write = write};
    }
    mx_status status = push_check(g->engine, &wired->op, why);
    if (status != MX_OK)
        unwire(g, wired);
    return status;
}

static void link_in(struct mxrt_graph *g, struct mxrt_node *n) {
    for (int i = 0; i < n->link_count; i++) {
        g->random = g->random * 1664525 + 1013904223;
        tree_insert(n->links[i].place, &n->links[i], g->random);
    }
    mark(g, n, CHANGED);
}

/* Who read what n wrote reads something else now. */
static void link_out(struct mxrt_graph *g, struct mxrt_node *n) {
    for (int i = 0; i < n->link_count; i++) {
        struct link *l = &n->links[i];
        struct place *p = l->place;
        if (l->write) {
            struct link *x = tree_next(l);
            for (; x && !x->write; x = tree_next(x))
                mark(g, x->node, CHANGED);
            if (x && x->read)
                mark(g, x->node, CHANGED);
        }
        if (p->holder == l)
            p->holder = NULL;
        tree_remove(p, l);
        struct link *last = l->write ? tree_last_writer(p) : NULL;
        if (last && p->holder != last)
            mark(g, last->node, RESTORE);
    }
    unwire(g, n);
}

mx_status mxrt_graph_add(struct mxrt_graph *g, const struct mxrt_op *op, struct mxrt_node *before,
                         struct mxrt_node **out, struct mxrt_why *why) {
    if (!g || !op || !op->run)
        return engine_fail(why, MX_ERROR_ARGUMENT, "a node wants a graph and an operation with `run`");
    about_to_change(g);
    struct mxrt_node *n = calloc(1, sizeof *n);
    if (!n || !make_room(&g->marked, g->size + 1) || !make_room(&g->stack, 3 * (g->size + 1))) {
        free(n);
        return engine_fail(why, MX_ERROR_MEMORY, "no memory for another node");
    }
    mx_status status = wire(g, n, op, n, why);
    if (status != MX_OK) {
        free(n);
        return status;
    }
    n->run = op->run;
    n->context = op->context;
    n->release = op->release;
    n->op.run = run_node;
    n->op.context = n;
    n->op.release = NULL;
    n->listed = -1;
    order_insert(&g->order, n, before);
    link_in(g, n);
    g->size++;
    if (out)
        *out = n;
    return MX_OK;
}

void mxrt_graph_remove(struct mxrt_graph *g, struct mxrt_node *n) {
    about_to_change(g);
    unmark(g, n);
    link_out(g, n);
    order_remove(&g->order, n);
    if (n->release)
        n->release(n->context);
    free(n);
    g->size--;
}

mx_status mxrt_graph_rewire(struct mxrt_graph *g, struct mxrt_node *n, const struct mxrt_var *reads, int read_count,
                            const struct mxrt_var *writes, int write_count, struct mxrt_why *why) {
    about_to_change(g);
    struct mxrt_op d = n->op;
    d.reads = reads;
    d.read_count = read_count;
    d.writes = writes;
    d.write_count = write_count;
    struct mxrt_node wired;
    mx_status status = wire(g, n, &d, &wired, why);
    if (status != MX_OK)
        return status;
    link_out(g, n);
    n->op = wired.op;
    n->links = wired.links;
    n->link_count = wired.link_count;
    link_in(g, n);
    return MX_OK;
}

/* ---- running */

static int by_label(const void *a, const void *b) {
    uint64_t x = (*(struct mxrt_node *const *)a)->label, y = (*(struct mxrt_node *const *)b)->label;
    return (x > y) - (x < y);
}

/* The marked nodes in their order; the result is in `stack`. */
static void sort(struct mxrt_graph *g) {
    struct nodes *s = &g->stack;
    if (g->marked.count > g->size / 16) {
        for (struct mxrt_node *n = g->order.first; n; n = n->next) {
            if (n->mark != CLEAN)
                s->at[s->count++] = n;
        }
    } else {
        memcpy(s->at, g->marked.at, (size_t)g->marked.count * sizeof *s->at);
        s->count = g->marked.count;
        qsort(s->at, (size_t)s->count, sizeof *s->at, by_label);
    }
}

enum { BATCH_OF_PUSHES = 32 };

/* The next nodes of the stack from i on; how many could be pushed. */
static int64_t push_batch(struct mxrt_graph *g, int64_t i, struct latch *latch, mx_status *status,
                          struct mxrt_why *why) {
    struct mxrt_engine *e = g->engine;
    struct ready ready = {{0}, {0}};
    int64_t from = i;
    while (i < g->stack.count && i < from + BATCH_OF_PUSHES) {
        struct op *op;
        if ((*status = push_prepare(e, &g->stack.at[i]->op, 0, &op, why)) != MX_OK)
            break;
        op->latch = latch;
        push_register(e, op, &ready);
        i++;
    }
    spin_unlock(&e->push);
    if (ready.normal.first)
        queue_dispatch(e, NULL, &ready);
    return i - from;
}

/* Without workers: node i, at once where possible. */
static bool push_one(struct mxrt_graph *g, int64_t i, struct latch *latch, mx_status *status, struct mxrt_why *why) {
    struct mxrt_engine *e = g->engine;
    const struct mxrt_op *d = &g->stack.at[i]->op;
    struct error *failed = NULL;
    struct op *op;
    if (push_call(e, d, &failed, status, why)) {
        if (*status == MX_OK && !failed)
            atomic_fetch_sub_explicit(&latch->left, 1, memory_order_relaxed);
        else if (failed)
            latch_signal(e, latch, failed);
        if (failed)
            error_drop(failed);
    } else if ((*status = push_prepare(e, d, 0, &op, why)) == MX_OK) {
        op->latch = latch;
        push_enter(e, op);
    } else {
        spin_unlock(&e->push);
    }
    return *status == MX_OK;
}

/* How many could be pushed. The latch has one count of its own, so none of them ends it. */
static int64_t push_all(struct mxrt_graph *g, struct latch *latch, mx_status *status, struct mxrt_why *why) {
    struct mxrt_engine *e = g->engine;
    int64_t i = 0;
    while (i < g->stack.count && *status == MX_OK) {
        if ((*status = engine_begin(e, false, why)) != MX_OK)
            break;
        i += e->workers > 0 ? push_batch(g, i, latch, status, why) : push_one(g, i, latch, status, why);
    }
    return i;
}

/* What ran is clean; what did not is to run again. Values go on to the next run. */
static int64_t settle(struct mxrt_graph *g) {
    int64_t ran = 0;
    for (int64_t i = 0; i < g->stack.count; i++) {
        struct mxrt_node *n = g->stack.at[i];
        for (int k = 0; k < n->link_count; k++) {
            if (n->links[k].write)
                n->links[k].place->holder = n->ran ? &n->links[k] : NULL;
        }
        if (n->ran)
            unmark(g, n);
        else
            n->mark = CHANGED;
        ran += n->ran;
    }
    for (int64_t i = 0; i < g->stack.count; i++) {
        struct mxrt_node *n = g->stack.at[i];
        for (int k = 0; k < n->link_count; k++) {
            const struct link *l = &n->links[k];
            if (l->write && n->ran && (l->place->writers == 1 || !tree_writer_after(l)))
                mark_first_readers(g, l->place);
        }
    }
    g->stack.count = 0;
    return ran;
}

static bool touched_as_before(const struct mxrt_graph *g) {
    return g->touched.count == g->touched_before.count &&
           (g->touched.count == 0 ||
            memcmp(g->touched.at, g->touched_before.at, (size_t)g->touched.count * sizeof(struct place *)) == 0);
}

/* Notes what this run begins with. */
static bool note_state(struct mxrt_graph *g) {
    if (g->marked.count > g->found_room) {
        struct mark_of *more = realloc(g->found, (size_t)g->marked.room * sizeof *more);
        if (!more)
            return false;
        g->found = more;
        g->found_room = g->marked.room;
    }
    g->found_count = g->marked.count;
    for (int64_t i = 0; i < g->marked.count; i++)
        g->found[i] = (struct mark_of){g->marked.at[i], g->marked.at[i]->mark};
    return true;
}

static bool state_as_noted(const struct mxrt_graph *g) {
    for (int64_t i = 0; i < g->found_count; i++) {
        if (g->found[i].node->mark != g->found[i].mark)
            return false;
    }
    return g->marked.count == g->found_count;
}

/* What is in the stack: by pushes. */
static mx_status run_by_pushes(struct mxrt_graph *g, struct latch *latch, struct mxrt_why *why) {
    struct mxrt_engine *e = g->engine;
    mx_status status = MX_OK;
    for (int64_t i = 0; i < g->stack.count; i++)
        g->stack.at[i]->ran = false;
    atomic_store_explicit(&latch->left, g->stack.count + 1, memory_order_relaxed);
    int64_t pushed = push_all(g, latch, &status, why);
    atomic_fetch_sub_explicit(&latch->left, g->stack.count - pushed, memory_order_relaxed);
    latch_signal(e, latch, NULL);
    threads_help(e, latch);
    wait_until(e, latch, HUGE_VAL);
    return status;
}

static void mark_affected(struct mxrt_graph *g) {
    mark_all_touched(g);
    spread_marks(g);
    sort(g);
}

/* One run; `ran`: how many nodes. */
static mx_status run_affected(struct mxrt_graph *g, struct latch *latch, int64_t *ran, struct mxrt_why *why) {
    mx_status status = MX_OK;
    bool as_before = g->settled && touched_as_before(g), planned = false;
    if (as_before && g->plan) {
        planned = plan_run(g->plan, latch);
        if (planned && plan_complete(g->plan)) { /* all is as it was before the touches */
            for (int64_t i = 0; i < g->touched.count; i++)
                g->touched.at[i]->touched = false;
            g->touched.count = 0;
            *ran = plan_nodes(g->plan);
            return MX_OK;
        }
        mark_affected(g); /* the plan's nodes */
    } else {
        bool noted = g->settled && note_state(g);
        plan_drop(g->plan);
        g->plan = NULL;
        g->repeats &= as_before && noted;
        g->settled &= noted;
        struct places before = g->touched_before;
        g->touched_before = g->touched;
        g->touched = before;
        g->touched.count = 0;
        for (int64_t i = 0; i < g->touched_before.count; i++)
            mark_touched(g, g->touched_before.at[i]);
        spread_marks(g);
        sort(g);
        if (g->repeats && g->stack.count > 0 && (g->plan = plan_make(g->engine, &g->gate, g->stack.at, g->stack.count)))
            planned = plan_run(g->plan, latch);
    }
    if (planned)
        plan_tell(g->plan);
    else
        status = run_by_pushes(g, latch, why);
    int64_t all = g->stack.count;
    *ran = settle(g);
    bool noted = g->settled;
    g->settled = *ran == all;
    g->repeats = g->settled && noted && state_as_noted(g);
    if (!g->repeats) {
        plan_drop(g->plan);
        g->plan = NULL;
    }
    return status;
}

mx_status mxrt_graph_run(struct mxrt_graph *g, int64_t *ran, struct mxrt_why *why) {
    struct mxrt_engine *e = g->engine;
    int64_t count = 0;
    if (ran)
        *ran = 0;
    if (engine_frame(e))
        return engine_fail(why, MX_ERROR_ARGUMENT, "a graph cannot be run from inside an operation of its engine");
    mx_status status = mxrt_engine_flush(e, why);
    if (status != MX_OK || g->marked.count + g->touched.count == 0)
        return status;
    struct latch *latch = latch_new(1);
    if (!latch)
        return engine_fail(why, MX_ERROR_MEMORY, "no memory to run a graph");
    latch->skipped_too = true;
    status = run_affected(g, latch, &count, why);
    if (status == MX_OK)
        status = latch_failure(e, latch, true, why);
    else
        (void)latch_failure(e, latch, true, NULL);
    latch_drop(e, latch);
    if (ran)
        *ran = count;
    return status;
}

void mxrt_graph_destroy(struct mxrt_graph *g) {
    if (!g)
        return;
    while (g->order.last)
        mxrt_graph_remove(g, g->order.last);
    forget_plan(g);
    free(g->places);
    free(g->touched.at);
    free(g->touched_before.at);
    free(g->found);
    free(g->marked.at);
    free(g->stack.at);
    free(g);
}
