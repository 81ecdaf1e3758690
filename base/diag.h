/* Diagnostics: source files, spans, and errors with a code, notes and a fix (docs/errors, `mxcc explain`).
 *
 * Every stage reports through one `struct diag`; nothing prints by itself. The codes are the rows of base/errors.def.
 */
#ifndef MXCC_BASE_DIAG_H
#define MXCC_BASE_DIAG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/text.h"

struct source {
    const char *path; /* as given by the user; "<nn>" style for the standard library */
    const char *text; /* 0-terminated */
    size_t length;
    const uint32_t *line_starts; /* byte offsets; built by diag_add_source */
    int lines;
};

/* A piece of source, byte offsets [begin, end). `source` is NULL where there is none (command line, generated). */
struct span {
    const struct source *source;
    uint32_t begin, end;
};

enum error_code {
#define E(code, name, title, text) E_##name = code,
#include "base/errors.def"
#undef E
};

enum severity { SEVERITY_ERROR, SEVERITY_WARNING, SEVERITY_NOTE };

struct diag_note {
    struct diag_note *next;
    struct span span; /* source NULL: a line of text only (`= …`) */
    const char *text;
    bool help;  /* printed as `= help: …` */
    bool trace; /* came from `annotate`: printed after the notes of the place itself */
};

struct diagnostic {
    struct diagnostic *next;
    enum severity severity;
    enum error_code code;
    struct span span;
    const char *label;   /* beside the caret: the values that disagree; may be NULL */
    const char *message; /* one line, no final dot */
    struct diag_note *notes;
};

struct diag {
    struct arena arena;
    struct diagnostic *first, **last;
    int errors, warnings;
    bool warnings_as_errors;
    /* Called for every new diagnostic before it is stored: elaboration adds its call stack here. May be NULL. */
    void (*annotate)(struct diag *d, struct diagnostic *e, void *context);
    void *annotate_context;
    bool annotating;    /* inside `annotate` */
    const char **files; /* every file that was read, once each: diag_note_file */
    int file_count, file_room;
};

void diag_init(struct diag *d);
void diag_free(struct diag *d);

/* Registers a file; the text is copied. The result lives as long as `d`. */
const struct source *diag_add_source(struct diag *d, const char *path, const char *text, size_t length);

/* Notes that the result depends on a file, for --depfile. */
void diag_note_file(struct diag *d, const char *path);

/* 1-based line and column (in characters of UTF-8, not bytes). */
void span_position(struct span s, int *line, int *column);
struct span span_join(struct span a, struct span b);

/* Adds an error or a warning; the result takes a label and notes. An error equal to an earlier one (code, span,
 * message) is counted once. */
struct diagnostic *diag_error(struct diag *d, enum error_code code, struct span at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
struct diagnostic *diag_warning(struct diag *d, enum error_code code, struct span at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* These three accept NULL for `e` (a report that was held back) and do nothing then. */
void diag_label(struct diag *d, struct diagnostic *e, const char *format, ...) __attribute__((format(printf, 3, 4)));
void diag_note(struct diag *d, struct diagnostic *e, struct span at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void diag_help(struct diag *d, struct diagnostic *e, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Text as in design §9, or one JSON object per line with {severity, code, message, file, line, column, end_line,
 * end_column, label, notes}. In order of report. */
void diag_print(const struct diag *d, FILE *out, bool colour);
void diag_print_json(const struct diag *d, FILE *out);
/* A string of JSON, in quotes; bytes that are no UTF-8 become U+FFFD. */
void text_json_string(struct text *t, const char *string);

/* The row of a code; false when there is none. `name` like "E0207". */
bool diag_explain(const char *name, const char **title, const char **text);
const char *diag_code_name(enum error_code code, char buffer[8]); /* "E0207", "W0601" */

#endif
