/* OpenMP tasks with `depend`. The parallel region is entered once and left at the end: its first thread pushes. */
#include <omp.h>
#include <stdlib.h>
#include <unistd.h>

#include "driver.h"

static const struct task *all;
static char *v;
static int thread_count;

/* main.c calls from inside the region: see `engine_main` in the compile command. */
const char *engine_open(int threads, int variables, const struct task *tasks, int count) {
    (void)count;
    v = calloc((size_t)variables, 1);
    all = tasks;
    thread_count = threads;
    return omp_get_num_threads() == threads ? NULL : "OpenMP gives another number of threads";
}

void engine_push(int task) {
    const int *x = all[task].variables;
    switch (all[task].count) {
    case 1:
#pragma omp task depend(out : v[x[0]])
    {
    } break;
    case 2:
#pragma omp task depend(out : v[x[0]]) depend(in : v[x[1]])
    {
    } break;
    case 3:
#pragma omp task depend(out : v[x[0]]) depend(in : v[x[1]], v[x[2]])
    {
    } break;
    case 4:
#pragma omp task depend(out : v[x[0]]) depend(in : v[x[1]], v[x[2]], v[x[3]])
    {
    } break;
    case 5:
#pragma omp task depend(out : v[x[0]]) depend(in : v[x[1]], v[x[2]], v[x[3]], v[x[4]])
    {
    } break;
    case 6:
#pragma omp task depend(out : v[x[0]]) depend(in : v[x[1]], v[x[2]], v[x[3]], v[x[4]], v[x[5]])
    {
    } break;
    case 7:
#pragma omp task depend(out : v[x[0]]) depend(in : v[x[1]], v[x[2]], v[x[3]], v[x[4]], v[x[5]], v[x[6]])
    {
    } break;
    default:
#pragma omp task depend(out : v[x[0]]) depend(in : v[x[1]], v[x[2]], v[x[3]], v[x[4]], v[x[5]], v[x[6]], v[x[7]])
    {
    }
    }
}

void engine_wait(void) {
#pragma omp taskwait
}

bool engine_hold(volatile bool *open) {
    if (thread_count < 2)
        return false;
#pragma omp task firstprivate(open)
    while (!*open)
        usleep(100);
    return true;
}

void engine_close(void) {
    free(v);
}

int engine_main(int argc, char **argv);

int main(int argc, char **argv) {
    int status = 0;
#pragma omp parallel num_threads(argc > 2 ? atoi(argv[2]) : 1)
#pragma omp single
    status = engine_main(argc, argv);
    return status;
}
