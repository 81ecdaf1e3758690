/* Hash-consing tables, on uthash, whose entries live in arenas and bucket arrays on the heap; and memo tables. */
#include "ir/intern.h"

#include <uthash.h>

struct intern_entry {
    UT_hash_handle hh;
    const void *item;
};

const void *intern_find(struct intern_entry *table, const int64_t *key, int words) {
    struct intern_entry *found;
    HASH_FIND(hh, table, key, (size_t)words * sizeof *key, found);
    return found ? found->item : NULL;
}

void intern_add(struct arena *a, struct intern_entry **table, const int64_t *key, int words, const void *item) {
    struct intern_entry *e = ARENA_NEW(a, struct intern_entry);
    size_t bytes = (size_t)words * sizeof *key;
    const int64_t *copy = arena_copy(a, key, bytes);
    e->item = item;
    HASH_ADD_KEYPTR(hh, *table, copy, bytes, e);
}

void intern_free(struct ir_interner *i) {
    HASH_CLEAR(hh, i->dims);
    HASH_CLEAR(hh, i->atoms);
    HASH_CLEAR(hh, i->exprs);
}

static struct memo_entry *memo_slot(struct memo_entry *at, int capacity, int id) {
    uint32_t h = (uint32_t)id * 2654435769u;
    for (h ^= h >> 15;; h++) {
        struct memo_entry *e = &at[h & (uint32_t)(capacity - 1)];
        if (!e->value || e->id == id)
            return e;
    }
}

const void *memo_get(const struct memo *m, int id) {
    if (!m->count)
        return NULL;
    struct memo_entry *at = m->more ? m->more : (struct memo_entry *)m->first;
    return memo_slot(at, m->more ? m->capacity : MEMO_FIRST, id)->value;
}

void memo_set(struct memo *m, int id, const void *value) {
    struct memo_entry *at = m->more ? m->more : m->first;
    int capacity = m->more ? m->capacity : MEMO_FIRST;
    struct memo_entry *e = memo_slot(at, capacity, id);
    if (!e->value && 2 * ++m->count > capacity) {
        struct memo_entry *grown = ARENA_ARRAY(&m->arena, struct memo_entry, 4 * capacity);
        for (int i = 0; i < capacity; i++)
            if (at[i].value)
                *memo_slot(grown, 4 * capacity, at[i].id) = at[i];
        m->more = grown;
        m->capacity = 4 * capacity;
        e = memo_slot(grown, m->capacity, id);
    }
    *e = (struct memo_entry){id, value};
}

void memo_free(struct memo *m) {
    arena_free(&m->arena);
}
