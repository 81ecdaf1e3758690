/* Calls of libraries, and what follows them: see library_call.h. */
#include "codegen/kernels/library_call.h"
#include "passes/gpu.h"

void library_call(struct lower *l, const char *function, const lx *numbers, int count,
                  const struct library_memory *memories, int memory_count) {
    struct loop_builder *b = l->b;
    struct loop_func *f = ARENA_NEW(b->arena, struct loop_func);
    *f = (struct loop_func){.name = function, .is_helper = true, .mem_count = memory_count, .var_count = count};
    f->mems = ARENA_ARRAY(b->arena, struct loop_mem *, memory_count);
    struct loop_stmt *call = loop_call(b, NULL, f);
    for (int i = 0; i < memory_count; i++) {
        f->mems[i] = loop_mem_new(b, "operand", memories[i].mem->dtype, MEM_PARAM);
        call->call_mems[i].mem = memories[i].mem;
        call->call_mems[i].offset = memories[i].offset ? memories[i].offset : lx_int(b, 0);
    }
    for (int i = 0; i < count; i++)
        call->call_args[i] = numbers[i];
    loop_append(l->out, call);
}

void library_finish(struct lower *l, struct loop_mem *sums) {
    const struct ir_op *op = l->op;
    const struct ir_nest *nest = &op->nest;
    struct loop_builder *b = l->b;
    ir_dim all = ir_dim_const(l->module, 1);
    for (int i = 0; i < nest->pars; i++)
        all = ir_dim_mul(l->module, all, nest->indices[i].extent);
    struct gpu_each each = gpu_open_each(b, l->out, lx_dim(b, all, l->symbol, l->context), ir_dim_upper(all), "i");
    struct nest_scope *scope = arena_alloc(b->arena, sizeof *scope);
    nest_scope_init(scope, l);
    nest_scope_enter(scope, 0, each.body, true);
    lx at = each.at;
    for (int i = nest->pars; i-- > 0;) {
        lx extent = nest_dim(scope, nest->indices[i].extent);
        nest_scope_set(scope, i, gpu_named(b, each.body, nest->indices[i].name, i ? lx_mod(b, at, extent) : at), 0);
        if (i)
            at = gpu_named(b, each.body, "rest", lx_div(b, at, extent));
    }
    lx sum = lx_load(b, sums, each.at, 1);
    enum dtype wide = nest->accs[0].body->dtype;
    scope->acc[0] = sums->dtype == wide ? sum : lx_cast(b, wide, sum);
    lx *values = ARENA_ARRAY(b->arena, lx, op->result_count);
    for (int i = 0; i < op->result_count; i++) { /* all before the first store: a result may lie where an operand did */
        values[i] = nest_value(scope, nest->results[i].value);
        if (op->result_count > 1)
            values[i] = gpu_named(b, each.body, "value", values[i]);
    }
    for (int i = 0; i < op->result_count; i++)
        nest_store(scope, i, values[i]);
    gpu_close_each(&each);
}
