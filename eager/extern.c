/* Calls of C functions: from a shared library that the user names, by libffi (where the build has it). */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "eager/eager_internal.h"

#if defined(__has_include)
#if __has_include(<ffi.h>)
#define HAVE_FFI 1
#include <ffi.h>
#endif
#endif

void eager_extern_close(struct eager *e) {
    if (e->library_handle)
        dlclose(e->library_handle);
    e->library_handle = NULL;
}

#ifdef HAVE_FFI
static ffi_type *scalar_type(enum dtype t) {
    switch (t) {
    case F64: return &ffi_type_double;
    case F32: return &ffi_type_float;
    case I64: return &ffi_type_sint64;
    case I32: return &ffi_type_sint32;
    case I16: return &ffi_type_sint16;
    case I8: return &ffi_type_sint8;
    case U64: return &ffi_type_uint64;
    case U32: return &ffi_type_uint32;
    case U16:
    case F16:
    case BF16: return &ffi_type_uint16;
    default: return &ffi_type_uint8;
    }
}

int eager_extern(struct eager *e, const struct ir_op *op) {
    const char *path = e->library ? e->library : getenv("MXCC_EXTERN_LIBRARY");
    if (!path)
        return eager_fail(e, "%s is a C function: name the shared library that has it (MXCC_EXTERN_LIBRARY=PATH)",
                          op->external.symbol);
    if (!e->library_handle)
        e->library_handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!e->library_handle)
        return eager_fail(e, "cannot load %s: %s", path, dlerror());
    void *symbol = dlsym(e->library_handle, op->external.symbol);
    if (!symbol)
        return eager_fail(e, "%s has no function %s", path, op->external.symbol);
    int n = op->external.param_count;
    ffi_type **types = calloc((size_t)n + 1, sizeof *types);
    void **values = calloc((size_t)n + 1, sizeof *values), **pointers = calloc((size_t)n + 1, sizeof *pointers);
    for (int i = 0; i < op->result_count; i++) {
        struct ir_type t = op->results[i]->type;
        struct mem *m = mem_new(e, (size_t)(eager_dims(e, t, NULL) * dtype_size(t.dtype)) + 8);
        if (!m)
            goto out;
        memset(m->data, 0, m->bytes);
        m->bytes -= 8;
        mem_drop(e, e->values[op->results[i]->id]);
        e->values[op->results[i]->id] = m;
    }
    for (int i = 0; i < n; i++) {
        int x = op->external.params[i];
        const struct ir_value *v = x >= 0 ? op->operands[x] : op->results[~x];
        pointers[i] = e->values[v->id]->data;
        bool by_value = x >= 0 && v->type.rank == 0;
        types[i] = by_value ? scalar_type(v->type.dtype) : &ffi_type_pointer;
        values[i] = by_value ? pointers[i] : (void *)&pointers[i];
    }
    ffi_cif cif;
    union {
        ffi_arg word;
        double d;
        float f;
        int64_t i;
    } back;
    memset(&back, 0, sizeof back);
    bool returns = op->external.returns;
    ffi_type *type = returns ? scalar_type(op->results[0]->type.dtype) : &ffi_type_void;
    if (ffi_prep_cif(&cif, FFI_DEFAULT_ABI, (unsigned)n, type, types) == FFI_OK) {
        void (*function)(void);
        memcpy(&function, &symbol, sizeof function);
        ffi_call(&cif, function, &back, values);
        if (returns) /* small integers come widened to a word; little or big end alike by way of it */
            switch (op->results[0]->type.dtype) {
            case F64: memcpy(e->values[op->results[0]->id]->data, &back.d, 8); break;
            case F32: memcpy(e->values[op->results[0]->id]->data, &back.f, 4); break;
            default: {
                uint64_t word = (uint64_t)back.word;
                vec_store(op->results[0]->type.dtype == BOOL            ? U8
                          : dtype_size(op->results[0]->type.dtype) == 2 ? U16
                                                                        : op->results[0]->type.dtype,
                          e->values[op->results[0]->id]->data, 0, &word, 1);
            }
            }
        free(types);
        free(values);
        free(pointers);
        return 0;
    }
    eager_fail(e, "%s cannot be called", op->external.symbol);
out:
    free(types);
    free(values);
    free(pointers);
    return 1;
}
#else
int eager_extern(struct eager *e, const struct ir_op *op) {
    return eager_fail(e, "%s is a C function, and this mxcc was built without libffi", op->external.symbol);
}
#endif
