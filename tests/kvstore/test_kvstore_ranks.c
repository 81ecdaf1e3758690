/* The kvstore over several ranks: MXNet's nightly tests of dist_sync and dist_async, restated, the same bits whatever the servers,
 * buckets and splits, and what happens when a rank errs or is lost. Arguments: up to so many ranks, and which part alone; or "mpi": as a
 * rank of an MPI job. */
#include <math.h>
#include <stdatomic.h>

#include "../../runtime/kvstore/item.h"
#include "stores.h"

/* ---- D7: w += rate * (sum of rank + 1), in each round */

static void rounds(struct rank *r) {
    enum { KEYS = 6, ROUNDS = 4 };
    static const int64_t elements[KEYS] = {6, 6, 4001, 4001, 1, 0};
    const struct setting *s = r->context;
    struct sgd add = {-2};
    bool pushpull = s->big % 2;
    begin(r);
    struct mxrt_kv_key keys[KEYS];
    struct mxrt_kv_value v[KEYS], other[KEYS], out[KEYS], out_of_other[KEYS];
    for (int k = 0; k < KEYS; k++) {
        keys[k] = number(k == 2 ? 99 : k);
        other[k] = dense(r->e, k % 2 ? MX_F16 : MX_F32, elements[k], 0.5);
        out_of_other[k] = dense(r->e, k % 2 ? MX_F16 : MX_F32, elements[k], 0);
        v[k] = dense(r->e, k % 2 ? MX_F16 : MX_F32, elements[k], r->rank == 0 ? 1 : 77);
        out[k] = dense(r->e, v[k].dtype, elements[k], 0);
    }
    OK(mxrt_kv_set_updater(r->kv, sgd, &add, why));
    OK(mxrt_kv_init(r->kv, KEYS, keys, v, why));
    OK(mxrt_kv_pull(r->kv, KEYS, keys, out, false, 0, why));
    OK(mxrt_engine_wait_all(r->e, why));
    for (int k = 0; k < KEYS; k++)
        CHECK(all_are(&out[k], 1)); /* rank 0's */
    for (int i = 1; i <= ROUNDS; i++) {
        for (int k = KEYS - 1; k >= 0; k--) { /* as a backward pass does; in turn, by one value or by two */
            int n = 1 + i % 2;
            struct mxrt_kv_key same[2] = {keys[k], keys[k]};
            struct mxrt_kv_value from[2] = {v[k], other[k]}, to[2] = {out[k], out_of_other[k]};
            fill(&v[k], n == 1 ? r->rank + 1 : r->rank + 0.5);
            if (pushpull) {
                OK(mxrt_kv_pushpull(r->kv, n, same, from, to, -k, why));
            } else {
                OK(mxrt_kv_push(r->kv, n, same, from, -k, why));
                OK(mxrt_kv_pull(r->kv, n, same, to, false, -k, why));
            }
        }
        OK(mxrt_engine_wait_all(r->e, why));
        for (int k = 0; k < KEYS; k++)
            CHECK(all_are(&out[k], 1 + i * 2.0 * r->size * (r->size + 1) / 2) &&
                  (i % 2 == 0 || all_are(&out_of_other[k], at(&out[k], 0))));
    }
    for (int k = 0; k < KEYS; k++) {
        drop(r->e, &v[k]);
        drop(r->e, &other[k]);
        drop(r->e, &out_of_other[k]);
        drop(r->e, &out[k]);
    }
    end(r);
}

/* ---- the same bits: random numbers, against the tree of net.h in plain loops */

enum { BITS_KEYS = 3, BITS_ROUNDS = 2 };
static const int64_t bits_elements[BITS_KEYS] = {5, 1000, 3333};

static float gradient(int rank, int key, int round, int64_t i) {
    uint64_t x =
        (uint64_t)rank * 7919 + (uint64_t)key * 104729 + (uint64_t)round * 1299709 + (uint64_t)i * 15485863 + 1;
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    x ^= x >> 31;
    return ((float)(x >> 40) / (1 << 24) - 0.5f) * (float)(1 << (x & 7));
}

static float tree(const float *x, int n) {
    int left = 1;
    if (n == 1)
        return x[0];
    while (left * 2 < n)
        left *= 2;
    return tree(x, left) + tree(x + left, n - left);
}

/* What a rank sends of its gradient, element by element, with its residual [elements]. */
static void send_of(const struct setting *s, float *g, float *residual, int64_t n) {
    float t = s->threshold;
    for (int64_t i = 0; i < n; i++)
        residual[i] += g[i];
    if (s->kind == MXRT_KV_TOP_K) {
        int64_t left = (int64_t)floor((double)t * (double)n + 0.5);
        memset(g, 0, (size_t)n * sizeof *g);
        for (left = left < 1 ? 1 : left; left > 0; left--) {
            int64_t best = -1;
            for (int64_t i = 0; i < n; i++) {
                if (g[i] == 0 && (best < 0 || fabsf(residual[i]) > fabsf(residual[best])))
                    best = i;
            }
            g[best] = residual[best];
            residual[best] = 0;
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float r = residual[i];
        if (s->kind == MXRT_KV_2BIT) {
            g[i] = r >= t ? t : r <= -t ? -t : 0;
        } else if (s->kind == MXRT_KV_1BIT) {
            g[i] = r > t ? 1 : -1;
        } else {
            uint16_t h;
            mxrt_put(MX_BF16, &h, 0, (double)r);
            g[i] = (float)mxrt_get(MX_BF16, &h, 0);
        }
        residual[i] = r - g[i];
    }
}

static void expected_bits(const struct setting *s, int size, int key, int round, float *sum) {
    int64_t n = bits_elements[key];
    float *g[MOST_RANKS], *residual[MOST_RANKS];
    for (int r = 0; r < size; r++) {
        g[r] = calloc((size_t)n, sizeof(float));
        residual[r] = calloc((size_t)n, sizeof(float));
        for (int k = 0; k <= round; k++) {
            for (int64_t i = 0; i < n; i++)
                g[r][i] = gradient(r, key, k, i);
            if (s->kind != MXRT_KV_NONE)
                send_of(s, g[r], residual[r], n);
        }
    }
    for (int64_t i = 0; i < n; i++) {
        float x[MOST_RANKS];
        for (int r = 0; r < size; r++)
            x[r] = g[r][i];
        sum[i] = tree(x, size);
    }
    for (int r = 0; r < size; r++) {
        free(g[r]);
        free(residual[r]);
    }
}

static void check_bits(const struct setting *s, int size, int key, int round, const struct mxrt_kv_value *v) {
    float *sum = calloc((size_t)bits_elements[key], sizeof *sum);
    expected_bits(s, size, key, round, sum);
    for (int64_t i = 0; i < bits_elements[key]; i++) {
        if (sum[i] != ((float *)v->data)[i]) {
            fprintf(stderr,
                    "%d ranks, %s, %d servers, compression %d, key %d, round %d, element %lld: %.9g, not %.9g\n", size,
                    s->type, s->servers, (int)s->kind, key, round, (long long)i, (double)((float *)v->data)[i],
                    (double)sum[i]);
            exit(1);
        }
    }
    free(sum);
}

static void same_bits(struct rank *r) {
    const struct setting *s = r->context;
    begin(r);
    struct mxrt_kv_key keys[BITS_KEYS];
    struct mxrt_kv_value v[BITS_KEYS], out[BITS_KEYS], sum[BITS_KEYS];
    for (int k = 0; k < BITS_KEYS; k++) {
        keys[k] = number(k);
        v[k] = dense(r->e, MX_F32, bits_elements[k], 0);
        out[k] = dense(r->e, MX_F32, bits_elements[k], 0);
        sum[k] = dense(r->e, MX_F32, bits_elements[k], 0);
    }
    OK(mxrt_kv_init(r->kv, BITS_KEYS, keys, v, why));
    for (int round = 0; round < BITS_ROUNDS; round++) {
        for (int k = 0; k < BITS_KEYS; k++) {
            for (int64_t i = 0; i < bits_elements[k]; i++)
                ((float *)v[k].data)[i] = ((float *)sum[k].data)[i] = gradient(r->rank, k, round, i);
        }
        for (int i = 0; i < BITS_KEYS; i++) { /* each rank in an order of its own */
            int k = (i + r->rank) % BITS_KEYS;
            OK(mxrt_kv_push(r->kv, 1, &keys[k], &v[k], k, why));
            OK(mxrt_kv_pull(r->kv, 1, &keys[k], &out[k], false, k, why));
            OK(mxrt_kv_all_reduce(r->kv, (uint64_t)k, &sum[k], k, why));
        }
        OK(mxrt_engine_wait_all(r->e, why));
        for (int k = 0; k < BITS_KEYS; k++) {
            check_bits(s, r->size, k, round, &out[k]); /* no updater: what is stored is the sum */
            check_bits(s, r->size, k, round, &sum[k]);
        }
    }
    if (s->kind == MXRT_KV_2BIT) {
        struct mxrt_kv_statistics t = mxrt_kv_statistics(r->kv);
        CHECK(r->size == 1 || (t.bytes_before > 0 && t.bytes_sent * 15 < t.bytes_before));
    }
    for (int k = 0; k < BITS_KEYS; k++) {
        drop(r->e, &v[k]);
        drop(r->e, &out[k]);
        drop(r->e, &sum[k]);
    }
    end(r);
}

/* ---- D8, D9: MXNet's sequences */

static void sequences(struct rank *r) {
    const struct setting *s = r->context;
    static const double two[][2] = {{0, 0},  {.4, 0}, {.1, 1},
                                    {.2, 0}, {.3, 1}, {.5, 1}}; /* pushed; moves by t rate n? */
    struct sgd add = {-2};
    struct mxrt_kv_key key = number(3);
    begin(r);
    struct mxrt_kv_value v = dense(r->e, MX_F32, 37, 0), out = dense(r->e, MX_F32, 37, 0);
    OK(mxrt_kv_set_updater(r->kv, sgd, &add, why));
    OK(mxrt_kv_init(r->kv, 1, &key, &v, why));
    double w = 0;
    for (int i = 0; i < 6 && s->kind == MXRT_KV_2BIT; i++) {
        fill(&v, two[i][0]);
        OK(mxrt_kv_push(r->kv, 1, &key, &v, 0, why));
        pull(r->kv, r->e, key, &out);
        w += two[i][1] * 0.5 * 2 * r->size;
        CHECK(all_are(&out, w));
        OK(mxrt_engine_wait_all(r->e, why));
    }
    /* 1bit: r > t gives 1, else -1 */
    static const double one[] = {1, -1, 0.25, -3};
    float residual = 0;
    for (int i = 0; i < 4 && s->kind == MXRT_KV_1BIT; i++) {
        fill(&v, one[i]);
        OK(mxrt_kv_push(r->kv, 1, &key, &v, 0, why));
        pull(r->kv, r->e, key, &out);
        residual += (float)one[i];
        float q = residual > s->threshold ? 1 : -1;
        residual -= q;
        w += (double)q * 2 * r->size;
        CHECK(all_are(&out, w));
        OK(mxrt_engine_wait_all(r->e, why));
    }
    drop(r->e, &v);
    drop(r->e, &out);
    end(r);
}

/* ---- rows: D7's sparse part, unions, and that nothing becomes dense on the wire */

static void sparse_rounds(struct rank *r) {
    enum { ROWS = 103, ROW = 5 };
    const struct setting *s = r->context;
    struct sgd add = {-2};
    struct mxrt_kv_key key = name("embedding");
    begin(r);
    struct mxrt_kv_value first = sparse(r->e, MX_F32, ROWS, ROW, ROWS), g = sparse(r->e, MX_F32, ROWS, ROW, ROWS),
                         out = sparse(r->e, MX_F32, ROWS, ROW, ROWS), sum = sparse(r->e, MX_F32, ROWS, ROW, ROWS);
    for (int i = 0; i < ROWS; i++)
        sparse_row(&first, i, r->rank == 0 ? 1 : 55);
    OK(mxrt_kv_set_updater(r->kv, sgd, &add, why));
    OK(mxrt_kv_init(r->kv, 1, &key, &first, why));
    int64_t all[ROWS];
    for (int i = 0; i < ROWS; i++)
        all[i] = ROWS - 1 - i;
    const int64_t *ids = all;
    int64_t count = ROWS, none = 0;
    for (int round = 1; round <= 3; round++) { /* row i is pushed by rank i % size, the last by all */
        *g.rows = 0;
        for (int i = 0; i < ROWS && round != 2; i++) {
            if (i % r->size == r->rank || i == ROWS - 1)
                sparse_row(&g, i, r->rank + 1);
        }
        OK(mxrt_kv_push(r->kv, 1, &key, &g, 0, why));
        OK(mxrt_kv_row_sparse_pull(r->kv, 1, &key, &out, &ids, &count, 0, why));
        OK(mxrt_engine_wait_all(r->e, why));
        CHECK(*out.rows == ROWS);
        for (int i = 0; i < ROWS; i++) {
            double add_of_row = i == ROWS - 1 ? r->size * (r->size + 1) / 2 : i % r->size + 1;
            int pushes = round == 1 ? 1 : round == 2 ? 1 : 2; /* round 2 pushes no rows */
            CHECK(out.ids[i] == i && at(&out, i * ROW) == 1 + 2 * pushes * add_of_row &&
                  at(&out, i * ROW + ROW - 1) == at(&out, i * ROW));
        }
    }
    OK(mxrt_kv_row_sparse_pull(r->kv, 1, &key, &out, &ids, &none, 0, why));
    static const int64_t some[] = {50, 3, 50};
    const int64_t *some_ids = some, some_count = 3;
    struct mxrt_kv_value few = sparse(r->e, MX_F32, ROWS, ROW, 2);
    OK(mxrt_kv_row_sparse_pull(r->kv, 1, &key, &few, &some_ids, &some_count, 0, why));
    OK(mxrt_engine_wait_all(r->e, why));
    CHECK(*out.rows == 0 && *few.rows == 2 && few.ids[0] == 3 && few.ids[1] == 50);
    /* the union over ranks: rows 2 rank, 2 rank + 1, and one of all */
    *sum.rows = 0;
    sparse_row(&sum, 2 * r->rank, 1);
    sparse_row(&sum, 2 * r->rank + 1, 2);
    sparse_row(&sum, 60, 0.5);
    OK(mxrt_kv_all_reduce(r->kv, 5, &sum, 0, why));
    OK(mxrt_engine_wait_all(r->e, why));
    CHECK(*sum.rows == 2 * r->size + 1);
    for (int i = 0; i < 2 * r->size; i++)
        CHECK(sum.ids[i] == i && at(&sum, i * ROW) == 1 + i % 2);
    CHECK(sum.ids[2 * r->size] == 60 && at(&sum, 2 * r->size * ROW) == 0.5 * r->size);
    /* too little room is an error of the variable */
    *few.rows = 0;
    sparse_row(&few, 10 + 2 * r->rank, 1);
    sparse_row(&few, 11 + 2 * r->rank, 1);
    OK(mxrt_kv_all_reduce(r->kv, 6, &few, 0, why));
    if (r->size > 1)
        FAILS(MX_ERROR_SHAPE, "the value has room for 2", mxrt_engine_wait_var(r->e, few.variable, why));
    OK(mxrt_engine_wait_all(r->e, why));
    if (s->servers == 0 && r->size > 1) { /* 3 pushes, of which one empty, and 2 sums */
        struct mxrt_kv_statistics t = mxrt_kv_statistics(r->kv);
        CHECK(t.bytes_before == 5 * ROWS * ROW * 4);
        CHECK(t.bytes_sent <= (uint64_t)(2 * (ROWS / r->size + 2) + 5) * (8 + ROW * 4));
    }
    drop(r->e, &first);
    drop(r->e, &g);
    drop(r->e, &out);
    drop(r->e, &sum);
    drop(r->e, &few);
    end(r);
}

/* ---- D10: many keys, of two types, small and big */

static void many_keys(struct rank *r) {
    enum { KEYS = 400 };
    begin(r);
    struct mxrt_kv_key keys[KEYS];
    struct mxrt_kv_value v[KEYS], out[KEYS];
    char texts[KEYS][24];
    for (int k = 0; k < KEYS; k++) {
        snprintf(texts[k], sizeof texts[k], "weight%d", k);
        keys[k] = name(texts[k]);
        v[k] = dense(r->e, k % 2 ? MX_F16 : MX_F32, k % 8 < 6 ? 6 : 700, r->rank == 0 ? k % 100 : -1);
        out[k] = dense(r->e, v[k].dtype, v[k].elements, -5);
    }
    OK(mxrt_kv_init(r->kv, KEYS, keys, v, why));
    OK(mxrt_kv_pull(r->kv, KEYS, keys, out, false, 0, why));
    OK(mxrt_engine_wait_all(r->e, why));
    for (int k = 0; k < KEYS; k++) {
        CHECK(all_are(&out[k], k % 100));
        fill(&v[k], r->rank == k % r->size);
    }
    OK(mxrt_kv_pushpull(r->kv, KEYS, keys, v, out, 0, why));
    OK(mxrt_engine_wait_all(r->e, why));
    for (int k = 0; k < KEYS; k++)
        CHECK(all_are(&out[k], 1)); /* no updater: the sum */
    struct mxrt_kv_statistics s = mxrt_kv_statistics(r->kv);
    const struct setting *set = r->context;
    if (r->size > 1 && set->bucket > 10000) /* 400 small items and their answers share messages */
        CHECK(s.messages > 0 && s.messages < 2 * KEYS);
    FAILS(MX_ERROR_ARGUMENT, "key `weight400` is not there",
          mxrt_kv_pull(r->kv, 1, &(struct mxrt_kv_key){.name = "weight400"}, out, false, 0, why));
    for (int k = 0; k < KEYS; k++) {
        drop(r->e, &v[k]);
        drop(r->e, &out[k]);
    }
    end(r);
}

/* ---- dist_async: each push at once, one at a time for a key */

struct once {
    _Atomic int inside;
    struct sgd sgd;
};

static mx_status one_at_a_time(void *context, struct mxrt_kv_key key, const struct mxrt_kv_value *g,
                               struct mxrt_kv_value *w, struct mxrt_why *why) {
    struct once *o = context;
    if (key.number == 0 && atomic_fetch_add(&o->inside, 1) != 0)
        return mxrt_fail(why, MX_ERROR_CHECK, "two at a time");
    mx_status status = sgd(&o->sgd, key, g, w, why);
    if (key.number == 0)
        atomic_fetch_sub(&o->inside, 1);
    return status;
}

static void asynchronous(struct rank *r) {
    enum { PUSHES = 20 };
    struct once once = {.sgd = {-1}};
    begin(r);
    struct mxrt_kv_key keys[2] = {number(0), number(1)};
    struct mxrt_kv_value v[2] = {dense(r->e, MX_F32, 9, 0), dense(r->e, MX_F32, 2000, 0)};
    struct mxrt_kv_value out[2] = {dense(r->e, MX_F32, 9, 0), dense(r->e, MX_F32, 2000, 0)};
    OK(mxrt_kv_init(r->kv, 2, keys, v, why));
    FAILS(MX_ERROR_ARGUMENT, "without an updater", mxrt_kv_push(r->kv, 2, keys, v, 0, why));
    OK(mxrt_kv_set_updater(r->kv, one_at_a_time, &once, why));
    double last = 0;
    for (int i = 0; i < PUSHES; i++) {
        fill(&v[0], r->rank + 1);
        fill(&v[1], r->rank + 1);
        OK(mxrt_kv_push(r->kv, 2, keys, v, 0, why));
        OK(mxrt_kv_pull(r->kv, 2, keys, out, false, 0, why));
        OK(mxrt_engine_wait_all(r->e, why));
        /* at least this rank's own pushes are in it, and nothing is lost again */
        CHECK(at(&out[0], 0) >= (i + 1) * (r->rank + 1) && at(&out[0], 0) >= last + r->rank + 1);
        CHECK(all_are(&out[0], at(&out[0], 0)));
        last = at(&out[0], 0);
    }
    OK(mxrt_kv_barrier(r->kv, why));
    OK(mxrt_kv_pull(r->kv, 2, keys, out, false, 0, why));
    OK(mxrt_engine_wait_all(r->e, why));
    CHECK(all_are(&out[0], PUSHES * r->size * (r->size + 1) / 2));
    CHECK(all_are(&out[1], PUSHES * r->size * (r->size + 1) / 2));
    for (int i = 0; i < 2; i++) {
        drop(r->e, &v[i]);
        drop(r->e, &out[i]);
    }
    end(r);
}

/* ---- priorities: what waits for the same worker leaves, arrives and is applied with the largest first */

enum { URGENT = 24 };
struct applied {
    int64_t keys[URGENT];
    _Atomic int count;
};

static mx_status note(void *context, struct mxrt_kv_key key, const struct mxrt_kv_value *g, struct mxrt_kv_value *w,
                      struct mxrt_why *why) {
    struct applied *a = context;
    a->keys[atomic_fetch_add(&a->count, 1)] = key.number;
    return MX_OK;
}

static mx_status wait_for(void *context, struct mxrt_why *why) {
    while (!atomic_load((atomic_bool *)context))
        sleep_us(100);
    return MX_OK;
}

static mx_status set(void *context, struct mxrt_why *why) {
    atomic_store((atomic_bool *)context, true);
    return MX_OK;
}

/* Nobody waits for the engine, and so helps its one worker, before all have been sent, and applied: two threads could overtake each other. */
static void urgent(struct rank *r) {
    static const int64_t place[5] = {3, 0, 4, 1, 2};
    struct applied applied = {.count = 0};
    atomic_bool go = false, gone = false;
    struct mxrt_kv_key keys[URGENT];
    struct mxrt_kv_value v[URGENT];
    begin(r);
    for (int k = 0; k < URGENT; k++) {
        keys[k] = number(k);
        v[k] = dense(r->e, MX_F32, k % 3 ? 10 : 3000, 0);
    }
    OK(mxrt_kv_set_updater(r->kv, note, &applied, why));
    OK(mxrt_kv_init(r->kv, URGENT, keys, v, why));
    if (r->rank == 1) {
        struct mxrt_op op = {.run = wait_for, .context = &go, .lane = MXRT_LANE_PRIORITY, .priority = 1000};
        OK(mxrt_engine_push(r->e, &op, why));
        for (int i = 0; i < URGENT; i++) { /* in no order of their priorities */
            int k = (int)(i / 5 * 5 + (i < 20 ? place[i % 5] : i % 5));
            OK(mxrt_kv_push(r->kv, 1, &keys[k], &v[k], -k, why));
        }
        op = (struct mxrt_op){.run = set, .context = &gone, .lane = MXRT_LANE_PRIORITY, .priority = -1000};
        OK(mxrt_engine_push(r->e, &op, why));
        atomic_store(&go, true);
        OK(wait_for(&gone, why));
        OK(mxrt_engine_wait_all(r->e, why));
    }
    OK(mxrt_kv_barrier(r->kv, why));
    for (int i = 0; i < URGENT && r->rank == 0; i++)
        CHECK(applied.count == URGENT && applied.keys[i] == i);
    OK(mxrt_kv_barrier(r->kv, why));
    for (int k = 0; k < URGENT; k++)
        drop(r->e, &v[k]);
    end(r);
}

/* ---- what ranks get wrong */

static void disagreement(struct rank *r) {
    begin(r);
    struct mxrt_kv_key key = number(0);
    struct mxrt_kv_value a = dense(r->e, MX_F32, 4, 0), b = dense(r->e, MX_F32, r->rank == 1 ? 5 : 4, 0);
    FAILS(MX_ERROR_PEER, "rank 1 calls it with other arguments", mxrt_kv_init(r->kv, 1, &key, &b, why));
    if (r->rank == 2)
        FAILS(MX_ERROR_ARGUMENT, "no data",
              mxrt_kv_init(r->kv, 1, &key, &(struct mxrt_kv_value){.elements = 3, .dtype = MX_F32}, why));
    else
        FAILS(MX_ERROR_PEER, "failed on rank 2", mxrt_kv_init(r->kv, 1, &key, &a, why));
    OK(mxrt_kv_init(r->kv, 1, &key, &a, why)); /* nothing of it is left */
    FAILS(MX_ERROR_PEER, "other arguments",
          mxrt_kv_set_compression(r->kv, MXRT_KV_2BIT, r->rank == 1 ? 1.0f : 0.5f, why));
    /* a sum to which rank 1 has another length: an error on all ranks, and the next one works */
    OK(mxrt_kv_all_reduce(r->kv, 3, &b, 0, why));
    FAILS(MX_ERROR_PEER, "contributed", mxrt_engine_wait_var(r->e, b.variable, why));
    (void)mxrt_engine_wait_all(r->e, NULL);
    OK(mxrt_kv_barrier(r->kv, why));
    fill(&a, 1);
    OK(mxrt_kv_all_reduce(r->kv, 3, &a, 0, why));
    OK(mxrt_engine_wait_all(r->e, why));
    CHECK(all_are(&a, r->size));
    drop(r->e, &a);
    drop(r->e, &b);
    end(r);
}

/* What rank 1 makes up comes straight from the net. It is refused by number, or by breaking off where not even that can be read. */
static void ignored(void *context, mx_status status, const char *message) {
}

static void invented(struct rank *r) {
    begin(r);
    struct mxrt_kv_key key = number(0);
    struct mxrt_kv_value w = dense(r->e, MX_F32, 4, 3), out = dense(r->e, MX_F32, 4, 0);
    OK(mxrt_kv_init(r->kv, 1, &key, &w, why));
    if (r->rank == 1) {
        struct {
            struct item item;
            float payload[8];
        } x[] = {
            /* unknown key; too long; wrong round; twice the next round would be one too many; bad dtype for 2bit */
            {{.kind = ITEM_PUSH,
              .number = 7,
              .id = UINT64_C(1) << 40 | 1234,
              .form = FORM_DENSE,
              .dtype = MX_F32,
              .elements = 4,
              .bytes = 16},
             {1}},
            {{.kind = ITEM_PUSH,
              .number = 7,
              .id = UINT64_C(1) << 40,
              .round = 9,
              .form = FORM_DENSE,
              .dtype = MX_F32,
              .elements = 4,
              .bytes = 16},
             {1}},
            {{.kind = ITEM_PULL_ROWS, .number = 7, .id = UINT64_C(1) << 40, .form = FORM_IDS, .rows = 1, .bytes = 8},
             {1}},
            {{.kind = ITEM_VALUE,
              .number = 7,
              .id = UINT64_C(1) << 40,
              .form = FORM_DENSE,
              .dtype = MX_F32,
              .elements = 4,
              .bytes = 16},
             {1}},
            {{.kind = ITEM_REDUCE,
              .number = 7,
              .id = UINT64_C(1) << 40,
              .form = FORM_DENSE,
              .dtype = MX_F32,
              .elements = 4,
              .bytes = 16},
             {1}},
            {{.kind = ITEM_REDUCE, .number = 7, .id = UINT64_C(2) << 40 | 5, .form = FORM_TEXT, .rows = 2, .bytes = 2},
             {1}},
        };
        for (size_t i = 0; i < sizeof x / sizeof *x; i++)
            mxrt_net_request(r->net, 0, 0, MESSAGE_WORD(MESSAGE_BATCH, 0), &x[i], sizeof x[i].item + 16, ignored, NULL);
        OK(mxrt_kv_barrier(r->kv, why)); /* x is read until then */
    } else {
        OK(mxrt_kv_barrier(r->kv, why));
    }
    OK(mxrt_kv_push(r->kv, 1, &key, &w, 0, why));
    pull(r->kv, r->e, key, &out);
    CHECK(all_are(&out, 3 * r->size));
    if (r->rank == 0) {
        struct mxrt_kv_statistics s = mxrt_kv_statistics(r->kv);
        CHECK(s.refused == 6);
    }
    drop(r->e, &w);
    drop(r->e, &out);
    end(r);
}

/* No barrier: some may still be in that when the first is through, and lost. */
static void together(struct rank *r) {
    const struct setting *s = r->context;
    atomic_fetch_add(s->ready, 1);
    while (atomic_load(s->ready) < r->size)
        sleep_us(100);
}

static void garbage(struct rank *r) {
    begin(r);
    struct mxrt_kv_value v = dense(r->e, MX_F32, 4, 1);
    together(r);
    static const char text[] = "this is no message of a store, but it is long enough to be taken for a header";
    if (r->rank == 1)
        mxrt_net_request(r->net, 0, 0, MESSAGE_WORD(MESSAGE_BATCH, 0), text, sizeof text, ignored, NULL);
    else
        OK(mxrt_kv_all_reduce(r->kv, 1, &v, 0, why)); /* rank 1 has no part in it */
    if (r->rank != 1)
        FAILS(MX_ERROR_PEER, "rank 1 sent what is no request", mxrt_engine_wait_var(r->e, v.variable, why));
    (void)mxrt_engine_wait_all(r->e, NULL);
    mxrt_kv_destroy(r->kv);
    drop(r->e, &v);
}

/* An operation before a push fails on one rank: the others are told instead of waiting. */
static mx_status broken(void *context, struct mxrt_why *why) {
    return mxrt_fail(why, MX_ERROR_NUMERIC, "no gradient");
}

static void absent(struct rank *r) {
    begin(r);
    struct mxrt_kv_key key = number(0);
    struct mxrt_kv_value v = dense(r->e, MX_F32, 4, 1), out = dense(r->e, MX_F32, 4, 1);
    OK(mxrt_kv_init(r->kv, 1, &key, &v, why));
    together(r);
    if (r->rank == 1)
        OK(mxrt_engine_push(
            r->e, &(struct mxrt_op){.name = "backward", .run = broken, .writes = &v.variable, .write_count = 1}, why));
    OK(mxrt_kv_push(r->kv, 1, &key, &v, 0, why));
    OK(mxrt_kv_pull(r->kv, 1, &key, &out, false, 0, why));
    if (r->rank == 1)
        FAILS(MX_ERROR_NUMERIC, "no gradient", mxrt_engine_wait_var(r->e, out.variable, why));
    else
        FAILS(MX_ERROR_PEER, "rank 1 has no part in round 0 of key 0", mxrt_engine_wait_var(r->e, out.variable, why));
    (void)mxrt_engine_wait_all(r->e, NULL);
    mxrt_kv_destroy(r->kv);
    drop(r->e, &v);
    drop(r->e, &out);
}

/* A rank is lost: all that is pending ends, the engine goes on. */
static mx_status set_two(void *context, struct mxrt_why *why) {
    fill(context, 2);
    return MX_OK;
}

static void lost(struct rank *r) {
    begin(r);
    struct mxrt_kv_key keys[2] = {number(0), number(1)};
    struct mxrt_kv_value v[2] = {dense(r->e, MX_F32, 4, 1), dense(r->e, MX_F32, 5000, 1)};
    OK(mxrt_kv_init(r->kv, 2, keys, v, why));
    OK(mxrt_kv_push(r->kv, 2, keys, v, 0, why));
    OK(mxrt_kv_pull(r->kv, 2, keys, v, false, 0, why));
    OK(mxrt_engine_wait_all(r->e, why));
    together(r);
    if (r->rank == r->size - 1) {
        mxrt_net_fail(r->net, "the test ends it");
    } else {
        OK(mxrt_kv_push(r->kv, 2, keys, v, 0, why));
        OK(mxrt_kv_pull(r->kv, 2, keys, v, false, 0, why));
        for (int i = 0; i < 2; i++)
            FAILS(MX_ERROR_PEER, "the test ends it", mxrt_engine_wait_var(r->e, v[i].variable, why));
        (void)mxrt_engine_wait_all(r->e, NULL);
        (void)mxrt_kv_all_reduce(r->kv, 4, &v[0], 0, NULL); /* later ones, too */
        FAILS(MX_ERROR_PEER, "the test ends it", mxrt_engine_wait_var(r->e, v[0].variable, why));
        (void)mxrt_engine_wait_all(r->e, NULL);
        FAILS(MX_ERROR_PEER, "the test ends it", mxrt_kv_barrier(r->kv, why));
        OK(mxrt_engine_push(
            r->e, &(struct mxrt_op){.run = set_two, .context = &v[0], .writes = &v[0].variable, .write_count = 1},
            why));
        OK(mxrt_engine_wait_all(r->e, why));
        CHECK(all_are(&v[0], 2));
    }
    mxrt_kv_destroy(r->kv);
    for (int i = 0; i < 2; i++)
        drop(r->e, &v[i]);
}

/* Several stores on one net, one after the other and side by side. */
static void several(struct rank *r) {
    const struct setting *s = r->context;
    struct mxrt_kvstore *kv[3];
    struct mxrt_kv_value v = dense(r->e, MX_F32, 4, 1);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3; i++)
            OK(mxrt_kv_create(&kv[i], s->type, r->e,
                              &(struct mxrt_kv_options){.net = r->net, .servers = i, .bucket = 1000}, why));
        for (int i = 0; i < 3; i++) {
            fill(&v, i + 1);
            OK(mxrt_kv_all_reduce(kv[i], 1, &v, 0, why));
            OK(mxrt_engine_wait_var(r->e, v.variable, why));
            CHECK(all_are(&v, (i + 1) * r->size));
        }
        for (int i = 0; i < 3; i++)
            mxrt_kv_destroy(kv[i]);
    }
    drop(r->e, &v);
}

/* ---- */

static const char *only; /* NULL: everything */

static void part_of(const char *part, void (*run)(struct rank *r), int ranks, int threads, struct setting s) {
    if (!only || !strcmp(only, part))
        on_ranks(ranks, threads, NULL, run, &s);
}
#define all(part, ranks, ...)              part_of(#part, part, ranks, 2, __VA_ARGS__)
#define on_engine(threads, part, ranks, s) part_of(#part, part, ranks, threads, s)

static void in_group(int most) {
    static const int servers[] = {0, 1, 3};
    for (int ranks = 1; ranks <= most; ranks++) {
        for (int k = 0; k < 3; k++) {
            int n = servers[k];
            all(rounds, ranks, (struct setting){.type = "dist_sync", .servers = n, .big = 500, .bucket = 300});
            all(rounds, ranks,
                (struct setting){.type = "dist_device_sync", .servers = n, .big = 5001, .bucket = 1 << 20});
            all(same_bits, ranks, (struct setting){.type = "dist_sync", .servers = n, .big = 700, .bucket = 1});
            all(same_bits, ranks, (struct setting){.type = "dist_sync", .servers = n, .big = 0, .bucket = 5000});
            all(sparse_rounds, ranks, (struct setting){.type = "dist_sync", .servers = n, .big = 0, .bucket = 1000});
            all(sparse_rounds, ranks, (struct setting){.type = "dist_sync", .servers = n, .big = 100, .bucket = 100});
        }
        for (int k = 1; k < 3; k++)
            all(asynchronous, ranks,
                (struct setting){.type = "dist_async", .servers = servers[k], .big = 1000, .bucket = 500});
    }
    for (int threads = 0; threads < 2; threads++) { /* a naive engine, and one without workers */
        for (int k = 0; k < 3; k++) {
            struct setting s = {
                .type = "dist_sync", .servers = servers[k], .big = 500, .bucket = 300, .multi_precision = true};
            on_engine(threads, rounds, 3, s);
            if (threads > 0) /* each push of a naive engine waits: ranks must push in one order */
                on_engine(threads, same_bits, 3, s);
            on_engine(threads, sparse_rounds, 3, s);
        }
        struct setting s = {.type = "dist_async", .servers = 2, .big = 1000, .bucket = 500};
        on_engine(threads, asynchronous, 3, s);
    }
    static const struct setting lossy[] = {{.kind = MXRT_KV_2BIT, .threshold = 0.5f},
                                           {.kind = MXRT_KV_1BIT, .threshold = 0.25f},
                                           {.kind = MXRT_KV_BF16},
                                           {.kind = MXRT_KV_TOP_K, .threshold = 0.05f}};
    for (int ranks = 1; ranks <= most; ranks += 2) {
        for (int c = 0; c < 4; c++) {
            for (int k = 0; k < 3; k++) {
                struct setting s = lossy[c];
                s.type = "dist_sync";
                s.servers = servers[k];
                s.big = k ? 500 : 0;
                s.bucket = k ? 100 : 6000;
                if (ranks > 1 || s.servers > 0) /* one rank sends nothing, and loses nothing */
                    all(same_bits, ranks > 1 ? ranks : 2, s);
                all(sequences, ranks > 1 ? ranks : 2, s);
            }
        }
    }
    for (int t = -1; t <= 1; t++)
        all(sequences, 3,
            (struct setting){.type = "dist_sync", .servers = 1, .kind = MXRT_KV_1BIT, .threshold = 0.5f * (float)t});
    for (int k = 0; k < 3; k++) {
        all(many_keys, 3, (struct setting){.type = "dist_sync", .servers = servers[k], .big = 500, .bucket = 20000});
        all(many_keys, 2, (struct setting){.type = "dist_sync", .servers = servers[k], .big = 0, .bucket = 0});
        all(disagreement, 3, (struct setting){.type = "dist_sync", .servers = servers[k], .big = 0, .bucket = 1000});
        _Atomic int ready[3] = {0, 0, 0};
        all(garbage, 3,
            (struct setting){.type = "dist_sync", .servers = servers[k], .bucket = 1000, .ready = &ready[0]});
        all(absent, 3,
            (struct setting){.type = "dist_sync", .servers = servers[k], .bucket = 1000, .ready = &ready[1]});
        all(lost, 4,
            (struct setting){
                .type = "dist_sync", .servers = servers[k], .big = 500, .bucket = 1000, .ready = &ready[2]});
    }
    all(invented, 3, (struct setting){.type = "dist_sync", .servers = 1, .big = 0, .bucket = 1000});
    all(urgent, 2, (struct setting){.type = "dist_async", .servers = 1, .bucket = 1000});
    all(several, 3, (struct setting){.type = "dist_sync"});
}

/* As one rank of an MPI job: a net of that kind is opened once, and has one store after the other. */
static void in_job(void) {
    static const struct setting sync[] = {{.type = "dist_sync", .servers = 0, .big = 500, .bucket = 1000},
                                          {.type = "dist_sync", .servers = 2, .big = 500, .bucket = 1000},
                                          {.type = "dist_sync", .servers = 1}};
    static const struct setting lossy = {
        .type = "dist_sync", .servers = 2, .bucket = 6000, .kind = MXRT_KV_2BIT, .threshold = 0.5f};
    static const struct setting async = {.type = "dist_async", .servers = 2, .big = 1000, .bucket = 500};
    struct rank r = {0};
    OK(mxrt_net_open(&r.net, NULL, why));
    OK(mxrt_engine_create(&r.e, &(struct mxrt_engine_options){.threads = 2}, why));
    r.rank = mxrt_net_rank(r.net);
    r.size = mxrt_net_size(r.net);
    CHECK(r.size > 1 && r.size <= MOST_RANKS);
    for (size_t i = 0; i < sizeof sync / sizeof *sync; i++) {
        r.context = &sync[i];
        rounds(&r);
        same_bits(&r);
        sparse_rounds(&r);
        many_keys(&r);
    }
    r.context = &lossy;
    same_bits(&r);
    sequences(&r);
    r.context = &async;
    asynchronous(&r);
    mxrt_net_close(r.net);
    mxrt_engine_destroy(r.e);
}

int main(int argc, char **argv) {
    only = argc > 2 ? argv[2] : NULL;
    if (argc > 1 && !strcmp(argv[1], "mpi"))
        in_job();
    else
        in_group(argc > 1 ? atoi(argv[1]) : MOST_RANKS);
    printf("kvstore, ranks: passed\n");
    return 0;
}
