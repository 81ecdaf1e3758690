/* Evaluates prepared regions, operation by operation. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "eager/eager_internal.h"

int64_t eager_dims(const struct eager *e, struct ir_type t, int64_t *dims) {
    int64_t n = 1;
    for (int i = 0; i < t.rank; i++) {
        int64_t d = ir_dim_eval(t.dims[i], e->symbols);
        d = d < 0 ? 0 : d;
        if (dims)
            dims[i] = d;
        n *= d;
    }
    return n;
}

static size_t type_bytes(const struct eager *e, struct ir_type t) {
    return (size_t)(eager_dims(e, t, NULL) * dtype_size(t.dtype));
}

static struct mem *value_of(const struct eager *e, const struct ir_value *v) {
    return e->values[v->id];
}

/* Takes over the reference. */
static void set_value(struct eager *e, const struct ir_value *v, struct mem *m) {
    mem_drop(e, e->values[v->id]);
    e->values[v->id] = m;
}

static int64_t integer_of(const struct eager *e, const struct ir_value *v) {
    int64_t r[1];
    if (v->type.dtype == BOOL)
        return *(const uint8_t *)value_of(e, v)->data;
    vec_load(v->type.dtype, r, value_of(e, v)->data, 0, 1);
    return r[0];
}

/* The operand's only reference is this one and this operation its last use, and not from inside a loop's body, which
 * would read it again: its storage may be taken. */
static bool may_take(const struct eager *e, const struct step *s, int operand) {
    const struct ir_value *v = s->op->operands[operand];
    const struct mem *m = value_of(e, v);
    if (m->refs != 1 || m->borrowed)
        return false;
    for (int i = 0; i < s->op->operand_count; i++)
        if (i != operand && s->op->operands[i] == v)
            return false;
    for (int i = 0; i < s->release_count; i++)
        if (s->release[i] == v->id)
            return !s->inside[i];
    return false;
}

static struct mem *take_or_keep(struct eager *e, const struct step *s, int operand) {
    const struct ir_value *v = s->op->operands[operand];
    struct mem *m = value_of(e, v);
    if (!may_take(e, s, operand))
        return mem_keep(m);
    e->values[v->id] = NULL;
    return m;
}

/* The region's yields, each with a reference, and its values dropped. */
static void finish_region(struct eager *e, const struct code *c, struct mem **yields) {
    for (int i = 0; i < c->region->yield_count; i++)
        yields[i] = mem_keep(value_of(e, c->region->yields[i]));
    for (int i = 0; i < c->cleanup_count; i++) {
        mem_drop(e, e->values[c->cleanup[i]]);
        e->values[c->cleanup[i]] = NULL;
    }
}

static void drop_all(struct eager *e, struct mem **m, int n) {
    for (int i = 0; i < n; i++)
        mem_drop(e, m[i]);
}

/* ---- control flow ---- */

static int run_inline(struct eager *e, struct step *s, struct code *c) {
    struct ir_op *op = s->op;
    for (int i = 0; i < c->region->arg_count; i++)
        set_value(e, c->region->args[i], mem_keep(value_of(e, op->operands[i])));
    int status = eager_run_code(e, c);
    if (status)
        return status;
    struct mem **yields = calloc((size_t)c->region->yield_count + 1, sizeof *yields);
    finish_region(e, c, yields);
    for (int i = 0; i < op->result_count; i++)
        set_value(e, op->results[i], yields[i]);
    for (int i = op->result_count; i < c->region->yield_count; i++)
        mem_drop(e, yields[i]);
    free(yields);
    return 0;
}

static int too_many_trips(struct eager *e, int64_t limit) {
    return eager_fail(e, "loop exceeds its limit of %lld trips", (long long)limit);
}

/* After a loop: its results are what was carried last; after a failure nothing is. */
static int end_loop(struct eager *e, const struct ir_op *op, struct mem **carried, int n, int status) {
    for (int i = 0; i < n && !status; i++) {
        set_value(e, op->results[i], carried[i]);
        carried[i] = NULL;
    }
    drop_all(e, carried, n);
    free(carried);
    return status;
}

/* The carried values become the arguments of a region, from number `first`. */
static void hand_on(struct eager *e, const struct code *c, int first, struct mem **carried, int n) {
    for (int i = 0; i < n; i++) {
        set_value(e, c->region->args[first + i], carried[i]);
        carried[i] = NULL;
    }
}

static int run_for(struct eager *e, struct step *s) {
    struct ir_op *op = s->op;
    struct code *c = s->regions[0];
    int64_t lo = integer_of(e, op->operands[0]), hi = integer_of(e, op->operands[1]);
    int n = op->operand_count - 2, status = 0;
    if (op->loop.limit && hi > lo) {
        int64_t limit = ir_dim_eval(op->loop.limit, e->symbols);
        if ((uint64_t)hi - (uint64_t)lo > (uint64_t)limit)
            return too_many_trips(e, limit);
    }
    struct mem **carried = calloc((size_t)n + 1, sizeof *carried);
    for (int i = 0; i < n; i++)
        carried[i] = take_or_keep(e, s, i + 2);
    for (int64_t x = lo; x < hi; x++) {
        struct mem *index = mem_new(e, sizeof x);
        *(int64_t *)index->data = x;
        set_value(e, c->region->args[0], index);
        hand_on(e, c, 1, carried, n);
        status = eager_run_code(e, c);
        if (status)
            break;
        finish_region(e, c, carried);
    }
    return end_loop(e, op, carried, n, status);
}

static int run_while(struct eager *e, struct step *s) {
    struct ir_op *op = s->op;
    struct code *condition = s->regions[0], *body = s->regions[1];
    int n = op->operand_count, status = 0;
    int64_t limit = op->loop.limit ? ir_dim_eval(op->loop.limit, e->symbols) : INT64_MAX;
    struct mem **carried = calloc((size_t)n + 1, sizeof *carried), *go = NULL;
    for (int i = 0; i < n; i++)
        carried[i] = take_or_keep(e, s, i);
    for (int64_t trips = 0;; trips++) {
        for (int i = 0; i < n; i++)
            set_value(e, condition->region->args[i], mem_keep(carried[i]));
        status = eager_run_code(e, condition);
        if (status)
            break;
        finish_region(e, condition, &go);
        assert(go); /* a condition yields one value */
        bool again = *(const uint8_t *)go->data;
        mem_drop(e, go);
        if (!again)
            break;
        if (trips == limit) {
            status = too_many_trips(e, limit);
            break;
        }
        hand_on(e, body, 0, carried, n);
        status = eager_run_code(e, body);
        if (status)
            break;
        finish_region(e, body, carried);
    }
    return end_loop(e, op, carried, n, status);
}

/* ---- nests ---- */

static int run_nest(struct eager *e, struct step *s) {
    struct ir_op *op = s->op;
    if (s->plan && !nest_plan_fits(s->plan, e->symbols)) {
        nest_plan_free(s->plan);
        s->plan = NULL;
    }
    if (!s->plan)
        s->plan = nest_plan_new(op, e->symbols, e->table);
    if (!s->plan)
        return eager_fail(e, "out of memory");
    const void *operand_few[16];
    void *result_few[16];
    const void **operands =
        op->operand_count <= 16 ? operand_few : malloc(sizeof *operands * (size_t)op->operand_count);
    void **results = op->result_count <= 16 ? result_few : malloc(sizeof *results * (size_t)op->result_count);
    struct mem **made = calloc((size_t)op->result_count + 1, sizeof *made);
    int status = 0;
    for (int i = 0; i < op->operand_count; i++)
        operands[i] = value_of(e, op->operands[i])->data;
    for (int i = 0; i < op->result_count && !status; i++) {
        int base = op->nest.results[i].base;
        if (base >= 0 && s->base_free[i] && may_take(e, s, base)) {
            made[i] = take_or_keep(e, s, base);
            results[i] = made[i]->data;
            continue;
        }
        made[i] = mem_new(e, type_bytes(e, op->results[i]->type));
        if (!made[i]) {
            status = 1;
            break;
        }
        results[i] = made[i]->data;
        assert(base < op->operand_count);
        if (base >= 0)
            memcpy(results[i], operands[base], made[i]->bytes);
    }
    if (!status && !nest_plan_run(s->plan, &(struct nest_run){operands, results, e->symbols}))
        status = eager_fail(e, "out of memory");
    if (!status) {
        for (int i = 0; i < op->result_count; i++)
            set_value(e, op->results[i], made[i]);
    } else {
        drop_all(e, made, op->result_count);
    }
    free(made);
    if (operands != operand_few)
        free(operands);
    if (results != result_few)
        free(results);
    return status;
}

/* ---- the rest ---- */

static int run_dim(struct eager *e, struct ir_op *op) {
    const struct ir_symbol *s = op->dim.symbol;
    int64_t v = integer_of(e, op->operands[0]);
    if (v < s->lo || v > s->hi)
        return eager_fail(e, "dimension %s is %lld, which is not in %lld .. %lld", s->name, (long long)v,
                          (long long)s->lo, (long long)s->hi);
    e->symbols[s->id] = v;
    return 0;
}

static int run_step(struct eager *e, struct step *s) {
    struct ir_op *op = s->op;
    switch (op->code) {
    case OP_nest: return run_nest(e, s);
    case OP_const:
        set_value(e, op->results[0], mem_borrow(e, op->constant.data, type_bytes(e, op->results[0]->type)));
        return 0;
    case OP_reshape:
    case OP_stop: set_value(e, op->results[0], mem_keep(value_of(e, op->operands[0]))); return 0;
    case OP_sort: return eager_sort(e, op);
    case OP_scan: return eager_scan(e, op);
    case OP_rng: return eager_rng(e, op);
    case OP_dim: return run_dim(e, op);
    case OP_if: return run_inline(e, s, s->regions[integer_of(e, op->operands[0]) ? 0 : 1]);
    case OP_for: return run_for(e, s);
    case OP_while: return run_while(e, s);
    case OP_kernel:
    case OP_rows:
    case OP_checkpoint: return run_inline(e, s, s->regions[0]);
    case OP_extern: return eager_extern(e, op);
    case OP_check:
        if (!*(const uint8_t *)value_of(e, op->operands[0])->data)
            return eager_fail(e, "%s", op->name ? op->name : "a check failed");
        if (op->result_count)
            set_value(e, op->results[0], mem_keep(value_of(e, op->operands[0])));
        return 0;
    case OP_print: return eager_print(e, op);
    case OP_read: set_value(e, op->results[0], mem_keep(e->buffers[op->buffer.buffer->id])); return 0;
    case OP_write:
        mem_drop(e, e->pending[op->buffer.buffer->id]);
        e->pending[op->buffer.buffer->id] = mem_keep(value_of(e, op->operands[0]));
        return 0;
    case OP_grad:
    default: return eager_fail(e, "internal error: operation %d cannot be evaluated", (int)op->code);
    }
}

int eager_run_code(struct eager *e, struct code *c) {
    for (int i = 0; i < c->step_count; i++) {
        struct step *s = &c->steps[i];
        int status = run_step(e, s);
        if (status)
            return status;
        for (int j = 0; j < s->release_count; j++) {
            mem_drop(e, e->values[s->release[j]]);
            e->values[s->release[j]] = NULL;
        }
    }
    return 0;
}
