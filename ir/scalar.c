/* The table of scalar functions: the rows of ir/scalar.def as data. */
#include "ir/ir.h"

#include <string.h>

const struct scalar_info scalar_table[FN_COUNT] = {
#define S(name, arity, class, text, ...) {#name, arity, CLASS_##class, #text, {__VA_ARGS__}},
#include "ir/scalar.def"
#undef S
};

bool scalar_parse(const char *name, enum scalar_fn *fn) {
    for (int i = 0; i < FN_COUNT; i++)
        if (!strcmp(scalar_table[i].name, name)) {
            *fn = (enum scalar_fn)i;
            return true;
        }
    return false;
}
