/* The loop IR: what lies between nests and the text of a program. Loops over integer indices, registers (scalar or
 * vector, single or in fully unrolled arrays), flat memory, loads and stores, calls of shared kernels. `lower` makes it
 * from nests, tuned kernels build it directly, and the C and CUDA printers print it and nothing else.
 *
 * Expressions are immutable trees; index arithmetic is on 64-bit integers that cannot overflow, model arithmetic is the
 * scalar functions of ir/scalar.def. A vector has the lanes of one machine register at most.
 */
#ifndef MXCC_IR_LOOP_H
#define MXCC_IR_LOOP_H

#include "base/text.h"
#include "ir/ir.h"

/* A register: a loop counter, a parameter, a value computed once, or an accumulator that is assigned again. */
struct loop_var {
    int id;
    const char *name;
    enum dtype dtype;
    int lanes;       /* 1: scalar */
    int count;       /* > 0: an array of registers, subscripted by constants once its loops are unrolled */
    bool is_mutable; /* assigned after its definition */
    bool bounded;    /* an index in least .. most */
    int64_t least, most;
};

enum loop_mem_kind {
    MEM_POINTER, /* `base` is its address in the function's scope */
    MEM_SCALAR,  /* a C variable by value: one element, no subscript */
    MEM_LOCAL,   /* an array of `count` elements in the enclosing block */
    MEM_PARAM,   /* a parameter of a shared kernel */
    MEM_SHARED,  /* an array of `count` elements that the threads of a block share */
};

struct loop_mem {
    int id;
    const char *name;
    enum dtype dtype;
    enum loop_mem_kind kind;
    const char *base; /* POINTER: the address as the unit writes it */
    int64_t count;    /* LOCAL, SHARED, a kernel's workspace: elements */
    bool written;     /* else const */
    bool no_alias;    /* nothing else in its scope reaches the same bytes */
};

enum lx_kind {
    LX_INT,   /* an index constant: value.i */
    LX_CONST, /* a model constant of dtype */
    LX_VAR,   /* var, [args[0]] if it is an array of registers */
    LX_OP,    /* index arithmetic or a comparison of indices: op */
    LX_LOAD,  /* mem at flat element args[0]; lanes > 1: contiguous from there */
    LX_FN,    /* model arithmetic: fn over args, lane by lane */
    LX_CAST,  /* args[0] to dtype as the language says */
    LX_BITCAST,
    LX_SPLAT,  /* scalar args[0] in all lanes */
    LX_LANE,   /* lane value.i of vector args[0] */
    LX_PACK,   /* a vector of scalars */
    LX_FMA,    /* args[0] * args[1] + args[2]; rounded once where the target has the instruction */
    LX_SELECT, /* args[0] ? args[1] : args[2]; only the side taken is evaluated */
    LX_CALL,   /* helper function `name` of the runtime text over args (Philox) */
    LX_SHUFFLE, /* args[0] as the thread has it whose number differs in the bits value.i < 32; all 32 threads of a warp ask */
};

enum lx_op { I_ADD, I_SUB, I_MUL, I_DIV, I_MOD, I_FDIV, I_FMOD, I_MIN, I_MAX, I_LT, I_LE, I_EQ, I_AND, I_OR, I_NOT };
/* DIV and MOD take a dividend >= 0 and a divisor > 0; FDIV and FMOD round to minus infinity, and give 0 for divisor 0. */

struct lx {
    enum lx_kind kind;
    enum dtype dtype; /* I64 for indices, BOOL for comparisons */
    int lanes;
    int op; /* enum lx_op or enum scalar_fn */
    const struct loop_var *var;
    const struct loop_mem *mem;
    const char *name;
    union {
        int64_t i;
        double f;
    } value;
    int count;
    const struct lx *args[];
};
typedef const struct lx *lx;

enum loop_kind {
    LOOP_SERIAL,
    LOOP_PARALLEL,
    LOOP_UNROLL,
    LOOP_GRID, /* over blocks of threads, in any order and at once: a kernel of a GPU. The body is shared memories and one THREADS loop */
    LOOP_THREADS, /* from 0 to a constant: the threads of a block, side by side; they meet at barriers */
};

enum loop_stmt_kind {
    LS_FOR,     /* var from lo below hi by step (a constant > 0) */
    LS_IF,      /* cond, body, other */
    LS_DEF,     /* defines var = value; an array of registers: no value */
    LS_SET,     /* var[index] = value */
    LS_STORE,   /* mem[index] = value, or += with `accumulate` */
    LS_LOCAL,   /* declares mem (LOCAL, SHARED) */
    LS_COMMENT, /* text */
    LS_CALL,    /* callee(args…): mems with offsets first, then expressions */
    LS_BARRIER, /* every thread of the block gets here before one goes on; what they wrote is seen by all */
};

struct loop_block {
    struct loop_stmt *first, **last;
};

struct loop_stmt {
    enum loop_stmt_kind kind;
    struct loop_stmt *next;
    struct loop_var *var;
    lx lo, hi;
    int64_t step;
    enum loop_kind loop;
    lx cond;
    lx value, index;
    struct loop_mem *mem;
    const char *text;
    struct loop_block body, other;
    const struct loop_func *callee;
    struct {
        const struct loop_mem *mem;
        lx offset;
    } * call_mems;
    lx *call_args;
};

/* A shared kernel: a static function of the unit over its memories and integer or scalar parameters. */
struct loop_func {
    const char *name, *text; /* text: the comment above it */
    bool is_helper;          /* of the scalar text, called as name(vars…, mems…) */
    struct loop_mem **mems;
    int mem_count;
    struct loop_var **vars;
    int var_count;
    struct loop_block body;
    int64_t stack_bytes; /* of its local arrays and those it calls, once it is printed */
};

/* ---- building --------------------------------------------------------------------------------------------------- */

struct loop_builder {
    struct arena *arena;
    int next_id; /* of vars and mems */
};

lx lx_int(struct loop_builder *b, int64_t value);
lx lx_const_float(struct loop_builder *b, enum dtype t, double value);
lx lx_const_int(struct loop_builder *b, enum dtype t, int64_t value);
lx lx_var(struct loop_builder *b, const struct loop_var *v);
lx lx_var_at(struct loop_builder *b, const struct loop_var *v, lx at);
/* Index arithmetic; folds constants and the identities. */
lx lx_op(struct loop_builder *b, enum lx_op op, lx x, lx y);
lx lx_add(struct loop_builder *b, lx x, lx y);
lx lx_sub(struct loop_builder *b, lx x, lx y);
lx lx_mul(struct loop_builder *b, lx x, lx y);
lx lx_div(struct loop_builder *b, lx x, lx y); /* operands >= 0 */
lx lx_mod(struct loop_builder *b, lx x, lx y);
lx lx_min(struct loop_builder *b, lx x, lx y);
lx lx_load(struct loop_builder *b, const struct loop_mem *m, lx at, int lanes);
lx lx_fn(struct loop_builder *b, enum scalar_fn fn, enum dtype t, int count, const lx *args);
lx lx_fn2(struct loop_builder *b, enum scalar_fn fn, lx x, lx y);
lx lx_cast(struct loop_builder *b, enum dtype t, lx x);
lx lx_bitcast(struct loop_builder *b, enum dtype t, lx x);
lx lx_splat(struct loop_builder *b, lx x, int lanes);
lx lx_lane(struct loop_builder *b, lx x, int lane);
lx lx_pack(struct loop_builder *b, int lanes, const lx *args);
lx lx_fma(struct loop_builder *b, lx x, lx y, lx z);
lx lx_select(struct loop_builder *b, lx c, lx x, lx y);
lx lx_shuffle(struct loop_builder *b, lx x, int bits);
lx lx_call(struct loop_builder *b, const char *name, enum dtype t, int count, const lx *args);
bool lx_is_int(lx e, int64_t *value);
/* A dimension as index arithmetic; symbol(context, s) gives the register of a symbol. */
lx lx_dim(struct loop_builder *b, ir_dim d, lx (*symbol)(void *, const struct ir_symbol *), void *context);

struct loop_var *loop_var_new(struct loop_builder *b, const char *name, enum dtype t, int lanes);
struct loop_mem *loop_mem_new(struct loop_builder *b, const char *name, enum dtype t, enum loop_mem_kind kind);

void loop_block_init(struct loop_block *k);
void loop_append(struct loop_block *k, struct loop_stmt *s);
void loop_append_block(struct loop_block *k, struct loop_block *from); /* moves */
struct loop_stmt *loop_for(struct loop_builder *b, struct loop_block *k, struct loop_var *v, lx lo, lx hi, int64_t step,
                           enum loop_kind kind);
struct loop_stmt *loop_if(struct loop_builder *b, struct loop_block *k, lx cond);
void loop_def(struct loop_builder *b, struct loop_block *k, struct loop_var *v, lx value);
void loop_set(struct loop_builder *b, struct loop_block *k, struct loop_var *v, lx index, lx value);
void loop_store(struct loop_builder *b, struct loop_block *k, struct loop_mem *m, lx index, lx value);
void loop_local(struct loop_builder *b, struct loop_block *k, struct loop_mem *m);
void loop_comment(struct loop_builder *b, struct loop_block *k, const char *text);
void loop_barrier(struct loop_builder *b, struct loop_block *k);
struct loop_stmt *loop_call(struct loop_builder *b, struct loop_block *k, const struct loop_func *f);

/* Calls fn for each expression of a block, children first, and on_stmt for each statement, outer first. Either may be NULL. */
void loop_walk(const struct loop_block *k, void (*fn)(lx, void *), void (*on_stmt)(const struct loop_stmt *, void *),
               void *context);
void lx_walk(lx e, void (*fn)(lx, void *), void *context);
/* Removes definitions of registers from number `first` on that nothing in the block reads. */
void loop_drop_unused(struct loop_builder *b, struct loop_block *k, int first);

/* ir/loop_range.c: the interval of an index whose every part fits 32 bits; false if that is not known. */
bool lx_range(lx e, int64_t *lo, int64_t *hi);
void loop_var_bound(struct loop_var *v, int64_t least, int64_t most);

/* ir/loop_print.c: for people and for tests. */
void loop_print(struct text *out, const struct loop_block *k, int indent);
void lx_print(struct text *out, lx e);
/* Registers defined before use and once, lanes and types that agree, constant steps, unrolled loops with constant bounds,
 * vectors of at most `vector_bytes`. False with a message appended to `why`. */
bool loop_verify(const struct loop_block *k, const struct loop_func *f, int vector_bytes, struct text *why);

#endif
