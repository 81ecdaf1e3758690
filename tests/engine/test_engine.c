/* The engine's rules one by one: those of MXNet's tests, restated, and what those leave out. A and B: the rules and tests of the
 * list this follows; B2 is test_engine_random.c, and B10's graphs are in test_graph.c. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "mxrt/engine.h"

static const struct mxrt_engine_options kinds[] = {
    {.kind = MXRT_ENGINE_NAIVE},
    {.threads = 1},
    {.threads = 2},
    {.threads = 4, .io_threads = 2},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static struct mxrt_engine *make(struct mxrt_engine_options o) {
    struct mxrt_engine *e;
    OK(mxrt_engine_create(&e, &o, why));
    return e;
}

static struct mxrt_var var(struct mxrt_engine *e, const char *name) {
    struct mxrt_var v;
    OK(mxrt_var_new(e, name, &v, why));
    return v;
}

static mx_status nothing(void *context, struct mxrt_why *why) {
    return MX_OK;
}

static mx_status fail(void *context, struct mxrt_why *why) {
    return mxrt_fail(why, MX_ERROR_NUMERIC, "%s", (const char *)context);
}

static mx_status count(void *context, struct mxrt_why *why) {
    atomic_fetch_add((_Atomic int *)context, 1);
    return MX_OK;
}

static void released(void *context) {
    atomic_fetch_add((_Atomic int *)context, 1);
}

static void push(struct mxrt_engine *e, mxrt_op_fn *run, void *context, const struct mxrt_var *read,
                 const struct mxrt_var *write) {
    OK(mxrt_engine_push(e,
                        &(struct mxrt_op){.run = run,
                                          .context = context,
                                          .reads = read,
                                          .read_count = read != NULL,
                                          .writes = write,
                                          .write_count = write != NULL},
                        why));
}

/* ---- a gate: an operation that ends when the test says so */

struct gate {
    _Atomic bool begun;
    struct mxrt_token token;
};

static void begin(void *context, struct mxrt_token token) {
    struct gate *g = context;
    g->token = token;
    atomic_store(&g->begun, true);
}

static void shut(struct mxrt_engine *e, struct gate *g, const char *name, struct mxrt_var v) {
    *g = (struct gate){false};
    OK(mxrt_engine_push(
        e,
        &(struct mxrt_op){
            .name = name, .start = begin, .context = g, .writes = &v, .write_count = 1, .lane = MXRT_LANE_INLINE},
        why));
    while (!atomic_load(&g->begun))
        sleep_us(20);
}

static void open_gate(struct mxrt_engine *e, struct gate *g) {
    CHECK(mxrt_op_complete(e, g->token, MX_OK, NULL) == MX_OK);
}

/* ---- */

static void start_and_stop(void) { /* B1, A16 */
    for (int k = 0; k < KINDS; k++) {
        struct mxrt_engine *e = make(kinds[k]);
        struct mxrt_var v = var(e, "v");
        _Atomic int n = 0;
        for (int round = 0; round < 3; round++) {
            push(e, count, (void *)&n, NULL, &v);
            OK(mxrt_engine_stop(e, why));
            CHECK(n == round + 1);
            FAILS(MX_ERROR_ARGUMENT, "stopped", mxrt_engine_push(e, &(struct mxrt_op){.run = nothing}, why));
            OK(mxrt_engine_stop(e, why));
            OK(mxrt_engine_wait_all(e, why));
            OK(mxrt_engine_wait_var(e, v, why));
            OK(mxrt_engine_start(e, why));
            OK(mxrt_engine_start(e, why));
        }
        OK(mxrt_engine_stop(e, why));
        OK(mxrt_var_delete(e, v, released, (void *)&n, why)); /* deletions always run */
        CHECK(n == 4);
        mxrt_engine_destroy(e);
    }
    mxrt_engine_destroy(NULL);
}

struct sum {
    const double *in[10];
    double *out;
    int n, id;
    int *order, *at;
};

static mx_status add(void *context, struct mxrt_why *why) {
    struct sum *s = context;
    double x = 0;
    for (int i = 0; i < s->n; i++)
        x += *s->in[i];
    *s->out = x + s->id;
    return MX_OK;
}

static void push_functions(void) { /* B3, B4 */
    for (int k = 0; k < KINDS; k++) {
        struct mxrt_engine *e = make(kinds[k]);
        struct mxrt_var v[5];
        double x[5];
        for (int i = 0; i < 5; i++) {
            v[i] = var(e, NULL);
            x[i] = i;
        }
        _Atomic int runs = 0, ends = 0;
        for (int reads = 0; reads <= 5; reads++) { /* all splits of five variables */
            struct mxrt_op op = {.run = count,
                                 .context = (void *)&runs,
                                 .reads = v,
                                 .read_count = reads,
                                 .writes = v + reads,
                                 .write_count = 5 - reads};
            OK(mxrt_engine_push(e, &op, why));
        }
        struct mxrt_op op = {
            .run = nothing, .context = (void *)&ends, .release = released, .reads = v, .read_count = 1};
        OK(mxrt_engine_push(e, &op, why));
        struct sum s = {{&x[1], &x[2]}, &x[0], 2, 100, NULL, NULL};
        OK(mxrt_engine_push(
            e,
            &(struct mxrt_op){
                .run = add, .context = &s, .reads = v + 1, .read_count = 2, .writes = v, .write_count = 1},
            why));
        OK(mxrt_engine_wait_var(e, v[0], why));
        OK(mxrt_engine_wait_all(e, why));
        CHECK(runs == 6 && ends == 1 && x[0] == 103);
        FAILS(MX_ERROR_ARGUMENT, "negative",
              mxrt_engine_push(e, &(struct mxrt_op){.run = nothing, .read_count = -1}, why));
        FAILS(MX_ERROR_ARGUMENT, "negative",
              mxrt_engine_push(e, &(struct mxrt_op){.run = nothing, .write_count = -1}, why));
        FAILS(MX_ERROR_ARGUMENT, "missing",
              mxrt_engine_push(e, &(struct mxrt_op){.run = nothing, .read_count = 1}, why));
        FAILS(MX_ERROR_ARGUMENT, "run", mxrt_engine_push(e, &(struct mxrt_op){.name = "empty"}, why));
        FAILS(MX_ERROR_ARGUMENT, "run", mxrt_engine_push(e, &(struct mxrt_op){.run = nothing, .start = begin}, why));
        FAILS(MX_ERROR_ARGUMENT, "lane",
              mxrt_engine_push(e, &(struct mxrt_op){.run = nothing, .lane = (enum mxrt_lane)9}, why));
        FAILS(MX_ERROR_ARGUMENT, "engine", mxrt_engine_push(NULL, &op, why));
        FAILS(MX_ERROR_ARGUMENT, "threads", mxrt_engine_create(&e, &(struct mxrt_engine_options){.threads = -1}, why));
        mxrt_engine_destroy(e);
    }
}

/* Readers of one variable run side by side: each waits until all have begun. */
struct meeting {
    _Atomic int here;
    int wanted;
};

static mx_status meet(void *context, struct mxrt_why *why) {
    struct meeting *m = context;
    atomic_fetch_add(&m->here, 1);
    while (atomic_load(&m->here) < m->wanted)
        sleep_us(100);
    return MX_OK;
}

static mx_status note(void *context, struct mxrt_why *why) {
    struct sum *s = context;
    s->order[(*s->at)++] = s->id; /* no lock: the engine runs them one by one */
    return MX_OK;
}

static void basics(void) { /* B5 */
    struct mxrt_engine *e = make((struct mxrt_engine_options){.threads = 11});
    struct mxrt_var v = var(e, "v"), unused = var(e, "unused");
    struct meeting m = {0, 10};
    for (int i = 0; i < 10; i++)
        push(e, meet, &m, &v, NULL);
    OK(mxrt_engine_wait_all(e, why));
    int order[10], at = 0;
    struct sum s[10];
    for (int i = 0; i < 10; i++) {
        s[i] = (struct sum){.id = i, .order = order, .at = &at};
        push(e, note, &s[i], NULL, &v);
    }
    OK(mxrt_engine_wait_var(e, v, why));
    for (int i = 0; i < 10; i++)
        CHECK(order[i] == i);
    OK(mxrt_engine_wait_var(e, unused, why));
    /* A pending read does not hold a wait for its variable. */
    m = (struct meeting){0, 2};
    push(e, meet, &m, &v, NULL);
    OK(mxrt_engine_wait_var(e, v, why));
    CHECK(m.here < 2);
    FAILS(MX_ERROR_TIMEOUT, "operation 2", mxrt_engine_wait_all_for(e, 0.02, why));
    atomic_fetch_add(&m.here, 1);
    OK(mxrt_engine_wait_all(e, why));
    mxrt_engine_destroy(e);
}

static void io_lane(void) { /* B5, the copies */
    for (int k = 0; k < KINDS; k++) {
        struct mxrt_engine *e = make(kinds[k]);
        struct mxrt_var v = var(e, "v");
        double x = 0;
        struct sum s = {.out = &x, .id = 7};
        OK(mxrt_engine_push(
            e, &(struct mxrt_op){.run = add, .context = &s, .writes = &v, .write_count = 1, .lane = MXRT_LANE_IO},
            why));
        OK(mxrt_engine_wait_var(e, v, why));
        CHECK(x == 7);
        mxrt_engine_destroy(e);
    }
}

static void versions(void) { /* B6, A3 */
    for (int k = 0; k < KINDS; k++) {
        struct mxrt_engine *e = make(kinds[k]);
        struct mxrt_var v = var(e, "v");
        for (int i = 0; i < 10; i++)
            push(e, nothing, NULL, &v, NULL);
        OK(mxrt_engine_wait_all(e, why));
        CHECK(mxrt_var_version(e, v) == 0);
        for (int i = 0; i < 10; i++)
            push(e, nothing, NULL, NULL, &v);
        OK(mxrt_engine_wait_var(e, v, why));
        CHECK(mxrt_var_version(e, v) == 10);
        struct mxrt_why words;
        (void)mxrt_engine_push(e, &(struct mxrt_op){.run = fail, .context = "x", .writes = &v, .write_count = 1},
                               &words);
        push(e, nothing, NULL, NULL, &v); /* skipped */
        CHECK(mxrt_engine_wait_all(e, &words) == MX_ERROR_NUMERIC);
        CHECK(mxrt_var_version(e, v) == 12);
        CHECK(mxrt_var_version(e, (struct mxrt_var){0}) == UINT64_MAX);
        mxrt_engine_destroy(e);
    }
}

static void own_data_of_threads(void) { /* B7: what operations keep a thread stays that thread's */
    static _Thread_local int mine;
    struct mxrt_engine *e = make((struct mxrt_engine_options){.threads = 4});
    mine = 42;
    struct meeting m = {0, 3};
    for (int i = 0; i < 3; i++)
        push(e, meet, &m, NULL, NULL);
    OK(mxrt_engine_wait_all(e, why));
    CHECK(mine == 42);
    mxrt_engine_destroy(e);
}

static void duplicates(void) { /* A4 */
    for (int k = 0; k < KINDS; k++) {
        struct mxrt_engine *e = make(kinds[k]);
        struct mxrt_var a = var(e, "a"), b = var(e, "b");
        struct mxrt_var aba[3] = {a, b, a};
        struct mxrt_op op = {.name = "twice", .run = nothing, .reads = aba, .read_count = 3};
        FAILS(MX_ERROR_ARGUMENT, "`twice`: read 2, `a`, stands twice among the reads", mxrt_engine_push(e, &op, why));
        op = (struct mxrt_op){.name = "twice", .run = nothing, .writes = aba, .write_count = 3};
        FAILS(MX_ERROR_ARGUMENT, "write 2, `a`, stands twice among the writes", mxrt_engine_push(e, &op, why));
        op = (struct mxrt_op){
            .name = "twice", .run = nothing, .reads = aba, .read_count = 2, .writes = &a, .write_count = 1};
        FAILS(MX_ERROR_ARGUMENT, "write 0, `a`, stands among both", mxrt_engine_push(e, &op, why));
        struct mxrt_var reads[6] = {b, a, b, b, a, b}, writes[3] = {a, a, a};
        int read_count = 6, write_count = 3;
        mxrt_var_dedupe(reads, &read_count, writes, &write_count);
        CHECK(read_count == 1 && reads[0].id == b.id && write_count == 1 && writes[0].id == a.id);
        op = (struct mxrt_op){.run = nothing, .reads = reads, .read_count = 1, .writes = writes, .write_count = 1};
        OK(mxrt_engine_push(e, &op, why));
        OK(mxrt_engine_wait_all(e, why));
        mxrt_engine_destroy(e);
    }
}

static void deletions(void) { /* A8, A12, bad input */
    for (int k = 0; k < KINDS; k++) {
        struct mxrt_engine *e = make(kinds[k]);
        struct mxrt_var v = var(e, "v"), w = var(e, "w");
        _Atomic int runs = 0, ends = 0;
        struct gate g;
        if (k > 0)
            shut(e, &g, "gate", v);
        push(e, count, (void *)&runs, &v, NULL);
        struct mxrt_why words;
        (void)mxrt_engine_push(e, &(struct mxrt_op){.run = fail, .context = "x", .writes = &v, .write_count = 1},
                               &words);
        OK(mxrt_var_delete(e, v, released, (void *)&ends, why));
        FAILS(MX_ERROR_ARGUMENT, "deleted",
              mxrt_engine_push(e, &(struct mxrt_op){.run = nothing, .reads = &v, .read_count = 1}, why));
        FAILS(MX_ERROR_ARGUMENT, "deleted", mxrt_var_delete(e, v, NULL, NULL, why));
        FAILS(MX_ERROR_ARGUMENT, "deleted", mxrt_engine_wait_var(e, v, why));
        CHECK(mxrt_var_version(e, v) == UINT64_MAX);
        if (k > 0) {
            CHECK(runs == 0 && ends == 0);
            open_gate(e, &g);
        }
        FAILS(MX_ERROR_NUMERIC, "x", mxrt_engine_wait_all(e, why));
        CHECK(runs == 1 && ends == 1); /* though the write before it failed */
        push(e, count, (void *)&runs, &w, NULL);
        OK(mxrt_engine_wait_all(e, why));
        CHECK(runs == 2);
        struct mxrt_var fresh = var(e, NULL); /* in the place of v: the old handle stays invalid */
        FAILS(MX_ERROR_ARGUMENT, "deleted",
              mxrt_engine_push(e, &(struct mxrt_op){.run = nothing, .writes = &v, .write_count = 1}, why));
        OK(mxrt_var_delete(e, fresh, NULL, NULL, why));
        mxrt_engine_destroy(e);
    }
}

static void operators(void) { /* A7 */
    for (int k = 0; k < KINDS; k++) {
        struct mxrt_engine *e = make(kinds[k]);
        struct mxrt_var v = var(e, "v");
        _Atomic int n = 0, ends = 0;
        struct mxrt_operator *o;
        OK(mxrt_operator_new(e, &(struct mxrt_op){.run = count, .context = (void *)&n, .writes = &v, .write_count = 1},
                             &o, why));
        for (int i = 0; i < 100; i++)
            OK(mxrt_operator_push(o, 0, why));
        mxrt_operator_delete(o);
        struct gate g;
        if (k > 0)
            shut(e, &g, "gate", v);
        OK(mxrt_operator_new(
            e,
            &(struct mxrt_op){
                .run = nothing, .context = (void *)&ends, .release = released, .writes = &v, .write_count = 1},
            &o, why));
        OK(mxrt_operator_push(o, 0, why));
        OK(mxrt_operator_push(o, 0, why));
        mxrt_operator_delete(o);
        CHECK(ends == (k == 0)); /* after its pushes */
        if (k > 0)
            open_gate(e, &g);
        OK(mxrt_engine_wait_all(e, why));
        CHECK(n == 100 && ends == 1);
        struct mxrt_var vv[2] = {v, v};
        FAILS(MX_ERROR_ARGUMENT, "twice",
              mxrt_operator_new(e, &(struct mxrt_op){.run = nothing, .reads = vv, .read_count = 2}, &o, why));
        mxrt_operator_delete(NULL);
        mxrt_engine_destroy(e);
    }
}

static void errors(void) { /* B10, A11, A12 */
    for (int k = 0; k < KINDS; k++) {
        struct mxrt_engine *e = make(kinds[k]);
        struct mxrt_var a = var(e, "a"), b = var(e, "b"), c = var(e, "c"), d = var(e, "d");
        struct mxrt_var ab[2] = {a, b};
        _Atomic int ran = 0, ends = 0;
        struct mxrt_op bad = {.name = "divide", .run = fail, .context = "by zero", .writes = ab, .write_count = 2};
        struct mxrt_why words;
        mx_status status = mxrt_engine_push(e, &bad, &words);
        CHECK(k == 0 ? status == MX_ERROR_NUMERIC && strstr(words.text, "by zero") : k == 1 || status == MX_OK);
        push(e, count, (void *)&ran, &a, &c); /* skipped: a's error goes on to c */
        push(e, count, (void *)&ran, &c, &d);
        OK(mxrt_engine_push(
            e,
            &(struct mxrt_op){
                .run = count, .context = (void *)&ran, .release = NULL, .reads = &a, .read_count = 1, .always = true},
            why));
        OK(mxrt_engine_push(
            e,
            &(struct mxrt_op){
                .run = nothing, .context = (void *)&ends, .release = released, .reads = &d, .read_count = 1},
            why));
        FAILS(MX_ERROR_NUMERIC, "operation `divide`: by zero", mxrt_engine_wait_var(e, d, why));
        OK(mxrt_engine_wait_var(e, a, why)); /* given once */
        OK(mxrt_engine_wait_var(e, b, why));
        OK(mxrt_engine_wait_all(e, why)); /* reads may still have been under way */
        CHECK(ran == 1);
        CHECK(ends == 1);
        push(e, count, (void *)&ran, &a, &c); /* and clean */
        OK(mxrt_engine_wait_all(e, why));
        CHECK(ran == 2);
        /* Two failures in a row are given one by one; a wait for all gives the first and forgets the other. */
        for (int i = 0; i < 2; i++) {
            bad.context = i ? "second" : "first";
            bad.writes = &ab[i];
            bad.write_count = 1;
            (void)mxrt_engine_push(e, &bad, &words);
        }
        FAILS(MX_ERROR_NUMERIC, "second", mxrt_engine_wait_var(e, b, why));
        FAILS(MX_ERROR_NUMERIC, "first", mxrt_engine_wait_var(e, a, why));
        for (int i = 0; i < 2; i++) {
            bad.context = i ? "second" : "first";
            bad.writes = &ab[i];
            (void)mxrt_engine_push(e, &bad, &words);
        }
        FAILS(MX_ERROR_NUMERIC, "first", mxrt_engine_wait_all(e, why));
        OK(mxrt_engine_wait_all(e, why));
        OK(mxrt_engine_wait_var(e, b, why));
        /* What writes over a failed variable does not hide it. */
        bad.writes = &a;
        (void)mxrt_engine_push(e, &bad, &words);
        push(e, nothing, NULL, NULL, &a);
        FAILS(MX_ERROR_NUMERIC, "", mxrt_engine_wait_var(e, a, why));
        /* Without words of its own, the status is named. */
        bad.context = "";
        (void)mxrt_engine_push(e, &bad, &words);
        FAILS(MX_ERROR_NUMERIC, "not a number", mxrt_engine_wait_all(e, why));
        mxrt_engine_destroy(e);
    }
}

struct late {
    struct mxrt_engine *engine;
    struct gate gate;
    mx_status status;
    pthread_t thread;
};

static void *foreign(void *context) {
    struct late *l = context;
    while (!atomic_load(&l->gate.begun))
        sleep_us(50);
    sleep_us(200);
    CHECK(mxrt_op_complete(l->engine, l->gate.token, l->status, "from afar") == MX_OK);
    CHECK(mxrt_op_complete(l->engine, l->gate.token, MX_OK, NULL) == MX_ERROR_ARGUMENT); /* once only */
    return NULL;
}

static void asynchronous(void) { /* A5, B11 */
    for (int k = 0; k < KINDS; k++) {
        for (int failing = 0; failing < 2; failing++) {
            struct mxrt_engine *e = make(kinds[k]);
            struct mxrt_var v = var(e, "v");
            struct late l = {.engine = e, .status = failing ? MX_ERROR_IO : MX_OK};
            CHECK(pthread_create(&l.thread, NULL, foreign, &l) == 0);
            struct mxrt_why words;
            mx_status status = mxrt_engine_push(
                e,
                &(struct mxrt_op){.name = "fetch", .start = begin, .context = &l.gate, .writes = &v, .write_count = 1},
                &words);
            CHECK(status == (k == 0 && failing ? MX_ERROR_IO : MX_OK));
            _Atomic int n = 0;
            push(e, count, (void *)&n, &v, NULL);
            if (failing)
                FAILS(MX_ERROR_IO, "`fetch`: from afar", mxrt_engine_wait_var(e, v, why));
            OK(mxrt_engine_wait_all(e, why));
            CHECK(n == !failing);
            pthread_join(l.thread, NULL);
            CHECK(mxrt_op_complete(e, (struct mxrt_token){NULL, 1}, MX_OK, NULL) == MX_ERROR_ARGUMENT);
            mxrt_engine_destroy(e);
        }
    }
}

static void priorities(void) { /* A15, B11 */
    struct mxrt_engine *e = make((struct mxrt_engine_options){.threads = 1});
    struct mxrt_var v = var(e, "gate");
    static const int priority[8] = {1, 5, -3, 5, 0, 9, -3, 2}, expected[8] = {5, 1, 3, 7, 0, 4, 2, 6};
    int order[9], at = 0;
    struct sum s[9];
    struct gate g;
    shut(e, &g, "gate", v);
    /* One by one by the only thread; the normal one after them. */
    for (int i = -1; i < 8; i++) {
        s[i + 1] = (struct sum){.id = i, .order = order, .at = &at};
        OK(mxrt_engine_push(e,
                            &(struct mxrt_op){.run = note,
                                              .context = &s[i + 1],
                                              .reads = &v,
                                              .read_count = 1,
                                              .lane = i < 0 ? MXRT_LANE_NORMAL : MXRT_LANE_PRIORITY,
                                              .priority = i < 0 ? 100 : priority[i]},
                            why));
    }
    open_gate(e, &g);
    OK(mxrt_engine_wait_all(e, why));
    for (int i = 0; i < 8; i++)
        CHECK(order[i] == expected[i]);
    CHECK(order[8] == -1);
    mxrt_engine_destroy(e);
}

static void bulk(void) { /* B9, A14 */
    for (int k = 0; k < KINDS; k++) {
        struct mxrt_engine *e = make(kinds[k]);
        struct mxrt_var v = var(e, "x"), w = var(e, "y");
        _Atomic int n = 0;
        CHECK(mxrt_engine_bulk(e, 10) == 0);
        for (int i = 0; i < 25; i++)
            push(e, count, (void *)&n, &v, NULL);
        OK(mxrt_engine_wait_all(e, why)); /* ends the third one */
        CHECK(n == 25);
        for (int i = 0; i < 100; i++)
            push(e, count, (void *)&n, NULL, &v);
        OK(mxrt_engine_wait_var(e, v, why));
        CHECK(n == 125 && mxrt_var_version(e, v) == 10); /* ten writes, one for each bulk */
        push(e, count, (void *)&n, &w, &v);
        CHECK(n == 125);
        FAILS(MX_ERROR_ARGUMENT, "twice",
              mxrt_engine_push(
                  e, &(struct mxrt_op){.run = nothing, .reads = (struct mxrt_var[2]){v, v}, .read_count = 2}, why));
        CHECK(mxrt_engine_bulk(e, 4) == 10); /* ends it */
        OK(mxrt_engine_wait_all(e, why));
        CHECK(n == 126);
        /* One failing function fails all that the bulk writes, and those after it do not run. */
        push(e, count, (void *)&n, NULL, &w);
        push(e, fail, "in a bulk", NULL, &v);
        push(e, count, (void *)&n, NULL, &w);
        struct mxrt_why words;
        (void)mxrt_engine_flush(e, &words);
        FAILS(MX_ERROR_NUMERIC, "number 2 of a bulk of 3: in a bulk", mxrt_engine_wait_var(e, w, why));
        CHECK(n == 127);
        OK(mxrt_engine_wait_var(e, v, why));
        CHECK(mxrt_engine_bulk(e, 0) == 4);
        mxrt_engine_destroy(e);
    }
}

struct inner {
    struct mxrt_engine *engine;
    struct mxrt_var v, w;
    _Atomic int n, late;
};

static mx_status from_inside(void *context, struct mxrt_why *unused) {
    struct inner *x = context;
    FAILS(MX_ERROR_ARGUMENT, "from inside an operation", mxrt_engine_wait_var(x->engine, x->v, why));
    FAILS(MX_ERROR_ARGUMENT, "from inside an operation", mxrt_engine_wait_all(x->engine, why));
    FAILS(MX_ERROR_ARGUMENT, "one of its operations", mxrt_engine_stop(x->engine, why));
    FAILS(MX_ERROR_ARGUMENT, "one of its operations", mxrt_engine_start(x->engine, why));
    /* Pushing is allowed; what is pushed here comes after this operation. */
    push(x->engine, count, (void *)&x->n, NULL, &x->v);
    push(x->engine, count, (void *)&x->n, &x->v, &x->w);
    x->late = x->n;
    return MX_OK;
}

static void waits_inside(void) { /* A9, B11, bad input: cyclic waits */
    for (int k = 0; k < KINDS; k++) {
        struct inner x = {.engine = make(kinds[k])};
        x.v = var(x.engine, "v");
        x.w = var(x.engine, "w");
        push(x.engine, from_inside, &x, NULL, &x.v);
        OK(mxrt_engine_wait_all(x.engine, why));
        CHECK(x.n == 2 && x.late == 0);
        /* Another engine's operations may be waited for. */
        mxrt_engine_destroy(x.engine);
    }
}

static void timeouts(void) { /* bad input: an operation that never completes */
    for (int k = 1; k < KINDS; k++) {
        struct mxrt_engine *e = make(kinds[k]);
        struct mxrt_var v = var(e, "weights"), w = var(e, "loss"), x = var(e, "other");
        struct gate g;
        shut(e, &g, "fetch", v);
        OK(mxrt_engine_push(
            e,
            &(struct mxrt_op){
                .name = "train", .run = nothing, .reads = &v, .read_count = 1, .writes = &w, .write_count = 1},
            why));
        FAILS(MX_ERROR_TIMEOUT, "for weights: operation `fetch` has begun and not ended, and nothing else",
              mxrt_engine_wait_var_for(e, v, 0.01, why));
        FAILS(MX_ERROR_TIMEOUT, "for loss: operation `fetch` has begun and not ended; 2 operations",
              mxrt_engine_wait_var_for(e, w, 0.01, why));
        OK(mxrt_engine_wait_var_for(e, x, 0.01, why));
        push(e, nothing, NULL, NULL, &x);
        OK(mxrt_engine_wait_var_for(e, x, 10, why)); /* others go on */
        FAILS(MX_ERROR_TIMEOUT, "for everything: operation `fetch`", mxrt_engine_wait_all_for(e, 0.01, why));
        open_gate(e, &g);
        OK(mxrt_engine_wait_var_for(e, w, 10, why));
        OK(mxrt_engine_wait_all(e, why));
        mxrt_engine_destroy(e);
    }
}

static void out_of_memory(void) { /* bad input */
    for (int k = 1; k < KINDS; k++) {
        struct mxrt_engine_options o = kinds[k];
        o.memory_limit = 300 * 1024;
        struct mxrt_engine *e = make(o);
        struct mxrt_var v = var(e, "v");
        _Atomic int n = 0;
        struct gate g;
        for (int round = 0; round < 3; round++) {
            shut(e, &g, "gate", v);
            struct mxrt_op op = {.name = "many", .run = count, .context = (void *)&n, .reads = &v, .read_count = 1};
            int pushed = 0;
            struct mxrt_why words;
            mx_status status;
            while ((status = mxrt_engine_push(e, &op, &words)) == MX_OK && pushed < 100000)
                pushed++;
            CHECK(status == MX_ERROR_MEMORY && strstr(words.text, "`many`: no memory") && pushed > 100);
            atomic_store(&n, 0);
            open_gate(e, &g);
            OK(mxrt_engine_wait_all(e, why));
            CHECK(n == pushed);
            push(e, count, (void *)&n, NULL, &v); /* usable as before */
            OK(mxrt_engine_wait_all(e, why));
        }
        mx_status status = MX_OK;
        for (int i = 0; i < 100000 && status == MX_OK; i++)
            status = mxrt_var_new(e, NULL, &v, NULL);
        CHECK(status == MX_ERROR_MEMORY);
        mxrt_engine_destroy(e);
    }
}

static void forks(void) { /* A16 */
    for (int k = 0; k < KINDS; k++) {
        struct mxrt_engine *e = make(kinds[k]);
        struct mxrt_var v = var(e, "v");
        _Atomic int n = 0;
        for (int i = 0; i < 100; i++)
            push(e, count, (void *)&n, NULL, &v);
        pid_t child = fork();
        CHECK(child >= 0);
        CHECK(n == 100); /* idle while it forks */
        for (int i = 0; i < 100; i++)
            push(e, count, (void *)&n, NULL, &v);
        OK(mxrt_engine_wait_all(e, why));
        CHECK(n == 200 && mxrt_var_version(e, v) == 200);
        CHECK(mxrt_engine_threads(e) == (child && kinds[k].threads ? kinds[k].threads : 1));
        if (child == 0) {
            OK(mxrt_engine_stop(e, why));
            OK(mxrt_engine_start(e, why));
            mxrt_engine_destroy(e);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        mxrt_engine_destroy(e);
    }
}

struct nested {
    struct mxrt_engine *other;
    struct mxrt_var v;
    _Atomic int n, made;
    _Atomic bool enough;
};

/* Makes an engine, uses and ends it, and pushes to another one. */
static mx_status nest(void *context, struct mxrt_why *unused) {
    struct nested *t = context;
    struct mxrt_engine *own;
    OK(mxrt_engine_create(&own, &(struct mxrt_engine_options){.threads = 2}, why));
    struct mxrt_var v = var(own, "inner");
    push(own, count, (void *)&t->made, NULL, &v);
    OK(mxrt_engine_wait_all(own, why));
    mxrt_engine_destroy(own);
    push(t->other, count, (void *)&t->n, NULL, &t->v);
    return MX_OK;
}

static void *keep_nesting(void *context) {
    struct nested *t = context;
    struct mxrt_engine *e = make((struct mxrt_engine_options){.threads = 2});
    while (!atomic_load(&t->enough)) {
        push(e, nest, t, NULL, NULL);
        OK(mxrt_engine_wait_all(e, why));
    }
    mxrt_engine_destroy(e);
    return NULL;
}

/* Forks while operations make and end engines and push to others: nobody waits for what waits for the fork. */
static void forks_among_engines(void) {
    for (int k = 0; k < KINDS; k++) {
        struct nested t = {.other = make(kinds[k])};
        pthread_t thread;
        t.v = var(t.other, "v");
        CHECK(pthread_create(&thread, NULL, keep_nesting, &t) == 0);
        for (int i = 0; i < 20; i++) {
            int status, before = t.made;
            pid_t child = fork();
            CHECK(child >= 0);
            if (child == 0) {
                push(t.other, count, (void *)&t.n, NULL, &t.v);
                OK(mxrt_engine_wait_all(t.other, why));
                _exit(0);
            }
            CHECK(waitpid(child, &status, 0) == child && status == 0);
            while (t.made == before)
                sleep_us(50);
        }
        t.enough = true;
        pthread_join(thread, NULL);
        OK(mxrt_engine_wait_all(t.other, why));
        CHECK(t.n == t.made);
        mxrt_engine_destroy(t.other);
    }
}

static void shutdowns(void) { /* A16, B8 */
    for (int k = 0; k < KINDS; k++) {
        struct mxrt_engine *e = make(kinds[k]);
        struct mxrt_var v = var(e, "v");
        _Atomic int n = 0, ends = 0;
        mxrt_engine_shutdown(e);
        for (int i = 0; i < 10; i++)
            push(e, count, (void *)&n, NULL, &v);
        OK(mxrt_var_delete(e, v, released, (void *)&ends, why));
        mxrt_engine_destroy(e); /* waits */
        CHECK(n == 0 && ends == 1);
    }
}

struct pusher {
    struct mxrt_engine *engine;
    struct mxrt_var *vars;
    int64_t *counts;
    int seed;
    pthread_t thread;
};

struct pair {
    int64_t *a, *b;
};

static mx_status add_pair(void *context, struct mxrt_why *why) {
    struct pair *p = context;
    (*p->a)++;
    (*p->b)++;
    return MX_OK;
}

static void *push_pairs(void *context) {
    struct pusher *p = context;
    struct random r = {(uint64_t)p->seed + 77};
    for (int i = 0; i < 5000; i++) {
        int a = (int)draw(&r, 6), b = (a + 1 + (int)draw(&r, 5)) % 6;
        struct pair *x = malloc(sizeof *x);
        *x = (struct pair){&p->counts[a], &p->counts[b]};
        struct mxrt_var writes[2] = {p->vars[a], p->vars[b]};
        OK(mxrt_engine_push(
            p->engine,
            &(struct mxrt_op){.run = add_pair, .context = x, .release = free, .writes = writes, .write_count = 2},
            why));
        if (i % 1000 == 0)
            OK(mxrt_engine_wait_var(p->engine, writes[0], why));
    }
    return NULL;
}

/* Several threads push on the same variables in opposite orders: each push is one point of one order, so there is no
 * deadlock, and no update is lost. */
static void many_pushers(void) {
    for (int k = 0; k < KINDS; k++) {
        struct mxrt_engine *e = make(kinds[k]);
        struct mxrt_var vars[6];
        int64_t counts[6] = {0}, all = 0;
        for (int i = 0; i < 6; i++)
            vars[i] = var(e, NULL);
        struct pusher p[4];
        for (int i = 0; i < 4; i++) {
            p[i] = (struct pusher){e, vars, counts, i, 0};
            CHECK(pthread_create(&p[i].thread, NULL, push_pairs, &p[i]) == 0);
        }
        for (int i = 0; i < 4; i++)
            pthread_join(p[i].thread, NULL);
        OK(mxrt_engine_wait_all(e, why));
        for (int i = 0; i < 6; i++)
            all += counts[i];
        CHECK(all == 2 * 4 * 5000);
        mxrt_engine_destroy(e);
    }
}

static mx_status increment(void *context, struct mxrt_why *why) {
    ++*(int64_t *)context;
    return MX_OK;
}

/* B11: many tiny operations with random deletions, and many behind one write: nothing is quadratic. */
static void stress(int operations) {
    for (int k = 0; k < KINDS; k++) {
        struct mxrt_engine *e = make(kinds[k]);
        enum { N = 50 };
        struct mxrt_var v[N];
        static int64_t counts[N];
        struct random r = {5};
        int64_t all = 0;
        _Atomic int ends = 0;
        int deletes = 0;
        for (int i = 0; i < N; i++) {
            v[i] = var(e, NULL);
            counts[i] = 0;
        }
        for (int i = 0; i < operations; i++) {
            int at = (int)draw(&r, N);
            push(e, increment, &counts[at], NULL, &v[at]);
            if (draw(&r, 100) == 0) {
                OK(mxrt_engine_wait_var(e, v[at], why)); /* counts[at] goes on under a new variable */
                OK(mxrt_var_delete(e, v[at], released, (void *)&ends, why));
                v[at] = var(e, NULL);
                deletes++;
            }
        }
        OK(mxrt_engine_wait_all(e, why));
        for (int i = 0; i < N; i++)
            all += counts[i];
        CHECK(all == operations && ends == deletes);
        if (k > 0) {
            struct gate g;
            _Atomic int n = 0;
            shut(e, &g, "gate", v[0]);
            for (int i = 0; i < operations; i++)
                push(e, count, (void *)&n, &v[0], i % 7 ? NULL : &v[1]);
            push(e, count, (void *)&n, NULL, &v[0]);
            CHECK(n == 0);
            open_gate(e, &g);
            OK(mxrt_engine_wait_all(e, why));
            CHECK(n == operations + 1);
        }
        mxrt_engine_destroy(e);
    }
}

int main(int argc, char **argv) {
    start_and_stop();
    push_functions();
    basics();
    io_lane();
    versions();
    own_data_of_threads();
    duplicates();
    deletions();
    operators();
    errors();
    asynchronous();
    priorities();
    bulk();
    waits_inside();
    timeouts();
    out_of_memory();
    if (argc < 3) { /* ThreadSanitizer wants no threads after one */
        forks();
        forks_among_engines();
    }
    shutdowns();
    many_pushers();
    stress(argc > 1 ? atoi(argv[1]) : 1000000);
    return 0;
}
