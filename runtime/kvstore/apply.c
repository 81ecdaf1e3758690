/* What happens to a merged gradient: the updater gets it, or it replaces what is stored. */
#include <string.h>

#include "internal.h"

void kv_assign(const struct mxrt_kv_value *gradient, struct mxrt_kv_value *stored) {
    if (!gradient->is_sparse) {
        kv_convert(stored->dtype, stored->data, gradient->dtype, gradient->data, stored->elements);
        return;
    }
    size_t size = mxrt_dtype_size(stored->dtype), row = (size_t)gradient->row_elements;
    memset(stored->data, 0, (size_t)stored->elements * size);
    for (int64_t i = 0; i < *gradient->rows; i++)
        kv_convert(stored->dtype, (char *)stored->data + (size_t)gradient->ids[i] * row * size, gradient->dtype,
                   (const char *)gradient->data + (size_t)i * row * mxrt_dtype_size(gradient->dtype), (int64_t)row);
}

mx_status kv_apply(struct mxrt_kvstore *kv, struct mxrt_kv_key key, const struct mxrt_kv_value *gradient,
                   struct mxrt_kv_value *stored, struct mxrt_why *why) {
    if (kv->updater)
        return kv->updater(kv->updater_context, key, gradient, stored, why);
    kv_assign(gradient, stored);
    return MX_OK;
}
