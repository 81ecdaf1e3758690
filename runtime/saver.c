/* Checkpoints beside the computation: a copy is taken, and an operation of an engine writes it while the caller goes on
 * changing the tensors.
 *
 * The copy is the version that the checkpoint is of. There is one, so a save waits for the one before it: two versions in
 * flight would only help where a disk is slower than an epoch, and would cost the memory of another set of weights. Where no copy
 * can be had, the write is done at once.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "background.h"
#include "mxrt/checkpoint.h"

struct mxrt_saver {
    struct mxrt_engine *engine;
    struct mxrt_var file; /* what the operation writes; a wait for it frees the copy, too */
    /* The version being written; memory of the last one is used again. */
    char *path;
    struct mxrt_named *tensors;
    const char *(*metadata)[2];
    int count, pairs;
    unsigned char *memory;
    size_t bytes;
    struct mxrt_why why; /* of the write */
};

struct mxrt_saver *mxrt_saver_new(struct mxrt_trace *trace) {
    struct mxrt_saver *s = calloc(1, sizeof *s);
    struct mxrt_why why;
    if (!s || background_engine(&s->engine, trace, &why) != MX_OK ||
        mxrt_var_new(s->engine, "checkpoint", &s->file, &why) != MX_OK) {
        mxrt_saver_free(s);
        return NULL;
    }
    return s;
}

static size_t aligned(size_t n) {
    return (n + 63) & ~(size_t)63;
}

static char *put_text(unsigned char **at, const char *text) {
    char *to = memcpy(*at, text, strlen(text) + 1);
    *at += strlen(text) + 1;
    return to;
}

/* Everything the write needs, in one block: elements, lists, texts. False without memory. */
static bool snapshot(struct mxrt_saver *s, const char *path, const struct mxrt_named *tensors, int count,
                     const char *const (*metadata)[2], int pairs) {
    size_t texts = strlen(path) + 1, extents = 0, elements = 0;
    for (int i = 0; i < count; i++) {
        elements += aligned(tensors[i].tensor.bytes);
        extents += aligned(sizeof(int64_t) * (size_t)tensors[i].tensor.rank);
        texts += strlen(tensors[i].name) + 1;
    }
    for (int i = 0; i < pairs; i++)
        texts += strlen(metadata[i][0]) + strlen(metadata[i][1]) + 2;
    size_t lists = aligned(sizeof *s->tensors * (size_t)count) + aligned(sizeof *s->metadata * (size_t)pairs),
           bytes = elements + extents + lists + texts;
    if (bytes > s->bytes) {
        free(s->memory);
        s->bytes = 0;
        if (!(s->memory = malloc(bytes)))
            return false;
        s->bytes = bytes;
    }
    unsigned char *at = s->memory;
    s->tensors = (void *)at;
    at += aligned(sizeof *s->tensors * (size_t)count);
    s->metadata = (void *)at;
    at += aligned(sizeof *s->metadata * (size_t)pairs);
    s->count = count;
    s->pairs = pairs;
    for (int i = 0; i < count; i++) {
        mx_tensor *t = &s->tensors[i].tensor;
        *t = tensors[i].tensor; /* where nothing is copied, pointers may be null */
        if (t->rank)
            t->shape = memcpy(at, t->shape, sizeof *t->shape * (size_t)t->rank);
        at += aligned(sizeof *t->shape * (size_t)t->rank);
        if (t->bytes)
            t->data = memcpy(at, t->data, t->bytes);
        at += aligned(t->bytes);
    }
    s->path = put_text(&at, path);
    for (int i = 0; i < count; i++)
        s->tensors[i].name = put_text(&at, tensors[i].name);
    for (int i = 0; i < pairs; i++)
        for (int k = 0; k < 2; k++)
            s->metadata[i][k] = put_text(&at, metadata[i][k]);
    return true;
}

static mx_status write_snapshot(void *context, struct mxrt_why *why) {
    struct mxrt_saver *s = context;
    (void)why; /* would come back with the operation's name in front */
    return mxrt_checkpoint_write(s->path, s->tensors, s->count, (const char *const(*)[2])s->metadata, s->pairs,
                                 &s->why);
}

mx_status mxrt_saver_begin(struct mxrt_saver *s, const char *path, const struct mxrt_named *tensors, int count,
                           const char *const (*metadata)[2], int pairs, struct mxrt_why *why) {
    mx_status status = mxrt_saver_wait(s, why);
    if (status != MX_OK)
        return status;
    if (s && snapshot(s, path, tensors, count, metadata, pairs)) {
        struct mxrt_op op = {.name = "checkpoint",
                             .run = write_snapshot,
                             .context = s,
                             .writes = &s->file,
                             .write_count = 1,
                             .lane = MXRT_LANE_IO};
        if (mxrt_engine_push(s->engine, &op, why) == MX_OK)
            return MX_OK;
    }
    return mxrt_checkpoint_write(path, tensors, count, metadata, pairs, why);
}

mx_status mxrt_saver_wait(struct mxrt_saver *s, struct mxrt_why *why) {
    mx_status status = s ? mxrt_engine_wait_var(s->engine, s->file, why) : MX_OK;
    if (status != MX_OK)
        *why = s->why;
    return status;
}

void mxrt_saver_free(struct mxrt_saver *s) {
    if (!s)
        return;
    mxrt_engine_destroy(s->engine);
    free(s->memory);
    free(s);
}
