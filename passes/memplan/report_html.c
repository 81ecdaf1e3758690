/* The plan as one self-contained page: for each function a picture of its arena (time to the right, offsets upward, one box a
 * storage), what is alive at the peak by source line, what is stored in 16 bits, copies, caches, and the operations with what they move and compute.
 */
#include "passes/memplan/report.h"

#include <stdlib.h>
#include <string.h>

#include "passes/mutation/incremental.h"
#include "passes/mutation/liveness.h"

#define WIDTH       1100.0 /* of the picture, in its own units */
#define HEIGHT      420.0
#define LOAD_HEIGHT 90.0 /* of the curve above it */
#define SMALL       0.4  /* boxes that would be lower than this are left out */

static void escaped(struct text *out, const char *s) {
    for (; *s; s++)
        text_add(out, *s == '<'   ? "&lt;"
                      : *s == '>' ? "&gt;"
                      : *s == '&' ? "&amp;"
                      : *s == '"' ? "&quot;"
                                  : (char[2]){*s, 0});
}

/* "resnet.mxl:14"; empty where nothing is known. */
static void place_of(struct text *out, struct span span) {
    int line, column;
    if (!span.source)
        return;
    span_position(span, &line, &column);
    const char *slash = strrchr(span.source->path, '/');
    escaped(out, slash ? slash + 1 : span.source->path);
    text_printf(out, ":%d", line);
}

/* ---- where storages come from --------------------------------------------------------------------------------------- */

struct page {
    struct text *out;
    const struct plan_func *p;
    struct span *source;           /* [storage_count]: of what is stored first */
    const struct ir_value **first; /* [storage_count]; NULL: a workspace */
    int64_t *load;                 /* [positions + 1] */
    int peak;
    int from, to; /* positions of the picture: where something is alive */
};

static bool shown(const struct storage *s) {
    return s->kind == STORAGE_ARENA && s->upper > s->lower && s->bytes > 0;
}

static void note_source(struct page *g, const struct ir_value *v, struct span span) {
    const struct storage *s = g->p->of_value[v->id];
    if (s && !g->source[s->id].source)
        g->source[s->id] = v->span.source ? v->span : span;
    if (s && !g->first[s->id])
        g->first[s->id] = v;
}

static void note_sources(struct ir_op *op, void *context) {
    struct page *g = context;
    for (int i = 0; i < op->region_count; i++)
        for (int k = 0; op_runs_regions(op) && k < op->regions[i]->arg_count; k++)
            note_source(g, op->regions[i]->args[k], op->span);
    for (int i = 0; i < op->result_count; i++)
        note_source(g, op->results[i], op->span);
}

static void measure(struct page *g) {
    const struct plan_func *p = g->p;
    g->from = p->positions;
    ir_walk_ops(p->func->body, note_sources, g);
    for (int i = 0; i < p->storage_count; i++) {
        const struct storage *s = p->storages[i];
        if (s->op && s->kind == STORAGE_ARENA)
            g->source[i] = s->op->span;
        if (!shown(s))
            continue;
        g->from = s->lower < g->from ? s->lower : g->from;
        g->to = s->upper > g->to ? s->upper : g->to;
        g->load[s->lower] += s->bytes;
        g->load[s->upper] -= s->bytes;
    }
    for (int t = 0; t < p->positions; t++) {
        g->load[t + 1] += g->load[t];
        if (g->load[t] > g->load[g->peak])
            g->peak = t;
    }
}

/* ---- the picture ---------------------------------------------------------------------------------------------------- */

/* A colour that tells source lines apart and stays the same from report to report. */
static int hue_of(struct span span, const char *name) {
    uint32_t h = 2166136261u; /* FNV-1a */
    int line = 0, column = 0;
    if (span.source)
        span_position(span, &line, &column);
    for (const char *s = span.source ? span.source->path : name ? name : ""; *s; s++)
        h = (h ^ (unsigned char)*s) * 16777619u;
    return (int)((h % 360 + (uint32_t)line * 137) % 360); /* the golden angle keeps neighbours apart */
}

static void box(struct page *g, const struct storage *s, double x_unit, double y_unit) {
    struct text *out = g->out;
    double x = (s->lower - g->from) * x_unit, w = (s->upper - s->lower) * x_unit, h = (double)s->bytes * y_unit,
           y = LOAD_HEIGHT + HEIGHT - (double)s->offset * y_unit - h;
    bool workspace = s->op != NULL;
    text_printf(out, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"hsl(%d,%d%%,%d%%)\"><title>", x,
                y, w, h, hue_of(g->source[s->id], s->name), workspace ? 0 : 60, workspace ? 45 : 65);
    escaped(out, s->name ? s->name : "(unnamed)");
    text_add(out, " ");
    place_of(out, g->source[s->id]);
    text_add(out, "\n");
    plan_bytes(out, s->bytes);
    if (g->first[s->id])
        text_printf(out, " of %s", dtype_name(g->first[s->id]->type.dtype));
    text_printf(out, " at %lld, alive in [%d, %d)</title></rect>\n", (long long)s->offset, s->lower, s->upper);
}

static void curve(struct page *g, double x_unit, double y_unit) {
    struct text *out = g->out;
    text_printf(out, "<path fill=\"#9bb8d8\" d=\"M0 %.1f", LOAD_HEIGHT);
    for (int t = g->from; t < g->to; t++)
        if (t == g->from || g->load[t] != g->load[t - 1])
            text_printf(out, "H%.2fV%.2f", (t - g->from) * x_unit, LOAD_HEIGHT - (double)g->load[t] * y_unit);
    text_printf(out, "H%.1fV%.1fZ\"/>\n", WIDTH, LOAD_HEIGHT);
}

static void picture(struct page *g) {
    const struct plan_func *p = g->p;
    struct text *out = g->out;
    double x_unit = WIDTH / (g->to - g->from), y_unit = HEIGHT / (double)p->arena_bytes;
    int small = 0;
    text_printf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"lifetimes and offsets of %s\">\n"
        "<rect class=\"arena\" fill=\"#f6f6f6\" x=\"0\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\"/>\n",
        WIDTH, LOAD_HEIGHT + HEIGHT, p->func->name, LOAD_HEIGHT, WIDTH, HEIGHT);
    curve(g, x_unit, (LOAD_HEIGHT - 8) / (double)p->arena_bytes);
    for (int i = 0; i < p->storage_count; i++) {
        if (!shown(p->storages[i]))
            continue;
        if ((double)p->storages[i]->bytes * y_unit < SMALL)
            small++;
        else
            box(g, p->storages[i], x_unit, y_unit);
    }
    double x = (g->peak - g->from + 0.5) * x_unit;
    text_printf(
        out, "<line stroke=\"#c00\" stroke-dasharray=\"4 3\" x1=\"%.2f\" x2=\"%.2f\" y1=\"0\" y2=\"%.0f\"/>\n</svg>\n",
        x, x, LOAD_HEIGHT + HEIGHT);
    text_printf(
        out,
        "<p class=\"note\">Time runs to the right, from position %d to %d; above, what is alive; below, where it lies: "
        "offset 0 at the bottom, one box a storage, coloured by source line, workspaces of kernels grey. "
        "The line marks the peak, position %d.",
        g->from, g->to, g->peak);
    if (small)
        text_printf(out, " %d storages too small to see are left out.", small);
    text_add(out, "</p>\n");
}

/* ---- the peak by source line ---------------------------------------------------------------------------------------- */

struct line_use {
    const struct source *source;
    int line;
    int64_t bytes;
    int count;
    const char *names[3];
};

static int by_line_bytes(const void *a, const void *b) {
    const struct line_use *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return x->line - y->line;
}

static int lines_at_peak(struct page *g, struct line_use *uses) {
    int n = 0;
    for (int i = 0; i < g->p->storage_count; i++) {
        const struct storage *s = g->p->storages[i];
        int line = 0, column = 0, k = 0;
        if (!shown(s) || s->lower > g->peak || s->upper <= g->peak)
            continue;
        if (g->source[i].source)
            span_position(g->source[i], &line, &column);
        while (k < n && (uses[k].source != g->source[i].source || uses[k].line != line))
            k++;
        if (k == n)
            uses[n++] = (struct line_use){.source = g->source[i].source, .line = line};
        uses[k].bytes += s->bytes;
        if (uses[k].count++ < 3)
            uses[k].names[uses[k].count - 1] = s->name ? s->name : "(unnamed)";
    }
    qsort(uses, (size_t)n, sizeof *uses, by_line_bytes);
    return n;
}

static void source_line(struct text *out, const struct source *s, int line) {
    const char *at = s->text, *end = s->text + s->length;
    for (int i = 1; i < line && at < end; at++)
        i += *at == '\n';
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    const char *stop = at;
    while (stop < end && *stop != '\n')
        stop++;
    struct text t = {0};
    text_addn(&t, at, (size_t)(stop - at > 110 ? 110 : stop - at));
    escaped(out, text_string(&t));
    text_free(&t);
}

static void peak(struct page *g) {
    struct text *out = g->out;
    struct line_use *uses = calloc((size_t)g->p->storage_count + 1, sizeof *uses);
    if (!uses)
        abort();
    int n = lines_at_peak(g, uses);
    text_printf(out,
                "<h3>Alive at the peak, by source line</h3>\n<table><tr><th>bytes</th><th>of the peak</th><th>line</th>"
                "<th>source</th><th>what</th></tr>\n");
    for (int i = 0; i < n; i++) {
        double share = 100.0 * (double)uses[i].bytes / (double)g->load[g->peak];
        text_add(out, "<tr><td>");
        plan_bytes(out, uses[i].bytes);
        text_printf(out, "</td><td><span class=\"bar\" style=\"width:%.1fpx\"></span>%.1f%%</td><td>", share, share);
        if (uses[i].source) {
            const char *slash = strrchr(uses[i].source->path, '/');
            escaped(out, slash ? slash + 1 : uses[i].source->path);
            text_printf(out, ":%d</td><td><code>", uses[i].line);
            source_line(out, uses[i].source, uses[i].line);
            text_add(out, "</code></td><td>");
        } else {
            text_add(out, "</td><td></td><td>");
        }
        for (int k = 0; k < uses[i].count && k < 3; k++) {
            text_add(out, k ? ", " : "");
            escaped(out, uses[i].names[k]);
        }
        if (uses[i].count > 3)
            text_printf(out, " and %d more", uses[i].count - 3);
        text_add(out, "</td></tr>\n");
    }
    text_add(out, "</table>\n");
    free(uses);
}

/* ---- tables --------------------------------------------------------------------------------------------------------- */

/* What --precision did to the function: counted, and the storages of the arena that hold 16 bits because of it. */
static void low_precision(struct page *g) {
    struct text *out = g->out;
    const struct precision_counts *low = &g->p->low_precision;
    if (!low->products && !low->stored)
        return;
    text_printf(out, "<h3>16 bits</h3>\n<p>%d products, %d values rounded for them, %d stored: ", low->products,
                low->rounded, low->stored);
    plan_bytes(out, low->stored_bytes);
    text_add(out, " instead of twice that.</p>\n<table class=\"low\"><tr><th>bytes</th><th>type</th><th>what</th>"
                  "<th>line</th></tr>\n");
    for (int i = 0; i < g->p->storage_count; i++) {
        const struct storage *s = g->p->storages[i];
        enum dtype t = g->first[i] ? g->first[i]->type.dtype : F32;
        if (!shown(s) || (t != F16 && t != BF16))
            continue;
        text_add(out, "<tr><td>");
        plan_bytes(out, s->bytes);
        text_printf(out, "</td><td>%s</td><td>", dtype_name(t));
        escaped(out, s->name ? s->name : "(unnamed)");
        text_add(out, "</td><td>");
        place_of(out, g->source[i]);
        text_add(out, "</td></tr>\n");
    }
    text_add(out, "</table>\n");
}

static void copies(struct page *g) {
    struct text *out = g->out;
    if (!g->p->copy_count)
        return;
    text_add(out, "<h3>Copies</h3>\n<table><tr><th>bytes</th><th>of</th><th>for</th><th>why</th></tr>\n");
    for (int i = 0; i < g->p->copy_count; i++) {
        const struct plan_copy *c = &g->p->copies[i];
        text_add(out, "<tr><td>");
        plan_bytes(out, c->bytes);
        text_add(out, "</td><td>");
        escaped(out, c->name ? c->name : "");
        text_add(out, "</td><td>");
        place_of(out, c->write->span);
        text_add(out, "</td><td>");
        escaped(out, c->why ? c->why : "");
        if (c->reader) {
            text_add(out, ", at ");
            place_of(out, c->reader->span);
        }
        text_add(out, "</td></tr>\n");
    }
    text_add(out, "</table>\n");
}

static void caches(struct page *g) {
    struct text lines = {0};
    incremental_report(&lines, g->p, plan_bytes);
    if (lines.length) {
        text_add(g->out, "<h3>Kept from call to call</h3>\n<pre>");
        escaped(g->out, text_string(&lines));
        text_add(g->out, "</pre>\n");
    }
    text_free(&lines);
}

static void operations(struct page *g) {
    struct text *out = g->out;
    struct arena a = {0};
    const struct liveness *l = liveness_new(g->p->func, &a);
    text_printf(out, "<details><summary>Operations: bytes and FLOPs of one run, at the largest dimensions</summary>\n"
                     "<table><tr><th>position</th><th>what</th><th>line</th><th>reads and writes</th><th>FLOPs</th>"
                     "<th>workspace</th><th>alive</th></tr>\n");
    for (int i = 0; i < l->op_count; i++) {
        const struct ir_op *op = l->ops[i].op;
        int64_t moved, flops;
        if (!plan_op_cost(op, &moved, &flops))
            continue;
        const struct storage *w = plan_workspace(g->p, op);
        const char *name = op->results[0]->name ? op->results[0]->name : op->name ? op->name : "";
        text_printf(out, "<tr><td>%d</td><td>", l->ops[i].start);
        escaped(out, name[0] ? name : ir_optable[op->code].name);
        text_add(out, "</td><td>");
        place_of(out, op->span);
        text_add(out, "</td><td>");
        plan_bytes(out, moved);
        text_printf(out, "</td><td>%lld</td><td>", (long long)flops);
        if (w)
            plan_bytes(out, w->bytes);
        text_add(out, "</td><td>");
        plan_bytes(out, g->load[l->ops[i].start]);
        text_add(out, "</td></tr>\n");
    }
    text_add(out, "</table></details>\n");
    arena_free(&a);
}

static void summary(struct text *out, const struct plan *plan) {
    text_add(out, "<table><tr><th>function</th><th>arena</th><th>lower bound</th><th></th><th>order</th>"
                  "<th>no order below</th><th>largest workspace</th><th>copies</th><th>FLOPs</th></tr>\n");
    for (int i = 0; i < plan->func_count; i++) {
        const struct plan_func *p = &plan->funcs[i];
        text_printf(out, "<tr><td><a href=\"#%s\">%s</a></td><td>", p->func->name, p->func->name);
        plan_bytes(out, p->arena_bytes);
        text_add(out, "</td><td>");
        plan_bytes(out, p->lower_bound);
        if (p->arena_bytes <= p->lower_bound)
            text_add(out, "</td><td>optimal");
        else
            text_printf(out, "</td><td>%.2f%% above",
                        100.0 * (double)(p->arena_bytes - p->lower_bound) / (double)p->lower_bound);
        text_printf(out, "</td><td>%s%s</td><td>", p->order.method ? p->order.method : "",
                    p->order.method && p->lower_bound <= p->order.bound ? ", optimal" : "");
        plan_bytes(out, p->order.bound);
        text_add(out, "</td><td>");
        plan_bytes(out, p->workspace_bytes);
        text_printf(out, "</td><td>%d</td><td>%lld</td></tr>\n", p->copy_count, (long long)p->flops);
    }
    text_add(out, "</table>\n");
}

static const char style[] =
    "body{font:14px/1.4 system-ui,sans-serif;margin:2em auto;max-width:1160px;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:.6em 0}td,th{padding:2px 10px 2px 0;text-align:left;vertical-align:top;"
    "border-bottom:1px solid #ddd}code,pre{font:12px/1.4 ui-monospace,monospace}svg{width:100%;height:auto}"
    "rect{stroke:#fff;stroke-width:.15}.note{color:#666}summary{cursor:pointer;margin:.8em 0}"
    ".bar{display:inline-block;height:9px;background:#9bb8d8;margin-right:6px}";

void plan_report_html(struct text *out, const struct ir_module *m, const struct plan *plan, const char *precision) {
    text_add(out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>");
    escaped(out, m->name);
    text_printf(out, "</title><style>%s</style></head>\n<body><h1>", style);
    escaped(out, m->name);
    text_add(out, "</h1>\n<p>One arena of ");
    plan_bytes(out, plan->arena_bytes);
    text_add(out, " serves all functions, which run one at a time.");
    if (precision)
        text_printf(out, " Precision: %s.", precision);
    text_add(out, "</p>\n");
    summary(out, plan);
    for (int i = 0; i < plan->func_count; i++) {
        const struct plan_func *p = &plan->funcs[i];
        struct arena a = {0};
        struct page g = {.out = out, .p = p};
        g.source = ARENA_ARRAY(&a, struct span, p->storage_count + 1);
        g.first = ARENA_ARRAY(&a, const struct ir_value *, p->storage_count + 1);
        g.load = ARENA_ARRAY(&a, int64_t, p->positions + 2);
        measure(&g);
        text_printf(out, "<h2 id=\"%s\">%s</h2>\n", p->func->name, p->func->name);
        if (p->arena_bytes > 0) {
            picture(&g);
            peak(&g);
        } else {
            text_add(out, "<p>It needs no memory of the arena.</p>\n");
        }
        low_precision(&g);
        copies(&g);
        caches(&g);
        operations(&g);
        arena_free(&a);
    }
    text_add(out, "</body></html>\n");
}
