/* --weights source and file: the initial values of all buffers, from an eager instance whose initializers ran. */
#include <string.h>

#include "driver/driver.h"
#include "eager/eager.h"
#include "mxrt/checkpoint.h"

/* The buffers as a safetensors file. False after an error printed. */
static bool save(const struct ir_module *m, struct eager *e, const char *path) {
    struct arena a = {0};
    struct mxrt_named *named = ARENA_ARRAY(&a, struct mxrt_named, m->buffer_count + 1);
    for (int i = 0; i < m->buffer_count; i++) {
        struct tensor *t = eager_buffer(e, m->buffers[i]->name);
        named[i] = (struct mxrt_named){
            m->buffers[i]->name,
            {(mx_dtype)t->dtype, t->rank, t->dims, t->data, (size_t)(tensor_elements(t) * dtype_size(t->dtype))}};
    }
    const char *metadata[1][2] = {{"model", m->name}};
    struct mxrt_why why;
    mx_status status = mxrt_checkpoint_write(path, named, m->buffer_count, (const char *const(*)[2])metadata, 1, &why);
    if (status != MX_OK)
        fprintf(stderr, "mxcc: %s\n", why.text);
    arena_free(&a);
    return status == MX_OK;
}

/* Beside the output, named after the prefix. */
static bool weights_file(struct pipeline *p, struct eager *e) {
    struct options *o = p->options;
    const char *slash = strrchr(o->output, '/');
    return save(p->module, e,
                arena_printf(&o->arena, "%.*s%s.safetensors", slash ? (int)(slash - o->output) + 1 : 0, o->output,
                             o->compile.name));
}

static void weights_source(struct pipeline *p, struct eager *e) {
    struct ir_module *m = p->module;
    const void **data = ARENA_ARRAY(&m->arena, const void *, m->buffer_count + 1);
    for (int i = 0; i < m->buffer_count; i++) {
        struct tensor *t = eager_buffer(e, m->buffers[i]->name);
        data[i] = arena_copy(&m->arena, t->data, (size_t)ir_type_bytes_upper(m->buffers[i]->type));
    }
    p->options->compile.weight_data = data;
}

bool pipeline_weights(struct pipeline *p) {
    enum { LARGEST = 1 << 20 };
    const struct compile_options *o = &p->options->compile;
    struct ir_module *m = p->module;
    if (o->weights != WEIGHTS_SOURCE && o->weights != WEIGHTS_FILE)
        return true;
    int64_t bytes = 0;
    for (int i = 0; i < m->buffer_count; i++)
        bytes += ir_type_bytes_upper(m->buffers[i]->type);
    if (o->weights == WEIGHTS_SOURCE && bytes > LARGEST) {
        struct diagnostic *e =
            diag_error(&p->diag, E_weights_too_large, (struct span){0},
                       "--weights source: %lld bytes of weights are too many for C text", (long long)bytes);
        diag_help(&p->diag, e, "--weights file or --weights caller");
        return false;
    }
    struct eager *e = eager_new(m, 0);
    if (!e) {
        diag_error(&p->diag, E_init_failed, (struct span){0}, "the initializers failed: %s", eager_error(NULL));
        return false;
    }
    bool ok = true;
    if (o->weights == WEIGHTS_FILE)
        ok = weights_file(p, e);
    else
        weights_source(p, e);
    eager_free(e);
    return ok;
}
