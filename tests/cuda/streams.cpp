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
 * A stream belongs to the device that was current when it was made, and what a host's thread has waited for on one device says nothing
 * of the order on another: ranks that are threads know of each other's work by what nccl.cpp moves between devices. Whoever asks again and
 * again whether something has ended (a hundred times a stream, more often an event) finds that it has, if all that it waits for was asked for.
 *
 * From the environment: EMULATED_STREAMS=first, last (the default) or a number, which of the operations that could run does;
 * EMULATED_FAILURE=N, the Nth launch of a kernel fails; EMULATED_DEVICE=none or the number of devices; EMULATED_TRACE=FILE, where at the end a line has the
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

struct work { /* one of them, or none: a place that others wait for */
    std::shared_ptr<launch> kernel;
    std::shared_ptr<copy> memory;
    std::function<cudaError_t(uint64_t)> transfer; /* between devices */
};

struct operation {
    work what;
    std::vector<uint64_t> after;
    clock_of clock;
    int device;
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
std::map<int, clock_of> finished; /* by device: what the host has waited for comes before all that it asks for later */
std::map<uint64_t, clock_of> elsewhere; /* operations that ran because another device's waited for them */
const operation *running;
uint64_t launch_count;
thread_local int current_device;
thread_local cudaError_t last_error;
std::map<int, cudaError_t> untold; /* by device: a failure that only who asked for an event has heard of */
enum { STREAM_PATIENCE = 100, EVENT_PATIENCE = 5000 }; /* questions */

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
    int device, asked;
    std::vector<uint64_t> last; /* the next operation waits for these */
    emulated_graph *graph;      /* under capture */
    bool is_origin;
    int graph_lane;
    std::vector<int> tail;
};

struct emulated_event {
    int device, asked;
    std::vector<uint64_t> last;
    emulated_graph *graph; /* recorded under capture */
    std::vector<int> tail;
};

namespace {

std::set<emulated_stream *> streams;

void merge(clock_of &into, const clock_of &from) {
    into.resize(std::max(into.size(), from.size()));
    for (size_t i = 0; i < from.size(); i++)
        into[i] = std::max(into[i], from[i]);
}

uint64_t add(const work &w, const std::vector<uint64_t> &after, uint32_t lane, int device) {
    operation o = {w, {}, finished[device], device};
    uint64_t number = places.size();
    o.clock.resize(lane_count);
    lane_last.resize(lane_count);
    for (uint64_t a : after) {
        std::map<uint64_t, operation>::iterator found = waiting.find(a);
        if (found == waiting.end()) { /* it has run, for a host that waited for it */
            if (elsewhere.count(a))
                merge(o.clock, elsewhere[a]);
            continue;
        }
        o.after.push_back(a);
        merge(o.clock, found->second.clock);
    }
    o.clock[lane] = ++lane_last[lane];
    places.push_back({lane, o.clock[lane]});
    waiting[number] = o;
    return number;
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
    if (o.what.transfer)
        e = o.what.transfer(number);
    running = NULL;
    return e;
}

/* Runs what is needed for these, and nothing else; for a host that waits for something on a device. */
cudaError_t wait_for(const std::vector<uint64_t> &wanted, int device) {
    std::set<uint64_t> needed;
    std::vector<uint64_t> open(wanted);
    if (untold.count(device)) {
        cudaError_t e = untold[device];
        untold.erase(device);
        return e;
    }
    const char *mode = emulation::setting("EMULATED_STREAMS");
    uint64_t seed = mode ? strtoull(mode, NULL, 10) : 0;
    while (!open.empty()) {
        uint64_t n = open.back();
        open.pop_back();
        if (elsewhere.count(n))
            merge(finished[device], elsewhere[n]);
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
                merge(finished[w.second.device], w.second.clock);
            waiting.clear();
            return e;
        }
        for (uint64_t f : followers[n])
            if (--missing[f] == 0)
                ready.insert(f);
        merge(finished[device], waiting[n].clock);
        if (waiting[n].device != device)
            elsewhere[n] = waiting[n].clock;
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
    s->last.assign(1, add(w, s->last, s->lane, s->device));
    s->asked = 0;
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

std::vector<uint64_t> all_of(int device) {
    std::vector<uint64_t> all;
    for (const std::pair<const uint64_t, operation> &w : waiting)
        if (w.second.device == device)
            all.push_back(w.first);
    return all;
}

/* Time goes on for whoever asks. */
cudaError_t query(const std::vector<uint64_t> &last, int device, int &asked, int patience) {
    bool open = false;
    for (uint64_t n : last)
        open |= waiting.count(n) != 0;
    if (open && ++asked < patience)
        return last_error = cudaErrorNotReady;
    asked = 0;
    return wait_for(last, device);
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
    (void)wait_for(all_of(current_device), current_device);
}

int device() {
    return current_device;
}

int device_count() {
    const char *s = setting("EMULATED_DEVICE");
    return !s ? 1 : strcmp(s, "none") == 0 ? 0 : atoi(s);
}

void transfer_between(const std::vector<cudaStream_t> &sides, const std::vector<transfer> &transfers) {
    guard hold(lock);
    std::vector<uint64_t> begun, last, number;
    for (cudaStream_t s : sides)
        begun.push_back(add({}, s->last, s->lane, s->device));
    last = begun;
    std::vector<std::vector<uint64_t>> end(sides.size());
    for (const transfer &t : transfers) { /* of a side: one behind the other */
        std::vector<uint64_t> after(1, last[t.side]);
        for (size_t s : t.reads)
            after.push_back(begun[s]);
        for (size_t k : t.after)
            after.push_back(number[k]);
        last[t.side] = add({NULL, NULL, t.run}, after, sides[t.side]->lane, sides[t.side]->device);
        number.push_back(last[t.side]);
        for (size_t s : t.reads)
            end[s].push_back(last[t.side]);
    }
    for (size_t i = 0; i < sides.size(); i++) {
        end[i].push_back(last[i]);
        sides[i]->last.assign(1, add({}, end[i], sides[i]->lane, sides[i]->device));
        sides[i]->asked = 0;
    }
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
    if (blocks < 0 || blocks > INT32_MAX || threads < 1 || threads > 1024 || stream->device != current_device)
        return cudaErrorInvalidValue;
    if (!stream->graph && is_failure())
        return fail(kernel);
    counts.alone += !stream->graph;
    std::shared_ptr<launch> l = std::make_shared<launch>();
    *l = {kernel, blocks, threads, run, std::vector<uint64_t>((bytes + 7) / 8 + 1), bytes, named};
    memcpy(l->context.data(), context, bytes);
    return enqueue(stream, {l, NULL, NULL});
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
    return enqueue(stream, {NULL, c, NULL});
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
    *count = emulation::device_count();
    return *count ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= emulation::device_count())
        return cudaErrorInvalidValue;
    current_device = device;
    return cudaSuccess;
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
    if (emulation::device_count() == 0)
        return cudaErrorNoDevice;
    *stream = new emulated_stream();
    (*stream)->device = current_device;
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
    return wait_for(stream->last, stream->device);
}

cudaError_t cudaDeviceSynchronize(void) {
    guard hold(emulation::lock);
    for (emulated_stream *s : streams)
        if (s->graph) {
            s->graph->is_broken = true;
            return cudaErrorStreamCaptureUnsupported;
        }
    return wait_for(all_of(current_device), current_device);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    guard hold(emulation::lock);
    return stream->graph ? cudaErrorStreamCaptureUnsupported : query(stream->last, stream->device, stream->asked, STREAM_PATIENCE);
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
    *event = {stream->device, 0, stream->graph ? std::vector<uint64_t>() : stream->last, stream->graph, stream->tail};
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    guard hold(emulation::lock);
    if (event->graph) {
        event->graph->is_broken = true;
        return cudaErrorStreamCaptureUnsupported;
    }
    return wait_for(event->last, event->device);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    guard hold(emulation::lock);
    cudaError_t e = query(event->last, event->device, event->asked, EVENT_PATIENCE);
    if (e != cudaSuccess && e != cudaErrorNotReady)
        untold[event->device] = e;
    return e;
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
        numbers.push_back(add(w, after, exec->lanes[(size_t)n.lane], stream->device));
    }
    numbers.insert(numbers.end(), before.begin(), before.end());
    exec->last = add({}, numbers, stream->lane, stream->device);
    stream->asked = 0;
    stream->last.assign(1, exec->last);
    return cudaSuccess;
}

/* ---- errors ------------------------------------------------------------------------------------------------------------------------ */

cudaError_t cudaGetLastError(void) {
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
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
