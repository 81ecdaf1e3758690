/* `--emit deps`: for each operation of a function, what it reads and writes, and what became of each write. */
#include "driver/driver.h"
#include "ir/text.h"

struct deps {
    struct text *out;
    const struct plan_func *plan;
    int number;
};

static const char *place(const struct plan_func *p, const struct ir_value *v) {
    struct storage *s = v->id < p->func->value_count ? p->of_value[v->id] : NULL;
    return !s ? "-" : s->name ? s->name : "?";
}

static void one(struct ir_op *op, void *context) {
    struct deps *d = context;
    text_printf(d->out, "%4d %-10s", d->number++, ir_optable[op->code].name);
    text_add(d->out, " reads");
    for (int i = 0; i < op->operand_count; i++)
        text_printf(d->out, " %%%d:%s", op->operands[i]->id, place(d->plan, op->operands[i]));
    text_add(d->out, " writes");
    for (int i = 0; i < op->result_count; i++) {
        struct ir_value *v = op->results[i];
        bool in_place = false;
        for (int k = 0; k < op->operand_count; k++) {
            struct storage *a = d->plan->of_value[op->operands[k]->id], *b = d->plan->of_value[v->id];
            in_place |= a && a == b && a->kind != STORAGE_SCALAR;
        }
        text_printf(d->out, " %%%d:%s%s", v->id, place(d->plan, v), in_place ? " (in place)" : "");
    }
    if (op->code == OP_read || op->code == OP_write)
        text_printf(d->out, " buffer %s", op->buffer.buffer->name);
    text_add(d->out, "\n");
}

void emit_deps(struct text *out, struct plan_func *p) {
    struct deps d = {out, p, 0};
    text_printf(out, "fn %s\n", p->func->name);
    ir_walk_ops(p->func->body, one, &d);
}
