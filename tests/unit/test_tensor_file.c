/* frontend/tensor_file.h: one tensor of each kind of file, what each damage is called, and that no damage goes unnoticed: every file cut
 * off anywhere is refused, and bytes changed at random are refused or give a tensor that lies in the file. */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "frontend/tensor_file.h"

static void little(struct text *t, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++)
        text_addn(t, &(char){(char)(v >> (8 * i))}, 1);
}

static void floats(struct text *t, int n) {
    for (int i = 0; i < n; i++) {
        float x = (float)i + 0.5f;
        uint32_t bits;
        memcpy(&bits, &x, 4);
        little(t, bits, 4);
    }
}

static void safetensors(struct text *t, const char *header, int n) {
    little(t, strlen(header), 8);
    text_add(t, header);
    floats(t, n);
}

static void npy(struct text *t, int major, const char *header, int n) {
    text_addn(t, "\x93NUMPY", 6);
    little(t, (uint64_t)major, 2);
    little(t, strlen(header), major >= 2 ? 4 : 2);
    text_add(t, header);
    floats(t, n);
}

/* An array of MXNet: f32[rows, 3] unless told otherwise. */
static void params_array(struct text *t, uint64_t magic, uint64_t sparse, uint64_t rows, uint64_t type) {
    little(t, magic, 4);
    little(t, sparse, 4);
    little(t, 2, 4);
    little(t, rows, 8);
    little(t, 3, 8);
    little(t, 1, 8);
    little(t, type, 4);
    floats(t, rows < 100 ? (int)rows * 3 : 0);
}

static void params_open(struct text *t, int count) {
    little(t, 0x112, 8);
    little(t, 0, 8);
    little(t, (uint64_t)count, 8);
}

static void params_name(struct text *t, const char *name) {
    little(t, strlen(name), 8);
    text_add(t, name);
}

/* A length-delimited field of protobuf; all lengths here are below 128. */
static void field(struct text *t, int number, const struct text *inside) {
    cr_assert(inside->length < 128);
    little(t, (uint64_t)(number << 3 | 2), 1);
    little(t, inside->length, 1);
    text_addn(t, text_string(inside), inside->length);
}

static void varint(struct text *t, int number, uint64_t v) {
    little(t, (uint64_t)(number << 3), 1);
    for (; v >= 128; v >>= 7)
        little(t, v | 128, 1);
    little(t, v, 1);
}

enum onnx_data { RAW, PACKED, UNPACKED, NOTHING, ELSEWHERE };

/* The initializer `name`: type[rows, 3] of ONNX. */
static void onnx(struct text *graph, const char *name, int type, uint64_t rows, enum onnx_data how) {
    struct text tensor = {0}, data = {0}, own = {0};
    varint(&tensor, 1, rows);
    varint(&tensor, 1, 3);
    varint(&tensor, 2, (uint64_t)type);
    text_add(&own, name);
    field(&tensor, 8, &own);
    if (how == RAW || how == PACKED) {
        if (type == 1)
            floats(&data, 6);
        else
            for (int i = 0; i < 6; i++)
                little(&data, (uint64_t)i, 1);
        field(&tensor, how == RAW ? 9 : type == 1 ? 4 : 5, &data);
    }
    for (int i = 0; how == UNPACKED && i < 6; i++)
        varint(&tensor, type == 7 ? 7 : 5, (uint64_t)i);
    if (how == ELSEWHERE)
        varint(&tensor, 14, 1);
    field(graph, 5, &tensor);
    text_free(&tensor);
    text_free(&data);
    text_free(&own);
}

static void model(struct text *t, struct text *graph) {
    varint(t, 1, 8); /* ir_version */
    field(t, 7, graph);
    text_free(graph);
}

/* Reads a copy that ends where the memory ends, for ASan. */
static const char *read(struct arena *a, const char *path, const struct text *file, size_t size, const char *name,
                        struct file_tensor *t, char **copy) {
    *copy = malloc(size ? size : 1);
    memcpy(*copy, text_string(file), size);
    return tensor_file_read(a, path, *copy, size, name, t);
}

static bool lies_in(const struct file_tensor *t, const char *copy, size_t size) {
    const char *at = t->bytes;
    return at >= copy && at + t->size <= copy + size;
}

/* f32[2, 3] of 0.5, 1.5, …; and all that can become of the file. */
static void check(const char *path, struct text *file, const char *name) {
    struct arena a = {0};
    struct file_tensor t;
    char *copy;
    const char *why = read(&a, path, file, file->length, name, &t, &copy);
    cr_assert_null(why, "%s: %s", path, why);
    cr_assert(t.dtype == F32 && t.rank == 2 && t.dims[0] == 2 && t.dims[1] == 3 && t.size == 24);
    for (int i = 0; i < 6; i++) {
        float x;
        memcpy(&x, (const char *)t.bytes + 4 * i, 4);
        cr_assert_eq(x, (float)i + 0.5f);
    }
    free(copy);
    for (size_t size = 0; size < file->length; size++) {
        cr_assert_not_null(read(&a, path, file, size, name, &t, &copy), "%s: %zu bytes of %zu are enough", path, size,
                           file->length);
        free(copy);
    }
    uint32_t seed = 1;
    for (int round = 0; round < 4000; round++) {
        struct text other = {0};
        text_addn(&other, text_string(file), file->length);
        for (int k = 0; k <= round % 3; k++) {
            seed = seed * 1664525u + 1013904223u;
            other.data[(seed >> 8) % other.length] ^= (char)(1u << (seed >> 29));
        }
        struct arena own = {0};
        if (!read(&own, path, &other, other.length, name, &t, &copy)) {
            volatile unsigned char last = 0; /* all of it can be read */
            for (size_t i = 0; i < t.size; i++)
                last = ((const unsigned char *)t.bytes)[i];
            (void)last;
            cr_assert(strstr(path, "onnx") || lies_in(&t, copy, other.length));
        }
        free(copy);
        arena_free(&own);
        text_free(&other);
    }
    arena_free(&a);
    text_free(file);
}

static void refuse(const char *path, struct text *file, const char *name, const char *words) {
    struct arena a = {0};
    struct file_tensor t;
    char *copy;
    const char *why = read(&a, path, file, file->length, name, &t, &copy);
    cr_assert(why && strstr(why, words), "%s: %s, expected %s", path, why ? why : "read", words);
    free(copy);
    arena_free(&a);
    text_free(file);
}

Test(tensor_file, safetensors) {
    static const char one[] = "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}";
    static const char two[] =
        "{\"__metadata__\":{\"a\":\"b\"},\"v\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[24,24]},"
        "\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}";
    static const struct {
        const char *header, *name, *words;
    } bad[] = {
        {two, NULL, "it holds 2 tensors"},
        {two, "x", "no tensor `x`"},
        {"[1]", NULL, "not JSON"},
        {"{", NULL, "not JSON"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2,3]}}", NULL, "lacks dtype, shape or data_offsets"},
        {"{\"w\":{\"dtype\":\"C64\",\"shape\":[2,3],\"data_offsets\":[0,24]}}", NULL, "none of ours"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2,-3],\"data_offsets\":[0,24]}}", NULL, "not a list of sizes"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2,\"3\"],\"data_offsets\":[0,24]}}", NULL, "not a list of sizes"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,124]}}", NULL, "truncated"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[24,0]}}", NULL, "truncated"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,24]}}", NULL, "does not fit its shape"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[9e15,9e15],\"data_offsets\":[0,24]}}", NULL, "does not fit its shape"},
    };
    struct text t = {0};
    safetensors(&t, one, 6);
    check("a.safetensors", &t, NULL);
    safetensors(&t, two, 6);
    check("a.safetensors", &t, "w");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        safetensors(&t, bad[i].header, 6);
        refuse("a.safetensors", &t, bad[i].name, bad[i].words);
    }
}

Test(tensor_file, npy) {
    static const struct {
        const char *header, *words;
    } bad[] = {
        {"{'descr': '<f4', 'shape': (2, 3)}", "lacks descr, fortran_order or shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 2", "lacks descr, fortran_order or shape"},
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }", "none of ours"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }", "none of ours"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", "order='C'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, x), }", "not a list of sizes"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, -3), }", "not a list of sizes"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9000000000000000000, 3), }", "does not fit memory"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3), }", "truncated"},
    };
    struct text t = {0};
    for (int major = 1; major <= 2; major++) {
        npy(&t, major, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 6);
        check("a.npy", &t, NULL);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        npy(&t, 1, bad[i].header, 6);
        refuse("a.npy", &t, NULL, bad[i].words);
    }
    text_add(&t, "PK");
    refuse("a.npy", &t, NULL, "no npy file");
}

Test(tensor_file, params) {
    const uint64_t v2 = 0xf993fac9, v3 = 0xf993faca;
    struct text t = {0};
    for (int named = 0; named < 2; named++) {
        params_open(&t, 1);
        params_array(&t, named ? v3 : v2, 0, 2, 0);
        little(&t, 1, 8);
        params_name(&t, "arg:w");
        check("a.params", &t, named ? "w" : NULL);
    }
    for (int i = 0; i < 2; i++) { /* by its whole name too; one of two */
        params_open(&t, 2);
        params_array(&t, v2, 0, 1, 0);
        params_array(&t, v2, 0, 2, 0);
        little(&t, 2, 8);
        params_name(&t, "arg:v");
        params_name(&t, i ? "w" : "aux:w");
        check("a.params", &t, i ? "w" : "aux:w");
    }
    static const struct {
        uint64_t magic, sparse, rows, type;
        const char *words;
    } bad[] = {
        {0xf993fac8, 0, 2, 0, "old format"},      {0xf993fac9, 1, 2, 0, "sparse array"},
        {0xf993fac9, 0, 2, 13, "none of ours"},   {0xf993fac9, 0, UINT64_MAX / 3, 0, "damaged"},
        {0xf993fac9, 0, 1000000, 0, "truncated"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        params_open(&t, 1);
        params_array(&t, bad[i].magic, bad[i].sparse, bad[i].rows, bad[i].type);
        refuse("a.params", &t, NULL, bad[i].words);
    }
    for (int i = 0; i < 2; i++) {
        params_open(&t, 2);
        params_array(&t, v2, 0, 1, 0);
        params_array(&t, v2, 0, 1, 0);
        little(&t, 2, 8);
        params_name(&t, "v");
        params_name(&t, "w");
        refuse("a.params", &t, i ? "x" : NULL, i ? "no tensor `x`" : "it holds 2 tensors");
    }
    params_open(&t, 1 << 19); /* more than the file can hold */
    refuse("a.params", &t, NULL, "damaged");
    little(&t, 0x113, 8);
    refuse("a.params", &t, NULL, "no MXNet .params file");
}

Test(tensor_file, onnx) {
    struct text t = {0}, g = {0};
    struct arena a = {0};
    struct file_tensor x;
    char *copy;
    for (int how = RAW; how <= PACKED; how++) {
        onnx(&g, "w", 1, 2, (enum onnx_data)how);
        model(&t, &g);
        check("a.onnx", &t, how == RAW ? "w" : NULL);
    }
    static const struct {
        int type;
        enum dtype dtype;
        enum onnx_data how;
    } narrow[] = {{7, I64, UNPACKED}, {3, I8, PACKED}, {2, U8, UNPACKED}, {9, BOOL, RAW}, {5, I16, PACKED}};
    for (size_t k = 0; k < sizeof narrow / sizeof *narrow; k++) { /* the low bytes of what is stored wider */
        onnx(&g, "w", narrow[k].type, 2, narrow[k].how);
        model(&t, &g);
        cr_assert_null(read(&a, "a.onnx", &t, t.length, NULL, &x, &copy));
        cr_assert(x.dtype == narrow[k].dtype && x.size == 6 * (size_t)dtype_size(x.dtype));
        for (int i = 0; i < 6; i++)
            cr_assert_eq(((const unsigned char *)x.bytes)[i * dtype_size(x.dtype)], i);
        free(copy);
        text_free(&t);
    }
    static const struct {
        int type;
        uint64_t rows;
        enum onnx_data how;
        const char *name, *words;
    } bad[] = {
        {1, 2, RAW, "v", "no initializer `v`"},
        {1, 2, ELSEWHERE, NULL, "another file"},
        {8, 2, RAW, NULL, "none of ours"},
        {1, 3, RAW, NULL, "does not fit its shape"},
        {1, 2, NOTHING, NULL, "does not fit its shape"},
        {1, 1, PACKED, NULL, "does not fit its shape"},
        {1, UINT64_C(1) << 40, NOTHING, NULL, "does not fit its shape"}, /* and no memory is asked for */
        {1, UINT64_C(1) << 62, NOTHING, NULL, "does not fit memory"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        onnx(&g, "w", bad[i].type, bad[i].rows, bad[i].how);
        model(&t, &g);
        refuse("a.onnx", &t, bad[i].name, bad[i].words);
    }
    onnx(&g, "v", 1, 2, NOTHING);
    onnx(&g, "w", 1, 2, NOTHING);
    model(&t, &g);
    refuse("a.onnx", &t, NULL, "it holds 2 initializers");
    text_add(&t, "\xff\xff\xff");
    refuse("a.onnx", &t, NULL, "no ONNX file");
    refuse("a.bin", &t, NULL, "are loaded from .safetensors");
    arena_free(&a);
}
