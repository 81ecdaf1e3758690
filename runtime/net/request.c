/* Requests: messages that need no receive. They are served in the order in which their sender made them, although large ones take an
 * offer, a grant and pieces while small ones come at once: each sender has a queue, and only what stands at its head is served.
 * Memory for large ones is granted as far as `memory_limit` goes; the rest wait at their sender. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* What the service gets a pointer into, so that release needs no more than that. */
struct parcel {
    size_t bytes;
    _Alignas(64) char data[];
};

struct request {
    struct request *next;
    int from, service;
    uint64_t word;
    uint32_t slot;
    bool granted, complete;
    size_t bytes;
    struct parcel *parcel;
};

static struct parcel *parcel_new(size_t bytes) {
    void *p = NULL;
    if (bytes > SIZE_MAX / 2 || posix_memalign(&p, 64, sizeof(struct parcel) + bytes) != 0)
        return NULL;
    ((struct parcel *)p)->bytes = bytes;
    return p;
}

void mxrt_net_release(void *data) {
    if (data)
        free((char *)data - offsetof(struct parcel, data));
}

mx_status mxrt_net_offer(struct mxrt_net *n, int service, mxrt_net_service *f, void *context, struct mxrt_why *why) {
    if (service < 0 || service >= MXRT_NET_SERVICES)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "a service is a function and a number from 0 to %d, not %d",
                         MXRT_NET_SERVICES - 1, service);
    pthread_mutex_lock(&n->lock);
    while (!f && n->serving == service)
        pthread_cond_wait(&n->wake, &n->lock);
    bool taken = f && n->services[service].f != NULL;
    if (!taken) {
        n->services[service].f = f;
        n->services[service].context = context;
    }
    pthread_mutex_unlock(&n->lock);
    return taken ? mxrt_fail(why, MX_ERROR_ARGUMENT, "service %d is offered already", service) : MX_OK;
}

static void received(struct mxrt_net *n, struct task *t) {
    struct in *i = (struct in *)t;
    struct request *r = i->owner;
    bool ok = i->status == MX_OK;
    in_drop(i);
    n->request_bytes -= r->bytes;
    if (ok) {
        r->complete = true;
        request_serve(n);
    } else { /* all end, and request_drop_all left this one to us */
        free(r->parcel);
        free(r);
    }
}

static void serve(struct mxrt_net *n, struct request *r) {
    pthread_mutex_lock(&n->lock);
    mxrt_net_service *f = n->services[r->service].f;
    void *context = n->services[r->service].context;
    n->serving = f ? r->service : -1;
    pthread_mutex_unlock(&n->lock);
    if (f) {
        f(context, r->from, r->word, r->parcel->data, r->bytes);
        pthread_mutex_lock(&n->lock);
        n->serving = -1;
        pthread_cond_broadcast(&n->wake);
        pthread_mutex_unlock(&n->lock);
    } else {
        free(r->parcel);
        fault_lose(n, r->from, "%s asked for service %d, which rank %d does not offer", n->peers[r->from].name,
                   r->service, n->rank);
    }
    free(r);
}

static void grant(struct mxrt_net *n, struct request *r) {
    struct key key = {r->from, SPACE_REQUEST, r->word, (uint64_t)r->service};
    struct parcel *p = parcel_new(r->bytes);
    struct in *i = p ? in_new(n, key, p->data, r->bytes, received, r) : NULL;
    if (!i) {
        free(p);
        fault_lose(n, n->rank, "no memory for a request of %zu bytes from %s", r->bytes, n->peers[r->from].name);
        return;
    }
    r->parcel = p;
    r->granted = true;
    n->request_bytes += r->bytes;
    i->peer_slot = r->slot;
    wire_fetch(n, i, p->data);
}

void request_serve(struct mxrt_net *n) {
    for (int q = 0; q < n->size && n->doomed < 0 && !n->dead; q++) {
        struct peer *p = &n->peers[q];
        for (struct request *r; (r = p->first_request) && r->complete && n->doomed < 0;) {
            if (!(p->first_request = r->next))
                p->last_request = NULL;
            n->waiting_bytes -= sizeof *r + (r->granted ? 0 : r->bytes);
            serve(n, r);
        }
        for (struct request *r = p->first_request; r && n->doomed < 0; r = r->next) {
            if (r->granted || r->complete)
                continue;
            if (n->request_bytes > 0 && n->request_bytes + r->bytes > n->memory_limit)
                break;
            grant(n, r);
        }
    }
}

void request_arrived(struct mxrt_net *n, int from, const struct frame *f, const void *payload) {
    struct peer *p = &n->peers[from];
    bool whole = f->kind == FRAME_EAGER;
    size_t cost = sizeof(struct request) + (whole ? f->bytes : 0);
    if (f->sub >= MXRT_NET_SERVICES || f->bytes > n->memory_limit || n->waiting_bytes + cost > n->memory_limit) {
        fault_lose(n, from,
                   "%s made a request of %llu bytes to service %llu; rank %d takes services below %d, and %zu bytes at "
                   "a time (memory_limit)",
                   p->name, (unsigned long long)f->bytes, (unsigned long long)f->sub, n->rank, MXRT_NET_SERVICES,
                   n->memory_limit);
        return;
    }
    struct request *r = calloc(1, sizeof *r);
    if (r)
        *r = (struct request){.from = from,
                              .service = (int)f->sub,
                              .word = f->tag,
                              .slot = f->slot,
                              .complete = whole,
                              .bytes = f->bytes,
                              .parcel = whole ? parcel_new(f->bytes) : NULL};
    if (!r || (whole && !r->parcel)) {
        free(r);
        fault_lose(n, n->rank, "no memory for a request from %s", p->name);
        return;
    }
    if (whole && r->bytes > 0)
        memcpy(r->parcel->data, payload, r->bytes);
    n->waiting_bytes += cost;
    if (p->last_request)
        p->last_request->next = r;
    else
        p->first_request = r;
    p->last_request = r;
    request_serve(n);
}

void request_drop_all(struct mxrt_net *n) {
    for (int q = 0; q < n->size; q++) {
        struct peer *p = &n->peers[q];
        for (struct request *r = p->first_request, *next; r; r = next) {
            next = r->next;
            if (r->granted && !r->complete)
                continue; /* `received` frees it */
            free(r->parcel);
            free(r);
        }
        p->first_request = p->last_request = NULL;
    }
}
