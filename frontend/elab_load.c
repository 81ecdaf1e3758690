/* Constants from files: `load("weights.safetensors", "conv1.weight")`. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "frontend/elab.h"
#include "frontend/tensor_file.h"

struct val elab_load_file(struct elab *e, const char *path, const char *name, struct span at) {
    const char *from = at.source ? at.source->path : "", *slash = strrchr(from, '/'), *full = path;
    if (path[0] != '/' && slash)
        full = arena_printf(e->arena, "%.*s/%s", (int)(slash - from), from, path);
    size_t size;
    errno = 0;
    char *file = file_read(full, &size);
    diag_note_file(e->diag, full);
    if (!file) {
        elab_error(e, E_load, at, "cannot read `%s`: %s", full, strerror(errno));
        return val_error;
    }
    struct file_tensor t;
    const char *why = tensor_file_read(e->arena, full, file, size, name, &t);
    struct val v = val_error;
    if (why) {
        elab_error(e, E_load, at, "cannot load from `%s`: %s", full, why);
    } else {
        ir_dim dims[TENSOR_FILE_MAX_RANK + 1];
        for (int d = 0; d < t.rank; d++)
            dims[d] = ir_dim_const(e->module, t.dims[d]);
        struct file_data *data = ARENA_NEW(e->arena, struct file_data);
        data->type = ir_type_make(e->module, t.dtype, t.rank, dims);
        data->bytes = arena_copy(&e->module->arena, t.bytes, t.size);
        data->name = name ? arena_strdup(&e->module->arena, name) : NULL;
        v = (struct val){.kind = VAL_DATA, .data = data};
        if (e->in_function)
            v = elab_from_value(e, ir_build_const(&e->b, data->type, data->bytes));
    }
    free(file);
    return v;
}
