/* The Python module around a unit's shared library: numpy arrays in, numpy arrays out, by ctypes.
 *
 * What is the same for all models is codegen/python/support.py, which the module carries; what is printed here is data, a
 * description of each exported function from the interface that the C header is printed from, and the methods with
 * their signatures and documentation. Printing the checks of each function as code would make the module many times as
 * long, and no test of one model would say anything about another.
 */
#include <string.h>

#include "codegen/python/python_internal.h"
#include "python_support.h"

struct module {
    struct cgen *g;
    const struct interface *interface;
    struct text *out;
    struct python_scope classes, methods;
    const char *class_name;
    const char **results; /* [function_count] the class of its results; NULL: fewer than two */
};

/* A function's names in Python. */
struct python_function {
    const struct interface_function *f;
    const char *method;
    const char **inputs;  /* [arg_count] */
    const char **symbols; /* by symbol id */
};

static const char *numpy_type(enum dtype t) {
    static const char *const types[DTYPE_COUNT] = {"float64", "float32", "float16", "uint16", "int64", "int32", "int16",
                                                   "int8",    "uint64",  "uint32",  "uint16", "uint8", "bool_"};
    return types[t];
}

static const char *number_type(enum dtype t) {
    return t == BF16 ? "int" : t == BOOL ? "bool" : dtype_is_float(t) ? "float" : "int";
}

static bool is_scalar(const struct interface_parameter *p) {
    return p->type.rank == 0 && !p->is_inout;
}

/* ---- what functions take and give --------------------------------------------------------------------------------- */

static void shape(struct module *m, const struct python_function *f, struct ir_type t, bool quoted) {
    for (int i = 0; i < t.rank; i++) {
        int64_t n;
        bool quotes = quoted && !ir_dim_is_const(t.dims[i], &n);
        text_add(m->out, i ? ", " : "");
        text_add(m->out, quotes ? "\"" : "");
        cgen_dim_python(m->g, m->out, t.dims[i], f->symbols);
        text_add(m->out, quotes ? "\"" : "");
    }
}

/* float32[N, 10], for readers. */
static void described(struct module *m, const struct python_function *f, const struct interface_parameter *p) {
    text_add(m->out, p->type.dtype == BOOL ? "bool" : numpy_type(p->type.dtype));
    if (p->type.rank || p->is_inout) {
        text_add(m->out, "[");
        shape(m, f, p->type, false);
        text_add(m->out, "]");
    }
    if (p->type.dtype == BF16)
        text_add(m->out, ", the bits of bf16");
    if (p->is_inout)
        text_add(m->out, ", updated in place");
}

static const char *result_name(const struct interface_parameter *p) {
    return p->source ? p->source : p->name;
}

static void value(struct module *m, const struct python_function *f, const struct interface_parameter *p,
                  const char *name) {
    text_printf(m->out, "_Value(\"%s\", \"%s\"", name, dtype_name(p->type.dtype));
    if (!is_scalar(p)) {
        text_add(m->out, ", (");
        shape(m, f, p->type, true);
        text_add(m->out, p->type.rank == 1 ? ",)" : ")");
    }
    text_add(m->out, p->is_inout ? ", inout=True)" : ")");
}

/* The axis of an input that is this dimension; what binds a dimension names it alone. */
static int axis_of(const struct cgen *g, struct ir_type t, const struct ir_symbol *s) {
    for (int i = 0; i < t.rank; i++)
        if (t.dims[i] == ir_dim_symbol(g->module, s))
            return i;
    return -1;
}

/* The first of the inputs from `arg` on that has the dimension says how long it is. */
static void extent(struct module *m, const struct python_function *f, const struct ir_symbol *s, int arg) {
    const struct ir_region *body = f->f->func->body;
    while (axis_of(m->g, body->args[arg]->type, s) < 0)
        arg++;
    text_printf(m->out, "_Extent(\"%s\", \"%s\", %d, %lld, %lld)", f->symbols[s->id], f->inputs[arg],
                axis_of(m->g, body->args[arg]->type, s), (long long)s->lo, (long long)s->hi);
}

static void open_list(struct module *m, bool first, const char *name) {
    if (first)
        text_printf(m->out, "            %s=[\n", name);
    text_add(m->out, "                ");
}

/* The parameters of one kind, as a list; none if there are none. `arg`: the input that dimensions come from, or the first. */
static void parameters(struct module *m, const struct python_function *f, const struct interface_call *c,
                       enum parameter_kind kind, const char *name, int arg) {
    int n = 0;
    for (int i = 0; i < c->count; i++) {
        const struct interface_parameter *p = &c->parameters[i];
        if (p->kind != kind)
            continue;
        open_list(m, n++ == 0, name);
        if (kind == PARAMETER_EXTENT)
            extent(m, f, p->symbol, arg);
        else if (kind == PARAMETER_FOUND)
            text_printf(m->out, "_Found(\"%s\", %lld)", f->symbols[p->symbol->id], (long long)p->symbol->hi);
        else
            value(m, f, p, kind == PARAMETER_INPUT ? f->inputs[p->index] : result_name(p));
        text_add(m->out, ",\n");
    }
    text_add(m->out, n ? "            ],\n" : "");
}

/* One call of C as a _Function. An incremental function itself takes no dimensions, but its results have them. */
static void call(struct module *m, const struct python_function *f, const struct interface_call *c, const char *more,
                 const char *results) {
    const struct ir_func *func = f->f->func;
    bool is_setter = c != &f->f->call;
    text_printf(m->out, "        _Function(\n            \"%s\",\n", c->name);
    parameters(m, f, c, PARAMETER_EXTENT, "extents", is_setter ? c->parameters[c->count - 1].index : 0);
    if (f->f->is_incremental && !is_setter && func->symbol_count) {
        for (int i = 0; i < func->symbol_count; i++) {
            open_list(m, i == 0, "extents");
            extent(m, f, func->symbols[i], 0);
            text_add(m->out, ",\n");
        }
        text_add(m->out, "            ],\n");
    }
    parameters(m, f, c, PARAMETER_INPUT, "inputs", 0);
    parameters(m, f, c, PARAMETER_FOUND, "found", 0);
    parameters(m, f, c, PARAMETER_RESULT, "results", 0);
    if (results)
        text_printf(m->out, "            gives=%s,\n", results);
    text_printf(m->out, "%s        ),\n", more);
}

static int count_kind(const struct interface_call *c, enum parameter_kind kind) {
    int n = 0;
    for (int i = 0; i < c->count; i++)
        n += c->parameters[i].kind == kind;
    return n;
}

/* ---- methods -------------------------------------------------------------------------------------------------------- */

/* Text of the source inside a docstring, indented by eight. */
static void document(struct text *out, const char *doc) {
    for (const char *s = doc; *s; s++) {
        if (*s == '\\')
            text_add(out, "\\\\");
        else if (strncmp(s, "\"\"\"", 3) == 0)
            text_add(out, "\\\"");
        else if (*s == '\n')
            text_add(out, s[1] == '\n' || !s[1] ? "\n" : "\n        ");
        else
            text_addn(out, s, 1);
    }
}

/* What the dimensions of a function may be. */
static void limits(struct module *m, const struct python_function *f) {
    const struct ir_func *func = f->f->func;
    const struct interface_call *c = &f->f->call;
    const char *before = "        ";
    for (int i = 0; i < func->symbol_count; i++, before = ", ")
        text_printf(m->out, "%s%lld <= %s <= %lld", before, (long long)func->symbols[i]->lo,
                    f->symbols[func->symbols[i]->id], (long long)func->symbols[i]->hi);
    for (int i = 0; i < c->count; i++)
        if (c->parameters[i].kind == PARAMETER_FOUND) {
            const struct ir_symbol *k = c->parameters[i].symbol;
            text_printf(m->out, "%s%s <= %lld is found", before, f->symbols[k->id], (long long)k->hi);
            before = ", ";
        }
    text_add(m->out, *before == ',' ? ".\n" : "");
}

static const char *annotation(struct arena *a, const struct interface_parameter *p, bool given) {
    if (p->type.rank || p->is_inout)
        return "np.ndarray";
    return given ? number_type(p->type.dtype) : arena_printf(a, "np.%s", numpy_type(p->type.dtype));
}

static void inputs(struct module *m, const struct python_function *f, const struct interface_call *c, bool annotated) {
    for (int i = 0; i < c->count; i++) {
        const struct interface_parameter *p = &c->parameters[i];
        if (p->kind != PARAMETER_INPUT)
            continue;
        text_printf(m->out, ", %s", f->inputs[p->index]);
        if (annotated)
            text_printf(m->out, ": %s", annotation(&m->g->arena, p, true));
    }
}

/* A method; `summary` is the first line of its documentation. */
static void method(struct module *m, const struct python_function *f, const struct interface_call *c, const char *name,
                   const char *summary, const char *results) {
    struct text *out = m->out;
    int gives = count_kind(c, PARAMETER_RESULT);
    text_printf(out, "    def %s(self", name);
    inputs(m, f, c, true);
    text_add(out, ")");
    const struct interface_parameter *result = &c->parameters[c->count - 1];
    text_printf(out, " -> %s:\n        \"\"\"",
                results ? results
                : gives ? annotation(&m->g->arena, result, false)
                        : "None");
    document(out, summary);
    text_add(out, "\n\n");
    for (int i = 0; i < c->count; i++) {
        const struct interface_parameter *p = &c->parameters[i];
        if (p->kind != PARAMETER_INPUT)
            continue;
        text_printf(out, "        %s: ", f->inputs[p->index]);
        described(m, f, p);
        text_add(out, "\n");
    }
    for (int i = 0, n = 0; i < c->count; i++) {
        const struct interface_parameter *p = &c->parameters[i];
        if (p->kind != PARAMETER_RESULT)
            continue;
        text_add(out, n++ ? ", " : "        Gives ");
        if (p->source)
            text_printf(out, "%s: ", p->source);
        described(m, f, p);
        text_add(out, n == gives ? ".\n" : "");
    }
    if (c == &f->f->call)
        limits(m, f);
    text_printf(out, "        \"\"\"\n        %sself._call(\"%s\"", gives ? "return " : "", c->name);
    inputs(m, f, c, false);
    text_add(out, ")\n\n");
}

static void methods(struct module *m, const struct python_function *f, const char *results) {
    const struct interface_function *function = f->f;
    const struct ir_func *func = function->func;
    struct arena *a = &m->g->arena;
    const char *doc = func->doc && *func->doc ? func->doc : arena_printf(a, "%s of the model.", func->name);
    for (int i = 0; function->is_incremental && i < func->body->arg_count; i++) {
        const struct interface_call *c = &function->setters[i];
        method(m, f, c, python_enter(&m->methods, c->name),
               arena_printf(a, "The input %s of %s: copied, and a new version.", f->inputs[i], f->method), NULL);
    }
    method(m, f, &function->call, f->method, doc, results);
    if (function->is_incremental) {
        const char *ran = python_enter(&m->methods, arena_printf(a, "%s_ran", func->name));
        text_printf(m->out, "    def %s(self) -> int:\n        \"\"\"Operations that the last call of %s ran.\"\"\"\n",
                    ran, f->method);
        text_printf(m->out, "        return self._ran(\"%s\")\n\n", func->name);
    }
}

/* ---- the module ------------------------------------------------------------------------------------------------------ */

static void result_class(struct module *m, int i) {
    const struct interface_function *f = &m->interface->functions[i];
    const struct interface_call *c = &f->call;
    if (count_kind(c, PARAMETER_RESULT) < 2)
        return;
    struct python_scope fields = {.arena = &m->g->arena};
    m->results[i] = python_class(&m->classes, f->func->name, "Result");
    text_printf(m->out, "class %s(typing.NamedTuple):\n    \"\"\"What %s gives.\"\"\"\n\n", m->results[i],
                f->func->name);
    for (int k = 0; k < c->count; k++)
        if (c->parameters[k].kind == PARAMETER_RESULT)
            text_printf(m->out, "    %s: %s\n", python_enter(&fields, result_name(&c->parameters[k])),
                        annotation(&m->g->arena, &c->parameters[k], false));
    text_add(m->out, "\n\n");
}

static struct python_function names_of(struct module *m, const struct interface_function *f) {
    struct arena *a = &m->g->arena;
    const struct ir_func *func = f->func;
    struct python_function p = {.f = f};
    struct python_scope inputs = {.arena = a}, symbols = {.arena = a};
    p.method = python_enter(&m->methods, func->name);
    p.inputs = ARENA_ARRAY(a, const char *, func->body->arg_count);
    p.symbols = ARENA_ARRAY(a, const char *, m->interface->module->symbol_count);
    for (int i = 0; i < func->body->arg_count; i++)
        p.inputs[i] = python_enter(&inputs, func->arg_names[i] ? func->arg_names[i] : "x");
    for (int i = 0; i < func->symbol_count; i++)
        p.symbols[func->symbols[i]->id] = python_enter(&symbols, func->symbols[i]->name);
    for (int i = 0; i < f->call.count; i++)
        if (f->call.parameters[i].kind == PARAMETER_FOUND)
            p.symbols[f->call.parameters[i].symbol->id] = python_enter(&symbols, f->call.parameters[i].source);
    return p;
}

static void unspeakable(struct module *m, const struct interface_function *f, const char *what, const char *help) {
    struct diagnostic *e =
        diag_error(m->g->diag, E_python_shape, f->func->span,
                   "Python cannot know %s of %s from the arrays and dimensions that it has", what, f->func->name);
    diag_help(m->g->diag, e, "%s", help);
}

/* Whether all dimensions are an axis of an input, and all shapes follow from those that callers know. */
static bool speakable(struct module *m, const struct interface_function *f) {
    struct arena *a = &m->g->arena;
    const struct ir_func *func = f->func;
    for (int i = 0; i < func->symbol_count; i++) {
        int axis = -1;
        for (int k = 0; k < func->body->arg_count && axis < 0; k++)
            axis = axis_of(m->g, func->body->args[k]->type, func->symbols[i]);
        if (axis < 0) {
            unspeakable(m, f, arena_printf(a, "the dimension %s", func->symbols[i]->name),
                        "an input needs an axis of that length");
            return false;
        }
    }
    for (int i = 0; i < f->call.count; i++) {
        const struct interface_parameter *p = &f->call.parameters[i];
        for (int k = 0; p->kind == PARAMETER_RESULT && k < p->type.rank; k++)
            if (interface_dim_unknown(f, p->type.dims[k])) {
                unspeakable(m, f, arena_printf(a, "the shape of %s", result_name(p)),
                            "give that dimension a name of its own: `f32[M <= 12]` in place of `f32[3 * K]`");
                return false;
            }
    }
    return true;
}

static void constructor(struct module *m) {
    struct text *out = m->out;
    const struct compile_options *o = m->interface->options;
    const char *p = m->interface->prefix;
    text_add(out, "    def __init__(self, seed: int = 0, threads: int = 0, log=print, library=None");
    if (o->weights == WEIGHTS_FILE)
        text_add(out, ", weights_path=None");
    if (o->weights == WEIGHTS_CALLER)
        text_add(out, ", *, weights");
    text_add(out, "):\n        \"\"\"\n        seed: of initializers and random numbers\n");
    text_printf(out, "        threads: %s\n",
                o->threads ? "in all; 0: one a processor, 1: serial" : "not used, this unit is serial");
    text_add(out, "        log: called with each line that the model prints\n"
                  "        library: the shared library's path; None: beside this file\n");
    if (o->weights == WEIGHTS_FILE)
        text_printf(out, "        weights_path: a safetensors file; None: %s.safetensors beside this file\n", p);
    if (o->weights == WEIGHTS_CALLER)
        text_add(out, "        weights: the bytes of a safetensors file\n");
    text_add(out, "        \"\"\"\n");
    if (o->weights == WEIGHTS_FILE)
        text_printf(
            out,
            "        if weights_path is None:\n"
            "            weights_path = os.path.join(os.path.dirname(os.path.abspath(__file__)), \"%s.safetensors\")\n"
            "        self._open(seed, threads, log, library, os.fsencode(weights_path))\n\n",
            p);
    else if (o->weights == WEIGHTS_CALLER)
        text_add(out,
                 "        image = np.zeros(-(-len(weights) // 8), np.uint64).view(np.uint8)  # aligned to 8 bytes\n"
                 "        image[: len(weights)] = np.frombuffer(weights, np.uint8)\n"
                 "        self._open(seed, threads, log, library, image[: len(weights)])\n\n");
    else
        text_add(out, "        self._open(seed, threads, log, library)\n\n");
}

static void model_class(struct module *m, const struct python_function *functions) {
    struct text *out = m->out;
    const struct interface *i = m->interface;
    text_printf(
        out,
        "class %s(_Model):\n    \"\"\"An instance of the model %s. Each exported function is a method; parameters and "
        "states go by name.\"\"\"\n\n",
        m->class_name, i->prefix);
    text_printf(out, "    _prefix = \"%s\"\n    _memory_bytes = %lld\n    _param_count = %d\n", i->prefix,
                (long long)i->memory_bytes, i->module->buffer_count);
    if (i->options->library)
        text_printf(out, "    _libraries = (\"%s\",)\n", i->options->library);
    else
        text_printf(out, "    _libraries = (\"lib%s.so\", \"lib%s.dylib\", \"%s.dll\")\n", i->prefix, i->prefix,
                    i->prefix);
    text_add(out, "    _functions = _by_name(\n");
    for (int n = 0; n < i->function_count; n++) {
        const struct python_function *f = &functions[n];
        for (int k = 0; f->f->is_incremental && k < f->f->func->body->arg_count; k++)
            call(m, f, &f->f->setters[k],
                 arena_printf(&m->g->arena, "            setter_of=\"%s\",\n", f->f->func->name), NULL);
        call(m, f, &f->f->call, f->f->is_incremental ? "            incremental=True,\n" : "", m->results[n]);
    }
    text_add(out, "    )\n\n");
    constructor(m);
    for (int n = 0; n < i->function_count; n++)
        methods(m, &functions[n], m->results[n]);
}

void codegen_python(struct cgen *g, const struct interface *i, struct text *out) {
    struct arena *a = &g->arena;
    struct text body = {0};
    struct module m = {.g = g,
                       .interface = i,
                       .out = &body,
                       .classes = {.arena = a},
                       .methods = {.arena = a},
                       .results = ARENA_ARRAY(a, const char *, i->function_count)};
    python_enter_methods(&m.methods);
    static const char *const taken[] = {"Model", "ModelError"};
    for (size_t k = 0; k < sizeof taken / sizeof *taken; k++)
        python_enter(&m.classes, taken[k]);
    m.class_name = python_class(&m.classes, i->prefix, "");
    struct python_function *functions = ARENA_ARRAY(a, struct python_function, i->function_count);
    for (int n = 0; n < i->function_count; n++) {
        if (!speakable(&m, &i->functions[n]))
            return;
        functions[n] = names_of(&m, &i->functions[n]);
        result_class(&m, n);
    }
    model_class(&m, functions);
    text_printf(
        out,
        "\"\"\"The model %s in Python: the class %s runs the shared library beside this file, and needs numpy alone.\n\n"
        "Made by mxcc; not to be edited: the source is the .mxl file.\n\"\"\"\n"
        "import ctypes\nimport difflib\nimport math\nimport os\nimport threading\nimport typing\n\nimport numpy as np\n\n"
        "__all__ = [\"%s\", \"Model\", \"ModelError\", \"from_bf16\", \"to_bf16\"",
        i->prefix, m.class_name, m.class_name);
    for (int n = 0; n < i->function_count; n++)
        if (m.results[n])
            text_printf(out, ", \"%s\"", m.results[n]);
    text_add(out, "]\n\n");
    text_add(out, python_support);
    text_printf(out,
                "\n\n# ---- the model %s "
                "-------------------------------------------------------------------------------------\n\n\n",
                i->prefix);
    text_addn(out, text_string(&body), body.length);
    text_printf(out, "\nModel = %s\n", m.class_name);
    text_free(&body);
}
