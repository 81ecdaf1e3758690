/* Operations that are pushed many times: their description, counted by the pushes under way. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

struct mxrt_operator {
    struct mxrt_engine *engine;
    _Atomic int64_t references;
    struct mxrt_op op;
    struct mxrt_var variables[];
};

mx_status mxrt_operator_new(struct mxrt_engine *e, const struct mxrt_op *d, struct mxrt_operator **out,
                            struct mxrt_why *why) {
    if (!e || !d || !out)
        return engine_fail(why, MX_ERROR_ARGUMENT, "an operator wants an engine, an operation and a place for itself");
    mx_status status = push_check(e, d, why);
    if (status != MX_OK)
        return status;
    size_t reads = (size_t)d->read_count, writes = (size_t)d->write_count;
    struct mxrt_operator *o = malloc(sizeof *o + (reads + writes) * sizeof *o->variables);
    if (!o)
        return engine_fail(why, MX_ERROR_MEMORY, "no memory for an operator");
    o->engine = e;
    atomic_init(&o->references, 1);
    o->op = *d;
    o->op.reads = o->variables;
    o->op.writes = o->variables + reads;
    if (reads)
        memcpy(o->variables, d->reads, reads * sizeof *o->variables);
    if (writes)
        memcpy(o->variables + reads, d->writes, writes * sizeof *o->variables);
    *out = o;
    return MX_OK;
}

mx_status mxrt_operator_push(struct mxrt_operator *o, int priority, struct mxrt_why *why) {
    if (!o)
        return engine_fail(why, MX_ERROR_ARGUMENT, "no operator");
    struct mxrt_op d = o->op;
    d.priority = priority;
    return push_described(o->engine, &d, OP_OPERATOR, o, why);
}

void operator_keep(struct mxrt_operator *o) {
    atomic_fetch_add_explicit(&o->references, 1, memory_order_relaxed);
}

void operator_drop(struct mxrt_operator *o) {
    if (atomic_fetch_sub_explicit(&o->references, 1, memory_order_acq_rel) > 1)
        return;
    if (o->op.release)
        o->op.release(o->op.context);
    free(o);
}

void mxrt_operator_delete(struct mxrt_operator *o) {
    if (o)
        operator_drop(o);
}
