/* Launches that are one: the updates of all small parameters, and whatever else only leaves something behind for the end of the
 * function. Decided here, on the final order and behind the memory plan, because dependences then tell the whole truth: two
 * operations go together if none between them depends on the one that waits, be it for a value, for the version that it overwrites, or
 * because the plan has given its operands' bytes to another value. So waiting never asks for more memory than was planned
 * (placement keeps gradients of small updates where that costs nothing: passes/memplan/place.c).
 *
 * The blocks of the kernel are dealt to the operations in ranges; each keeps its own code and its own arguments. What is waited for by
 * another operation is launched at once: putting it off would make the way to the result longer.
 */
#include "codegen/cuda/cuda.h"
#include "passes/gpu.h"
#include "passes/memplan/late.h"

enum {
    MAX_TOGETHER = 32,
    MAX_POINTERS = 400, /* kernels have 4 KB of arguments on old GPUs */
};

static int pointers_of(const struct ir_op *op) {
    return op->operand_count + op->result_count + 2;
}

struct pending {
    VEC(int) ops;
    int pointers;
};

static struct cuda_unit *unit_new(struct function *f, int count) {
    struct cuda_unit *u = ARENA_NEW(&f->g->arena, struct cuda_unit);
    u->ops = ARENA_ARRAY(&f->g->arena, struct ir_op *, count);
    u->count = count;
    return u;
}

struct cuda_unit **cuda_units(struct function *f, struct ir_op *const *ops, int count, int *units) {
    struct arena scratch = {0};
    struct cuda_unit **single = ARENA_ARRAY(&scratch, struct cuda_unit *, count + 1), **all = NULL;
    struct pending late = {0};
    *units = 0;
    all = ARENA_ARRAY(&f->g->arena, struct cuda_unit *, count + 1);
    for (int i = 0; i < count; i++) {
        single[i] = unit_new(f, 1);
        single[i]->ops[0] = ops[i];
    }
    int *uses = plan_inner_uses(f->plan->func, &scratch), several = 0;
    bool *is_late = ARENA_ARRAY(&scratch, bool, count + 1);
    for (int i = 0; i < count; i++)
        several += is_late[i] = plan_is_late(ops[i], uses);
    bool *after = several > 1 ? cuda_after(f, single, count, &scratch) : NULL;
    for (int i = 0; i <= count; i++) {
        bool waits = after && is_late[i];
        bool flush =
            i == count || late.ops.n == MAX_TOGETHER || (waits && late.pointers + pointers_of(ops[i]) > MAX_POINTERS);
        for (int k = 0; k < late.ops.n && !flush; k++)
            flush = after[(size_t)i * (size_t)count + (size_t)late.ops.at[k]];
        if (flush && late.ops.n) {
            struct cuda_unit *u = all[(*units)++] = unit_new(f, late.ops.n);
            for (int k = 0; k < late.ops.n; k++)
                u->ops[k] = ops[late.ops.at[k]];
            late.ops.n = late.pointers = 0;
        }
        if (i == count)
            break;
        if (waits) {
            VEC_PUSH(&scratch, late.ops, i);
            late.pointers += pointers_of(ops[i]);
        } else {
            all[(*units)++] = single[i];
        }
    }
    arena_free(&scratch);
    return all;
}

/* ---- the kernel --------------------------------------------------------------------------------------------------- */

static struct loop_stmt *threads_of(const struct loop_stmt *grid) {
    struct loop_stmt *s = grid->body.first;
    while (s && s->loop != LOOP_THREADS)
        s = s->next;
    return s;
}

/* The grid that the block is, if it is one of the usual number of threads. */
static struct loop_stmt *only_grid(const struct loop_block *k) {
    int64_t threads;
    struct loop_stmt *s = k->first;
    if (!s || s->next || s->kind != LS_FOR || s->loop != LOOP_GRID || !lx_is_int(threads_of(s)->hi, &threads) ||
        threads != GPU_THREADS)
        return NULL;
    return s;
}

/* Moves a grid's kernel into `body` for blocks from `first` on, its shared memory in front of the threads. */
static void take_in(struct loop_builder *b, struct gpu_kernel *k, struct loop_stmt *grid, lx first, lx end) {
    struct loop_stmt *threads = threads_of(grid), *inside;
    struct loop_block front;
    int64_t lo, hi;
    loop_block_init(&front);
    for (struct loop_stmt *s = grid->body.first, *next; s != threads; s = next) {
        next = s->next;
        s->next = NULL;
        loop_append(&front, s);
    }
    if (front.first) {
        *front.last = k->grid->body.first;
        k->grid->body.first = front.first;
    }
    lx mine = lx_op(b, I_LT, k->block, end);
    if (!lx_is_int(first, &lo) || lo)
        mine = lx_op(b, I_AND, lx_op(b, I_LE, first, k->block), mine);
    inside = loop_if(b, k->body, mine);
    if (lx_range(grid->hi, &lo, &hi))
        loop_var_bound(grid->var, 0, hi > 0 ? hi - 1 : 0);
    loop_def(b, &inside->body, grid->var, lx_sub(b, k->block, first));
    loop_def(b, &inside->body, threads->var, k->thread);
    loop_append_block(&inside->body, &threads->body);
}

void cuda_launch_together(struct function *f, const struct cuda_unit *u) {
    struct loop_builder *b = f->b;
    struct loop_block *blocks = ARENA_ARRAY(&f->g->arena, struct loop_block, u->count), out;
    int id = b->next_id;
    bool single = true;
    lx all = lx_int(b, 0);
    function_begin(f);
    f->together = u;
    for (int i = 0; i < u->count; i++) {
        f->op = u->ops[i];
        f->workspace = 0;
        function_comment(f, u->ops[i]);
        loop_block_init(&blocks[i]);
        function_lower(f, u->ops[i], &blocks[i]);
        single &= only_grid(&blocks[i]) != NULL;
    }
    f->op = u->ops[0];
    loop_block_init(&out);
    if (single) {
        struct gpu_kernel k = gpu_open(b, &out, all, GPU_THREADS);
        for (int i = 0; i < u->count; i++) {
            struct loop_stmt *grid = only_grid(&blocks[i]);
            lx end = lx_add(b, all, grid->hi);
            take_in(b, &k, grid, all, end);
            all = end;
        }
        k.grid->hi = all;
    } else {
        for (int i = 0; i < u->count; i++)
            loop_append_block(&out, &blocks[i]);
    }
    loop_drop_unused(b, &out, id);
    function_finish(f, &out);
    f->together = NULL;
}
