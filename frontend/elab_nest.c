/* Index notation, and the way from expressions in the function's own numbering of index variables and loaded values to
 * nests.
 *
 * Every `tensor[…]` and reduction opens a body. An inner reduction becomes a nest of its own over exactly the outer index
 * variables it uses, so what does not depend on an index is computed once by construction; the outer body loads its
 * result. Bounds that cannot be proven become a check nest in front; the check's result is an operand of every nest
 * that relies on it.
 */
#include <string.h>

#include "frontend/elab_indices.h"

int elab_new_index(struct elab *e, const char *name, ir_dim extent) {
    VEC_PUSH(e->arena, e->indices, (struct elab_index){.name = name, .extent = extent});
    return e->indices.n - 1;
}

bool in_notation(const struct elab *e) {
    for (const struct body *b = e->body; b; b = b->outer)
        if (b->notation)
            return true;
    return false;
}

/* ---- forming nests ------------------------------------------------------------------------------------------------------ */

struct guard_all {
    struct elab *e;
    const bool *wide; /* index variables whose domain was widened */
};

static ir_expr guard_load(struct ir_rewrite *w, ir_expr original, ir_expr x) {
    struct guard_all *g = w->context;
    (void)original;
    if (x->kind != X_LOAD || x->guarded || x->count == 0)
        return NULL;
    struct arena scratch = {0};
    bool *used = elab_used_indices(g->e, &scratch);
    struct elab_used u = {.e = g->e, .index = used};
    for (int i = 0; i < x->count; i++)
        ir_expr_walk(x->args[i], elab_note_index, &u);
    bool touched = false;
    for (int i = 0; i < g->e->indices.n; i++)
        touched = touched || (used[i] && g->wide[i]);
    arena_free(&scratch);
    if (!touched)
        return NULL;
    return ir_load(w->module, x->index, x->dtype, x->count, x->args, ir_const_number(w->module, x->dtype, 0));
}

struct ir_value *elab_form_nest(struct elab *e, const struct nest_spec *n, struct body *checks) {
    struct ir_module *m = e->module;
    struct arena scratch = {0};
    struct elab_renumber r;
    struct ir_rewrite w;
    elab_body_settle(e, e->body);
    elab_renumber_start(e, &r, &w, &scratch);
    struct ir_nest nest = {.pars = n->par_count, .reds = n->red_count};
    nest.indices = ARENA_ARRAY(&m->arena, struct ir_nest_index, n->par_count + n->red_count + 1);
    for (int i = 0; i < n->par_count; i++) {
        r.position[n->pars[i]] = i;
        nest.indices[i].name = e->indices.at[n->pars[i]].name;
        nest.indices[i].extent = e->indices.at[n->pars[i]].extent;
    }
    for (int i = 0; i < n->red_count; i++) {
        struct elab_index *x = &e->indices.at[n->reds[i]];
        r.position[n->reds[i]] = n->par_count + i;
        struct ir_nest_index *y = &nest.indices[n->par_count + i];
        y->name = x->name;
        y->extent = x->extent;
        y->lo = elab_renumbered(&w, x->lo);
        y->hi = elab_renumbered(&w, x->hi);
    }
    int base = -1;
    if (n->base)
        base = elab_renumber_operand(&r, elab_slot(e, n->base));
    ir_expr body = elab_renumbered(&w, n->body), result = body;
    if (n->red_count > 0) {
        nest.acc_count = 1;
        nest.accs = ARENA_NEW(&m->arena, struct ir_acc);
        nest.accs[0] = (struct ir_acc){.op = n->op, .body = body};
        enum dtype t = n->op == RED_ARGMAX || n->op == RED_ARGMIN ? I32 : body->dtype;
        result = n->result ? elab_renumbered(&w, n->result) : ir_acc(m, 0, t);
    }
    nest.results = ARENA_NEW(&m->arena, struct ir_nest_result);
    nest.results[0] = (struct ir_nest_result){.value = result, .base = base, .combine = n->combine};
    if (n->base) {
        ir_expr *target = ARENA_ARRAY(&m->arena, ir_expr, n->base->type.rank + 1);
        for (int i = 0; i < n->base->type.rank; i++)
            target[i] = elab_renumbered(&w, n->target[i]);
        nest.results[0].target = target;
    }
    struct span saved = e->b.span;
    const char *hint;
    e->b.span = elab_user_span(e, n->span, &hint);
    struct ir_op *op = ir_op_new(&e->b, OP_nest, r.operands, r.count, 0);
    for (struct body *b = checks ? checks : e->body; b; b = b->outer)
        for (int i = 0; i < b->tokens.n; i++)
            ir_op_add_operand(op, b->tokens.at[i]);
    op->nest = nest;
    struct ir_value *v;
    if (n->base) {
        v = ir_op_result(op, n->base->type);
    } else {
        ir_dim *dims = ARENA_ARRAY(&scratch, ir_dim, n->par_count + 1);
        for (int i = 0; i < n->par_count; i++)
            dims[i] = nest.indices[i].extent;
        v = ir_op_result(op, ir_type_make(m, result->dtype, n->par_count, dims));
    }
    v->name = n->name ? n->name : hint;
    e->b.span = saved;
    ir_rewrite_free(&w);
    arena_free(&scratch);
    return v;
}

/* ---- comprehensions ------------------------------------------------------------------------------------------------------ */

/* The largest value of an integer expression as a dimension; a very large one if nothing is known. */
static ir_dim upper_bound(struct elab *e, ir_expr x) {
    struct arena scratch = {0};
    bool *used = elab_used_indices(e, &scratch);
    struct elab_used u = {.e = e, .index = used};
    ir_expr_walk(x, elab_note_index, &u);
    struct elab_renumber r;
    struct ir_rewrite w;
    elab_renumber_start(e, &r, &w, &scratch);
    struct ir_nest nest = {0};
    elab_domain(e, used, &r, &w, &nest, &e->module->arena);
    struct ir_range range = ir_expr_range(e->module, &nest, ir_rewrite_expr(&w, x));
    ir_rewrite_free(&w);
    arena_free(&scratch);
    ir_dim zero = ir_dim_const(e->module, 0);
    return range.known ? ir_dim_max(e->module, range.hi, zero) : ir_dim_const(e->module, (int64_t)1 << 31);
}

/* One index variable with bounds lo .. hi (hi exclusive). */
static bool add_index(struct elab *e, const char *name, bool reduction, struct val lo, struct val hi, struct span at,
                      struct val *variable) {
    ir_dim dim_lo, dim_hi;
    bool fixed = val_as_dim(e, hi, &dim_hi) && val_as_dim(e, lo, &dim_lo);
    int64_t zero = 0;
    if (lo.kind == VAL_ERROR || hi.kind == VAL_ERROR)
        return false;
    if (fixed && ir_dim_is_const(dim_lo, &zero) && zero == 0 && ir_dim_upper(dim_hi) < 0) {
        elab_error(e, E_index_bound, at, "the bound of `%s` is negative: %s", name, dim_text(e, dim_hi));
        return false;
    }
    if (!reduction) {
        int64_t first;
        if (!fixed || !ir_dim_is_const(dim_lo, &first) || first != 0) {
            struct diagnostic *d =
                elab_error(e, E_index_bound, at, "the bound of `%s` must be a dimension, from 0", name);
            elab_label(e, d, "%s", val_describe(e, fixed ? lo : hi));
            elab_help(e, d, "reductions may have bounds that depend on other indices and on data; `tensor` may not");
            return false;
        }
        int n = elab_new_index(e, name, dim_hi);
        *variable = val_scalar(ir_index(e->module, n));
        variable->flex = true;
        return true;
    }
    ir_expr l = elab_scalar(e, lo, DTYPE_COUNT, at), h = elab_scalar(e, hi, DTYPE_COUNT, at);
    if (!l || !h)
        return false;
    if (!dtype_is_int(l->dtype) || !dtype_is_int(h->dtype)) {
        elab_error(e, E_index_bound, at, "the bounds of `%s` must be integers", name);
        return false;
    }
    l = ir_cast(e->module, I64, l);
    h = ir_cast(e->module, I64, h);
    ir_dim extent = fixed ? ir_dim_max(e->module, dim_hi, ir_dim_const(e->module, 0)) : upper_bound(e, h);
    int n = elab_new_index(e, name, extent);
    struct elab_index *x = &e->indices.at[n];
    x->reduction = true;
    x->lo = l;
    x->hi = h;
    *variable = val_scalar(ir_index(e->module, n));
    variable->flex = true;
    return true;
}

static bool bind_indices(struct elab *e, struct scope *outer, struct scope *s, const struct ast_expr *x,
                         bool reduction) {
    bool fine = true;
    (void)outer;
    for (int i = 0; i < x->comp.count; i++) {
        const struct ast_index *ix = &x->comp.indices[i];
        if (scope_find_here(s, ix->name) && strcmp(ix->name, "_") != 0) {
            elab_error(e, E_redefined, ix->span, "the index `%s` is defined twice", ix->name);
            fine = false;
        }
        struct val lo = val_int(0), hi;
        if (ix->is_in && ix->bound->kind == EXPR_RANGE) {
            lo = elab_expr(e, s, ix->bound->range.lo);
            hi = elab_expr(e, s, ix->bound->range.hi);
        } else {
            hi = elab_expr(e, s, ix->bound);
            if (ix->is_in && hi.kind == VAL_RANGE) {
                lo = hi.range->lo;
                hi = hi.range->hi;
            } else if (ix->is_in && hi.kind != VAL_ERROR) {
                elab_error(e, E_index_bound, ix->span, "`%s in` needs a range like 0..n", ix->name);
                fine = false;
                hi = val_error;
            }
        }
        struct val variable = val_error;
        if (hi.kind == VAL_ERROR || lo.kind == VAL_ERROR) {
            fine = false;
        } else if (ix->is_run) {
            int n = hi.kind == VAL_LIST ? hi.list->count : lo.kind == VAL_LIST ? lo.list->count : -1;
            if (n < 0 || (hi.kind == VAL_LIST && lo.kind == VAL_LIST && lo.list->count != n)) {
                struct diagnostic *d =
                    elab_error(e, E_run, ix->span, "the bound of the run `..%s` must be a list", ix->name);
                elab_label(e, d, "%s", val_describe(e, hi));
                fine = false;
            } else {
                variable = val_list_new(e, n);
                for (int k = 0; k < n; k++)
                    fine =
                        add_index(e, n == 1 ? ix->name : arena_printf(e->arena, "%s%d", ix->name, k), reduction,
                                  lo.kind == VAL_LIST ? lo.list->items[k] : lo,
                                  hi.kind == VAL_LIST ? hi.list->items[k] : hi, ix->span, &variable.list->items[k]) &&
                        fine;
            }
        } else if (hi.kind == VAL_LIST) {
            elab_error(e, E_run, ix->span, "the bound of `%s` is a list; a run of indices is written `..%s`", ix->name,
                       ix->name);
            fine = false;
        } else {
            fine = add_index(e, ix->name, reduction, lo, hi, ix->span, &variable) && fine;
        }
        scope_bind(e, s, ix->name, variable, ix->span);
    }
    return fine;
}

/* The value of a body: an expression or `{ let …; return e }`. */
static struct val body_value(struct elab *e, struct scope *s, const struct ast_expr *x) {
    if (x->comp.body)
        return elab_expr(e, s, x->comp.body);
    bool returned = e->returned;
    struct val result = e->result;
    const struct ast_fn *fn = e->current_fn;
    e->returned = false;
    int failures = e->failures;
    e->current_fn = NULL;
    elab_stmts(e, s, x->comp.block->stmts, x->comp.block->count);
    struct val v = e->returned ? e->result : val_error;
    if (!e->returned && e->failures == failures)
        elab_error(e, E_index_body, x->comp.block->span, "this body needs a `return`");
    e->returned = returned;
    e->result = result;
    e->current_fn = fn;
    return v;
}

static bool reduce_op_of(const char *what, enum reduce_op *op, bool *mean) {
    *mean = strcmp(what, "mean") == 0;
    if (*mean) {
        *op = RED_SUM;
        return true;
    }
    for (int i = 0; i < RED_COUNT; i++)
        if (strcmp(what, reduce_names[i]) == 0) {
            *op = (enum reduce_op)i;
            return true;
        }
    return false;
}

static bool in_parentheses(struct span s) {
    if (!s.source)
        return false;
    const char *text = s.source->text;
    int open = 0;
    for (uint32_t at = s.begin; at + 1 < s.end; at++) {
        open += (text[at] == '(') - (text[at] == ')');
        if (open == 0)
            return false;
    }
    return s.end > s.begin && text[s.end - 1] == ')';
}

/* A sum whose outer terms do not use the index: probably parentheses are missing. */
static void warn_stray_terms(struct elab *e, const struct ast_expr *x, ir_expr body, int first, int last) {
    if (e->silent || first == last || body->kind == X_CONST)
        return;
    /* one sum in parentheses of its own is meant as it stands */
    const struct ast_expr *written = x->comp.body;
    bool sum = body->kind == X_FN && (body->fn == FN_add || body->fn == FN_sub);
    if (sum && written && in_parentheses(written->span))
        return;
    for (int a = 0; a < (sum ? 2 : 1); a++) {
        struct arena scratch = {0};
        bool *used = elab_used_indices(e, &scratch);
        struct elab_used u = {.e = e, .index = used};
        ir_expr_walk(sum ? body->args[a] : body, elab_note_index, &u);
        bool uses = false;
        for (int i = first; i < last; i++)
            uses = uses || used[i];
        arena_free(&scratch);
        if (!uses) {
            struct diagnostic *d = diag_warning(e->diag, E_unused_index, x->span, "%s of `%s` uses none of its indices",
                                                sum ? "a term in the body" : "the body", x->comp.what);
            if (sum)
                elab_help(
                    e, d,
                    "a reduction reaches as far right as it can: put it in parentheses if the term stands outside");
            return;
        }
    }
}

/* Parallel stand-ins for outer index variables used by an inner nest. Reduction indices get the whole box of their
 * values as domain, where loads outside give 0. */
static int *outer_pars(struct elab *e, const bool *used, int first, int *count, bool *wide, bool *any_wide) {
    int *pars = ARENA_ARRAY(e->arena, int, e->indices.n + 1);
    *count = 0;
    *any_wide = false;
    for (int i = 0; i < first; i++)
        if (used[i]) {
            pars[(*count)++] = i;
            if (e->indices.at[i].reduction) {
                wide[i] = true;
                *any_wide = true;
            }
        }
    return pars;
}

/* Forms the nest of an inner or outermost comprehension and gives its value as seen from the enclosing body. */
static struct val form_inner(struct elab *e, struct nest_spec *n, const bool *used, int first, struct body *body) {
    struct arena scratch = {0};
    bool *wide = ARENA_ARRAY(&scratch, bool, e->indices.n + 1), any_wide;
    int outer;
    int *pars = outer_pars(e, used, first, &outer, wide, &any_wide);
    int own = n->par_count;
    for (int i = 0; i < own; i++)
        pars[outer + i] = n->pars[i];
    n->pars = pars;
    n->par_count = outer + own;
    if (any_wide) {
        struct guard_all g = {.e = e, .wide = wide};
        struct ir_rewrite w = {.module = e->module, .fn = guard_load, .context = &g};
        n->body = ir_rewrite_expr(&w, n->body);
        if (n->result)
            n->result = ir_rewrite_expr(&w, n->result);
        ir_rewrite_free(&w);
    }
    struct ir_value *v = elab_form_nest(e, n, body);
    ir_expr *at = ARENA_ARRAY(e->arena, ir_expr, outer + own + 1);
    for (int i = 0; i < outer; i++)
        at[i] = ir_index(e->module, pars[i]);
    arena_free(&scratch);
    if (own == 0)
        return outer == 0 ? elab_from_value(e, v)
                          : val_scalar(ir_load(e->module, elab_slot(e, v), v->type.dtype, outer, at, NULL));
    if (outer == 0)
        return elab_from_value(e, v);
    struct lazy *l = ARENA_NEW(e->arena, struct lazy);
    l->dtype = v->type.dtype;
    l->rank = own;
    l->dims = v->type.dims + outer;
    l->base = v;
    l->at = at;
    return (struct val){.kind = VAL_LAZY, .lazy = l};
}

/* mean: what the sum is divided by. Where a bound uses another of the reduction's own indices, it is counted. */
static ir_expr count_of(struct elab *e, const int *own, int count, const bool *used, int first, struct body *body,
                        struct span at) {
    struct arena scratch = {0};
    struct elab_used u = {.e = e, .index = elab_used_indices(e, &scratch)};
    ir_expr n = ir_const_int(e->module, I64, 1);
    bool dependent = false;
    for (int i = 0; i < count; i++) {
        struct elab_index *x = &e->indices.at[own[i]];
        ir_expr_walk(x->lo, elab_note_index, &u);
        ir_expr_walk(x->hi, elab_note_index, &u);
        ir_expr zero = ir_const_int(e->module, I64, 0), length = ir_fn2(e->module, FN_sub, x->hi, x->lo);
        struct pending_check runs = {.condition = ir_fn2(e->module, FN_le, zero, length), .span = at};
        if (elab_prove_check(e, &runs) != INSIDE) /* a range whose end is before its start has no entries */
            length = ir_fn2(e->module, FN_max, length, zero);
        n = ir_fn2(e->module, FN_mul, n, length);
    }
    for (int i = 0; i < count; i++)
        dependent = dependent || u.index[own[i]];
    arena_free(&scratch);
    if (!dependent)
        return n;
    struct nest_spec c = {
        .reds = own, .red_count = count, .op = RED_SUM, .body = ir_const_int(e->module, I64, 1), .span = at};
    return elab_scalar(e, form_inner(e, &c, used, first, body), I64, at);
}

/* ---- a reduction spelled out --------------------------------------------------------------------------------------------- */

enum { MOST_TERMS = 64 };

struct fixed_indices {
    int first, count;
    const int64_t *at;
};

static ir_expr fix_index(struct ir_rewrite *w, ir_expr original, ir_expr x) {
    const struct fixed_indices *f = w->context;
    (void)original;
    if (x->kind != X_INDEX || x->index < f->first || x->index >= f->first + f->count)
        return NULL;
    return ir_const_int(w->module, I64, f->at[x->index - f->first]);
}

/* Whether the body depends on an outer index whose largest value nobody knows: then a nest of its own has no size. */
static bool outer_is_open(const struct elab *e, const bool *used, int first) {
    for (int i = 0; i < first; i++)
        if (used[i] && e->indices.at[i].reduction && ir_extent_is_open(e->indices.at[i].extent))
            return true;
    return false;
}

/* The few terms of a reduction with constant bounds, one after the other, as an expression; NULL if it is no such one. */
static ir_expr spelled_out(struct elab *e, const struct nest_spec *n, int first) {
    static const enum scalar_fn fns[] = {[RED_SUM] = FN_add, [RED_PROD] = FN_mul, [RED_MAX] = FN_max,
                                         [RED_MIN] = FN_min, [RED_ANY] = FN_or,   [RED_ALL] = FN_and};
    int64_t lo[8], hi[8], at[8], terms = 1;
    if (n->red_count < 1 || n->red_count > 8 || n->op == RED_ARGMAX || n->op == RED_ARGMIN)
        return NULL;
    for (int i = 0; i < n->red_count; i++) {
        double l, h;
        if (!ir_expr_is_const(e->indices.at[n->reds[i]].lo, &l) ||
            !ir_expr_is_const(e->indices.at[n->reds[i]].hi, &h) || h - l < 1 || h - l > MOST_TERMS)
            return NULL;
        at[i] = lo[i] = (int64_t)l;
        hi[i] = (int64_t)h;
        if ((terms *= hi[i] - lo[i]) > MOST_TERMS)
            return NULL;
    }
    ir_expr total = NULL;
    for (int64_t t = 0; t < terms; t++) {
        struct fixed_indices f = {first, n->red_count, at};
        struct ir_rewrite w = {.module = e->module, .fn = fix_index, .context = &f};
        ir_expr term = ir_rewrite_expr(&w, n->body);
        ir_rewrite_free(&w);
        total = total ? ir_fn2(e->module, fns[n->op], total, term) : term;
        for (int i = n->red_count - 1; i >= 0 && ++at[i] == hi[i]; i--)
            at[i] = lo[i];
    }
    return total;
}

struct put_sum {
    ir_expr sum;
};

static ir_expr put_sum(struct ir_rewrite *w, ir_expr original, ir_expr x) {
    (void)original;
    return x->kind == X_ACC ? ((const struct put_sum *)w->context)->sum : NULL;
}

static bool is_identity(struct elab *e, ir_expr x, const int *pars, int count) {
    if (x->kind != X_LOAD || x->guarded || x->count != count)
        return false;
    for (int i = 0; i < count; i++)
        if (x->args[i]->kind != X_INDEX || x->args[i]->index != pars[i])
            return false;
    struct ir_value *v = e->slots.at[x->index];
    for (int i = 0; i < count; i++)
        if (v->type.dims[i] != e->indices.at[pars[i]].extent)
            return false;
    return v->op != NULL && v->op->code == OP_nest;
}

struct val elab_comprehension(struct elab *e, struct scope *outer, const struct ast_expr *x) {
    bool is_tensor = strcmp(x->comp.what, "tensor") == 0, mean = false;
    enum reduce_op op = RED_SUM;
    if (!is_tensor && !reduce_op_of(x->comp.what, &op, &mean)) {
        elab_error(e, E_unknown_name, x->span, "there is no reduction `%s`", x->comp.what);
        return val_error;
    }
    if (!e->in_function) {
        elab_error(e, E_not_static, x->span, "index notation needs a function: nothing is computed at file level");
        return val_error;
    }
    struct scope *s = scope_new(e, outer);
    bool inner = in_notation(e);
    struct body *body = elab_body_open(e);
    body->notation = true;
    int first = e->indices.n;
    bool fine = bind_indices(e, outer, s, x, !is_tensor);
    int last = e->indices.n;
    struct val v = fine ? body_value(e, s, x) : val_error;
    if (v.kind == VAL_BUFFER)
        v = cell_read(e, v.cell);
    ir_expr value = NULL;
    bool flex = v.kind == VAL_INT || v.kind == VAL_DIM || (v.kind == VAL_SCALAR && v.flex);
    if (v.kind == VAL_TENSOR || v.kind == VAL_LAZY || v.kind == VAL_LIST) {
        struct diagnostic *d = elab_error(e, E_index_body, x->comp.body ? x->comp.body->span : x->span,
                                          "the body of `%s[…]` must be a scalar", x->comp.what);
        elab_label(e, d, "%s", val_describe(e, v));
    } else if (v.kind != VAL_ERROR) {
        value = elab_scalar(e, v, DTYPE_COUNT, x->comp.body ? x->comp.body->span : x->span);
    }
    if (!value) {
        e->body = body->outer;
        return val_error;
    }
    if (!is_tensor && (op == RED_ANY || op == RED_ALL) && value->dtype != BOOL) {
        elab_error(e, E_bool_expected, x->span, "`%s` needs bools; the body is %s", x->comp.what,
                   dtype_name(value->dtype));
        value = NULL;
    } else if (!is_tensor && op <= RED_PROD && value->dtype == BOOL) {
        struct diagnostic *d = elab_error(e, E_type_mismatch, x->span, "`%s` of bools", x->comp.what);
        elab_help(e, d, "count with i32(…), as in `sum[k < K] i32(a[k] > 0)`");
        value = NULL;
    } else if (mean && !dtype_is_float(value->dtype)) {
        struct diagnostic *d = elab_error(e, E_type_mismatch, x->span, "`mean` of %s", dtype_name(value->dtype));
        elab_help(e, d, "convert first: `mean[…] f32(…)`");
        value = NULL;
    }
    if (!value) {
        e->body = body->outer;
        return val_error;
    }
    struct nest_spec n = {.span = x->span};
    int own = last - first;
    int *own_indices = ARENA_ARRAY(e->arena, int, own + 1);
    for (int i = 0; i < own; i++)
        own_indices[i] = first + i;
    if (is_tensor && !inner && is_identity(e, value, own_indices, own) && own > 0) {
        elab_body_close(e, body);
        return elab_from_value(e, e->slots.at[value->index]);
    }
    elab_body_settle(e, body);
    struct arena scratch = {0};
    bool *used = elab_used_indices(e, &scratch);
    struct elab_used u = {.e = e, .index = used};
    ir_expr_walk(value, elab_note_index, &u);
    if (!is_tensor)
        for (int i = first; i < last; i++) {
            used[i] = true;
            ir_expr_walk(e->indices.at[i].lo, elab_note_index, &u);
            ir_expr_walk(e->indices.at[i].hi, elab_note_index, &u);
        }
    n.body = value;
    if (is_tensor) {
        n.pars = own_indices;
        n.par_count = own;
    } else {
        warn_stray_terms(e, x, value, first, last);
        n.reds = own_indices;
        n.red_count = own;
        n.op = op;
        enum dtype t = value->dtype;
        bool half = (t == F16 || t == BF16) && op <= RED_PROD;
        if (half)
            n.body = ir_cast(e->module, F32, value);
        if (half || mean) {
            ir_expr acc = ir_acc(e->module, 0, n.body->dtype);
            if (mean)
                acc = ir_fn2(
                    e->module, FN_div, acc,
                    ir_cast(e->module, n.body->dtype, count_of(e, own_indices, own, used, first, body, x->span)));
            n.result = ir_cast(e->module, t, acc);
        }
        if (own == 0) { /* a run without indices: one iteration */
            n.red_count = 0;
            n.body = op == RED_ARGMAX || op == RED_ARGMIN ? ir_const_int(e->module, I32, 0) : value;
            n.result = NULL;
        }
    }
    ir_expr terms = inner && !is_tensor && outer_is_open(e, used, first) ? spelled_out(e, &n, first) : NULL;
    struct val out;
    if (terms) {
        struct put_sum p = {terms};
        struct ir_rewrite w = {.module = e->module, .fn = put_sum, .context = &p};
        out = val_scalar(n.result ? ir_rewrite_expr(&w, n.result) : terms);
        ir_rewrite_free(&w);
    } else {
        out = form_inner(e, &n, used, first, body);
    }
    arena_free(&scratch);
    e->body = body->outer;
    if (out.kind == VAL_SCALAR && flex && !is_tensor && op != RED_ARGMAX && op != RED_ARGMIN)
        out.flex = true;
    return out;
}

struct val elab_counter(struct elab *e, const char *name, struct ir_value *counter, ir_expr lo, ir_expr hi) {
    int n = elab_new_index(e, name, upper_bound(e, hi));
    struct elab_index *x = &e->indices.at[n];
    x->reduction = true;
    x->lo = lo;
    x->hi = hi;
    x->counter = counter;
    struct val v = val_scalar(ir_index(e->module, n));
    v.flex = true;
    return v;
}
