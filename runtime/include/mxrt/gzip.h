/* Unpacking with zlib: the one part of libmxrt that needs it, linked only where it is named. */
#ifndef MXRT_GZIP_H
#define MXRT_GZIP_H

#include <stddef.h>

#include "mxrt/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Unpacks a gzip file (wrapped), or a raw deflate stream, into memory from malloc. MX_ERROR_FORMAT on bad or truncated
 * data, MX_ERROR_MEMORY. */
mx_status mxrt_gunzip(const void *packed, size_t bytes, int wrapped, void **out, size_t *out_bytes);

#ifdef __cplusplus
}
#endif
#endif
