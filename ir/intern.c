/* Hash-consing tables and memo tables, on uthash. Entries live in arenas; only uthash's bucket arrays are on
 * the heap. */
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

struct memo_entry {
    int id;
    const void *value;
    UT_hash_handle hh;
};

const void *memo_get(const struct memo *m, int id) {
    struct memo_entry *found;
    HASH_FIND_INT(m->head, &id, found);
    return found ? found->value : NULL;
}

void memo_put(struct memo *m, int id, const void *value) {
    struct memo_entry *e = ARENA_NEW(&m->arena, struct memo_entry);
    e->id = id;
    e->value = value;
    HASH_ADD_INT(m->head, id, e);
}

void memo_set(struct memo *m, int id, const void *value) {
    struct memo_entry *found;
    HASH_FIND_INT(m->head, &id, found);
    if (found)
        found->value = value;
    else
        memo_put(m, id, value);
}

void memo_free(struct memo *m) {
    HASH_CLEAR(hh, m->head);
    arena_free(&m->arena);
}
