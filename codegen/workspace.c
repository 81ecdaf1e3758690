/* Which kernel takes a nest, and what it works in beside its operands and results: packed panels, sums, offsets. What is small
 * is a local array; the rest has a place in the plan, which asks here before any code is generated. The answer comes from
 * building the kernel, so it cannot differ from what code generation will do.
 */
#include <string.h>

#include "codegen/codegen.h"
#include "passes/gpu.h"
#include "passes/lower.h"

#define LOCAL_BYTES 4096

int64_t codegen_workspace_bytes(const struct compile_options *o, enum dtype t, int64_t elements) {
    if (elements > IR_DIM_LIMIT / dtype_size(t)) /* the plan says that it is too much */
        return IR_DIM_LIMIT;
    int64_t bytes = elements * dtype_size(t);
    /* What one kernel of a GPU leaves for the next is never local. */
    return bytes <= LOCAL_BYTES && o->target == TARGET_C ? 0 : (bytes + 63) / 64 * 64;
}

static const struct function_kernel {
    enum target_kind target;
    const char *function;
    bool (*takes)(const struct compile_options *, const struct ir_op *);
    void (*lower)(struct lower *);
} function_kernels[] = {
#define K(name, target, text)
#define F(function, target, name, text) {TARGET_##target, #function, takes_##name, lower_##name},
#include "codegen/kernels.def"
#undef F
#undef K
};

enum own_kernel codegen_own_kernel(const struct compile_options *o, const struct ir_op *kernel) {
    enum own_kernel found = OWN_NONE;
    for (size_t i = 0; i < sizeof function_kernels / sizeof *function_kernels; i++)
        if (!strcmp(function_kernels[i].function, kernel->name)) {
            if (function_kernels[i].target == o->target && function_kernels[i].takes(o, kernel))
                return OWN_HERE;
            found = OWN_ELSEWHERE;
        }
    return found;
}

static void lower_function(struct lower *l) {
    if (codegen_own_kernel(l->options, l->op) != OWN_HERE)
        return; /* code generation says so */
    for (size_t i = 0; i < sizeof function_kernels / sizeof *function_kernels; i++)
        if (function_kernels[i].target == l->options->target && !strcmp(function_kernels[i].function, l->op->name)) {
            function_kernels[i].lower(l);
            return;
        }
}

void codegen_lower(struct lower *l) {
    static const struct {
        enum target_kind target;
        bool (*lower)(struct lower *);
    } kernels[] = {
#define K(name, target, text) {TARGET_##target, lower_##name},
#define F(function, target, name, text)
#include "codegen/kernels.def"
#undef F
#undef K
    };
    if (l->op->code == OP_kernel) {
        lower_function(l);
        return;
    }
    if (l->op->code == OP_rows) {
        lower_gpu_rows(l);
        return;
    }
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (kernels[i].target == l->options->target && kernels[i].lower(l))
            return;
    if (l->options->target == TARGET_CUDA)
        lower_gpu_nest(l);
    else
        lower_nest(l);
}

struct rehearsal {
    const struct compile_options *options;
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
    r->bytes += codegen_workspace_bytes(r->options, t, elements);
    return loop_mem_new(&r->b, name, t, MEM_POINTER);
}

static struct loop_func *rehearse_shared(void *context, const char *key) {
    return NULL;
}

static void rehearse_share(void *context, const char *key, struct loop_func *f) {
}

static int64_t scan_rows(const struct ir_op *op) {
    struct ir_type t = op->operands[0]->type;
    double rows = 1;
    for (int d = 0; d < t.rank; d++)
        rows *= d == op->scan.axis ? 1 : (double)ir_dim_upper(t.dims[d]);
    return rows < 1e15 ? (int64_t)rows : (int64_t)1e15;
}

int64_t codegen_scan_parts(const struct compile_options *o, const struct ir_op *op) {
    enum { MOST = 1024, THREADS = 1 << 14, LEAST = 64 };
    int64_t length = ir_dim_upper(op->operands[0]->type.dims[op->scan.axis]), parts = 1;
    while (o->target == TARGET_CUDA && parts < MOST && parts * scan_rows(op) < THREADS && length / (2 * parts) >= LEAST)
        parts *= 2;
    return parts;
}

int64_t codegen_workspace(const struct compile_options *o, const struct plan_func *p, struct ir_op *op) {
    if (op->code == OP_sort) {
        int64_t length = ir_dim_upper(op->operands[0]->type.dims[op->sort.axis]);
        if (o->target == TARGET_CUDA) /* all rows at once */
            length = ir_dim_upper(ir_type_elements(op->parent->func->module, op->operands[0]->type));
        return 2 * codegen_workspace_bytes(o, I64, length);
    }
    if (op->code == OP_scan && codegen_scan_parts(o, op) > 1) {
        enum dtype t = op->operands[0]->type.dtype;
        return codegen_workspace_bytes(o, t == F16 || t == BF16 ? F32 : t, codegen_scan_parts(o, op) * scan_rows(op));
    }
    if (op->code != OP_kernel && (op->code != OP_nest || op->nest.reds == 0))
        return 0;
    struct rehearsal r = {.options = o, .plan = p};
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
    codegen_lower(&l);
    arena_free(&r.arena);
    return r.bytes;
}
