/* One element of a constant between its bytes and a number. The 16-bit floats are packed by hand, because neither type is
 * available in every C compiler; values are rounded before they come here, so packing is exact. */
#include "ir/bytes.h"

#include <math.h>
#include <string.h>

uint64_t ir_bytes_load_bits(enum dtype t, const void *at) {
    switch (dtype_size(t)) {
    case 1: return *(const uint8_t *)at;
    case 2: {
        uint16_t x;
        memcpy(&x, at, sizeof x);
        return x;
    }
    case 4: {
        uint32_t x;
        memcpy(&x, at, sizeof x);
        return x;
    }
    default: {
        uint64_t x;
        memcpy(&x, at, sizeof x);
        return x;
    }
    }
}

void ir_bytes_store_bits(enum dtype t, uint64_t bits, void *at) {
    switch (dtype_size(t)) {
    case 1: *(uint8_t *)at = (uint8_t)bits; break;
    case 2: {
        uint16_t x = (uint16_t)bits;
        memcpy(at, &x, sizeof x);
        break;
    }
    case 4: {
        uint32_t x = (uint32_t)bits;
        memcpy(at, &x, sizeof x);
        break;
    }
    default: memcpy(at, &bits, sizeof bits); break;
    }
}

/* IEEE-style formats of 16 bits with `mantissa` stored bits: f16 has 10 (bias 15), bf16 has 7 (bias 127). */
static uint16_t pack16(double value, int mantissa) {
    int bias = mantissa == 10 ? 15 : 127, top = 15 - mantissa; /* top: exponent bits */
    uint16_t sign = signbit(value) ? 0x8000 : 0, special = (uint16_t)(((1 << top) - 1) << mantissa);
    if (isnan(value))
        return (uint16_t)(sign | special | 1u << (mantissa - 1));
    value = fabs(value);
    if (isinf(value))
        return (uint16_t)(sign | special);
    if (value == 0)
        return sign;
    int exponent;
    frexp(value, &exponent); /* value = f * 2^exponent, f in [0.5, 1) */
    exponent += bias - 1;
    if (exponent >= (1 << top) - 1)
        return (uint16_t)(sign | special);
    if (exponent <= 0) /* subnormal: units of 2^(1 - bias - mantissa) */
        return (uint16_t)(sign | (uint16_t)ldexp(value, bias - 1 + mantissa));
    uint16_t digits = (uint16_t)ldexp(value, mantissa - (exponent - bias)); /* with the hidden bit */
    return (uint16_t)(sign | exponent << mantissa | (digits & ((1 << mantissa) - 1)));
}

static double unpack16(uint16_t bits, int mantissa) {
    int bias = mantissa == 10 ? 15 : 127, top = 15 - mantissa;
    int exponent = bits >> mantissa & ((1 << top) - 1), digits = bits & ((1 << mantissa) - 1);
    double value;
    if (exponent == (1 << top) - 1)
        value = digits ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexp(digits, 1 - bias - mantissa);
    else
        value = ldexp(digits | 1 << mantissa, exponent - bias - mantissa);
    return bits & 0x8000 ? -value : value;
}

void ir_bytes_store_float(enum dtype t, double value, void *at) {
    if (t == F64) {
        memcpy(at, &value, sizeof value);
    } else if (t == F32) {
        float f = (float)value;
        memcpy(at, &f, sizeof f);
    } else {
        ir_bytes_store_bits(t, pack16(value, t == F16 ? 10 : 7), at);
    }
}

void ir_bytes_store_int(enum dtype t, int64_t value, void *at) {
    ir_bytes_store_bits(t, t == BOOL ? value != 0 : (uint64_t)value, at);
}

double ir_bytes_load_float(enum dtype t, const void *at) {
    if (t == F64) {
        double d;
        memcpy(&d, at, sizeof d);
        return d;
    }
    if (t == F32) {
        float f;
        memcpy(&f, at, sizeof f);
        return f;
    }
    return unpack16((uint16_t)ir_bytes_load_bits(t, at), t == F16 ? 10 : 7);
}

int64_t ir_bytes_load_int(enum dtype t, const void *at) {
    uint64_t bits = ir_bytes_load_bits(t, at);
    switch (t) {
    case I8: return (int8_t)bits;
    case I16: return (int16_t)bits;
    case I32: return (int32_t)bits;
    case BOOL: return bits != 0;
    default: return (int64_t)bits;
    }
}
