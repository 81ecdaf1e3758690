/* Words of a .mxl file. The whole file is lexed at once; the parser walks the array.
 *
 * What lexing guarantees to the parser, whatever the bytes were:
 *   - brackets are balanced: every opener's `match` is its closer and the other way round. Where the file was not
 *     balanced, that has been reported and closers marked `missing` stand in;
 *   - `newline` is set exactly on tokens before which a line end separates statements (the innermost bracket is a
 *     brace or there is none). Continuation after an operator or a comma is the parser's matter: it does not look.
 */
#ifndef MXCC_FRONTEND_LEX_H
#define MXCC_FRONTEND_LEX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/diag.h"

enum token_kind {
    TOK_END,
    TOK_NAME,
    TOK_INT,
    TOK_FLOAT,
    TOK_STRING,
#define K(name, text) TOK_##name,
#define P(name, text) TOK_##name,
#include "frontend/token.def"
#undef K
#undef P
};

struct token {
    enum token_kind kind;
    bool newline; /* a line end that counts stands before it */
    bool first;   /* first on its line, whether that counts or not */
    bool missing; /* put in where the file lacks it; the lack has been reported */
    uint32_t begin, end;
    int match; /* of brackets */
    union {
        int64_t integer;    /* INT: the bits of a u64 */
        double number;      /* FLOAT */
        const char *string; /* NAME; STRING with escapes resolved */
    };
};

enum comment_kind { COMMENT_LINE, COMMENT_BLOCK, COMMENT_DOC };

struct comment {
    enum comment_kind kind;
    bool own_line;       /* nothing stands before it on its line */
    uint32_t begin, end; /* markers included; a line comment without its line end and trailing blanks */
};

struct words {
    struct token *tokens; /* the last is TOK_END */
    int count;
    struct comment *comments; /* in order of place */
    int comment_count;
};

/* Lexes a file; errors go to `diag`. Tokens and strings live in `arena`. */
struct words lex_source(struct arena *arena, struct diag *diag, const struct source *source);

/* The text of a kind as messages quote it: "let", "+=", "a name". */
const char *token_kind_text(enum token_kind kind);

/* Internal to the lexer (lex.c, lex_number.c, lex_brackets.c). */
typedef VEC(struct token) token_vec;
struct lexer {
    struct arena *arena;
    struct diag *diag;
    const struct source *source;
    const char *text;
    uint32_t at, length;
    token_vec tokens;
    VEC(struct comment) comments;
    int errors;
    bool line_start; /* no token yet on this line */
    bool bad_utf8;   /* reported once */
};
enum { LEX_ERROR_LIMIT = 50 };
struct diagnostic *lex_error(struct lexer *l, enum error_code code, uint32_t begin, uint32_t end, const char *format,
                             ...) __attribute__((format(printf, 5, 6)));
/* A number at l->at; pushes INT or FLOAT. After a `.` only digits count: net.stages.0.conv. */
void lex_number(struct lexer *l, bool after_dot);
/* Balances brackets, sets `match` and decides which line ends count. */
void lex_brackets(struct lexer *l);

#endif
