/* From the train block's expression to fields in memory; see mxrt/data.h. */
#include "mxrt/data.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "chars.h"

struct context {
    struct mxrt_data *d;
    const struct mxrt_program *p;
    const char *override;
    const struct mxrt_function *f;
    struct mxrt_why *why;
};

static void find_path(struct context *c, const char *path, char *out, size_t size) {
    struct stat st;
    if (c->override) {
        if (stat(c->override, &st) == 0 && S_ISDIR(st.st_mode)) {
            const char *slash = strrchr(path, '/');
            (void)snprintf(out, size, "%s/%s", c->override, slash ? slash + 1 : path);
        } else {
            (void)snprintf(out, size, "%s", c->override);
        }
        return;
    }
    if (path[0] != '/' && c->p->directory && c->p->directory[0]) {
        (void)snprintf(out, size, "%s/%s", c->p->directory, path);
        if (stat(out, &st) == 0)
            return;
    }
    (void)snprintf(out, size, "%s", path);
}

/* Elements of one sample as the function wants them: the product of all but the first extent; -1 if that is not constant. */
static int64_t sample_elements(const struct mxrt_value *v) {
    int64_t n = 1;
    for (int i = 1; i < v->rank; i++) {
        if (v->shape[i] < 0)
            return -1;
        n *= v->shape[i];
    }
    return n;
}

static const struct mxrt_value *argument(const struct mxrt_function *f, const char *name) {
    for (int i = 0; i < f->arg_count; i++)
        if (strcmp(f->args[i].name, name) == 0)
            return &f->args[i];
    return NULL;
}

static double constant(const struct mxrt_setting *s, bool *ok) {
    if (s->kind == MXRT_INT)
        return (double)s->i;
    if (s->kind == MXRT_FLOAT)
        return s->f;
    *ok = false;
    return 0;
}

/* Takes `leaf / 16.0 - 0.5` apart: notes the steps, innermost first, and returns the leaf. */
static const struct mxrt_setting *unwrap(struct context *c, struct mxrt_field *field, const struct mxrt_setting *s) {
    if (s->kind != MXRT_BINARY || s->count != 2 || !s->s || !strchr("+-*/", s->s[0]))
        return s;
    const struct mxrt_setting *leaf = unwrap(c, field, s->args[0]);
    bool ok = true;
    double number = constant(s->args[1], &ok);
    if (!leaf || !ok || field->step_count == MXRT_FIELD_STEPS)
        return NULL;
    field->steps[field->step_count].op = s->s[0];
    field->steps[field->step_count++].number = number;
    return leaf;
}

static mx_status bad(struct context *c, const char *name, const char *expected) {
    return mxrt_fail(c->why, MX_ERROR_ARGUMENT, "train: data: `%s` is not %s, perhaps with + - * / and a number", name,
                     expected);
}

static mx_status samples(struct context *c, struct mxrt_field *field, int64_t n) {
    if (c->d->field_count > 1 && c->d->samples != n)
        return mxrt_fail(c->why, MX_ERROR_SHAPE, "%s: %s has %lld samples, %s has %lld", c->d->path, field->name,
                         (long long)n, c->d->fields[0].name, (long long)c->d->samples);
    c->d->samples = n;
    return MX_OK;
}

static mx_status csv(struct context *c, const struct mxrt_setting *source) {
    struct mxrt_csv table;
    char *text;
    size_t bytes;
    mx_status s = mxrt_read_file(c->d->path, c->p->gunzip, &text, &bytes, c->why);
    if (s != MX_OK)
        return s;
    s = mxrt_csv_parse(&table, c->d->path, text, bytes, c->why);
    free(text);
    if (s != MX_OK)
        return s;
    for (int i = 0; s == MX_OK && i < source->count; i++) {
        if (!source->names || !source->names[i])
            continue;
        struct mxrt_field *field = &c->d->fields[c->d->field_count++];
        field->name = source->names[i];
        const struct mxrt_setting *leaf = unwrap(c, field, source->args[i]);
        int64_t lo = -1, hi = -1;
        if (leaf && leaf->kind == MXRT_CALL && strcmp(leaf->s, "columns") == 0 && leaf->count == 2 &&
            leaf->args[0]->kind == MXRT_INT && leaf->args[1]->kind == MXRT_INT) {
            lo = leaf->args[0]->i;
            hi = leaf->args[1]->i;
        } else if (leaf && leaf->kind == MXRT_CALL && strcmp(leaf->s, "column") == 0 && leaf->count == 1) {
            const struct mxrt_setting *which = leaf->args[0];
            if (which->kind == MXRT_STRING) {
                for (int64_t k = 0; table.names && k < table.columns; k++)
                    if (table.names[k] && strcmp(table.names[k], which->s) == 0)
                        lo = k;
                if (lo < 0) {
                    s = mxrt_fail(c->why, MX_ERROR_FORMAT, "%s: no column is called \"%s\"%s", c->d->path, which->s,
                                  table.names ? "" : ": it has no header line");
                    break;
                }
            } else if (which->kind == MXRT_INT) {
                lo = which->i;
            }
            hi = lo + 1;
        }
        if (lo < 0 || hi <= lo) {
            s = bad(c, field->name, "columns(first, beyond) or column(number or \"name\")");
            break;
        }
        if (hi > table.columns) {
            s = mxrt_fail(c->why, MX_ERROR_FORMAT, "%s: it has %lld columns; %s needs column %lld", c->d->path,
                          (long long)table.columns, field->name, (long long)hi - 1);
            break;
        }
        int64_t shape[] = {table.rows, hi - lo};
        if ((s = mxrt_array_make(&field->array, MX_F32, 2, shape, c->why)) != MX_OK)
            break;
        for (int64_t r = 0; r < table.rows; r++)
            memcpy((float *)field->array.data + r * (hi - lo), table.cells + r * table.columns + lo,
                   (size_t)(hi - lo) * sizeof(float));
        field->stride = field->width = hi - lo;
        s = samples(c, field, table.rows);
    }
    c->d->lines = table.lines;
    table.lines = NULL;
    mxrt_csv_free(&table);
    return s;
}

static mx_status arrays(struct context *c, const struct mxrt_setting *source) {
    mx_status s = MX_OK;
    for (int i = 0; s == MX_OK && i < source->count; i++) {
        if (!source->names || !source->names[i])
            continue;
        struct mxrt_field *field = &c->d->fields[c->d->field_count++];
        field->name = source->names[i];
        const struct mxrt_setting *leaf = unwrap(c, field, source->args[i]);
        if (leaf && leaf->kind == MXRT_CALL && strcmp(leaf->s, "file") == 0 && leaf->count == 1)
            leaf = leaf->args[0];
        if (!leaf || leaf->kind != MXRT_STRING)
            return bad(c, field->name, "file(\"NAME\")");
        if (strcmp(source->s, "npz") == 0) {
            s = mxrt_read_npz(&field->array, c->d->path, leaf->s, c->p->gunzip, c->why);
        } else {
            find_path(c, leaf->s, c->d->path, sizeof c->d->path);
            s = strcmp(source->s, "idx") == 0 ? mxrt_read_idx(&field->array, c->d->path, c->p->gunzip, c->why)
                                              : mxrt_read_npy(&field->array, c->d->path, c->p->gunzip, c->why);
        }
        if (s != MX_OK)
            break;
        if (field->array.rank == 0)
            return mxrt_fail(c->why, MX_ERROR_SHAPE, "%s: a single number; the first axis should count samples",
                             c->d->path);
        int64_t n = field->array.shape[0];
        field->stride = field->width = n ? mxrt_array_elements(&field->array) / n : 0;
        s = samples(c, field, n);
    }
    return s;
}

static mx_status raw_tokens(struct context *c, struct mxrt_array *ids) {
    char *text;
    size_t bytes, n = strlen(c->d->path);
    if (n > 4 && strcmp(c->d->path + n - 4, ".npy") == 0)
        return mxrt_read_npy(ids, c->d->path, c->p->gunzip, c->why);
    mx_status s = mxrt_read_file(c->d->path, c->p->gunzip, &text, &bytes, c->why);
    if (s != MX_OK)
        return s;
    int64_t count = (int64_t)(bytes / 2);
    s = bytes % 2 ? mxrt_fail(c->why, MX_ERROR_FORMAT, "%s: an odd number of bytes; raw tokens are u16", c->d->path)
                  : mxrt_array_make(ids, MX_U16, 1, &count, c->why);
    for (int64_t i = 0; s == MX_OK && i < count; i++)
        ((uint16_t *)ids->data)[i] = (uint16_t)((unsigned char)text[2 * i] | (unsigned char)text[2 * i + 1] << 8);
    free(text);
    return s;
}

/* Chunks of ids and their successors. */
static mx_status sequence(struct context *c, const struct mxrt_setting *source, const uint32_t *vocabulary,
                          int vocabulary_size) {
    struct mxrt_data *d = c->d;
    struct mxrt_array ids;
    mx_status s;
    d->is_sequence = true;
    if (strcmp(source->s, "tokens") == 0) {
        s = raw_tokens(c, &ids);
    } else {
        char *text;
        size_t bytes;
        const char *fixed = NULL;
        for (int i = 0; i < source->count; i++)
            if (source->names && source->names[i] && strcmp(source->names[i], "vocabulary") == 0 &&
                source->args[i]->kind == MXRT_STRING)
                fixed = source->args[i]->s;
        if ((s = mxrt_read_file(d->path, c->p->gunzip, &text, &bytes, c->why)) != MX_OK)
            return s;
        if (vocabulary && (d->vocabulary = malloc(sizeof *vocabulary * (size_t)vocabulary_size))) {
            memcpy(d->vocabulary, vocabulary, sizeof *vocabulary * (size_t)vocabulary_size);
            d->vocabulary_size = vocabulary_size;
        } else {
            s = mxrt_vocabulary(fixed ? fixed : text, fixed ? strlen(fixed) : bytes, &d->vocabulary,
                                &d->vocabulary_size, c->why);
        }
        if (s == MX_OK)
            s = mxrt_text_ids(d->path, text, bytes, d->vocabulary, d->vocabulary_size, &ids, c->why);
        free(text);
    }
    if (s != MX_OK)
        return s;
    int64_t total = mxrt_array_elements(&ids), width = -1;
    const char *names[2] = {NULL, NULL};
    int found = 0;
    for (int i = 0; i < source->count; i++) /* x = chars, y = next */
        if (source->names && source->names[i] && source->args[i]->kind == MXRT_NAME)
            names[strcmp(source->args[i]->s, "next") == 0] = source->names[i];
    bool by_position = !names[0] && !names[1];
    for (int i = 0; by_position && i < c->f->arg_count && found < 2; i++)
        if (c->f->args[i].rank > 0 && c->f->args[i].dtype >= MX_I64 && c->f->args[i].dtype != MX_BOOL)
            names[found++] = c->f->args[i].name;
    for (int k = 0; k < 2; k++) {
        const struct mxrt_value *v = names[k] ? argument(c->f, names[k]) : NULL;
        if (!v)
            continue;
        int64_t mine = sample_elements(v);
        if (mine < 0 || (width >= 0 && mine != width)) {
            mxrt_array_free(&ids);
            return mxrt_fail(c->why, MX_ERROR_SHAPE, "%s: %s's length must be a constant, the same for both arguments",
                             c->f->name, v->name);
        }
        width = mine;
    }
    if (width <= 0 || !names[0]) {
        mxrt_array_free(&ids);
        return mxrt_fail(c->why, MX_ERROR_ARGUMENT,
                         "train: %s needs an integer argument like i32[N <= 32, 64] for chunks of text", c->f->name);
    }
    for (int k = 0; k < 2; k++) {
        if (!names[k])
            continue;
        struct mxrt_field *field = &d->fields[d->field_count++];
        field->name = names[k];
        field->array = ids;
        field->borrowed = d->field_count > 1;
        field->stride = field->width = width;
        field->shift = k;
    }
    d->samples = total > 0 ? (total - 1) / width : 0;
    return MX_OK;
}

mx_status mxrt_data_load(struct mxrt_data *d, const struct mxrt_program *p, const struct mxrt_setting *source,
                         const char *override, const struct mxrt_function *f, const uint32_t *vocabulary,
                         int vocabulary_size, struct mxrt_why *why) {
    struct context c = {d, p, override, f, why};
    memset(d, 0, sizeof *d);
    if (source->kind != MXRT_CALL)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "train: data is csv(…), idx(…), npy(…), npz(…), text(…) or tokens(…)");
    d->fields = calloc((size_t)source->count + 2, sizeof *d->fields);
    if (!d->fields)
        return mxrt_fail(why, MX_ERROR_MEMORY, "no memory");
    const char *path = NULL;
    for (int i = 0; i < source->count; i++)
        if ((!source->names || !source->names[i]) && source->args[i]->kind == MXRT_STRING && !path)
            path = source->args[i]->s;
    bool many = strcmp(source->s, "idx") == 0 || strcmp(source->s, "npy") == 0;
    if (!path && !many)
        return mxrt_fail(why, MX_ERROR_ARGUMENT, "train: data: %s needs a file name", source->s);
    if (path)
        find_path(&c, path, d->path, sizeof d->path);
    mx_status s;
    if (strcmp(source->s, "csv") == 0)
        s = csv(&c, source);
    else if (many || strcmp(source->s, "npz") == 0)
        s = arrays(&c, source);
    else if (strcmp(source->s, "text") == 0 || strcmp(source->s, "tokens") == 0)
        s = sequence(&c, source, vocabulary, vocabulary_size);
    else
        s = mxrt_fail(why, MX_ERROR_ARGUMENT,
                      "train: data: there is no %s(…); csv, idx, npy, npz, text and tokens are known", source->s);
    for (int i = 0; s == MX_OK && i < d->field_count; i++) {
        const struct mxrt_field *field = &d->fields[i];
        const struct mxrt_value *v = argument(f, field->name);
        if (!v)
            s = mxrt_fail(why, MX_ERROR_ARGUMENT, "train: data gives `%s`, which is no argument of %s", field->name,
                          f->name);
        else if (v->rank == 0)
            s = mxrt_fail(why, MX_ERROR_SHAPE, "train: `%s` of %s is one number, data gives one for each sample",
                          v->name, f->name);
        else if (sample_elements(v) >= 0 && sample_elements(v) != field->width)
            s = mxrt_fail(why, MX_ERROR_SHAPE, "%s: %lld numbers for %s in each sample, %s wants %lld", d->path,
                          (long long)field->width, field->name, f->name, (long long)sample_elements(v));
    }
    if (s == MX_OK && d->field_count == 0)
        s = mxrt_fail(why, MX_ERROR_ARGUMENT, "train: data: %s(…) gives no argument of %s: write x = …", source->s,
                      f->name);
    if (s == MX_OK && d->samples == 0)
        s = mxrt_fail(why, MX_ERROR_FORMAT, "%s: too little data for one sample", d->path);
    if (s != MX_OK)
        mxrt_data_free(d);
    return s;
}

const struct mxrt_field *mxrt_data_field(const struct mxrt_data *d, const char *name) {
    for (int i = d->field_count; i-- > 0;)
        if (strcmp(d->fields[i].name, name) == 0)
            return &d->fields[i];
    return NULL;
}

void mxrt_data_free(struct mxrt_data *d) {
    for (int i = 0; i < d->field_count; i++)
        if (!d->fields[i].borrowed)
            mxrt_array_free(&d->fields[i].array);
    free(d->fields);
    free(d->vocabulary);
    free(d->lines);
    memset(d, 0, sizeof *d);
}
