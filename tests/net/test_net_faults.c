/* What other ranks do wrong: a carrier between threads that repeats, damages, withholds or makes up what one rank sends. The others
 * end with a message that names it and says what was wrong, or do not notice where nothing was lost. */
#include <unistd.h>

#include "exercise.h"
#include "net/internal.h"

enum { RANKS = 4, CULPRIT = 2, ANY_RANK = RANKS };
/* With nodes of two ranks a sum has two stages, each with summands down and sums back up: the culprit begins with the first such message. */
enum phase { ANY = -1, DOWN_INSIDE, UP_INSIDE, DOWN_ACROSS, UP_ACROSS };
enum mischief { NOTHING, REPEAT, SILENCE, DAMAGE, SKIP, SHORT_PIECE, UNKNOWN_GRANT, LATE_GRANT, HANG_UP, HANG };

/* Everything goes to `inner`, but for what the culprit sends. */
struct tampered {
    struct carrier carrier;
    struct carrier *inner;
    enum mischief mischief;
    enum phase phase;
    _Atomic bool begun;
    _Atomic int frames; /* that the culprit sent */
    struct frame grant; /* the first one */
    int granted_to;
    _Atomic bool hangs; /* in a frame for rank 0 */
};

enum { BEGIN_AT = 300 };

static bool culprit_sends(struct tampered *t, int to, const void *frame, size_t bytes) {
    struct carrier *c = t->inner;
    _Alignas(16) char text[FRAME_BYTES];
    struct frame f;
    int count = atomic_fetch_add(&t->frames, 1);
    memcpy(text, frame, bytes);
    memcpy(&f, frame, sizeof f);
    bool now = false; /* the first one that is to be another */
    if (count >= BEGIN_AT && !atomic_load(&t->begun) &&
        (t->phase == ANY || (f.kind == FRAME_OFFER && f.space == SPACE_COLLECTIVE &&
                             (enum phase)(f.sub % (2 * (uint64_t)MOST_STAGES)) == t->phase))) {
        atomic_store(&t->begun, true);
        now = true;
    }
    if (f.kind == FRAME_GRANT && t->grant.kind == 0) {
        t->grant = f;
        t->granted_to = to;
    }
    switch (t->mischief) {
    case REPEAT:
        if (count % 3 == 0 && !c->operations->send_frame(c, to, frame, bytes))
            return false;
        break;
    case SILENCE:
        if (atomic_load(&t->begun))
            return true;
        break;
    case DAMAGE:
        if (now)
            text[8] = 77; /* the kind */
        break;
    case SKIP:
        if (now)
            return true;
        break;
    case UNKNOWN_GRANT:
        if (f.kind == FRAME_GRANT && atomic_load(&t->begun)) {
            f.slot = 12345;
            memcpy(text, &f, sizeof f);
        }
        break;
    case LATE_GRANT: /* one that was answered long ago, as if it were new */
        if (f.kind == FRAME_ALIVE && t->grant.kind != 0 && to == t->granted_to) {
            t->grant.sequence = f.sequence;
            memcpy(text, &t->grant, sizeof f);
        }
        break;
    case HANG:
        while (to == 0 && atomic_load(&t->begun)) {
            atomic_store(&t->hangs, true);
            (void)pause();
        }
        break;
    default: break;
    }
    return c->operations->send_frame(c, to, text, bytes);
}

static bool send_frame(struct carrier *c, int to, const void *frame, size_t bytes) {
    struct tampered *t = (struct tampered *)c;
    if (c->rank == CULPRIT)
        return culprit_sends(t, to, frame, bytes);
    return t->inner->operations->send_frame(t->inner, to, frame, bytes);
}

static bool send_piece(struct carrier *c, int to, uint32_t slot, const void *data, size_t bytes, void *cookie) {
    struct tampered *t = (struct tampered *)c;
    if (c->rank == CULPRIT && t->mischief == SHORT_PIECE && atomic_load(&t->begun))
        bytes -= 8;
    return t->inner->operations->send_piece(t->inner, to, slot, data, bytes, cookie);
}

static bool receive_piece(struct carrier *c, int from, uint32_t slot, void *data, size_t bytes, void *cookie) {
    struct carrier *i = ((struct tampered *)c)->inner;
    return i->operations->receive_piece(i, from, slot, data, bytes, cookie);
}

static bool poll(struct carrier *c, const struct carrier_events *events, void *context) {
    struct tampered *t = (struct tampered *)c;
    if (c->rank == CULPRIT && t->mischief == HANG_UP && atomic_load(&t->begun))
        events->broken(context, 0, "the cable is cut");
    return t->inner->operations->poll(t->inner, events, context);
}

static bool flushed(struct carrier *c) {
    struct carrier *i = ((struct tampered *)c)->inner;
    return i->operations->flushed(i);
}

static void stop(struct carrier *c) {
    struct carrier *i = ((struct tampered *)c)->inner;
    i->operations->stop(i);
}

static void close_tampered(struct carrier *c, bool orderly) {
    struct carrier *i = ((struct tampered *)c)->inner;
    i->operations->close(i, orderly);
    free(c);
}

static void set_wake(struct carrier *c, void (*wake)(void *context), void *context) {
    struct carrier *i = ((struct tampered *)c)->inner;
    i->operations->set_wake(i, wake, context);
}

/* The memory of a rank that is given up goes, and other threads can read it, where other processes could not. */
static bool take_over(struct carrier *c, int *peer) {
    bool hangs = atomic_load(&((struct tampered *)c)->hangs);
    *peer = 0;
    if (hangs)
        stop(c);
    return hangs;
}

static const struct carrier_operations operations = {
    .version = CARRIER_VERSION,
    .take_over = take_over,
    .send_frame = send_frame,
    .send_piece = send_piece,
    .receive_piece = receive_piece,
    .poll = poll,
    .flushed = flushed,
    .stop = stop,
    .close = close_tampered,
    .set_wake = set_wake,
};

struct rank {
    struct mxrt_net *net;
    pthread_t thread;
    bool ends; /* with a loss */
    int lost;
    double seconds; /* from the last sum that ended to the loss */
    struct mxrt_why reason;
};

static void *sums(void *context) {
    struct rank *r = context;
    enum { ELEMENTS = 400000, LIVE = 3 };
    float *x[LIVE];
    double last = net_clock();
    for (int k = 0; k < LIVE; k++)
        x[k] = malloc(ELEMENTS * sizeof(float));
    for (int round = 0; round < (r->ends ? 1 << 20 : 60); round++) {
        struct counter c;
        counter_init(&c, LIVE);
        for (int k = 0; k < LIVE; k++) {
            for (int i = 0; i < ELEMENTS; i++)
                x[k][i] = 1;
            mxrt_net_all_reduce(r->net, (uint64_t)k, 0, (struct mxrt_net_range){x[k], k == 0 ? 100 : ELEMENTS, MX_F32},
                                count_done, &c);
        }
        if (counter_wait(&c) > 0)
            break;
        for (int k = 0; k < LIVE; k++)
            CHECK(x[k][0] == RANKS && x[k][99] == RANKS && x[k][ELEMENTS - 1] == (k == 0 ? 1 : RANKS));
        last = net_clock();
        if (!r->ends && round % 10 == 0)
            sleep_us(60000); /* signs of life come between */
    }
    r->seconds = net_clock() - last;
    for (int k = 0; k < LIVE; k++)
        free(x[k]);
    r->lost = mxrt_net_lost(r->net, &r->reason);
    mxrt_net_close(r->net);
    return NULL;
}

/* The ranks but the culprit see `lost` lost (or, if that is ANY_RANK, some rank), with `words`; -1: nobody sees anything. Within `seconds` after all stopped, if not 0. */
static void try_in(enum phase phase, enum mischief mischief, double timeout, int lost, const char *words,
                   double seconds) {
    struct carrier *inner[RANKS];
    struct rank ranks[RANKS];
    struct mxrt_net_options options = {.timeout = timeout, .node_ranks = phase == ANY ? 0 : 2};
    OK(threads_create(inner, RANKS, why));
    for (int q = 0; q < RANKS; q++) {
        struct tampered *t = calloc(1, sizeof *t);
        *t = (struct tampered){
            .carrier = {&operations, q, RANKS, NULL}, .inner = inner[q], .mischief = mischief, .phase = phase};
        ranks[q] = (struct rank){.ends = lost >= 0};
        OK(net_create(&ranks[q].net, &t->carrier, &options, why));
        if (phase != ANY) { /* so that stages are worth it */
            ranks[q].net->way.near = (struct way_link){1e-7, 1e11, 1e-7};
            ranks[q].net->way.far = (struct way_link){1e-6, 1e8, 1e-7};
        }
    }
    for (int q = 0; q < RANKS; q++)
        CHECK(pthread_create(&ranks[q].thread, NULL, sums, &ranks[q]) == 0);
    for (int q = 0; q < RANKS; q++)
        CHECK(pthread_join(ranks[q].thread, NULL) == 0);
    for (int q = 0; q < RANKS; q++) {
        const struct rank *r = &ranks[q];
        bool wrong = (lost == ANY_RANK ? r->lost < 0 : r->lost != lost) ||
                     (lost >= 0 && !strstr(r->reason.text, words)) || (seconds > 0 && r->seconds > seconds);
        if (q != CULPRIT && wrong) {
            fprintf(stderr, "mischief %d in phase %d: rank %d: lost %d after %.2f s: %s\n", mischief, phase, q, r->lost,
                    r->seconds, r->reason.text);
            give_up();
        }
    }
}

static void try(enum mischief mischief, double timeout, int lost, const char *words, double seconds) {
    try_in(ANY, mischief, timeout, lost, words, seconds);
}

int main(void) {
    try(NOTHING, 0, -1, "", 0);
    try(REPEAT, 0, -1, "", 0);
    try(LATE_GRANT, 1, -1, "", 0);
    try(SILENCE, 1, CULPRIT, "has given no sign of life for 1.", 0);
    try(DAMAGE, 0, CULPRIT, "sent a malformed message: its kind is unknown", 0);
    try(SKIP, 0, CULPRIT, "sent a malformed message: one before it is missing", 0);
    try(SHORT_PIECE, 0, CULPRIT, "a piece of a message has another length than was announced", 0);
    try(UNKNOWN_GRANT, 0, CULPRIT, "answered a message that was not sent to it (number 12345)", 0);
    try(HANG_UP, 0, 0, "the cable is cut", 0);
    try(HANG, 1, ANY_RANK, "MPI hangs in a message for rank", 0);
    for (enum phase phase = DOWN_INSIDE; phase <= UP_ACROSS; phase++) {
        try_in(phase, REPEAT, 0, -1, "", 0);
        try_in(phase, SILENCE, 1, CULPRIT, "has given no sign of life for 1.", 0);
        try_in(phase, DAMAGE, 0, CULPRIT, "sent a malformed message: its kind is unknown", 0);
        try_in(phase, SKIP, 0, CULPRIT, "sent a malformed message: one before it is missing", 0);
        try_in(phase, SHORT_PIECE, 0, CULPRIT, "a piece of a message has another length than was announced", 0);
        try_in(phase, UNKNOWN_GRANT, 0, CULPRIT, "answered a message that was not sent to it (number 12345)", 0);
        try_in(phase, HANG_UP, 0, 0, "the cable is cut", 0);
        try_in(phase, HANG, 1, ANY_RANK, "MPI hangs in a message for rank", 0);
    }
    printf("net faults: passed\n");
    return 0;
}
