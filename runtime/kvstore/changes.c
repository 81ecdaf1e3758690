/* Which rows of what a server keeps have changed since a rank last got them, so that a rank that still has what it got needs no more than
 * those. Found by comparing the bytes before and after an update: an optimizer without momentum leaves the rows alone whose gradient is zero, one
 * with it changes every row that it ever saw, one with weight decay all of them. No updater has to say which it is. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { NOTHING = -1 };

struct changes {
    int64_t rows;
    size_t row_bytes;
    int64_t now;      /* updates so far */
    int64_t *changed; /* [rows] the update that last changed a row */
    int64_t *told;    /* [ranks] the last update that a rank has got; NOTHING: it has got none */
    unsigned char before[];
};

struct changes *kv_changes_new(int64_t rows, size_t row_bytes, int ranks) {
    struct changes *c = malloc(sizeof *c + (size_t)rows * row_bytes + 1);
    if (!c)
        return NULL;
    *c = (struct changes){.rows = rows, .row_bytes = row_bytes};
    c->changed = calloc((size_t)rows + 1, sizeof *c->changed);
    c->told = calloc((size_t)ranks, sizeof *c->told);
    if (!c->changed || !c->told) {
        kv_changes_free(c);
        return NULL;
    }
    for (int r = 0; r < ranks; r++)
        c->told[r] = NOTHING;
    return c;
}

void kv_changes_free(struct changes *c) {
    if (!c)
        return;
    free(c->changed);
    free(c->told);
    free(c);
}

void kv_changes_before(struct changes *c, const void *stored) {
    memcpy(c->before, stored, (size_t)c->rows * c->row_bytes);
}

void kv_changes_after(struct changes *c, const void *stored) {
    const unsigned char *after = stored;
    c->now++;
    for (int64_t i = 0; i < c->rows; i++)
        if (memcmp(c->before + (size_t)i * c->row_bytes, after + (size_t)i * c->row_bytes, c->row_bytes) != 0)
            c->changed[i] = c->now;
}

int64_t kv_changes_since(const struct changes *c, int rank, int64_t *ids) {
    int64_t count = 0;
    if (c->told[rank] == NOTHING)
        return -1;
    for (int64_t i = 0; i < c->rows && 2 * count <= c->rows; i++) {
        if (c->changed[i] <= c->told[rank])
            continue;
        if (ids)
            ids[count] = i;
        count++;
    }
    return 2 * count <= c->rows ? count : -1;
}

void kv_changes_told(struct changes *c, int rank) {
    c->told[rank] = c->now;
}
