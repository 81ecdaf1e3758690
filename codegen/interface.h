/* What a generated unit offers, apart from how a language spells it: its exported functions, with the parameters of their C
 * functions in order. The printers of the C header (codegen/c/model_header.c), of the C functions themselves and of the
 * Python module (codegen/python/) read this one description, so they cannot disagree. */
#ifndef MXCC_CODEGEN_INTERFACE_H
#define MXCC_CODEGEN_INTERFACE_H

#include "codegen/codegen.h"

enum parameter_kind {
    PARAMETER_EXTENT, /* a run-time dimension that an input brings */
    PARAMETER_INPUT,
    PARAMETER_FOUND, /* a dimension that the function finds; by pointer */
    PARAMETER_RESULT,
};

struct interface_parameter {
    enum parameter_kind kind;
    int index;          /* of the function's symbols, arguments, result symbols or results */
    const char *name;   /* in C */
    const char *source; /* in the model; NULL: an unnamed result */
    struct ir_type
        type; /* of an input or result; a dimension found at run time is one symbol in it: that of PARAMETER_FOUND */
    const struct ir_symbol *symbol; /* of an EXTENT or FOUND: name and limits */
    bool is_inout, by_pointer;
};

/* One C function: behind the instance it takes these. */
struct interface_call {
    const char *name; /* without the unit's prefix */
    struct interface_parameter *parameters;
    int count;
};

struct interface_function {
    const struct ir_func *func;
    bool is_incremental; /* then the call has no inputs, but a setter for each */
    struct interface_call call, *setters;
};

struct interface {
    const char *prefix, *upper; /* digits, DIGITS */
    const struct compile_options *options;
    struct ir_module *module;
    struct interface_function *functions; /* the exported ones, in order of the source */
    int function_count;
    int64_t memory_bytes; /* what init needs */
};

/* Reads g->module, all but the function `hidden`. To be called before names are asked for: dimensions found at run time become
 * symbols of the module. */
void interface_of(struct cgen *g, const struct ir_func *hidden, struct interface *out);
/* The function's description; it must be exported. */
const struct interface_function *interface_function(const struct interface *i, const struct ir_func *f);

/* The run-time dimensions of one type, in order of appearance. */
struct interface_symbols {
    const struct ir_func *f;
    int at[64]; /* of f->symbols */
    int count;
};
struct interface_symbols interface_symbols(const struct ir_func *f, struct ir_type t);
/* True when a symbol in d is neither a run-time dimension of f nor one of those that it finds. */
bool interface_dim_unknown(const struct interface_function *f, ir_dim d);

#endif
