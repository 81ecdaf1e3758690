/* Counter-based random bits: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3, 2011).
 *
 * Element i of a draw is a pure function of the seed (the key), of a stream (the upper half of the counter, mixed by splitmix64's
 * finalizer) and of i (the lower half). The compiler's own text of it is in ir/scalar_math/random.h, of which this folder knows nothing;
 * tests/unit/test_philox.c holds both to the paper's numbers and to each other. */
#ifndef MXRT_PHILOX_H
#define MXRT_PHILOX_H

#include <stdint.h>

static inline uint64_t mxrt_random_mix(uint64_t stream, uint64_t value) {
    uint64_t z = stream + 0x9e3779b97f4a7c15u * (value + 1);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The stream of a purpose (`place`) at a time. */
static inline uint64_t mxrt_random_stream(uint64_t time, uint64_t place) {
    return mxrt_random_mix(mxrt_random_mix(0, time), place);
}

static inline void mxrt_philox(uint64_t seed, uint64_t stream, uint64_t block, uint32_t out[4]) {
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32), c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static inline uint64_t mxrt_random_u64(uint64_t seed, uint64_t stream, uint64_t i) {
    uint32_t w[4];
    mxrt_philox(seed, stream, i >> 1, w);
    return (i & 1) ? (uint64_t)w[3] << 32 | w[2] : (uint64_t)w[1] << 32 | w[0];
}

#endif
