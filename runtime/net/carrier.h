/* What a net needs of whatever carries its messages: frames (small, copied, in order between two ranks) and pieces (parts of large
 * messages, from the sender's memory into the receiver's). Everything else - matching, flow control, collectives, signs of
 * life - is done above, once, so that no carrier can change a result.
 *
 * All functions but `wake` and `create` are called by the net's thread alone. None blocks but `create` and `close`. A failure that
 * concerns one rank is told by events->broken, and the net goes on to declare it lost. */
#ifndef RUNTIME_NET_CARRIER_H
#define RUNTIME_NET_CARRIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mxrt/why.h"

enum {
    CARRIER_VERSION = 2,
    FRAME_BYTES =
        3968, /* header and payload: below the eager limit of Open MPI's shared memory, 4096 with its own headers */
    PIECE_BYTES = 1 << 18, /* a message of high priority waits for a few of these at most */
};

struct carrier;

/* What poll found. `cookie` is the one of the call that started it. */
struct carrier_events {
    void (*frame)(void *context, int from, const void *frame, size_t bytes);
    void (*piece_sent)(void *context, void *cookie, size_t bytes);
    void (*piece_received)(void *context, void *cookie, size_t bytes); /* as many as were expected, else it is broken */
    void (*reduced)(void *context, void *cookie);
    void (*broken)(void *context, int rank, const char *message);
};

struct carrier {
    const struct carrier_operations *operations;
    int rank, size;
    const int *nodes; /* [size]: ranks of one node have one number; NULL: not known */
};

struct carrier_operations {
    int version;
    /* Copies it. False: no memory. */
    bool (*send_frame)(struct carrier *c, int to, const void *frame, size_t bytes);
    /* At most PIECE_BYTES. `slot` is the receiver's number for the message; pieces of a slot arrive in order. */
    bool (*send_piece)(struct carrier *c, int to, uint32_t slot, const void *data, size_t bytes, void *cookie);
    bool (*receive_piece)(struct carrier *c, int from, uint32_t slot, void *data, size_t bytes, void *cookie);
    /* Whether anything happened. */
    bool (*poll)(struct carrier *c, const struct carrier_events *events, void *context);
    /* All frames given to send_frame have left this rank's memory. */
    bool (*flushed)(struct carrier *c);
    /* After a loss: from now on nobody reads or writes memory that pieces named, in either direction. Only close follows. */
    void (*stop)(struct carrier *c);
    /* Frees it. `orderly`: all ranks are about to close. */
    void (*close)(struct carrier *c, bool orderly);
    /* NULL, or for a carrier that has been seen to hang: from another thread, when the net's has not come back for long. True: it was
     * inside the carrier, concerned with `peer` (-1: with all), and will never return from it; memory that pieces named may go, as behind `stop`. */
    bool (*take_over)(struct carrier *c, int *peer);
    /* Longest time between two polls, in nanoseconds; 0: whoever has something for this rank wakes its thread (`set_wake`). */
    int64_t poll_ns;
    void (*set_wake)(struct carrier *c, void (*wake)(void *context), void *context);
    /* A sum by the carrier's own means, in place; NULL, or false: it has none for this type. All ranks call it in the same order. */
    bool (*all_reduce)(struct carrier *c, void *data, int64_t elements, mx_dtype dtype, void *cookie);
};

/* The plugin for MPI exports it under this name. Joins the job: blocks until all ranks are there. */
typedef mx_status mxrt_mpi_create(struct carrier **c, int version, struct mxrt_why *why);

#endif
