/* npy (numpy's format, versions 1 to 3), npz (a zip of them, stored or deflated), IDX (big-endian, MNIST's). */
#include "mxrt/array.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void swap(void *data, int64_t n, size_t size) {
    unsigned char *p = data;
    for (int64_t i = 0; i < n; i++, p += size)
        for (size_t k = 0; k < size / 2; k++) {
            unsigned char t = p[k];
            p[k] = p[size - 1 - k];
            p[size - 1 - k] = t;
        }
}

static const struct {
    const char *descr;
    mx_dtype dtype;
} npy_types[] = {{"f8", MX_F64}, {"f4", MX_F32}, {"f2", MX_F16}, {"i8", MX_I64}, {"i4", MX_I32}, {"i2", MX_I16},
                 {"i1", MX_I8},  {"u8", MX_U64}, {"u4", MX_U32}, {"u2", MX_U16}, {"u1", MX_U8},  {"b1", MX_BOOL}};
enum { NPY_TYPES = sizeof npy_types / sizeof *npy_types };

static const char *after(const char *text, const char *key) {
    const char *p = strstr(text, key);
    return p ? p + strlen(key) : NULL;
}

static mx_status parse_npy(struct mxrt_array *a, const char *text, size_t bytes, const char *path,
                           struct mxrt_why *why) {
    memset(a, 0, sizeof *a);
    const unsigned char *u = (const unsigned char *)text;
    if (bytes < 10 || memcmp(text, "\x93NUMPY", 6) != 0)
        return mxrt_fail(why, MX_ERROR_FORMAT, "%s: not an npy file", path);
    size_t length = u[6] == 1    ? u[8] | (size_t)u[9] << 8
                    : bytes < 12 ? SIZE_MAX / 2
                                 : u[8] | (size_t)u[9] << 8 | (size_t)u[10] << 16 | (size_t)u[11] << 24;
    size_t begin = u[6] == 1 ? 10 : 12;
    if (length > bytes - begin)
        return mxrt_fail(why, MX_ERROR_FORMAT, "%s: truncated in its header", path);
    char *header = malloc(length + 1);
    if (!header)
        return mxrt_fail(why, MX_ERROR_MEMORY, "%s: no memory", path);
    memcpy(header, text + begin, length);
    header[length] = 0;
    const char *descr = after(header, "'descr':"), *order = after(header, "'fortran_order':"),
               *shape = after(header, "'shape':");
    mx_status s = MX_OK;
    int type = -1, fortran = 0, rank = 0;
    char endian = '<';
    int64_t dims[MXRT_MAX_RANK];
    if (descr && order && shape && (descr = strchr(descr, '\''))) {
        endian = descr[1];
        for (int i = 0; i < NPY_TYPES; i++)
            if (endian && strncmp(descr + 2, npy_types[i].descr, 2) == 0 && descr[4] == '\'')
                type = i;
        while (*order == ' ')
            order++;
        fortran = *order == 'T';
        shape = strchr(shape, '(');
    } else {
        shape = NULL;
    }
    if (!shape) {
        s = mxrt_fail(why, MX_ERROR_FORMAT, "%s: its header is not numpy's", path);
    } else if (type < 0) {
        s = mxrt_fail(why, MX_ERROR_FORMAT, "%s: element type %.8s is not supported", path, descr);
    } else {
        const char *p = shape + 1;
        while (s == MX_OK && *p && *p != ')') {
            char *end;
            errno = 0;
            long long v = strtoll(p, &end, 10);
            if (end == p || v < 0 || errno || rank == MXRT_MAX_RANK)
                s = mxrt_fail(why, MX_ERROR_FORMAT, "%s: a bad shape in its header", path);
            else
                dims[rank++] = v;
            for (p = end; *p == ',' || *p == ' ' || *p == 'L'; p++) {
            }
        }
    }
    if (s == MX_OK && fortran && rank > 1)
        s = mxrt_fail(why, MX_ERROR_FORMAT, "%s: stored column by column; save it with numpy.ascontiguousarray", path);
    free(header);
    if (s == MX_OK) {
        size_t size = mxrt_dtype_size(npy_types[type].dtype);
        int64_t n = 1, limit = (int64_t)((bytes - begin - length) / size);
        for (int i = 0; i < rank; i++)
            if (__builtin_mul_overflow(n, dims[i], &n))
                n = INT64_MAX;
        if (n > limit)
            return mxrt_fail(why, MX_ERROR_FORMAT, "%s: truncated: room for %lld elements, its shape needs %lld", path,
                             (long long)limit, (long long)n);
        s = mxrt_array_make(a, npy_types[type].dtype, rank, dims, why);
        if (s == MX_OK)
            memcpy(a->data, text + begin + length, (size_t)n * size);
        if (s == MX_OK && endian == '>')
            swap(a->data, n, size);
    }
    return s;
}

mx_status mxrt_read_npy(struct mxrt_array *a, const char *path, mxrt_unpacker *gunzip, struct mxrt_why *why) {
    char *text;
    size_t bytes;
    memset(a, 0, sizeof *a);
    mx_status s = mxrt_read_file(path, gunzip, &text, &bytes, why);
    if (s == MX_OK)
        s = parse_npy(a, text, bytes, path, why);
    free(text);
    return s;
}

static uint64_t little(const char *text, int bytes) {
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)(unsigned char)text[i] << (8 * i);
    return v;
}

/* Walks the central directory, whose end record stands in the file's last 64 KiB. */
mx_status mxrt_read_npz(struct mxrt_array *a, const char *path, const char *name, mxrt_unpacker *gunzip,
                        struct mxrt_why *why) {
    char *text;
    size_t bytes, end;
    memset(a, 0, sizeof *a);
    mx_status s = mxrt_read_file(path, NULL, &text, &bytes, why);
    if (s != MX_OK)
        return s;
    s = mxrt_fail(why, MX_ERROR_FORMAT, "%s: not an npz file, or truncated", path);
    if (bytes < 22 || memcmp(text, "PK", 2) != 0)
        goto out;
    for (end = bytes - 22; end > 0 && bytes - end < 65600 && memcmp(text + end, "PK\5\6", 4) != 0; end--) {
    }
    if (memcmp(text + end, "PK\5\6", 4) != 0)
        goto out;
    uint64_t count = little(text + end + 10, 2), at = little(text + end + 16, 4);
    s = mxrt_fail(why, MX_ERROR_FORMAT, "%s: no array \"%s\" in it", path, name);
    for (uint64_t i = 0; i < count && at + 46 <= bytes; i++) {
        const char *e = text + at;
        size_t length = (size_t)little(e + 28, 2), extra = (size_t)little(e + 30, 2),
               comment = (size_t)little(e + 32, 2);
        if (memcmp(e, "PK\1\2", 4) != 0 || at + 46 + length + extra + comment > bytes)
            break;
        size_t wanted = strlen(name);
        if ((length == wanted || (length == wanted + 4 && memcmp(e + 46 + wanted, ".npy", 4) == 0)) &&
            memcmp(e + 46, name, wanted) == 0) {
            uint64_t method = little(e + 10, 2), packed = little(e + 20, 4), plain = little(e + 24, 4),
                     local = little(e + 42, 4);
            /* zip64: sizes that do not fit stand in extra field 1, in this order. */
            for (size_t x = 0; x + 4 <= extra; x += 4 + (size_t)little(e + 46 + length + x + 2, 2)) {
                const char *f = e + 46 + length + x;
                uint64_t size = little(f + 2, 2), used = 0;
                if (little(f, 2) != 1 || x + 4 + size > extra)
                    continue;
                uint64_t *fields[] = {&plain, &packed, &local};
                for (int k = 0; k < 3; k++)
                    if (*fields[k] == 0xffffffffu && used + 8 <= size) {
                        *fields[k] = little(f + 4 + used, 8);
                        used += 8;
                    }
            }
            s = mxrt_fail(why, MX_ERROR_FORMAT, "%s: truncated in \"%s\"", path, name);
            if (local > bytes || bytes - local < 30)
                break;
            uint64_t data = local + 30 + little(text + local + 26, 2) + little(text + local + 28, 2);
            if (data > bytes || packed > bytes - data)
                break;
            if (method == 0) {
                s = parse_npy(a, text + data, (size_t)packed, path, why);
            } else if (method == 8 && gunzip) {
                void *unpacked;
                size_t size;
                s = gunzip(text + data, (size_t)packed, 0, &unpacked, &size);
                if (s == MX_OK) {
                    s = parse_npy(a, unpacked, size, path, why);
                    free(unpacked);
                } else {
                    mxrt_fail(why, s, "%s: \"%s\" cannot be unpacked", path, name);
                }
            } else {
                s = mxrt_fail(why, MX_ERROR_UNSUPPORTED, "%s: \"%s\" is packed and this program was built without zlib",
                              path, name);
            }
            break;
        }
        at += 46 + length + extra + comment;
    }
out:
    free(text);
    return s;
}

mx_status mxrt_read_idx(struct mxrt_array *a, const char *path, mxrt_unpacker *gunzip, struct mxrt_why *why) {
    char *text;
    size_t bytes;
    memset(a, 0, sizeof *a);
    mx_status s = mxrt_read_file(path, gunzip, &text, &bytes, why);
    if (s != MX_OK)
        return s;
    const unsigned char *u = (const unsigned char *)text;
    static const struct {
        unsigned char code;
        mx_dtype dtype;
    } types[] = {{8, MX_U8}, {9, MX_I8}, {11, MX_I16}, {12, MX_I32}, {13, MX_F32}, {14, MX_F64}};
    int type = -1, rank = bytes >= 4 ? u[3] : 0;
    for (int i = 0; i < 6 && bytes >= 4; i++)
        if (u[2] == types[i].code)
            type = i;
    if (bytes < 4 || u[0] || u[1] || type < 0 || rank == 0 || rank > MXRT_MAX_RANK) {
        s = mxrt_fail(why, MX_ERROR_FORMAT, "%s: not an IDX file (it begins with two zero bytes, a type and a rank)",
                      path);
    } else if (bytes < 4 + 4 * (size_t)rank) {
        s = mxrt_fail(why, MX_ERROR_FORMAT, "%s: truncated in its header", path);
    } else {
        int64_t shape[MXRT_MAX_RANK], n = 1;
        size_t size = mxrt_dtype_size(types[type].dtype), begin = 4 + 4 * (size_t)rank;
        for (int i = 0; i < rank; i++) {
            const unsigned char *d = u + 4 + 4 * i;
            shape[i] = (int64_t)d[0] << 24 | d[1] << 16 | d[2] << 8 | d[3];
            if (__builtin_mul_overflow(n, shape[i], &n))
                n = INT64_MAX;
        }
        if ((uint64_t)n > (bytes - begin) / size)
            s = mxrt_fail(why, MX_ERROR_FORMAT, "%s: truncated: %zu bytes of data, its %lld elements need %llu", path,
                          bytes - begin, (long long)n, (unsigned long long)n * size);
        else if ((s = mxrt_array_make(a, types[type].dtype, rank, shape, why)) == MX_OK) {
            memcpy(a->data, text + begin, (size_t)n * size);
            swap(a->data, n, size); /* big-endian file; this host is little-endian like every target of --main */
        }
    }
    free(text);
    return s;
}

mx_status mxrt_write_npy(const char *path, mx_dtype t, int rank, const int64_t *shape, const void *data,
                         struct mxrt_why *why) {
    char header[1024], temp[4096];
    const char *descr = t == MX_BF16 ? "u2" : NULL;
    for (int i = 0; i < NPY_TYPES; i++)
        if (npy_types[i].dtype == t)
            descr = npy_types[i].descr;
    int64_t n = 1;
    int at = snprintf(header, sizeof header, "{'descr': '%s%s', 'fortran_order': False, 'shape': (",
                      mxrt_dtype_size(t) == 1 ? "|" : "<", descr);
    for (int i = 0; i < rank; i++) {
        at += snprintf(header + at, sizeof header - (size_t)at, "%lld%s", (long long)shape[i],
                       rank == 1      ? ","
                       : i + 1 < rank ? ", "
                                      : "");
        n *= shape[i];
    }
    at += snprintf(header + at, sizeof header - (size_t)at, "), }");
    int padded = (at + 11 + 63) / 64 * 64 - 10;
    memset(header + at, ' ', (size_t)(padded - at));
    header[padded - 1] = '\n';
    unsigned char start[10] = {
        0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(padded & 255), (unsigned char)(padded >> 8)};
    if (snprintf(temp, sizeof temp, "%s.part", path) >= (int)sizeof temp)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "the path is too long");
    FILE *f = fopen(temp, "wb");
    size_t bytes = (size_t)n * mxrt_dtype_size(t);
    int ok = f && fwrite(start, 1, 10, f) == 10 && fwrite(header, 1, (size_t)padded, f) == (size_t)padded &&
             fwrite(data, 1, bytes, f) == bytes;
    int error = errno;
    if (f && fclose(f) != 0 && ok) {
        ok = 0;
        error = errno;
    }
    if (ok && rename(temp, path) != 0) {
        ok = 0;
        error = errno;
    }
    if (!ok && f)
        unlink(temp);
    return ok ? MX_OK : mxrt_fail(why, MX_ERROR_IO, "%s: %s", path, strerror(error));
}
