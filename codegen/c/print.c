/* The C printer of the loop IR. It prints what it is given: loops, registers, subscripts, operators; every number and every
 * arithmetic step comes from the IR. Two styles from one tree:
 *
 *   vector extensions   a vector is a GCC vector of the target's width, unrolled loops are expanded, arrays of registers
 *                       become one variable each
 *   portable C99        a vector is a small array and each vector statement a loop over its lanes, unrolled loops stay
 *                       loops: the C compiler vectorizes them where it can
 *
 * A parallel loop becomes a function over a struct of the names it uses, called through mxrt_parallel.
 */
#include "codegen/c/print_internal.h"

void cprint_indent(struct cprint *p) {
    for (int i = 0; i < p->indent; i++)
        cprint_add(p, "    ");
}

void cprint_line(struct cprint *p, const char *format, ...) {
    va_list args;
    va_start(args, format);
    cprint_indent(p);
    text_vprintf(p->out, format, args);
    cprint_add(p, "\n");
    va_end(args);
}

static void expr_line(struct cprint *p, const char *before, lx e, const char *after) {
    cprint_add(p, before);
    cprint_expr(p, e, P_COMMA + 1);
    cprint_add(p, after);
}

/* Vectors are values of a type, not arrays with a loop over lanes around each statement. */
static bool has_vectors(const struct cprint *p) {
    return p->g->options->vector_extensions || p->g->cuda;
}

/* Opens the loop over lanes that portable code has around a vector statement. */
static bool open_lanes(struct cprint *p, int lanes) {
    if (lanes == 1 || has_vectors(p))
        return false;
    const char *lane = p->lane = cgen_own_name(p->g, "lane");
    cprint_line(p, "for (int %s = 0; %s < %d; %s++)", lane, lane, lanes, lane);
    p->indent++;
    return true;
}

static void close_lanes(struct cprint *p, bool open) {
    if (open) {
        p->lane = NULL;
        p->indent--;
    }
}

static void count_stack(struct cprint *p, int64_t bytes) {
    struct cgen_kernels *k = cgen_private(p->g);
    k->stack += bytes;
    if (k->stack > k->stack_max)
        k->stack_max = k->stack;
}

static void count_call(struct cprint *p, int64_t bytes) {
    count_stack(p, bytes);
    cgen_private(p->g)->stack -= bytes;
}

static void print_def(struct cprint *p, const struct loop_stmt *s) {
    struct loop_var *v = s->var;
    bool vectors = p->g->options->vector_extensions;
    const char *name;
    if (v->count) {
        const char *type =
            v->lanes > 1 && vectors ? cgen_vector_type(p->g, v->dtype, v->lanes) : cprint_register_type(v->dtype);
        name = cgen_enter_name(p->g, v->name);
        cgen_set_name(p->g, v->id, name);
        if (vectors) {
            cprint_indent(p);
            text_printf(p->out, "%s ", type);
            for (int i = 0; i < v->count; i++)
                text_printf(p->out, "%s%s_%d", i ? ", " : "", name, i);
            cprint_add(p, ";\n");
        } else if (v->lanes > 1) {
            cprint_line(p, "%s %s[%d][%d];", type, name, v->count, v->lanes);
        } else {
            cprint_line(p, "%s %s[%d];", type, name, v->count);
        }
        count_stack(p, (int64_t)v->count * v->lanes * dtype_size(v->dtype));
        return;
    }
    name = cgen_enter_name(p->g, v->name);
    if (v->lanes > 1 && !has_vectors(p)) {
        cprint_line(p, "%s %s[%d];", cprint_register_type(v->dtype), name, v->lanes);
        count_stack(p, (int64_t)v->lanes * dtype_size(v->dtype));
        cgen_set_name(p->g, v->id, name);
        if (!s->value)
            return;
        bool open = open_lanes(p, v->lanes);
        cprint_indent(p);
        text_printf(p->out, "%s[%s]", name, p->lane);
        expr_line(p, " = ", s->value, ";\n");
        close_lanes(p, open);
        return;
    }
    int64_t lo, hi;
    if (p->narrow && s->value && lx_range(s->value, &lo, &hi))
        loop_var_bound(v, lo, hi);
    const char *type = v->lanes > 1 ? cgen_vector_type(p->g, v->dtype, v->lanes) : cprint_index_type(p, v);
    cprint_indent(p);
    text_printf(p->out, "%s%s %s", v->is_mutable ? "" : "const ", type, name);
    if (s->value)
        expr_line(p, " = ", s->value, "");
    cprint_add(p, ";\n");
    cgen_set_name(p->g, v->id, name);
}

static void print_store(struct cprint *p, const struct loop_stmt *s) {
    bool open = open_lanes(p, s->value->lanes);
    enum dtype t = s->mem->dtype;
    cprint_indent(p);
    cprint_subscript(p, s->mem, s->index, s->value->lanes);
    if ((t == F16 || t == BF16) && s->value->kind != LX_PACK) {
        const char *name = t == F16 ? "mx_f16_from_f32" : "mx_bf16_from_f32";
        cgen_need(p->g, name);
        text_printf(p->out, " = %s(", name);
        expr_line(p, "", cprint_before_rounding(s->value, t), ");\n");
    } else {
        expr_line(p, " = ", s->value, ";\n");
    }
    close_lanes(p, open);
}

static void print_set(struct cprint *p, const struct loop_stmt *s) {
    bool open = open_lanes(p, s->value->lanes);
    struct loop_builder *b = &cgen_private(p->g)->builder;
    cprint_indent(p);
    cprint_var(p, s->index ? lx_var_at(b, s->var, cprint_substitute(p, s->index)) : lx_var(b, s->var));
    expr_line(p, " = ", s->value, ";\n");
    close_lanes(p, open);
}

static void print_for(struct cprint *p, const struct loop_stmt *s) {
    struct cgen_kernels *k = cgen_private(p->g);
    int mark = cgen_scope_mark(p->g);
    int64_t stack = k->stack, lo, hi;
    if (s->loop == LOOP_UNROLL && p->g->options->vector_extensions && lx_is_int(s->lo, &lo) && lx_is_int(s->hi, &hi) &&
        p->unrolled_count < 8) {
        int at = p->unrolled_count++;
        p->unrolled[at] = s;
        for (int64_t i = lo; i < hi; i += s->step) {
            p->unrolled_at[at] = i;
            cprint_block(p, &s->body);
        }
        p->unrolled_count--;
        cgen_scope_leave(p->g, mark);
        return;
    }
    if (s->loop == LOOP_PARALLEL && p->g->options->threads) {
        cprint_parallel(p, s);
        return;
    }
    const char *name = cgen_enter_name(p->g, s->var->name);
    cgen_set_name(p->g, s->var->id, name);
    if (s->loop == LOOP_UNROLL && p->g->cuda) /* arrays of registers are such only with constant subscripts */
        cprint_add(p, "#pragma unroll\n");
    if (p->narrow && lx_range(s->lo, &lo, &hi)) {
        int64_t first = lo;
        if (lx_range(s->hi, &lo, &hi))
            loop_var_bound(s->var, first, hi + s->step > first ? hi + s->step : first);
    }
    cprint_indent(p);
    text_printf(p->out, "for (%s %s", cprint_index_type(p, s->var), name);
    expr_line(p, " = ", s->lo, "; ");
    text_printf(p->out, "%s < ", name);
    cprint_expr(p, s->hi, P_LT + 1);
    if (s->step == 1)
        text_printf(p->out, "; %s++) {\n", name);
    else
        text_printf(p->out, "; %s += %lld) {\n", name, (long long)s->step);
    p->indent++;
    cprint_block(p, &s->body);
    p->indent--;
    cprint_line(p, "}");
    cgen_scope_leave(p->g, mark);
    k->stack = stack;
}

void cprint_block(struct cprint *p, const struct loop_block *block) {
    struct cgen_kernels *k = cgen_private(p->g);
    for (const struct loop_stmt *s = block->first; s; s = s->next) {
        int mark = cgen_scope_mark(p->g);
        switch (s->kind) {
        case LS_FOR: print_for(p, s); break;
        case LS_IF: {
            int64_t stack = k->stack;
            cprint_indent(p);
            expr_line(p, "if (", s->cond, ") {\n");
            p->indent++;
            cprint_block(p, &s->body);
            p->indent--;
            cgen_scope_leave(p->g, mark);
            if (s->other.first) {
                cprint_line(p, "} else {");
                p->indent++;
                cprint_block(p, &s->other);
                p->indent--;
                cgen_scope_leave(p->g, mark);
            }
            cprint_line(p, "}");
            k->stack = stack;
            break;
        }
        case LS_DEF: print_def(p, s); break;
        case LS_SET: print_set(p, s); break;
        case LS_STORE: print_store(p, s); break;
        case LS_LOCAL: {
            const char *name = cgen_enter_name(p->g, s->mem->name);
            cgen_set_name(p->g, s->mem->id, name);
            cprint_line(p, "%s%s %s[%lld];", s->mem->kind == MEM_SHARED ? "__shared__ __align__(16) " : "",
                        cgen_c_type(s->mem->dtype), name, (long long)s->mem->count);
            count_stack(p, s->mem->count * dtype_size(s->mem->dtype));
            break;
        }
        case LS_COMMENT: cprint_line(p, "/* %s */", s->text); break;
        case LS_BARRIER: cprint_line(p, "__syncthreads();"); break;
        case LS_CALL:
            count_call(p, s->callee->stack_bytes);
            cprint_indent(p);
            text_printf(p->out, "%s(", s->callee->name);
            if (s->callee->is_helper) {
                cgen_need(p->g, s->callee->name);
                for (int i = 0; i < s->callee->var_count; i++) {
                    cprint_expr(p, s->call_args[i], P_COMMA + 1);
                    cprint_add(p, ", ");
                }
            }
            for (int i = 0; i < s->callee->mem_count; i++) {
                const struct loop_mem *mem = s->call_mems[i].mem;
                lx offset = cprint_substitute(p, s->call_mems[i].offset);
                int64_t c;
                if (i)
                    cprint_add(p, ", ");
                if (mem->kind == MEM_SCALAR)
                    cprint_add(p, "&");
                cprint_add(p, cgen_name_of(p->g, mem->id));
                if (!lx_is_int(offset, &c) || c != 0) {
                    cprint_add(p, " + ");
                    cprint_expr(p, offset, P_ADD);
                }
            }
            for (int i = 0; i < s->callee->var_count && !s->callee->is_helper; i++) {
                if (i || s->callee->mem_count)
                    cprint_add(p, ", ");
                cprint_expr(p, s->call_args[i], P_COMMA + 1);
            }
            cprint_add(p, ");\n");
            break;
        }
    }
}

const char *cprint_restrict(const struct cgen *g, const struct loop_mem *m) {
    return !m->no_alias ? "" : g->cuda ? "__restrict__ " : "restrict ";
}

void cprint_mem(struct cprint *p, const struct loop_mem *m) {
    cprint_line(p, "%s%s *%s%s = (%s%s *)%s;", m->written ? "" : "const ", cgen_c_type(m->dtype),
                cprint_restrict(p->g, m), cgen_name_of(p->g, m->id), m->written ? "" : "const ", cgen_c_type(m->dtype),
                m->base);
}

void cprint_func(struct cgen *g, struct loop_func *f) {
    struct text body = {0};
    struct cgen_kernels *k = cgen_private(g);
    int64_t stack = k->stack, most = k->stack_max;
    int mark = k->scope.n;
    struct cprint p = {.g = g, .out = &body, .indent = 1};
    text_printf(&g->outlined, "/* %s */\nstatic void %s(", f->text, f->name);
    k->stack = k->stack_max = 0;
    for (int i = 0; i < f->mem_count; i++) {
        const char *name = cgen_enter_name(g, f->mems[i]->name);
        cgen_set_name(g, f->mems[i]->id, name);
        text_printf(&g->outlined, "%s%s%s *restrict %s", i ? ", " : "", f->mems[i]->written ? "" : "const ",
                    cgen_c_type(f->mems[i]->dtype), name);
    }
    for (int i = 0; i < f->var_count; i++) {
        const char *name = cgen_enter_name(g, f->vars[i]->name);
        cgen_set_name(g, f->vars[i]->id, name);
        text_printf(&g->outlined, "%s%s %s", i || f->mem_count ? ", " : "", cprint_register_type(f->vars[i]->dtype),
                    name);
    }
    text_add(&g->outlined, ")\n{\n");
    cprint_block(&p, &f->body);
    for (int i = 0; i < f->var_count; i++)
        if (!cgen_mentions(text_string(&body), cgen_name_of(g, f->vars[i]->id)))
            text_printf(&g->outlined, "    (void)%s;\n", cgen_name_of(g, f->vars[i]->id));
    text_add(&g->outlined, text_string(&body));
    text_add(&g->outlined, "}\n\n");
    text_free(&body);
    k->scope.n = mark;
    f->stack_bytes = k->stack_max;
    k->stack = stack;
    k->stack_max = most;
}
