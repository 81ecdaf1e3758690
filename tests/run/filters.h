/* C functions that extern.mxl calls. */
#ifndef FILTERS_H
#define FILTERS_H
#include <stdint.h>

/* out[i] is the mean of x[i] and x[i - 1], or of x[0] twice. */
void smooth_f32(const float *x, int64_t n, float *out);
void smooth_adjoint_f32(const float *g, int64_t n, float *out);
int32_t count_above(const double *x, int64_t n, double limit);

#endif
