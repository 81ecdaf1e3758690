/* Running kerns: see kern.h. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O2")
#endif
#include "eager/kern.h"

#include <string.h>

void kern_block(struct kern *k, int64_t begin) {
    k->begin = begin;
    k->count = k->lane_total - begin < VEC_LANES ? k->lane_total - begin : VEC_LANES;
    for (int j = k->lane_count - 1; j > 0; j--) {
        k->coordinate[j] = begin % k->lane_extent[j];
        begin /= k->lane_extent[j];
    }
    k->coordinate[0] = begin;
}

int64_t kern_integer(const struct kern *k, int node) {
    return *(const int64_t *)k->nodes.at[node].value;
}

static int64_t lin_base(const struct kern *k, const struct lin *l) {
    int64_t v = l->c;
    for (int i = 0; i < l->count; i++)
        v += l->coefficient[i] * k->index[l->index[i]];
    for (int i = 0; i < l->uniform_count; i++)
        v += l->uniform_coefficient[i] * kern_integer(k, l->uniform[i]);
    return v;
}

/* The runs of a block, one after the other, with the values of an address's forms (the offset, then the checks) kept up
 * by additions. */
enum { MAX_FORMS = NEST_MAX_INDICES + 1 };
struct runs {
    const struct kern *k;
    const struct addr *a;
    int forms;
    int64_t position, run, left; /* where in the run; lanes in a run; lanes left in the block */
    int64_t start[MAX_FORMS];    /* at position 0 of the current run */
    int64_t step[MAX_FORMS];     /* along it */
    const int64_t *lane[MAX_FORMS];
    int64_t coordinate[NEST_MAX_INDICES]; /* of the prefix */
};

static inline void runs_begin(struct runs *r, const struct kern *k, const struct addr *a) {
    int lanes = k->lane_count, prefix = a->prefix;
    r->k = k;
    r->a = a;
    r->forms = a->checks + 1;
    r->left = k->count;
    r->position = 0;
    for (int j = 0; j < prefix; j++)
        r->coordinate[j] = k->coordinate[j];
    for (int j = prefix; j < lanes; j++)
        r->position = r->position * (j == prefix ? 1 : k->lane_extent[j]) + k->coordinate[j];
    r->run = prefix == 0 ? k->lane_total : a->run; /* a ragged lane has another length each time */
    for (int f = 0; f < r->forms; f++) {
        const struct lin *l = f == 0 ? &a->offset : &a->check[f - 1];
        int64_t v = lin_base(k, l);
        for (int j = 0; j < prefix; j++)
            v += l->lane[j] * r->coordinate[j];
        r->start[f] = v;
        r->step[f] = lanes ? l->lane[lanes - 1] : 0;
        r->lane[f] = l->lane;
    }
}

/* A form's value at the run's first lane of this block. */
static inline int64_t runs_value(const struct runs *r, int form) {
    return r->start[form] + r->step[form] * r->position;
}

static inline int64_t runs_length(const struct runs *r) {
    int64_t n = r->run - r->position;
    return n < r->left ? n : r->left;
}

static inline void runs_next(struct runs *r, int64_t length) {
    r->left -= length;
    r->position = 0;
    for (int j = r->a->prefix - 1; j >= 0; j--) {
        int64_t extent = r->k->lane_extent[j];
        for (int f = 0; f < r->forms; f++)
            r->start[f] += r->lane[f][j];
        if (++r->coordinate[j] < extent)
            break;
        for (int f = 0; f < r->forms; f++)
            r->start[f] -= r->lane[f][j] * extent;
        r->coordinate[j] = 0;
    }
}

static int64_t ceil_div(int64_t a, int64_t b) /* b > 0 */
{
    return a >= 0 ? (a + b - 1) / b : -(-a / b);
}

/* The part [*from, *to) of a run in which 0 <= v + step * t < extent. */
static inline void cut(int64_t v, int64_t step, int64_t extent, int64_t *from, int64_t *to) {
    int64_t a = *from, b = *to;
    if (step == 1) {
        a = -v > a ? -v : a;
        b = extent - v < b ? extent - v : b;
    } else if (step == 0) {
        if (v < 0 || v >= extent)
            b = a;
    } else if (step > 0) {
        int64_t lo = ceil_div(-v, step), hi = ceil_div(extent - v, step);
        a = lo > a ? lo : a;
        b = hi < b ? hi : b;
    } else {
        int64_t lo = ceil_div(v - extent + 1, -step), hi = ceil_div(v + 1, -step);
        a = lo > a ? lo : a;
        b = hi < b ? hi : b;
    }
    *from = a;
    *to = b < a ? a : b;
}

/* Offsets and validity lane by lane, where registers take part in the address. */
static void expand(struct kern *k, const struct addr *a) {
    struct runs r;
    int64_t *offset = k->offsets, *value = k->scratch, at = 0;
    uint8_t *ok = k->ok;
    memset(ok, 1, (size_t)k->count);
    runs_begin(&r, k, a);
    while (r.left) {
        int64_t n = runs_length(&r), v = runs_value(&r, 0);
        for (int64_t t = 0; t < n; t++)
            offset[at + t] = v + r.step[0] * t;
        for (int i = 0; i < a->checks; i++) {
            const struct lin *l = &a->check[i];
            v = runs_value(&r, i + 1);
            for (int64_t t = 0; t < n; t++)
                value[t] = v + r.step[i + 1] * t;
            for (int j = 0; j < l->vector_count; j++) {
                const int64_t *p = (const int64_t *)k->nodes.at[l->vector[j]].value + at;
                for (int64_t t = 0; t < n; t++)
                    value[t] += l->vector_coefficient[j] * p[t];
            }
            for (int64_t t = 0; t < n; t++)
                ok[at + t] &= (uint8_t)((uint64_t)value[t] < (uint64_t)a->extent[i]);
        }
        at += n;
        runs_next(&r, n);
    }
    for (int j = 0; j < a->offset.vector_count; j++) {
        const int64_t *p = k->nodes.at[a->offset.vector[j]].value;
        for (int64_t t = 0; t < k->count; t++)
            offset[t] += a->offset.vector_coefficient[j] * p[t];
    }
}

static bool addr_is_vector(const struct addr *a) {
    if (a->offset.vector_count)
        return true;
    for (int i = 0; i < a->checks; i++)
        if (a->check[i].vector_count)
            return true;
    return false;
}

/* Elements [at, at + n) of the value outside the array. */
static inline void fill_else(struct kern *k, const struct kern_node *n, char *r, int64_t at, int64_t count) {
    int size = vec_kind_size(n->kind);
    if (count <= 0)
        return;
    if (n->arg[0] < 0) {
        memset(r + at * size, 0, (size_t)(count * size));
        return;
    }
    const struct kern_node *o = &k->nodes.at[n->arg[0]];
    if (o->lane)
        memcpy(r + at * size, (const char *)o->value + at * size, (size_t)(count * size));
    else
        vec_splat(n->kind, r + at * size, o->value, count);
}

static bool is_native(enum dtype t) {
    return t == F32 || t == F64 || t == I64 || t == U64;
}

static void load(struct kern *k, struct kern_node *n) {
    const struct addr *a = n->addr;
    const char *data = n->e->kind == X_ACC ? k->c->acc_data[n->e->index] : k->c->data[n->e->index];
    int64_t element = dtype_size(n->dtype), size = vec_kind_size(n->kind), step;
    char *r = n->value = n->buf;
    if (!n->lane) {
        bool inside = true;
        for (int i = 0; i < a->checks; i++)
            inside = inside && (uint64_t)lin_base(k, &a->check[i]) < (uint64_t)a->extent[i];
        if (inside)
            vec_load(n->dtype, r, data + lin_base(k, &a->offset) * element, 0, 1);
        else
            fill_else(k, n, r, 0, 1);
        return;
    }
    if (addr_is_vector(a)) {
        expand(k, a);
        fill_else(k, n, r, 0, k->count);
        vec_gather(n->dtype, r, data, k->offsets, k->ok, k->count);
        return;
    }
    struct runs runs;
    runs_begin(&runs, k, a);
    bool native = is_native(n->dtype);
    step = runs.step[0];
    for (int64_t at = 0; runs.left;) {
        int64_t length = runs_length(&runs), from = 0, to = length;
        for (int i = 0; i < a->checks; i++)
            cut(runs_value(&runs, i + 1), runs.step[i + 1], a->extent[i], &from, &to);
        const char *p = data + (runs_value(&runs, 0) + from * step) * element;
        if (native && step == 1) {
            if (to - from == k->count) {
                n->value = (void *)(uintptr_t)p; /* only read */
                return;
            }
            if (to > from)
                memcpy(r + (at + from) * size, p, (size_t)((to - from) * size));
        } else if (to > from) {
            vec_load(n->dtype, r + (at + from) * size, p, step, to - from);
        }
        if (to <= from)
            from = to = length;
        if (a->checks && to - from < length) {
            fill_else(k, n, r, at, from);
            fill_else(k, n, r, at + to, length - to);
        }
        at += length;
        runs_next(&runs, length);
    }
}

static void index_value(struct kern *k, struct kern_node *n) {
    int64_t *r = n->buf, at = 0;
    if (!n->lane) {
        *r = lin_base(k, &n->addr->offset);
        return;
    }
    struct runs runs;
    runs_begin(&runs, k, n->addr);
    while (runs.left) {
        int64_t length = runs_length(&runs), v = runs_value(&runs, 0), step = runs.step[0];
        for (int64_t t = 0; t < length; t++)
            r[at + t] = v + step * t;
        at += length;
        runs_next(&runs, length);
    }
}

static void evaluate(struct kern *k, struct kern_node *n) {
    int64_t count = n->lane ? k->count : 1;
    struct kern_node *nodes = k->nodes.at;
    switch (n->e->kind) {
    case X_LOAD:
    case X_ACC: load(k, n); break;
    case X_INDEX: index_value(k, n); break;
    case X_CAST: vec_cast(n->dtype, n->buf, nodes[n->arg[0]].dtype, nodes[n->arg[0]].value, count); break;
    case X_BITCAST:
        vec_store(nodes[n->arg[0]].dtype, k->scratch, 1, nodes[n->arg[0]].value, count);
        vec_load(n->dtype, n->buf, k->scratch, 1, count);
        break;
    case X_FN: {
        const void *v[3] = {NULL, NULL, NULL};
        for (int i = 0; i < n->e->count; i++) {
            struct kern_node *a = &nodes[n->arg[i]];
            v[i] = a->value;
            if (n->splat[i]) {
                bool constant = a->e->kind == X_CONST;
                if (!constant || !(n->splatted)) /* constants: the whole register once */
                    vec_splat(a->kind, n->splat[i], a->value, constant ? VEC_LANES : count);
                v[i] = n->splat[i];
            }
        }
        n->splatted = true;
        if (n->divisor) {
            vec_divide(n->buf, v[0], n->divisor, n->e->fn == FN_mod, count);
            break;
        }
        n->fn(n->buf, v[0], v[1], v[2], count);
        if (n->kind != KIND_F64 && n->kind != KIND_BOOL)
            vec_wrap(n->dtype, n->buf, count);
        break;
    }
    default: break;
    }
}

void kern_level(struct kern *k, int level) {
    const int *list = k->levels[level];
    for (int i = 0; i < k->level_count[level]; i++)
        evaluate(k, &k->nodes.at[list[i]]);
}

void kern_all(struct kern *k) {
    for (int l = 0; l <= k->loop_count; l++)
        kern_level(k, l);
}

const void *kern_lanes(struct kern *k, int node) {
    struct kern_node *n = &k->nodes.at[node];
    if (n->lane)
        return n->value;
    vec_splat(n->kind, k->scratch, n->value, k->count);
    return k->scratch;
}

void kern_store_register(struct kern *k, const struct addr *a, const void *r_, enum dtype t, void *data, bool add,
                         bool lane) {
    const char *r = r_;
    int64_t element = dtype_size(t), size = vec_kind_size(vec_kind_of(t)), at = 0, step;
    if (!lane) { /* neither value nor place depend on lanes: one element */
        for (int i = 0; i < a->checks; i++)
            if ((uint64_t)lin_base(k, &a->check[i]) >= (uint64_t)a->extent[i])
                return;
        char *p = (char *)data + lin_base(k, &a->offset) * element;
        if (add)
            vec_store_add(t, p, 0, r, 1);
        else
            vec_store(t, p, 0, r, 1);
        return;
    }
    if (addr_is_vector(a)) {
        expand(k, a);
        vec_scatter(t, data, k->offsets, k->ok, r, add, k->count);
        return;
    }
    struct runs runs;
    runs_begin(&runs, k, a);
    step = runs.step[0];
    while (runs.left) {
        int64_t length = runs_length(&runs), from = 0, to = length;
        for (int i = 0; i < a->checks; i++)
            cut(runs_value(&runs, i + 1), runs.step[i + 1], a->extent[i], &from, &to);
        if (to > from) {
            char *p = (char *)data + (runs_value(&runs, 0) + from * step) * element;
            if (add)
                vec_store_add(t, p, step, r + (at + from) * size, to - from);
            else
                vec_store(t, p, step, r + (at + from) * size, to - from);
        }
        at += length;
        runs_next(&runs, length);
    }
}

void kern_store(struct kern *k, const struct addr *a, int node, enum dtype t, void *data, bool add) {
    if (k->nodes.at[node].lane) {
        kern_store_register(k, a, k->nodes.at[node].value, t, data, add, true);
    } else if (k->lane_total == 1) {
        kern_store_register(k, a, k->nodes.at[node].value, t, data, add, false);
    } else { /* expand() uses the scratch register too: keep the copies elsewhere */
        char copies[VEC_LANES * 8];
        vec_splat(k->nodes.at[node].kind, copies, k->nodes.at[node].value, k->count);
        kern_store_register(k, a, copies, t, data, add, true);
    }
}
