/* Training steps of one compiled model of samples/zoo, in a process with nothing else in it. Built with
 *
 *     -include MODEL.h -DMODEL=…          the generated header and its prefix
 *     -DX_COUNT=… -DX_CLASSES=…           elements of x; 0 classes: real numbers, else tokens below that
 *     -DY_COUNT=… -DY_CLASSES=…           the same of y
 *     -DSTEP_N=8                          the batch, if it is an argument of step
 *     -DGRADIENTS=…                       how many numbers `gradients(x, y)` gives beside the loss, if the model has such a function
 *
 * and run as `program STEPS SEED LEARNING_RATE [SAVE]`. Writes one line of JSON: losses, milliseconds of each step, the process's
 * largest resident memory in KiB at the end and before the model was made. SAVE is a checkpoint of the model after the steps, or where
 * it has `gradients` the loss and they before the first step, as f32. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define JOIN_(a, b) a##_##b
#define JOIN(a, b)  JOIN_(a, b)
#define CALL(name)  JOIN(MODEL, name)
#ifdef STEP_N
#define DIMENSIONS STEP_N,
#else
#define DIMENSIONS
#endif
#if X_CLASSES
typedef int32_t x_type;
#else
typedef float x_type;
#endif
#if Y_CLASSES
typedef int32_t y_type;
#else
typedef float y_type;
#endif

static long status_kib(const char *key) {
    char line[256];
    long value = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtol(line + strlen(key) + 1, NULL, 10);
    if (f)
        fclose(f);
    return value;
}

static double now_ms(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* The same numbers as bench/worker.py: uniform in -0.5 .. 0.5; tokens are spread by the same generator. */
static uint32_t draw(uint32_t *s) {
    *s = *s * 1664525u + 1013904223u;
    return *s >> 8;
}

static x_type x[X_COUNT];
static y_type y[Y_COUNT];

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: %s STEPS SEED LEARNING_RATE [SAVE]\n", argv[0]);
        return 2;
    }
    long steps = strtol(argv[1], NULL, 10);
    float lr = strtof(argv[3], NULL);
    long idle = status_kib("VmHWM");
    uint32_t s = 1;
    for (long i = 0; i < (long)X_COUNT; i++)
#if X_CLASSES
        x[i] = (int32_t)(draw(&s) % X_CLASSES);
#else
        x[i] = (float)draw(&s) / 16777216.0f - 0.5f;
#endif
    for (long i = 0; i < (long)Y_COUNT; i++)
#if Y_CLASSES
        y[i] = (int32_t)(draw(&s) % Y_CLASSES);
#else
        y[i] = (float)draw(&s) / 16777216.0f - 0.5f;
#endif
    JOIN(MODEL, options) options = {.seed = strtoull(argv[2], NULL, 10), .threads = 1};
    const char *threads = getenv("OMP_NUM_THREADS");
    if (threads)
        options.threads = (int)strtol(threads, NULL, 10);
    MODEL *m = NULL;
    if (CALL(init)(&m, NULL, 0, &options) != MX_OK) {
        fprintf(stderr, "init failed\n");
        return 1;
    }
#ifdef GRADIENTS
    float *all = calloc((size_t)(GRADIENTS) + 1, sizeof *all);
    FILE *out = argc > 4 ? fopen(argv[4], "wb") : NULL;
    if (!all || !out || CALL(gradients)(m, DIMENSIONS x, y, all, all + 1) != MX_OK ||
        fwrite(all, sizeof *all, (size_t)(GRADIENTS) + 1, out) != (size_t)(GRADIENTS) + 1) {
        fprintf(stderr, "gradients failed: %s\n", CALL(error)(m));
        return 1;
    }
    fclose(out);
    free(all);
#endif
    printf("{\"losses\": [");
    double *ms = calloc((size_t)steps + 1, sizeof *ms);
    for (long i = 0; i < steps; i++) {
        float loss = 0;
        double t = now_ms();
        if (CALL(step)(m, DIMENSIONS x, y, lr, &loss) != MX_OK) {
            fprintf(stderr, "step failed: %s\n", CALL(error)(m));
            return 1;
        }
        ms[i] = now_ms() - t;
        printf("%s%.9g", i ? ", " : "", (double)loss);
    }
    printf("], \"ms\": [");
    for (long i = 0; i < steps; i++)
        printf("%s%.3f", i ? ", " : "", ms[i]);
    printf("], \"peak_kib\": %ld, \"idle_kib\": %ld, \"instance_bytes\": %zu}\n", status_kib("VmHWM"), idle,
           CALL(size)(&options));
    free(ms);
#ifndef GRADIENTS
    if (argc > 4 && CALL(save)(m, argv[4]) != MX_OK) {
        fprintf(stderr, "save failed: %s\n", CALL(error)(m));
        return 1;
    }
#endif
    CALL(free)(m);
    return 0;
}
