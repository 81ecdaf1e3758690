/* The C interface of a generated model, used rightly and wrongly: every wrong call gives a status and a message, under
 * AddressSanitizer and UndefinedBehaviorSanitizer. The model is counters.mxl; argv[1] is a folder to write in. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counters.h"

#define CHECK(x)                                                   \
    do {                                                           \
        if (!(x)) {                                                \
            fprintf(stderr, "interface.c:%d: %s\n", __LINE__, #x); \
            exit(1);                                               \
        }                                                          \
    } while (0)

static int logged;

static void count_log(void *context, const char *text) {
    (void)text;
    CHECK(context == &logged);
    logged++;
}

int main(int argc, char **argv) {
    char path[1000], other[1000];
    CHECK(argc == 2);
    (void)snprintf(path, sizeof path, "%s/interface.safetensors", argv[1]);
    (void)snprintf(other, sizeof other, "%s/other.safetensors", argv[1]);

    /* Memory: none, too little, misaligned by every remainder, with a canary behind. */
    counters *m = (counters *)&logged;
    size_t bytes = counters_size(NULL);
    CHECK(bytes == COUNTERS_MEMORY_BYTES);
    CHECK(counters_init(NULL, NULL, 0, NULL) == MX_ERROR_ARGUMENT);
    unsigned char *memory = malloc(bytes + 64);
    CHECK(memory != NULL);
    CHECK(counters_init(&m, memory, bytes - 1, NULL) == MX_ERROR_MEMORY && m == NULL);
    CHECK(counters_init(&m, memory, 0, NULL) == MX_ERROR_MEMORY && m == NULL);
    for (size_t shift = 0; shift < 64; shift += shift < 4 ? 1 : 7) {
        memset(memory, 0xa5, bytes + 64);
        CHECK(counters_init(&m, memory + shift, bytes, NULL) == MX_OK);
        for (size_t i = 0; i < shift; i++)
            CHECK(memory[i] == 0xa5);
        for (size_t i = shift + bytes; i < bytes + 64; i++)
            CHECK(memory[i] == 0xa5);
        float x[4] = {1, 2, 3, 4}, y[4];
        CHECK(counters_add(m, x, y) == MX_OK && y[0] == 2 && y[3] == 8);
        counters_free(m);
    }
    counters_options o;
    memset(&o, 0, sizeof o);
    o.seed = 9;
    o.log = count_log;
    o.log_context = &logged;
    CHECK(counters_size(&o) <= bytes);
    CHECK(counters_init(&m, memory, bytes, &o) == MX_OK);
    CHECK(strcmp(counters_error(m), "") == 0);

    /* Calls: null pointers, dimensions outside their limits, checks that fail. */
    float x[16 * 4], y[16];
    for (int i = 0; i < 64; i++)
        x[i] = (float)i;
    CHECK(counters_add(NULL, x, y) == MX_ERROR_ARGUMENT);
    CHECK(counters_add(m, NULL, y) == MX_ERROR_ARGUMENT && strstr(counters_error(m), "x") != NULL);
    CHECK(counters_add(m, x, NULL) == MX_ERROR_ARGUMENT);
    CHECK(counters_rows(m, 17, 1, x, y) == MX_ERROR_SHAPE && strstr(counters_error(m), "17") &&
          strstr(counters_error(m), "16"));
    CHECK(counters_rows(m, 0, 1, x, y) == MX_ERROR_SHAPE);
    CHECK(counters_rows(m, -1, 1, x, y) == MX_ERROR_SHAPE);
    CHECK(counters_rows(m, INT64_MAX, 1, x, y) == MX_ERROR_SHAPE);
    CHECK(counters_rows(m, 16, 1, x, y) == MX_OK && y[15] == 60 + 61 + 62 + 63);
    CHECK(counters_rows(m, 1, 1, x, y) == MX_OK && y[0] == 6);
    CHECK(counters_rows(m, 2, 0, x, y) == MX_ERROR_CHECK && strstr(counters_error(m), "no rows"));
    CHECK(counters_at(m, 16, x, 15, y) == MX_OK && y[0] == 15);
    CHECK(counters_at(m, 16, x, 16, y) == MX_ERROR_CHECK && *counters_error(m));
    CHECK(counters_at(m, 16, x, -1, y) == MX_ERROR_CHECK);
    CHECK(counters_at(m, 16, x, INT32_MIN, y) == MX_ERROR_CHECK);

    /* Buffers by name: a view of the instance's own memory; what is written there counts. */
    mx_tensor v;
    CHECK(counters_param(m, "mean_of.scale", &v) == MX_OK && v.dtype == MX_F32 && v.rank == 1 && v.shape[0] == 4 &&
          v.bytes == 16);
    CHECK(((float *)v.data)[2] == 2);
    ((float *)v.data)[2] = 10;
    CHECK(counters_add(m, x, y) == MX_OK && y[2] == 20 && y[1] == 2);
    CHECK(counters_param(m, "mean_of.calls", &v) == MX_OK && v.dtype == MX_I64 && v.rank == 0 && v.bytes == 8 &&
          *(int64_t *)v.data == 6);
    CHECK(counters_param(m, "mean_of.other", &v) == MX_ERROR_ARGUMENT && strstr(counters_error(m), "mean_of.other"));
    CHECK(counters_param(m, NULL, &v) == MX_ERROR_ARGUMENT &&
          counters_param(m, "mean_of.scale", NULL) == MX_ERROR_ARGUMENT);
    CHECK(counters_param(NULL, "mean_of.scale", &v) == MX_ERROR_ARGUMENT);

    /* Files: what is saved comes back into a fresh instance; wrong files change nothing. */
    CHECK(counters_save(m, path) == MX_OK);
    CHECK(counters_save(NULL, path) == MX_ERROR_ARGUMENT && counters_save(m, NULL) == MX_ERROR_ARGUMENT);
    CHECK(counters_save(m, "/nowhere/at/all") == MX_ERROR_IO && strstr(counters_error(m), "/nowhere/at/all"));
    CHECK(counters_add(m, x, y) == MX_OK && y[2] == 40);
    counters *n = NULL;
    void *second = malloc(bytes);
    CHECK(counters_init(&n, second, bytes, NULL) == MX_OK);
    CHECK(counters_load(n, path) == MX_OK);
    CHECK(counters_add(n, x, y) == MX_OK && y[2] == 40 && y[1] == 4);
    CHECK(counters_load(NULL, path) == MX_ERROR_ARGUMENT && counters_load(n, NULL) == MX_ERROR_ARGUMENT);
    CHECK(counters_load(n, "/nowhere/at/all") == MX_ERROR_IO && strstr(counters_error(n), "/nowhere/at/all"));
    FILE *f = fopen(path, "rb");
    char content[4096];
    CHECK(f != NULL);
    size_t length = fread(content, 1, sizeof content, f);
    fclose(f);
    for (size_t cut = 0; cut < length; cut++) {
        f = fopen(other, "wb");
        CHECK(f && fwrite(content, 1, cut, f) == cut && fclose(f) == 0);
        CHECK(counters_load(n, other) == MX_ERROR_FORMAT && *counters_error(n));
    }
    unsigned state = 1;
    for (int round = 0; round < 2000; round++) { /* damaged at one place: a status, whatever it is */
        char damaged[4096];
        memcpy(damaged, content, length);
        state = state * 1664525u + 1013904223u;
        damaged[(state >> 8) % length] = (char)(state >> 24);
        f = fopen(other, "wb");
        CHECK(f && fwrite(damaged, 1, length, f) == length && fclose(f) == 0);
        (void)counters_load(n, other);
    }
    CHECK(counters_load(n, path) == MX_OK);

    /* Every state to its initial value; params stay. */
    CHECK(counters_reset_all(NULL) == MX_ERROR_ARGUMENT && counters_reset_all(n) == MX_OK);
    CHECK(counters_param(n, "mean_of.calls", &v) == MX_OK && *(int64_t *)v.data == 5);
    CHECK(counters_param(n, "mean_of.scale", &v) == MX_OK && ((float *)v.data)[2] == 10);
    CHECK(counters_add(n, x, y) == MX_OK && y[1] == 2 && y[2] == 20);
    counters_free(n);
    counters_free(m);
    counters_free(NULL);
    CHECK(counters_error(NULL) != NULL);
    free(second);
    free(memory);
    CHECK(remove(path) == 0 && remove(other) == 0);
    return 0;
}
