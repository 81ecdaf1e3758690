/* Readers for one tensor of a file. Every length is checked against what is there before it is used. */
#include "frontend/tensor_file.h"

#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

static bool tensor_size(const struct file_tensor *t, size_t *bytes) {
    uint64_t n = (uint64_t)dtype_size(t->dtype);
    for (int d = 0; d < t->rank; d++)
        if (t->dims[d] < 0 || __builtin_mul_overflow(n, (uint64_t)t->dims[d], &n))
            return false;
    *bytes = (size_t)n;
    return n <= SIZE_MAX;
}

/* A cursor over the file: `bad` once something was not there. */
struct cursor {
    const unsigned char *at, *end;
    bool bad;
};

static uint64_t take_le(struct cursor *c, int bytes) {
    uint64_t v = 0;
    if (c->end - c->at < bytes) {
        c->bad = true;
        c->at = c->end;
        return 0;
    }
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)c->at[i] << (8 * i);
    c->at += bytes;
    return v;
}

static const unsigned char *take_bytes(struct cursor *c, uint64_t n) {
    const unsigned char *p = c->at;
    if (n > (uint64_t)(c->end - c->at)) {
        c->bad = true;
        c->at = c->end;
        return p;
    }
    c->at += n;
    return p;
}

/* ---- safetensors: 8 bytes little-endian header length, JSON header, data ------------------------------------------- */

static bool safetensors_dtype(const char *name, enum dtype *t) {
    static const char *const names[DTYPE_COUNT] = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16",
                                                   "I8",  "U64", "U32", "U16",  "U8",  "BOOL"};
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (strcmp(names[i], name) == 0) {
            *t = (enum dtype)i;
            return true;
        }
    return false;
}

static const char *safetensors_entry(const cJSON *entry, const char *data, size_t available, struct file_tensor *t) {
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(entry, "dtype"), *x;
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(entry, "shape");
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
    if (!cJSON_IsString(dtype) || !cJSON_IsArray(shape) || !cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2)
        return "its entry lacks dtype, shape or data_offsets";
    if (!safetensors_dtype(dtype->valuestring, &t->dtype))
        return "its element type is none of ours";
    cJSON_ArrayForEach(x, shape) {
        if (t->rank == TENSOR_FILE_MAX_RANK || !cJSON_IsNumber(x) || !(x->valuedouble >= 0 && x->valuedouble <= 9e15))
            return "its shape is not a list of sizes";
        t->dims[t->rank++] = (int64_t)x->valuedouble;
    }
    double begin = cJSON_GetArrayItem(offsets, 0)->valuedouble, end = cJSON_GetArrayItem(offsets, 1)->valuedouble;
    if (!(begin >= 0 && end >= begin && end <= (double)available))
        return "the file is truncated";
    if (!tensor_size(t, &t->size) || (double)t->size != end - begin)
        return "its size does not fit its shape";
    t->bytes = data + (size_t)begin;
    return NULL;
}

static const char *read_safetensors(struct arena *a, struct cursor c, const char *name, struct file_tensor *t) {
    uint64_t header = take_le(&c, 8);
    const char *text = (const char *)take_bytes(&c, header), *data = (const char *)c.at;
    if (c.bad)
        return "this is no safetensors file, or it is truncated";
    size_t available = (size_t)(c.end - c.at);
    cJSON *root = cJSON_ParseWithLength(text, (size_t)header);
    const char *why;
    if (!cJSON_IsObject(root)) {
        why = "the header is not JSON";
    } else if (name) {
        const cJSON *entry = cJSON_GetObjectItemCaseSensitive(root, name);
        why = entry ? safetensors_entry(entry, data, available, t) : arena_printf(a, "it has no tensor `%s`", name);
    } else {
        const cJSON *only = NULL, *x;
        int n = 0;
        cJSON_ArrayForEach(x, root) if (strcmp(x->string, "__metadata__") != 0) {
            only = x;
            n++;
        }
        why = n == 1 ? safetensors_entry(only, data, available, t)
                     : arena_printf(a, "it holds %d tensors: name one as the second argument", n);
    }
    cJSON_Delete(root);
    return why;
}

/* ---- npy: magic, version, a Python dictionary as text, data ----------------------------------------------------------- */

static bool npy_dtype(const char *descr, enum dtype *t) {
    static const struct {
        const char *descr;
        enum dtype t;
    } rows[] = {{"<f8", F64}, {"<f4", F32}, {"<f2", F16}, {"<i8", I64}, {"<i4", I32}, {"<i2", I16},
                {"|i1", I8},  {"<u8", U64}, {"<u4", U32}, {"<u2", U16}, {"|u1", U8},  {"|b1", BOOL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].descr, descr) == 0) {
            *t = rows[i].t;
            return true;
        }
    return false;
}

static const char *read_npy(struct arena *a, struct cursor c, struct file_tensor *t) {
    const unsigned char *magic = take_bytes(&c, 6);
    if (c.bad || memcmp(magic, "\x93NUMPY", 6) != 0)
        return "this is no npy file";
    uint64_t version = take_le(&c, 2), length = take_le(&c, (version & 255) >= 2 ? 4 : 2);
    const char *header = (const char *)take_bytes(&c, length);
    if (c.bad)
        return "the file is truncated";
    header = arena_strndup(a, header, (size_t)length);
    const char *descr = strstr(header, "'descr':"), *order = strstr(header, "'fortran_order':");
    const char *shape = strstr(header, "'shape':");
    const char *quote = descr ? strchr(descr + 8, '\'') : NULL, *end = quote ? strchr(quote + 1, '\'') : NULL;
    if (!end || !order || !shape || !(shape = strchr(shape, '(')))
        return "its header lacks descr, fortran_order or shape";
    if (!npy_dtype(arena_strndup(a, quote + 1, (size_t)(end - quote - 1)), &t->dtype))
        return "its element type is none of ours (little-endian numbers)";
    if (strncmp(order + 16 + strspn(order + 16, " "), "True", 4) == 0)
        return "it is stored column by column: save it with order='C'";
    for (shape++; *shape && *shape != ')';) {
        char *next;
        long long n = strtoll(shape, &next, 10);
        if (next == shape || t->rank == TENSOR_FILE_MAX_RANK || n < 0)
            return "its shape is not a list of sizes";
        t->dims[t->rank++] = n;
        shape = next + strspn(next, ", L");
    }
    if (!tensor_size(t, &t->size))
        return "its size does not fit memory";
    t->bytes = take_bytes(&c, t->size);
    return c.bad ? "the file is truncated" : NULL;
}

/* ---- MXNet .params: 0x112, 0, count, arrays, count, names "arg:…", "aux:…" (include/mxnet/ndarray.h, NDArray::Save) ---- */

static const char *read_params(struct arena *a, struct cursor c, const char *name, struct file_tensor *t) {
    static const enum dtype types[] = {F32, F64, F16, U8, I32, I8, I64, BOOL, I16, U16, U32, U64, BF16};
    if (take_le(&c, 8) != 0x112 || take_le(&c, 8) != 0)
        return "this is no MXNet .params file";
    uint64_t count = take_le(&c, 8);
    if (count > (uint64_t)(c.end - c.at) / 24 || c.bad) /* what an array takes at least, without its dimensions */
        return "the file is damaged";
    struct file_tensor *all = ARENA_ARRAY(a, struct file_tensor, count + 1);
    for (uint64_t i = 0; i < count; i++) {
        struct file_tensor *x = &all[i];
        uint64_t magic = take_le(&c, 4);
        if (magic != 0xf993fac9 && magic != 0xf993faca)
            return "its arrays are of an old format: save it again with MXNet 1.0 or newer";
        if (take_le(&c, 4) != 0)
            return "it holds a sparse array";
        uint64_t rank = take_le(&c, 4);
        if (c.bad || rank > TENSOR_FILE_MAX_RANK)
            return "the file is damaged";
        x->rank = (int)rank;
        for (int d = 0; d < x->rank; d++)
            x->dims[d] = (int64_t)take_le(&c, 8);
        take_le(&c, 8); /* device type and number */
        uint64_t type = take_le(&c, 4);
        if (c.bad || type >= sizeof types / sizeof *types)
            return "an element type is none of ours";
        x->dtype = types[type];
        if (!tensor_size(x, &x->size))
            return "the file is damaged";
        x->bytes = take_bytes(&c, x->size);
        if (c.bad)
            return "the file is truncated";
    }
    uint64_t names = take_le(&c, 8);
    for (uint64_t i = 0; i < names && i < count && !c.bad; i++) {
        uint64_t n = take_le(&c, 8);
        const char *own = (const char *)take_bytes(&c, n);
        if (c.bad)
            break;
        /* "arg:" and "aux:" may be left out */
        bool prefixed = n > 4 && (memcmp(own, "arg:", 4) == 0 || memcmp(own, "aux:", 4) == 0);
        bool same = !name || (strlen(name) == n && memcmp(own, name, (size_t)n) == 0) ||
                    (prefixed && strlen(name) == n - 4 && memcmp(own + 4, name, (size_t)n - 4) == 0);
        if (same && (name || count == 1)) {
            *t = all[i];
            return NULL;
        }
    }
    if (c.bad)
        return "the file is truncated";
    return name ? arena_printf(a, "it has no tensor `%s`", name)
                : arena_printf(a, "it holds %llu tensors: name one as the second argument", (unsigned long long)count);
}

/* ---- ONNX: protobuf; ModelProto.graph (7) . initializer (5), a TensorProto (onnx.proto) -------------------------------- */

struct field {
    uint64_t number, value; /* varint, or the fixed bits */
    int wire;
    struct cursor inside; /* length-delimited */
};

static uint64_t take_varint(struct cursor *c) {
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint64_t b = take_le(c, 1);
        v |= (b & 127) << shift;
        if (!(b & 128))
            return v;
    }
    c->bad = true;
    return v;
}

static bool next_field(struct cursor *c, struct field *f) {
    if (c->at >= c->end || c->bad)
        return false;
    uint64_t key = take_varint(c);
    f->number = key >> 3;
    f->wire = (int)(key & 7);
    f->value = 0;
    f->inside = (struct cursor){.at = c->at, .end = c->at};
    switch (f->wire) {
    case 0: f->value = take_varint(c); break;
    case 1: f->value = take_le(c, 8); break;
    case 5: f->value = take_le(c, 4); break;
    case 2: {
        uint64_t n = take_varint(c);
        f->inside.at = take_bytes(c, n);
        f->inside.end = c->at;
        break;
    }
    default: c->bad = true;
    }
    return !c->bad;
}

struct sink {
    unsigned char *data;
    size_t at, size, element;
};

/* The low bytes of v: what is stored may be narrower than the field's type (int32_data holds u8, f16 bits, …). */
static bool put(struct sink *s, uint64_t v) {
    if (s->at + s->element > s->size)
        return false;
    for (size_t i = 0; i < s->element; i++)
        s->data[s->at + i] = (unsigned char)(v >> (8 * i));
    s->at += s->element;
    return true;
}

/* float_data, int32_data …: packed or one by one. */
static bool typed_data(struct arena *a, struct cursor tensor, uint64_t number, int wire, struct file_tensor *t) {
    if (t->size / (size_t)dtype_size(t->dtype) > (size_t)(tensor.end - tensor.at)) /* an element takes a byte or more */
        return false;
    struct sink s = {.data = arena_alloc(a, t->size + 8), .size = t->size, .element = (size_t)dtype_size(t->dtype)};
    struct field f;
    while (next_field(&tensor, &f)) {
        if (f.number != number)
            continue;
        if (f.wire != 2 && !put(&s, f.value))
            return false;
        for (struct cursor c = f.inside; c.at < c.end;)
            if (!put(&s, wire == 0 ? take_varint(&c) : take_le(&c, wire == 1 ? 8 : 4)) || c.bad)
                return false;
    }
    t->bytes = s.data;
    return s.at == t->size;
}

static const char *onnx_tensor(struct arena *a, struct cursor tensor, struct file_tensor *t) {
    static const int types[17] = {-1, F32, U8, I8, U16, I16, I32, I64, -1, BOOL, F16, F64, U32, U64, -1, -1, BF16};
    struct cursor c = tensor, raw = {0};
    struct field f;
    uint64_t type = 0;
    bool external = false;
    while (next_field(&c, &f)) {
        struct cursor d = f.inside;
        if (f.number == 1 && f.wire == 2)
            while (d.at < d.end && t->rank < TENSOR_FILE_MAX_RANK && !d.bad)
                t->dims[t->rank++] = (int64_t)take_varint(&d);
        else if (f.number == 1 && t->rank < TENSOR_FILE_MAX_RANK)
            t->dims[t->rank++] = (int64_t)f.value;
        else if (f.number == 2)
            type = f.value;
        else if (f.number == 9)
            raw = f.inside;
        else if (f.number == 14)
            external = f.value == 1;
    }
    if (c.bad)
        return "the file is damaged";
    if (external)
        return "its data lies in another file: save the model with its data inside";
    if (type >= 17 || types[type] < 0)
        return "its element type is none of ours";
    t->dtype = (enum dtype)types[type];
    if (!tensor_size(t, &t->size))
        return "its size does not fit memory";
    if (raw.at) {
        t->bytes = raw.at;
        return (size_t)(raw.end - raw.at) == t->size ? NULL : "its size does not fit its shape";
    }
    uint64_t field = t->dtype == F32                      ? 4
                     : t->dtype == I64                    ? 7
                     : t->dtype == F64                    ? 10
                     : t->dtype == U64 || t->dtype == U32 ? 11
                                                          : 5;
    return typed_data(a, tensor, field,
                      field == 4    ? 5
                      : field == 10 ? 1
                                    : 0,
                      t)
               ? NULL
               : "its size does not fit its shape";
}

static const char *read_onnx(struct arena *a, struct cursor model, const char *name, struct file_tensor *t) {
    struct field f, g, h;
    int count = 0;
    struct cursor found = {0};
    while (next_field(&model, &f)) {
        if (f.number != 7 || f.wire != 2)
            continue;
        struct cursor graph = f.inside;
        while (next_field(&graph, &g)) {
            if (g.number != 5 || g.wire != 2)
                continue;
            count++;
            struct cursor tensor = g.inside;
            bool same = !name;
            while (name && next_field(&tensor, &h))
                if (h.number == 8 && h.wire == 2)
                    same = strlen(name) == (size_t)(h.inside.end - h.inside.at) &&
                           memcmp(name, h.inside.at, strlen(name)) == 0;
            if (same)
                found = g.inside;
        }
        model.bad = model.bad || graph.bad;
    }
    if (model.bad)
        return "this is no ONNX file, or it is damaged";
    if (!name && count != 1)
        return arena_printf(a, "it holds %d initializers: name one as the second argument", count);
    if (!found.at)
        return arena_printf(a, "it has no initializer `%s`", name ? name : "");
    return onnx_tensor(a, found, t);
}

const char *tensor_file_read(struct arena *a, const char *path, const char *content, size_t size, const char *name,
                             struct file_tensor *t) {
    const unsigned char *begin = (const unsigned char *)content;
    struct cursor c = {.at = begin, .end = begin + size};
    const char *dot = strrchr(path, '.');
    *t = (struct file_tensor){0};
    if (dot && strcmp(dot, ".npy") == 0)
        return read_npy(a, c, t);
    if (dot && strcmp(dot, ".safetensors") == 0)
        return read_safetensors(a, c, name, t);
    if (dot && strcmp(dot, ".params") == 0)
        return read_params(a, c, name, t);
    if (dot && strcmp(dot, ".onnx") == 0)
        return read_onnx(a, c, name, t);
    return "constants are loaded from .safetensors, .npy, .params and .onnx files";
}
