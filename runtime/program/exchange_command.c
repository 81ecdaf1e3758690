/* `exchange`: what a step over ranks sends, and when, as JSON: the compiler's tables, for tools that predict how training scales. Tensors stand
 * in the order in which they become final, groups in the order in which the next step needs them; `report` is whether a step waits for its own averages,
 * since results need them. */
#include <inttypes.h>

#include "mxrt/array.h"
#include "session.h"

int exchange_command(const struct session *s) {
    const struct mxrt_split *split = s->p->split;
    if (!split || split->why_not) {
        fprintf(stderr, "%s: error: the step is not split over ranks: %s\n", s->p->name,
                split ? split->why_not : "made with --no-ranks, or without a train block");
        return 1;
    }
    printf("{\"model\": \"%s\",\n \"report\": %s,\n \"tensors\": [", s->p->name, split->has_report ? "true" : "false");
    for (int i = 0; i < split->key_count; i++) {
        const struct mxrt_key *k = &split->keys[split->final_order[i]];
        printf("%s\n  {\"name\": \"%s\", \"dtype\": \"%s\", \"elements\": %" PRId64 ", \"bytes\": %" PRId64
               ", \"row_elements\": %" PRId64 ", \"rows_touched\": %" PRId64 ", \"group\": %d, \"flops_before\": %.0f}",
               i ? "," : "", k->name, mxrt_dtype_name(k->dtype), k->elements,
               k->elements * (int64_t)mxrt_dtype_size(k->dtype), k->row_elements, k->rows_touched, k->group, k->work);
    }
    printf("\n ],\n \"groups\": [");
    for (int i = 0; i < split->group_count; i++) {
        const struct mxrt_group *g = &split->groups[split->need_order[i]];
        printf("%s\n  {\"group\": %d, \"tensors\": [", i ? "," : "", split->need_order[i]);
        for (int k = 0; k < g->key_count; k++)
            printf("%s\"%s\"", k ? ", " : "", split->keys[g->keys[k]].name);
        if (g->work >= 0)
            printf("], \"flops_before_need\": %.0f}", g->work);
        else
            printf("], \"flops_before_need\": null}");
    }
    printf("\n ]}\n");
    return 0;
}
