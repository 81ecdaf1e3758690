/* The program around online.mxl: `online digits.csv`. It trains the extractor on one task, then shows batches of pictures to
 * `score` and lets the head learn from each, and says how many operations each call of `score` ran and what time they took. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "online.h"

enum { PIXELS = 64, BATCH = 64, PRETRAIN = 640, LEARN = 1152, STEPS = 16 };

static float pictures[2000][PIXELS];
static int32_t labels[2000];

static double seconds(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int read_pictures(const char *path) {
    FILE *f = fopen(path, "r");
    char line[1024];
    int n = 0;
    if (!f) {
        perror(path);
        exit(1);
    }
    while (n < 2000 && fgets(line, sizeof line, f)) {
        char *at = line;
        for (int i = 0; i < PIXELS; i++, at++)
            pictures[n][i] = strtof(at, &at) / 16;
        labels[n++] = (int32_t)strtol(at, NULL, 10);
    }
    fclose(f);
    return n;
}

static void must(online *m, mx_status status) {
    if (status != MX_OK) {
        fprintf(stderr, "online: %s\n", online_error(m));
        exit(1);
    }
}

static float p[BATCH][10], h[BATCH][128];

/* How often calls of score ran so many operations, and their time. */
struct calls {
    int64_t operations;
    int count;
    double time;
};

static void score(online *m, struct calls *c) {
    double began = seconds();
    must(m, online_score(m, p[0], h[0]));
    c->time += seconds() - began;
    c->count++;
    c->operations = online_score_ran(m);
}

static int right(int first, int n) {
    int good = 0;
    for (int i = 0; i < n; i++) {
        int best = 0;
        for (int k = 1; k < 10; k++)
            if (p[i][k] > p[i][best])
                best = k;
        good += best == labels[first + i];
    }
    return good;
}

int main(int argc, char **argv) {
    int n = read_pictures(argc > 1 ? argv[1] : "digits.csv");
    online *m;
    float loss;
    if (n <= LEARN || online_init(&m, NULL, 0, NULL) != MX_OK) {
        fprintf(stderr, "online: no memory, or not enough pictures\n");
        return 1;
    }
    for (int epoch = 0; epoch < 8; epoch++)
        for (int at = 0; at < PRETRAIN; at += BATCH) {
            int32_t odd[BATCH];
            for (int i = 0; i < BATCH; i++)
                odd[i] = labels[at + i] % 2;
            must(m, online_pretrain(m, BATCH, pictures[at], odd, &loss));
        }
    printf("the extractor tells even from odd: loss %.3f\n", loss);

    struct calls pictures_new = {0, 0, 0}, head_new = {0, 0, 0}, nothing_new = {0, 0, 0};
    for (int at = PRETRAIN; at < LEARN; at += BATCH) {
        must(m, online_score_set_x(m, BATCH, pictures[at]));
        score(m, &pictures_new);
        int before = right(at, BATCH);
        for (int step = 0; step < STEPS; step++) {
            must(m, online_learn(m, BATCH, h[0], labels + at, &loss));
            score(m, &head_new);
        }
        score(m, &nothing_new);
        printf("batch %d: %2d of %d right, %d after %d steps of the head\n", (at - PRETRAIN) / BATCH + 1, before, BATCH,
               right(at, BATCH), STEPS);
    }
    int good = 0, total = 0;
    for (int at = LEARN; at < n; at += BATCH) {
        int count = n - at < BATCH ? n - at : BATCH;
        must(m, online_score_set_x(m, count, pictures[at]));
        score(m, &pictures_new);
        good += right(at, count);
        total += count;
    }
    printf("new pictures: %d of %d right\n", good, total);
    double whole = pictures_new.time / pictures_new.count, part = head_new.time / head_new.count;
    printf("score after new pictures:       %2lld operations, %7.1f us\n", (long long)pictures_new.operations,
           whole * 1e6);
    printf("score after a step of the head: %2lld operations, %7.1f us, 1/%.0f of the time\n",
           (long long)head_new.operations, part * 1e6, whole / part);
    printf("score without a change:         %2lld operations, %7.1f us\n", (long long)nothing_new.operations,
           nothing_new.time / nothing_new.count * 1e6);
    printf("memory: %d bytes, of it %d kept from call to call\n", ONLINE_MEMORY_BYTES, ONLINE_CACHE_BYTES);
    online_free(m);
    return 0;
}
