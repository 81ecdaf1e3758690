/* Checkpoints: safetensors files that are whole or not there, and metrics files. */
#ifndef MXRT_CHECKPOINT_H
#define MXRT_CHECKPOINT_H

#include <stdint.h>

#include "mxrt/why.h"

struct mxrt_named {
    const char *name;
    mx_tensor tensor;
};

/* Writes `path` atomically: a file beside it, synced, renamed over it, the folder synced. A failure leaves the old file. */
mx_status mxrt_checkpoint_write(const char *path, const struct mxrt_named *tensors, int count,
                                const char *const (*metadata)[2], int pairs, struct mxrt_why *why);
/* Reads all tensors; nothing is touched unless the whole file fits. `metadata` (may be NULL) gets each pair. */
mx_status mxrt_checkpoint_read(const char *path, const struct mxrt_named *tensors, int count,
                               void (*metadata)(void *context, const char *key, const char *value), void *context,
                               struct mxrt_why *why);
/* Only the metadata. */
mx_status mxrt_checkpoint_metadata(const char *path,
                                   void (*metadata)(void *context, const char *key, const char *value), void *context,
                                   struct mxrt_why *why);

/* Saving while the tensors go on changing: `begin` copies them and the metadata and returns; a thread writes the copy, like
 * mxrt_checkpoint_write. One write is under way at a time: `begin` waits for the one before it and gives its error, and then has
 * begun nothing. `wait` gives the last one's. A NULL saver, or one without memory or threads, writes at once. For one thread. */
struct mxrt_saver;
struct mxrt_trace;
struct mxrt_saver *mxrt_saver_new(struct mxrt_trace *trace); /* the trace may be NULL; NULL: no memory */
mx_status mxrt_saver_begin(struct mxrt_saver *s, const char *path, const struct mxrt_named *tensors, int count,
                           const char *const (*metadata)[2], int pairs, struct mxrt_why *why);
mx_status mxrt_saver_wait(struct mxrt_saver *s, struct mxrt_why *why);
void mxrt_saver_free(struct mxrt_saver *s); /* waits, too */

/* TensorBoard's event file: one record a call. */
struct mxrt_events;
mx_status mxrt_events_open(struct mxrt_events **e, const char *folder, struct mxrt_why *why);
void mxrt_events_scalar(struct mxrt_events *e, const char *tag, int64_t step, double value);
void mxrt_events_close(struct mxrt_events *e);
/* CRC-32C (Castagnoli), as TFRecord uses it. */
uint32_t mxrt_crc32c(const void *data, size_t bytes);

#endif
