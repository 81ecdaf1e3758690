/* libmxrt's engine. Threads 0: the naive one. */
#include <stdlib.h>

#include "driver.h"
#include "mxrt/engine.h"

static struct mxrt_engine *engine;
static struct mxrt_var *handles;
static struct mxrt_op *ops;

static mx_status nothing(void *context, struct mxrt_why *why) {
    (void)context, (void)why;
    return MX_OK;
}

static mx_status hold(void *context, struct mxrt_why *why) {
    (void)why;
    while (!*(volatile bool *)context)
        ;
    return MX_OK;
}

const char *engine_open(int threads, int variables, const struct task *tasks, int count) {
    struct mxrt_engine_options o = {.kind = threads ? MXRT_ENGINE_THREADED : MXRT_ENGINE_NAIVE, .threads = threads};
    struct mxrt_var *vars = malloc((size_t)variables * sizeof *vars);
    handles = malloc((size_t)count * MOST * sizeof *handles);
    ops = calloc((size_t)count, sizeof *ops);
    if (!vars || !handles || !ops || mxrt_engine_create(&engine, &o, NULL) != MX_OK)
        return "no memory";
    for (int i = 0; i < variables; i++)
        mxrt_var_new(engine, NULL, &vars[i], NULL);
    for (int i = 0; i < count; i++) {
        struct mxrt_var *h = handles + (size_t)i * MOST;
        for (int k = 0; k < tasks[i].count; k++)
            h[k] = vars[tasks[i].variables[k]];
        ops[i] = (struct mxrt_op){
            .run = nothing, .writes = h, .write_count = 1, .reads = h + 1, .read_count = tasks[i].count - 1};
    }
    free(vars);
    return NULL;
}

void engine_push(int task) {
    mxrt_engine_push(engine, &ops[task], NULL);
}

void engine_wait(void) {
    mxrt_engine_wait_all(engine, NULL);
}

bool engine_hold(volatile bool *open) {
    if (mxrt_engine_threads(engine) < 2)
        return false;
    mxrt_engine_push(engine, &(struct mxrt_op){.run = hold, .context = (void *)open}, NULL);
    return true;
}

void engine_close(void) {
    mxrt_engine_destroy(engine);
    free(handles);
    free(ops);
}
