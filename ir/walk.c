/* Walking functions, counting and replacing uses.
 *
 * Recursion is over nested regions only, whose depth the text form's reader and elaboration bound.
 */

#include "ir/ir.h"

void ir_walk_ops(struct ir_region *r, void (*fn)(struct ir_op *, void *), void *context) {
    struct ir_op *next;
    for (struct ir_op *op = r->first; op; op = next) {
        next = op->next; /* fn may unlink op */
        fn(op, context);
        if (op->parent != r)
            continue;
        for (int i = 0; i < op->region_count; i++)
            ir_walk_ops(op->regions[i], fn, context);
    }
}

/* ---- uses ------------------------------------------------------------------------------------------------------- */

static void count_region(const struct ir_region *r, int *uses) {
    for (const struct ir_op *op = r->first; op; op = op->next) {
        for (int i = 0; i < op->operand_count; i++)
            uses[op->operands[i]->id]++;
        for (int i = 0; i < op->region_count; i++)
            count_region(op->regions[i], uses);
    }
    for (int i = 0; i < r->yield_count; i++)
        uses[r->yields[i]->id]++;
}

int *ir_count_uses(struct ir_func *f, struct arena *scratch) {
    int *uses = ARENA_ARRAY(scratch, int, f->value_count);
    count_region(f->body, uses);
    return uses;
}

/* The end of the chain from v; the links passed are shortened, so that many uses of a long chain stay linear. */
static struct ir_value *resolve(struct ir_value *v, struct ir_value **map) {
    struct ir_value *end = v;
    while (map[end->id])
        end = map[end->id];
    while (v != end) {
        struct ir_value *next = map[v->id];
        map[v->id] = end;
        v = next;
    }
    return end;
}

static void replace_region(struct ir_region *r, struct ir_value **map) {
    for (struct ir_op *op = r->first; op; op = op->next) {
        for (int i = 0; i < op->operand_count; i++)
            op->operands[i] = resolve(op->operands[i], map);
        for (int i = 0; i < op->region_count; i++)
            replace_region(op->regions[i], map);
    }
    for (int i = 0; i < r->yield_count; i++)
        r->yields[i] = resolve(r->yields[i], map);
}

void ir_replace_values(struct ir_func *f, struct ir_value **map) {
    replace_region(f->body, map);
}

/* ---- where things are ------------------------------------------------------------------------------------------- */

bool ir_region_contains(const struct ir_region *outer, const struct ir_region *inner) {
    while (inner && inner != outer)
        inner = inner->op ? inner->op->parent : NULL;
    return inner != NULL;
}

bool ir_value_defined_in(const struct ir_value *v, const struct ir_region *r) {
    return ir_region_contains(r, v->op ? v->op->parent : v->region);
}
