/* Incremental functions: the partition by dirty sets, what is kept, and that the validator finds planted faults. */
#include <criterion/criterion.h>
#include <string.h>

#include "ir/text.h"
#include "passes/mutation/deps.h"
#include "passes/mutation/incremental.h"

struct planned {
    struct diag d;
    struct ir_module *m;
    struct pass_context c;
    struct compile_options o;
    struct plan_func *p;
    struct plan_incremental *inc;
};

static void plan_text(struct planned *t, const char *text) {
    struct text why = {0};
    memset(t, 0, sizeof *t);
    diag_init(&t->d);
    t->m = ir_parse(&t->d, diag_add_source(&t->d, "test.mxir", text, strlen(text)));
    if (!t->m)
        diag_print(&t->d, stderr, false);
    cr_assert(t->m);
    t->c = (struct pass_context){.module = t->m, .diag = &t->d, .options = &t->o};
    cr_assert(ir_verify(t->m, &why), "%s", text_string(&why));
    pass_fuse(&t->c);
    pass_order(&t->c);
    pass_mutation(&t->c);
    pass_place(&t->c);
    t->p = &t->c.plan->funcs[0];
    t->inc = t->p->incremental;
    cr_assert(plan_validate(t->p, &why), "%s", text_string(&why));
    text_free(&why);
}

static void done(struct planned *t) {
    ir_module_free(t->m);
    diag_free(&t->d);
}

static bool valid(const struct planned *t) {
    struct text why = {0};
    bool ok = plan_validate(t->p, &why);
    cr_expect(ok == (why.length == 0));
    text_free(&why);
    return ok;
}

/* Operations that a change of one source runs, and those that every call runs. */
static int ran(const struct planned *t, enum incremental_source_kind kind, int index) {
    uint64_t groups = 0;
    int n = 0;
    for (int i = 0; i < t->inc->source_count; i++)
        if (t->inc->sources[i].kind == kind && t->inc->sources[i].index == index)
            groups = t->inc->sources[i].groups;
    for (const struct ir_op *op = t->p->func->body->first; op; op = op->next) {
        int g = incremental_group(t->inc, op);
        n += g == INCREMENTAL_ALWAYS || (g >= 0 && groups >> g & 1);
    }
    return n;
}

static int caches(const struct planned *t) {
    int n = 0;
    for (int i = 0; i < t->p->storage_count; i++)
        n += t->p->storages[i]->kind == STORAGE_CACHE;
    return n;
}

/* a = x @ w, b = exp(a), c = b @ v; v is what `learn` writes, w and the bias are not written by anybody. */
static const char layers[] = "module \"m\"\n"
                             "param @w: f32[8, 8]\n"
                             "param @bias: f32[8]\n"
                             "param @v: f32[8, 4]\n"
                             "export incremental func f[N in 1 .. 16](x = %0.x: f32[N, 8]) -> (c) {\n"
                             "    %1.w: f32[8, 8] = read @w\n"
                             "    %2.bias: f32[8] = read @bias\n"
                             "    %3.v: f32[8, 4] = read @v\n"
                             "    %4.a: f32[N, 8] = nest(%0.x, %1.w) [i < N, j < 8] {\n"
                             "        reduce k < 8\n"
                             "        acc0 = sum mul(%0.x[i, k], %1.w[k, j])\n"
                             "        %4.a = acc0\n"
                             "    }\n"
                             "    %5.b: f32[N, 8] = nest(%4.a, %2.bias) [i < N, j < 8] {\n"
                             "        %5.b = exp(add(%4.a[i, j], %2.bias[j]))\n"
                             "    }\n"
                             "    %6.c: f32[N, 4] = nest(%5.b, %3.v) [i < N, j < 4] {\n"
                             "        reduce k < 8\n"
                             "        acc0 = sum mul(%5.b[i, k], %3.v[k, j])\n"
                             "        %6.c = acc0\n"
                             "    }\n"
                             "    return %6.c\n"
                             "}\n"
                             "export train func learn() {\n"
                             "    %0.v: f32[8, 4] = read @v\n"
                             "    %1: f32[8, 4] = nest(%0.v) [i < 8, j < 4] {\n"
                             "        %1 = mul(%0.v[i, j], 0.5:f32)\n"
                             "    }\n"
                             "    write(%1) @v\n"
                             "    return\n"
                             "}\n";

Test(incremental, groups_follow_what_changes_together) {
    struct planned t;
    plan_text(&t, layers);
    cr_expect_eq(t.inc->group_count, 2, "%d groups", t.inc->group_count);
    cr_expect_eq(ran(&t, INCREMENTAL_INPUT, 0), 2);
    cr_expect_eq(ran(&t, INCREMENTAL_EXTENT, 0), 2);
    cr_expect_eq(ran(&t, INCREMENTAL_BUFFER, 0), 2);
    cr_expect_eq(ran(&t, INCREMENTAL_BUFFER, 1), 2, "the bias stays with its product");
    cr_expect_eq(ran(&t, INCREMENTAL_BUFFER, 2), 1);
    cr_expect_eq(caches(&t), 2); /* b and c */
    cr_expect_eq(t.p->cache_bytes, 16 * 8 * 4 * 2 + 16 * 4 * 4);
    cr_expect_eq(t.inc->input_bytes, 16 * 8 * 4);
    cr_expect_eq(t.c.plan->cache_bytes, t.p->cache_bytes);
    cr_expect(!t.c.plan->funcs[1].incremental);
    done(&t);
}

/* The dependences of the finished plan, computed apart, ask for no operation that the groups would leave out. */
Test(incremental, groups_cover_the_exact_dependences) {
    struct planned t;
    struct arena a = {0};
    plan_text(&t, layers);
    struct deps *d = deps_new(t.p, &a);
    int seen = 0;
    for (int s = 0; s < d->source_count; s++)
        for (int k = 0; k < d->op_count; k++) {
            int g = incremental_group(t.inc, d->ops[k].op);
            if (g < 0 || !deps_affected(d, s, k))
                continue;
            seen++;
            for (int i = 0; i < t.inc->source_count; i++) {
                const struct incremental_source *x = &t.inc->sources[i];
                bool same = d->sources[s].kind == SOURCE_ARG
                                ? x->kind == INCREMENTAL_INPUT && x->index == d->sources[s].index
                            : d->sources[s].kind == SOURCE_SYMBOL
                                ? x->kind == INCREMENTAL_EXTENT && x->index == d->sources[s].index
                                : x->kind == INCREMENTAL_BUFFER && x->index == d->sources[s].buffer->id;
                cr_expect(!same || x->groups >> g & 1, "%s does not run operation %d", d->sources[s].name, k);
            }
        }
    cr_expect_eq(seen, 2 * 4 + 1);
    arena_free(&a);
    done(&t);
}

Test(incremental, the_validator_finds_a_lost_dependence) {
    struct planned t;
    plan_text(&t, layers);
    for (int i = 0; i < t.inc->source_count; i++)
        for (int g = 0; g < t.inc->group_count; g++)
            if (t.inc->sources[i].groups >> g & 1) {
                t.inc->sources[i].groups ^= (uint64_t)1 << g;
                cr_expect(!valid(&t), "source %d without group %d", i, g);
                t.inc->sources[i].groups ^= (uint64_t)1 << g;
            }
    cr_expect(valid(&t));
    done(&t);
}

Test(incremental, the_validator_finds_what_is_not_kept) {
    struct planned t;
    plan_text(&t, layers);
    for (int i = 0; i < t.p->storage_count; i++) {
        struct storage *s = t.p->storages[i];
        if (s->kind != STORAGE_CACHE)
            continue;
        int64_t offset = s->offset;
        s->offset = t.inc->input_bytes == offset ? offset + 64 : t.inc->input_bytes;
        cr_expect(!valid(&t), "two caches in one place");
        s->offset = 0;
        cr_expect(!valid(&t), "a cache over an input");
        s->kind = STORAGE_ARENA;
        t.p->arena_bytes += 4096;
        cr_expect(!valid(&t), "a value of the arena that should outlive the call");
        t.p->arena_bytes -= 4096;
        s->kind = STORAGE_CACHE;
        s->offset = offset;
    }
    cr_expect(valid(&t));
    done(&t);
}

Test(incremental, a_kept_value_is_not_worked_over) {
    struct planned t; /* rows of exp(x) are replaced by what depends on v alone: the copy stays */
    plan_text(&t, "module \"m\"\n"
                  "export incremental func f(x = %0.x: f32[8, 4], v = %1.v: f32[4]) -> (b) {\n"
                  "    %2.a: f32[8, 4] = nest(%0.x) [i < 8, j < 4] {\n"
                  "        %2.a = exp(exp(%0.x[i, j]))\n"
                  "    }\n"
                  "    %3.b: f32[8, 4] = nest(%2.a, %1.v) [j < 4] {\n"
                  "        %3.b = %2.a with [3, j] = %1.v[j]\n"
                  "    }\n"
                  "    return %3.b\n"
                  "}\n");
    cr_expect_eq(t.inc->group_count, 2);
    cr_expect_eq(t.p->copy_count, 2); /* before the update, and of the result */
    cr_expect_eq(caches(&t), 2);
    cr_expect_eq(ran(&t, INCREMENTAL_INPUT, 0), 3);
    cr_expect_eq(ran(&t, INCREMENTAL_INPUT, 1), 2);
    /* The update worked in the place of what it reads: the second call would find it changed. */
    struct storage *a = NULL;
    int b = -1;
    for (const struct ir_op *op = t.p->func->body->first; op; op = op->next)
        for (int i = 0; i < op->result_count; i++) {
            struct storage *s = t.p->of_value[op->results[i]->id];
            if (s->kind == STORAGE_CACHE && !a)
                a = s;
            else if (s->kind == STORAGE_CACHE && s != a) {
                t.p->of_value[op->results[i]->id] = a;
                b = op->results[i]->id;
            }
        }
    cr_assert(a && b >= 0);
    cr_expect(!valid(&t));
    done(&t);
}

Test(incremental, effects_and_what_depends_on_them_run_always) {
    struct planned t;
    plan_text(&t, "module \"m\"\n"
                  "export incremental func f(x = %0.x: f32) -> (y, z) {\n"
                  "    %1: f32 = extern(%0.x) \"now\" header \"now.h\" symbol \"now\" params [0] returns\n"
                  "    %2: f32 = nest(%1) [] {\n"
                  "        %2 = exp(%1[])\n"
                  "    }\n"
                  "    %3: f32 = nest(%0.x) [] {\n"
                  "        %3 = exp(%0.x[])\n"
                  "    }\n"
                  "    return %2, %3\n"
                  "}\n");
    cr_expect_eq(t.inc->group_count, 1);
    cr_expect_eq(ran(&t, INCREMENTAL_INPUT, 0), 3);
    t.inc->sources[0].groups = 0;
    cr_expect(!valid(&t));
    done(&t);
}

Test(incremental, more_than_64_sets_are_joined) {
    struct planned t;
    struct text s = {0};
    enum { LAYERS = 100 };
    text_add(&s, "module \"m\"\n");
    for (int i = 0; i < LAYERS; i++)
        text_printf(&s, "param @w%d: f32[4, 4]\n", i);
    text_add(&s, "export incremental func f(x = %0.x: f32[4, 4]) -> (y) {\n");
    for (int i = 0; i < LAYERS; i++)
        text_printf(
            &s,
            "    %%%d: f32[4, 4] = read @w%d\n    %%%d: f32[4, 4] = nest(%%%d, %%%d) [i < 4, j < 4] {\n        reduce k < 4\n"
            "        acc0 = sum mul(%%%d[i, k], %%%d[k, j])\n        %%%d = acc0\n    }\n",
            2 * i + 1, i, 2 * i + 2, 2 * i, 2 * i + 1, 2 * i, 2 * i + 1, 2 * i + 2);
    text_printf(&s, "    return %%%d\n}\n", 2 * LAYERS);
    plan_text(&t, text_string(&s));
    cr_expect_eq(t.inc->group_count, INCREMENTAL_GROUPS);
    for (int i = 0; i < LAYERS; i++) {
        int n = ran(&t, INCREMENTAL_BUFFER, i);
        cr_expect(n >= LAYERS - i && n <= LAYERS - i + 3, "w%d runs %d of %d", i, n, LAYERS);
    }
    text_free(&s);
    done(&t);
}
