/* Which index variables an expression uses, and its way into the numbering of a nest: elab_indices.h. */
#include "frontend/elab_indices.h"

/* ---- which index variables an expression uses ------------------------------------------------------------------------ */

void elab_note_index(ir_expr x, void *context) {
    struct elab_used *u = context;
    if (x->kind == X_INDEX && !u->index[x->index] && (u->counters || !u->e->indices.at[x->index].counter)) {
        u->index[x->index] = true;
        /* bounds of a reduction index may use others */
        struct elab_index *i = &u->e->indices.at[x->index];
        if (i->reduction) {
            ir_expr_walk(i->lo, elab_note_index, u);
            ir_expr_walk(i->hi, elab_note_index, u);
        }
    }
}

bool *elab_used_indices(struct elab *e, struct arena *scratch) {
    return ARENA_ARRAY(scratch, bool, e->indices.n + 1);
}

struct find {
    struct elab *e;
    bool found;
};

static void find_index(ir_expr x, void *context) {
    struct find *f = context;
    if (x->kind == X_INDEX && !f->e->indices.at[x->index].counter)
        f->found = true;
}

bool expr_has_index(struct elab *e, ir_expr x) {
    struct find f = {.e = e};
    if (e->indices.n > 0)
        ir_expr_walk(x, find_index, &f);
    return f.found;
}

/* ---- renumbering ------------------------------------------------------------------------------------------------------ */

int elab_renumber_operand(struct elab_renumber *r, int slot) {
    if (slot >= r->slots) { /* a counter that is loaded for the first time */
        int n = r->e->slots.n * 2 + 8;
        int *grown = ARENA_ARRAY(r->scratch, int, n);
        for (int i = 0; i < n; i++)
            grown[i] = i < r->slots ? r->slot[i] : -1;
        r->slot = grown;
        r->slots = n;
    }
    if (r->slot[slot] >= 0)
        return r->slot[slot];
    if (r->count == r->cap)
        r->operands = vec_grow(r->scratch, r->operands, sizeof *r->operands, &r->cap);
    r->operands[r->count] = r->e->slots.at[slot];
    return r->slot[slot] = r->count++;
}

static ir_expr renumber_leaf(struct ir_rewrite *w, ir_expr original, ir_expr x) {
    struct elab_renumber *r = w->context;
    (void)original;
    if (x->kind == X_INDEX) {
        int p = r->position[x->index];
        if (p >= 0)
            return ir_index(w->module, p);
        struct ir_value *counter = r->e->indices.at[x->index].counter;
        if (counter)
            return ir_load(w->module, elab_renumber_operand(r, elab_slot(r->e, counter)), I64, 0, NULL, NULL);
        r->stray = true;
        return NULL;
    }
    if (x->kind == X_LOAD) {
        int rank = x->count - x->guarded;
        return ir_load(w->module, elab_renumber_operand(r, x->index), x->dtype, rank, x->args,
                       x->guarded ? x->args[rank] : NULL);
    }
    return NULL;
}

void elab_renumber_start(struct elab *e, struct elab_renumber *r, struct ir_rewrite *w, struct arena *scratch) {
    *r = (struct elab_renumber){.e = e, .scratch = scratch};
    r->position = ARENA_ARRAY(scratch, int, e->indices.n + 1);
    for (int i = 0; i < e->indices.n; i++)
        r->position[i] = -1;
    r->slots = e->slots.n;
    r->slot = ARENA_ARRAY(scratch, int, e->slots.n + 1);
    for (int i = 0; i < e->slots.n; i++)
        r->slot[i] = -1;
    *w = (struct ir_rewrite){.module = e->module, .fn = renumber_leaf, .context = r};
}

void elab_domain(struct elab *e, const bool *used, struct elab_renumber *r, struct ir_rewrite *w, struct ir_nest *nest,
                 struct arena *a) {
    int n = 0;
    for (int i = 0; i < e->indices.n; i++)
        n += used[i];
    nest->indices = ARENA_ARRAY(a, struct ir_nest_index, n + 1);
    n = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < e->indices.n; i++)
            if (used[i] && e->indices.at[i].reduction == (pass == 1)) {
                struct elab_index *x = &e->indices.at[i];
                r->position[i] = n;
                nest->indices[n].name = x->name;
                nest->indices[n].extent = x->extent;
                if (pass == 1) {
                    nest->indices[n].lo = ir_rewrite_expr(w, x->lo);
                    nest->indices[n].hi = ir_rewrite_expr(w, x->hi);
                    nest->reds++;
                } else {
                    nest->pars++;
                }
                n++;
            }
}
