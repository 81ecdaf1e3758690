/* `--emit deps`: the dependences of each function in its final order, as text, as a DOT graph or as JSON (deps.dot, deps.json). */
#include "driver/driver.h"
#include "passes/mutation/deps.h"

struct printer {
    struct text *out;
    const struct deps *d;
};

static const char *what(const struct ir_op *op) {
    return op->code == OP_read || op->code == OP_write                             ? op->buffer.buffer->name
           : op->name && *op->name && op->code != OP_check && op->code != OP_print ? op->name
                                                                                   : "";
}

static const char *value_name(const struct ir_value *v) {
    return v->buffer_name ? v->buffer_name : v->name ? v->name : "";
}

/* "z#2": a version of a named thing; "y": another named value; "%7". */
static void version(struct text *out, const struct ir_value *v) {
    if (v->buffer_name)
        text_printf(out, "%s#%d", v->buffer_name, v->version);
    else if (v->name)
        text_add(out, v->name);
    else
        text_printf(out, "%%%d", v->id);
}

/* The memory or thing a dependence is about. */
static void subject(struct text *out, const struct dep *e) {
    if (e->value)
        version(out, e->value);
    else if (e->symbol)
        text_printf(out, "dimension %s", e->symbol->name);
    else
        text_add(out, e->storage ? e->storage->name ? e->storage->name : "memory" : "effects");
}

static int line_of(const struct ir_op *op) {
    int line = 0, column;
    if (op->span.source)
        span_position(op->span, &line, &column);
    return line;
}

static void label(struct text *out, const struct ir_op *op) {
    text_add(out, ir_optable[op->code].name);
    if (*what(op))
        text_printf(out, " %s", what(op));
    for (int i = 0; i < op->result_count; i++) {
        text_add(out, i ? ", " : " ");
        version(out, op->results[i]);
    }
    if (op->code == OP_dim)
        text_printf(out, " %s", op->dim.symbol->name);
}

static bool in_place(const struct printer *p, const struct ir_op *op, int result) {
    const struct storage *s = p->d->plan->of_value[op->results[result]->id];
    for (int k = 0; s && op->code == OP_nest && k < op->operand_count; k++)
        if (p->d->plan->of_value[op->operands[k]->id] == s && s->kind != STORAGE_SCALAR)
            return true;
    return false;
}

/* ---- text ----------------------------------------------------------------------------------------------------------- */

static int depth(const struct deps *d, int op) {
    int n = 0;
    for (int h = d->ops[op].holder; h >= 0; h = d->ops[h].holder)
        n++;
    return n;
}

static void print_text(const struct printer *p) {
    const struct deps *d = p->d;
    struct text *out = p->out;
    text_printf(out, "fn %s\n", d->plan->func->name);
    int e = 0;
    for (int i = 0; i < d->op_count; i++) {
        const struct ir_op *op = d->ops[i].op;
        int indent = 4 * depth(d, i);
        text_printf(out, "%4d  %*s", i, indent, "");
        label(out, op);
        if (line_of(op))
            text_printf(out, "  line %d", line_of(op));
        for (int k = 0; k < op->result_count; k++)
            if (in_place(p, op, k)) {
                text_add(out, "  in place");
                break;
            }
        text_add(out, "\n");
        for (; e < d->edge_count && d->edges[e].to == i; e++) {
            const struct dep *x = &d->edges[e];
            text_printf(out, "      %*s%s after %d, ", indent, "", dep_kind_names[x->kind], x->from);
            subject(out, x);
            text_add(out, x->carried ? ", an earlier iteration\n" : "\n");
        }
    }
    for (int s = 0; s < d->source_count; s++) {
        int count = 0;
        for (int i = 0; i < d->op_count; i++)
            count += deps_affected(d, s, i);
        text_printf(out, "  a change of %s reaches %d of %d\n", d->sources[s].name, count, d->op_count);
    }
}

/* ---- DOT ------------------------------------------------------------------------------------------------------------ */

/* What was printed to t, which is freed. */
static void quoted_text(struct text *out, struct text *t) {
    text_json_string(out, text_string(t));
    text_free(t);
}

static void dot_nodes(const struct printer *p, int begin, int end) {
    const struct deps *d = p->d;
    const char *f = d->plan->func->name;
    for (int i = begin; i < end; i = d->ops[i].end) {
        bool cluster = d->ops[i].end > i + 1;
        if (cluster)
            text_printf(p->out, "    subgraph \"cluster_%s_%d\" {\n", f, i);
        text_printf(p->out, "    \"%s_%d\" [label=", f, i);
        struct text t = {0};
        label(&t, d->ops[i].op);
        quoted_text(p->out, &t);
        text_printf(p->out, ", tooltip=\"line %d\"%s];\n", line_of(d->ops[i].op), cluster ? ", style=bold" : "");
        if (cluster) {
            dot_nodes(p, i + 1, d->ops[i].end);
            text_add(p->out, "    }\n");
        }
    }
}

/* RAW solid, WAR dashed, WAW dotted; between iterations grey. */
static void print_dot(const struct printer *p) {
    static const char *const styles[] = {"solid", "dashed", "dotted"};
    const struct deps *d = p->d;
    const char *f = d->plan->func->name;
    text_printf(p->out, "digraph \"%s\" {\n    node [shape=box];\n", f);
    dot_nodes(p, 0, d->op_count);
    for (int i = 0; i < d->edge_count; i++) {
        const struct dep *e = &d->edges[i];
        text_printf(p->out, "    \"%s_%d\" -> \"%s_%d\" [label=", f, e->from, f, e->to);
        struct text t = {0};
        text_printf(&t, "%s ", dep_kind_names[e->kind]);
        subject(&t, e);
        quoted_text(p->out, &t);
        text_printf(p->out, ", style=%s%s];\n", styles[e->kind], e->carried ? ", color=grey, constraint=false" : "");
    }
    text_add(p->out, "}\n");
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------- */

static void json_value(const struct printer *p, const struct ir_value *v) {
    const struct storage *s = p->d->plan->of_value[v->id];
    text_printf(p->out, "{\"id\": %d, \"name\": ", v->id);
    text_json_string(p->out, value_name(v));
    text_printf(p->out, ", \"version\": %d, \"storage\": %d}", v->buffer_name ? v->version : 0, s ? s->id : -1);
}

static void print_json(const struct printer *p) {
    const struct deps *d = p->d;
    struct text *out = p->out;
    text_add(out, "{\"function\": ");
    text_json_string(out, d->plan->func->name);
    text_add(out, ",\n \"operations\": [");
    for (int i = 0; i < d->op_count; i++) {
        const struct ir_op *op = d->ops[i].op;
        bool reuses = false;
        for (int k = 0; k < op->result_count; k++)
            reuses |= in_place(p, op, k);
        text_printf(
            out, "%s\n  {\"id\": %d, \"holder\": %d, \"code\": \"%s\", \"line\": %d, \"in_place\": %s, \"label\": ",
            i ? "," : "", i, d->ops[i].holder, ir_optable[op->code].name, line_of(op), reuses ? "true" : "false");
        struct text t = {0};
        label(&t, op);
        quoted_text(out, &t);
        text_add(out, ", \"results\": [");
        for (int k = 0; k < op->result_count; k++) {
            text_add(out, k ? ", " : "");
            json_value(p, op->results[k]);
        }
        text_add(out, "]}");
    }
    text_add(out, "],\n \"dependences\": [");
    for (int i = 0; i < d->edge_count; i++) {
        const struct dep *e = &d->edges[i];
        text_printf(
            out, "%s\n  {\"from\": %d, \"to\": %d, \"kind\": \"%s\", \"carried\": %s, \"storage\": %d, \"version\": ",
            i ? "," : "", e->from, e->to, dep_kind_names[e->kind], e->carried ? "true" : "false",
            e->storage ? e->storage->id : -1);
        struct text t = {0};
        subject(&t, e);
        quoted_text(out, &t);
        text_add(out, "}");
    }
    text_add(out, "],\n \"storages\": [");
    for (int i = 0; i < d->plan->storage_count; i++) {
        static const char *const kinds[] = {"arena", "buffer", "argument", "result", "constant", "local", "cache"};
        const struct storage *s = d->plan->storages[i];
        const char *kind = s->kind == STORAGE_BUFFER && s->buffer->kind == BUFFER_PARAM ? "param" : kinds[s->kind];
        text_printf(out, "%s\n  {\"id\": %d, \"kind\": \"%s\", \"bytes\": %lld, \"name\": ", i ? "," : "", i, kind,
                    (long long)s->bytes);
        text_json_string(out, s->name ? s->name : "");
        text_add(out, "}");
    }
    text_add(out, "],\n \"sources\": [");
    for (int s = 0; s < d->source_count; s++) {
        static const char *const kinds[] = {"argument", "dimension", "buffer", "random"};
        text_printf(out, "%s\n  {\"kind\": \"%s\", \"name\": ", s ? "," : "", kinds[d->sources[s].kind]);
        text_json_string(out, d->sources[s].name);
        text_add(out, ", \"affects\": [");
        bool any = false;
        for (int i = 0; i < d->op_count; i++)
            if (deps_affected(d, s, i)) {
                text_printf(out, "%s%d", any ? ", " : "", i);
                any = true;
            }
        text_add(out, "]}");
    }
    text_add(out, "]}");
}

void emit_deps(struct text *out, const struct plan *plan, enum emit_kind format) {
    for (int i = 0; i < plan->func_count; i++) {
        struct arena a = {0};
        struct printer p = {out, deps_new(&plan->funcs[i], &a)};
        if (format == EMIT_DEPS_JSON)
            text_add(out, i ? ",\n" : "[");
        if (format == EMIT_DEPS)
            print_text(&p);
        else if (format == EMIT_DEPS_DOT)
            print_dot(&p);
        else
            print_json(&p);
        arena_free(&a);
    }
    if (format == EMIT_DEPS_JSON)
        text_add(out, "]\n");
}
