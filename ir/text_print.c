/* Prints the IR as text that ir_parse reads back (docs/ir.md has the grammar).
 *
 * What keeps print(parse(print(m))) equal to print(m):
 * - Values keep their numbers. Names are hints, reduced to the letters the reader accepts.
 * - Dimension symbols and index variables may share a name; within a function (a nest) later ones get a suffix `#2`, which
 *   the reader keeps as part of the name.
 * - The order of a polynomial's terms, which may follow ids in memory, is that of their text here.
 * - Expressions are DAGs whose trees may be exponentially larger. Nodes used twice and not small, and every node at a
 *   multiple of a fixed height, get a name by `let`; that also bounds recursion here and in the reader. The order of lets
 *   is that of a depth first walk, not of ids.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "ir/bytes.h"
#include "ir/text.h"
#include "ir/text_print.h"

enum { FEW_ELEMENTS = 64 }; /* constants up to this size are numbers, larger ones hexadecimal */

/* ---- operations ------------------------------------------------------------------------------------------------- */

static void print_constant(struct printer *p, const struct ir_op *op, int indent) {
    struct text *out = p->out;
    struct ir_type t = op->results[0]->type;
    size_t size = (size_t)dtype_size(t.dtype);
    int64_t count = 1;
    for (int i = 0; i < t.rank; i++) {
        int64_t n = 0;
        ir_dim_is_const(t.dims[i], &n);
        count *= n;
    }
    const unsigned char *data = op->constant.data;
    if (count > FEW_ELEMENTS) {
        /* Each element as the digits of its bits, whatever the machine's byte order; 64 bytes a line. */
        text_add(out, " hex");
        int64_t per_line = 64 / (int64_t)size;
        for (int64_t i = 0; i < count; i++) {
            if (i % per_line == 0)
                text_printf(out, "%s\n%*s\"", i ? "\"" : "", indent + 4, "");
            text_printf(out, "%0*" PRIx64, (int)size * 2, ir_bytes_load_bits(t.dtype, data + (size_t)i * size));
        }
        text_add(out, "\"");
        return;
    }
    text_add(out, t.rank ? " [" : " ");
    for (int64_t i = 0; i < count; i++) {
        const void *at = data + (size_t)i * size;
        text_add(out, i ? ", " : "");
        if (t.dtype == BOOL) {
            text_add(out, ir_bytes_load_bits(t.dtype, at) ? "true" : "false");
        } else if (!dtype_is_float(t.dtype)) {
            print_int(out, t.dtype, ir_bytes_load_int(t.dtype, at));
        } else {
            double value = ir_bytes_load_float(t.dtype, at);
            if (isnan(value)) /* all bits of it */
                text_printf(out, "0x%0*" PRIx64, (int)size * 2, ir_bytes_load_bits(t.dtype, at));
            else
                print_float(out, t.dtype, value);
        }
    }
    text_add(out, t.rank ? "]" : "");
}

static void print_op(struct printer *p, const struct ir_op *op, int indent);

static void print_region(struct printer *p, const struct ir_region *r, int indent) {
    struct text *out = p->out;
    text_add(out, "{");
    if (r->arg_count) {
        text_add(out, " (");
        for (int i = 0; i < r->arg_count; i++) {
            text_add(out, i ? ", " : "");
            print_definition(p, r->args[i]);
        }
        text_add(out, ")");
    }
    text_add(out, "\n");
    for (const struct ir_op *op = r->first; op; op = op->next)
        print_op(p, op, indent + 4);
    text_printf(out, "%*syield", indent + 4, "");
    if (r->yield_count)
        text_add(out, " ");
    print_values(p, r->yields, r->yield_count);
    text_printf(out, "\n%*s}", indent, "");
}

static void print_attributes(struct printer *p, const struct ir_op *op, int indent) {
    struct text *out = p->out;
    switch (op->code) {
    case OP_nest: print_nest(p, op, indent); break;
    case OP_const: print_constant(p, op, indent); break;
    case OP_sort:
        text_printf(out, " axis %d", op->sort.axis);
        if (op->sort.descending)
            text_add(out, " descending");
        if (op->sort.limit) {
            text_add(out, " limit ");
            print_dim(p, out, op->sort.limit);
        }
        break;
    case OP_scan:
        text_printf(out, " axis %d %s%s%s", op->scan.axis, reduce_names[op->scan.op],
                    op->scan.reverse ? " reverse" : "", op->scan.exclusive ? " exclusive" : "");
        break;
    case OP_rng: text_printf(out, " place %d", op->rng.place); break;
    case OP_dim: {
        const struct ir_symbol *s = op->dim.symbol;
        const char *name = p->symbols && s->id < p->symbol_count ? p->symbols[s->id] : NULL;
        text_printf(out, " %s in %" PRId64 " .. %" PRId64,
                    name ? name : print_make_word(&p->scratch, s->name, true, "d"), s->lo, s->hi);
        break;
    }
    case OP_for:
    case OP_while:
        if (op->loop.limit) {
            text_add(out, " limit ");
            print_dim(p, out, op->loop.limit);
        }
        break;
    case OP_rows: text_printf(out, " by %s", rows_by_names[op->rows.by]); break;
    case OP_kernel:
        if (op->kernel.tuned)
            text_add(out, " tuned");
        for (int i = 0; i < op->kernel.static_count; i++) {
            text_add(out, i ? ", " : " [");
            text_add(out, op->kernel.statics[i].name);
            text_add(out, " = ");
            print_float(out, F64, op->kernel.statics[i].value);
        }
        text_add(out, op->kernel.static_count ? "]" : "");
        if (op->kernel.limit) {
            text_add(out, " limit ");
            print_dim(p, out, op->kernel.limit);
        }
        break;
    case OP_grad: {
        bool any = false;
        for (int i = 0; op->grad.wrt_buffers && i + 1 < op->operand_count; i++)
            any |= op->grad.wrt_buffers[i] != NULL;
        if (!any)
            break;
        text_add(out, " wrt [");
        for (int i = 0; i + 1 < op->operand_count; i++) {
            text_add(out, i ? ", " : "");
            if (op->grad.wrt_buffers[i]) {
                text_add(out, "@");
                print_name(out, op->grad.wrt_buffers[i]->name);
            } else {
                text_add(out, "_");
            }
        }
        text_add(out, "]");
        break;
    }
    case OP_extern:
        text_add(out, " header ");
        print_string(out, op->external.header ? op->external.header : "");
        text_add(out, " symbol ");
        print_string(out, op->external.symbol ? op->external.symbol : "");
        text_add(out, " params [");
        for (int i = 0; i < op->external.param_count; i++) {
            int k = op->external.params[i];
            text_printf(out, "%s%s%d", i ? ", " : "", k < 0 ? "~" : "", k < 0 ? ~k : k);
        }
        text_add(out, op->external.returns ? "] returns" : "]");
        break;
    case OP_read:
    case OP_write:
        text_add(out, " @");
        print_name(out, op->buffer.buffer ? op->buffer.buffer->name : "");
        break;
    default: break;
    }
}

static void print_op(struct printer *p, const struct ir_op *op, int indent) {
    struct text *out = p->out;
    text_printf(out, "%*s", indent, "");
    for (int i = 0; i < op->result_count; i++) {
        text_add(out, i ? ", " : "");
        print_definition(p, op->results[i]);
    }
    text_printf(out, "%s%s", op->result_count ? " = " : "", ir_optable[op->code].name);
    if (op->operand_count) {
        text_add(out, "(");
        print_values(p, op->operands, op->operand_count);
        text_add(out, ")");
    }
    if (op->name) {
        text_add(out, " ");
        print_string(out, op->name);
    }
    print_attributes(p, op, indent);
    for (int i = 0; i < op->region_count; i++) {
        text_add(out, " ");
        print_region(p, op->regions[i], indent);
    }
    text_add(out, "\n");
}

/* ---- functions -------------------------------------------------------------------------------------------------- */

struct symbol_names {
    struct printer *p;
    const char **used;
    int n;
};

static void name_symbol(struct symbol_names *s, const struct ir_symbol *symbol) {
    struct arena *a = &s->p->scratch;
    if (symbol->id >= s->p->symbol_count || s->p->symbols[symbol->id])
        return;
    s->used[s->n] = print_unique_word(a, print_make_word(a, symbol->name, true, "d"), s->used, s->n);
    s->p->symbols[symbol->id] = s->used[s->n++];
}

static void name_dim_ops(struct symbol_names *s, const struct ir_region *r) {
    for (const struct ir_op *op = r->first; op; op = op->next) {
        if (op->code == OP_dim)
            name_symbol(s, op->dim.symbol);
        for (int i = 0; i < op->region_count; i++)
            name_dim_ops(s, op->regions[i]);
    }
}

static void print_header(struct printer *p, const struct ir_func *f) {
    struct text *out = p->out;
    if (f->doc) {
        text_add(out, "doc ");
        print_string(out, f->doc);
        text_add(out, "\n");
    }
    text_printf(out, "%s%s%s%s%sfunc ", f == f->module->init ? "init " : "", f->is_export ? "export " : "",
                f->is_train ? "train " : "", f->is_incremental ? "incremental " : "", f->uses_random ? "random " : "");
    print_name(out, f->name);
    if (f->symbol_count) {
        text_add(out, "[");
        for (int i = 0; i < f->symbol_count; i++)
            text_printf(out, "%s%s in %" PRId64 " .. %" PRId64, i ? ", " : "", p->symbols[f->symbols[i]->id],
                        f->symbols[i]->lo, f->symbols[i]->hi);
        text_add(out, "]");
    }
    text_add(out, "(");
    for (int i = 0; i < f->body->arg_count; i++) {
        text_printf(out, "%s%s", i ? ", " : "", f->arg_inout && f->arg_inout[i] ? "inout " : "");
        if (f->arg_names && f->arg_names[i])
            print_name(out, f->arg_names[i]);
        else
            text_add(out, "_");
        text_add(out, " = ");
        print_definition(p, f->body->args[i]);
    }
    text_add(out, ")");
    if (f->result_count) {
        text_add(out, " -> (");
        for (int i = 0; i < f->result_count; i++) {
            text_add(out, i ? ", " : "");
            if (f->result_names && f->result_names[i])
                print_name(out, f->result_names[i]);
            else
                text_add(out, "_");
        }
        text_add(out, ")");
    }
}

static void print_func(struct text *out, const struct ir_func *f) {
    struct printer p = {.out = out};
    p.symbol_count = f->module->symbol_count;
    p.symbols = ARENA_ARRAY(&p.scratch, const char *, p.symbol_count);
    struct symbol_names names = {.p = &p, .used = ARENA_ARRAY(&p.scratch, const char *, p.symbol_count)};
    for (int i = 0; i < f->symbol_count; i++)
        name_symbol(&names, f->symbols[i]);
    name_dim_ops(&names, f->body);
    print_header(&p, f);
    text_add(out, " {\n");
    for (const struct ir_op *op = f->body->first; op; op = op->next)
        print_op(&p, op, 4);
    text_add(out, "    return");
    if (f->body->yield_count)
        text_add(out, " ");
    print_values(&p, f->body->yields, f->body->yield_count);
    text_add(out, "\n}");
    for (int i = 0; i < f->result_symbol_count; i++) {
        text_add(out, i ? ", " : " where ");
        print_name(out, f->result_symbols[i].name);
        text_add(out, " = ");
        print_dim(&p, out, f->result_symbols[i].value);
        text_printf(out, " <= %" PRId64, f->result_symbols[i].hi);
    }
    text_add(out, "\n");
    arena_free(&p.scratch);
}

/* ---- settings and modules --------------------------------------------------------------------------------------- */

static void print_setting(struct text *out, const struct ir_setting_value *v) {
    switch (v->kind) {
    case SET_INT: text_printf(out, "%" PRId64, v->i); break;
    case SET_FLOAT: {
        struct text digits = {0};
        print_float(&digits, F64, v->f);
        text_add(out, text_string(&digits));
        if (!strpbrk(text_string(&digits), ".en")) /* must not read as an integer; `inf` and `nan` hold an n */
            text_add(out, ".0");
        text_free(&digits);
        break;
    }
    case SET_STRING: print_string(out, v->s); break;
    case SET_BOOL: text_add(out, v->i ? "true" : "false"); break;
    case SET_NONE: text_add(out, "none"); break;
    case SET_NAME:
    case SET_CALL:
        text_add(out, "@");
        print_name(out, v->s);
        if (v->kind == SET_NAME)
            break;
        text_add(out, "(");
        for (int i = 0; i < v->count; i++) {
            text_add(out, i ? ", " : "");
            if (v->names && v->names[i]) {
                print_name(out, v->names[i]);
                text_add(out, " = ");
            }
            print_setting(out, v->args[i]);
        }
        text_add(out, ")");
        break;
    case SET_BINARY:
        text_add(out, "op(");
        print_string(out, v->s);
        for (int i = 0; i < v->count; i++) {
            text_add(out, ", ");
            print_setting(out, v->args[i]);
        }
        text_add(out, ")");
        break;
    case SET_LIST:
        text_add(out, "[");
        for (int i = 0; i < v->count; i++) {
            text_add(out, i ? ", " : "");
            print_setting(out, v->args[i]);
        }
        text_add(out, "]");
        break;
    }
}

void ir_print(struct text *out, const struct ir_module *m) {
    text_add(out, "module ");
    print_string(out, m->name ? m->name : "");
    text_add(out, "\n");
    struct printer p = {.out = out};
    for (int i = 0; i < m->buffer_count; i++) {
        text_add(out, m->buffers[i]->kind == BUFFER_PARAM ? "param @" : "state @");
        print_name(out, m->buffers[i]->name);
        text_add(out, ": ");
        print_type(&p, m->buffers[i]->type);
        text_add(out, "\n");
    }
    arena_free(&p.scratch);
    for (int i = 0; i < m->func_count; i++) {
        text_add(out, "\n");
        print_func(out, m->funcs[i]);
    }
    if (m->init) {
        text_add(out, "\n");
        print_func(out, m->init);
    }
    if (!m->settings && !m->train_dir)
        return;
    text_add(out, "\ntrain ");
    if (m->train_dir) {
        print_string(out, m->train_dir);
        text_add(out, " ");
    }
    text_add(out, "{\n");
    for (int i = 0; i < m->setting_count; i++) {
        text_add(out, "    ");
        print_name(out, m->settings[i].key);
        text_add(out, " = ");
        print_setting(out, m->settings[i].value);
        text_add(out, "\n");
    }
    text_add(out, "}\n");
}

void ir_print_func(struct text *out, const struct ir_func *f) {
    print_func(out, f);
}

/* The single pieces print symbols by their own names: which of two of a name is meant shows in the function only. */

void ir_print_op(struct text *out, const struct ir_op *op, int indent) {
    struct printer p = {.out = out};
    print_op(&p, op, indent);
    arena_free(&p.scratch);
}

void ir_print_dim(struct text *out, ir_dim d) {
    struct printer p = {.out = out};
    print_dim(&p, out, d);
    arena_free(&p.scratch);
}

void ir_print_type(struct text *out, struct ir_type t) {
    struct printer p = {.out = out};
    print_type(&p, t);
    arena_free(&p.scratch);
}
