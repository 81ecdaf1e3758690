/* The parts that kernels of a GPU are made of: see gpu.h. */
#include "passes/gpu.h"

struct gpu_kernel gpu_open(struct loop_builder *b, struct loop_block *out, lx blocks, int threads) {
    struct gpu_kernel k = {.b = b, .count = threads};
    struct loop_var *block = loop_var_new(b, "block", I64, 1), *thread = loop_var_new(b, "thread", I64, 1);
    k.grid = loop_for(b, out, block, lx_int(b, 0), blocks, 1, LOOP_GRID);
    k.threads = loop_for(b, &k.grid->body, thread, lx_int(b, 0), lx_int(b, threads), 1, LOOP_THREADS);
    k.body = &k.threads->body;
    k.block = lx_var(b, block);
    k.thread = lx_var(b, thread);
    return k;
}

struct loop_mem *gpu_shared(struct gpu_kernel *k, const char *name, enum dtype t, int64_t count) {
    struct loop_mem *m = loop_mem_new(k->b, name, t, MEM_SHARED);
    struct loop_block front;
    m->count = count;
    m->written = true;
    loop_block_init(&front);
    loop_local(k->b, &front, m);
    /* Before the threads, which are the last statement of the block. */
    front.first->next = k->grid->body.first;
    k->grid->body.first = front.first;
    return m;
}

lx gpu_ceil_div(struct loop_builder *b, lx n, int64_t by) {
    return lx_div(b, lx_add(b, n, lx_int(b, by - 1)), lx_int(b, by));
}

lx gpu_named(struct loop_builder *b, struct loop_block *k, const char *name, lx e) {
    if (e->kind == LX_VAR || e->kind == LX_INT || e->kind == LX_CONST)
        return e;
    struct loop_var *v = loop_var_new(b, name, e->dtype, e->lanes);
    loop_def(b, k, v, e);
    return lx_var(b, v);
}

struct gpu_each gpu_open_each(struct loop_builder *b, struct loop_block *out, lx n, int64_t upper, const char *name) {
    int64_t most = (upper + GPU_THREADS - 1) / GPU_THREADS, exact;
    bool again = most > GPU_BLOCKS;
    lx blocks = gpu_ceil_div(b, n, GPU_THREADS);
    if (again)
        blocks = lx_min(b, blocks, lx_int(b, GPU_BLOCKS));
    struct gpu_each e = {.k = gpu_open(b, out, blocks, GPU_THREADS)};
    lx first = lx_add(b, lx_mul(b, e.k.block, lx_int(b, GPU_THREADS)), e.k.thread);
    if (again) {
        struct loop_var *v = loop_var_new(b, name, I64, 1);
        e.around = loop_for(b, NULL, v, first, n, (int64_t)GPU_BLOCKS * GPU_THREADS, LOOP_SERIAL);
        e.at = lx_var(b, v);
        e.body = &e.around->body;
        return e;
    }
    e.at = gpu_named(b, e.k.body, name, first);
    e.body = e.k.body;
    if (!lx_is_int(n, &exact) || exact % GPU_THREADS != 0) {
        e.around = loop_if(b, NULL, lx_op(b, I_LT, e.at, n));
        e.body = &e.around->body;
    }
    return e;
}

void gpu_close_each(struct gpu_each *e) {
    if (e->around)
        loop_append(e->k.body, e->around);
}
