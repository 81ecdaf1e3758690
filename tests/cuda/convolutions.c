/* Function `plain` of convolutions.mxl a few times, with what each call gives: for library.py's planted errors. */
#include <stdio.h>
#include <string.h>

#include "convolutions.h"

static void say(void *context, const char *text) {
    (void)context;
    printf("log: %s\n", text);
}

int main(void) {
    enum { X = 4 * 8 * 20 * 20, W = 24 * 8 * 3 * 3, Y = 4 * 24 * 20 * 20 };
    static float x[X], w[W], r[Y], y[Y], dx[X], dw[W];
    convolutions *m = NULL;
    convolutions_options options;
    memset(&options, 0, sizeof options);
    options.log = say;
    for (int i = 0; i < X; i++)
        x[i] = (float)(i * 37 % 101) / 101 - 0.45f;
    for (int i = 0; i < W; i++)
        w[i] = (float)(i * 53 % 97) / 97 - 0.5f;
    for (int i = 0; i < Y; i++)
        r[i] = (float)(i * 11 % 31) / 31;
    mx_status status = convolutions_init(&m, NULL, 0, &options);
    printf("init: status %d\n", (int)status);
    if (status != MX_OK)
        return 0;
    for (int i = 0; i < 4; i++) { /* of two sizes; the second time as a graph */
        status = convolutions_plain(m, 2 + i % 2, x, w, r, y, dx, dw);
        printf("plain: status %d %s\n", (int)status, status == MX_OK ? "" : convolutions_error(m));
        if (status == MX_OK)
            printf("numbers %.4f %.4f %.4f\n", y[Y / 4], dx[X / 4], dw[W / 4]);
    }
    convolutions_free(m);
    return 0;
}
