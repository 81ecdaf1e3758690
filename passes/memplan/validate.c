/* The plan's independent check: the function is run on paper. Every storage holds a token that names the content last
 * written to it; a value is read by comparing its token with what its storage holds. Writing a storage spoils whatever
 * shares bytes with it in the arena. Loop bodies run twice, which shows what the second iteration would find; the two
 * sides of an `if` start from the same memory; where they differ afterwards, only what both left alone is known. A nest may
 * still read elements of a content that updates in place of other elements followed.
 *
 * Nothing of the planner's own liveness or classes is used.
 */
#include "passes/passes.h"

#include <stdarg.h>
#include <string.h>

#include "passes/mutation/access.h"
#include "passes/mutation/incremental.h"
#include "passes/mutation/inplace.h"
#include "passes/nest_edit.h"

enum { NOTHING = 0 };

struct written {            /* how a content came about where another was partly kept; zeroed: it is of its own */
    int before;             /* the content that was updated */
    const struct ir_op *op; /* by this nest's */
    int result;
    int other; /* or, without op: one of two contents, by the side that an `if` took */
};

struct validator {
    const struct plan_func *p;
    struct text *why;
    bool ok;
    int *token; /* [value_count]: content that the value's name stands for */
    int *holds; /* [storage_count] */
    int next;
    VEC(struct written) made; /* by token */
    VEC(int) looked;          /* by token: the number of the question that last followed it */
    int questions;
    bool dirty;    /* a buffer or inout argument was changed */
    bool *entered; /* [storage_count]: holds what the caller gave */
    struct arena arena;
};

static void fail(struct validator *v, const struct ir_op *op, const char *format, ...) {
    if (!v->ok)
        return;
    v->ok = false;
    va_list args;
    text_printf(v->why, "plan of %s: ", v->p->func->name);
    va_start(args, format);
    text_vprintf(v->why, format, args);
    va_end(args);
    if (op)
        text_printf(v->why, " (at `%s`)", ir_optable[op->code].name);
    text_add(v->why, "\n");
}

static bool needs_storage(const struct ir_value *x) {
    return !(x->op && x->op->code == OP_check);
}

static bool overlap(const struct storage *a, const struct storage *b) {
    return a->kind == STORAGE_ARENA && b->kind == STORAGE_ARENA && a->offset < b->offset + b->bytes &&
           b->offset < a->offset + a->bytes;
}

struct spared {
    struct validator *v;
    const struct ir_op *op;
    const struct ir_value *value;
    struct access write;
    bool apart;
};

static void spare_load(ir_expr e, void *context) {
    struct spared *s = context;
    if (e->kind != X_LOAD || s->op->operands[e->index] != s->value)
        return;
    struct access read = {s->op, s->value, e->args};
    const struct ir_region *home = s->value->op ? s->value->op->parent : s->value->region;
    s->apart = s->apart && access_spares(s->write, read, home);
}

/* Whether all that the nest loads of the value is still there in the content `now`, back to the value's own. */
static bool kept_in(struct spared *s, int now) {
    struct validator *v = s->v;
    while (now != v->token[s->value->id]) {
        struct written w = now < v->made.n ? v->made.at[now] : (struct written){0};
        if (!w.op && !w.other)
            return false;
        while (v->looked.n <= now)
            VEC_PUSH(&v->arena, v->looked, 0);
        if (v->looked.at[now] == v->questions) /* another branch led here */
            return true;
        v->looked.at[now] = v->questions;
        if (w.op) {
            s->write = (struct access){w.op, w.op->results[w.result], w.op->nest.results[w.result].target};
            nest_walk(s->op, spare_load, s);
        } else if (!kept_in(s, w.other)) {
            return false;
        }
        if (!s->apart)
            return false;
        now = w.before;
    }
    return true;
}

/* Whether the nest finds what it loads of x although x's memory was written since: by updates of other elements. */
static bool elements_left(struct validator *v, const struct ir_op *op, const struct ir_value *x, int now) {
    if (!op || op->code != OP_nest || x->type.rank == 0)
        return false;
    for (int i = 0; i < op->operand_count; i++)
        if (op->operands[i] == x && nest_is_base(op, i))
            return false;
    struct spared s = {.v = v, .op = op, .value = x, .apart = true};
    v->questions++;
    return kept_in(&s, now);
}

static void note_written(struct validator *v, int token, struct written w) {
    while (v->made.n <= token)
        VEC_PUSH(&v->arena, v->made, (struct written){0});
    v->made.at[token] = w;
}

static void read_value(struct validator *v, const struct ir_op *op, const struct ir_value *x) {
    const struct storage *s = v->p->of_value[x->id];
    if (!s) {
        if (needs_storage(x))
            fail(v, op, "value %%%d%s%s is used but has no storage", x->id, x->name ? " " : "", x->name ? x->name : "");
        return;
    }
    if (v->holds[s->id] != v->token[x->id] && !elements_left(v, op, x, v->holds[s->id]))
        fail(v, op, "value %%%d%s%s is read after its memory was written over", x->id, x->name ? " " : "",
             x->name ? x->name : "");
}

/* What shares bytes with s holds nothing known any more. */
static void spoil(struct validator *v, const struct storage *s) {
    for (int i = 0; i < v->p->storage_count; i++)
        if (overlap(v->p->storages[i], s))
            v->holds[i] = NOTHING;
}

static void write_value(struct validator *v, const struct ir_op *op, const struct ir_value *x, int token) {
    const struct storage *s = v->p->of_value[x->id];
    v->token[x->id] = token;
    if (!s)
        return;
    if (s->bytes < ir_type_bytes_upper(x->type))
        fail(v, op, "storage %d is smaller than value %%%d", s->id, x->id);
    if (s->kind == STORAGE_CONST && op && op->code != OP_const && op->code != OP_reshape)
        fail(v, op, "a constant is written over");
    if (v->holds[s->id] == token)
        return;
    if (s->kind == STORAGE_ARG && !v->p->func->arg_inout[s->index])
        fail(v, op, "the caller's argument %d is written over", s->index);
    if (s->kind == STORAGE_BUFFER || s->kind == STORAGE_ARG)
        v->dirty = true;
    spoil(v, s);
    v->holds[s->id] = token;
}

/* ---- one operation ------------------------------------------------------------------------------------------------ */

struct loads {
    struct validator *v;
    const struct ir_op *op;
    int result;
    bool reduced; /* within the reduction: another element's sums may still need it */
};

static bool own_index(ir_expr e, int d, ir_dim extent) {
    int64_t n;
    if (e->kind == X_CONST)
        return e->value.i == 0 && ir_dim_is_const(extent, &n) && n == 1;
    return e->kind == X_INDEX && e->index == d;
}

static void check_load(ir_expr e, void *context) {
    struct loads *c = context;
    const struct ir_op *op = c->op;
    if (e->kind != X_LOAD)
        return;
    const struct ir_value *x = op->operands[e->index], *y = op->results[c->result];
    const struct ir_nest_result *r = &op->nest.results[c->result];
    if (c->v->p->of_value[x->id] != c->v->p->of_value[y->id])
        return;
    bool same = x->type.rank == y->type.rank && x->type.dtype == y->type.dtype, apart = false;
    for (int d = 0; d < y->type.rank && x->type.rank == y->type.rank; d++) {
        if (x->type.dims[d] != y->type.dims[d])
            same = false;
        if (r->base < 0) {
            same = same && own_index(e->args[d], d, y->type.dims[d]);
            continue;
        }
        same = same && (e->args[d] == r->target[d] ||
                        (own_index(e->args[d], d, y->type.dims[d]) && own_index(r->target[d], d, y->type.dims[d])));
    }
    if (r->base >= 0 && !same) {
        struct access load = {op, x, e->args}, write = {op, y, r->target};
        apart = access_disjoint(load, write, op->parent, false) ||
                (op->nest.reds == 0 && access_iterations_apart(load, write));
    }
    if (!same && !apart)
        fail(c->v, op, "value %%%d is written over while other elements of it are still to be read", x->id);
    if (r->base < 0 && op->nest.reds > 0 && c->reduced)
        fail(c->v, op, "a reduction is written over its operand %%%d", x->id);
}

static void check_nest(struct validator *v, const struct ir_op *op) {
    const struct ir_nest *n = &op->nest;
    for (int k = 0; k < op->result_count; k++) {
        struct loads c = {v, op, k, false};
        const struct storage *s = v->p->of_value[op->results[k]->id];
        if (!s)
            continue;
        if (n->results[k].base >= 0 && v->p->of_value[op->operands[n->results[k].base]->id] != s)
            fail(v, op, "an update's result %%%d is not in its base's storage", op->results[k]->id);
        nest_walk(op, check_load, &c);
        c.reduced = true;
        for (int i = 0; i < n->acc_count; i++)
            ir_expr_walk(n->accs[i].body, check_load, &c);
        for (int i = n->pars; i < n->pars + n->reds; i++) {
            ir_expr_walk(n->indices[i].lo, check_load, &c);
            ir_expr_walk(n->indices[i].hi, check_load, &c);
        }
    }
}

static void check_memory(struct validator *v, const struct ir_op *op) {
    for (int k = 0; k < op->result_count; k++) {
        const struct storage *s = v->p->of_value[op->results[k]->id];
        if (!s)
            continue;
        for (int j = 0; j < k; j++) {
            const struct storage *o = v->p->of_value[op->results[j]->id];
            if (o && (o == s || overlap(o, s)))
                fail(v, op, "two results of one operation share memory");
        }
        for (int i = 0; i < op->operand_count; i++) {
            const struct storage *o = v->p->of_value[op->operands[i]->id];
            if (!o)
                continue;
            bool in_place =
                op->code == OP_nest || (op->code == OP_rows && inplace_allowed(op, k, op->operands[i], v->token));
            if (o != s ? overlap(o, s) : !in_place && s->kind != STORAGE_SCALAR)
                fail(v, op, "an operand and a result share memory");
        }
    }
}

/* What a kernel works in lies apart from its operands and results, and whatever else lies there is lost. */
static void use_workspace(struct validator *v, const struct ir_op *op) {
    for (int w = 0; w < v->p->storage_count; w++) {
        const struct storage *s = v->p->storages[w];
        if (s->kind != STORAGE_ARENA || s->op != op)
            continue;
        for (int i = 0; i < op->operand_count + op->result_count; i++) {
            const struct ir_value *x = i < op->operand_count ? op->operands[i] : op->results[i - op->operand_count];
            const struct storage *o = v->p->of_value[x->id];
            if (o && overlap(o, s))
                fail(v, op, "its kernel works in the memory of %%%d", x->id);
        }
        spoil(v, s);
    }
}

static void run_region(struct validator *v, const struct ir_region *r);

static void run_loop(struct validator *v, const struct ir_op *op) {
    int lead = op->code == OP_for ? 2 : 0, skip = op->code == OP_for ? 1 : 0;
    const struct ir_region *body = op->regions[op->code == OP_for ? 0 : 1];
    int n = op->result_count;
    int *now = ARENA_ARRAY(&v->arena, int, n + 1); /* content of the carried values */
    for (int i = 0; i < n; i++) {
        read_value(v, op, op->operands[lead + i]);
        now[i] = v->token[op->operands[lead + i]->id];
        if (v->p->of_value[op->operands[lead + i]->id] != v->p->of_value[op->results[i]->id] ||
            v->p->of_value[body->args[skip + i]->id] != v->p->of_value[op->results[i]->id] ||
            v->p->of_value[body->yields[i]->id] != v->p->of_value[op->results[i]->id])
            fail(v, op, "a carried value changes its storage");
    }
    for (int turn = 0; turn < 2 && v->ok; turn++) {
        if (op->code == OP_while) {
            const struct ir_region *cond = op->regions[0];
            for (int i = 0; i < n; i++)
                v->token[cond->args[i]->id] = now[i];
            run_region(v, cond);
        }
        if (skip)
            write_value(v, op, body->args[0], v->next++);
        for (int i = 0; i < n; i++)
            v->token[body->args[skip + i]->id] = now[i];
        run_region(v, body);
        if (skip)
            read_value(v, op, body->args[0]);
        for (int i = 0; i < n; i++)
            now[i] = v->token[body->yields[i]->id];
    }
    if (op->code == OP_while) {
        for (int i = 0; i < n; i++)
            v->token[op->regions[0]->args[i]->id] = now[i];
        run_region(v, op->regions[0]);
    }
    for (int i = 0; i < n; i++)
        v->token[op->results[i]->id] = now[i];
    /* Zero iterations leave the initial values where the results are: same storage. Still there? */
    for (int i = 0; i < n; i++) {
        const struct storage *s = v->p->of_value[op->results[i]->id];
        if (s && v->holds[s->id] != now[i])
            fail(v, op, "a carried value's memory was written over inside the loop");
    }
}

static void run_if(struct validator *v, const struct ir_op *op) {
    size_t size = sizeof *v->holds * (size_t)(v->p->storage_count + 1);
    int *before = arena_copy(&v->arena, v->holds, size), *first = NULL;
    bool dirty_before = v->dirty, dirty = v->dirty;
    int *given[2] = {NULL, NULL}; /* by a side */
    for (int s = 0; s < op->region_count; s++) {
        given[s] = ARENA_ARRAY(&v->arena, int, op->result_count + 1);
        memcpy(v->holds, before, size);
        v->dirty = dirty_before;
        run_region(v, op->regions[s]);
        dirty |= v->dirty;
        for (int i = 0; i < op->result_count; i++) {
            const struct ir_value *yield = op->regions[s]->yields[i];
            const struct storage *r = v->p->of_value[op->results[i]->id];
            given[s][i] = v->token[yield->id];
            if (r != v->p->of_value[yield->id])
                fail(v, op, "a branch leaves its value in another storage");
            if (r && v->holds[r->id] != given[s][i])
                fail(v, op, "a branch's value was written over");
        }
        if (!first)
            first = arena_copy(&v->arena, v->holds, size);
    }
    for (int i = 0; first && i < v->p->storage_count; i++)
        if (first[i] != v->holds[i] && first[i] != NOTHING && v->holds[i] != NOTHING) {
            note_written(v, v->next, (struct written){.before = first[i], .other = v->holds[i]});
            v->holds[i] = v->next++;
        } else if (first[i] != v->holds[i]) {
            v->holds[i] = NOTHING;
        }
    for (int i = 0; i < op->result_count; i++) {
        const struct storage *r = v->p->of_value[op->results[i]->id];
        int last = given[op->region_count - 1][i];
        v->token[op->results[i]->id] = given[0][i] == last ? last : r ? v->holds[r->id] : v->next++;
    }
    v->dirty = dirty;
}

static void run_op(struct validator *v, const struct ir_op *op) {
    for (int i = 0; i < op->operand_count; i++)
        if (op_loads_slot(op, i))
            read_value(v, op, op->operands[i]);
    if ((op->code == OP_check || (op->code == OP_dim && !op->dim.inside)) && v->dirty)
        fail(v, op, "a check stands after a buffer was changed");
    switch (op->code) {
    case OP_for:
    case OP_while: run_loop(v, op); return;
    case OP_if:
    case OP_checkpoint: run_if(v, op); return;
    case OP_reshape:
        v->token[op->results[0]->id] = v->token[op->operands[0]->id];
        if (v->p->of_value[op->results[0]->id] != v->p->of_value[op->operands[0]->id])
            fail(v, op, "a view is not in its source's storage");
        return;
    case OP_read: {
        const struct storage *s = v->p->of_value[op->results[0]->id];
        if (!s)
            return;
        if (s->kind != STORAGE_BUFFER || s->buffer != op->buffer.buffer)
            fail(v, op, "a buffer is read in another place");
        /* After a write this is no version anybody may use. */
        v->token[op->results[0]->id] = v->entered[s->id] ? v->holds[s->id] : v->next++;
        return;
    }
    case OP_write: {
        const struct storage *s = v->p->of_value[op->operands[0]->id];
        if (s && (s->kind != STORAGE_BUFFER || s->buffer != op->buffer.buffer))
            fail(v, op, "buffer %s does not hold its value at exit", op->buffer.buffer->name);
        return;
    }
    case OP_nest: check_nest(v, op); break;
    default: break;
    }
    check_memory(v, op);
    use_workspace(v, op);
    for (int k = 0; k < op->result_count; k++) {
        const struct storage *s = v->p->of_value[op->results[k]->id];
        int before = s ? v->holds[s->id] : NOTHING, token = v->next++;
        if (s)
            v->entered[s->id] = false;
        if (s && op->code == OP_nest && op->nest.results[k].base >= 0)
            note_written(v, token, (struct written){.before = before, .op = op, .result = k});
        write_value(v, op, op->results[k], token);
    }
}

static void run_region(struct validator *v, const struct ir_region *r) {
    for (const struct ir_op *op = r->first; op && v->ok; op = op->next)
        run_op(v, op);
    for (int i = 0; i < r->yield_count && v->ok; i++)
        read_value(v, r->op, r->yields[i]);
}

bool plan_validate(const struct plan_func *p, struct text *why) {
    struct validator v = {.p = p, .why = why, .ok = true, .next = 1};
    const struct ir_func *f = p->func;
    v.token = ARENA_ARRAY(&v.arena, int, f->value_count + 1);
    v.holds = ARENA_ARRAY(&v.arena, int, p->storage_count + 1);
    v.entered = ARENA_ARRAY(&v.arena, bool, p->storage_count + 1);
    for (int i = 0; i < p->storage_count; i++) {
        const struct storage *s = p->storages[i];
        if (s->kind == STORAGE_ARENA && (s->offset < 0 || s->offset % 64 || s->offset + s->bytes > p->arena_bytes))
            fail(&v, NULL, "storage %d lies outside the arena or is not aligned", i);
        if (s->kind == STORAGE_BUFFER || s->kind == STORAGE_ARG) {
            v.holds[i] = v.next++;
            v.entered[i] = true;
        }
    }
    for (int i = 0; i < f->body->arg_count; i++) {
        const struct storage *s = p->of_value[f->body->args[i]->id];
        if (s && (s->kind != STORAGE_ARG || s->index != i))
            fail(&v, NULL, "argument %d is not in the caller's memory", i);
        v.token[f->body->args[i]->id] = s ? v.holds[s->id] : NOTHING;
    }
    run_region(&v, f->body);
    for (int i = 0; i < f->body->yield_count && v.ok; i++) {
        const struct storage *s = p->of_value[f->body->yields[i]->id];
        bool result = i < f->result_count;
        if (!s || (result && (s->kind != STORAGE_RESULT || s->index != i)) || (!result && s->kind != STORAGE_ARG))
            fail(&v, NULL, "result %d is not in the caller's memory", i);
    }
    for (const struct ir_op *op = f->body->first; op && v.ok; op = op->next)
        if (op->code == OP_write)
            read_value(&v, op, op->operands[0]);
    arena_free(&v.arena);
    return v.ok && (!p->incremental || incremental_validate(p, why));
}

struct needs {
    const struct pass_context *c;
    const struct plan_func *p;
    struct text *why;
    bool ok;
};

static void check_need(struct ir_op *op, void *context) {
    struct needs *n = context;
    const bool is_part = op->parent->op && op->parent->op->code == OP_rows; /* the whole is what has a kernel */
    int64_t need = is_part ? 0 : n->c->workspace(n->c->options, n->p, op), given = 0;
    for (int i = 0; i < n->p->storage_count; i++)
        if (n->p->storages[i]->kind == STORAGE_ARENA && n->p->storages[i]->op == op)
            given = n->p->storages[i]->bytes;
    if (given >= need)
        return;
    n->ok = false;
    text_printf(n->why, "plan of %s: a kernel needs %lld bytes to work in and has %lld (at `%s`)\n", n->p->func->name,
                (long long)need, (long long)given, ir_optable[op->code].name);
}

bool plan_validate_workspaces(const struct pass_context *c, const struct plan_func *p, struct text *why) {
    struct needs n = {c, p, why, true};
    if (c->workspace)
        ir_walk_ops(p->func->body, check_need, &n);
    return n.ok;
}
