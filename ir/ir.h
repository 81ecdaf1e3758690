/* The intermediate representation: SSA values made by operations in nested regions. See docs/ir.md.
 *
 * Everything is a value, mutation included. An element write takes a tensor value (one version) and gives the next
 * version as a new value; elaboration numbers the versions of params, states, inout arguments and vars, and joins them
 * with ordinary carried values at loops and branches. A function reads each buffer it uses once (`read`, version 0) and
 * says once what each holds at exit (`write`). Passes prove where a version may live in its predecessor's storage.
 *
 * Order is never implied by position except among OPAQUE operations: whoever may only run after a check lists the
 * check's result among its operands.
 */

/* Laid out by hand. */
/* clang-format off */
#ifndef MXCC_IR_IR_H
#define MXCC_IR_IR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/diag.h"

/* ---- element types ---------------------------------------------------------------------------------------------- */

enum dtype { F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, BOOL, DTYPE_COUNT };

const char *dtype_name(enum dtype t); /* "f32" */
bool dtype_parse(const char *name, enum dtype *t);
int dtype_size(enum dtype t); /* bytes */
bool dtype_is_float(enum dtype t);
bool dtype_is_int(enum dtype t); /* bool is neither */
bool dtype_is_signed(enum dtype t);

struct ir_module;
struct ir_func;
struct ir_region;
struct ir_op;

/* ---- dimensions ------------------------------------------------------------------------------------------------- */

/* A canonical integer polynomial over symbols and opaque atoms (floor quotients, remainders, max, min), interned in
 * its module: equal dimensions are equal pointers. */
struct ir_dim;
typedef const struct ir_dim *ir_dim;

/* A dimension symbol: a run-time size of a function's argument, or a run-time integer made one by an `dim` operation. */
struct ir_symbol {
    int id;           /* index in module->symbols */
    const char *name; /* "N" */
    int64_t lo, hi;   /* both inclusive; hi is what memory is planned for */
    struct ir_func *func; /* where it is bound */
    struct ir_op *op;     /* the `dim` operation, or NULL for an argument's dimension */
    struct span span;
};

struct ir_symbol *ir_symbol_new(struct ir_func *f, const char *name, int64_t lo, int64_t hi, struct span span);
ir_dim ir_dim_const(struct ir_module *m, int64_t value);
ir_dim ir_dim_symbol(struct ir_module *m, const struct ir_symbol *s);
ir_dim ir_dim_add(struct ir_module *m, ir_dim a, ir_dim b);
ir_dim ir_dim_sub(struct ir_module *m, ir_dim a, ir_dim b);
ir_dim ir_dim_mul(struct ir_module *m, ir_dim a, ir_dim b);
ir_dim ir_dim_div(struct ir_module *m, ir_dim a, ir_dim b); /* floor quotient; exact on polynomials where possible */
ir_dim ir_dim_mod(struct ir_module *m, ir_dim a, ir_dim b); /* sign of the divisor */
ir_dim ir_dim_max(struct ir_module *m, ir_dim a, ir_dim b);
ir_dim ir_dim_min(struct ir_module *m, ir_dim a, ir_dim b);
bool ir_dim_is_const(ir_dim d, int64_t *value);
int64_t ir_dim_lower(ir_dim d); /* interval arithmetic over the symbols; saturates at ±IR_DIM_LIMIT */
int64_t ir_dim_upper(ir_dim d);
/* An extent that says nothing: of an index whose bound is data, as large as any number of 32 bits may be. */
static inline bool ir_extent_is_open(ir_dim extent) {
    return ir_dim_upper(extent) >= INT32_MAX;
}
bool ir_dim_le(struct ir_module *m, ir_dim a, ir_dim b); /* proven a <= b */
bool ir_dim_lt(struct ir_module *m, ir_dim a, ir_dim b);
/* The value under values[symbol id]. Division by zero gives 0. */
int64_t ir_dim_eval(ir_dim d, const int64_t *values);
/* Calls fn for each symbol that occurs. */
void ir_dim_symbols(ir_dim d, void (*fn)(const struct ir_symbol *, void *), void *context);
/* d with each symbol replaced by map[id] where that is not NULL. */
ir_dim ir_dim_subst(struct ir_module *m, ir_dim d, const ir_dim *map);
#define IR_DIM_LIMIT ((int64_t)1 << 60)

/* Structure, for printers that write a dimension as an expression of their language. */
enum dim_atom { ATOM_SYMBOL, ATOM_DIV, ATOM_MOD, ATOM_MAX, ATOM_MIN };
struct ir_dim_term { /* coefficient * product of atoms (repeated for powers) */
    int64_t coefficient;
    int count;
    const struct ir_dim_atom *const *atoms;
};
struct ir_dim_atom {
    enum dim_atom kind;
    const struct ir_symbol *symbol; /* SYMBOL */
    ir_dim a, b;                    /* others */
    int id;
};
struct ir_dim { /* sum of terms; no terms: 0; a term without atoms is the constant */
    int count;
    const struct ir_dim_term *terms;
    struct ir_module *module;
    int id;
};

/* ---- types and values ------------------------------------------------------------------------------------------- */

struct ir_type {
    enum dtype dtype;
    int rank;
    const ir_dim *dims; /* [rank]; row-major, contiguous at the run-time extents */
};

struct ir_type ir_type_make(struct ir_module *m, enum dtype t, int rank, const ir_dim *dims); /* copies dims */
bool ir_type_equal(struct ir_type a, struct ir_type b);
ir_dim ir_type_elements(struct ir_module *m, struct ir_type t);
int64_t ir_type_bytes_upper(struct ir_type t); /* at the dimensions' upper bounds */

struct ir_value {
    int id;            /* dense in its function: func->value_count bounds it */
    struct ir_type type;
    struct ir_op *op;  /* what makes it, or NULL for a region's argument */
    int index;         /* which result, or which argument */
    struct ir_region *region; /* for arguments */
    const char *name;  /* from the source, for readers; never decides anything. May be NULL */
    /* The named thing this is a version of (param, state, var, inout), for messages; NULL if none. */
    const char *buffer_name;
    int version;
    struct span span;
};

/* ---- scalar expressions ----------------------------------------------------------------------------------------- */

enum scalar_fn {
#define S(name, ...) FN_##name,
#include "ir/scalar.def"
#undef S
    FN_COUNT
};

enum scalar_class { CLASS_NUM, CLASS_FLT, CLASS_INT, CLASS_CMP, CLASS_LOG, CLASS_BIT, CLASS_SEL };
struct scalar_info {
    const char *name;
    int arity;
    enum scalar_class type_class;
    const char *text;           /* the C expression */
    const char *derivatives[3]; /* in text form */
};
extern const struct scalar_info scalar_table[FN_COUNT];
bool scalar_parse(const char *name, enum scalar_fn *fn);

enum ir_expr_kind {
    X_CONST,   /* a number of the dtype */
    X_INDEX,   /* index variable `index` of the nest: parallel ones first, then reduction ones; i64 */
    X_DIM,     /* a dimension; i64 */
    X_LOAD,    /* operand `slot` at args[0 .. rank); if guarded, args[rank] is the value outside */
    X_FN,      /* a scalar function of args */
    X_CAST,    /* args[0] converted to dtype as the language says */
    X_BITCAST, /* args[0]'s bits as dtype of the same size */
    X_ACC,     /* accumulator `index` of the nest: only in result expressions of a nest that reduces */
};

/* Immutable, interned in its module: equal expressions are equal pointers, so an expression is a DAG. */
struct ir_expr {
    enum ir_expr_kind kind;
    enum dtype dtype;
    uint8_t count;    /* of args */
    bool guarded;     /* LOAD with an `else` */
    enum scalar_fn fn; /* FN */
    int index;        /* INDEX, ACC; LOAD: the operand's slot */
    ir_dim dim;       /* DIM */
    union {
        double f;     /* CONST of a float type, rounded to it */
        int64_t i;    /* CONST of an integer type or bool, wrapped to it */
    } value;
    int id;           /* dense in the module, children before parents: memo tables are arrays of it */
    const struct ir_expr *args[];
};
typedef const struct ir_expr *ir_expr;

ir_expr ir_const_float(struct ir_module *m, enum dtype t, double value);
ir_expr ir_const_int(struct ir_module *m, enum dtype t, int64_t value);
ir_expr ir_const_number(struct ir_module *m, enum dtype t, double value); /* of any dtype */
ir_expr ir_index(struct ir_module *m, int index);
ir_expr ir_dim_expr(struct ir_module *m, ir_dim d); /* an i64 CONST if d is constant */
/* A load from operand `slot`, whose type gives rank and dtype; otherwise NULL: unguarded. */
ir_expr ir_load(struct ir_module *m, int slot, enum dtype t, int rank, const ir_expr *at, ir_expr otherwise);
ir_expr ir_acc(struct ir_module *m, int acc, enum dtype t);
/* Build a call; folds constants and applies algebra that is exact in every type (x + 0 on integers, where(true, …),
 * x * 1, integer index algebra: (i * 4 + j) / 4 with 0 <= j < 4 needs ranges and is left to simplify). */
ir_expr ir_fn(struct ir_module *m, enum scalar_fn fn, const ir_expr *args);
ir_expr ir_fn1(struct ir_module *m, enum scalar_fn fn, ir_expr a);
ir_expr ir_fn2(struct ir_module *m, enum scalar_fn fn, ir_expr a, ir_expr b);
ir_expr ir_fn3(struct ir_module *m, enum scalar_fn fn, ir_expr a, ir_expr b, ir_expr c);
ir_expr ir_cast(struct ir_module *m, enum dtype t, ir_expr a);
ir_expr ir_bitcast(struct ir_module *m, enum dtype t, ir_expr a);
bool ir_expr_is_const(ir_expr e, double *number);
/* The same kind of node with other args (count as before): for rewriting; folds like ir_fn. */
ir_expr ir_expr_with_args(struct ir_module *m, ir_expr e, const ir_expr *args);

/* Rewrites bottom up with a memo: for each INDEX, DIM, LOAD, ACC leaf-like node (after its args were rewritten) fn may
 * return a replacement, or NULL to keep the node with its rewritten args. */
struct ir_rewrite {
    struct ir_module *module;
    ir_expr (*fn)(struct ir_rewrite *, ir_expr original, ir_expr rewritten);
    void *context;
    void *memo; /* private; start with NULL. ir_rewrite_free */
};
ir_expr ir_rewrite_expr(struct ir_rewrite *r, ir_expr e);
void ir_rewrite_free(struct ir_rewrite *r);
/* Calls fn once for each distinct node under e, children first. */
void ir_expr_walk(ir_expr e, void (*fn)(ir_expr, void *), void *context);

/* ---- operations ------------------------------------------------------------------------------------------------- */

enum ir_opcode {
#define N(name, ...) OP_##name,
#include "ir/node.def"
#undef N
    OP_COUNT
};
enum ir_effect { EFFECT_PURE, EFFECT_READS, EFFECT_WRITES, EFFECT_CHECKS, EFFECT_OPAQUE };
struct ir_opinfo {
    const char *name;
    enum ir_effect effect;
    const char *text;
};
extern const struct ir_opinfo ir_optable[OP_COUNT];

enum rows_by { ROWS_BY_THREADS, ROWS_BY_WARPS, ROWS_BY_BLOCKS, ROWS_BY_COUNT }; /* who computes a row */
extern const char *const rows_by_names[ROWS_BY_COUNT]; /* "threads", … */
enum reduce_op { RED_SUM, RED_PROD, RED_MAX, RED_MIN, RED_ANY, RED_ALL, RED_ARGMAX, RED_ARGMIN, RED_COUNT };
extern const char *const reduce_names[RED_COUNT]; /* "sum", … */

struct ir_nest_index {
    const char *name; /* for readers; may repeat */
    /* parallel: 0 .. extent. */
    ir_dim extent;
    /* reduction: lo .. hi, i64 expressions over parallel indices, earlier reduction indices, loads, dims. extent is
     * then an upper bound of hi - lo. */
    ir_expr lo, hi;
};

/* A parameter of a kernel function: booleans are 0 and 1. */
struct ir_static {
    const char *name;
    double value;
};

enum combine { COMBINE_SET, COMBINE_ADD };

/* One accumulator of a reducing nest. Empty: the identity (argmax: 0). argmax/argmin: dtype i32, the row-major position
 * of the first extremum within the reduction's window: ir_nest_position. f16 and bf16 sums accumulate in f32 and round once: their body is
 * an f32 expression and the result expression casts. */
struct ir_acc {
    enum reduce_op op;
    ir_expr body; /* over all indices */
};

/* One result of a nest. */
struct ir_nest_result {
    ir_expr value;  /* over the parallel indices (and ACC if the nest reduces, else no ACC) */
    /* base < 0: a fresh tensor of the parallel extents. Else: the next version of operand `base`, equal to it except at
     * target[0 .. rank of base), where it is set or added to. Iterations happen as if in row-major order: with equal
     * targets SET leaves the last and ADD accumulates. An update nest may read the base's old version by other slots. */
    int base;
    enum combine combine;
    const ir_expr *target;
};

struct ir_nest {
    int pars, reds;
    struct ir_nest_index *indices; /* [pars + reds] */
    int acc_count;
    struct ir_acc *accs;
    struct ir_nest_result *results; /* [op->result_count] */
};

struct ir_region {
    struct ir_op *op;     /* the operation it belongs to; NULL for a function's body */
    struct ir_func *func;
    struct ir_value **args;
    int arg_count;
    struct ir_op *first, *last;
    struct ir_value **yields; /* what it gives back; own or outer values */
    int yield_count;
};

struct ir_op {
    enum ir_opcode code;
    struct ir_region *parent;
    struct ir_op *prev, *next;
    struct ir_value **operands; /* a nest's may hold more than its loads name: order after checks */
    int operand_count;
    struct ir_value **results;
    int result_count;
    struct ir_region **regions;
    int region_count;
    struct span span;        /* where in the source; its call stack is not kept */
    bool adjoint;            /* made by differentiate: computes gradients, or saves what they need; for messages */
    const char *name;        /* kernel, extern: its name; check, print: the text; rng: "" */
    union {
        struct ir_nest nest;
        struct { const void *data; } constant; /* result's bytes, row-major, native endian */
        struct { int axis; bool descending; ir_dim limit; } sort; /* limit NULL: all */
        struct { int axis; enum reduce_op op; bool reverse, exclusive; } scan; /* SUM or PROD (MAX, MIN) */
        struct { int place; } rng;       /* operands: enclosing loop counters (i64), outermost first */
        /* operand: rank 0 integer; no result. inside: proven to lie in the symbol's interval, so that it cannot fail */
        struct { struct ir_symbol *symbol; bool inside; } dim;
        /* if: operand 0 the condition (rank 0 bool); regions then, else; results = yields.
         * for: operands lo, hi (rank 0 i64), then initial carried values; region args: index (i64), carried;
         *      yields: next carried; results: last carried. `limit` bounds the trips (constant or NULL: unbounded).
         * while: operands: initial carried; regions cond (args: carried; yields: bool) and body; limit as for. */
        struct { ir_dim limit; } loop;
        /* kernel: regions: [0] definition (args = operands), [1] gradient if region_count == 2: args = the differentiable
         * operands' positions in `of`, i.e. all operands, results, gradients of float results; yields: one gradient
         * for each float operand (same type as the operand).
         * tuned: declared `kernel fn` (else only a custom gradient or grouping). statics: of a kernel of the library, its
         * parameters that are numbers known at compile time. What the target has a kernel for has no regions after `select`;
         * of its second and third operands it then reads no more than the first `limit` positions of the axis before the last, which
         * is what the function was called with (NULL: all). */
        struct { bool tuned; int static_count; const struct ir_static *statics; ir_dim limit; } kernel;
        /* grad: operand 0 the scalar; the others what to differentiate with respect to. Where wrt_buffers[i] is not NULL,
         * operand i + 1 is a placeholder (any version) and the version that reaches the scalar is meant. */
        struct { struct ir_buffer **wrt_buffers; } grad;
        struct {
            const char *header, *symbol;
            /* C parameters in order: >= 0 operand; < 0: ~k result k; scalars by value; dims as i64 constants are
             * operands too. reads/writes come from const-ness. */
            int *params;
            int param_count;
            bool returns; /* result 0 is the C return value */
        } external;
        struct { enum rows_by by; } rows; /* region 0: nests over args = operands; yields: results */
        struct { struct ir_buffer *buffer; } buffer; /* read (result), write (operand 0) */
    };
};

/* ---- functions, buffers, modules ---------------------------------------------------------------------------------- */

enum buffer_kind { BUFFER_PARAM, BUFFER_STATE };

struct ir_buffer {
    int id;           /* index in module->buffers: the order of declaration, depth first */
    const char *name; /* "net.conv1.weight" */
    enum buffer_kind kind;
    struct ir_type type; /* constant dimensions */
    struct span span;
};

struct ir_func {
    struct ir_module *module;
    const char *name;
    bool is_export, is_train, is_incremental;
    bool uses_random;
    int id;
    struct ir_region *body; /* args: the function's arguments; yields: its results, then final values of inout arguments
                             * in order of inout_args */
    const char **arg_names;
    bool *arg_inout;
    int result_count;       /* yields beyond are inout values, in order of the arguments */
    const char **result_names; /* NULL entries: unnamed */
    struct ir_symbol **symbols; /* dimensions bound by arguments, in order of appearance: C parameters */
    int symbol_count;
    /* A dimension named only in results, found at run time: C gets int64_t *K. */
    struct { const char *name; ir_dim value; int64_t hi; } *result_symbols;
    int result_symbol_count;
    int value_count;  /* ids given out */
    struct span span;
    const char *doc;
};

/* train { … } as elaboration resolved it; for --main and `mxcc run`. */
struct ir_setting {
    const char *key;
    const struct ir_setting_value *value;
    struct span span;
};
struct ir_setting_value { /* a small tree: number, string, name of a function, or call with arguments */
    enum { SET_INT, SET_FLOAT, SET_STRING, SET_BOOL, SET_NONE, SET_NAME, SET_CALL, SET_BINARY, SET_LIST } kind;
    int64_t i;
    double f;
    const char *s;   /* STRING, NAME, CALL: function name; BINARY: the operator, "/" */
    const char **names; /* CALL: argument names or NULL entries */
    const struct ir_setting_value **args; /* CALL, BINARY (2), LIST */
    int count;
    struct span span;
};

struct ir_module {
    struct arena arena;
    struct diag *diag;
    const char *name;
    struct ir_symbol **symbols;
    int symbol_count, symbol_cap;
    struct ir_buffer **buffers;
    int buffer_count, buffer_cap;
    struct ir_func **funcs; /* exported ones in order of the source */
    int func_count, func_cap;
    /* Writes every buffer's initial value; for reset_all, states only. No arguments. */
    struct ir_func *init;
    struct ir_setting *settings; /* train { } ; NULL if none */
    int setting_count;
    const char *train_dir; /* the directory relative paths of `data` refer to */
    struct ir_interner *interner; /* private */
};

struct ir_module *ir_module_new(struct diag *d, const char *name);
void ir_module_free(struct ir_module *m);
struct ir_buffer *ir_buffer_new(struct ir_module *m, const char *name, enum buffer_kind kind, struct ir_type t, struct span span);
struct ir_func *ir_func_new(struct ir_module *m, const char *name, struct span span); /* not yet in m->funcs */
void ir_module_add_func(struct ir_module *m, struct ir_func *f);
/* `reset_all`: init without the params; not exported under that name. */
bool ir_func_is_reset(const struct ir_func *f);

/* ---- building --------------------------------------------------------------------------------------------------- */

/* Where new operations go: before `before`, or at the end of `region` if NULL. */
struct ir_builder {
    struct ir_module *module;
    struct ir_func *func;
    struct ir_region *region;
    struct ir_op *before;
    struct span span; /* given to new operations */
};

struct ir_region *ir_region_new(struct ir_func *f, struct ir_op *op);
struct ir_value *ir_region_arg(struct ir_region *r, struct ir_type t, const char *name);
void ir_region_yield(struct ir_region *r, struct ir_value **values, int n); /* replaces the yields */

/* A bare operation with `regions` empty regions (op->regions[i]); results by ir_op_result. */
struct ir_op *ir_op_new(struct ir_builder *b, enum ir_opcode code, struct ir_value **operands, int n, int regions);
struct ir_value *ir_op_result(struct ir_op *op, struct ir_type t);
void ir_op_remove(struct ir_op *op);             /* unlinks it; results must be unused */
void ir_op_move_before(struct ir_op *op, struct ir_op *before);
void ir_op_move(struct ir_op *op, struct ir_region *region, struct ir_op *before); /* before NULL: to its end */
int ir_op_add_operand(struct ir_op *op, struct ir_value *v); /* its slot; an existing one if present */

/* Common operations; all return the (first) result. */
struct ir_value *ir_build_const(struct ir_builder *b, struct ir_type t, const void *data); /* copies data */
struct ir_value *ir_build_int(struct ir_builder *b, enum dtype t, int64_t value);         /* rank 0 */
struct ir_value *ir_build_float(struct ir_builder *b, enum dtype t, double value);
struct ir_value *ir_build_reshape(struct ir_builder *b, struct ir_value *v, int rank, const ir_dim *dims);
/* A nest without reduction and with one fresh result: extents [rank], body over INDEX 0..rank-1. */
struct ir_value *ir_build_map(struct ir_builder *b, enum dtype t, int rank, const ir_dim *extents, ir_expr body,
                              struct ir_value **operands, int operand_count);
struct ir_value *ir_build_read(struct ir_builder *b, struct ir_buffer *buffer);
void ir_build_write(struct ir_builder *b, struct ir_buffer *buffer, struct ir_value *v);
/* The text of a print, piece by piece: a number of characters at *piece; IR_PRINT_OPERAND, the place of the next
 * operand, written `{}`; 0 at the end. Two braces `{{` stand for one. *text moves on. */
enum { IR_PRINT_OPERAND = -1, IR_PRINT_MAX = 4096 }; /* MAX: bytes of a line; longer ones are cut */
int ir_print_piece(const char **text, const char **piece);
/* A check; its result (rank 0 bool) orders what relies on it. */
struct ir_value *ir_build_check(struct ir_builder *b, struct ir_value *condition, const char *message);

/* ---- walking and changing ----------------------------------------------------------------------------------------- */

/* Every operation of a function, outer before inner, in order; fn may remove or expand the operation it is given. */
void ir_walk_ops(struct ir_region *r, void (*fn)(struct ir_op *, void *), void *context);
/* uses[value id]: operand and yield occurrences in the whole function. */
int *ir_count_uses(struct ir_func *f, struct arena *scratch);
/* Replaces every use of values[i] by map[value id] (NULL: keep) in one walk. Chains are followed. */
void ir_replace_values(struct ir_func *f, struct ir_value **map);
/* Copies the operations of `from` to the builder's place, with from's args mapped to `args`; outer values stay. The
 * yields' copies come back in `yields` [from->yield_count]. Symbols made by `dim` are renewed. */
struct ir_op *ir_copy_op(struct ir_builder *b, const struct ir_op *op); /* one operation at the builder's place, the same operands */
void ir_inline_region(struct ir_builder *b, const struct ir_region *from, struct ir_value **args, struct ir_value **yields);
/* Copying piece by piece, to one function, which may be another one. Operands that were neither copied nor mapped stay. */
struct ir_copier;
struct ir_copier *ir_copier_new(const struct ir_builder *b); /* to b's function */
void ir_copier_free(struct ir_copier *c);
void ir_copier_map(struct ir_copier *c, const struct ir_value *from, struct ir_value *to);
/* A new symbol of the function; types and expressions copied from now on speak of it. */
struct ir_symbol *ir_copier_symbol(struct ir_copier *c, const struct ir_symbol *old);
struct ir_op *ir_copier_op(struct ir_copier *c, struct ir_builder *b, const struct ir_op *op);
struct ir_value *ir_copier_value(const struct ir_copier *c, struct ir_value *v); /* its copy; v if it has none */
struct ir_type ir_copier_type(struct ir_copier *c, struct ir_type t);
bool ir_region_contains(const struct ir_region *outer, const struct ir_region *inner);
bool ir_value_defined_in(const struct ir_value *v, const struct ir_region *r); /* r or a region inside it */

/* ---- ranges of index expressions ----------------------------------------------------------------------------------- */

/* Inclusive symbolic bounds of an integer expression over a nest's indices (and of loads: their dtype's range, unknown
 * for i64 and u64); false if unknown. Reduction indices use their lo/hi. */
struct ir_range { ir_dim lo, hi; bool known; };
struct ir_range ir_expr_range(struct ir_module *m, const struct ir_nest *nest, ir_expr e);
enum inside { INSIDE, OUTSIDE, UNKNOWN };
/* Whether 0 <= e < extent for all iterations; OUTSIDE only if some iteration that surely runs leaves the extent. */
enum inside ir_index_inside(struct ir_module *m, const struct ir_nest *nest, ir_expr e, ir_dim extent);
/* Index algebra with ranges: (i * 4 + j) / 4 -> i, x % n -> x, guards that always or never hold. */
ir_expr ir_expr_simplify(struct ir_module *m, const struct ir_nest *nest, struct ir_value **operands, ir_expr e);

/* The place of an iteration among those of one reduction, row-major, each index counted from its lo: over hi - lo, the
 * window's own extents; an index whose bounds depend on reduction indices counts over its largest extent. */
ir_expr ir_nest_position(struct ir_module *m, const struct ir_nest *nest);
/* Whether a bound of reduction index i depends on other reduction indices. */
bool ir_nest_ragged_within(const struct ir_nest *nest, int i);

/* e as c0 + sum coefficient[k] * index k, with coefficients free of indices; false if not affine. */
bool ir_expr_affine(struct ir_module *m, ir_expr e, int indices, ir_dim *coefficients, ir_dim *constant);

#endif
