/* A train step over ranks on a GPU (codegen/c/exchange.c): how a key's tensor leaves the device while the backward pass goes on, and
 * where the parts that change the model work meanwhile.
 *
 * The host is far ahead of the device: it has launched the whole backward pass when the first gradient is computed. So `final`
 * cannot stand where the operation is launched, as in C. There a copy to the host is put on a stream of its own, behind an
 * event; `final` is called when the copy has ended, in the order of the copies, at later such places or behind the last launch.
 *
 * With --nccl averages are made on the devices, and the copy is one into the memory that is summed: nccl.c.
 *
 * What applies averages run inside the next call of `gradients`, whose memory on the device is in use: it has a region of
 * its own. Nobody waits for it; what follows on the stream sees what it changed.
 */
#include "codegen/c/model_internal.h"
#include "codegen/cuda/cuda.h"

bool cuda_is_inner(const struct cgen *g, const struct ir_func *func) {
    const struct step_split *s = cgen_split(g, func);
    return s && func != s->gradients && func != s->report;
}

bool cuda_hands_out(const struct function *f) {
    const struct step_split *s = function_split(f);
    return s && f->func == s->gradients;
}

bool cuda_is_key(const struct function *f, int result) {
    const struct step_split *s = function_split(f);
    return cuda_hands_out(f) && result >= f->func->result_count - s->key_count;
}

void cuda_hand_out(struct function *f, int key, int result) {
    struct cgen *g = f->g;
    const struct ir_value *v = f->func->body->yields[result];
    function_begin(f);
    const struct loop_mem *m = function_mem(f, v);
    struct text dtype = {0};
    unit_dtype(&dtype, v->type.dtype);
    if (cuda_averages(g))
        cprint_line(&f->print, "MX_TRY(%s_mx_hand_out(m, %d, %s, %s, %s, %s, \"%s: %s\"));", g->prefix, key,
                    cgen_result_name(g, f->func, result), m->base, function_expr(f, function_elements(f, v->type)),
                    text_string(&dtype), f->func->name, cgen_result_name(g, f->func, result));
    else
        cprint_line(&f->print, "MX_TRY(%s_mx_hand_out(m, %d, %s, %s, (size_t)(%s) * %d, \"%s: %s\"));", g->prefix, key,
                    cgen_result_name(g, f->func, result), m->base, function_expr(f, function_elements(f, v->type)),
                    dtype_size(v->type.dtype), f->func->name, cgen_result_name(g, f->func, result));
    text_free(&dtype);
    cgen_scope_leave(g, f->scope);
}

int64_t unit_cuda_exchange_bytes(const struct unit *u) {
    const struct step_split *s = unit_split_step(u);
    return s ? 32 + 12 * (int64_t)(s->key_count + 1) + unit_cuda_nccl_bytes(u) : 0;
}

void unit_cuda_exchange_struct(struct unit *u) {
    const struct step_split *s = unit_split_step(u);
    if (s)
        text_printf(
            &u->c,
            "    cudaStream_t mx_copies;       /* of gradients to the host */\n"
            "    cudaEvent_t mx_made, mx_out[%d]; /* the last gradient; copies of keys' tensors */\n"
            "%s",
            s->key_count + 1,
            cuda_averages(&u->g)
                ? "    int mx_last; /* key of this step that was handed out; -1: none */\n"
                : arena_printf(
                      &u->g.arena,
                      "    int mx_leaving[%d], mx_left, mx_leaving_count; /* keys on their way, those that arrived first */\n",
                      s->key_count + 1));
    unit_cuda_nccl_struct(u);
}

void unit_cuda_exchange_init(struct unit *u) {
    const struct step_split *s = unit_split_step(u);
    const char *p = u->prefix;
    if (!s)
        return;
    text_printf(
        &u->c,
        "    if (status == MX_OK)\n"
        "        status = %s_mx_cuda(m, cudaStreamCreateWithFlags(&m->mx_copies, cudaStreamNonBlocking), \"init\");\n"
        "    if (status == MX_OK)\n"
        "        status = %s_mx_cuda(m, cudaEventCreateWithFlags(&m->mx_made, cudaEventDisableTiming), \"init\");\n"
        "    for (int mx_i = 0; mx_i < %d && status == MX_OK; mx_i++)\n"
        "        status = %s_mx_cuda(m, cudaEventCreateWithFlags(&m->mx_out[mx_i], cudaEventDisableTiming), \"init\");\n",
        p, p, s->key_count, p);
}

void unit_cuda_exchange_free(struct unit *u) {
    const struct step_split *s = unit_split_step(u);
    unit_cuda_nccl_free(u);
    if (s)
        text_printf(&u->c,
                    "    if (m && m->mx_copies)\n        (void)cudaStreamDestroy(m->mx_copies);\n"
                    "    if (m && m->mx_made)\n        (void)cudaEventDestroy(m->mx_made);\n"
                    "    for (int mx_i = 0; m && mx_i < %d; mx_i++)\n        if (m->mx_out[mx_i])\n"
                    "            (void)cudaEventDestroy(m->mx_out[mx_i]);\n",
                    s->key_count);
}

void unit_cuda_exchange_helpers(struct unit *u) {
    const char *p = u->prefix;
    if (!unit_split_step(u))
        return;
    if (cuda_averages(&u->g)) {
        unit_cuda_nccl_hand_out(u);
        return;
    }
    text_printf(
        &u->c,
        "/* Calls `final` for the keys whose copies have ended; with `all` it waits for them. */\n"
        "static mx_status %s_mx_handed(struct %s *m, int all) {\n"
        "    for (; m->mx_left < m->mx_leaving_count; m->mx_left++) {\n"
        "        const int key = m->mx_leaving[m->mx_left];\n"
        "        const cudaError_t e = all ? cudaEventSynchronize(m->mx_out[key]) : cudaEventQuery(m->mx_out[key]);\n"
        "        if (e == cudaErrorNotReady) {\n            (void)cudaGetLastError(); /* which is none */\n            break;\n        }\n"
        "        MX_TRY(%s_mx_cuda(m, e, \"a gradient to the host\"));\n"
        "        m->mx_exchange->final(m->mx_exchange->context, key);\n    }\n    return MX_OK;\n}\n\n",
        p, p, p);
    text_printf(
        &u->c,
        "/* A key's tensor to the host, while the device goes on. */\n"
        "static mx_status %s_mx_hand_out(struct %s *m, int key, void *to, const void *from, size_t bytes, const char *where) {\n"
        "    MX_TRY(%s_mx_cuda(m, cudaEventRecord(m->mx_made, m->mx_stream[0]), where));\n"
        "    MX_TRY(%s_mx_cuda(m, cudaStreamWaitEvent(m->mx_copies, m->mx_made, 0), where));\n"
        "    MX_TRY(%s_mx_cuda(m, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, m->mx_copies), where));\n"
        "    MX_TRY(%s_mx_cuda(m, cudaEventRecord(m->mx_out[key], m->mx_copies), where));\n"
        "    m->mx_leaving[m->mx_leaving_count++] = key;\n    return %s_mx_handed(m, 0);\n}\n\n",
        p, p, p, p, p, p, p);
}

void unit_cuda_exchange_hooks(struct unit *u) {
    text_printf(&u->c,
                "static mx_status mx_split_wait(void *model) {\n    %s *m = (%s *)model;\n"
                "    return %s_mx_wait(m, m->mx_stream[0], \"averages\");\n}\n\n",
                u->prefix, u->prefix, u->prefix);
    text_add(
        &u->c,
        "static void mx_split_use_device(int local_rank) {\n    int count = 0;\n"
        "    if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0)\n"
        "        (void)cudaSetDevice(local_rank % count);\n    (void)cudaGetLastError();\n}\n\n"
        "static void mx_split_pin(void *memory, size_t bytes, bool on) {\n"
        "    (void)(on ? cudaHostRegister(memory, bytes, cudaHostRegisterPortable) : cudaHostUnregister(memory));\n"
        "    (void)cudaGetLastError();\n}\n\n");
    unit_cuda_nccl_hooks(u);
}
