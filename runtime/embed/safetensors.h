/* Reading and writing safetensors (an 8-byte little-endian header length, a JSON header, the tensors' bytes), in portable
 * C99 without allocation: the header is parsed from the stream. libmxrt includes this text and generated units carry it, so
 * that both read and write the same files and give the same messages. Needs the types of mxrt/status.h.
 *
 * A file is checked as a whole (every name, type, shape and offset, and that all bytes are there) before a tensor is
 * touched. What a compiler adds to a model for itself begins with `mx.` (the scale of losses): a file may lack it, which leaves it as it is, and
 * may hold it where the model has none, so that a model's precision is no matter of its checkpoints. */
#ifndef MX_SAFETENSORS_H
#define MX_SAFETENSORS_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* A unit may only read, or only write. */
#if defined(__GNUC__)
#define MX_ST_UNUSED __attribute__((unused))
#else
#define MX_ST_UNUSED
#endif

struct mx_st_entry {
    const char *name;
    mx_dtype dtype;
    int rank;
    const int64_t *shape;
    void *data; /* where it is read to or written from */
};

struct mx_st_source {
    FILE *file;                 /* or, if NULL, */
    const unsigned char *bytes; /* an image in memory */
    uint64_t size, at, header;  /* header: where tensor data begins */
    char *why;                  /* receives the message */
    size_t why_size;
    mx_status status;
    /* Called for each text of __metadata__; may be NULL. */
    void (*metadata)(void *context, const char *key, const char *value);
    void *context;
};

static const char mx_st_types[13][5] = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16",
                                        "I8",  "U64", "U32", "U16",  "U8",  "BOOL"};

static size_t mx_st_size(mx_dtype t) {
    return t == MX_F64 || t == MX_I64 || t == MX_U64   ? 8u
           : t == MX_F32 || t == MX_I32 || t == MX_U32 ? 4u
           : t == MX_I8 || t == MX_U8 || t == MX_BOOL  ? 1u
                                                       : 2u;
}

static uint64_t mx_st_bytes(const struct mx_st_entry *e) {
    uint64_t n = mx_st_size(e->dtype);
    for (int i = 0; i < e->rank; i++)
        n *= (uint64_t)e->shape[i];
    return n;
}

static int mx_st_is_own(const char *name) {
    return strncmp(name, "mx.", 3) == 0;
}

static int mx_st_fail(struct mx_st_source *s, mx_status status, const char *format, ...) {
    va_list args;
    if (s->status == MX_OK) {
        s->status = status;
        va_start(args, format);
        (void)vsnprintf(s->why, s->why_size, format, args);
        va_end(args);
    }
    return 0;
}

static int mx_st_get(struct mx_st_source *s) {
    int c;
    if (s->at >= s->header)
        c = EOF;
    else
        c = s->file ? fgetc(s->file) : s->bytes[s->at];
    if (c == EOF)
        return mx_st_fail(s, MX_ERROR_FORMAT, "the header ends early, at byte %lld", (long long)s->at), 0;
    s->at++;
    return c;
}

static int mx_st_char(struct mx_st_source *s) { /* the next character that is not a space */
    int c;
    do
        c = mx_st_get(s);
    while (c == ' ' || c == '\t' || c == '\n' || c == '\r');
    return c;
}

static int mx_st_expect(struct mx_st_source *s, int wanted, int c) {
    if (c == wanted)
        return 1;
    return mx_st_fail(s, MX_ERROR_FORMAT, "not a safetensors header: expected '%c' before byte %lld", wanted,
                      (long long)s->at);
}

/* The rest of a string whose opening quote was read; longer ones are cut. */
static int mx_st_string(struct mx_st_source *s, char *text, size_t size) {
    size_t n = 0;
    int c;
    while (s->status == MX_OK && (c = mx_st_get(s)) != '"') {
        if (c == '\\') {
            c = mx_st_get(s);
            if (c == 'n')
                c = '\n';
            else if (c == 't')
                c = '\t';
            else if (c == 'u') {
                unsigned code = 0;
                for (int i = 0; i < 4; i++) {
                    int h = mx_st_get(s);
                    code = code * 16u + (unsigned)(h >= '0' && h <= '9' ? h - '0'
                                                   : (h | 32) >= 'a'    ? (h | 32) - 'a' + 10
                                                                        : 0);
                }
                c = code > 0 && code < 128 ? (int)code : '?';
            }
        }
        if (n + 1 < size)
            text[n++] = (char)c;
    }
    text[n] = 0;
    return s->status == MX_OK;
}

/* A list of non-negative integers whose bracket was read; returns how many, or -1. */
static int mx_st_numbers(struct mx_st_source *s, uint64_t *values, int room) {
    int n = 0, c = mx_st_char(s);
    while (s->status == MX_OK && c != ']') {
        uint64_t v = 0;
        int length = 0;
        for (; c >= '0' && c <= '9' && length < 19; c = mx_st_get(s), length++)
            v = v * 10u + (uint64_t)(c - '0');
        if (n == room || length == 0 || (c >= '0' && c <= '9'))
            return mx_st_fail(s, MX_ERROR_FORMAT, "not a safetensors header: a bad list before byte %lld",
                              (long long)s->at) -
                   1;
        values[n++] = v;
        if (c == ' ')
            c = mx_st_char(s);
        if (c == ',')
            c = mx_st_char(s);
        else if (c != ']')
            return mx_st_expect(s, ']', c) - 1;
    }
    return s->status == MX_OK ? n : -1;
}

static int mx_st_metadata(struct mx_st_source *s) {
    char key[64], value[1024];
    int c = mx_st_char(s);
    while (s->status == MX_OK && c != '}') {
        if (!mx_st_expect(s, '"', c) || !mx_st_string(s, key, sizeof key) || !mx_st_expect(s, ':', mx_st_char(s)) ||
            !mx_st_expect(s, '"', mx_st_char(s)) || !mx_st_string(s, value, sizeof value))
            return 0;
        if (s->metadata)
            s->metadata(s->context, key, value);
        c = mx_st_char(s);
        if (c == ',')
            c = mx_st_char(s);
        else if (c != '}')
            return mx_st_expect(s, '}', c);
    }
    return s->status == MX_OK;
}

static void mx_st_shape(char *text, size_t size, int rank, const uint64_t *shape) {
    size_t n = 0;
    text[0] = '[';
    text[1] = 0;
    n = 1;
    for (int i = 0; i < rank && n + 24 < size; i++)
        n += (size_t)snprintf(text + n, size - n, i ? ", %llu" : "%llu", (unsigned long long)shape[i]);
    (void)snprintf(text + n, size - n, "]");
}

/* One entry after its name; offsets[i] is set when it is tensor i. */
static int mx_st_one(struct mx_st_source *s, const char *name, const struct mx_st_entry *entries, int count,
                     uint64_t *offsets) {
    enum { RANK = 32 };
    char key[16], type[8] = "";
    uint64_t shape[RANK], range[2] = {1, 0}, mine[RANK];
    int rank = -1, i, c = mx_st_char(s);
    while (s->status == MX_OK && c != '}') {
        if (!mx_st_expect(s, '"', c) || !mx_st_string(s, key, sizeof key) || !mx_st_expect(s, ':', mx_st_char(s)))
            return 0;
        c = mx_st_char(s);
        if (strcmp(key, "dtype") == 0) {
            if (!mx_st_expect(s, '"', c) || !mx_st_string(s, type, sizeof type))
                return 0;
        } else if (strcmp(key, "shape") == 0) {
            if (!mx_st_expect(s, '[', c) || (rank = mx_st_numbers(s, shape, RANK)) < 0)
                return 0;
        } else if (strcmp(key, "data_offsets") == 0) {
            if (!mx_st_expect(s, '[', c) || mx_st_numbers(s, range, 2) != 2)
                return mx_st_expect(s, ']', 0);
        } else {
            return mx_st_fail(s, MX_ERROR_FORMAT, "not a safetensors header: unknown key \"%s\"", key);
        }
        c = mx_st_char(s);
        if (c == ',')
            c = mx_st_char(s);
        else if (c != '}')
            return mx_st_expect(s, '}', c);
    }
    if (s->status != MX_OK)
        return 0;
    if (rank < 0 || !type[0] || range[0] > range[1])
        return mx_st_fail(s, MX_ERROR_FORMAT, "\"%s\" lacks a type, a shape or its place in the file", name);
    if (range[1] > s->size - s->header)
        return mx_st_fail(s, MX_ERROR_FORMAT, "truncated: \"%s\" should end at byte %llu, the file ends at %llu", name,
                          (unsigned long long)(s->header + range[1]), (unsigned long long)s->size);
    for (i = 0; i < count && strcmp(entries[i].name, name) != 0; i++) {
    }
    if (i == count && mx_st_is_own(name))
        return 1;
    if (i == count)
        return mx_st_fail(s, MX_ERROR_FORMAT, "of another model: it holds \"%s\", which this model does not have",
                          name);
    for (int k = 0; k < entries[i].rank && k < RANK; k++)
        mine[k] = (uint64_t)entries[i].shape[k];
    if (strcmp(type, mx_st_types[entries[i].dtype]) != 0 || rank != entries[i].rank ||
        memcmp(shape, mine, sizeof *mine * (size_t)rank) != 0) {
        char there[160], here[160];
        mx_st_shape(there, sizeof there, rank, shape);
        mx_st_shape(here, sizeof here, entries[i].rank, mine);
        return mx_st_fail(s, MX_ERROR_SHAPE, "of another model: \"%s\" is %s%s in the file and %s%s in the model", name,
                          type, there, mx_st_types[entries[i].dtype], here);
    }
    if (range[1] - range[0] != mx_st_bytes(&entries[i]))
        return mx_st_fail(s, MX_ERROR_FORMAT, "\"%s\" has %llu bytes, its shape needs %llu", name,
                          (unsigned long long)(range[1] - range[0]), (unsigned long long)mx_st_bytes(&entries[i]));
    if (offsets[i] != UINT64_MAX)
        return mx_st_fail(s, MX_ERROR_FORMAT, "\"%s\" stands twice in the header", name);
    offsets[i] = s->header + range[0];
    return 1;
}

/* Reads and checks the header: offsets[i] becomes where tensor i's bytes begin. The source's size is known. */
MX_ST_UNUSED static int mx_st_open(struct mx_st_source *s, const struct mx_st_entry *entries, int count,
                                   uint64_t *offsets) {
    char name[512];
    uint64_t length = 0;
    int c;
    for (int i = 0; i < count; i++)
        offsets[i] = UINT64_MAX;
    s->header = 8;
    if (s->size < 8)
        return mx_st_fail(s, MX_ERROR_FORMAT, "not a safetensors file: only %llu bytes", (unsigned long long)s->size);
    for (int i = 0; i < 8; i++)
        length |= (uint64_t)(unsigned char)mx_st_get(s) << (8 * i);
    if (s->status != MX_OK)
        return 0;
    if (length < 2 || length > 100000000u)
        return mx_st_fail(s, MX_ERROR_FORMAT, "not a safetensors file");
    if (length > s->size - 8)
        return mx_st_fail(s, MX_ERROR_FORMAT, "not a safetensors file, or truncated in its header");
    s->header = 8 + length;
    if (!mx_st_expect(s, '{', mx_st_char(s)))
        return 0;
    c = mx_st_char(s);
    while (c != '}') {
        int ok = mx_st_expect(s, '"', c) && mx_st_string(s, name, sizeof name) && mx_st_expect(s, ':', mx_st_char(s)) &&
                 mx_st_expect(s, '{', mx_st_char(s));
        if (ok)
            ok = strcmp(name, "__metadata__") == 0 ? mx_st_metadata(s) : mx_st_one(s, name, entries, count, offsets);
        if (!ok)
            return 0;
        c = mx_st_char(s);
        if (c == ',')
            c = mx_st_char(s);
        else if (!mx_st_expect(s, '}', c))
            return 0;
    }
    for (int i = 0; i < count; i++)
        if (offsets[i] == UINT64_MAX && !mx_st_is_own(entries[i].name))
            return mx_st_fail(s, MX_ERROR_FORMAT, "of another model: \"%s\" is not in it", entries[i].name);
    return s->status == MX_OK;
}

static int mx_st_big_endian(void) {
    const uint16_t one = 1;
    unsigned char first;
    memcpy(&first, &one, 1);
    return first == 0;
}

static void mx_st_swap(void *data, uint64_t bytes, size_t size) {
    unsigned char *p = (unsigned char *)data;
    for (uint64_t i = 0; i + size <= bytes; i += size)
        for (size_t k = 0; k < size / 2; k++) {
            unsigned char t = p[i + k];
            p[i + k] = p[i + size - 1 - k];
            p[i + size - 1 - k] = t;
        }
}

/* Reads every tensor of an open source. */
MX_ST_UNUSED static int mx_st_read(struct mx_st_source *s, const struct mx_st_entry *entries, int count,
                                   const uint64_t *offsets) {
    for (int i = 0; i < count; i++) {
        uint64_t bytes = mx_st_bytes(&entries[i]);
        if (bytes == 0 || offsets[i] == UINT64_MAX)
            continue;
        if (!s->file)
            memcpy(entries[i].data, s->bytes + offsets[i], (size_t)bytes);
        else if (fseek(s->file, (long)offsets[i], SEEK_SET) != 0 ||
                 fread(entries[i].data, 1, (size_t)bytes, s->file) != (size_t)bytes)
            return mx_st_fail(s, MX_ERROR_IO, "cannot read \"%s\"", entries[i].name);
        if (mx_st_big_endian())
            mx_st_swap(entries[i].data, bytes, mx_st_size(entries[i].dtype));
    }
    return 1;
}

/* The JSON text of the header, or only its length when f is NULL. */
static size_t mx_st_put(FILE *f, const char *text) {
    if (f)
        (void)fputs(text, f);
    return strlen(text);
}

static size_t mx_st_quote(FILE *f, const char *text) {
    char piece[8];
    size_t n = mx_st_put(f, "\"");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            (void)snprintf(piece, sizeof piece, "\\%c", c);
        else if (c < 32)
            (void)snprintf(piece, sizeof piece, "\\u%04x", (unsigned)c);
        else
            (void)snprintf(piece, sizeof piece, "%c", c);
        n += mx_st_put(f, piece);
    }
    return n + mx_st_put(f, "\"");
}

/* Wide elements come first, as the format's own library writes them: so each tensor is aligned in an aligned image. */
enum { MX_ST_WIDEST = 8 };

static size_t mx_st_header_one(FILE *f, const struct mx_st_entry *entry, uint64_t at) {
    char piece[64];
    size_t n = mx_st_put(f, ",") + mx_st_quote(f, entry->name);
    (void)snprintf(piece, sizeof piece, ":{\"dtype\":\"%s\",\"shape\":[", mx_st_types[entry->dtype]);
    n += mx_st_put(f, piece);
    for (int k = 0; k < entry->rank; k++) {
        (void)snprintf(piece, sizeof piece, k ? ",%lld" : "%lld", (long long)entry->shape[k]);
        n += mx_st_put(f, piece);
    }
    (void)snprintf(piece, sizeof piece, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                   (unsigned long long)(at + mx_st_bytes(entry)));
    return n + mx_st_put(f, piece);
}

static size_t mx_st_header(FILE *f, const struct mx_st_entry *entries, int count, const char *const (*metadata)[2],
                           int pairs) {
    uint64_t at = 0;
    size_t n = mx_st_put(f, "{\"__metadata__\":{");
    for (int i = 0; i < pairs; i++) {
        n += mx_st_put(f, i ? "," : "") + mx_st_quote(f, metadata[i][0]);
        n += mx_st_put(f, ":") + mx_st_quote(f, metadata[i][1]);
    }
    n += mx_st_put(f, "}");
    for (size_t size = MX_ST_WIDEST; size > 0; size /= 2)
        for (int i = 0; i < count; i++)
            if (mx_st_size(entries[i].dtype) == size) {
                n += mx_st_header_one(f, &entries[i], at);
                at += mx_st_bytes(&entries[i]);
            }
    return n + mx_st_put(f, "}");
}

/* Writes the file to an open stream; the tensors begin at a multiple of 64 bytes. 0 after a failed write (errno says why). */
MX_ST_UNUSED static int mx_st_write(FILE *f, const struct mx_st_entry *entries, int count,
                                    const char *const (*metadata)[2], int pairs) {
    size_t length = mx_st_header(NULL, entries, count, metadata, pairs);
    size_t padded = (length + 8 + 63) / 64 * 64 - 8;
    for (int i = 0; i < 8; i++)
        (void)fputc((int)(((uint64_t)padded >> (8 * i)) & 255u), f);
    (void)mx_st_header(f, entries, count, metadata, pairs);
    for (; length < padded; length++)
        (void)fputc(' ', f);
    for (size_t size = MX_ST_WIDEST; size > 0; size /= 2)
        for (int i = 0; i < count && !ferror(f); i++) {
            uint64_t bytes = mx_st_bytes(&entries[i]);
            const unsigned char *p = (const unsigned char *)entries[i].data;
            if (mx_st_size(entries[i].dtype) != size)
                continue;
            if (!mx_st_big_endian() && bytes > 0)
                (void)fwrite(p, 1, (size_t)bytes, f);
            else
                for (uint64_t k = 0; k < bytes; k++)
                    (void)fputc(p[k / size * size + size - 1 - k % size], f);
        }
    return !ferror(f);
}

#endif
