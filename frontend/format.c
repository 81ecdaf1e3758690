/* `mxcc fmt`: the words of a file laid out anew, comments between them.
 *
 * The layout is a function of the words, of the marks the parser left on them, and of which words began a line: line
 * ends the author chose stay where the language allows them, blanks and indentation are ours, and lines over LINE_CELLS
 * are broken behind commas (a body on one line is opened first). Working on words rather than on the tree keeps every
 * comment and every pair of parentheses. A second run finds exactly the line ends of the first, so nothing moves again.
 *
 * Indentation: 4 a brace; a statement goes on 4 further behind `=` or the `]` of an index list, 8 further elsewhere; in
 * brackets that end their line, contents stand 4 further and the closer may begin a line.
 *
 * The result is parsed and compared with the original; a difference is a bug, and reported as such.
 */
#include <string.h>

#include "base/text.h"
#include "frontend/parse.h"

enum { LINE_CELLS = 120, INDENT = 4, CONTINUATION = 8 };

struct frame { /* an open bracket; the first is the file */
    bool brace, hanging;
    int open;
    int indent; /* of lines inside */
    int close;  /* of a line that begins with the closer */
    int extra;  /* of a brace: how much further the statement goes on behind `=` or an index list */
};

struct layout {
    struct arena *arena;
    struct text *out;
    const char *text;
    const struct token *tokens;
    const uint8_t *marks;
    const struct comment *comments;
    int count, comment_count;
    int *parent;     /* innermost opener around a word; a closer's is its opener; -1 at the level of the file */
    int *depth;      /* how many openers are around it */
    bool *open_body; /* of `{`: on several lines */
    bool *apart;     /* of `{`: opened by us, each statement on a line of its own */
    bool *broken;    /* a line end put before the word because the line was too long */
    bool *refilled;  /* of `(` and `[`: once broken by us, the author's line ends behind its commas no longer count */
    VEC(struct frame) frames;
    int next_comment;
    int line_indent, line_frames; /* of the line being written: its indentation, and the frames open where it began */
    bool line_empty;
    bool header;       /* between `fn` and the body */
    bool comment_line; /* the line holds only comments, and the next word goes on behind them */
};

static struct frame *top(struct layout *l) {
    return &l->frames.at[l->frames.n - 1];
}

/* ---- facts about words ---- */

static bool is_opener(enum token_kind kind) {
    return kind == TOK_LPAREN || kind == TOK_LBRACKET || kind == TOK_LBRACE;
}

static bool is_closer(enum token_kind kind) {
    return kind == TOK_RPAREN || kind == TOK_RBRACKET || kind == TOK_RBRACE;
}

static bool in_brace(const struct layout *l, int i) {
    return l->parent[i] < 0 || l->tokens[l->parent[i]].kind == TOK_LBRACE;
}

static bool comment_between(const struct layout *l, int a, int b) {
    for (int i = 0; i < l->comment_count && l->comments[i].begin < l->tokens[b].begin; i++)
        if (l->comments[i].begin > l->tokens[a].begin)
            return true;
    return false;
}

static void analyse(struct layout *l) {
    VEC(int) open = {0};
    int n = l->count;
    l->parent = ARENA_ARRAY(l->arena, int, n);
    l->depth = ARENA_ARRAY(l->arena, int, n);
    l->open_body = ARENA_ARRAY(l->arena, bool, n);
    l->apart = ARENA_ARRAY(l->arena, bool, n);
    l->broken = ARENA_ARRAY(l->arena, bool, n);
    l->refilled = ARENA_ARRAY(l->arena, bool, n);
    int last_first = -1; /* the last word so far that began a line */
    for (int i = 0; i < n; i++) {
        enum token_kind kind = l->tokens[i].kind;
        if (l->tokens[i].first)
            last_first = i;
        l->parent[i] = open.n ? open.at[open.n - 1] : -1;
        l->depth[i] = open.n;
        if (is_opener(kind)) {
            VEC_PUSH(l->arena, open, i);
        } else if (is_closer(kind)) {
            open.n--;
            if (kind == TOK_RBRACE)
                l->open_body[l->parent[i]] =
                    last_first > l->parent[i] && (i > l->parent[i] + 1 || comment_between(l, l->parent[i], i));
        }
    }
}

/* The word before, statement separators left out. */
static int before(const struct layout *l, int i) {
    do
        i--;
    while (i >= 0 && l->tokens[i].kind == TOK_SEMICOLON);
    return i;
}

static bool begins_line(const struct layout *l, int i) {
    return l->tokens[i].first || l->broken[i];
}

/* An operator, comma or arrow, behind which a statement may go on in the next line. */
static bool goes_on(const struct layout *l, int i) {
    enum token_kind kind = l->tokens[i].kind;
    if (l->marks[i] & MARK_PREFIX)
        return false;
    return kind == TOK_COMMA || kind == TOK_ARROW || kind == TOK_AND || kind == TOK_OR || kind == TOK_IN ||
           (kind >= TOK_SHL_ASSIGN && kind <= TOK_XOR_ASSIGN && kind != TOK_ELLIPSIS) ||
           (kind >= TOK_ADD && kind <= TOK_ASSIGN && kind != TOK_TILDE);
}

/* Whether word i begins a line of the result (comments aside). */
static bool breaks(const struct layout *l, int i) {
    const struct token *t = &l->tokens[i];
    int last = before(l, i);
    if (last < 0)
        return false;
    if (t->kind == TOK_RBRACE)
        return l->open_body[t->match];
    if (is_closer(t->kind)) /* only where the opener ended its line */
        return t->first && l->tokens[t->match + 1].first && t->match + 1 != i;
    if (!in_brace(l, i)) {
        bool refilled = l->refilled[l->parent[i]] && l->tokens[last].kind == TOK_COMMA;
        return (refilled ? l->broken[i] : begins_line(l, i)) && t->kind != TOK_COMMA;
    }
    int open = l->parent[i];
    if (l->marks[i] & MARK_STATEMENT)
        return open < 0 ? t->first : l->open_body[open] && (t->first || l->apart[open] || last == open);
    if (!begins_line(l, i))
        return false;
    if (l->marks[i] & MARK_LINE)
        return l->tokens[last].kind != TOK_RBRACE;
    return (l->marks[last] & MARK_INDICES_END) || goes_on(l, last);
}

/* The indentation of word i as the first of a line; `commit` notes how far the statement goes on from there. */
static int indentation(struct layout *l, int i, bool commit) {
    const struct token *t = &l->tokens[i];
    struct frame *f = top(l);
    if (is_closer(t->kind) && f->open == t->match)
        return f->close;
    if (!f->brace)
        return f->indent;
    int last = before(l, i);
    if (last < 0 || (l->marks[i] & (MARK_STATEMENT | MARK_LINE)))
        return f->indent;
    if (l->tokens[last].kind == TOK_ASSIGN || (l->marks[last] & MARK_INDICES_END)) {
        int extra = f->extra + INDENT;
        if (commit)
            f->extra = extra;
        return f->indent + extra;
    }
    if (t->kind == TOK_ELSE)
        return f->indent;
    return f->indent + (f->extra ? f->extra : CONTINUATION);
}

static bool ends_operand(const struct layout *l, int i) {
    switch (l->tokens[i].kind) {
    case TOK_NAME:
    case TOK_INT:
    case TOK_FLOAT:
    case TOK_STRING:
    case TOK_RPAREN:
    case TOK_TRUE:
    case TOK_FALSE:
    case TOK_NONE: return true;
    case TOK_RBRACKET: return !(l->marks[i] & MARK_INDICES_END);
    default: return false;
    }
}

static bool blank_at(const struct layout *l, uint32_t offset) {
    char c = l->text[offset];
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* `a .. b` keeps its blanks where the author put them on both sides. */
static bool spaced_range(const struct layout *l, int i) {
    const struct token *t = &l->tokens[i];
    return t->begin > 0 && blank_at(l, t->begin - 1) && blank_at(l, t->end);
}

/* Whether a blank stands between the words a and b on one line. */
static bool blank_between(const struct layout *l, int a, int b) {
    enum token_kind x = l->tokens[a].kind, y = l->tokens[b].kind;
    if (y == TOK_COMMA || y == TOK_SEMICOLON || y == TOK_RPAREN || y == TOK_RBRACKET || y == TOK_DOT || x == TOK_DOT)
        return false;
    if (x == TOK_LPAREN || x == TOK_LBRACKET)
        return false;
    if (x == TOK_COMMA)
        return true;
    if (l->marks[a] & MARK_PREFIX)
        return false;
    if (y == TOK_COLON || ((l->marks[a] & MARK_SLICE) && x == TOK_COLON))
        return false;
    if (y == TOK_DOTDOT && !(l->marks[b] & MARK_PREFIX))
        return spaced_range(l, b);
    if (x == TOK_DOTDOT)
        return spaced_range(l, a);
    if (y == TOK_LPAREN || y == TOK_LBRACKET)
        return !ends_operand(l, a);
    return true;
}

/* ---- lines that are too long ---- */

static int characters(const struct layout *l, uint32_t begin, uint32_t end) {
    int n = 0;
    for (uint32_t i = begin; i < end; i++)
        n += ((unsigned char)l->text[i] & 0xc0) != 0x80;
    return n;
}

static int cells_of(const struct layout *l, int i) {
    return characters(l, l->tokens[i].begin, l->tokens[i].end);
}

static bool separated(const struct layout *l, int i) { /* by `;` from the statement before, on one line */
    int last = before(l, i);
    return (l->marks[i] & MARK_STATEMENT) && last >= 0 && last != l->parent[i];
}

/* Comments between the word before i and i: the cells they take on the line, or -1 if one ends it. */
static int comment_cells(const struct layout *l, int i, int *next) {
    int cells = 0;
    while (*next < l->comment_count && l->comments[*next].begin < l->tokens[i].begin) {
        const struct comment *c = &l->comments[(*next)++];
        if (c->own_line || c->kind != COMMENT_BLOCK || memchr(l->text + c->begin, '\n', c->end - c->begin))
            return -1;
        cells += 1 + characters(l, c->begin, c->end);
    }
    return cells;
}

/* How good a line end is between the words `last` and k, -1 if there can be none: the outermost is the best, and there
 * the `=` of a function and the `]` of an index list, then a comma of a call before an operator before a comma of an
 * index; among equals the last that fits. */
static int break_rank(const struct layout *l, int last, int k, bool header) {
    enum token_kind kind = l->tokens[last].kind;
    if (is_closer(l->tokens[k].kind) || l->tokens[k].kind == TOK_LBRACE || (l->marks[last] & MARK_PREFIX))
        return -1;
    if ((header && kind == TOK_ASSIGN && in_brace(l, last)) || (l->marks[last] & MARK_INDICES_END))
        return l->depth[k] * 5 + (kind != TOK_ASSIGN);
    if (kind == TOK_ARROW ||
        (l->tokens[k].kind == TOK_FOR && !in_brace(l, k))) /* before results; the `for` of a list */
        return l->depth[k] * 5 + 1;
    bool subscript = !in_brace(l, k) && l->tokens[l->parent[k]].kind == TOK_LBRACKET;
    if (kind == TOK_COMMA)
        return l->depth[k] * 5 + (subscript ? 3 : 1);
    bool operator_ = kind == TOK_AND || kind == TOK_OR || (kind >= TOK_ADD && kind <= TOK_CARET);
    return operator_ ? l->depth[k] * 5 + (subscript ? 4 : 2) : -1;
}

/* Looks along the line that begins with word i and indents by `indent`, and opens or breaks it if it is too long. */
static void fit_line(struct layout *l, int i, int indent) {
    for (;;) {
        int column = indent, best = -1, best_rank = 0, body = -1, next = l->next_comment;
        bool too_long = false, header = l->header;
        for (int k = i; l->tokens[k].kind != TOK_END; k++) {
            if (l->tokens[k].kind == TOK_SEMICOLON)
                continue;
            if (k > i) {
                int comments = comment_cells(l, k, &next);
                if (comments < 0 || breaks(l, k))
                    break;
                int last = before(l, k);
                column += comments;
                header = (header || l->tokens[last].kind == TOK_FN) && !(l->marks[k] & MARK_STATEMENT) &&
                         l->tokens[last].kind != TOK_LBRACE;
                int rank = break_rank(l, last, k, header);
                if (rank >= 0 && column <= LINE_CELLS && (best < 0 || rank <= best_rank)) {
                    best = k;
                    best_rank = rank;
                }
                column += separated(l, k) ? 2 : blank_between(l, last, k);
            } else {
                while (next < l->comment_count && l->comments[next].begin < l->tokens[k].begin)
                    next++;
            }
            column += cells_of(l, k);
            if (column > LINE_CELLS)
                too_long = true;
            if (body < 0 && l->tokens[k].kind == TOK_LBRACE && !l->open_body[k] && l->tokens[k].match > k + 1)
                body = k;
        }
        if (!too_long)
            return;
        if (body >= 0) {
            l->open_body[body] = l->apart[body] = true;
            continue;
        }
        if (best >= 0) {
            l->broken[best] = true;
            if (!in_brace(l, best))
                l->refilled[l->parent[best]] = true;
        }
        return;
    }
}

/* ---- writing ---- */

static void new_line(struct layout *l, int indent, bool blank_above) {
    if (l->out->length) {
        text_add(l->out, "\n");
        if (blank_above)
            text_add(l->out, "\n");
    }
    for (int k = 0; k < indent; k++)
        text_add(l->out, " ");
    l->line_indent = indent;
    l->line_frames = l->frames.n;
    l->line_empty = true;
}

/* Whether the author left an empty line between the two places. */
static bool blank_line_between(const struct layout *l, uint32_t begin, uint32_t end) {
    int n = 0;
    for (uint32_t i = begin; i < end; i++)
        n += l->text[i] == '\n';
    return n > 1;
}

static void write_comment(struct layout *l, const struct comment *c) {
    for (uint32_t i = c->begin; i < c->end; i++)
        if (l->text[i] != '\r')
            text_addn(l->out, l->text + i, 1);
    l->line_empty = false;
}

/* The comments before word i. Returns whether word i must begin a line because of them. */
static bool write_comments(struct layout *l, int i) {
    const struct token *t = &l->tokens[i];
    bool must = false;
    uint32_t last = i > 0 ? l->tokens[i - 1].end : 0;
    while (l->next_comment < l->comment_count && l->comments[l->next_comment].begin < t->begin) {
        const struct comment *c = &l->comments[l->next_comment++];
        if (c->own_line || must) {
            struct frame *f = top(l);
            bool statement =
                f->brace && (is_closer(t->kind) || t->kind == TOK_END || (l->marks[i] & (MARK_STATEMENT | MARK_LINE)));
            int indent = statement ? f->indent : is_closer(t->kind) ? f->indent : indentation(l, i, false);
            bool opening = i > 0 && last == l->tokens[i - 1].end && is_opener(l->tokens[i - 1].kind);
            if (l->out->length)
                new_line(l, indent, statement && !opening && blank_line_between(l, last, c->begin));
            l->comment_line = true;
        } else if (l->out->length && !l->line_empty) {
            text_add(l->out, c->kind == COMMENT_BLOCK ? " " : "  ");
        }
        write_comment(l, c);
        /* A line comment ends its line; a block comment does where the author ended it. */
        must = c->kind != COMMENT_BLOCK;
        uint32_t next = l->next_comment < l->comment_count && l->comments[l->next_comment].begin < t->begin
                            ? l->comments[l->next_comment].begin
                            : t->begin;
        if (!must && c->own_line && memchr(l->text + c->end, '\n', next - c->end))
            must = true;
        last = c->end;
    }
    if (must)
        l->comment_line = false;
    return must;
}

static int column_now(const struct layout *l) {
    size_t begin = l->out->length;
    int n = 0;
    while (begin > 0 && l->out->data[begin - 1] != '\n')
        n += ((unsigned char)l->out->data[--begin] & 0xc0) != 0x80;
    return n;
}

static void push_frame(struct layout *l, int i) {
    const struct frame *f = top(l);
    struct frame frame = {.open = i, .brace = l->tokens[i].kind == TOK_LBRACE};
    int here = f->brace ? f->indent + f->extra : f->indent; /* where the statement, or the list, stands */
    if (frame.brace) {
        /* The body of an index list stands under its line, any other under its statement. */
        bool indices = i > 0 && (l->marks[i - 1] & MARK_INDICES_END);
        frame.close = indices && l->line_frames <= l->frames.n ? l->line_indent : here;
        frame.indent = frame.close + INDENT;
    } else {
        frame.hanging = l->tokens[i + 1].first && l->tokens[i].match != i + 1;
        frame.close = l->line_indent;
        frame.indent = frame.hanging            ? l->line_indent + INDENT
                       : f->brace || f->hanging ? here + CONTINUATION
                                                : f->indent;
        if (!frame.hanging)
            frame.close = frame.indent;
    }
    VEC_PUSH(l->arena, l->frames, frame);
}

static void write_word(struct layout *l, int i) {
    const struct token *t = &l->tokens[i];
    int last = before(l, i);
    bool commented = l->next_comment < l->comment_count && l->comments[l->next_comment].begin < t->begin;
    l->comment_line = false;
    bool must = commented && write_comments(l, i);
    if (t->kind == TOK_END)
        return;
    if (l->marks[i] & MARK_STATEMENT)
        top(l)->extra = 0;
    l->header = (l->header || (last >= 0 && l->tokens[last].kind == TOK_FN)) && !(l->marks[i] & MARK_STATEMENT) &&
                !(last >= 0 &&
                  (l->tokens[last].kind == TOK_LBRACE || (l->tokens[last].kind == TOK_ASSIGN && in_brace(l, last))));
    if (must || (breaks(l, i) && !l->comment_line)) {
        uint32_t above = i > 0 ? l->tokens[i - 1].end : 0;
        if (l->next_comment > 0 && l->comments[l->next_comment - 1].begin > above)
            above = l->comments[l->next_comment - 1].end;
        bool statement = top(l)->brace && (l->marks[i] & (MARK_STATEMENT | MARK_LINE)) && last != top(l)->open;
        if (i == 0 || last < 0)
            statement = commented;
        int indent = indentation(l, i, true);
        new_line(l, indent, statement && blank_line_between(l, above, t->begin));
        fit_line(l, i, indent);
    } else if (l->comment_line) {
        text_add(l->out, " ");
        fit_line(l, i, column_now(l));
    } else if (separated(l, i)) {
        text_add(l->out, "; ");
    } else if (commented && !l->line_empty) {
        bool tight = t->kind == TOK_COMMA || t->kind == TOK_RPAREN || t->kind == TOK_RBRACKET;
        text_add(l->out, tight ? "" : " ");
    } else if (last >= 0) {
        text_add(l->out, blank_between(l, last, i) ? " " : "");
    }
    if (last < 0 && !must && !l->comment_line)
        fit_line(l, i, 0);
    if (is_closer(t->kind))
        l->frames.n--;
    text_addn(l->out, l->text + t->begin, t->end - t->begin);
    l->line_empty = false;
    if (is_opener(t->kind))
        push_frame(l, i);
}

/* ---- the check ---- */

static bool same_comments(const struct words *a, const char *a_text, const struct words *b, const char *b_text) {
    if (a->comment_count != b->comment_count)
        return false;
    for (int i = 0; i < a->comment_count; i++) {
        const struct comment *x = &a->comments[i], *y = &b->comments[i];
        uint32_t k = x->begin, m = y->begin;
        for (; k < x->end; k++)
            if (a_text[k] != '\r' && (m >= y->end || b_text[m++] != a_text[k]))
                return false;
        if (m != y->end)
            return false;
    }
    return true;
}

static void check(struct arena *arena, struct diag *diag, const struct ast_file *before_file, const struct words *words,
                  struct text *out, const struct source *source) {
    struct diag again;
    struct words new_words;
    const uint8_t *marks;
    struct text a = {0}, b = {0};
    diag_init(&again);
    const struct source *result = diag_add_source(&again, source->path, text_string(out), out->length);
    struct ast_file *after = parse_marked(arena, &again, result, &new_words, &marks);
    ast_print(&a, before_file);
    ast_print(&b, after);
    if (again.errors || strcmp(text_string(&a), text_string(&b)) != 0 ||
        !same_comments(words, source->text, &new_words, result->text)) {
        diag_error(diag, E_formatter, (struct span){source, 0, 0}, "the formatter would have changed this program");
        out->length = 0;
        text_addn(out, source->text, source->length);
    }
    text_free(&a);
    text_free(&b);
    diag_free(&again);
}

void format_file(struct text *out, struct diag *diag, const struct source *source) {
    struct arena arena = {0};
    struct words words;
    const uint8_t *marks;
    int errors = diag->errors;
    const struct ast_file *file = parse_marked(&arena, diag, source, &words, &marks);
    if (diag->errors > errors) {
        text_addn(out, source->text, source->length);
        arena_free(&arena);
        return;
    }
    struct text result = {0};
    struct layout l = {.arena = &arena,
                       .out = &result,
                       .text = source->text,
                       .tokens = words.tokens,
                       .marks = marks,
                       .comments = words.comments,
                       .count = words.count,
                       .comment_count = words.comment_count,
                       .line_empty = true};
    analyse(&l);
    VEC_PUSH(&arena, l.frames, (struct frame){.brace = true, .open = -1});
    for (int i = 0; i < words.count; i++)
        if (words.tokens[i].kind != TOK_SEMICOLON)
            write_word(&l, i);
    if (result.length)
        text_add(&result, "\n");
    check(&arena, diag, file, &words, &result, source);
    text_addn(out, text_string(&result), result.length);
    text_free(&result);
    arena_free(&arena);
}
