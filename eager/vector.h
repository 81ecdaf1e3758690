/* Vector operations of the nest interpreter: the rows of ir/scalar.def as loops over registers, loads and stores that
 * convert between memory and registers, reductions, and the inner kernel of the matrix product.
 *
 * A register holds up to VEC_LANES elements of a kind: float for f32, f16 and bf16 (rounded after each operation),
 * double, int64_t and uint64_t for integers (wrapped after each operation), int32_t (0 or 1) for bool. */
#ifndef MXCC_EAGER_VECTOR_H
#define MXCC_EAGER_VECTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "ir/ir.h"

enum { VEC_LANES = 512 };
enum vec_kind { KIND_F32, KIND_F64, KIND_INT, KIND_UINT, KIND_BOOL, KIND_COUNT };

enum vec_kind vec_kind_of(enum dtype t);
int vec_kind_size(enum vec_kind k);

/* r must not overlap the operands. */
typedef void (*vec_fn)(void *r, const void *a, const void *b, const void *c, int64_t n);
/* acc[i] = acc[i] OP v[i], or acc[i] + a[i] * b[i]. */
typedef void (*vec_acc_fn)(void *acc, const void *a, const void *b, int64_t n);
enum vec_shape { SHAPE_VV, SHAPE_SV, SHAPE_VS, SHAPE_COUNT }; /* S: one element for all lanes */

struct vec_table {
    vec_fn fn[FN_COUNT][KIND_COUNT][SHAPE_COUNT]; /* by the kind of the arguments (where: of the second); NULL: none */
    vec_acc_fn reduce[RED_COUNT][KIND_COUNT];     /* lane by lane */
    vec_acc_fn fold[RED_COUNT][KIND_COUNT];       /* all lanes into one */
    vec_acc_fn muladd[KIND_COUNT][SHAPE_COUNT];   /* floats */
    vec_acc_fn dot[KIND_COUNT];                   /* *acc += sum a * b */
    /* tile[GEMM_ROWS][GEMM_COLS] = sum over k of a[k][GEMM_ROWS] * b[k][columns], for KIND_F32 and KIND_F64 */
    void (*tile[2])(void *tile, const void *a, const void *b, int64_t k);
};
enum { GEMM_ROWS = 6 };
#define GEMM_COLS(kind) ((kind) == KIND_F32 ? 16 : 8)

const struct vec_table *vec_table_for_machine(void);

/* memory -> register: n elements `stride` apart, and back. */
void vec_load(enum dtype t, void *r, const void *data, int64_t stride, int64_t n);
void vec_store(enum dtype t, void *data, int64_t stride, const void *r, int64_t n);
void vec_store_add(enum dtype t, void *data, int64_t stride, const void *r, int64_t n); /* in order */
/* Elements at data[offset[i]]; where ok[i] is 0, r[i] is left. */
void vec_gather(enum dtype t, void *r, const void *data, const int64_t *offset, const uint8_t *ok, int64_t n);
void vec_scatter(enum dtype t, void *data, const int64_t *offset, const uint8_t *ok, const void *r, bool add,
                 int64_t n);
void vec_splat(enum vec_kind k, void *r, const void *element, int64_t n);
/* Rounds or wraps registers to the dtype, in place. */
void vec_wrap(enum dtype t, void *r, int64_t n);
/* r = floor(a / d) or a mod d for d > 0. */
void vec_divide(int64_t *r, const int64_t *a, int64_t d, bool remainder, int64_t n);
void vec_cast(enum dtype to, void *r, enum dtype from, const void *a, int64_t n);

#endif
