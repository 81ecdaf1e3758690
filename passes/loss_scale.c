/* Dynamic loss scaling (Micikevicius et al. 2018, "Mixed Precision Training"), for --precision f16: in f16 small gradients vanish and large ones
 * overflow, so the loss is multiplied before its gradient is taken, and gradients are divided, in f32, before anybody reads them.
 *
 *   grad(loss, w)    becomes   grad(loss * scale, w) / scale
 *   write buffer, v  becomes   write buffer, where(finite, v, what it held)
 *
 * `finite` says whether all gradients of the call are. If not, the call leaves every buffer and inout argument as it was, and the scale halves;
 * after a number of calls with finite gradients in a row it doubles. Scale and count are states of the module, so they are in
 * checkpoints (a scale of 0, of weights that came without one, is the first scale). All is ordinary IR: mutation proves what is written
 * in place, and no target knows of it.
 *
 * A branch around the update would be the obvious way; but an update may stand anywhere, in any form, so the writes at the end of the
 * function are what is guarded. The pass comes before `distribute`: a gradient that leaves is scaled, and the test and the division
 * stand behind the mean over ranks, where one rank's overflow is everybody's, so all take the same decision. What follows a rank's own
 * batch (running statistics, carried states) must not depend on that mean; there a program for ranks guards each such write
 * by whether its own new value is finite. */
#include <math.h>
#include <string.h>

#include "passes/nest_edit.h"
#include "passes/passes.h"

struct scaling {
    struct ir_module *m;
    const struct compile_options *options;
    struct ir_buffer *scale, *steps;
    /* of the function */
    struct ir_func *func;
    struct arena scratch;
    VEC(struct ir_op *) grads;
    VEC(struct ir_value *) tests; /* rank 0 bool, one for each gradient */
    struct ir_value *finite;
};

/* ---- small nests -------------------------------------------------------------------------------------------------- */

static ir_expr load_own(struct ir_module *m, int slot, struct ir_type t) {
    ir_expr at[NEST_MAX_RANK];
    for (int d = 0; d < t.rank; d++)
        at[d] = ir_index(m, d);
    return ir_load(m, slot, t.dtype, t.rank, at, NULL);
}

static ir_expr load_scalar(struct ir_module *m, int slot, const struct ir_value *v) {
    return ir_load(m, slot, v->type.dtype, 0, NULL, NULL);
}

static ir_expr is_finite(struct ir_module *m, ir_expr e) {
    return ir_fn2(m, FN_lt, ir_fn1(m, FN_abs, e), ir_const_number(m, e->dtype, (double)INFINITY));
}

/* Whether all elements are finite: rank 0, bool. */
static struct ir_value *all_finite(struct ir_builder *b, struct ir_value *v) {
    struct ir_module *m = b->module;
    int rank = v->type.rank;
    ir_expr test = is_finite(m, load_own(m, 0, v->type));
    if (!rank)
        return ir_build_map(b, BOOL, 0, NULL, test, &v, 1);
    static const char *const names[] = {"i", "j", "k", "l", "m", "n"};
    struct ir_op *op = ir_op_new(b, OP_nest, &v, 1, 0);
    op->nest.reds = rank;
    op->nest.indices = ARENA_ARRAY(&m->arena, struct ir_nest_index, rank);
    for (int d = 0; d < rank; d++)
        op->nest.indices[d] = (struct ir_nest_index){names[d < 6 ? d : 5], v->type.dims[d], ir_const_int(m, I64, 0),
                                                     ir_dim_expr(m, v->type.dims[d])};
    op->nest.acc_count = 1;
    op->nest.accs = ARENA_NEW(&m->arena, struct ir_acc);
    op->nest.accs[0] = (struct ir_acc){RED_ALL, test};
    op->nest.results = ARENA_NEW(&m->arena, struct ir_nest_result);
    op->nest.results[0] = (struct ir_nest_result){.value = ir_acc(m, 0, BOOL), .base = -1};
    return ir_op_result(op, ir_type_make(m, BOOL, 0, NULL));
}

/* All of several, few at a time: kernels have a limit of arguments. */
static struct ir_value *all_of(struct ir_builder *b, struct ir_value **tests, int n) {
    enum { TOGETHER = 16 };
    struct ir_module *m = b->module;
    while (n > 1) {
        int left = 0;
        for (int i = 0; i < n; i += TOGETHER) {
            int count = n - i < TOGETHER ? n - i : TOGETHER;
            ir_expr all = load_scalar(m, 0, tests[i]);
            for (int k = 1; k < count; k++)
                all = ir_fn2(m, FN_and, all, load_scalar(m, k, tests[i + k]));
            tests[left++] = count == 1 ? tests[i] : ir_build_map(b, BOOL, 0, NULL, all, tests + i, count);
        }
        n = left;
    }
    return tests[0];
}

static struct ir_value *either(struct ir_builder *b, struct ir_value *condition, struct ir_value *yes,
                               struct ir_value *no) {
    struct ir_module *m = b->module;
    struct ir_value *operands[3] = {condition, yes, no};
    ir_expr e = ir_fn3(m, FN_where, load_scalar(m, 0, condition), load_own(m, 1, yes->type), load_own(m, 2, no->type));
    struct ir_value *v = ir_build_map(b, yes->type.dtype, yes->type.rank, yes->type.dims, e, operands, 3);
    v->name = yes->name;
    v->buffer_name = yes->buffer_name;
    v->version = yes->version;
    return v;
}

/* ---- gradients ---------------------------------------------------------------------------------------------------- */

static void find_grad(struct ir_op *op, void *context) {
    struct scaling *s = context;
    if (op->code == OP_grad)
        VEC_PUSH(&s->scratch, s->grads, op);
}

static bool is_top(struct scaling *s, const struct ir_op *op) {
    if (op->parent == s->func->body)
        return true;
    struct diagnostic *e =
        diag_error(s->m->diag, E_grad_unscaled, op->span,
                   "with --precision f16 a gradient cannot be taken inside a loop, branch or kernel");
    diag_help(s->m->diag, e, "take it in the function's own body, or use --precision bf16, which needs no scaling");
    return false;
}

static struct ir_value *buffer_now(struct scaling *s, struct ir_buffer *buffer) {
    for (struct ir_op *op = s->func->body->first; op; op = op->next)
        if (op->code == OP_read && op->buffer.buffer == buffer)
            return op->results[0];
    struct ir_builder b = {s->m, s->func, s->func->body, s->func->body->first, s->func->span};
    return ir_build_read(&b, buffer);
}

/* A loss of f16 has no room for a scale: its gradient is only looked at. */
static bool is_scaled(const struct ir_op *grad) {
    return grad->operands[0]->type.dtype != F16;
}

static void scale_loss(struct scaling *s, struct ir_op *grad, struct ir_value *scale) {
    struct ir_module *m = s->m;
    struct ir_builder b = {m, s->func, grad->parent, grad, grad->span};
    struct ir_value *operands[2] = {grad->operands[0], scale};
    enum dtype t = operands[0]->type.dtype;
    ir_expr e = ir_fn2(m, FN_mul, load_scalar(m, 0, operands[0]), ir_cast(m, t, load_scalar(m, 1, scale)));
    struct ir_value *scaled = ir_build_map(&b, t, 0, NULL, e, operands, 2);
    scaled->name = "scaled";
    grad->operands[0] = scaled;
}

/* Tests the gradients and divides them; everybody else reads the quotients. */
static void unscale(struct scaling *s, struct ir_op *grad, struct ir_value *inverse) {
    struct ir_module *m = s->m;
    struct ir_builder b = {m, s->func, grad->parent, grad->next, grad->span};
    struct ir_value **map = ARENA_ARRAY(&s->scratch, struct ir_value *, s->func->value_count + 2 * grad->result_count);
    for (int i = 0; i < grad->result_count && is_scaled(grad); i++) {
        struct ir_value *g = grad->results[i], *operands[2] = {g, inverse};
        ir_expr e = ir_fn2(m, FN_mul, load_own(m, 0, g->type), ir_cast(m, g->type.dtype, load_scalar(m, 1, inverse)));
        map[g->id] = ir_build_map(&b, g->type.dtype, g->type.rank, g->type.dims, e, operands, 2);
        map[g->id]->name = g->name;
    }
    ir_replace_values(s->func, map);
    for (int i = 0; i < grad->result_count; i++) {
        if (map[grad->results[i]->id])
            map[grad->results[i]->id]->op->operands[0] = grad->results[i];
        VEC_PUSH(&s->scratch, s->tests, all_finite(&b, grad->results[i]));
    }
}

/* ---- writes ------------------------------------------------------------------------------------------------------- */

struct origin {
    struct scaling *s;
    bool *seen;
    VEC(struct ir_value *) work;
};

static void reach(struct ir_value *v, void *context) {
    struct origin *o = context;
    if (o->seen[v->id])
        return;
    o->seen[v->id] = true;
    VEC_PUSH(&o->s->scratch, o->work, v);
}

static void find_random(struct ir_op *op, void *context) {
    *(bool *)context |= op->code == OP_rng || op->code == OP_extern;
}

/* Whether v follows the batch (tensor arguments, random numbers) and no gradient goes into it. */
static bool follows_batch(struct scaling *s, struct ir_value *v) {
    struct origin o = {.s = s, .seen = ARENA_ARRAY(&s->scratch, bool, s->func->value_count)};
    bool local = false;
    reach(v, &o);
    while (o.work.n) {
        struct ir_value *x = o.work.at[--o.work.n];
        if (!x->op) {
            local |= x->region == s->func->body && x->type.rank > 0;
            continue;
        }
        if (x->op->code == OP_grad)
            return false;
        find_random(x->op, &local);
        for (int r = 0; r < x->op->region_count; r++)
            ir_walk_ops(x->op->regions[r], find_random, &local);
        distribute_uses(x->op, reach, &o);
    }
    return local;
}

/* The write moves to the end of the function, where it is known whether all gradients are finite. */
static void guard_write(struct scaling *s, struct ir_op *write) {
    struct ir_builder b = {.module = s->m, .func = s->func, .region = write->parent, .span = write->span};
    struct ir_buffer *buffer = write->buffer.buffer;
    struct ir_value *v = write->operands[0], *before = buffer_now(s, buffer);
    if (v == before)
        return;
    bool ranks = s->options->with_main && !s->options->no_ranks && s->options->target == TARGET_C;
    struct ir_value *condition = s->finite;
    if (ranks && follows_batch(s, v)) {
        if (!dtype_is_float(v->type.dtype))
            return;
        condition = all_finite(&b, v);
    }
    ir_op_remove(write);
    ir_build_write(&b, buffer, either(&b, condition, v, before));
}

static void guard_arguments(struct scaling *s) {
    struct ir_func *f = s->func;
    struct ir_builder b = {.module = s->m, .func = f, .region = f->body, .span = f->span};
    for (int i = 0, k = f->result_count; i < f->body->arg_count; i++)
        if (f->arg_inout && f->arg_inout[i]) {
            if (f->body->yields[k] != f->body->args[i])
                f->body->yields[k] = either(&b, s->finite, f->body->yields[k], f->body->args[i]);
            k++;
        }
}

/* scale = finite ? (count full ? twice : same) : half */
static void build_update(struct scaling *s, struct ir_value *scale, struct ir_value *steps) {
    struct ir_module *m = s->m;
    struct ir_builder b = {.module = m, .func = s->func, .region = s->func->body, .span = s->func->span};
    struct ir_value *operands[3] = {s->finite, scale, steps};
    ir_expr finite = load_scalar(m, 0, s->finite), now = load_scalar(m, 1, scale), zero = ir_const_int(m, I32, 0);
    ir_expr count = ir_fn2(m, FN_add, load_scalar(m, 2, steps), ir_const_int(m, I32, 1));
    int64_t full = s->options->loss_scale_steps ? s->options->loss_scale_steps : 2000;
    ir_expr is_full = ir_fn2(m, FN_le, ir_const_int(m, I32, full), count);
    ir_expr twice = ir_fn2(m, FN_min, ir_fn2(m, FN_mul, now, ir_const_float(m, F32, 2)),
                           ir_const_float(m, F32, LARGEST_LOSS_SCALE));
    ir_expr half = ir_fn2(m, FN_max, ir_fn2(m, FN_mul, now, ir_const_float(m, F32, 0.5)),
                          ir_const_float(m, F32, LEAST_LOSS_SCALE));
    ir_expr next = ir_fn3(m, FN_where, finite, ir_fn3(m, FN_where, is_full, twice, now), half);
    ir_build_write(&b, s->scale, ir_build_map(&b, F32, 0, NULL, next, operands, 3));
    ir_expr counted = ir_fn3(m, FN_where, finite, ir_fn3(m, FN_where, is_full, zero, count), zero);
    ir_build_write(&b, s->steps, ir_build_map(&b, I32, 0, NULL, counted, operands, 3));
}

/* ---- the states --------------------------------------------------------------------------------------------------- */

static struct ir_buffer *new_state(struct ir_module *m, const char *name, enum dtype t) {
    for (int i = 0; i < m->buffer_count; i++)
        if (strcmp(m->buffers[i]->name, name) == 0)
            return new_state(m, arena_printf(&m->arena, "%s_", name), t);
    return ir_buffer_new(m, name, BUFFER_STATE, ir_type_make(m, t, 0, NULL), (struct span){0});
}

static double first_scale(const struct scaling *s) {
    return s->options->loss_scale > 0 ? s->options->loss_scale : 65536;
}

static void write_initial(struct scaling *s, struct ir_func *f) {
    struct ir_builder b = {.module = s->m, .func = f, .region = f->body};
    ir_build_write(&b, s->scale, ir_build_float(&b, F32, first_scale(s)));
    ir_build_write(&b, s->steps, ir_build_int(&b, I32, 0));
}

static void make_states(struct scaling *s) {
    struct ir_module *m = s->m;
    if (s->scale)
        return;
    s->scale = new_state(m, "mx.loss_scale", F32);
    s->steps = new_state(m, "mx.loss_scale_steps", I32);
    if (!m->init)
        m->init = ir_func_new(m, "init", (struct span){0});
    write_initial(s, m->init);
    for (int i = 0; i < m->func_count; i++)
        if (ir_func_is_reset(m->funcs[i]))
            write_initial(s, m->funcs[i]);
}

/* ---- the pass ----------------------------------------------------------------------------------------------------- */

static void scale_func(struct scaling *s) {
    struct ir_func *f = s->func;
    make_states(s);
    struct ir_value *held = buffer_now(s, s->scale), *steps = buffer_now(s, s->steps);
    struct ir_builder b = {s->m, f, f->body, held->op->next, f->span};
    ir_expr was = load_scalar(s->m, 0, held), zero = ir_const_float(s->m, F32, 0);
    ir_expr now =
        ir_fn3(s->m, FN_where, ir_fn2(s->m, FN_lt, zero, was), was, ir_const_float(s->m, F32, first_scale(s)));
    struct ir_value *scale = ir_build_map(&b, F32, 0, NULL, now, &held, 1);
    scale->name = "scale";
    ir_expr one = ir_const_float(s->m, F32, 1);
    struct ir_value *inverse =
        ir_build_map(&b, F32, 0, NULL, ir_fn2(s->m, FN_div, one, load_scalar(s->m, 0, scale)), &scale, 1);
    for (int i = 0; i < s->grads.n; i++) {
        if (is_scaled(s->grads.at[i]))
            scale_loss(s, s->grads.at[i], scale);
        unscale(s, s->grads.at[i], inverse);
    }
    struct ir_op *last = s->grads.at[0]; /* behind all tests */
    for (struct ir_op *op = f->body->first; op; op = op->next)
        for (int i = 0; i < s->tests.n; i++)
            if (op == s->tests.at[i]->op)
                last = op;
    b = (struct ir_builder){s->m, f, f->body, last->next, last->span};
    s->finite = all_of(&b, s->tests.at, s->tests.n);
    s->finite->name = "finite";
    struct ir_op *end = f->body->last;
    for (struct ir_op *op = f->body->first, *next; op; op = op == end ? NULL : next) {
        next = op->next;
        if (op->code == OP_write)
            guard_write(s, op);
    }
    guard_arguments(s);
    build_update(s, scale, steps);
}

bool pass_loss_scale(struct pass_context *c) {
    struct ir_module *m = c->module;
    struct scaling s = {.m = m, .options = c->options};
    if (c->options->precision != PRECISION_F16)
        return false;
    for (int i = 0; i < m->func_count; i++) {
        s.func = m->funcs[i];
        s.grads.n = s.tests.n = 0;
        ir_walk_ops(s.func->body, find_grad, &s);
        bool good = true;
        int results = 0;
        for (int k = 0; k < s.grads.n; k++) {
            good &= is_top(&s, s.grads.at[k]);
            results += s.grads.at[k]->result_count;
        }
        if (good && results)
            scale_func(&s);
    }
    arena_free(&s.scratch);
    return s.scale != NULL;
}
