/* The sum of what all ranks contributed, along the binary tree of the net's reductions: ((0 + 1) + (2 + 3)) + …, so that the bits do not
 * depend on whether a sum was made by a server, by a rank for a bucket of small ones, or by the net's all-reduce.
 *
 * Compressed contributions are unpacked a block at a time, all ranks' blocks side by side. Sparse ones are merged by their row
 * ids; a rank that lacks a row counts as zero there, which leaves the tree and so the bits of a dense sum. */
#include <stdlib.h>
#include <string.h>

#include "../net/sum.h"
#include "compress.h"
#include "internal.h"

enum { BLOCK = 512 };

struct combination {
    const struct part *parts;
    int count;
    mx_dtype to;
    void *out;
    bool plain; /* dense parts of type `to` */
    atomic_bool no_memory;
};

static void unpack(const struct part *p, int64_t at, int64_t n, float *out) {
    if (p->form == FORM_DENSE)
        sum_widen(p->dtype, out, (const char *)p->data + (size_t)at * mxrt_dtype_size(p->dtype), n);
    else
        kv_decompress((enum mxrt_kv_compression)(p->form - FORM_DENSE), p->threshold, p->data, p->rows, at, n, out);
}

static void combine_range(void *context, int64_t first, int64_t count) {
    struct combination *c = context;
    size_t size = mxrt_dtype_size(c->to);
    const void **from = malloc((size_t)c->count * (sizeof *from + BLOCK * sizeof(float)) + 64);
    if (!from) {
        atomic_store(&c->no_memory, true);
        return;
    }
    if (c->plain) {
        for (int i = 0; i < c->count; i++)
            from[i] = (const char *)c->parts[i].data + (size_t)first * size;
        sum_tree(c->to, (char *)c->out + (size_t)first * size, from, c->count, count);
    } else {
        float *blocks = (float *)(from + c->count);
        for (int64_t at = first; at < first + count; at += BLOCK) {
            int64_t n = first + count - at < BLOCK ? first + count - at : BLOCK;
            for (int i = 0; i < c->count; i++) {
                unpack(&c->parts[i], at, n, &blocks[(int64_t)i * BLOCK]);
                from[i] = &blocks[(int64_t)i * BLOCK];
            }
            sum_tree(MX_F32, (char *)c->out + (size_t)at * size, from, c->count, n);
        }
    }
    free((void *)from);
}

mx_status kv_combine_dense(struct mxrt_kvstore *kv, const struct part *parts, int count, mx_dtype to, void *out,
                           struct mxrt_why *why) {
    struct combination c = {.parts = parts, .count = count, .to = to, .out = out, .plain = true};
    for (int i = 0; i < count; i++)
        c.plain = c.plain && parts[i].form == FORM_DENSE && parts[i].dtype == to;
    kv_ranges(kv, parts[0].elements, combine_range, &c);
    return atomic_load(&c.no_memory) ? mxrt_fail(why, MX_ERROR_MEMORY, "no memory to add what %d ranks sent", count)
                                     : MX_OK;
}

/* ---- sparse */

/* The least id at the cursors, or -1. */
static int64_t least(const struct part *parts, const int64_t *cursor, int count) {
    int64_t id = -1;
    for (int i = 0; i < count; i++) {
        if (cursor[i] < parts[i].rows && (id < 0 || parts[i].ids[cursor[i]] < id))
            id = parts[i].ids[cursor[i]];
    }
    return id;
}

static int64_t union_rows(const struct part *parts, int64_t *cursor, int count) {
    int64_t rows = 0;
    for (int64_t id; (id = least(parts, cursor, count)) >= 0; rows++) {
        for (int i = 0; i < count; i++)
            cursor[i] += cursor[i] < parts[i].rows && parts[i].ids[cursor[i]] == id;
    }
    memset(cursor, 0, (size_t)count * sizeof *cursor);
    return rows;
}

/* The parts of one row, [count] each of [n], along the tree or one after the other; `wide` and `sum` are scratch. */
static void add_row(const struct part *p, const void **rows, int count, bool tree, mx_dtype to, void *wide, void *sum,
                    void *out) {
    mx_dtype partial = sum_partial_type(p->dtype);
    int64_t n = p->row_elements;
    size_t bytes = (size_t)n * mxrt_dtype_size(partial);
    if (partial != p->dtype) {
        for (int i = 0; i < count; i++) {
            char *block = (char *)wide + (size_t)i * bytes;
            sum_widen(p->dtype, block, rows[i], n);
            rows[i] = block;
        }
    }
    if (tree) {
        sum_tree(partial, sum, rows, count, n);
    } else {
        memcpy(sum, rows[0], bytes);
        for (int i = 1; i < count; i++)
            sum_two(partial, sum, sum, rows[i], n);
    }
    kv_convert(to, out, partial, sum, n);
}

mx_status kv_combine_sparse(const struct part *parts, int count, bool tree, mx_dtype to, struct mxrt_kv_value *out,
                            struct mxrt_why *why) {
    const struct part *p = &parts[0];
    size_t row_bytes = (size_t)p->row_elements * mxrt_dtype_size(p->dtype), wide_bytes = (size_t)p->row_elements * 8;
    const void **rows = malloc((size_t)count * sizeof *rows);
    int64_t *cursor = calloc((size_t)count, sizeof *cursor);
    char *scratch = calloc((size_t)count + 2, wide_bytes); /* [count] wide rows, the sum, zeros */
    mx_status status = rows && cursor && scratch ? MX_OK : mxrt_fail(why, MX_ERROR_MEMORY, "no memory to add rows");
    int64_t total = status == MX_OK ? union_rows(parts, cursor, count) : 0;
    if (status == MX_OK)
        status = kv_tensor_sparse(out, to, p->elements, p->row_elements, total, why);
    for (int64_t k = 0; k < total && status == MX_OK; k++) {
        int64_t id = least(parts, cursor, count);
        int present = 0;
        for (int i = 0; i < count; i++) {
            bool has = cursor[i] < parts[i].rows && parts[i].ids[cursor[i]] == id;
            if (has)
                rows[present++] = (const char *)parts[i].data + (size_t)cursor[i]++ * row_bytes;
            else if (tree)
                rows[present++] = scratch + ((size_t)count + 1) * wide_bytes;
        }
        out->ids[k] = id;
        add_row(p, rows, present, tree, to, scratch, scratch + (size_t)count * wide_bytes,
                (char *)out->data + (size_t)k * (size_t)p->row_elements * mxrt_dtype_size(to));
    }
    if (status == MX_OK)
        *out->rows = total;
    free((void *)rows);
    free(cursor);
    free(scratch);
    return status;
}
