/* The message that goes with a status other than MX_OK: what was expected, where, what was seen. */
#ifndef MXRT_WHY_H
#define MXRT_WHY_H

#include <stdarg.h>
#include <stdio.h>

#include "mxrt/status.h"

struct mxrt_why {
    char text[600];
};

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static inline mx_status
mxrt_fail(struct mxrt_why *why, mx_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why->text, sizeof why->text, format, args);
    va_end(args);
    return status;
}

#endif
