/* The memory plan as text. */
#include "passes/memplan/report.h"

#include <stdlib.h>

#include "passes/mutation/explain.h"

static void bytes(struct text *out, int64_t n) {
    if (n < 10240)
        text_printf(out, "%lld bytes", (long long)n);
    else if (n < 10ll * 1024 * 1024)
        text_printf(out, "%.1f KiB", (double)n / 1024);
    else
        text_printf(out, "%.1f MiB", (double)n / (1024 * 1024));
}

static int compare_bytes(const void *a, const void *b) {
    const struct storage *x = *(struct storage *const *)a, *y = *(struct storage *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return x->id - y->id;
}

static void peak(struct text *out, const struct plan_func *p) {
    int64_t best = 0;
    int when = -1, count = 0;
    int64_t *change = calloc((size_t)p->positions + 2, sizeof *change);
    struct storage **live = calloc((size_t)p->storage_count + 1, sizeof *live);
    if (!change || !live)
        abort();
    for (int i = 0; i < p->storage_count; i++) {
        const struct storage *s = p->storages[i];
        if (s->kind == STORAGE_ARENA && s->upper > s->lower) {
            change[s->lower] += s->bytes;
            change[s->upper] -= s->bytes;
        }
    }
    int64_t now = 0;
    for (int t = 0; t < p->positions; t++) {
        now += change[t];
        if (now > best) {
            best = now;
            when = t;
        }
    }
    for (int i = 0; i < p->storage_count; i++)
        if (when >= 0 && p->storages[i]->kind == STORAGE_ARENA && p->storages[i]->lower <= when &&
            when < p->storages[i]->upper)
            live[count++] = p->storages[i];
    qsort(live, (size_t)count, sizeof *live, compare_bytes);
    if (count)
        text_printf(out, "  alive at the peak (position %d of %d):\n", when, p->positions);
    for (int i = 0; i < count && i < 12; i++) {
        text_printf(out, "    %-24s ", live[i]->name ? live[i]->name : "(unnamed)");
        bytes(out, live[i]->bytes);
        text_add(out, "\n");
    }
    if (count > 12)
        text_printf(out, "    and %d smaller ones\n", count - 12);
    free(change);
    free(live);
}

static void copies(struct text *out, const struct plan_func *p) {
    for (int i = 0; i < p->copy_count; i++) {
        const struct plan_copy *c = &p->copies[i];
        text_printf(out, "  copy of %s, ", c->name);
        bytes(out, c->bytes);
        text_add(out, ", for ");
        explain_place(out, c->write);
        text_printf(out, ": %s", c->why);
        if (c->reader) {
            text_add(out, ", at ");
            explain_place(out, c->reader);
        }
        text_printf(out, "\n    help: %s\n", c->help);
    }
}

void plan_report(struct text *out, const struct plan *p) {
    for (int i = 0; p && i < p->func_count; i++) {
        const struct plan_func *f = &p->funcs[i];
        text_printf(out, "%s: arena ", f->func->name);
        bytes(out, f->arena_bytes);
        text_add(out, ", lower bound ");
        bytes(out, f->lower_bound);
        if (f->arena_bytes <= f->lower_bound)
            text_add(out, ", optimal\n");
        else
            text_printf(out, ", %.1f%% above\n",
                        100.0 * (double)(f->arena_bytes - f->lower_bound) / (double)f->lower_bound);
        peak(out, f);
        copies(out, f);
    }
}

void plan_report_copies(struct text *out, const struct plan *p) {
    for (int i = 0; p && i < p->func_count; i++) {
        if (!p->funcs[i].copy_count)
            continue;
        text_printf(out, "%s:\n", p->funcs[i].func->name);
        copies(out, &p->funcs[i]);
    }
}
