/* What filters.h declares. */
#include "filters.h"

void smooth_f32(const float *x, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++)
        out[i] = 0.5f * x[i] + 0.5f * x[i > 0 ? i - 1 : 0];
}

void smooth_adjoint_f32(const float *g, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++)
        out[i] = 0.5f * g[i] + (i + 1 < n ? 0.5f * g[i + 1] : 0) + (i == 0 ? 0.5f * g[0] : 0);
}

int32_t count_above(const double *x, int64_t n, double limit) {
    int32_t k = 0;
    for (int64_t i = 0; i < n; i++)
        k += x[i] > limit;
    return k;
}
