/* Keys: their table, where servers keep them, and what a value must be to go with one. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

void kv_label(char *label, size_t room, struct mxrt_kv_key key) {
    if (key.name)
        snprintf(label, room, "key `%.56s`", key.name);
    else
        snprintf(label, room, "key %lld", (long long)key.number);
}

/* Under the lock. */
static mx_status check_key(const struct mxrt_kvstore *kv, struct mxrt_kv_key key, struct mxrt_why *why) {
    if (key.name && !key.name[0])
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "a key with an empty name; keys are numbers or names");
    if (kv->entries && kv->has_names != (key.name != NULL)) {
        char label[72];
        kv_label(label, sizeof label, key);
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "%s, where the keys of this store are %s; they are all of one kind",
                         label, kv->has_names ? "names" : "numbers");
    }
    return MX_OK;
}

mx_status kv_check_key(struct mxrt_kvstore *kv, struct mxrt_kv_key key, struct mxrt_why *why) {
    pthread_mutex_lock(&kv->lock);
    mx_status status = check_key(kv, key, why);
    pthread_mutex_unlock(&kv->lock);
    return status;
}

struct entry *kv_find(struct mxrt_kvstore *kv, struct mxrt_kv_key key, struct mxrt_why *why) {
    struct entry *e = NULL;
    pthread_mutex_lock(&kv->lock);
    mx_status status = check_key(kv, key, why);
    if (status == MX_OK) {
        const void *bytes = key.name ? (const void *)key.name : &key.number;
        HASH_FIND(hh, kv->entries, bytes, key.name ? strlen(key.name) : sizeof key.number, e);
    }
    pthread_mutex_unlock(&kv->lock);
    if (!e && status == MX_OK) {
        char label[72];
        kv_label(label, sizeof label, key);
        (void)mxrt_fail(why, MX_ERROR_ARGUMENT, "%s is not there: mxrt_kv_init gives a key its first value", label);
    }
    return e;
}

/* A key of `big` elements or more goes to all servers in equal parts, in whole rows if it is sparse (MXNet's rule); another to
 * the server that has least so far, which MXNet leaves to chance. The same on all ranks, as they init alike. */
void kv_places(struct mxrt_kvstore *kv, struct entry *e) {
    size_t size = mxrt_dtype_size(e->kept);
    if (e->elements < kv->big || kv->servers == 1) {
        int best = 0;
        for (int s = 1; s < kv->servers; s++)
            best = kv->server_bytes[s] < kv->server_bytes[best] ? s : best;
        e->places[0] = (struct place){best, 0, e->elements};
        e->place_count = 1;
        kv->server_bytes[best] += (uint64_t)e->elements * size;
        return;
    }
    int64_t unit = e->is_sparse ? e->row_elements : 32; /* a whole number of bytes of any compression */
    int64_t units = e->elements / unit, first = 0;
    e->place_count = 0;
    for (int s = 0; s < kv->servers; s++) {
        int64_t end = unit * (int64_t)((double)units / kv->servers * (s + 1) + 0.5);
        end = s == kv->servers - 1 || end > e->elements ? e->elements : end;
        if (end > first) {
            e->places[e->place_count++] = (struct place){s, first, end - first};
            kv->server_bytes[s] += (uint64_t)(end - first) * size;
        }
        first = end;
    }
}

int mxrt_kv_server(struct mxrt_kvstore *kv, struct mxrt_kv_key key) {
    struct mxrt_why why;
    const struct entry *e = kv_find(kv, key, &why);
    return e && e->place_count ? e->places[0].server : -1;
}

void kv_entry_free(struct entry *e) {
    if (!e)
        return;
    free((char *)e->key.name);
    kv_tensor_free(&e->stored);
    kv_tensor_free(&e->merged);
    for (int i = 0; i < e->residual_count; i++)
        free(e->residuals[i]);
    free(e->residuals);
    free(e->channel.residual);
    free(e->places);
    free(e);
}

/* ---- values */

static mx_status check_shape(const char *label, const char *what, const struct mxrt_kv_value *v, struct mxrt_why *why) {
    if ((unsigned)v->dtype > MX_BOOL)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "the %s of %s has element type %d, which is none", what, label,
                         (int)v->dtype);
    int64_t size = (int64_t)mxrt_dtype_size(v->dtype), bytes;
    if (v->elements < 0 || __builtin_mul_overflow(v->elements, size, &bytes))
        return mxrt_fail(why, MX_ERROR_SHAPE, "the %s of %s has %lld elements", what, label, (long long)v->elements);
    if (!v->is_sparse)
        return v->data || v->elements == 0 ? MX_OK
                                           : mxrt_fail(why, MX_ERROR_ARGUMENT, "the %s of %s has no data", what, label);
    if (v->row_elements <= 0 || v->elements % v->row_elements != 0)
        return mxrt_fail(why, MX_ERROR_SHAPE, "the sparse %s of %s has %lld elements in rows of %lld", what, label,
                         (long long)v->elements, (long long)v->row_elements);
    if (!v->rows || v->room < 0 || (v->room > 0 && (!v->ids || !v->data)))
        return mxrt_fail(why, MX_ERROR_ARGUMENT,
                         "the sparse %s of %s needs `rows`, and `ids` and `data` for the %lld rows it has room for",
                         what, label, (long long)v->room);
    return MX_OK;
}

mx_status kv_check_value(struct mxrt_kvstore *kv, const char *label, const char *what, const struct mxrt_kv_value *v,
                         struct mxrt_why *why) {
    mx_status status = check_shape(label, what, v, why);
    if (status == MX_OK && mxrt_var_version(kv->engine, v->variable) == UINT64_MAX)
        status = mxrt_fail(why, MX_ERROR_ARGUMENT, "the %s of %s has no variable of the store's engine", what, label);
    return status;
}

mx_status kv_check_fits(const struct entry *e, const char *what, const struct mxrt_kv_value *v, struct mxrt_why *why) {
    if (v->dtype != e->dtype || v->elements != e->elements)
        return mxrt_fail(why, MX_ERROR_SHAPE, "the %s of %s has %lld elements of %s; the key has %lld of %s", what,
                         e->channel.label, (long long)v->elements, mxrt_dtype_name(v->dtype), (long long)e->elements,
                         mxrt_dtype_name(e->dtype));
    if (v->is_sparse && e->is_sparse && v->row_elements != e->row_elements)
        return mxrt_fail(why, MX_ERROR_SHAPE, "the sparse %s of %s has rows of %lld elements; the key has rows of %lld",
                         what, e->channel.label, (long long)v->row_elements, (long long)e->row_elements);
    return MX_OK;
}

/* ---- channels of reductions that no key stands for */

mx_status kv_channel(struct mxrt_kvstore *kv, uint64_t number, struct channel **channel, struct mxrt_why *why) {
    uint64_t id = KV_ID_USER | number;
    struct channel *c;
    mx_status status = MX_OK;
    if (number >> 32)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "the id %llu of a reduction; ids are below 2^32",
                         (unsigned long long)number);
    pthread_mutex_lock(&kv->lock);
    HASH_FIND(hh, kv->channels, &id, sizeof id, c);
    pthread_mutex_unlock(&kv->lock);
    if (c) {
        *channel = c;
        return MX_OK;
    }
    if (!(c = calloc(1, sizeof *c)))
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for a reduction");
    c->id = id;
    snprintf(c->label, sizeof c->label, "reduction %llu", (unsigned long long)number);
    if ((status = mxrt_var_new(kv->engine, "a reduction of the kvstore", &c->var, why)) != MX_OK) {
        free(c);
        return status;
    }
    struct channel *other;
    pthread_mutex_lock(&kv->lock);
    HASH_FIND(hh, kv->channels, &id, sizeof id, other);
    if (!other)
        HASH_ADD(hh, kv->channels, id, sizeof c->id, c);
    pthread_mutex_unlock(&kv->lock);
    if (other) { /* another thread was first */
        (void)mxrt_var_delete(kv->engine, c->var, NULL, NULL, NULL);
        free(c);
    }
    *channel = other ? other : c;
    return MX_OK;
}
