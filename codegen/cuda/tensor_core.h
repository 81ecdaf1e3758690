/* Tensor cores, asynchronous copies and the fast exponential as device functions of generated units: PTX where the GPU has the instruction, elsewhere the same
 * by shuffles and ordinary arithmetic. The emulation runs the latter, so that a tile that is laid out wrongly gives wrong numbers there,
 * too. The layouts are those of the PTX manual: lane l holds, of a tile of 16 rows by 8 columns of sums, rows l / 4 and l / 4 + 8 of
 * columns 2 * (l % 4) and the next.
 *
 * The generator pastes single functions, as out of ir/scalar_math/: a line with the name and what it needs, then the text up to the
 * closing brace in the first column.
 */

/*@ mx_exp2: */
/* 2 to the x, to a few units of the last place; numbers below the smallest normal one are 0. */
static __device__ inline float mx_exp2(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

/*@ mx_pack_bf16: mx_bf16_from_f32 */
/* Two numbers in one register, the first in the low half. */
static __device__ inline uint32_t mx_pack_bf16(float low, float high) {
#if __CUDA_ARCH__ >= 800
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return (uint32_t)mx_bf16_from_f32(low) | (uint32_t)mx_bf16_from_f32(high) << 16;
#endif
}

/*@ mx_pack_f16: mx_f16_from_f32 */
static __device__ inline uint32_t mx_pack_f16(float low, float high) {
#if __CUDA_ARCH__ >= 800
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return (uint32_t)mx_f16_from_f32(low) | (uint32_t)mx_f16_from_f32(high) << 16;
#endif
}

/*@ mx_tf32_from_f32: mx_bits_f32 */
/* Rounded to 10 bits of fraction, ties away from zero; infinities and nan stay what they are. */
static __device__ inline uint32_t mx_tf32_from_f32(float x) {
    const uint32_t bits = mx_bits_f32(x);
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}

/*@ mx_ldmatrix: */
/* Four tiles of 8 by 8 halves: lanes 8 i to 8 i + 7 give the rows of tile i, and every lane gets of each tile row l / 4, columns
 * 2 * (l % 4) and the next. */
static __device__ inline void mx_ldmatrix(uint32_t *to, const uint16_t *row) {
#ifdef __CUDA_ARCH__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
#else
    const int lane = (int)(threadIdx.x % 32);
    for (int i = 0; i < 4; i++) {
        const uint16_t *from =
            (const uint16_t *)__shfl_sync(0xffffffffu, (uintptr_t)row, 8 * i + lane / 4) + lane % 4 * 2;
        to[i] = (uint32_t)from[0] | (uint32_t)from[1] << 16;
    }
#endif
}

/*@ mx_ldmatrix_trans: */
/* The same of the transposed tiles: rows 2 * (l % 4) and the next, column l / 4. */
static __device__ inline void mx_ldmatrix_trans(uint32_t *to, const uint16_t *row) {
#ifdef __CUDA_ARCH__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
#else
    const int lane = (int)(threadIdx.x % 32);
    for (int i = 0; i < 4; i++) {
        to[i] = 0;
        for (int k = 0; k < 2; k++) {
            const uint16_t *from = (const uint16_t *)__shfl_sync(0xffffffffu, (uintptr_t)row, 8 * i + lane % 4 * 2 + k);
            to[i] |= (uint32_t)from[lane / 4] << 16 * k;
        }
    }
#endif
}

/*@ mx_mma_plain: */
/* sums += a b for 16 rows, 8 columns and a depth of 16 pairs of words' halves, which `half` takes apart; the words of a row or column
 * come from the lanes that hold them. */
template <class F>
static __device__ inline void mx_mma_plain(float *sums, const uint32_t *a, const uint32_t *b, F half) {
    const int lane = (int)(threadIdx.x % 32);
#pragma unroll 1
    for (int quad = 0; quad < 4;
         quad++) /* pairs along the depth: this lane of four has them, in its first and second word */
        for (int word = 0; word < 2; word++) {
            const uint32_t top = __shfl_sync(0xffffffffu, a[2 * word], lane / 4 * 4 + quad),
                           bottom = __shfl_sync(0xffffffffu, a[2 * word + 1], lane / 4 * 4 + quad);
            for (int c = 0; c < 2; c++) {
                const uint32_t column = __shfl_sync(0xffffffffu, b[word], (lane % 4 * 2 + c) * 4 + quad);
                for (int h = 0; h < 2; h++) {
                    sums[c] += half(top, h) * half(column, h);
                    sums[2 + c] += half(bottom, h) * half(column, h);
                }
            }
        }
}

/*@ mx_mma_bf16_call: mx_mma_plain mx_f32_from_bf16 */
/* For GPUs without the instruction: a call, whose arguments are registers, since the many copies would take minutes to compile. */
struct mx_mma_sums {
    float at[4];
};
[[maybe_unused]] static __device__
#ifdef __CUDA_ARCH__
    __noinline__
#endif
    struct mx_mma_sums
    mx_mma_bf16_call(struct mx_mma_sums s, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                     uint32_t b1) {
    const uint32_t a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    mx_mma_plain(s.at, a, b, [](uint32_t pair, int h) { return mx_f32_from_bf16((uint16_t)(pair >> 16 * h)); });
    return s;
}

/*@ mx_mma_bf16: mx_mma_bf16_call */
static __device__ inline void mx_mma_bf16(float *sums, const uint32_t *a, const uint32_t *b) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    struct mx_mma_sums s = {{sums[0], sums[1], sums[2], sums[3]}};
    s = mx_mma_bf16_call(s, a[0], a[1], a[2], a[3], b[0], b[1]);
    for (int i = 0; i < 4; i++)
        sums[i] = s.at[i];
#endif
}

/*@ mx_mma_f16: mx_mma_plain mx_f32_from_f16 */
static __device__ inline void mx_mma_f16(float *sums, const uint32_t *a, const uint32_t *b) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif __CUDA_ARCH__ >= 750
    for (int k = 0; k < 2; k++)
        asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
#else
    mx_mma_plain(sums, a, b, [](uint32_t pair, int h) { return mx_f32_from_f16((uint16_t)(pair >> 16 * h)); });
#endif
}

/*@ mx_mma_tf32: mx_from_bits_f32 */
/* A depth of 8 words of 19 bits. */
static __device__ inline void mx_mma_tf32(float *sums, const uint32_t *a, const uint32_t *b) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    const int lane = (int)(threadIdx.x % 32);
#pragma unroll 1
    for (int quad = 0; quad < 4; quad++)
        for (int word = 0; word < 2; word++) {
            const float top = mx_from_bits_f32(__shfl_sync(0xffffffffu, a[2 * word], lane / 4 * 4 + quad)),
                        bottom = mx_from_bits_f32(__shfl_sync(0xffffffffu, a[2 * word + 1], lane / 4 * 4 + quad));
            for (int c = 0; c < 2; c++) {
                const float column = mx_from_bits_f32(__shfl_sync(0xffffffffu, b[word], (lane % 4 * 2 + c) * 4 + quad));
                sums[c] += top * column;
                sums[2 + c] += bottom * column;
            }
        }
#endif
}

/*@ mx_copy: */
/* 16 bytes into shared memory, of which the first `valid`, 16 or 0, come from global memory and the rest are zeros. They are there after
 * mx_copy_wait. */
static __device__ inline void mx_copy(int valid, void *to, const void *from) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(valid)
                 : "memory");
#elif defined(MX_COPY)
    MX_COPY(valid, to, from);
#else
    uint4 bytes = {0, 0, 0, 0};
    if (valid)
        bytes = *(const uint4 *)from;
    *(uint4 *)to = bytes;
#endif
}

/*@ mx_copy_wait: */
/* For all copies that this thread began. */
static __device__ inline void mx_copy_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#elif defined(MX_COPY)
    MX_COPY_WAIT();
#endif
}
