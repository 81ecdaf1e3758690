/* An engine for what a program does beside its computation: files and batches. Private to libmxrt. */
#ifndef MXRT_BACKGROUND_H
#define MXRT_BACKGROUND_H

#include "mxrt/engine.h"

/* One thread for the IO lane, which blocks or converts while the caller computes. Where the system gives no thread, operations
 * run inside their push. */
static inline mx_status background_engine(struct mxrt_engine **e, struct mxrt_trace *trace, struct mxrt_why *why) {
    struct mxrt_engine_options options = {.threads = 1, .io_threads = 1, .trace = trace};
    if (mxrt_engine_create(e, &options, why) == MX_OK)
        return MX_OK;
    options.io_threads = 0;
    return mxrt_engine_create(e, &options, why);
}

#endif
