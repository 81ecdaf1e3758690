/* Variables: records in chunks that never move, found by the index in the handle and checked by its generation. A
 * deletion takes the handle's generation away at once and the record when it has run; a record whose generations have
 * run out is not used again, so a stale handle never means another variable. */
#include <stdlib.h>

#include "internal.h"

static struct variable *fresh(struct mxrt_engine *e) {
    if (!e->free_variables)
        e->free_variables = atomic_exchange_explicit(&e->returned_variables, NULL, memory_order_acquire);
    struct variable *v = e->free_variables;
    if (v) {
        e->free_variables = outcome_of(v)->next_free;
        return v;
    }
    uint32_t index = e->variables;
    for (int c = 0; c < CHUNKS; c++) {
        if (e->chunk[c])
            continue;
        if (index + FIRST_CHUNK < (uint32_t)FIRST_CHUNK << c)
            break;                                                               /* the chunk before has room */
        size_t bytes = 2 * ((size_t)FIRST_CHUNK << c) * sizeof(struct variable); /* and outcomes */
        if (!(e->chunk[c] = memory_get(e, bytes)))
            return NULL;
        break;
    }
    if (index + FIRST_CHUNK >= (uint32_t)FIRST_CHUNK << CHUNKS)
        return NULL;
    e->variables++;
    v = variable_at(e, index);
    *v = (struct variable){.index = index, .generation = 1};
    *outcome_of(v) = (struct outcome){0};
    return v;
}

mx_status mxrt_var_new(struct mxrt_engine *e, const char *name, struct mxrt_var *out, struct mxrt_why *why) {
    if (!e || !out)
        return engine_fail(why, MX_ERROR_ARGUMENT, "a new variable wants an engine and a place for its handle");
    spin_lock(&e->push);
    struct variable *v = fresh(e);
    if (v) {
        outcome_of(v)->name = name;
        out->id = (uint64_t)v->generation << 32 | v->index;
    }
    spin_unlock(&e->push);
    if (!v)
        return engine_fail(why, MX_ERROR_MEMORY, "no memory for another variable");
    return MX_OK;
}

mx_status mxrt_var_delete(struct mxrt_engine *e, struct mxrt_var v, void (*release)(void *context), void *context,
                          struct mxrt_why *why) {
    struct mxrt_op op = {.name = "deletion", .context = context, .release = release, .writes = &v, .write_count = 1};
    return push_described(e, &op, OP_DELETE | OP_ALWAYS, NULL, why);
}

/* After the deletion has run. */
void variable_freed(struct mxrt_engine *e, struct variable *v) {
    if (v->generation == 0) /* used up */
        return;
    atomic_store_explicit(&outcome_of(v)->version, 0, memory_order_relaxed);
    atomic_store_explicit(&v->called, 0, memory_order_relaxed);
    struct variable *top = atomic_load_explicit(&e->returned_variables, memory_order_relaxed);
    do {
        outcome_of(v)->next_free = top;
    } while (!atomic_compare_exchange_weak_explicit(&e->returned_variables, &top, v, memory_order_release,
                                                    memory_order_relaxed));
}

void variable_end(struct mxrt_engine *e) {
    for (uint32_t i = 0; i < e->variables; i++) {
        struct variable *v = variable_at(e, i);
        if (outcome_of(v)->error)
            error_drop(outcome_of(v)->error);
    }
}

uint64_t mxrt_var_version(struct mxrt_engine *e, struct mxrt_var v) {
    spin_lock(&e->push);
    struct variable *x = variable_find(e, v);
    uint64_t version = x ? atomic_load_explicit(&outcome_of(x)->version, memory_order_acquire) +
                               atomic_load_explicit(&x->called, memory_order_acquire)
                         : UINT64_MAX;
    spin_unlock(&e->push);
    return version;
}

static int by_id(const void *a, const void *b) {
    uint64_t x = ((const struct mxrt_var *)a)->id, y = ((const struct mxrt_var *)b)->id;
    return (x > y) - (x < y);
}

static int unique(struct mxrt_var *v, int n) {
    if (n > 1)
        qsort(v, (size_t)n, sizeof *v, by_id);
    int kept = 0;
    for (int i = 0; i < n; i++) {
        if (kept == 0 || v[kept - 1].id != v[i].id)
            v[kept++] = v[i];
    }
    return kept;
}

void mxrt_var_dedupe(struct mxrt_var *reads, int *read_count, struct mxrt_var *writes, int *write_count) {
    *write_count = unique(writes, *write_count);
    int n = unique(reads, *read_count), kept = 0;
    for (int i = 0, w = 0; i < n; i++) {
        while (w < *write_count && writes[w].id < reads[i].id)
            w++;
        if (w == *write_count || writes[w].id != reads[i].id)
            reads[kept++] = reads[i];
    }
    *read_count = kept;
}
