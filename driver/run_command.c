/* `mxcc run`: the program's command line over the eager interpreter; and weights from an eager instance. */
#include <stdio.h>
#include <string.h>

#include "driver/driver.h"
#include "driver/eager_program.h"
#include "mxrt/checkpoint.h"

int run_command(int argc, char **argv) {
    struct options o;
    struct pipeline p;
    if (!options_parse(&o, 'r', argc, argv))
        return EXIT_USAGE;
    if (!pipeline_load(&p, &o, o.inputs.at[0]) || !pipeline_precision(&p))
        return pipeline_end(&p, false);
    print_diagnostics(&o, &p.diag);
    struct mxrt_program program = eager_program(p.module);
    char **args = ARENA_ARRAY(&o.arena, char *, o.rest.n + 2);
    args[0] = argv[0];
    for (int i = 0; i < o.rest.n; i++)
        args[i + 1] = o.rest.at[i];
    int status = mxrt_main(&program, o.rest.n + 1, args);
    ir_module_free(p.module);
    diag_free(&p.diag);
    arena_free(&o.arena);
    return status;
}

bool save_weights(const struct ir_module *m, struct eager *e, const char *path) {
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
