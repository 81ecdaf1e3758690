/* Statements, and recovery: whatever goes wrong inside one, the next line (or `;`, or `}`) begins anew. */
#include <string.h>

#include "frontend/parse.h"

static struct ast_stmt *new_stmt(struct parser *p, enum stmt_kind kind) {
    struct ast_stmt *s = ARENA_NEW(p->arena, struct ast_stmt);
    s->kind = kind;
    return s;
}

static bool at_statement_end(const struct parser *p) {
    const struct token *t = parse_now(p);
    return t->newline || t->kind == TOK_SEMICOLON || t->kind == TOK_RBRACE || t->kind == TOK_END;
}

struct ast_block_body *parse_body(struct parser *p, enum body_kind kind, const char *what) {
    const struct token *open = parse_now(p);
    if (p->failed)
        return NULL;
    if (open->kind == TOK_LBRACE && open->newline && *what) {
        struct diagnostic *e = parse_complain(p, E_expected_body, parse_span(p, open), "`{` begins a line");
        diag_help(p->diag, e, "a line end ends the statement before it: put the `{` behind it, on the same line");
    } else if (open->kind != TOK_LBRACE) {
        struct diagnostic *e =
            parse_fail(p, E_expected_body, parse_surprise(p), "expected `{` %s, saw %s", what, parse_seen(p));
        if (open->kind == TOK_COLON)
            diag_help(p->diag, e, "a body stands in braces, without a colon");
        if (open->kind == TOK_ASSIGN)
            diag_help(p->diag, e, "`==` compares, `=` assigns");
        return NULL;
    }
    int begin = p->at, end = open->match;
    struct ast_block_body *body = ARENA_NEW(p->arena, struct ast_block_body);
    parse_next(p);
    const struct token *outer = p->body_open;
    p->body_open = open;
    if (parse_enter(p))
        body->count = parse_statements(p, kind, end, &body->stmts);
    parse_leave(p);
    p->body_open = outer;
    bool failed = p->failed;
    p->at = end;
    parse_next(p);
    p->failed = failed;
    body->span = parse_span_from(p, begin);
    return body;
}

/* ---- what may stand where ---- */

/* Statements that compute belong into functions; a file and a block declare. */
static void check_place(struct parser *p, enum body_kind kind, struct span at, const char *what, const char *help) {
    if (kind == BODY_FN)
        return;
    struct diagnostic *e = parse_complain(p, E_misplaced_statement, at, "%s stands in a function, not in a %s", what,
                                          kind == BODY_FILE ? "file" : "block");
    if (help)
        diag_help(p->diag, e, "%s", help);
}

/* Words of other languages at the start of a statement, and what to write. */
static const struct {
    const char *word, *help;
    bool alone; /* wrong by itself; else when a name or string follows */
} foreign_words[] = {
    {"def", "a function is declared with `fn`", false},
    {"func", "a function is declared with `fn`", false},
    {"function", "a function is declared with `fn`", false},
    {"class", "parameters, state and functions stand together in a `block`", false},
    {"struct", "parameters, state and functions stand together in a `block`", false},
    {"module", "a file is a module; parameters and functions stand together in a `block`", false},
    {"import", "write `use nn` or `use \"file.mxl\" as name`", false},
    {"include", "write `use \"file.mxl\" as name`", false},
    {"from", "write `use nn` and `nn.relu(x)`", false},
    {"elif", "write `else if`", false},
    {"elseif", "write `else if`", false},
    {"static", "a value known to the compiler is a `const`", false},
    {"auto", "a name for a value is declared with `let`", false},
    {"mut", "a variable is declared with `var`", false},
    {"break", "loops run to their end; a `while` carries its condition", true},
    {"continue", "put the rest of the loop's body under an `if`", true},
    {"pass", "an empty body is `{ }`", true},
};

static bool foreign_statement(struct parser *p) {
    const struct token *t = parse_now(p), *next = parse_peek(p, 1);
    if (t->kind != TOK_NAME)
        return false;
    bool ends = next->newline || next->kind == TOK_SEMICOLON || next->kind == TOK_RBRACE || next->kind == TOK_END;
    bool word = !next->newline && (next->kind == TOK_NAME || next->kind == TOK_STRING);
    for (size_t i = 0; i < sizeof foreign_words / sizeof *foreign_words; i++)
        if (strcmp(t->string, foreign_words[i].word) == 0 && (foreign_words[i].alone ? ends : word)) {
            struct diagnostic *e = parse_fail(p, E_foreign_word, parse_span(p, t), "there is no `%s`", t->string);
            diag_help(p->diag, e, "%s", foreign_words[i].help);
            return true;
        }
    return false;
}

/* ---- the statements ---- */

static struct ast_stmt *let_statement(struct parser *p, enum body_kind kind) {
    bool is_var = parse_is(p, TOK_VAR);
    struct span word = parse_span(p, parse_next(p));
    struct ast_stmt *s = new_stmt(p, is_var ? STMT_VAR : STMT_LET);
    if (is_var)
        check_place(p, kind, word, "`var`",
                    kind == BODY_BLOCK ? "what a block keeps between calls is `state`" : "a fixed value is a `const`");
    s->let.names = parse_pattern(p, is_var ? "a variable" : "a value", true);
    if (parse_accept(p, TOK_COLON))
        s->let.type = parse_type(p);
    if (p->failed)
        return s;
    const struct token *t = parse_now(p);
    if (t->kind == TOK_COLON_ASSIGN) {
        struct diagnostic *e = parse_complain(p, E_foreign_operator, parse_span(p, t), "there is no operator `:=`");
        diag_help(p->diag, e, "write `=`");
    } else if (t->kind != TOK_ASSIGN) {
        struct diagnostic *e =
            parse_fail(p, E_missing_value, parse_surprise(p), "expected `=` and a value, saw %s", parse_seen(p));
        if (is_var)
            diag_help(p->diag, e, "every variable begins with a value: `var h: f32[N] = 0`");
        return s;
    }
    parse_next(p);
    s->let.value = parse_expr(p);
    return s;
}

static struct ast_stmt *if_statement(struct parser *p, enum body_kind kind) {
    struct ast_stmt *s = new_stmt(p, STMT_IF);
    parse_next(p);
    s->if_.cond = parse_expr(p);
    s->if_.then = parse_body(p, kind, "behind the condition");
    if (!parse_accept(p, TOK_ELSE))
        return s;
    if (!parse_is(p, TOK_IF)) {
        s->if_.otherwise = parse_body(p, kind, "behind `else`");
        return s;
    }
    /* `else if`: a body of one statement. A chain nests, and counts as nesting. */
    int begin = p->at;
    struct ast_stmt *inner = NULL;
    if (parse_enter(p))
        inner = if_statement(p, kind);
    parse_leave(p);
    if (inner) {
        inner->span = parse_span_from(p, begin);
        struct ast_block_body *body = ARENA_NEW(p->arena, struct ast_block_body);
        body->stmts = ARENA_ARRAY(p->arena, struct ast_stmt *, 1);
        body->stmts[0] = inner;
        body->count = 1;
        body->span = inner->span;
        s->if_.otherwise = body;
    }
    return s;
}

static struct ast_stmt *for_statement(struct parser *p, enum body_kind kind) {
    struct ast_stmt *s = new_stmt(p, STMT_FOR);
    struct span word = parse_span(p, parse_now(p));
    s->for_.unroll = parse_accept(p, TOK_UNROLL);
    if (!s->for_.unroll)
        check_place(p, kind, word, "a loop of the program", "a loop of the elaboration is `unroll for`");
    if (!parse_is(p, TOK_FOR)) {
        parse_expect(p, TOK_FOR, "after `unroll`");
        return s;
    }
    parse_next(p);
    s->for_.pattern = parse_pattern(p, "a loop's variable", false);
    parse_expect(p, TOK_IN, "after the loop's variable");
    if (p->failed)
        return s;
    s->for_.iter = parse_range_level(p);
    if (!p->failed && parse_is_word(p, 0, "limit")) {
        struct diagnostic *e =
            parse_complain(p, E_limit_form, parse_span(p, parse_now(p)), "`limit` belongs to `while`");
        diag_help(p->diag, e, "the most that a `for` may run is written `for t in 0..n <= 1000`");
        parse_next(p);
        s->for_.limit = parse_range_level(p);
    } else if (parse_accept(p, TOK_LE)) {
        s->for_.limit = parse_range_level(p);
    }
    s->for_.body = parse_body(p, kind, "to begin the loop's body");
    return s;
}

static struct ast_stmt *while_statement(struct parser *p, enum body_kind kind) {
    struct ast_stmt *s = new_stmt(p, STMT_WHILE);
    check_place(p, kind, parse_span(p, parse_now(p)), "`while`", NULL);
    parse_next(p);
    s->while_.cond = parse_expr(p);
    if (!p->failed && parse_is_word(p, 0, "limit")) {
        parse_next(p);
        s->while_.limit = parse_range_level(p);
    }
    s->while_.body = parse_body(p, kind, "to begin the loop's body");
    return s;
}

static struct ast_stmt *return_statement(struct parser *p, enum body_kind kind) {
    struct ast_stmt *s = new_stmt(p, STMT_RETURN);
    check_place(p, kind, parse_span(p, parse_now(p)), "`return`", NULL);
    parse_next(p);
    if (!at_statement_end(p))
        s->ret.count = parse_expr_list(p, &s->ret.values);
    return s;
}

static struct ast_stmt *assert_statement(struct parser *p) {
    struct ast_stmt *s = new_stmt(p, STMT_ASSERT);
    parse_next(p);
    s->assert_.cond = parse_expr(p);
    if (parse_accept(p, TOK_COMMA))
        s->assert_.message = parse_expr(p);
    return s;
}

/* ---- assignments and calls ---- */

static bool assignment_op(enum token_kind kind, enum binary_op *op) {
    switch (kind) {
    case TOK_ADD_ASSIGN: *op = BIN_ADD; return true;
    case TOK_SUB_ASSIGN: *op = BIN_SUB; return true;
    case TOK_MUL_ASSIGN: *op = BIN_MUL; return true;
    case TOK_DIV_ASSIGN: *op = BIN_DIV; return true;
    case TOK_MOD_ASSIGN: *op = BIN_MOD; return true;
    case TOK_POW_ASSIGN: *op = BIN_POW; return true;
    case TOK_MATMUL_ASSIGN: *op = BIN_MATMUL; return true;
    case TOK_AND_ASSIGN: *op = BIN_BITAND; return true;
    case TOK_OR_ASSIGN: *op = BIN_BITOR; return true;
    case TOK_XOR_ASSIGN: *op = BIN_BITXOR; return true;
    case TOK_SHL_ASSIGN: *op = BIN_SHL; return true;
    case TOK_SHR_ASSIGN: *op = BIN_SHR; return true;
    default: return false;
    }
}

static void check_target(struct parser *p, const struct ast_expr *target) {
    if (target->kind == EXPR_NAME || target->kind == EXPR_INDEX || target->kind == EXPR_MEMBER ||
        target->kind == EXPR_ERROR)
        return;
    struct diagnostic *e = parse_complain(p, E_assignment_target, target->span, "this cannot be assigned to");
    diag_help(p->diag, e, "a target is a name, an element `x[i]` or a member `net.weight`");
}

static void assignment(struct parser *p, struct ast_stmt *s, enum body_kind kind) {
    const struct token *sign = parse_next(p);
    s->kind = STMT_ASSIGN;
    s->assign.has_op = sign->kind != TOK_ASSIGN && sign->kind != TOK_COLON_ASSIGN;
    if (s->assign.has_op)
        assignment_op(sign->kind, &s->assign.op);
    if (sign->kind == TOK_COLON_ASSIGN) {
        struct diagnostic *e = parse_complain(p, E_foreign_operator, parse_span(p, sign), "there is no operator `:=`");
        diag_help(p->diag, e, "a new name is declared with `let` or `var`, an old one assigned with `=`");
    }
    bool names = !s->assign.has_op;
    for (int i = 0; i < s->assign.count; i++) {
        const struct ast_expr *target = s->assign.targets[i];
        check_target(p, target);
        names = names && (target->kind == EXPR_NAME || target->kind == EXPR_ERROR);
    }
    if (!names)
        check_place(p, kind, s->assign.targets[0]->span, "a write",
                    "a file and a block only give names: `net = Net(10)`");
    if (s->assign.has_op && s->assign.count > 1) {
        struct diagnostic *e = parse_complain(p, E_several_values, parse_span(p, sign), "`%s` takes one target",
                                              token_kind_text(sign->kind));
        diag_help(p->diag, e, "write one statement for each");
    }
    s->assign.value = parse_expr(p);
    if (p->failed)
        return;
    if (parse_is(p, TOK_ASSIGN)) {
        struct diagnostic *e = parse_fail(p, E_unexpected_token, parse_span(p, parse_now(p)),
                                          "an assignment is no value that could be assigned again");
        diag_help(p->diag, e, "write one statement for each name; `==` compares");
    }
}

/* `a, b = c, d` and `let a, b = c, d`. */
static void check_one_value(struct parser *p, struct ast_stmt *s) {
    if (p->failed || !parse_is(p, TOK_COMMA) || parse_now(p)->newline)
        return;
    struct diagnostic *e = parse_fail(p, E_several_values, parse_span(p, parse_now(p)), "one value stands behind `=`");
    diag_help(p->diag, e,
              "several names take apart the results of one call or one list: `a, b = f(x)`, `a, b = [c, d]`");
}

static struct ast_stmt *expression_statement(struct parser *p, enum body_kind kind) {
    struct ast_stmt *s = new_stmt(p, STMT_EXPR);
    VEC(struct ast_expr *) targets = {0};
    do
        VEC_PUSH(p->arena, targets, parse_expr(p));
    while (!p->failed && !parse_now(p)->newline && parse_accept(p, TOK_COMMA));
    if (p->failed)
        return s;
    enum binary_op op;
    const struct token *t = parse_now(p);
    if (!t->newline && (t->kind == TOK_ASSIGN || t->kind == TOK_COLON_ASSIGN || assignment_op(t->kind, &op))) {
        s->assign.targets = targets.at;
        s->assign.count = targets.n;
        assignment(p, s, kind);
        check_one_value(p, s);
        return s;
    }
    s->expr = targets.at[0];
    if (targets.n == 1 && s->expr->kind == EXPR_CALL) {
        check_place(p, kind, s->expr->span, "a call for its effect", "an instance gets a name: `net = Net(10)`");
        return s;
    }
    if (!at_statement_end(p)) /* two words side by side: the caller says so */
        return s;
    struct diagnostic *e =
        parse_complain(p, E_useless_expression, span_join(s->expr->span, targets.at[targets.n - 1]->span),
                       "an expression alone does nothing");
    if (s->expr->kind == EXPR_BINARY && s->expr->binary.op == BIN_EQ)
        diag_help(p->diag, e, "`=` assigns, `==` compares");
    else if (s->expr->kind == EXPR_UNARY)
        diag_help(p->diag, e, "a line ends its statement; to go on, put the operator at the end of the line before");
    else
        diag_help(p->diag, e, "give the value a name with `let`, or return it");
    s->kind = STMT_ERROR;
    return s;
}

static struct ast_stmt *statement(struct parser *p, enum body_kind kind) {
    const struct token *t = parse_now(p);
    struct ast_stmt *s;
    if (parse_at_declaration(p)) {
        s = new_stmt(p, STMT_DECL);
        s->decl = parse_declaration(p, kind);
        if (!s->decl)
            s->kind = STMT_ERROR;
        return s;
    }
    switch (t->kind) {
    case TOK_LET:
    case TOK_VAR:
        s = let_statement(p, kind);
        check_one_value(p, s);
        return s;
    case TOK_IF: return if_statement(p, kind);
    case TOK_FOR:
    case TOK_UNROLL: return for_statement(p, kind);
    case TOK_WHILE: return while_statement(p, kind);
    case TOK_RETURN: return return_statement(p, kind);
    case TOK_ASSERT: return assert_statement(p);
    case TOK_ELSE:
        parse_fail(p, E_else_without_if, parse_span(p, t), "`else` without an `if` or an index before it");
        return new_stmt(p, STMT_ERROR);
    case TOK_LBRACE: {
        struct diagnostic *e =
            parse_fail(p, E_unexpected_token, parse_span(p, t), "a body without a statement before it");
        diag_help(p->diag, e, "remove the braces, or put the `{` on the line of its `if`, `for` or `fn`");
        return new_stmt(p, STMT_ERROR);
    }
    default: break;
    }
    if (parse_is_word(p, 0, "checkpoint") && parse_peek(p, 1)->kind == TOK_LBRACE) {
        s = new_stmt(p, STMT_CHECKPOINT);
        check_place(p, kind, parse_span(p, t), "`checkpoint`", NULL);
        parse_next(p);
        s->body = parse_body(p, kind, "behind `checkpoint`");
        return s;
    }
    if (parse_is_word(p, 0, "gradient") && parse_peek(p, 1)->kind == TOK_LPAREN &&
        p->tokens[parse_peek(p, 1)->match + 1].kind == TOK_LBRACE) {
        struct diagnostic *e = parse_fail(p, E_gradient_clause, parse_span(p, t), "a gradient without its function");
        diag_help(p->diag, e, "`gradient(…) { … }` follows the body of the function whose gradient it is");
        return new_stmt(p, STMT_ERROR);
    }
    if (foreign_statement(p))
        return new_stmt(p, STMT_ERROR);
    return expression_statement(p, kind);
}

/* Two statements on a line without a `;`, or a word that the expression before it could not take. */
static void expected_end(struct parser *p, const struct ast_stmt *s) {
    const struct token *t = parse_now(p);
    if (t->kind == TOK_RPAREN || t->kind == TOK_RBRACKET) {
        parse_fail(p, E_unexpected_token, parse_span(p, t), "unexpected %s", parse_seen(p));
        return;
    }
    if (parse_is_word(p, 0, "elif") || parse_is_word(p, 0, "elseif")) {
        foreign_statement(p);
        return;
    }
    struct diagnostic *e =
        parse_fail(p, E_end_of_statement, parse_span(p, t), "expected the end of the statement, saw %s", parse_seen(p));
    const struct token *last = p->at > 0 ? t - 1 : t;
    if (s->kind == STMT_EXPR && s->expr && s->expr->kind == EXPR_NAME && t->kind == TOK_COLON)
        diag_help(p->diag, e, "a variable with a type is declared with `var %s: f32 = …`", s->expr->string);
    else if (s->kind == STMT_EXPR && s->expr && s->expr->kind == EXPR_NAME && t->kind == TOK_NAME)
        diag_help(p->diag, e, "a variable is declared with `var %s: %s = …`", t->string, s->expr->string);
    else if (last->kind == TOK_RBRACKET)
        diag_help(p->diag, e, "index notation gives each index a bound: `sum[i < N] x[i]`, `sum[i in a..b] x[i]`");
    else if (last->kind == TOK_INT || last->kind == TOK_FLOAT)
        diag_help(p->diag, e, "a product needs its `*`");
    else
        diag_help(p->diag, e, "statements on one line are separated by `;`");
}

int parse_statements(struct parser *p, enum body_kind kind, int end, struct ast_stmt ***stmts) {
    VEC(struct ast_stmt *) v = {0};
    while (p->at < end && p->errors <= PARSE_ERROR_LIMIT) {
        if (parse_accept(p, TOK_SEMICOLON))
            continue;
        int begin = p->at;
        const char *doc = parse_doc(p, parse_now(p));
        parse_mark(p, MARK_STATEMENT);
        struct ast_stmt *s = statement(p, kind);
        if (!p->failed && p->at < end && !at_statement_end(p))
            expected_end(p, s);
        if (p->failed) {
            s->kind = STMT_ERROR;
            parse_recover(p, begin);
        }
        s->doc = doc;
        s->span = parse_span_from(p, begin);
        VEC_PUSH(p->arena, v, s);
    }
    p->failed = false;
    *stmts = v.at;
    return v.n;
}
