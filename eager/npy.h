/* NumPy's .npy files (format versions 1 to 3). */
#ifndef MXCC_EAGER_NPY_H
#define MXCC_EAGER_NPY_H

#include "base/text.h"
#include "eager/eager.h"

/* The file's array in row-major order and native endianness (big-endian and Fortran-ordered files are converted); NULL
 * with a message appended to `why`. NumPy has no bfloat16: a u16 file is BF16 if `expect` (may be NULL) says so. */
struct tensor *npy_read(const char *path, const enum dtype *expect, struct text *why);
/* The same from memory; `name` for messages. */
struct tensor *npy_parse(const char *bytes, size_t length, const char *name, const enum dtype *expect,
                         struct text *why);
/* 0, or -1 with a message; the file is replaced as a whole. BF16 is written as u16. */
int npy_write(const char *path, const struct tensor *t, struct text *why);

#endif
