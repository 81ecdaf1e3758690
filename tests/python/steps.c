/* The C side of test_same_bits: the calls that the Python side makes, on the same numbers, and what both save. */
#include <stdio.h>

#include "mixed.h"

int main(void) {
    mixed_options options = {0};
    mixed *m;
    float x[8 * 4], y[8 * 2], loss = 0, mean = 0, out[8 * 2];
    options.seed = 5;
    if (mixed_init(&m, NULL, 0, &options) != MX_OK)
        return 1;
    for (int step = 0; step < 20; step++) {
        int n = 1 + step % 8;
        for (int i = 0; i < 4 * n; i++)
            x[i] = (float)((i * 7 + step * 3) % 11) / 11;
        for (int i = 0; i < 2 * n; i++)
            y[i] = (float)((i + step) % 3);
        if (mixed_step(m, n, x, y, 0.05f, &loss) != MX_OK || mixed_run(m, n, x, &mean, out) != MX_OK) {
            fprintf(stderr, "%s\n", mixed_error(m));
            return 1;
        }
        printf("%a %a %a\n", (double)loss, (double)mean, (double)out[2 * n - 1]);
    }
    for (int i = 0; i < MIXED_PARAM_COUNT; i++) {
        mx_param p;
        mx_tensor view;
        if (mixed_param_at(m, i, &p) != MX_OK || mixed_param(m, p.name, &view) != MX_OK || view.data != p.value.data)
            return 1;
        printf("%s %s %d\n", p.is_state ? "state" : "param", p.name, (int)p.value.bytes);
    }
    mx_param none;
    if (mixed_param_at(m, MIXED_PARAM_COUNT, &none) != MX_ERROR_ARGUMENT ||
        mixed_param_at(m, -1, &none) != MX_ERROR_ARGUMENT || mixed_param_at(m, 0, NULL) != MX_ERROR_ARGUMENT ||
        mixed_param_at(NULL, 0, &none) != MX_ERROR_ARGUMENT)
        return 1;
    if (mixed_save(m, "c.safetensors") != MX_OK)
        return 1;
    mixed_free(m);
    return 0;
}
