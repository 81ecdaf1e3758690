/* Tensors in files made by others: safetensors, npy, MXNet .params, ONNX initializers. */
#ifndef MXCC_FRONTEND_TENSOR_FILE_H
#define MXCC_FRONTEND_TENSOR_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "ir/ir.h"

enum { TENSOR_FILE_MAX_RANK = 31 };

struct file_tensor {
    enum dtype dtype;
    int rank;
    int64_t dims[TENSOR_FILE_MAX_RANK + 1];
    const void *bytes; /* row-major, native endian; in the file's text or the arena */
    size_t size;
};

/* Finds tensor `name` (NULL: the only one) in the file's content; the kind is told by the path's ending. NULL, or why it
 * cannot be had (a text that lives in the arena). */
const char *tensor_file_read(struct arena *a, const char *path, const char *content, size_t size, const char *name,
                             struct file_tensor *t);

#endif
