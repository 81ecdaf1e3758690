/* Small collectives of many ranks: partial sums up a binomial tree, the result down again.
 *
 * Rank r sums ranks r … r + 2^k - 1 as its children r + 1, r + 2, r + 4 … report, in this order, which is the tree that is
 * prescribed: its node for [r, r + 2^(k+1)) is the one for [r, r + 2^k) plus the one for the rest. Between ranks f16 and bf16 go
 * as f32, since they are to be rounded once. A broadcast goes down the same tree with the ranks turned so that its root is 0. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "sum.h"

enum { LEVELS = 31 };

struct tree {
    size_t bytes, partial_bytes; /* of all elements */
    int children, next;          /* children 0 … next - 1 have been added */
    bool came[LEVELS];
    char *mine;  /* partial_bytes: the sum so far */
    char *child; /* [children, partial_bytes] */
    int waiting;
};

static void step(struct mxrt_net *n, struct collective *c) {
    struct tree *t = c->tree;
    if (--t->waiting > 0)
        return;
    free(t->mine);
    free(t->child);
    free(t);
    collective_end(n, c);
}

static void sent(struct mxrt_net *n, struct task *t) {
    struct collective *c = ((struct out *)t)->owner;
    out_drop((struct out *)t);
    step(n, c);
}

static void send(struct mxrt_net *n, struct collective *c, int to, uint64_t sub, const void *data, size_t bytes) {
    if (collective_send(n, c, to, sub, data, bytes, sent, c, 0))
        c->tree->waiting++;
}

/* ---- down: the result is in x */

static int turned(const struct mxrt_net *n, const struct collective *c, int rank) {
    int root = c->op == OP_BROADCAST ? c->root : 0;
    return (rank - root + n->size) % n->size;
}

static void send_down(struct mxrt_net *n, struct collective *c) {
    int v = turned(n, c, n->rank), root = c->op == OP_BROADCAST ? c->root : 0, top = 1;
    while (top < n->size && !(v & top))
        top *= 2;
    for (int bit = top / 2; bit > 0; bit /= 2) {
        if (v + bit < n->size)
            send(n, c, (v + bit + root) % n->size, 1, c->x.data, c->tree->bytes);
    }
}

static void came_down(struct mxrt_net *n, struct task *t) {
    struct in *i = (struct in *)t;
    struct collective *c = i->owner;
    bool ok = i->status == MX_OK && !n->dead;
    in_drop(i);
    if (ok && c->op != OP_REDUCE)
        send_down(n, c);
    step(n, c);
}

static void down_start(struct mxrt_net *n, struct collective *c, int from) {
    if (collective_receive(n, c, from, 1, c->x.data, c->tree->bytes, NULL, came_down, c, 0))
        c->tree->waiting++;
}

/* ---- up */

/* All children are in: on to the parent, or the sum is complete. */
static void up_ended(struct mxrt_net *n, struct collective *c) {
    struct tree *t = c->tree;
    if (n->rank != 0) {
        send(n, c, n->rank & (n->rank - 1), 0, t->mine, t->partial_bytes);
        if (c->op == OP_ALL_REDUCE)
            down_start(n, c, n->rank & (n->rank - 1));
        else if (n->rank == c->root)
            down_start(n, c, 0);
    } else if (c->op == OP_ALL_REDUCE || c->root == 0) {
        sum_narrow(c->x.dtype, c->x.data, t->mine, c->x.elements);
        if (c->op == OP_ALL_REDUCE)
            send_down(n, c);
    } else { /* what the children sent has been added: their place is free */
        sum_narrow(c->x.dtype, t->child, t->mine, c->x.elements);
        send(n, c, c->root, 1, t->child, t->bytes);
    }
}

static void came_up(struct mxrt_net *n, struct task *task) {
    struct in *i = (struct in *)task;
    struct collective *c = i->owner;
    struct tree *t = c->tree;
    t->came[i->index] = i->status == MX_OK;
    in_drop(i);
    if (!n->dead && t->next < t->children) {
        for (; t->next < t->children && t->came[t->next]; t->next++)
            sum_two(sum_partial_type(c->x.dtype), t->mine, t->mine, t->child + (size_t)t->next * t->partial_bytes,
                    c->x.elements);
        if (t->next == t->children)
            up_ended(n, c);
    }
    step(n, c);
}

void tree_start(struct mxrt_net *n, struct collective *c) {
    struct tree *t = c->tree = calloc(1, sizeof *t);
    if (!t) {
        fault_lose(n, n->rank, "no memory for collective %llu", (unsigned long long)c->id);
        collective_end(n, c);
        return;
    }
    t->bytes = (size_t)c->x.elements * c->element_bytes;
    t->waiting = 1;
    if (c->op == OP_BROADCAST) {
        int v = turned(n, c, n->rank);
        if (v == 0)
            send_down(n, c);
        else
            down_start(n, c, ((v & (v - 1)) + c->root) % n->size);
        step(n, c);
        return;
    }
    t->partial_bytes = (size_t)c->x.elements * sum_element_bytes(sum_partial_type(c->x.dtype));
    for (int bit = 1; bit < n->size && !(n->rank & bit) && n->rank + bit < n->size; bit *= 2)
        t->children++;
    t->mine = malloc(t->partial_bytes);
    t->child = malloc(t->partial_bytes * (size_t)(t->children ? t->children : 1));
    if (!t->mine || !t->child) {
        fault_lose(n, n->rank, "no memory for collective %llu", (unsigned long long)c->id);
    } else {
        sum_widen(c->x.dtype, t->mine, c->x.data, c->x.elements);
        int children = t->children;
        for (int k = 0; k < children; k++) {
            if (collective_receive(n, c, n->rank + (1 << k), 0, t->child + (size_t)k * t->partial_bytes,
                                   t->partial_bytes, NULL, came_up, c, k))
                t->waiting++;
        }
        if (children == 0)
            up_ended(n, c);
    }
    step(n, c);
}
