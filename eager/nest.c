/* Running a nest: first its accumulators, each into a tensor over the parallel indices (as a matrix product where that
 * pays, else by a kern whose lanes are either the parallel or the reduction indices, whichever is estimated cheaper),
 * then its results, whose lanes are all parallel indices in row-major order: so updates happen in the order of the
 * language. */
#include "eager/kern.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct accumulator {
    int acc; /* in the nest */
    enum reduce_op op;
    enum dtype dtype; /* of the body */
    enum vec_kind kind;
    int node, a, b;    /* the body, or the factors of a fused multiply-accumulate and node < 0 */
    vec_acc_fn step;   /* muladd, or lane-wise reduction */
    void *lanes;       /* accumulator registers */
    int64_t *position; /* argmax, argmin */
    struct addr *place;
};

struct reduction {
    struct kern *k;
    bool over_lanes; /* the lanes are reduction indices */
    int level;       /* the accumulators live within */
    struct accumulator *accs;
    int count;
    int lo[NEST_MAX_INDICES], hi[NEST_MAX_INDICES]; /* nodes of ragged bounds */
    int64_t visited;                                /* reduction points since the accumulators began */
    bool ragged_within; /* some bounds depend on reduction indices: then the position is not `visited` */
    void *scratch;
};

struct nest_plan {
    struct arena arena;
    struct nest_context c;
    VEC(struct known {
        int symbol;
        int64_t value;
    })
    known;
    struct gemm **gemms;         /* by accumulator */
    struct reduction *reduction; /* of the accumulators that are no matrix products; may be NULL */
    int *direct;                 /* accumulator -> result that is just it, or -1 */
    struct kern *map;
    int *value; /* result -> node, or -1: an accumulator gave it */
    struct addr **target;
    bool *in_place; /* the node's register is the result's memory */
};

/* ---- planning ---- */

static void know_symbol(const struct ir_symbol *s, void *context) {
    struct nest_plan *p = context;
    for (int i = 0; i < p->known.n; i++)
        if (p->known.at[i].symbol == s->id)
            return;
    VEC_PUSH(&p->arena, p->known, (struct known){s->id, p->c.symbols[s->id]});
}

static void know_dims(ir_expr e, void *context) {
    if (e->kind == X_DIM)
        ir_dim_symbols(e->dim, know_symbol, context);
}

static void know_type(struct nest_plan *p, struct ir_type t) {
    for (int i = 0; i < t.rank; i++)
        ir_dim_symbols(t.dims[i], know_symbol, p);
}

static void collect_indices(ir_expr e, void *context) {
    if (e->kind == X_INDEX)
        *(uint64_t *)context |= (uint64_t)1 << e->index;
}

static void new_accumulator(struct reduction *r, struct accumulator *a, int acc) {
    struct kern *k = r->k;
    struct nest_context *c = k->c;
    const struct ir_acc *x = &c->nest->accs[acc];
    *a = (struct accumulator){.acc = acc, .op = x->op, .dtype = x->body->dtype, .kind = vec_kind_of(x->body->dtype)};
    bool arg = x->op == RED_ARGMAX || x->op == RED_ARGMIN;
    a->lanes = arena_alloc(c->arena, VEC_LANES * 8);
    a->position = arg ? ARENA_ARRAY(c->arena, int64_t, VEC_LANES) : NULL;
    a->node = -1;
    if (x->op == RED_SUM && (a->dtype == F32 || a->dtype == F64) && x->body->kind == X_FN && x->body->fn == FN_mul) {
        a->a = kern_add(k, x->body->args[0]);
        a->b = kern_add(k, x->body->args[1]);
        bool u = k->nodes.at[a->a].lane, v = k->nodes.at[a->b].lane;
        if (u || v)
            a->step = c->table->muladd[a->kind][u && v ? SHAPE_VV : u ? SHAPE_VS : SHAPE_SV];
    }
    if (!a->step) {
        a->node = kern_add(k, x->body);
        a->step = arg ? NULL : r->over_lanes ? c->table->fold[x->op][a->kind] : c->table->reduce[x->op][a->kind];
    }
    ir_expr at[NEST_MAX_INDICES];
    uint64_t deps = 0;
    for (int i = 0; i < c->nest->pars; i++)
        at[i] = ir_index(c->module, i);
    a->place = kern_address(k, c->nest->pars, c->extent, at, &deps);
}

/* With the lanes in the bits of `lanes`. */
static struct reduction *new_reduction(struct nest_plan *p, uint64_t lanes) {
    struct nest_context *c = &p->c;
    int pars = c->nest->pars, lane[NEST_MAX_INDICES], loops[NEST_MAX_INDICES + 1], lane_count = 0, loop_count = 0;
    struct reduction *r = ARENA_NEW(&p->arena, struct reduction);
    for (int i = 0; i < c->indices; i++)
        if (lanes >> i & 1)
            lane[lane_count++] = i;
    r->over_lanes = lane_count && lane[0] >= pars;
    for (int i = 0; i < pars; i++)
        if (!(lanes >> i & 1))
            loops[loop_count++] = i;
    if (!r->over_lanes)
        loops[loop_count++] = LOOP_BLOCKS;
    r->level = loop_count;
    for (int i = pars; i < c->indices; i++)
        if (!(lanes >> i & 1))
            loops[loop_count++] = i;
    if (r->over_lanes)
        loops[loop_count++] = LOOP_BLOCKS;
    r->k = kern_new(c, lane, lane_count, loops, loop_count);
    r->scratch = arena_alloc(&p->arena, VEC_LANES * 8);
    for (int i = pars; i < c->indices; i++)
        if (c->ragged[i]) {
            r->lo[i] = kern_add(r->k, c->nest->indices[i].lo);
            r->hi[i] = kern_add(r->k, c->nest->indices[i].hi);
            r->ragged_within = r->ragged_within || ir_nest_ragged_within(c->nest, i);
        }
    r->accs = ARENA_ARRAY(&p->arena, struct accumulator, c->nest->acc_count);
    for (int a = 0; a < c->nest->acc_count; a++)
        if (!p->gemms[a])
            new_accumulator(r, &r->accs[r->count++], a);
    kern_finish(r->k);
    return r;
}

static void plan_reduction(struct nest_plan *p) {
    struct nest_context *c = &p->c;
    int pars = c->nest->pars;
    uint64_t all_pars = ((uint64_t)1 << pars) - 1, reds = 0, bounds = 0;
    bool ragged = false;
    for (int i = pars; i < c->indices; i++) {
        reds |= (uint64_t)1 << i;
        if (c->ragged[i]) {
            ragged = true;
            ir_expr_walk(c->nest->indices[i].lo, collect_indices, &bounds);
            ir_expr_walk(c->nest->indices[i].hi, collect_indices, &bounds);
        }
    }
    /* Ragged bounds are for all lanes: what they depend on is looped over, and only the innermost index may be one. */
    struct reduction *a = new_reduction(p, all_pars & ~bounds);
    struct reduction *b = new_reduction(p, ragged ? (uint64_t)1 << (c->indices - 1) : reds);
    p->reduction = kern_cost(a->k) <= kern_cost(b->k) ? a : b;
}

static void plan_map(struct nest_plan *p) {
    struct nest_context *c = &p->c;
    const struct ir_op *op = c->op;
    int lanes[NEST_MAX_INDICES], loops[1] = {LOOP_BLOCKS};
    for (int i = 0; i < c->nest->pars; i++)
        lanes[i] = i;
    p->map = kern_new(c, lanes, c->nest->pars, loops, 1);
    for (int i = 0; i < op->result_count; i++) {
        const struct ir_nest_result *r = &c->nest->results[i];
        if (p->value[i] == -1)
            continue;
        p->value[i] = kern_add(p->map, r->value);
        if (r->base >= 0) {
            uint64_t deps = 0;
            int rank = op->operands[r->base]->type.rank;
            p->target[i] = kern_address(p->map, rank, c->operand_dims[r->base], r->target, &deps);
        } else {
            enum dtype t = r->value->dtype;
            const struct kern_node *n = &p->map->nodes.at[p->value[i]];
            p->in_place[i] = n->lane && (n->e->kind == X_FN || n->e->kind == X_CAST) &&
                             (t == F32 || t == F64 || t == I64 || t == U64);
            for (int j = 0; j < i; j++)
                p->in_place[i] = p->in_place[i] && p->value[j] != p->value[i];
        }
    }
    kern_finish(p->map);
}

struct nest_plan *nest_plan_new(const struct ir_op *op, const int64_t *symbols, const struct vec_table *table) {
    struct nest_plan *p = calloc(1, sizeof *p);
    const struct ir_nest *nest = &op->nest;
    if (!p)
        return NULL;
    struct arena *arena = &p->arena;
    struct nest_context *c = &p->c;
    *c = (struct nest_context){.arena = arena,
                               .table = table,
                               .module = op->parent->func->module,
                               .op = op,
                               .nest = nest,
                               .indices = nest->pars + nest->reds,
                               .symbols = symbols};
    c->operand_dims = ARENA_ARRAY(arena, int64_t *, op->operand_count);
    c->data = ARENA_ARRAY(arena, const void *, op->operand_count);
    c->acc_data = ARENA_ARRAY(arena, void *, nest->acc_count);
    for (int i = 0; i < op->operand_count; i++) {
        struct ir_type t = op->operands[i]->type;
        know_type(p, t);
        c->operand_dims[i] = ARENA_ARRAY(arena, int64_t, t.rank + 1);
        for (int d = 0; d < t.rank; d++)
            c->operand_dims[i][d] = ir_dim_eval(t.dims[d], symbols);
    }
    for (int i = 0; i < c->indices; i++) {
        const struct ir_nest_index *x = &nest->indices[i];
        ir_dim_symbols(x->extent, know_symbol, p);
        c->extent[i] = ir_dim_eval(x->extent, symbols);
        c->extent[i] = c->extent[i] < 0 ? 0 : c->extent[i];
        if (i < nest->pars)
            continue;
        ir_expr_walk(x->lo, know_dims, p);
        ir_expr_walk(x->hi, know_dims, p);
        /* Bounds that fold to numbers make a rectangle. */
        struct kern *probe = kern_new(c, NULL, 0, NULL, 0);
        ir_expr bound[2] = {x->lo, x->hi};
        int64_t number[2];
        for (int j = 0; j < 2; j++) {
            int64_t dims[1] = {1};
            uint64_t deps = 0;
            struct addr *a = kern_address(probe, 1, dims, &bound[j], &deps);
            c->ragged[i] = c->ragged[i] || a->offset.count || a->offset.uniform_count || a->offset.vector_count;
            number[j] = a->offset.c;
        }
        if (!c->ragged[i]) {
            c->lo[i] = number[0];
            c->extent[i] = number[1] > number[0] ? number[1] - number[0] : 0;
        }
    }
    p->gemms = ARENA_ARRAY(arena, struct gemm *, nest->acc_count);
    p->direct = ARENA_ARRAY(arena, int, nest->acc_count);
    p->value = ARENA_ARRAY(arena, int, op->result_count);
    p->target = ARENA_ARRAY(arena, struct addr *, op->result_count);
    p->in_place = ARENA_ARRAY(arena, bool, op->result_count);
    bool rest = false;
    for (int a = 0; a < nest->acc_count; a++) {
        ir_expr_walk(nest->accs[a].body, know_dims, p);
        p->direct[a] = -1;
        p->gemms[a] = gemm_new(c, a);
        rest = rest || !p->gemms[a];
    }
    if (rest)
        plan_reduction(p);
    for (int i = 0; i < op->result_count; i++) {
        const struct ir_nest_result *r = &nest->results[i];
        ir_expr_walk(r->value, know_dims, p);
        for (int d = 0; r->base >= 0 && d < op->operands[r->base]->type.rank; d++)
            ir_expr_walk(r->target[d], know_dims, p);
        if (r->base < 0 && r->value->kind == X_ACC && p->direct[r->value->index] < 0) {
            p->direct[r->value->index] = i;
            p->value[i] = -1;
        }
    }
    plan_map(p);
    c->symbols = NULL; /* belongs to the caller */
    return p;
}

bool nest_plan_fits(const struct nest_plan *p, const int64_t *symbols) {
    for (int i = 0; i < p->known.n; i++)
        if (symbols[p->known.at[i].symbol] != p->known.at[i].value)
            return false;
    return true;
}

void nest_plan_free(struct nest_plan *p) {
    if (p)
        arena_free(&p->arena);
    free(p);
}

/* ---- running ---- */

static double identity(enum reduce_op op) {
    switch (op) {
    case RED_PROD:
    case RED_ALL: return 1;
    case RED_MAX: return -INFINITY;
    case RED_MIN: return INFINITY;
    default: return 0;
    }
}

static void begin(struct reduction *r) {
    int64_t n = r->over_lanes ? 1 : r->k->count;
    r->visited = 0;
    for (int i = 0; i < r->count; i++) {
        struct accumulator *a = &r->accs[i];
        double v = identity(a->op);
        double f64 = v;
        float f32 = (float)v;
        int64_t whole = isinf(v) ? 0 : (int64_t)v;
        int32_t truth = v > 0;
        if (isinf(v) && dtype_is_int(a->dtype)) {
            int bits = 8 * dtype_size(a->dtype);
            if (dtype_is_signed(a->dtype))
                whole = v < 0 ? -1 - (int64_t)(UINT64_MAX >> (65 - bits)) : (int64_t)(UINT64_MAX >> (65 - bits));
            else
                whole = v < 0 ? 0 : (int64_t)(UINT64_MAX >> (64 - bits));
        }
        vec_splat(a->kind, a->lanes,
                  a->kind == KIND_F32    ? (void *)&f32
                  : a->kind == KIND_F64  ? (void *)&f64
                  : a->kind == KIND_BOOL ? (void *)&truth
                                         : (void *)&whole,
                  n);
        if (a->position)
            memset(a->position, 0, (size_t)n * sizeof(int64_t));
    }
}

static void end(struct reduction *r) {
    for (int i = 0; i < r->count; i++) {
        struct accumulator *a = &r->accs[i];
        kern_store_register(r->k, a->place, a->position ? (void *)a->position : a->lanes, a->position ? I32 : a->dtype,
                            r->k->c->acc_data[a->acc], false, !r->over_lanes);
    }
}

/* The first extremum; nan counts as beyond every number. `each`: one candidate a lane at position `at`; else all lanes
 * are candidates at consecutive positions for one accumulator. */
#define EXTREMUM(T)                                                              \
    do {                                                                         \
        T *best = a->lanes;                                                      \
        const T *p = v;                                                          \
        for (int64_t i = 0; i < n; i++) {                                        \
            int64_t j = each ? i : 0, here = each ? at : at + i;                 \
            bool better = a->op == RED_ARGMAX ? p[i] > best[j] : p[i] < best[j]; \
            if (first || better || (p[i] != p[i] && best[j] == best[j])) {       \
                best[j] = p[i];                                                  \
                a->position[j] = here;                                           \
                first = each && first;                                           \
            }                                                                    \
        }                                                                        \
    } while (0)

static void extremum(struct accumulator *a, const void *v, int64_t n, int64_t at, bool each, bool first) {
    switch (a->kind) {
    case KIND_F32: EXTREMUM(float); break;
    case KIND_F64: EXTREMUM(double); break;
    case KIND_INT: EXTREMUM(int64_t); break;
    case KIND_UINT: EXTREMUM(uint64_t); break;
    default: EXTREMUM(int32_t); break;
    }
}

/* ir_nest_position of the block's first lane. Lanes that are reduction indices are one ragged index or consecutive. */
static int64_t position(const struct reduction *r) {
    const struct kern *k = r->k;
    const struct nest_context *c = k->c;
    int64_t at = 0;
    for (int i = c->nest->pars; i < c->indices; i++) {
        int64_t lo = c->ragged[i] ? kern_integer(k, r->lo[i]) : c->lo[i], width = c->extent[i];
        if (c->ragged[i] && !ir_nest_ragged_within(c->nest, i))
            width = kern_integer(k, r->hi[i]) - lo;
        at = at * width + (r->over_lanes && k->lanes[0] == i ? k->begin : k->index[i] - lo);
    }
    return at;
}

static void accumulate(struct reduction *r) {
    struct kern *k = r->k;
    const struct vec_table *table = k->c->table;
    int64_t n = k->count;
    for (int i = 0; i < r->count; i++) {
        struct accumulator *a = &r->accs[i];
        if (a->node < 0) {
            const struct kern_node *x = &k->nodes.at[a->a], *y = &k->nodes.at[a->b];
            if (!r->over_lanes) {
                a->step(a->lanes, x->value, y->value, n);
            } else if (x->lane && y->lane) {
                table->dot[a->kind](a->lanes, x->value, y->value, n);
            } else {
                table->fn[FN_mul][a->kind][x->lane ? SHAPE_VS : SHAPE_SV](r->scratch, x->value, y->value, NULL, n);
                table->fold[RED_SUM][a->kind](a->lanes, r->scratch, NULL, n);
            }
        } else if (a->position) {
            extremum(a, kern_lanes(k, a->node), n, r->ragged_within ? position(r) : r->visited, !r->over_lanes,
                     !r->visited);
        } else {
            a->step(a->lanes, kern_lanes(k, a->node), NULL, n);
        }
    }
    r->visited += r->over_lanes ? n : 1;
}

static void walk(struct reduction *r, int level) {
    struct kern *k = r->k;
    kern_level(k, level);
    if (level == r->level)
        begin(r);
    if (level == k->loop_count) {
        accumulate(r);
    } else if (k->loops[level] == LOOP_BLOCKS) {
        if (k->lane_count && k->c->ragged[k->lanes[0]]) {
            int x = k->lanes[0];
            k->index[x] = kern_integer(k, r->lo[x]);
            k->lane_total = kern_integer(k, r->hi[x]) - k->index[x];
        }
        for (int64_t b = 0; b < k->lane_total; b += VEC_LANES) {
            kern_block(k, b);
            walk(r, level + 1);
        }
    } else {
        int x = k->loops[level];
        int64_t lo = k->c->lo[x], hi = lo + k->c->extent[x];
        if (k->c->ragged[x]) {
            lo = kern_integer(k, r->lo[x]);
            hi = kern_integer(k, r->hi[x]);
        }
        for (k->index[x] = lo; k->index[x] < hi; k->index[x]++)
            walk(r, level + 1);
        k->index[x] = lo;
    }
    if (level == r->level)
        end(r);
}

static void run_map(struct nest_plan *p, const struct nest_run *run) {
    struct kern *k = p->map;
    const struct ir_op *op = p->c.op;
    bool any = false;
    for (int i = 0; i < op->result_count; i++)
        any = any || p->value[i] >= 0;
    if (!any || k->lane_total == 0)
        return;
    kern_level(k, 0);
    for (int64_t b = 0; b < k->lane_total; b += VEC_LANES) {
        kern_block(k, b);
        for (int i = 0; i < op->result_count; i++)
            if (p->in_place[i]) {
                struct kern_node *n = &k->nodes.at[p->value[i]];
                n->value = n->buf = (char *)run->results[i] + b * dtype_size(n->dtype);
            }
        kern_level(k, 1);
        for (int i = 0; i < op->result_count; i++) {
            const struct ir_nest_result *r = &p->c.nest->results[i];
            if (p->value[i] < 0 || p->in_place[i])
                continue;
            enum dtype t = op->results[i]->type.dtype;
            if (r->base >= 0)
                kern_store(k, p->target[i], p->value[i], t, run->results[i], r->combine == COMBINE_ADD);
            else
                vec_store(t, (char *)run->results[i] + b * dtype_size(t), 1, kern_lanes(k, p->value[i]), k->count);
        }
    }
}

bool nest_plan_run(struct nest_plan *p, const struct nest_run *run) {
    struct nest_context *c = &p->c;
    const struct ir_nest *nest = c->nest;
    int64_t points = 1;
    memcpy(c->data, run->operands, sizeof *c->data * (size_t)c->op->operand_count);
    for (int i = 0; i < nest->pars; i++)
        points *= c->extent[i];
    if (points == 0)
        return true;
    bool ok = true;
    for (int a = 0; a < nest->acc_count; a++) {
        c->acc_data[a] = p->direct[a] >= 0 ? run->results[p->direct[a]] : malloc((size_t)points * 8);
        ok = ok && c->acc_data[a];
    }
    for (int a = 0; a < nest->acc_count && ok; a++)
        if (p->gemms[a])
            ok = gemm_run(p->gemms[a], c->acc_data[a]);
    if (ok && p->reduction)
        walk(p->reduction, 0);
    if (ok)
        run_map(p, run);
    for (int a = 0; a < nest->acc_count; a++)
        if (p->direct[a] < 0)
            free(c->acc_data[a]);
    return ok;
}
