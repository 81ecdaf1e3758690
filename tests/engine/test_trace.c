/* Traces: a program with every kind of operation, whose trace tests/engine/trace.py then checks.
 *
 * Usage: test_trace [folder]: writes folder/KIND.json for each engine and prints how many operations ran or were skipped */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "check.h"
#include "mxrt/graph.h"

enum { VARIABLES = 8, RANDOM = 300 };

static mx_status some(void *context, struct mxrt_why *why) {
    sleep_us(*(int *)context);
    return MX_OK;
}

static mx_status fail(void *context, struct mxrt_why *why) {
    return mxrt_fail(why, MX_ERROR_CHECK, "as planned");
}

struct started {
    struct mxrt_engine *e;
    _Atomic(void *) op;
    uint64_t ticket;
};

static void start(void *context, struct mxrt_token token) {
    struct started *s = context;
    s->ticket = token.ticket;
    atomic_store(&s->op, token.op);
}

static void *complete(void *context) {
    struct started *s = context;
    while (!atomic_load(&s->op))
        sleep_us(10);
    sleep_us(200);
    CHECK(mxrt_op_complete(s->e, (struct mxrt_token){atomic_load(&s->op), s->ticket}, MX_OK, NULL) == MX_OK);
    return NULL;
}

static void *span_of_thread(void *trace) {
    mxrt_trace_thread(trace, "a \"thread\"");
    int64_t outer = mxrt_trace_begin(trace), inner = mxrt_trace_begin(trace);
    sleep_us(100);
    mxrt_trace_end(trace, inner, "inner \\ span\n");
    mxrt_trace_end(trace, outer, "outer");
    return NULL;
}

/* The number of operations. */
static int program(struct mxrt_engine *e, struct mxrt_trace *trace) {
    struct mxrt_var v[VARIABLES];
    static int us[3] = {0, 20, 100};
    struct random r = {7};
    int pushed = 0;
    for (int i = 0; i < VARIABLES; i++)
        OK(mxrt_var_new(e, i < 2 ? "same" : i < 4 ? "say \"x\"" : NULL, &v[i], why));
    for (int i = 0; i < RANDOM; i++) {
        struct mxrt_var reads[3], writes[2];
        int nr = (int)draw(&r, 4), nw = (int)draw(&r, 3);
        for (int k = 0; k < nr; k++)
            reads[k] = v[draw(&r, VARIABLES)];
        for (int k = 0; k < nw; k++)
            writes[k] = v[draw(&r, VARIABLES)];
        mxrt_var_dedupe(reads, &nr, writes, &nw);
        struct mxrt_op op = {.name = i % 5 ? "random" : NULL,
                             .run = some,
                             .context = &us[draw(&r, 8) ? 0 : 1 + i % 2],
                             .reads = reads,
                             .read_count = nr,
                             .writes = writes,
                             .write_count = nw,
                             .lane = (enum mxrt_lane)draw(&r, 4)};
        OK(mxrt_engine_push(e, &op, why));
        pushed++;
    }
    struct started s[3] = {{.e = e}, {.e = e}, {.e = e}};
    pthread_t thread[4];
    int overlapping = mxrt_engine_threads(e) > 1 ? 3 : 1; /* two at once, one after the first; naive pushes wait */
    for (int i = 0; i < overlapping; i++) {
        struct mxrt_op op = {
            .name = "asynchronous", .start = start, .context = &s[i], .writes = &v[i % 2], .write_count = 1};
        CHECK(pthread_create(&thread[i], NULL, complete, &s[i]) == 0);
        OK(mxrt_engine_push(e, &op, why));
        pushed++;
    }
    OK(mxrt_engine_wait_all(e, why)); /* without workers this begins what waited for another thread */
    for (int i = 0; i < overlapping; i++)
        pthread_join(thread[i], NULL);
    CHECK(pthread_create(&thread[3], NULL, span_of_thread, trace) == 0);
    pthread_join(thread[3], NULL);
    OK(mxrt_engine_wait_all(e, why));
    struct mxrt_op bad = {.name = "bad", .run = fail, .writes = &v[4], .write_count = 1}, after = {.name = "after",
                                                                                                   .run = some,
                                                                                                   .context = us,
                                                                                                   .reads = &v[4],
                                                                                                   .read_count = 1,
                                                                                                   .writes = &v[5],
                                                                                                   .write_count = 1};
    (void)mxrt_engine_push(e, &bad, NULL);
    (void)mxrt_engine_push(e, &after, NULL);
    pushed += 2;
    FAILS(MX_ERROR_CHECK, "as planned", mxrt_engine_wait_all(e, why));
    struct mxrt_graph *g;
    OK(mxrt_graph_create(e, &g, why));
    for (int i = 0; i < 3; i++) {
        struct mxrt_op node = {.name = "node",
                               .run = some,
                               .context = &us[1],
                               .reads = &v[i],
                               .read_count = 1,
                               .writes = &v[i + 1],
                               .write_count = 1};
        OK(mxrt_graph_add(g, &node, NULL, NULL, why));
    }
    for (int i = 0; i < 5; i++) {
        mxrt_graph_touch(g, v[0]);
        OK(mxrt_graph_run(g, NULL, why));
        pushed += 3;
    }
    mxrt_graph_destroy(g);
    for (int i = 0; i < VARIABLES; i++) {
        OK(mxrt_var_delete(e, v[i], NULL, NULL, why));
        pushed++;
    }
    OK(mxrt_engine_wait_all(e, why));
    return pushed;
}

int main(int argc, char **argv) {
    static const struct mxrt_engine_options kinds[] = {
        {.kind = MXRT_ENGINE_NAIVE}, {.threads = 1}, {.threads = 1, .io_threads = 1}, {.threads = 2}, {.threads = 4}};
    for (int k = 0; k < 5; k++) {
        struct mxrt_engine_options o = kinds[k];
        struct mxrt_engine *e;
        char path[4096];
        snprintf(path, sizeof path, "%s/%d.json", argc > 1 ? argv[1] : "", k);
        OK(mxrt_trace_create(&o.trace, why));
        OK(mxrt_engine_create(&e, &o, why));
        int pushed = program(e, o.trace);
        mxrt_engine_destroy(e);
        OK(mxrt_trace_write(o.trace, argc > 1 ? path : "/dev/null", why));
        FAILS(MX_ERROR_IO, "cannot write", mxrt_trace_write(o.trace, "/nonexistent/t.json", why));
        mxrt_trace_free(o.trace);
        printf("%d operations\n", pushed);
    }
    return 0;
}
