/* A unit that is named like one of its own local names. `base.mxl` gives `typedef struct base base`, which every local
 * called `base` would hide (-Wshadow, and worse where both are needed). In the finished text the typedef becomes
 * `struct base`, and every other use of the word `base_own`: locals, parameters and private fields, all at once. */
#include <ctype.h>
#include <string.h>

#include "codegen/c/model_internal.h"

static bool is_word(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

const char *unit_skip_literal(const char *s, bool line_start) {
    const char *end;
    if (s[0] == '/' && s[1] == '*')
        return (end = strstr(s + 2, "*/")) ? end + 2 : s + strlen(s);
    if (*s == '#' && line_start) {
        while (*s && !(*s == '\n' && s[-1] != '\\'))
            s++;
        return s;
    }
    if (*s == '"' || *s == '\'') {
        char quote = *s++;
        while (*s && *s != quote)
            s += s[0] == '\\' && s[1] ? 2 : 1;
        return *s ? s + 1 : s;
    }
    return s;
}

/* Names that the header declares inside its structs; they stay, and a model of such a name keeps the shadowing. */
static bool is_public_field(const char *name) {
    static const char *const fields[] = {"dtype",    "rank",  "shape", "data",    "bytes", "name",
                                         "is_state", "value", "seed",  "threads", "log",   "log_context"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (strcmp(fields[i], name) == 0)
            return true;
    return false;
}

void unit_free_prefix(struct text *unit, const char *prefix) {
    size_t n = strlen(prefix);
    if (is_public_field(prefix))
        return;
    struct text out = {0};
    bool line_start = true, after_struct = false;
    for (const char *s = text_string(unit); *s;) {
        const char *end = unit_skip_literal(s, line_start);
        if (end > s) {
            text_addn(&out, s, (size_t)(end - s));
            s = end;
            line_start = false;
            continue;
        }
        if (!is_word(*s)) {
            line_start = *s == '\n' || (line_start && isspace((unsigned char)*s));
            text_addn(&out, s++, 1);
            continue;
        }
        while (is_word(*end))
            end++;
        if ((size_t)(end - s) != n || memcmp(s, prefix, n) != 0 || after_struct)
            text_addn(&out, s, (size_t)(end - s));
        else if (end[0] == ' ' && end[1] == '*' && end[2] != ' ' && end[2] != '=') /* a declarator, not a product */
            text_printf(&out, "struct %s", prefix);
        else
            text_printf(&out, "%s_own", prefix);
        after_struct = end - s == 6 && memcmp(s, "struct", 6) == 0;
        s = end;
        line_start = false;
    }
    text_free(unit);
    *unit = out;
}
