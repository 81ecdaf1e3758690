/* Traces: spans in the order of their ends, pushes in the order of the pushes, both under one lock; everything else is
 * worked out when the file is written.
 *
 * An arrow says what an operation waited for. Engines do not tell: their edges leave out what had completed by the push,
 * so a picture of them would show chance. Versions say it: a variable's writes are counted as they are pushed, so who
 * reads version k follows the write that made it, and who writes the next version follows the readers of k, or, where
 * there are none, that write.
 *
 * Asynchronous operations overlap on a thread, which a track of spans cannot show; they get tracks of their own, as few as
 * will do (intervals by their begin, each on the first free track). */
#include "mxrt/trace.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "trace_record.h"

enum { MOST = 1000000, NAME = 48, ENGINE_SHIFT = 40, ASYNC_TRACK = 1000 };

enum span_kind { SPAN_PLAIN, SPAN_RAN, SPAN_SKIPPED, SPAN_ASYNC };

struct span {
    int64_t begin, end; /* ns; end < 0: it is under way */
    uint64_t operation;
    uint32_t track;
    uint8_t kind;
    char name[NAME];
};

/* An operation's accesses: reads, then writes. */
struct pushed {
    uint64_t operation;
    size_t first;
    uint32_t reads, writes;
};

struct use {
    uint32_t variable;
    uint32_t version; /* read, or made */
};

struct variable {
    const void *at;
    uint32_t generation, version; /* of the last write pushed */
    char name[NAME];
    /* while arrows are worked out: places in `pushed` and `uses`, + 1 */
    size_t writer, readers;
};

struct thread {
    pthread_t id;
    char name[NAME];
};

/* Elements of one size, in an array that grows. */
struct list {
    void *at;
    size_t count, room;
};

struct mxrt_trace {
    pthread_mutex_t lock;
    struct timespec zero;
    uint64_t engines, dropped;
    struct list spans, pushes, uses, variables, threads, open; /* open: numbers of spans that are under way */
    uint32_t *index;                                           /* of variables: a hash table of numbers + 1 */
    size_t index_room;
};

/* A new element, zeroed; NULL without memory. */
static void *add(struct list *l, size_t size) {
    if (l->count == l->room) {
        size_t room = 2 * l->room + 64;
        void *more = realloc(l->at, room * size);
        if (!more)
            return NULL;
        l->at = more;
        l->room = room;
    }
    return memset((char *)l->at + l->count++ * size, 0, size);
}

static void put_name(char *to, const char *name) {
    (void)snprintf(to, NAME, "%s", name ? name : "");
}

mx_status mxrt_trace_create(struct mxrt_trace **out, struct mxrt_why *why) {
    struct mxrt_trace *t = calloc(1, sizeof *t);
    struct mxrt_why unread;
    *out = NULL;
    if (!t || pthread_mutex_init(&t->lock, NULL) != 0) {
        free(t);
        return mxrt_fail(why ? why : &unread, MX_ERROR_MEMORY, "no memory for a trace");
    }
    clock_gettime(CLOCK_MONOTONIC, &t->zero);
    mxrt_trace_thread(t, "main");
    *out = t;
    return MX_OK;
}

void mxrt_trace_free(struct mxrt_trace *t) {
    if (!t)
        return;
    struct list *lists[] = {&t->spans, &t->pushes, &t->uses, &t->variables, &t->threads, &t->open};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        free(lists[i]->at);
    free(t->index);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* ---- noting */

static int64_t now(const struct mxrt_trace *t) {
    struct timespec x;
    clock_gettime(CLOCK_MONOTONIC, &x);
    return (int64_t)(x.tv_sec - t->zero.tv_sec) * 1000000000 + (x.tv_nsec - t->zero.tv_nsec);
}

int64_t mxrt_trace_begin(const struct mxrt_trace *t) {
    return t ? now(t) : 0;
}

/* The calling thread's number; under the lock. */
static uint32_t this_thread(struct mxrt_trace *t) {
    struct thread *threads = t->threads.at;
    pthread_t self = pthread_self();
    for (size_t i = 0; i < t->threads.count; i++) {
        if (pthread_equal(threads[i].id, self))
            return (uint32_t)i;
    }
    struct thread *x = add(&t->threads, sizeof *x);
    if (!x)
        return 0;
    x->id = self;
    (void)snprintf(x->name, sizeof x->name, "thread %zu", t->threads.count);
    return (uint32_t)t->threads.count - 1;
}

void mxrt_trace_thread(struct mxrt_trace *t, const char *name) {
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    uint32_t i = this_thread(t);
    if (i < t->threads.count)
        put_name(((struct thread *)t->threads.at)[i].name, name);
    pthread_mutex_unlock(&t->lock);
}

/* Under the lock. */
static struct span *add_span(struct mxrt_trace *t, enum span_kind kind, uint64_t operation, const char *name,
                             int64_t begin, int64_t end) {
    struct span *s = t->spans.count < MOST ? add(&t->spans, sizeof *s) : NULL;
    if (!s) {
        t->dropped++;
        return NULL;
    }
    *s = (struct span){.begin = begin, .end = end, .operation = operation, .track = this_thread(t), .kind = kind};
    if (name || operation == 0)
        put_name(s->name, name);
    else
        (void)snprintf(s->name, sizeof s->name, "operation %llu",
                       (unsigned long long)(operation & (((uint64_t)1 << ENGINE_SHIFT) - 1)));
    return s;
}

void mxrt_trace_end(struct mxrt_trace *t, int64_t begin, const char *name) {
    if (!t)
        return;
    int64_t end = now(t);
    pthread_mutex_lock(&t->lock);
    (void)add_span(t, SPAN_PLAIN, 0, name, begin, end);
    pthread_mutex_unlock(&t->lock);
}

uint64_t trace_engine(struct mxrt_trace *t) {
    pthread_mutex_lock(&t->lock);
    uint64_t n = ++t->engines;
    pthread_mutex_unlock(&t->lock);
    return n << ENGINE_SHIFT;
}

static size_t place_of(const struct mxrt_trace *t, const void *at, uint32_t generation) {
    const struct variable *v = t->variables.at;
    size_t i = ((uintptr_t)at >> 6) * 0x9E3779B97F4A7C15u + generation;
    for (;; i++) {
        i &= t->index_room - 1;
        uint32_t n = t->index[i];
        if (n == 0 || (v[n - 1].at == at && v[n - 1].generation == generation))
            return i;
    }
}

/* The variable's number + 1; 0 without memory. */
static uint32_t number_of(struct mxrt_trace *t, const struct trace_variable *x) {
    if (2 * t->variables.count >= t->index_room) {
        size_t room = t->index_room ? 2 * t->index_room : 256;
        uint32_t *more = calloc(room, sizeof *more);
        if (!more)
            return 0;
        free(t->index);
        t->index = more;
        t->index_room = room;
        const struct variable *v = t->variables.at;
        for (uint32_t i = 0; i < t->variables.count; i++)
            t->index[place_of(t, v[i].at, v[i].generation)] = i + 1;
    }
    size_t place = place_of(t, x->at, x->generation);
    if (t->index[place] == 0) {
        struct variable *v = add(&t->variables, sizeof *v);
        if (!v)
            return 0;
        v->at = x->at;
        v->generation = x->generation;
        put_name(v->name, x->name);
        t->index[place] = (uint32_t)t->variables.count;
    }
    return t->index[place];
}

void trace_pushed(struct mxrt_trace *t, uint64_t operation, const struct trace_variable *variables, uint32_t reads,
                  uint32_t writes) {
    pthread_mutex_lock(&t->lock);
    size_t first = t->uses.count;
    bool there = t->pushes.count < MOST;
    for (uint32_t i = 0; i < reads + writes && there; i++) {
        uint32_t n = number_of(t, &variables[i]);
        struct use *u = n ? add(&t->uses, sizeof *u) : NULL;
        if ((there = u != NULL)) {
            struct variable *v = (struct variable *)t->variables.at + n - 1;
            v->version += i >= reads;
            *u = (struct use){n - 1, v->version};
        }
    }
    struct pushed *p = there ? add(&t->pushes, sizeof *p) : NULL;
    if (p)
        *p = (struct pushed){operation, first, reads, writes};
    pthread_mutex_unlock(&t->lock);
}

void trace_ran(struct mxrt_trace *t, uint64_t operation, const char *name, int64_t begin, bool skipped) {
    int64_t end = now(t);
    pthread_mutex_lock(&t->lock);
    (void)add_span(t, skipped ? SPAN_SKIPPED : SPAN_RAN, operation, name, begin, end);
    pthread_mutex_unlock(&t->lock);
}

void trace_started(struct mxrt_trace *t, uint64_t operation, const char *name, int64_t begin) {
    pthread_mutex_lock(&t->lock);
    size_t *open = add(&t->open, sizeof *open);
    if (open) {
        *open = t->spans.count;
        if (!add_span(t, SPAN_ASYNC, operation, name, begin, -1))
            t->open.count--;
    }
    pthread_mutex_unlock(&t->lock);
}

void trace_ended(struct mxrt_trace *t, uint64_t operation) {
    int64_t end = now(t);
    pthread_mutex_lock(&t->lock);
    size_t *open = t->open.at;
    struct span *spans = t->spans.at;
    for (size_t i = t->open.count; i-- > 0;) {
        if (spans[open[i]].operation == operation) {
            spans[open[i]].end = end;
            open[i] = open[--t->open.count];
            break;
        }
    }
    pthread_mutex_unlock(&t->lock);
}

/* ---- writing; under the lock */

static void put_string(FILE *f, const char *s) {
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            fprintf(f, "\\%c", *s);
        else if ((unsigned char)*s < ' ')
            fprintf(f, "\\u%04x", (unsigned)*s);
        else
            fputc(*s, f);
    }
    fputc('"', f);
}

static void put_time(FILE *f, const char *key, int64_t ns) {
    fprintf(f, ",\"%s\":%lld.%03d", key, (long long)(ns / 1000), (int)(ns % 1000));
}

/* Variables of one name get a number behind it. */
static void put_use(FILE *f, const struct mxrt_trace *t, const struct use *u) {
    const struct variable *v = (const struct variable *)t->variables.at + u->variable;
    char label[NAME + 40];
    (void)snprintf(label, sizeof label, "%s#%u@%u", v->name, u->variable + 1, u->version);
    put_string(f, label);
}

static void put_uses(FILE *f, const struct mxrt_trace *t, const char *key, size_t first, uint32_t n) {
    fprintf(f, ",\"%s\":[", key);
    for (uint32_t i = 0; i < n; i++) {
        if (i)
            fputc(',', f);
        put_use(f, t, (const struct use *)t->uses.at + first + i);
    }
    fputc(']', f);
}

static void put_track(FILE *f, unsigned track, const char *name) {
    fprintf(f, "{\"ph\":\"M\",\"pid\":1,\"tid\":%u,\"name\":\"thread_name\",\"args\":{\"name\":", track);
    put_string(f, name);
    fputs("}},\n", f);
}

/* What a file is written from. */
struct writing {
    struct mxrt_trace *t;
    FILE *file;
    const struct span **span;     /* [spans] by operation */
    const struct pushed **pushed; /* [pushes] by operation */
    size_t spans, arrows;
};

static int by_operation(uint64_t a, uint64_t b) {
    return (a > b) - (a < b);
}

static int compare_spans(const void *a, const void *b) {
    const struct span *x = *(const struct span *const *)a, *y = *(const struct span *const *)b;
    return by_operation(x->operation, y->operation);
}

static int compare_pushes(const void *a, const void *b) {
    const struct pushed *x = *(const struct pushed *const *)a, *y = *(const struct pushed *const *)b;
    return by_operation(x->operation, y->operation);
}

static int compare_begins(const void *a, const void *b) {
    const struct span *x = *(const struct span *const *)a, *y = *(const struct span *const *)b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

static void put_span(struct writing *w, const struct span *s) {
    static const char *const categories[] = {"span", "operation", "skipped", "asynchronous"};
    FILE *f = w->file;
    fprintf(f, "{\"ph\":\"X\",\"pid\":1,\"tid\":%u,\"cat\":\"%s\",\"name\":", (unsigned)s->track + 1,
            categories[s->kind]);
    put_string(f, s->name);
    put_time(f, "ts", s->begin);
    put_time(f, "dur", s->end - s->begin);
    if (s->operation) {
        struct pushed key = {.operation = s->operation};
        const struct pushed *k = &key, *const *p = w->t->pushes.count ? bsearch(&k, w->pushed, w->t->pushes.count,
                                                                                sizeof *w->pushed, compare_pushes)
                                                                      : NULL;
        fprintf(f, ",\"args\":{\"operation\":%llu", (unsigned long long)s->operation);
        if (p) {
            put_uses(f, w->t, "reads", (*p)->first, (*p)->reads);
            put_uses(f, w->t, "writes", (*p)->first + (*p)->reads, (*p)->writes);
        }
        fputc('}', f);
    }
    fputs("},\n", f);
}

static const struct span *span_of(const struct writing *w, size_t push) {
    const struct span key = {.operation = ((const struct pushed *)w->t->pushes.at)[push].operation}, *k = &key;
    const struct span *const *s = bsearch(&k, w->span, w->spans, sizeof *w->span, compare_spans);
    return s ? *s : NULL;
}

/* From the begin of one span to that of another; a viewer wants both ends inside. */
static void put_arrow(struct writing *w, size_t from, const struct span *to) {
    const struct span *s = span_of(w, from);
    if (!s || s == to)
        return;
    const struct span *const ends[2] = {s, to};
    w->arrows++;
    for (int i = 0; i < 2; i++) {
        fprintf(w->file,
                "{\"ph\":\"%s\",\"pid\":1,\"tid\":%u,\"id\":%zu,\"cat\":\"dependence\",\"name\":\"dependence\"",
                i ? "f\",\"bp\":\"e" : "s", (unsigned)ends[i]->track + 1, w->arrows);
        put_time(w->file, "ts", ends[i]->begin);
        fputs("},\n", w->file);
    }
}

static bool put_arrows(struct writing *w) {
    struct mxrt_trace *t = w->t;
    struct variable *variables = t->variables.at;
    const struct pushed *pushes = t->pushes.at;
    const struct use *uses = t->uses.at;
    struct reader {
        size_t push, next; /* next: + 1 */
    } *reader = malloc((t->uses.count + 1) * sizeof *reader);
    if (!reader)
        return false;
    for (size_t i = 0; i < t->variables.count; i++)
        variables[i].writer = variables[i].readers = 0;
    for (size_t i = 0; i < t->pushes.count; i++) {
        const struct pushed *p = &pushes[i];
        const struct span *s = span_of(w, i);
        for (size_t k = p->first; k < p->first + p->reads + p->writes; k++) {
            struct variable *v = &variables[uses[k].variable];
            bool write = k >= p->first + p->reads;
            if (s && v->writer && !(write && v->readers))
                put_arrow(w, v->writer - 1, s);
            if (!write) {
                reader[k].push = i;
                reader[k].next = v->readers;
                v->readers = k + 1;
                continue;
            }
            for (size_t r = v->readers; r && s; r = reader[r - 1].next)
                put_arrow(w, reader[r - 1].push, s);
            v->writer = i + 1;
            v->readers = 0;
        }
    }
    free(reader);
    return true;
}

/* Gives asynchronous spans their tracks. */
static bool spread_async(struct mxrt_trace *t, FILE *f) {
    struct span *spans = t->spans.at, **async = malloc((t->spans.count + 1) * sizeof *async);
    size_t n = 0, tracks = 0;
    int64_t *end = malloc((t->spans.count + 1) * sizeof *end);
    for (size_t i = 0; async && end && i < t->spans.count; i++) {
        if (spans[i].kind == SPAN_ASYNC && spans[i].end >= 0)
            async[n++] = &spans[i];
    }
    if (n > 1)
        qsort(async, n, sizeof *async, compare_begins);
    for (size_t i = 0; i < n; i++) {
        size_t track = 0;
        while (track < tracks && end[track] > async[i]->begin)
            track++;
        if (track == tracks) {
            tracks++;
            put_track(f, (unsigned)(ASYNC_TRACK + track + 1), "asynchronous");
        }
        end[track] = async[i]->end;
        async[i]->track = (uint32_t)(ASYNC_TRACK + track);
    }
    bool there = async && end;
    free(async);
    free(end);
    return there;
}

static bool put_all(struct mxrt_trace *t, FILE *f) {
    struct writing w = {.t = t, .file = f};
    const struct span *spans = t->spans.at;
    const struct pushed *pushes = t->pushes.at;
    w.span = malloc((t->spans.count + 1) * sizeof *w.span);
    w.pushed = malloc((t->pushes.count + 1) * sizeof *w.pushed);
    bool there = w.span && w.pushed && spread_async(t, f);
    if (there) {
        for (size_t i = 0; i < t->pushes.count; i++)
            w.pushed[i] = &pushes[i];
        qsort(w.pushed, t->pushes.count, sizeof *w.pushed, compare_pushes);
        for (size_t i = 0; i < t->spans.count; i++) {
            if (spans[i].end < 0)
                continue;
            put_span(&w, &spans[i]);
            if (spans[i].operation)
                w.span[w.spans++] = &spans[i];
        }
        qsort(w.span, w.spans, sizeof *w.span, compare_spans);
        there = put_arrows(&w);
    }
    free(w.span);
    free(w.pushed);
    return there;
}

mx_status mxrt_trace_write(struct mxrt_trace *t, const char *path, struct mxrt_why *why) {
    struct mxrt_why unread;
    FILE *f = t && path ? fopen(path, "w") : NULL;
    if (!why)
        why = &unread;
    if (!f)
        return t && path ? mxrt_fail(why, MX_ERROR_IO, "cannot write %s: %s", path, strerror(errno))
                         : mxrt_fail(why, MX_ERROR_ARGUMENT, "writing a trace wants the trace and a path");
    pthread_mutex_lock(&t->lock);
    fprintf(f, "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"dropped\":\"%llu\"},\"traceEvents\":[\n",
            (unsigned long long)t->dropped);
    const struct thread *threads = t->threads.at;
    for (size_t i = 0; i < t->threads.count; i++)
        put_track(f, (unsigned)i + 1, threads[i].name);
    bool there = put_all(t, f);
    pthread_mutex_unlock(&t->lock);
    fputs("{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\",\"args\":{\"name\":\"mxrt\"}}\n]}\n", f);
    errno = 0;
    bool written = !ferror(f);
    if (fclose(f) != 0 || !written)
        return mxrt_fail(why, MX_ERROR_IO, "cannot write %s: %s", path, errno ? strerror(errno) : "it is incomplete");
    return there ? MX_OK : mxrt_fail(why, MX_ERROR_MEMORY, "no memory to write the trace");
}
