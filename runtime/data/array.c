/* Arrays in memory and elements as numbers. */
#include "mxrt/array.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

size_t mxrt_dtype_size(mx_dtype t) {
    static const unsigned char size[] = {8, 4, 2, 2, 8, 4, 2, 1, 8, 4, 2, 1, 1};
    return size[t];
}

const char *mxrt_dtype_name(mx_dtype t) {
    static const char name[][5] = {"f64", "f32", "f16", "bf16", "i64", "i32", "i16",
                                   "i8",  "u64", "u32", "u16",  "u8",  "bool"};
    return name[t];
}

int64_t mxrt_array_elements(const struct mxrt_array *a) {
    int64_t n = 1;
    for (int i = 0; i < a->rank; i++)
        n *= a->shape[i];
    return n;
}

mx_status mxrt_array_make(struct mxrt_array *a, mx_dtype t, int rank, const int64_t *shape, struct mxrt_why *why) {
    int64_t bytes = (int64_t)mxrt_dtype_size(t);
    memset(a, 0, sizeof *a);
    a->dtype = t;
    a->rank = rank;
    if (rank > MXRT_MAX_RANK)
        return mxrt_fail(why, MX_ERROR_SHAPE, "%d dimensions, at most %d are possible", rank, MXRT_MAX_RANK);
    bool empty = false; /* whatever the other dimensions say */
    for (int i = 0; i < rank; i++) {
        a->shape[i] = shape[i];
        empty = empty || shape[i] == 0;
        if (shape[i] < 0 || __builtin_mul_overflow(bytes, shape[i] ? shape[i] : 1, &bytes) || bytes > PTRDIFF_MAX)
            return mxrt_fail(why, MX_ERROR_MEMORY, "an array of that shape does not fit memory");
    }
    a->data = calloc(1, empty ? mxrt_dtype_size(t) : (size_t)bytes);
    return a->data ? MX_OK : mxrt_fail(why, MX_ERROR_MEMORY, "no memory for %lld bytes", (long long)bytes);
}

void mxrt_array_free(struct mxrt_array *a) {
    free(a->data);
    memset(a, 0, sizeof *a);
}

static double from_half(uint16_t h) {
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double v = exponent == 31 ? (mantissa ? (double)NAN : (double)INFINITY)
               : exponent     ? ldexp(1024 + mantissa, exponent - 25)
                              : ldexp(mantissa, -24);
    return h & 0x8000 ? -v : v;
}

static uint16_t to_half(double v) {
    uint16_t sign = signbit(v) ? 0x8000 : 0;
    if (isnan(v))
        return 0x7e00;
    v = fabs(v);
    if (v >= 65520)
        return sign | 0x7c00;
    if (v < ldexp(1, -14))
        return (uint16_t)(sign | (uint16_t)nearbyint(ldexp(v, 24)));
    int e;
    double m = frexp(v, &e); /* v = m 2^e, 0.5 <= m < 1 */
    long bits = ((long)(e + 14) << 10) + ((long)nearbyint(ldexp(m, 11)) - 1024);
    return (uint16_t)(sign | bits);
}

static uint16_t to_bfloat(double v) {
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if (isnan(v))
        return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

double mxrt_get(mx_dtype t, const void *data, int64_t i) {
    switch (t) {
    case MX_F64: return ((const double *)data)[i];
    case MX_F32: return ((const float *)data)[i];
    case MX_F16: return from_half(((const uint16_t *)data)[i]);
    case MX_BF16: {
        uint32_t bits = (uint32_t)((const uint16_t *)data)[i] << 16;
        float f;
        memcpy(&f, &bits, 4);
        return f;
    }
    case MX_I64: return (double)((const int64_t *)data)[i];
    case MX_I32: return ((const int32_t *)data)[i];
    case MX_I16: return ((const int16_t *)data)[i];
    case MX_I8: return ((const int8_t *)data)[i];
    case MX_U64: return (double)((const uint64_t *)data)[i];
    case MX_U32: return ((const uint32_t *)data)[i];
    case MX_U16: return ((const uint16_t *)data)[i];
    case MX_U8:
    case MX_BOOL: return ((const uint8_t *)data)[i];
    }
    return 0;
}

int mxrt_put(mx_dtype t, void *data, int64_t i, double v) {
    static const double lo[] = {0, 0, 0, 0, -9223372036854775808.0, -2147483648.0, -32768, -128, 0, 0, 0, 0, 0};
    static const double hi[] = {
        0,     0,   0, 0, 9223372036854774784.0, 2147483647.0, 32767, 127, 18446744073709549568.0, 4294967295.0,
        65535, 255, 1};
    if (t >= MX_I64 && (!(v >= lo[t] && v <= hi[t]) || v != trunc(v)))
        return 0;
    switch (t) {
    case MX_F64: ((double *)data)[i] = v; break;
    case MX_F32: ((float *)data)[i] = (float)v; break;
    case MX_F16: ((uint16_t *)data)[i] = to_half(v); break;
    case MX_BF16: ((uint16_t *)data)[i] = to_bfloat(v); break;
    case MX_I64: ((int64_t *)data)[i] = (int64_t)v; break;
    case MX_I32: ((int32_t *)data)[i] = (int32_t)v; break;
    case MX_I16: ((int16_t *)data)[i] = (int16_t)v; break;
    case MX_I8: ((int8_t *)data)[i] = (int8_t)v; break;
    case MX_U64: ((uint64_t *)data)[i] = (uint64_t)v; break;
    case MX_U32: ((uint32_t *)data)[i] = (uint32_t)v; break;
    case MX_U16: ((uint16_t *)data)[i] = (uint16_t)v; break;
    case MX_U8:
    case MX_BOOL: ((uint8_t *)data)[i] = (uint8_t)v; break;
    }
    return 1;
}

mx_status mxrt_read_file(const char *path, mxrt_unpacker *gunzip, char **text, size_t *bytes, struct mxrt_why *why) {
    *text = NULL;
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (!f || fstat(fileno(f), &st) != 0 || S_ISDIR(st.st_mode)) {
        mx_status s = mxrt_fail(why, MX_ERROR_IO, "%s: %s", path, f ? "is a folder" : strerror(errno));
        if (f)
            fclose(f);
        return s;
    }
    size_t room = st.st_size > 0 ? (size_t)st.st_size + 1 : 65536, n = 0;
    char *data = malloc(room + 1);
    while (data) {
        size_t got = fread(data + n, 1, room - n, f);
        n += got;
        if (n < room)
            break;
        char *bigger = realloc(data, room * 2 + 1);
        if (!bigger)
            free(data);
        data = bigger;
        room *= 2;
    }
    int failed = ferror(f);
    fclose(f);
    if (!data || failed) {
        free(data);
        return mxrt_fail(why, data ? MX_ERROR_IO : MX_ERROR_MEMORY, "%s: %s", path,
                         data ? "cannot be read" : "no memory for it");
    }
    data[n] = 0;
    if (n > 2 && (unsigned char)data[0] == 0x1f && (unsigned char)data[1] == 0x8b) {
        void *plain;
        size_t size;
        if (!gunzip) {
            free(data);
            return mxrt_fail(why, MX_ERROR_UNSUPPORTED,
                             "%s: packed with gzip, and this program was built without zlib; unpack it first", path);
        }
        mx_status s = gunzip(data, n, 1, &plain, &size);
        free(data);
        if (s != MX_OK)
            return mxrt_fail(why, s, "%s: %s", path,
                             s == MX_ERROR_MEMORY ? "no memory to unpack it" : "damaged or truncated gzip data");
        data = plain;
        n = size;
    }
    *text = data;
    *bytes = n;
    return MX_OK;
}
