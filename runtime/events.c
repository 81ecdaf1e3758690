/* TensorBoard event files: TFRecord framing (length, its masked CRC-32C, payload, its CRC) around Event messages whose few
 * protobuf fields are written by hand: Event {1 wall_time double, 2 step int64, 3 file_version string, 5 Summary}, Summary {1
 * Value}, Value {1 tag, 2 simple_value float}. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mxrt/checkpoint.h"

struct mxrt_events {
    FILE *file;
};

uint32_t mxrt_crc32c(const void *data, size_t bytes) {
    const unsigned char *p = data;
    uint32_t crc = 0xffffffffu;
    while (bytes--) {
        crc ^= *p++;
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    return ~crc;
}

struct message {
    unsigned char bytes[512];
    size_t n;
};

static void put(struct message *m, const void *data, size_t n) {
    if (n > sizeof m->bytes - m->n)
        n = sizeof m->bytes - m->n;
    memcpy(m->bytes + m->n, data, n);
    m->n += n;
}

static void varint(struct message *m, uint64_t v) {
    for (; v >= 128; v >>= 7)
        put(m, &(unsigned char){(unsigned char)(v | 128)}, 1);
    put(m, &(unsigned char){(unsigned char)v}, 1);
}

static void little(struct message *m, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++)
        put(m, &(unsigned char){(unsigned char)(v >> (8 * i))}, 1);
}

static void field(struct message *m, int number, const void *data, size_t n) { /* wire type 2 */
    varint(m, (uint64_t)number << 3 | 2);
    varint(m, n);
    put(m, data, n);
}

static uint32_t masked(const void *data, size_t n) {
    uint32_t crc = mxrt_crc32c(data, n);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void record(struct mxrt_events *e, const struct message *m) {
    struct message head = {.n = 0}, tail = {.n = 0};
    little(&head, m->n, 8);
    little(&head, masked(head.bytes, 8), 4);
    little(&tail, masked(m->bytes, m->n), 4);
    (void)fwrite(head.bytes, 1, head.n, e->file);
    (void)fwrite(m->bytes, 1, m->n, e->file);
    (void)fwrite(tail.bytes, 1, tail.n, e->file);
    (void)fflush(e->file);
}

static void begin(struct message *m) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    double seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    uint64_t bits;
    memcpy(&bits, &seconds, 8);
    m->n = 0;
    varint(m, 1 << 3 | 1);
    little(m, bits, 8);
}

mx_status mxrt_events_open(struct mxrt_events **out, const char *folder, struct mxrt_why *why) {
    char path[4096];
    struct mxrt_events *e = calloc(1, sizeof *e);
    *out = NULL;
    (void)snprintf(path, sizeof path, "%s/events.out.tfevents.%lld.mxrt.%ld", folder, (long long)time(NULL),
                   (long)getpid());
    if (!e || !(e->file = fopen(path, "wb"))) {
        free(e);
        return mxrt_fail(why, MX_ERROR_IO, "cannot write %s: %s", path, strerror(errno));
    }
    struct message m;
    begin(&m);
    field(&m, 3, "brain.Event:2", 13);
    record(e, &m);
    *out = e;
    return MX_OK;
}

void mxrt_events_scalar(struct mxrt_events *e, const char *tag, int64_t step, double value) {
    if (!e)
        return;
    struct message v = {.n = 0}, summary = {.n = 0}, m;
    float f = (float)value;
    uint32_t bits;
    size_t n = strlen(tag);
    memcpy(&bits, &f, 4);
    field(&v, 1, tag, n < 200 ? n : 200);
    varint(&v, 2 << 3 | 5);
    little(&v, bits, 4);
    field(&summary, 1, v.bytes, v.n);
    begin(&m);
    varint(&m, 2 << 3 | 0);
    varint(&m, (uint64_t)step);
    field(&m, 5, summary.bytes, summary.n);
    record(e, &m);
}

void mxrt_events_close(struct mxrt_events *e) {
    if (!e)
        return;
    fclose(e->file);
    free(e);
}
