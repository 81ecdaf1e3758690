/* Failures. One record a failure, counted by the variables that carry it and by the list of those that no wait has
 * given yet. Giving it marks it with the place in the order of the pushes: for operations pushed later all those variables are
 * clean, those pushed before are skipped whenever they get to run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static const char *status_words(mx_status s) {
    static const char *const words[] = {"no error",
                                        "a wrong argument",
                                        "a wrong shape",
                                        "a check that failed",
                                        "no memory",
                                        "input or output",
                                        "a wrong format",
                                        "not a number",
                                        "interrupted",
                                        "not in this build",
                                        "not done in the given time",
                                        "another rank"};
    return (size_t)s < sizeof words / sizeof *words ? words[s] : "an unknown status";
}

/* In the order of the pushes. */
static void list(struct mxrt_engine *e, struct error *x) {
    struct error *after = e->last_error;
    while (after && after->serial > x->serial)
        after = after->previous;
    x->listed = true;
    x->previous = after;
    x->next = after ? after->next : e->errors;
    *(after ? &after->next : &e->errors) = x;
    *(x->next ? &x->next->previous : &e->last_error) = x;
    atomic_fetch_add(&x->references, 1);
}

/* The record has one reference more than the list's: the caller's. */
struct error *error_new(struct mxrt_engine *e, const char *name, uint64_t serial, mx_status status, const char *words) {
    char who[80];
    if (name)
        snprintf(who, sizeof who, "operation `%.60s`", name);
    else
        snprintf(who, sizeof who, "operation %llu", (unsigned long long)serial);
    if (!words[0])
        words = status_words(status);
    size_t bytes = strlen(who) + strlen(words) + 3;
    struct error *x = malloc(sizeof *x + bytes);
    if (x) {
        char *text = (char *)(x + 1);
        snprintf(text, bytes, "%s: %s", who, words);
        *x = (struct error){.engine = e, .harmless = UINT64_MAX, .status = status, .text = text, .serial = serial};
        atomic_fetch_add(&e->live_errors, 1);
    } else {
        x = &e->spare;
    }
    pthread_mutex_lock(&e->errors_lock);
    atomic_fetch_add(&x->references, 1);
    if (!x->listed) {
        if (x == &e->spare && atomic_exchange(&x->harmless, UINT64_MAX) == 0)
            atomic_fetch_add(&e->live_errors, 1);
        list(e, x);
    }
    pthread_mutex_unlock(&e->errors_lock);
    return x;
}

struct error *error_keep(struct error *x) {
    atomic_fetch_add_explicit(&x->references, 1, memory_order_relaxed);
    return x;
}

/* The spare one has a reference that is never dropped. */
void error_drop(struct error *x) {
    if (atomic_fetch_sub_explicit(&x->references, 1, memory_order_acq_rel) > 1)
        return;
    atomic_fetch_sub(&x->engine->live_errors, 1);
    free(x);
}

/* Marks x and gives it, for `why` not NULL, to the caller; under the lock. */
static mx_status take(struct mxrt_engine *e, struct error *x, struct mxrt_why *why) {
    mx_status status = x->status;
    if (x->previous)
        x->previous->next = x->next;
    else
        e->errors = x->next;
    if (x->next)
        x->next->previous = x->previous;
    else
        e->last_error = x->previous;
    x->previous = x->next = NULL;
    x->listed = false;
    engine_fail(why, status, "%s", x->text);
    spin_lock(&e->push);
    atomic_store(&x->harmless, e->serial + 1);
    spin_unlock(&e->push);
    error_drop(x);
    return status;
}

mx_status error_take(struct mxrt_engine *e, struct error *x, struct mxrt_why *why) {
    pthread_mutex_lock(&e->errors_lock);
    mx_status status = x->listed ? take(e, x, why) : MX_OK;
    pthread_mutex_unlock(&e->errors_lock);
    return status;
}

mx_status error_take_first(struct mxrt_engine *e, struct mxrt_why *why) {
    pthread_mutex_lock(&e->errors_lock);
    mx_status status = e->errors ? take(e, e->errors, why) : MX_OK;
    while (e->errors)
        take(e, e->errors, NULL);
    pthread_mutex_unlock(&e->errors_lock);
    return status;
}

struct error *error_of(const struct op *op) {
    uint64_t serial = atomic_load_explicit(&op->ticket, memory_order_relaxed) >> 1;
    for (uint32_t i = 0; i < op->reads + op->writes; i++) {
        struct error *x = outcome_of(op->access[i].variable)->error;
        if (x && serial < atomic_load(&x->harmless))
            return x;
    }
    return NULL;
}
