/* The proof that a nest may write over an operand: every load of the old content must be of the element written in the
 * same iteration, or of elements that no other iteration writes (integer sets, access.c). Iterations may then run in any order, in vectors or at once.
 * A nest that reduces may write over what it loads after its reduction only: accumulators are memory of their own.
 */
#include "passes/mutation/inplace.h"

#include <string.h>

#include "passes/mutation/access.h"
#include "passes/nest_edit.h"

struct scan {
    const struct ir_op *op;
    const int *content;
    int of;                /* the content looked at */
    const ir_expr *target; /* where the result is written; NULL: at the parallel indices */
    int rank;
    const struct ir_value *result;
    struct ir_type type; /* of the value written */
    bool injective, allowed;
};

static bool same_index(const struct scan *s, ir_expr e, int d) {
    if (s->target && e == s->target[d])
        return true;
    return (!s->target || expr_is_own_index(s->target[d], d, s->type.dims[d])) &&
           expr_is_own_index(e, d, s->type.dims[d]);
}

static bool same_dims(struct ir_type a, struct ir_type b) {
    return a.dtype == b.dtype && a.rank == b.rank &&
           (!a.rank || !memcmp(a.dims, b.dims, sizeof *a.dims * (size_t)a.rank));
}

static void see_load(ir_expr e, void *context) {
    struct scan *s = context;
    if (e->kind != X_LOAD || !s->allowed)
        return;
    const struct ir_value *v = s->op->operands[e->index];
    if (s->content[v->id] != s->of)
        return;
    bool same = same_dims(v->type, s->type) && s->injective;
    for (int d = 0; same && d < s->rank; d++)
        same = same_index(s, e->args[d], d);
    if (same || !s->target || !v->type.rank) {
        s->allowed = same;
        return;
    }
    struct access load = {s->op, v, e->args}, write = {s->op, s->result, s->target};
    s->allowed = access_disjoint(load, write, s->op->parent, false) ||
                 (s->op->nest.reds == 0 && access_iterations_apart(load, write));
}

/* A load within the reduction: the iteration's own element is not enough, since a schedule may take several elements' sums
 * at a time. */
static void see_reduced_load(ir_expr e, void *context) {
    struct scan *s = context;
    if (e->kind == X_LOAD && s->content[s->op->operands[e->index]->id] == s->of)
        s->allowed = false;
}

/* Whether different iterations write different elements: each parallel index of extent over one stands alone, with a
 * constant factor, in some component. */
static bool injective(struct ir_module *m, const struct ir_nest *n, const ir_expr *target, int rank) {
    for (int p = 0; p < n->pars; p++) {
        bool found = false;
        int64_t extent;
        if (ir_dim_is_const(n->indices[p].extent, &extent) && extent <= 1)
            continue;
        for (int d = 0; d < rank && !found; d++) {
            if (target[d]->kind == X_INDEX) {
                found = target[d]->index == p;
                continue;
            }
            ir_dim coefficients[32], constant;
            int total = n->pars + n->reds;
            if (total > 32 || !ir_expr_affine(m, target[d], total, coefficients, &constant))
                continue;
            int64_t c;
            found = ir_dim_is_const(coefficients[p], &c) && c != 0;
            for (int q = 0; q < total && found; q++)
                if (q != p)
                    found = ir_dim_is_const(coefficients[q], &c) && c == 0;
        }
        if (!found)
            return false;
    }
    return true;
}

bool inplace_allowed(const struct ir_op *op, int result, const struct ir_value *old, const int *content) {
    if (op->code == OP_rows)
        return inplace_rows_allowed(op, result, old, content);
    if (op->code != OP_nest || result >= op->result_count)
        return false;
    const struct ir_nest *n = &op->nest;
    const struct ir_nest_result *r = &n->results[result];
    struct ir_module *m = op->parent->func->module;
    struct scan s = {.op = op, .content = content, .of = content[old->id], .allowed = true, .injective = true};
    s.result = op->results[result];
    s.type = s.result->type;
    s.rank = s.type.rank;
    if (r->base >= 0) {
        s.target = r->target;
        s.injective = injective(m, n, r->target, s.rank);
    } else if (!same_dims(old->type, s.type) || s.rank != n->pars) {
        return false;
    } else if (n->reds > 0) {
        for (int i = 0; i < n->acc_count; i++)
            ir_expr_walk(n->accs[i].body, see_reduced_load, &s);
        for (int i = n->pars; i < n->pars + n->reds; i++) {
            ir_expr_walk(n->indices[i].lo, see_reduced_load, &s);
            ir_expr_walk(n->indices[i].hi, see_reduced_load, &s);
        }
    }
    nest_walk(op, see_load, &s);
    for (int i = 0; i < op->result_count; i++) {
        const struct ir_nest_result *other = &n->results[i];
        if (other->base < 0)
            continue;
        /* Another update of the same old content would need it whole. */
        if (i != result && content[op->operands[other->base]->id] == s.of)
            s.allowed = false;
    }
    return s.allowed;
}

bool inplace_is_fresh(const struct ir_op *op, int result) {
    return op->code == OP_rows || (op->code == OP_nest && op->nest.reds == 0 && op->nest.results[result].base < 0);
}
