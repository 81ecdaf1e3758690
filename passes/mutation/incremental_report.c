/* Incremental functions in `mxcc report`: what runs after a change of what, and what is kept for that. */
#include "passes/mutation/incremental.h"

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
