/* For the engine's tests: plain programs, because Criterion does not run under ThreadSanitizer, and they do. */
#ifndef TESTS_ENGINE_CHECK_H
#define TESTS_ENGINE_CHECK_H

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A crash that comes once in a thousand runs says where it was: addr2line -e TEST OFFSET. Sanitizers say so themselves. */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#include <execinfo.h>
static inline void crashed(int sig) {
    void *at[64];
    backtrace_symbols_fd(at, backtrace(at, 64), 2);
    raise(sig); /* its default way again */
}
static inline __attribute__((constructor)) void tell_crashes(void) {
    struct sigaction a = {.sa_handler = crashed, .sa_flags = SA_RESETHAND};
    void *at[1];
    (void)backtrace(at, 1); /* loads what it needs */
    (void)sigaction(SIGSEGV, &a, NULL);
    (void)sigaction(SIGBUS, &a, NULL);
}
#endif

/* Without what `exit` does: other threads are still running. */
static inline void give_up(void) {
    _Exit(1);
}

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            give_up();                                                              \
        }                                                                           \
    } while (0)

/* The status of a call, or its message. */
#define OK(call)                                                                      \
    do {                                                                              \
        struct mxrt_why why_ = {""};                                                  \
        struct mxrt_why *const why = &why_;                                           \
        if ((call) != MX_OK) {                                                        \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, why_.text); \
            give_up();                                                                \
        }                                                                             \
    } while (0)

#define FAILS(status, words, call)                                                                     \
    do {                                                                                               \
        struct mxrt_why why_ = {""};                                                                   \
        struct mxrt_why *const why = &why_;                                                            \
        mx_status got_ = (call);                                                                       \
        if (got_ != (status) || !strstr(why_.text, words)) {                                           \
            fprintf(stderr, "%s:%d: %s: status %d, %s\n", __FILE__, __LINE__, #call, got_, why_.text); \
            give_up();                                                                                 \
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
