/* Which sample of a batch the model's check refused: a label out of range should be told by its line in the file.
 *
 * The failed call says what went wrong but not for which sample, so each sample is tried alone: a batch of the same size that
 * repeats it, which suits functions of any shape. Calls that succeed here change the model; it is lost to the failed call
 * anyway, and nothing is saved after it. */
#include <stdlib.h>
#include <string.h>

#include "session.h"

/* FILE:LINE: or FILE: sample N: with the arguments that are one number a sample. */
static void describe(const struct mxrt_data *d, const struct mxrt_function *f, const struct mxrt_batch *b, int64_t i,
                     char *out, size_t size) {
    int64_t sample = b->samples[i];
    size_t n = (size_t)(d->lines ? snprintf(out, size, "%s:%lld", d->path, (long long)d->lines[sample])
                                 : snprintf(out, size, "%s: sample %lld", d->path, (long long)sample));
    for (int a = 0; a < f->arg_count && n + 1 < size; a++) {
        const struct mxrt_field *field = b->args[a] ? mxrt_data_field(d, f->args[a].name) : NULL;
        if (field && field->width == 1)
            n += (size_t)snprintf(out + n, size - n, ": %s is %.9g", f->args[a].name,
                                  mxrt_get(f->args[a].dtype, b->args[a], i));
    }
    if (d->vocabulary && n < size)
        (void)snprintf(out + n, size - n, " (the text has %d different characters)", d->vocabulary_size);
}

void name_culprit(struct session *s, const struct mxrt_data *d, const struct mxrt_function *f,
                  const struct mxrt_batch *b, void *const *args, void **out) {
    void *alone[MAX_INPUTS] = {0};
    size_t bytes[MAX_INPUTS] = {0}; /* of one sample; 0: an argument that is the same for all */
    bool ok = true;
    for (int a = 0; a < f->arg_count && a < MAX_INPUTS; a++) {
        const struct mxrt_field *field = b->args[a] ? mxrt_data_field(d, f->args[a].name) : NULL;
        alone[a] = args[a];
        if (!field)
            continue;
        bytes[a] = (size_t)field->width * mxrt_dtype_size(f->args[a].dtype);
        alone[a] = malloc((size_t)b->n * bytes[a] + 1);
        ok &= alone[a] != NULL;
    }
    for (int64_t i = 0; ok && i < b->n; i++) {
        int64_t found[MXRT_MAX_RANK];
        for (int a = 0; a < f->arg_count && a < MAX_INPUTS; a++)
            for (int64_t k = 0; bytes[a] && k < b->n; k++)
                memcpy((char *)alone[a] + (size_t)k * bytes[a], (char *)b->args[a] + (size_t)i * bytes[a], bytes[a]);
        if (f->call(s->model, f, b->dims, alone, out, found) == MX_ERROR_CHECK) {
            char where[sizeof s->why.text];
            struct mxrt_why what = s->why;
            describe(d, f, b, i, where, sizeof where);
            (void)snprintf(s->why.text, sizeof s->why.text, "%.250s: %.340s", where, what.text);
            break;
        }
    }
    for (int a = 0; a < f->arg_count && a < MAX_INPUTS; a++)
        if (bytes[a])
            free(alone[a]);
}
