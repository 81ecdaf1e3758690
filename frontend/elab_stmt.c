/* Statements. */
#include <string.h>

#include "frontend/elab.h"

static struct val snapshot(struct elab *e, struct val v) {
    return v.kind == VAL_BUFFER && e->in_function ? cell_read(e, v.cell) : v;
}

/* A named float is a value of its own: grad can be asked for it, and it is computed once. */
static struct val named(struct elab *e, struct val v, struct span at) {
    if (v.kind == VAL_SCALAR && v.expr->kind != X_CONST && !(v.expr->kind == X_LOAD && v.expr->count == 0) &&
        dtype_is_float(v.expr->dtype) && e->in_function && !in_notation(e))
        return elab_from_value(e, elab_materialize(e, v, DTYPE_COUNT, at));
    return v;
}

static void name_value(struct elab *e, struct val v, const char *name) {
    if (v.kind == VAL_TENSOR && !v.value->name)
        v.value->name = arena_strdup(&e->module->arena, name);
}

static void redefinition(struct elab *e, struct scope *s, const struct ast_name *n) {
    struct binding *b = scope_find_here(s, n->name);
    if (b && strcmp(n->name, "_") != 0) {
        struct diagnostic *d = elab_error(e, E_redefined, n->span, "`%s` is already defined here", n->name);
        elab_note(e, d, b->span, "first defined here");
    }
}

static void elab_let(struct elab *e, struct scope *s, const struct ast_stmt *x) {
    struct val v = named(e, snapshot(e, elab_expr(e, s, x->let.value)), x->span);
    for (int i = 0; i < x->let.names.count; i++)
        redefinition(e, s, &x->let.names.names[i]);
    if (x->let.type) {
        struct ir_type t;
        if (!elab_type(e, s, x->let.type, &t))
            v = val_error;
        else if (v.kind != VAL_ERROR)
            v = elab_from_value(e, elab_broadcast(e, v, t, x->let.value->span,
                                                  arena_printf(e->arena, "`%s`", x->let.names.names[0].name)));
    }
    if (x->let.names.count == 1 && !x->let.names.parenthesized) {
        if (v.kind == VAL_TUPLE) {
            elab_error(e, E_result_count, x->let.value->span, "%d results for one name", v.list->count);
            v = val_error;
        }
        if (v.kind == VAL_NONE && x->let.value->kind == EXPR_CALL) {
            elab_error(e, E_no_return, x->let.value->span, "the function returns nothing");
            v = val_error;
        }
        name_value(e, v, x->let.names.names[0].name);
        scope_bind(e, s, x->let.names.names[0].name, v, x->let.names.names[0].span);
        return;
    }
    struct ast_pattern p = x->let.names;
    p.parenthesized = true;
    if (bind_pattern(e, s, &p, v))
        for (int i = 0; i < p.count; i++)
            name_value(e, v.list->items[i], p.names[i].name);
}

static void elab_var(struct elab *e, struct scope *s, const struct ast_stmt *x) {
    const struct ast_name *n = &x->let.names.names[0];
    struct val v = x->let.value ? named(e, snapshot(e, elab_expr(e, s, x->let.value)), x->span) : val_none;
    if (x->let.names.count > 1 || x->let.names.parenthesized) {
        if ((v.kind != VAL_LIST && v.kind != VAL_TUPLE) || v.list->count != x->let.names.count) {
            if (v.kind != VAL_ERROR)
                elab_error(e, E_pattern, x->span, "%d names for %s", x->let.names.count, val_describe(e, v));
            v = val_error;
        }
    } else if (v.kind == VAL_TUPLE) {
        elab_error(e, E_result_count, x->let.value->span, "%d results for one name", v.list->count);
        v = val_error;
    }
    bool several = x->let.names.count > 1 || x->let.names.parenthesized;
    for (int i = 0; i < x->let.names.count; i++) {
        redefinition(e, s, &x->let.names.names[i]);
        struct cell *c = cell_new(e, x->let.names.names[i].name, x->let.names.names[i].span);
        c->is_var = true;
        c->value = several && v.kind != VAL_ERROR ? v.list->items[i] : v;
        if (x->let.type) {
            c->typed = elab_type(e, s, x->let.type, &c->type);
            if (!c->typed) {
                c->value = val_error;
            } else if (c->value.kind != VAL_ERROR) {
                struct val init = x->let.value ? c->value : c->type.dtype == BOOL ? val_bool(false) : val_int(0);
                struct val full =
                    elab_from_value(e, elab_broadcast(e, init, c->type, x->let.value ? x->let.value->span : x->span,
                                                      arena_printf(e->arena, "`%s`", n->name)));
                c->value = full;
            }
        }
        name_value(e, c->value, c->name);
        if (c->value.kind == VAL_TENSOR)
            c->value.value->buffer_name = c->name;
        scope_bind_cell(e, s, c->name, c);
    }
}

/* target = v for a whole name, param or state. */
static void assign_cell(struct elab *e, struct cell *c, struct val v, struct span at, const char *name) {
    if (v.kind == VAL_ERROR) {
        if (!c->buffer && !c->typed)
            cell_write(e, c, v);
        return;
    }
    v = snapshot(e, v);
    if (c->buffer && !e->in_function) {
        elab_error(e, E_not_assignable, at, "`%s` is written only by functions of the program", name);
        return;
    }
    if (c->typed && !c->buffer && c->type.rank == 0 && in_notation(e)) {
        v = elab_fit(e, v, c->type.dtype, at);
        if (v.kind != VAL_ERROR)
            cell_write(e, c, v);
        return;
    }
    if (c->buffer || c->typed) {
        struct ir_value *x = elab_broadcast(e, v, c->type, at, arena_printf(e->arena, "`%s`", name));
        if (!x)
            return;
        if (c->buffer) {
            buffer_value(e, c); /* version 0 exists, so that loops carry it */
            cell_write(e, c, val_tensor(x));
        } else {
            cell_write(e, c, elab_from_value(e, x));
        }
        return;
    }
    v = named(e, v, at);
    name_value(e, v, name);
    cell_write(e, c, v);
}

static const char *target_name(const struct ast_expr *x) {
    return x->kind == EXPR_NAME ? x->string : x->kind == EXPR_MEMBER ? x->member.name : "the target";
}

static void assign_one(struct elab *e, struct scope *s, const struct ast_expr *target, bool has_op, enum binary_op op,
                       struct val v, const struct ast_stmt *x) {
    if (target->kind == EXPR_INDEX) {
        /* an element write; the base must be assignable as a whole */
        struct val whole = val_error;
        const struct ast_expr *base = target->index.base;
        if (base->kind == EXPR_NAME || base->kind == EXPR_MEMBER || base->kind == EXPR_INDEX) {
            if (base->kind == EXPR_INDEX) {
                struct val b = elab_expr(e, s, base);
                if (b.kind != VAL_BUFFER && b.kind != VAL_ERROR) {
                    struct diagnostic *d =
                        elab_error(e, E_not_assignable, base->span, "a part of a part cannot be assigned");
                    elab_help(e, d, "write one index: x[i, j]");
                }
                if (b.kind != VAL_BUFFER)
                    return;
            }
            struct cell *c = elab_lvalue(e, s, base);
            if (!c)
                return;
            if (c->buffer && !e->in_function) {
                elab_error(e, E_not_assignable, target->span, "`%s` is written only by functions of the program",
                           c->name);
                return;
            }
            whole = cell_read(e, c);
            if (whole.kind == VAL_ERROR || v.kind == VAL_ERROR)
                return;
            if (!val_is_runtime(whole)) {
                struct diagnostic *d =
                    elab_error(e, E_not_assignable, base->span, "elements of this cannot be assigned");
                elab_label(e, d, "%s", val_describe(e, whole));
                return;
            }
            struct ir_value *next = elab_update(e, s, whole, target, has_op, op, v, x->span);
            if (next) {
                next->name = c->name;
                cell_write(e, c, elab_from_value(e, next));
            }
            return;
        }
        elab_error(e, E_not_assignable, target->span, "this cannot be assigned");
        return;
    }
    struct cell *c = elab_lvalue(e, s, target);
    if (!c)
        return;
    if (has_op) {
        struct val old = cell_read(e, c);
        v = elab_binary(e, op, old, v, x->span);
    }
    assign_cell(e, c, v, x->span, target_name(target));
}

static void elab_assign(struct elab *e, struct scope *s, const struct ast_stmt *x) {
    const struct ast_expr *first = x->assign.targets[0];
    /* `net = Net()` at file or block level makes a name */
    if (!e->in_function && !x->assign.has_op && x->assign.count == 1 && first->kind == EXPR_NAME &&
        !scope_find_here(s, first->string)) {
        struct val v = elab_expr(e, s, x->assign.value);
        elab_assign_name(e, s, first->string, v, first->span);
        return;
    }
    struct val v = elab_expr(e, s, x->assign.value);
    if (!e->in_function && !x->assign.has_op && x->assign.count == 1 && first->kind == EXPR_NAME) {
        struct binding *b = scope_find_here(s, first->string);
        if (b && !b->cell) {
            struct diagnostic *d =
                elab_error(e, E_redefined, first->span, "`%s` is already defined here", first->string);
            elab_note(e, d, b->span, "first defined here");
            return;
        }
    }
    if (x->assign.count == 1) {
        if (v.kind == VAL_TUPLE) {
            elab_error(e, E_result_count, x->assign.value->span, "%d results for one target", v.list->count);
            v = val_error;
        }
        if (v.kind == VAL_NONE && x->assign.value->kind == EXPR_CALL) {
            elab_error(e, E_no_return, x->assign.value->span, "the function returns nothing");
            v = val_error;
        }
        assign_one(e, s, first, x->assign.has_op, x->assign.op, v, x);
        return;
    }
    if ((v.kind != VAL_TUPLE && v.kind != VAL_LIST) || v.list->count != x->assign.count) {
        if (v.kind != VAL_ERROR)
            elab_error(e, E_result_count, x->span, "%d targets for %s", x->assign.count, val_describe(e, v));
        v = val_error;
    }
    for (int i = 0; i < x->assign.count; i++)
        assign_one(e, s, x->assign.targets[i], x->assign.has_op, x->assign.op,
                   v.kind == VAL_ERROR ? v : v.list->items[i], x);
}

/* An error in one iteration is likely in all of them, and what the later ones assign rests on it: the first ends the loop. */
static void unrolled_for(struct elab *e, struct scope *s, const struct ast_stmt *x, struct val iter) {
    struct val_list *list;
    int failures = e->failures;
    if (!elab_items(e, iter, &list, x->for_.iter->span)) {
        elab_spoil_assigned(e, s, x->for_.body);
        return;
    }
    for (int i = 0; i < list->count && !e->gave_up; i++) {
        struct scope *inner = scope_new(e, s);
        if (!bind_pattern(e, inner, &x->for_.pattern, list->items[i])) {
            elab_spoil_assigned(e, s, x->for_.body);
            return;
        }
        elab_stmts(e, inner, x->for_.body->stmts, x->for_.body->count);
        if (e->returned) {
            if (e->result.kind != VAL_ERROR)
                elab_error(e, E_return_place, x->span, "`return` cannot stand in a loop");
            return;
        }
        if (e->failures > failures) {
            elab_spoil_assigned(e, s, x->for_.body);
            return;
        }
        elab_spend(e, 1, x->span);
    }
}

static void elab_for(struct elab *e, struct scope *s, const struct ast_stmt *x) {
    struct val iter = elab_expr(e, s, x->for_.iter);
    if (iter.kind == VAL_ERROR) {
        elab_spoil_assigned(e, s, x->for_.body);
        return;
    }
    if (x->for_.unroll || !e->in_function) {
        unrolled_for(e, s, x, iter);
        return;
    }
    if (in_notation(e)) {
        elab_error(e, E_index_body, x->span, "a loop of the program cannot stand inside index notation");
        return;
    }
    /* A range with known ends was made a list: it is a loop all the same. */
    if (x->for_.iter->kind == EXPR_RANGE && iter.kind == VAL_LIST) {
        struct val_range *r = ARENA_NEW(e->arena, struct val_range);
        r->lo = elab_expr(e, s, x->for_.iter->range.lo);
        r->hi = elab_expr(e, s, x->for_.iter->range.hi);
        iter = (struct val){.kind = VAL_RANGE, .range = r};
    }
    if (iter.kind != VAL_RANGE) {
        struct diagnostic *d = elab_error(e, E_iterate, x->for_.iter->span, "a loop of the program runs over a range");
        elab_label(e, d, "%s", val_describe(e, iter));
        elab_help(e, d, "`unroll for` runs over a list, at compile time");
        elab_spoil_assigned(e, s, x->for_.body);
        return;
    }
    elab_runtime_for(e, s, x, iter);
}

static void elab_if(struct elab *e, struct scope *s, const struct ast_stmt *x) {
    struct val cond;
    int c = elab_condition(e, s, x->if_.cond, &cond);
    if (c == -2) {
        elab_spoil_assigned(e, s, x->if_.then);
        elab_spoil_assigned(e, s, x->if_.otherwise);
        return;
    }
    if (c >= 0) {
        const struct ast_block_body *side = c ? x->if_.then : x->if_.otherwise;
        if (side) {
            /* declarations of a static branch belong to the block or file around it */
            if (e->in_function)
                elab_body_block(e, s, side);
            else
                elab_stmts(e, s, side->stmts, side->count);
        }
        return;
    }
    if (!e->in_function) {
        elab_error(e, E_not_static, x->if_.cond->span, "this condition must be known at compile time");
        return;
    }
    elab_runtime_if(e, s, x, cond);
}

static void elab_return(struct elab *e, struct scope *s, const struct ast_stmt *x) {
    struct val v;
    if (x->ret.count == 1) {
        v = elab_expr(e, s, x->ret.values[0]);
    } else if (x->ret.count == 0) {
        v = val_none;
    } else {
        v = val_list_new(e, x->ret.count);
        v.kind = VAL_TUPLE;
        for (int i = 0; i < x->ret.count; i++) {
            struct val one = snapshot(e, elab_expr(e, s, x->ret.values[i]));
            if (one.kind == VAL_TUPLE) {
                elab_error(e, E_result_count, x->ret.values[i]->span,
                           "a call with several results is one of several results");
                one = val_error;
            }
            if (one.kind == VAL_ERROR)
                v.kind = VAL_ERROR;
            if (v.kind == VAL_TUPLE)
                v.list->items[i] = one;
        }
    }
    e->result = snapshot(e, v);
    e->returned = true;
}

static void elab_assert(struct elab *e, struct scope *s, const struct ast_stmt *x) {
    struct val cond;
    int c = elab_condition(e, s, x->assert_.cond, &cond);
    if (c == -2 || c == 1)
        return;
    const char *text = "assertion failed";
    if (x->assert_.message) {
        struct val m = elab_expr(e, s, x->assert_.message);
        if (m.kind == VAL_STRING)
            text = m.s;
        else if (m.kind != VAL_ERROR)
            elab_error(e, E_type_mismatch, x->assert_.message->span, "the message of an assert must be a string");
    }
    if (c == 0) {
        if (e->frame) /* a branch that is never taken may hold it */
            for (struct frame *f = e->frame; f; f = f->outer)
                if (f->kind == FRAME_BRANCH)
                    goto runtime;
        struct diagnostic *d = elab_error(e, E_assert_failed, x->span, "%s", text);
        elab_label(e, d, "this is false");
        if (!s->path) { /* what follows in this function or block rests on it */
            e->result = val_error;
            e->returned = true;
        }
        return;
    }
runtime:
    if (!e->in_function) {
        elab_error(e, E_not_static, x->span, "this assertion must be decided at compile time");
        return;
    }
    ir_expr condition = c == 0 ? ir_const_int(e->module, BOOL, 0) : cond.expr;
    if (in_notation(e)) {
        elab_require(e, condition, x->span, E_assert_failed, text);
        return;
    }
    struct ir_value *v = elab_materialize(e, val_scalar(condition), BOOL, x->span);
    int line, column;
    span_position(x->span, &line, &column);
    if (v)
        ir_build_check(&e->b, v,
                       arena_printf(&e->module->arena, "%s:%d:%d: %s", x->span.source ? x->span.source->path : "?",
                                    line, column, text));
}

static void elab_stmt(struct elab *e, struct scope *s, const struct ast_stmt *x) {
    struct span saved = e->b.span;
    e->b.span = x->span;
    e->depth++; /* elab_expr watches it */
    switch (x->kind) {
    case STMT_LET: elab_let(e, s, x); break;
    case STMT_VAR: elab_var(e, s, x); break;
    case STMT_ASSIGN: elab_assign(e, s, x); break;
    case STMT_EXPR: elab_expr(e, s, x->expr); break;
    case STMT_FOR: elab_for(e, s, x); break;
    case STMT_WHILE:
        if (!e->in_function || in_notation(e))
            elab_error(e, E_not_static, x->span, "`while` is a loop of the program: it stands in a function");
        else
            elab_runtime_while(e, s, x);
        break;
    case STMT_IF: elab_if(e, s, x); break;
    case STMT_RETURN: elab_return(e, s, x); break;
    case STMT_ASSERT: elab_assert(e, s, x); break;
    case STMT_CHECKPOINT: elab_checkpoint(e, s, x); break;
    case STMT_DECL: elab_decl(e, s, x->decl); break;
    case STMT_ERROR: break;
    }
    e->depth--;
    e->b.span = saved;
}

void elab_stmts(struct elab *e, struct scope *s, struct ast_stmt *const *stmts, int count) {
    for (int i = 0; i < count && !e->gave_up; i++) {
        elab_stmt(e, s, stmts[i]);
        if (e->returned) { /* under a static `if`: the rest is for the other case */
            if (stmts[i]->kind == STMT_RETURN && i + 1 < count)
                elab_error(e, E_return_place, stmts[i + 1]->span, "this stands behind `return`");
            return;
        }
    }
}

void elab_body_block(struct elab *e, struct scope *s, const struct ast_block_body *b) {
    elab_stmts(e, scope_new(e, s), b->stmts, b->count);
}
