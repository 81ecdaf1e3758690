/* First values of keys. All is checked, and agreed on by all ranks, before any key is made; rank 0's values count. */
#include <stdlib.h>
#include <string.h>

#include "wire.h"

static mx_status check_list(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                            const struct mxrt_kv_value *values, struct mxrt_why *why) {
    char label[72];
    if (count < 0 || (count > 0 && (!keys || !values)))
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "mxrt_kv_init wants keys and as many values");
    for (int i = 0; i < count; i++) {
        kv_label(label, sizeof label, keys[i]);
        mx_status status = kv_check_key(kv, keys[i], why);
        if (status == MX_OK && (keys[i].name != NULL) != (keys[0].name != NULL))
            status = mxrt_fail(why, MX_ERROR_ARGUMENT,
                               "%s in a list with both names and numbers; keys are all of one kind", label);
        if (status == MX_OK)
            status = kv_check_value(kv, label, "value", &values[i], why);
        if (status == MX_OK && kv_find(kv, keys[i], &(struct mxrt_why){""}))
            status = mxrt_fail(why, MX_ERROR_ARGUMENT, "%s has a first value already; push changes it", label);
        if (status != MX_OK)
            return status;
    }
    return MX_OK;
}

static uint64_t digest_of(int count, const struct mxrt_kv_key *keys, const struct mxrt_kv_value *values) {
    uint64_t d = kv_digest(0, &count, sizeof count);
    for (int i = 0; i < count; i++) {
        const struct mxrt_kv_value *v = &values[i];
        int64_t shape[5] = {keys[i].name ? 0 : keys[i].number, (int64_t)v->dtype, v->elements, v->is_sparse,
                            v->is_sparse ? v->row_elements : 0};
        d = kv_digest(d, shape, sizeof shape);
        if (keys[i].name)
            d = kv_digest(d, keys[i].name, strlen(keys[i].name) + 1);
    }
    return d;
}

static void delete_variables(struct mxrt_kvstore *kv, struct entry *e) {
    const struct mxrt_var v[] = {e->channel.var, e->stored.variable, e->merged.variable};
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        if (v[i].id)
            (void)mxrt_var_delete(kv->engine, v[i], NULL, NULL, NULL);
    }
}

static mx_status entry_new(struct mxrt_kvstore *kv, struct mxrt_kv_key key, const struct mxrt_kv_value *v,
                           struct entry **entry, struct mxrt_why *why) {
    struct entry *e = calloc(1, sizeof *e);
    *entry = e;
    if (!e || !(e->places = calloc((size_t)kv->servers + 1, sizeof *e->places)) ||
        (key.name && !(e->key.name = strdup(key.name))))
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for a key");
    bool is_half = v->dtype == MX_F16 || v->dtype == MX_BF16;
    e->key.number = key.number;
    e->dtype = v->dtype;
    e->kept = kv->multi_precision && is_half ? MX_F32 : v->dtype;
    e->elements = v->elements;
    e->is_sparse = v->is_sparse;
    e->row_elements = v->is_sparse ? v->row_elements : 0;
    e->stored.row_elements = e->row_elements;
    kv_label(e->channel.label, sizeof e->channel.label, key);
    struct mxrt_var *vars[] = {&e->channel.var, &e->stored.variable, &e->merged.variable};
    mx_status status = MX_OK;
    for (size_t i = 0; i < sizeof vars / sizeof *vars && status == MX_OK; i++)
        status = mxrt_var_new(kv->engine, "a key of the kvstore", vars[i], why);
    return status;
}

/* Under no lock: the table is changed at the end. */
static mx_status entry_add(struct mxrt_kvstore *kv, struct entry *e, struct mxrt_why *why) {
    char label[72];
    struct entry *other;
    const void *bytes = e->key.name ? (const void *)e->key.name : &e->key.number;
    size_t length = e->key.name ? strlen(e->key.name) : sizeof e->key.number;
    kv_label(label, sizeof label, e->key);
    pthread_mutex_lock(&kv->lock);
    HASH_FIND(hh, kv->entries, bytes, length, other);
    if (!other) {
        e->index = kv->entry_count++;
        e->channel.id = KV_ID_KEY | (uint64_t)e->index;
        if (kv->servers > 0)
            kv_places(kv, e);
        kv->has_names = e->key.name != NULL;
        HASH_ADD_KEYPTR(hh, kv->entries, bytes, length, e);
    }
    pthread_mutex_unlock(&kv->lock);
    return other ? mxrt_fail(why, MX_ERROR_ARGUMENT, "%s stands twice in a list of first values", label) : MX_OK;
}

static mx_status check_twice(int count, const struct mxrt_kv_key *keys, struct mxrt_why *why) {
    struct seen {
        UT_hash_handle hh;
    } *seen = NULL, *all = calloc((size_t)count + 1, sizeof *all), *found;
    mx_status status = all ? MX_OK : mxrt_fail(why, MX_ERROR_MEMORY, "no memory for a list of %d keys", count);
    for (int i = 0; i < count && status == MX_OK; i++) {
        const void *bytes = keys[i].name ? (const void *)keys[i].name : &keys[i].number;
        size_t length = keys[i].name ? strlen(keys[i].name) : sizeof keys[i].number;
        HASH_FIND(hh, seen, bytes, length, found);
        if (found) {
            char label[72];
            kv_label(label, sizeof label, keys[i]);
            status = mxrt_fail(why, MX_ERROR_ARGUMENT, "%s stands twice in a list of first values", label);
        } else {
            HASH_ADD_KEYPTR(hh, seen, bytes, length, &all[i]);
        }
    }
    HASH_CLEAR(hh, seen);
    free(all);
    return status;
}

/* Rank 0's value, or a local store's, comes to e->merged by an operation, as whoever computes it may still be at it. */
static mx_status stage(struct mxrt_kvstore *kv, struct entry *e, const struct mxrt_kv_value *v, struct mxrt_why *why) {
    mx_status status = kv_push_merge(kv, e, &v, 1, e->kept, false, 0, why);
    return status == MX_OK ? mxrt_engine_wait_var(kv->engine, e->merged.variable, why) : status;
}

static mx_status first_value(struct mxrt_kvstore *kv, struct entry *e, const struct mxrt_kv_value *v,
                             struct mxrt_why *why) {
    mx_status status = MX_OK;
    if (kv->servers == 0)
        status = kv_tensor_dense(&e->stored, e->kept, e->elements, why);
    if (status == MX_OK && kv->rank == 0)
        status = stage(kv, e, v, why);
    if (status == MX_OK && kv->net)
        return kv_spread(kv, e, why);
    if (status == MX_OK)
        kv_assign(&e->merged, &e->stored);
    return status;
}

mx_status mxrt_kv_init(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                       const struct mxrt_kv_value *values, struct mxrt_why *why) {
    why = WHY(why);
    if (!kv)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "mxrt_kv_init wants a store");
    mx_status status = check_list(kv, count, keys, values, why);
    if (status == MX_OK)
        status = check_twice(count, keys, why);
    status = kv_agree(kv, "mxrt_kv_init", status == MX_OK ? digest_of(count, keys, values) : 0, status, why);
    for (int i = 0; i < count && status == MX_OK; i++) {
        struct entry *e;
        status = entry_new(kv, keys[i], &values[i], &e, why);
        if (status == MX_OK)
            status = entry_add(kv, e, why);
        if (status != MX_OK) {
            if (e)
                delete_variables(kv, e);
            kv_entry_free(e);
        } else {
            status = first_value(kv, e, &values[i], why);
        }
        if (status != MX_OK && kv_has_net(kv)) /* the others are in the midst of it */
            kv_wire_break(kv, why->text);
    }
    return status == MX_OK ? mxrt_kv_barrier(kv, why) : status;
}

mx_status mxrt_kv_broadcast(struct mxrt_kvstore *kv, int count, const struct mxrt_kv_key *keys,
                            const struct mxrt_kv_value *values, const struct mxrt_kv_value *outs, int priority,
                            struct mxrt_why *why) {
    mx_status status = mxrt_kv_init(kv, count, keys, values, why);
    return status == MX_OK ? mxrt_kv_pull(kv, count, keys, outs, true, priority, why) : status;
}
