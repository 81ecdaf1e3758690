/* The graph layer: which nodes run after which change, and that the result is that of running all of them.
 *
 * Usage: test_graph [rounds [seed]] */
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "mxrt/graph.h"

enum { VARIABLES = 24, MOST_NODES = 40, MOST = 4 };

struct work {
    int reads[MOST], writes[MOST], read_count, write_count;
    uint64_t salt, *values;
    bool fails;
    struct mxrt_node *node;
    _Atomic int runs, ends;
};

/* What it only writes, it does not read. */
static void compute(const struct work *w, uint64_t *values) {
    uint64_t h = w->salt;
    for (int i = 0; i < w->read_count; i++)
        h = (h ^ values[w->reads[i]]) * 0x9E3779B97F4A7C15u + (h >> 31);
    for (int i = 0; i < w->write_count; i++)
        values[w->writes[i]] = h + (uint64_t)i;
}

static mx_status run(void *context, struct mxrt_why *why) {
    struct work *w = context;
    if (w->fails)
        return mxrt_fail(why, MX_ERROR_CHECK, "as planned");
    atomic_fetch_add(&w->runs, 1);
    compute(w, w->values);
    return MX_OK;
}

static void ended(void *context) {
    atomic_fetch_add(&((struct work *)context)->ends, 1);
}

static struct mxrt_op describe(struct work *w, const struct mxrt_var *vars, struct mxrt_var *reads,
                               struct mxrt_var *writes) {
    for (int i = 0; i < w->read_count; i++)
        reads[i] = vars[w->reads[i]];
    for (int i = 0; i < w->write_count; i++)
        writes[i] = vars[w->writes[i]];
    return (struct mxrt_op){.name = "node",
                            .run = run,
                            .release = ended,
                            .context = w,
                            .reads = reads,
                            .writes = writes,
                            .read_count = w->read_count,
                            .write_count = w->write_count};
}

static void add(struct mxrt_graph *g, struct work *w, const struct mxrt_var *vars, struct mxrt_node *before) {
    struct mxrt_var reads[MOST], writes[MOST];
    struct mxrt_op op = describe(w, vars, reads, writes);
    OK(mxrt_graph_add(g, &op, before, &w->node, why));
}

static void expect(struct mxrt_graph *g, int64_t nodes) {
    int64_t ran;
    OK(mxrt_graph_run(g, &ran, why));
    if (ran != nodes) {
        fprintf(stderr, "%d nodes ran, %d expected\n", (int)ran, (int)nodes);
        exit(1);
    }
}

/* x -> a -> b -> y, and z -> c -> y2 beside it. */
static void what_runs(struct mxrt_engine *e) {
    struct mxrt_graph *g;
    struct mxrt_var v[8];
    uint64_t x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (int i = 0; i < 8; i++)
        OK(mxrt_var_new(e, NULL, &v[i], why));
    OK(mxrt_graph_create(e, &g, why));
    expect(g, 0);
    struct work a = {{0}, {1}, 1, 1, 10, x, false, NULL, 0, 0}, b = {{1}, {2}, 1, 1, 20, x, false, NULL, 0, 0},
                c = {{3}, {4}, 1, 1, 30, x, false, NULL, 0, 0}, d = {{2, 4}, {5}, 2, 1, 40, x, false, NULL, 0, 0};
    add(g, &a, v, NULL);
    add(g, &d, v, NULL);
    add(g, &b, v, d.node);
    add(g, &c, v, d.node);
    CHECK(mxrt_graph_size(g) == 4);
    expect(g, 4);
    expect(g, 0);
    mxrt_graph_touch(g, v[3]);
    expect(g, 2); /* c, d */
    mxrt_graph_touch(g, v[0]);
    expect(g, 3); /* a, b, d */
    mxrt_graph_touch(g, v[5]);
    expect(g, 1); /* d puts its result back */
    mxrt_graph_touch(g, v[7]);
    expect(g, 0);
    mxrt_graph_touch(g, v[1]);
    expect(g, 1); /* a restores what b has read */
    /* d reads c's input in place of its output: only d is affected. */
    OK(mxrt_graph_rewire(g, d.node, (struct mxrt_var[]){v[2], v[3]}, 2, &v[5], 1, why));
    d.reads[1] = 3;
    expect(g, 1);
    mxrt_graph_remove(g, c.node);
    CHECK(c.ends == 1);
    expect(g, 0);
    /* One that counts in place runs each time, as does what follows it. */
    struct work counter = {{6}, {6}, 1, 1, 50, x, false, NULL, 0, 0},
                reader = {{6}, {7}, 1, 1, 60, x, false, NULL, 0, 0};
    add(g, &counter, v, NULL);
    add(g, &reader, v, NULL);
    expect(g, 2);
    expect(g, 2);
    mxrt_graph_remove(g, counter.node);
    expect(g, 1);
    expect(g, 0);
    /* A failure: the node and those behind it are still to run. */
    b.fails = true;
    mxrt_graph_touch(g, v[0]);
    int64_t ran;
    FAILS(MX_ERROR_CHECK, "operation `node`: as planned", mxrt_graph_run(g, &ran, why));
    CHECK(ran == 1);
    FAILS(MX_ERROR_CHECK, "operation `node`: as planned", mxrt_graph_run(g, &ran, why));
    CHECK(ran == 0);
    b.fails = false;
    expect(g, 2);
    OK(mxrt_engine_wait_all(e, why));
    struct mxrt_op bad = {.name = "bad", .run = run, .reads = &(struct mxrt_var){12345678}, .read_count = 1};
    FAILS(MX_ERROR_ARGUMENT, "deleted", mxrt_graph_add(g, &bad, NULL, NULL, why));
    FAILS(MX_ERROR_ARGUMENT, "deleted", mxrt_graph_rewire(g, d.node, bad.reads, 1, NULL, 0, why));
    FAILS(MX_ERROR_ARGUMENT, "run", mxrt_graph_add(g, &(struct mxrt_op){0}, NULL, NULL, why));
    expect(g, 0);
    mxrt_graph_destroy(g);
    CHECK(a.ends == 1 && b.ends == 1 && d.ends == 1 && reader.ends == 1);
}

static void wire(struct work *w, struct random *r, bool in_place) {
    bool used[VARIABLES] = {false};
    w->read_count = w->write_count = 0;
    int reads = (int)draw(r, MOST), writes = 1 + (int)draw(r, 2);
    for (int i = 0; i < writes; i++) {
        int v = (int)draw(r, VARIABLES);
        if (!used[v])
            w->writes[w->write_count++] = v;
        used[v] = true;
    }
    for (int i = 0; i < reads; i++) {
        int v = (int)draw(r, VARIABLES);
        if (!used[v] || (in_place && draw(r, 2) == 0)) {
            for (int k = 0; k < w->read_count; k++) {
                if (w->reads[k] == v)
                    goto next;
            }
            w->reads[w->read_count++] = v;
        }
    next:;
    }
}

/* Random changes; after each, the graph has run what it must when all values are those of running everything. */
static void random_changes(struct mxrt_engine *e, uint64_t seed, int steps) {
    struct random r = {seed};
    struct mxrt_graph *g;
    struct mxrt_var vars[VARIABLES];
    uint64_t values[VARIABLES], model[VARIABLES];
    struct work nodes[MOST_NODES], *order[MOST_NODES];
    int count = 0;
    bool in_place = draw(&r, 2), taken[MOST_NODES] = {false};
    int64_t most = 0, all = 0;
    for (int i = 0; i < VARIABLES; i++) {
        OK(mxrt_var_new(e, NULL, &vars[i], why));
        values[i] = model[i] = (uint64_t)i;
    }
    OK(mxrt_graph_create(e, &g, why));
    for (int step = 0; step < steps; step++) {
        for (uint32_t changes = draw(&r, 4); changes > 0; changes--) {
            uint32_t what = draw(&r, 8);
            int at = (int)draw(&r, (uint32_t)count + 1);
            if (what < 3 && count < MOST_NODES) {
                int n = 0;
                while (taken[n])
                    n++;
                taken[n] = true;
                nodes[n] = (struct work){.salt = draw(&r, 1u << 30), .values = values};
                wire(&nodes[n], &r, in_place);
                add(g, &nodes[n], vars, at < count ? order[at]->node : NULL);
                memmove(order + at + 1, order + at, (size_t)(count++ - at) * sizeof *order);
                order[at] = &nodes[n];
            } else if (what == 3 && at < count) {
                struct work *w = order[at];
                mxrt_graph_remove(g, w->node);
                CHECK(w->ends == 1);
                taken[w - nodes] = false;
                memmove(order + at, order + at + 1, (size_t)(--count - at) * sizeof *order);
            } else if (what == 4 && at < count) {
                struct mxrt_var reads[MOST], writes[MOST];
                wire(order[at], &r, in_place);
                struct mxrt_op op = describe(order[at], vars, reads, writes);
                OK(mxrt_graph_rewire(g, order[at]->node, reads, op.read_count, writes, op.write_count, why));
            } else {
                int v = (int)draw(&r, VARIABLES);
                values[v] = model[v] = draw(&r, 1u << 30);
                mxrt_graph_touch(g, vars[v]);
            }
        }
        /* Now and then again and again, with new values: then it goes by a plan. */
        int again[3] = {(int)draw(&r, VARIABLES), (int)draw(&r, VARIABLES), (int)draw(&r, VARIABLES)};
        for (uint32_t runs = draw(&r, 2) ? 1 : 1 + draw(&r, 6); runs > 0; runs--) {
            int64_t ran;
            OK(mxrt_graph_run(g, &ran, why));
            for (int i = 0; i < count; i++)
                compute(order[i], model);
            for (int i = 0; i < VARIABLES; i++) {
                if (values[i] != model[i]) {
                    fprintf(stderr, "seed %llu, step %d: variable %d\n", (unsigned long long)seed, step, i);
                    exit(1);
                }
            }
            most += ran;
            all += count;
            for (int i = 0; runs > 1 && i < 3; i++) {
                values[again[i]] = model[again[i]] = draw(&r, 1u << 30);
                mxrt_graph_touch(g, vars[again[i]]);
            }
        }
    }
    CHECK(in_place || most < all); /* it is worth something */
    mxrt_graph_destroy(g);
    for (int i = 0; i < VARIABLES; i++)
        OK(mxrt_var_delete(e, vars[i], NULL, NULL, why));
}

/* Insertions always at one place, until labels must move; a wide and a deep graph. */
static void large(struct mxrt_engine *e, int n) {
    struct mxrt_graph *g;
    struct work *w = calloc((size_t)n, sizeof *w);
    struct mxrt_var *vars = calloc((size_t)n + 1, sizeof *vars);
    uint64_t *values = calloc((size_t)n + 1, sizeof *values);
    OK(mxrt_graph_create(e, &g, why));
    for (int i = 0; i <= n; i++)
        OK(mxrt_var_new(e, NULL, &vars[i], why));
    for (int i = n; i-- > 0;) { /* a chain, its last node first */
        w[i] = (struct work){
            .reads = {i}, .writes = {i + 1}, .read_count = 1, .write_count = 1, .salt = 3, .values = values};
        add(g, &w[i], vars, i + 1 < n ? w[i + 1].node : NULL);
    }
    expect(g, n);
    mxrt_graph_touch(g, vars[n / 2]);
    expect(g, 1); /* the one that restores it */
    mxrt_graph_touch(g, vars[0]);
    expect(g, n);
    mxrt_graph_destroy(g);
    OK(mxrt_graph_create(e, &g, why));
    for (int i = 0; i < n; i++) { /* all read the first */
        w[i].reads[0] = 0;
        add(g, &w[i], vars, i % 2 ? w[i - 1].node : NULL);
    }
    expect(g, n);
    mxrt_graph_touch(g, vars[0]);
    expect(g, n);
    for (int i = 0; i < n; i++) {
        CHECK(w[i].runs >= 4);
        mxrt_graph_remove(g, w[i].node);
    }
    CHECK(mxrt_graph_size(g) == 0);
    mxrt_graph_destroy(g);
    free(values);
    free(vars);
    free(w);
}

/* A run among other operations: x -> a -> m -> b -> y, and what `during` pushes while a runs. */
struct meeting {
    struct mxrt_engine *e;
    struct mxrt_var v[3];
    int x, m, y, copy, round;
    bool fails;
    uint64_t seen; /* y's version */
};

static mx_status copy_y(void *context, struct mxrt_why *why) {
    struct meeting *t = context;
    t->copy = t->y;
    return MX_OK;
}

static mx_status next_x(void *context, struct mxrt_why *why) {
    struct meeting *t = context;
    t->x += 1000;
    return MX_OK;
}

static mx_status x_to_m(void *context, struct mxrt_why *why) {
    struct meeting *t = context;
    struct mxrt_op copy = {.name = "copy", .run = copy_y, .context = t, .reads = &t->v[2], .read_count = 1},
                   next = {.name = "next", .run = next_x, .context = t, .writes = &t->v[0], .write_count = 1};
    mx_status status = mxrt_engine_push(t->e, &copy, why);
    if (status == MX_OK)
        status = mxrt_engine_push(t->e, &next, why);
    if (status != MX_OK)
        return status;
    sleep_us(1000); /* both would have run by now */
    if (t->fails)
        return mxrt_fail(why, MX_ERROR_CHECK, "round %d", t->round);
    t->m = t->x;
    return MX_OK;
}

static mx_status m_to_y(void *context, struct mxrt_why *why) {
    struct meeting *t = context;
    sleep_us(1000);
    t->y = 2 * t->m;
    return MX_OK;
}

static void *wait_for_y(void *context) {
    struct meeting *t = context;
    OK(mxrt_engine_wait_var(t->e, t->v[2], why));
    t->seen = mxrt_var_version(t->e, t->v[2]);
    return NULL;
}

/* What is pushed during a run follows it where they meet, also where nothing was pushed for the run. */
static void among_others(struct mxrt_engine *e, bool threads) {
    struct meeting t = {.e = e};
    struct mxrt_graph *g;
    int64_t ran;
    for (int i = 0; i < 3; i++)
        OK(mxrt_var_new(e, NULL, &t.v[i], why));
    OK(mxrt_graph_create(e, &g, why));
    struct mxrt_op a = {.name = "a",
                        .run = x_to_m,
                        .context = &t,
                        .reads = &t.v[0],
                        .read_count = 1,
                        .writes = &t.v[1],
                        .write_count = 1},
                   b = {.name = "b",
                        .run = m_to_y,
                        .context = &t,
                        .reads = &t.v[1],
                        .read_count = 1,
                        .writes = &t.v[2],
                        .write_count = 1};
    OK(mxrt_graph_add(g, &a, NULL, NULL, why));
    OK(mxrt_graph_add(g, &b, NULL, NULL, why));
    uint64_t writes = 0;
    for (t.round = 0; t.round < 12; t.round++) {
        t.fails = t.round == 6 || t.round == 11;
        t.x = t.round;
        mxrt_graph_touch(g, t.v[0]);
        pthread_t other;
        bool waits = threads && t.round % 2 && !t.fails;
        if (waits)
            CHECK(pthread_create(&other, NULL, wait_for_y, &t) == 0);
        if (t.fails) {
            FAILS(MX_ERROR_CHECK, "operation `a`: round", mxrt_graph_run(g, &ran, why));
            CHECK(ran == 0);
        } else {
            OK(mxrt_graph_run(g, &ran, why));
            CHECK(ran == 2);
        }
        writes++;
        if (waits) {
            pthread_join(other, NULL);
            CHECK(t.seen == writes || t.seen == writes - 1);
        }
        OK(mxrt_engine_wait_all(e, why));
        CHECK(t.x == t.round + 1000 &&
              (t.fails || (t.m == t.round && t.y == 2 * t.round && (!threads || t.copy == t.y))));
        CHECK(mxrt_var_version(e, t.v[1]) == writes && mxrt_var_version(e, t.v[2]) == writes);
        CHECK(mxrt_var_version(e, t.v[0]) == writes);
    }
    OK(mxrt_var_delete(e, t.v[1], NULL, NULL, why)); /* one that a plan knows */
    t.fails = false;
    for (int i = 0; i < 3; i++) {
        mxrt_graph_touch(g, t.v[0]);
        FAILS(MX_ERROR_ARGUMENT, "deleted", mxrt_graph_run(g, &ran, why));
    }
    mxrt_graph_destroy(g);
    OK(mxrt_engine_wait_all(e, why));
}

/* Two graphs with the same variable take turns, each by a plan where it can. */
static void shared(struct mxrt_engine *e) {
    struct mxrt_graph *g[2];
    struct mxrt_var v[3];
    uint64_t x[3] = {1, 0, 0}, y[3] = {1, 0, 0};
    for (int i = 0; i < 3; i++)
        OK(mxrt_var_new(e, NULL, &v[i], why));
    struct work up = {{0}, {1}, 1, 1, 7, x, false, NULL, 0, 0}, down = {{1}, {2}, 1, 1, 9, x, false, NULL, 0, 0};
    for (int i = 0; i < 2; i++) {
        OK(mxrt_graph_create(e, &g[i], why));
        add(g[i], i ? &down : &up, v, NULL);
    }
    for (int round = 0; round < 8; round++) {
        x[0] = y[0] = (uint64_t)round;
        for (int i = 0; i < 2; i++) {
            mxrt_graph_touch(g[i], v[i]);
            expect(g[i], 1);
        }
        compute(&up, y);
        compute(&down, y);
        CHECK(x[1] == y[1] && x[2] == y[2]);
        CHECK(mxrt_var_version(e, v[1]) == (uint64_t)round + 1 && mxrt_var_version(e, v[2]) == (uint64_t)round + 1);
    }
    mxrt_graph_destroy(g[0]);
    for (int round = 0; round < 4; round++) { /* now the other one has it alone */
        mxrt_graph_touch(g[1], v[1]);
        expect(g[1], 1);
    }
    mxrt_graph_destroy(g[1]);
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 200;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL) * 1000;
    printf("%d rounds, seed %llu\n", rounds, (unsigned long long)seed);
    fflush(stdout);
    for (int threads = 0; threads <= 4; threads++) {
        struct mxrt_engine *e;
        OK(mxrt_engine_create(&e,
                              &(struct mxrt_engine_options){.kind = threads ? MXRT_ENGINE_THREADED : MXRT_ENGINE_NAIVE,
                                                            .threads = threads},
                              why));
        what_runs(e);
        for (int i = 0; i < rounds; i++)
            random_changes(e, seed + (uint64_t)(threads * rounds + i), 40);
        large(e, 20 * rounds);
        among_others(e, threads > 1);
        shared(e);
        mxrt_engine_destroy(e);
    }
    return 0;
}
