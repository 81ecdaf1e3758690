/* Ranks and messages between them: what the distributed kvstore stands on, usable alone. A net joins `size` processes
 * over MPI, or `size` threads of this process, behind the same functions; all that is computed from what comes over it
 * has the same bits either way. The manual is docs/ranks.md.
 *
 * One thread of the net's own moves everything, so every function here may be called from any thread and none blocks
 * unless it says so. What is asked for ends in a call of `done` on that thread, once, with a status: do little there
 * (complete an operation of the engine, count something down).
 *
 * A rank that gives no sign of life for `timeout` seconds is lost. Then all that is under way, and all that is asked for
 * afterwards, ends with MX_ERROR_PEER and a message that names the rank, on every surviving rank; a loss that one rank sees
 * is passed on to the others. Nothing here aborts the process. Lengths and addresses that arrive are checked before they
 * are used. */
#ifndef MXRT_NET_H
#define MXRT_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mxrt/why.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mxrt_net;

struct mxrt_net_options {
    double timeout; /* seconds; 0: 10 */
    bool fast;      /* reductions in whatever order is fastest: the library's own. Else in a fixed one, below */
    size_t
        memory_limit; /* bytes of messages that arrived and nobody asked for yet; 0: 256 MiB. Beyond it their sender counts as lost */
    int node_ranks; /* neighbours that share a node, between which messages are cheap; 0: as MPI finds them. The same on all ranks */
};

/* Called once when something has ended. `message` is "" with MX_OK and holds during the call. NULL where one is taken: nobody
 * is told. Functions that block must not be called from it. */
typedef void mxrt_net_done(void *context, mx_status status, const char *message);

/* This process as a rank of the MPI job that started it (mpirun, srun); a job of one, without MPI, if none did. MPI is loaded when this is
 * called (libmxrt-mpi.so, named by MXRT_MPI, beside the program or where libmxrt was built or installed), so that programs link and run without it: then
 * MX_ERROR_UNSUPPORTED, with what to install. One net of this kind a process. NULL options: all defaults. Blocks until all
 * ranks are there. */
mx_status mxrt_net_open(struct mxrt_net **n, const struct mxrt_net_options *options, struct mxrt_why *why);
/* `size` ranks in this process: nets[rank]. A thread of yours for each is to use and close them: barrier, measure and close wait
 * for the other ranks. */
mx_status mxrt_net_group(struct mxrt_net **nets, int size, const struct mxrt_net_options *options,
                         struct mxrt_why *why);
/* Waits until all that this rank asked for has ended and all ranks close, too; after a loss, for nobody. Without a loss MPI_Finalize
 * is called; after one MPI is left as it is, and the process ends as any other. NULL is allowed. */
void mxrt_net_close(struct mxrt_net *n);
int mxrt_net_rank(const struct mxrt_net *n);
int mxrt_net_size(const struct mxrt_net *n);
double mxrt_net_timeout(const struct mxrt_net *n); /* seconds, as chosen */
/* The rank lost, the first that this rank heard of, or -1; `why` (may be NULL) says how it was noticed: what all that ends with
 * MX_ERROR_PEER says. */
int mxrt_net_lost(struct mxrt_net *n, struct mxrt_why *why);
/* Says that this rank cannot go on: the others see it as lost at once, with this message. */
void mxrt_net_fail(struct mxrt_net *n, const char *message);
/* This rank is alive but computes without calling anything here: the net's thread gives signs of life for it. A program
 * that wants a hung main thread to count as lost calls this at least every `timeout` seconds after the first call; while
 * something that it asked for has not ended, which may be others' fault, every 2 `timeout` + 1. */
void mxrt_net_alive(struct mxrt_net *n);
/* Takes that promise back, until the next such call: for what may take long. */
void mxrt_net_rest(struct mxrt_net *n);

/* ---- messages between two ranks, matched by sender and tag, in order for equal ones. `data` stays untouched (sent) or unread
 * (received) until done. A message of another length than the receiver's is an error of the receive (MX_ERROR_PEER), which names both,
 * and of the send if it is not done by then. A send may be done before anybody has received it. */
void mxrt_net_send(struct mxrt_net *n, int to, uint64_t tag, const void *data, size_t bytes, mxrt_net_done *done,
                   void *context);
void mxrt_net_receive(struct mxrt_net *n, int from, uint64_t tag, void *data, size_t bytes, mxrt_net_done *done,
                      void *context);

/* ---- requests: messages to whoever offers a service, which need no receive. `service` runs on the net's thread for each that
 * arrives, a rank's in the order in which that rank made them; what `data` points to (aligned to 64) is its own until it
 * calls mxrt_net_release(data), from any thread. Services are offered before a barrier, behind which others may ask for them;
 * f NULL takes one back, when nobody asks any more: it waits until no call of it is under way, so not from inside one. */
enum { MXRT_NET_SERVICES = 8 };
typedef void mxrt_net_service(void *context, int from, uint64_t word, void *data, size_t bytes);
mx_status mxrt_net_offer(struct mxrt_net *n, int service, mxrt_net_service *f, void *context, struct mxrt_why *why);
void mxrt_net_request(struct mxrt_net *n, int to, int service, uint64_t word, const void *data, size_t bytes,
                      mxrt_net_done *done, void *context);
void mxrt_net_release(void *data);

/* ---- collectives: every rank asks for the same ones; `id` tells those apart that are under way at the same time, which may be
 * asked for in different orders. An id may be used again once its collective has ended here. Larger `priority` goes first
 * where several wait for the wire. Ranks that ask for different things under one id lose each other: it cannot be mended.
 *
 * The order of a sum is fixed: element i is the sum over ranks along a binary tree that splits n ranks at the largest power of
 * two below n, ((0 + 1) + (2 + 3)) + (4 + 5), in the element type (f16 and bf16: in f32, rounded once), whatever the
 * lengths, the time or the kind of net. Sums of integers wrap; a sum of bools is true where any is. `fast` gives that up
 * for large all_reduces over MPI. */
struct mxrt_net_range {
    void *data;
    int64_t elements;
    mx_dtype dtype;
};
void mxrt_net_all_reduce(struct mxrt_net *n, uint64_t id, int priority, struct mxrt_net_range x, mxrt_net_done *done,
                         void *context);
/* The sum of everybody's x arrives at `root` only; the others' x stay as they are. */
void mxrt_net_reduce(struct mxrt_net *n, uint64_t id, int priority, int root, struct mxrt_net_range x,
                     mxrt_net_done *done, void *context);
void mxrt_net_broadcast(struct mxrt_net *n, uint64_t id, int priority, int root, struct mxrt_net_range x,
                        mxrt_net_done *done, void *context);
/* Each rank gives `bytes` (the same number on all); out[rank * bytes …] has everybody's. */
void mxrt_net_all_gather(struct mxrt_net *n, uint64_t id, int priority, const void *mine, size_t bytes, void *out,
                         mxrt_net_done *done, void *context);
/* Block until every rank has called it. */
mx_status mxrt_net_barrier(struct mxrt_net *n, struct mxrt_why *why);

/* What has gone over the wire, this rank's side; seconds the net's thread spent moving or adding. */
struct mxrt_net_statistics {
    uint64_t messages, bytes_sent, bytes_received;
    double busy;
};
struct mxrt_net_statistics mxrt_net_statistics(struct mxrt_net *n);
/* Measures one way: seconds of an empty message and bytes a second of a large one, the slowest over all pairs that a collective
 * uses; the same numbers on all ranks. Blocks; every rank calls it. The first call on a net also settles by which ways sums
 * go from then on: an all_reduce is asked for either before it on all ranks, or behind it. */
mx_status mxrt_net_measure(struct mxrt_net *n, double *latency, double *bandwidth, struct mxrt_why *why);

#ifdef __cplusplus
}
#endif
#endif
