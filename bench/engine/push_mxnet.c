/* MXNet's engine by its C interface, from the library named by MXNET_LIBRARY; variables are those of arrays. Threads 1:
 * its naive engine; 2: the threaded one, that is the pusher and one worker. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "driver.h"

struct context {
    int32_t type, id;
};
typedef void function(void *run_context, void *parameter);
static int (*push_sync)(function *, void *, void (*)(void *), void *, void **, int, void **, int, void *, int,
                        const char *);
static int (*create)(const uint32_t *, uint32_t, int, int, int, void **);
static int (*wait_all)(void);
static int (*set_bulk)(int, int *);
static void **handles;
static const struct task *all;
static int thread_count;
static struct context cpu = {1, 0};

static void nothing(void *run_context, void *parameter) {
    (void)run_context, (void)parameter;
}

static void hold(void *run_context, void *parameter) {
    (void)run_context;
    while (!*(volatile bool *)parameter)
        usleep(100);
}

const char *engine_open(int threads, int variables, const struct task *tasks, int count) {
    setenv("MXNET_ENGINE_TYPE", threads == 1 ? "NaiveEngine" : "ThreadedEnginePerDevice", 1);
    setenv("MXNET_CPU_WORKER_NTHREADS", "1", 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    const char *path = getenv("MXNET_LIBRARY");
    void *library = path ? dlopen(path, RTLD_NOW) : NULL;
    if (!library)
        return path ? dlerror() : "MXNET_LIBRARY is not set";
    *(void **)&push_sync = dlsym(library, "MXEnginePushSyncND");
    *(void **)&create = dlsym(library, "MXNDArrayCreate");
    *(void **)&wait_all = dlsym(library, "MXNDArrayWaitAll");
    *(void **)&set_bulk = dlsym(library, "MXEngineSetBulkSize");
    if (!push_sync || !create || !wait_all || !set_bulk)
        return "an entry of the C interface is missing";
    set_bulk(0, &(int){0});
    void **arrays = malloc((size_t)variables * sizeof *arrays);
    handles = malloc((size_t)count * MOST * sizeof *handles);
    for (int i = 0; i < variables; i++) {
        if (create(&(uint32_t){1}, 1, 1, 0, 1, &arrays[i]) != 0)
            return "no array";
    }
    for (int i = 0; i < count; i++) {
        for (int k = 0; k < tasks[i].count; k++)
            handles[(size_t)i * MOST + (size_t)k] = arrays[tasks[i].variables[k]];
    }
    free(arrays);
    all = tasks;
    thread_count = threads;
    return NULL;
}

void engine_push(int task) {
    void **h = handles + (size_t)task * MOST;
    push_sync(nothing, NULL, NULL, &cpu, h + 1, all[task].count - 1, h, 1, NULL, 0, "nothing");
}

void engine_wait(void) {
    wait_all();
}

bool engine_hold(volatile bool *open) {
    if (thread_count < 2)
        return false;
    push_sync(hold, (void *)open, NULL, &cpu, NULL, 0, NULL, 0, NULL, 0, "hold");
    return true;
}

void engine_close(void) {
}
