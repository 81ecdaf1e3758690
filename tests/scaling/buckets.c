/* What rank_buckets.c makes of a program's tables: `buckets RANKS LATENCY BANDWIDTH SECONDS`, linked with the program and -Wl,--wrap=mxrt_main.
 * Prints, for each size that it tries, how long a step would take, and the buckets: tensors, bytes, priority, whether they are sparse. */
#include <stdio.h>

#include "rank_buckets.c"

int __wrap_mxrt_main(const struct mxrt_program *p, int argc, char **argv);

static int fail(const struct mxrt_why *why) {
    fprintf(stderr, "buckets: %s\n", why->text);
    return 1;
}

static void lay_out(struct ranks *r) {
    size_t at = 0;
    for (int place = 0; place <= r->split->key_count; place++) {
        r->offset[ranks_key_number(r, place)] = at;
        at += (bytes_at(r, place) + 63) / 64 * 64;
    }
}

int __wrap_mxrt_main(const struct mxrt_program *p, int argc, char **argv) {
    struct mxrt_why why;
    struct buckets all = {0};
    struct ranks r = {.p = p, .split = p->split, .own = &all};
    if (argc != 5 || !p->split)
        return 2;
    r.size = atoi(argv[1]);
    all.latency = strtod(argv[2], NULL);
    all.bandwidth = strtod(argv[3], NULL);
    double seconds = strtod(argv[4], NULL);
    r.status_count = STATUS_HEAD + 1; /* the loss */
    r.offset = calloc((size_t)p->split->key_count + 1, sizeof *r.offset);
    all.of = calloc((size_t)p->split->key_count + 1, sizeof *all.of);
    r.memory = calloc(1, 1);
    if (!r.offset || !all.of || !r.memory ||
        mxrt_engine_create(&r.engine, &(struct mxrt_engine_options){.threads = 1}, &why) != MX_OK)
        return fail(&why);
    lay_out(&r);
    struct plan_bucket *plan = calloc((size_t)p->split->key_count + 1, sizeof *plan);
    if (!plan)
        return 2;
    printf("{\"step\": [");
    for (uint64_t bytes = LEAST_BYTES; bytes <= 1 << 28; bytes *= 2) {
        const struct plan_net net = {r.size, all.latency, all.bandwidth};
        printf("%s%.17g", bytes > LEAST_BYTES ? ", " : "", ranks_plan_step(plan, cut(&r, bytes, plan), seconds, &net));
    }
    free(plan);
    printf("],\n \"cut\": [");
    for (uint64_t bytes = 1 << 14; bytes <= 1 << 28; bytes *= 2) {
        if (make(&r, bytes, &why) != MX_OK)
            return fail(&why);
        printf("%s\n  [", bytes > 1 << 14 ? "," : "");
        for (int i = 0; i < all.count; i++) {
            const struct bucket *b = &all.at[i];
            printf("%s[%d, %lld, %d, %s]", i ? ", " : "", b->count,
                   (long long)b->value.elements * (long long)mxrt_dtype_size(b->value.dtype), b->priority,
                   b->value.is_sparse ? "true" : "false");
        }
        printf("]");
        drop(&r);
    }
    printf("]}\n");
    mxrt_engine_destroy(r.engine);
    free(r.offset);
    free(all.of);
    free(r.memory);
    return 0;
}
