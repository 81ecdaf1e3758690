/* Reading and writing .npy: a magic, a header that is a Python dictionary, the elements. The header's grammar is only
 * as much of Python's as NumPy writes; anything else is an error, never a guess. */
#include "eager/npy.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *code;
    enum dtype dtype;
} codes[] = {
    {"f8", F64}, {"f4", F32}, {"f2", F16}, {"i8", I64}, {"i4", I32}, {"i2", I16},
    {"i1", I8},  {"u8", U64}, {"u4", U32}, {"u2", U16}, {"u1", U8},  {"b1", BOOL},
};

struct header {
    const char *p, *end;
    bool big_endian, fortran, has_descr, has_order, has_shape;
    enum dtype dtype;
    int rank;
    int64_t dims[64];
};

static void skip(struct header *h) {
    while (h->p < h->end && (*h->p == ' ' || *h->p == '\n' || *h->p == '\t'))
        h->p++;
}

static bool accept(struct header *h, char c) {
    skip(h);
    if (h->p == h->end || *h->p != c)
        return false;
    h->p++;
    return true;
}

static bool word(struct header *h, const char *w) {
    size_t n = strlen(w);
    skip(h);
    if ((size_t)(h->end - h->p) < n || memcmp(h->p, w, n) != 0)
        return false;
    h->p += n;
    return true;
}

/* 'text' without escapes, into a buffer. */
static bool quoted(struct header *h, char *out, size_t size) {
    size_t n = 0;
    skip(h);
    if (h->p == h->end || (*h->p != '\'' && *h->p != '"'))
        return false;
    char quote = *h->p++;
    while (h->p < h->end && *h->p != quote && n + 1 < size)
        out[n++] = *h->p++;
    out[n] = 0;
    return accept(h, quote);
}

static const char *parse_descr(struct header *h) {
    char text[16];
    if (!quoted(h, text, sizeof text))
        return "its type is a record, not a number";
    const char *code = text;
    if (*code == '<' || *code == '>' || *code == '|' || *code == '=')
        h->big_endian = *code++ == '>';
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (strcmp(code, codes[i].code) == 0) {
            h->dtype = codes[i].dtype;
            h->has_descr = true;
            return NULL;
        }
    return "its element type has no counterpart here";
}

static const char *parse_shape(struct header *h) {
    if (!accept(h, '('))
        return "malformed shape";
    while (!accept(h, ')')) {
        int64_t d = 0;
        bool digits = false;
        skip(h);
        for (; h->p < h->end && *h->p >= '0' && *h->p <= '9'; h->p++, digits = true)
            if (__builtin_mul_overflow(d, 10, &d) || __builtin_add_overflow(d, *h->p - '0', &d))
                return "a dimension is too large";
        if (!digits)
            return "malformed shape";
        if (h->rank == 64)
            return "more than 64 dimensions";
        h->dims[h->rank++] = d;
        if (!accept(h, ',')) {
            if (!accept(h, ')'))
                return "malformed shape";
            break;
        }
    }
    h->has_shape = true;
    return NULL;
}

static const char *parse_header(struct header *h) {
    if (!accept(h, '{'))
        return "malformed header";
    while (!accept(h, '}')) {
        char key[32];
        const char *error = NULL;
        if (!quoted(h, key, sizeof key) || !accept(h, ':'))
            return "malformed header";
        if (strcmp(key, "descr") == 0)
            error = parse_descr(h);
        else if (strcmp(key, "shape") == 0)
            error = parse_shape(h);
        else if (strcmp(key, "fortran_order") == 0) {
            h->fortran = word(h, "True");
            h->has_order = h->fortran || word(h, "False");
        } else
            return "unknown entry in the header";
        if (error)
            return error;
        if (!accept(h, ',')) {
            if (!accept(h, '}'))
                return "malformed header";
            break;
        }
    }
    return h->has_descr && h->has_order && h->has_shape ? NULL : "the header lacks an entry";
}

/* Element k of a column-major file goes to its row-major place. */
static void copy_fortran(struct tensor *t, const char *data, size_t size) {
    int64_t n = tensor_elements(t), at[64] = {0}, stride[64], s = 1;
    for (int d = t->rank - 1; d >= 0; d--) {
        stride[d] = s;
        s *= t->dims[d];
    }
    for (int64_t k = 0; k < n; k++) {
        int64_t to = 0;
        for (int d = 0; d < t->rank; d++)
            to += at[d] * stride[d];
        memcpy((char *)t->data + (size_t)to * size, data + (size_t)k * size, size);
        for (int d = 0; d < t->rank && ++at[d] == t->dims[d]; d++)
            at[d] = 0;
    }
}

struct tensor *npy_parse(const char *bytes, size_t length, const char *name, const enum dtype *expect,
                         struct text *why) {
    const unsigned char *u = (const unsigned char *)bytes;
    struct header h = {0};
    size_t start, n;
    if (length < 10 || memcmp(bytes, "\x93NUMPY", 6) != 0) {
        text_printf(why, "%s: not a .npy file", name);
        return NULL;
    }
    if (u[6] == 1) {
        start = 10;
        n = (size_t)(u[8] | u[9] << 8);
    } else if ((u[6] == 2 || u[6] == 3) && length >= 12) {
        start = 12;
        n = (size_t)u[8] | (size_t)u[9] << 8 | (size_t)u[10] << 16 | (size_t)u[11] << 24;
    } else {
        text_printf(why, "%s: version %d of the .npy format is not known", name, u[6]);
        return NULL;
    }
    if (n > length - start) {
        text_printf(why, "%s: cut short within the header", name);
        return NULL;
    }
    h.p = bytes + start;
    h.end = h.p + n;
    const char *error = parse_header(&h);
    if (error) {
        text_printf(why, "%s: %s", name, error);
        return NULL;
    }
    size_t size = (size_t)dtype_size(h.dtype), have = length - start - n;
    int64_t elements = 1;
    for (int i = 0; i < h.rank; i++)
        if (__builtin_mul_overflow(elements, h.dims[i], &elements))
            elements = INT64_MAX / 16;
    if ((uint64_t)elements > have / size || (uint64_t)elements * size != have) {
        text_printf(why, "%s: holds %zu bytes of elements, its shape needs %llu", name, have,
                    (unsigned long long)elements * size);
        return NULL;
    }
    if (h.dtype == U16 && expect && *expect == BF16)
        h.dtype = BF16;
    struct tensor *t = tensor_new(h.dtype, h.rank, h.dims);
    if (!t) {
        text_printf(why, "%s: out of memory", name);
        return NULL;
    }
    if (h.fortran)
        copy_fortran(t, h.end, size);
    else if (have)
        memcpy(t->data, h.end, have);
    const uint16_t probe = 1;
    if (h.big_endian != (*(const unsigned char *)&probe == 0))
        for (char *p = t->data; elements-- > 0; p += size)
            for (size_t i = 0; i < size / 2; i++) {
                char c = p[i];
                p[i] = p[size - 1 - i];
                p[size - 1 - i] = c;
            }
    return t;
}

struct tensor *npy_read(const char *path, const enum dtype *expect, struct text *why) {
    size_t length;
    char *bytes = file_read(path, &length);
    if (!bytes) {
        text_printf(why, "%s: %s", path, strerror(errno));
        return NULL;
    }
    struct tensor *t = npy_parse(bytes, length, path, expect, why);
    free(bytes);
    return t;
}

int npy_write(const char *path, const struct tensor *t, struct text *why) {
    struct text out = {0}, header = {0};
    enum dtype d = t->dtype == BF16 ? U16 : t->dtype;
    const char *code = "";
    const uint16_t probe = 1;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].dtype == d)
            code = codes[i].code;
    text_printf(&header, "{'descr': '%c%s', 'fortran_order': False, 'shape': (",
                dtype_size(d) == 1               ? '|'
                : *(const unsigned char *)&probe ? '<'
                                                 : '>',
                code);
    for (int i = 0; i < t->rank; i++)
        text_printf(&header, "%lld%s", (long long)t->dims[i], i + 1 < t->rank ? ", " : t->rank == 1 ? "," : "");
    text_add(&header, "), }");
    while ((10 + header.length + 1) % 64)
        text_add(&header, " ");
    text_add(&header, "\n");
    unsigned char prefix[10] = {
        0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(header.length & 255), (unsigned char)(header.length >> 8)};
    text_addn(&out, (const char *)prefix, sizeof prefix);
    text_addn(&out, header.data, header.length);
    size_t bytes = (size_t)(tensor_elements(t) * dtype_size(t->dtype));
    if (bytes)
        text_addn(&out, t->data, bytes);
    int status = file_write(path, out.data, out.length);
    if (status)
        text_printf(why, "%s: %s", path, strerror(errno));
    text_free(&out);
    text_free(&header);
    return status;
}
