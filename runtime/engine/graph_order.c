/* Order in a graph that changes: of nodes, by labels; of one variable's accesses, by treaps (Seidel and Aragon 1996)
 * that know where the writes are. Nodes are compared by their labels, which are spread again around an insertion that
 * finds no gap (the list labelling of Bender, Cole, Demaine, Farach-Colton and Zito, "Two Simplified Algorithms for
 * Maintaining Order in a List", ESA 2002): O(log n) moved labels an insertion, amortized. Trees stay right when labels
 * move, because the order does not. */
#include "graph_internal.h"

#define STEP  ((uint64_t)1 << 20) /* between nodes appended one after the other */
#define LIMIT ((uint64_t)1 << 62)

/* Spreads the labels of the smallest range around n that is sparse enough: one of 2^i labels may have (2/T)^i nodes,
 * with T = 1.5. */
static void spread(struct mxrt_node *n) {
    double allowed = 1;
    struct mxrt_node *first = n, *last = n;
    uint64_t count = 1;
    for (int bits = 1; bits <= 62; bits++) {
        allowed *= 2 / 1.5;
        uint64_t size = (uint64_t)1 << bits, from = n->label & ~(size - 1), to = from + (size - 1);
        for (; first->previous && first->previous->label >= from; count++)
            first = first->previous;
        for (; last->next && last->next->label <= to; count++)
            last = last->next;
        if ((double)count > allowed || size / count < 4)
            continue;
        uint64_t gap = size / count, label = from + gap / 2;
        for (struct mxrt_node *x = first;; x = x->next, label += gap) {
            x->label = label;
            if (x == last)
                return;
        }
    }
}

void order_insert(struct order *o, struct mxrt_node *n, struct mxrt_node *before) {
    struct mxrt_node *after = before ? before->previous : o->last;
    if (before && (after ? before->label - after->label : before->label) < 2)
        spread(before);
    if (!before && after && after->label > LIMIT - STEP)
        spread(after);
    if (!before)
        n->label = after ? after->label + STEP : LIMIT / 2;
    else
        n->label = after ? after->label + (before->label - after->label) / 2 : before->label / 2;
    n->previous = after;
    n->next = before;
    *(after ? &after->next : &o->first) = n;
    *(before ? &before->previous : &o->last) = n;
}

void order_remove(struct order *o, struct mxrt_node *n) {
    *(n->previous ? &n->previous->next : &o->first) = n->next;
    *(n->next ? &n->next->previous : &o->last) = n->previous;
}

/* ---- trees */

static bool below(const struct link *l) {
    return l && l->writer_below;
}

static void update(struct link *l) {
    l->writer_below = l->write || below(l->left) || below(l->right);
}

static struct link **slot_of(struct place *p, struct link *l) {
    return !l->up ? &p->root : l->up->left == l ? &l->up->left : &l->up->right;
}

/* l, a child, and its parent change places. */
static void rotate(struct place *p, struct link *l) {
    struct link *up = l->up, **slot = slot_of(p, up), *moved;
    if (up->left == l) {
        moved = up->left = l->right;
        l->right = up;
    } else {
        moved = up->right = l->left;
        l->left = up;
    }
    if (moved)
        moved->up = up;
    l->up = up->up;
    up->up = l;
    *slot = l;
    update(up);
    update(l);
}

void tree_insert(struct place *p, struct link *l, uint32_t weight) {
    struct link **slot = &p->root, *up = NULL;
    while (*slot) {
        up = *slot;
        slot = l->node->label < up->node->label ? &up->left : &up->right;
    }
    l->place = p;
    p->writers += l->write;
    l->left = l->right = NULL;
    l->up = up;
    l->weight = weight;
    *slot = l;
    for (struct link *x = l; x; x = x->up)
        update(x);
    while (l->up && l->up->weight < l->weight)
        rotate(p, l);
}

void tree_remove(struct place *p, struct link *l) {
    while (l->left || l->right)
        rotate(p, !l->left || (l->right && l->right->weight > l->left->weight) ? l->right : l->left);
    *slot_of(p, l) = NULL;
    p->writers -= l->write;
    for (struct link *x = l->up; x; x = x->up)
        update(x);
}

struct link *tree_first(const struct place *p) {
    struct link *l = p->root;
    while (l && l->left)
        l = l->left;
    return l;
}

struct link *tree_next(const struct link *l) {
    if (l->right) {
        struct link *x = l->right;
        while (x->left)
            x = x->left;
        return x;
    }
    while (l->up && l->up->right == l)
        l = l->up;
    return l->up;
}

static struct link *last_writer(struct link *l) {
    while (below(l)) {
        if (below(l->right))
            l = l->right;
        else if (l->write)
            return l;
        else
            l = l->left;
    }
    return NULL;
}

struct link *tree_last_writer(const struct place *p) {
    return last_writer(p->root);
}

struct link *tree_writer_after(const struct link *l) {
    const struct link *from = l->right;
    while (!below(from) && l->up) {
        bool left = l->up->left == l;
        l = l->up;
        if (left && l->write)
            return (struct link *)l;
        from = left ? l->right : NULL;
    }
    while (below(from)) {
        if (below(from->left))
            from = from->left;
        else if (from->write)
            return (struct link *)from;
        else
            from = from->right;
    }
    return NULL;
}

struct link *tree_writer_before(const struct link *l) {
    struct link *w = last_writer(l->left);
    for (; !w && l->up; l = l->up) {
        if (l->up->right == l)
            w = l->up->write ? l->up : last_writer(l->up->left);
    }
    return w;
}
