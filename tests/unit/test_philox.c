/* The two texts of Philox4x32-10, ir/scalar_math/random.h and runtime/philox.h: the known answers of Random123, and the same bits. */
#include <criterion/criterion.h>

#include "ir/scalar_math/random.h"
#include "runtime/philox.h"

static const struct {
    uint32_t counter[4], key[2], want[4];
} answers[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

Test(philox, known_answers) {
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        const uint32_t *c = answers[i].counter, *k = answers[i].key;
        uint32_t out[4];
        mx_philox(k[0], k[1], c[0], c[1], c[2], c[3], out);
        for (int w = 0; w < 4; w++)
            cr_assert_eq(out[w], answers[i].want[w], "compiler, answer %zu, word %d: %08x", i, w, out[w]);
        mxrt_philox((uint64_t)k[1] << 32 | k[0], (uint64_t)c[3] << 32 | c[2], (uint64_t)c[1] << 32 | c[0], out);
        for (int w = 0; w < 4; w++)
            cr_assert_eq(out[w], answers[i].want[w], "runtime, answer %zu, word %d: %08x", i, w, out[w]);
    }
}

Test(philox, same_bits) {
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t seed = i * 0x9e3779b97f4a7c15u, stream = mxrt_random_mix(seed, i), block = mxrt_random_mix(stream, 7);
        uint32_t a[4], b[4];
        mx_philox((uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)block, (uint32_t)(block >> 32), (uint32_t)stream,
                  (uint32_t)(stream >> 32), a);
        mxrt_philox(seed, stream, block, b);
        cr_assert_arr_eq(a, b, sizeof a);
    }
}
