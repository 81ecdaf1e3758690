/* Atomic safetensors files; see mxrt/checkpoint.h. */
#include "mxrt/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "embed/safetensors.h"

static struct mx_st_entry *entries_of(const struct mxrt_named *tensors, int count) {
    struct mx_st_entry *e = calloc((size_t)count + 1, sizeof *e);
    for (int i = 0; e && i < count; i++)
        e[i] = (struct mx_st_entry){tensors[i].name, tensors[i].tensor.dtype, tensors[i].tensor.rank,
                                    tensors[i].tensor.shape, tensors[i].tensor.data};
    return e;
}

/* A rename is lasting only when its folder is on the disk too. */
static void sync_folder(const char *path) {
    char folder[4096];
    const char *slash = strrchr(path, '/');
    (void)snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
}

mx_status mxrt_checkpoint_write(const char *path, const struct mxrt_named *tensors, int count,
                                const char *const (*metadata)[2], int pairs, struct mxrt_why *why) {
    char part[4096];
    if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "the path is too long");
    struct mx_st_entry *entries = entries_of(tensors, count);
    if (!entries)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory to write %s", path);
    FILE *f = fopen(part, "wb");
    if (!f) {
        free(entries);
        return mxrt_fail(why, MX_ERROR_IO, "cannot write %s: %s", part, strerror(errno));
    }
    errno = 0;
    int ok = mx_st_write(f, entries, count, metadata, pairs) && fflush(f) == 0 && fsync(fileno(f)) == 0;
    int error = errno;
    if (fclose(f) != 0 && ok) {
        ok = 0;
        error = errno;
    }
    if (ok && rename(part, path) != 0) {
        ok = 0;
        error = errno;
    }
    free(entries);
    if (!ok) {
        unlink(part);
        return mxrt_fail(why, MX_ERROR_IO, "cannot write %s: %s", path, strerror(error));
    }
    sync_folder(path);
    return MX_OK;
}

static mx_status open_source(const char *path, struct mx_st_source *s, struct mxrt_why *why, char *text, size_t size) {
    FILE *f = fopen(path, "rb");
    long end = -1;
    if (!f || fseek(f, 0, SEEK_END) != 0 || (end = ftell(f)) < 0 || fseek(f, 0, SEEK_SET) != 0) {
        mx_status status = mxrt_fail(why, MX_ERROR_IO, "cannot read %s: %s", path, strerror(errno));
        if (f)
            fclose(f);
        return status;
    }
    *s = (struct mx_st_source){.file = f, .size = (uint64_t)end, .why = text, .why_size = size};
    return MX_OK;
}

mx_status mxrt_checkpoint_read(const char *path, const struct mxrt_named *tensors, int count,
                               void (*metadata)(void *context, const char *key, const char *value), void *context,
                               struct mxrt_why *why) {
    char text[500];
    struct mx_st_source s;
    struct mx_st_entry *entries = entries_of(tensors, count);
    uint64_t *offsets = malloc(sizeof *offsets * ((size_t)count + 1));
    mx_status status = entries && offsets ? open_source(path, &s, why, text, sizeof text)
                                          : mxrt_fail(why, MX_ERROR_MEMORY, "no memory to read %s", path);
    if (status == MX_OK) {
        s.metadata = metadata;
        s.context = context;
        if (mx_st_open(&s, entries, count, offsets))
            (void)mx_st_read(&s, entries, count, offsets);
        fclose(s.file);
        if (s.status != MX_OK)
            status = mxrt_fail(why, s.status, "%s: %s", path, text);
    }
    free(entries);
    free(offsets);
    return status;
}

mx_status mxrt_checkpoint_metadata(const char *path,
                                   void (*metadata)(void *context, const char *key, const char *value), void *context,
                                   struct mxrt_why *why) {
    char text[500];
    struct mx_st_source s;
    mx_status status = open_source(path, &s, why, text, sizeof text);
    if (status != MX_OK)
        return status;
    s.metadata = metadata;
    s.context = context;
    /* Metadata comes first; that the tensors are of no known model is no error here. */
    uint64_t none[1];
    (void)mx_st_open(&s, NULL, 0, none);
    fclose(s.file);
    return MX_OK;
}
