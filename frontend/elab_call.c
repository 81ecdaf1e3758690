/* Calls: evaluating arguments, binding parameters (static ones before dimensions, by repeating until nothing is left to
 * bind), functions, custom gradients, block instances, extern functions. */
#include <string.h>
#include <unistd.h>

#include "frontend/elab.h"
#include "frontend/extern_header.h"

enum { DEEPEST_CALL = 200, DEEPEST_DEFAULT = 50 };

bool elab_enter(struct elab *e, const char *what, struct span at, struct call_frame *f) {
    int depth = 0;
    for (struct call_frame *c = e->stack; c; c = c->outer)
        depth++;
    if (depth >= DEEPEST_CALL) {
        if (!e->gave_up) {
            struct diagnostic *d =
                elab_error(e, E_recursion, at, "calls of `%s` are nested more than %d deep", what, DEEPEST_CALL);
            elab_help(e, d, "elaboration runs recursion; it needs a static condition that ends it");
        }
        e->gave_up = true;
        return false;
    }
    if (!elab_spend(e, 1, at))
        return false;
    *f = (struct call_frame){.outer = e->stack, .what = what, .call = at};
    e->stack = f;
    return true;
}

void elab_leave(struct elab *e, struct call_frame *f) {
    e->stack = f->outer;
}

struct span elab_user_span(const struct elab *e, struct span at, const char **hint) {
    *hint = NULL;
    for (const struct call_frame *f = e->stack; f && at.source && at.source->path[0] == '<'; f = f->outer) {
        at = f->call;
        *hint = f->hint;
    }
    return at;
}

/* ---- arguments -------------------------------------------------------------------------------------------------------- */

struct cell *elab_lvalue(struct elab *e, struct scope *s, const struct ast_expr *x) {
    struct binding *b = NULL;
    if (x->kind == EXPR_NAME) {
        b = scope_find(s, x->string);
        if (!b) {
            struct diagnostic *d = elab_error(e, E_unknown_name, x->span, "unknown name `%s`", x->string);
            const char *near = scope_similar(e, s, x->string);
            if (near)
                elab_help(e, d, "did you mean `%s`?", near);
            return NULL;
        }
        if (!b->cell && b->value.kind == VAL_BUFFER)
            return b->value.cell;
        if (!b->cell || (!b->cell->is_var && !b->cell->buffer)) {
            struct diagnostic *d = elab_error(e, E_not_assignable, x->span, "`%s` cannot be assigned", x->string);
            elab_note(e, d, b->span, "declared here");
            elab_help(e, d, "`var %s = …` makes a variable; a parameter of a function is one if it is `inout`",
                      x->string);
            return NULL;
        }
    } else if (x->kind == EXPR_MEMBER) {
        struct val base = elab_expr(e, s, x->member.base);
        if (base.kind == VAL_ERROR)
            return NULL;
        if (base.kind == VAL_BLOCK) {
            b = scope_find_here(base.block->scope, x->member.name);
            if (b && b->cell && b->cell->buffer)
                return b->cell;
            if (b && !b->cell && b->value.kind == VAL_BUFFER)
                return b->value.cell;
        }
        if (base.kind == VAL_BLOCK && !b) {
            elab_member(e, base, x->member.name, x->member.name_span);
            return NULL;
        }
        struct diagnostic *d = elab_error(e, E_not_assignable, x->span, "this cannot be assigned");
        elab_help(e, d, "params and states of a block can; blocks cannot be replaced");
        return NULL;
    } else if (x->kind == EXPR_INDEX) {
        struct val v = elab_expr(e, s, x);
        if (v.kind == VAL_BUFFER)
            return v.cell;
        if (v.kind != VAL_ERROR)
            elab_error(e, E_not_assignable, x->span, "a whole variable, param or state is needed here");
        return NULL;
    } else {
        elab_error(e, E_not_assignable, x->span, "this cannot be assigned");
        return NULL;
    }
    struct cell *c = b->cell;
    while (c->alias)
        c = c->alias;
    return c;
}

struct val elab_call_expr(struct elab *e, struct scope *s, const struct ast_expr *x) {
    struct val callee = elab_expr(e, s, x->call.callee);
    VEC(struct arg) args = {0};
    bool fine = callee.kind != VAL_ERROR;
    /* where, and/or-like: on a static condition only the side taken is elaborated */
    bool is_where = callee.kind == VAL_BUILTIN && strcmp(callee.builtin->name, "where") == 0 && x->call.count == 3 &&
                    !x->call.args[0].name && x->call.args[0].value->kind != EXPR_SPLICE;
    for (int i = 0; i < x->call.count; i++) {
        const struct ast_arg *a = &x->call.args[i];
        struct arg v = {.name = a->name, .span = a->value->span};
        if (a->is_inout) {
            v.cell = elab_lvalue(e, s, a->value);
            fine = fine && v.cell;
            VEC_PUSH(e->arena, args, v);
            continue;
        }
        if (a->value->kind == EXPR_SPLICE) {
            struct val_list *list;
            struct val spliced = elab_expr(e, s, a->value->splice.value);
            if (!elab_items(e, spliced, &list, a->value->span)) {
                fine = false;
                continue;
            }
            for (int k = 0; k < list->count; k++)
                VEC_PUSH(e->arena, args, (struct arg){.value = list->items[k], .span = a->value->span});
            continue;
        }
        v.value = elab_expr(e, s, a->value);
        if (v.value.kind == VAL_TUPLE) {
            elab_error(e, E_result_count, v.span, "a call with %d results is used as one value", v.value.list->count);
            v.value = val_error;
        }
        fine = fine && v.value.kind != VAL_ERROR;
        VEC_PUSH(e->arena, args, v);
        if (is_where && i == 0 && v.value.kind == VAL_BOOL)
            return elab_expr(e, s, x->call.args[v.value.b ? 1 : 2].value);
    }
    if (!fine)
        return val_error;
    return elab_call(e, callee, args.at, args.n, x->span);
}

static const struct ast_param *find_param(const struct ast_param *params, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (strcmp(params[i].name, name) == 0)
            return &params[i];
    return NULL;
}

static bool is_none(const struct ast_expr *x) {
    return x && x->kind == EXPR_NONE;
}

/* Distributes arguments over parameters; given[i] is NULL where the default holds. */
static bool distribute(struct elab *e, const struct ast_param *params, int count, struct arg *args, int arg_count,
                       struct arg **given, struct span at, const char *what, struct span decl) {
    int next = 0;
    bool fine = true;
    for (int i = 0; i < arg_count; i++) {
        int p;
        if (args[i].name) {
            const struct ast_param *found = find_param(params, count, args[i].name);
            if (!found) {
                struct diagnostic *d =
                    elab_error(e, E_argument_name, args[i].span, "%s has no parameter `%s`", what, args[i].name);
                elab_note(e, d, decl, "declared here");
                fine = false;
                continue;
            }
            p = (int)(found - params);
        } else {
            if (next >= count) {
                struct diagnostic *d = elab_error(e, E_argument_count, args[i].span, "%s takes %d argument%s, %d given",
                                                  what, count, count == 1 ? "" : "s", arg_count);
                elab_note(e, d, decl, "declared here");
                return false;
            }
            p = next++;
        }
        if (given[p]) {
            elab_error(e, E_argument_twice, args[i].span, "the argument `%s` is given twice", params[p].name);
            fine = false;
            continue;
        }
        if (params[p].is_inout != (args[i].cell != NULL)) {
            struct diagnostic *d = elab_error(
                e, E_inout_argument, args[i].span,
                params[p].is_inout ? "`%s` is inout: the call must say so" : "`%s` is not inout", params[p].name);
            if (params[p].is_inout)
                elab_help(e, d, "write `inout` before the argument: it will be changed");
            fine = false;
            continue;
        }
        given[p] = &args[i];
    }
    for (int i = 0; fine && i < count; i++)
        if (!given[i] && !params[i].initial) {
            struct diagnostic *d =
                elab_error(e, E_argument_missing, at, "%s needs the argument `%s`", what, params[i].name);
            elab_note(e, d, decl, "declared here");
            fine = false;
        }
    return fine;
}

bool elab_bind_params(struct elab *e, struct scope *s, const struct ast_param *params, int count, struct arg *args,
                      int arg_count, struct span at, const char *what, struct span decl) {
    struct arg **given = ARENA_ARRAY(e->arena, struct arg *, count + 1);
    bool *done = ARENA_ARRAY(e->arena, bool, count + 1);
    if (!distribute(e, params, count, args, arg_count, given, at, what, decl))
        return false;
    /* Static arguments first, unchecked: dimensions may name them. */
    for (int i = 0; i < count; i++)
        if (given[i] && !given[i]->cell && !val_is_runtime(given[i]->value))
            scope_bind(e, s, params[i].name, given[i]->value, given[i]->span);
    int left = count;
    /* A round that binds nothing is followed by a bolder one: defaults of later parameters, then errors. */
    for (bool last = false, bold = false;;) {
        int before = left;
        for (int i = 0; i < count; i++) {
            if (done[i])
                continue;
            const struct ast_param *p = &params[i];
            struct span where = given[i] ? given[i]->span : p->span;
            const char *label = arena_printf(e->arena, "`%s` of %s", p->name, what);
            struct val v;
            if (given[i]) {
                v = given[i]->cell ? cell_read(e, given[i]->cell) : given[i]->value;
                if (v.kind == VAL_NONE && is_none(p->initial)) {
                    scope_bind(e, s, p->name, v, where);
                    done[i] = true;
                    left--;
                    continue;
                }
            } else {
                if (is_none(p->initial)) {
                    scope_bind(e, s, p->name, val_none, where);
                    done[i] = true;
                    left--;
                    continue;
                }
                /* a default may use what stands before it */
                bool ready = true;
                for (int k = 0; k < i && ready; k++)
                    ready = done[k];
                if (!last && ((!ready && !bold) || type_has_unbound(e, s, p->initial)))
                    continue;
                struct scope *outer = scope_new(e, s->parent);
                for (struct binding *b = s->first; b; b = b->next)
                    if (!(strcmp(b->name, p->name) == 0 && !done[i])) { /* `lr: f32 = lr` means the outer lr */
                        struct binding *copy = scope_bind(e, outer, b->name, b->value, b->span);
                        copy->cell = b->cell;
                    }
                if (e->defaults == DEEPEST_DEFAULT) {
                    elab_error(e, E_recursion, p->initial->span, "the default of %s needs itself", label);
                    e->gave_up = true;
                    return false;
                }
                e->defaults++;
                v = elab_expr(e, outer, p->initial);
                e->defaults--;
                if (v.kind == VAL_ERROR)
                    return false;
            }
            if (p->type && !(v.kind == VAL_NONE && is_none(p->initial))) {
                enum match m = elab_match(e, s, p->type, &v, where, label, last);
                if (m == MATCH_NO)
                    return false;
                if (m == MATCH_LATER) {
                    if (last) {
                        struct diagnostic *d =
                            elab_error(e, E_type_mismatch, where, "the type of %s cannot be determined", label);
                        elab_note(e, d, p->type->span, "a name in this type is bound nowhere");
                        return false;
                    }
                    continue;
                }
            }
            if (given[i] && given[i]->cell) {
                struct cell *c = cell_new(e, p->name, where);
                c->alias = given[i]->cell;
                while (c->alias->alias)
                    c->alias = c->alias->alias;
                c->is_var = true;
                scope_bind_cell(e, s, p->name, c);
            } else {
                scope_bind(e, s, p->name, v, where);
            }
            done[i] = true;
            left--;
        }
        if (left == 0)
            return true;
        if (left == before) {
            if (last)
                return false;
            last = bold;
            bold = true;
        } else {
            last = bold = false;
        }
    }
}

/* ---- results -------------------------------------------------------------------------------------------------------------- */

bool elab_match_results(struct elab *e, struct scope *s, const struct ast_fn *fn, struct val *v, struct span at,
                        const char *what) {
    if (!fn->has_results)
        return true;
    int have = v->kind == VAL_TUPLE ? v->list->count : v->kind == VAL_NONE ? 0 : 1;
    if (v->kind == VAL_ERROR)
        return false;
    if (have != fn->result_count) {
        elab_error(e, E_result_count, at, "%s declares %d result%s and returns %d", what, fn->result_count,
                   fn->result_count == 1 ? "" : "s", have);
        return false;
    }
    for (int i = 0; i < have; i++) {
        struct val *r = v->kind == VAL_TUPLE ? &v->list->items[i] : v;
        const struct ast_result *d = &fn->results[i];
        if (!d->type)
            continue;
        const struct ast_expr *unknown = type_unbound_element(s, d->type);
        if (unknown) {
            struct diagnostic *x =
                elab_error(e, E_unknown_name, unknown->span, "unknown element type `%s`", unknown->string);
            elab_help(
                e, x,
                "a result's type uses the element types of parameters, or f64 f32 f16 bf16 i64 i32 i16 i8 u64 u32 u16 u8 bool");
            return false;
        }
        const char *label = d->name ? arena_printf(e->arena, "the result `%s` of %s", d->name, what)
                                    : arena_printf(e->arena, "the result of %s", what);
        /* A number or smaller tensor does not grow to a result's shape, but untyped numbers take its type. */
        enum match m = elab_match(e, s, d->type, r, at, label, true);
        if (m == MATCH_LATER)
            elab_error(e, E_type_mismatch, d->span, "a name in the type of %s is bound nowhere", label);
        if (m != MATCH_YES)
            return false;
    }
    return true;
}

/* ---- functions --------------------------------------------------------------------------------------------------------------- */

static struct val run_body(struct elab *e, struct scope *s, const struct ast_fn *fn, struct span at, const char *what) {
    bool returned = e->returned;
    struct val saved = e->result, v;
    const struct ast_fn *outer = e->current_fn;
    e->current_fn = fn;
    e->returned = false;
    e->result = val_none;
    struct span where = at;
    if (fn->body) {
        int failures = e->failures;
        elab_body_block(e, s, fn->body);
        v = e->returned ? e->result : val_none;
        if (e->failures > failures && !e->returned)
            v = val_error;
        else if (!e->returned && fn->has_results && fn->result_count > 0) {
            elab_error(e, E_no_return, fn->body->span, "%s has results but does not return", what);
            v = val_error;
        }
        if (e->returned && fn->body->count > 0)
            where = fn->body->stmts[fn->body->count - 1]->span;
    } else if (fn->value_count == 1) {
        v = elab_expr(e, s, fn->values[0]);
        where = fn->values[0]->span;
    } else {
        v = val_list_new(e, fn->value_count);
        v.kind = VAL_TUPLE;
        for (int i = 0; i < fn->value_count; i++) {
            v.list->items[i] = elab_expr(e, s, fn->values[i]);
            if (v.list->items[i].kind == VAL_ERROR)
                v.kind = VAL_ERROR;
            else if (i == 0)
                where = fn->values[0]->span;
        }
    }
    e->returned = returned;
    e->result = saved;
    e->current_fn = outer;
    if (v.kind == VAL_BUFFER && e->in_function)
        v = cell_read(e, v.cell);
    if (v.kind != VAL_ERROR && !elab_match_results(e, s, fn, &v, where, what))
        return val_error;
    return v;
}

static struct val call_extern(struct elab *e, struct scope *s, struct elab_fn *f, struct span at);

/* Parameters of a kernel of the library that are numbers: what a back end's own version of it asks for. */
static void record_statics(struct elab *e, struct scope *s, const struct ast_fn *fn, struct ir_op *op) {
    VEC(struct ir_static) statics = {0};
    for (int i = 0; i < fn->param_count; i++) {
        const struct binding *b = scope_find_here(s, fn->params[i].name);
        if (!b || b->cell || (b->value.kind != VAL_INT && b->value.kind != VAL_FLOAT && b->value.kind != VAL_BOOL))
            continue;
        double value = b->value.kind == VAL_INT     ? (double)b->value.i
                       : b->value.kind == VAL_FLOAT ? b->value.f
                                                    : b->value.b;
        VEC_PUSH(&e->module->arena, statics,
                 (struct ir_static){arena_strdup(&e->module->arena, fn->params[i].name), value});
    }
    op->kernel.statics = statics.at;
    op->kernel.static_count = statics.n;
}

/* What a gradient clause returns for one parameter: a number, or a tensor of the parameter's own shape. A smaller one would broadcast,
 * and a gradient is no sum over what it was broadcast from. */
static struct ir_value *gradient_result(struct elab *e, struct val v, struct ir_type t, struct span at,
                                        const char *name) {
    const char *what = arena_printf(e->arena, "the gradient of `%s`", name);
    bool same = true;
    if (val_is_runtime(v)) {
        struct ir_type own = val_runtime_type(e, v);
        same = own.rank == t.rank;
        for (int i = 0; same && i < t.rank; i++)
            same = elab_dims_equal(e, own.dims[i], t.dims[i], at);
        if (!same) {
            struct diagnostic *d = elab_error(e, E_shape_mismatch, at, "%s has another shape than `%s`", what, name);
            elab_label(e, d, "%s, `%s` is %s", type_text(e, own), name, type_text(e, t));
        }
    }
    return same ? elab_broadcast(e, v, t, at, what) : NULL;
}

/* A kernel function or one with its own gradient: one operation holding its definition. */
static struct val call_kernel(struct elab *e, struct scope *s, struct elab_fn *f, bool own_gradient, struct span at,
                              const char *what) {
    const struct ast_fn *fn = &f->decl->fn;
    struct ir_value *operands[64];
    int n = 0, params[64];
    for (int i = 0; i < fn->param_count; i++) {
        struct binding *b = scope_find_here(s, fn->params[i].name);
        if (!b || b->cell || !val_is_runtime(b->value))
            continue;
        if (n == 64) {
            elab_error(e, E_argument_count, at, "%s has more than 64 tensor arguments", what);
            return val_error;
        }
        if (!(operands[n] = elab_materialize(e, b->value, DTYPE_COUNT, at)))
            return val_error;
        params[n++] = i;
    }
    struct ir_op *op = ir_op_new(&e->b, OP_kernel, operands, n, own_gradient ? 2 : 1);
    op->name = arena_strdup(&e->module->arena, f->name);
    op->kernel.tuned = fn->is_kernel;
    if (fn->is_kernel && f->decl->span.source && f->decl->span.source->path[0] == '<')
        record_statics(e, s, fn, op);
    struct ir_builder saved = e->b;
    size_t touched = (size_t)e->touched.n;
    struct frame frame = {.outer = e->frame, .kind = FRAME_BRANCH, .region = op->regions[0]};
    e->frame = &frame;
    e->b.region = op->regions[0];
    e->b.before = NULL;
    for (int i = 0; i < n; i++) {
        struct ir_value *arg = ir_region_arg(op->regions[0], operands[i]->type, fn->params[params[i]].name);
        scope_bind(e, s, fn->params[params[i]].name, elab_from_value(e, arg), at);
    }
    struct val v = f->header ? call_extern(e, s, f, at) : run_body(e, s, fn, at, what);
    bool fine = v.kind != VAL_ERROR;
    struct ir_value *results[64];
    int count = v.kind == VAL_TUPLE ? v.list->count : v.kind == VAL_NONE ? 0 : 1;
    for (int i = 0; fine && i < count && i < 64; i++) {
        results[i] = elab_materialize(e, v.kind == VAL_TUPLE ? v.list->items[i] : v, DTYPE_COUNT, at);
        fine = results[i] != NULL;
    }
    bool writes = false;
    for (int i = 0; i < frame.journal.n; i++)
        writes = writes || (frame.journal.at[i].cell->buffer && frame.journal.at[i].assigned);
    if (fine && (writes || ((size_t)e->touched.n > touched && own_gradient))) {
        struct diagnostic *d = elab_error(e, E_function_uses_buffers, at, "%s is %s and uses params or states", what,
                                          own_gradient ? "a function with its own gradient" : "a kernel function");
        elab_help(e, d, "pass them as arguments");
        fine = false;
    }
    e->b = saved;
    if (fine) {
        ir_region_yield(op->regions[0], results, count);
        for (int i = 0; i < count; i++)
            ir_op_result(op, results[i]->type);
    }
    if (fine && own_gradient) {
        struct ir_region *g = op->regions[1];
        e->b.region = g;
        e->b.before = NULL;
        frame.region = g;
        struct scope *gs = scope_new(e, s->parent);
        for (struct binding *b = s->first; b; b = b->next) { /* static parameters and dimensions stay in scope */
            struct binding *copy = scope_bind(e, gs, b->name, b->value, b->span);
            copy->cell = b->cell;
        }
        int name = 0, total = 0;
        for (int part = 0; part < 3; part++) {
            int k = part == 0 ? n : count;
            for (int i = 0; i < k; i++) {
                struct ir_type t = part == 0 ? operands[i]->type : results[i]->type;
                if (part == 2 && !dtype_is_float(t.dtype))
                    continue;
                const char *own = name < fn->gradient_count ? fn->gradient_names[name] : "_";
                struct ir_value *arg = ir_region_arg(g, t, own);
                if (name < fn->gradient_count)
                    scope_bind(e, gs, own, elab_from_value(e, arg), fn->gradient_span);
                name++;
                total++;
            }
        }
        if (total != fn->gradient_count) {
            struct diagnostic *d = elab_error(
                e, E_gradient_count, fn->gradient_span,
                "gradient(…) names %d values; %s has %d: its tensor parameters, results, and their gradients",
                fn->gradient_count, what, total);
            elab_note(e, d, at, "in this call");
            fine = false;
        } else {
            struct ast_fn body = {.body = fn->gradient};
            struct gradient_frame gf = {.outer = e->gradients, .fn = fn};
            e->gradients = &gf;
            struct val gv =
                run_body(e, gs, &body, fn->gradient_span, arena_printf(e->arena, "the gradient of %s", what));
            e->gradients = gf.outer;
            int got = gv.kind == VAL_TUPLE ? gv.list->count : gv.kind == VAL_NONE ? 0 : 1, want = 0;
            for (int i = 0; i < n; i++)
                want += dtype_is_float(operands[i]->type.dtype);
            struct ir_value *yields[64];
            if (gv.kind == VAL_ERROR) {
                fine = false;
            } else if (got != want) {
                elab_error(e, E_gradient_count, fn->gradient_span,
                           "the gradient of %s returns %d values, one for each of %d float parameters is needed", what,
                           got, want);
                fine = false;
            }
            for (int i = 0, k = 0; fine && i < n; i++)
                if (dtype_is_float(operands[i]->type.dtype)) {
                    yields[k] = gradient_result(e, gv.kind == VAL_TUPLE ? gv.list->items[k] : gv, operands[i]->type,
                                                fn->gradient_span, fn->params[params[i]].name);
                    fine = yields[k++] != NULL;
                }
            if (fine)
                ir_region_yield(g, yields, want);
        }
        e->b = saved;
    }
    e->frame = frame.outer;
    if (!fine) {
        /* the program is wrong already; give the types a chance to be checked further */
        return val_error;
    }
    if (count == 0)
        return val_none;
    if (count == 1)
        return elab_from_value(e, op->results[0]);
    struct val out = val_list_new(e, count);
    out.kind = VAL_TUPLE;
    for (int i = 0; i < count; i++)
        out.list->items[i] = elab_from_value(e, op->results[i]);
    return out;
}

/* The C declaration, where libclang can read it, against what the call passes: pointers to const are read, others written. */
static bool check_signature(struct elab *e, const struct elab_fn *f, const struct ast_expr *call, const int *params,
                            int count, struct ir_value **operands, const struct ir_type *results, bool returns) {
    struct extern_signature s;
    const char *from = f->decl->span.source ? f->decl->span.source->path : "", *slash = strrchr(from, '/'),
               *path = f->header;
    if (path[0] != '/' && slash)
        path = arena_printf(e->arena, "%.*s/%s", (int)(slash - from), from, path);
    const char *name = call->call.callee->string;
    if (access(path, R_OK) == 0)
        diag_note_file(e->diag, path);
    switch (extern_header_read(e->arena, path, name, &s)) {
    case EXTERN_FOUND: break;
    case EXTERN_NO_FUNCTION:
        elab_error(e, E_extern_call, call->span, "`%s` declares no function `%s`", f->header, name);
        return false;
    default: return true; /* on the include path of the C compiler, perhaps: it will tell */
    }
    if (s.count != count) {
        elab_error(e, E_extern_call, call->span, "`%s` has %d parameters in `%s`, %d are passed", name, s.count,
                   f->header, count);
        return false;
    }
    for (int i = 0; i < count; i++) {
        const struct extern_param *p = &s.params[i];
        struct span at = call->call.args[i].span;
        struct ir_type t = params[i] >= 0 ? operands[params[i]]->type : results[~params[i]];
        bool pointer = params[i] < 0 || t.rank > 0, half = t.dtype == F16 || t.dtype == BF16;
        if (p->is_pointer != pointer) {
            elab_error(e, E_extern_call, at, "parameter %d of `%s` is `%s`, but a %s is passed", i + 1, name, p->type,
                       pointer ? "tensor" : "scalar");
            return false;
        }
        if (pointer && p->known && p->dtype != t.dtype && !(half && p->dtype == U16)) {
            elab_error(e, E_extern_call, at, "parameter %d of `%s` is `%s`, but %s is passed", i + 1, name, p->type,
                       type_text(e, t));
            return false;
        }
        if (pointer && p->is_const == (params[i] < 0)) {
            struct diagnostic *d =
                elab_error(e, E_extern_call, at,
                           params[i] < 0 ? "`%s` only reads parameter %d (`%s`), but the result is passed"
                                         : "`%s` may write parameter %d (`%s`), which is an argument here",
                           name, i + 1, p->type);
            elab_help(e, d,
                      "pointers to const are read, the others written: what is written is `result` or a named result");
            return false;
        }
    }
    if (returns && (s.returns_void || s.result.is_pointer || (s.result.known && s.result.dtype != results[0].dtype))) {
        elab_error(e, E_extern_call, call->span, "`%s` returns `%s`, not %s", name, s.result.type,
                   type_text(e, results[0]));
        return false;
    }
    return true;
}

/* `fn sobel(x: f32[H, W]) -> f32[H, W] = sobel_f32(x, H, W, result)` */
static struct val call_extern(struct elab *e, struct scope *s, struct elab_fn *f, struct span at) {
    const struct ast_fn *fn = &f->decl->fn;
    if (fn->value_count != 1 || fn->values[0]->kind != EXPR_CALL || fn->values[0]->call.callee->kind != EXPR_NAME) {
        elab_error(e, E_extern_call, f->decl->span, "an extern function is one C call: `= sobel_f32(x, H, W, result)`");
        return val_error;
    }
    const struct ast_expr *call = fn->values[0];
    struct ir_type results[32];
    for (int i = 0; i < fn->result_count; i++)
        if (i >= 32 || !elab_type(e, s, fn->results[i].type, &results[i]))
            return val_error;
    struct ir_value *operands[64];
    int n = 0, *params = ARENA_ARRAY(&e->module->arena, int, call->call.count + 1);
    bool used_result[32] = {false};
    for (int i = 0; i < call->call.count; i++) {
        const struct ast_expr *a = call->call.args[i].value;
        int result = -1;
        for (int k = 0; a->kind == EXPR_NAME && k < fn->result_count; k++)
            if (strcmp(a->string, fn->results[k].name ? fn->results[k].name : "result") == 0 &&
                !scope_find_here(s, a->string))
                result = k;
        if (result >= 0) {
            params[i] = ~result;
            used_result[result] = true;
            continue;
        }
        if (n == 64) {
            elab_error(e, E_extern_call, call->span, "a C call with more than 64 arguments");
            return val_error;
        }
        operands[n] = elab_materialize(e, elab_expr(e, s, a), DTYPE_COUNT, a->span);
        if (!operands[n])
            return val_error;
        params[i] = n++;
    }
    if (!check_signature(e, f, call, params, call->call.count, operands, results,
                         fn->result_count > 0 && !used_result[0]))
        return val_error;
    struct ir_op *op = ir_op_new(&e->b, OP_extern, operands, n, 0);
    op->name = arena_strdup(&e->module->arena, f->name);
    op->external.header = arena_strdup(&e->module->arena, f->header);
    op->external.symbol = arena_strdup(&e->module->arena, call->call.callee->string);
    op->external.params = params;
    op->external.param_count = call->call.count;
    op->external.returns = fn->result_count > 0 && !used_result[0];
    for (int i = 1; i < fn->result_count; i++)
        if (!used_result[i]) {
            elab_error(e, E_extern_call, call->span, "the result `%s` is not among the arguments of the C call",
                       fn->results[i].name ? fn->results[i].name : "result");
            return val_error;
        }
    if (op->external.returns && results[0].rank > 0) {
        elab_error(e, E_extern_call, call->span,
                   "the result must stand among the arguments of the C call (as `result`): it is a tensor");
        return val_error;
    }
    struct val out = val_list_new(e, fn->result_count);
    for (int i = 0; i < fn->result_count; i++)
        out.list->items[i] = elab_from_value(e, ir_op_result(op, results[i]));
    if (fn->result_count == 1)
        return out.list->items[0];
    out.kind = fn->result_count ? VAL_TUPLE : VAL_NONE;
    (void)at;
    return out;
}

struct val elab_call_fn(struct elab *e, struct elab_fn *f, struct arg *args, int count, struct span at) {
    const struct ast_fn *fn = &f->decl->fn;
    const char *what =
        f->scope->instance ? arena_printf(e->arena, "%s.%s", f->scope->instance->class_->name, f->name) : f->name;
    bool training = e->training;
    /* `training = false` overrides for a call */
    if (!find_param(fn->params, fn->param_count, "training"))
        for (int i = 0; i < count; i++)
            if (args[i].name && strcmp(args[i].name, "training") == 0) {
                if (args[i].value.kind != VAL_BOOL) {
                    elab_error(e, E_not_static, args[i].span, "`training` must be true or false");
                    return val_error;
                }
                e->training = args[i].value.b;
                struct arg *rest = ARENA_ARRAY(e->arena, struct arg, count + 1);
                memcpy(rest, args, sizeof *rest * (size_t)i);
                memcpy(rest + i, args + i + 1, sizeof *rest * (size_t)(count - i - 1));
                args = rest;
                count--;
                break;
            }
    struct scope *s = scope_new(e, f->scope);
    s->is_function = true;
    struct val v = val_error;
    struct call_frame frame;
    if (elab_bind_params(e, s, fn->params, fn->param_count, args, count, at, what, f->decl->name_span) &&
        elab_enter(e, what, at, &frame)) {
        const struct instance *own = f->scope->instance;
        const char *dot = own && own->name ? strrchr(own->name, '.') : NULL;
        frame.hint = !own || strcmp(f->name, "forward") != 0 ? f->name
                     : !own->name                            ? own->class_->name
                     : dot && dot[1] > '9'                   ? dot + 1
                                                             : own->name;
        bool own_gradient = fn->gradient != NULL;
        for (const struct gradient_frame *g = e->gradients; g; g = g->outer)
            own_gradient = own_gradient && g->fn != fn;
        bool one_operation = (fn->is_kernel || own_gradient) && e->in_function && !in_notation(e);
        bool has_inout = false;
        for (int i = 0; i < fn->param_count; i++)
            has_inout = has_inout || fn->params[i].is_inout;
        if (one_operation && !has_inout)
            v = call_kernel(e, s, f, own_gradient, at, what);
        else if (f->header && !e->in_function)
            elab_error(e, E_not_static, at, "an extern function runs only in the program");
        else if (f->header)
            v = call_extern(e, s, f, at);
        else
            v = run_body(e, s, fn, at, what);
        elab_leave(e, &frame);
    }
    e->training = training;
    return v;
}

/* ---- calls of anything ------------------------------------------------------------------------------------------------------- */

struct val elab_call(struct elab *e, struct val callee, struct arg *args, int count, struct span at) {
    switch (callee.kind) {
    case VAL_ERROR: return callee;
    case VAL_FN: return elab_call_fn(e, callee.fn, args, count, at);
    case VAL_BUILTIN: return callee.builtin->run(e, callee.builtin, args, count, at);
    case VAL_CLASS: return elab_instantiate(e, callee.class_, args, count, at);
    case VAL_BLOCK: {
        struct binding *b = scope_find_here(callee.block->scope, "forward");
        if (b && b->value.kind == VAL_FN)
            return elab_call_fn(e, b->value.fn, args, count, at);
        elab_error(e, E_not_callable, at, "block `%s` has no `forward`", callee.block->class_->name);
        return val_error;
    }
    case VAL_TYPE:
        if (callee.type->rank > 0)
            break;
        callee = (struct val){.kind = VAL_DTYPE, .dtype = callee.type->dtype};
    /* fall through */
    case VAL_DTYPE:
        if (count != 1 || args[0].name || args[0].cell) {
            elab_error(e, E_argument_count, at, "%s(…) converts one value", dtype_name(callee.dtype));
            return val_error;
        }
        return elab_cast(e, callee.dtype, args[0].value, at);
    default: break;
    }
    struct diagnostic *d = elab_error(e, E_not_callable, at, "this cannot be called");
    elab_label(e, d, "%s", val_describe(e, callee));
    if (val_is_runtime(callee))
        elab_help(e, d, "an index is written in brackets: x[i]");
    return val_error;
}
