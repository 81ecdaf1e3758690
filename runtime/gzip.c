/* gzip and raw deflate by zlib, into a buffer that doubles. */
#include "mxrt/gzip.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

mx_status mxrt_gunzip(const void *packed, size_t bytes, int wrapped, void **out, size_t *out_bytes) {
    z_stream z;
    memset(&z, 0, sizeof z);
    *out = NULL;
    *out_bytes = 0;
    if (inflateInit2(&z, wrapped ? 15 + 16 : -15) != Z_OK)
        return MX_ERROR_MEMORY;
    size_t room = 1 << 16, have = 0, given = 0;
    unsigned char *data = malloc(room + 1);
    int result = Z_OK;
    while (data && result == Z_OK) {
        if (have == room) {
            unsigned char *bigger = realloc(data, room * 2 + 1);
            if (!bigger)
                break;
            data = bigger;
            room *= 2;
        }
        if (z.avail_in == 0 && given < bytes) {
            size_t n = bytes - given < INT_MAX ? bytes - given : INT_MAX;
            z.next_in = (Bytef *)packed + given;
            z.avail_in = (uInt)n;
            given += n;
        }
        size_t n = room - have < INT_MAX ? room - have : INT_MAX;
        z.next_out = data + have;
        z.avail_out = (uInt)n;
        result = inflate(&z, Z_NO_FLUSH);
        have += n - z.avail_out;
        /* Members may follow each other in one gzip file. */
        if (result == Z_STREAM_END && wrapped && (z.avail_in > 0 || given < bytes) && inflateReset(&z) == Z_OK)
            result = Z_OK;
    }
    inflateEnd(&z);
    if (result != Z_STREAM_END) {
        free(data);
        return result == Z_OK || result == Z_MEM_ERROR ? MX_ERROR_MEMORY : MX_ERROR_FORMAT;
    }
    data[have] = 0;
    *out = data;
    *out_bytes = have;
    return MX_OK;
}
