/* pushpull of rows over several ranks, into a dense out that is kept: it stays what a pull would give, and what comes back are the rows that
 * changed. Arguments: up to so many ranks. */
#include <stdatomic.h>

#include "stores.h"

enum { KEPT_ROWS = 400, KEPT_ROW = 3 };
struct touching {
    struct sgd sgd;
    _Atomic int calls; /* of the updater, on this rank */
    int all_at;        /* in that call every row changes */
};

static mx_status touch(void *context, struct mxrt_kv_key key, const struct mxrt_kv_value *g, struct mxrt_kv_value *w,
                       struct mxrt_why *why) {
    struct touching *t = context;
    if (atomic_fetch_add(&t->calls, 1) == t->all_at) {
        for (int64_t i = 0; i < w->elements; i++)
            CHECK(mxrt_put(w->dtype, w->data, i, mxrt_get(w->dtype, w->data, i) + 1));
    }
    return sgd(&t->sgd, key, g, w, why);
}

static void same_values(const struct mxrt_kv_value *a, const struct mxrt_kv_value *b) {
    CHECK(memcmp(a->data, b->data, (size_t)a->elements * mxrt_dtype_size(a->dtype)) == 0);
}

static void kept_rows(struct rank *r) {
    enum { ROUNDS = 6, ALL_AT = 3 };
    const struct setting *s = r->context;
    const bool is_async = !strcmp(s->type, "dist_async");
    const mx_dtype dtype = s->multi_precision ? MX_F16 : MX_F32;
    const uint64_t whole = (uint64_t)KEPT_ROWS * KEPT_ROW * mxrt_dtype_size(dtype), row = 8 + whole / KEPT_ROWS;
    struct touching update = {.sgd = {-1}, .all_at = is_async ? -1 : ALL_AT};
    struct mxrt_kv_key key = name("embedding");
    begin(r);
    struct mxrt_kv_value first = sparse(r->e, dtype, KEPT_ROWS, KEPT_ROW, KEPT_ROWS),
                         g = sparse(r->e, dtype, KEPT_ROWS, KEPT_ROW, KEPT_ROWS),
                         kept = dense(r->e, dtype, first.elements, -7), pulled = dense(r->e, dtype, first.elements, -8);
    for (int i = 0; i < KEPT_ROWS; i++)
        sparse_row(&first, i, r->rank == 0 ? i % 10 : 55);
    OK(mxrt_kv_set_updater(r->kv, touch, &update, why));
    OK(mxrt_kv_init(r->kv, 1, &key, &first, why));
    sparse_row(&g, 0, 1);
    FAILS(MX_ERROR_SHAPE, "into a dense out that is kept", mxrt_kv_pushpull(r->kv, 1, &key, &g, &kept, 0, why));
    FAILS(MX_ERROR_SHAPE, "row-sparse", mxrt_kv_pushpull(r->kv, 1, &key, &g, NULL, 0, why));
    kept.is_kept = true;
    for (int round = 0; round < ROUNDS; round++) { /* two rows a rank, one of them also its neighbour's */
        *g.rows = 0;
        sparse_row(&g, 10 * round + r->rank, 1);
        sparse_row(&g, 10 * round + r->rank + 1, 0.5);
        struct mxrt_kv_statistics before = mxrt_kv_statistics(r->kv);
        OK(mxrt_kv_pushpull(r->kv, 1, &key, &g, &kept, 0, why));
        OK(mxrt_engine_wait_all(r->e, why));
        struct mxrt_kv_statistics after = mxrt_kv_statistics(r->kv);
        const uint64_t received = after.bytes_received - before.bytes_received;
        if (s->servers > 0) {
            const bool is_whole = round == 0 || (round == ALL_AT && !is_async);
            const int64_t rows = is_async ? (round + 1) * (r->size + 1) * ROUNDS : r->size + 1;
            CHECK(is_whole ? received == whole : received <= (uint64_t)rows * row);
            CHECK(is_async || is_whole || received == (uint64_t)rows * row);
            CHECK(after.bytes_wanted - before.bytes_wanted == whole);
            CHECK(after.bytes_sent - before.bytes_sent == 2 * row && after.bytes_before - before.bytes_before == whole);
        }
        if (!is_async) {
            pull(r->kv, r->e, key, &pulled);
            same_values(&kept, &pulled);
            CHECK(at(&kept, 10 * round * KEPT_ROW) == (10 * round) % 10 + 1 + (round >= ALL_AT));
        }
    }
    OK(mxrt_kv_barrier(r->kv, why)); /* all pushes have been applied */
    *g.rows = 0;
    OK(mxrt_kv_pushpull(r->kv, 1, &key, &g, &kept, 0, why));
    pull(r->kv, r->e, key, &pulled);
    OK(mxrt_engine_wait_all(r->e, why));
    same_values(&kept, &pulled);
    drop(r->e, &first);
    drop(r->e, &g);
    drop(r->e, &kept);
    drop(r->e, &pulled);
    end(r);
}

/* ---- */

static void on(int ranks, void (*run)(struct rank *r), struct setting s) {
    on_ranks(ranks, 2, NULL, run, &s);
}

int main(int argc, char **argv) {
    static const int servers[] = {0, 1, 3};
    const int most = argc > 1 ? atoi(argv[1]) : MOST_RANKS;
    for (int ranks = 1; ranks <= most; ranks++) {
        for (int k = 0; k < 3; k++) {
            const int n = servers[k];
            struct setting s = {.type = "dist_sync", .servers = n, .bucket = 1000};
            on(ranks, kept_rows, s);
            if (n > 0)
                on(ranks, kept_rows, (struct setting){.type = "dist_async", .servers = n, .bucket = 1000});
            s.big = 100;
            s.bucket = 100000;
            s.multi_precision = true;
            on(ranks, kept_rows, s);
        }
    }
    printf("kvstore, rows: passed\n");
    return 0;
}
