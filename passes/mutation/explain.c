/* The words for `--explain copies`: which write, which later read, where both stand, and what would avoid the copy. */
#include "passes/mutation/explain.h"

#include <string.h>

static const struct {
    const char *why, *help;
} obstacles[] = {
#define B(name, why, help) {why, help},
#include "passes/mutation/obstacles.def"
#undef B
};

struct plan_copy explain_copy(struct arena *a, const struct ir_value *from, struct ir_op *write, const char *needed,
                              struct copy_obstacle why) {
    bool loop = write && (write->code == OP_for || write->code == OP_while);
    if (why.what == OBSTACLE_LATER_READ && loop && why.reader == write)
        why = (struct copy_obstacle){OBSTACLE_EXCHANGE, NULL};
    bool gradient = why.what == OBSTACLE_LATER_READ && why.reader && why.reader->adjoint && !(write && write->adjoint);
    if (gradient)
        why.what = OBSTACLE_GRADIENT;
    const char *name = from->buffer_name ? from->buffer_name : from->name;
    return (struct plan_copy){.write = write,
                              .reader = why.reader,
                              .bytes = ir_type_bytes_upper(from->type),
                              .name = name ? name : "a value",
                              .why = arena_printf(a, "%s; %s", needed, obstacles[why.what].why),
                              .help = obstacles[why.what].help,
                              .gradient = gradient};
}

void explain_place(struct text *out, const struct ir_op *op) {
    if (op && op->span.source) {
        int line, column;
        span_position(op->span, &line, &column);
        text_printf(out, "%s:%d:%d", op->span.source->path, line, column);
    } else {
        text_printf(out, "`%s`", op ? ir_optable[op->code].name : "the function's end");
    }
}

void explain_gradient_overwrites(struct diag *d, const struct plan_func *p) {
    for (int i = 0; i < p->copy_count; i++) {
        const struct plan_copy *c = &p->copies[i];
        if (!c->gradient)
            continue;
        struct diagnostic *e = diag_error(d, E_gradient_overwrite, c->write->span,
                                          "this writes over `%s`, of which the gradient needs the old value", c->name);
        diag_note(d, e, c->reader->span, "for the gradient of this, which reads it");
        diag_help(d, e, "write to another variable; --gradient-overwrite copy keeps a copy of %lld bytes",
                  (long long)c->bytes);
    }
}
