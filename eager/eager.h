/* Eager execution: the evaluator of the IR, operation by operation as elaboration recorded them (after `grad` was
 * expanded). The reference every backend is held to: no fusion, no planning, no reordering. */
#ifndef MXCC_EAGER_EAGER_H
#define MXCC_EAGER_EAGER_H

#include "base/text.h"
#include "ir/ir.h"

struct tensor { /* row-major, contiguous; owned by whoever made it: tensor_free */
    enum dtype dtype;
    int rank;
    int64_t *dims;
    void *data;
};
struct tensor *tensor_new(enum dtype t, int rank, const int64_t *dims); /* zeroed; NULL if it does not fit memory */
int64_t tensor_elements(const struct tensor *t);
void tensor_free(struct tensor *t);

/* An instance of a module: its buffers, seed and call counter. */
struct eager;
/* Runs init; NULL after an error. */
struct eager *eager_new(struct ir_module *m, uint64_t seed);
/* The same; appends the message to `why` (may be NULL) when it fails. */
struct eager *eager_new_why(struct ir_module *m, uint64_t seed, struct text *why);
void eager_free(struct eager *e);
const char *eager_error(const struct eager *e); /* of the last failed call: the text that generated code gives */
struct tensor *eager_buffer(struct eager *e, const char *name); /* borrowed; NULL if there is none */
uint64_t *eager_calls(struct eager *e);
/* The shared library with the functions that `extern` names; else the environment's MXCC_EXTERN_LIBRARY. */
void eager_set_extern_library(struct eager *e, const char *path);
/* Every buffer to its initial value (states_only: not the params). 0, or a status. */
int eager_reset(struct eager *e, bool states_only);
void eager_set_log(struct eager *e, void (*log)(void *, const char *), void *context); /* print(); default stdout */

/* Calls an exported function. args in order (dims and dtypes are checked against the signature, symbols are bound from
 * them); results are new tensors in order, inout arguments are changed in place. 0, or a status (1: bad argument or
 * failed check) with the buffers as before the call. */
int eager_call(struct eager *e, const struct ir_func *f, struct tensor **args, struct tensor **results);

/* Random bits: as ir/scalar_math/random.h specifies. The call counter counts successful calls of functions that draw. */

#endif
