/* How many processors this process may use. Private to libmxrt; whoever includes it defines _GNU_SOURCE before all else. */
#ifndef MXRT_PROCESSORS_H
#define MXRT_PROCESSORS_H

#ifdef __linux__
#include <sched.h>
#endif
#include <unistd.h>

/* Of those that it is bound to, where the system can say (mpirun and job systems bind ranks); at least 1. */
static inline int mxrt_processors(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
#ifdef CPU_COUNT
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
#endif
    return n > 0 ? (int)n : 1;
}

#endif
