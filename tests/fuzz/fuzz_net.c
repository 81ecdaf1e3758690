/* libFuzzer entry: what other ranks may send to a net. The input is a list of steps for a carrier of three ranks, of which this is
 * rank 1: frames of any content, frames that are nearly right (numbers that this rank gave out, the right sequence), pieces
 * that arrive, pieces that are taken, things that this rank asks for. The net must not touch what it does not own (ASan), and
 * what was asked for must end exactly once, at the latest when the net is lost. */
#include <stdlib.h>
#include <string.h>

#include "net/internal.h"

enum { RANKS = 3, ME = 1, MOST = 512, MOST_ASKED = 200, SERVICE = 2 };

struct step {
    const uint8_t *at, *end;
};

struct piece {
    void *cookie;
    char *data;
    size_t bytes;
};

struct fake {
    struct carrier carrier;
    struct step *step;
    uint32_t sequence[RANKS];
    uint32_t slots[16]; /* that this rank named last */
    unsigned slot_count;
    struct piece in[MOST], out[MOST];
    int in_count, out_count;
    bool stopped;
};

static unsigned take(struct step *s) {
    return s->at < s->end ? *s->at++ : 0;
}

static bool send_frame(struct carrier *c, int to, const void *frame, size_t bytes) {
    struct fake *k = (struct fake *)c;
    struct frame f;
    if (to < 0 || to >= RANKS || bytes < sizeof f || bytes > FRAME_BYTES || k->stopped)
        abort();
    memcpy(&f, frame, sizeof f);
    if (f.kind == FRAME_OFFER)
        k->slots[k->slot_count++ % 16] = f.slot;
    return true;
}

static bool send_piece(struct carrier *c, int to, uint32_t slot, const void *data, size_t bytes, void *cookie) {
    struct fake *k = (struct fake *)c;
    if (to < 0 || to >= RANKS || slot >> SLOT_BITS || bytes == 0 || bytes > PIECE_BYTES || k->stopped)
        abort();
    if (k->out_count == MOST)
        return false;
    k->out[k->out_count++] = (struct piece){cookie, (char *)(uintptr_t)data, bytes};
    return true;
}

static bool receive_piece(struct carrier *c, int from, uint32_t slot, void *data, size_t bytes, void *cookie) {
    struct fake *k = (struct fake *)c;
    if (from < 0 || from >= RANKS || slot >> SLOT_BITS || bytes == 0 || bytes > PIECE_BYTES || k->stopped)
        abort();
    if (k->in_count == MOST)
        return false;
    k->in[k->in_count++] = (struct piece){cookie, data, bytes};
    return true;
}

static struct piece take_piece(struct piece *list, int *count, unsigned which) {
    unsigned i = which % (unsigned)*count;
    struct piece p = list[i];
    memmove(&list[i], &list[i + 1], (size_t)(--*count - (int)i) * sizeof *list);
    return p;
}

/* A frame with what a rank in order would say, but for one byte. */
static void nearly(struct fake *k, struct step *s, const struct carrier_events *events, void *context) {
    _Alignas(16) char text[FRAME_BYTES] = {0};
    static const uint64_t lengths[] = {
        0, 1, 8, 400, EAGER_BYTES, EAGER_BYTES + 1, 40000, 600000, UINT64_C(1) << 40, UINT64_MAX};
    unsigned from = take(s) % RANKS, slot = take(s);
    struct frame f = {
        .magic = FRAME_MAGIC, .kind = (uint8_t)(take(s) % FRAME_KINDS), .space = (uint8_t)(take(s) % SPACES)};
    f.sequence = k->sequence[from];
    f.tag = take(s) % 8;
    f.sub = take(s) % 4;
    f.bytes = lengths[take(s) % 10];
    f.slot = slot < 16 ? k->slots[slot] : slot;
    f.other = take(s);
    unsigned check = take(s);
    if (f.space == SPACE_COLLECTIVE) /* all_reduce of 100 or 15001 f32, or something else */
        f.check = UINT64_C(1) << 60 | UINT64_C(1) << 56 | (check == 0 ? 100 : check == 1 ? 15001 : check);
    size_t payload = f.kind == FRAME_EAGER && f.bytes <= EAGER_BYTES                           ? (size_t)f.bytes
                     : f.kind == FRAME_HELLO || f.kind == FRAME_LOST || f.kind == FRAME_REFUSE ? 5
                                                                                               : 0;
    unsigned where = take(s), what = take(s);
    memcpy(text, &f, sizeof f);
    for (size_t i = 0; i < payload && i < 64; i++)
        text[sizeof f + i] = (char)take(s);
    if (where < sizeof f)
        text[where] = (char)(text[where] ^ (char)what);
    k->sequence[from]++;
    events->frame(context, (int)from, text, sizeof f + payload - (where == 64 && payload > 0));
}

static bool poll(struct carrier *c, const struct carrier_events *events, void *context) {
    struct fake *k = (struct fake *)c;
    struct step *s = k->step;
    if (!s || s->at >= s->end)
        return false;
    unsigned what = take(s);
    if (what < 128) {
        nearly(k, s, events, context);
    } else if (what < 150) {
        unsigned from = take(s) % RANKS;
        size_t bytes = (size_t)(take(s) | (take(s) & 3) << 8), there = (size_t)(s->end - s->at);
        char *copy = malloc(bytes ? bytes : 1); /* so that reading past it shows */
        bytes = bytes < there ? bytes : there;
        memcpy(copy, s->at, bytes);
        s->at += bytes;
        events->frame(context, (int)from, copy, bytes);
        free(copy);
    } else if (what < 200 && k->in_count > 0) {
        struct piece p = take_piece(k->in, &k->in_count, take(s));
        memset(p.data, (int)take(s), p.bytes);
        events->piece_received(context, p.cookie, p.bytes);
    } else if (what < 250 && k->out_count > 0) {
        struct piece p = take_piece(k->out, &k->out_count, take(s));
        volatile char sum = 0;
        for (size_t i = 0; i < p.bytes; i += 4096)
            sum = (char)(sum + p.data[i]);
        events->piece_sent(context, p.cookie, p.bytes);
    } else if (what == 255) {
        events->broken(context, (int)(take(s) % RANKS), "it broke");
    }
    return true;
}

static bool flushed(struct carrier *c) {
    (void)c;
    return true;
}

static void stop(struct carrier *c) {
    ((struct fake *)c)->stopped = true;
}

static void close_fake(struct carrier *c, bool orderly) {
    (void)c, (void)orderly;
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
    .close = close_fake,
    .set_wake = set_wake,
};

/* Each with memory of its own, freed when it ends: what is written later shows. */
struct asked {
    int *left;
    char *data, *more;
    bool ended;
};

static void done(void *context, mx_status status, const char *message) {
    struct asked *a = context;
    if (a->ended || (status != MX_OK) != (message[0] != 0))
        abort();
    a->ended = true;
    free(a->data);
    free(a->more);
    --*a->left;
}

static void serve(void *context, int from, uint64_t word, void *data, size_t bytes) {
    (void)context, (void)word;
    if (from < 0 || from >= RANKS)
        abort();
    memset(data, 1, bytes);
    mxrt_net_release(data);
}

static void ask(struct mxrt_net *n, struct asked *a, int *left, unsigned what) {
    size_t bytes = !(what & 16) ? 400 : what % 7 < 3 ? 300004 : 60004;
    int64_t elements = (int64_t)bytes / 4;
    int peer = (int)(what >> 5) % RANKS;
    *a = (struct asked){.left = left, .data = malloc(bytes), .more = what % 7 == 5 ? malloc(RANKS * bytes) : NULL};
    ++*left;
    struct mxrt_net_range x = {a->data, elements, MX_F32};
    uint64_t tag = what & 7;
    switch (what % 7) {
    case 0: mxrt_net_send(n, peer, tag, a->data, bytes, done, a); break;
    case 1: mxrt_net_receive(n, peer, tag, a->data, bytes, done, a); break;
    case 2: mxrt_net_request(n, peer, SERVICE, tag, a->data, bytes, done, a); break;
    case 3: mxrt_net_reduce(n, tag, 0, peer, x, done, a); break;
    case 4: mxrt_net_broadcast(n, tag, 0, peer, x, done, a); break;
    case 5: mxrt_net_all_gather(n, tag, 0, a->data, bytes, a->more, done, a); break;
    case 6: mxrt_net_all_reduce(n, tag, (int)what, x, done, a); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct step s = {data, data + size};
    struct fake *k = calloc(1, sizeof *k);
    struct asked *asked = calloc(MOST_ASKED, sizeof *asked);
    struct mxrt_net_options options = {.memory_limit = 1 << 20, .timeout = 1000};
    struct mxrt_net *n;
    struct mxrt_why why;
    int asked_count = 0, left = 0;
    k->carrier = (struct carrier){&operations, ME, RANKS, NULL};
    if (net_new(&n, &k->carrier, &options, &why) != MX_OK || mxrt_net_offer(n, SERVICE, serve, NULL, &why) != MX_OK)
        abort();
    net_begin(n);
    for (int q = 0; q < RANKS; q++) { /* they introduce themselves */
        struct frame f = {.magic = FRAME_MAGIC, .kind = FRAME_HELLO, .tag = 17};
        wire_events.frame(n, q, &f, sizeof f);
        k->sequence[q] = 1;
    }
    k->step = &s;
    while (s.at < s.end && !n->dead) {
        if (*s.at % 4 == 3 && asked_count < MOST_ASKED) {
            take(&s);
            ask(n, &asked[asked_count++], &left, take(&s));
        }
        (void)net_poll(n);
        fault_watch(n);
    }
    k->step = NULL;
    fault_lose(n, 0, "the end");
    fault_watch(n);
    while (net_poll(n))
        continue;
    if (left != 0 || n->pending != 0 || !n->dead || mxrt_net_lost(n, &why) < 0 || !why.text[0])
        abort();
    net_drop(n);
    free(asked);
    free(k);
    return 0;
}
