/* A growing string, heap-owned. */
#ifndef MXCC_BASE_TEXT_H
#define MXCC_BASE_TEXT_H

#include <stdarg.h>
#include <stddef.h>

struct text {
    char *data; /* always terminated once something was added; NULL while empty */
    size_t length, capacity;
};

void text_add(struct text *t, const char *string);
void text_addn(struct text *t, const char *bytes, size_t n);
void text_printf(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3), nonnull(2)));
void text_vprintf(struct text *t, const char *format, va_list args) __attribute__((format(printf, 2, 0), nonnull(2)));
void text_free(struct text *t);
/* The content, "" while empty; valid until the next change. */
const char *text_string(const struct text *t);

/* The whole file as a heap string with a terminating 0 (free it), its size in *bytes; NULL with errno set on failure. */
char *file_read(const char *path, size_t *bytes);
/* Writes beside the target and renames, so that a failure leaves the old file; 0, or -1 with errno set. */
int file_write(const char *path, const void *data, size_t bytes);

#endif
