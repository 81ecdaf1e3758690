/* Random bits.
 *
 * Philox4x32-10 (Salmon et al., 2011). Element i of the random tensor that the instance's call number `call` (from 0)
 * draws at `place` (the operation's number in the program) within loops whose counters are l0 (outermost), l1, … is
 *
 *     h    = mx_mix(place); for each counter l: h = mx_mix(h ^ mx_mix(l + 1))       mx_stream, mx_stream_loop
 *     h    = mx_mix(h ^ mx_mix(call ^ 0x9e3779b97f4a7c15))                          mx_stream_call
 *     key  = (low half of seed, high half of seed)
 *     u32: word i mod 4 of philox(key, counter = (low i/4, high i/4, low h, high h))                 mx_random_u32
 *     u64: words 2(i mod 2) (low) and 2(i mod 2) + 1 (high) of philox(key, …) with counter
 *          (low i/2, high i/2, low h, high h ^ 0x80000000)                               mx_random_u64
 */
#ifndef MX_SCALAR_MATH_RANDOM_H
#define MX_SCALAR_MATH_RANDOM_H

#include <stdint.h>

/*@ mx_mix: */
static inline uint64_t mx_mix(uint64_t x) /* splitmix64's finalizer */
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/*@ mx_stream: mx_mix */
static inline uint64_t mx_stream(uint64_t place) {
    return mx_mix(place);
}

/*@ mx_stream_loop: mx_mix */
static inline uint64_t mx_stream_loop(uint64_t h, int64_t counter) {
    return mx_mix(h ^ mx_mix((uint64_t)counter + 1U));
}

/*@ mx_stream_call: mx_mix */
static inline uint64_t mx_stream_call(uint64_t h, uint64_t call) {
    return mx_mix(h ^ mx_mix(call ^ 0x9e3779b97f4a7c15ULL));
}

/*@ mx_philox: */
static inline void mx_philox(uint32_t key0, uint32_t key1, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3,
                             uint32_t out[4]) {
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)c0 * 0xd2511f53U, b = (uint64_t)c2 * 0xcd9e8d57U;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ key0;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ key1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        key0 += 0x9e3779b9U;
        key1 += 0xbb67ae85U;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/*@ mx_random_u32: mx_philox */
/* Words 4 block .. 4 block + 3 of the stream h. */
static inline void mx_random_u32(uint64_t seed, uint64_t h, uint64_t block, uint32_t out[4]) {
    mx_philox((uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)block, (uint32_t)(block >> 32), (uint32_t)h,
              (uint32_t)(h >> 32), out);
}

/*@ mx_random_u64: mx_philox */
/* Elements 2 block, 2 block + 1. */
static inline void mx_random_u64(uint64_t seed, uint64_t h, uint64_t block, uint64_t out[2]) {
    uint32_t w[4];
    mx_philox((uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)block, (uint32_t)(block >> 32), (uint32_t)h,
              (uint32_t)(h >> 32) ^ 0x80000000U, w);
    out[0] = (uint64_t)w[1] << 32 | w[0];
    out[1] = (uint64_t)w[3] << 32 | w[2];
}

#endif
