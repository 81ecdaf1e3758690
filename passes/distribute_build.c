/* Builds the functions of a step that was taken apart: copies of what each of them needs, with the keys' tensors as results here and
 * as arguments there. Dead code, left by what was taken away, is simplify's. */
#include <string.h>

#include "passes/distribute.h"

/* A function being built. */
struct part {
    struct step_analysis *a;
    struct ir_func *func;
    struct ir_builder b;
    struct ir_copier *copier;
    struct ir_value *yes; /* stands for checks that were made before */
};

static const char *free_name(struct ir_module *m, const char *name) {
    for (int i = 0; i < m->func_count; i++)
        if (strcmp(m->funcs[i]->name, name) == 0)
            return free_name(m, arena_printf(&m->arena, "%s_", name));
    return name;
}

static void part_begin(struct part *p, struct step_analysis *a, const char *suffix) {
    struct ir_module *m = a->func->module;
    const char *name = free_name(m, arena_printf(&m->arena, "%s_%s", a->func->name, suffix));
    *p = (struct part){.a = a, .func = ir_func_new(m, name, a->func->span)};
    p->func->is_train = a->func->is_train;
    p->b = (struct ir_builder){.module = m, .func = p->func, .region = p->func->body, .span = a->func->span};
    p->copier = ir_copier_new(&p->b);
    int room = a->func->body->arg_count + a->split->key_count;
    p->func->arg_names = ARENA_ARRAY(&m->arena, const char *, room);
    p->func->arg_inout = ARENA_ARRAY(&m->arena, bool, room);
}

static struct ir_value *part_argument(struct part *p, struct ir_value *from, const char *name) {
    p->func->arg_names[p->func->body->arg_count] = name;
    struct ir_value *v = ir_region_arg(p->func->body, ir_copier_type(p->copier, from->type), name);
    ir_copier_map(p->copier, from, v);
    return v;
}

static void part_end(struct part *p) {
    ir_copier_free(p->copier);
    ir_module_add_func(p->func->module, p->func);
}

static void part_scalars(struct part *p) {
    const struct step_split *s = p->a->split;
    for (int i = 0; i < s->scalar_count; i++) {
        int arg = s->scalars[i];
        part_argument(p, p->a->func->body->args[arg], p->a->func->arg_names[arg]);
    }
}

static const char *key_name(const struct step_analysis *a, int key) {
    const struct step_key *k = &a->split->keys[key];
    return arena_printf(&a->func->module->arena, k->is_gradient ? "grad_%s" : "next_%s", k->buffer->name);
}

static void part_key(struct part *p, int key) {
    part_argument(p, p->a->key_value[key], key_name(p->a, key));
}

/* ---- slices --------------------------------------------------------------------------------------------------------- */

struct slice {
    const struct step_analysis *a;
    bool *wanted; /* [op_count] */
};

static void want_op(struct slice *s, int op);

static void want_value(struct ir_value *v, void *context) {
    struct slice *s = context;
    if (s->a->key_of[v->id] < 0 && s->a->op_index[v->id] >= 0)
        want_op(s, s->a->op_index[v->id]);
}

static void want_op(struct slice *s, int op) {
    if (s->wanted[op])
        return;
    s->wanted[op] = true;
    if (s->a->ops[op]->code != OP_check)
        distribute_uses(s->a->ops[op], want_value, s);
}

static struct slice slice_new(struct step_analysis *a) {
    return (struct slice){a, ARENA_ARRAY(&a->scratch, bool, a->op_count)};
}

/* Copies the operations of a slice in their order. The checks among them were made by `gradients`, or are by `report`. */
static void part_slice(struct part *p, const struct slice *s, bool checks) {
    for (int i = 0; i < s->a->op_count; i++) {
        const struct ir_op *op = s->a->ops[i];
        if (!s->wanted[i])
            continue;
        if (op->code == OP_check && !checks) {
            const uint8_t one = 1;
            if (!p->yes)
                p->yes = ir_build_const(&p->b, op->results[0]->type, &one);
            ir_copier_map(p->copier, op->results[0], p->yes);
        } else {
            ir_copier_op(p->copier, &p->b, op);
        }
    }
}

/* ---- the parts -------------------------------------------------------------------------------------------------------- */

static bool has_effect(const struct ir_op *op) {
    return op->code == OP_check || op->code == OP_print || op->code == OP_extern;
}

struct after_search {
    const struct step_analysis *a;
    bool found;
};

static void see_after(struct ir_value *v, void *context) {
    struct after_search *s = context;
    s->found |= s->a->after[v->id];
}

static bool is_late(const struct step_analysis *a, struct ir_op *op) {
    struct after_search s = {a, false};
    distribute_uses(op, see_after, &s);
    return s.found;
}

/* Up to the cut: all but the writes that follow it, and the effects behind it. */
static void build_gradients(struct step_analysis *a) {
    struct step_split *s = a->split;
    struct ir_func *f = a->func;
    struct arena *arena = &f->module->arena;
    struct part p;
    part_begin(&p, a, "gradients");
    p.func->uses_random = f->uses_random;
    p.func->symbols = ARENA_ARRAY(arena, struct ir_symbol *, f->symbol_count);
    p.func->symbol_count = f->symbol_count;
    for (int i = 0; i < f->symbol_count; i++)
        p.func->symbols[i] = ir_copier_symbol(p.copier, f->symbols[i]);
    for (int i = 0; i < f->body->arg_count; i++)
        part_argument(&p, f->body->args[i], f->arg_names[i]);
    for (int i = 0; i < a->op_count; i++) {
        struct ir_op *op = a->ops[i];
        bool leave = op->code == OP_write ? a->group_of_op[i] >= 0 : has_effect(op) && is_late(a, op);
        if (!leave)
            ir_copier_op(p.copier, &p.b, op);
    }
    int n = 0, room = f->result_count + s->key_count;
    struct ir_value **yields = ARENA_ARRAY(&a->scratch, struct ir_value *, room);
    p.func->result_names = ARENA_ARRAY(arena, const char *, room);
    for (int i = 0; i < f->result_count; i++)
        if (!s->is_late[i]) {
            p.func->result_names[n] = f->result_names ? f->result_names[i] : NULL;
            yields[n++] = ir_copier_value(p.copier, f->body->yields[i]);
        }
    for (int k = 0; k < s->key_count; k++) {
        p.func->result_names[n] = key_name(a, k);
        yields[n++] = ir_copier_value(p.copier, a->key_value[k]);
    }
    p.func->result_count = n;
    ir_region_yield(p.func->body, yields, n);
    part_end(&p);
    s->gradients = p.func;
}

/* Results, checks and prints behind the cut. */
static void build_report(struct step_analysis *a) {
    struct step_split *s = a->split;
    const struct ir_func *f = a->func;
    struct slice wanted = slice_new(a);
    int late = 0;
    bool any = false;
    for (int i = 0; i < f->result_count; i++)
        if (s->is_late[i]) {
            want_value(f->body->yields[i], &wanted);
            late++;
        }
    for (int i = 0; i < a->op_count; i++)
        if (has_effect(a->ops[i]) && is_late(a, a->ops[i])) {
            want_op(&wanted, i);
            distribute_uses(a->ops[i], want_value, &wanted);
            any = true;
        }
    if (!late && !any)
        return;
    struct part p;
    part_begin(&p, a, "report");
    part_scalars(&p);
    for (int k = 0; k < s->key_count; k++)
        part_key(&p, k);
    part_slice(&p, &wanted, true);
    struct ir_value **yields = ARENA_ARRAY(&a->scratch, struct ir_value *, late + 1);
    p.func->result_names = ARENA_ARRAY(&f->module->arena, const char *, late + 1);
    int n = 0;
    for (int i = 0; i < f->result_count; i++)
        if (s->is_late[i]) {
            p.func->result_names[n] = f->result_names ? f->result_names[i] : NULL;
            yields[n++] = ir_copier_value(p.copier, f->body->yields[i]);
        }
    p.func->result_count = n;
    ir_region_yield(p.func->body, yields, n);
    part_end(&p);
    s->report = p.func;
}

static void build_group(struct step_analysis *a, int g) {
    struct step_split *s = a->split;
    struct arena *arena = &a->func->module->arena;
    struct step_group *group = &s->groups[g];
    struct slice wanted = slice_new(a);
    group->keys = ARENA_ARRAY(arena, int, s->key_count);
    for (int k = 0; k < s->key_count; k++)
        if (s->keys[k].group == g)
            group->keys[group->key_count++] = k;
    for (int i = 0; i < a->op_count; i++)
        if (a->group_of_op[i] == g)
            want_op(&wanted, i);
    struct part p;
    part_begin(&p, a, arena_printf(arena, "apply_%d", g));
    part_scalars(&p);
    for (int k = 0; k < group->key_count; k++)
        part_key(&p, group->keys[k]);
    part_slice(&p, &wanted, false);
    ir_region_yield(p.func->body, NULL, 0);
    part_end(&p);
    group->func = p.func;
}

void distribute_build(struct step_analysis *a) {
    build_gradients(a);
    build_report(a);
    for (int g = 0; g < a->split->group_count; g++)
        build_group(a, g);
}
