/* The description of a unit's interface, from its module and plan.
 *
 * A dimension found at run time (`-> (y: f32[K], z: f32[2 * K])`) is, inside the function, whatever expression gave it: the
 * result types hold `b - a` where the source says K. Callers know only K, so each found dimension becomes a symbol, and the
 * expression it stands for is solved for one of its atoms, which is replaced: b by K + a, after which `2 * (b - a)` is
 * `2 * K` because dimensions are canonical polynomials.
 */
#include <string.h>

#include "codegen/interface.h"

static void note_symbol(const struct ir_symbol *s, void *context) {
    struct interface_symbols *all = context;
    for (int i = 0; i < all->count; i++)
        if (all->f->symbols[all->at[i]] == s)
            return;
    for (int i = 0; i < all->f->symbol_count; i++)
        if (all->f->symbols[i] == s && all->count < 64)
            all->at[all->count++] = i;
}

struct interface_symbols interface_symbols(const struct ir_func *f, struct ir_type t) {
    struct interface_symbols s = {.f = f};
    for (int k = 0; k < t.rank; k++)
        ir_dim_symbols(t.dims[k], note_symbol, &s);
    return s;
}

static bool is_argument_symbol(const struct ir_func *f, const struct ir_symbol *s) {
    for (int i = 0; i < f->symbol_count; i++)
        if (f->symbols[i] == s)
            return true;
    return false;
}

/* ---- dimensions found at run time ------------------------------------------------------------------------------- */

struct found {
    ir_dim symbol, value;            /* K and what it is inside the function */
    const struct ir_dim_atom *pivot; /* one of value's atoms, and what it is in terms of K; NULL if none can be had */
    ir_dim solved;
};

static ir_dim replace_atom(struct ir_module *m, ir_dim d, const struct ir_dim_atom *pivot, ir_dim by);

static ir_dim replaced(struct ir_module *m, const struct ir_dim_atom *x, const struct ir_dim_atom *pivot, ir_dim by) {
    if (x == pivot)
        return by;
    if (x->kind == ATOM_SYMBOL)
        return ir_dim_symbol(m, x->symbol);
    ir_dim a = replace_atom(m, x->a, pivot, by), b = replace_atom(m, x->b, pivot, by);
    switch (x->kind) {
    case ATOM_DIV: return ir_dim_div(m, a, b);
    case ATOM_MOD: return ir_dim_mod(m, a, b);
    case ATOM_MAX: return ir_dim_max(m, a, b);
    default: return ir_dim_min(m, a, b);
    }
}

/* d with `by` in place of the atom. */
static ir_dim replace_atom(struct ir_module *m, ir_dim d, const struct ir_dim_atom *pivot, ir_dim by) {
    ir_dim total = ir_dim_const(m, 0);
    for (int i = 0; i < d->count; i++) {
        ir_dim product = ir_dim_const(m, d->terms[i].coefficient);
        for (int k = 0; k < d->terms[i].count; k++)
            product = ir_dim_mul(m, product, replaced(m, d->terms[i].atoms[k], pivot, by));
        total = ir_dim_add(m, total, product);
    }
    return total;
}

static struct found solve(struct ir_module *m, const struct ir_func *f, const struct ir_symbol *k, ir_dim value) {
    struct found found = {ir_dim_symbol(m, k), value, NULL, NULL};
    for (int i = 0; i < value->count; i++) {
        const struct ir_dim_term *t = &value->terms[i];
        if (t->count != 1)
            continue;
        const struct ir_dim_atom *pivot = t->atoms[0];
        if (pivot->kind == ATOM_SYMBOL && is_argument_symbol(f, pivot->symbol))
            continue;
        ir_dim c = ir_dim_const(m, t->coefficient);
        ir_dim rest = replace_atom(m, value, pivot, ir_dim_const(m, 0));
        ir_dim solved = ir_dim_div(m, ir_dim_sub(m, found.symbol, rest), c);
        if (replace_atom(m, value, pivot, solved) == found.symbol) { /* not so where the atom stands elsewhere, too */
            found.pivot = pivot;
            found.solved = solved;
            return found;
        }
    }
    return found;
}

static struct ir_type public_type(struct cgen *g, struct ir_type t, const struct found *found, int n) {
    ir_dim *dims = ARENA_ARRAY(&g->arena, ir_dim, t.rank);
    for (int k = 0; k < t.rank; k++) {
        dims[k] = t.dims[k];
        for (int i = 0; i < n; i++) {
            if (dims[k] == found[i].value)
                dims[k] = found[i].symbol;
            else if (found[i].pivot)
                dims[k] = replace_atom(g->module, dims[k], found[i].pivot, found[i].solved);
        }
    }
    t.dims = dims;
    return t;
}

struct unknown_search {
    const struct interface_function *f;
    bool found;
};

static void see_symbol(const struct ir_symbol *s, void *context) {
    struct unknown_search *search = context;
    bool known = is_argument_symbol(search->f->func, s);
    for (int i = 0; i < search->f->call.count; i++)
        known |= search->f->call.parameters[i].symbol == s;
    search->found |= !known;
}

bool interface_dim_unknown(const struct interface_function *f, ir_dim d) {
    struct unknown_search search = {f, false};
    ir_dim_symbols(d, see_symbol, &search);
    return search.found;
}

/* ---- functions ---------------------------------------------------------------------------------------------------- */

static struct interface_parameter extent(struct cgen *g, const struct ir_func *f, int i) {
    const struct ir_symbol *s = f->symbols[i];
    return (struct interface_parameter){
        .kind = PARAMETER_EXTENT, .index = i, .name = cgen_symbol_name(g, s), .source = s->name, .symbol = s};
}

static struct interface_parameter input(struct cgen *g, const struct ir_func *f, int i) {
    struct ir_type t = f->body->args[i]->type;
    bool is_inout = f->arg_inout && f->arg_inout[i];
    return (struct interface_parameter){.kind = PARAMETER_INPUT,
                                        .index = i,
                                        .name = cgen_arg_name(g, f, i),
                                        .source = f->arg_names[i],
                                        .type = t,
                                        .is_inout = is_inout,
                                        .by_pointer = t.rank > 0 || is_inout};
}

/* An input in its setter's name: as the source spells it, also where a parameter of that name gets a trailing `_`. */
static const char *setter_name(const struct interface_parameter *p) {
    size_t n = strlen(p->source);
    return strncmp(p->name, p->source, n) == 0 && strcmp(p->name + n, "_") == 0 ? p->source : p->name;
}

static struct interface_call setter(struct cgen *g, const struct ir_func *f, int arg) {
    struct interface_symbols s = interface_symbols(f, f->body->args[arg]->type);
    struct interface_parameter value = input(g, f, arg);
    struct interface_call c = {.name = arena_printf(&g->arena, "%s_set_%s", f->name, setter_name(&value)),
                               .parameters = ARENA_ARRAY(&g->arena, struct interface_parameter, s.count + 1)};
    for (int k = 0; k < s.count; k++)
        c.parameters[c.count++] = extent(g, f, s.at[k]);
    c.parameters[c.count++] = value;
    return c;
}

static void describe(struct cgen *g, struct interface_function *out, struct ir_symbol **k) {
    const struct ir_func *f = out->func;
    struct interface_call *c = &out->call;
    int args = f->body->arg_count;
    struct found *found = ARENA_ARRAY(&g->arena, struct found, f->result_symbol_count);
    c->name = f->name;
    c->parameters = ARENA_ARRAY(&g->arena, struct interface_parameter,
                                f->symbol_count + args + f->result_symbol_count + f->result_count);
    for (int i = 0; i < f->symbol_count && !out->is_incremental; i++)
        c->parameters[c->count++] = extent(g, f, i);
    for (int i = 0; i < args && !out->is_incremental; i++)
        c->parameters[c->count++] = input(g, f, i);
    for (int i = 0; i < f->result_symbol_count; i++) {
        found[i] = solve(g->module, f, k[i], f->result_symbols[i].value);
        cgen_set_symbol_name(g, k[i], cgen_found_name(g, f, i));
        c->parameters[c->count++] = (struct interface_parameter){.kind = PARAMETER_FOUND,
                                                                 .index = i,
                                                                 .name = cgen_found_name(g, f, i),
                                                                 .source = f->result_symbols[i].name,
                                                                 .symbol = k[i],
                                                                 .by_pointer = true};
    }
    for (int i = 0; i < f->result_count; i++)
        c->parameters[c->count++] = (struct interface_parameter){
            .kind = PARAMETER_RESULT,
            .index = i,
            .name = cgen_result_name(g, f, i),
            .source = f->result_names ? f->result_names[i] : NULL,
            .type = public_type(g, f->body->yields[i]->type, found, f->result_symbol_count),
            .by_pointer = true};
    if (out->is_incremental) {
        out->setters = ARENA_ARRAY(&g->arena, struct interface_call, args);
        for (int i = 0; i < args; i++)
            out->setters[i] = setter(g, f, i);
    }
}

void interface_of(struct cgen *g, const struct ir_func *hidden, struct interface *out) {
    struct ir_module *m = g->module;
    struct ir_symbol ***found = ARENA_ARRAY(&g->arena, struct ir_symbol **, m->func_count);
    out->module = m;
    out->functions = ARENA_ARRAY(&g->arena, struct interface_function, m->func_count);
    for (int i = 0; i < m->func_count; i++) {
        struct ir_func *f = m->funcs[i];
        if (!f->is_export || f == hidden)
            continue;
        int n = out->function_count++;
        found[n] = ARENA_ARRAY(&g->arena, struct ir_symbol *, f->result_symbol_count);
        for (int k = 0; k < f->result_symbol_count; k++)
            found[n][k] = ir_symbol_new(f, f->result_symbols[k].name, 0, f->result_symbols[k].hi, f->span);
        out->functions[n] = (struct interface_function){f, plan_of(g->plan, f)->incremental != NULL, {0}, NULL};
    }
    for (int n = 0; n < out->function_count; n++)
        describe(g, &out->functions[n], found[n]);
}

const struct interface_function *interface_function(const struct interface *i, const struct ir_func *f) {
    int n = 0;
    while (i->functions[n].func != f)
        n++;
    return &i->functions[n];
}
