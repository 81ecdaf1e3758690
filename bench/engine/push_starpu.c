/* StarPU, implicit dependences by data; as many CPU workers as threads. */
#include <starpu.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"

static starpu_data_handle_t *handles;
static const struct task *all;
static int variable_count;

static void nothing(void *buffers[], void *context) {
    (void)buffers, (void)context;
}

static struct starpu_codelet codelet = {.cpu_funcs = {nothing}, .nbuffers = STARPU_VARIABLE_NBUFFERS};

const char *engine_open(int threads, int variables, const struct task *tasks, int count) {
    (void)count;
    struct starpu_conf conf;
    starpu_conf_init(&conf);
    conf.ncpus = threads;
    conf.ncuda = conf.nopencl = 0;
    if (starpu_init(&conf) != 0)
        return "StarPU does not start";
    handles = malloc((size_t)variables * sizeof *handles);
    for (int i = 0; i < variables; i++)
        starpu_void_data_register(&handles[i]);
    variable_count = variables;
    all = tasks;
    return NULL;
}

void engine_push(int task) {
    struct starpu_task *t = starpu_task_create();
    const struct task *x = &all[task];
    t->cl = &codelet;
    t->nbuffers = x->count;
    for (int k = 0; k < x->count; k++) {
        t->handles[k] = handles[x->variables[k]];
        t->modes[k] = k == 0 ? STARPU_RW : STARPU_R;
    }
    if (starpu_task_submit(t) != 0)
        abort();
}

void engine_wait(void) {
    starpu_task_wait_for_all();
}

bool engine_hold(volatile bool *open) {
    (void)open;
    return false;
}

void engine_close(void) {
    for (int i = 0; i < variable_count; i++)
        starpu_data_unregister(handles[i]);
    free(handles);
    starpu_shutdown();
}
