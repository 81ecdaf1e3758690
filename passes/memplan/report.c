/* The copies of a plan as text, and what the reports of the driver and of report_html.c share. */
#include "passes/memplan/report.h"

#include <stdlib.h>

#include "passes/lower.h"
#include "passes/mutation/explain.h"
#include "passes/nest_edit.h"

void plan_bytes(struct text *out, int64_t n) {
    if (n >= 10 << 20)
        text_printf(out, "%.1f MiB", (double)n / 1048576);
    else if (n >= 10 << 10)
        text_printf(out, "%.1f KiB", (double)n / 1024);
    else
        text_printf(out, "%lld B", (long long)n);
}

struct traffic {
    const struct ir_op *op;
    const struct ir_value *value;
    double elements;
};

/* The product of the largest extents of some indices. */
static double iterations(const struct ir_nest *nest, uint32_t indices) {
    double n = 1;
    for (int i = 0; i < nest->pars + nest->reds; i++)
        if (indices >> i & 1)
            n *= (double)ir_dim_upper(nest->indices[i].extent);
    return n;
}

/* A load reads as many elements as its indices have values; a row that a table gives is one for each number in the table. */
static void see_traffic(ir_expr e, void *context) {
    struct traffic *t = context;
    if (e->kind != X_LOAD || t->op->operands[e->index] != t->value)
        return;
    uint32_t used = 0;
    for (int i = 0; i < e->count - e->guarded; i++)
        used |= nest_uses(e->args[i]);
    t->elements += iterations(&t->op->nest, used);
}

double plan_op_traffic(const struct ir_op *op, const struct ir_value *v) {
    double whole = (double)ir_type_bytes_upper(v->type), size = dtype_size(v->type.dtype), read = 0, written = 0;
    struct traffic t = {.op = op, .value = v};
    if (op->code == OP_nest) {
        nest_walk(op, see_traffic, &t);
        read = t.elements * size;
    } else {
        for (int i = 0; i < op->operand_count; i++)
            if (op->operands[i] == v)
                read = whole;
    }
    for (int i = 0; i < op->result_count; i++) {
        if (op->results[i] != v)
            continue;
        written = whole;
        if (op->code == OP_nest && op->nest.results[i].base >= 0) {
            double some = iterations(&op->nest, (1u << op->nest.pars) - 1) * size;
            written = some < whole ? some : whole;
            read = op->nest.results[i].combine == COMBINE_ADD ? written : 0;
        }
    }
    return (read < whole ? read : whole) + written;
}

bool plan_op_cost(const struct ir_op *op, int64_t *bytes, int64_t *flops) {
    double moved = 0;
    *bytes = *flops = 0;
    if (op->code == OP_if || op->code == OP_for || op->code == OP_while || op->code == OP_read ||
        op->code == OP_const || op->code == OP_reshape || op->result_count == 0)
        return false;
    for (int i = 0; i < op->operand_count; i++) {
        bool seen = false;
        for (int k = 0; k < i; k++)
            seen |= op->operands[k] == op->operands[i];
        moved += seen ? 0 : plan_op_traffic(op, op->operands[i]);
    }
    for (int i = 0; i < op->result_count; i++)
        moved += plan_op_traffic(op, op->results[i]);
    *bytes = moved < 9e18 ? (int64_t)moved : INT64_MAX;
    if (op->code == OP_nest)
        *flops = nest_flops(&op->nest, op->result_count);
    else if (op->code == OP_rows)
        for (const struct ir_op *x = op->regions[0]->first; x; x = x->next)
            *flops += nest_flops(&x->nest, x->result_count);
    else if (op->code == OP_scan)
        *flops = ir_dim_upper(ir_type_elements(op->parent->func->module, op->operands[0]->type));
    return true;
}

static void bytes(struct text *out, int64_t n) {
    if (n < 10240)
        text_printf(out, "%lld bytes", (long long)n);
    else if (n < 10ll * 1024 * 1024)
        text_printf(out, "%.1f KiB", (double)n / 1024);
    else
        text_printf(out, "%.1f MiB", (double)n / (1024 * 1024));
}

static int compare_bytes(const void *a, const void *b) {
    const struct storage *x = *(struct storage *const *)a, *y = *(struct storage *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return x->id - y->id;
}

int plan_at_peak(const struct plan_func *p, struct storage **live, int *position) {
    int64_t best = 0;
    int when = -1, count = 0;
    int64_t *change = calloc((size_t)p->positions + 2, sizeof *change);
    if (!change)
        abort();
    for (int i = 0; i < p->storage_count; i++) {
        const struct storage *s = p->storages[i];
        if (s->kind == STORAGE_ARENA && s->upper > s->lower) {
            change[s->lower] += s->bytes;
            change[s->upper] -= s->bytes;
        }
    }
    int64_t now = 0;
    for (int t = 0; t < p->positions; t++) {
        now += change[t];
        if (now > best) {
            best = now;
            when = t;
        }
    }
    free(change);
    for (int i = 0; i < p->storage_count; i++)
        if (when >= 0 && p->storages[i]->kind == STORAGE_ARENA && p->storages[i]->lower <= when &&
            when < p->storages[i]->upper)
            live[count++] = p->storages[i];
    qsort(live, (size_t)count, sizeof *live, compare_bytes);
    *position = when;
    return count;
}

static void copies(struct text *out, const struct plan_func *p) {
    for (int i = 0; i < p->copy_count; i++) {
        const struct plan_copy *c = &p->copies[i];
        text_printf(out, "  copy of %s, ", c->name);
        bytes(out, c->bytes);
        text_add(out, ", for ");
        explain_place(out, c->write);
        text_printf(out, ": %s", c->why);
        if (c->reader) {
            text_add(out, ", at ");
            explain_place(out, c->reader);
        }
        text_printf(out, "\n    help: %s\n", c->help);
    }
}

void plan_report_copies(struct text *out, const struct plan *p) {
    for (int i = 0; p && i < p->func_count; i++) {
        if (!p->funcs[i].copy_count)
            continue;
        text_printf(out, "%s:\n", p->funcs[i].func->name);
        copies(out, &p->funcs[i]);
    }
}
