/* Bump allocation. Everything the compiler builds (AST, IR, plans) lives in an arena and is freed with it. */
#ifndef MXCC_BASE_ARENA_H
#define MXCC_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct arena {
    struct arena_chunk *chunk; /* newest first; NULL before the first allocation */
};

/* Zeroed memory aligned to 16 bytes, owned by the arena. Never NULL: exhausted memory ends the process with status 3. */
void *arena_alloc(struct arena *a, size_t bytes);
void *arena_copy(struct arena *a, const void *data, size_t bytes);
char *arena_strdup(struct arena *a, const char *text);
char *arena_strndup(struct arena *a, const char *text, size_t length);
char *arena_printf(struct arena *a, const char *format, ...) __attribute__((format(printf, 2, 3), nonnull(2)));
char *arena_vprintf(struct arena *a, const char *format, va_list args)
    __attribute__((format(printf, 2, 0), nonnull(2)));
void arena_free(struct arena *a);

#define ARENA_NEW(a, type)      ((type *)arena_alloc((a), sizeof(type)))
#define ARENA_ARRAY(a, type, n) ((type *)arena_alloc((a), sizeof(type) * (size_t)(n)))

/* Growing array in an arena: declare `struct { T *at; int n, cap; } v;` (zeroed) and VEC_PUSH(arena, v, item).
 * Old storage stays in the arena until it is freed; doubling bounds that by the final size. */
#define VEC(T)      \
    struct {        \
        T *at;      \
        int n, cap; \
    }
#define VEC_PUSH(arena, v, ...)                                           \
    do {                                                                  \
        if ((v).n == (v).cap)                                             \
            (v).at = vec_grow((arena), (v).at, sizeof *(v).at, &(v).cap); \
        (v).at[(v).n++] = (__VA_ARGS__);                                  \
    } while (0)
void *vec_grow(struct arena *a, void *old, size_t element, int *cap);

#endif
