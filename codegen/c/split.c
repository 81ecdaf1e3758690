/* --split N: the model's functions and kernels in N C files, which a build compiles side by side.
 *
 * What one file keeps static becomes external with the model's prefix; a private header declares it beside the struct,
 * the scalar helpers (inline, so that each file has its own) and the includes. The text is taken apart at its top-level
 * definitions; each goes to the file that is the smallest so far.
 */
#include <ctype.h>
#include <string.h>

#include "codegen/c/model_internal.h"

/* The end of the top-level item at s, comments before it included: behind its `;`, or its `}` where none follows. */
static const char *item_end(const char *s) {
    int depth = 0;
    bool line_start = true;
    while (*s) {
        const char *end = unit_skip_literal(s, line_start);
        if (end > s) {
            line_start = false;
            s = end;
            continue;
        }
        line_start = *s == '\n' || (line_start && isspace((unsigned char)*s));
        if (*s == '{' || *s == '(') {
            depth++;
        } else if (*s == '}' || *s == ')') {
            depth--;
            if (*s == '}' && depth == 0 && s[1] != ';')
                return s + 1;
        } else if (*s == ';' && depth == 0) {
            return s + 1;
        }
        s++;
    }
    return s;
}

static bool starts(const char *s, const char *word) {
    return strncmp(s, word, strlen(word)) == 0;
}

/* Where the definition begins: behind comments, preprocessor lines and blanks. */
static const char *code_of(const char *s, const char *end) {
    while (s < end) {
        const char *next = unit_skip_literal(s, true);
        if (next == s && !isspace((unsigned char)*s))
            break;
        s = next > s ? next : s + 1;
    }
    return s;
}

/* Definitions from `text`: types and declarations to `header`, the rest to `files`; the first has `other` bytes beside. */
static void distribute(const char *text, struct text *header, struct text *files, int n, size_t other) {
    for (const char *s = text, *end; *s; s = end) {
        end = item_end(s);
        const char *code = code_of(s, end);
        if (code >= end)
            break;
        if (!starts(code, "static ")) { /* a type */
            text_addn(header, s, (size_t)(end - s));
            text_add(header, "\n");
            continue;
        }
        const char *declared = code + strlen("static ");
        bool is_data = starts(declared, "const ");
        const char *stop = memchr(declared, is_data ? '=' : '{', (size_t)(end - declared));
        while (stop > declared && isspace((unsigned char)stop[-1]))
            stop--;
        text_printf(header, "%s%.*s;\n", is_data ? "extern " : "", (int)(stop - declared), declared);
        int k = 0;
        for (int i = 1; i < n; i++)
            if (files[i].length < files[k].length + (k == 0 ? other : 0))
                k = i;
        struct text *out = &files[k];
        text_addn(out, s, (size_t)(code - s));
        text_addn(out, declared, (size_t)(end - declared));
        text_add(out, "\n");
    }
}

/* Functions of the prelude: the inline ones stay, small helpers become inline, those of the instance (which may take
 * variable arguments, and so never are inline) go to the first file. */
static void prelude(struct unit *u, const char *text, struct text *header, struct text *first) {
    const char *own = arena_printf(&u->g.arena, "%s_mx_", u->prefix);
    for (const char *s = text, *end; *s; s = end) {
        end = item_end(s);
        const char *code = code_of(s, end), *brace = memchr(code, '{', (size_t)(end - code));
        const char *name = strstr(code, own);
        if (starts(code, "static ") && !starts(code, "static inline ") && !starts(code, "static const ") && brace) {
            const char *declared = code + strlen("static ");
            if (name && name < brace && memchr(code, '(', (size_t)(brace - code)) > (const void *)name) {
                while (isspace((unsigned char)brace[-1]))
                    brace--;
                text_addn(header, s, (size_t)(code - s));
                text_printf(header, "%.*s;\n", (int)(brace - declared), declared);
                text_addn(first, declared, (size_t)(end - declared));
                text_add(first, "\n\n");
            } else {
                text_addn(header, s, (size_t)(code - s));
                text_printf(header, "static inline %.*s", (int)(end - declared), declared);
            }
            continue;
        }
        text_addn(header, s, (size_t)(end - s));
    }
}

void unit_split(struct unit *u, const char *before, struct c_unit *out) {
    int n = u->options->split;
    struct arena *a = &u->g.arena;
    struct text *files = ARENA_ARRAY(a, struct text, n), instance = {0};
    const char *include = arena_printf(a, "#include \"%s\"\n\n", codegen_part_name(a, u->options, -1));
    text_printf(&out->shared,
                "/* %s: what its C files share. Made by mxcc; not to be edited, not to be included by others. */\n"
                "#ifndef %s_MX_SHARED_H\n#define %s_MX_SHARED_H\n\n",
                u->prefix, u->upper, u->upper);
    prelude(u, before, &out->shared, &instance);
    text_add(&out->shared, "\n");
    distribute(text_string(&u->g.outlined), &out->shared, files, n, u->c.length);
    distribute(text_string(&u->g.functions), &out->shared, files, n, u->c.length);
    text_add(&out->shared, "\n#endif\n");
    for (int i = 0; i < n; i++) {
        struct text whole = {0};
        text_printf(&whole, "/* %s, file %d of %d: made by mxcc from the model of that name. Not to be edited. */\n%s",
                    u->prefix, i + 1, n, include);
        if (i == 0)
            text_addn(&whole, text_string(&instance), instance.length);
        text_addn(&whole, text_string(&files[i]), files[i].length);
        if (i == 0)
            text_addn(&whole, text_string(&u->c), u->c.length);
        text_free(&files[i]);
        out->files[i] = whole;
    }
    text_free(&instance);
    out->count = n;
}
