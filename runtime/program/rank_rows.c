/* Gradients that are zero but for some rows, as an embedding's: they travel as those rows. */
#include <stdlib.h>
#include <string.h>

#include "ranks_internal.h"

static size_t row_bytes(const struct mxrt_kv_value *v) {
    return (size_t)v->row_elements * mxrt_dtype_size(v->dtype);
}

bool ranks_rows_pay(const struct mxrt_key *k, int ranks) {
    return k->rows_touched && k->row_elements && 2 * k->rows_touched * ranks <= k->elements / k->row_elements;
}

mx_status ranks_rows_open(const struct mxrt_key *k, int ranks, struct mxrt_kv_value *v, struct mxrt_why *why) {
    v->is_sparse = true;
    v->row_elements = k->row_elements;
    v->room = k->rows_touched * ranks;
    v->data = malloc((size_t)v->room * row_bytes(v));
    v->ids = malloc(sizeof *v->ids * (size_t)v->room);
    v->rows = calloc(1, sizeof *v->rows);
    if (!v->data || !v->ids || !v->rows)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %lld rows of the gradient of %s", (long long)v->room,
                         k->name);
    return MX_OK;
}

void ranks_rows_close(struct mxrt_kv_value *v) {
    free(v->data);
    free(v->ids);
    free(v->rows);
}

void ranks_rows_gather(struct mxrt_kv_value *v, const void *tensor) {
    const size_t row = row_bytes(v);
    int64_t rows = 0;
    for (int64_t i = 0; i < v->elements / v->row_elements && rows < v->room; i++) {
        const unsigned char *at = (const unsigned char *)tensor + (size_t)i * row;
        if (at[0] == 0 && memcmp(at, at + 1, row - 1) == 0)
            continue;
        memcpy((unsigned char *)v->data + (size_t)rows * row, at, row);
        v->ids[rows++] = i;
    }
    *v->rows = rows;
}

void ranks_rows_scatter(const struct mxrt_kv_value *v, void *tensor) {
    const size_t row = row_bytes(v);
    for (int64_t i = 0; i < *v->rows; i++)
        memcpy((unsigned char *)tensor + (size_t)v->ids[i] * row, (const unsigned char *)v->data + (size_t)i * row,
               row);
}
