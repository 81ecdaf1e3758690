/* Takes the train block's step apart for training over ranks. Each rank computes gradients from its part of the batch; what
 * changes by them runs, on every rank alike, after they were averaged. Replicas stay equal only if nothing else that differs between ranks
 * goes into what they share, and that is what this pass proves, by a taint analysis over the function as it was written:
 *
 *   local   depends on the batch (tensor arguments, run-time dimensions), on random numbers, on a state that does
 *   after   depends on a gradient of a parameter: those gradients are the cut, local before and shared behind it
 *
 * A param or state that gets a local value would drift apart: a running statistic, whose old value goes nowhere but into its
 * new one, is averaged like a gradient; a state that the loss reads (the hidden state of texts that go on) is each rank's own; a
 * param, or a local value that was already mixed with an average, is a reason not to split, told when somebody asks for ranks.
 *
 * Writes behind the cut fall into groups, the connected components of what depends on a key. A group can run as soon as its keys are
 * averaged, while others are still on the wire: usually one parameter with its moments; all of them if the optimizer clips
 * by a common norm. What changes without any key (a step counter that all groups read) is the last group.
 *
 * Splitting the text of the step, or hooks around its update, would not do: an update may stand anywhere, in any form. */
#include "passes/distribute.h"

#include <string.h>

#include "passes/passes.h"

static void use_region(struct ir_region *r, const struct ir_op *op, void (*fn)(struct ir_value *, void *),
                       void *context) {
    for (struct ir_op *in = r->first; in; in = in->next) {
        for (int i = 0; i < in->operand_count; i++)
            if (ir_value_defined_in(in->operands[i], op->parent) &&
                (in->operands[i]->op ? in->operands[i]->op->parent : in->operands[i]->region) == op->parent)
                fn(in->operands[i], context);
        for (int i = 0; i < in->region_count; i++)
            use_region(in->regions[i], op, fn, context);
    }
    for (int i = 0; i < r->yield_count; i++)
        if ((r->yields[i]->op ? r->yields[i]->op->parent : r->yields[i]->region) == op->parent)
            fn(r->yields[i], context);
}

void distribute_uses(struct ir_op *op, void (*fn)(struct ir_value *, void *), void *context) {
    for (int i = 0; i < op->operand_count; i++)
        fn(op->operands[i], context);
    for (int i = 0; i < op->region_count; i++)
        use_region(op->regions[i], op, fn, context);
}

int step_split_last(const struct step_split *s) {
    return s->group_count && !s->groups[s->group_count - 1].key_count ? s->group_count - 1 : -1;
}

/* ---- what goes into values ---------------------------------------------------------------------------------------- */

struct reach {
    const struct step_analysis *a;
    bool *seen; /* [value_count] */
    VEC(struct ir_value *) work;
};

static void reach_value(struct ir_value *v, void *context) {
    struct reach *r = context;
    if (r->seen[v->id])
        return;
    r->seen[v->id] = true;
    VEC_PUSH((struct arena *)&r->a->scratch, r->work, v);
}

/* Everything that goes into the values reached so far; behind the cut, not through it. */
static void reach_all(struct reach *r, bool through_cut) {
    while (r->work.n) {
        struct ir_value *v = r->work.at[--r->work.n];
        if (v->op && (through_cut || r->a->key_of[v->id] < 0))
            distribute_uses(v->op, reach_value, r);
    }
}

static struct reach reach_new(struct step_analysis *a) {
    return (struct reach){.a = a, .seen = ARENA_ARRAY(&a->scratch, bool, a->func->value_count)};
}

/* ---- taint -------------------------------------------------------------------------------------------------------- */

struct flags {
    const struct step_analysis *a;
    bool local, after;
};

static void see_use(struct ir_value *v, void *context) {
    struct flags *f = context;
    f->local |= f->a->local[v->id];
    f->after |= f->a->after[v->id];
}

static bool varies(ir_dim d) {
    int64_t value;
    return d && !ir_dim_is_const(d, &value);
}

static void see_dim(ir_expr e, void *context) {
    struct flags *f = context;
    f->local |= e->kind == X_DIM && varies(e->dim);
}

static void see_nest(struct flags *f, const struct ir_op *op) {
    for (int i = 0; i < op->nest.pars + op->nest.reds; i++) {
        f->local |= varies(op->nest.indices[i].extent);
        if (i >= op->nest.pars) {
            ir_expr_walk(op->nest.indices[i].lo, see_dim, f);
            ir_expr_walk(op->nest.indices[i].hi, see_dim, f);
        }
    }
    for (int i = 0; i < op->nest.acc_count; i++)
        ir_expr_walk(op->nest.accs[i].body, see_dim, f);
    for (int i = 0; i < op->result_count; i++)
        ir_expr_walk(op->nest.results[i].value, see_dim, f);
}

/* Run-time dimensions, random numbers and C code, in op or inside of it. */
static void see_op(struct ir_op *op, void *context) {
    struct flags *f = context;
    f->local |= op->code == OP_rng || op->code == OP_extern || op->code == OP_dim;
    for (int i = 0; i < op->result_count; i++)
        for (int k = 0; k < op->results[i]->type.rank; k++)
            f->local |= varies(op->results[i]->type.dims[k]);
    if (op->code == OP_nest)
        see_nest(f, op);
}

static bool refuse(struct step_analysis *a, struct span where, const char *why) {
    if (!a->split->why_not) {
        a->split->why_not = why;
        a->split->where = where;
    }
    return false;
}

static const struct ir_op *inner_gradient(const struct ir_op *op) {
    for (int i = 0; i < op->region_count; i++)
        for (const struct ir_op *in = op->regions[i]->first; in; in = in->next) {
            if (in->code == OP_grad && in->grad.wrt_buffers)
                for (int k = 0; k + 1 < in->operand_count; k++)
                    if (in->grad.wrt_buffers[k])
                        return in;
            const struct ir_op *inside = inner_gradient(in);
            if (inside)
                return inside;
        }
    return NULL;
}

static void add_key(struct step_analysis *a, struct ir_value *v, const struct ir_buffer *b, bool is_gradient) {
    struct step_split *s = a->split;
    a->key_of[v->id] = s->key_count;
    a->key_value[s->key_count] = v;
    s->keys[s->key_count++] = (struct step_key){b, is_gradient, -1};
}

/* The gradients of parameters are the cut, but those that go into a further gradient. */
static void see_grad(struct step_analysis *a, struct ir_op *op, const bool *differentiated, const int *uses) {
    for (int i = 0; i < op->result_count; i++) {
        struct ir_value *v = op->results[i];
        const struct ir_buffer *b = op->grad.wrt_buffers ? op->grad.wrt_buffers[i] : NULL;
        if (!b || b->kind != BUFFER_PARAM || differentiated[v->id]) {
            a->local[v->id] = true;
        } else if (uses[v->id]) {
            if (a->key_of[v->id] < 0)
                add_key(a, v, b, true);
            a->after[v->id] = true;
        }
    }
}

/* A parameter would get a value that differs between ranks: where an update went into a further gradient, that is why. */
static bool refuse_parameter(struct step_analysis *a, const struct ir_op *write, const bool *differentiated) {
    struct reach written = reach_new(a);
    reach_value(write->operands[0], &written);
    reach_all(&written, true);
    for (int i = 0; i < a->op_count; i++) {
        if (a->ops[i]->code != OP_grad)
            continue;
        struct reach loss = reach_new(a);
        reach_value(a->ops[i]->operands[0], &loss);
        reach_all(&loss, true);
        for (int k = 0; k < i; k++)
            for (int r = 0; r < a->ops[k]->result_count && a->ops[k]->code == OP_grad && a->ops[k]->grad.wrt_buffers;
                 r++) {
                int id = a->ops[k]->results[r]->id;
                if (a->ops[k]->grad.wrt_buffers[r] && differentiated[id] && loss.seen[id] && written.seen[id])
                    return refuse(a, a->ops[i]->span,
                                  "this gradient depends on an update that was made in the same call");
            }
    }
    return refuse(a, write->operands[0]->span,
                  "a parameter changes by something that differs between ranks, beside its gradient");
}

/* One walk in program order. False: refused. *changed: a state turned out to be local. */
static bool taint(struct step_analysis *a, const bool *differentiated, const int *uses, bool *changed) {
    for (int i = 0; i < a->op_count; i++) {
        struct ir_op *op = a->ops[i];
        if (op->code == OP_grad) {
            see_grad(a, op, differentiated, uses);
            continue;
        }
        const struct ir_op *inside = inner_gradient(op);
        if (inside)
            return refuse(a, inside->span, "a gradient of parameters is taken inside a loop or branch");
        struct flags f = {.a = a};
        distribute_uses(op, see_use, &f);
        if (op->code == OP_write) {
            int id = op->buffer.buffer->id;
            if (f.local && op->buffer.buffer->kind == BUFFER_PARAM)
                return refuse_parameter(a, op, differentiated);
            if (f.local && f.after)
                return refuse(a, op->operands[0]->span,
                              "a state mixes gradients with something that differs between ranks");
            if (f.local && !a->is_local_state[id])
                a->is_local_state[id] = *changed = true;
            continue;
        }
        if (op->code == OP_check) /* what comes behind a check does not depend on it */
            continue;
        see_op(op, &f);
        for (int r = 0; r < op->region_count; r++)
            ir_walk_ops(op->regions[r], see_op, &f);
        if (op->code == OP_read)
            f.local = a->is_local_state[op->buffer.buffer->id];
        if (f.after && op->code == OP_extern)
            return refuse(a, op->span, "C code is called with what depends on a gradient");
        for (int k = 0; k < op->result_count; k++) {
            a->local[op->results[k]->id] = f.local;
            a->after[op->results[k]->id] = f.after;
        }
    }
    return true;
}

/* ---- what is read where --------------------------------------------------------------------------------------------- */

/* Which local states only follow what they see: their old values go into nothing else. */
static void statistics(struct step_analysis *a) {
    struct reach r = reach_new(a);
    for (int i = 0; i < a->op_count; i++) {
        struct ir_op *op = a->ops[i];
        if (op->code == OP_grad)
            reach_value(op->operands[0], &r);
        else if (op->code == OP_check || op->code == OP_print || op->code == OP_extern)
            distribute_uses(op, reach_value, &r);
    }
    for (int i = 0; i < a->func->result_count; i++)
        reach_value(a->func->body->yields[i], &r);
    reach_all(&r, true);
    bool *elsewhere =
        ARENA_ARRAY(&a->scratch, bool, a->func->module->buffer_count); /* read for another buffer, or the above */
    for (int i = 0; i < a->op_count; i++)
        if (a->ops[i]->code == OP_read)
            elsewhere[a->ops[i]->buffer.buffer->id] |= r.seen[a->ops[i]->results[0]->id];
    for (int i = 0; i < a->op_count; i++) {
        if (a->ops[i]->code != OP_write)
            continue;
        struct reach from = reach_new(a);
        reach_value(a->ops[i]->operands[0], &from);
        reach_all(&from, false);
        for (int k = 0; k < a->op_count; k++)
            if (a->ops[k]->code == OP_read && a->ops[k]->buffer.buffer != a->ops[i]->buffer.buffer)
                elsewhere[a->ops[k]->buffer.buffer->id] |= from.seen[a->ops[k]->results[0]->id];
    }
    for (int i = 0; i < a->op_count; i++) {
        struct ir_op *op = a->ops[i];
        if (op->code != OP_write || !a->is_local_state[op->buffer.buffer->id] || elsewhere[op->buffer.buffer->id] ||
            !dtype_is_float(op->operands[0]->type.dtype) || a->key_of[op->operands[0]->id] >= 0)
            continue;
        a->is_statistic[op->buffer.buffer->id] = true;
        add_key(a, op->operands[0], op->buffer.buffer, false);
    }
}

/* ---- groups --------------------------------------------------------------------------------------------------------- */

struct sets { /* union by the smaller index: operations, then keys */
    int *parent;
};

static int find(struct sets *s, int i) {
    while (s->parent[i] != i)
        i = s->parent[i] = s->parent[s->parent[i]];
    return i;
}

static void join(struct sets *s, int i, int k) {
    i = find(s, i);
    k = find(s, k);
    if (i < k)
        s->parent[k] = i;
    else
        s->parent[i] = k;
}

struct joiner {
    struct step_analysis *a;
    struct sets *sets;
    int op;
};

static void join_use(struct ir_value *v, void *context) {
    struct joiner *j = context;
    struct step_analysis *a = j->a;
    if (a->key_of[v->id] >= 0)
        join(j->sets, j->op, a->op_count + a->key_of[v->id]);
    else if (a->after[v->id] && a->op_index[v->id] >= 0)
        join(j->sets, j->op, a->op_index[v->id]);
}

/* A write that every rank makes alike. */
static bool is_shared_write(const struct step_analysis *a, const struct ir_op *op) {
    if (op->code != OP_write)
        return false;
    int id = op->buffer.buffer->id;
    return !a->is_local_state[id] || a->is_statistic[id];
}

static bool depends_on_key(const struct step_analysis *a, const struct ir_op *write) {
    return a->after[write->operands[0]->id] || a->key_of[write->operands[0]->id] >= 0;
}

/* A group reads what another one changes: then one of the two would see the wrong version, so they are one. What changes without a
 * key runs after all groups, and may be read by them. */
static bool join_readers(struct step_analysis *a, struct sets *s, const int *writer) {
    bool changed = false;
    for (int i = 0; i < a->op_count; i++) {
        if (!is_shared_write(a, a->ops[i]))
            continue;
        struct reach r = reach_new(a);
        if (a->key_of[a->ops[i]->operands[0]->id] < 0)
            reach_value(a->ops[i]->operands[0], &r);
        reach_all(&r, false);
        for (int k = 0; k < a->op_count; k++) {
            const struct ir_op *read = a->ops[k];
            if (read->code != OP_read || !r.seen[read->results[0]->id])
                continue;
            int w = writer[read->buffer.buffer->id];
            if (w >= 0 && depends_on_key(a, a->ops[w]) && find(s, w) != find(s, i)) {
                join(s, w, i);
                changed = true;
            }
        }
    }
    return changed;
}

static void group(struct step_analysis *a) {
    struct step_split *s = a->split;
    int n = a->op_count + s->key_count;
    struct sets sets = {ARENA_ARRAY(&a->scratch, int, n)};
    int *writer = ARENA_ARRAY(&a->scratch, int, a->func->module->buffer_count),
        *number = ARENA_ARRAY(&a->scratch, int, n);
    for (int i = 0; i < n; i++) {
        sets.parent[i] = i;
        number[i] = -1;
    }
    for (int i = 0; i < a->func->module->buffer_count; i++)
        writer[i] = -1;
    /* What goes into no write, as a norm that is only reported, joins nothing. */
    struct reach written = reach_new(a);
    for (int i = 0; i < a->op_count; i++)
        if (is_shared_write(a, a->ops[i])) {
            writer[a->ops[i]->buffer.buffer->id] = i;
            reach_value(a->ops[i]->operands[0], &written);
        }
    reach_all(&written, false);
    for (int i = 0; i < a->op_count; i++) {
        struct ir_op *op = a->ops[i];
        struct joiner j = {a, &sets, i};
        bool joins = is_shared_write(a, op);
        for (int k = 0; k < op->result_count; k++)
            joins |= a->after[op->results[k]->id] && written.seen[op->results[k]->id];
        if (op->code != OP_grad && joins)
            distribute_uses(op, join_use, &j);
    }
    while (join_readers(a, &sets, writer))
        ;
    /* Numbers in order of the first write; what has no key comes last. */
    bool has_last = false;
    int last = -1;
    bool *keyed = ARENA_ARRAY(&a->scratch, bool, n);
    for (int i = 0; i < a->op_count; i++)
        if (is_shared_write(a, a->ops[i]))
            keyed[find(&sets, i)] |= depends_on_key(a, a->ops[i]);
    for (int i = 0; i < a->op_count; i++) {
        a->group_of_op[i] = -1;
        if (!is_shared_write(a, a->ops[i]))
            continue;
        int root = find(&sets, i);
        if (!keyed[root]) {
            has_last = true;
            continue;
        }
        if (number[root] < 0)
            number[root] = s->group_count++;
        a->group_of_op[i] = number[root];
    }
    if (has_last)
        last = s->group_count++;
    for (int i = 0; i < a->op_count; i++)
        if (is_shared_write(a, a->ops[i])) {
            if (a->group_of_op[i] < 0)
                a->group_of_op[i] = last;
            s->group_of[a->ops[i]->buffer.buffer->id] = a->group_of_op[i];
        }
    s->groups = ARENA_ARRAY(&a->func->module->arena, struct step_group, s->group_count + 1);
    for (int k = 0; k < s->key_count; k++)
        s->keys[k].group = number[find(&sets, a->op_count + k)];
}

/* ---- the pass --------------------------------------------------------------------------------------------------------- */

static bool analyse(struct step_analysis *a) {
    struct ir_func *f = a->func;
    struct ir_module *m = f->module;
    struct step_split *s = a->split;
    struct arena *scratch = &a->scratch, *keep = &m->arena;
    int room = 0;
    for (const struct ir_op *op = f->body->first; op; op = op->next) {
        a->op_count++;
        room += op->code == OP_grad ? op->result_count : op->code == OP_write;
    }
    a->ops = ARENA_ARRAY(scratch, struct ir_op *, a->op_count + 1);
    a->op_index = ARENA_ARRAY(scratch, int, f->value_count);
    a->key_of = ARENA_ARRAY(scratch, int, f->value_count);
    a->local = ARENA_ARRAY(scratch, bool, f->value_count);
    a->after = ARENA_ARRAY(scratch, bool, f->value_count);
    a->key_value = ARENA_ARRAY(scratch, struct ir_value *, room + 1);
    a->group_of_op = ARENA_ARRAY(scratch, int, a->op_count + 1);
    a->is_local_state = ARENA_ARRAY(scratch, bool, m->buffer_count);
    a->is_statistic = ARENA_ARRAY(scratch, bool, m->buffer_count);
    s->keys = ARENA_ARRAY(keep, struct step_key, room + 1);
    s->group_of = ARENA_ARRAY(keep, int, m->buffer_count);
    s->is_carried = ARENA_ARRAY(keep, bool, m->buffer_count);
    s->is_late = ARENA_ARRAY(keep, bool, f->result_count);
    s->scalars = ARENA_ARRAY(keep, int, f->body->arg_count);
    for (int i = 0; i < f->value_count; i++)
        a->op_index[i] = a->key_of[i] = -1;
    for (int i = 0; i < m->buffer_count; i++)
        s->group_of[i] = -1;
    int n = 0;
    for (struct ir_op *op = f->body->first; op; op = op->next, n++) {
        a->ops[n] = op;
        for (int k = 0; k < op->result_count; k++)
            a->op_index[op->results[k]->id] = n;
    }
    for (int i = 0; i < f->body->arg_count; i++) {
        if (f->arg_inout && f->arg_inout[i])
            return refuse(a, f->span, "it has an inout argument");
        if (f->body->args[i]->type.rank)
            a->local[f->body->args[i]->id] = true;
        else
            s->scalars[s->scalar_count++] = i;
    }
    if (f->result_symbol_count)
        return refuse(a, f->span, "a result has a dimension that is found at run time");
    int *uses = ir_count_uses(f, scratch);
    struct reach differentiated = reach_new(a);
    for (int i = 0; i < n; i++)
        if (a->ops[i]->code == OP_grad)
            reach_value(a->ops[i]->operands[0], &differentiated);
    reach_all(&differentiated, true);
    for (bool changed = true; changed;) {
        changed = false;
        if (!taint(a, differentiated.seen, uses, &changed))
            return false;
    }
    if (!s->key_count)
        return refuse(a, f->span, "it takes no gradient of parameters");
    statistics(a);
    for (int i = 0; i < m->buffer_count; i++)
        s->is_carried[i] = a->is_local_state[i] && !a->is_statistic[i];
    for (int i = 0; i < f->result_count; i++) {
        const struct ir_value *v = f->body->yields[i];
        s->is_late[i] = a->after[v->id];
        if (a->after[v->id] && a->local[v->id])
            return refuse(a, v->span, "a result mixes gradients with something that differs between ranks");
    }
    group(a);
    return true;
}

static struct ir_func *trained_step(const struct ir_module *m) {
    for (int i = 0; i < m->setting_count; i++)
        if (strcmp(m->settings[i].key, "step") == 0 && m->settings[i].value->kind == SET_NAME)
            for (int k = 0; k < m->func_count; k++)
                if (m->funcs[k]->is_export && strcmp(m->funcs[k]->name, m->settings[i].value->s) == 0)
                    return m->funcs[k];
    return NULL;
}

bool pass_distribute(struct pass_context *c) {
    struct ir_module *m = c->module;
    struct ir_func *f = c->options->with_main && !c->options->no_ranks ? trained_step(m) : NULL;
    if (!f)
        return false;
    struct step_split *s = ARENA_NEW(&m->arena, struct step_split);
    struct step_analysis a = {.func = f, .split = s};
    s->step = f;
    bool good = analyse(&a);
    if (good)
        distribute_build(&a);
    arena_free(&a.scratch);
    c->split = s;
    return good;
}
