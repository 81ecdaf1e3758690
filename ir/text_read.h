/* The reader of the IR's text form, as its files share it; private to ir/. text_parse.c reads modules and functions,
 * text_parse_op.c operations, text_expr.c what stands inside them: types, dimensions, numbers, expressions; text_read.c has the
 * tokens and what is found by its name. */
#ifndef MXCC_IR_TEXT_READ_H
#define MXCC_IR_TEXT_READ_H

#include "ir/text_lex.h"

enum {
    READ_MAX_DEPTH = 250,      /* of expressions, dimensions, settings: bounds recursion */
    READ_MAX_REGIONS = 64,     /* of nested regions */
    READ_MAX_RANK = 64,        /* of types; indices of a nest, subscripts of a load */
    READ_MAX_VALUES = 1 << 22, /* value numbers: tables are arrays of them */
};

struct named_symbol {
    const char *name;
    struct ir_symbol *symbol;
};

struct value_list {
    struct ir_value **at;
    int n, cap;
};

struct reader {
    struct ir_lexer lex;
    struct ir_module *module;
    struct diag *diag; /* NULL: errors only set `failed` */
    struct arena scratch;
    bool failed; /* after the first error every token reads as the end */
    int depth;

    /* The current function. */
    struct ir_func *func;
    struct ir_value **values; /* by number */
    int value_cap;
    VEC(int) defined;
    VEC(struct named_symbol) symbols;

    /* The current nest (expressions). */
    const struct ir_op *nest;
    VEC(const char *) indices;
    VEC(enum dtype) accs;
    VEC(ir_expr) lets;

    /* ir_parse_scalar. */
    bool scalar;
    enum dtype scalar_type;
    const char *const *names;
    const ir_expr *name_values;
    int name_count;
};

/* Reports the first error, at the current token, and stops the reading. */
void read_fail(struct reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
void read_next(struct reader *r);
bool read_at(const struct reader *r, const char *sign); /* the current token is this sign */
bool read_accept(struct reader *r, const char *sign);   /* … and steps over it */
void read_expect(struct reader *r, const char *sign);
bool read_accept_word(struct reader *r, const char *word);
void read_expect_word(struct reader *r, const char *word);
const char *read_word(struct reader *r, const char *what);
bool read_enter(struct reader *r); /* one level of nesting deeper; false after an error. Pairs with read_leave. */
void read_leave(struct reader *r);
bool read_at_word(const struct reader *r, const char *word);
const char *read_keep(struct reader *r, const char *text); /* in the module */
const char *read_string(struct reader *r, const char *what);
const char *read_name(struct reader *r, const char *what); /* a word or a string */
const char *read_optional_name(struct reader *r, const char *what);
void read_repeated(struct reader *r, const char *name); /* fails: the name is defined already */

/* `%7.h @net.h#1: f32[8]`; not yet to be found by its number: for that, read_define. */
struct ir_value *read_definition(struct reader *r);
void read_define(struct reader *r, struct ir_value *v);
struct value_list read_values(struct reader *r);
struct ir_value **read_keep_values(struct reader *r, const struct value_list *list); /* as an array of the module */
struct ir_symbol *read_symbol(struct reader *r);                                     /* `N in 1 .. 64` */
void read_bind_symbol(struct reader *r, const char *name, struct ir_symbol *symbol);
struct ir_buffer *read_buffer(struct reader *r);
/* `{ (arguments) operations yield values }`, where `last` is the word `yield`, or `return` of a function, whose arguments were read before. */
void read_block(struct reader *r, struct ir_region *region, const char *last, int depth);

int64_t read_int(struct reader *r);          /* with a sign */
int read_small(struct reader *r, int limit); /* 0 .. limit, without a sign */
enum dtype read_dtype(struct reader *r);
struct ir_type read_type(struct reader *r);
ir_dim read_dim(struct reader *r);
/* A number of a known type, in one of its forms (`-1`, `0.5`, `inf`, `true`, `0x7fc0`: a float's bits), as bytes. */
void read_element(struct reader *r, enum dtype t, void *at);
struct ir_value *read_value(struct reader *r); /* one defined before; NULL after an error */
/* The operand slot of the value just read: `@2`, or the first that holds it. -1 after an error. */
int read_slot(struct reader *r, const struct ir_value *v);
ir_expr read_expr(struct reader *r); /* NULL after an error */

#endif
