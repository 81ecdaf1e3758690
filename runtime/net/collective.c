/* Collectives as they are asked for, and which way each goes.
 *
 * All ways give the same bits, because all add along the same tree of ranks (sum.c); so the choice is one of time alone, made from
 * numbers that are the same on every rank: ranks, nodes, bytes, and what messages cost (way.c). */
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "sum.h"

enum { TREE_BYTES = 16384 }; /* of a reduce, or a broadcast */

static const char operation_name[][12] = {"nothing", "all_reduce", "reduce", "broadcast", "all_gather"};
static const char type_name[][5] = {"f64", "f32", "f16", "bf16", "i64", "i32", "i16",
                                    "i8",  "u64", "u32", "u16",  "u8",  "bool"};

/* What must agree: operation, type, elements, and root or way. */
static uint64_t check_of(const struct collective *c) {
    const unsigned which = c->op == OP_ALL_REDUCE ? (unsigned)way_digest(&c->way) : (unsigned)c->root;
    return (uint64_t)c->op << 60 | (uint64_t)c->x.dtype << 56 | (uint64_t)which << 40 |
           ((uint64_t)c->x.elements & 0xffffffffff);
}

static void describe(char *text, size_t room, uint64_t check) {
    unsigned op = check >> 60, type = check >> 56 & 15;
    (void)snprintf(text, room, "%s of %llu %s, %s %u", operation_name[op <= OP_ALL_GATHER ? op : 0],
                   (unsigned long long)(check & 0xffffffffff), type <= MX_BOOL ? type_name[type] : "?",
                   op == OP_ALL_REDUCE ? "by way" : "root", (unsigned)(check >> 40 & 0xffff));
}

void collective_check_failed(struct mxrt_net *n, int from, const struct key *key, uint64_t mine, uint64_t theirs) {
    char a[100], b[100];
    describe(a, sizeof a, theirs);
    describe(b, sizeof b, mine);
    fault_lose(n, from, "%s asked for collective %llu as %s, rank %d as %s", n->peers[from].name,
               (unsigned long long)key->tag, a, n->rank, b);
}

void collective_end(struct mxrt_net *n, struct collective *c) {
    /* What failed for want of memory here may end before all else does. */
    bool failed = n->dead || n->doomed >= 0;
    net_called(n, c->done, c->context, failed ? MX_ERROR_PEER : MX_OK, n->dead ? n->lost.text : failed ? n->doom : "");
    free(c);
}

struct out *collective_send(struct mxrt_net *n, struct collective *c, int to, uint64_t sub, const void *data,
                            size_t bytes, void (*ended)(struct mxrt_net *, struct task *), void *owner, int index) {
    struct out *o = out_new(n, (struct key){to, SPACE_COLLECTIVE, c->id, sub}, data, bytes, ended, owner);
    if (!o) {
        fault_lose(n, n->rank, "no memory for collective %llu", (unsigned long long)c->id);
        return NULL;
    }
    o->check = c->check;
    o->priority = c->priority;
    o->index = index;
    wire_send(n, o);
    return o;
}

struct in *collective_receive(struct mxrt_net *n, struct collective *c, int from, uint64_t sub, void *data,
                              size_t bytes, void (*held)(struct mxrt_net *, struct in *),
                              void (*ended)(struct mxrt_net *, struct task *), void *owner, int index) {
    struct in *i = in_new(n, (struct key){from, SPACE_COLLECTIVE, c->id, sub}, data, bytes, ended, owner);
    if (!i) {
        fault_lose(n, n->rank, "no memory for collective %llu", (unsigned long long)c->id);
        return NULL;
    }
    i->check = c->check;
    i->held = held;
    i->index = index;
    wire_receive(n, i);
    return i;
}

/* ---- all_gather: one message to each, one from each */

static void gather_step(struct mxrt_net *n, struct collective *c) {
    if (--c->waiting == 0)
        collective_end(n, c);
}

static void gather_sent(struct mxrt_net *n, struct task *t) {
    struct collective *c = ((struct out *)t)->owner;
    out_drop((struct out *)t);
    gather_step(n, c);
}

static void gather_received(struct mxrt_net *n, struct task *t) {
    struct collective *c = ((struct in *)t)->owner;
    in_drop((struct in *)t);
    gather_step(n, c);
}

static void gather_start(struct mxrt_net *n, struct collective *c) {
    size_t bytes = (size_t)c->x.elements;
    char *out = c->x.data, *own = out + (size_t)n->rank * bytes;
    if (bytes > 0 && own != c->mine)
        memcpy(own, c->mine, bytes);
    c->waiting = 1;
    for (int k = 1; k < n->size; k++) {
        int from = (n->rank - k + n->size) % n->size, to = (n->rank + k) % n->size;
        c->waiting += 2;
        if (!collective_receive(n, c, from, 0, out + (size_t)from * bytes, bytes, NULL, gather_received, c, 0))
            c->waiting--;
        if (!collective_send(n, c, to, 0, own, bytes, gather_sent, c, 0))
            c->waiting--;
    }
    gather_step(n, c);
}

/* ---- */

static void start(struct mxrt_net *n, struct task *t) {
    struct collective *c = (struct collective *)t;
    size_t bytes = (size_t)c->x.elements * c->element_bytes;
    if (c->op != OP_ALL_REDUCE)
        c->way = way_direct(n->size, (int)c->element_bytes);
    else if (n->size > 1 && c->x.elements > 0)
        c->way = way_choose(&n->way, c->x.elements, (int)c->element_bytes,
                            (int)sum_element_bytes(sum_partial_type(c->x.dtype)));
    c->check = check_of(c);
    if (n->dead || (c->op != OP_ALL_GATHER && (c->x.elements == 0 || n->size == 1)))
        collective_end(n, c);
    else if (c->op == OP_ALL_GATHER)
        gather_start(n, c);
    else if (c->op == OP_ALL_REDUCE && fast_start(n, c))
        return;
    else if (c->op == OP_ALL_REDUCE ? c->way.kind == WAY_TREE : bytes <= TREE_BYTES)
        tree_start(n, c);
    else
        stages_start(n, c);
}

static void ask(struct mxrt_net *n, struct collective c) {
    const char *wrong = c.element_bytes == 0                                       ? "an element type of status.h"
                        : c.x.elements < 0 || c.x.elements > INT64_C(0xffffffffff) ? "0 to 2^40 - 1 elements"
                        : !c.x.data && c.x.elements > 0                            ? "data"
                        : c.root < 0 || c.root >= n->size                          ? "a root that is a rank"
                        : n->size > 0xffff                                         ? "fewer than 65536 ranks"
                                                                                   : NULL;
    if (wrong) {
        net_answer(n, c.done, c.context, MX_ERROR_ARGUMENT, "%s needs %s (type %d, %lld elements, root %d)",
                   operation_name[c.op], wrong, (int)c.x.dtype, (long long)c.x.elements, c.root);
        return;
    }
    struct collective *copy = malloc(sizeof *copy);
    if (!copy) {
        net_answer(n, c.done, c.context, MX_ERROR_MEMORY, "no memory for one more collective");
        return;
    }
    *copy = c;
    copy->task.run = start;
    net_ask(n, &copy->task);
}

void mxrt_net_all_reduce(struct mxrt_net *n, uint64_t id, int priority, struct mxrt_net_range x, mxrt_net_done *done,
                         void *context) {
    ask(n, (struct collective){.op = OP_ALL_REDUCE,
                               .id = id,
                               .priority = priority,
                               .x = x,
                               .element_bytes = sum_element_bytes(x.dtype),
                               .done = done,
                               .context = context});
}

void mxrt_net_reduce(struct mxrt_net *n, uint64_t id, int priority, int root, struct mxrt_net_range x,
                     mxrt_net_done *done, void *context) {
    ask(n, (struct collective){.op = OP_REDUCE,
                               .id = id,
                               .priority = priority,
                               .root = root,
                               .x = x,
                               .element_bytes = sum_element_bytes(x.dtype),
                               .done = done,
                               .context = context});
}

void mxrt_net_broadcast(struct mxrt_net *n, uint64_t id, int priority, int root, struct mxrt_net_range x,
                        mxrt_net_done *done, void *context) {
    ask(n, (struct collective){.op = OP_BROADCAST,
                               .id = id,
                               .priority = priority,
                               .root = root,
                               .x = x,
                               .element_bytes = sum_element_bytes(x.dtype),
                               .done = done,
                               .context = context});
}

void mxrt_net_all_gather(struct mxrt_net *n, uint64_t id, int priority, const void *mine, size_t bytes, void *out,
                         mxrt_net_done *done, void *context) {
    if (bytes > INT64_MAX || (!mine && bytes > 0)) {
        net_answer(n, done, context, MX_ERROR_ARGUMENT, "all_gather needs data (%zu bytes)", bytes);
        return;
    }
    ask(n, (struct collective){.op = OP_ALL_GATHER,
                               .id = id,
                               .priority = priority,
                               .x = {out, (int64_t)bytes, MX_U8},
                               .element_bytes = 1,
                               .mine = mine,
                               .done = done,
                               .context = context});
}
