/* Which operation keeps a variable, for the message of a wait that ran out of time. The dependences are worked out
 * afresh from what is pending: from the newest operation to the oldest, one holds if it touches a variable, in a
 * conflicting way, that is wanted or that a later holder touches. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

struct pending {
    struct op **ops;
    size_t count, room;
    bool out_of_memory;
};

static void collect(void *context, struct op *op) {
    struct pending *p = context;
    if (op->flags & OP_WAIT)
        return;
    if (p->count == p->room) {
        size_t room = 2 * p->room + 64;
        struct op **more = realloc(p->ops, room * sizeof *more);
        if (!more) {
            p->out_of_memory = true;
            return;
        }
        p->ops = more;
        p->room = room;
    }
    p->ops[p->count++] = op;
}

static uint64_t serial(const struct op *op) {
    return atomic_load_explicit(&op->ticket, memory_order_relaxed) >> 1;
}

static int newest_first(const void *a, const void *b) {
    uint64_t x = serial(*(struct op *const *)a), y = serial(*(struct op *const *)b);
    return (x < y) - (x > y);
}

static void name(char *words, size_t room, const struct op *op) {
    if (op->name)
        snprintf(words, room, "operation `%.60s`", op->name);
    else
        snprintf(words, room, "operation %llu", (unsigned long long)serial(op));
}

/* Stamps: base + 1 when reads of the variable are wanted done, too, else base. */
static bool holds(const struct op *op, uint64_t base) {
    if (op->flags & OP_GRAPH)
        return plan_holds(op, base);
    for (uint32_t i = 0; i < op->reads + op->writes; i++) {
        uint64_t stamp = op->access[i].variable->stamp;
        if (stamp >= base && (i >= op->reads || stamp > base))
            return true;
    }
    return false;
}

void holder_describe(struct mxrt_engine *e, const struct variable *v, char *words, size_t room) {
    struct pending p = {0};
    memory_each_op(e, collect, &p);
    if (p.count > 1)
        qsort(p.ops, p.count, sizeof *p.ops, newest_first);
    uint64_t base = 2 * ++e->serial;
    if (v)
        ((struct variable *)v)->stamp = base;
    struct op *running = NULL, *first = NULL;
    size_t holding = 0;
    for (size_t i = 0; i < p.count; i++) {
        struct op *op = p.ops[i];
        if (v && !holds(op, base))
            continue;
        for (uint32_t k = 0; k < op->reads + op->writes; k++) {
            uint64_t *stamp = &op->access[k].variable->stamp, mine = base + (k >= op->reads);
            if (*stamp < mine)
                *stamp = mine;
        }
        holding++;
        first = op; /* the oldest so far */
        if (atomic_load_explicit(&op->state, memory_order_acquire) == OP_RUNNING)
            running = op;
    }
    char who[80];
    if (!first) {
        bool called = e->workers == 0 && atomic_load_explicit(&e->helper_busy, memory_order_relaxed);
        snprintf(words, room, "%s",
                 p.out_of_memory ? "no memory to find out why"
                 : called        ? "an operation runs inside the push of another thread"
                                 : "it has just been done");
    } else {
        name(who, sizeof who, running ? running : first);
        snprintf(words, room, "%s %s%s", who, running ? "has begun and not ended" : "has not begun",
                 holding > 1 ? "" : ", and nothing else holds it");
        if (holding > 1) {
            size_t used = strlen(words);
            snprintf(words + used, room - used, "; %zu operations hold it in all", holding);
        }
    }
    free(p.ops);
}
