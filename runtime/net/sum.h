/* Sums of elements for reductions. Private to the net. */
#ifndef RUNTIME_NET_SUM_H
#define RUNTIME_NET_SUM_H

#include <stdint.h>

#include "mxrt/status.h"

size_t sum_element_bytes(mx_dtype t); /* 0: no type */
/* out[i] = the sum of parts[0 … count)[i] along a binary tree that splits `count` at the largest power of two below it. `out` may be
 * one of the parts. f16 and bf16: in f32, rounded once. */
void sum_tree(mx_dtype t, void *out, const void *const *parts, int count, int64_t elements);
/* The same of two parts or more, with a sum of type `to`: t's partial type where it goes on as a part of another sum. */
void sum_tree_to(mx_dtype to, mx_dtype t, void *out, const void *const *parts, int count, int64_t elements);
/* The same, one node at a time, where both may come from other nodes: sums of f16 and bf16 are f32 between them. */
mx_dtype sum_partial_type(mx_dtype t);
void sum_widen(mx_dtype t, void *out, const void *in, int64_t elements);
void sum_narrow(mx_dtype t, void *out, const void *in, int64_t elements);
void sum_two(mx_dtype t, void *out, const void *a, const void *b, int64_t elements); /* t: a partial type */

#endif
