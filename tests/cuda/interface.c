/* Everything of the interface of interface.mxl, once; prints what both targets must agree on. With an argument: only init, and a call. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "interface.h"

static void logged(void *context, const char *line) {
    printf("%s: %s\n", (const char *)context, line);
}

static int say(interface *m, const char *what, mx_status status) {
    printf("%s: status %d %s\n", what, (int)status, status == MX_OK ? "" : interface_error(m));
    return status == MX_OK;
}

static void show(const char *what, const float *x, int n) {
    printf("%s", what);
    for (int i = 0; i < n; i++)
        printf(" %.4f", (double)x[i] + 1e-9);
    printf("\n");
}

int main(int argc, char **argv) {
    static char context[] = "log";
    interface_options options;
    memset(&options, 0, sizeof options);
    options.seed = 7;
    options.log = logged;
    options.log_context = context;
#ifdef WEIGHTS_IMAGE
    static uint64_t image[1 << 16];
    FILE *f = fopen(WEIGHTS_IMAGE, "rb");
    options.weights = image;
    options.weights_bytes = f ? fread(image, 1, sizeof image, f) : 0;
    if (f)
        fclose(f);
#endif
    interface *m = NULL;
    mx_status status = interface_init(&m, NULL, 0, &options);
    if (status != MX_OK) {
        printf("init: status %d\n", (int)status);
        return 0;
    }
    float x[6] = {0.1f, -0.2f, 0.3f, 1, 2, -1}, y[4], loss, w[4] = {1, 2, 3, 4}, before;
    int32_t labels[2] = {0, 1}, seen;
    if (argc > 1) {
        if (!say(m, "step", interface_step(m, 2, x, labels, &loss)))
            show("arguments", x, 6);
        say(m, "step", interface_step(m, 2, x, labels, &loss));
        interface_free(m);
        return 0;
    }
    say(m, "predict", interface_predict(m, 2, x, y, &seen));
    show("y", y, 4);
    for (int i = 0; i < 3; i++) {
        say(m, "step", interface_step(m, 2, x, labels, &loss));
        show("loss", &loss, 1);
    }
    /* A view shows later calls' writes, and what is written there is seen by later calls. */
    mx_tensor bias, calls, last;
    say(m, "param", interface_param(m, "net.b.bias", &bias));
    say(m, "param", interface_param(m, "net.calls", &calls));
    say(m, "param", interface_param(m, "net.nothing", &last));
    show("bias", (const float *)bias.data, 2);
    say(m, "step", interface_step(m, 2, x, labels, &loss));
    show("bias", (const float *)bias.data, 2);
    printf("calls %d\n", (int)*(int32_t *)calls.data);
    ((float *)bias.data)[0] = 100;
    say(m, "predict", interface_predict(m, 1, x, y, &seen));
    printf("large %d calls %d seen %d\n", y[0] > 50, (int)*(int32_t *)calls.data, (int)seen);
    /* A call that fails leaves everything as it was. */
    say(m, "checked", interface_checked(m, w, 9, &before));
    show("w", w, 4);
    say(m, "checked", interface_checked(m, w, 2, &before));
    show("w", w, 4);
    say(m, "shape", interface_predict(m, 33, x, y, &seen));
    say(m, "null", interface_predict(m, 1, NULL, y, &seen));
    /* Save, change, load: as before. */
    if (say(m, "save", interface_save(m, "saved.safetensors"))) {
        interface *other = NULL;
        options.seed = 99;
        interface_init(&other, NULL, 0, &options);
        say(other, "load", interface_load(other, "saved.safetensors"));
        say(other, "step", interface_step(other, 2, x, labels, &loss));
        show("loss", &loss, 1);
        interface_free(other);
    }
    say(m, "step", interface_step(m, 2, x, labels, &loss));
    show("loss", &loss, 1);
    say(m, "load", interface_load(m, "missing.safetensors"));
    say(m, "reset_all", interface_reset_all(m));
    printf("calls %d\n", (int)*(int32_t *)calls.data);
    say(m, "predict", interface_predict(m, 2, x, y, &seen));
    printf("seen %d\n", (int)seen);
    interface_free(m);
    return 0;
}
