/* Nests to C: each case is a module in text form; its function is lowered with a planner that gives every value its own memory,
 * printed, compiled by the system's compiler and run beside the evaluator on the same random arguments. Each case runs in
 * portable C99 (no warning allowed), with vector extensions for this machine, and with its loops split into tasks.
 */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codegen/codegen.h"
#include "eager/eager.h"
#include "ir/text.h"

/* ---- the simplest plan ---------------------------------------------------------------------------------------------- */

struct planner {
    struct plan_func *p;
    struct arena *arena;
    const struct compile_options *options;
    int64_t offset;
};

static struct storage *new_storage(struct planner *c, struct ir_value *v, enum storage_kind kind) {
    struct storage *s = ARENA_NEW(c->arena, struct storage);
    s->id = c->p->storage_count;
    s->kind = kind;
    s->name = v->name;
    c->p->storages[c->p->storage_count++] = s;
    c->p->of_value[v->id] = s;
    return s;
}

static void own_memory(struct planner *c, struct ir_value *v) {
    if (v->type.rank == 0) {
        new_storage(c, v, STORAGE_SCALAR);
        return;
    }
    struct storage *s = new_storage(c, v, STORAGE_ARENA);
    s->bytes = ir_type_bytes_upper(v->type);
    s->offset = c->offset;
    c->offset += (s->bytes + 63) / 64 * 64;
}

static void plan_op(struct ir_op *op, void *context) {
    struct planner *c = context;
    for (int i = 0; i < op->region_count; i++)
        for (int k = 0; k < op->regions[i]->arg_count; k++)
            own_memory(c, op->regions[i]->args[k]);
    for (int i = 0; i < op->result_count; i++) {
        struct ir_value *v = op->results[i];
        if (op->code == OP_const)
            new_storage(c, v, STORAGE_CONST)->op = op;
        else if (op->code == OP_read)
            new_storage(c, v, STORAGE_BUFFER)->buffer = op->buffer.buffer;
        else if (op->code == OP_reshape)
            c->p->of_value[v->id] = c->p->of_value[op->operands[0]->id];
        else if (op->code == OP_nest && op->nest.results[i].base >= 0)
            c->p->of_value[v->id] = c->p->of_value[op->operands[op->nest.results[i].base]->id];
        else if (op->code != OP_check)
            own_memory(c, v);
    }
}

static void plan_kernel(struct ir_op *op, void *context) {
    struct planner *c = context;
    int64_t bytes = codegen_workspace(c->options, c->p, op);
    if (!bytes)
        return;
    struct storage *s = ARENA_NEW(c->arena, struct storage);
    *s = (struct storage){
        .id = c->p->storage_count, .kind = STORAGE_ARENA, .op = op, .bytes = bytes, .offset = c->offset};
    c->p->storages[c->p->storage_count++] = s;
    c->offset += bytes;
}

static struct plan_func *plan_simply(struct ir_func *f, const struct compile_options *o, struct arena *arena) {
    struct planner c = {.p = ARENA_NEW(arena, struct plan_func), .arena = arena, .options = o};
    c.p->func = f;
    c.p->storages = ARENA_ARRAY(arena, struct storage *, 2 * f->value_count + 1);
    c.p->of_value = ARENA_ARRAY(arena, struct storage *, f->value_count + 1);
    for (int i = 0; i < f->body->arg_count; i++)
        new_storage(&c, f->body->args[i], STORAGE_ARG)->index = i;
    ir_walk_ops(f->body, plan_op, &c);
    ir_walk_ops(f->body, plan_kernel, &c);
    c.p->arena_bytes = c.offset;
    return c.p;
}

/* ---- one case --------------------------------------------------------------------------------------------------------- */

struct mode {
    const char *name, *flags;
    struct compile_options options;
};

static const struct mode modes[] = {
    {"portable gcc",
     "gcc -O1 -std=c99 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wvla -Werror",
     {.vector_bytes = 32}},
    {"portable clang",
     "clang -O1 -std=c99 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wvla -Werror",
     {.vector_bytes = 32}},
    {"vectors 16",
     "gcc -O2 -std=gnu11 -Wall -Wextra -Wshadow -Werror",
     {.vector_bytes = 16, .vector_extensions = true}},
#ifdef __AVX2__
    {"native",
     "gcc -O3 -march=native -std=gnu11 -Wall -Wextra -Wshadow -Werror",
     {.vector_bytes = 32, .vector_extensions = true}},
#endif
#ifdef __AVX512F__
    {"native 64",
     "clang -O2 -march=native -std=gnu11 -Wall -Wextra -Wshadow -Werror",
     {.vector_bytes = 64, .vector_extensions = true}},
#endif
    {"tasks", "gcc -O2 -std=gnu11 -Wall -Wextra -Wshadow -Werror", {.vector_bytes = 32, .threads = true}},
};

static const char prelude[] =
    "#include <math.h>\n#include <stdarg.h>\n#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <string.h>\n"
    "typedef enum mx_status { MX_OK, MX_ERROR_CHECK = 3 } mx_status;\n"
    "struct mxrt_pool;\n"
    "struct t { unsigned char *arena; uint64_t seed, calls; struct mxrt_pool *pool; };\n"
    "extern void mxrt_parallel(struct mxrt_pool *pool, int64_t tasks, void (*fn)(void *, int64_t), void *context);\n"
    "void mxrt_parallel(struct mxrt_pool *pool, int64_t tasks, void (*fn)(void *, int64_t), void *context)\n"
    "{\n    (void)pool;\n    while (tasks-- > 0)\n        fn(context, tasks);\n}\n"
    "extern mx_status t_mx_fail(struct t *m, mx_status status, const char *format, ...);\n"
    "mx_status t_mx_fail(struct t *m, mx_status status, const char *format, ...)\n"
    "{\n    (void)m;\n    (void)format;\n    return status;\n}\n"
    "extern void t_mx_print(const struct t *m, const char *text);\n"
    "void t_mx_print(const struct t *m, const char *text)\n{\n    (void)m;\n    (void)text;\n}\n";

struct instance {
    unsigned char *arena;
    uint64_t seed, calls;
    void *pool;
};

static uint64_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void fill(struct tensor *t, uint64_t *state) {
    int64_t n = tensor_elements(t);
    for (int64_t i = 0; i < n; i++) {
        int64_t k = (int64_t)(next_random(state) % 17);
        double x = (double)next_random(state) / 2147483648.0 - 0.5;
        switch (t->dtype) {
        case F64: ((double *)t->data)[i] = x; break;
        case F32: ((float *)t->data)[i] = (float)x; break;
        case F16: ((uint16_t *)t->data)[i] = (uint16_t)(0x3000 + 64 * k); break;
        case BF16: ((uint16_t *)t->data)[i] = (uint16_t)(0x3e00 + 8 * k); break;
        case I64:
        case U64: ((int64_t *)t->data)[i] = k; break;
        case I32:
        case U32: ((int32_t *)t->data)[i] = (int32_t)k; break;
        case I16:
        case U16: ((int16_t *)t->data)[i] = (int16_t)k; break;
        case BOOL: ((uint8_t *)t->data)[i] = k & 1; break;
        default: ((int8_t *)t->data)[i] = (int8_t)k;
        }
    }
}

static double number(const struct tensor *t, int64_t i) {
    switch (t->dtype) {
    case F64: return ((double *)t->data)[i];
    case F32: return (double)((float *)t->data)[i];
    case I64: return (double)((int64_t *)t->data)[i];
    case I32: return (double)((int32_t *)t->data)[i];
    case U32: return (double)((uint32_t *)t->data)[i];
    case F16:
    case BF16:
    case U16: return (double)((uint16_t *)t->data)[i];
    case BOOL:
    case U8: return (double)((uint8_t *)t->data)[i];
    default: return (double)((int8_t *)t->data)[i];
    }
}

static void check(const char *text, int64_t symbol_value) {
    struct diag d;
    diag_init(&d);
    struct ir_module *m = ir_parse(&d, diag_add_source(&d, "case.mxir", text, strlen(text)));
    if (!m)
        diag_print(&d, stderr, false);
    cr_assert(m, "the case does not parse:\n%s", text);
    struct text why = {0};
    cr_assert(ir_verify(m, &why), "%s", text_string(&why));
    struct ir_func *f = m->funcs[0];
    int64_t values[16] = {0}, words[10] = {0};
    uint64_t state = 1;
    struct tensor *args[8], *expected[8], *got[8];
    int word = 0;
    for (int i = 0; i < f->symbol_count; i++)
        values[f->symbols[i]->id] = words[word++] = symbol_value;
    for (int i = 0; i < f->body->arg_count; i++) {
        struct ir_type t = f->body->args[i]->type;
        int64_t dims[8];
        for (int k = 0; k < t.rank; k++)
            dims[k] = ir_dim_eval(t.dims[k], values);
        args[i] = tensor_new(t.dtype, t.rank, dims);
        fill(args[i], &state);
        words[word++] = (int64_t)(intptr_t)args[i]->data;
    }
    struct eager *e = eager_new(m, 7);
    cr_assert(e && eager_call(e, f, args, expected) == 0, "%s", e ? eager_error(e) : "no instance");
    for (int i = 0; i < f->result_count; i++) {
        got[i] = tensor_new(expected[i]->dtype, expected[i]->rank, expected[i]->dims);
        words[word++] = (int64_t)(intptr_t)got[i]->data;
    }
    cr_assert(word <= 10);
    for (size_t k = 0; k < sizeof modes / sizeof *modes; k++) {
        struct arena arena = {0};
        struct plan_func *p = plan_simply(f, &modes[k].options, &arena);
        struct plan plan = {.arena = &arena, .arena_bytes = p->arena_bytes};
        struct cgen g = {.module = m, .plan = &plan, .options = &modes[k].options, .diag = &d, .prefix = "t"};
        g.flops = ARENA_ARRAY(&arena, int64_t, m->func_count + 1);
        cgen_c_function(&g, p);
        char dir[] = "/tmp/lowerXXXXXX", path[64], command[1024];
        cr_assert(mkdtemp(dir));
        snprintf(path, sizeof path, "%s/t.c", dir);
        FILE *out = fopen(path, "w");
        cr_assert(out);
        fprintf(out, "%s%s%s%s", prelude, text_string(&g.helpers), text_string(&g.outlined), text_string(&g.functions));
        fprintf(out, "extern mx_status run(struct t *m, const int64_t *w);\n");
        fclose(out);
        /* The run function is static: a second file includes the first and exports a call with plain words. */
        snprintf(path, sizeof path, "%s/run.c", dir);
        out = fopen(path, "w");
        fprintf(out, "#include \"t.c\"\nmx_status run(struct t *m, const int64_t *w)\n{\n    return t_mx_run_%s(m",
                f->name);
        word = 0;
        for (int i = 0; i < f->symbol_count; i++)
            fprintf(out, ", w[%d]", word++);
        for (int i = 0; i < f->body->arg_count; i++, word++)
            if (f->body->args[i]->type.rank)
                fprintf(out, ", (const void *)(intptr_t)w[%d]", word);
            else
                fprintf(out, ", *(%s *)(intptr_t)w[%d]", cgen_c_type(f->body->args[i]->type.dtype), word);
        for (int i = 0; i < f->result_count; i++)
            fprintf(out, ", (void *)(intptr_t)w[%d]", word++);
        fprintf(out, ");\n}\n");
        fclose(out);
        snprintf(command, sizeof command, "%s -ffp-contract=off -fPIC -shared %s/run.c -o %s/t.so -lm", modes[k].flags,
                 dir, dir);
        cr_assert(system(command) == 0, "%s: does not compile: %s", modes[k].name, dir);
        snprintf(path, sizeof path, "%s/t.so", dir);
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        cr_assert(library, "%s", dlerror());
        int (*run)(struct instance *, const int64_t *);
        *(void **)&run = dlsym(library, "run");
        struct instance instance = {.arena = aligned_alloc(64, (size_t)(plan.arena_bytes + 127) / 64 * 64), .seed = 7};
        for (int i = 0; i < f->result_count; i++)
            memset(got[i]->data, 0xee, (size_t)(tensor_elements(got[i]) * dtype_size(got[i]->dtype)));
        cr_assert(run(&instance, words) == 0);
        for (int i = 0; i < f->result_count; i++) {
            double scale = 0;
            int64_t n = tensor_elements(expected[i]);
            for (int64_t at = 0; at < n; at++)
                scale = fmax(scale, isfinite(number(expected[i], at)) ? fabs(number(expected[i], at)) : 0);
            double tolerance = expected[i]->dtype == F32            ? 1e-5 * scale
                               : expected[i]->dtype == F64          ? 1e-12 * scale
                               : dtype_is_float(expected[i]->dtype) ? 1
                                                                    : 0;
            for (int64_t at = 0; at < n; at++) {
                double a = number(got[i], at), b = number(expected[i], at);
                cr_assert(a == b || fabs(a - b) <= tolerance || (isnan(a) && isnan(b)),
                          "%s: result %d, element %lld is %.9g, expected %.9g (%s)\n%s", modes[k].name, i,
                          (long long)at, a, b, dir, text);
            }
        }
        dlclose(library);
        free(instance.arena);
        if (!getenv("KEEP")) {
            snprintf(command, sizeof command, "rm -r %s", dir);
            cr_assert(system(command) == 0);
        }
        text_free(&g.helpers);
        text_free(&g.outlined);
        text_free(&g.functions);
        arena_free(&g.arena);
        arena_free(&arena);
    }
    for (int i = 0; i < f->result_count; i++) {
        tensor_free(got[i]);
        tensor_free(expected[i]);
    }
    for (int i = 0; i < f->body->arg_count; i++)
        tensor_free(args[i]);
    eager_free(e);
    text_free(&why);
    ir_module_free(m);
    diag_free(&d);
}

/* ---- the cases ---------------------------------------------------------------------------------------------------------- */

Test(lower, elementwise_in_one_loop) {
    check("module \"t\"\n"
          "export func f[N in 1 .. 70](x = %0.x: f32[N, 5, 7], b = %1.b: f32[5]) -> (y) {\n"
          "    %2.y: f32[N, 5, 7] = nest(%0.x, %1.b) [n < N, c < 5, k < 7] {\n"
          "        %2.y = exp(add(mul(%0.x[n, c, k], 2.5), %1.b[c]))\n    }\n"
          "    return %2.y\n}\n",
          33);
}

Test(lower, a_product_of_matrices) {
    check("module \"t\"\n"
          "export func f[N in 1 .. 64](x = %0.x: f32[N, 67], w = %1.w: f32[35, 67], b = %2.b: f32[35]) -> (y) {\n"
          "    %3.y: f32[N, 35] = nest(%0.x, %1.w, %2.b) [i < N, j < 35] {\n"
          "        reduce k < 67\n        acc0 = sum mul(%0.x[i, k], %1.w[j, k])\n"
          "        %3.y = max(add(acc0, %2.b[j]), 0.0)\n    }\n"
          "    return %3.y\n}\n",
          19);
}

Test(lower, sums_over_rows_and_over_everything) {
    check(
        "module \"t\"\n"
        "export func f[N in 1 .. 64](x = %0.x: f32[N, 77]) -> (y, s, a) {\n"
        "    %1.y: f32[77] = nest(%0.x) [j < 77] {\n"
        "        reduce i < N\n        acc0 = sum %0.x[i, j]\n        %1.y = acc0\n    }\n"
        "    %2.s: f32 = nest(%0.x) [] {\n"
        "        reduce i < N\n        reduce j < 77\n        acc0 = sum %0.x[i, j]\n        %2.s = div(acc0, 7.0)\n    }\n"
        "    %3.a: i32[N] = nest(%0.x) [i < N] {\n"
        "        reduce j < 77\n        acc0 = argmax %0.x[i, j]\n        %3.a = acc0\n    }\n"
        "    return %1.y, %2.s, %3.a\n}\n",
        41);
}

Test(lower, a_convolution_with_padding) {
    check(
        "module \"t\"\n"
        "export func f[N in 1 .. 8](x = %0.x: f32[N, 3, 9, 8], w = %1.w: f32[5, 3, 3, 3]) -> (y) {\n"
        "    %2.y: f32[N, 5, 5, 4] = nest(%0.x, %1.w) [n < N, o < 5, h < 5, v < 4] {\n"
        "        reduce c < 3\n        reduce p < 3\n        reduce q < 3\n"
        "        acc0 = sum mul(%0.x[n, c, sub(add(mul(h, 2), p), 1), sub(add(mul(v, 2), q), 1) else 0.0], %1.w[o, c, p, q])\n"
        "        %2.y = acc0\n    }\n"
        "    return %2.y\n}\n",
        3);
}

Test(lower, half_precision_and_integers) {
    check(
        "module \"t\"\n"
        "export func f(x = %0.x: f16[40], k = %1.k: i32[40], z = %2.z: bf16[40]) -> (y, j, s) {\n"
        "    %3.y: f16[40] = nest(%0.x) [i < 40] {\n        %3.y = mul(%0.x[i], add(%0.x[i], 1.0:f16))\n    }\n"
        "    %4.j: i32[40] = nest(%1.k) [i < 40] {\n        %4.j = mod(sub(%1.k[i], 7:i32), 5:i32)\n    }\n"
        "    %5.s: bf16 = nest(%2.z) [] {\n        reduce i < 40\n        acc0 = sum f32(%2.z[i])\n        %5.s = bf16(acc0)\n    }\n"
        "    return %3.y, %4.j, %5.s\n}\n",
        0);
}

Test(lower, writes_by_element) {
    check(
        "module \"t\"\n"
        "export func f(x = %0.x: f32[20], k = %1.k: i32[20]) -> (y) {\n"
        "    %2.z: f32[17] = nest() [i < 17] {\n        %2.z = 0.5\n    }\n"
        "    %3.y: f32[17] = nest(%2.z, %0.x, %1.k) [i < 20] {\n        %3.y = %2.z with [i64(%1.k[i])] += %0.x[i]\n    }\n"
        "    return %3.y\n}\n",
        0);
}

Test(lower, tasks_give_the_same_sums) {
    check(
        "module \"t\"\n"
        "export func f(x = %0.x: f32[300, 400]) -> (y, s) {\n"
        "    %1.y: f32[300, 400] = nest(%0.x) [i < 300, j < 400] {\n        %1.y = tanh(%0.x[i, j])\n    }\n"
        "    %2.s: f32[400] = nest(%1.y) [j < 400] {\n        reduce i < 300\n        acc0 = sum %1.y[i, j]\n        %2.s = acc0\n    }\n"
        "    return %1.y, %2.s\n}\n",
        0);
}

Test(lower, gradients_of_a_convolution) {
    check(
        "module \"t\"\n"
        "export func f[N in 1 .. 8](x = %0.x: f32[N, 4, 9, 8], w = %1.w: f32[6, 4, 3, 3], g = %2.g: f32[N, 6, 9, 8]) -> (dx, dw) {\n"
        "    %3.dx: f32[N, 4, 9, 8] = nest(%2.g, %1.w) [n < N, c < 4, h < 9, v < 8] {\n"
        "        reduce o < 6\n        reduce p < 3\n        reduce q < 3\n"
        "        acc0 = sum mul(%2.g[n, o, sub(add(h, 1), p), sub(add(v, 1), q) else 0.0], %1.w[o, c, p, q])\n"
        "        %3.dx = acc0\n    }\n"
        "    %4.dw: f32[6, 4, 3, 3] = nest(%0.x, %2.g) [o < 6, c < 4, p < 3, q < 3] {\n"
        "        reduce n < N\n        reduce h < 9\n        reduce v < 8\n"
        "        acc0 = sum mul(%2.g[n, o, h, v], %0.x[n, c, sub(add(h, p), 1), sub(add(v, q), 1) else 0.0])\n"
        "        %4.dw = acc0\n    }\n"
        "    return %3.dx, %4.dw\n}\n",
        3);
}

Test(lower, products_in_every_transposition) {
    for (int k = 0; k < 8; k++) {
        struct text t = {0};
        const char *a = k & 1 ? "%0.a[b, k, i]" : "%0.a[b, i, k]", *w = k & 2 ? "%1.w[b, j, k]" : "%1.w[b, k, j]";
        const char *at = k & 1 ? "130, 37" : "37, 130", *wt = k & 2 ? "96, 130" : "130, 96",
                   *dtype = k & 4 ? "f64" : "f32";
        text_printf(
            &t,
            "module \"t\"\nexport func f(a = %%0.a: %s[3, %s], w = %%1.w: %s[3, %s]) -> (y) {\n"
            "    %%2.y: %s[3, 37, 96] = nest(%%0.a, %%1.w) [b < 3, i < 37, j < 96] {\n"
            "        reduce k < 130\n        acc0 = sum mul(%s, %s)\n        %%2.y = acc0\n    }\n    return %%2.y\n}\n",
            dtype, at, dtype, wt, dtype, a, w);
        check(text_string(&t), 0);
        text_free(&t);
    }
}

Test(lower, a_deep_product_in_blocks) {
    check(
        "module \"t\"\n"
        "export func f[N in 1 .. 3000](a = %0.a: f32[20, 2500], w = %1.w: f32[2500, 64], c = %2.c: f32[24, N], d = %3.d: f32[N, 40]) -> (y, z) {\n"
        "    %4.y: f32[20, 64] = nest(%0.a, %1.w) [i < 20, j < 64] {\n"
        "        reduce k < 2500\n        acc0 = sum mul(%0.a[i, k], %1.w[k, j])\n        %4.y = max(acc0, 0.0)\n    }\n"
        "    %5.z: f32[24, 40] = nest(%2.c, %3.d) [i < 24, j < 40] {\n"
        "        reduce k < N\n        acc0 = sum mul(%2.c[i, k], %3.d[k, j])\n        %5.z = mul(acc0, 0.5)\n    }\n"
        "    return %4.y, %5.z\n}\n",
        2100);
}

Test(lower, sort_scan_and_random_bits) {
    check("module \"t\"\n"
          "export random func f[N in 1 .. 64](x = %0.x: f32[N, 7, 2]) -> (s, p, c, r) {\n"
          "    %1.s: f32[N, 3, 2], %2.p: i64[N, 3, 2] = sort(%0.x) axis 1 descending limit 3\n"
          "    %3.c: f32[N, 7, 2] = scan(%0.x) axis 0 sum reverse exclusive\n"
          "    %4.r: u32[N] = rng() \"\" place 3\n"
          "    return %1.s, %2.p, %3.c, %4.r\n}\n",
          13);
}

Test(lower, loops_and_branches) {
    check(
        "module \"t\"\n"
        "export func f(x = %0.x: f32[9], n = %1.n: i64[1]) -> (y, z) {\n"
        "    %2: i64 = const 0\n    %3.n: i64 = nest(%1.n) [] {\n        %3.n = %1.n[0]\n    }\n"
        "    %4.y: f32[9] = for(%2, %3.n, %0.x) limit 100 { (%5.t: i64, %6.h: f32[9])\n"
        "        %7: f32[9] = nest(%6.h, %5.t) [i < 9] {\n            %7 = add(mul(%6.h[i], 0.5), f32(%5.t[]))\n        }\n"
        "        yield %7\n    }\n"
        "    %8.s: f32 = nest(%4.y) [] {\n        reduce i < 9\n        acc0 = sum abs(%4.y[i])\n        %8.s = acc0\n    }\n"
        "    %9.w: f32 = while(%8.s) limit 500 { (%10: f32)\n"
        "        %11: bool = nest(%10) [] {\n            %11 = lt(%10[], 100.0)\n        }\n        yield %11\n    } { (%12: f32)\n"
        "        %13: f32 = nest(%12) [] {\n            %13 = add(mul(%12[], 1.5), 0.25)\n        }\n        yield %13\n    }\n"
        "    %14: bool = nest(%9.w) [] {\n        %14 = lt(%9.w[], 120.0)\n    }\n"
        "    %15.z: f32 = if(%14) {\n        yield %8.s\n    } {\n        yield %9.w\n    }\n"
        "    print(%15.z, %0.x) \"z\"\n"
        "    return %4.y, %15.z\n}\n",
        0);
}

Test(lower, ragged_bounds_and_slices_found_at_run_time) {
    check(
        "module \"t\"\n"
        "export func f[N in 1 .. 64](x = %0.x: f32[N, 20], n = %1.n: i64[1]) -> (y, m) {\n"
        "    %2.n: i64 = nest(%1.n) [] {\n        %2.n = add(%1.n[0], 1)\n    }\n"
        "    dim(%2.n) K in 0 .. 20\n"
        "    %3.y: f32[N] = nest(%0.x) [i < N] {\n        reduce k in 0 .. {K} < 20\n        acc0 = sum %0.x[i, k]\n        %3.y = acc0\n    }\n"
        "    %4.m: f32[20] = nest(%0.x) [i < 20] {\n        reduce k in 0 .. add(i, 1) < 20\n        acc0 = max %0.x[0, k]\n        %4.m = acc0\n    }\n"
        "    return %3.y, %4.m\n}\n",
        11);
}

Test(lower, large_products_in_tasks) {
    check(
        "module \"t\"\n"
        "export func f[N in 1 .. 16](x = %0.x: f32[N, 3, 30, 30], w = %1.w: f32[16, 3, 5, 5], a = %2.a: f32[64, 300], b = %3.b: f32[400, 300]) -> (y, z, u) {\n"
        "    %4.y: f32[N, 16, 13, 13] = nest(%0.x, %1.w) [n < N, o < 16, h < 13, v < 13] {\n"
        "        reduce c < 3\n        reduce p < 5\n        reduce q < 5\n"
        "        acc0 = sum mul(%0.x[n, c, add(mul(h, 2), p), add(mul(v, 2), q)], %1.w[o, c, p, q])\n"
        "        %4.y = tanh(acc0)\n    }\n"
        "    %5.z: f32[64, 400] = nest(%2.a, %3.b) [i < 64, j < 400] {\n"
        "        reduce k < 300\n        acc0 = sum mul(%2.a[i, k], %3.b[j, k])\n        %5.z = acc0\n    }\n"
        "    %6.u: f32[400, 64] = nest(%2.a, %3.b) [j < 400, i < 64] {\n"
        "        reduce k < 300\n        acc0 = sum mul(%2.a[i, k], %3.b[j, k])\n        %6.u = mul(acc0, 0.5)\n    }\n"
        "    return %4.y, %5.z, %6.u\n}\n",
        15);
}
