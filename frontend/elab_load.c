/* Constants from files: `load("weights.safetensors", "conv1.weight")`, `load("table.npy")`. The bytes are checked against
 * the file's own description before anything is used. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/text.h"
#include "frontend/elab.h"

struct file_tensor {
    enum dtype dtype;
    int rank;
    int64_t dims[32];
    const char *bytes;
    size_t size;
};

static bool tensor_size(const struct file_tensor *t, size_t *bytes) {
    uint64_t n = (uint64_t)dtype_size(t->dtype);
    for (int d = 0; d < t->rank; d++)
        if (t->dims[d] < 0 || __builtin_mul_overflow(n, (uint64_t)t->dims[d], &n))
            return false;
    *bytes = (size_t)n;
    return true;
}

/* ---- safetensors: 8 bytes little-endian header length, JSON header, data ------------------------------------------------ */

static bool safetensors_dtype(const char *name, enum dtype *t) {
    static const char *const names[DTYPE_COUNT] = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"};
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (strcmp(names[i], name) == 0) {
            *t = (enum dtype)i;
            return true;
        }
    return false;
}

static const char *read_entry(const cJSON *entry, const char *data, size_t available, struct file_tensor *t) {
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(entry, "dtype"), *shape = cJSON_GetObjectItemCaseSensitive(entry, "shape");
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets"), *x;
    if (!cJSON_IsString(dtype) || !cJSON_IsArray(shape) || !cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2)
        return "its entry lacks dtype, shape or data_offsets";
    if (!safetensors_dtype(dtype->valuestring, &t->dtype))
        return "its element type is none of ours";
    cJSON_ArrayForEach(x, shape) {
        if (t->rank == 31 || !cJSON_IsNumber(x) || x->valuedouble < 0 || x->valuedouble > 9e15)
            return "its shape is not a list of sizes";
        t->dims[t->rank++] = (int64_t)x->valuedouble;
    }
    double begin = cJSON_GetArrayItem(offsets, 0)->valuedouble, end = cJSON_GetArrayItem(offsets, 1)->valuedouble;
    size_t bytes;
    if (!(begin >= 0 && end >= begin && end <= (double)available))
        return "the file is truncated";
    if (!tensor_size(t, &bytes) || (double)bytes != end - begin)
        return "its size does not fit its shape";
    t->bytes = data + (size_t)begin;
    t->size = bytes;
    return NULL;
}

static const char *read_safetensors(struct elab *e, const char *file, size_t size, const char *name, struct file_tensor *t) {
    uint64_t header = 0;
    if (size < 8)
        return "the file is truncated";
    for (int i = 0; i < 8; i++)
        header |= (uint64_t)(unsigned char)file[i] << (8 * i);
    if (header > size - 8)
        return "this is no safetensors file, or it is truncated";
    cJSON *root = cJSON_ParseWithLength(file + 8, (size_t)header);
    const char *why;
    if (!cJSON_IsObject(root)) {
        why = "the header is not JSON";
    } else if (name) {
        const cJSON *entry = cJSON_GetObjectItemCaseSensitive(root, name);
        why = entry ? read_entry(entry, file + 8 + header, size - 8 - (size_t)header, t) : arena_printf(e->arena, "it has no tensor `%s`", name);
    } else {
        const cJSON *only = NULL, *x;
        int n = 0;
        cJSON_ArrayForEach(x, root) if (strcmp(x->string, "__metadata__") != 0) {
            only = x;
            n++;
        }
        why = n == 1 ? read_entry(only, file + 8 + header, size - 8 - (size_t)header, t)
                     : arena_printf(e->arena, "it holds %d tensors: name one as the second argument", n);
    }
    cJSON_Delete(root);
    return why;
}

/* ---- npy: magic, version, a Python dictionary as text, data ------------------------------------------------------------------- */

static bool npy_dtype(const char *descr, enum dtype *t) {
    static const struct {
        const char *descr;
        enum dtype t;
    } rows[] = {{"<f8", F64}, {"<f4", F32}, {"<f2", F16}, {"<i8", I64}, {"<i4", I32}, {"<i2", I16}, {"|i1", I8},
                {"<u8", U64}, {"<u4", U32}, {"<u2", U16}, {"|u1", U8},  {"|b1", BOOL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].descr, descr) == 0) {
            *t = rows[i].t;
            return true;
        }
    return false;
}

static const char *read_npy(struct elab *e, const char *file, size_t size, struct file_tensor *t) {
    if (size < 10 || memcmp(file, "\x93NUMPY", 6) != 0)
        return "this is no npy file";
    size_t at = file[6] >= 2 ? 12 : 10, length;
    if (size < at)
        return "the file is truncated";
    const unsigned char *u = (const unsigned char *)file;
    length = file[6] >= 2 ? u[8] | (size_t)u[9] << 8 | (size_t)u[10] << 16 | (size_t)u[11] << 24 : u[8] | (size_t)u[9] << 8;
    if (length > size - at)
        return "the file is truncated";
    const char *header = arena_strndup(e->arena, file + at, length);
    const char *descr = strstr(header, "'descr':"), *order = strstr(header, "'fortran_order':"), *shape = strstr(header, "'shape':");
    const char *quote = descr ? strchr(descr + 8, '\'') : NULL, *end = quote ? strchr(quote + 1, '\'') : NULL;
    if (!end || !order || !shape || !(shape = strchr(shape, '(')))
        return "its header lacks descr, fortran_order or shape";
    if (!npy_dtype(arena_strndup(e->arena, quote + 1, (size_t)(end - quote - 1)), &t->dtype))
        return "its element type is none of ours (little-endian numbers)";
    if (strncmp(order + 16 + strspn(order + 16, " "), "True", 4) == 0)
        return "it is stored column by column: save it with order='C'";
    for (shape++; *shape && *shape != ')';) {
        char *next;
        int64_t n = strtoll(shape, &next, 10);
        if (next == shape || t->rank == 31 || n < 0)
            return "its shape is not a list of sizes";
        t->dims[t->rank++] = n;
        shape = next + strspn(next, ", L");
    }
    t->bytes = file + at + length;
    if (!tensor_size(t, &t->size) || t->size > size - at - length)
        return "the file is truncated";
    return NULL;
}

struct val elab_load_file(struct elab *e, const char *path, const char *name, struct span at) {
    const char *from = at.source ? at.source->path : "", *slash = strrchr(from, '/'), *full = path;
    if (path[0] != '/' && slash)
        full = arena_printf(e->arena, "%.*s/%s", (int)(slash - from), from, path);
    size_t size;
    errno = 0;
    char *file = file_read(full, &size);
    if (!file) {
        elab_error(e, E_unknown_module, at, "cannot read `%s`: %s", full, strerror(errno));
        return val_error;
    }
    struct file_tensor t = {0};
    const char *dot = strrchr(path, '.'), *why;
    if (dot && strcmp(dot, ".npy") == 0)
        why = read_npy(e, file, size, &t);
    else if (dot && strcmp(dot, ".safetensors") == 0)
        why = read_safetensors(e, file, size, name, &t);
    else
        why = "constants are loaded from .safetensors and .npy files";
    struct val v = val_error;
    if (why) {
        elab_error(e, E_load, at, "cannot load from `%s`: %s", full, why);
    } else {
        ir_dim dims[32];
        for (int d = 0; d < t.rank; d++)
            dims[d] = ir_dim_const(e->module, t.dims[d]);
        struct file_data *data = ARENA_NEW(e->arena, struct file_data);
        data->type = ir_type_make(e->module, t.dtype, t.rank, dims);
        data->bytes = arena_copy(&e->module->arena, t.bytes, t.size);
        data->name = name ? arena_strdup(&e->module->arena, name) : NULL;
        v = (struct val){.kind = VAL_DATA, .data = data};
        if (e->in_function)
            v = elab_from_value(e, ir_build_const(&e->b, data->type, data->bytes));
    }
    free(file);
    return v;
}
