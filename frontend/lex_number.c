/* Numbers: `1`, `1_000`, `0x1f`, `0.5`, `1e-3`. Digits stand on both sides of the point, so that `1..3` is a range and
 * `a.0` a member; whatever else begins with a digit is reported once, whole, and read as its best guess. */
#include <math.h>
#include <stdlib.h>

#include "frontend/lex.h"

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_hex(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_word(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static char peek(const struct lexer *l, uint32_t at) {
    return at < l->length ? l->text[at] : 0;
}

static struct token *push_number(struct lexer *l, enum token_kind kind, uint32_t begin) {
    struct token t = {.kind = kind, .begin = begin, .end = l->at, .first = l->line_start, .match = -1};
    VEC_PUSH(l->arena, l->tokens, t);
    l->line_start = false;
    return &l->tokens.at[l->tokens.n - 1];
}

/* Digits with single underscores between them; false if an underscore stands elsewhere. */
static bool digits(struct lexer *l, bool hex) {
    bool fine = true, before = false;
    for (; hex ? is_hex(peek(l, l->at)) || peek(l, l->at) == '_' : is_digit(peek(l, l->at)) || peek(l, l->at) == '_';
         l->at++) {
        bool digit = l->text[l->at] != '_';
        if (!digit && !before)
            fine = false;
        before = digit;
    }
    return fine && before;
}

/* The digits without underscores, in the arena. */
static char *clean(struct lexer *l, uint32_t begin, uint32_t end) {
    char *out = arena_alloc(l->arena, end - begin + 1), *to = out;
    for (uint32_t i = begin; i < end; i++)
        if (l->text[i] != '_')
            *to++ = l->text[i];
    return out;
}

static void integer(struct lexer *l, uint32_t begin, const char *text, int base) {
    uint64_t value = 0;
    bool fits = true;
    for (const char *c = text; *c; c++) {
        uint64_t digit = (uint64_t)(is_digit(*c) ? *c - '0' : (*c | 32) - 'a' + 10), next;
        if (__builtin_mul_overflow(value, (uint64_t)base, &next) || __builtin_add_overflow(next, digit, &value)) {
            fits = false;
            break;
        }
    }
    if (!fits) {
        struct diagnostic *e = lex_error(l, E_number_too_large, begin, l->at, "this integer needs more than 64 bits");
        diag_help(l->diag, e, "the largest is 18446744073709551615; a float is written with a point: `1.0e20`");
        value = 1;
    }
    push_number(l, TOK_INT, begin)->integer = (int64_t)value;
}

static void malformed(struct lexer *l, uint32_t begin, const char *message, const char *help) {
    while (is_word(peek(l, l->at)))
        l->at++;
    struct diagnostic *e = lex_error(l, E_malformed_number, begin, l->at, "%s", message);
    if (help)
        diag_help(l->diag, e, "%s", help);
    push_number(l, TOK_FLOAT, begin)->number = 1;
}

void lex_number(struct lexer *l, bool after_dot) {
    uint32_t begin = l->at;
    if (after_dot) {
        while (is_digit(peek(l, l->at)))
            l->at++;
        if (is_word(peek(l, l->at)))
            malformed(l, begin, "a number after `.` is a place in a list of blocks, digits only", NULL);
        else
            integer(l, begin, clean(l, begin, l->at), 10);
        return;
    }
    char next = peek(l, begin + 1);
    if (l->text[begin] == '0' && (next == 'x' || next == 'X')) {
        l->at += 2;
        bool fine = digits(l, true);
        if (!fine || is_word(peek(l, l->at)))
            malformed(l, begin, "malformed hexadecimal number", "write it as `0x1f`");
        else
            integer(l, begin, clean(l, begin + 2, l->at), 16);
        return;
    }
    bool fine = true, is_float = false;
    if (l->text[begin] == '.') {
        l->at++;
        while (is_word(peek(l, l->at)))
            l->at++;
        malformed(l, begin, "a number has digits on both sides of its point",
                  l->at - begin < 30 ? arena_printf(l->arena, "write `0%.*s`", (int)(l->at - begin), l->text + begin)
                                     : NULL);
        return;
    }
    fine = digits(l, false);
    bool leading_zero = l->at - begin > 1 && l->text[begin] == '0';
    if (peek(l, l->at) == '.' && peek(l, l->at + 1) != '.') {
        if (!is_digit(peek(l, l->at + 1))) {
            uint32_t whole = l->at - begin;
            l->at++;
            malformed(l, begin, "a number has digits on both sides of its point",
                      whole < 30 ? arena_printf(l->arena, "write `%.*s.0`", (int)whole, l->text + begin) : NULL);
            return;
        }
        is_float = true;
        l->at++;
        fine = digits(l, false) && fine;
    }
    if (peek(l, l->at) == 'e' || peek(l, l->at) == 'E') {
        uint32_t sign = l->at + 1;
        if (peek(l, sign) == '+' || peek(l, sign) == '-')
            sign++;
        if (!is_digit(peek(l, sign))) {
            l->at = sign;
            malformed(l, begin, "the exponent of this number has no digits", "write it as `1e-3`");
            return;
        }
        is_float = true;
        l->at = sign;
        fine = digits(l, false) && fine;
    }
    if (is_word(peek(l, l->at))) {
        malformed(l, begin, "letters directly behind a number",
                  "a type is given by a cast, `f32(0.5)`; a product needs `*`; a name does not begin with a digit");
        return;
    }
    if (!fine) {
        malformed(l, begin, "a `_` in a number stands between two digits", NULL);
        return;
    }
    char *text = clean(l, begin, l->at);
    if (!is_float && leading_zero) {
        malformed(l, begin, "an integer does not begin with 0",
                  "octal numbers do not exist; hexadecimal ones are `0x1f`");
        return;
    }
    if (!is_float) {
        integer(l, begin, text, 10);
        return;
    }
    double value = strtod(text, NULL);
    if (isinf(value)) {
        struct diagnostic *e =
            lex_error(l, E_number_too_large, begin, l->at, "this number is larger than f64 can hold");
        diag_help(l->diag, e, "infinity is written `inf`");
    }
    push_number(l, TOK_FLOAT, begin)->number = value;
}
