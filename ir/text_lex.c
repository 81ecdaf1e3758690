/* The lexer of the IR's text form. Space, newlines and comments (`//` to the end of the line) only separate. */
#include "ir/text_lex.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static bool word_char(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

static const char *here(const struct ir_lexer *l) {
    return l->source->text +
           l->at; /* the text ends in 0, so one may always look one character ahead of a non-zero one */
}

static void skip_space(struct ir_lexer *l) {
    while (l->at < l->source->length) {
        const char *s = here(l);
        if (*s == ' ' || *s == '\n' || *s == '\t' || *s == '\r') {
            l->at++;
        } else if (s[0] == '/' && s[1] == '/') {
            while (l->at < l->source->length && *here(l) != '\n')
                l->at++;
        } else {
            break;
        }
    }
}

static void fail(struct ir_lexer *l, const char *message) {
    if (!l->error)
        l->error = message;
    l->token.kind = TOKEN_END;
}

/* The rest of a word: dots inside it belong to it when a word character follows. */
static const char *word_rest(struct ir_lexer *l) {
    size_t begin = l->at;
    while (word_char(*here(l)) || (*here(l) == '.' && l->at > begin && word_char(here(l)[1])))
        l->at++;
    return arena_strndup(l->arena, l->source->text + begin, l->at - begin);
}

static uint64_t digits(struct ir_lexer *l, uint64_t limit) {
    uint64_t value = 0;
    while (isdigit((unsigned char)*here(l))) {
        unsigned digit = (unsigned)(*here(l) - '0');
        if (value > (limit - digit) / 10) {
            fail(l, "a number too large for its place");
            return 0;
        }
        value = value * 10 + digit;
        l->at++;
    }
    return value;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static void lex_number(struct ir_lexer *l) {
    struct ir_token *t = &l->token;
    t->kind = TOKEN_NUMBER;
    const char *s = here(l);
    if (s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) {
        t->is_integer = t->is_hex = true;
        l->at += 2;
        int n = 0;
        for (; hex_digit(*here(l)) >= 0; l->at++, n++)
            t->integer = t->integer << 4 | (unsigned)hex_digit(*here(l));
        if (n == 0 || n > 16)
            fail(l, "a malformed hexadecimal number");
        t->number = (double)t->integer;
        return;
    }
    size_t begin = l->at;
    bool integer = true;
    while (isdigit((unsigned char)*here(l)))
        l->at++;
    if (here(l)[0] == '.' && isdigit((unsigned char)here(l)[1])) {
        integer = false;
        l->at++;
        while (isdigit((unsigned char)*here(l)))
            l->at++;
    }
    if (*here(l) == 'e' || *here(l) == 'E') {
        integer = false;
        l->at++;
        if (*here(l) == '+' || *here(l) == '-')
            l->at++;
        if (!isdigit((unsigned char)*here(l))) {
            fail(l, "a number without digits in its exponent");
            return;
        }
        while (isdigit((unsigned char)*here(l)))
            l->at++;
    }
    if (word_char(*here(l))) {
        fail(l, "a malformed number");
        return;
    }
    char *text = arena_strndup(l->arena, l->source->text + begin, l->at - begin);
    t->number = strtod(text, NULL);
    t->is_integer = integer;
    for (const char *c = text; integer && *c; c++) {
        unsigned digit = (unsigned)(*c - '0');
        if (t->integer > (UINT64_MAX - digit) / 10)
            t->is_integer = integer = false; /* a float of many digits */
        else
            t->integer = t->integer * 10 + digit;
    }
}

static void lex_string(struct ir_lexer *l) {
    l->token.kind = TOKEN_STRING;
    size_t end = ++l->at;
    while (end < l->source->length && l->source->text[end] != '"' && l->source->text[end] != '\n')
        end += l->source->text[end] == '\\' ? 2 : 1;
    if (end >= l->source->length || l->source->text[end] != '"') {
        fail(l, "a string that does not end on its line");
        return;
    }
    char *out = arena_alloc(l->arena, end - l->at + 1), *to = out;
    while (l->at < end) {
        char c = l->source->text[l->at++];
        if (c == '\\') {
            c = l->source->text[l->at++];
            if (c == 'n') {
                c = '\n';
            } else if (c == 'x') {
                const char *s = here(l);
                int high = hex_digit(s[0]), low = high < 0 ? -1 : hex_digit(s[1]);
                c = (char)(high * 16 + low);
                if (low < 0 || c == 0) {
                    fail(l, "a malformed \\x in a string");
                    return;
                }
                l->at += 2;
            } else if (c != '"' && c != '\\') {
                fail(l, "an unknown escape in a string");
                return;
            }
        } else if (c == 0) {
            fail(l, "a zero byte in a string");
            return;
        }
        *to++ = c;
    }
    l->at = end + 1;
    l->token.text = out;
}

void ir_lex_next(struct ir_lexer *l) {
    skip_space(l);
    l->token = (struct ir_token){.kind = TOKEN_END};
    struct span *span = &l->token.span;
    *span = (struct span){l->source, (uint32_t)l->at, (uint32_t)l->at};
    if (l->error || l->at >= l->source->length)
        return;
    const char *s = here(l);
    if (isdigit((unsigned char)*s)) {
        lex_number(l);
    } else if (word_char(*s)) {
        size_t begin = l->at;
        word_rest(l);
        if (here(l)[0] == '#' && isdigit((unsigned char)here(l)[1])) {
            l->at++;
            while (isdigit((unsigned char)*here(l)))
                l->at++;
        }
        l->token.kind = TOKEN_WORD;
        l->token.text = arena_strndup(l->arena, s, l->at - begin);
    } else if (*s == '"') {
        lex_string(l);
    } else if ((*s == '%' || *s == '$') && isdigit((unsigned char)s[1])) {
        l->token.kind = *s == '%' ? TOKEN_VALUE : TOKEN_LET;
        l->at++;
        l->token.integer = digits(l, INT32_MAX);
        if (*s == '%' && here(l)[0] == '.' && word_char(here(l)[1])) {
            l->at++;
            l->token.text = word_rest(l);
        }
    } else {
        static const char *const signs[] = {"..", "+=", "->", "<=", "(", ")", "[", "]", "{", "}",
                                            ",",  ":",  "=",  "<",  "@", "+", "-", "*", "~", "#"};
        for (size_t i = 0; i < sizeof signs / sizeof *signs && !l->token.text; i++)
            if (!strncmp(s, signs[i], strlen(signs[i])))
                l->token.text = signs[i];
        if (l->token.text) {
            l->token.kind = TOKEN_SIGN;
            l->at += strlen(l->token.text);
        } else {
            l->at++;
            fail(l, "a character without a meaning");
        }
    }
    span->end = (uint32_t)l->at;
}
