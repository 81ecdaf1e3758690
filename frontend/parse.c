/* The parser's footing: moving through the words, reporting, recovery, doc comments. */
#include "frontend/parse.h"

#include <string.h>

const struct token *parse_peek(const struct parser *p, int ahead) {
    int at = p->at;
    while (ahead-- > 0 && p->tokens[at].kind != TOK_END)
        at++;
    return &p->tokens[at];
}

const struct token *parse_next(struct parser *p) {
    const struct token *t = &p->tokens[p->at];
    if (t->kind != TOK_END)
        p->at++;
    return t;
}

bool parse_accept(struct parser *p, enum token_kind kind) {
    if (p->failed || !parse_is(p, kind))
        return false;
    parse_next(p);
    return true;
}

bool parse_is_word(const struct parser *p, int ahead, const char *word) {
    const struct token *t = parse_peek(p, ahead);
    return t->kind == TOK_NAME && strcmp(t->string, word) == 0;
}

struct span parse_span(const struct parser *p, const struct token *t) {
    return (struct span){p->source, t->begin, t->end};
}

struct span parse_span_from(const struct parser *p, int first_token) {
    uint32_t begin = p->tokens[first_token].begin;
    uint32_t end = p->at > first_token ? p->tokens[p->at - 1].end : begin;
    return (struct span){p->source, begin, end < begin ? begin : end};
}

const char *parse_seen(struct parser *p) {
    return parse_now(p)->newline && !parse_is(p, TOK_END) ? "the end of the line" : parse_seen_word(p);
}

const char *parse_seen_word(struct parser *p) {
    const struct token *t = parse_now(p);
    if (t->kind == TOK_END)
        return "the end of the file";
    int size = (int)(t->end - t->begin);
    const char *text = p->source->text + t->begin;
    if (t->kind == TOK_STRING)
        return "a string";
    if (t->kind == TOK_NAME && strcmp(t->string, "_") == 0 && (unsigned char)text[0] >= 0x80)
        return "what is no name";
    if (t->kind == TOK_NAME)
        return arena_printf(p->arena, "the name `%.*s`", size > 60 ? 60 : size, text);
    if (t->kind == TOK_INT || t->kind == TOK_FLOAT)
        return arena_printf(p->arena, "the number `%.*s`", size > 60 ? 60 : size, text);
    return arena_printf(p->arena, "`%s`", token_kind_text(t->kind));
}

/* ---- reports ---- */

static struct diagnostic *report(struct parser *p, enum error_code code, struct span at, const char *format,
                                 va_list args) {
    if (p->failed || ++p->errors > PARSE_ERROR_LIMIT)
        return NULL;
    return diag_error(p->diag, code, at, "%s", arena_vprintf(p->arena, format, args));
}

struct diagnostic *parse_complain(struct parser *p, enum error_code code, struct span at, const char *format, ...) {
    va_list args;
    va_start(args, format);
    struct diagnostic *e = report(p, code, at, format, args);
    va_end(args);
    return e;
}

struct diagnostic *parse_fail(struct parser *p, enum error_code code, struct span at, const char *format, ...) {
    if (parse_now(p)->missing) { /* a closer that stands in: what is wrong has been said */
        p->failed = true;
        return NULL;
    }
    va_list args;
    va_start(args, format);
    struct diagnostic *e = report(p, code, at, format, args);
    va_end(args);
    p->failed = true;
    return e;
}

struct span parse_surprise(const struct parser *p) {
    const struct token *t = parse_now(p);
    if ((t->newline || t->kind == TOK_END) && p->at > 0) {
        uint32_t end = t[-1].end;
        return (struct span){p->source, end, end};
    }
    return parse_span(p, t);
}

const struct token *parse_expect(struct parser *p, enum token_kind kind, const char *where) {
    if (p->failed)
        return NULL;
    if (parse_is(p, kind))
        return parse_next(p);
    struct diagnostic *e = parse_fail(p, E_unexpected_token, parse_surprise(p), "expected `%s` %s, saw %s",
                                      token_kind_text(kind), where, parse_seen(p));
    if (kind == TOK_LBRACE && parse_is(p, TOK_COLON))
        diag_help(p->diag, e, "a body stands in braces: `{ … }`");
    return NULL;
}

const struct token *parse_name(struct parser *p, const char *what) {
    if (p->failed)
        return NULL;
    if (parse_is(p, TOK_NAME) && !parse_now(p)->newline)
        return parse_next(p);
    const struct token *t = parse_now(p);
    if (!t->newline && t->kind >= TOK_USE && t->kind <= TOK_INOUT)
        parse_fail(p, E_reserved_word, parse_span(p, t), "`%s` is a word of the language and cannot name %s",
                   token_kind_text(t->kind), what);
    else
        parse_fail(p, E_expected_name, parse_surprise(p), "expected the name of %s, saw %s", what, parse_seen(p));
    return NULL;
}

bool parse_enter(struct parser *p) {
    if (++p->depth <= PARSE_DEPTH_LIMIT)
        return true;
    struct diagnostic *e =
        parse_fail(p, E_too_deep, parse_span(p, parse_now(p)), "this is nested more than %d deep", PARSE_DEPTH_LIMIT);
    diag_help(p->diag, e, "give the inner parts names with `let`");
    return false;
}

void parse_recover(struct parser *p, int begin) {
    p->failed = false;
    for (;;) {
        const struct token *t = parse_now(p);
        if (t->kind == TOK_END)
            return;
        if (p->at > begin && (t->newline || t->kind == TOK_SEMICOLON || t->kind == TOK_RBRACE))
            return;
        p->at = t->kind == TOK_LBRACE && t->match > p->at ? t->match + 1 : p->at + 1;
    }
}

/* ---- doc comments ---- */

static int line_ends_between(const struct parser *p, uint32_t begin, uint32_t end) {
    int n = 0;
    for (uint32_t i = begin; i < end; i++)
        n += p->source->text[i] == '\n';
    return n;
}

/* Joins the `///` comments [first, last], without the marks and one blank behind them. */
static const char *join_doc(struct parser *p, int first, int last) {
    size_t size = 0;
    for (int i = first; i <= last; i++)
        size += p->comments[i].end - p->comments[i].begin;
    char *out = arena_alloc(p->arena, size + 1), *to = out;
    for (int i = first; i <= last; i++) {
        uint32_t begin = p->comments[i].begin + 3, end = p->comments[i].end;
        if (begin < end && p->source->text[begin] == ' ')
            begin++;
        if (i > first)
            *to++ = '\n';
        memcpy(to, p->source->text + begin, end - begin);
        to += end - begin;
    }
    return out;
}

/* Index of the first comment at or behind the offset. */
static int comment_at(const struct parser *p, uint32_t offset) {
    int lo = 0, hi = p->comment_count;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if (p->comments[mid].begin < offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool is_doc(const struct comment *c) {
    return c->kind == COMMENT_DOC && c->own_line;
}

const char *parse_doc(struct parser *p, const struct token *before) {
    uint32_t after = before > p->tokens ? before[-1].end : 0;
    int last = comment_at(p, before->begin) - 1, first = last + 1;
    for (uint32_t next = before->begin; first > 0; next = p->comments[first].begin) {
        const struct comment *c = &p->comments[first - 1];
        if (!is_doc(c) || c->begin < after || line_ends_between(p, c->end, next) != 1)
            break;
        first--;
    }
    return first <= last ? join_doc(p, first, last) : NULL;
}

/* The `///` lines at the top, when a blank line sets them off from the first declaration. */
static const char *file_doc(struct parser *p) {
    int n = 0;
    if (p->comment_count == 0 || !is_doc(&p->comments[0]) || p->comments[0].begin > p->tokens[0].begin)
        return NULL;
    while (n + 1 < p->comment_count && is_doc(&p->comments[n + 1]) &&
           line_ends_between(p, p->comments[n].end, p->comments[n + 1].begin) == 1 &&
           p->comments[n + 1].begin < p->tokens[0].begin)
        n++;
    uint32_t next = n + 1 < p->comment_count && p->comments[n + 1].begin < p->tokens[0].begin ? p->comments[n + 1].begin
                                                                                              : p->tokens[0].begin;
    bool alone = p->tokens[0].kind == TOK_END || line_ends_between(p, p->comments[n].end, next) > 1;
    return alone ? join_doc(p, 0, n) : NULL;
}

/* Lexing, balancing and parsing each report in order of place; here theirs become one list in that order. */
static void sort_reports(struct diag *diag, struct diagnostic **first) {
    struct diagnostic *sorted = NULL, *next;
    for (struct diagnostic *e = *first; e; e = next) {
        next = e->next;
        struct diagnostic **link = &sorted;
        while (*link && (*link)->span.begin <= e->span.begin)
            link = &(*link)->next;
        e->next = *link;
        *link = e;
    }
    *first = sorted;
    while (*first)
        first = &(*first)->next;
    diag->last = first;
}

struct ast_file *parse_marked(struct arena *arena, struct diag *diag, const struct source *source, struct words *words,
                              const uint8_t **marks) {
    struct diagnostic **reports = diag->last;
    *words = lex_source(arena, diag, source);
    struct parser p = {.arena = arena,
                       .diag = diag,
                       .source = source,
                       .tokens = words->tokens,
                       .comments = words->comments,
                       .comment_count = words->comment_count,
                       .marks = ARENA_ARRAY(arena, uint8_t, words->count)};
    struct ast_file *file = ARENA_NEW(arena, struct ast_file);
    file->source = source;
    file->doc = file_doc(&p);
    file->count = parse_statements(&p, BODY_FILE, words->count - 1, &file->stmts);
    *marks = p.marks;
    sort_reports(diag, reports);
    return file;
}

struct ast_file *parse_file(struct arena *arena, struct diag *diag, const struct source *source) {
    struct words words;
    const uint8_t *marks;
    return parse_marked(arena, diag, source, &words, &marks);
}
