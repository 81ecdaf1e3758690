/* What the calls of libraries have in common (cublas.c, cudnn.c): a function of the unit that is given numbers and addresses
 * (codegen/cuda/library.c, convolution.c), and the kernel behind it for what the library does not compute. */
#ifndef MXCC_CODEGEN_KERNELS_LIBRARY_CALL_H
#define MXCC_CODEGEN_KERNELS_LIBRARY_CALL_H

#include "passes/lower.h"

struct library_memory {
    struct loop_mem *mem;
    lx offset; /* NULL: 0 */
};

/* A call of the unit's function, with the numbers before the addresses. */
void library_call(struct lower *l, const char *function, const lx *numbers, int count,
                  const struct library_memory *memories, int memory_count);
/* What follows the sum, as a kernel over all elements of the results, which reads the sums from `sums`, row-major. */
void library_finish(struct lower *l, struct loop_mem *sums);

#endif
