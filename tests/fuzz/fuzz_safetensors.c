/* libFuzzer entry: any bytes as a safetensors image for a model of three tensors: from memory, as units read weights that the caller
 * gives, and from a file, as checkpoints are read; both must say the same, and nothing is touched unless all fits. */
#define _GNU_SOURCE /* memfd_create */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mxrt/checkpoint.h"
#include "runtime/embed/safetensors.h"

static void note(void *context, const char *key, const char *value) {
    *(size_t *)context += strlen(key) + strlen(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const int64_t shapes[] = {2, 3, 4};
    float weight[6] = {0}, zero[6] = {0};
    int64_t steps = 0;
    uint16_t half[4] = {0};
    char why[160], path[64];
    size_t seen = 0;
    struct mx_st_entry entries[] = {{"a.weight", MX_F32, 2, shapes, weight},
                                    {"steps", MX_I64, 0, shapes, &steps},
                                    {"h", MX_F16, 1, shapes + 2, half}};
    uint64_t offsets[3];
    struct mx_st_source s = {
        .bytes = data, .size = size, .why = why, .why_size = sizeof why, .metadata = note, .context = &seen};
    bool whole = mx_st_open(&s, entries, 3, offsets);
    if (whole && !mx_st_read(&s, entries, 3, offsets))
        abort();
    if (!whole && (memcmp(weight, zero, sizeof weight) != 0 || s.status == MX_OK))
        abort();
    int fd = memfd_create("fuzz", 0);
    if (fd < 0)
        return 0;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (write(fd, data, size) == (ssize_t)size) {
        struct mxrt_why text = {""};
        const struct mxrt_named named[] = {{"a.weight", {MX_F32, 2, shapes, weight, sizeof weight}},
                                           {"steps", {MX_I64, 0, shapes, &steps, sizeof steps}},
                                           {"h", {MX_F16, 1, shapes + 2, half, sizeof half}}};
        if ((mxrt_checkpoint_read(path, named, 3, note, &seen, &text) == MX_OK) != whole)
            abort();
    }
    close(fd);
    return 0;
}
