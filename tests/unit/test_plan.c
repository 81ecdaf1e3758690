/* Order, storage classes and placement: small programs with a known answer, random ones run inside their plan. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "ir/text.h"
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
    t->c = (struct pass_context){.module = t->m, .diag = &t->d, .options = &t->o};
    struct text why = {0};
    cr_assert(ir_verify(t->m, &why), "%s", text_string(&why));
    pass_order(&t->c);
    pass_mutation(&t->c);
    pass_place(&t->c);
    cr_assert(ir_verify(t->m, &why), "%s", text_string(&why));
    t->p = &t->c.plan->funcs[0];
    cr_assert(plan_validate(t->p, &why), "%s", text_string(&why));
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

/* ---- placement ---------------------------------------------------------------------------------------------------- */

static bool disjoint(const struct placement_item *x, int n, int64_t align) {
    for (int i = 0; i < n; i++) {
        if (x[i].offset < 0 || x[i].offset % align)
            return false;
        for (int k = 0; k < i; k++)
            if (x[i].lower < x[k].upper && x[k].lower < x[i].upper && x[i].offset < x[k].offset + x[k].size &&
                x[k].offset < x[i].offset + x[i].size)
                return false;
    }
    return true;
}

Test(placement, random_items) {
    uint64_t s = 99;
    for (int round = 0; round < 60; round++) {
        struct placement_item x[80], y[80];
        int n = 1 + pick(&s, 80);
        int64_t align = pick(&s, 2) ? 64 : 1;
        for (int i = 0; i < n; i++) {
            int lower = pick(&s, 50);
            x[i] = (struct placement_item){lower, lower + 1 + pick(&s, 20), 1 + pick(&s, 1000), -1};
            y[i] = x[i];
        }
        int64_t h = placement_solve(x, n, align, 0, 0);
        cr_assert(disjoint(x, n, align));
        cr_assert_geq(h, placement_lower_bound(x, n));
        cr_assert_eq(h, placement_solve(y, n, align, 0, 0));
        cr_assert(!memcmp(x, y, sizeof *x * (size_t)n), "same input, other offsets");
    }
}

Test(placement, none) {
    cr_expect_eq(placement_solve(NULL, 0, 64, 0, 0), 0);
    cr_expect_eq(placement_lower_bound(NULL, 0), 0);
}

/* Greedy placements reach 10 here; 9 is the load at its busiest and possible. */
Test(placement, small_items_around_long_ones) {
    struct placement_item x[] = {{0, 3, 4, 0}, {3, 9, 4, 0}, {0, 9, 4, 0}, {9, 21, 4, 0}, {0, 21, 4, 0}};
    int64_t h = placement_solve(x, 5, 1, 0, 0);
    cr_expect_eq(h, 12);
    cr_expect(disjoint(x, 5, 1));
}

/* MXCC_MINIMALLOC names a folder with the instances of google/minimalloc, each of which fits 1,048,576 bytes. */
Test(placement, minimalloc) {
    const char *folder = getenv("MXCC_MINIMALLOC");
    if (!folder)
        cr_skip_test("MXCC_MINIMALLOC is not set");
    for (char name = 'A'; name <= 'D'; name++) {
        static struct placement_item x[1000];
        char path[1024], line[256];
        snprintf(path, sizeof path, "%s/%c.1048576.csv", folder, name);
        FILE *f = fopen(path, "r");
        cr_assert(f, "%s", path);
        int n = 0;
        long long id, lower, upper, size;
        while (fgets(line, sizeof line, f))
            if (sscanf(line, "%lld,%lld,%lld,%lld", &id, &lower, &upper, &size) == 4 && n < 1000)
                x[n++] = (struct placement_item){lower, upper, size, 0};
        fclose(f);
        cr_expect_leq(placement_solve(x, n, 1, 1048576, 20), 1048576, "%s", path);
        cr_expect(disjoint(x, n, 1));
    }
}
