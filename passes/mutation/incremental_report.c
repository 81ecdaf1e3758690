/* Incremental functions in `mxcc report`, as text and as JSON: what runs after a change of what, and what is kept for that. */
#include "passes/mutation/incremental.h"

#include "base/diag.h"

static int count_groups(const struct plan_func *p, uint64_t groups) {
    int n = 0;
    for (const struct ir_op *op = p->func->body->first; op; op = op->next) {
        int g = incremental_group(p->incremental, op);
        n += g == INCREMENTAL_ALWAYS || (g >= 0 && groups >> g & 1);
    }
    return n;
}

static const char *source_name(const struct plan_func *p, const struct incremental_source *s) {
    switch (s->kind) {
    case INCREMENTAL_INPUT: return p->func->arg_names[s->index];
    case INCREMENTAL_EXTENT: return p->func->symbols[s->index]->name;
    case INCREMENTAL_BUFFER: return p->func->module->buffers[s->index]->name;
    }
    return "";
}

void incremental_report(struct text *out, const struct plan_func *p, void (*bytes)(struct text *out, int64_t n)) {
    const struct plan_incremental *inc = p->incremental;
    if (!inc)
        return;
    text_add(out, "  cache        ");
    bytes(out, p->cache_bytes);
    text_add(out, " kept from call to call, of it inputs ");
    bytes(out, inc->input_bytes);
    text_add(out, "\n");
    for (int i = 0; i < p->storage_count; i++)
        if (p->storages[i]->kind == STORAGE_CACHE) {
            text_printf(out, "    %-32s ", p->storages[i]->name ? p->storages[i]->name : "?");
            bytes(out, p->storages[i]->bytes);
            text_add(out, "\n");
        }
    text_printf(out,
                "  incremental  %d groups; a first call runs %d operations, a call without a change %d, after one of\n",
                inc->group_count, count_groups(p, ~(uint64_t)0), count_groups(p, 0));
    for (int i = 0; i < inc->source_count; i++)
        text_printf(out, "    %-32s %d\n", source_name(p, &inc->sources[i]), count_groups(p, inc->sources[i].groups));
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------- */

static const char *operation_name(const struct ir_op *op) {
    const char *name = op->result_count ? op->results[0]->name : NULL;
    return name ? name : op->name ? op->name : "";
}

static void json_operations(struct text *out, const struct plan_func *p) {
    bool any = false;
    text_add(out, ", \"operations\": [");
    for (const struct ir_op *op = p->func->body->first; op; op = op->next) {
        int line = 0, column;
        if (!incremental_is_operation(op))
            continue;
        if (op->span.source)
            span_position(op->span, &line, &column);
        int g = incremental_group(p->incremental, op);
        text_printf(out, "%s\n     {\"kind\": \"%s\", \"name\": ", any ? "," : "", ir_optable[op->code].name);
        text_json_string(out, operation_name(op));
        text_printf(out, ", \"line\": %d, \"group\": ", line);
        if (g >= 0)
            text_printf(out, "%d}", g);
        else
            text_add(out, g == INCREMENTAL_ALWAYS ? "\"every call\"}" : "\"results\"}");
        any = true;
    }
    text_add(out, "]");
}

void incremental_report_json(struct text *out, const struct plan_func *p) {
    static const char *const kinds[] = {"input", "dimension", "buffer"}; /* incremental_source_kind */
    const struct plan_incremental *inc = p->incremental;
    if (!inc) {
        text_add(out, "null");
        return;
    }
    text_printf(out, "{\"cache_bytes\": %lld, \"input_bytes\": %lld, \"kept\": [", (long long)p->cache_bytes,
                (long long)inc->input_bytes);
    bool any = false;
    for (int i = 0; i < p->storage_count; i++) {
        const struct storage *s = p->storages[i];
        if (s->kind != STORAGE_CACHE)
            continue;
        text_printf(out, "%s\n     {\"name\": ", any ? "," : "");
        text_json_string(out, s->name ? s->name : "");
        text_printf(out, ", \"bytes\": %lld, \"offset\": %lld}", (long long)s->bytes, (long long)s->offset);
        any = true;
    }
    text_printf(out, "],\n    \"first_call\": %d, \"no_change\": %d, \"groups\": [", count_groups(p, ~(uint64_t)0),
                count_groups(p, 0));
    for (int g = 0; g < inc->group_count; g++) {
        any = false;
        text_printf(out, "%s\n     {\"group\": %d, \"operations\": %d, \"dirty_set\": [", g ? "," : "", g,
                    count_groups(p, (uint64_t)1 << g) - count_groups(p, 0));
        for (int i = 0; i < inc->source_count; i++)
            if (inc->sources[i].groups >> g & 1) {
                text_add(out, any ? ", " : "");
                text_json_string(out, source_name(p, &inc->sources[i]));
                any = true;
            }
        text_add(out, "]}");
    }
    text_add(out, "],\n    \"sources\": [");
    for (int i = 0; i < inc->source_count; i++) {
        const struct incremental_source *s = &inc->sources[i];
        text_printf(out, "%s\n     {\"kind\": \"%s\", \"name\": ", i ? "," : "", kinds[s->kind]);
        text_json_string(out, source_name(p, s));
        text_printf(out, ", \"operations\": %d, \"groups\": [", count_groups(p, s->groups));
        any = false;
        for (int g = 0; g < inc->group_count; g++)
            if (s->groups >> g & 1) {
                text_printf(out, "%s%d", any ? ", " : "", g);
                any = true;
            }
        text_add(out, "]}");
    }
    text_add(out, "]");
    json_operations(out, p);
    text_add(out, "}");
}
