/* The printer of the IR's text form, as its files share it; private to ir/. text_print.c prints modules, functions and operations,
 * text_print_expr.c nests, text_print_words.c what stands inside them. */
#ifndef MXCC_IR_TEXT_PRINT_H
#define MXCC_IR_TEXT_PRINT_H

#include "base/text.h"
#include "ir/ir.h"

struct printer {
    struct text *out;
    struct arena scratch;
    const char **symbols; /* by symbol id; NULL: print a symbol's own name */
    int symbol_count;
};

/* The name as one word of the grammar: letters, digits, `_`, inner dots, and (if `numbered`) `#` before digits at the end. */
char *print_make_word(struct arena *a, const char *name, bool numbered, const char *fallback);
/* A word that is none of used[0 .. n): the name itself or with the first free suffix. */
const char *print_unique_word(struct arena *a, const char *word, const char *const *used, int n);
void print_string(struct text *out, const char *s); /* in quotes */
/* A name that must come back as it is: a word, or a string. */
void print_name(struct text *out, const char *name);
void print_value(struct printer *p, const struct ir_value *v);
void print_values(struct printer *p, struct ir_value *const *values, int n);
void print_definition(struct printer *p, const struct ir_value *v); /* with its type */
void print_dim(struct printer *p, struct text *out, ir_dim d);
void print_type(struct printer *p, struct ir_type t);
void print_float(struct text *out, enum dtype t, double value);
void print_int(struct text *out, enum dtype t, int64_t value);
void print_nest(struct printer *p, const struct ir_op *op, int indent);

#endif
