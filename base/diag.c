/* Diagnostics: storage and printing. The look is that of rustc's: one header line, then each span as an excerpt of the
 * source with carets under it, then lines of text behind `=`.
 *
 * An excerpt shows characters, not bytes: tabs are expanded, wide characters take two cells, what is not printable
 * shows as `?`, and a line wider than EXCERPT_CELLS is cut to a window around the caret (generated sources have
 * lines of a megabyte).
 */
#include "base/diag.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum { TAB_CELLS = 4, EXCERPT_CELLS = 180, EXCERPT_LEAD = 60 };

struct code_row {
    int code;
    const char *title, *text;
};

static const struct code_row code_rows[] = {
#define E(code, name, title, text) {code, title, text},
#include "base/errors.def"
#undef E
};

void diag_init(struct diag *d) {
    *d = (struct diag){0};
    d->last = &d->first;
}

void diag_free(struct diag *d) {
    arena_free(&d->arena);
    diag_init(d);
}

const struct source *diag_add_source(struct diag *d, const char *path, const char *text, size_t length) {
    struct source *s = ARENA_NEW(&d->arena, struct source);
    s->path = arena_strdup(&d->arena, path);
    s->text = arena_strndup(&d->arena, text, length);
    s->length = length;
    int lines = 1;
    for (size_t i = 0; i < length; i++)
        lines += text[i] == '\n';
    uint32_t *starts = ARENA_ARRAY(&d->arena, uint32_t, lines);
    int n = 1;
    for (size_t i = 0; i < length; i++)
        if (text[i] == '\n')
            starts[n++] = (uint32_t)i + 1;
    s->line_starts = starts;
    s->lines = lines;
    return s;
}

void diag_note_file(struct diag *d, const char *path) {
    for (int i = 0; i < d->file_count; i++)
        if (strcmp(d->files[i], path) == 0)
            return;
    if (d->file_count == d->file_room) {
        int room = d->file_room ? 2 * d->file_room : 16;
        const char **files = ARENA_ARRAY(&d->arena, const char *, room);
        if (d->file_count)
            memcpy(files, d->files, sizeof *files * (size_t)d->file_count);
        d->files = files;
        d->file_room = room;
    }
    d->files[d->file_count++] = arena_strdup(&d->arena, path);
}

/* 0-based line that holds the byte offset: the last line start that is not beyond it. */
static int line_of(const struct source *s, uint32_t offset) {
    int lo = 0, hi = s->lines;
    while (hi - lo > 1) {
        int mid = lo + (hi - lo) / 2;
        if (s->line_starts[mid] <= offset)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* One character of UTF-8 at [at, end): its code point, or -1 for a byte that starts none (length 1 then). */
static int32_t decode(const char *at, const char *end, int *length) {
    const unsigned char *p = (const unsigned char *)at;
    long room = end - at;
    *length = 1;
    if (p[0] < 0x80)
        return p[0];
    int n = p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : 0;
    if (n == 0 || n > room)
        return -1;
    int32_t c = p[0] & (0x7f >> n);
    for (int i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return -1;
        c = c << 6 | (p[i] & 0x3f);
    }
    *length = n;
    return c;
}

static int columns_to(const struct source *s, int line, uint32_t offset) {
    const char *at = s->text + s->line_starts[line], *end = s->text + s->length, *stop = s->text + offset;
    int column = 1, length;
    while (at < stop) {
        decode(at, end, &length);
        at += length;
        column++;
    }
    return column;
}

static uint32_t clamp_offset(const struct source *s, uint32_t offset) {
    return offset > s->length ? (uint32_t)s->length : offset;
}

void span_position(struct span s, int *line, int *column) {
    if (!s.source) {
        *line = *column = 0;
        return;
    }
    uint32_t offset = clamp_offset(s.source, s.begin);
    int at = line_of(s.source, offset);
    *line = at + 1;
    *column = columns_to(s.source, at, offset);
}

struct span span_join(struct span a, struct span b) {
    if (!a.source)
        return b;
    if (!b.source || a.source != b.source)
        return a;
    if (b.begin < a.begin)
        a.begin = b.begin;
    if (b.end > a.end)
        a.end = b.end;
    return a;
}

/* ---- collecting ---- */

static bool same_span(struct span a, struct span b) {
    return a.source == b.source && a.begin == b.begin && a.end == b.end;
}

static struct diagnostic *report(struct diag *d, enum severity severity, enum error_code code, struct span at,
                                 const char *format, va_list args) {
    struct diagnostic *e = ARENA_NEW(&d->arena, struct diagnostic);
    e->severity = severity;
    e->code = code;
    e->span = at;
    e->message = arena_vprintf(&d->arena, format, args);
    for (const struct diagnostic *old = d->first; old; old = old->next)
        if (old->code == code && same_span(old->span, at) && strcmp(old->message, e->message) == 0)
            return e; /* the caller may still add notes to it; nobody will see them */
    if (d->annotate) {
        d->annotating = true;
        d->annotate(d, e, d->annotate_context);
        d->annotating = false;
    }
    if (severity == SEVERITY_ERROR)
        d->errors++;
    else
        d->warnings++;
    *d->last = e;
    d->last = &e->next;
    return e;
}

struct diagnostic *diag_error(struct diag *d, enum error_code code, struct span at, const char *format, ...) {
    va_list args;
    va_start(args, format);
    struct diagnostic *e = report(d, SEVERITY_ERROR, code, at, format, args);
    va_end(args);
    return e;
}

struct diagnostic *diag_warning(struct diag *d, enum error_code code, struct span at, const char *format, ...) {
    va_list args;
    va_start(args, format);
    enum severity severity = d->warnings_as_errors ? SEVERITY_ERROR : SEVERITY_WARNING;
    struct diagnostic *e = report(d, severity, code, at, format, args);
    va_end(args);
    return e;
}

void diag_label(struct diag *d, struct diagnostic *e, const char *format, ...) {
    if (!e)
        return;
    va_list args;
    va_start(args, format);
    e->label = arena_vprintf(&d->arena, format, args);
    va_end(args);
}

static void add_note(struct diag *d, struct diagnostic *e, struct span at, bool help, const char *format,
                     va_list args) {
    struct diag_note *n = ARENA_NEW(&d->arena, struct diag_note);
    n->span = at;
    n->help = help;
    n->trace = d->annotating;
    n->text = arena_vprintf(&d->arena, format, args);
    struct diag_note **link = &e->notes;
    while (*link)
        link = &(*link)->next;
    *link = n;
}

void diag_note(struct diag *d, struct diagnostic *e, struct span at, const char *format, ...) {
    if (!e)
        return;
    va_list args;
    va_start(args, format);
    add_note(d, e, at, false, format, args);
    va_end(args);
}

void diag_help(struct diag *d, struct diagnostic *e, const char *format, ...) {
    if (!e)
        return;
    va_list args;
    va_start(args, format);
    add_note(d, e, (struct span){0}, true, format, args);
    va_end(args);
}

/* ---- printing as text ---- */

#define BOLD   "\033[1m"
#define RED    "\033[1;31m"
#define YELLOW "\033[1;33m"
#define BLUE   "\033[1;34m"
#define CYAN   "\033[1;36m"

struct printer {
    struct text out;
    bool colour;
    int gutter; /* digits of the largest line number shown */
};

static void paint(struct printer *p, const char *escape) {
    if (p->colour)
        text_add(&p->out, escape);
}

static void plain(struct printer *p) {
    paint(p, "\033[0m");
}

/* Cells on a terminal: 0 for combining marks, 2 for East Asian wide characters and most emoji. */
static int cells(int32_t c) {
    if ((c >= 0x300 && c <= 0x36f) || c == 0x200b || c == 0x200d || c == 0xfe0f)
        return 0;
    if ((c >= 0x1100 && c <= 0x115f) || (c >= 0x2e80 && c <= 0xa4cf) || (c >= 0xac00 && c <= 0xd7a3) ||
        (c >= 0xf900 && c <= 0xfaff) || (c >= 0xfe30 && c <= 0xfe6f) || (c >= 0xff00 && c <= 0xff60) ||
        (c >= 0xffe0 && c <= 0xffe6) || (c >= 0x1f300 && c <= 0x1faff) || (c >= 0x20000 && c <= 0x3fffd))
        return 2;
    return 1;
}

/* What stands for one character in an excerpt and how many cells it takes at cell `at` of the line. */
static int shown(int32_t c, int at) {
    return c == '\t' ? TAB_CELLS - at % TAB_CELLS : c < 0x20 || c == 0x7f ? 1 : cells(c);
}

static void gutter(struct printer *p, const char *number) {
    paint(p, BLUE);
    text_printf(&p->out, "%*s |", p->gutter, number);
    plain(p);
}

static void spaces(struct text *t, int n) {
    for (int i = 0; i < n; i++)
        text_addn(t, " ", 1);
}

/* One line of source with carets under the bytes [begin, end) and the label behind them. */
static void excerpt_line(struct printer *p, const struct source *s, int line, uint32_t begin, uint32_t end,
                         const char *tone, const char *label) {
    const char *start = s->text + s->line_starts[line];
    const char *stop = line + 1 < s->lines ? s->text + s->line_starts[line + 1] - 1 : s->text + s->length;
    if (stop > start && stop[-1] == '\r')
        stop--;
    /* Where the caret begins and ends, in cells. */
    int width = 0, from = -1, to = -1, length;
    for (const char *at = start; at < stop; at += length) {
        int32_t c = decode(at, stop, &length);
        if (from < 0 && at + length > s->text + begin)
            from = width;
        if (to < 0 && at >= s->text + end)
            to = width;
        width += shown(c, width);
    }
    if (from < 0)
        from = width;
    if (to < 0)
        to = width;
    if (to <= from)
        to = from + 1;
    int left = 0, right = width;
    if (width > EXCERPT_CELLS) {
        left = from > EXCERPT_LEAD ? from - EXCERPT_LEAD : 0;
        right = left + EXCERPT_CELLS;
        if (to > right)
            to = right;
    }

    char number[16];
    snprintf(number, sizeof number, "%d", line + 1);
    gutter(p, number);
    if (width > 0)
        text_add(&p->out, left > 0 ? " …" : " ");
    int cell = 0;
    for (const char *at = start; at < stop && cell < right; at += length) {
        int32_t c = decode(at, stop, &length);
        int w = shown(c, cell);
        if (cell >= left) {
            if (c == '\t')
                spaces(&p->out, w);
            else if (c < 0x20 || c == 0x7f)
                text_add(&p->out, "?");
            else
                text_addn(&p->out, at, (size_t)length);
        }
        cell += w;
    }
    text_add(&p->out, right < width ? "…\n" : "\n");

    gutter(p, "");
    spaces(&p->out, 1 + (left > 0) + from - left);
    paint(p, tone);
    for (int i = from; i < to; i++)
        text_addn(&p->out, "^", 1);
    if (label)
        text_printf(&p->out, " %s", label);
    plain(p);
    text_add(&p->out, "\n");
}

static void excerpt(struct printer *p, struct span at, const char *tone, const char *label) {
    const struct source *s = at.source;
    uint32_t begin = clamp_offset(s, at.begin), end = clamp_offset(s, at.end);
    if (end < begin)
        end = begin;
    int line, column;
    span_position(at, &line, &column);
    paint(p, BLUE);
    text_printf(&p->out, "%*s--> ", p->gutter, "");
    plain(p);
    text_printf(&p->out, "%s:%d:%d\n", s->path, line, column);
    gutter(p, "");
    text_add(&p->out, "\n");
    int first = line_of(s, begin), last = line_of(s, end > begin ? end - 1 : begin);
    excerpt_line(p, s, first, begin, end, tone, first == last ? label : NULL);
    if (last > first) {
        if (last > first + 1) {
            paint(p, BLUE);
            text_add(&p->out, "...\n");
            plain(p);
        }
        uint32_t indent = s->line_starts[last];
        while (indent < end && (s->text[indent] == ' ' || s->text[indent] == '\t'))
            indent++;
        excerpt_line(p, s, last, indent, end, tone, label);
    }
}

static void text_line(struct printer *p, const struct diag_note *n) {
    paint(p, BLUE);
    text_printf(&p->out, "%*s = ", p->gutter, "");
    plain(p);
    if (n->help) {
        paint(p, CYAN);
        text_add(&p->out, "help: ");
        plain(p);
    }
    for (const char *c = n->text; *c; c++) { /* further lines of the text stand under its first */
        text_addn(&p->out, c, 1);
        if (*c == '\n')
            spaces(&p->out, p->gutter + 3 + (n->help ? 6 : 0));
    }
    text_add(&p->out, "\n");
}

static void widen(int *digits, struct span at) {
    if (!at.source)
        return;
    int n = 1;
    for (int line = line_of(at.source, clamp_offset(at.source, at.end)) + 1; line >= 10; line /= 10)
        n++;
    if (n > *digits)
        *digits = n;
}

static void print_one(struct printer *p, const struct diagnostic *e) {
    p->gutter = 1;
    widen(&p->gutter, e->span);
    for (const struct diag_note *n = e->notes; n; n = n->next)
        widen(&p->gutter, n->span);

    char name[8];
    const char *tone = e->severity == SEVERITY_ERROR ? RED : e->severity == SEVERITY_WARNING ? YELLOW : CYAN;
    const char *word = e->severity == SEVERITY_ERROR ? "error" : e->severity == SEVERITY_WARNING ? "warning" : "note";
    paint(p, tone);
    text_printf(&p->out, "%s[%s]", word, diag_code_name(e->code, name));
    plain(p);
    paint(p, BOLD);
    text_printf(&p->out, ": %s\n", e->message);
    plain(p);
    if (e->span.source)
        excerpt(p, e->span, tone, e->label);
    else if (e->label)
        text_line(p, &(struct diag_note){.text = e->label});
    /* The place's own facts, then how it was reached, then what to do, then other places. */
    for (int round = 0; round < 3; round++)
        for (const struct diag_note *n = e->notes; n; n = n->next)
            if (!n->span.source && round == (n->help ? 2 : n->trace ? 1 : 0))
                text_line(p, n);
    for (const struct diag_note *n = e->notes; n; n = n->next)
        if (n->span.source) {
            paint(p, CYAN);
            text_add(&p->out, "note");
            plain(p);
            text_printf(&p->out, ": %s\n", n->text);
            excerpt(p, n->span, CYAN, NULL);
        }
}

void diag_print(const struct diag *d, FILE *out, bool colour) {
    for (const struct diagnostic *e = d->first; e; e = e->next) {
        struct printer p = {.colour = colour};
        print_one(&p, e);
        text_add(&p.out, "\n");
        fwrite(p.out.data, 1, p.out.length, out);
        text_free(&p.out);
    }
}

/* ---- printing as JSON ---- */

void text_json_string(struct text *t, const char *string) {
    const char *end = string + strlen(string);
    int length;
    text_add(t, "\"");
    for (const char *at = string; at < end; at += length) {
        int32_t c = decode(at, end, &length);
        if (c < 0)
            text_add(t, "\\ufffd");
        else if (c == '"' || c == '\\')
            text_printf(t, "\\%c", (char)c);
        else if (c == '\n')
            text_add(t, "\\n");
        else if (c < 0x20 || c == 0x7f)
            text_printf(t, "\\u%04x", (unsigned)c);
        else
            text_addn(t, at, (size_t)length);
    }
    text_add(t, "\"");
}

static void json_span(struct text *t, struct span at) {
    if (!at.source)
        return;
    int line, column, end_line, end_column;
    span_position(at, &line, &column);
    span_position((struct span){at.source, at.end > at.begin ? at.end : at.begin, 0}, &end_line, &end_column);
    text_add(t, ", \"file\": ");
    text_json_string(t, at.source->path);
    text_printf(t, ", \"line\": %d, \"column\": %d, \"end_line\": %d, \"end_column\": %d", line, column, end_line,
                end_column);
}

void diag_print_json(const struct diag *d, FILE *out) {
    for (const struct diagnostic *e = d->first; e; e = e->next) {
        struct text t = {0};
        char name[8];
        text_printf(&t, "{\"severity\": \"%s\", \"code\": \"%s\", \"message\": ",
                    e->severity == SEVERITY_ERROR     ? "error"
                    : e->severity == SEVERITY_WARNING ? "warning"
                                                      : "note",
                    diag_code_name(e->code, name));
        text_json_string(&t, e->message);
        json_span(&t, e->span);
        if (e->label) {
            text_add(&t, ", \"label\": ");
            text_json_string(&t, e->label);
        }
        text_add(&t, ", \"notes\": [");
        for (const struct diag_note *n = e->notes; n; n = n->next) {
            text_printf(&t, "%s{\"kind\": \"%s\", \"message\": ", n == e->notes ? "" : ", ",
                        n->help    ? "help"
                        : n->trace ? "trace"
                                   : "note");
            text_json_string(&t, n->text);
            json_span(&t, n->span);
            text_add(&t, "}");
        }
        text_add(&t, "]}\n");
        fwrite(t.data, 1, t.length, out);
        text_free(&t);
    }
}

/* ---- codes ---- */

const char *diag_code_name(enum error_code code, char buffer[8]) {
    snprintf(buffer, 8, "%c%04d", (int)code > 1000 ? 'W' : 'E', (int)code % 10000);
    return buffer;
}

bool diag_explain(const char *name, const char **title, const char **text) {
    if (toupper((unsigned char)*name) == 'E' || toupper((unsigned char)*name) == 'W')
        name++;
    char *end;
    long code = strtol(name, &end, 10);
    if (end == name || *end)
        return false;
    for (size_t i = 0; i < sizeof code_rows / sizeof *code_rows; i++)
        if (code_rows[i].code == code) {
            *title = code_rows[i].title;
            *text = code_rows[i].text;
            return true;
        }
    return false;
}
