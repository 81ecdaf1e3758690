/* Checkpoints of states that each rank has for itself, as the hidden state of texts that go on: a second file beside the checkpoint has every
 * rank's.
 *
 * Two files are not replaced at once, and a run may be killed between them. So the second one has the step in its name and is written
 * first, and that of the checkpoint before stays until the new checkpoint is whole, too. One name would leave, for a moment, a
 * checkpoint whose states are those of another step.
 *
 * Another number of ranks has other texts: then states begin from their initial values, as at the start of a run. */
#include <stdlib.h>
#include <string.h>

#include "training.h"

enum { NAME = 200 };
static const char KIND[] = "ranks";

/* checkpoint.safetensors: checkpoint.KIND.STEP.safetensors. */
void rank_file_path(const char *path, const char *kind, int64_t step, char *out, size_t size) {
    static const char ending[] = ".safetensors";
    size_t n = strlen(path), e = sizeof ending - 1;
    n -= n >= e && strcmp(path + n - e, ending) == 0 ? e : 0;
    (void)snprintf(out, size, "%.*s.%s.%lld%s", (int)n, path, kind, (long long)step, ending);
}

/* The tensors of `size` ranks in `memory`, each rank's `bytes` behind those of the one before. */
struct table {
    struct mxrt_named *tensors;
    char (*names)[NAME];
    int count;
};

static void table_free(struct table *a) {
    free(a->tensors);
    free(a->names);
}

static mx_status table_make(struct training *t, unsigned char *memory, struct table *a) {
    struct session *s = t->s;
    const int size = ranks_count(s->ranks);
    const size_t room = (size_t)s->p->buffer_count * (size_t)size + 1;
    *a = (struct table){calloc(room, sizeof *a->tensors), calloc(room, sizeof *a->names), 0};
    if (!a->tensors || !a->names)
        return mxrt_fail(&s->why, MX_ERROR_MEMORY, "no memory for the states of %d ranks", size);
    for (int rank = 0; rank < size; rank++)
        for (int i = 0; i < s->p->buffer_count; i++) {
            struct mxrt_named *x = &a->tensors[a->count];
            if (!s->p->split->buffer_is_carried[i])
                continue;
            mx_status status = s->p->buffer(s->model, i, &x->tensor);
            if (status != MX_OK)
                return mxrt_fail(&s->why, status, "%s", s->p->error(s->model));
            (void)snprintf(a->names[a->count], NAME, "rank%d.%s", rank, s->p->buffer_names[i]);
            x->name = a->names[a->count++];
            x->tensor.data = memory;
            memory += x->tensor.bytes;
        }
    return MX_OK;
}

static mx_status write_file(struct training *t, const char *path, unsigned char *memory) {
    struct session *s = t->s;
    char file[4200], numbers[3][24];
    struct table table;
    mx_status status = table_make(t, memory, &table);
    rank_file_path(path, KIND, t->at.step, file, sizeof file);
    (void)snprintf(numbers[0], sizeof *numbers, "%lld", (long long)t->at.ranks);
    (void)snprintf(numbers[1], sizeof *numbers, "%lld", (long long)t->at.step);
    (void)snprintf(numbers[2], sizeof *numbers, "%llu", (unsigned long long)t->at.seed);
    const char *const pairs[][2] = {
        {"model", s->p->name}, {"ranks", numbers[0]}, {"step", numbers[1]}, {"seed", numbers[2]}};
    if (status == MX_OK)
        status = mxrt_saver_begin(s->saver, file, table.tensors, table.count, pairs, 4, &s->why);
    table_free(&table);
    return status;
}

void rank_file_drop(const char *path, const char *kind, int64_t *steps) {
    char file[4300];
    rank_file_path(path, kind, steps[1], file, sizeof file);
    if (steps[1] >= 0 && steps[1] != steps[0])
        (void)remove(file);
    steps[1] = -1;
}

void rank_file_kept(const char *path, const char *kind, int64_t *steps, int64_t step) {
    if (steps[0] == step)
        return;
    rank_file_drop(path, kind, steps);
    steps[1] = steps[0];
    steps[0] = step;
}

void rank_states_saved(struct training *t, const char *path) {
    if (ranks_rank(t->s->ranks) == 0)
        rank_file_drop(path, KIND, t->states);
}

mx_status rank_states_save(struct training *t, const char *path) {
    struct session *s = t->s;
    const int size = ranks_count(s->ranks);
    const size_t bytes = s->ranks ? session_states(s, NULL, false) : 0;
    t->at.ranks = 1;
    if (size == 1 || !bytes)
        return MX_OK;
    unsigned char *mine = malloc(bytes), *all = malloc(bytes * (size_t)size);
    mx_status status =
        mine && all ? MX_OK : mxrt_fail(&s->why, MX_ERROR_MEMORY, "no memory for the states of %d ranks", size);
    if (status == MX_OK) {
        (void)session_states(s, mine, false);
        status = ranks_gather(s->ranks, mine, bytes, all, &s->why);
    }
    if (status == MX_OK) {
        t->at.ranks = size;
        if (ranks_rank(s->ranks) == 0 && (status = write_file(t, path, all)) == MX_OK)
            rank_file_kept(path, KIND, t->states, t->at.step); /* to begin it was to wait for the last checkpoint */
    }
    free(mine);
    free(all);
    return status;
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

struct head {
    int64_t ranks, step;
    uint64_t seed;
};

static void take(void *context, const char *key, const char *value) {
    struct head *h = context;
    if (strcmp(key, "ranks") == 0)
        h->ranks = strtoll(value, NULL, 10);
    else if (strcmp(key, "step") == 0)
        h->step = strtoll(value, NULL, 10);
    else if (strcmp(key, "seed") == 0)
        h->seed = strtoull(value, NULL, 10);
}

/* Whether the file was there and of this checkpoint; it is no error if not, but told. */
static bool read_file(struct training *t, const char *path, unsigned char *memory) {
    struct session *s = t->s;
    char file[4200], line[600];
    struct head head = {0};
    struct mxrt_why why = {0};
    struct table table = {0};
    rank_file_path(path, KIND, t->at.step, file, sizeof file);
    mx_status status = mxrt_checkpoint_metadata(file, take, &head, &why);
    if (status == MX_OK && (head.ranks != t->at.ranks || head.step != t->at.step || head.seed != t->at.seed))
        status = mxrt_fail(&why, MX_ERROR_FORMAT, "%.200s is of another checkpoint (%lld ranks, step %lld)", file,
                           (long long)head.ranks, (long long)head.step);
    if (status == MX_OK && (status = table_make(t, memory, &table)) != MX_OK)
        why = s->why;
    if (status == MX_OK)
        status = mxrt_checkpoint_read(file, table.tensors, table.count, NULL, NULL, &why);
    table_free(&table);
    if (status == MX_OK)
        return true;
    (void)snprintf(line, sizeof line, "the ranks' states begin anew: %.500s", why.text);
    mxrt_progress_line(&t->progress, line);
    return false;
}

mx_status rank_states_load(struct training *t, const char *path) {
    struct session *s = t->s;
    const int size = ranks_count(s->ranks), rank = ranks_rank(s->ranks);
    const size_t bytes = session_states(s, NULL, false);
    const int64_t before = t->at.ranks > 1 ? t->at.ranks : 1;
    char line[200];
    if (!bytes || (size == 1 && before == 1))
        return MX_OK;
    if (before != size) {
        (void)snprintf(line, sizeof line, "the checkpoint is of %lld rank%s: with %d the ranks' states begin anew",
                       (long long)before, before > 1 ? "s" : "", size);
        mxrt_progress_line(&t->progress, line);
        return MX_OK;
    }
    unsigned char *all = malloc(bytes * (size_t)size), found = 0;
    if (!all)
        return mxrt_fail(&s->why, MX_ERROR_MEMORY, "no memory for the states of %d ranks", size);
    if (rank == 0 && (found = read_file(t, path, all)))
        t->states[0] = t->at.step;
    mx_status status = ranks_broadcast(s->ranks, 0, &found, sizeof found, &s->why);
    if (status == MX_OK && found)
        status = ranks_broadcast(s->ranks, 0, all, bytes * (size_t)size, &s->why);
    if (status == MX_OK && found)
        (void)session_states(s, all + bytes * (size_t)rank, true);
    free(all);
    return status;
}
