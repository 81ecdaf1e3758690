/* Scopes and cells. A cell is a name that can be assigned; reading one inside a loop of the program makes it a carried
 * value of that loop (the lazy half of SSA construction after Braun et al. 2013: a carried value that is never assigned
 * is replaced by what it was before the loop). */
#include <string.h>

#include "frontend/elab.h"

struct scope *scope_new(struct elab *e, struct scope *parent) {
    struct scope *s = ARENA_NEW(e->arena, struct scope);
    s->parent = parent;
    s->last = &s->first;
    return s;
}

static unsigned hash(const char *s) {
    unsigned h = 2166136261u;
    while (*s)
        h = (h ^ (unsigned char)*s++) * 16777619u;
    return h;
}

static void table_insert(struct scope *s, struct binding *b) {
    unsigned i = hash(b->name) & (unsigned)(s->table_size - 1);
    while (s->table[i])
        i = (i + 1) & (unsigned)(s->table_size - 1);
    s->table[i] = b;
}

struct binding *scope_find_here(struct scope *s, const char *name) {
    if (s->table) {
        unsigned i = hash(name) & (unsigned)(s->table_size - 1);
        for (; s->table[i]; i = (i + 1) & (unsigned)(s->table_size - 1))
            if (strcmp(s->table[i]->name, name) == 0)
                return s->table[i];
        return NULL;
    }
    for (struct binding *b = s->first; b; b = b->next)
        if (strcmp(b->name, name) == 0)
            return b;
    return NULL;
}

struct binding *scope_find(struct scope *s, const char *name) {
    for (; s; s = s->parent) {
        struct binding *b = scope_find_here(s, name);
        if (b)
            return b;
    }
    return NULL;
}

struct binding *scope_bind(struct elab *e, struct scope *s, const char *name, struct val v, struct span at) {
    struct binding *b = scope_find_here(s, name);
    if (!b) {
        b = ARENA_NEW(e->arena, struct binding);
        b->name = name;
        b->order = s->count++;
        *s->last = b;
        s->last = &b->next;
        if (s->count > 12) {
            if (s->count * 2 > s->table_size) {
                s->table_size = s->table_size ? s->table_size * 2 : 64;
                s->table = ARENA_ARRAY(e->arena, struct binding *, s->table_size);
                for (struct binding *x = s->first; x; x = x->next)
                    table_insert(s, x);
            } else {
                table_insert(s, b);
            }
        }
    }
    b->value = v;
    b->cell = NULL;
    b->span = at;
    return b;
}

struct cell *cell_new(struct elab *e, const char *name, struct span at) {
    struct cell *c = ARENA_NEW(e->arena, struct cell);
    c->name = name;
    c->span = at;
    c->home = e->frame;
    return c;
}

struct binding *scope_bind_cell(struct elab *e, struct scope *s, const char *name, struct cell *c) {
    struct binding *b = scope_bind(e, s, name, val_none, c->span);
    b->cell = c;
    return b;
}

static struct journal_entry *journal_find(struct frame *f, const struct cell *c) {
    for (int i = f->journal.n - 1; i >= 0; i--)
        if (f->journal.at[i].cell == c)
            return &f->journal.at[i];
    return NULL;
}

static bool is_loop(const struct frame *f) {
    return f->kind != FRAME_BRANCH;
}

/* The buffer's value in the innermost region, from the function's `read` at the top. */
static void buffer_enter_loops(struct elab *e, struct cell *c, struct frame *f) {
    if (!f)
        return;
    buffer_enter_loops(e, c, f->outer);
    if (!is_loop(f) || journal_find(f, c))
        return;
    struct ir_value *outer = c->value.value;
    struct ir_value *arg = ir_region_arg(f->region, c->type, c->name);
    arg->buffer_name = c->buffer->name;
    VEC_PUSH(e->arena, f->journal, (struct journal_entry){.cell = c, .before = val_tensor(outer), .arg = arg});
    c->value = val_tensor(arg);
}

struct ir_value *buffer_value(struct elab *e, struct cell *c) {
    if (c->value.kind != VAL_TENSOR) {
        /* version 0: one read at the top of the function */
        struct ir_builder top = e->b;
        top.region = e->func->body;
        top.before = e->func->body->first;
        while (top.before && top.before->code == OP_read)
            top.before = top.before->next;
        top.span = c->span;
        c->value = val_tensor(ir_build_read(&top, c->buffer));
        c->value.value->buffer_name = c->buffer->name;
        c->versions = 0;
        VEC_PUSH(e->arena, e->touched, c);
    }
    buffer_enter_loops(e, c, e->frame);
    return c->value.value;
}

struct val cell_read(struct elab *e, struct cell *c) {
    if (c->alias)
        return cell_read(e, c->alias);
    if (c->buffer) {
        if (!e->in_function)
            return (struct val){.kind = VAL_BUFFER, .cell = c};
        return elab_from_value(e, buffer_value(e, c));
    }
    return c->value;
}

void cell_write(struct elab *e, struct cell *c, struct val v) {
    if (c->alias) {
        cell_write(e, c->alias, v);
        return;
    }
    struct val before = c->value; /* at entry of the region looked at: an inner loop's argument is unknown outside it */
    for (struct frame *f = e->frame; f && f != c->home; f = f->outer) {
        struct journal_entry *j = journal_find(f, c);
        if (!j) {
            VEC_PUSH(e->arena, f->journal, (struct journal_entry){.cell = c, .before = before});
            j = &f->journal.at[f->journal.n - 1];
        }
        j->assigned = true;
        before = j->before;
    }
    c->written = e->b.span;
    c->value = v;
    if (v.kind == VAL_TENSOR) {
        v.value->buffer_name = c->buffer ? c->buffer->name : c->name;
        v.value->version = ++c->versions;
    }
}

struct val binding_read(struct elab *e, struct binding *b) {
    b->used = true;
    if (!b->cell && b->value.kind == VAL_DATA && e->in_function) {
        const struct file_data *d = b->value.data;
        struct ir_value *v = ir_build_const(&e->b, d->type, d->bytes);
        v->name = d->name;
        return elab_from_value(e, v);
    }
    if (!b->cell)
        return b->value;
    struct cell *c = b->cell;
    while (c->alias)
        c = c->alias;
    if (c->buffer)
        return (struct val){.kind = VAL_BUFFER, .cell = c};
    return cell_read(e, c);
}

static int distance(const char *a, const char *b) {
    enum { LONGEST = 32 };
    int n = (int)strlen(a), m = (int)strlen(b);
    if (n > LONGEST || m > LONGEST)
        return 99;
    int row[LONGEST + 1];
    for (int j = 0; j <= m; j++)
        row[j] = j;
    for (int i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int above = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
            best = above + 1 < best ? above + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            diagonal = above;
            row[j] = best;
        }
    }
    return row[m];
}

const char *scope_similar(struct elab *e, struct scope *s, const char *name) {
    (void)e;
    const char *best = NULL;
    int length = (int)strlen(name), least = length <= 1 ? 1 : length <= 3 ? 2 : 3; /* any letter is like any other */
    for (; s; s = s->parent)
        for (struct binding *b = s->first; b; b = b->next) {
            int d = distance(name, b->name);
            if (d < least) {
                least = d;
                best = b->name;
            }
        }
    return best;
}
