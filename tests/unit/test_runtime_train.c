/* libmxrt's program: training, resumption to the same bits, calls, and what goes wrong. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mxrt/data.h"
#include "runtime_program.h"

static char folder[64];

static void enter(void) {
    strcpy(folder, "/tmp/mxrt-train-XXXXXX");
    cr_assert(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
    FILE *f = fopen("fit.csv", "w");
    for (int i = 0; i < 101; i++) /* y = 3 a - 2 b, in tenths */
        fprintf(f, "%d,%d,%g\n", i % 17, i % 13, 0.3 * (i % 17) - 0.2 * (i % 13));
    fclose(f);
    f = freopen("stderr.txt", "w", stderr);
    cr_assert(f);
}

static void leave(void) {
    char command[100];
    cr_assert_eq(chdir("/"), 0);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(runtime_train, .init = enter, .fini = leave);

static int run(const char *command) {
    char text[400], *argv[32];
    int argc = 0;
    strcpy(text, command);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    fit_nan_at = getenv("FIT_NAN") ? atoi(getenv("FIT_NAN")) : 0;
    return mxrt_main(&fit_program, argc, argv);
}

static const char *messages(void) {
    static char text[8192];
    fflush(stderr);
    FILE *f = fopen("stderr.txt", "r");
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static bool same_files(const char *a, const char *b) {
    char command[200];
    snprintf(command, sizeof command, "cmp -s %s %s", a, b);
    return system(command) == 0;
}

Test(runtime_train, learns_and_reports) {
    cr_assert_eq(run("fit train --epochs 60 --out r"), 0, "%s", messages());
    cr_assert(strstr(messages(), "epoch 60/60  loss 0.0"), "%s", messages());
    cr_assert(strstr(messages(), "held out: near 100.0%"), "%s", messages());
    cr_assert_eq(system("test $(wc -l < r/metrics.csv) = 61 && ls r/events.out.tfevents.* >/dev/null"), 0);
    cr_assert_eq(run("fit evaluate --out r"), 0);
}

Test(runtime_train, resumes_to_the_same_bits) {
    cr_assert_eq(run("fit --out whole"), 0, "%s", messages());
    for (int stop = 1; stop < 44; stop += 7) { /* in the middle of an epoch, at its end, … */
        char command[100];
        cr_assert_eq(system("rm -rf parts"), 0);
        snprintf(command, sizeof command, "fit --out parts --steps %d", stop);
        cr_assert_eq(run(command), 130, "%s", messages());
        cr_assert_eq(run("fit --out parts --resume"), 0, "%s", messages());
        cr_assert(same_files("whole/checkpoint.safetensors", "parts/checkpoint.safetensors"), "stopped after %d", stop);
        cr_assert_eq(
            system("cut -d, -f 1,2,4- whole/metrics.csv > a; cut -d, -f 1,2,4- parts/metrics.csv > b; cmp a b"), 0);
    }
    cr_assert_eq(run("fit --out other --seed 5"), 0);
    cr_assert_not(same_files("whole/checkpoint.safetensors", "other/checkpoint.safetensors"));
}

Test(runtime_train, nan_keeps_the_last_good_checkpoint) {
    cr_assert_eq(run("fit --out r --epochs 1"), 0);
    cr_assert_eq(system("cp r/checkpoint.safetensors good"), 0);
    setenv("FIT_NAN", "15", 1);
    cr_assert_eq(run("fit --out r --epochs 1"), 0);
    cr_assert_eq(run("fit --out r --resume --epochs 3"), 1);
    unsetenv("FIT_NAN");
    cr_assert(strstr(messages(), "loss is nan at step 15 (epoch 2)"), "%s", messages());
    cr_assert(strstr(messages(), "the last good checkpoint is r/checkpoint.safetensors"), "%s", messages());
    cr_assert(same_files("good", "r/checkpoint.safetensors"));
}

Test(runtime_train, calls) {
    float x[] = {1, 2, 3, 4};
    int64_t shape[] = {2, 2};
    double wide[] = {1, 2, 3, 4, 5, 6};
    int64_t wrong[] = {2, 3};
    struct mxrt_why why;
    struct mxrt_array y;
    cr_assert_eq(mxrt_write_npy("x.npy", MX_F32, 2, shape, x, &why), MX_OK);
    cr_assert_eq(mxrt_write_npy("w.npy", MX_F64, 2, wrong, wide, &why), MX_OK);
    cr_assert_eq(run("fit --seed 4 --call predict --in x=x.npy --out d"), 0, "%s", messages());
    cr_assert_eq(mxrt_read_npy(&y, "d/result.npy", NULL, &why), MX_OK, "%s", why.text);
    cr_assert(y.rank == 1 && y.shape[0] == 2 && mxrt_get(y.dtype, y.data, 1) == 1.5);
    mxrt_array_free(&y);
    cr_assert_eq(run("fit predict --in x=w.npy"), 1);
    cr_assert(strstr(messages(), "w.npy: x wants f32[N, 2], the file has f64[2, 3]"), "%s", messages());
    cr_assert_eq(run("fit predict"), 1);
    cr_assert(strstr(messages(), "predict needs x: --in x=FILE.npy"), "%s", messages());
    cr_assert_eq(run("fit predict --in z=1"), 1);
    cr_assert_eq(run("fit predict --in x=none.npy"), 1);
    cr_assert(strstr(messages(), "none.npy: No such file"), "%s", messages());
}

static struct {
    _Atomic int sent, ended;
    _Atomic size_t x_bytes, y_bytes;
    _Atomic bool wrong;
} ahead;

static void note_ahead(void *model, const struct mxrt_function *f, void *const *args, const size_t *bytes) {
    ahead.wrong |= !model;
    if (!args) {
        ahead.ended++;
        return;
    }
    ahead.wrong |= !args[0] || !args[1] || bytes[0] != 2 * bytes[1] || (f->arg_count == 3 && args[2]);
    if (strcmp(f->name, "step") == 0) {
        ahead.sent++;
        ahead.x_bytes += bytes[0];
        ahead.y_bytes += bytes[1];
    }
}

Test(runtime_train, batches_are_sent_ahead) {
    cr_assert_eq(run("fit train --epochs 2 --out plain"), 0, "%s", messages());
    struct mxrt_program p = fit_program;
    char *argv[] = {"fit", "train", "--epochs", "2", "--out", "sent"};
    p.ahead = note_ahead;
    cr_assert_eq(mxrt_main(&p, 6, argv), 0, "%s", messages());
    cr_assert(!ahead.wrong);
    /* 81 of 101 samples train, in batches of 8, twice; a loader for each epoch's steps and its evaluation. */
    cr_assert_eq(ahead.sent, 22, "%d", ahead.sent);
    cr_assert_eq(ahead.x_bytes, 2 * 81 * 2 * sizeof(float), "%zu", (size_t)ahead.x_bytes);
    cr_assert_eq(ahead.y_bytes, 2 * 81 * sizeof(float), "%zu", (size_t)ahead.y_bytes);
    cr_assert_eq(ahead.ended, 4, "%d", ahead.ended);
    cr_assert(same_files("plain/checkpoint.safetensors", "sent/checkpoint.safetensors"));
}

Test(runtime_train, usage) {
    cr_assert_eq(run("fit --epoch 3"), 2);
    cr_assert_eq(run("fit --epochs x"), 2);
    cr_assert_eq(run("fit --batch 0"), 2);
    cr_assert_eq(run("fit fly"), 2);
    cr_assert_eq(run("fit call nothing"), 2);
    cr_assert_eq(run("fit --kvstore everywhere"), 2);
    cr_assert_eq(run("fit --virtual-ranks 2"), 1); /* its step is not split */
    cr_assert_eq(run("fit --batch 9"), 1);
    cr_assert(strstr(messages(), "step takes at most 8 samples"), "%s", messages());
    cr_assert_eq(run("fit --resume --out nowhere"), 1);
    cr_assert(strstr(messages(), "cannot read nowhere/checkpoint.safetensors"), "%s", messages());
    cr_assert_eq(run("fit --data missing.csv"), 1);
    cr_assert(strstr(messages(), "missing.csv: No such file"), "%s", messages());
    cr_assert_eq(system("printf '1,2,3\\n4,5,six\\n' > bad.csv"), 0);
    cr_assert_eq(run("fit --data bad.csv"), 1);
    cr_assert(strstr(messages(), "bad.csv:2: column 3: expected a number, got \"six\""), "%s", messages());
    cr_assert_eq(system("printf '1,2\\n4,5\\n' > narrow.csv"), 0);
    cr_assert_eq(run("fit --data narrow.csv"), 1);
    cr_assert(strstr(messages(), "it has 2 columns; y needs column 2"), "%s", messages());
}

Test(runtime_train, shuffle_is_a_permutation) {
    int64_t order[1000], count[1000] = {0}, again[1000], fixed = 0;
    mxrt_shuffle(order, 1000, 1, 2);
    mxrt_shuffle(again, 1000, 1, 2);
    cr_assert_eq(memcmp(order, again, sizeof order), 0);
    for (int i = 0; i < 1000; i++) {
        count[order[i]]++;
        fixed += order[i] == i;
    }
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(count[i], 1);
    cr_assert_lt(fixed, 10);
    mxrt_shuffle(again, 1000, 1, 3);
    cr_assert_neq(memcmp(order, again, sizeof order), 0);
}
