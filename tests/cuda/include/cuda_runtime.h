/* The part of CUDA that generated units use, for a C++ compiler of the host: emulation.cpp runs the kernels, a thread at a time, and
 * checks every access (see there); streams.cpp has streams, events and graphs. Found before the real header by -I; a unit needs no other change. */
#ifndef CUDA_EMULATION_H
#define CUDA_EMULATION_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <type_traits>

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
    cudaErrorNotReady = 600,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorStreamCaptureUnjoined = 904,
    cudaErrorStreamCaptureIsolation = 905,
};
enum cudaMemcpyKind { cudaMemcpyDefault = 4 };
enum {
    cudaStreamNonBlocking = 1,
    cudaEventDisableTiming = 2,
    cudaHostAllocDefault = 0,
    cudaHostAllocMapped = 2,
    cudaHostRegisterPortable = 1
};
enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
};
enum cudaMemoryType {
    cudaMemoryTypeUnregistered,
    cudaMemoryTypeHost,
    cudaMemoryTypeDevice,
    cudaMemoryTypeManaged
};
struct cudaPointerAttributes {
    cudaMemoryType type;
    int device;
    void *devicePointer, *hostPointer;
};
typedef struct emulated_stream *cudaStream_t;
typedef struct emulated_event *cudaEvent_t;
typedef struct emulated_graph *cudaGraph_t;
typedef struct emulated_exec *cudaGraphExec_t;
typedef struct emulated_node *cudaGraphNode_t;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaMalloc(void **at, size_t bytes);
cudaError_t cudaFree(void *at);
cudaError_t cudaHostAlloc(void **at, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *at);
cudaError_t cudaHostRegister(void *at, size_t bytes, unsigned flags);
cudaError_t cudaHostUnregister(void *at);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaMemGetInfo(size_t *available, size_t *total);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *address);
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

/* context: `bytes` of arguments, which kernels read; they are copied */
cudaError_t emulated_launch(const char *kernel, int64_t blocks, int threads, cudaStream_t stream, void (*run)(void *),
                            const void *context, size_t bytes);
template <class... P, class... A>
static cudaError_t emulated_call(const char *name, int64_t blocks, int threads, cudaStream_t stream,
                                 void (*kernel)(P...), A... args) {
    auto call = [=] { kernel(args...); };
    static_assert(std::is_trivially_copyable<decltype(call)>::value, "arguments of kernels are plain data");
    return emulated_launch(
        name, blocks, threads, stream, [](void *c) { (*static_cast<decltype(call) *>(c))(); }, &call, sizeof call);
}
#ifdef MX_CUDA_SYNC
#define EMULATED_WAIT(stream) cudaStreamSynchronize(stream)
#else
#define EMULATED_WAIT(stream) cudaSuccess
#endif
#define MX_LAUNCH(kernel, blocks, threads, stream, ...) \
    emulated_launched(emulated_call(#kernel, (int64_t)(blocks), (threads), (stream), kernel, __VA_ARGS__), (stream))
static inline cudaError_t emulated_launched(cudaError_t e, cudaStream_t stream) {
    (void)stream;
    const cudaError_t earlier = cudaGetLastError(); /* as MX_LAUNCHED asks, it may be of a call before */
    return e != cudaSuccess ? e : earlier != cudaSuccess ? earlier : EMULATED_WAIT(stream);
}

#endif
