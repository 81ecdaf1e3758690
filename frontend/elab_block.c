/* Blocks: instances, their members and buffers; declarations. */
#include <string.h>

#include "frontend/elab.h"

const char *instance_path(struct elab *e, struct instance *i) {
    const char *own = i->name ? i->name : arena_printf(e->arena, "%s%d", i->class_->name, i->serial);
    if (!i->owner)
        return own;
    return arena_printf(e->arena, "%s.%s", instance_path(e, i->owner), own);
}

/* The first name an instance is bound to owns it. */
static void own(struct elab *e, struct instance *owner, const char *name, struct val v) {
    if (v.kind == VAL_BLOCK && !v.block->name && !v.block->owner) {
        v.block->name = arena_strdup(e->arena, name);
        v.block->owner = owner;
    }
    if (v.kind == VAL_LIST)
        for (int i = 0; i < v.list->count; i++)
            own(e, owner, arena_printf(e->arena, "%s.%d", name, i), v.list->items[i]);
}

void elab_assign_name(struct elab *e, struct scope *s, const char *name, struct val v, struct span at) {
    if (v.kind == VAL_TUPLE || val_is_runtime(v)) {
        if (v.kind != VAL_BUFFER) {
            elab_error(e, E_const_runtime, at, "`%s` is computed by the program: it can stand in a function", name);
            v = val_error;
        }
    }
    struct scope *members = s;
    while (members && !members->instance && members->parent && !members->path)
        members = members->parent;
    own(e, members ? members->instance : NULL, name, v);
    scope_bind(e, s, name, v, at);
}

struct val elab_instantiate(struct elab *e, struct elab_class *c, struct arg *args, int count, struct span at) {
    if (e->in_function) {
        struct diagnostic *d =
            elab_error(e, E_block_in_function, at, "block `%s` is made inside a function of the program", c->name);
        elab_help(e, d, "make it once, at file level or in a block: `name = %s(…)`", c->name);
        return val_error;
    }
    struct scope *params = scope_new(e, c->scope);
    struct call_frame frame;
    if (!elab_bind_params(e, params, c->decl->block.params, c->decl->block.param_count, args, count, at, c->name,
                          c->decl->name_span))
        return val_error;
    if (!elab_enter(e, c->name, at, &frame))
        return val_error;
    struct instance *i = ARENA_NEW(e->arena, struct instance);
    i->class_ = c;
    i->serial = e->instance_serial++;
    i->scope = scope_new(e, params);
    i->scope->instance = i;
    bool returned = e->returned;
    e->returned = false;
    int failures = e->failures;
    elab_stmts(e, i->scope, c->decl->block.body->stmts, c->decl->block.body->count);
    e->returned = returned;
    elab_leave(e, &frame);
    struct val v = {.kind = VAL_BLOCK, .block = i};
    return e->failures > failures ? val_error : v;
}

/* ---- listing buffers ------------------------------------------------------------------------------------------------------ */

static void push(struct elab *e, struct val *list, struct cell *c) {
    for (int i = 0; i < list->list->count; i++)
        if (list->list->items[i].cell == c)
            return;
    struct val grown = val_list_new(e, list->list->count + 1);
    memcpy(grown.list->items, list->list->items, sizeof(struct val) * (size_t)list->list->count);
    grown.list->items[list->list->count] = (struct val){.kind = VAL_BUFFER, .cell = c};
    *list = grown;
}

static void list_value(struct elab *e, struct val v, struct instance *owner, bool params, bool states,
                       struct val *list);

static void list_instance(struct elab *e, struct instance *i, bool params, bool states, struct val *list) {
    for (struct binding *b = i->scope->first; b; b = b->next) {
        if (b->cell && b->cell->buffer) {
            bool is_param = b->cell->buffer->kind == BUFFER_PARAM;
            if (is_param ? params : states)
                push(e, list, b->cell);
        } else if (!b->cell) {
            list_value(e, b->value, i, params, states, list);
        }
    }
}

static void list_value(struct elab *e, struct val v, struct instance *owner, bool params, bool states,
                       struct val *list) {
    if (v.kind == VAL_BLOCK && (!owner || v.block->owner == owner))
        list_instance(e, v.block, params, states, list);
    if (v.kind == VAL_LIST)
        for (int i = 0; i < v.list->count; i++)
            list_value(e, v.list->items[i], owner, params, states, list);
    if (v.kind == VAL_BUFFER && !owner)
        push(e, list, v.cell);
}

void elab_list_buffers(struct elab *e, struct val v, bool params, bool states, struct val *list, struct span at) {
    if (v.kind != VAL_BLOCK && v.kind != VAL_LIST && v.kind != VAL_BUFFER) {
        if (v.kind != VAL_ERROR) {
            struct diagnostic *d =
                elab_error(e, E_builtin_argument, at, "a block or a list of blocks, params or states was expected");
            elab_label(e, d, "%s", val_describe(e, v));
        }
        return;
    }
    list_value(e, v, NULL, params, states, list);
}

/* ---- declarations ------------------------------------------------------------------------------------------------------------ */

static void declare_buffer(struct elab *e, struct scope *s, const struct ast_decl *d) {
    struct ir_type t;
    if (!elab_type(e, s, d->variable.type, &t))
        return;
    for (int i = 0; i < t.rank; i++) {
        int64_t n;
        if (!ir_dim_is_const(t.dims[i], &n)) {
            elab_error(e, E_dimension, d->variable.type->span, "a %s has constant dimensions; %s is not",
                       d->kind == DECL_PARAM ? "param" : "state", dim_text(e, t.dims[i]));
            return;
        }
    }
    struct cell *c = cell_new(e, d->name, d->name_span);
    struct scope *members = s;
    while (members && !members->instance && members->parent && !members->path)
        members = members->parent;
    c->owner = members ? members->instance : NULL;
    c->type = t;
    c->is_var = true;
    c->buffer = ir_buffer_new(e->module, d->name, d->kind == DECL_PARAM ? BUFFER_PARAM : BUFFER_STATE, t, d->name_span);
    c->initial = d->variable.value;
    c->initial_scope = s;
    VEC_PUSH(e->arena, e->buffers, c);
    scope_bind_cell(e, s, d->name, c);
}

static void declare_const(struct elab *e, struct scope *s, const struct ast_decl *d) {
    struct val v = elab_expr(e, s, d->variable.value);
    if (v.kind == VAL_SCALAR) { /* `const k: u32 = 5`, f32.max */
        double number;
        if (!ir_expr_is_const(v.expr, &number)) {
            elab_error(e, E_const_runtime, d->variable.value->span, "a constant must be known at compile time");
            v = val_error;
        }
    } else if (val_is_runtime(v) || v.kind == VAL_TUPLE || v.kind == VAL_RANGE) {
        struct diagnostic *x =
            elab_error(e, E_const_runtime, d->variable.value->span, "a constant must be known at compile time");
        elab_label(e, x, "%s", val_describe(e, v));
        v = val_error;
    }
    if (d->variable.type && v.kind != VAL_ERROR && v.kind != VAL_DATA) {
        struct val fitted = v;
        if (elab_match(e, s, d->variable.type, &fitted, d->variable.value->span,
                       arena_printf(e->arena, "`%s`", d->name), true) != MATCH_YES)
            fitted = val_error;
        v = fitted;
    }
    scope_bind(e, s, d->name, v, d->name_span);
}

static void check_params(struct elab *e, const struct ast_param *params, int count) {
    for (int i = 0; i < count; i++)
        for (int k = 0; k < i; k++)
            if (strcmp(params[i].name, params[k].name) == 0)
                elab_error(e, E_redefined, params[i].span, "the parameter `%s` is defined twice", params[i].name);
}

static void declare_fn(struct elab *e, struct scope *s, const struct ast_decl *d, const char *header) {
    struct elab_fn *f = ARENA_NEW(e->arena, struct elab_fn);
    check_params(e, d->fn.params, d->fn.param_count);
    for (int i = 0; i < d->fn.result_count; i++)
        for (int k = 0; k < i; k++)
            if (d->fn.results[i].name && d->fn.results[k].name &&
                strcmp(d->fn.results[i].name, d->fn.results[k].name) == 0)
                elab_error(e, E_redefined, d->fn.results[i].span, "the result `%s` is defined twice",
                           d->fn.results[i].name);
    f->name = d->name;
    f->decl = d;
    f->scope = s;
    f->header = header;
    scope_bind(e, s, d->name, (struct val){.kind = VAL_FN, .fn = f}, d->name_span);
}

void elab_decl(struct elab *e, struct scope *s, const struct ast_decl *d) {
    if (e->in_function && d->kind != DECL_CONST) {
        elab_error(e, E_declaration_place, d->span, "this declaration cannot stand in a function");
        return;
    }
    if (d->name && d->kind != DECL_TRAIN && d->kind != DECL_EXTERN) {
        struct binding *b = scope_find_here(s, d->name);
        bool same = b && (b->value.kind == VAL_FN ? b->value.fn->decl == d
                                                  : b->value.kind == VAL_CLASS && b->value.class_->decl == d);
        if (same)
            return; /* bound beforehand: functions and blocks may be used above their declaration */
        if (b) {
            struct diagnostic *x = elab_error(e, E_redefined, d->name_span, "`%s` is already defined here", d->name);
            elab_note(e, x, b->span, "first defined here");
            return;
        }
    }
    switch (d->kind) {
    case DECL_USE: {
        if (s->instance) {
            elab_error(e, E_declaration_place, d->span, "`use` stands at file level");
            return;
        }
        struct scope *m = elab_use(e, d->use.path, d->use.is_file, d->span);
        if (m)
            scope_bind(e, s, d->name, (struct val){.kind = VAL_MODULE, .module = m}, d->name_span);
        else
            scope_bind(e, s, d->name, val_error, d->name_span);
        break;
    }
    case DECL_CONST: declare_const(e, s, d); break;
    case DECL_PARAM:
    case DECL_STATE: declare_buffer(e, s, d); break;
    case DECL_FN:
        if (d->fn.is_export && s->instance) {
            elab_error(e, E_declaration_place, d->span, "an exported function stands at file level");
            return;
        }
        declare_fn(e, s, d, NULL);
        break;
    case DECL_BLOCK: {
        struct elab_class *c = ARENA_NEW(e->arena, struct elab_class);
        check_params(e, d->block.params, d->block.param_count);
        c->name = d->name;
        c->decl = d;
        c->scope = s;
        scope_bind(e, s, d->name, (struct val){.kind = VAL_CLASS, .class_ = c}, d->name_span);
        break;
    }
    case DECL_EXTERN:
        for (int i = 0; i < d->extern_.count; i++)
            declare_fn(e, s, d->extern_.fns[i], d->name);
        break;
    case DECL_TRAIN: break; /* read at the end, when everything is known */
    }
}
