/* Expressions: precedence climbing over one table of infix operators, Python's order.
 *
 *   or  <  and  <  not  <  == != < <= > >= in  <  ..  <  |  <  ^  <  &  <  << >>  <  + -  <  * / % @  <  unary + - ~
 *       <  **  <  call, index, member, `else`
 *
 * Comparisons and `..` do not chain. A word at the start of a line that counts is never an infix operator.
 */
#include <string.h>

#include "frontend/parse.h"

enum level {
    LEVEL_OR = 1,
    LEVEL_AND,
    LEVEL_NOT,
    LEVEL_COMPARE,
    LEVEL_RANGE,
    LEVEL_BITOR,
    LEVEL_BITXOR,
    LEVEL_BITAND,
    LEVEL_SHIFT,
    LEVEL_ADD,
    LEVEL_MUL,
    LEVEL_UNARY,
};

struct infix {
    enum token_kind token;
    enum level level;
    enum binary_op op;
};

static const struct infix infixes[] = {
    {TOK_OR, LEVEL_OR, BIN_OR},         {TOK_AND, LEVEL_AND, BIN_AND},         {TOK_EQ, LEVEL_COMPARE, BIN_EQ},
    {TOK_NE, LEVEL_COMPARE, BIN_NE},    {TOK_LT, LEVEL_COMPARE, BIN_LT},       {TOK_LE, LEVEL_COMPARE, BIN_LE},
    {TOK_GT, LEVEL_COMPARE, BIN_GT},    {TOK_GE, LEVEL_COMPARE, BIN_GE},       {TOK_IN, LEVEL_COMPARE, BIN_IN},
    {TOK_PIPE, LEVEL_BITOR, BIN_BITOR}, {TOK_CARET, LEVEL_BITXOR, BIN_BITXOR}, {TOK_AMP, LEVEL_BITAND, BIN_BITAND},
    {TOK_SHL, LEVEL_SHIFT, BIN_SHL},    {TOK_SHR, LEVEL_SHIFT, BIN_SHR},       {TOK_ADD, LEVEL_ADD, BIN_ADD},
    {TOK_SUB, LEVEL_ADD, BIN_SUB},      {TOK_MUL, LEVEL_MUL, BIN_MUL},         {TOK_DIV, LEVEL_MUL, BIN_DIV},
    {TOK_MOD, LEVEL_MUL, BIN_MOD},      {TOK_MATMUL, LEVEL_MUL, BIN_MATMUL},
};

static struct ast_expr *parse_level(struct parser *p, enum level level);
static struct ast_expr *parse_unary(struct parser *p);

/* ---- nodes ---- */

struct ast_expr *parse_new_expr(struct parser *p, enum expr_kind kind, struct span at) {
    struct ast_expr *e = ARENA_NEW(p->arena, struct ast_expr);
    e->kind = kind;
    e->span = at;
    e->height = 1;
    if (p->tallest < 1)
        p->tallest = 1;
    return e;
}

struct ast_expr *parse_error_expr(struct parser *p, struct span at) {
    return parse_new_expr(p, EXPR_ERROR, at);
}

/* Notes that `child` hangs below `e`. Walks over the tree recurse, so its height is bounded. */
static void adopt_height(struct parser *p, struct ast_expr *e, int height) {
    if (height + 1 > e->height)
        e->height = (uint16_t)(height + 1);
    if (e->height > p->tallest)
        p->tallest = e->height;
    if (e->height > PARSE_HEIGHT_LIMIT) {
        struct diagnostic *d =
            parse_fail(p, E_too_deep, e->span, "this expression is more than %d operations deep", PARSE_HEIGHT_LIMIT);
        diag_help(p->diag, d, "give parts of it names with `let`, or use a list and `sum`");
        e->kind = EXPR_ERROR;
        e->height = 1;
    }
}

static void adopt(struct parser *p, struct ast_expr *e, const struct ast_expr *child) {
    if (child)
        adopt_height(p, e, child->height);
}

static struct ast_expr *binary(struct parser *p, enum binary_op op, struct ast_expr *left, struct ast_expr *right,
                               struct span op_span) {
    struct ast_expr *e = parse_new_expr(p, EXPR_BINARY, span_join(left->span, right->span));
    e->binary.op = op;
    e->binary.left = left;
    e->binary.right = right;
    e->binary.op_span = op_span;
    adopt(p, e, left);
    adopt(p, e, right);
    return e;
}

static struct ast_expr *unary(struct parser *p, enum unary_op op, struct ast_expr *arg, struct span op_span) {
    struct ast_expr *e = parse_new_expr(p, EXPR_UNARY, span_join(op_span, arg->span));
    e->unary.op = op;
    e->unary.arg = arg;
    adopt(p, e, arg);
    return e;
}

/* ---- infix operators ---- */

static const struct infix *infix_at(const struct parser *p) {
    const struct token *t = parse_now(p);
    if (t->newline)
        return NULL;
    for (size_t i = 0; i < sizeof infixes / sizeof *infixes; i++)
        if (infixes[i].token == t->kind)
            return &infixes[i];
    return NULL;
}

static bool at_not_in(const struct parser *p) {
    return parse_is(p, TOK_NOT) && !parse_now(p)->newline && parse_peek(p, 1)->kind == TOK_IN;
}

static bool at_comparison(const struct parser *p) {
    const struct infix *i = infix_at(p);
    return (i && i->level == LEVEL_COMPARE) || at_not_in(p);
}

/* `&&`, `||`, `?`: reported, and read as what they mean. */
static const struct infix *foreign_infix(struct parser *p) {
    const struct token *t = parse_now(p);
    if (t->newline)
        return NULL;
    if (t->kind == TOK_AND_AND || t->kind == TOK_OR_OR) {
        struct diagnostic *e = parse_complain(p, E_foreign_operator, parse_span(p, t), "there is no operator `%s`",
                                              token_kind_text(t->kind));
        diag_help(p->diag, e, "write `%s`", t->kind == TOK_AND_AND ? "and" : "or");
        return &infixes[t->kind == TOK_AND_AND ? 1 : 0];
    }
    if (t->kind == TOK_QUESTION) {
        struct diagnostic *e = parse_fail(p, E_foreign_operator, parse_span(p, t), "there is no operator `?`");
        diag_help(p->diag, e, "a choice is written `where(condition, a, b)`");
    }
    return NULL;
}

/* `x++` at the end of a statement reads as `x + +…`. */
static bool is_increment(const struct parser *p) {
    const struct token *t = parse_now(p), *second = parse_peek(p, 1), *third = parse_peek(p, 2);
    return (t->kind == TOK_ADD || t->kind == TOK_SUB) && second->kind == t->kind && second->begin == t->end &&
           (third->newline || third->kind == TOK_SEMICOLON || third->kind == TOK_RBRACE || third->kind == TOK_END);
}

static struct ast_expr *comparison(struct parser *p, struct ast_expr *left) {
    struct span op_span = parse_span(p, parse_now(p));
    const struct infix *op = infix_at(p);
    bool negated = !op;
    parse_next(p);
    if (negated)
        op_span = span_join(op_span, parse_span(p, parse_next(p)));
    struct ast_expr *right = parse_level(p, LEVEL_RANGE);
    struct ast_expr *e = binary(p, negated ? BIN_IN : op->op, left, right, op_span);
    return negated ? unary(p, UN_NOT, e, left->span) : e;
}

static struct ast_expr *comparisons(struct parser *p, struct ast_expr *left) {
    struct ast_expr *e = comparison(p, left);
    if (!p->failed && at_comparison(p)) {
        const struct ast_expr *middle = e->kind == EXPR_BINARY ? e->binary.right : left;
        struct diagnostic *d =
            parse_complain(p, E_chained_comparison, parse_span(p, parse_now(p)), "comparisons do not chain");
        int size = (int)(middle->span.end - middle->span.begin);
        if (size > 0 && size < 40)
            diag_help(p->diag, d, "write both: `… and %.*s %s …`", size, p->source->text + middle->span.begin,
                      token_kind_text(parse_now(p)->kind));
        while (!p->failed && at_comparison(p))
            e = comparison(p, e);
    }
    return e;
}

static struct ast_expr *range(struct parser *p, struct ast_expr *lo) {
    const struct token *dots = parse_next(p);
    struct span dots_span = parse_span(p, dots);
    const struct token *t = parse_now(p);
    if (t->kind == TOK_RBRACKET || t->kind == TOK_RPAREN || t->kind == TOK_COMMA || t->newline ||
        t->kind == TOK_LBRACE) {
        struct diagnostic *d = parse_fail(p, E_range_end, dots_span, "a range has two ends");
        diag_help(p->diag, d, "the rest of an array is the slice `x[2:]`, without dots");
        return lo;
    }
    struct ast_expr *hi = parse_level(p, LEVEL_BITOR);
    struct ast_expr *e = parse_new_expr(p, EXPR_RANGE, span_join(lo->span, hi->span));
    e->range.lo = lo;
    e->range.hi = hi;
    adopt(p, e, lo);
    adopt(p, e, hi);
    if (!p->failed && parse_is(p, TOK_DOTDOT) && !parse_now(p)->newline) {
        struct diagnostic *d =
            parse_fail(p, E_range_end, parse_span(p, parse_now(p)), "a range has two ends, not three");
        diag_help(p->diag, d, "steps: `[i * 2 for i in 0..n]`, or a slice `x[a:b:2]`");
    }
    return e;
}

static struct ast_expr *negation(struct parser *p) {
    struct span op_span = parse_span(p, parse_next(p));
    if (!parse_enter(p)) {
        parse_leave(p);
        return parse_error_expr(p, op_span);
    }
    struct ast_expr *arg = parse_level(p, LEVEL_NOT);
    parse_leave(p);
    return unary(p, UN_NOT, arg, op_span);
}

static struct ast_expr *parse_level(struct parser *p, enum level level) {
    struct ast_expr *left = level <= LEVEL_NOT && parse_is(p, TOK_NOT) ? negation(p) : parse_unary(p);
    while (!p->failed) {
        if (level <= LEVEL_RANGE && parse_is(p, TOK_DOTDOT) && !parse_now(p)->newline) {
            left = range(p, left);
            continue;
        }
        if (level <= LEVEL_COMPARE && at_comparison(p)) {
            left = comparisons(p, left);
            continue;
        }
        const struct infix *op = infix_at(p);
        if (!op && level <= LEVEL_AND)
            op = foreign_infix(p);
        if (!op || op->level < level || op->level == LEVEL_COMPARE)
            break;
        if (is_increment(p)) {
            struct diagnostic *d = parse_fail(p, E_foreign_operator, parse_span(p, parse_now(p)), "there is no `%s%s`",
                                              token_kind_text(op->token), token_kind_text(op->token));
            diag_help(p->diag, d, "write `x %s= 1`", token_kind_text(op->token));
            break;
        }
        struct span op_span = parse_span(p, parse_next(p));
        /* Left associative: the right side takes only what binds tighter. */
        left = binary(p, op->op, left, parse_level(p, op->level + 1), op_span);
    }
    return left;
}

struct ast_expr *parse_expr(struct parser *p) {
    struct ast_expr *e;
    if (parse_enter(p)) {
        e = parse_level(p, LEVEL_OR);
    } else {
        e = parse_error_expr(p, parse_span(p, parse_now(p)));
    }
    parse_leave(p);
    return e;
}

struct ast_expr *parse_range_level(struct parser *p) {
    struct ast_expr *e =
        parse_enter(p) ? parse_level(p, LEVEL_RANGE) : parse_error_expr(p, parse_span(p, parse_now(p)));
    parse_leave(p);
    return e;
}

int parse_expr_list(struct parser *p, struct ast_expr ***items) {
    VEC(struct ast_expr *) v = {0};
    do
        VEC_PUSH(p->arena, v, parse_expr(p));
    while (parse_accept(p, TOK_COMMA));
    *items = v.at;
    return v.n;
}

/* ---- index notation ---- */

/* At a word that begins a line and a statement, where an operand was expected. */
static bool at_next_statement(const struct parser *p) {
    const struct token *t = parse_now(p);
    if (!t->newline)
        return false;
    return t->kind == TOK_RBRACE || t->kind == TOK_END ||
           (t->kind >= TOK_USE && t->kind < TOK_AND && t->kind != TOK_IN);
}

static bool is_comprehension_word(const char *name) {
    static const char *const words[] = {"tensor", "sum", "prod", "max",    "min",
                                        "any",    "all", "mean", "argmax", "argmin"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i], name) == 0)
            return true;
    return false;
}

/* At `sum [`: whether indices follow rather than subscripts. `<=` is no index, but meant as one. */
static bool at_indices(const struct parser *p) {
    if (parse_peek(p, 1)->kind != TOK_LBRACKET || parse_peek(p, 1)->newline)
        return false;
    int run = parse_peek(p, 2)->kind == TOK_DOTDOT;
    enum token_kind sign = parse_peek(p, 3 + run)->kind;
    return parse_peek(p, 2 + run)->kind == TOK_NAME && (sign == TOK_LT || sign == TOK_LE || sign == TOK_IN);
}

static struct ast_index parse_index(struct parser *p) {
    int begin = p->at;
    if (parse_is(p, TOK_DOTDOT))
        parse_mark(p, MARK_PREFIX);
    struct ast_index index = {.is_run = parse_accept(p, TOK_DOTDOT)};
    const struct token *name = parse_name(p, "an index");
    index.name = name ? name->string : "_";
    index.bound = NULL;
    if (parse_accept(p, TOK_IN)) {
        index.is_in = true;
        index.bound = parse_range_level(p);
    } else if (!p->failed && parse_is(p, TOK_LE)) {
        struct span at = parse_span(p, parse_next(p));
        struct diagnostic *e = parse_complain(p, E_index_form, at, "an index runs up to its bound, without it");
        diag_help(p->diag, e, "write `%s < … + 1`", index.name);
        index.bound = parse_level(p, LEVEL_BITOR);
    } else if (parse_accept(p, TOK_LT)) {
        index.bound = parse_level(p, LEVEL_BITOR);
        if (!p->failed && parse_is(p, TOK_DOTDOT)) {
            struct diagnostic *e =
                parse_fail(p, E_index_form, parse_span(p, parse_now(p)), "a range behind `<`, which takes a size");
            diag_help(p->diag, e, "write `%s in a..b`", index.name);
        }
    } else if (!p->failed) {
        struct diagnostic *e = parse_fail(p, E_index_form, parse_span(p, parse_now(p)),
                                          "expected the bound of the index `%s`, saw %s", index.name, parse_seen(p));
        diag_help(p->diag, e, "write `%s < size` or `%s in a..b`", index.name, index.name);
    }
    index.span = parse_span_from(p, begin);
    if (!index.bound)
        index.bound = parse_error_expr(p, index.span);
    return index;
}

/* `tensor[i < M] BODY`: the body reaches as far right as it can, over a line end behind the `]`. */
static struct ast_expr *comprehension(struct parser *p) {
    int begin = p->at;
    struct ast_expr *e = parse_new_expr(p, EXPR_COMPREHENSION, parse_span(p, parse_now(p)));
    e->comp.what = parse_next(p)->string;
    parse_next(p);
    VEC(struct ast_index) indices = {0};
    do {
        if (indices.n && parse_is(p, TOK_RBRACKET))
            break;
        struct ast_index index = parse_index(p);
        adopt(p, e, index.bound);
        VEC_PUSH(p->arena, indices, index);
    } while (parse_accept(p, TOK_COMMA));
    parse_mark(p, MARK_INDICES_END);
    parse_expect(p, TOK_RBRACKET, "or `,` after an index");
    e->comp.indices = indices.at;
    e->comp.count = indices.n;
    if (!p->failed && parse_is(p, TOK_LBRACE)) {
        int tallest = p->tallest;
        p->tallest = 0;
        e->comp.block = parse_body(p, BODY_FN, "");
        adopt_height(p, e, p->tallest);
        if (p->tallest < tallest)
            p->tallest = tallest;
    } else if (!p->failed) {
        const struct token *t = parse_now(p);
        if (at_next_statement(p) || t->kind == TOK_END || t->kind == TOK_RBRACE || t->kind == TOK_SEMICOLON ||
            t->kind == TOK_COMMA || t->kind == TOK_RPAREN || t->kind == TOK_RBRACKET) {
            struct diagnostic *d =
                parse_fail(p, E_expected_expression, parse_surprise(p),
                           "expected what `%s[…]` is computed from, saw %s", e->comp.what, parse_seen(p));
            diag_help(p->diag, d, "an expression or `{ let …; return … }` follows the indices");
        } else {
            e->comp.body = parse_expr(p);
            adopt(p, e, e->comp.body);
        }
    }
    e->span = parse_span_from(p, begin);
    if (p->failed || (!e->comp.body && !e->comp.block))
        e->kind = EXPR_ERROR;
    return e;
}

/* ---- lists ---- */

struct ast_pattern parse_pattern(struct parser *p, const char *what, bool bare_list) {
    int begin = p->at;
    struct ast_pattern pattern = {0};
    VEC(struct ast_name) names = {0};
    pattern.parenthesized = parse_accept(p, TOK_LPAREN);
    do {
        int first = p->at;
        struct ast_name name = {.is_inout = parse_accept(p, TOK_INOUT)};
        const struct token *t = parse_name(p, what);
        name.name = t ? t->string : "_";
        name.span = parse_span_from(p, first);
        VEC_PUSH(p->arena, names, name);
        if (!p->failed && parse_is(p, TOK_COMMA) && !pattern.parenthesized && !bare_list) {
            struct diagnostic *e = parse_complain(p, E_bare_pattern, parse_span(p, parse_now(p)),
                                                  "several names are put in parentheses here");
            diag_help(p->diag, e, "write `for (a, b) in …`");
            bare_list = true;
        }
        if ((pattern.parenthesized || bare_list) && parse_accept(p, TOK_COMMA))
            continue;
        break;
    } while (!p->failed);
    if (pattern.parenthesized)
        parse_expect(p, TOK_RPAREN, "or `,` after a name");
    pattern.names = names.at;
    pattern.count = names.n;
    pattern.span = parse_span_from(p, begin);
    return pattern;
}

static struct ast_expr *splice(struct parser *p) {
    int begin = p->at;
    parse_mark(p, MARK_PREFIX);
    parse_next(p);
    struct ast_expr *value = parse_expr(p);
    struct ast_expr *e = parse_new_expr(p, EXPR_SPLICE, parse_span_from(p, begin));
    e->splice.value = value;
    adopt(p, e, value);
    return e;
}

static struct ast_expr *list(struct parser *p) {
    int begin = p->at, end = parse_now(p)->match;
    parse_next(p);
    struct ast_expr *e = parse_new_expr(p, EXPR_LIST, parse_span(p, &p->tokens[begin]));
    VEC(struct ast_expr *) items = {0};
    while (!p->failed && p->at < end) {
        struct ast_expr *item = parse_is(p, TOK_DOTDOT) ? splice(p) : parse_expr(p);
        if (!p->failed && items.n == 0 && parse_accept(p, TOK_FOR)) {
            e->kind = EXPR_LISTCOMP;
            e->listcomp.value = item;
            e->listcomp.pattern = parse_pattern(p, "a variable of the list", false);
            parse_expect(p, TOK_IN, "after the names of `for`");
            e->listcomp.iter = parse_expr(p);
            if (parse_accept(p, TOK_IF))
                e->listcomp.cond = parse_expr(p);
            if (!p->failed && (parse_is(p, TOK_FOR) || parse_is(p, TOK_IF))) {
                struct diagnostic *d =
                    parse_fail(p, E_list_for, parse_span(p, parse_now(p)), "a list has one `for` and one `if`");
                diag_help(p->diag, d, "nest lists, `[[… for j in …] for i in …]`, or join conditions with `and`");
            }
            adopt(p, e, item);
            adopt(p, e, e->listcomp.iter);
            adopt(p, e, e->listcomp.cond);
            break;
        }
        adopt(p, e, item);
        VEC_PUSH(p->arena, items, item);
        if (p->at < end && !parse_accept(p, TOK_COMMA))
            break;
    }
    if (e->kind == EXPR_LIST) {
        e->list.items = items.at;
        e->list.count = items.n;
    }
    parse_expect(p, TOK_RBRACKET, e->kind == EXPR_LISTCOMP ? "at the end of the list" : "or `,` in a list");
    e->span = parse_span_from(p, begin);
    if (p->failed)
        e->kind = EXPR_ERROR;
    return e;
}

/* ---- operands ---- */

static struct ast_expr *parenthesized(struct parser *p) {
    int begin = p->at;
    parse_next(p);
    if (parse_is(p, TOK_RPAREN)) {
        parse_fail(p, E_expected_expression, parse_span(p, parse_now(p)), "expected an expression between `(` and `)`");
        return parse_error_expr(p, parse_span_from(p, begin));
    }
    struct ast_expr *e = parse_expr(p);
    if (!p->failed && parse_is(p, TOK_COMMA)) {
        struct diagnostic *d =
            parse_fail(p, E_tuple, parse_span(p, parse_now(p)), "a value in parentheses is one value");
        diag_help(p->diag, d, "a list is written `[a, b]`");
    }
    parse_expect(p, TOK_RPAREN, "to close the `(`");
    if (p->failed)
        return parse_error_expr(p, parse_span_from(p, begin));
    e->span = parse_span_from(p, begin);
    return e;
}

static struct ast_expr *expected_expression(struct parser *p) {
    const struct token *t = parse_now(p);
    /* `let a = b +` and a new statement on the next line: what lacks, lacks behind the `+`. */
    bool next_statement = at_next_statement(p);
    struct span at = next_statement ? parse_surprise(p) : parse_span(p, t);
    struct diagnostic *e = NULL;
    switch (next_statement ? TOK_END : t->kind) {
    case TOK_NOT:
        e = parse_fail(p, E_not_operand, at, "`not` binds looser than the operator before it");
        diag_help(p->diag, e, "put it in parentheses: `(not a)`");
        break;
    case TOK_DOTDOT:
        e = parse_fail(p, E_misplaced_splice, at, "`..` splices into types, indices, lists and calls only");
        diag_help(p->diag, e, "a range needs its lower end: `0..n`");
        break;
    case TOK_IF:
        e = parse_fail(p, E_expected_expression, at, "`if` is a statement, not a value");
        diag_help(p->diag, e, "a choice is written `where(condition, a, b)`");
        break;
    case TOK_BANG:
        e = parse_fail(p, E_foreign_operator, at, "there is no operator `!`");
        diag_help(p->diag, e, "write `not`");
        break;
    case TOK_FN:
        e = parse_fail(p, E_expected_expression, at, "a function cannot be written inside an expression");
        diag_help(p->diag, e, "declare it with a name and pass the name");
        break;
    case TOK_LBRACE:
        e = parse_fail(p, E_expected_expression, at, "expected an expression, saw `{`");
        diag_help(p->diag, e, "lists are written `[1, 2]`; sets and dictionaries do not exist");
        break;
    default:
        e = parse_fail(p, E_expected_expression, at, "expected an expression, saw %s",
                       next_statement ? parse_seen(p) : parse_seen_word(p));
        if (t->newline && (t->kind == TOK_DOT || t->kind == TOK_AND || t->kind == TOK_OR ||
                           (t->kind >= TOK_POW && t->kind <= TOK_GE) || (t->kind >= TOK_ADD && t->kind <= TOK_GT)))
            diag_help(
                p->diag, e,
                "a line ends its statement; it goes on behind an operator at the end of the line, or in parentheses");
    }
    return parse_error_expr(p, at);
}

static struct ast_expr *primary(struct parser *p) {
    const struct token *t = parse_now(p);
    struct ast_expr *e;
    switch (t->kind) {
    case TOK_INT:
        e = parse_new_expr(p, EXPR_INT, parse_span(p, t));
        e->integer = t->integer;
        break;
    case TOK_FLOAT:
        e = parse_new_expr(p, EXPR_FLOAT, parse_span(p, t));
        e->number = t->number;
        break;
    case TOK_TRUE:
    case TOK_FALSE:
        e = parse_new_expr(p, EXPR_BOOL, parse_span(p, t));
        e->boolean = t->kind == TOK_TRUE;
        break;
    case TOK_NONE: e = parse_new_expr(p, EXPR_NONE, parse_span(p, t)); break;
    case TOK_STRING:
        e = parse_new_expr(p, EXPR_STRING, parse_span(p, t));
        e->string = t->string;
        break;
    case TOK_NAME:
        if (is_comprehension_word(t->string) && at_indices(p))
            return comprehension(p);
        e = parse_new_expr(p, EXPR_NAME, parse_span(p, t));
        e->string = t->string;
        break;
    case TOK_LPAREN: return parenthesized(p);
    case TOK_LBRACKET: return list(p);
    default: return expected_expression(p);
    }
    parse_next(p);
    return e;
}

int parse_args(struct parser *p, struct ast_arg **args) {
    VEC(struct ast_arg) v = {0};
    bool named = false;
    while (!p->failed && !parse_is(p, TOK_RPAREN)) {
        int begin = p->at;
        struct ast_arg arg = {0};
        if (parse_is(p, TOK_NAME) && parse_peek(p, 1)->kind == TOK_ASSIGN) {
            arg.name = parse_next(p)->string;
            parse_next(p);
            named = true;
        }
        arg.is_inout = parse_accept(p, TOK_INOUT);
        arg.value = parse_is(p, TOK_DOTDOT) ? splice(p) : parse_expr(p);
        arg.span = parse_span_from(p, begin);
        if (named && !arg.name)
            parse_complain(p, E_positional_after_named, arg.span, "an argument by position behind arguments by name");
        VEC_PUSH(p->arena, v, arg);
        if (!p->failed && parse_is(p, TOK_FOR)) {
            struct diagnostic *e =
                parse_fail(p, E_list_for, parse_span(p, parse_now(p)), "`for` belongs inside a list");
            diag_help(p->diag, e, "write `f([… for … in …])`");
        }
        if (!p->failed && parse_is(p, TOK_ASSIGN)) {
            struct diagnostic *e =
                parse_fail(p, E_unexpected_token, parse_span(p, parse_now(p)), "`=` inside an argument");
            diag_help(p->diag, e, "`==` compares; an argument by name is `name = value`");
        }
        if (!parse_is(p, TOK_RPAREN))
            parse_expect(p, TOK_COMMA, "or `)` after an argument");
    }
    parse_expect(p, TOK_RPAREN, "after the arguments");
    *args = v.at;
    return v.n;
}

static struct ast_subscript subscript(struct parser *p) {
    int begin = p->at;
    struct ast_subscript s = {.kind = SUB_INDEX};
    if (parse_accept(p, TOK_ELLIPSIS)) {
        s.kind = SUB_ELLIPSIS;
    } else if (parse_is(p, TOK_DOTDOT)) {
        parse_mark(p, MARK_PREFIX);
        parse_next(p);
        s.kind = SUB_SPLICE;
        s.index = parse_expr(p);
    } else if (parse_is(p, TOK_NONE) &&
               (parse_peek(p, 1)->kind == TOK_COMMA || parse_peek(p, 1)->kind == TOK_RBRACKET)) {
        parse_next(p);
        s.kind = SUB_NEWAXIS;
    } else {
        if (!parse_is(p, TOK_COLON))
            s.index = parse_expr(p);
        if (!p->failed && parse_is(p, TOK_COLON)) {
            s.kind = SUB_SLICE;
            s.lo = s.index;
            s.index = NULL;
            struct ast_expr **parts[] = {&s.hi, &s.step};
            for (int i = 0; i < 2 && !p->failed && parse_is(p, TOK_COLON); i++) {
                parse_mark(p, MARK_SLICE);
                parse_next(p);
                if (!parse_is(p, TOK_COLON) && !parse_is(p, TOK_COMMA) && !parse_is(p, TOK_RBRACKET))
                    *parts[i] = parse_expr(p);
            }
        }
    }
    s.span = parse_span_from(p, begin);
    return s;
}

static struct ast_expr *indexing(struct parser *p, struct ast_expr *base) {
    int end = parse_now(p)->match;
    struct span open = parse_span(p, parse_next(p));
    struct ast_expr *e = parse_new_expr(p, EXPR_INDEX, base->span);
    VEC(struct ast_subscript) subs = {0};
    e->index.base = base;
    adopt(p, e, base);
    if (p->at == end && !p->tokens[end].missing) {
        struct diagnostic *d = parse_complain(p, E_empty_index, span_join(open, parse_span(p, parse_now(p))),
                                              "no index between `[` and `]`");
        diag_help(p->diag, d, "a scalar's type is the element type alone, `f32`; all of an array is `x` or `x[:]`");
    }
    while (!p->failed && p->at < end) {
        struct ast_subscript s = subscript(p);
        adopt(p, e, s.index);
        adopt(p, e, s.lo);
        adopt(p, e, s.hi);
        adopt(p, e, s.step);
        VEC_PUSH(p->arena, subs, s);
        if (p->at < end && !parse_accept(p, TOK_COMMA))
            break;
    }
    parse_expect(p, TOK_RBRACKET, "or `,` after an index");
    e->index.subs = subs.at;
    e->index.count = subs.n;
    e->span = span_join(base->span, parse_span(p, &p->tokens[p->at > 0 ? p->at - 1 : 0]));
    if (p->failed)
        e->kind = EXPR_ERROR;
    return e;
}

static struct ast_expr *call(struct parser *p, struct ast_expr *callee) {
    parse_next(p);
    struct ast_expr *e = parse_new_expr(p, EXPR_CALL, callee->span);
    e->call.callee = callee;
    adopt(p, e, callee);
    e->call.count = parse_args(p, &e->call.args);
    for (int i = 0; i < e->call.count; i++)
        adopt(p, e, e->call.args[i].value);
    e->span = span_join(callee->span, parse_span(p, &p->tokens[p->at - 1]));
    if (p->failed)
        e->kind = EXPR_ERROR;
    return e;
}

static struct ast_expr *member(struct parser *p, struct ast_expr *base) {
    parse_next(p);
    const struct token *t = parse_now(p);
    struct ast_expr *e = parse_new_expr(p, EXPR_MEMBER, span_join(base->span, parse_span(p, t)));
    e->member.base = base;
    e->member.name_span = parse_span(p, t);
    adopt(p, e, base);
    if (t->kind == TOK_INT && !t->newline) {
        e->member.name = arena_strndup(p->arena, p->source->text + t->begin, t->end - t->begin);
        parse_next(p);
        return e;
    }
    const struct token *name = parse_name(p, "a member after `.`");
    e->member.name = name ? name->string : "_";
    if (!name)
        e->kind = EXPR_ERROR;
    return e;
}

static struct ast_expr *postfix(struct parser *p);

/* `a[i] else 0`: one operand, a postfix expression with a minus if need be. */
static struct ast_expr *guard(struct parser *p, struct ast_expr *base) {
    struct span word = parse_span(p, parse_next(p));
    if (parse_is(p, TOK_LBRACE) || parse_is(p, TOK_IF)) {
        parse_fail(p, E_else_without_if, word, "`else` without an `if` before it");
        return parse_error_expr(p, word);
    }
    if (base->kind != EXPR_INDEX && base->kind != EXPR_ERROR) {
        struct diagnostic *e = parse_complain(p, E_guard_without_index, word, "`else` guards an index, `a[i] else 0`");
        diag_label(p->diag, e, "what stands before it is no index");
        diag_help(p->diag, e, "a choice is written `where(condition, a, b)`");
    }
    bool minus = parse_is(p, TOK_SUB);
    struct span minus_span = parse_span(p, parse_now(p));
    if (minus) {
        parse_mark(p, MARK_PREFIX);
        parse_next(p);
    }
    struct ast_expr *otherwise = parse_error_expr(p, word);
    if (parse_enter(p))
        otherwise = postfix(p);
    parse_leave(p);
    if (minus)
        otherwise = unary(p, UN_NEG, otherwise, minus_span);
    struct ast_expr *e = parse_new_expr(p, EXPR_GUARD, span_join(base->span, otherwise->span));
    e->guard.base = base;
    e->guard.otherwise = otherwise;
    adopt(p, e, base);
    adopt(p, e, otherwise);
    if (base->kind != EXPR_INDEX)
        e->kind = EXPR_ERROR;
    return e;
}

static struct ast_expr *postfix(struct parser *p) {
    bool parentheses = parse_is(p, TOK_LPAREN); /* they close a comprehension's body */
    struct ast_expr *e = primary(p);
    while (!p->failed) {
        const struct token *t = parse_now(p);
        bool open = e->kind == EXPR_COMPREHENSION && !parentheses;
        if (t->kind == TOK_ELSE && e->kind != EXPR_COMPREHENSION)
            return guard(p, e);
        if (t->newline || open)
            return e;
        if (t->kind == TOK_LPAREN)
            e = call(p, e);
        else if (t->kind == TOK_LBRACKET)
            e = indexing(p, e);
        else if (t->kind == TOK_DOT)
            e = member(p, e);
        else
            return e;
    }
    return e;
}

static struct ast_expr *parse_unary(struct parser *p) {
    const struct token *t = parse_now(p);
    if (t->kind == TOK_SUB || t->kind == TOK_ADD || t->kind == TOK_TILDE) {
        parse_mark(p, MARK_PREFIX);
        parse_next(p);
        struct ast_expr *arg = parse_enter(p) ? parse_unary(p) : parse_error_expr(p, parse_span(p, t));
        parse_leave(p);
        return unary(p, t->kind == TOK_SUB ? UN_NEG : t->kind == TOK_ADD ? UN_POS : UN_BITNOT, arg, parse_span(p, t));
    }
    struct ast_expr *base = postfix(p);
    if (p->failed || !parse_is(p, TOK_POW) || parse_now(p)->newline)
        return base;
    struct span op_span = parse_span(p, parse_next(p));
    struct ast_expr *power = parse_enter(p) ? parse_unary(p) : parse_error_expr(p, op_span);
    parse_leave(p);
    return binary(p, BIN_POW, base, power, op_span);
}

struct ast_expr *parse_type(struct parser *p) {
    struct ast_expr *e = parse_enter(p) ? postfix(p) : parse_error_expr(p, parse_span(p, parse_now(p)));
    parse_leave(p);
    return e;
}
