/* Element types: one table of their names, sizes and kinds. */
#include "ir/ir.h"

#include <string.h>

enum dtype_kind { KIND_FLOAT, KIND_SIGNED, KIND_UNSIGNED, KIND_BOOL };

static const struct {
    const char *name;
    int size;
    enum dtype_kind kind;
} table[DTYPE_COUNT] = {
    [F64] = {"f64", 8, KIND_FLOAT},    [F32] = {"f32", 4, KIND_FLOAT},    [F16] = {"f16", 2, KIND_FLOAT},
    [BF16] = {"bf16", 2, KIND_FLOAT},  [I64] = {"i64", 8, KIND_SIGNED},   [I32] = {"i32", 4, KIND_SIGNED},
    [I16] = {"i16", 2, KIND_SIGNED},   [I8] = {"i8", 1, KIND_SIGNED},     [U64] = {"u64", 8, KIND_UNSIGNED},
    [U32] = {"u32", 4, KIND_UNSIGNED}, [U16] = {"u16", 2, KIND_UNSIGNED}, [U8] = {"u8", 1, KIND_UNSIGNED},
    [BOOL] = {"bool", 1, KIND_BOOL},
};

const char *dtype_name(enum dtype t) {
    return table[t].name;
}

bool dtype_parse(const char *name, enum dtype *t) {
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (!strcmp(table[i].name, name)) {
            *t = (enum dtype)i;
            return true;
        }
    return false;
}

int dtype_size(enum dtype t) {
    return table[t].size;
}

bool dtype_is_float(enum dtype t) {
    return table[t].kind == KIND_FLOAT;
}

bool dtype_is_int(enum dtype t) {
    return table[t].kind == KIND_SIGNED || table[t].kind == KIND_UNSIGNED;
}

bool dtype_is_signed(enum dtype t) {
    return table[t].kind == KIND_SIGNED;
}
