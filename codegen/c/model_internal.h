/* What the files that print a model's unit share: model.c the order of the whole, the rest one part each. */
#ifndef MXCC_CODEGEN_C_MODEL_INTERNAL_H
#define MXCC_CODEGEN_C_MODEL_INTERNAL_H

#include "codegen/codegen.h"
#include "codegen/interface.h"

/* One unit being printed. */
struct unit {
    struct cgen g;
    struct ir_module *module;
    const struct compile_options *options;
    const char *prefix, *upper;  /* digits, DIGITS */
    bool *written;               /* [buffer_count] some function but init writes it */
    bool *shared;                /* [buffer_count] never in the instance: constant data, or the caller's */
    bool incremental;            /* some function is: buffers have versions, and the instance a cache */
    const struct ir_func *reset; /* the hidden function behind reset_all; NULL if there are no states */
    struct interface interface;
    struct text c, h;
};

int64_t unit_offset(const struct unit *u,
                    const struct ir_buffer *until); /* of a buffer from the instance's first byte; NULL: the arena */
bool unit_is_outside(const struct unit *u, int buffer); /* CUDA: in pinned memory, not the instance's */
int64_t unit_cache_offset(const struct unit *u);
int64_t unit_staging_offset(const struct unit *u); /* CUDA */
int64_t unit_memory(const struct unit *u);
int64_t unit_weights(const struct unit *u); /* bytes of all params */
/* `f32[N, 10]` for comments and `float *y` for declarations. */
void unit_type_comment(struct unit *u, struct text *out, struct ir_type t);
/* A function of the interface as C declares it, without the semicolon. */
void unit_signature(struct unit *u, struct text *out, const struct interface_call *c);

/* The step in parts; NULL if there are none. */
const struct step_split *unit_split_step(const struct unit *u);

/* model_incremental.c: incremental functions, and the versions of buffers that they compare. */
const struct plan_incremental *unit_incremental(const struct unit *u, const struct ir_func *f);
int64_t unit_incremental_bytes(const struct unit *u); /* of the struct */
void unit_incremental_struct(struct unit *u);
void unit_incremental_init(struct unit *u);
void unit_incremental_header(struct unit *u, const struct interface_function *f);
void unit_incremental_function(struct unit *u, const struct ir_func *f);
void unit_incremental_call(struct unit *u, const struct ir_func *f); /* of the program around the model */
/* New versions of what f writes; of all buffers, or all states. */
void unit_touch(struct unit *u, const struct ir_func *f);
void unit_touch_all(struct unit *u, bool states_only);
/* How public functions begin: pointers and the limits of dimensions. */
bool unit_may_be_empty(struct ir_type t); /* then its pointer may be null */
void unit_check_pointer(struct unit *u, const struct ir_func *f, const char *name, struct ir_type t);
void unit_check_symbol(struct unit *u, const struct ir_func *f, const struct ir_symbol *s);
void unit_check_results(struct unit *u, const struct ir_func *f);

void unit_header(struct unit *u);   /* model_header.c */
void unit_instance(struct unit *u); /* model_init.c: struct, failure, sizes, init, free, reset_all */
void unit_init(struct unit *u);
/* codegen/cuda/unit.c: what a CUDA unit has more. */
void unit_cuda_includes(const struct unit *u, struct text *out);
int64_t unit_cuda_struct_bytes(const struct unit *u);
void unit_cuda_struct(struct unit *u);
void unit_cuda_helpers(struct unit *u);
void unit_cuda_buffers(struct unit *u); /* after the table of buffers */
void unit_cuda_init(struct unit *u);
void unit_cuda_free(struct unit *u);
/* codegen/cuda/exchange.c: the same for a train step over ranks; nothing without one. */
int64_t unit_cuda_exchange_bytes(const struct unit *u); /* of the struct */
void unit_cuda_exchange_struct(struct unit *u);
void unit_cuda_exchange_init(struct unit *u);
void unit_cuda_exchange_free(struct unit *u);
void unit_cuda_exchange_helpers(struct unit *u);
void unit_cuda_exchange_hooks(struct unit *u);
void unit_cuda_ahead(struct unit *u);   /* --main: arguments of the next call, copied beside the one under way */
void unit_weights_data(struct unit *u); /* model_weights.c: constants of --weights source */
void unit_files(struct unit *u);        /* model_files.c: table of buffers, param, save, load */
void unit_functions(struct unit *u);    /* model_functions.c: the public functions with their checks */
void unit_free_prefix(struct text *unit, const char *prefix); /* unit_names.c: no local is called like the model */
/* Past a comment, a string, a character or a preprocessor line that begins at s; s itself if none does. */
const char *unit_skip_literal(const char *s, bool line_start);
/* split.c: the unit in files; `before`: includes, struct and helpers; u->c: what follows the model's functions. */
void unit_split(struct unit *u, const char *before, struct c_unit *out);
void unit_main(struct unit *u);                  /* model_main.c: the descriptor for --main */
void unit_ranks(struct unit *u);                 /* model_ranks.c: the step in parts, for training over ranks */
void unit_dtype(struct text *c, enum dtype t);   /* MX_F32 */
void unit_quoted(struct text *c, const char *s); /* a C string; NULL for NULL */
bool unit_needs_zlib(const struct ir_module *m); /* the train block names packed files */

/* The text of a file that units carry: "status.h", "safetensors.h", "philox.h"; without its include lines of own files. */
const char *embedded_text(const char *name);

#endif
