/* Offsets of a function's storages in the arena: lifetimes from the final order, then placement.c. A storage lives from
 * the first definition to the last use of any of its values, whole (its values follow one another in place); what a kernel
 * works in, for the time of its operation. The functions of an instance run one at a time, so they share one arena as large
 * as the largest need.
 */
#include "passes/passes.h"

#include "passes/memplan/late.h"
#include "passes/memplan/placement.h"
#include "passes/memplan/plan_steps.h"
#include "passes/mutation/liveness.h"

#define ARENA_ALIGN 64
#define FAST_STEPS  (PLACEMENT_STEPS_PER_SECOND / 10)
#define BEST_STEPS  (PLACEMENT_STEPS_PER_SECOND * 2)
#define LATE_BYTES  (1 << 17)

struct plan_func *plan_of(struct plan *p, const struct ir_func *f) {
    for (int i = 0; p && i < p->func_count; i++)
        if (p->funcs[i].func == f)
            return &p->funcs[i];
    return NULL;
}

static bool is_workspace(const struct storage *s) {
    return s->kind == STORAGE_ARENA && s->op;
}

struct storage *plan_workspace(const struct plan_func *p, const struct ir_op *op) {
    for (int i = p->storage_count; i-- > 0 && is_workspace(p->storages[i]);)
        if (p->storages[i]->op == op)
            return p->storages[i];
    return NULL;
}

/* What kernels work in is storage, too, that lives at the one position of its operation. These stand behind the others. */
static void add_workspaces(struct pass_context *c, struct plan_func *p, const struct liveness *l) {
    struct arena *keep = c->plan->arena;
    VEC(struct storage *) all = {0};
    for (int i = 0; i < p->storage_count; i++)
        if (!is_workspace(p->storages[i])) /* of an earlier placement */
            VEC_PUSH(keep, all, p->storages[i]);
    p->workspace_bytes = 0;
    for (int i = 0; i < l->op_count && c->workspace; i++) {
        struct ir_op *op = l->ops[i].op;
        int64_t bytes = c->workspace(c->options, p, op);
        if (bytes <= 0)
            continue;
        struct storage *s = ARENA_NEW(keep, struct storage);
        const char *name = op->results[0]->name;
        *s = (struct storage){.id = all.n, .kind = STORAGE_ARENA, .op = op, .bytes = bytes};
        s->lower = l->ops[i].start;
        s->upper = s->lower + 1;
        s->name = name ? arena_printf(keep, "workspace of %s", name) : "workspace";
        VEC_PUSH(keep, all, s);
        if (bytes > p->workspace_bytes)
            p->workspace_bytes = bytes;
    }
    p->storages = all.at;
    p->storage_count = all.n;
}

void place_lifetimes(struct pass_context *c, struct plan_func *p, const struct liveness *l, bool workspaces) {
    for (int i = 0; i < p->storage_count; i++) {
        p->storages[i]->lower = l->positions;
        p->storages[i]->upper = 0;
    }
    for (int i = 0; i < p->func->value_count; i++) {
        struct storage *s = p->of_value[i];
        if (!s || l->def[i] < 0)
            continue;
        if (l->def[i] < s->lower)
            s->lower = l->def[i];
        if (l->last[i] + 1 > s->upper)
            s->upper = l->last[i] + 1;
    }
    for (int i = 0; i < c->order_count; i++)
        if (c->orders[i].func == p->func)
            p->order = c->orders[i];
    if (workspaces)
        add_workspaces(c, p, l);
    p->positions = l->positions;
}

struct to_place {
    struct placement_item *items;
    struct storage **of;
    int count;
};

static struct to_place what_to_place(const struct plan_func *p, struct arena *a) {
    struct to_place t = {.items = ARENA_ARRAY(a, struct placement_item, p->storage_count + 1),
                         .of = ARENA_ARRAY(a, struct storage *, p->storage_count + 1)};
    for (int i = 0; i < p->storage_count; i++) {
        struct storage *s = p->storages[i];
        if (s->kind != STORAGE_ARENA || s->upper <= s->lower)
            continue;
        int64_t size = (s->bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
        t.items[t.count] = (struct placement_item){s->lower, s->upper, size ? size : ARENA_ALIGN, 0};
        t.of[t.count++] = s;
    }
    return t;
}

static void place_at(const struct to_place *t) {
    for (int i = 0; i < t->count; i++)
        t->of[i]->offset = t->items[i].offset;
}

void place_func(struct pass_context *c, struct plan_func *p) {
    struct arena a = {0};
    place_lifetimes(c, p, liveness_new(p->func, &a), true);
    struct to_place t = what_to_place(p, &a);
    p->lower_bound = placement_load(t.items, t.count);
    if (p->order.bound > p->lower_bound) /* more found a place in others than was foreseen: that says nothing */
        p->order.bound = 0;
    int64_t steps = c->options && c->options->plan_best ? BEST_STEPS : FAST_STEPS;
    p->arena_bytes = placement_solve(t.items, t.count, ARENA_ALIGN, 0, steps).height;
    place_at(&t);
    arena_free(&a);
}

/* What operations that may wait (late.h) read stays to the end, if the arena becomes no larger by that, or by less than what
 * cudaMalloc rounds up to: then many of them share a launch. Of too many bytes, the smaller ones. */
static void keep_for_late(const struct compile_options *o, struct plan_func *p) {
    static const int64_t limits[] = {INT64_MAX, 1 << 16, 1 << 12};
    const int64_t most = p->arena_bytes + (o->memory_limit ? 0 : LATE_BYTES);
    struct arena a = {0};
    int *uses = plan_inner_uses(p->func, &a);
    bool *read = ARENA_ARRAY(&a, bool, p->storage_count + 1), any = false;
    for (struct ir_op *op = p->func->body->first; op; op = op->next)
        for (int i = 0; plan_is_late(op, uses) && i < op->operand_count; i++) {
            const struct storage *s = p->of_value[op->operands[i]->id];
            if (s && s->kind == STORAGE_ARENA)
                any = read[s->id] = true;
        }
    for (int k = 0; any && k < (int)(sizeof limits / sizeof *limits); k++) {
        struct to_place t = what_to_place(p, &a);
        for (int i = 0; i < t.count; i++)
            if (read[t.of[i]->id] && t.of[i]->bytes <= limits[k])
                t.items[i].upper = p->positions;
        int64_t load = placement_load(t.items, t.count), height = INT64_MAX;
        if (load <= most)
            height = placement_solve(t.items, t.count, ARENA_ALIGN, most, FAST_STEPS).height;
        if (height > most)
            continue;
        p->arena_bytes = height;
        p->lower_bound = load;
        place_at(&t);
        for (int i = 0; i < t.count; i++)
            t.of[i]->upper = (int)t.items[i].upper;
        break;
    }
    arena_free(&a);
}

bool pass_place(struct pass_context *c) {
    if (!c->plan)
        pass_mutation(c);
    struct plan *p = c->plan;
    p->arena_bytes = 0;
    for (int i = 0; i < p->func_count; i++) {
        place_func(c, &p->funcs[i]);
        if (c->options && c->options->target == TARGET_CUDA && !p->funcs[i].func->is_incremental)
            keep_for_late(c->options, &p->funcs[i]);
        if (p->funcs[i].arena_bytes > p->arena_bytes)
            p->arena_bytes = p->funcs[i].arena_bytes;
    }
    return false;
}

void plan_print_csv(struct text *out, const struct plan *plan) {
    text_add(out, "id,lower,upper,size,offset\n");
    int64_t begin = 0;
    for (int k = 0; k < plan->func_count; k++) {
        const struct plan_func *p = &plan->funcs[k];
        for (int i = 0; i < p->storage_count; i++) {
            const struct storage *s = p->storages[i];
            if (s->kind == STORAGE_ARENA && s->upper > s->lower)
                text_printf(out, "%s.%d,%lld,%lld,%lld,%lld\n", p->func->name, s->id, (long long)(begin + s->lower),
                            (long long)(begin + s->upper), (long long)s->bytes, (long long)s->offset);
        }
        begin += p->positions + 1;
    }
}
