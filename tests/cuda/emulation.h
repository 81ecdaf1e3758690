/* What the emulation's files share: emulation.cpp runs kernels and watches accesses, streams.cpp decides when they run. */
#ifndef EMULATION_H
#define EMULATION_H

#include "cuda_runtime.h"

#include <functional>
#include <mutex>
#include <vector>

namespace emulation {

struct shadow { /* of a byte: who wrote it last, and who read it last in two streams; see identity() */
    uint64_t writer, readers[2];
};

struct memory {
    unsigned char *at;
    size_t bytes;
    shadow *marks;
    unsigned char *written;
};

struct range {
    const unsigned char *from, *to;
};

struct launch {
    const char *kernel;
    int64_t blocks;
    int threads;
    void (*run)(void *);
    std::vector<uint64_t> context; /* the arguments, `bytes` of them */
    size_t bytes;
    std::vector<range> named; /* what the arguments name */
};

extern std::vector<memory> allocations;
extern std::vector<memory> mapped; /* pinned memory of the host that kernels reach, too */
void map_memory(unsigned char *at, size_t bytes);
void unmap_memory(const unsigned char *at);
extern thread_local std::vector<range> named; /* by the arguments of the next launch */
extern bool instrumented;                     /* accesses are seen */
extern char message[400];                     /* of the last failure */

bool within(const memory &m, const void *p);
const char *setting(const char *name); /* of the environment; NULL: none, or empty */
/* All of these: by operation number `number`, which is the one that runs. */
cudaError_t run_kernel(launch &l, uint64_t number);
cudaError_t run_copy(void *to, const void *from, size_t bytes, uint64_t number);

/* streams.cpp: whether an earlier operation is sure to have ended when the one that runs begins; its name. */
bool is_before(uint64_t number);
void finish_all(); /* on the current device */
int device();      /* the current one of this thread */
int device_count();

/* What is moved between devices at once, each side on a stream of its own: a transfer waits for all that was asked for on the streams
 * whose memory it reads, and what follows on those comes behind it. */
struct transfer {
    size_t side;               /* it is done on this one's stream */
    std::vector<size_t> reads; /* sides */
    std::vector<size_t> after; /* transfers, earlier ones */
    std::function<cudaError_t(uint64_t number)> run;
};
void transfer_between(const std::vector<cudaStream_t> &sides, const std::vector<transfer> &transfers);
extern std::recursive_mutex lock;

} // namespace emulation

#endif
