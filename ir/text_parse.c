/* Reads the text form of the IR: modules, buffers, functions, operations, settings. The grammar is in docs/ir.md.
 *
 * A recursive descent, one token ahead, that stops at the first error: IR text is written by machines, and what follows an
 * error in it is seldom meaningful. Types, scopes and the like are left to ir_verify; what is checked here is what is
 * needed to build the data structure at all. Values keep the numbers they are written with.
 */
#include <stdarg.h>
#include <string.h>

#include "ir/bytes.h"
#include "ir/text.h"
#include "ir/text_read.h"

/* ---- tokens ----------------------------------------------------------------------------------------------------- */

void read_fail(struct reader *r, const char *format, ...) {
    if (r->failed)
        return;
    r->failed = true;
    if (r->diag) {
        va_list args;
        va_start(args, format);
        const char *message = arena_vprintf(&r->scratch, format, args);
        va_end(args);
        diag_error(r->diag, E_ir_syntax, r->lex.token.span, "%s", r->lex.error ? r->lex.error : message);
    }
    r->lex.error = "stopped";
    r->lex.token.kind = TOKEN_END;
    r->lex.token.text = NULL;
}

void read_next(struct reader *r) {
    ir_lex_next(&r->lex);
    if (r->lex.error)
        read_fail(r, "malformed text");
}

bool read_at(const struct reader *r, const char *sign) {
    return r->lex.token.kind == TOKEN_SIGN && !strcmp(r->lex.token.text, sign);
}

bool read_accept(struct reader *r, const char *sign) {
    if (!read_at(r, sign))
        return false;
    read_next(r);
    return true;
}

void read_expect(struct reader *r, const char *sign) {
    if (!read_accept(r, sign))
        read_fail(r, "expected `%s`", sign);
}

static bool at_word(const struct reader *r, const char *word) {
    return r->lex.token.kind == TOKEN_WORD && !strcmp(r->lex.token.text, word);
}

bool read_accept_word(struct reader *r, const char *word) {
    if (!at_word(r, word))
        return false;
    read_next(r);
    return true;
}

const char *read_word(struct reader *r, const char *what) {
    const char *word = r->lex.token.text;
    if (r->lex.token.kind != TOKEN_WORD) {
        read_fail(r, "expected %s", what);
        return "";
    }
    read_next(r);
    return word;
}

bool read_enter(struct reader *r) {
    if (++r->depth <= READ_MAX_DEPTH)
        return !r->failed;
    r->depth--; /* read_leave is not called */
    read_fail(r, "nested too deeply: expected at most %d levels", READ_MAX_DEPTH);
    return false;
}

void read_leave(struct reader *r) {
    r->depth--;
}

static const char *keep(struct reader *r, const char *text) {
    return arena_strdup(&r->module->arena, text);
}

static const char *read_string(struct reader *r, const char *what) {
    const char *text = r->lex.token.text;
    if (r->lex.token.kind != TOKEN_STRING) {
        read_fail(r, "expected %s in quotes", what);
        return "";
    }
    read_next(r);
    return keep(r, text);
}

/* A word or a string. */
static const char *read_name(struct reader *r, const char *what) {
    const char *text = r->lex.token.text;
    if (r->lex.token.kind != TOKEN_STRING && r->lex.token.kind != TOKEN_WORD) {
        read_fail(r, "expected %s", what);
        return "";
    }
    read_next(r);
    return keep(r, text);
}

/* NULL for `_` */
static const char *read_optional_name(struct reader *r, const char *what) {
    bool none = at_word(r, "_");
    const char *name = read_name(r, what);
    return none ? NULL : name;
}

/* A name of that kind is in the list already. */
#define REPEATED(r, name) read_fail((r), "expected another name: `%s` is defined already", (name))

/* ---- values ----------------------------------------------------------------------------------------------------- */

/* `%7.h @net.h#1: f32[8]`; not yet to be found by its number. */
static struct ir_value *read_definition(struct reader *r) {
    struct ir_token t = r->lex.token;
    if (t.kind != TOKEN_VALUE || t.integer >= READ_MAX_VALUES) {
        read_fail(r, "expected a value like %%3, with a number below %d", READ_MAX_VALUES);
        return NULL;
    }
    read_next(r);
    struct ir_value *v = ARENA_NEW(&r->module->arena, struct ir_value);
    v->id = (int)t.integer;
    v->span = t.span;
    v->name = t.text ? keep(r, t.text) : NULL;
    if (read_accept(r, "@")) {
        bool quoted = r->lex.token.kind == TOKEN_STRING;
        char *name = arena_strdup(&r->module->arena, read_name(r, "the name of a variable"));
        char *mark = quoted ? NULL : strrchr(name, '#');
        v->buffer_name = name;
        if (mark) {
            *mark = 0;
            int64_t version = 0;
            for (const char *s = mark + 1; *s && version <= INT32_MAX; s++)
                version = version * 10 + (*s - '0');
            if (version > INT32_MAX)
                read_fail(r, "expected a smaller version");
            v->version = (int)version;
        } else {
            read_expect(r, "#");
            v->version = read_small(r, INT32_MAX - 1);
        }
    }
    read_expect(r, ":");
    v->type = read_type(r);
    return r->failed ? NULL : v;
}

static void define(struct reader *r, struct ir_value *v) {
    if (v->id >= r->value_cap) {
        int cap = r->value_cap ? r->value_cap : 64;
        while (cap <= v->id)
            cap *= 2;
        struct ir_value **values = ARENA_ARRAY(&r->scratch, struct ir_value *, cap);
        if (r->value_cap)
            memcpy(values, r->values, sizeof *values * (size_t)r->value_cap);
        r->values = values;
        r->value_cap = cap;
    }
    if (r->values[v->id]) {
        read_fail(r, "expected another number: %%%d is defined already", v->id);
        return;
    }
    r->values[v->id] = v;
    VEC_PUSH(&r->scratch, r->defined, v->id);
    if (v->id >= r->func->value_count)
        r->func->value_count = v->id + 1;
}

struct value_list {
    struct ir_value **at;
    int n, cap;
};

/* The list as an array of the module. */
static struct ir_value **keep_values(struct reader *r, const struct value_list *list) {
    return list->n ? arena_copy(&r->module->arena, list->at, sizeof *list->at * (size_t)list->n) : NULL;
}

static struct value_list read_values(struct reader *r) {
    struct value_list list = {0};
    do {
        struct ir_value *v = read_value(r);
        if (v)
            VEC_PUSH(&r->scratch, list, v);
    } while (read_accept(r, ","));
    return list;
}

static void bind_symbol(struct reader *r, const char *name, struct ir_symbol *symbol) {
    for (int i = 0; i < r->symbols.n; i++)
        if (!strcmp(r->symbols.at[i].name, name)) {
            REPEATED(r, name);
            return;
        }
    VEC_PUSH(&r->scratch, r->symbols, (struct named_symbol){name, symbol});
}

/* `N in 1 .. 64` */
static struct ir_symbol *read_symbol(struct reader *r) {
    struct span span = r->lex.token.span;
    const char *name = read_word(r, "the name of a dimension");
    if (!read_accept_word(r, "in"))
        read_fail(r, "expected `in`");
    int64_t lo = read_int(r);
    read_expect(r, "..");
    int64_t hi = read_int(r);
    if (!r->failed && (lo > hi || lo < -IR_DIM_LIMIT || hi > IR_DIM_LIMIT))
        read_fail(r, "expected an interval that is not empty, within ±2^60");
    if (r->failed)
        return NULL;
    struct ir_symbol *s = ir_symbol_new(r->func, name, lo, hi, span);
    bind_symbol(r, name, s);
    return s;
}

static struct ir_buffer *read_buffer(struct reader *r) {
    read_expect(r, "@");
    struct ir_token at = r->lex.token;
    const char *name = read_name(r, "the name of a buffer");
    for (int i = 0; i < r->module->buffer_count && !r->failed; i++)
        if (!strcmp(r->module->buffers[i]->name, name))
            return r->module->buffers[i];
    if (!r->failed)
        r->lex.token.span = at.span;
    read_fail(r, "expected a buffer of the module: `%s` is none", name);
    return NULL;
}

/* ---- nests ------------------------------------------------------------------------------------------------------ */

static void read_index_name(struct reader *r, struct ir_nest_index *n) {
    const char *name = read_word(r, "the name of an index");
    for (int i = 0; i < r->indices.n; i++)
        if (!strcmp(r->indices.at[i], name))
            REPEATED(r, name);
    if (r->indices.n == 2 * READ_MAX_RANK)
        read_fail(r, "expected at most %d indices", 2 * READ_MAX_RANK);
    n->name = keep(r, name);
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

static void read_word_here(struct reader *r, const char *word) {
    if (!read_accept_word(r, word))
        read_fail(r, "expected `%s`", word);
}

static void read_extern(struct reader *r, struct ir_op *op) {
    VEC(int) params = {0};
    read_word_here(r, "header");
    op->external.header = read_string(r, "a header");
    read_word_here(r, "symbol");
    op->external.symbol = read_string(r, "a function");
    read_word_here(r, "params");
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
    read_word_here(r, "by");
    while (by + 1 < ROWS_BY_COUNT && !read_accept_word(r, rows_by_names[by]))
        by++;
    if (by + 1 == ROWS_BY_COUNT)
        read_word_here(r, rows_by_names[by]);
    op->rows.by = (enum rows_by)by;
}

static void read_attributes(struct reader *r, struct ir_op *op, const struct value_list *results) {
    switch (op->code) {
    case OP_nest: read_nest(r, op, results); break;
    case OP_const: read_constant_data(r, op, results); break;
    case OP_sort:
        read_word_here(r, "axis");
        op->sort.axis = read_small(r, READ_MAX_RANK);
        op->sort.descending = read_accept_word(r, "descending");
        if (read_accept_word(r, "limit"))
            op->sort.limit = read_dim(r);
        break;
    case OP_scan:
        read_word_here(r, "axis");
        op->scan.axis = read_small(r, READ_MAX_RANK);
        op->scan.op = (enum reduce_op)read_reduce_name(r);
        op->scan.reverse = read_accept_word(r, "reverse");
        op->scan.exclusive = read_accept_word(r, "exclusive");
        break;
    case OP_rng:
        read_word_here(r, "place");
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

static void read_block(struct reader *r, struct ir_region *region, const char *last, int depth);

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
    op->results = keep_values(r, &results);
    op->result_count = results.n;
    for (int i = 0; i < results.n && !r->failed; i++) {
        results.at[i]->op = op;
        results.at[i]->index = i;
        define(r, results.at[i]);
    }
}

/* `{ (arguments) operations yield values }`; a function's arguments were read before. */
static void read_block(struct reader *r, struct ir_region *region, const char *last, int depth) {
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
            define(r, v);
        } while (read_accept(r, ","));
        read_expect(r, ")");
        region->args = keep_values(r, &args);
        region->arg_count = args.n;
    }
    while (!r->failed && !read_accept_word(r, last))
        read_op(r, region, depth);
    if (!r->failed && !read_at(r, "}")) {
        struct value_list yields = read_values(r);
        region->yields = keep_values(r, &yields);
        region->yield_count = yields.n;
    }
    read_expect(r, "}");
}

/* ---- functions -------------------------------------------------------------------------------------------------- */

static void read_arguments(struct reader *r) {
    struct arena *arena = &r->module->arena;
    struct value_list args = {0};
    VEC(const char *) names = {0};
    VEC(bool) inouts = {0};
    read_expect(r, "(");
    while (!r->failed && !read_at(r, ")")) {
        bool is_inout = at_word(r, "inout");
        const char *name = read_optional_name(r, "the name of an argument");
        if (is_inout && !read_at(r, "=")) /* else an argument of that name */
            name = read_optional_name(r, "the name of an argument");
        else
            is_inout = false;
        read_expect(r, "=");
        struct ir_value *v = read_definition(r);
        if (!v)
            break;
        v->region = r->func->body;
        v->index = args.n;
        define(r, v);
        VEC_PUSH(&r->scratch, args, v);
        VEC_PUSH(&r->scratch, names, name);
        VEC_PUSH(&r->scratch, inouts, is_inout);
        if (!read_accept(r, ","))
            break;
    }
    read_expect(r, ")");
    r->func->body->args = keep_values(r, &args);
    r->func->body->arg_count = args.n;
    r->func->arg_names = arena_copy(arena, names.at, sizeof *names.at * (size_t)names.n);
    r->func->arg_inout = arena_copy(arena, inouts.at, sizeof *inouts.at * (size_t)inouts.n);
}

static void read_results(struct reader *r) {
    struct ir_func *f = r->func;
    struct arena *arena = &r->module->arena;
    VEC(const char *) names = {0};
    if (read_accept(r, "->")) {
        read_expect(r, "(");
        do {
            VEC_PUSH(&r->scratch, names, read_optional_name(r, "the name of a result"));
        } while (read_accept(r, ","));
        read_expect(r, ")");
    }
    f->result_names = arena_copy(arena, names.at, sizeof *names.at * (size_t)names.n);
    f->result_count = names.n;
}

/* `where K = dimension <= 100`; behind the body, whose `dim` operations may bind the dimension's symbols. */
static void read_result_symbols(struct reader *r) {
    struct result_symbol {
        const char *name;
        ir_dim value;
        int64_t hi;
    };
    struct ir_func *f = r->func;
    VEC(struct result_symbol) found = {0};
    do {
        struct result_symbol s = {.name = read_name(r, "the name of a dimension")};
        read_expect(r, "=");
        s.value = read_dim(r);
        read_expect(r, "<=");
        s.hi = read_int(r);
        VEC_PUSH(&r->scratch, found, s);
    } while (read_accept(r, ","));
    f->result_symbols = arena_alloc(&r->module->arena, sizeof *f->result_symbols * (size_t)found.n);
    for (int i = 0; i < found.n; i++) {
        f->result_symbols[i].name = found.at[i].name;
        f->result_symbols[i].value = found.at[i].value;
        f->result_symbols[i].hi = found.at[i].hi;
    }
    f->result_symbol_count = found.n;
}

static void read_func(struct reader *r) {
    struct ir_module *m = r->module;
    struct span span = r->lex.token.span;
    const char *doc = read_accept_word(r, "doc") ? read_string(r, "documentation") : NULL;
    bool init = read_accept_word(r, "init"), is_export = read_accept_word(r, "export");
    bool is_train = read_accept_word(r, "train"), is_incremental = read_accept_word(r, "incremental");
    bool uses_random = read_accept_word(r, "random");
    read_word_here(r, "func");
    const char *name = read_name(r, "the name of a function");
    for (int i = 0; i < m->func_count; i++)
        if (!strcmp(m->funcs[i]->name, name))
            REPEATED(r, name);
    if (init && m->init)
        read_fail(r, "expected one init function");
    struct ir_func *f = r->func = ir_func_new(m, name, span);
    f->doc = doc;
    f->is_export = is_export;
    f->is_train = is_train;
    f->is_incremental = is_incremental;
    f->uses_random = uses_random;
    for (int i = 0; i < r->defined.n; i++)
        r->values[r->defined.at[i]] = NULL;
    r->defined.n = r->symbols.n = 0;
    VEC(struct ir_symbol *) symbols = {0};
    if (read_accept(r, "[")) {
        do {
            VEC_PUSH(&r->scratch, symbols, read_symbol(r));
        } while (read_accept(r, ","));
        read_expect(r, "]");
    }
    f->symbols = arena_copy(&m->arena, symbols.at, sizeof *symbols.at * (size_t)symbols.n);
    f->symbol_count = symbols.n;
    read_arguments(r);
    read_results(r);
    read_block(r, f->body, "return", 0);
    if (read_accept_word(r, "where"))
        read_result_symbols(r);
    if (r->failed)
        return;
    if (init)
        m->init = f;
    else
        ir_module_add_func(m, f);
}

/* ---- settings and modules --------------------------------------------------------------------------------------- */

static const struct ir_setting_value *read_setting(struct reader *r);

/* Values up to `end`; for calls, names before `=`. */
static void read_setting_list(struct reader *r, struct ir_setting_value *v, const char *end, bool named) {
    VEC(const struct ir_setting_value *) args = {0};
    VEC(const char *) names = {0};
    while (!r->failed && !read_at(r, end)) {
        const char *name = NULL;
        if (named && (r->lex.token.kind == TOKEN_WORD || r->lex.token.kind == TOKEN_STRING)) {
            struct ir_lexer saved = r->lex;
            name = read_name(r, "a name");
            if (!read_accept(r, "=")) {
                r->lex = r->failed ? r->lex : saved;
                name = NULL;
            }
        }
        const struct ir_setting_value *arg = read_setting(r);
        VEC_PUSH(&r->scratch, args, arg);
        VEC_PUSH(&r->scratch, names, name);
        if (!read_accept(r, ","))
            break;
    }
    read_expect(r, end);
    v->count = args.n;
    v->args = arena_copy(&r->module->arena, args.at, sizeof *args.at * (size_t)args.n);
    if (named)
        v->names = arena_copy(&r->module->arena, names.at, sizeof *names.at * (size_t)names.n);
}

static const struct ir_setting_value *read_setting(struct reader *r) {
    struct ir_setting_value *v = ARENA_NEW(&r->module->arena, struct ir_setting_value);
    v->span = r->lex.token.span;
    v->kind = SET_NONE;
    if (!read_enter(r))
        return v;
    const struct ir_token *t = &r->lex.token;
    if (t->kind == TOKEN_STRING) {
        v->kind = SET_STRING;
        v->s = read_string(r, "a text");
    } else if (read_accept(r, "@")) {
        v->kind = SET_NAME;
        v->s = read_name(r, "a name");
        if (read_accept(r, "(")) {
            v->kind = SET_CALL;
            read_setting_list(r, v, ")", true);
        }
    } else if (read_accept_word(r, "op")) {
        v->kind = SET_BINARY;
        read_expect(r, "(");
        v->s = read_string(r, "an operator");
        read_expect(r, ",");
        read_setting_list(r, v, ")", false);
        if (!r->failed && v->count != 2)
            read_fail(r, "expected two operands");
    } else if (read_accept(r, "[")) {
        v->kind = SET_LIST;
        read_setting_list(r, v, "]", false);
    } else if (at_word(r, "true") || at_word(r, "false")) {
        v->kind = SET_BOOL;
        v->i = at_word(r, "true");
        read_next(r);
    } else if (!read_accept_word(r, "none")) {
        struct ir_lexer saved = r->lex;
        bool negative = read_accept(r, "-");
        bool integer = r->lex.token.kind == TOKEN_NUMBER && r->lex.token.is_integer &&
                       r->lex.token.integer <= (uint64_t)INT64_MAX + negative;
        r->lex = r->failed ? r->lex : saved;
        v->kind = integer ? SET_INT : SET_FLOAT;
        if (integer)
            v->i = read_int(r);
        else
            read_element(r, F64, &v->f);
    }
    read_leave(r);
    return v;
}

static void read_train(struct reader *r) {
    struct ir_module *m = r->module;
    VEC(struct ir_setting) settings = {0};
    if (m->settings)
        read_fail(r, "expected one train block");
    if (r->lex.token.kind == TOKEN_STRING)
        m->train_dir = read_string(r, "a directory");
    read_expect(r, "{");
    while (!r->failed && !read_at(r, "}")) {
        struct ir_setting s = {.span = r->lex.token.span};
        s.key = read_name(r, "a setting");
        read_expect(r, "=");
        s.value = read_setting(r);
        VEC_PUSH(&r->scratch, settings, s);
    }
    read_expect(r, "}");
    m->settings = arena_copy(&m->arena, settings.at, sizeof *settings.at * (size_t)settings.n);
    m->setting_count = settings.n;
}

static void read_buffer_declaration(struct reader *r, enum buffer_kind kind) {
    struct span span = r->lex.token.span;
    read_expect(r, "@");
    const char *name = read_name(r, "the name of a buffer");
    for (int i = 0; i < r->module->buffer_count; i++)
        if (!strcmp(r->module->buffers[i]->name, name))
            REPEATED(r, name);
    read_expect(r, ":");
    struct ir_type t = read_type(r);
    if (!r->failed)
        ir_buffer_new(r->module, name, kind, t, span);
}

struct ir_module *ir_parse(struct diag *d, const struct source *source) {
    struct reader r = {.diag = d};
    r.lex.source = source;
    r.lex.arena = &r.scratch;
    r.module = ir_module_new(d, "");
    read_next(&r);
    read_word_here(&r, "module");
    r.module->name = read_string(&r, "the module's name");
    while (!r.failed && r.lex.token.kind != TOKEN_END) {
        struct ir_lexer saved = r.lex;
        if (read_accept_word(&r, "param")) {
            read_buffer_declaration(&r, BUFFER_PARAM);
        } else if (read_accept_word(&r, "state")) {
            read_buffer_declaration(&r, BUFFER_STATE);
        } else if (read_accept_word(&r, "train") && (read_at(&r, "{") || r.lex.token.kind == TOKEN_STRING)) {
            read_train(&r);
        } else if (!r.failed) {
            r.lex = saved;
            read_func(&r);
        }
    }
    arena_free(&r.scratch);
    if (!r.failed)
        return r.module;
    ir_module_free(r.module);
    return NULL;
}
