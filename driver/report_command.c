/* `mxcc report`: what a compiled model costs: operations, FLOPs, memory against its lower bound, copies and why. */
#include <stdlib.h>

#include "driver/driver.h"
#include "passes/memplan/report.h"
#include "passes/mutation/incremental.h"

struct count {
    int by_code[OP_COUNT];
    int total;
};

static void count_op(struct ir_op *op, void *context) {
    struct count *c = context;
    c->by_code[op->code]++;
    c->total++;
}

struct cost {
    const struct ir_op *op;
    int64_t bytes, flops;
};

struct costs {
    struct arena arena;
    VEC(struct cost) all;
};

static void cost_op(struct ir_op *op, void *context) {
    struct costs *c = context;
    struct cost cost = {.op = op};
    if (plan_op_cost(op, &cost.bytes, &cost.flops))
        VEC_PUSH(&c->arena, c->all, cost);
}

static int by_bytes(const void *a, const void *b) {
    const struct cost *x = a, *y = b;
    return x->bytes != y->bytes                    ? (x->bytes < y->bytes ? 1 : -1)
           : x->op->span.begin < y->op->span.begin ? -1
                                                   : x->op->span.begin > y->op->span.begin;
}

static void largest(struct text *out, const struct plan_func *p) {
    enum { SHOWN = 12 };
    struct costs c = {0};
    ir_walk_ops(p->func->body, cost_op, &c);
    if (c.all.n) {
        qsort(c.all.at, (size_t)c.all.n, sizeof *c.all.at, by_bytes);
        text_add(out, "  the operations that move most: bytes, FLOPs of one run\n");
    }
    for (int i = 0; i < c.all.n && i < SHOWN; i++) {
        const struct ir_op *op = c.all.at[i].op;
        int line = 0, column = 0;
        const char *name = op->results[0]->name ? op->results[0]->name : op->name ? op->name : "";
        char place[80] = "";
        if (op->span.source) {
            span_position(op->span, &line, &column);
            (void)snprintf(place, sizeof place, "%.60s:%d", op->span.source->path, line);
        }
        text_printf(out, "    %-28.28s %-24s ", name[0] ? name : ir_optable[op->code].name, place);
        plan_bytes(out, c.all.at[i].bytes);
        if (c.all.at[i].flops)
            text_printf(out, ", %lld FLOPs", (long long)c.all.at[i].flops);
        text_add(out, "\n");
    }
    if (c.all.n > SHOWN)
        text_printf(out, "    … and %d smaller ones\n", c.all.n - SHOWN);
    arena_free(&c.arena);
}

static int at_peak(const struct plan_func *p) {
    int64_t best = -1;
    int where = 0;
    for (int t = 0; t < p->positions; t++) {
        int64_t live = 0;
        for (int i = 0; i < p->storage_count; i++)
            if (p->storages[i]->kind == STORAGE_ARENA && p->storages[i]->lower <= t && t < p->storages[i]->upper)
                live += p->storages[i]->bytes;
        if (live > best) {
            best = live;
            where = t;
        }
    }
    return where;
}

static void function(struct text *out, struct plan_func *p, const struct options *o) {
    struct count c = {{0}, 0};
    ir_walk_ops(p->func->body, count_op, &c);
    text_printf(out, "\n%s\n  operations   %d:", p->func->name, c.total);
    for (int i = 0; i < OP_COUNT; i++)
        if (c.by_code[i])
            text_printf(out, " %d %s", c.by_code[i], ir_optable[i].name);
    text_add(out, "\n  arena        ");
    plan_bytes(out, p->arena_bytes);
    text_add(out, ", lower bound ");
    plan_bytes(out, p->lower_bound);
    if (p->arena_bytes <= p->lower_bound)
        text_add(out, ": optimal\n");
    else
        text_printf(out, ": %.2f%% above\n",
                    100.0 * (double)(p->arena_bytes - p->lower_bound) / (double)(p->lower_bound ? p->lower_bound : 1));
    if (p->order.method) {
        text_printf(out, "  order        by %s", p->order.method);
        if (p->order.bound) {
            text_add(out, ", no order below ");
            plan_bytes(out, p->order.bound);
        }
        text_add(out, p->lower_bound <= p->order.bound ? ": optimal\n" : "\n");
    }
    text_add(out, "  workspaces   ");
    plan_bytes(out, p->workspace_bytes);
    text_add(out, p->workspace_bytes ? " at most, packed panels and sums of one kernel: within the arena\n" : "\n");
    incremental_report(out, p, plan_bytes);
    text_printf(out, "  FLOPs        %lld a call, at the largest dimensions\n", (long long)p->flops);
    const struct precision_counts *low = &p->low_precision;
    if (low->products || low->stored) {
        text_printf(out, "  16 bits      %d products, %d values rounded for them, %d stored: ", low->products,
                    low->rounded, low->stored);
        plan_bytes(out, low->stored_bytes);
        text_add(out, " instead of twice that\n");
    }
    if (p->recomputed.copies) {
        text_printf(out,
                    "  recomputed   %d operations, %lld FLOPs more; alive at once without that: ", p->recomputed.copies,
                    (long long)p->recomputed.flops);
        plan_bytes(out, p->recomputed.bytes_before);
        text_add(out, "\n");
    }
    if (p->arena_bytes) {
        int t = at_peak(p);
        text_printf(out, "  at the peak (operation %d)\n", t);
        for (int i = 0; i < p->storage_count; i++) {
            const struct storage *s = p->storages[i];
            if (s->kind == STORAGE_ARENA && s->lower <= t && t < s->upper && s->bytes > 0) {
                text_printf(out, "    %-32s ", s->name ? s->name : "?");
                plan_bytes(out, s->bytes);
                text_printf(out, " at %lld, alive in [%d, %d)\n", (long long)s->offset, s->lower, s->upper);
            }
        }
    }
    text_printf(out, "  copies       %d\n", p->copy_count);
    for (int i = 0; i < p->copy_count; i++) {
        int line, column;
        span_position(p->copies[i].write->span, &line, &column);
        text_printf(out, "    line %d: ", line);
        plan_bytes(out, p->copies[i].bytes);
        text_printf(out, ": %s\n", p->copies[i].why ? p->copies[i].why : "");
    }
    if (o->compile.target == TARGET_CUDA)
        report_gpu(out, p, o->gpu);
    else
        largest(out, p);
}

int report_command(int argc, char **argv) {
    struct options o;
    struct pipeline p;
    if (!options_parse(&o, 'p', argc, argv))
        return EXIT_USAGE;
    bool ok = pipeline_load(&p, &o, o.inputs.at[0]) && pipeline_passes(&p);
    struct text t = {0}, other = {0};
    struct c_unit unit = {0};
    ok = ok && pipeline_codegen(&p, &unit); /* kernels say what they need */
    if (ok) {
        int64_t params = 0, states = 0;
        for (int i = 0; i < p.module->buffer_count; i++)
            *(p.module->buffers[i]->kind == BUFFER_PARAM ? &params : &states) +=
                ir_type_bytes_upper(p.module->buffers[i]->type);
        text_printf(&t, "%s\n  params       ", p.module->name);
        plan_bytes(&t, params);
        text_add(&t, "\n  states       ");
        plan_bytes(&t, states);
        text_add(&t, "\n  arena        ");
        plan_bytes(&t, p.passes.plan->arena_bytes);
        text_add(&t, " (functions run one at a time and share it)\n");
        if (o.compile.precision != PRECISION_F32)
            text_printf(&t, "  precision    %s\n", precision_name(o.compile.precision));
        if (p.passes.plan->cache_bytes) {
            text_add(&t, "  cache        ");
            plan_bytes(&t, p.passes.plan->cache_bytes);
            text_add(&t, " (each incremental function has its own)\n");
        }
        for (int i = 0; i < p.passes.plan->func_count; i++)
            function(&t, &p.passes.plan->funcs[i], &o);
        if (o.html)
            plan_report_html(&other, p.module, p.passes.plan,
                             o.compile.precision == PRECISION_F32 ? NULL : precision_name(o.compile.precision));
        else if (o.report_json)
            report_json(&other, p.module, p.passes.plan, &o);
        ok = write_output(&o, o.output, o.html || o.report_json ? &other : &t);
    }
    text_free(&t);
    text_free(&other);
    c_unit_free(&unit);
    return pipeline_end(&p, ok);
}
