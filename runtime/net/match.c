/* Which message is for which receive: by sender, space, tag and part, first come first matched among equals.
 *
 * Two hash tables over the same keys, of receives that wait and of messages that wait; at most one of them holds a given key.
 * Chains keep the order of arrival, so equal keys need nothing more; the tables double with what they hold, since hundreds
 * of collectives in parts make thousands of receives at a time. */
#include <stdlib.h>

#include "internal.h"

static uint32_t hash(const struct key *k) {
    uint64_t h = k->tag * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 29 ^ k->sub) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 32 ^ (uint64_t)k->peer << 3 ^ (uint64_t)k->space) * 0x94d049bb133111ebu;
    return (uint32_t)(h >> 32);
}

static bool equal(const struct key *a, const struct key *b) {
    return a->tag == b->tag && a->sub == b->sub && a->peer == b->peer && a->space == b->space;
}

#define APPEND(bucket, object)                \
    do {                                      \
        (object)->chain = NULL;               \
        if ((bucket)->last)                   \
            (bucket)->last->chain = (object); \
        else                                  \
            (bucket)->first = (object);       \
        (bucket)->last = (object);            \
    } while (0)
/* The first of that key, or NULL. */
#define TAKE(type, bucket, key, counter)                    \
    do {                                                    \
        type *before = NULL, *at = (bucket)->first;         \
        for (; at && !equal(&at->key, key); at = at->chain) \
            before = at;                                    \
        if (!at)                                            \
            return NULL;                                    \
        if (before)                                         \
            before->chain = at->chain;                      \
        else                                                \
            (bucket)->first = at->chain;                    \
        if ((bucket)->last == at)                           \
            (bucket)->last = before;                        \
        (counter)--;                                        \
        return at;                                          \
    } while (0)

static bool make(struct match *m, uint32_t room) {
    m->ins = calloc(room, sizeof *m->ins);
    m->arrived = calloc(room, sizeof *m->arrived);
    m->mask = room - 1;
    return m->ins && m->arrived;
}

bool match_begin(struct mxrt_net *n) {
    return make(&n->match, 256);
}

void match_forget_all(struct mxrt_net *n) {
    struct match *m = &n->match;
    for (uint32_t b = 0; m->ins && m->arrived && b <= m->mask; b++) {
        m->ins[b] = (struct in_bucket){NULL, NULL};
        for (struct arrived *a = m->arrived[b].first, *next; a; a = next) {
            next = a->chain;
            free(a);
        }
        m->arrived[b] = (struct arrived_bucket){NULL, NULL};
    }
    m->in_count = m->arrived_count = 0;
}

void match_clear(struct mxrt_net *n) {
    match_forget_all(n);
    free(n->match.ins);
    free(n->match.arrived);
}

static bool reserve(struct match *m) {
    if (m->in_count + m->arrived_count <= m->mask || m->mask >= 1u << 24)
        return true;
    struct match wide = *m;
    if (!make(&wide, (m->mask + 1) * 4)) {
        free(wide.ins);
        free(wide.arrived);
        return false;
    }
    for (uint32_t b = 0; b <= m->mask; b++) {
        for (struct in *i = m->ins[b].first, *next; i; i = next) {
            next = i->chain;
            APPEND(&wide.ins[hash(&i->key) & wide.mask], i);
        }
        for (struct arrived *a = m->arrived[b].first, *next; a; a = next) {
            next = a->chain;
            APPEND(&wide.arrived[hash(&a->key) & wide.mask], a);
        }
    }
    free(m->ins);
    free(m->arrived);
    *m = wide;
    return true;
}

bool match_expect(struct mxrt_net *n, struct in *i) {
    if (!reserve(&n->match))
        return false;
    APPEND(&n->match.ins[hash(&i->key) & n->match.mask], i);
    n->match.in_count++;
    return true;
}

bool match_keep(struct mxrt_net *n, struct arrived *a) {
    if (!reserve(&n->match))
        return false;
    APPEND(&n->match.arrived[hash(&a->key) & n->match.mask], a);
    n->match.arrived_count++;
    return true;
}

struct in *match_take_in(struct mxrt_net *n, const struct key *key) {
    TAKE(struct in, &n->match.ins[hash(key) & n->match.mask], key, n->match.in_count);
}

struct arrived *match_take_arrived(struct mxrt_net *n, const struct key *key) {
    TAKE(struct arrived, &n->match.arrived[hash(key) & n->match.mask], key, n->match.arrived_count);
}
