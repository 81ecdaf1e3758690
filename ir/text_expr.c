/* Reads types, dimensions, numbers and scalar expressions of the text form; and ir_parse_scalar.
 *
 * Calls are interned as they are written, without the folding of ir_fn: reading gives back the expression that was
 * printed (ir_fn orders the arguments of commutative functions by their age, which is another one here), and a test of
 * the simplifier can say what it wants simplified.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "ir/bytes.h"
#include "ir/expr.h"
#include "ir/text.h"
#include "ir/text_read.h"

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

int64_t read_int(struct reader *r) {
    bool negative = read_accept(r, "-");
    const struct ir_token *t = &r->lex.token;
    uint64_t limit = (uint64_t)INT64_MAX + negative;
    if (t->kind != TOKEN_NUMBER || !t->is_integer || t->integer > limit) {
        read_fail(r, "expected an integer");
        return 0;
    }
    uint64_t value = t->integer;
    read_next(r);
    return (int64_t)(negative ? 0 - value : value);
}

int read_small(struct reader *r, int limit) {
    const struct ir_token *t = &r->lex.token;
    if (t->kind != TOKEN_NUMBER || !t->is_integer || t->integer > (uint64_t)limit) {
        read_fail(r, "expected an integer from 0 to %d", limit);
        return 0;
    }
    int value = (int)t->integer;
    read_next(r);
    return value;
}

/* A number as written; what it means depends on its type. */
struct number {
    double f;
    uint64_t i; /* two's complement if the sign was a minus */
    bool is_integer, is_hex, negative;
};

static bool read_number(struct reader *r, struct number *n) {
    *n = (struct number){.negative = read_accept(r, "-")};
    const struct ir_token *t = &r->lex.token;
    if (t->kind == TOKEN_WORD && (!strcmp(t->text, "inf") || !strcmp(t->text, "nan"))) {
        n->f = t->text[0] == 'i' ? INFINITY : NAN;
    } else if (t->kind == TOKEN_NUMBER) {
        n->f = t->number;
        n->i = t->integer;
        n->is_integer = t->is_integer;
        n->is_hex = t->is_hex;
    } else {
        read_fail(r, "expected a number");
        return false;
    }
    read_next(r);
    if (n->negative) {
        n->f = -n->f;
        n->i = 0 - n->i;
    }
    return true;
}

void read_element(struct reader *r, enum dtype t, void *at) {
    struct number n;
    if (t == BOOL) {
        bool yes = read_accept_word(r, "true");
        if (!yes && !read_accept_word(r, "false"))
            read_fail(r, "expected true or false");
        ir_bytes_store_bits(t, yes, at);
        return;
    }
    if (!read_number(r, &n))
        return;
    if (n.is_hex)
        ir_bytes_store_bits(t, n.i, at);
    else if (dtype_is_float(t))
        ir_bytes_store_float(t, float_round(t, n.f), at);
    else if (n.is_integer)
        ir_bytes_store_int(t, (int64_t)n.i, at);
    else
        read_fail(r, "expected an integer for %s", dtype_name(t));
}

/* `0.5:f32`, `4` (i64), `0.5` (f32) */
static ir_expr read_constant(struct reader *r) {
    struct number n;
    if (!read_number(r, &n))
        return NULL;
    if (r->scalar)
        return ir_const_number(r->module, r->scalar_type, n.f);
    enum dtype t = n.is_integer ? I64 : F32;
    if (read_accept(r, ":"))
        t = read_dtype(r);
    if (r->failed)
        return NULL;
    if (dtype_is_float(t))
        return ir_const_float(r->module, t, n.f);
    if (n.is_integer && t != BOOL)
        return ir_const_int(r->module, t, (int64_t)n.i);
    read_fail(r, "expected %s for %s", t == BOOL ? "true or false" : "an integer", dtype_name(t));
    return NULL;
}

/* ---- dimensions and types --------------------------------------------------------------------------------------- */

static ir_dim read_atom(struct reader *r) {
    static const struct {
        const char *name;
        ir_dim (*make)(struct ir_module *, ir_dim, ir_dim);
    } functions[] = {{"div", ir_dim_div}, {"mod", ir_dim_mod}, {"max", ir_dim_max}, {"min", ir_dim_min}};
    ir_dim zero = ir_dim_const(r->module, 0);
    struct ir_token word = r->lex.token;
    if (word.kind != TOKEN_WORD) {
        read_fail(r, "expected a dimension");
        return zero;
    }
    for (int i = r->symbols.n - 1; i >= 0; i--)
        if (!strcmp(r->symbols.at[i].name, word.text)) {
            struct ir_lexer saved = r->lex;
            read_next(r);
            if (!read_at(r, "("))
                return ir_dim_symbol(r->module, r->symbols.at[i].symbol);
            r->lex = saved; /* a symbol named `max`: decided by what follows */
            break;
        }
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (!strcmp(functions[i].name, word.text)) {
            read_next(r);
            read_expect(r, "(");
            ir_dim a = read_dim(r);
            read_expect(r, ",");
            ir_dim b = read_dim(r);
            read_expect(r, ")");
            return r->failed ? zero : functions[i].make(r->module, a, b);
        }
    read_fail(r, "expected a dimension: the symbol `%s` is not bound here", word.text);
    return zero;
}

/* A product: an optional number and atoms. Sums stand in div, mod, max and min only, so that nothing multiplies out. */
static ir_dim read_term(struct reader *r) {
    ir_dim product = ir_dim_const(r->module, 1);
    int factors = 0;
    do {
        if (++factors > READ_MAX_RANK) {
            read_fail(r, "expected a product of at most %d factors", READ_MAX_RANK);
            return product;
        }
        const struct ir_token *t = &r->lex.token;
        if (t->kind == TOKEN_NUMBER) {
            int64_t n = read_int(r);
            if (n > IR_DIM_LIMIT)
                read_fail(r, "expected a dimension below 2^60");
            else
                product = ir_dim_mul(r->module, product, ir_dim_const(r->module, n));
        } else {
            product = ir_dim_mul(r->module, product, read_atom(r));
        }
    } while (read_accept(r, "*"));
    return product;
}

ir_dim read_dim(struct reader *r) {
    ir_dim sum = ir_dim_const(r->module, 0);
    if (!read_enter(r))
        return sum;
    bool negative = read_accept(r, "-");
    while (true) {
        ir_dim term = read_term(r);
        if (r->failed)
            break;
        sum = negative ? ir_dim_sub(r->module, sum, term) : ir_dim_add(r->module, sum, term);
        negative = read_at(r, "-");
        if (!read_accept(r, "-") && !read_accept(r, "+"))
            break;
    }
    read_leave(r);
    return sum;
}

enum dtype read_dtype(struct reader *r) {
    enum dtype t = F32;
    if (r->lex.token.kind != TOKEN_WORD || !dtype_parse(r->lex.token.text, &t))
        read_fail(r, "expected an element type");
    else
        read_next(r);
    return t;
}

struct ir_type read_type(struct reader *r) {
    enum dtype t = read_dtype(r);
    ir_dim dims[READ_MAX_RANK];
    int rank = 0;
    if (read_accept(r, "[") && !read_accept(r, "]")) {
        do {
            if (rank == READ_MAX_RANK) {
                read_fail(r, "expected a type of rank %d at most", READ_MAX_RANK);
                break;
            }
            dims[rank++] = read_dim(r);
        } while (read_accept(r, ","));
        read_expect(r, "]");
    }
    return ir_type_make(r->module, t, r->failed ? 0 : rank, dims);
}

/* ---- expressions ------------------------------------------------------------------------------------------------ */

struct ir_value *read_value(struct reader *r) {
    const struct ir_token *t = &r->lex.token;
    if (t->kind != TOKEN_VALUE) {
        read_fail(r, "expected a value like %%3");
        return NULL;
    }
    struct ir_value *v = t->integer < (uint64_t)r->value_cap ? r->values[t->integer] : NULL;
    if (!v)
        read_fail(r, "expected a value defined before: %%%" PRIu64 " is not", t->integer);
    else
        read_next(r);
    return v;
}

int read_slot(struct reader *r, const struct ir_value *v) {
    if (!v || !r->nest)
        return -1;
    if (read_accept(r, "@")) {
        int slot = read_small(r, INT32_MAX - 1);
        if (!r->failed && slot < r->nest->operand_count && r->nest->operands[slot] == v)
            return slot;
        read_fail(r, "expected a slot that holds the value");
        return -1;
    }
    for (int i = 0; i < r->nest->operand_count; i++)
        if (r->nest->operands[i] == v)
            return i;
    read_fail(r, "expected an operand of the nest: %%%d is not", v->id);
    return -1;
}

static ir_expr read_load(struct reader *r) {
    const struct ir_value *v = read_value(r);
    int slot = read_slot(r, v);
    read_expect(r, "[");
    ir_expr at[READ_MAX_RANK], otherwise = NULL;
    int rank = 0;
    while (!r->failed && !read_at(r, "]")) {
        if (r->lex.token.kind == TOKEN_WORD && !strcmp(r->lex.token.text, "else"))
            break;
        if (rank == READ_MAX_RANK) {
            read_fail(r, "expected at most %d subscripts", READ_MAX_RANK);
            return NULL;
        }
        at[rank++] = read_expr(r);
        if (!read_accept(r, ","))
            break;
    }
    if (read_accept_word(r, "else"))
        otherwise = read_expr(r);
    read_expect(r, "]");
    return r->failed ? NULL : ir_load(r->module, slot, v->type.dtype, rank, at, otherwise);
}

static ir_expr read_call(struct reader *r, enum scalar_fn fn) {
    const struct scalar_info *info = &scalar_table[fn];
    ir_expr args[3];
    read_next(r);
    read_expect(r, "(");
    for (int i = 0; i < info->arity && !r->failed; i++) {
        if (i)
            read_expect(r, ",");
        args[i] = read_expr(r);
    }
    read_expect(r, ")");
    if (r->failed)
        return NULL;
    return r->scalar ? ir_fn(r->module, fn, args) : expr_raw_fn(r->module, fn, args);
}

static ir_expr read_conversion(struct reader *r, bool bits) {
    if (bits) {
        read_next(r);
        read_expect(r, "(");
    }
    enum dtype t = read_dtype(r);
    read_expect(r, bits ? "," : "(");
    ir_expr a = read_expr(r);
    if (!r->failed && bits && (dtype_size(a->dtype) != dtype_size(t) || (a->dtype == BOOL) != (t == BOOL)))
        read_fail(r, "expected a type of %d bytes", dtype_size(t));
    read_expect(r, ")");
    if (r->failed)
        return NULL;
    return bits ? ir_bitcast(r->module, t, a) : ir_cast(r->module, t, a);
}

/* acc0, acc1, …; -1 for other words */
static int acc_number(const char *word) {
    int n = 0;
    if (strncmp(word, "acc", 3) || !word[3])
        return -1;
    for (const char *s = word + 3; *s; s++) {
        if (*s < '0' || *s > '9' || n > 1000000)
            return -1;
        n = n * 10 + (*s - '0');
    }
    return n;
}

static ir_expr read_named(struct reader *r) {
    const char *word = r->lex.token.text;
    if (r->scalar)
        for (int i = 0; i < r->name_count; i++)
            if (!strcmp(r->names[i], word)) {
                read_next(r);
                return r->name_values[i];
            }
    if (!strcmp(word, "inf") || !strcmp(word, "nan"))
        return read_constant(r);
    if (!strcmp(word, "true") || !strcmp(word, "false")) {
        read_next(r);
        return ir_const_int(r->module, BOOL, word[0] == 't');
    }
    if (acc_number(word) >= 0 && !r->scalar) {
        int acc = acc_number(word);
        if (acc >= r->accs.n) {
            read_fail(r, "expected an accumulator defined before");
            return NULL;
        }
        read_next(r);
        return ir_acc(r->module, acc, r->accs.at[acc]);
    }
    for (int i = 0; i < r->indices.n; i++)
        if (!strcmp(r->indices.at[i], word)) {
            /* An index may be named like a function: a bracket tells them apart. */
            struct ir_lexer saved = r->lex;
            read_next(r);
            if (!read_at(r, "("))
                return ir_index(r->module, i);
            r->lex = saved;
            break;
        }
    enum scalar_fn fn;
    enum dtype t;
    if (!strcmp(word, "bitcast"))
        return read_conversion(r, true);
    if (dtype_parse(word, &t))
        return read_conversion(r, false);
    if (scalar_parse(word, &fn))
        return read_call(r, fn);
    read_fail(r, "expected an index, an accumulator or a function: `%s` is none", word);
    return NULL;
}

ir_expr read_expr(struct reader *r) {
    ir_expr e = NULL;
    if (!read_enter(r))
        return NULL;
    const struct ir_token *t = &r->lex.token;
    if (t->kind == TOKEN_WORD) {
        e = read_named(r);
    } else if (t->kind == TOKEN_VALUE) {
        e = read_load(r);
    } else if (t->kind == TOKEN_LET) {
        if (t->integer < (uint64_t)r->lets.n) {
            e = r->lets.at[t->integer];
            read_next(r);
        } else {
            read_fail(r, "expected a let defined before");
        }
    } else if (read_accept(r, "{")) {
        e = ir_dim_expr(r->module, read_dim(r));
        read_expect(r, "}");
    } else if (t->kind == TOKEN_NUMBER || read_at(r, "-")) {
        e = read_constant(r);
    } else {
        read_fail(r, "expected an expression");
    }
    read_leave(r);
    return r->failed ? NULL : e;
}

ir_expr ir_parse_scalar(struct ir_module *m, const char *text, enum dtype t, const char *const *names,
                        const ir_expr *values, int count) {
    struct source source = {.path = "scalar.def", .text = text, .length = strlen(text)};
    struct reader r = {
        .module = m, .scalar = true, .scalar_type = t, .names = names, .name_values = values, .name_count = count};
    r.lex.source = &source;
    r.lex.arena = &r.scratch;
    read_next(&r);
    ir_expr e = read_expr(&r);
    if (r.lex.token.kind != TOKEN_END || r.failed)
        e = NULL;
    arena_free(&r.scratch);
    return e;
}
