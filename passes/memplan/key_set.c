/* States that led nowhere, by open addressing with linear probing: a search adds millions of them, asks as often, and removes none. With
 * `most` set the set is emptied when it has so many, which bounds its memory and costs a search no more than time.
 */
#include "passes/memplan/key_set.h"

#include <stdlib.h>
#include <string.h>

uint64_t key_mix(uint64_t x) { /* splitmix64 (Steele et al. 2014) */
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

static struct state_key *place_of(struct state_key *keys, size_t size, struct state_key k) {
    size_t i = (size_t)k.a & (size - 1);
    while ((keys[i].a || keys[i].b) && (keys[i].a != k.a || keys[i].b != k.b))
        i = (i + 1) & (size - 1);
    return &keys[i];
}

static void grow(struct key_set *s) {
    size_t size = s->size ? 2 * s->size : 1024;
    struct state_key *keys = calloc(size, sizeof *keys);
    if (!keys)
        abort();
    for (size_t i = 0; i < s->size; i++)
        if (s->keys[i].a || s->keys[i].b)
            *place_of(keys, size, s->keys[i]) = s->keys[i];
    free(s->keys);
    s->keys = keys;
    s->size = size;
}

void key_set_add(struct key_set *s, struct state_key k) {
    if (s->most && s->count >= s->most) {
        memset(s->keys, 0, sizeof *s->keys * s->size);
        s->count = 0;
    }
    if (2 * s->count >= s->size)
        grow(s);
    struct state_key *at = place_of(s->keys, s->size, k);
    s->count += !at->a && !at->b;
    *at = k;
}

bool key_set_has(const struct key_set *s, struct state_key k) {
    if (!s->size)
        return false;
    const struct state_key *at = place_of(s->keys, s->size, k);
    return at->a || at->b;
}

void key_set_free(struct key_set *s) {
    free(s->keys);
    *s = (struct key_set){0};
}
