/* Bulk: a thread's pushes gathered into one operation, to pay for the dependences once. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

struct part {
    mxrt_op_fn *run;
    void *context;
    const char *name;
};

/* One a thread and engine; all of a thread hang in a list, all of an engine in another, under `locked`. */
struct bulk {
    struct mxrt_engine *engine; /* NULL: it is gone */
    struct bulk *of_thread, *of_engine;
    int size;
    int count, read_count, write_count; /* gathered */
    int room, read_room, write_room;
    struct part *parts;
    struct mxrt_var *reads, *writes;
};

_Thread_local struct bulk *bulk_open;
static pthread_mutex_t locked = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t at_thread_end;

struct parts {
    int count;
    struct part part[];
};

static mx_status run_parts(void *context, struct mxrt_why *why) {
    struct parts *p = context;
    for (int i = 0; i < p->count; i++) {
        mx_status status = p->part[i].run(p->part[i].context, why);
        if (status != MX_OK) {
            struct mxrt_why inner = *why;
            return engine_fail(why, status, "`%.60s`, number %d of a bulk of %d: %.400s",
                               p->part[i].name ? p->part[i].name : "(no name)", i + 1, p->count, inner.text);
        }
    }
    return MX_OK;
}

static mx_status flush(struct bulk *b, struct mxrt_why *why) {
    if (b->count == 0)
        return MX_OK;
    struct parts *p = malloc(sizeof *p + (size_t)b->count * sizeof *p->part);
    if (!p)
        return engine_fail(why, MX_ERROR_MEMORY, "no memory to push a bulk of %d operations", b->count);
    p->count = b->count;
    memcpy(p->part, b->parts, (size_t)b->count * sizeof *p->part);
    mxrt_var_dedupe(b->reads, &b->read_count, b->writes, &b->write_count);
    struct mxrt_op op = {.name = "bulk",
                         .run = run_parts,
                         .context = p,
                         .release = free,
                         .reads = b->reads,
                         .read_count = b->read_count,
                         .writes = b->writes,
                         .write_count = b->write_count};
    b->count = b->read_count = b->write_count = 0; /* before the push: that one is not to join */
    struct bulk *all = bulk_open;
    bulk_open = NULL;
    struct mxrt_why own;
    mx_status status = push_described(b->engine, &op, 0, NULL, why ? why : &own);
    bulk_open = all;
    return status;
}

static void end_thread(void *list) {
    for (struct bulk *b = list, *next; b; b = next) {
        next = b->of_thread;
        bulk_open = b->of_thread = NULL;
        if (b->engine)
            (void)flush(b, NULL);
        pthread_mutex_lock(&locked);
        for (struct bulk **at = b->engine ? &b->engine->bulks : NULL; at && *at; at = &(*at)->of_engine) {
            if (*at == b) {
                *at = b->of_engine;
                break;
            }
        }
        pthread_mutex_unlock(&locked);
        free(b->parts);
        free(b->reads);
        free(b->writes);
        free(b);
    }
}

static void make_key(void) {
    pthread_key_create(&at_thread_end, end_thread);
}

static struct bulk *find(const struct mxrt_engine *e) {
    struct bulk *b = bulk_open;
    while (b && b->engine != e)
        b = b->of_thread;
    return b;
}

/* The engine ends; threads may still have bulks of it. */
void bulk_forget(struct mxrt_engine *e) {
    pthread_mutex_lock(&locked);
    for (struct bulk *b = e->bulks; b; b = b->of_engine)
        b->engine = NULL;
    pthread_mutex_unlock(&locked);
}

bool bulk_gathers(const struct mxrt_engine *e) {
    const struct bulk *b = bulk_open ? find(e) : NULL;
    return b && b->count > 0;
}

int mxrt_engine_bulk(struct mxrt_engine *e, int n) {
    if (!e)
        return 0;
    struct bulk *b = find(e);
    int old = b ? b->size : 0;
    if (b && n != old)
        (void)flush(b, NULL);
    if (!b && n > 0 && (b = calloc(1, sizeof *b))) {
        pthread_once(&once, make_key);
        b->engine = e;
        b->of_thread = bulk_open;
        bulk_open = b;
        pthread_setspecific(at_thread_end, b);
        pthread_mutex_lock(&locked);
        b->of_engine = e->bulks;
        e->bulks = b;
        pthread_mutex_unlock(&locked);
    }
    if (b)
        b->size = n > 0 ? n : 0;
    return old;
}

mx_status mxrt_engine_flush(struct mxrt_engine *e, struct mxrt_why *why) {
    struct bulk *b = bulk_open ? find(e) : NULL;
    return b ? flush(b, why) : MX_OK;
}

static bool grow(void **at, int *room, int wanted, size_t each) {
    if (wanted <= *room)
        return true;
    int more = wanted + *room + 8;
    void *p = realloc(*at, (size_t)more * each);
    if (!p)
        return false;
    *at = p;
    *room = more;
    return true;
}

static bool gather(struct bulk *b, const struct mxrt_op *d) {
    if (!grow((void **)&b->parts, &b->room, b->count + 1, sizeof *b->parts) ||
        !grow((void **)&b->reads, &b->read_room, b->read_count + d->read_count, sizeof *b->reads) ||
        !grow((void **)&b->writes, &b->write_room, b->write_count + d->write_count, sizeof *b->writes))
        return false;
    b->parts[b->count++] = (struct part){d->run, d->context, d->name};
    if (d->read_count)
        memcpy(b->reads + b->read_count, d->reads, (size_t)d->read_count * sizeof *b->reads);
    if (d->write_count)
        memcpy(b->writes + b->write_count, d->writes, (size_t)d->write_count * sizeof *b->writes);
    b->read_count += d->read_count;
    b->write_count += d->write_count;
    return true;
}

bool bulk_join(struct mxrt_engine *e, const struct mxrt_op *d, unsigned flags, mx_status *status,
               struct mxrt_why *why) {
    struct bulk *b = find(e);
    if (!b)
        return false;
    bool plain = b->size > 0 && flags == 0 && d->run && d->lane == MXRT_LANE_NORMAL && d->priority == 0 && !d->always &&
                 !d->release;
    if (!plain) {
        *status = flush(b, why);
        return false;
    }
    /* What is wrong with d is said now, not when the bulk is pushed. */
    if ((*status = push_check(e, d, why)) == MX_OK && !gather(b, d))
        *status = engine_fail(why, MX_ERROR_MEMORY, "no memory for another operation in a bulk");
    if (*status == MX_OK && b->count >= b->size)
        *status = flush(b, why);
    return true;
}
