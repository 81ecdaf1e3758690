/* Reads operations of the IR's text form (text_parse.c), with their nests and regions. */
#include <string.h>

#include "ir/bytes.h"
#include "ir/text_read.h"

/* ---- nests ------------------------------------------------------------------------------------------------------ */

static void read_index_name(struct reader *r, struct ir_nest_index *n) {
    const char *name = read_word(r, "the name of an index");
    for (int i = 0; i < r->indices.n; i++)
        if (!strcmp(r->indices.at[i], name))
            read_repeated(r, name);
    if (r->indices.n == 2 * READ_MAX_RANK)
        read_fail(r, "expected at most %d indices", 2 * READ_MAX_RANK);
    n->name = read_keep(r, name);
}

static ir_expr read_lines_let(struct reader *r) {
    if (r->lex.token.kind != TOKEN_LET || r->lex.token.integer != (uint64_t)r->lets.n) {
        read_fail(r, "expected the let $%d", r->lets.n);
        return NULL;
    }
    read_next(r);
    read_expect(r, "=");
    return read_expr(r);
}

static void read_reduction(struct reader *r, struct ir_nest_index *n) {
    read_index_name(r, n);
    if (read_accept(r, "<")) {
        n->extent = read_dim(r);
        n->lo = ir_const_int(r->module, I64, 0);
        n->hi = ir_dim_expr(r->module, n->extent);
    } else if (read_accept_word(r, "in")) {
        n->lo = read_expr(r);
        read_expect(r, "..");
        n->hi = read_expr(r);
        read_expect(r, "<");
        n->extent = read_dim(r);
    } else {
        read_fail(r, "expected `<` or `in` behind the index of a reduction");
    }
    VEC_PUSH(&r->scratch, r->indices, n->name);
}

static void read_accumulator(struct reader *r, struct ir_acc *acc) {
    read_expect(r, "=");
    const char *name = read_word(r, "a reduction");
    int op = 0;
    while (op < RED_COUNT && strcmp(reduce_names[op], name))
        op++;
    if (op == RED_COUNT) {
        read_fail(r, "expected a reduction: `%s` is none", name);
        return;
    }
    acc->op = (enum reduce_op)op;
    acc->body = read_expr(r);
    if (acc->body)
        VEC_PUSH(&r->scratch, r->accs, op == RED_ARGMAX || op == RED_ARGMIN ? I32 : acc->body->dtype);
}

/* Behind `%7 =`: an expression, or `%3 with [i] += expression`. A value here may begin either; what tells is the `with`
 * behind the value. */
static void read_nest_result(struct reader *r, struct ir_nest_result *result) {
    result->base = -1;
    if (r->lex.token.kind == TOKEN_VALUE) {
        struct ir_lexer saved = r->lex;
        const struct ir_value *v = read_value(r);
        int slot = read_slot(r, v);
        if (read_accept_word(r, "with")) {
            ir_expr target[READ_MAX_RANK];
            int rank = 0;
            result->base = slot;
            read_expect(r, "[");
            while (!r->failed && !read_at(r, "]")) {
                if (rank == READ_MAX_RANK) {
                    read_fail(r, "expected at most %d subscripts", READ_MAX_RANK);
                    return;
                }
                target[rank++] = read_expr(r);
                if (!read_accept(r, ","))
                    break;
            }
            read_expect(r, "]");
            if (!r->failed && rank != v->type.rank)
                read_fail(r, "expected %d subscripts", v->type.rank); /* the array's length follows from the type */
            if (r->failed)
                return;
            result->target = arena_copy(&r->module->arena, target, sizeof *target * (size_t)rank);
            result->combine = read_at(r, "+=") ? COMBINE_ADD : COMBINE_SET;
            if (!read_accept(r, "+="))
                read_expect(r, "=");
        } else if (!r->failed) {
            r->lex = saved;
        }
    }
    result->value = read_expr(r);
}

static void read_nest(struct reader *r, struct ir_op *op, const struct value_list *results) {
    struct arena *arena = &r->module->arena;
    struct ir_nest *nest = &op->nest;
    VEC(struct ir_nest_index) indices = {0};
    VEC(struct ir_acc) accs = {0};
    r->nest = op;
    r->indices.n = r->accs.n = r->lets.n = 0;
    nest->results = ARENA_ARRAY(arena, struct ir_nest_result, results->n);
    read_expect(r, "[");
    while (!r->failed && !read_at(r, "]")) {
        struct ir_nest_index n = {0};
        read_index_name(r, &n);
        read_expect(r, "<");
        n.extent = read_dim(r);
        VEC_PUSH(&r->scratch, indices, n);
        VEC_PUSH(&r->scratch, r->indices, n.name);
        if (!read_accept(r, ","))
            break;
    }
    nest->pars = indices.n;
    read_expect(r, "]");
    read_expect(r, "{");
    int done = 0;
    while (!r->failed && !read_at(r, "}")) {
        const struct ir_token t = r->lex.token;
        if (read_accept_word(r, "let")) {
            ir_expr e = read_lines_let(r);
            if (e)
                VEC_PUSH(&r->scratch, r->lets, e);
        } else if (accs.n == 0 && done == 0 && read_accept_word(r, "reduce")) {
            struct ir_nest_index n = {0};
            read_reduction(r, &n);
            VEC_PUSH(&r->scratch, indices, n);
        } else if (t.kind == TOKEN_WORD && done == 0 && !strcmp(t.text, arena_printf(&r->scratch, "acc%d", accs.n))) {
            struct ir_acc acc = {0};
            read_next(r);
            read_accumulator(r, &acc);
            VEC_PUSH(&r->scratch, accs, acc);
        } else if (t.kind == TOKEN_VALUE && done < results->n && t.integer == (uint64_t)results->at[done]->id) {
            read_next(r);
            read_expect(r, "=");
            read_nest_result(r, &nest->results[done++]);
        } else {
            read_fail(r, "expected the next let, reduction, accumulator or result of the nest, in this order");
        }
    }
    if (!r->failed && done < results->n)
        read_fail(r, "expected the result %%%d", results->at[done]->id);
    read_expect(r, "}");
    nest->reds = indices.n - nest->pars;
    nest->indices = arena_copy(arena, indices.at, sizeof *indices.at * (size_t)indices.n);
    nest->acc_count = accs.n;
    nest->accs = arena_copy(arena, accs.at, sizeof *accs.at * (size_t)accs.n);
    r->nest = NULL;
    r->indices.n = r->accs.n = r->lets.n = 0;
}

/* ---- operations ------------------------------------------------------------------------------------------------- */

struct byte_list {
    unsigned char *at;
    int n, cap;
};

static void push_element(struct reader *r, struct byte_list *bytes, enum dtype t, const void *at) {
    for (int i = 0; i < dtype_size(t); i++)
        VEC_PUSH(&r->scratch, *bytes, ((const unsigned char *)at)[i]);
}

static void read_hex(struct reader *r, struct byte_list *bytes, enum dtype t) {
    size_t digits = (size_t)dtype_size(t) * 2;
    while (r->lex.token.kind == TOKEN_STRING) {
        const char *s = r->lex.token.text;
        if (strlen(s) % digits || s[strspn(s, "0123456789abcdefABCDEF")]) {
            read_fail(r, "expected %zu hexadecimal digits for each element", digits);
            return;
        }
        for (; *s; s += digits) {
            uint64_t bits = 0;
            for (size_t i = 0; i < digits; i++)
                bits = bits << 4 | (unsigned)(s[i] <= '9' ? s[i] - '0' : (s[i] | 32) - 'a' + 10);
            unsigned char element[8];
            ir_bytes_store_bits(t, bits, element);
            push_element(r, bytes, t, element);
        }
        read_next(r);
    }
}

static void read_constant_data(struct reader *r, struct ir_op *op, const struct value_list *results) {
    if (results->n != 1) {
        read_fail(r, "expected one result of const");
        return;
    }
    struct ir_type t = results->at[0]->type;
    struct byte_list bytes = {0};
    unsigned char element[8] = {0};
    struct span span = r->lex.token.span;
    if (read_accept_word(r, "hex")) {
        read_hex(r, &bytes, t.dtype);
    } else if (read_accept(r, "[")) {
        while (!r->failed && !read_at(r, "]")) {
            read_element(r, t.dtype, element);
            push_element(r, &bytes, t.dtype, element);
            if (!read_accept(r, ","))
                break;
        }
        read_expect(r, "]");
    } else {
        read_element(r, t.dtype, element);
        push_element(r, &bytes, t.dtype, element);
    }
    int64_t expected = dtype_size(t.dtype);
    bool known = true;
    for (int i = 0; i < t.rank; i++) {
        int64_t n;
        known = known && ir_dim_is_const(t.dims[i], &n) && n >= 0 && !__builtin_mul_overflow(expected, n, &expected);
    }
    if (!r->failed && (!known || expected != bytes.n)) {
        r->lex.token.span = span;
        read_fail(r, "expected as many elements as the constant's type has");
    }
    op->constant.data = arena_copy(&r->module->arena, bytes.at, (size_t)bytes.n);
}

static int read_reduce_name(struct reader *r) {
    for (int op = 0; op < RED_COUNT; op++)
        if (read_accept_word(r, reduce_names[op]))
            return op;
    read_fail(r, "expected a reduction");
    return 0;
}

static void read_extern(struct reader *r, struct ir_op *op) {
    VEC(int) params = {0};
    read_expect_word(r, "header");
    op->external.header = read_string(r, "a header");
    read_expect_word(r, "symbol");
    op->external.symbol = read_string(r, "a function");
    read_expect_word(r, "params");
    read_expect(r, "[");
    while (!r->failed && !read_at(r, "]")) {
        bool result = read_accept(r, "~");
        int k = read_small(r, INT32_MAX - 1);
        VEC_PUSH(&r->scratch, params, result ? ~k : k);
        if (!read_accept(r, ","))
            break;
    }
    read_expect(r, "]");
    op->external.params = arena_copy(&r->module->arena, params.at, sizeof *params.at * (size_t)params.n);
    op->external.param_count = params.n;
    op->external.returns = read_accept_word(r, "returns");
}

static void read_grad(struct reader *r, struct ir_op *op) {
    int n = op->operand_count > 0 ? op->operand_count - 1 : 0;
    op->grad.wrt_buffers = ARENA_ARRAY(&r->module->arena, struct ir_buffer *, n);
    if (!read_accept_word(r, "wrt"))
        return;
    read_expect(r, "[");
    for (int i = 0; i < n && !r->failed; i++) {
        if (i)
            read_expect(r, ",");
        if (!read_accept_word(r, "_"))
            op->grad.wrt_buffers[i] = read_buffer(r);
    }
    read_expect(r, "]");
}

static void read_kernel(struct reader *r, struct ir_op *op) {
    VEC(struct ir_static) statics = {0};
    op->kernel.tuned = read_accept_word(r, "tuned");
    if (read_accept(r, "[")) {
        do {
            struct ir_static s = {.name = arena_strdup(&r->module->arena, read_word(r, "the name of a parameter"))};
            read_expect(r, "=");
            read_element(r, F64, &s.value);
            VEC_PUSH(&r->module->arena, statics, s);
        } while (!r->failed && read_accept(r, ","));
        read_expect(r, "]");
    }
    op->kernel.statics = statics.at;
    op->kernel.static_count = statics.n;
    if (read_accept_word(r, "limit"))
        op->kernel.limit = read_dim(r);
}

static void read_rows(struct reader *r, struct ir_op *op) {
    int by = 0;
    read_expect_word(r, "by");
    while (by + 1 < ROWS_BY_COUNT && !read_accept_word(r, rows_by_names[by]))
        by++;
    if (by + 1 == ROWS_BY_COUNT)
        read_expect_word(r, rows_by_names[by]);
    op->rows.by = (enum rows_by)by;
}

static void read_attributes(struct reader *r, struct ir_op *op, const struct value_list *results) {
    switch (op->code) {
    case OP_nest: read_nest(r, op, results); break;
    case OP_const: read_constant_data(r, op, results); break;
    case OP_sort:
        read_expect_word(r, "axis");
        op->sort.axis = read_small(r, READ_MAX_RANK);
        op->sort.descending = read_accept_word(r, "descending");
        if (read_accept_word(r, "limit"))
            op->sort.limit = read_dim(r);
        break;
    case OP_scan:
        read_expect_word(r, "axis");
        op->scan.axis = read_small(r, READ_MAX_RANK);
        op->scan.op = (enum reduce_op)read_reduce_name(r);
        op->scan.reverse = read_accept_word(r, "reverse");
        op->scan.exclusive = read_accept_word(r, "exclusive");
        break;
    case OP_rng:
        read_expect_word(r, "place");
        op->rng.place = read_small(r, INT32_MAX - 1);
        break;
    case OP_dim:
        op->dim.symbol = read_symbol(r);
        if (op->dim.symbol)
            op->dim.symbol->op = op;
        break;
    case OP_for:
    case OP_while:
        if (read_accept_word(r, "limit"))
            op->loop.limit = read_dim(r);
        break;
    case OP_kernel: read_kernel(r, op); break;
    case OP_rows: read_rows(r, op); break;
    case OP_grad: read_grad(r, op); break;
    case OP_extern: read_extern(r, op); break;
    case OP_read:
    case OP_write: op->buffer.buffer = read_buffer(r); break;
    default: break;
    }
}

static void read_op(struct reader *r, struct ir_region *region, int depth) {
    struct ir_builder b = {.module = r->module, .func = r->func, .region = region, .span = r->lex.token.span};
    struct value_list results = {0}, operands = {0};
    if (r->lex.token.kind == TOKEN_VALUE) {
        do {
            struct ir_value *v = read_definition(r);
            if (v)
                VEC_PUSH(&r->scratch, results, v);
        } while (read_accept(r, ","));
        read_expect(r, "=");
    }
    const struct span span = r->lex.token.span;
    const char *name = read_word(r, "an operation");
    int code = 0;
    while (code < OP_COUNT && strcmp(ir_optable[code].name, name))
        code++;
    if (code == OP_COUNT && !r->failed) {
        r->lex.token.span = span;
        read_fail(r, "expected an operation: `%s` is none", name);
    }
    if (read_accept(r, "(") && !read_accept(r, ")")) {
        operands = read_values(r);
        read_expect(r, ")");
    }
    if (r->failed)
        return;
    struct ir_op *op = ir_op_new(&b, (enum ir_opcode)code, operands.at, operands.n, 0);
    if (r->lex.token.kind == TOKEN_STRING)
        op->name = read_string(r, "a name");
    read_attributes(r, op, &results);
    VEC(struct ir_region *) regions = {0};
    while (!r->failed && read_at(r, "{")) {
        struct ir_region *inner = ir_region_new(r->func, op);
        VEC_PUSH(&r->scratch, regions, inner);
        read_block(r, inner, "yield", depth + 1);
    }
    if (regions.n)
        op->regions = arena_copy(&r->module->arena, regions.at, sizeof *regions.at * (size_t)regions.n);
    op->region_count = regions.n;
    op->results = read_keep_values(r, &results);
    op->result_count = results.n;
    for (int i = 0; i < results.n && !r->failed; i++) {
        results.at[i]->op = op;
        results.at[i]->index = i;
        read_define(r, results.at[i]);
    }
}

void read_block(struct reader *r, struct ir_region *region, const char *last, int depth) {
    if (depth > READ_MAX_REGIONS)
        read_fail(r, "regions nested too deeply: expected at most %d", READ_MAX_REGIONS);
    read_expect(r, "{");
    if (read_accept(r, "(")) {
        struct value_list args = {0};
        do {
            struct ir_value *v = read_definition(r);
            if (!v)
                break;
            v->region = region;
            v->index = args.n;
            VEC_PUSH(&r->scratch, args, v);
            read_define(r, v);
        } while (read_accept(r, ","));
        read_expect(r, ")");
        region->args = read_keep_values(r, &args);
        region->arg_count = args.n;
    }
    while (!r->failed && !read_accept_word(r, last))
        read_op(r, region, depth);
    if (!r->failed && !read_at(r, "}")) {
        struct value_list yields = read_values(r);
        region->yields = read_keep_values(r, &yields);
        region->yield_count = yields.n;
    }
    read_expect(r, "}");
}
