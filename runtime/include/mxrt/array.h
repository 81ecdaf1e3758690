/* Arrays in files: npy, npz and IDX (MNIST's format). An array owns its memory. */
#ifndef MXRT_ARRAY_H
#define MXRT_ARRAY_H

#include <stddef.h>
#include <stdint.h>

#include "mxrt/why.h"

enum { MXRT_MAX_RANK = 16 };

struct mxrt_array {
    mx_dtype dtype;
    int rank;
    int64_t shape[MXRT_MAX_RANK];
    void *data; /* row-major; malloc */
};

typedef mx_status mxrt_unpacker(const void *packed, size_t bytes, int wrapped, void **out, size_t *out_bytes);

size_t mxrt_dtype_size(mx_dtype t);
const char *mxrt_dtype_name(mx_dtype t); /* "f32" */
int64_t mxrt_array_elements(const struct mxrt_array *a);
/* Zeroed; MX_ERROR_MEMORY when it is too large. */
mx_status mxrt_array_make(struct mxrt_array *a, mx_dtype t, int rank, const int64_t *shape, struct mxrt_why *why);
void mxrt_array_free(struct mxrt_array *a);
/* Element i as a number, and a number as an element: rounded to nearest for floats; for integers false when v is none of
 * theirs. */
double mxrt_get(mx_dtype t, const void *data, int64_t i);
int mxrt_put(mx_dtype t, void *data, int64_t i, double v);

/* A whole file; gzip is unpacked when it begins so and `gunzip` is given. */
mx_status mxrt_read_file(const char *path, mxrt_unpacker *gunzip, char **text, size_t *bytes, struct mxrt_why *why);
mx_status mxrt_read_npy(struct mxrt_array *a, const char *path, mxrt_unpacker *gunzip, struct mxrt_why *why);
/* The member `name` (without .npy) of an npz file. */
mx_status mxrt_read_npz(struct mxrt_array *a, const char *path, const char *name, mxrt_unpacker *gunzip,
                        struct mxrt_why *why);
mx_status mxrt_read_idx(struct mxrt_array *a, const char *path, mxrt_unpacker *gunzip, struct mxrt_why *why);
/* Writes beside the target and renames. bf16 is stored as u16. */
mx_status mxrt_write_npy(const char *path, mx_dtype t, int rank, const int64_t *shape, const void *data,
                         struct mxrt_why *why);

#endif
