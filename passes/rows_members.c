/* How nests lie over rows: see rows.h. Everything follows from what they load of each other, so that nothing needs to be noted. */
#include <string.h>

#include "passes/nest_edit.h"
#include "passes/rows.h"

int rows_index(const struct rows_member *m, int par) {
    for (int k = 0; k < m->rows; k++)
        if (m->of[k] == par)
            return k;
    return -1;
}

bool rows_has_number(const struct rows_member *m) {
    return m->op->nest.pars == m->rows;
}

int rows_elements(const struct rows_member *m, int *list) {
    const struct ir_nest *n = &m->op->nest;
    int count = 0;
    for (int i = 0; i < n->pars + n->reds; i++)
        if (i >= n->pars || rows_index(m, i) < 0)
            list[count++] = i;
    return count;
}

struct matching {
    struct rows_member *member;
    int slot;
    const struct rows_member *from; /* what made the value in the slot */
    bool late;                      /* the load stands behind the reduction */
    bool holds;
};

/* Index k of the rows in the member is what stands in a subscript of that extent. */
static void match_row(struct matching *m, int k, ir_expr at, ir_dim extent) {
    struct rows_member *x = m->member;
    const struct ir_nest *n = &x->op->nest;
    int i = at->kind == X_INDEX ? at->index : x->of[k] >= 0 ? x->of[k] : k, other;
    m->holds = i < n->pars && expr_is_own_index(at, i, extent) && n->indices[i].extent == extent &&
               (x->of[k] < 0 || x->of[k] == i) && ((other = rows_index(x, i)) < 0 || other == k);
    if (m->holds)
        x->of[k] = i;
}

static void match_rows(ir_expr e, void *context) {
    struct matching *m = context;
    const struct ir_nest *made = &m->from->op->nest;
    if (e->kind != X_LOAD || e->index != m->slot)
        return;
    m->holds &= !e->guarded;
    for (int d = 0; d < made->pars && m->holds; d++) {
        int k = rows_index(m->from, d);
        if (k >= 0)
            match_row(m, k, e->args[d], made->indices[d].extent);
    }
}

static bool begins_at_zero(const struct ir_nest *n, int i) {
    double lo;
    return i < n->pars || (ir_expr_is_const(n->indices[i].lo, &lo) && lo == 0);
}

static void match_elements(ir_expr e, void *context) {
    struct matching *m = context;
    const struct ir_nest *n = &m->member->op->nest, *made = &m->from->op->nest;
    int own[ROWS_MAX_INDICES], their[ROWS_MAX_INDICES];
    if (e->kind != X_LOAD || e->index != m->slot || !m->holds || rows_has_number(m->from))
        return;
    int count = rows_elements(m->from, their);
    m->holds = !m->late && rows_elements(m->member, own) == count;
    for (int i = 0; i < count && m->holds; i++)
        m->holds = n->indices[own[i]].extent == made->indices[their[i]].extent && begins_at_zero(n, own[i]) &&
                   expr_is_own_index(e->args[their[i]], own[i], made->indices[their[i]].extent);
}

static void walk_results(const struct ir_op *op, void (*fn)(ir_expr, void *), void *context) {
    for (int i = 0; i < op->result_count; i++)
        ir_expr_walk(op->nest.results[i].value, fn, context);
}

bool rows_match(const struct rows_member *members, int count, struct rows_member *x) {
    const struct ir_op *op = x->op;
    const bool number = op->nest.pars == x->rows;
    bool known = false;
    if (op->nest.pars < x->rows || (op->nest.reds && !number))
        return false;
    for (int k = 0; k < x->rows; k++)
        x->of[k] = number ? k : -1;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < op->operand_count; i++)
            for (int q = 0; q < count; q++) {
                struct matching m = {.member = x, .slot = i, .from = &members[q], .holds = true};
                if (op->operands[i]->op != members[q].op)
                    continue;
                known = true;
                if (!pass) {
                    nest_walk(op, match_rows, &m);
                } else {
                    nest_walk(op, match_elements, &m);
                    m.late = op->nest.reds > 0;
                    if (m.late)
                        walk_results(op, match_elements, &m);
                }
                if (!m.holds)
                    return false;
            }
        /* The first of its row: a producer of a reduction that goes over its last indices. */
        for (int k = 0; k < x->rows; k++) {
            if (known && x->of[k] < 0)
                return false;
            x->of[k] = known ? x->of[k] : k;
        }
    }
    return true;
}

int rows_members(const struct ir_op *op, struct rows_member *members) {
    int count = 0, rows = ROWS_MAX_INDICES;
    for (const struct ir_op *x = op->regions[0]->first; x; x = x->next)
        if (x->nest.reds && x->nest.pars < rows)
            rows = x->nest.pars;
    for (struct ir_op *x = op->regions[0]->first; x && count < ROWS_MAX_MEMBERS; x = x->next, count++) {
        members[count].op = x;
        members[count].rows = rows;
        if (!rows_match(members, count, &members[count]))
            return 0;
    }
    return count;
}
