/* Tensors of the store's own: a value whose memory grows as needed. */
#include <stdlib.h>
#include <string.h>

#include "../net/sum.h"
#include "internal.h"

mx_status kv_tensor_dense(struct mxrt_kv_value *t, mx_dtype dtype, int64_t elements, struct mxrt_why *why) {
    if (t->data && !t->is_sparse && t->dtype == dtype && t->elements == elements)
        return MX_OK;
    void *data = calloc((size_t)elements + 1, mxrt_dtype_size(dtype));
    if (!data)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %lld elements of %s", (long long)elements,
                         mxrt_dtype_name(dtype));
    kv_tensor_free(t);
    t->data = data;
    t->dtype = dtype;
    t->elements = elements;
    t->is_sparse = false;
    return MX_OK;
}

mx_status kv_tensor_sparse(struct mxrt_kv_value *t, mx_dtype dtype, int64_t elements, int64_t row_elements,
                           int64_t rows, struct mxrt_why *why) {
    if (t->ids && t->is_sparse && t->dtype == dtype && t->row_elements == row_elements && t->room >= rows) {
        t->elements = elements;
        return MX_OK;
    }
    int64_t *count = calloc(1, sizeof *count), *ids = calloc((size_t)rows + 1, sizeof *ids);
    void *data = calloc((size_t)rows * (size_t)row_elements + 1, mxrt_dtype_size(dtype));
    if (!count || !ids || !data) {
        free(count);
        free(ids);
        free(data);
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %lld rows of %lld elements", (long long)rows,
                         (long long)row_elements);
    }
    kv_tensor_free(t);
    /* Not its variable, even to the same value: pushes read that while an operation makes room here. */
    t->dtype = dtype;
    t->elements = elements;
    t->data = data;
    t->is_sparse = true;
    t->row_elements = row_elements;
    t->ids = ids;
    t->rows = count;
    t->room = rows;
    return MX_OK;
}

void kv_tensor_free(struct mxrt_kv_value *t) {
    free(t->data);
    free(t->ids);
    if (t->ids)
        free(t->rows);
    t->data = NULL;
    t->ids = NULL;
    t->rows = NULL;
    t->room = 0;
}

void kv_convert(mx_dtype to, void *out, mx_dtype from, const void *in, int64_t elements) {
    if (to == from)
        memmove(out, in, (size_t)elements * mxrt_dtype_size(to));
    else if (to == MX_F32)
        sum_widen(from, out, in, elements);
    else
        sum_narrow(to, out, in, elements);
}

mx_status kv_check_rows(const int64_t *ids, int64_t rows, int64_t row_count, const char *whose, struct mxrt_why *why) {
    for (int64_t i = 0; i < rows; i++) {
        if (ids[i] < 0 || ids[i] >= row_count)
            return mxrt_fail(why, MX_ERROR_ARGUMENT, "%s row %lld; there are rows 0 to %lld", whose, (long long)ids[i],
                             (long long)row_count - 1);
        if (i > 0 && ids[i] <= ids[i - 1])
            return mxrt_fail(why, MX_ERROR_ARGUMENT, "%s row %lld behind row %lld; rows ascend, each once", whose,
                             (long long)ids[i], (long long)ids[i - 1]);
    }
    return MX_OK;
}

mx_status kv_check_sparse(const char *label, const struct mxrt_kv_value *v, struct mxrt_why *why) {
    char whose[120];
    if (*v->rows < 0 || *v->rows > v->room)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "a sparse value of %s says %lld rows, and has room for %lld", label,
                         (long long)*v->rows, (long long)v->room);
    snprintf(whose, sizeof whose, "a sparse value of %s has", label);
    return kv_check_rows(v->ids, *v->rows, v->elements / v->row_elements, whose, why);
}
