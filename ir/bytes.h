/* One element of a constant as bytes (row-major tensors in native byte order, `constant.data`) and as a number. */
#ifndef MXCC_IR_BYTES_H
#define MXCC_IR_BYTES_H

#include "ir/ir.h"

/* Writes dtype_size(t) bytes. The value is one of t already: rounded to it, or wrapped to it (ir_const_… do that). */
void ir_bytes_store_float(enum dtype t, double value, void *at);
void ir_bytes_store_int(enum dtype t, int64_t value, void *at); /* integers and bool */
/* Exact. u64 comes back wrapped to int64_t. */
double ir_bytes_load_float(enum dtype t, const void *at);
int64_t ir_bytes_load_int(enum dtype t, const void *at);
/* The element as it is in memory, zero extended; and back. */
uint64_t ir_bytes_load_bits(enum dtype t, const void *at);
void ir_bytes_store_bits(enum dtype t, uint64_t bits, void *at);

#endif
