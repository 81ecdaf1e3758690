/* --nccl: a train step over ranks whose averages are made on the devices. The work is in runtime/embed/nccl.h, which the unit carries;
 * here is what joins it with the instance.
 *
 * A key's tensor goes from where `gradients` made it, scaled by the rank's part, into the memory that is summed: on the stream of copies,
 * behind an event, as it would go to the host. The functions that change the model read it there. Nobody waits on the host but for the
 * end of a call, which may never come once a rank is lost: so that wait is one that can be given up.
 */
#include "codegen/c/model_internal.h"
#include "codegen/cuda/cuda.h"

bool cuda_averages(const struct cgen *g) {
    const struct step_split *s = g->plan ? g->plan->split : NULL;
    return g->options->nccl && s && !s->why_not;
}

bool cuda_averaged_argument(const struct cgen *g, const struct ir_func *f, int arg) {
    const struct step_split *s = cuda_averages(g) ? cgen_split(g, f) : NULL;
    return s && f != s->gradients && f->body->args[arg]->type.rank > 0; /* the step's own are scalars */
}

int64_t unit_cuda_nccl_bytes(const struct unit *u) {
    return cuda_averages(&u->g) ? 800 : 0;
}

void unit_cuda_nccl_struct(struct unit *u) {
    if (cuda_averages(&u->g))
        text_add(&u->c, "    struct mx_nccl mx_nccl;   /* averages over ranks */\n"
                        "    void *const *mx_keys;     /* tensors that are averaged, on the device */\n");
}

void unit_cuda_nccl_free(struct unit *u) {
    if (cuda_averages(&u->g))
        text_add(&u->c, "    if (m && m->mx_nccl.joined)\n        mx_nccl_leave(&m->mx_nccl, 1);\n");
}

void unit_cuda_nccl_wait(struct unit *u) {
    const char *p = u->prefix;
    if (cuda_averages(&u->g))
        text_printf(&u->c,
                    "static mx_status %s_mx_averaged(struct %s *m, mx_status status) {\n"
                    "    return status == MX_OK ? MX_OK : %s_mx_fail(m, status, \"%%s\", m->mx_nccl.why);\n}\n\n"
                    "/* Until all on a stream is done, or averages that it waits for will not come. */\n"
                    "static mx_status %s_mx_wait(struct %s *m, cudaStream_t stream, const char *where) {\n"
                    "    cudaError_t e = cudaSuccess;\n"
                    "    if (!m->mx_nccl.comm)\n        return %s_mx_cuda(m, cudaStreamSynchronize(stream), where);\n"
                    "    MX_TRY(%s_mx_averaged(m, mx_nccl_wait(&m->mx_nccl, stream, &e)));\n"
                    "    return %s_mx_cuda(m, e, where);\n}\n\n",
                    p, p, p, p, p, p, p, p);
    else
        text_printf(
            &u->c,
            "/* Until all on a stream is done. */\n"
            "[[maybe_unused]] static mx_status %s_mx_wait(struct %s *m, cudaStream_t stream, const char *where) {\n"
            "    return %s_mx_cuda(m, cudaStreamSynchronize(stream), where);\n}\n\n",
            p, p, p);
}

void unit_cuda_nccl_hand_out(struct unit *u) {
    const char *p = u->prefix;
    text_printf(
        &u->c,
        "/* A key's share, into the memory that is summed; it may be sent as soon as it is there. */\n"
        "static mx_status %s_mx_hand_out(struct %s *m, int key, void *to, const void *from, int64_t n, mx_dtype dtype, const char *where) {\n"
        "    const size_t bytes = (size_t)n * mx_nccl_element(dtype);\n"
        "    MX_TRY(%s_mx_cuda(m, cudaEventRecord(m->mx_made, m->mx_stream[0]), where));\n"
        "    MX_TRY(%s_mx_cuda(m, cudaStreamWaitEvent(m->mx_copies, m->mx_made, 0), where));\n"
        "    MX_TRY(%s_mx_cuda(m, MX_LAUNCH(mx_nccl_scale, mx_nccl_blocks(n), MX_NCCL_THREADS, m->mx_copies, MX_AT(to, bytes), from, n, (int)dtype,\n"
        "                                   m->mx_exchange->weight), where));\n"
        "    MX_TRY(%s_mx_cuda(m, cudaEventRecord(m->mx_out[key], m->mx_copies), where));\n"
        "    m->mx_last = key;\n    m->mx_exchange->final(m->mx_exchange->context, key);\n    return MX_OK;\n}\n\n"
        "/* What the next call writes was read. */\n"
        "static mx_status %s_mx_handed(struct %s *m) {\n"
        "    return m->mx_last < 0 ? MX_OK : %s_mx_cuda(m, cudaStreamWaitEvent(m->mx_stream[0], m->mx_out[m->mx_last], 0), \"gradients\");\n}\n\n",
        p, p, p, p, p, p, p, p, p);
}

void unit_cuda_nccl_hooks(struct unit *u) {
    const char *p = u->prefix;
    struct text *c = &u->c;
    if (!cuda_averages(&u->g))
        return;
    text_printf(
        c,
        "static int mx_split_count(void) {\n    int count = 0;\n"
        "    const cudaError_t e = cudaGetDeviceCount(&count);\n    (void)cudaGetLastError();\n"
        "    return e == cudaSuccess ? count : 0;\n}\n\n"
        "static mx_status mx_split_identify(void *id, const char **why) {\n"
        "    const ncclResult_t e = ncclGetUniqueId((ncclUniqueId *)id);\n    *why = ncclGetErrorString(e);\n"
        "    return e == ncclSuccess ? MX_OK : MX_ERROR_DEVICE;\n}\n\n"
        "static mx_status mx_split_join(void *model, const struct mxrt_device_rank *rank, void **memory) {\n"
        "    %s *m = (%s *)model;\n    return %s_mx_averaged(m, mx_nccl_join(&m->mx_nccl, rank, memory));\n}\n\n",
        p, p, p);
    text_printf(
        c,
        "static mx_status mx_split_average(void *model, int bucket, size_t at, int64_t elements, mx_dtype dtype) {\n"
        "    %s *m = (%s *)model;\n"
        "    return %s_mx_averaged(m, mx_nccl_average(&m->mx_nccl, bucket, at, elements, dtype, m->mx_out[m->mx_last]));\n}\n\n"
        "static mx_status mx_split_need(void *model, int bucket) {\n    %s *m = (%s *)model;\n"
        "    return %s_mx_cuda(m, cudaStreamWaitEvent(m->mx_stream[0], m->mx_nccl.buckets[bucket].done, 0), \"averages\");\n}\n\n"
        "static mx_status mx_split_arrive(void *model) {\n    %s *m = (%s *)model;\n"
        "    return %s_mx_wait(m, m->mx_nccl.stream, \"averages\");\n}\n\n",
        p, p, p, p, p, p, p, p, p);
    text_printf(
        c,
        "static mx_status mx_split_clear(void *model, int key, void *tensor, size_t bytes) {\n    %s *m = (%s *)model;\n"
        "    MX_TRY(%s_mx_cuda(m, cudaEventRecord(m->mx_made, m->mx_stream[0]), \"no samples\"));\n"
        "    MX_TRY(%s_mx_cuda(m, cudaStreamWaitEvent(m->mx_copies, m->mx_made, 0), \"no samples\"));\n"
        "    MX_TRY(%s_mx_cuda(m, MX_LAUNCH(mx_nccl_zero, mx_nccl_blocks((int64_t)bytes / 2), MX_NCCL_THREADS, m->mx_copies,\n"
        "                                   (uint16_t *)MX_AT(tensor, bytes), (int64_t)bytes / 2), \"no samples\"));\n"
        "    m->mx_last = key;\n"
        "    return %s_mx_cuda(m, cudaEventRecord(m->mx_out[key], m->mx_copies), \"no samples\");\n}\n\n"
        "static void mx_split_leave(void *model, bool lost) {\n    %s *m = (%s *)model;\n    mx_nccl_leave(&m->mx_nccl, lost);\n}\n\n"
        "static const struct mxrt_device_exchange mx_split_device = {sizeof(ncclUniqueId), mx_split_count, mx_split_identify, mx_split_join,\n"
        "    mx_split_average, mx_split_need, mx_split_arrive, mx_split_clear, mx_split_leave};\n\n",
        p, p, p, p, p, p, p, p);
}
