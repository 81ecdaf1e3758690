#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void reserve(struct text *t, size_t more) {
    size_t need = t->length + more + 1;
    if (need <= t->capacity)
        return;
    size_t capacity = t->capacity ? t->capacity : 256;
    while (capacity < need)
        capacity *= 2;
    char *p = realloc(t->data, capacity);
    if (!p) {
        fprintf(stderr, "mxcc: out of memory (%zu bytes)\n", capacity);
        exit(3);
    }
    t->data = p;
    t->capacity = capacity;
}

void text_addn(struct text *t, const char *bytes, size_t n) {
    reserve(t, n);
    memcpy(t->data + t->length, bytes, n);
    t->length += n;
    t->data[t->length] = 0;
}

void text_add(struct text *t, const char *string) {
    text_addn(t, string, strlen(string));
}

void text_vprintf(struct text *t, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    reserve(t, (size_t)n);
    vsnprintf(t->data + t->length, (size_t)n + 1, format, again);
    t->length += (size_t)n;
    va_end(again);
}

void text_printf(struct text *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    text_vprintf(t, format, args);
    va_end(args);
}

void text_free(struct text *t) {
    free(t->data);
    *t = (struct text){0};
}

const char *text_string(const struct text *t) {
    return t->data ? t->data : "";
}

char *file_read(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    struct stat st;
    if (fstat(fileno(f), &st) == 0 && S_ISDIR(st.st_mode)) {
        fclose(f);
        errno = EISDIR;
        return NULL;
    }
    struct text t = {0};
    char buffer[65536];
    size_t n;
    reserve(&t, 0);
    t.data[0] = 0;
    while ((n = fread(buffer, 1, sizeof buffer, f)) > 0)
        text_addn(&t, buffer, n);
    int failed = ferror(f) ? errno : 0;
    fclose(f);
    if (failed) {
        text_free(&t);
        errno = failed;
        return NULL;
    }
    if (bytes)
        *bytes = t.length;
    return t.data;
}

int file_write(const char *path, const void *data, size_t bytes) {
    struct stat st;
    /* A pipe or device (-o /dev/stdout) cannot be renamed over. */
    int direct = stat(path, &st) == 0 && !S_ISREG(st.st_mode);
    struct text name = {0};
    text_printf(&name, direct ? "%s" : "%s.tmp%ld", path, (long)getpid());
    FILE *f = fopen(text_string(&name), "wb");
    int failed = f ? 0 : errno;
    if (f) {
        if (fwrite(data, 1, bytes, f) != bytes)
            failed = errno;
        if (fclose(f) != 0 && !failed)
            failed = errno;
    }
    if (!direct) {
        if (!failed && rename(text_string(&name), path) != 0)
            failed = errno;
        if (failed && f)
            remove(text_string(&name));
    }
    text_free(&name);
    errno = failed;
    return failed ? -1 : 0;
}
