/* The loop IR as text, for people, and its verifier: a broken invariant here is a bug in `lower` or in a kernel builder,
 * found before the C compiler would report it in generated code.
 */
#include <stdio.h>

#include "ir/loop.h"

static const char *const op_names[] = {"+",   "-", "*",  "/",  "%",   "fdiv", "fmod", "min",
                                       "max", "<", "<=", "==", "and", "or",   "not"};

void lx_print(struct text *out, lx e) {
    switch (e->kind) {
    case LX_INT: text_printf(out, "%lld", (long long)e->value.i); return;
    case LX_CONST:
        if (dtype_is_float(e->dtype))
            text_printf(out, "%s(%a)", dtype_name(e->dtype), e->value.f);
        else
            text_printf(out, "%s(%lld)", dtype_name(e->dtype), (long long)e->value.i);
        return;
    case LX_VAR:
        text_printf(out, "%s.%d", e->var->name, e->var->id);
        if (e->count) {
            text_add(out, "[");
            lx_print(out, e->args[0]);
            text_add(out, "]");
        }
        return;
    case LX_LOAD:
        text_printf(out, "%s.%d[", e->mem->name, e->mem->id);
        lx_print(out, e->args[0]);
        text_add(out, "]");
        if (e->lanes > 1)
            text_printf(out, ":%d", e->lanes);
        return;
    case LX_OP: text_printf(out, "%s", op_names[e->op]); break;
    case LX_FN: text_add(out, scalar_table[e->op].name); break;
    case LX_CAST: text_add(out, dtype_name(e->dtype)); break;
    case LX_BITCAST: text_printf(out, "bits_%s", dtype_name(e->dtype)); break;
    case LX_SPLAT: text_printf(out, "splat%d", e->lanes); break;
    case LX_LANE: text_printf(out, "lane%d", (int)e->value.i); break;
    case LX_PACK: text_printf(out, "pack%d", e->lanes); break;
    case LX_FMA: text_add(out, "fma"); break;
    case LX_SELECT: text_add(out, "select"); break;
    case LX_CALL: text_add(out, e->name); break;
    case LX_SHUFFLE: text_printf(out, "shuffle%d", (int)e->value.i); break;
    }
    text_add(out, "(");
    for (int i = 0; i < e->count; i++) {
        if (i)
            text_add(out, ", ");
        lx_print(out, e->args[i]);
    }
    text_add(out, ")");
}

void loop_print(struct text *out, const struct loop_block *k, int indent) {
    static const char *const kinds[] = {"for", "parallel", "unroll", "grid", "threads"};
    for (const struct loop_stmt *s = k->first; s; s = s->next) {
        text_printf(out, "%*s", indent * 2, "");
        switch (s->kind) {
        case LS_FOR:
            text_printf(out, "%s %s.%d in ", kinds[s->loop], s->var->name, s->var->id);
            lx_print(out, s->lo);
            text_add(out, " .. ");
            lx_print(out, s->hi);
            text_printf(out, s->step == 1 ? "\n" : " by %lld\n", (long long)s->step);
            loop_print(out, &s->body, indent + 1);
            continue;
        case LS_IF:
            text_add(out, "if ");
            lx_print(out, s->cond);
            text_add(out, "\n");
            loop_print(out, &s->body, indent + 1);
            if (s->other.first) {
                text_printf(out, "%*selse\n", indent * 2, "");
                loop_print(out, &s->other, indent + 1);
            }
            continue;
        case LS_DEF:
            text_printf(out, "%s %s.%d: %s x %d", s->var->is_mutable ? "var" : "let", s->var->name, s->var->id,
                        dtype_name(s->var->dtype), s->var->lanes);
            if (s->var->count)
                text_printf(out, " [%d]", s->var->count);
            if (s->value) {
                text_add(out, " = ");
                lx_print(out, s->value);
            }
            break;
        case LS_SET:
            text_printf(out, "%s.%d", s->var->name, s->var->id);
            if (s->index) {
                text_add(out, "[");
                lx_print(out, s->index);
                text_add(out, "]");
            }
            text_add(out, " = ");
            lx_print(out, s->value);
            break;
        case LS_STORE:
            text_printf(out, "%s.%d[", s->mem->name, s->mem->id);
            lx_print(out, s->index);
            text_add(out, "] <- ");
            lx_print(out, s->value);
            break;
        case LS_LOCAL:
            text_printf(out, "%s %s.%d: %s[%lld]", s->mem->kind == MEM_SHARED ? "shared" : "local", s->mem->name,
                        s->mem->id, dtype_name(s->mem->dtype), (long long)s->mem->count);
            break;
        case LS_COMMENT: text_printf(out, "// %s", s->text); break;
        case LS_BARRIER: text_add(out, "barrier"); break;
        case LS_CALL:
            text_printf(out, "call %s(", s->callee->name);
            for (int i = 0; i < s->callee->mem_count; i++) {
                text_printf(out, i ? ", %s.%d + " : "%s.%d + ", s->call_mems[i].mem->name, s->call_mems[i].mem->id);
                lx_print(out, s->call_mems[i].offset);
            }
            for (int i = 0; i < s->callee->var_count; i++) {
                text_add(out, ", ");
                lx_print(out, s->call_args[i]);
            }
            text_add(out, ")");
            break;
        }
        text_add(out, "\n");
    }
}

/* ---- verifier ------------------------------------------------------------------------------------------------------ */

struct check {
    struct text *why;
    bool ok;
    int vector_bytes;
    /* Registers and local memories in scope, innermost last. */
    const void *scope[4096];
    int depth, own;                      /* own: of `scope`, where what differs from thread to thread begins */
    bool in_grid, in_threads, in_branch; /* in_branch: of threads, which some may not take */
};

static void broken(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void broken(struct check *c, const char *format, ...) {
    va_list args;
    va_start(args, format);
    c->ok = false;
    text_vprintf(c->why, format, args);
    text_add(c->why, "\n");
    va_end(args);
}

static bool in_scope(const struct check *c, const void *what) {
    for (int i = c->depth; i-- > 0;)
        if (c->scope[i] == what)
            return true;
    return false;
}

static void enter(struct check *c, const void *what, const char *name) {
    if (in_scope(c, what))
        broken(c, "%s is defined twice", name);
    if (c->depth < (int)(sizeof c->scope / sizeof *c->scope))
        c->scope[c->depth++] = what;
    else
        broken(c, "more than %d registers in scope", c->depth);
}

static void check_expr(lx e, void *context) {
    struct check *c = context;
    if (e->lanes > 1 && e->lanes * dtype_size(e->dtype) > c->vector_bytes && e->dtype != BOOL)
        broken(c, "a vector of %d %s is wider than %d bytes", e->lanes, dtype_name(e->dtype), c->vector_bytes);
    switch (e->kind) {
    case LX_VAR:
        /* Parameters of the enclosing function have no definition: their dtype is I64 and they are never mutable. */
        if (!in_scope(c, e->var) && (e->var->is_mutable || e->var->count))
            broken(c, "%s.%d is used outside its scope", e->var->name, e->var->id);
        if ((e->count == 1) != (e->var->count > 0))
            broken(c, "%s.%d is%s an array of registers", e->var->name, e->var->id, e->var->count ? "" : " not");
        break;
    case LX_LOAD:
        if ((e->mem->kind == MEM_LOCAL || e->mem->kind == MEM_SHARED) && !in_scope(c, e->mem))
            broken(c, "%s.%d is loaded outside its scope", e->mem->name, e->mem->id);
        if (e->args[0]->dtype != I64 || e->args[0]->lanes != 1)
            broken(c, "%s.%d has a subscript that is no index", e->mem->name, e->mem->id);
        break;
    case LX_FMA:
    case LX_FN:
        for (int i = 0; i < e->count; i++)
            if (e->args[i]->lanes != e->lanes)
                broken(c, "operands of %d and %d lanes", e->args[i]->lanes, e->lanes);
        break;
    case LX_SPLAT:
        if (e->args[0]->lanes != 1)
            broken(c, "splat of a vector");
        break;
    case LX_LANE:
        if (e->value.i < 0 || e->value.i >= e->args[0]->lanes)
            broken(c, "lane %lld of %d", (long long)e->value.i, e->args[0]->lanes);
        break;
    case LX_PACK:
        for (int i = 0; i < e->count; i++)
            if (e->args[i]->lanes != 1 || e->args[i]->dtype != e->dtype)
                broken(c, "a vector of other things than scalars of its type");
        break;
    case LX_SHUFFLE:
        if (!c->in_threads || e->value.i < 1 || e->value.i > 31)
            broken(c, "a shuffle by %lld%s", (long long)e->value.i, c->in_threads ? "" : " outside of threads");
        break;
    default: break;
    }
}

struct uniform {
    const struct check *c;
    bool holds;
};

static void see_own(lx e, void *context) {
    struct uniform *u = context;
    u->holds &= e->kind == LX_INT || e->kind == LX_OP || e->kind == LX_VAR;
    for (int i = u->c->own; i < u->c->depth && e->kind == LX_VAR; i++)
        u->holds &= u->c->scope[i] != e->var;
}

/* Whether all threads of a block find the same: it depends on the block's number and what the host gives alone. */
static bool is_uniform(const struct check *c, lx e) {
    struct uniform u = {c, true};
    lx_walk(e, see_own, &u);
    return u.holds;
}

static void check_block(struct check *c, const struct loop_block *k) {
    int depth = c->depth;
    int64_t n;
    for (const struct loop_stmt *s = k->first; s; s = s->next) {
        lx_walk(s->lo, check_expr, c);
        lx_walk(s->hi, check_expr, c);
        lx_walk(s->cond, check_expr, c);
        lx_walk(s->index, check_expr, c);
        lx_walk(s->value, check_expr, c);
        switch (s->kind) {
        case LS_FOR: {
            int outer = c->depth;
            if (s->step <= 0)
                broken(c, "loop %s has step %lld", s->var->name, (long long)s->step);
            if (s->loop == LOOP_UNROLL && (!lx_is_int(s->lo, &n) || !lx_is_int(s->hi, &n)))
                broken(c, "unrolled loop %s has no constant bounds", s->var->name);
            if (s->loop == LOOP_GRID && (c->in_grid || s->step != 1))
                broken(c, "the grid %s stands in a kernel or has a step", s->var->name);
            if (s->loop == LOOP_THREADS && (!c->in_grid || c->in_threads || !lx_is_int(s->hi, &n) || n < 1 || n > 1024))
                broken(c, "the threads %s stand outside of a grid, or their number is no constant", s->var->name);
            if (s->loop == LOOP_THREADS)
                c->own = c->depth;
            enter(c, s->var, s->var->name);
            bool in_grid = c->in_grid, in_threads = c->in_threads;
            c->in_grid |= s->loop == LOOP_GRID;
            c->in_threads |= s->loop == LOOP_THREADS;
            check_block(c, &s->body);
            c->in_grid = in_grid;
            c->in_threads = in_threads;
            c->depth = outer;
            break;
        }
        case LS_IF: {
            bool outer = c->in_branch;
            c->in_branch |= c->in_threads && !is_uniform(c, s->cond);
            check_block(c, &s->body);
            check_block(c, &s->other);
            c->in_branch = outer;
            break;
        }
        case LS_DEF:
            if (s->value && (s->value->dtype != s->var->dtype || s->value->lanes != s->var->lanes))
                broken(c, "%s is %s x %d and gets %s x %d", s->var->name, dtype_name(s->var->dtype), s->var->lanes,
                       dtype_name(s->value->dtype), s->value->lanes);
            if (!s->value && !s->var->is_mutable)
                broken(c, "%s never gets a value", s->var->name);
            enter(c, s->var, s->var->name);
            break;
        case LS_SET:
            if (!in_scope(c, s->var))
                broken(c, "%s.%d is assigned outside its scope", s->var->name, s->var->id);
            if (s->value->dtype != s->var->dtype || s->value->lanes != s->var->lanes)
                broken(c, "%s is %s x %d and is assigned %s x %d", s->var->name, dtype_name(s->var->dtype),
                       s->var->lanes, dtype_name(s->value->dtype), s->value->lanes);
            break;
        case LS_STORE:
            if (s->mem->dtype != s->value->dtype)
                broken(c, "%s holds %s and is stored %s", s->mem->name, dtype_name(s->mem->dtype),
                       dtype_name(s->value->dtype));
            if ((s->mem->kind == MEM_LOCAL || s->mem->kind == MEM_SHARED) && !in_scope(c, s->mem))
                broken(c, "%s.%d is stored to outside its scope", s->mem->name, s->mem->id);
            break;
        case LS_LOCAL:
            if ((s->mem->kind != MEM_LOCAL && s->mem->kind != MEM_SHARED) || s->mem->count <= 0)
                broken(c, "%s is no local array", s->mem->name);
            if (s->mem->kind == MEM_SHARED && (!c->in_grid || c->in_threads))
                broken(c, "%s is shared outside of a block", s->mem->name);
            enter(c, s->mem, s->mem->name);
            break;
        case LS_COMMENT: break;
        case LS_BARRIER:
            if (!c->in_threads || c->in_branch)
                broken(c, "a barrier %s",
                       c->in_branch ? "in a branch, to which some threads may not come" : "outside of threads");
            break;
        case LS_CALL:
            for (int i = 0; i < s->callee->mem_count; i++)
                if (s->call_mems[i].mem->dtype != s->callee->mems[i]->dtype)
                    broken(c, "%s gets %s for %s", s->callee->name, s->call_mems[i].mem->name,
                           s->callee->mems[i]->name);
            break;
        }
    }
    c->depth = depth;
}

bool loop_verify(const struct loop_block *k, const struct loop_func *f, int vector_bytes, struct text *why) {
    struct check *c = &(struct check){.why = why, .ok = true, .vector_bytes = vector_bytes};
    if (f)
        for (int i = 0; i < f->var_count; i++)
            enter(c, f->vars[i], f->vars[i]->name);
    check_block(c, k);
    return c->ok;
}
