/* Text as ids; see mxrt/data.h. */
#ifndef MXRT_CHARS_H
#define MXRT_CHARS_H

#include "mxrt/array.h"

/* The text's characters, ascending; from malloc. */
mx_status mxrt_vocabulary(const char *text, size_t bytes, uint32_t **vocabulary, int *size, struct mxrt_why *why);
/* i32[characters]; an unknown character is an error with line and column. */
mx_status mxrt_text_ids(const char *path, const char *text, size_t bytes, const uint32_t *vocabulary, int size,
                        struct mxrt_array *ids, struct mxrt_why *why);
int mxrt_utf8(uint32_t c, char out[5]); /* bytes written, without the 0 */

#endif
