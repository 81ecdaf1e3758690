/* Scalar functions of generated programs and of the evaluator: one text, so that both give the same bits.
 *
 * mx_NAME_f32, mx_NAME_f64, mx_NAME_i (int64_t) and mx_NAME_u (uint64_t) for the functions that ir/scalar.def calls
 * M(NAME); conversions; random bits. The generator pastes single functions out of the files of ir/scalar_math/ into its
 * output: each is preceded by a line that gives its name and the names it needs, and keeps its constants inside.
 *
 * f32 exp, expm1, log, log1p, sigmoid, tanh, erf, sin, cos and tan are free of branches and of calls, so that a loop
 * over them vectorizes at -O3 (with SSE2 too); sqrt needs -fno-math-errno for that. They are written for separate
 * rounding of products and sums (-ffp-contract=off): nothing relies on contraction for accuracy. Largest errors found
 * by dense sampling, in units of the last place (asserted by tests/unit/test_scalar_math.c):
 *
 *     exp 1.1   expm1 1.6   log 0.9   log1p 0.9   sigmoid 2.3   tanh 1.4   erf 1.2   sin, cos 0.6   tan 0.9
 *
 * sin, cos and tan hold this for |x| < 2^32; beyond, neighbouring floats are several periods apart and the angle is
 * taken as 0. The other f32 functions and all f64 ones are those of libm.
 */
#ifndef MX_SCALAR_MATH_H
#define MX_SCALAR_MATH_H

#include "ir/scalar_math/bits.h"
#include "ir/scalar_math/convert.h"
#include "ir/scalar_math/elementary.h"
#include "ir/scalar_math/float.h"
#include "ir/scalar_math/integer.h"
#include "ir/scalar_math/random.h"

#endif
