/* `mxcc report --target cuda`: each kernel's bytes and FLOPs, and its time by the roofline model (Williams et al. 2009) of a named GPU: what it
 * moves over the memory's rate, or what it computes over the rate of its type, whichever is longer. Nothing runs faster than that; how near a
 * kernel comes is for a profiler to say. The smallest rates of a kind count: tensor cores for products of f16 and bf16 alone.
 */
#include <stdlib.h>
#include <string.h>

#include "driver/driver.h"
#include "passes/memplan/report.h"

const struct gpu_row gpu_table[] = {
#define G(name, title, bandwidth, f64, f32, tf32, f16, bf16) {name, title, bandwidth, f64, f32, tf32, f16, bf16},
#include "driver/gpu.def"
#undef G
    {0},
};

/* All launches of a kernel that one place of the model makes. */
struct kernel {
    struct plan_kernel of; /* its sums */
    int line;
    double seconds; /* on the GPU asked for */
};

struct kernels {
    struct arena arena;
    VEC(struct kernel) all;
};

static double rate(const struct gpu_row *g, const struct plan_kernel *k) {
    double tera = k->type == F64                                    ? g->f64
                  : k->is_product && k->type == F16 && g->f16 > 0   ? g->f16
                  : k->is_product && k->type == BF16 && g->bf16 > 0 ? g->bf16
                                                                    : g->f32;
    return tera * 1e12;
}

static double seconds(const struct gpu_row *g, const struct plan_kernel *k, bool *computes) {
    double moving = k->bytes / (g->bandwidth * 1e9), computing = k->flops / rate(g, k);
    *computes = computing > moving;
    return k->launches * (*computes ? computing : moving);
}

static double total(const struct gpu_row *g, const struct plan_func *p, double *in_memory) {
    double sum = 0;
    bool computes;
    *in_memory = 0;
    for (int i = 0; i < p->kernel_count; i++) {
        double s = seconds(g, &p->kernels[i], &computes);
        sum += s;
        *in_memory += computes ? 0 : s;
    }
    return sum;
}

static int longest(const void *a, const void *b) {
    const struct kernel *x = a, *y = b;
    return x->seconds != y->seconds ? (x->seconds < y->seconds ? 1 : -1)
           : x->line != y->line     ? x->line - y->line
                                    : strcmp(x->of.name, y->of.name);
}

/* Launches of one kernel from one line together; bytes and FLOPs of all of them. Without a GPU in the order of bytes. */
static struct kernels gather(const struct plan_func *p, const struct gpu_row *g) {
    struct kernels s = {0};
    for (int i = 0; i < p->kernel_count; i++) {
        struct plan_kernel k = p->kernels[i];
        int line = 0, column = 0, at = 0;
        bool computes;
        double time = g ? seconds(g, &k, &computes) : k.launches * k.bytes;
        if (k.op && k.op->span.source)
            span_position(k.op->span, &line, &column);
        while (at < s.all.n && (s.all.at[at].line != line || strcmp(s.all.at[at].of.name, k.name) != 0))
            at++;
        if (at == s.all.n) {
            VEC_PUSH(&s.arena, s.all, ((struct kernel){k, line, 0}));
            s.all.at[at].of.launches = s.all.at[at].of.bytes = s.all.at[at].of.flops = 0;
        }
        struct kernel *to = &s.all.at[at];
        to->of.launches += k.launches;
        to->of.bytes += k.launches * k.bytes;
        to->of.flops += k.launches * k.flops;
        to->seconds += time;
    }
    if (s.all.n)
        qsort(s.all.at, (size_t)s.all.n, sizeof *s.all.at, longest);
    return s;
}

static const char *path_of(const struct kernel *k) {
    return k->of.op && k->of.op->span.source ? k->of.op->span.source->path : "";
}

static void add_time(struct text *out, double s) {
    text_printf(out, s >= 1 ? "%.2f s" : s >= 1e-3 ? "%.2f ms" : "%.3g us", s >= 1 ? s : s >= 1e-3 ? s * 1e3 : s * 1e6);
}

static void add_number(struct text *out, double n, const char *unit) {
    static const char *const prefixes[] = {"", "K", "M", "G", "T", "P"};
    int i = 0;
    for (; n >= 1000 && i < 5; i++)
        n /= 1000;
    text_printf(out, i ? "%.2f %s%s" : "%.0f %s%s", n, prefixes[i], unit);
}

void report_gpu(struct text *out, const struct plan_func *p, const struct gpu_row *asked) {
    enum { SHOWN = 16 };
    struct kernels s = gather(p, asked);
    double launches = 0;
    for (int i = 0; i < p->kernel_count; i++)
        launches += p->kernels[i].launches;
    text_printf(out, "  kernels      %.0f launches; by the roofline model a call takes at least\n", launches);
    for (const struct gpu_row *g = gpu_table; g->name; g++) {
        if (asked && g != asked)
            continue;
        double in_memory, all = total(g, p, &in_memory);
        text_printf(out, "    %-24s ", g->title);
        add_time(out, all);
        text_add(out, ", of that for memory ");
        add_time(out, in_memory);
        text_add(out, "\n");
    }
    for (int i = 0; i < s.all.n && i < SHOWN; i++) {
        const struct kernel *k = &s.all.at[i];
        char place[80] = "";
        if (k->line)
            (void)snprintf(place, sizeof place, "%.60s:%d", path_of(k), k->line);
        text_printf(out, "    %-36s %-24s %5.0f x, ", k->of.name, place, k->of.launches);
        add_number(out, k->of.bytes, "B");
        text_add(out, ", ");
        add_number(out, k->of.flops, "FLOP");
        if (asked) {
            struct plan_kernel one = k->of;
            bool computes;
            one.launches = 1;
            (void)seconds(asked, &one, &computes);
            text_add(out, ", ");
            add_time(out, k->seconds);
            text_printf(out, " of %s", computes ? dtype_name(k->of.type) : "memory");
        }
        text_add(out, "\n");
    }
    if (s.all.n > SHOWN)
        text_printf(out, "    … and %d more\n", s.all.n - SHOWN);
    arena_free(&s.arena);
}

void report_gpu_json(struct text *out, const struct plan_func *p, const struct gpu_row *asked) {
    struct kernels s = gather(p, asked);
    text_add(out, "\n   \"roofline\": {");
    bool any = false;
    for (const struct gpu_row *g = gpu_table; g->name; g++) {
        if (asked && g != asked)
            continue;
        double in_memory, all = total(g, p, &in_memory);
        text_printf(out, "%s\"%s\": {\"seconds\": %.6g, \"memory_seconds\": %.6g}", any ? ", " : "", g->name, all,
                    in_memory);
        any = true;
    }
    text_add(out, "},\n   \"kernels\": [");
    for (int i = 0; i < s.all.n; i++) {
        const struct kernel *k = &s.all.at[i];
        text_printf(out, "%s\n     {\"name\": \"%s\", \"file\": ", i ? "," : "", k->of.name);
        text_json_string(out, path_of(k));
        text_printf(
            out,
            ", \"line\": %d, \"launches\": %.0f, \"bytes\": %.0f, \"flops\": %.0f, \"type\": \"%s\", \"product\": %s",
            k->line, k->of.launches, k->of.bytes, k->of.flops, dtype_name(k->of.type),
            k->of.is_product ? "true" : "false");
        if (asked)
            text_printf(out, ", \"seconds\": %.6g", k->seconds);
        text_add(out, "}");
    }
    text_add(out, "],");
    arena_free(&s.arena);
}
