/* Between host and device: a function's arguments and results, scalars that control flow asks for, and what print and C functions
 * work on. Copies take their direction from the addresses, so a caller may also hand in memory of the device. */
#include "codegen/cuda/cuda.h"

static const char *bytes_of(struct function *f, struct ir_type t) {
    return arena_printf(&f->g->arena, "(size_t)(%s) * %d", function_expr(f, function_elements(f, t)),
                        dtype_size(t.dtype));
}

static bool is_inout(const struct ir_func *f, int arg) {
    return f->arg_inout && f->arg_inout[arg];
}

void cuda_arguments(struct function *f) {
    struct cgen *g = f->g;
    /* What runs inside another call goes the way of its kernels, behind those of that call, and leaves its pinned memory alone. */
    const bool inner = cuda_is_inner(f->g, f->func);
    bool some = false;
    cprint_line(&f->print, "MX_TRY(%s_mx_%s(m));", g->prefix, inner ? "move_newer" : "begin");
    if (cuda_hands_out(f))
        cprint_line(&f->print, cuda_averages(g) ? "m->mx_last = -1;" : "m->mx_left = m->mx_leaving_count = 0;");
    for (int i = 0; i < f->func->body->arg_count; i++) {
        struct ir_type t = f->func->body->args[i]->type;
        if ((t.rank == 0 && !is_inout(f->func, i)) || cuda_averaged_argument(g, f->func, i))
            continue;
        const struct storage s = {.kind = STORAGE_ARG, .index = i};
        const char *name = cgen_arg_name(g, f->func, i);
        cprint_line(&f->print, "MX_TRY(%s_mx_%s(m, %s, %s, %s, \"%s: %s\"));", g->prefix, inner ? "copy" : "give",
                    cuda_base(f, &s), name, bytes_of(f, t), f->func->name, name);
        some = !inner;
    }
    if (some)
        cprint_line(&f->print, "MX_TRY(%s_mx_given(m, \"%s\"));", g->prefix, f->func->name);
}

static void give_back(struct function *f, const struct ir_value *v, const char *name) {
    struct cgen *g = f->g;
    function_begin(f);
    if (v->type.rank == 0) {
        lx e = function_scalar(f, v);
        if (e->kind != LX_LOAD || e->mem->kind != MEM_POINTER) {
            bool half = v->type.dtype == F16 || v->type.dtype == BF16;
            struct loop_block k;
            struct loop_mem *to = loop_mem_new(f->b, "result", v->type.dtype, MEM_PARAM);
            if (half) { /* stored as bits */
                cgen_set_name(g, to->id, name);
                loop_block_init(&k);
                loop_store(f->b, &k, to, lx_int(f->b, 0), e);
                cuda_print_block(f, &k);
            } else {
                cprint_line(&f->print, "*%s = %s;", name, function_expr(f, e));
            }
            return;
        }
    }
    const struct loop_mem *m = function_mem(f, v);
    if (m->base)
        cprint_line(&f->print, "MX_TRY(%s_mx_take(m, %s, %s, %s, \"%s: %s\"));", g->prefix, name, m->base,
                    bytes_of(f, v->type), f->func->name, name);
    else /* a constant of the unit */
        cprint_line(
            &f->print,
            "MX_TRY(%s_mx_cuda(m, cudaMemcpyFromSymbolAsync(%s, %s, %s, 0, cudaMemcpyDefault, m->mx_stream[0]), \"%s: %s\"));",
            g->prefix, name, cgen_name_of(g, m->id), bytes_of(f, v->type), f->func->name, name);
    cgen_scope_leave(g, f->scope);
}

void cuda_results(struct function *f) {
    const struct ir_func *func = f->func;
    const struct ir_region *body = func->body;
    int inout = 0;
    f->op = NULL;
    if (body->yield_count)
        cprint_line(&f->print, "MX_TRY(%s_mx_done(m, \"%s\"));", f->g->prefix, func->name);
    for (int i = 0; i < body->yield_count; i++) {
        if (cuda_is_key(f, i))
            continue;
        if (i < func->result_count) {
            give_back(f, body->yields[i], cgen_result_name(f->g, func, i));
            continue;
        }
        while (inout < body->arg_count && !is_inout(func, inout))
            inout++;
        give_back(f, body->yields[i], cgen_arg_name(f->g, func, inout++));
    }
    if (cuda_hands_out(f))
        cprint_line(&f->print, "MX_TRY(%s_mx_handed(m%s));", f->g->prefix, cuda_averages(f->g) ? "" : ", 1");
    if (!cuda_is_inner(f->g, f->func)) /* else what follows on the stream needs nobody to wait */
        cprint_line(&f->print, "MX_TRY(%s_mx_end(m, \"%s\"));", f->g->prefix, func->name);
}

const char *cuda_fetch(struct function *f, const struct loop_mem *m) {
    const char *name = cgen_enter_name(f->g, m->name ? m->name : "condition"), *type = cgen_c_type(m->dtype);
    cprint_line(&f->print, "%s %s = 0;", type, name);
    cprint_line(&f->print, "MX_TRY(%s_mx_fetch(m, &%s, %s, sizeof %s, \"%s\"));", f->g->prefix, name, m->base, name,
                cuda_place(f));
    return name;
}

static bool is_read(const struct function *f, const struct ir_value *v) {
    for (int i = 0; i < f->op->operand_count; i++)
        if (f->plan->of_value[f->op->operands[i]->id] == f->plan->of_value[v->id])
            return true;
    return false;
}

void cuda_stage(struct function *f, const struct ir_value *v, struct loop_mem *m) {
    struct cgen *g = f->g;
    if (m->kind == MEM_SCALAR)
        return;
    const char *staging = arena_printf(&g->arena, "(void *)(m->mx_staging + %lld)", (long long)f->staged);
    f->staged += (ir_type_bytes_upper(v->type) + 255) & ~(int64_t)255;
    bool read = is_read(f, v); /* else it is only written */
    if (read && m->base)
        cprint_line(&f->print, "MX_TRY(%s_mx_fetch(m, %s, %s, %s, \"%s\"));", g->prefix, staging, m->base,
                    bytes_of(f, v->type), cuda_place(f));
    else if (read)
        cprint_line(&f->print, "MX_TRY(%s_mx_cuda(m, cudaMemcpyFromSymbol(%s, %s, %s), \"%s\"));", g->prefix, staging,
                    cgen_name_of(g, m->id), bytes_of(f, v->type), cuda_place(f));
    m->base = staging;
}

void cuda_unstage(struct function *f, const struct ir_value *v, const struct loop_mem *m) {
    if (m->kind != MEM_SCALAR)
        cprint_line(&f->print, "MX_TRY(%s_mx_copy(m, %s, %s, %s, \"%s\"));", f->g->prefix,
                    cuda_base(f, function_storage(f, v)), m->base, bytes_of(f, v->type), cuda_place(f));
}
