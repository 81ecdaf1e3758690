/* All kinds of eager/vector_rows.h for one instruction set: included by vector.c with ISA (a function attribute) and
 * ISA_TAG(name, kind). */

/* Laid out by hand. */
/* clang-format off */
#define T float
#define M(f) mx_##f##_f32
#define KIND KIND_F32
#define TAG(name) ISA_TAG(name, f32)
#define IS_FLOAT 1
#define IS_INT 0
#include "eager/vector_rows.h"
#define T double
#define M(f) mx_##f##_f64
#define KIND KIND_F64
#define TAG(name) ISA_TAG(name, f64)
#define IS_FLOAT 1
#define IS_INT 0
#include "eager/vector_rows.h"
#define T int64_t
#define M(f) mx_##f##_i
#define KIND KIND_INT
#define TAG(name) ISA_TAG(name, int)
#define IS_FLOAT 0
#define IS_INT 1
#include "eager/vector_rows.h"
#define T uint64_t
#define M(f) mx_##f##_u
#define KIND KIND_UINT
#define TAG(name) ISA_TAG(name, uint)
#define IS_FLOAT 0
#define IS_INT 1
#include "eager/vector_rows.h"
#define T int32_t
#define M(f) bool_##f
#define KIND KIND_BOOL
#define TAG(name) ISA_TAG(name, bool)
#define IS_FLOAT 0
#define IS_INT 0
#include "eager/vector_rows.h"

static void ISA_TAG(set, all)(struct vec_table *table)
{
    ISA_TAG(set, f32)(table);
    ISA_TAG(set, f64)(table);
    ISA_TAG(set, int)(table);
    ISA_TAG(set, uint)(table);
    ISA_TAG(set, bool)(table);
}
#undef ISA
#undef ISA_TAG
