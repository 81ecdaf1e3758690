/* Elaboration: the syntax trees of a program become an IR module. Everything static runs here. */
#ifndef MXCC_FRONTEND_ELABORATE_H
#define MXCC_FRONTEND_ELABORATE_H

#include "frontend/ast.h"
#include "ir/ir.h"

struct elaborate_options {
    const char *name;               /* of the module: stem of the output */
    const char *const *stdlib_dirs; /* where `use nn` looks; NULL-terminated; the built-in library is used when empty */
    const char *const *binds;       /* --bind "N=64"; NULL-terminated or NULL */
    bool unchecked;                 /* no run-time index checks */
    bool check_all;                 /* `mxcc check`: report errors only */
};

/* NULL after errors reported to diag. */
struct ir_module *elaborate_file(struct diag *d, const struct source *source, const struct elaborate_options *o);

#endif
