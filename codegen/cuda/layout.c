/* Where things lie on the device: buffers, then the arena of the same plan as C's, the cache of incremental functions, scalars, and
 * the arguments and results of the function that runs. One piece of memory, allocated once.
 *
 * A scalar (rank 0) lives on the host if everything that makes it does: loop counters, arguments, arithmetic on them. It then costs
 * no launch, and branches and loops on it no wait. One value from the device in its making, and it lives there. Found by iteration
 * to a fixed point, since loops carry values round.
 */
#include "codegen/cuda/cuda.h"
#include "codegen/cuda/offload.h"

static int64_t aligned(int64_t n) {
    return (n + 255) & ~(int64_t)255;
}

/* ---- scalars ---------------------------------------------------------------------------------------------------------- */

struct scan {
    const struct plan_func *plan;
    bool *device; /* [storage_count] */
    bool changed;
};

static bool on_device(const struct scan *c, const struct ir_value *v) {
    const struct storage *s = c->plan->of_value[v->id];
    if (v->type.rank)
        return true;
    if (!s || (v->op && (v->op->code == OP_const || v->op->code == OP_check)))
        return s && s->kind == STORAGE_SCALAR && c->device[s->id];
    switch (s->kind) {
    case STORAGE_SCALAR: return c->device[s->id];
    case STORAGE_ARG: return c->plan->func->arg_inout && c->plan->func->arg_inout[s->index];
    case STORAGE_CONST: return false;
    default: return true;
    }
}

static void move(struct scan *c, const struct ir_value *v, bool device) {
    const struct storage *s = c->plan->of_value[v->id];
    if (!device || !s || s->kind != STORAGE_SCALAR || c->device[s->id])
        return;
    c->device[s->id] = true;
    c->changed = true;
}

static void follow(struct scan *c, const struct ir_value *to, const struct ir_value *from) {
    move(c, to, on_device(c, from));
}

static void see(struct ir_op *op, void *context) {
    struct scan *c = context;
    bool device = op->code == OP_kernel || op->code == OP_rows || op->code == OP_rng || op->code == OP_sort ||
                  op->code == OP_scan || op->code == OP_read;
    switch (op->code) {
    case OP_nest:
        for (int i = 0; i < op->operand_count; i++)
            device |= on_device(c, op->operands[i]);
        for (int i = 0; i < op->result_count; i++)
            device |= on_device(c, op->results[i]);
        break;
    case OP_reshape:
    case OP_stop: device = on_device(c, op->operands[0]); break;
    case OP_if:
        for (int r = 0; r < 2; r++)
            for (int i = 0; i < op->result_count; i++)
                follow(c, op->results[i], op->regions[r]->yields[i]);
        break;
    case OP_for: {
        const struct ir_region *body = op->regions[0];
        for (int i = 0; i + 1 < body->arg_count; i++) {
            follow(c, body->args[1 + i], op->operands[2 + i]);
            follow(c, body->args[1 + i], body->yields[i]);
            follow(c, op->results[i], body->args[1 + i]);
        }
        break;
    }
    case OP_while: {
        const struct ir_region *cond = op->regions[0], *body = op->regions[1];
        for (int i = 0; i < cond->arg_count; i++) {
            follow(c, cond->args[i], op->operands[i]);
            follow(c, body->args[i], cond->args[i]);
            follow(c, body->args[i], body->yields[i]);
            follow(c, cond->args[i], body->args[i]);
            follow(c, op->results[i], cond->args[i]);
        }
        break;
    }
    default: break;
    }
    for (int i = 0; i < op->result_count; i++)
        move(c, op->results[i], device);
}

int *cuda_scalar_slots(struct cgen *g, const struct plan_func *p, int *count) {
    struct scan c = {.plan = p, .device = ARENA_ARRAY(&g->arena, bool, p->storage_count + 1)};
    int *slots = ARENA_ARRAY(&g->arena, int, p->storage_count + 1);
    do {
        c.changed = false;
        ir_walk_ops(p->func->body, see, &c);
    } while (c.changed);
    *count = 0;
    for (int i = 0; i < p->storage_count; i++) {
        const struct storage *s = p->storages[i];
        slots[s->id] = c.device[s->id] ? (*count)++ : -1;
    }
    return slots;
}

/* ---- arguments and results ---------------------------------------------------------------------------------------------- */

int64_t cuda_argument_offset(struct cgen *g, const struct ir_func *f, bool result, int index) {
    int64_t at = 0;
    for (int i = 0; i < f->body->arg_count && (result || i < index); i++)
        at += cuda_averaged_argument(g, f, i) ? 0 : aligned(ir_type_bytes_upper(f->body->args[i]->type));
    for (int i = 0; result && i < index; i++)
        at += aligned(ir_type_bytes_upper(f->body->yields[i]->type));
    return at;
}

/* Of a function's tensors. */
static int64_t ahead_bytes(const struct ir_func *f) {
    int64_t bytes = 0;
    for (int i = 0; i < f->body->arg_count; i++)
        if (f->body->args[i]->type.rank > 0 && !(f->arg_inout && f->arg_inout[i]))
            bytes += aligned(ir_type_bytes_upper(f->body->args[i]->type));
    return bytes;
}

static void see_staging(struct ir_op *op, void *context) {
    int64_t *most = context, bytes = 0;
    if (op->code != OP_print && op->code != OP_extern)
        return;
    for (int i = 0; i < op->operand_count; i++)
        bytes += aligned(ir_type_bytes_upper(op->operands[i]->type));
    for (int i = 0; i < op->result_count; i++)
        bytes += aligned(ir_type_bytes_upper(op->results[i]->type));
    *most = bytes > *most ? bytes : *most;
}

struct cuda *cuda_layout(struct cgen *g) {
    struct cuda *d = ARENA_NEW(&g->arena, struct cuda);
    const struct ir_module *m = g->module;
    int64_t at = 0, arguments = 0;
    int scalars = 0;
    struct {
        bool any;
        int64_t arena, arguments;
        int scalars;
    } inner = {0};
    d->buffer = ARENA_ARRAY(&g->arena, int64_t, m->buffer_count + 1);
    d->is_outside = g->plan->is_offloaded;
    for (int i = 0; i < m->buffer_count; i++) {
        int64_t *end = d->is_outside && d->is_outside[i] ? &d->outside : &at;
        d->buffer[i] = *end;
        *end += aligned(ir_type_bytes_upper(m->buffers[i]->type));
    }
    d->arena = at;
    d->cache = d->arena + aligned(g->plan->arena_bytes);
    d->scalars = d->cache + aligned(g->plan->cache_bytes);
    for (int i = 0; i < g->plan->func_count; i++) {
        const struct plan_func *p = &g->plan->funcs[i];
        int count;
        if (!p->func)
            continue;
        cuda_scalar_slots(g, p, &count);
        int64_t bytes = cuda_argument_offset(g, p->func, true, p->func->result_count);
        if (cuda_is_inner(g, p->func)) {
            inner.any = true;
            inner.arena = p->arena_bytes > inner.arena ? p->arena_bytes : inner.arena;
            inner.scalars = count > inner.scalars ? count : inner.scalars;
            inner.arguments = bytes > inner.arguments ? bytes : inner.arguments;
        } else {
            scalars = count > scalars ? count : scalars;
            arguments = bytes > arguments ? bytes : arguments;
        }
        bytes = ahead_bytes(p->func);
        if (g->options->with_main && p->func->is_export && bytes > d->ahead_bytes)
            d->ahead_bytes = bytes;
        ir_walk_ops(p->func->body, see_staging, &d->staging);
    }
    d->values = d->scalars + aligned(16 * (int64_t)scalars);
    d->arguments = d->values + aligned(8 * CUDA_VALUES);
    d->inner_arena = d->total = d->arguments + aligned(arguments) + 256;
    if (inner.any) {
        d->inner_scalars = d->inner_arena + aligned(inner.arena);
        d->inner_arguments = d->inner_scalars + aligned(16 * (int64_t)inner.scalars);
        d->total = d->inner_arguments + aligned(inner.arguments) + 256;
    }
    for (int i = 0; i < 2 && d->ahead_bytes; i++) {
        d->ahead[i] = d->total;
        d->total += d->ahead_bytes;
    }
    return d;
}

int64_t cuda_device_bytes(struct ir_module *m, struct plan *p, const struct compile_options *o) {
    struct cgen g = {.module = m, .plan = p, .options = o};
    int64_t total = cuda_layout(&g)->total;
    arena_free(&g.arena);
    return total;
}

int64_t cuda_fixed_bytes(struct ir_module *m, const struct compile_options *o) {
    enum { SCALARS = 4096 };
    struct cgen g = {.module = m, .options = o};
    int64_t bytes = aligned(8 * CUDA_VALUES) + SCALARS + 256, arguments = 0, ahead = 0;
    for (int i = 0; i < m->buffer_count; i++)
        bytes += aligned(ir_type_bytes_upper(m->buffers[i]->type));
    for (int i = 0; i < m->func_count; i++) {
        int64_t own = cuda_argument_offset(&g, m->funcs[i], true, m->funcs[i]->result_count);
        int64_t next = o->with_main && m->funcs[i]->is_export ? ahead_bytes(m->funcs[i]) : 0;
        arguments = own > arguments ? own : arguments;
        ahead = next > ahead ? next : ahead;
    }
    return bytes + arguments + 2 * ahead;
}
