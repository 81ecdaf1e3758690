/* Control flow of the function being printed: branches, loops, failed checks, dimensions found at run time. */
#include "codegen/c/function_internal.h"

#include "codegen/cuda/cuda.h"

static void copies(struct function *f, struct ir_value *const *from, struct ir_value *const *to, int n) {
    for (int i = 0; i < n; i++)
        function_copy(f, from[i], to[i]);
}

void function_open_brace(struct function *f, const char *head) {
    cprint_line(&f->print, "%s {", head);
    f->print.indent++;
}

void function_close_brace(struct function *f) {
    f->print.indent--;
    cprint_line(&f->print, "}");
}

const char *function_scalar_text(struct function *f, const struct ir_value *v) {
    function_begin(f);
    lx e = function_scalar(f, v);
    /* A rank 0 value in the arena, a buffer or a result is read through its base. */
    if (e->kind == LX_LOAD && function_on_device(f, e->mem)) {
        f->pointers.n = 0;
        return cuda_fetch(f, e->mem);
    }
    if (e->kind == LX_LOAD && e->mem->kind == MEM_POINTER && f->pointers.n) {
        const char *text =
            arena_printf(&f->g->arena, "*(const %s *)%s", cgen_c_type(e->dtype), f->pointers.at[0]->base);
        f->pointers.n = 0;
        cgen_scope_leave(f->g, f->scope);
        return text;
    }
    return function_expr(f, e);
}

void op_if(struct function *f, struct ir_op *op) {
    double before = f->flops, most = before; /* the costlier side counts */
    function_open_brace(f, arena_printf(&f->g->arena, "if (%s)", function_scalar_text(f, op->operands[0])));
    for (int i = 0; i < 2; i++) {
        const struct ir_region *r = op->regions[i];
        if (i == 1) {
            bool empty = !r->first;
            for (int y = 0; y < r->yield_count; y++)
                empty &= function_storage(f, r->yields[y]) == function_storage(f, op->results[y]);
            if (empty)
                break;
            f->print.indent--;
            cprint_line(&f->print, "} else {");
            f->print.indent++;
        }
        f->flops = before;
        function_region(f, r);
        most = f->flops > most ? f->flops : most;
        copies(f, r->yields, op->results, r->yield_count);
    }
    f->flops = most;
    function_close_brace(f);
}

void function_fail(struct function *f, const char *status, const char *message) {
    struct text quoted = {0};
    for (const char *s = message; *s; s++) {
        if (*s == '"' || *s == '\\')
            text_addn(&quoted, "\\", 1);
        if (*s == '\n')
            text_add(&quoted, "\\n");
        else
            text_addn(&quoted, s, 1);
    }
    cprint_line(&f->print, "return %s_mx_fail(m, %s, \"%%s\", \"%s\");", f->g->prefix, status, text_string(&quoted));
    text_free(&quoted);
}

static void limit_check(struct function *f, const struct ir_op *op, const char *trips) {
    if (!op->loop.limit)
        return;
    const char *limit = function_expr(f, function_dim(f, op->loop.limit));
    cprint_line(&f->print, "if (%s > %s)", trips, limit);
    cprint_line(&f->print,
                "    return %s_mx_fail(m, MX_ERROR_CHECK, \"loop exceeds its limit of %%lld trips\", (long long)%s);",
                f->g->prefix, limit);
}

static double largest_trips(const struct ir_op *op) {
    return op->loop.limit ? (double)ir_dim_upper(op->loop.limit) : 1;
}

void op_for(struct function *f, struct ir_op *op) {
    const struct ir_region *body = op->regions[0];
    int carried = body->arg_count - 1, mark = cgen_scope_mark(f->g);
    for (int i = 0; i < carried; i++)
        function_copy(f, op->operands[2 + i], body->args[1 + i]);
    const char *lo = function_scalar_text(f, op->operands[0]), *hi = function_scalar_text(f, op->operands[1]);
    const struct storage *index = function_storage(f, body->args[0]);
    function_open_brace(f, "");
    const char *first = cgen_enter_name(f->g, "first"), *end = cgen_enter_name(f->g, "end");
    cprint_line(&f->print, "const int64_t %s = %s, %s = %s;", first, lo, end, hi);
    limit_check(f, op, arena_printf(&f->g->arena, "%s - %s", end, first));
    const char *i;
    if (index && index->kind == STORAGE_SCALAR) {
        i = function_scalar_variable(f, index, I64);
        function_open_brace(f, arena_printf(&f->g->arena, "for (%s = %s; %s < %s; %s++)", i, first, i, end, i));
    } else {
        i = cgen_enter_name(f->g, body->args[0]->name ? body->args[0]->name : "i");
        function_open_brace(f, arena_printf(&f->g->arena, "for (int64_t %s = %s; %s < %s; %s++)", i, first, i, end, i));
        if (index) {
            function_begin(f);
            struct loop_mem *m = function_mem(f, body->args[0]);
            if (function_on_device(f, m)) {
                struct loop_var *counter = loop_var_new(f->b, i, I64, 1);
                struct loop_block k;
                loop_block_init(&k);
                cgen_set_name(f->g, counter->id, i);
                function_copy_elements(f, &k, body->args[0]->type, m, NULL, lx_var(f->b, counter));
                function_finish(f, &k);
            } else {
                cprint_line(&f->print, "*(int64_t *)%s = %s;", m->base ? m->base : cgen_name_of(f->g, m->id), i);
            }
        }
    }
    double repeat = f->repeat;
    f->repeat *= largest_trips(op);
    int counters = f->counters.n;
    if (!f->part) /* of the function itself */
        VEC_PUSH(&f->g->arena, f->counters, i);
    function_region(f, body);
    f->counters.n = counters;
    f->repeat = repeat;
    for (int y = 0; y < carried; y++)
        function_copy(f, body->yields[y], body->args[1 + y]);
    function_close_brace(f);
    function_close_brace(f);
    cgen_scope_leave(f->g, mark);
    for (int i2 = 0; i2 < carried; i2++)
        function_copy(f, body->args[1 + i2], op->results[i2]);
}

void op_while(struct function *f, struct ir_op *op) {
    const struct ir_region *cond = op->regions[0], *body = op->regions[1];
    int mark = cgen_scope_mark(f->g);
    for (int i = 0; i < op->operand_count && i < cond->arg_count; i++) {
        function_copy(f, op->operands[i], cond->args[i]);
        function_copy(f, cond->args[i], body->args[i]);
    }
    const char *trips = cgen_enter_name(f->g, "trips");
    function_open_brace(f, arena_printf(&f->g->arena, "for (int64_t %s = 1;; %s++)", trips, trips));
    double repeat = f->repeat;
    f->repeat *= largest_trips(op);
    function_region(f, cond);
    cprint_line(&f->print, "if (!(%s))", function_scalar_text(f, cond->yields[0]));
    cprint_line(&f->print, "    break;");
    limit_check(f, op, trips);
    function_region(f, body);
    f->repeat = repeat;
    for (int i = 0; i < body->yield_count; i++) {
        function_copy(f, body->yields[i], body->args[i]);
        function_copy(f, body->args[i], cond->args[i]);
    }
    function_close_brace(f);
    cgen_scope_leave(f->g, mark);
    for (int i = 0; i < op->result_count; i++)
        function_copy(f, cond->args[i], op->results[i]);
}

void op_dim(struct function *f, struct ir_op *op) {
    struct ir_symbol *s = op->dim.symbol;
    const char *name = function_expr(f, function_symbol(f, s));
    cprint_line(&f->print, "%s = (int64_t)%s;", name, function_scalar_text(f, op->operands[0]));
    if (op->dim.inside)
        return;
    cprint_line(&f->print, "if (%s < %lld || %s > %lld)", name, (long long)s->lo, name, (long long)s->hi);
    cprint_line(
        &f->print,
        "    return %s_mx_fail(m, MX_ERROR_CHECK, \"dimension %s is %%lld, which is not in %lld .. %lld\", (long long)%s);",
        f->g->prefix, s->name, (long long)s->lo, (long long)s->hi, name);
}

void function_region(struct function *f, const struct ir_region *r) {
    for (struct ir_op *op = r->first; op;) {
        struct ir_op *behind = f->g->cuda && !f->part ? cuda_part(f, op) : op;
        if (behind == op) {
            function_operation(f, op);
            behind = op->next;
        }
        op = behind;
    }
}
