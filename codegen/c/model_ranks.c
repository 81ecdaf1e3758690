/* --main: the train step in parts (passes/distribute.h) as the program hands it to libmxrt (mxrt/program.h): tables of what is averaged
 * over ranks and what changes by it, and functions that unpack the runtime's arrays. */

#include "codegen/c/model_internal.h"
#include "codegen/cuda/cuda.h"

const struct step_split *unit_split_step(const struct unit *u) {
    const struct step_split *s = u->g.plan->split;
    return s && !s->why_not ? s : NULL;
}

/* The step's scalars that a part takes. */
static void scalars(struct unit *u) {
    const struct step_split *s = unit_split_step(u);
    for (int i = 0; i < s->scalar_count; i++)
        text_printf(&u->c, ", *(const %s *)args[%d]", cgen_c_type(s->step->body->args[s->scalars[i]]->type.dtype),
                    s->scalars[i]);
}

/* The parts work beside a step that may be under way, so not in its arena. */
static void call_part(struct unit *u, const struct ir_func *f) {
    unit_touch(u, f);
    text_printf(&u->c, "    status = %s_mx_run_%s(m", u->prefix, f->name);
    scalars(u);
}

/* On a device they have a region of its memory. */
static void enter_arena(struct unit *u) {
    if (u->g.cuda && cuda_averages(&u->g))
        text_add(&u->c, "    m->mx_keys = keys;\n");
    text_add(&u->c, u->g.cuda ? "    (void)arena;\n"
                              : "    unsigned char *own = m->arena;\n    m->arena = (unsigned char *)arena;\n");
}

static void leave_arena(struct unit *u) {
    text_add(&u->c, u->g.cuda ? "" : "    m->arena = own;\n");
    text_add(&u->c, "    return status;\n}\n\n");
}

static void gradients(struct unit *u) {
    const struct step_split *s = unit_split_step(u);
    const struct ir_func *f = s->gradients;
    struct text *c = &u->c;
    text_printf(
        c,
        "static mx_status mx_split_gradients(void *model, const int64_t *dims, void *const *args, void *const *results,\n"
        "    void *const *keys, const struct mxrt_exchange *x) {\n    %s *m = (%s *)model;\n    mx_status status;\n",
        u->prefix, u->prefix);
    for (int i = 0; i < f->symbol_count; i++)
        text_printf(c, "    const int64_t %s = dims[%d];\n", cgen_symbol_name(&u->g, f->symbols[i]), i);
    text_add(c, "    (void)dims;\n    (void)results;\n");
    for (int i = 0; i < f->symbol_count; i++)
        unit_check_symbol(u, f, f->symbols[i]);
    unit_touch(u, f);
    text_printf(c, "    m->mx_exchange = x;\n    status = %s_mx_run_%s(m", u->prefix, f->name);
    for (int i = 0; i < f->symbol_count; i++)
        text_printf(c, ", %s", cgen_symbol_name(&u->g, f->symbols[i]));
    for (int i = 0; i < f->body->arg_count; i++) {
        struct ir_type t = f->body->args[i]->type;
        text_printf(c, ", %s(const %s *)args[%d]", t.rank ? "" : "*", cgen_c_type(t.dtype), i);
    }
    for (int i = 0, n = 0; i < s->step->result_count; i++)
        if (!s->is_late[i])
            text_printf(c, ", (%s *)results[%d]", cgen_c_type(f->body->yields[n++]->type.dtype), i);
    text_add(c, ", keys);\n    m->mx_exchange = NULL;\n");
    if (f->uses_random)
        text_add(c, "    if (status == MX_OK)\n        m->calls++;\n");
    text_add(c, "    return status;\n}\n\n");
}

static void report(struct unit *u) {
    const struct step_split *s = unit_split_step(u);
    struct text *c = &u->c;
    text_printf(c,
                "static mx_status mx_split_report(void *model, void *arena, void *const *args, void *const *results,\n"
                "    void *const *keys) {\n    %s *m = (%s *)model;\n    mx_status status;\n"
                "    (void)args;\n    (void)results;\n",
                u->prefix, u->prefix);
    enter_arena(u);
    call_part(u, s->report);
    for (int i = 0, n = 0; i < s->step->result_count; i++)
        if (s->is_late[i])
            text_printf(c, ", (%s *)results[%d]", cgen_c_type(s->report->body->yields[n++]->type.dtype), i);
    text_add(c, ", keys);\n");
    leave_arena(u);
}

static void apply(struct unit *u) {
    const struct step_split *s = unit_split_step(u);
    struct text *c = &u->c;
    text_printf(
        c,
        "static mx_status mx_split_apply(void *model, void *arena, int group, void *const *args, void *const *keys) {\n"
        "    %s *m = (%s *)model;\n    mx_status status = MX_OK;\n    (void)args;\n",
        u->prefix, u->prefix);
    enter_arena(u);
    text_add(c, "    switch (group) {\n");
    for (int g = 0; g < s->group_count; g++) {
        text_printf(c, "    case %d:\n", g);
        call_part(u, s->groups[g].func);
        text_add(c, ", keys);\n        break;\n");
    }
    text_add(c, "    default: break;\n    }\n");
    leave_arena(u);
}

static void tables(struct unit *u) {
    const struct step_split *s = unit_split_step(u);
    const struct cgen_exchange *e = u->g.exchange;
    struct text *c = &u->c;
    const int own = s->gradients->result_count - s->key_count;
    text_add(c, "/* The step in parts: what is averaged over ranks, and what changes by it. */\n"
                "static const struct mxrt_key mx_split_keys[] = {\n");
    for (int k = 0; k < s->key_count; k++) {
        struct ir_type t = s->gradients->body->yields[own + k]->type;
        int64_t elements = ir_dim_upper(ir_type_elements(u->module, t));
        text_add(c, "    {");
        unit_quoted(c, s->keys[k].buffer->name);
        text_printf(c, ", %d, %d, ", s->keys[k].buffer->id, s->keys[k].group);
        unit_dtype(c, t.dtype);
        text_printf(c, ", %lld, %lld, %lld, %.0f},\n", (long long)elements,
                    (long long)(elements ? elements / (t.rank ? ir_dim_upper(t.dims[0]) : 1) : 0),
                    (long long)e->rows_touched[k], e->key_flops[k]);
    }
    text_add(c, "};\n");
    for (int g = 0; g < s->group_count; g++) {
        text_printf(c, "static const int mx_split_keys_of_%d[] = {", g);
        for (int k = 0; k < s->groups[g].key_count; k++)
            text_printf(c, "%d, ", s->groups[g].keys[k]);
        text_add(c, "-1};\n");
    }
    text_add(c, "static const struct mxrt_group mx_split_groups[] = {\n");
    int *order = ARENA_ARRAY(&u->g.arena, int, s->group_count + 1);
    for (int g = 0; g < s->group_count; g++) {
        text_printf(c, "    {mx_split_keys_of_%d, %d, %.0f},\n", g, s->groups[g].key_count, e->group_flops[g]);
        int at = g; /* by need; those that are never needed last */
        for (; at > 0; at--) {
            double before = e->group_flops[order[at - 1]], mine = e->group_flops[g];
            if (mine < 0 || (before >= 0 && before <= mine))
                break;
            order[at] = order[at - 1];
        }
        order[at] = g;
    }
    text_add(c, "};\nstatic const int mx_split_final[] = {");
    for (int i = 0; i < s->key_count; i++)
        text_printf(c, "%d, ", e->order[i]);
    text_add(c, "-1};\nstatic const int mx_split_needed[] = {");
    for (int g = 0; g < s->group_count; g++)
        text_printf(c, "%d, ", order[g]);
    text_add(c, "-1};\nstatic const int mx_split_group_of[] = {");
    for (int i = 0; i < u->module->buffer_count; i++)
        text_printf(c, "%d, ", s->group_of[i]);
    text_add(c, "-1};\nstatic const bool mx_split_read[] = {");
    for (int i = 0; i < u->module->buffer_count; i++)
        text_printf(c, "%s, ", e->is_read[i] ? "true" : "false");
    text_add(c, "false};\nstatic const bool mx_split_carried[] = {");
    for (int i = 0; i < u->module->buffer_count; i++)
        text_printf(c, "%s, ", s->is_carried[i] ? "true" : "false");
    text_add(c, "false};\nstatic const bool mx_split_late[] = {");
    for (int i = 0; i < s->step->result_count; i++)
        text_printf(c, "%s, ", s->is_late[i] ? "true" : "false");
    text_add(c, "false};\n\n");
}

void unit_ranks(struct unit *u) {
    const struct step_split *s = u->g.plan->split;
    struct text *c = &u->c;
    if (!s)
        return;
    if (s->why_not) {
        int line = 0, column = 0;
        struct text why = {0};
        if (s->where.source) {
            span_position(s->where, &line, &column);
            text_printf(&why, "%s:%d:%d: ", s->where.source->path, line, column);
        }
        text_add(&why, s->why_not);
        text_add(c, "static const struct mxrt_split mx_split = {");
        unit_quoted(c, text_string(&why));
        text_add(
            c,
            ", 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL};\n\n");
        text_free(&why);
        return;
    }
    tables(u);
    gradients(u);
    if (s->report)
        report(u);
    apply(u);
    if (u->g.cuda)
        unit_cuda_exchange_hooks(u);
    int64_t arena = s->report ? plan_of(u->g.plan, s->report)->arena_bytes : 0;
    for (int g = 0; g < s->group_count; g++) {
        int64_t bytes = plan_of(u->g.plan, s->groups[g].func)->arena_bytes;
        arena = bytes > arena ? bytes : arena;
    }
    text_printf(
        c,
        "static const struct mxrt_split mx_split = {\n    NULL, %d, %d, mx_split_keys, mx_split_groups, mx_split_final, mx_split_needed, "
        "mx_split_group_of, mx_split_read, mx_split_carried, mx_split_late,\n    %s, %s, %lld, mx_split_gradients, %s, mx_split_apply, %s, %s};\n\n",
        s->key_count, s->group_count, s->report ? "true" : "false", s->gradients->uses_random ? "true" : "false",
        (long long)arena, s->report ? "mx_split_report" : "NULL",
        u->g.cuda ? "mx_split_use_device, mx_split_pin, mx_split_wait" : "NULL, NULL, NULL",
        u->g.cuda && cuda_averages(&u->g) ? "&mx_split_device" : "NULL");
}
