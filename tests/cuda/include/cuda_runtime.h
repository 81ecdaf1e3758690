/* The part of CUDA that generated units use, for a C++ compiler of the host: emulation.cpp runs the kernels, a thread at a time, and
 * checks every access (see there). Found before the real header by -I; a unit needs no other change. */
#ifndef CUDA_EMULATION_H
#define CUDA_EMULATION_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__   static __attribute__((section("cuda_shared")))

struct emulated_index {
    unsigned x, y, z;
};
extern emulated_index threadIdx, blockIdx, blockDim, gridDim;

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorInvalidDeviceFunction = 98,
    cudaErrorNoDevice = 100,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorLaunchFailure = 719,
};
enum cudaMemcpyKind { cudaMemcpyDefault = 4 };
enum { cudaStreamNonBlocking = 1 };
typedef struct emulated_stream *cudaStream_t;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaMalloc(void **at, size_t bytes);
cudaError_t cudaFree(void *at);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaGetLastError(void);
const char *cudaGetErrorString(cudaError_t e);

/* Data of the unit: the symbol is its address here. */
template <class T>
cudaError_t cudaMemcpyFromSymbolAsync(void *to, const T &symbol, size_t bytes, size_t offset, cudaMemcpyKind,
                                      cudaStream_t) {
    memcpy(to, (const unsigned char *)&symbol + offset, bytes);
    return cudaSuccess;
}
template <class T> cudaError_t cudaMemcpyFromSymbol(void *to, const T &symbol, size_t bytes) {
    memcpy(to, &symbol, bytes);
    return cudaSuccess;
}

void emulated_barrier(int line);
uint64_t emulated_shuffle(uint64_t bits, int distance, int line);
#define __syncthreads() emulated_barrier(__LINE__)
template <class T> static T emulated_shuffle_of(T x, int distance, int where) {
    uint64_t bits = 0;
    memcpy(&bits, &x, sizeof x);
    bits = emulated_shuffle(bits, distance, where);
    memcpy(&x, &bits, sizeof x);
    return x;
}
#define __shfl_xor_sync(mask, x, distance) emulated_shuffle_of((x), (distance), __LINE__)
/* From a lane by its number, which may differ between those that ask. */
#define __shfl_sync(mask, x, lane) emulated_shuffle_of((x), ~(int)(lane), __LINE__)

/* cp.async: the bytes move when the thread waits. */
void emulated_copy(int valid, void *to, const void *from);
void emulated_copy_wait(void);
#define MX_COPY(valid, to, from) emulated_copy((valid), (to), (from))
#define MX_COPY_WAIT()           emulated_copy_wait()

/* What a launch may touch is what its arguments name. */
void *emulated_memory(const void *address, int64_t bytes);
#define MX_AT(address, bytes) emulated_memory((address), (int64_t)(bytes))
/* What a function begins with says nothing: whoever reads it before writing is wrong. */
void emulated_forget(const void *address, int64_t bytes);
#define MX_FRESH(address, bytes) emulated_forget((address), (int64_t)(bytes))

/* context: `bytes` of arguments, which kernels read */
cudaError_t emulated_launch(const char *kernel, int64_t blocks, int threads, void (*run)(void *), void *context,
                            size_t bytes);
template <class... P, class... A>
static cudaError_t emulated_call(const char *name, int64_t blocks, int threads, void (*kernel)(P...), A... args) {
    auto call = [=] { kernel(args...); };
    return emulated_launch(
        name, blocks, threads, [](void *c) { (*static_cast<decltype(call) *>(c))(); }, &call, sizeof call);
}
#define MX_LAUNCH(kernel, blocks, threads, stream, ...) \
    ((void)(stream), emulated_call(#kernel, (int64_t)(blocks), (threads), kernel, __VA_ARGS__))

#endif
