/* Expressions and nests in the IR's text form (text_print.c says how they stay short). */
#include <ctype.h>
#include <string.h>

#include "ir/text.h"
#include "ir/text_print.h"

enum {
    LET_SIZE = 6,    /* a node used twice is named from this many nodes on */
    LET_HEIGHT = 48, /* every node this high is named */
};

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
        const char *word = print_make_word(a, nest->indices[i].name, true, "i");
        if (!strncmp(word, "acc", 3) && isdigit((unsigned char)word[3]))
            word = arena_printf(a, "_%s", word);
        used[fixed + i] = print_unique_word(a, word, used, fixed + i);
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

void print_nest(struct printer *p, const struct ir_op *op, int indent) {
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
