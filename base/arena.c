#include "base/arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, size;
    _Alignas(16) unsigned char data[];
};

enum { FIRST_CHUNK = 16384 };

static struct arena_chunk *new_chunk(struct arena *a, size_t bytes) {
    size_t size = a->chunk ? a->chunk->size * 2 : FIRST_CHUNK;
    if (size > (size_t)8 << 20)
        size = (size_t)8 << 20;
    if (size < bytes)
        size = bytes;
    struct arena_chunk *c = malloc(sizeof *c + size);
    if (!c) {
        fprintf(stderr, "mxcc: out of memory (%zu bytes)\n", size);
        exit(3);
    }
    c->used = 0;
    c->size = size;
    c->next = a->chunk;
    a->chunk = c;
    return c;
}

void *arena_alloc(struct arena *a, size_t bytes) {
    bytes = (bytes + 15) & ~(size_t)15;
    struct arena_chunk *c = a->chunk;
    if (!c || c->size - c->used < bytes)
        c = new_chunk(a, bytes);
    void *p = c->data + c->used;
    c->used += bytes;
    return memset(p, 0, bytes);
}

void *arena_copy(struct arena *a, const void *data, size_t bytes) {
    void *p = arena_alloc(a, bytes);
    return bytes ? memcpy(p, data, bytes) : p;
}

char *arena_strndup(struct arena *a, const char *text, size_t length) {
    char *p = arena_alloc(a, length + 1);
    memcpy(p, text, length);
    return p;
}

char *arena_strdup(struct arena *a, const char *text) {
    return arena_strndup(a, text, strlen(text));
}

char *arena_vprintf(struct arena *a, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    char *p = arena_alloc(a, (size_t)n + 1);
    vsnprintf(p, (size_t)n + 1, format, again);
    va_end(again);
    return p;
}

char *arena_printf(struct arena *a, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *p = arena_vprintf(a, format, args);
    va_end(args);
    return p;
}

void arena_free(struct arena *a) {
    for (struct arena_chunk *c = a->chunk, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    a->chunk = NULL;
}

void *vec_grow(struct arena *a, void *old, size_t element, int *cap) {
    int n = *cap;
    *cap = n ? n * 2 : 8;
    void *p = arena_alloc(a, element * (size_t)*cap);
    return n ? memcpy(p, old, element * (size_t)n) : p;
}
