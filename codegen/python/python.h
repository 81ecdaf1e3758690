/* The Python module around a unit's shared library. */
#ifndef MXCC_CODEGEN_PYTHON_H
#define MXCC_CODEGEN_PYTHON_H

#include "codegen/interface.h"

/* Appends the module's text. Reports what Python cannot say to g->diag. */
void codegen_python(struct cgen *g, const struct interface *i, struct text *out);
/* The module's name, from a file's stem or a prefix: an identifier of Python that is no keyword. */
const char *codegen_python_module(struct arena *a, const char *name);

#endif
