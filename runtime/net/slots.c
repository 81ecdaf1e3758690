/* Two small containers. Slots: numbers for objects that other ranks name in what they send. A pointer sent back by a peer could not
 * be trusted, an index alone would let a late message reach the next object; so a number is an index and a turn of its
 * use. Heap: a binary one, for what waits by priority. */
#include <stdlib.h>

#include "internal.h"

enum { INDEX_BITS = 20, TURN_BITS = 10, MOST = 1 << INDEX_BITS };

uint32_t slots_add(struct slots *s, void *object) {
    if (s->first_free == 0) { /* 1 + index; 0: none */
        if (s->count == s->room) {
            uint32_t room = s->room ? s->room * 2 : 64;
            void *at = room <= MOST ? realloc(s->at, room * sizeof *s->at) : NULL;
            if (!at)
                return NO_SLOT;
            s->at = at;
            s->room = room;
        }
        s->at[s->count].turn = 0;
        s->at[s->count].next_free = 0;
        s->first_free = ++s->count;
    }
    uint32_t index = s->first_free - 1;
    s->first_free = s->at[index].next_free;
    s->at[index].object = object;
    return s->at[index].turn << INDEX_BITS | index;
}

bool slots_ever(const struct slots *s, uint32_t slot) {
    return slot >> (INDEX_BITS + TURN_BITS) == 0 && (slot & (MOST - 1)) < s->count;
}

void *slots_get(const struct slots *s, uint32_t slot) {
    if (!slots_ever(s, slot) || s->at[slot & (MOST - 1)].turn != slot >> INDEX_BITS)
        return NULL;
    return s->at[slot & (MOST - 1)].object;
}

void slots_remove(struct slots *s, uint32_t slot) {
    uint32_t index = slot & (MOST - 1);
    s->at[index].object = NULL;
    s->at[index].turn = (s->at[index].turn + 1) & ((1 << TURN_BITS) - 1);
    s->at[index].next_free = s->first_free;
    s->first_free = index + 1;
}

bool heap_put(struct heap *h, void *object, bool (*before)(const void *, const void *)) {
    if (h->count == h->room) {
        int room = h->room ? h->room * 2 : 16;
        void *at = realloc(h->at, (size_t)room * sizeof *h->at);
        if (!at)
            return false;
        h->at = at;
        h->room = room;
    }
    int i = h->count++;
    for (; i > 0 && before(object, h->at[(i - 1) / 2]); i = (i - 1) / 2)
        h->at[i] = h->at[(i - 1) / 2];
    h->at[i] = object;
    return true;
}

void *heap_take(struct heap *h, bool (*before)(const void *, const void *)) {
    if (h->count == 0)
        return NULL;
    void *top = h->at[0], *last = h->at[--h->count];
    int i = 0;
    for (int child; (child = 2 * i + 1) < h->count; i = child) {
        if (child + 1 < h->count && before(h->at[child + 1], h->at[child]))
            child++;
        if (!before(h->at[child], last))
            break;
        h->at[i] = h->at[child];
    }
    h->at[i] = last;
    return top;
}
