/* A hand-written program for tests of libmxrt: one weight vector w[2], least squares on x[N, 2] and y[N] by gradient descent, a
 * counter as state, noise keyed by the call counter. */
#ifndef TESTS_RUNTIME_PROGRAM_H
#define TESTS_RUNTIME_PROGRAM_H

#include "mxrt/program.h"

extern const struct mxrt_program fit_program;
/* The step at which the loss becomes nan; 0: never. */
extern int fit_nan_at;

#endif
