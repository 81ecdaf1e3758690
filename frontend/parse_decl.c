/* Declarations. `block param state train kernel incremental` are names like any other except at the start of one. */
#include <string.h>

#include "frontend/parse.h"

/* At `word` followed, on the same line, by a word of kind `next`. */
static bool word_then(const struct parser *p, const char *word, enum token_kind next) {
    const struct token *second = parse_peek(p, 1);
    return parse_is_word(p, 0, word) && second->kind == next && !second->newline;
}

static bool at_modifier(const struct parser *p) {
    static const char *const words[] = {"train", "incremental", "kernel"};
    const struct token *second = parse_peek(p, 1);
    if (parse_is(p, TOK_EXPORT))
        return true;
    for (int i = 0; i < 3; i++)
        if (parse_is_word(p, 0, words[i]) && !second->newline) {
            if (second->kind == TOK_FN || second->kind == TOK_EXPORT)
                return true;
            for (int k = 0; k < 3; k++)
                if (parse_is_word(p, 1, words[k]) &&
                    (parse_peek(p, 2)->kind == TOK_FN || parse_peek(p, 2)->kind == TOK_NAME))
                    return true;
        }
    return false;
}

bool parse_at_declaration(const struct parser *p) {
    switch (parse_now(p)->kind) {
    case TOK_USE:
    case TOK_CONST:
    case TOK_FN:
    case TOK_EXPORT:
    case TOK_EXTERN:
    case TOK_MATMUL: return true;
    default: break;
    }
    return word_then(p, "block", TOK_NAME) || word_then(p, "param", TOK_NAME) || word_then(p, "state", TOK_NAME) ||
           word_then(p, "train", TOK_LBRACE) || at_modifier(p);
}

/* ---- parts of functions ---- */

static struct ast_param parameter(struct parser *p) {
    int begin = p->at;
    struct ast_param param = {.is_inout = parse_accept(p, TOK_INOUT)};
    const struct token *name = parse_name(p, "a parameter");
    param.name = name ? name->string : "_";
    if (!p->failed && parse_is(p, TOK_NAME)) {
        struct diagnostic *e =
            parse_fail(p, E_unexpected_token, parse_span(p, parse_now(p)),
                       "expected `:`, `=`, `,` or `)` after the parameter `%s`, saw %s", param.name, parse_seen(p));
        diag_help(p->diag, e, "the type follows the name: `%s: %s`", parse_now(p)->string, param.name);
    }
    if (parse_accept(p, TOK_COLON))
        param.type = parse_type(p);
    if (parse_accept(p, TOK_ASSIGN))
        param.initial = parse_expr(p);
    param.span = parse_span_from(p, begin);
    return param;
}

static int parameters(struct parser *p, const char *where, struct ast_param **params) {
    VEC(struct ast_param) v = {0};
    parse_expect(p, TOK_LPAREN, where);
    while (!p->failed && !parse_is(p, TOK_RPAREN)) {
        struct ast_param param = parameter(p);
        VEC_PUSH(p->arena, v, param);
        if (!parse_is(p, TOK_RPAREN))
            parse_expect(p, TOK_COMMA, "or `)` after a parameter");
    }
    parse_expect(p, TOK_RPAREN, "after the parameters");
    *params = v.at;
    return v.n;
}

static struct ast_result result(struct parser *p, bool in_list) {
    int begin = p->at;
    struct ast_result r = {0};
    if (parse_is(p, TOK_NAME) && parse_peek(p, 1)->kind == TOK_COLON) {
        r.name = parse_next(p)->string;
        parse_next(p);
        if (!in_list) {
            struct diagnostic *e =
                parse_complain(p, E_results, parse_span_from(p, begin), "a named result stands in parentheses");
            diag_help(p->diag, e, "write `-> (%s: …)`", r.name);
        }
    }
    r.type = parse_type(p);
    r.span = parse_span_from(p, begin);
    return r;
}

/* Behind `->`: a type, or `(a: T, b: T)`. */
static void results(struct parser *p, struct ast_fn *fn) {
    VEC(struct ast_result) v = {0};
    fn->has_results = true;
    const struct token *open = parse_now(p);
    if (open->kind != TOK_LPAREN) {
        struct ast_result r = result(p, false);
        VEC_PUSH(p->arena, v, r);
        if (!p->failed && parse_is(p, TOK_COMMA)) {
            struct diagnostic *e =
                parse_fail(p, E_results, parse_span(p, parse_now(p)), "several results stand in parentheses");
            diag_help(p->diag, e, "write `-> (a: T, b: T)`");
        }
    } else {
        parse_next(p);
        if (parse_is(p, TOK_RPAREN)) {
            struct diagnostic *e =
                parse_complain(p, E_results, parse_span(p, open), "no results between the parentheses");
            diag_help(p->diag, e, "a function without results has no `->`");
        }
        while (!p->failed && !parse_is(p, TOK_RPAREN)) {
            struct ast_result r = result(p, true);
            if (v.n && !p->failed && !r.name != !v.at[0].name)
                parse_complain(p, E_results, r.span, "either all results have names or none");
            VEC_PUSH(p->arena, v, r);
            if (!parse_is(p, TOK_RPAREN))
                parse_expect(p, TOK_COMMA, "or `)` after a result");
        }
        parse_expect(p, TOK_RPAREN, "after the results");
    }
    fn->results = v.at;
    fn->result_count = v.n;
}

static void gradient_clause(struct parser *p, struct ast_fn *fn) {
    int begin = p->at;
    parse_mark(p, MARK_LINE);
    parse_next(p);
    parse_next(p);
    VEC(const char *) names = {0};
    while (!p->failed && !parse_is(p, TOK_RPAREN)) {
        const struct token *t = parse_name(p, "an argument of the gradient");
        if (t)
            VEC_PUSH(p->arena, names, t->string);
        if (!p->failed && parse_is(p, TOK_COLON)) {
            struct diagnostic *e = parse_fail(p, E_gradient_clause, parse_span(p, parse_now(p)),
                                              "the arguments of a gradient have no types");
            diag_help(p->diag, e,
                      "they are, by position, the tensor parameters, the results and the results' gradients");
        }
        if (!parse_is(p, TOK_RPAREN))
            parse_expect(p, TOK_COMMA, "or `)` after a name");
    }
    parse_expect(p, TOK_RPAREN, "after the gradient's arguments");
    fn->gradient_names = names.at ? names.at : ARENA_ARRAY(p->arena, const char *, 1);
    fn->gradient_count = names.n;
    fn->gradient = parse_body(p, BODY_FN, "to begin the gradient's body");
    fn->gradient_span = parse_span_from(p, begin);
}

static void function(struct parser *p, struct ast_decl *d, bool is_extern) {
    struct ast_fn *fn = &d->fn;
    d->kind = DECL_FN;
    parse_expect(p, TOK_FN, "to begin a function");
    const struct token *name = parse_name(p, "a function");
    if (!name)
        return;
    d->name = name->string;
    d->name_span = parse_span(p, name);
    fn->param_count = parameters(p, "after the function's name", &fn->params);
    if (parse_accept(p, TOK_ARROW))
        results(p, fn);
    if (p->failed)
        return;
    const struct token *t = parse_now(p);
    if (t->kind == TOK_ASSIGN && !t->newline) {
        parse_next(p);
        fn->value_count = parse_expr_list(p, &fn->values);
        if (is_extern && !p->failed && (fn->value_count > 1 || fn->values[0]->kind != EXPR_CALL)) {
            struct diagnostic *e =
                parse_fail(p, E_fn_body, fn->values[0]->span, "expected the call of a C function for `%s`", d->name);
            diag_help(p->diag, e, "write `fn %s(…) -> T = c_function(x, N, result)`", d->name);
        }
    } else if (is_extern) {
        struct diagnostic *e =
            parse_fail(p, E_fn_body, d->name_span, "expected `=` and the call of C for `%s`", d->name);
        diag_help(p->diag, e, "write `fn %s(…) -> T = c_function(x, N, result)`", d->name);
    } else if (t->kind == TOK_LBRACE) {
        bool reported = p->nested_reported;
        p->nested_reported = false;
        fn->body = parse_body(p, BODY_FN, "to begin the function's body");
        p->nested_reported = reported;
    } else {
        struct diagnostic *e = parse_fail(p, E_fn_body, parse_surprise(p),
                                          "expected `{` or `=` for the body of `%s`, saw %s", d->name, parse_seen(p));
        if (t->kind == TOK_COLON)
            diag_help(p->diag, e, "a result's type follows `->`, a body stands in braces");
        if (t->kind == TOK_ASSIGN)
            diag_help(p->diag, e, "put the `=` behind the `)` or the result type; the line may end after it");
    }
    if (!p->failed && parse_is_word(p, 0, "gradient") && parse_peek(p, 1)->kind == TOK_LPAREN)
        gradient_clause(p, fn);
}

/* ---- the other declarations ---- */

static void block(struct parser *p, struct ast_decl *d) {
    d->kind = DECL_BLOCK;
    parse_next(p);
    const struct token *name = parse_name(p, "a block");
    if (!name)
        return;
    d->name = name->string;
    d->name_span = parse_span(p, name);
    if (parse_is(p, TOK_LBRACE)) {
        struct diagnostic *e = parse_complain(p, E_unexpected_token, parse_span(p, parse_now(p)),
                                              "expected the parameters of the block `%s`", d->name);
        diag_help(p->diag, e, "write `block %s() {`", d->name);
    } else {
        d->block.param_count = parameters(p, "after the block's name", &d->block.params);
    }
    d->block.body = parse_body(p, BODY_BLOCK, "to begin the block's body");
}

static void use(struct parser *p, struct ast_decl *d) {
    d->kind = DECL_USE;
    parse_next(p);
    const struct token *t = parse_now(p);
    if (!t->newline && t->kind == TOK_STRING) {
        parse_next(p);
        d->use.is_file = true;
        d->use.path = t->string;
        d->name = "_";
    } else if (!t->newline && t->kind == TOK_NAME) {
        parse_next(p);
        d->use.path = d->name = t->string;
    } else {
        parse_fail(p, E_use, parse_surprise(p), "expected a module or a file name in quotes, saw %s", parse_seen(p));
        return;
    }
    d->name_span = parse_span(p, t);
    if (parse_is_word(p, 0, "as") && !parse_now(p)->newline) {
        parse_next(p);
        const struct token *name = parse_name(p, "the module");
        if (name) {
            d->name = name->string;
            d->name_span = parse_span(p, name);
        }
    } else if (d->use.is_file) {
        struct diagnostic *e = parse_fail(p, E_use, d->name_span, "a file needs a name to be known by");
        diag_help(p->diag, e, "write `use \"%s\" as name`", d->use.path);
    } else if (parse_is(p, TOK_DOT) || parse_is(p, TOK_COMMA)) {
        struct diagnostic *e =
            parse_fail(p, E_use, parse_span(p, parse_now(p)), "`use` takes one module and takes it whole");
        diag_help(p->diag, e, "write `use nn` and `nn.relu(x)`; a second module has its own `use`");
    }
}

static void variable(struct parser *p, struct ast_decl *d, enum decl_kind kind) {
    static const char *const what[] = {
        [DECL_CONST] = "a constant", [DECL_PARAM] = "a parameter", [DECL_STATE] = "a state"};
    d->kind = kind;
    parse_next(p);
    const struct token *name = parse_name(p, what[kind]);
    if (!name)
        return;
    d->name = name->string;
    d->name_span = parse_span(p, name);
    if (parse_accept(p, TOK_COLON)) {
        d->variable.type = parse_type(p);
    } else if (kind != DECL_CONST && !p->failed) {
        struct diagnostic *e = parse_complain(p, E_missing_type, d->name_span, "%s needs a type", what[kind]);
        diag_help(p->diag, e, "write `%s: f32[…]`", d->name);
    }
    if (parse_accept(p, TOK_ASSIGN)) {
        d->variable.value = parse_expr(p);
    } else if (kind == DECL_CONST && !p->failed) {
        parse_fail(p, E_missing_value, parse_surprise(p), "expected `=` and a value for the constant `%s`, saw %s",
                   d->name, parse_seen(p));
    }
}

static int annotations(struct parser *p, struct ast_annotation **list) {
    VEC(struct ast_annotation) v = {0};
    while (!p->failed && parse_is(p, TOK_MATMUL)) {
        int begin = p->at;
        struct ast_annotation a = {0};
        parse_mark(p, MARK_PREFIX);
        parse_next(p);
        const struct token *name = parse_name(p, "an annotation");
        a.name = name ? name->string : "_";
        if (parse_is(p, TOK_LPAREN) && !parse_now(p)->newline && parse_accept(p, TOK_LPAREN))
            a.count = parse_args(p, &a.args);
        a.span = parse_span_from(p, begin);
        parse_mark(p, MARK_LINE);
        VEC_PUSH(p->arena, v, a);
    }
    *list = v.at;
    return v.n;
}

/* `{ fn … }` of an extern. */
static void external(struct parser *p, struct ast_decl *d) {
    d->kind = DECL_EXTERN;
    parse_next(p);
    const struct token *header = parse_now(p);
    if (header->kind != TOK_STRING || header->newline) {
        struct diagnostic *e =
            parse_fail(p, E_extern, parse_surprise(p), "expected the header's name in quotes, saw %s", parse_seen(p));
        diag_help(p->diag, e, "write `extern \"filters.h\" { fn … }`");
        return;
    }
    parse_next(p);
    d->name = header->string;
    d->name_span = parse_span(p, header);
    const struct token *open = parse_expect(p, TOK_LBRACE, "after the header's name");
    if (!open)
        return;
    VEC(struct ast_decl *) fns = {0};
    while (p->at < open->match && p->errors <= PARSE_ERROR_LIMIT) {
        if (parse_accept(p, TOK_SEMICOLON))
            continue;
        int begin = p->at;
        struct ast_decl *f = ARENA_NEW(p->arena, struct ast_decl);
        parse_mark(p, MARK_STATEMENT);
        f->doc = parse_doc(p, parse_now(p));
        f->annotation_count = annotations(p, &f->annotations);
        if (!p->failed && !parse_is(p, TOK_FN)) {
            struct diagnostic *e =
                parse_fail(p, E_extern, parse_span(p, parse_now(p)), "expected `fn`, saw %s", parse_seen(p));
            diag_help(p->diag, e, "an `extern` holds functions of C: `fn name(…) -> T = c_name(…)`");
        } else if (!p->failed) {
            function(p, f, true);
            f->span = parse_span_from(p, begin);
            const struct token *t = parse_now(p);
            if (!p->failed && p->at < open->match && !t->newline && t->kind != TOK_SEMICOLON)
                parse_fail(p, E_end_of_statement, parse_span(p, t), "expected the end of the function, saw %s",
                           parse_seen(p));
            if (!p->failed)
                VEC_PUSH(p->arena, fns, f);
        }
        if (p->failed)
            parse_recover(p, begin);
    }
    p->at = open->match;
    parse_next(p);
    d->extern_.fns = fns.at;
    d->extern_.count = fns.n;
}

static struct ast_stmt *setting(struct parser *p) {
    struct ast_stmt *s = ARENA_NEW(p->arena, struct ast_stmt);
    int begin = p->at;
    parse_mark(p, MARK_STATEMENT);
    s->doc = parse_doc(p, parse_now(p));
    s->kind = STMT_ASSIGN;
    if (!parse_is(p, TOK_NAME) || parse_peek(p, 1)->kind != TOK_ASSIGN) {
        struct diagnostic *e =
            parse_fail(p, E_train_setting, parse_span(p, parse_now(p)), "expected a setting `name = value`");
        diag_help(p->diag, e, "the settings are data, split, batch, epochs, step, evaluate and lr");
        return s;
    }
    const struct token *name = parse_next(p);
    parse_next(p);
    s->assign.targets = ARENA_ARRAY(p->arena, struct ast_expr *, 1);
    s->assign.targets[0] = parse_new_expr(p, EXPR_NAME, parse_span(p, name));
    s->assign.targets[0]->string = name->string;
    s->assign.count = 1;
    s->assign.value = parse_expr(p);
    s->span = parse_span_from(p, begin);
    const struct token *t = parse_now(p);
    if (!p->failed && !t->newline && t->kind != TOK_SEMICOLON && t->kind != TOK_RBRACE)
        parse_fail(p, E_end_of_statement, parse_span(p, t), "expected the end of the setting, saw %s", parse_seen(p));
    return s;
}

static void train(struct parser *p, struct ast_decl *d) {
    d->kind = DECL_TRAIN;
    d->name_span = parse_span(p, parse_next(p));
    const struct token *open = parse_next(p);
    VEC(struct ast_stmt *) settings = {0};
    while (p->at < open->match && p->errors <= PARSE_ERROR_LIMIT) {
        if (parse_accept(p, TOK_SEMICOLON))
            continue;
        int begin = p->at;
        struct ast_stmt *s = setting(p);
        if (p->failed)
            parse_recover(p, begin);
        else
            VEC_PUSH(p->arena, settings, s);
    }
    p->at = open->match;
    parse_next(p);
    d->train.settings = settings.at;
    d->train.count = settings.n;
}

/* ---- which may stand where ---- */

static const char *word_here(struct parser *p) {
    const struct token *t = parse_now(p);
    return arena_strndup(p->arena, p->source->text + t->begin, t->end - t->begin);
}

/* Declarations of functions and blocks inside a function's body, `export` inside any: most likely the body before was
 * not closed. One report a body, and on with the declaration where it stands. */
static bool check_place(struct parser *p, enum body_kind kind) {
    const struct token *t = parse_now(p);
    bool function_like =
        t->kind == TOK_FN || t->kind == TOK_EXPORT || word_then(p, "block", TOK_NAME) || at_modifier(p);
    if (kind == BODY_FILE)
        return true;
    if (kind == BODY_FN && function_like) {
        if (!p->nested_reported) {
            struct diagnostic *e = parse_complain(p, E_unclosed_body, parse_span(p, t),
                                                  "`%s` inside a body that was not closed", word_here(p));
            if (p->body_open)
                diag_note(p->diag, e, parse_span(p, p->body_open), "the body begins here");
            diag_help(p->diag, e,
                      "close the body before it with `}`; functions and blocks do not stand inside functions");
        }
        p->nested_reported = true;
        return false;
    }
    if (kind == BODY_BLOCK && t->kind == TOK_EXPORT) {
        struct diagnostic *e =
            parse_complain(p, E_unclosed_body, parse_span(p, t), "`export` inside a body that was not closed");
        if (p->body_open)
            diag_note(p->diag, e, parse_span(p, p->body_open), "the body begins here");
        diag_help(p->diag, e, "exported functions stand in a file, not in a block");
        return false;
    }
    if (t->kind == TOK_USE || t->kind == TOK_EXTERN || word_then(p, "train", TOK_LBRACE)) {
        parse_complain(p, E_misplaced_declaration, parse_span(p, t), "`%s` stands at the level of the file",
                       word_here(p));
        return false;
    }
    if (kind == BODY_FN && t->kind != TOK_MATMUL && t->kind != TOK_CONST) {
        struct diagnostic *e = parse_complain(p, E_misplaced_declaration, parse_span(p, t),
                                              "`%s` stands in a file or a block, not in a function", word_here(p));
        diag_help(p->diag, e, "a variable of a function is declared with `var`");
        return false;
    }
    return true;
}

static void modifiers(struct parser *p, struct ast_fn *fn) {
    while (!p->failed && (at_modifier(p) || parse_is(p, TOK_EXPORT))) {
        const struct token *t = parse_next(p);
        bool *flag = t->kind == TOK_EXPORT                   ? &fn->is_export
                     : strcmp(t->string, "train") == 0       ? &fn->is_train
                     : strcmp(t->string, "incremental") == 0 ? &fn->is_incremental
                                                             : &fn->is_kernel;
        if (*flag)
            parse_complain(p, E_modifier, parse_span(p, t), "`%.*s` twice", (int)(t->end - t->begin),
                           p->source->text + t->begin);
        *flag = true;
    }
}

struct ast_decl *parse_declaration(struct parser *p, enum body_kind kind) {
    struct ast_decl *d = ARENA_NEW(p->arena, struct ast_decl);
    int begin = p->at;
    d->doc = parse_doc(p, parse_now(p));
    d->annotation_count = annotations(p, &d->annotations);
    if (!p->failed && d->annotation_count && !parse_at_declaration(p)) {
        parse_fail(p, E_annotation, d->annotations[0].span, "an annotation stands above a declaration");
        return NULL;
    }
    if (p->failed)
        return NULL;
    bool allowed = check_place(p, kind);
    bool modified = at_modifier(p);
    struct span modifier = parse_span(p, parse_now(p));
    struct ast_fn flags = {0};
    modifiers(p, &flags);
    if (modified && !p->failed && !parse_is(p, TOK_FN)) {
        struct diagnostic *e =
            parse_fail(p, E_modifier, modifier, "`%.*s` stands before a function, saw %s",
                       (int)(modifier.end - modifier.begin), p->source->text + modifier.begin, parse_seen(p));
        if (flags.is_export)
            diag_help(p->diag, e, "only functions are entries of the generated program: `export fn`");
        return NULL;
    }
    d->fn = flags;
    const struct token *t = parse_now(p);
    switch (t->kind) {
    case TOK_FN: function(p, d, false); break;
    case TOK_USE: use(p, d); break;
    case TOK_CONST: variable(p, d, DECL_CONST); break;
    case TOK_EXTERN: external(p, d); break;
    default:
        if (word_then(p, "block", TOK_NAME))
            block(p, d);
        else if (word_then(p, "param", TOK_NAME))
            variable(p, d, DECL_PARAM);
        else if (word_then(p, "state", TOK_NAME))
            variable(p, d, DECL_STATE);
        else
            train(p, d);
    }
    d->span = parse_span_from(p, begin);
    return allowed && !p->failed ? d : NULL;
}
