/* The kvstore within one process: the rules of MXNet's tests of local stores, restated, and what those leave out. */
#include <stdatomic.h>

#include "ranks.h"

static const struct mxrt_engine_options kinds[] = {{.kind = MXRT_ENGINE_NAIVE}, {.threads = 1}, {.threads = 3}};
enum { KINDS = sizeof kinds / sizeof *kinds, DEVICES = 4 };
static const char *const types[] = {"local", "device"};

struct here {
    struct mxrt_engine *e;
    struct mxrt_kvstore *kv;
};

static struct here begin(int kind, const char *type) {
    struct here h;
    OK(mxrt_engine_create(&h.e, &kinds[kind], why));
    OK(mxrt_kv_create(&h.kv, type, h.e, NULL, why));
    return h;
}

static void end(struct here h) {
    OK(mxrt_engine_wait_all(h.e, why));
    mxrt_kv_destroy(h.kv);
    mxrt_engine_destroy(h.e);
}

/* D1, D5: what is stored is what was pushed last; lists; both kinds of keys. */
static void push_and_pull(int kind, const char *type, bool names) {
    struct here h = begin(kind, type);
    static const char *const texts[] = {"a", "b", "c"};
    struct mxrt_kv_key one = names ? name("3") : number(3), keys[3];
    for (int i = 0; i < 3; i++)
        keys[i] = names ? name(texts[i]) : number(5 + 2 * i);
    struct mxrt_kv_value v = dense(h.e, MX_F32, 16, 4), out = dense(h.e, MX_F32, 16, 0), list[3], outs[3];
    OK(mxrt_kv_init(h.kv, 1, &one, &v, why));
    pull(h.kv, h.e, one, &out);
    CHECK(all_are(&out, 4));
    fill(&v, 1);
    OK(mxrt_kv_push(h.kv, 1, &one, &v, 0, why));
    pull(h.kv, h.e, one, &out);
    CHECK(all_are(&out, 1));
    for (int i = 0; i < 3; i++) {
        list[i] = dense(h.e, MX_F32, 4 + i, 0);
        outs[i] = dense(h.e, MX_F32, 4 + i, -1);
    }
    OK(mxrt_kv_init(h.kv, 3, keys, list, why));
    OK(mxrt_kv_pull(h.kv, 3, keys, outs, false, 0, why));
    OK(mxrt_engine_wait_all(h.e, why));
    for (int i = 0; i < 3; i++) {
        CHECK(all_are(&outs[i], 0));
        fill(&list[i], 4);
    }
    OK(mxrt_kv_push(h.kv, 3, keys, list, 0, why));
    OK(mxrt_kv_pull(h.kv, 3, keys, outs, false, 0, why));
    OK(mxrt_engine_wait_all(h.e, why));
    for (int i = 0; i < 3; i++)
        CHECK(all_are(&outs[i], 4));
    struct mxrt_kv_statistics s = mxrt_kv_statistics(h.kv);
    CHECK(s.pushes == 4 && s.pulls == 8 && s.reductions == 0);
    for (int i = 0; i < 3; i++) {
        drop(h.e, &list[i]);
        drop(h.e, &outs[i]);
    }
    drop(h.e, &v);
    drop(h.e, &out);
    end(h);
}

/* D2, D3: values of one key, however they stand in the lists, are summed before the updater. */
static void aggregate(int kind, const char *type) {
    struct here h = begin(kind, type);
    struct mxrt_kv_key keys[3 * DEVICES], a = number(1), all[3] = {number(1), number(2), number(3)};
    struct mxrt_kv_value v[3 * DEVICES], out[3 * DEVICES], first[3];
    for (int i = 0; i < 3; i++)
        first[i] = dense(h.e, MX_F32, 16, 0);
    OK(mxrt_kv_init(h.kv, 3, all, first, why));
    for (int i = 0; i < 3 * DEVICES; i++) {
        keys[i] = number(1 + i % 3);
        v[i] = dense(h.e, MX_F32, 16, 2);
        out[i] = dense(h.e, MX_F32, 16, 0);
    }
    OK(mxrt_kv_push(h.kv, 3 * DEVICES, keys, v, 0, why));
    OK(mxrt_kv_pull(h.kv, 3 * DEVICES, keys, out, false, 0, why));
    OK(mxrt_engine_wait_all(h.e, why));
    for (int i = 0; i < 3 * DEVICES; i++)
        CHECK(all_are(&out[i], 2 * DEVICES));
    for (int i = 0; i < 3 * DEVICES; i++) {
        drop(h.e, &v[i]);
        drop(h.e, &out[i]);
    }
    struct mxrt_kv_key same[DEVICES];
    for (int i = 0; i < DEVICES; i++) {
        same[i] = a;
        v[i] = dense(h.e, MX_F32, 16, 1);
    }
    FAILS(MX_ERROR_ARGUMENT, "before the first push", mxrt_kv_set_updater(h.kv, sgd, NULL, why));
    mxrt_kv_destroy(h.kv);
    OK(mxrt_kv_create(&h.kv, type, h.e, NULL, why));
    struct sgd add = {-1};
    fill(&first[0], 0);
    OK(mxrt_kv_init(h.kv, 1, &a, &first[0], why));
    OK(mxrt_kv_set_updater(h.kv, sgd, &add, why));
    for (int i = 0; i < 4; i++)
        OK(mxrt_kv_push(h.kv, DEVICES, same, v, 0, why));
    pull(h.kv, h.e, a, &first[0]);
    CHECK(all_are(&first[0], 16));
    for (int i = 0; i < 3; i++)
        drop(h.e, &first[i]);
    for (int i = 0; i < DEVICES; i++)
        drop(h.e, &v[i]);
    end(h);
}

/* D3: an updater sees the key as it was used. */
struct seen {
    bool is_name;
    _Atomic int calls;
};

static mx_status look(void *context, struct mxrt_kv_key key, const struct mxrt_kv_value *g, struct mxrt_kv_value *w,
                      struct mxrt_why *why) {
    struct seen *s = context;
    bool right = s->is_name ? key.name && !strcmp(key.name, "weight") : !key.name && key.number == 7;
    atomic_fetch_add(&s->calls, 1);
    return right && w->elements == 3 ? MX_OK : mxrt_fail(why, MX_ERROR_ARGUMENT, "another key");
}

static void key_of_updater(int kind, bool is_name) {
    struct here h = begin(kind, "local");
    struct seen s = {.is_name = is_name};
    struct mxrt_kv_key key = is_name ? name("weight") : number(7);
    struct mxrt_kv_value v = dense(h.e, MX_F32, 3, 1);
    OK(mxrt_kv_set_updater(h.kv, look, &s, why));
    OK(mxrt_kv_init(h.kv, 1, &key, &v, why));
    OK(mxrt_kv_push(h.kv, 1, &key, &v, 0, why));
    OK(mxrt_engine_wait_all(h.e, why));
    CHECK(s.calls == 1);
    drop(h.e, &v);
    end(h);
}

/* C4: the updater's failure is an error of what it would have changed. */
static mx_status refuse(void *context, struct mxrt_kv_key key, const struct mxrt_kv_value *g, struct mxrt_kv_value *w,
                        struct mxrt_why *why) {
    return mxrt_fail(why, MX_ERROR_NUMERIC, "a gradient that is not a number");
}

static void failing_updater(int kind) {
    struct here h = begin(kind, "local");
    struct mxrt_kv_key key = number(0);
    struct mxrt_kv_value v = dense(h.e, MX_F32, 3, 1);
    OK(mxrt_kv_set_updater(h.kv, refuse, NULL, why));
    OK(mxrt_kv_init(h.kv, 1, &key, &v, why));
    (void)mxrt_kv_push(h.kv, 1, &key, &v, 0, NULL);
    (void)mxrt_kv_pull(h.kv, 1, &key, &v, false, 0, NULL);
    FAILS(MX_ERROR_NUMERIC, "not a number", mxrt_engine_wait_var(h.e, v.variable, why));
    (void)mxrt_engine_wait_all(h.e, NULL);
    pull(h.kv, h.e, key, &v);
    CHECK(all_are(&v, 1));
    drop(h.e, &v);
    end(h);
}

/* D5: into the values themselves, pushed again, doubles; broadcast. */
static void pushpull(int kind, const char *type) {
    struct here h = begin(kind, type);
    struct mxrt_kv_key keys[2] = {number(0), number(0)}, b = number(1);
    struct mxrt_kv_value v[2], out[2];
    for (int i = 0; i < 2; i++) {
        v[i] = dense(h.e, MX_F32, 5, 1);
        out[i] = dense(h.e, MX_F32, 5, 0);
    }
    OK(mxrt_kv_init(h.kv, 1, keys, v, why));
    OK(mxrt_kv_pushpull(h.kv, 2, keys, v, out, 0, why));
    OK(mxrt_engine_wait_all(h.e, why));
    CHECK(all_are(&out[0], 2) && all_are(&out[1], 2) && all_are(&v[0], 1));
    OK(mxrt_kv_pushpull(h.kv, 2, keys, v, NULL, 0, why));
    OK(mxrt_kv_pushpull(h.kv, 2, keys, v, NULL, 0, why));
    OK(mxrt_engine_wait_all(h.e, why));
    CHECK(all_are(&v[0], 4) && all_are(&v[1], 4));
    fill(&v[0], 9);
    OK(mxrt_kv_broadcast(h.kv, 1, &b, v, out, 0, why));
    OK(mxrt_engine_wait_all(h.e, why));
    CHECK(all_are(&out[0], 9));
    for (int i = 0; i < 2; i++) {
        drop(h.e, &v[i]);
        drop(h.e, &out[i]);
    }
    end(h);
}

/* D2, D4: rows; ids unsorted, twice, none; what is refused. */
static void rows(int kind, const char *type) {
    enum { ROWS = 9, ROW = 3 };
    struct here h = begin(kind, type);
    struct mxrt_kv_key key = name("e"), keys[DEVICES], twice[2] = {key, key};
    struct mxrt_kv_value first = sparse(h.e, MX_F32, ROWS, ROW, ROWS), v[DEVICES], out[2];
    for (int i = 0; i < ROWS; i++)
        sparse_row(&first, i, 1);
    OK(mxrt_kv_init(h.kv, 1, &key, &first, why));
    for (int i = 0; i < 2; i++)
        out[i] = sparse(h.e, MX_F32, ROWS, ROW, ROWS);
    static const int64_t ids[] = {7, 2, 7, 0, 2};
    const int64_t *id_lists[2] = {ids, ids + 3};
    int64_t counts[2] = {5, 1};
    OK(mxrt_kv_row_sparse_pull(h.kv, 2, twice, out, id_lists, counts, 0, why));
    OK(mxrt_engine_wait_all(h.e, why));
    CHECK(*out[0].rows == 3 && out[0].ids[0] == 0 && out[0].ids[1] == 2 && out[0].ids[2] == 7);
    CHECK(all_are(&out[0], 1) && *out[1].rows == 1 && out[1].ids[0] == 0);
    counts[0] = 0;
    OK(mxrt_kv_row_sparse_pull(h.kv, 1, &key, out, id_lists, counts, 0, why));
    OK(mxrt_engine_wait_all(h.e, why));
    CHECK(*out[0].rows == 0);
    /* the union of four devices' rows: rows 0 1, 1 2, 2 3, 3 4 */
    for (int i = 0; i < DEVICES; i++) {
        keys[i] = key;
        v[i] = sparse(h.e, MX_F32, ROWS, ROW, 2);
        sparse_row(&v[i], i, 1);
        sparse_row(&v[i], i + 1, 10);
    }
    OK(mxrt_kv_push(h.kv, DEVICES, keys, v, 0, why));
    struct mxrt_kv_value whole = dense(h.e, MX_F32, ROWS * ROW, -1);
    pull(h.kv, h.e, key, &whole);
    static const double expected[ROWS] = {1, 11, 11, 11, 10, 0, 0, 0, 0};
    for (int i = 0; i < ROWS * ROW; i++)
        CHECK(at(&whole, i) == expected[i / ROW]);
    /* a pull into a row-sparse out: left as it is, or refused */
    OK(mxrt_kv_pull(h.kv, 1, &key, &out[1], true, 0, why));
    OK(mxrt_engine_wait_all(h.e, why));
    CHECK(*out[1].rows == 1 && all_are(&out[1], 1));
    FAILS(MX_ERROR_SHAPE, "row_sparse_pull", mxrt_kv_pull(h.kv, 1, &key, &out[1], false, 0, why));
    FAILS(MX_ERROR_SHAPE, "is dense", mxrt_kv_row_sparse_pull(h.kv, 1, &key, &whole, id_lists, counts, 0, why));
    FAILS(MX_ERROR_SHAPE, "a dense value", mxrt_kv_push(h.kv, 1, &key, &whole, 0, why));
    FAILS(MX_ERROR_SHAPE, "pushpull", mxrt_kv_pushpull(h.kv, 1, &key, v, NULL, 0, why));
    static const int64_t bad[] = {3, 9};
    const int64_t *bad_list = bad, bad_count = 2;
    FAILS(MX_ERROR_ARGUMENT, "row 9 of key `e` is asked for; it has rows 0 to 8",
          mxrt_kv_row_sparse_pull(h.kv, 1, &key, out, &bad_list, &bad_count, 0, why));
    static const int64_t three[] = {3, 4, 5};
    const int64_t *three_list = three, three_count = 3;
    FAILS(MX_ERROR_SHAPE, "room for 2", mxrt_kv_row_sparse_pull(h.kv, 1, &key, v, &three_list, &three_count, 0, why));
    /* rows that do not ascend are found when the operation runs */
    v[0].ids[1] = v[0].ids[0];
    (void)mxrt_kv_push(h.kv, 1, &key, v, 0, NULL);
    FAILS(MX_ERROR_ARGUMENT, "row 0 behind row 0", mxrt_engine_wait_all(h.e, why));
    *v[1].rows = 3;
    (void)mxrt_kv_push(h.kv, 1, &key, &v[1], 0, NULL);
    FAILS(MX_ERROR_ARGUMENT, "says 3 rows", mxrt_engine_wait_all(h.e, why));
    pull(h.kv, h.e, key, &whole);
    CHECK(at(&whole, 0) == 1);
    for (int i = 0; i < DEVICES; i++)
        drop(h.e, &v[i]);
    for (int i = 0; i < 2; i++)
        drop(h.e, &out[i]);
    drop(h.e, &first);
    drop(h.e, &whole);
    end(h);
}

/* A row-sparse gradient of a dense weight: the updater's matter. */
static void sparse_gradient(int kind) {
    struct here h = begin(kind, "local");
    struct mxrt_kv_key key = number(0);
    struct mxrt_kv_value w = dense(h.e, MX_F32, 12, 1), g = sparse(h.e, MX_F32, 4, 3, 2);
    struct sgd o = {0.5f};
    OK(mxrt_kv_init(h.kv, 1, &key, &w, why));
    OK(mxrt_kv_set_updater(h.kv, sgd, &o, why));
    sparse_row(&g, 1, 2);
    sparse_row(&g, 3, 4);
    OK(mxrt_kv_push(h.kv, 1, &key, &g, 0, why));
    pull(h.kv, h.e, key, &w);
    for (int i = 0; i < 12; i++)
        CHECK(at(&w, i) == (i / 3 == 1 ? 0 : i / 3 == 3 ? -1 : 1));
    drop(h.e, &w);
    drop(h.e, &g);
    end(h);
}

/* D6, C8: each round's bits are those of MXNet's loops, also above the bound from which threads are used. */
static void bits(int kind, const char *type, int64_t elements, int devices, mx_dtype dtype) {
    struct here h;
    OK(mxrt_engine_create(&h.e, &kinds[kind], why));
    OK(mxrt_kv_create(&h.kv, type, h.e, &(struct mxrt_kv_options){.big_array = 100000}, why));
    struct random random = {99};
    struct mxrt_kv_key keys[11];
    struct mxrt_kv_value v[11], out = dense(h.e, dtype, elements, 0);
    for (int d = 0; d < devices; d++) {
        keys[d] = number(0);
        v[d] = dense(h.e, dtype, elements, 0);
        for (int64_t i = 0; i < elements; i++)
            mxrt_put(dtype, v[d].data, i, (double)draw(&random, 2000001) / 1e6 - 1);
    }
    OK(mxrt_kv_init(h.kv, 1, keys, &out, why));
    OK(mxrt_kv_push(h.kv, devices, keys, v, 0, why));
    pull(h.kv, h.e, keys[0], &out);
    bool by_four = !strcmp(type, "local");
    for (int64_t i = 0; i < elements; i++) {
        float s = (float)at(&v[0], i);
        for (int d = 1; d < devices;) {
            float g = (float)at(&v[d++], i);
            for (int k = 1; by_four && k < 4 && d < devices; k++)
                g += (float)at(&v[d++], i);
            s += g;
        }
        uint64_t expected = 0, got = 0;
        mxrt_put(dtype, &expected, 0, (double)s);
        memcpy(&got, (char *)out.data + (size_t)i * mxrt_dtype_size(dtype), mxrt_dtype_size(dtype));
        CHECK(got == expected);
    }
    for (int d = 0; d < devices; d++)
        drop(h.e, &v[d]);
    drop(h.e, &out);
    end(h);
}

/* C16: 1 + 2^-12 many times is lost in f16, and not in f32. */
static void precision(int kind) {
    struct here h;
    OK(mxrt_engine_create(&h.e, &kinds[kind], why));
    for (int multi = 0; multi < 2; multi++) {
        OK(mxrt_kv_create(&h.kv, "local", h.e, &(struct mxrt_kv_options){.multi_precision = multi}, why));
        struct mxrt_kv_key key = number(0);
        struct mxrt_kv_value w = dense(h.e, MX_F16, 8, 1), g = dense(h.e, MX_F16, 8, 1.0 / 4096);
        struct sgd add = {-1};
        OK(mxrt_kv_init(h.kv, 1, &key, &w, why));
        OK(mxrt_kv_set_updater(h.kv, sgd, &add, why));
        for (int i = 0; i < 4096; i++)
            OK(mxrt_kv_push(h.kv, 1, &key, &g, 0, why));
        pull(h.kv, h.e, key, &w);
        CHECK(all_are(&w, multi ? 2 : 1));
        drop(h.e, &w);
        drop(h.e, &g);
        mxrt_kv_destroy(h.kv);
    }
    mxrt_engine_destroy(h.e);
}

/* C17: of a device store each place in the list has a residual. */
static void lossy(int kind) {
    struct here h = begin(kind, "device");
    struct mxrt_kv_key keys[2] = {number(0), number(0)};
    struct mxrt_kv_value v[2] = {dense(h.e, MX_F32, 7, 0.3), dense(h.e, MX_F32, 7, 0.7)},
                         out = dense(h.e, MX_F32, 7, 0.1);
    OK(mxrt_kv_set_compression(h.kv, MXRT_KV_2BIT, 0.5f, why));
    OK(mxrt_kv_init(h.kv, 1, keys, &out, why));
    pull(h.kv, h.e, keys[0], &out);
    CHECK(all_are(&out, (double)0.1f)); /* first values are not compressed */
    static const double expected[] = {0.5, 1.0, 0.5, 1.0};
    for (int i = 0; i < 4; i++) { /* .3 .6-.5 .4 .7-.5 and .7-.5 .9-.5 1.1-.5 1.3-.5 */
        OK(mxrt_kv_push(h.kv, 2, keys, v, 0, why));
        pull(h.kv, h.e, keys[0], &out);
        CHECK(all_are(&out, expected[i]));
    }
    FAILS(MX_ERROR_ARGUMENT, "set once", mxrt_kv_set_compression(h.kv, MXRT_KV_BF16, 0, why));
    struct mxrt_kv_statistics s = mxrt_kv_statistics(h.kv);
    CHECK(s.bytes_before == 4 * 2 * 28 && s.bytes_sent == 4 * 2 * 2);
    for (int i = 0; i < 2; i++)
        drop(h.e, &v[i]);
    drop(h.e, &out);
    end(h);
}

/* C2, D10: what is refused, and that nothing was pushed. */
static void refused(void) {
    struct here h = begin(2, "LOCAL");
    struct mxrt_kvstore *other;
    CHECK(!strcmp(mxrt_kv_type(h.kv), "local") && mxrt_kv_rank(h.kv) == 0 && mxrt_kv_size(h.kv) == 1);
    FAILS(MX_ERROR_ARGUMENT, "no type of store", mxrt_kv_create(&other, "remote", h.e, NULL, why));
    FAILS(MX_ERROR_ARGUMENT, "needs a net", mxrt_kv_create(&other, "dist_sync", h.e, NULL, why));
    FAILS(MX_ERROR_ARGUMENT, "no servers",
          mxrt_kv_create(&other, "local", h.e, &(struct mxrt_kv_options){.servers = 1}, why));
    struct mxrt_kv_key keys[2] = {number(1), number(2)}, twice[2] = {number(3), number(3)}, text = name("w");
    struct mxrt_kv_value v[2] = {dense(h.e, MX_F32, 4, 1), dense(h.e, MX_F32, 4, 1)}, bad = v[0];
    FAILS(MX_ERROR_ARGUMENT, "key 1 is not there", mxrt_kv_push(h.kv, 1, keys, v, 0, why));
    FAILS(MX_ERROR_ARGUMENT, "key 3 stands twice", mxrt_kv_init(h.kv, 2, twice, v, why));
    OK(mxrt_kv_init(h.kv, 1, keys, v, why));
    FAILS(MX_ERROR_ARGUMENT, "has a first value already", mxrt_kv_init(h.kv, 1, keys, v, why));
    FAILS(MX_ERROR_ARGUMENT, "keys of this store are numbers", mxrt_kv_init(h.kv, 1, &text, v, why));
    FAILS(MX_ERROR_ARGUMENT, "keys of this store are numbers", mxrt_kv_push(h.kv, 1, &text, v, 0, why));
    FAILS(MX_ERROR_ARGUMENT, "keys of this store are numbers", mxrt_kv_pull(h.kv, 1, &text, v, false, 0, why));
    uint64_t version = mxrt_var_version(h.e, v[0].variable);
    FAILS(MX_ERROR_ARGUMENT, "key 2 is not there", mxrt_kv_pull(h.kv, 2, keys, v, false, 0, why));
    OK(mxrt_engine_wait_all(h.e, why));
    CHECK(mxrt_var_version(h.e, v[0].variable) == version); /* nothing was pushed */
    bad.elements = 5;
    FAILS(MX_ERROR_SHAPE, "has 5 elements of f32; the key has 4 of f32", mxrt_kv_push(h.kv, 1, keys, &bad, 0, why));
    bad = v[0];
    bad.dtype = MX_I32;
    FAILS(MX_ERROR_SHAPE, "4 elements of i32; the key has 4 of f32", mxrt_kv_push(h.kv, 1, keys, &bad, 0, why));
    bad = v[0];
    bad.variable = (struct mxrt_var){0};
    FAILS(MX_ERROR_ARGUMENT, "no variable", mxrt_kv_push(h.kv, 1, keys, &bad, 0, why));
    bad = v[0];
    bad.data = NULL;
    FAILS(MX_ERROR_ARGUMENT, "no data", mxrt_kv_push(h.kv, 1, keys, &bad, 0, why));
    bad = v[0];
    bad.is_sparse = true;
    FAILS(MX_ERROR_SHAPE, "in rows of 0", mxrt_kv_push(h.kv, 1, keys, &bad, 0, why));
    bad.row_elements = 2;
    FAILS(MX_ERROR_ARGUMENT, "needs `rows`", mxrt_kv_push(h.kv, 1, keys, &bad, 0, why));
    FAILS(MX_ERROR_ARGUMENT, "nothing that could be compressed",
          mxrt_kv_set_compression(h.kv, MXRT_KV_2BIT, 0.5f, why));
    OK(mxrt_kv_barrier(h.kv, why));
    OK(mxrt_kv_all_reduce(h.kv, 0, v, 0, why));
    CHECK(all_are(&v[0], 1));
    OK(mxrt_kv_create(&other, "device", h.e, NULL, why));
    FAILS(MX_ERROR_ARGUMENT, "above 0", mxrt_kv_set_compression(other, MXRT_KV_2BIT, 0, why));
    FAILS(MX_ERROR_ARGUMENT, "at most 1", mxrt_kv_set_compression(other, MXRT_KV_TOP_K, 1.5f, why));
    FAILS(MX_ERROR_ARGUMENT, "is none", mxrt_kv_set_compression(other, MXRT_KV_NONE, 1, why));
    mxrt_kv_destroy(other);
    mxrt_kv_destroy(NULL);
    for (int i = 0; i < 2; i++)
        drop(h.e, &v[i]);
    end(h);
}

/* C9: pushes and pulls are ordered against what else reads and writes the values; destroy waits. */
static mx_status slow(void *context, struct mxrt_why *why) {
    struct mxrt_kv_value *v = context;
    sleep_us(20000);
    fill(v, 5);
    return MX_OK;
}

static void ordered(void) {
    struct here h = begin(2, "local");
    struct mxrt_kv_key key = number(0);
    struct mxrt_kv_value v = dense(h.e, MX_F32, 4, 1), out = dense(h.e, MX_F32, 4, 0);
    OK(mxrt_kv_init(h.kv, 1, &key, &v, why));
    OK(mxrt_engine_push(h.e, &(struct mxrt_op){.run = slow, .context = &v, .writes = &v.variable, .write_count = 1},
                        why));
    OK(mxrt_kv_push(h.kv, 1, &key, &v, 0, why));
    OK(mxrt_kv_pull(h.kv, 1, &key, &out, false, 0, why));
    mxrt_kv_destroy(h.kv);
    CHECK(all_are(&out, 5));
    drop(h.e, &v);
    drop(h.e, &out);
    mxrt_engine_destroy(h.e);
}

int main(void) {
    for (int kind = 0; kind < KINDS; kind++) {
        for (int t = 0; t < 2; t++) {
            push_and_pull(kind, types[t], false);
            push_and_pull(kind, types[t], true);
            aggregate(kind, types[t]);
            pushpull(kind, types[t]);
            rows(kind, types[t]);
            for (int devices = 1; devices <= 11; devices += 2)
                bits(kind, types[t], 1000, devices, MX_F32);
            bits(kind, types[t], 300001, 4, MX_F32);
            bits(kind, types[t], 1000, 7, MX_F16);
            bits(kind, types[t], 1000, 6, MX_BF16);
        }
        key_of_updater(kind, false);
        key_of_updater(kind, true);
        failing_updater(kind);
        sparse_gradient(kind);
        precision(kind);
        lossy(kind);
    }
    refused();
    ordered();
    printf("kvstore: passed\n");
    return 0;
}
