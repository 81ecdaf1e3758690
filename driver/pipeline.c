/* The stages in order: read, elaborate, passes, C. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/codegen.h"
#include "codegen/cuda/offload.h"
#include "driver/driver.h"
#include "frontend/elaborate.h"
#include "ir/text.h"
#include "passes/memplan/report.h"
#include "passes/mutation/deps.h"

const char *stem_of(struct arena *a, const char *path) {
    const char *slash = strrchr(path, '/');
    char *stem = arena_strdup(a, slash ? slash + 1 : path);
    char *dot = strrchr(stem, '.');
    if (dot && dot != stem)
        *dot = 0;
    return stem;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

const struct source *pipeline_source(struct diag *d, const char *path) {
    size_t bytes;
    char *text = file_read(strcmp(path, "-") == 0 ? "/dev/stdin" : path, &bytes);
    if (!text) {
        diag_error(d, E_cannot_read, (struct span){0}, "cannot read %s: %s", path, strerror(errno));
        return NULL;
    }
    if (bytes > UINT32_MAX - 1) {
        diag_error(d, E_cannot_read, (struct span){0}, "cannot read %s: larger than 4 GiB", path);
        free(text);
        return NULL;
    }
    const struct source *s = diag_add_source(d, path, text, bytes);
    diag_note_file(d, path);
    free(text);
    crash_source(s);
    return s;
}

void print_diagnostics(const struct options *o, struct diag *d) {
    if (o->no_warnings) { /* unlink them: nothing else reads the list any more */
        for (struct diagnostic **at = &d->first; *at;)
            if ((*at)->severity == SEVERITY_WARNING)
                *at = (*at)->next;
            else
                at = &(*at)->next;
    }
    if (o->json)
        diag_print_json(d, stderr);
    else
        diag_print(d, stderr, options_colour(o));
}

static void verify(struct pipeline *p, const char *when) {
    struct text why = {0}, message = {0};
    if (ir_verify(p->module, &why))
        return;
    text_printf(&message, "the IR is broken %s: %s", when, text_string(&why));
    crash_report(text_string(&message));
}

/* The plan against a liveness of its own making, the dependences against every pair of accesses. */
static void validate(struct pipeline *p) {
    struct text why = {0}, message = {0};
    for (int i = 0; i < p->passes.plan->func_count; i++) {
        const struct plan_func *f = &p->passes.plan->funcs[i];
        struct arena a = {0};
        bool good = plan_validate(f, &why) && plan_validate_workspaces(&p->passes, f, &why) &&
                    deps_check(deps_new(f, &a), &why);
        arena_free(&a);
        if (good)
            continue;
        text_printf(&message, "the memory plan of %s is wrong: %s", f->func->name, text_string(&why));
        crash_report(text_string(&message));
    }
}

bool pipeline_load(struct pipeline *p, struct options *o, const char *path) {
    *p = (struct pipeline){.options = o};
    diag_init(&p->diag);
    p->diag.warnings_as_errors = o->warnings_as_errors;
    p->source = pipeline_source(&p->diag, path);
    if (!p->source)
        return false;
    if (!o->compile.name)
        o->compile.name = o->name ? o->name
                                  : stem_of(&o->arena, o->output                ? o->output
                                                       : strcmp(path, "-") == 0 ? "model"
                                                                                : path);
    const char *identifier = cgen_identifier(&o->arena, o->compile.name);
    if (strcmp(identifier, o->compile.name) != 0 && o->name) {
        diag_error(&p->diag, E_bad_prefix, (struct span){0}, "--name %s cannot begin C identifiers", o->name);
        return false;
    }
    o->compile.name = identifier;
    if (ends_with(path, ".mxir")) {
        p->module = ir_parse(&p->diag, p->source);
        if (p->module)
            p->module->name = arena_strdup(&p->module->arena, o->compile.name);
    } else {
        struct elaborate_options e = {.name = o->compile.name,
                                      .stdlib_dirs = o->stdlib_dirs.n ? o->stdlib_dirs.at : NULL,
                                      .binds = o->binds.n ? o->binds.at : NULL,
                                      .unchecked = o->compile.unchecked,
                                      .check_all = o->command == 'k'};
        p->module = elaborate_file(&p->diag, p->source, &e);
    }
    if (!p->module || p->diag.errors)
        return false;
    verify(p, "after elaboration");
    return true;
}

/* `reset_all` is init without the writes to params: a hidden function of its own, so that it is planned like any other. For f16 a pass may
 * add states. */
static void add_reset(struct ir_module *m, enum precision precision) {
    bool states = precision == PRECISION_F16;
    for (int i = 0; i < m->buffer_count; i++)
        states |= m->buffers[i]->kind == BUFFER_STATE;
    if (!states || !m->init)
        return;
    struct ir_func *f = ir_func_new(m, "reset_all", m->init->span);
    f->uses_random = m->init->uses_random;
    struct ir_builder b = {.module = m, .func = f, .region = f->body, .span = m->init->span};
    ir_inline_region(&b, m->init->body, NULL, NULL);
    for (struct ir_op *op = f->body->first, *next; op; op = next) {
        next = op->next;
        if (op->code == OP_write && op->buffer.buffer->kind == BUFFER_PARAM)
            ir_op_remove(op);
    }
    ir_module_add_func(m, f);
}

static bool wants_reset(const struct options *o) {
    return o->command == 'b' || (o->command == 'c' && o->emit == EMIT_C);
}

struct holder {
    const struct plan_func *plan;
    const struct storage *storage;
    const struct ir_op *op; /* the first that makes a value there */
};

static void find_holder(struct ir_op *op, void *context) {
    struct holder *h = context;
    for (int i = 0; i < op->result_count && !h->op; i++)
        if (h->plan->of_value[op->results[i]->id] == h->storage)
            h->op = op;
}

/* What holds a function at its peak. */
static void explain_limit(struct pipeline *p, struct diagnostic *e, const struct plan_func *f, int64_t enough) {
    enum { SHOWN = 4 };
    struct storage **live = ARENA_ARRAY(&p->options->arena, struct storage *, f->storage_count + 1);
    int when, count = plan_at_peak(f, live, &when);
    struct text holds = {0};
    for (int i = 0; i < count && i < SHOWN; i++) {
        struct holder h = {f, live[i], live[i]->op};
        ir_walk_ops(f->func->body, find_holder, &h);
        text_printf(&holds, "%s%s ", i ? ", " : "", live[i]->name ? live[i]->name : "a value");
        plan_bytes(&holds, live[i]->bytes);
        if (h.op && h.op->span.source) {
            int line, column;
            span_position(h.op->span, &line, &column);
            text_printf(&holds, " (%s:%d)", h.op->span.source->path, line);
        }
    }
    if (count > SHOWN)
        text_printf(&holds, " and %d smaller ones", count - SHOWN);
    if (count)
        diag_note(&p->diag, e, (struct span){0}, "alive at its peak: %s", text_string(&holds));
    text_free(&holds);
    diag_help(&p->diag, e,
              p->options->compile.no_recompute
                  ? "--memory-limit %lld is enough for all functions; without --no-recompute values are computed again "
                    "instead of kept"
                  : "that is the least that recomputation reaches: --memory-limit %lld is enough for all functions; "
                    "smaller largest dimensions need less",
              (long long)enough);
}

/* What recomputation is to reach. On a GPU the limit holds for all that an instance takes there. */
static void set_limits(struct pipeline *p) {
    struct compile_options *o = &p->options->compile;
    o->arena_limit = o->memory_limit;
    o->arena_limit_alone = 0;
    if (o->target != TARGET_CUDA || o->memory_limit <= 0)
        return;
    int64_t left = o->memory_limit - cuda_fixed_bytes(p->module, o);
    int64_t more = offload_bytes(p->module, offload_candidates(p->module));
    o->arena_limit = left > 1 ? left : 1;
    o->arena_limit_alone = left + more > 1 ? left + more : 1;
}

/* State leaves the device's memory as far as it must. */
static bool within_device(struct pipeline *p) {
    struct compile_options *o = &p->options->compile;
    struct plan *plan = p->passes.plan;
    int64_t total = cuda_device_bytes(p->module, plan, o);
    if (total <= o->memory_limit)
        return true;
    bool *candidates = offload_candidates(p->module);
    plan->is_offloaded = offload_choose(p->module, candidates, total - o->memory_limit);
    int64_t least = cuda_device_bytes(p->module, plan, o);
    if (least <= o->memory_limit)
        return true;
    struct diagnostic *e = diag_error(&p->diag, E_memory_limit, (struct span){0},
                                      "an instance needs %lld bytes of the GPU's memory, --memory-limit is %lld",
                                      (long long)least, (long long)o->memory_limit);
    int64_t buffers = 0, moved = offload_bytes(p->module, plan->is_offloaded);
    for (int i = 0; i < p->module->buffer_count; i++)
        buffers += ir_type_bytes_upper(p->module->buffers[i]->type);
    diag_note(
        &p->diag, e, (struct span){0},
        "params and states are %lld bytes, of which %lld go to the host's memory; working memory is %lld; the rest is "
        "for arguments and results",
        (long long)buffers, (long long)moved, (long long)plan->arena_bytes);
    const struct plan_func *f = &plan->funcs[0];
    for (int i = 0; i < plan->func_count; i++)
        f = plan->funcs[i].arena_bytes > f->arena_bytes ? &plan->funcs[i] : f;
    explain_limit(p, e, f, least);
    return false;
}

/* What no process can address: sizes near 2^60 are no numbers of bytes but the end of the compiler's arithmetic. */
static bool within_addresses(struct pipeline *p) {
    const int64_t most = (int64_t)1 << 47;
    const struct plan *plan = p->passes.plan;
    for (int i = 0; plan && i < plan->func_count; i++) {
        const struct ir_func *f = plan->funcs[i].func;
        if (plan->funcs[i].arena_bytes < most)
            continue;
        struct diagnostic *e =
            diag_error(&p->diag, E_too_much_memory, f->span, "the working memory of %s is more than 128 TiB", f->name);
        for (int k = 0; k < f->symbol_count; k++)
            diag_note(&p->diag, e, (struct span){0}, "it is planned for %s = %lld", f->symbols[k]->name,
                      (long long)f->symbols[k]->hi);
        diag_help(&p->diag, e, "give the dimensions smaller largest values");
    }
    int64_t bytes = 0;
    for (int i = 0; i < p->module->buffer_count && bytes < most; i++)
        bytes += ir_type_bytes_upper(p->module->buffers[i]->type);
    if (bytes >= most)
        diag_error(&p->diag, E_too_much_memory, (struct span){0}, "params and states take more than 128 TiB");
    return p->diag.errors == 0;
}

static bool within_limit(struct pipeline *p) {
    if (!within_addresses(p))
        return false;
    int64_t limit = p->options->compile.memory_limit;
    const struct plan *plan = p->passes.plan;
    assert(plan); /* passes that ran to the end made one */
    if (limit > 0 && p->options->compile.target == TARGET_CUDA)
        return within_device(p);
    for (int i = 0; limit > 0 && i < plan->func_count; i++) {
        const struct plan_func *f = &plan->funcs[i];
        if (f->arena_bytes <= limit)
            continue;
        struct diagnostic *e = diag_error(&p->diag, E_memory_limit, f->func->span,
                                          "%s needs %lld bytes of working memory, --memory-limit is %lld",
                                          f->func->name, (long long)f->arena_bytes, (long long)limit);
        explain_limit(p, e, f, plan->arena_bytes);
    }
    return p->diag.errors == 0;
}

bool pipeline_passes(struct pipeline *p) {
    if (wants_reset(p->options))
        add_reset(p->module, p->options->compile.precision);
    p->passes = (struct pass_context){.module = p->module,
                                      .diag = &p->diag,
                                      .options = &p->options->compile,
                                      .workspace = codegen_workspace,
                                      .own_kernel = codegen_own_kernel};
    set_limits(p);
    if (!passes_run(&p->passes) || p->diag.errors)
        return false;
    if (!p->options->compile.stop_after)
        verify(p, "after the passes");
    if (p->options->compile.verify && p->passes.plan)
        validate(p);
    if (p->options->compile.explain_copies && p->passes.plan) {
        struct text t = {0};
        plan_report_copies(&t, p->passes.plan);
        fputs(text_string(&t), stderr);
        text_free(&t);
    }
    return p->options->compile.stop_after || within_limit(p);
}

/* The interpreter computes what elaboration made, but for --precision, which passes decide. */
bool pipeline_precision(struct pipeline *p) {
    struct compile_options *o = &p->options->compile;
    if (o->precision == PRECISION_F32)
        return true;
    o->stop_after = "precision";
    p->passes = (struct pass_context){.module = p->module, .diag = &p->diag, .options = o};
    return passes_run(&p->passes) && p->diag.errors == 0;
}

bool pipeline_codegen(struct pipeline *p, struct c_unit *out) {
    return codegen_c(p->module, p->passes.plan, &p->options->compile, &p->diag, out) && !p->diag.errors;
}

bool write_unit(struct pipeline *p, const char *folder, const struct c_unit *c) {
    struct options *o = p->options;
    struct arena *a = &o->arena;
    const char *shared = codegen_part_name(a, &o->compile, -1);
    bool ok = c->count == 1 || write_output(o, arena_printf(a, "%s%s", folder, shared), &c->shared);
    for (int i = 0; ok && i < c->count; i++)
        ok = write_output(o, arena_printf(a, "%s%s", folder, codegen_part_name(a, &o->compile, i)), &c->files[i]);
    return ok && write_output(o, arena_printf(a, "%s%s", folder, o->compile.header), &c->header);
}

int pipeline_end(struct pipeline *p, bool ok) {
    print_diagnostics(p->options, &p->diag);
    int errors = p->diag.errors;
    if (p->module)
        ir_module_free(p->module);
    diag_free(&p->diag);
    arena_free(&p->options->arena);
    return ok && errors == 0 ? EXIT_OK : EXIT_MODEL;
}

bool write_output(const struct options *o, const char *path, const struct text *t) {
    (void)o;
    if (!path || strcmp(path, "-") == 0) {
        if (fwrite(text_string(t), 1, t->length, stdout) == t->length && fflush(stdout) == 0)
            return true;
        path = "standard output";
    } else if (file_write(path, text_string(t), t->length) == 0) {
        return true;
    }
    fprintf(stderr, "mxcc: cannot write %s: %s\n", path, strerror(errno));
    return false;
}
