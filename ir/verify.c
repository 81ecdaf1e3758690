/* Checks every invariant that ir.h states. Run after each pass in debug builds and in the tests.
 *
 * One walk over each function in program order, with the set of values and symbols that are visible: a region's own
 * become invisible again at its end, which is dominance in an IR without jumps. Nothing here trusts anything that was not
 * checked before it, as the verifier also judges IR text from outside.
 */

#include "ir/text.h"

struct verifier {
    const struct ir_module *module;
    const struct ir_func *func;
    const struct ir_op *op; /* the operation looked at, for messages; NULL: the function itself */
    struct text *why;
    int errors;
    struct arena arena;
    const struct ir_value **values; /* by id: the one value that has it */
    bool *visible;                  /* by id */
    bool *symbols;                  /* by symbol id: bound here */
    bool *symbol_met;
    bool *reads, *writes;         /* by buffer id */
    VEC(int) scope, symbol_scope; /* what became visible, to be undone */
};

enum { MAX_ERRORS = 20 };

static void fail(struct verifier *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct verifier *v, const char *format, ...) {
    if (v->errors++ >= MAX_ERRORS)
        return;
    if (v->func)
        text_printf(v->why, "%s: ", v->func->name ? v->func->name : "?");
    if (v->op) {
        for (int i = 0; i < v->op->result_count; i++)
            text_printf(v->why, "%s%%%d", i ? ", " : "", v->op->results[i] ? v->op->results[i]->id : -1);
        text_printf(v->why, "%s%s: ", v->op->result_count ? " = " : "", ir_optable[v->op->code].name);
    }
    va_list args;
    va_start(args, format);
    text_vprintf(v->why, format, args);
    va_end(args);
    text_add(v->why, "\n");
}

/* ---- types ------------------------------------------------------------------------------------------------------ */

static void check_symbol(const struct ir_symbol *s, void *context) {
    struct verifier *v = context;
    if (s->id < 0 || s->id >= v->module->symbol_count || !v->symbols || !v->symbols[s->id])
        fail(v, "the dimension symbol %s is not bound here", s->name);
}

static void check_dim(struct verifier *v, ir_dim d) {
    if (!d)
        fail(v, "a dimension is missing");
    else
        ir_dim_symbols(d, check_symbol, v);
}

static void check_type(struct verifier *v, struct ir_type t) {
    if ((int)t.dtype < 0 || t.dtype >= DTYPE_COUNT || t.rank < 0) {
        fail(v, "a type is malformed");
        return;
    }
    for (int i = 0; i < t.rank; i++)
        check_dim(v, t.dims[i]);
}

/* Types for messages; in the verifier's arena. */
static const char *type_text(struct verifier *v, struct ir_type t) {
    struct text out = {0};
    ir_print_type(&out, t);
    const char *s = arena_strdup(&v->arena, text_string(&out));
    text_free(&out);
    return s;
}

static void same_type(struct verifier *v, const char *what, struct ir_type is, struct ir_type expected) {
    if (!ir_type_equal(is, expected))
        fail(v, "%s is %s, expected %s", what, type_text(v, is), type_text(v, expected));
}

static void scalar_of(struct verifier *v, const char *what, struct ir_type t, enum dtype d) {
    if (t.rank != 0 || t.dtype != d)
        fail(v, "%s is %s, expected %s", what, type_text(v, t), dtype_name(d));
}

/* ---- expressions ------------------------------------------------------------------------------------------------ */

struct expr_check {
    struct verifier *v;
    int indices; /* those that may occur: 0 .. indices */
    bool accs;   /* whether ACC may occur */
};

static enum dtype acc_dtype(const struct ir_acc *a) {
    return a->op == RED_ARGMAX || a->op == RED_ARGMIN ? I32 : a->body->dtype;
}

static void check_call(struct verifier *v, ir_expr e) {
    if ((int)e->fn < 0 || e->fn >= FN_COUNT || e->count != scalar_table[e->fn].arity) {
        fail(v, "a scalar function has the wrong number of arguments");
        return;
    }
    const struct scalar_info *info = &scalar_table[e->fn];
    int first = info->type_class == CLASS_SEL ? 1 : 0;
    enum dtype t = e->args[first]->dtype, result = t;
    bool fits = true;
    for (int i = first; i < e->count; i++)
        if (e->args[i]->dtype != t) {
            fail(v, "the arguments of %s are %s and %s", info->name, dtype_name(t), dtype_name(e->args[i]->dtype));
            return;
        }
    switch (info->type_class) {
    case CLASS_NUM: fits = t != BOOL; break;
    case CLASS_FLT: fits = dtype_is_float(t); break;
    case CLASS_INT: fits = dtype_is_int(t); break;
    case CLASS_BIT: fits = dtype_is_int(t) || t == BOOL; break;
    case CLASS_CMP: result = BOOL; break;
    case CLASS_LOG: fits = t == BOOL; break;
    case CLASS_SEL: fits = e->args[0]->dtype == BOOL; break;
    }
    if (!fits)
        fail(v, "%s does not take %s", info->name, dtype_name(first ? e->args[0]->dtype : t));
    else if (e->dtype != result)
        fail(v, "%s of %s gives %s, not %s", info->name, dtype_name(t), dtype_name(result), dtype_name(e->dtype));
}

static void check_node(ir_expr e, void *context) {
    const struct expr_check *c = context;
    struct verifier *v = c->v;
    const struct ir_op *op = v->op;
    switch (e->kind) {
    case X_CONST: break;
    case X_INDEX:
        if (e->index < 0 || e->index >= c->indices)
            fail(v, "index variable %d stands where only %d are in scope", e->index, c->indices);
        if (e->dtype != I64)
            fail(v, "an index variable is %s, expected i64", dtype_name(e->dtype));
        break;
    case X_DIM:
        check_dim(v, e->dim);
        if (e->dtype != I64)
            fail(v, "a dimension is %s, expected i64", dtype_name(e->dtype));
        break;
    case X_LOAD: {
        if (e->index < 0 || e->index >= op->operand_count) {
            fail(v, "a load names slot %d of %d operands", e->index, op->operand_count);
            break;
        }
        struct ir_type t = op->operands[e->index]->type;
        int rank = e->count - e->guarded;
        if (rank != t.rank)
            fail(v, "a load of %%%d has %d subscripts, expected %d", op->operands[e->index]->id, rank, t.rank);
        if (e->dtype != t.dtype)
            fail(v, "a load of %%%d is %s, expected %s", op->operands[e->index]->id, dtype_name(e->dtype),
                 dtype_name(t.dtype));
        for (int i = 0; i < rank; i++)
            if (!dtype_is_int(e->args[i]->dtype))
                fail(v, "a subscript is %s, expected an integer", dtype_name(e->args[i]->dtype));
        if (e->guarded && e->args[rank]->dtype != e->dtype)
            fail(v, "the value outside of a load is %s, expected %s", dtype_name(e->args[rank]->dtype),
                 dtype_name(e->dtype));
        break;
    }
    case X_FN: check_call(v, e); break;
    case X_CAST: break;
    case X_BITCAST:
        if (dtype_size(e->dtype) != dtype_size(e->args[0]->dtype))
            fail(v, "bitcast of %s to %s changes the size", dtype_name(e->args[0]->dtype), dtype_name(e->dtype));
        break;
    case X_ACC:
        if (!c->accs || op->nest.reds == 0)
            fail(v, "an accumulator stands outside the results of a nest that reduces");
        else if (e->index < 0 || e->index >= op->nest.acc_count)
            fail(v, "accumulator %d of %d", e->index, op->nest.acc_count);
        else if (e->dtype != acc_dtype(&op->nest.accs[e->index]))
            fail(v, "accumulator %d is used as %s, expected %s", e->index, dtype_name(e->dtype),
                 dtype_name(acc_dtype(&op->nest.accs[e->index])));
        break;
    }
}

static bool check_expr(struct verifier *v, ir_expr e, int indices, bool accs) {
    if (!e) {
        fail(v, "an expression is missing");
        return false;
    }
    struct expr_check c = {v, indices, accs};
    ir_expr_walk(e, check_node, &c);
    return true;
}

static void check_accumulator(struct verifier *v, const struct ir_acc *a, int number) {
    enum dtype t = a->body->dtype;
    bool logic = a->op == RED_ANY || a->op == RED_ALL;
    if ((int)a->op < 0 || a->op >= RED_COUNT)
        fail(v, "accumulator %d has no reduction", number);
    else if (logic != (t == BOOL))
        fail(v, "accumulator %d: %s does not take %s", number, reduce_names[a->op], dtype_name(t));
    else if ((a->op == RED_SUM || a->op == RED_PROD) && (t == F16 || t == BF16))
        fail(v, "accumulator %d: %s of %s accumulates in f32", number, reduce_names[a->op], dtype_name(t));
}

static void check_nest_result(struct verifier *v, const struct ir_nest_result *r, const struct ir_value *result) {
    const struct ir_nest *n = &v->op->nest;
    if (!check_expr(v, r->value, n->pars, true))
        return;
    struct ir_type expected = result->type;
    if (r->base < 0) {
        if (result->type.rank != n->pars) {
            fail(v, "%%%d has rank %d, but the nest has %d parallel indices", result->id, result->type.rank, n->pars);
            return;
        }
        for (int i = 0; i < n->pars; i++)
            if (result->type.dims[i] != n->indices[i].extent)
                fail(v, "dimension %d of %%%d (%s) is not the extent of index %d", i, result->id,
                     type_text(v, result->type), i);
    } else if (r->base >= v->op->operand_count) {
        fail(v, "the base of %%%d is slot %d of %d operands", result->id, r->base, v->op->operand_count);
        return;
    } else {
        expected = v->op->operands[r->base]->type;
        same_type(v, "an updated version", result->type, expected);
        for (int i = 0; i < expected.rank; i++)
            if (check_expr(v, r->target[i], n->pars, true) && !dtype_is_int(r->target[i]->dtype))
                fail(v, "a target is %s, expected an integer", dtype_name(r->target[i]->dtype));
        if (r->combine == COMBINE_ADD && expected.dtype == BOOL)
            fail(v, "bool elements cannot be added to");
    }
    if (r->value->dtype != expected.dtype)
        fail(v, "the value of %%%d is %s, expected %s", result->id, dtype_name(r->value->dtype),
             dtype_name(expected.dtype));
}

static void check_nest(struct verifier *v) {
    const struct ir_op *op = v->op;
    const struct ir_nest *n = &op->nest;
    if (n->pars < 0 || n->reds < 0 || n->acc_count < 0 || op->result_count == 0 || !n->results) {
        fail(v, "the nest is malformed or gives nothing");
        return;
    }
    if (n->acc_count && !n->reds)
        fail(v, "the nest has accumulators but no reduction");
    for (int i = 0; i < n->pars + n->reds; i++) {
        check_dim(v, n->indices[i].extent);
        if (i < n->pars)
            continue;
        const struct ir_nest_index *x = &n->indices[i];
        if (check_expr(v, x->lo, i, false) && check_expr(v, x->hi, i, false) &&
            (x->lo->dtype != I64 || x->hi->dtype != I64))
            fail(v, "the bounds of index %d are %s and %s, expected i64", i, dtype_name(x->lo->dtype),
                 dtype_name(x->hi->dtype));
    }
    for (int i = 0; i < n->acc_count; i++) {
        if (!check_expr(v, n->accs[i].body, n->pars + n->reds, false))
            return;
        check_accumulator(v, &n->accs[i], i);
    }
    for (int i = 0; i < op->result_count; i++)
        check_nest_result(v, &n->results[i], op->results[i]);
}

/* ---- operations ------------------------------------------------------------------------------------------------- */

static bool counts(struct verifier *v, int operands, int results, int regions) {
    const struct ir_op *op = v->op;
    if (operands >= 0 && op->operand_count != operands)
        fail(v, "has %d operands, expected %d", op->operand_count, operands);
    else if (results >= 0 && op->result_count != results)
        fail(v, "has %d results, expected %d", op->result_count, results);
    else if (op->region_count != regions)
        fail(v, "has %d regions, expected %d", op->region_count, regions);
    else
        return true;
    return false;
}

/* values[0 .. n) have the types of expected[0 .. m). */
static void same_types(struct verifier *v, const char *what, struct ir_value *const *values, int n,
                       struct ir_value *const *expected, int m) {
    if (n != m) {
        fail(v, "has %d %s, expected %d", n, what, m);
        return;
    }
    for (int i = 0; i < n; i++)
        if (!ir_type_equal(values[i]->type, expected[i]->type))
            fail(v, "%s: %%%d is %s, expected %s", what, values[i]->id, type_text(v, values[i]->type),
                 type_text(v, expected[i]->type));
}

static void check_loop(struct verifier *v) {
    const struct ir_op *op = v->op;
    int64_t limit;
    if (op->loop.limit && (!ir_dim_is_const(op->loop.limit, &limit) || limit < 0))
        fail(v, "the limit of the loop is not a constant");
    if (op->code == OP_for) {
        if (!counts(v, -1, op->operand_count - 2, 1))
            return;
        const struct ir_region *r = op->regions[0];
        scalar_of(v, "the lower bound", op->operands[0]->type, I64);
        scalar_of(v, "the upper bound", op->operands[1]->type, I64);
        if (r->arg_count < 1) {
            fail(v, "the region has no argument for the index");
            return;
        }
        scalar_of(v, "the index", r->args[0]->type, I64);
        same_types(v, "region arguments", r->args + 1, r->arg_count - 1, op->operands + 2, op->operand_count - 2);
        same_types(v, "yields", r->yields, r->yield_count, op->results, op->result_count);
        same_types(v, "results", op->results, op->result_count, op->operands + 2, op->operand_count - 2);
        return;
    }
    if (!counts(v, -1, op->operand_count, 2))
        return;
    const struct ir_region *c = op->regions[0], *r = op->regions[1];
    same_types(v, "arguments of the condition", c->args, c->arg_count, op->operands, op->operand_count);
    same_types(v, "arguments of the body", r->args, r->arg_count, op->operands, op->operand_count);
    if (c->yield_count != 1)
        fail(v, "the condition yields %d values, expected one", c->yield_count);
    else
        scalar_of(v, "the condition", c->yields[0]->type, BOOL);
    same_types(v, "yields", r->yields, r->yield_count, op->results, op->result_count);
    same_types(v, "results", op->results, op->result_count, op->operands, op->operand_count);
}

static void check_kernel(struct verifier *v) {
    const struct ir_op *op = v->op;
    int regions = op->code == OP_kernel && op->region_count == 2 ? 2 : 1;
    if (op->code == OP_kernel && !op->region_count) { /* the target's own */
        if (!op->name || !op->kernel.tuned)
            fail(v, "the kernel has neither a definition nor a name that a target knows");
        if (op->kernel.limit)
            check_dim(v, op->kernel.limit);
        return;
    }
    if (!counts(v, -1, -1, regions))
        return;
    const struct ir_region *r = op->regions[0];
    same_types(v, "region arguments", r->args, r->arg_count, op->operands, op->operand_count);
    same_types(v, "yields", r->yields, r->yield_count, op->results, op->result_count);
    if (op->code == OP_kernel && !op->name)
        fail(v, "the kernel has no name");
    for (const struct ir_op *x = op->code == OP_rows ? r->first : NULL; x; x = x->next)
        if (x->code != OP_nest)
            fail(v, "`%s` stands among the nests over rows", ir_optable[x->code].name);
    if (regions == 1)
        return;
    const struct ir_region *g = op->regions[1];
    VEC(struct ir_value *) args = {0};
    VEC(struct ir_value *) floats = {0};
    for (int i = 0; i < op->operand_count; i++) {
        VEC_PUSH(&v->arena, args, op->operands[i]);
        if (dtype_is_float(op->operands[i]->type.dtype))
            VEC_PUSH(&v->arena, floats, op->operands[i]);
    }
    for (int i = 0; i < op->result_count; i++)
        VEC_PUSH(&v->arena, args, op->results[i]);
    for (int i = 0; i < op->result_count; i++)
        if (dtype_is_float(op->results[i]->type.dtype))
            VEC_PUSH(&v->arena, args, op->results[i]);
    same_types(v, "arguments of the gradient", g->args, g->arg_count, args.at, args.n);
    same_types(v, "yields of the gradient", g->yields, g->yield_count, floats.at, floats.n);
}

static void check_sort(struct verifier *v) {
    const struct ir_op *op = v->op;
    if (!counts(v, 1, 2, 0))
        return;
    struct ir_type t = op->operands[0]->type;
    if (op->sort.axis < 0 || op->sort.axis >= t.rank) {
        fail(v, "axis %d of rank %d", op->sort.axis, t.rank);
        return;
    }
    if (op->sort.limit) {
        check_dim(v, op->sort.limit);
        ir_dim *dims = arena_copy(&v->arena, t.dims, sizeof *dims * (size_t)t.rank);
        dims[op->sort.axis] = op->sort.limit;
        t.dims = dims;
    }
    same_type(v, "the values", op->results[0]->type, t);
    t.dtype = I64;
    same_type(v, "the positions", op->results[1]->type, t);
}

static void check_extern(struct verifier *v) {
    const struct ir_op *op = v->op;
    if (!counts(v, -1, -1, 0))
        return;
    for (int i = 0; i < op->external.param_count; i++) {
        int k = op->external.params[i];
        if (k >= op->operand_count || (k < 0 && ~k >= op->result_count))
            fail(v, "parameter %d names %s %d, which there is not", i, k < 0 ? "result" : "operand", k < 0 ? ~k : k);
    }
    if (op->external.returns && op->result_count == 0)
        fail(v, "returns a value but has no result");
    if (!op->external.symbol || !*op->external.symbol)
        fail(v, "the C function has no name");
}

static void check_reshape(struct verifier *v) {
    if (!counts(v, 1, 1, 0))
        return;
    struct ir_module *m = v->func->module; /* interning makes new dimensions; nothing else changes */
    struct ir_type from = v->op->operands[0]->type, to = v->op->results[0]->type;
    ir_dim a = ir_type_elements(m, from), b = ir_type_elements(m, to);
    if (from.dtype != to.dtype || (a != b && (ir_dim_lt(m, a, b) || ir_dim_lt(m, b, a))))
        fail(v, "%s becomes %s", type_text(v, from), type_text(v, to));
}

static void check_buffer(struct verifier *v) {
    const struct ir_op *op = v->op;
    bool write = op->code == OP_write;
    if (!counts(v, write ? 1 : 0, write ? 0 : 1, 0))
        return;
    const struct ir_buffer *b = op->buffer.buffer;
    if (!b || b->id < 0 || b->id >= v->module->buffer_count || v->module->buffers[b->id] != b) {
        fail(v, "the buffer is not one of the module");
        return;
    }
    bool *done = write ? v->writes : v->reads;
    if (done[b->id])
        fail(v, "%s is %s twice", b->name, write ? "written" : "read");
    done[b->id] = true;
    if (write && op->parent->op)
        fail(v, "%s is written inside a region, expected the function's body", b->name);
    same_type(v, b->name, write ? op->operands[0]->type : op->results[0]->type, b->type);
}

static void check_grad(struct verifier *v) {
    const struct ir_op *op = v->op;
    if (!counts(v, -1, op->operand_count - 1, 0))
        return;
    if (op->operands[0]->type.rank != 0 || !dtype_is_float(op->operands[0]->type.dtype))
        fail(v, "the gradient of %s, expected a float scalar", type_text(v, op->operands[0]->type));
    for (int i = 0; i < op->result_count; i++) {
        const struct ir_buffer *b = op->grad.wrt_buffers ? op->grad.wrt_buffers[i] : NULL;
        same_type(v, "a gradient", op->results[i]->type, b ? b->type : op->operands[i + 1]->type);
    }
}

static void check_dim_op(struct verifier *v) {
    const struct ir_op *op = v->op;
    const struct ir_symbol *s = op->dim.symbol;
    if (!counts(v, 1, 0, 0))
        return;
    if (op->operands[0]->type.rank != 0 || !dtype_is_int(op->operands[0]->type.dtype))
        fail(v, "the operand is %s, expected an integer scalar", type_text(v, op->operands[0]->type));
    if (!s || s->id < 0 || s->id >= v->module->symbol_count || s->op != op || s->func != v->func || s->lo > s->hi)
        fail(v, "the symbol is not one that this operation binds");
    else if (v->symbol_met[s->id])
        fail(v, "the symbol %s is bound twice", s->name);
    else
        v->symbols[s->id] = v->symbol_met[s->id] = true;
    if (s && s->id >= 0 && s->id < v->module->symbol_count)
        VEC_PUSH(&v->arena, v->symbol_scope, s->id);
}

static void check_op(struct verifier *v) {
    const struct ir_op *op = v->op;
    int64_t n;
    switch (op->code) {
    case OP_nest:
        if (counts(v, -1, -1, 0))
            check_nest(v);
        break;
    case OP_const:
        if (counts(v, 0, 1, 0))
            for (int i = 0; i < op->results[0]->type.rank; i++)
                if (!ir_dim_is_const(op->results[0]->type.dims[i], &n) || n < 0 || !op->constant.data)
                    fail(v, "the type of a constant is %s", type_text(v, op->results[0]->type));
        break;
    case OP_reshape: check_reshape(v); break;
    case OP_sort: check_sort(v); break;
    case OP_scan:
        if (!counts(v, 1, 1, 0))
            break;
        same_type(v, "the result", op->results[0]->type, op->operands[0]->type);
        if (op->scan.axis < 0 || op->scan.axis >= op->operands[0]->type.rank || op->scan.op > RED_MIN ||
            op->operands[0]->type.dtype == BOOL)
            fail(v, "no such axis, reduction or type");
        break;
    case OP_rng:
        if (!counts(v, -1, 1, 0))
            break;
        if (op->results[0]->type.dtype != U32 && op->results[0]->type.dtype != U64)
            fail(v, "gives %s, expected u32 or u64", type_text(v, op->results[0]->type));
        for (int i = 0; i < op->operand_count; i++)
            scalar_of(v, "a loop counter", op->operands[i]->type, I64);
        break;
    case OP_dim: check_dim_op(v); break;
    case OP_if:
        if (!counts(v, 1, -1, 2))
            break;
        scalar_of(v, "the condition", op->operands[0]->type, BOOL);
        for (int i = 0; i < 2; i++) {
            if (op->regions[i]->arg_count)
                fail(v, "a branch has arguments");
            same_types(v, "yields", op->regions[i]->yields, op->regions[i]->yield_count, op->results, op->result_count);
        }
        break;
    case OP_for:
    case OP_while:
        if (op->operand_count < (op->code == OP_for ? 2 : 0))
            fail(v, "the bounds are missing");
        else
            check_loop(v);
        break;
    case OP_kernel:
    case OP_rows:
    case OP_checkpoint: check_kernel(v); break;
    case OP_grad:
        if (op->operand_count < 1)
            fail(v, "has no operand");
        else
            check_grad(v);
        break;
    case OP_stop:
        if (counts(v, 1, 1, 0))
            same_type(v, "the result", op->results[0]->type, op->operands[0]->type);
        break;
    case OP_extern: check_extern(v); break;
    case OP_check:
        if (op->operand_count < 1 || !counts(v, -1, 1, 0)) {
            fail(v, "expected a condition and one result");
            break;
        }
        scalar_of(v, "the condition", op->operands[0]->type, BOOL);
        scalar_of(v, "the result", op->results[0]->type, BOOL);
        if (!op->name)
            fail(v, "the check has no message");
        break;
    case OP_print: counts(v, -1, 0, 0); break;
    case OP_read:
    case OP_write: check_buffer(v); break;
    default: fail(v, "there is no such operation"); break;
    }
}

/* ---- regions and functions -------------------------------------------------------------------------------------- */

/* Gives ids to their values; false if one is unusable, after which the function cannot be looked at further. */
static bool register_value(struct verifier *v, const struct ir_value *x) {
    if (!x || x->id < 0 || x->id >= v->func->value_count || v->values[x->id]) {
        fail(v, "the number of a value (%d) is out of range or given twice", x ? x->id : -1);
        return false;
    }
    v->values[x->id] = x;
    return true;
}

static bool register_region(struct verifier *v, const struct ir_region *r, const struct ir_op *owner) {
    if (!r || r->op != owner || r->func != v->func || r->arg_count < 0 || r->yield_count < 0) {
        fail(v, "a region does not know what it belongs to");
        return false;
    }
    for (int i = 0; i < r->arg_count; i++)
        if (!register_value(v, r->args[i]) || r->args[i]->region != r || r->args[i]->op || r->args[i]->index != i) {
            fail(v, "argument %d of a region is not linked to it", i);
            return false;
        }
    for (int i = 0; i < r->yield_count; i++)
        if (!r->yields[i]) {
            fail(v, "yield %d of a region is missing", i);
            return false;
        }
    const struct ir_op *prev = NULL;
    for (const struct ir_op *op = r->first; op; prev = op, op = op->next) {
        v->op = op;
        if ((int)op->code < 0 || op->code >= OP_COUNT || op->parent != r || op->prev != prev) {
            v->op = owner;
            fail(v, "the list of operations is broken");
            return false;
        }
        for (int i = 0; i < op->operand_count; i++)
            if (!op->operands[i]) {
                fail(v, "operand %d is missing", i);
                return false;
            }
        for (int i = 0; i < op->result_count; i++)
            if (!register_value(v, op->results[i]) || op->results[i]->op != op || op->results[i]->index != i) {
                fail(v, "result %d is not linked to its operation", i);
                return false;
            }
        for (int i = 0; i < op->region_count; i++)
            if (!register_region(v, op->regions[i], op))
                return false;
    }
    v->op = owner;
    if (r->last != prev) {
        fail(v, "the list of operations is broken");
        return false;
    }
    return true;
}

static void show(struct verifier *v, const struct ir_value *x) {
    check_type(v, x->type);
    v->visible[x->id] = true;
    VEC_PUSH(&v->arena, v->scope, x->id);
}

static bool check_visible(struct verifier *v, const struct ir_value *x) {
    if (x->id >= 0 && x->id < v->func->value_count && v->values[x->id] == x && v->visible[x->id])
        return true;
    fail(v, "%%%d is used where it is not defined", x->id);
    return false;
}

static void check_region(struct verifier *v, const struct ir_region *r) {
    const struct ir_op *owner = v->op;
    int values = v->scope.n, symbols = v->symbol_scope.n;
    for (int i = 0; i < r->arg_count; i++)
        show(v, r->args[i]);
    for (const struct ir_op *op = r->first; op; op = op->next) {
        bool defined = true;
        v->op = op;
        for (int i = 0; i < op->operand_count; i++)
            defined &= check_visible(v, op->operands[i]);
        for (int i = 0; i < op->region_count; i++)
            check_region(v, op->regions[i]);
        if (defined)
            check_op(v);
        for (int i = 0; i < op->result_count; i++)
            show(v, op->results[i]);
    }
    v->op = owner;
    for (int i = 0; i < r->yield_count; i++)
        check_visible(v, r->yields[i]);
    if (!r->op)
        return; /* the function's own checks still see its body */
    while (v->scope.n > values)
        v->visible[v->scope.at[--v->scope.n]] = false;
    while (v->symbol_scope.n > symbols)
        v->symbols[v->symbol_scope.at[--v->symbol_scope.n]] = false;
}

static void check_func(struct verifier *v, const struct ir_func *f) {
    v->func = f;
    v->op = NULL;
    v->values = ARENA_ARRAY(&v->arena, const struct ir_value *, f->value_count);
    v->visible = ARENA_ARRAY(&v->arena, bool, f->value_count);
    v->symbols = ARENA_ARRAY(&v->arena, bool, v->module->symbol_count);
    v->symbol_met = ARENA_ARRAY(&v->arena, bool, v->module->symbol_count);
    v->reads = ARENA_ARRAY(&v->arena, bool, v->module->buffer_count);
    v->writes = ARENA_ARRAY(&v->arena, bool, v->module->buffer_count);
    v->scope.n = v->symbol_scope.n = 0;
    if (f->module != v->module || !f->body || !register_region(v, f->body, NULL))
        return;
    for (int i = 0; i < f->symbol_count; i++) {
        const struct ir_symbol *s = f->symbols[i];
        if (s->id < 0 || s->id >= v->module->symbol_count || s->func != f || s->op || s->lo > s->hi ||
            v->symbol_met[s->id])
            fail(v, "the symbol %s is not one of the function's arguments", s->name);
        else
            v->symbols[s->id] = v->symbol_met[s->id] = true;
    }
    check_region(v, f->body);
    v->op = NULL;
    int inouts = 0;
    for (int i = 0; i < f->body->arg_count; i++) {
        if (!f->arg_inout || !f->arg_inout[i])
            continue;
        int k = f->result_count + inouts++;
        if (k < f->body->yield_count)
            same_type(v, "the final value of an inout argument", f->body->yields[k]->type, f->body->args[i]->type);
    }
    if (f->body->yield_count != f->result_count + inouts)
        fail(v, "the body gives %d values, expected %d results and %d inout values", f->body->yield_count,
             f->result_count, inouts);
    for (int i = 0; i < f->body->yield_count; i++)
        check_type(v, f->body->yields[i]->type);
    for (int i = 0; i < f->result_symbol_count; i++)
        check_dim(v, f->result_symbols[i].value);
}

bool ir_verify(const struct ir_module *m, struct text *why) {
    struct verifier v = {.module = m, .why = why};
    for (int i = 0; i < m->buffer_count; i++) {
        int64_t n;
        for (int k = 0; k < m->buffers[i]->type.rank; k++)
            if (!ir_dim_is_const(m->buffers[i]->type.dims[k], &n) || n < 0)
                fail(&v, "buffer %s: dimension %d is not a constant", m->buffers[i]->name, k);
    }
    for (int i = 0; i < m->func_count + (m->init != NULL); i++) {
        check_func(&v, i < m->func_count ? m->funcs[i] : m->init);
        arena_free(&v.arena);
        v.arena = (struct arena){0};
        v.scope.at = v.symbol_scope.at = NULL;
        v.scope.n = v.scope.cap = v.symbol_scope.n = v.symbol_scope.cap = 0;
    }
    if (m->init && m->init->body->arg_count) {
        v.func = m->init;
        v.op = NULL;
        fail(&v, "init has arguments");
    }
    if (v.errors > MAX_ERRORS)
        text_printf(why, "… and %d more\n", v.errors - MAX_ERRORS);
    return v.errors == 0;
}
