/* Words of the IR's text form; private to ir/. */
#ifndef MXCC_IR_TEXT_LEX_H
#define MXCC_IR_TEXT_LEX_H

#include "base/diag.h"
#include "ir/ir.h"

enum ir_token_kind {
    TOKEN_END,
    TOKEN_WORD,   /* letters, digits, `_`, inner dots, `#2` at the end: text */
    TOKEN_STRING, /* decoded: text */
    TOKEN_NUMBER, /* without sign */
    TOKEN_VALUE,  /* %7.name: integer 7, text "name" or NULL */
    TOKEN_LET,    /* $3 */
    TOKEN_SIGN,   /* text: one of ( ) [ ] { } , : = < @ ? + - * ~ # .. += -> <= */
};

struct ir_token {
    enum ir_token_kind kind;
    const char *text; /* in the reader's scratch arena */
    uint64_t integer; /* VALUE, LET; NUMBER if is_integer */
    double number;    /* NUMBER */
    bool is_integer, is_hex;
    struct span span;
};

struct ir_lexer {
    const struct source *source;
    struct arena *arena; /* for token texts */
    size_t at;
    struct ir_token token; /* the current one */
    const char *error;     /* set by a malformed token, which reads as END */
};

void ir_lex_next(struct ir_lexer *l);

#endif
