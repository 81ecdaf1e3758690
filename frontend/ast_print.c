/* The tree as text: one node a line, children indented, field names where a node has several kinds of children.
 * Every field of ast.h shows except places, so that two sources print alike exactly when they mean the same program;
 * the formatter checks itself against that. */
#include <inttypes.h>

#include "base/text.h"
#include "frontend/ast.h"

static const char *const binary_names[] = {
    [BIN_ADD] = "+",    [BIN_SUB] = "-",   [BIN_MUL] = "*",  [BIN_DIV] = "/", [BIN_MOD] = "%",    [BIN_POW] = "**",
    [BIN_MATMUL] = "@", [BIN_EQ] = "==",   [BIN_NE] = "!=",  [BIN_LT] = "<",  [BIN_LE] = "<=",    [BIN_GT] = ">",
    [BIN_GE] = ">=",    [BIN_AND] = "and", [BIN_OR] = "or",  [BIN_IN] = "in", [BIN_BITAND] = "&", [BIN_BITOR] = "|",
    [BIN_BITXOR] = "^", [BIN_SHL] = "<<",  [BIN_SHR] = ">>",
};
static const char *const unary_names[] = {[UN_NEG] = "-", [UN_POS] = "+", [UN_NOT] = "not", [UN_BITNOT] = "~"};

static void print_expr(struct text *t, int depth, const char *role, const struct ast_expr *e);
static void print_stmts(struct text *t, int depth, struct ast_stmt *const *stmts, int count);
static void print_decl(struct text *t, int depth, const struct ast_decl *d);

static void indent(struct text *t, int depth) {
    for (int i = 0; i < depth; i++)
        text_add(t, "  ");
}

/* Starts a line: `role: node`. */
static void open_line(struct text *t, int depth, const char *role, const char *node) {
    indent(t, depth);
    if (role)
        text_printf(t, "%s: ", role);
    text_add(t, node);
}

static void quoted(struct text *t, const char *string) {
    text_add(t, "\"");
    for (const char *c = string; *c; c++) {
        if (*c == '\n')
            text_add(t, "\\n");
        else if (*c == '"' || *c == '\\')
            text_printf(t, "\\%c", *c);
        else
            text_addn(t, c, 1);
    }
    text_add(t, "\"");
}

static void doc_line(struct text *t, int depth, const char *doc) {
    if (!doc)
        return;
    open_line(t, depth, NULL, "doc ");
    quoted(t, doc);
    text_add(t, "\n");
}

static void print_args(struct text *t, int depth, const struct ast_arg *args, int count) {
    for (int i = 0; i < count; i++) {
        open_line(t, depth, NULL, args[i].is_inout ? "arg inout" : "arg");
        if (args[i].name)
            text_printf(t, " %s", args[i].name);
        text_add(t, "\n");
        print_expr(t, depth + 1, NULL, args[i].value);
    }
}

static void print_subscript(struct text *t, int depth, const struct ast_subscript *s) {
    switch (s->kind) {
    case SUB_INDEX: print_expr(t, depth, "at", s->index); break;
    case SUB_SPLICE: print_expr(t, depth, "splice", s->index); break;
    case SUB_ELLIPSIS: open_line(t, depth, NULL, "ellipsis\n"); break;
    case SUB_NEWAXIS: open_line(t, depth, NULL, "newaxis\n"); break;
    case SUB_SLICE:
        open_line(t, depth, NULL, "slice\n");
        print_expr(t, depth + 1, "lo", s->lo);
        print_expr(t, depth + 1, "hi", s->hi);
        print_expr(t, depth + 1, "step", s->step);
        break;
    }
}

static void print_pattern(struct text *t, const struct ast_pattern *pattern) {
    text_add(t, pattern->parenthesized ? " (" : " ");
    for (int i = 0; i < pattern->count; i++)
        text_printf(t, "%s%s%s", i ? ", " : "", pattern->names[i].is_inout ? "inout " : "", pattern->names[i].name);
    if (pattern->parenthesized)
        text_add(t, ")");
}

static void print_body(struct text *t, int depth, const char *role, const struct ast_block_body *body) {
    if (!body)
        return;
    open_line(t, depth, NULL, role);
    text_add(t, "\n");
    print_stmts(t, depth + 1, body->stmts, body->count);
}

static void print_expr(struct text *t, int depth, const char *role, const struct ast_expr *e) {
    if (!e)
        return;
    switch (e->kind) {
    case EXPR_INT:
        open_line(t, depth, role, "int ");
        text_printf(t, "%" PRIu64 "\n", (uint64_t)e->integer);
        break;
    case EXPR_FLOAT:
        open_line(t, depth, role, "float ");
        text_printf(t, "%.17g\n", e->number);
        break;
    case EXPR_BOOL: open_line(t, depth, role, e->boolean ? "true\n" : "false\n"); break;
    case EXPR_NONE: open_line(t, depth, role, "none\n"); break;
    case EXPR_STRING:
        open_line(t, depth, role, "string ");
        quoted(t, e->string);
        text_add(t, "\n");
        break;
    case EXPR_NAME:
        open_line(t, depth, role, "name ");
        text_printf(t, "%s\n", e->string);
        break;
    case EXPR_LIST:
        open_line(t, depth, role, "list\n");
        for (int i = 0; i < e->list.count; i++)
            print_expr(t, depth + 1, NULL, e->list.items[i]);
        break;
    case EXPR_LISTCOMP:
        open_line(t, depth, role, "list for");
        print_pattern(t, &e->listcomp.pattern);
        text_add(t, "\n");
        print_expr(t, depth + 1, "value", e->listcomp.value);
        print_expr(t, depth + 1, "in", e->listcomp.iter);
        print_expr(t, depth + 1, "if", e->listcomp.cond);
        break;
    case EXPR_CALL:
        open_line(t, depth, role, "call\n");
        print_expr(t, depth + 1, NULL, e->call.callee);
        print_args(t, depth + 1, e->call.args, e->call.count);
        break;
    case EXPR_INDEX:
        open_line(t, depth, role, "index\n");
        print_expr(t, depth + 1, NULL, e->index.base);
        for (int i = 0; i < e->index.count; i++)
            print_subscript(t, depth + 1, &e->index.subs[i]);
        break;
    case EXPR_MEMBER:
        open_line(t, depth, role, "member ");
        text_printf(t, "%s\n", e->member.name);
        print_expr(t, depth + 1, NULL, e->member.base);
        break;
    case EXPR_UNARY:
        open_line(t, depth, role, "unary ");
        text_printf(t, "%s\n", unary_names[e->unary.op]);
        print_expr(t, depth + 1, NULL, e->unary.arg);
        break;
    case EXPR_BINARY:
        open_line(t, depth, role, "binary ");
        text_printf(t, "%s\n", binary_names[e->binary.op]);
        print_expr(t, depth + 1, NULL, e->binary.left);
        print_expr(t, depth + 1, NULL, e->binary.right);
        break;
    case EXPR_RANGE:
        open_line(t, depth, role, "range\n");
        print_expr(t, depth + 1, NULL, e->range.lo);
        print_expr(t, depth + 1, NULL, e->range.hi);
        break;
    case EXPR_SPLICE:
        open_line(t, depth, role, "splice\n");
        print_expr(t, depth + 1, NULL, e->splice.value);
        break;
    case EXPR_GUARD:
        open_line(t, depth, role, "guard\n");
        print_expr(t, depth + 1, NULL, e->guard.base);
        print_expr(t, depth + 1, "else", e->guard.otherwise);
        break;
    case EXPR_COMPREHENSION:
        open_line(t, depth, role, e->comp.what);
        text_add(t, "\n");
        for (int i = 0; i < e->comp.count; i++) {
            const struct ast_index *index = &e->comp.indices[i];
            open_line(t, depth + 1, NULL, index->is_run ? "indices " : "index ");
            text_printf(t, "%s\n", index->name);
            print_expr(t, depth + 2, index->is_in ? "in" : "below", index->bound);
        }
        print_expr(t, depth + 1, "body", e->comp.body);
        print_body(t, depth + 1, "body", e->comp.block);
        break;
    case EXPR_ERROR: open_line(t, depth, role, "error\n"); break;
    }
}

static void print_stmt(struct text *t, int depth, const struct ast_stmt *s) {
    if (s->kind == STMT_DECL) {
        print_decl(t, depth, s->decl);
        return;
    }
    doc_line(t, depth, s->doc);
    switch (s->kind) {
    case STMT_LET:
    case STMT_VAR:
        open_line(t, depth, NULL, s->kind == STMT_LET ? "let" : "var");
        print_pattern(t, &s->let.names);
        text_add(t, "\n");
        print_expr(t, depth + 1, "type", s->let.type);
        print_expr(t, depth + 1, "value", s->let.value);
        break;
    case STMT_ASSIGN:
        open_line(t, depth, NULL, "assign");
        if (s->assign.has_op)
            text_printf(t, " %s=", binary_names[s->assign.op]);
        text_add(t, "\n");
        for (int i = 0; i < s->assign.count; i++)
            print_expr(t, depth + 1, "to", s->assign.targets[i]);
        print_expr(t, depth + 1, "value", s->assign.value);
        break;
    case STMT_EXPR: print_expr(t, depth, "do", s->expr); break;
    case STMT_FOR:
        open_line(t, depth, NULL, s->for_.unroll ? "unroll for" : "for");
        print_pattern(t, &s->for_.pattern);
        text_add(t, "\n");
        print_expr(t, depth + 1, "in", s->for_.iter);
        print_expr(t, depth + 1, "limit", s->for_.limit);
        print_body(t, depth + 1, "body", s->for_.body);
        break;
    case STMT_WHILE:
        open_line(t, depth, NULL, "while\n");
        print_expr(t, depth + 1, "condition", s->while_.cond);
        print_expr(t, depth + 1, "limit", s->while_.limit);
        print_body(t, depth + 1, "body", s->while_.body);
        break;
    case STMT_IF:
        open_line(t, depth, NULL, "if\n");
        print_expr(t, depth + 1, "condition", s->if_.cond);
        print_body(t, depth + 1, "then", s->if_.then);
        print_body(t, depth + 1, "else", s->if_.otherwise);
        break;
    case STMT_RETURN:
        open_line(t, depth, NULL, "return\n");
        for (int i = 0; i < s->ret.count; i++)
            print_expr(t, depth + 1, NULL, s->ret.values[i]);
        break;
    case STMT_ASSERT:
        open_line(t, depth, NULL, "assert\n");
        print_expr(t, depth + 1, NULL, s->assert_.cond);
        print_expr(t, depth + 1, "message", s->assert_.message);
        break;
    case STMT_CHECKPOINT: print_body(t, depth, "checkpoint", s->body); break;
    case STMT_DECL: break;
    case STMT_ERROR: open_line(t, depth, NULL, "error\n"); break;
    }
}

static void print_stmts(struct text *t, int depth, struct ast_stmt *const *stmts, int count) {
    for (int i = 0; i < count; i++)
        print_stmt(t, depth, stmts[i]);
}

static void print_params(struct text *t, int depth, const struct ast_param *params, int count) {
    for (int i = 0; i < count; i++) {
        open_line(t, depth, NULL, params[i].is_inout ? "parameter inout " : "parameter ");
        text_printf(t, "%s\n", params[i].name);
        print_expr(t, depth + 1, "type", params[i].type);
        print_expr(t, depth + 1, "default", params[i].initial);
    }
}

static void print_fn(struct text *t, int depth, const struct ast_fn *fn) {
    print_params(t, depth, fn->params, fn->param_count);
    for (int i = 0; i < fn->result_count; i++) {
        open_line(t, depth, NULL, "result");
        text_printf(t, "%s%s\n", fn->results[i].name ? " " : "", fn->results[i].name ? fn->results[i].name : "");
        print_expr(t, depth + 1, "type", fn->results[i].type);
    }
    print_body(t, depth, "body", fn->body);
    for (int i = 0; i < fn->value_count; i++)
        print_expr(t, depth, "value", fn->values[i]);
    if (fn->gradient) {
        open_line(t, depth, NULL, "gradient");
        for (int i = 0; i < fn->gradient_count; i++)
            text_printf(t, "%s%s", i ? ", " : " ", fn->gradient_names[i]);
        text_add(t, "\n");
        print_stmts(t, depth + 1, fn->gradient->stmts, fn->gradient->count);
    }
}

static void print_decl(struct text *t, int depth, const struct ast_decl *d) {
    doc_line(t, depth, d->doc);
    for (int i = 0; i < d->annotation_count; i++) {
        open_line(t, depth, NULL, "annotation ");
        text_printf(t, "%s\n", d->annotations[i].name);
        print_args(t, depth + 1, d->annotations[i].args, d->annotations[i].count);
    }
    indent(t, depth);
    switch (d->kind) {
    case DECL_USE:
        text_printf(t, "use %s", d->use.is_file ? "file " : "");
        quoted(t, d->use.path);
        text_printf(t, " as %s\n", d->name);
        break;
    case DECL_CONST:
    case DECL_PARAM:
    case DECL_STATE:
        text_printf(t, "%s %s\n", d->kind == DECL_CONST ? "const" : d->kind == DECL_PARAM ? "param" : "state", d->name);
        print_expr(t, depth + 1, "type", d->variable.type);
        print_expr(t, depth + 1, "value", d->variable.value);
        break;
    case DECL_FN:
        text_printf(t, "%s%s%s%sfn %s\n", d->fn.is_export ? "export " : "", d->fn.is_train ? "train " : "",
                    d->fn.is_incremental ? "incremental " : "", d->fn.is_kernel ? "kernel " : "", d->name);
        print_fn(t, depth + 1, &d->fn);
        break;
    case DECL_BLOCK:
        text_printf(t, "block %s\n", d->name);
        print_params(t, depth + 1, d->block.params, d->block.param_count);
        print_body(t, depth + 1, "body", d->block.body);
        break;
    case DECL_EXTERN:
        text_add(t, "extern ");
        quoted(t, d->name);
        text_add(t, "\n");
        for (int i = 0; i < d->extern_.count; i++)
            print_decl(t, depth + 1, d->extern_.fns[i]);
        break;
    case DECL_TRAIN:
        text_add(t, "train\n");
        print_stmts(t, depth + 1, d->train.settings, d->train.count);
        break;
    }
}

void ast_print(struct text *out, const struct ast_file *file) {
    doc_line(out, 0, file->doc);
    print_stmts(out, 0, file->stmts, file->count);
}
