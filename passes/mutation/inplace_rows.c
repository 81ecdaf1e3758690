/* The same proof for a `rows` operation: its kernel goes through its nests row by row, and within the row an element belongs to one
 * thread. So a result of elements may take the memory of an operand that nests up to it read at the same element, or, behind a
 * reduction, anywhere in the row: there the lowering lets all threads of the row meet. Later nests must not read it. */
#include "passes/mutation/inplace.h"
#include "passes/nest_edit.h"
#include "passes/rows.h"

struct scan {
    const struct rows_member *reader, *writer;
    const struct ir_op *op; /* the whole */
    const int *content;
    int of;
    bool anywhere; /* in the row, not at the same element alone */
    bool allowed;
};

static bool is_old(const struct scan *s, const struct ir_value *v) {
    const struct ir_region *r = s->op->regions[0];
    for (int i = 0; i < r->arg_count; i++)
        if (r->args[i] == v)
            return s->content[s->op->operands[i]->id] == s->of;
    return false;
}

static void see_load(ir_expr e, void *context) {
    struct scan *s = context;
    const struct ir_nest *read = &s->reader->op->nest, *written = &s->writer->op->nest;
    int own[ROWS_MAX_INDICES], their[ROWS_MAX_INDICES];
    if (e->kind != X_LOAD || !is_old(s, s->reader->op->operands[e->index]))
        return;
    /* The operand's type is the result's: its subscripts are the writer's parallel indices. */
    int count = rows_elements(s->writer, their);
    bool same = rows_elements(s->reader, own) == count;
    for (int d = 0; d < written->pars && s->allowed; d++) {
        int k = rows_index(s->writer, d), i = k >= 0 ? s->reader->of[k] : -1;
        ir_dim extent = written->indices[d].extent;
        if (k < 0 && s->anywhere)
            continue;
        for (int q = 0; k < 0 && q < count && same; q++)
            if (their[q] == d)
                i = own[q];
        s->allowed = i >= 0 && read->indices[i].extent == extent && expr_is_own_index(e->args[d], i, extent);
    }
}

bool inplace_rows_allowed(const struct ir_op *op, int result, const struct ir_value *old, const int *content) {
    struct rows_member members[ROWS_MAX_MEMBERS];
    int count = rows_members(op, members), at = 0;
    const struct ir_value *v = op->regions[0]->yields[result];
    while (at < count && members[at].op != v->op)
        at++;
    if (at == count || rows_has_number(&members[at]) || !ir_type_equal(old->type, v->type))
        return false;
    struct scan s = {.writer = &members[at], .op = op, .content = content, .of = content[old->id], .allowed = true};
    for (int i = 0; i < count && s.allowed; i++) {
        const struct ir_op *x = members[i].op;
        for (int k = 0; i > at && k < x->operand_count; k++)
            if (is_old(&s, x->operands[k]) && nest_loads_slot(x, k))
                return false;
        s.reader = &members[i];
        s.anywhere = rows_has_number(&members[i]);
        for (int k = 0; k < x->result_count; k++)
            ir_expr_walk(x->nest.results[k].value, see_load, &s);
        s.anywhere = false;
        for (int k = 0; k < x->nest.acc_count; k++)
            ir_expr_walk(x->nest.accs[k].body, see_load, &s);
        for (int k = x->nest.pars; k < x->nest.pars + x->nest.reds; k++) {
            ir_expr_walk(x->nest.indices[k].lo, see_load, &s);
            ir_expr_walk(x->nest.indices[k].hi, see_load, &s);
        }
    }
    return s.allowed;
}
