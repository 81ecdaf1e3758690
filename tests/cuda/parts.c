/* Calls of parts.mxl with sizes, scalars and numbers of rounds that change and come back; prints what every way of running must agree
 * on, to 6 digits. */
#include <stdio.h>
#include <string.h>

#include "parts.h"

static int failed;

static void show(parts *m, const char *what, mx_status status, const float *x, int n) {
    printf("%s:", what);
    if (status != MX_OK) {
        printf(" status %d %s", (int)status, parts_error(m));
        failed = 1;
    }
    for (int i = 0; i < n && status == MX_OK; i++)
        printf(" %.5g", (double)x[i]);
    printf("\n");
}

static void say(void *context, const char *text) {
    (void)context;
    fprintf(stderr, "%s", text);
}

int main(void) {
    static const int64_t batches[] = {8, 8, 8, 33, 34, 40, 8, 64, 35, 33};
    static const int counts[] = {5, 5, 5, 3, 5, 0, 3, 3};
    static float x[700], t[700], y[192];
    parts *m;
    parts_options options;
    float s, u, loss;
    memset(&options, 0, sizeof options);
    options.seed = 3;
    options.log = say;
    if (parts_init(&m, NULL, 0, &options) != MX_OK)
        return 1;
    for (int i = 0; i < 700; i++)
        x[i] = (float)(i * 37 % 101) / 101 - 0.4f;
    for (int i = 0; i < 192; i++)
        y[i] = (float)(i * 11 % 17) / 17;
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
        show(m, "step", parts_step(m, batches[i], x, y, 0.05f * (float)(i + 1), &loss), &loss, 1);
    for (int i = 0; i < 6; i++) {
        int64_t n = i % 3 == 2 ? 700 : 260 + i;
        mx_status status = parts_sizes(m, n, x, i, &s, t, &u);
        float all[4] = {s, t[0], t[n - 1], u};
        show(m, "sizes", status, all, 4);
    }
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        float all[9];
        mx_status status = parts_rounds(m, x, counts[i], i % 2 ? 3 : 1e9f, all, &all[8]);
        show(m, "rounds", status, all, 9);
    }
    for (int i = 0; i < 6; i++)
        show(m, "scanned", parts_scanned(m, i % 2 ? 12 : 7, x + i, t), t, 4);
    parts_free(m);
    return failed;
}
