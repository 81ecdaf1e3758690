/* One function of the model as C: its signature, the operations in the plan's order, each in a block of its own with a
 * pointer for each memory it touches, and control flow as C control flow. What an operation computes comes from `lower` as loop
 * IR; here is only what surrounds it: storage, names, comments, early returns.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/cuda/cuda.h"
#include "ir/scalar_math.h"
#include "passes/gpu.h"

static void region(struct function *f, const struct ir_region *r);

static void bug(const struct function *f, const char *what) {
    fprintf(stderr, "mxcc: bug in code generation of %s: %s\n", f->func->name, what);
    exit(3);
}

/* ---- storage -------------------------------------------------------------------------------------------------------- */

struct storage *function_storage(struct function *f, const struct ir_value *v) {
    return f->plan->of_value[v->id];
}

static bool by_value(const struct function *f, const struct storage *s) {
    if (s->kind == STORAGE_SCALAR)
        return !f->slot || f->slot[s->id] < 0;
    return s->kind == STORAGE_ARG && f->func->body->args[s->index]->type.rank == 0 &&
           !(f->func->arg_inout && f->func->arg_inout[s->index]);
}

/* The C variable of a SCALAR storage, declared at the top of the function on first use. Its name was taken at the start, so
 * that no operation's pointer has it. */
static const char *scalar_variable(struct function *f, const struct storage *s, enum dtype t) {
    if (!f->scalar_declared[s->id])
        text_printf(&f->locals, "    %s %s = 0;\n", cgen_c_type(t), f->scalar_name[s->id]);
    if (!f->part)
        f->scalar_type[s->id] = cgen_c_type(t);
    f->scalar_declared[s->id] = true;
    return f->scalar_name[s->id];
}

/* A name for readers: the value's own, else by what it is or comes from. */
static const char *name_hint(struct cgen *g, const struct storage *s, const struct ir_value *v) {
    if (s->name || v->name)
        return s->name ? s->name : v->name;
    const struct ir_op *op = v->op;
    if (!op || op->code != OP_nest)
        return "t";
    for (int i = 0; i < op->nest.acc_count; i++) {
        ir_expr value = op->nest.results[v->index].value;
        bool arg = op->nest.accs[i].op == RED_ARGMAX || op->nest.accs[i].op == RED_ARGMIN;
        if (arg && value->kind == X_ACC && value->index == i)
            return "position";
    }
    for (int i = 0; i < op->operand_count; i++)
        if (op->operands[i]->name)
            return arena_printf(&g->arena, "of_%s", op->operands[i]->name);
    return "t";
}

struct loop_mem *function_mem(void *context, const struct ir_value *v) {
    struct function *f = context;
    struct cgen *g = f->g;
    const struct storage *s = function_storage(f, v);
    if (!s)
        bug(f, arena_printf(&g->arena, "value %d (%s) has no storage", v->id, v->name ? v->name : "unnamed"));
    bool shared = false;
    for (int i = 0; i < f->mems.n; i++)
        if (f->mems.at[i].storage == s) {
            if (f->mems.at[i].dtype == v->type.dtype)
                return f->mems.at[i].mem;
            shared = true;
        }
    struct loop_mem *m = loop_mem_new(f->b, s->name, v->type.dtype, by_value(f, s) ? MEM_SCALAR : MEM_POINTER);
    const char *name = NULL;
    if (g->cuda && m->kind == MEM_POINTER)
        m->base = cuda_base(f, s);
    switch (m->base ? STORAGE_BUFFER : s->kind) {
    case STORAGE_SCALAR: name = scalar_variable(f, s, v->type.dtype); break;
    case STORAGE_ARG: name = cgen_arg_name(g, f->func, s->index); break;
    case STORAGE_RESULT: name = cgen_result_name(g, f->func, s->index); break;
    case STORAGE_CONST: name = cgen_const_data(g, s->op, g->cuda && !f->host); break;
    case STORAGE_BUFFER:
        if (!m->base)
            m->base = arena_printf(&g->arena, "m->%s", cgen_buffer_field(g, s->buffer));
        break;
    case STORAGE_ARENA: m->base = arena_printf(&g->arena, "(void *)(m->arena + %lld)", (long long)s->offset); break;
    case STORAGE_CACHE:
        m->base = arena_printf(&g->arena, "(void *)(m->cache + %lld)", (long long)(f->plan->cache_offset + s->offset));
        break;
    }
    if (name) {
        cgen_set_name(g, m->id, name);
    } else {
        m->no_alias = !shared;
        if (shared) /* two types of one memory: neither may promise anything */
            for (int i = 0; i < f->mems.n; i++)
                if (f->mems.at[i].storage == s)
                    f->mems.at[i].mem->no_alias = false;
        cgen_set_name(g, m->id, cgen_enter_name(g, name_hint(g, s, v)));
        VEC_PUSH(&g->arena, f->pointers, m);
    }
    VEC_PUSH(&g->arena, f->mems, (struct op_mem){s, v->type.dtype, m});
    return m;
}

struct loop_mem *function_workspace(void *context, struct loop_block *out, const char *name, enum dtype t,
                                    int64_t elements) {
    struct function *f = context;
    int64_t bytes = codegen_workspace_bytes(f->g->options, t, elements);
    struct loop_mem *m;
    if (bytes == 0) {
        m = loop_mem_new(f->b, name, t, MEM_LOCAL);
        m->count = elements > 0 ? elements : 1;
        m->written = true;
        loop_local(f->b, out, m);
        return m;
    }
    m = loop_mem_new(f->b, name, t, MEM_POINTER);
    m->count = elements;
    m->written = true;
    m->no_alias = true;
    const struct storage *s = plan_workspace(f->plan, f->op);
    if (!s || f->workspace + bytes > s->bytes)
        bug(f, "a kernel's workspace is not in the plan");
    if (f->g->cuda)
        m->base =
            cuda_base(f, &(struct storage){.kind = STORAGE_ARENA, .offset = s->offset + f->workspace, .bytes = bytes});
    else
        m->base = arena_printf(&f->g->arena, "(void *)(m->arena + %lld)", (long long)(s->offset + f->workspace));
    f->workspace += bytes;
    cgen_set_name(f->g, m->id, cgen_enter_name(f->g, name));
    VEC_PUSH(&f->g->arena, f->pointers, m);
    return m;
}

static struct loop_func *shared_kernel(void *context, const char *key) {
    struct function *f = context;
    struct cgen_kernels *k = cgen_private(f->g);
    for (int i = 0; i < k->shared.n; i++)
        if (!strcmp(k->shared.at[i].key, key))
            return k->shared.at[i].func;
    return NULL;
}

static void share_kernel(void *context, const char *key, struct loop_func *kernel) {
    struct function *f = context;
    struct cgen_kernels *k = cgen_private(f->g);
    kernel->name = arena_printf(&f->g->arena, "%s_%s", f->g->prefix, key);
    VEC_PUSH(&f->g->arena, k->shared, (struct cgen_shared){arena_strdup(&f->g->arena, key), kernel});
    cprint_func(f->g, kernel);
}

lx function_symbol(void *context, const struct ir_symbol *s) {
    struct function *f = context;
    struct loop_var *v = f->symbol_var[s->id];
    if (!v) {
        v = f->symbol_var[s->id] = loop_var_new(f->b, s->name, I64, 1);
        loop_var_bound(v, s->lo, s->hi);
        if (s->op) {
            const char *name = cgen_enter_name(f->g, s->name);
            cgen_set_name(f->g, v->id, name);
            text_printf(&f->locals, "    int64_t %s = 0;\n", name);
        } else {
            cgen_set_name(f->g, v->id, cgen_symbol_name(f->g, s));
        }
    }
    return lx_var(f->b, v);
}

lx function_dim(struct function *f, ir_dim d) {
    return lx_dim(f->b, d, function_symbol, f);
}

lx function_elements(struct function *f, struct ir_type t) {
    return function_dim(f, ir_type_elements(f->func->module, t));
}

lx function_scalar(struct function *f, const struct ir_value *v) {
    if (v->op && v->op->code == OP_const) {
        double x = 0;
        int64_t i = 0;
        const void *data = v->op->constant.data;
        switch (v->type.dtype) {
        case F64: x = *(const double *)data; break;
        case F32: x = *(const float *)data; break;
        case F16: x = (double)mx_f32_from_f16(*(const uint16_t *)data); break;
        case BF16: x = (double)mx_f32_from_bf16(*(const uint16_t *)data); break;
        case I64:
        case U64: i = *(const int64_t *)data; break;
        case I32: i = *(const int32_t *)data; break;
        case U32: i = *(const uint32_t *)data; break;
        case I16: i = *(const int16_t *)data; break;
        case U16: i = *(const uint16_t *)data; break;
        case I8: i = *(const int8_t *)data; break;
        case U8:
        case BOOL: i = *(const uint8_t *)data; break;
        default: return lx_load(f->b, function_mem(f, v), lx_int(f->b, 0), 1);
        }
        return dtype_is_float(v->type.dtype) ? lx_const_float(f->b, v->type.dtype, x)
                                             : lx_const_int(f->b, v->type.dtype, i);
    }
    if (v->op && v->op->code == OP_check)
        return lx_const_int(f->b, BOOL, 1);
    return lx_load(f->b, function_mem(f, v), lx_int(f->b, 0), 1);
}

const char *function_expr(struct function *f, lx e) {
    struct text t = {0};
    struct cprint p = f->print;
    p.out = &t;
    cprint_expr(&p, e, 1);
    const char *s = arena_strdup(&f->g->arena, text_string(&t));
    text_free(&t);
    return s;
}

/* ---- operations in blocks ------------------------------------------------------------------------------------------- */

void function_comment(struct function *f, const struct ir_op *op) {
    struct text *out = f->print.out;
    int line = 0, column = 0;
    const char *name = op->result_count && op->results[0]->name ? op->results[0]->name : op->name ? op->name : "";
    if (op->span.source) {
        span_position(op->span, &line, &column);
        if (f->g->options->line_directives)
            text_printf(out, "#line %d \"%s\"\n", line, op->span.source->path);
    }
    for (int i = 0; i < f->print.indent; i++)
        text_add(out, "    ");
    text_add(out, "/* ");
    if (op->span.source)
        text_printf(out, "%s:%d ", op->span.source->path, line);
    text_printf(out, "%s", name[0] ? name : ir_optable[op->code].name);
    if (op->result_count && op->results[0]->type.rank) {
        struct ir_type t = op->results[0]->type;
        text_printf(out, ": %s[", dtype_name(t.dtype));
        for (int d = 0; d < t.rank; d++)
            text_printf(out, "%s%s", d ? ", " : "", function_expr(f, function_dim(f, t.dims[d])));
        text_add(out, "]");
    }
    text_add(out, " */\n");
}

void function_begin(struct function *f) {
    f->mems.n = 0;
    f->pointers.n = 0;
    f->workspace = 0;
    f->hint = NULL;
    f->scope = cgen_scope_mark(f->g);
}

void function_finish(struct function *f, struct loop_block *k) {
    struct text why = {0};
    if (!loop_verify(k, NULL, f->g->options->vector_bytes ? f->g->options->vector_bytes : 32, &why)) {
        loop_print(&why, k, 0);
        bug(f, text_string(&why));
    }
    text_free(&why);
    if (f->g->cuda) {
        cuda_print_block(f, k);
        cgen_scope_leave(f->g, f->scope);
        return;
    }
    if (cgen_share_block(&f->print, k, f->hint ? f->hint : "nest")) {
        cgen_scope_leave(f->g, f->scope);
        return;
    }
    bool scoped = f->pointers.n > 0;
    for (const struct loop_stmt *s = k->first; s; s = s->next)
        scoped |= s->kind == LS_DEF || s->kind == LS_LOCAL;
    struct cgen_kernels *p = cgen_private(f->g);
    int64_t stack = p->stack;
    if (scoped) {
        cprint_line(&f->print, "{");
        f->print.indent++;
    }
    for (int i = 0; i < f->pointers.n; i++)
        cprint_mem(&f->print, f->pointers.at[i]);
    cprint_block(&f->print, k);
    if (scoped) {
        f->print.indent--;
        cprint_line(&f->print, "}");
    }
    cgen_scope_leave(f->g, f->scope);
    p->stack = stack;
}

bool function_on_device(const struct function *f, const struct loop_mem *m) {
    return f->g->cuda && m->kind != MEM_SCALAR;
}

bool function_is_host_scalar(const struct function *f, const struct ir_value *v) {
    const struct storage *s = f->plan->of_value[v->id];
    return s ? by_value(f, s) || (s->kind == STORAGE_CONST && v->type.rank == 0) : v->type.rank == 0;
}

bool function_on_host(struct function *f, const struct ir_op *op) {
    for (int i = 0; i < op->result_count; i++) {
        const struct storage *s = function_storage(f, op->results[i]);
        if (f->g->cuda && s && (s->kind != STORAGE_SCALAR || f->slot[s->id] >= 0))
            return false;
    }
    return f->g->cuda != NULL;
}

void function_lower(struct function *f, struct ir_op *op, struct loop_block *k) {
    struct lower l = {.module = f->g->module,
                      .b = f->b,
                      .options = f->g->options,
                      .op = op,
                      .out = k,
                      .mem = function_mem,
                      .symbol = function_symbol,
                      .workspace = function_workspace,
                      .shared = shared_kernel,
                      .share = share_kernel,
                      .context = f};
    if (f->host)
        lower_nest(&l);
    else
        codegen_lower(&l);
    f->flops += f->repeat * (double)l.flops;
}

static void nest(struct function *f, struct ir_op *op) {
    struct loop_block k;
    int first = f->b->next_id;
    loop_block_init(&k);
    function_begin(f);
    f->hint = op->result_count ? op->results[0]->name : NULL;
    function_lower(f, op, &k);
    loop_drop_unused(f->b, &k, first);
    function_finish(f, &k);
}

/* to[i] = from[i] over all elements of a type; from NULL: the one element `scalar`. */
static void copy_elements(struct function *f, struct loop_block *k, struct ir_type t, struct loop_mem *to,
                          struct loop_mem *from, lx scalar) {
    struct loop_builder *b = f->b;
    lx zero = lx_int(b, 0);
    if (function_on_device(f, to)) {
        struct gpu_each e = gpu_open_each(b, k, from ? function_elements(f, t) : lx_int(b, 1),
                                          from ? ir_dim_upper(ir_type_elements(f->func->module, t)) : 1, "i");
        loop_store(b, e.body, to, from ? e.at : zero, from ? lx_load(b, from, e.at, 1) : scalar);
        gpu_close_each(&e);
        return;
    }
    if (!from) {
        loop_store(b, k, to, zero, scalar);
        return;
    }
    struct loop_var *i = loop_var_new(b, "i", I64, 1);
    struct loop_stmt *loop = loop_for(b, k, i, zero, function_elements(f, t), 1, LOOP_SERIAL);
    loop_store(b, &loop->body, to, lx_var(b, i), lx_load(b, from, lx_var(b, i), 1));
}

/* The same from where a value lives. */
static void copy_value(struct function *f, struct loop_block *k, struct loop_mem *to, const struct ir_value *v) {
    if (v->type.rank == 0)
        copy_elements(f, k, v->type, to, NULL, function_scalar(f, v));
    else
        copy_elements(f, k, v->type, to, function_mem(f, v), NULL);
}

void function_copy(struct function *f, const struct ir_value *from, const struct ir_value *to) {
    const struct storage *s = function_storage(f, from), *t = function_storage(f, to);
    if (!t || s == t)
        return;
    struct loop_block k;
    loop_block_init(&k);
    function_begin(f);
    copy_value(f, &k, function_mem(f, to), from);
    function_finish(f, &k);
}

/* ---- control flow ------------------------------------------------------------------------------------------------------ */

static void copies(struct function *f, struct ir_value *const *from, struct ir_value *const *to, int n) {
    for (int i = 0; i < n; i++)
        function_copy(f, from[i], to[i]);
}

static void open_brace(struct function *f, const char *head) {
    cprint_line(&f->print, "%s {", head);
    f->print.indent++;
}

static void close_brace(struct function *f) {
    f->print.indent--;
    cprint_line(&f->print, "}");
}

static const char *scalar_text_of(struct function *f, const struct ir_value *v) {
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

static void op_if(struct function *f, struct ir_op *op) {
    double before = f->flops, most = before; /* the costlier side counts */
    open_brace(f, arena_printf(&f->g->arena, "if (%s)", scalar_text_of(f, op->operands[0])));
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
        region(f, r);
        most = f->flops > most ? f->flops : most;
        copies(f, r->yields, op->results, r->yield_count);
    }
    f->flops = most;
    close_brace(f);
}

static void fail(struct function *f, const char *status, const char *message) {
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

static void op_for(struct function *f, struct ir_op *op) {
    const struct ir_region *body = op->regions[0];
    int carried = body->arg_count - 1, mark = cgen_scope_mark(f->g);
    for (int i = 0; i < carried; i++)
        function_copy(f, op->operands[2 + i], body->args[1 + i]);
    const char *lo = scalar_text_of(f, op->operands[0]), *hi = scalar_text_of(f, op->operands[1]);
    const struct storage *index = function_storage(f, body->args[0]);
    open_brace(f, "");
    const char *first = cgen_enter_name(f->g, "first"), *end = cgen_enter_name(f->g, "end");
    cprint_line(&f->print, "const int64_t %s = %s, %s = %s;", first, lo, end, hi);
    limit_check(f, op, arena_printf(&f->g->arena, "%s - %s", end, first));
    const char *i;
    if (index && index->kind == STORAGE_SCALAR) {
        i = scalar_variable(f, index, I64);
        open_brace(f, arena_printf(&f->g->arena, "for (%s = %s; %s < %s; %s++)", i, first, i, end, i));
    } else {
        i = cgen_enter_name(f->g, body->args[0]->name ? body->args[0]->name : "i");
        open_brace(f, arena_printf(&f->g->arena, "for (int64_t %s = %s; %s < %s; %s++)", i, first, i, end, i));
        if (index) {
            function_begin(f);
            struct loop_mem *m = function_mem(f, body->args[0]);
            if (function_on_device(f, m)) {
                struct loop_var *counter = loop_var_new(f->b, i, I64, 1);
                struct loop_block k;
                loop_block_init(&k);
                cgen_set_name(f->g, counter->id, i);
                copy_elements(f, &k, body->args[0]->type, m, NULL, lx_var(f->b, counter));
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
    region(f, body);
    f->counters.n = counters;
    f->repeat = repeat;
    for (int y = 0; y < carried; y++)
        function_copy(f, body->yields[y], body->args[1 + y]);
    close_brace(f);
    close_brace(f);
    cgen_scope_leave(f->g, mark);
    for (int i2 = 0; i2 < carried; i2++)
        function_copy(f, body->args[1 + i2], op->results[i2]);
}

static void op_while(struct function *f, struct ir_op *op) {
    const struct ir_region *cond = op->regions[0], *body = op->regions[1];
    int mark = cgen_scope_mark(f->g);
    for (int i = 0; i < op->operand_count && i < cond->arg_count; i++) {
        function_copy(f, op->operands[i], cond->args[i]);
        function_copy(f, cond->args[i], body->args[i]);
    }
    const char *trips = cgen_enter_name(f->g, "trips");
    open_brace(f, arena_printf(&f->g->arena, "for (int64_t %s = 1;; %s++)", trips, trips));
    double repeat = f->repeat;
    f->repeat *= largest_trips(op);
    region(f, cond);
    cprint_line(&f->print, "if (!(%s))", scalar_text_of(f, cond->yields[0]));
    cprint_line(&f->print, "    break;");
    limit_check(f, op, trips);
    region(f, body);
    f->repeat = repeat;
    for (int i = 0; i < body->yield_count; i++) {
        function_copy(f, body->yields[i], body->args[i]);
        function_copy(f, body->args[i], cond->args[i]);
    }
    close_brace(f);
    cgen_scope_leave(f->g, mark);
    for (int i = 0; i < op->result_count; i++)
        function_copy(f, cond->args[i], op->results[i]);
}

static void op_dim(struct function *f, struct ir_op *op) {
    struct ir_symbol *s = op->dim.symbol;
    const char *name = function_expr(f, function_symbol(f, s));
    cprint_line(&f->print, "%s = (int64_t)%s;", name, scalar_text_of(f, op->operands[0]));
    if (op->dim.inside)
        return;
    cprint_line(&f->print, "if (%s < %lld || %s > %lld)", name, (long long)s->lo, name, (long long)s->hi);
    cprint_line(
        &f->print,
        "    return %s_mx_fail(m, MX_ERROR_CHECK, \"dimension %s is %%lld, which is not in %lld .. %lld\", (long long)%s);",
        f->g->prefix, s->name, (long long)s->lo, (long long)s->hi, name);
}

void function_operation(struct function *f, struct ir_op *op) {
    f->op = op;
    f->staged = 0;
    f->host = op->code == OP_nest && function_on_host(f, op);
    bool plain = op->code == OP_read || op->code == OP_reshape || op->code == OP_stop || op->code == OP_write;
    if (!plain && op->code != OP_const && op->code != OP_dim)
        function_comment(f, op);
    switch (op->code) {
    case OP_kernel:
        if (codegen_own_kernel(f->g->options, op) != OWN_HERE)
            bug(f, arena_printf(&f->g->arena, "`%s` has no definition, and the target has none of its own", op->name));
        nest(f, op);
        break;
    case OP_rows:
    case OP_nest: nest(f, op); break;
    case OP_const: {
        const struct storage *s = function_storage(f, op->results[0]);
        if (!s || s->kind == STORAGE_CONST)
            break;
        /* Lives where something writes to it later. */
        struct loop_block k;
        loop_block_init(&k);
        function_begin(f);
        struct loop_mem *data = NULL;
        if (op->results[0]->type.rank) {
            data = loop_mem_new(f->b, "data", op->results[0]->type.dtype, MEM_PARAM);
            cgen_set_name(f->g, data->id, cgen_const_data(f->g, op, f->g->cuda != NULL));
        }
        copy_elements(f, &k, op->results[0]->type, function_mem(f, op->results[0]), data,
                      data ? NULL : function_scalar(f, op->results[0]));
        function_finish(f, &k);
        break;
    }
    case OP_reshape:
    case OP_stop: function_copy(f, op->operands[0], op->results[0]); break;
    case OP_sort: op_sort(f, op); break;
    case OP_scan:
        if (dtype_is_float(op->operands[0]->type.dtype))
            f->flops += f->repeat * (double)ir_dim_upper(ir_type_elements(f->g->module, op->operands[0]->type));
        op_scan(f, op);
        break;
    case OP_rng: op_rng(f, op); break;
    case OP_dim: op_dim(f, op); break;
    case OP_if: op_if(f, op); break;
    case OP_for: op_for(f, op); break;
    case OP_while: op_while(f, op); break;
    case OP_check:
        cprint_line(&f->print, "if (!(%s))", scalar_text_of(f, op->operands[0]));
        f->print.indent++;
        fail(f, "MX_ERROR_CHECK", op->name ? op->name : "a check failed");
        f->print.indent--;
        break;
    case OP_print: op_print(f, op); break;
    case OP_extern: op_extern(f, op); break;
    case OP_read: {
        /* Version 0 lives in the buffer; a plan may want it elsewhere. */
        const struct storage *s = function_storage(f, op->results[0]);
        if (s && s->kind != STORAGE_BUFFER) {
            struct storage *own = ARENA_NEW(&f->g->arena, struct storage);
            *own = (struct storage){
                .id = s->id, .kind = STORAGE_BUFFER, .buffer = op->buffer.buffer, .name = op->buffer.buffer->name};
            struct ir_value fake = *op->results[0];
            struct storage *saved = f->plan->of_value[fake.id];
            struct loop_block k;
            loop_block_init(&k);
            function_begin(f);
            struct loop_mem *to = function_mem(f, &fake);
            f->plan->of_value[fake.id] = own;
            struct loop_mem *from = function_mem(f, &fake);
            f->plan->of_value[fake.id] = saved;
            copy_elements(f, &k, fake.type, to, from, NULL);
            function_finish(f, &k);
        }
        break;
    }
    case OP_write: {
        const struct storage *s = function_storage(f, op->operands[0]);
        if (s && s->kind == STORAGE_BUFFER && s->buffer == op->buffer.buffer)
            break;
        function_comment(f, op);
        const struct ir_value *v = op->operands[0];
        struct loop_block k;
        loop_block_init(&k);
        function_begin(f);
        struct loop_mem *to = loop_mem_new(f->b, op->buffer.buffer->name, v->type.dtype, MEM_POINTER);
        if (f->g->cuda)
            to->base = cuda_base(f, &(struct storage){.kind = STORAGE_BUFFER, .buffer = op->buffer.buffer});
        else
            to->base = arena_printf(&f->g->arena, "m->%s", cgen_buffer_field(f->g, op->buffer.buffer));
        cgen_set_name(f->g, to->id, cgen_enter_name(f->g, op->buffer.buffer->name));
        VEC_PUSH(&f->g->arena, f->pointers, to);
        copy_value(f, &k, to, v);
        function_finish(f, &k);
        break;
    }
    default: bug(f, arena_printf(&f->g->arena, "operation `%s` should have been expanded", ir_optable[op->code].name));
    }
}

static void region(struct function *f, const struct ir_region *r) {
    for (struct ir_op *op = r->first; op;) {
        struct ir_op *behind = f->g->cuda && !f->part ? cuda_part(f, op) : op;
        if (behind == op) {
            function_operation(f, op);
            behind = op->next;
        }
        op = behind;
    }
}

/* The body of an incremental function: each stretch of operations of one group under the test of its bit. What makes nothing
 * (reads, views, constants) goes with the stretch in which it stands. */
static void groups(struct function *f, const struct ir_region *body) {
    const struct plan_incremental *inc = f->plan->incremental;
    int open = INCREMENTAL_NONE;
    for (struct ir_op *op = body->first; op; op = op->next) {
        int g = incremental_group(inc, op), n = 0;
        if (op->code == OP_dim)
            g = INCREMENTAL_ALWAYS;
        if (g != INCREMENTAL_NONE && g != open) {
            if (open >= 0)
                close_brace(f);
            open = g;
            if (g >= 0)
                open_brace(f, arena_printf(&f->g->arena, "if (m->mx_%s.stale >> %d & 1)", f->func->name, g));
            for (const struct ir_op *o = op; o; o = o->next) {
                int other = incremental_group(inc, o);
                if (other != INCREMENTAL_NONE && other != g)
                    break;
                n += other == g && g != INCREMENTAL_HANDOVER;
            }
            if (n)
                cprint_line(&f->print, "m->mx_%s.ran += %d;", f->func->name, n);
        }
        function_operation(f, op);
    }
    if (open >= 0)
        close_brace(f);
}

/* ---- the function ------------------------------------------------------------------------------------------------------- */

/* Results and inout arguments that do not live where the caller wants them. */
static void final_copies(struct function *f) {
    const struct ir_region *body = f->func->body;
    int inout = 0;
    for (int i = 0; i < body->yield_count; i++) {
        const struct ir_value *v = body->yields[i];
        const struct storage *s = function_storage(f, v);
        bool result = i < f->func->result_count;
        int index = i;
        if (!result) {
            while (inout < body->arg_count && !f->func->arg_inout[inout])
                inout++;
            index = inout++;
        }
        enum storage_kind want = result ? STORAGE_RESULT : STORAGE_ARG;
        if (s && s->kind == want && s->index == index)
            continue;
        struct loop_block k;
        loop_block_init(&k);
        function_begin(f);
        struct loop_mem *to = loop_mem_new(f->b, "result", v->type.dtype, MEM_PARAM);
        cgen_set_name(f->g, to->id,
                      result ? cgen_result_name(f->g, f->func, index) : cgen_arg_name(f->g, f->func, index));
        to->written = true;
        copy_value(f, &k, to, v);
        function_finish(f, &k);
    }
}

static void give_results(struct function *f) {
    if (f->g->cuda)
        cuda_results(f);
    else
        final_copies(f);
}

void cgen_c_function(struct cgen *g, struct plan_func *p) {
    struct cgen_kernels *k = cgen_private(g);
    const struct ir_func *func = p->func;
    struct text body = {0}, head = {0};
    struct function *f = &(struct function){.g = g, .plan = p, .func = func, .b = &k->builder};
    f->repeat = 1;
    f->print = (struct cprint){.g = g, .out = &body, .indent = 1};
    f->scalar_name = ARENA_ARRAY(&g->arena, const char *, p->storage_count + 1);
    f->scalar_declared = ARENA_ARRAY(&g->arena, bool, p->storage_count + 1);
    f->scalar_type = ARENA_ARRAY(&g->arena, const char *, p->storage_count + 1);
    f->symbol_var = ARENA_ARRAY(&g->arena, struct loop_var *, g->module->symbol_count + 1);
    if (g->cuda)
        f->slot = cuda_scalar_slots(g, p, &(int){0});
    k->scope.n = 0;
    k->stack = k->stack_max = 0;

    VEC(const char *) names = {0};
    const struct step_split *split = function_split(f);
    /* Of a part of the step, the keys' tensors come by one array, since a function may have but so many parameters. */
    int key_args = split && func != split->gradients ? func->body->arg_count - split->scalar_count : 0;
    int key_results = split && func == split->gradients ? split->key_count : 0;
    const char *name = func == g->module->init ? "init" : func->name;
    text_printf(&head, "static mx_status %s_mx_run_%s(struct %s *m", g->prefix, name, g->prefix);
    for (int i = 0; i < func->symbol_count; i++) {
        const char *n = cgen_symbol_name(g, func->symbols[i]);
        text_printf(&head, ", int64_t %s", n);
        VEC_PUSH(&g->arena, k->scope, n);
        VEC_PUSH(&g->arena, names, n);
    }
    for (int i = 0; i < func->body->arg_count; i++) {
        const struct ir_type t = func->body->args[i]->type;
        const char *n = cgen_arg_name(g, func, i);
        bool inout = func->arg_inout && func->arg_inout[i], pointer = t.rank > 0 || inout;
        VEC_PUSH(&g->arena, k->scope, n);
        if (i >= func->body->arg_count - key_args)
            continue;
        text_printf(&head, ", %s%s %s%s", pointer && !inout ? "const " : "", cgen_c_type(t.dtype), pointer ? "*" : "",
                    n);
        VEC_PUSH(&g->arena, names, n);
    }
    for (int i = 0; i < func->result_count; i++) {
        const char *n = cgen_result_name(g, func, i);
        VEC_PUSH(&g->arena, k->scope, n);
        if (i >= func->result_count - key_results)
            continue;
        text_printf(&head, ", %s *%s", cgen_c_type(func->body->yields[i]->type.dtype), n);
        VEC_PUSH(&g->arena, names, n);
    }
    if (split) {
        text_add(&head, ", void *const *keys");
        VEC_PUSH(&g->arena, k->scope, "keys");
        VEC_PUSH(&g->arena, names, "keys");
    }
    for (int i = 0; i < func->result_symbol_count; i++) {
        const char *n = cgen_found_name(g, func, i);
        text_printf(&head, ", int64_t *%s", n);
        VEC_PUSH(&g->arena, k->scope, n);
        VEC_PUSH(&g->arena, names, n);
    }
    text_add(&head, ")\n{\n");

    for (int i = 0; i < p->storage_count; i++)
        if (p->storages[i]->kind == STORAGE_SCALAR)
            f->scalar_name[p->storages[i]->id] = cgen_enter_name(g, p->storages[i]->name ? p->storages[i]->name : "t");
    for (int i = 0; i < g->module->symbol_count; i++)
        if (g->module->symbols[i]->op && g->module->symbols[i]->func == func)
            function_symbol(f, g->module->symbols[i]);
    if (g->cuda)
        cuda_arguments(f);
    if (p->incremental) {
        groups(f, func->body);
        give_results(f);
    } else if (key_results) {
        struct exchange *x = exchange_plan(f);
        int at = 0;
        for (struct ir_op *op = func->body->first; op; op = op->next, at++) {
            exchange_before(f, x, at);
            function_operation(f, op);
            exchange_after(f, x, at);
        }
        exchange_before(f, x, at);
        if (g->cuda) /* from where they are */
            exchange_after(f, x, at);
        give_results(f);
        if (!g->cuda)
            exchange_after(f, x, at);
    } else {
        region(f, func->body);
        give_results(f);
    }
    for (int i = 0; i < func->result_symbol_count; i++)
        cprint_line(&f->print, "*%s = %s;", cgen_found_name(g, func, i),
                    function_expr(f, function_dim(f, func->result_symbols[i].value)));

    text_add(&g->functions, text_string(&head));
    text_add(&g->functions, text_string(&f->locals));
    const char *printed = text_string(&body);
    bool keys = false;
    for (int i = func->body->arg_count - key_args; i < func->body->arg_count; i++)
        keys |= exchange_key(f, printed, cgen_arg_name(g, func, i), func->body->args[i]->type,
                             exchange_key_of_arg(f, i), false);
    for (int i = func->result_count - key_results; i < func->result_count; i++)
        keys |= exchange_key(f, printed, cgen_result_name(g, func, i), func->body->yields[i]->type,
                             i - (func->result_count - key_results), true);
    if (!cgen_uses_instance(printed))
        text_add(&g->functions, "    (void)m;\n");
    for (int i = 0; i < names.n; i++)
        if (!cgen_mentions(printed, names.at[i]) && !(keys && strcmp(names.at[i], "keys") == 0))
            text_printf(&g->functions, "    (void)%s;\n", names.at[i]);
    text_add(&g->functions, printed);
    text_add(&g->functions, "    return MX_OK;\n}\n\n");
    text_free(&body);
    text_free(&head);
    text_free(&f->locals);

    if (g->cuda)
        cuda_keep_launches(f);
    p->flops = f->flops < 9e18 ? (int64_t)f->flops : INT64_MAX;
    if (g->flops && func != g->module->init)
        g->flops[func->id] = p->flops;
    if (k->stack_max > g->stack_bytes)
        g->stack_bytes = k->stack_max;
}
