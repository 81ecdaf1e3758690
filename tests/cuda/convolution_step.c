/* A few steps of convolution_step.mxl, and predictions; all results as f64 into the file named. */
#include <stdio.h>
#include <string.h>

#include "convolution_step.h"

static FILE *out;
static int failed;

static void keep(convolution_step *m, const char *what, mx_status status, const float *x, int n) {
    if (status != MX_OK) {
        fprintf(stderr, "%s: status %d %s\n", what, (int)status, convolution_step_error(m));
        failed = 1;
        return;
    }
    for (int i = 0; i < n; i++) {
        double v = x[i];
        fwrite(&v, sizeof v, 1, out);
    }
}

int main(int argc, char **argv) {
    enum { X = 4 * 3 * 32 * 32, Y = 4 * 64 };
    static float x[X], y[Y], p[Y], loss;
    convolution_step *m;
    convolution_step_options options;
    memset(&options, 0, sizeof options);
    options.seed = 5;
    out = argc > 1 ? fopen(argv[1], "wb") : NULL;
    if (!out || convolution_step_init(&m, NULL, 0, &options) != MX_OK)
        return 1;
    for (int i = 0; i < X; i++)
        x[i] = (float)(i * 37 % 101) / 101 - 0.45f;
    for (int i = 0; i < Y; i++)
        y[i] = (float)(i * 11 % 31) / 31;
    for (int i = 0; i < 2; i++) /* the second as a graph */
        keep(m, "step", convolution_step_step(m, 4, x, y, &loss), &loss, 1);
    keep(m, "predict", convolution_step_predict(m, 3, x, p), p, 3 * 64);
    convolution_step_free(m);
    return fclose(out) || failed;
}
