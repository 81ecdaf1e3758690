/* The `train` block: its settings as small trees for the program that trains, and what can be said about them beforehand. The
 * program reads the same trees again (runtime/data/data.c, runtime/program/schedule.c), with the files at hand. */
#include <string.h>

#include "frontend/elab.h"

static const struct ir_setting_value *setting_value(struct elab *e, struct scope *s, const struct ast_expr *x) {
    struct arena *a = &e->module->arena;
    struct ir_setting_value *v = ARENA_NEW(a, struct ir_setting_value);
    v->span = x->span;
    switch (x->kind) {
    case EXPR_CALL:
        if (x->call.callee->kind != EXPR_NAME)
            break;
        v->kind = SET_CALL;
        v->s = arena_strdup(a, x->call.callee->string);
        v->count = x->call.count;
        v->names = ARENA_ARRAY(a, const char *, v->count + 1);
        v->args = ARENA_ARRAY(a, const struct ir_setting_value *, v->count + 1);
        for (int i = 0; i < v->count; i++) {
            v->names[i] = x->call.args[i].name ? arena_strdup(a, x->call.args[i].name) : NULL;
            if (!(v->args[i] = setting_value(e, s, x->call.args[i].value)))
                return NULL;
        }
        return v;
    case EXPR_NAME: {
        struct binding *b = scope_find(s, x->string);
        if (!b || b->value.kind == VAL_FN || b->value.kind == VAL_BUILTIN) {
            v->kind = SET_NAME;
            v->s = arena_strdup(a, x->string);
            return v;
        }
        break;
    }
    case EXPR_BINARY: {
        bool calls = x->binary.left->kind == EXPR_CALL || x->binary.right->kind == EXPR_CALL ||
                     x->binary.left->kind == EXPR_BINARY;
        if (!calls)
            break;
        static const char *const signs[] = {"+", "-", "*", "/"};
        if (x->binary.op > BIN_DIV)
            break;
        v->kind = SET_BINARY;
        v->s = signs[x->binary.op];
        v->count = 2;
        v->args = ARENA_ARRAY(a, const struct ir_setting_value *, 2);
        v->args[0] = setting_value(e, s, x->binary.left);
        v->args[1] = setting_value(e, s, x->binary.right);
        return v->args[0] && v->args[1] ? v : NULL;
    }
    case EXPR_LIST:
        v->kind = SET_LIST;
        v->count = x->list.count;
        v->args = ARENA_ARRAY(a, const struct ir_setting_value *, v->count + 1);
        for (int i = 0; i < v->count; i++)
            if (!(v->args[i] = setting_value(e, s, x->list.items[i])))
                return NULL;
        return v;
    default: break;
    }
    struct val r = elab_expr(e, s, x);
    switch (r.kind) {
    case VAL_INT:
        v->kind = SET_INT;
        v->i = r.i;
        v->f = (double)r.i;
        return v;
    case VAL_FLOAT:
        v->kind = SET_FLOAT;
        v->f = r.f;
        return v;
    case VAL_BOOL:
        v->kind = SET_BOOL;
        v->i = r.b;
        return v;
    case VAL_STRING:
        v->kind = SET_STRING;
        v->s = arena_strdup(a, r.s);
        return v;
    case VAL_NONE: v->kind = SET_NONE; return v;
    case VAL_ERROR: return NULL;
    default: elab_error(e, E_setting, x->span, "this cannot be a setting: %s", val_describe(e, r)); return NULL;
    }
}

/* ---- questions -------------------------------------------------------------------------------------------------------- */

static const struct ir_setting *setting_of(const struct ir_module *m, const char *key) {
    for (int i = 0; i < m->setting_count; i++)
        if (strcmp(m->settings[i].key, key) == 0)
            return &m->settings[i];
    return NULL;
}

static const struct ir_func *exported(const struct ir_module *m, const char *name) {
    for (int i = 0; i < m->func_count; i++)
        if (strcmp(m->funcs[i]->name, name) == 0)
            return m->funcs[i];
    return NULL;
}

/* What a setting names; NULL: no such function, or no setting. */
static const struct ir_func *function_of(const struct ir_module *m, const struct ir_setting *x) {
    return x && x->value->kind == SET_NAME ? exported(m, x->value->s) : NULL;
}

static int parameter_of(const struct ir_func *f, const char *name) {
    for (int i = 0; i < f->body->arg_count; i++)
        if (f->arg_names[i] && strcmp(f->arg_names[i], name) == 0)
            return i;
    return -1;
}

static bool one_of(const char *name, const char *const *names) {
    for (; *names; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

/* A setting may be handed to a parameter of the function that `step` or `evaluate` names; of one with errors nothing is known. */
static bool is_step_parameter(const struct elab *e, const struct ast_decl *d, const char *key) {
    for (int i = 0; i < d->train.count; i++) {
        const struct ast_stmt *x = d->train.settings[i];
        if (x->kind != STMT_ASSIGN || x->assign.count != 1 || x->assign.targets[0]->kind != EXPR_NAME ||
            x->assign.value->kind != EXPR_NAME)
            continue;
        if (strcmp(x->assign.targets[0]->string, "step") != 0 && strcmp(x->assign.targets[0]->string, "evaluate") != 0)
            continue;
        const struct ir_func *f = exported(e->module, x->assign.value->string);
        if (!f || parameter_of(f, key) >= 0)
            return true;
    }
    return false;
}

/* ---- what a setting may be -------------------------------------------------------------------------------------------- */

static bool is_number(const struct ir_setting_value *v) {
    return v->kind == SET_INT || v->kind == SET_FLOAT;
}

static const char *kind_text(struct elab *e, const struct ir_setting_value *v) {
    switch (v->kind) {
    case SET_INT: return arena_printf(e->arena, "%lld", (long long)v->i);
    case SET_FLOAT: return arena_printf(e->arena, "%g", v->f);
    case SET_STRING: return arena_printf(e->arena, "\"%s\"", v->s);
    case SET_BOOL: return v->i ? "true" : "false";
    case SET_NONE: return "none";
    case SET_NAME: return arena_printf(e->arena, "the name `%s`", v->s);
    case SET_CALL: return arena_printf(e->arena, "%s(…)", v->s);
    case SET_BINARY: return "arithmetic";
    default: return "a list";
    }
}

static void wrong_kind(struct elab *e, const struct ir_setting *x, const char *expected) {
    struct diagnostic *d = elab_error(e, E_setting, x->value->span, "`%s` is %s", x->key, expected);
    elab_label(e, d, "%s", kind_text(e, x->value));
}

/* A number for a scalar parameter: a constant, a schedule, or arithmetic of them. */
static void check_schedule(struct elab *e, const char *key, const struct ir_setting_value *v) {
    static const struct {
        const char *name;
        const char *const arguments[5];
    } schedules[] = {
        {"constant", {"value", "warmup", NULL}},
        {"cosine", {"value", "warmup", "end", NULL}},
        {"linear", {"value", "warmup", "end", NULL}},
        {"step", {"value", "warmup", "every", "factor", NULL}},
        {"exponential", {"value", "warmup", "factor", NULL}},
    };
    if (v->kind == SET_BINARY) {
        check_schedule(e, key, v->args[0]);
        check_schedule(e, key, v->args[1]);
        return;
    }
    if (v->kind != SET_CALL) {
        if (!is_number(v) && v->kind != SET_BOOL) {
            struct diagnostic *d = elab_error(e, E_setting, v->span,
                                              "`%s` is a number or a schedule like cosine(1e-3, warmup = 100)", key);
            elab_label(e, d, "%s", kind_text(e, v));
        }
        return;
    }
    for (size_t k = 0; k < sizeof schedules / sizeof *schedules; k++) {
        if (strcmp(v->s, schedules[k].name) != 0)
            continue;
        bool value = false;
        for (int i = 0; i < v->count; i++) {
            value = value || !v->names[i] || strcmp(v->names[i], "value") == 0;
            if (v->names[i] && !one_of(v->names[i], schedules[k].arguments)) {
                struct diagnostic *d =
                    elab_error(e, E_setting, v->args[i]->span, "%s(…) has no argument `%s`", v->s, v->names[i]);
                const char *list = schedules[k].arguments[0];
                for (const char *const *more = schedules[k].arguments + 1; *more; more++)
                    list = arena_printf(e->arena, "%s, %s", list, *more);
                elab_help(e, d, "%s", list);
            }
            check_schedule(e, key, v->args[i]);
        }
        if (!value)
            elab_error(e, E_setting, v->span, "%s(…) needs its value first: %s(1e-3)", v->s, v->s);
        return;
    }
    struct diagnostic *d = elab_error(e, E_setting, v->span, "there is no schedule `%s`", v->s);
    elab_help(e, d, "constant, cosine, linear, step, exponential");
}

/* ---- data ----------------------------------------------------------------------------------------------------------------- */

enum reader { SOURCE_CSV, SOURCE_IDX, SOURCE_NPY, SOURCE_NPZ, SOURCE_TEXT, SOURCE_TOKENS, SOURCE_COUNT };

/* `columns(0, 64) / 16.0`: the call inside the arithmetic; NULL if it is built otherwise. */
static const struct ir_setting_value *leaf_of(const struct ir_setting_value *v) {
    while (v && v->kind == SET_BINARY)
        v = is_number(v->args[1]) ? v->args[0] : NULL;
    return v;
}

/* Numbers for each sample, as far as the source tells: 0 if only the file does, -1 after an error. */
static int64_t field_width(struct elab *e, enum reader source, const char *name, const struct ir_setting_value *v) {
    const struct ir_setting_value *leaf = leaf_of(v);
    bool call = leaf && leaf->kind == SET_CALL;
    if (source == SOURCE_CSV && call && strcmp(leaf->s, "columns") == 0 && leaf->count == 2 &&
        leaf->args[0]->kind == SET_INT && leaf->args[1]->kind == SET_INT && leaf->args[0]->i >= 0 &&
        leaf->args[1]->i > leaf->args[0]->i)
        return leaf->args[1]->i - leaf->args[0]->i;
    if (source == SOURCE_CSV && call && strcmp(leaf->s, "column") == 0 && leaf->count == 1 &&
        (leaf->args[0]->kind == SET_STRING || (leaf->args[0]->kind == SET_INT && leaf->args[0]->i >= 0)))
        return 1;
    if (source != SOURCE_CSV && leaf &&
        (leaf->kind == SET_STRING ||
         (call && strcmp(leaf->s, "file") == 0 && leaf->count == 1 && leaf->args[0]->kind == SET_STRING)))
        return 0;
    struct diagnostic *d = elab_error(e, E_setting, v->span, "this does not say where `%s` comes from", name);
    elab_help(e, d, "%s, perhaps with + - * / and a number behind it",
              source == SOURCE_CSV ? "columns(first, beyond) or column(number or \"name\")" : "file(\"name\")");
    return -1;
}

static int64_t sample_elements(const struct ir_value *argument) {
    int64_t n = 1, extent;
    for (int i = 1; i < argument->type.rank; i++) {
        if (!ir_dim_is_const(argument->type.dims[i], &extent))
            return -1;
        n *= extent;
    }
    return n;
}

static bool is_ids(const struct ir_value *argument) {
    return argument->type.rank > 0 && dtype_is_int(argument->type.dtype);
}

/* Whether the source gives the parameter of this number: by name, or a sequence the first two of integers. */
static bool is_given(const struct ir_setting_value *v, const struct ir_func *f, int at, bool sequence) {
    bool named = false;
    for (int i = 0; i < v->count; i++) {
        if (!v->names[i] || parameter_of(f, v->names[i]) < 0)
            continue;
        if (strcmp(v->names[i], f->arg_names[at]) == 0)
            return true;
        named = true;
    }
    int before = 0;
    for (int i = 0; i < at; i++)
        before += is_ids(f->body->args[i]);
    return sequence && !named && is_ids(f->body->args[at]) && before < 2;
}

static void check_all_given(struct elab *e, const struct ir_setting *x, const struct ir_func *f, bool sequence,
                            bool csv) {
    for (int i = 0; i < f->body->arg_count; i++) {
        if (f->body->args[i]->type.rank == 0 || is_given(x->value, f, i, sequence))
            continue;
        struct diagnostic *d = elab_error(e, E_setting, x->value->span, "`%s` gives nothing for `%s` of `%s`", x->key,
                                          f->arg_names[i], f->name);
        if (sequence)
            elab_help(e, d,
                      "%s(…) gives chunks of ids and of their successors, for integer parameters like i32[N <= 32, 64]",
                      x->value->s);
        else
            elab_help(e, d, csv ? "add %s = column(…) or columns(…)" : "add %s = file(…)", f->arg_names[i]);
    }
}

/* f (NULL: it has errors of its own) gets its tensors from this source. */
static void check_data(struct elab *e, const struct ir_setting *x, const struct ir_func *f) {
    static const char *const names[] = {"csv", "idx", "npy", "npz", "text", "tokens"};
    const struct ir_setting_value *v = x->value;
    int source = v->kind == SET_CALL ? 0 : SOURCE_COUNT;
    while (source < SOURCE_COUNT && strcmp(v->s, names[source]) != 0)
        source++;
    if (source == SOURCE_COUNT) {
        wrong_kind(e, x, "csv(…), idx(…), npy(…), npz(…), text(…) or tokens(…)");
        return;
    }
    int failures = e->failures;
    bool path = source == SOURCE_IDX || source == SOURCE_NPY; /* each argument names its own */
    bool sequence = source == SOURCE_TEXT || source == SOURCE_TOKENS;
    for (int i = 0; i < v->count; i++) {
        const char *name = v->names[i];
        if (!name) {
            path = path || v->args[i]->kind == SET_STRING;
            continue;
        }
        if (source == SOURCE_TEXT && strcmp(name, "vocabulary") == 0) {
            if (v->args[i]->kind != SET_STRING)
                elab_error(e, E_setting, v->args[i]->span, "`vocabulary` is a string of all characters");
            continue;
        }
        int at = f ? parameter_of(f, name) : -1;
        if (f && at < 0) {
            elab_error(e, E_setting, v->args[i]->span, "`%s` is no parameter of `%s`", name, f->name);
            continue;
        }
        if (f && f->body->args[at]->type.rank == 0) {
            elab_error(e, E_setting, v->args[i]->span, "`%s` of `%s` is one number, data gives one for each sample",
                       name, f->name);
            continue;
        }
        if (sequence) {
            if (v->args[i]->kind != SET_NAME)
                elab_error(e, E_setting, v->args[i]->span, "`%s` is `chars` or `next`, the same one further on", name);
            continue;
        }
        int64_t width = field_width(e, (enum reader)source, name, v->args[i]),
                wanted = f ? sample_elements(f->body->args[at]) : -1;
        if (width > 0 && wanted >= 0 && width != wanted)
            elab_error(e, E_setting, v->args[i]->span, "%lld number%s for `%s` in each sample, `%s` wants %lld",
                       (long long)width, width == 1 ? "" : "s", name, f->name, (long long)wanted);
    }
    if (!path)
        elab_error(e, E_setting, v->span, "%s(…) needs a file's name", v->s);
    if (f && e->failures == failures)
        check_all_given(e, x, f, sequence, source == SOURCE_CSV);
}

/* Each number that a function takes is a setting. */
static void check_scalars(struct elab *e, const struct ast_decl *d, const struct ir_func *f) {
    for (int i = 0; f && i < f->body->arg_count; i++)
        if (f->body->args[i]->type.rank == 0 && !setting_of(e->module, f->arg_names[i]))
            elab_error(e, E_setting, d->span, "`%s` needs `%s`: add `%s = …` to the train block", f->name,
                       f->arg_names[i], f->arg_names[i]);
}

static bool writes_params(const struct ir_region *r) {
    for (const struct ir_op *op = r->first; op; op = op->next)
        if (op->code == OP_write && op->buffer.buffer->kind == BUFFER_PARAM)
            return true;
    return false;
}

static void check_settings(struct elab *e, const struct ast_decl *d) {
    struct ir_module *m = e->module;
    const struct ir_setting *step = setting_of(m, "step"), *evaluate = setting_of(m, "evaluate"),
                            *data = setting_of(m, "data"), *test = setting_of(m, "test");
    const struct ir_func *stepped = function_of(m, step), *evaluated = function_of(m, evaluate);
    int failures = e->failures;
    for (int i = 0; i < m->setting_count; i++) {
        const struct ir_setting *x = &m->settings[i];
        const struct ir_setting_value *v = x->value;
        if (strcmp(x->key, "split") == 0) {
            double part = v->kind == SET_INT ? (double)v->i : v->f;
            if (!is_number(v) || !(part > 0 && part <= 1))
                wrong_kind(e, x, "the part for training, above 0 and at most 1");
        } else if (strcmp(x->key, "batch") == 0) {
            if (v->kind != SET_INT || v->i < 1)
                wrong_kind(e, x, "a number of samples, at least 1");
        } else if (strcmp(x->key, "epochs") == 0 || strcmp(x->key, "seed") == 0) {
            if (v->kind != SET_INT || v->i < 0)
                wrong_kind(e, x, "an integer of at least 0");
        } else if (strcmp(x->key, "shuffle") == 0) {
            if (v->kind != SET_BOOL)
                wrong_kind(e, x, "true or false");
        } else if (x != step && x != evaluate && x != data && x != test) {
            check_schedule(e, x->key, v);
        }
    }
    if (data)
        check_data(e, data, stepped);
    if (test && evaluated)
        check_data(e, test, evaluated);
    if (e->failures == failures && data && evaluated && !test)
        check_data(e, data, evaluated);
    if (e->failures == failures) {
        check_scalars(e, d, stepped);
        check_scalars(e, d, evaluated);
    }
    if (e->diag->errors == 0 && !step)
        elab_error(e, E_setting, d->span, "the train block needs `step = NAME` with an exported function");
    if (e->diag->errors == 0 && !data)
        elab_error(e, E_setting, d->span, "the train block has no `data`");
    if (evaluated && writes_params(evaluated->body)) {
        struct diagnostic *w =
            diag_warning(e->diag, E_evaluate_trains, evaluate->value->span,
                         "`%s` changes parameters: the held-out samples would train, too", evaluated->name);
        elab_help(e, w, "let `evaluate` name a function that only reads them");
    }
}

void elab_train(struct elab *e, struct scope *s, const struct ast_decl *d) {
    static const char *const keys[] = {"data", "test",     "split", "batch",   "epochs",
                                       "step", "evaluate", "seed",  "shuffle", NULL};
    struct ir_module *m = e->module;
    int failures = e->failures;
    if (m->settings) {
        elab_error(e, E_setting, d->span, "there is a second `train` block");
        return;
    }
    m->settings = ARENA_ARRAY(&m->arena, struct ir_setting, d->train.count + 1);
    m->train_dir = arena_strdup(&m->arena, elab_directory_of(e, d->span.source ? d->span.source->path : ""));
    for (int i = 0; i < d->train.count; i++) {
        const struct ast_stmt *x = d->train.settings[i];
        if (x->kind != STMT_ASSIGN || x->assign.count != 1 || x->assign.targets[0]->kind != EXPR_NAME)
            continue;
        const char *key = x->assign.targets[0]->string;
        if (!one_of(key, keys) && !is_step_parameter(e, d, key)) {
            struct diagnostic *diag = elab_error(e, E_setting, x->span, "`train` has no setting `%s`", key);
            elab_help(e, diag,
                      "data, test, split, batch, epochs, step, evaluate, seed, shuffle, or a parameter of `step`");
            continue;
        }
        if (setting_of(m, key))
            elab_error(e, E_setting, x->span, "the setting `%s` is given twice", key);
        const struct ir_setting_value *v = setting_value(e, s, x->assign.value);
        if (!v)
            continue;
        struct ir_setting *made = &m->settings[m->setting_count++];
        *made = (struct ir_setting){.key = arena_strdup(&m->arena, key), .value = v, .span = x->span};
        bool names_function = strcmp(key, "step") == 0 || strcmp(key, "evaluate") == 0;
        if (names_function && !function_of(m, made) && e->diag->errors == 0)
            elab_error(e, E_setting, x->assign.value->span, "`%s` must name an exported function", key);
    }
    if (e->failures == failures)
        check_settings(e, d);
}
