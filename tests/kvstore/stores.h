/* For tests of the kvstore over ranks: a store as a setting has it. */
#ifndef TESTS_KVSTORE_STORES_H
#define TESTS_KVSTORE_STORES_H

#include "ranks.h"

struct setting {
    const char *type;
    int servers;
    int64_t big;
    size_t bucket;
    enum mxrt_kv_compression kind;
    float threshold;
    bool multi_precision;
    _Atomic int *ready; /* ranks that have come to where another may be lost */
};

static inline void begin(struct rank *r) {
    const struct setting *s = r->context;
    OK(mxrt_kv_create(&r->kv, s->type, r->e,
                      &(struct mxrt_kv_options){.net = r->net,
                                                .servers = s->servers < r->size ? s->servers : r->size,
                                                .big_array = s->big,
                                                .bucket = s->bucket,
                                                .multi_precision = s->multi_precision},
                      why));
    CHECK(mxrt_kv_rank(r->kv) == r->rank && mxrt_kv_size(r->kv) == r->size && !strcmp(mxrt_kv_type(r->kv), s->type));
    if (s->kind != MXRT_KV_NONE)
        OK(mxrt_kv_set_compression(r->kv, s->kind, s->threshold, why));
}

static inline void end(struct rank *r) {
    OK(mxrt_engine_wait_all(r->e, why));
    mxrt_kv_destroy(r->kv);
}

#endif
