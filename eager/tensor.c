/* Tensors handed across the interface of eager/. */
#include <stdlib.h>

#include "eager/eager.h"

struct tensor *tensor_new(enum dtype t, int rank, const int64_t *dims) {
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        if (dims[i] < 0 || __builtin_mul_overflow(n, dims[i], &n))
            return NULL;
    if (n > INT64_MAX / 16)
        return NULL;
    struct tensor *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->dtype = t;
    x->rank = rank;
    x->dims = malloc((size_t)(rank + 1) * sizeof *x->dims);
    x->data = calloc((size_t)n * (size_t)dtype_size(t) + 1, 1);
    if (!x->dims || !x->data) {
        tensor_free(x);
        return NULL;
    }
    for (int i = 0; i < rank; i++)
        x->dims[i] = dims[i];
    return x;
}

int64_t tensor_elements(const struct tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dims[i];
    return n;
}

void tensor_free(struct tensor *t) {
    if (!t)
        return;
    free(t->dims);
    free(t->data);
    free(t);
}
