/* NCCL of the emulation: communicators between threads, sends, receives and all-reduces, which streams.cpp runs in the order of streams.
 *
 * A communicator does not block. A group is in progress until all ranks that it speaks with have asked for theirs; whoever completes it
 * makes the operations of all: on each stream one that begins, the receives behind the beginnings of those who send, and one that ends
 * behind all that was read from this rank. So data arrive when the stream is waited for, and an access that no event orders is a race, as
 * between kernels. Two ranks send each other at most one message a group, sender and receiver agree on its size, a group is on one stream, and no
 * two ranks have one device: else it is an error.
 *
 * From the environment: EMULATED_NCCL=error:R:N, rank R's Nth group and what follows end in a remote error; hang:R:N, its Nth group never
 * begins. Half precision is not added: nothing asks for it but --reduction fast.
 */
#include "emulation.h"

#include <nccl.h>

#include <algorithm>
#include <map>
#include <memory>
#include <stdio.h>
#include <stdlib.h>

namespace {

enum kind { SEND, RECEIVE, ALL_REDUCE };

struct piece {
    kind what;
    const void *from;
    void *to;
    size_t bytes, count;
    ncclDataType_t type;
    int peer;
    cudaStream_t stream;
};

struct clique { /* all that joined by one id */
    std::vector<ncclComm_t> ranks;
    int leaving;
};

std::map<uint64_t, std::shared_ptr<clique>> cliques;
uint64_t ids;
thread_local int depth; /* of groups */
thread_local ncclComm_t grouped;

typedef std::lock_guard<std::recursive_mutex> guard;

} // namespace

struct emulated_communicator {
    std::shared_ptr<clique> all;
    int rank, device, groups;
    std::vector<piece> collecting, open; /* open: asked for, and not all peers have */
    bool finalized, hangs;
    ncclResult_t error;
    const char *why;
};

namespace {

size_t size_of(ncclDataType_t t) {
    return t == ncclFloat64 ? 8 : t == ncclFloat32 ? 4 : t == ncclUint8 ? 1 : 2;
}

ncclResult_t fail(ncclComm_t c, ncclResult_t e, const char *why) {
    c->error = e;
    c->why = why;
    return e;
}

/* Whether the environment names this rank's present group. */
bool is_named(const emulated_communicator *c, const char *what) {
    const char *s = emulation::setting("EMULATED_NCCL");
    size_t n = strlen(what);
    int rank, group;
    return s && strncmp(s, what, n) == 0 && sscanf(s + n, ":%d:%d", &rank, &group) == 2 && rank == c->rank && c->groups >= group;
}

const piece *find(const emulated_communicator *c, kind what, int peer) {
    for (const piece &p : c->open)
        if (p.what == what && (what == ALL_REDUCE || p.peer == peer))
            return &p;
    return NULL;
}

/* What a piece needs of the rank that it speaks with. */
const piece *partner(const emulated_communicator *c, const piece &p, int peer) {
    const emulated_communicator *other = c->all->ranks[(size_t)peer];
    return other ? find(other, p.what == SEND ? RECEIVE : p.what == RECEIVE ? SEND : ALL_REDUCE, c->rank) : NULL;
}

bool speaks_with(const emulated_communicator *c, int peer) {
    for (const piece &p : c->open)
        if (p.what == ALL_REDUCE || p.peer == peer)
            return true;
    return false;
}

/* All that a rank's group is bound to, directly or by others; empty: somebody has not asked yet. */
std::vector<int> bound(ncclComm_t c) {
    std::vector<int> found(1, c->rank);
    for (size_t i = 0; i < found.size(); i++) {
        ncclComm_t one = c->all->ranks[(size_t)found[i]];
        for (int peer = 0; peer < (int)c->all->ranks.size(); peer++) {
            if (peer == one->rank || !speaks_with(one, peer))
                continue;
            ncclComm_t other = c->all->ranks[(size_t)peer];
            if (!other || other->open.empty() || other->hangs)
                return {};
            if (std::find(found.begin(), found.end(), peer) == found.end())
                found.push_back(peer);
        }
    }
    return found;
}

template <class T> void add_up(std::vector<unsigned char> &sum, const std::vector<unsigned char> &x) {
    for (size_t i = 0; i < sum.size() / sizeof(T); i++)
        ((T *)(void *)sum.data())[i] += ((const T *)(const void *)x.data())[i];
}

/* The operations of a complete group. */
ncclResult_t make(ncclComm_t c, const std::vector<int> &ranks) {
    std::vector<cudaStream_t> sides;
    std::vector<emulation::transfer> transfers;
    std::shared_ptr<std::vector<std::vector<unsigned char>>> shares(new std::vector<std::vector<unsigned char>>(ranks.size()));
    for (int r : ranks)
        sides.push_back(c->all->ranks[(size_t)r]->open[0].stream);
    for (int reduces = 0; reduces < 2; reduces++) /* all shares are read before any sum is written */
        for (size_t i = 0; i < ranks.size(); i++) {
            ncclComm_t one = c->all->ranks[(size_t)ranks[i]];
            for (const piece &p : one->open) {
                const piece *other = p.what == ALL_REDUCE ? &p : partner(one, p, p.peer);
                if (!other || other->bytes != p.bytes)
                    return fail(one, ncclInvalidUsage, "a send and a receive do not agree");
                size_t from = (size_t)(std::find(ranks.begin(), ranks.end(), p.peer) - ranks.begin());
                const void *source = other->from; /* the list is gone when the copy runs */
                if (p.what == RECEIVE && !reduces)
                    transfers.push_back({i, {from}, {}, [=](uint64_t n) { return emulation::run_copy(p.to, source, p.bytes, n); }});
                if (p.what == ALL_REDUCE && !reduces)
                    transfers.push_back({i, {i}, {}, [=](uint64_t n) {
                                             (*shares)[i].resize(p.bytes);
                                             return emulation::run_copy((*shares)[i].data(), p.from, p.bytes, n);
                                         }});
                if (p.what != ALL_REDUCE || !reduces)
                    continue;
                if (p.type != ncclFloat32 && p.type != ncclFloat64)
                    return fail(one, ncclInvalidArgument, "only f32 and f64 are added");
                std::vector<size_t> shared;
                for (size_t k = 0; k < ranks.size(); k++)
                    shared.push_back(k);
                transfers.push_back({i, {}, shared, [=](uint64_t n) {
                                         std::vector<unsigned char> sum((*shares)[0]);
                                         for (size_t k = 1; k < shares->size(); k++)
                                             p.type == ncclFloat32 ? add_up<float>(sum, (*shares)[k]) : add_up<double>(sum, (*shares)[k]);
                                         return emulation::run_copy(p.to, sum.data(), p.bytes, n);
                                     }});
            }
        }
    emulation::transfer_between(sides, transfers);
    return ncclSuccess;
}

ncclResult_t begin(ncclComm_t c) {
    c->groups++;
    if (c->error != ncclSuccess)
        return c->error;
    if (is_named(c, "error"))
        return fail(c, ncclRemoteError, "connection closed by a peer");
    c->hangs = is_named(c, "hang");
    c->open.swap(c->collecting);
    c->collecting.clear();
    if (c->hangs)
        return ncclInProgress;
    std::vector<int> ranks = bound(c);
    if (ranks.empty())
        return ncclInProgress;
    ncclResult_t e = make(c, ranks);
    for (int r : ranks)
        c->all->ranks[(size_t)r]->open.clear();
    return e;
}

ncclResult_t ask(ncclComm_t c, const piece &p) {
    guard hold(emulation::lock);
    emulation::named.clear();
    if (!c->open.empty())
        return fail(c, ncclInvalidUsage, "a call while a group is in progress");
    if (c->device != emulation::device())
        return fail(c, ncclInvalidUsage, "another device is current");
    if (!c->collecting.empty() && c->collecting[0].stream != p.stream)
        return fail(c, ncclInvalidUsage, "a group on two streams");
    c->collecting.push_back(p);
    grouped = c;
    return depth ? ncclSuccess : begin(c);
}

} // namespace

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    guard hold(emulation::lock);
    memset(id, 0, sizeof *id);
    ids++;
    memcpy(id->internal, &ids, sizeof ids);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config) {
    guard hold(emulation::lock);
    uint64_t number;
    memcpy(&number, id.internal, sizeof number);
    std::shared_ptr<clique> &all = cliques[number];
    if (!all)
        all.reset(new clique{std::vector<ncclComm_t>((size_t)ranks), 0});
    if (config->blocking || rank < 0 || rank >= ranks || (int)all->ranks.size() != ranks || all->ranks[(size_t)rank])
        return ncclInvalidArgument;
    *comm = new emulated_communicator{all, rank, emulation::device(), 0, {}, {}, false, false, ncclSuccess, ""};
    for (ncclComm_t c : all->ranks)
        if (c && c->device == (*comm)->device)
            return fail(*comm, ncclInvalidUsage, "two ranks have one device");
    all->ranks[(size_t)rank] = *comm;
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error) {
    guard hold(emulation::lock);
    bool open = !comm->open.empty() || (comm->finalized && comm->all->leaving < (int)comm->all->ranks.size());
    for (ncclComm_t c : comm->all->ranks)
        open |= !c && !comm->all->leaving; /* not all have joined */
    *error = comm->error != ncclSuccess ? comm->error : open ? ncclInProgress : ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    guard hold(emulation::lock);
    comm->finalized = true;
    comm->all->leaving++;
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    guard hold(emulation::lock);
    bool done = comm->finalized && comm->all->leaving == (int)comm->all->ranks.size();
    std::replace(comm->all->ranks.begin(), comm->all->ranks.end(), comm, (ncclComm_t)NULL);
    delete comm;
    return done ? ncclSuccess : ncclInvalidUsage;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    guard hold(emulation::lock);
    std::replace(comm->all->ranks.begin(), comm->all->ranks.end(), comm, (ncclComm_t)NULL);
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclGroupStart(void) {
    depth++;
    grouped = NULL;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
    guard hold(emulation::lock);
    return --depth || !grouped ? ncclSuccess : begin(grouped);
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
    return ask(comm, {SEND, from, NULL, count * size_of(type), count, type, peer, stream});
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
    return ask(comm, {RECEIVE, NULL, to, count * size_of(type), count, type, peer, stream});
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t, ncclComm_t comm, cudaStream_t stream) {
    return ask(comm, {ALL_REDUCE, from, to, count * size_of(type), count, type, -1, stream});
}

const char *ncclGetErrorString(ncclResult_t e) {
    switch (e) {
    case ncclSuccess: return "no error";
    case ncclInProgress: return "NCCL operation in progress";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInvalidUsage: return "invalid usage";
    default: return "invalid argument";
    }
}

const char *ncclGetLastError(ncclComm_t comm) {
    return comm ? comm->why : "";
}
