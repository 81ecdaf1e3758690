/* Kernels with one mistake each, for the emulation to find; run as `wrong NAME`, which prints what it says. The host waits for each. */
#define MX_CUDA_SYNC
#include <cuda_runtime.h>
#include <stdio.h>

enum { THREADS = 64 };

static __global__ void right(const float *x, float *y) {
    __shared__ float part[THREADS];
    part[threadIdx.x] = x[blockIdx.x * THREADS + threadIdx.x];
    __syncthreads();
    float sum = part[THREADS - 1 - threadIdx.x];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    y[blockIdx.x * THREADS + threadIdx.x] = sum;
}

static __global__ void outside(const float *x, float *y) {
    y[threadIdx.x] = x[threadIdx.x + 2 * THREADS]; /* x is named with 2 * THREADS elements */
}

static __global__ void outside_write(const float *x, float *y) {
    y[threadIdx.x * 3] = x[0];
}

static __global__ void uninitialised(const float *x, float *y) {
    y[threadIdx.x] = y[threadIdx.x] + x[0];
}

static __global__ void uninitialised_shared(const float *x, float *y) {
    __shared__ float part[THREADS];
    if (threadIdx.x > 0)
        part[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = part[0];
}

static __global__ void no_barrier(const float *x, float *y) {
    __shared__ float part[THREADS];
    part[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = part[threadIdx.x ? threadIdx.x - 1 : 0];
}

static __global__ void no_second_barrier(const float *x, float *y) {
    __shared__ float part[THREADS];
    for (int i = 0; i < 2; i++) {
        part[threadIdx.x] = x[threadIdx.x + i];
        __syncthreads();
        y[threadIdx.x] = part[THREADS - 1 - threadIdx.x];
    }
}

static __global__ void same_place(const float *x, float *y) {
    y[threadIdx.x / 2] = x[threadIdx.x];
}

static __global__ void between_blocks(const float *x, float *y) {
    y[threadIdx.x] = x[threadIdx.x];
}

static __global__ void divergent(const float *x, float *y) {
    if (threadIdx.x < THREADS / 2)
        __syncthreads();
    y[threadIdx.x] = x[threadIdx.x];
}

static __global__ void half_a_warp(const float *x, float *y) {
    float v = x[threadIdx.x];
    if (threadIdx.x % 2)
        v = __shfl_xor_sync(0xffffffffu, v, 1);
    y[threadIdx.x] = v;
}

static __global__ void copy_not_awaited(const float *x, float *y) {
    __shared__ __align__(16) float part[4 * THREADS];
    MX_COPY(16, part + 4 * threadIdx.x, x);
    __syncthreads();
    y[threadIdx.x] = part[4 * threadIdx.x];
    MX_COPY_WAIT();
}

static __global__ void copy_no_barrier(const float *x, float *y) {
    __shared__ __align__(16) float part[4 * THREADS];
    MX_COPY(16, part + 4 * threadIdx.x, x);
    MX_COPY_WAIT();
    y[threadIdx.x] = part[4 * (THREADS - 1 - threadIdx.x) + 3];
}

static __global__ void copy_unfinished(const float *x, float *y) {
    __shared__ __align__(16) float part[4 * THREADS];
    y[threadIdx.x] = x[threadIdx.x];
    MX_COPY(16, part + 4 * threadIdx.x, x);
}

static __global__ void copy_unaligned(const float *x, float *y) {
    __shared__ __align__(16) float part[4 * THREADS];
    MX_COPY(16, part + 4 * threadIdx.x, x + 1);
    MX_COPY_WAIT();
    y[threadIdx.x] = part[4 * threadIdx.x];
}

float host[THREADS];
static __global__ void host_memory(const float *x, float *y) {
    host[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = 0;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*kernel)(const float *, float *);
        int blocks;
    } all[] = {
        {"right", right, 2},
        {"outside", outside, 1},
        {"outside_write", outside_write, 1},
        {"uninitialised", uninitialised, 1},
        {"uninitialised_shared", uninitialised_shared, 1},
        {"no_barrier", no_barrier, 1},
        {"no_second_barrier", no_second_barrier, 1},
        {"same_place", same_place, 1},
        {"between_blocks", between_blocks, 2},
        {"divergent", divergent, 1},
        {"half_a_warp", half_a_warp, 1},
        {"host_memory", host_memory, 1},
        {"copy_not_awaited", copy_not_awaited, 1},
        {"copy_no_barrier", copy_no_barrier, 1},
        {"copy_unfinished", copy_unfinished, 1},
        {"copy_unaligned", copy_unaligned, 1},
    };
    static float x[2 * THREADS];
    void *memory;
    cudaStream_t stream;
    for (int i = 0; i < 2 * THREADS; i++)
        x[i] = (float)i;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaMalloc(&memory, 16 * sizeof x);
    float *device = (float *)memory, *out = device + 8 * THREADS;
    cudaMemcpyAsync(device, x, sizeof x, cudaMemcpyDefault, stream);
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        if (argc < 2 || strcmp(argv[1], all[k].name))
            continue;
        for (int again = 0; again < 2; again++) { /* the emulation goes on after a failure */
            void (*kernel)(const float *, float *) = all[k].kernel;
            cudaError_t e = MX_LAUNCH(kernel, all[k].blocks, THREADS, stream, (const float *)MX_AT(device, sizeof x), (float *)MX_AT(out, sizeof x));
            puts(e == cudaSuccess ? "right" : cudaGetErrorString(e));
        }
        if (k == 0) {
            static float y[2 * THREADS];
            cudaMemcpyAsync(y, out, sizeof y, cudaMemcpyDefault, stream);
            cudaStreamSynchronize(stream);
            printf("%g %g\n", y[0], y[2 * THREADS - 1]);
        }
        return 0;
    }
    return 2;
}
