/* `mxcc report --json`: the numbers of the report for programs, one object for the model with one for each function. Sizes are bytes,
 * positions those of the function's final order.
 */
#include "base/diag.h"
#include "driver/driver.h"
#include "passes/memplan/report.h"
#include "passes/mutation/incremental.h"

static void place(struct text *out, const char *key, struct span at) {
    int line = 0, column = 0;
    if (!at.source)
        return;
    span_position(at, &line, &column);
    text_printf(out, ", \"%s\": {\"file\": ", key);
    text_json_string(out, at.source->path);
    text_printf(out, ", \"line\": %d, \"column\": %d}", line, column);
}

static void count_op(struct ir_op *op, void *context) {
    int *by_code = context;
    by_code[op->code]++;
}

static void operations(struct text *out, const struct plan_func *p) {
    int by_code[OP_COUNT] = {0};
    bool any = false;
    ir_walk_ops(p->func->body, count_op, by_code);
    text_add(out, "\n   \"operations\": {");
    for (int i = 0; i < OP_COUNT; i++)
        if (by_code[i]) {
            text_printf(out, "%s\"%s\": %d", any ? ", " : "", ir_optable[i].name, by_code[i]);
            any = true;
        }
    text_add(out, "},");
}

static void peak(struct text *out, const struct plan_func *p) {
    struct arena a = {0};
    struct storage **live = ARENA_ARRAY(&a, struct storage *, p->storage_count + 1);
    int when, count = plan_at_peak(p, live, &when);
    text_printf(out, "\n   \"peak\": {\"position\": %d, \"alive\": [", when);
    for (int i = 0; i < count; i++) {
        text_printf(out, "%s\n     {\"name\": ", i ? "," : "");
        text_json_string(out, live[i]->name ? live[i]->name : "");
        text_printf(out, ", \"bytes\": %lld, \"offset\": %lld, \"lower\": %d, \"upper\": %d}",
                    (long long)live[i]->bytes, (long long)live[i]->offset, live[i]->lower, live[i]->upper);
    }
    text_add(out, "]},");
    arena_free(&a);
}

static void copies(struct text *out, const struct plan_func *p) {
    text_add(out, "\n   \"copies\": [");
    for (int i = 0; i < p->copy_count; i++) {
        const struct plan_copy *c = &p->copies[i];
        text_printf(out, "%s\n     {\"name\": ", i ? "," : "");
        text_json_string(out, c->name);
        text_printf(out, ", \"bytes\": %lld, \"gradient\": %s, \"why\": ", (long long)c->bytes,
                    c->gradient ? "true" : "false");
        text_json_string(out, c->why);
        text_add(out, ", \"help\": ");
        text_json_string(out, c->help);
        place(out, "write", c->write->span);
        if (c->reader)
            place(out, "reader", c->reader->span);
        text_add(out, "}");
    }
    text_add(out, "],");
}

static void function(struct text *out, const struct plan_func *p, const struct options *o) {
    text_add(out, "  {\"name\": ");
    text_json_string(out, p->func->name);
    text_add(out, ",");
    operations(out, p);
    text_printf(out, "\n   \"arena_bytes\": %lld, \"lower_bound\": %lld, \"workspace_bytes\": %lld, \"flops\": %lld,",
                (long long)p->arena_bytes, (long long)p->lower_bound, (long long)p->workspace_bytes,
                (long long)p->flops);
    text_add(out, "\n   \"order\": {\"method\": ");
    text_json_string(out, p->order.method ? p->order.method : "");
    text_add(out, ", \"bound\": ");
    if (p->order.method && p->order.bound)
        text_printf(out, "%lld},", (long long)p->order.bound);
    else
        text_add(out, "null},");
    text_printf(out, "\n   \"recomputed\": {\"operations\": %d, \"flops\": %lld, \"bytes_without\": %lld},",
                p->recomputed.copies, (long long)p->recomputed.flops, (long long)p->recomputed.bytes_before);
    const struct precision_counts *low = &p->low_precision;
    text_printf(out,
                "\n   \"low_precision\": {\"products\": %d, \"rounded\": %d, \"stored\": %d, \"stored_bytes\": %lld},",
                low->products, low->rounded, low->stored, (long long)low->stored_bytes);
    peak(out, p);
    copies(out, p);
    if (o->compile.target == TARGET_CUDA)
        report_gpu_json(out, p, o->gpu);
    text_add(out, "\n   \"incremental\": ");
    incremental_report_json(out, p);
    text_add(out, "}");
}

void report_json(struct text *out, const struct ir_module *m, const struct plan *plan, const struct options *o) {
    int64_t params = 0, states = 0;
    for (int i = 0; i < m->buffer_count; i++)
        *(m->buffers[i]->kind == BUFFER_PARAM ? &params : &states) += ir_type_bytes_upper(m->buffers[i]->type);
    text_add(out, "{\"model\": ");
    text_json_string(out, m->name);
    text_add(out, ", \"precision\": ");
    text_json_string(out, precision_name(o->compile.precision));
    text_printf(out,
                ", \"param_bytes\": %lld, \"state_bytes\": %lld, \"arena_bytes\": %lld, \"cache_bytes\": %lld,\n"
                " \"functions\": [\n",
                (long long)params, (long long)states, (long long)plan->arena_bytes, (long long)plan->cache_bytes);
    for (int i = 0; i < plan->func_count; i++) {
        text_add(out, i ? ",\n" : "");
        function(out, &plan->funcs[i], o);
    }
    text_add(out, "]}\n");
}
