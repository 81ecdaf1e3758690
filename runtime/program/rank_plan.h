/* How long a step over ranks takes when its tensors are averaged in given buckets: a model of the wire beside the computation, from which
 * sizes are chosen. */
#ifndef MXRT_RANK_PLAN_H
#define MXRT_RANK_PLAN_H

#include <stddef.h>

struct plan_bucket {
    size_t bytes;
    double ready, need;   /* when it is final, and when the next step needs it, as parts of a step's computation */
    double left, arrived; /* of the model's own, as is: */
    int by_need;
};

struct plan_net {
    int ranks;
    double latency, bandwidth; /* seconds of an empty message; bytes a second */
};

/* Seconds from the start of a step to the start of the next, when they have followed each other for a while. Buckets in the order in which they
 * become final; `seconds` of computation alone. */
double ranks_plan_step(struct plan_bucket *b, int count, double seconds, const struct plan_net *net);

#endif
