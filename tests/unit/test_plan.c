/* Order, storage classes and placement: small programs with a known answer, random ones run inside their plan. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "codegen/codegen.h"
#include "ir/text.h"
#include "passes/mutation/deps.h"
#include "tests/unit/plan_random.h"

struct planned {
    struct diag d;
    struct ir_module *m;
    struct pass_context c;
    struct compile_options o;
    struct plan_func *p;
};

static void plan_text(struct planned *t, const char *text) {
    memset(t, 0, sizeof *t);
    diag_init(&t->d);
    t->m = ir_parse(&t->d, diag_add_source(&t->d, "test.mxir", text, strlen(text)));
    if (!t->m)
        diag_print(&t->d, stderr, false);
    cr_assert(t->m);
    t->c = (struct pass_context){.module = t->m,
                                 .diag = &t->d,
                                 .options = &t->o,
                                 .workspace = codegen_workspace,
                                 .own_kernel = codegen_own_kernel};
    struct text why = {0};
    cr_assert(ir_verify(t->m, &why), "%s", text_string(&why));
    pass_order(&t->c);
    pass_mutation(&t->c);
    pass_place(&t->c);
    cr_assert(ir_verify(t->m, &why), "%s", text_string(&why));
    t->p = &t->c.plan->funcs[0];
    cr_assert(plan_validate(t->p, &why) && plan_validate_workspaces(&t->c, t->p, &why), "%s", text_string(&why));
    text_free(&why);
}

static void done(struct planned *t) {
    ir_module_free(t->m);
    diag_free(&t->d);
}

static int count_ops(const struct ir_region *r, enum ir_opcode code) {
    int n = 0;
    for (const struct ir_op *op = r->first; op; op = op->next) {
        n += op->code == code;
        for (int i = 0; i < op->region_count; i++)
            n += count_ops(op->regions[i], code);
    }
    return n;
}

Test(plan, update_in_place_after_its_readers) {
    struct planned t; /* the reader of the old weights stands behind the update in the text */
    plan_text(&t, "module \"m\"\n"
                  "param @w: f32[8, 8]\n"
                  "export func f(x = %0.x: f32[8, 8]) -> (y) {\n"
                  "    %1.w @w#0: f32[8, 8] = read @w\n"
                  "    %2: f32[8, 8] = nest(%1.w, %0.x) [i < 8, j < 8] {\n"
                  "        %2 = sub(%1.w[i, j], %0.x[i, j])\n"
                  "    }\n"
                  "    %3: f32[8, 8] = nest(%1.w, %0.x) [i < 8, j < 8] {\n"
                  "        reduce k < 8\n"
                  "        acc0 = sum mul(%0.x[i, k], %1.w[k, j])\n"
                  "        %3 = acc0\n"
                  "    }\n"
                  "    write(%2) @w\n"
                  "    return %3\n"
                  "}\n");
    cr_expect_eq(t.p->copy_count, 0);
    cr_expect_eq(t.p->arena_bytes, 0);
    cr_expect_eq(count_ops(t.m->funcs[0]->body, OP_nest), 2);
    done(&t);
}

Test(plan, a_reduction_updates_what_it_reads_afterwards) {
    struct planned t; /* w -= column sums of x, in place; v reads itself within the sum and cannot be */
    plan_text(&t, "module \"m\"\n"
                  "param @w: f32[8]\n"
                  "param @v: f32[8]\n"
                  "export func f(x = %0.x: f32[4, 8]) {\n"
                  "    %1.w @w#0: f32[8] = read @w\n"
                  "    %2: f32[8] = nest(%1.w, %0.x) [i < 8] {\n"
                  "        reduce k < 4\n"
                  "        acc0 = sum %0.x[k, i]\n"
                  "        %2 = sub(%1.w[i], acc0)\n"
                  "    }\n"
                  "    %3.v @v#0: f32[8] = read @v\n"
                  "    %4: f32[8] = nest(%3.v, %0.x) [i < 8] {\n"
                  "        reduce k < 4\n"
                  "        acc0 = sum mul(%0.x[k, i], %3.v[i])\n"
                  "        %4 = acc0\n"
                  "    }\n"
                  "    write(%2) @w\n"
                  "    write(%4) @v\n"
                  "    return\n"
                  "}\n");
    cr_expect_eq(t.p->copy_count, 1);
    done(&t);
}

Test(plan, a_fill_is_repeated_rather_than_copied) {
    struct planned t;
    plan_text(&t, "module \"m\"\n"
                  "state @a: f32[8]\n"
                  "state @b: f32[8]\n"
                  "export func f() {\n"
                  "    %0: f32[8] = nest [i < 8] {\n"
                  "        %0 = 0:f32\n"
                  "    }\n"
                  "    write(%0) @a\n"
                  "    write(%0) @b\n"
                  "    return\n"
                  "}\n");
    cr_expect_eq(t.p->copy_count, 0);
    cr_expect_eq(count_ops(t.m->funcs[0]->body, OP_nest), 2);
    for (const struct ir_op *op = t.m->funcs[0]->body->first; op; op = op->next)
        cr_expect(op->code != OP_nest || op->operand_count == 0);
    cr_expect_eq(t.p->arena_bytes, 0);
    done(&t);
}

Test(plan, a_later_check_keeps_the_buffer) {
    struct planned t;
    plan_text(&t, "module \"m\"\n"
                  "state @w: f32[64]\n"
                  "export func f(x = %0.x: f32[64]) -> (y) {\n"
                  "    %1.w @w#0: f32[64] = read @w\n"
                  "    %2: f32[64] = nest(%1.w, %0.x) [i < 64] {\n"
                  "        %2 = add(%1.w[i], %0.x[i])\n"
                  "    }\n"
                  "    %3: f32 = nest(%2) [] {\n"
                  "        reduce i < 64\n"
                  "        acc0 = sum %2[i]\n"
                  "        %3 = acc0\n"
                  "    }\n"
                  "    %4: bool = nest(%3) [] {\n"
                  "        %4 = lt(%3[], 100:f32)\n"
                  "    }\n"
                  "    %5: bool = check(%4) \"too large\"\n"
                  "    write(%2) @w\n"
                  "    return %3\n"
                  "}\n");
    cr_expect_eq(t.p->copy_count, 1);
    cr_expect_eq(t.p->arena_bytes, 256);
    cr_expect(strstr(t.p->copies[0].why, "check"));
    done(&t);
}

Test(plan, a_check_that_can_come_first_does) {
    struct planned t;
    plan_text(&t, "module \"m\"\n"
                  "state @w: f32[64]\n"
                  "export func f(x = %0.x: f32[64], n = %1.n: i64) -> (y) {\n"
                  "    %2.w @w#0: f32[64] = read @w\n"
                  "    %3: f32[64] = nest(%2.w, %0.x) [i < 64] {\n"
                  "        %3 = %2.w with [i] += %0.x[i]\n"
                  "    }\n"
                  "    %4: bool = nest(%1.n) [] {\n"
                  "        %4 = lt(%1.n[], 100)\n"
                  "    }\n"
                  "    %5: bool = check(%4) \"too large\"\n"
                  "    write(%3) @w\n"
                  "    return %4\n"
                  "}\n");
    cr_expect_eq(t.p->copy_count, 0);
    cr_expect_eq(t.p->arena_bytes, 0);
    done(&t);
}

Test(plan, a_loop_writes_rows_in_place) {
    struct planned t;
    plan_text(&t, "module \"m\"\n"
                  "state @w: f32[16, 4]\n"
                  "export func f(x = %0.x: f32[4]) -> (y) {\n"
                  "    %1.w @w#0: f32[16, 4] = read @w\n"
                  "    %2: i64 = const 1\n"
                  "    %3: i64 = const 16\n"
                  "    %4: f32[16, 4] = for(%2, %3, %1.w) { (%5: i64, %6: f32[16, 4])\n"
                  "        %7: f32[16, 4] = nest(%6, %0.x, %5) [i < 4] {\n"
                  "            %7 = %6 with [%5[], i] = add(%6[%5[], i], %0.x[i])\n"
                  "        }\n"
                  "        yield %7\n"
                  "    }\n"
                  "    write(%4) @w\n"
                  "    return %2\n"
                  "}\n");
    cr_expect_eq(t.p->copy_count, 0);
    cr_expect_eq(t.p->arena_bytes, 0);
    done(&t);
}

Test(plan, carried_values_change_places_with_one_temporary) {
    struct planned t;
    plan_text(&t, "module \"m\"\n"
                  "export func f(inout x = %0.x: f32[4], inout y = %1.y: f32[4], n = %2.n: i64) {\n"
                  "    %3: i64 = const 0\n"
                  "    %4: f32[4], %5: f32[4] = for(%3, %2.n, %0.x, %1.y) { (%6: i64, %7: f32[4], %8: f32[4])\n"
                  "        yield %8, %7\n"
                  "    }\n"
                  "    return %4, %5\n"
                  "}\n");
    cr_expect_eq(count_ops(t.m->funcs[0]->body, OP_nest), 3);
    cr_expect_eq(t.p->arena_bytes, 64);
    done(&t);
}

Test(plan, one_side_of_a_branch_updates_in_place) {
    struct planned t;
    plan_text(&t, "module \"m\"\n"
                  "state @w: f32[64]\n"
                  "export func f(c = %0.c: bool) -> (c2) {\n"
                  "    %1.w @w#0: f32[64] = read @w\n"
                  "    %2: f32[64] = if(%0.c) {\n"
                  "        %3: f32[64] = nest(%1.w) [i < 1] {\n"
                  "            %3 = %1.w with [7] = 1:f32\n"
                  "        }\n"
                  "        yield %3\n"
                  "    } {\n"
                  "        yield %1.w\n"
                  "    }\n"
                  "    write(%2) @w\n"
                  "    return %0.c\n"
                  "}\n");
    cr_expect_eq(t.p->copy_count, 0);
    cr_expect_eq(t.p->arena_bytes, 0);
    done(&t);
}

Test(plan, buffers_that_change_places) {
    struct planned t;
    plan_text(&t, "module \"m\"\n"
                  "state @a: f32[64]\n"
                  "state @b: f32[64]\n"
                  "export func f() {\n"
                  "    %0.a @a#0: f32[64] = read @a\n"
                  "    %1.b @b#0: f32[64] = read @b\n"
                  "    write(%1.b) @a\n"
                  "    write(%0.a) @b\n"
                  "    return\n"
                  "}\n");
    cr_expect_leq(t.p->arena_bytes, 512);
    done(&t);
}

Test(plan, random_programs_run_inside_their_plan) {
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct diag d;
        diag_init(&d);
        struct ir_module *m = ir_module_new(&d, "random");
        struct ir_func *f = random_func(m, seed, 4 + (int)(seed % 25));
        struct machine before, after;
        size_t n, n2;
        unsigned char *a = run_func(&before, m, f, NULL, seed, &n);
        struct compile_options o = {0};
        struct pass_context c = {.module = m, .diag = &d, .options = &o};
        struct text why = {0};
        pass_order(&c);
        cr_assert(ir_verify(m, &why), "seed %d, order: %s", (int)seed, text_string(&why));
        pass_mutation(&c);
        pass_place(&c);
        cr_assert(ir_verify(m, &why), "seed %d, mutation: %s", (int)seed, text_string(&why));
        struct plan_func *p = plan_of(c.plan, f);
        cr_assert(plan_validate(p, &why), "seed %d: %s", (int)seed, text_string(&why));
        cr_assert_geq(p->arena_bytes, p->lower_bound);
        unsigned char *b = run_func(&after, m, f, p, seed, &n2);
        cr_assert_eq(before.failed, after.failed, "seed %d", (int)seed);
        size_t skip = 0; /* results of a failed call are anything; buffers and inout arguments are as before */
        for (int i = 0; before.failed && i < f->result_count; i++)
            skip += (size_t)ir_type_bytes_upper(f->body->yields[i]->type);
        cr_assert(n == n2 && !memcmp(a + skip, b + skip, n - skip), "seed %d", (int)seed);
        arena_free(&before.memory);
        arena_free(&after.memory);
        ir_module_free(m);
        diag_free(&d);
    }
}

/* A plan that is wrong must be found out. */
Test(plan, validator_sees_overlap) {
    int broken = 0, seen = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct diag d;
        diag_init(&d);
        struct ir_module *m = ir_module_new(&d, "random");
        struct ir_func *f = random_func(m, seed, 20);
        struct compile_options o = {0};
        struct pass_context c = {.module = m, .diag = &d, .options = &o};
        pass_order(&c);
        pass_mutation(&c);
        pass_place(&c);
        struct plan_func *p = plan_of(c.plan, f);
        struct storage *a = NULL, *b = NULL; /* two that live at one time, both written and read */
        for (int i = 0; i < p->storage_count && !b; i++)
            for (int k = 0; k < i && !b; k++)
                if (p->storages[i]->kind == STORAGE_ARENA && p->storages[k]->kind == STORAGE_ARENA &&
                    p->storages[k]->lower < p->storages[i]->lower && p->storages[i]->upper < p->storages[k]->upper &&
                    p->storages[i]->upper > p->storages[i]->lower + 1) {
                    a = p->storages[k];
                    b = p->storages[i];
                }
        if (b) {
            struct text why = {0};
            broken++;
            b->offset = a->offset;
            seen += !plan_validate(p, &why);
            text_free(&why);
        }
        ir_module_free(m);
        diag_free(&d);
    }
    cr_expect_gt(broken, 10);
    /* Not all are wrong: a storage may hold nothing for a while, between two versions or in one side of a branch. */
    cr_expect_gt(seen * 10, broken * 7, "%d of %d", seen, broken);
}

/* ---- planted bugs: what must be caught ------------------------------------------------------------------------------- */

static const char slices_text[] = "module \"m\"\n"
                                  "state @s: f32[8]\n"
                                  "export func f(x = %0.x: f32[8], n = %1.n: i64) -> (y, z) {\n"
                                  "    %2.s @s#0: f32[8] = read @s\n"
                                  "    %3: i64 = const 0\n"
                                  "    %4: i64 = const 4\n"
                                  "    %5: f32 = nest(%2.s) [] {\n"
                                  "        reduce k < 8\n"
                                  "        acc0 = sum %2.s[k]\n"
                                  "        %5 = acc0\n"
                                  "    }\n"
                                  "    %6.s @s#3: f32[8] = for(%3, %4, %2.s) limit 4 { (%7.t: i64, %8.s @s#1: f32[8])\n"
                                  "        %9.a: f32 = nest(%8.s, %7.t) [] {\n"
                                  "            %9.a = %8.s[%7.t[]]\n"
                                  "        }\n"
                                  "        %10.s @s#2: f32[8] = nest(%8.s, %7.t, %9.a) [] {\n"
                                  "            %10.s = %8.s with [add(%7.t[], 1)] = mul(%9.a[], 2:f32)\n"
                                  "        }\n"
                                  "        yield %10.s\n"
                                  "    }\n"
                                  "    %11.b: f32[4] = nest(%6.s) [i < 4] {\n"
                                  "        %11.b = %6.s[add(i, 4)]\n"
                                  "    }\n"
                                  "    %12.s @s#4: f32[8] = nest(%6.s, %0.x) [i < 4] {\n"
                                  "        %12.s = %6.s with [i] += %0.x[i]\n"
                                  "    }\n"
                                  "    %13.z: f32[4] = nest(%11.b, %12.s, %5) [i < 4] {\n"
                                  "        %13.z = mul(add(%11.b[i], %12.s[i]), %5[])\n"
                                  "    }\n"
                                  "    write(%12.s) @s\n"
                                  "    return %13.z, %11.b\n"
                                  "}\n";

/* Whether edges other than `without` lead from one operation to another. */
static bool led_to(const struct deps *d, int without, int from, int to) {
    for (int e = 0; e < d->edge_count; e++)
        if (e != without && !d->edges[e].carried && d->edges[e].from == from && d->edges[e].to <= to &&
            (d->edges[e].to == to || led_to(d, without, d->edges[e].to, to)))
            return true;
    return false;
}

Test(plan, dropped_dependences_are_caught) {
    struct planned t;
    struct text why = {0};
    struct arena a = {0};
    plan_text(&t, slices_text);
    struct deps *d = deps_new(t.p, &a);
    cr_assert(deps_check(d, &why), "%s", text_string(&why));
    int needed = 0, carried = 0;
    for (int e = 0; e < d->edge_count; e++) {
        struct dep dropped = d->edges[e];
        if (!dropped.storage || d->ops[dropped.from].op->code == OP_read ||
            (dropped.carried && dropped.kind != DEP_RAW) ||
            (!dropped.carried && led_to(d, e, dropped.from, dropped.to)))
            continue;
        memmove(&d->edges[e], &d->edges[e + 1], sizeof dropped * (size_t)(d->edge_count - e - 1));
        d->edge_count--;
        cr_expect(!deps_check(d, &why), "%s from %d to %d is not missed", dep_kind_names[dropped.kind], dropped.from,
                  dropped.to);
        memmove(&d->edges[e + 1], &d->edges[e], sizeof dropped * (size_t)(d->edge_count - e));
        d->edges[e] = dropped;
        d->edge_count++;
        needed++;
        carried += dropped.carried;
    }
    cr_expect_geq(needed, 4);
    cr_expect_geq(carried, 1);
    cr_assert(deps_check(d, &why));
    arena_free(&a);
    text_free(&why);
    done(&t);
}

Test(plan, a_wrong_in_place_is_caught) {
    struct planned t;
    struct text why = {0};
    plan_text(&t, slices_text);
    /* Every pair of memories that no operation shares: merged, one of the two must be read after it was spoilt or
     * stand in the wrong place, or the merge is harmless. */
    int caught = 0, tried = 0;
    for (int i = 0; i < t.p->func->value_count; i++) {
        struct storage *s = t.p->of_value[i];
        for (int k = 0; s && k < t.p->storage_count; k++) {
            if (t.p->storages[k] == s)
                continue;
            t.p->of_value[i] = t.p->storages[k];
            tried++;
            caught += !plan_validate(t.p, &why);
            t.p->of_value[i] = s;
        }
    }
    cr_assert(plan_validate(t.p, &why));
    cr_expect(caught * 10 >= tried * 8, "%d of %d", caught, tried);
    text_free(&why);
    done(&t);
}

Test(plan, a_reader_behind_its_writer_is_caught) {
    struct planned t;
    struct text why = {0};
    plan_text(&t, slices_text);
    struct ir_op *reader = NULL, *loop = NULL, *update = NULL;
    for (struct ir_op *op = t.p->func->body->first; op; op = op->next) {
        if (op->code == OP_nest && op->nest.reds == 1)
            reader = op;
        if (op->code == OP_for)
            loop = op;
        if (op->code == OP_nest && op->nest.results[0].base >= 0)
            update = op;
    }
    cr_assert(reader && loop && update);
    ir_op_move_before(reader, update);
    cr_expect(!plan_validate(t.p, &why)); /* it sums what the loop wrote over */
    ir_op_move_before(reader, loop);
    cr_expect(plan_validate(t.p, &why));
    text_free(&why);
    done(&t);
}

/* ---- workspaces --------------------------------------------------------------------------------------------------- */

/* Two products, whose kernels pack; the second reads what the first made, and a third value lives through both. */
static const char products[] = "module \"m\"\n"
                               "export func f(x = %0.x: f32[64, 128], w = %1.w: f32[128, 96]) -> (z) {\n"
                               "    %2.kept: f32[64, 128] = nest(%0.x) [i < 64, j < 128] {\n"
                               "        %2 = exp(%0.x[i, j])\n"
                               "    }\n"
                               "    %3.a: f32[64, 96] = nest(%2, %1.w) [i < 64, j < 96] {\n"
                               "        reduce k < 128\n"
                               "        acc0 = sum mul(%2[i, k], %1.w[k, j])\n"
                               "        %3 = acc0\n"
                               "    }\n"
                               "    %4.b: f32[64, 128] = nest(%3, %1.w) [i < 64, j < 128] {\n"
                               "        reduce k < 96\n"
                               "        acc0 = sum mul(%3[i, k], %1.w[j, k])\n"
                               "        %4 = acc0\n"
                               "    }\n"
                               "    %5: f32 = nest(%4, %2) [] {\n"
                               "        reduce i < 64\n"
                               "        reduce j < 128\n"
                               "        acc0 = sum mul(%4[i, j], %2[i, j])\n"
                               "        %5 = acc0\n"
                               "    }\n"
                               "    return %5\n"
                               "}\n";

static struct storage *storage_named(const struct planned *t, const char *name) {
    for (int i = 0; i < t->p->storage_count; i++)
        if (t->p->storages[i]->name && !strcmp(t->p->storages[i]->name, name))
            return t->p->storages[i];
    cr_assert(false, "no storage %s", name);
    return NULL;
}

Test(plan, kernels_work_in_the_arena) {
    struct planned t;
    plan_text(&t, products);
    struct storage *a = storage_named(&t, "workspace of a"), *b = storage_named(&t, "workspace of b");
    cr_expect_gt(a->bytes, 4096);
    cr_expect_eq(a->upper, a->lower + 1);
    cr_expect_eq(plan_workspace(t.p, a->op), a);
    cr_expect_eq(t.p->workspace_bytes, a->bytes > b->bytes ? a->bytes : b->bytes);
    cr_expect_eq(t.p->arena_bytes, t.p->lower_bound);
    done(&t);
}

Test(plan, planted_faults_of_workspaces) {
    static const char *const lies_on[][2] = {{"workspace of a", "kept"},
                                             {"workspace of a", "a"},
                                             {"workspace of b", "kept"},
                                             {"workspace of b", "a"},
                                             {"workspace of b", "b"}};
    for (int fault = 0; fault < 7; fault++) {
        struct planned t;
        struct text why = {0};
        plan_text(&t, products);
        struct storage *a = storage_named(&t, "workspace of a"), *b = storage_named(&t, "workspace of b");
        t.p->arena_bytes += a->bytes + b->bytes; /* an offset is wrong for what lies there, not as such */
        switch (fault) {
        case 5: a->bytes -= 64; break;
        case 6: b->op = a->op; break;
        default: storage_named(&t, lies_on[fault][0])->offset = storage_named(&t, lies_on[fault][1])->offset; break;
        }
        cr_expect(!plan_validate(t.p, &why) || !plan_validate_workspaces(&t.c, t.p, &why), "fault %d", fault);
        text_free(&why);
        done(&t);
    }
}
