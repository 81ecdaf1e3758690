/* Equal operations are printed once. The layers of a deep model lower to blocks of loop IR that differ only in the memory
 * they work on; such a block becomes a static function over its pointers, scalars and dimensions, and each layer a call.
 *
 * Two blocks are equal if they print to the same text once registers and memories are numbered in order of appearance.
 * A first run of the generator over the whole unit counts the texts (cgen_count_blocks); the second one prints, and makes
 * functions of those that occur more than once. Blocks without a loop stay where they are: a call would not be shorter.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "codegen/c/c_internal.h"

struct cgen_block {
    const char *key;
    int count;
    const char *function; /* once it was printed */
    UT_hash_handle hh;
};

/* ---- the canonical text ------------------------------------------------------------------------------------------------ */

/* name.17 becomes v0, v1, … ; numbers and operators stay. Names have dots, too: of net.layers.3.17 the last number counts. */
static void renumber(struct text *out, const char *text) {
    struct {
        int *at, n, cap;
    } seen = {0};
    for (const char *s = text; *s;) {
        if (isdigit((unsigned char)*s)) { /* a number, hexadecimal floats too */
            const char *begin = s;
            while (isalnum((unsigned char)*s) || *s == '.')
                s++;
            text_addn(out, begin, (size_t)(s - begin));
            continue;
        }
        if (!isalpha((unsigned char)*s) && *s != '_') {
            text_addn(out, s++, 1);
            continue;
        }
        const char *begin = s;
        const char *number = NULL; /* the last part, if it is one */
        for (;; s++) {
            const char *part = s;
            bool digits = true;
            for (; isalnum((unsigned char)*s) || *s == '_'; s++)
                digits &= isdigit((unsigned char)*s) != 0;
            number = digits && s > part && part > begin ? part : NULL;
            if (*s != '.' || !(isalnum((unsigned char)s[1]) || s[1] == '_'))
                break;
        }
        if (!number) {
            text_addn(out, begin, (size_t)(s - begin));
            continue;
        }
        int id = (int)strtol(number, NULL, 10), k = 0;
        while (k < seen.n && seen.at[k] != id)
            k++;
        if (k == seen.n) {
            if (seen.n == seen.cap) {
                seen.cap = seen.cap ? seen.cap * 2 : 32;
                int *grown = realloc(seen.at, sizeof *grown * (size_t)seen.cap);
                if (!grown)
                    abort();
                seen.at = grown;
            }
            seen.at[seen.n++] = id;
        }
        text_printf(out, "v%d", k);
    }
    free(seen.at);
}

static void count_loops(const struct loop_stmt *s, void *context) {
    if (s->kind == LS_FOR)
        ++*(int *)context;
}

/* Data of the unit that device code reaches by its name alone. */
static bool is_global(const struct cgen *g, const struct loop_mem *m) {
    return g->cuda && m->kind != MEM_SCALAR && !m->base;
}

static const char *address_of(const struct cgen_captures *c, int i) {
    return c->addresses ? c->addresses[i] : NULL;
}

/* NULL where a function would not do: no loop, or it writes a variable of the function around it. */
const char *cgen_block_key(struct cgen *g, const struct loop_block *k, const struct cgen_captures *c) {
    int loops = 0;
    loop_walk(k, NULL, count_loops, &loops);
    if (loops == 0 || c->mems.n + c->vars.n > 40)
        return NULL;
    struct text raw = {0}, key = {0};
    for (int i = 0; i < c->mems.n; i++) {
        const struct loop_mem *m = c->mems.at[i];
        if (m->kind == MEM_SCALAR && m->written) {
            text_free(&raw);
            return NULL;
        }
        text_printf(&raw, "mem%d%d%d%s x.%d %s %s\n", m->kind == MEM_SCALAR, m->written, m->no_alias,
                    address_of(c, i) ? "&" : "", m->id, dtype_name(m->dtype),
                    is_global(g, m) ? cgen_name_of(g, m->id) : "");
    }
    for (int i = 0; i < c->vars.n; i++) {
        const struct loop_var *v = c->vars.at[i];
        text_printf(&raw, "var%s x.%d %s", address_of(c, c->mems.n + i) ? "&" : "", v->id, dtype_name(v->dtype));
        if (g->cuda) /* how wide indices are depends on them */
            text_printf(&raw, " %d %lld %lld", v->bounded, (long long)v->least, (long long)v->most);
        text_add(&raw, "\n");
    }
    loop_print(&raw, k, 0);
    renumber(&key, text_string(&raw));
    const char *s = arena_strdup(&g->arena, text_string(&key));
    text_free(&raw);
    text_free(&key);
    return s;
}

/* ---- the function and its calls ------------------------------------------------------------------------------------------ */

/* "net_body_0_qkv_weight", "net.weight" -> "weight": what the memory is to every caller. */
const char *cgen_parameter_name(const char *name) {
    const char *dot = strrchr(name, '.');
    if (dot && isalpha((unsigned char)dot[1]))
        name = dot + 1;
    const char *last = strrchr(name, '_');
    return last && isalpha((unsigned char)last[1]) ? last + 1 : name;
}

/* `m` is also a word in comments (m.mxl): as the instance it is dereferenced or handed on. */
bool cgen_uses_instance(const char *text) {
    for (const char *s = text; (s = strchr(s, 'm')); s++) {
        bool begins = s == text || !(isalnum((unsigned char)s[-1]) || s[-1] == '_' || s[-1] == '/');
        if (begins && ((s[1] == '-' && s[2] == '>') || s[1] == ',' || s[1] == ')'))
            return true;
    }
    return false;
}

static void enter_pointer(struct cgen *g, const struct cgen_captures *c, int i, enum dtype t, const char *name,
                          struct text *head) {
    c->pointers[i] = cgen_enter_name(g, arena_printf(&g->arena, "%s_at", name));
    text_printf(head, ", const %s *__restrict__ %s", cgen_c_type(t), c->pointers[i]);
}

const char **cgen_enter_parameters(struct cgen *g, const struct cgen_captures *c, struct text *head) {
    const char **outer = ARENA_ARRAY(&g->arena, const char *, c->mems.n + c->vars.n + 1);
    int n = 0;
    for (int i = 0; i < c->mems.n; i++) {
        const struct loop_mem *m = c->mems.at[i];
        outer[n++] = cgen_name_of(g, m->id);
        if (is_global(g, m))
            continue;
        const char *name = cgen_enter_name(g, cgen_parameter_name(m->name ? m->name : "t"));
        cgen_set_name(g, m->id, name);
        if (address_of(c, i)) { /* read where it is used: a register for it would live through the whole kernel */
            enter_pointer(g, c, i, m->dtype, name, head);
            cgen_set_name(g, m->id, arena_printf(&g->arena, "(*%s)", c->pointers[i]));
        } else if (m->kind == MEM_SCALAR)
            text_printf(head, ", %s %s", cgen_c_type(m->dtype), name);
        else
            text_printf(head, ", %s%s *%s%s", m->written ? "" : "const ", cgen_c_type(m->dtype), cprint_restrict(g, m),
                        name);
    }
    for (int i = 0; i < c->vars.n; i++) {
        outer[n++] = cgen_name_of(g, c->vars.at[i]->id);
        const char *name = cgen_enter_name(g, c->vars.at[i]->name);
        cgen_set_name(g, c->vars.at[i]->id, name);
        if (address_of(c, c->mems.n + i))
            enter_pointer(g, c, c->mems.n + i, c->vars.at[i]->dtype, name, head);
        else
            text_printf(head, ", %s %s", cprint_index_type(&(struct cprint){.narrow = g->cuda != NULL}, c->vars.at[i]),
                        name);
    }
    return outer;
}

void cgen_read_parameters(struct cprint *p, const struct cgen_captures *c) {
    for (int i = 0; i < c->vars.n; i++) {
        const struct loop_var *v = c->vars.at[i];
        const char *name = cgen_name_of(p->g, v->id), *type = cprint_index_type(p, v);
        if (address_of(c, c->mems.n + i))
            cprint_line(p, "const %s %s = (%s)*%s;", type, name, type, c->pointers[c->mems.n + i]);
    }
}

void cgen_leave_parameters(struct cgen *g, const struct cgen_captures *c, const char **outer) {
    int n = 0;
    for (int i = 0; i < c->mems.n; i++)
        cgen_set_name(g, c->mems.at[i]->id, outer[n++]);
    for (int i = 0; i < c->vars.n; i++)
        cgen_set_name(g, c->vars.at[i]->id, outer[n++]);
}

void cgen_arguments(struct cgen *g, struct text *line, const struct cgen_captures *c) {
    bool first = true;
    for (int i = 0; i < c->mems.n; i++) {
        const struct loop_mem *m = c->mems.at[i];
        if (is_global(g, m))
            continue;
        text_add(line, first ? "" : ", ");
        first = false;
        if (address_of(c, i))
            text_printf(line, "(const %s *)%s", cgen_c_type(m->dtype), address_of(c, i));
        else if (m->kind == MEM_POINTER && m->base)
            text_printf(line, "(%s%s *)%s", m->written ? "" : "const ", cgen_c_type(m->dtype), m->base);
        else
            text_add(line, cgen_name_of(g, m->id));
    }
    for (int i = 0; i < c->vars.n; i++, first = false) {
        const char *address = address_of(c, c->mems.n + i);
        text_add(line, first ? "" : ", ");
        if (address)
            text_printf(line, "(const %s *)%s", cgen_c_type(c->vars.at[i]->dtype), address);
        else
            text_add(line, cgen_name_of(g, c->vars.at[i]->id));
    }
}

static void print_function(struct cgen *g, struct cgen_block *b, const struct loop_block *k,
                           const struct cgen_captures *c, const char *hint) {
    struct cgen_kernels *p = cgen_private(g);
    struct text body = {0}, head = {0};
    int64_t stack = p->stack;
    /* a scope of its own: names of the function around it mean nothing there */
    struct cgen_names saved = cgen_scope_replace(g);
    b->function = arena_printf(&g->arena, "%s_mx_%s_%d", g->prefix,
                               cgen_identifier(&g->arena, cgen_parameter_name(hint)), p->functions++);
    const char **outer = cgen_enter_parameters(g, c, &head);
    struct cprint q = {.g = g, .out = &body, .indent = 1};
    cprint_block(&q, k);
    bool instance = cgen_uses_instance(text_string(&body));
    const char *parameters = text_string(&head);
    text_printf(&g->outlined, "/* %d operations */\nstatic void %s(", b->count, b->function);
    if (instance)
        text_printf(&g->outlined, "struct %s *m%s", g->prefix, parameters);
    else
        text_add(&g->outlined, parameters[0] ? parameters + 2 : "void");
    text_printf(&g->outlined, ")\n{\n%s}\n\n", text_string(&body));
    if (instance)
        b->function = arena_printf(&g->arena, "%s(m", b->function);
    else
        b->function = arena_printf(&g->arena, "%s(", b->function);
    cgen_leave_parameters(g, c, outer);
    cgen_scope_restore(g, saved);
    p->stack = stack;
    text_free(&body);
    text_free(&head);
}

static void print_call(struct cprint *p, const struct cgen_block *b, const struct cgen_captures *c) {
    struct text line = {0};
    size_t length = strlen(b->function);
    cgen_arguments(p->g, &line, c);
    cprint_line(p, "%s%s%s);", b->function, b->function[length - 1] == '(' || !line.length ? "" : ", ",
                text_string(&line));
    text_free(&line);
}

bool cgen_share_block(struct cprint *p, const struct loop_block *k, const char *hint) {
    struct cgen *g = p->g;
    struct cgen_captures c = {.arena = &g->arena};
    cgen_capture(&c, k);
    const char *key = cgen_block_key(g, k, &c);
    if (!key)
        return false;
    struct cgen_block *b;
    HASH_FIND_STR(g->blocks, key, b);
    if (g->counting) {
        if (!b) {
            b = ARENA_NEW(g->counting, struct cgen_block);
            b->key = arena_strdup(g->counting, key);
            HASH_ADD_KEYPTR(hh, g->blocks, b->key, strlen(b->key), b);
        }
        b->count++;
        return false;
    }
    if (!b || b->count < 2)
        return false;
    if (!b->function)
        print_function(g, b, k, &c, hint);
    print_call(p, b, &c);
    return true;
}

void cgen_blocks_free(struct cgen *g) {
    HASH_CLEAR(hh, g->blocks);
}
