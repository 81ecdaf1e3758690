/* One call of an exported function: arguments from npy files or numbers, results to npy files or to the terminal. Where the checkpoint has
 * a vocabulary (its data was text), lists of integers are text on the command line and on the terminal. */
#include <stdlib.h>
#include <string.h>

#include "data/chars.h"
#include "session.h"

static const char *input_of(const struct session *s, const char *name) {
    size_t n = strlen(name);
    for (int i = 0; i < s->input_count; i++)
        if (strncmp(s->inputs[i], name, n) == 0 && s->inputs[i][n] == '=')
            return s->inputs[i] + n + 1;
    return NULL;
}

static void shape_text(const int64_t *shape, int rank, char *out, size_t size) {
    size_t n = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < rank && n + 24 < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    (void)snprintf(out + n, size - n, "]");
}

/* Another element type is accepted when every value survives: numpy's defaults are f64 and i64. */
static mx_status convert(struct mxrt_array *a, const struct mxrt_value *v, const char *path, struct mxrt_why *why) {
    if (a->dtype == v->dtype)
        return MX_OK;
    struct mxrt_array b;
    int64_t n = mxrt_array_elements(a);
    mx_status status = mxrt_array_make(&b, v->dtype, a->rank, a->shape, why);
    for (int64_t i = 0; i < n && status == MX_OK; i++) {
        double x = mxrt_get(a->dtype, a->data, i);
        if (!mxrt_put(v->dtype, b.data, i, x))
            status = mxrt_fail(why, MX_ERROR_SHAPE, "%s: element %lld of %s is %.9g, which is no %s", path,
                               (long long)i, v->name, x, mxrt_dtype_name(v->dtype));
    }
    if (status != MX_OK) {
        mxrt_array_free(&b);
        return status;
    }
    mxrt_array_free(a);
    *a = b;
    return MX_OK;
}

/* A list of integers stands for characters. */
static bool is_text(const struct mxrt_value *v, const struct position *at) {
    return at->vocabulary && v->rank == 1 && v->dtype >= MX_I64 && v->dtype != MX_BOOL;
}

static bool is_npy(const char *text) {
    size_t n = strlen(text);
    return n > 4 && strcmp(text + n - 4, ".npy") == 0;
}

static mx_status read_argument(struct session *s, const struct mxrt_function *f, const struct mxrt_value *v,
                               const struct position *at, struct mxrt_array *a, int64_t *dims, bool *bound) {
    const char *text = input_of(s, v->name);
    char *end;
    if (!text)
        return mxrt_fail(&s->why, MX_ERROR_ARGUMENT, "%s needs %s: --in %s=%s", f->name, v->name, v->name,
                         is_text(v, at) ? "TEXT or FILE.npy"
                         : v->rank      ? "FILE.npy"
                                        : "NUMBER");
    if (v->rank == 0) {
        double number = strcmp(text, "true") == 0 ? 1 : strcmp(text, "false") == 0 ? 0 : strtod(text, &end);
        bool plain = strcmp(text, "true") == 0 || strcmp(text, "false") == 0 || (end != text && *end == 0);
        if (plain) {
            mx_status status = mxrt_array_make(a, v->dtype, 0, NULL, &s->why);
            /* 64-bit integers as they are written: a double would round them. */
            if (status == MX_OK && (v->dtype == MX_I64 || v->dtype == MX_U64) && !strpbrk(text, ".eEnN") &&
                text[0] != 't' && text[0] != 'f') {
                if (v->dtype == MX_I64)
                    *(int64_t *)a->data = strtoll(text, NULL, 0);
                else
                    *(uint64_t *)a->data = strtoull(text, NULL, 0);
            } else if (status == MX_OK && !mxrt_put(v->dtype, a->data, 0, number)) {
                status = mxrt_fail(&s->why, MX_ERROR_ARGUMENT, "--in %s=%s: not a number of type %s", v->name, text,
                                   mxrt_dtype_name(v->dtype));
            }
            return status;
        }
    }
    mx_status status = is_text(v, at) && !is_npy(text)
                           ? mxrt_text_ids(v->name, text, strlen(text), at->vocabulary, at->vocabulary_size, a, &s->why)
                           : mxrt_read_npy(a, text, s->p->gunzip, &s->why);
    if (status != MX_OK)
        return status;
    bool fits = a->rank == v->rank;
    for (int i = 0; i < v->rank && fits; i++) {
        int64_t want = v->shape[i];
        if (want >= 0)
            fits = a->shape[i] == want;
        for (int k = 0; k < f->symbol_count && k < MXRT_MAX_RANK; k++)
            if (want == MXRT_SYMBOL(k)) {
                if (bound[k] && dims[k] != a->shape[i])
                    return mxrt_fail(&s->why, MX_ERROR_SHAPE,
                                     "%s: axis %d of %s is %lld, but %s is %lld by another argument", text, i, v->name,
                                     (long long)a->shape[i], f->symbols[k].name, (long long)dims[k]);
                dims[k] = a->shape[i];
                bound[k] = true;
            }
    }
    if (!fits) {
        char have[300], want[300] = "[";
        size_t n = 1;
        shape_text(a->shape, a->rank, have, sizeof have);
        for (int i = 0; i < v->rank && n + 70 < sizeof want; i++) {
            int64_t e = v->shape[i];
            const char *symbol = e < 0 && e > -1000 && -1 - e < f->symbol_count ? f->symbols[-1 - e].name : "…";
            n += e >= 0 ? (size_t)snprintf(want + n, sizeof want - n, "%s%lld", i ? ", " : "", (long long)e)
                        : (size_t)snprintf(want + n, sizeof want - n, "%s%.60s", i ? ", " : "", symbol);
        }
        return mxrt_fail(&s->why, MX_ERROR_SHAPE, "%s: %s wants %s%s], the file has %s%s", text, v->name,
                         mxrt_dtype_name(v->dtype), want, mxrt_dtype_name(a->dtype), have);
    }
    return convert(a, v, text, &s->why);
}

static void print_result(const struct mxrt_value *v, const struct mxrt_array *a) {
    enum { MANY = 64 };
    int64_t n = mxrt_array_elements(a), row = a->rank ? a->shape[a->rank - 1] : 1;
    char shape[300] = "";
    if (a->rank)
        shape_text(a->shape, a->rank, shape, sizeof shape);
    printf("%s: %s%s =", v->name, mxrt_dtype_name(v->dtype), shape);
    for (int64_t i = 0; i < n && i < MANY; i++) {
        printf("%s", a->rank > 1 && row > 0 && i % row == 0 ? "\n  " : " ");
        if (v->dtype == MX_I64)
            printf("%lld", (long long)((const int64_t *)a->data)[i]);
        else if (v->dtype == MX_U64)
            printf("%llu", (unsigned long long)((const uint64_t *)a->data)[i]);
        else
            printf("%.9g", mxrt_get(a->dtype, a->data, i));
    }
    printf(n > MANY ? " … (--out FOLDER writes all)\n" : "\n");
}

static void print_text(const struct position *at, const struct mxrt_array *a) {
    char character[5];
    for (int64_t i = 0; i < mxrt_array_elements(a); i++) {
        double id = mxrt_get(a->dtype, a->data, i);
        mxrt_utf8(id >= 0 && id < at->vocabulary_size ? at->vocabulary[(int)id] : 0xfffd, character);
        fputs(character, stdout);
    }
    putchar('\n');
}

static mx_status deliver(struct session *s, const struct mxrt_value *v, const struct position *at,
                         const struct mxrt_array *a) {
    if (!s->out && is_text(v, at)) {
        print_text(at, a);
        return MX_OK;
    }
    if (!s->out) {
        print_result(v, a);
        return MX_OK;
    }
    char path[4096], file[256];
    (void)snprintf(file, sizeof file, "%.200s.npy", v->name);
    session_path(s, file, path, sizeof path);
    return mxrt_write_npy(path, v->dtype, a->rank, a->shape, a->data, &s->why);
}

int call_command(struct session *s, const struct mxrt_function *f) {
    struct mxrt_array args[MAX_INPUTS], results[MAX_RESULTS];
    void *in[MAX_INPUTS], *out[MAX_RESULTS];
    int64_t dims[MXRT_MAX_RANK] = {0}, found[MXRT_MAX_RANK] = {0};
    bool bound[MXRT_MAX_RANK] = {false};
    char path[4096];
    struct position *at = calloc(1, sizeof *at);
    memset(args, 0, sizeof args);
    memset(results, 0, sizeof results);
    mx_status status = at ? MX_OK : mxrt_fail(&s->why, MX_ERROR_MEMORY, "no memory");
    if (status == MX_OK && (f->arg_count > MAX_INPUTS || f->result_count > MAX_RESULTS ||
                            f->symbol_count > MXRT_MAX_RANK || f->found_count > MXRT_MAX_RANK))
        status = mxrt_fail(&s->why, MX_ERROR_UNSUPPORTED, "%s has too many arguments for a command line", f->name);
    for (int i = 0; i < s->input_count && status == MX_OK; i++) {
        bool known = false;
        for (int k = 0; k < f->arg_count; k++) {
            size_t n = strlen(f->args[k].name);
            known |= strncmp(s->inputs[i], f->args[k].name, n) == 0 && s->inputs[i][n] == '=';
        }
        if (!known)
            status = mxrt_fail(&s->why, MX_ERROR_ARGUMENT, "--in %s: %s has no such argument", s->inputs[i], f->name);
    }
    /* Weights: named, or the run's, or the initial ones. */
    const char *weights = s->weights;
    if (!weights) {
        char *saved_out = (char *)s->out;
        s->out = NULL;
        session_path(s, "checkpoint.safetensors", path, sizeof path);
        s->out = saved_out;
        FILE *file = fopen(path, "rb");
        if (file) {
            fclose(file);
            weights = path;
        }
    }
    if (status == MX_OK)
        status = session_open(s, weights, at);
    for (int i = 0; i < f->arg_count && status == MX_OK; i++) {
        status = read_argument(s, f, &f->args[i], at, &args[i], dims, bound);
        in[i] = args[i].data;
    }
    for (int k = 0; k < f->symbol_count && status == MX_OK; k++)
        if (!bound[k])
            status =
                mxrt_fail(&s->why, MX_ERROR_SHAPE, "%s: no argument's shape gives %s", f->name, f->symbols[k].name);
        else if (dims[k] < f->symbols[k].lo || dims[k] > f->symbols[k].hi)
            status = mxrt_fail(&s->why, MX_ERROR_SHAPE, "%s: %s is %lld, its limits are %lld to %lld", f->name,
                               f->symbols[k].name, (long long)dims[k], (long long)f->symbols[k].lo,
                               (long long)f->symbols[k].hi);
    if (status == MX_OK)
        status = results_make(f, dims, results, &s->why);
    for (int i = 0; i < f->result_count; i++)
        out[i] = results[i].data;
    if (status == MX_OK && (status = f->call(s->model, f, dims, in, out, found)) != MX_OK)
        mxrt_fail(&s->why, status, "%s", s->p->error(s->model));
    if (status == MX_OK && s->out)
        status = session_make_folder(s);
    for (int i = 0; i < f->result_count && status == MX_OK; i++) {
        for (int k = 0; k < results[i].rank; k++)
            for (int n = 0; n < f->found_count; n++)
                if (f->results[i].shape[k] == MXRT_FOUND(n))
                    results[i].shape[k] = found[n];
        status = deliver(s, &f->results[i], at, &results[i]);
    }
    for (int i = 0; i < f->arg_count && status == MX_OK; i++)
        if (f->args[i].is_inout)
            status = deliver(s, &f->args[i], at, &args[i]);
    for (int i = 0; i < MAX_INPUTS; i++)
        mxrt_array_free(&args[i]);
    for (int i = 0; i < MAX_RESULTS; i++)
        mxrt_array_free(&results[i]);
    if (at)
        free(at->vocabulary);
    free(at);
    if (status != MX_OK)
        fprintf(stderr, "%s: error: %s\n", s->p->name, s->why.text);
    return status != MX_OK;
}
