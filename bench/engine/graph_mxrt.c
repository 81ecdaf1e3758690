/* The graph layer: nanoseconds a node of a whole run; and, for `part`, of a run after a change near the end.
 * CASE THREADS COUNT ROUNDS, as main.c. In `chain` a node reads the one before it, in `random` two of the hundred before it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mxrt/graph.h"

static mx_status nothing(void *context, struct mxrt_why *why) {
    (void)context, (void)why;
    return MX_OK;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc < 5)
        return 2;
    int threads = atoi(argv[2]), count = atoi(argv[3]), rounds = atoi(argv[4]);
    struct mxrt_engine *e;
    struct mxrt_graph *g;
    struct mxrt_var *v = malloc(((size_t)count + 2) * sizeof *v);
    if (!v || mxrt_engine_create(&e, &(struct mxrt_engine_options){.threads = threads}, NULL) != MX_OK ||
        mxrt_graph_create(e, &g, NULL) != MX_OK)
        return 1;
    for (int i = 0; i < count + 2; i++)
        mxrt_var_new(e, NULL, &v[i], NULL);
    srand(1);
    for (int i = 0; i < count; i++) { /* node i writes v[i + 1]; v[0] is the input, v[count + 1] one more of the last */
        struct mxrt_var reads[3] = {v[i]};
        int n = 1;
        if (strcmp(argv[1], "random") == 0) {
            int window = i < 100 ? i + 1 : 100, a = i - rand() % window, b = i - rand() % window;
            reads[0] = v[a];
            if (a != b)
                reads[n++] = v[b];
        }
        if (i == count - 1)
            reads[n++] = v[count + 1];
        if (mxrt_graph_add(g,
                           &(struct mxrt_op){
                               .run = nothing, .reads = reads, .read_count = n, .writes = &v[i + 1], .write_count = 1},
                           NULL, NULL, NULL) != MX_OK)
            return 1;
    }
    for (int round = 0; round <= rounds; round++) {
        mxrt_graph_touch(g, strcmp(argv[1], "part") == 0 && round > 0 ? v[count + 1] : v[0]);
        int64_t ran;
        double from = now();
        if (mxrt_graph_run(g, &ran, NULL) != MX_OK)
            return 1;
        double to = now();
        if (round > 0)
            printf("%.2f\n", (to - from) / (double)ran * 1e9);
    }
    mxrt_graph_destroy(g);
    mxrt_engine_destroy(e);
    free(v);
    return 0;
}
