/* Files, modules and exported functions: the outermost part of elaboration. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "frontend/elab.h"
#include "stdlib_text.h" /* made by the build: stdlib_text[] of {name, text}, names like "nn/conv.mxl" in order */

/* ---- files ------------------------------------------------------------------------------------------------------------------ */

/* Functions and blocks first: they may be used above their declaration. */
static void bind_declarations(struct elab *e, struct scope *s, const struct ast_file *f) {
    for (int i = 0; i < f->count; i++)
        if (f->stmts[i]->kind == STMT_DECL &&
            (f->stmts[i]->decl->kind == DECL_FN || f->stmts[i]->decl->kind == DECL_BLOCK))
            elab_decl(e, s, f->stmts[i]->decl);
}

static void elab_into(struct elab *e, struct scope *s, const struct ast_file *f) {
    bool in_function = e->in_function;
    e->in_function = false;
    bind_declarations(e, s, f);
    elab_stmts(e, s, f->stmts, f->count);
    e->in_function = in_function;
}

static struct scope *file_scope(struct elab *e, const char *path) {
    struct scope *s = scope_new(e, e->prelude);
    s->path = path;
    return s;
}

static const struct ast_file *parse_text(struct elab *e, const char *path, const char *text, size_t length) {
    const struct source *source = diag_add_source(e->diag, path, text, length);
    int errors = e->diag->errors;
    const struct ast_file *f = parse_file(e->arena, e->diag, source);
    return e->diag->errors > errors ? NULL : f;
}

const char *elab_directory_of(struct elab *e, const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? arena_strndup(e->arena, path, (size_t)(slash - path) + 1) : "";
}

/* All files of a library module: stdlib/NAME.mxl, or stdlib/NAME/…, which share one scope. */
static bool load_library(struct elab *e, struct scope *s, const char *name) {
    const struct ast_file *files[64];
    int n = 0;
    size_t length = strlen(name);
    bool fine = true;
    for (int i = 0; stdlib_text[i].name && n < 64; i++) {
        const char *p = stdlib_text[i].name;
        if (strncmp(p, name, length) != 0 || (strcmp(p + length, ".mxl") != 0 && p[length] != '/'))
            continue;
        char *text = NULL;
        size_t bytes = strlen(stdlib_text[i].text);
        for (int d = 0; e->options->stdlib_dirs && e->options->stdlib_dirs[d] && !text; d++) {
            const char *own = arena_printf(e->arena, "%s/%s", e->options->stdlib_dirs[d], p);
            text = file_read(own, &bytes);
            if (text)
                diag_note_file(e->diag, own);
        }
        files[n] = parse_text(e, arena_printf(e->arena, "<%s>", p), text ? text : stdlib_text[i].text, bytes);
        free(text);
        fine = files[n++] && fine;
    }
    if (n == 0 || !fine)
        return false;
    for (int i = 0; i < n; i++)
        bind_declarations(e, s, files[i]);
    for (int i = 0; i < n; i++)
        elab_into(e, s, files[i]);
    return true;
}

struct scope *elab_use(struct elab *e, const char *path, bool is_file, struct span at) {
    const char *key = path;
    if (is_file) {
        const char *from = at.source ? at.source->path : "";
        key = path[0] == '/' ? path : arena_printf(e->arena, "%s%s", elab_directory_of(e, from), path);
    }
    for (int i = 0; i < e->module_count; i++)
        if (strcmp(e->modules[i].path, key) == 0) {
            if (e->modules[i].loading) {
                elab_error(e, E_import_cycle, at, "`%s` is used by a file that it uses itself", path);
                return NULL;
            }
            return e->modules[i].scope;
        }
    if (e->module_count == (int)(sizeof e->modules / sizeof *e->modules)) {
        elab_error(e, E_unknown_module, at, "more than %d modules", e->module_count);
        return NULL;
    }
    int slot = e->module_count++;
    e->modules[slot].path = key;
    e->modules[slot].loading = true;
    struct scope *s = file_scope(e, key);
    e->modules[slot].scope = s;
    bool fine;
    if (is_file) {
        size_t bytes;
        char *text = file_read(key, &bytes);
        diag_note_file(e->diag, key);
        if (!text) {
            elab_error(e, E_unknown_module, at, "cannot read `%s`", key);
            e->modules[slot].scope = NULL;
            e->modules[slot].loading = false;
            return NULL;
        }
        const struct ast_file *f = parse_text(e, key, text, bytes);
        free(text);
        fine = f != NULL;
        if (f)
            elab_into(e, s, f);
    } else {
        int errors = e->diag->errors;
        fine = load_library(e, s, key);
        if (!fine && e->diag->errors == errors) {
            struct diagnostic *d = elab_error(e, E_unknown_module, at, "there is no module `%s`", path);
            elab_help(e, d, "a file is used by its path: use \"%s.mxl\" as %s", path, path);
        }
    }
    e->modules[slot].loading = false;
    if (!fine)
        e->modules[slot].scope = NULL;
    return fine ? s : NULL;
}

/* ---- functions of the program -------------------------------------------------------------------------------------------------- */

static void start_function(struct elab *e, struct ir_func *f, bool training) {
    e->func = f;
    e->b = (struct ir_builder){.module = e->module, .func = f, .region = f->body, .span = f->span};
    e->in_function = true;
    e->training = training;
    e->frame = NULL;
    e->body = NULL;
    e->returned = false;
    e->indices.n = 0;
    e->slots.n = 0;
    e->lengths.n = 0;
    e->slot_of.n = 0;
    e->touched.n = 0;
    e->replaced.n = 0;
    e->entry_checks.n = 0;
    e->gave_up = false;
    e->depth = 0;
}

/* Final versions of buffers, and the arguments of loops that turned out not to be carried. */
static void finish_function(struct elab *e) {
    struct ir_func *f = e->func;
    for (int i = 0; i < e->touched.n; i++) {
        struct cell *c = e->touched.at[i];
        struct val v = c->value;
        if (v.kind == VAL_TENSOR &&
            !(v.value->op && v.value->op->code == OP_read && v.value->op->buffer.buffer == c->buffer))
            ir_build_write(&e->b, c->buffer, v.value);
        c->value = val_none;
    }
    if (e->replaced.n > 0) {
        struct ir_value **map = ARENA_ARRAY(e->arena, struct ir_value *, f->value_count + 1);
        for (int i = 0; i < e->replaced.n; i++)
            map[e->replaced.at[i].from->id] = e->replaced.at[i].to;
        ir_replace_values(f, map);
    }
    e->in_function = false;
    e->func = NULL;
}

static bool reserved_export(const char *name) {
    static const char *const words[] = {"init",      "size",  "free",     "save",  "load",
                                        "reset_all", "param", "param_at", "error", "options"};
    if (strncmp(name, "mx_", 3) == 0) /* static functions of the generated unit */
        return true;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i], name) == 0)
            return true;
    return false;
}

/* Run-time lengths that only results name: `-> i64[K <= 100, 3]`. */
static void collect_result_symbols(struct elab *e, struct scope *s, const struct ast_fn *fn, struct ir_func *f) {
    struct {
        const char *name;
        const struct ast_expr *bound;
    } found[16];
    int n = 0;
    for (int i = 0; i < fn->result_count; i++) {
        const struct ast_expr *x = fn->results[i].type;
        for (int k = 0; x && x->kind == EXPR_INDEX && k < x->index.count; k++) {
            const struct ast_expr *d = x->index.subs[k].index, *bound = NULL;
            if (!d || x->index.subs[k].kind != SUB_INDEX)
                continue;
            if (d->kind == EXPR_BINARY && d->binary.op == BIN_LE) {
                bound = d->binary.right;
                d = d->binary.left;
            }
            if (d->kind != EXPR_NAME || scope_find(s, d->string))
                continue;
            bool known = false;
            for (int j = 0; j < n; j++)
                if (strcmp(found[j].name, d->string) == 0) {
                    known = true;
                    found[j].bound = found[j].bound ? found[j].bound : bound;
                }
            if (!known && n < 16) {
                found[n].name = d->string;
                found[n++].bound = bound;
            }
        }
    }
    f->result_symbols = arena_alloc(&e->module->arena, sizeof *f->result_symbols * (size_t)(n + 1));
    f->result_symbol_count = n;
    for (int i = 0; i < n; i++) {
        f->result_symbols[i].name = arena_strdup(&e->module->arena, found[i].name);
        f->result_symbols[i].hi = -1;
        if (found[i].bound) {
            struct val v = elab_expr(e, s, found[i].bound);
            if (v.kind == VAL_INT)
                f->result_symbols[i].hi = v.i;
            else if (v.kind != VAL_ERROR)
                elab_error(e, E_dimension, found[i].bound->span,
                           "the largest value of `%s` must be an integer known at compile time", found[i].name);
        }
    }
}

static void bind_result_symbols(struct elab *e, struct scope *s, struct ir_func *f) {
    for (int i = 0; i < f->result_symbol_count; i++) {
        struct binding *b = scope_find_here(s, f->result_symbols[i].name);
        ir_dim d = ir_dim_const(e->module, 0);
        if (b)
            val_as_dim(e, b->value, &d);
        f->result_symbols[i].value = d;
        if (f->result_symbols[i].hi < 0)
            f->result_symbols[i].hi = ir_dim_upper(d);
        else if (ir_dim_upper(d) > f->result_symbols[i].hi)
            elab_require(e,
                         ir_fn2(e->module, FN_le, ir_dim_expr(e->module, d),
                                ir_const_int(e->module, I64, f->result_symbols[i].hi)),
                         f->span, E_dimension,
                         arena_printf(e->arena, "more than %lld results", (long long)f->result_symbols[i].hi));
    }
}

/* The dimensions that nothing bounds, of the parameters that are not done; each is said once. */
static void report_unbound(struct elab *e, struct scope *s, const struct ast_fn *fn, const bool *done) {
    for (int names = 1; names >= 0; names--) /* `f32[N]` is the place to mend, before `f32[2 * N]` */
        for (int i = 0; i < fn->param_count; i++)
            for (int k = 0; !done[i] && fn->params[i].type && k < fn->params[i].type->index.count; k++) {
                const struct ast_expr *d = fn->params[i].type->index.subs[k].index;
                if (!d || (d->kind == EXPR_NAME) != names || !type_has_unbound(e, s, d))
                    continue;
                if (!names) {
                    elab_expr(e, s, d); /* says which name */
                    continue;
                }
                struct diagnostic *x =
                    elab_error(e, E_unbound_dimension, d->span, "the dimension `%s` has no largest value", d->string);
                elab_help(e, x, "memory is planned ahead: write `%s <= 64`, or give --bind %s=64", d->string,
                          d->string);
                scope_bind(e, s, d->string, val_error, d->span);
            }
}

static bool export_params(struct elab *e, struct scope *s, const struct ast_fn *fn, struct ir_func *f) {
    int n = fn->param_count;
    struct ir_type *types = ARENA_ARRAY(e->arena, struct ir_type, n + 1);
    bool *done = ARENA_ARRAY(e->arena, bool, n + 1), fine = true;
    f->arg_names = ARENA_ARRAY(&e->module->arena, const char *, n + 1);
    f->arg_inout = ARENA_ARRAY(&e->module->arena, bool, n + 1);
    for (int left = n, before = -1; left > 0;) {
        bool last = left == before;
        before = left;
        for (int i = 0; i < n; i++) {
            if (done[i])
                continue;
            const struct ast_param *p = &fn->params[i];
            bool later = false;
            const char *what = arena_printf(e->arena, "`%s`", p->name);
            if (!p->type) {
                elab_error(e, E_export_parameter, p->span, "%s of an exported function needs a type", what);
                fine = false;
            } else if (!elab_export_type(e, s, p->type, &types[i], what, &later)) {
                fine = false;
            } else if (later) {
                if (!last)
                    continue;
                report_unbound(e, s, fn, done);
                fine = false;
            }
            if (p->initial)
                elab_error(e, E_export_parameter, p->initial->span,
                           "a parameter of an exported function has no default");
            done[i] = true;
            left--;
        }
    }
    if (!fine)
        return false;
    for (int i = 0; i < n; i++) {
        const struct ast_param *p = &fn->params[i];
        struct ir_value *arg = ir_region_arg(f->body, types[i], arena_strdup(&e->module->arena, p->name));
        arg->span = p->span;
        f->arg_names[i] = arg->name;
        f->arg_inout[i] = p->is_inout;
        if (scope_find_here(s, p->name)) {
            elab_error(e, E_redefined, p->span, "the parameter `%s` is defined twice", p->name);
            continue;
        }
        if (p->is_inout) {
            struct cell *c = cell_new(e, p->name, p->span);
            c->is_var = c->typed = true;
            c->type = types[i];
            c->value = elab_from_value(e, arg);
            arg->buffer_name = p->name;
            scope_bind_cell(e, s, p->name, c);
        } else {
            scope_bind(e, s, p->name, elab_from_value(e, arg), p->span);
        }
    }
    return true;
}

static void note_symbol(const struct ir_symbol *y, void *context) {
    struct ir_func *f = context;
    for (int i = 0; i < f->symbol_count; i++)
        if (f->symbols[i] == y)
            return;
    f->symbols[f->symbol_count++] = (struct ir_symbol *)y;
}

/* `score_ran` and `score_set_x` belong to the incremental function `score`. */
static void check_incremental_names(struct elab *e) {
    const struct ir_module *m = e->module;
    for (int i = 0; i < m->func_count; i++) {
        const struct ir_func *f = m->funcs[i];
        size_t n = strlen(f->name);
        for (int k = 0; k < m->func_count && f->is_incremental; k++) {
            const char *name = m->funcs[k]->name;
            if (strncmp(name, f->name, n) != 0 || (strcmp(name + n, "_ran") != 0 && strncmp(name + n, "_set_", 5) != 0))
                continue;
            struct diagnostic *x =
                elab_error(e, E_export_name, m->funcs[k]->span, "an exported function may not be named `%s`", name);
            elab_note(e, x, f->span, "the generated interface of the incremental function `%s` has such names",
                      f->name);
        }
    }
}

static void export_function(struct elab *e, struct scope *file, const struct ast_decl *d) {
    const struct ast_fn *fn = &d->fn;
    if (reserved_export(d->name)) {
        struct diagnostic *x =
            elab_error(e, E_export_name, d->name_span, "an exported function may not be named `%s`", d->name);
        elab_help(e, x, "the generated interface has a function of that name");
        return;
    }
    if (fn->is_kernel || fn->gradient) {
        elab_error(e, E_declaration_place, d->span,
                   "an exported function is neither a kernel nor has a gradient of its own");
        return;
    }
    struct ir_func *f = ir_func_new(e->module, d->name, d->name_span);
    f->is_export = true;
    f->is_train = fn->is_train;
    f->is_incremental = fn->is_incremental;
    f->doc = d->doc ? arena_strdup(&e->module->arena, d->doc) : NULL;
    start_function(e, f, fn->is_train);
    struct scope *s = scope_new(e, file);
    s->is_function = true;
    struct call_frame frame;
    int failures = e->failures;
    if (!elab_enter(e, d->name, d->name_span, &frame)) {
        e->in_function = false;
        return;
    }
    if (export_params(e, s, fn, f)) {
        /* run-time dimensions in order of appearance */
        f->symbols = ARENA_ARRAY(&e->module->arena, struct ir_symbol *, e->module->symbol_count + 1);
        for (int i = 0; i < f->body->arg_count; i++)
            for (int k = 0; k < f->body->args[i]->type.rank; k++)
                ir_dim_symbols(f->body->args[i]->type.dims[k], note_symbol, f);
        collect_result_symbols(e, s, fn, f);
        e->current_fn = fn;
        struct val v = val_none;
        struct span where = d->name_span;
        if (fn->body) {
            elab_body_block(e, s, fn->body);
            v = e->returned ? e->result : val_none;
            if (!e->returned && fn->has_results && fn->result_count > 0 && e->failures == failures)
                elab_error(e, E_no_return, d->name_span, "`%s` has results but does not return", d->name);
            if (e->returned && fn->body->count)
                where = fn->body->stmts[fn->body->count - 1]->span;
        } else {
            v = val_list_new(e, fn->value_count);
            v.kind = VAL_TUPLE;
            for (int i = 0; i < fn->value_count; i++)
                v.list->items[i] = elab_expr(e, s, fn->values[i]);
            where = fn->values[0]->span;
            if (fn->value_count == 1)
                v = v.list->items[0];
        }
        e->current_fn = NULL;
        if (e->failures == failures &&
            elab_match_results(e, s, fn, &v, where, arena_printf(e->arena, "`%s`", d->name))) {
            bind_result_symbols(e, s, f);
            int count = v.kind == VAL_TUPLE ? v.list->count : v.kind == VAL_NONE ? 0 : 1, inouts = 0;
            for (int i = 0; i < fn->param_count; i++)
                inouts += fn->params[i].is_inout;
            struct ir_value **yields = ARENA_ARRAY(e->arena, struct ir_value *, count + inouts + 1);
            f->result_names = ARENA_ARRAY(&e->module->arena, const char *, count + 1);
            f->result_count = count;
            bool fine = true;
            for (int i = 0; i < count; i++) {
                struct val one = v.kind == VAL_TUPLE ? v.list->items[i] : v;
                enum dtype t = DTYPE_COUNT;
                if (one.kind == VAL_SCALAR && one.flex)
                    t = I64;
                yields[i] = elab_materialize(e, one, t, where);
                fine = fine && yields[i];
                if (i < fn->result_count && fn->results[i].name)
                    f->result_names[i] = arena_strdup(&e->module->arena, fn->results[i].name);
            }
            for (int i = 0, k = count; i < fn->param_count; i++)
                if (fn->params[i].is_inout) {
                    struct binding *b = scope_find_here(s, fn->params[i].name);
                    yields[k] = elab_materialize(e, cell_read(e, b->cell), DTYPE_COUNT, where);
                    fine = fine && yields[k++];
                }
            if (fine) {
                ir_region_yield(f->body, yields, count + inouts);
                ir_module_add_func(e->module, f);
            }
        }
    }
    elab_leave(e, &frame);
    bool writes = false;
    for (int i = 0; i < e->touched.n; i++)
        writes = writes || (e->touched.at[i]->value.kind == VAL_TENSOR && e->touched.at[i]->versions > 0);
    bool inout = false;
    for (int i = 0; i < fn->param_count; i++)
        inout |= fn->params[i].is_inout;
    if (fn->is_incremental && (writes || inout || f->uses_random))
        elab_error(e, E_incremental_writes, d->name_span, "the incremental function `%s` %s", d->name,
                   writes  ? "writes params or states"
                   : inout ? "has an inout argument"
                           : "draws random numbers");
    finish_function(e);
}

/* ---- initial values ---------------------------------------------------------------------------------------------------------------- */

static struct val initial_value(struct elab *e, struct cell *c) {
    struct span at = c->initial->span;
    struct val v = elab_expr(e, c->initial_scope, c->initial);
    if (v.kind == VAL_FN || v.kind == VAL_BUILTIN) {
        struct arg a = {.value = val_type(e, c->type), .span = at};
        v = elab_call(e, v, &a, 1, at);
    }
    if (v.kind == VAL_NONE)
        v = c->type.dtype == BOOL ? val_bool(false) : val_int(0);
    return v;
}

static int by_id(const void *a, const void *b) {
    return (*(struct cell *const *)a)->buffer->id - (*(struct cell *const *)b)->buffer->id;
}

/* Ids and names: in order of declaration, depth first from the file's names. */
static void order_buffers(struct elab *e, struct scope *file) {
    struct val list = val_list_new(e, 0);
    for (struct binding *b = file->first; b; b = b->next) {
        if (b->cell && b->cell->buffer)
            elab_list_buffers(e, (struct val){.kind = VAL_BUFFER, .cell = b->cell}, true, true, &list, b->span);
        else if (!b->cell && (b->value.kind == VAL_BLOCK || b->value.kind == VAL_LIST))
            elab_list_buffers(e, b->value, true, true, &list, b->span);
    }
    int next = 0;
    bool *seen = ARENA_ARRAY(e->arena, bool, e->module->buffer_count + 1);
    struct ir_buffer **old = arena_copy(e->arena, e->module->buffers, sizeof *old * (size_t)e->module->buffer_count);
    for (int i = 0; i < list.list->count; i++) {
        struct ir_buffer *b = list.list->items[i].cell->buffer;
        if (!seen[b->id]) {
            seen[b->id] = true;
            e->module->buffers[next++] = b;
        }
    }
    for (int i = 0; i < e->module->buffer_count; i++)
        if (!seen[old[i]->id])
            e->module->buffers[next++] = old[i];
    for (int i = 0; i < e->module->buffer_count; i++)
        e->module->buffers[i]->id = i;
    for (int i = 0; i < e->buffers.n; i++) {
        struct cell *c = e->buffers.at[i];
        if (c->owner)
            c->buffer->name = arena_printf(&e->module->arena, "%s.%s", instance_path(e, c->owner), c->name);
    }
    if (e->buffers.n > 1)
        qsort(e->buffers.at, (size_t)e->buffers.n, sizeof *e->buffers.at, by_id);
}

static void elab_init_function(struct elab *e) {
    struct ir_func *f = ir_func_new(e->module, "init", (struct span){0});
    start_function(e, f, false);
    for (int i = 0; i < e->buffers.n; i++) {
        struct cell *c = e->buffers.at[i];
        e->b.span = c->span;
        struct val v = c->initial ? initial_value(e, c) : c->type.dtype == BOOL ? val_bool(false) : val_int(0);
        struct ir_value *x = elab_broadcast(e, v, c->type, c->initial ? c->initial->span : c->span,
                                            arena_printf(e->arena, "`%s`", c->buffer->name));
        if (!x)
            continue;
        c->value = val_tensor(x);
        ir_build_write(&e->b, c->buffer, x);
    }
    e->touched.n = 0;
    finish_function(e);
    for (int i = 0; i < e->buffers.n; i++) {
        e->buffers.at[i]->value = val_none;
        e->buffers.at[i]->versions = 0;
    }
    e->module->init = f;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------------------ */

/* The elaboration call stack under an error: innermost first. */
static void annotate(struct diag *d, struct diagnostic *x, void *context) {
    struct elab *e = context;
    int shown = 0;
    const char *name = NULL;
    for (struct call_frame *f = e->stack; f; f = f->outer) {
        if (!f->outer && e->in_function)
            return; /* the exported function: the span says where */
        if (shown == 8) {
            diag_note(d, x, (struct span){0}, "… and further calls");
            return;
        }
        int line, column;
        span_position(f->call, &line, &column);
        if (!f->outer) {
            diag_note(d, x, (struct span){0}, "in %s, made at %s:%d:%d", f->what,
                      f->call.source ? f->call.source->path : "?", line, column);
            return;
        }
        name = f->outer->what;
        diag_note(d, x, (struct span){0}, "in %s, called from `%s` (%s:%d:%d)", f->what, name,
                  f->call.source ? f->call.source->path : "?", line, column);
        shown++;
    }
}

struct ir_module *elaborate_file(struct diag *d, const struct source *source, const struct elaborate_options *o) {
    struct ir_module *m = ir_module_new(d, o->name ? o->name : "model");
    struct elab elab = {.arena = &m->arena, .diag = d, .module = m, .options = o};
    struct elab *e = &elab;
    int errors = d->errors;
    const struct ast_file *file = parse_file(e->arena, d, source);
    if (d->errors > errors) {
        ir_module_free(m);
        return NULL;
    }
    d->annotate = annotate;
    d->annotate_context = e;
    struct scope *builtin = scope_new(e, NULL);
    elab_bind_builtins(e, builtin);
    e->prelude = scope_new(e, builtin);
    struct scope *random = elab_use(e, "random", false, (struct span){.source = source});
    if (random)
        scope_bind(e, e->prelude, "random", (struct val){.kind = VAL_MODULE, .module = random}, (struct span){0});
    load_library(e, e->prelude, "prelude");
    struct scope *s = file_scope(e, source->path);
    e->file = s;
    elab_into(e, s, file);
    order_buffers(e, s);
    for (int i = 0; i < file->count; i++)
        if (file->stmts[i]->kind == STMT_DECL && file->stmts[i]->decl->kind == DECL_FN &&
            file->stmts[i]->decl->fn.is_export)
            export_function(e, s, file->stmts[i]->decl);
    check_incremental_names(e);
    elab_init_function(e);
    for (int i = 0; i < file->count; i++)
        if (file->stmts[i]->kind == STMT_DECL && file->stmts[i]->decl->kind == DECL_TRAIN)
            elab_train(e, s, file->stmts[i]->decl);
    d->annotate = NULL;
    d->annotate_context = NULL;
    if (d->errors > errors) {
        ir_module_free(m);
        return NULL;
    }
    return m;
}
