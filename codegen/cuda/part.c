/* Parts: the stretches of a function between two places where the host must wait (a branch or loop on a value of the device, a check,
 * output, a C function). A part is a function of its own that only launches, so that its launches can be captured into a CUDA graph once
 * and replayed; the function itself keeps what the host computes, the waits, and a call of mx_play for each part.
 *
 * A replay passes the same arguments again. What may differ from call to call therefore reaches kernels through device memory: scalar
 * arguments, what the host makes of them, the counter of random numbers, run-time dimensions. The host puts such values into mx_values and
 * the block is copied before the part. What is left is in the graph's key: dimensions and scalars that loops, branches and sizes of
 * grids on the host depend on. A dimension that only grids depend on, and grow with, counts by its bucket: the grid is that of the
 * largest of the bucket, and blocks beyond the true number return at once.
 *
 * Updating the nodes of a graph in each call instead would cost about what launching does; a key of all values would capture anew
 * whenever a learning rate moves.
 */
#include <string.h>

#include "codegen/c/model_internal.h"
#include "codegen/cuda/cuda.h"
#include "passes/mutation/liveness.h"

enum { LEAST_LAUNCHES = 3, LEAST_LANES = 4 }; /* operations from which a graph, several streams are worth it */

/* ---- what goes into a part ------------------------------------------------------------------------------------------------ */

enum kind { HOST, DEVICE, NEITHER, WAITS };

static bool writes_host_scalar(const struct function *f, const struct ir_op *op) {
    for (int i = 0; i < op->result_count; i++)
        if (!function_is_host_scalar(f, op->results[i]))
            return false;
    return op->result_count > 0;
}

static const struct storage *host_storage(const struct function *f, const struct ir_value *v) {
    const struct storage *s = f->plan->of_value[v->id];
    return s && s->kind == STORAGE_SCALAR && f->slot[s->id] < 0 ? s : NULL;
}

struct inner { /* a loop or branch as part of a recording */
    const struct function *f;
    const struct ir_op *op;
    bool *own; /* [storage id] scalars of the host that it sets */
    bool fits;
};

static void note_own(struct inner *x, const struct ir_value *v) {
    const struct storage *s = host_storage(x->f, v);
    if (s)
        x->own[s->id] = true;
}

static void see_inner(struct ir_op *op, void *context) {
    struct inner *x = context;
    switch (op->code) {
    case OP_nest:
    case OP_rows:
    case OP_const:
    case OP_reshape:
    case OP_stop:
    case OP_sort:
    case OP_scan:
    case OP_rng:
    case OP_read:
    case OP_write: break;
    case OP_if: x->fits &= function_is_host_scalar(x->f, op->operands[0]); break;
    case OP_for:
        x->fits &= function_is_host_scalar(x->f, op->operands[0]) && function_is_host_scalar(x->f, op->operands[1]);
        break;
    default: x->fits = false;
    }
    for (int i = 0; i < op->result_count; i++)
        note_own(x, op->results[i]);
    for (int r = 0; op_runs_regions(op) && r < op->region_count; r++)
        for (int i = 0; i < op->regions[r]->arg_count; i++)
            note_own(x, op->regions[r]->args[i]);
}

static void see_outer(struct inner *x, const struct ir_region *r) {
    for (const struct ir_op *op = r->first; op && x->fits; op = op->next) {
        if (op == x->op)
            continue;
        for (int i = 0; i < op->operand_count + op->result_count; i++) {
            const struct ir_value *v = i < op->operand_count ? op->operands[i] : op->results[i - op->operand_count];
            const struct storage *s = host_storage(x->f, v);
            x->fits &= !s || !x->own[s->id];
        }
        for (int k = 0; op_runs_regions(op) && k < op->region_count; k++) {
            for (int i = 0; i < op->regions[k]->yield_count; i++) {
                const struct storage *s = host_storage(x->f, op->regions[k]->yields[i]);
                x->fits &= !s || !x->own[s->id];
            }
            see_outer(x, op->regions[k]);
        }
    }
    for (int i = 0; i < r->yield_count; i++) {
        const struct storage *s = host_storage(x->f, r->yields[i]);
        x->fits &= !s || !x->own[s->id];
    }
}

/* Whether the operation with regions launches and computes on the host only for itself. */
static bool can_be_recorded(struct function *f, struct ir_op *op) {
    struct arena scratch = {0};
    struct inner x = {.f = f, .op = op, .own = ARENA_ARRAY(&scratch, bool, f->plan->storage_count + 1), .fits = true};
    see_inner(op, &x);
    for (int r = 0; r < op->region_count; r++)
        ir_walk_ops(op->regions[r], see_inner, &x);
    if (x.fits)
        see_outer(&x, f->func->body);
    arena_free(&scratch);
    return x.fits;
}

static enum kind kind_of(struct function *f, struct ir_op *op) {
    const struct storage *s;
    switch (op->code) {
    case OP_nest: return function_on_host(f, op) ? HOST : DEVICE;
    case OP_const:
        s = function_storage(f, op->results[0]);
        return !s || s->kind == STORAGE_CONST ? NEITHER : writes_host_scalar(f, op) ? HOST : DEVICE;
    case OP_reshape:
    case OP_stop:
        s = function_storage(f, op->results[0]);
        if (!s || s == function_storage(f, op->operands[0]))
            return NEITHER;
        return writes_host_scalar(f, op) ? HOST : DEVICE;
    case OP_read: s = function_storage(f, op->results[0]); return !s || s->kind == STORAGE_BUFFER ? NEITHER : DEVICE;
    case OP_write:
        s = function_storage(f, op->operands[0]);
        return s && s->kind == STORAGE_BUFFER && s->buffer == op->buffer.buffer ? NEITHER : DEVICE;
    case OP_rows:
    case OP_sort:
    case OP_scan:
    case OP_rng: return DEVICE;
    case OP_dim:
    case OP_check: return function_is_host_scalar(f, op->operands[0]) ? HOST : WAITS; /* before the part is launched */
    case OP_if:
    case OP_for: return can_be_recorded(f, op) ? DEVICE : WAITS;
    default: return WAITS;
    }
}

static void note_read(struct ir_op *op, void *context) {
    struct inner *x = context;
    for (int i = 0; i < op->operand_count; i++)
        note_own(x, op->operands[i]);
}

/* ---- printing -------------------------------------------------------------------------------------------------------------- */

static const char *place_of(struct function *f, const char *first, const char *last) {
    struct arena *a = &f->g->arena;
    return !last ? first : arena_printf(a, "%s, %s to %s", f->func->name, first, last);
}

/* The text without comments and strings, and without the lines that launch if `host`. */
static void bare_text(const struct cuda_part *p, bool host, struct text *out) {
    const char *s = text_string(&p->body);
    int launch = 0;
    for (size_t i = 0; s[i];) {
        if (host && launch < p->launches.n && i == p->launches.at[launch].from) {
            i = p->launches.at[launch++].to;
            continue;
        }
        size_t skipped = (size_t)(unit_skip_literal(s + i, i == 0 || s[i - 1] == '\n') - (s + i));
        if (!skipped)
            text_addn(out, s + i, 1);
        i += skipped ? skipped : 1;
    }
}

struct key {
    const char *name, *type;
    int64_t most; /* > 0: by its bucket, at most this */
};

/* What the part's own text mentions of the function's variables. */
static struct key *key_of(struct function *f, const struct cuda_part *p, int *count) {
    struct cgen *g = f->g;
    struct text host = {0}, whole = {0};
    VEC(struct key) keys = {0};
    bare_text(p, true, &host);
    bare_text(p, false, &whole);
    const char *body = text_string(&whole), *locals = text_string(&p->locals);
    for (int i = 0; i < g->module->symbol_count; i++) {
        const struct ir_symbol *s = g->module->symbols[i];
        const char *name = f->symbol_var[s->id] ? cgen_name_of(g, f->symbol_var[s->id]->id) : NULL;
        if (!name || !cgen_mentions(body, name))
            continue;
        bool exact = cgen_mentions(text_string(&host), name);
        for (int k = 0; k < p->exact.n; k++)
            exact |= strcmp(p->exact.at[k], name) == 0;
        VEC_PUSH(&g->arena, keys, (struct key){name, "int64_t", exact ? 0 : s->hi});
    }
    for (int i = 0; i < f->plan->storage_count; i++) {
        const struct storage *s = f->plan->storages[i];
        const char *name = s->kind == STORAGE_SCALAR ? f->scalar_name[s->id] : NULL;
        if (name && f->scalar_type[s->id] && cgen_mentions(body, name) &&
            !strstr(locals, arena_printf(&g->arena, " %s = ", name)))
            VEC_PUSH(&g->arena, keys, (struct key){name, f->scalar_type[s->id], 0});
    }
    for (int i = 0; i < f->func->body->arg_count; i++) {
        const struct ir_value *v = f->func->body->args[i];
        const char *name = cgen_arg_name(g, f->func, i);
        if (v->type.rank == 0 && !(f->func->arg_inout && f->func->arg_inout[i]) && cgen_mentions(body, name))
            VEC_PUSH(&g->arena, keys, (struct key){name, cgen_c_type(v->type.dtype), 0});
    }
    for (int i = 0; i < f->counters.n; i++)
        if (cgen_mentions(body, f->counters.at[i]))
            VEC_PUSH(&g->arena, keys, (struct key){f->counters.at[i], "int64_t", 0});
    text_free(&host);
    text_free(&whole);
    *count = keys.n;
    return keys.at;
}

static void print_record(struct function *f, const struct cuda_part *p, const char *name, const struct key *keys,
                         int count) {
    struct text *out = &f->g->outlined;
    text_printf(out, "/* %s */\nstatic mx_status %s(struct %s *m, const int64_t *mx_key)\n{\n", p->where, name,
                f->g->prefix);
    if (!count)
        text_add(out, "    (void)mx_key;\n");
    for (int i = 0; i < count; i++)
        text_printf(out, "    %s %s;\n    memcpy(&%s, &mx_key[%d], sizeof %s);\n", keys[i].type, keys[i].name,
                    keys[i].name, i, keys[i].name);
    text_printf(out, "%s%s    return MX_OK;\n}\n\n", text_string(&p->locals), text_string(&p->body));
}

static void print_call(struct function *f, const struct cuda_part *p, const char *name, const struct key *keys,
                       int count) {
    struct cgen *g = f->g;
    struct cprint *out = &f->print;
    bool graph = (p->launches.n >= LEAST_LAUNCHES || p->loops) && f->func != g->module->init && !p->runs_once;
    int number = graph ? g->cuda->parts++ : -1;
    cprint_line(out, "{");
    out->indent++;
    if (count)
        cprint_line(out, "int64_t mx_key[%d] = {0};", count);
    for (int i = 0; i < count; i++) {
        const char *value = keys[i].name;
        if (keys[i].most > 0)
            value = arena_printf(&g->arena, "mx_bucket(%s, %lld)", value, (long long)keys[i].most);
        cprint_line(out, "MX_SET(mx_key, %d, %s, %s);", i, keys[i].type, value);
    }
    int most = 0;
    for (int i = 0; i < p->values.n; i++) {
        int k = p->values.at[i];
        cprint_line(out, "MX_SET(m->mx_values, %d, %s, %s);", k, f->values.at[k].type, f->values.at[k].text);
        most = k + 1 > most ? k + 1 : most;
    }
    cprint_line(out, "MX_TRY(%s_mx_play(m, %d, %s, %s, %d, %d, \"%s\"));", g->prefix, number, name,
                count ? "mx_key" : "NULL", count, most, p->where);
    out->indent--;
    cprint_line(out, "}");
    if (graph && count > g->cuda->key_most)
        g->cuda->key_most = count;
    if (most > g->cuda->value_count)
        g->cuda->value_count = most;
}

static void record(struct function *f, struct cuda_part *p, const struct cuda_unit *u) {
    struct text main = f->locals;
    struct text *out = f->print.out;
    int indent = f->print.indent;
    f->part = p;
    f->print.out = &p->body;
    f->print.indent = 1;
    f->locals = p->locals;
    if (u->count > 1)
        cuda_launch_together(f, u);
    else
        function_operation(f, u->ops[0]);
    p->locals = f->locals;
    f->locals = main;
    f->print.indent = indent;
    f->print.out = out;
    f->part = NULL;
}

static void wait_on(struct function *f, struct cuda_part *p, int lane, int event) {
    text_printf(&p->body, "    MX_TRY(%s_mx_after(m, %d, %d, \"%s\"));\n", f->g->prefix, lane, event, cuda_place(f));
}

static void mark(struct function *f, struct cuda_part *p, int lane, int event) {
    text_printf(&p->body, "    MX_TRY(%s_mx_mark(m, %d, %d, \"%s\"));\n", f->g->prefix, lane, event, cuda_place(f));
}

/* Event 0 is where the part began; an event a stream ends it. */
static void record_all(struct function *f, struct cuda_part *p, struct ir_op *const *ops, int op_count) {
    enum { BEGIN = 0, FIRST = CUDA_LANES };
    int events = 0;
    bool used[CUDA_LANES] = {true};
    int count;
    struct cuda_unit **units = cuda_units(f, ops, op_count, &count);
    struct cuda_node *nodes = count >= LEAST_LANES ? cuda_lanes(f, units, count, FIRST, &events) : NULL;
    bool several = false;
    for (int i = 0; nodes && i < count; i++)
        several |= nodes[i].lane > 0;
    f->op = units[0]->ops[0];
    if (several)
        mark(f, p, 0, BEGIN);
    for (int i = 0; i < count; i++) {
        const struct cuda_node *n = several ? &nodes[i] : NULL;
        f->op = units[i]->ops[0];
        f->lane = n ? n->lane : 0;
        if (n && n->lane && n->is_first) /* also where it waits for another: that stream may not have waited itself */
            wait_on(f, p, n->lane, BEGIN);
        for (int k = 0; n && k < n->wait_count; k++)
            wait_on(f, p, n->lane, nodes[n->waits[k]].event);
        record(f, p, units[i]);
        used[f->lane] = true;
        f->op = units[i]->ops[0];
        if (n && n->event >= 0)
            mark(f, p, n->lane, n->event);
    }
    for (int s = 1; s < CUDA_LANES; s++)
        if (used[s]) {
            mark(f, p, s, s);
            wait_on(f, p, 0, s);
        }
    f->lane = 0;
    if (events > f->g->cuda->event_count)
        f->g->cuda->event_count = events;
}

struct ir_op *cuda_part(struct function *f, struct ir_op *op) {
    struct cgen *g = f->g;
    VEC(struct ir_op *) ops = {0};
    VEC(struct ir_op *) host = {0};
    struct ir_op *end = op;
    bool loops = false;
    struct inner read = {.f = f, .own = ARENA_ARRAY(&g->arena, bool, f->plan->storage_count + 1)};
    for (; end; end = end->next) {
        enum kind k = kind_of(f, end);
        bool again = false; /* sets what a launch of this part has read */
        for (int i = 0; k == HOST && i < end->result_count; i++) {
            const struct storage *s = host_storage(f, end->results[i]);
            again |= s && read.own[s->id];
        }
        if (k == WAITS || again)
            break;
        if (k == DEVICE) {
            loops |= end->code == OP_for;
            VEC_PUSH(&g->arena, ops, end);
            note_read(end, &read);
            for (int r = 0; op_runs_regions(end) && r < end->region_count; r++)
                ir_walk_ops(end->regions[r], note_read, &read);
        } else {
            VEC_PUSH(&g->arena, host, end);
        }
    }
    for (int i = 0; i < host.n; i++)
        function_operation(f, host.at[i]);
    if (!ops.n)
        return end;
    struct cuda_part *p = ARENA_NEW(&g->arena, struct cuda_part);
    p->runs_once = strcmp(f->func->name, "reset_all") == 0 && !f->func->is_export;
    p->loops = loops;
    f->op = ops.at[0];
    const char *first = cuda_place(f);
    f->op = ops.at[ops.n - 1];
    p->where = place_of(f, first, ops.n > 1 ? cuda_place(f) : NULL);
    record_all(f, p, ops.at, ops.n);
    if (p->body.length) {
        int count;
        struct key *keys = key_of(f, p, &count);
        const char *name = arena_printf(&g->arena, "%s_mx_part_%d", g->prefix, g->cuda->part_functions++);
        print_record(f, p, name, keys, count);
        print_call(f, p, name, keys, count);
    }
    text_free(&p->body);
    text_free(&p->locals);
    return end;
}
