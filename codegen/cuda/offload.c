/* --memory-limit on a GPU: all that an instance takes of the device's memory counts. Recomputation makes the arena small
 * (passes/memplan/remat.c); where that is not enough, optimizer state moves to pinned memory of the host.
 *
 * Only the update touches such state, each element once: its kernel reads and writes the host's memory itself, over the bus, while
 * kernels on other streams go on. A copy to the device and back around the kernel would move the same bytes, but needs memory for them
 * just where there is too little. State that a function reads again and again, or sums up, stays; so do weights.
 */
#include <stdlib.h>

#include "codegen/cuda/cuda.h"
#include "codegen/cuda/offload.h"
#include "passes/mutation/liveness.h"

enum { LEAST_BYTES = 1 << 14 };

static int64_t aligned(int64_t n) {
    return (n + 255) & ~(int64_t)255;
}

struct search {
    const struct ir_func *func;
    struct ir_buffer **buffer_of; /* [value_count]; before there is a plan: versions of a buffer */
    bool *stays;
    bool changed;
};

static struct ir_buffer *buffer_of(const struct search *s, const struct ir_value *v) {
    return s->buffer_of[v->id];
}

static void follow(struct search *s, const struct ir_value *to, struct ir_buffer *b) {
    if (b && !s->buffer_of[to->id]) {
        s->buffer_of[to->id] = b;
        s->changed = true;
    }
}

/* Which values are versions of a buffer: what is read of it, what is written to it, what updates in place make of these. */
static void spread(struct ir_op *op, void *context) {
    struct search *s = context;
    if (op->code == OP_read)
        follow(s, op->results[0], op->buffer.buffer);
    if (op->code == OP_write)
        follow(s, op->operands[0], op->buffer.buffer);
    if (op->code == OP_nest)
        for (int i = 0; i < op->result_count; i++)
            if (op->nest.results[i].base >= 0)
                follow(s, op->results[i], buffer_of(s, op->operands[op->nest.results[i].base]));
}

struct load {
    int operand;
    bool found;
};

static void see_load(ir_expr e, void *context) {
    struct load *l = context;
    l->found |= e->kind == X_LOAD && e->index == l->operand;
}

/* Whether the operation reads operand i not more than once an element, as far as its form tells: not in a sum's terms. */
static bool reads_once(const struct ir_op *op, int i) {
    struct load l = {.operand = i};
    for (int k = 0; op->code == OP_nest && k < op->nest.acc_count; k++)
        ir_expr_walk(op->nest.accs[k].body, see_load, &l);
    return !l.found && (op->code == OP_nest || op->code == OP_write);
}

static void judge(struct ir_op *op, void *context) {
    struct search *s = context;
    for (int i = 0; i < op->operand_count + op->result_count; i++) {
        const struct ir_value *v = i < op->operand_count ? op->operands[i] : op->results[i - op->operand_count];
        const struct ir_buffer *b = buffer_of(s, v);
        bool once = i < op->operand_count
                        ? reads_once(op, i)
                        : op->code == OP_nest || op->code == OP_read || op->code == OP_const || op->code == OP_rng;
        if (b && (!once || (s->func->is_export && !s->func->is_train && op->code == OP_nest)))
            s->stays[b->id] = true;
    }
    for (int r = 0; op_runs_regions(op) && r < op->region_count; r++)
        for (int i = 0; i < op->regions[r]->yield_count; i++)
            if (buffer_of(s, op->regions[r]->yields[i]))
                s->stays[buffer_of(s, op->regions[r]->yields[i])->id] = true;
}

bool *offload_candidates(struct ir_module *m) {
    bool *stays = ARENA_ARRAY(&m->arena, bool, m->buffer_count + 1);
    for (int i = 0; i < m->buffer_count; i++)
        stays[i] = m->buffers[i]->kind != BUFFER_STATE || ir_type_bytes_upper(m->buffers[i]->type) < LEAST_BYTES;
    for (int i = 0; i <= m->func_count; i++) {
        struct ir_func *f = i < m->func_count ? m->funcs[i] : m->init;
        if (!f)
            continue;
        struct arena scratch = {0};
        struct search s = {.func = f, .stays = stays};
        s.buffer_of = ARENA_ARRAY(&scratch, struct ir_buffer *, f->value_count + 1);
        do {
            s.changed = false;
            ir_walk_ops(f->body, spread, &s);
        } while (s.changed);
        ir_walk_ops(f->body, judge, &s);
        arena_free(&scratch);
    }
    for (int i = 0; i < m->buffer_count; i++)
        stays[i] = !stays[i];
    return stays;
}

int64_t offload_bytes(const struct ir_module *m, const bool *which) {
    int64_t bytes = 0;
    for (int i = 0; i < m->buffer_count; i++)
        if (which && which[i])
            bytes += aligned(ir_type_bytes_upper(m->buffers[i]->type));
    return bytes;
}

/* Largest first: few buffers, long copies. */
bool *offload_choose(struct ir_module *m, const bool *candidates, int64_t needed) {
    bool *chosen = ARENA_ARRAY(&m->arena, bool, m->buffer_count + 1);
    while (needed > 0) {
        int best = -1;
        for (int i = 0; i < m->buffer_count; i++)
            if (candidates[i] && !chosen[i] &&
                (best < 0 || ir_type_bytes_upper(m->buffers[i]->type) > ir_type_bytes_upper(m->buffers[best]->type)))
                best = i;
        if (best < 0)
            break;
        chosen[best] = true;
        needed -= aligned(ir_type_bytes_upper(m->buffers[best]->type));
    }
    return chosen;
}
