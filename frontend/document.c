/* `mxcc doc`: a page of Markdown for a file, from its `///` comments and signatures, in the order of the file.
 * Signatures are the author's text up to the body, on one line; a name with a leading `_` is private and left out. */
#include <string.h>

#include "base/text.h"
#include "frontend/ast.h"

/* The source between two places as one line: comments out, runs of blanks to one. */
static void one_line(struct text *t, const struct source *s, uint32_t begin, uint32_t end) {
    bool blank = false, any = false, in_string = false;
    for (uint32_t i = begin; i < end; i++) {
        char c = s->text[i];
        if (!in_string && c == '/' && i + 1 < end && s->text[i + 1] == '/') {
            while (i < end && s->text[i] != '\n')
                i++;
            c = '\n';
        } else if (!in_string && c == '/' && i + 1 < end && s->text[i + 1] == '*') {
            for (i += 2; i + 1 < end && !(s->text[i] == '*' && s->text[i + 1] == '/');)
                i++;
            i++;
            c = ' ';
        }
        if (!in_string && (c == ' ' || c == '\t' || c == '\n' || c == '\r')) {
            blank = any;
            continue;
        }
        if (blank)
            text_add(t, " ");
        blank = false;
        any = true;
        text_addn(t, &c, 1);
        if (in_string && c == '\\' && i + 1 < end)
            text_addn(t, &s->text[++i], 1);
        else if (c == '"')
            in_string = !in_string;
    }
}

/* From the name to the body, without the `{` or `=` that begins it. */
static void signature(struct text *t, const struct source *s, const struct ast_decl *d) {
    uint32_t end = d->span.end;
    if (d->kind == DECL_FN) {
        text_printf(t, "%s%s%s%sfn ", d->fn.is_export ? "export " : "", d->fn.is_train ? "train " : "",
                    d->fn.is_incremental ? "incremental " : "", d->fn.is_kernel ? "kernel " : "");
        if (d->fn.body)
            end = d->fn.body->span.begin;
        else if (d->fn.result_count)
            end = d->fn.results[d->fn.result_count - 1].span.end;
        else if (d->fn.value_count)
            end = d->fn.values[0]->span.begin;
        /* Results in parentheses: their `)` belongs to the signature. */
        if (!d->fn.body && d->fn.result_count && d->fn.value_count) {
            uint32_t limit = d->fn.values[0]->span.begin;
            for (uint32_t i = end; i < limit && s->text[i] != '='; i++)
                if (s->text[i] == ')')
                    end = i + 1;
        }
    } else if (d->kind == DECL_BLOCK) {
        text_add(t, "block ");
        if (d->block.body)
            end = d->block.body->span.begin;
    } else {
        text_add(t, d->kind == DECL_CONST ? "const " : d->kind == DECL_PARAM ? "param " : "state ");
    }
    bool strip = d->kind == DECL_FN && !d->fn.body && !d->fn.result_count;
    while (end > d->name_span.begin && strchr(" \t\r\n", s->text[end - 1]))
        end--;
    if (strip && end > d->name_span.begin && s->text[end - 1] == '=')
        end--;
    one_line(t, s, d->name_span.begin, end);
}

static void code(struct text *t, const struct source *s, const struct ast_decl *d) {
    text_add(t, "```mxl\n");
    signature(t, s, d);
    text_add(t, "\n```\n\n");
}

static void doc(struct text *t, const char *text) {
    if (text)
        text_printf(t, "%s\n\n", text);
}

static void annotations(struct text *t, const struct source *s, const struct ast_decl *d) {
    for (int i = 0; i < d->annotation_count; i++) {
        text_add(t, "`");
        one_line(t, s, d->annotations[i].span.begin, d->annotations[i].span.end);
        text_add(t, "`\n\n");
    }
}

static void function(struct text *t, const struct source *s, const struct ast_decl *d, const char *level) {
    text_printf(t, "%s `%s`\n\n", level, d->name);
    code(t, s, d);
    doc(t, d->doc);
    annotations(t, s, d);
    if (d->fn.gradient)
        text_add(t, "Gives its own gradient.\n\n");
}

/* Buffers and functions of a block, also those under a static `if`. */
static void members(struct text *t, const struct source *s, const struct ast_block_body *body, bool functions) {
    for (int i = 0; body && i < body->count; i++) {
        const struct ast_stmt *stmt = body->stmts[i];
        if (stmt->kind == STMT_IF) {
            members(t, s, stmt->if_.then, functions);
            members(t, s, stmt->if_.otherwise, functions);
        }
        if (stmt->kind != STMT_DECL || stmt->decl->name == NULL || stmt->decl->name[0] == '_')
            continue;
        const struct ast_decl *d = stmt->decl;
        if (functions && d->kind == DECL_FN) {
            function(t, s, d, "###");
        } else if (!functions && (d->kind == DECL_PARAM || d->kind == DECL_STATE)) {
            text_add(t, "- `");
            signature(t, s, d);
            text_add(t, d->doc ? "`: " : "`");
            for (const char *c = d->doc; c && *c; c++)
                text_addn(t, *c == '\n' ? " " : c, 1);
            text_add(t, "\n");
        }
    }
}

static void declaration(struct text *t, const struct source *s, const struct ast_decl *d) {
    if (d->kind == DECL_EXTERN) {
        for (int i = 0; i < d->extern_.count; i++)
            declaration(t, s, d->extern_.fns[i]);
        return;
    }
    if (!d->name || d->name[0] == '_')
        return;
    if (d->kind == DECL_FN) {
        function(t, s, d, "##");
    } else if (d->kind == DECL_BLOCK) {
        text_printf(t, "## `%s`\n\n", d->name);
        code(t, s, d);
        doc(t, d->doc);
        annotations(t, s, d);
        size_t before = t->length;
        members(t, s, d->block.body, false);
        if (t->length > before)
            text_add(t, "\n");
        members(t, s, d->block.body, true);
    } else if (d->kind == DECL_CONST || d->kind == DECL_PARAM || d->kind == DECL_STATE) {
        text_printf(t, "## `%s`\n\n", d->name);
        code(t, s, d);
        doc(t, d->doc);
    }
}

void document_file(struct text *out, const struct ast_file *file) {
    const char *path = file->source->path, *slash = strrchr(path, '/');
    const char *stem = slash ? slash + 1 : path, *dot = strrchr(stem, '.');
    text_printf(out, "# %.*s\n\n", dot && dot > stem ? (int)(dot - stem) : (int)strlen(stem), stem);
    doc(out, file->doc);
    for (int i = 0; i < file->count; i++) {
        const struct ast_stmt *s = file->stmts[i];
        if (s->kind == STMT_DECL) {
            declaration(out, file->source, s->decl);
        } else if (s->kind == STMT_ASSIGN && s->doc && s->assign.count == 1 &&
                   s->assign.targets[0]->kind == EXPR_NAME) {
            text_printf(out, "## `%s`\n\n", s->assign.targets[0]->string); /* an instance */
            text_add(out, "```mxl\n");
            one_line(out, file->source, s->span.begin, s->span.end);
            text_add(out, "\n```\n\n");
            doc(out, s->doc);
        }
    }
    while (out->length > 1 && out->data[out->length - 1] == '\n' && out->data[out->length - 2] == '\n')
        out->data[--out->length] = 0;
}
