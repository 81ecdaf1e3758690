/* Sums by the carrier's own all-reduce, for who prefers speed to fixed bits (`fast`).
 *
 * A library's collective must be entered in the same order on all ranks, ours need not be. So each rank tells rank 0 when it is ready
 * for one; when all are, rank 0 says so, and the order in which it does is the order for everyone (what Horovod's coordinator
 * does). That costs two short messages, hence only large sums go this way. */
#include <stdlib.h>

#include "internal.h"

enum { SMALLEST = 1 << 16 };

struct vote {
    struct vote *next;
    uint64_t id, check;
    int count;
};

struct waiting {
    struct waiting *next;
    struct collective *c;
    bool running;
};

struct fast {
    struct vote *votes; /* rank 0 */
    struct waiting *waiting;
};

bool fast_start(struct mxrt_net *n, struct collective *c) {
    const struct carrier_operations *carrier = n->carrier->operations;
    if (!n->fast || !carrier->all_reduce || (size_t)c->x.elements * c->element_bytes < SMALLEST ||
        !carrier->all_reduce(n->carrier, NULL, 0, c->x.dtype, NULL))
        return false;
    struct waiting *w = calloc(1, sizeof *w);
    if (!n->fast_state)
        n->fast_state = calloc(1, sizeof *n->fast_state);
    if (!w || !n->fast_state) {
        free(w);
        fault_lose(n, n->rank, "no memory for collective %llu", (unsigned long long)c->id);
        collective_end(n, c);
        return true;
    }
    w->c = c;
    struct waiting **last = &n->fast_state->waiting;
    while (*last)
        last = &(*last)->next;
    *last = w;
    struct frame f = {.kind = FRAME_READY, .tag = c->id, .check = c->check};
    wire_frame(n, 0, &f, NULL, 0);
    return true;
}

static void ready(struct mxrt_net *n, int from, const struct frame *f) {
    if (!n->fast || n->rank != 0) {
        fault_lose(n, from, "%s is ready for a collective of the library, and rank %d was not opened with `fast`",
                   n->peers[from].name, n->rank);
        return;
    }
    if (!n->fast_state)
        n->fast_state = calloc(1, sizeof *n->fast_state);
    struct vote **at = n->fast_state ? &n->fast_state->votes : NULL;
    while (at && *at && (*at)->id != f->tag)
        at = &(*at)->next;
    struct vote *v = at ? *at : NULL;
    if (at && !v && (v = *at = calloc(1, sizeof *v))) {
        v->id = f->tag;
        v->check = f->check;
    }
    if (!v) {
        fault_lose(n, 0, "no memory for collective %llu", (unsigned long long)f->tag);
        return;
    }
    if (v->check != f->check) {
        struct key key = {from, SPACE_COLLECTIVE, f->tag, 0};
        collective_check_failed(n, from, &key, v->check, f->check);
        return;
    }
    if (++v->count < n->size)
        return;
    *at = v->next;
    struct frame start = {.kind = FRAME_START, .tag = v->id, .check = v->check};
    for (int q = 0; q < n->size; q++)
        wire_frame(n, q, &start, NULL, 0);
    free(v);
}

void fast_frame(struct mxrt_net *n, int from, const struct frame *f) {
    if (f->kind == FRAME_READY) {
        ready(n, from, f);
        return;
    }
    for (struct waiting *w = n->fast_state ? n->fast_state->waiting : NULL; w; w = w->next) {
        if (w->c->id == f->tag && w->c->check == f->check && !w->running && from == 0) {
            w->running = true;
            if (!n->carrier->operations->all_reduce(n->carrier, w->c->x.data, w->c->x.elements, w->c->x.dtype, w))
                fault_lose(n, n->rank, "the library has no sum for collective %llu", (unsigned long long)f->tag);
            return;
        }
    }
    fault_lose(n, from, "%s starts collective %llu, for which rank %d is not ready", n->peers[from].name,
               (unsigned long long)f->tag, n->rank);
}

static void end(struct mxrt_net *n, struct waiting *w) {
    struct waiting **at = &n->fast_state->waiting;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    collective_end(n, w->c);
    free(w);
}

void fast_reduced(void *context, void *cookie) {
    end(context, cookie);
}

void fast_end_all(struct mxrt_net *n) {
    while (n->fast_state && n->fast_state->waiting)
        end(n, n->fast_state->waiting);
}

void fast_drop(struct mxrt_net *n) {
    for (struct vote *v = n->fast_state ? n->fast_state->votes : NULL, *next; v; v = next) {
        next = v->next;
        free(v);
    }
    free(n->fast_state);
}
