/* Which kernel takes a nest, and what it works in beside its operands and results: packed panels, sums, offsets. What is small
 * is a local array; the rest has a place in the plan, which asks here before any code is generated. The answer comes from
 * building the kernel, so it cannot differ from what code generation will do.
 */
#include "codegen/codegen.h"
#include "passes/lower.h"

#define LOCAL_BYTES 4096

int64_t codegen_workspace_bytes(enum dtype t, int64_t elements) {
    int64_t bytes = elements * dtype_size(t);
    return bytes <= LOCAL_BYTES ? 0 : (bytes + 63) / 64 * 64;
}

bool codegen_lower_kernel(struct lower *l) {
    static bool (*const kernels[])(struct lower *) = {
#define K(name, text) lower_##name,
#include "codegen/kernels.def"
#undef K
        NULL};
    for (int i = 0; kernels[i]; i++)
        if (kernels[i](l))
            return true;
    return false;
}

struct rehearsal {
    const struct plan_func *plan; /* NULL before there is one: every value has memory of its own */
    struct loop_builder b;
    struct arena arena;
    VEC(struct loop_mem *) mems;
    VEC(const void *) keys; /* of mems: the storage, or the value */
    VEC(struct loop_var *) vars;
    VEC(const struct ir_symbol *) symbols;
    int64_t bytes;
};

static struct loop_mem *rehearse_mem(void *context, const struct ir_value *v) {
    struct rehearsal *r = context;
    const void *key = r->plan && r->plan->of_value[v->id] ? (const void *)r->plan->of_value[v->id] : v;
    for (int i = 0; i < r->mems.n; i++)
        if (r->keys.at[i] == key && r->mems.at[i]->dtype == v->type.dtype)
            return r->mems.at[i];
    struct loop_mem *m = loop_mem_new(&r->b, v->name, v->type.dtype, MEM_POINTER);
    VEC_PUSH(&r->arena, r->mems, m);
    VEC_PUSH(&r->arena, r->keys, key);
    return m;
}

static lx rehearse_symbol(void *context, const struct ir_symbol *s) {
    struct rehearsal *r = context;
    for (int i = 0; i < r->vars.n; i++)
        if (r->symbols.at[i] == s)
            return lx_var(&r->b, r->vars.at[i]);
    struct loop_var *v = loop_var_new(&r->b, s->name, I64, 1);
    VEC_PUSH(&r->arena, r->vars, v);
    VEC_PUSH(&r->arena, r->symbols, s);
    return lx_var(&r->b, v);
}

static struct loop_mem *rehearse_workspace(void *context, struct loop_block *out, const char *name, enum dtype t,
                                           int64_t elements) {
    struct rehearsal *r = context;
    r->bytes += codegen_workspace_bytes(t, elements);
    return loop_mem_new(&r->b, name, t, MEM_POINTER);
}

static struct loop_func *rehearse_shared(void *context, const char *key) {
    return NULL;
}

static void rehearse_share(void *context, const char *key, struct loop_func *f) {
}

int64_t codegen_workspace(const struct compile_options *o, const struct plan_func *p, struct ir_op *op) {
    if (op->code == OP_sort) {
        int64_t length = ir_dim_upper(op->operands[0]->type.dims[op->sort.axis]);
        return 2 * codegen_workspace_bytes(I64, length);
    }
    if (op->code != OP_nest || op->nest.reds == 0)
        return 0;
    struct rehearsal r = {.plan = p};
    struct loop_block k;
    r.b.arena = &r.arena;
    loop_block_init(&k);
    struct lower l = {.module = op->parent->func->module,
                      .b = &r.b,
                      .options = o,
                      .op = op,
                      .out = &k,
                      .mem = rehearse_mem,
                      .symbol = rehearse_symbol,
                      .workspace = rehearse_workspace,
                      .shared = rehearse_shared,
                      .share = rehearse_share,
                      .context = &r};
    int64_t bytes = codegen_lower_kernel(&l) ? r.bytes : 0;
    arena_free(&r.arena);
    return bytes;
}
