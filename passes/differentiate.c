/* Reverse-mode differentiation: each `grad` operation becomes ordinary operations, in program order, so that a gradient
 * of a gradient finds the inner one expanded.
 *
 * From the scalar back over the operations of its region and of the enclosing ones; only values that depend on what is
 * differentiated for ("varied") take part, so training a part of a network prunes the rest. Kernels without a declared
 * gradient are expanded first, and so are those that only another target has a kernel for: their gradients belong to that. The adjoint of a value is complete when its operation is reached, since all users
 * come later in the program. Control flow is in differentiate_control.c, loads in differentiate_index.c.
 */
#include <stdlib.h>
#include <string.h>

#include "passes/differentiate_internal.h"
#include "passes/passes.h"

/* ---- activity ----------------------------------------------------------------------------------------------------- */

bool grad_varied(const struct grad *g, const struct ir_value *v) {
    return v->id < g->varied_cap && g->varied[v->id];
}

static bool set_varied(struct grad *g, const struct ir_value *v) {
    if (!dtype_is_float(v->type.dtype) || grad_varied(g, v))
        return false;
    if (v->id >= g->varied_cap) {
        int cap = g->func->value_count * 3 / 2 + 64;
        bool *all = ARENA_ARRAY(&g->scratch, bool, cap);
        if (g->varied_cap)
            memcpy(all, g->varied, (size_t)g->varied_cap);
        g->varied = all;
        g->varied_cap = cap;
    }
    g->varied[v->id] = true;
    return true;
}

static bool any_varied(const struct grad *g, const struct ir_op *op) {
    for (int i = 0; i < op->operand_count; i++)
        if (grad_varied(g, op->operands[i]))
            return true;
    return false;
}

static void mark_results(struct grad *g, struct ir_op *op) {
    if (any_varied(g, op))
        for (int i = 0; i < op->result_count; i++)
            set_varied(g, op->results[i]);
}

static void mark_nest(struct grad *g, struct ir_op *op) {
    if (!any_varied(g, op))
        return;
    struct scalar_reverse s = {.g = g, .nest = op};
    s.acc_active = ARENA_ARRAY(&g->scratch, bool, op->nest.acc_count + 1);
    for (int k = 0; k < op->nest.acc_count; k++)
        s.acc_active[k] = op->nest.accs[k].op <= RED_MIN && scalar_active(&s, op->nest.accs[k].body);
    for (int i = 0; i < op->result_count; i++) {
        const struct ir_nest_result *r = &op->nest.results[i];
        if (scalar_active(&s, r->value) || (r->base >= 0 && grad_varied(g, op->operands[r->base])))
            set_varied(g, op->results[i]);
    }
}

static void mark_yields(struct grad *g, const struct ir_region *r, struct ir_op *op) {
    for (int i = 0; i < op->result_count && i < r->yield_count; i++)
        if (grad_varied(g, r->yields[i]))
            set_varied(g, op->results[i]);
}

static void mark_loop(struct grad *g, struct ir_op *op) {
    int first = op->code == OP_while ? 0 : 2, args = op->code == OP_while ? 0 : 1;
    struct ir_region *body = op->regions[op->code == OP_while ? 1 : 0];
    for (int k = 0; k < op->result_count; k++)
        if (grad_varied(g, op->operands[first + k]))
            set_varied(g, body->args[args + k]);
    for (bool again = true; again;) {
        grad_mark_varied(g, body, NULL);
        again = false;
        for (int k = 0; k < op->result_count; k++)
            if (grad_varied(g, body->yields[k]))
                again |= set_varied(g, body->args[args + k]);
    }
    for (int k = 0; k < op->result_count; k++)
        if (grad_varied(g, body->args[args + k]) || grad_varied(g, body->yields[k]))
            set_varied(g, op->results[k]);
}

void grad_mark_varied(struct grad *g, struct ir_region *r, const struct ir_op *end) {
    for (struct ir_op *op = r->first; op && op != end; op = op->next) {
        switch (op->code) {
        case OP_nest: mark_nest(g, op); break;
        case OP_reshape:
        case OP_sort:
        case OP_scan:
        case OP_kernel:
        case OP_extern: mark_results(g, op); break;
        case OP_if:
        case OP_checkpoint:
            for (int i = 0; i < op->region_count; i++) {
                for (int k = 0; k < op->regions[i]->arg_count; k++)
                    if (grad_varied(g, op->operands[k]))
                        set_varied(g, op->regions[i]->args[k]);
                grad_mark_varied(g, op->regions[i], NULL);
                mark_yields(g, op->regions[i], op);
            }
            break;
        case OP_for:
        case OP_while: mark_loop(g, op); break;
        default: /* no derivative */ break;
        }
    }
}

/* The chain of regions around the grad operation, outermost first. */
static void mark_chain(struct grad *g, struct ir_region *r, const struct ir_op *end) {
    if (r->op)
        mark_chain(g, r->op->parent, r->op);
    grad_mark_varied(g, r, end);
}

/* ---- kernels without a gradient of their own ------------------------------------------------------------------------ */

enum own_kernel pass_own_kernel(const struct pass_context *c, const struct ir_op *kernel) {
    return c && c->own_kernel && kernel->kernel.tuned ? c->own_kernel(c->options, kernel) : OWN_NONE;
}

struct expansion {
    struct grad *g;
    VEC(struct ir_op *) ops;
};

static void find_kernels(struct ir_op *op, void *context) {
    struct expansion *e = context;
    if (op->code == OP_kernel && (op->region_count < 2 || pass_own_kernel(e->g->context, op) == OWN_ELSEWHERE))
        for (int i = 0; i < op->result_count; i++)
            if (grad_varied(e->g, op->results[i])) {
                VEC_PUSH(&e->g->scratch, e->ops, op);
                return;
            }
}

static bool expand_kernels(struct grad *g) {
    struct expansion e = {.g = g};
    ir_walk_ops(g->func->body, find_kernels, &e);
    if (!e.ops.n)
        return false;
    struct value_map map = {0};
    struct ir_value ***yields = ARENA_ARRAY(&g->scratch, struct ir_value **, e.ops.n);
    for (int i = 0; i < e.ops.n; i++) {
        struct ir_op *op = e.ops.at[i];
        struct ir_builder b = {g->m, g->func, op->parent, op, op->span};
        yields[i] = ARENA_ARRAY(&g->scratch, struct ir_value *, op->result_count + 1);
        ir_inline_region(&b, op->regions[0], op->operands, yields[i]);
    }
    for (int i = 0; i < e.ops.n; i++)
        for (int k = 0; k < e.ops.at[i]->result_count; k++)
            value_map_set(g, &map, e.ops.at[i]->results[k], yields[i][k]);
    struct ir_value **all = ARENA_ARRAY(&g->scratch, struct ir_value *, g->func->value_count);
    memcpy(all, map.at, sizeof *all * (size_t)(map.cap < g->func->value_count ? map.cap : g->func->value_count));
    ir_replace_values(g->func, all);
    for (int i = 0; i < e.ops.n; i++)
        ir_op_remove(e.ops.at[i]);
    return true;
}

/* ---- which version of a buffer -------------------------------------------------------------------------------------- */

/* One search for all buffers: back from the scalar, as far as a version of one of them. */
struct versions {
    struct grad *g;
    struct ir_buffer **by_name; /* what is differentiated for, each once */
    int count;
    int *of_buffer; /* [buffer_count] the place in by_name, -1: not differentiated for */
    bool *seen;
    struct version_list {
        VEC(struct ir_value *) all;
    } * found; /* [count] */
};

static int compare_names(const void *a, const void *b) {
    const struct ir_buffer *x = *(struct ir_buffer *const *)a, *y = *(struct ir_buffer *const *)b;
    return strcmp(x->name, y->name);
}

static int name_against(const void *key, const void *entry) {
    return strcmp(key, (*(struct ir_buffer *const *)entry)->name);
}

/* The buffer of which v is a version, as a place in by_name; -1: none that is differentiated for. */
static int version_of(const struct versions *s, const struct ir_value *v) {
    if (v->op && v->op->code == OP_read)
        return s->of_buffer[v->op->buffer.buffer->id];
    if (!v->buffer_name)
        return -1;
    struct ir_buffer **at = bsearch(v->buffer_name, s->by_name, (size_t)s->count, sizeof *s->by_name, name_against);
    return at ? (int)(at - s->by_name) : -1;
}

static void reach(struct versions *s, struct ir_value *v);

static void reach_region(struct versions *s, const struct ir_region *r) {
    for (const struct ir_op *op = r->first; op; op = op->next) {
        for (int i = 0; i < op->operand_count; i++)
            if (!ir_value_defined_in(op->operands[i], r))
                reach(s, op->operands[i]);
        for (int i = 0; i < op->region_count; i++)
            reach_region(s, op->regions[i]);
    }
    for (int i = 0; i < r->yield_count; i++)
        if (!ir_value_defined_in(r->yields[i], r))
            reach(s, r->yields[i]);
}

static void reach(struct versions *s, struct ir_value *v) {
    VEC(struct ir_value *) work = {0};
    VEC_PUSH(&s->g->scratch, work, v);
    while (work.n) {
        v = work.at[--work.n];
        if (s->seen[v->id])
            continue;
        s->seen[v->id] = true;
        int k = version_of(s, v);
        if (k >= 0) { /* how an optimizer made that version is not part of the way */
            VEC_PUSH(&s->g->scratch, s->found[k].all, v);
            continue;
        }
        if (!v->op)
            continue;
        for (int i = 0; i < v->op->operand_count; i++)
            VEC_PUSH(&s->g->scratch, work, v->op->operands[i]);
        for (int i = 0; i < v->op->region_count; i++)
            reach_region(s, v->op->regions[i]);
    }
}

static struct versions search_versions(struct grad *g, const struct ir_op *op) {
    struct arena *a = &g->scratch;
    int n = op->operand_count - 1;
    struct versions s = {.g = g, .seen = ARENA_ARRAY(a, bool, g->func->value_count)};
    s.by_name = ARENA_ARRAY(a, struct ir_buffer *, n + 1);
    s.of_buffer = ARENA_ARRAY(a, int, g->m->buffer_count + 1);
    for (int i = 0; i < g->m->buffer_count; i++)
        s.of_buffer[i] = -1;
    for (int i = 0; i < n; i++) {
        struct ir_buffer *buffer = op->grad.wrt_buffers ? op->grad.wrt_buffers[i] : NULL;
        if (buffer && s.of_buffer[buffer->id] < 0) {
            s.of_buffer[buffer->id] = s.count;
            s.by_name[s.count++] = buffer;
        }
    }
    qsort(s.by_name, (size_t)s.count, sizeof *s.by_name, compare_names);
    for (int k = 0; k < s.count; k++)
        s.of_buffer[s.by_name[k]->id] = k;
    s.found = ARENA_ARRAY(a, struct version_list, s.count + 1);
    if (s.count)
        reach(&s, op->operands[0]);
    return s;
}

/* What is differentiated for; NULL entries: not reached, so zero. */
struct ir_value **grad_resolve_buffers(struct grad *g, struct ir_op *op) {
    int n = op->operand_count - 1;
    struct ir_value **wrt = ARENA_ARRAY(&g->scratch, struct ir_value *, n + 1);
    struct versions s = search_versions(g, op);
    for (int i = 0; i < n; i++) {
        struct ir_buffer *buffer = op->grad.wrt_buffers ? op->grad.wrt_buffers[i] : NULL;
        if (!buffer) {
            wrt[i] = op->operands[i + 1];
            continue;
        }
        const struct version_list *found = &s.found[s.of_buffer[buffer->id]];
        if (found->all.n > 1) {
            g->failed = true;
            struct diagnostic *e = diag_error(g->m->diag, E_grad_two_versions, op->span,
                                              "two versions of `%s` are read on the way to this value", buffer->name);
            for (int k = 0; k < 2; k++)
                diag_note(g->m->diag, e, found->all.at[k]->span, "version %d", found->all.at[k]->version);
            diag_help(g->m->diag, e, "name the one that is meant before: `let w = …`, then `grad(…, w)`");
        }
        wrt[i] = found->all.n ? found->all.at[0] : NULL;
    }
    return wrt;
}

/* ---- the sweep ------------------------------------------------------------------------------------------------------ */

static bool has_adjoint(struct grad *g, const struct ir_op *op) {
    for (int i = 0; i < op->result_count; i++)
        if (grad_varied(g, op->results[i]) && grad_adjoint(g, op->results[i]))
            return true;
    return false;
}

static void reverse_op(struct grad *g, struct ir_op *op) {
    if (!has_adjoint(g, op))
        return;
    switch (op->code) {
    case OP_nest: grad_nest(g, op); break;
    case OP_reshape: {
        struct ir_value *x = op->operands[0];
        if (grad_varied(g, x))
            grad_add(g, x, ir_build_reshape(&g->b, grad_adjoint(g, op->results[0]), x->type.rank, x->type.dims));
        break;
    }
    case OP_sort: grad_sort(g, op); break;
    case OP_scan: grad_scan(g, op); break;
    case OP_if: grad_if(g, op); break;
    case OP_for:
    case OP_while: grad_loop(g, op); break;
    case OP_kernel: grad_kernel(g, op); break;
    case OP_checkpoint: grad_checkpoint(g, op); break;
    case OP_extern: {
        g->failed = true;
        struct diagnostic *e = diag_error(g->m->diag, E_grad_extern, op->span, "the C function `%s` has no gradient",
                                          op->name ? op->name : "");
        diag_note(g->m->diag, e, g->op->span, "the gradient is taken here");
        diag_help(g->m->diag, e, "declare one behind it: `gradient(x, y, dy) { … }`");
        break;
    }
    default: break;
    }
}

void grad_reverse(struct grad *g, struct ir_region *r, struct ir_op *last) {
    for (struct ir_op *op = last; op && !g->failed;) {
        struct ir_op *before = op->prev;
        reverse_op(g, op);
        op = before;
    }
}

static void mark_adjoint(struct ir_op *op, void *context) {
    const int *made_before = context;
    if (op->result_count && op->results[0]->id >= *made_before)
        op->adjoint = true;
}

static void expand(struct grad *g, struct ir_op *op) {
    struct ir_value *y = op->operands[0];
    if (y->type.rank != 0 || !dtype_is_float(y->type.dtype)) {
        g->failed = true;
        diag_error(g->m->diag, E_grad_not_scalar, op->span, "only a float scalar has a gradient");
        return;
    }
    struct ir_value **wrt = grad_resolve_buffers(g, op);
    if (g->failed)
        return;
    int n = op->operand_count - 1;
    do {
        if (g->varied_cap)
            memset(g->varied, 0, (size_t)g->varied_cap);
        wrt = grad_resolve_buffers(g, op);
        y = op->operands[0];
        for (int i = 0; i < n; i++)
            if (wrt[i])
                set_varied(g, wrt[i]);
        mark_chain(g, op->parent, op);
    } while (expand_kernels(g));
    struct frame top = {.kind = FRAME_TOP, .reverse = op->parent};
    g->frame = &top;
    int made_before = g->func->value_count;
    g->b = (struct ir_builder){g->m, g->func, op->parent, op, op->span};
    if (grad_varied(g, y)) {
        grad_add(g, y, ir_build_float(&g->b, y->type.dtype, 1));
        struct ir_op *from = op->prev;
        for (struct ir_region *r = op->parent; r && !g->failed; r = r->op ? r->op->parent : NULL) {
            grad_reverse(g, r, from);
            from = r->op ? r->op->prev : NULL;
        }
    }
    if (g->failed)
        return;
    struct ir_value **results = ARENA_ARRAY(&g->scratch, struct ir_value *, n + 1);
    for (int i = 0; i < n; i++) {
        struct ir_value *d = wrt[i] ? grad_adjoint(g, wrt[i]) : NULL;
        results[i] = d ? d : grad_zeros(&g->b, op->results[i]->type);
    }
    struct ir_value **map = ARENA_ARRAY(&g->scratch, struct ir_value *, g->func->value_count);
    for (int i = 0; i < n; i++)
        map[op->results[i]->id] = results[i];
    ir_replace_values(g->func, map);
    ir_op_remove(op);
    ir_walk_ops(g->func->body, mark_adjoint, &made_before);
}

static void first_grad(struct ir_op *op, void *context) {
    struct ir_op **found = context;
    if (!*found && op->code == OP_grad)
        *found = op;
}

bool differentiate_func(const struct pass_context *c, struct ir_func *f) {
    for (;;) {
        struct ir_op *op = NULL;
        ir_walk_ops(f->body, first_grad, &op);
        if (!op)
            return true;
        struct grad g = {.m = f->module, .func = f, .op = op, .context = c};
        expand(&g, op);
        arena_free(&g.scratch);
        if (g.failed)
            return false;
    }
}

bool pass_differentiate(struct pass_context *c) {
    struct ir_module *m = c->module;
    bool changed = false;
    for (int i = 0; i <= m->func_count; i++) {
        struct ir_func *f = i < m->func_count ? m->funcs[i] : m->init;
        if (f) {
            int before = f->value_count;
            differentiate_func(c, f);
            changed |= f->value_count != before;
        }
    }
    return changed;
}
