/* What the emulated libraries share: elements of their types, and errors on request. A call is a kernel of one thread, so the emulation
 * checks its accesses, its place among the streams, and that it runs from a graph.
 *
 * From the environment: EMULATED_LIBRARY_FAILURE=NAME, what the function of that name gives is an error. */
#ifndef EMULATED_LIBRARY_H
#define EMULATED_LIBRARY_H

#include <cuda_runtime.h>
#include <stdlib.h>

enum emulated_type { EMULATED_F32 = 0, EMULATED_F64 = 1, EMULATED_F16 = 2, EMULATED_BF16 = 14 };

static inline bool emulated_library_fails(const char *function) {
    const char *name = getenv("EMULATED_LIBRARY_FAILURE");
    return name && strcmp(name, function) == 0;
}

/* A part of a workspace is used. */
static inline void emulated_work(void *workspace, uint64_t bytes) {
    for (uint64_t i = 0; i < bytes; i += 1 << 18)
        ((unsigned char *)workspace)[i] = 0xee;
}

static inline double emulated_element(const void *p, int type, int64_t i) {
    uint32_t bits;
    float f;
    switch (type) {
    case EMULATED_F32: return ((const float *)p)[i];
    case EMULATED_F64: return ((const double *)p)[i];
    case EMULATED_BF16:
        bits = (uint32_t)((const uint16_t *)p)[i] << 16;
        memcpy(&f, &bits, 4);
        return f;
    default: {
        uint16_t h = ((const uint16_t *)p)[i];
        int exponent = h >> 10 & 31, mantissa = h & 1023;
        double v = exponent == 31 ? (mantissa ? NAN : INFINITY) : exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
        return h >> 15 ? -v : v;
    }
    }
}
static inline void emulated_set(void *p, int type, int64_t i, double v) {
    if (type == EMULATED_F32)
        ((float *)p)[i] = (float)v;
    else if (type == EMULATED_F64)
        ((double *)p)[i] = v;
    else if (type == EMULATED_BF16) {
        float f = (float)v;
        uint32_t bits;
        memcpy(&bits, &f, 4);
        ((uint16_t *)p)[i] = (uint16_t)(f != f ? bits >> 16 | 64 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    } else {
        uint16_t sign = signbit(v) ? 0x8000 : 0;
        double m = fabs(v);
        int e = m > 0 ? ilogb(m) : -15;
        uint16_t bits = (uint16_t)(m != m ? 0x7e00 : m >= 65520 ? 0x7c00 : e < -14 ? (int)nearbyint(ldexp(m, 24)) : ((e + 15) << 10) + (int)nearbyint(ldexp(m, 10 - e)) - 1024);
        ((uint16_t *)p)[i] = (uint16_t)(sign | bits);
    }
}

#endif
