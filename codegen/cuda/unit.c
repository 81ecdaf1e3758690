/* The instance of a CUDA unit: its stream and memory on the device, the mirrors of buffers on the host, and the few functions that
 * move bytes and say what went wrong.
 *
 * A view that `param` gave stays what it is in C: memory that the caller reads after a call and writes before one. So a buffer that
 * was viewed is copied to the device before every call and back after it; the others stay where they are.
 */
#include <string.h>

#include "codegen/c/model_internal.h"
#include "codegen/cuda/cuda.h"

void unit_cuda_includes(struct text *out) {
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
        "/* Memory of the device and its size, for tools that check accesses. */\n"
        "#ifndef MX_AT\n#define MX_AT(address, bytes) ((void *)(address))\n#define MX_FRESH(address, bytes) ((void)0)\n#endif\n"
        "#define MX_TRY(call) \\\n"
        "    do { \\\n        const mx_status mx_tried = (call); \\\n        if (mx_tried != MX_OK) \\\n            return mx_tried; \\\n    } while (0)\n\n");
}

void unit_cuda_struct(struct unit *u) {
    text_printf(
        &u->c,
        "    unsigned char *mx_device;  /* all memory on the device: buffers, working memory, arguments */\n"
        "    unsigned char *mx_staging; /* on the host, for print and C functions */\n"
        "    cudaStream_t mx_stream;\n"
        "    unsigned char mx_viewed[%d]; /* of each buffer: 1 its mirror is to be copied before the next call, 2 around every call */\n",
        u->module->buffer_count + 1);
    unit_cuda_exchange_struct(u);
}

void unit_cuda_helpers(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix;
    text_printf(
        c,
        "static mx_status %s_mx_cuda(struct %s *m, cudaError_t e, const char *where) {\n"
        "    switch (e) {\n    case cudaSuccess: return MX_OK;\n"
        "    case cudaErrorMemoryAllocation:\n"
        "        return %s_mx_fail(m, MX_ERROR_MEMORY, \"%%s: the GPU has too little memory free: %%lld bytes are needed; \"\n"
        "            \"mxcc --memory-limit makes working memory smaller\", where, (long long)%s_DEVICE_BYTES);\n"
        "    case cudaErrorNoDevice:\n    case cudaErrorInsufficientDriver:\n"
        "        return %s_mx_fail(m, MX_ERROR_DEVICE, \"%%s: no GPU that can be used: %%s\", where, cudaGetErrorString(e));\n"
        "    case cudaErrorNoKernelImageForDevice:\n    case cudaErrorInvalidDeviceFunction:\n"
        "        return %s_mx_fail(m, MX_ERROR_DEVICE, \"%%s: this program was not compiled for this GPU: nvcc -arch=native\", where);\n"
        "    default: return %s_mx_fail(m, MX_ERROR_DEVICE, \"%%s: CUDA: %%s\", where, cudaGetErrorString(e));\n    }\n}\n\n",
        p, p, p, u->upper, p, p, p);
    text_printf(
        c,
        "[[maybe_unused]] static mx_status %s_mx_copy(struct %s *m, void *to, const void *from, size_t bytes, const char *where) {\n"
        "    return bytes == 0 ? MX_OK : %s_mx_cuda(m, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, m->mx_stream), where);\n}\n\n",
        p, p, p);
    text_printf(
        c,
        "/* The same, and waits for it. */\n"
        "[[maybe_unused]] static mx_status %s_mx_fetch(struct %s *m, void *to, const void *from, size_t bytes, const char *where) {\n"
        "    MX_TRY(%s_mx_copy(m, to, from, bytes, where));\n"
        "    return %s_mx_cuda(m, cudaStreamSynchronize(m->mx_stream), where);\n}\n\n",
        p, p, p, p);
    text_printf(
        c,
        "static mx_status %s_mx_begin(struct %s *m);\nstatic mx_status %s_mx_end(struct %s *m, const char *where);\n\n",
        p, p, p, p);
    unit_cuda_exchange_helpers(u);
}

void unit_cuda_buffers(struct unit *u) {
    struct text *c = &u->c;
    const char *p = u->prefix, *up = u->upper;
    const struct cuda *d = u->g.cuda;
    text_printf(c, "static const int64_t %s_mx_offsets[] = {", p);
    for (int i = 0; i < u->module->buffer_count; i++)
        text_printf(c, "%s%lld,", i % 8 ? " " : "\n    ", (long long)u->g.cuda->buffer[i]);
    text_add(c, u->module->buffer_count ? "\n};\n\n" : "0};\n\n");
    text_printf(c,
                "/* A buffer to the device, or from there into its mirror. */\n"
                "static mx_status %s_mx_move(struct %s *m, int i, int up, const char *where) {\n    mx_tensor view;\n"
                "    %s_mx_view(m, i, &view);\n"
                "    void *device = MX_AT(m->mx_device + %s_mx_offsets[i], view.bytes);\n"
                "    return %s_mx_copy(m, up ? device : view.data, up ? view.data : device, view.bytes, where);\n}\n\n",
                p, p, p, p, p);
    text_printf(c,
                "/* All of them, but for mirrors that are newer than the device. */\n"
                "[[maybe_unused]] static mx_status %s_mx_move_all(struct %s *m, int up, const char *where) {\n"
                "    for (int i = 0; i < %s_BUFFER_COUNT; i++)\n        if (up || !m->mx_viewed[i])\n"
                "            MX_TRY(%s_mx_move(m, i, up, where));\n"
                "    return %s_mx_cuda(m, cudaStreamSynchronize(m->mx_stream), where);\n}\n\n",
                p, p, up, p, p);
    text_printf(c,
                "/* Makes a mirror current. how: 1 until the next call, 2 for good. */\n"
                "[[maybe_unused]] static mx_status %s_mx_see(struct %s *m, int i, unsigned char how) {\n"
                "    if (!m->mx_viewed[i]) {\n        MX_TRY(%s_mx_move(m, i, 0, \"param\"));\n"
                "        MX_TRY(%s_mx_cuda(m, cudaStreamSynchronize(m->mx_stream), \"param\"));\n    }\n"
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
        "static mx_status %s_mx_begin(struct %s *m) {\n    MX_TRY(%s_mx_move_newer(m));\n"
        "    MX_FRESH(m->mx_device + %lld, %lld);\n    MX_FRESH(m->mx_device + %lld, %lld);\n    return MX_OK;\n}\n\n",
        p, p, p, (long long)d->arena, (long long)(d->cache - d->arena), (long long)d->scalars,
        (long long)(d->part_arena - d->scalars));
    unit_cuda_exchange_buffers(u);
    text_printf(c,
                "static mx_status %s_mx_end(struct %s *m, const char *where) {\n"
                "    for (int i = 0; i < %s_BUFFER_COUNT; i++)\n        if (m->mx_viewed[i])\n"
                "            MX_TRY(%s_mx_move(m, i, 0, where));\n"
                "    return %s_mx_cuda(m, cudaStreamSynchronize(m->mx_stream), where);\n}\n\n",
                p, p, up, p, p);
}

/* In init, once the struct is there; what follows happens only if there is a device. */
void unit_cuda_init(struct unit *u) {
    const char *p = u->prefix;
    text_printf(
        &u->c,
        "    m->mx_staging = base + %lld;\n"
        "    status = %s_mx_cuda(m, cudaStreamCreateWithFlags(&m->mx_stream, cudaStreamNonBlocking), \"init\");\n"
        "    if (status == MX_OK)\n"
        "        status = %s_mx_cuda(m, cudaMalloc((void **)&m->mx_device, %s_DEVICE_BYTES), \"init\");\n",
        (long long)unit_staging_offset(u), p, p, u->upper);
    unit_cuda_exchange_init(u);
}

void unit_cuda_free(struct unit *u) {
    unit_cuda_exchange_free(u);
    text_add(&u->c, "    if (m && m->mx_stream)\n        (void)cudaStreamDestroy(m->mx_stream);\n"
                    "    if (m && m->mx_device)\n        (void)cudaFree(m->mx_device);\n");
}
