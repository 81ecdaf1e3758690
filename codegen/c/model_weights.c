/* Weights as constants in the unit (--weights source): numbers that read back to the same bits. For small models; the
 * driver refuses large ones. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "codegen/c/model_internal.h"

static void number(struct text *c, enum dtype t, const unsigned char *at) {
    union {
        double f64;
        float f32;
        int64_t i64;
        int32_t i32;
        int16_t i16;
        int8_t i8;
        uint64_t u64;
        uint32_t u32;
        uint16_t u16;
        uint8_t u8;
    } v;
    memcpy(&v, at, (size_t)dtype_size(t));
    double f = t == F64 ? v.f64 : v.f32;
    switch (t) {
    case F64:
    case F32:
        if (isnan(f))
            text_add(c, t == F64 ? "(double)NAN" : "NAN");
        else if (isinf(f))
            text_printf(c, "%s%s", f < 0 ? "-" : "", t == F64 ? "(double)INFINITY" : "INFINITY");
        else
            text_printf(c, f == (double)(int64_t)(f > -1e6 && f < 1e6 ? f : 0) && !signbit(f) ? "%.1f%s" : "%a%s", f,
                        t == F32 ? "f" : "");
        break;
    case I64: text_printf(c, v.i64 == INT64_MIN ? "INT64_MIN" : "INT64_C(%" PRId64 ")", v.i64); break;
    case I32: text_printf(c, v.i32 == INT32_MIN ? "INT32_MIN" : "%" PRId32, v.i32); break;
    case I16: text_printf(c, "%d", v.i16); break;
    case I8: text_printf(c, "%d", v.i8); break;
    case U64: text_printf(c, "UINT64_C(%" PRIu64 ")", v.u64); break;
    case U32: text_printf(c, "%" PRIu32 "u", v.u32); break;
    case F16:
    case BF16:
    case U16: text_printf(c, "%u", (unsigned)v.u16); break;
    case U8: text_printf(c, "%u", (unsigned)v.u8); break;
    case BOOL: text_add(c, v.u8 ? "true" : "false"); break;
    case DTYPE_COUNT: break;
    }
}

void unit_weights_data(struct unit *u) {
    struct text *c = &u->c;
    if (u->options->weights != WEIGHTS_SOURCE || !u->options->weight_data)
        return;
    text_add(c, "/* ---- weights */\n\n");
    for (int i = 0; i < u->module->buffer_count; i++) {
        const struct ir_buffer *b = u->module->buffers[i];
        int64_t size = dtype_size(b->type.dtype), n = ir_type_bytes_upper(b->type) / size;
        if (n == 0 && !u->shared[i])
            continue;
        text_printf(c, "static const %s %s_mx_data_%s[%lld] = {", cgen_c_type(b->type.dtype), u->prefix,
                    cgen_buffer_field(&u->g, b), (long long)(n ? n : 1));
        for (int64_t k = 0; k < n; k++) {
            text_add(c, k % 8 ? " " : "\n    ");
            number(c, b->type.dtype, (const unsigned char *)u->options->weight_data[i] + k * size);
            text_add(c, ",");
        }
        text_add(c, n ? "\n};\n\n" : "0};\n\n");
    }
}
