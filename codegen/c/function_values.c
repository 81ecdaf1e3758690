/* Values of the function being printed as the loop IR has them: memories by their storages, workspaces, dimensions, scalars. */
#include "codegen/c/function_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "codegen/cuda/cuda.h"
#include "ir/scalar_math/convert.h"

void function_bug(const struct function *f, const char *what) {
    fprintf(stderr, "mxcc: bug in code generation of %s: %s\n", f->func->name, what);
    exit(3);
}

struct storage *function_storage(struct function *f, const struct ir_value *v) {
    return f->plan->of_value[v->id];
}

bool function_by_value(const struct function *f, const struct storage *s) {
    if (s->kind == STORAGE_SCALAR)
        return !f->slot || f->slot[s->id] < 0;
    return s->kind == STORAGE_ARG && f->func->body->args[s->index]->type.rank == 0 &&
           !(f->func->arg_inout && f->func->arg_inout[s->index]);
}

const char *function_scalar_variable(struct function *f, const struct storage *s, enum dtype t) {
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
        function_bug(f, arena_printf(&g->arena, "value %d (%s) has no storage", v->id, v->name ? v->name : "unnamed"));
    bool shared = false;
    for (int i = 0; i < f->mems.n; i++)
        if (f->mems.at[i].storage == s) {
            if (f->mems.at[i].dtype == v->type.dtype)
                return f->mems.at[i].mem;
            shared = true;
        }
    struct loop_mem *m = loop_mem_new(f->b, s->name, v->type.dtype, function_by_value(f, s) ? MEM_SCALAR : MEM_POINTER);
    const char *name = NULL;
    if (g->cuda && m->kind == MEM_POINTER)
        m->base = cuda_base(f, s);
    switch (m->base ? STORAGE_BUFFER : s->kind) {
    case STORAGE_SCALAR: name = function_scalar_variable(f, s, v->type.dtype); break;
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
        function_bug(f, "a kernel's workspace is not in the plan");
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
