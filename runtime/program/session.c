/* The model of a running program, its checkpoint and its folder. */
#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/chars.h"

const struct mxrt_function *session_function(const struct session *s, const char *name) {
    for (int i = 0; i < s->p->function_count; i++)
        if (strcmp(s->p->functions[i].name, name) == 0)
            return &s->p->functions[i];
    return NULL;
}

const struct mxrt_setting *session_setting(const struct session *s, const char *key) {
    for (int i = 0; i < s->p->setting_count; i++)
        if (strcmp(s->p->settings[i].key, key) == 0)
            return s->p->settings[i].value;
    return NULL;
}

/* In this order; the last one only where ranks have states of their own. */
#define POSITION_KEYS \
    { "seed", "calls", "epoch", "batch", "step", "batch_size", "samples", "labels", "ranks" }
enum { POSITIONS = 9, POSITIONS_OF_ONE = 8 };

static void take_metadata(void *context, const char *key, const char *value) {
    struct position *at = context;
    const char *const keys[POSITIONS] = POSITION_KEYS;
    int64_t *const fields[POSITIONS] = {(int64_t *)&at->seed, (int64_t *)&at->calls, &at->epoch,  &at->batch, &at->step,
                                        &at->batch_size,      &at->samples,          &at->labels, &at->ranks};
    for (int i = 0; i < POSITIONS; i++)
        if (strcmp(key, keys[i]) == 0) {
            *fields[i] = (int64_t)strtoull(value, NULL, 10);
            at->found |= i == 2;
        }
    if (strncmp(key, "sum.", 4) == 0) {
        int i = atoi(key + 4);
        if (i >= 0 && i < MAX_RESULTS)
            at->sums[i] = strtod(value, NULL);
    }
    if (strncmp(key, "vocabulary.", 11) == 0) {
        size_t n = strlen(value);
        if (at->text_length + n < sizeof at->text) {
            memcpy(at->text + at->text_length, value, n);
            at->text_length += n;
        }
    }
}

static struct mxrt_named *named_buffers(struct session *s, mx_status *status) {
    const struct mxrt_program *p = s->p;
    struct mxrt_named *named = calloc((size_t)p->buffer_count + 1, sizeof *named);
    *status = named ? MX_OK : mxrt_fail(&s->why, MX_ERROR_MEMORY, "no memory");
    for (int i = 0; i < p->buffer_count && *status == MX_OK; i++) {
        named[i].name = p->buffer_names[i];
        *status = p->buffer(s->model, i, &named[i].tensor);
    }
    return named;
}

size_t session_states(struct session *s, unsigned char *memory, bool back) {
    const struct mxrt_split *split = s->p->split && !s->p->split->why_not ? s->p->split : NULL;
    size_t bytes = 0;
    for (int i = 0; i < s->p->buffer_count && split; i++) {
        mx_tensor t;
        if (!split->buffer_is_carried[i] || s->p->buffer(s->model, i, &t) != MX_OK)
            continue;
        if (memory && t.bytes)
            memcpy(back ? t.data : memory + bytes, back ? memory + bytes : t.data, t.bytes);
        bytes += t.bytes;
    }
    return bytes;
}

mx_status session_open(struct session *s, const char *path, struct position *at) {
    struct position *own = at ? at : calloc(1, sizeof *own);
    if (!own)
        return mxrt_fail(&s->why, MX_ERROR_MEMORY, "no memory");
    mx_status status = MX_OK;
    own->seed = s->seed;
    if (path)
        status = mxrt_checkpoint_metadata(path, take_metadata, own, &s->why);
    if (s->call && s->has_seed) /* a call may draw other numbers than the run */
        own->seed = s->seed;
    if (status == MX_OK && s->has_seed && path && own->seed != s->seed && at)
        status = mxrt_fail(&s->why, MX_ERROR_ARGUMENT, "--seed %llu: %s was begun with seed %llu",
                           (unsigned long long)s->seed, path, (unsigned long long)own->seed);
    if (status == MX_OK && s->p->create(s->p, &s->model, own->seed, s->threads) != MX_OK) {
        const char *text = s->model ? s->p->error(s->model) : NULL;
        status =
            mxrt_fail(&s->why, MX_ERROR_MEMORY, "the model cannot be made: %s", text && *text ? text : "no memory");
        s->model = NULL;
    }
    /* Where ranks have states of their own, the file has one rank's, which are nobody else's: they begin anew, unless rank_states_load has
     * everybody's. */
    unsigned char *states = NULL;
    if (status == MX_OK && path && (own->ranks > 1 || ranks_count(s->ranks) > 1)) {
        if ((states = malloc(session_states(s, NULL, false) + 1)))
            (void)session_states(s, states, false);
        else
            status = mxrt_fail(&s->why, MX_ERROR_MEMORY, "no memory to read %s", path);
    }
    if (status == MX_OK && path) {
        struct mxrt_named *named = named_buffers(s, &status);
        struct position *again = calloc(1, sizeof *again); /* the metadata is read twice; the first reading holds */
        if (status == MX_OK)
            status =
                mxrt_checkpoint_read(path, named, s->p->buffer_count, again ? take_metadata : NULL, again, &s->why);
        free(again);
        free(named);
        if (status == MX_OK)
            s->p->set_calls(s->model, own->calls);
        if (states)
            (void)session_states(s, states, true);
    }
    free(states);
    if (status == MX_OK && own->text_length)
        status = mxrt_vocabulary(own->text, own->text_length, &own->vocabulary, &own->vocabulary_size, &s->why);
    if (!at) {
        free(own->vocabulary);
        free(own);
    }
    return status;
}

mx_status session_keep(struct session *s, const char *path, const struct position *at) {
    enum { PIECE = 400 };
    struct pair {
        char key[24], value[PIECE + 8];
    } *pairs = calloc(MAX_RESULTS + 32 + (size_t)at->vocabulary_size / 50, sizeof *pairs);
    const char *(*list)[2] = calloc(MAX_RESULTS + 32 + (size_t)at->vocabulary_size / 50, sizeof *list);
    mx_status status;
    struct mxrt_named *named = named_buffers(s, &status);
    int n = 0;
    if (!pairs || !list)
        status = mxrt_fail(&s->why, MX_ERROR_MEMORY, "no memory to save");
    if (status == MX_OK) {
        const char *const keys[POSITIONS] = POSITION_KEYS;
        const unsigned long long values[] = {at->seed,
                                             s->p->calls(s->model),
                                             (unsigned long long)at->epoch,
                                             (unsigned long long)at->batch,
                                             (unsigned long long)at->step,
                                             (unsigned long long)at->batch_size,
                                             (unsigned long long)at->samples,
                                             (unsigned long long)at->labels,
                                             (unsigned long long)at->ranks};
        (void)snprintf(pairs[n].key, sizeof pairs->key, "model");
        (void)snprintf(pairs[n++].value, sizeof pairs->value, "%s", s->p->name);
        for (int i = 0; i < (at->ranks > 1 ? POSITIONS : POSITIONS_OF_ONE); i++) {
            (void)snprintf(pairs[n].key, sizeof pairs->key, "%s", keys[i]);
            (void)snprintf(pairs[n++].value, sizeof pairs->value, "%llu", values[i]);
        }
        for (int i = 0; i < MAX_RESULTS; i++)
            if (at->sums[i] != 0) { /* hexadecimal: the same bits come back */
                (void)snprintf(pairs[n].key, sizeof pairs->key, "sum.%d", i);
                (void)snprintf(pairs[n++].value, sizeof pairs->value, "%a", at->sums[i]);
            }
        for (int i = 0, piece = 0; i < at->vocabulary_size; piece++) {
            size_t length = 0;
            (void)snprintf(pairs[n].key, sizeof pairs->key, "vocabulary.%d", piece);
            while (i < at->vocabulary_size && length < PIECE / 2)
                length += (size_t)mxrt_utf8(at->vocabulary[i++], pairs[n].value + length);
            n++;
        }
        for (int i = 0; i < n; i++) {
            list[i][0] = pairs[i].key;
            list[i][1] = pairs[i].value;
        }
        status = mxrt_saver_begin(s->saver, path, named, s->p->buffer_count, (const char *const(*)[2])list, n, &s->why);
    }
    free(named);
    free(pairs);
    free(list);
    return status;
}

mx_status session_saved(struct session *s) {
    return mxrt_saver_wait(s->saver, &s->why);
}

void session_close(struct session *s) {
    mxrt_saver_free(s->saver);
    s->saver = NULL;
    if (s->model)
        s->p->destroy(s->model);
    s->model = NULL;
}

void session_path(const struct session *s, const char *file, char *out, size_t size) {
    if (s->out)
        (void)snprintf(out, size, "%s/%s", s->out, file);
    else
        (void)snprintf(out, size, "%s-run/%s", s->p->name, file);
}

mx_status session_make_folder(struct session *s) {
    char path[4096];
    session_path(s, "", path, sizeof path);
    for (char *p = path + 1; *p; p++)
        if (*p == '/') {
            *p = 0;
            if (mkdir(path, 0777) != 0 && errno != EEXIST)
                return mxrt_fail(&s->why, MX_ERROR_IO, "cannot make the folder %s: %s", path, strerror(errno));
            *p = '/';
        }
    return MX_OK;
}

mx_status results_make(const struct mxrt_function *f, const int64_t *dims, struct mxrt_array *results,
                       struct mxrt_why *why) {
    int64_t *extents, n = 0;
    for (int i = 0; i < f->arg_count; i++)
        n += f->args[i].rank;
    int64_t at = n;
    for (int i = 0; i < f->result_count; i++)
        n += f->results[i].rank;
    extents = calloc((size_t)n + 1, sizeof *extents);
    if (!extents)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory");
    if (f->extents)
        f->extents(f, dims, extents);
    mx_status status = MX_OK;
    memset(results, 0, sizeof *results * MAX_RESULTS);
    for (int i = 0; i < f->result_count && i < MAX_RESULTS && status == MX_OK; i++) {
        status = mxrt_array_make(&results[i], f->results[i].dtype, f->results[i].rank, extents + at, why);
        at += f->results[i].rank;
    }
    free(extents);
    return status;
}
