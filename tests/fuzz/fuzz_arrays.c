/* libFuzzer entry: any bytes as an IDX, npy and npz file, plain or packed. Each reader ends with an array whose elements are all
 * there, or with a message. */
#define _GNU_SOURCE /* memfd_create */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mxrt/array.h"
#include "mxrt/gzip.h"

static void use(mx_status status, struct mxrt_array *a, const struct mxrt_why *why) {
    volatile double sum = 0;
    if (status == MX_OK) {
        int64_t n = mxrt_array_elements(a);
        for (int64_t i = 0; i < n; i++)
            sum = sum + mxrt_get(a->dtype, a->data, i);
        mxrt_array_free(a);
    } else if (!why->text[0]) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    struct mxrt_array a;
    struct mxrt_why why = {""};
    int fd = memfd_create("fuzz", 0);
    if (fd < 0)
        return 0;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (write(fd, data, size) == (ssize_t)size) {
        use(mxrt_read_idx(&a, path, mxrt_gunzip, &why), &a, &why);
        use(mxrt_read_npy(&a, path, mxrt_gunzip, &why), &a, &why);
        use(mxrt_read_npz(&a, path, "x", mxrt_gunzip, &why), &a, &why);
    }
    close(fd);
    return 0;
}
