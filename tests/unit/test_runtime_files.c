/* libmxrt: arrays, CSV, text and checkpoints in files, whole and damaged. */
#define _GNU_SOURCE /* memmem */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/chars.h"
#include "mxrt/checkpoint.h"
#include "mxrt/data.h"
#include "mxrt/gzip.h"
#include "mxrt/progress.h"

static char folder[64];

static void enter(void) {
    strcpy(folder, "/tmp/mxrt-test-XXXXXX");
    cr_assert(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
}

static void leave(void) {
    char command[100];
    cr_assert_eq(chdir("/"), 0);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

static void write_bytes(const char *path, const void *data, size_t n) {
    FILE *f = fopen(path, "wb");
    cr_assert(f);
    cr_assert_eq(fwrite(data, 1, n, f), n);
    fclose(f);
}

TestSuite(runtime_files, .init = enter, .fini = leave);

Test(runtime_files, npy_round_trip) {
    float data[6] = {1, -2, 3.5f, 0, INFINITY, 1e-30f};
    int64_t shape[] = {2, 3};
    struct mxrt_why why;
    struct mxrt_array a;
    cr_assert_eq(mxrt_write_npy("a.npy", MX_F32, 2, shape, data, &why), MX_OK, "%s", why.text);
    cr_assert_eq(mxrt_read_npy(&a, "a.npy", NULL, &why), MX_OK, "%s", why.text);
    cr_assert(a.dtype == MX_F32 && a.rank == 2 && a.shape[0] == 2 && a.shape[1] == 3);
    cr_assert_eq(memcmp(a.data, data, sizeof data), 0);
    mxrt_array_free(&a);
}

Test(runtime_files, damaged_npy) {
    int64_t shape[] = {4};
    double data[4] = {1, 2, 3, 4};
    struct mxrt_why why;
    struct mxrt_array a;
    char *text;
    size_t n;
    cr_assert_eq(mxrt_write_npy("a.npy", MX_F64, 1, shape, data, &why), MX_OK);
    cr_assert_eq(mxrt_read_file("a.npy", NULL, &text, &n, &why), MX_OK);
    for (size_t cut = 0; cut < n; cut++) { /* every prefix is an error, never a crash */
        write_bytes("b.npy", text, cut);
        cr_assert_neq(mxrt_read_npy(&a, "b.npy", NULL, &why), MX_OK, "cut at %zu", cut);
        cr_assert(strstr(why.text, "b.npy"));
    }
    srand(7);
    for (int i = 0; i < 500; i++) {
        char saved = text[i % 80];
        text[i % 80] = (char)rand();
        write_bytes("b.npy", text, n);
        if (mxrt_read_npy(&a, "b.npy", NULL, &why) == MX_OK)
            mxrt_array_free(&a);
        text[i % 80] = saved;
    }
    free(text);
}

Test(runtime_files, idx_plain_and_gzip) {
    unsigned char idx[] = {0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 250};
    struct mxrt_why why;
    struct mxrt_array a;
    write_bytes("a-idx", idx, sizeof idx);
    cr_assert_eq(mxrt_read_idx(&a, "a-idx", NULL, &why), MX_OK, "%s", why.text);
    cr_assert(a.dtype == MX_U8 && a.rank == 2 && a.shape[1] == 3 && mxrt_get(a.dtype, a.data, 5) == 250);
    mxrt_array_free(&a);
    cr_assert_eq(system("gzip -k a-idx"), 0);
    cr_assert_eq(mxrt_read_idx(&a, "a-idx.gz", mxrt_gunzip, &why), MX_OK, "%s", why.text);
    cr_assert_eq(mxrt_get(a.dtype, a.data, 4), 5);
    mxrt_array_free(&a);
    cr_assert_eq(mxrt_read_idx(&a, "a-idx.gz", NULL, &why), MX_ERROR_UNSUPPORTED);
    cr_assert_eq(system("head -c 30 a-idx.gz > cut.gz"), 0);
    cr_assert_eq(mxrt_read_idx(&a, "cut.gz", mxrt_gunzip, &why), MX_ERROR_FORMAT);
    for (size_t cut = 0; cut < sizeof idx; cut++) {
        write_bytes("b-idx", idx, cut);
        cr_assert_eq(mxrt_read_idx(&a, "b-idx", NULL, &why), MX_ERROR_FORMAT);
    }
    cr_assert_eq(mxrt_read_idx(&a, "none", NULL, &why), MX_ERROR_IO);
    cr_assert(strstr(why.text, "No such file"));
}

Test(runtime_files, npz) {
    struct mxrt_why why;
    struct mxrt_array a;
    if (system(
            "python3 -c 'import numpy as n; n.savez(\"s.npz\", x=n.arange(6.).reshape(2,3)); n.savez_compressed(\"c.npz\", x=n.zeros(1000), y=n.arange(5))' 2>/dev/null") !=
        0)
        cr_skip_test("no numpy");
    cr_assert_eq(mxrt_read_npz(&a, "s.npz", "x", NULL, &why), MX_OK, "%s", why.text);
    cr_assert(a.dtype == MX_F64 && a.shape[1] == 3 && mxrt_get(a.dtype, a.data, 5) == 5);
    mxrt_array_free(&a);
    cr_assert_eq(mxrt_read_npz(&a, "c.npz", "y", mxrt_gunzip, &why), MX_OK, "%s", why.text);
    cr_assert(a.dtype == MX_I64 && mxrt_get(a.dtype, a.data, 4) == 4);
    mxrt_array_free(&a);
    cr_assert_eq(mxrt_read_npz(&a, "c.npz", "z", mxrt_gunzip, &why), MX_ERROR_FORMAT);
}

Test(runtime_files, half_floats) {
    uint16_t h, again;
    struct mxrt_array a = {.data = &h};
    for (int i = 0; i < 65536; i++) {
        h = (uint16_t)i;
        double v = mxrt_get(MX_F16, a.data, 0);
        if (isnan(v))
            continue;
        cr_assert(mxrt_put(MX_F16, &again, 0, v));
        cr_assert_eq(again, h, "%04x -> %g -> %04x", i, v, again);
    }
    mxrt_put(MX_F16, &again, 0, 65519.9);
    cr_assert_eq(again, 0x7bff);
    mxrt_put(MX_F16, &again, 0, 65520);
    cr_assert_eq(again, 0x7c00);
}

static mx_status parse(struct mxrt_csv *csv, const char *text, struct mxrt_why *why) {
    return mxrt_csv_parse(csv, "t.csv", text, strlen(text), why);
}

Test(runtime_files, csv_good) {
    struct mxrt_csv csv;
    struct mxrt_why why;
    cr_assert_eq(parse(&csv, "a,b,\"c d\"\r\n1,2.5,-3e2\r\n\n4, \"5\" ,true\n", &why), MX_OK, "%s", why.text);
    cr_assert(csv.rows == 2 && csv.columns == 3);
    cr_assert_str_eq(csv.names[2], "c d");
    float want[] = {1, 2.5f, -300, 4, 5, 1};
    cr_assert_eq(memcmp(csv.cells, want, sizeof want), 0);
    mxrt_csv_free(&csv);
    cr_assert_eq(parse(&csv, "1;2\n3;4", &why), MX_OK);
    cr_assert(csv.rows == 2 && csv.columns == 2 && csv.cells[3] == 4 && !csv.names);
    mxrt_csv_free(&csv);
    cr_assert_eq(parse(&csv, "1\t2", &why), MX_OK);
    cr_assert_eq(csv.columns, 2);
    mxrt_csv_free(&csv);
}

Test(runtime_files, csv_errors_name_line_and_column) {
    static const char *const bad[][2] = {
        {"1,2\n3,x\n", "t.csv:2: column 2: expected a number, got \"x\""},
        {"1,2\n3\n", "t.csv:2: column 2: missing; the line has 1 columns, 2 were expected"},
        {"1,2\n3,4,5\n", "t.csv:2: column 3: one too many; 2 columns were expected"},
        {"a,b\n1,\n", "t.csv:2: column 2: expected a number, got nothing"},
        {"1,2\n\n\n3,\"4\n", "t.csv:4: column 2: a quote is not closed"},
        {"", "t.csv: no lines with data"},
        {"a,b\n", "t.csv: only a header line"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct mxrt_csv csv;
        struct mxrt_why why;
        cr_assert_eq(parse(&csv, bad[i][0], &why), MX_ERROR_FORMAT);
        cr_assert_str_eq(why.text, bad[i][1]);
    }
}

Test(runtime_files, csv_random_text) {
    static const char alphabet[] = "0123456789.,;\t\n\r\"- eax";
    char text[200];
    srand(3);
    for (int i = 0; i < 20000; i++) {
        int n = rand() % 60;
        for (int k = 0; k < n; k++)
            text[k] = alphabet[rand() % (int)(sizeof alphabet - 1)];
        text[n] = 0;
        char *copy = strdup(text); /* exact size: the sanitizer sees reads beyond */
        struct mxrt_csv csv;
        struct mxrt_why why;
        if (mxrt_csv_parse(&csv, "r.csv", copy, (size_t)n, &why) == MX_OK)
            mxrt_csv_free(&csv);
        free(copy);
    }
}

Test(runtime_files, characters) {
    static const char text[] = "b\xc3\xa4"
                               "a\n\xe2\x82\xac\xf0\x9f\x98\x80"
                               "b\xff";
    struct mxrt_why why;
    struct mxrt_array ids;
    uint32_t *v;
    int n;
    cr_assert_eq(mxrt_vocabulary(text, strlen(text), &v, &n, &why), MX_OK);
    uint32_t want[] = {'\n', 'a', 'b', 0xe4, 0xff, 0x20ac, 0x1f600};
    cr_assert_eq(n, 7);
    cr_assert_eq(memcmp(v, want, sizeof want), 0);
    cr_assert_eq(mxrt_text_ids("t", text, strlen(text), v, n, &ids, &why), MX_OK);
    int32_t expected[] = {2, 3, 1, 0, 5, 6, 2, 4};
    cr_assert_eq(ids.shape[0], 8);
    cr_assert_eq(memcmp(ids.data, expected, sizeof expected), 0);
    mxrt_array_free(&ids);
    char utf8[5];
    cr_assert_eq(mxrt_utf8(0x20ac, utf8), 3);
    cr_assert_str_eq(utf8, "\xe2\x82\xac");
    cr_assert_eq(mxrt_utf8(0x1f600, utf8), 4);
    cr_assert_str_eq(utf8, "\xf0\x9f\x98\x80");
    cr_assert_eq(mxrt_utf8(0xe4, utf8), 2);
    cr_assert_str_eq(utf8, "\xc3\xa4");
    cr_assert_eq(mxrt_text_ids("t", "ab\naz", 5, v, n, &ids, &why), MX_ERROR_FORMAT);
    cr_assert_str_eq(why.text, "t:2:2: 'z' (U+007A) is not in the vocabulary of 7 characters");
    free(v);
}

/* ---- checkpoints */

static float weights[6] = {1, 2, 3, 4, 5, 6};
static int64_t count = 42;
static const int64_t shape[] = {2, 3};
static const struct mxrt_named tensors[2] = {{"net.w", {MX_F32, 2, shape, weights, sizeof weights}},
                                             {"net.count", {MX_I64, 0, NULL, &count, 8}}};
static const char *const metadata[2][2] = {{"seed", "12"}, {"note", "quo\"te\n"}};
static char seen[200];

static void see(void *context, const char *key, const char *value) {
    (void)context;
    strcat(strcat(strcat(seen, key), "="), value);
}

Test(runtime_files, checkpoint_round_trip) {
    struct mxrt_why why;
    float w[6] = {0};
    int64_t n = 0;
    struct mxrt_named into[2] = {tensors[1], tensors[0]}; /* the order of names does not matter */
    into[0].tensor.data = &n;
    into[1].tensor.data = w;
    seen[0] = 0;
    cr_assert_eq(mxrt_checkpoint_write("a.safetensors", tensors, 2, metadata, 2, &why), MX_OK, "%s", why.text);
    cr_assert_eq(mxrt_checkpoint_read("a.safetensors", into, 2, see, NULL, &why), MX_OK, "%s", why.text);
    cr_assert(n == 42 && memcmp(w, weights, sizeof w) == 0);
    cr_assert_str_eq(seen, "seed=12note=quo\"te\n");
    cr_assert_neq(access("a.safetensors.part", F_OK), 0);
}

Test(runtime_files, checkpoint_of_another_model) {
    struct mxrt_why why;
    static const int64_t other[] = {3, 2};
    struct mxrt_named into[2] = {tensors[0], tensors[1]};
    cr_assert_eq(mxrt_checkpoint_write("a.safetensors", tensors, 2, metadata, 2, &why), MX_OK);
    into[0].tensor.shape = other;
    cr_assert_eq(mxrt_checkpoint_read("a.safetensors", into, 2, NULL, NULL, &why), MX_ERROR_SHAPE);
    cr_assert(strstr(why.text, "\"net.w\" is F32[2, 3] in the file and F32[3, 2] in the model"), "%s", why.text);
    into[0] = tensors[0];
    into[0].name = "net.v";
    cr_assert_eq(mxrt_checkpoint_read("a.safetensors", into, 2, NULL, NULL, &why), MX_ERROR_FORMAT);
    cr_assert(strstr(why.text, "\"net.w\", which this model does not have"), "%s", why.text);
    cr_assert_eq(mxrt_checkpoint_write("b.safetensors", tensors, 1, metadata, 0, &why), MX_OK);
    cr_assert_eq(mxrt_checkpoint_read("b.safetensors", tensors, 2, NULL, NULL, &why), MX_ERROR_FORMAT);
    cr_assert(strstr(why.text, "\"net.count\" is not in it"), "%s", why.text);
}

Test(runtime_files, checkpoint_damage) {
    struct mxrt_why why;
    char *text;
    size_t n;
    float w[6] = {9, 9, 9, 9, 9, 9}, untouched[6] = {9, 9, 9, 9, 9, 9};
    int64_t c = 9;
    struct mxrt_named into[2] = {tensors[0], tensors[1]};
    into[0].tensor.data = w;
    into[1].tensor.data = &c;
    cr_assert_eq(mxrt_checkpoint_write("a.safetensors", tensors, 2, metadata, 2, &why), MX_OK);
    cr_assert_eq(mxrt_read_file("a.safetensors", NULL, &text, &n, &why), MX_OK);
    for (size_t cut = 0; cut < n; cut++) {
        write_bytes("b.safetensors", text, cut);
        cr_assert_neq(mxrt_checkpoint_read("b.safetensors", into, 2, NULL, NULL, &why), MX_OK, "cut at %zu", cut);
        cr_assert(memcmp(w, untouched, sizeof w) == 0 && c == 9, "touched at %zu", cut);
    }
    unsigned seed = 11;
    srand(seed);
    for (int i = 0; i < 1000; i++) {
        size_t at = (size_t)rand() % (n - 32);
        char saved = text[at];
        text[at] = (char)rand();
        write_bytes("b.safetensors", text, n);
        (void)mxrt_checkpoint_read("b.safetensors", into, 2, NULL, NULL, &why);
        text[at] = saved;
    }
    free(text);
    write_bytes("b.safetensors", "hello, this is text", 19);
    cr_assert_eq(mxrt_checkpoint_read("b.safetensors", into, 2, NULL, NULL, &why), MX_ERROR_FORMAT);
    cr_assert(strstr(why.text, "not a safetensors file"), "%s", why.text);
}

Test(runtime_files, failed_write_keeps_the_old_file) {
    struct mxrt_why why;
    cr_assert_eq(mxrt_checkpoint_write("a.safetensors", tensors, 2, metadata, 2, &why), MX_OK);
    /* A full device: /dev/full takes the place of the temporary file. */
    cr_assert_eq(symlink("/dev/full", "a.safetensors.part"), 0);
    cr_assert_eq(mxrt_checkpoint_write("a.safetensors", tensors, 2, metadata, 2, &why), MX_ERROR_IO);
    cr_assert(strstr(why.text, "No space left"), "%s", why.text);
    cr_assert_eq(mxrt_checkpoint_read("a.safetensors", tensors, 2, NULL, NULL, &why), MX_OK, "%s", why.text);
    cr_assert_eq(mxrt_checkpoint_write("missing/a.safetensors", tensors, 2, metadata, 2, &why), MX_ERROR_IO);
}

Test(runtime_files, saver_writes_the_version_that_it_was_given) {
    struct mxrt_why why;
    int64_t extent[] = {1 << 20};
    float *big = calloc(1 << 20, sizeof *big), *back = calloc(1 << 20, sizeof *back);
    cr_assert(big && back);
    struct mxrt_named one = {"big", {MX_F32, 1, extent, big, sizeof *big << 20}}, into = one;
    into.tensor.data = back;
    char value[8] = "first";
    const char *const pair[1][2] = {{"version", value}};
    struct mxrt_saver *s = mxrt_saver_new(NULL);
    cr_assert(s);
    for (int version = 1; version <= 3; version++) {
        for (int i = 0; i < 1 << 20; i++)
            big[i] = (float)version;
        extent[0] = 1 << 20;
        cr_assert_eq(mxrt_saver_begin(s, "s.safetensors", &one, 1, pair, 1, &why), MX_OK, "%s", why.text);
        for (int i = 0; i < 1 << 20; i++) /* while it is written */
            big[i] = -1;
        extent[0] = 0;
        memcpy(value, "changed", 8);
        if (version == 2) /* the next begin waits */
            continue;
        cr_assert_eq(mxrt_saver_wait(s, &why), MX_OK, "%s", why.text);
        cr_assert_eq(mxrt_saver_wait(s, &why), MX_OK);
        extent[0] = 1 << 20;
        cr_assert_eq(mxrt_checkpoint_read("s.safetensors", &into, 1, NULL, NULL, &why), MX_OK, "%s", why.text);
        for (int i = 0; i < 1 << 20; i++)
            cr_assert_eq(back[i], (float)version);
    }
    extent[0] = 1 << 20;
    /* An error comes with the wait, or with the next begin, once; the old file stays. */
    cr_assert_eq(symlink("/dev/full", "s.safetensors.part"), 0);
    cr_assert_eq(mxrt_saver_begin(s, "s.safetensors", &one, 1, pair, 1, &why), MX_OK);
    cr_assert_eq(mxrt_saver_wait(s, &why), MX_ERROR_IO);
    cr_assert(strstr(why.text, "No space left"), "%s", why.text);
    cr_assert_eq(mxrt_saver_wait(s, &why), MX_OK);
    cr_assert_eq(mxrt_saver_begin(s, "missing/s.safetensors", &one, 1, pair, 1, &why), MX_OK);
    cr_assert_eq(mxrt_saver_begin(s, "s.safetensors", &one, 1, pair, 1, &why), MX_ERROR_IO);
    cr_assert_eq(mxrt_saver_begin(s, "s.safetensors", &one, 1, pair, 1, &why), MX_OK);
    mxrt_saver_free(s);
    cr_assert_eq(mxrt_checkpoint_read("s.safetensors", &into, 1, NULL, NULL, &why), MX_OK, "%s", why.text);
    cr_assert_eq(back[7], -1);
    /* Without a saver, at once. */
    cr_assert_eq(mxrt_saver_begin(NULL, "missing/s.safetensors", &one, 1, pair, 1, &why), MX_ERROR_IO);
    cr_assert_eq(mxrt_saver_begin(NULL, "n.safetensors", &one, 1, pair, 1, &why), MX_OK);
    cr_assert_eq(access("n.safetensors", F_OK), 0);
    free(big);
    free(back);
}

Test(runtime_files, crc32c) {
    cr_assert_eq(mxrt_crc32c("123456789", 9), 0xe3069283u); /* the check value of CRC-32C */
    unsigned char zeros[32] = {0};
    cr_assert_eq(mxrt_crc32c(zeros, 32), 0x8a9136aau); /* RFC 3720, B.4 */
}

Test(runtime_files, events) {
    struct mxrt_events *e;
    struct mxrt_why why;
    cr_assert_eq(mxrt_events_open(&e, ".", &why), MX_OK);
    mxrt_events_scalar(e, "loss", 300, 0.5);
    mxrt_events_close(e);
    cr_assert_eq(system("mv events.out.* e"), 0);
    char *text;
    size_t n, at = 0;
    int records = 0;
    cr_assert_eq(mxrt_read_file("e", NULL, &text, &n, &why), MX_OK);
    while (at < n) {
        uint64_t length = (unsigned char)text[at];
        uint32_t stored;
        uint32_t crc = mxrt_crc32c(text + at + 12, length);
        memcpy(&stored, text + at + 12 + length, 4);
        cr_assert_eq(stored, (crc >> 15 | crc << 17) + 0xa282ead8u);
        at += 16 + length;
        records++;
    }
    cr_assert(at == n && records == 2);
    cr_assert(memmem(text, n, "loss", 4) && memmem(text, n, "brain.Event:2", 13));
    free(text);
}

Test(runtime_files, progress_is_plain_without_terminal) {
    struct mxrt_progress p;
    FILE *f = fopen("out", "w+");
    char line[100];
    mxrt_progress_start(&p, f, false);
    mxrt_progress_update(&p, "epoch 1", 5, 10, "loss 1");
    mxrt_progress_line(&p, "epoch 1 done");
    rewind(f);
    cr_assert(fgets(line, sizeof line, f));
    cr_assert_str_eq(line, "epoch 1 done\n");
    cr_assert(!fgets(line, sizeof line, f));
    fclose(f);
}
