/* A timeline: what ran when, on which thread, and after what, as a file of Chrome trace events, which chrome://tracing
 * and ui.perfetto.dev open and samples/trace.py draws. An engine given one (mxrt_engine_options.trace) notes its
 * operations with the variables and versions that they read and write; other code notes spans of its own.
 *
 * Every function may be called from any thread; `why` may be NULL. Noting takes some tens of nanoseconds, and memory: after a million spans
 * the following ones are only counted. */
#ifndef MXRT_TRACE_H
#define MXRT_TRACE_H

#include <stdint.h>

#include "mxrt/why.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mxrt_trace;

/* Times count from here; the calling thread is called `main`. */
mx_status mxrt_trace_create(struct mxrt_trace **t, struct mxrt_why *why);
void mxrt_trace_free(struct mxrt_trace *t); /* after the engines that note in it; NULL is allowed */
/* The spans that have ended until now; a file that was there is replaced. */
mx_status mxrt_trace_write(struct mxrt_trace *t, const char *path, struct mxrt_why *why);

/* A span of this thread: begin gives the time that end takes. The name is copied, up to 47 bytes. Spans of one thread lie
 * beside or inside one another. A NULL trace notes nothing. */
int64_t mxrt_trace_begin(const struct mxrt_trace *t);
void mxrt_trace_end(struct mxrt_trace *t, int64_t begin, const char *name);
/* What this thread is called. */
void mxrt_trace_thread(struct mxrt_trace *t, const char *name);

#ifdef __cplusplus
}
#endif
#endif
