/* Control flow of the program: branches and loops become operations with regions. What a region assigns is recorded in
 * its journal and becomes the operation's results; what a loop reads or assigns of the outside becomes a carried value
 * (see elab_scope.c for the half that is found while reading). Local variables are found beforehand in the syntax,
 * since a variable that holds a static value becomes one of the program by being assigned in a loop. */
#include <string.h>

#include "frontend/elab.h"

/* ---- which local variables a body assigns ------------------------------------------------------------------------------ */

struct names {
    struct elab *e;
    struct scope *scope;
    VEC(struct cell *) cells;
    VEC(const char *) hidden; /* declared inside */
};

static void note_assigned(struct names *n, const struct ast_expr *x) {
    while (x->kind == EXPR_INDEX)
        x = x->index.base;
    if (x->kind != EXPR_NAME)
        return;
    for (int i = 0; i < n->hidden.n; i++)
        if (strcmp(n->hidden.at[i], x->string) == 0)
            return;
    struct binding *b = scope_find(n->scope, x->string);
    if (!b || !b->cell)
        return;
    struct cell *c = b->cell;
    while (c->alias)
        c = c->alias;
    if (c->buffer || !c->is_var)
        return; /* buffers are found when they are read */
    for (int i = 0; i < n->cells.n; i++)
        if (n->cells.at[i] == c)
            return;
    VEC_PUSH(n->e->arena, n->cells, c);
}

static void note_expr(struct names *n, const struct ast_expr *x) {
    if (!x)
        return;
    switch (x->kind) {
    case EXPR_CALL:
        note_expr(n, x->call.callee);
        for (int i = 0; i < x->call.count; i++) {
            if (x->call.args[i].is_inout)
                note_assigned(n, x->call.args[i].value);
            note_expr(n, x->call.args[i].value);
        }
        break;
    case EXPR_LIST:
        for (int i = 0; i < x->list.count; i++)
            note_expr(n, x->list.items[i]);
        break;
    case EXPR_LISTCOMP:
        note_expr(n, x->listcomp.value);
        note_expr(n, x->listcomp.iter);
        break;
    case EXPR_INDEX:
        note_expr(n, x->index.base);
        for (int i = 0; i < x->index.count; i++)
            note_expr(n, x->index.subs[i].index);
        break;
    case EXPR_MEMBER: note_expr(n, x->member.base); break;
    case EXPR_UNARY: note_expr(n, x->unary.arg); break;
    case EXPR_BINARY:
        note_expr(n, x->binary.left);
        note_expr(n, x->binary.right);
        break;
    case EXPR_GUARD:
        note_expr(n, x->guard.base);
        note_expr(n, x->guard.otherwise);
        break;
    case EXPR_SPLICE: note_expr(n, x->splice.value); break;
    default: break;
    }
}

static void note_body(struct names *n, const struct ast_block_body *b) {
    int hidden = n->hidden.n;
    for (int i = 0; b && i < b->count; i++) {
        const struct ast_stmt *x = b->stmts[i];
        switch (x->kind) {
        case STMT_LET:
        case STMT_VAR:
            note_expr(n, x->let.value);
            for (int k = 0; k < x->let.names.count; k++)
                VEC_PUSH(n->e->arena, n->hidden, x->let.names.names[k].name);
            break;
        case STMT_ASSIGN:
            note_expr(n, x->assign.value);
            for (int k = 0; k < x->assign.count; k++)
                note_assigned(n, x->assign.targets[k]);
            break;
        case STMT_EXPR: note_expr(n, x->expr); break;
        case STMT_FOR:
            note_expr(n, x->for_.iter);
            note_body(n, x->for_.body);
            break;
        case STMT_WHILE:
            note_expr(n, x->while_.cond);
            note_body(n, x->while_.body);
            break;
        case STMT_IF:
            note_expr(n, x->if_.cond);
            note_body(n, x->if_.then);
            note_body(n, x->if_.otherwise);
            break;
        case STMT_RETURN:
            for (int k = 0; k < x->ret.count; k++)
                note_expr(n, x->ret.values[k]);
            break;
        case STMT_CHECKPOINT: note_body(n, x->body); break;
        default: break;
        }
    }
    n->hidden.n = hidden;
}

void elab_spoil_assigned(struct elab *e, struct scope *s, const struct ast_block_body *body) {
    struct names n = {.e = e, .scope = s};
    note_body(&n, body);
    for (int i = 0; i < n.cells.n; i++)
        if (!n.cells.at[i]->typed)
            cell_write(e, n.cells.at[i], val_error);
}

/* ---- branches ------------------------------------------------------------------------------------------------------------ */

struct side {
    struct frame frame;
    VEC(struct cell *) cells;
    VEC(struct val) values;
};

/* Elaborates one side, notes what it assigned, and puts every cell back. */
static void run_side(struct elab *e, struct scope *s, struct side *side, struct ir_region *r,
                     const struct ast_block_body *body) {
    struct ir_builder saved = e->b;
    side->frame = (struct frame){.outer = e->frame, .kind = FRAME_BRANCH, .region = r};
    e->frame = &side->frame;
    e->b.region = r;
    e->b.before = NULL;
    if (body) {
        elab_body_block(e, s, body);
        if (e->returned) {
            if (e->result.kind != VAL_ERROR) {
                struct diagnostic *d =
                    elab_error(e, E_return_place, body->span, "`return` stands in a branch of the program");
                elab_help(e, d, "assign a variable in the branches and return it at the end, or use where(…)");
            }
            e->gave_up = true;
        }
    }
    for (int i = 0; i < side->frame.journal.n; i++) {
        struct journal_entry *j = &side->frame.journal.at[i];
        VEC_PUSH(e->arena, side->cells, j->cell);
        VEC_PUSH(e->arena, side->values, j->cell->value);
        j->cell->value = j->before;
    }
    e->frame = side->frame.outer;
    e->b = saved;
}

static int find_cell(struct side *side, struct cell *c) {
    for (int i = 0; i < side->cells.n; i++)
        if (side->cells.at[i] == c)
            return i;
    return -1;
}

static bool typed_value(struct val v) {
    return val_is_runtime(v) && !(v.kind == VAL_SCALAR && v.flex);
}

static void branch_types(struct elab *e, struct span at, struct cell *cell, struct val then, struct val otherwise) {
    struct diagnostic *d =
        elab_error(e, E_branch_types, at, "the sides of this branch give `%s` different types", cell->name);
    elab_label(e, d, "%s and %s", val_describe(e, then), val_describe(e, otherwise));
    cell->value = val_error;
}

/* The element type in which both sides agree; DTYPE_COUNT if both are untyped integers. */
static enum dtype runtime_dtype(struct elab *e, struct val a, struct val b) {
    struct val both[2] = {a, b};
    for (int i = 0; i < 2; i++)
        if (val_is_runtime(both[i]) && !(both[i].kind == VAL_SCALAR && both[i].flex))
            return val_runtime_type(e, both[i]).dtype;
    for (int i = 0; i < 2; i++)
        if (both[i].kind == VAL_FLOAT)
            return F32;
    return DTYPE_COUNT;
}

static struct ir_value *materialize_in(struct elab *e, struct ir_region *r, struct val v, enum dtype t,
                                       struct span at) {
    struct ir_builder saved = e->b;
    e->b.region = r;
    e->b.before = NULL;
    if (t != DTYPE_COUNT && v.kind == VAL_SCALAR && v.flex)
        v = elab_fit(e, v, t, at);
    struct ir_value *x = elab_materialize(e, v, t, at);
    e->b = saved;
    return x;
}

/* A branch inside index notation: both sides are computed, and what they assign is selected. */
static void notation_if(struct elab *e, struct scope *s, const struct ast_stmt *x, struct val cond) {
    struct side sides[2] = {0};
    run_side(e, s, &sides[0], e->b.region, x->if_.then);
    run_side(e, s, &sides[1], e->b.region, x->if_.otherwise);
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < sides[k].cells.n; i++) {
            struct cell *c = sides[k].cells.at[i];
            int other = find_cell(&sides[1 - k], c);
            if (k == 1 && other >= 0)
                continue;
            struct val mine = sides[k].values.at[i], theirs = other >= 0 ? sides[1 - k].values.at[other] : c->value;
            struct val args[3] = {cond, k == 0 ? mine : theirs, k == 0 ? theirs : mine};
            cell_write(e, c, elab_map(e, FN_where, args, 3, x->span, NULL));
        }
}

void elab_runtime_if(struct elab *e, struct scope *s, const struct ast_stmt *x, struct val cond) {
    if (in_notation(e)) {
        notation_if(e, s, x, cond);
        return;
    }
    struct ir_value *c = elab_materialize(e, cond, BOOL, x->if_.cond->span);
    if (!c)
        return;
    /* Buffers that a branch reads first are read before it: version 0 stands at the top of the function anyway. */
    struct ir_op *op = ir_op_new(&e->b, OP_if, &c, 1, 2);
    struct side sides[2] = {0};
    run_side(e, s, &sides[0], op->regions[0], x->if_.then);
    run_side(e, s, &sides[1], op->regions[1], x->if_.otherwise);
    VEC(struct ir_value *) yields[2] = {{0}, {0}};
    VEC(struct cell *) cells = {0};
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < sides[k].cells.n; i++) {
            struct cell *cell = sides[k].cells.at[i];
            int other = find_cell(&sides[1 - k], cell);
            if (k == 1 && other >= 0)
                continue;
            struct val mine = sides[k].values.at[i];
            /* A buffer that the other side did not read has its outer version there. */
            struct val theirs = other >= 0     ? sides[1 - k].values.at[other]
                                : cell->buffer ? val_tensor(buffer_value(e, cell))
                                               : cell->value;
            if (mine.kind == VAL_ERROR || theirs.kind == VAL_ERROR) {
                cell->value = val_error;
                continue;
            }
            if (!cell->typed && !cell->buffer && typed_value(mine) && typed_value(theirs) &&
                val_runtime_type(e, mine).dtype != val_runtime_type(e, theirs).dtype) {
                branch_types(e, x->span, cell, k == 0 ? mine : theirs, k == 0 ? theirs : mine);
                continue;
            }
            bool decided = true;
            if (!val_is_runtime(mine) && !val_is_runtime(theirs) && val_equal(e, mine, theirs, &decided) && decided) {
                cell_write(e, cell, mine);
                continue;
            }
            enum dtype t = cell->typed || cell->buffer ? cell->type.dtype : runtime_dtype(e, mine, theirs);
            struct ir_value *a = materialize_in(e, op->regions[k], mine, t, x->span);
            struct ir_value *b = materialize_in(e, op->regions[1 - k], theirs, t, x->span);
            if (!a || !b) {
                cell->value = val_error;
                continue;
            }
            if (!ir_type_equal(a->type, b->type)) {
                branch_types(e, x->span, cell, val_tensor(k == 0 ? a : b), val_tensor(k == 0 ? b : a));
                continue;
            }
            VEC_PUSH(e->arena, yields[k], a);
            VEC_PUSH(e->arena, yields[1 - k], b);
            VEC_PUSH(e->arena, cells, cell);
        }
    for (int k = 0; k < 2; k++)
        ir_region_yield(op->regions[k], yields[k].at, yields[k].n);
    for (int i = 0; i < cells.n; i++) {
        struct ir_value *r = ir_op_result(op, yields[0].at[i]->type);
        r->name = cells.at[i]->name;
        cell_write(e, cells.at[i], elab_from_value(e, r));
        if (cells.at[i]->buffer)
            cells.at[i]->value = val_tensor(r);
    }
}

/* ---- loops ---------------------------------------------------------------------------------------------------------------- */

static bool prepare_vars(struct elab *e, struct scope *s, const struct ast_block_body *body,
                         const struct ast_expr *cond, struct names *n) {
    *n = (struct names){.e = e, .scope = s};
    note_expr(n, cond);
    note_body(n, body);
    /* what is assigned becomes a value of the program, of a fixed type */
    for (int i = 0; i < n->cells.n; i++) {
        struct cell *c = n->cells.at[i];
        if (c->value.kind == VAL_ERROR)
            return false;
        if (c->value.kind == VAL_NONE || c->value.kind == VAL_STRING || c->value.kind == VAL_FN ||
            c->value.kind == VAL_BLOCK) {
            struct diagnostic *d =
                elab_error(e, E_loop_type, c->span, "`%s` is assigned in a loop of the program, but is %s before it",
                           c->name, val_describe(e, c->value));
            elab_help(e, d, "give it a number or tensor first");
            return false;
        }
        struct ir_value *v = elab_materialize(e, c->value, c->typed ? c->type.dtype : DTYPE_COUNT, c->span);
        if (!v)
            return false;
        cell_write(e, c, elab_from_value(e, v));
    }
    return true;
}

/* Region arguments for the variables found beforehand; their initial values become operands. */
static void carry_vars(struct elab *e, struct frame *f, struct names *n, struct span at) {
    for (int i = 0; i < n->cells.n; i++) {
        struct cell *c = n->cells.at[i];
        struct ir_value *init = elab_materialize(e, c->value, DTYPE_COUNT, at);
        struct ir_value *arg = ir_region_arg(f->region, init->type, c->name);
        arg->buffer_name = c->name;
        VEC_PUSH(e->arena, f->journal,
                 (struct journal_entry){.cell = c, .before = elab_from_value(e, init), .arg = arg, .assigned = true});
        c->value = elab_from_value(e, arg);
    }
}

/* The value a cell has at the end of the loop's body, of the type it had before. */
static struct ir_value *loop_value(struct elab *e, struct journal_entry *j, struct ir_region *r, struct span at) {
    struct val v = j->cell->value;
    struct ir_type want = j->arg->type;
    if (j->cell->written.source)
        at = j->cell->written;
    struct ir_value *x =
        materialize_in(e, r, v, val_is_runtime(v) && !(v.kind == VAL_SCALAR && v.flex) ? DTYPE_COUNT : want.dtype, at);
    if (!x)
        return NULL;
    if (!ir_type_equal(x->type, want)) {
        struct diagnostic *d = elab_error(e, E_loop_type, at, "`%s` changes its type in this loop", j->cell->name);
        elab_label(e, d, "%s before, %s after an iteration", type_text(e, want), type_text(e, x->type));
        elab_note(e, d, j->cell->span, "declared here");
        return NULL;
    }
    return x;
}

static void remove_arg(struct ir_region *r, int at) {
    for (int i = at; i + 1 < r->arg_count; i++) {
        r->args[i] = r->args[i + 1];
        r->args[i]->index = i;
    }
    r->arg_count--;
}

static int arg_position(struct ir_region *r, const struct ir_value *v) {
    for (int i = 0; i < r->arg_count; i++)
        if (r->args[i] == v)
            return i;
    return -1;
}

/* What was only read is not carried: its argument is the value from before the loop. */
static void drop_unassigned(struct elab *e, struct frame *f) {
    int kept = 0;
    for (int i = 0; i < f->journal.n; i++) {
        struct journal_entry *j = &f->journal.at[i];
        if (j->assigned || !j->arg) {
            f->journal.at[kept++] = *j;
            continue;
        }
        struct ir_value *before = j->before.value;
        remove_arg(f->region, arg_position(f->region, j->arg));
        VEC_PUSH(e->arena, e->replaced, (struct replaced_value){j->arg, before});
        j->cell->value = j->before;
    }
    f->journal.n = kept;
}

/* A cell first met inside the loop by being assigned whole (a buffer): it has no argument yet. */
static void complete_args(struct elab *e, struct frame *f) {
    for (int i = 0; i < f->journal.n; i++) {
        struct journal_entry *j = &f->journal.at[i];
        if (j->arg || !j->assigned)
            continue;
        struct ir_value *before =
            j->before.kind == VAL_TENSOR ? j->before.value : elab_materialize(e, j->before, DTYPE_COUNT, j->cell->span);
        if (!before)
            continue;
        j->before = elab_from_value(e, before);
        j->arg = ir_region_arg(f->region, before->type, j->cell->name);
        j->arg->buffer_name = j->cell->buffer ? j->cell->buffer->name : j->cell->name;
    }
}

static ir_dim loop_limit(struct elab *e, struct scope *s, const struct ast_expr *x) {
    if (!x)
        return NULL;
    struct val v = elab_expr(e, s, x);
    ir_dim d;
    if (v.kind == VAL_ERROR)
        return NULL;
    if (!val_as_dim(e, v, &d) || ir_dim_upper(d) <= 0) {
        elab_error(e, E_loop_bound, x->span,
                   "the bound of a loop's trips must be a positive integer known at compile time, found %s",
                   val_describe(e, v));
        return NULL;
    }
    return d;
}

static bool loop_end(struct elab *e, struct val v, struct span at, ir_expr *x) {
    *x = elab_scalar(e, v, DTYPE_COUNT, at);
    if (*x && !dtype_is_int((*x)->dtype)) {
        elab_error(e, E_integer_expected, at, "the ends of a loop must be integers, found %s", dtype_name((*x)->dtype));
        *x = NULL;
    }
    if (*x)
        *x = ir_cast(e->module, I64, *x);
    return *x != NULL;
}

/* What a loop's body ends with: the next value of everything that is carried. */
static void end_body(struct elab *e, struct frame *f, struct ir_region *body, const struct ast_stmt *x,
                     struct span at) {
    if (e->returned) {
        if (e->result.kind != VAL_ERROR)
            elab_error(e, E_return_place, x->span, "`return` stands in a loop of the program");
        e->gave_up = true;
    }
    drop_unassigned(e, f);
    complete_args(e, f);
    VEC(struct ir_value *) yields = {0};
    for (int i = 0; i < f->journal.n; i++) {
        struct journal_entry *j = &f->journal.at[i];
        struct ir_value *v = j->arg ? loop_value(e, j, body, at) : NULL;
        j->spoiled = !v;
        VEC_PUSH(e->arena, yields, v ? v : j->arg);
    }
    ir_region_yield(body, yields.at, yields.n);
}

/* First values of what a loop carries become operands, last ones results that the cells hold afterwards. */
static void end_loop(struct elab *e, struct frame *f, struct ir_op *op, struct span at) {
    int n = op->operand_count;
    struct ir_value **operands = ARENA_ARRAY(&e->module->arena, struct ir_value *, n + f->journal.n + 1);
    for (int i = 0; i < n; i++)
        operands[i] = op->operands[i];
    op->operands = operands;
    for (int i = 0; i < f->journal.n; i++) {
        struct journal_entry *j = &f->journal.at[i];
        if (!j->arg)
            continue;
        operands[op->operand_count++] = elab_materialize(e, j->before, DTYPE_COUNT, at);
        struct ir_value *r = ir_op_result(op, j->arg->type);
        r->name = j->cell->name;
        j->cell->value = j->before;
        bool unknown = j->spoiled && !j->cell->buffer && !j->cell->typed;
        cell_write(e, j->cell, unknown ? val_error : j->cell->buffer ? val_tensor(r) : elab_from_value(e, r));
    }
}

void elab_runtime_for(struct elab *e, struct scope *s, const struct ast_stmt *x, struct val range) {
    ir_expr lo, hi;
    if (!loop_end(e, range.range->lo, x->for_.iter->span, &lo) ||
        !loop_end(e, range.range->hi, x->for_.iter->span, &hi)) {
        elab_spoil_assigned(e, s, x->for_.body);
        return;
    }
    ir_dim limit = loop_limit(e, s, x->for_.limit), dlo, dhi;
    if (x->for_.pattern.count != 1 || x->for_.pattern.parenthesized) {
        elab_error(e, E_pattern, x->for_.pattern.span, "a loop of the program has one counter");
        elab_spoil_assigned(e, s, x->for_.body);
        return;
    }
    bool known = val_as_dim(e, range.range->lo, &dlo) && val_as_dim(e, range.range->hi, &dhi);
    double first, end;
    bool numbers = ir_expr_is_const(lo, &first) && ir_expr_is_const(hi, &end);
    if ((known && ir_dim_le(e->module, dhi, dlo)) || (numbers && end <= first))
        return; /* it never runs: nothing in it can be wrong, as in the side of a static `if` that is not taken */
    if (!limit && known)
        limit = ir_dim_max(e->module, ir_dim_sub(e->module, dhi, dlo), ir_dim_const(e->module, 0));
    if (limit)
        limit = ir_dim_const(e->module, ir_dim_upper(limit));
    struct ir_value *ends[2] = {elab_materialize(e, val_scalar(lo), I64, x->span),
                                elab_materialize(e, val_scalar(hi), I64, x->span)};
    struct names n;
    if (!ends[0] || !ends[1] || !prepare_vars(e, s, x->for_.body, NULL, &n)) {
        elab_spoil_assigned(e, s, x->for_.body);
        return;
    }
    struct ir_op *op = ir_op_new(&e->b, OP_for, ends, 2, 1);
    op->loop.limit = limit;
    struct frame *f = ARENA_NEW(e->arena, struct frame);
    *f = (struct frame){.outer = e->frame, .kind = FRAME_FOR, .region = op->regions[0]};
    f->counter = ir_region_arg(op->regions[0], ir_type_make(e->module, I64, 0, NULL), x->for_.pattern.names[0].name);
    carry_vars(e, f, &n, x->span);
    struct ir_builder saved = e->b;
    e->frame = f;
    e->b.region = op->regions[0];
    e->b.before = NULL;
    struct scope *inner = scope_new(e, s);
    scope_bind(e, inner, x->for_.pattern.names[0].name,
               elab_counter(e, x->for_.pattern.names[0].name, f->counter, lo, hi), x->for_.pattern.names[0].span);
    elab_stmts(e, inner, x->for_.body->stmts, x->for_.body->count);
    e->b = saved;
    end_body(e, f, op->regions[0], x, x->span);
    e->frame = f->outer;
    end_loop(e, f, op, x->span);
}

void elab_runtime_while(struct elab *e, struct scope *s, const struct ast_stmt *x) {
    ir_dim limit = loop_limit(e, s, x->while_.limit);
    if (limit)
        limit = ir_dim_const(e->module, ir_dim_upper(limit));
    struct names n;
    if (!prepare_vars(e, s, x->while_.body, x->while_.cond, &n)) {
        elab_spoil_assigned(e, s, x->while_.body);
        return;
    }
    struct ir_op *op = ir_op_new(&e->b, OP_while, NULL, 0, 2);
    op->loop.limit = limit;
    struct ir_builder saved = e->b;
    /* the body first: what it assigns decides what is carried; the condition then reads the same cells */
    struct frame *body = ARENA_NEW(e->arena, struct frame), *cond = ARENA_NEW(e->arena, struct frame);
    *body = (struct frame){.outer = e->frame, .kind = FRAME_WHILE_BODY, .region = op->regions[1]};
    *cond = (struct frame){.outer = e->frame, .kind = FRAME_WHILE_COND, .region = op->regions[0]};
    carry_vars(e, body, &n, x->span);
    e->frame = body;
    e->b.region = op->regions[1];
    e->b.before = NULL;
    elab_body_block(e, s, x->while_.body);
    e->b = saved;
    end_body(e, body, op->regions[1], x, x->while_.body->span);
    /* the condition sees the same carried values */
    for (int i = 0; i < body->journal.n; i++) {
        struct journal_entry *j = &body->journal.at[i];
        if (!j->arg)
            continue;
        struct ir_value *arg = ir_region_arg(op->regions[0], j->arg->type, j->cell->name);
        VEC_PUSH(e->arena, cond->journal,
                 (struct journal_entry){.cell = j->cell, .before = j->before, .arg = arg, .assigned = true});
        j->cell->value = j->cell->buffer ? val_tensor(arg) : elab_from_value(e, arg);
    }
    int carried = cond->journal.n;
    for (int i = 0; i < carried; i++)
        cond->journal.at[i].assigned = false;
    e->frame = cond;
    e->b.region = op->regions[0];
    e->b.before = NULL;
    struct val c = elab_expr(e, s, x->while_.cond);
    if (c.kind == VAL_BUFFER)
        c = cell_read(e, c.cell);
    struct ir_value *cv = NULL;
    if (c.kind == VAL_BOOL || (c.kind == VAL_SCALAR && c.expr->dtype == BOOL)) {
        cv = elab_materialize(e, c, BOOL, x->while_.cond->span);
    } else if (c.kind != VAL_ERROR) {
        struct diagnostic *d = elab_error(e, E_bool_expected, x->while_.cond->span, "a condition must be a bool");
        elab_label(e, d, "%s", val_describe(e, c));
    }
    e->b = saved;
    for (int i = 0; i < cond->journal.n; i++) { /* what was first read here is not carried */
        if (cond->journal.at[i].assigned)
            elab_error(e, E_not_assignable, x->while_.cond->span, "the condition of a loop changes `%s`",
                       cond->journal.at[i].cell->name);
        cond->journal.at[i].assigned = i < carried;
    }
    drop_unassigned(e, cond);
    e->frame = body->outer;
    if (!cv)
        cv =
            ir_build_int(&(struct ir_builder){.module = e->module, .func = e->func, .region = op->regions[0]}, BOOL, 0);
    ir_region_yield(op->regions[0], &cv, 1);
    end_loop(e, body, op, x->span);
}

/* ---- checkpoint { … } -------------------------------------------------------------------------------------------------------- */

void elab_checkpoint(struct elab *e, struct scope *s, const struct ast_stmt *x) {
    if (!e->in_function || in_notation(e)) {
        elab_error(e, E_declaration_place, x->span, "`checkpoint` stands in a function of the program");
        return;
    }
    struct ir_op *op = ir_op_new(&e->b, OP_checkpoint, NULL, 0, 1);
    struct side side = {0};
    struct scope *inner = scope_new(e, s);
    struct ir_builder saved = e->b;
    side.frame = (struct frame){.outer = e->frame, .kind = FRAME_BRANCH, .region = op->regions[0]};
    e->frame = &side.frame;
    e->b.region = op->regions[0];
    e->b.before = NULL;
    bool was = e->returned;
    elab_stmts(e, inner, x->body->stmts, x->body->count);
    VEC(struct ir_value *) yields = {0};
    VEC(struct cell *) cells = {0};
    for (int i = 0; i < side.frame.journal.n; i++) {
        struct journal_entry *j = &side.frame.journal.at[i];
        struct ir_value *v =
            j->cell->value.kind == VAL_ERROR ? NULL : elab_materialize(e, j->cell->value, DTYPE_COUNT, x->span);
        j->cell->value = j->before;
        if (!v)
            continue;
        VEC_PUSH(e->arena, yields, v);
        VEC_PUSH(e->arena, cells, j->cell);
    }
    int assigned = yields.n;
    /* `return` may stand at its end */
    int returns = 0;
    if (e->returned && !was) {
        returns = e->result.kind == VAL_TUPLE                                 ? e->result.list->count
                  : e->result.kind == VAL_NONE || e->result.kind == VAL_ERROR ? 0
                                                                              : 1;
        for (int i = 0; i < returns; i++) {
            struct ir_value *v = elab_materialize(e, e->result.kind == VAL_TUPLE ? e->result.list->items[i] : e->result,
                                                  DTYPE_COUNT, x->span);
            if (!v) {
                returns = i;
                break;
            }
            VEC_PUSH(e->arena, yields, v);
        }
    }
    e->frame = side.frame.outer;
    e->b = saved;
    ir_region_yield(op->regions[0], yields.at, yields.n);
    for (int i = 0; i < yields.n; i++)
        ir_op_result(op, yields.at[i]->type);
    for (int i = 0; i < assigned; i++)
        cell_write(e, cells.at[i],
                   cells.at[i]->buffer ? val_tensor(op->results[i]) : elab_from_value(e, op->results[i]));
    if (returns == 1 && e->result.kind != VAL_TUPLE)
        e->result = elab_from_value(e, op->results[assigned]);
    for (int i = 0; i < returns && e->result.kind == VAL_TUPLE; i++)
        e->result.list->items[i] = elab_from_value(e, op->results[assigned + i]);
}
