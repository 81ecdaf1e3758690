/* What is alive when, in the order in which the function's operations stand: read off a copy of the function that is planned
 * like the function itself will be, so that versions in place and memory taken over from dying operands count as they will. */
#include "passes/memplan/remat_internal.h"

#include <string.h>

#include "passes/memplan/plan_steps.h"
#include "passes/mutation/updates.h"

static struct ir_func *copy_func(const struct ir_func *f) {
    struct ir_module *m = f->module;
    struct ir_func *copy = ir_func_new(m, f->name, f->span);
    struct ir_region *body = copy->body;
    copy->arg_names = f->arg_names;
    copy->arg_inout = f->arg_inout;
    copy->result_count = f->result_count;
    copy->result_names = f->result_names;
    struct ir_value **args = ARENA_ARRAY(&m->arena, struct ir_value *, f->body->arg_count + 1);
    struct ir_value **yields = ARENA_ARRAY(&m->arena, struct ir_value *, f->body->yield_count + 1);
    for (int i = 0; i < f->body->arg_count; i++)
        args[i] = ir_region_arg(body, f->body->args[i]->type, f->body->args[i]->name);
    struct ir_builder b = {.module = m, .func = copy, .region = body, .span = f->span};
    ir_inline_region(&b, f->body, args, yields);
    ir_region_yield(body, yields, f->body->yield_count);
    return copy;
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

static int64_t workspace_of(struct remat *r, const struct plan_func *p, const struct ir_op *op, struct ir_op *copy) {
    if (!op->result_count || !r->c->workspace)
        return 0;
    int64_t *known = &r->workspace[op->results[0]->id];
    if (*known < 0)
        *known = r->c->workspace(r->c->options, p, copy);
    return *known;
}

static void read_memory(struct remat *r) {
    struct ir_func *f = r->func, *copy = copy_func(f);
    struct ir_op **copies = ARENA_ARRAY(&r->arena, struct ir_op *, r->n + 1);
    int k = 0;
    for (struct ir_op *op = copy->body->first; op; op = op->next)
        copies[k++] = op;
    struct plan_func p;
    int64_t copies_seen = 0;
    mutation_func(r->c, copy, &p, &copies_seen);
    struct liveness *l = liveness_new(copy, &r->arena);
    place_lifetimes(r->c, &p, l, false);
    int64_t *alive = ARENA_ARRAY(&r->arena, int64_t, l->positions + 2);
    for (int i = 0; i < p.storage_count; i++) {
        const struct storage *s = p.storages[i];
        if (s->kind != STORAGE_ARENA || s->lower >= s->upper)
            continue;
        alive[s->lower] += s->bytes;
        alive[s->upper] -= s->bytes;
    }
    for (int i = 1; i <= l->positions; i++)
        alive[i] += alive[i - 1];
    int *number =
        ARENA_ARRAY(&r->arena, int, copy->value_count + 1); /* of what makes a value; 0: a copy that mutation made */
    for (int i = 0; i < r->n; i++)
        for (int j = 0; j < copies[i]->result_count; j++)
            number[copies[i]->results[j]->id] = i + 1;
    k = 0;
    for (int i = 0; i < l->op_count; i++) {
        const struct op_position *at = &l->ops[i];
        if (at->op->parent != copy->body)
            continue;
        int known = at->op->result_count ? number[at->op->results[0]->id] : 0;
        k = known ? known - 1 : k;
        for (int t = at->start; t <= at->end; t++)
            if (alive[t] > r->load[k])
                r->load[k] = alive[t];
        if (!known)
            continue;
        r->load[k] += workspace_of(r, &p, r->ops[k], copies[k]);
        for (int j = 0; j < copies[k]->result_count; j++) {
            const struct storage *s = p.of_value[copies[k]->results[j]->id];
            struct ir_value *v = r->ops[k]->results[j];
            if (s && s->kind == STORAGE_ARENA)
                r->values[v->id].bytes = ir_type_bytes_upper(v->type);
        }
    }
    r->load[r->n] = l->positions ? alive[l->positions - 1] : 0;
}

/* ---- readers ------------------------------------------------------------------------------------------------------ */

void remat_add_use(struct remat *r, int root, int at, struct ir_op *op) {
    struct remat_value *v = &r->values[root];
    if (v->uses.n && v->uses.at[v->uses.n - 1].op == op && op)
        return;
    VEC_PUSH(&r->arena, v->uses, (struct remat_use){at, op});
    for (int i = v->uses.n - 1; i > 0 && v->uses.at[i - 1].at > at; i--) {
        struct remat_use t = v->uses.at[i];
        v->uses.at[i] = v->uses.at[i - 1];
        v->uses.at[i - 1] = t;
    }
}

static void read_uses(struct remat *r, int at, struct ir_op *top, const struct ir_op *op) {
    for (int i = 0; i < op->operand_count; i++)
        remat_add_use(r, r->root[op->operands[i]->id], at, top);
    for (int i = 0; i < op->region_count && op->code != OP_kernel; i++) {
        const struct ir_region *inner = op->regions[i];
        for (const struct ir_op *x = inner->first; x; x = x->next)
            read_uses(r, at, top, x);
        for (int k = 0; k < inner->yield_count; k++)
            remat_add_use(r, r->root[inner->yields[k]->id], at, top);
    }
}

static void written_over(struct remat *r, const struct ir_value *old, const struct ir_value *next) {
    struct remat_value *v = &r->values[r->root[old->id]];
    int at = r->values[r->root[next->id]].def;
    if (at >= 0 && at < v->over)
        v->over = at;
}

static void read_overwriting(struct remat *r) {
    struct ir_func *f = r->func;
    struct ir_value **read = ARENA_ARRAY(&r->arena, struct ir_value *, f->module->buffer_count + 1);
    for (int i = 0; i < r->n; i++) {
        const struct ir_op *op = r->ops[i];
        if (op->code == OP_read)
            read[op->buffer.buffer->id] = op->results[0];
        for (int k = 0; op->code == OP_nest && k < op->result_count; k++)
            if (op->nest.results[k].base >= 0)
                written_over(r, op->operands[op->nest.results[k].base], op->results[k]);
        int carried = op->code == OP_for ? 2 : 0;
        for (int k = 0; (op->code == OP_for || op->code == OP_while) && k < op->result_count; k++)
            written_over(r, op->operands[carried + k], op->results[k]);
    }
    for (int i = 0; i < r->n; i++)
        if (r->ops[i]->code == OP_write && read[r->ops[i]->buffer.buffer->id])
            written_over(r, read[r->ops[i]->buffer.buffer->id], r->ops[i]->operands[0]);
    for (int i = 0, k = f->result_count; i < f->body->arg_count && k < f->body->yield_count; i++)
        if (f->arg_inout && f->arg_inout[i])
            written_over(r, f->body->args[i], f->body->yields[k++]);
}

/* ---- all of it ---------------------------------------------------------------------------------------------------- */

void remat_model(struct remat *r) {
    struct ir_func *f = r->func;
    updates_early(f); /* as mutation will */
    arena_free(&r->arena);
    memset(&r->arena, 0, sizeof r->arena);
    r->n = 0;
    for (struct ir_op *op = f->body->first; op; op = op->next)
        r->n++;
    r->cap = f->value_count + 4 * r->n + 64; /* the copies of one round and their views */
    r->ops = ARENA_ARRAY(&r->arena, struct ir_op *, r->n + 1);
    r->load = ARENA_ARRAY(&r->arena, int64_t, r->n + 1);
    r->values = ARENA_ARRAY(&r->arena, struct remat_value, r->cap);
    r->root = ARENA_ARRAY(&r->arena, int, r->cap);
    int64_t *workspace = ARENA_ARRAY(&r->keep, int64_t, r->cap);
    for (int i = 0; i < r->cap; i++) {
        workspace[i] = i < r->workspace_cap ? r->workspace[i] : -1;
        r->root[i] = i;
        r->values[i].over = INT32_MAX;
        r->values[i].def = r->values[i].again = -1;
    }
    r->workspace = workspace;
    r->workspace_cap = r->cap;
    int k = 0;
    for (struct ir_op *op = f->body->first; op; op = op->next, k++) {
        r->ops[k] = op;
        for (int i = 0; i < op->result_count; i++) {
            struct ir_value *v = op->results[i];
            if (op->code == OP_reshape) {
                r->root[v->id] = r->root[op->operands[0]->id];
                continue;
            }
            r->values[v->id].value = v;
            r->values[v->id].def = k;
        }
    }
    for (int i = 0; i < r->n; i++)
        if (r->ops[i]->code != OP_reshape)
            read_uses(r, i, r->ops[i], r->ops[i]);
    for (int i = 0; i < f->body->yield_count; i++)
        remat_add_use(r, r->root[f->body->yields[i]->id], r->n, NULL);
    read_overwriting(r);
    read_memory(r);
}

int64_t remat_trial(struct remat *r) {
    struct ir_func *copy = copy_func(r->func);
    struct plan_func p;
    struct plan plan = {.arena = &r->func->module->arena, .funcs = &p, .func_count = 1}, *before = r->c->plan;
    int64_t copies_seen = 0;
    mutation_func(r->c, copy, &p, &copies_seen);
    r->c->plan = &plan; /* where placement keeps what it makes */
    place_func(r->c, &p);
    r->c->plan = before;
    return p.arena_bytes;
}
