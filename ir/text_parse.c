/* Reads the text form of the IR: modules, buffers, functions, operations, settings. The grammar is in docs/ir.md.
 *
 * A recursive descent, one token ahead, that stops at the first error: IR text is written by machines, and what follows an
 * error in it is seldom meaningful. Types, scopes and the like are left to ir_verify; what is checked here is what is
 * needed to build the data structure at all. Values keep the numbers they are written with.
 */
#include <string.h>

#include "ir/text.h"
#include "ir/text_read.h"

/* ---- functions -------------------------------------------------------------------------------------------------- */

static void read_arguments(struct reader *r) {
    struct arena *arena = &r->module->arena;
    struct value_list args = {0};
    VEC(const char *) names = {0};
    VEC(bool) inouts = {0};
    read_expect(r, "(");
    while (!r->failed && !read_at(r, ")")) {
        bool is_inout = read_at_word(r, "inout");
        const char *name = read_optional_name(r, "the name of an argument");
        if (is_inout && !read_at(r, "=")) /* else an argument of that name */
            name = read_optional_name(r, "the name of an argument");
        else
            is_inout = false;
        read_expect(r, "=");
        struct ir_value *v = read_definition(r);
        if (!v)
            break;
        v->region = r->func->body;
        v->index = args.n;
        read_define(r, v);
        VEC_PUSH(&r->scratch, args, v);
        VEC_PUSH(&r->scratch, names, name);
        VEC_PUSH(&r->scratch, inouts, is_inout);
        if (!read_accept(r, ","))
            break;
    }
    read_expect(r, ")");
    r->func->body->args = read_keep_values(r, &args);
    r->func->body->arg_count = args.n;
    r->func->arg_names = arena_copy(arena, names.at, sizeof *names.at * (size_t)names.n);
    r->func->arg_inout = arena_copy(arena, inouts.at, sizeof *inouts.at * (size_t)inouts.n);
}

static void read_results(struct reader *r) {
    struct ir_func *f = r->func;
    struct arena *arena = &r->module->arena;
    VEC(const char *) names = {0};
    if (read_accept(r, "->")) {
        read_expect(r, "(");
        do {
            VEC_PUSH(&r->scratch, names, read_optional_name(r, "the name of a result"));
        } while (read_accept(r, ","));
        read_expect(r, ")");
    }
    f->result_names = arena_copy(arena, names.at, sizeof *names.at * (size_t)names.n);
    f->result_count = names.n;
}

/* `where K = dimension <= 100`; behind the body, whose `dim` operations may bind the dimension's symbols. */
static void read_result_symbols(struct reader *r) {
    struct result_symbol {
        const char *name;
        ir_dim value;
        int64_t hi;
    };
    struct ir_func *f = r->func;
    VEC(struct result_symbol) found = {0};
    do {
        struct result_symbol s = {.name = read_name(r, "the name of a dimension")};
        read_expect(r, "=");
        s.value = read_dim(r);
        read_expect(r, "<=");
        s.hi = read_int(r);
        VEC_PUSH(&r->scratch, found, s);
    } while (read_accept(r, ","));
    f->result_symbols = arena_alloc(&r->module->arena, sizeof *f->result_symbols * (size_t)found.n);
    for (int i = 0; i < found.n; i++) {
        f->result_symbols[i].name = found.at[i].name;
        f->result_symbols[i].value = found.at[i].value;
        f->result_symbols[i].hi = found.at[i].hi;
    }
    f->result_symbol_count = found.n;
}

static void read_func(struct reader *r) {
    struct ir_module *m = r->module;
    struct span span = r->lex.token.span;
    const char *doc = read_accept_word(r, "doc") ? read_string(r, "documentation") : NULL;
    bool init = read_accept_word(r, "init"), is_export = read_accept_word(r, "export");
    bool is_train = read_accept_word(r, "train"), is_incremental = read_accept_word(r, "incremental");
    bool uses_random = read_accept_word(r, "random");
    read_expect_word(r, "func");
    const char *name = read_name(r, "the name of a function");
    for (int i = 0; i < m->func_count; i++)
        if (!strcmp(m->funcs[i]->name, name))
            read_repeated(r, name);
    if (init && m->init)
        read_fail(r, "expected one init function");
    struct ir_func *f = r->func = ir_func_new(m, name, span);
    f->doc = doc;
    f->is_export = is_export;
    f->is_train = is_train;
    f->is_incremental = is_incremental;
    f->uses_random = uses_random;
    for (int i = 0; i < r->defined.n; i++)
        r->values[r->defined.at[i]] = NULL;
    r->defined.n = r->symbols.n = 0;
    VEC(struct ir_symbol *) symbols = {0};
    if (read_accept(r, "[")) {
        do {
            VEC_PUSH(&r->scratch, symbols, read_symbol(r));
        } while (read_accept(r, ","));
        read_expect(r, "]");
    }
    f->symbols = arena_copy(&m->arena, symbols.at, sizeof *symbols.at * (size_t)symbols.n);
    f->symbol_count = symbols.n;
    read_arguments(r);
    read_results(r);
    read_block(r, f->body, "return", 0);
    if (read_accept_word(r, "where"))
        read_result_symbols(r);
    if (r->failed)
        return;
    if (init)
        m->init = f;
    else
        ir_module_add_func(m, f);
}

/* ---- settings and modules --------------------------------------------------------------------------------------- */

static const struct ir_setting_value *read_setting(struct reader *r);

/* Values up to `end`; for calls, names before `=`. */
static void read_setting_list(struct reader *r, struct ir_setting_value *v, const char *end, bool named) {
    VEC(const struct ir_setting_value *) args = {0};
    VEC(const char *) names = {0};
    while (!r->failed && !read_at(r, end)) {
        const char *name = NULL;
        if (named && (r->lex.token.kind == TOKEN_WORD || r->lex.token.kind == TOKEN_STRING)) {
            struct ir_lexer saved = r->lex;
            name = read_name(r, "a name");
            if (!read_accept(r, "=")) {
                r->lex = r->failed ? r->lex : saved;
                name = NULL;
            }
        }
        const struct ir_setting_value *arg = read_setting(r);
        VEC_PUSH(&r->scratch, args, arg);
        VEC_PUSH(&r->scratch, names, name);
        if (!read_accept(r, ","))
            break;
    }
    read_expect(r, end);
    v->count = args.n;
    v->args = arena_copy(&r->module->arena, args.at, sizeof *args.at * (size_t)args.n);
    if (named)
        v->names = arena_copy(&r->module->arena, names.at, sizeof *names.at * (size_t)names.n);
}

static const struct ir_setting_value *read_setting(struct reader *r) {
    struct ir_setting_value *v = ARENA_NEW(&r->module->arena, struct ir_setting_value);
    v->span = r->lex.token.span;
    v->kind = SET_NONE;
    if (!read_enter(r))
        return v;
    const struct ir_token *t = &r->lex.token;
    if (t->kind == TOKEN_STRING) {
        v->kind = SET_STRING;
        v->s = read_string(r, "a text");
    } else if (read_accept(r, "@")) {
        v->kind = SET_NAME;
        v->s = read_name(r, "a name");
        if (read_accept(r, "(")) {
            v->kind = SET_CALL;
            read_setting_list(r, v, ")", true);
        }
    } else if (read_accept_word(r, "op")) {
        v->kind = SET_BINARY;
        read_expect(r, "(");
        v->s = read_string(r, "an operator");
        read_expect(r, ",");
        read_setting_list(r, v, ")", false);
        if (!r->failed && v->count != 2)
            read_fail(r, "expected two operands");
    } else if (read_accept(r, "[")) {
        v->kind = SET_LIST;
        read_setting_list(r, v, "]", false);
    } else if (read_at_word(r, "true") || read_at_word(r, "false")) {
        v->kind = SET_BOOL;
        v->i = read_at_word(r, "true");
        read_next(r);
    } else if (!read_accept_word(r, "none")) {
        struct ir_lexer saved = r->lex;
        bool negative = read_accept(r, "-");
        bool integer = r->lex.token.kind == TOKEN_NUMBER && r->lex.token.is_integer &&
                       r->lex.token.integer <= (uint64_t)INT64_MAX + negative;
        r->lex = r->failed ? r->lex : saved;
        v->kind = integer ? SET_INT : SET_FLOAT;
        if (integer)
            v->i = read_int(r);
        else
            read_element(r, F64, &v->f);
    }
    read_leave(r);
    return v;
}

static void read_train(struct reader *r) {
    struct ir_module *m = r->module;
    VEC(struct ir_setting) settings = {0};
    if (m->settings)
        read_fail(r, "expected one train block");
    if (r->lex.token.kind == TOKEN_STRING)
        m->train_dir = read_string(r, "a directory");
    read_expect(r, "{");
    while (!r->failed && !read_at(r, "}")) {
        struct ir_setting s = {.span = r->lex.token.span};
        s.key = read_name(r, "a setting");
        read_expect(r, "=");
        s.value = read_setting(r);
        VEC_PUSH(&r->scratch, settings, s);
    }
    read_expect(r, "}");
    m->settings = arena_copy(&m->arena, settings.at, sizeof *settings.at * (size_t)settings.n);
    m->setting_count = settings.n;
}

static void read_buffer_declaration(struct reader *r, enum buffer_kind kind) {
    struct span span = r->lex.token.span;
    read_expect(r, "@");
    const char *name = read_name(r, "the name of a buffer");
    for (int i = 0; i < r->module->buffer_count; i++)
        if (!strcmp(r->module->buffers[i]->name, name))
            read_repeated(r, name);
    read_expect(r, ":");
    struct ir_type t = read_type(r);
    if (!r->failed)
        ir_buffer_new(r->module, name, kind, t, span);
}

struct ir_module *ir_parse(struct diag *d, const struct source *source) {
    struct reader r = {.diag = d};
    r.lex.source = source;
    r.lex.arena = &r.scratch;
    r.module = ir_module_new(d, "");
    read_next(&r);
    read_expect_word(&r, "module");
    r.module->name = read_string(&r, "the module's name");
    while (!r.failed && r.lex.token.kind != TOKEN_END) {
        struct ir_lexer saved = r.lex;
        if (read_accept_word(&r, "param")) {
            read_buffer_declaration(&r, BUFFER_PARAM);
        } else if (read_accept_word(&r, "state")) {
            read_buffer_declaration(&r, BUFFER_STATE);
        } else if (read_accept_word(&r, "train") && (read_at(&r, "{") || r.lex.token.kind == TOKEN_STRING)) {
            read_train(&r);
        } else if (!r.failed) {
            r.lex = saved;
            read_func(&r);
        }
    }
    arena_free(&r.scratch);
    if (!r.failed)
        return r.module;
    ir_module_free(r.module);
    return NULL;
}
