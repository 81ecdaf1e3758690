/* For the engine's tests: plain programs, because Criterion does not run under ThreadSanitizer, and they do. */
#ifndef TESTS_ENGINE_CHECK_H
#define TESTS_ENGINE_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

/* The status of a call, or its message. */
#define OK(call)                                                                      \
    do {                                                                              \
        struct mxrt_why why_ = {""};                                                  \
        struct mxrt_why *const why = &why_;                                           \
        if ((call) != MX_OK) {                                                        \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, why_.text); \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

#define FAILS(status, words, call)                                                                     \
    do {                                                                                               \
        struct mxrt_why why_ = {""};                                                                   \
        struct mxrt_why *const why = &why_;                                                            \
        mx_status got_ = (call);                                                                       \
        if (got_ != (status) || !strstr(why_.text, words)) {                                           \
            fprintf(stderr, "%s:%d: %s: status %d, %s\n", __FILE__, __LINE__, #call, got_, why_.text); \
            exit(1);                                                                                   \
        }                                                                                              \
    } while (0)

static inline void sleep_us(long us) {
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&t, NULL);
}

/* xorshift64* */
struct random {
    uint64_t state;
};

static inline uint32_t draw(struct random *r, uint32_t below) {
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return (uint32_t)((r->state * 2685821657736338717ull >> 32) % below);
}

#endif
