/* One program for all engines: bench.py compiles main.c with each push_*.c. Operations are empty; each writes its first
 * variable and reads the others. */
#ifndef BENCH_ENGINE_DRIVER_H
#define BENCH_ENGINE_DRIVER_H

#include <stdbool.h>

enum { MOST = 8 };

struct task {
    int count;           /* variables */
    int variables[MOST]; /* the first is written */
};

/* 0 or a reason for not being able to run. Only `engine_push` and `engine_wait` are measured. */
const char *engine_open(int threads, int variables, const struct task *tasks, int count);
void engine_push(int task);
void engine_wait(void);
/* An operation that keeps the other thread, asleep, until `*open`; false where there is no such thing. */
bool engine_hold(volatile bool *open);
void engine_close(void);

#endif
