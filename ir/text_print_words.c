/* Words of the IR's text form (text_print.c): names, values, dimensions, types, numbers. */
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/bytes.h"
#include "ir/text_print.h"

/* ---- names ------------------------------------------------------------------------------------------------------ */

static bool word_char(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

char *print_make_word(struct arena *a, const char *name, bool numbered, const char *fallback) {
    if (!name || !*name)
        return arena_strdup(a, fallback);
    size_t n = strlen(name), tail = n;
    if (numbered) {
        while (tail > 0 && isdigit((unsigned char)name[tail - 1]))
            tail--;
        tail = tail > 1 && tail < n && name[tail - 1] == '#' ? tail - 1 : n;
    }
    char *word = arena_printf(a, "%s%s", isdigit((unsigned char)name[0]) ? "_" : "", name);
    size_t shift = strlen(word) - n;
    for (size_t i = 0; i < n; i++) {
        char *c = &word[shift + i];
        bool dot = *c == '.' && i > 0 && word_char(c[1]);
        if (i < tail && !word_char(*c) && !dot)
            *c = '_';
    }
    return word;
}

const char *print_unique_word(struct arena *a, const char *word, const char *const *used, int n) {
    const char *candidate = word;
    for (int k = 2;; k++) {
        bool taken = false;
        for (int i = 0; i < n && !taken; i++)
            taken = used[i] && !strcmp(used[i], candidate);
        if (!taken)
            return candidate;
        size_t base = strcspn(word, "#");
        candidate = arena_printf(a, "%.*s#%d", (int)base, word, k);
    }
}

void print_string(struct text *out, const char *s) {
    text_add(out, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            text_printf(out, "\\%c", c);
        else if (c == '\n')
            text_add(out, "\\n");
        else if (c < 32 || c == 127)
            text_printf(out, "\\x%02x", c);
        else
            text_addn(out, s, 1);
    }
    text_add(out, "\"");
}

void print_name(struct text *out, const char *name) {
    bool plain = name[0] && !isdigit((unsigned char)name[0]);
    for (const char *s = name; *s && plain; s++)
        plain = word_char(*s) || (*s == '.' && s > name && word_char(s[1]));
    if (plain)
        text_add(out, name);
    else
        print_string(out, name);
}

void print_value(struct printer *p, const struct ir_value *v) {
    text_printf(p->out, "%%%d", v->id);
    if (v->name && *v->name) {
        /* After the number any word characters may follow, digits too. */
        const char *word = print_make_word(&p->scratch, v->name, false, "");
        text_printf(p->out, ".%s", word);
    }
}

void print_values(struct printer *p, struct ir_value *const *values, int n) {
    for (int i = 0; i < n; i++) {
        text_add(p->out, i ? ", " : "");
        print_value(p, values[i]);
    }
}

/* ---- dimensions and types --------------------------------------------------------------------------------------- */

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static const char *dim_string(struct printer *p, ir_dim d) {
    struct text t = {0};
    print_dim(p, &t, d);
    const char *s = arena_strdup(&p->scratch, text_string(&t));
    text_free(&t);
    return s;
}

static const char *atom_string(struct printer *p, const struct ir_dim_atom *a) {
    static const char *const names[] = {[ATOM_DIV] = "div", [ATOM_MOD] = "mod", [ATOM_MAX] = "max", [ATOM_MIN] = "min"};
    if (a->kind == ATOM_SYMBOL) {
        const struct ir_symbol *s = a->symbol;
        if (!p->symbols)
            return print_make_word(&p->scratch, s->name, true, "d");
        if (s->id < p->symbol_count && p->symbols[s->id])
            return p->symbols[s->id];
        return arena_printf(&p->scratch, "?%s",
                            s->name ? s->name : ""); /* not bound in this function: does not parse */
    }
    const char *args[2] = {dim_string(p, a->a), dim_string(p, a->b)};
    if (a->kind == ATOM_MAX || a->kind == ATOM_MIN)
        qsort(args, 2, sizeof *args, compare_strings);
    return arena_printf(&p->scratch, "%s(%s, %s)", names[a->kind], args[0], args[1]);
}

struct term_text {
    const char *atoms; /* "" for the constant */
    int64_t coefficient;
};

static int compare_terms(const void *a, const void *b) {
    const struct term_text *x = a, *y = b;
    if (!*x->atoms != !*y->atoms)
        return *x->atoms ? -1 : 1; /* the constant comes last */
    return strcmp(x->atoms, y->atoms);
}

void print_dim(struct printer *p, struct text *out, ir_dim d) {
    if (d->count == 0) {
        text_add(out, "0");
        return;
    }
    struct term_text *terms = ARENA_ARRAY(&p->scratch, struct term_text, d->count);
    for (int i = 0; i < d->count; i++) {
        const struct ir_dim_term *t = &d->terms[i];
        const char **atoms = ARENA_ARRAY(&p->scratch, const char *, t->count);
        for (int k = 0; k < t->count; k++)
            atoms[k] = atom_string(p, t->atoms[k]);
        qsort(atoms, (size_t)t->count, sizeof *atoms, compare_strings);
        struct text product = {0};
        for (int k = 0; k < t->count; k++)
            text_printf(&product, "%s%s", k ? "*" : "", atoms[k]);
        terms[i].atoms = arena_strdup(&p->scratch, text_string(&product));
        terms[i].coefficient = t->coefficient;
        text_free(&product);
    }
    qsort(terms, (size_t)d->count, sizeof *terms, compare_terms);
    for (int i = 0; i < d->count; i++) {
        bool negative = terms[i].coefficient < 0;
        uint64_t size = negative ? 0 - (uint64_t)terms[i].coefficient : (uint64_t)terms[i].coefficient;
        text_add(out, i ? (negative ? " - " : " + ") : (negative ? "-" : ""));
        if (!*terms[i].atoms)
            text_printf(out, "%" PRIu64, size);
        else if (size != 1)
            text_printf(out, "%" PRIu64 "*%s", size, terms[i].atoms);
        else
            text_add(out, terms[i].atoms);
    }
}

void print_type(struct printer *p, struct ir_type t) {
    text_add(p->out, dtype_name(t.dtype));
    if (t.rank == 0)
        return;
    text_add(p->out, "[");
    for (int i = 0; i < t.rank; i++) {
        text_add(p->out, i ? ", " : "");
        print_dim(p, p->out, t.dims[i]);
    }
    text_add(p->out, "]");
}

/* `%7.h @net.h#1: f32[8]` */
void print_definition(struct printer *p, const struct ir_value *v) {
    print_value(p, v);
    if (v->buffer_name) {
        text_add(p->out, " @");
        print_name(p->out, v->buffer_name);
        text_printf(p->out, "#%d", v->version);
    }
    text_add(p->out, ": ");
    print_type(p, v->type);
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

/* Digits that read back to the same value of type t (f16 and bf16 values are exact as doubles). */
void print_float(struct text *out, enum dtype t, double value) {
    if (isnan(value)) {
        text_add(out, signbit(value) ? "-nan" : "nan");
        return;
    }
    if (isinf(value)) {
        text_add(out, value < 0 ? "-inf" : "inf");
        return;
    }
    static const int precisions[] = {6, 9, 15, 17};
    char digits[40];
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++) {
        snprintf(digits, sizeof digits, "%.*g", precisions[i], value);
        double back = strtod(digits, NULL);
        if (t == F32 ? (float)back == (float)value : back == value)
            break;
    }
    text_add(out, digits);
}

void print_int(struct text *out, enum dtype t, int64_t value) {
    if (t == U64)
        text_printf(out, "%" PRIu64, (uint64_t)value);
    else
        text_printf(out, "%" PRId64, value);
}
