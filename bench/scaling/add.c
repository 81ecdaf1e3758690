/* The rate at which runtime/net adds the parts of eight ranks (sum.c), in bytes of summands a second: the best of some rounds, as what
 * disturbs a round is not the adding. Parts are as large as way.c makes them. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "mxrt/status.h"
#include "runtime/net/sum.h"

enum { RANKS = 8, ELEMENTS = 1 << 16, PARTS = 64, ROUNDS = 12 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(void) {
    const size_t elements = (size_t)RANKS * PARTS * ELEMENTS;
    float *data = malloc(sizeof *data * elements), *sum = malloc(sizeof *sum * ELEMENTS);
    if (!data || !sum) {
        fprintf(stderr, "add: no memory\n");
        return 1;
    }
    for (size_t i = 0; i < elements; i++)
        data[i] = (float)(i % 7);
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double start = now();
        for (int part = 0; part < PARTS; part++) {
            const void *parts[RANKS];
            for (int q = 0; q < RANKS; q++)
                parts[q] = data + ((size_t)q * PARTS + (size_t)part) * ELEMENTS;
            sum_tree(MX_F32, sum, parts, RANKS, ELEMENTS);
        }
        double rate = (double)(sizeof *data * elements) / (now() - start);
        best = rate > best ? rate : best;
    }
    printf("%.6g\n", best);
    free(data);
    free(sum);
    return 0;
}
