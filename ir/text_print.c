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
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/bytes.h"
#include "ir/text.h"

enum {
    LET_SIZE = 6,      /* a node used twice is named from this many nodes on */
    LET_HEIGHT = 48,   /* every node this high is named */
    FEW_ELEMENTS = 64, /* constants up to this size are numbers, larger ones hexadecimal */
};

struct printer {
    struct text *out;
    struct arena scratch;
    const char **symbols; /* by symbol id; NULL: print a symbol's own name */
    int symbol_count;
};

/* ---- names ------------------------------------------------------------------------------------------------------ */

static bool word_char(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

/* The name as one word of the grammar: letters, digits, `_`, inner dots, and (if `numbered`) `#` before digits at the end. */
static char *make_word(struct arena *a, const char *name, bool numbered, const char *fallback) {
    if (!name || !*name)
        return arena_strdup(a, fallback);
    size_t n = strlen(name), tail = n;
    if (numbered) {
        while (tail > 0 && isdigit((unsigned char)name[tail - 1]))
            tail--;
        tail = tail > 1 && tail < n && name[tail - 1] == '#' ? tail - 1 : n;
    }
    char *word = arena_printf(a, "%s%s", isdigit((unsigned char)name[0]) ? "_" : "", name);
    size_t shift = strlen(word) - n;
    for (size_t i = 0; i < n; i++) {
        char *c = &word[shift + i];
        bool dot = *c == '.' && i > 0 && word_char(c[1]);
        if (i < tail && !word_char(*c) && !dot)
            *c = '_';
    }
    return word;
}

/* A word that is none of used[0 .. n): the name itself or with the first free suffix. */
static const char *unique_word(struct arena *a, const char *word, const char *const *used, int n) {
    const char *candidate = word;
    for (int k = 2;; k++) {
        bool taken = false;
        for (int i = 0; i < n && !taken; i++)
            taken = used[i] && !strcmp(used[i], candidate);
        if (!taken)
            return candidate;
        size_t base = strcspn(word, "#");
        candidate = arena_printf(a, "%.*s#%d", (int)base, word, k);
    }
}

static void print_string(struct text *out, const char *s) {
    text_add(out, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            text_printf(out, "\\%c", c);
        else if (c == '\n')
            text_add(out, "\\n");
        else if (c < 32 || c == 127)
            text_printf(out, "\\x%02x", c);
        else
            text_addn(out, s, 1);
    }
    text_add(out, "\"");
}

/* A name that must come back as it is: a word, or a string. */
static void print_name(struct text *out, const char *name) {
    bool plain = name[0] && !isdigit((unsigned char)name[0]);
    for (const char *s = name; *s && plain; s++)
        plain = word_char(*s) || (*s == '.' && s > name && word_char(s[1]));
    if (plain)
        text_add(out, name);
    else
        print_string(out, name);
}

static void print_value(struct printer *p, const struct ir_value *v) {
    text_printf(p->out, "%%%d", v->id);
    if (v->name && *v->name) {
        /* After the number any word characters may follow, digits too. */
        const char *word = make_word(&p->scratch, v->name, false, "");
        text_printf(p->out, ".%s", word);
    }
}

static void print_values(struct printer *p, struct ir_value *const *values, int n) {
    for (int i = 0; i < n; i++) {
        text_add(p->out, i ? ", " : "");
        print_value(p, values[i]);
    }
}

/* ---- dimensions and types --------------------------------------------------------------------------------------- */

static void print_dim(struct printer *p, struct text *out, ir_dim d);

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static const char *dim_string(struct printer *p, ir_dim d) {
    struct text t = {0};
    print_dim(p, &t, d);
    const char *s = arena_strdup(&p->scratch, text_string(&t));
    text_free(&t);
    return s;
}

static const char *atom_string(struct printer *p, const struct ir_dim_atom *a) {
    static const char *const names[] = {[ATOM_DIV] = "div", [ATOM_MOD] = "mod", [ATOM_MAX] = "max", [ATOM_MIN] = "min"};
    if (a->kind == ATOM_SYMBOL) {
        const struct ir_symbol *s = a->symbol;
        if (!p->symbols)
            return make_word(&p->scratch, s->name, true, "d");
        if (s->id < p->symbol_count && p->symbols[s->id])
            return p->symbols[s->id];
        return arena_printf(&p->scratch, "?%s",
                            s->name ? s->name : ""); /* not bound in this function: does not parse */
    }
    const char *args[2] = {dim_string(p, a->a), dim_string(p, a->b)};
    if (a->kind == ATOM_MAX || a->kind == ATOM_MIN)
        qsort(args, 2, sizeof *args, compare_strings);
    return arena_printf(&p->scratch, "%s(%s, %s)", names[a->kind], args[0], args[1]);
}

struct term_text {
    const char *atoms; /* "" for the constant */
    int64_t coefficient;
};

static int compare_terms(const void *a, const void *b) {
    const struct term_text *x = a, *y = b;
    if (!*x->atoms != !*y->atoms)
        return *x->atoms ? -1 : 1; /* the constant comes last */
    return strcmp(x->atoms, y->atoms);
}

static void print_dim(struct printer *p, struct text *out, ir_dim d) {
    if (d->count == 0) {
        text_add(out, "0");
        return;
    }
    struct term_text *terms = ARENA_ARRAY(&p->scratch, struct term_text, d->count);
    for (int i = 0; i < d->count; i++) {
        const struct ir_dim_term *t = &d->terms[i];
        const char **atoms = ARENA_ARRAY(&p->scratch, const char *, t->count);
        for (int k = 0; k < t->count; k++)
            atoms[k] = atom_string(p, t->atoms[k]);
        qsort(atoms, (size_t)t->count, sizeof *atoms, compare_strings);
        struct text product = {0};
        for (int k = 0; k < t->count; k++)
            text_printf(&product, "%s%s", k ? "*" : "", atoms[k]);
        terms[i].atoms = arena_strdup(&p->scratch, text_string(&product));
        terms[i].coefficient = t->coefficient;
        text_free(&product);
    }
    qsort(terms, (size_t)d->count, sizeof *terms, compare_terms);
    for (int i = 0; i < d->count; i++) {
        bool negative = terms[i].coefficient < 0;
        uint64_t size = negative ? 0 - (uint64_t)terms[i].coefficient : (uint64_t)terms[i].coefficient;
        text_add(out, i ? (negative ? " - " : " + ") : (negative ? "-" : ""));
        if (!*terms[i].atoms)
            text_printf(out, "%" PRIu64, size);
        else if (size != 1)
            text_printf(out, "%" PRIu64 "*%s", size, terms[i].atoms);
        else
            text_add(out, terms[i].atoms);
    }
}

static void print_type(struct printer *p, struct ir_type t) {
    text_add(p->out, dtype_name(t.dtype));
    if (t.rank == 0)
        return;
    text_add(p->out, "[");
    for (int i = 0; i < t.rank; i++) {
        text_add(p->out, i ? ", " : "");
        print_dim(p, p->out, t.dims[i]);
    }
    text_add(p->out, "]");
}

/* `%7.h @net.h#1: f32[8]` */
static void print_definition(struct printer *p, const struct ir_value *v) {
    print_value(p, v);
    if (v->buffer_name) {
        text_add(p->out, " @");
        print_name(p->out, v->buffer_name);
        text_printf(p->out, "#%d", v->version);
    }
    text_add(p->out, ": ");
    print_type(p, v->type);
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

/* Digits that read back to the same value of type t (f16 and bf16 values are exact as doubles). */
static void print_float(struct text *out, enum dtype t, double value) {
    if (isnan(value)) {
        text_add(out, signbit(value) ? "-nan" : "nan");
        return;
    }
    if (isinf(value)) {
        text_add(out, value < 0 ? "-inf" : "inf");
        return;
    }
    static const int precisions[] = {6, 9, 15, 17};
    char digits[40];
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++) {
        snprintf(digits, sizeof digits, "%.*g", precisions[i], value);
        double back = strtod(digits, NULL);
        if (t == F32 ? (float)back == (float)value : back == value)
            break;
    }
    text_add(out, digits);
}

static void print_int(struct text *out, enum dtype t, int64_t value) {
    if (t == U64)
        text_printf(out, "%" PRIu64, (uint64_t)value);
    else
        text_printf(out, "%" PRId64, value);
}

/* ---- expressions ------------------------------------------------------------------------------------------------ */

struct expr_node {
    ir_expr e;
    int uses, size, height;
    bool named;
    int let;   /* number, once printed; else -1 */
    bool done; /* its children were counted */
};

struct expr_printer {
    struct printer *p;
    const struct ir_op *op;   /* the nest, for operands; may be NULL */
    const char **index_names; /* NULL: i0, i1, … */
    int index_count;
    struct expr_node *nodes; /* open addressing by expression; cap a power of two */
    size_t cap, count;
    VEC(ir_expr) order; /* children first, in order of the roots */
    int lets;
};

static struct expr_node *node_slot(struct expr_printer *x, ir_expr e) {
    size_t h = (size_t)((uint64_t)(unsigned)e->id * 0x9E3779B97F4A7C15u >> 32);
    while (x->nodes[h & (x->cap - 1)].e && x->nodes[h & (x->cap - 1)].e != e)
        h++;
    return &x->nodes[h & (x->cap - 1)];
}

static struct expr_node *node_of(struct expr_printer *x, ir_expr e) {
    if (2 * (x->count + 1) > x->cap) {
        struct expr_node *old = x->nodes;
        size_t cap = x->cap;
        x->cap = cap ? 2 * cap : 64;
        x->nodes = ARENA_ARRAY(&x->p->scratch, struct expr_node, x->cap);
        for (size_t i = 0; i < cap; i++)
            if (old[i].e)
                *node_slot(x, old[i].e) = old[i];
    }
    struct expr_node *n = node_slot(x, e);
    if (!n->e) {
        n->e = e;
        n->let = -1;
        x->count++;
    }
    return n;
}

/* Adds what hangs under a root to `order` and counts uses; iterative, as chains may be long. */
static void collect(struct expr_printer *x, ir_expr root) {
    struct frame {
        ir_expr e;
        int next;
    };
    VEC(struct frame) stack = {0};
    struct arena *a = &x->p->scratch;
    struct expr_node *n = node_of(x, root);
    n->uses++;
    if (n->done)
        return;
    n->done = true;
    VEC_PUSH(a, stack, (struct frame){root, 0});
    while (stack.n) {
        struct frame *top = &stack.at[stack.n - 1];
        if (top->next == top->e->count) {
            VEC_PUSH(a, x->order, top->e);
            stack.n--;
            continue;
        }
        ir_expr arg = top->e->args[top->next++];
        n = node_of(x, arg);
        n->uses++;
        if (!n->done) {
            n->done = true;
            VEC_PUSH(a, stack, (struct frame){arg, 0});
        }
    }
}

/* Decides which nodes get a name, from the leaves up. */
static void choose_lets(struct expr_printer *x) {
    for (int i = 0; i < x->order.n; i++) {
        ir_expr e = x->order.at[i];
        int size = 1, height = 0;
        for (int k = 0; k < e->count; k++) {
            const struct expr_node *arg = node_of(x, e->args[k]);
            size += arg->named ? 1 : arg->size;
            int above = arg->named ? 1 : arg->height + 1;
            height = above > height ? above : height;
        }
        struct expr_node *n = node_of(x, e);
        n->size = size < 1 << 20 ? size : 1 << 20;
        n->height = height;
        n->named = e->count > 0 && ((n->uses > 1 && size >= LET_SIZE) || height >= LET_HEIGHT);
    }
}

static void print_node(struct expr_printer *x, ir_expr e, bool definition);

static void print_args(struct expr_printer *x, ir_expr e, int n) {
    for (int i = 0; i < n; i++) {
        text_add(x->p->out, i ? ", " : "");
        print_node(x, e->args[i], false);
    }
}

/* An operand by its value; `@slot` where an earlier slot holds the same value. */
static void print_slot(struct expr_printer *x, int slot) {
    if (!x->op || slot < 0 || slot >= x->op->operand_count) {
        text_printf(x->p->out, "?%d", slot);
        return;
    }
    print_value(x->p, x->op->operands[slot]);
    for (int i = 0; i < slot; i++)
        if (x->op->operands[i] == x->op->operands[slot]) {
            text_printf(x->p->out, "@%d", slot);
            break;
        }
}

static void print_node(struct expr_printer *x, ir_expr e, bool definition) {
    struct text *out = x->p->out;
    if (!definition) {
        const struct expr_node *n = node_of(x, e);
        if (n->let >= 0) {
            text_printf(out, "$%d", n->let);
            return;
        }
    }
    switch (e->kind) {
    case X_CONST:
        if (e->dtype == BOOL) {
            text_add(out, e->value.i ? "true" : "false");
        } else if (dtype_is_float(e->dtype)) {
            print_float(out, e->dtype, e->value.f);
            text_printf(out, ":%s", dtype_name(e->dtype));
        } else {
            print_int(out, e->dtype, e->value.i);
            if (e->dtype != I64)
                text_printf(out, ":%s", dtype_name(e->dtype));
        }
        break;
    case X_INDEX:
        if (x->index_names && e->index >= 0 && e->index < x->index_count)
            text_add(out, x->index_names[e->index]);
        else
            text_printf(out, "i%d", e->index);
        break;
    case X_DIM:
        text_add(out, "{");
        print_dim(x->p, out, e->dim);
        text_add(out, "}");
        break;
    case X_LOAD:
        print_slot(x, e->index);
        text_add(out, "[");
        print_args(x, e, e->count - e->guarded);
        if (e->guarded) {
            text_add(out, e->count > 1 ? " else " : "else ");
            print_node(x, e->args[e->count - 1], false);
        }
        text_add(out, "]");
        break;
    case X_FN:
        text_printf(out, "%s(", scalar_table[e->fn].name);
        print_args(x, e, e->count);
        text_add(out, ")");
        break;
    case X_CAST:
        text_printf(out, "%s(", dtype_name(e->dtype));
        print_args(x, e, 1);
        text_add(out, ")");
        break;
    case X_BITCAST:
        text_printf(out, "bitcast(%s, ", dtype_name(e->dtype));
        print_args(x, e, 1);
        text_add(out, ")");
        break;
    case X_ACC: text_printf(out, "acc%d", e->index); break;
    }
}

/* Prints the lets among order[from .. to), each ended by `end` and begun by an indentation. */
static void print_lets(struct expr_printer *x, int from, int to, int indent, const char *end) {
    for (int i = from; i < to; i++) {
        struct expr_node *n = node_of(x, x->order.at[i]);
        if (!n->named)
            continue;
        text_printf(x->p->out, "%*slet $%d = ", indent, "", x->lets);
        print_node(x, n->e, true);
        text_add(x->p->out, end);
        n->let = x->lets++;
    }
}

static void name_indices(struct expr_printer *x, const struct ir_nest *nest) {
    static const char *const reserved[] = {"inf", "nan", "true", "false"};
    const int fixed = (int)(sizeof reserved / sizeof *reserved);
    struct arena *a = &x->p->scratch;
    x->index_count = nest->pars + nest->reds;
    const char **used = ARENA_ARRAY(a, const char *, x->index_count + fixed);
    memcpy(used, reserved, sizeof reserved);
    for (int i = 0; i < x->index_count; i++) {
        const char *word = make_word(a, nest->indices[i].name, true, "i");
        if (!strncmp(word, "acc", 3) && isdigit((unsigned char)word[3]))
            word = arena_printf(a, "_%s", word);
        used[fixed + i] = unique_word(a, word, used, fixed + i);
    }
    x->index_names = used + fixed;
}

/* ---- nests ------------------------------------------------------------------------------------------------------ */

/* Whether a reduction's range is simply 0 .. extent. */
static bool plain_range(const struct ir_nest_index *n) {
    if (!n->lo || !n->hi || n->lo->kind != X_CONST || n->lo->dtype != I64 || n->lo->value.i != 0)
        return false;
    int64_t extent;
    if (n->hi->kind == X_DIM)
        return n->hi->dim == n->extent;
    return n->hi->kind == X_CONST && n->hi->dtype == I64 && ir_dim_is_const(n->extent, &extent) &&
           n->hi->value.i == extent;
}

static void print_nest(struct printer *p, const struct ir_op *op, int indent) {
    const struct ir_nest *nest = &op->nest;
    struct text *out = p->out;
    struct expr_printer x = {.p = p, .op = op};
    name_indices(&x, nest);
    text_add(out, " [");
    for (int i = 0; i < nest->pars; i++) {
        text_printf(out, "%s%s < ", i ? ", " : "", x.index_names[i]);
        print_dim(p, out, nest->indices[i].extent);
    }
    text_add(out, "] {\n");
    /* All roots in the order of their lines; seen[k] is where the nodes first met under root k end. */
    VEC(ir_expr) roots = {0};
    struct arena *a = &p->scratch;
    for (int i = nest->pars; i < nest->pars + nest->reds; i++)
        if (!plain_range(&nest->indices[i])) {
            VEC_PUSH(a, roots, nest->indices[i].lo);
            VEC_PUSH(a, roots, nest->indices[i].hi);
        }
    for (int i = 0; i < nest->acc_count; i++)
        VEC_PUSH(a, roots, nest->accs[i].body);
    for (int i = 0; i < op->result_count; i++) {
        const struct ir_nest_result *r = &nest->results[i];
        int rank = r->base >= 0 && r->base < op->operand_count ? op->operands[r->base]->type.rank : 0;
        for (int k = 0; k < rank; k++)
            VEC_PUSH(a, roots, r->target[k]);
        VEC_PUSH(a, roots, r->value);
    }
    int *seen = ARENA_ARRAY(a, int, roots.n + 1);
    for (int i = 0; i < roots.n; i++) {
        collect(&x, roots.at[i]);
        seen[i + 1] = x.order.n;
    }
    choose_lets(&x);
    int root = 0, line = indent + 4;
    for (int i = nest->pars; i < nest->pars + nest->reds; i++) {
        const struct ir_nest_index *n = &nest->indices[i];
        if (plain_range(n)) {
            text_printf(out, "%*sreduce %s < ", line, "", x.index_names[i]);
        } else {
            print_lets(&x, seen[root], seen[root + 2], line, "\n");
            root += 2;
            text_printf(out, "%*sreduce %s in ", line, "", x.index_names[i]);
            print_node(&x, n->lo, false);
            text_add(out, " .. ");
            print_node(&x, n->hi, false);
            text_add(out, " < ");
        }
        print_dim(p, out, n->extent);
        text_add(out, "\n");
    }
    for (int i = 0; i < nest->acc_count; i++, root++) {
        print_lets(&x, seen[root], seen[root + 1], line, "\n");
        text_printf(out, "%*sacc%d = %s ", line, "", i, reduce_names[nest->accs[i].op]);
        print_node(&x, nest->accs[i].body, false);
        text_add(out, "\n");
    }
    for (int i = 0; i < op->result_count; i++) {
        const struct ir_nest_result *r = &nest->results[i];
        int rank = r->base >= 0 && r->base < op->operand_count ? op->operands[r->base]->type.rank : 0;
        print_lets(&x, seen[root], seen[root + rank + 1], line, "\n");
        root += rank + 1;
        text_printf(out, "%*s", line, "");
        print_value(p, op->results[i]);
        text_add(out, " = ");
        if (r->base >= 0) {
            print_slot(&x, r->base);
            text_add(out, " with [");
            for (int k = 0; k < rank; k++) {
                text_add(out, k ? ", " : "");
                print_node(&x, r->target[k], false);
            }
            text_add(out, r->combine == COMBINE_ADD ? "] += " : "] = ");
        }
        print_node(&x, r->value, false);
        text_add(out, "\n");
    }
    text_printf(out, "%*s}", indent, "");
}

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
        text_printf(out, " %s in %" PRId64 " .. %" PRId64, name ? name : make_word(&p->scratch, s->name, true, "d"),
                    s->lo, s->hi);
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
    s->used[s->n] = unique_word(a, make_word(a, symbol->name, true, "d"), s->used, s->n);
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

void ir_print_expr(struct text *out, ir_expr e, const struct ir_op *nest) {
    struct printer p = {.out = out};
    struct expr_printer x = {.p = &p, .op = nest};
    if (nest)
        name_indices(&x, &nest->nest);
    collect(&x, e);
    choose_lets(&x);
    print_lets(&x, 0, x.order.n - 1, 0, "; ");
    print_node(&x, e, true);
    arena_free(&p.scratch);
}
