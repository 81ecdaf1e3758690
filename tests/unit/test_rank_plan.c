/* The model by which buckets are sized: against times that can be had without it. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "program/rank_plan.h"

enum { MOST = 40 };

/* Equal buckets of `bytes` in all. The forward pass is the first third, and needs what is final last first. */
static int equal(struct plan_bucket *b, int count, size_t bytes) {
    for (int i = 0; i < count; i++)
        b[i] = (struct plan_bucket){.bytes = bytes / (size_t)count,
                                    .ready = 1.0 / 3 + 2.0 / 3 * (i + 1) / count,
                                    .need = 1.0 / 3 * (count - 1 - i) / count};
    return count;
}

static void between(double least, double time, double most) {
    cr_expect(time >= least - 1e-9 && time <= most + 1e-9, "%g is not within %g and %g", time, least, most);
}

/* With a fast wire a step takes what its computation takes, and what the last bucket needs. */
Test(rank_plan, fast_wire) {
    struct plan_bucket b[MOST];
    const struct plan_net net = {2, 1e-6, 1e12};
    for (int n = 1; n <= MOST; n++)
        between(1, ranks_plan_step(b, equal(b, n, 100000000), 1, &net), 1.001);
}

/* With a slow one what the wire takes: it rests only from when all has arrived to when the first bucket is final again. */
Test(rank_plan, slow_wire) {
    struct plan_bucket b[MOST];
    for (int ranks = 2; ranks <= 8; ranks++) {
        const struct plan_net net = {ranks, 1e-5, 1e8};
        const double wire = 2.0 * (ranks - 1) / ranks * 4e8 / 1e8;
        double one = ranks_plan_step(b, equal(b, 1, 400000000), 0.3, &net);
        double many = ranks_plan_step(b, equal(b, MOST, 400000000), 0.3, &net);
        between(wire + 0.3, one, wire + 0.3 + 0.01); /* nothing overlaps */
        between(wire, many, wire + 0.3 / 3 + 0.05);
    }
}

/* Without computation it is the wire alone; messages cost, so fewer are better. */
Test(rank_plan, wire_alone) {
    struct plan_bucket b[MOST];
    const struct plan_net net = {4, 1e-3, 1e9};
    const double wire = 1.5 * 1e8 / 1e9;
    double one = ranks_plan_step(b, equal(b, 1, 100000000), 0, &net);
    double many = ranks_plan_step(b, equal(b, MOST, 100000000), 0, &net);
    between(wire, one, wire + 0.01);
    cr_expect(many > one);
}

/* What is needed first overtakes: a small bucket that is final last does not wait for a large one before it, which is needed late. */
Test(rank_plan, overtakes) {
    const struct plan_net net = {2, 1e-6, 1e9};
    struct plan_bucket b[2] = {{.bytes = 1000000000, .ready = 0.9, .need = 0.5},
                               {.bytes = 1000, .ready = 1, .need = 0}};
    const double with = ranks_plan_step(b, 2, 1, &net);
    b[1].need = 0.5; /* now nothing starts the next step early: same time, as the large one decides */
    between(with, ranks_plan_step(b, 2, 1, &net), with + 0.001);
    b[0].need = 0; /* all is needed at once: half a step of computation is no longer hidden */
    between(with + 0.4, ranks_plan_step(b, 2, 1, &net), with + 0.6);
}

/* Random buckets: never faster than either computation or wire, never slower than one after the other. */
Test(rank_plan, bounds) {
    struct plan_bucket b[MOST];
    srand(7);
    for (int round = 0; round < 2000; round++) {
        const int n = 1 + rand() % MOST, ranks = 2 + rand() % 7;
        const struct plan_net net = {ranks, rand() % 1000 * 1e-6, 1e7 * (1 + rand() % 1000)};
        const double seconds = rand() % 1000 * 1e-3;
        double wire = 0, ready = 0;
        for (int i = 0; i < n; i++) {
            ready += (1 - ready) * (rand() % 1000) * 1e-3;
            b[i] = (struct plan_bucket){
                .bytes = (size_t)(rand() % 10000000), .ready = ready, .need = ready * (rand() % 1000) * 1e-3};
            wire += 2.0 * (ranks - 1) / ranks * (double)b[i].bytes / net.bandwidth;
        }
        const double delays = n * (2 * 7 * 50e-6 + 6 * net.latency);
        between(seconds > wire ? seconds : wire - seconds, ranks_plan_step(b, n, seconds, &net),
                seconds + wire + delays);
    }
}
