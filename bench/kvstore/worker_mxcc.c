/* A generated training program as a worker of the benchmark: linked with -Wl,--wrap=mxrt_main, so that the program's own training over
 * ranks runs, and around its `gradients` it is counted, stopped and timed.
 *
 * BENCH_CONTROL is the socket of the driver, which writes lines `STEPS SECONDS`; after one more step to warm up, the time from the start
 * of a step to the start of the one STEPS later goes back. SECONDS < 0: steps are what they are. Else `gradients` computes nothing, but needs its
 * parameters and finishes its tensors at the times in SECONDS that the compiler's count of operations implies, as a GPU would
 * beside this processor: only waiting for parameters delays it. Nor is anything applied then.
 *
 * BENCH_WRITE_TABLE is a file to write those times to, as parts of a step; the other systems sleep by it. */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "mxrt/program.h"

int __real_mxrt_main(const struct mxrt_program *p, int argc, char **argv);
int __wrap_mxrt_main(const struct mxrt_program *p, int argc, char **argv);

struct event {
    double at; /* part of a step */
    bool is_final;
    int index; /* of the key, or the group */
};

/* `gradients` gets no context of its own, so what belongs to it stands here. */
static struct bench {
    const struct mxrt_program *program;
    const struct mxrt_split *split;
    struct event *events;
    int event_count;
    FILE *in, *out;
    long left, counted;
    double seconds, started;
    bool *filled;    /* [key_count] */
    uint32_t *seeds; /* [size] of the rows drawn in the step before */
    int rank, size;
} bench;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void sleep_until(double when) {
    const struct timespec t = {(time_t)when, (long)((when - floor(when)) * 1e9)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        continue;
}

static void fail(const char *what) {
    fprintf(stderr, "worker: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- the driver */

static void connect_driver(void) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    const char *path = getenv("BENCH_CONTROL");
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    if (s < 0 || connect(s, (struct sockaddr *)&at, sizeof at) != 0)
        fail(path);
    bench.in = fdopen(s, "r");
    bench.out = fdopen(dup(s), "w");
    fprintf(bench.out, "{\"rank\": %d, \"pid\": %d}\n", bench.rank, (int)getpid());
    fflush(bench.out);
}

/* At the start of a step: whether it belongs to those being timed, or is the first after them. */
static void count(void) {
    char line[100];
    if (!bench.in)
        connect_driver();
    if (bench.left == bench.counted)
        bench.started = now();
    if (bench.left-- > 0)
        return;
    if (bench.counted > 0)
        fprintf(bench.out, "{\"seconds\": %.9f}\n", (now() - bench.started) / (double)bench.counted);
    fflush(bench.out);
    if (!fgets(line, sizeof line, bench.in))
        _exit(0); /* the driver has had enough */
    char *end;
    bench.counted = strtol(line, &end, 10);
    bench.seconds = strtod(end, NULL);
    bench.left = bench.counted;
}

/* ---- steps without computation */

static int64_t row_drawn(const struct mxrt_key *k, uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return (int64_t)((*seed >> 8) % (uint32_t)(k->elements / k->row_elements));
}

/* Of an embedding's gradient few rows are not zeros, other ones in each step and on each rank. The tensor holds the rows of all ranks from
 * the step before; a real gradient would have overwritten it. */
static void fill_rows(const struct mxrt_key *k, float *x) {
    for (int q = 0; q < bench.size; q++) {
        uint32_t seed = bench.seeds[q];
        for (int64_t i = 0; i < k->rows_touched; i++) {
            int64_t row = row_drawn(k, &seed);
            memset(x + row * k->row_elements, 0, sizeof *x * (size_t)k->row_elements);
        }
        bench.seeds[q] = seed;
    }
    uint32_t seed = bench.seeds[bench.rank];
    for (int64_t i = 0; i < k->rows_touched; i++) {
        int64_t row = row_drawn(k, &seed);
        for (int64_t j = 0; j < k->row_elements; j++)
            x[row * k->row_elements + j] = 1e-3f;
    }
}

static void fill(int key, void *tensor) {
    const struct mxrt_key *k = &bench.split->keys[key];
    float *x = tensor;
    if (k->rows_touched) {
        if (!bench.filled[key])
            memset(x, 0, sizeof *x * (size_t)k->elements);
        fill_rows(k, x);
    } else if (!bench.filled[key]) {
        for (int64_t i = 0; i < k->elements; i++)
            x[i] = 1e-3f; /* the average of such is such */
    }
    bench.filled[key] = true;
}

static mx_status pretend(void *const *results, void *const *keys, const struct mxrt_exchange *x) {
    double base = now();
    for (int i = 0; i < bench.event_count; i++) {
        const struct event *e = &bench.events[i];
        double at = base + e->at * bench.seconds;
        sleep_until(at);
        if (e->is_final) {
            fill(e->index, keys[e->index]);
            x->final(x->context, e->index);
            continue;
        }
        double before = now();
        mx_status status = x->need(x->context, e->index);
        if (status != MX_OK)
            return status;
        base += now() - before;
    }
    sleep_until(base + bench.seconds);
    *(float *)results[0] = 1; /* the loss */
    return MX_OK;
}

/* ---- in place of the program's own */

static mx_status gradients(void *model, const int64_t *dims, void *const *args, void *const *results, void *const *keys,
                           const struct mxrt_exchange *x) {
    count();
    if (bench.seconds >= 0)
        return pretend(results, keys, x);
    return bench.split->gradients(model, dims, args, results, keys, x);
}

static mx_status apply(void *model, void *arena, int group, void *const *args, void *const *keys) {
    return bench.seconds >= 0 ? MX_OK : bench.split->apply(model, arena, group, args, keys);
}

static int by_time(const void *a, const void *b) {
    const struct event *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return x->is_final - y->is_final;
}

static double part(double work, double all) {
    return work < 0 ? 1 : work / all;
}

static int write_table(const char *path) {
    const struct mxrt_split *s = bench.split;
    FILE *f = fopen(path, "w");
    if (!f)
        fail(path);
    double all = 1;
    for (int i = 0; i < s->key_count; i++)
        all = fmax(all, s->keys[i].work);
    fprintf(f, "[");
    for (int i = 0; i < s->key_count; i++) {
        const struct mxrt_key *k = &s->keys[s->final_order[i]];
        const struct mxrt_group *g = &s->groups[k->group];
        fprintf(
            f,
            "%s{\"name\": \"%s\", \"elements\": %lld, \"rows_touched\": %lld, \"row_elements\": %lld, \"trained\": %s, "
            "\"final\": %.9f, \"need\": %.9f}",
            i ? ",\n " : "", k->name, (long long)k->elements, (long long)k->rows_touched, (long long)k->row_elements,
            bench.program->buffer_is_state[k->buffer] ? "false" : "true", part(k->work, all), part(g->work, all));
    }
    fprintf(f, "]\n");
    if (fclose(f) != 0)
        fail(path);
    return 0;
}

int __wrap_mxrt_main(const struct mxrt_program *p, int argc, char **argv) {
    const struct mxrt_split *s = p->split;
    const char *rank = getenv("BENCH_RANK"), *size = getenv("BENCH_SIZE"), *table = getenv("BENCH_WRITE_TABLE");
    bench.program = p;
    bench.split = s;
    bench.rank = rank ? atoi(rank) : 0;
    bench.size = size ? atoi(size) : 1;
    if (!s || s->why_not) {
        fprintf(stderr, "worker: %s cannot train over ranks: %s\n", p->name, s ? s->why_not : "made with --no-ranks");
        return 1;
    }
    if (table)
        return write_table(table);
    bench.events = calloc((size_t)(s->key_count + s->group_count), sizeof *bench.events);
    bench.filled = calloc((size_t)s->key_count, sizeof *bench.filled);
    bench.seeds = calloc((size_t)bench.size, sizeof *bench.seeds);
    if (!bench.events || !bench.filled || !bench.seeds)
        fail("memory");
    for (int q = 0; q < bench.size; q++)
        bench.seeds[q] = (uint32_t)q + 1;
    double all = 1;
    for (int i = 0; i < s->key_count; i++)
        all = fmax(all, s->keys[i].work);
    for (int i = 0; i < s->key_count; i++)
        bench.events[bench.event_count++] = (struct event){part(s->keys[i].work, all), true, i};
    for (int i = 0; i < s->group_count; i++)
        if (s->groups[i].work >= 0)
            bench.events[bench.event_count++] = (struct event){part(s->groups[i].work, all), false, i};
    qsort(bench.events, (size_t)bench.event_count, sizeof *bench.events, by_time);
    struct mxrt_split split = *s;
    struct mxrt_program program = *p;
    split.gradients = gradients;
    split.apply = apply;
    program.split = &split;
    return __real_mxrt_main(&program, argc, argv);
}
