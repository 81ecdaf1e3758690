/* Sums along a fixed binary tree.
 *
 * Floating-point addition does not associate, so "add what arrives" gives other bits each time. Here the order is a function of
 * the number of parts alone: split at the largest power of two below it, left + right. The tree is walked for a block of
 * elements at a time, depth first with a block of scratch a level, so that partial sums stay in the first-level cache and each
 * part is read once, however many there are. */
#include "sum.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3") /* loops to vectors; clang does so anyway */
#endif

enum { BLOCK_BYTES = 2048, LEVELS = 31 };

static const uint8_t element_bytes[] = {8, 4, 2, 2, 8, 4, 2, 1, 8, 4, 2, 1, 1};

size_t sum_element_bytes(mx_dtype t) {
    return (unsigned)t <= MX_BOOL ? element_bytes[t] : 0;
}

mx_dtype sum_partial_type(mx_dtype t) {
    return t == MX_F16 || t == MX_BF16 ? MX_F32 : t;
}

/* ---- half precision, without branches so that loops become vectors */

static inline float float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static inline uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static inline float from_f16(uint16_t h) {
    /* 2^112 moves the exponent's bias from 15 to 127, subnormals included. */
    uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13;
    uint32_t finite = bits_of(float_of(magnitude) * 0x1p112f);
    uint32_t special = magnitude | 0x7f800000;
    return float_of((magnitude >= 0x0f800000 ? special : finite) | (uint32_t)(h & 0x8000) << 16);
}

static inline uint16_t to_f16(float f) {
    uint32_t u = bits_of(f), sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    /* Below 2^-14: adding 0.5 rounds to multiples of 2^-24, half's smallest, in the processor's own way. */
    uint32_t small = bits_of(float_of(u) + 0.5f) - 0x3f000000;
    uint32_t normal = (u - 0x38000000 + 0xfff + (u >> 13 & 1)) >> 13;
    uint32_t large = u > 0x7f800000 ? 0x7e00 | (u >> 13 & 0x3ff) : 0x7c00;
    uint32_t h = u < 0x38800000 ? small : u < 0x477ff000 ? normal : large;
    return (uint16_t)(h | sign);
}

static inline float from_bf16(uint16_t h) {
    return float_of((uint32_t)h << 16);
}

static inline uint16_t to_bf16(float f) {
    uint32_t u = bits_of(f), rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    return (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? u >> 16 | 0x40 : rounded);
}

void sum_widen(mx_dtype t, void *out, const void *in, int64_t elements) {
    const uint16_t *h = in;
    float *f = out;
    if (t == MX_F16) {
        for (int64_t i = 0; i < elements; i++)
            f[i] = from_f16(h[i]);
    } else if (t == MX_BF16) {
        for (int64_t i = 0; i < elements; i++)
            f[i] = from_bf16(h[i]);
    } else if (out != in) {
        memcpy(out, in, (size_t)elements * sum_element_bytes(t));
    }
}

void sum_narrow(mx_dtype t, void *out, const void *in, int64_t elements) {
    const float *f = in;
    uint16_t *h = out;
    if (t == MX_F16) {
        for (int64_t i = 0; i < elements; i++)
            h[i] = to_f16(f[i]);
    } else if (t == MX_BF16) {
        for (int64_t i = 0; i < elements; i++)
            h[i] = to_bf16(f[i]);
    } else if (out != in) {
        memcpy(out, in, (size_t)elements * sum_element_bytes(t));
    }
}

/* ---- two parts. Parts that arrive in frames are aligned to 8 bytes; signed integers are added as unsigned ones, which wrap. */

#define ADD(type)                              \
    do {                                       \
        type *o = out;                         \
        const type *x = a, *y = b;             \
        for (int64_t i = 0; i < elements; i++) \
            o[i] = (type)(x[i] + y[i]);        \
    } while (0)

void sum_two(mx_dtype t, void *out, const void *a, const void *b, int64_t elements) {
    switch (t) {
    case MX_F64: ADD(double); break;
    case MX_F32: ADD(float); break;
    case MX_I64:
    case MX_U64: ADD(uint64_t); break;
    case MX_I32:
    case MX_U32: ADD(uint32_t); break;
    case MX_I16:
    case MX_U16: ADD(uint16_t); break;
    case MX_I8:
    case MX_U8: ADD(uint8_t); break;
    case MX_BOOL: {
        uint8_t *o = out;
        const uint8_t *x = a, *y = b;
        for (int64_t i = 0; i < elements; i++)
            o[i] = x[i] | y[i];
        break;
    }
    case MX_F16:
    case MX_BF16: break; /* no partial type */
    }
}

/* ---- the tree */

struct walk {
    mx_dtype type, partial;
    size_t bytes, partial_bytes;
    const void *const *parts;
    int64_t at, elements; /* of this block */
};

/* The sum of parts[first … first + count): in `scratch`, or where it is already. Each level has BLOCK_BYTES of scratch. */
static const void *walk(const struct walk *w, int first, int count, char *scratch) {
    if (count == 1) {
        const char *part = (const char *)w->parts[first] + (size_t)w->at * w->bytes;
        if (w->partial == w->type)
            return part;
        sum_widen(w->type, scratch, part, w->elements);
        return scratch;
    }
    int left = 1;
    while (left * 2 < count)
        left *= 2;
    const void *a = walk(w, first, left, scratch);
    const void *b = walk(w, first + left, count - left, scratch + BLOCK_BYTES);
    sum_two(w->partial, scratch, a, b, w->elements);
    return scratch;
}

void sum_tree_to(mx_dtype to, mx_dtype t, void *out, const void *const *parts, int count, int64_t elements) {
    const size_t out_bytes = sum_element_bytes(to);
    _Alignas(64) char scratch[(LEVELS + 1) * BLOCK_BYTES];
    struct walk w = {.type = t, .partial = sum_partial_type(t), .bytes = sum_element_bytes(t), .parts = parts};
    w.partial_bytes = sum_element_bytes(w.partial);
    int64_t block = BLOCK_BYTES / (int64_t)w.partial_bytes;
    for (w.at = 0; w.at < elements; w.at += block) {
        w.elements = elements - w.at < block ? elements - w.at : block;
        if (count == 2 && w.partial == t && t == to) { /* no scratch between: the commonest */
            w.elements = elements;
            sum_two(t, out, parts[0], parts[1], elements);
            return;
        }
        sum_narrow(to, (char *)out + (size_t)w.at * out_bytes, walk(&w, 0, count, scratch), w.elements);
    }
}

void sum_tree(mx_dtype t, void *out, const void *const *parts, int count, int64_t elements) {
    if (count > 1)
        sum_tree_to(t, t, out, parts, count, elements);
    else if (parts[0] != out)
        memmove(out, parts[0], (size_t)elements * sum_element_bytes(t));
}
