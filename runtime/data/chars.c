/* Text as ids: UTF-8 characters numbered in order of their code points, by the file's own vocabulary or a given one. */
#include "chars.h"

#include <stdlib.h>

#include "mxrt/data.h"

/* The next code point; bytes that are no UTF-8 stand for themselves. */
static uint32_t decode(const unsigned char **p, const unsigned char *end) {
    uint32_t c = *(*p)++;
    int more = c >= 0xf0 && c < 0xf8 ? 3 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xc2 && c < 0xe0 ? 1 : 0;
    if (more == 0 || end - *p < more)
        return c;
    uint32_t v = c & (0x3fu >> more);
    for (int i = 0; i < more; i++) {
        if (((*p)[i] & 0xc0) != 0x80)
            return c;
        v = v << 6 | ((*p)[i] & 0x3fu);
    }
    *p += more;
    return v < 0x110000 ? v : c;
}

int mxrt_utf8(uint32_t c, char out[5]) {
    int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    if (n == 1)
        out[0] = (char)c;
    else
        for (int i = n - 1; i >= 0; i--, c >>= 6)
            out[i] = (char)(i ? 0x80 | (c & 0x3f) : (0xf00 >> n & 0xff) | c);
    out[n] = 0;
    return n;
}

static int find(const uint32_t *vocabulary, int size, uint32_t c) {
    int lo = 0, hi = size;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (vocabulary[mid] < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < size && vocabulary[lo] == c ? lo : -1;
}

mx_status mxrt_vocabulary(const char *text, size_t bytes, uint32_t **vocabulary, int *size, struct mxrt_why *why) {
    enum { CODES = 0x110000 };
    unsigned char *seen = calloc(CODES / 8, 1);
    if (!seen)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for a vocabulary");
    const unsigned char *p = (const unsigned char *)text, *end = p + bytes;
    int n = 0;
    while (p < end) {
        uint32_t c = decode(&p, end);
        if (!(seen[c / 8] >> (c % 8) & 1)) {
            seen[c / 8] |= (unsigned char)(1 << c % 8);
            n++;
        }
    }
    uint32_t *v = malloc(sizeof *v * (size_t)(n ? n : 1));
    *size = 0;
    for (uint32_t c = 0; v && c < CODES; c++)
        if (seen[c / 8] >> (c % 8) & 1)
            v[(*size)++] = c;
    free(seen);
    *vocabulary = v;
    return v ? MX_OK : mxrt_fail(why, MX_ERROR_MEMORY, "no memory for a vocabulary");
}

mx_status mxrt_text_ids(const char *path, const char *text, size_t bytes, const uint32_t *vocabulary, int size,
                        struct mxrt_array *ids, struct mxrt_why *why) {
    int64_t n = 0;
    const unsigned char *end = (const unsigned char *)text + bytes;
    for (const unsigned char *p = (const unsigned char *)text; p < end; n++)
        decode(&p, end);
    mx_status s = mxrt_array_make(ids, MX_I32, 1, &n, why);
    if (s != MX_OK)
        return s;
    int64_t line = 1, column = 1, i = 0;
    for (const unsigned char *p = (const unsigned char *)text; p < end; i++, column++) {
        uint32_t c = decode(&p, end);
        int id = find(vocabulary, size, c);
        if (id < 0) {
            char character[5];
            mxrt_utf8(c, character);
            mxrt_array_free(ids);
            return mxrt_fail(why, MX_ERROR_FORMAT,
                             "%s:%lld:%lld: '%s' (U+%04X) is not in the vocabulary of %d characters", path,
                             (long long)line, (long long)column, c < 32 ? "?" : character, (unsigned)c, size);
        }
        ((int32_t *)ids->data)[i] = id;
        if (c == '\n') {
            line++;
            column = 0;
        }
    }
    return MX_OK;
}
