/* The public functions: they check what the caller gives and call the static functions that do the work. */

#include "codegen/c/model_internal.h"

/* True when a tensor of this type may be empty, so that its pointer may be null. */
bool unit_may_be_empty(struct ir_type t) {
    for (int i = 0; i < t.rank; i++)
        if (ir_dim_lower(t.dims[i]) <= 0)
            return true;
    return false;
}

void unit_check_pointer(struct unit *u, const struct ir_func *f, const char *name, struct ir_type t) {
    struct text *c = &u->c;
    text_printf(c, "    if (!%s", name);
    if (unit_may_be_empty(t)) {
        for (int i = 0; i < t.rank; i++)
            if (ir_dim_lower(t.dims[i]) <= 0) {
                text_add(c, " && (");
                cgen_dim(&u->g, c, t.dims[i]);
                text_add(c, ") > 0");
            }
    }
    text_printf(c, ")\n        return %s_mx_fail(m, MX_ERROR_ARGUMENT, \"%s: %s is a null pointer\");\n", u->prefix,
                f->name, name);
}

void unit_check_symbol(struct unit *u, const struct ir_func *f, const struct ir_symbol *s) {
    const char *name = cgen_symbol_name(&u->g, s);
    text_printf(
        &u->c,
        "    if (%s < %lld || %s > %lld)\n        return %s_mx_fail(m, MX_ERROR_SHAPE, \"%s: %s is %%lld, its limits are "
        "%lld to %lld\", (long long)%s);\n",
        name, (long long)s->lo, name, (long long)s->hi, u->prefix, f->name, name, (long long)s->lo, (long long)s->hi,
        name);
}

void unit_check_results(struct unit *u, const struct ir_func *f) {
    for (int i = 0; i < f->result_symbol_count; i++)
        unit_check_pointer(u, f, cgen_found_name(&u->g, f, i), (struct ir_type){0});
    for (int i = 0; i < f->result_count; i++) {
        struct ir_type t = f->body->yields[i]->type;
        /* A dimension that is found inside cannot be asked here. */
        if (f->result_symbol_count)
            t.rank = 0;
        unit_check_pointer(u, f, cgen_result_name(&u->g, f, i), t);
    }
}

static void function(struct unit *u, const struct interface_function *function) {
    struct text *c = &u->c;
    const struct ir_func *f = function->func;
    unit_signature(u, c, &function->call);
    text_add(c, " {\n");
    if (f->uses_random)
        text_add(c, "    mx_status status;\n");
    text_add(c, "    if (!m)\n        return MX_ERROR_ARGUMENT;\n");
    for (int i = 0; i < f->symbol_count; i++)
        unit_check_symbol(u, f, f->symbols[i]);
    for (int i = 0; i < f->body->arg_count; i++)
        if (f->body->args[i]->type.rank > 0 || (f->arg_inout && f->arg_inout[i]))
            unit_check_pointer(u, f, cgen_arg_name(&u->g, f, i), f->body->args[i]->type);
    unit_check_results(u, f);
    unit_touch(u, f);
    text_printf(c, "    %s%s_mx_run_%s(m", f->uses_random ? "status = " : "return ", u->prefix, f->name);
    for (int i = 0; i < f->symbol_count; i++)
        text_printf(c, ", %s", cgen_symbol_name(&u->g, f->symbols[i]));
    for (int i = 0; i < f->body->arg_count; i++)
        text_printf(c, ", %s", cgen_arg_name(&u->g, f, i));
    for (int i = 0; i < f->result_count; i++)
        text_printf(c, ", %s", cgen_result_name(&u->g, f, i));
    for (int i = 0; i < f->result_symbol_count; i++)
        text_printf(c, ", %s", cgen_found_name(&u->g, f, i));
    text_add(c, ");\n");
    /* A call that drew random numbers moves on to fresh ones. */
    if (f->uses_random)
        text_add(c, "    if (status == MX_OK)\n        m->calls++;\n    return status;\n");
    text_add(c, "}\n\n");
}

void unit_functions(struct unit *u) {
    text_add(&u->c, "/* ---- the interface */\n\n");
    for (int i = 0; i < u->interface.function_count; i++) {
        const struct interface_function *f = &u->interface.functions[i];
        if (f->is_incremental)
            unit_incremental_function(u, f->func);
        else
            function(u, f);
    }
}
