/* The instance of a CUDA unit: its streams and memory on the device, the mirrors of buffers on the host, and the few functions that
 * move bytes, play parts (part.c) and say what went wrong.
 *
 * Arguments and results have a stream of their own. Small ones go through pinned memory, so that the host need not wait for each.
 *
 * A view that `param` gave stays what it is in C: memory that the caller reads after a call and writes before one. So a buffer that
 * was viewed is copied to the device before every call and back after it; the others stay where they are.
 */
#include <string.h>

#include "codegen/c/model_internal.h"
#include "codegen/cuda/cuda.h"
#include "codegen/cuda/offload.h"

void unit_cuda_includes(const struct unit *u, struct text *out) {
    if (u->g.cuda->uses_library)
        text_add(out, "#include <cublasLt.h>\n");
    if (u->g.cuda->uses_cudnn)
        text_add(out, "#include <cudnn.h>\n");
    text_add(
        out,
        "#include <cuda_runtime.h>\n\n"
        "/* A kernel, its blocks and threads; a grid of no blocks is not launched. With MX_CUDA_SYNC every kernel is waited for, so\n"
        " * that a failure names its operation. */\n"
        "#ifndef MX_LAUNCH\n"
        "#ifdef MX_CUDA_SYNC\n#define MX_LAUNCHED(stream) (cudaGetLastError(), cudaStreamSynchronize(stream))\n"
        "#else\n#define MX_LAUNCHED(stream) cudaGetLastError()\n#endif\n"
        "#define MX_LAUNCH(kernel, blocks, threads, stream, ...) \\\n"
        "    ((blocks) <= 0                    ? cudaSuccess \\\n"
        "     : (int64_t)(blocks) > INT32_MAX ? cudaErrorInvalidConfiguration \\\n"
        "                                     : (kernel<<<(unsigned)(blocks), (threads), 0, (stream)>>>(__VA_ARGS__), MX_LAUNCHED(stream)))\n"
        "#endif\n"
        "#if defined MX_CUDA_SYNC && !defined MX_CUDA_NO_GRAPHS\n#define MX_CUDA_NO_GRAPHS\n#endif\n"
        "/* Memory of the device and its size, for tools that check accesses. */\n"
        "#ifndef MX_AT\n#define MX_AT(address, bytes) ((void *)(address))\n#define MX_FRESH(address, bytes) ((void)0)\n#endif\n"
        "/* A value as 8 bytes of an array. */\n"
        "#define MX_SET(array, i, type, value) \\\n"
        "    do { \\\n        const type mx_set = (type)(value); \\\n        memcpy(&(array)[i], &mx_set, sizeof mx_set); \\\n    } while (0)\n"
        "#define MX_TRY(call) \\\n"
        "    do { \\\n        const mx_status mx_tried = (call); \\\n        if (mx_tried != MX_OK) \\\n            return mx_tried; \\\n    } while (0)\n\n");
}

enum {
    GRAPHS = 8,
    PINNED = 1 << 18,
    TAKEN = 16,
    AHEAD = 16
}; /* kept of a part; bytes of the instance's; results that go through them; arguments ahead */

static int event_count(const struct cuda *d) {
    return d->event_count + (d->ahead_bytes ? 3 : 1); /* the last: of copies, then of each of those made ahead */
}

static int stream_count(const struct cuda *d) {
    return CUDA_LANES + (d->ahead_bytes ? 2 : 1); /* copies, copies ahead */
}

/* Beside what a C unit's instance has. */
int64_t unit_cuda_struct_bytes(const struct unit *u) {
    const struct cuda *d = u->g.cuda;
    return 8 * (CUDA_LANES + 16) + (d->ahead_bytes ? 2 * (AHEAD * 24 + 16) + 16 : 0) + 8 * (int64_t)event_count(d) +
           8 * (int64_t)d->value_count + 24 * TAKEN + (int64_t)d->parts * GRAPHS * (8 * (int64_t)d->key_most + 32) +
           u->module->buffer_count + 64 + unit_cuda_library_bytes(u) + unit_cuda_convolution_bytes(u) +
           unit_cuda_exchange_bytes(u);
}

static int64_t pinned_bytes(const struct unit *u) {
    const struct cuda *d = u->g.cuda;
    int64_t bytes = d->inner_arena - d->arguments;
    return bytes < PINNED ? bytes : PINNED;
}

void unit_cuda_struct(struct unit *u) {
    const struct cuda *d = u->g.cuda;
    struct text *c = &u->c;
    text_printf(
        c,
        "    unsigned char *mx_device;  /* all memory on the device: buffers, working memory, arguments */\n"
        "    unsigned char *mx_staging; /* on the host, for print and C functions */\n"
        "    unsigned char *mx_pinned;  /* for small arguments and results, of which so many bytes are in use */\n"
        "    size_t mx_pinned_used;\n"
        "    struct {\n        void *to;\n        const void *from;\n        size_t bytes;\n    } mx_taken[%d]; /* results to be copied from there */\n"
        "    int mx_taken_count;\n"
        "    cudaStream_t mx_stream[%d]; /* [0] the order of calls; others beside it within a part; the last for copies */\n"
        "    cudaEvent_t mx_event[%d];   /* the last: of copies */\n"
        "    int mx_capturing;\n",
        TAKEN, stream_count(d), event_count(d));
    if (d->ahead_bytes)
        text_printf(
            c,
            "    unsigned char *mx_ahead_pinned;\n"
            "    struct {\n        int state; /* 0 free, 1 sent, 2 in use by the call */\n        int count;\n"
            "        struct {\n            const void *from;\n            size_t bytes, at;\n        } args[%d];\n"
            "    } mx_ahead[2]; /* arguments of the next calls; a thread of the loader's sends them */\n",
            AHEAD);
    unit_cuda_library_struct(u);
    unit_cuda_convolution_struct(u);
    if (d->outside)
        text_add(
            c,
            "    unsigned char *mx_outside; /* pinned memory of the host that kernels reach: what --memory-limit keeps off the device */\n");
    if (d->value_count)
        text_printf(c,
                    "    int64_t mx_values[%d]; /* what kernels read that differs from call to call, 8 bytes each */\n",
                    d->value_count);
    if (d->parts)
        text_printf(
            c,
            "    struct {\n        int64_t key[%d];\n        uint64_t used; /* 0: free */\n        int is_plain;\n"
            "        cudaGraphExec_t exec; /* NULL: the part ran with this key once */\n    } mx_graphs[%d][%d];\n"
            "    uint64_t mx_plays;\n",
            d->key_most ? d->key_most : 1, d->parts, GRAPHS);
    text_printf(
        c,
        "    unsigned char mx_viewed[%d]; /* of each buffer: 1 its mirror is to be copied before the next call, 2 "
        "around every call */\n",
        u->module->buffer_count + 1);
    unit_cuda_exchange_struct(u);
}

/* One part: replayed if its graph is there, captured when it runs with a key for the second time, so that what does not come back
 * costs no capture; else launched. */
static void print_play(struct unit *u) {
    struct text *c = &u->c;
    const struct cuda *d = u->g.cuda;
    const char *p = u->prefix;
    if (!d->part_functions)
        return;
    text_add(
        c,
        "/* The largest of the sizes that share a grid with n: steps of an eighth to a quarter. */\n"
        "[[maybe_unused]] static int64_t mx_bucket(int64_t n, int64_t most) {\n    int64_t step = 1;\n"
        "    while (step * 8 <= n)\n        step *= 2;\n    n = (n + step - 1) / step * step;\n    return n < most ? n : most;\n}\n\n");
    text_printf(
        c,
        "[[maybe_unused]] static mx_status %s_mx_after(struct %s *m, int stream, int event, const char *where) {\n"
        "    return %s_mx_cuda(m, cudaStreamWaitEvent(m->mx_stream[stream], m->mx_event[event], 0), where);\n}\n\n"
        "[[maybe_unused]] static mx_status %s_mx_mark(struct %s *m, int stream, int event, const char *where) {\n"
        "    return %s_mx_cuda(m, cudaEventRecord(m->mx_event[event], m->mx_stream[stream]), where);\n}\n\n",
        p, p, p, p, p, p);
    if (d->parts)
        text_printf(
            c,
            "#ifndef MX_CUDA_NO_GRAPHS\n"
            "/* Beyond so many operations a graph takes more memory than its replay saves time. */\n#ifndef MX_CUDA_GRAPH_NODES\n"
            "#define MX_CUDA_GRAPH_NODES 20000\n#endif\n"
            "static mx_status %s_mx_capture(struct %s *m, cudaGraphExec_t *exec, mx_status (*record)(struct %s *, const int64_t *),\n"
            "                               const int64_t *key, const char *where) {\n"
            "    cudaGraph_t graph = NULL;\n    size_t nodes = 0;\n    cudaError_t e;\n    mx_status status;\n"
            "    MX_TRY(%s_mx_cuda(m, cudaStreamBeginCapture(m->mx_stream[0], cudaStreamCaptureModeThreadLocal), where));\n"
            "    m->mx_capturing = 1;\n    status = record(m, key);\n    m->mx_capturing = 0;\n"
            "    e = cudaStreamEndCapture(m->mx_stream[0], &graph);\n"
            "    if (status == MX_OK && e == cudaSuccess)\n        e = cudaGraphGetNodes(graph, NULL, &nodes);\n"
            "    if (status == MX_OK && e == cudaSuccess && nodes <= MX_CUDA_GRAPH_NODES)\n"
            "        e = cudaGraphInstantiate(exec, graph, 0);\n"
            "    if (graph)\n        (void)cudaGraphDestroy(graph);\n"
            "    if (e == cudaErrorMemoryAllocation) { /* it runs without */\n        (void)cudaGetLastError();\n        *exec = NULL;\n"
            "        e = cudaSuccess;\n    }\n"
            "    return status != MX_OK ? status : %s_mx_cuda(m, e, where);\n}\n#endif\n\n",
            p, p, p, p, p);
    text_printf(
        c,
        "/* Runs a part: what its kernels read from mx_values, then its launches, from a graph where there is one. A graph is captured when a\n"
        " * key comes for the second time, so that sizes that never come back cost nothing; of a part the %d used last are kept. */\n"
        "static mx_status %s_mx_play(struct %s *m, int part, mx_status (*record)(struct %s *, const int64_t *), const int64_t *key,\n"
        "                            int count, int values, const char *where) {\n",
        GRAPHS, p, p, p);
    if (d->value_count)
        text_printf(
            c,
            "    if (values > 0)\n        MX_TRY(%s_mx_copy(m, MX_AT(m->mx_device + %lld, (size_t)values * 8), m->mx_values, "
            "(size_t)values * 8, where));\n",
            p, (long long)d->values);
    else
        text_add(c, "    (void)values;\n");
    if (d->parts)
        text_printf(
            c,
            "#ifndef MX_CUDA_NO_GRAPHS\n    int found = -1, oldest = 0;\n"
            "    for (int i = 0; part >= 0 && i < %d; i++) {\n"
            "        if (m->mx_graphs[part][i].used && (count == 0 || memcmp(m->mx_graphs[part][i].key, key, (size_t)count * 8) == 0))\n"
            "            found = i;\n"
            "        if (m->mx_graphs[part][i].used < m->mx_graphs[part][oldest].used)\n            oldest = i;\n    }\n"
            "    if (found >= 0) {\n        cudaGraphExec_t *exec = &m->mx_graphs[part][found].exec;\n"
            "        m->mx_graphs[part][found].used = ++m->mx_plays;\n"
            "        if (!*exec && !m->mx_graphs[part][found].is_plain) {\n"
            "            MX_TRY(%s_mx_capture(m, exec, record, key, where));\n"
            "            m->mx_graphs[part][found].is_plain = !*exec;\n        }\n"
            "        if (*exec)\n            return %s_mx_cuda(m, cudaGraphLaunch(*exec, m->mx_stream[0]), where);\n"
            "    } else if (part >= 0) {\n"
            "        if (m->mx_graphs[part][oldest].exec)\n            (void)cudaGraphExecDestroy(m->mx_graphs[part][oldest].exec);\n"
            "        memset(&m->mx_graphs[part][oldest], 0, sizeof m->mx_graphs[part][oldest]);\n"
            "        if (count > 0)\n            memcpy(m->mx_graphs[part][oldest].key, key, (size_t)count * 8);\n"
            "        m->mx_graphs[part][oldest].used = ++m->mx_plays;\n    }\n#else\n    (void)part;\n    (void)count;\n    (void)where;\n#endif\n",
            GRAPHS, p, p);
    else
        text_add(c, "    (void)part;\n    (void)count;\n    (void)where;\n");
    text_add(c, "    return record(m, key);\n}\n\n");
}

/* Arguments and results. */
static void print_copies(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix;
    const struct cuda *d = u->g.cuda;
    int copies = CUDA_LANES, event = d->event_count;
    if (d->ahead_bytes)
        text_printf(
            c,
            "/* Where the device has an argument already that the loader sent ahead. */\n"
            "static const void *%s_mx_sent(struct %s *m, const void *from, size_t bytes) {\n"
            "    for (int k = 0; k < 2; k++)\n"
            "        for (int i = 0; __atomic_load_n(&m->mx_ahead[k].state, __ATOMIC_ACQUIRE) != 0 && i < m->mx_ahead[k].count; i++)\n"
            "            if (m->mx_ahead[k].args[i].from == from && m->mx_ahead[k].args[i].bytes == bytes) {\n"
            "                if (cudaStreamWaitEvent(m->mx_stream[%d], m->mx_event[%d + k], 0) != cudaSuccess)\n                    return NULL;\n"
            "                m->mx_ahead[k].args[i].from = NULL;\n"
            "                __atomic_store_n(&m->mx_ahead[k].state, 2, __ATOMIC_RELEASE);\n"
            "                return MX_AT(m->mx_device + (k ? %lld : %lld) + m->mx_ahead[k].args[i].at, bytes);\n            }\n"
            "    return NULL;\n}\n\n"
            "static void %s_mx_sent_done(struct %s *m) {\n    for (int k = 0; k < 2; k++)\n"
            "        if (__atomic_load_n(&m->mx_ahead[k].state, __ATOMIC_ACQUIRE) == 2)\n"
            "            __atomic_store_n(&m->mx_ahead[k].state, 0, __ATOMIC_RELEASE);\n}\n\n",
            p, p, copies, event + 1, (long long)d->ahead[1], (long long)d->ahead[0], p, p);
    text_printf(
        c,
        "/* An argument to the device, through pinned memory where it is small. */\n"
        "[[maybe_unused]] static mx_status %s_mx_give(struct %s *m, void *to, const void *from, size_t bytes, const char *where) {\n"
        "    struct cudaPointerAttributes at;\n    if (bytes == 0)\n        return MX_OK;\n%s"
        "    if (bytes <= %lld - m->mx_pinned_used && cudaPointerGetAttributes(&at, from) == cudaSuccess &&\n"
        "        at.type == cudaMemoryTypeUnregistered) {\n"
        "        unsigned char *pinned = m->mx_pinned + m->mx_pinned_used;\n        memcpy(pinned, from, bytes);\n        from = pinned;\n"
        "        m->mx_pinned_used += bytes;\n    }\n"
        "    return %s_mx_cuda(m, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, m->mx_stream[%d]), where);\n}\n\n",
        p, p,
        d->ahead_bytes
            ? arena_printf(
                  &u->g.arena,
                  "    const void *sent = %s_mx_sent(m, from, bytes);\n    if (sent)\n"
                  "        return %s_mx_cuda(m, cudaMemcpyAsync(to, sent, bytes, cudaMemcpyDefault, m->mx_stream[%d]), where);\n",
                  p, p, copies)
            : "",
        (long long)pinned_bytes(u), p, copies);
    text_printf(c,
                "/* Kernels wait for them. */\n"
                "[[maybe_unused]] static mx_status %s_mx_given(struct %s *m, const char *where) {\n"
                "    MX_TRY(%s_mx_cuda(m, cudaEventRecord(m->mx_event[%d], m->mx_stream[%d]), where));\n"
                "    return %s_mx_cuda(m, cudaStreamWaitEvent(m->mx_stream[0], m->mx_event[%d], 0), where);\n}\n\n",
                p, p, p, event, copies, p, event);
    text_printf(
        c,
        "/* A result to the caller, at the function's end. */\n"
        "[[maybe_unused]] static mx_status %s_mx_take(struct %s *m, void *to, const void *from, size_t bytes, const char *where) {\n"
        "    struct cudaPointerAttributes at;\n    if (bytes == 0)\n        return MX_OK;\n"
        "    if (bytes <= %lld - m->mx_pinned_used && m->mx_taken_count < %d && cudaPointerGetAttributes(&at, to) == cudaSuccess &&\n"
        "        at.type == cudaMemoryTypeUnregistered) {\n"
        "        m->mx_taken[m->mx_taken_count].to = to;\n        to = m->mx_pinned + m->mx_pinned_used;\n"
        "        m->mx_taken[m->mx_taken_count].from = to;\n        m->mx_taken[m->mx_taken_count++].bytes = bytes;\n"
        "        m->mx_pinned_used += bytes;\n    }\n"
        "    return %s_mx_cuda(m, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, m->mx_stream[%d]), where);\n}\n\n",
        p, p, (long long)pinned_bytes(u), TAKEN, p, copies);
    text_printf(c,
                "/* Behind all that was launched. */\n"
                "[[maybe_unused]] static mx_status %s_mx_done(struct %s *m, const char *where) {\n"
                "    MX_TRY(%s_mx_cuda(m, cudaEventRecord(m->mx_event[%d], m->mx_stream[0]), where));\n"
                "    return %s_mx_cuda(m, cudaStreamWaitEvent(m->mx_stream[%d], m->mx_event[%d], 0), where);\n}\n\n",
                p, p, p, event, p, copies, event);
}

void unit_cuda_helpers(struct unit *u) {
    struct text *c = &u->c;
    int64_t state = offload_bytes(u->module, offload_candidates(u->module)) - u->g.cuda->outside;
    const char *movable =
        state > 0 ? arena_printf(&u->g.arena, ", and %lld bytes of optimizer state can stay in the host's memory",
                                 (long long)state)
                  : "";
    const char *p = u->prefix;
    text_printf(
        c,
        "/* Nothing goes on behind a call that failed. */\n"
        "static void %s_mx_settle(struct %s *m) {\n    for (int i = 0; i < %d && !m->mx_capturing; i++)\n"
        "        if (m->mx_stream[i])\n            (void)cudaStreamSynchronize(m->mx_stream[i]);\n"
        "    (void)cudaGetLastError();\n}\n\n"
        "static mx_status %s_mx_cuda(struct %s *m, cudaError_t e, const char *where) {\n"
        "    if (e == cudaSuccess)\n        return MX_OK;\n    %s_mx_settle(m);\n"
        "    size_t available = 0, total = 0;\n    switch (e) {\n"
        "    case cudaErrorMemoryAllocation:\n"
        "        (void)cudaMemGetInfo(&available, &total);\n"
        "        return %s_mx_fail(m, MX_ERROR_MEMORY, \"%%s: the GPU has too little memory free: %%lld bytes are needed, %%lld of %%lld are \"\n"
        "            \"free; mxcc --memory-limit BYTES computes again instead of keeping the %%lld bytes of working memory\" \"%s\", where,\n"
        "            (long long)%s_DEVICE_BYTES, (long long)available, (long long)total, (long long)%s_ARENA_BYTES);\n"
        "    case cudaErrorNoDevice:\n    case cudaErrorInsufficientDriver:\n"
        "        return %s_mx_fail(m, MX_ERROR_DEVICE, \"%%s: no GPU that can be used: %%s\", where, cudaGetErrorString(e));\n"
        "    case cudaErrorNoKernelImageForDevice:\n    case cudaErrorInvalidDeviceFunction:\n"
        "        return %s_mx_fail(m, MX_ERROR_DEVICE, \"%%s: this program was not compiled for this GPU: nvcc -arch=native\", where);\n"
        "    default: return %s_mx_fail(m, MX_ERROR_DEVICE, \"%%s: CUDA: %%s\", where, cudaGetErrorString(e));\n    }\n}\n\n",
        p, p, stream_count(u->g.cuda), p, p, p, p, movable, u->upper, u->upper, p, p, p);
    text_printf(
        c,
        "[[maybe_unused]] static mx_status %s_mx_copy(struct %s *m, void *to, const void *from, size_t bytes, const char *where) {\n"
        "    return bytes == 0 ? MX_OK : %s_mx_cuda(m, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, m->mx_stream[0]), where);\n}\n\n",
        p, p, p);
    text_printf(
        c,
        "/* The same, and waits for it. */\n"
        "[[maybe_unused]] static mx_status %s_mx_fetch(struct %s *m, void *to, const void *from, size_t bytes, const char *where) {\n"
        "    MX_TRY(%s_mx_copy(m, to, from, bytes, where));\n"
        "    return %s_mx_cuda(m, cudaStreamSynchronize(m->mx_stream[0]), where);\n}\n\n",
        p, p, p, p);
    text_printf(c,
                "static mx_status %s_mx_move_newer(struct %s *m);\nstatic mx_status %s_mx_begin(struct %s *m);\n"
                "static mx_status %s_mx_end(struct %s *m, const char *where);\n\n",
                p, p, p, p, p, p);
    print_copies(u);
    unit_cuda_library(u);
    unit_cuda_convolution(u);
    print_play(u);
    unit_cuda_exchange_helpers(u);
}

void unit_cuda_buffers(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix, *up = u->upper;
    const struct cuda *d = u->g.cuda;
    text_printf(
        c,
        "/* On the device; -1: in the host's memory, where it is its own mirror. */\nstatic const int64_t %s_mx_offsets[] = {",
        p);
    for (int i = 0; i < u->module->buffer_count; i++)
        text_printf(c, "%s%lld,", i % 8 ? " " : "\n    ",
                    unit_is_outside(u, i) ? -1LL : (long long)u->g.cuda->buffer[i]);
    text_add(c, u->module->buffer_count ? "\n};\n\n" : "0};\n\n");
    text_printf(c,
                "/* A buffer to the device, or from there into its mirror. */\n"
                "static mx_status %s_mx_move(struct %s *m, int i, int up, const char *where) {\n    mx_tensor view;\n"
                "    if (%s_mx_offsets[i] < 0)\n        return MX_OK;\n    %s_mx_view(m, i, &view);\n"
                "    void *device = MX_AT(m->mx_device + %s_mx_offsets[i], view.bytes);\n"
                "    return %s_mx_copy(m, up ? device : view.data, up ? view.data : device, view.bytes, where);\n}\n\n",
                p, p, p, p, p, p);
    text_printf(c,
                "/* All of them, but for mirrors that are newer than the device. */\n"
                "[[maybe_unused]] static mx_status %s_mx_move_all(struct %s *m, int up, const char *where) {\n"
                "    for (int i = 0; i < %s_BUFFER_COUNT; i++)\n        if (up || !m->mx_viewed[i])\n"
                "            MX_TRY(%s_mx_move(m, i, up, where));\n"
                "    return %s_mx_cuda(m, cudaStreamSynchronize(m->mx_stream[0]), where);\n}\n\n",
                p, p, up, p, p);
    text_printf(c,
                "/* Makes a mirror current. how: 1 until the next call, 2 for good. */\n"
                "[[maybe_unused]] static mx_status %s_mx_see(struct %s *m, int i, unsigned char how) {\n"
                "    if (!m->mx_viewed[i]) {\n        MX_TRY(%s_mx_move(m, i, 0, \"param\"));\n"
                "        MX_TRY(%s_mx_cuda(m, cudaStreamSynchronize(m->mx_stream[0]), \"param\"));\n    }\n"
                "    m->mx_viewed[i] |= how;\n    return MX_OK;\n}\n\n",
                p, p, p, p);
    text_printf(c,
                "/* Mirrors that are newer than the device. */\n"
                "static mx_status %s_mx_move_newer(struct %s *m) {\n"
                "    for (int i = 0; i < %s_BUFFER_COUNT; i++)\n        if (m->mx_viewed[i]) {\n"
                "            MX_TRY(%s_mx_move(m, i, 1, %s_mx_buffers[i].name));\n"
                "            m->mx_viewed[i] &= 2;\n        }\n    return MX_OK;\n}\n\n",
                p, p, up, p, p);
    text_printf(
        c,
        "static mx_status %s_mx_begin(struct %s *m) {\n    m->mx_pinned_used = 0;\n    m->mx_taken_count = 0;\n%s    MX_TRY(%s_mx_move_newer(m));\n"
        "    MX_FRESH(m->mx_device + %lld, %lld);\n    MX_FRESH(m->mx_device + %lld, %lld);\n    return MX_OK;\n}\n\n",
        p, p, d->ahead_bytes ? arena_printf(&u->g.arena, "    %s_mx_sent_done(m);\n", p) : "", p, (long long)d->arena,
        (long long)(d->cache - d->arena), (long long)d->scalars, (long long)(d->inner_arena - d->scalars));
    text_printf(c,
                "static mx_status %s_mx_end(struct %s *m, const char *where) {\n"
                "    for (int i = 0; i < %s_BUFFER_COUNT; i++)\n        if (m->mx_viewed[i])\n"
                "            MX_TRY(%s_mx_move(m, i, 0, where));\n"
                "    MX_TRY(%s_mx_cuda(m, cudaStreamSynchronize(m->mx_stream[0]), where));\n"
                "    MX_TRY(%s_mx_cuda(m, cudaStreamSynchronize(m->mx_stream[%d]), where));\n"
                "    for (int i = 0; i < m->mx_taken_count; i++)\n"
                "        memcpy(m->mx_taken[i].to, m->mx_taken[i].from, m->mx_taken[i].bytes);\n%s"
                "    return MX_OK;\n}\n\n",
                p, p, up, p, p, p, CUDA_LANES,
                d->ahead_bytes ? arena_printf(&u->g.arena, "    %s_mx_sent_done(m);\n", p) : "");
}

/* The loader's thread makes one batch while a call works on another, so there are two places. They are free again when the call that
 * used them has ended, for only then the host knows that the copy out of the pinned memory has, too. */
void unit_cuda_ahead(struct unit *u) {
    const struct cuda *d = u->g.cuda;
    if (!d->ahead_bytes)
        return;
    text_printf(
        &u->c,
        "static void mx_program_ahead(void *model, const struct mxrt_function *f, void *const *args, const size_t *bytes) {\n"
        "    %s *m = (%s *)model;\n    const int64_t places[2] = {%lld, %lld};\n    size_t at = 0;\n    int k = 0;\n"
        "    if (!args) { /* no call is under way, and none will ask for them */\n"
        "        (void)cudaStreamSynchronize(m->mx_stream[%d]);\n"
        "        m->mx_ahead[0].state = m->mx_ahead[1].state = 0;\n        return;\n    }\n"
        "    while (k < 2 && __atomic_load_n(&m->mx_ahead[k].state, __ATOMIC_ACQUIRE) != 0)\n        k++;\n"
        "    if (k == 2)\n        return;\n    m->mx_ahead[k].count = 0;\n"
        "    for (int i = 0; i < f->arg_count; i++) {\n"
        "        unsigned char *pinned = m->mx_ahead_pinned + k * (size_t)%lld + at;\n"
        "        if (!args[i] || f->args[i].rank == 0 || f->args[i].is_inout || bytes[i] == 0 || at + bytes[i] > %lld || m->mx_ahead[k].count == %d)\n"
        "            continue;\n"
        "        memcpy(pinned, args[i], bytes[i]);\n"
        "        if (cudaMemcpyAsync(MX_AT(m->mx_device + places[k] + at, bytes[i]), pinned, bytes[i], cudaMemcpyDefault, m->mx_stream[%d]) !=\n"
        "            cudaSuccess)\n            return; /* the call copies for itself, and says what is wrong */\n"
        "        m->mx_ahead[k].args[m->mx_ahead[k].count].from = args[i];\n"
        "        m->mx_ahead[k].args[m->mx_ahead[k].count].bytes = bytes[i];\n"
        "        m->mx_ahead[k].args[m->mx_ahead[k].count++].at = at;\n"
        "        at += (bytes[i] + 255) / 256 * 256;\n    }\n"
        "    if (cudaEventRecord(m->mx_event[%d + k], m->mx_stream[%d]) == cudaSuccess)\n"
        "        __atomic_store_n(&m->mx_ahead[k].state, 1, __ATOMIC_RELEASE);\n}\n\n",
        u->prefix, u->prefix, (long long)d->ahead[0], (long long)d->ahead[1], CUDA_LANES + 1, (long long)d->ahead_bytes,
        (long long)d->ahead_bytes, AHEAD, CUDA_LANES + 1, d->event_count + 1, CUDA_LANES + 1);
}

/* In init, once the struct is there; what follows happens only if there is a device. */
void unit_cuda_init(struct unit *u) {
    const char *p = u->prefix;
    const struct cuda *d = u->g.cuda;
    text_printf(
        &u->c,
        "    m->mx_staging = base + %lld;\n"
        "    for (int i = 0; i < %d && status == MX_OK; i++)\n"
        "        status = %s_mx_cuda(m, cudaStreamCreateWithFlags(&m->mx_stream[i], cudaStreamNonBlocking), \"init\");\n"
        "    for (int i = 0; i < %d && status == MX_OK; i++)\n"
        "        status = %s_mx_cuda(m, cudaEventCreateWithFlags(&m->mx_event[i], cudaEventDisableTiming), \"init\");\n"
        "    if (status == MX_OK)\n"
        "        status = %s_mx_cuda(m, cudaHostAlloc((void **)&m->mx_pinned, %lld, cudaHostAllocDefault), \"init\");\n"
        "    if (status == MX_OK)\n"
        "        status = %s_mx_cuda(m, cudaMalloc((void **)&m->mx_device, %s_DEVICE_BYTES), \"init\");\n",
        (long long)unit_staging_offset(u), stream_count(d), p, event_count(d), p, p, (long long)pinned_bytes(u), p,
        u->upper);
    unit_cuda_library_init(u);
    unit_cuda_convolution_init(u);
    if (d->outside)
        text_printf(
            &u->c,
            "    if (status == MX_OK)\n"
            "        status = %s_mx_cuda(m, cudaHostAlloc((void **)&m->mx_outside, %s_PINNED_BYTES, cudaHostAllocMapped), \"init\");\n",
            p, u->upper);
    for (int i = 0; i < u->module->buffer_count; i++)
        if (unit_is_outside(u, i))
            text_printf(&u->c, "    m->%s = (%s *)(void *)(m->mx_outside + %lld);\n",
                        cgen_buffer_field(&u->g, u->module->buffers[i]), cgen_c_type(u->module->buffers[i]->type.dtype),
                        (long long)d->buffer[i]);
    if (d->ahead_bytes)
        text_printf(
            &u->c,
            "    if (status == MX_OK)\n"
            "        status = %s_mx_cuda(m, cudaHostAlloc((void **)&m->mx_ahead_pinned, %lld, cudaHostAllocDefault), \"init\");\n",
            p, (long long)(2 * d->ahead_bytes));
    unit_cuda_exchange_init(u);
}

void unit_cuda_free(struct unit *u) {
    const struct cuda *d = u->g.cuda;
    unit_cuda_exchange_free(u);
    text_printf(&u->c, "    if (m) {\n");
    if (d->parts)
        text_printf(&u->c,
                    "        for (int i = 0; i < %d; i++)\n            if (m->mx_graphs[i / %d][i %% %d].exec)\n"
                    "                (void)cudaGraphExecDestroy(m->mx_graphs[i / %d][i %% %d].exec);\n",
                    d->parts * GRAPHS, GRAPHS, GRAPHS, GRAPHS, GRAPHS);
    unit_cuda_library_free(u);
    unit_cuda_convolution_free(u);
    text_printf(
        &u->c,
        "        for (int i = 0; i < %d; i++)\n            if (m->mx_event[i])\n                (void)cudaEventDestroy(m->mx_event[i]);\n"
        "        for (int i = 0; i < %d; i++)\n            if (m->mx_stream[i])\n                (void)cudaStreamDestroy(m->mx_stream[i]);\n"
        "        if (m->mx_pinned)\n            (void)cudaFreeHost(m->mx_pinned);\n"
        "        if (m->mx_device)\n            (void)cudaFree(m->mx_device);\n    }\n",
        event_count(d), stream_count(d));
    if (d->outside)
        text_add(&u->c, "    if (m && m->mx_outside)\n        (void)cudaFreeHost(m->mx_outside);\n");
    if (d->ahead_bytes)
        text_add(&u->c, "    if (m && m->mx_ahead_pinned)\n        (void)cudaFreeHost(m->mx_ahead_pinned);\n");
}
