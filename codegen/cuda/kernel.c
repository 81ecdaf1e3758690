/* Kernels: each grid of a block of loop IR becomes a __global__ function over the pointers, scalars and dimensions that it uses,
 * named after its operation and launched in its place. Grids of equal canonical text (codegen/c/share.c) are one kernel, so the layers
 * of a deep model share theirs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/cuda/cuda.h"

const char *cuda_base(struct function *f, const struct storage *s) {
    struct cgen *g = f->g;
    const struct cuda *d = g->cuda;
    const bool inner = cuda_is_inner(g, f->func);
    int64_t at = 0, bytes = s->bytes;
    switch (s->kind) {
    case STORAGE_BUFFER:
        at = d->buffer[s->buffer->id];
        bytes = ir_type_bytes_upper(s->buffer->type);
        if (d->is_outside && d->is_outside[s->buffer->id])
            return arena_printf(&g->arena, "MX_AT(m->mx_outside + %lld, %lld)", (long long)at, (long long)bytes);
        break;
    case STORAGE_ARENA: at = (inner ? d->inner_arena : d->arena) + s->offset; break;
    case STORAGE_CACHE: at = d->cache + f->plan->cache_offset + s->offset; break;
    case STORAGE_SCALAR:
        at = (inner ? d->inner_scalars : d->scalars) + 16 * (int64_t)f->slot[s->id];
        bytes = 8;
        break;
    case STORAGE_ARG:
        if (cuda_averaged_argument(g, f->func, s->index))
            return arena_printf(&g->arena, "MX_AT(m->mx_keys[%d], %lld)", exchange_key_of_arg(f, s->index),
                                (long long)ir_type_bytes_upper(f->func->body->args[s->index]->type));
        at = (inner ? d->inner_arguments : d->arguments) + cuda_argument_offset(g, f->func, false, s->index);
        bytes = ir_type_bytes_upper(f->func->body->args[s->index]->type);
        break;
    case STORAGE_RESULT:
        at = (inner ? d->inner_arguments : d->arguments) + cuda_argument_offset(g, f->func, true, s->index);
        bytes = ir_type_bytes_upper(f->func->body->yields[s->index]->type);
        break;
    case STORAGE_CONST: return NULL;
    }
    return arena_printf(&g->arena, "MX_AT(m->mx_device + %lld, %lld)", (long long)at, (long long)bytes);
}

/* What a nest without a name does: its reduction, or the last function of its value. */
static const char *nest_name(const struct ir_op *op) {
    const struct ir_nest *nest = &op->nest;
    if (nest->acc_count) {
        ir_expr body = nest->accs[0].body;
        bool product = nest->accs[0].op == RED_SUM && body->kind == X_FN && body->fn == FN_mul;
        return product ? "product" : reduce_names[nest->accs[0].op];
    }
    for (ir_expr e = nest->results[0].value;; e = e->args[0]) {
        if (e->kind == X_FN)
            return scalar_table[e->fn].name;
        if (e->kind == X_LOAD)
            return nest->results[0].base >= 0 ? "write" : "gather";
        if (e->kind != X_CAST && e->kind != X_BITCAST)
            return nest->results[0].base >= 0 ? "write" : "fill";
    }
}

static const char *operation_name(const struct ir_op *op) {
    if (op->code == OP_print || op->code == OP_check) /* whose name is a message */
        return ir_optable[op->code].name;
    if (op->result_count && op->results[0]->name)
        return op->results[0]->name;
    if (op->name && op->name[0])
        return op->name;
    if (op->code == OP_rows)
        return operation_name(op->regions[0]->last);
    return op->code == OP_nest ? nest_name(op) : ir_optable[op->code].name;
}

const char *cuda_place(struct function *f) {
    const struct ir_op *op = f->op;
    struct arena *a = &f->g->arena;
    if (!op)
        return f->func->name;
    const char *name = operation_name(op);
    int line = 0, column = 0;
    if (!op->span.source)
        return arena_printf(a, "%s: %s", f->func->name, name);
    span_position(op->span, &line, &column);
    const char *path = op->span.source->path, *slash = *path == '<' ? NULL : strrchr(path, '/');
    char *place = arena_printf(a, "%s:%d %s", slash ? slash + 1 : path, line, name);
    for (char *s = place; *s; s++) /* it stands in a string of C, and in a format */
        if (*s == '"' || *s == '\\' || *s == '%' || *s == '\n')
            *s = '\'';
    return place;
}

static struct loop_stmt *threads_of(const struct loop_stmt *grid) {
    struct loop_stmt *s = grid->body.first;
    while (s && s->loop != LOOP_THREADS)
        s = s->next;
    return s;
}

static const char *print_kernel(struct function *f, const struct loop_stmt *grid, const struct cgen_captures *c,
                                bool guarded) {
    struct cgen *g = f->g;
    struct cgen_kernels *p = cgen_private(g);
    struct text body = {0}, head = {0};
    const struct loop_stmt *threads = threads_of(grid);
    int64_t stack = p->stack, most = p->stack_max, count = 0;
    struct cgen_names saved = cgen_scope_replace(g);
    const char **outer = cgen_enter_parameters(g, c, &head);
    const char *name = arena_printf(
        &g->arena, "%s_mx_%s_%d", g->prefix,
        cgen_identifier(&g->arena, cgen_parameter_name(f->op ? operation_name(f->op) : "copy")), g->cuda->kernels.n);
    const char *block = cgen_enter_name(g, "block"), *thread = cgen_enter_name(g, "thread");
    cgen_set_name(g, grid->var->id, block);
    cgen_set_name(g, threads->var->id, thread);
    lx_is_int(threads->hi, &count);
    struct cprint q = {.g = g, .out = &body, .indent = 1, .narrow = true};
    int64_t lo, hi;
    loop_var_bound(threads->var, 0, count - 1);
    if (lx_range(grid->hi, &lo, &hi))
        loop_var_bound(grid->var, 0, hi > 0 ? hi - 1 : 0);
    for (const struct loop_stmt *s = grid->body.first; s; s = s->next)
        if (s->kind == LS_LOCAL) {
            struct loop_stmt alone = *s;
            alone.next = NULL;
            cprint_block(&q, &(struct loop_block){.first = &alone});
        }
    struct text inner = {0};
    q.out = &inner;
    cprint_block(&q, &threads->body);
    q.out = &body;
    cgen_read_parameters(&q, c);
    if (guarded) { /* the grid may be that of a larger dimension */
        struct text blocks = {0};
        q.out = &blocks;
        cprint_expr(&q, grid->hi, 1);
        q.out = &body;
        cprint_line(&q, "if ((int64_t)blockIdx.x >= %s)", text_string(&blocks));
        cprint_line(&q, "    return;");
        text_free(&blocks);
    }
    if (cgen_mentions(text_string(&inner), block))
        cprint_line(&q, "const %s %s = blockIdx.x;", cprint_index_type(&q, grid->var), block);
    if (cgen_mentions(text_string(&inner), thread))
        cprint_line(&q, "const %s %s = threadIdx.x;", cprint_index_type(&q, threads->var), thread);
    text_addn(&body, text_string(&inner), inner.length);
    const char *parameters = text_string(&head);
    /* Without the second number ptxas aims at many blocks on a multiprocessor, at the price of spills. */
    text_printf(&g->outlined, "/* %s */\nstatic __global__ void __launch_bounds__(%lld, 1) %s(%s)\n{\n%s}\n\n",
                cuda_place(f), (long long)count, name, parameters[0] ? parameters + 2 : "", text_string(&body));
    cgen_leave_parameters(g, c, outer);
    cgen_scope_restore(g, saved);
    p->stack = stack;
    p->stack_max = most;
    text_free(&inner);
    text_free(&body);
    text_free(&head);
    return name;
}

/* Whether e never falls where a variable grows. */
static bool grows(lx e) {
    int64_t n;
    switch (e->kind) {
    case LX_INT: return e->value.i >= 0;
    case LX_VAR: return true;
    case LX_OP:
        switch (e->op) {
        case I_ADD:
        case I_MUL:
        case I_MIN:
        case I_MAX: return grows(e->args[0]) && grows(e->args[1]);
        case I_DIV: return grows(e->args[0]) && lx_is_int(e->args[1], &n);
        case I_SUB: return grows(e->args[0]) && lx_is_int(e->args[1], &n);
        default: return false;
        }
    default: return false;
    }
}

/* A variable of the function that is recorded, as a value on the device; NULL: the part's own. */
static const char *value_address(struct function *f, const char *name, const char *type) {
    struct cgen *g = f->g;
    bool outer = strncmp(name, "m->", 3) == 0;
    for (int i = 0; i < g->module->symbol_count && !outer; i++)
        outer = f->symbol_var[i] && strcmp(cgen_name_of(g, f->symbol_var[i]->id), name) == 0;
    for (int i = 0; i < f->plan->storage_count && !outer; i++)
        outer = f->plan->storages[i]->kind == STORAGE_SCALAR && strcmp(f->scalar_name[i], name) == 0 &&
                !strstr(text_string(&f->locals), arena_printf(&g->arena, " %s = ", name));
    for (int i = 0; i < f->func->body->arg_count && !outer; i++)
        outer = f->func->body->args[i]->type.rank == 0 && strcmp(cgen_arg_name(g, f->func, i), name) == 0;
    for (int i = 0; i < f->counters.n && !outer; i++)
        outer = strcmp(f->counters.at[i], name) == 0;
    if (!outer)
        return NULL;
    int k = 0;
    while (k < f->values.n && (strcmp(f->values.at[k].text, name) || strcmp(f->values.at[k].type, type)))
        k++;
    if (k == CUDA_VALUES)
        return NULL;
    if (k == f->values.n)
        VEC_PUSH(&g->arena, f->values, (struct cuda_value){arena_strdup(&g->arena, name), type});
    bool known = false;
    for (int i = 0; i < f->part->values.n; i++)
        known |= f->part->values.at[i] == k;
    if (!known)
        VEC_PUSH(&g->arena, f->part->values, k);
    return arena_printf(&g->arena, "MX_AT(m->mx_device + %lld, 8)", (long long)(g->cuda->values + 8 * (int64_t)k));
}

static const char *const *value_addresses(struct function *f, const struct cgen_captures *c) {
    struct cgen *g = f->g;
    const char **at = ARENA_ARRAY(&g->arena, const char *, c->mems.n + c->vars.n + 1);
    for (int i = 0; i < c->mems.n; i++)
        if (c->mems.at[i]->kind == MEM_SCALAR)
            at[i] = value_address(f, cgen_name_of(g, c->mems.at[i]->id), cgen_c_type(c->mems.at[i]->dtype));
    for (int i = 0; i < c->vars.n; i++)
        at[c->mems.n + i] = value_address(f, cgen_name_of(g, c->vars.at[i]->id), cgen_c_type(c->vars.at[i]->dtype));
    return at;
}

static void note_exact(lx e, void *context) {
    struct function *f = context;
    if (e->kind == LX_VAR)
        VEC_PUSH(&f->g->arena, f->part->exact, cgen_name_of(f->g, e->var->id));
}

static void launch(struct function *f, struct loop_stmt *grid) {
    struct cgen *g = f->g;
    struct cuda *d = g->cuda;
    struct cgen_captures c = {.arena = &g->arena};
    struct loop_stmt *next = grid->next;
    struct loop_block alone = {.first = grid};
    int64_t count = 0;
    grid->next = NULL; /* the kernel alone */
    bool guarded = f->part && !lx_is_int(grid->hi, &count) && grows(grid->hi);
    cgen_capture(&c, guarded ? &alone : &(struct loop_block){.first = threads_of(grid)});
    for (const struct loop_stmt *s = grid->body.first; s; s = s->next) /* shared memory is its own */
        for (int i = 0; s->kind == LS_LOCAL && i < c.mems.n; i++)
            if (c.mems.at[i] == s->mem) {
                memmove(&c.mems.at[i], &c.mems.at[i + 1], sizeof c.mems.at[0] * (size_t)(c.mems.n - i - 1));
                c.mems.n--;
            }
    for (int i = 0; i < c.vars.n; i++)
        if (c.vars.at[i] == grid->var) {
            memmove(&c.vars.at[i], &c.vars.at[i + 1], sizeof c.vars.at[0] * (size_t)(c.vars.n - i - 1));
            c.vars.n--;
        }
    if (f->part) {
        c.addresses = value_addresses(f, &c);
        c.pointers = ARENA_ARRAY(&g->arena, const char *, c.mems.n + c.vars.n + 1);
    }
    if (f->part && !guarded)
        lx_walk(grid->hi, note_exact, f);
    const char *key = cgen_block_key(g, &alone, &c), *name = NULL;
    int64_t lo = 0, hi = -1;
    if (key) /* the block's number is an index, too */
        key = arena_printf(&g->arena, "%s%s%lld", key, guarded ? "guarded " : "",
                           lx_range(grid->hi, &lo, &hi) ? (long long)hi : -1);
    for (int i = 0; key && i < d->kernels.n && !name; i++)
        if (d->kernels.at[i].key && !strcmp(d->kernels.at[i].key, key))
            name = d->kernels.at[i].name;
    if (!name) {
        name = print_kernel(f, grid, &c, guarded);
        VEC_PUSH(&g->arena, d->kernels, (struct cuda_kernel){key, name});
    }
    cuda_note_launch(f, name, &c);
    lx_is_int(threads_of(grid)->hi, &count);
    struct text line = {0};
    cgen_arguments(g, &line, &c);
    size_t from = f->print.out->length;
    cprint_line(&f->print, "MX_TRY(%s_mx_cuda(m, MX_LAUNCH(%s, %s, %lld, m->mx_stream[%d], %s), \"%s\"));", g->prefix,
                name, function_expr(f, grid->hi), (long long)count, f->lane, text_string(&line), cuda_place(f));
    if (f->part)
        VEC_PUSH(&g->arena, f->part->launches, (struct cuda_span){from, f->print.out->length});
    text_free(&line);
    grid->next = next;
}

void cuda_print_block(struct function *f, struct loop_block *k) {
    bool scoped = false;
    for (const struct loop_stmt *s = k->first; s; s = s->next)
        scoped |= s->kind == LS_DEF || s->kind == LS_LOCAL;
    if (scoped) {
        cprint_line(&f->print, "{");
        f->print.indent++;
    }
    for (struct loop_stmt *s = k->first; s; s = s->next) {
        if (s->kind == LS_FOR && s->loop == LOOP_GRID) {
            launch(f, s);
            continue;
        }
        if (s->kind == LS_CALL) {
            cuda_library_call(f, s);
            continue;
        }
        /* The host's own: scalars. A copy of the statement, since blocks are lists. */
        struct loop_stmt alone = *s;
        alone.next = NULL;
        cprint_block(&f->print, &(struct loop_block){.first = &alone});
    }
    if (scoped) {
        f->print.indent--;
        cprint_line(&f->print, "}");
    }
}
