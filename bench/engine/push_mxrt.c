/* libmxrt's engine. Threads 0: the naive one. */
#include <stdlib.h>
#include <unistd.h>

#include "driver.h"
#include "mxrt/engine.h"

static struct mxrt_engine *engine;
static struct mxrt_var *handles; /* of the variables */
static const struct task *all;

static mx_status nothing(void *context, struct mxrt_why *why) {
    (void)context, (void)why;
    return MX_OK;
}

static mx_status hold(void *context, struct mxrt_why *why) {
    (void)why;
    while (!*(volatile bool *)context)
        usleep(100);
    return MX_OK;
}

const char *engine_open(int threads, int variables, const struct task *tasks, int count) {
    (void)count;
    struct mxrt_engine_options o = {.kind = threads ? MXRT_ENGINE_THREADED : MXRT_ENGINE_NAIVE, .threads = threads};
    handles = malloc((size_t)variables * sizeof *handles);
    if (!handles || mxrt_engine_create(&engine, &o, NULL) != MX_OK)
        return "no memory";
    for (int i = 0; i < variables; i++)
        mxrt_var_new(engine, NULL, &handles[i], NULL);
    all = tasks;
    return NULL;
}

void engine_push(int task) {
    const struct task *t = &all[task];
    struct mxrt_var v[MOST];
    for (int k = 0; k < t->count; k++)
        v[k] = handles[t->variables[k]];
    struct mxrt_op op = {.run = nothing, .writes = v, .write_count = 1, .reads = v + 1, .read_count = t->count - 1};
    mxrt_engine_push(engine, &op, NULL);
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
}
