/* What a C header says about a function, read with libclang where it is installed (loaded when first needed, so that
 * the compiler neither links nor requires it). */
#ifndef MXCC_FRONTEND_EXTERN_HEADER_H
#define MXCC_FRONTEND_EXTERN_HEADER_H

#include <stdbool.h>

#include "base/arena.h"
#include "ir/ir.h"

enum { EXTERN_MAX_PARAMS = 64 };

struct extern_param {
    bool is_pointer, is_const; /* const: what it points to is read only */
    bool known;                /* dtype is one of ours */
    enum dtype dtype;          /* of the scalar, or of what it points to */
    const char *type;          /* as C spells it */
};

struct extern_signature {
    int count;
    struct extern_param params[EXTERN_MAX_PARAMS];
    bool returns_void;
    struct extern_param result;
};

enum extern_status {
    EXTERN_FOUND,
    EXTERN_NO_LIBCLANG, /* nothing can be checked */
    EXTERN_NO_HEADER,   /* it does not exist or does not compile */
    EXTERN_NO_FUNCTION,
};
/* `path` is resolved already. Strings live in the arena. */
enum extern_status extern_header_read(struct arena *a, const char *path, const char *function,
                                      struct extern_signature *s);

#endif
