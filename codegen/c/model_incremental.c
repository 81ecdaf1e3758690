/* Incremental functions in the generated unit: the versions of buffers, one struct of bookkeeping a function, its setters, and
 * the call that compares versions and runs what is affected. The groups of operations are the plan's (passes/mutation/incremental.c).
 *
 * `stale` has a bit for each group that must run. A setter raises the bits of what depends on its input; a call raises those
 * of buffers that were written and of extents that changed since the call before, and clears all when everything ran. After a
 * failed call they stay, so what it left half done runs again.
 */

#include "codegen/c/model_internal.h"

const struct plan_incremental *unit_incremental(const struct unit *u, const struct ir_func *f) {
    return plan_of(u->g.plan, f)->incremental;
}

/* ---- what is counted ---------------------------------------------------------------------------------------------- */

static struct interface_symbols symbols_of(const struct ir_func *f, int arg) {
    return interface_symbols(f, f->body->args[arg]->type);
}

/* Extents are stored with the input that they came with, one after the other. */
static int first_extent(const struct ir_func *f, int arg) {
    int n = 0;
    for (int i = 0; i < arg; i++)
        n += symbols_of(f, i).count;
    return n;
}

static int buffers_read(const struct plan_incremental *inc) {
    int n = 0;
    for (int i = 0; i < inc->source_count; i++)
        n += inc->sources[i].kind == INCREMENTAL_BUFFER;
    return n;
}

int64_t unit_incremental_bytes(const struct unit *u) {
    if (!u->incremental)
        return 0;
    int64_t bytes = 8 * (int64_t)(u->module->buffer_count + 1);
    for (int i = 0; i < u->module->func_count; i++) {
        const struct ir_func *f = u->module->funcs[i];
        const struct plan_incremental *inc = unit_incremental(u, f);
        if (inc)
            bytes += 8 * (int64_t)(4 + buffers_read(inc) + f->symbol_count + first_extent(f, f->body->arg_count)) +
                     f->body->arg_count;
    }
    return bytes;
}

/* ---- the instance ------------------------------------------------------------------------------------------------- */

void unit_incremental_struct(struct unit *u) {
    struct text *c = &u->c;
    if (!u->incremental)
        return;
    text_add(c, "    unsigned char *cache; /* what incremental functions keep from call to call */\n");
    if (u->module->buffer_count)
        text_printf(c, "    uint64_t mx_versions[%d]; /* of each buffer: how often it may have been written */\n",
                    u->module->buffer_count);
    for (int i = 0; i < u->module->func_count; i++) {
        const struct ir_func *f = u->module->funcs[i];
        const struct plan_incremental *inc = unit_incremental(u, f);
        if (!inc)
            continue;
        int args = f->body->arg_count, extents = first_extent(f, args), buffers = buffers_read(inc);
        text_add(c, "    struct {\n        uint64_t stale; /* bit g: group g of operations must run */\n"
                    "        int64_t ran;    /* operations, in the last call */\n");
        if (buffers)
            text_printf(c, "        uint64_t seen[%d]; /* versions of the buffers that it reads, in the last call */\n",
                        buffers);
        if (f->symbol_count)
            text_printf(c, "        int64_t extents[%d], given[%d]; /* in the last call; with each input */\n",
                        f->symbol_count, extents);
        if (args)
            text_printf(c, "        unsigned char set[%d]; /* inputs that have a value */\n", args);
        text_printf(c, "    } mx_%s;\n", f->name);
    }
}

void unit_incremental_init(struct unit *u) {
    struct text *c = &u->c;
    if (!u->incremental)
        return;
    text_printf(c, "    m->cache = base + %lld;\n", (long long)unit_cache_offset(u));
    for (int i = 0; i < u->module->func_count; i++)
        if (unit_incremental(u, u->module->funcs[i]))
            text_printf(c, "    m->mx_%s.stale = ~(uint64_t)0;\n", u->module->funcs[i]->name);
}

/* New versions of buffers first .. last. */
static void touch_range(struct text *c, int first, int last) {
    if (last - first < 3)
        for (int i = first; i <= last; i++)
            text_printf(c, "    m->mx_versions[%d]++;\n", i);
    else
        text_printf(c, "    for (int mx_i = %d; mx_i <= %d; mx_i++)\n        m->mx_versions[mx_i]++;\n", first, last);
}

static void touch(struct unit *u, const bool *written) {
    int n = u->module->buffer_count;
    for (int i = 0; i < n; i++) {
        int first = i;
        while (i < n && written[i])
            i++;
        if (i > first)
            touch_range(&u->c, first, i - 1);
    }
}

void unit_touch(struct unit *u, const struct ir_func *f) {
    if (!u->incremental)
        return;
    bool *written = ARENA_ARRAY(&u->g.arena, bool, u->module->buffer_count + 1);
    for (const struct ir_op *op = f->body->first; op; op = op->next)
        if (op->code == OP_write)
            written[op->buffer.buffer->id] = true;
    touch(u, written);
}

void unit_touch_all(struct unit *u, bool states_only) {
    if (!u->incremental)
        return;
    bool *written = ARENA_ARRAY(&u->g.arena, bool, u->module->buffer_count + 1);
    for (int i = 0; i < u->module->buffer_count; i++)
        written[i] = !states_only || u->module->buffers[i]->kind == BUFFER_STATE;
    touch(u, written);
}

/* ---- the interface ------------------------------------------------------------------------------------------------ */

void unit_incremental_header(struct unit *u, const struct interface_function *f) {
    struct text *h = &u->h;
    int args = f->func->body->arg_count;
    if (args)
        text_printf(h, "/* The inputs of %s: copied, and new versions. */\n", f->func->name);
    for (int i = 0; i < args; i++) {
        unit_signature(u, h, &f->setters[i]);
        text_add(h, ";\n");
    }
    text_printf(h, "/* Operations that the last call of %s ran. */\nint64_t %s_%s_ran(const %s *m);\n", f->func->name,
                u->prefix, f->func->name, u->prefix);
}

static const struct incremental_source *find_source(const struct plan_incremental *inc,
                                                    enum incremental_source_kind kind, int index) {
    const struct incremental_source *s = inc->sources;
    while (s->kind != kind || s->index != index)
        s++;
    return s;
}

static void setter(struct unit *u, const struct ir_func *f, int arg) {
    struct text *c = &u->c;
    const struct plan_incremental *inc = unit_incremental(u, f);
    struct interface_symbols s = symbols_of(f, arg);
    struct ir_type t = f->body->args[arg]->type;
    const char *name = cgen_arg_name(&u->g, f, arg);
    long long offset = (long long)(plan_of(u->g.plan, f)->cache_offset + inc->input_offset[arg]);
    unit_signature(u, c, &interface_function(&u->interface, f)->setters[arg]);
    text_add(c, " {\n    if (!m)\n        return MX_ERROR_ARGUMENT;\n");
    for (int k = 0; k < s.count; k++)
        unit_check_symbol(u, f, f->symbols[s.at[k]]);
    if (t.rank == 0) {
        text_printf(c, "    memcpy(m->cache + %lld, &%s, sizeof %s);\n", offset, name, name);
    } else {
        unit_check_pointer(u, f, name, t);
        if (unit_may_be_empty(t))
            text_printf(c, "    if (%s)\n    ", name);
        text_printf(c, "    memcpy(m->cache + %lld, %s, (size_t)(", offset, name);
        cgen_dim(&u->g, c, ir_type_elements(u->module, t));
        text_printf(c, ") * sizeof *%s);\n", name);
    }
    for (int k = 0; k < s.count; k++)
        text_printf(c, "    m->mx_%s.given[%d] = %s;\n", f->name, first_extent(f, arg) + k,
                    cgen_symbol_name(&u->g, f->symbols[s.at[k]]));
    text_printf(c, "    m->mx_%s.set[%d] = 1;\n    m->mx_%s.stale |= UINT64_C(0x%llx);\n    return MX_OK;\n}\n\n",
                f->name, arg, f->name, (unsigned long long)find_source(inc, INCREMENTAL_INPUT, arg)->groups);
}

/* Run-time dimensions from the inputs that have them, which must agree. */
static void extents(struct unit *u, const struct ir_func *f) {
    struct text *c = &u->c;
    const struct plan_incremental *inc = unit_incremental(u, f);
    int *from = ARENA_ARRAY(&u->g.arena, int, f->symbol_count + 1); /* the first input with the dimension, plus one */
    for (int arg = 0, at = 0; arg < f->body->arg_count; arg++) {
        struct interface_symbols s = symbols_of(f, arg);
        for (int k = 0; k < s.count; k++, at++) {
            const char *symbol = cgen_symbol_name(&u->g, f->symbols[s.at[k]]);
            if (!from[s.at[k]]) {
                from[s.at[k]] = arg + 1;
                text_printf(c, "    %s = m->mx_%s.given[%d];\n", symbol, f->name, at);
                continue;
            }
            text_printf(
                c,
                "    if (m->mx_%s.given[%d] != %s)\n        return %s_mx_fail(m, MX_ERROR_SHAPE, \"%s: %s is %%lld in %s "
                "and %%lld in %s\", (long long)%s, (long long)m->mx_%s.given[%d]);\n",
                f->name, at, symbol, u->prefix, f->name, symbol, f->arg_names[from[s.at[k]] - 1], f->arg_names[arg],
                symbol, f->name, at);
        }
    }
    for (int i = 0; i < f->symbol_count; i++) {
        const char *symbol = cgen_symbol_name(&u->g, f->symbols[i]);
        text_printf(c,
                    "    if (m->mx_%s.extents[%d] != %s)\n        m->mx_%s.stale |= UINT64_C(0x%llx);\n"
                    "    m->mx_%s.extents[%d] = %s;\n",
                    f->name, i, symbol, f->name, (unsigned long long)find_source(inc, INCREMENTAL_EXTENT, i)->groups,
                    f->name, i, symbol);
    }
}

static void compare_buffers(struct unit *u, const struct ir_func *f) {
    struct text *c = &u->c;
    const struct plan_incremental *inc = unit_incremental(u, f);
    int n = buffers_read(inc);
    if (!n)
        return;
    text_printf(c,
                "    for (int mx_i = 0; mx_i < %d; mx_i++) {\n"
                "        const uint64_t mx_version = m->mx_versions[mx_reads[mx_i].buffer];\n"
                "        if (m->mx_%s.seen[mx_i] != mx_version)\n            m->mx_%s.stale |= mx_reads[mx_i].groups;\n"
                "        m->mx_%s.seen[mx_i] = mx_version;\n    }\n",
                n, f->name, f->name, f->name);
}

static void call_function(struct unit *u, const struct ir_func *f) {
    struct text *c = &u->c;
    const struct plan_func *p = plan_of(u->g.plan, f);
    const struct plan_incremental *inc = p->incremental;
    const struct interface_function *function = interface_function(&u->interface, f);
    unit_signature(u, c, &function->call);
    text_add(c, " {\n");
    if (buffers_read(inc)) {
        text_add(c, "    static const struct {\n        int buffer;\n        uint64_t groups; /* that depend on it */\n"
                    "    } mx_reads[] = {\n");
        for (int i = 0; i < inc->source_count; i++)
            if (inc->sources[i].kind == INCREMENTAL_BUFFER)
                text_printf(c, "        {%d, UINT64_C(0x%llx)}, /* %s */\n", inc->sources[i].index,
                            (unsigned long long)inc->sources[i].groups,
                            u->module->buffers[inc->sources[i].index]->name);
        text_add(c, "    };\n");
    }
    for (int i = 0; i < f->symbol_count; i++)
        text_printf(c, "    int64_t %s;\n", cgen_symbol_name(&u->g, f->symbols[i]));
    text_add(c, "    mx_status mx_result;\n    if (!m)\n        return MX_ERROR_ARGUMENT;\n");
    for (int i = 0; i < f->body->arg_count; i++)
        text_printf(
            c,
            "    if (!m->mx_%s.set[%d])\n        return %s_mx_fail(m, MX_ERROR_ARGUMENT, \"%s: %s has no value: "
            "%s_%s gives it one\");\n",
            f->name, i, u->prefix, f->name, f->arg_names[i], u->prefix, function->setters[i].name);
    extents(u, f);
    unit_check_results(u, f);
    compare_buffers(u, f);
    text_printf(c, "    m->mx_%s.ran = 0;\n    mx_result = %s_mx_run_%s(m", f->name, u->prefix, f->name);
    for (int i = 0; i < f->symbol_count; i++)
        text_printf(c, ", %s", cgen_symbol_name(&u->g, f->symbols[i]));
    for (int i = 0; i < f->body->arg_count; i++) {
        struct ir_type t = f->body->args[i]->type;
        text_printf(c, ", %s(const %s *)(const void *)(m->cache + %lld)", t.rank ? "" : "*", cgen_c_type(t.dtype),
                    (long long)(p->cache_offset + inc->input_offset[i]));
    }
    for (int i = 0; i < f->result_count; i++)
        text_printf(c, ", %s", cgen_result_name(&u->g, f, i));
    for (int i = 0; i < f->result_symbol_count; i++)
        text_printf(c, ", %s", cgen_found_name(&u->g, f, i));
    text_printf(c, ");\n    if (mx_result == MX_OK)\n        m->mx_%s.stale = 0;\n    return mx_result;\n}\n\n",
                f->name);
}

void unit_incremental_function(struct unit *u, const struct ir_func *f) {
    for (int i = 0; i < f->body->arg_count; i++)
        setter(u, f, i);
    call_function(u, f);
    text_printf(&u->c, "int64_t %s_%s_ran(const %s *m) {\n    return m ? m->mx_%s.ran : 0;\n}\n\n", u->prefix, f->name,
                u->prefix, f->name);
}

void unit_incremental_call(struct unit *u, const struct ir_func *f) {
    struct text *c = &u->c;
    text_printf(c, "    %s *m = (%s *)model;\n    mx_status status;\n", u->prefix, u->prefix);
    for (int i = 0; i < f->body->arg_count; i++) {
        struct interface_symbols s = symbols_of(f, i);
        struct ir_type t = f->body->args[i]->type;
        text_printf(c, "    status = %s_%s(m", u->prefix, interface_function(&u->interface, f)->setters[i].name);
        for (int k = 0; k < s.count; k++)
            text_printf(c, ", dims[%d]", s.at[k]);
        text_printf(c, ", %s(%s *)args[%d]);\n    if (status != MX_OK)\n        return status;\n", t.rank ? "" : "*",
                    cgen_c_type(t.dtype), i);
    }
    text_printf(c, "    status = %s_%s(m", u->prefix, f->name);
}
