/* The sum of the values of one push, within a rank: in MXNet's order, so that f32 gives MXNet's bits.
 *
 * "local" adds four at a time into the first (s + (((a + b) + c) + d)), the others one after the other. f16 and bf16 are added
 * as f32 and rounded once, where MXNet rounds after each addition. Large sums use threads, over ranges of elements: no order
 * depends on how many. */
#include <stdlib.h>
#include <string.h>

#include "../net/sum.h"
#include "compress.h"
#include "internal.h"

enum { BLOCK = 512, RANGE = 1 << 16 };

/* ---- ranges */

struct split {
    void (*fn)(void *context, int64_t first, int64_t count);
    void *context;
    int64_t elements;
};

static void one_range(void *context, int64_t task) {
    const struct split *s = context;
    int64_t first = task * RANGE, left = s->elements - first;
    s->fn(s->context, first, left < RANGE ? left : RANGE);
}

void kv_ranges(struct mxrt_kvstore *kv, int64_t elements, void (*fn)(void *context, int64_t first, int64_t count),
               void *context) {
    struct split s = {fn, context, elements};
    if (elements >= kv->big)
        mxrt_parallel(kv->pool, (elements + RANGE - 1) / RANGE, one_range, &s);
    else
        fn(context, 0, elements);
}

/* ---- dense */

struct dense {
    const struct mxrt_kv_value *values;
    int count;
    bool by_four;
    mx_dtype type, partial, to;
    void *out;
};

/* Element `at` of value i as the partial type: in place, or in `scratch`. */
static const void *load(const struct dense *d, int i, int64_t at, int64_t n, void *scratch) {
    const char *from = (const char *)d->values[i].data + (size_t)at * mxrt_dtype_size(d->type);
    if (d->partial == d->type)
        return from;
    sum_widen(d->type, scratch, from, n);
    return scratch;
}

static void dense_range(void *context, int64_t first, int64_t count) {
    const struct dense *d = context;
    _Alignas(64) char total[8 * BLOCK], group[8 * BLOCK], scratch[8 * BLOCK];
    for (int64_t at = first; at < first + count; at += BLOCK) {
        int64_t n = first + count - at < BLOCK ? first + count - at : BLOCK;
        char *out = (char *)d->out + (size_t)at * mxrt_dtype_size(d->to);
        const void *sum = load(d, 0, at, n, total);
        for (int i = 1; i < d->count;) {
            const void *add = load(d, i++, at, n, group);
            for (int k = 1; d->by_four && k < 4 && i < d->count; k++, i++) {
                sum_two(d->partial, group, add, load(d, i, at, n, scratch), n);
                add = group;
            }
            sum_two(d->partial, total, sum, add, n);
            sum = total;
        }
        kv_convert(d->to, out, d->partial, sum, n);
    }
}

/* ---- */

static mx_status merge_sparse(struct mxrt_kvstore *kv, const char *label, const struct mxrt_kv_value *values, int count,
                              mx_dtype to, struct mxrt_kv_value *out, struct mxrt_why *why) {
    struct part *parts = calloc((size_t)count, sizeof *parts);
    mx_status status = parts ? MX_OK : mxrt_fail(why, MX_ERROR_MEMORY, "no memory to add %d values", count);
    for (int i = 0; i < count && status == MX_OK; i++) {
        const struct mxrt_kv_value *v = &values[i];
        status = kv_check_sparse(label, v, why);
        parts[i] = (struct part){.form = FORM_SPARSE,
                                 .dtype = v->dtype,
                                 .elements = v->elements,
                                 .rows = *v->rows,
                                 .row_elements = v->row_elements,
                                 .ids = v->ids,
                                 .data = v->data};
    }
    if (status == MX_OK)
        status = kv_combine_sparse(parts, count, false, to, out, why);
    free(parts);
    return status;
}

mx_status kv_merge(struct mxrt_kvstore *kv, const char *label, const struct mxrt_kv_value *values, int count,
                   mx_dtype to, struct mxrt_kv_value *out, struct mxrt_why *why) {
    const struct mxrt_kv_value *first = &values[0];
    if (first->is_sparse)
        return merge_sparse(kv, label, values, count, to, out, why);
    mx_status status = kv_tensor_dense(out, to, first->elements, why);
    if (status != MX_OK)
        return status;
    struct dense d = {.values = values,
                      .count = count,
                      .by_four = kv->type != KV_DEVICE && kv->type != KV_DIST_DEVICE_SYNC,
                      .type = first->dtype,
                      .partial = sum_partial_type(first->dtype),
                      .to = to,
                      .out = out->data};
    kv_ranges(kv, first->elements, dense_range, &d);
    return MX_OK;
}
