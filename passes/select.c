/* Which kernels stay. Products and convolutions are recognised by the structure of nests, whoever wrote them, so a kernel becomes its
 * definition here unless the target has one of its own for it (a row of codegen/kernels.def): that one loses its definition and is from
 * now on an operation like any other. Recomputed regions have served their purpose as barriers to common
 * subexpression elimination, and `stop` is the identity once no gradient is left. */

#include "passes/passes.h"
#include "passes/simplify_internal.h"

struct selection {
    const struct pass_context *context;
    struct arena scratch;
    bool checkpoints; /* expand them, too */
    VEC(struct ir_op *) ops;
};

/* The first positions of an axis of v, if that is all that it is: `a[:, :n]`. NULL: it is more, or less. */
static struct ir_value *whole_of(const struct ir_value *v) {
    const struct ir_op *op = v->op;
    int rank = v->type.rank;
    if (!op || op->code != OP_nest || op->result_count != 1 || op->nest.reds || op->nest.results[0].base >= 0)
        return NULL;
    ir_expr e = op->nest.results[0].value;
    if (e->kind != X_LOAD || e->guarded || op->operands[e->index]->type.rank != rank)
        return NULL;
    struct ir_value *from = op->operands[e->index];
    for (int d = 0; d < rank; d++)
        if (e->args[d]->kind != X_INDEX || e->args[d]->index != d ||
            (d != rank - 2 && from->type.dims[d] != v->type.dims[d]))
            return NULL;
    return from;
}

/* Keys and values of a cache are read in place: as far as they are filled. */
static void read_in_place(struct ir_op *op) {
    struct ir_value *from[2] = {whole_of(op->operands[1]), whole_of(op->operands[2])};
    if (!from[0] || !from[1])
        return;
    op->kernel.limit = op->operands[1]->type.dims[op->operands[1]->type.rank - 2];
    for (int i = 0; i < 2; i++)
        op->operands[1 + i] = from[i];
}

static void find(struct ir_op *op, void *context) {
    struct selection *s = context;
    if (op->code == OP_kernel && (!op->region_count || pass_own_kernel(s->context, op) == OWN_HERE)) {
        if (op->region_count)
            read_in_place(op);
        op->region_count = 0;
        return;
    }
    if (op->code == OP_kernel || op->code == OP_stop || (s->checkpoints && op->code == OP_checkpoint))
        VEC_PUSH(&s->scratch, s->ops, op);
}

/* One layer of the operations to expand, outermost first; inner ones come again as copies. */
static bool expand_layer(const struct pass_context *c, struct ir_func *f, bool checkpoints) {
    struct selection s = {.context = c, .checkpoints = checkpoints};
    ir_walk_ops(f->body, find, &s);
    VEC(struct ir_op *) outer = {0};
    for (int i = 0; i < s.ops.n; i++) {
        bool inside = false;
        for (int k = outer.n - 1; k >= 0 && !inside; k--)
            for (int r = 0; r < outer.at[k]->region_count && !inside; r++)
                inside = ir_region_contains(outer.at[k]->regions[r], s.ops.at[i]->parent);
        if (!inside)
            VEC_PUSH(&s.scratch, outer, s.ops.at[i]);
    }
    struct ir_value ***yields = ARENA_ARRAY(&s.scratch, struct ir_value **, outer.n + 1);
    for (int i = 0; i < outer.n; i++) {
        struct ir_op *op = outer.at[i];
        yields[i] = ARENA_ARRAY(&s.scratch, struct ir_value *, op->result_count + 1);
        struct ir_builder b = {f->module, f, op->parent, op, op->span};
        if (op->code == OP_stop)
            yields[i][0] = op->operands[0];
        else
            ir_inline_region(&b, op->regions[0], op->operands, yields[i]);
    }
    struct ir_value **map = ARENA_ARRAY(&s.scratch, struct ir_value *, f->value_count + 1);
    for (int i = 0; i < outer.n; i++)
        for (int k = 0; k < outer.at[i]->result_count; k++)
            map[outer.at[i]->results[k]->id] = yields[i][k];
    if (outer.n)
        ir_replace_values(f, map);
    for (int i = 0; i < outer.n; i++)
        ir_op_remove(outer.at[i]);
    bool changed = outer.n > 0;
    arena_free(&s.scratch);
    return changed;
}

bool pass_select(struct pass_context *c) {
    bool changed = false;
    struct ir_module *m = c->module;
    for (int i = 0; i <= m->func_count; i++) {
        struct ir_func *f = i < m->func_count ? m->funcs[i] : m->init;
        if (!f)
            continue;
        while (expand_layer(c, f, false))
            changed = true;
        changed |= simplify_func(f);
        bool recomputed = false;
        while (expand_layer(c, f, true))
            recomputed = true;
        changed |= recomputed;
    }
    return changed;
}
