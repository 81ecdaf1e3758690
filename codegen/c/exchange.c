/* A train step taken apart (passes/distribute.h), as C: where `gradients` hands a tensor out to be averaged over ranks, and where it
 * waits for what changed by the averages of the step before.
 *
 * Both follow from the plan. A key's tensor is final behind the last operation that touches its memory, be it only to read
 * it, since it is then averaged in place. A group must have run before the first operation that touches a buffer it changes,
 * or writes over a key it reads. So the first tensors travel while the backward pass still runs, and the first layers of the next
 * step begin while the last parameters arrive; nothing in the order of the operations says so. */

#include "codegen/c/function_internal.h"
#include "codegen/c/model_internal.h"
#include "codegen/cuda/cuda.h"

const struct step_split *cgen_split(const struct cgen *g, const struct ir_func *func) {
    const struct step_split *s = g->plan->split;
    if (!s || s->why_not)
        return NULL;
    bool part = func == s->gradients || func == s->report;
    for (int i = 0; i < s->group_count && !part; i++)
        part = func == s->groups[i].func;
    return part ? s : NULL;
}

const struct step_split *function_split(const struct function *f) {
    return cgen_split(f->g, f->func);
}

/* ---- keys as arguments ---------------------------------------------------------------------------------------------- */

int exchange_key_of_arg(const struct function *f, int arg) {
    const struct step_split *s = function_split(f);
    int k = arg - s->scalar_count;
    for (int i = 0; i < s->group_count; i++)
        if (f->func == s->groups[i].func)
            return s->groups[i].keys[k];
    return k;
}

bool exchange_key(struct function *f, const char *printed, const char *name, struct ir_type t, int key,
                  bool is_result) {
    const char *type = cgen_c_type(t.dtype);
    struct text *out = &f->g->functions;
    const bool averaged = f->g->cuda && cuda_averages(f->g); /* tensors are where the instance says */
    if (!cgen_mentions(printed, name) || (averaged && !is_result && t.rank > 0))
        return false;
    if (is_result)
        text_printf(out, "    %s *const %s = (%s *)keys[%d];\n", type, name, type, key);
    else if (t.rank == 0 && averaged)
        text_printf(out,
                    "    %s %s;\n    MX_TRY(%s_mx_fetch(m, &%s, MX_AT(keys[%d], sizeof %s), sizeof %s, \"%s: %s\"));\n",
                    type, name, f->g->prefix, name, key, name, name, f->func->name, name);
    else if (t.rank == 0) /* scalars are arguments by value */
        text_printf(out, "    const %s %s = *(const %s *)keys[%d];\n", type, name, type, key);
    else
        text_printf(out, "    const %s *const %s = (const %s *)keys[%d];\n", type, name, type, key);
    return true;
}

/* ---- where keys are final --------------------------------------------------------------------------------------------- */

struct exchange {
    const struct step_split *split;
    int *need;     /* [group_count] position before which the group must have run; -1: none */
    int *final;    /* [key_count] position behind which the tensor is final */
    bool *is_read; /* [buffer_count] */
};

struct toucher {
    struct function *f;
    struct exchange *x;
    int at;
};

static void need(struct exchange *x, int group, int at) {
    if (group >= 0 && x->need[group] < 0)
        x->need[group] = at;
}

static void touch(struct toucher *t, const struct ir_value *v) {
    const struct storage *s = function_storage(t->f, v);
    const struct step_split *split = t->x->split;
    int own = t->f->func->result_count - split->key_count;
    if (s && s->kind == STORAGE_BUFFER) {
        need(t->x, split->group_of[s->buffer->id], t->at);
        t->x->is_read[s->buffer->id] = true;
    }
    if (s && s->kind == STORAGE_RESULT && s->index >= own) {
        need(t->x, split->keys[s->index - own].group, t->at);
        t->x->final[s->index - own] = t->at;
    }
}

static void touch_op(struct ir_op *op, void *context) {
    struct toucher *t = context;
    /* What only names a value touches no memory. */
    bool names = op->code == OP_read || op->code == OP_reshape || op->code == OP_stop;
    if (names && op->operand_count && function_storage(t->f, op->operands[0]) == function_storage(t->f, op->results[0]))
        return;
    if (op->code == OP_read) {
        const struct storage *s = function_storage(t->f, op->results[0]);
        if (s && s->kind != STORAGE_BUFFER) { /* copied from there */
            need(t->x, t->x->split->group_of[op->buffer.buffer->id], t->at);
            t->x->is_read[op->buffer.buffer->id] = true;
        }
        return;
    }
    for (int i = 0; i < op->operand_count; i++)
        touch(t, op->operands[i]);
    for (int i = 0; i < op->result_count; i++)
        touch(t, op->results[i]);
    for (int i = 0; i < op->region_count; i++)
        for (int k = 0; k < op->regions[i]->yield_count; k++)
            touch(t, op->regions[i]->yields[k]);
}

struct exchange *exchange_plan(struct function *f) {
    const struct step_split *s = function_split(f);
    struct arena *a = &f->g->arena;
    struct exchange *x = ARENA_NEW(a, struct exchange);
    x->split = s;
    x->need = ARENA_ARRAY(a, int, s->group_count + 1);
    x->final = ARENA_ARRAY(a, int, s->key_count + 1);
    x->is_read = ARENA_ARRAY(a, bool, f->g->module->buffer_count + 1);
    for (int i = 0; i < s->group_count; i++)
        x->need[i] = -1;
    struct toucher t = {f, x, 0};
    for (struct ir_op *op = f->func->body->first; op; op = op->next, t.at++) {
        touch_op(op, &t);
        for (int i = 0; i < op->region_count; i++)
            ir_walk_ops(op->regions[i], touch_op, &t);
    }
    int own = f->func->result_count - s->key_count;
    for (int k = 0; k < s->key_count; k++) {
        const struct storage *at = function_storage(f, f->func->body->yields[own + k]);
        if (at && at->kind == STORAGE_RESULT && at->index == own + k)
            continue;
        need(x, s->keys[k].group, t.at); /* copied there at the end */
        x->final[k] = t.at;
    }
    struct cgen_exchange *e = f->g->exchange = ARENA_NEW(a, struct cgen_exchange);
    e->is_read = x->is_read;
    e->order = ARENA_ARRAY(a, int, s->key_count + 1);
    e->key_flops = ARENA_ARRAY(a, double, s->key_count + 1);
    e->group_flops = ARENA_ARRAY(a, double, s->group_count + 1);
    e->rows_touched = ARENA_ARRAY(a, int64_t, s->key_count + 1);
    for (int i = 0; i < s->group_count; i++)
        e->group_flops[i] = -1;
    return x;
}

void exchange_before(struct function *f, const struct exchange *x, int at) {
    for (int g = 0; g < x->split->group_count; g++)
        if (x->need[g] == at) {
            f->g->exchange->group_flops[g] = f->flops;
            cprint_line(&f->print, "if (m->mx_exchange->need(m->mx_exchange->context, %d) != MX_OK)", g);
            cprint_line(&f->print, "    return MX_ERROR_PEER;");
        }
}

/* How many rows of a tensor can be other than zero, where it is made by adding at rows that data name; else 0. What it is
 * added into may be no zeros, as for weights that are used twice; then all rows can. */
static int64_t rows_touched(const struct ir_value *v) {
    const struct ir_op *op = v->op;
    if (!op || op->code != OP_nest || v->type.rank < 2 || op->nest.results[v->index].base < 0 ||
        op->nest.results[v->index].combine != COMBINE_ADD)
        return 0;
    ir_expr row = op->nest.results[v->index].target[0];
    const struct ir_op *base = op->operands[op->nest.results[v->index].base]->op;
    double zero = 1;
    while (row->kind == X_CAST)
        row = row->args[0];
    if (row->kind != X_LOAD || !base || base->code != OP_nest || base->nest.results[0].base >= 0 ||
        !ir_expr_is_const(base->nest.results[0].value, &zero) || zero != 0)
        return 0;
    int64_t places = 1, elements = 1;
    for (int i = 0; i < op->nest.pars; i++)
        places *= ir_dim_upper(op->nest.indices[i].extent);
    for (int i = 1; i < v->type.rank; i++)
        elements *= ir_dim_upper(v->type.dims[i]);
    return elements ? (places + elements - 1) / elements : 0;
}

void exchange_after(struct function *f, const struct exchange *x, int at) {
    struct cgen_exchange *e = f->g->exchange;
    int own = f->func->result_count - x->split->key_count;
    for (int k = 0; k < x->split->key_count; k++)
        if (x->final[k] == at) {
            e->key_flops[k] = f->flops;
            e->rows_touched[k] = rows_touched(f->func->body->yields[own + k]);
            e->order[e->count++] = k;
            if (f->g->cuda)
                cuda_hand_out(f, k, own + k);
            else
                cprint_line(&f->print, "m->mx_exchange->final(m->mx_exchange->context, %d);", k);
        }
}

/* ---- random numbers over the whole batch -------------------------------------------------------------------------------- */

bool exchange_batch(const struct function *f, struct ir_type t, ir_dim *outer, ir_dim *inner) {
    struct ir_module *m = f->g->module;
    if (!f->func->symbol_count)
        return false;
    ir_dim batch = ir_dim_symbol(m, f->func->symbols[0]);
    *outer = *inner = ir_dim_const(m, 1);
    for (int i = 0; i < t.rank; i++) {
        ir_dim quotient = ir_dim_div(m, t.dims[i], batch);
        if (ir_dim_mul(m, quotient, batch) == t.dims[i] && ir_dim_lower(quotient) > 0) {
            *inner = quotient;
            for (int k = i + 1; k < t.rank; k++)
                *inner = ir_dim_mul(m, *inner, t.dims[k]);
            return true;
        }
        *outer = ir_dim_mul(m, *outer, t.dims[i]);
    }
    return false;
}
