/* What every generated model and every part of libmxrt shares: status codes, element types, a view of a tensor.
 * Generated headers carry this text themselves (hence the guard), so that a model needs no other file. */
#ifndef MX_STATUS_H
#define MX_STATUS_H

#include <stddef.h>
#include <stdint.h>

typedef enum mx_status {
    MX_OK = 0,
    MX_ERROR_ARGUMENT = 1,    /* a null pointer, a value that is not allowed */
    MX_ERROR_SHAPE = 2,       /* a dimension outside its limits, another shape or type */
    MX_ERROR_CHECK = 3,       /* an assert, an index or a division of the model failed */
    MX_ERROR_MEMORY = 4,      /* too little memory given, or none to be had */
    MX_ERROR_IO = 5,          /* a file cannot be opened, read or written */
    MX_ERROR_FORMAT = 6,      /* a file is not what it should be */
    MX_ERROR_NUMERIC = 7,     /* a loss that is not a number */
    MX_ERROR_INTERRUPTED = 8, /* stopped by a signal; everything is saved */
    MX_ERROR_UNSUPPORTED = 9, /* not in this build */
    MX_ERROR_TIMEOUT = 10,    /* not done in the given time */
    MX_ERROR_PEER = 11        /* another rank is lost, or does something else */
} mx_status;

typedef enum mx_dtype {
    MX_F64,
    MX_F32,
    MX_F16,
    MX_BF16,
    MX_I64,
    MX_I32,
    MX_I16,
    MX_I8,
    MX_U64,
    MX_U32,
    MX_U16,
    MX_U8,
    MX_BOOL
} mx_dtype;

/* A view: row-major, contiguous; shape and data belong to someone else. */
typedef struct mx_tensor {
    mx_dtype dtype;
    int rank;
    const int64_t *shape; /* [rank] */
    void *data;
    size_t bytes;
} mx_tensor;

/* A param or state of a model. */
typedef struct mx_param {
    const char *name; /* "net.weight" */
    int is_state;     /* kept between calls, not trained */
    mx_tensor value;
} mx_param;

#endif
