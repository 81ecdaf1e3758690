/* Simplification: index algebra, constants, views, common subexpressions and dead code, to a fixpoint. No result changes by a
 * bit: expressions are folded exactly, and nothing is reassociated. */
#include "passes/passes.h"
#include "passes/simplify_internal.h"

enum { MAX_ROUNDS = 6 };

bool simplify_func(struct ir_func *f) {
    bool any = false;
    for (int round = 0; round < MAX_ROUNDS; round++) {
        bool changed = simplify_control(f);
        changed |= simplify_nests(f);
        changed |= simplify_common(f);
        changed |= simplify_dead(f);
        if (!changed)
            break;
        any = true;
    }
    return any;
}

bool simplify_fused(struct ir_func *f) {
    bool any = false;
    for (int round = 0; round < MAX_ROUNDS; round++) {
        bool changed = simplify_nests(f);
        changed |= simplify_dead(f);
        if (!changed)
            break;
        any = true;
    }
    return any;
}

bool pass_simplify(struct pass_context *c) {
    struct ir_module *m = c->module;
    bool changed = false;
    for (int i = 0; i < m->func_count; i++)
        changed |= simplify_func(m->funcs[i]);
    if (m->init)
        changed |= simplify_func(m->init);
    return changed;
}
