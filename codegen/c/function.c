/* One function of the model as C: its signature, the operations in the plan's order, each in a block of its own with a
 * pointer for each memory it touches, and control flow as C control flow. What an operation computes comes from `lower` as loop
 * IR; here is only what surrounds it: storage, names, comments, early returns.
 */
#include "codegen/c/function_internal.h"

#include <string.h>

#include "codegen/cuda/cuda.h"
#include "passes/gpu.h"

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
        function_bug(f, text_string(&why));
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
    return s ? function_by_value(f, s) || (s->kind == STORAGE_CONST && v->type.rank == 0) : v->type.rank == 0;
}

bool function_on_host(struct function *f, const struct ir_op *op) {
    for (int i = 0; i < op->result_count; i++) {
        const struct storage *s = function_storage(f, op->results[i]);
        if (f->g->cuda && s && (s->kind != STORAGE_SCALAR || f->slot[s->id] >= 0))
            return false;
    }
    return f->g->cuda != NULL;
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

void function_copy_elements(struct function *f, struct loop_block *k, struct ir_type t, struct loop_mem *to,
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
        function_copy_elements(f, k, v->type, to, NULL, function_scalar(f, v));
    else
        function_copy_elements(f, k, v->type, to, function_mem(f, v), NULL);
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
            function_bug(
                f, arena_printf(&f->g->arena, "`%s` has no definition, and the target has none of its own", op->name));
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
        function_copy_elements(f, &k, op->results[0]->type, function_mem(f, op->results[0]), data,
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
        cprint_line(&f->print, "if (!(%s))", function_scalar_text(f, op->operands[0]));
        f->print.indent++;
        function_fail(f, "MX_ERROR_CHECK", op->name ? op->name : "a check failed");
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
            function_copy_elements(f, &k, fake.type, to, from, NULL);
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
    default:
        function_bug(f,
                     arena_printf(&f->g->arena, "operation `%s` should have been expanded", ir_optable[op->code].name));
    }
}

/* ---- the function ------------------------------------------------------------------------------------------------------- */

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
                function_close_brace(f);
            open = g;
            if (g >= 0)
                function_open_brace(f, arena_printf(&f->g->arena, "if (m->mx_%s.stale >> %d & 1)", f->func->name, g));
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
        function_close_brace(f);
}

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
        function_region(f, func->body);
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
