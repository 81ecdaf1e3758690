/* What the files that print a Python module share. */
#ifndef MXCC_CODEGEN_PYTHON_INTERNAL_H
#define MXCC_CODEGEN_PYTHON_INTERNAL_H

#include "codegen/python/python.h"

/* Names of one scope. An identifier of Python from the model's name, unique in the scope: keywords, and what the scope
 * was made with, get a trailing underscore, what meets an earlier name a number. */
struct python_scope {
    struct arena *arena;
    VEC(const char *) names;
};
const char *python_enter(struct python_scope *s, const char *name);
/* Method names that the base class of codegen/python/support.py has. */
void python_enter_methods(struct python_scope *s);
/* "two_towers" -> "TwoTowers", "StepResult" with the suffix "Result". */
const char *python_class(struct python_scope *s, const char *name, const char *suffix);

#endif
