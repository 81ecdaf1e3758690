/* Compression with error feedback (Seide et al. 2014; Strom 2015; Stich et al. 2018): what is sent is a rounding of gradient +
 * residual, the residual is what the rounding lost. Without the residual small gradients would never be sent at all.
 *
 *   2bit   r >= t: code 3, the value t; r <= -t: code 2, the value -t; else 0. Four codes a byte, the first on top. MXNet's,
 *          to the bit: everything is f32 and rounds as it does there.
 *   1bit   r > t: bit 1, the value 1; else bit 0, the value -1. Eight a byte, the first on top. MXNet's.
 *   bf16   r rounded to nearest.
 *   top k  the k largest by magnitude, of equal ones the earlier: u32 indices, ascending, then f32 values. The k-th largest
 *          is found by its bits, 11 at a time from the top (radix select): linear, and no two machines disagree. */
#include "compress.h"

#include <math.h>
#include <string.h>

#include "../net/sum.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3") /* loops to vectors; clang does so anyway */
#endif

int64_t kv_compress_kept(enum mxrt_kv_compression kind, float threshold, int64_t elements) {
    if (kind != MXRT_KV_TOP_K || elements == 0)
        return elements;
    double kept = floor((double)threshold * (double)elements + 0.5);
    return kept >= (double)elements ? elements : kept < 1 ? 1 : (int64_t)kept;
}

size_t kv_compress_bytes(enum mxrt_kv_compression kind, int64_t elements, int64_t kept) {
    switch (kind) {
    case MXRT_KV_2BIT: return ((size_t)elements + 3) / 4;
    case MXRT_KV_1BIT: return ((size_t)elements + 7) / 8;
    case MXRT_KV_BF16: return 2 * (size_t)elements;
    case MXRT_KV_TOP_K: return 8 * (size_t)kept;
    case MXRT_KV_NONE: break;
    }
    return 4 * (size_t)elements;
}

/* ---- 2bit and 1bit */

static inline unsigned code_2bit(float t, float g, float *residual) {
    float r = *residual + g;
    unsigned up = r >= t, down = r <= -t;
    *residual = up ? r - t : down ? r + t : r;
    return up * 3 + down * 2;
}

static void to_2bit(float t, const float *g, float *r, int64_t n, uint8_t *out) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        unsigned a = code_2bit(t, g[i], &r[i]), b = code_2bit(t, g[i + 1], &r[i + 1]);
        unsigned c = code_2bit(t, g[i + 2], &r[i + 2]), d = code_2bit(t, g[i + 3], &r[i + 3]);
        out[i / 4] = (uint8_t)(a << 6 | b << 4 | c << 2 | d);
    }
    if (i < n) {
        unsigned byte = 0;
        for (int shift = 6; i < n; i++, shift -= 2)
            byte |= code_2bit(t, g[i], &r[i]) << shift;
        out[(n - 1) / 4] = (uint8_t)byte;
    }
}

static void from_2bit(float t, const uint8_t *in, int64_t first, int64_t count, float *out) {
    const float value[4] = {0, 0, -t, t};
    for (int64_t i = 0; i < count; i++)
        out[i] = value[in[(first + i) / 4] >> (6 - 2 * ((first + i) & 3)) & 3];
}

static inline unsigned code_1bit(float t, float g, float *residual) {
    float r = *residual + g;
    unsigned up = r > t;
    *residual = up ? r - 1 : r + 1;
    return up;
}

static void to_1bit(float t, const float *g, float *r, int64_t n, uint8_t *out) {
    for (int64_t i = 0; i < n; i += 8) {
        unsigned byte = 0;
        int64_t end = i + 8 < n ? i + 8 : n;
        for (int64_t k = i; k < end; k++)
            byte |= code_1bit(t, g[k], &r[k]) << (7 - (k - i));
        out[i / 8] = (uint8_t)byte;
    }
}

static void from_1bit(const uint8_t *in, int64_t first, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++)
        out[i] = in[(first + i) / 8] >> (7 - ((first + i) & 7)) & 1 ? 1.0f : -1.0f;
}

/* ---- bf16 */

static void to_bf16(const float *g, float *r, int64_t n, uint16_t *out) {
    enum { BLOCK = 256 };
    float back[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t count = n - at < BLOCK ? n - at : BLOCK;
        for (int64_t i = 0; i < count; i++)
            r[at + i] += g[at + i];
        sum_narrow(MX_BF16, out + at, r + at, count);
        sum_widen(MX_BF16, back, out + at, count);
        for (int64_t i = 0; i < count; i++)
            r[at + i] -= back[i];
    }
}

/* ---- top k */

static inline uint32_t magnitude(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u & 0x7fffffff;
}

/* The k-th largest magnitude (its bits), and how many of those equal to it are among the k first. */
static uint32_t select_kth(const float *r, int64_t n, int64_t k, int64_t *equal) {
    static const int shifts[] = {20, 9, 0}, widths[] = {11, 11, 9};
    uint32_t prefix = 0, known = 0; /* bits of the answer found so far, and where they are */
    for (int pass = 0; pass < 3; pass++) {
        int64_t counts[1 << 11] = {0};
        uint32_t mask = (1u << widths[pass]) - 1;
        for (int64_t i = 0; i < n; i++) {
            uint32_t m = magnitude(r[i]);
            if ((m & known) == prefix)
                counts[m >> shifts[pass] & mask]++;
        }
        uint32_t digit = mask;
        while (counts[digit] < k)
            k -= counts[digit--];
        prefix |= digit << shifts[pass];
        known |= mask << shifts[pass];
    }
    *equal = k;
    return prefix;
}

static void to_top_k(const float *g, float *r, int64_t n, int64_t k, void *out) {
    if (n == 0)
        return;
    for (int64_t i = 0; i < n; i++)
        r[i] += g[i];
    int64_t equal, at = 0;
    uint32_t kth = select_kth(r, n, k, &equal);
    uint32_t *index = out;
    float *value = (float *)out + k;
    for (int64_t i = 0; i < n && at < k; i++) {
        uint32_t m = magnitude(r[i]);
        if (m < kth || (m == kth && equal-- <= 0))
            continue;
        index[at] = (uint32_t)i;
        value[at++] = r[i];
        r[i] = 0;
    }
}

static void from_top_k(const void *in, int64_t kept, int64_t first, int64_t count, float *out) {
    const uint32_t *index = in;
    const float *value = (const float *)in + kept;
    int64_t low = 0, high = kept; /* the first index not before `first` */
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (index[middle] < first)
            low = middle + 1;
        else
            high = middle;
    }
    memset(out, 0, (size_t)count * sizeof *out);
    for (; low < kept && index[low] < first + count; low++)
        out[index[low] - first] = value[low];
}

/* ---- */

void kv_compress(enum mxrt_kv_compression kind, float threshold, const float *gradient, float *residual,
                 int64_t elements, int64_t kept, void *out) {
    switch (kind) {
    case MXRT_KV_2BIT: to_2bit(threshold, gradient, residual, elements, out); break;
    case MXRT_KV_1BIT: to_1bit(threshold, gradient, residual, elements, out); break;
    case MXRT_KV_BF16: to_bf16(gradient, residual, elements, out); break;
    case MXRT_KV_TOP_K: to_top_k(gradient, residual, elements, kept, out); break;
    case MXRT_KV_NONE: memcpy(out, gradient, (size_t)elements * sizeof *gradient); break;
    }
}

void kv_decompress(enum mxrt_kv_compression kind, float threshold, const void *in, int64_t kept, int64_t first,
                   int64_t count, float *out) {
    switch (kind) {
    case MXRT_KV_2BIT: from_2bit(threshold, in, first, count, out); break;
    case MXRT_KV_1BIT: from_1bit(in, first, count, out); break;
    case MXRT_KV_BF16: sum_widen(MX_BF16, out, (const uint16_t *)in + first, count); break;
    case MXRT_KV_TOP_K: from_top_k(in, kept, first, count, out); break;
    case MXRT_KV_NONE: memcpy(out, (const float *)in + first, (size_t)count * sizeof *out); break;
    }
}
