/* The lexer: bytes to words and comments. Numbers are in lex_number.c, brackets and line ends in lex_brackets.c.
 *
 * Comments are kept in a list of their own, by position: the formatter puts them back, the parser looks there for the
 * `///` lines above a declaration.
 */
#include "frontend/lex.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    enum token_kind kind;
    const char *text;
} fixed[] = {
#define K(name, text) {TOK_##name, text},
#define P(name, text) {TOK_##name, text},
#include "frontend/token.def"
#undef K
#undef P
};
enum { FIRST_SIGN = TOK_SHL_ASSIGN - TOK_USE, FIXED = sizeof fixed / sizeof *fixed };

const char *token_kind_text(enum token_kind kind) {
    switch (kind) {
    case TOK_END: return "the end of the file";
    case TOK_NAME: return "a name";
    case TOK_INT:
    case TOK_FLOAT: return "a number";
    case TOK_STRING: return "a string";
    default: return fixed[kind - TOK_USE].text;
    }
}

struct diagnostic *lex_error(struct lexer *l, enum error_code code, uint32_t begin, uint32_t end, const char *format,
                             ...) {
    if (l->errors++ >= LEX_ERROR_LIMIT)
        return NULL;
    va_list args;
    va_start(args, format);
    const char *message = arena_vprintf(l->arena, format, args);
    va_end(args);
    return diag_error(l->diag, code, (struct span){l->source, begin, end}, "%s", message);
}

static bool is_name_start(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_name_char(char c) {
    return is_name_start(c) || is_digit(c);
}

/* Length of the well-formed UTF-8 sequence at p (RFC 3629: no overlong forms, no surrogates), 0 if there is none. */
static int utf8_length(const char *at, const char *end) {
    const unsigned char *p = (const unsigned char *)at;
    long room = end - at;
    if (p[0] < 0x80)
        return 1;
    int n = p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
    if (n == 0 || n > room)
        return 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] >= 0x90))
        return 0;
    return n;
}

/* Checks the bytes of a comment or string; one report a file, since a file in another encoding is wrong everywhere. */
static void check_utf8(struct lexer *l, uint32_t begin, uint32_t end) {
    for (uint32_t i = begin; i < end && !l->bad_utf8;) {
        int n = utf8_length(l->text + i, l->text + end);
        if (n == 0) {
            l->bad_utf8 = true;
            struct diagnostic *e =
                lex_error(l, E_invalid_utf8, i, i + 1, "byte 0x%02x is not UTF-8", (unsigned)(unsigned char)l->text[i]);
            diag_help(l->diag, e, "save the file as UTF-8");
            return;
        }
        i += (uint32_t)n;
    }
}

static struct token *push(struct lexer *l, enum token_kind kind, uint32_t begin) {
    struct token t = {.kind = kind, .begin = begin, .end = l->at, .first = l->line_start, .match = -1};
    VEC_PUSH(l->arena, l->tokens, t);
    l->line_start = false;
    return &l->tokens.at[l->tokens.n - 1];
}

/* ---- comments ---- */

/* Whether a word of this kind ends an operand, so that what follows it may be meant as its continuation. */
static bool ends_operand(enum token_kind kind) {
    return kind == TOK_NAME || kind == TOK_INT || kind == TOK_FLOAT || kind == TOK_STRING || kind == TOK_RPAREN ||
           kind == TOK_RBRACKET || kind == TOK_TRUE || kind == TOK_FALSE || kind == TOK_NONE;
}

/* `C // 2` from a Python hand would silently drop the divisor. */
static void check_operand_comment(struct lexer *l, const struct comment *c) {
    if (c->own_line || l->tokens.n == 0 || !ends_operand(l->tokens.at[l->tokens.n - 1].kind))
        return;
    uint32_t begin = c->begin + 2, end = c->end;
    while (begin < end && (l->text[begin] == ' ' || l->text[begin] == '\t'))
        begin++;
    if (begin == end)
        return;
    bool number = is_digit(l->text[begin]);
    if (!number && !is_name_start(l->text[begin]))
        return;
    for (uint32_t i = begin; i < end; i++)
        if (!is_name_char(l->text[i]) && !(number && l->text[i] == '.'))
            return;
    int size = (int)(end - begin);
    const char *word = l->text + begin;
    struct diagnostic *e = lex_error(l, E_comment_is_operand, c->begin, c->end,
                                     "`// %.*s` is a comment, not a division", size > 40 ? 40 : size, word);
    diag_label(l->diag, e, "this is dropped as a comment");
    diag_help(l->diag, e,
              "`/` between integers is the floor division: `/ %.*s`; if this is a remark, write more than one word",
              size > 40 ? 40 : size, word);
}

static void line_comment(struct lexer *l) {
    uint32_t begin = l->at;
    const char *stop = memchr(l->text + begin, '\n', l->length - begin);
    l->at = stop ? (uint32_t)(stop - l->text) : l->length;
    uint32_t end = l->at;
    while (end > begin && (l->text[end - 1] == ' ' || l->text[end - 1] == '\t' || l->text[end - 1] == '\r'))
        end--;
    /* `///` documents, a rule of four or more slashes does not. */
    bool doc = end - begin >= 3 && l->text[begin + 2] == '/' && !(end - begin > 3 && l->text[begin + 3] == '/');
    struct comment c = {doc ? COMMENT_DOC : COMMENT_LINE, l->line_start, begin, end};
    check_utf8(l, begin, end);
    if (!doc)
        check_operand_comment(l, &c);
    VEC_PUSH(l->arena, l->comments, c);
}

static void block_comment(struct lexer *l) {
    uint32_t begin = l->at;
    l->at += 2;
    while (l->at + 1 < l->length && !(l->text[l->at] == '*' && l->text[l->at + 1] == '/'))
        l->at++;
    if (l->at + 1 >= l->length) {
        l->at = l->length;
        struct diagnostic *e = lex_error(l, E_unterminated_comment, begin, begin + 2, "this comment is never closed");
        diag_help(l->diag, e, "close it with `*/`; comments do not nest");
    } else {
        l->at += 2;
    }
    struct comment c = {COMMENT_BLOCK, l->line_start, begin, l->at};
    check_utf8(l, begin, l->at);
    VEC_PUSH(l->arena, l->comments, c);
    if (memchr(l->text + begin, '\n', l->at - begin))
        l->line_start = true;
}

/* ---- strings ---- */

static int hex_value(char c) {
    return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static char *put_utf8(char *to, uint32_t c) {
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *to++ = (char)(0xe0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 63));
        *to++ = (char)(0x80 | (c & 63));
    } else {
        *to++ = (char)(0xf0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 63));
        *to++ = (char)(0x80 | (c >> 6 & 63));
        *to++ = (char)(0x80 | (c & 63));
    }
    return to;
}

/* `\u{1F600}`: l->at behind the backslash; the result, or 0 when malformed. */
static uint32_t unicode_escape(struct lexer *l, uint32_t end) {
    uint32_t value = 0, at = l->at + 1;
    int digits = 0;
    if (at >= end || l->text[at++] != '{')
        return 0;
    for (; at < end && digits < 7 && hex_value(l->text[at]) >= 0; at++, digits++)
        value = value * 16 + (uint32_t)hex_value(l->text[at]);
    if (digits == 0 || at >= end || l->text[at] != '}' || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
        return 0;
    l->at = at;
    return value;
}

static void string(struct lexer *l) {
    uint32_t begin = l->at, end = begin + 1;
    while (end < l->length && l->text[end] != '"' && l->text[end] != '\n')
        end += l->text[end] == '\\' && end + 1 < l->length && l->text[end + 1] != '\n' ? 2 : 1;
    bool closed = end < l->length && l->text[end] == '"';
    char *out = arena_alloc(l->arena, end - begin + 1), *to = out;
    for (l->at = begin + 1; l->at < end; l->at++) {
        char c = l->text[l->at];
        if (c == 0) {
            lex_error(l, E_stray_character, l->at, l->at + 1, "a string cannot hold a zero byte");
            continue;
        }
        if (c != '\\') {
            *to++ = c;
            continue;
        }
        uint32_t escape = l->at++;
        c = l->at < end ? l->text[l->at] : 0;
        uint32_t value;
        if (c == 'n') {
            *to++ = '\n';
        } else if (c == 't') {
            *to++ = '\t';
        } else if (c == 'r') {
            *to++ = '\r';
        } else if (c == '\\' || c == '"') {
            *to++ = c;
        } else if (c == 'u' && (value = unicode_escape(l, end)) != 0) {
            to = put_utf8(to, value);
        } else if (closed || l->at < end) {
            struct diagnostic *e = lex_error(l, E_invalid_escape, escape, escape + 2 > end ? end : escape + 2,
                                             "unknown escape in a string");
            diag_help(l->diag, e,
                      "the escapes are `\\n \\t \\r \\\\ \\\"` and `\\u{1F600}`; a backslash itself is `\\\\`");
        }
    }
    *to = 0;
    check_utf8(l, begin, end);
    l->at = closed ? end + 1 : end;
    if (!closed) {
        while (end > begin + 1 && (l->text[end - 1] == '\r' || l->text[end - 1] == ' '))
            end--;
        struct diagnostic *e = lex_error(l, E_unterminated_string, begin, end, "this string is not closed on its line");
        diag_help(l->diag, e, "end it with `\"`; a line end inside a string is written `\\n`");
    }
    push(l, TOK_STRING, begin)->string = out;
}

/* ---- the rest ---- */

/* Signs that keyboards, word processors and papers offer in place of ours. */
static const struct {
    const char *seen, *meant;
    enum token_kind kind; /* what to go on with; TOK_END: leave it out */
} lookalikes[] = {
    {"×", "*", TOK_MUL},    {"·", "*", TOK_MUL},        {"÷", "/", TOK_DIV},  {"−", "-", TOK_SUB},
    {"–", "-", TOK_SUB},    {"≤", "<=", TOK_LE},        {"≥", ">=", TOK_GE},  {"≠", "!=", TOK_NE},
    {"→", "->", TOK_ARROW}, {"…", "...", TOK_ELLIPSIS}, {"“", "\"", TOK_END}, {"”", "\"", TOK_END},
    {"‘", "\"", TOK_END},   {"’", "\"", TOK_END},       {"π", "pi", TOK_END}, {"∞", "inf", TOK_END},
};

static int lookalike_at(const struct lexer *l, uint32_t at) {
    for (int i = 0; i < (int)(sizeof lookalikes / sizeof *lookalikes); i++) {
        size_t n = strlen(lookalikes[i].seen);
        if (n <= l->length - at && memcmp(lookalikes[i].seen, l->text + at, n) == 0)
            return i;
    }
    return -1;
}

/* A run of letters, foreign ones from l->at on, is one mistake and stands for a name; false where there is none. */
static bool foreign_letters(struct lexer *l, uint32_t begin) {
    uint32_t at = l->at;
    while (at < l->length && ((unsigned char)l->text[at] >= 0x80 || is_name_char(l->text[at]))) {
        int n = utf8_length(l->text + at, l->text + l->length);
        if (n == 0 || lookalike_at(l, at) >= 0 || memcmp(l->text + at, "\xc2\xa0", 2) == 0)
            break;
        at += (uint32_t)n;
    }
    if (at == l->at)
        return false;
    l->at = at;
    struct diagnostic *e =
        lex_error(l, E_stray_character, begin, at, "`%.*s` cannot stand outside strings and comments",
                  at - begin > 60 ? 0 : (int)(at - begin), l->text + begin);
    diag_help(l->diag, e, "names are made of the letters a-z and A-Z, digits and `_`");
    push(l, TOK_NAME, begin)->string = "_";
    return true;
}

static void name(struct lexer *l) {
    uint32_t begin = l->at;
    while (l->at < l->length && is_name_char(l->text[l->at]))
        l->at++;
    if (l->at < l->length && (unsigned char)l->text[l->at] >= 0x80 && foreign_letters(l, begin))
        return;
    size_t size = l->at - begin;
    for (int i = 0; i < FIRST_SIGN; i++)
        if (strlen(fixed[i].text) == size && memcmp(fixed[i].text, l->text + begin, size) == 0) {
            push(l, fixed[i].kind, begin);
            return;
        }
    push(l, TOK_NAME, begin)->string = arena_strndup(l->arena, l->text + begin, size);
}

/* `'text'` is read as a string. */
static void quoted_text(struct lexer *l, uint32_t begin) {
    uint32_t end = begin + 1;
    while (end < l->length && l->text[end] != '\'' && l->text[end] != '\n')
        end++;
    if (end == l->length || l->text[end] == '\n')
        return;
    l->at = end + 1;
    push(l, TOK_STRING, begin)->string = arena_strndup(l->arena, l->text + begin + 1, end - begin - 1);
}

static void stray(struct lexer *l) {
    uint32_t begin = l->at;
    unsigned char c = (unsigned char)l->text[begin];
    int n = utf8_length(l->text + begin, l->text + l->length);
    if (n == 0) {
        check_utf8(l, begin, begin + 1);
        l->at++;
        return;
    }
    l->at += (uint32_t)n;
    if (n == 1) {
        struct diagnostic *e =
            c < 0x20 || c == 0x7f
                ? lex_error(l, E_stray_character, begin, l->at, "control character 0x%02x", (unsigned)c)
                : lex_error(l, E_stray_character, begin, l->at, "`%c` has no meaning here", c);
        if (c == '\'') {
            diag_help(l->diag, e, "strings stand in double quotes");
            quoted_text(l, begin);
        }
        if (c == '#')
            diag_help(l->diag, e, "comments begin with `//`");
        if (c == '#') /* read on as a comment, else each of its words is an error */
            while (l->at < l->length && l->text[l->at] != '\n')
                l->at++;
        return;
    }
    if (n == 2 && c == 0xc2 && l->text[begin + 1] == (char)0xa0) { /* a no-break space: a blank */
        lex_error(l, E_stray_character, begin, l->at, "a no-break space, which looks like a blank but is not");
        return;
    }
    int found = lookalike_at(l, begin);
    if (found >= 0) {
        struct diagnostic *e =
            lex_error(l, E_stray_character, begin, l->at, "`%s` has no meaning here", lookalikes[found].seen);
        diag_help(l->diag, e, "write `%s`", lookalikes[found].meant);
        if (lookalikes[found].kind != TOK_END)
            push(l, lookalikes[found].kind, begin);
        return;
    }
    l->at = begin;
    foreign_letters(l, begin);
}

static void sign(struct lexer *l) {
    for (int i = FIRST_SIGN; i < FIXED; i++) {
        size_t size = strlen(fixed[i].text);
        if (size <= l->length - l->at && memcmp(fixed[i].text, l->text + l->at, size) == 0) {
            uint32_t begin = l->at;
            l->at += (uint32_t)size;
            push(l, fixed[i].kind, begin);
            return;
        }
    }
    stray(l);
}

struct words lex_source(struct arena *arena, struct diag *diag, const struct source *source) {
    struct lexer l = {.arena = arena,
                      .diag = diag,
                      .source = source,
                      .text = source->text,
                      .length = (uint32_t)source->length,
                      .line_start = true};
    if (l.length >= 3 && memcmp(l.text, "\xef\xbb\xbf", 3) == 0)
        l.at = 3; /* a byte order mark */
    while (l.at < l.length && l.errors < LEX_ERROR_LIMIT) {
        char c = l.text[l.at], next = l.at + 1 < l.length ? l.text[l.at + 1] : 0;
        const struct token *last = l.tokens.n ? &l.tokens.at[l.tokens.n - 1] : NULL;
        bool touches = last && last->end == l.at;
        if (c == '\n') {
            l.line_start = true;
            l.at++;
        } else if (c == ' ' || c == '\t' || c == '\r') {
            l.at++;
        } else if (c == '/' && next == '/') {
            line_comment(&l);
        } else if (c == '/' && next == '*') {
            block_comment(&l);
        } else if (is_name_start(c)) {
            name(&l);
        } else if (is_digit(c)) {
            lex_number(&l, touches && last->kind == TOK_DOT);
        } else if (c == '.' && is_digit(next) && !(touches && ends_operand(last->kind))) {
            lex_number(&l, false);
        } else if (c == '"') {
            string(&l);
        } else {
            sign(&l);
        }
    }
    l.at = l.length;
    l.line_start = true;
    push(&l, TOK_END, l.length);
    lex_brackets(&l);
    return (struct words){l.tokens.at, l.tokens.n, l.comments.at, l.comments.n};
}
