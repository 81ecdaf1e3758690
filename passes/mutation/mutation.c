/* Versions to storage: which values share one piece of memory.
 *
 * By the method of leaving SSA form with copies (Boissinot et al., "Revisiting Out-of-SSA Translation for Correctness,
 * Code Quality, and Efficiency", 2009), since storage of versions is the same problem as registers of variables:
 *
 *   1. A copy is made everywhere two values are required to share memory: before an update nest (base and result), at
 *      the entry and the back edge of a loop, at the ends of an if, before a function's results, inout arguments and
 *      buffer writes. Then sharing holds by construction, whatever the program does (swaps included: where a region's
 *      yields are its own arguments, they pass through a second copy).
 *   2. Each copy's two sides are merged if no member of one is read after a member of the other was written; at one
 *      operation they may meet if it can work in place (inplace.c), and behind an update whoever reads only elements that
 *      it left may still read (access.c). A merged copy is removed. Values with the same
 *      content do not disturb each other, so reshapes cost nothing.
 *   3. What is left of a copy is a nest like any other, with its reason kept for `--explain copies`.
 *   4. Fresh elementwise results move into operands that die there, to keep the arena small.
 *
 * A call that fails leaves all buffers as they were: memory of a buffer or inout argument takes no new version before
 * the last operation that can fail.
 */
#include "passes/passes.h"

#include <stdlib.h>
#include <string.h>

#include "passes/memplan/plan_steps.h"
#include "passes/mutation/access.h"
#include "passes/mutation/explain.h"
#include "passes/mutation/incremental.h"
#include "passes/mutation/inplace.h"
#include "passes/mutation/liveness.h"
#include "passes/mutation/updates.h"
#include "passes/nest_edit.h"

struct class {
    int parent; /* union-find; itself if root */
    VEC(struct ir_value *) members;
    bool pinned, readonly, persistent; /* persistent: a buffer's or inout argument's, written only after all checks */
    enum storage_kind kind;
    int index;
    struct ir_buffer *buffer;
    struct ir_op *op;
    bool kept; /* of an incremental function: holds a value that outlives the call; all members are of `group` */
    int group;
    int original; /* PERSISTENT: content at entry; READONLY: the only content; -1 unknown */
};

struct copy {
    struct ir_op *op; /* the identity nest */
    struct ir_value *from, *to;
    struct ir_op *write; /* what needed it */
    const char *why_needed;
    /* An update's base, to be put back when the copy goes. */
    struct ir_op *update;
    int result, old_slot, new_slot;
    int64_t weight;
    int order;
};

struct mutation {
    struct ir_module *module;
    struct ir_func *func;
    struct arena arena; /* scratch */
    struct liveness *live;
    VEC(struct copy) copies;
    struct copy *
        *copy_of; /* [value_count], from build_classes on: the copy that makes a value, NULL once it is to stay */
    struct class *classes; /* [value_count] */
    int *content;          /* [value_count] */
    int content_cap;
    VEC(struct ir_value *) pairs; /* first, second: share memory by construction */
    VEC(int) group;               /* [value_count] in an incremental function, else empty */
    bool *kept;                   /* [value_count] */
    struct plan_func *plan;
    struct arena *keep;
    bool changed;
    int64_t drop_copy; /* compile_options */
    int64_t *copies_seen;
};

/* The group of the operation of the body that a copy in r, for `write`, is made for; without one it hands over a result. */
static void note_group(struct mutation *t, const struct ir_value *copy, const struct ir_region *r,
                       const struct ir_op *write) {
    if (!t->group.n)
        return;
    for (; r->op; r = r->op->parent)
        write = r->op;
    while (t->group.n <= copy->id)
        VEC_PUSH(t->keep, t->group, INCREMENTAL_NONE);
    t->group.at[copy->id] = !write                ? INCREMENTAL_HANDOVER
                            : write->result_count ? t->group.at[write->results[0]->id]
                                                  : INCREMENTAL_ALWAYS;
}

/* ---- copies ------------------------------------------------------------------------------------------------------- */

static struct ir_value *make_copy(struct mutation *t, struct ir_region *r, struct ir_op *before, struct ir_value *v,
                                  struct ir_op *write, const char *why) {
    struct ir_builder b = {t->module, t->func, r, before, write ? write->span : v->span};
    ir_expr at[32];
    for (int d = 0; d < v->type.rank; d++)
        at[d] = ir_index(t->module, d);
    ir_expr body = ir_load(t->module, 0, v->type.dtype, v->type.rank, at, NULL);
    struct ir_value *c = ir_build_map(&b, v->type.dtype, v->type.rank, v->type.dims, body, &v, 1);
    c->name = v->name;
    c->buffer_name = v->buffer_name;
    c->version = v->version;
    struct copy copy = {.op = c->op, .from = v, .to = c, .write = write, .why_needed = why, .order = t->copies.n};
    copy.weight = ir_type_bytes_upper(v->type);
    for (struct ir_region *q = r; q->op; q = q->op->parent)
        if ((q->op->code == OP_for || q->op->code == OP_while) && copy.weight < IR_DIM_LIMIT / 64)
            copy.weight *= 16;
    VEC_PUSH(&t->arena, t->copies, copy);
    note_group(t, c, r, write);
    t->changed = true;
    return c;
}

static void share(struct mutation *t, struct ir_value *a, struct ir_value *b) {
    VEC_PUSH(&t->arena, t->pairs, a);
    VEC_PUSH(&t->arena, t->pairs, b);
}

static void isolate_update(struct mutation *t, struct ir_op *op) {
    for (int i = 0; i < op->result_count; i++) {
        struct ir_nest_result *r = &op->nest.results[i];
        if (r->base < 0)
            continue;
        int slot = r->base, old = slot;
        struct ir_value *c =
            make_copy(t, op->parent, op, op->operands[slot], op, "the update of one version makes the next");
        bool shared = nest_loads_slot(op, slot);
        for (int j = 0; j < op->result_count; j++)
            shared |= j != i && op->nest.results[j].base == slot;
        if (shared)
            slot = ir_op_add_operand(op, c);
        else
            op->operands[slot] = c;
        r->base = slot;
        struct copy *made = &t->copies.at[t->copies.n - 1];
        made->update = op;
        made->result = i;
        made->old_slot = old;
        made->new_slot = slot;
        share(t, c, op->results[i]);
    }
}

/* Copies a region's yields just before its end, all of them read before the first is written over. `own` is the number
 * of leading arguments of the region to skip (a for's counter); args + own correspond to the yields, NULL: no arguments. */
static void isolate_yields(struct mutation *t, struct ir_region *r, struct ir_value **carried, struct ir_op *write,
                           const char *why) {
    struct ir_value **early = ARENA_ARRAY(&t->arena, struct ir_value *, r->yield_count + 1);
    for (int i = 0; i < r->yield_count; i++) {
        early[i] = r->yields[i];
        const struct ir_value *source = early[i];
        while (source->op && source->op->code == OP_reshape)
            source = source->op->operands[0];
        for (int j = 0; carried && j < r->yield_count; j++)
            if (j != i && source == carried[j]) {
                early[i] = make_copy(t, r, NULL, early[i], write, "values of a loop change places");
                break;
            }
    }
    for (int i = 0; i < r->yield_count; i++)
        r->yields[i] = make_copy(t, r, NULL, early[i], write, why);
}

static void isolate_loop(struct mutation *t, struct ir_op *op) {
    int lead = op->code == OP_for ? 2 : 0, skip = op->code == OP_for ? 1 : 0;
    struct ir_region *body = op->regions[op->code == OP_for ? 0 : 1];
    int n = op->result_count;
    for (int i = 0; i < n; i++) {
        op->operands[lead + i] = make_copy(t, op->parent, op, op->operands[lead + i], op, "a loop changes the value");
        share(t, op->operands[lead + i], body->args[skip + i]);
        share(t, op->operands[lead + i], op->results[i]);
        if (op->code == OP_while)
            share(t, op->operands[lead + i], op->regions[0]->args[i]);
    }
    isolate_yields(t, body, body->args + skip, op, "the next iteration's value");
    for (int i = 0; i < n; i++)
        share(t, op->operands[lead + i], body->yields[i]);
}

static void isolate_if(struct mutation *t, struct ir_op *op) {
    for (int s = 0; s < op->region_count; s++) {
        isolate_yields(t, op->regions[s], NULL, op, "the value of a branch");
        for (int i = 0; i < op->result_count; i++)
            share(t, op->regions[s]->yields[i], op->results[i]);
    }
}

static void isolate_region(struct mutation *t, struct ir_region *r) {
    for (struct ir_op *op = r->first, *next; op; op = next) {
        next = op->next;
        if (op_runs_regions(op))
            for (int i = 0; i < op->region_count; i++)
                isolate_region(t, op->regions[i]);
        if (op->code == OP_nest)
            isolate_update(t, op);
        else if (op->code == OP_for || op->code == OP_while)
            isolate_loop(t, op);
        else if (op->code == OP_if || op->code == OP_checkpoint)
            isolate_if(t, op);
    }
}

static const struct ir_value *view_source(const struct ir_value *v) {
    while (v->op && v->op->code == OP_reshape)
        v = v->op->operands[0];
    return v;
}

/* Results, inout values and buffers at the function's end: first everything that reads memory which is about to be
 * overwritten, then the writes. */
static void isolate_exit(struct mutation *t) {
    struct ir_func *f = t->func;
    struct ir_region *body = f->body;
    VEC(struct ir_op *) writes = {0};
    for (struct ir_op *op = body->first; op; op = op->next)
        if (op->code == OP_write)
            VEC_PUSH(&t->arena, writes, op);
    for (int i = 0; i < writes.n; i++) { /* to the end, in their order */
        struct ir_op *op = writes.at[i];
        if (op == body->last)
            continue;
        struct ir_op *last = body->last;
        ir_op_move_before(op, last);
        ir_op_move_before(last, op);
    }
    struct ir_op *before = writes.n ? writes.at[0] : NULL;
    int inouts = body->yield_count - f->result_count;
    struct ir_value **late = ARENA_ARRAY(&t->arena, struct ir_value *, writes.n + inouts + 1);
    int *inout_arg = ARENA_ARRAY(&t->arena, int, inouts + 1);
    for (int i = 0, k = 0; i < body->arg_count && k < inouts; i++)
        if (f->arg_inout && f->arg_inout[i])
            inout_arg[k++] = i;
    for (int i = 0; i < writes.n + inouts; i++) {
        struct ir_value *v = i < writes.n ? writes.at[i]->operands[0] : body->yields[f->result_count + i - writes.n];
        const struct ir_value *s = view_source(v);
        bool other = false; /* another buffer's old content, which may be overwritten first */
        if (s->op && s->op->code == OP_read)
            for (int j = 0; j < writes.n; j++)
                other |= j != i && writes.at[j]->buffer.buffer == s->op->buffer.buffer;
        if (!s->op && s->region == body)
            for (int j = 0; j < inouts; j++)
                other |= writes.n + j != i && inout_arg[j] == s->index;
        late[i] =
            other ? make_copy(t, body, before, v, i < writes.n ? writes.at[i] : NULL, "buffers change places") : v;
    }
    for (int i = 0; i < f->result_count; i++)
        body->yields[i] = make_copy(t, body, before, body->yields[i], NULL, "a result in the caller's memory");
    for (int i = 0; i < writes.n + inouts; i++) {
        if (i < writes.n)
            writes.at[i]->operands[0] = make_copy(t, body, before, late[i], writes.at[i], "the buffer's value at exit");
        else
            body->yields[f->result_count + i - writes.n] =
                make_copy(t, body, before, late[i], NULL, "the inout argument's value at exit");
    }
}

/* ---- classes ------------------------------------------------------------------------------------------------------ */

static int find(struct mutation *t, int id) {
    while (t->classes[id].parent != id)
        id = t->classes[id].parent = t->classes[t->classes[id].parent].parent;
    return id;
}

static void unite(struct mutation *t, int a, int b) {
    a = find(t, a);
    b = find(t, b);
    if (a == b)
        return;
    if (t->classes[b].pinned || (!t->classes[a].pinned && t->classes[b].members.n > t->classes[a].members.n)) {
        int s = a;
        a = b;
        b = s;
    }
    struct class *x = &t->classes[a], *y = &t->classes[b];
    y->parent = a;
    x->kept |= y->kept;
    x->group = x->group == y->group ? x->group : INCREMENTAL_NONE;
    for (int i = 0; i < y->members.n; i++)
        VEC_PUSH(&t->arena, x->members, y->members.at[i]);
    y->members.n = 0;
}

static void pin(struct mutation *t, const struct ir_value *v, enum storage_kind kind, int index,
                struct ir_buffer *buffer, struct ir_op *op, bool readonly, bool persistent) {
    struct class *c = &t->classes[find(t, v->id)];
    c->pinned = true;
    c->kind = kind;
    c->index = index;
    c->buffer = buffer;
    c->op = op;
    c->readonly = readonly;
    c->persistent = persistent;
}

struct later_reads {
    struct ir_op *reader;
    const struct ir_value *old;
    struct access write;
    bool apart;
};

static void see_later_load(ir_expr e, void *context) {
    struct later_reads *s = context;
    if (e->kind != X_LOAD || !s->apart || s->reader->operands[e->index] != s->old)
        return;
    struct access read = {s->reader, s->old, e->args};
    const struct ir_region *home = s->old->op ? s->old->op->parent : s->old->region;
    s->apart = access_spares(s->write, read, home);
}

/* Whether everybody who reads x after the update that makes y reads only elements that the update leaves as they were.
 * Both happen in one execution of the region where x is defined, which is the version they share. What a loop or branch carries,
 * takes or gives is written by the updates inside, which are members of the classes ia or ib themselves; a copy within them goes. */
static bool update_spares_readers(struct mutation *t, const struct ir_value *x, const struct ir_value *y, int ia,
                                  int ib) {
    struct liveness *l = t->live;
    if (x->type.rank == 0 || l->last[x->id] == l->positions || l->def[x->id] == l->def[y->id])
        return false;
    const struct copy *copy = t->copy_of[y->id];
    int from = copy ? find(t, copy->from->id) : -1;
    if (copy ? from == ia || from == ib : y->op ? op_runs_regions(y->op) : y->region->op != NULL)
        return true;
    if (!y->op || y->op->code != OP_nest || y->op->nest.results[y->index].base < 0)
        return false;
    struct later_reads s = {.old = x, .write = {y->op, y, y->op->nest.results[y->index].target}, .apart = true};
    for (int i = 0; i < l->use_count[x->id] && s.apart; i++) {
        const struct value_use *u = &l->uses[x->id][i];
        if (u->position < l->def[y->id] || use_excluded(l, u, y) || (u->op == y->op && u->position == l->def[y->id]))
            continue;
        s.reader = u->op;
        if (!u->op || u->op->code != OP_nest)
            return false;
        for (int k = 0; k < u->op->operand_count; k++)
            if (u->op->operands[k] == x && nest_is_base(u->op, k))
                return false;
        nest_walk(u->op, see_later_load, &s);
    }
    return s.apart;
}

/* The read of x behind the write of y, in words of the program: copies at the function's end stand for `return`. */
static void blame_reader(struct mutation *t, const struct ir_value *x, const struct ir_value *y,
                         struct copy_obstacle *why) {
    const struct liveness *l = t->live;
    for (int k = 0; k < l->use_count[x->id]; k++)
        if (l->uses[x->id][k].position >= l->def[y->id] && l->uses[x->id][k].op)
            why->reader = l->uses[x->id][k].op;
    for (int i = 0; i < t->copies.n && why->reader; i++)
        if (t->copies.at[i].op == why->reader) {
            why->reader = t->copies.at[i].write;
            if (!why->reader && why->what == OBSTACLE_LATER_READ)
                why->what = OBSTACLE_RETURNED;
        }
}

/* Whether two classes may become one; if not, *why tells what stands against it. */
static bool may_unite(struct mutation *t, int ia, int ib, struct copy_obstacle *why) {
    struct liveness *l = t->live;
    struct class *a = &t->classes[ia], *b = &t->classes[ib];
    *why = (struct copy_obstacle){OBSTACLE_NONE, NULL};
    if (ia == ib)
        return true;
    if (a->pinned && b->pinned) {
        why->what = OBSTACLE_TWO_PLACES;
        return false;
    }
    if ((a->kept || b->kept) && (a->pinned || b->pinned || a->group != b->group)) {
        why->what = OBSTACLE_KEPT;
        return false;
    }
    if (b->pinned) {
        struct class *s = a;
        a = b;
        b = s;
    }
    if (a->pinned)
        for (int i = 0; i < b->members.n; i++) {
            const struct ir_value *v = b->members.at[i];
            if (t->content[v->id] == a->original)
                continue;
            if (a->readonly) {
                why->what = a->kind == STORAGE_CONST    ? OBSTACLE_CONSTANT
                            : a->kind == STORAGE_SCALAR ? OBSTACLE_COUNTER
                                                        : OBSTACLE_ARGUMENT;
                return false;
            }
            if (a->persistent && l->def[v->id] <= l->last_failure) {
                *why = (struct copy_obstacle){OBSTACLE_LATER_CHECK, l->last_failing};
                return false;
            }
        }
    for (int i = 0; i < a->members.n; i++)
        for (int j = 0; j < b->members.n; j++) {
            const struct ir_value *x = a->members.at[i], *y = b->members.at[j];
            if (t->content[x->id] == t->content[y->id])
                continue;
            int meet;
            if (!alive_together(l, x, y, &meet))
                continue;
            if (l->def[x->id] > l->def[y->id]) { /* x is the older */
                const struct ir_value *s = x;
                x = y;
                y = s;
            }
            const struct ir_op *writer = y->op && !op_runs_regions(y->op) ? y->op : NULL;
            bool last = meet >= 0 && writer && l->at[meet] == writer, reads = last;
            for (int k = 0; writer && k < writer->operand_count; k++)
                reads |= t->content[writer->operands[k]->id] == t->content[x->id];
            bool together = !reads || inplace_allowed(writer, y->index, x, t->content);
            if (together && (last || update_spares_readers(t, x, y, ia, ib)))
                continue;
            why->what = meet >= 0 ? OBSTACLE_SAME_OPERATION : OBSTACLE_LATER_READ;
            blame_reader(t, x, y, why);
            return false;
        }
    return true;
}

/* Copies and views have their source's content, a branch's result that of its sides if they agree; all else is new. */
static void find_contents(struct mutation *t, const struct ir_region *r) {
    int *content = t->content;
    for (const struct ir_op *op = r->first; op; op = op->next) {
        for (int k = 0; op_runs_regions(op) && k < op->region_count; k++)
            find_contents(t, op->regions[k]);
        for (int i = 0; i < op->result_count; i++) {
            int id = op->results[i]->id;
            if (t->copy_of[id])
                content[id] = content[t->copy_of[id]->from->id];
            else if (op->code == OP_reshape)
                content[id] = content[op->operands[0]->id];
            else if (op->code == OP_if &&
                     content[op->regions[0]->yields[i]->id] == content[op->regions[1]->yields[i]->id])
                content[id] = content[op->regions[0]->yields[i]->id];
        }
    }
}

static void build_classes(struct mutation *t) {
    struct ir_func *f = t->func;
    struct liveness *l = t->live;
    int n = f->value_count;
    t->classes = ARENA_ARRAY(&t->arena, struct class, n + 1);
    t->content = ARENA_ARRAY(&t->arena, int, n + 1);
    VEC(struct ir_value *) values = {0};
    struct ir_region *body = f->body;
    for (int i = 0; i < n; i++) {
        t->classes[i].parent = i;
        t->classes[i].original = -1;
        t->classes[i].kept = t->kept && t->kept[i];
        t->classes[i].group = t->group.n ? t->group.at[i] : INCREMENTAL_NONE;
        t->content[i] = i;
    }
    for (int i = 0; i < body->arg_count; i++)
        VEC_PUSH(&t->arena, values, body->args[i]);
    for (int i = 0; i < l->op_count; i++) {
        struct ir_op *op = l->ops[i].op;
        for (int j = 0; j < op->result_count; j++)
            VEC_PUSH(&t->arena, values, op->results[j]);
        if (op_runs_regions(op))
            for (int k = 0; k < op->region_count; k++)
                for (int j = 0; j < op->regions[k]->arg_count; j++)
                    VEC_PUSH(&t->arena, values, op->regions[k]->args[j]);
    }
    t->copy_of = ARENA_ARRAY(&t->arena, struct copy *, n + 1);
    for (int i = 0; i < t->copies.n; i++)
        t->copy_of[t->copies.at[i].to->id] = &t->copies.at[i];
    find_contents(t, body);
    for (int i = 0; i < values.n; i++)
        VEC_PUSH(&t->arena, t->classes[values.at[i]->id].members, values.at[i]);
    for (int i = 0; i < t->pairs.n; i += 2)
        unite(t, t->pairs.at[i]->id, t->pairs.at[i + 1]->id);
    for (int i = 0; i < l->op_count; i++)
        if (l->ops[i].op->code == OP_reshape)
            unite(t, l->ops[i].op->operands[0]->id, l->ops[i].op->results[0]->id);
}

static void pin_classes(struct mutation *t) {
    struct ir_func *f = t->func;
    struct ir_region *body = f->body;
    int *written = ARENA_ARRAY(&t->arena, int, t->module->buffer_count + 1); /* value at exit, plus one */
    struct ir_value **exit_value = ARENA_ARRAY(&t->arena, struct ir_value *, t->module->buffer_count + 1);
    for (struct ir_op *op = body->first; op; op = op->next)
        if (op->code == OP_write) {
            written[op->buffer.buffer->id] = 1;
            exit_value[op->buffer.buffer->id] = op->operands[0];
            pin(t, op->operands[0], STORAGE_BUFFER, 0, op->buffer.buffer, NULL, false, true);
        }
    for (int i = 0; i < t->live->op_count; i++) {
        struct ir_op *op = t->live->ops[i].op;
        if (op->code == OP_const)
            pin(t, op->results[0], STORAGE_CONST, 0, NULL, op, true, false);
        if (op->code == OP_for) { /* the counter is the loop's own */
            const struct ir_value *counter = op->regions[0]->args[0];
            pin(t, counter, STORAGE_SCALAR, 0, NULL, NULL, true, false);
            t->classes[find(t, counter->id)].original = t->content[counter->id];
        }
        if (op->code != OP_read)
            continue;
        struct ir_buffer *b = op->buffer.buffer;
        if (written[b->id])
            unite(t, exit_value[b->id]->id, op->results[0]->id);
        else
            pin(t, op->results[0], STORAGE_BUFFER, 0, b, NULL, true, false);
        t->classes[find(t, op->results[0]->id)].original = t->content[op->results[0]->id];
    }
    for (int i = 0, k = f->result_count; i < body->arg_count; i++) {
        bool inout = f->arg_inout && f->arg_inout[i] && k < body->yield_count;
        pin(t, body->args[i], STORAGE_ARG, i, NULL, NULL, !inout, inout);
        if (inout)
            unite(t, body->args[i]->id, body->yields[k++]->id);
        t->classes[find(t, body->args[i]->id)].original = t->content[body->args[i]->id];
    }
    for (int i = 0; i < f->result_count; i++)
        pin(t, body->yields[i], STORAGE_RESULT, i, NULL, NULL, false, false);
    for (int i = 0; i < t->live->op_count; i++)
        if (t->live->ops[i].op->code == OP_const) {
            struct ir_value *v = t->live->ops[i].op->results[0];
            t->classes[find(t, v->id)].original = t->content[v->id];
        }
}

/* ---- merging ------------------------------------------------------------------------------------------------------ */

static int compare_copies(const void *a, const void *b) {
    const struct copy *x = *(struct copy *const *)a, *y = *(struct copy *const *)b;
    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return x->order - y->order;
}

/* Filling the memory again instead of copying: no dearer where the source is computed from constants and indices. */
static bool repeat_fill(struct mutation *t, struct copy *c) {
    const struct ir_op *op = c->from->op;
    if (!op || op->code != OP_nest || op->nest.reds || op->operand_count ||
        op->nest.results[c->from->index].base >= 0 || expr_cost(op->nest.results[c->from->index].value) > 1)
        return false;
    c->op->nest.results = arena_copy(t->keep, &op->nest.results[c->from->index], sizeof *op->nest.results);
    c->op->operand_count = 0;
    return true;
}

static void merge_copies(struct mutation *t) {
    struct ir_func *f = t->func;
    struct copy **order = ARENA_ARRAY(&t->arena, struct copy *, t->copies.n + 1);
    struct ir_value **map = ARENA_ARRAY(&t->arena, struct ir_value *, f->value_count + 1);
    for (int i = 0; i < t->copies.n; i++)
        order[i] = &t->copies.at[i];
    qsort(order, (size_t)t->copies.n, sizeof *order, compare_copies);
    VEC(struct plan_copy) kept = {0};
    bool *merged = ARENA_ARRAY(&t->arena, bool, t->copies.n + 1);
    for (int i = 0; i < t->copies.n; i++) {
        struct copy *c = order[i];
        struct copy_obstacle why;
        int from = find(t, c->from->id), to = find(t, c->to->id);
        bool unite_them = may_unite(t, from, to, &why);
        if (!unite_them && t->drop_copy && why.what != OBSTACLE_TWO_PLACES && c->from->type.rank > 0)
            unite_them = ++*t->copies_seen == t->drop_copy;
        if (unite_them) {
            unite(t, c->from->id, c->to->id);
            merged[c->order] = true;
            continue;
        }
        t->copy_of[c->to->id] = NULL; /* it stays, and writes */
        if (repeat_fill(t, c))
            continue;
        struct plan_copy p = explain_copy(t->keep, c->from, c->write ? c->write : c->op, c->why_needed, why);
        if (p.bytes > 0 && c->from->type.rank > 0)
            VEC_PUSH(t->keep, kept, p);
    }
    for (int i = 0; i < t->copies.n; i++) {
        struct copy *c = &t->copies.at[i];
        if (!merged[c->order])
            continue;
        map[c->to->id] = c->from;
        ir_op_remove(c->op);
        if (c->update && c->old_slot != c->new_slot) {
            c->update->nest.results[c->result].base = c->old_slot;
            if (c->new_slot == c->update->operand_count - 1)
                c->update->operand_count--;
        }
    }
    ir_replace_values(f, map);
    t->plan->copies = kept.at;
    t->plan->copy_count = kept.n;
    for (int i = 0; i < f->value_count; i++)
        if (map[i]) { /* a removed value is a member no more */
            struct class *c = &t->classes[find(t, i)];
            for (int j = 0; j < c->members.n; j++)
                if (c->members.at[j]->id == i) {
                    memmove(&c->members.at[j], &c->members.at[j + 1],
                            sizeof *c->members.at * (size_t)(c->members.n - j - 1));
                    c->members.n--;
                    break;
                }
        }
}

/* Fresh elementwise results over operands that die: after the copies, on the final order. */
static void reuse_operands(struct mutation *t) {
    struct liveness *l = t->live;
    for (int i = 0; i < l->op_count; i++) {
        struct ir_op *op = l->ops[i].op;
        for (int k = 0; k < op->result_count; k++) {
            struct ir_value *r = op->results[k];
            if (!inplace_is_fresh(op, k) || r->type.rank == 0)
                continue;
            for (int j = 0; j < op->operand_count; j++) {
                struct ir_value *v = op->operands[j];
                int a = find(t, v->id), b = find(t, r->id);
                const struct class *x = &t->classes[a], *y = &t->classes[b];
                if (a == b || v->type.rank == 0 || l->last[v->id] != l->ops[i].start)
                    continue;
                /* A result's memory may serve its operands; a buffer's only versions of the buffer. */
                if ((x->pinned && x->kind != STORAGE_RESULT) || (y->pinned && y->kind != STORAGE_RESULT))
                    continue;
                struct copy_obstacle why;
                if (inplace_allowed(op, k, v, t->content) && may_unite(t, a, b, &why)) {
                    unite(t, a, b);
                    break;
                }
            }
        }
    }
}

/* ---- storages ----------------------------------------------------------------------------------------------------- */

static void make_storages(struct mutation *t) {
    struct ir_func *f = t->func;
    struct liveness *l = t->live;
    struct plan_func *p = t->plan;
    p->of_value = ARENA_ARRAY(t->keep, struct storage *, f->value_count + 1);
    VEC(struct storage *) storages = {0};
    struct storage **of = ARENA_ARRAY(&t->arena, struct storage *, f->value_count + 1);
    {
        for (int i = 0; i < f->value_count; i++) {
            if (l->def[i] < 0)
                continue;
            int root = find(t, i);
            struct class *c = &t->classes[root];
            const struct ir_value *v = NULL;
            for (int j = 0; j < c->members.n; j++)
                if (c->members.at[j]->id == i)
                    v = c->members.at[j];
            if (!v)
                continue;
            bool used = l->use_count[i] > 0;
            if (v->op && v->op->code == OP_check) { /* a token of order, unless something computes with it */
                used = false;
                for (int k = 0; k < l->use_count[i]; k++) {
                    const struct ir_op *user = l->uses[i][k].op;
                    used |= !user;
                    for (int s = 0; user && s < user->operand_count; s++)
                        used |= user->operands[s] == v && op_loads_slot(user, s);
                }
                if (!used)
                    continue;
            }
            if (!of[root]) {
                struct storage *s = ARENA_NEW(t->keep, struct storage);
                s->id = storages.n;
                s->kind = c->pinned           ? c->kind
                          : c->kept           ? STORAGE_CACHE
                          : v->type.rank == 0 ? STORAGE_SCALAR
                                              : STORAGE_ARENA;
                s->index = c->index;
                s->buffer = c->buffer;
                s->op = c->op;
                VEC_PUSH(t->keep, storages, s);
                of[root] = s;
            }
            struct storage *s = of[root];
            if (s->kind == STORAGE_SCALAR && v->type.rank > 0) /* a rank 0 value seen as [1] needs an address */
                s->kind = STORAGE_ARENA;
            p->of_value[i] = s;
            int64_t bytes = ir_type_bytes_upper(v->type);
            if (bytes > s->bytes)
                s->bytes = bytes;
            if (!s->name)
                s->name = s->buffer ? s->buffer->name : v->name ? v->name : v->buffer_name;
        }
    }
    p->storages = storages.at;
    p->storage_count = storages.n;
    p->positions = l->positions;
}

static void start_incremental(struct mutation *t) {
    t->plan->incremental = incremental_partition(t->func, t->keep);
    for (int i = 0; i < t->func->value_count; i++)
        VEC_PUSH(t->keep, t->group, t->plan->incremental->group[i]);
}

/* With values that outlive the call alive to its end, like what a buffer holds at exit. */
static struct liveness *liveness(struct mutation *t) {
    struct liveness *l = liveness_new(t->func, &t->arena);
    for (int i = 0; t->kept && i < t->func->value_count; i++)
        if (t->kept[i])
            l->last[i] = l->positions;
    return l;
}

void mutation_func(struct pass_context *c, struct ir_func *f, struct plan_func *p, int64_t *copies_seen) {
    struct mutation t = {.module = c->module, .func = f, .plan = p, .keep = &c->module->arena};
    t.drop_copy = c->options ? c->options->drop_copy : 0;
    t.copies_seen = copies_seen;
    memset(p, 0, sizeof *p);
    p->func = f;
    updates_early(f);
    if (f->is_incremental)
        start_incremental(&t);
    isolate_region(&t, f->body);
    isolate_exit(&t);
    if (p->incremental)
        t.kept = incremental_kept(f, t.group.at, &t.arena);
    t.live = liveness(&t);
    build_classes(&t);
    pin_classes(&t);
    merge_copies(&t);
    t.live = liveness(&t);
    reuse_operands(&t);
    make_storages(&t);
    if (p->incremental) {
        p->incremental->group = t.group.at;
        incremental_place(p, t.keep);
    }
    if (c->options && c->options->gradient_overwrite_error)
        explain_gradient_overwrites(c->diag, p);
    arena_free(&t.arena);
}

bool pass_mutation(struct pass_context *c) {
    struct ir_module *m = c->module;
    struct plan *plan = ARENA_NEW(&m->arena, struct plan);
    plan->arena = &m->arena;
    plan->split = c->split;
    plan->funcs = ARENA_ARRAY(&m->arena, struct plan_func, m->func_count + 1);
    int64_t copies_seen = 0;
    for (int i = 0; i < m->func_count; i++)
        mutation_func(c, m->funcs[i], &plan->funcs[plan->func_count++], &copies_seen);
    for (int i = 0; i < plan->func_count; i++) {
        plan->funcs[i].cache_offset = plan->cache_bytes;
        plan->cache_bytes += plan->funcs[i].cache_bytes;
    }
    if (m->init)
        mutation_func(c, m->init, &plan->funcs[plan->func_count++], &copies_seen);
    for (int i = 0; c->recomputed && i < plan->func_count; i++)
        plan->funcs[i].recomputed = c->recomputed[i];
    for (int i = 0; c->low_precision && i < plan->func_count; i++)
        plan->funcs[i].low_precision = c->low_precision[i];
    c->plan = plan;
    return true;
}
