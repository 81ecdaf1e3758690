/* Data sets: what a train block's `data` and `test` name, and batches of them.
 *
 *   csv("digits.csv", x = columns(0, 64) / 16.0, y = column(64))      column("label") by the header line's name
 *   idx(x = file("train-images.gz") / 255.0, y = file("train-labels.gz"))   MNIST's format, plain or gzip
 *   npy(x = file("x.npy") / 255.0, y = file("y.npy"))                 first axis: samples
 *   npz("data.npz", x = file("images") / 255.0, y = file("labels"))   arrays of one archive
 *                                                                     (a name alone may be written without file())
 *   text("tale.txt")                  characters: the function's first integer argument gets chunks of them, the
 *                                     second each one's successor (or x = chars, y = next); vocabulary = "abc…" fixes it
 *   tokens("tokens.npy")              the same from integers (npy, or raw little-endian u16)
 *
 * Samples stay as the file has them; arithmetic and conversion happen batch by batch.
 */
#ifndef MXRT_DATA_H
#define MXRT_DATA_H

#include "mxrt/array.h"
#include "mxrt/program.h"

enum { MXRT_FIELD_STEPS = 8 };

struct mxrt_field {
    const char *name; /* of the argument it feeds; of the settings */
    struct mxrt_array array;
    int64_t stride, shift, width; /* sample i: elements [i * stride + shift, … + width) */
    struct {
        char op; /* + - * / */
        double number;
    } steps[MXRT_FIELD_STEPS];
    int step_count;
    bool borrowed; /* array belongs to another field */
};

struct mxrt_data {
    struct mxrt_field *fields;
    int field_count;
    int64_t samples;
    int64_t *lines;       /* csv: of each sample, from 1; NULL */
    bool is_sequence;     /* text, tokens: split by place, not at random */
    uint32_t *vocabulary; /* text: code point of each id, ascending; NULL */
    int vocabulary_size;
    char path[512]; /* for messages */
};

/* Loads `source` for the arguments of f. `override` (--data): a file or folder in place of the setting's; may be NULL.
 * `vocabulary`: ids of a checkpoint, or NULL. */
mx_status mxrt_data_load(struct mxrt_data *d, const struct mxrt_program *p, const struct mxrt_setting *source,
                         const char *override, const struct mxrt_function *f, const uint32_t *vocabulary,
                         int vocabulary_size, struct mxrt_why *why);
void mxrt_data_free(struct mxrt_data *d);
/* What feeds the argument of that name, the last of several; NULL if nothing does. */
const struct mxrt_field *mxrt_data_field(const struct mxrt_data *d, const char *name);

/* Parses CSV text: cells[row * columns + column]; names[] of a header line, or NULL. Separators: comma, semicolon or tab, whichever
 * the first line has. Numbers, true and false; quotes allowed. Errors name line and column. All from malloc. */
struct mxrt_csv {
    int64_t rows, columns;
    float *cells;
    int64_t *lines; /* [rows], from 1 */
    char **names;
};
mx_status mxrt_csv_parse(struct mxrt_csv *csv, const char *path, const char *text, size_t bytes, struct mxrt_why *why);
void mxrt_csv_free(struct mxrt_csv *csv);

/* A permutation of 0 … n - 1 into order, keyed by seed and epoch. */
void mxrt_shuffle(int64_t *order, int64_t n, uint64_t seed, uint64_t epoch);

struct mxrt_batch {
    int64_t n;                   /* samples */
    const int64_t *samples;      /* [n]: which ones */
    int64_t dims[MXRT_MAX_RANK]; /* the function's symbols */
    void *args[64];              /* per argument; NULL for those that no field feeds */
    int64_t labels;              /* elements of the last integer argument, n if there is none */
};

/* Batches of `batch` samples in the given order, made ahead by a thread; `trace` (may be NULL) notes when. What p->ahead is given as
 * they are made belongs to `model`; p may be NULL. */
struct mxrt_loader;
struct mxrt_trace;
mx_status mxrt_loader_open(struct mxrt_loader **l, const struct mxrt_data *d, const struct mxrt_function *f,
                           const int64_t *order, int64_t count, int64_t batch, int64_t first_batch,
                           const struct mxrt_program *p, void *model, struct mxrt_trace *trace, struct mxrt_why *why);
/* The next batch, valid until the next call; NULL at the end (MX_OK) or after an error. */
mx_status mxrt_loader_next(struct mxrt_loader *l, struct mxrt_batch **b, struct mxrt_why *why);
void mxrt_loader_close(struct mxrt_loader *l);
/* Samples a function takes at most (its first symbol's limit), and whether it takes fewer. */
int64_t mxrt_batch_limit(const struct mxrt_function *f, bool *exact);

#endif
