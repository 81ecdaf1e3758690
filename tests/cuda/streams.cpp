/* Streams, events, graphs and copies of the emulation.
 *
 * Nothing is done when it is asked for. An operation (a kernel, a copy) joins its stream with a list of what it must wait for: the one
 * before it, and what events brought. It runs when the host waits for something that depends on it, and of all that could run then the
 * one that was asked for last comes first, so a missing wait shows as a wrong result. It also shows as an error: each operation carries
 * a vector clock (Fidge, Mattern; an entry a stream), and an access to bytes that an operation without order has touched is a race,
 * whichever of the two ran first here.
 *
 * A captured operation becomes a node of the graph with the nodes that it waits for, and every launch of the graph makes operations of
 * all nodes anew; a node's stream is then one of the graph's own. As on a GPU, streams that joined a capture must be joined again
 * before its end, the host cannot wait for a stream under capture, and an event from outside cannot be waited for inside. Memory that
 * was not allocated as pinned is read when a copy is asked for, pinned memory when the copy runs: the host must have left it alone.
 *
 * After a failure all that waits is dropped, the failure is told by the call that ran into it, and the program may go on.
 *
 * From the environment: EMULATED_STREAMS=first, last (the default) or a number, which of the operations that could run does;
 * EMULATED_FAILURE=N, the Nth launch of a kernel fails; EMULATED_DEVICE=none; EMULATED_TRACE=FILE, where at the end a line has the
 * numbers of kernels launched alone, graphs made and launched, copies from the device to the device.
 */
#include "emulation.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <stdio.h>
#include <stdlib.h>

using emulation::launch;

namespace {

typedef std::vector<uint32_t> clock_of; /* [lane]: operations of it that come before */

struct copy {
    void *to;
    const void *from;
    size_t bytes;
    std::vector<unsigned char> early; /* from memory that is not pinned: its contents; else what they must still be */
    bool is_pinned;
};

struct work { /* one of them, or neither: a place that others wait for */
    std::shared_ptr<launch> kernel;
    std::shared_ptr<copy> memory;
};

struct operation {
    work what;
    std::vector<uint64_t> after;
    clock_of clock;
};

struct pinned {
    unsigned char *at;
    size_t bytes;
};

std::map<uint64_t, operation> waiting;
std::vector<std::pair<uint32_t, uint32_t>> places(1); /* of each operation so far: lane, number in it */
std::vector<pinned> pinned_memory;
uint32_t lane_count;
std::vector<uint32_t> lane_last; /* operations of each so far */
clock_of finished;               /* what the host has waited for comes before all that it asks for later */
const operation *running;
uint64_t launch_count;

struct trace { /* says what happened when the program ends */
    uint64_t alone, made, launched, within;
    ~trace() {
        const char *path = emulation::setting("EMULATED_TRACE");
        FILE *f = path ? fopen(path, "w") : NULL;
        if (!f)
            return;
        fprintf(f, "emulation: %llu kernels alone, %llu graphs, launched %llu times, %llu copies within the device\n",
                    (unsigned long long)alone, (unsigned long long)made, (unsigned long long)launched, (unsigned long long)within);
        fclose(f);
    }
} counts;

} // namespace

struct emulated_node {
    work what;
    std::vector<int> after; /* nodes */
    int lane;               /* of the graph */
};

struct emulated_graph {
    std::vector<emulated_node> nodes;
    int lanes;
    bool is_broken;
};

struct emulated_exec {
    std::vector<emulated_node> nodes;
    std::vector<uint32_t> lanes;
    uint64_t last; /* a graph does not run beside itself */
};

struct emulated_stream {
    uint32_t lane;
    std::vector<uint64_t> last; /* the next operation waits for these */
    emulated_graph *graph;      /* under capture */
    bool is_origin;
    int graph_lane;
    std::vector<int> tail;
};

struct emulated_event {
    std::vector<uint64_t> last;
    emulated_graph *graph; /* recorded under capture */
    std::vector<int> tail;
};

namespace {

std::set<emulated_stream *> streams;

uint64_t add(const work &w, const std::vector<uint64_t> &after, uint32_t lane) {
    operation o = {w, {}, finished};
    uint64_t number = places.size();
    o.clock.resize(lane_count);
    lane_last.resize(lane_count);
    for (uint64_t a : after) {
        std::map<uint64_t, operation>::iterator found = waiting.find(a);
        if (found == waiting.end()) /* it has run, for a host that waited for it */
            continue;
        o.after.push_back(a);
        for (size_t i = 0; i < found->second.clock.size(); i++)
            o.clock[i] = std::max(o.clock[i], found->second.clock[i]);
    }
    o.clock[lane] = ++lane_last[lane];
    places.push_back({lane, o.clock[lane]});
    waiting[number] = o;
    return number;
}

void finish(const operation &o) {
    finished.resize(lane_count);
    for (size_t i = 0; i < o.clock.size(); i++)
        finished[i] = std::max(finished[i], o.clock[i]);
}

cudaError_t run(uint64_t number, operation &o) {
    running = &o;
    cudaError_t e = cudaSuccess;
    if (o.what.kernel)
        e = emulation::run_kernel(*o.what.kernel, number);
    if (o.what.memory) {
        copy &c = *o.what.memory;
        if (c.is_pinned && !c.early.empty() && memcmp(c.early.data(), c.from, c.bytes) != 0) {
            snprintf(emulation::message, sizeof emulation::message,
                     "emulation: the host wrote to pinned memory before a copy of %zu bytes from there had ended", c.bytes);
            e = cudaErrorLaunchFailure;
        } else {
            e = emulation::run_copy(c.to, c.is_pinned || c.early.empty() ? c.from : c.early.data(), c.bytes, number);
        }
    }
    running = NULL;
    return e;
}

/* Runs what is needed for these, and nothing else. */
cudaError_t wait_for(const std::vector<uint64_t> &wanted) {
    std::set<uint64_t> needed;
    std::vector<uint64_t> open(wanted);
    const char *mode = emulation::setting("EMULATED_STREAMS");
    uint64_t seed = mode ? strtoull(mode, NULL, 10) : 0;
    while (!open.empty()) {
        uint64_t n = open.back();
        open.pop_back();
        if (!waiting.count(n) || !needed.insert(n).second)
            continue;
        for (uint64_t a : waiting[n].after)
            open.push_back(a);
    }
    std::set<uint64_t> ready;
    std::map<uint64_t, int> missing;
    std::map<uint64_t, std::vector<uint64_t>> followers;
    for (uint64_t n : needed) {
        int &m = missing[n];
        for (uint64_t a : waiting[n].after)
            if (needed.count(a)) {
                m++;
                followers[a].push_back(n);
            }
        if (m == 0)
            ready.insert(n);
    }
    while (!ready.empty()) {
        std::set<uint64_t>::iterator next = std::prev(ready.end());
        if (mode && strcmp(mode, "first") == 0) {
            next = ready.begin();
        } else if (seed) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            next = ready.begin();
            std::advance(next, (seed >> 33) % ready.size());
        }
        uint64_t n = *next;
        ready.erase(next);
        cudaError_t e = run(n, waiting[n]);
        if (e != cudaSuccess) {
            for (const std::pair<const uint64_t, operation> &w : waiting)
                finish(w.second);
            waiting.clear();
            return e;
        }
        for (uint64_t f : followers[n])
            if (--missing[f] == 0)
                ready.insert(f);
        finish(waiting[n]);
    }
    for (uint64_t n : needed)
        waiting.erase(n);
    return cudaSuccess;
}

cudaError_t enqueue(emulated_stream *s, const work &w) {
    if (s->graph) {
        s->graph->nodes.push_back({w, s->tail, s->graph_lane});
        s->tail.assign(1, (int)s->graph->nodes.size() - 1);
        return cudaSuccess;
    }
    s->last.assign(1, add(w, s->last, s->lane));
    return cudaSuccess;
}

bool is_failure() {
    static const char *const failure = emulation::setting("EMULATED_FAILURE");
    return failure && (uint64_t)atoll(failure) == ++launch_count;
}

cudaError_t fail(const char *kernel) {
    snprintf(emulation::message, sizeof emulation::message, "emulation: %s was to fail", kernel);
    return cudaErrorLaunchFailure;
}

bool is_pinned(const void *p) {
    for (const pinned &m : pinned_memory)
        if ((const unsigned char *)p >= m.at && (const unsigned char *)p < m.at + m.bytes)
            return true;
    return false;
}

bool on_device(const void *p, size_t bytes, bool *fits) {
    for (const emulation::memory &m : emulation::allocations)
        if (emulation::within(m, p)) {
            *fits = (const unsigned char *)p + bytes <= m.at + m.bytes;
            return true;
        }
    return false;
}

void read_source(copy &c) {
    bool fits;
    if (!on_device(c.from, 0, &fits))
        c.early.assign((const unsigned char *)c.from, (const unsigned char *)c.from + c.bytes);
}

typedef std::lock_guard<std::recursive_mutex> guard;

} // namespace

namespace emulation {

std::recursive_mutex lock;

bool is_before(uint64_t number) {
    if (number >= places.size())
        return true;
    std::pair<uint32_t, uint32_t> p = places[number];
    return p.first < running->clock.size() && running->clock[p.first] >= p.second;
}

void finish_all() {
    std::vector<uint64_t> all;
    for (const std::pair<const uint64_t, operation> &w : waiting)
        all.push_back(w.first);
    (void)wait_for(all);
}

} // namespace emulation

/* ---- launches and copies ------------------------------------------------------------------------------------------------------ */

cudaError_t emulated_launch(const char *kernel, int64_t blocks, int threads, cudaStream_t stream, void (*run)(void *), const void *context,
                            size_t bytes) {
    guard hold(emulation::lock);
    std::vector<emulation::range> named;
    named.swap(emulation::named);
    if (blocks == 0)
        return cudaSuccess;
    if (blocks < 0 || blocks > INT32_MAX || threads < 1 || threads > 1024)
        return cudaErrorInvalidValue;
    if (!stream->graph && is_failure())
        return fail(kernel);
    counts.alone += !stream->graph;
    std::shared_ptr<launch> l = std::make_shared<launch>();
    *l = {kernel, blocks, threads, run, std::vector<uint64_t>((bytes + 7) / 8 + 1), bytes, named};
    memcpy(l->context.data(), context, bytes);
    return enqueue(stream, {l, NULL});
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    guard hold(emulation::lock);
    bool fits = true, known = on_device(from, bytes, &fits);
    emulation::named.clear();
    bool to_device = fits && on_device(to, bytes, &fits);
    counts.within += known && to_device;
    known |= to_device;
    if (!fits || !known) /* between two places of the host: nothing of the kind is generated */
        return cudaErrorInvalidValue;
    std::shared_ptr<copy> c = std::make_shared<copy>();
    *c = {to, from, bytes, {}, is_pinned(from)};
    if (!stream->graph)
        read_source(*c);
    return enqueue(stream, {NULL, c});
}

cudaError_t cudaHostAlloc(void **at, size_t bytes, unsigned flags) {
    guard hold(emulation::lock);
    unsigned char *p = (unsigned char *)aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!p)
        return cudaErrorMemoryAllocation;
    memset(p, 0x5a, bytes);
    pinned_memory.push_back({p, bytes});
    if (flags & cudaHostAllocMapped)
        emulation::map_memory(p, bytes);
    *at = p;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *at) {
    guard hold(emulation::lock);
    emulation::finish_all();
    for (size_t i = 0; i < pinned_memory.size(); i++)
        if (pinned_memory[i].at == at) {
            emulation::unmap_memory(pinned_memory[i].at);
            free(at);
            pinned_memory.erase(pinned_memory.begin() + (long)i);
            return cudaSuccess;
        }
    return at ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t cudaHostRegister(void *at, size_t bytes, unsigned) {
    guard hold(emulation::lock);
    pinned_memory.push_back({(unsigned char *)at, bytes});
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *at) {
    guard hold(emulation::lock);
    emulation::finish_all();
    for (size_t i = 0; i < pinned_memory.size(); i++)
        if (pinned_memory[i].at == at) {
            pinned_memory.erase(pinned_memory.begin() + (long)i);
            return cudaSuccess;
        }
    return cudaErrorInvalidValue;
}

cudaError_t cudaGetDeviceCount(int *count) {
    const char *device = emulation::setting("EMULATED_DEVICE");
    *count = device && strcmp(device, "none") == 0 ? 0 : 1;
    return *count ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int device) {
    return device == 0 ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *a, const void *p) {
    guard hold(emulation::lock);
    bool fits, device = on_device(p, 0, &fits);
    emulation::named.clear();
    *a = {device ? cudaMemoryTypeDevice : is_pinned(p) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered, 0, device ? (void *)p : NULL,
          device ? NULL : (void *)p};
    return cudaSuccess;
}

/* ---- streams and events --------------------------------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    guard hold(emulation::lock);
    const char *device = emulation::setting("EMULATED_DEVICE");
    if (device && strcmp(device, "none") == 0)
        return cudaErrorNoDevice;
    *stream = new emulated_stream();
    (*stream)->lane = lane_count++;
    streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    guard hold(emulation::lock);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    guard hold(emulation::lock);
    if (stream->graph) {
        stream->graph->is_broken = true;
        return cudaErrorStreamCaptureUnsupported;
    }
    return wait_for(stream->last);
}

cudaError_t cudaDeviceSynchronize(void) {
    guard hold(emulation::lock);
    for (emulated_stream *s : streams)
        if (s->graph) {
            s->graph->is_broken = true;
            return cudaErrorStreamCaptureUnsupported;
        }
    std::vector<uint64_t> all;
    for (const std::pair<const uint64_t, operation> &w : waiting)
        all.push_back(w.first);
    return wait_for(all);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    *event = new emulated_event();
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    guard hold(emulation::lock);
    *event = {stream->graph ? std::vector<uint64_t>() : stream->last, stream->graph, stream->tail};
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    guard hold(emulation::lock);
    if (event->graph) {
        event->graph->is_broken = true;
        return cudaErrorStreamCaptureUnsupported;
    }
    return wait_for(event->last);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    guard hold(emulation::lock);
    for (uint64_t n : event->last)
        if (waiting.count(n))
            return cudaErrorNotReady;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    guard hold(emulation::lock);
    if (event->graph) {
        if (stream->graph && stream->graph != event->graph)
            return cudaErrorStreamCaptureIsolation;
        if (!stream->graph) { /* joins the capture */
            stream->graph = event->graph;
            stream->is_origin = false;
            stream->graph_lane = event->graph->lanes++;
            stream->tail.clear();
        }
        for (int n : event->tail)
            if (std::find(stream->tail.begin(), stream->tail.end(), n) == stream->tail.end())
                stream->tail.push_back(n);
        return cudaSuccess;
    }
    if (stream->graph) {
        stream->graph->is_broken = true;
        return cudaErrorStreamCaptureIsolation;
    }
    stream->last.insert(stream->last.end(), event->last.begin(), event->last.end());
    return cudaSuccess;
}

/* ---- graphs ----------------------------------------------------------------------------------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    guard hold(emulation::lock);
    if (stream->graph)
        return cudaErrorInvalidValue;
    stream->graph = new emulated_graph();
    stream->is_origin = true;
    stream->graph_lane = stream->graph->lanes++;
    stream->tail.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    guard hold(emulation::lock);
    emulated_graph *g = stream->graph;
    *graph = NULL;
    if (!g || !stream->is_origin)
        return cudaErrorInvalidValue;
    std::vector<bool> joined(g->nodes.size());
    for (int n : stream->tail)
        joined[(size_t)n] = true;
    bool all = true;
    for (size_t i = g->nodes.size(); i-- > 0;) {
        all &= joined[i];
        for (int a : g->nodes[i].after)
            joined[(size_t)a] = joined[(size_t)a] || joined[i];
    }
    for (emulated_stream *s : streams)
        if (s->graph == g)
            s->graph = NULL;
    if (g->is_broken || !all) {
        cudaError_t e = g->is_broken ? cudaErrorStreamCaptureInvalidated : cudaErrorStreamCaptureUnjoined;
        delete g;
        return e;
    }
    *graph = g;
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
    for (size_t i = 0; nodes && i < *count && i < graph->nodes.size(); i++)
        nodes[i] = &graph->nodes[i];
    *count = graph->nodes.size();
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
    guard hold(emulation::lock);
    *exec = new emulated_exec();
    counts.made++;
    (*exec)->nodes = graph->nodes;
    for (int i = 0; i < graph->lanes; i++)
        (*exec)->lanes.push_back(lane_count++);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    guard hold(emulation::lock);
    if (stream->graph)
        return cudaErrorStreamCaptureUnsupported;
    counts.launched++;
    std::vector<uint64_t> numbers, before(stream->last);
    if (exec->last)
        before.push_back(exec->last);
    for (const emulated_node &n : exec->nodes) {
        work w = n.what;
        std::vector<uint64_t> after;
        if (w.kernel && is_failure())
            return fail(w.kernel->kernel);
        if (w.kernel) {
            w.kernel = std::make_shared<launch>(*w.kernel);
        } else if (w.memory) {
            w.memory = std::make_shared<copy>(*w.memory);
            read_source(*w.memory);
        }
        for (int a : n.after)
            after.push_back(numbers[(size_t)a]);
        if (after.empty())
            after = before;
        numbers.push_back(add(w, after, exec->lanes[(size_t)n.lane]));
    }
    numbers.insert(numbers.end(), before.begin(), before.end());
    exec->last = add({}, numbers, stream->lane);
    stream->last.assign(1, exec->last);
    return cudaSuccess;
}

/* ---- errors ------------------------------------------------------------------------------------------------------------------------ */

cudaError_t cudaGetLastError(void) {
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t e) {
    switch (e) {
    case cudaErrorLaunchFailure: return emulation::message;
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureUnjoined: return "capturing stream has unjoined work";
    case cudaErrorStreamCaptureIsolation: return "dependency created on uncaptured work in another stream";
    default: return "invalid argument";
    }
}
