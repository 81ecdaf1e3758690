/* What the files of the parser share. Recursive descent over the balanced words of lex.h.
 *
 * Errors: `fail` reports and sets `failed`; while that is set nothing more is reported, every loop ends, and the
 * functions return up to the statement, which skips to the next one (`recover`) and goes on. What is wrong but clear
 * (a chained comparison) is reported by `complain` and parsing goes on in place.
 */
#ifndef MXCC_FRONTEND_PARSE_H
#define MXCC_FRONTEND_PARSE_H

#include "frontend/ast.h"
#include "frontend/lex.h"

enum {
    PARSE_DEPTH_LIMIT = 200,  /* of nesting in the source */
    PARSE_HEIGHT_LIMIT = 500, /* of an expression's tree, which a long chain of operators makes without nesting */
    PARSE_ERROR_LIMIT = 100,
};

/* Where a body stands decides what may stand in it. */
enum body_kind { BODY_FILE, BODY_BLOCK, BODY_FN };

/* What the formatter wants to know about a word. */
enum {
    MARK_STATEMENT = 1,   /* begins a statement */
    MARK_LINE = 2,        /* may begin a line though the statement goes on: behind an annotation, `gradient` */
    MARK_PREFIX = 4,      /* an operator before its operand */
    MARK_INDICES_END = 8, /* the `]` of `tensor[…]` or of a reduction */
    MARK_SLICE = 16,      /* a `:` between slice bounds */
};

struct parser {
    struct arena *arena;
    struct diag *diag;
    const struct source *source;
    const struct token *tokens;
    const struct comment *comments;
    int comment_count;
    uint8_t *marks; /* one a token */
    int at;
    int depth;
    int tallest; /* height of the tallest expression of the body being parsed */
    int errors;
    bool failed;
    bool nested_reported;          /* a declaration inside the function body being parsed was reported */
    const struct token *body_open; /* `{` of the innermost function body, for that report */
};

/* parse_file, and the words and marks it was made from. */
struct ast_file *parse_marked(struct arena *arena, struct diag *diag, const struct source *source, struct words *words,
                              const uint8_t **marks);

/* ---- parse.c: moving through the words ---- */
const struct token *parse_peek(const struct parser *p, int ahead);
static inline const struct token *parse_now(const struct parser *p) {
    return &p->tokens[p->at];
}
static inline bool parse_is(const struct parser *p, enum token_kind kind) {
    return p->tokens[p->at].kind == kind;
}
static inline void parse_mark(struct parser *p, uint8_t mark) { /* the word now */
    p->marks[p->at] |= mark;
}
const struct token *parse_next(struct parser *p); /* the word now, and steps over it (never over the end) */
bool parse_accept(struct parser *p, enum token_kind kind);
/* A contextual word: a name spelled so. */
bool parse_is_word(const struct parser *p, int ahead, const char *word);
/* Expects `kind`; `where` completes "expected `,` …": "after the condition". NULL after failure. */
const struct token *parse_expect(struct parser *p, enum token_kind kind, const char *where);
/* A new name; `what` names its use: "a function". NULL after failure. */
const struct token *parse_name(struct parser *p, const char *what);

struct span parse_span(const struct parser *p, const struct token *t);
/* Where to point when the word now is not what was expected: a line end shows behind the last word, not below it. */
struct span parse_surprise(const struct parser *p);
struct span parse_span_from(const struct parser *p, int first_token); /* from there to the last word stepped over */
/* `in` the reader's words: "`let`", "the name `x`", "the end of the line". */
const char *parse_seen(struct parser *p);
const char *parse_seen_word(struct parser *p); /* the word itself, where a line end before it does not count */

struct diagnostic *parse_complain(struct parser *p, enum error_code code, struct span at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
struct diagnostic *parse_fail(struct parser *p, enum error_code code, struct span at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Enters one level of nesting; false (reported) beyond the limit. parse_leave undoes it either way. */
bool parse_enter(struct parser *p);
static inline void parse_leave(struct parser *p) {
    p->depth--;
}
/* Steps to the end of the statement that began with word `begin`, at least one word: a line end, `;` or `}`. Clears
 * `failed`. */
void parse_recover(struct parser *p, int begin);
/* `///` lines that end on the line above the word; NULL if none. */
const char *parse_doc(struct parser *p, const struct token *before);

/* ---- parse_expr.c ---- */
struct ast_expr *parse_expr(struct parser *p);
struct ast_expr *parse_range_level(struct parser *p); /* tighter than comparisons: a `for`'s values, bounds */
struct ast_expr *parse_type(struct parser *p);
struct ast_pattern parse_pattern(struct parser *p, const char *what, bool bare_list);
int parse_args(struct parser *p, struct ast_arg **args); /* behind the `(`; takes the `)` */
struct ast_expr *parse_error_expr(struct parser *p, struct span at);
struct ast_expr *parse_new_expr(struct parser *p, enum expr_kind kind, struct span at);
/* `e1, e2`: the count, at least 1. */
int parse_expr_list(struct parser *p, struct ast_expr ***items);

/* ---- parse_stmt.c ---- */
/* `{ … }`; `what` completes "expected `{` …": "to begin the body of `f`". NULL after failure. */
struct ast_block_body *parse_body(struct parser *p, enum body_kind kind, const char *what);
/* Statements up to the word with index `end`. */
int parse_statements(struct parser *p, enum body_kind kind, int end, struct ast_stmt ***stmts);

/* ---- parse_decl.c ---- */
bool parse_at_declaration(const struct parser *p);
struct ast_decl *parse_declaration(struct parser *p, enum body_kind kind);

#endif
