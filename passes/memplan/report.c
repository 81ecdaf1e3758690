/* The copies of a plan as text, and what the reports of the driver and of report_html.c share. */
#include "passes/memplan/report.h"

#include <stdlib.h>

#include "passes/lower.h"
#include "passes/mutation/explain.h"

void plan_bytes(struct text *out, int64_t n) {
    if (n >= 10 << 20)
        text_printf(out, "%.1f MiB", (double)n / 1048576);
    else if (n >= 10 << 10)
        text_printf(out, "%.1f KiB", (double)n / 1024);
    else
        text_printf(out, "%lld B", (long long)n);
}

bool plan_op_cost(const struct ir_op *op, int64_t *bytes, int64_t *flops) {
    *bytes = *flops = 0;
    if (op->code == OP_if || op->code == OP_for || op->code == OP_while || op->code == OP_read ||
        op->code == OP_const || op->result_count == 0)
        return false;
    for (int i = 0; i < op->operand_count; i++)
        *bytes += ir_type_bytes_upper(op->operands[i]->type);
    for (int i = 0; i < op->result_count; i++)
        *bytes += ir_type_bytes_upper(op->results[i]->type);
    if (op->code == OP_nest)
        *flops = nest_flops(&op->nest, op->result_count);
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
