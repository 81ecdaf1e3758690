/* Every function of products.mxl once, the step a few times; all results as f64 into the file named. */
#include <stdio.h>
#include <string.h>

#include "products.h"

static FILE *out;
static int failed;

static void keep(products *m, const char *what, mx_status status, const void *x, int n, int bytes) {
    if (status != MX_OK) {
        fprintf(stderr, "%s: status %d %s\n", what, (int)status, products_error(m));
        failed = 1;
        return;
    }
    for (int i = 0; i < n; i++) {
        double v;
        if (bytes == 2) { /* bf16 */
            uint32_t bits = (uint32_t)((const uint16_t *)x)[i] << 16;
            float f;
            memcpy(&f, &bits, 4);
            v = f;
        } else {
            v = bytes == 8 ? ((const double *)x)[i] : ((const float *)x)[i];
        }
        fwrite(&v, sizeof v, 1, out);
    }
}

int main(int argc, char **argv) {
    enum { MOST = 3 * 160 * 320 };
    static float a[MOST], b[MOST], r[MOST], y[MOST], t[MOST], loss;
    static double wa[MOST], wb[MOST], wy[MOST];
    static uint16_t ha[MOST], hb[MOST], hy[MOST];
    products *m;
    products_options options;
    memset(&options, 0, sizeof options);
    options.seed = 5;
    out = argc > 1 ? fopen(argv[1], "wb") : NULL;
    if (!out || products_init(&m, NULL, 0, &options) != MX_OK)
        return 1;
    for (int i = 0; i < MOST; i++) {
        wa[i] = a[i] = (float)(i * 37 % 101) / 101 - 0.45f;
        wb[i] = b[i] = (float)(i * 53 % 97) / 97 - 0.5f;
        r[i] = (float)(i * 11 % 31) / 31;
        memcpy(&ha[i], (char *)&a[i] + 2, 2);
        memcpy(&hb[i], (char *)&b[i] + 2, 2);
    }
    keep(m, "predict", products_predict(m, 128, a, y), y, 128 * 128, 4);
    keep(m, "predict", products_predict(m, 77, a, y), y, 77 * 128, 4);
    for (int i = 0; i < 3; i++)
        keep(m, "step", products_step(m, 96, a, r, &loss), &loss, 1, 4);
    keep(m, "predict", products_predict(m, 128, a, y), y, 128 * 128, 4);
    keep(m, "predict_soft", products_predict_soft(m, 77, a, y), y, 77 * 128, 4);
    for (int i = 0; i < 3; i++)
        keep(m, "step_soft", products_step_soft(m, 96, a, r, &loss), &loss, 1, 4);
    keep(m, "predict_soft", products_predict_soft(m, 128, a, y), y, 128 * 128, 4);
    keep(m, "by_erf", products_by_erf(m, a, b, y, t), y, 128 * 136, 4);
    keep(m, "by_erf", MX_OK, t, 128 * 136, 4);
    keep(m, "wide", products_wide(m, wa, wb, wy), wy, 128 * 136, 8);
    keep(m, "many", products_many(m, a, b, r, y), y, 3 * 128 * 136, 4);
    keep(m, "halves", products_halves(m, ha, hb, ha, hy), hy, 128 * 136, 2);
    keep(m, "strange", products_strange(m, a, b, r, y, t), y, 128 * 136, 4);
    keep(m, "strange", MX_OK, t, 128, 4);
    products_free(m);
    return fclose(out) || failed;
}
