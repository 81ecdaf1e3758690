/* Two models in one program, the same two in two threads with an instance each: nobody sees the other. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counters.h"
#include "recurrent.h"

#define CHECK(x)                                            \
    do {                                                    \
        if (!(x)) {                                         \
            fprintf(stderr, "line %d: %s\n", __LINE__, #x); \
            exit(1);                                        \
        }                                                   \
    } while (0)

struct work {
    int number;
    float sums[4], losses[50];
};

static void *run(void *context) {
    struct work *w = context;
    counters *c = NULL;
    recurrent *r = NULL;
    counters_options co = {0};
    recurrent_options ro = {0};
    co.seed = ro.seed = 7;
    co.threads = ro.threads = 2;
    /* The caller's memory: units without a runtime do not allocate. */
    size_t c_bytes = counters_size(&co), r_bytes = recurrent_size(&ro);
    void *c_memory = malloc(c_bytes), *r_memory = malloc(r_bytes);
    CHECK(counters_init(&c, c_memory, c_bytes, &co) == MX_OK);
    CHECK(recurrent_init(&r, r_memory, r_bytes, &ro) == MX_OK);
    float xs[12 * 6 * 5], target[6 * 7], x[4] = {1, 2, 3, 4};
    for (int i = 0; i < 12 * 6 * 5; i++)
        xs[i] = sinf((float)i);
    for (int i = 0; i < 6 * 7; i++)
        target[i] = 0.25f;
    for (int i = 0; i < 50; i++) {
        CHECK(recurrent_learn(r, 6, xs, target, 0.1f, &w->losses[i]) == MX_OK);
        CHECK(counters_add(c, x, w->sums) == MX_OK);
    }
    counters_free(c);
    recurrent_free(r);
    free(c_memory);
    free(r_memory);
    return NULL;
}

int main(void) {
    struct work all[3];
    pthread_t threads[2];
    memset(all, 0, sizeof all);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, run, &all[i]) == 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    run(&all[2]);
    CHECK(memcmp(&all[0], &all[1], sizeof all[0]) == 0);
    CHECK(memcmp(&all[0], &all[2], sizeof all[0]) == 0);
    CHECK(all[0].losses[49] < all[0].losses[0]);
    CHECK(all[0].sums[3] == 2 * 50 * 4.0f); /* scale is 2, total starts at 0 */
    return 0;
}
