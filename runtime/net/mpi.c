/* The carrier over MPI: the plugin libmxrt-mpi.so.
 *
 * Frames are small enough to go eagerly, and meet a ring of receives from anyone that stand ready, so they need no handshake;
 * receives match in the order in which they were posted, which keeps the frames of a sender in theirs. Pieces have a
 * communicator of their own, with the receiver's number for the message as tag. Every call is nonblocking and every error is
 * returned, so the loss of a rank ends in a message and not in an abort; after one, MPI is not called again, MPI_Finalize
 * included, because it may wait for the dead.
 *
 * Open MPI 4.1 has no thought for that. Its TCP part, when a write to a dead process fails, may corrupt its list of events and spin in
 * it for ever (mca_btl_tcp_endpoint_send adds an event of a socket just closed, and the next connect initializes it anew). So
 * each call of MPI is marked, and another thread may decide that one will not return (take_over). Or it ends this process, when a write that it had
 * put off fails (mca_pml_ob1_match_completion_free: "FATAL"), and so takes the survivors along. From there it is kept in the call,
 * as if it did not return (stay). */
#define _GNU_SOURCE /* RTLD_DEFAULT */
#include <dlfcn.h>
#include <mpi.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "carrier.h"

enum { RING = 64, MOST_FRAMES = 256, TAG_FRAME = 1, POLL_NS = 1000000 };

enum pending_kind { PENDING_FRAME, PENDING_PIECE_OUT, PENDING_PIECE_IN, PENDING_SUM };

struct pending {
    enum pending_kind kind;
    int peer;
    size_t bytes;
    void *cookie; /* PENDING_FRAME: its buffer */
};

struct mpi {
    struct carrier carrier;
    bool ours; /* MPI was begun here */
    MPI_Comm frames, pieces, sums;
    int *nodes; /* [size]: the first rank of each one's node */
    MPI_Request ring[RING];
    char *ring_buffers; /* [RING, FRAME_BYTES] */
    int head;
    MPI_Request *requests; /* [count] of room, beside: */
    struct pending *pending;
    int *indices;
    MPI_Status *statuses;
    int count, room, frames_out;
    void *free_buffers; /* of frames; each begins with a pointer to the next */
    _Atomic int inside; /* OUTSIDE, INSIDE a call of MPI, or TAKEN */
    _Atomic int peer;   /* whom that call is about; -1: all */
    pthread_t thread;   /* that made it */
    int broken_rank;    /* of a call outside poll; -1 */
    char broken[300];
};

enum { OUTSIDE, INSIDE, TAKEN };

static void enter(struct mpi *m, int peer) {
    atomic_store_explicit(&m->peer, peer, memory_order_relaxed);
    m->thread = pthread_self();
    atomic_store_explicit(&m->inside, INSIDE, memory_order_release);
}

static void leave(struct mpi *m) {
    int inside = INSIDE;
    if (atomic_compare_exchange_strong(&m->inside, &inside, OUTSIDE))
        return;
    for (;;) /* it came back after all, but its net goes on without it */
        (void)pause();
}

#if OMPI_MAJOR_VERSION == 4
/* Open MPI's environment module as it stands in orte/mca/ess/ess.h, which is not installed everywhere. */
struct environment {
    int (*init)(void);
    int (*finalize)(void);
    void (*abort)(int status, bool report);
};

/* `abort` gets no context, and a process has one MPI. */
static struct {
    struct mpi *m;
    void (*abort)(int status, bool report);
} original;

/* In place of `abort`: for the thread that is in a call of the net's; another one's is the program's own. */
static void stay(int status, bool report) {
    if (atomic_load_explicit(&original.m->inside, memory_order_acquire) == OUTSIDE ||
        !pthread_equal(pthread_self(), original.m->thread)) {
        original.abort(status, report);
        return;
    }
    for (;;)
        (void)pause();
}

static void keep_from_aborting(struct mpi *m) {
    struct environment *e = dlsym(RTLD_DEFAULT, "orte_ess");
    if (!e || !e->abort)
        return;
    original.m = m;
    original.abort = e->abort;
    e->abort = stay;
}
#endif

static bool take_over(struct carrier *c, int *peer) {
    struct mpi *m = (struct mpi *)c;
    int inside = INSIDE;
    *peer = atomic_load_explicit(&m->peer, memory_order_relaxed);
    return atomic_compare_exchange_strong(&m->inside, &inside, TAKEN);
}

static void break_with(struct mpi *m, int rank, const char *call, int error) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (m->broken_rank >= 0)
        return;
    (void)MPI_Error_string(error, text, &length);
    (void)snprintf(m->broken, sizeof m->broken, "%s fails: %s", call, text);
    m->broken_rank = rank;
}

static bool reserve(struct mpi *m) {
    if (m->count < m->room)
        return true;
    size_t room = m->room ? (size_t)m->room * 2 : 64;
    void *requests = realloc(m->requests, room * sizeof *m->requests);
    m->requests = requests ? requests : m->requests;
    void *pending = realloc(m->pending, room * sizeof *m->pending);
    m->pending = pending ? pending : m->pending;
    void *indices = realloc(m->indices, room * sizeof *m->indices);
    m->indices = indices ? indices : m->indices;
    void *statuses = realloc(m->statuses, room * sizeof *m->statuses);
    m->statuses = statuses ? statuses : m->statuses;
    if (!requests || !pending || !indices || !statuses)
        return false;
    m->room = (int)room;
    return true;
}

static void add(struct mpi *m, MPI_Request request, struct pending p) {
    m->requests[m->count] = request;
    m->pending[m->count++] = p;
    m->frames_out += p.kind == PENDING_FRAME;
}

static void give_back(struct mpi *m, void *buffer) {
    memcpy(buffer, &m->free_buffers, sizeof m->free_buffers);
    m->free_buffers = buffer;
}

static bool send_frame(struct carrier *c, int to, const void *frame, size_t bytes) {
    struct mpi *m = (struct mpi *)c;
    void *buffer = m->free_buffers;
    if (buffer)
        memcpy(&m->free_buffers, buffer, sizeof m->free_buffers);
    else
        buffer = malloc(FRAME_BYTES);
    if (!buffer || !reserve(m)) {
        free(buffer);
        return false;
    }
    memcpy(buffer, frame, bytes);
    MPI_Request request;
    enter(m, to);
    int done = 0, error = MPI_Isend(buffer, (int)bytes, MPI_BYTE, to, TAG_FRAME, m->frames, &request);
    if (error == MPI_SUCCESS)
        error = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    leave(m);
    if (error != MPI_SUCCESS)
        break_with(m, to, "MPI_Isend", error);
    if (error != MPI_SUCCESS || done)
        give_back(m, buffer);
    else
        add(m, request, (struct pending){PENDING_FRAME, to, bytes, buffer});
    return true;
}

static bool send_piece(struct carrier *c, int to, uint32_t slot, const void *data, size_t bytes, void *cookie) {
    struct mpi *m = (struct mpi *)c;
    MPI_Request request;
    if (!reserve(m))
        return false;
    enter(m, to);
    int error = MPI_Isend(data, (int)bytes, MPI_BYTE, to, (int)slot, m->pieces, &request);
    leave(m);
    if (error == MPI_SUCCESS)
        add(m, request, (struct pending){PENDING_PIECE_OUT, to, bytes, cookie});
    else
        break_with(m, to, "MPI_Isend", error);
    return true;
}

static bool receive_piece(struct carrier *c, int from, uint32_t slot, void *data, size_t bytes, void *cookie) {
    struct mpi *m = (struct mpi *)c;
    MPI_Request request;
    if (!reserve(m))
        return false;
    enter(m, from);
    int error = MPI_Irecv(data, (int)bytes, MPI_BYTE, from, (int)slot, m->pieces, &request);
    leave(m);
    if (error == MPI_SUCCESS)
        add(m, request, (struct pending){PENDING_PIECE_IN, from, bytes, cookie});
    else
        break_with(m, from, "MPI_Irecv", error);
    return true;
}

static MPI_Datatype type_of(mx_dtype t) {
    switch (t) {
    case MX_F64: return MPI_DOUBLE;
    case MX_F32: return MPI_FLOAT;
    case MX_I64: return MPI_INT64_T;
    case MX_I32: return MPI_INT32_T;
    case MX_I16: return MPI_INT16_T;
    case MX_I8: return MPI_INT8_T;
    case MX_U64: return MPI_UINT64_T;
    case MX_U32: return MPI_UINT32_T;
    case MX_U16: return MPI_UINT16_T;
    case MX_U8: return MPI_UINT8_T;
    default: return MPI_DATATYPE_NULL;
    }
}

static bool all_reduce(struct carrier *c, void *data, int64_t elements, mx_dtype dtype, void *cookie) {
    struct mpi *m = (struct mpi *)c;
    MPI_Datatype type = type_of(dtype);
    if (type == MPI_DATATYPE_NULL || elements > INT32_MAX || !reserve(m))
        return false;
    if (!data) /* only asked whether there is one */
        return true;
    MPI_Request request;
    enter(m, -1);
    int error = MPI_Iallreduce(MPI_IN_PLACE, data, (int)elements, type, MPI_SUM, m->sums, &request);
    leave(m);
    if (error != MPI_SUCCESS)
        return false;
    add(m, request, (struct pending){PENDING_SUM, -1, 0, cookie});
    return true;
}

static bool poll_frames(struct mpi *m, const struct carrier_events *events, void *context) {
    int got = 0;
    for (; got < MOST_FRAMES; got++) {
        MPI_Status status;
        enter(m, -1);
        int done = 0, bytes = 0, error = MPI_Test(&m->ring[m->head], &done, &status);
        leave(m);
        if (error != MPI_SUCCESS) {
            break_with(m, done && status.MPI_SOURCE >= 0 ? status.MPI_SOURCE : m->carrier.rank, "receiving", error);
            return false;
        }
        if (!done)
            break;
        char *buffer = m->ring_buffers + (size_t)m->head * FRAME_BYTES;
        (void)MPI_Get_count(&status, MPI_BYTE, &bytes);
        events->frame(context, status.MPI_SOURCE, buffer, (size_t)bytes);
        enter(m, -1);
        error = MPI_Start(&m->ring[m->head]);
        leave(m);
        if (error != MPI_SUCCESS)
            break_with(m, m->carrier.rank, "MPI_Start", error);
        m->head = (m->head + 1) % RING;
    }
    return got > 0;
}

static bool poll_pending(struct mpi *m, const struct carrier_events *events, void *context) {
    int done = 0;
    if (m->count == 0)
        return false;
    enter(m, -1);
    int error = MPI_Testsome(m->count, m->requests, &done, m->indices, m->statuses);
    leave(m);
    if (done == MPI_UNDEFINED || done <= 0)
        return false;
    /* Out of the list first: events start more. */
    struct pending *ended = malloc((size_t)done * sizeof *ended);
    if (!ended) {
        break_with(m, m->carrier.rank, "malloc", MPI_ERR_NO_MEM);
        return false;
    }
    for (int i = 0; i < done; i++) {
        struct pending *p = &ended[i];
        int bytes = 0, failed = error == MPI_ERR_IN_STATUS ? m->statuses[i].MPI_ERROR : error;
        *p = m->pending[m->indices[i]];
        m->pending[m->indices[i]].peer = -2; /* gone */
        if (failed != MPI_SUCCESS) {
            break_with(m, p->peer >= 0 ? p->peer : m->carrier.rank, "a message", failed);
            p->cookie = p->kind == PENDING_FRAME ? p->cookie : NULL;
        } else if (p->kind == PENDING_PIECE_IN) {
            (void)MPI_Get_count(&m->statuses[i], MPI_BYTE, &bytes);
            if ((size_t)bytes != p->bytes) {
                break_with(m, p->peer, "a piece of another length than was announced", MPI_ERR_COUNT);
                p->cookie = NULL;
            }
        }
    }
    int kept = 0;
    for (int i = 0; i < m->count; i++) {
        if (m->pending[i].peer == -2)
            continue;
        m->pending[kept] = m->pending[i];
        m->requests[kept++] = m->requests[i];
    }
    m->count = kept;
    for (int i = 0; i < done; i++) {
        struct pending *p = &ended[i];
        switch (p->kind) {
        case PENDING_FRAME:
            give_back(m, p->cookie);
            m->frames_out--;
            break;
        case PENDING_PIECE_OUT:
            if (p->cookie)
                events->piece_sent(context, p->cookie, p->bytes);
            break;
        case PENDING_PIECE_IN:
            if (p->cookie)
                events->piece_received(context, p->cookie, p->bytes);
            break;
        case PENDING_SUM:
            if (p->cookie)
                events->reduced(context, p->cookie);
            break;
        }
    }
    free(ended);
    return true;
}

static bool poll(struct carrier *c, const struct carrier_events *events, void *context) {
    struct mpi *m = (struct mpi *)c;
    bool moved = poll_frames(m, events, context);
    moved |= poll_pending(m, events, context);
    if (m->broken_rank >= 0) {
        events->broken(context, m->broken_rank, m->broken);
        m->broken_rank = -1;
        moved = true;
    }
    return moved;
}

static bool flushed(struct carrier *c) {
    return ((struct mpi *)c)->frames_out == 0;
}

/* Memory is only touched while MPI makes progress, and that it does only when it is called. */
static void stop(struct carrier *c) {
    (void)c;
}

static void close_carrier(struct carrier *c, bool orderly) {
    struct mpi *m = (struct mpi *)c;
    if (!orderly) /* what MPI still knows of stays */
        return;
    for (int i = 0; i < RING; i++) {
        int done = 0;
        (void)MPI_Cancel(&m->ring[i]);
        (void)MPI_Test(&m->ring[i], &done, MPI_STATUS_IGNORE);
        (void)MPI_Request_free(&m->ring[i]);
    }
    (void)MPI_Comm_free(&m->frames);
    (void)MPI_Comm_free(&m->pieces);
    (void)MPI_Comm_free(&m->sums);
    if (m->ours)
        (void)MPI_Finalize();
    for (void *b = m->free_buffers, *next; b; b = next) {
        memcpy(&next, b, sizeof next);
        free(b);
    }
    free(m->nodes);
    free(m->ring_buffers);
    free(m->requests);
    free(m->pending);
    free(m->indices);
    free(m->statuses);
    free(m);
}

static void set_wake(struct carrier *c, void (*wake)(void *context), void *context) {
    (void)c, (void)wake, (void)context;
}

static const struct carrier_operations operations = {
    .version = CARRIER_VERSION,
    .send_frame = send_frame,
    .send_piece = send_piece,
    .receive_piece = receive_piece,
    .poll = poll,
    .flushed = flushed,
    .stop = stop,
    .close = close_carrier,
    .take_over = take_over,
    .poll_ns = POLL_NS,
    .set_wake = set_wake,
    .all_reduce = all_reduce,
};

/* A piece is sent when its receive stands ready, so Open MPI need not ask for it by a handshake of its own, which over TCP costs a round
 * trip for each piece. And a socket that takes megabytes makes the offer of the next bucket, or what is needed first, stand behind
 * them: so it is to hold little more than a piece, enough for 1 Gbit/s over 2 ms or 100 Gbit/s over 20 µs. Whoever has set these
 * limits knows better. */
static void set_limits_of_tcp(void) {
    static const struct {
        const char *name;
        int bytes;
    } limits[] = {{"OMPI_MCA_btl_tcp_eager_limit", PIECE_BYTES + 4096}, /* and headers */
                  {"OMPI_MCA_btl_tcp_rndv_eager_limit", PIECE_BYTES + 4096},
                  {"OMPI_MCA_btl_tcp_max_send_size", PIECE_BYTES + 4096},
                  {"OMPI_MCA_btl_tcp_sndbuf", 200000}}; /* of which Linux makes twice as many */
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        char bytes[20];
        (void)snprintf(bytes, sizeof bytes, "%d", limits[i].bytes);
        (void)setenv(limits[i].name, bytes, 0);
    }
}

/* Ranks that can share memory are a node, known by its first one. */
static mx_status find_nodes(struct mpi *m, struct mxrt_why *why) {
    MPI_Comm node;
    int first = m->carrier.rank;
    m->nodes = calloc((size_t)m->carrier.size, sizeof *m->nodes);
    if (!m->nodes)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for the MPI job");
    int error = MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, first, MPI_INFO_NULL, &node);
    if (error == MPI_SUCCESS) {
        error = MPI_Bcast(&first, 1, MPI_INT, 0, node);
        (void)MPI_Comm_free(&node);
    }
    if (error == MPI_SUCCESS)
        error = MPI_Allgather(&first, 1, MPI_INT, m->nodes, 1, MPI_INT, MPI_COMM_WORLD);
    if (error != MPI_SUCCESS)
        return mxrt_fail(why, MX_ERROR_PEER, "the nodes of the MPI job cannot be found (%d)", error);
    m->carrier.nodes = m->nodes;
    return MX_OK;
}

static mx_status begin(struct mpi *m, struct mxrt_why *why) {
    int begun = 0, ended = 0, level = MPI_THREAD_SINGLE;
    (void)MPI_Initialized(&begun);
    (void)MPI_Finalized(&ended);
    if (ended)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "MPI_Finalize was called before: there is one MPI a process");
    m->ours = !begun;
    if (m->ours)
        set_limits_of_tcp();
    if (begun) {
        (void)MPI_Query_thread(&level);
        if (level < MPI_THREAD_MULTIPLE)
            return mxrt_fail(why, MX_ERROR_UNSUPPORTED,
                             "this program began MPI itself, without MPI_THREAD_MULTIPLE, which another thread that "
                             "calls it needs: begin it with that, or after mxrt_net_open");
    } else if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS ||
               level < MPI_THREAD_SERIALIZED) {
        return mxrt_fail(why, MX_ERROR_UNSUPPORTED, "this MPI does not let threads call it (MPI_THREAD_SERIALIZED)");
    }
#if OMPI_MAJOR_VERSION == 4
    /* Its help about a lost connection goes by way of mpirun, which has been seen to crash in printing it, and takes the job along. What is
     * to be said about a loss, the net says. */
    bool *quiet = dlsym(RTLD_DEFAULT, "orte_execute_quiet");
    if (m->ours && quiet)
        *quiet = true;
    keep_from_aborting(m);
#endif
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &m->carrier.rank);
    (void)MPI_Comm_size(MPI_COMM_WORLD, &m->carrier.size);
    if (m->ours)
        (void)MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm *made[] = {&m->frames, &m->pieces, &m->sums};
    for (int i = 0; i < 3; i++) {
        int error = MPI_Comm_dup(MPI_COMM_WORLD, made[i]);
        if (error != MPI_SUCCESS)
            return mxrt_fail(why, MX_ERROR_PEER, "the ranks of the MPI job cannot be joined (MPI_Comm_dup: %d)", error);
        (void)MPI_Comm_set_errhandler(*made[i], MPI_ERRORS_RETURN);
    }
    for (int i = 0; i < RING; i++) {
        int error = MPI_Recv_init(m->ring_buffers + (size_t)i * FRAME_BYTES, FRAME_BYTES, MPI_BYTE, MPI_ANY_SOURCE,
                                  TAG_FRAME, m->frames, &m->ring[i]);
        if (error == MPI_SUCCESS)
            error = MPI_Start(&m->ring[i]);
        if (error != MPI_SUCCESS)
            return mxrt_fail(why, MX_ERROR_PEER, "MPI cannot receive (%d)", error);
    }
    return find_nodes(m, why);
}

mx_status mxrt_mpi_create_carrier(struct carrier **c, int version, struct mxrt_why *why);
mx_status mxrt_mpi_create_carrier(struct carrier **c, int version, struct mxrt_why *why) {
    if (version != CARRIER_VERSION)
        return mxrt_fail(why, MX_ERROR_UNSUPPORTED,
                         "libmxrt-mpi.so is of another version (%d) than the program's libmxrt (%d): link it again",
                         CARRIER_VERSION, version);
    struct mpi *m = calloc(1, sizeof *m);
    if (!m || !(m->ring_buffers = calloc(RING, FRAME_BYTES)) || !reserve(m)) {
        free(m);
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory for the MPI job");
    }
    m->carrier.operations = &operations;
    m->broken_rank = -1;
    mx_status status = begin(m, why);
    if (status == MX_OK)
        *c = &m->carrier;
    return status; /* else m stays: MPI may know its buffers */
}
