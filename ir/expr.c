/* Scalar expressions: hash-consing, constructors, rewriting, walking. What may be folded stands in expr_fold.c.
 *
 * All traversals use an explicit stack: an unrolled loop can make an expression as deep as it is large. */
#include "ir/expr.h"

#include <stdlib.h>
#include <string.h>

/* Returns the node that equals the prototype with these args, making it where there is none. */
static ir_expr intern_expr(struct ir_module *m, struct ir_expr *prototype, const ir_expr *args) {
    int n = prototype->count;
    int64_t key[6 + UINT8_MAX];
    key[0] = prototype->kind | prototype->dtype << 8 | n << 16 | prototype->guarded << 24;
    key[0] |= (int64_t)prototype->fn << 32;
    key[1] = prototype->index;
    key[2] = prototype->dim ? prototype->dim->id : -1;
    memcpy(&key[3], &prototype->value, sizeof key[3]); /* bits: 0 and -0 differ, a nan equals itself */
    for (int i = 0; i < n; i++)
        key[4 + i] = args[i]->id;
    ir_expr known = intern_find(m->interner->exprs, key, 4 + n);
    if (known)
        return known;
    struct ir_expr *e = arena_alloc(&m->arena, sizeof *e + (size_t)n * sizeof *args);
    prototype->id = m->interner->expr_count++;
    memcpy(e, prototype, sizeof *prototype);
    if (n)
        memcpy(e->args, args, (size_t)n * sizeof *args);
    intern_add(&m->arena, &m->interner->exprs, key, 4 + n, e);
    return e;
}

ir_expr expr_raw_fn(struct ir_module *m, enum scalar_fn fn, const ir_expr *args) {
    enum dtype t = args[0]->dtype;
    switch (scalar_table[fn].type_class) {
    case CLASS_CMP:
    case CLASS_LOG: t = BOOL; break;
    case CLASS_SEL: t = args[1]->dtype; break;
    default: break;
    }
    struct ir_expr e = {.kind = X_FN, .dtype = t, .count = (uint8_t)scalar_table[fn].arity, .fn = fn};
    return intern_expr(m, &e, args);
}

ir_expr ir_const_float(struct ir_module *m, enum dtype t, double value) {
    struct ir_expr e = {.kind = X_CONST, .dtype = t};
    e.value.f = float_round(t, value);
    if (e.value.f != e.value.f)
        e.value.f = __builtin_nan(""); /* one nan */
    return intern_expr(m, &e, NULL);
}

ir_expr ir_const_int(struct ir_module *m, enum dtype t, int64_t value) {
    struct ir_expr e = {.kind = X_CONST, .dtype = t};
    e.value.i = int_wrap(t, value);
    return intern_expr(m, &e, NULL);
}

ir_expr ir_const_number(struct ir_module *m, enum dtype t, double value) {
    return dtype_is_float(t) ? ir_const_float(m, t, value) : ir_const_int(m, t, float_to_int(t, value));
}

ir_expr ir_index(struct ir_module *m, int index) {
    return intern_expr(m, &(struct ir_expr){.kind = X_INDEX, .dtype = I64, .index = index}, NULL);
}

ir_expr ir_dim_expr(struct ir_module *m, ir_dim d) {
    int64_t value;
    if (ir_dim_is_const(d, &value))
        return ir_const_int(m, I64, value);
    return intern_expr(m, &(struct ir_expr){.kind = X_DIM, .dtype = I64, .dim = d}, NULL);
}

ir_expr ir_load(struct ir_module *m, int slot, enum dtype t, int rank, const ir_expr *at, ir_expr otherwise) {
    ir_expr args[UINT8_MAX];
    for (int i = 0; i < rank; i++)
        args[i] = at[i];
    if (otherwise)
        args[rank] = otherwise;
    struct ir_expr e = {.kind = X_LOAD, .dtype = t, .index = slot, .guarded = otherwise != NULL};
    e.count = (uint8_t)(rank + (otherwise != NULL));
    return intern_expr(m, &e, args);
}

ir_expr ir_acc(struct ir_module *m, int acc, enum dtype t) {
    return intern_expr(m, &(struct ir_expr){.kind = X_ACC, .dtype = t, .index = acc}, NULL);
}

ir_expr ir_fn(struct ir_module *m, enum scalar_fn fn, const ir_expr *args) {
    ir_expr folded = expr_fold_fn(m, fn, args);
    return folded ? folded : expr_raw_fn(m, fn, args);
}

ir_expr ir_fn1(struct ir_module *m, enum scalar_fn fn, ir_expr a) {
    return ir_fn(m, fn, (ir_expr[]){a});
}

ir_expr ir_fn2(struct ir_module *m, enum scalar_fn fn, ir_expr a, ir_expr b) {
    return ir_fn(m, fn, (ir_expr[]){a, b});
}

ir_expr ir_fn3(struct ir_module *m, enum scalar_fn fn, ir_expr a, ir_expr b, ir_expr c) {
    return ir_fn(m, fn, (ir_expr[]){a, b, c});
}

ir_expr ir_cast(struct ir_module *m, enum dtype t, ir_expr a) {
    if (a->dtype == t)
        return a;
    ir_expr folded = expr_fold_cast(m, t, a);
    if (folded)
        return folded;
    while (a->kind == X_CAST && cast_absorbs(t, a->dtype, a->args[0]->dtype)) {
        a = a->args[0];
        if (a->dtype == t)
            return a;
    }
    return intern_expr(m, &(struct ir_expr){.kind = X_CAST, .dtype = t, .count = 1}, &a);
}

ir_expr ir_bitcast(struct ir_module *m, enum dtype t, ir_expr a) {
    while (a->kind == X_BITCAST)
        a = a->args[0];
    if (a->dtype == t)
        return a;
    ir_expr folded = expr_fold_bitcast(m, t, a);
    return folded ? folded : intern_expr(m, &(struct ir_expr){.kind = X_BITCAST, .dtype = t, .count = 1}, &a);
}

bool ir_expr_is_const(ir_expr e, double *number) {
    if (e->kind != X_CONST)
        return false;
    if (number)
        *number = dtype_is_float(e->dtype) ? e->value.f
                  : e->dtype == U64        ? (double)(uint64_t)e->value.i
                                           : (double)e->value.i;
    return true;
}

ir_expr ir_expr_with_args(struct ir_module *m, ir_expr e, const ir_expr *args) {
    switch (e->kind) {
    case X_FN: return ir_fn(m, e->fn, args);
    case X_CAST: return ir_cast(m, e->dtype, args[0]);
    case X_BITCAST: return ir_bitcast(m, e->dtype, args[0]);
    case X_LOAD:
        return ir_load(m, e->index, e->dtype, e->count - e->guarded, args, e->guarded ? args[e->count - 1] : NULL);
    default: return e;
    }
}

/* ---- traversal ---- */

ir_expr *expr_postorder(ir_expr e, const struct memo *done, int *n) {
    /* The nodes in the order of their visits; behind them, growing down from the end, the stack of those to visit. */
    int capacity = 64, count = 0, stack = 0;
    ir_expr *order = malloc((size_t)capacity * sizeof *order);
    struct memo seen = {0};
    if (!order)
        exit(3);
    if (!done || !memo_get(done, e->id))
        order[capacity - ++stack] = e;
    while (stack) {
        ir_expr top = order[capacity - stack];
        const char *state = memo_get(&seen, top->id);
        if (state) { /* "open": its children are done; "shut": a second push */
            stack--;
            if (*state == 'o') {
                order[count++] = top;
                memo_set(&seen, top->id, "shut");
            }
            continue;
        }
        memo_set(&seen, top->id, "open");
        if (count + stack + top->count > capacity) {
            int grown = 2 * (capacity + top->count);
            order = realloc(order, (size_t)grown * sizeof *order);
            if (!order)
                exit(3);
            memmove(order + grown - stack, order + capacity - stack, (size_t)stack * sizeof *order);
            capacity = grown;
        }
        for (int i = top->count - 1; i >= 0; i--)
            if (!memo_get(&seen, top->args[i]->id) && (!done || !memo_get(done, top->args[i]->id)))
                order[capacity - ++stack] = top->args[i];
    }
    *n = count;
    memo_free(&seen);
    return order;
}

ir_expr ir_rewrite_expr(struct ir_rewrite *r, ir_expr e) {
    if (!r->memo) {
        r->memo = calloc(1, sizeof(struct memo));
        if (!r->memo)
            exit(3);
    }
    struct memo *memo = r->memo;
    int n;
    ir_expr *order = expr_postorder(e, memo, &n);
    for (int k = 0; k < n; k++) {
        ir_expr old = order[k], args[UINT8_MAX];
        bool changed = false;
        for (int i = 0; i < old->count; i++) {
            args[i] = memo_get(memo, old->args[i]->id);
            changed |= args[i] != old->args[i];
        }
        ir_expr now = changed ? ir_expr_with_args(r->module, old, args) : old;
        if (old->kind == X_INDEX || old->kind == X_DIM || old->kind == X_LOAD || old->kind == X_ACC) {
            ir_expr replacement = r->fn(r, old, now);
            if (replacement)
                now = replacement;
        }
        memo_set(memo, old->id, now);
    }
    free(order);
    return memo_get(memo, e->id);
}

void ir_rewrite_free(struct ir_rewrite *r) {
    if (r->memo) {
        memo_free(r->memo);
        free(r->memo);
    }
    r->memo = NULL;
}

void ir_expr_walk(ir_expr e, void (*fn)(ir_expr, void *), void *context) {
    int n;
    ir_expr *order = expr_postorder(e, NULL, &n);
    for (int i = 0; i < n; i++)
        fn(order[i], context);
    free(order);
}
