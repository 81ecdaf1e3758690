/* A module run eagerly, seen as a program of libmxrt. */
#ifndef MXCC_DRIVER_EAGER_PROGRAM_H
#define MXCC_DRIVER_EAGER_PROGRAM_H

#include "eager/eager.h"
#include "mxrt/gzip.h"
#include "mxrt/program.h"

enum { MXRT_MAX_DIMS = 64 };

/* In the module's arena. */
struct mxrt_program eager_program(struct ir_module *m);

#endif
