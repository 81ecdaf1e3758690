/* Sort, scan, random bits, print. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eager/eager_internal.h"
#include "ir/scalar_math.h"

static struct mem *new_result(struct eager *e, const struct ir_op *op, int i) {
    struct ir_type t = op->results[i]->type;
    struct mem *m = mem_new(e, (size_t)(eager_dims(e, t, NULL) * dtype_size(t.dtype)));
    if (m) {
        mem_drop(e, e->values[op->results[i]->id]);
        e->values[op->results[i]->id] = m;
    }
    return m;
}

/* The lines of a tensor along an axis. */
struct lines {
    int64_t outer, length, inner; /* line (o, i): elements (o * length + t) * inner + i */
};

static struct lines lines_of(const struct eager *e, struct ir_type t, int axis) {
    int64_t dims[EAGER_MAX_RANK];
    struct lines l = {1, 1, 1};
    eager_dims(e, t, dims);
    axis = axis < 0 ? axis + t.rank : axis;
    for (int i = 0; i < t.rank; i++)
        *(i < axis ? &l.outer : i == axis ? &l.length : &l.inner) *= dims[i];
    return l;
}

/* Stable merge sort of positions by key; nan last in both directions. */
struct sorter {
    enum vec_kind kind;
    const void *keys;
    bool descending;
};

static bool before(const struct sorter *s, int64_t a, int64_t b) {
#define BEFORE(T)                                                                         \
    do {                                                                                  \
        T x = ((const T *)s->keys)[a], y = ((const T *)s->keys)[b];                       \
        return s->descending ? x > y || (x == x && y != y) : x < y || (x == x && y != y); \
    } while (0)
    switch (s->kind) {
    case KIND_F32: BEFORE(float);
    case KIND_F64: BEFORE(double);
    case KIND_INT: BEFORE(int64_t);
    case KIND_UINT: BEFORE(uint64_t);
    default: BEFORE(int32_t);
    }
}

static void merge_sort(const struct sorter *s, int64_t *p, int64_t *scratch, int64_t n) {
    if (n < 16) {
        for (int64_t i = 1; i < n; i++) {
            int64_t x = p[i], j = i;
            for (; j > 0 && before(s, x, p[j - 1]); j--)
                p[j] = p[j - 1];
            p[j] = x;
        }
        return;
    }
    int64_t half = n / 2, i = 0, j = half, k = 0;
    merge_sort(s, p, scratch, half);
    merge_sort(s, p + half, scratch, n - half);
    memcpy(scratch, p, (size_t)half * sizeof *p);
    while (i < half && j < n)
        p[k++] = before(s, p[j], scratch[i]) ? p[j++] : scratch[i++];
    while (i < half)
        p[k++] = scratch[i++];
}

int eager_sort(struct eager *e, const struct ir_op *op) {
    struct ir_type t = op->operands[0]->type;
    struct lines in = lines_of(e, t, op->sort.axis), out = lines_of(e, op->results[0]->type, op->sort.axis);
    int64_t size = dtype_size(t.dtype), n = in.length;
    const char *data = e->values[op->operands[0]->id]->data;
    struct mem *values = new_result(e, op, 0), *positions = op->result_count > 1 ? new_result(e, op, 1) : NULL;
    if (!values || (op->result_count > 1 && !positions))
        return 1;
    void *keys = malloc((size_t)n * 8 + 1);
    int64_t *order = malloc((size_t)n * 16 + 1);
    struct sorter s = {vec_kind_of(t.dtype), keys, op->sort.descending};
    for (int64_t o = 0; o < in.outer; o++)
        for (int64_t i = 0; i < in.inner; i++) {
            vec_load(t.dtype, keys, data + (o * n * in.inner + i) * size, in.inner, n);
            for (int64_t k = 0; k < n; k++)
                order[k] = k;
            merge_sort(&s, order, order + n, n);
            for (int64_t k = 0; k < out.length; k++) {
                int64_t at = (o * out.length + k) * in.inner + i;
                memcpy((char *)values->data + at * size, data + ((o * n + order[k]) * in.inner + i) * size,
                       (size_t)size);
                if (positions)
                    vec_store(op->results[1]->type.dtype,
                              (char *)positions->data + at * dtype_size(op->results[1]->type.dtype), 0, &order[k], 1);
            }
        }
    free(keys);
    free(order);
    return 0;
}

#define SCAN(T, ADD, MUL, MAX, MIN)                                            \
    do {                                                                       \
        T *x = line, a = first;                                                \
        for (int64_t k = 0; k < l.length; k++) {                               \
            T *p = &x[op->scan.reverse ? l.length - 1 - k : k], v = *p, b = a; \
            a = op->scan.op == RED_SUM    ? ADD(a, v)                          \
                : op->scan.op == RED_PROD ? MUL(a, v)                          \
                : op->scan.op == RED_MAX  ? MAX(a, v)                          \
                                          : MIN(a, v);                          \
            *p = op->scan.exclusive ? b : a;                                   \
        }                                                                      \
    } while (0)

/* Accumulates in the register type: f16 and bf16 in f32, rounded once for each element. */
int eager_scan(struct eager *e, const struct ir_op *op) {
    struct ir_type t = op->operands[0]->type;
    struct lines l = lines_of(e, t, op->scan.axis);
    int64_t size = dtype_size(t.dtype);
    const char *data = e->values[op->operands[0]->id]->data;
    struct mem *out = new_result(e, op, 0);
    if (!out)
        return 1;
    void *line = malloc((size_t)l.length * 8 + 1);
    int bits = 8 * dtype_size(t.dtype);
    for (int64_t o = 0; o < l.outer; o++)
        for (int64_t i = 0; i < l.inner; i++) {
            int64_t at = (o * l.length * l.inner + i) * size;
            vec_load(t.dtype, line, data + at, l.inner, l.length);
            enum reduce_op r = op->scan.op;
            if (vec_kind_of(t.dtype) == KIND_F32) {
                float first = r == RED_PROD ? 1 : r == RED_MAX ? -INFINITY : r == RED_MIN ? INFINITY : 0;
                SCAN(float, mx_add_f32, mx_mul_f32, mx_max_f32, mx_min_f32);
            } else if (t.dtype == F64) {
                double first = r == RED_PROD ? 1 : r == RED_MAX ? -INFINITY : r == RED_MIN ? INFINITY : 0;
                SCAN(double, mx_add_f64, mx_mul_f64, mx_max_f64, mx_min_f64);
            } else if (vec_kind_of(t.dtype) == KIND_INT) {
                int64_t most = (int64_t)(UINT64_MAX >> (65 - bits));
                int64_t first = r == RED_PROD ? 1 : r == RED_MAX ? -1 - most : r == RED_MIN ? most : 0;
                SCAN(int64_t, mx_add_i, mx_mul_i, mx_max_i, mx_min_i);
            } else if (vec_kind_of(t.dtype) == KIND_UINT) {
                uint64_t first = r == RED_PROD ? 1 : r == RED_MIN ? UINT64_MAX >> (64 - bits) : 0;
                SCAN(uint64_t, mx_add_u, mx_mul_u, mx_max_u, mx_min_u);
            }
            vec_store(t.dtype, (char *)out->data + at, l.inner, line, l.length);
        }
    free(line);
    return 0;
}

int eager_rng(struct eager *e, const struct ir_op *op) {
    struct ir_type t = op->results[0]->type;
    int64_t n = eager_dims(e, t, NULL);
    struct mem *out = new_result(e, op, 0);
    if (!out)
        return 1;
    uint64_t h = mx_stream((uint64_t)op->rng.place);
    for (int i = 0; i < op->operand_count; i++)
        h = mx_stream_loop(h, *(const int64_t *)e->values[op->operands[i]->id]->data);
    h = mx_stream_call(h, e->calls);
    if (t.dtype == U64) {
        uint64_t *p = out->data, w[2];
        for (int64_t i = 0; i < n; i++) {
            if (i % 2 == 0)
                mx_random_u64(e->seed, h, (uint64_t)i / 2, w);
            p[i] = w[i % 2];
        }
    } else {
        uint32_t *p = out->data, w[4];
        for (int64_t i = 0; i < n; i++) {
            if (i % 4 == 0)
                mx_random_u32(e->seed, h, (uint64_t)i / 4, w);
            p[i] = w[i % 4];
        }
    }
    return 0;
}

/* ---- print ---- */

static void print_element(struct text *out, enum dtype t, const void *data) {
    union {
        float f;
        double d;
        int64_t i;
        uint64_t u;
        int32_t b;
    } v;
    vec_load(t, &v, data, 0, 1);
    switch (vec_kind_of(t)) {
    case KIND_F32: text_printf(out, "%g", (double)v.f); break;
    case KIND_F64: text_printf(out, "%g", v.d); break;
    case KIND_INT: text_printf(out, "%lld", (long long)v.i); break;
    case KIND_UINT: text_printf(out, "%llu", (unsigned long long)v.u); break;
    default: text_add(out, v.b ? "true" : "false"); break;
    }
}

static const char *print_tensor(struct text *out, enum dtype t, int rank, const int64_t *dims, const char *data) {
    if (rank == 0) {
        print_element(out, t, data);
        return data + dtype_size(t);
    }
    int64_t inner = 1;
    for (int d = 1; d < rank; d++)
        inner *= dims[d];
    text_add(out, "[");
    for (int64_t i = 0; i < dims[0]; i++) {
        if (out->length >= IR_PRINT_MAX) /* the rest would be cut */
            return data + (dims[0] - i) * inner * dtype_size(t);
        if (i)
            text_add(out, ", ");
        data = print_tensor(out, t, rank - 1, dims + 1, data);
    }
    text_add(out, "]");
    return data;
}

int eager_print(struct eager *e, const struct ir_op *op) {
    struct text line = {0};
    const char *rest = op->name ? op->name : "", *piece = NULL;
    for (int n, i = 0; (n = ir_print_piece(&rest, &piece)) != 0;) {
        if (n > 0) {
            text_printf(&line, "%.*s", n, piece);
        } else if (i < op->operand_count) {
            int64_t dims[EAGER_MAX_RANK];
            struct ir_type t = op->operands[i]->type;
            eager_dims(e, t, dims);
            print_tensor(&line, t.dtype, t.rank, dims, e->values[op->operands[i]->id]->data);
            i++;
        }
    }
    int length = (int)(line.length < IR_PRINT_MAX ? line.length : IR_PRINT_MAX - 1);
    const char *text = text_string(&line);
    if (e->log) {
        struct text cut = {0};
        text_printf(&cut, "%.*s", length, text);
        e->log(e->log_context, text_string(&cut));
        text_free(&cut);
    } else {
        printf("%.*s\n", length, text);
    }
    text_free(&line);
    return 0;
}
