/* Balancing brackets, and which line ends count.
 *
 * A missing bracket is the one mistake that spoils everything after it, so it is repaired before parsing, from what the
 * layout says: a word that only begins statements ends all open `(` and `[`; where a `{` is never closed, the first
 * declaration behind it that starts no further right than the line of the `{` is where its body should have ended.
 * The repaired token array is balanced, and the parser needs no care.
 */
#include <string.h>

#include "frontend/lex.h"

enum { STOP_LIMIT = 32 }; /* unclosed braces that are looked into; more are only reported */

struct open {
    int token;      /* in the output */
    uint32_t begin; /* of the first word of its statement: whose column is the statement's indentation */
};

struct balancer {
    struct lexer *l;
    token_vec out;
    VEC(struct open) stack;
};

static uint32_t column(const struct lexer *l, uint32_t offset) {
    uint32_t start = offset;
    while (start > 0 && l->text[start - 1] != '\n')
        start--;
    return offset - start;
}

static enum token_kind closer_of(enum token_kind opener) {
    return opener == TOK_LPAREN ? TOK_RPAREN : opener == TOK_LBRACKET ? TOK_RBRACKET : TOK_RBRACE;
}

static enum token_kind top_kind(const struct balancer *b) {
    return b->stack.n ? b->out.at[b->stack.at[b->stack.n - 1].token].kind : TOK_END;
}

static bool in_parentheses(const struct balancer *b) {
    return top_kind(b) == TOK_LPAREN || top_kind(b) == TOK_LBRACKET;
}

static void close_top(struct balancer *b, struct token closer) {
    int opener = b->stack.at[--b->stack.n].token;
    b->out.at[opener].match = b->out.n;
    closer.match = opener;
    VEC_PUSH(b->l->arena, b->out, closer);
}

/* Puts in the closer of the innermost bracket, at the end of the last word. */
static void insert_closer(struct balancer *b) {
    uint32_t at = b->out.at[b->out.n - 1].end;
    close_top(b, (struct token){.kind = closer_of(top_kind(b)), .missing = true, .begin = at, .end = at});
}

static void report_unclosed(struct balancer *b) {
    const struct token *opener = &b->out.at[b->stack.at[b->stack.n - 1].token];
    lex_error(b->l, E_unclosed_bracket, opener->begin, opener->end, "this `%s` is never closed",
              token_kind_text(opener->kind));
}

/* Reserved words that cannot stand inside parentheses unless a brace opened first. */
static bool begins_statement(enum token_kind kind) {
    return kind == TOK_LET || kind == TOK_VAR || kind == TOK_RETURN || kind == TOK_FN || kind == TOK_EXPORT ||
           kind == TOK_CONST || kind == TOK_USE || kind == TOK_ASSERT || kind == TOK_EXTERN || kind == TOK_WHILE ||
           kind == TOK_UNROLL;
}

/* A word at a line's start that begins a declaration of a function or block. */
static bool begins_declaration(const struct lexer *l, int i) {
    const struct token *t = &l->tokens.at[i], *next = t + 1;
    if (!t->first || t->kind == TOK_END)
        return false;
    if (t->kind == TOK_EXPORT || t->kind == TOK_FN || t->kind == TOK_EXTERN)
        return true;
    if (t->kind != TOK_NAME)
        return false;
    return (strcmp(t->string, "kernel") == 0 && next->kind == TOK_FN) ||
           (strcmp(t->string, "block") == 0 && next->kind == TOK_NAME) ||
           (strcmp(t->string, "train") == 0 && (next->kind == TOK_LBRACE || next->kind == TOK_FN));
}

static void closing(struct balancer *b, struct token t) {
    while (b->stack.n) {
        enum token_kind expected = closer_of(top_kind(b));
        if (expected == t.kind) {
            close_top(b, t);
            return;
        }
        /* Does it close an outer bracket of the same statement (or any brace)? Then the inner ones lack theirs. */
        bool outer = false;
        for (int i = b->stack.n - 1; i >= 0; i--) {
            enum token_kind kind = b->out.at[b->stack.at[i].token].kind;
            if (closer_of(kind) == t.kind)
                outer = true;
            if (outer || kind == TOK_LBRACE)
                break;
        }
        if (!outer)
            break;
        report_unclosed(b);
        insert_closer(b);
    }
    if (b->stack.n && in_parentheses(b) && t.kind != TOK_RBRACE) { /* `f(a]`: a slip of the finger */
        const struct token *opener = &b->out.at[b->stack.at[b->stack.n - 1].token];
        struct diagnostic *e = lex_error(b->l, E_unmatched_bracket, t.begin, t.end, "`%s` closes a `%s`",
                                         token_kind_text(t.kind), token_kind_text(opener->kind));
        diag_note(b->l->diag, e, (struct span){b->l->source, opener->begin, opener->end}, "which stands here");
        t.kind = closer_of(opener->kind);
        close_top(b, t);
        return;
    }
    lex_error(b->l, E_unmatched_bracket, t.begin, t.end, "this `%s` closes nothing", token_kind_text(t.kind));
}

/* One walk over the words; before each of the words `stops` (ascending) the innermost brace is closed by force. */
static void walk(struct balancer *b, const int *stops, int stop_count) {
    struct lexer *l = b->l;
    uint32_t statement = 0;
    enum token_kind last = TOK_SEMICOLON;
    for (int i = 0, stop = 0; i < l->tokens.n; i++) {
        struct token t = l->tokens.at[i];
        bool newline = t.first;
        if (in_parentheses(b) && (t.kind == TOK_END || (t.first && begins_statement(t.kind)))) {
            while (in_parentheses(b)) {
                report_unclosed(b);
                insert_closer(b);
            }
        }
        for (; stop < stop_count && stops[stop] == i; stop++) {
            while (in_parentheses(b)) {
                report_unclosed(b);
                insert_closer(b);
            }
            if (b->stack.n)
                insert_closer(b);
        }
        if (t.kind == TOK_END)
            while (b->stack.n) {
                report_unclosed(b);
                insert_closer(b);
            }
        t.newline = newline && !in_parentheses(b);
        bool continues = last == TOK_ARROW || last == TOK_ASSIGN || last == TOK_COMMA || t.kind == TOK_ARROW;
        if (!in_parentheses(b) && ((t.newline && !continues) || last == TOK_SEMICOLON || last == TOK_LBRACE))
            statement = t.begin;
        last = t.kind;
        if (t.kind == TOK_RPAREN || t.kind == TOK_RBRACKET || t.kind == TOK_RBRACE) {
            closing(b, t);
            continue;
        }
        if (t.kind == TOK_LPAREN || t.kind == TOK_LBRACKET || t.kind == TOK_LBRACE)
            VEC_PUSH(l->arena, b->stack, (struct open){b->out.n, statement});
        VEC_PUSH(l->arena, b->out, t);
    }
}

struct unclosed {
    int token; /* the `{` */
    uint32_t indent;
    int limit;   /* the word before which its body must have ended */
    bool at_end; /* that word is the end of the file */
};
typedef VEC(struct unclosed) unclosed_vec;

/* Braces alone: which are never closed. `}` pairs with the innermost open `{` unless it begins a line further left than
 * the statement of that `{` does, which then is one that lacks its own. */
static unclosed_vec find_unclosed(struct lexer *l, int lacking) {
    VEC(struct open) braces = {0};
    VEC(int) depths = {0};
    unclosed_vec found = {0};
    uint32_t statement = 0;
    int depth = 0; /* of ( and [ since the innermost brace */
    enum token_kind last = TOK_SEMICOLON;
    for (int i = 0; i < l->tokens.n; i++) {
        const struct token *t = &l->tokens.at[i];
        bool continues = last == TOK_ARROW || last == TOK_ASSIGN || last == TOK_COMMA || t->kind == TOK_ARROW;
        if (t->first && begins_statement(t->kind))
            depth = 0;
        if ((depth == 0 && t->first && !continues) || last == TOK_SEMICOLON || last == TOK_LBRACE)
            statement = t->begin;
        last = t->kind;
        if (t->kind == TOK_LPAREN || t->kind == TOK_LBRACKET) {
            depth++;
        } else if ((t->kind == TOK_RPAREN || t->kind == TOK_RBRACKET) && depth > 0) {
            depth--;
        } else if (t->kind == TOK_LBRACE) {
            VEC_PUSH(l->arena, braces, (struct open){i, statement});
            VEC_PUSH(l->arena, depths, depth);
            depth = 0;
        } else if (t->kind == TOK_RBRACE && braces.n) {
            while (t->first && braces.n > 1 && found.n < lacking && found.n < STOP_LIMIT &&
                   column(l, t->begin) < column(l, braces.at[braces.n - 1].begin)) {
                const struct open *top = &braces.at[--braces.n];
                depths.n--;
                VEC_PUSH(l->arena, found, (struct unclosed){top->token, column(l, top->begin), i, false});
            }
            braces.n--;
            depth = depths.at[--depths.n];
        }
    }
    for (int k = 0; k < braces.n && k < STOP_LIMIT; k++)
        VEC_PUSH(l->arena, found,
                 (struct unclosed){braces.at[k].token, column(l, braces.at[k].begin), l->tokens.n - 1, true});
    return found;
}

/* For each unclosed brace the word before which its body should have ended: the first declaration that begins no
 * further right, else the `}` that showed it. Returns how many; the rest ends with the file. */
static int find_stops(struct lexer *l, int lacking, int *stops) {
    unclosed_vec found = find_unclosed(l, lacking);
    int count = 0, limit = l->tokens.n;
    for (int k = 0; k < found.n && k < STOP_LIMIT; k++) {
        const struct token *brace = &l->tokens.at[found.at[k].token];
        /* Those open at the end stand inside one another, and inner bodies end no later than outer ones. */
        if (!found.at[k].at_end || limit > found.at[k].limit)
            limit = found.at[k].limit;
        int stop = -1;
        for (int i = found.at[k].token + 1; i < limit && stop < 0; i++)
            if (begins_declaration(l, i) &&
                (l->tokens.at[i].kind == TOK_EXPORT || column(l, l->tokens.at[i].begin) <= found.at[k].indent))
                stop = i;
        if (stop < 0) {
            if (!found.at[k].at_end) {
                lex_error(l, E_unclosed_bracket, brace->begin, brace->end, "this `{` is never closed");
                stops[count++] = found.at[k].limit;
            }
            continue;
        }
        const struct token *word = &l->tokens.at[stop];
        limit = stop + 1;
        for (int i = stop - 1; i > found.at[k].token; i--) /* its annotations go with it */
            if (l->tokens.at[i].first) {
                if (l->tokens.at[i].kind != TOK_MATMUL)
                    break;
                stop = i;
            }
        struct diagnostic *e =
            lex_error(l, E_unclosed_body, word->begin, word->end, "`%.*s` inside a body that was not closed",
                      (int)(word->end - word->begin), l->text + word->begin);
        diag_note(l->diag, e, (struct span){l->source, brace->begin, brace->end}, "this `{` has no `}`");
        stops[count++] = stop;
    }
    return count;
}

/* Stops are found from the outside in; the walk wants them in order of place. */
static void sort_stops(int *stops, int count) {
    for (int i = 1; i < count; i++)
        for (int j = i; j > 0 && stops[j - 1] > stops[j]; j--) {
            int swap = stops[j];
            stops[j] = stops[j - 1];
            stops[j - 1] = swap;
        }
}

/* How many `}` the file lacks. */
static int lacking_braces(const struct lexer *l) {
    int depth = 0;
    for (int i = 0; i < l->tokens.n; i++) {
        enum token_kind kind = l->tokens.at[i].kind;
        depth += kind == TOK_LBRACE;
        if (kind == TOK_RBRACE && depth > 0)
            depth--;
    }
    return depth;
}

void lex_brackets(struct lexer *l) {
    int *stops = NULL, count = 0;
    int lacking = lacking_braces(l);
    if (lacking) {
        stops = ARENA_ARRAY(l->arena, int, STOP_LIMIT);
        count = find_stops(l, lacking, stops);
        sort_stops(stops, count);
    }
    struct balancer b = {.l = l};
    walk(&b, stops, count);
    l->tokens = b.out;
}
