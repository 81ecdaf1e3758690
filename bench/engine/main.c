/* Nanoseconds from push to completion of an empty operation: CASE THREADS COUNT ROUNDS -> two numbers a round, by the clock
 * and of processor time, which other programs on the machine disturb less. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "driver.h"

static uint64_t state = 88172645463325252u;

static uint32_t draw(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc < 5)
        return 2;
    const char *kind = argv[1];
    int threads = atoi(argv[2]), count = atoi(argv[3]), rounds = atoi(argv[4]);
    bool random = strstr(kind, "random") != NULL, held = strstr(kind, "held") != NULL;
    int variables = strcmp(kind, "independent") == 0 ? count : strcmp(kind, "chain") == 0 ? 1 : 1000;
    struct task *tasks = calloc((size_t)count, sizeof *tasks);
    for (int i = 0; i < count; i++) {
        struct task *t = &tasks[i];
        t->count = random ? 2 + (int)draw(MOST - 1) : 1;
        for (int k = 0; k < t->count; k++) {
        again:
            t->variables[k] = random ? (int)draw((uint32_t)variables) : i % variables;
            for (int j = 0; j < k; j++) {
                if (t->variables[j] == t->variables[k])
                    goto again;
            }
        }
    }
    const char *why = engine_open(threads, variables, tasks, count);
    if (why) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    for (int round = 0; round <= rounds; round++) { /* the first one is not counted */
        volatile bool open = false;
        if (held && !engine_hold(&open)) {
            fprintf(stderr, "cannot hold its worker\n");
            return 1;
        }
        double from = now(CLOCK_MONOTONIC), work = now(CLOCK_PROCESS_CPUTIME_ID);
        for (int i = 0; i < count; i++)
            engine_push(i);
        open = true;
        engine_wait();
        double to = now(CLOCK_MONOTONIC), done = now(CLOCK_PROCESS_CPUTIME_ID);
        if (round > 0)
            printf("%.2f %.2f\n", (to - from) / count * 1e9, (done - work) / count * 1e9);
    }
    fflush(stdout);
    engine_close();
    free(tasks);
    return 0;
}
