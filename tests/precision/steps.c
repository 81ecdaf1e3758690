/* Calls step of steps.mxl, some of them with a value that f16 cannot hold, and writes a line for each call: the loss, the scale, the good
 * steps in a row, and what changed. Then what a checkpoint brings back. Linked with steps.c of the model or its CUDA unit. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"

#define CHECK(call)                                                         \
    do {                                                                    \
        if ((call) != MX_OK) {                                              \
            fprintf(stderr, "%s: %s\n", #call, m ? unit_error(m) : "init"); \
            exit(1);                                                        \
        }                                                                   \
    } while (0)

/* Everything but the scale and its count, one after the other. */
static size_t held(unit *m, char *out) {
    size_t n = 0;
    for (int i = 0; i < UNIT_PARAM_COUNT; i++) {
        mx_param p;
        CHECK(unit_param_at(m, i, &p));
        if (strncmp(p.name, "mx.loss_scale", 13) == 0)
            continue;
        memcpy(out + n, p.value.data, p.value.bytes);
        n += p.value.bytes;
    }
    return n;
}

static float scale(unit *m, int32_t *steps) {
    float s = 0;
    for (int i = 0; i < UNIT_PARAM_COUNT; i++) {
        mx_param p;
        CHECK(unit_param_at(m, i, &p));
        if (strcmp(p.name, "mx.loss_scale") == 0)
            memcpy(&s, p.value.data, sizeof s);
        if (strcmp(p.name, "mx.loss_scale_steps") == 0)
            memcpy(steps, p.value.data, sizeof *steps);
    }
    return s;
}

int main(int argc, char **argv) {
    enum { N = 8, ROOM = 1 << 16 };
    static float x[N * 4];
    static int32_t y[N];
    static char before[ROOM], after[ROOM];
    unit *m = NULL;
    unit_options options = {0};
    options.seed = 7;
    CHECK(unit_init(&m, NULL, 0, &options));
    float last[4] = {9, 9, 9, 9}, loss = 0;
    int32_t good = -1;
    uint32_t s = 1;
    /* `.`: as it should be; `i`: an infinity; `n`: a nan; `l`: finite, but not in f16 */
    const char *calls = argc > 1 ? argv[1] : "..i...nl....";
    for (const char *c = calls; *c; c++) {
        for (int i = 0; i < N; i++) {
            y[i] = i % 3;
            for (int k = 0; k < 4; k++) {
                s = s * 1664525u + 1013904223u;
                x[i * 4 + k] = (float)(s >> 8) / 16777216.0f + (k == y[i]);
            }
        }
        if (*c != '.')
            x[5] = *c == 'i' ? INFINITY : *c == 'n' ? NAN : 1e30f;
        size_t bytes = held(m, before);
        float old[4];
        memcpy(old, last, sizeof old);
        CHECK(unit_step(m, N, x, y, last, &loss));
        held(m, after);
        float now = scale(m, &good);
        printf("%c %s scale %g good %d %s %s\n", *c, isfinite(loss) ? "finite" : "not finite", (double)now, (int)good,
               memcmp(before, after, bytes) ? "changed" : "same", memcmp(old, last, sizeof old) ? "changed" : "same");
    }
    int32_t saved_good = 0, loaded_good = 0;
    float saved = scale(m, &saved_good);
    CHECK(unit_save(m, "steps.safetensors"));
    held(m, before);
    unit_free(m);
    CHECK(unit_init(&m, NULL, 0, &options));
    CHECK(unit_load(m, "steps.safetensors"));
    float loaded = scale(m, &loaded_good);
    size_t bytes = held(m, after);
    printf("loaded %s %s\n", saved == loaded && saved_good == loaded_good ? "scale" : "another scale",
           memcmp(before, after, bytes) ? "other values" : "values");
    CHECK(unit_reset_all(m));
    saved = scale(m, &good);
    printf("reset scale %g good %d\n", (double)saved, (int)good);
    unit_free(m);
    return 0;
}
