/* Gradients made small, with what that loses kept for the next one. Private to the kvstore. */
#ifndef RUNTIME_KVSTORE_COMPRESS_H
#define RUNTIME_KVSTORE_COMPRESS_H

#include "mxrt/kvstore.h"

/* How much of `elements` is sent: all but for top k, where it is that part rounded to nearest, at least 1. */
int64_t kv_compress_kept(enum mxrt_kv_compression kind, float threshold, int64_t elements);
size_t kv_compress_bytes(enum mxrt_kv_compression kind, int64_t elements, int64_t kept);
/* Adds the gradient to the residual [elements], writes to `out` what is sent of it and leaves in the residual what is not. */
void kv_compress(enum mxrt_kv_compression kind, float threshold, const float *gradient, float *residual,
                 int64_t elements, int64_t kept, void *out);
/* Elements first … first + count of what was compressed; first is a multiple of 8. */
void kv_decompress(enum mxrt_kv_compression kind, float threshold, const void *in, int64_t kept, int64_t first,
                   int64_t count, float *out);

#endif
