/* Runs kernels of generated CUDA units on the host and checks what they do.
 *
 * A block's threads are fibers. A thread runs until it ends or waits: at a barrier for all threads of its block, at a shuffle for the
 * lanes of its warp. Threads that never wait share one fiber, so a kernel without barriers costs a call a thread.
 *
 * The unit is compiled with -fsanitize=thread but linked without that library: the compiler puts a call of __tsan_read4 and the
 * like before every access, and those functions are here. Each byte of device and shared memory has a shadow: whether it was ever
 * written, who wrote it last and who read it last (launch, block, number of barriers passed, thread). An access is wrong
 *
 *   outside of what the launch's arguments name (MX_AT states the size of each), or in memory of the host
 *   to bytes that were never written, or not since the function began (MX_FRESH), or, in shared memory, in this block
 *   in a race: two threads of a block between the same barriers, or of two blocks, or of two launches or copies that no stream and no
 *     event orders, one of them writing
 *   from host code, to memory of the device
 *
 * The first wrong access ends the kernel; it fails with a message that names it, which the unit reports as it would a failed launch on a
 * GPU. Overlapping accesses of different sizes race by their first bytes only. When a kernel runs is streams.cpp's matter.
 *
 * From the environment: EMULATED_MEMORY, bytes that can be allocated; EMULATED_DEVICE=none; EMULATED_REVERSED=1, threads and blocks run
 * in the opposite order, which must change nothing; what streams.cpp reads.
 */
#include "emulation.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

emulated_index threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

static std::vector<memory> roomy() { /* a thread may look while another one adds */
    std::vector<memory> v;
    v.reserve(4096);
    return v;
}

std::vector<memory> allocations = roomy(), mapped;
thread_local std::vector<range> named;
bool instrumented;
char message[400];

bool within(const memory &m, const void *p) {
    return (const unsigned char *)p >= m.at && (const unsigned char *)p < m.at + m.bytes;
}

const char *setting(const char *name) {
    const char *s = getenv(name);
    return s && *s ? s : NULL;
}

} // namespace emulation

namespace {

enum { STACK = 128 << 10, MOST_THREADS = 1024, WARP = 32 };

using emulation::memory;
using emulation::range;
using emulation::shadow;
using emulation::within;

struct fiber {
    ucontext_t context;
    jmp_buf jump;
    bool started;
    unsigned char *stack;
    int thread; /* that it holds while it waits */
};

enum state { READY, AT_BARRIER, AT_SHUFFLE, DONE };

memory shared_memory;
std::vector<range> reachable; /* by the kernel that runs */
size_t last_range;

std::vector<fiber *> idle;
fiber *of_thread[MOST_THREADS], *current;
state states[MOST_THREADS];
int places[MOST_THREADS]; /* lines of the unit */
uint64_t values[MOST_THREADS];
int distances[MOST_THREADS]; /* below 0: ~ the number of the lane that is asked */
struct copy {
    unsigned char *to;
    const unsigned char *from;
    int valid;
};
std::vector<copy> copies[MOST_THREADS]; /* begun and not waited for */
jmp_buf scheduler;
ucontext_t outside;

const char *kernel_name;
void (*kernel_run)(void *);
void *kernel_context;
size_t kernel_context_bytes;
thread_local bool in_kernel;
bool reversed;
int next_thread, thread_count;
uint64_t number, epoch; /* of the operation; barriers passed */
size_t allocated;

extern "C" {
extern unsigned char __start_cuda_shared[] __attribute__((weak));
extern unsigned char __stop_cuda_shared[] __attribute__((weak));
}

/* ---- wrong accesses ------------------------------------------------------------------------------------------------------- */

[[noreturn]] void leave_kernel() {
    _longjmp(scheduler, 2);
}

void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
void wrong(const char *format, ...) {
    va_list args;
    char what[240];
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (!in_kernel) {
        fprintf(stderr, "emulation: host code %s\n", what);
        abort();
    }
    snprintf(emulation::message, sizeof emulation::message, "emulation: %s, block %u thread %u: %s", kernel_name, blockIdx.x, threadIdx.x, what);
    leave_kernel();
}

uint64_t identity() {
    return number << 40 | (uint64_t)(blockIdx.x & 0xffff) << 24 | (epoch & 0x3fff) << 10 | (threadIdx.x & 1023);
}

/* Whether an access by `a`, which came first here, and one by `b`, which runs, have no order. */
bool unordered(uint64_t a, uint64_t b, bool is_shared) {
    if (a == 0)
        return false;
    if (a >> 40 != b >> 40)
        return !is_shared && !emulation::is_before(a >> 40);
    if ((a ^ b) >> 24 & 0xffff)
        return !is_shared; /* each block has its own */
    return ((a ^ b) >> 10 & 0x3fff) == 0 && (a & 1023) != (b & 1023);
}

const char *other(uint64_t a, uint64_t b) {
    return a >> 40 != b >> 40 ? "an operation without an event between" : "another thread";
}

/* Two readers are kept that have no order with each other: a write must come after both. */
void note_reader(shadow &s, uint64_t me, bool is_shared) {
    bool first = unordered(s.readers[0], me, is_shared), second = unordered(s.readers[1], me, is_shared);
    bool same = s.readers[0] >> 40 == me >> 40;
    if (!first || (second && same))
        s.readers[0] = me;
    else if (!second)
        s.readers[1] = me;
}

void access(memory &m, const unsigned char *p, size_t bytes, bool write, bool is_shared) {
    size_t at = (size_t)(p - m.at);
    uint64_t me = identity();
    shadow &s = m.marks[at];
    const char *where = is_shared ? "shared memory" : "device memory";
    if (write) {
        if (unordered(s.writer, me, is_shared))
            wrong("writes %s +%zu, which %s writes, too", where, at, other(s.writer, me));
        for (uint64_t reader : s.readers)
            if (unordered(reader, me, is_shared))
                wrong("writes %s +%zu, which %s reads%s", where, at, other(reader, me), reader >> 40 == me >> 40 ? " without a barrier between" : "");
        s.writer = me;
        memset(m.written + at, 1, bytes);
        return;
    }
    for (size_t i = 0; i < bytes; i++)
        if (!m.written[at + i])
            wrong("reads %zu bytes of %s +%zu, which nothing wrote", bytes, where, at);
    if (unordered(s.writer, me, is_shared))
        wrong("reads %s +%zu, which %s writes%s", where, at, other(s.writer, me), s.writer >> 40 == me >> 40 ? " without a barrier between" : "");
    note_reader(s, me, is_shared);
}

void touch(const void *address, size_t bytes, bool write) {
    const unsigned char *p = (const unsigned char *)address;
    if (in_kernel && current && p >= current->stack && p < current->stack + STACK)
        return;
    for (memory &m : emulation::allocations) {
        if (!within(m, p))
            continue;
        if (!in_kernel)
            wrong("%s memory of the device", write ? "writes" : "reads");
        for (size_t k = 0; k < reachable.size(); k++) {
            const range &r = reachable[(last_range + k) % reachable.size()];
            if (p >= r.from && p + bytes <= r.to) {
                last_range = (last_range + k) % reachable.size();
                access(m, p, bytes, write, false);
                return;
            }
        }
        wrong("%s %zu bytes of device memory +%zu, outside of what its arguments name", write ? "writes" : "reads", bytes,
              (size_t)(p - m.at));
        return;
    }
    if (!in_kernel)
        return;
    for (memory &m : emulation::mapped)
        if (within(m, p)) {
            bool is_named = false;
            for (const range &r : reachable)
                is_named |= p >= r.from && p + bytes <= r.to;
            if (!is_named)
                wrong("%s %zu bytes of pinned memory +%zu, outside of what its arguments name", write ? "writes" : "reads", bytes, (size_t)(p - m.at));
            access(m, p, bytes, write, false);
            return;
        }
    if (within(shared_memory, p)) {
        access(shared_memory, p, bytes, write, true);
        return;
    }
    if (!write && p >= (unsigned char *)kernel_context && p < (unsigned char *)kernel_context + kernel_context_bytes)
        return;
    Dl_info info;
    if (write || !dladdr(address, &info)) /* constants of the unit are in its image */
        wrong("%s memory of the host", write ? "writes" : "reads");
}

/* ---- fibers --------------------------------------------------------------------------------------------------------------- */

void start_thread(int thread) {
    threadIdx.x = (unsigned)(reversed ? thread_count - 1 - thread : thread);
    of_thread[threadIdx.x] = current;
    current->thread = (int)threadIdx.x;
}

void fiber_body() {
    for (;;) {
        while (next_thread < thread_count) {
            start_thread(next_thread++);
            kernel_run(kernel_context);
            if (!copies[current->thread].empty())
                wrong("ends before a copy that it began");
            states[current->thread] = DONE;
        }
        /* Back to those that wait for work. */
        if (_setjmp(current->jump) == 0) {
            idle.push_back(current);
            _longjmp(scheduler, 1);
        }
    }
}

fiber *take_fiber() {
    fiber *f;
    if (!idle.empty()) {
        f = idle.back();
        idle.pop_back();
        return f;
    }
    f = new fiber();
    f->stack = (unsigned char *)mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK;
    f->context.uc_link = NULL;
    makecontext(&f->context, fiber_body, 0);
    return f;
}

/* Runs a fiber until it waits or has no more to do. False: the kernel was left. */
bool resume(fiber *f) {
    current = f;
    int came = _setjmp(scheduler);
    if (came == 0) {
        if (f->started)
            _longjmp(f->jump, 1);
        f->started = true;
        swapcontext(&outside, &f->context);
    }
    current = NULL;
    return came != 2;
}

void wait_as(state s, int where) {
    int me = current->thread;
    states[me] = s;
    places[me] = where;
    if (_setjmp(current->jump) == 0)
        _longjmp(scheduler, 1);
    threadIdx.x = (unsigned)me;
}

/* All threads of a warp at one shuffle: each gets its partner's value. */
bool exchange(int first) {
    int end = first + WARP < thread_count ? first + WARP : thread_count;
    uint64_t got[WARP];
    for (int t = first; t < end; t++)
        if (states[t] != AT_SHUFFLE || places[t] != places[first] ||
            (distances[t] != distances[first] && (distances[t] >= 0 || distances[first] >= 0)))
            return false;
    for (int t = first; t < end; t++) {
        int partner = distances[t] < 0 ? first + ~distances[t] % WARP : t ^ distances[t];
        got[t - first] = values[partner < end ? partner : t];
    }
    for (int t = first; t < end; t++) {
        values[t] = got[t - first];
        states[t] = READY;
    }
    return true;
}

bool pass_barrier() {
    for (int t = 0; t < thread_count; t++)
        if (states[t] != AT_BARRIER || places[t] != places[0])
            return false;
    for (int t = 0; t < thread_count; t++)
        states[t] = READY;
    epoch++;
    return true;
}

bool run_block() {
    next_thread = 0;
    epoch = 1;
    for (int t = 0; t < thread_count; t++)
        states[t] = READY;
    if (shared_memory.bytes)
        memset(shared_memory.written, 0, shared_memory.bytes);
    while (next_thread < thread_count)
        if (!resume(take_fiber()))
            return false;
    for (;;) {
        bool some = false, waiting = false;
        for (int t = 0; t < thread_count; t++)
            waiting |= states[t] != DONE;
        if (!waiting)
            return true;
        for (int first = 0; first < thread_count; first += WARP)
            some |= states[first] == AT_SHUFFLE && exchange(first);
        if (!some)
            some = pass_barrier();
        if (!some) {
            snprintf(emulation::message, sizeof emulation::message, "emulation: %s, block %u: some threads wait where others never come", kernel_name,
                     blockIdx.x);
            return false;
        }
        for (int k = 0; k < thread_count; k++) {
            int t = reversed ? thread_count - 1 - k : k;
            if (states[t] == READY && !resume(of_thread[t]))
                return false;
        }
    }
}

/* After a wrong access: what the fibers had on their stacks is given up. */
void drop_fibers() {
    for (int t = 0; t < thread_count; t++)
        copies[t].clear();
    std::vector<fiber *> kept(idle);
    for (int t = 0; t < thread_count; t++)
        if (states[t] != DONE && of_thread[t]) {
            bool known = false;
            for (fiber *f : kept)
                known |= f == of_thread[t];
            if (known)
                continue;
            fiber *f = of_thread[t];
            f->started = false;
            getcontext(&f->context);
            f->context.uc_stack.ss_sp = f->stack;
            f->context.uc_stack.ss_size = STACK;
            f->context.uc_link = NULL;
            makecontext(&f->context, fiber_body, 0);
            kept.push_back(f);
        }
    idle = kept;
}

memory new_memory(unsigned char *at, size_t bytes) {
    memory m = {at, bytes, NULL, NULL};
    m.marks = (shadow *)mmap(NULL, bytes * sizeof(shadow) + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    m.written = (unsigned char *)calloc(bytes + 1, 1);
    return m;
}

} // namespace

void emulated_barrier(int where) {
    wait_as(AT_BARRIER, where);
}

uint64_t emulated_shuffle(uint64_t bits, int distance, int where) {
    int me = current->thread;
    values[me] = bits;
    distances[me] = distance;
    wait_as(AT_SHUFFLE, where);
    return values[me];
}

void emulated_copy(int valid, void *to, const void *from) {
    if (((uintptr_t)to | (valid ? (uintptr_t)from : 0)) % 16 || (valid != 0 && valid != 16))
        wrong("copies %d bytes from +%zu to +%zu: an address is no multiple of 16", valid, (size_t)((uintptr_t)from % 16),
              (size_t)((uintptr_t)to % 16));
    copies[current->thread].push_back({(unsigned char *)to, (const unsigned char *)from, valid});
}

void emulated_copy_wait(void) {
    for (const copy &c : copies[current->thread]) {
        for (int i = 0; emulation::instrumented && i < 16; i += 2) { /* as the smallest elements, each of which has its reader */
            if (c.valid)
                touch(c.from + i, 2, false);
            touch(c.to + i, 2, true);
        }
        memset(c.to, 0, 16);
        memcpy(c.to, c.from, (size_t)c.valid);
    }
    copies[current->thread].clear();
}

void *emulated_memory(const void *address, int64_t bytes) {
    const unsigned char *p = (const unsigned char *)address;
    emulation::named.push_back({p, p + bytes});
    return (void *)address;
}

/* ---- operations ------------------------------------------------------------------------------------------------------------- */

namespace emulation {

void map_memory(unsigned char *at, size_t bytes) {
    mapped.push_back(new_memory(at, bytes));
    memset(mapped.back().written, 1, bytes); /* the host's writes are not seen */
}

void unmap_memory(const unsigned char *at) {
    for (size_t i = 0; i < mapped.size(); i++)
        if (mapped[i].at == at) {
            munmap(mapped[i].marks, mapped[i].bytes * sizeof(shadow) + 1);
            free(mapped[i].written);
            mapped.erase(mapped.begin() + (long)i);
            return;
        }
}

cudaError_t run_kernel(launch &l, uint64_t n) {
    reversed = setting("EMULATED_REVERSED") != NULL;
    if (!shared_memory.bytes && __start_cuda_shared)
        shared_memory = new_memory(__start_cuda_shared, (size_t)(__stop_cuda_shared - __start_cuda_shared));
    number = n;
    kernel_name = l.kernel;
    kernel_run = l.run;
    kernel_context = l.context.data();
    kernel_context_bytes = l.bytes;
    thread_count = l.threads;
    blockDim = {(unsigned)l.threads, 1, 1};
    gridDim = {(unsigned)l.blocks, 1, 1};
    reachable = l.named;
    last_range = 0;
    in_kernel = true;
    bool good = true;
    for (int64_t b = 0; b < l.blocks && good; b++) {
        blockIdx = {(unsigned)(reversed ? l.blocks - 1 - b : b), 0, 0};
        good = run_block();
    }
    in_kernel = false;
    if (!good)
        drop_fibers();
    return good ? cudaSuccess : cudaErrorLaunchFailure;
}

/* The bytes of one side of a copy, where it is the device's. */
static bool copy_side(const void *address, size_t bytes, bool write) {
    for (memory &m : allocations) {
        if (!within(m, address))
            continue;
        size_t at = (size_t)((const unsigned char *)address - m.at);
        uint64_t me = identity();
        for (size_t i = at; instrumented && i < at + bytes; i++) {
            shadow &s = m.marks[i];
            if (!write && !m.written[i]) {
                snprintf(message, sizeof message, "emulation: a copy of %zu bytes reads device memory +%zu, which nothing wrote", bytes, i);
                return false;
            }
            if (unordered(s.writer, me, false) || (write && (unordered(s.readers[0], me, false) || unordered(s.readers[1], me, false)))) {
                snprintf(message, sizeof message, "emulation: a copy of %zu bytes %s device memory +%zu, which an operation without an event between %s", bytes,
                         write ? "writes" : "reads", i, unordered(s.writer, me, false) ? "writes" : "reads");
                return false;
            }
            if (write)
                s.writer = me;
            else
                note_reader(s, me, false);
        }
        if (write)
            memset(m.written + at, 1, bytes);
    }
    return true;
}

cudaError_t run_copy(void *to, const void *from, size_t bytes, uint64_t n) {
    number = n;
    blockIdx = {0, 0, 0};
    threadIdx = {0, 0, 0};
    epoch = 0;
    if (!copy_side(from, bytes, false) || !copy_side(to, bytes, true))
        return cudaErrorLaunchFailure;
    memmove(to, from, bytes);
    return cudaSuccess;
}

} // namespace emulation

void emulated_forget(const void *address, int64_t bytes) {
    std::lock_guard<std::recursive_mutex> hold(emulation::lock);
    for (memory &m : emulation::allocations)
        if (within(m, address))
            memset(m.written + ((const unsigned char *)address - m.at), 0, (size_t)bytes);
}

cudaError_t cudaMalloc(void **at, size_t bytes) {
    std::lock_guard<std::recursive_mutex> hold(emulation::lock);
    const char *most = emulation::setting("EMULATED_MEMORY");
    if (most && allocated + bytes > (size_t)atoll(most))
        return cudaErrorMemoryAllocation;
    unsigned char *p = (unsigned char *)aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!p)
        return cudaErrorMemoryAllocation;
    memset(p, 0xa5, bytes); /* floats of no sense */
    emulation::allocations.push_back(new_memory(p, bytes));
    allocated += bytes;
    *at = p;
    return cudaSuccess;
}

cudaError_t cudaFree(void *at) {
    std::lock_guard<std::recursive_mutex> hold(emulation::lock);
    std::vector<memory> &all = emulation::allocations;
    emulation::finish_all();
    for (size_t i = 0; i < all.size(); i++)
        if (all[i].at == at) {
            allocated -= all[i].bytes;
            munmap(all[i].marks, all[i].bytes * sizeof(shadow) + 1);
            free(all[i].written);
            free(at);
            all.erase(all.begin() + (long)i);
            return cudaSuccess;
        }
    return at ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    const char *most = emulation::setting("EMULATED_MEMORY");
    *total = most ? (size_t)atoll(most) : (size_t)16 << 30;
    *available = *total > allocated ? *total - allocated : 0;
    return cudaSuccess;
}

/* ---- what the compiler calls before accesses ----------------------------------------------------------------------------------- */

extern "C" {
#define ACCESS(n)                        \
    void __tsan_read##n(void *p) {       \
        touch(p, n, false);              \
    }                                    \
    void __tsan_write##n(void *p) {      \
        touch(p, n, true);               \
    }                                    \
    void __tsan_unaligned_read##n(void *p) { \
        touch(p, n, false);              \
    }                                    \
    void __tsan_unaligned_write##n(void *p) { \
        touch(p, n, true);               \
    }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void *p, unsigned long n) {
    touch(p, n, false);
}
void __tsan_write_range(void *p, unsigned long n) {
    touch(p, n, true);
}
int __tsan_atomic32_load(const volatile int *p, int) { /* of the host's threads */
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
void __tsan_atomic32_store(volatile int *p, int value, int) {
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);
}
void __tsan_vptr_update(void **, void *) {
}
void __tsan_vptr_read(void **) {
}
void __tsan_init() { /* called by what was compiled with -fsanitize=thread */
    emulation::instrumented = true;
}
}
