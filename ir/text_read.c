/* The reader of the IR's text form (text_parse.c): its tokens, names, values, symbols. */
#include <stdarg.h>
#include <string.h>

#include "ir/text_read.h"

/* ---- tokens ----------------------------------------------------------------------------------------------------- */

void read_fail(struct reader *r, const char *format, ...) {
    if (r->failed)
        return;
    r->failed = true;
    if (r->diag) {
        va_list args;
        va_start(args, format);
        const char *message = arena_vprintf(&r->scratch, format, args);
        va_end(args);
        diag_error(r->diag, E_ir_syntax, r->lex.token.span, "%s", r->lex.error ? r->lex.error : message);
    }
    r->lex.error = "stopped";
    r->lex.token.kind = TOKEN_END;
    r->lex.token.text = NULL;
}

void read_next(struct reader *r) {
    ir_lex_next(&r->lex);
    if (r->lex.error)
        read_fail(r, "malformed text");
}

bool read_at(const struct reader *r, const char *sign) {
    return r->lex.token.kind == TOKEN_SIGN && !strcmp(r->lex.token.text, sign);
}

bool read_accept(struct reader *r, const char *sign) {
    if (!read_at(r, sign))
        return false;
    read_next(r);
    return true;
}

void read_expect(struct reader *r, const char *sign) {
    if (!read_accept(r, sign))
        read_fail(r, "expected `%s`", sign);
}

bool read_at_word(const struct reader *r, const char *word) {
    return r->lex.token.kind == TOKEN_WORD && !strcmp(r->lex.token.text, word);
}

bool read_accept_word(struct reader *r, const char *word) {
    if (!read_at_word(r, word))
        return false;
    read_next(r);
    return true;
}

void read_expect_word(struct reader *r, const char *word) {
    if (!read_accept_word(r, word))
        read_fail(r, "expected `%s`", word);
}

const char *read_word(struct reader *r, const char *what) {
    const char *word = r->lex.token.text;
    if (r->lex.token.kind != TOKEN_WORD) {
        read_fail(r, "expected %s", what);
        return "";
    }
    read_next(r);
    return word;
}

bool read_enter(struct reader *r) {
    if (++r->depth <= READ_MAX_DEPTH)
        return !r->failed;
    r->depth--; /* read_leave is not called */
    read_fail(r, "nested too deeply: expected at most %d levels", READ_MAX_DEPTH);
    return false;
}

void read_leave(struct reader *r) {
    r->depth--;
}

const char *read_keep(struct reader *r, const char *text) {
    return arena_strdup(&r->module->arena, text);
}

const char *read_string(struct reader *r, const char *what) {
    const char *text = r->lex.token.text;
    if (r->lex.token.kind != TOKEN_STRING) {
        read_fail(r, "expected %s in quotes", what);
        return "";
    }
    read_next(r);
    return read_keep(r, text);
}

/* A word or a string. */
const char *read_name(struct reader *r, const char *what) {
    const char *text = r->lex.token.text;
    if (r->lex.token.kind != TOKEN_STRING && r->lex.token.kind != TOKEN_WORD) {
        read_fail(r, "expected %s", what);
        return "";
    }
    read_next(r);
    return read_keep(r, text);
}

/* NULL for `_` */
const char *read_optional_name(struct reader *r, const char *what) {
    bool none = read_at_word(r, "_");
    const char *name = read_name(r, what);
    return none ? NULL : name;
}

/* A name of that kind is in the list already. */
void read_repeated(struct reader *r, const char *name) {
    read_fail(r, "expected another name: `%s` is defined already", name);
}

/* ---- values ----------------------------------------------------------------------------------------------------- */

struct ir_value *read_definition(struct reader *r) {
    struct ir_token t = r->lex.token;
    if (t.kind != TOKEN_VALUE || t.integer >= READ_MAX_VALUES) {
        read_fail(r, "expected a value like %%3, with a number below %d", READ_MAX_VALUES);
        return NULL;
    }
    read_next(r);
    struct ir_value *v = ARENA_NEW(&r->module->arena, struct ir_value);
    v->id = (int)t.integer;
    v->span = t.span;
    v->name = t.text ? read_keep(r, t.text) : NULL;
    if (read_accept(r, "@")) {
        bool quoted = r->lex.token.kind == TOKEN_STRING;
        char *name = arena_strdup(&r->module->arena, read_name(r, "the name of a variable"));
        char *mark = quoted ? NULL : strrchr(name, '#');
        v->buffer_name = name;
        if (mark) {
            *mark = 0;
            int64_t version = 0;
            for (const char *s = mark + 1; *s && version <= INT32_MAX; s++)
                version = version * 10 + (*s - '0');
            if (version > INT32_MAX)
                read_fail(r, "expected a smaller version");
            v->version = (int)version;
        } else {
            read_expect(r, "#");
            v->version = read_small(r, INT32_MAX - 1);
        }
    }
    read_expect(r, ":");
    v->type = read_type(r);
    return r->failed ? NULL : v;
}

void read_define(struct reader *r, struct ir_value *v) {
    if (v->id >= r->value_cap) {
        int cap = r->value_cap ? r->value_cap : 64;
        while (cap <= v->id)
            cap *= 2;
        struct ir_value **values = ARENA_ARRAY(&r->scratch, struct ir_value *, cap);
        if (r->value_cap)
            memcpy(values, r->values, sizeof *values * (size_t)r->value_cap);
        r->values = values;
        r->value_cap = cap;
    }
    if (r->values[v->id]) {
        read_fail(r, "expected another number: %%%d is defined already", v->id);
        return;
    }
    r->values[v->id] = v;
    VEC_PUSH(&r->scratch, r->defined, v->id);
    if (v->id >= r->func->value_count)
        r->func->value_count = v->id + 1;
}

struct ir_value **read_keep_values(struct reader *r, const struct value_list *list) {
    return list->n ? arena_copy(&r->module->arena, list->at, sizeof *list->at * (size_t)list->n) : NULL;
}

struct value_list read_values(struct reader *r) {
    struct value_list list = {0};
    do {
        struct ir_value *v = read_value(r);
        if (v)
            VEC_PUSH(&r->scratch, list, v);
    } while (read_accept(r, ","));
    return list;
}

void read_bind_symbol(struct reader *r, const char *name, struct ir_symbol *symbol) {
    for (int i = 0; i < r->symbols.n; i++)
        if (!strcmp(r->symbols.at[i].name, name)) {
            read_repeated(r, name);
            return;
        }
    VEC_PUSH(&r->scratch, r->symbols, (struct named_symbol){name, symbol});
}

struct ir_symbol *read_symbol(struct reader *r) {
    struct span span = r->lex.token.span;
    const char *name = read_word(r, "the name of a dimension");
    if (!read_accept_word(r, "in"))
        read_fail(r, "expected `in`");
    int64_t lo = read_int(r);
    read_expect(r, "..");
    int64_t hi = read_int(r);
    if (!r->failed && (lo > hi || lo < -IR_DIM_LIMIT || hi > IR_DIM_LIMIT))
        read_fail(r, "expected an interval that is not empty, within ±2^60");
    if (r->failed)
        return NULL;
    struct ir_symbol *s = ir_symbol_new(r->func, name, lo, hi, span);
    read_bind_symbol(r, name, s);
    return s;
}

struct ir_buffer *read_buffer(struct reader *r) {
    read_expect(r, "@");
    struct ir_token at = r->lex.token;
    const char *name = read_name(r, "the name of a buffer");
    for (int i = 0; i < r->module->buffer_count && !r->failed; i++)
        if (!strcmp(r->module->buffers[i]->name, name))
            return r->module->buffers[i];
    if (!r->failed)
        r->lex.token.span = at.span;
    read_fail(r, "expected a buffer of the module: `%s` is none", name);
    return NULL;
}
