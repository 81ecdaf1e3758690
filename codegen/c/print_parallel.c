/* Outlined bodies: what a body uses but does not define, and parallel loops, which become a function over a struct of that. */
#include "codegen/c/print_internal.h"

static void note_defined(const struct loop_stmt *s, void *context) {
    struct cgen_captures *c = context;
    if (s->kind == LS_FOR || s->kind == LS_DEF)
        VEC_PUSH(c->arena, c->defined, s->var);
    if (s->kind == LS_LOCAL)
        VEC_PUSH(c->arena, c->defined, s->mem);
}

static bool is_defined(const struct cgen_captures *c, const void *what) {
    for (int i = 0; i < c->defined.n; i++)
        if (c->defined.at[i] == what)
            return true;
    return false;
}

static void capture_mem(struct cgen_captures *c, const struct loop_mem *m) {
    for (int i = 0; i < c->mems.n; i++)
        if (c->mems.at[i] == m)
            return;
    if (!is_defined(c, m))
        VEC_PUSH(c->arena, c->mems, m);
}

static void capture_expr(lx e, void *context) {
    struct cgen_captures *c = context;
    if (e->kind == LX_LOAD)
        capture_mem(c, e->mem);
    if (e->kind != LX_VAR || is_defined(c, e->var))
        return;
    for (int i = 0; i < c->vars.n; i++)
        if (c->vars.at[i] == e->var)
            return;
    VEC_PUSH(c->arena, c->vars, e->var);
}

static void capture_stmt(const struct loop_stmt *s, void *context) {
    struct cgen_captures *c = context;
    if (s->kind == LS_STORE)
        capture_mem(c, s->mem);
    if (s->kind == LS_CALL)
        for (int i = 0; i < s->callee->mem_count; i++)
            capture_mem(c, s->call_mems[i].mem);
}

void cgen_capture(struct cgen_captures *c, const struct loop_block *k) {
    loop_walk(k, NULL, note_defined, c);
    loop_walk(k, capture_expr, capture_stmt, c);
}

void cprint_parallel(struct cprint *p, const struct loop_stmt *s) {
    struct cgen *g = p->g;
    struct cgen_kernels *k = cgen_private(g);
    struct cgen_captures c = {.arena = &g->arena};
    VEC_PUSH(c.arena, c.defined, s->var);
    cgen_capture(&c, &s->body);
    const char *name = arena_printf(&g->arena, "%s_mx_task_%d", g->prefix, k->outlined++);
    struct text body = {0};
    int mark = k->scope.n;
    int64_t stack = k->stack;
    text_printf(&body, "struct %s {\n", name);
    for (int i = 0; i < c.mems.n; i++) {
        const struct loop_mem *m = c.mems.at[i];
        text_printf(&body, m->kind == MEM_SCALAR ? "    %s%s %s;\n" : "    %s%s *%s;\n",
                    m->written || m->kind == MEM_SCALAR ? "" : "const ", cgen_c_type(m->dtype), cgen_name_of(g, m->id));
    }
    for (int i = 0; i < c.vars.n; i++)
        text_printf(&body, "    %s %s;\n", cprint_register_type(c.vars.at[i]->dtype),
                    cgen_name_of(g, c.vars.at[i]->id));
    if (!c.mems.n && !c.vars.n)
        text_add(&body, "    char unused;\n");
    const char *own = cgen_own_name(g, "c"), *context = cgen_own_name(g, "context"), *task = cgen_own_name(g, "task"),
               *tasks = cgen_own_name(g, "tasks");
    text_printf(&body, "};\n\nstatic void %s_run(void *%s, int64_t %s)\n{\n", name, context, task);
    struct cprint q = {.g = g, .out = &body, .indent = 1};
    if (c.mems.n || c.vars.n)
        cprint_line(&q, "const struct %s *%s = %s;", name, own, context);
    else
        cprint_line(&q, "(void)%s;", context);
    for (int i = 0; i < c.mems.n; i++) {
        const struct loop_mem *m = c.mems.at[i];
        const char *n = cgen_name_of(g, m->id);
        if (m->kind == MEM_SCALAR)
            cprint_line(&q, "const %s %s = %s->%s;", cgen_c_type(m->dtype), n, own, n);
        else
            cprint_line(&q, "%s%s *%s%s = %s->%s;", m->written ? "" : "const ", cgen_c_type(m->dtype),
                        m->no_alias ? "restrict " : "", n, own, n);
    }
    for (int i = 0; i < c.vars.n; i++) {
        const char *n = cgen_name_of(g, c.vars.at[i]->id);
        cprint_line(&q, "const %s %s = %s->%s;", cprint_register_type(c.vars.at[i]->dtype), n, own, n);
    }
    const char *counter = cgen_enter_name(g, s->var->name);
    cgen_set_name(g, s->var->id, counter);
    cprint_line(&q, "const int64_t %s = %s;", counter, task);
    cprint_block(&q, &s->body);
    text_add(&body, "}\n\n");
    text_add(&g->outlined, text_string(&body));
    text_free(&body);
    k->scope.n = mark;
    k->stack = stack;

    cprint_line(p, "{");
    p->indent++;
    cprint_indent(p);
    text_printf(p->out, "struct %s %s = {", name, tasks);
    bool first = true;
    for (int i = 0; i < c.mems.n; i++, first = false)
        text_printf(p->out, "%s%s", first ? "" : ", ", cgen_name_of(g, c.mems.at[i]->id));
    for (int i = 0; i < c.vars.n; i++, first = false)
        text_printf(p->out, "%s%s", first ? "" : ", ", cgen_name_of(g, c.vars.at[i]->id));
    cprint_add(p, first ? "0};\n" : "};\n");
    cprint_indent(p);
    cprint_add(p, "mxrt_parallel(m->pool, ");
    cprint_expr(p, s->hi, P_COMMA + 1);
    text_printf(p->out, ", %s_run, &%s);\n", name, tasks);
    p->indent--;
    cprint_line(p, "}");
}
