/* What engines note in a trace. An operation is known by its engine's number in the trace and its serial number. */
#ifndef RUNTIME_TRACE_RECORD_H
#define RUNTIME_TRACE_RECORD_H

#include <stdbool.h>

#include "mxrt/trace.h"

/* A variable: where it is and which of those that were there; never both the same. */
struct trace_variable {
    const void *at;
    uint32_t generation;
    const char *name; /* may be NULL */
};

uint64_t trace_engine(struct mxrt_trace *t); /* a number, to be added to its serial numbers */
/* In the order of pushes. Variables: what is read, what is written. */
void trace_pushed(struct mxrt_trace *t, uint64_t operation, const struct trace_variable *variables, uint32_t reads,
                  uint32_t writes);
void trace_ran(struct mxrt_trace *t, uint64_t operation, const char *name, int64_t begin, bool skipped);
/* One that ends elsewhere. */
void trace_started(struct mxrt_trace *t, uint64_t operation, const char *name, int64_t begin);
void trace_ended(struct mxrt_trace *t, uint64_t operation);

#endif
