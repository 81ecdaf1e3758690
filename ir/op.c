/* Operations as linked list nodes: the operator table, making, unlinking and moving them.
 *
 * A region holds its operations in a doubly linked list, so that a pass may insert and remove while it walks. Operand and
 * result arrays live in the module's arena and are replaced when they grow; nobody may rely on spare capacity in them,
 * because passes install arrays of their own.
 */
#include <assert.h>
#include <string.h>

#include "ir/ir.h"

const struct ir_opinfo ir_optable[OP_COUNT] = {
#define N(name, effect, text) [OP_##name] = {#name, EFFECT_##effect, text},
#include "ir/node.def"
#undef N
};

const char *const reduce_names[RED_COUNT] = {
    [RED_SUM] = "sum", [RED_PROD] = "prod", [RED_MAX] = "max",       [RED_MIN] = "min",
    [RED_ANY] = "any", [RED_ALL] = "all",   [RED_ARGMAX] = "argmax", [RED_ARGMIN] = "argmin",
};

const char *const rows_by_names[ROWS_BY_COUNT] = {"threads", "warps", "blocks"};

static void link_op(struct ir_op *op, struct ir_region *region, struct ir_op *before) {
    assert(!before || before->parent == region);
    op->parent = region;
    op->next = before;
    op->prev = before ? before->prev : region->last;
    if (op->prev)
        op->prev->next = op;
    else
        region->first = op;
    if (before)
        before->prev = op;
    else
        region->last = op;
}

static void unlink_op(struct ir_op *op) {
    struct ir_region *region = op->parent;
    if (!region)
        return;
    if (op->prev)
        op->prev->next = op->next;
    else
        region->first = op->next;
    if (op->next)
        op->next->prev = op->prev;
    else
        region->last = op->prev;
    op->prev = op->next = NULL;
    op->parent = NULL;
}

struct ir_op *ir_op_new(struct ir_builder *b, enum ir_opcode code, struct ir_value **operands, int n, int regions) {
    struct arena *arena = &b->module->arena;
    struct ir_op *op = ARENA_NEW(arena, struct ir_op);
    op->code = code;
    op->span = b->span;
    op->operand_count = n;
    if (n > 0) {
        op->operands = ARENA_ARRAY(arena, struct ir_value *, n);
        memcpy(op->operands, operands, sizeof *operands * (size_t)n);
    }
    op->region_count = regions;
    if (regions > 0) {
        op->regions = ARENA_ARRAY(arena, struct ir_region *, regions);
        for (int i = 0; i < regions; i++)
            op->regions[i] = ir_region_new(b->func, op);
    }
    link_op(op, b->region, b->before);
    return op;
}

struct ir_value *ir_op_result(struct ir_op *op, struct ir_type t) {
    struct ir_func *f = op->parent->func;
    struct arena *arena = &f->module->arena;
    struct ir_value *v = ARENA_NEW(arena, struct ir_value);
    v->id = f->value_count++;
    v->type = t;
    v->op = op;
    v->index = op->result_count;
    v->span = op->span;
    struct ir_value **results = ARENA_ARRAY(arena, struct ir_value *, op->result_count + 1);
    if (op->result_count > 0)
        memcpy(results, op->results, sizeof *results * (size_t)op->result_count);
    results[op->result_count++] = v;
    op->results = results;
    return v;
}

void ir_op_remove(struct ir_op *op) {
    unlink_op(op);
}

void ir_op_move(struct ir_op *op, struct ir_region *region, struct ir_op *before) {
    if (op == before)
        return;
    unlink_op(op);
    link_op(op, region, before);
}

void ir_op_move_before(struct ir_op *op, struct ir_op *before) {
    ir_op_move(op, before->parent, before);
}

int ir_op_add_operand(struct ir_op *op, struct ir_value *v) {
    for (int i = 0; i < op->operand_count; i++)
        if (op->operands[i] == v)
            return i;
    struct arena *arena = &op->parent->func->module->arena;
    struct ir_value **operands = ARENA_ARRAY(arena, struct ir_value *, op->operand_count + 1);
    if (op->operand_count > 0)
        memcpy(operands, op->operands, sizeof *operands * (size_t)op->operand_count);
    operands[op->operand_count] = v;
    op->operands = operands;
    return op->operand_count++;
}

int ir_print_piece(const char **text, const char **piece) {
    const char *s = *text;
    if (!*s)
        return 0;
    if (s[0] == '{' && s[1] == '}') {
        *text = s + 2;
        return IR_PRINT_OPERAND;
    }
    *piece = s;
    if (s[0] == '{') {
        *text = s + 1 + (s[1] == '{');
        return 1;
    }
    int n = (int)strcspn(s, "{");
    *text = s + n;
    return n;
}
